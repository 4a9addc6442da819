// Writes tests/lib/schedules.tsv: what independent implementations say is the next firing, for
// test_schedule.py. Run in a folder where `npm install croner cron-parser` was done:
//
//     node schedule_reference.mjs >schedules.tsv
//
// Each line is EXPRESSION, FROM (seconds of the epoch), then for each zone of the header line the
// seconds from FROM to the next firing, or "never"; then two letters for each zone, of croner and of
// cron-parser: "=" says the same, "-" does not read the expression, anything else says otherwise, and
// why (WHY below). The expected value is that of a third implementation, written here after
// crontab(5) and cron(8) of cronie and cron.c's find_jobs(): where all agree it is theirs too.
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const { Cron } = require("croner");
const { CronExpressionParser } = require("cron-parser");
const version = (name) => {
  let path = require.resolve(name);
  for (;;) {
    path = path.slice(0, path.lastIndexOf("/"));
    try {
      const p = require(path + "/package.json");
      if (p.name === name) return p.version;
    } catch { /* one folder further up */ }
  }
};

const ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata",
  "America/Santiago", "Pacific/Apia"];
const WHY = {
  g: "clocks go forward: a fixed time in the gap runs at its end, once; others do not exist",
  b: "clocks go back: a fixed time runs once, a wild one twice",
  d: "day of month and day of week are both needed when one begins with *",
  s: "a whole day that does not exist is nothing to make up for",
  w: "the weekday nearest to a day that the month has not is none of its days",
};
const CASES = 2200;

// --- random numbers: the same file each time
let seed = 20261123n;
const roll = (n) => {
  seed = (seed * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n);
  return Number(seed >> 33n) % n;
};
const pick = (list) => list[roll(list.length)];

// --- the clock of a zone, out of the ICU of node
const DAY = 86400;
const formats = new Map(ZONES.map((zone) => [zone, new Intl.DateTimeFormat("en-US", {
  timeZone: zone, hourCycle: "h23", year: "numeric", month: "numeric", day: "numeric",
  hour: "numeric", minute: "numeric", second: "numeric" })]));
const offsetOf = (zone, t) => {
  const p = {};
  for (const { type, value } of formats.get(zone).formatToParts(t * 1000)) p[type] = Number(value);
  return Date.UTC(p.year, p.month - 1, p.day, p.hour, p.minute, p.second) / 1000 - t;
};
const FIRST = Date.UTC(2008, 0, 1) / 1000, LAST = Date.UTC(2085, 0, 1) / 1000;
const changes = new Map();
for (const zone of ZONES) {
  const list = [];
  let before = offsetOf(zone, FIRST);
  for (let t = FIRST; t < LAST; t += DAY) {
    const after = offsetOf(zone, t + DAY);
    if (after === before) continue;
    let low = t, high = t + DAY;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (offsetOf(zone, middle) === before) low = middle; else high = middle;
    }
    list.push({ at: high, before, after });
    before = after;
  }
  changes.set(zone, list);
}
const offset = (zone, t) => {
  let o = changes.get(zone).length ? changes.get(zone)[0].before : offsetOf(zone, FIRST);
  for (const c of changes.get(zone)) {
    if (c.at > t) break;
    o = c.after;
  }
  return o;
};

// --- cronie, day by day
const MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const numberOf = (word, names, base) =>
  names && names.indexOf(word.toUpperCase()) >= 0 ? names.indexOf(word.toUpperCase()) + base : Number(word);
const list = (field, low, high, names, base) => {
  const set = new Set();
  for (const part of field.split(",")) {
    const [range, step] = part.split("/");
    let from, to;
    if (range === "*" || range === "?") [from, to] = [low, high];
    else {
      const ends = range.split("-").map((w) => numberOf(w, names, base));
      from = ends[0];
      to = ends.length > 1 ? ends[1] : step ? high : ends[0];
    }
    for (let n = from; n <= to; n += step ? Number(step) : 1) set.add(n);
  }
  return set;
};
const lengthOf = (y, m) => new Date(Date.UTC(y, m, 0)).getUTCDate();
const weekdayOf = (y, m, d) => new Date(Date.UTC(y, m - 1, d)).getUTCDay();
const nearest = (y, m, d) => {
  const length = lengthOf(y, m);
  if (d > length) return 0;
  const w = weekdayOf(y, m, d);
  if (w === 6) return d === 1 ? 3 : d - 1;
  if (w === 0) return d === length ? d - 2 : d + 1;
  return d;
};
const dayFits = (field, y, m, d) => field.split(",").some((part) => {
  const length = lengthOf(y, m);
  if (part === "L") return d === length;
  if (part === "LW") return d === nearest(y, m, length);
  if (/^L-\d+$/.test(part)) return d === length - Number(part.slice(2));
  if (/^\d+W$/.test(part)) return d === nearest(y, m, parseInt(part, 10));
  return list(part, 1, 31).has(d);
});
const weekdayFits = (field, y, m, d) => field.split(",").some((part) => {
  const w = weekdayOf(y, m, d);
  const special = /^(\w+?)(L|#(\d))$/.exec(part);
  if (special && part !== "L") {
    if (numberOf(special[1], DAYS, 0) % 7 !== w) return false;
    return special[2] === "L" ? d + 7 > lengthOf(y, m) : Math.ceil(d / 7) === Number(special[3]);
  }
  const set = list(part, 0, part.startsWith("*") || /^\d\//.test(part) ? 6 : 7, DAYS, 0);
  return set.has(w) || (w === 0 && set.has(7));
});
const model = (expression, zone, from) => {
  const f = expression.split(" ");
  if (f.length === 5) f.unshift("0");
  const seconds = [...list(f[0], 0, 59)].sort((a, b) => a - b);
  const minutes = [...list(f[1], 0, 59)].sort((a, b) => a - b);
  const hours = [...list(f[2], 0, 23)].sort((a, b) => a - b);
  const months = list(f[4], 1, 12, MONTHS, 1);
  const wild = /^\*/.test(f[1]) || /^\*/.test(f[2]) || (expression.split(" ").length === 6 && /^\*/.test(f[0]));
  const both = /^[*?]/.test(f[3]) || /^[*?]/.test(f[5]);
  let best = Infinity;
  const local = from + offset(zone, from);
  for (let day = Math.floor(local / DAY) - 1; day * DAY < local + 45 * 366 * DAY; day++) {
    // what is found today cannot be before what a later day has, but for changes of the clocks
    if (best < Infinity && day * DAY > best + offset(zone, best) + 2 * DAY) break;
    const date = new Date(day * DAY * 1000);
    const [y, m, d] = [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate()];
    if (!months.has(m)) continue;
    const a = dayFits(f[3], y, m, d), b = weekdayFits(f[5], y, m, d);
    if (both ? !(a && b) : !(a || b)) continue;
    const start = day * DAY;
    const near = changes.get(zone).filter((c) => Math.abs(c.at - start) < 3 * DAY);
    const offsets = new Set([offset(zone, start - 2 * DAY), offset(zone, start + 2 * DAY),
      ...near.flatMap((c) => [c.before, c.after])]);
    for (const h of hours) for (const minute of minutes) {
      const at = start + h * 3600 + minute * 60;
      if (at + 60 + 2 * DAY < local || at - 2 * DAY > best + 14 * 3600) continue;
      for (const second of seconds) {
        const moments = [];
        for (const o of offsets)
          if (offset(zone, at + second - o) === o) moments.push(at + second - o);
        moments.sort((x, y2) => x - y2);
        if (moments.length === 0 && !wild) {
          const gap = near.find((c) => c.after > c.before && c.after - c.before < 3 * 3600 &&
            at + second >= c.at + c.before && at + second < c.at + c.after);
          if (gap) moments.push(gap.at);
        }
        if (moments.length > 1 && !wild && moments[1] - moments[0] < 3 * 3600) moments.length = 1;
        for (const t of moments) if (t > from && t < best) best = t;
      }
    }
  }
  return best;
};

// --- the others
const croner = (expression, zone, from) => {
  const next = new Cron(expression, { timezone: zone, paused: true }).nextRun(new Date(from * 1000));
  return next ? next.getTime() / 1000 : Infinity;
};
const parser = (expression, zone, from) => {
  try {
    return CronExpressionParser.parse(expression, { currentDate: new Date(from * 1000), tz: zone })
      .next().getTime() / 1000;
  } catch (e) {
    if (/Out of the time|loop limit|Invalid explicit day/i.test(e.message)) return Infinity;
    throw e;
  }
};

// --- expressions and moments
const range = (low, high) => {
  const a = low + roll(high - low + 1), b = low + roll(high - low + 1);
  return `${Math.min(a, b)}-${Math.max(a, b)}`;
};
const simple = (low, high) => String(low + roll(high - low + 1));
const timeField = (low, high, stars) => {
  const r = roll(10);
  if (r < stars) return pick(["*", "*", `*/${pick([2, 3, 5, 7, 10, 15, 20, 25, 30])}`]);
  if (r < stars + 4) return simple(low, high);
  if (r === stars + 4) return `${range(low, high)}/${1 + roll(9)}`;
  if (r === stars + 5) return range(low, high);
  return [simple(low, high), pick([simple(low, high), range(low, high)])].join(",");
};
const dayField = () => {
  const r = roll(20);
  if (r < 11) return "*";
  if (r < 14) return simple(1, 31);
  if (r === 14) return range(1, 31);
  if (r === 15) return `${simple(1, 15)},${simple(16, 31)}`;
  if (r === 16) return `*/${2 + roll(10)}`;
  return pick(["L", "L", "LW", `${simple(1, 31)}W`, "L-3", "15W"]);
};
const monthField = () => {
  const r = roll(12);
  if (r < 8) return "*";
  if (r === 8) return simple(1, 12);
  if (r === 9) return pick(MONTHS);
  if (r === 10) return `*/${2 + roll(5)}`;
  return pick(["3,10", "2-4", "MAR-NOV", "2"]);
};
const weekdayField = () => {
  const r = roll(20);
  if (r < 11) return "*";
  if (r < 13) return simple(0, 7);
  if (r === 13) return pick(DAYS);
  if (r === 14) return pick(["1-5", "MON-FRI", "5-7", "0-3", "6,0"]);
  if (r === 15) return "?";
  return pick([`${simple(0, 6)}#${1 + roll(5)}`, `${simple(0, 6)}L`, "1#1,3#3", "5L"]);
};
const expression = () => {
  const minuteStars = pick([0, 0, 3]), hourStars = pick([0, 0, 4]);
  const fields = [timeField(0, 59, minuteStars), pick([timeField(0, 23, hourStars), simple(0, 4), range(0, 4)]),
    dayField(), monthField(), weekdayField()];
  if (roll(6) === 0) fields.unshift(pick([simple(0, 59), "0", "*/20", "15,45", "0,30"]));
  return fields.join(" ");
};
const moment = () => {
  if (roll(3) > 0) { // around a change of the clocks of one zone
    const zone = pick(ZONES.filter((z) => changes.get(z).length > 0));
    const all = changes.get(zone).filter((c) => c.at < Date.UTC(2045, 0, 1) / 1000);
    const c = pick(all);
    return c.at - 4 * 3600 + pick([0, roll(8 * 3600), 60 * roll(480)]) - pick([0, 0, 0, DAY]);
  }
  if (roll(12) === 0) return Date.UTC(2011, 11, 29, 6) / 1000 + roll(2 * DAY); // Apia
  return Date.UTC(2010, 0, 1) / 1000 + roll(34 * 365 * DAY / 1);
};

// --- why another implementation says otherwise
const why = (text, zone, from, ours, theirs) => {
  const f = text.split(" ").slice(-3);
  const low = Math.min(ours, theirs), high = Math.max(ours, theirs);
  const near = (c) => c.at >= Math.min(from, low) - 3 * 3600 && c.at <= (high < Infinity ? high : low) + 3 * 3600;
  const around = changes.get(zone).filter(near);
  const touching = around.filter((c) => [ours, theirs].some((t) => Math.abs(t - c.at) < 26 * 3600) || Math.abs(from - c.at) < 5 * 3600);
  if (/^\*\//.test(f[0]) && f[2] !== "*" && f[2] !== "?") return "d";
  if (/^[*?]/.test(f[2]) && f[2].length > 1 && f[0] !== "*") return "d";
  if (/W/.test(f[0]) && !/LW/.test(f[0]) && parseInt(f[0], 10) > 28) return "w";
  if (touching.some((c) => Math.abs(c.after - c.before) >= 3 * 3600)) return "s";
  if (touching.some((c) => c.after > c.before)) return "g";
  if (touching.some((c) => c.after < c.before)) return "b";
  return "!";
};

const agreeing = { croner: 0, parser: 0, all: 0 }, differing = {};
const lines = [];
while (lines.length < CASES) {
  const text = expression(), from = moment();
  const values = [], notes = [];
  for (const zone of ZONES) {
    const ours = model(text, zone, from);
    let note = "", same = 0;
    for (const [name, other] of [["croner", croner], ["parser", parser]]) {
      let theirs;
      try { theirs = other(text, zone, from); } catch { note += "-"; continue; }
      if (theirs === ours) {
        note += "=";
        agreeing[name]++;
        same++;
        continue;
      }
      const reason = why(text, zone, from, ours, theirs);
      note += reason;
      differing[name + " " + reason] = (differing[name + " " + reason] || 0) + 1;
      if (reason === "!") console.error(text, zone, from, new Date(from * 1000).toISOString(), name,
        "ours", ours === Infinity ? "never" : new Date(ours * 1000).toISOString(),
        "theirs", theirs === Infinity ? "never" : new Date(theirs * 1000).toISOString());
    }
    agreeing.all += same === 2;
    values.push(ours === Infinity ? "never" : ours - from);
    notes.push(note);
  }
  lines.push([text, from, ...values, notes.join(" ")].join("\t"));
}
console.log(`# croner ${version("croner")}, cron-parser ${version("cron-parser")}, node ${process.versions.node}, tz ${process.versions.tz}`);
for (const [letter, text] of Object.entries(WHY)) console.log(`# ${letter}: ${text}`);
console.log(["expression", "from", ...ZONES, "croner and cron-parser"].join("\t"));
for (const line of lines) console.log(line);
console.error(agreeing, differing);

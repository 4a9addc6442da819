#!/usr/bin/python3
"""baton jobs, history, output, run, pause, resume: on rows as the job worker writes them, with no
instance running. (The job worker itself: test_jobs*.py.)"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *

TEXT = """
[scheduler]
database = {folder}/baton.db
ttl = 3s
heartbeat = 300ms
kill_grace = 500ms
[job:backup]
schedule = 30 2 * * *
timezone = UTC
command = true
[job:mail]
schedule = @every 90s
command = true
[job:off]
schedule = @daily
command = true
enabled = no
"""
MINUTE = 60 * 1000000


def now_us():
    return time.time_ns() // 1000


class Site:
    """A configuration and a database that an instance has made; none runs now."""

    def __init__(self, ledger=True):
        self.folder = folder()
        self.config = os.path.join(self.folder, "baton.ini")
        self.database = os.path.join(self.folder, "baton.db")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(TEXT.format(folder=self.folder))
        if not ledger:
            return
        one = Instance(f"""
            [scheduler]
            database = {self.database}
            ttl = 3s
            heartbeat = 300ms
            kill_grace = 500ms
            [program:web]
            command = sleep 1000
            executor = candidate
            workers = 1
        """)
        one.wait_for("executor", 10)
        one.stop()

    def sql(self, text, *values):
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as db, db:
            return db.execute(text, values).fetchall()

    def jobs(self, *words, status=0, timeout=20):
        return baton("jobs", *words, "-c", self.config, status=status, timeout=timeout)

    def json(self, *words, status=0):
        return json.loads(self.jobs(*words, "--json", status=status).out)

    def run(self, job, number, state, started=None, took_us=0, cause="schedule", output=None,
            **more):
        """A row as the job worker's ledger writes it."""
        started = started or now_us() - 10 * MINUTE
        row = {"job": job, "fire_time": started, "attempt": 1, "term": 1, "run": number,
               "status": state, "cause": cause, "claimed_at": started, "started_at": started,
               "ended_at": None if state in ("running", "queued") else started + took_us,
               "program": "jobs", "instance": "i", "hostname": "host", "worker": "jobs:0",
               "owner": 7, "output": output, "output_bytes": len(output or b""), **more}
        self.sql(f"INSERT INTO job_run({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                 *row.values())
        self.sql("INSERT INTO job_state(job) VALUES (?) ON CONFLICT DO NOTHING", job)

    def be_executor(self):
        """The row says that somebody runs the jobs. (On another machine: no guard.)"""
        term = self.sql("SELECT term FROM scheduler_lock")[0][0] + 1
        self.sql("UPDATE scheduler_lock SET term = ?, epoch = ?, state = 1, holder = 'i',"
                 " hostname = 'host', pid = 4711, guard_ino = 0, ttl_ms = 3000", term, term)
        self.sql("INSERT INTO executor VALUES ('jobs', ?, 'jobs:0', 4712, 0)", term)
        return term


class Background:
    """A command that is still running."""

    def __init__(self, site, *words):
        self.process = subprocess.Popen([BATON, "jobs", *words, "-c", site.config],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self):
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


def ring(site):
    with open(site.database + "-jobs", "r+b", buffering=0) as f:
        f.write(b"\n")


@test("without a database: the table is that of the file, nobody runs it; nothing is made")
def _():
    site = Site(ledger=False)
    out = site.jobs().out
    check("nobody runs them now" in out, out)
    check(re.search(r"^backup +- +never +in \S+", out, re.M), out)
    check(re.search(r"^off +disabled", out, re.M), out)
    equal(site.json("history"), [], "history")
    equal(site.jobs("history").out, "no runs\n", "history")
    said = site.jobs("run", "backup", status=3).err
    check("no instance runs jobs now" in said and "--timeout" in said, said)
    said = site.jobs("pause", "backup", status=1).err
    check("there is no lock database" in said, said)
    equal(sorted(os.listdir(site.folder)), ["baton.ini"], "files")


@test("the table: state, last, duration, next; also of jobs in nobody's file here")
def _():
    site = Site()
    site.run("backup", 1, "ok", took_us=63 * 1000000)
    site.run("mail", 2, "failed", exit_code=3)
    site.run("mail", 3, "running", started=now_us() - 90 * 1000000)
    site.run("mail", 4, "queued", started=now_us())
    site.run("web:nightly", 5, "claimed", cause="application")
    site.sql("INSERT INTO job_state(job, schedule, timezone, instance, hostname)"
             " VALUES ('there', '0 3 * * *', 'UTC', 'i', 'other-host'),"
             " ('gone', '0 3 * * *', 'UTC', NULL, NULL)")
    site.jobs("pause", "backup")
    check(re.search(r"^there +- +never +- +0 3", site.jobs().out, re.M), "nobody fires it now")
    site.be_executor()
    out = site.jobs().out
    check(re.search(r"^backup +paused +ok 10m 0s ago +1m 3s +- ", out, re.M), out)
    check(re.search(r"^gone +- +never +- +0 3 \* \* \* \(no longer in the file\)$", out, re.M), out)
    check(re.search(r"^mail +running 1m 30s, queued 1 +failed 10m 0s ago +0ms +in ", out, re.M), out)
    check(re.search(r"^there +- +never +in .* 0 3 \* \* \* \(not in this file: other-host\)", out,
                    re.M), out)
    check(re.search(r"^web:nightly +- +claimed .* of an application$", out, re.M), out)
    rows = {row["name"]: row for row in site.json()["jobs"]}
    equal(list(rows), ["backup", "gone", "mail", "off", "there", "web:nightly"], "names")
    equal((rows["backup"]["next"], rows["gone"]["next"]), (None, None), "next of who does not fire")
    equal((rows["backup"]["paused"], rows["mail"]["paused"]), (True, False), "paused")
    equal(rows["backup"]["last"]["duration_ms"], 63000, "duration")
    equal([run["run"] for run in rows["mail"]["open"]], [3, 4], "open runs")
    equal((rows["mail"]["last"]["exit_code"], rows["mail"]["last"]["status"]), (3, "failed"),
          "last of mail")
    equal((rows["there"]["in_file"], rows["off"]["enabled"], rows["off"]["next"]),
          (False, False, None), "there, off")
    check(rows["there"]["next"].endswith("T03:00:00.000Z"), rows["there"]["next"])


@test("the table says who runs the jobs, and fits in 80 columns; a run without a start goes by its claim")
def _():
    site = Site()
    site.run("backup", 1, "ok", took_us=1000)
    site.run("mail", 2, "running", started=now_us() - 90 * 1000000)
    site.sql("UPDATE job_run SET started_at = NULL WHERE run = 2")
    check(re.search(r"^mail +running 1m 30s ", site.jobs().out, re.M), site.jobs().out)
    equal([row["started_at"] for row in site.json("history", "mail")], [None], "started_at")
    site.be_executor()
    out = site.jobs().out
    check(out.startswith("run by jobs:0 (pid 4712) of pid 4711 on host\n"), out)
    check(max(len(line) for line in out.splitlines()) <= 80, out)
    equal(site.json()["executor"]["worker"], "jobs:0", "executor")


@test("where only applications have jobs nobody is missed who would run them")
def _():
    site = Site()
    with open(site.config, "w", encoding="utf-8") as f:
        f.write(TEXT.format(folder=site.folder).partition("[job:")[0] + "[program:web]\ncommand = true\n")
    check(site.jobs().out.startswith("no jobs: add [job:NAME]"), "without any")
    site.run("web:nightly", 1, "claimed", cause="application")
    out = site.jobs().out
    check(out.startswith("JOB ") and "of an application" in out, out)


@test("history: newest first, of one job, failures, since, as many as asked")
def _():
    site = Site()
    for number in range(1, 31):
        site.run("mail" if number % 3 else "backup", number, "ok" if number % 5 else "failed",
                 started=now_us() - (31 - number) * 60 * MINUTE, took_us=1500000,
                 exit_code=0 if number % 5 else 7)
    runs = [row["run"] for row in site.json("history")]
    equal(runs, list(range(30, 10, -1)), "runs")
    equal([row["run"] for row in site.json("history", "backup", "-n", "3")], [30, 27, 24], "backup")
    equal([row["run"] for row in site.json("history", "--failed")], [30, 25, 20, 15, 10, 5],
          "failures")
    equal([row["run"] for row in site.json("history", "--since", "150m")], [30, 29], "since 150m")
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 150 * 60))
    equal([row["run"] for row in site.json("history", "--since", since)], [30, 29], "since")
    out = site.jobs("history", "-n", "1").out
    check(re.search(r"^30 +backup +\d\d-\d\d \S+ +1s +schedule +failed: exit status 7$", out, re.M),
          out)
    equal(site.jobs("history", "off").out, "no runs\n", "a job that never ran")
    said = site.jobs("history", "bakcup", status=1).err
    check("did you mean 'backup'?" in said, said)
    for words in (["-n", "0"], ["-n", "x"], ["--since", "yesterday"], ["a", "b"], ["--timeout", "1s"]):
        site.jobs("history", *words, status=2)


@test("history: which firing it was, how late it began, why it did not; in 80 columns")
def _():
    site = Site()
    due = 1740796200 * 1000000
    site.run("application-of-a-name", 1, "missed", cause="catch-up", fire_time=now_us() - 50 * MINUTE,
             started_at=None)
    site.run("backup", 2, "failed", cause="catch-up", exit_code=127, fire_time=now_us() - 15 * MINUTE)
    site.run("backup", 3, "skipped", started_at=None)
    site.run("backup", 4, "skipped", fire_time=due, started_at=None, reason="the queue is full")
    rows = site.jobs("history").out.splitlines()
    equal(rows[0].split(), ["RUN", "JOB", "DUE", "(UTC)", "LATE", "TOOK", "CAUSE", "RESULT"], "titles")
    check(re.search(r"^4 +backup +2025-03-01 02:30 +- +- +schedule +skipped: the queue is full$", rows[1]),
          rows[1])
    check(re.search(r" +- +- +schedule +skipped: the one before still ran$", rows[2]), rows[2])
    at = time.strftime("%m-%d %H:%M", time.gmtime(time.time() - 15 * 60))
    check(re.search(rf"^2 +backup +(?:\d+-)?{at}\S* +5m 0s +0ms +catch-up +failed: exit", rows[3]), rows[3])
    check(re.search(r"^1 +application-of-a-name +\S+ \S+ +- +- +catch-up +missed$", rows[4]), rows[4])
    check(rows[0].index("RESULT") <= 70, rows)


@test("output: of the last run that started, of the one named, bytes as they are")
def _():
    site = Site()
    said = site.jobs("output", "backup", status=1).err
    check("has not run yet" in said, said)
    site.run("backup", 1, "ok", output=b"first\n")
    site.run("backup", 2, "failed", output=b"tail of it\n", started=now_us() - 5 * MINUTE,
             output_bytes=5000)
    site.run("backup", 3, "skipped", started=now_us() - MINUTE)
    site.run("mail", 4, "ok", output=b"a\xff\xc3\xa4\x00\xe2\x82", started=now_us() - MINUTE)
    got = site.jobs("output", "backup")
    equal(got.out, "tail of it\n", "output")
    check("run 2 wrote 5000 bytes, the last 11 are kept" in got.err, got.err)
    equal(site.jobs("output", "backup", "1").out, "first\n", "of run 1")
    said = site.jobs("output", "backup", "3", status=1).err
    check("did not start" in said, said)
    said = site.jobs("output", "backup", "4", status=1).err
    check("no run 4 of 'backup'" in said, said)
    raw = subprocess.run([BATON, "jobs", "output", "mail", "-c", site.config], capture_output=True,
                         check=True).stdout
    equal(raw, b"a\xff\xc3\xa4\x00\xe2\x82", "bytes")
    equal(site.json("output", "mail")["output"], "a\ufffd\u00e4\x00\ufffd\ufffd", "as JSON")
    site.jobs("output", status=2)
    site.jobs("output", "mail", "first", status=2)
    site.run("backup", 5, "running", started=now_us())
    got = site.jobs("output", "backup")
    equal(got.out, "tail of it\n", "output of the last one that ended")
    check("run 5 of 'backup' is running: its output is kept at its end; this is that of run 2" in got.err,
          got.err)
    equal(site.json("output", "backup")["run"], 2, "as JSON")
    said = site.jobs("output", "backup", "5", status=1).err
    check("run 5 of 'backup' is running: its output is kept at its end\n" in said, said)
    site.run("off", 6, "queued", started=now_us())
    said = site.jobs("output", "off", status=1).err
    check("run 6 of 'off' waits for its turn" in said and "no run before has any" in said, said)


@test("pause and resume: all names or none; said twice they say so; the worker is rung")
def _():
    site = Site()
    with open(site.database + "-jobs", "w"):
        pass
    before = os.stat(site.database + "-jobs").st_mtime_ns
    equal(site.jobs("pause", "backup", "mail").out, "backup: paused\nmail: paused\n", "pause")
    check(os.stat(site.database + "-jobs").st_mtime_ns > before, "nobody was rung")
    equal(site.jobs("pause", "mail").out, "mail: was paused\n", "again")
    said = site.jobs("resume", "mail", "bakup", status=1).err
    check("did you mean 'backup'?" in said, said)
    equal(sorted(site.sql("SELECT job FROM job_pause")), [("backup",), ("mail",)], "paused")
    equal(site.jobs("resume", "mail", "backup").out, "mail: resumed\nbackup: resumed\n", "resume")
    equal(site.jobs("resume", "mail").out, "mail: was not paused\n", "again")
    equal(site.sql("SELECT job FROM job_pause"), [], "paused")
    site.jobs("pause", status=2)


@test("run: asked for, seen by the executor, withdrawn when the time is over")
def _():
    site = Site()
    said = site.jobs("run", "nosuch", status=1).err
    check("there is no job 'nosuch'" in said, said)
    said = site.jobs("run", "backup", status=3).err
    check("no instance runs jobs now" in said, said)
    equal(site.sql("SELECT count(*) FROM job_request"), [(0,)], "requests")
    said = site.jobs("run", "backup", "--timeout", "300ms", status=1).err
    check("no instance runs jobs, and --timeout has passed" in said and "withdrawn" in said, said)
    equal(site.sql("SELECT state FROM job_request"), [("withdrawn",)], "state")
    site.be_executor()
    check("requested" in site.jobs("run", "backup").out, "requested")
    job, by, state = site.sql("SELECT job, requested_by, state FROM job_request WHERE"
                              " state = 'pending'")[0]
    check(job == "backup" and "@" in by, f"{job} {by}")
    said = site.jobs("run", "backup", "--wait", "--timeout", "300ms", status=125).err
    check("--timeout has passed; the request is withdrawn" in said, said)
    equal(site.json("run", "off")["job"], "off", "a disabled one runs by hand")
    rows = {row["name"]: row for row in site.json()["jobs"]}
    equal((rows["backup"]["requested"], rows["off"]["requested"]), (1, 1), "requested")
    site.run("web:nightly", 5, "claimed", cause="application")
    said = site.jobs("run", "web:nightly", status=1).err
    check("run by an application itself" in said, said)


@test("run --wait: output and status of the run, however it ends")
def _():
    site = Site()
    site.be_executor()
    cases = [("ok", {"exit_code": 0}, 0), ("failed", {"exit_code": 7}, 7),
             ("killed", {"signal": 9}, 137), ("timeout", {"signal": 15}, 143),
             ("lost", {"signal": 9}, 124), ("interrupted", {}, 124),
             ("not started", {"exit_code": 127}, 127), ("not started", {}, 126),
             ("skipped", {}, 125), ("replaced", {"signal": 15}, 143), ("cancelled", {}, 125)]
    for number, (state, more, status) in enumerate(cases, 1):
        waiting = Background(site, "run", "backup", "--wait")
        wait_until(lambda: site.sql("SELECT id FROM job_request WHERE state = 'pending'"), 10)
        request, at = site.sql("SELECT id, requested_at FROM job_request WHERE state = 'pending'")[0]
        site.run("backup", number, "running", started=at, request=request, cause="request")
        site.sql("UPDATE job_request SET state = 'claimed', run = ? WHERE id = ?", number, request)
        ring(site)
        equal(waiting.process.poll(), None, "still waiting")
        assignments = "".join(f", {key} = {value}" for key, value in more.items())
        site.sql(f"UPDATE job_run SET status = ?, ended_at = ?, output = ?{assignments}"
                 " WHERE run = ?", state, now_us(), b"its words\n", number)
        ring(site)
        code, out, err = waiting.end()
        equal(code, status, f"exit status of {state} {more}: {err}")
        if state == "skipped":
            equal(out, "", "it did not start")
        else:
            equal(out, "its words\n", "output")
        check(state == "ok" or f"run {number} of 'backup': {state}" in err, err)
        check(state != "skipped" or "the one before still ran" in err and "overlap = queue" in err, err)
        check(state != "ok" or err == "", err)


@test("run --timeout: what became of it, as far as it is known when it is claimed")
def _():
    site = Site()
    site.be_executor()
    for number, (state, status, said) in enumerate((
            ("running", 0, "backup: run 1\n"), ("failed", 0, "backup: run 2: failed: exit status 3\n"),
            ("skipped", 1, "run 3 of 'backup': skipped: the one before still ran\n")), 1):
        for words in ((), ("--json",)):
            asking = Background(site, "run", "backup", "--timeout", "20s", *words)
            wait_until(lambda: site.sql("SELECT id FROM job_request WHERE state = 'pending'"), 10)
            request, at = site.sql("SELECT id, requested_at FROM job_request WHERE state = 'pending'")[0]
            site.sql("DELETE FROM job_run")
            site.run("backup", number, state, started=at, exit_code=3, request=request, cause="request")
            site.sql("UPDATE job_request SET state = 'claimed', run = ? WHERE id = ?", number, request)
            ring(site)
            code, out, err = asking.end()
            equal(code, status, f"exit status of {state}: {err}")
            check(words or said in out + err, out + err)
            if words:
                equal((json.loads(out)["run"], json.loads(out)["status"]), (number, state), "as JSON")


@test("run --wait: with retries its end is that of the last attempt; those before are said")
def _():
    site = Site()
    site.be_executor()
    waiting = Background(site, "run", "backup", "--wait")
    wait_until(lambda: site.sql("SELECT id FROM job_request WHERE state = 'pending'"), 10)
    request, at = site.sql("SELECT id, requested_at FROM job_request WHERE state = 'pending'")[0]
    site.run("backup", 1, "running", started=at, request=request, cause="request")
    site.sql("UPDATE job_request SET state = 'claimed', run = 1 WHERE id = ?", request)
    site.run("backup", 3, "queued", started=at, request=request, cause="retry", attempt=2)
    site.sql("UPDATE job_run SET status = 'failed', exit_code = 7, ended_at = ?, output = ?"
             " WHERE run = 1", now_us(), b"one")
    ring(site)
    equal(waiting.process.stderr.readline(),
          "baton: jobs run: run 1 of 'backup': failed: exit status 7; attempt 2 follows\n", "said")
    equal(waiting.process.poll(), None, "still waiting")
    site.sql("UPDATE job_run SET status = 'failed', exit_code = 9, ended_at = ?, output = ?"
             " WHERE run = 3", now_us(), b"two")
    ring(site)
    equal(waiting.end(), (9, "two", "baton: jobs run: run 3 of 'backup': failed: exit status 9\n"),
          "status, output, words")


@test("run --wait: refused by the executor; without one for long it does not hang")
def _():
    site = Site()
    site.be_executor()
    waiting = Background(site, "run", "backup", "--wait")
    wait_until(lambda: site.sql("SELECT id FROM job_request WHERE state = 'pending'"), 10)
    site.sql("UPDATE job_request SET state = 'refused', reason = 'not in the file of instance x'")
    ring(site)
    code, out, err = waiting.end()
    equal((code, out), (125, ""), "refused")
    check("refused: not in the file of instance x" in err, err)
    waiting = Background(site, "run", "backup", "--wait")
    wait_until(lambda: site.sql("SELECT id FROM job_request WHERE state = 'pending'"), 10)
    site.sql("DELETE FROM executor")
    site.sql("UPDATE scheduler_lock SET ttl_ms = 100")
    ring(site)
    code, _, err = waiting.end()
    equal(code, 125, "exit status")
    check("no instance runs jobs any more; the request is withdrawn" in err, err)


@test("a database of version 1 has no ledger: said, with what to do; an upgrade is whole")
def _():
    site = Site()
    for name in ("job_meta", "job_state", "job_pause", "job_request"):
        site.sql(f"DROP TABLE {name}")
    for name in ("job_run_number", "job_run_open"):
        site.sql(f"DROP INDEX {name}")
    for name in ("run", "program", "cause", "owner", "request", "claimed_at", "pid", "instance",
                 "hostname", "worker", "output_bytes", "reason"):
        site.sql(f"ALTER TABLE job_run DROP COLUMN {name}")
    site.sql("PRAGMA user_version = 1")
    equal(site.jobs("history").out, "no runs\n", "history")
    said = site.jobs("pause", "backup", status=4).err
    check("has no ledger of jobs yet" in said and "takes the lock" in said, said)
    site.sql("PRAGMA user_version = 3")
    said = site.jobs(status=78).err
    check("upgrade this baton" in said, said)


@test("with the real job worker: run --wait, pause, resume, history, output")
def _():
    one = Instance("""
        [scheduler]
        ttl = 3s
        heartbeat = 300ms
        kill_grace = 500ms
        [job:tick]
        schedule = * * * * * *
        command = echo tick
        [job:by-hand]
        schedule = 0 0 1 1 *
        command = echo by hand, attempt $BATON_ATTEMPT; exit 9
        [job:again]
        schedule = 0 0 1 1 *
        retries = 2
        retry_backoff = 50ms
        command = echo attempt $BATON_ATTEMPT; test $BATON_ATTEMPT = 3
    """)

    def jobs(*words, status=0):
        return baton("jobs", *words, "-c", one.config, status=status)

    wait_until(lambda: json.loads(jobs("--json").out)["executor"], 10)
    got = jobs("run", "by-hand", "--wait", status=9)
    equal(got.out, "by hand, attempt 1\n", "output")
    row = json.loads(jobs("history", "by-hand", "--json").out)[0]
    equal((row["status"], row["exit_code"], row["cause"], row["worker"]),
          ("failed", 9, "request", "jobs:0"), "history")
    equal(jobs("run", "again", "--wait").out, "attempt 3\n", "a run by hand has its retries")
    equal([(r["attempt"], r["status"], r["cause"])
           for r in json.loads(jobs("history", "again", "--json").out)],
          [(3, "ok", "retry"), (2, "failed", "retry"), (1, "failed", "request")], "attempts")
    wait_until(lambda: "ok" in jobs("history", "tick").out, 10)
    jobs("pause", "tick")
    newest = json.loads(jobs("history", "tick", "-n", "1", "--json").out)[0]["run"]
    paused_at = time.time()
    wait_until(lambda: time.time() - paused_at > 2.5, 10)
    equal(json.loads(jobs("history", "tick", "-n", "1", "--json").out)[0]["run"], newest,
          "newest run of a job that is paused")
    got = jobs("run", "tick", "--wait")
    equal(got.out, "tick\n", "paused, and run by hand")
    jobs("resume", "tick")
    wait_until(lambda: json.loads(jobs("history", "tick", "-n", "1", "--json").out)[0]["cause"]
               == "schedule", 10)
    equal(jobs("output", "tick").out, "tick\n", "output")
    one.stop()
    equal(jobs("output", "tick").out, "tick\n", "output, with no instance")


@test("the verbs: what does not exist, what does not apply")
def _():
    site = Site(ledger=False)
    said = site.jobs("hisotry", status=2).err
    check("did you mean 'history'?" in said, said)
    for words in (["--failed"], ["run", "a", "b"], ["run"], ["output"], ["pause", "--wait", "backup"],
                  ["run", "backup", "--timeout", "soon"]):
        site.jobs(*words, status=2)


if __name__ == "__main__":
    main()

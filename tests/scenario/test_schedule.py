#!/usr/bin/python3
"""Schedules against other people's: what croner and cron-parser say is the next firing, and the
expressions that real projects use; `baton jobs next` and `baton check`."""
import collections
import csv
import json
import os
import re
import subprocess
import sys
import textwrap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

BUILD = os.environ.get("BATON_BUILD", "build")
TOOL = os.path.join(BUILD, "tests", "lib", "schedule_tool")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXPECTED = os.path.join(ROOT, "tests", "lib", "schedules.tsv")
CORPUS = os.path.join(os.environ.get("BATON_CORPUS", os.path.join(ROOT, "..", "shared", "corpus")),
                      "cron.tsv")

# Why an expression of the corpus is refused: what the message must say.
REASONS = [
    "is empty", "fields: five are needed", "field: five are needed",
    "seven fields: there is none for years", "more than six fields",
    "the zone stands in a setting of its own", "@reboot: baton does not see the machine start",
    "is not a duration", "H (Jenkins' hash) is not known", "'~' (random) is not known",
    "'?' stands for '*' in the fields of days only", "runs backwards: write",
    "L needs a day before it", "a step of 0 would stand still", "a number must follow the '/'",
    "an element of the list is missing", "after # comes 1 to 5", "after L comes", "is none of @hourly",
]
LIMITS = re.compile(r"^(second|minute|hour|day of month|month|day of week) '.*': "
                    r"(0 to|1 to)")


def tool(command, lines):
    run = subprocess.run([TOOL, command], input="\n".join(lines) + "\n", capture_output=True,
                         timeout=60, text=True, check=True)
    return run.stdout.split("\n")


def skip_without_tool():
    if not os.access(TOOL, os.X_OK):
        skip(f"{TOOL} is not built")


@test("13,200 next firings in six zones are those of croner, cron-parser and cronie's rules")
def _():
    skip_without_tool()
    with open(EXPECTED, encoding="utf-8") as f:
        lines = f.read().splitlines()
    why = dict(re.findall(r"^# (\w): (.*)$", "\n".join(lines), re.M))
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    zones = rows[0][2:-1]
    equal(len(zones), 6, "zones")
    asked, wanted, notes = [], [], []
    for expression, start, *values in rows[1:]:
        for zone, value, note in zip(zones, values[:-1], values[-1].split(" ")):
            asked.append(f"{expression}\t{zone}\t{start}")
            wanted.append("never" if value == "never" else str(int(start) + int(value)))
            notes.append(note)
    got = tool("next", asked)
    wrong = [(a, w, g) for a, w, g in zip(asked, wanted, got) if w != g]
    equal(wrong[:5], [], f"{len(wrong)} of {len(asked)} firings, the first of them")
    check(len(asked) >= 12000, f"only {len(asked)} cases")
    both = sum(n == "==" for n in notes)
    check(both >= 10000, f"both libraries agree in {both} cases only")
    print(f"# {lines[0][2:]}")
    print(f"# {len(asked)} firings; {both} of both libraries, {sum('=' in n for n in notes)} of at least one")
    # where one of them says otherwise: each has its reason, and is one of a few
    differing = collections.Counter()
    for ask, note in zip(asked, notes):
        for library, letter in zip(("croner", "cron-parser"), note):
            if letter in "=-":
                continue
            check(letter in why, f"{ask}: {library} differs without a reason ('{letter}')")
            differing[library, letter] += 1
    for (library, letter), count in sorted(differing.items()):
        print(f"# {library} says otherwise in {count}: {why[letter]}")
    check(sum(differing.values()) < len(asked) / 10, "they differ in more than a tenth of all cases")


@test("the expressions that real projects use are read, or refused with the reason")
def _():
    skip_without_tool()
    if not os.access(CORPUS, os.R_OK):
        skip("there is no corpus beside the checkout")
    with open(CORPUS, encoding="utf-8") as f:
        expressions = [row["expression"] for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)]
    check(len(expressions) > 1000, f"only {len(expressions)} expressions")
    check(not any("\n" in e for e in expressions), "one has a line end")
    answers = "\n".join(tool("check", expressions)).split("\n\n")
    counts, unexplained, strange = collections.Counter(), [], []
    for expression, answer in zip(expressions, answers):
        lines = answer.split("\n")
        errors = [line.split(" ", 2) for line in lines if line.startswith("error ")]
        if not errors:
            check(lines[-1].startswith("ok "), f"{expression}: {answer}")
            counts["read"] += 1
            counts["with a warning"] += len(lines) > 1
            continue
        counts["refused"] += 1
        for _, column, text in errors:
            reason = next((r for r in REASONS if r in text), None)
            reason = reason or ("beyond the limits of a field" if LIMITS.match(text) else None)
            counts[reason] += 1
            if reason is None:
                unexplained.append((expression, text))
            if int(column) > len(expression):
                strange.append((expression, column))
    equal(unexplained, [], "refused without a stated reason")
    equal(strange, [], "columns beyond the expression")
    # plain crontab lines and those of GitHub and Kubernetes must not be among the refused
    check(counts["read"] > 900, f"only {counts['read']} are read")
    for what, count in counts.most_common():
        print(f"# {count} {what}")


JOBS = """
    [baton]
    [job:backup]
    schedule = 30 2 * * *
    timezone = Europe/Berlin
    command = echo %(job_name)s

    [job:ping]
    schedule = @every 15m
    command = true

    [job:first]
    schedule = @promotion
    command = true

    [job:off]
    schedule = 0 9 * * TUE#1
    command = true
    enabled = no
"""


def file_of(text):
    path = os.path.join(folder(), "x.ini")
    with open(path, "w", encoding="utf-8") as f:
        f.write(textwrap.dedent(text))
    return path


@test("jobs next: coming times, by the file alone")
def _():
    path = file_of(JOBS)
    run = baton("jobs", "next", "backup", "ping", "-n", "2", "--from", "2027-03-27T23:50:00+01:00",
                "-c", path, status=0)
    lines = [re.split(r"\s{2,}", line) for line in run.out.splitlines()]
    equal([line[0] for line in lines], ["JOB", "ping", "ping", "backup", "backup"], "order")
    equal([line[1] for line in lines[3:]],
          ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"], "in the gap: at its end")
    check("at 02:30 every day" in run.out and "every 15m" in run.out, run.out)
    run = baton("jobs", "next", "--json", "-n", "2", "--from", "2027-10-30T12:00:00Z", "-c", path,
                status=0)
    equal(json.loads(run.out), {
        "backup": ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"],
        "ping": ["2027-10-30T12:15:00Z", "2027-10-30T12:30:00Z"], "first": [], "off": []}, "JSON")
    run = baton("jobs", "next", "-c", path, status=0)
    equal(len(run.out.splitlines()), 5, "one line for each job")
    check("at the next one" in run.out and "never: not enabled" in run.out, run.out)
    # without an offset it is the time of the zone of the job that is named
    run = baton("jobs", "next", "backup", "--json", "-n1", "--from", "2027-07-01T02:29:59", "-c", path)
    equal(json.loads(run.out), {"backup": ["2027-07-01T00:30:00Z"]}, "JSON")


@test("jobs next: what cannot be answered says so")
def _():
    path = file_of(JOBS)
    for words, status, text in (
            (["bakup"], 1, "did you mean 'backup'"),
            (["--from", "tomorrow"], 2, "is no time as 2027-03-28T02:30:00+01:00"),
            (["-n", "0"], 2, "a number from 1 to"),
            (["-n", "x"], 2, "a number from 1 to"),
            (["--failed"], 2, "does not apply here")):
        run = baton("jobs", "next", *words, "-c", path, status=status)
        check(text in run.err, f"{words}: {run.err}")
    many = file_of("[baton]\n" + "".join(
        f"[job:j{i}]\nschedule = @daily\ncommand = true\n" for i in range(101)))
    run = baton("jobs", "next", "-n", "10000", "-c", many, status=2)
    check("name some jobs" in run.err, run.err)
    path = file_of("[baton]\n[job:x]\nschedule = 61 * * * *\ncommand = true\n")
    run = baton("jobs", "next", "-c", path, status=78)
    check("x.ini:3: [job:x] schedule: column 1: minute '61': 0 to 59" in run.err, run.err)
    path = file_of("[program:x]\ncommand = sleep 1\n")
    run = baton("jobs", "next", "-c", path, status=0)
    check("no jobs: add [job:NAME]" in run.out, run.out)


@test("check: when each job runs next; the program that runs them is not counted")
def _():
    run = baton("check", "-c", file_of(JOBS), status=0)
    check("0 programs, 0 workers, 0 sockets, 4 jobs, lock " in run.out, run.out)
    check(re.search(r"^backup  \d{4}-\d\d-\d\dT02:30:00\+0[12]:00  in .* at 02:30 every day$", run.out,
                    re.M) or "T03:00:00+02:00" in run.out, run.out)
    text = "[baton]\n" + "".join(
        f"[job:j{i}]\nschedule = {i % 60} {i % 24} * * *\ncommand = true\n" for i in range(500))
    run = baton("check", "-c", file_of(text), status=0)
    check("and 480 more: baton jobs next" in run.out, run.out[-300:])
    equal(len(run.out.splitlines()), 23, "lines of check")


WEB = """
    [scheduler]
    ttl = 3s
    heartbeat = 500ms
    kill_grace = 500ms
    [program:web]
    command = sleep 1000
    startsecs = 0
"""


def job(name, schedule, more=""):
    return f"""
    [job:{name}]
    schedule = {schedule}
    command = true
    {more}
"""


def wait_running(instance):
    wait_until(lambda: instance.status()["instance"]["state"] == "running", 10)


@test("reload: each job's change is a line; the hidden program comes and goes with the first and last")
def _():
    one = Instance(WEB)
    wait_running(one)
    for before, after, lines in (
            ("", job("a", "@yearly"), ["job a: added"]),
            (job("a", "@yearly"), job("a", "0 3 1 1 *", "timeout = 5m"),
             ["job a: applied from the next firing (schedule, timeout)"]),
            (job("a", "0 3 1 1 *", "timeout = 5m"), job("b", "@yearly"),
             ["job b: added", "job a: removed; a run that is going on may end"]),
            (job("b", "@yearly"), job("b", "@yearly") + "    [jobs]\n    max_running = 2\n", ["[jobs] max_running"]),
            (job("b", "@yearly"), "", ["job b: removed; a run that is going on may end"])):
        one.write(WEB + after)
        run = one.cli("reload", status=0)
        for line in lines:
            check(line in run.out + run.err, f"{line!r} is not in {run.out}{run.err}")
        check("jobs: added" not in run.out and "jobs: stopped" not in run.out and
              "another program" not in run.out, run.out)
        check("web:" not in run.out, run.out)


@test("reload: what switches the election on or off is named, and nothing changes")
def _():
    plain = WEB[WEB.index("    [program:web]"):]
    one = Instance("    [baton]\n" + plain)
    wait_running(one)
    one.write("    [baton]\n" + plain + job("backup", "@daily"))
    run = one.cli("reload")
    check(run.status != 0, "the reload was done")
    check("[job:backup] switches the election on: that needs a restart of baton" in run.out + run.err,
          run.out + run.err)
    check("nothing was changed" in run.out + run.err, run.out + run.err)
    two = Instance("    [baton]\n" + plain + job("backup", "@yearly"), name="two")
    wait_running(two)
    two.write("    [baton]\n" + plain)
    run = two.cli("reload")
    check(run.status != 0, "the reload was done")
    check("without [job:backup] the election would be switched off: that needs a restart" in
          run.out + run.err, run.out + run.err)


if __name__ == "__main__":
    main()

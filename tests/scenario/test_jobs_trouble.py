#!/usr/bin/python3
"""Jobs in trouble, with the real job worker: a file with an error, a ledger of 100,000 names, a disk
that is full, a ledger that is deleted; and runs that wait, seen from the terminal."""

import datetime
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from jobs import *

WAITS = """
[job:{name}]
schedule = 0 0 1 1 *
command = echo {name}; while [ ! -e go-{name} ]; do sleep 0.02; done
"""


def jobs(one, *words, status=0):
    return baton("jobs", *words, "-c", one.config, "-s", one.socket, status=status)


def table(one):
    return {row["name"]: row for row in json.loads(jobs(one, "--json").out)["jobs"]}


def leading(one):
    wait_until(lambda: json.loads(jobs(one, "--json").out)["executor"], 10, "an executor of the jobs")


def touch(one, name):
    with open(one.path(name), "w", encoding="ascii"):
        pass


@test("a run that waited for its turn: when it started; a run that is on: skipped, and its output")
def _():
    one = instance("[jobs]\nmax_running = 1\n" + WAITS.format(name="first") + WAITS.format(name="second"))
    leading(one)
    first = int(jobs(one, "run", "first", "--timeout", "20s").out.split()[-1])
    jobs(one, "run", "second", "--timeout", "20s")
    wait_until(lambda: table(one)["first"]["open"][0]["status"] == "running", 10)
    equal(table(one)["second"]["open"][0]["started_at"], None, "start of what waits")
    check(re.search(r"^second +queued 1 +never", jobs(one).out, re.M), jobs(one).out)

    said = jobs(one, "run", "first", "--timeout", "20s", status=1).err
    check("skipped: the one before still ran" in said and "overlap = queue" in said, said)
    said = jobs(one, "run", "first", "--wait", status=125).err
    check("skipped: the one before still ran" in said and "overlap = queue" in said, said)
    said = jobs(one, "output", "first", status=1).err
    check(f"run {first} of 'first' is running: its output is kept at its end" in said, said)

    touch(one, "go-first")
    running = wait_until(lambda: [r for r in table(one)["second"]["open"] if r["status"] == "running"], 10)
    check(running[0]["started_at"] and running[0]["started_at"] >= running[0]["claimed_at"], running)
    check(re.search(r"^second +running \d+m?s +never", jobs(one).out, re.M), jobs(one).out)
    equal(jobs(one, "output", "first").out, "first\n", "output once it has ended")
    touch(one, "go-second")
    wait_until(lambda: not table(one)["second"]["open"], 10)


@test("the file has an error by now: the verbs go on with the database of the running instance, and say so")
def _():
    one = instance("""
        [job:q]
        schedule = 0 0 1 1 *
        command = echo ran; exit 3
        [job:gone]
        schedule = 0 0 1 1 *
        command = true
    """)
    leading(one)
    with open(one.config, encoding="utf-8") as f:
        good = f.read()
    reload = good.replace("[job:gone]\nschedule = 0 0 1 1 *\ncommand = true\n", "")
    one.write(reload)
    wait_until(lambda: table(one).get("gone", {}).get("hostname"), 10, "its declaration")
    one.cli("reload", status=0)
    wait_until(lambda: "gone" in table(one) and table(one)["gone"]["hostname"] is None, 10)
    check(re.search(r"^gone +- +never +- +0 0 1 1 \* \(no longer in the file\)$", jobs(one).out, re.M),
          jobs(one).out)

    one.write(reload + "[program:x]\ncommand = true\ncommnad = sleep 1000\n")
    for words, status, out in ((("pause", "q"), 0, "q: paused\n"), (("resume", "q"), 0, "q: resumed\n"),
                               (("run", "q", "--wait"), 3, "ran\n"), (("output", "q"), 0, "ran\n"),
                               (("history", "q"), 0, "failed: exit status 3\n"), ((), 0, "0 0 1 1 *\n")):
        got = jobs(one, *words, status=status)
        check(got.out.endswith(out), got.out)
        check(f"instance that runs (pid {one.pid})" in got.err, got.err)
        check(re.search(r"one\.ini:\d+: \[program:x\] commnad: ", got.err), got.err)
        equal(got.err.count(".ini:"), 1, f"errors that are named: {got.err}")
    equal(table(one)["q"]["in_file"], None, "in_file")
    got = baton("jobs", "history", "-s", one.socket, status=0)
    check("failed: exit status 3" in got.out and "has errors" in got.err, got.out + got.err)
    said = jobs(one, "pause", "nosuch", status=1).err
    check("there is no job 'nosuch'" in said, said)

    with open(one.path("program"), "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n")
    os.chmod(one.path("program"), 0o755)
    one.write(good.replace("command = true", "command = %(here)s/program\nshell = no"))
    one.cli("reload", status=0)
    os.chmod(one.path("program"), 0o644)
    jobs(one, "run", "gone", "--wait", status=126)
    os.unlink(one.path("program"))
    said = jobs(one, "run", "gone", "--wait", status=127).err
    check("not started: cannot execute" in said, said)
    one.write(good.replace("command = true", "command = /nonexistent/program\nshell = no"))
    check("q" in jobs(one).out, "with a program that vanished")
    one.stop()
    said = jobs(one, "history", status=78).err
    check("has errors" in said and "going on" not in said, said)


@test("100,000 names that applications claimed: jobs run all the same, and the names go")
def _():
    one = instance("""
        [job:tick]
        schedule = * * * * * *
        command = echo >>effects
    """)
    wait_runs(one, "tick", 1, "ok")
    one.stop()
    with contextlib.closing(sqlite3.connect(one.path("baton.db"))) as db, db:
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
                   " INSERT INTO job_state(job, last_fire) SELECT 'web:' || i, 0 FROM n")
    before = len(lines(one.path("effects")))
    one.start()
    wait_until(lambda: len(lines(one.path("effects"))) >= before + 2, 15, "firings")

    def names():
        with contextlib.closing(sqlite3.connect(one.path("baton.db"), timeout=10)) as db:
            return db.execute("SELECT job FROM job_state WHERE job = 'web:1'").fetchall()

    wait_until(lambda: names() == [], 30, "the first of the names to be gone")
    check(not [line for line in one.log().splitlines() if "cannot be" in line], one.log())


def effects(one):
    found = collections.Counter(line.split()[0] for line in lines(one.path("effects")))
    equal([at for at, count in found.items() if count > 1], [], "run twice")
    return found


NAMESPACE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=400k none "$0" && exec "$@"']


@test("the disk is full: said once; what was due is run once there is room again, nothing twice")
def _():
    where = folder()
    small = os.path.join(where, "small")
    os.mkdir(small)
    if not shutil.which("nsenter") or subprocess.run([*NAMESPACE, small, "true"], capture_output=True,
                                                     check=False).returncode != 0:
        skip("no tmpfs can be mounted in a mount namespace here")
    one = Instance(QUICK + f"database = {small}/baton.db\n" + COUNTER, folder=where,
                   prefix=[*NAMESPACE, small])
    inside = f"/proc/{one.pid}/root{small}"       # for files alone: SQLite resolves the link
    wait_until(lambda: len(effects(one)) >= 2, 15)
    with open(f"{inside}/filler", "wb", buffering=0) as f, contextlib.suppress(OSError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    f.write(b"x" * size)
    mark = one.mark()
    one.wait_log("lock.lost|lease ended", 15, since=mark)
    one.wait_log("could not be taken|lock.standby", 15, since=mark)
    full = len(effects(one))
    quiet = time.monotonic()
    wait_until(lambda: time.monotonic() - quiet > 2.5, 10)
    said = [line for line in one.log().splitlines() if "lock.available" in line]
    equal(said, [], "that it answers, while it cannot be written")
    os.unlink(f"{inside}/filler")
    one.wait_log("lock.available", 15, since=mark)
    wait_until(lambda: len(effects(one)) >= full + 3, 30)
    equal(sum("lock.available" in line for line in one.log().splitlines()), 1, "said that it answers again")
    every_second(one, ["nsenter", "-t", str(one.pid), "-m"])
    one.stop()


def every_second(one, prefix=()):
    """Each second from the first firing to the last is in the ledger; what ended well had its effect."""
    history = subprocess.run([*prefix, BATON, "jobs", "history", "--json", "-n", "1000", "-c", one.config],
                             capture_output=True, check=True, text=True).stdout
    rows = {row["fire_time"]: row["status"] for row in json.loads(history)}
    fires = sorted(datetime.datetime.fromisoformat(at[:-1]).timestamp() for at in rows)
    equal([b - a for a, b in zip(fires, fires[1:])], [1.0] * (len(fires) - 1), f"seconds between {rows}")
    times = {at[:19] for at in effects(one)}
    equal([at for at, status in rows.items() if status == "ok" and at[:19] not in times], [],
          "ended well, and without an effect")


@test("the ledger is deleted: jobs run again in a new one, no firing twice")
def _():
    one = instance(COUNTER)
    wait_until(lambda: len(effects(one)) >= 2, 15)
    os.unlink(one.path("baton.db"))
    one.wait_log("lock.lost", 10)
    before = len(effects(one))
    wait_until(lambda: len(effects(one)) >= before + 2, 30)
    every_second(one)
    one.stop()
    effects(one)


if __name__ == "__main__":
    main()

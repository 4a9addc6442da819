#!/usr/bin/python3
"""The built-in job worker: firings, overlap, ends, handoffs, deaths, a reload, the stop."""
import collections
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *

QUICK = """
[scheduler]
ttl = 3s
heartbeat = 300ms
kill_grace = 500ms
handoff_timeout = 4s
"""

Run = collections.namedtuple("Run", "job fire attempt status code signal output reason cause started ended")


def instance(ini, **keywords):
    return Instance(QUICK + textwrap.dedent(ini), **keywords)


def runs(one, job=None, folder=None):
    """All rows of the ledger in the order of their firings."""
    path = os.path.join(folder or one.folder, "baton.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        rows = db.execute("SELECT job, fire_time, attempt, status, exit_code, signal, output, reason, "
                          "cause, started_at, ended_at FROM job_run ORDER BY fire_time, attempt").fetchall()
    return [Run(*r) for r in rows if job in (None, r[0])]


def wait_runs(one, job, count, status=None, timeout=15):
    def enough():
        found = [r for r in runs(one, job) if (r.status == status if status else
                                               r.status not in ("queued", "running"))]
        return found if len(found) >= count else None

    with_db = lambda: os.path.exists(one.path("baton.db")) and has_table(one) and enough()
    return wait_until(with_db, timeout, f"{count} runs of {job} ({status or 'ended'})")


def has_table(one):
    with contextlib.suppress(sqlite3.Error), contextlib.closing(
            sqlite3.connect(f"file:{one.path('baton.db')}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'job_run'").fetchone()[0]
    return False


def lines(path):
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as f:
        return f.read().split("\n")[:-1]
    return []


def pids_of(pattern):
    return [p for p in marked_processes() if re.search(pattern, command_of(p))]


# --- firings -----------------------------------------------------------------------------------
@test("a job fires on the second, with its environment, output in the log and in the history")
def _():
    one = instance("""
        [job:tick]
        schedule = * * * * * *
        command = echo "$BATON_JOB $BATON_FIRE_TIME $BATON_ATTEMPT $GREETING"; env >env; read x || echo no input
        environment = GREETING="good day"
        """)
    wait_runs(one, "tick", 3, "ok")
    rows = runs(one, "tick")[:3]
    for a, b in zip(rows, rows[1:]):
        equal(b.fire - a.fire, 1_000_000, "distance of two firings")
    for r in rows:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(r.fire / 1e6))
        equal(r.output.decode(), f"tick {when} 1 good day\nno input\n", "kept output")
        check(r.fire <= r.started < r.fire + 1_000_000, f"started {r.started - r.fire} us late")
        one.wait_log(f"^tick \\| tick {when} 1 good day$")
    found = dict(l.split("=", 1) for l in lines(one.path("env")) if "=" in l)
    equal(found["BATON_TERM"], str(one.executor("jobs")["term"]), "BATON_TERM")
    for name in ("BATON_CHANNEL_FD", "BATON_LEASE_FD", "NOTIFY_SOCKET", "BATON_WORKER"):
        check(name not in found, f"{name} is passed on to a job")


@test("the job worker is hidden: not in all, not to be stopped or scaled; shown as executor")
def _():
    one = instance("""
        [program:web]
        command = sleep 1000
        [job:never]
        schedule = @yearly
        command = true
        """)
    one.wait_for("executor", 10)
    equal(one.executor("jobs")["worker"], "jobs:0", "executor of jobs")
    equal([w["name"] for w in one.call("stop", targets=["all"], wait=True)["workers"]], ["web:0"], "all")
    for command in (("stop", "jobs"), ("restart", "jobs"), ("scale", "jobs", "2")):
        answer = one.cli(*command)
        equal(answer.status, 4, " ".join(command))
        check("built-in job worker" in answer.err, answer.err)
    wait_until(lambda: "1 job, 0 running, 0 queued" in one.cli("status").out, 5, "its status")
    equal(one.cli("status", "--health").status, 0, "health")
    with one.control() as c:    # the document has environments in it: for the job worker only
        try:
            c.call("jobs-config")
            raise Failed("a stranger was given the jobs")
        except ControlError as e:
            equal(e.code, "refused", "jobs-config")


@test("overlap: skip, queue, replace, allow")
def _():
    more = "\n".join(f"[job:{o}]\nschedule = * * * * * *\noverlap = {o}\ncommand = exec sleep 2.5\n"
                     "stopwaitsecs = 1" for o in ("skip", "queue", "replace", "allow"))
    one = instance(f"[jobs]\nmax_running = 40\n{more}\n")
    wait_runs(one, "skip", 2, "ok")
    wait_runs(one, "allow", 3, "ok")
    wait_runs(one, "queue", 2, "ok")
    wait_runs(one, "replace", 3, "replaced")
    status = lambda job: [r.status for r in runs(one, job)]
    check(status("skip")[:4] == ["ok", "skipped", "skipped", "ok"], f"skip: {status('skip')}")
    check(set(status("allow")) <= {"ok", "running"}, f"allow: {status('allow')}")
    check("skipped" not in status("queue") and "queued" in status("queue"), f"queue: {status('queue')}")
    check(set(status("replace")) <= {"replaced", "running", "queued"}, f"replace: {status('replace')}")
    began = [r for r in runs(one, "queue") if r.ended]
    for a, b in zip(began, began[1:]):
        check(b.started >= a.ended, "two of a queue ran at the same time")


# --- ends --------------------------------------------------------------------------------------
@test("timeout: TERM, then KILL, of the whole tree, also of what left its session")
def _():
    one = instance("""
        [job:stubborn]
        schedule = @promotion
        timeout = 500ms
        stopwaitsecs = 1
        command = trap '' TERM; sleep 3001 & setsid sleep 3002 & (setsid sh -c 'trap "" TERM; sleep 3003' &); echo on; sleep 3004; sleep 3005
        [job:polite]
        schedule = @promotion
        timeout = 500ms
        command = trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done
        """)
    stubborn = wait_runs(one, "stubborn", 1, "timeout")[0]
    polite = wait_runs(one, "polite", 1, "timeout")[0]
    check(1_400_000 < stubborn.ended - stubborn.started < 4_000_000, "TERM, a second, KILL")
    equal(stubborn.signal, 9, "signal")
    check(polite.output.endswith(b"bye\n"), "a command may end in its own way")
    equal(pids_of("sleep 300"), [], "left of it")


@test("a command that forks and leaves: over when its main process is, what it left is killed")
def _():
    one = instance("""
        [job:daemon]
        schedule = @promotion
        command = sleep 3001 & (setsid sleep 3002 &); setsid nohup sleep 3003 >/dev/null 2>&1 & exec sleep 0.3
        [job:other]
        schedule = @promotion
        command = (setsid sleep 3.3 &); exec sleep 1.5
        """)
    row = wait_runs(one, "daemon", 1)[0]
    equal((row.status, row.code), ("ok", 0), "status")
    equal(pids_of("sleep 300"), [], "left behind")
    check(pids_of("sleep 3.3"), "another job's process was killed with it")
    wait_runs(one, "other", 1)
    equal(pids_of("sleep 3.3"), [], "left behind")


@test("retries with backoff, then on_failure; what cannot be started says why")
def _():
    one = instance("""
        [job:flaky]
        schedule = @promotion
        retries = 2
        retry_backoff = 200ms
        command = echo $BATON_ATTEMPT >>tries; test $BATON_ATTEMPT = 3 || exit 7
        on_failure = echo never >failed-flaky
        [job:hopeless]
        schedule = @promotion
        retries = 1
        retry_backoff = 100ms
        command = kill -SEGV $$
        on_failure = echo "$BATON_JOB $BATON_STATUS $BATON_EXIT $BATON_ATTEMPT" >failed
        [job:missing]
        schedule = * * * * * *
        shell = no
        command = ./vanishes --now
        """, start=False)
    with open(one.path("vanishes"), "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n")
    os.chmod(f.name, 0o755)
    one.start()
    os.unlink(f.name)       # it was there when the file was checked
    wait_runs(one, "flaky", 1, "ok")
    equal([(r.attempt, r.status, r.code, r.cause) for r in runs(one, "flaky")],
          [(1, "failed", 7, "promotion"), (2, "failed", 7, "retry"), (3, "ok", 0, "retry")], "flaky")
    equal(lines(one.path("tries")), ["1", "2", "3"], "attempts")
    first, second, third = runs(one, "flaky")
    check(second.started - first.ended >= 200_000, "backoff")
    check(third.started - second.ended >= 400_000, "backoff doubles")
    wait_runs(one, "hopeless", 2, "killed")
    wait_until(lambda: lines(one.path("failed")), 5, "on_failure")
    equal(lines(one.path("failed")), ["hopeless killed 139 2"], "on_failure")
    check(not os.path.exists(one.path("failed-flaky")), "on_failure ran after a success")
    row = wait_runs(one, "missing", 1, "not started")[0]
    equal(row.reason, "cannot execute './vanishes': No such file or directory", "missing")
    one.wait_log("jobs \\| missing could not be started")


@test("output: the last of it is kept, whole lines are passed on, bytes are bytes")
def _():
    one = instance(r"""
        [job:much]
        schedule = @promotion
        output_keep = 1KB
        command = seq 1 5000
        [job:bytes]
        schedule = @promotion
        command = printf 'a\000b\377\n'; printf 'no newline'
        [job:none]
        schedule = @promotion
        output_keep = 0
        command = echo unkept
        """)
    whole = "".join(f"{n}\n" for n in range(1, 5001)).encode()
    equal(wait_runs(one, "much", 1)[0].output, whole[-1024:], "kept output")
    for n in (1, 2500, 5000):
        one.wait_log(f"^much \\| {n}$")
    equal(wait_runs(one, "bytes", 1)[0].output, b"a\0b\xff\nno newline", "bytes")
    one.wait_log("^bytes \\| no newline$")
    check(not wait_runs(one, "none", 1)[0].output, "kept in spite of output_keep = 0")


@test("a job that writes without end fills no memory and stops no other")
def _():
    size = 1 << 30 if SOAK else 192 << 20
    one = instance(f"""
        [job:writer]
        schedule = @promotion
        command = head -c {size} /dev/zero
        [job:lines]
        schedule = @promotion
        command = yes | head -n 3000000
        [job:tick]
        schedule = * * * * * *
        command = true
        """, prefix=("sh", "-c", 'exec "$@" >/dev/null', "sh"))
    worker = one.wait_for("executor", 10) and one.executor("jobs")["pid"]
    wait_runs(one, "tick", 2, "ok", 30)
    wait_runs(one, "writer", 1, "ok", 90)
    wait_runs(one, "lines", 1, "ok", 90)
    with open(f"/proc/{worker}/status", encoding="ascii") as f:
        peak = int(re.search(r"VmHWM:\s*(\d+)", f.read())[1])
    limit = 600_000 if "san-" in BUILD else 24_000
    check(peak < limit, f"the job worker took {peak} KiB")


# --- reload ------------------------------------------------------------------------------------
@test("a reload is live: what runs goes on, new jobs fire, a job taken out while it runs ends in peace")
def _():
    both = """
        [job:long]
        schedule = @promotion
        command = echo $$ >pid; while ! test -e go; do sleep 0.05; done; echo done
        [job:out]
        schedule = @promotion
        command = while ! test -e go; do sleep 0.05; done; echo done
        """
    one = instance(both)
    wait_until(lambda: lines(one.path("pid")), 10, "long runs")
    wait_runs(one, "out", 1, "running")
    pid, worker = lines(one.path("pid"))[0], one.executor("jobs")["pid"]
    one.write(QUICK + """
[job:long]
schedule = * * * * * *
overlap = skip
command = echo new
[job:added]
schedule = * * * * * *
command = echo added
""")
    one.call("reload", wait=True)
    wait_runs(one, "added", 2, "ok")
    equal(one.executor("jobs")["pid"], worker, "the job worker")
    check(command_of(int(pid)), "a running job was cut off")
    wait_runs(one, "long", 1, "skipped")
    with open(one.path("go"), "w", encoding="ascii"):
        pass
    equal(wait_runs(one, "out", 1, "ok")[0].output, b"done\n", "out")
    wait_runs(one, "long", 2, "ok")
    equal([r.output for r in runs(one, "long") if r.status == "ok"][:2], [b"done\n", b"new\n"], "long")


# --- handoff, deaths ---------------------------------------------------------------------------
COUNTER = """
[job:count]
schedule = * * * * * *
missed = all
overlap = allow
command = echo "$BATON_FIRE_TIME $BATON_TERM" >>effects
"""


def account(folder, slack=0, job="count"):
    """Each second from the first to the last firing once, in the ledger and in the effects."""
    rows = [r for r in runs(None, job, folder)]
    fires = sorted({r.fire for r in rows})
    equal(fires, list(range(fires[0], fires[-1] + 1, 1_000_000)), "firings in the ledger")
    times = collections.Counter(l.split()[0] for l in lines(os.path.join(folder, "effects")))
    twice = [t for t, n in times.items() if n > 1]
    equal(twice, [], "run twice")
    cut = sum(r.status not in ("ok", "queued", "running") for r in rows)
    check(len(fires) - len(times) <= cut + slack,
          f"{len(fires)} firings, {len(times)} effects, {cut} cut off: "
          f"{collections.Counter(r.status for r in rows)}")
    return rows


@test("handoffs between two instances with a job each second: none lost, none twice")
def _():
    one = instance(COUNTER)
    two = instance(COUNTER, name="two", folder=one.folder)
    both = [one, two]
    wait_runs(one, "count", 1, "ok")
    for n in range(4):
        holder = next(i for i in both if i.status()["lock"]["role"] == "holder")
        other = both[1 - both.index(holder)]
        time.sleep(1 - time.time() % 1 - 0.01 * n if n else 0)     # at the firing
        holder.call("handoff", away=True, wait=True)
        other.wait_for("executor", 15)
    wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    one.stop()
    two.stop()
    rows = account(one.folder)
    equal({r.status for r in rows}, {"ok"}, "statuses")


@test("a handoff to another instance waits for what runs, within its handoff_timeout")
def _():
    text = """
        [job:short]
        schedule = @promotion
        command = sleep 1; echo done
        [job:long]
        schedule = @promotion
        handoff_timeout = 1500ms
        stopwaitsecs = 500ms
        command = exec sleep 1000
        """
    one = instance(text)
    wait_runs(one, "short", 1, "running")
    two = instance(text, name="two", folder=one.folder)
    two.wait_for("ready=jobs", 10)
    one.call("handoff", away=True, wait=True, timeout=15)
    two.wait_for("executor", 10)
    equal(wait_runs(one, "short", 1)[0].output, b"done\n", "short")
    equal(wait_runs(one, "long", 1)[0].status, "lost", "long")


@test("kill -9 of the job worker: cut off runs are written down or run again, firings go on")
def _():
    one = instance(COUNTER + """
        [job:fail]
        schedule = @promotion
        command = echo $$ >fail.pid; sleep 3001; true
        [job:rerun]
        schedule = @promotion
        interrupted = rerun
        command = echo $BATON_ATTEMPT >>reruns; test $BATON_ATTEMPT = 2 || exec sleep 1000
        """.replace("\n        ", "\n"))
    wait_until(lambda: lines(one.path("fail.pid")) and lines(one.path("reruns")), 10, "both run")
    wait_runs(one, "count", 1, "ok")
    worker = one.executor("jobs")["pid"]
    os.kill(worker, signal.SIGKILL)
    one.wait_for(f"executor!={worker}", 15)
    equal(pids_of("sleep 3001"), [], "of its command when the next executor is there")
    wait_runs(one, "rerun", 1, "ok")
    equal([(r.attempt, r.status, r.cause) for r in runs(one, "rerun")][:2],
          [(1, "interrupted", "promotion"), (2, "ok", "rerun")], "rerun")
    wait_runs(one, "fail", 1, "interrupted")
    wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    one.stop()
    account(one.folder)


@test("kill -9 of the supervisor: its jobs die with it, another instance goes on from the ledger")
def _():
    long = "[job:long]\nschedule = @promotion\ncommand = echo $$ >long.pid; sleep 3001; true\n"
    one = instance(COUNTER + long)
    wait_until(lambda: lines(one.path("long.pid")), 10, "long runs")
    wait_runs(one, "count", 2, "ok")
    pid = int(lines(one.path("long.pid"))[0])
    two = instance(COUNTER, name="two", folder=one.folder)
    two.wait_for("ready=jobs", 10)
    one.kill()
    two.wait_for("executor", 15)
    check(not command_of(pid) and not pids_of("sleep 3001"), "a job outlived its supervisor")
    two.wait_log("jobs that the ledger knows and this file does not: 1; each instance")
    wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    two.stop()
    account(one.folder)
    equal([r.status for r in runs(None, "long", one.folder)], ["running"],
          "a job that only the dead instance had: its row is that instance's")


@test("the stop of the supervisor: what runs may finish, within the time there is")
def _():
    one = instance("""
        [job:polite]
        schedule = @promotion
        command = sleep 1.2; echo done
        [job:endless]
        schedule = @promotion
        stopwaitsecs = 1
        command = trap 'echo told; exit 3' TERM; while :; do sleep 0.1; done
        """)
    wait_runs(one, "endless", 1, "running")
    one.stop(timeout=20)
    equal([(r.status, r.output) for r in runs(one, "polite")], [("ok", b"done\n")], "polite")
    row = runs(one, "endless")[0]
    equal((row.status, row.output[-5:]), ("lost", b"told\n"), "endless")


# --- the ledger --------------------------------------------------------------------------------
@test("a database that is locked for a while: firings are claimed when it is back, none is lost")
def _():
    one = instance(COUNTER)
    wait_runs(one, "count", 2, "ok")
    with contextlib.closing(sqlite3.connect(one.path("baton.db"), timeout=10, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(1.8)         # below the lease: the executor stays
        db.execute("ROLLBACK")
    wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    one.stop()
    rows = account(one.folder)
    check(len(rows) >= 5, "firings")


@test("the ledger process dies: started again, nothing lost or run twice")
def _():
    one = instance(COUNTER)
    wait_runs(one, "count", 1, "ok")
    for _ in range(3):
        for pid in helpers("job-ledger"):
            os.kill(pid, signal.SIGKILL)
        wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    one.stop()
    equal({r.status for r in account(one.folder)}, {"ok"}, "statuses")


@test("an upgrade in place: the job worker and what it runs go on")
def _():
    one = instance(COUNTER + "[job:long]\nschedule = @promotion\ncommand = echo $$ >long.pid; "
                   "while ! test -e go; do sleep 0.05; done; echo done\n")
    wait_until(lambda: lines(one.path("long.pid")), 10, "long runs")
    wait_runs(one, "count", 2, "ok")
    worker = one.executor("jobs")["pid"]
    equal(one.cli("upgrade").status, 0, "upgrade")
    wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    equal(one.executor("jobs")["pid"], worker, "the job worker")
    with open(one.path("go"), "w", encoding="ascii"):
        pass
    equal(wait_runs(one, "long", 1, "ok")[0].output, b"done\n", "long")
    one.stop()
    account(one.folder)


@test("a ledger process that hangs is replaced", soak=True)
def _():
    one = instance(COUNTER)
    wait_runs(one, "count", 1, "ok")
    os.kill(helpers("job-ledger")[0], signal.SIGSTOP)
    one.wait_log("the ledger of the jobs cannot be written: no answer", 45)
    wait_runs(one, "count", len(runs(one, "count")) + 20, "ok", 30)
    one.stop()
    account(one.folder)


# --- chaos -------------------------------------------------------------------------------------
@test("half a minute of chaos over three instances (BATON_SOAK: ten minutes)")
def _():
    import random
    seed = int(os.environ.get("BATON_SEED") or time.time_ns() % 1_000_000)
    dice, end = random.Random(seed), time.monotonic() + (600 if SOAK else 20)
    print(f"# seed {seed}", flush=True)
    first = instance(COUNTER, name="i0")
    every = [first] + [instance(COUNTER, name=f"i{n}", folder=first.folder) for n in (1, 2)]
    wait_runs(first, "count", 1, "ok")
    done = collections.Counter()
    while time.monotonic() < end:
        one = dice.choice(every)
        what = dice.choice(["away", "away", "worker", "ledger", "supervisor", "stop", "reload", "pause"])
        done[what] += 1
        with contextlib.suppress(ControlError, ProcessLookupError, OSError, EOFError, Failed):
            if what == "away":
                one.call("handoff", away=True)
            elif what == "worker":
                row = one.executor("jobs")
                if row:
                    os.kill(row["pid"], signal.SIGKILL)
            elif what == "ledger":
                for pid in helpers("job-ledger"):
                    os.kill(pid, signal.SIGKILL)
            elif what == "supervisor":
                one.kill()
            elif what == "stop":
                one.stop(timeout=30, status=None)
            elif what == "reload":
                one.call("reload")
            else:
                row = one.executor("jobs")
                if row:
                    os.kill(row["pid"], signal.SIGSTOP)
                    time.sleep(dice.uniform(0.05, 1.5))
                    os.kill(row["pid"], signal.SIGCONT)
        time.sleep(dice.uniform(0.2, 1.8))
        for each in every:
            if not each.alive:
                each.start()
    wait_runs(first, "count", len(runs(first, "count")) + 3, "ok", 60)
    for each in every:
        each.stop(timeout=30, status=None)
    rows = account(first.folder, slack=0)
    print(f"# {dict(done)}: {len(rows)} rows, {dict(collections.Counter(r.status for r in rows))}", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""The built-in job worker: handoffs, deaths, the stop, the ledger out of reach, an upgrade."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *
from jobs import *


@test("handoffs between two instances with a job each second: none lost, none twice")
def _():
    one = instance(COUNTER)
    two = instance(COUNTER, name="two", folder=one.folder)
    both = [one, two]
    wait_runs(one, "count", 1, "ok")
    for n in range(4):
        holder = next(i for i in both if i.status()["lock"]["role"] == "holder")
        other = both[1 - both.index(holder)]
        time.sleep(max(0, 1 - time.time() % 1 - 0.01 * n) if n else 0)     # at the firing
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
    account(one.folder, killed=True)


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
    account(one.folder, killed=True)
    equal([(r.status, r.reason) for r in runs(None, "long", one.folder)], [("interrupted", "its worker died")],
          "a job that only the dead instance had")


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


@test("the supervisor is stopped past the lease: what runs is killed, and called interrupted; firings go on")
def _():
    one = instance(COUNTER + """
        [job:long]
        schedule = @promotion
        command = echo $$ >>long.pid; sleep 3001; true
        on_failure = echo "$BATON_STATUS $BATON_ATTEMPT ${BATON_EXIT-none}" >>failed
        """.replace("\n        ", "\n"))
    wait_until(lambda: lines(one.path("long.pid")), 10, "long runs")
    wait_runs(one, "count", 1, "ok")
    worker = one.executor("jobs")["pid"]
    os.kill(one.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not pids_of("sleep 3001"), 10, "the end of what ran")
        check(not command_of(worker), "the job worker outlived its lease")
    finally:
        os.kill(one.pid, signal.SIGCONT)
    wait_runs(one, "long", 1, "interrupted")
    wait_until(lambda: lines(one.path("failed")), 10, "on_failure")
    equal(lines(one.path("failed")), ["interrupted 1 none"], "on_failure")
    wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    one.stop()
    account(one.folder, killed=True)


@test("the backoff of a retry goes on where it was when the next executor takes over")
def _():
    one = instance("""
        [job:flaky]
        schedule = @yearly
        retries = 1
        retry_backoff = 3s
        command = exit $((2 - BATON_ATTEMPT))
        """)
    one.wait_for("executor", 10)
    equal(baton("jobs", "run", "flaky", "-c", one.config).status, 0, "jobs run")
    first = wait_runs(one, "flaky", 1, "failed")[0]
    worker = one.executor("jobs")["pid"]
    os.kill(worker, signal.SIGKILL)
    one.wait_for(f"executor!={worker}", 15)
    second = wait_runs(one, "flaky", 1, "ok")[0]
    check(2_900_000 < second.started - first.ended < 10_000_000, f"{second.started - first.ended} us between them")
    one.stop()


# --- the ledger --------------------------------------------------------------------------------
@test("a database that is locked until the executor is demoted: what was claimed then runs, none is lost")
def _():
    one = instance(COUNTER)
    wait_runs(one, "count", 2, "ok")
    worker = one.executor("jobs")["pid"]
    for n in (1, 2):
        with contextlib.closing(sqlite3.connect(one.path("baton.db"), timeout=10, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            # A claim is on its way when the lease cannot be renewed any more.
            wait_until(lambda: one.log().count("event=executor.draining") >= n, 10, "the demotion")
            wait_until(lambda: not one.executor("jobs"), 10, "its end")
            db.execute("ROLLBACK")
        one.wait_for("executor", 15)
        wait_runs(one, "count", len(runs(one, "count")) + 2, "ok")
    equal(one.executor("jobs")["pid"], worker, "the job worker: nothing died")
    one.stop()
    rows = account(one.folder)
    equal({r.status for r in rows}, {"ok"}, "statuses")


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


@test("all of it stands still across firings, as in a suspend: each is accounted for, none runs twice")
def _():
    one = instance(COUNTER)
    wait_runs(one, "count", 2, "ok")
    frozen = set()
    while set(marked_processes()) - frozen:     # also what was forked meanwhile
        for pid in set(marked_processes()) - frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            frozen.add(pid)
    time.sleep(4.5)         # the lease is over by then, and four firings are due
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_runs(one, "count", len(runs(one, "count")) + 7, timeout=30)
    one.stop(timeout=30)
    rows = account(one.folder, killed=True)
    check(len(rows) >= 9, f"{len(rows)} rows")


if __name__ == "__main__":
    main()

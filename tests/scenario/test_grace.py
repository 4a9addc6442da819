#!/usr/bin/python3
"""What stands above baton: how long it must wait for the end, and baton as PID 1."""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

ACTOR = sys.executable + " " + os.path.realpath(
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "actor.py"))
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]
TEXT = """
        [baton]
        {}
        [program:db]
        command = sleep 1000
        startsecs = 0
        stopwaitsecs = 4
        [program:web]
        command = sleep 1000
        startsecs = 0
        stopwaitsecs = 7
        depends_on = db
        [program:beside]
        command = sleep 1000
        startsecs = 0
        stopwaitsecs = 3
        depends_on = db
"""


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def namespace():
    if not shutil.which("unshare") or subprocess.run(
            [*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        skip("no PID namespace can be made here")


def first_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return int(f.read().split()[0])


@test("the stop grace is told under systemd and as PID 1: levels one after the other, a handoff before, shutdown_timeout as the bound; not elsewhere")
def _():
    one = Instance(TEXT.format(""), env={"INVOCATION_ID": "x"})
    contains(one.wait_log("supervisor.grace").string, "TimeoutStopSec=16 ", "4 + 7 + 5 s")
    one.stop()
    one.write(TEXT.format("shutdown_timeout = 8s"))
    mark = one.mark()
    one.start()
    line = one.wait_log("supervisor.grace", since=mark).string
    contains(line, "TimeoutStopSec=13 ", "8 + 5 s")
    contains(line, "could take 11 s; shutdown_timeout ends that after 8 s", "what is cut off")
    one.stop()
    if not os.path.exists("/.dockerenv") and "KUBERNETES_SERVICE_HOST" not in os.environ:
        one.env = {}
        mark = one.mark()
        os.environ.pop("INVOCATION_ID", None)
        one.start()
        one.wait_for("ready=web")
        check(not any("supervisor.grace" in line for line in one.lines[mark:]), "told in a terminal")
        one.stop()
    r = baton("check", "-c", one.config, status=0)
    check("stopwaitsecs" not in r.out + r.err, f"a warning without a reason: {r}")
    one.write(TEXT.format("shutdown_timeout = 5s"))
    r = baton("check", "-c", one.config, status=0)
    contains(r.out + r.err, "[program:web] stopwaitsecs: 7s is longer than shutdown_timeout (5s)", "check")


@test("as PID 1: TERM frees the lock within 5 s though the worker takes its time; the grace names the container's settings")
def _():
    namespace()
    where = folder()
    one = Instance(f"""
        [baton]
        [scheduler]
        database = %(here)s/lock.db
        handoff_timeout = 20s
        [program:web]
        command = {ACTOR} %(here)s/told stubborn
        ready = notify
        executor = candidate
        stopwaitsecs = 8
    """, folder=where, start=False, prefix=NAMESPACE)
    one.start()
    one.wait_for("executor", 15)
    wait_until(lambda: one.executor()["answered"], 5, "`promoted`: before it, its end is the demotion")
    line = one.wait_log("supervisor.grace").string
    contains(line, "docker run --stop-timeout 33, stop_grace_period: 33s, "
             "terminationGracePeriodSeconds: 33)", "20 + 8 + 5 s")
    contains(line, "the lock is free as soon as the executor has said `demoted` or has ended, "
             "which may take 28 s", "20 + 8 s")
    equal(lock_row(one.path("lock.db"))["state"], 1, "state of the lock")
    begun = time.monotonic()
    os.kill(first_of(one.pid), signal.SIGTERM)
    wait_until(lambda: not lock_row(one.path("lock.db"))["state"], 5, "the lock to be free")
    check(one.alive, f"all was over after {time.monotonic() - begun:.1f} s: nothing was proven")
    for number in (signal.SIGINT, signal.SIGINT):
        os.kill(first_of(one.pid), number)
    one.wait_end(15)


@test("as PID 1: -d is refused, with the way out")
def _():
    namespace()
    one = Instance(TEXT.format(""), start=False)
    done = subprocess.run([*NAMESPACE, BATON, "run", "-d", "-c", one.config, "-s", one.socket],
                          capture_output=True, timeout=20, check=False)
    equal((done.returncode, done.stdout), (2, b""), "exit status, output")
    contains(done.stderr.decode(), "cannot go to the background as PID 1", "error")
    contains(done.stderr.decode(), "leave -d out", "error")


@test("as PID 1: a TERM that comes before there is a handler waits for it")
def _():
    namespace()
    # A file that takes its time.
    one = Instance("[baton]\n" + "".join(f"[program:p{i}]\ncommand = sleep 1\nautostart = no\n"
                                        for i in range(4000)), start=False, prefix=NAMESPACE)
    one.start(wait=False)
    children = f"/proc/{one.pid}/task/{one.pid}/children"
    limit = Deadline(5, "the child of unshare")

    def begun():
        with open(children, encoding="ascii") as f:
            pid = f.read().strip()
        return int(pid) if pid and command_of(pid).startswith(one.binary) else None
    while not begun():
        limit.left()
    pid = begun()
    while True:         # until the signals are held; afterwards there are handlers
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            masks = {line.split(":")[0]: int(line.split()[1], 16) for line in f
                     if line.startswith("Sig") and line[3] in "BC"}
        if masks["SigBlk"] & (1 << (signal.SIGTERM - 1)):
            break
        check(not masks["SigCgt"] & (1 << (signal.SIGTERM - 1)), "the signals were never held")
        limit.left()
    os.kill(pid, signal.SIGTERM)
    equal(one.wait_end(), 0, "exit status")
    contains(one.log(), "SIGTERM", "what it did")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Claims over the channel, with the real binary: a firing is run once, by the executor, whatever
falls on it: handoffs, kills, a keeper that dies, a database that is busy."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *

CLAIMER = os.path.join(ROOT, "tests", "lib", "claimer.py")


def text(command, workers=2, more=""):
    return f"""
        [scheduler]
        ttl = 3s
        heartbeat = 300ms
        kill_grace = 500ms
        handoff_timeout = 2s
        [program:web]
        command = {command}
        workers = {workers}
        executor = candidate
        ready = notify
        {more}
    """


def runs(log, verb="run"):
    """{firing: [worker, ...]}, in the order of the log."""
    found = {}
    with contextlib.suppress(FileNotFoundError), open(log, encoding="ascii") as f:
        for line in f:
            word = line.split()
            if word[1] == verb:
                found.setdefault(int(word[5]) if verb != "error" else word[5], []).append(word[2])
    return found


def caught_up(log, seconds=10):
    """Firings are run from the oldest on: one that is due now, and all before it were tried."""
    now = time.time_ns() // 1000
    wait_until(lambda: max(runs(log), default=0) > now, seconds)


def begin(folder_, tick=50, workers=2, **more):
    log = os.path.join(folder_, "log")
    command = f"{PYTHON} {CLAIMER} {log} {tick} {time.time_ns() // 1000}"
    one = Instance(text(command, workers), folder=folder_, **more)
    one.wait_for("ready=web", 10)
    return one, log, command


def audit(log, tick, least):
    """Each firing once; without gaps from the first to the last."""
    found = runs(log)
    twice = {firing: workers for firing, workers in found.items() if len(workers) > 1}
    equal(twice, {}, "firings that ran twice")
    equal(list(runs(log, "error")), [], "claims without an answer")
    wanted = range(min(found), max(found) + 1, tick * 1000)
    lost = [firing for firing in wanted if firing not in found]
    check(len(found) >= least, f"{len(found)} firings ran, wanted {least}")
    return lost, found


@test("handoffs on the firings: each runs once, none is lost")
def _():
    one, log, _ = begin(folder())
    one.wait_for("executor", 10)
    for _ in range(6):
        wait_until(lambda: len(runs(log)) > 0, 5)
        before = one.executor()["pid"]
        count = len(runs(log))
        one.call("handoff")
        one.wait_for(f"executor!={before}", 10)
        wait_until(lambda: len(runs(log)) > count + 5, 10)
    caught_up(log)
    one.stop()
    lost, found = audit(log, 50, 20)
    equal(lost, [], "firings that were lost")
    check({"web:0", "web:1"} <= {workers[0] for workers in found.values()}, "one worker did it all")
    with contextlib.closing(sqlite3.connect(one.path("baton.db"))) as db:
        rows = dict(db.execute("SELECT fire_time, worker FROM job_run WHERE job = 'web:tick'"))
    for firing, workers in found.items():
        equal(rows.get(firing), workers[0], f"the row of firing {firing}")


@test("the executor killed, the keepers killed, the database busy: never twice, none lost but at a death")
def _():
    one, log, _ = begin(folder())
    one.wait_for("executor", 10)
    wait_until(lambda: len(runs(log)) > 10, 10)
    for keeper in helpers("lock-keeper", of=one.pid):
        os.kill(keeper, signal.SIGKILL)
    count = len(runs(log))
    wait_until(lambda: len(runs(log)) > count + 5, 10)
    with contextlib.closing(sqlite3.connect(one.path("baton.db"), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(0.3)
        db.execute("ROLLBACK")
    caught_up(log)
    lost, _ = audit(log, 50, 20)
    equal(lost, [], "firings that were lost before a worker died")
    deaths = 2
    for _ in range(deaths):
        pid = one.executor()["pid"]
        os.kill(pid, signal.SIGKILL)
        one.wait_for(f"executor!={pid}", 10)
        count = len(runs(log))
        wait_until(lambda: len(runs(log)) > count + 5, 10)
    caught_up(log)
    one.stop()
    lost, _ = audit(log, 50, 20)
    check(len(lost) <= deaths, f"lost {lost}: one at most with each death")


@test("two instances: a takeover runs no firing twice")
def _():
    where = folder()
    one, log, command = begin(where, name="one", workers=1)
    one.wait_for("executor", 10)
    two = Instance(text(command, 1), folder=where, name="two")
    wait_until(lambda: len(runs(log)) > 10, 10)
    before = max(runs(log))
    one.stop()
    two.wait_for("executor", 10)
    wait_until(lambda: max(runs(log)) > before + 500000, 10)
    caught_up(log)
    two.stop()
    lost, _ = audit(log, 50, 20)
    equal(lost, [], "firings that were lost")


@test("an upgrade in place among the claims: none twice, none lost")
def _():
    one, log, _ = begin(folder())
    one.wait_for("executor", 10)
    for _ in range(2):
        count = len(runs(log))
        wait_until(lambda: len(runs(log)) > count + 5, 10)
        one.cli("upgrade", status=0)
    wait_until(lambda: len(runs(log)) >= 20, 10)
    caught_up(log)
    one.stop()
    lost, _ = audit(log, 50, 20)
    equal(lost, [], "firings that were lost")


RAW = r'''
import os, socket, sys, time
s = socket.socket(fileno=int(os.environ["BATON_CHANNEL_FD"]))
out = open(sys.argv[1] + "." + os.environ["BATON_WORKER"], "a", buffering=1)
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ["NOTIFY_SOCKET"]
n.sendto(b"READY=1", "\0" + a[1:] if a[0] == "@" else a)
def say(text):
    s.sendall(text.encode() + b"\n")
rest = b""
def read():
    global rest
    while b"\n" not in rest:
        data = s.recv(4096)
        if not data:
            sys.exit(0)
        rest += data
    line, _, rest = rest.partition(b"\n")
    return line.decode()
def ask(text):
    say("claim " + text)
    while True:
        line = read()
        if line.split()[0] in ("claimed", "refused"):
            out.write(line + "\n")
            return line
ask("early 1")
say("hello")
while True:
    line = read()
    if line.startswith("promote "):
        break
say("promoted " + line.split()[1])
for text in ("a 1", "a 1", "a 1970-01-01T00:00:00.000001Z", "b 2027-03-28T02:30:00+02:00",
             "b 1806193800000000", "a yesterday", "a -1", "n" * 127 + " 1", "n" * 123 + " 1"):
    ask(text)
if "flood" in sys.argv:
    time.sleep(0.1)
    for i in range(200):
        s.sendall(b"".join(b"claim flood %d\n" % (i * 100 + k) for k in range(100)))
    out.write("flooded\n")
out.write("done\n")
while True:
    read()
'''


def raw(flags=""):
    where = folder()
    program = os.path.join(where, "raw.py")
    with open(program, "w", encoding="ascii") as f:
        f.write(RAW)
    one = Instance(text(f"{PYTHON} {program} {where}/out {flags}", 2), folder=where)
    one.wait_for("executor", 10)
    name = one.executor()["worker"]
    wait_until(lambda: os.path.exists(f"{where}/out.{name}") and
               "done\n" in open(f"{where}/out.{name}", encoding="ascii"), 20)
    return one, where, name


@test("the line: who may, which times, which names; refusals say why in the log")
def _():
    one, where, name = raw()
    with open(f"{where}/out.{name}", encoding="ascii") as f:
        lines = f.read().splitlines()
    equal(lines[1:6], ["claimed a 1", "refused a 1", "refused a 1970-01-01T00:00:00.000001Z",
                       "claimed b 2027-03-28T02:30:00+02:00", "refused b 1806193800000000"],
          "claims")
    equal(lines[6:8], ["refused a yesterday", "refused a -1"], "times")
    equal([line.split()[0] for line in lines[8:10]], ["refused", "claimed"], "long names")
    one.wait_log("channel.claim.*has no time that can be read", 5)
    other = "web:1" if name == "web:0" else "web:0"

    def answer():
        with contextlib.suppress(FileNotFoundError), open(f"{where}/out.{other}", encoding="ascii") as f:
            return f.read()
    wait_until(answer, 5)
    equal(answer(), "refused early 1\n", "a standby's claim")
    out = baton("jobs", "history", "-c", one.config, status=0).out
    check(re.search(r"web:b .* application +claimed$", out, re.M), out)


STEPS = r'''
import os, socket, sys, time
s = socket.socket(fileno=int(os.environ["BATON_CHANNEL_FD"]))
lines = s.makefile("r")
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
a = os.environ["NOTIFY_SOCKET"]
n.sendto(b"READY=1", "\0" + a[1:] if a[0] == "@" else a)
s.sendall(b"hello\n")
for line in lines:
    if line.startswith("promote "):
        s.sendall(b"promoted " + line.split()[1].encode() + b"\n")
        break
# Whoever takes the place of the one that was killed asks for nothing: its answers are not those.
for step in () if os.path.exists(sys.argv[1] + "/asked1") else ("1", "2"):
    while not os.path.exists(sys.argv[1] + "/go" + step):
        time.sleep(0.01)
    s.sendall(b"claim late " + step.encode() + b"\n")
    open(sys.argv[1] + "/asked" + step, "w").close()
    for line in lines:
        if line.split()[0] in ("claimed", "refused"):
            with open(sys.argv[1] + "/out", "a") as out:
                out.write(line)
            break
for line in lines:
    pass
'''


@test("claimed, and the lease ended before the answer: the history says that it was not run")
def _():
    where = folder()
    with open(f"{where}/steps.py", "w", encoding="ascii") as f:
        f.write(STEPS)

    def go(step):
        with open(f"{where}/go{step}", "w", encoding="ascii"):
            pass
        wait_until(lambda: os.path.exists(f"{where}/asked{step}"), 10)

    def row():
        with contextlib.closing(sqlite3.connect(one.path("baton.db"), timeout=10)) as db:
            return db.execute("SELECT status, reason FROM job_run WHERE fire_time = 2").fetchone()

    one = Instance(text(f"{PYTHON} {where}/steps.py {where}", 1), folder=where)
    one.wait_for("executor", 10)
    before, worker = set(helpers("lock-keeper", of=one.pid)), one.executor()["pid"]
    go(1)
    wait_until(lambda: os.path.exists(f"{where}/out"), 10)
    keeper, = set(helpers("lock-keeper", of=one.pid)) - before
    os.kill(keeper, signal.SIGSTOP)
    go(2)
    for _ in range(2):
        one.status()                            # by then the claim is with the keeper
    os.kill(one.pid, signal.SIGSTOP)
    os.kill(keeper, signal.SIGCONT)
    equal(wait_until(row, 2), ("claimed", None), "the claim was made")
    wait_until(lambda: not command_of(worker), 10, "the deadman ends the executor with its lease")
    os.kill(one.pid, signal.SIGCONT)
    wait_until(lambda: row()[0] != "claimed", 10)
    check(row()[0] == "lost" and row()[1].startswith("claimed, and "), str(row()))
    with open(f"{where}/out", encoding="ascii") as f:
        equal(f.read(), "claimed late 1\n", "answers")
    out = baton("jobs", "history", "--failed", "-c", one.config, status=0).out
    check(re.search(r"web:late .* application +lost: claimed, and ", out), out)


@test("a flood of claims whose answers nobody reads: heartbeats, the log and the others stay well")
def _():
    one, where, name = raw("flood")
    term, beat = one.term(), one.status()["lock"]["heartbeat_at"]
    wait_until(lambda: one.status()["lock"]["heartbeat_at"] > beat, 3)
    equal((one.term(), one.executor()["worker"]), (term, name), "executor")
    warnings = [line for line in one.lines if "channel.claim" in line]
    check(len(warnings) < 5, f"{len(warnings)} lines about claims")
    check(len(helpers("lock-keeper", of=one.pid)) == 2, "keepers")


if __name__ == "__main__":
    main()

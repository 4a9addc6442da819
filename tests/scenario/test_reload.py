#!/usr/bin/python3
"""Reload by SIGHUP and `baton reload`, and every signal that a supervisor may be sent."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

DEAF = r"""#!/usr/bin/python3
import os, signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    address = os.environ["NOTIFY_SOCKET"]
    s.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
while True:
    signal.pause()
"""


def between(got, low, high, what):
    check(low <= got <= high, f"{what}: got {got!r}, wanted {low!r} to {high!r}")


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def pids(one, program):
    return {w["name"]: w["pid"] for w in one.workers(program)}


def hup(one, event="reload.plan"):
    """SIGHUP, and the log from there on once the reload was decided."""
    mark = one.mark()
    one.send_signal(signal.SIGHUP)
    one.wait_log(f"event={event}", since=mark)
    one.status()            # one request later all its lines are out
    return mark


def connects(address):
    with socket.socket() as s:
        s.settimeout(2)
        try:
            s.connect(address)
            return True
        except ConnectionRefusedError:
            return False


@test("a bad file changes nothing; HUP and `baton reload` name every line")
def _():
    good = """
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
        workers = 2
    """
    one = Instance(good)
    one.wait_for("ready=web")
    before, generation = pids(one, "web"), one.status()["instance"]["generation"]
    one.write("""
        [baton]
        [program:web]
        command = sleep 1000
        wrokers = 3
        startsecs = soon
        [program:new]
        command = sleep 1000
    """)
    mark = hup(one, "reload.error")
    one.wait_log(r"one\.ini:4: \[program:web\] wrokers: .*did you mean 'workers'", since=mark)
    one.wait_log(r"one\.ini:5: \[program:web\] startsecs: ", since=mark)
    one.wait_log("nothing was changed", since=mark)
    r = one.cli("reload", status=78)
    check(re.search(r"one\.ini:4: .*\n.*one\.ini:5: ", r.err), f"both lines in {r.err!r}")
    contains(r.err, "everything goes on as before", "baton reload")
    os.unlink(one.config)
    r = one.cli("reload", status=78)
    check(re.search(r"one\.ini.*No such file", r.err), f"a file that is gone: {r.err!r}")
    one.write("\0\1\2" * 100)
    one.cli("reload", status=78)
    equal(pids(one, "web"), before, "pids after four bad reloads")
    status = one.status()
    equal([p["name"] for p in status["programs"]], ["web"], "programs")
    equal(status["instance"]["generation"], generation, "generation")
    one.write(good)
    contains(one.cli("reload", status=0).out, "nothing has changed", "the good file again")
    equal(pids(one, "web"), before, "pids after the good file")


@test("a changed count scales in place: who stays keeps its pid, who goes is stopped")
def _():
    text = """
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
        workers = {}
        [program:other]
        command = sleep 1000
        startsecs = 0
    """
    one = Instance(text.format(2))
    one.wait_for("ready=web")
    one.wait_for("ready=other")
    first, other = pids(one, "web"), pids(one, "other")
    one.write(text.format(4))
    r = one.cli("reload", status=0)
    check(re.search("web: scaled in place", r.out), f"plan {r.out!r}")
    second = pids(one, "web")
    equal(len(second), 4, "workers after 2 -> 4")
    equal({n: second[n] for n in first}, first, "pids that were there before")
    one.write(text.format(1))
    one.cli("reload", status=0)
    equal(pids(one, "web"), {"web:0": first["web:0"]}, "after 4 -> 1")
    equal([p for n, p in second.items() if n != "web:0" and state_of(p)], [], "still alive")
    equal(pids(one, "other"), other, "the other program's")
    # What an operator scaled stays so as long as the file's count does not change.
    one.call("scale", program="web", workers=3, wait=True)
    one.cli("reload", status=0)
    equal(len(pids(one, "web")), 3, "workers scaled by hand, after an unchanged file")


def down_at_once(events, program, until):
    """Most workers of PROGRAM that were not running at the same time, until UNTIL(line)."""
    down, most = set(), 0
    limit = deadline(15, "the replacement")
    while True:
        line = events.next(limit.left())
        name, event = line.get("worker", ""), line.get("event")
        if "@" in name:         # its replacement is there already
            pass
        elif name.startswith(f"{program}:") and event in ("worker.stopping", "worker.died"):
            down.add(name)
        elif name.startswith(f"{program}:") and event == "worker.running":
            down.discard(name)
        most = max(most, len(down))
        if until(line):
            return most


@test("a changed command or environment replaces one worker at a time, never two are down")
def _():
    text = """
        [baton]
        [program:web]
        command = sleep {}
        environment = VERSION="{}"
        startsecs = 50ms
        workers = 4
        [program:other]
        command = sleep 1000
        startsecs = 0
    """
    one = Instance(text.format(1000, 1))
    one.wait_for("ready=web")
    one.wait_for("ready=other")
    other = pids(one, "other")
    for number, (command, version, why) in enumerate(((1000, 2, "environment"),
                                                      (2000, 2, "command")), 2):
        before = pids(one, "web")
        one.write(text.format(command, version))
        with one.events() as events:
            mark = hup(one)
            contains(one.wait_log("web: replaced one worker at a time", since=mark).string, why,
                     "the plan says what changed")
            most = down_at_once(events, "web", lambda line: line.get("event") == "program.note")
        equal(most, 1, "workers down at the same time")
        after = pids(one, "web")
        equal([n for n in before if before[n] == after[n]], [], "workers with their old pid")
        for name, pid in after.items():
            equal(environment_of(pid).get("VERSION"), str(version), f"VERSION of {name}")
            contains(command_of(pid), f"sleep {command}", f"command of {name}")
        equal({w["generation"] for w in one.workers("web")}, {number}, "generation of its workers")
    equal(pids(one, "other"), other, "the program that did not change")
    one.wait_for("rollout=done")


@test("a new version that does not start is taken back, and said so; mended, it is rolled out")
def _():
    text = """
        [baton]
        [program:web]
        command = {}
        startsecs = 50ms
        startretries = 2
        workers = 3
    """
    one = Instance(text.format("sleep 1000"))
    one.wait_for("ready=web")
    before = pids(one, "web")
    one.write(text.format('sh -c "exit 9"'))
    r = one.cli("reload", status=1)
    check(re.search(r"web: .*does not start.*serve on", r.err, re.S), f"why: {r.err!r}")
    after = pids(one, "web")
    equal(len([n for n in before if before[n] == after[n]]), 2, "workers that serve on")
    equal({w["generation"] for w in one.workers("web")}, {1}, "versions after the failure")
    equal(one.program("web")["rollout"], None, "no rollout runs")
    last = one.program("web")["last_rollout"]
    equal(last["state"], "failed", "how the last one ended")
    contains(last["reason"], "serve on", "and what runs now")
    contains(one.cli("status", status=0).out, "last rollout failed", "status")
    line = one.wait_log("rollout aborted: the new version does not start").string
    contains(line, "level=error", "its level")
    before = pids(one, "web")
    # A second HUP with the same bad file does not take the next one down.
    mark = hup(one)
    one.wait_log("rollout aborted", since=mark)
    one.wait_rollouts()
    one.wait_for("ready=web")
    left = pids(one, "web")
    check(len([n for n in before if before[n] == left[n]]) == 2,
          f"workers that serve on after a second HUP: {left}, at first {before}")
    one.write(text.format("sleep 3000"))
    one.cli("reload", status=0)
    for name, pid in pids(one, "web").items():
        contains(command_of(pid), "sleep 3000", f"command of {name}")
    equal(one.program("web")["last_rollout"]["state"], "done", "the last rollout")
    check("last rollout" not in one.cli("status", status=0).out, "status speaks of what is done")


@test("a new version that is mended by going back to the old one")
def _():
    text = """
        [baton]
        [program:web]
        command = {}
        startsecs = 50ms
        startretries = 1
        workers = 2
    """
    one = Instance(text.format("sleep 1000"))
    one.wait_for("ready=web")
    one.write(text.format('sh -c "exit 9"'))
    one.cli("reload", status=1)
    one.write(text.format("sleep 1000"))
    one.cli("reload", status=0)
    equal([w["state"] for w in one.workers("web")], ["running"] * 2, "states")


@test("a worker that ends by itself while it waits to be replaced is replaced all the same; a task reruns")
def _():
    text = """
        [baton]
        [program:web]
        command = {}
        startsecs = 300ms
        workers = 2
        [program:task]
        command = sh -c "exit {}"
        startsecs = 0
        autorestart = no
    """
    one = Instance(text.format("%(here)s/web", 0), start=False)
    with open(one.path("web"), "w", encoding="ascii") as f:
        f.write("#!/bin/sh\ntrap 'exit 0' TERM USR1\nsleep 1000 & wait\n")
    os.chmod(one.path("web"), 0o755)
    one.start()
    one.wait_for("ready=web")
    before = pids(one, "web")
    one.write(text.format("sleep 999", 3))
    mark = hup(one)
    # One is being replaced, for 300 ms; the other one ends with 0 meanwhile: it would stay so.
    now = wait_until(lambda: [w for w in one.workers("web") if w["pid"] in before.values()
                              and w["state"] == "running"][:1]
                     if len({w["pid"] for w in one.workers("web")} & set(before.values())) == 1
                     else None, 5, "one worker of the old version")
    os.kill(now[0]["pid"], signal.SIGUSR1)
    one.wait_log("web: every worker is of the new version", since=mark)
    one.wait_for("ready=web", 5)
    for name, pid in pids(one, "web").items():
        equal(command_of(pid), "sleep 999", f"command of {name}")
    task = one.worker("task:0")
    equal((task["state"], task["last_exit"]["code"]), ("exited", 3), "the changed task, run again")


@test("a program put in is started, one taken out is stopped and gone")
def _():
    base = """
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
    """
    one = Instance(base)
    one.wait_for("ready=web")
    before = pids(one, "web")
    one.write(base + """
        [program:added]
        command = sleep 1000
        startsecs = 0
        workers = 2
        [program:quiet]
        command = sleep 1000
        autostart = no
    """)
    contains(one.cli("reload", status=0).out, "added: added", "plan")
    one.wait_for("ready=added")
    equal(one.worker("quiet:0")["state"], "stopped", "autostart = no")
    added = pids(one, "added")
    one.write(base)
    contains(one.cli("reload", status=0).out, "added: stopped and taken out", "plan")
    equal([p["name"] for p in one.status()["programs"]], ["web"], "programs left")
    equal([p for p in added.values() if state_of(p)], [], "alive of the program taken out")
    equal(pids(one, "web"), before, "the one that stayed")


@test("a stopped program stays stopped over a reload and starts with the new settings")
def _():
    text = """
        [baton]
        [program:web]
        command = sleep {}
        startsecs = 0
    """
    one = Instance(text.format(1000))
    one.wait_for("ready=web")
    one.call("stop", targets=["web"], wait=True)
    one.write(text.format(2000))
    one.cli("reload", status=0)
    equal(one.worker("web:0")["state"], "stopped", "state after the reload")
    one.call("start", targets=["web"], wait=True)
    contains(command_of(one.worker("web:0")["pid"]), "sleep 2000", "command")


@test("settings that need no new process are applied in place")
def _():
    text = """
        [baton]
        loglevel = {}
        [program:web]
        command = %(here)s/deaf
        ready = notify
        stopwaitsecs = {}
    """
    one = Instance(text.format("info", "100s"), start=False)
    with open(one.path("deaf"), "w", encoding="ascii") as f:
        f.write(DEAF)
    os.chmod(one.path("deaf"), 0o755)
    one.start()
    one.wait_for("ready=web")
    before = pids(one, "web")
    one.write(text.format("debug", "300ms"))
    out = one.cli("reload", status=0).out
    contains(out, "web: applied in place", "plan")
    contains(out, "loglevel", "plan")
    equal(pids(one, "web"), before, "pids")
    began = time.monotonic()
    one.call("stop", targets=["web"], wait=True)
    between(time.monotonic() - began, 0.3, 3, "seconds of a stop with the new stopwaitsecs")
    mark = one.mark()
    one.call("start", targets=["web"], wait=True)
    one.wait_log("level=debug", since=mark)


@test("a changed listen: the new one is served, the old one closed; one in use changes nothing")
def _():
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    first, second, third = free_port(), free_port(), free_port()
    text = """
        [baton]
        [socket:a]
        listen = 127.0.0.1:{}
        [socket:b]
        listen = 127.0.0.1:{}
        [program:web]
        command = sleep 1000
        startsecs = 0
        sockets = a, b
    """
    one = Instance(text.format(first, third))
    one.wait_for("ready=web")
    check(connects(("127.0.0.1", first)), "the first port is not open")
    sockets, before = one.status()["sockets"], pids(one, "web")
    one.write(text.format(second, taken.getsockname()[1]))
    r = one.cli("reload", status=1)
    check(re.search(r"\[socket:b\].*in use.*pid \d+", r.err), f"why and by whom: {r.err!r}")
    equal(one.status()["sockets"], sockets, "sockets after a reload that failed")
    check(connects(("127.0.0.1", first)), "the first port was closed by a reload that failed")
    check(not connects(("127.0.0.1", second)), "a port was left open by a reload that failed")
    equal(pids(one, "web"), before, "pids after a reload that failed")
    hup(one, "reload.error")
    one.call("restart", targets=["web"], wait=True)
    check(connects(("127.0.0.1", first)), "the first port after a restart")
    one.write(text.format(second, third))
    one.cli("reload", status=0)
    one.wait_for("rollout=done")
    check(connects(("127.0.0.1", second)), "the new port is not open")
    check(not connects(("127.0.0.1", first)), "the old port is open still")
    equal([s["listen"] for s in one.status()["sockets"]],
          [f"127.0.0.1:{second}", f"127.0.0.1:{third}"], "sockets")
    check(pids(one, "web") != before, "workers of a changed socket were not replaced")
    taken.close()


@test("a changed database is told to need a restart, each time, and the old one stays in use")
def _():
    text = """
        [scheduler]
        database = %(here)s/{}.db
        ttl = 3s
        heartbeat = 500ms
        kill_grace = 500ms
        [program:web]
        command = sleep 1000
        startsecs = 0
        executor = candidate
    """
    one = Instance(text.format("old"))
    one.wait_for("executor")
    before, old = one.executor(), one.path("old.db")
    one.write(text.format("new"))
    for _ in range(2):
        out = one.cli("reload", status=0).out
        check(re.search(r"database.*needs a restart", out), f"plan {out!r}")
        equal(one.status()["lock"]["database"], old, "database in status")
    equal((one.executor()["pid"], one.executor()["term"]), (before["pid"], before["term"]),
          "executor (pid, term)")
    check(not os.path.exists(one.path("new.db")), "the new database was made")
    beat = one.status()["lock"]["heartbeat_at"]
    wait_until(lambda: one.status()["lock"]["heartbeat_at"] != beat, 5, "a heartbeat on the old one")
    one.write(text.format("old"))
    contains(one.cli("reload", status=0).out, "nothing has changed", "the old file again")


@test("an unchanged file: nothing for programs without sockets, a roll for those with")
def _():
    one = Instance("""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:plain]
        command = sleep 1000
        startsecs = 0
        workers = 2
        [program:web]
        command = sleep 1000
        startsecs = 50ms
        workers = 2
        sockets = http
        [program:kept]
        command = sleep 1000
        startsecs = 0
        sockets = http
        roll_on_reload = changed
    """)
    for name in ("plain", "web", "kept"):
        one.wait_for(f"ready={name}")
    plain, web, kept = (pids(one, n) for n in ("plain", "web", "kept"))
    url = one.url()
    with one.events() as events:
        mark = hup(one)
        most = down_at_once(events, "web", lambda line: line.get("event") == "program.note")
    contains("\n".join(one.lines[mark:]),
             "web: replaced one worker at a time, stopped when its replacement is ready "
             "(roll_on_reload = always)", "the plan says how and why")
    equal(most, 0, "workers down at the same time: with sockets each goes after its replacement")
    equal(pids(one, "plain"), plain, "the program without sockets")
    equal(pids(one, "kept"), kept, "roll_on_reload = changed")
    now = pids(one, "web")
    equal([n for n in web if web[n] == now[n]], [], "workers with sockets that kept their pid")
    equal(one.url(), url, "the listener's address, chosen by the kernel")


@test("HUP while stopping: refused in words, and the stop goes on")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/deaf
        ready = notify
        stopwaitsecs = 1s
    """, start=False)
    with open(one.path("deaf"), "w", encoding="ascii") as f:
        f.write(DEAF)
    os.chmod(one.path("deaf"), 0o755)
    one.start()
    one.wait_for("ready=web")
    mark = one.mark()
    one.send_signal(signal.SIGTERM)
    one.wait_log("web:0 is stopping")
    one.send_signal(signal.SIGHUP)
    one.wait_log("stopping: not reloaded", since=mark)
    for arguments in (["reload"], ["start", "web"], ["restart", "web"], ["scale", "web", "2"]):
        r = one.cli(*arguments)
        check(r.status in (1, 4), f"{arguments} while stopping: {r}")
        contains(r.err, "the supervisor is stopping", f"{arguments} while stopping")
    equal(one.wait_end(5), 0, "exit status")


@test("50 HUPs in a second: alive, answering, one version at the end")
def _():
    one = Instance("""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:plain]
        command = sleep 1000
        startsecs = 0
        [program:web]
        command = sleep 1000
        startsecs = 20ms
        workers = 3
        sockets = http
    """)
    for name in ("plain", "web"):
        one.wait_for(f"ready={name}")
    plain, slowest = pids(one, "plain"), 0
    began = time.monotonic()
    for _ in range(50):
        one.send_signal(signal.SIGHUP)
        start = time.monotonic()
        one.status()
        slowest = max(slowest, time.monotonic() - start)
    check(time.monotonic() - began < 5, f"50 HUPs took {time.monotonic() - began} s")
    check(slowest < 0.5, f"the slowest status took {slowest} s")
    one.wait_for("rollout=done", 20)
    one.wait_for("ready=web")
    equal({w["state"] for w in one.workers("web")}, {"running"}, "states")
    equal(len({w["generation"] for w in one.workers("web")}), 1, "versions at the end")
    equal(pids(one, "plain"), plain, "the program without sockets")
    check("worker.fatal" not in one.log(), "a worker was given up")
    check("core.impossible" not in one.log(), "an impossible event")


@test("TERM is graceful, INT and QUIT quick, the second one kills")
def _():
    text = """
        [baton]
        [program:web]
        command = %(here)s/deaf
        ready = notify
        stopwaitsecs = {}
    """
    where = folder()
    with open(os.path.join(where, "deaf"), "w", encoding="ascii") as f:
        f.write(DEAF)
    os.chmod(os.path.join(where, "deaf"), 0o755)
    ones = [Instance(text.format("700ms" if name == "term" else "50s"), name=name, folder=where)
            for name in ("term", "int", "quit", "twice", "mixed")]
    for one in ones:
        one.wait_for("ready=web")
    began = time.monotonic()
    for one, number in zip(ones, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGINT,
                                  signal.SIGTERM)):
        one.send_signal(number)
        one.wait_log("web:0 is stopping")
    for one, number in ((ones[3], signal.SIGINT), (ones[4], signal.SIGINT)):
        one.send_signal(number)
    ones[4].wait_log("SIGINT: stopping; once more kills")
    ones[4].send_signal(signal.SIGQUIT)
    for one in ones[3:]:
        equal(one.wait_end(), 0, f"exit status of {one.name}")
        between(time.monotonic() - began, 0, 1.5, f"seconds to the end of {one.name}")
    equal(ones[0].wait_end(), 0, "exit status of term")
    between(time.monotonic() - began, 0.7, 2, "seconds to the end of term")
    for one in ones[1:3]:
        equal(one.wait_end(), 0, f"exit status of {one.name}")
        between(time.monotonic() - began, 1.5, 4, f"seconds to the end of {one.name}")
    one.wait_log("once more kills")
    for one in ones:
        check(not os.path.exists(one.socket), f"{one.name} left its control socket")


@test("a reload or HUP while the supervisor still starts is done when it has started")
def _():
    text = """
        [scheduler]
        ttl = 3s
        heartbeat = 300ms
        kill_grace = 500ms
        [program:web]
        command = sleep 1000
        executor = candidate
        startsecs = 0
    """
    one = Instance(text)
    one.wait_for("executor", 10)
    one.stop()
    with contextlib.closing(sqlite3.connect(one.path("baton.db"), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")       # its start waits for the database for a while
        one.start()
        one.write(textwrap.dedent(text) + "workers = 2\n")
        run = one.cli("reload")
        db.execute("ROLLBACK")
    equal(run.status, 0, f"reload: {run.err}")
    began = [n for n, line in enumerate(one.lines) if "event=supervisor.running" in line]
    plan = [n for n, line in enumerate(one.lines) if "event=reload.plan" in line]
    check(began and plan and began[0] < plan[0], one.log())
    one.wait_for("ready=web", 10)
    equal(len(one.status()["programs"][0]["workers"]), 2, "workers")
    one.stop()
    with contextlib.closing(sqlite3.connect(one.path("baton.db"), isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        one.write(text)
        mark = one.mark()
        one.start()
        one.write(textwrap.dedent(text) + "workers = 3\n")
        os.kill(one.pid, signal.SIGHUP)
        one.wait_log("SIGHUP: reloading", since=mark)
        check("event=supervisor.running" not in "\n".join(one.lines[mark:]), "it was no start")
        db.execute("ROLLBACK")
    wait_until(lambda: len(one.status()["programs"][0]["workers"]) == 3, 10, "workers after HUP")


@test("PIPE leaves everything as it is")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
    """)
    one.wait_for("ready=web")
    before = pids(one, "web")
    one.send_signal(signal.SIGPIPE)
    equal(pids(one, "web"), before, "pids")
    equal(one.status()["instance"]["state"], "running", "state")
    check(one.alive, "it ended")


if __name__ == "__main__":
    main()

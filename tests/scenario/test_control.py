#!/usr/bin/python3
"""Control of a running instance: every request by the command line and by the raw protocol, and
clients that are slow, silent, many, wrong or somebody else's."""

import fcntl
import os
import pty
import pwd
import statistics
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

PLAIN = """
    [baton]
    [program:web]
    command = sleep 1000
    workers = 2
    startsecs = 0
    [program:other]
    command = sleep 1000
    startsecs = 0
"""
ELECTION = """
    [scheduler]
    ttl = 3s
    heartbeat = 500ms
    kill_grace = 500ms
    handoff_timeout = 200ms
    [program:web]
    command = {}
    workers = 2
    startsecs = 0
    executor = candidate
    [program:other]
    command = sleep 1000
    startsecs = 0
"""
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def between(got, low, high, what):
    check(low <= got <= high, f"{what}: got {got!r}, wanted {low!r} to {high!r}")


def script(one, name, text):
    path = one.path(name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(textwrap.dedent(text).lstrip("\n"))
    os.chmod(path, 0o755)


def fails(one, code, pattern, cmd, **arguments):
    """The raw request is answered with an error CODE whose message has PATTERN."""
    try:
        result = one.call(cmd, **arguments)
    except ControlError as e:
        equal(e.code, code, f"code of {cmd} {arguments} ({e.error.get('message')})")
        check(re.search(pattern, e.error["message"]),
              f"{cmd} {arguments}: no {pattern!r} in {e.error['message']!r}")
        return e.error
    raise Failed(f"{cmd} {arguments} was not refused: {result}")


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024


def plain_socket(one, timeout=5):
    """A connection without the harness's manners; its greeting is read."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    s.connect(one.socket)
    greeting = b""
    while not greeting.endswith(b"\n"):
        greeting += s.recv(4096)
    return s


def lines_of(s, count, timeout=5):
    """COUNT answers from S; fewer when it closes."""
    buffer, limit = b"", deadline(timeout, f"{count} lines")
    while buffer.count(b"\n") < count:
        s.settimeout(limit.left())
        part = s.recv(1 << 16)
        if not part:
            break
        buffer += part
    return [json.loads(line) for line in buffer.split(b"\n")[:-1]]


# --- status ------------------------------------------------------------------------------------
def typed(value, kind):
    if kind == "time":
        return isinstance(value, str) and TIME.match(value)
    if isinstance(kind, tuple):
        return any(typed(value, k) for k in kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if kind is None else isinstance(value, kind)


def keys(got, wanted, where):
    check(isinstance(got, dict), f"{where} is {got!r}")
    missing = [k for k in wanted if k not in got]
    equal(missing, [], f"keys that {where} lacks; it has {sorted(got)}")
    for key, kind in wanted.items():
        check(typed(got[key], kind), f"{where}.{key} is {got[key]!r}, wanted {kind}")


@test("status --json is the documented document: every key, every type, the right values")
def _():
    one = Instance(ELECTION.format("sleep 1000"))
    one.wait_for("executor")
    one.wait_for("ready=other")
    os.kill(one.worker("other:0")["pid"], signal.SIGKILL)
    one.wait_log("worker.died.*other:0")
    one.wait_for("ready=other")
    r = one.cli("status", "--json", status=0)
    d = json.loads(r.out)
    keys(d, {"instance": dict, "lock": dict, "executors": list, "executor": dict,
             "programs": list}, "document")
    keys(d["instance"], {"id": str, "name": str, "pid": int, "version": str, "started_at": "time",
                         "generation": int, "state": str}, "instance")
    keys(d["lock"], {"database": str, "role": str, "epoch": int, "term": int, "holder": dict,
                     "acquired_at": "time", "heartbeat_at": "time", "expires_at": "time",
                     "ttl_ms": int, "error": (None, str)}, "lock")
    keys(d["lock"]["holder"], {"instance": str, "pid": int, "hostname": str, "worker": str},
         "lock.holder")
    executor = {"program": str, "state": str, "worker": str, "pid": int, "term": int,
                "since": "time", "answered": bool, "busy": int, "reason": (None, str)}
    equal(len(d["executors"]), 1, "rows of executors")
    keys(d["executors"][0], executor, "executors[0]")
    equal(d["executor"], d["executors"][0], "executor, the first that has a worker")
    for p in d["programs"]:
        keys(p, {"name": str, "state": str, "wanted": int, "ready": int, "rollout": (None, dict),
                 "workers": list}, p["name"])
        for w in p["workers"]:
            keys(w, {"name": str, "id": int, "pid": int, "state": str, "ready": bool,
                     "executor": bool, "started_at": "time", "restarts": int,
                     "last_exit": (None, dict), "status": (None, str), "generation": int},
                 w["name"])
    equal((d["instance"]["pid"], d["instance"]["name"], d["instance"]["state"]),
          (one.pid, "one", "running"), "instance (pid, name, state)")
    equal((d["lock"]["role"], d["lock"]["ttl_ms"], d["lock"]["database"]),
          ("holder", 3000, one.path("baton.db")), "lock (role, ttl_ms, database)")
    equal(d["lock"]["holder"]["instance"], d["instance"]["id"], "holder")
    equal(d["lock"]["holder"]["worker"], d["executor"]["worker"], "holder's worker")
    equal([(p["name"], p["state"], p["wanted"], p["ready"]) for p in d["programs"]],
          [("web", "running", 2, 2), ("other", "running", 1, 1)], "programs")
    w = d["programs"][1]["workers"][0]
    equal((w["restarts"], w["last_exit"]["signal"]), (1, 9), "other:0 (restarts, last signal)")
    equal([w["executor"] for w in d["programs"][0]["workers"]].count(True), 1, "executors")
    equal(command_of(w["pid"]), "sleep 1000", "command of the pid of other:0")
    two = Instance(PLAIN, name="two")
    d = json.loads(two.cli("status", "--json", status=0).out)
    equal((d["lock"], d["executors"], d["executor"]), (None, [], None), "without an election")


def on_terminal(one, *arguments):
    """The lines that `baton ARGUMENTS` writes on a terminal of 80 columns, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    with subprocess.Popen([BATON, *arguments, "-s", one.socket], stdin=slave, stdout=slave,
                          stderr=slave, env={**os.environ, "TERM": "xterm"}):
        os.close(slave)
        text = b""
        with contextlib.suppress(OSError):      # EIO: the other end is closed
            while True:
                text += os.read(master, 1 << 16)
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text.decode())
    check(text.count("\n") > 3, f"too little on the terminal: {text!r}")
    return [line.rstrip("\r") for line in text.split("\n")]


@test("status for people: within the terminal, what failed and why, what waits")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
        [program:gone]
        command = %(here)s/gone
        startretries = 0
        autostart = no
        [program:broken]
        command = sh -c "exit 3"
        startretries = 0
        [program:waiting]
        command = sleep 1000
        depends_on = broken
    """, start=False)
    script(one, "gone", "#!/bin/sh\n")
    one.start()
    os.unlink(one.path("gone"))
    one.cli("start", "gone", status=1)
    one.wait_log("worker.fatal.*broken:0")
    out = one.cli("status", status=0).out
    equal([x for x in on_terminal(one, "status") if len(x) > 80], [], "lines beyond the terminal")
    check(re.search(r"gone:0 +fatal.*cannot execute", out), f"why gone failed:\n{out}")
    check(not re.search(r"gone:0.*exit 0", out), f"an exit status that never was:\n{out}")
    check(re.search(r"broken:0 +fatal.*exit 3", out), f"why broken failed:\n{out}")
    check(re.search(r"waiting .*waits for", out), f"what waiting waits for:\n{out}")
    r = one.cli("status", "--health", status=1)
    for name in ("gone", "broken", "waiting"):
        contains(r.out, f"{name}: 0 of 1 workers are ready\n", "--health")
    r = one.cli("status", "nosuch", status=1)
    contains(r.err, "nosuch", "status of a name that is nobody's")


@test("--health follows: starting 1, ready 0, fatal 1, stopped by hand 0")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 500ms
        [program:bad]
        command = sh -c "exit 1"
        startretries = 0
        autostart = no
    """)
    r = one.cli("status", "--health", status=1)
    contains(r.out, "web: 0 of 1 workers are ready", "while it starts")
    one.wait_for("ready=web")
    equal(one.cli("status", "--health", status=0).out, "healthy\n", "once it is ready")
    one.cli("start", "bad", status=1)
    contains(one.cli("status", "--health", status=1).out, "bad: 0 of 1", "with a fatal program")
    one.cli("stop", "bad", status=0)
    equal(one.cli("status", "--health", status=0).out, "healthy\n", "once that is not wanted")


@test("status --watch on a terminal: draws again on a change, within its width, until the end")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    p = subprocess.Popen([BATON, "status", "--watch", "-s", one.socket], stdin=slave, stdout=slave,
                         stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    seen = bytearray()

    def until(pattern, what, since=0):
        limit = deadline(5, f"{what} on the terminal")
        while not re.search(pattern, seen[since:]):
            if select.select([master], [], [], limit.left())[0]:
                try:
                    part = os.read(master, 1 << 16)
                except OSError:
                    raise Failed(f"the terminal was closed before {what}: {bytes(seen)!r}") from None
                seen.extend(part)
    try:
        until(rb"web:0.*\n.*web:1.*\n(.*\n)*.*other:0.*\n", "the first picture")
        mark = len(seen)
        one.call("scale", program="web", workers=3, wait=True)
        until(rb"\x1b\[H\x1b\[J(.*\n)*.*web:2", "the picture with web:2", mark)
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", bytes(seen).decode())
        wide = [x for x in text.split("\n") if len(x.rstrip("\r")) > 80]
        equal(wide, [], "lines beyond the terminal")
        one.stop()
        equal(p.wait(5), 3, "exit status when the instance ends")
    finally:
        p.kill()
        p.wait()
        os.close(master)


# --- start, stop, restart ----------------------------------------------------------------------
@test("start, stop, restart: addresses, what they wait for, what they answer")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        workers = 2
        startsecs = 100ms
        [program:other]
        command = sleep 1000
        startsecs = 0
        [program:named]
        command = sleep 1000
        startsecs = 0
        process_name = special
        [group:both]
        programs = other, named
    """)
    for name in ("web", "other", "named"):
        one.wait_for(f"ready={name}")

    def running():
        return {w["name"]: w["pid"] for p in one.status()["programs"] for w in p["workers"]
                if w["state"] == "running"}
    every = running()
    equal(sorted(every), ["named:0", "other:0", "web:0", "web:1"], "running at first")
    for target, gone in (("web:1", ["web:1"]), ("web", ["web:0", "web:1"]),
                         ("both:*", ["named:0", "other:0"]), ("both:other", ["other:0"]),
                         ("special", ["named:0"]), ("both:special", ["named:0"]),
                         ("all", sorted(every))):
        before = running()
        result = one.call("stop", targets=[target], wait=True)["workers"]
        equal(sorted(w["name"] for w in result), gone, f"answer to stop {target}")
        equal({w["state"] for w in result}, {"stopped"}, f"states of stop {target}")
        equal(sorted(set(before) - set(running())), gone, f"stopped by stop {target}")
        result = one.call("start", targets=[target], wait=True)["workers"]
        equal({w["state"] for w in result}, {"running"}, f"states of start {target}")
        equal(sorted(running()), sorted(every), f"running after start {target}")
        before = running()
        one.call("restart", targets=[target], wait=True)
        after = running()
        equal(sorted(n for n in before if before[n] != after.get(n)), gone,
              f"replaced by restart {target}")
    # Several targets, the same worker twice.
    result = one.call("stop", targets=["web", "web:0", "other"], wait=True)["workers"]
    equal(sorted({w["name"] for w in result}), ["other:0", "web:0", "web:1"], "several targets")
    one.call("start", targets=["all"], wait=True)
    # Started already, stopped already: done at once.
    before = running()
    one.call("start", targets=["web"], wait=True)
    equal(running(), before, "start of what runs")
    one.call("stop", targets=["web:0"], wait=True)
    one.call("stop", targets=["web:0"], wait=True)
    r = one.cli("restart", "web", status=0)
    check(re.search(r"web:0 +running", r.out), f"restart starts what was stopped: {r.out!r}")
    # Without waiting the answer comes before the end.
    r = one.cli("stop", "--no-wait", "web", status=0)
    one.wait_for("stopped=web")


@test("addresses that are nobody's or several things': an error that lists what there is")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        workers = 2
        startsecs = 0
        [program:1]
        command = sleep 1000
        startsecs = 0
        [group:web]
        programs = 1
    """, start=False)
    one.start()
    wait_until(lambda: {w["state"] for w in one.workers("web")} == {"running"}, 10)
    for cmd in ("start", "stop", "restart"):
        e = fails(one, "not_found", "nosuch", cmd, targets=["nosuch"])
        contains(e["message"], "web", "the names that there are")
        fails(one, "not_found", "web:9", cmd, targets=["web:0", "web:9"])
        fails(one, "not_found", "x:", cmd, targets=["x:*"])
        fails(one, "usage", "which", cmd, targets=[])
        fails(one, "usage", "which", cmd)
        fails(one, "usage", "strings", cmd, targets=[7])
        fails(one, "usage", "which", cmd, targets="web")
    e = fails(one, "ambiguous", "web:1", "stop", targets=["web:1"])
    check(re.search(r"could mean .*1.*web:1|could mean .*web:1.*1", e["message"]), e["message"])
    r = one.cli("stop", "web:1", status=1)
    contains(r.err, "could mean", "the command line")
    r = one.cli("stop", "nosuch", status=1)
    contains(r.err, "there is: ", "the command line")
    equal({w["state"] for w in one.workers("web")}, {"running"}, "states after all those errors")
    fails(one, "not_found", "nosuch", "signal", targets=["nosuch"], signal="HUP")
    fails(one, "not_found", "nosuch", "scale", program="nosuch", workers=1)
    fails(one, "not_found", "", "scale", workers=1)


@test("a start that fails is 1 with the reason; a stop waits for the deaf; a timeout is one")
def _():
    one = Instance("""
        [baton]
        [program:bad]
        command = sh -c "exit 5"
        startretries = 5
        autostart = no
        [program:deaf]
        command = %(here)s/deaf
        ready = notify
        stopwaitsecs = 600ms
        [program:slow]
        command = sleep 1000
        startsecs = 100s
        autostart = no
    """, start=False)
    script(one, "deaf", r"""
        #!/usr/bin/python3
        import os, signal, socket
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            address = os.environ["NOTIFY_SOCKET"]
            s.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        while True:
            signal.pause()
    """)
    one.start()
    r = one.cli("start", "bad", status=1)
    check(re.search(r"^baton: start: bad:0 .*(status|exit) 5", r.err), f"why: {r.err!r}")
    one.call("stop", targets=["bad"], wait=True)
    one.wait_for("ready=deaf")
    began = time.monotonic()
    one.cli("stop", "deaf", status=0)
    between(time.monotonic() - began, 0.6, 2.5, "seconds of `baton stop` of a deaf worker")
    fails(one, "timeout", "timed out", "start", targets=["slow"], wait=True, timeout_ms=100)
    equal(one.worker("slow:0")["state"], "starting", "slow:0 after the timeout")
    one.call("stop", targets=["slow"], wait=True)
    # Stopped while it is in backoff: it is not started again.
    one.call("start", targets=["bad"])
    one.wait_log("bad:0 .*again in")
    one.call("stop", targets=["bad"], wait=True)
    equal(one.worker("bad:0")["state"], "stopped", "stopped out of backoff")


@test("a start that has to wait says for what; one that is stopped meanwhile does not wait for ever")
def _():
    one = Instance("""
        [baton]
        [program:db]
        command = sleep 1000
        startsecs = 0
        autostart = no
        [program:web]
        command = sleep 1000
        startsecs = 0
        autostart = no
        depends_on = db, db:started
        [program:slow]
        command = sleep 1000
        startsecs = 100s
        autostart = no
    """)
    p = subprocess.Popen([BATON, "start", "web", "-s", one.socket], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    one.wait_log("web: waits for db, db:started")
    err = p.stderr.readline()
    equal(err, "web waits for db, db:started\n", "what it said while it waited")
    one.call("start", targets=["db"], wait=True)
    out, err = p.communicate(timeout=5)
    equal(p.returncode, 0, "exit status of the start that waited")
    equal(err, "", "what it said afterwards")
    check(re.match("web:0 +running", out), f"what it said at the end: {out!r}")
    with one.control() as c:
        number = c.send("start", targets=["slow"], wait=True)
        wait_until(lambda: one.worker("slow:0")["state"] == "starting", 5, "slow starts")
        one.call("stop", targets=["slow"], wait=True)
        answer = c.receive()
        equal((answer["id"], answer["ok"]), (number, False), "answer to the start (id, ok)")
        contains(answer["error"]["message"], "slow:0 was stopped meanwhile", "why")
    # A worker stopped by itself is not waited for by those who scale.
    one.call("scale", program="web", workers=3, wait=True)
    one.call("stop", targets=["web:1"], wait=True)
    one.call("scale", program="web", workers=2, wait=True, timeout_ms=3000)
    equal([w["state"] for w in one.workers("web")], ["running", "stopped"], "states")


# --- signal, scale -----------------------------------------------------------------------------
@test("signal: to a program, to one worker; names and numbers; none that lives")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/note
        directory = %(here)s
        workers = 2
        ready = notify
    """, start=False)
    script(one, "note", r"""
        #!/usr/bin/python3
        import os, signal, socket
        def note(number, _):
            with open("signals", "a") as f:
                f.write(f"{os.environ['BATON_WORKER']} {signal.Signals(number).name}\n")
        for name in ("HUP", "USR1", "USR2", "WINCH"):
            signal.signal(getattr(signal, "SIG" + name), note)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            address = os.environ["NOTIFY_SOCKET"]
            s.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        while True:
            signal.pause()
    """)
    one.start()
    one.wait_for("ready=web")

    def noted(count):
        def read():
            with contextlib.suppress(OSError):
                with open(one.path("signals"), encoding="ascii") as f:
                    lines = f.read().splitlines()
                return lines if len(lines) >= count else None
            return None
        return wait_until(read, 5, f"{count} signals noted")
    equal(one.call("signal", targets=["web"], signal="HUP"), {"workers": ["web:0", "web:1"]},
          "answer")
    equal(sorted(noted(2)), ["web:0 SIGHUP", "web:1 SIGHUP"], "signals")
    one.call("signal", targets=["web:1"], signal="SIGUSR1")
    r = one.cli("signal", str(int(signal.SIGUSR2)), "web:0", status=0)
    contains(r.out, "web:0", "command line")
    equal(sorted(noted(4))[1::2], ["web:0 SIGUSR2", "web:1 SIGUSR1"], "signals to one worker")
    fails(one, "usage", "FOO", "signal", targets=["web"], signal="FOO")
    fails(one, "usage", "which signal", "signal", targets=["web"])
    fails(one, "usage", ".", "signal", targets=["web"], signal=99)
    fails(one, "usage", ".", "signal", targets=["web"], signal="999")
    one.call("stop", targets=["web"], wait=True)
    fails(one, "failed", "process", "signal", targets=["web"], signal="HUP")
    one.cli("signal", "HUP", "web", status=1)


@test("scale: N, +1, -1, 0 and back; waits; who stays keeps its pid; nonsense is refused")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    first = {w["name"]: w["pid"] for w in one.workers("web")}
    equal(one.call("scale", program="web", workers=4, wait=True),
          {"program": "web", "from": 2, "to": 4}, "answer")
    equal([(w["name"], w["state"]) for w in one.workers("web")],
          [(f"web:{i}", "running") for i in range(4)], "workers when scale answered")
    r = one.cli("scale", "web", "+1", status=0)
    contains(r.out, "4 -> 5", "+1")
    contains(one.cli("scale", "web", "-3", status=0).out, "5 -> 2", "-3")
    equal({w["name"]: w["pid"] for w in one.workers("web")}, first, "who stayed")
    equal(one.program("web")["wanted"], 2, "wanted")
    one.call("scale", program="web", workers=0, wait=True)
    equal(one.workers("web"), [], "workers of 0")
    equal(one.cli("status", "--health", status=0).out, "healthy\n", "with 0 workers wanted")
    one.call("scale", program="web", workers="+2", wait=True)
    equal(len(one.workers("web")), 2, "workers of +2")
    for nonsense in (-1, 10001, "many", "", "+", "1x", None, 1.5, [], "-5", 1 << 62):
        fails(one, "usage", ".", "scale", program="web", workers=nonsense)
    equal(len(one.workers("web")), 2, "workers after nonsense")
    # A stopped program keeps its count and does not start by it.
    one.call("stop", targets=["web"], wait=True)
    one.call("scale", program="web", workers=3, wait=True)
    equal({w["state"] for w in one.workers("web")}, {"stopped"}, "states of a stopped program")
    one.call("start", targets=["web"], wait=True)
    equal([w["state"] for w in one.workers("web")], ["running"] * 3, "states once started")
    # 200 and back, as one request each.
    one.call("scale", 20, program="web", workers=200, wait=True)
    equal(one.program("web")["ready"], 200, "ready of 200")
    one.call("scale", 20, program="web", workers=1, wait=True)
    equal(len(one.workers("web")), 1, "workers at the end")


# --- wait, events ------------------------------------------------------------------------------
@test("wait: conditions that hold, come, never come (124), are none; dropped with its client")
def _():
    one = Instance(ELECTION.format("sleep 1000"))
    for condition in ("executor", "role=holder", "ready=web", "ready=web:1", "ready=all",
                      "term>0", "rollout=done", "state=running", "executor!=1"):
        one.wait_for(condition, 5)
    row = one.executor()
    for condition in (f"executor={row['worker']}", f"executor={row['pid']}"):
        one.wait_for(condition, 1)
    other = "web:1" if row["worker"] == "web:0" else "web:0"
    one.wait_for(f"executor!={other}", 1)
    for condition in (f"executor={other}", "executor=1", f"executor!={row['pid']}",
                      f"term>{row['term']}", "role=standby", "stopped=web", "state=stopping"):
        fails(one, "timeout", "timed out", "wait", **{"for": condition, "timeout_ms": 30})
        one.cli("wait", "--for", condition, "--timeout", "30ms", status=124)
    for condition in ("", "x", "ready=", "term>", "term>x", "role=boss", "state=fine",
                      "rollout=soon", 7, None):
        fails(one, "usage", ".", "wait", **{"for": condition, "timeout_ms": 100})
    e = fails(one, "usage", "no condition", "wait", **{"for": "redy=web", "timeout_ms": 100})
    contains(e["message"], "ready=NAME", "the forms that there are")
    # A name that is nobody's would be waited for until the end of time.
    e = fails(one, "not_found", "wbe", "wait", **{"for": "ready=wbe", "timeout_ms": 100})
    contains(e["message"], "web", "the names that there are")
    equal(one.cli("wait", "--for", "ready=wbe", "--timeout", "1s").status, 1, "command line")
    with one.control() as waits:
        waits.send("wait", **{"for": "stopped=other"})
        one.call("stop", targets=["other"], wait=True)
        equal(waits.receive()["ok"], True, "answer once it came")
    for _ in range(50):     # clients that go while they wait
        with one.control() as c:
            c.send("wait", **{"for": "role=standby"})
    one.status()
    began = time.monotonic()
    one.cli("wait", "--for", "role=standby", "--timeout", "300ms", status=124)
    between(time.monotonic() - began, 0.3, 1.5, "seconds of a timeout of 300 ms")


@test("events: one JSON object a line, with event and time, in the order of what happened")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    p = subprocess.Popen([BATON, "events", "-s", one.socket], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)

    def listens():      # it does from its first line on
        one.call("restart", targets=["web:1"], wait=True)
        return select.select([p.stdout], [], [], 0)[0]
    wait_until(listens, 10, "the first event of the command line")
    with one.events() as events:
        for cmd in ("stop", "start"):
            one.call(cmd, targets=["other"], wait=True)
        for name in ("worker.stopping", "worker.stopped", "worker.running"):
            line = events.wait(name, worker="other:0")
            check(TIME.match(line["time"]), f"time of {line}")
        equal(line["pid"], one.worker("other:0")["pid"], "pid of worker.running")
        names = {e["event"] for e in events.seen}
        equal(names - {"worker.stopping", "worker.stopped", "worker.running", "worker.starting",
                       "worker.died"}, set(), "names of events")
    one.call("restart", targets=["web:0"], wait=True)
    one.stop()
    out, _ = p.communicate(timeout=5)
    seen = [json.loads(line) for line in out.splitlines()]
    order = [e["event"] for e in seen]
    check("supervisor.stopping" in order, f"events of the command line: {order}")
    check(order.index("supervisor.stopping") < len(order) - 1 - order[::-1].index("worker.stopped"),
          f"order {order}")
    equal(p.returncode, 3, "exit status once the instance has ended")


# --- is-executor -------------------------------------------------------------------------------
@test("is-executor in a worker's tree: 0 in one worker, 1 in the other; by the page, by the socket")
def _():
    one = Instance(ELECTION.format("%(here)s/asks").replace(
        "startsecs = 0\n    executor", "ready = notify\n    executor"), start=False)
    script(one, "asks", r"""
        #!/usr/bin/python3
        import os, signal, socket, subprocess
        answers = os.path.dirname(os.path.abspath(__file__)) + "/answers"
        def ask(*_):
            got = []
            for closed in (False, True):
                env = dict(os.environ)
                if closed:
                    del env["BATON_LEASE_FD"]
                p = subprocess.run([BATON, "is-executor"], env=env, close_fds=closed,
                                   capture_output=True)
                got.append(str(p.returncode))
            with open(answers, "a") as f:
                f.write(f"{os.environ['BATON_WORKER']} {' '.join(got)}\n")
        BATON = os.environ["TEST_BATON"]
        signal.signal(signal.SIGUSR1, ask)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            address = os.environ["NOTIFY_SOCKET"]
            s.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        while True:
            signal.pause()
    """)
    one.env["TEST_BATON"] = BATON
    one.start()
    one.wait_for("ready=web")
    one.wait_for("executor")
    executor = one.executor()["worker"]

    def answers(count):
        def read():
            with contextlib.suppress(OSError):
                with open(one.path("answers"), encoding="ascii") as f:
                    lines = f.read().splitlines()
                return lines if len(lines) >= count else None
            return None
        return dict(line.split(" ", 1) for line in wait_until(read, 10, f"{count} answers")[-2:])
    one.call("signal", targets=["web"], signal="USR1")
    other = "web:1" if executor == "web:0" else "web:0"
    equal(answers(2), {executor: "0 0", other: "1 1"}, "is-executor (by page, by socket)")
    one.cli("handoff", status=0)
    equal(one.executor()["worker"], other, "executor after the handoff")
    one.wait_for("ready=web")
    one.call("signal", targets=["web"], signal="USR1")
    equal(answers(4), {executor: "1 1", other: "0 0"}, "after the handoff")
    # Outside of every tree nobody can tell.
    fails(one, "refused", "no worker's process tree", "is-executor")


# --- shutdown, version -------------------------------------------------------------------------
@test("shutdown: says what it waits for and ends with the instance; --now is quick; version")
def _():
    text = """
        [baton]
        [program:web]
        command = %(here)s/slow
        stopwaitsecs = {}
        ready = notify
    """
    slow = r"""
        #!/usr/bin/python3
        import os, signal, socket, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            address = os.environ["NOTIFY_SOCKET"]
            s.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        while True:
            signal.pause()
    """
    where = folder()
    one = Instance(text.format("500ms"), folder=where, start=False)
    two = Instance(text.format("60s"), name="two", folder=where, start=False)
    script(one, "slow", slow)
    for each in (one, two):
        each.start()
        each.wait_for("ready=web")
    got = one.call("version")
    contains(baton("version").out, got["version"], "baton version and the instance's")
    equal(got["protocol"], 1, "protocol")
    equal(two.call("shutdown", mode="quick"), {}, "answer without waiting")
    fails(one, "usage", "graceful or quick", "shutdown", mode="slowly")
    r = one.cli("shutdown", status=0)
    check(re.search(r"waiting for web:0", r.out), f"progress {r.out!r}")
    equal(one.wait_end(1), 0, "exit status of the instance")
    equal(two.wait_end(4), 0, "exit status after the quick way")
    three = Instance(text.format("60s"), name="three", folder=where)
    three.wait_for("ready=web")
    began = time.monotonic()
    three.cli("shutdown", "--now", status=0)
    between(time.monotonic() - began, 0, 4, "seconds of shutdown --now")
    equal(three.wait_end(1), 0, "exit status")
    one.cli("status", status=3)


# --- clients that misbehave --------------------------------------------------------------------
@test("what is no request: an answer that says why, and the connection goes on")
def _():
    one = Instance(PLAIN)
    deep = b"[" * 30000 + b"]" * 30000
    with plain_socket(one) as s:
        for line, code in ((b"hello\n", "usage"), (b"\x00\x01\xff\xfe\n", "usage"),
                           (b"[]\n", "usage"), (b"7\n", "usage"), (b'{"cmd":7}\n', "usage"),
                           (b"{}\n", "usage"), (b'{"cmd":"status","id":"x"}\n', "usage"),
                           (b'{"cmd":"status","id":-1}\n', "usage"), (deep + b"\n", "usage"),
                           (b'{"cmd":"' + b"x" * 60000 + b'"}\n', "unsupported"),
                           (b'{"cmd":"status","v":2}\n', "unsupported"),
                           (b'{"cmd":"frobnicate","id":3}\n', "unsupported"),
                           (b'{"cmd":"start","targets":["\xff\xfe"]}\n', "usage"),
                           (b'{"cmd":"wait"}\n', "usage"), (b'{"cmd":"scale"}\n', "not_found")):
            s.sendall(line)
            answer = lines_of(s, 1)[0]
            equal((answer["ok"], answer["error"]["code"]), (False, code), f"answer to {line[:60]!r}")
            check(len(answer["error"]["message"]) > 5, f"message to {line[:60]!r}: {answer}")
            check(len(answer["error"]["message"]) < 1000, f"message to {line[:60]!r} too long")
        s.sendall(b'\n\r\n{"cmd":"version","id":4,"nonsense":[1,2,{}]}\r\n')
        answer = lines_of(s, 1)[0]
        equal((answer["id"], answer["ok"]), (4, True), "the connection goes on")
        # Many requests in one write are answered, in order.
        s.sendall(b"".join(b'{"cmd":"version","id":%d}\n' % i for i in range(300)))
        equal([a["id"] for a in lines_of(s, 300)], list(range(300)), "ids of 300 answers")
        # A request that comes byte by byte.
        for byte in b'{"cmd":"version","id":5}\n':
            s.sendall(bytes([byte]))
        equal(lines_of(s, 1)[0]["id"], 5, "a request in single bytes")
        # One without an end before the client stops sending: not a request.
        s.sendall(b'{"cmd":"shutdown","id":6')
        s.shutdown(socket.SHUT_WR)
        lines_of(s, 1)
    equal(one.status()["instance"]["state"], "running", "after half a shutdown request")


@test("a line of 100 MiB: refused, the connection closed, nothing kept, nobody waits")
def _():
    one = Instance(PLAIN)
    before = resident(one.pid)
    with plain_socket(one, 20) as s:
        sent, part = 0, b"x" * (1 << 20)
        try:
            while sent < 100 << 20:
                s.sendall(part)
                sent += len(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            got = lines_of(s, 1)
        except ConnectionResetError:
            got = []
        for answer in got:
            equal(answer["error"]["code"], "usage", "code")
            contains(answer["error"]["message"], "longer than 65536", "message")
    check(sent < 100 << 20, "all of it was read")
    began = time.monotonic()
    one.status()
    between(time.monotonic() - began, 0, 0.5, "seconds of status afterwards")
    between(resident(one.pid) - before, -1 << 30, 4 << 20, "bytes of memory more than before")
    # The longest that is allowed, and one byte more.
    with plain_socket(one) as s:
        request = b'{"cmd":"version","id":1,"x":"' + b"y" * 70000
        s.sendall(request[:65536 - 3] + b'"}' + b"\n")
        equal(lines_of(s, 1)[0]["ok"], True, "answer to 65535 bytes")
        s.sendall(request[:65536 + 1 - 2] + b'"}' + b"\n")
        answer = lines_of(s, 1)[0]
        equal((answer["ok"], "longer" in answer["error"]["message"]), (False, True),
              "answer to 65537 bytes")
        with contextlib.suppress(ConnectionResetError):     # not all of it was read
            equal(s.recv(100), b"", "the connection after that")


@test("200 idle clients, some with half a line: status is as quick as before")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")

    def latency():
        times = []
        for _ in range(30):
            began = time.monotonic()
            one.status()
            times.append(time.monotonic() - began)
        return statistics.median(times)
    alone = latency()
    with contextlib.ExitStack() as stack:
        for i in range(200):
            s = stack.enter_context(plain_socket(one))
            if i % 4 == 0:
                s.sendall(b'{"cmd":"stat')
            elif i % 4 == 1:
                s.sendall(b'{"cmd":"wait","for":"stopped=web"}\n')
        crowd = latency()
        check(crowd < max(10 * alone, 0.02), f"median of status: {crowd} s, alone {alone} s")
        one.cli("stop", "web", status=0)
        one.cli("start", "web", status=0)
    equal(one.program("web")["ready"], 2, "ready at the end")


@test("more clients than there may be: the next is turned away in words, the others stay")
def _():
    one = Instance(PLAIN, prefix=["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"])
    one.wait_for("ready=web")
    held, refused = [], None
    try:
        for _ in range(400):
            s = socket.socket(socket.AF_UNIX)
            held.append(s)
            s.settimeout(5)
            s.connect(one.socket)
            line = json.loads(s.recv(4096).split(b"\n")[0])
            if not line.get("ok", True):
                refused = line
                break
        check(refused, f"none of {len(held)} was turned away")
        equal(refused["error"]["code"], "busy", "code")
        check(len(held) > 150, f"turned away after {len(held)} only")
        held[0].sendall(b'{"cmd":"version","id":9}\n')
        equal(lines_of(held[0], 1)[0]["id"], 9, "an older connection")
    finally:
        for s in held:
            s.close()
    equal(one.status()["instance"]["state"], "running", "state afterwards")
    one.call("restart", targets=["web"], wait=True)


@test("a client of events that never reads is let go; nobody else notices")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    address = environment_of(one.worker("web:0")["pid"])["NOTIFY_SOCKET"]
    address = "\0" + address[1:] if address[0] == "@" else address
    before = resident(one.pid)
    with plain_socket(one) as silent, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        silent.sendall(b'{"cmd":"events","id":1}\n')
        one.status()
        slowest, stranger_pid = 0, os.getpid()
        for i in range(40000):
            stranger.sendto(b"STATUS=x", address)
            if i % 2000 == 0:
                began = time.monotonic()
                one.status()
                slowest = max(slowest, time.monotonic() - began)
        between(slowest, 0, 1, "seconds of the slowest status")
        between(resident(one.pid) - before, -1 << 30, 12 << 20, "bytes of memory more than before")
        contains(one.log(), f"pid {stranger_pid} ", "the stranger in the log")
        # What is let go ends after what fitted.
        limit, total = deadline(10, "the end of the stream"), 0
        while True:
            silent.settimeout(limit.left())
            try:
                part = silent.recv(1 << 20)
            except (ConnectionResetError, socket.timeout):
                break
            if not part:
                break
            total += len(part)
        check(total < 8 << 20, f"{total} bytes were kept for it")
    one.call("restart", targets=["other"], wait=True)


# --- whose socket it is ------------------------------------------------------------------------
@test("another user: refused in clear words (4); control_owner lets in whom it names")
def _():
    if os.geteuid() != 0:
        skip("only root can become somebody else to try it")
    setpriv, nobody = need("setpriv"), pwd.getpwnam("nobody")
    drop = [setpriv, "--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups"]
    if subprocess.run([*drop, BATON, "version"], capture_output=True, check=False).returncode != 0:
        skip("nobody may not execute this build")

    def as_nobody(one, *arguments):
        p = subprocess.run([*drop, BATON, *arguments, "-s", one.socket], capture_output=True,
                           check=False, text=True)
        return Result(p.returncode, p.stdout, p.stderr)
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    equal(os.stat(one.socket).st_mode & 0o777, 0o600, "mode of the socket")
    r = as_nobody(one, "status")
    equal(r.status, 4, f"exit status ({r.err!r})")
    check(re.search("not permitted|permission denied|may not", r.err, re.I), f"text {r.err!r}")
    check(re.search("sudo|user who started", r.err), f"what to do: {r.err!r}")
    two = Instance(PLAIN.replace("[baton]", "[baton]\n    control_mode = 0666"), name="two")
    for arguments in (["status"], ["stop", "web"], ["shutdown"], ["events"], ["reload"],
                      ["wait", "--for", "ready=web"], ["scale", "web", "1"]):
        r = as_nobody(two, *arguments)
        equal(r.status, 4, f"exit status of {arguments} ({r.err!r})")
        contains(r.err, f"user {nobody.pw_uid} may not", f"text of {arguments}")
        contains(r.err, "control_owner", f"what to do, of {arguments}")
    equal(two.program("web")["state"], "running", "after all that was refused")
    three = Instance(PLAIN.replace("[baton]", "[baton]\n    control_owner = nobody"), name="three")
    equal(as_nobody(three, "status").status, 0, "status by the owner")


@test("the control socket of a living instance is refused, of a dead one replaced, a file kept")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    before = {w["name"]: w["pid"] for w in one.workers("web")}
    two = Instance(PLAIN, name="two", folder=one.folder, start=False)
    two.socket = one.socket
    two.start(wait=False)
    equal(two.wait_end(), 1, "exit status of the second")
    line = two.wait_log("in use").string
    contains(line, f"pid {one.pid}", "by whom")
    check("run -s" in line or "another path" in line, f"what to do: {line!r}")
    equal({w["name"]: w["pid"] for w in one.workers("web")}, before, "workers of the first")
    one.kill()
    check(os.path.exists(one.socket), "a dead instance leaves its socket")
    two.start()
    equal(two.status()["instance"]["pid"], two.pid, "who answers on the socket replaced")
    two.stop()
    check(not os.path.exists(one.socket), "the socket after a proper end")
    with open(one.socket, "w", encoding="ascii") as f:
        f.write("precious")
    two.start(wait=False)
    equal(two.wait_end(), 1, "exit status with a file in the place of the socket")
    two.wait_log("no socket is there|is not a socket")
    with open(one.socket, encoding="ascii") as f:
        equal(f.read(), "precious", "the file")
    os.unlink(one.socket)


@test("a control socket whose file was deleted: HUP makes it again, the workers stay")
def _():
    one = Instance(PLAIN)
    one.wait_for("ready=web")
    before = {w["name"]: w["pid"] for w in one.workers("web")}
    with one.control() as kept:
        os.unlink(one.socket)
        equal(kept.call("status")["instance"]["pid"], one.pid, "an open connection goes on")
        one.cli("status", status=3)
        one.send_signal(signal.SIGHUP)
        one.wait_log("control.mended")
        equal({w["name"]: w["pid"] for w in one.workers("web")}, before, "workers")
        equal(kept.call("version")["protocol"], 1, "the connection opened before")
    equal(os.stat(one.socket).st_mode & 0o777, 0o600, "mode of the new socket")
    # Ours is taken away only while it is ours.
    os.unlink(one.socket)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(one.socket)
        one.stop()
        check(os.path.exists(one.socket), "somebody else's socket was removed")
    os.unlink(one.socket)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Readiness and health: every form, what goes wrong with each, and who is judged by it."""
import os
import re
import resource
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

# A worker of many kinds. `gate`: it is ready once that file is there; `sick`: it is not well.
WORKER = r'''
import os, signal, socket, sys, time

def probe():
    names = os.environ["LISTEN_FDNAMES"].split(":")
    assert names[-1] == "probe" and os.environ["LISTEN_FDS"] == str(len(names))
    s = socket.socket(fileno=2 + len(names))
    s.setblocking(True)
    return s

def gate():
    while not os.path.exists("gate"):
        time.sleep(0.02)

def serve(listener, answer, linger=False):
    kept = []
    while True:
        c, _ = listener.accept()
        if linger:
            kept.append(c)
            continue
        request = c.recv(65536)
        if request:
            for part in answer(request):
                try:
                    c.sendall(part)
                except OSError:
                    break
        c.close()

def at(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", int(port)))
    s.listen()
    return s

def ok(request):
    with open("request." + kind, "wb") as f:
        f.write(request)
    sick = os.path.exists("sick." + os.environ["BATON_PROGRAM"])
    return [b"HTTP/1.1 503 Sick\r\n\r\n" if sick else
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", b"HTTP/1.1 204 None\r\n\r\n"]

def slowly(request):
    for byte in b"HTTP/1.1 200 OK\r\n\r\n":
        yield bytes([byte])
        time.sleep(1)

def say(text):
    os.write(1, text.encode())

kind, argument = sys.argv[1], sys.argv[2:]
if kind == "http":
    gate(); serve(probe(), ok)
elif kind == "own":
    gate(); serve(at(argument[0]), ok)
elif kind == "fd":
    os.write(9, b"half"); gate(); os.write(9, b" a line\n"); signal.pause()
elif kind == "log":
    say("server is"); gate(); say(" u"); time.sleep(0.05); say("p now"); signal.pause()
elif kind == "long":
    gate(); say("u" * (1 << 20) + "server is up"); signal.pause()
elif kind == "notify":
    gate()
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    signal.pause()
elif kind == "never":
    serve(probe(), ok, linger=True)
elif kind == "answer":
    serve(probe(), lambda r: [argument[0].encode().decode("unicode_escape").encode("latin-1")])
elif kind == "endless":
    serve(probe(), lambda r: iter(lambda: b"HTTP/1.1 100 x\r\n" + b"y" * 8192, None))
elif kind == "slowly":
    serve(probe(), slowly)
elif kind == "closes":
    probe().close(); signal.pause()
elif kind == "closes-fd":
    os.close(9); signal.pause()
elif kind == "exits":
    sys.exit(3)
'''


def script(where):
    with open(os.path.join(where, "worker.py"), "w", encoding="ascii") as f:
        f.write(WORKER)


def touch(where, name):
    with open(os.path.join(where, name), "w", encoding="ascii"):
        pass


def programs(where, rows, common=""):
    """Sections of [program:NAME]; rows: (name, kind and arguments, settings)."""
    return "".join(f"[program:{name}]\ncommand = {PYTHON} worker.py {command}\n"
                   f"directory = {where}\n{common}{settings}\n" for name, command, settings in rows)


def status_of(one, name):
    return one.worker(name + ":0")["status"] or ""


# --- readiness ---------------------------------------------------------------------------------
@test("each form: not ready before it says so, ready when it does")
def _():
    where = folder()
    script(where)
    ports = [free_port(), free_port()]
    check_exec = ("/bin/sh -c 'echo first; echo \"no gate for $MARK\"; test -e gate && "
                  "test \"$(id -u)\" = \"$(stat -c %%u /proc/$BATON_PID)\" && test -z \"$LISTEN_FDS\"'")
    rows = [("http", "http", "ready = http:/up?x=1"),
            ("tcp", "http", "ready = tcp"),
            ("url", f"own {ports[0]}", f"ready = http://127.0.0.1:{ports[0]}/up"),
            ("port", f"own {ports[1]}", f"ready = tcp:localhost:{ports[1]}"),
            ("exec", "notify", f"ready = exec:{check_exec}\nenvironment = MARK=web\n" +
             ("user = nobody" if os.geteuid() == 0 else "")),
            ("fd", "fd", "ready = fd:9"),
            ("log", "log", "ready = log:server is up"),
            ("long", "long", "ready = log:server is up\nstdout_logfile = NONE"),
            ("notify", "notify", "ready = notify")]
    one = Instance("[baton]\n" + programs(where, rows, "startsecs = 0\n"), folder=where)
    names = [r[0] for r in rows]
    wait_until(lambda: "no gate for web" in status_of(one, "exec"), 5, "the reason of exec")
    equal(status_of(one, "exec"), ("exec:" + check_exec.replace("%%", "%"))[:220] +
          ": exited with status 1: no gate for web", "its text")
    wait_until(lambda: all("refused" in status_of(one, n) for n in ("url", "port")), 5, "refusals")
    equal(status_of(one, "notify"), "waiting for notify (READY=1)", "of notify")
    equal(status_of(one, "log"), "waiting for log:server is up", "of log")
    time.sleep(1)       # none of them becomes ready by time
    for name in names:
        w = one.worker(name + ":0")
        equal((w["state"], w["ready"]), ("starting", False), f"{name} before the gate")
    touch(where, "gate")
    opened = time.monotonic()
    for name in names:
        one.wait_for(f"ready={name}", 8)
        print(f"# {name}: ready {time.monotonic() - opened:.2f} s after the gate", flush=True)
        equal(one.worker(name + ":0")["status"], None, f"{name}: nothing is left to say")
    check(time.monotonic() - opened < 6, "within a retry's delay")
    with open(os.path.join(where, "request.http"), encoding="ascii", newline="") as f:
        request = f.read()
    check(request.startswith("GET /up?x=1 HTTP/1.1\r\nHost: localhost\r\n"), request)
    one.stop()
    wait_until(lambda: any("server is up" in line for line in one.lines), 5, "the line that is passed on")


@test("what can go wrong: each has its reason, and nothing blocks")
def _():
    where = folder()
    script(where)
    hang = "/bin/sh -c \"sleep 1000 & echo started; sleep 1000\""
    rows = [("never", "never", "ready = http:/", r"GET / on probe listener: no answer in 1\.\d s"),
            ("mute", "never", "ready = tcp", r"connection to probe listener: not accepted in 1\.\d s"),
            ("garbage", "answer 'SSH-2.0-x\\r\\n'", "ready = http:/",
             r"the answer is not HTTP: 'SSH-2.0-x\.\.'"),
            ("cut", "answer HTTP/1.", "ready = http:/",
             r"closed in the middle of its answer: 'HTTP/1\.'"),
            ("empty", "answer ''", "ready = http:/", "closed without an answer|Connection reset"),
            ("missing", "answer 'HTTP/1.0 404 No\\r\\n\\r\\n'", "ready = http:/x",
             "GET /x on probe listener: status 404"),
            ("endless", "endless", "ready = http:/", "no status in the first 1024 bytes"),
            ("slowly", "slowly", "ready = http:/", r"no whole answer in 1\.\d s, only 'HT?T?'"),
            ("closes", "closes", "ready = http:/", "Connection refused"),
            ("fd", "closes-fd", "ready = fd:9",
             "was not ready in time: closed its readiness descriptor without a line"),
            ("hang", "never", f"ready = exec:{hang}", r"did not end in 1\.\d s: started"),
            ("absent", "never", "ready = exec:no-such-command-here",
             "cannot be run: exec: No such file or directory"),
            ("log", "never", "ready = log:never said", "was not ready in time"),
            ("exits", "exits", "ready = tcp", "exited with status 3")]
    common = "ready_timeout = 1500ms\nstartretries = 0\n"
    # A probe's command is judged at the end of its attempt; only then is the worker given up.
    one = Instance("[baton]\n" + programs(where, [r[:3] for r in rows] + [
        ("redirect", "answer 'HTTP/1.1 302 F\\r\\nLocation: /\\r\\n\\r\\n'", "ready = http:/")],
        common + "probe = yes\n"), folder=where)
    time.sleep(0.3)         # they are forked
    slowest, end = 0, time.monotonic() + 0.9
    while time.monotonic() < end:   # while attempts wait that take 1.4 s
        start = time.monotonic()
        one.status()
        slowest = max(slowest, time.monotonic() - start)
    print(f"# the slowest of many answers: {1000 * slowest:.0f} ms", flush=True)
    check(slowest < 0.6, f"status took {slowest:.2f} s")
    one.wait_for("ready=redirect", 5)       # it is not followed
    for name, _, _, reason in rows:
        wait_until(lambda n=name: one.worker(n + ":0")["state"] == "fatal", 10, f"the end of {name}")
        line = one.wait_log(f"{name}:0 .*given up after 1 start", 2).string
        check(re.search(reason, line), f"{name}: {reason} is not in {line}")
        if name not in ("exits", "fd"):
            check("was not ready in time" in line, line)
    # What the command has left behind is gone with it.
    wait_until(lambda: not [p for p in marked_processes() if "sleep 1000" in command_of(p)], 5,
               "the end of the command's tree")


@test("an address of the shared socket counts only after startsecs")
def _():
    where = folder()
    script(where)
    port = free_port()
    one = Instance(f"""
        [baton]
        [socket:http]
        listen = 127.0.0.1:{port}
        [program:web]
        command = {PYTHON} worker.py never
        directory = {where}
        sockets = http
        probe = yes
        startsecs = 1500ms
        ready = tcp:127.0.0.1:{port}
    """, folder=where)
    begun = time.monotonic()
    one.wait_for("ready=web", 5)
    check(time.monotonic() - begun > 1.2, "not by the kernel's word alone")
    check("which all the workers share" in one.log(), "the warning")


@test("EXTEND_TIMEOUT_USEC extends ready_timeout; READY=1 is worth a look at once")
def _():
    where = folder()
    one = Instance("[baton]\n[program:web]\nready = exec:test -e gate\nready_timeout = 1s\n"
                   f"directory = {where}\nstartretries = 0\n"
                   f"command = {PYTHON} {where}/slow.py\n", folder=where, start=False)
    with open(one.path("slow.py"), "w", encoding="ascii") as f:
        f.write("""import os, signal, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)
s.sendto(b"EXTEND_TIMEOUT_USEC=20000000\\nSTATUS=long boot", to)
time.sleep(2.3)
open("gate", "w").close()
s.sendto(b"READY=1", to)
signal.pause()
""")
    one.start()
    with one.events() as events:
        events.wait("worker.running", 10, worker="web:0")
    took = time.time() - os.stat(one.path("gate")).st_mtime
    check(took < 0.6, f"ready {took:.2f} s after it said so")
    equal(one.worker("web:0")["status"], "long boot", "its own STATUS= counts more")


# --- health ------------------------------------------------------------------------------------
HEALTH = "health_interval = 200ms\nhealth_timeout = 300ms\nhealth_failures = 2\nstopwaitsecs = 500ms\n"


@test("health: a failing worker is replaced, gracefully, and the reason is told")
def _():
    where = folder()
    script(where)
    touch(where, "gate")
    rows = [("http", "http", "ready = tcp\nhealth = http:/health",
             "GET /health on probe listener: status 503"),
            ("exec", "http", "ready = tcp\nhealth = exec:sh -c 'echo sick; test ! -e sick.exec'",
             "exited with status 1: sick"),
            ("hung", "http", "ready = tcp\nhealth = tcp",
             "connection to probe listener: not accepted in 300 ms"),
            ("well", "http", "ready = tcp\nhealth = http:/x", None)]
    one = Instance("[baton]\n" + programs(where, [r[:3] for r in rows], HEALTH), folder=where)
    before = {}
    for row in rows:
        one.wait_for(f"ready={row[0]}", 8)
        before[row[0]] = one.worker(row[0] + ":0")["pid"]
    with one.events() as events:
        touch(where, "sick.http")
        touch(where, "sick.exec")
        os.kill(before["hung"], signal.SIGSTOP)
        for name, _, _, reason in rows[:3]:
            line = one.wait_log(f"{name}:0 is stopping: health", 5).string
            check(f"{reason}, 2 times in a row" in line, f"{name}: {line}")
        said = events.wait("worker.stopping", 5, worker="http:0")
        equal(said["reason"], "health: GET /health on probe listener: status 503, 2 times in a row",
              "the event's reason")
    wait_until(lambda: "health: " in status_of(one, "http") or
               one.worker("http:0")["restarts"] > 0, 5, "status says it")
    os.unlink(os.path.join(where, "sick.http"))
    os.unlink(os.path.join(where, "sick.exec"))
    for name, *_ in rows[:3]:
        wait_until(lambda n=name: one.worker(n + ":0")["ready"] and
                   one.worker(n + ":0")["pid"] != before[n], 8, f"another {name}")
    check(one.wait_log(r"hung:0 .*SIGTERM: killing it", 5), "what does not end is killed")
    time.sleep(1)       # five intervals
    equal(one.worker("well:0")["pid"], before["well"], "the healthy one")
    equal([one.worker(n + ":0")["state"] for n in before], ["running"] * 4, "and all stay")


@test("health: an executor loses the baton first")
def _():
    where = folder()
    script(where)
    touch(where, "gate")
    one = Instance(f"""
        [scheduler]
        ttl = 10s
        heartbeat = 1s
        [program:web]
        command = {PYTHON} worker.py http
        directory = {where}
        workers = 2
        executor = candidate
        ready = tcp
        health = tcp
        health_interval = 200ms
        health_timeout = 300ms
        health_failures = 2
        stopwaitsecs = 30s
    """, folder=where)
    one.wait_for("executor", 10)
    one.wait_for("ready=web", 10)
    old = one.executor()
    page = next(p for p in lease_pages().values() if p.worker == old["worker"])
    check(page.valid(), "it is the executor")
    with one.events() as events:
        os.kill(old["pid"], signal.SIGSTOP)
        begun = time.monotonic()
        events.wait("worker.stopping", 5, worker=old["worker"])
        wait_until(lambda: page.deadline_ns == 0, 2, "the end of its page")    # right after that was told
        promoted = events.wait("executor.promoted", 5)
        took = time.monotonic() - begun
    check(promoted["worker"] != old["worker"] and promoted["term"] > old["term"], promoted)
    equal(state_of(old["pid"]), None, "the old one is dead before")
    print(f"# hung, found out, replaced as executor: {took:.2f} s", flush=True)
    check(took < 3, f"{took:.2f} s, not after stopwaitsecs")
    page.close()


@test("health: what baton itself lacks is not the worker's fault")
def _():
    where = folder()
    script(where)
    touch(where, "gate")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    check(hard >= 256, "descriptors for this test")
    one = Instance("[baton]\n" + programs(where, [
        ("web", "http", "ready = tcp\nhealth = http:/x"),
        ("exec", "http", "ready = tcp\nhealth = exec:true")], HEALTH), folder=where,
        prefix=["prlimit", "--nofile=64:64"])
    one.wait_for("ready=web", 8)
    one.wait_for("ready=exec", 8)
    before = [one.worker(n)["pid"] for n in ("web:0", "exec:0")]
    connections = []
    with contextlib.suppress(OSError, EOFError, TimeoutError):
        for _ in range(80):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.2)
            s.connect(one.socket)
            connections.append(s)
    one.wait_log(r"web:0: GET /x on probe listener: Too many open files", 5)
    one.wait_log(r"exec:0: .*Too many open files", 5)
    time.sleep(1.5)     # more than enough intervals to be given up
    for s in connections:
        s.close()

    def answers():
        with contextlib.suppress(OSError, EOFError):
            return one.status()
    wait_until(answers, 5, "an answer again")
    equal([one.worker(n)["pid"] for n in ("web:0", "exec:0")], before, "nobody was replaced")
    wait_until(lambda: one.worker("web:0")["status"] is None, 5, "well again")


@test("health of 200 workers: spread over the interval, and cheap")
def _():
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen(512)
        port = listener.getsockname()[1]
        times = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    c, _ = listener.accept()
                    times.append(time.monotonic())
                    c.close()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        one = Instance(f"""
            [baton]
            [program:web]
            command = sleep 1000
            workers = 200
            startsecs = 100ms
            health = tcp:127.1.1.%(process_num)d:{port}
            health_interval = 1s
        """)
        one.wait_for("ready=web", 20)
        time.sleep(1.5)     # let them drift apart

        def used():
            with open(f"/proc/{one.pid}/stat", encoding="ascii") as f:
                fields = f.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        del times[:]
        start, cpu = time.monotonic(), used()
        time.sleep(2)
        took, cpu = time.monotonic() - start, used() - cpu
        window = [t - start for t in times if t - start < 2]
        rate = len(window) / took
        slots = [0] * 40
        for t in window:
            slots[int(t * 20)] += 1
        print(f"# {rate:.0f} probes/s, at most {max(slots)} of 200 in 50 ms, "
              f"{1e6 * cpu / len(window):.0f} us of CPU each", flush=True)
        check(rate > 100, f"{rate} probes a second")
        check(max(slots) < 120, f"{max(slots)} of 200 workers within 50 ms")
        check(cpu / took < 0.25, f"{100 * cpu / took:.0f} % CPU")
        equal({w["pid"] is not None and w["restarts"] for w in one.workers("web")}, {0}, "restarts")
        one.stop()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@test("a reload turns health on and off; a worker without a listener for it is replaced")
def _():
    where = folder()
    script(where)
    touch(where, "gate")
    text = "[baton]\n" + programs(where, [("web", "http", "ready = tcp\n%s")], HEALTH)
    one = Instance(text % "", folder=where)
    one.wait_for("ready=web", 8)
    pid = one.worker("web:0")["pid"]
    one.write(text % "health = http:/a")
    one.cli("reload", status=0)
    wait_until(lambda: "GET /a" in (read(where, "request.http") or ""), 5, "a probe of its health")
    equal(one.worker("web:0")["pid"], pid, "in place")
    one.write(text % "")
    one.cli("reload", status=0)
    os.unlink(os.path.join(where, "request.http"))
    touch(where, "sick.web")
    time.sleep(1)
    equal((one.worker("web:0")["pid"], read(where, "request.http")), (pid, None), "no probe any more")


@test("an upgrade in place, in the middle of it: readiness and health go on")
def _():
    where = folder()
    script(where)
    rows = [("fd", "fd", "ready = fd:9"), ("log", "log", "ready = log:server is up"),
            ("http", "http", "ready = http:/x\nhealth = http:/y"),
            ("exec", "notify", "ready = exec:sh -c 'test -e gate || sleep 1000'")]
    one = Instance("[baton]\n" + programs(where, rows, HEALTH).replace("200ms", "300ms"),
                   folder=where)
    names = [r[0] for r in rows]
    wait_until(lambda: all(one.worker(n + ":0")["status"] for n in names), 5, "what they wait for")
    wait_until(lambda: [p for p in marked_processes() if "sleep 1000" in command_of(p)], 5,
               "the command of exec")
    time.sleep(0.3)     # the worker of log has printed the first half
    pids = [one.worker(n + ":0")["pid"] for n in names]
    one.cli("upgrade", status=0)
    equal([one.worker(n + ":0")["state"] for n in names], ["starting"] * 4, "after the upgrade")
    touch(where, "gate")
    for name in names:      # log: half of its line came before
        one.wait_for(f"ready={name}", 5)
    equal([one.worker(n + ":0")["pid"] for n in names], pids, "the same processes")
    touch(where, "sick.http")
    one.wait_log(r"http:0 is stopping: health: GET /y on probe listener: status 503, 2 times", 10)


def read(where, name):
    try:
        with open(os.path.join(where, name), encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    main()

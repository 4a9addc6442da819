#!/usr/bin/python3
"""Listening sockets shared by workers, and what workers tell by sd_notify."""

import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

NOTIFY = r"""#!/usr/bin/python3
import os, signal, socket, sys
def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
"""
# Answers each connection with its pid; on TERM it finishes the one it has and ends.
SERVER = NOTIFY + r"""
import select
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
wake, waker = socket.socketpair()
waker.setblocking(False)
signal.set_wakeup_fd(waker.fileno())
listener = socket.socket(fileno=3)
notify("READY=1")
while not ending:
    select.select([listener, wake], [], [])
    if ending:
        break
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    connection.setblocking(True)
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""
LIVE = NOTIFY + r"""
while True:
    signal.pause()
"""


def between(got, low, high, what):
    check(low <= got <= high, f"{what}: got {got!r}, wanted {low!r} to {high!r}")


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def script(one, name, text):
    with open(one.path(name), "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(one.path(name), 0o755)


def sockets(one):
    return {s["name"]: s["listen"] for s in one.status()["sockets"]}


def address_of(one, name):
    host, _, port = sockets(one)[name].rpartition(":")
    return host.strip("[]"), int(port)


def descriptor(pid, number):
    return os.readlink(f"/proc/{pid}/fd/{number}")


@test("LISTEN_FDS and its like, SERVER_STARTER_PORT, EINHORN_FD_N; one listener for all workers, in the order asked for")
def _():
    one = Instance("""
        [baton]
        [socket:admin]
        listen = 127.0.0.1:0
        [socket:http]
        listen = 127.0.0.1:0
        [socket:local]
        listen = unix:%(here)s/local
        [program:web]
        command = sleep 1000
        workers = 3
        startsecs = 0
        sockets = http, local
        [program:admin]
        command = sh -c "sleep 1000; true"
        startsecs = 0
        sockets = admin, http
        [program:none]
        command = sleep 1000
        startsecs = 0
    """, env={"SERVER_STARTER_PORT": "80=3", "EINHORN_FD_0": "3", "EINHORN_MASTER_PID": "1"})
    for name in ("web", "admin", "none"):
        one.wait_for(f"ready={name}")
    inodes = {}
    for name, number in (("web", 3), ("admin", 1), ("none", 1)):
        for w in one.workers(name):
            pid = w["pid"]
            env = environment_of(pid)
            if name == "none":
                equal([k for k in env if re.match("LISTEN_|SERVER_STARTER|EINHORN", k)], [],
                      f"variables of {w['name']}")
                continue
            equal(env.get("LISTEN_FDS"), "2", f"LISTEN_FDS of {w['name']}")
            equal(env.get("LISTEN_PID"), str(pid), f"LISTEN_PID of {w['name']}")
            equal(env.get("LISTEN_FDNAMES"), {"web": "http:local", "admin": "admin:http"}[name],
                  f"LISTEN_FDNAMES of {w['name']}")
            listen = [sockets(one)[n].removeprefix("unix:")
                      for n in env["LISTEN_FDNAMES"].split(":")]
            equal(env.get("SERVER_STARTER_PORT"), f"{listen[0]}=3;{listen[1]}=4",
                  f"SERVER_STARTER_PORT of {w['name']}")
            equal([env.get(f"EINHORN_FD_{i}") for i in ("COUNT", 0, 1, 2)], ["2", "3", "4", None],
                  f"einhorn's variables of {w['name']}")
            for i, socket_name in enumerate(env["LISTEN_FDNAMES"].split(":")):
                inodes.setdefault(socket_name, set()).add(descriptor(pid, 3 + i))
            check(int(env["BATON_CHANNEL_FD"]) >= 5, f"channel of {w['name']}: {env}")
        equal(len(one.workers(name)), number, f"workers of {name}")
    equal({k: len(v) for k, v in inodes.items()}, {"http": 1, "local": 1, "admin": 1},
          f"sockets behind each name: {inodes}")
    equal(len(set.union(*inodes.values())), 3, "different sockets")
    for name in ("http", "admin"):
        with socket.create_connection(address_of(one, name), 2):
            pass
    pid = one.workers("none")[0]["pid"]
    check(not any(descriptor(pid, fd) in set.union(*inodes.values())
                  for fd in os.listdir(f"/proc/{pid}/fd")), "a listener in a program without")


@test("%(fd_NAME)d and %(listen_NAME)s in a command and an environment")
def _():
    one = Instance("""
        [baton]
        [socket:a]
        listen = 127.0.0.1:0
        [socket:b]
        listen = [::1]:0
        [socket:c]
        listen = unix:%(here)s/c
        [program:web]
        command = sh -c "sleep 1000; true" %(fd_a)d %(fd_b)d %(fd_c)d %(listen_a)s %(listen_b)s
        environment = WHERE="%(listen_c)s"
        startsecs = 0
        sockets = a, b, c
    """, wait=False)
    try:
        one.wait_answering()
    except Failed:
        if "no IPv6" in one.log() or "no such address" in one.log():
            skip("this machine has no IPv6")
        raise
    one.wait_for("ready=web")
    pid = one.workers("web")[0]["pid"]
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        words = f.read().decode().split("\0")[3:-1]
    listens = sockets(one)
    equal(words, ["3", "4", "5", listens["a"], listens["b"]], "words of the command")
    equal(environment_of(pid)["WHERE"], f"unix:{one.path('c')}", "environment")
    with socket.create_connection(address_of(one, "b"), 2):
        pass
    equal(one.url("a"), f"http://{listens['a']}", "url")


@test("a unix socket: mode, owner, served; removed at the end; a dead one replaced, a living one not")
def _():
    text = """
        [baton]
        umask = 077
        [socket:http]
        listen = unix:%(here)s/web.sock
        mode = {}
        {}
        [program:web]
        command = %(here)s/server
        ready = notify
        sockets = http
    """
    root = os.geteuid() == 0
    where = folder()
    path = os.path.join(where, "web.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)         # and nobody listens: left by something that died
    one = Instance(text.format("0666", "owner = daemon" if root else ""), folder=where, start=False)
    script(one, "server", SERVER)
    one.start()
    one.wait_for("ready=web")

    def ask():
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(path)
            return int(s.recv(100))
    equal(ask(), one.workers("web")[0]["pid"], "who answers on the unix socket")
    equal(oct(stat.S_IMODE(os.stat(path).st_mode)), "0o666", "mode")
    if root:
        equal(os.stat(path).st_uid, 1, "owner")
    # Another mode is applied in place.
    one.write(text.format("0600", "owner = daemon" if root else ""))
    one.cli("reload", status=0)
    equal(oct(stat.S_IMODE(os.stat(path).st_mode)), "0o600", "mode after a reload")
    one.wait_for("ready=web")
    equal(ask(), one.workers("web")[0]["pid"], "who answers after a reload")
    two = Instance(text.format("0666", ""), name="two", folder=where, wait=False)
    equal(two.wait_end(), 1, "exit status of a second instance on the same path")
    contains(two.wait_log("web.sock").string, f"in use by pid {one.pid}", "why")
    equal(ask(), one.workers("web")[0]["pid"], "who answers after the second was refused")
    one.stop()
    check(not os.path.lexists(path), "the socket was left behind")
    with open(path, "w", encoding="ascii") as f:
        f.write("precious")
    one.start(wait=False)
    equal(one.wait_end(), 1, "exit status with a file in its place")
    with open(path, encoding="ascii") as f:
        equal(f.read(), "precious", "the file in its place")


@test("a port in use: who has it, by pid and name; nothing was started")
def _():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = Instance(f"""
            [baton]
            [socket:http]
            listen = 127.0.0.1:{port}
            [program:web]
            command = touch %(here)s/started
            startsecs = 0
            sockets = http
        """, wait=False)
        equal(one.wait_end(), 1, "exit status")
        line = one.wait_log("in use").string
        contains(line, "[socket:http]", "which socket")
        contains(line, f"127.0.0.1:{port}", "which port")
        contains(line, f"pid {os.getpid()} (", "whose")
        check(not os.path.exists(one.path("started")), "a worker was started all the same")
        check(not os.path.exists(one.socket), "its control socket was left behind")


@test("restarts, deaths, scaling and reloads under load: no connection refused, none unanswered")
def _():
    one = Instance("""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        command = %(here)s/server
        workers = 2
        ready = notify
        sockets = http
    """, start=False)
    script(one, "server", SERVER)
    one.start()
    one.wait_for("ready=web")
    address, ending = address_of(one, "http"), threading.Event()
    wrong, answered = [], collections.Counter()

    def client():
        while not ending.is_set():
            try:
                with socket.create_connection(address, 5) as s:
                    got = s.recv(100)
                    if got:
                        answered[int(got)] += 1
                    else:
                        wrong.append("closed without an answer")
            except OSError as e:
                wrong.append(f"{type(e).__name__}: {e}")
    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        seen = {w["pid"] for w in one.workers("web")}
        for step in range(3):
            one.call("restart", targets=["web:0"], wait=True)
            seen |= {w["pid"] for w in one.workers("web")}
            one.call("restart", targets=["web"], wait=True)     # both at once: they queue
            seen |= {w["pid"] for w in one.workers("web")}
            one.call("scale", program="web", workers=3 - step % 2, wait=True)
            mark = one.mark()
            one.send_signal(signal.SIGHUP)
            one.wait_log("every worker is of the new version", 10, since=mark)
            seen |= {w["pid"] for w in one.workers("web")}
    finally:
        ending.set()
        for t in threads:
            t.join()
    equal(wrong, [], "connections that failed")
    check(len(set(answered) & seen) >= 8, f"only {len(answered)} processes answered: {answered}")
    # Kills: what a killed worker had accepted is lost with it, but nobody is refused.
    for _ in range(5):
        killed = one.worker("web:0")["pid"]
        os.kill(killed, signal.SIGKILL)
        for _ in range(5):
            socket.create_connection(address, 5).close()
        wait_until(lambda: one.worker("web:0")["pid"] not in (killed, None), 5, "a successor")
        one.wait_for("ready=web")


@test("a child that lowers the backlog: it is set again when it is ready, and when another starts")
def _():
    one = Instance("""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        backlog = 100
        [program:web]
        command = %(here)s/lowers
        ready = notify
        sockets = http
        [program:other]
        command = sleep 1000
        startsecs = 0
        autostart = no
        sockets = http
    """, start=False)
    script(one, "lowers", NOTIFY + r"""
listener = socket.socket(fileno=3)
def lower(*_):
    listener.listen(1)
    notify("STATUS=lowered")
signal.signal(signal.SIGHUP, lower)
listener.listen(1)
notify("READY=1")
while True:
    signal.pause()
""")
    one.start()
    one.wait_for("ready=web")
    address = address_of(one, "http")

    def connected(count, seconds):
        """How many of COUNT connections that nobody accepts are made in time."""
        poll, made, held = select.poll(), 0, []
        for _ in range(count):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(address)
            poll.register(s, select.POLLOUT)
            held.append(s)
        end = time.monotonic() + seconds
        while made < count and time.monotonic() < end:
            for fd, _ in poll.poll(max(1, (end - time.monotonic()) * 1000)):
                poll.unregister(fd)
                made += 1
        for s in held:
            s.close()
        return made
    equal(connected(40, 3), 40, "connected once it is ready")
    one.call("signal", targets=["web"], signal="HUP")
    wait_until(lambda: one.worker("web:0")["status"] == "lowered", 5, "the backlog to be lowered")
    lowered = connected(40, 0.3)
    check(lowered < 20, f"{lowered} of 40 connected with a backlog of 1: the test proves nothing")
    one.call("start", targets=["other"], wait=True)
    # What waits in the queue already keeps its place: 40 more fit all the same.
    equal(connected(40, 3), 40, "connected once the backlog is 100 again")


# --- sd_notify ---------------------------------------------------------------------------------
@test("notify: READY makes it ready and only that; STATUS is shown; grandchildren may speak too")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/web %(here)s/gate
        ready = notify
        startsecs = 0
        [program:below]
        command = %(here)s/below
        ready = notify
        [program:never]
        command = sleep 1000
        ready = notify
        ready_timeout = 300ms
        startretries = 1
    """, start=False)
    os.mkfifo(one.path("gate"))
    script(one, "web", NOTIFY + r"""
notify("STATUS=waiting for the gate\n")
open(sys.argv[1]).read()
notify("STATUS=open \x1b[31m now\nREADY=1\nUNKNOWN=1\nMAINPID=1")
while True:
    signal.pause()
""")
    script(one, "below", NOTIFY + r"""
if os.fork() == 0:
    if os.fork() == 0:
        notify("READY=1\nSTATUS=from below")
        signal.pause()
    os._exit(0)
while True:
    signal.pause()
""")
    one.start()
    wait_until(lambda: "gate" in (one.worker("web:0")["status"] or ""), 5, "its own status")
    w = one.worker("web:0")
    equal((w["state"], w["ready"], w["status"]), ("starting", False, "waiting for the gate"),
          "before READY=1 (state, ready, status)")
    with open(one.path("gate"), "w", encoding="ascii"):
        pass
    one.wait_for("ready=web")
    wait_until(lambda: one.worker("web:0")["status"].startswith("open"), 5, "the new status")
    equal(one.worker("web:0")["status"], "open  [31m now", "a status with control characters")
    one.wait_for("ready=below")
    equal(one.worker("below:0")["status"], "from below", "status from a grandchild")
    line = one.wait_log("event=worker.fatal.*never:0").string
    check("ready" in one.log()[one.log().index("never:0"):], f"why never failed: {line!r}")
    one.wait_log("never:0 is stopping: not ready in time")


@test("watchdog: who feeds it lives, who stops is killed and replaced, told so")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/fed %(here)s/hungry.%(process_num)d
        workers = 2
        ready = notify
        watchdog = 500ms
    """, start=False)
    script(one, "fed", NOTIFY + r"""
import time
assert os.environ["WATCHDOG_PID"] == str(os.getpid()), os.environ["WATCHDOG_PID"]
usec = int(os.environ["WATCHDOG_USEC"])
hungry = []
signal.signal(signal.SIGUSR1, lambda *_: hungry.append(1))
signal.setitimer(signal.ITIMER_REAL, usec / 4e6, usec / 4e6)
signal.signal(signal.SIGALRM, lambda *_: hungry or notify("WATCHDOG=1"))
notify("READY=1")
while True:
    signal.pause()
""")
    one.start()
    one.wait_for("ready=web")
    first = {w["name"]: w["pid"] for w in one.workers("web")}
    with one.events() as events:
        began = time.monotonic()
        os.kill(first["web:0"], signal.SIGUSR1)
        events.wait("worker.running", 5, worker="web:0")
        between(time.monotonic() - began, 0.2, 2, "seconds from the last meal to the successor")
    second = {w["name"]: w["pid"] for w in one.workers("web")}
    check(second["web:0"] != first["web:0"], "web:0 was not replaced")
    equal(second["web:1"], first["web:1"], "pid of the one that is fed")
    contains(one.wait_log("web:0.*watchdog").string, "no WATCHDOG=1", "the reason")
    equal(one.worker("web:0")["restarts"], 1, "restarts")


@test("EXTEND_TIMEOUT_USEC gives a slow start more time")
def _():
    one = Instance("""
        [baton]
        [program:slow]
        command = %(here)s/slow
        ready = notify
        ready_timeout = 400ms
        startretries = 0
    """, start=False)
    script(one, "slow", NOTIFY + r"""
import time
notify("EXTEND_TIMEOUT_USEC=3000000")
time.sleep(0.8)
notify("READY=1")
while True:
    signal.pause()
""")
    one.start()
    one.wait_for("ready=slow", 5)
    equal(one.worker("slow:0")["restarts"], 0, "restarts")


@test("a notification from a stranger, and nonsense from a worker: ignored, told, nothing changes")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/web
        ready = notify
        ready_timeout = 100s
    """, start=False)
    script(one, "web", NOTIFY + r"""
address = os.environ["NOTIFY_SOCKET"]
address = "\0" + address[1:] if address[0] == "@" else address
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    for nonsense in (b"", b"\0", b"READY", b"=1", b"\xff\xfe=\x00", b"READY=1" * 3000,
                     b"READY=2", b"EXTEND_TIMEOUT_USEC=99999999999999999999", b"WATCHDOG=trigger"):
        s.sendto(nonsense, address)
    r, w = os.pipe()
    s.connect(address)
    socket.send_fds(s, [b"STATUS=with descriptors\nSTOPPING=1"], [r, w] * 20)
while True:
    signal.pause()
""")
    one.start()
    wait_until(lambda: one.worker("web:0")["status"] == "with descriptors", 5, "the last message")
    pid = one.worker("web:0")["pid"]
    address = environment_of(pid)["NOTIFY_SOCKET"]
    address = "\0" + address[1:] if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1\nSTATUS=forged", address)
    one.wait_log(f"pid {os.getpid()} is in no worker's process tree")
    told = re.findall(r"web:0: a notification of pid (\d+) .*", one.log())
    equal(told, [str(pid)], "told of the nonsense, once")
    w = one.worker("web:0")
    equal((w["state"], w["ready"], w["status"], w["pid"]),
          ("starting", False, "with descriptors", pid), "web:0 (state, ready, status, pid)")
    open_files = []
    for n in os.listdir(f"/proc/{one.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):    # one that was closed just now
            open_files.append(os.readlink(f"/proc/{one.pid}/fd/{n}"))
    check(sum(f.startswith("pipe:") for f in open_files) < 10,
          f"descriptors that came with a message were kept: {open_files}")
    one.stop()


@test("a bad line in a notification: that line is passed over and told, the rest counts")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/web
        ready = notify
        ready_timeout = 100s
    """, start=False)
    script(one, "web", NOTIFY + r"""
notify("READY=1\nGARBAGE\n")
notify("more of it")
notify("STATUS=up")
while True:
    signal.pause()
""")
    one.start()
    one.wait_for("ready=web", 5)
    wait_until(lambda: one.worker("web:0")["status"] == "up", 5, "the last message")
    told = re.findall(r"web:0: .*not KEY=VALUE.*", one.log())
    equal(len(told), 1, f"times it was told: {told}")


# The one that was started makes another the main process, and ends or stays as its file says.
MAIN = NOTIFY + r"""
import time
where, how = sys.argv[1:3]
told, teller = os.pipe()
def note(name):
    with open(f"{where}.{name}", "a") as f:
        f.write(f"{os.getpid()}\n")
def serve():
    def term(*_):
        note("term")
        os._exit(0)
    signal.signal(signal.SIGTERM, term)
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
    note("child")
    notify(f"MAINPID={os.getpid()}\nREADY=1\nSTATUS=main")
    os.write(teller, b"x")
    while True:
        signal.pause()
if os.fork() == 0:
    if how == "hides":
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
    serve()
os.close(teller)
os.read(told, 1)
if how == "stays":
    os.wait()
    time.sleep(1000)
"""


def parent_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return int(f.read().rpartition(")")[2].split()[1])


def mains(one, name):
    def found():
        with contextlib.suppress(OSError):
            with open(one.path(f"{name}.child"), encoding="ascii") as f:
                return [int(line) for line in f.read().split("\n")[:-1]]
        return None
    return wait_until(found, 5, f"the pid of {name}")


@test("MAINPID: status, signals, the end and its status are those of the process that it names")
def _():
    one = Instance("""
        [DEFAULT]
        startsecs = 0
        ready = notify
        stopwaitsecs = 20s
        [program:leaves]
        command = %(here)s/main %(here)s/leaves leaves
        [program:hides]
        command = %(here)s/main %(here)s/hides hides
        [program:stays]
        command = %(here)s/main %(here)s/stays stays
        [baton]
        loglevel = info
    """, start=False)
    script(one, "main", MAIN)
    one.start()
    for name in ("leaves", "hides", "stays"):
        one.wait_for(f"ready={name}", 10)
    pids = {name: mains(one, name)[0] for name in ("leaves", "hides", "stays")}
    for name, pid in pids.items():
        w = one.worker(f"{name}:0")
        equal((w["pid"], w["state"], w["restarts"]), (pid, "running", 0), name)
    # Over an upgrade in place.
    one.cli("upgrade", status=0)
    for name, pid in pids.items():
        equal(one.worker(f"{name}:0")["pid"], pid, f"{name} after the upgrade")
    with one.events() as events:
        for name in ("leaves", "hides"):
            one.cli("signal", "USR1", name, status=0)
            events.wait("worker.died", worker=f"{name}:0", pid=pids[name], status=7)
            events.wait("worker.running", worker=f"{name}:0")
            pids[name] = mains(one, name)[1]
            equal(one.worker(f"{name}:0")["pid"], pids[name], f"the successor of {name}")
        # Its parent, which was started, has its status: that one is the main process again.
        os.kill(pids["stays"], signal.SIGUSR1)
        wait_until(lambda: one.worker("stays:0")["pid"] not in (None, pids["stays"]), 5,
                   "the former main process of stays")
        equal(one.worker("stays:0")["restarts"], 0, "restarts of stays")
    former = one.worker("stays:0")["pid"]
    one.cli("restart", "stays", status=0)
    check(state_of(former) is None, "the process that was started is left")
    one.wait_for("ready=stays")
    pids["stays"] = mains(one, "stays")[1]
    began, former = time.monotonic(), parent_of(pids["stays"])
    one.cli("stop", "stays", status=0)
    between(time.monotonic() - began, 0, 15, "seconds of a stop with stopwaitsecs = 20s")
    equal((state_of(pids["stays"]), state_of(former)), (None, None), "both")
    one.cli("stop", "leaves", "hides", status=0)
    for name in ("leaves", "hides"):
        with open(one.path(f"{name}.term"), encoding="ascii") as f:
            equal(f.read(), f"{pids[name]}\n", f"who had TERM of {name}")
        equal(state_of(pids[name]), None, f"{name} when stop has answered")
    one.stop()


@test("MAINPID: a process of another tree is refused and told once; an executor's is killed with it")
def _():
    one = Instance("""
        [scheduler]
        ttl = 5s
        heartbeat = 1s
        kill_grace = 500ms
        [program:web]
        command = %(here)s/web
        ready = notify
        [program:boss]
        command = %(here)s/main %(here)s/boss hides
        ready = notify
        executor = candidate
        promote_timeout = 100s
    """, start=False)
    script(one, "main", MAIN)
    script(one, "web", NOTIFY + r"""
for wrong in (1, os.getppid(), 2 ** 22 + 1):
    notify(f"MAINPID={wrong}")
notify(f"MAINPID={os.getpid()}\nREADY=1")
while True:
    signal.pause()
""")
    one.start()
    one.wait_for("ready=web")
    one.wait_for("executor")
    boss = mains(one, "boss")[0]
    equal(one.executor()["pid"], boss, "pid of the executor")
    told = re.findall(r"web:0: .*MAINPID=(\d+).*", one.log())
    equal(told, ["1"], "told")
    term = one.term()
    with one.events() as events:
        os.kill(boss, signal.SIGKILL)
        events.wait("worker.died", worker="boss:0", pid=boss, signal=9)
    one.wait_for(f"term>{term}", 10)
    boss = mains(one, "boss")[1]
    equal(one.executor()["pid"], boss, "pid of the next one")
    web = one.worker("web:0")["pid"]
    one.kill()
    wait_until(lambda: state_of(boss) in (None, "Z") and state_of(web) in (None, "Z"), 5, "deaths")


if __name__ == "__main__":
    main()

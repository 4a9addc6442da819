#!/usr/bin/python3
"""Upgrade in place: the binary is executed again in the same process, and nobody notices."""

import datetime
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from election import *  # noqa: E402,F403

NEXT = os.path.join(BUILD, "tests", "baton-next")
FAR = os.path.join(BUILD, "tests", "baton-far")
MS = 1_000_000
STALL_MS = 50 if "san-" not in BUILD else 2000

SERVER = """
    import http.server, os, socket, socketserver
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            body = str(os.getpid()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_):
            pass
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
    listener = socket.socket(fileno=3)
    listener.setblocking(True)
    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket = listener
    server.serve_forever()
"""


def rows(instance):
    """What must be the same after an upgrade: per worker."""
    return {w["name"]: (w["pid"], w["restarts"], w["id"], w["state"], w["generation"])
            for p in instance.status()["programs"] for w in p["workers"]}


def started(instance):
    """When each worker was started, in seconds."""
    return {w["name"]: datetime.datetime.fromisoformat(w["started_at"].replace("Z", "+00:00")).timestamp()
            for p in instance.status()["programs"] for w in p["workers"] if w["started_at"]}


def upgrade(instance, *arguments):
    """(from, to, stall in ms) of `baton upgrade`."""
    out = instance.cli("upgrade", *arguments, status=0).out
    found = re.match(r"upgraded in place: (\S+) -> (\S+) \(pid (\d+)\), .* still for ([\d.]+) ms",
                     out)
    check(found, f"baton upgrade said {out!r}")
    equal(int(found[3]), instance.pid, "pid of the supervisor")
    return found[1], found[2], float(found[4])


def fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def settled(instance):
    """Until the helpers of the image before are gone."""
    wait_until(lambda: len(helpers("lock-deadman", instance.pid)) <= 1 and
               len(helpers("lock-keeper", instance.pid)) <= 1, 5, "one deadman, one keeper")


def history(instance):
    with contextlib.closing(sqlite3.connect(f"file:{instance.path('baton.db')}?mode=ro",
                                            uri=True, timeout=5)) as db:
        return db.execute("SELECT term, reason FROM lock_history ORDER BY term").fetchall()


class Sampler(threading.Thread):
    """Looks at the executor's lease each millisecond, until done()."""

    def __init__(self, page):
        super().__init__(daemon=True)
        self.page, self.ended, self.samples, self.bad = page, threading.Event(), 0, []
        self.start()

    def run(self):
        while not self.ended.wait(0.001):
            self.samples += 1
            if not self.page.valid():
                self.bad.append(boottime())

    def done(self):
        self.ended.set()
        self.join()
        check(not self.bad, f"the lease was not valid at {self.bad[:5]}")
        check(self.samples > 50, f"only {self.samples} samples")


@test("100 workers keep pids, restarts, start times; the supervisor stands still for less than 50 ms")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        workers = 100
        startsecs = 0
        [program:crash]
        command = sh -c 'kill -9 $$'
        restart_backoff = 1h
        restart_backoff_max = 1h
    """)
    one.wait_for("ready=web", 20)
    os.kill(one.worker("web:7")["pid"], signal.SIGKILL)
    wait_until(lambda: one.worker("web:7")["restarts"] == 1 and one.worker("web:7")["ready"], 10)
    one.cli("stop", "web:9", status=0)
    one.cli("scale", "web", "99", status=0)
    before, status, times = rows(one), one.status(), started(one)
    stalls = [upgrade(one)[2] for _ in range(3)]
    while min(stalls) >= STALL_MS and len(stalls) < 12:     # this machine may be busy
        stalls.append(upgrade(one)[2])
    equal(rows(one), before, "workers")
    for name, at in started(one).items():       # two clocks are read: not to the millisecond
        check(abs(at - times[name]) < 0.1, f"{name} was started at {times[name]}, and now at {at}")
    after = one.status()
    for key in ("id", "pid", "started_at", "generation", "control"):
        equal(after["instance"][key], status["instance"][key], key)
    equal(after["programs"][1]["workers"][0]["last_exit"],
          status["programs"][1]["workers"][0]["last_exit"], "last exit")
    print(f"# the supervisor stood still for {stalls} ms")
    check(min(stalls) < STALL_MS, f"it stood still for {stalls} ms")
    told = json.loads(one.cli("upgrade", "--json", status=0).out)
    equal((told["from"], told["to"], told["pid"]), (*[status["instance"]["version"]] * 2, one.pid),
          "upgrade --json")
    equal(json.loads(one.cli("upgrade", "--json", "--no-wait", status=0).out), {"begun": True},
          "upgrade --json --no-wait")
    wait_until(lambda: len(re.findall("event=upgrade.done", one.log())) == len(stalls) + 2, 5)
    one.cli("start", "web:9", status=0)
    one.cli("restart", "web:3", status=0)
    equal(one.program("web")["ready"], 99, "ready")


@test("the executor's lease has no gap, its term stays, history has no row more; helpers are new")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path)))
    log.wait("promote")
    one.wait_for("executor")
    one.wait_for("ready=web")
    wait_until(lambda: [p for p in lease_pages().values() if p.valid()], 5)
    page = next(p for p in lease_pages().values() if p.valid())
    before, term, told = rows(one), one.term(), history(one)
    old = helpers_of(one.pid)
    sampler = Sampler(page)
    for _ in range(4):
        upgrade(one)
        beats = page.heartbeats
        wait_until(lambda: page.heartbeats >= beats + 2, 5, "two heartbeats")
    sampler.done()
    settled(one)
    equal((rows(one), one.term(), history(one)), (before, term, told), "workers, term, history")
    new = helpers_of(one.pid)
    check(new["lock-deadman"] != old["lock-deadman"] and new["lock-keeper"] != old["lock-keeper"],
          f"helpers are {new}, were {old}")
    equal(len(log.lines("promote")), 1, "promotions")
    # The lock works as before: death, handoff, channel.
    os.kill(one.executor()["pid"], signal.SIGKILL)
    second = log.wait("promote", 2)
    check(second.term > term, f"term {second.term} after {term}")
    one.wait_for(f"term>{term}")
    wait_until(lambda: one.executor() and one.executor()["answered"], 5, "its answer")
    wait_until(lambda: one.program("web")["ready"] == 2, 10, "a successor")
    one.cli("handoff", status=0)
    log.check_terms()


@test("lines are neither lost nor torn nor reordered, also those that were half written")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = /usr/bin/python3 -c "import os,time\\nfor i in range(1000000):\\n os.write(1, b'half %%06d ' %% i); time.sleep(0.002); os.write(1, b'whole %%06d\\\\n' %% i)"
        workers = 3
        startsecs = 0
        [program:file]
        command = /usr/bin/python3 -c "import os,time\\nfor i in range(1000000):\\n os.write(1, b'%%d\\\\n' %% i); time.sleep(0.001)"
        stdout_logfile = FILE
        startsecs = 0
    """, start=False)
    with open(one.config, encoding="utf-8") as f:
        text = f.read()
    one.write(text.replace("FILE", one.path("out")).replace("\\n", "\n    "))
    one.write(re.sub(r"(?s)command = /usr/bin/python3 -c \"(.*?)\"\n",
                     lambda m: f"command = /usr/bin/python3 {script(one, m[1])}\n",
                     text.replace("FILE", one.path("out"))))
    one.start()
    for number in range(5):
        one.wait_log(f"web:0 .* whole 0*{50 * (number + 1)}$", 20)
        upgrade(one)
    one.wait_log("web:0 .* whole 0*400$", 20)
    one.stop()
    for worker in ("web:0", "web:1", "web:2"):
        lines = [l for l in one.lines if l.startswith(f"{worker} | ")]
        wanted = [f"{worker} | half {i:06d} whole {i:06d}" for i in range(len(lines))]
        check(lines[:-1] == wanted[:-1], f"{worker}: "
              f"{[p for p in zip(lines, wanted) if p[0] != p[1]][:3]}")
        check(wanted[-1].startswith(lines[-1]), f"last line of {worker}: {lines[-1]}")
    with open(one.path("out"), encoding="ascii") as f:
        numbers = f.read().split()
    equal(numbers, [str(i) for i in range(len(numbers))], "lines of the file")


def script(instance, text):
    """The path of a Python file with TEXT, whose line ends are written \\n."""
    path = instance.path(f"script{len(os.listdir(instance.folder))}.py")
    with open(path, "w", encoding="ascii") as f:
        f.write(text.replace("\\n", "\n").replace("\\\n", "\\n").replace("%%", "%"))
    return path


@test("no request fails, on kept connections and on new ones")
def _():
    one = Instance(start=False)
    server = one.path("server.py")
    with open(server, "w", encoding="ascii") as f:
        f.write(textwrap.dedent(SERVER))
    one.write(f"""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        command = /usr/bin/python3 -S {server}
        workers = 2
        sockets = http
        startsecs = 300ms
    """)
    one.start()
    one.wait_for("ready=web", 20)
    url, done, counts, failures = one.url(), threading.Event(), [0, 0, 0], []
    host = url.partition("://")[2]

    def ask(number, keep):
        connection = http.client.HTTPConnection(host, timeout=10)
        while not done.is_set():
            try:
                connection.request("GET", "/")
                equal(connection.getresponse().read().isdigit(), True, "answer")
                counts[number] += 1
            except Exception as e:  # whatever it is, it is a lost request
                failures.append(repr(e))
            if not keep:
                connection.close()
        connection.close()

    threads = [threading.Thread(target=ask, args=(i, i < 2), daemon=True) for i in range(3)]
    for t in threads:
        t.start()
    wait_until(lambda: min(counts) > 20, 10)
    for _ in range(3):
        upgrade(one)
        seen = list(counts)
        wait_until(lambda: all(a > b + 10 for a, b in zip(counts, seen)), 10)
    done.set()
    for t in threads:
        t.join()
    equal(failures, [], "failed requests")
    equal(one.url(), url, "url")


@test("who waits on the control socket goes on waiting: events, wait, restart, half a request")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
        [program:slow]
        command = sleep 1000
        startsecs = 3s
        autostart = no
    """)
    one.wait_for("ready=web")
    with one.events() as events, one.control() as waits, one.control() as starts, \
            one.control() as half, one.control() as idle:
        waits.send("wait", **{"for": "ready=slow", "timeout_ms": 20000})
        starts.send("start", targets=["slow"], wait=True)
        half.socket.sendall(b'{"v":1,"id":7,"cm')
        events.wait("worker.starting", worker="slow:0")
        upgrade(one)
        events.wait("upgrade.done")
        half.socket.sendall(b'd":"version"}\n')
        equal(half.receive()["id"], 7, "the request that was cut")
        equal(idle.call("status")["instance"]["pid"], one.pid, "an idle connection")
        check(waits.receive(10)["ok"], "wait")
        equal(starts.receive(10)["result"]["workers"][0]["state"], "running", "start")
        events.wait("worker.running", worker="slow:0")


def refused(one, pattern, *arguments):
    before = rows(one), one.executor(), one.status()["instance"]["id"]
    descriptors = fds(one.pid)
    r = one.cli("upgrade", *arguments)
    equal(r.status, 1, f"exit status of baton upgrade {arguments}: {r.out}{r.err}")
    check(re.search(pattern, r.err), f"no {pattern!r} in {r.err!r}")
    check("goes on as before" in r.err or "not known" in r.err or "No such file" in r.err,
          f"what goes on is not said: {r.err!r}")
    equal((rows(one), one.executor(), one.status()["instance"]["id"]), before,
          f"everything after {arguments}")
    wait_until(lambda: fds(one.pid) <= descriptors, 5, f"descriptors after {arguments}")
    equal(len(helpers("lock-deadman", one.pid)), 1, "deadmen")


@test("a binary that cannot go on changes nothing, and it is said why")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path)))
    log.wait("promote")
    one.wait_for("executor")
    one.wait_for("ready=web")
    wait_until(lambda: one.executor()["answered"], 5, "its answer")
    made = one.path("made")

    def binary(text, mode=0o755):
        with open(made, "w", encoding="ascii") as f:
            f.write(text)
        os.chmod(made, mode)
        return made

    refused(one, "No such file or directory", one.path("nothing"))
    refused(one, "does not start: Exec format error", binary("just text\n"))
    refused(one, "does not start: Permission denied", binary("#!/bin/sh\n", 0o644))
    refused(one, "does not start: .*", binary("#!/nowhere/interpreter\n"))
    refused(one, "is no baton that can go on", "/bin/true")
    refused(one, "is no baton that can go on from a running one .exit status 2: baton: unknown "
            "command 'upgrade-check'",
            binary("#!/bin/sh\necho \"baton: unknown command 'upgrade-check'\" >&2\nexit 2\n"))
    refused(one, "was killed by SIGSEGV while it was tried", binary("#!/bin/sh\nkill -SEGV $$\n"))
    refused(one, "did not come to an end within 5 s", binary("#!/bin/sh\nsleep 100\n"))
    refused(one, "the running baton is too old: its state has format 1, this version takes 3 to 4",
            FAR)
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    most = max(int(fd) for fd in os.listdir(f"/proc/{one.pid}/fd")) + 12
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (most, limits[1]))
    refused(one, "more descriptors can be opened, and the new version needs 32: raise the limit")
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
    r = one.cli("upgrade", "a", "b")
    equal(r.status, 2, "usage")
    # The file is exchanged by one that cannot go on; a signal says it in the log alone.
    one.send_signal(signal.SIGUSR2)
    one.wait_log("upgraded in place")
    equal(len(log.lines("promote")), 1, "promotions")


@test("the next version and back, whose helpers speak otherwise; and its kill -9 kills all")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "kin=2")))
    log.wait("promote")
    one.wait_for("executor")
    one.wait_for("ready=web")
    wait_until(lambda: [p for p in lease_pages().values() if p.valid()], 5)
    page = next(p for p in lease_pages().values() if p.valid())
    before, term, version = rows(one), one.term(), one.status()["instance"]["version"]
    sampler = Sampler(page)
    for to, name in ((NEXT, f"{version}-next"), (BATON, version), (NEXT, f"{version}-next")):
        equal(upgrade(one, to)[1], name, "version")
        equal(one.status()["instance"]["version"], name, "version in status")
        beats = page.heartbeats
        wait_until(lambda: page.heartbeats >= beats + 2, 5, "two heartbeats")
    sampler.done()
    equal((rows(one), one.term()), (before, term), "workers and term")
    # Without a name: what was named last.
    equal(upgrade(one)[1], f"{version}-next", "version")
    refused(one, "the running baton is too old: its state has format 2", FAR)
    os.kill(one.executor()["pid"], signal.SIGKILL)
    log.wait("promote", 2)
    one.kill()
    wait_until(lambda: not marked_processes(), 5, "everything gone")


def guarded(instance):
    """The pids in the table of the deadman: it kills them when the supervisor dies."""
    for fd in os.listdir(f"/proc/{instance.pid}/fd"):
        path = f"/proc/{instance.pid}/fd/{fd}"
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("/memfd:lock-table"):
                with open(path, "rb") as f:
                    data = f.read()
                return sorted(pid for pid, *_ in struct.iter_unpack("<iIQQi4xQ", data[56:]) if pid)
    raise Failed("no table of the deadman")


@test("after workers have gone: the next version goes on, and its deadman knows who lives and nobody else")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c "sleep 1000 & exec sleep 1000"
        workers = 4
        startsecs = 0
        [program:once]
        command = true
        startsecs = 0
        autorestart = no
        [program:crash]
        command = sh -c "kill -9 $$"
        restart_backoff = 1h
        restart_backoff_max = 1h
        [program:rest]
        command = sh -c "trap '' HUP; (trap '' TERM; exec sleep 1000) & exec sleep 1000"
        stopwaitsecs = 20
        startsecs = 0
        [program:parked]
        command = sleep 1000
        startsecs = 0
    """)
    one.wait_for("ready=web")
    one.cli("restart", "--rolling", "web", status=0)
    one.cli("scale", "web", "2", status=0)
    one.cli("stop", "parked", status=0)
    wait_until(lambda: one.worker("once:0")["state"] == "exited" and
               one.worker("crash:0")["state"] == "backoff", 10, "who ends by itself")
    with one.control() as stop:
        leader = one.worker("rest:0")["pid"]
        stop.send("stop", targets=["rest"], wait=True)
        wait_until(lambda: state_of(leader) is None, 5, "the end of a leader; its child is left")
        live = sorted([w["pid"] for w in one.workers("web")] + [leader])
        before = rows(one)
        for to in (NEXT, BATON, NEXT):
            upgrade(one, to)
            equal(rows(one), before, "workers")
            equal(guarded(one), live, "whom the deadman knows")
    one.cli("scale", "web", "5", status=0)
    one.kill()
    wait_until(lambda: not marked_processes(), 5, "everything gone")


@test("with a renewal in the keeper: answered by the old one, or unknown; the executor stays")
def _():
    for to in (BATON, NEXT):
        log = Log()
        one = Instance(scheduler(ttl="8s", heartbeat="300ms") + program(actor(log.path)))
        log.wait("promote")
        one.wait_for("executor")
        one.wait_for("ready=web")
        wait_until(lambda: [p for p in lease_pages().values() if p.valid()], 5)
        page = next(p for p in lease_pages().values() if p.valid())
        sampler, before, term = Sampler(page), rows(one), one.term()
        blocker = sqlite3.connect(one.path("baton.db"), isolation_level=None, timeout=5)
        blocker.execute("BEGIN EXCLUSIVE")
        beats = page.heartbeats
        time.sleep(0.5)     # a renewal is with the keeper by then, which tries for 2 s
        equal(page.heartbeats, beats, "heartbeats while the database is locked")
        upgrade(one, to)
        time.sleep(0.2)
        blocker.execute("ROLLBACK")
        blocker.close()
        wait_until(lambda: page.heartbeats >= beats + 3, 5, "three heartbeats")
        sampler.done()
        settled(one)
        equal((rows(one), one.term(), len(log.lines("promote"))), (before, term, 1), "all")
        # The database is busy longer than it may be; that is told, but the upgrade itself is no error.
        check("upgrade" not in "".join(l for l in one.lines if "level=error" in l), "an error")
        one.stop()


@test("while the executor drains, and while workers are stopping: what has begun is ended")
def _():
    log = Log()
    one = Instance(scheduler(more="handoff_timeout = 1500ms") +
                   program(actor(log.path, "deaf"), workers=3, stop=2))
    log.wait("promote")
    one.wait_for("executor")
    one.wait_for("ready=web")
    wait_until(lambda: one.program("web")["ready"] == 3, 10, "three ready")
    term, old = one.term(), one.executor()["worker"]
    with one.control() as handoff, one.control() as stop:
        handoff.send("handoff", wait=True)
        wait_until(lambda: one.status()["executors"][0]["state"] == "draining", 5)
        upgrade(one)
        equal(one.status()["executors"][0]["state"], "draining", "state after it")
        answer = handoff.receive(15)
        check(answer["ok"] and answer["result"]["from"] == old, f"handoff: {answer}")
        log.wait("promote", 2)
        stop.send("stop", targets=["web"], wait=True)
        upgrade(one, NEXT)
        check(stop.receive(15)["ok"], "stop")
    equal({w["state"] for w in one.workers("web")}, {"stopped"}, "states")
    check(log.check_terms()["web"] > term, "terms")
    one.cli("start", "web", status=0)
    one.wait_for("executor", 10)


@test("killed at once after an upgrade: its deadman kills, a standby promotes")
def _():
    for delay in (0, 0.02, 0.2):
        log = Log()
        text = scheduler(ttl="20s", heartbeat="2s") + program(actor(log.path, "kin=3", "census"))
        one = Instance(text, name=f"a{delay}")
        log.wait("promote")
        one.wait_for("executor")
        one.wait_for("ready=web")
        two = Instance(text, name=f"b{delay}", folder=one.folder)
        two.wait_for("role=standby")
        two.wait_for("ready=web")
        wait_until(lambda: "lock-waiter" in helpers_of(two.pid), 5, "a waiter")
        upgrade(one)
        time.sleep(delay)       # the moment is what this is about
        start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        one.kill()
        told = log.wait("promote", 2, timeout=10)
        took = (told.ns - start) / MS
        check(took < 3000, f"took over after {took:.0f} ms")
        equal(log.wait("census", 2).rest, "none", "of the dead one's tree alive at that moment")
        two.stop()


@test("by a script that starts it; one that fails after all: what was there dies, a standby goes on")
def _():
    log = Log()
    text = scheduler(ttl="20s", heartbeat="2s") + program(actor(log.path, "kin=3", "census"))
    one = Instance(text, name="one")
    log.wait("promote")
    one.wait_for("executor")
    one.wait_for("ready=web")
    two = Instance(text, name="two", folder=one.folder)
    two.wait_for("role=standby")
    two.wait_for("ready=web")
    wait_until(lambda: "lock-waiter" in helpers_of(two.pid), 5, "a waiter")
    before, made = rows(one), one.path("made")
    for last in ("exec {0} \"$@\"", "exit 3"):
        with open(made, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\n[ $# = 1 ] && exec {BATON} \"$@\"\n{last.format(BATON)}\n")
        os.chmod(made, 0o755)
        r = one.cli("upgrade", made)
        if last == "exit 3":
            break
        equal((r.status, rows(one)), (0, before), "by a script")
    check(r.status in (1, 3) and r.err, f"baton upgrade: {r}")
    equal(one.wait_end(), 3, "exit status of what came instead")
    log.wait("promote", 2, timeout=5)
    equal(log.wait("census", 2).rest, "none", "of its tree alive when the next was promoted")
    print(f"# baton upgrade says: {r.err.strip()}")


@test("a standby is upgraded, its waiter anew; then the holder goes, and it takes over")
def _():
    log = Log()
    text = scheduler(ttl="20s", heartbeat="2s") + program(actor(log.path))
    one = Instance(text, name="one")
    log.wait("promote")
    two = Instance(text, name="two", folder=one.folder)
    two.wait_for("role=standby")
    two.wait_for("ready=web")
    wait_until(lambda: "lock-waiter" in helpers_of(two.pid), 5, "a waiter")
    before = rows(two)
    upgrade(two)
    equal(rows(two), before, "workers")
    equal(two.status()["lock"]["role"], "standby", "role")
    equal(two.status()["lock"]["holder"]["pid"], one.pid, "the holder it knows of")
    wait_until(lambda: len(helpers("lock-waiter", two.pid)) == 1, 5, "one waiter")
    start = time.monotonic()
    one.kill()
    log.wait("promote", 2, timeout=5)
    check(time.monotonic() - start < 3, "it waited for the ttl")


@test("USR2 twice at once, TERM right after USR2, HUP right after USR2")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        workers = 2
        startsecs = 0
    """)
    one.wait_for("ready=web")
    before = rows(one)
    for _ in range(5):
        mark = one.mark()
        one.send_signal(signal.SIGUSR2)
        one.send_signal(signal.SIGUSR2)
        one.wait_log("upgraded in place", since=mark)
        one.wait_for("ready=web")
    equal(rows(one), before, "workers")
    mark, generation = one.mark(), one.status()["instance"]["generation"]
    one.send_signal(signal.SIGUSR2)
    one.send_signal(signal.SIGHUP)
    one.wait_log("upgraded in place", since=mark)
    wait_until(lambda: one.status()["instance"]["generation"] == generation + 1, 5, "the reload")
    equal(rows(one), before, "workers")
    one.send_signal(signal.SIGUSR2)
    one.send_signal(signal.SIGTERM)
    equal(one.wait_end(), 0, "exit status")
    for delay in (0.005, 0.01, 0.02, 0.03, 0.05):
        one.start()
        one.wait_for("ready=web")
        one.send_signal(signal.SIGUSR2)
        time.sleep(delay)       # the moment is what this is about
        one.send_signal(signal.SIGTERM)
        equal(one.wait_end(), 0, f"exit status, TERM {delay} s after USR2")


@test("workers that die at the moment of an upgrade are reaped and replaced")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        workers = 4
        startsecs = 0
        restart_backoff = 10ms
        restart_backoff_max = 20ms
    """)
    one.wait_for("ready=web")
    for number in range(12):
        mark = one.mark()
        dying = [w["pid"] for w in one.workers("web")]
        one.send_signal(signal.SIGUSR2)
        time.sleep(0.003 * number)      # the moment is what this is about
        for pid in dying:
            os.kill(pid, signal.SIGKILL)
        one.wait_log("upgraded in place|not upgraded", since=mark)
        wait_until(lambda: not {w["pid"] for w in one.workers("web")} & {*dying, None}, 10)
    one.wait_for("ready=web")
    check(not [p for p in marked_processes() if state_of(p) == "Z"], "zombies are left")


@test("a rollout goes on over an upgrade")
def _():
    text = """
        [baton]
        [program:web]
        command = sleep {}
        workers = 4
        startsecs = 400ms
        environment_file = {}
    """
    one = Instance(start=False)
    with open(one.path("env"), "w", encoding="ascii") as f:
        f.write("A=old\n")
    one.write(text.format(1000, one.path("env")))
    one.start()
    one.wait_for("ready=web")
    old = {w["pid"] for w in one.workers("web")}
    one.write(text.format(2000, one.path("env")))
    one.cli("reload", "--no-wait", status=0)
    with one.control() as waits:
        waits.send("wait", **{"for": "rollout=done", "timeout_ms": 20000})
        wait_until(lambda: len({w["pid"] for w in one.workers("web")} - old - {None}) >= 2, 10)
        os.rename(one.path("env"), one.path("gone"))
        one.write("neither [section] nor key\n")
        for to in (BATON, NEXT, BATON, NEXT):
            upgrade(one, to)
        check(waits.receive(20)["ok"], "wait for the rollout")
    one.wait_for("ready=web")
    equal({command_of(w["pid"]) for w in one.workers("web")}, {"sleep 2000"}, "commands")
    equal({environment_of(w["pid"]).get("A") for w in one.workers("web")}, {"old"}, "variable")
    # The file is read when somebody asks for it.
    equal(one.cli("reload").status, 78, "exit status of a reload of nonsense")
    os.rename(one.path("gone"), one.path("env"))
    one.write(text.format(2000, one.path("env")))
    one.cli("reload", status=0)
    one.cli("scale", "web", "2", status=0)


@test("in the background, with a pidfile, by a link that is moved; the log file goes on")
def _():
    one = Instance(f"""
        [baton]
        pidfile = pid
        logfile = log
        [program:web]
        command = sleep 1000
        startsecs = 0
    """, start=False)
    link = one.path("baton")
    os.symlink(BATON, link)
    subprocess.run([link, "run", "-d", "-c", one.config, "-s", one.socket], check=True,
                   capture_output=True, timeout=20, cwd=one.folder)
    with open(one.path("pid"), encoding="ascii") as f:
        pid = int(f.read())
    try:
        one.wait_for("ready=web")
        before = rows(one)
        os.unlink(link)
        os.symlink(NEXT, link)
        check("-next" in one.cli("upgrade", status=0).out, "the version behind the link")
        equal(rows(one), before, "workers")
        equal(state_of(pid) is not None and command_of(pid).startswith(link), True, "its name")
        second = baton("run", "-c", one.config, "-s", one.path("other"), cwd=one.folder)
        check("is locked" in second.err or "is locked" in second.out, "the pidfile is not locked")
        with open(one.path("log"), encoding="utf-8") as f:
            text = f.read()
        equal((text.count("supervisor.running"), text.count("upgrade.done")), (1, 1), "log")
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: state_of(pid) in (None, "Z"), 10, "its end")
    check(not os.path.exists(one.path("pid")), "the pidfile is left")


@test("ten upgrades in a row leak neither descriptors nor memory nor processes")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path), workers=3) +
                   "[program:other]\ncommand = sleep 1000\nworkers = 5\nstartsecs = 0\n")
    log.wait("promote")
    one.wait_for("ready=other")

    def size():
        with open(f"/proc/{one.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])

    upgrade(one)
    settled(one)
    before = fds(one.pid), rows(one), sorted(helpers_of(one.pid))
    kib = size()
    for _ in range(10):
        upgrade(one)
    settled(one)
    wait_until(lambda: fds(one.pid) <= before[0], 5, "descriptors")
    wait_until(lambda: sorted(helpers_of(one.pid)) == before[2], 5, "the helpers under their names")
    equal(rows(one), before[1], "workers")
    check(size() < kib * 1.3 + 500, f"{kib} KiB became {size()}")
    with open(f"/proc/{one.pid}/status", encoding="ascii") as f:
        equal(re.search(r"SigBlk:\s+(\S+)", f.read())[1].strip("0"), "", "blocked signals")


@test("as PID 1 of a container: TERM right after USR2 is not lost; no orphan is left")
def _():
    if os.geteuid() != 0:
        skip("only root may make a PID namespace")
    namespace = [need("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        skip("no PID namespace can be made here")
    one = Instance(scheduler() + program("sh -c 'sleep 1000 & exec sleep 1000'", more="startsecs = 0")
                   .replace("ready = notify\n", ""), prefix=namespace)
    one.wait_for("executor")
    one.wait_for("ready=web")
    before = rows(one)
    for _ in range(3):
        check("(pid 1)" in one.cli("upgrade", status=0).out, "its pid")
    equal(rows(one), before, "workers")
    os.kill(one_below(one.pid), signal.SIGUSR2)
    os.kill(one_below(one.pid), signal.SIGTERM)
    equal(one.wait_end(), 0, "exit status")


def one_below(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return int(f.read().split()[0])


@test("who may use the control socket may ask for an upgrade, but not name what is executed")
def _():
    if os.geteuid() != 0:
        skip("only root may give the control socket to another user")
    one = Instance("""
        [baton]
        control_owner = nobody
        [program:web]
        command = sleep 1000
        startsecs = 0
    """)
    one.wait_for("ready=web")
    before, as_nobody = rows(one), [need("setpriv"), "--reuid=nobody", "--clear-groups"]
    for words, status in ((["/bin/true"], 4), ([], 0)):
        copy = one.path("copy")
        shutil.copy(BATON, copy)
        r = subprocess.run([*as_nobody, copy, "upgrade", *words, "-s", one.socket], timeout=20,
                           capture_output=True, check=False, text=True)
        equal(r.returncode, status, f"exit status of upgrade {words}: {r.stderr}")
    equal(rows(one), before, "workers")
    check(len(re.findall("trying", one.log())) == 1, "more than one was tried")


@test("stopping, or without a file: what is refused, what is not")
def _():
    one = Instance(start=False)
    stubborn = script(one, "import signal, time\\nsignal.signal(15, signal.SIG_IGN)\\n"
                           "print('up', flush=True)\\ntime.sleep(1000)\\n")
    one.write(f"""
        [baton]
        [program:web]
        command = /usr/bin/python3 {stubborn}
        stopwaitsecs = 3
    """)
    one.start()
    one.wait_log("web:0 .* up")
    one.send_signal(signal.SIGTERM)
    wait_until(lambda: one.status()["instance"]["state"] == "stopping", 5)
    r = one.cli("upgrade")
    equal(r.status, 4, "exit status while it stops")
    check("the supervisor is stopping" in r.err, r.err)
    one.send_signal(signal.SIGINT)
    one.wait_end()
    two = Instance(name="two", start=False)
    two.process = subprocess.Popen([BATON, "run", "-s", two.socket, "-w", "2", "--", "sleep", "1000"],
                                   cwd=two.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    two._reader = threading.Thread(target=two._read, args=(two.process.stdout,), daemon=True)
    two._reader.start()
    two.wait_answering()
    two.wait_for("ready=web")
    before = rows(two)
    two.send_signal(signal.SIGUSR2)
    two.wait_log("upgraded in place")
    equal(rows(two), before, "workers")
    two.send_signal(signal.SIGHUP)      # the command line is still its configuration
    wait_until(lambda: two.status()["instance"]["generation"] == 1, 5, "the reload")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""`baton run`: its signals, systemd above it, no file, the background, the pidfile, the user."""

import contextlib
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def connects_to(url):
    host, port = url.split("//")[1].rsplit(":", 1)
    with socket.socket() as s:
        s.settimeout(2)
        return s.connect_ex((host, int(port.rstrip("/")))) == 0


def pids(one, program):
    return {w["name"]: w["pid"] for w in one.workers(program) if w["pid"]}


# --- signals -----------------------------------------------------------------------------------
WEB = """
    [baton]
    [socket:http]
    listen = 127.0.0.1:0
    [program:plain]
    command = sleep 1000
    startsecs = 0
    [program:web]
    command = sleep 1000
    startsecs = 0
    workers = 2
    sockets = http
    [program:second]
    command = sleep 1000
    startsecs = 0
    sockets = http
"""


@test("TTIN and TTOU: the first program with sockets, never below one, several at once count")
def _():
    one = Instance(WEB)
    for name in ("plain", "web", "second"):
        one.wait_for(f"ready={name}")
    before = pids(one, "web")
    one.send_signal(signal.SIGTTIN)
    one.wait_log("SIGTTIN: web goes from 2 to 3 workers")
    wait_until(lambda: len(pids(one, "web")) == 3, 5, "three workers")
    equal({n: p for n, p in pids(one, "web").items() if n in before}, before, "those that stayed")
    os.kill(one.pid, signal.SIGSTOP)        # both are there when it wakes: one round of its loop
    one.send_signal(signal.SIGTTIN)
    one.send_signal(signal.SIGTTOU)
    os.kill(one.pid, signal.SIGCONT)
    one.wait_log("SIGTTOU: web goes from 4 to 3|SIGTTIN: web goes from 2 to 3", since=1)
    one.status()
    wait_until(lambda: len(pids(one, "web")) == 3, 5, "three workers again")
    for count in (2, 1):
        one.send_signal(signal.SIGTTOU)
        one.wait_log(f"SIGTTOU: web goes from {count + 1} to {count} workers")
    one.send_signal(signal.SIGTTOU)
    one.wait_log("SIGTTOU: web keeps its 1 worker")
    wait_until(lambda: len(pids(one, "web")) == 1, 5, "one worker")
    equal(pids(one, "web"), {"web:0": before["web:0"]}, "the last worker")
    equal((len(pids(one, "plain")), len(pids(one, "second"))), (1, 1), "the other programs")


@test("TTIN where no program has sockets; while stopping: said, nothing else")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c 'trap "" TERM; echo deaf; while :; do sleep 0.05; done'
        stopwaitsecs = 1s
    """)
    one.wait_log("deaf")
    one.send_signal(signal.SIGTTIN)
    one.wait_log("SIGTTIN: no program has sockets: ignored")
    one.send_signal(signal.SIGTERM)
    one.wait_log("SIGTERM: stopping gracefully")
    for name in ("TTIN", "TTOU", "WINCH"):
        one.send_signal(getattr(signal, f"SIG{name}"))
        one.wait_log(f"SIG{name}: the supervisor is stopping: ignored")
    equal(one.wait_end(), 0, "exit status")
    contains(one.log(), "of SIGTERM: killing it (stopwaitsecs)", "the reason of the SIGKILL")


DEAF = """
    [baton]
    [program:web]
    command = sh -c 'trap "" TERM; echo deaf; while :; do sleep 0.05; done'
    stopwaitsecs = 30s
"""


@test("INT and its second: the log names what ended the patience, not stopwaitsecs")
def _():
    once, twice = Instance(DEAF), Instance(DEAF)
    for one in (once, twice):
        one.wait_log("deaf")
        one.send_signal(signal.SIGINT)
        one.wait_log("web:0 is stopping")
    twice.send_signal(signal.SIGINT)
    twice.wait_log(r"did not end within .* of SIGTERM: killing it \(asked to stop a second time\)")
    once.wait_log(r"did not end within 2.* of SIGTERM: killing it \(quick stop\)")
    for one in (once, twice):
        equal(one.wait_end(), 0, "exit status")


@test("WINCH stops all workers and keeps the supervisor; `start all` brings them back")
def _():
    one = Instance(WEB)
    for name in ("plain", "web", "second"):
        one.wait_for(f"ready={name}")
    url = one.url()
    one.send_signal(signal.SIGWINCH)
    one.wait_log("SIGWINCH: stopping all workers")
    wait_until(lambda: {w["state"] for p in one.status()["programs"] for w in p["workers"]}
               <= {"stopped"}, 5, "all stopped")
    equal(one.status()["instance"]["state"], "running", "state")
    equal(one.url(), url, "the listener")
    one.cli("start", "all", status=0)
    equal([len(pids(one, n)) for n in ("plain", "web", "second")], [1, 2, 1], "workers again")


@test("WINCH with a controlling terminal is no order, whatever standard input is")
def _():
    one = Instance(WEB, start=False)
    master, slave = os.openpty()
    code = ("import fcntl, os, sys, termios\n"
            "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
            "os.execv(sys.argv[2], sys.argv[2:])\n")
    process = subprocess.Popen([PYTHON, "-c", code, str(slave), BATON, "run", "-c", one.config,
                                "-s", one.socket], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True, pass_fds=(slave,))
    try:
        one.process = process
        one._reader = threading.Thread(target=lambda: None)
        one._reader.start()
        one.wait_answering()
        one.wait_for("ready=web")
        before = pids(one, "web")
        os.kill(process.pid, signal.SIGWINCH)
        one.call("restart", targets=["plain"], wait=True)
        equal(pids(one, "web"), before, "pids")
    finally:
        os.close(master)
        os.close(slave)
        process.kill()
        process.wait()


def rotated(mode, number):
    one = Instance(f"""
        [{mode}]
        logfile = %(here)s/own.log
        [program:web]
        command = sh -c 'echo begun; exec sleep 1000'
        startsecs = 0
        stdout_logfile = %(here)s/web.log
        stdout_logfile_maxbytes = 0
    """)
    one.wait_for("ready=web")
    wait_until(lambda: os.path.exists(one.path("web.log")) and
               "begun" in open(one.path("web.log"), encoding="utf-8").read(), 5, "output")
    for name in ("own", "web"):
        os.rename(one.path(f"{name}.log"), one.path(f"{name}.log.1"))
    one.send_signal(number)
    for name in ("own", "web"):
        wait_until(lambda n=name: os.path.exists(one.path(f"{n}.log")), 5, f"a new {name}.log")
    one.call("restart", targets=["web"], wait=True)
    wait_until(lambda: "begun" in open(one.path("web.log"), encoding="utf-8").read(), 5,
               "output in the new file")
    contains(open(one.path("own.log"), encoding="utf-8").read(), "web:0 is running", "the own log")
    contains(open(one.path("own.log.1"), encoding="utf-8").read(), "reopening the log files",
             "the rotated log")


@test("USR1 opens the log files again")
def _():
    rotated("baton", signal.SIGUSR1)


@test("USR2 opens the log files again in compatibility mode, as supervisord's does")
def _():
    rotated("supervisord", signal.SIGUSR2)


# --- systemd above us --------------------------------------------------------------------------
class Above:
    """The socket of NOTIFY_SOCKET: what baton says, by (text, time)."""

    def __init__(self):
        self.path = os.path.join(folder(), "above.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.seen = []

    def next(self, timeout=5):
        self.socket.settimeout(timeout)
        self.seen.append(self.socket.recv(4096).decode())
        return self.seen[-1]

    def wait(self, pattern, timeout=5):
        limit = deadline(timeout, f"{pattern!r} among {self.seen}")
        while True:
            try:
                text = self.next(limit.left())
            except TimeoutError:
                limit.left()
            if re.search(pattern, text):
                return text

    def rest(self):
        """What is there by now."""
        self.socket.settimeout(0)
        first = len(self.seen)
        try:
            while True:
                self.seen.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return self.seen[first:]


SLOW = """
    [baton]
    [program:web]
    command = sh -c 'echo $NOTIFY_SOCKET $WATCHDOG_USEC >>%(here)s/seen; exec sleep 1000'
    workers = 2
    startsecs = {}
    [program:bad]
    command = false
    startretries = {}
    startsecs = 10
    restart_backoff = 10ms
    {}
"""


@test("READY=1 when the workers are ready or known to fail, STATUS=, STOPPING=1")
def _():
    above = Above()
    one = Instance(SLOW.format("300ms", 2, ""), env={"NOTIFY_SOCKET": above.path,
                                                     "WATCHDOG_USEC": "1000000000"})
    began = time.monotonic()
    text = above.wait("READY=1")
    check(time.monotonic() - began > 0.2, f"READY=1 before the workers were: {above.seen}")
    check(re.search(r"STATUS=running: 2 of 3 workers ready$", text), f"status {text!r}")
    one.call("scale", program="web", workers=3)
    above.wait(r"^STATUS=running: 3 of 4 workers ready$")
    one.send_signal(signal.SIGTERM)
    contains(above.wait("STOPPING=1"), "STATUS=stopping: ", "status")
    equal(one.wait_end(), 0, "exit status")
    above.rest()
    equal(sum("READY=1" in t for t in above.seen), 1, "READY=1 said")
    equal(sum("STOPPING=1" in t for t in above.seen), 1, "STOPPING=1 said")
    seen = open(one.path("seen"), encoding="utf-8").read()
    check(above.path not in seen and "1000000000" not in seen, f"workers see {seen!r}")


@test("READY=1 comes also where a program fails for ever")
def _():
    above = Above()
    Instance(SLOW.format("0", -1, ""), env={"NOTIFY_SOCKET": above.path})
    above.wait("READY=1")


@test("the role and the executor are in STATUS=")
def _():
    above = Above()
    one = Instance("""
        [scheduler]
        ttl = 3s
        heartbeat = 500ms
        kill_grace = 500ms
        handoff_timeout = 500ms
        [program:web]
        command = sleep 1000
        startsecs = 0
        workers = 2
        executor = candidate
    """, env={"NOTIFY_SOCKET": above.path})
    for _ in range(2):
        one.wait_for("executor")
        pid = one.executor()["pid"]
        above.wait(rf"STATUS=.*; holder; executor web:[01] \(pid {pid}\)")
        os.kill(pid, signal.SIGKILL)
        one.wait_for(f"executor!={pid}")


@test("RELOADING=1 with the time, READY=1 when the rollout is through, or at once for a bad file")
def _():
    above = Above()
    text = SLOW.format("300ms", 0, "autostart = no")
    one = Instance(text, env={"NOTIFY_SOCKET": above.path})
    above.wait("READY=1")
    before = pids(one, "web")
    one.write(text.replace("exec sleep", "sleep 0; exec sleep"))
    low = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
    one.send_signal(signal.SIGHUP)
    usec = re.search(r"MONOTONIC_USEC=(\d+)", above.wait("^RELOADING=1")).group(1)
    check(low - 1 <= int(usec) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6, f"usec {usec}")
    above.wait("^READY=1\nSTATUS=running: ")
    after = pids(one, "web")
    check(not set(before.values()) & set(after.values()), "READY=1 before the rollout was through")
    one.write("[baton]\nwrong = yes")
    one.send_signal(signal.SIGHUP)
    above.wait("^RELOADING=1")
    above.wait("^READY=1")
    equal(pids(one, "web"), after, "pids after a bad file")


@test("WATCHDOG=1 at half of the time, only when asked for and by us")
def _():
    above = Above()
    env = {"NOTIFY_SOCKET": above.path, "WATCHDOG_USEC": "400000"}
    one = Instance(SLOW.format("0", 0, "autostart = no"), env=env)
    above.wait("READY=1")
    above.wait("^WATCHDOG=1")
    times = []
    for _ in range(4):
        above.wait("^WATCHDOG=1")
        times.append(time.monotonic())
    check(0.45 < times[-1] - times[0] < 1.0, f"three periods took {times[-1] - times[0]} s")
    one.send_signal(signal.SIGTERM)
    one.wait_end()
    above.rest()
    above.seen.clear()
    one = Instance(SLOW.format("0", 0, "autostart = no"), name="two",
                   env={**env, "WATCHDOG_PID": "1"})
    above.wait("READY=1")
    one.wait_for("ready=web")
    equal([t for t in above.seen + above.rest() if "WATCHDOG" in t], [], "for another process")


@test("a NOTIFY_SOCKET that is dead or full harms nothing")
def _():
    for path in ("/no/such/socket", "relative"):
        one = Instance(SLOW.format("0", 0, "autostart = no"), name=path[-3:],
                       env={"NOTIFY_SOCKET": path})
        one.wait_for("ready=web")
    above = Above()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        try:
            while True:
                s.sendto(b"full", above.path)
        except BlockingIOError:
            pass
    one = Instance(SLOW.format("0", 0, "autostart = no"), env={"NOTIFY_SOCKET": above.path})
    one.wait_for("ready=web")
    above.rest()
    above.wait("READY=1")           # tried again when nothing else happens


# --- without a file ----------------------------------------------------------------------------
class Alone(Instance):
    """`baton run ARGUMENTS -- COMMAND`, started in its folder, no file."""

    def start(self, wait=True, timeout=15):
        own = [] if "-s" in self.arguments else ["-s", self.socket]
        if "-s" in self.arguments and self.arguments[1] == "":
            own, self.arguments = [], self.arguments[2:]
        self.process = subprocess.Popen([self.binary, "run", *own, *self.arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env={**os.environ, **self.env},
                                        cwd=self.folder, start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        if wait:
            self.wait_answering(timeout)
        return self


HARD = ["a b", "it's", 'q"q', "'", '"', "''", "\\", "\\\\", "\\n", "$HOME", "`id`", "$(id)", "100%", "%%",
        "%(here)s", "%(ENV_HOME)s", ";", "#", "a ; b", "a # b", ";x", "#x", " #y", " ; ", "", " ",
        "  lead", "trail  ", "\t", "a\tb", "=", "a=b", "[x]", "[program:x]", "~", "*", "&&", "|", ">x",
        "\"; b", "'; #", "\" # '", "\\\"", "x\\", "\u00e9\u4e2d", "\u00a0", "-w", "--", "-c", "--help",
        "{}", "!", "\x7f", "\x01", "it's \"5 %\" ; # \\ $X"]
SAY = "import json, os, sys, time; " \
      "open('said.tmp', 'w').write(json.dumps(sys.argv[1:])); os.rename('said.tmp', 'said'); " \
      "time.sleep(1000)"


@test("the words of the command arrive as they were, whatever is in them")
def _():
    seed = time.time_ns() & 0xffffffff
    chance = random.Random(seed)
    signs = "ab \t'\"\\%;#$`()[]{}=:,~*?&|<>!-"
    made = ["".join(chance.choice(signs) for _ in range(chance.randrange(12))) for _ in range(500)]
    for words in (HARD, made, list(reversed(HARD))):
        one = Alone(arguments=["--", PYTHON, "-c", SAY, *words])
        wait_until(lambda one=one: os.path.exists(one.path("said")), 5, "the command's words")
        with open(one.path("said"), encoding="utf-8") as f:
            got = json.load(f)
        for wanted, g in zip(words, got):
            equal(g, wanted, f"a word (seed {seed})")
        equal(len(got), len(words), f"words (seed {seed})")


@test("--print-config prints a file that means the same, and ends")
def _():
    where = folder()
    arguments = ["-w", "3", "-b", "127.0.0.1:0", "-b", "unix:x.sock", "--executor", "--name", "shop",
                 "--", PYTHON, "-c", SAY, *HARD]
    text = baton("run", "--print-config", *arguments, cwd=where, status=0).out
    contains(text, "[program:shop]", "the text")
    equal(os.listdir(where), [], "files made")
    with open(os.path.join(where, "other.ini"), "w", encoding="utf-8") as f:
        f.write(text)
    one = Instance(folder=where, name="other")
    one.wait_for("executor")
    wait_until(lambda: os.path.exists(one.path("said")), 5, "the command's words")
    with open(one.path("said"), encoding="utf-8") as f:
        equal(json.load(f), HARD, "words")
    status = one.status()
    equal((status["instance"]["name"], len(one.workers("shop"))), ("shop", 3), "name, workers")
    equal([s["name"] for s in status["sockets"]], ["http", "http2"], "sockets")
    check(os.path.exists(one.path("x.sock")), "the unix socket")


@test("--print-config through a pipe: as the file that it prints")
def _():
    where = folder()
    words = ["-w", "2", "-b", "127.0.0.1:0", "-b", "unix:x.sock", "--executor", "--preset", "gunicorn",
             "--name", "shop", "--", "sleep", "1000"]
    text = baton("run", "--print-config", *words, cwd=where, status=0).out
    with open(os.path.join(where, "stdin"), "w", encoding="utf-8") as f:
        f.write(text)
    dumps = [baton("check", "--dump", "--json", "-c", file, cwd=where, stdin=text.encode(),
                   status=0).out.replace("/dev/stdin", f"{where}/stdin")
             for file in ("stdin", "/dev/stdin")]
    file, piped = [json.loads(d) for d in dumps]
    equal(piped, file, "what check --dump --json says of a pipe")
    equal(file["program:shop"]["preset"]["value"], "gunicorn", "preset")
    equal(file["scheduler"]["database"]["value"], os.path.join(where, "baton.db"), "the database")
    r = baton("check", "-c", "/dev/stdin", cwd=where, status=78)
    contains(r.err, "/dev/stdin: nothing came out of it", "an empty pipe")
    jobs = "[job:a]\nschedule = @daily\ncommand = true\n"
    contains(baton("jobs", "next", "-c", "/dev/stdin", cwd=where, stdin=jobs.encode(), status=0).out,
             "a", "jobs next")


class Piped(Instance):
    """`baton run -c /dev/stdin` in its folder, with TEXT in a pipe."""

    def start(self, wait=True, timeout=15):
        self.process = subprocess.Popen([self.binary, "run", "-s", self.socket, "-c", "/dev/stdin"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, cwd=self.folder,
                                        start_new_session=True)
        with self.process.stdin as pipe, open(self.config, "rb") as f:
            pipe.write(f.read())
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self.wait_answering(timeout)
        return self


@test("run -c /dev/stdin: paths from the folder, a reload is refused with the cause")
def _():
    one = Piped("""
        [baton]
        pidfile = %(here)s/one.pid
        [socket:http]
        listen = unix:x.sock
        [program:web]
        command = sleep 1000
        startsecs = 0
        sockets = http
    """)
    one.wait_for("ready=web")
    check(os.path.exists(one.path("x.sock")) and os.path.exists(one.path("one.pid")), "its files")
    before = pids(one, "web")
    r = one.cli("reload", status=78)
    contains(r.err, "/dev/stdin: cannot read it a second time", "reload")
    mark = one.mark()
    one.send_signal(signal.SIGHUP)
    one.wait_log("/dev/stdin: cannot read it a second time", since=mark)
    one.wait_log("nothing was changed", since=mark)
    equal(pids(one, "web"), before, "pids")
    one.cli("restart", "--rolling", "web", status=0)
    check(pids(one, "web") != before, "the worker was not replaced")


@test("no file: -b with IPv6, -w auto by the CPUs this process may use, --preset")
def _():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        skip("no IPv6 here")
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})      # only of this thread; what it starts inherits it
    try:
        one = Alone(arguments=["-b", "[::1]:0", "-w", "auto", "--preset", "node", "--", "sleep", "1000"],
                    start=False)
        one.start()
    finally:
        os.sched_setaffinity(0, range(os.cpu_count()))
    wait_until(lambda: len(pids(one, "web")) == 1, 5, "one worker, for one CPU")
    equal(len(one.workers("web")), 1, "workers for one CPU")
    host, port = re.search(r"//\[(.*)\]:(\d+)", one.url()).groups()
    with socket.socket(socket.AF_INET6) as s:
        equal(s.connect_ex((host, int(port))), 0, f"a connection to {one.url()}")

    def environment():
        with open(f"/proc/{one.worker('web:0')['pid']}/environ", encoding="utf-8") as f:
            return f.read()
    wait_until(lambda: "NODE_OPTIONS=--require" in environment(), 5,       # once it is executed
               "NODE_OPTIONS of the preset")


@test("no file: workers, sockets, executor; the commands find it from its folder")
def _():
    one = Alone(arguments=["-w", "2", "-b", "127.0.0.1:0", "-b", "unix:web.sock", "--executor", "--",
                           PYTHON, "-c", "import os, time; print(os.environ['LISTEN_FDS'], flush=True);"
                           " time.sleep(1000)"])
    one.wait_for("executor")
    equal(len(one.workers("web")), 2, "workers")
    check(connects_to(one.url()), "the listener")
    check(os.path.exists(one.path("baton.db")), "the database beside it")
    one.wait_log(r"web:0.*2$")
    equal(one.status()["instance"]["config"], "(command line)", "config in status")
    two = Alone(arguments=["-s", "", "--", "sleep", "1000"], start=False)
    two.env = {"XDG_RUNTIME_DIR": two.folder, "RUNTIME_DIRECTORY": two.folder}
    two.start(wait=False)
    two.wait_log("is running \\(pid")
    r = baton("status", cwd=two.folder, env=two.env, status=0)
    contains(r.out, "web:0", "status")
    baton("shutdown", cwd=two.folder, env=two.env, status=0)
    equal(two.wait_end(), 0, "exit status")
    for arguments in (["-w", "2", "--", "true"], ["--", "status"]):     # `run` may be left out
        r = baton("--print-config", *arguments, cwd=two.folder,
                  status=0 if "true" in arguments else 2)
        contains(r.out + r.err, f"{arguments[-1]}", "the command")
    baton("status", cwd=two.folder, env=two.env, status=3)


@test("no file: HUP rolls what has sockets, leaves the rest; TTIN and stop as ever")
def _():
    for bind in ([], ["-b", "127.0.0.1:0"]):
        one = Alone(arguments=[*bind, "-w", "2", "--", "sleep", "1000"])
        one.wait_for("ready=web")
        before, mark = pids(one, "web"), one.mark()
        one.send_signal(signal.SIGHUP)
        one.wait_log("event=reload.plan", since=mark)
        one.wait_for("rollout=done")
        after = pids(one, "web")
        equal(len(set(before.values()) & set(after.values())), 0 if bind else 2, "pids that stay")
        one.cli("reload", status=0)
        one.send_signal(signal.SIGTERM)
        equal(one.wait_end(), 0, "exit status")


@test("no file: wrong use is explained, exit status 2")
def _():
    where = folder()
    for arguments, words in (
            (["-w", "0", "--", "sleep"], "--workers '0'"),
            (["-w", "-1", "--", "sleep"], "--workers '-1'"),
            (["-w", "two", "--", "sleep"], "--workers 'two'"),
            (["-w", "999999999", "--", "sleep"], "workers"),
            (["-w", "2"], "the command is missing"),
            (["-b", ":1", "--"], "the command is missing"),
            (["--print-config"], "the command is missing"),
            (["sleep", "1"], "a command stands behind --"),
            (["-w", "2", "sleep", "--", "1"], "'sleep': the command stands behind --"),
            (["-c", "x.ini", "--", "sleep"], "not both"),
            (["--compat", "--", "sleep"], "--compat"),
            (["-b", "nonsense", "--", "sleep"], "'nonsense' is none of HOST:PORT"),
            (["-b", "1.2.3.4:99999", "--", "sleep"],
             "'1.2.3.4:99999': the port is not one of 1 to 65535"),
            (["-b", ":-1", "--", "sleep"], "the port is not one of 1 to 65535"),
            (["-b", "unix:a b", "--", "sleep"], "white space"),
            (["-b", ":1\n[x]", "--", "sleep"], "white space"),
            (["-b", "", "--", "sleep"], "--bind ''"),
            (["-b", ":1", "-b", ":1", "--", "sleep"], "the same address"),
            (["--preset", "nonesuch", "--", "sleep"], "'nonesuch' is no preset"),
            (["--preset", "x]\n[y", "--", "sleep"], "--preset"),
            (["--name", "a/b", "--", "sleep"], "--name 'a/b'"),
            (["--name", "", "--", "sleep"], "--name ''"),
            (["--", "sleep", "a\nb"], "line break"),
            (["--", "sleep", "a\rb"], "line break"),
            (["--", "no-such-command-here"], "'no-such-command-here' is in no directory of PATH"),
            (["--", ""], "command")):
        r = baton("run", *arguments, cwd=where, status=2)
        contains(r.err, words, f"{arguments}")
    equal(os.listdir(where), [], "files made")


# --- in the background, pidfile ----------------------------------------------------------------
BACK = """
    [baton]
    {}
    pidfile = %(here)s/one.pid
    [program:web]
    command = sh -c 'echo said by web; exec sleep 1000'
    startsecs = 0
"""


@contextlib.contextmanager
def background(one, *arguments):
    """`run -d` of ONE to its end: its result; the instance is stopped afterwards."""
    r = baton("run", "-d", "-c", one.config, "-s", one.socket, *arguments, cwd=one.folder)
    try:
        yield r
    finally:
        with contextlib.suppress(OSError, EOFError, ControlError):
            pid = one.status()["instance"]["pid"]
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)          # it is ours: orphans come to this process


@test("-d returns when it runs: own session, no terminal, output in the log file")
def _():
    one = Instance(BACK.format("logfile = %(here)s/one.log"), start=False)
    with background(one) as r:
        equal((r.status, r.err), (0, ""), "status, errors")
        pid = int(re.search(r"running in the background \(pid (\d+)\)", r.out).group(1))
        with open(one.path("one.pid"), encoding="ascii") as f:
            equal(f.read(), f"{pid}\n", "pidfile")
        equal(one.status()["instance"]["pid"], pid, "pid in status")
        equal(os.getsid(pid), pid, "session")
        equal([os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)], ["/dev/null"] * 3, "0, 1, 2")
        one.wait_for("ready=web")
        log = one.path("one.log")
        wait_until(lambda: "web:0 | said by web" in open(log, encoding="utf-8").read(), 5, "output")
        os.rename(log, log + ".1")
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: os.path.exists(log), 5, "a new log")
        one.call("restart", targets=["web"], wait=True)
        wait_until(lambda: "web:0 | said by web" in open(log, encoding="utf-8").read(), 5,
                   "output in the new log")
    check(not os.path.exists(one.path("one.pid")), "the pidfile is left")


@test("-d without a log file warns; also for a command without a file")
def _():
    one = Instance(BACK.format(""), start=False)
    with background(one) as r:
        equal(r.status, 0, "exit status")
        contains(r.err, "no logfile is set", "warning")
    two = Alone(arguments=["-d", "--", "sleep", "1000"], start=False)
    r = baton("run", "-d", "-s", two.socket, "--", "sleep", "1000", cwd=two.folder, status=0)
    pid = two.status()["instance"]["pid"]
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


@test("-d: what prevents the start is printed, with its exit status")
def _():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for extra, status, words in (("wrong = yes", 78, "wrong"),
                                     ("logfile = %(here)s/no/such.log", 1, "such.log"),
                                     ("directory = %(here)s/no", 78, "not an existing directory")):
            one = Instance(BACK.format(extra), start=False)
            with background(one) as r:
                equal(r.status, status, f"exit status with {extra}: {r}")
                contains(r.err, words, "error")
            check(not os.path.exists(one.socket), "the control socket is left")
        one = Instance(BACK.format(f"[socket:http]\n    listen = 127.0.0.1:{port}\n    [baton]"),
                       start=False)
        with background(one) as r:
            equal(r.status, 1, f"exit status with a port that is taken: {r}")
            contains(r.err, str(port), "error")
    reap()


LOCKED = """
    [baton]
    {}
    [scheduler]
    database = %(here)s/lock.db
    ttl = 3s
    heartbeat = 500ms
    kill_grace = 500ms
    handoff_timeout = 500ms
    when_held = exit
    [program:web]
    command = sleep 1000
    startsecs = 0
    executor = candidate
"""


@test("-d and the lock: held by another 75, a database that is none 78, free 0")
def _():
    one = Instance(LOCKED.format(""))
    one.wait_for("role=holder")
    two = Instance(LOCKED.format("logfile = %(here)s/two.log"), name="two", folder=one.folder,
                   start=False)
    with background(two) as r:
        equal((r.status, r.out), (75, ""), f"status, output while the lock is held: {r}")
        contains(r.err, "the lock is held by ", "error")
        contains(r.err, f"(pid {one.pid}", "error")
    r = baton("run", "-c", two.config, "-s", two.socket, status=75)     # in the foreground
    contains(r.err, f"(pid {one.pid}", "error on the terminal, with a log file")
    one.stop()
    with background(two) as r:
        equal(r.status, 0, f"status when the lock is free: {r}")
        equal(two.status()["lock"]["role"], "holder", "role")
    bad = Instance(LOCKED.format(""), name="bad", start=False)
    with open(bad.path("lock.db"), "wb") as f:
        f.write(random.Random(7).randbytes(8192))
    for detach, extra in ((["-d"], ""), (["-d"], "logfile = %(here)s/bad.log"),
                          ([], "logfile = %(here)s/bad.log"), ([], "")):
        bad.write(LOCKED.format(extra))
        r = baton("run", *detach, "-c", bad.config, "-s", bad.socket, status=78)
        contains(r.err, bad.path("lock.db"), f"error of run {detach} with {extra!r}")
        equal(r.err.count("is not a SQLite database"), 1, f"times it is said in {r.err!r}")
    reap()


@test("a start that fails with a log file is told on the terminal too, and so is a fatal end")
def _():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for log in ("", "logfile = %(here)s/one.log"):
            one = Instance(BACK.format(f"{log}\n    [socket:http]\n    listen = 127.0.0.1:{port}\n"
                                       "    [baton]"), start=False)
            r = baton("run", "-c", one.config, "-s", one.socket, status=1)
            said = [line for line in r.err.splitlines() if str(port) in line]
            equal(len(said), 1, f"times it is said in {r.err!r}")
    one = Instance("""
        [baton]
        logfile = %(here)s/one.log
        [program:web]
        command = false
        startretries = 0
        on_fatal = exit
    """, start=False)
    r = baton("run", "-c", one.config, "-s", one.socket, status=70)
    contains(r.err, "ended: a program with on_fatal = exit failed", "error")


def reap():
    """The background processes that failed are children of ours by now."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@test("pidfile: the second is refused with the pid, a stale one replaced, another file left alone")
def _():
    one = Instance(BACK.format(""))
    pidfile = one.path("one.pid")
    for detach in ([], ["-d"]):
        r = baton("run", *detach, "-c", one.config, "-s", one.path("two.sock"), status=1)
        check(re.search(rf"one\.pid' is locked: another supervisor runs with it \(pid {one.pid}\)",
                        r.err), f"error {r.err!r}")
    with open(pidfile, encoding="ascii") as f:
        equal(f.read(), f"{one.pid}\n", "the first one's pidfile")
    one.kill()
    check(os.path.exists(pidfile), "a pidfile after kill -9")
    old = one.pid
    one.start()
    one.wait_log(rf"left behind by pid {old}: replaced")
    with open(pidfile, encoding="ascii") as f:
        equal(f.read(), f"{one.pid}\n", "the new pidfile")
    one.stop()
    check(not os.path.exists(pidfile), "a pidfile after the end")
    for text in ("root:x:0:0\n", "12 13\n", "-4\n", "x" * 4000, "1" * 40):
        with open(pidfile, "w", encoding="ascii") as f:
            f.write(text)
        r = baton("run", "-c", one.config, "-s", one.socket, status=78)
        contains(r.err, "is no pidfile", "error")
        with open(pidfile, encoding="ascii") as f:
            equal(f.read(), text, "the file")
    with open(pidfile, "w", encoding="ascii") as f:
        f.write("")
    one.start()
    equal(one.stop(), 0, "exit status")
    reap()


if __name__ == "__main__":
    main()

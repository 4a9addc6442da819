"""What every scenario test uses: instances of baton, the control protocol, TAP. Stdlib only.

    #!/usr/bin/python3
    import os, sys
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
    from harness import *

    @test("a dead executor is replaced")
    def _():
        one = Instance('''
            [scheduler]
            ttl = 3s
            heartbeat = 500ms
            kill_grace = 500ms
            handoff_timeout = 500ms             # `sleep` never says demoted
            [program:web]
            command = sleep 1000
            workers = 2
            executor = candidate
        ''')                                    # starts it and waits until it answers
        one.wait_for("executor", 5)             # control `wait`: no polling
        pid = one.executor()["pid"]
        os.kill(pid, signal.SIGKILL)
        one.wait_for(f"executor!={pid}", 5)
        # nothing to tear down: instances, folders and stray processes are dealt with after each test

    if __name__ == "__main__":
        main()

Environment: BATON_BUILD (default build), BATON_TEST_ID (set by the runner; marks every process of a
test), TMPDIR (each test program has its own; must be empty at the end).
"""

import collections
import contextlib
import ctypes
import faulthandler
import http.client
import json
import mmap
import os
import queue
import re
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("BATON_BUILD") or os.path.join(ROOT, "build"))
BATON = os.path.join(BUILD, "baton")
PYTHON = "/usr/bin/python3"
SOAK = bool(os.environ.get("BATON_SOAK"))
SECOND = 1_000_000_000

if not os.environ.get("BATON_TEST_ID"):
    os.environ["BATON_TEST_ID"] = f"alone-{os.getpid()}-{time.monotonic_ns()}"
TEST_ID = os.environ["BATON_TEST_ID"]
# Orphans come to us and not to init, so that nothing escapes the check for what was left running.
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)     # PR_SET_CHILD_SUBREAPER
# Under nohup all that is started here would ignore it, and a shell could not even set a trap.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
for _name in ("NOTIFY_SOCKET", "BATON_CONTROL", "BATON_LEASE_FD", "BATON_CHANNEL_FD", "LISTEN_FDS",
              "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "NO_COLOR"):
    os.environ.pop(_name, None)


class Skip(Exception):
    pass


class Failed(AssertionError):
    pass


def skip(reason):
    """End this test as skipped; the runner prints the reason."""
    raise Skip(reason)


def need(program):
    """Path of PROGRAM, or the test is skipped by name."""
    return shutil.which(program) or skip(f"{program} is not installed")


def check(condition, text):
    if not condition:
        raise Failed(text)


def equal(got, wanted, what="value"):
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")


class Deadline:
    """deadline(5).left() seconds remain; raises when passed."""

    def __init__(self, seconds, what="this"):
        self.end, self.seconds, self.what = time.monotonic() + seconds, seconds, what

    def left(self):
        left = self.end - time.monotonic()
        if left <= 0:
            raise Failed(f"{self.what} took longer than {self.seconds} s")
        return left

    def passed(self):
        return time.monotonic() >= self.end


def deadline(seconds, what="this"):
    return Deadline(seconds, what)


def wait_until(fn, timeout=5, what=None):
    """Polls FN each 5 ms: only for what has no event. Returns its first true value."""
    limit = Deadline(timeout, what or "waiting")
    while True:
        value = fn()
        if value:
            return value
        limit.left()
        time.sleep(0.005)


def boottime():
    """CLOCK_BOOTTIME in seconds, the clock of leases."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --- the control protocol ----------------------------------------------------------------------
class ControlError(Exception):
    def __init__(self, error):
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code, self.error = error.get("code"), error


class Control:
    """One connection. call("status"), or events() for the stream."""

    def __init__(self, path, timeout=5):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.buffer, self.next_id, self.progress = bytearray(), 1, []
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
            self.greeting = self.receive(timeout)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, cmd, **arguments):
        number, self.next_id = self.next_id, self.next_id + 1
        line = json.dumps({"v": 1, "id": number, "cmd": cmd, **arguments}) + "\n"
        self.socket.sendall(line.encode())
        return number

    def receive(self, timeout=5):
        """The next line as an object; EOFError at the end, TimeoutError."""
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no line from the control socket within {timeout} s")
            self.socket.settimeout(left)
            part = self.socket.recv(1 << 16)
            if not part:
                raise EOFError("the control socket was closed")
            self.buffer += part
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return json.loads(line)

    def call(self, cmd, timeout=5, **arguments):
        """The result; ControlError for ok:false."""
        number = self.send(cmd, **arguments)
        end = time.monotonic() + timeout
        while True:
            line = self.receive(max(0.001, end - time.monotonic()))
            if line.get("id") != number or "progress" in line:
                self.progress.append(line)
                continue
            if not line.get("ok"):
                raise ControlError(line.get("error", {}))
            return line.get("result")


class Events:
    """The event stream of an instance. next(), wait("worker.running", 5, worker="web:0")."""

    def __init__(self, path, timeout=5):
        self.control = Control(path, timeout)
        self.control.call("events", timeout)
        self.seen = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.control.close()

    def next(self, timeout=5):
        line = self.control.receive(timeout)
        self.seen.append(line)
        return line

    def wait(self, event, timeout=5, **fields):
        """EVENT is a name or a function of the line."""
        limit = Deadline(timeout, f"event {event} {fields or ''}")
        while True:
            try:
                line = self.next(limit.left())
            except TimeoutError:
                raise Failed(f"no event {event} {fields} within {timeout} s; seen: "
                             f"{[e.get('event') for e in self.seen]}") from None
            if (event(line) if callable(event) else line.get("event") == event) and all(
                    line.get(k) == v for k, v in fields.items()):
                return line


# --- the command line --------------------------------------------------------------------------
Result = collections.namedtuple("Result", "status out err")


def baton(*arguments, timeout=20, env=None, cwd=None, stdin=None, status=None):
    """Run `baton ARGUMENTS` to its end. status= the wanted exit status (None = any)."""
    done = subprocess.run([BATON, *map(str, arguments)], capture_output=True, timeout=timeout,
                          env={**os.environ, **(env or {})}, cwd=cwd, input=stdin or b"",
                          check=False)
    r = Result(done.returncode, done.stdout.decode(errors="replace"),
               done.stderr.decode(errors="replace"))
    if status is not None and r.status != status:
        raise Failed(f"baton {' '.join(map(str, arguments))}: exit status {r.status}, wanted "
                     f"{status}\n{r.out}{r.err}")
    return r


# --- instances ---------------------------------------------------------------------------------
_folders, _instances = [], []


def folder():
    """A fresh short-named temporary folder, removed after the test."""
    path = tempfile.mkdtemp(prefix="t")
    os.chmod(path, 0o755)
    _folders.append(path)
    return path


class Instance:
    """One supervisor: NAME.ini in FOLDER, control socket NAME.sock, `baton run` as a child.

    INI is the text of the file (dedented). ENV adds variables. ARGUMENTS follow `run`. PREFIX is put
    before the command (["unshare", "--pid", "--fork", "--mount-proc"]): process.pid is then the
    prefix's. START=False only writes the file. Give two instances one FOLDER and they share
    baton.db beside the file (or set `database`).
    """

    def __init__(self, ini=None, name="one", folder=None, env=None, arguments=(), prefix=(),
                 start=True, wait=True, binary=None):
        self.folder = folder or globals()["folder"]()
        self.name = name
        self.config = os.path.join(self.folder, f"{name}.ini")
        self.socket = os.path.join(self.folder, f"{name}.sock")
        self.env, self.arguments, self.prefix = env or {}, list(arguments), list(prefix)
        self.binary = binary or BATON
        self.process, self.lines, self._news = None, [], threading.Condition()
        if ini is not None:
            self.write(ini)
        _instances.append(self)
        if start:
            self.start(wait=wait)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, ini, name=None):
        """Replace the configuration (no reload)."""
        with open(name or self.config, "w", encoding="utf-8") as f:
            f.write(textwrap.dedent(ini).lstrip("\n"))

    def start(self, wait=True, timeout=15):
        check(self.process is None or self.process.poll() is not None, f"{self.name} runs already")
        command = [*self.prefix, self.binary, "run", "-c", self.config, "-s", self.socket,
                   *self.arguments]
        # As another user: nothing is to be left in a folder of that user's.
        runtime = {"RUNTIME_DIRECTORY": self.folder} if "setpriv" in self.prefix else {}
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env={**os.environ, **runtime, **self.env},
                                        cwd=self.folder, start_new_session=True)
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        if wait:
            self.wait_answering(timeout)
        return self

    def _read(self, pipe):
        with pipe:
            for raw in pipe:
                with self._news:
                    self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def pid(self):
        return self.process.pid

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        return "\n".join(self.lines)

    def mark(self):
        """The place in the log to give to wait_log(since=)."""
        return len(self.lines)

    def wait_log(self, pattern, timeout=5, since=0):
        """The first match of the regular expression in the log from line SINCE on."""
        expression, at, end = re.compile(pattern), since, time.monotonic() + timeout
        with self._news:
            while True:
                while at < len(self.lines):
                    found = expression.search(self.lines[at])
                    if found:
                        return found
                    at += 1
                left = end - time.monotonic()
                if left <= 0:
                    raise Failed(f"{self.name}: no log line with {pattern!r} within {timeout} s")
                self._news.wait(left)

    def wait_answering(self, timeout=15):
        limit = Deadline(timeout, f"{self.name}: answering on its control socket")
        while True:
            if not self.alive:
                self._reader.join(2)
                raise Failed(f"{self.name}: ended with {self.process.returncode} at start")
            try:
                with Control(self.socket, limit.left()):
                    return self
            except (FileNotFoundError, ConnectionRefusedError, EOFError, ConnectionResetError):
                limit.left()
                time.sleep(0.005)

    # speaking to it
    def control(self, timeout=5):
        return Control(self.socket, timeout)

    def events(self, timeout=5):
        return Events(self.socket, timeout)

    def call(self, cmd, timeout=10, **arguments):
        with Control(self.socket, timeout) as c:
            return c.call(cmd, timeout, **arguments)

    def status(self):
        return self.call("status")

    def wait_for(self, condition, timeout=10):
        """Control `wait`: "executor", "executor!=PID", "term>N", "ready=web", "role=holder" ..."""
        return self.call("wait", timeout + 5, **{"for": condition,
                                                 "timeout_ms": int(timeout * 1000)})

    def wait_rollouts(self, timeout=10):
        """Until no rollout runs any more, however the last ones ended (`rollout=done` fails then)."""
        limit = Deadline(timeout, f"{self.name}: the end of all rollouts")
        while True:
            try:
                self.wait_for("rollout=done", limit.left())
            except ControlError as e:
                if e.code != "failed":
                    raise
            if not any(p["rollout"] for p in self.status()["programs"]):
                return
            limit.left()
            time.sleep(0.005)               # half way: nobody is told when that ends

    def program(self, name):
        return next(p for p in self.status()["programs"] if p["name"] == name)

    def workers(self, name):
        return self.program(name)["workers"]

    def worker(self, name):
        return next(w for p in self.status()["programs"] for w in p["workers"]
                    if w["name"] == name)

    def executor(self, program=None):
        """The executor's row of status, of PROGRAM or the first; None when it has no worker."""
        for row in self.status()["executors"]:
            if program in (None, row["program"]) and row["worker"]:
                return row
        return None

    def term(self):
        row = self.executor()
        return row["term"] if row else None

    def url(self, socket_name=None):
        """http://HOST:PORT of its first (or the named) socket."""
        for s in self.status()["sockets"]:
            if socket_name in (None, s["name"]):
                return s["url"]
        raise Failed(f"{self.name} has no socket {socket_name or ''}")

    def cli(self, *arguments, **keywords):
        """`baton ARGUMENTS -s SOCKET -c FILE`."""
        return baton(*arguments, "-s", self.socket, "-c", self.config, **keywords)

    # ending it
    def send_signal(self, number):
        self.process.send_signal(number)

    def wait_end(self, timeout=15):
        """Its exit status (-N = killed by signal N)."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: still running after {timeout} s") from None
        return status

    def stop(self, number=signal.SIGTERM, timeout=15, status=0):
        """Graceful stop; STATUS is checked unless None."""
        self.send_signal(number)
        got = self.wait_end(timeout)
        if status is not None:
            equal(got, status, f"exit status of {self.name}")
        return got

    def kill(self):
        """kill -9 of the supervisor (what is below it is the deadman's)."""
        if self.alive:
            self.process.kill()
        return self.wait_end()

    def _tear_down(self):
        if not self.alive:
            return None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
            return None
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            return f"{self.name}: did not end within 10 s of SIGTERM"


# --- processes and pages -----------------------------------------------------------------------
def environment_of(pid):
    """Environment of a process as a dict of strings; {} when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            raw = f.read().decode(errors="replace")
    except OSError:
        return {}
    return dict(item.partition("=")[::2] for item in raw.split("\0") if "=" in item)


def state_of(pid):
    """Letter of /proc/PID/stat (R S D T Z ...), or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def marked_processes():
    """Living processes of this test program, itself excepted: those with its BATON_TEST_ID, and all
    that descends from it (baton's helpers have an environment of their own)."""
    needle, marked, parents = f"BATON_TEST_ID={TEST_ID}".encode(), set(), {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as f:
                state, parent = f.read().rpartition(")")[2].split()[:2]
            if state in "ZX":
                continue
            parents[int(entry)] = int(parent)
            with open(f"/proc/{entry}/environ", "rb") as f:
                if needle in f.read().split(b"\0"):
                    marked.add(int(entry))
        except OSError:
            continue
    marked.add(os.getpid())
    while True:
        more = {p for p, parent in parents.items() if parent in marked} - marked
        if not more:
            return sorted(marked - {os.getpid()})
        marked |= more


def helpers(name="lock-deadman", of=None):
    """Pids of helper processes of this test by name: lock-deadman, lock-keeper, lock-waiter; OF a
    supervisor's pid: only its own (while it lives)."""
    found = []
    for pid in marked_processes():
        if not command_of(pid).startswith(name):
            continue
        if of is not None:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii",
                                                    errors="replace") as f:
                if int(f.read().rpartition(")")[2].split()[1]) == of:
                    found.append(pid)
            continue
        found.append(pid)
    return found


class LeasePage:
    """One lease page, mapped read-only. valid() is the promise that must never hold twice."""

    def __init__(self, path, worker, instance, pid):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.key = (os.fstat(fd).st_dev, os.fstat(fd).st_ino)
            self.map = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self.worker, self.instance, self.pid = worker, instance, pid
        magic, version = struct.unpack_from("<II", self.map, 0)
        check(magic == 0x4E544142 and version == 1, f"{path}: not a lease page")

    @property
    def deadline_ns(self):
        return struct.unpack_from("<q", self.map, 8)[0]

    @property
    def term(self):
        return struct.unpack_from("<Q", self.map, 16)[0]

    @property
    def soft_ns(self):
        return struct.unpack_from("<q", self.map, 24)[0]

    @property
    def heartbeats(self):
        return struct.unpack_from("<Q", self.map, 40)[0]

    def valid(self, now_ns=None):
        end = self.deadline_ns
        return end != 0 and (now_ns or time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < end

    def close(self):
        self.map.close()


def lease_pages(known=None):
    """{key: LeasePage} of all workers of this test, found through BATON_LEASE_FD in /proc; pages in
    KNOWN are kept (also of workers that are gone: close() them yourself)."""
    pages = dict(known or {})
    for pid in marked_processes():
        env = environment_of(pid)
        if "BATON_LEASE_FD" not in env:
            continue
        path = f"/proc/{pid}/fd/{env['BATON_LEASE_FD']}"
        try:
            if "memfd:baton-lease" not in os.readlink(path):
                continue
            st = os.stat(path)
            if (st.st_dev, st.st_ino) in pages:
                continue
            page = LeasePage(path, env.get("BATON_WORKER"), env.get("BATON_INSTANCE"), pid)
        except OSError:
            continue
        pages[page.key] = page
    return pages


# --- small helpers -----------------------------------------------------------------------------
def http_get(url, timeout=5, method="GET", body=None, headers=None):
    """(status, text) of one request; URL as http://HOST:PORT[/PATH] or http://[::1]:PORT."""
    host, slash, path = url.partition("://")[2].partition("/")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        connection.request(method, slash + path or "/", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def lock_row(database):
    """The row of scheduler_lock as a dict, read without baton."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True,
                                            timeout=5)) as db:
        db.row_factory = sqlite3.Row
        row = db.execute("SELECT * FROM scheduler_lock WHERE id = 1").fetchone()
        return dict(row) if row else None


# --- TAP ---------------------------------------------------------------------------------------
_tests = []


def test(name, soak=False):
    """Register a test; SOAK: only with BATON_SOAK=1. Tests run in the order of the file."""

    def register(function):
        _tests.append((name, function, soak))
        return function

    return register


def _diagnose(text):
    for line in text.rstrip("\n").split("\n"):
        print(f"# {line}", flush=True)


def _clean():
    """After a test: instances ended, nothing left running, folders removed. Returns complaints."""
    complaints = [c for c in [i._tear_down() for i in _instances] if c]
    end = time.monotonic() + 5
    left = marked_processes()
    while left and time.monotonic() < end:
        time.sleep(0.005)
        left = marked_processes()
    for pid in left:
        complaints.append(f"left running: pid {pid} ({command_of(pid)})")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in _folders:
        shutil.rmtree(path, ignore_errors=True)
    return complaints


def _run_one(number, name, function):
    start = time.monotonic()
    failure, reason = None, None
    try:
        function()
    except Skip as s:
        reason = str(s)
    except BaseException:  # also SystemExit: a test never ends the program
        failure = traceback.format_exc()
    logs = [(i.name, i.lines[-60:]) for i in _instances]
    complaints = _clean()
    if complaints and failure is None:
        failure = "after the test:"
        reason = None
    took = f"# {time.monotonic() - start:.3f} s"
    if failure is None:
        print(f"ok {number} - {name} # SKIP {reason}" if reason is not None else
              f"ok {number} - {name}\n{took}", flush=True)
    else:
        print(f"not ok {number} - {name}\n{took}", flush=True)
        _diagnose("\n".join([failure, *complaints]))
        for who, lines in logs:
            _diagnose(f"--- log of {who}, last {len(lines)} lines\n" + "\n".join(lines))
    _instances.clear()
    _folders.clear()
    return failure is None


def main():
    """Run the registered tests (those whose name contains an argument) and exit."""
    faulthandler.enable()
    limit = float(os.environ.get("BATON_TEST_TIMEOUT") or 120)
    faulthandler.dump_traceback_later(max(1, limit - 3), exit=False)
    wanted = [t for t in _tests if not sys.argv[1:] or any(a in t[0] for a in sys.argv[1:])]
    print(f"1..{len(wanted)}", flush=True)
    good = True
    for number, (name, function, soak) in enumerate(wanted, 1):
        if soak and not SOAK:
            print(f"ok {number} - {name} # SKIP only with BATON_SOAK=1", flush=True)
            continue
        good = _run_one(number, name, function) and good
    faulthandler.cancel_dump_traceback_later()
    sys.exit(0 if good else 1)

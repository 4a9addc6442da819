#!/usr/bin/python3
"""Supervision on the real binary: starts, restarts, failures, what a child really gets, trees,
order, reaping."""

import errno
import os
import pwd
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

# Ends with the status that is written into the fifo of its program's name.
GATE = """sh -c 'read code < %(here)s/%(program_name)s; exit $code'"""
KIB = 1024


def between(got, low, high, what):
    check(low <= got <= high, f"{what}: got {got!r}, wanted {low!r} to {high!r}")


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def gates(one, *names):
    for name in names:
        os.mkfifo(one.path(name))


def through(one, name, code):
    """Lets the worker behind the gate NAME exit with CODE."""
    with open(one.path(name), "w", encoding="ascii") as f:
        f.write(f"{code}\n")


def script(one, name, text, mode=0o755):
    path = one.path(name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(textwrap.dedent(text).lstrip("\n"))
    os.chmod(path, mode)
    return path


def proc_status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return {line.partition(":")[0]: line.partition(":")[2].split() for line in f}


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as f:
                    fields = f.read().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry))
    return found


def gone(pid):
    return state_of(pid) in (None, "Z", "X")


def read_pids(path, count):
    """COUNT pids, one a line, that processes of a worker write into PATH."""
    def found():
        with contextlib.suppress(OSError):
            with open(path, encoding="ascii") as f:
                lines = f.read().split("\n")[:-1]
            if len(lines) >= count:
                return [int(line) for line in lines]
        return None
    return wait_until(found, 5, f"{count} pids in {os.path.basename(path)}")


# --- start -------------------------------------------------------------------------------------
@test("startsecs: running after it, not before; 0 at once; startsecs is a duration")
def _():
    one = Instance("""
        [program:slow]
        command = sleep 1000
        startsecs = 400ms
        autostart = no
        [program:quick]
        command = sleep 1000
        startsecs = 0
        autostart = no
    """)
    with one.events() as events:
        began = time.monotonic()
        one.call("start", targets=["slow", "quick"])
        equal(one.worker("slow:0")["state"], "starting", "state before startsecs")
        events.wait("worker.running", worker="quick:0")
        between(time.monotonic() - began, 0, 0.35, "seconds to running with startsecs = 0")
        events.wait("worker.running", worker="slow:0")
        between(time.monotonic() - began, 0.4, 2, "seconds to running with startsecs = 400ms")
    slow = one.worker("slow:0")
    equal((slow["state"], slow["ready"], slow["restarts"]), ("running", True, 0), "slow:0")


@test("starts that fail: 100 ms doubling (native), 1, 2 s (compatibility), then fatal, told so")
def _():
    where = folder()
    old = Instance("""
        [supervisord]
        [program:web]
        command = sh -c "exit 3"
        startretries = 2
    """, name="old", folder=where, start=False)
    old.start()
    began = time.monotonic()
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c "date +%%s.%%N >> starts; exit 3"
        directory = %(here)s
        startretries = 4
    """, folder=where)
    one.wait_log("event=worker.fatal", 5)
    spans = [m for line in one.lines
             for m in re.findall(r"trying again in (\d+) ms \((\d) of 4\)", line)]
    equal([int(n) for _, n in spans], [1, 2, 3, 4], "retries told")
    for delay, n in spans:
        full = 100 * 2 ** (int(n) - 1)
        between(int(delay), full * 0.74 - 1, full, f"told delay {n} in ms")
    with open(one.path("starts"), encoding="ascii") as f:
        starts = [float(line) for line in f]
    equal(len(starts), 5, "starts with startretries = 4")
    for n in range(1, 5):
        full = 0.1 * 2 ** (n - 1)
        between(starts[n] - starts[n - 1], full * 0.74, full + 0.5, f"seconds before start {n}")
    web = one.worker("web:0")
    equal((web["state"], web["pid"], web["last_exit"].get("code")), ("fatal", None, 3), "web:0")
    line = one.wait_log("event=worker.fatal").string
    contains(line, "exited with status 3", "fatal line")
    contains(line, "given up after 5 starts", "fatal line")
    contains(line, "baton start web:0", "what to do next")
    # An operator's start begins anew.
    with one.events() as events:
        r = one.cli("start", "web", status=1)
        check(re.search(r"web:0.*(status 3|too quickly)", r.err), f"why it failed: {r.err!r}")
        events.wait("worker.backoff", worker="web:0")
    old.wait_log("event=worker.fatal", 6)
    between(time.monotonic() - began, 2.5, 5, "seconds until fatal in compatibility mode")
    equal([float(m) for line in old.lines for m in re.findall(r"again in ([\d.]+) s", line)],
          [1.0, 2.0], "delays told in compatibility mode")


@test("a task that ends with 0 before startsecs: the log says what such a one needs")
def _():
    one = Instance("""
        [baton]
        [program:task]
        command = true
        startretries = 1
    """)
    line = one.wait_log("event=worker.fatal").string
    contains(line, "exited with status 0 before startsecs", "what happened")
    contains(line, "startsecs = 0", "what it needs")
    one.write("""
        [baton]
        [program:task]
        command = true
        startsecs = 0
    """)
    with one.events() as events:
        one.cli("reload", status=0)
        one.cli("start", "task", status=0)
        events.wait("worker.exited", worker="task:0")


@test("started with standard input, output and error closed: nothing else takes their place")
def _():
    one = Instance("""
        [scheduler]
        [program:web]
        command = sh -c "echo out; echo err >&2; exec sleep 1000"
        startsecs = 0
        executor = candidate
    """, prefix=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    one.wait_for("executor")
    for number in range(3):
        equal(os.readlink(f"/proc/{one.pid}/fd/{number}"), "/dev/null", f"descriptor {number}")
    equal(one.worker("web:0")["restarts"], 0, "restarts")


@test("autorestart: yes, no, unexpected with exitcodes; a signal is never expected")
def _():
    one = Instance(f"""
        [DEFAULT]
        startsecs = 0
        [program:always]
        command = {GATE}
        autorestart = yes
        [program:never]
        command = {GATE}
        autorestart = no
        [program:expected]
        command = {GATE}
        exitcodes = 0, 7
        [program:unexpected]
        command = {GATE}
        exitcodes = 0, 7
        [program:killed]
        command = {GATE}
        exitcodes = 0, 9, 137
        [baton]
    """, start=False)
    gates(one, "always", "never", "expected", "unexpected", "killed")
    one.start()
    for name in ("always", "never", "expected", "unexpected", "killed"):
        one.wait_for(f"ready={name}")
    before = {name: one.worker(f"{name}:0")["pid"] for name in ("always", "unexpected", "killed")}
    with one.events() as events:
        through(one, "always", 0)
        through(one, "never", 1)
        through(one, "expected", 7)
        through(one, "unexpected", 1)
        os.kill(before["killed"], signal.SIGKILL)
        left = {("worker.running", "always:0"), ("worker.exited", "never:0"),
                ("worker.exited", "expected:0"), ("worker.running", "unexpected:0"),
                ("worker.running", "killed:0")}
        limit = deadline(5, f"events {left}")
        while left:
            line = events.next(limit.left())
            left.discard((line.get("event"), line.get("worker")))
    for name, state, restarts in (("always", "running", 1), ("never", "exited", 0),
                                  ("expected", "exited", 0), ("unexpected", "running", 1),
                                  ("killed", "running", 1)):
        w = one.worker(f"{name}:0")
        equal((w["state"], w["restarts"]), (state, restarts), f"{name}:0 (state, restarts)")
    for name, pid in before.items():
        check(one.worker(f"{name}:0")["pid"] != pid, f"{name}:0 has its old pid {pid} still")
    equal(one.worker("never:0")["last_exit"]["code"], 1, "never:0 last_exit code")
    equal(one.worker("expected:0")["last_exit"]["code"], 7, "expected:0 last_exit code")
    equal(one.worker("killed:0")["last_exit"]["signal"], 9, "killed:0 last_exit signal")


@test("a worker that was running and dies again and again is slowed down, not given up")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c "date +%%s.%%N >> starts; exit 1"
        directory = %(here)s
        startsecs = 0
        startretries = 1
    """)
    one.wait_log(r"starting it again in [3-9]\d\d ms", 5)
    with open(one.path("starts"), encoding="ascii") as f:
        starts = [float(line) for line in f]
    between(len(starts), 3, 7, "starts until the delay is 300 ms")
    check(one.worker("web:0")["state"] != "fatal", f"state {one.worker('web:0')['state']}")


# --- exec --------------------------------------------------------------------------------------
@test("what cannot be executed: refused at start when the file shows it, with file and line")
def _():
    one = Instance("""
        [baton]
        [program:missing]
        command = /nonexistent/program --flag
        [program:plain]
        command = %(here)s/plain
        [program:folder]
        command = %(here)s
        [program:unknown]
        command = sleep 1
        user = nobody-of-that-name
    """, start=False)
    script(one, "plain", "#!/bin/sh\n", 0o644)
    one.start(wait=False)
    equal(one.wait_end(), 78, "exit status")
    one._reader.join(5)
    log = one.log()
    for line, section, text in ((3, "program:missing", "does not exist"),
                                (5, "program:plain", "not executable"),
                                (7, "program:folder", "director"),
                                (10, "program:unknown", "nobody-of-that-name")):
        found = re.search(rf"one\.ini:{line}: \[{section}\].*{text}", log)
        check(found, f"no line for {section}, line {line}, with {text!r} in:\n{log}")
    contains(log, "4 errors", "count of errors")


@test("what cannot be executed at run time: told with the step and the errno, by start and by log")
def _():
    one = Instance("""
        [DEFAULT]
        autostart = no
        startretries = 0
        [program:missing]
        command = %(here)s/missing
        [program:plain]
        command = %(here)s/plain
        [program:folder]
        command = %(here)s/folder
        [program:loader]
        command = %(here)s/loader
        [program:text]
        command = %(here)s/text
        [program:place]
        command = sleep 1000
        directory = %(here)s/place
        [program:path]
        command = baton-test-program
        environment = PATH="%(here)s/bin:%(here)s/place"
        [program:limit]
        command = sleep 1000
        rlimit_nofile = 64:999999999
        [program:good]
        command = sleep 1000
        startsecs = 0
        [baton]
    """, start=False)
    for name in ("missing", "plain", "folder", "loader", "text"):
        script(one, name, "#!/bin/sh\nexec sleep 1000\n")
    os.mkdir(one.path("place"))
    os.mkdir(one.path("bin"))
    script(one, "bin/baton-test-program", "#!/bin/sh\nexec sleep 1000\n")
    one.start()
    os.unlink(one.path("missing"))
    os.chmod(one.path("plain"), 0o644)
    os.unlink(one.path("folder"))
    os.mkdir(one.path("folder"))
    script(one, "loader", "#!/nonexistent/interpreter\n")
    script(one, "text", "no program at all\n")
    os.rmdir(one.path("place"))
    os.unlink(one.path("bin/baton-test-program"))
    here = one.folder
    for name, text in (
            ("missing", f"cannot execute '{here}/missing': {os.strerror(errno.ENOENT)}"),
            ("plain", f"cannot execute '{here}/plain': {os.strerror(errno.EACCES)}"),
            ("folder", f"cannot execute '{here}/folder': {os.strerror(errno.EISDIR)}"),
            ("loader", "interpreter"),
            ("text", "neither a program for this machine nor a script"),
            ("place", f"cannot change to directory '{here}/place': {os.strerror(errno.ENOENT)}"),
            ("path", "cannot execute 'baton-test-program': not found in PATH"),
            ("limit", "cannot set the limit of open files: ")):
        r = one.cli("start", name, status=1)
        contains(r.err, text, f"baton start {name}")
        w = one.worker(f"{name}:0")
        equal(w["state"], "fatal", f"state of {name}:0")
        contains(w["last_exit"]["reason"], text, f"last_exit of {name}:0")
        check("code" not in w["last_exit"], f"a mysterious exit code: {w['last_exit']}")
        line = one.wait_log(rf"event=worker.fatal.*{name}:0").string
        contains(line, text, f"log of {name}")
    equal(one.cli("start", "good").status, 0, "a good one beside them")
    # Mended, it starts: nothing is remembered.
    os.mkdir(one.path("place"))
    equal(one.call("start", targets=["place"], wait=True)["workers"][0]["state"], "running",
          "place once its directory is there")


@test("a user without the right to change to another: refused by name")
def _():
    if os.geteuid() != 0:
        skip("only root can become somebody else to try it")
    setpriv = need("setpriv")
    nobody = pwd.getpwnam("nobody")
    where = folder()
    os.chown(where, nobody.pw_uid, nobody.pw_gid)
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        user = root
        startretries = 0
    """, folder=where, start=False, prefix=[
        setpriv, "--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups"])
    one.start()
    line = one.wait_log("event=worker.fatal").string
    contains(line, f"cannot change to group 0: {os.strerror(errno.EPERM)}", "why")
    contains(line, "only root may run it as somebody else", "what it takes")
    contains(line, "given up after 1 start:", "one start is no starts")


def may_look_into(pid):
    try:
        return bool(os.readlink(f"/proc/{pid}/cwd"))
    except PermissionError:
        return False


# --- what the child gets -----------------------------------------------------------------------
@test("user, groups, umask, directory, environment, nice, oom score, privileges, limits: applied")
def _():
    if os.geteuid() != 0:
        skip("changing the user needs root")
    daemon = pwd.getpwnam("daemon")
    one = Instance("""
        [baton]
        environment = FROM_ALL="all",BOTH="all"
        [program:web]
        command = sleep 1000
        user = daemon
        startsecs = 0
        umask = 027
        directory = %(here)s/work
        environment = BOTH="own",QUOTED="a, b; c %%",INDEX="%(process_num)02d"
        environment_file = %(here)s/vars
        nice = 5
        oom_score_adj = 321
        no_new_privs = yes
        rlimit_nofile = 64:128
        rlimit_core = 0
        rlimit_fsize = 1000000
        workers = 2
        [program:plain]
        command = sleep 1000
        startsecs = 0
    """, start=False, env={"NOTIFY_SOCKET": "/run/elsewhere", "LISTEN_FDS": "7", "KEPT": "yes",
                           "LISTEN_PID": "1", "WATCHDOG_USEC": "5"})
    os.mkdir(one.path("work"))
    with open(one.path("vars"), "w", encoding="ascii") as f:
        f.write("# a comment\nFROM_FILE=file\nBOTH=file\nSPACES='a b'\n")
    one.start()
    for name in ("web", "plain"):
        one.wait_for(f"ready={name}")
    pid, second = (w["pid"] for w in one.workers("web"))
    status = proc_status(pid)
    ids, gids = [str(daemon.pw_uid)] * 4, [str(daemon.pw_gid)] * 4
    equal(status["Uid"], ids, "Uid")
    equal(status["Gid"], gids, "Gid")
    wanted = sorted(os.getgrouplist("daemon", daemon.pw_gid))
    equal(sorted(map(int, status["Groups"])), wanted, "Groups")
    equal(status["Umask"], ["0027"], "Umask")
    equal(status["NoNewPrivs"], ["1"], "NoNewPrivs")
    if not may_look_into(pid):
        skip("looking into a process of another user is not permitted here (ptrace)")
    equal(os.readlink(f"/proc/{pid}/cwd"), os.path.realpath(one.path("work")), "directory")
    equal(os.getpriority(os.PRIO_PROCESS, pid), 5, "nice")
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as f:
        equal(f.read().strip(), "321", "oom_score_adj")
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in f}
    equal(limits["Max open files"], ["64", "128"], "rlimit_nofile")
    equal(limits["Max core file size"], ["0", "0"], "rlimit_core")
    equal(limits["Max file size"], ["1000000", "1000000"], "rlimit_fsize")
    env = environment_of(pid)
    for key, value in (("FROM_ALL", "all"), ("FROM_FILE", "file"), ("BOTH", "own"), ("KEPT", "yes"),
                       ("QUOTED", "a, b; c %"), ("INDEX", "00"), ("HOME", daemon.pw_dir),
                       ("SPACES", "a b"), ("USER", "daemon"), ("LOGNAME", "daemon"),
                       ("BATON_PROGRAM", "web"), ("BATON_WORKER", "web:0"), ("BATON_INDEX", "0"),
                       ("BATON_WORKERS", "2"), ("BATON_CONTROL", one.socket),
                       ("SUPERVISOR_ENABLED", "1"), ("SUPERVISOR_GROUP_NAME", "web")):
        equal(env.get(key), value, f"environment {key}")
    equal(env.get("BATON_INSTANCE"), one.status()["instance"]["id"], "BATON_INSTANCE")
    for key in ("LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "BATON_EXECUTOR", "BATON_LEASE_FD"):
        equal(env.get(key), None, f"environment {key} of a program without it")
    check(env.get("NOTIFY_SOCKET") != "/run/elsewhere", "another manager's NOTIFY_SOCKET passed on")
    equal(environment_of(second).get("INDEX"), "01", "INDEX of web:1")
    # What is not set is as baton found it; its own raised limit of descriptors is its own.
    plain = one.worker("plain:0")["pid"]
    status = proc_status(plain)
    equal(status["Uid"], ["0"] * 4, "Uid of plain")
    equal(status["NoNewPrivs"], ["0"], "NoNewPrivs of plain")
    with open(f"/proc/{plain}/limits", encoding="ascii") as f, \
            open("/proc/self/limits", encoding="ascii") as own:
        line, mine = ([x for x in g if x.startswith("Max open files")][0] for g in (f, own))
        equal(line, mine, "limit of descriptors of plain")
    for name in ("SigIgn", "SigBlk", "SigCgt"):
        equal(int(status[name][0], 16), 0, f"{name} of a fresh worker")
    # Descriptors: 0 to 2 and the channel, nothing of the supervisor's.
    equal(sorted(map(int, os.listdir(f"/proc/{plain}/fd"))), [0, 1, 2, 3], "descriptors of plain")
    equal(os.readlink(f"/proc/{plain}/fd/0"), "/dev/null", "standard input")
    equal(os.getsid(plain), plain, "session of plain")


# --- deaths ------------------------------------------------------------------------------------
@test("deaths are explained: the signal by name, the status, how long it lived")
def _():
    one = Instance(f"""
        [DEFAULT]
        startsecs = 0
        autorestart = no
        [program:signal]
        command = sleep 1000
        [program:status]
        command = {GATE}
        [baton]
    """, start=False)
    gates(one, "status")
    one.start()
    one.wait_for("ready=signal")
    one.wait_for("ready=status")
    pid = one.worker("signal:0")["pid"]
    with one.events() as events:
        os.kill(pid, signal.SIGSEGV)
        line = events.wait("worker.died", worker="signal:0")
        equal((line["pid"], line["signal"]), (pid, 11), "event (pid, signal)")
        through(one, "status", 42)
        line = events.wait("worker.died", worker="status:0")
        equal(line["status"], 42, "event status")
        events.wait("worker.exited", worker="status:0")
    line = one.wait_log(r"event=worker.died.*signal:0").string
    check(re.search(rf"signal:0 \(pid {pid}\) was killed by SIGSEGV after [\d.]+ m?s", line), line)
    one.wait_log(r"status:0 \(pid \d+\) exited with status 42 after")
    text = one.cli("status", status=0).out
    check(re.search(r"signal:0 .*(SIGSEGV|signal 11)", text), f"status says: {text}")
    check(re.search(r"status:0 .*(exit|status) 42", text), f"status says: {text}")


def memory_cgroup(limit):
    """A new cgroup with LIMIT bytes of memory, or the test is skipped by name."""
    name = f"baton-test-{os.getpid()}"
    for base, key in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                      ("/sys/fs/cgroup", "memory.max")):
        path = os.path.join(base, name)
        try:
            os.mkdir(path)
        except OSError:
            continue
        try:
            with open(os.path.join(path, key), "w", encoding="ascii") as f:
                f.write(str(limit))
            with contextlib.suppress(OSError):
                with open(os.path.join(path, "memory.swap.max"), "w", encoding="ascii") as f:
                    f.write("0")
            return path
        except OSError:
            os.rmdir(path)
    return skip("no memory cgroup can be made here")


@test("a worker that the kernel killed for memory: out of memory, not only signal 9")
def _():
    path = memory_cgroup(64 * KIB * KIB)
    one = Instance("""
        [baton]
        [program:glutton]
        command = /usr/bin/python3 -c "x = bytearray(200 << 20); print(len(x))"
        startretries = 0
        autostart = no
    """, start=False, prefix=["sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "sh"])
    try:
        one.start()
        with one.events() as events:
            one.call("start", targets=["glutton"])
            events.wait("worker.fatal", 15, worker="glutton:0")
        last = one.worker("glutton:0")["last_exit"]
        equal(last.get("reason"), "out of memory", f"reason in {last}")
        one.wait_log("glutton:0 .*out of memory")
        contains(one.cli("status", status=0).out, "out of memory", "baton status")
        one.stop()
    finally:
        if one.alive:
            one.process.kill()
        wait_until(lambda: not open(f"{path}/cgroup.procs", encoding="ascii").read(), 5,
                   "an empty cgroup")
        os.rmdir(path)


# --- trees -------------------------------------------------------------------------------------
FAMILY = r"""
    #!/usr/bin/python3
    # A leader, a child, a child in a process group of its own, a twice forked one; all deaf to TERM
    # but the leader, which takes it as told.
    import os, signal, sys, time
    pids = open(sys.argv[1], "a")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def note():
        pids.write(f"{os.getpid()}\n")
        pids.flush()
    def live():
        note()
        while True:
            signal.pause()
    if os.fork() == 0:
        live()
    if os.fork() == 0:
        os.setpgid(0, 0)
        live()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setpgid(0, 0)
            live()
        os._exit(0)
    os.wait()
    if sys.argv[2] == "takes":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    live()
"""


@test("native: a stop and a death take the whole tree along, also what is deaf and twice forked")
def _():
    one = Instance("""
        [baton]
        [program:stopped]
        command = %(here)s/family %(here)s/stopped.pids takes
        startsecs = 0
        stopwaitsecs = 1s
        [program:died]
        command = %(here)s/family %(here)s/died.pids takes
        stopwaitsecs = 1s
        startsecs = 0
    """, start=False)
    script(one, "family", FAMILY)
    one.start()
    pids = read_pids(one.path("stopped.pids"), 4)
    one.call("stop", targets=["stopped"], wait=True)
    equal([p for p in pids if not gone(p)], [], "left of the stopped tree when stop answered")
    pids = read_pids(one.path("died.pids"), 4)
    leader = one.worker("died:0")["pid"]
    check(leader in pids, f"leader {leader} in {pids}")
    with one.events() as events:
        os.kill(leader, signal.SIGKILL)
        events.wait("worker.running", worker="died:0")
        equal([p for p in pids if not gone(p)], [], "left of the dead tree when it runs again")


@test("compatibility: stopasgroup and killasgroup as written, and nothing beyond them")
def _():
    one = Instance("""
        [supervisord]
        [program:leader]
        command = %(here)s/group %(here)s/leader
        startsecs = 0
        stdout_logfile = NONE
        stderr_logfile = NONE
        [program:asgroup]
        command = %(here)s/group %(here)s/asgroup
        stopasgroup = true
        startsecs = 0
        stdout_logfile = NONE
        stderr_logfile = NONE
        [program:killed]
        command = %(here)s/group %(here)s/killed deaf
        killasgroup = true
        stopwaitsecs = 1
        startsecs = 0
        stdout_logfile = NONE
        stderr_logfile = NONE
    """, start=False)
    script(one, "group", r"""
        #!/usr/bin/python3
        import os, signal, sys
        file, deaf = open(sys.argv[1], "a"), len(sys.argv) > 2
        def term(*_):
            if not deaf:
                os._exit(0)
        signal.signal(signal.SIGTERM, term)
        os.fork()
        file.write(f"{os.getpid()}\n")
        file.flush()
        while True:
            signal.pause()
    """)
    one.start()
    pids = {name: read_pids(one.path(name), 2) for name in ("leader", "asgroup", "killed")}
    one.call("stop", targets=["asgroup"], wait=True)
    wait_until(lambda: all(map(gone, pids["asgroup"])), 5, f"TERM for all of {pids['asgroup']}")
    leader = one.worker("leader:0")["pid"]
    one.call("stop", targets=["leader"], wait=True)
    child = [p for p in pids["leader"] if p != leader][0]
    check(not gone(child), f"the child {child} of a program without stopasgroup was killed as well")
    began = time.monotonic()
    one.call("stop", targets=["killed"], wait=True)
    between(time.monotonic() - began, 0.9, 3, "seconds of a stop with stopwaitsecs = 1")
    wait_until(lambda: all(map(gone, pids["killed"])), 5, f"KILL for all of {pids['killed']}")
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: state_of(child) is None, 5, "the orphan reaped")

# Starts ARGUMENTS twice forked, in a session of its own, and has its pid in a file before it ends.
HIDE = r"""
    #!/usr/bin/python3
    import os, sys
    told, teller = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            with open(sys.argv[1], "a") as f:
                f.write(f"{os.getpid()}\n")
            os.write(teller, b"x")
            os.execvp(sys.argv[2], sys.argv[2:])
        os._exit(0)
    os.wait()
    os.close(teller)
    os.read(told, 1)
"""


@test("a session of its own and no parents: ends with its worker, and at the latest with baton")
def _():
    one = Instance("""
        [baton]
        [program:both]
        command = sh -c "%(here)s/hide %(here)s/both sleep 1000; exec sleep 1000"
        startsecs = 0
        [program:deaf]
        command = sh -c "trap '' TERM; %(here)s/hide %(here)s/deaf sleep 1000; trap - TERM; exec sleep 1000"
        startsecs = 0
        stopwaitsecs = 300ms
        [program:kept]
        command = sh -c "env -i %(here)s/hide %(here)s/kept sleep 1000; exec sleep 1000"
        startsecs = 0
    """, start=False)
    script(one, "hide", HIDE)
    one.start()
    both, deaf, kept = (read_pids(one.path(name), 1)[0] for name in ("both", "deaf", "kept"))
    one.call("stop", targets=["deaf"], wait=True)
    check(gone(deaf), "it was deaf to TERM and is left when stop answers")
    check(not gone(both), "another worker's was killed")
    one.call("restart", targets=["both"], wait=True)
    check(gone(both), "left when restart answers")
    both = read_pids(one.path("both"), 2)[1]
    one.call("stop", targets=["kept"], wait=True)
    check(not gone(kept), "nothing tells whose it is, yet it was killed")
    one.wait_log(f"pid {kept} .* belongs to no worker")
    one.stop()
    check(gone(both) and gone(kept), f"alive after baton: {both} {gone(both)}, {kept} {gone(kept)}")
    one._reader.join(5)
    one.wait_log(rf"pid {kept} .*killed")


@test("compatibility: what escaped is left alone, also at the end, as supervisord does")
def _():
    one = Instance("""
        [supervisord]
        [program:both]
        command = sh -c "%(here)s/hide %(here)s/both sleep 1000; exec sleep 1000"
        startsecs = 0
        stdout_logfile = NONE
        stderr_logfile = NONE
    """, start=False)
    script(one, "hide", HIDE)
    one.start()
    both = read_pids(one.path("both"), 1)[0]
    one.stop()
    check(not gone(both), "it was killed")
    os.kill(both, signal.SIGKILL)


@test("a program that goes to the background: told with its pid, once, and ended")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/hide %(here)s/web sleep 1000
        startretries = 1
        restart_backoff = 10ms
        [program:task]
        command = sh -c "exit 0"
        startretries = 0
    """, start=False)
    script(one, "hide", HIDE)
    one.start()
    first, second = read_pids(one.path("web"), 2)
    one.wait_log("web:0 exited with status 0.*given up after 2 starts")
    check(gone(first) and gone(second), "it runs on")
    told = re.findall(r"web:0 went to the background \(pid (\d+) is left\): baton supervises what "
                      r"it starts; keep it in the foreground \(for example --no-daemon\)", one.log())
    equal(told, [str(first)], "what is told")
    check("web:0 exited with status 0 before startsecs" not in one.log(), "that is not the way out")
    contains(one.log(), f"web:0 exited with status 0 and left pid {second} in the background",
             "the reason of the failed start")
    one.wait_log(r"task:0 exited with status 0 before startsecs \(a task that")


@test("a new version that goes to the background on the socket: nothing of it is left")
def _():
    one = Instance("""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        command = %(here)s/web
        sockets = http
        workers = 2
        restart_backoff = 10ms
    """, start=False)
    script(one, "hide", HIDE)
    script(one, "web", "#!/bin/sh\nexec sleep 1000\n")
    one.start()
    one.wait_for("ready=web")
    old = {w["name"]: w["pid"] for w in one.workers("web")}
    script(one, "web.new", f"#!/bin/sh\nexec {one.path('hide')} {one.path('v2')} sleep 1000\n")
    os.rename(one.path("web.new"), one.path("web"))
    r = one.cli("reload", status=1)
    contains(r.err + r.out, "in the background", "the reason")
    equal({w["name"]: w["pid"] for w in one.workers("web")}, old, "the old ones")
    equal([p for p in read_pids(one.path("v2"), 1) if not gone(p)], [], "alive of the new version")


@test("root that may not look into others (as in a container) finds what another user's worker has hidden")
def _():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    need("setpriv")
    where = folder()
    os.chmod(where, 0o777)
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c "%(here)s/hide %(here)s/web sleep 1000; exec sleep 1000"
        user = nobody
        startsecs = 0
    """, start=False, folder=where, prefix=["setpriv", "--bounding-set",
                                                      "-sys_ptrace,-perfmon,-sys_admin"])
    script(one, "hide", HIDE)
    one.start()
    hidden = read_pids(one.path("web"), 1)[0]
    one.call("restart", targets=["web"], wait=True)
    check(gone(hidden), "left when restart answers")
    check("belongs to no worker" not in one.log(), "told of what was killed")
    hidden = read_pids(one.path("web"), 2)[1]
    one.kill()
    wait_until(lambda: gone(hidden), 5, "the deadman")


@test("what a readiness command leaves behind ends with it, also in a session of its own")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c "%(here)s/hide %(here)s/own sleep 1000; exec sleep 1000"
        ready = exec:%(here)s/probe
    """, start=False)
    script(one, "hide", HIDE)
    script(one, "probe", f"#!/bin/sh\n{one.path('hide')} {one.path('left')} sleep 1000\n"
           f"[ $(wc -l < {one.path('left')}) -ge 2 ]\n")
    one.start()
    one.wait_for("ready=web", 20)
    left = read_pids(one.path("left"), 2)
    wait_until(lambda: all(map(gone, left)), 5, f"the end of {left}")
    check(not gone(read_pids(one.path("own"), 1)[0]), "the worker's own was killed with them")


@test("kill -9 of the supervisor: the deadman finds what escaped, and spares what is to be kept")
def _():
    ini = """
        [baton]
        on_supervisor_death = {}
        [scheduler]
        ttl = 5s
        heartbeat = 1s
        kill_grace = 500ms
        [program:web]
        command = sh -c "%(here)s/hide %(here)s/web sleep 1000; exec sleep 1000"
        startsecs = 0
        [program:boss]
        command = sh -c "%(here)s/hide %(here)s/boss sleep 1000; exec sleep 1000"
        startsecs = 0
        executor = candidate
        promote_timeout = 100s
    """
    for rule in ("kill", "keep"):
        one = Instance(ini.format(rule), start=False)
        script(one, "hide", HIDE)
        one.start()
        one.wait_for("executor")
        web, boss = (read_pids(one.path(name), 1)[0] for name in ("web", "boss"))
        worker = one.worker("web:0")["pid"]
        one.kill()
        wait_until(lambda: gone(boss), 5, "the end of the executor's")
        if rule == "kill":
            wait_until(lambda: gone(web), 5, "the end of the other's")
            continue
        wait_until(lambda: not helpers(), 5, "the end of the deadman")
        check(not gone(web) and not gone(worker), "on_supervisor_death = keep")
        for pid in (web, worker):
            os.kill(pid, signal.SIGKILL)


@test("a worker deaf to TERM is killed after stopwaitsecs, and the log says why")
def _():
    one = Instance("""
        [baton]
        [program:deaf]
        command = %(here)s/deaf
        startsecs = 0
        ready = notify
        stopwaitsecs = 600ms
        [program:other]
        command = sleep 1000
        stopsignal = INT
        startsecs = 0
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
    one.wait_for("ready=deaf")
    began, mark = time.monotonic(), one.mark()
    one.call("stop", targets=["deaf"], wait=True)
    between(time.monotonic() - began, 0.6, 2, "seconds of a stop with stopwaitsecs = 600ms")
    equal(one.worker("deaf:0")["last_exit"].get("signal"), 9, "signal that ended it")
    line = one.wait_log(r"deaf:0.*(SIGTERM|stopwaitsecs).*", 2, since=mark).string
    contains(line, "kill", f"the log says that it was killed")
    one.call("stop", targets=["other"], wait=True)
    equal(one.worker("other:0")["last_exit"].get("signal"), 2, "stopsignal = INT")


# --- many, order -------------------------------------------------------------------------------
@test("20 workers that take 300 ms to stop are stopped side by side")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/slow
        workers = 20
        startsecs = 300ms
    """, start=False)
    script(one, "slow", "#!/bin/sh\ntrap 'sleep 0.3; exit 0' TERM\n"
           "while :; do sleep 1000 & wait $!; done\n")
    one.start()
    one.wait_for("ready=web")
    began = time.monotonic()
    one.stop()
    between(time.monotonic() - began, 0.3, 3, "seconds to stop 20 workers of 300 ms")


@test("priorities: started from low to high, stopped from high to low, level by level")
def _():
    one = Instance("""
        [DEFAULT]
        command = %(here)s/slow
        startsecs = 0
        [program:third]
        priority = 30
        [program:first]
        priority = 10
        workers = 2
        [program:second]
        priority = 20
        [baton]
        loglevel = debug
    """, start=False)
    script(one, "slow", "#!/bin/sh\ntrap 'sleep 0.1; exit 0' TERM\n"
           "sleep 1000 & wait $!\n")
    one.start()
    for name in ("first", "second", "third"):
        one.wait_for(f"ready={name}")
    started = re.findall(r"event=worker\.starting .*worker=(\S+)", one.log())
    equal(started, ["first:0", "first:1", "second:0", "third:0"], "order of the starts")
    # The trap is set some time after exec: the stop must find it.
    wait_until(lambda: all(int(proc_status(w["pid"])["SigCgt"][0], 16) & (1 << 14)
                           for p in one.status()["programs"] for w in p["workers"]), 5, "traps")
    mark = one.mark()
    one.stop()
    one._reader.join(5)
    order = re.findall(r"event=worker\.(stopping|stopped) .*worker=([a-z]+):\d",
                       "\n".join(one.lines[mark:]))
    at = {(what, name): [i for i, x in enumerate(order) if x == (what, name)]
          for what in ("stopping", "stopped") for name in ("first", "second", "third")}
    check(all(at.values()), f"order {order}")
    check(max(at["stopped", "third"]) < min(at["stopping", "second"]), f"third first: {order}")
    check(max(at["stopped", "second"]) < min(at["stopping", "first"]), f"second then: {order}")
    check(max(at["stopping", "first"]) < min(at["stopped", "first"]), f"both of first: {order}")


@test("depends_on: ready, :started, :done; what waits says so; stopped before what it needs")
def _():
    one = Instance(f"""
        [DEFAULT]
        startsecs = 0
        [program:web]
        command = sleep 1000
        depends_on = db, migrate:done, cache:started
        [program:db]
        command = sleep 1000
        startsecs = 400ms
        [program:migrate]
        command = {GATE}
        autorestart = no
        [program:cache]
        command = sleep 1000
        startsecs = 100s
        [program:broken]
        command = {GATE}
        autorestart = no
        [program:blocked]
        command = sleep 1000
        depends_on = broken:done
        [baton]
        loglevel = debug
    """, start=False)
    gates(one, "migrate", "broken")
    one.start()
    one.wait_for("ready=db")
    web = one.program("web")
    equal((web["state"], web["workers"][0]["state"]), ("waiting", "stopped"),
          "web before migrate is done (program, worker)")
    one.wait_log("web: waits for")
    through(one, "migrate", 0)
    one.wait_for("ready=web")
    log = one.log()
    check(log.index("db:0 is running") < log.index("web:0 starts"), "web started before db was ready")
    check(log.index("worker=migrate:0", log.index("worker.exited")) < log.index("web:0 starts"),
          "web started before migrate was done")
    equal(one.worker("cache:0")["state"], "starting", "cache")
    with one.events() as events:
        through(one, "broken", 1)
        events.wait("worker.exited", worker="broken:0")
    equal(one.program("blocked")["state"], "waiting", "blocked behind a migration that failed")
    mark = one.mark()
    one.stop()
    one._reader.join(5)
    log = "\n".join(one.lines[mark:])
    check(log.index("web:0 is stopped") < log.index("db:0 is stopping"),
          f"db was stopped before web, which needs it:\n{log}")


@test("on_fatal = exit ends baton with 70, on_exit = exit with 0; the others are stopped properly")
def _():
    where = folder()
    one = Instance("""
        [program:vital]
        command = sh -c "exit 1"
        startretries = 1
        on_fatal = exit
        [program:other]
        command = sleep 1000
        startsecs = 0
    """, folder=where, name="one", start=False)
    two = Instance(f"""
        [program:task]
        command = {GATE}
        autorestart = no
        startsecs = 0
        on_exit = exit
        [program:other]
        command = sleep 1000
        startsecs = 0
    """, folder=where, name="two", start=False)
    gates(two, "task")
    one.start(wait=False)
    two.start()
    equal(one.wait_end(), 70, "exit status with on_fatal = exit")
    one.wait_log("on_fatal = exit")
    one.wait_log("other:0 is stopped")
    through(two, "task", 0)
    equal(two.wait_end(), 0, "exit status with on_exit = exit")
    two.wait_log("on_exit = exit")


# --- reaping -----------------------------------------------------------------------------------
ORPHANS = r"""
    #!/usr/bin/python3
    # Leaves COUNT orphans in sessions of their own that end at once, then lives.
    import os, signal, sys
    for _ in range(int(sys.argv[2])):
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                os.close(0)
                with open(sys.argv[1], "a") as f:
                    f.write(f"{os.getpid()}\n")
                os._exit(0)
            os._exit(0)
        os.wait()
    while True:
        signal.pause()
"""


def zombies_below(pid):
    return [p for p in children_of(pid) if state_of(p) == "Z"]


@test("orphans are reaped: as subreaper")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/leave %(here)s/orphans 20
        startsecs = 0
    """, start=False)
    script(one, "leave", ORPHANS)
    one.start()
    read_pids(one.path("orphans"), 20)
    wait_until(lambda: not zombies_below(one.pid), 5, "no zombie below the supervisor")
    equal(one.worker("web:0")["restarts"], 0, "restarts of the worker that left orphans")


@test("orphans are reaped: as PID 1, where TERM stops and a fatal program ends with 70")
def _():
    unshare = need("unshare")
    namespace = [unshare, "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        skip("no PID namespace can be made here")
    where = folder()
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/leave %(here)s/orphans 20
        startsecs = 0
    """, folder=where, start=False, prefix=namespace)
    script(one, "leave", ORPHANS)
    one.start()
    first = children_of(one.pid)[0]
    equal(one.status()["instance"]["pid"], 1, "its pid in its own eyes")
    read_pids(one.path("orphans"), 20)
    wait_until(lambda: not zombies_below(first), 5, "no zombie below PID 1")
    equal(one.worker("web:0")["restarts"], 0, "restarts of the worker that left orphans")
    os.kill(first, signal.SIGTERM)
    equal(one.wait_end(), 0, "exit status after SIGTERM to PID 1")
    two = Instance("""
        [baton]
        [program:web]
        command = sh -c "exit 1"
        startretries = 0
    """, folder=where, name="two", prefix=namespace, wait=False)
    equal(two.wait_end(), 70, "exit status of PID 1 with a fatal program (on_fatal = exit there)")


if __name__ == "__main__":
    main()

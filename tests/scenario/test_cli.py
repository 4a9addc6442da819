#!/usr/bin/python3
"""The command line: usage, exit statuses, what it says, with no instance and with one."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

COMMANDS = ["run", "check", "status", "start", "stop", "restart", "reload", "scale", "signal",
            "shutdown", "upgrade", "handoff", "lock", "jobs", "wait", "events", "is-executor",
            "version", "help"]
LATER = ["enable", "disable", "logs", "top", "exec"]
CANDIDATES = """
    [scheduler]
    ttl = 3s
    heartbeat = 500ms
    kill_grace = 500ms
    handoff_timeout = 300ms
    [program:web]
    command = sleep 1000
    workers = 2
    startsecs = 0
    executor = candidate
    promote = notify
    promote_unanswered = keep
    [program:other]
    command = sleep 1000
    startsecs = 0
"""


def fails(status, pattern, *arguments, **keywords):
    """`baton ARGUMENTS` ends with STATUS, says PATTERN on standard error, nothing on the other."""
    r = baton(*arguments, status=status, **keywords)
    check(re.search(pattern, r.err), f"baton {' '.join(arguments)}: no {pattern!r} in {r.err!r}")
    equal(r.out, "", f"standard output of baton {' '.join(arguments)}")
    for line in r.err.splitlines()[:1]:
        check(line.startswith("baton: ") or line.startswith("/"), f"form of {line!r}")
    return r


@test("help fits 80 columns, lists what works, and what does not yet as such")
def _():
    for arguments in (["help"], ["-h"], ["--help"]):
        text = baton(*arguments, status=0).out
        listed = re.findall(r"^  ([a-z-]+)  ", text, re.M)
        equal(listed, COMMANDS, "commands of the overview")
        later = re.search(r"^Not yet: (.*)$", text, re.M)[1].split()
        equal(later, LATER, "commands not built yet")
    for command in COMMANDS:
        for arguments in ([command, "--help"], ["help", command], ["-h", command]):
            text = baton(*arguments, status=0).out
            check(text.startswith(f"Usage: baton {command}"), f"{arguments}: {text[:60]!r}")
            wide = [line for line in text.splitlines() if len(line) > 80]
            equal(wide, [], f"lines of {arguments} beyond 80 columns")


@test("what is not built yet says so")
def _():
    for command in LATER:
        fails(2, f"^baton: {command}: not supported yet$", command)
        fails(2, "not supported yet", "help", command)
    fails(2, "exec: not supported yet", "exec", "--database", "x", "--", "ls", "-l")
    fails(2, "logs: not supported yet", "logs", "-f", "web")


@test("usage errors end with 2 and say what to do")
def _():
    fails(2, "did you mean 'status'", "stauts")
    fails(2, "did you mean 'status'", "stat")
    fails(2, "did you mean 'is-executor'", "is-executer")
    check("did you mean" not in fails(2, "no such command", "xyzzy").err, "a guess for nothing")
    fails(2, "unknown option '--frobnicate'", "status", "--frobnicate")
    fails(2, "unknown option '-z'", "status", "-z")
    fails(2, "unknown option '--jsn'; did you mean '--json'?", "status", "--jsn")
    fails(2, "unknown option '--colour'\n", "status", "--colour")
    fails(2, "option '-c' needs a value", "status", "-c")
    fails(2, "--json does not apply", "start", "--json", "web")
    fails(2, "something is missing: baton start NAME...", "start")
    fails(2, "something is missing: baton signal SIGNAL NAME...", "signal", "HUP")
    fails(2, "something is missing", "lock")
    fails(2, "none of info, history, release", "lock", "steal")
    fails(2, "--force does not apply", "lock", "info", "--force")
    fails(2, "unexpected 'web'", "run", "web")
    fails(2, "unexpected 'x'", "events", "x")
    fails(2, "not a number of workers", "scale", "web", "many")
    fails(2, "SIGNAL|not a signal", "signal", "FOO", "web")
    fails(2, "--for CONDITION is missing", "wait")
    fails(2, "not a duration", "wait", "--for", "executor", "--timeout", "soon")
    fails(2, "'web:0' is in the way", "handoff", "--away", "web:0")


@test("no instance: exit 3, the socket that was tried, the command to start one")
def _():
    where = folder()
    file = os.path.join(where, "x.ini")
    with open(file, "w", encoding="ascii") as f:
        f.write("[program:a]\ncommand = sleep 1\n")
    sock = os.path.join(where, "x.sock")
    for command in (["status"], ["start", "a"], ["stop", "a"], ["restart", "all"], ["reload"],
                    ["scale", "a", "-1"], ["signal", "HUP", "a"], ["shutdown"], ["handoff"],
                    ["wait", "--for", "executor"], ["events"]):
        for arguments in ([*command, "-c", file, "-s", sock], ["-s", sock, *command, "-c", file],
                          ["-c", file, "-s", sock, *command]):
            r = fails(3, "not running: no instance listens on '" + re.escape(sock), *arguments)
            check(f"baton run -c {file}" in r.err, f"hint in {r.err!r}")
        # With a broken file the socket is still known.
    with open(file, "a", encoding="ascii") as f:
        f.write("[program:a]\nfrobnicate = 1\n[nonsense]\nx\n")
    r = fails(3, "not running", "status", "-c", file)
    check(".sock'" in r.err, f"path of the default socket in {r.err!r}")
    fails(3, "neither ./baton.ini nor /etc", "status", cwd=where)
    fails(3, "too long|not running", "status", "-s", "/" + "x" * 60 + "/y.sock")
    fails(1, "too long", "status", "-s", "/" + "x" * 300)


@test("control or user changed since the start: the instance is found, no second one starts")
def _():
    where = folder()
    env = {"RUNTIME_DIRECTORY": where}
    text = "[baton]\n{}\n[program:a]\ncommand = sleep 1000\nstartsecs = 0\n"
    one = Instance(text.format("pidfile = %(here)s/one.pid"), env=env, start=False)
    one.arguments, one.socket = [], one.path("other.sock")
    process = subprocess.Popen([BATON, "run", "-c", one.config], env={**os.environ, **env},
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: baton("status", "-c", one.config, env=env).status == 0, 10, "an answer")
        # Not the pidfile: its lock alone would refuse the second.
        one.write(text.format("control = %(here)s/c1.sock"))
        r = baton("status", "-c", one.config, env=env, status=0)
        check(f"pid {process.pid}," in r.out, r.out)
        check(re.search(r"warning: nobody listens on '.*c1\.sock'; asking", r.err), r.err)
        r = baton("reload", "-c", one.config, env=env, status=0)
        check("needs a restart of baton" in r.err + r.out, str(r))
        for detach in ([], ["-d"]):
            fails(1, rf"an instance of this file runs already, pid {process.pid} .*run -s OTHER",
                  "run", *detach, "-c", one.config, env=env)
        if os.geteuid() == 0:       # it is then in the folder of that user
            one.write(text.format("user = nobody"))
            baton("status", "-c", one.config, env={"RUNTIME_DIRECTORY": "/nowhere", "XDG_RUNTIME_DIR":
                  where}, status=0)
        second = Instance(folder=one.folder, ini=text.format("control = %(here)s/c1.sock"))
        second.stop()               # run -s starts a second one on purpose
        # Where neither is a default place only the pidfile tells.
        one.write(text.format("pidfile = %(here)s/one.pid"))
        r = fails(3, "not running", "status", "-c", one.config, env={"RUNTIME_DIRECTORY": folder()})
        check(f"baton runs as pid {process.pid}, by the pidfile" in r.err, r.err)
        check("if control or user was changed since it started: -s SOCKET, or SIGHUP" in r.err, r.err)
    finally:
        process.terminate()
        process.wait()
    r = fails(3, "not running", "status", "-c", one.config, env=env)
    check(f"start one with: baton run -c {one.config}" in r.err, r.err)


@test("a socket that nobody answers, a stranger, a file")
def _():
    path = os.path.join(folder(), "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        fails(3, "not running", "status", "-s", path)       # bound, nobody listens
        listener.listen(5)

        def greet(text):
            connection, _ = listener.accept()
            connection.sendall(text)
            connection.close()

        for text, status, pattern in ((b"220 mail\n", 1, "not JSON"), (b"{}\n", 1, "not baton"),
                                      (b'{"baton":"9","v":9}\n', 1, "version 9"), (b"", 3, ".")):
            thread = threading.Thread(target=greet, args=(text,))
            thread.start()
            fails(status, pattern, "status", "-s", path)
            thread.join()
    os.unlink(path)
    with open(path, "w", encoding="ascii"):
        pass
    fails(3, "not running", "status", "-s", path)


@test("check: errors with file and line, --strict, --dump, --json")
def _():
    where = folder()
    file = os.path.join(where, "x.ini")

    def write(text):
        with open(file, "w", encoding="ascii") as f:
            f.write(textwrap.dedent(text).lstrip("\n"))

    fails(78, "neither ./baton.ini nor /etc", "check", cwd=where)
    fails(78, "no such file|cannot", "check", "-c", os.path.join(where, "none.ini"))
    write("""
        [baton]
        [program:web]
        comand = sleep 1
        workers = many
        [progam:x]
        command = true
    """)
    r = fails(78, r"x\.ini:3: \[program:web\] comand: .*command", "check", "-c", file)
    for line in (4, 5):
        check(f"x.ini:{line}: " in r.err, f"line {line} in {r.err}")
    found = json.loads(baton("check", "--json", "-c", file, status=78).out)
    check(not found["ok"] and {3, 4, 5} <= {f["line"] for f in found["findings"]}, str(found))
    write("""
        [baton]
        [program:web]
        command = sleep 1 | cat
    """)
    r = baton("check", "-c", file, status=0)
    check("warning: " in r.err and r.err.count("\n") == 1, f"one warning in {r.err!r}")
    check("1 program, 1 worker" in r.out, r.out)
    fails(78, "1 error", "check", "--strict", "-c", file)
    dump = json.loads(baton("check", "--dump", "--json", "-c", file, status=0).out)
    equal(dump["program:web"]["command"]["value"], "sleep 1 | cat", "dumped command")
    equal(dump["program:web"]["command"]["default"], False, "default of what is written")
    check("command = sleep 1 | cat" in baton("check", "--dump", "-c", file, status=0).out, "dump")
    baton("check", cwd=where, status=78)
    os.rename(file, os.path.join(where, "baton.ini"))
    baton("check", cwd=where, status=0)


@test("version, and output that cannot be written")
def _():
    text = baton("version", status=0).out
    check(re.match(r"baton \d+\.\d+\.\d+\n", text) and "SQLite 3" in text, text)
    equal(baton("--version", status=0).out, text, "--version")
    equal(json.loads(baton("version", "--json", status=0).out)["version"], text.split()[1],
          "version")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BATON, "help"], stdout=full, stderr=subprocess.PIPE, check=False)
    equal(done.returncode, 1, "exit status with a full disk")
    check(b"cannot write to standard output" in done.stderr, str(done.stderr))


@test("is-executor outside of any worker, and by a page alone")
def _():
    fails(3, "cannot tell", "is-executor")
    fails(3, "cannot tell", "is-executor", env={"BATON_LEASE_FD": "77"})
    fails(3, "cannot tell", "is-executor", env={"BATON_LEASE_FD": "0"})
    fails(3, "cannot tell", "is-executor", env={"BATON_LEASE_FD": "77",
                                                "BATON_CONTROL": "/nonexistent"})
    fd = os.memfd_create("page", 0)
    os.ftruncate(fd, 4096)
    space = os.stat("/proc/self/ns/time").st_ino

    def ask(deadline_ns, *arguments):
        os.pwrite(fd, struct.pack("<IIqQqQQ", 0x4E544142, 1, deadline_ns, 7, 0, space, 0), 0)
        return subprocess.run([BATON, "is-executor", *arguments], pass_fds=(fd,), check=False,
                              env={**os.environ, "BATON_LEASE_FD": str(fd)},
                              stderr=subprocess.DEVNULL, timeout=20).returncode

    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    equal(ask(0), 1, "deadline 0")
    equal(ask(now + 60 * SECOND), 0, "deadline ahead")
    equal(ask(now - SECOND), 1, "deadline passed")
    equal(ask(0, "--wait", "--timeout", "100ms"), 124, "waited in vain")
    os.close(fd)


ASKS = """
import os, subprocess, sys
ask = [sys.argv[1], "is-executor"]
fd = int(os.environ["BATON_LEASE_FD"])
def run(how, *more, **keywords):
    status = subprocess.run(ask + list(more), stderr=subprocess.DEVNULL, **keywords).returncode
    print(f"asked {how}: {status}", flush=True)
run("waiting", "--wait", pass_fds=(fd,))
run("waiting without page", "--wait", close_fds=True)
run("page", pass_fds=(fd,))
run("socket", close_fds=True)
sys.stdin.read()
import signal; signal.pause()
"""


@test("is-executor in a worker's tree: waits for the promotion, by page and by socket")
def _():
    script = os.path.join(folder(), "asks.py")
    with open(script, "w", encoding="ascii") as f:
        f.write(ASKS)
    one = Instance(f"""
        [scheduler]
        ttl = 3s
        heartbeat = 500ms
        kill_grace = 500ms
        handoff_timeout = 300ms
        [program:web]
        command = {PYTHON} {script} {BATON}
        workers = 2
        startsecs = 0
        executor = candidate
    """)
    for how in ("waiting", "waiting without page", "page", "socket"):
        one.wait_log(rf"web:\d \| asked {how}: 0", 10)
    first = one.executor()
    other = "web:1" if first["worker"] == "web:0" else "web:0"
    since = one.mark()
    os.kill(first["pid"], signal.SIGKILL)
    for how in ("waiting", "waiting without page", "page", "socket"):
        one.wait_log(rf"{other} \| asked {how}: 0", 10, since)
    one.stop()


@test("lock info and history with no instance and no database")
def _():
    one = Instance(CANDIDATES, start=False)
    database = one.path("baton.db")
    info = json.loads(baton("lock", "info", "--json", "-c", one.config, status=0).out)
    equal((info["exists"], info["holder"]), (False, None), "no database")
    check("no instance has run yet" in info["next"], info["next"])
    check("no database yet" in baton("lock", "info", "-c", one.config, status=0).out, "state")
    equal(json.loads(baton("lock", "history", "--json", "-c", one.config, status=0).out), [],
          "history")
    baton("lock", "release", "--force", "-c", one.config, status=0)
    equal(sorted(os.listdir(one.folder)), ["one.ini"], f"files made by looking ({database})")
    one.write("[program:a]\ncommand = true\n")
    fails(1, "there is no lock", "lock", "info", "-c", one.config)


@test("status in all forms, of a running instance")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("executor", 10)
    one.wait_for("ready=other", 10)
    document = json.loads(one.cli("status", "--json", status=0).out)
    equal([p["name"] for p in document["programs"]], ["web", "other"], "programs")
    equal(document["instance"]["pid"], one.pid, "pid")
    equal(document["lock"]["role"], "holder", "role")
    text = one.cli("status", status=0).out
    check("\033" not in text, "colours in a pipe")
    for word in ("web:0", "web:1", "other:0", "executing", "holder"):
        check(word in text, f"{word} in\n{text}")
    narrow = one.cli("status", "web:1", status=0).out
    check("web:1" in narrow and "other" not in narrow, narrow)
    one.cli("status", "other", status=0)
    check("no such program or worker" in one.cli("status", "wbe", status=1).err, "unknown name")
    equal(one.cli("status", "--health", status=0).out, "healthy\n", "health")
    one.cli("stop", "other", status=0)
    one.cli("start", "other", status=0)
    one.stop()


@test("status --watch draws again on a change and only then")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("ready=web", 10)
    one.wait_for("ready=other", 10)
    watch = subprocess.Popen([BATON, "status", "--watch", "--json", "-s", one.socket],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        def state(line):
            return {w["name"]: w["state"] for p in json.loads(line)["programs"]
                    for w in p["workers"]}
        equal(state(watch.stdout.readline())["other:0"], "running", "first picture")
        one.cli("stop", "other", status=0)
        limit = deadline(10, "the picture with it stopped")
        while state(watch.stdout.readline())["other:0"] != "stopped":
            limit.left()
        one.stop()
        watch.stdout.read()
        equal(watch.wait(10), 3, "exit status at the end of the instance")
    finally:
        watch.kill()
        watch.wait()


@test("start, stop, restart, signal, scale, and their mistakes")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("ready=web", 10)
    pid = one.worker("other:0")["pid"]
    check("other:0" in one.cli("restart", "other", status=0).out, "what was restarted")
    check(one.worker("other:0")["pid"] != pid, "another process")
    one.cli("stop", "other:0", status=0)
    equal(one.worker("other:0")["state"], "stopped", "state")
    one.cli("start", "all", status=0)
    equal(one.worker("other:0")["state"], "running", "state")
    one.cli("signal", "CONT", "web:0", "other", status=0)
    check("2 -> 3" in one.cli("scale", "web", "+1", status=0).out, "scale +1")
    check("3 -> 1" in one.cli("scale", "web", "1", status=0).out, "scale 1")
    for command in (["start", "nobody"], ["stop", "web:7"], ["signal", "HUP", "nobody"],
                    ["scale", "nobody", "2"]):
        one.cli(*command, status=1)
    one.stop()


@test("wait: holds at once, later, never; a condition that is none")
def _():
    one = Instance(CANDIDATES)
    one.cli("wait", "--for", "executor", "--timeout", "10s", status=0)
    row = one.executor()
    begin = time.monotonic()
    one.cli("wait", "--for", f"executor!={row['pid']}", "--timeout", "300ms", status=124)
    check(0.25 < time.monotonic() - begin < 5, "waited for its time")
    one.cli("wait", "--for", "role=holder", "--timeout", "5s", status=0)
    one.cli("wait", "--for", "colour=blue", "--timeout", "5s", status=2)
    waiting = subprocess.Popen([BATON, "wait", "--for", f"executor!={row['pid']}", "-s",
                                one.socket, "--timeout", "20s"])
    os.kill(row["pid"], signal.SIGKILL)
    equal(waiting.wait(20), 0, "exit status after the takeover")
    one.stop()


@test("handoff, lock info and history, release; then with no instance")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("executor", 10)
    one.wait_for("ready=web", 10)
    first = one.executor()
    info = json.loads(one.cli("lock", "info", "--json", status=0).out)
    equal((info["state"], info["holder"]["pid"], info["holder"]["life"]),
          ("held", one.pid, "alive"), "lock info")
    equal(info["executors"][0]["worker"], first["worker"], "executor in the row")
    text = one.cli("lock", "info", status=0).out
    check(f"pid {one.pid}" in text and "handoff --away" in text, text)
    r = baton("lock", "release", "--force", "-c", one.config, "-s", one.path("none.sock"))
    equal(r.status, 4, f"release beside a living holder: {r.out}{r.err}")
    check("the holder is alive" in r.err, r.err)
    other = "web:1" if first["worker"] == "web:0" else "web:0"
    r = one.cli("handoff", other, status=0)
    check(f"{first['worker']} -> {other}" in r.out, r.out)
    history = json.loads(one.cli("lock", "history", "--json", status=0).out)
    terms = [h["term"] for h in history]
    equal(terms, sorted(terms, reverse=True), "terms, newest first")
    equal(len(json.loads(one.cli("lock", "history", "-n", "1", "--json", status=0).out)), 1,
          "lines with -n 1")
    one.stop()
    info = json.loads(baton("lock", "info", "--json", "-c", one.config, status=0).out)
    equal((info["state"], info["holder"]), ("free", None), "after the end")
    check(info["term"] >= terms[0], "the term stays")
    check("it is free" in baton("lock", "info", "-c", one.config, status=0).out, "text")
    check("is free already" in baton("lock", "release", "--force", "-c", one.config,
                                     status=0).out, "release of a free lock")


@test("lock release --force: a dead holder at once, a silent row after its ttl")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("executor", 10)
    one.kill()

    def life():
        return json.loads(baton("lock", "info", "--json", "-c", one.config,
                                status=0).out)["holder"]["life"]

    wait_until(lambda: life() == "dead", 10, "the deadman's mark")
    r = baton("lock", "release", "--force", "-c", one.config, status=0)
    check("the holder is dead" in r.out and "released" in r.out, r.out)
    equal(lock_row(one.path("baton.db"))["state"], 0, "state of the row")
    two = Instance(CANDIDATES, name="two", folder=one.folder)
    two.wait_for("executor", 10)
    # Supervisor and deadman together: no proof.
    both = [two.pid, *helpers("lock-deadman", of=two.pid)]
    equal(len(both), 2, "supervisor and deadman")
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in both:
            os.kill(pid, number)
    two.wait_end()
    wait_until(lambda: life() != "alive", 10, "the guard's byte")
    equal(life(), "gone", "life of the holder")
    begin = time.monotonic()
    r = baton("lock", "release", "--force", "-c", one.config, status=0)
    check(time.monotonic() - begin >= 3, f"freed after {time.monotonic() - begin} s of a ttl of 3")
    check("watching the row for 3s" in r.out, r.out)
    for pid in marked_processes():                  # what nobody was left to kill
        os.kill(pid, signal.SIGKILL)


@test("reload: the plan; a bad file changes nothing (78)")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("ready=other", 10)
    one.write(CANDIDATES + "    [program:third]\n    command = sleep 1000\n    startsecs = 0\n")
    check("third" in one.cli("reload", status=0).out, "plan")
    one.wait_for("ready=third", 10)
    one.write("[program:web]\nworkers = none\n")
    r = one.cli("reload", status=78)
    check("one.ini:" in r.err, f"place of the error in {r.err}")
    equal([p["name"] for p in one.status()["programs"]], ["web", "other", "third"], "programs")
    one.stop()


@test("shutdown waits and says for what; events end with the instance")
def _():
    one = Instance(CANDIDATES)
    one.wait_for("executor", 10)
    stream = subprocess.Popen([BATON, "events", "-s", one.socket], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    try:
        one.cli("restart", "other", status=0)
        line = json.loads(stream.stdout.readline())
        check("event" in line and "time" in line, str(line))
        r = one.cli("shutdown", status=0)
        check(r.out.endswith("ended\n"), r.out)
        equal(one.wait_end(), 0, "exit status of the instance")
        rest = [json.loads(s) for s in stream.stdout.read().splitlines()]
        check(rest, "events of the shutdown")
        equal(stream.wait(10), 3, "exit status of events")
    finally:
        stream.kill()
        stream.wait()
    one.cli("status", status=3)


@test("the file has an error by now: its control socket and its pidfile are found all the same")
def _():
    one = Instance("""
        [baton]
        control = %(here)s/its.sock
        pidfile = %(here)s/its.pid
        [program:web]
        command = sleep 1000
    """, start=False)
    one.socket = one.path("its.sock")
    one.start()
    with open(one.config, "a", encoding="utf-8") as f:
        f.write("commnad = sleep 1\n[socket:x]\nnothing\n")
    check(f"pid {one.pid}" in baton("status", "-c", one.config, status=0).out, "status")
    os.unlink(one.socket)       # it is brought back at heartbeats
    r = baton("status", "-c", one.config, env={"HOME": "/"})
    check(r.status in (0, 3) and (r.status == 0 or f"runs as pid {one.pid}" in r.err), f"{r.status} {r.err}")


QUOTA = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/cpu && "
         'printf %s "$1" >/sys/fs/cgroup/cpu.max && printf %s "$2" >/sys/fs/cgroup/cpu/cpu.cfs_quota_us && '
         'printf 100000 >/sys/fs/cgroup/cpu/cpu.cfs_period_us && shift 2 && exec "$@"', "sh"]


@test("workers = auto: as many as the quota of the control group has CPUs, rounded up, of both versions")
def _():
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        skip("one CPU: a quota makes no difference")
    if not shutil.which("unshare") or subprocess.run(
            [*QUOTA, "max 100000", "-1", "true"], capture_output=True, check=False).returncode != 0:
        skip("no tmpfs can be mounted over /sys/fs/cgroup here")
    path = os.path.join(folder(), "auto.ini")
    with open(path, "w", encoding="ascii") as f:
        f.write("[baton]\n[program:web]\ncommand = sleep 1\nworkers = auto\n")
    for second, first, wanted in (("max 100000", "-1", cpus), ("100000 100000", "-1", 1), ("50000 100000", "-1", 1),
                                  ("110000 100000", "-1", 2), ("max 100000", "100000", 1), ("max 100000", "101000", 2),
                                  ("nonsense", "", cpus)):
        done = subprocess.run([*QUOTA, second, first, BATON, "check", "--dump", "--json", "-c", path],
                              capture_output=True, text=True, check=True)
        equal(json.loads(done.stdout)["program:web"]["workers"]["value"], str(wanted), f"{second}, {first}")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""What chaos has found: versions that mend, counts of `executor = only`, descriptors and processes that
are missing for a while, requests that cross each other."""
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

SCHEDULER = """
    [scheduler]
    ttl = 5s
    heartbeat = 1s
    kill_grace = 500ms
"""


def starts(path):
    with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as f:
        return f.read().count("x")
    return 0


@test("a program that was given up, or has ended, is mended by a reload: the old command does not run again")
def _():
    for surge, workers, command, extra in ((1, 1, "exit 1", "startretries = 0"), (0, 3, "exit 1", "startretries = 0"),
                                           (1, 2, "true", "autorestart = no")):
        where = folder()
        base = f"""
    [baton]
    [program:web]
    command = sh -c "{{}}"
    startsecs = 0.1
    workers = {workers}
    surge = {surge}
    max_unavailable = 1
    {extra}
"""
        if command == "true":
            base = base.replace("startsecs = 0.1", "startsecs = 0")
        old = f"echo x >>{where}/starts; {command}"
        one = Instance(base.format(old), folder=where)
        wait_until(lambda: [w["state"] for w in one.workers("web")] ==
                   ["exited" if command == "true" else "fatal"] * workers, 10)
        before = starts(f"{where}/starts")
        one.write(base.format("exec sleep 1000"))
        one.cli("reload", status=0, timeout=30)
        one.wait_for("ready=web", 10)
        equal(starts(f"{where}/starts"), before, f"starts of the old command (surge {surge})")
        one.stop()


@test("from and to executor = only, with numbers set by hand and versions that do not start: one worker, never a copy")
def _():
    where = folder()
    program = f"""
    [program:web]
    command = {PYTHON} {os.path.join(ROOT, "tests", "lib", "actor.py")} {where}/{{}} {{}}
    ready = notify
    {{}}
"""
    one = Instance(SCHEDULER + program.format("only", "", "executor = only"), folder=where)
    one.wait_for("ready=web", 10)
    one.write(SCHEDULER + program.format("more", "", "executor = candidate\n    workers = 3"))
    one.cli("reload", status=0, timeout=60)
    one.wait_for("executor", 10)
    equal(len(one.workers("web")), 3, "workers as candidates")
    with open(f"{where}/only", encoding="ascii") as f:
        equal(f.read().count(" born "), 1, "processes of the version that is alone")
    one.cli("scale", "web", "2", status=0)
    one.write(SCHEDULER + program.format("again", "", "executor = only"))
    one.cli("reload", status=0, timeout=60)
    one.wait_for("executor", 10)
    equal([w["state"] for w in one.workers("web")], ["running"], "workers when it is alone again")
    broken = program.format("broken", "", "executor = candidate\n    workers = 3\n    startretries = 0")
    one.write(SCHEDULER + broken.replace(f"{PYTHON} ", "false "))
    one.cli("reload", status=1, timeout=60)
    one.wait_for("executor", 10)
    equal([w["state"] for w in one.workers("web")], ["running"], "workers after the way back")


@test("no process for another deadman: tried until there is one")
def _():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    need("setpriv")
    where, user = folder(), 63000 + os.getpid() % 1000
    os.chown(where, user, user)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
    """, folder=where, prefix=become)

    def processes(most):
        subprocess.run([*become, need("prlimit"), f"--nproc={most}:", "--pid", str(one.pid)], check=True)
    one.wait_for("ready=web", 10)
    deadman, = wait_until(lambda: helpers("lock-deadman", one.pid), 5, "the deadman under its name")
    processes(1)
    os.kill(deadman, signal.SIGKILL)
    one.wait_log("deadman.*trying again", 5)
    equal(helpers("lock-deadman", one.pid), [], "deadmen meanwhile")
    processes(1000)
    wait_until(lambda: helpers("lock-deadman", one.pid), 5, "another deadman")
    one.kill()
    wait_until(lambda: not marked_processes(), 5, "the end of all: it knew them")


@test("no descriptor for a client: heard again when there are some")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
    """)
    one.wait_for("ready=web", 10)
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for s in waiting:
        s.connect(one.socket)
    time.sleep(0.2)
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
    for s in waiting:
        s.settimeout(5)
        check(s.recv(100), "a client that waited was heard")
        s.close()
    one.cli("status", status=0)


@test("stop of one that is started again meanwhile ends")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sh -c "trap '' TERM; touch %(here)s/up; while :; do sleep 1; done"
        stopwaitsecs = 1s
        startsecs = 0
    """)
    wait_until(lambda: os.path.exists(one.path("up")), 10)
    with one.control() as stop:
        stop.send("stop", targets=["web:0"], wait=True)
        wait_until(lambda: one.worker("web:0")["state"] == "stopping", 5)
        one.cli("start", "web:0", status=0, timeout=20)
        stop.receive(10)


if __name__ == "__main__":
    main()

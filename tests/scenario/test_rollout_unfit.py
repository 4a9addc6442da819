#!/usr/bin/python3
"""New versions that come up and are no good all the same; workers that the machine has no room for."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

ACTOR = os.path.join(ROOT, "tests", "lib", "actor.py")
HEAD = """
    [baton]
    [scheduler]
    ttl = 5s
    heartbeat = 1s
    kill_grace = 500ms
    promote_backoff = 50ms
    [program:web]
"""


def pids(one):
    return sorted(w["pid"] or 0 for w in one.workers("web"))


def back(one, text, pattern):
    """A reload of TEXT is taken back for PATTERN; every worker is of the old version."""
    generation = {w["generation"] for w in one.workers("web")}
    one.write(HEAD + text)
    r = one.cli("reload", status=1, timeout=60)
    check(re.search(pattern, r.err), f"no {pattern!r} in {r.err!r}")
    one.wait_for("ready=web", 20)
    equal({w["generation"] for w in one.workers("web")}, generation, "generations")


@test("workers that fail their health, or feed no watchdog: rolled back, and it is said which and why")
def _():
    for good, bad, why in (
            ("health = exec:true", "health = exec:false",
             r"fail their health or watchdog \(web:\d failed its health: exec:false: exited"),
            ("environment = A=1", "watchdog = 300ms",
             r"fail their health or watchdog \(web:\d sent no WATCHDOG=1 in time")):
        base = """
    command = sleep {}
    workers = 3
    surge = 1
    startsecs = 0.4
    health_interval = 100ms
    health_failures = 1
    {}
"""
        one = Instance(HEAD + base.format(2001, good))
        one.wait_for("ready=web", 20)
        back(one, base.format(2002, bad), why)
        one.stop()


@test("executors that die of their promotion: rolled back; a version that cures that is not")
def _():
    where = folder()
    base = f"""
    command = {PYTHON} {ACTOR} {where}/log {{}}
    workers = 2
    surge = 1
    ready = notify
    executor = candidate
"""
    one = Instance(HEAD + base.format(""), folder=where)
    one.wait_for("executor", 20)
    wait_until(lambda: one.executor()["answered"], 5, "its answer")
    back(one, base.format("poison"), r"does not start as executor.*\(web:\d exited with status")
    one.wait_for("executor", 20)
    one.stop()

    one = Instance(HEAD + base.format("poison"), folder=where)
    one.wait_log("worker.died", 20)
    one.write(HEAD + base.format(""))
    one.cli("reload", status=0, timeout=60)
    wait_until(lambda: one.executor() and one.executor()["answered"], 20, "an executor that lives")


@test("executor = only: a version that does not start is taken back; standing by where the lock is held is not ready")
def _():
    base = """
    command = {}
    executor = only
    startsecs = 0.2
"""
    one = Instance(HEAD + base.format("sleep 5003"))
    one.wait_for("ready=web", 20)
    back(one, base.format('sh -c "exit 7"'), r"does not start.*\(web:0 exited with status 7\)")
    one.wait_for("executor", 20)
    one.write(HEAD + base.format("sleep 5004"))
    one.cli("reload", status=0, timeout=60)
    equal(one.workers("web")[0]["state"], "running", "state at the end of the reload")


@test("a number set by hand survives a rollout that was taken back")
def _():
    base = """
    command = {}
    workers = {}
    startsecs = 0.2
"""
    one = Instance(HEAD + base.format("sleep 1000", 2))
    one.wait_for("ready=web", 20)
    back(one, base.format("false", 3), "does not start")
    one.cli("scale", "web", "5", status=0)
    back(one, base.format("false -x", 3), "does not start")
    equal(len(one.workers("web")), 5, "workers")
    one.write(HEAD + base.format("sleep 2000", 3))
    one.cli("reload", status=0, timeout=60)
    equal(len(one.workers("web")), 5, "workers of the next version")
    one.write(HEAD + base.format("sleep 2000", 4))
    one.cli("reload", status=0, timeout=60)
    equal(len(one.workers("web")), 4, "workers: the file's own number changed")


@test("no process to be had for a worker that died: tried until there is one, also beyond startretries")
def _():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    need("setpriv")
    need("prlimit")
    user = 62000 + os.getpid() % 1000
    where, most = folder(), 12
    os.chown(where, user, user)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
        startretries = 2
        restart_backoff = 20ms
        restart_backoff_max = 100ms
    """, folder=where, start=False, prefix=["prlimit", f"--nproc={most}:{most}", *become])
    one.start()
    one.wait_for("ready=web", 20)
    mine = [p for p in marked_processes() if os.stat(f"/proc/{p}").st_uid == user]
    fillers = [subprocess.Popen([*become, "sleep", "1000"], stdin=subprocess.DEVNULL)
               for _ in range(most - len(mine) + 1)]
    wait_until(lambda: all(command_of(f.pid) == "sleep 1000" for f in fillers), 5, "the fillers")
    os.kill(pids(one)[0], signal.SIGKILL)
    limit = deadline(20, "six forks that fail")
    while len(re.findall("cannot fork: Resource temporarily unavailable", one.log())) < 6:
        limit.left()
        time.sleep(0.01)
    equal(one.workers("web")[0]["state"], "backoff", "state")
    for filler in fillers:
        filler.kill()
        filler.wait()
    one.wait_for("ready=web", 20)


if __name__ == "__main__":
    main()

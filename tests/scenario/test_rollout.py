#!/usr/bin/python3
"""Rollouts with the real binary: rolling restarts, what may happen at each stage, what may go wrong."""

import os
import pty
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

ACTOR = os.path.join(ROOT, "tests", "lib", "actor.py")

# A worker of version $V that gets ready when the file go.V.INDEX (or go.V) is there, and fails when
# fail.V.INDEX is. `demote` is answered. Named pipes would tell it sooner; 5 ms do.
GATE = r"""#!/usr/bin/python3 -ISE
import os, select, signal, socket, sys, time
here, v, index = sys.argv[1], os.environ["V"], os.environ["BATON_INDEX"]
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while not any(os.path.exists(f"{here}/go.{v}{end}") for end in ("", "." + index)):
    if os.path.exists(f"{here}/fail.{v}.{index}"):
        os._exit(9)
    time.sleep(0.005)
if os.path.exists(f"{here}/fail.{v}.{index}"):
    os._exit(9)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    path = os.environ["NOTIFY_SOCKET"]
    s.connect("\0" + path[1:] if path[0] == "@" else path)
    s.send(b"READY=1\n")
fd = int(os.environ.get("BATON_CHANNEL_FD", "-1"))
while fd >= 0:
    data = os.read(fd, 512)
    if not data:
        break
    for line in data.decode().splitlines():
        word = line.split()
        if word[0] == "promote":
            os.write(fd, f"promoted {word[1]}\n".encode())
        if word[0] == "demote":
            os.write(fd, f"demoted {word[1]}\n".encode())
while True:
    signal.pause()
"""

GATED = """
    [scheduler]
    ttl = 5s
    heartbeat = 1s
    kill_grace = 500ms
    [program:web]
    command = %(here)s/gate %(here)s
    environment = V="{version}"
    workers = 3
    ready = notify
    startretries = 20
    restart_backoff = 5ms
    restart_backoff_max = 50ms
    executor = candidate
    {more}
"""


def pids(one, program="web"):
    return {w["name"]: w["pid"] for w in one.workers(program)}


def script(one, name, text):
    with open(one.path(name), "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(one.path(name), 0o755)


def touch(one, *names):
    for name in names:
        with open(one.path(name), "w", encoding="ascii"):
            pass


def remove(one, *names):
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(one.path(name))


def versions(one):
    return {environment_of(w["pid"]).get("V") for w in one.workers("web") if w["pid"]}


def gated(more="", start=True):
    one = Instance(GATED.format(version=1, more=more), start=False)
    script(one, "gate", GATE)
    touch(one, "go.1")
    if start:
        one.start()
        one.wait_for("ready=web")
        one.wait_for("executor")
    return one


def to_version(one, version, more=""):
    one.write(GATED.format(version=version, more=more))
    one.send_signal(signal.SIGHUP)


def state(one):
    rollout = one.program("web")["rollout"]
    return rollout and rollout["state"]


SIMPLE = """
    [baton]
    [program:web]
    command = %(here)s/web {}
    startsecs = 50ms
    workers = 3
    surge = 1
    startretries = 10
    restart_backoff = 10ms
"""
WEB = "#!/bin/sh\n[ -e ${0%/*}/bad ] && exit 9\nexec sleep 1000\n"


def simple(text=SIMPLE, web=WEB):
    one = Instance(text.format(1), start=False)
    script(one, "web", web)
    one.start()
    one.wait_for("ready=web")
    return one


# --- restart --rolling ---------------------------------------------------------------------------
@test("restart --rolling: every worker is another, one version, plain lines; --json is one document")
def _():
    one = simple()
    before = pids(one)
    with one.events() as events:
        r = one.cli("restart", "--rolling", "web", status=0)
        least, running = 3, set(before)
        while True:
            line = events.next()
            if line.get("event") == "worker.stopping" and "@" not in line["worker"]:
                running.discard(line["worker"])
            least = min(least, len(running))
            if line.get("event") == "program.note":
                break
    equal(least, 3, "workers at least")
    after = pids(one)
    equal([n for n in before if before[n] == after[n]], [], "workers that kept their pid")
    equal({w["generation"] for w in one.workers("web")}, {2}, "generation")
    for i, name in enumerate(sorted(after)):
        check(f"{name} is replaced, pid {after[name]} (" in r.out, f"a line for {name}: {r.out!r}")
    check("\r" not in r.out and "\033" not in r.out and "[#" not in r.out, f"plain: {r.out!r}")
    equal(r.out.splitlines()[-1], "done", "the last line")
    document = json.loads(one.cli("restart", "--rolling", "all", "--json", status=0).out)
    equal((document["ok"], document["programs"][0]["outcome"]), (True, "done"), "document")
    equal({w["name"]: w["pid"] for w in document["programs"][0]["workers"]}, pids(one), "its pids")
    equal(one.program("web")["rollout"], None, "no rollout runs")
    equal(one.program("web")["last_rollout"]["state"], "done", "how the last one ended")
    r = one.cli("restart", "--rolling", "web:1", status=2)
    check("name the program" in r.err, f"one worker: {r.err!r}")
    equal(one.cli("restart", "--rolling", "web", "--no-wait", status=0).out, "started\n", "--no-wait")
    one.wait_for("rollout=done")
    one.cli("stop", "web", status=0)
    one.cli("restart", "--rolling", "web", status=0)
    equal({w["state"] for w in one.workers("web")}, {"running"}, "a stopped program is started")


@test("new workers that do not start: exit 1, which and why, the old ones serve on untouched")
def _():
    one = simple()
    before = pids(one)
    touch(one, "bad")
    r = one.cli("restart", "--rolling", "web", status=1)
    check(re.search(r"web: rollout aborted: .*\(web:0 exited with status 9\).*serve on", r.err),
          f"why: {r.err!r}")
    equal(pids(one), before, "workers after it")
    one.wait_log("rollout ended", 5)       # the log is read by another thread
    died = len(re.findall(r"event=worker\.died .*status 9", one.log()))
    equal(died, 3, "tries of the new version")
    r = one.cli("restart", "--rolling", "web", "--json", status=1)
    document = json.loads(r.out)
    equal((document["ok"], document["error"]["code"]), (False, "failed"), "document")
    row = document["error"]["programs"][0]
    equal((row["name"], row["outcome"]), ("web", "failed"), "its program")
    check("web:0 exited with status 9" in row["reason"], f"why: {row['reason']!r}")
    # What runs is what the file says: a reload has nothing to do.
    check("nothing has changed" in one.cli("reload", status=0).out, "a reload after it")
    remove(one, "bad")
    one.cli("restart", "--rolling", "web", status=0)
    check(not set(before.values()) & set(pids(one).values()), "mended: all are replaced")


@test("on a terminal: a bar; Ctrl-C ends the command, says that the rollout goes on, and it does")
def _():
    one = simple(SIMPLE.replace("startsecs = 50ms", "startsecs = 300ms"))
    before = pids(one)
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(BATON, ["baton", "restart", "--rolling", "web", "-s", one.socket])
    modes = termios.tcgetattr(fd)
    modes[3] |= termios.NOFLSH          # else Ctrl-C may drop what is said about it
    termios.tcsetattr(fd, termios.TCSANOW, modes)
    text, limit = b"", deadline(10, "the first bar")
    while b"] 1/3 rolling" not in text:
        select.select([fd], [], [], limit.left())
        text += os.read(fd, 4096)
    check(b"web [########" in text, f"bar: {text!r}")
    os.write(fd, b"\3")
    with contextlib.suppress(OSError):
        while True:
            more = os.read(fd, 4096)
            if not more:
                break
            text += more
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    equal(os.waitstatus_to_exitcode(status), 130, "exit status")
    check(b"goes on without this command" in text, f"said: {text!r}")
    one.wait_for("rollout=done")
    check(not set(before.values()) & set(pids(one).values()), "the rollout went on to its end")


@test("check --plan: what reload prints before it does it, and nothing is done; 3 and 78")
def _():
    text = SIMPLE.replace("{}", "{0}") + """    max_unavailable = {1}
    [socket:a]
    listen = 127.0.0.1:0
    {2}
    """
    one = Instance(text.format(1, 0, ""), start=False)
    equal(one.cli("check", "--plan").status, 3, "with nothing running")
    script(one, "web", WEB)
    one.start()
    one.wait_for("ready=web")
    before = pids(one)
    equal(one.cli("check", "--plan", status=0).out, "nothing has changed\n", "the same file")
    more = "[socket:b]\n    listen = 127.0.0.1:0\n    [program:new]\n" \
           "    command = sleep 1000\n    startsecs = 0"
    one.write(text.format(2, 2, more))
    plan = one.cli("check", "--plan", status=0).out
    check("web: replaced 3 workers at a time, 2 of them stopped first, the others when their "
          "replacement is ready (command, max_unavailable changed)" in plan, f"plan {plan!r}")
    check("new: added" in plan and "[socket:b] 127.0.0.1:0: opened" in plan, f"plan {plan!r}")
    document = json.loads(one.cli("check", "--plan", "--json", status=0).out)
    equal(document["plan"], plan.splitlines(), "--json")
    equal(pids(one), before, "pids after three plans")
    equal([s["name"] for s in one.status()["sockets"]], ["a"], "sockets after three plans")
    out = one.cli("reload", status=0).out
    check(out.startswith(plan), f"reload says the same first: {out!r}")
    one.write(text.format(2, 0, ""))
    plan = one.cli("check", "--plan", status=0).out
    check(re.search(r"\[socket:b\] .*: closed", plan) and "taken out" in plan, f"plan {plan!r}")
    one.cli("stop", "web", status=0)
    one.write(text.format(3, 0, more))
    plan = one.cli("check", "--plan", status=0).out
    check("web: taken as it is for its next start" in plan, f"a stopped one: {plan!r}")
    one.write("[program:web]\ncommand = x\nwrokers = 1\n[baton]\n")
    r = one.cli("check", "--plan", status=78)
    check("wrokers" in r.err, f"a wrong file: {r.err!r}")
    one.cli("check", "--plan", "--dump", status=2)


@test("reload --changed-only leaves alone what did not change; --no-wait does not wait")
def _():
    one = Instance("""
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        command = sleep 1000
        startsecs = 100ms
        workers = 2
        sockets = http
    """)
    one.wait_for("ready=web")
    before = pids(one)
    check("nothing has changed" in one.cli("reload", "--changed-only", status=0).out, "said")
    equal(pids(one), before, "pids")
    began = time.monotonic()
    out = one.cli("reload", "--no-wait", status=0).out
    check(time.monotonic() - began < 0.2 and "started: generation" in out, f"--no-wait: {out!r}")
    one.wait_for("rollout=done")
    check(not set(before.values()) & set(pids(one).values()), "and it was done")


# --- what may happen at each stage ---------------------------------------------------------------
def come_to(stage, more=""):
    """An instance at CANARY (starting), ROLLING (the second starting) or BACK (the second one, of
    the old version again, starting); version 1 -> 2; stopped first, so that each stage waits."""
    one = gated(more or "surge = 0")
    one.first_executor = one.executor()["worker"]
    touch(one, "hold")
    to_version(one, 2, more or "surge = 0")
    if stage == "canary":
        wait_until(lambda: state(one) == "canary" and [
            w for w in one.workers("web") if w["generation"] == 2 and w["state"] == "starting"],
                   5, "a canary that starts")
        return one
    canary = wait_until(lambda: [w["name"] for w in one.workers("web") if w["generation"] == 2], 5,
                        "the canary")[0]
    touch(one, f"go.2.{canary[4:]}")
    second = wait_until(lambda: [w["name"] for w in one.workers("web") if w["generation"] == 2 and
                                 w["state"] == "starting" and w["name"] != canary], 5,
                        "the second one")[0]
    equal(state(one), "rolling", "stage")
    if stage == "rolling":
        return one
    remove(one, "go.1")
    touch(one, f"fail.2.{second[4:]}")
    wait_until(lambda: state(one) == "rolling_back", 5, "rolling back")
    wait_until(lambda: [w for w in one.workers("web") if w["generation"] == 1 and
                        w["state"] == "starting"], 5, "one of the old version that starts")
    return one


STAGES = ("canary", "rolling", "rolling_back")


def let_go(one):
    touch(one, "go.1", "go.2", "go.3")
    for name in os.listdir(one.folder):
        if name.startswith("fail."):
            os.unlink(one.path(name))


def at_rest(one, version, workers=3):
    """One version, all ready, one executor, nothing under way."""
    one.wait_rollouts()
    one.wait_for("ready=web")
    one.wait_for("executor")
    equal(versions(one), {str(version)}, "versions at the end")
    equal(len(one.workers("web")), workers, "workers at the end")
    equal(len({w["generation"] for w in one.workers("web")}), 1, "generations at the end")
    check("core.impossible" not in one.log(), "an impossible event")


@test("TERM at each stage: it never waits for the rollout")
def _():
    for stage in STAGES:
        one = come_to(stage)
        began = time.monotonic()
        one.stop()
        check(time.monotonic() - began < 2, f"TERM at {stage} took {time.monotonic() - began} s")


@test("stop at each stage ends it; started again, all are of one version")
def _():
    for stage in STAGES:
        one = come_to(stage)
        one.call("stop", targets=["web"], wait=True)
        equal({w["state"] for w in one.workers("web")}, {"stopped"}, f"states, stopped at {stage}")
        equal(state(one), None, f"rollout, stopped at {stage}")
        let_go(one)
        one.call("start", targets=["web"], wait=True)
        at_rest(one, 1 if stage == "rolling_back" else 2)


@test("a second reload at each stage: the newest version everywhere")
def _():
    for stage in STAGES:
        one = come_to(stage)
        touch(one, "go.3")
        to_version(one, 3, "surge = 0")
        let_go(one)
        wait_until(lambda: 3 in {w["generation"] for w in one.workers("web")}, 5, "the third")
        at_rest(one, 3)


@test("scaled at each stage: the new number, one version")
def _():
    for stage in STAGES:
        one = come_to(stage)
        one.call("scale", program="web", workers=5)
        let_go(one)
        at_rest(one, 1 if stage == "rolling_back" else 2, 5)


@test("kill -9 of the one that starts, of a new one, of an old one, of the executor, at each stage")
def _():
    for stage in STAGES:
        for whom in ("starting", "new", "old", "executor"):
            if stage == "canary" and whom == "new":
                continue                        # it is the one that starts
            one = come_to(stage)
            executor = one.executor()
            kinds = {"starting": [], "new": [], "old": [], "executor": [executor["pid"]]}
            for w in one.workers("web"):
                kinds["starting" if w["state"] == "starting" else
                      "new" if w["generation"] == 2 else "old"].append(w["pid"])
            kinds["old"].sort(key=lambda pid: pid == executor["pid"])
            pid = kinds[whom][0]
            os.kill(pid, signal.SIGKILL)
            if whom == "executor":
                one.wait_for(f"executor!={pid}")
            let_go(one)
            at_rest(one, 1 if stage == "rolling_back" else 2)


@test("kill -9 of the supervisor at each stage: nothing is left, the next start is of one version")
def _():
    for stage in STAGES:
        one = come_to(stage)
        left = [w["pid"] for w in one.workers("web") if w["pid"]]
        one.kill()
        wait_until(lambda: not [p for p in left if state_of(p) not in (None, "Z")], 5,
                   "the workers' end")
        let_go(one)
        one.start()
        at_rest(one, 2)


def promotions(one):
    return re.findall(r"event=executor\.promoted .*? worker=(web:\d) ", one.log())


@test("a later failure: what was replaced is rolled back; the executor has moved at most once and back")
def _():
    one = come_to("rolling_back")       # its turn had not come yet
    let_go(one)
    at_rest(one, 1)
    one.wait_log("rolled back: every worker is of the old version again")
    equal(one.program("web")["last_rollout"]["state"], "failed", "the last rollout")
    equal(promotions(one), [one.first_executor], "who was the executor, failed before its turn")
    one = gated("surge = 0")            # the one in its place, the last, does not start
    first = one.executor()["worker"]
    touch(one, f"fail.2.{first[4:]}", *(f"go.2.{i}" for i in range(3) if f"web:{i}" != first))
    to_version(one, 2, "surge = 0")
    one.wait_log("rolling back: the new version does not start")
    at_rest(one, 1)
    moves = promotions(one)
    equal(len(moves), 3, f"promotions, there and back: {moves}")
    check(moves[0] == first and moves[1] != first and moves[2] != moves[1], f"moves: {moves}")
    equal(one.executor()["worker"], moves[2], "the executor")


@test("neither version starts: nothing more is stopped, it is tried again, and heals by itself")
def _():
    one = come_to("rolling_back")
    untouched = {w["name"]: w["pid"] for w in one.workers("web") if w["state"] == "running"}
    starting = next(w["name"] for w in one.workers("web") if w["state"] == "starting")
    touch(one, f"fail.1.{starting[4:]}")
    os.kill(one.worker(starting)["pid"], signal.SIGKILL)
    wait_until(lambda: state(one) == "half_way", 10, "half way")
    one.wait_log("come to a halt half way: the old version does not start either")
    now = pids(one)
    equal({n: now[n] for n in untouched}, untouched, "those that serve")
    check("half way" in one.cli("status").out, "status says it")
    remove(one, f"fail.1.{starting[4:]}")
    let_go(one)
    at_rest(one, 1)


@test("HUP with a broken file in the middle of a rollout: that goes on")
def _():
    one = come_to("rolling")
    mark = one.mark()
    one.write("[program:web]\nnonsense\n")
    one.send_signal(signal.SIGHUP)
    one.wait_log("event=reload.error", since=mark)
    equal(state(one), "rolling", "stage after the broken file")
    let_go(one)
    at_rest(one, 2)


@test("50 changed files and HUPs in a second: the last file, one version, no pile of processes")
def _():
    text = SIMPLE.replace("startsecs = 50ms", "startsecs = 20ms").replace("%(here)s/web", "sleep")
    one = Instance(text.format(1))
    one.wait_for("ready=web")
    most = 0
    for i in range(50):
        one.write(text.format(i + 100))
        one.send_signal(signal.SIGHUP)
        most = max(most, len([w for w in one.workers("web") if w["pid"]]))
        time.sleep(0.01)
    one.cli("reload", status=0)
    one.wait_for("rollout=done")
    equal({w["state"] for w in one.workers("web")}, {"running"}, "states")
    equal({command_of(w["pid"]) for w in one.workers("web")}, {"sleep 149"}, "the last file's")
    equal(len(one.workers("web")), 3, "workers")
    equal(len({w["generation"] for w in one.workers("web")}), 1, "generations")
    check(most <= 3 + 1 + 3, f"{most} processes at once")
    check("core.impossible" not in one.log(), "an impossible event")


# --- the outgoing one ----------------------------------------------------------------------------
@test("web:0@1 names the outgoing one while its replacement has its name; status shows how far it is")
def _():
    text = SIMPLE.replace("workers = 3", "workers = 1") + "    stop_delay = 30s\n"
    one = simple(text, "#!/bin/sh\ntrap 'sleep 0.2; exit 0' TERM\nsleep 1000 & wait\n")
    old = pids(one)["web:0"]
    one.cli("restart", "--rolling", "web", "--no-wait", status=0)
    wait_until(lambda: [w for w in one.workers("web") if w["name"] == "web:0" and w["ready"]], 5,
               "the replacement")
    workers = pids(one)
    equal(sorted(workers), ["web:0", "web:0@1"], "names")
    equal(workers["web:0@1"], old, "the outgoing one")
    equal(one.program("web")["rollout"], {"done": 1, "total": 1, "state": "rolling"}, "rollout")
    check("rollout rolling: 1 of 1" in one.cli("status").out, "status")
    equal(one.cli("signal", "CONT", "web:0@1", status=0).out, "web:0@1: sent CONT\n", "its address")
    check("nothing is called" in one.cli("signal", "CONT", "web:0@7", status=1).err, "another one")
    one.cli("stop", "web:0@1", status=0)
    equal(list(pids(one)), ["web:0"], "stopped by that name, it alone is gone")
    one.wait_for("rollout=done")
    equal(one.program("web")["rollout"], None, "no rollout runs")


# --- workers that do not do as they are told -----------------------------------------------------
@test("old workers that ignore TERM or are stopped, a new one that double-forks: an end, within bounds")
def _():
    text = SIMPLE + "    stopwaitsecs = 300ms\n"
    deaf = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1000 & wait; done\n"
    one = simple(text, deaf)
    before = pids(one)
    os.kill(before["web:1"], signal.SIGSTOP)
    began = time.monotonic()
    one.cli("restart", "--rolling", "web", status=0)
    check(time.monotonic() - began < 5, f"took {time.monotonic() - began} s")
    equal([p for p in before.values() if state_of(p) not in (None, "Z")], [], "alive of the old ones")
    before = pids(one)
    script(one, "web.new", "#!/bin/sh\n(sleep 777 &)\nexit 0\n")
    os.rename(one.path("web.new"), one.path("web"))
    r = one.cli("restart", "--rolling", "web", status=1)
    check(re.search(r"web:\d exited with status 0", r.err), f"it goes to the background: {r.err!r}")
    equal(pids(one), before, "the old ones")


@test("fork fails with EAGAIN: not the version's fault, tried more often; then it is done")
def _():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    need("setpriv")
    need("prlimit")
    user = 61000 + os.getpid() % 1000
    where, most = folder(), 16
    os.chown(where, user, user)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    one = Instance(SIMPLE.format(1), folder=where, start=False,
                   prefix=["prlimit", f"--nproc={most}:{most}", *become])
    script(one, "web", WEB)
    one.start()
    one.wait_for("ready=web")
    before = pids(one)
    mine = [p for p in marked_processes() if os.stat(f"/proc/{p}").st_uid == user]
    fillers = [subprocess.Popen([*become, "sleep", "1000"], stdin=subprocess.DEVNULL)
               for _ in range(most - len(mine))]
    wait_until(lambda: all(command_of(f.pid) == "sleep 1000" for f in fillers), 5, "the fillers")
    one.cli("restart", "--rolling", "web", "--no-wait", status=0)
    limit = deadline(10, "four forks that fail")
    while len(re.findall("cannot fork: Resource temporarily unavailable.*: trying", one.log())) < 4:
        limit.left()
        time.sleep(0.01)
    equal(sorted(p for p in pids(one).values() if p), sorted(before.values()), "old ones meanwhile")
    equal(state(one), "canary", "stage meanwhile")
    for filler in fillers:
        filler.kill()
        filler.wait()
    one.wait_for("rollout=done")
    check(not set(before.values()) & set(pids(one).values()), "all were replaced in the end")


# --- scaling the executor away -------------------------------------------------------------------
@test("scale down with the executor at a high index: handed off first, to one that stays")
def _():
    for promote in ("notify", "signal", "respawn"):
        more = "promote_signal = USR1\n        demote_signal = USR2" if promote == "signal" else ""
        one = Instance(f"""
            [socket:http]
            listen = 127.0.0.1:0
            [scheduler]
            ttl = 5s
            heartbeat = 1s
            kill_grace = 500ms
            [program:web]
            command = {PYTHON} {ACTOR} %(here)s/log leave
            workers = 4
            ready = notify
            sockets = http
            executor = candidate
            promote = {promote}
            {more}
        """)
        one.wait_for("ready=web")
        one.wait_for("executor")
        if one.executor()["worker"] != "web:3":
            one.cli("handoff", "web:3", status=0)
        one.wait_for("ready=web")
        old, term, kept = one.executor(), one.term(), pids(one)
        equal(old["worker"], "web:3", "executor")
        if promote == "notify":
            one.send_signal(signal.SIGTTOU)     # the same by signal
            wait_until(lambda: len(one.workers("web")) == 3, 5, "three workers")
            one.wait_for(f"term>{term}")
            check(one.executor()["worker"] != "web:3", "executor after TTOU")
            one.cli("scale", "web", "4", status=0)
            one.cli("handoff", "web:3", status=0)
            wait_until(lambda: one.executor()["answered"], 5, "its answer: else its end is the demotion")
            old, term, kept = one.executor(), one.term(), pids(one)
        mark = one.mark()
        one.cli("scale", "web", "1", status=0)
        one.wait_for(f"term>{term}")
        one.wait_for("ready=web")
        equal([w["name"] for w in one.workers("web")], ["web:0"], "who is left")
        equal(one.executor()["worker"], "web:0", f"executor, promote = {promote}")
        if promote != "respawn":
            equal(one.worker("web:0")["pid"], kept["web:0"], "pid of the one that stays")
        order = [m for line in one.lines[mark:] for m in
                 re.findall(r"event=(?:worker\.stopping|executor\.draining) .*worker=(web:\d)", line)]
        check(order.index("web:3") > max(order.index("web:1"), order.index("web:2")),
              f"the executor is the last to go: {order}")
        if promote == "notify":
            wait_until(lambda: one.executor()["answered"], 5, "the answer of the other")
            with open(one.path("log"), encoding="ascii") as f:
                lines = [line.split() for line in f]
            demoted = next(i for i, w in enumerate(lines) if w[1] == "demote" and
                           int(w[3]) == old["pid"])
            promoted = next(i for i, w in enumerate(lines) if w[1] == "promote" and
                            int(w[4]) == one.term())
            check(demoted < promoted, "demoted before the other is promoted")


if __name__ == "__main__":
    main()

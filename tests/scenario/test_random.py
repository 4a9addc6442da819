#!/usr/bin/python3
"""Everything at once: random requests, reloads, kills; afterwards a good file must rule again.

BATON_SEED=N repeats one run; BATON_SOAK=1 makes many longer ones.
"""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

SCHEDULER = "[scheduler]\nttl = 3s\nheartbeat = 500ms\nkill_grace = 500ms\nhandoff_timeout = 300ms\n"
GOOD = """
[baton]
[socket:s]
listen = 127.0.0.1:0
[program:a]
command = sleep 999
workers = 3
startsecs = 10ms
stopwaitsecs = 1s
[program:b]
command = sleep 998
workers = 2
startsecs = 10ms
stopwaitsecs = 1s
sockets = s
[program:e]
command = sleep 998
startsecs = 0
"""
WANTED = {"a": 3, "b": 2, "e": 1}
NAMES = ["a", "b", "c", "d", "e", "a:0", "b:1", "c:2", "all", "a:*"]


def random_file(r, election):
    text = "[baton]\n[socket:s]\nlisten = 127.0.0.1:0\n" + (SCHEDULER if election else "")
    for name in "abcde":
        if name != "a" and r.random() < 0.2:
            continue
        text += f"[program:{name}]\nstopwaitsecs = 1s\nrestart_backoff = 10ms\n"
        text += r.choice([f"command = sleep {1000 + r.randrange(2)}\n"] * 6 + [
            'command = sh -c "exit 1"\n', f"command = sleep 0.0{r.randrange(1, 9)}\n"])
        text += f"workers = {r.randrange(4)}\nstartsecs = {r.choice(['0', '10ms', '30ms'])}\n"
        text += f"startretries = {r.choice([0, 1, 3, -1])}\n"
        text += r.choice(["sockets = s\n", "", ""]) + r.choice(["autostart = no\n", "", "", ""])
        text += r.choice(["autorestart = yes\n", "autorestart = no\n", "", ""])
        if name in "de":
            text += r.choice(["depends_on = a\n", "depends_on = a:started\n", "", ""])
        if election and name in "ab":
            text += f"executor = {r.choice(['candidate', 'candidate', 'only', 'no'])}\n"
            text += f"promote = {r.choice(['notify', 'respawn'])}\n"
    return text


def pids(one):
    return [w["pid"] for p in one.status()["programs"] for w in p["workers"] if w["pid"]]


def step(one, r, election):
    what = r.random()
    try:
        if what < 0.15:
            one.write(random_file(r, election))
            one.send_signal(signal.SIGHUP)
        elif what < 0.25:
            one.write(random_file(r, election))
            one.call("reload")
        elif what < 0.6:
            one.call(r.choice(["start", "stop", "restart"]), targets=[r.choice(NAMES)])
        elif what < 0.75:
            one.call("scale", program=r.choice("abcde"), workers=r.randrange(5))
        elif what < 0.95:
            found = pids(one)
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(r.choice(found), r.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV,
                                                   signal.SIGSTOP, signal.SIGCONT]))
        else:
            one.call("handoff")
    except ControlError as e:
        check(e.code in ("not_found", "refused", "failed", "ambiguous"), f"unexpected: {e}")


def run(seed, seconds):
    r, election = random.Random(seed), seed % 2 == 1
    good = GOOD.replace("[baton]", "[baton]\n" + (SCHEDULER if election else ""))
    one = Instance(good)
    steps, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        step(one, r, election)
        steps += 1
        check(one.alive, f"seed {seed}: it died at step {steps}")
    for pid in pids(one):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    one.write(good)
    mark = one.mark()
    one.send_signal(signal.SIGHUP)
    one.wait_log("event=reload.plan", 10, since=mark)
    one.call("start", targets=["all"])
    for name, count in WANTED.items():
        one.call("scale", 15, program=name, workers=count, wait=True, timeout_ms=10000)
    one.wait_rollouts(30)     # the promotion of an executor is waited for up to promote_timeout and 5 s
    for name in WANTED:
        one.wait_for(f"ready={name}", 10)
    wait_until(lambda: len(one.status()["programs"]) == 3, 5, "programs taken out are gone")
    status = one.status()
    equal({p["name"]: len(p["workers"]) for p in status["programs"]}, WANTED,
          f"workers at the end (seed {seed}, {steps} steps)")
    for p in status["programs"]:
        for w in p["workers"]:
            wanted = "sleep 999" if p["name"] == "a" else "sleep 998"
            equal(command_of(w["pid"]), wanted, f"command of {w['name']} (seed {seed})")
    equal([x for x in one.lines if "core.impossible" in x], [], f"impossible events (seed {seed})")
    one.stop()
    one._reader.join(5)
    equal([x for x in one.lines if "Sanitizer" in x or "runtime error" in x], [], "sanitizers")


@test("random requests, reloads and kills: a good file rules again (without an election)")
def _():
    run(2 * int(os.environ.get("BATON_SEED") or time.time_ns() % 1000000), 3)


@test("random requests, reloads and kills: a good file rules again (with an election)")
def _():
    run(2 * int(os.environ.get("BATON_SEED") or time.time_ns() % 1000000) + 1, 3)


@test("random requests, reloads and kills for long", soak=True)
def _():
    for seed in range(60):
        run(seed, 10)


if __name__ == "__main__":
    main()

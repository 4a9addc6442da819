#!/usr/bin/python3
"""Recycling: max_age, max_age_jitter, max_memory; one worker at a time, its replacement first."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

ACTOR = os.path.join(ROOT, "tests", "lib", "actor.py")

# Takes MB of memory (argument), in a grandchild of a session group of its own when told so.
EATER = r"""#!/usr/bin/python3
import os, signal, sys, time
def eat(mb):
    eaten = bytearray(int(mb) << 20)
    for i in range(0, len(eaten), 4096):
        eaten[i] = 1
    return eaten
kept = []
if sys.argv[1] == "below":
    if os.fork() == 0:
        if os.fork():
            os._exit(0)
        os.setpgid(0, 0)
        signal.signal(signal.SIGUSR1, lambda *_: kept.append(eat(sys.argv[2])))
        with open(f"{sys.argv[0]}.{os.environ['BATON_WORKER']}", "w") as f:
            f.write(str(os.getpid()))
        while True:
            signal.pause()
else:
    signal.signal(signal.SIGUSR1, lambda *_: kept.append(eat(sys.argv[2])))
while True:
    signal.pause()
"""


def script(one, name, text):
    with open(one.path(name), "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(one.path(name), 0o755)


def pids(one, program):
    return {w["name"]: w["pid"] for w in one.workers(program)}


class Watch:
    """What the stream says of PROGRAM: which names were down, or doubled, at the same time."""

    def __init__(self, one, program, beside):
        self.program, self.beside, self.events = program, beside, one.events()
        self.running = {w["name"] for w in one.workers(program)}
        self.going, self.least, self.recycled = set(), len(self.running), []

    def until(self, count, timeout=20):
        limit = deadline(timeout, f"{count} recycled")
        while len(self.recycled) < count or self.going:
            line = self.events.next(limit.left())
            name, event = line.get("worker", ""), line.get("event")
            if not name.startswith(f"{self.program}:"):
                continue
            if event == "worker.recycle":
                check(not self.going, f"{name} is recycled beside {self.going}")
                self.going.add(name)
                self.recycled.append((name, line["reason"]))
            elif event in ("worker.stopping", "worker.died"):
                if "@" not in name:
                    self.running.discard(name)
            elif event == "worker.running":
                self.running.add(name)
            if event == ("worker.stopped" if self.beside else "worker.running"):
                self.going.discard(name.partition("@")[0])
            self.least = min(self.least, len(self.running))
        self.events.close()


@test("max_age: each in its turn, beside its replacement where sockets allow it, else in its place")
def _():
    text = """
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        command = sleep 1000
        startsecs = 50ms
        workers = 3
        sockets = http
        max_age = {0}
        [program:plain]
        command = sleep 1000
        startsecs = 50ms
        workers = 3
        max_age = {1}
    """
    one = Instance(text.format(0, 0))
    one.wait_for("ready=web")
    one.wait_for("ready=plain")
    for program, ages, least in (("web", ("1s", 0), 3), ("plain", (0, "1s"), 2)):
        before = pids(one, program)
        watch = Watch(one, program, program == "web")
        one.write(text.format(*ages))
        mark = one.mark()
        plan = one.call("reload", changed_only=True)["plan"]
        check(plan[0].startswith(f"{program}: applied in place"), f"no new version: {plan}")
        watch.until(3)
        one.write(text.format(0, 0))
        one.call("reload", changed_only=True)
        one.wait_for("rollout=done")
        equal(sorted({n for n, _ in watch.recycled}), sorted(before), f"recycled of {program}")
        equal({r for _, r in watch.recycled}, {"older than max_age"}, "why")
        equal(watch.least, least, f"least that were running of {program}")
        one.wait_for(f"ready={program}")
        after = pids(one, program)
        equal([n for n in before if before[n] == after.get(n)], [], "workers that kept their pid")
        one.wait_log(rf"{program}:0 \(pid \d+\) is recycled: it is [\d.]+ s old, max_age is 1.0 s",
                     since=mark)
        equal({w["generation"] for w in one.workers(program)}, {1}, "no new version")
        equal(one.program(program)["last_rollout"], None, "a recycling is no rollout that ended")


@test("max_memory: summed over the tree, also what was double-forked; only that worker goes")
def _():
    one = Instance("""
        [scheduler]
        ttl = 5s
        heartbeat = 1s
        kill_grace = 500ms
        [program:web]
        command = %(here)s/eat self 60
        startsecs = 100ms
        workers = 2
        max_memory = 50MB
        [program:tree]
        command = %(here)s/eat below 60
        startsecs = 100ms
        workers = 2
        max_memory = 60MB
        [program:free]
        command = %(here)s/eat self 60
        startsecs = 100ms
    """, start=False)
    script(one, "eat", EATER)
    one.start()
    for name in ("web", "tree", "free"):
        one.wait_for(f"ready={name}")
    before = {**pids(one, "web"), **pids(one, "tree"), **pids(one, "free")}
    below = wait_until(lambda: os.path.exists(one.path("eat.tree:1")) and
                       int(open(one.path("eat.tree:1"), encoding="ascii").read() or 0), 5)
    for pid in (before["web:0"], below, before["free:0"]):
        os.kill(pid, signal.SIGUSR1)
    with one.events() as events:
        seen = [events.wait("worker.recycle", 10) for _ in range(2)]
    equal({(l["worker"], l["reason"]) for l in seen},
          {("web:0", "more memory than max_memory"), ("tree:1", "more memory than max_memory")},
          "recycled")
    for line in seen:
        check(line["memory_bytes"] > 50 << 20, f"bytes in the event: {line}")
    one.wait_log(r"web:0 \(pid \d+\) is recycled: it uses \d+\.\d MB of memory, "
                 r"max_memory is 50\.0 MB")
    one.wait_for("rollout=done")
    one.wait_for("ready=web")
    one.wait_for("ready=tree")
    after = {**pids(one, "web"), **pids(one, "tree"), **pids(one, "free")}
    equal([n for n in before if before[n] != after[n]], ["web:0", "tree:1"], "new pids")
    memory = wait_until(lambda: one.worker("web:1")["memory"], 5, "memory in status")
    check(2 << 20 < memory < 50 << 20, f"memory of web:1 {memory}")
    equal(one.worker("free:0")["memory"], None, "memory of a program that does not ask")


@test("the executor is recycled last, and its successor is ready before it is told")
def _():
    one = Instance(f"""
        [scheduler]
        ttl = 5s
        heartbeat = 500ms
        kill_grace = 500ms
        [program:web]
        command = {PYTHON} {ACTOR} %(here)s/log
        workers = 2
        surge = 1
        ready = notify
        executor = candidate
        max_age = 2s
    """)
    one.wait_for("executor")
    first = one.executor()
    one.wait_for(f"executor!={first['pid']}", 15)
    with open(one.path("log"), encoding="ascii") as f:
        lines = [line.split() for line in f]
    at = next(i for i, w in enumerate(lines) if w[1] == "demote" and int(w[3]) == first["pid"])
    told = [re.search(r"event=(\S+) .*pid=(\d+)", l) or re.search(r"event=(executor.draining)()", l)
            for l in one.lines if "worker.running" in l or "executor.draining" in l]
    names = [m[1] for m in told[:5]]
    equal(names, ["worker.running"] * 4 + ["executor.draining"],
          "two workers, two in their place, and only then the executor gives up")
    equal(one.executor()["pid"], int(told[3][2]), "the baton went to its own replacement")
    after = [w for w in lines[at:] if w[1] == "end" and int(w[3]) == first["pid"]]
    check(len(after) <= 1, f"ends of the old executor: {after}")


@test("a replacement that does not start: the old worker stays; on_fatal = exit does not mean it")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/web
        startsecs = 200ms
        startretries = 1
        restart_backoff = 10ms
        surge = 1
        on_fatal = exit
        max_age = 1s
    """, start=False)
    script(one, "web", "#!/bin/sh\n[ -e ${0}.bad ] && exit 9\nexec sleep 1000\n")
    one.start()
    one.wait_for("ready=web")
    pid = one.worker("web:0")["pid"]
    script(one, "web.bad", "")
    one.wait_log("web: not recycled: its replacement failed to start; tried again later", 10)
    one.wait_for("rollout=done")
    equal(pids(one, "web"), {"web:0": pid}, "workers")
    check(one.alive, "the supervisor ended")
    check("core.impossible" not in one.log(), "an impossible event")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Failover, takeover and idle cost of the real binary.

Numbers of rounds: BENCH_FAILOVERS (50), BENCH_TAKEOVERS (20), BENCH_IDLE_SECONDS (30).
"""
import os
import select
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bench
import harness
from harness import BUILD, Instance, wait_until

WORKER = os.path.join(BUILD, "tests", "lib", "bench_worker")
FAILOVERS = int(os.environ.get("BENCH_FAILOVERS", "50"))
TAKEOVERS = int(os.environ.get("BENCH_TAKEOVERS", "20"))
IDLE_SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "30"))


def report(name, value, unit, goal):
    bench.row(name, value, unit, goal=None if goal == "-" else float(goal))


def promotions(path):
    """{term: (nanoseconds, pid)} as the workers wrote them."""
    try:
        with open(path, encoding="ascii") as f:
            rows = [line.split() for line in f if line.endswith("\n")]
    except FileNotFoundError:
        return {}
    return {int(term): (int(ns), int(pid)) for term, ns, pid in rows}


def kill_and_hear(pid):
    """SIGKILL; the time at which the kernel reported the death."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        os.kill(pid, signal.SIGKILL)
        poll.poll(5000)
        return time.monotonic_ns()
    finally:
        os.close(pidfd)


INI = """
    [scheduler]
    database = {db}
    promote_backoff = 0
    [program:web]
    command = {worker} {file}
    workers = {workers}
    startsecs = 0
    executor = candidate
    restart_backoff = 10ms
    restart_backoff_max = 20ms
"""


def ini(folder, workers=4):
    return INI.format(db=os.path.join(folder, "bench.db"), worker=WORKER,
                      file=os.path.join(folder, "promotions"), workers=workers)


def failover():
    one = Instance(ini(f := harness.folder()), folder=f)
    file = one.path("promotions")
    one.wait_for("executor", 10)
    took = []
    for _ in range(FAILOVERS):
        row = wait_until(lambda: one.executor(), 10)
        pid, term = row["pid"], row["term"]
        wait_until(lambda: all(w["ready"] for w in one.workers("web")), 10)
        died = kill_and_hear(pid)
        one.wait_for(f"term>{term}", 10)
        new = wait_until(lambda: {t: v for t, v in promotions(file).items() if t > term}, 5)
        took.append((new[min(new)][0] - died) / 1e6)
    report("executor killed: promoted (median)", statistics.median(took), "ms", "5")
    report("  the longest", max(took), "ms", "-")
    one.stop()


def takeover():
    folder = harness.folder()
    took = []
    standby = Instance(ini(folder, 2), name="i0", folder=folder)
    standby.wait_for("executor", 10)
    for i in range(TAKEOVERS):
        holder = standby
        standby = Instance(ini(folder, 2), name=f"i{i + 1}", folder=folder)
        standby.wait_for("role=standby", 10)
        standby.wait_for("ready=web", 10)
        standby.wait_log("lock.held_elsewhere", 10)
        # the standby's waiter blocks on the holder's byte
        wait_until(lambda: children_named(standby.pid, "lock-waiter"), 5)
        term = holder.term()
        died = kill_and_hear(holder.pid)
        standby.wait_for(f"term>{term}", 90)
        new = wait_until(
            lambda: {t: v for t, v in promotions(holder.path("promotions")).items() if t > term}, 5)
        took.append((new[min(new)][0] - died) / 1e6)
        holder.process.wait()
    report("holder killed: taken over (median)", statistics.median(took), "ms", "100")
    report("  the longest", max(took), "ms", "-")
    standby.stop()


def children_named(pid, name):
    found = []
    for task in os.listdir("/proc"):
        if not task.isdigit():
            continue
        try:
            with open(f"/proc/{task}/stat", encoding="ascii") as f:
                text = f.read()
        except OSError:
            continue
        comm, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        if int(rest[1]) == pid and comm == name:
            found.append(int(task))
    return found


def baton_processes(pid):
    return [pid, *(p for n in ("lock-keeper", "lock-deadman", "lock-waiter")
                   for p in children_named(pid, n))]


def cost(pids):
    """(CPU ns, context switches, private KiB) of PIDS together."""
    cpu = switches = private = 0
    for pid in pids:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
            cpu += int(f.read().split()[0])
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            switches += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            private += sum(int(line.split()[1]) for line in f if line.startswith("Private_"))
    return cpu, switches, private


def idle():
    one = Instance(ini(f := harness.folder(), 100), folder=f)
    one.wait_for("ready=web", 30)
    one.wait_for("executor", 10)
    wait_until(lambda: one.executor()["answered"], 5)
    pids = baton_processes(one.pid)
    time.sleep(1.5)  # what the start left behind (the deadman's looks at the new page) is over
    before = cost(pids)
    time.sleep(IDLE_SECONDS)
    after = cost(pids)
    report("idle with 100 workers: CPU", (after[0] - before[0]) / 1e6, "ms", "6")
    report("  context switches", after[1] - before[1], "", "60")
    report("  private memory", after[2] / 1024, "MiB", "6")
    for pid in pids:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            bench.note(f"{f.read().strip()}: {cost([pid])[2]} KiB")
    one.stop()


def main():
    names = sys.argv[1:] or ["failover", "takeover", "idle"]
    bench.heading("the baton: from a death to the new executor; the cost of idling")
    try:
        for name in names:
            {"failover": failover, "takeover": takeover, "idle": idle}[name]()
    finally:
        bench.clean()
    bench.end()


if __name__ == "__main__":
    main()

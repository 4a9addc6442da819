#!/usr/bin/python3
"""The built-in job worker: start delay, a second in which 1,000 jobs fire, idling, 10,000 jobs.

Names of parts as arguments; BENCH_FIRINGS (20), BENCH_IDLE_SECONDS (10).
"""
import os
import sqlite3
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bench
import harness
from harness import Instance, helpers, wait_until

FIRINGS = int(os.environ.get("BENCH_FIRINGS", "20"))
IDLE_SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "10"))
HEAD = "[scheduler]\nhandoff_timeout = 2s\n[jobs]\nmax_running = 8\n"


def rows(one, text):
    try:
        db = sqlite3.connect(f"file:{one.path('baton.db')}?mode=ro", uri=True, timeout=10)
        try:
            return db.execute(text).fetchall()
        finally:
            db.close()
    except sqlite3.Error:
        return []


def bare_commit(folder):
    """Median of one row committed as the ledger's are, in ms."""
    db = sqlite3.connect(os.path.join(folder, "bare.db"), isolation_level=None)
    db.execute("PRAGMA journal_mode=TRUNCATE")
    db.execute("PRAGMA synchronous=EXTRA")
    db.execute("CREATE TABLE t(a)")
    took = []
    for n in range(30):
        began = time.perf_counter()
        db.execute("INSERT INTO t VALUES(?)", (n,))
        took.append((time.perf_counter() - began) * 1e3)
    db.close()
    return statistics.median(took)


def bare_commands(count):
    """So many commands by xargs, eight at a time, in ms."""
    began = time.perf_counter()
    subprocess.run(["xargs", "-P", "8", "-n", "1", "true"], input=b"x\n" * count, check=True)
    return (time.perf_counter() - began) * 1e3


def delay():
    one = Instance(HEAD + "[job:tick]\nschedule = * * * * * *\noverlap = allow\ncommand = true\n")
    found = "SELECT fire_time, claimed_at, started_at FROM job_run WHERE status = 'ok' ORDER BY 1"
    wait_until(lambda: len(rows(one, found)) > FIRINGS, FIRINGS + 20)
    times = rows(one, found)[1:]
    bench.row("start delay, median (bare commit)", statistics.median(s - f for f, _, s in times) / 1e3, "ms",
              beside=bare_commit(one.folder), goal=5)
    bench.row("  of it until the claim is made", statistics.median(c - f for f, c, _ in times) / 1e3, "ms")
    bench.row("  worst", max(s - f for f, _, s in times) / 1e3, "ms")
    one.stop()


def thousand():
    start = time.localtime(time.time() + 12)
    when = f"{start.tm_sec} {start.tm_min} {start.tm_hour} * * *"
    one = Instance(HEAD + "".join(f"[job:j{n}]\nschedule = {when}\nshell = no\ncommand = true\n"
                                  for n in range(1000)))
    done = "SELECT count(*) FROM job_run WHERE status = 'ok'"
    wait_until(lambda: (rows(one, done) or [[0]])[0][0] >= 1000, 40)
    fire, claimed, started, ended, commits = rows(one, "SELECT min(fire_time), max(claimed_at), max(started_at), "
                                                  "max(ended_at), count(DISTINCT claimed_at) FROM job_run")[0]
    bench.row("1,000 jobs in one second: all claimed", (claimed - fire) / 1e3, "ms")
    bench.row("  commits for the claims", commits, "")
    bench.row("  all started", (started - fire) / 1e3, "ms", beside=bare_commands(1000), goal=1000)
    bench.row("  all ended", (ended - fire) / 1e3, "ms")
    one.stop()


def switches(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            total += sum(int(l.split()[1]) for l in f if "ctxt_switches" in l)
    return total


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(l.split()[1]) for l in f if l.startswith("Private")) / 1024


def idle():
    one = Instance(HEAD + "".join(f"[job:j{n}]\nschedule = {n % 60} 0 1 1 *\ncommand = true\n"
                                  for n in range(100)))
    one.wait_for("executor", 10)
    time.sleep(2)       # what the start leaves behind is over
    pids = [one.executor()["pid"], *helpers("job-ledger")]
    before = switches(pids)
    time.sleep(IDLE_SECONDS)
    bench.row("idle with 100 jobs: wake-ups of job worker and ledger", switches(pids) - before, "", goal=0)
    bench.row("  private memory of both", sum(memory(p) for p in pids), "MiB")
    one.stop()


def many():
    began = time.perf_counter()
    one = Instance(HEAD + "".join(f"[job:j{n}]\nschedule = {n % 60} {n // 60 % 24} 1 {n % 12 + 1} *\n"
                                  "command = true\n" for n in range(10000)), start=False)
    began = time.perf_counter()
    harness.baton("check", "-c", one.config)
    bench.row("10,000 jobs: check", time.perf_counter() - began, "s", goal=1)
    began = time.perf_counter()
    one.start()
    one.wait_for("executor", 30)
    bench.row("  from start to executor", time.perf_counter() - began, "s")
    time.sleep(2)
    bench.row("  private memory of the job worker", memory(one.executor()["pid"]), "MiB")
    one.stop()


def main():
    parts = {"delay": delay, "thousand": thousand, "idle": idle, "many": many}
    bench.heading("the built-in job worker")
    try:
        for name in sys.argv[1:] or parts:
            parts[name]()
    finally:
        bench.clean()
    bench.end()


if __name__ == "__main__":
    main()

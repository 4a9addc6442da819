#!/usr/bin/python3
"""Starting, replacing and stopping workers, beside a bare fork+exec loop and the peers.

    bench_spawn.py [respawn] [burst] [many] [stop] [reload] [check] [kinds]
"""
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bench
import harness
from bench import BENCH, Bare, Starts, note, row
from harness import Instance, equal

INI = """
    [baton]
    logfile = {folder}/log
    [program:web]
    command = {worker}
    workers = {count}
    startsecs = 0
    roll_on_reload = changed
    {lines}
"""


class Ours:
    def __init__(self, count, worker=None, lines=""):
        folder = harness.folder()
        self.count, self.starts = count, Starts(folder)
        text = INI.format(folder=folder, count=count, lines=lines,
                          worker=worker(self.starts.path) if worker else
                          f"{BENCH} worker {self.starts.path}")
        self.one = Instance(text, folder=folder, start=False)
        self.began = time.monotonic_ns()
        self.one.start()
        self.one.wait_for("ready=web", 60)
        self.running = time.monotonic_ns()
        self.starts.wait(count)

    def stop(self):
        began = time.monotonic_ns()
        self.one.stop()
        took = time.monotonic_ns() - began
        self.starts.close()
        return took


def kill_one(starts, pid):
    """Milliseconds from kill -9 to the successor's first word."""
    had = starts.count()
    began = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return (starts.wait(had + 1, 20)[had][1] - began) / 1e6


def supervisord(count, folder, starts):
    path = os.path.join(folder, "supervisord.conf")
    with open(path, "w", encoding="ascii") as f:
        f.write(f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\n"
                f"minfds=20000\nuser=root\n"
                f"[program:web]\ncommand={BENCH} worker {starts.path}\nnumprocs={count}\n"
                f"process_name=%(program_name)s_%(process_num)d\nstartsecs=0\n"
                f"stdout_logfile=NONE\nstderr_logfile=NONE\n")
    if os.geteuid() != 0:
        text = open(path, encoding="ascii").read().replace("user=root\n", "")
        open(path, "w", encoding="ascii").write(text)
    return subprocess.Popen(["supervisord", "-c", path], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


GUNICORN = """
import os, struct, time
def post_fork(server, worker):
    fd = os.open({path!r}, os.O_WRONLY)
    os.write(fd, struct.pack("qq", os.getpid(), time.monotonic_ns()))
    os.close(fd)
"""


def gunicorn(count, folder, starts):
    with open(os.path.join(folder, "hooks.py"), "w", encoding="ascii") as f:
        f.write(GUNICORN.format(path=starts.path))
    with open(os.path.join(folder, "app.py"), "w", encoding="ascii") as f:
        f.write("def app(e, s):\n    s('200 OK', [])\n    return [b'']\n")
    return subprocess.Popen([harness.PYTHON, "-m", "gunicorn", "-w", str(count), "-c", "hooks.py",
                             "-b", "unix:app.sock", "app:app"], cwd=folder,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def peer(how, count, use):
    """USE(starts, process), with the peer's COUNT workers running; its result."""
    folder = harness.folder()
    starts = Starts(folder)
    began = time.monotonic_ns()
    process = how(count, folder, starts)
    try:
        seen = starts.wait(count, 90)
        return use(starts, (max(ns for _, ns in seen) - began) / 1e6)
    except harness.Failed as e:
        note(f"{how.__name__}: {e}")
        return None
    finally:
        process.terminate()
        process.wait(60)
        starts.close()


def median_kills(starts, rounds):
    time.sleep(1.2)  # supervisord: a process that ends within a second is a failed start
    pids = [pid for pid, _ in starts.wait(1)][:rounds]
    return statistics.median(kill_one(starts, pid) for pid in pids)


def respawn():
    ours, bare = Ours(100), Bare(100, harness.folder())
    took, limit = [], []
    for (pid, _), (other, _) in zip(ours.starts.wait(100)[:100], bare.starts.wait(100)[:100]):
        took.append(kill_one(ours.starts, pid))
        limit.append(kill_one(bare.starts, other))
    row("respawn after kill -9 (median of 100)", statistics.median(took), "ms",
        statistics.median(limit), 2)
    if shutil.which("gunicorn"):
        row("  beside gunicorn's arbiter", statistics.median(took), "ms",
            peer(gunicorn, 4, lambda s, _: median_kills(s, 4)))
    if shutil.which("supervisord"):
        row("  beside supervisord", statistics.median(took), "ms",
            peer(supervisord, 5, lambda s, _: median_kills(s, 5)))
    ours.stop()
    bare.stop()


def kill_all(starts, count):
    pids = [pid for pid, _ in starts.wait(count)[:count]]
    had = starts.count()
    began = time.monotonic_ns()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return (max(ns for _, ns in starts.wait(had + count)[had:]) - began) / 1e6


def burst():
    took, limit, plain = [], [], []
    for _ in range(7):
        ours, bare = Ours(100), Bare(100, harness.folder())
        plain.append((max(ns for _, ns in bare.starts.wait(100)) - bare.began) / 1e6)
        took.append(kill_all(ours.starts, 100))
        limit.append(kill_all(bare.starts, 100))
        ours.stop()
        bare.stop()
    value = statistics.median(took)
    row("100 killed at once: all back", value, "ms", statistics.median(limit), 1.5)
    row("  beside a plain start of 100", value, "ms", statistics.median(plain))
    if shutil.which("supervisord"):
        def use(starts, _):
            time.sleep(1.2)
            return kill_all(starts, 100)
        row("  beside supervisord", value, "ms", peer(supervisord, 100, use))


def many():
    took, said, limit, memory = [], [], [], []
    for _ in range(5):
        bare = Bare(1000, harness.folder())
        limit.append((max(ns for _, ns in bare.starts.wait(1000)) - bare.began) / 1e6)
        bare.stop()
        ours = Ours(1000)
        took.append((max(ns for _, ns in ours.starts.wait(1000)) - ours.began) / 1e6)
        said.append((ours.running - ours.began) / 1e6)
        began = time.monotonic_ns()
        equal(len(ours.one.workers("web")), 1000, "workers in status")
        status = (time.monotonic_ns() - began) / 1e6
        memory.append(bench.private_kib(ours.one.pid) / 1024)
        deadmen = [bench.private_kib(p) for p in harness.helpers("lock-deadman", ours.one.pid)]
        ours.stop()
    floor = statistics.median(limit)
    row("1,000 workers started", statistics.median(took), "ms", floor, 1.5)
    row("1,000 workers: status says running", statistics.median(said), "ms", floor, 1.5)
    row("own private memory with 1,000", statistics.median(memory), "MiB", goal=8)
    note(f"beside it the deadman: {sum(deadmen) / 1024:.2f} MiB; no [scheduler], so no keeper")
    row("status of 1,000 workers", status, "ms")
    if shutil.which("supervisord"):
        row("  start beside supervisord", statistics.median(took), "ms",
            peer(supervisord, 1000, lambda _, took: took))


def bare_stop(count, ms):
    """Milliseconds until COUNT workers that take MS have been told and reaped."""
    starts = Starts(harness.folder())
    workers = [subprocess.Popen([BENCH, "stop", starts.path, str(ms)]) for _ in range(count)]
    starts.wait(count)
    began = time.monotonic_ns()
    for w in workers:
        w.terminate()
    for w in workers:
        w.wait()
    took = (time.monotonic_ns() - began) / 1e6
    starts.close()
    return took


def stop():
    ours, soon, bare = [], [], []
    for _ in range(5):
        soon.append(Ours(100).stop() / 1e6)
        bare.append(bare_stop(100, 200))
        slow = Ours(100, lambda path: f"{BENCH} stop {path} 200")
        ours.append(slow.stop() / 1e6)
    row("stop of 100 that end at once", statistics.median(soon), "ms", goal=50)
    value, slowest = statistics.median(ours), statistics.median(bare)
    row("stop of 100 that take 200 ms", value, "ms", slowest)
    row("  beyond a bare kill and wait", max(0, value - slowest), "ms", goal=50)


def reload():
    ours = Ours(100)
    before = [w["pid"] for w in ours.one.workers("web")]
    took = []
    with ours.one.control() as c:
        for _ in range(21):
            began = time.monotonic_ns()
            c.call("reload")
            took.append((time.monotonic_ns() - began) / 1e6)
    equal([w["pid"] for w in ours.one.workers("web")], before, "workers after the reload")
    row("reload of an unchanged file", statistics.median(took), "ms", goal=5)
    ours.stop()


def check():
    path = os.path.join(harness.folder(), "long.ini")
    with open(path, "w", encoding="ascii") as f:
        for i in range(1000):
            f.write(f"[program:p{i}]\ncommand = /bin/sleep 1000\nworkers = 2\nstartsecs = 1\n"
                    f"environment = A=\"{i}\",B=\"x\"\nstopwaitsecs = 5s\nautorestart = true\n"
                    f"priority = {i}\nstdout_logfile = /dev/null\n\n")
    took = []
    for _ in range(5):
        began = time.monotonic_ns()
        harness.baton("check", "-c", path, status=0)
        took.append((time.monotonic_ns() - began) / 1e6)
    row("check of a file of 10,000 lines", statistics.median(took), "ms", goal=500)


def kinds():
    """fork against vfork and posix_spawn: idle, and with twice as many busy processes as CPUs."""
    for busy in (0, 2 * len(os.sched_getaffinity(0))):
        others = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(busy)]
        try:
            text = subprocess.check_output([BENCH, "kinds", "/bin/true"], text=True)
        finally:
            for process in others:
                process.kill()
                process.wait()
        values = {name[5:]: float(value) for name, value, _ in map(str.split, text.splitlines())}
        where = f" ({busy} others busy)" if busy else ""
        for way in ("vfork", "posix_spawn"):
            row(f"fork, {way}{where}", values["fork_call"], "ms", values[f"{way}_call"])
            row("  until the child's end", values["fork_whole"], "ms", values[f"{way}_whole"])


def main():
    parts = {f.__name__: f for f in (kinds, respawn, burst, many, stop, reload, check)}
    bench.heading("starting, replacing, stopping: beside a bare reap-and-fork+exec loop")
    try:
        for name in sys.argv[1:] or parts:
            parts[name]()
    finally:
        bench.clean()
    bench.end()


if __name__ == "__main__":
    main()

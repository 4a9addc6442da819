#!/usr/bin/python3
"""Rollouts and reloads under load, beside gunicorn's own arbiter in the same run.

    bench_load.py [rollout] [boot] [broken]
"""
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import bench
import harness
import load as loads
from bench import note, row
from harness import BUILD, Instance, wait_until

WORKERS, BOOT, DRAIN = 8, 100, 50
SECONDS = float(os.environ.get("BENCH_LOAD_SECONDS", "6"))
KNOWN = os.path.join(BUILD, "tests", "lib", "known_worker")
ROLLED = "every worker is of the new version"


def bare_sequence():
    """The boot and the drain of as many such workers in sequence, started and heard by ourselves."""
    path = os.path.join(harness.folder(), "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        began = time.monotonic()
        for _ in range(WORKERS):
            with subprocess.Popen([KNOWN, str(BOOT), str(DRAIN)],
                                  env={**os.environ, "NOTIFY_SOCKET": path}) as worker:
                heard.recv(100)
                worker.terminate()
                worker.wait()
        return (time.monotonic() - began) * 1000


def rollout():
    """Workers that take BOOT ms to be ready and DRAIN ms to end, replaced one by one."""
    one = Instance(f"""
        [baton]
        logfile = {(f := harness.folder())}/log
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        command = {KNOWN} {BOOT} {DRAIN}
        workers = {WORKERS}
        sockets = http
        ready = notify
    """, folder=f)
    one.wait_for("ready=web", 20)
    took, limit = [], []
    for _ in range(5):
        with one.events() as events:
            began = time.monotonic()
            one.send_signal(signal.SIGHUP)
            events.wait(lambda line: ROLLED in str(line), 30)
            took.append((time.monotonic() - began) * 1000)
        limit.append(bare_sequence())
    one.stop()
    value, floor = statistics.median(took), statistics.median(limit)
    row(f"rollout of {WORKERS}, boot {BOOT} + drain {DRAIN} ms", value, "ms", floor)
    row("  beyond the sum, for each worker", max(0, value - floor) / WORKERS, "ms", goal=10)


# --- gunicorn, under baton and alone -----------------------------------------------------------
class Baton:
    name = "baton"

    def __init__(self, where, boot):
        self.folder, self.boot = where, boot
        self.write()
        self.one = Instance(self.text(), folder=where)
        self.one.wait_for("ready=web", 60)
        self.port = int(self.one.url().rsplit(":", 1)[1])

    def write(self):
        loads.write_apps(self.folder)

    def text(self, broken=""):
        return f"""
            [baton]
            [socket:http]
            listen = 127.0.0.1:0
            [program:web]
            command = {harness.PYTHON} -m gunicorn app:application --worker-class gthread --threads 8
            preset = gunicorn
            directory = {self.folder}
            environment = BOOT="{self.boot}"{broken},PYTHONDONTWRITEBYTECODE="1"
            workers = 4
            sockets = http
            roll_on_reload = always
        """

    def hup(self):
        mark = self.one.mark()
        self.one.send_signal(signal.SIGHUP)
        self.one.wait_log(ROLLED, 90, mark)

    def broken(self):
        """HUP with a version that cannot start; whether the supervisor lives."""
        self.one.write(self.text(',BROKEN="1"'))
        mark = self.one.mark()
        self.one.send_signal(signal.SIGHUP)
        self.one.wait_log(f"rollout|{ROLLED}", 60, mark)
        time.sleep(SECONDS / 2)
        return self.one.alive

    def stop(self):
        self.one.stop(timeout=60, status=None)


class Gunicorn(Baton):
    name = "gunicorn"

    def __init__(self, where, boot):
        self.folder, self.boot = where, boot
        self.write()
        self.port = harness.free_port()
        self.process = subprocess.Popen(
            [harness.PYTHON, "-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{self.port}",
             "--worker-class", "gthread", "--threads", "8", "app:application"], cwd=where,
            env={**os.environ, "BOOT": str(boot), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def hup(self):
        before = set(self.children())
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(self.children()), 60)
        time.sleep(self.boot)

    def children(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                  encoding="ascii") as f:
            return f.read().split()

    def broken(self):
        with open(os.path.join(self.folder, "app.py"), "w", encoding="ascii") as f:
            f.write("raise RuntimeError('this version cannot start')\n")
        self.process.send_signal(signal.SIGHUP)
        time.sleep(SECONDS)
        return self.process.poll() is None

    def stop(self):
        self.process.terminate()
        self.process.wait(40)


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(s.recv(1))
    except OSError:
        return False


def kinds_of():
    if not shutil.which("gunicorn"):
        note("gunicorn is not installed: nothing to serve with")
        return []
    return [Baton, Gunicorn]


def boots_by_hand(folder, count):
    """The boots of a rollout without one: COUNT such servers beside those that serve, each started,
    heard and ended, on a port that nobody asks."""
    for _ in range(count):
        port = harness.free_port()
        with subprocess.Popen(
                [harness.PYTHON, "-m", "gunicorn", "app:application", "--worker-class", "gthread",
                 "--threads", "8", "-b", f"127.0.0.1:{port}"], cwd=folder,
                env={**os.environ, "BOOT": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            wait_until(lambda port=port: answers(port), 30)
            server.terminate()


def boot():
    """The worst answer while four workers are replaced. A boot takes CPU time from who serves, whoever
    starts it: what counts is that beside the same boots by hand."""
    worst, by_hand = {}, None
    for kind in kinds_of():
        site = kind(harness.folder(), 2)
        wait_until(lambda site=site: answers(site.port), 30)
        time.sleep(1)
        load = loads.Load(site.port)
        time.sleep(SECONDS)
        changed = time.monotonic()
        calm = load.worst()
        if by_hand is None:
            boots_by_hand(site.folder, 4)
            time.sleep(1)
            by_hand, changed = load.worst(changed) * 1000, time.monotonic()
        site.hup()
        time.sleep(3)
        load.stop()
        worst[kind.name] = (calm * 1000, load.worst(changed) * 1000, load)
        site.stop()
    for name, (calm, late, load) in worst.items():
        row(f"{name}: worst answer, rollout, boot 2 s", late, "ms", by_hand,
            2 if name == "baton" else None)
        row("  beside its undisturbed worst", late, "ms", calm)
        row(f"{name}: failed of {load.answered + len(load.failures)} requests",
            len(load.failures), "", goal=0 if name == "baton" else None)


def broken():
    for kind in kinds_of():
        site = kind(harness.folder(), 0)
        wait_until(lambda site=site: answers(site.port), 30)
        time.sleep(1)
        load = loads.Load(site.port)
        time.sleep(1)
        lives = site.broken()
        load.stop()
        asked = load.answered + len(load.failures)
        row(f"{kind.name}: failed of {asked}, broken reload", len(load.failures), "",
            goal=0 if kind is Baton else None)
        if not lives:
            note(f"{kind.name} itself has ended")
        site.stop()


def main():
    parts = {f.__name__: f for f in (rollout, boot, broken)}
    bench.heading("rollouts and reloads under load: beside gunicorn's own arbiter")
    try:
        for name in sys.argv[1:] or parts:
            parts[name]()
    finally:
        bench.clean()
    bench.end()


if __name__ == "__main__":
    main()

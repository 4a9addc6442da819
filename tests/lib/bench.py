"""Rows of `make bench`: name, baton's figure, the bare limit or the peer of the same run, their
ratio, the goal, and whether it is met. 80 columns."""

import os
import struct
import subprocess
import sys
import threading
import time

import harness

BENCH = os.path.join(harness.BUILD, "tests", "bench", "bench_spawn")
missed = []


def heading(text):
    print(f"\n{text}\n{'':36}{'baton':>10} {'beside':>10} {'ratio':>7}  goal", flush=True)


def number(value, unit):
    if value is None:
        return "-"
    digits = 3 if abs(value) < 10 and value != int(value) else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f} {unit}" if value != int(value) else f"{int(value)} {unit}"


def row(name, value, unit, beside=None, ratio=None, goal=None):
    """One line. RATIO: the highest VALUE / BESIDE that is good; GOAL: the highest VALUE; else the
    line is information only."""
    share = value / beside if beside else None
    good, text = None, ""
    if ratio is not None and beside:
        good, text = share <= ratio, f"<= {ratio}x"
    elif goal is not None:
        good, text = value <= goal, f"<= {number(goal, unit)}"
    if good is False:
        missed.append(name)
    mark = {None: "", True: "ok", False: "MISSED"}[good]
    print(f"{name:36}{number(value, unit):>10} {number(beside, unit):>10} "
          f"{f'{share:.2f}x' if share else '':>7}  {text} {mark}".rstrip(), flush=True)


def note(text):
    print(f"  {text}", flush=True)


class Starts:
    """The starts of workers, as they say them themselves on a FIFO: (pid, nanoseconds)."""

    def __init__(self, folder):
        self.path = os.path.join(folder, f"starts{time.monotonic_ns()}")
        os.mkfifo(self.path)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self.seen, self.news, self.rest = [], threading.Condition(), b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            part = os.read(self.fd, 1 << 16)
            with self.news:
                self.rest += part
                whole = len(self.rest) // 16 * 16
                self.seen += struct.iter_unpack("qq", self.rest[:whole])
                self.rest = self.rest[whole:]
                self.news.notify_all()
                if (0, 0) in self.seen:
                    return

    def close(self):
        os.write(self.fd, struct.pack("qq", 0, 0))
        self.thread.join()
        os.close(self.fd)

    def count(self):
        return len(self.seen)

    def wait(self, count, timeout=60):
        """All that was said, when COUNT have been."""
        with self.news:
            if not self.news.wait_for(lambda: len(self.seen) >= count, timeout):
                raise harness.Failed(f"{len(self.seen)} of {count} starts within {timeout} s")
            return list(self.seen)


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


class Bare:
    """The bare loop of COUNT workers."""

    def __init__(self, count, folder):
        self.starts = Starts(folder)
        self.began = time.monotonic_ns()
        self.process = subprocess.Popen([BENCH, "bare", str(count), self.starts.path])
        self.starts.wait(count)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.starts.close()


def clean():
    for text in harness._clean():
        print(text, file=sys.stderr)


def end():
    if missed:
        print(f"\nmissed: {', '.join(missed)}")
    sys.exit(1 if missed else 0)

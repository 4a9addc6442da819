#!/usr/bin/python3
"""The built-in job worker while the wall clock is set: its own clock alone, by stepped_clock.c."""
import os
import struct
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *
from jobs import *

HOUR = 3600
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stepped_clock.c")


class Clock:
    """The wall clock of an instance."""

    def __init__(self, one):
        self.library, self.path = one.path("stepped_clock.so"), one.path("step")
        subprocess.run([need("cc"), "-shared", "-fPIC", "-O1", "-o", self.library, SOURCE, "-ldl"], check=True)
        self.us = 0
        with open(self.path, "wb") as f:
            f.write(struct.pack("=q", 0))
        one.env = {**one.env, "LD_PRELOAD": self.library, "STEPPED_CLOCK": self.path}

    def set(self, seconds):
        self.us = int((seconds - time.time()) * 1e6)
        with open(self.path, "r+b") as f:
            f.write(struct.pack("=q", self.us))


def is_known(one):
    with contextlib.suppress(sqlite3.Error), contextlib.closing(
            sqlite3.connect(f"file:{one.path('baton.db')}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute("SELECT count(*) FROM job_state WHERE job = 'hour'").fetchone()[0]
    return False


def timer(one):
    """How far away, in seconds, the job worker's next firing is."""
    pid = one.executor("jobs")["pid"]
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as f:
            found = re.search(r"clockid: 0\n.*it_value: \((\d+), ", f.read(), re.DOTALL)
            if found:
                return int(found[1])
    return -1


@test("the clock is set: on, what became due fires; back, nothing runs twice; far back, it goes by the clock")
def _():
    with open(BATON, "rb") as f:
        if b"__asan_init" in f.read():
            skip("a sanitizer's build")
    one = instance("""
        [job:hour]
        schedule = 0 * * * *
        timezone = UTC
        missed = once
        missed_limit = 1d
        command = echo $BATON_FIRE_TIME >>ran
        """, start=False)
    clock, first = Clock(one), (int(time.time()) // HOUR + 1) * HOUR
    fired = lambda: [(round(r.fire / 1e6 - first) // HOUR, r.status) for r in runs(one, "hour")]
    at = lambda hour, status="ok": wait_until(lambda: has_table(one) and (hour, status) in fired(), 10,
                                              f"the firing of hour {hour}")
    waits = lambda seconds: wait_until(lambda: abs(timer(one) - seconds) < 10, 10, f"a timer of {seconds} s")
    clock.set(first - 30)
    one.start()
    wait_until(lambda: is_known(one), 10, "the job in the ledger")     # its firings count from now on
    equal(fired(), [], "before the hour")
    clock.set(first + 0.1)
    at(0)
    clock.set(first - 600)                      # back, and through the same hour again
    waits(HOUR + 600)
    clock.set(first + 1)
    waits(HOUR - 1)
    clock.set(first + HOUR + 0.1)
    at(1)
    clock.set(first + 5 * HOUR + 0.1)           # three are missed, the fourth is on time
    at(5)
    equal(fired(), [(0, "ok"), (1, "ok"), (2, "missed"), (3, "missed"), (4, "missed"), (5, "ok")], "history")
    clock.set(first + HOUR / 2)                 # whoever sets it back by hours means it
    one.wait_log("hours ahead of the clock")
    waits(HOUR / 2)
    clock.set(first + HOUR + 0.1)               # its row is there: not again
    waits(HOUR)
    clock.set(first + 6 * HOUR + 0.1)
    at(6)
    equal([s for _, s in fired()].count("ok"), 4, "runs")
    equal(len(lines(one.path("ran"))), 4, "commands that ran")
    one.stop()


if __name__ == "__main__":
    main()

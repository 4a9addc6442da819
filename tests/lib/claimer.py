#!/usr/bin/python3
"""A worker with a scheduler of its own: while it is the executor it claims a firing each TICK ms and
writes what it got to a log.

    claimer.py LOG TICK_MS START

Lines: `BOOTTIME_NS run|not WORKER PID TERM FIRING`, one write each. Firings are numbered by the wall
clock, so all workers mean the same, and begin at START (microseconds); a new executor also tries the
100 before, from the oldest on (as misfires)."""

import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "contrib",
                                "python"))
import baton    # noqa: E402

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
TICK = int(sys.argv[2]) * 1000
START = int(sys.argv[3]) // TICK * TICK
WORKER = os.environ["BATON_WORKER"]
client = baton.Baton.from_environ()


def tell(verb, firing):
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    os.write(LOG, f"{now} {verb} {WORKER} {os.getpid()} {client.term} {firing}\n".encode())


BUSY = threading.Lock()


def on_demote(event):
    with BUSY:      # what is being claimed and run is run to its end
        pass


def run(firing):
    """False: not now, or not here."""
    with BUSY:
        try:
            if client.claim("tick", firing):
                tell("run", firing)
            elif not client.may_start():
                return False
            else:
                tell("not", firing)
        except baton.BatonError as error:
            tell("error", str(error).replace(" ", "_"))
        return True


def main():
    client.start(on_demote=on_demote)
    client.ready()
    last = 0
    while True:
        due = time.time_ns() // 1000 // TICK * TICK
        firing = max(last + TICK, due - 100 * TICK, START)
        while firing <= due and client.may_start() and run(firing):
            last = firing
            firing += TICK
        if not client.may_start():
            last = 0
        time.sleep(max(0, (due + TICK) / 1e6 - time.time()))


main()

#!/usr/bin/python3
"""The built-in job worker in chaos: kills, pauses, handoffs, stops, reloads over three instances."""
import collections
import os
import random
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *
from jobs import *


@test("half a minute of chaos over three instances (BATON_SOAK: ten minutes)")
def _():
    seed = int(os.environ.get("BATON_SEED") or time.time_ns() % 1_000_000)
    dice, end = random.Random(seed), time.monotonic() + (600 if SOAK else 20)
    print(f"# seed {seed}", flush=True)
    first = instance(COUNTER, name="i0")
    every = [first] + [instance(COUNTER, name=f"i{n}", folder=first.folder) for n in (1, 2)]
    wait_runs(first, "count", 1, "ok")
    done = collections.Counter()
    while time.monotonic() < end:
        one = dice.choice(every)
        what = dice.choice(["away", "away", "worker", "ledger", "supervisor", "stop", "reload", "pause"])
        done[what] += 1
        with contextlib.suppress(ControlError, ProcessLookupError, OSError, EOFError, Failed):
            if what == "away":
                one.call("handoff", away=True)
            elif what == "worker":
                row = one.executor("jobs")
                if row:
                    os.kill(row["pid"], signal.SIGKILL)
            elif what == "ledger":
                for pid in helpers("job-ledger"):
                    os.kill(pid, signal.SIGKILL)
            elif what == "supervisor":
                one.kill()
            elif what == "stop":
                one.stop(timeout=30, status=None)
            elif what == "reload":
                one.call("reload")
            else:
                row = one.executor("jobs")
                if row:
                    os.kill(row["pid"], signal.SIGSTOP)
                    time.sleep(dice.uniform(0.05, 1.5))
                    os.kill(row["pid"], signal.SIGCONT)
        time.sleep(dice.uniform(0.2, 1.8))
        for each in every:
            if not each.alive:
                each.start()
    wait_runs(first, "count", len(runs(first, "count")) + 3, "ok", 60)
    for each in every:
        each.stop(timeout=30, status=None)
    rows = account(first.folder, killed=True)
    print(f"# {dict(done)}: {len(rows)} rows, {dict(collections.Counter(r.status for r in rows))}", flush=True)


if __name__ == "__main__":
    main()

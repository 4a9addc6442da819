#!/usr/bin/python3
"""Three supervisors on one database in containers of their own, and random faults: never two valid
leases (a witness samples every page each millisecond), terms strictly rising, an executor again in
time. BATON_CHAOS_SEED repeats a run's choices, BATON_CHAOS_FAULTS their number.
"""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from election import *  # noqa: E402,F403

MS = 1_000_000
TTL_MS = 3000
FAULTS = int(os.environ.get("BATON_CHAOS_FAULTS") or (200 if SOAK else 40))
SEED = int(os.environ.get("BATON_CHAOS_SEED") or time.time_ns() % 1_000_000_000)

# An init that lets the deadman do its work when the supervisor is dead, then ends the container.
INIT = '"$0" "$@" & wait $!; s=$?; sleep 0.5; exit $s'


class Boxed(Contained):
    """baton below an init in a PID namespace: its death alone does not end the container."""

    @property
    def pid(self):
        def find():
            for init in children_of(self.process.pid):
                for child in children_of(init):
                    with contextlib.suppress(OSError):
                        with open(f"/proc/{child}/comm", encoding="ascii") as f:
                            if f.read().strip() == "baton":
                                return child
            return None

        return wait_until(find, 5, f"the supervisor {self.name}")

    def _tear_down(self):
        with contextlib.suppress(OSError, Failed):
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
        return Instance._tear_down(self)


class Storm:
    def __init__(self, log, witness, text):
        self.random = random.Random(SEED)
        self.log, self.witness, self.story, self.timers = log, witness, [], []
        prefix = in_pid_namespace()
        self.contained = prefix is not None
        if prefix is None:
            print("# PID namespaces are not permitted: plain processes instead", flush=True)
            kinds = [(Instance, ())] * 3
        else:
            kinds = [(Contained, prefix), (Boxed, [*prefix, "sh", "-c", INIT]),
                     (Boxed, [*prefix, "sh", "-c", INIT])]
        place = folder()
        self.instances = [kind(text, name=f"b{i}", folder=place, prefix=p)
                          for i, (kind, p) in enumerate(kinds)]
        self.down, self.stopped = set(), {}

    def note(self, text):
        self.story.append(f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME)} {text}")

    def later(self, seconds, what):
        self.timers.append((time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * SECOND),
                            what))

    def run_timers(self):
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        due = [t for t in self.timers if t[0] <= now]
        self.timers = [t for t in self.timers if t[0] > now]
        for _, what in due:
            what()

    def signal(self, pid, number, what):
        self.note(f"{signal.Signals(number).name} {what} ({pid})")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def stop_for(self, pid, seconds, what):
        self.signal(pid, signal.SIGSTOP, what)
        self.stopped[pid] = what
        start = start_of(pid)

        def go_on():
            self.stopped.pop(pid, None)
            if start_of(pid) == start:
                self.signal(pid, signal.SIGCONT, what)

        self.later(seconds, go_on)

    def kill_supervisor(self, instance, both=False):
        pid = instance.pid
        deadman = helpers_of(pid).get("lock-deadman")
        if both and deadman:
            self.signal(pid, signal.SIGSTOP, f"{instance.name} supervisor")
            self.signal(deadman, signal.SIGKILL, f"{instance.name} deadman")
        self.signal(pid, signal.SIGKILL, f"{instance.name} supervisor")
        self.down.add(instance)

        def restart():
            instance.wait_end(10)
            instance.start(wait=False)
            self.note(f"started {instance.name}")
            self.down.discard(instance)

        self.later(self.random.uniform(0, 1), restart)

    def executor_pid(self):
        line = self.witness.now()
        return int(line[4]) if line else None

    def holder(self):
        """The instance of the present executor, or any."""
        pid = self.executor_pid()
        name = environment_of(pid).get("BATON_CONTROL", "") if pid else ""
        free = [i for i in self.instances if i not in self.down]
        return next((i for i in free if i.socket == name), self.random.choice(free))

    def fault(self):
        r = self.random
        target = self.holder() if r.random() < 0.8 else r.choice(
            [i for i in self.instances if i not in self.down])
        what = r.choice(3 * ["kill supervisor", "stop supervisor", "kill executor"] +
                        2 * ["kill both"] +
                        ["stop executor", "kill deadman", "stop deadman", "kill keeper",
                         "stop keeper"])
        pid = target.pid
        executor = self.executor_pid()
        helpers = helpers_of(pid)
        if what == "kill supervisor":
            self.kill_supervisor(target)
        elif what == "kill both":
            self.kill_supervisor(target, both=True)
        elif what == "stop supervisor":
            seconds = r.choice([r.uniform(0.1, 1), r.uniform(1.05, 1.5) * TTL_MS / 1000])
            self.stop_for(pid, seconds, f"{target.name} supervisor")
        elif what == "kill executor" and executor:
            self.signal(executor, signal.SIGKILL, "executor")
        elif what == "stop executor" and executor:
            self.stop_for(executor, r.uniform(0.05, 1), "executor")
        elif what == "kill deadman" and "lock-deadman" in helpers:
            self.signal(helpers["lock-deadman"], signal.SIGKILL, f"{target.name} deadman")
        elif what == "stop deadman" and "lock-deadman" in helpers:
            self.stop_for(helpers["lock-deadman"], r.uniform(0.05, 1), f"{target.name} deadman")
        elif what == "kill keeper" and "lock-keeper" in helpers:
            self.signal(helpers["lock-keeper"], signal.SIGKILL, f"{target.name} keeper")
        elif what == "stop keeper" and "lock-keeper" in helpers:
            self.stop_for(helpers["lock-keeper"], r.uniform(0.05, 1), f"{target.name} keeper")

    def settle(self, since):
        """Until all run again and there is an executor. Whether in time is checked at the end."""
        limit = deadline(TTL_MS / 1000 * 3 + 10, "an executor after a fault")
        while self.timers or not self.witness.now():
            self.run_timers()
            limit.left()
            time.sleep(0.002)

    def end_orphans(self):
        """Without containers nobody ends what outlives a supervisor and its deadman."""
        for pid in [] if self.contained else marked_processes():
            if ACTOR in command_of(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def tail(self):
        lines = [f"{i.name} {l}" for i in self.instances for l in i.lines[-25:]]
        return "\n".join(["--- faults"] + self.story[-30:] + ["--- witness"] +
                         [" ".join(l) for l in self.witness.lines[-20:]] + ["--- logs"] + lines +
                         ["--- promotions", self.log.text()])


def start_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


@test(f"{FAULTS} faults on three supervisors: one executor at any instant, rising terms, in time")
def _():
    print(f"# seed {SEED}, {FAULTS} faults", flush=True)
    log = Log()
    calm = "startretries = -1\nrestart_backoff_max = 200ms"
    text = scheduler(ttl=f"{TTL_MS}ms", heartbeat="300ms", grace="500ms") + program(
        actor(log.path, "kin=2"), workers=2, more=calm)
    text += program(actor(log.path), name="only", workers=1, executor="only", more=calm)
    text += program(actor(log.path), name="again", more=calm + "\npromote = respawn")
    with Witness() as witness:
        storm = Storm(log, witness, text)
        wait_until(witness.now, 10, "the first executor")
        faults = []
        try:
            for _ in range(FAULTS):
                now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                faults.append(now)
                storm.fault()
                if storm.random.random() < 0.3 and len(storm.down) + len(storm.stopped) < 2:
                    storm.fault()
                storm.settle(now)
            for instance in storm.instances:
                instance.wait_answering()
            witness.check()
        except BaseException:
            print("\n".join("# " + l for l in storm.tail().split("\n")), flush=True)
            raise
        try:
            for instance in storm.instances:
                instance.send_signal(signal.SIGTERM)
            for instance in storm.instances:
                equal(instance.wait_end(15), 0, f"exit status of {instance.name}")
            storm.end_orphans()
            no_helpers_left(storm.instances[0].folder)
            samples, pages, twos, longest = witness.stop()
            last = log.check_terms()
            witness.check()
            gaps = [(a, b) for a, b in witness.gaps() if a < faults[-1] + 20 * SECOND]
            late = []
            for since, until in gaps:
                fault = max((f for f in faults if f <= until), default=since)
                if until - fault > (TTL_MS + 2000) * MS:
                    late.append((until - fault) / MS)
            promotions = len(log.lines("promote"))
            print(f"# {samples} samples of {pages} pages, longest step {longest / MS:.0f} ms; "
                  f"{promotions} promotions, last term {last.get('web')}; longest time without a "
                  f"lease {max(((b - a) / MS for a, b in gaps), default=0):.0f} ms", flush=True)
            equal(late, [], "ms from a fault to the next executor, where too long")
            for name in ("only", "again"):
                check(last.get(name), f"{name} was never promoted")
            check(promotions >= FAULTS / 4, f"{promotions} promotions by {FAULTS} faults")
            check(pages >= 6 and samples > FAULTS, f"the witness saw {pages} pages {samples} times")
        except BaseException:
            print("\n".join("# " + l for l in storm.tail().split("\n")), flush=True)
            raise


if __name__ == "__main__":
    main()

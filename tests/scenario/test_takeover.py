#!/usr/bin/python3
"""Takeovers: what dies, stops or hangs, who comes after it, and never too early."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from election import *  # noqa: E402,F403

LONG = dict(ttl="20s", heartbeat="2s")      # a ttl that no test waits for: only proofs are fast
MS = 1_000_000


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def id_of(instance):
    return instance.status()["instance"]["id"]


def standby(instance, timeout=5):
    """Until INSTANCE stands by with a waiter, ready to promote."""
    instance.wait_for("role=standby", timeout)
    instance.wait_for("ready=web", timeout)
    wait_until(lambda: "lock-waiter" in helpers_of(instance.pid), timeout, "a waiter")


def median(values):
    return sorted(values)[len(values) // 2]


def kin_of(log, line):
    return [line.pid] + [l.pid for l in log.lines("kin", worker=line.worker,
                                                  instance=line.instance)]


@test("supervisor killed: one of two standbys promotes within 100 ms, the dead one's tree dead")
def _():
    log = Log()
    text = scheduler(**LONG) + program(actor(log.path, "kin=9", "census"))
    all_three = [Instance(text, name="one")]
    log.wait("promote")
    for name in ("two", "three"):
        all_three.append(Instance(text, name=name, folder=all_three[0].folder))
    took = []
    for number in range(2, 9):
        told = log.wait("promote", number - 1)
        others = [i for i in all_three if i.alive and id_of(i) != told.instance]
        holder = next(i for i in all_three if i not in others)
        for other in others:
            standby(other)
        wait_until(lambda: len(log.lines("kin", instance=told.instance)) >= 18, 5, "all kin")
        pages = [p for p in lease_pages().values() if p.valid()]
        equal([(p.worker, p.term) for p in pages], [(told.worker, told.term)], "valid pages")
        start = now()
        os.kill(holder.pid, signal.SIGKILL)
        after = log.wait("promote", number, timeout=5)
        took.append((after.ns - start) / MS)
        census = log.wait("census", number)
        equal(census.rest, "none", "processes of the dead instance that lived at the promotion")
        equal(pages[0].deadline_ns, 0, "deadline in the dead executor's page")
        check(after.term > told.term, f"term {after.term} after {told.term}")
        holder.wait_end()
        if number < 8:
            holder.start()
    print("# supervisor killed, to the standby's promote line: "
          f"{median(took):.1f} ms median of {len(took)} ({', '.join(f'{t:.0f}' for t in took)})")
    check(median(took) < 1000, f"took {took} ms")
    equal(len(log.lines("promote")), 8, "promotions")
    log.check_terms()
    for i in all_three:
        if i.alive:
            i.stop()
    no_helpers_left(all_three[0].folder)


@test("a large tree below the dead executor: all of it is dead before the promotion")
def _():
    log = Log()
    one = Instance(scheduler(**LONG) + program(actor(log.path, "kin=150"), workers=1))
    first = log.wait("promote")
    wait_until(lambda: len(log.lines("kin")) >= 150, 20, "150 kin")
    two = Instance(scheduler(**LONG) + program(actor(log.path, "census"), workers=1),
                   name="two", folder=one.folder)
    standby(two)
    start = now()
    one.kill()
    second = log.wait("promote", 2)
    equal(log.wait("census").rest, "none", "processes of the dead instance at the promotion")
    equal([p for p in kin_of(log, first) if is_living(p)], [], "kin that live")
    print(f"# with 150 processes below it: {(second.ns - start) / MS:.1f} ms")


@test("supervisor and deadman killed together: only after the ttl, and the log says why")
def _():
    log = Log()
    text = scheduler(ttl="2500ms", heartbeat="300ms") + program(actor(log.path), workers=1)
    one = Instance(text)
    first = log.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    two = Instance(text, name="two", folder=one.folder)
    standby(two)
    deadman = deadman_of(one.pid)
    os.kill(one.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(one.pid) == "T", 2)
    os.kill(deadman, signal.SIGKILL)
    start = now()
    one.kill()
    two.wait_log("lock.unproven.*whole ttl", 2)
    info = lock_info(one.config)
    equal((info["state"], info["holder"]["life"], info["holder"]["pid"]),
          ("held", "gone", one.pid), "lock info")
    second = log.wait("promote", 2)
    took = (second.ns - start) / MS
    check(2500 - 300 - 20 <= took <= 2500 + 300 + 1500, f"promoted after {took} ms, ttl 2500")
    check(page.deadline_ns < second.ns, "promoted before the old page's deadline")
    two.wait_log("no heartbeat for a whole ttl")
    check(second.term > first.term, f"term {second.term} after {first.term}")


@test("deadman killed alone: another at once, the executor stays; then a takeover is fast")
def _():
    log = Log()
    text = scheduler(**LONG) + program(actor(log.path, "census"))
    one = Instance(text)
    first = log.wait("promote")
    two = Instance(text, name="two", folder=one.folder)
    standby(two)
    old = deadman_of(one.pid)
    for _ in range(3):
        os.kill(old, signal.SIGKILL)
        new = wait_until(lambda: next((p for p in [helpers_of(one.pid).get("lock-deadman")]
                                       if p not in (None, old)), None), 2, "another deadman")
        old = new
    one.wait_log("lock.deadman_died")
    row = one.executor()
    equal((row["pid"], row["term"], row["state"]), (first.pid, first.term, "executing"),
          "executor")
    equal(len(log.lines("promote")), 1, "promotions")
    one.call("status")      # the new deadman has been given its work: the loop is at rest
    wait_until(lambda: state_of(new) == "S", 2)
    start = now()
    one.kill()
    second = log.wait("promote", 2, timeout=5)
    print(f"# takeover under the fourth deadman: {(second.ns - start) / MS:.1f} ms")
    equal(log.wait("census", 2).rest, "none", "processes of the dead instance")


@test("deadman stopped: nobody is promoted under it; it is replaced, then somebody is")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path)))
    first = log.wait("promote")
    one.wait_for("ready=web")
    deadman = deadman_of(one.pid)
    os.kill(deadman, signal.SIGSTOP)
    try:
        os.kill(first.pid, signal.SIGKILL)
        one.wait_log("lock.deadman_stuck", 5)
        equal(len(log.lines("promote")), 1, "promotions without a deadman")
        second = log.wait("promote", 2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(deadman, signal.SIGCONT)
    check(second.term > first.term, f"term {second.term} after {first.term}")
    check(deadman_of(one.pid) != deadman and not is_living(deadman), "the stopped one serves")


@test("supervisor stopped: its executor is dead at the hard deadline, another takes over after "
      "the ttl; continued, it stands by and says so")
def _():
    log = Log()
    text = scheduler(ttl="2500ms", heartbeat="300ms") + program(actor(log.path, "kin=6"))
    one = Instance(text)
    first = log.wait("promote")
    wait_until(lambda: len(log.lines("kin")) >= 12, 5)
    mine = kin_of(log, first)
    page = next(p for p in lease_pages().values()
                if p.worker == first.worker and p.instance == first.instance)
    others = {w["pid"] for w in one.workers("web")} - {first.pid}
    two = Instance(text, name="two", folder=one.folder)
    standby(two)
    os.kill(one.pid, signal.SIGSTOP)
    start = now()
    try:
        wait_until(lambda: state_of(one.pid) == "T", 2)
        end = page.deadline_ns
        check(end > start, f"deadline {end} at {start}")
        sleep_until(end - 100 * MS)
        equal([p for p in mine if not is_living(p)], [], "dead before the deadline")
        wait_until(lambda: page.deadline_ns == 0, 2, "the page to be cleared")
        cleared = now()
        wait_until(lambda: not any(is_living(p) for p in mine), 2, "the end of the executor")
        print(f"# page cleared {(cleared - end) / MS:.1f} ms, tree dead {(now() - end) / MS:.1f} "
              "ms after the hard deadline")
        check(end <= cleared <= end + 500 * MS, f"cleared {(cleared - end) / MS} ms after it")
        second = log.wait("promote", 2)
        took = (second.ns - start) / MS
        check(2500 - 300 - 20 <= took <= 2500 + 300 + 1500, f"promoted after {took} ms")
        equal([p for p in others if not is_living(p)], [], "other workers that died with it")
    finally:
        os.kill(one.pid, signal.SIGCONT)
    one.wait_log("lock.lost")
    one.wait_for("role=standby")
    one.wait_log("lock.held_elsewhere")
    equal(one.executor(), None, "executor of the one that came back")
    equal(two.executor()["pid"], second.pid, "executor of the other")
    log.check_terms()


@test("supervisor and deadman frozen together: the lease ends by itself, the thawed ones kill and "
      "stand by")
def _():
    log = Log()
    text = scheduler(ttl="2500ms", heartbeat="300ms") + program(actor(log.path), workers=1)
    one = Instance(text)
    first = log.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    two = Instance(text, name="two", folder=one.folder)
    standby(two)
    frozen = [one.pid, deadman_of(one.pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        second = log.wait("promote", 2)
        check(0 < page.deadline_ns < second.ns, f"promoted at {second.ns}, lease till "
              f"{page.deadline_ns}")
        check(is_living(first.pid), "the old executor was killed by somebody")
        check(not page.valid(), "the old lease is valid")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not is_living(first.pid), 3, "the end of the old executor")
    one.wait_log("lock.lost")
    one.wait_for("role=standby")
    equal(two.executor()["pid"], second.pid, "executor")
    log.check_terms()


@test("stopped for longer than its lease with nobody else: a new epoch, the old one never again")
def _():
    log = Log()
    one = Instance(scheduler(ttl="2s", heartbeat="300ms", grace="300ms") +
                   program(actor(log.path)))
    first = log.wait("promote")
    epoch = one.status()["lock"]["epoch"]
    page = next(p for p in lease_pages().values()
                if p.worker == first.worker and p.instance == first.instance)
    os.kill(one.pid, signal.SIGSTOP)
    wait_until(lambda: not is_living(first.pid), 5, "the end of the executor")
    sleep_until(page.deadline_ns + 700 * MS)
    os.kill(one.pid, signal.SIGCONT)
    second = log.wait("promote", 2)
    check(second.pid != first.pid and second.term > first.term + 1,
          f"term {second.term} after {first.term}")
    check(one.status()["lock"]["epoch"] > epoch, f"epoch {one.status()['lock']['epoch']}, {epoch}")
    one.wait_log("lock.lost")


@test("on_supervisor_death = keep: executors and candidates die with the supervisor, others serve")
def _():
    log = Log()
    text = "[baton]\non_supervisor_death = keep\n" + scheduler(**LONG) + \
        program(actor(log.path)) + program(actor(log.path), name="plain", executor="no")
    one = Instance(text)
    first = log.wait("promote")
    one.wait_for("ready=plain")
    plain = [w["pid"] for w in one.workers("plain")]
    try:
        one.kill()
        wait_until(lambda: not is_living(first.pid), 3, "the end of the executor")
        wait_until(lambda: lock_info(one.config)["holder"]["life"] == "dead", 3, "the mark")
        equal([p for p in plain if not is_living(p)], [], "plain workers that died")
    finally:
        for pid in plain:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@test("supervisor stopped for less than its lease goes on as if nothing had been")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path)))
    first = log.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    os.kill(one.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(one.pid) == "T", 2)
    sleep_until(page.deadline_ns - 1000 * MS)
    before = page.deadline_ns
    os.kill(one.pid, signal.SIGCONT)
    wait_until(lambda: page.deadline_ns > before, 3, "a heartbeat")
    row = one.executor()
    equal((row["pid"], row["term"]), (first.pid, first.term), "executor")


@test("executor stopped while the supervisor lives: it keeps the lease; with a watchdog it is "
      "replaced")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "watchdog"), more="watchdog = 1s"))
    first = log.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    one.wait_for("ready=web")
    before = page.heartbeats
    wait_until(lambda: page.heartbeats >= before + 5, 5, "five heartbeats, with the dog fed")
    os.kill(first.pid, signal.SIGSTOP)
    second = log.wait("promote", 2)
    check(second.pid != first.pid and not is_living(first.pid), f"{first.pid} {second.pid}")
    log2 = Log()
    two = Instance(scheduler() + program(actor(log2.path)), name="two")
    first = log2.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    os.kill(first.pid, signal.SIGSTOP)
    before = page.heartbeats
    wait_until(lambda: page.heartbeats >= before + 4, 5, "four heartbeats")
    equal((two.executor()["pid"], len(log2.lines("promote"))), (first.pid, 1), "executor")
    os.kill(first.pid, signal.SIGCONT)


@test("keeper killed, over and over: another for the next request, the executor stays")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path)))
    first = log.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    for _ in range(5):
        keeper = wait_until(lambda: helpers_of(one.pid).get("lock-keeper"), 3, "a keeper")
        os.kill(keeper, signal.SIGKILL)
        before = page.heartbeats
        wait_until(lambda: page.heartbeats > before, 3, "a heartbeat")
    row = one.executor()
    equal((row["pid"], row["term"]), (first.pid, first.term), "executor")
    one.wait_log("lock.keeper_died")


@test("keeper stopped: demoted before the lease ends, a standby takes over, it comes back as one")
def _():
    log = Log()
    text = scheduler(ttl="2500ms", heartbeat="300ms") + program(actor(log.path))
    one = Instance(text)
    first = log.wait("promote")
    page = next(p for p in lease_pages().values() if p.pid == first.pid)
    two = Instance(text, name="two", folder=one.folder)
    standby(two)
    keeper = helpers_of(one.pid)["lock-keeper"]
    os.kill(keeper, signal.SIGSTOP)
    try:
        demoted = log.wait("demote")
        equal((demoted.pid, demoted.rest), (first.pid, "lost"), "demote")
        check(demoted.ns < page.deadline_ns or page.deadline_ns == 0, "told after its deadline")
        second = log.wait("promote", 2)
        check(second.instance != first.instance, "the instance without a keeper promoted")
        check(not page.valid(second.ns), "two valid leases")
        check(is_living(first.pid), "the demoted worker was killed")
        one.wait_for("role=standby", 15)
        one.wait_log("lock.keeper_stuck", 12)
        one.wait_log("lock.held_elsewhere")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGCONT)
    equal(two.executor()["pid"], second.pid, "executor")


@test("waiter killed: another one waits, the takeover is as fast")
def _():
    log = Log()
    text = scheduler(**LONG) + program(actor(log.path, "census"))
    one = Instance(text)
    log.wait("promote")
    two = Instance(text, name="two", folder=one.folder)
    standby(two)
    for _ in range(2):
        old = helpers_of(two.pid)["lock-waiter"]
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: helpers_of(two.pid).get("lock-waiter") not in (None, old), 5,
                   "another waiter")
    start = now()
    one.kill()
    second = log.wait("promote", 2, timeout=5)
    print(f"# takeover after two dead waiters: {(second.ns - start) / MS:.1f} ms")


@test("PID 1 of a container: killed with all of it, another takes over about 100 ms later")
def _():
    prefix = in_pid_namespace() or skip("PID namespaces are not permitted here")
    log = Log()
    text = scheduler(**LONG) + program(actor(log.path, "kin=6"))
    all_two = [Contained(text, name="one", prefix=prefix)]
    log.wait("promote")
    all_two.append(Contained(text, name="two", folder=all_two[0].folder, prefix=prefix))
    took = []
    for number in range(2, 5):
        told = log.wait("promote", number - 1)
        holder = next(i for i in all_two if id_of(i) == told.instance)
        other = next(i for i in all_two if i is not holder)
        standby(other)
        equal(holder.status()["instance"]["pid"], 1, "pid inside")
        inside = [p for p in marked_processes()
                  if environment_of(p).get("BATON_INSTANCE") == told.instance]
        check(len(inside) >= 8, f"processes inside: {inside}")
        start = now()
        holder.send_signal(signal.SIGKILL)
        after = log.wait("promote", number, timeout=5)
        took.append((after.ns - start) / MS)
        equal([p for p in inside if is_living(p)], [], "processes of that container")
        holder.wait_end()
        if number < 4:
            holder.start()
    print(f"# container killed, to the promote line of the other: {median(took):.1f} ms median")
    check(100 <= min(took) and median(took) < 1100, f"took {took} ms")
    check(any("container is gone" in l for i in all_two for l in i.lines), "reason in the log")
    log.check_terms()


@test("as PID 1 it reaps orphans, passes no zombie on, stops at TERM with status 0")
def _():
    prefix = in_pid_namespace() or skip("PID namespaces are not permitted here")
    log = Log()
    one = Contained(scheduler() + program(actor(log.path, "orphans=20")), prefix=prefix)
    log.wait("promote")
    wait_until(lambda: len(log.lines("orphan")) == 40, 5, "40 orphans")
    init = one.pid

    def zombies():
        return [p for p in children_of(init) if state_of(p) == "Z"]

    try:
        wait_until(lambda: not zombies(), 2)
    except Failed:
        raise Failed(f"zombies: {zombies()}") from None
    os.kill(init, signal.SIGTERM)
    equal(one.wait_end(), 0, "exit status")
    equal(lock_row(one.path("baton.db"))["state"], 0, "state of the row")


@test("a machine id and boot id of another machine: only the ttl decides, fast or not")
def _():
    log = Log()
    text = scheduler(ttl="1500ms", heartbeat="200ms", grace="200ms") + program(actor(log.path))
    one = Instance(text, start=False)
    one.start()
    log.wait("promote")
    one.kill()
    wait_until(lambda: lock_info(one.config)["holder"]["life"] == "dead", 5, "the deadman's mark")
    with contextlib.closing(sqlite3.connect(one.path("baton.db"))) as db, db:
        db.execute("UPDATE scheduler_lock SET boot_id = 'another', machine_id = 'another'")
    start = now()
    one.start()
    second = log.wait("promote", 2)
    took = (second.ns - start) / MS
    check(1500 <= took <= 3500, f"promoted after {took} ms at a ttl of 1500 ms")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""The election on the real binary: promotions, handoffs, what workers do to it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from election import *  # noqa: E402,F403


def page_of(worker_pid):
    """The lease page of the worker with that pid."""
    for page in lease_pages().values():
        if page.pid == worker_pid:
            return page
    raise Failed(f"no lease page of pid {worker_pid}")


def valid_pages():
    return [(p.worker, p.term) for p in lease_pages().values() if p.valid()]


def pids(instance, name="web"):
    return {w["name"]: w["pid"] for w in instance.workers(name)}


@test("first start: one executor; its line, page, row, status and lock info agree")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path), workers=3))
    told = log.wait("promote")
    one.wait_for("executor")
    row, status, page = one.executor(), one.status(), page_of(told.pid)
    equal((row["worker"], row["pid"], row["term"]), (told.worker, told.pid, told.term), "status")
    equal(page.term, told.term, "term of the page")
    check(page.valid(), "the page is not valid")
    equal(valid_pages(), [(told.worker, told.term)], "valid pages")
    left = page.deadline_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    check(0 < left <= 3 * SECOND - 60_000_000 - 500_000_000, f"{left} ns of lease at a ttl of 3 s")
    equal(page.deadline_ns - page.soft_ns, 500_000_000, "kill grace between soft and hard")
    equal(lock_row(one.path("baton.db"))["term"], told.term, "term of the row")
    equal(status["lock"]["role"], "holder", "role")
    info = lock_info(one.config)
    equal((info["state"], info["term"], info["holder"]["life"], info["holder"]["pid"]),
          ("held", told.term, "alive", one.pid), "lock info")
    equal([(x["program"], x["worker"], x["pid"], x["term"]) for x in info["executors"]],
          [("web", told.worker, told.pid, told.term)], "executors of lock info")
    wait_until(lambda: one.executor()["answered"], 5, "the answer to the promotion")
    before = page.deadline_ns
    wait_until(lambda: page.deadline_ns > before, 3, "a heartbeat")
    equal(page.term, told.term, "term after a heartbeat")
    equal(len(log.lines("promote")), 1, "promotions")


@test("kill -9 of the executor, five times: the next one, a higher term, promptly")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path), workers=3))
    took = []
    for number in range(1, 6):
        told = log.wait("promote", number)
        one.wait_for(f"executor={told.pid}")
        old = page_of(told.pid)
        start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.kill(told.pid, signal.SIGKILL)
        after = log.wait("promote", number + 1)
        took.append((after.ns - start) / 1e6)
        equal(old.deadline_ns, 0, "deadline of the dead one's page")
        check(after.pid != told.pid, "the dead one was promoted")
        check(after.term > told.term, f"term {after.term} after {told.term}")
        equal(valid_pages(), [(after.worker, after.term)], "valid pages")
        one.wait_for("ready=web")
    print(f"# kill to the new worker's promote line: {sorted(took)[2]:.1f} ms median of 5")
    check(sorted(took)[2] < 1000, f"took {took} ms")
    log.check_terms()
    reasons = [h["reason"] for h in json.loads(one.cli("lock", "history", "--json").out)]
    check(len(reasons) >= 6 and reasons.count("died") == 5, f"history: {reasons}")


@test("what the dead executor left behind is killed before the next one is told")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "kin=12"), stop=1))
    told = log.wait("promote")
    born = [l.pid for l in wait_until(lambda: (lambda k: k if len(k) == 24 else None)
                                      (log.lines("kin")), 5, "24 kin")]
    mine = [l.pid for l in log.lines("kin", worker=told.worker)]
    equal(len(mine), 12, f"kin of {told.worker} (of {len(born)})")
    os.kill(told.pid, signal.SIGKILL)
    log.wait("promote", 2)
    equal([p for p in mine if is_living(p)], [], "kin of the dead one that live")


@test("respawn: the dead worker's replacement becomes executor; no healthy worker is stopped")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "quiet"), workers=3,
                                         more="promote = respawn"))
    one.wait_for("executor")
    one.wait_for("ready=web")
    row, before = one.executor(), pids(one)
    said = log.wait("born", pid=row["pid"])
    equal((said.rest, said.term), ("1", row["term"]), "BATON_EXECUTOR and BATON_TERM")
    for l in log.lines("born"):
        check(l.pid == row["pid"] or l.rest == "0" and l.term == 0,
              f"BATON_EXECUTOR of another worker: {l}")
    born = len(log.lines("born"))
    os.kill(row["pid"], signal.SIGKILL)
    one.wait_for(f"executor!={row['pid']}")
    one.wait_for("executor")
    after = one.executor()
    equal(after["worker"], row["worker"], "worker of the next executor")
    check(after["term"] > row["term"], f"term {after['term']} after {row['term']}")
    said = log.wait("born", pid=after["pid"])
    equal((said.rest, said.term), ("1", after["term"]), "BATON_EXECUTOR and BATON_TERM")
    equal({k: v for k, v in pids(one).items() if k != row["worker"]},
          {k: v for k, v in before.items() if k != row["worker"]}, "the healthy workers")
    equal(len(log.lines("born")), born + 1, "workers started")
    equal(page_of(after["pid"]).term, after["term"], "term of the page")


@test("respawn: a handoff makes the one a 0 and another a 1")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "quiet"), more="promote = respawn"))
    one.wait_for("executor")
    one.wait_for("ready=web")
    row = one.executor()
    other = next(n for n in pids(one) if n != row["worker"])
    one.cli("handoff", other, status=0)
    wait_until(lambda: (one.executor() or {}).get("worker") == other, 10, "the handoff")
    one.wait_for("ready=web")
    after = one.executor()
    equal(log.wait("born", pid=after["pid"]).rest, "1", "BATON_EXECUTOR of the successor")
    equal(log.wait("born", pid=pids(one)[row["worker"]]).rest, "0", "of the old one")
    check(after["term"] > row["term"], f"term {after['term']} after {row['term']}")
    check(not is_living(row["pid"]), "the old executor's process lives")


@test("signal: promote_signal at promotion; demoted by demote_signal and its exit")
def _():
    log = Log()
    one = Instance(scheduler() + program(
        actor(log.path, "quiet", "leave"), more="promote = signal\npromote_signal = USR1\n"
        "demote_signal = USR2"))
    first = log.wait("signal", rest="USR1")
    equal(one.executor()["pid"], first.pid, "executor")
    one.wait_for("ready=web")
    one.cli("handoff", status=0)
    second = log.wait("signal", 2, rest="USR1")
    check(second.pid != first.pid, "the same one")
    end = log.wait("end", pid=first.pid)
    check(end.ns < second.ns, f"promoted {second} before the end {end}")
    os.kill(second.pid, signal.SIGKILL)
    third = log.wait("signal", 3, rest="USR1")
    check(third.pid != second.pid, "the dead one")


@test("executor = only: one worker over two instances, `standby` elsewhere, moves at a death")
def _():
    log = Log()
    text = scheduler() + program(actor(log.path), name="beat", workers=1, executor="only")
    one = Instance(text)
    one.wait_for("executor")
    two = Instance(text, name="two", folder=one.folder)
    two.wait_log("lock.held_elsewhere")
    wait_until(lambda: two.workers("beat")[0]["state"] == "standby", 5, "state standby")
    two.cli("status", "--health", status=0)
    log.wait("ready")
    born = log.lines("born")
    equal([(b.rest, b.pid) for b in born], [("1", one.executor()["pid"])], "born")
    os.kill(born[0].pid, signal.SIGKILL)
    again = log.wait("born", 2)
    one.wait_for("executor")
    equal(one.executor()["pid"], again.pid, "executor after a kill")
    check(again.term > born[0].term, f"term {again.term} after {born[0].term}")
    one.kill()
    moved = log.wait("born", 3)
    check(not is_living(again.pid), "the old one lives")
    two.wait_for("executor")
    equal((two.executor()["pid"], moved.rest), (moved.pid, "1"), "executor of the standby")
    check(moved.term > again.term, f"term {moved.term} after {again.term}")


@test("executor = only: a shutdown of the holder hands it over; the worker is stopped first")
def _():
    log = Log()
    text = scheduler() + program(actor(log.path), name="beat", workers=1, executor="only")
    one = Instance(text)
    log.wait("ready")
    two = Instance(text, name="two", folder=one.folder)
    two.wait_log("lock.held_elsewhere")
    one.stop()
    moved = log.wait("born", 2)
    check(log.lines("end")[0].ns < moved.ns, f"it was not ended first:\n{log.text()}")


@test("two programs under one lock: the hang and the poison of others cost one nothing")
def _():
    log = Log()
    one = Instance(scheduler(more="handoff_timeout = 1s") +
                   program(actor(log.path), name="good") +
                   program(actor(log.path, "deaf", "stubborn"), name="hang") +
                   program(actor(log.path, "poison"), name="bad", more="startretries = -1"))
    one.wait_for("ready=hang")
    one.wait_for("ready=good")
    executing = lambda name: wait_until(lambda: next(
        (x for x in one.status()["executors"]
         if x["program"] == name and x["state"] == "executing"), None), 5, f"executor of {name}")
    good, hang = executing("good"), executing("hang")
    wait_until(lambda: len([l for l in log.lines("promote") if l.worker.startswith("bad")]) >= 3,
               10, "three deaths of bad's executors")
    os.kill(hang["pid"], signal.SIGSTOP)
    one.cli("handoff", "hang", timeout=30)
    wait_until(lambda: (one.executor("hang") or hang)["pid"] != hang["pid"], 10, "the handoff")
    check(not is_living(hang["pid"]), "the hanging one lives")
    now = one.executor("good")
    equal((now["pid"], now["term"]), (good["pid"], good["term"]), "the other's executor")
    check(page_of(good["pid"]).valid(), "its page")
    equal(len([l for l in log.lines("promote") if l.worker.startswith("good")]), 1,
          "promotions of good")
    log.check_terms()


@test("handoff to a named worker: demoted before the other is promoted; both pids stay")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path), workers=3))
    first = log.wait("promote")
    one.wait_for("ready=web")
    before = pids(one)
    target = next(n for n in before if n != first.worker)
    one.cli("handoff", target, status=0)
    second = log.wait("promote", 2)
    equal(second.worker, target, "successor")
    demoted = log.wait("demote")
    equal((demoted.pid, demoted.term, demoted.rest), (first.pid, first.term, "handoff"), "demote")
    check(demoted.ns < second.ns, "promoted before the other was demoted")
    one.wait_for(f"executor={second.pid}")
    equal(pids(one), before, "pids after the handoff")
    one.cli("handoff", status=0)
    check(log.wait("promote", 3).worker != target, "handoff without a name moved nothing")
    refused = one.cli("handoff", "web:9")
    check(refused.status != 0 and "web:9" in refused.err, f"handoff to nobody: {refused}")


@test("handoff: a worker that does not answer gets TERM, then KILL; no overlap")
def _():
    log = Log()
    one = Instance(scheduler(more="handoff_timeout = 700ms") +
                   program(actor(log.path, "deaf", "stubborn")))
    first = log.wait("promote")
    one.wait_for("ready=web")
    page = page_of(first.pid)
    start = boottime()
    one.cli("handoff", timeout=30)
    asked = log.wait("demote")
    termed = log.wait("signal", rest="TERM", pid=first.pid)
    second = log.wait("promote", 2)
    check(asked.ns + 600_000_000 <= termed.ns, f"TERM {termed.ns - asked.ns} ns after demote")
    check(second.ns >= termed.ns + 900_000_000, "KILL came before stopwaitsecs")
    check(not is_living(first.pid), "the old one lives")
    equal(page.deadline_ns, 0, "its page")
    check(boottime() - start < 8, f"took {boottime() - start} s")


@test("handoff: `busy` is waited for")
def _():
    log = Log()
    one = Instance(scheduler(more="handoff_timeout = 20s") + program(actor(log.path, "busy")))
    first = log.wait("promote")
    one.wait_for("ready=web")
    wait_until(lambda: one.executor()["busy"] == 1, 5, "busy 1 in status")
    handing = threading.Thread(target=lambda: one.cli("handoff", timeout=30))
    handing.start()
    try:
        log.wait("demote")
        wait_until(lambda: one.status()["executors"][0]["state"] == "draining", 5, "draining")
        mark = page_of(first.pid).heartbeats
        wait_until(lambda: page_of(first.pid).heartbeats >= mark + 2, 5, "two heartbeats")
        equal(len(log.lines("promote")), 1, "promotions while the other is busy")
        check(page_of(first.pid).valid(), "the lease of the busy one has ended")
        os.kill(first.pid, signal.SIGUSR1)
        second = log.wait("promote", 2)
        check(second.pid != first.pid, "the same one")
        check(is_living(first.pid), "the busy one was killed")
        os.kill(second.pid, signal.SIGUSR1)
        log.wait("signal", 2, rest="USR1")
    finally:
        handing.join()


@test("handoff --away: a second instance takes over; the first stays out, then stands by")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path)))
    first = log.wait("promote")
    two = Instance(scheduler() + program(actor(log.path)), name="two", folder=one.folder)
    two.wait_log("lock.held_elsewhere")
    two.wait_for("ready=web")
    one.cli("handoff", "--away", status=0)
    second = log.wait("promote", 2)
    check(second.instance != first.instance, "it stayed in the instance")
    check(log.lines("demote")[0].ns < second.ns, "demoted after the other's promotion")
    one.wait_for("role=standby")
    one.wait_log("lock.held_elsewhere")
    check(is_living(first.pid), "the demoted worker was stopped")
    equal(len(log.lines("promote")), 2, "promotions")


@test("hooks: on_holder, on_promote, on_demote, on_standby run with what happened")
def _():
    log = Log()
    out = os.path.join(folder(), "hooks")
    hook = f"sh -c 'echo $BATON_EVENT $BATON_WORKER $BATON_TERM >>{out}'"
    text = scheduler(more="\n".join(f"on_{k} = {hook}" for k in
                                    ("promote", "demote", "standby", "holder"))) + \
        program(actor(log.path))

    def lines():
        with contextlib.suppress(OSError), open(out, encoding="ascii") as f:
            return f.read().splitlines()
        return []

    one = Instance(text)
    first = log.wait("promote")
    wait_until(lambda: f"promote {first.worker} {first.term}" in lines(), 5, f"hook: {lines()}")
    wait_until(lambda: any(l.startswith("holder ") for l in lines()), 5, "on_holder")
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: f"demote {first.worker} {first.term}" in lines(), 5, f"hook: {lines()}")
    Instance(text, name="two", folder=one.folder)
    wait_until(lambda: any(l.startswith("standby") for l in lines()), 5, "on_standby")


@test("hooks that hang or fail delay nothing")
def _():
    log = Log()
    one = Instance(scheduler(more="on_promote = sleep 1000\non_demote = /nonexistent/x\n"
                             "on_holder = false") + program(actor(log.path)))
    for number in range(1, 4):
        told = log.wait("promote", number)
        one.wait_for("ready=web")
        os.kill(told.pid, signal.SIGKILL)
    log.wait("promote", 4)
    one.wait_log("hook.failed")


@test("when_held = exit: status 75, the holder is named; with a free lock it runs")
def _():
    log = Log()
    text = scheduler(more="when_held = exit") + program(actor(log.path))
    one = Instance(text)
    first = log.wait("promote")
    two = Instance(text, name="two", folder=one.folder, wait=False)
    equal(two.wait_end(), 75, "exit status")
    check(f"pid {one.pid}" in two.log(), f"the holder is not named:\n{two.log()}")
    check(is_living(first.pid), "the holder's executor")
    equal(len(log.lines("promote")), 1, "promotions")


@test("promote backoff: executors that die at once do not take all workers down")
def _():
    log = Log()
    one = Instance(scheduler().replace("promote_backoff = 0", "promote_backoff = 500ms") +
                   program(actor(log.path, "poison"), workers=4, more="startretries = -1"))
    lines = [log.wait("promote", n, timeout=15) for n in range(1, 5)]
    gaps = [(b.ns - a.ns) / SECOND for a, b in zip(lines, lines[1:])]
    check(gaps[1] >= 0.45 and gaps[2] >= 0.9, f"gaps between promotions: {gaps}")
    check(one.program("web")["ready"] >= 2, f"ready: {one.program('web')}")
    log.check_terms()


@test("a promotion that is never answered: event, status; the executor is kept")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "silent"),
                                         more="promote_timeout = 300ms"))
    told = log.wait("promote")
    one.wait_log("executor.unanswered.*never answered")
    row = one.executor()
    equal((row["pid"], row["answered"], row["state"]), (told.pid, False, "executing"), "status")
    check(page_of(told.pid).valid(), "its page")


@test("promote_unanswered = replace: it is replaced, another is promoted")
def _():
    log = Log()
    one = Instance(scheduler(more="handoff_timeout = 500ms") +
                   program(actor(log.path, "silent"),
                           more="promote_timeout = 300ms\npromote_unanswered = replace"))
    first = log.wait("promote")
    second = log.wait("promote", 2)
    check(second.pid != first.pid, "the same one")
    wait_until(lambda: not is_living(first.pid), 5, "the end of the silent one")
    one.wait_log("executor.unanswered")


@test("a client in a grandchild that comes later reads the page, says hello, is answered")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "late"), workers=1,
                                         more="promote_timeout = 200ms"))
    one.wait_for("executor")
    one.wait_log("executor.unanswered")
    leader, term = one.executor()["pid"], one.executor()["term"]
    # Nobody read the first line: the late one reads that, and the answer to its hello.
    os.kill(leader, signal.SIGUSR2)
    late = log.wait("promote")
    again = log.wait("promote", 2)
    check(late.pid != leader and late.pid == again.pid, f"{late} {again} below {leader}")
    equal((late.term, again.term), (term, term), "terms")
    wait_until(lambda: one.executor()["answered"], 5, "the late answer in status")


@test("nonsense, binary, an endless line on the channel: warned about, survived, not obeyed")
def _():
    log = Log()
    one = Instance(scheduler() + program(actor(log.path, "garbage")))
    told = log.wait("promote")
    one.wait_log("channel.malformed")
    one.wait_for("ready=web")
    equal(one.executor()["pid"], told.pid, "executor")
    one.cli("handoff", status=0)
    check(log.wait("promote", 2).pid != told.pid, "the same one")
    count = sum("channel.malformed" in l for l in one.lines)
    check(count < 60, f"{count} warnings")
    equal(one.status()["instance"]["state"], "running", "state")


@test("a worker that closes its channel serves on, and its handoff ends it in time")
def _():
    log = Log()
    one = Instance(scheduler(more="handoff_timeout = 500ms") + program(
        actor(log.path, "close"), workers=2))
    one.wait_for("executor")
    one.wait_for("ready=web")
    first = one.executor()
    check(page_of(first["pid"]).valid(), "its page")
    one.cli("handoff", timeout=20)
    one.wait_for(f"executor!={first['pid']}")
    wait_until(lambda: not is_living(first["pid"]), 5, "the end of the old one")


@test("a ttl that is too short is refused with the arithmetic, nothing is started")
def _():
    log = Log()
    one = Instance(scheduler(ttl="2s", heartbeat="600ms") + program(actor(log.path)), start=False)
    r = baton("run", "-c", one.config, "-s", one.socket, status=78)
    check(re.search(r"one\.ini:\d+.*ttl.*2\.490 s = 3 \* heartbeat \(1\.800 s\)", r.err), r.err)
    equal(log.lines(), [], "workers started")
    check(not os.path.exists(one.path("baton.db")), "a database was made")


@test("shutdown: executor drained first, lock released, a standby promotes at once")
def _():
    log = Log()
    text = scheduler(ttl="20s", heartbeat="3s") + program(actor(log.path, "census"))
    one = Instance(text)
    first = log.wait("promote")
    two = Instance(text, name="two", folder=one.folder)
    two.wait_log("lock.held_elsewhere")
    two.wait_for("ready=web")
    start = boottime()
    one.stop()
    ended = boottime() - start
    second = log.wait("promote", 2, timeout=3)
    check(second.instance != first.instance, "it stayed")
    demoted = log.wait("demote")
    equal((demoted.pid, demoted.rest), (first.pid, "shutdown"), "demote")
    ends = log.lines("end", pid=first.pid)
    check(ends and demoted.ns < ends[0].ns < second.ns, f"order in:\n{log.text()}")
    took = boottime() - start
    print(f"# stopped after {ended * 1000:.0f} ms, next executor "
          f"{(second.ns - ends[0].ns) / 1e6:.1f} ms after the old one's end")
    check(took < 3, f"took {took} s at a ttl of 20 s")


@test("shutdown of the only instance frees the row; a restart takes it at once")
def _():
    log = Log()
    one = Instance(scheduler(ttl="20s", heartbeat="3s") + program(actor(log.path)))
    first = log.wait("promote")
    one.stop()
    equal(lock_row(one.path("baton.db"))["state"], 0, "state of the row")
    info = lock_info(one.config)
    equal((info["state"], info["holder"], info["executors"]), ("free", None, []), "lock info")
    start = boottime()
    one.start()
    second = log.wait("promote", 2, timeout=3)
    check(boottime() - start < 3, f"took {boottime() - start} s at a ttl of 20 s")
    check(second.term > first.term, f"term {second.term} after {first.term}")


@test("kill -9 of the only instance, started anew: it takes the lock at once")
def _():
    log = Log()
    one = Instance(scheduler(ttl="20s", heartbeat="3s") + program(actor(log.path, "census")))
    first = log.wait("promote")
    one.kill()
    one.start()
    second = log.wait("promote", 2, timeout=4)
    check(second.term > first.term, f"term {second.term} after {first.term}")
    equal(log.wait("census", 2).rest, "none", "processes of the dead instance that live")


if __name__ == "__main__":
    main()

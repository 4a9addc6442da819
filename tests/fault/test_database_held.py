#!/usr/bin/python3
"""What happens to the lock database and its side files while an instance leads by it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from faults import *  # noqa: E402,F403


def stops_within(page, start, limit_ms, what):
    wait_until(lambda: not page.valid(), 5, f"the end of the lease ({what})")
    took = (now() - start) / MS
    print(f"# {what}: the old lease ended after {took:.1f} ms")
    check(took < limit_ms, f"{what}: the old lease was valid for {took} ms, wanted {limit_ms}")


def goes_on(one, log, first, start, what, quiet=True):
    """A new executor above the floor, not before a ttl of silence."""
    second = log.wait("promote", 2)
    took = (second.ns - start) / MS
    check(second.term > first.term, f"{what}: term {second.term} after {first.term}")
    if quiet:
        check(took >= TTL_MS - 5, f"{what}: promoted {took} ms later, ttl {TTL_MS}")
    log.check_terms()
    return second


IN_MS = 150     # inotify: milliseconds on an idle machine; loose for a loaded one


@test("deleted while held: the holder stops at once, goes on above the floor, says why")
def _():
    one, log, first, database = begin()
    page, start = page_of(first), now()
    os.unlink(database)
    stops_within(page, start, IN_MS, "deleted")
    one.wait_log("lock.lost.*(replaced|deleted)")
    one.wait_log("lock.floor_conflict")
    goes_on(one, log, first, start, "deleted")
    wait_until(lambda: not is_living(first.pid), 2, "the end of the old executor")


@test("deleted with its folder: the holder stops at once; the folder made again, it goes on")
def _():
    log = Log()
    place = os.path.join(folder(), "volume")
    os.mkdir(place)
    one = Instance(text_with(os.path.join(place, "baton.db"), log))
    first = log.wait("promote")
    page, start = page_of(first), now()
    os.rename(place, place + ".away")       # a slow deletion meets what is made anew
    shutil.rmtree(place + ".away")
    stops_within(page, start, IN_MS, "folder deleted")
    unavailable(one, "cannot find the folder")
    os.mkdir(place)
    second = log.wait("promote", 2)
    check(second.term > first.term, f"term {second.term} after {first.term}")


@test("deleted with all side files, the holder frozen: no other leads before its lease ends")
def _():
    one, log, first, database = begin()
    two = Instance(text_with(database, log), name="two")
    two.wait_for("ready=web")
    two.wait_log("lock.held_elsewhere")
    page = page_of(first)
    others = [p for p in lease_pages().values() if p.instance != first.instance]
    os.kill(one.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(one.pid) == "T", 2)
        end = page.deadline_ns
        for name in os.listdir(os.path.dirname(database)):
            if name.startswith("baton.db"):
                os.unlink(os.path.join(os.path.dirname(database), name))
        wait_until(lambda: any(p.valid() for p in others), 10, "the other's lease")
        began = now()
        check(began >= end, f"the other led {(end - began) / MS} ms before the old lease ended")
    finally:
        os.kill(one.pid, signal.SIGCONT)
    one.wait_log("lock.lost")


@test("deleted while the supervisor stops: it ends all the same")
def _():
    one, log, first, database = begin()
    os.kill(one.pid, signal.SIGSTOP)
    os.unlink(database)
    os.kill(one.pid, signal.SIGTERM)
    os.kill(one.pid, signal.SIGCONT)
    equal(one.wait_end(8), 0, "exit status")
    check(not is_living(first.pid), "the executor lives")


@test("replaced by another database while held: stops at once, goes on above the floor")
def _():
    other, _ = a_database()
    one, log, first, database = begin()
    page, start = page_of(first), now()
    os.rename(other, database)
    stops_within(page, start, IN_MS, "replaced")
    one.wait_log("lock.floor_conflict")
    goes_on(one, log, first, start, "replaced")


@test("an older backup renamed over it while held: stops at once, terms go on rising")
def _():
    one, log, first, database = begin()
    shutil.copy(database, database + ".old")
    one.wait_for("ready=web")
    os.kill(first.pid, signal.SIGKILL)
    second = log.wait("promote", 2)
    page, start = page_of(second), now()
    os.rename(database + ".old", database)
    stops_within(page, start, IN_MS, "older backup renamed over it")
    one.wait_log("lock.floor_conflict")
    info = lock_info(one.config)
    equal(info["floor"], {"state": "higher than the row", "term": second.term}, "lock info")
    third = log.wait("promote", 3)
    check(third.term > second.term, f"term {third.term} after {second.term}")
    check((third.ns - start) / MS >= TTL_MS - 5, f"promoted {(third.ns - start) / MS} ms later")
    log.check_terms()


@test("a fresh backup renamed over it while held: the holder stops or goes on, terms rise")
def _():
    one, log, first, database = begin()
    shutil.copy(database, database + ".copy")
    os.rename(database + ".copy", database)
    second = log.wait("promote", 2)
    check(second.term > first.term, f"term {second.term} after {first.term}")


@test("another database written into it while held (cp): stops within a heartbeat")
def _():
    other, _ = a_database()
    one, log, first, database = begin()
    page, start = page_of(first), now()
    write(database, read(other))
    stops_within(page, start, HEARTBEAT_MS + IN_MS, "overwritten by cp")
    goes_on(one, log, first, start, "overwritten")


@test("garbage written into it while held: demoted with the lease; moved away, it goes on")
def _():
    one, log, first, database = begin()
    page, start = page_of(first), now()
    write(database, b"garbage" * 5000)
    log.wait("demote", timeout=TTL_MS / 1000 + 1)
    stops_within(page, start, TTL_MS, "garbage")
    one.wait_log("lock.wrong.*damaged")
    one.wait_for("ready=web")
    info = baton("lock", "info", "-c", one.config)
    equal(info.status, 78, "status of lock info")
    os.rename(database, database + ".bad")
    goes_on(one, log, first, start, "garbage")
    equal(one.status()["instance"]["state"], "running", "state")


@test("cut to nothing while held: stops within a heartbeat, goes on above the floor")
def _():
    one, log, first, database = begin()
    page, start = page_of(first), now()
    os.truncate(database, 0)
    stops_within(page, start, HEARTBEAT_MS + IN_MS, "truncated")
    goes_on(one, log, first, start, "truncated")


@test("the row edited: a lower term or another holder is refused by the triggers")
def _():
    one, log, first, database = begin()
    for statement in ("UPDATE scheduler_lock SET term = 1", "DELETE FROM scheduler_lock",
                      "UPDATE scheduler_lock SET holder = 'me'",
                      "INSERT OR REPLACE INTO scheduler_lock(id, term, epoch, state, ttl_ms)"
                      " VALUES(1, 1, 1, 0, 1)"):
        try:
            sql(database, statement)
        except sqlite3.DatabaseError:
            continue
        raise Failed(f"not refused: {statement}")
    page = page_of(first)
    beats = page.heartbeats
    wait_until(lambda: page.heartbeats > beats + 1, 3, "heartbeats")
    equal(len(log.lines("promote")), 1, "promotions")


@test("the row taken by another hand, without triggers: the holder stops within a heartbeat")
def _():
    one, log, first, database = begin()
    page, start = page_of(first), now()
    sql(database, "DROP TRIGGER scheduler_lock_update",
        "UPDATE scheduler_lock SET term = 5, holder = 'me', epoch = 5")
    stops_within(page, start, HEARTBEAT_MS + IN_MS, "row taken")
    one.wait_log("lock.lost")
    goes_on(one, log, first, start, "row taken")


@test("side files deleted while held: it goes on, terms rise")
def _():
    one, log, first, database = begin()
    os.unlink(database + "-floor")
    os.unlink(database + "-guard")
    one.wait_for("ready=web")
    os.kill(first.pid, signal.SIGKILL)
    second = log.wait("promote", 2)
    check(second.term > first.term, f"term {second.term} after {first.term}")
    equal(lock_info(one.config)["floor"], {"state": "ok", "term": second.term}, "floor")


@test("a standby takes over in time although the guard was deleted")
def _():
    one, log, first, database = begin()
    two = Instance(text_with(database, log), name="two")
    two.wait_log("lock.held_elsewhere")
    os.unlink(database + "-guard")
    start = now()
    one.kill()
    second = log.wait("promote", 2)
    took = (second.ns - start) / MS
    print(f"# guard deleted: takeover after {took:.0f} ms at a ttl of {TTL_MS} ms")
    check(took < TTL_MS + HEARTBEAT_MS + 1500, f"took {took} ms")
    check(second.term > first.term, f"term {second.term} after {first.term}")


@test("a floor that cannot be written: nobody is promoted, it is said, the programs serve")
def _():
    log = Log()
    place = folder()
    database = os.path.join(place, "baton.db")
    os.mkdir(database + "-floor")
    one = Instance(text_with(database, log), folder=place)
    one.wait_log("lock.floor_failed.*Nobody is promoted")
    one.wait_for("ready=web")
    sleep_until(now() + 2 * HEARTBEAT_MS * MS)
    equal((log.lines("promote"), one.executor()), ([], None), "promotions without a floor")
    check(lock_info(one.config)["floor"]["state"] in ("unreadable", "absent"), "floor in lock info")
    os.rmdir(database + "-floor")
    told = log.wait("promote")
    equal(lock_info(one.config)["floor"], {"state": "ok", "term": told.term}, "floor")


@test("a guard that cannot be opened: no lock, it is said, the programs serve")
def _():
    log = Log()
    place = folder()
    database = os.path.join(place, "baton.db")
    os.mkdir(database + "-guard")
    one = Instance(text_with(database, log), folder=place)
    unavailable(one, "cannot open the guard")
    equal(log.lines("promote"), [], "promotions")
    os.rmdir(database + "-guard")
    log.wait("promote")


@test("a wall clock and terms beyond all bounds in the row are survived")
def _():
    database, term = a_database()
    sql(database, f"UPDATE scheduler_lock SET heartbeat_at = {1 << 62}, created_at = -5")
    log = Log()
    one = Instance(text_with(database, log))
    told = log.wait("promote")
    check(told.term > term, f"term {told.term} after {term}")
    lock_info(one.config)


if __name__ == "__main__":
    main()

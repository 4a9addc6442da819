#!/usr/bin/python3
"""baton.lock.SchedulerLock: the same election from Python."""

import fcntl
import logging
import os
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
PACKAGES = os.path.join(ROOT, "contrib", "python")
sys.path[:0] = [os.path.join(HERE, "..", "lib"), PACKAGES]

from baton import _sidefiles, _store  # noqa: E402
from baton.lock import LockError, LockWrong, SchedulerLock  # noqa: E402
from harness import (BATON, Instance, check, equal, folder, main, skip, test,  # noqa: E402
                     wait_until)

logging.disable(logging.CRITICAL)
QUICK = dict(ttl=1.0, heartbeat=0.15, margin=0.3)
SLOW = dict(ttl=60.0, heartbeat=10.0)


def database():
    return os.path.join(folder(), "baton.db")


def manual(path, **settings):
    return SchedulerLock(path, auto=False, **{**SLOW, **settings})


def byte_is_free(path, epoch):
    with open(path + "-guard", "rb") as file:
        asked = fcntl.fcntl(file, 36, struct.pack("hhqqixxxx", fcntl.F_RDLCK, 0, epoch, 1, 0))
    return struct.unpack("hhqqixxxx", asked)[0] == fcntl.F_UNLCK


class Holder:
    """A process that acquires, says its term, and answers `held?` on its standard input."""

    PROGRAM = r"""
import os, sys
from baton.lock import SchedulerLock
def say(*words):    # one write: two threads speak
    os.write(1, " ".join(map(str, words)).encode() + b"\n")
lock = SchedulerLock(sys.argv[1], ttl=1.0, heartbeat=0.15, margin=0.3, on_lost=lambda: say("lost"))
lock.acquire()
say("term", lock.term)
for line in sys.stdin:
    if line == "release\n":
        say("released", lock.release())
    else:
        say("held", lock.is_held(), lock.term)
"""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, path], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PACKAGES})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def read(self):
        return self.process.stdout.readline().split()

    def ask(self, what="held?"):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.read()


@test("the tables are those that baton makes")
def _():
    path = database()
    manual(path).info()
    with open(os.path.join(ROOT, "worker", "lock", "migrations.c"), encoding="utf-8") as source:
        text = re.search(r"schema_1\[\] =(.*?);\n(?=_Static|\n)", source.read(), re.S)[1]
    text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))
    wanted = sqlite3.connect(":memory:")
    wanted.executescript(text)
    got = sqlite3.connect(path)

    def normal(db):
        return sorted((kind, name, re.sub(r"\s+", " ", sql or "")) for kind, name, sql in
                      db.execute("SELECT type, name, sql FROM sqlite_master"))

    equal(normal(got), normal(wanted))
    for pragma in ("application_id", "user_version"):
        equal(got.execute(f"PRAGMA {pragma}").fetchone(),
              wanted.execute(f"PRAGMA {pragma}").fetchone())
    got.close()
    wanted.close()


@test("local file systems are those that baton accepts, also below a root that is no mount point")
def _():
    with open(os.path.join(ROOT, "worker", "lock", "fs.c"), encoding="utf-8") as source:
        wanted = re.findall(r"\{0x([0-9a-f]+), \"[^\"]+\", true\}", source.read())
    equal(sorted(_store._LOCAL_TYPES), sorted(int(number, 16) for number in wanted))
    check(_store._type_by_number(folder()) in _store.LOCAL_FILE_SYSTEMS, folder())
    check("0x9fa0" in _store._type_by_number("/proc"), "/proc")


@test("taken, renewed, given back: row, floor and guard say so")
def _():
    path = database()
    one, two = manual(path, name="web:0"), manual(path)
    check(one.acquire(wait=False), "not free")
    term = one.term
    check(one.is_held() and 0 < one.lease_left() <= 60 - 3.2, one.lease_left())
    info = two.info()
    equal([info[k] for k in ("term", "epoch", "beat", "held", "mine", "ttl_ms", "pid", "worker",
                             "floor")],
          [term, term, 0, True, False, 60000, os.getpid(), "web:0", term])
    equal((two.acquire(wait=False), two.is_held(), two.term), (False, False, 0))
    with open(path + "-floor", "rb") as file:
        slot = file.read(72)
    magic, version, sequence, floor, name, check_sum = struct.unpack("<IIQq40sQ", slot)
    equal((magic, version, sequence, floor, name.rstrip(b"\0").decode()),
          (0x524F4C46, 1, 1, term, info["db_uuid"]))
    equal(check_sum, _sidefiles.checksum(slot[:64]))
    equal(_sidefiles.checksum(b"a"), 0xAF63DC4C8601EC8C)     # FNV-1a's own test vector
    check(not byte_is_free(path, term), "nobody has the byte")
    check(one.heartbeat(), one.last_error)
    equal(two.info()["beat"], 1)
    check(one.release() and not one.is_held(), "not released")
    check(byte_is_free(path, term), "somebody has the byte")
    check(two.acquire(wait=False), "a free row is taken at once")
    check(two.term > term, "the term did not rise")
    equal((one.release(), one.heartbeat()), (False, False))
    rows = sqlite3.connect(path)
    equal(rows.execute("SELECT term, reason FROM lock_history ORDER BY term").fetchall(),
          [(term, "released"), (two.term, None)])
    rows.close()
    two.release()


@test("a waiting acquire follows a release; with a timeout it gives up")
def _():
    path = database()
    one, two = SchedulerLock(path, **QUICK), SchedulerLock(path, **QUICK)
    one.acquire()
    equal(two.acquire(timeout=0.1), False)
    waiter = threading.Thread(target=two.acquire)
    waiter.start()
    one.release()
    waiter.join(5)
    check(two.is_held(), "not taken over")
    two.release()


@test("the heartbeat's thread keeps the lock beyond its ttl")
def _():
    path = database()
    with SchedulerLock(path, **QUICK) as one:
        term = one.term
        wait_until(lambda: one.info()["beat"] >= 8, 5)      # 1.2 s
        equal((one.is_held(), one.term), (True, term))
        equal(manual(path).acquire(wait=False), False)


@test("a holder that was killed is followed after its ttl, not before")
def _():
    path = database()
    with Holder(path) as holder:
        term = int(holder.read()[1])
        two = SchedulerLock(path, **QUICK)
        equal(two.acquire(wait=False), False)
        holder.process.kill()
        holder.process.wait()
        began = time.monotonic()
        check(two.acquire(timeout=5), "not taken over")
        took = time.monotonic() - began
        check(0.8 <= took < 3, f"took {took} s")
        check(two.term > term, "the term did not rise")
        two.release()


@test("a holder that was stopped does not resume its epoch")
def _():
    path = database()
    with Holder(path) as holder:
        term = int(holder.read()[1])
        os.kill(holder.process.pid, signal.SIGSTOP)
        two = SchedulerLock(path, **QUICK)
        check(two.acquire(timeout=5), "not taken over")
        os.kill(holder.process.pid, signal.SIGCONT)
        equal(sorted([holder.ask(), holder.read()]), [["held", "False", "0"], ["lost"]])
        check(two.is_held() and two.term > term, "the successor lost it")
        equal(holder.ask("release"), ["released", "False"])
        check(two.heartbeat() and two.is_held(), two.last_error)
        two.release()


@test("a database that is locked: held until the deadline, then never again in that epoch")
def _():
    path = database()
    lost = threading.Event()
    one = SchedulerLock(path, **QUICK, busy_limit=0.05, on_lost=lost.set)
    one.acquire()
    term = one.term
    blocker = sqlite3.connect(path, isolation_level=None)
    # The lock's own connections are short: one of them may be in the way just now.
    wait_until(lambda: begin_exclusive(blocker), 5)
    check(one.is_held(), "lost at once")
    check(lost.wait(5), "never lost")
    equal((one.is_held(), one.term), (False, 0))
    blocker.execute("ROLLBACK")
    blocker.close()
    equal((one.heartbeat(), one.is_held()), (False, False))
    check(one.acquire(timeout=3) and one.term > term, "acquired anew under a higher term")
    one.release()


def begin_exclusive(db):
    try:
        db.execute("BEGIN EXCLUSIVE")
        return True
    except sqlite3.OperationalError:
        return False


@test("deleted, replaced, overwritten: lost at the next heartbeat")
def _():
    def delete(path, _other):
        os.unlink(path)

    def replace(path, other):
        os.replace(other, path)

    def overwrite(path, other):
        with open(other, "rb") as source, open(path, "r+b") as target:
            target.write(source.read())
            target.truncate()

    for harm in (delete, replace, overwrite):
        path, other = database(), database()
        manual(other).info()
        one = manual(path)
        one.acquire()
        term = one.term
        harm(path, other)
        equal((one.heartbeat(), one.is_held()), (False, False), harm.__name__)
        one.release()
        # The floor remembers: nobody goes on before a ttl of silence, and only above it.
        two = SchedulerLock(path, ttl=0.5, heartbeat=0.08, margin=0.2)
        equal(two.acquire(wait=False), False, harm.__name__)
        check(two.acquire(timeout=5) and two.term > term, harm.__name__)
        two.release()


@test("what is no lock database is refused and left as it was")
def _():
    def wal(db):
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")

    def newer(db):
        db.execute(f"PRAGMA application_id={_store.APPLICATION_ID}")
        db.execute("PRAGMA user_version=3")

    cases = {
        "WAL": wal, "newer baton": newer,
        "another application": lambda db: db.execute("CREATE TABLE invoices(x)"),
        "plain lock table": lambda db: db.execute(
            "CREATE TABLE scheduler_lock(id, pid, hostname, created_at, heartbeat_at)"),
        "not a database": None}
    for words, make in cases.items():
        path = database()
        if make:
            db = sqlite3.connect(path, isolation_level=None)
            make(db)
            db.close()
        else:
            with open(path, "wb") as file:
                file.write(b"words, words " * 100)
        with open(path, "rb") as file:
            before = file.read()
        try:
            manual(path).acquire(wait=False)
            check(False, words + " was accepted")
        except LockError as error:
            check(words in str(error), f"{words}: {error}")
        with open(path, "rb") as file:
            equal(file.read(), before, words)
    path = database()
    manual(path).info()
    os.link(path, path + "2")
    try:
        manual(path).info()
        check(False, "hard links were accepted")
    except LockWrong as error:
        check("hard links" in str(error), str(error))
    for name in ("/proc/self/baton.db", "/sys/baton.db"):
        if not os.path.ismount("/" + name.split("/")[1]):
            continue    # an ordinary folder in a bare root
        try:
            manual(name).info()
            check(False, name + " was accepted")
        except LockWrong as error:
            check("cannot be trusted" in str(error), str(error))
    try:
        manual("/no/such/folder/baton.db").info()
        check(False, "a missing folder was accepted")
    except LockError as error:
        check(not isinstance(error, LockWrong) and "missing" in str(error), str(error))


@test("durations that leave no room are refused with the arithmetic")
def _():
    try:
        SchedulerLock("x", ttl=10, heartbeat=3)
        check(False, "accepted")
    except ValueError as error:
        check("10" in str(error) and "11.7" in str(error), str(error))


@test("a forked child does not hold, and does not keep the guard's byte")
def _():
    path = database()
    one = manual(path)
    one.acquire()
    term = one.term
    asked, answer = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if not one.is_held() and one.term == 0 and not one.heartbeat() else 2
            os.write(answer[1], b"x")
            os.close(asked[1])
            os.read(asked[0], 1)        # lives until its parent has released
        finally:
            os._exit(status)
    os.read(answer[0], 1)
    check(one.is_held() and not byte_is_free(path, term), "the parent lost it")
    check(one.release() and byte_is_free(path, term), "the child holds the byte")
    for fd in (*asked, *answer):
        os.close(fd)
    equal(os.waitpid(pid, 0)[1], 0)


@test("a deadman's mark, or the end of a PID namespace's first process, ends the waiting")
def _():
    for mark, pid1 in ((True, 0), (False, 1)):
        path = database()
        one = manual(path)
        one.acquire()
        term = one.term
        two = manual(path)
        equal(two.acquire(wait=False), False)
        if pid1:
            db = sqlite3.connect(path)
            db.execute("UPDATE scheduler_lock SET pid1 = 1")
            db.commit()
            db.close()
        if mark:
            data = struct.pack("<IIq", 0x4B52414D, 1, term)
            with open(path + "-guard", "r+b") as file:
                file.write(data + struct.pack("<Q", _sidefiles.checksum(data)))
        equal(two.acquire(wait=False), False)           # the byte is still held
        one._guard.close()                              # as if the holder had died
        check(two.acquire(timeout=2) and two.term > term, f"mark {mark}, pid1 {pid1}")
        two.release()


@test("many contenders: one at a time, terms rise")
def _():
    path = database()
    out = os.path.join(os.path.dirname(path), "effects")
    program = """
import os, sys
from baton.lock import SchedulerLock
lock = SchedulerLock(sys.argv[1], ttl=3.0, heartbeat=0.5, margin=0.5)
effects = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for _ in range(5):
    with lock:
        assert lock.is_held()
        os.write(effects, f"{lock.term} begin\\n".encode())
        os.write(effects, f"{lock.term} end\\n".encode())
"""
    contenders = [subprocess.Popen([sys.executable, "-c", program, path, out],
                                   env={**os.environ, "PYTHONPATH": PACKAGES}) for _ in range(4)]
    for contender in contenders:
        equal(contender.wait(12), 0)
    with open(out, encoding="ascii") as file:
        lines = [line.split() for line in file]
    equal(len(lines), 40)
    terms = [int(term) for term, _ in lines]
    equal(terms, sorted(terms))
    equal([word for _, word in lines], ["begin", "end"] * 20)
    equal(len(set(terms)), 20)


@test("a baton instance and a SchedulerLock take turns in one election")
def _():
    if not os.path.exists(BATON):
        skip("build/baton is not built (make)")
    path = database()
    with SchedulerLock(path, ttl=3.0, heartbeat=0.5, margin=0.5) as lock:
        terms = [lock.term]
        one = Instance(f"""
            [scheduler]
            database = {path}
            ttl = 3s
            heartbeat = 500ms
            kill_grace = 500ms
            handoff_timeout = 500ms
            [program:web]
            command = sleep 1000
            startsecs = 0
            executor = candidate
        """)
        one.wait_log("lock.held_elsewhere", 5)
        check(lock.is_held() and lock.heartbeat(), lock.last_error)
        began = time.monotonic()
        check(lock.release(), lock.last_error)
        one.wait_for("executor", 5)
        check(time.monotonic() - began < 2.5, "it waited for the ttl")      # 3 s
        terms.append(one.term())
        equal(lock.acquire(wait=False), False)
        waiter = threading.Thread(target=lock.acquire)
        waiter.start()
        one.stop()
        waiter.join(5)
        check(lock.is_held(), "not taken over")
        terms.append(lock.term)
    equal(terms, sorted(set(terms)))


if __name__ == "__main__":
    signal.alarm(90)
    main()

#!/usr/bin/python3
"""What is wrong with the lock database before the start, a full disk, locks of others."""

import fcntl
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from faults import *  # noqa: E402,F403


@test("missing: made with its side files; lock info before, during and after")
def _():
    log = Log()
    place = folder()
    database = os.path.join(place, "baton.db")
    one = Instance(text_with(database, log), folder=place, start=False)
    info = lock_info(one.config)
    equal((info["exists"], info["state"], info["holder"]), (False, "free", None), "lock info")
    equal(sorted(os.listdir(place)), ["one.ini"], "files that lock info made")
    one.start()
    told = log.wait("promote")
    check({"baton.db", "baton.db-guard", "baton.db-floor"} <= set(os.listdir(place)),
          f"files: {os.listdir(place)}")
    info = lock_info(one.config)
    equal((info["state"], info["term"], info["floor"]), ("held", told.term,
          {"state": "ok", "term": told.term}), "lock info")
    one.stop()
    info = lock_info(one.config)
    equal((info["state"], info["term"], info["holder"]), ("free", told.term, None), "lock info")


@test("folder missing: the programs serve, the reason is said; made, it goes on by itself")
def _():
    log = Log()
    place = os.path.join(folder(), "not", "there")
    one = Instance(text_with(os.path.join(place, "baton.db"), log))
    unavailable(one, "cannot find the folder")
    info = baton("lock", "info", "-c", one.config)
    check(info.status == 1 and "cannot find the folder" in info.err, f"lock info: {info}")
    os.makedirs(place)
    log.wait("promote")
    one.wait_log("lock.available")
    equal(one.status()["lock"]["error"], None, "error in status")


@test("read-only mount, with and without a database: unavailable; writable again, it goes on")
def _():
    for made in (True, False):
        log = Log()
        place = folder()
        database = os.path.join(place, "baton.db")
        term = 0
        if made:
            first, term = a_database()
            shutil.copytree(os.path.dirname(first), place, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("*.sock"))
        with mounted(place, place, flags=MS_BIND):
            check(mount(None, place, None, MS_BIND | MS_REMOUNT | MS_RDONLY) == 0, "remount")
            one = Instance(text_with(database, log))
            unavailable(one, "read-only|readonly|Read-only|can only be read|unable to open")
            info = baton("lock", "info", "--json", "-c", one.config)
            check(info.status == 0 and json.loads(info.out)["exists"] == made, f"info: {info}")
            check(mount(None, place, None, MS_BIND | MS_REMOUNT) == 0, "remount")
            told = log.wait("promote")
            check(told.term > term, f"term {told.term} after {term}")
            one.stop()


@test("a folder that the user may not write: unavailable, said; permitted, it goes on")
def _():
    if os.getuid() != 0 or not shutil.which("setpriv"):
        skip("needs root and setpriv to become another user")
    log = Log()
    place, own = folder(), folder()
    os.chown(own, 65534, 65534)
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*prefix, "test", "-x", place], check=False).returncode or \
            subprocess.run([*prefix, "test", "-x", BATON], check=False).returncode:
        skip("another user cannot reach the test's folder")
    one = Instance(text_with(os.path.join(place, "baton.db"), log), folder=own, prefix=prefix)
    unavailable(one, "unable to open|ermission")
    os.chmod(place, 0o777)
    log.wait("promote")


@test("damaged: header overwritten, pages overwritten, cut in half: 78, the way out, untouched")
def _():
    database, _ = a_database()
    good = read(database)
    for bad in (b"\0\xff garbage" * 20 + good[200:], good[:4096] + b"\xa5" * (len(good) - 4096),
                good[:len(good) // 2], b"not a database", os.urandom(8192)):
        write(database, bad)
        refused(database, "damaged|not a SQLite database")
        equal(read(database), bad, "the file")


@test("emptied: above the floor, after a whole ttl, and the reason is said")
def _():
    database, term = a_database()
    write(database, b"")
    log = Log()
    start = now()
    one = Instance(text_with(database, log))
    one.wait_log("lock.floor_conflict.*replaced, restored or emptied")
    info = lock_info(one.config)
    check("replaced or restored" in info["next"] and info["floor"]["term"] == term,
          f"lock info: {info}")
    told = log.wait("promote")
    check(told.term > term, f"term {told.term} after {term}")
    took = (told.ns - start) / MS
    check(took >= TTL_MS, f"after {took} ms, ttl {TTL_MS}")


@test("WAL mode: 78 with the remedy, which works")
def _():
    database, term = a_database()
    sql(database, "PRAGMA journal_mode=WAL")
    one = refused(database, "WAL mode")
    said = baton("lock", "info", "-c", one.config).err
    remedy = re.search(r"sqlite3 '(\S+)' '(PRAGMA [^']+)'", said)
    check(remedy and remedy[1] == database, f"no remedy in: {said}")
    sql(remedy[1], remedy[2])
    one.start()
    wait_until(lambda: one.term() or 0 > term, 5, "an executor")


@test("a newer schema: 78, upgrade is said, untouched")
def _():
    database, _ = a_database()
    sql(database, "PRAGMA user_version=99")
    before = read(database)
    refused(database, "schema version 99 of a newer baton.*upgrade")
    equal(read(database), before, "the file")


@test("another application's database: 78, untouched")
def _():
    database = os.path.join(folder(), "app.db")
    sql(database, "CREATE TABLE users(name)", "INSERT INTO users VALUES('a')")
    before = read(database)
    refused(database, "another application's database")
    equal(read(database), before, "the file")
    equal(os.listdir(os.path.dirname(database)), ["app.db"], "files beside it")


@test("not a file: a folder, a fifo: 78")
def _():
    place = folder()
    refused(place, "not a regular file")
    os.mkfifo(os.path.join(place, "fifo"))
    refused(os.path.join(place, "fifo"), "not a regular file")


@test("a plain lock table: respected while its holder beats, taken and migrated after a quiet ttl")
def _():
    database = os.path.join(folder(), "plain.db")
    sql(database, "CREATE TABLE scheduler_lock(id INTEGER PRIMARY KEY, pid INTEGER, hostname TEXT,"
        " created_at TEXT, heartbeat_at TEXT)",
        "INSERT INTO scheduler_lock VALUES(1, 4711, 'old', 'then', 'beat 0')")
    log = Log()
    one = Instance(text_with(database, log))
    one.wait_log("lock.held_elsewhere.*4711")
    info = lock_info(one.config)
    equal((info["state"], info["holder"]["pid"], info["holder"]["hostname"]),
          ("held", 4711, "old"), "lock info")
    end, beats = now() + int(1.5 * TTL_MS) * MS, 0
    while now() < end:
        beats += 1
        sql(database, f"UPDATE scheduler_lock SET heartbeat_at = 'beat {beats}' WHERE id = 1")
        last = now()
        sleep_until(last + 300 * MS)
    equal(log.lines("promote"), [], "promotions while the other one beats")
    told = log.wait("promote")
    took = (told.ns - last) / MS
    check(TTL_MS - HEARTBEAT_MS <= took, f"{took} ms after the last beat, ttl {TTL_MS}")
    with contextlib.closing(sqlite3.connect(database)) as db:
        equal(db.execute("SELECT pid FROM scheduler_lock_plain").fetchall(), [(4711,)],
              "the plain table, kept")
        equal(db.execute("PRAGMA user_version").fetchone(), (2,), "user_version")
    equal(lock_row(database)["term"], told.term, "term of the row")


@test("a single file that is a mount: 78, mount its directory")
def _():
    database, _ = a_database()
    other = os.path.join(folder(), "mounted.db")
    write(other, b"")
    with mounted(database, other, flags=MS_BIND):
        refused(other, "itself a mount point.*mount its directory")


@test("a hard link: 78; the other name removed, it works")
def _():
    database, _ = a_database()
    os.link(database, database + ".backup")
    one = refused(database, "2 hard links")
    os.unlink(database + ".backup")
    one.start()
    one.wait_for("executor")


@test("a symbolic link is followed: side files lie beside the real file")
def _():
    real, place = folder(), folder()
    link = os.path.join(place, "link.db")
    os.symlink(os.path.join(real, "real.db"), link)
    log = Log()
    Instance(text_with(link, log))
    log.wait("promote")
    check({"real.db", "real.db-guard", "real.db-floor"} <= set(os.listdir(real)),
          f"{os.listdir(real)}")
    equal(os.listdir(place), ["link.db"], "beside the link")


@test("overlayfs: works, is warned about once")
def _():
    base = folder()
    with mounted("none", base, "tmpfs"):
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(base, name))
        options = ",".join(f"{k}dir={base}/{k}" for k in ("lower", "upper", "work"))
        with mounted("overlay", f"{base}/merged", "overlay", options=options):
            log = Log()
            one = Instance(text_with(f"{base}/merged/baton.db", log))
            first = log.wait("promote")
            one.wait_log("lock.overlay.*each container elects")
            one.wait_for("ready=web")
            os.kill(first.pid, signal.SIGKILL)
            log.wait("promote", 2)
            equal(sum("lock.overlay" in l for l in one.lines), 1, "warnings")
            one.stop()


@test("a full disk at start and while held: the programs serve, it goes on when there is space")
def _():
    base = folder()
    with mounted("none", base, "tmpfs", options="size=256k"):
        database, filler = f"{base}/baton.db", f"{base}/filler"

        def fill():
            with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
                while True:
                    f.write(b"x" * 4096)

        log = Log()
        fill()
        one = Instance(text_with(database, log))
        unavailable(one, "no space left")
        os.unlink(filler)
        first = log.wait("promote")
        one.wait_log("lock.available")
        page = page_of(first)
        fill()
        demoted = log.wait("demote", timeout=TTL_MS / 1000 + 2)
        equal((demoted.pid, demoted.rest), (first.pid, "lost"), "demote")
        wait_until(lambda: not page.valid(), 3, "the end of the lease")
        one.wait_for("role=unavailable")
        one.wait_for("ready=web")
        info = lock_info(one.config)
        equal((info["state"], info["holder"]["pid"]), ("held", one.pid), "lock info")
        mark = one.mark()
        os.unlink(filler)
        second = log.wait("promote", 2)
        one.wait_log("lock.available", since=mark)
        check(second.term > first.term, f"term {second.term} after {first.term}")
        one.stop()
        log.check_terms()


@test("locked by a stuck process: short, nothing happens; for long, demoted in time, its pid is "
      "said, taken up again when it ends")
def _():
    one, log, first, database = begin()
    stuck = textwrap.dedent(f"""
        import sqlite3, sys
        db = sqlite3.connect({database!r}, isolation_level=None, timeout=5)
        db.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        sys.stdin.read()
    """)

    def lock():
        p = subprocess.Popen([PYTHON, "-c", stuck], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        equal(p.stdout.readline(), b"locked\n", "the stuck process")
        return p

    def unlock(p):
        p.stdin.close()
        p.wait()
        p.stdout.close()

    page = page_of(first)
    p = lock()
    sleep_until(now() + 2 * HEARTBEAT_MS * MS)
    unlock(p)
    beats = page.heartbeats
    wait_until(lambda: page.heartbeats > beats, 3, "a heartbeat")
    equal((one.executor()["pid"], log.lines("demote")), (first.pid, []), "after a short lock")
    p = lock()
    try:
        start = now()
        demoted = log.wait("demote", timeout=TTL_MS / 1000 + 2)
        equal((demoted.pid, demoted.rest), (first.pid, "lost"), "demote")
        check(demoted.ns < start + TTL_MS * MS, f"told {(demoted.ns - start) / MS} ms later")
        wait_until(lambda: not page.valid(), 3, "the end of the lease")
        check(now() < start + TTL_MS * MS, f"the page was valid for {(now() - start) / MS} ms")
        one.wait_for("role=unavailable")
        one.wait_log(f"process {p.pid} has had it locked")
        one.wait_for("ready=web")
        check(is_living(first.pid), "the demoted worker was killed")
        info = baton("lock", "info", "-c", one.config)
        check(info.status == 1 and str(p.pid) in info.err, f"lock info: {info}")
        equal(len(log.lines("promote")), 1, "promotions")
    finally:
        unlock(p)
    second = log.wait("promote", 2)
    check(second.term > first.term, f"term {second.term} after {first.term}")
    one.wait_log("lock.available")


def lock_owner(database):
    """The process that holds SQLite's bytes for writing; 0 = none."""
    request = struct.pack("hh4xqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0x40000000, 512, 0)
    with open(database, "rb") as f:
        kind, _, _, _, pid = struct.unpack("hh4xqqi4x", fcntl.fcntl(f, fcntl.F_GETLK, request))
    return 0 if kind == fcntl.F_UNLCK else pid


@test("a keeper frozen inside its transaction blocks all for 8 s at most; it is rolled back")
def _():
    one, log, first, database = begin()
    two = Instance(text_with(database, log), name="two")
    two.wait_log("lock.held_elsewhere")
    page = page_of(first)
    limit = deadline(30, "freezing the keeper inside a transaction")
    while True:
        limit.left()
        keeper = helpers_of(one.pid).get("lock-keeper")
        if keeper is None:
            continue
        os.kill(keeper, signal.SIGSTOP)
        wait_until(lambda: state_of(keeper) in ("T", None), 2)
        if lock_owner(database) == keeper:
            break
        os.kill(keeper, signal.SIGCONT)
    start = now()
    wait_until(lambda: not page.valid(), TTL_MS / 1000 + 1, "the end of the lease")
    check(now() - start < TTL_MS * MS, f"the page was valid for {(now() - start) / MS} ms")
    equal(len(log.lines("promote")), 1, "promotions while it is blocked")
    one.wait_log("lock.keeper_stuck", 10)
    second = log.wait("promote", 2)
    print(f"# blocked for {(second.ns - start) / MS:.0f} ms")
    check(second.term > first.term, f"term {second.term} after {first.term}")
    with contextlib.closing(sqlite3.connect(database)) as db:
        equal(db.execute("PRAGMA integrity_check").fetchone(), ("ok",), "integrity")
    equal(lock_info(one.config)["state"], "held", "lock info")
    log.check_terms()


@test("a reader that never ends its transaction does not stop heartbeats for ever, and is named")
def _():
    one, log, first, database = begin()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM scheduler_lock").fetchall()
        log.wait("demote", timeout=TTL_MS / 1000 + 2)
        one.wait_log(f"process {os.getpid()} has had it locked")
    second = log.wait("promote", 2)
    check(second.term > first.term, f"term {second.term} after {first.term}")


if __name__ == "__main__":
    main()

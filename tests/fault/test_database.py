#!/usr/bin/python3
"""What can happen to the lock database and its side files, before the start and while held."""

import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from election import *  # noqa: E402,F403

MS = 1_000_000
TTL_MS, HEARTBEAT_MS = 2000, 250
SHORT = dict(ttl="2s", heartbeat="250ms", grace="300ms")

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS = 0x20000
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0, options=None):
    """0, or the errno."""
    as_bytes = [v.encode() if v else None for v in (source, target, kind, options)]
    done = LIBC.mount(as_bytes[0], as_bytes[1], as_bytes[2], ctypes.c_ulong(flags), as_bytes[3])
    return ctypes.get_errno() if done else 0


# A mount namespace of our own: what is mounted here is seen by nobody else and ends with us.
MOUNTS = LIBC.unshare(CLONE_NEWNS) == 0 and mount(None, "/", None, MS_REC | MS_PRIVATE) == 0


@contextlib.contextmanager
def mounted(source, target, kind=None, flags=0, options=None):
    if not MOUNTS:
        skip("mounts are not permitted here")
    error = mount(source, target, kind, flags, options)
    if error:
        skip(f"cannot mount {kind or 'bind'}: {os.strerror(error)}")
    try:
        yield
    finally:
        LIBC.umount2(target.encode(), 2)    # MNT_DETACH


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def text_with(database, log, *flags, more="", **keywords):
    return scheduler(**SHORT, more=f"database = {database}\n{more}") + \
        program(actor(log.path, *flags), **keywords)


def begin(log=None, **keywords):
    """An instance that has an executor: (instance, log, the promote line, its database)."""
    log = log or Log()
    place = folder()
    database = os.path.join(place, "baton.db")
    one = Instance(text_with(database, log, **keywords), folder=place)
    told = log.wait("promote")
    one.wait_for("executor")
    return one, log, told, database


def page_of(line):
    return next(p for p in lease_pages().values()
                if p.worker == line.worker and p.instance == line.instance)


def refused(database, pattern, log=None):
    """`baton run` ends with 78 and says PATTERN; `lock info` says the same."""
    log = log or Log()
    one = Instance(text_with(database, log), start=False)
    r = baton("run", "-c", one.config, "-s", one.socket, status=None)
    said = r.out + r.err
    equal(r.status, 78, f"exit status, having said:\n{said}")
    check(re.search(pattern, said), f"no {pattern!r} in:\n{said}")
    equal(log.lines("promote"), [], "promotions")
    info = baton("lock", "info", "-c", one.config)
    equal(info.status, 78, f"exit status of lock info, having said:\n{info.err}")
    check(re.search(pattern, info.err), f"no {pattern!r} from lock info in:\n{info.err}")
    return one


def unavailable(one, pattern, timeout=10):
    one.wait_for("role=unavailable", timeout)
    one.wait_log(f"lock.unavailable.*{pattern}", timeout)
    check(re.search(pattern, one.status()["lock"]["error"] or ""),
          f"no {pattern!r} in {one.status()['lock']}")
    one.wait_for("ready=web", timeout)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def sql(database, *statements):
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=5)) as db:
        for statement in statements:
            db.execute(statement)


def a_database():
    """One that baton made, free, at rest; (path, term)."""
    one, _, told, database = begin(workers=1)
    one.stop()
    return database, told.term


# --- before the start --------------------------------------------------------------------------
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
        equal(db.execute("PRAGMA user_version").fetchone(), (1,), "user_version")
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


# --- space and locks ---------------------------------------------------------------------------
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


# --- while it is held --------------------------------------------------------------------------
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


@test("deleted with all side files while the holder is frozen: no other leads before its lease ends")
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

"""What the tests of faults of the lock database share: mounts of our own, instances with a database
to break. Stdlib only."""

import ctypes

from election import *  # noqa: F403

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

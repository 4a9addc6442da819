"""What the scenario tests of the job worker share. Stdlib only."""
import collections

from harness import *  # noqa: F403

QUICK = """
[scheduler]
ttl = 3s
heartbeat = 300ms
kill_grace = 500ms
handoff_timeout = 4s
"""

Run = collections.namedtuple("Run", "job fire attempt status code signal output reason cause started ended")


def instance(ini, **keywords):
    return Instance(QUICK + textwrap.dedent(ini), **keywords)


def runs(one, job=None, folder=None):
    """All rows of the ledger in the order of their firings."""
    path = os.path.join(folder or one.folder, "baton.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        rows = db.execute("SELECT job, fire_time, attempt, status, exit_code, signal, output, reason, "
                          "cause, started_at, ended_at FROM job_run ORDER BY fire_time, attempt").fetchall()
    return [Run(*r) for r in rows if job in (None, r[0])]


def wait_runs(one, job, count, status=None, timeout=15):
    def enough():
        found = [r for r in runs(one, job) if (r.status == status if status else
                                               r.status not in ("queued", "running"))]
        return found if len(found) >= count else None

    with_db = lambda: os.path.exists(one.path("baton.db")) and has_table(one) and enough()
    return wait_until(with_db, timeout, f"{count} runs of {job} ({status or 'ended'})")


def has_table(one):
    with contextlib.suppress(sqlite3.Error), contextlib.closing(
            sqlite3.connect(f"file:{one.path('baton.db')}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'job_run'").fetchone()[0]
    return False


def lines(path):
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as f:
        return f.read().split("\n")[:-1]
    return []


def pids_of(pattern):
    return [p for p in marked_processes() if re.search(pattern, command_of(p))]


COUNTER = """
[job:count]
schedule = * * * * * *
missed = all
overlap = allow
command = echo "$BATON_FIRE_TIME $BATON_TERM" >>effects
"""


def account(folder, killed=False, job="count"):
    """Each second from the first to the last firing once, in the ledger and in the effects; none
    that was cut off unless something was KILLED."""
    rows = [r for r in runs(None, job, folder)]
    fires = sorted({r.fire for r in rows})
    equal(fires, list(range(fires[0], fires[-1] + 1, 1_000_000)), "firings in the ledger")
    times = collections.Counter(l.split()[0] for l in lines(os.path.join(folder, "effects")))
    twice = [t for t, n in times.items() if n > 1]
    equal(twice, [], "run twice")
    if not killed:
        equal([r for r in rows if r.status == "interrupted"], [], "interrupted, and nothing was killed")
    cut = sum(r.status not in ("ok", "queued", "running") for r in rows)
    check(len(fires) - len(times) <= cut,
          f"{len(fires)} firings, {len(times)} effects, {cut} cut off: "
          f"{collections.Counter(r.status for r in rows)}")
    return rows

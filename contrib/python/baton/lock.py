"""SchedulerLock: the baton's election for a program that baton did not start.

    from baton.lock import SchedulerLock

    lock = SchedulerLock("/var/lib/app/baton.db")
    with lock:                              # waits until this process holds the lock
        while lock.is_held():               # ask before each effect: the lease may have ended
            run_one_job(fencing_token=lock.term)

The same SQLite file, tables and rules as baton instances use (compare-and-swap on term, holder and
beat; a stale lock is one whose row was seen unchanged for its whole time to live; only
CLOCK_BOOTTIME, only one's own), so that both take part in one election.

The holder's deadline is counted from before the transaction that won or renewed it, less a margin.
is_held() compares with it and asks nobody. A holder past its deadline never resumes: acquire again,
under a higher term. Nobody kills this process then, as baton's deadman kills an executor: what it does
late is caught by the term at the effect, and by nothing else. For the same reason a death of the
holder is noticed by others only after the time to live.

The lock belongs to one process: in a forked child is_held() is False. Threads may share it.
"""

import logging
import os
import socket
import threading
import time
import uuid
import weakref

from . import _sidefiles
from ._store import LockError, LockWrong, Moved, Refused, Row, Store, Unknown, wall_us
from .client import now_ns

__all__ = ["LockError", "LockWrong", "SchedulerLock"]

_log = logging.getLogger("baton.lock")
_SECOND = 1_000_000_000
_PID1_PATIENCE = 0.1    # the kernel ends a PID namespace after its first process
_LATE = 1.0             # an observer that looked this much late begins its watch anew
_all = weakref.WeakSet()


def _after_fork():
    for lock in list(_all):
        lock._forget_parent()


os.register_at_fork(after_in_child=_after_fork)


def _read_line(path):
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()[:39]
    except OSError:
        return ""


class _Watch:
    """Since when has the same been seen, without a gap?"""

    def __init__(self):
        self._key, self._since, self._last = None, 0, 0

    def seen(self, key, longest_gap):
        """Seconds that KEY has been seen for, this look included."""
        now = now_ns()
        if key != self._key or now - self._last > longest_gap * _SECOND:
            self._key, self._since = key, now
        self._last = now
        return (now - self._since) / _SECOND


class SchedulerLock:
    """PATH: the lock database (`database` in [scheduler]). Durations are seconds.

    ttl        how long others wait before they take a lock that nobody renews
    heartbeat  how often it is renewed, default a sixth of ttl
    margin     how long before the ttl this process stops believing, default 2 % of ttl and 2 s
    auto       renew in a thread of its own; else call heartbeat()
    on_lost    called without arguments, in that thread (or by heartbeat()), once per lost epoch
    name       shown to people as the worker

    LockWrong when this cannot work, ValueError when the durations leave no room.
    """

    def __init__(self, path, *, ttl=60.0, heartbeat=None, margin=None, auto=True, on_lost=None,
                 name="", create=True, unsafe_filesystem=False, busy_limit=2.0):
        self.ttl, self.auto, self.on_lost, self.name = ttl, auto, on_lost, name
        self.beat_every = ttl / 6 if heartbeat is None else heartbeat
        self.margin = ttl * 0.02 + 2.0 if margin is None else margin
        need = 3 * self.beat_every + self.margin + min(self.beat_every / 4, 0.5)
        if ttl < need:
            raise ValueError(f"ttl = {ttl} s is too short: 3 heartbeats of {self.beat_every} s, a "
                             f"margin of {self.margin} s and {min(self.beat_every / 4, 0.5)} s are "
                             f"{need} s")
        self.last_error = ""
        self._store = Store(path, create, unsafe_filesystem, busy_limit)
        self._operation = threading.RLock()     # one operation on the database at a time
        self._state = threading.Lock()          # the deadline and what belongs to it
        self._clean()
        _all.add(self)

    def _clean(self):
        self._pid, self._instance = os.getpid(), str(uuid.uuid4())
        self._deadline, self._epoch, self._lost = 0, 0, False
        self._file, self._guard, self._doubtful = None, None, []
        self._watch, self._dead_watch = _Watch(), _Watch()
        self._thread, self._stop = None, None

    def _forget_parent(self):
        """In a forked child. Its copies of the guard would hold the parent's byte."""
        for guard in [self._guard, *self._doubtful]:
            if guard:
                guard.close()
        self._operation, self._state = threading.RLock(), threading.Lock()
        self._clean()

    # --- questions

    def is_held(self):
        """Before the deadline of the present epoch, in the process that acquired it."""
        deadline = self._deadline
        return deadline != 0 and now_ns() < deadline and self._pid == os.getpid()

    @property
    def term(self):
        """The fencing token; 0 when the lock is not held."""
        epoch = self._epoch
        return epoch if self.is_held() and epoch == self._epoch else 0

    def lease_left(self):
        """Seconds until the deadline; 0.0 when the lock is not held."""
        return max(0, self._deadline - now_ns()) / _SECOND if self.is_held() else 0.0

    def info(self):
        """What the database says, as a dict: the row, `db_uuid`, `held`, `mine`, `floor`."""
        with self._operation:
            view = self._store.inspect()
        info = view.row._asdict()
        info.update(db_uuid=view.db_uuid, held=view.row.state == 1,
                    mine=view.row.state == 1 and view.row.holder == self._instance,
                    floor=view.floor[0] if isinstance(view.floor, tuple) else None)
        return info

    # --- acquiring

    def acquire(self, wait=True, timeout=None):
        """True when this process holds the lock. WAIT: until then, or for TIMEOUT seconds. What may
        pass (a busy or missing database) is waited out, or LockError when WAIT is False; LockWrong
        is raised at once. Calls with wait=False watch a stale lock together, if they are not more
        than a third of its time to live apart."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = min(1.0, max(0.02, self.beat_every / 4))
        while True:
            try:
                with self._operation:
                    if self.is_held() or self._try_acquire(pause + _LATE if wait else self.ttl / 3):
                        return True
            except LockWrong:
                raise
            except LockError as error:
                self._note(error)
                if not wait:
                    raise
            if not wait or (end is not None and time.monotonic() >= end):
                return False
            left = pause if end is None else max(0.0, end - time.monotonic())
            time.sleep(min(pause, left))

    def _note(self, error):
        if str(error) != self.last_error:
            self.last_error = str(error)
            _log.warning("%s", error)

    def _open_guard(self):
        try:
            return _sidefiles.Guard(os.path.realpath(self._store.path))
        except OSError as error:
            _log.warning("cannot open the guard: %s; others wait for the ttl", error)
            return None

    def _try_acquire(self, longest_gap):
        view = self._store.inspect()
        guard = self._open_guard()
        try:
            reason = self._why_free(view, guard, longest_gap)
            if reason is None:
                return False
            epoch = self._choose_epoch(view, guard)
            if epoch is None:
                return False
            kept, guard = guard, None
            return self._take(view, kept, epoch, reason)
        finally:
            if guard:
                guard.close()

    def _why_free(self, view, guard, longest_gap):
        """Why the lock may be taken, None when it may not."""
        row = view.row
        agrees = (view.floor is None
                  or isinstance(view.floor, tuple) and view.floor[1] == view.db_uuid
                  and view.floor[0] <= row.term)
        watched = self._watch.seen((view.file, view.db_uuid, row.term, row.holder, row.beat,
                                    row.state, agrees), longest_gap)
        if agrees and row.state == 0:
            return "released"
        if agrees and row.holder == self._instance:
            return "takeover: outcome was unknown"      # of our own acquire; nobody acted on it
        if agrees and self._is_dead(row, guard, longest_gap):
            return "takeover: holder dead"
        if not agrees:
            self._note("the floor of terms contradicts the database (restored or replaced?): "
                       "standing by for a full ttl")
        ttl = row.ttl_ms / 1000 if row.ttl_ms > 0 else self.ttl
        return "takeover: stale" if watched >= ttl else None

    def _is_dead(self, row, guard, longest_gap):
        """Proof by the guard: the same file in the same kernel, the holder's byte free, and nothing
        of it left."""
        if (guard is None or not row.guard_ino or row.guard_ino != guard.inode
                or row.boot_id != _read_line("/proc/sys/kernel/random/boot_id")
                or not row.epoch or not guard.is_free(row.epoch)):
            return False
        if guard.cleared() == row.epoch:
            return True
        free = self._dead_watch.seen((row.epoch, row.holder), longest_gap)
        return row.pid1 == 1 and free >= _PID1_PATIENCE

    def _choose_epoch(self, view, guard):
        floor = view.floor[0] if isinstance(view.floor, tuple) else 0
        epoch = max(view.row.term + 1, floor + 1, wall_us())
        if epoch > _sidefiles.TERM_MAX:
            raise LockWrong(f"term {epoch} is beyond any clock (2^53 microseconds)")
        if guard is not None and not guard.lock(epoch):
            return None         # another contender's byte: look again
        return epoch

    def _take(self, view, guard, epoch, reason):
        """The byte of EPOCH is ours. It is given up only when it is certain that no row says so."""
        held = (view.file, view.db_uuid)
        me = Row(term=epoch, epoch=epoch, state=1, holder=self._instance, beat=0,
                 ttl_ms=int(self.ttl * 1000), boot_id=_read_line("/proc/sys/kernel/random/boot_id"),
                 machine_id=_read_line("/etc/machine-id"), guard_ino=guard.inode if guard else 0,
                 pid1=int(os.getpid() == 1), pid=os.getpid(), hostname=socket.gethostname()[:127],
                 worker=self.name[:127], created_at=0, heartbeat_at=0)
        began = now_ns()
        try:
            self._store.acquire(view, epoch, me, reason)
        except Unknown:
            self._doubtful.append(guard)
            raise
        except (Refused, Moved):
            if guard:
                guard.close()
            return False
        except BaseException:
            if guard:
                guard.close()
            raise
        for old in [*self._doubtful, self._guard]:  # no row names their epochs any more
            if old:
                old.close()
        self._file, self._guard, self._doubtful = held, guard, []
        try:
            _sidefiles.floor_raise(os.path.realpath(self._store.path), view.db_uuid, epoch,
                                   self._store.busy_limit)
        except OSError as error:
            self._give_back(epoch, "released")
            raise LockError(f"cannot raise the floor to term {epoch}: {error}; the lock is given "
                            "back") from None
        deadline = began + int((self.ttl - self.margin) * _SECOND)
        with self._state:
            self._epoch, self._lost = epoch, False
            self._deadline = deadline
        if not self.is_held():      # the disk took longer than the lease
            self.release()
            return False
        self.last_error = ""
        if self.auto:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stop,), daemon=True,
                                            name="baton-lock")
            self._thread.start()
        return True

    # --- holding

    def heartbeat(self):
        """Renew. True = renewed. False = it could not be, for now (last_error says why; the lease
        goes on until its deadline) or for ever (is_held() is False)."""
        with self._operation:
            epoch, began = self._epoch, now_ns()
            if not epoch or self._lost or self._pid != os.getpid():
                return False
            if began >= self._deadline:
                return self._lose("its deadline has passed")
            try:
                self._store.renew(self._file, epoch, self._instance, int(self.ttl * 1000))
            except (Refused, Moved) as error:
                return self._lose(str(error) or "another holder has it")
            except LockError as error:
                self._note(error)
                return False
            with self._state:       # a deadline that has passed is not moved any more
                renewed = now_ns() < self._deadline
                if renewed:
                    self._deadline = began + int((self.ttl - self.margin) * _SECOND)
            if not renewed:
                return self._lose("its deadline passed while it was renewed")
            self.last_error = ""
            return True

    def _lose(self, why):
        with self._state:
            self._deadline, first, self._lost = 0, not self._lost, True
        if first:
            _log.warning("the lock is lost in epoch %d: %s", self._epoch, why)
            if self.on_lost is not None:
                self.on_lost()
        return False

    def _run(self, stop):
        wait = self.beat_every
        while not stop.wait(wait):
            renewed = self.heartbeat()
            if self._lost:
                return
            wait = self.beat_every if renewed else self.beat_every / 4
            wait = max(0.0, min(wait, self.lease_left()))

    def release(self):
        """Give the lock back: others take it at once. True when the database says so; False when it
        was not held, or cannot be told now (others wait for the ttl then). Not the holder any more in
        any case."""
        with self._state:
            self._deadline = 0
        stop, thread = self._stop, self._thread
        self._stop = self._thread = None
        if stop is not None:
            stop.set()
            if thread is not threading.current_thread():
                thread.join()
        with self._operation:
            epoch, self._epoch = self._epoch, 0
            return self._give_back(epoch, "released") if epoch else False

    def _give_back(self, epoch, reason):
        """The row first, the guard's byte second."""
        try:
            self._store.release(self._file, epoch, self._instance, reason)
            return True
        except (Refused, Moved):
            return False
        except LockError as error:
            self._note(error)
            return False
        finally:
            guard, self._guard = self._guard, None
            if guard:
                guard.close()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()

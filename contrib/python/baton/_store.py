"""The lock's tables in SQLite, as worker/lock/store_sqlite.c and migrations.c keep them: every
operation opens, transacts and closes; compare-and-swap on (term, holder, beat)."""

import collections
import contextlib
import ctypes
import errno
import os
import pathlib
import random
import re
import sqlite3
import stat
import time
import uuid

from . import _sidefiles

APPLICATION_ID, SCHEMA_VERSION = 0x4241544E, 1
# Version 2 adds the ledger of jobs, and leaves the tables of the lock as they are.
NEWEST_VERSION = 2
LOCAL_FILE_SYSTEMS = frozenset((
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "ramfs", "overlay", "bcachefs",
    "reiserfs", "jfs", "nilfs2"))

_LOCAL_TYPES = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0xF2F52010: "f2fs",
                0x2FC12FC1: "zfs", 0x01021994: "tmpfs", 0x858458F6: "ramfs", 0x794C7630: "overlay",
                0xCA451A4E: "bcachefs", 0x52654973: "reiserfs", 0x3153464A: "jfs",
                0x3434: "nilfs2"}

# The same text as in worker/lock/migrations.c; a test compares them.
SCHEMA = """
CREATE TABLE lock_meta(id INTEGER PRIMARY KEY CHECK(id=1), db_uuid TEXT NOT NULL,
 created_at INTEGER NOT NULL) STRICT;
CREATE TABLE scheduler_lock(id INTEGER PRIMARY KEY CHECK(id=1),
 term INTEGER NOT NULL,
 epoch INTEGER NOT NULL,
 state INTEGER NOT NULL CHECK(state IN (0,1)),
 holder TEXT NOT NULL DEFAULT '', beat INTEGER NOT NULL DEFAULT 0,
 ttl_ms INTEGER NOT NULL,
 boot_id TEXT, machine_id TEXT, guard_ino INTEGER, pid1 INTEGER,
 pid INTEGER, hostname TEXT, worker TEXT, created_at INTEGER, heartbeat_at INTEGER) STRICT;
CREATE TABLE executor(program TEXT PRIMARY KEY, term INTEGER NOT NULL, worker TEXT,
 pid INTEGER, since INTEGER) STRICT;
CREATE TABLE lock_history(term INTEGER PRIMARY KEY, program TEXT, holder TEXT,
 hostname TEXT, pid INTEGER, worker TEXT, acquired_at INTEGER, ended_at INTEGER,
 reason TEXT) STRICT;
CREATE TABLE job_run(job TEXT, fire_time INTEGER, attempt INTEGER, term INTEGER NOT NULL,
 started_at INTEGER, ended_at INTEGER, status TEXT, exit_code INTEGER, signal INTEGER,
 output BLOB, PRIMARY KEY(job, fire_time, attempt)) STRICT;
CREATE TRIGGER scheduler_lock_update BEFORE UPDATE ON scheduler_lock BEGIN
 SELECT RAISE(ABORT, 'the term of the lock never falls') WHERE NEW.term < OLD.term;
 SELECT RAISE(ABORT, 'another holder needs a greater term')
  WHERE NEW.holder <> OLD.holder AND NEW.holder <> '' AND NEW.term <= OLD.term; END;
CREATE TRIGGER scheduler_lock_delete BEFORE DELETE ON scheduler_lock BEGIN
 SELECT RAISE(ABORT, 'the row of the lock is never deleted'); END;
CREATE TRIGGER scheduler_lock_insert BEFORE INSERT ON scheduler_lock
 WHEN EXISTS(SELECT 1 FROM scheduler_lock) BEGIN
 SELECT RAISE(ABORT, 'the row of the lock is never replaced'); END;
"""

_COLUMNS = ("term epoch state holder beat ttl_ms boot_id machine_id guard_ino pid1 pid hostname "
            "worker created_at heartbeat_at")
Row = collections.namedtuple("Row", _COLUMNS)
# floor: (term, uuid), None = absent, or an OSError; file: (device, inode)
View = collections.namedtuple("View", "row db_uuid floor file")
Place = collections.namedtuple("Place", "path status")


class LockError(Exception):
    """Something failed that may work again later; the text says what."""


class LockWrong(LockError):
    """This will not work whatever we wait for: another application's database, WAL mode, a network
    file system, a newer schema."""


class Refused(Exception):
    """Compared and found different. Nothing was written."""


class Moved(Exception):
    """The file was deleted, replaced or restored: what was held in it is lost."""


class Unknown(LockError):
    """It may or may not have happened: COMMIT failed."""


def wall_us():
    """For people; compared by nobody. A clock beyond 2^53 is nonsense and shown as none."""
    now = time.time_ns() // 1000
    return now if 0 < now <= _sidefiles.TERM_MAX else 0


def _file_system(path):
    """(type, mount point) of the mount that PATH lies on."""
    best = ("?", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            fields, _, after = line.partition(" - ")
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)),
                           fields.split(" ")[4])
            below = path == point or path.startswith(point.rstrip("/") + "/")
            if below and len(point) >= len(best[1]):
                best = (after.split(" ")[0], point)
    return best if best[1] else (_type_by_number(os.path.dirname(path)), "")


def _type_by_number(folder):
    """As worker/lock/fs.c tells them apart; for a root that is no mount point (chroot)."""
    buffer = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None).statfs(os.fsencode(folder), buffer) != 0:
        return "?"
    number = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return _LOCAL_TYPES.get(number, f"a file system of type {number:#x}")


class Store:
    def __init__(self, path, create=True, unsafe_filesystem=False, busy_limit=2.0):
        if sqlite3.sqlite_version_info < (3, 37):
            raise LockWrong(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or later is needed")
        self.path = os.fspath(path)
        self.create, self.unsafe, self.busy_limit = create, unsafe_filesystem, busy_limit

    # where it lies

    def place(self):
        real = os.path.realpath(self.path)
        try:
            status = os.stat(real)
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(real)):
                raise LockError(f"the folder of the lock database '{real}' is missing") from None
            status = None
        except OSError as error:
            raise LockError(f"cannot look at the lock database '{real}': {error.strerror}") from None
        if status and not stat.S_ISREG(status.st_mode):
            raise LockWrong(f"the lock database '{real}' is not a regular file")
        if status and status.st_nlink > 1:
            raise LockWrong(f"the lock database '{real}' has {status.st_nlink} hard links: under "
                            "another name it has another journal")
        kind, point = _file_system(real)
        if point == real:
            raise LockWrong(f"the lock database '{real}' is itself a mount point: mount its "
                            "directory instead")
        if kind not in LOCAL_FILE_SYSTEMS and not self.unsafe:
            raise LockWrong(f"the lock database '{real}' lies on {kind}, whose locks cannot be "
                            "trusted; use a local volume, or accept the risk with "
                            "unsafe_filesystem=True")
        return Place(real, status)

    # one transaction

    def _retry(self, db, sql, end):
        while True:
            try:
                return db.execute(sql)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= end:
                    raise
            time.sleep(0.001 + random.random() / 1000)

    def _identify(self, db, path):
        """True = ours, False = an empty file."""
        application, = db.execute("PRAGMA application_id").fetchone()
        version, = db.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION_ID and version > NEWEST_VERSION:
            raise LockWrong(f"'{path}' has schema version {version} of a newer baton (this client "
                            f"knows {NEWEST_VERSION}): it is not written")
        if application == APPLICATION_ID and version >= SCHEMA_VERSION:
            return True
        names = {name for name, in db.execute(
            "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")}
        if not names and application == 0 and version == 0:
            return False
        if names == {"scheduler_lock"} and application == 0:
            raise LockWrong(f"'{path}' has a plain lock table: let a baton take the lock once, it "
                            "migrates the table")
        raise LockWrong(f"'{path}' is another application's database: give the lock a file of its "
                        "own")

    @contextlib.contextmanager
    def transaction(self, held=None, may_create=False, write=True):
        """A transaction on tables that are ours. HELD = ((device, inode), uuid) of the file
        in which the lock is held: anything else there is Moved. Commits at the end of the block."""
        end = time.monotonic() + self.busy_limit
        place = self.place()
        if place.status is None and held:
            raise Moved(f"'{place.path}' was deleted")
        if place.status is None and not may_create:
            raise LockError(f"there is no lock database '{place.path}'")
        uri = pathlib.Path(place.path).as_uri() + ("?mode=rwc" if may_create else "?mode=rw")
        try:
            db = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise LockError(f"cannot open the lock database '{place.path}': {error}") from None
        committing = False
        try:
            # Asked first: the answer does not write, and WAL is never changed by us.
            if self._retry(db, "PRAGMA journal_mode", end).fetchone()[0] == "wal":
                raise LockWrong(f"'{place.path}' is in WAL mode, in which a replaced file goes "
                                "unnoticed; while nobody uses it, run: sqlite3 "
                                f"'{place.path}' 'PRAGMA journal_mode=TRUNCATE'")
            db.execute("PRAGMA synchronous=EXTRA")
            self._retry(db, "PRAGMA journal_mode=TRUNCATE", end)
            if write:
                self._retry(db, "BEGIN IMMEDIATE", end)
            else:
                db.execute("BEGIN")
                self._retry(db, "SELECT count(*) FROM sqlite_master", end)
            if not self._identify(db, place.path):
                if not write:           # many may start at once: who comes second finds it made
                    db.execute("ROLLBACK")
                    self._retry(db, "BEGIN IMMEDIATE", end)
                if write or not self._identify(db, place.path):
                    self._make(db, held or not may_create)
            self._same_file(db, place.path, held)
            yield db
            committing = True
            self._retry(db, "COMMIT", end)
            committing = False
            if held:
                self._same_file(None, place.path, held)
        except sqlite3.Error as error:
            if held:
                self._same_file(None, place.path, held)
            kind = Unknown if committing and "locked" not in str(error) else LockError
            raise kind(f"the lock database '{place.path}': {error}") from None
        finally:
            db.close()                  # rolls back what was not committed

    def _make(self, db, refused):
        if refused:
            raise Moved(f"'{self.path}' was emptied")
        for statement in SCHEMA.split(";\nCREATE"):
            statement = statement.strip()
            db.execute(statement if statement.startswith("CREATE") else "CREATE" + " " + statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        db.execute("INSERT INTO lock_meta(id, db_uuid, created_at) VALUES (1, ?, ?)",
                   (str(uuid.uuid4()), wall_us()))
        db.execute("INSERT INTO scheduler_lock(id, term, epoch, state, ttl_ms)"
                   " VALUES (1, 0, 0, 0, 0)")

    def _same_file(self, db, path, held):
        if not held:
            return
        file, db_uuid = held
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                return                  # cannot be known now
            raise Moved(f"'{path}' was deleted") from None
        if (status.st_dev, status.st_ino) != file:
            raise Moved(f"'{path}' was replaced")
        if db is not None and db.execute("SELECT db_uuid FROM lock_meta").fetchone() != (db_uuid,):
            raise Moved(f"'{path}' was overwritten with another database")

    # the operations

    def _view(self, db):
        path = os.path.realpath(self.path)
        row = db.execute(f"SELECT {', '.join(_COLUMNS.split())} FROM scheduler_lock").fetchone()
        meta = db.execute("SELECT db_uuid FROM lock_meta").fetchone()
        if row is None or meta is None:
            raise LockError(f"'{path}' has lost its rows: let a baton take the lock once")
        try:
            floor = _sidefiles.floor_read(path)
        except OSError as error:
            floor = error
        status = os.stat(path)
        return View(Row(*row), meta[0], floor, (status.st_dev, status.st_ino))

    def inspect(self):
        with self.transaction(may_create=self.create, write=False) as db:
            return self._view(db)

    def _end_history(self, db, reason):
        db.execute("UPDATE lock_history SET ended_at = ?, reason = ? WHERE ended_at IS NULL",
                   (wall_us(), reason))

    def acquire(self, view, epoch, me, reason):
        """ME: a Row of what to write. Refused when the row is not as in VIEW any more."""
        seen = view.row
        with self.transaction(held=(view.file, view.db_uuid)) as db:
            changed = db.execute(
                "UPDATE scheduler_lock SET term = :epoch, epoch = :epoch, state = 1,"
                " holder = :holder, beat = 0, ttl_ms = :ttl_ms, boot_id = :boot_id,"
                " machine_id = :machine_id, guard_ino = :guard_ino, pid1 = :pid1, pid = :pid,"
                " hostname = :hostname, worker = :worker, created_at = :now, heartbeat_at = :now"
                " WHERE id = 1 AND term = :seen_term AND holder = :seen_holder AND"
                " beat = :seen_beat AND term < :epoch",
                dict(me._asdict(), epoch=epoch, now=wall_us(), seen_term=seen.term,
                     seen_holder=seen.holder, seen_beat=seen.beat)).rowcount
            if changed != 1:
                raise Refused
            db.execute("DELETE FROM executor")
            self._end_history(db, reason)
            db.execute("INSERT INTO lock_history(term, holder, hostname, pid, worker, acquired_at)"
                       " VALUES (?, ?, ?, ?, ?, ?)",
                       (epoch, me.holder, me.hostname, me.pid, me.worker, wall_us()))

    def renew(self, held, epoch, holder, ttl_ms):
        with self.transaction(held=held) as db:
            if db.execute("UPDATE scheduler_lock SET beat = beat + 1, ttl_ms = ?, heartbeat_at = ?"
                          " WHERE id = 1 AND state = 1 AND term = ? AND epoch = ? AND holder = ?",
                          (ttl_ms, wall_us(), epoch, epoch, holder)).rowcount != 1:
                raise Refused

    def release(self, held, epoch, holder, reason):
        with self.transaction(held=held) as db:
            if db.execute("UPDATE scheduler_lock SET state = 0, holder = '', beat = beat + 1,"
                          " worker = '', heartbeat_at = ? WHERE id = 1 AND state = 1 AND"
                          " term = ? AND epoch = ? AND holder = ?",
                          (wall_us(), epoch, epoch, holder)).rowcount != 1:
                raise Refused
            db.execute("DELETE FROM executor")
            self._end_history(db, reason)

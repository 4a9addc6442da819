"""The files beside the lock database, byte for byte as worker/lock/floor.c and guard.c write them.

floor: the highest term ever given and the database's UUID, in two checksummed slots.
guard: one locked byte per epoch, held by an open file description; and the deadman's mark.
"""

import errno
import fcntl
import os
import struct
import time

F_OFD_GETLK, F_OFD_SETLK = 36, 37
_FLOCK = struct.Struct("hhqqixxxx")     # struct flock of 64-bit Linux
TERM_MAX = 1 << 53                      # a clock in microseconds beyond it is nonsense

_FLOOR = struct.Struct("<IIQq40sQ")
_FLOOR_MAGIC, _FLOOR_VERSION, _FLOOR_SLOT_BYTES = 0x524F4C46, 1, 512
_MARK = struct.Struct("<IIqQ")
_MARK_MAGIC, _MARK_VERSION = 0x4B52414D, 1


def checksum(data):
    """64 bits of FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _lock(fd, command, kind, byte):
    """The answer's lock type."""
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    return _FLOCK.unpack(answer)[0]


def _open_side(path, suffix, flags):
    """The file PATH SUFFIX; made, where flags say so, with the mode and owner of the database."""
    name = path + suffix
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(name, flags & ~os.O_CREAT)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    try:
        fd = os.open(name, flags | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(name, flags & ~os.O_CREAT)
    try:
        database = os.stat(path)
        os.fchmod(fd, database.st_mode & 0o666)
        os.fchown(fd, database.st_uid, database.st_gid)
    except OSError:
        pass                            # it keeps our owner then
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return fd


# --- the floor ---------------------------------------------------------------------------------

def _read_slots(fd):
    """[(sequence, term, uuid, place)] of those that are whole, the newest last."""
    slots = []
    for place in range(2):
        data = os.pread(fd, _FLOOR.size, place * _FLOOR_SLOT_BYTES)
        if len(data) != _FLOOR.size:
            continue
        magic, version, sequence, term, uuid, check = _FLOOR.unpack(data)
        if (magic == _FLOOR_MAGIC and version == _FLOOR_VERSION and 0 < term <= TERM_MAX
                and check == checksum(data[:-8]) and b"\0" in uuid):
            slots.append((sequence, term, uuid.split(b"\0")[0].decode("ascii", "replace"), place))
    return sorted(slots)


def floor_read(path):
    """(highest term, UUID), None when there is no floor. OSError when it cannot be read or both of
    its records are damaged."""
    try:
        fd = _open_side(path, "-floor", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        slots = _read_slots(fd)
    finally:
        os.close(fd)
    if not slots:
        raise OSError(errno.EIO, "both of its records are damaged", path + "-floor")
    return max(slot[1] for slot in slots), slots[-1][2]


def floor_raise(path, uuid, term, limit):
    """The highest of what is there and TERM, on the disk before this returns. OSError; waits for
    another writer LIMIT seconds at most."""
    fd = _open_side(path, "-floor", os.O_RDWR | os.O_CREAT)
    try:
        end = time.monotonic() + limit
        while True:
            try:
                _lock(fd, F_OFD_SETLK, fcntl.F_WRLCK, 0)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= end:
                    raise
                time.sleep(0.001)
        slots = _read_slots(fd)
        highest = max([slot[1] for slot in slots], default=0)
        if highest >= term and slots[-1][2] == uuid:
            return
        sequence, place = (slots[-1][0] + 1, 1 - slots[-1][3]) if slots else (1, 0)
        data = _FLOOR.pack(_FLOOR_MAGIC, _FLOOR_VERSION, sequence, max(highest, term),
                           uuid.encode()[:39], 0)[:-8]
        data += struct.pack("<Q", checksum(data))
        if os.pwrite(fd, data, place * _FLOOR_SLOT_BYTES) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path + "-floor")
        os.fdatasync(fd)
    finally:
        os.close(fd)                    # drops the lock


# --- the guard ---------------------------------------------------------------------------------

class Guard:
    """An open file description of the guard. Closing it gives up what it holds."""

    def __init__(self, path):
        self.fd = _open_side(path, "-guard", os.O_RDWR | os.O_CREAT)
        self.inode = os.fstat(self.fd).st_ino

    def lock(self, epoch):
        """False when somebody has that byte. Never waits."""
        try:
            _lock(self.fd, F_OFD_SETLK, fcntl.F_WRLCK, epoch)
            return True
        except (BlockingIOError, PermissionError):
            return False

    def is_free(self, epoch):
        # As a reader: a waiter's lock for reading is no holder.
        return _lock(self.fd, F_OFD_GETLK, fcntl.F_RDLCK, epoch) == fcntl.F_UNLCK

    def cleared(self):
        """The epoch whose processes a deadman has killed to the last; 0 = no mark."""
        data = os.pread(self.fd, _MARK.size, 0)
        if len(data) != _MARK.size:
            return 0
        magic, version, epoch, check = _MARK.unpack(data)
        whole = (magic == _MARK_MAGIC and version == _MARK_VERSION
                 and check == checksum(data[:-8]))
        return epoch if whole else 0

    def close(self):
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

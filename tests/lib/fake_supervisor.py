"""What a supervisor gives to one worker, for tests of client libraries: a lease page in a memfd and
the other end of the channel. worker-protocol.md is the contract."""

import fcntl
import os
import select
import socket
import struct
import time

from harness import check

F_ADD_SEALS, SEALS = 1033, 0x1 | 0x2 | 0x4
SECOND = 1_000_000_000


class World:
    def __init__(self):
        self.page = os.memfd_create("lease", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(self.page, 4096)
        os.fchmod(self.page, 0o400)
        self.read_only = os.open(f"/proc/self/fd/{self.page}", os.O_RDONLY)
        fcntl.fcntl(self.page, F_ADD_SEALS, SEALS)
        os.pwrite(self.page, struct.pack("<II", 0x4E544142, 1), 0)
        os.pwrite(self.page, struct.pack("<Q", os.stat("/proc/self/ns/time").st_ino), 32)
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(5)
        self.environ = {"BATON_LEASE_FD": str(self.read_only),
                        "BATON_CHANNEL_FD": str(self.theirs.fileno())}
        self.heard = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.page)
        os.close(self.read_only)
        self.ours.close()
        self.theirs.close()

    def show(self, term, soft=50.0, hard=60.0):
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.pwrite(self.page, struct.pack("<Qq", term, now + int(soft * SECOND)), 16)
        os.pwrite(self.page, struct.pack("<q", now + int(hard * SECOND)), 8)

    def clear(self):
        os.pwrite(self.page, struct.pack("<q", 0), 8)

    def tell(self, *lines):
        self.ours.sendall("".join(line + "\n" for line in lines).encode())

    def promote(self, term, **lease):
        self.show(term, **lease)
        self.tell(f"promote {term} 60000")

    def hear(self):
        """The next line from the worker, within 5 s."""
        while b"\n" not in self.heard:
            data = self.ours.recv(512)
            check(data, "the worker hung up")
            self.heard += data
        line, _, self.heard = self.heard.partition(b"\n")
        return line.decode()

    def hears_nothing(self):
        check(self.heard == b"" and not select.select([self.ours], [], [], 0)[0],
              "the worker said something")

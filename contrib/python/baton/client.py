"""The lease page, the channel, and systemd's notification socket.

Processes: the descriptors are inherited by the whole process tree of a worker, also by a grandchild
that is forked later (gunicorn's own workers). Asking and sending work in all of them at once, with
a Baton opened before or after the fork. The supervisor's lines have one reader: the process that
called listen() or start(); two would steal each other's lines. In a program that forks, call it
after the fork (gunicorn: post_fork), and in one of the processes.

Threads: asking and sending are for any thread; listen(), next_event() and close() for one at a time.
claim() is for any thread while the listener thread runs (start()), else for the one that listens.
"""

import collections
import datetime
import errno
import fcntl
import logging
import mmap
import os
import queue
import select
import socket
import stat
import sys
import threading
import time

_MAGIC, _VERSION, _PAGE_BYTES, _LINE_BYTES = 0x4E544142, 1, 4096, 512
_F_GET_SEALS, _F_SEAL_SHRINK = 1034, 0x2
_TRIES = 64
_CLAIMS = 64            # asked for at one time; the supervisor takes no more than 256 of a worker
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_log = logging.getLogger("baton")


class BatonError(Exception):
    """What the environment names cannot be used; the text says what and why."""


class NotSupervised(BatonError):
    """Neither BATON_LEASE_FD nor BATON_CHANNEL_FD is set: not started by baton."""


Promote = collections.namedtuple("Promote", "term ttl")
Promote.__doc__ = "You are the executor under `term`. `ttl`, in seconds, is information."
Demote = collections.namedtuple("Demote", "term reason grace")
Demote.__doc__ = ("Take no more work of `term`, finish what runs within `grace` seconds. `reason` is "
                  "handoff, shutdown, lost or a word of a later version.")


def now_ns():
    """The only clock that leases are compared with."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def time_namespace():
    """Inode of this process's time namespace, 0 when the kernel has none."""
    try:
        return os.stat("/proc/self/ns/time").st_ino
    except OSError:
        return 0


# --- the lease page ----------------------------------------------------------------------------

class _Page:
    """The fields as 64-bit words, each read by one load (struct would read byte by byte)."""

    def __init__(self, fd):
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise BatonError(f"descriptor {fd} (BATON_LEASE_FD) cannot be used: {error.strerror}; "
                             "was it closed on the way here?") from None
        if not _is_sealed_page(fd, status):
            raise BatonError(f"descriptor {fd} (BATON_LEASE_FD) is not a lease page: not a sealed "
                             f"file of {_PAGE_BYTES} bytes")
        try:
            self._map = mmap.mmap(fd, _PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError as error:
            raise BatonError(f"cannot map the lease page: {error.strerror}") from None
        self._view = memoryview(self._map)
        self._signed, self._unsigned = self._view.cast("q"), self._view.cast("Q")
        try:
            self._check(fd)
        except BatonError:
            self.close()
            raise

    def _check(self, fd):
        magic, version = self._unsigned[0] & 0xFFFFFFFF, self._unsigned[0] >> 32
        if magic != _MAGIC or sys.byteorder != "little":
            raise BatonError(f"descriptor {fd} (BATON_LEASE_FD) is not a lease page: wrong magic")
        if version != _VERSION:
            raise BatonError(f"the lease page has layout version {version}, this client knows "
                             f"{_VERSION}")
        if self._unsigned[4] not in (0, time_namespace()):
            raise BatonError("this process is not in the supervisor's time namespace: its lease "
                             "cannot be compared with the clock")

    def deadline(self):
        return self._signed[1]

    def read(self):
        """(deadline, term, soft deadline) of one instant."""
        for _ in range(_TRIES):
            deadline = self._signed[1]
            term, soft = self._unsigned[2], self._signed[3]
            if self._signed[1] == deadline:
                return deadline, term, soft
        return 0, 0, 0

    def close(self):
        for view in (self._signed, self._unsigned, self._view):
            view.release()
        self._map.close()


def _is_sealed_page(fd, status):
    # A file that could shrink would make a later read of the page a SIGBUS.
    try:
        return (stat.S_ISREG(status.st_mode) and status.st_size == _PAGE_BYTES
                and fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK != 0)
    except OSError:
        return False


# --- the channel -------------------------------------------------------------------------------

def _number(word):
    return int(word) if word.isascii() and word.isdigit() else None


def _claim_text(job, when):
    """"JOB TIME" as it is written on the channel: blanks, controls and % of a name become %XX."""
    if isinstance(when, datetime.datetime):
        if when.tzinfo is None:
            raise ValueError("the time of a claim needs a time zone: it is the same moment for all")
        when = (when - _EPOCH) // datetime.timedelta(microseconds=1)
    if not isinstance(when, int) or when < 0:
        raise ValueError("the time of a claim is a datetime, or microseconds since 1970")
    name = "".join(f"%{ord(c):02X}" if ord(c) <= 0x20 or c in "%\x7f" else c for c in job)
    if not 0 < len(name.encode()) < 128:
        raise ValueError(f"the name of a job has 1 to 127 bytes: {job[:140]!r}")
    return f"{name} {when}"


class _Lines:
    """Whole lines out of a byte stream; a line that is too long or holds a NUL is dropped."""

    def __init__(self):
        self._line, self._skipping = bytearray(), False

    def take(self, data):
        """(bytes used, line or None): stops behind the first line."""
        end = data.find(b"\n")
        piece = data if end < 0 else data[:end]
        if len(self._line) + len(piece) > _LINE_BYTES - 1 or b"\0" in piece:
            self._skipping = True
        else:
            self._line += piece
        if end < 0:
            return len(data), None
        line = None if self._skipping else self._line.decode("utf-8", "replace")
        self._line, self._skipping = bytearray(), False
        return end + 1, line


class _Channel:
    def __init__(self, fd):
        try:
            copy = os.dup(fd)
        except OSError as error:
            raise BatonError(f"descriptor {fd} (BATON_CHANNEL_FD) cannot be used: {error.strerror}; "
                             "was it closed on the way here?") from None
        try:
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                raise OSError(errno.ENOTSOCK, "not a socket")
            self.socket = socket.socket(fileno=copy)
            if self.socket.type != socket.SOCK_STREAM:
                raise OSError(errno.EPROTOTYPE, "not a stream")
        except OSError:
            os.close(copy)
            raise BatonError(f"descriptor {fd} (BATON_CHANNEL_FD) is not a stream socket") from None
        self.lines = _Lines()
        self.at_end = False

    def send(self, line):
        """False when the supervisor has gone or does not read at present."""
        data = line.encode() + b"\n"
        try:
            sent = self.socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return sent == len(data)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False

    def next_line(self):
        """A line, or None when there is none now; sets at_end. Takes no more from the socket than
        that line, so that another process may become the reader after it."""
        while not self.at_end:
            try:
                data = self.socket.recv(_LINE_BYTES, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                data = b""
            if not data:
                self.at_end = True
                return None
            used, line = self.lines.take(data)
            self.socket.recv(used, socket.MSG_DONTWAIT)
            if line is not None:
                return line
        return None

    def close(self):
        self.socket.close()


# --- the client --------------------------------------------------------------------------------

def _descriptor(environ, name):
    text = environ.get(name, "")
    if not text:
        return None
    number = _number(text)
    if number is None or number > 0x7FFFFFFF:
        raise BatonError(f"{name}={text[:40]!r} is not the number of a descriptor")
    return number


class Baton:
    """One worker's view of the baton. Make it with from_environ()."""

    def __init__(self, lease_fd=None, channel_fd=None):
        self._page = None if lease_fd is None else _Page(lease_fd)
        try:
            self._channel = None if channel_fd is None else _Channel(channel_fd)
        except BatonError:
            if self._page:
                self._page.close()
            raise
        self._reader = 0        # the process that listens
        self._from_page = False
        self._told = 0          # the term promoted and not demoted yet, as told to the program
        self._demoted = 0       # the last term whose demotion was told
        self._thread = None
        self._forget_claims()

    def _forget_claims(self):
        self._claims = {}               # "JOB TIME" asked for: None, True, False
        self._claim_news = threading.Condition()
        self._claim_room = threading.BoundedSemaphore(_CLAIMS)
        self._waiting = collections.deque()     # events that came before the answer of a claim

    @classmethod
    def from_environ(cls, environ=None):
        """Open what BATON_LEASE_FD and BATON_CHANNEL_FD name. NotSupervised when neither is set,
        BatonError when one cannot be used."""
        environ = os.environ if environ is None else environ
        lease, channel = (_descriptor(environ, name)
                          for name in ("BATON_LEASE_FD", "BATON_CHANNEL_FD"))
        if lease is None and channel is None:
            raise NotSupervised("neither BATON_LEASE_FD nor BATON_CHANNEL_FD is set: not started "
                                "by baton")
        return cls(lease, channel)

    def close(self):
        """Ends the listener thread too. Afterwards not the executor."""
        self.stop()
        page, self._page = self._page, None
        channel, self._channel = self._channel, None
        if page:
            page.close()
        if channel:
            channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # questions

    def is_executor(self):
        """Exactly while this worker is the executor. Ask before each effect."""
        page = self._page
        if page is None:
            return False
        deadline = page.deadline()
        return deadline != 0 and now_ns() < deadline

    def _read(self):
        return self._page.read() if self._page is not None else (0, 0, 0)

    def may_start(self):
        """May new work be started? Executor, before the soft deadline, no demotion heard of."""
        deadline, term, soft = self._read()
        return deadline != 0 and term != self._demoted and now_ns() < min(deadline, soft)

    @property
    def term(self):
        """The fencing token, to be stored beside an effect; 0 when not the executor."""
        deadline, term, _ = self._read()
        return term if deadline != 0 and now_ns() < deadline else 0

    def lease_left(self):
        """Seconds that the lease lasts if nobody renews it; 0.0 when not the executor."""
        deadline = self._read()[0]
        return max(0, deadline - now_ns()) / 1e9 if deadline else 0.0

    # answers

    def _send(self, line):
        return self._channel is not None and self._channel.send(line)

    def promoted(self, term):
        """I execute now. The answers return False when nobody could be told."""
        return self._send(f"promoted {term:d}")

    def demoted(self, term):
        """I execute nothing any more."""
        return self._send(f"demoted {term:d}")

    def busy(self, count):
        """I run `count` jobs now; a handoff waits for 0, within its timeout."""
        return self._send(f"busy {count:d}")

    def ready(self):
        return notify("READY=1")

    def status(self, text):
        return notify("STATUS=" + " ".join(text.splitlines()))

    def stopping(self):
        return notify("STOPPING=1")

    def watchdog(self):
        return notify("WATCHDOG=1")

    # events

    def listen(self):
        """Become the reader of the supervisor's lines and ask for the present state. Call
        next_event() until it returns None, then whenever fileno() is readable."""
        if self._channel is None:
            raise BatonError("no channel was inherited (BATON_CHANNEL_FD): nothing to listen to")
        if self._reader != os.getpid():     # a fork: the parent's half line and state are not ours
            self._channel.lines = _Lines()
            self._told = self._demoted = 0
            self._forget_claims()
        self._reader = os.getpid()
        self._from_page = True
        self._send("hello")
        return self.fileno()

    def fileno(self):
        """For select and its kin. Of the process that called listen()."""
        if self._channel is None or self._reader != os.getpid():
            raise BatonError("this process does not listen: call listen()")
        return self._channel.socket.fileno()

    @property
    def at_end(self):
        """The supervisor has gone; the lease page stays right."""
        return self._channel is None or self._channel.at_end

    def _tell_demote(self, reason, grace):
        self._demoted, self._told = self._told, 0
        return Demote(self._demoted, reason, grace)

    def _take_line(self, line):
        """Only what the page confirms counts: a promotion of the term that it shows, a demotion of
        the term that the program was told."""
        words = line.split(" ")
        if words[0] in ("claimed", "refused") and len(words) > 2:
            with self._claim_news:
                text = f"{words[1]} {words[2]}"
                if text in self._claims:
                    self._claims[text] = words[0] == "claimed"
                    self._claim_news.notify_all()
            return None
        term = _number(words[1]) if len(words) > 1 else None
        if words[0] == "promote" and len(words) > 2 and _number(words[2]) is not None:
            if not term or term != self.term or term in (self._told, self._demoted):
                return None
            if self._told:      # the end of that one was never told: two events
                self._from_page = True
                return self._tell_demote("lost", 0.0)
            self._told = term
            return Promote(term, _number(words[2]) / 1e3)
        if words[0] == "demote" and len(words) > 3 and _number(words[3]) is not None:
            if term and term == self._told:
                return self._tell_demote(words[2], _number(words[3]) / 1e3)
        return None

    def next_event(self):
        """Promote, Demote, or None when there is nothing now. Never waits. A lease that is found to
        have ended without a line is told as Demote(term, "lost", 0.0)."""
        self.fileno()
        if self._waiting:
            return self._waiting.popleft()
        return self._next_event()

    def _next_event(self):
        if self._from_page:
            self._from_page = False
            term = self.term
            if term and not self._told and term != self._demoted:
                self._told = term
                return Promote(term, self.lease_left())
        while True:
            line = self._channel.next_line()
            if line is None:
                if self._channel.at_end:
                    with self._claim_news:
                        self._claim_news.notify_all()
                break
            event = self._take_line(line)
            if event is not None:
                return event
        if self._told and self.term != self._told:
            return self._tell_demote("lost", 0.0)
        return None

    # claims

    def claim(self, job, when, timeout=10.0):
        """The right to run the firing of `job` that is due at `when` (an aware datetime, or
        microseconds since 1970; of the schedule, not of now). True for one worker, once: it is
        committed in the lock's database before the answer, so over workers, instances and takeovers
        the firing runs once or, when its worker dies first, not again. False: it ran or runs
        already, or this worker is not the executor. BatonError: no answer; do not run it.

        A demotion that comes meanwhile does not take it back: on_demote waits for what runs, and
        `demoted` is not said before the claims on their way are answered.

        While the listener thread runs, from any thread. Otherwise this process must have called
        listen(), and events that come meanwhile wait for next_event()."""
        text = _claim_text(job, when)
        term = self.term
        if not self.may_start():
            return False
        end = time.monotonic() + timeout
        if not self._claim_room.acquire(timeout=timeout):
            raise BatonError(f"too many claims wait for their answers: '{job}' was not asked for")
        try:
            return self._claim(job, text, end) and self.term == term
        finally:
            self._claim_room.release()

    def _claim(self, job, text, end):
        self.fileno()
        with self._claim_news:
            if text in self._claims:
                raise BatonError(f"'{text}' is being claimed already")
            self._claims[text] = None
        try:
            if not self._send("claim " + text):
                raise BatonError(f"'{job}' could not be claimed: the supervisor does not read")
            if self._thread is not None and self._thread.alive():
                with self._claim_news:
                    self._claim_news.wait_for(
                        lambda: self._claims[text] is not None or self.at_end,
                        max(0.0, end - time.monotonic()))
            else:
                self._read_answer(text, end)
            if self._claims[text] is None:
                raise BatonError(f"no answer to the claim of '{job}': "
                                 + ("the supervisor has gone" if self.at_end else "too late"))
            return self._claims[text]
        finally:
            with self._claim_news:
                del self._claims[text]
                self._claim_news.notify_all()

    def _wait_claims(self):
        """Until those that were asked for are answered, or given up by who asked."""
        with self._claim_news:
            self._claim_news.wait_for(lambda: not self._claims)

    def _read_answer(self, text, end):
        waiter = select.poll()
        waiter.register(self.fileno(), select.POLLIN)
        while True:
            event = self._next_event()
            if event is not None:
                self._waiting.append(event)
                continue
            left = end - time.monotonic()
            if self._claims[text] is not None or self.at_end or left <= 0:
                return
            waiter.poll(left * 1000 + 1)

    # the listener thread

    def start(self, on_promote=None, on_demote=None):
        """Listen in a daemon thread of this process. on_promote(event) is called and `promoted`
        said when it returns; on_demote(event) is called and `demoted` said when it returns: it
        waits for what runs. An exception in either is logged and nothing is said."""
        if self._thread is not None and self._thread.alive():
            raise BatonError("the listener thread runs already")
        self.listen()
        self._thread = _Listener(self, on_promote, on_demote)

    def stop(self):
        """End the listener thread, after the callback that runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()


class _Listener:
    def __init__(self, baton, on_promote, on_demote):
        self._baton, self._pid = baton, os.getpid()
        self._calls = {Promote: (on_promote, baton.promoted), Demote: (on_demote, baton.demoted)}
        self._wake_read, self._wake_write = os.pipe()
        self._events = queue.SimpleQueue()      # None = the end
        # Two: what is called may take long, and may wait for a claim whose answer must be read.
        self._thread = threading.Thread(target=self._run, name="baton-listener", daemon=True)
        self._caller = threading.Thread(target=self._run_calls, name="baton-callbacks", daemon=True)
        self._thread.start()
        self._caller.start()

    def alive(self):
        return self._pid == os.getpid() and self._thread.is_alive()

    def _run_calls(self):
        while True:
            event = self._events.get()
            if event is None:
                return
            self._call(event)

    def _call(self, event):
        callback, answer = self._calls[type(event)]
        try:
            if callback is not None:
                callback(event)
            if isinstance(event, Demote):
                self._baton._wait_claims()
        except Exception:
            _log.exception("callback for %r failed; the supervisor is not told of success", event)
        else:
            answer(event.term)

    def _run(self):
        baton = self._baton
        waiter = select.poll()
        waiter.register(baton.fileno(), select.POLLIN)
        waiter.register(self._wake_read, select.POLLIN)
        watching = True
        while True:
            event = baton.next_event()
            if event is not None:
                self._events.put(event)
                continue
            if baton.at_end and watching:
                waiter.unregister(baton.fileno())
                watching = False
            # Wakes at the deadline that it knows of: a lease may end without a line.
            ready = waiter.poll(baton.lease_left() * 1000 + 1 if baton._told else None)
            if any(fd == self._wake_read for fd, _ in ready):
                return

    def stop(self):
        if self._pid == os.getpid():
            os.write(self._wake_write, b"x")
            self._thread.join()
            self._events.put(None)
            if self._caller is not threading.current_thread():
                self._caller.join()
        os.close(self._wake_write)
        os.close(self._wake_read)


# --- systemd's protocol ------------------------------------------------------------------------

def notify(state):
    """Send STATE to NOTIFY_SOCKET, under baton and systemd alike. True = sent, False = nobody asked
    for it (the variable is not set). OSError when it cannot be sent."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    if path[0] not in "/@" or len(path) < 2:
        raise OSError(errno.EINVAL, "NOTIFY_SOCKET is neither a path nor an abstract name", path)
    address = "\0" + path[1:] if path[0] == "@" else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
    return True


def watchdog_interval():
    """Within how many seconds watchdog() is expected from this process; 0.0 = it is not."""
    usec = _number(os.environ.get("WATCHDOG_USEC", ""))
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec or (pid and pid != str(os.getpid())):
        return 0.0
    return usec / 1e6

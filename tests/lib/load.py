"""A steady load of HTTP requests that counts what fails. Stdlib only.

Half of the clients open a connection for each request; the other half keep theirs. Each client
sends its next request at its own steady times; a late answer delays only itself.

A failure is: refused, reset or closed before the whole answer, a status that is not 200, an answer
that is not complete, no answer within TIMEOUT. One case is no failure and is counted apart, as
`reused`: a connection that has already carried an answer, and was idle since, is closed by the
server before any byte of the answer to the next request. That is the race that every keep-alive
client knows and RFC 9112, 9.3.1 has it retry (once, on a new connection, an idempotent method); the
retry must succeed, and its latency counts from the first attempt. After the first byte of an answer
a close is a failure.

So it is on a connection that is new, but with UNREAD: some servers close, as they end, what they have
accepted and not read yet (uvicorn 0.17 does: Server.shutdown() closes each connection that has no
request). That is counted apart, as `unread`, and retried in the same way; it is for the caller to say
how often it may happen.
"""

import collections
import os
import select
import socket
import threading
import time

TIMEOUT = 15.0
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\n\r\n"


class Broken(Exception):
    """The connection ended; begun = after the first byte of the answer."""

    def __init__(self, what, begun):
        super().__init__(what)
        self.begun = begun


class Connection:
    def __init__(self, port, keep):
        self.keep, self.answers = keep, 0
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    def closed_while_idle(self):
        """The server has said that it closes: the connection is not used again."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def ask(self):
        """(status, whether the server keeps the connection)"""
        data = b""
        try:
            self.socket.sendall(REQUEST % (b"keep-alive" if self.keep else b"close"))
            while b"\r\n\r\n" not in data:
                part = self.socket.recv(65536)
                if not part:
                    raise Broken("closed before the whole answer", bool(data))
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
            length, chunked = fields.get(b"content-length"), b"transfer-encoding" in fields
            while not (len(body) >= int(length) if length is not None else
                       chunked and body.endswith(b"0\r\n\r\n")):
                part = self.socket.recv(65536)
                if not part:
                    if length is None and not chunked:
                        break
                    raise Broken("closed within the answer", True)
                body += part
        except TimeoutError:
            raise Broken(f"no answer within {TIMEOUT:.0f} s", True) from None
        except OSError as e:
            raise Broken(e.strerror or str(e), bool(data)) from None
        self.answers += 1
        keeps = self.keep and fields.get(b"connection", b"keep-alive") != b"close" and \
            (length is not None or chunked)
        return int(lines[0].split()[1]), keeps


class Load:
    """load = Load(port); ...; load.stop(); load.failures, load.answered, load.worst(since)"""

    def __init__(self, port, clients=8, rate=80, unread=False):
        self.port, self.period = port, clients / rate
        self.failures, self.answered, self.reused, self.closed = [], 0, 0, 0
        self.may_be_unread, self.unread = unread, 0
        self.took = []  # (when it began, seconds)
        self.kinds = collections.Counter()
        self._ended, self._lock = False, threading.Lock()
        self._gate, self._inside = threading.Condition(), 0
        self._open = True
        self._threads = [threading.Thread(target=self._run, args=(i / clients, i % 2 == 1), daemon=True)
                         for i in range(clients)]
        for thread in self._threads:
            thread.start()

    # one client
    def _run(self, offset, keep):
        due, connection = time.monotonic() + offset * self.period, None
        while not self._ended:
            time.sleep(max(0, due - time.monotonic()))
            due = max(due + self.period, time.monotonic() - self.period)
            with self._gate:
                self._gate.wait_for(lambda: self._open)
                self._inside += 1
            try:
                connection = self._one(connection, keep)
            finally:
                with self._gate:
                    self._inside -= 1
                    self._gate.notify_all()
        if connection:
            connection.close()

    def _one(self, connection, keep):
        began = time.monotonic()
        try:
            status, connection = self._answer(connection, keep)
            if status != 200:
                raise Broken(f"status {status}", True)
        except (Broken, OSError) as e:
            with self._lock:
                self.failures.append((began, "keep-alive" if keep else "new connection",
                                      getattr(e, "strerror", None) or str(e)))
            return None
        with self._lock:
            self.answered += 1
            self.kinds["keep-alive" if keep else "new connection"] += 1
            self.took.append((began, time.monotonic() - began))
        return connection

    def _answer(self, connection, keep):
        if connection and connection.closed_while_idle():
            connection.close()
            connection = None
            with self._lock:
                self.closed += 1
        for _ in range(2):
            connection = connection or Connection(self.port, keep)
            try:
                status, keeps = connection.ask()
            except Broken as e:
                connection.close()
                fresh = connection.answers == 0
                if e.begun or (fresh and not self.may_be_unread):
                    raise
                connection = None  # not a byte: the one retry
                with self._lock:
                    self.unread += fresh
                    self.reused += not fresh
                continue
            if keeps:
                return status, connection
            connection.close()
            return status, None
        raise Broken("no new connection", False)

    # for the test
    def idle(self):
        """with load.idle(): no request is under way; they go on afterwards."""
        return _Idle(self)

    def worst(self, since=0.0, until=float("inf")):
        with self._lock:
            return max((s for began, s in self.took if since <= began < until), default=0.0)

    def stop(self):
        self._ended = True
        for thread in self._threads:
            thread.join(2 * TIMEOUT)
        return self

    def text(self):
        return (f"{self.answered} answered ({self.kinds['new connection']} on new connections), "
                f"{len(self.failures)} failed, {self.closed} kept connections closed while idle, "
                f"{self.reused} while the next request was on its way (retried), "
                f"{self.unread} accepted and closed unread (retried), "
                f"worst {self.worst() * 1000:.0f} ms")


class _Idle:
    def __init__(self, load):
        self.load = load

    def __enter__(self):
        load = self.load
        with load._gate:
            load._open = False
            load._gate.wait_for(lambda: load._inside == 0)

    def __exit__(self, *_):
        with self.load._gate:
            self.load._open = True
            self.load._gate.notify_all()


# --- the applications --------------------------------------------------------------------------
PYTHON_APP = '''
import os, socket, time
time.sleep(float(os.environ.get("BOOT", "0")))
if os.environ.get("BROKEN"):
    raise RuntimeError("this version cannot start")
BODY = b"%d" % os.getpid()
LENGTH = str(len(BODY))

def ready():
    name = os.environ.get("NOTIFY_SOCKET")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"READY=1", "\\0" + name[1:] if name[0] == "@" else name)

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", LENGTH)])
    return [BODY]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", LENGTH.encode())]})
    await send({"type": "http.response.body", "body": BODY})

ready()
'''
# One that ends as a server should: what it has accepted it answers.
STRICT_APP = '''
import os, select, signal, socket, threading, time
time.sleep(float(os.environ.get("BOOT", "0")))
BODY = str(os.getpid()).encode()
ending, wake = [], socket.socketpair()
wake[1].setblocking(False)
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
signal.set_wakeup_fd(wake[1].fileno())
listener = socket.socket(fileno=3)
listener.setblocking(False)

def serve(connection):
    with connection:
        connection.settimeout(10)
        while True:
            data = b""
            while b"\\r\\n\\r\\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            last = bool(ending) or b"connection: close" in data.lower()
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: %s\\r\\n\\r\\n%s" % (
                len(BODY), b"close" if last else b"keep-alive", BODY))
            if last:
                return
            while not select.select([connection], [], [], 0.05)[0]:
                if ending:
                    return

name = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", "\\0" + name[1:] if name[0] == "@" else name)
while not ending:
    select.select([listener, wake[0]], [], [])
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    threading.Thread(target=serve, args=(connection,)).start()
'''
NODE_APP = '''
if (process.env.BROKEN) throw new Error('this version cannot start');
const server = require('http').createServer((request, response) => response.end(String(process.pid)));
setTimeout(() => server.listen(Number(process.argv[2].split(':').pop())), 1000 * Number(process.env.BOOT || 0));
'''


def write_apps(folder):
    for name, text in (("app.py", PYTHON_APP), ("app.js", NODE_APP), ("strict.py", STRICT_APP)):
        with open(os.path.join(folder, name), "w", encoding="ascii") as f:
            f.write(text)

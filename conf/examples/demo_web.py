#!/usr/bin/env python3
"""The demonstration's service: a small web server with a scheduler in it. Standard library only.

Every worker carries the scheduler, as every worker of a real service does. It ticks once a second,
and asks before each tick whether this worker is the executor: the whole change that a program
needs. The rest of this file is an ordinary server on the socket that baton shares (LISTEN_FDS).
"""

import os
import select
import signal
import socket
import sys
import threading
import time

from baton import Baton

WORKER = os.environ.get("BATON_WORKER", "?")


def say(text):
    sys.stdout.write(text + "\n")       # one write: lines of threads do not mix
    sys.stdout.flush()


class Scheduler(threading.Thread):
    """In a real service: APScheduler, with baton.apscheduler.attach(scheduler)."""

    def __init__(self, baton):
        super().__init__(daemon=True)
        self.baton, self.ticks, self.ended = baton, 0, threading.Event()

    def run(self):
        second = int(time.time())
        while True:
            second = max(second + 1, int(time.time()))
            while time.time() < second:
                if self.ended.wait(second - time.time()):
                    return
            if self.baton.may_start():
                self.ticks += 1
                say(f"tick {time.strftime('%H:%M:%S', time.localtime(second))} "
                    f"(pid {os.getpid()}, term {self.baton.term})")


def promoted(event):
    say(f"I am the executor now, term {event.term}; to see another take over: "
        f"kill -9 {os.getpid()}")


def demoted(event):
    say(f"no longer the executor ({event.reason})")


def answer(connection, baton):
    with connection:
        connection.settimeout(2)
        try:
            connection.recv(65536)
            body = (f"{WORKER} pid {os.getpid()}"
                    f"{' is the executor' if baton.is_executor() else ''}\n").encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                               b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                               + body)
        except OSError:
            pass                        # the client is gone


def main():
    if int(os.environ.get("LISTEN_FDS", "0")) < 1:
        sys.exit("no socket was passed: start me with `baton run -c demo.ini`")
    listener = socket.socket(fileno=3)
    baton = Baton.from_environ()
    scheduler = Scheduler(baton)
    # A signal only writes into this pipe: what is being answered is answered to the end.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    baton.start(on_promote=promoted, on_demote=demoted)
    scheduler.start()
    baton.ready()
    while True:
        ready, _, _ = select.select([listener, wake_read], [], [])
        if wake_read in ready:
            break
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            continue                    # another worker was faster
        answer(connection, baton)
    scheduler.ended.set()
    scheduler.join()
    baton.stop()


if __name__ == "__main__":
    main()

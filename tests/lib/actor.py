#!/usr/bin/python3
"""A worker of election tests: appends a line to a log at everything that happens to it.

    actor.py LOG [FLAG...]

Each line is one write to a file opened O_APPEND, so lines of all workers stand in the order of
events: `BOOTTIME_NS VERB WORKER PID TERM INSTANCE REST`. Verbs: born, ready, promote, demote, end,
kin (a process below it), census (in REST the pids of the instance promoted before it that still
lived at this promotion), signal.

Flags: deaf (never answers demote), stubborn (ignores TERM), silent (never answers promote), busy
(says busy 1 at promotion, busy 0 on USR1), kin=N (N processes below it, of three sorts), census,
poison (exits at promotion), garbage (nonsense first), close (closes the channel), late (USR2: a
child that opens the channel then), leave (USR2: exits), quiet (does not read the channel), unready
(never says READY), watchdog (keeps it fed), orphans=N (N double-forked processes that end at once).
"""

import os
import select
import signal
import socket
import sys
import time

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
FLAGS = sys.argv[2:]
WORKER = os.environ.get("BATON_WORKER", "-")
INSTANCE = os.environ.get("BATON_INSTANCE", "-")
CHANNEL = int(os.environ.get("BATON_CHANNEL_FD", "-1"))


def tell(verb, term=0, rest=""):
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    os.write(LOG, f"{now} {verb} {WORKER} {os.getpid()} {term} {INSTANCE} {rest}\n".encode())


def say(line):
    data = line.encode() if isinstance(line, str) else line
    while data:
        try:
            data = data[os.write(CHANNEL, data):]
        except BlockingIOError:
            select.select([], [CHANNEL], [])
        except OSError:
            return


def notify(text):
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect("\0" + path[1:] if path[0] == "@" else path)
            s.send(text)


def ready():
    if "unready" not in FLAGS:
        notify(b"READY=1\n")
    if "watchdog" in FLAGS:
        each = int(os.environ["WATCHDOG_USEC"]) / 4e6
        signal.signal(signal.SIGALRM, lambda number, frame: notify(b"WATCHDOG=1\n"))
        signal.setitimer(signal.ITIMER_REAL, each, each)


def kin(count):
    """Child, double-forked orphan, child of a child in its own process group: by turns."""
    for i in range(count):
        if os.fork():
            continue
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if i % 3 and os.fork():
            if i % 3 == 1:
                os._exit(0)
            os.wait()
            os._exit(0)
        if i % 3 == 2:
            os.setpgid(0, 0)
        tell("kin", 0, str(i % 3))
        while True:
            signal.pause()


def orphans(count):
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                tell("orphan")
            os._exit(0)
        os.waitpid(pid, 0)


def living():
    """Processes of the instance promoted last before us, if another, that still live."""
    left, born, last = set(), {}, INSTANCE
    with open(sys.argv[1], encoding="ascii") as f:
        for line in f:
            word = line.split()
            if word[1] in ("born", "kin"):
                born.setdefault(word[5], []).append(word[3])
            elif word[1] == "promote":
                last = word[5]
    for pid in born.get(last, []) if last != INSTANCE else []:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as s:
                text = s.read()
            with open(f"/proc/{pid}/environ", "rb") as s:
                same = f"BATON_INSTANCE={last}".encode() in s.read()
        except OSError:
            continue
        if text.rpartition(")")[2].split()[0] not in "ZX" and same:
            left.add(pid)
    return left


def handle(line):
    word = line.split()
    if not word:
        return
    if word[0] == "promote":
        if "census" in FLAGS:
            left = living()
            tell("census", word[1], ",".join(sorted(left)) or "none")
        tell("promote", word[1])
        if "poison" in FLAGS:
            os._exit(7)
        if "busy" in FLAGS:
            say("busy 1\n")
        if "silent" not in FLAGS:
            say(f"promoted {word[1]}\n")
    elif word[0] == "demote":
        tell("demote", word[1], word[2])
        if "deaf" not in FLAGS:
            say(f"demoted {word[1]}\n")


def listen():
    rest = b""
    while True:
        data = os.read(CHANNEL, 4096)
        if not data:
            tell("eof")
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            handle(line.decode(errors="replace"))


def on_term(number, frame):
    tell("signal", 0, "TERM")
    if "stubborn" not in FLAGS:
        tell("end")
        os._exit(0)


def on_usr1(number, frame):
    tell("signal", 0, "USR1")
    say("busy 0\n")


def on_usr2(number, frame):
    tell("signal", 0, "USR2")
    if "leave" in FLAGS:
        tell("end")
        os._exit(0)
    if "late" in FLAGS and os.fork() == 0:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        say("hello\n")
        listen()


def main():
    tell("born", os.environ.get("BATON_TERM", 0), os.environ.get("BATON_EXECUTOR", "unset"))
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGUSR1, on_usr1)
    signal.signal(signal.SIGUSR2, on_usr2)
    for flag in FLAGS:
        if flag.startswith("kin="):
            kin(int(flag[4:]))
        if flag.startswith("orphans="):
            orphans(int(flag[8:]))
    if "garbage" in FLAGS:
        say(b"\0\xff\xfe\x80 binary\n" * 3)
        say(b"promoted x\ndemoted\npromoted 99999999999999999999\n")
        say(b"busy -5\nbusy 99999999999999999999999\npromoted 1\ndemoted 1\nword of tomorrow\n")
        say(b"A" * (1 << 20))
        say(b"\n")
    if "close" in FLAGS:
        os.close(CHANNEL)
    ready()
    tell("ready")
    if CHANNEL >= 0 and not {"close", "late", "quiet"} & set(FLAGS):
        listen()
    while True:
        signal.pause()


main()

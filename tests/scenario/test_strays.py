#!/usr/bin/python3
"""Processes that hide, hand over, or claim to be another worker's: hostile ones above all."""
import os
import pwd
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

NOTIFY = r'''
import os, signal, socket, sys, time
def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
'''
# Hands over to its child, reaps it, and is gone at once (a shell, so that it is quick).
WRAPPER = """#!/bin/sh
sleep 1000 &
{python} {tell} $!
wait
"""
# As systemd-notify: it waits until it was heard, for nobody knows whose a process was that is gone.
TELL = NOTIFY + r'''
notify(f"MAINPID={sys.argv[1]}\nREADY=1")
heard, barrier = os.pipe()
address = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect("\0" + address[1:] if address[0] == "@" else address)
    socket.send_fds(s, [b"BARRIER=1"], [barrier])
os.close(barrier)
os.read(heard, 1)
'''
# An orphan in a session of its own, with every mark that is worth a try.
FORGER = NOTIFY + r'''
if len(sys.argv) == 1:
    for number in range(1, 9):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            mark = f"{os.environ['BATON_INSTANCE']}.{number}"
            os.execve(sys.executable, [sys.executable, __file__, "orphan"], {**os.environ, "BATON_MARK": mark})
    time.sleep(1000)
while os.getppid() == 1 or os.stat(f"/proc/{os.getppid()}").st_uid == os.getuid():
    time.sleep(0.01)
notify(f"MAINPID={os.getpid()}\nREADY=1\nSTATUS=forged")
open(f"{os.path.dirname(__file__)}/said.{os.getpid()}", "w").close()
time.sleep(1000)
'''
# Orphans whose arguments and environment are no longer there to be read, as in the middle of an exec.
BLANK = r'''
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(100):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        fields = open("/proc/self/stat").read().rpartition(")")[2].split()
        start, end = int(fields[45]) & ~4095, (int(fields[48]) + 4095) & ~4095
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(end - start))
        while True:
            time.sleep(1000)
    os.wait()
open(sys.argv[1], "w").close()
time.sleep(1000)
'''


def write(where, name, text):
    path = os.path.join(where, name)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


@test("main processes that MAINPID= has named end at once, reaped by who started them: the stop ends")
def _():
    where = folder()
    wrapper = WRAPPER.format(python=PYTHON, tell=write(where, "tell.py", TELL))
    one = Instance(f"""
        [baton]
        [program:hands]
        command = sh {write(where, "wrapper", wrapper)}
        workers = 12
        ready = notify
        [program:plain]
        command = sleep 1000
        workers = 12
        startsecs = 0
    """, folder=where)
    one.wait_for("ready=hands", 30)
    one.cli("restart", "hands", status=0, timeout=60)
    one.cli("shutdown", status=0, timeout=60)


@test("a process of another user cannot pass for a worker that it is not of")
def _():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    where = folder()
    os.chmod(where, 0o777)
    nobody = pwd.getpwnam("nobody")
    one = Instance(f"""
        [baton]
        [program:victim]
        command = sleep 1000
        ready = notify
        workers = 3
        [program:evil]
        command = {PYTHON} {write(where, "forger.py", FORGER)}
        user = nobody
        startsecs = 0
    """, folder=where)
    wait_until(lambda: len([n for n in os.listdir(where) if n.startswith("said.")]) == 8, 20, "the forgers")
    one.status()
    for w in one.workers("victim"):
        equal((w["state"], w["ready"]), ("starting", False), f"{w['name']} beside uid {nobody.pw_uid}")
        check("forged" not in str(w["status"]), w["status"])
        check(os.stat(f"/proc/{w['pid']}").st_uid == 0, f"{w['name']} is pid {w['pid']}")


@test("orphans that look as if they were in an exec: the loop does not wait for them")
def _():
    where = folder()
    done = os.path.join(where, "done")
    one = Instance(f"""
        [baton]
        [program:blank]
        command = {PYTHON} {write(where, "blank.py", BLANK)} {done}
        startsecs = 0
        [program:other]
        command = sleep 1000
        startsecs = 0
        workers = 2
    """, folder=where)
    wait_until(lambda: os.path.exists(done), 30, "the orphans")
    began = time.monotonic()
    one.cli("restart", "other", status=0)
    took = time.monotonic() - began
    check(took < 1.5, f"the restart of another program took {took:.2f} s")


if __name__ == "__main__":
    main()

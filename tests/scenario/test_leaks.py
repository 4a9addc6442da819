#!/usr/bin/python3
"""Nothing grows: descriptors, memory and watches stay flat over thousands of restarts and reloads."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403


def cost(pid):
    """(descriptors, KiB) of PID. Anonymous pages: private ones are shared while a child forks."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        memory = sum(int(line.split()[1]) for line in f if line.startswith("Anonymous:"))
    return len(os.listdir(f"/proc/{pid}/fd")), memory


def settled(one, programs, before=None):
    for program in programs:
        one.wait_for(f"ready={program}", 20)
    if before:      # a connection or pipe that has just ended is closed in the next turn
        with contextlib.suppress(Failed):
            wait_until(lambda: cost(one.pid)[0] <= before[0], 5)
    return cost(one.pid)


def flat(before, after, kib, what):
    check(after[0] <= before[0], f"{what}: {before[0]} descriptors became {after[0]}")
    print(f"# {what}: {before[1]} KiB became {after[1]} KiB")
    check(after[1] - before[1] <= kib, f"{what}: memory grew from {before[1]} KiB to "
                                       f"{after[1]} KiB")


def restarts(one, program):
    return sum(w["restarts"] for w in one.workers(program))


@test("2000 restarts: descriptors and memory stay flat")
def _():
    one = Instance("""
        [baton]
        loglevel = error
        [program:end]
        command = /bin/true
        workers = 8
        startsecs = 0
        autorestart = true
        restart_backoff = 1ms
        restart_backoff_max = 1ms
        startretries = -1
        [program:lost]
        command = %(here)s/lost
        workers = 2
        restart_backoff = 1ms
        restart_backoff_max = 1ms
        startretries = -1
        [program:stays]
        command = sleep 1000
        startsecs = 0
    """, start=False)
    with open(one.path("lost"), "w", encoding="ascii") as f:
        f.write("#!/nonexistent/interpreter\n")
    os.chmod(one.path("lost"), 0o755)
    one.start()
    wait_until(lambda: restarts(one, "end") + restarts(one, "lost") > 400, 20)
    before = cost(one.pid)
    first = restarts(one, "end") + restarts(one, "lost")
    wait_until(lambda: restarts(one, "end") + restarts(one, "lost") > first + 2000, 40)
    one.call("stop", timeout=20, targets=["end", "lost"], wait=True)
    after = settled(one, ["stays"], before)
    flat(before, after, 256, "2000 restarts")
    one.stop()


INI = """
    [scheduler]
    ttl = 30s
    heartbeat = 5s
    promote_backoff = 0
    handoff_timeout = 200ms
    [socket:www]
    listen = 127.0.0.1:0
    [program:web]
    command = sleep 1000
    workers = 2
    startsecs = 0
    executor = candidate
    promote = signal
    promote_signal = URG
    demote_signal = WINCH
    [program:rolled]
    command = sleep {number}
    startsecs = 0
    sockets = www
    {more}
"""


@test("200 reloads, each replaces a program, one in ten is refused: descriptors and memory stay flat")
def _():
    one = Instance(INI.format(number=2000, more=""))
    one.wait_for("executor", 10)

    def reload(number):
        wrong = number % 10 == 9
        one.write(INI.format(number=2000 + number, more="nonsense = 1" if wrong else ""))
        try:
            one.call("reload", wait=True, timeout=15)
            check(not wrong, "a wrong file was taken")
        except ControlError:
            check(wrong, "a right file was refused")

    for number in range(40):
        reload(number)
    before = settled(one, ["web", "rolled"])
    for number in range(40, 240):
        reload(number)
    after = settled(one, ["web", "rolled"], before)
    flat(before, after, 256, "200 reloads")
    one.stop()


@test("300 control connections, half of them leave while they wait: descriptors and memory stay flat")
def _():
    one = Instance("""
        [program:web]
        command = sleep 1000
        startsecs = 0
    """)
    one.wait_for("ready=web", 10)

    def rounds(count):
        for number in range(count):
            s = socket.socket(socket.AF_UNIX)
            s.connect(one.socket)
            s.sendall(b'{"id":1,"v":1,"cmd":"wait","for":"term>9"}\n{"id":2,"v":1,"cmd":"events"}\n')
            if number % 2:
                s.recv(4096)
            s.close()
        wait_until(lambda: len(os.listdir(f"/proc/{one.pid}/fd")) <= (before or (999,))[0], 10)

    before = None
    rounds(60)
    before = cost(one.pid)
    rounds(300)
    flat(before, cost(one.pid), 128, "300 connections")
    one.stop()


if __name__ == "__main__":
    main()

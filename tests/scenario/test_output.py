#!/usr/bin/python3
"""What workers write: whole, in order, nothing lost; and readers that are slow, gone, or full."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

KIB = 1024
# Standard output and error of baton into the files `out` and `err` of its folder.
INTO_FILES = ["sh", "-c", 'exec "$@" > out 2> err', "sh"]


def between(got, low, high, what):
    check(low <= got <= high, f"{what}: got {got!r}, wanted {low!r} to {high!r}")


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def script(one, name, text):
    with open(one.path(name), "w", encoding="utf-8") as f:
        f.write("#!/usr/bin/python3\nimport os, signal, sys\n" + textwrap.dedent(text).lstrip("\n"))
    os.chmod(one.path(name), 0o755)


def read(one, name):
    with open(one.path(name), "rb") as f:
        return f.read()


def same(got, wanted, what):
    """As equal(), of many bytes: the first difference instead of all of both."""
    if got == wanted:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
    raise Failed(f"{what}: {len(got)} bytes, wanted {len(wanted)}; the first difference is at {at}: "
                 f"got {bytes(got[at:at + 60])!r}, wanted {bytes(wanted[at:at + 60])!r}")


def wait_file(one, name, fits, what, timeout=8):
    def look():
        with contextlib.suppress(OSError):
            return fits(read(one, name))
        return False
    return wait_until(look, timeout, what)


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * KIB


def quick(one, what, seconds=0.5):
    """Control is answered in time; the longest of ten."""
    for _ in range(10):
        began = time.monotonic()
        one.status()
        between(time.monotonic() - began, 0, seconds, f"seconds of status {what}")


@test("many workers, both streams: every line whole, once, in order, behind its worker's name")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/writes
        workers = 8
        startsecs = 0
        autorestart = no
    """, start=False, prefix=INTO_FILES)
    script(one, "writes", r"""
        index = int(os.environ["BATON_INDEX"])
        for i in range(1500):
            text = f"{index} {i} " + "x" * (i * 7 % 900)
            os.write(1, (text + " out\n").encode())
            if i % 5 == 0:
                os.write(2, (text + " err\n").encode())
            if i % 11 == 0:             # a line in two parts
                os.write(1, b"half ")
                os.write(1, f"{index} {i} whole\n".encode())
    """)
    one.start()
    for i in range(8):
        wait_until(lambda: one.worker(f"web:{i}")["state"] == "exited", 20, f"the end of web:{i}")
    one.stop()
    for name, kind, step in (("out", "out", 1), ("err", "err", 5)):
        seen, halves = collections.defaultdict(list), collections.Counter()
        for line in read(one, name).decode().split("\n")[:-1]:
            if name == "err" and line.startswith("time="):
                continue
            found = re.fullmatch(rf"web:(\d) \| (\d) (\d+) (x*) {kind}", line)
            if found:
                check(found[1] == found[2], f"the wrong prefix: {line[:60]!r}")
                equal(len(found[4]), int(found[3]) * 7 % 900, f"length of {line[:30]!r}")
                seen[found[1]].append(int(found[3]))
                continue
            found = re.fullmatch(r"web:(\d) \| half (\d) (\d+) whole", line)
            check(found and found[1] == found[2], f"a torn line in {name}: {line[:200]!r}")
            halves[found[1]] += 1
        for i in map(str, range(8)):
            equal(seen[i], list(range(0, 1500, step)), f"lines of web:{i} in {name}")
            equal(halves[i], 137 if name == "out" else 0, f"two-part lines of web:{i} in {name}")


@test("a line of 1 MiB from two workers at once: pieces, each behind its name, not a byte lost")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/long
        workers = 2
        startsecs = 0
        autorestart = no
    """, start=False, prefix=INTO_FILES)
    script(one, "long", r"""
        data = "".join(f"{i:07d}" for i in range((1 << 20) // 7))[:-1] + "\n"
        data = data.encode() + b"after\n"
        while data:
            data = data[os.write(1, data):]
    """)
    one.start()
    for i in range(2):
        wait_until(lambda: one.worker(f"web:{i}")["state"] == "exited", 10, f"the end of web:{i}")
    one.stop()
    wanted = "".join(f"{i:07d}" for i in range((1 << 20) // 7))[:-1].encode()
    got, count = {b"0": b"", b"1": b""}, collections.Counter()
    for line in read(one, "out").split(b"\n")[:-1]:
        found = re.match(rb"web:([01]) \| ", line)
        check(found, f"a line without a name: {line[:60]!r}")
        got[found[1]] += line[found.end():]
        count[found[1]] += 1
    for i in (b"0", b"1"):
        same(got[i], wanted + b"after", f"bytes of web:{i.decode()}")
        between(count[i], 2, 40, f"lines that web:{i.decode()}'s two became")


@test("all output comes before the death is told, the unfinished last line too")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/dies
        startsecs = 0
        autorestart = no
    """, start=False)
    script(one, "dies", r"""
        os.write(1, b"".join(b"line %d\n" % i for i in range(3000)))
        os.write(2, b"an error\n")
        os.write(1, b"no newline")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    one.start()
    one.wait_log("event=worker.exited", 10)
    lines = [x for x in one.lines if "web:0" in x]
    died = next(i for i, x in enumerate(lines) if "event=worker.died" in x)
    before = [x[len("web:0 | "):] for x in lines[:died] if x.startswith("web:0 | ")]
    wanted = [f"line {i}" for i in range(3000)] + ["no newline"]
    equal([x for x in before if x != "an error"][-3:], wanted[-3:], "the last lines before the death")
    equal(len(before), 3002, "lines before the death")
    equal([x for x in lines[died:] if x.startswith("web:0 | ")], [], "lines after the death")


@test("where it goes: NONE, AUTO, a path, each worker its own, /dev/stdout, /dev/fd/N, one for both")
def _():
    one = Instance("""
        [baton]
        childlogdir = %(here)s/auto
        [DEFAULT]
        command = sh -c "echo out of $BATON_WORKER; echo err of $BATON_WORKER >&2; exec sleep 1000"
        startsecs = 0
        [program:none]
        stdout_logfile = NONE
        stderr_logfile = NONE
        [program:auto]
        stdout_logfile = AUTO
        stderr_logfile = NONE
        [program:path]
        workers = 2
        stdout_logfile = %(here)s/path-%(process_num)d
        stderr_logfile = %(here)s/errors
        [program:standard]
        stdout_logfile = /dev/stdout
        stderr_logfile = /dev/stderr
        [program:number]
        stdout_logfile = /dev/fd/7
        stderr_logfile = NONE
        [program:both]
        redirect_stderr = true
        stdout_logfile = %(here)s/both
        [program:inherit]
        [program:bare]
        log_prefix = no
    """, start=False, prefix=["sh", "-c", 'exec "$@" > out 2> err 7> seven', "sh"])
    os.mkdir(one.path("auto"))
    with open(one.path("path-0"), "w", encoding="ascii") as f:
        f.write("before\n")
    one.start()
    for name in ("none", "auto", "path", "standard", "number", "both", "inherit", "bare"):
        one.wait_for(f"ready={name}")
    wait_file(one, "both", lambda t: t.count(b"\n") >= 2, "both lines in `both`")
    wait_file(one, "errors", lambda t: t.count(b"\n") >= 2, "both lines in `errors`")
    wait_file(one, "seven", lambda t: t, "the line in /dev/fd/7")
    wait_file(one, "out", lambda t: t.count(b"\n") >= 3, "three lines in `out`")
    one.stop()
    equal(read(one, "path-0"), b"before\nout of path:0\n", "a path is appended to")
    equal(read(one, "path-1"), b"out of path:1\n", "the path of the second worker")
    equal(sorted(read(one, "errors").split()[-1::-3]), [b"path:0", b"path:1"], "a path of two")
    equal(read(one, "both"), b"out of both:0\nerr of both:0\n", "redirect_stderr")
    equal(read(one, "seven"), b"out of number:0\n", "/dev/fd/7")
    names = os.listdir(one.path("auto"))
    check(len(names) == 1 and re.match(r"auto.*stdout.*\.log$", names[0]), f"AUTO: {names}")
    equal(read(one, f"auto/{names[0]}"), b"out of auto:0\n", "AUTO")
    out = sorted(read(one, "out").decode().splitlines())
    equal(out, ["inherit:0 | out of inherit:0", "out of bare:0", "out of standard:0"],
          "baton's standard output")
    err = [x for x in read(one, "err").decode().splitlines() if not x.startswith("time=")]
    equal(sorted(err), ["err of bare:0", "err of standard:0", "inherit:0 | err of inherit:0"],
          "baton's standard error")
    for name in ("out", "err", "seven", "both"):
        check(b"none:0" not in read(one, name) or name == "err", f"NONE in {name}")


@test("compatibility mode: AUTO by default, nothing on baton's own output")
def _():
    one = Instance("""
        [supervisord]
        childlogdir = %(here)s/auto
        [program:web]
        command = sh -c "echo out; echo err >&2; exec sleep 1000"
        startsecs = 0
    """, start=False)
    os.mkdir(one.path("auto"))
    one.start()
    one.wait_for("ready=web")
    wait_until(lambda: sorted(read(one, f"auto/{n}") for n in os.listdir(one.path("auto")))
               == [b"err\n", b"out\n"], 5, "both files")
    check("web | " not in one.log() and "web:0 | " not in one.log(), "output on baton's own")


@test("a log file that cannot be opened: a failed start, told why")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        stdout_logfile = %(here)s/place/log
        startretries = 0
        autostart = no
        [program:folder]
        command = sleep 1000
        stdout_logfile = %(here)s/folder
        startretries = 0
        autostart = no
    """, start=False)
    os.mkdir(one.path("place"))
    one.start()
    os.rmdir(one.path("place"))
    os.mkdir(one.path("folder"))
    r = one.cli("start", "web", status=1)
    check(re.search(r"place/log': its folder does not exist", r.err), f"why: {r.err!r}")
    r = one.cli("start", "folder", status=1)
    check(re.search(r"folder.*directory", r.err), f"why: {r.err!r}")


@test("binary output: to a file as it is, on baton's own output byte for byte behind the name")
def _():
    one = Instance("""
        [baton]
        [program:file]
        command = %(here)s/bytes
        stdout_logfile = %(here)s/raw
        startsecs = 0
        autorestart = no
        [program:own]
        command = %(here)s/bytes
        startsecs = 0
        autorestart = no
    """, start=False, prefix=INTO_FILES)
    script(one, "bytes", "os.write(1, bytes(range(256)) * 500)\n")
    one.start()
    for name in ("file", "own"):
        wait_until(lambda: one.worker(f"{name}:0")["state"] == "exited", 5, f"the end of {name}")
    one.stop()
    wanted = bytes(range(256)) * 500
    same(read(one, "raw"), wanted, "the file")
    lines = read(one, "out").split(b"\n")
    equal([x for x in lines[:-1] if not x.startswith(b"own:0 | ")], [], "lines without a name")
    same(b"\n".join(x[len(b"own:0 | "):] for x in lines[:-1]), wanted, "baton's own output")


# --- readers that do not read ------------------------------------------------------------------
@test("nobody reads baton's output: control, signals, deaths go on; read again, nothing is missing")
def _():
    one = Instance("""
        [baton]
        [program:flood]
        command = %(here)s/flood
        startsecs = 0
        [program:web]
        command = sleep 1000
        startsecs = 0
    """, start=False, prefix=["sh", "-c", 'exec "$@" > pipe 2> err', "sh"])
    script(one, "flood", r"""
        i = 0
        while True:
            os.write(1, b"%d\n" % i)
            i += 1
    """)
    os.mkfifo(one.path("pipe"))
    reader = os.open(one.path("pipe"), os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    try:
        one.start()
        one.wait_for("ready=web")
        flood = one.worker("flood:0")["pid"]
        # Full once the flood itself has to wait.
        wait_until(lambda: open(f"/proc/{flood}/wchan").read() == "pipe_write"
                   or open(f"/proc/{flood}/syscall").read().startswith("1 "), 5, "a stuck flood")
        memory = resident(one.pid)
        quick(one, "while nobody reads")
        pid = one.worker("web:0")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: one.worker("web:0")["pid"] not in (pid, None), 5, "a successor of web:0")
        one.call("restart", targets=["web"], wait=True)
        one.send_signal(signal.SIGHUP)
        wait_file(one, "err", lambda t: b"nothing has changed" in t, "the reload")
        between(resident(one.pid) - memory, -1 << 30, 4 << 20, "bytes of memory more than before")
        expected = 0
        for line in os.fdopen(os.dup(reader), "rb"):
            equal(line, b"flood:0 | %d\n" % expected, "the next line")
            expected += 1
            if expected > 100000:
                break
        began = time.monotonic()
        one.stop(signal.SIGTERM, 10)
        between(time.monotonic() - began, 0, 5, "seconds of a stop while nobody reads")
    finally:
        os.close(reader)


@test("nobody reads baton's log either: it is dropped and counted, the supervisor goes on and ends")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = sleep 1000
        startsecs = 0
    """, start=False, prefix=["sh", "-c", 'exec "$@" > pipe 2>&1', "sh"])
    os.mkfifo(one.path("pipe"))
    reader = os.open(one.path("pipe"), os.O_RDONLY | os.O_NONBLOCK)
    try:
        one.start()
        one.wait_for("ready=web")
        address = environment_of(one.worker("web:0")["pid"])["NOTIFY_SOCKET"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            for _ in range(4000):       # each is a line of some 150 bytes
                stranger.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        quick(one, "with a full log")
        os.set_blocking(reader, True)
        text, limit = b"", deadline(10, "the count of dropped lines")
        while not re.search(rb"[1-9]\d* lines? of baton's own log", text):
            if select.select([reader], [], [], limit.left())[0]:
                text += os.read(reader, 1 << 20)
            one.call("restart", targets=["web"], wait=True)
        torn = [x for x in text.split(b"\n")[:-1] if not x.startswith(b"time=")]
        equal(torn, [], "torn lines of baton's log")
        one.stop()
    finally:
        os.close(reader)


@test("the reader has gone (EPIPE): output is thrown away, workers are not held up, nobody dies")
def _():
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/writes %(here)s/done
        startsecs = 0
    """, start=False, prefix=["sh", "-c", 'exec "$@" > pipe 2> err', "sh"])
    script(one, "writes", r"""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.write(1, b"begin\n")
        signal.sigwait([signal.SIGUSR1])
        for i in range(20000):
            os.write(1, b"x" * 99 + b"\n")
        open(sys.argv[1], "w").close()
        signal.pause()
    """)
    os.mkfifo(one.path("pipe"))
    reader = os.open(one.path("pipe"), os.O_RDONLY | os.O_NONBLOCK)
    one.start()
    select.select([reader], [], [], 5)
    contains(os.read(reader, 1000).decode(), "web:0 | begin", "output while it is read")
    os.close(reader)
    one.call("signal", targets=["web"], signal="USR1")
    wait_until(lambda: os.path.exists(one.path("done")), 8, "the worker got rid of its output")
    quick(one, "without a reader")
    equal(one.worker("web:0")["restarts"], 0, "restarts")
    one.stop()


@test("a full disk: told once, the worker waits, the others go on; with room again all of it is there")
def _():
    if os.geteuid() != 0:
        skip("mounting a small tmpfs needs root")
    one = Instance("""
        [baton]
        [program:web]
        command = %(here)s/writes %(here)s/done
        stdout_logfile = %(here)s/small/log
        startsecs = 0
        [program:other]
        command = sleep 1000
        startsecs = 0
    """, start=False)
    script(one, "writes", r"""
        for i in range(60000):
            os.write(1, b"%09d\n" % i)
        open(sys.argv[1], "w").close()
        signal.pause()
    """)
    small = one.path("small")
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small],
                      capture_output=True, check=False).returncode != 0:
        skip("no tmpfs can be mounted here")
    try:
        with open(os.path.join(small, "ballast"), "wb") as f:
            f.write(b"x" * (920 * KIB))
        one.start()
        one.wait_log("event=log.stuck", 5)
        quick(one, "with a full disk")
        one.call("restart", targets=["other"], wait=True)
        check(not os.path.exists(one.path("done")), "the worker wrote 600 kB onto a disk with 100")
        equal(len([x for x in one.lines if "event=log.stuck" in x]), 1, "times that it was told")
        contains(one.wait_log("event=log.stuck").string, "No space left", "why")
        os.unlink(os.path.join(small, "ballast"))
        one.wait_log("event=log.unstuck", 5)
        wait_until(lambda: os.path.exists(one.path("done")), 8, "the worker's last line")
        wanted = b"".join(b"%09d\n" % i for i in range(60000))
        wait_file(one, "small/log", lambda t: len(t) >= len(wanted), "all of the output")
        same(read(one, "small/log"), wanted, "the log file")
        one.stop()
    finally:
        if one.alive:
            one.process.kill()
            one.process.wait(5)
        subprocess.run(["umount", "-l", small], check=False)


@test("a child that keeps the pipe: the death is told at once, what the child writes still comes")
def _():
    one = Instance("""
        [supervisord]
        [program:web]
        command = %(here)s/leaves %(here)s/gate
        stdout_logfile = %(here)s/log
        stderr_logfile = NONE
        autorestart = false
        startsecs = 0
    """, start=False)
    os.mkfifo(one.path("gate"))
    script(one, "leaves", r"""
        os.write(1, b"parent\n")
        if os.fork() == 0:
            open(sys.argv[1]).read()
            os.write(1, b"child\n")
            os._exit(0)
    """)
    one.start()
    one.wait_log("event=worker.exited", 5)
    equal(read(one, "log"), b"parent\n", "the log at the death")
    with open(one.path("gate"), "w", encoding="ascii"):
        pass
    wait_file(one, "log", lambda t: t == b"parent\nchild\n", "the child's line")


if __name__ == "__main__":
    main()

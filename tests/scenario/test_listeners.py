#!/usr/bin/python3
"""Listeners whose settings change, whose files vanish, whose ports are taken."""

import os
import resource
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

# Answers each connection with its pid; ends on TERM once nobody waits any more.
SERVER = r"""#!/usr/bin/python3
import os, select, signal, socket, sys
def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
wake, waker = socket.socketpair()
waker.setblocking(False)
signal.set_wakeup_fd(waker.fileno())
if "fails" in sys.argv:
    sys.exit(3)
for word in sys.argv:
    if word.startswith("gate="):
        os.read(os.open(word[5:], os.O_RDWR), 1)
listener = socket.socket(fileno=3)
listener.setblocking(False)
notify("READY=1")
while True:
    if not ending:
        select.select([listener, wake], [], [])
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        if ending:
            break
        continue
    connection.setblocking(True)
    connection.sendall(str(os.getpid()).encode())
    connection.close()
if "unlink" in sys.argv:    # as gunicorn does with a socket that was given to it
    os.unlink(listener.getsockname())
"""
WEB = """
        [baton]
        [socket:http]
        listen = {listen}
        {more}
        [program:web]
        command = %(here)s/server {arguments}
        workers = {workers}
        ready = notify
        startretries = 0
        restart_backoff = 10ms
        sockets = http
        {program}
"""


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def web(one, listen, more="", arguments="", workers=1, program=""):
    one.write(WEB.format(listen=listen, more=more, arguments=arguments, workers=workers,
                         program=program))


def instance(listen, folder=None, **keywords):
    one = Instance("", start=False, folder=folder)
    with open(one.path("server"), "w", encoding="utf-8") as f:
        f.write(SERVER)
    os.chmod(one.path("server"), 0o755)
    web(one, listen, **keywords)
    one.start()
    one.wait_for("ready=web")
    return one


def ask(address):
    """The pid of who answers there; None = nobody listens."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(5)
        try:
            s.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        return int(s.recv(100))


def pids(one):
    return [w["pid"] for w in one.workers("web")]


def pids_left():
    return [p for p in marked_processes() if p != os.getpid()]


class Load:
    """Connections one after the other to an address; what went wrong."""

    def __init__(self, address):
        self.address, self.wrong, self.good, self._ending = address, [], 0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ending.is_set():
            try:
                if ask(self.address) is None:
                    self.wrong.append("nobody listens")
                else:
                    self.good += 1
            except (OSError, ValueError) as e:
                self.wrong.append(f"{type(e).__name__}: {e}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()


@test("another listen: both are open during the rollout, each served by its version; old ones that die come back on the old one; then it closes")
def _():
    first, second = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    one = instance("%s:%d" % first, workers=2)
    before = pids(one)
    os.mkfifo(one.path("gate"))
    gate = os.open(one.path("gate"), os.O_RDWR)
    web(one, "%s:%d" % second, workers=2, arguments="gate=%(here)s/gate")
    mark = one.mark()
    one.send_signal(signal.SIGHUP)
    one.wait_log("opened now; the old one closes", since=mark)
    check(ask(first) in before, "the old port is not served while the new version boots")
    with socket.create_connection(second, 5) as waiting:    # nobody yet, but it is kept
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len([w for w in one.workers("web") if w["ready"] and
                                w["pid"] not in before]) == 1, 5, "a successor of the old version")
        back = next(w["pid"] for w in one.workers("web") if w["ready"] and w["pid"] not in before)
        wait_until(lambda: ask(first) == back, 5, "an answer of the successor on the old port")
        os.write(gate, b"12")   # each of the new ones waits for one byte
        check(int(waiting.recv(100)) in pids(one), "who waited on the new port was answered")
    one.wait_for("rollout=done")
    one.wait_log("no longer listening on 127.0.0.1:%d" % first[1])
    equal(ask(first), None, "who answers on the old port afterwards")
    check(ask(second) in pids(one), "who answers on the new port")


@test("another listen with a version that does not start: rolled back, the old port was never closed, the new one is closed again")
def _():
    first, second = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    one = instance("%s:%d" % first)
    before = pids(one)
    with Load(first) as load:
        web(one, "%s:%d" % second, arguments="fails")
        mark = one.mark()
        one.send_signal(signal.SIGHUP)
        one.wait_log("rollout ended", since=mark)
        one.wait_log("no longer listening on 127.0.0.1:%d" % second[1], since=mark)
    equal(load.wrong, [], "connections that failed")
    check(load.good > 0, "nothing was answered")
    equal(pids(one), before, "pids")
    equal(ask(second), None, "who answers on the new port")
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: pids(one) not in ([None], before), 5, "a successor")
    one.wait_for("ready=web")
    equal(ask(first), pids(one)[0], "who answers on the old port after a crash")
    web(one, "%s:%d" % second)
    one.cli("reload", status=0)
    one.wait_for("rollout=done")
    equal((ask(first), ask(second)), (None, pids(one)[0]), "who answers (old, new) once it starts")


@test("a port taken, an address that overlaps an own one, no descriptor left: nothing changes, exit status 1, the reason is said")
def _():
    first = ("127.0.0.1", free_port())
    one = instance("%s:%d" % first)
    before = pids(one)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        web(one, "%s:%d" % taken.getsockname())
        contains(one.cli("reload", status=1).err, f"in use by pid {os.getpid()} (", "by whom")
    web(one, f"0.0.0.0:{first[1]}")
    contains(one.cli("reload", status=1).err, "this supervisor itself", "overlap")
    web(one, f":{free_port()}", program="\n        ".join(
        ["[socket:more]", "listen = unix:%(here)s/more", "[socket:last]", f"listen = :{free_port()}"]))
    limits = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
    with one.control() as c:
        c.call("status")        # its own descriptor is there before
        # The limit is of the numbers, and there are gaps: two more can be opened, the third not.
        used = {int(fd) for fd in os.listdir(f"/proc/{one.pid}/fd")}
        third = [number for number in range(max(used) + 4) if number not in used][2]
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (third, limits[1]))
        try:
            c.call("reload", 5)
            raise Failed("reloaded without descriptors")
        except ControlError as e:
            check("descriptor" in str(e.error),
                  f"why: {e.error}")
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, limits)
    check(not os.path.lexists(one.path("more")), "a socket of a reload that failed was left")
    equal(pids(one), before, "pids")
    equal(ask(first), before[0], "who answers")
    equal([s["listen"] for s in one.status()["sockets"]], ["%s:%d" % first], "sockets")


@test("a second section with an address of the first: refused by its line, again and again; nothing changes")
def _():
    port = free_port()
    for first, second, why in ((f":{port}", f"0.0.0.0:{port}", "the same address as [socket:http]"),
                               (f"127.0.0.1:{port}", f"localhost:{port}", "the same address"),
                               (f":{port}", f"[::]:{port}", "v6only = yes"),
                               (f"127.0.0.1:{port}", f":{port}", "has every IPv4 address")):
        one = instance(first)
        before = pids(one)
        web(one, first, more=f"[socket:more]\n        listen = {second}")
        for _ in range(2):
            r = one.cli("reload")
            equal(r.status, 78, f"exit status of the reload: {r.err}")
            contains(r.err, why, "why")
        contains(baton("check", "-c", one.config, status=78).err, why, "what check says")
        equal((pids(one), ask(("127.0.0.1", port))), (before, before[0]), "who is there")
        one.stop()


@test("mode, owner, nodelay, backlog change in place: no worker is replaced; v6only is told to need a restart")
def _():
    one = instance("unix:%(here)s/web.sock", program="roll_on_reload = changed")
    path, before = one.path("web.sock"), pids(one)
    root = os.geteuid() == 0
    web(one, "unix:%(here)s/web.sock", program="roll_on_reload = changed",
        more="mode = 0600\n        backlog = 5\n        owner = " + ("daemon" if root else "%(ENV_USER:-)s"))
    out = one.cli("reload", status=0).out
    contains(out, "mode: 0660 -> 0600: applied in place", "plan")
    equal(oct(stat.S_IMODE(os.stat(path).st_mode)), "0o600", "mode")
    if root:
        equal(os.stat(path).st_uid, 1, "owner")
        web(one, "unix:%(here)s/web.sock", program="roll_on_reload = changed")
        one.cli("reload", status=0)
        equal(os.stat(path).st_uid, 0, "owner, when the file names none any more")
    equal(pids(one), before, "pids")
    one.stop()
    equal(os.listdir(os.path.dirname(path)).count("web.sock"), 0, "socket files left")
    port = free_port()
    web(one, f"[::1]:{port}", program="roll_on_reload = changed", more="v6only = no")
    try:
        one.start()
    except Failed:
        skip("this machine has no IPv6")
    one.wait_for("ready=web")
    before = pids(one)
    web(one, f"[::1]:{port}", program="roll_on_reload = changed",
        more="v6only = yes\n        nodelay = no")
    out = one.cli("reload", status=0).out
    contains(out, "v6only: needs a restart of baton, not applied", "plan")
    contains(out, "nodelay: yes -> no: applied in place", "plan")
    equal(pids(one), before, "pids")
    web(one, f"[::1]:{free_port()}", program="roll_on_reload = changed", more="v6only = yes")
    check("not applied" not in one.cli("reload", status=0).out, "with another port it applies")


@test("O_NONBLOCK that a child takes off: left to those that run, on again for the first of the next")
def _():
    one = Instance("", start=False)
    with open(one.path("server"), "w", encoding="ascii") as f:
        f.write("#!/usr/bin/python3 -S\nimport os, signal\n"
                "signal.signal(signal.SIGUSR1, lambda *_: os.set_blocking(3, True))\n"
                "os.write(9, b'\\n')\nwhile True:\n    signal.pause()\n")
    os.chmod(one.path("server"), 0o755)
    one.write(WEB.format(listen="127.0.0.1:0", more="", arguments="", workers=2,
                         program="").replace("= notify", "= fd:9"))
    one.start()
    one.wait_for("ready=web")

    def blocks():
        """As each worker sees it: it belongs to what they share."""
        found = set()
        for pid in pids(one):
            with open(f"/proc/{pid}/fdinfo/3", encoding="ascii") as f:
                found.add(not int(re.search(r"flags:\s+(\d+)", f.read())[1], 8) & os.O_NONBLOCK)
        return found
    equal(blocks(), {False}, "whether it blocks at first")
    one.cli("signal", "USR1", "web:0", status=0)
    wait_until(lambda: blocks() == {True}, 5, "the change")
    one.cli("restart", "web:1", status=0)
    equal(blocks(), {True}, "whether it blocks beside one that wants it so")
    one.cli("stop", "web", status=0)    # (a restart may begin one before the other has ended)
    one.cli("start", "web", status=0)
    equal(blocks(), {False}, "whether it blocks for the first of the next")


# --- files of unix sockets ---------------------------------------------------------------------
@test("a unix socket that is removed, renamed, or covered by a dead one: there again at once, the same listener, the same workers")
def _():
    one = instance("unix:%(here)s/web.sock")
    path, before = one.path("web.sock"), pids(one)
    inode = os.stat(path).st_ino

    def back(what, mark):
        one.wait_log("socket.mended", since=mark)
        equal(os.stat(path).st_ino, inode, f"inode after it was {what}")
        equal(ask(path), before[0], f"who answers after it was {what}")
        equal(pids(one), before, f"pids after it was {what}")
        equal(one.status()["sockets"][0]["lost"], False, f"status after it was {what}")
    for _ in range(3):
        mark = one.mark()
        os.unlink(path)
        back("removed", mark)
    mark = one.mark()
    os.rename(path, path + ".old")
    back("renamed", mark)
    os.unlink(path + ".old")
    mark = one.mark()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path + ".dead")
    os.rename(path + ".dead", path)
    back("covered by a dead one", mark)
    one.stop()
    equal([n for n in os.listdir(os.path.dirname(path)) if "web.sock" in n], [], "files left")


@test("a unix socket covered by a living one or by a file: told, never removed; there again when it has gone")
def _():
    one = instance("unix:%(here)s/web.sock")
    path, before, mark = one.path("web.sock"), pids(one), one.mark()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path + ".other")
        other.listen()
        os.rename(path + ".other", path)
        line = one.wait_log("socket.lost", since=mark).string
        contains(line, f"in use by pid {os.getpid()} (", "whose")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)     # still the other's
            other.accept()[0].close()
        equal(one.status()["sockets"][0]["lost"], True, "lost in status")
    mark = one.mark()
    one.send_signal(signal.SIGHUP)     # also tried every 5 s
    one.wait_log("socket.mended", since=mark)
    one.wait_for("rollout=done")
    equal(ask(path), pids(one)[0], "who answers once the other is gone")
    check(pids(one) != before, "the reload rolled")
    mark = one.mark()
    with open(path + ".file", "w", encoding="ascii") as f:
        f.write("precious")
    os.rename(path + ".file", path)
    contains(one.wait_log("socket.lost", since=mark).string, "no socket", "why")
    with open(path, encoding="ascii") as f:
        equal(f.read(), "precious", "the file in its place")
    os.unlink(path)
    one.wait_log("socket.mended", 8, since=mark)    # the retry
    equal(ask(path), pids(one)[0], "who answers after the retry")


@test("both names of a unix socket removed: another one is bound at once and its workers are replaced; not again within a minute")
def _():
    one = instance("unix:%(here)s/web.sock", workers=2)
    path, before = one.path("web.sock"), pids(one)
    with socket.socket(socket.AF_UNIX) as early:
        early.settimeout(5)
        mark = one.mark()
        early.connect(path)
        one.send_signal(signal.SIGSTOP)     # else it brings one back before the other is removed
        os.unlink(one.path(".web.sock.baton"))
        os.unlink(path)
        one.send_signal(signal.SIGCONT)
        one.wait_log("socket.reopened", since=mark)
        check(int(early.recv(100)) in before, "who connected before was answered")
    one.wait_for("rollout=done")
    after = pids(one)
    check(not set(after) & set(before), f"workers that nobody can reach were kept: {after} {before}")
    check(ask(path) in after, "who answers")


@test("the folder of a unix socket is renamed and made anew: another one is bound there, its workers are replaced")
def _():
    one = Instance("", start=False)
    os.mkdir(one.path("run"))
    one = instance("unix:%(here)s/run/web.sock", folder=one.folder)
    path, before, mark = one.path("run/web.sock"), pids(one), one.mark()
    one.send_signal(signal.SIGSTOP)     # else it finds no folder, and looks again after 5 s
    os.rename(one.path("run"), one.path("run2"))
    os.mkdir(one.path("run"))
    one.send_signal(signal.SIGCONT)
    one.wait_log("socket.reopened", since=mark)
    one.wait_for("rollout=done")
    after = pids(one)
    check(not set(after) & set(before), f"workers that nobody can reach were kept: {after}")
    check(ask(path) in after, "who answers")


@test("a worker that removes its unix socket as it ends (gunicorn): a rolling restart leaves the listener there")
def _():
    one = instance("unix:%(here)s/web.sock", workers=2, arguments="unlink")
    before = pids(one)
    for _ in range(2):
        mark = one.mark()
        one.send_signal(signal.SIGHUP)
        one.wait_log("every worker is of the new version", 10, since=mark)
    check(not set(pids(one)) & set(before), "workers were not replaced")
    wait_until(lambda: ask(one.path("web.sock")) in pids(one), 2, "an answer")
    check("socket.reopened" not in one.log(), "the listener was exchanged")


@test("the same with preset = gunicorn, under load: what it removes is a name that nobody uses, no connection fails")
def _():
    one = Instance("", start=False)
    with open(one.path("gunicorn"), "w", encoding="utf-8") as f:
        f.write(SERVER)         # in its place: the real one is slow to boot
    os.chmod(one.path("gunicorn"), 0o755)
    one.write(WEB.format(listen="unix:%(here)s/web.sock", more="", arguments="unlink", workers=2,
                         program="preset = gunicorn").replace("/server", "/gunicorn"))
    for _ in range(2):      # the second time over what a kill left behind
        one.start()
        one.wait_for("ready=web")
        path = one.path("web.sock")
        before = pids(one)
        with Load(path) as load:
            for _ in range(3):
                mark = one.mark()
                one.send_signal(signal.SIGHUP)
                one.wait_log("every worker is of the new version", 10, since=mark)
        equal(load.wrong[:3], [], "connections that failed")
        check(load.good > 10, f"only {load.good} were answered")
        check(not set(pids(one)) & set(before), "workers were not replaced")
        one.kill()
        for pid in pids_left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pids_left(), 5, "the end of what a killed supervisor left")
    one.start()
    one.stop()
    equal([n for n in os.listdir(os.path.dirname(path)) if "web.sock" in n], [], "files left")


@test("an upgrade in place keeps the watch on a unix socket, the way back to it, and what is said of root that was given up")
def _():
    if os.geteuid() != 0:
        skip("only root can give up root")
    where = folder()
    os.chown(where, 1, 1)
    # The source tree may lie where that user cannot go: in root's home.
    one = Instance("", start=False, folder=where, binary=shutil.copy(BATON, where))
    with open(one.path("server"), "w", encoding="utf-8") as f:
        f.write(SERVER)
    os.chmod(one.path("server"), 0o755)
    text = WEB.replace("[baton]", "[baton]\n        user = daemon")

    def write(listen):
        one.write(text.format(listen=listen, more="", arguments="", workers=2, program=""))
    write("unix:%(here)s/web.sock")
    one.start()
    one.wait_for("ready=web")
    before, path, port = pids(one), one.path("web.sock"), free_port()
    one.cli("upgrade", status=0)
    mark = one.mark()
    os.unlink(path)
    one.wait_log("socket.mended", since=mark)
    check(ask(path) in before, "who answers after the upgrade")
    write(f"127.0.0.1:{port}")
    one.cli("reload", status=0)
    one.wait_for("rollout=done")
    equal(ask(path), None, "who answers on the old one")
    check(ask(("127.0.0.1", port)) in pids(one), "who answers on the new one")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        if int(f.read()) > 81:
            write("127.0.0.1:81")
            contains(one.cli("reload", status=1).err, "gave up root", "a reserved port")


@test("what is in the way at the start: a folder, a dangling link, a file are left alone; a path that is too long; an abstract name")
def _():
    one = Instance("", start=False)
    with open(one.path("server"), "w", encoding="utf-8") as f:
        f.write(SERVER)
    os.chmod(one.path("server"), 0o755)
    os.mkdir(one.path("folder"))
    os.symlink("nowhere", one.path("link"))
    with open(one.path("file"), "w", encoding="ascii") as f:
        f.write("precious")
    for name in ("folder", "link", "file"):
        web(one, f"unix:%(here)s/{name}")
        mark = one.mark()
        one.start(wait=False)
        equal(one.wait_end(), 1, f"exit status with a {name} in the way")
        contains(one.wait_log("cannot make socket", since=mark).string, "no socket is there", name)
        check(os.path.lexists(one.path(name)), f"the {name} was removed")
    web(one, "unix:%(here)s/" + "x" * 120)
    mark = one.mark()
    one.start(wait=False)
    equal(one.wait_end(), 78, "exit status with a long path")
    one.wait_log("can have 107", since=mark)
    name = f"@baton-test-{os.getpid()}"
    web(one, f"unix:{name}")
    one.start()
    one.wait_for("ready=web")
    equal(ask("\0" + name[1:]), pids(one)[0], "who answers on the abstract name")
    two = Instance("", name="two", start=False, folder=os.path.dirname(one.path("x")))
    web(two, f"unix:{name}")
    two.start(wait=False)
    equal(two.wait_end(), 1, "exit status of a second one on the abstract name")
    two.wait_log(f"in use by pid {one.pid}")


if __name__ == "__main__":
    main()

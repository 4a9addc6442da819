#!/usr/bin/python3
"""Sockets that were open before baton: systemd's, Server::Starter's, einhorn's."""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

# LAUNCHER HOW ADDRESS[=NAME]... -- COMMAND: binds, sets the variables, execs.
LAUNCHER = r"""#!/usr/bin/python3
import os, socket, sys
how, end = sys.argv[1], sys.argv.index("--")
fds, names, addresses = [], [], []
for word in sys.argv[2:end]:
    address, _, name = word.partition("=")
    if address == "datagram":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif address[0] in "/@":
        s = socket.socket(socket.AF_UNIX)
        s.bind("\0" + address[1:] if address[0] == "@" else address)
        s.listen()
    else:
        host, _, port = address.rpartition(":")
        s = socket.socket(socket.AF_INET6 if host[0] == "[" else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host.strip("[]"), int(port)))
        s.listen()
    fds.append(s.detach())
    names.append(name)
    addresses.append(address)
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for fd in fds:
    os.close(fd)
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
if how in ("systemd", "nameless", "stranger"):
    os.environ["LISTEN_FDS"] = str(len(fds))
    os.environ["LISTEN_PID"] = str(os.getpid() if how != "stranger" else os.getppid())
    if how != "nameless":
        os.environ["LISTEN_FDNAMES"] = ":".join(names)
elif how == "starter":
    os.environ["SERVER_STARTER_PORT"] = ";".join(f"{a}={3 + i}" for i, a in enumerate(addresses))
elif how == "einhorn":
    os.environ["EINHORN_MASTER_PID"] = str(os.getppid())
    os.environ["EINHORN_FD_COUNT"] = str(len(fds))
    for i in range(len(fds)):
        os.environ[f"EINHORN_FD_{i}"] = str(3 + i)
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"""
FILE = """
        [baton]
        [socket:http]
        listen = {}
        [socket:local]
        listen = unix:%(here)s/local
        [program:web]
        command = sleep 1000
        startsecs = 0
        sockets = http, local
"""


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def launched(one, how, *sockets):
    one.prefix = [sys.executable, one.path("launcher"), how, *sockets, "--"]
    one.start()
    one.wait_for("ready=web")
    return one


def instance(text):
    one = Instance(text, start=False)
    with open(one.path("launcher"), "w", encoding="utf-8") as f:
        f.write(LAUNCHER)
    return one


def inode(pid, fd):
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def listens(one):
    return {s["name"]: s["listen"] for s in one.status()["sockets"]}


@test("systemd: names decide, then addresses; what differs or fits nothing is told; the workers see their own variables; the file of a passed unix socket is not baton's")
def _():
    port, other = free_port(), free_port()
    one = instance(FILE.format(f"127.0.0.1:{port}"))
    local = one.path("local")
    # In another order than the file's; one by its name alone, one by its address, one for nobody.
    launched(one, "systemd", f"{local}=whatever", f"127.0.0.1:{other}=http",
             "127.0.0.1:0=nobody", "datagram=dgram")
    equal(listens(one), {"http": f"127.0.0.1:{other}", "local": f"unix:{local}"}, "sockets")
    equal([inode(one.workers("web")[0]["pid"], 3 + i) for i in range(2)],
          [inode(one.pid, 4), inode(one.pid, 3)], "what the worker got, in the order of the file")
    log = one.log()
    contains(log, f"('http'): [socket:http] says listen = 127.0.0.1:{port}, but it listens on "
             f"127.0.0.1:{other}", "a name with another address")
    contains(log, "('nobody'): listens on 127.0.0.1:", "one that nobody asks for")
    contains(log, "('dgram'): is no listening stream socket; closed", "one of another kind")
    contains(log, ", inherited)", "which are inherited")
    pid = one.workers("web")[0]["pid"]
    env = environment_of(pid)
    equal((env["LISTEN_FDS"], env["LISTEN_FDNAMES"], env["LISTEN_PID"]), ("2", "http:local", str(pid)),
          "variables of the worker")
    with socket.create_connection(("127.0.0.1", other), 2):
        pass
    # Kept by a reload, with the same listener; another address opens one of baton's own.
    before = inode(one.pid, 4)
    one.cli("reload", status=0)
    equal(inode(one.workers("web")[0]["pid"], 3), before, "listener after a reload")
    third = free_port()
    one.write(FILE.format(f"127.0.0.1:{third}"))
    one.cli("reload", status=0)
    one.wait_for("rollout=done")
    equal(listens(one)["http"], f"127.0.0.1:{third}", "after another listen")
    one.stop()
    check(os.path.exists(local), "the socket file, which is its maker's, was removed")


@test("systemd without names, [::]:PORT for :PORT; a LISTEN_PID of somebody else; -d")
def _():
    port = free_port()
    one = instance(FILE.format(f":{port}"))
    local = one.path("local")
    try:
        launched(one, "nameless", f"[::]:{port}", local)
    except Failed:
        if "OSError" in one.log():
            skip("this machine has no IPv6")
        raise
    equal(listens(one), {"http": f"[::]:{port}", "local": f"unix:{local}"}, "sockets")
    check("warning" not in one.log(), "a warning without a reason")
    one.stop()
    os.unlink(local)
    mark = one.mark()
    one.prefix = [sys.executable, one.path("launcher"), "stranger", f"127.0.0.1:{port}=http", "--"]
    one.start(wait=False)      # not for us, and so the port is somebody's
    equal(one.wait_end(), 1, "exit status with another's LISTEN_PID")
    one.wait_log("in use by", since=mark)
    pidfile = one.path("pid")
    one.write(f"""
        [baton]
        pidfile = {pidfile}
        logfile = %(here)s/log
        [socket:http]
        listen = 127.0.0.1:{port}
        [program:web]
        command = sleep 1000
        startsecs = 0
        sockets = http
    """)
    one.arguments = ["-d"]
    one.prefix = [sys.executable, one.path("launcher"), "systemd", f"127.0.0.1:{port}=http", "--"]
    one.start(wait=False)
    equal(one.wait_end(), 0, "exit status of run -d")
    one.wait_for("ready=web")
    with open(one.path("log"), encoding="utf-8") as f:
        contains(f.read(), "(http, inherited)", "log in the background")
    one.cli("shutdown", status=0)


@test("Server::Starter and einhorn; variables that are left over from somebody else do no harm")
def _():
    for how in ("starter", "einhorn"):
        port = free_port()
        one = instance(FILE.format(f"127.0.0.1:{port}"))
        launched(one, how, f"127.0.0.1:{port}", one.path("local"))
        equal(listens(one), {"http": f"127.0.0.1:{port}", "local": f"unix:{one.path('local')}"}, how)
        contains(one.log(), "(http, inherited)", how)
        one.stop()
    one = Instance(FILE.format("127.0.0.1:0"), env={
        "SERVER_STARTER_PORT": "80=0;=;x=99999;/a=-1;127.0.0.1:1", "EINHORN_FD_COUNT": "5",
        "EINHORN_MASTER_PID": "1", "EINHORN_FD_0": "2", "LISTEN_FDS": "-3", "LISTEN_PID": "x"})
    one.wait_for("ready=web")
    check("inherited" not in one.log(), "something was inherited")


@test("an inherited reserved port and [baton] user")
def _():
    if os.geteuid() != 0:
        skip("only root can give up root")
    port = free_port()
    where = folder()
    os.chmod(where, 0o777)
    one = Instance("", start=False, folder=where)
    with open(one.path("launcher"), "w", encoding="utf-8") as f:
        f.write(LAUNCHER)
    one.write(FILE.format(f"127.0.0.1:{port}").replace("[baton]", "[baton]\n        user = daemon"))
    launched(one, "systemd", f"127.0.0.1:{port}=http")
    contains(one.log(), "(http, inherited)", "log")
    check(", inherited)" not in one.wait_log(r"local \(local|\(local").string, "local is its own")
    equal(os.stat(f"/proc/{one.workers('web')[0]['pid']}").st_uid, 1, "uid of the worker")


@test("the sample units of systemd are well formed")
def _():
    if not shutil.which("systemd-analyze"):
        skip("systemd-analyze is not installed")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "contrib", "systemd")
    where = folder()
    units = []
    for name in ("baton@.service", "baton@.socket"):
        with open(os.path.join(source, name), encoding="utf-8") as f:
            text = f.read().replace("/usr/bin/baton", os.path.realpath(BATON))
        units.append(os.path.join(where, name.replace("@", "@sample")))
        with open(units[-1], "w", encoding="utf-8") as f:
            f.write(text)
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True,
                       timeout=30, check=False, text=True)
    ours = [line for line in (r.stdout + r.stderr).splitlines() if "baton" in line]
    equal(ours, [], "findings of systemd-analyze")
    with open(units[0], encoding="utf-8") as f:
        contains(f.read(), "KillMode=mixed", "the unit")


if __name__ == "__main__":
    main()

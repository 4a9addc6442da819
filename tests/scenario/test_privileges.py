#!/usr/bin/python3
"""[baton] user: root binds the sockets and is given up; everything else is the user's."""

import os
import pwd
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

USER = "daemon"


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def reserved_port():
    """A free port that only root may open."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        limit = int(f.read())
    for port in range(min(limit, 1024) - 1, 500, -1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    skip("no reserved ports here")
    return None


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return dict(line.rstrip("\n").partition(":\t")[::2] for line in f)


def place():
    """A folder of the user's, and baton where the user can reach it."""
    if os.geteuid() != 0:
        skip("only root can give up root")
    where, user = folder(), pwd.getpwnam(USER)
    os.chown(where, user.pw_uid, user.pw_gid)
    os.chmod(where, 0o755)
    return where, user


@test("root is given up for good, after the sockets are bound: ids, groups, capabilities of baton, its helpers, its workers; files can be opened again")
def _():
    where, user = place()
    port = reserved_port()
    text = f"""
        [baton]
        user = {USER}
        pidfile = %(here)s/pid
        logfile = %(here)s/log
        [scheduler]
        database = %(here)s/lock.db
        [socket:http]
        listen = 127.0.0.1:{{}}
        [socket:local]
        listen = unix:%(here)s/local
        [program:web]
        command = sleep 1000
        workers = 2
        startsecs = 0
        sockets = http local
        executor = candidate
        [program:same]
        command = sleep 1000
        user = {USER}
        stdout_logfile = %(here)s/out
        startsecs = 0
    """
    one = Instance(text.format(port), folder=where)
    one.wait_for("ready=web")
    one.wait_for("ready=same")
    one.wait_for("executor")
    groups = " ".join(map(str, sorted(set(os.getgrouplist(USER, user.pw_gid)))))
    everybody = [p for p in marked_processes() if p != os.getpid()]
    check(len(everybody) >= 6, f"supervisor, keeper, deadman, 3 workers: {everybody}")
    for pid in everybody:
        s, who = status_of(pid), f"{pid} ({command_of(pid)})"
        equal(s["Uid"].split(), [str(user.pw_uid)] * 4, f"uids of {who}")
        equal(s["Gid"].split(), [str(user.pw_gid)] * 4, f"gids of {who}")
        equal(" ".join(sorted(s["Groups"].split())), groups, f"groups of {who}")
        equal({int(s[k], 16) for k in ("CapInh", "CapPrm", "CapEff", "CapAmb")}, {0},
              f"capabilities of {who}")
    env = environment_of(one.workers("web")[0]["pid"])
    equal((env["HOME"], env["USER"], env["LOGNAME"]), (user.pw_dir, USER, USER), "environment")
    for name in ("pid", "log", "lock.db", "local", "out", "one.sock"):
        equal(os.stat(one.path(name)).st_uid, user.pw_uid, f"owner of {name}")
    with socket.create_connection(("127.0.0.1", port), 2):
        pass
    # Rotation, a control socket that was removed, a reload: all of it without root.
    os.rename(one.path("log"), one.path("log.1"))
    os.rename(one.path("out"), one.path("out.1"))
    one.send_signal(signal.SIGUSR1)
    wait_until(lambda: os.path.exists(one.path("log")) and os.path.exists(one.path("out")), 5,
               "log files to be made again")
    for name in ("one.sock", "local"):
        os.unlink(one.path(name))
    one.send_signal(signal.SIGHUP)
    wait_until(lambda: os.path.exists(one.path("one.sock")) and os.path.exists(one.path("local")),
               5, "sockets to be made again")
    one.wait_for("rollout=done")
    # What needs root is refused, with the reason, and changes nothing.
    before = [w["pid"] for w in one.workers("web")]
    one.write(text.format(reserved_port()))
    contains(one.cli("check", "--plan", status=1).err, "gave up root when it started",
             "the plan for a new reserved port")
    contains(one.cli("reload", status=1).err, "gave up root when it started ([baton] user)",
             "a new reserved port")
    equal([w["pid"] for w in one.workers("web")], before, "pids")
    one.write(text.format(free_port()))
    one.cli("reload", status=0)
    one.stop()
    left = set(os.listdir(where)) & {"pid", "one.sock", "local", ".local.baton"}
    equal(left, set(), "files left")


@test("pidfile and log where only root can write: made by root, given to the user; nobody's file in a shared folder is touched")
def _():
    where, user = place()
    one = Instance("", start=False, folder=where)
    os.chown(where, 0, 0)       # as /var/log
    with open(one.path("log"), "w", encoding="ascii") as f:
        f.write("before\n")
    one.write(f"""
        [baton]
        user = {USER}
        pidfile = %(here)s/pid
        logfile = %(here)s/log
        control = /tmp/baton-test-{os.getpid()}.sock
        [program:web]
        command = sleep 1000
        startsecs = 0
        [socket:local]
        listen = unix:%(here)s/local
    """)
    one.socket = f"/tmp/baton-test-{os.getpid()}.sock"
    one.start()
    one.wait_for("ready=web")
    for name in ("pid", "log", "local"):
        equal(os.stat(one.path(name)).st_uid, user.pw_uid, f"owner of {name}")
    with open(one.path("pid"), encoding="ascii") as f:
        equal(int(f.read()), one.pid, "pid in the pidfile")
    with open(one.path("log"), encoding="utf-8") as f:
        text = f.read()
    check(text.startswith("before\n"), "the log was emptied")
    contains(text, "cannot write in", "a warning that the socket's file stays")
    one.stop()
    with open(one.path("pid"), encoding="ascii") as f:
        equal(f.read(), "", "the pidfile, which the user cannot remove")
    one.start()     # over what was left there
    one.wait_for("ready=web")
    one.stop()
    # In a folder that others can write, root gives nothing away.
    os.chmod(where, 0o777)
    os.chown(one.path("log"), 0, 0)
    os.chmod(one.path("log"), 0o600)
    with open(one.path("precious"), "w", encoding="ascii") as f:
        f.write("precious")
    os.unlink(one.path("pid"))
    os.symlink("precious", one.path("pid"))
    os.chmod(one.path("precious"), 0o600)
    one.start(wait=False)
    equal(one.wait_end(), 1, "exit status")
    equal((os.stat(one.path("log")).st_uid, os.stat(one.path("precious")).st_uid), (0, 0), "owners")
    contains(one.log(), f"baton runs as user '{USER}' here", "the way out")


@test("compatibility mode: [supervisord] user; a group of its own; a program with another user; who is not root")
def _():
    where, user = place()
    one = Instance(f"""
        [supervisord]
        user = {USER}
        [program:web]
        command = sleep 1000
        startsecs = 0
    """, folder=where)
    one.wait_for("ready=web")
    pid = one.workers("web")[0]["pid"]
    equal(status_of(pid)["Uid"].split()[0], str(user.pw_uid), "uid of the worker")
    equal(environment_of(pid).get("HOME"), os.environ.get("HOME"), "HOME, as supervisord leaves it")
    one.stop()
    one.write(f"""
        [baton]
        user = {USER}
        group = nogroup
        [program:web]
        command = sleep 1000
        user = {USER}
        startsecs = 0
    """)
    one.start()
    one.wait_for("ready=web")
    group = str(os.stat(one.socket).st_gid)
    for pid in (one.pid, one.workers("web")[0]["pid"]):
        equal(status_of(pid)["Gid"].split(), [group] * 4, "gids with group =")
    check(group != str(user.pw_gid), "the group is the user's own")
    one.stop()
    one.write(f"""
        [baton]
        user = {USER}
        [program:web]
        command = sleep 1000
        user = nobody
    """)
    contains(baton("check", "-c", one.config, status=78).out + baton("check", "-c", one.config).err,
             "gives up root: take 'user' out of [baton]", "another user below")
    one.write(f"[baton]\nuser = {USER}\n[program:web]\ncommand = sleep 1000\n")
    os.chmod(one.config, 0o644)
    one.prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    mark = one.mark()
    one.start(wait=False)
    equal(one.wait_end(), 1, "exit status of one that is not root")
    one.wait_log("only root can become another user", since=mark)


if __name__ == "__main__":
    main()

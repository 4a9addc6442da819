#!/usr/bin/python3
"""What reload, restart --rolling, wait and check --plan say of a rollout, and what they return."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

OLD = "sh -c \"echo up; exec sleep 1000\""
# Gets ready when the file go is there, and fails when the file fail is.
WAITS = "sh -c \"while ! test -e %(here)s/go; do test -e %(here)s/fail && exit 3; sleep 0.01; done; " \
        "echo up; exec sleep 1000\""
WEB = """
    [baton]
    [program:web]
    command = {}
    ready = log:up
    startretries = 0
    {}
"""


def contains(text, part, what):
    check(part in text, f"{what}: no {part!r} in {text!r}")


def touch(one, name):
    with open(one.path(name), "w", encoding="ascii"):
        pass


class Command:
    """`baton ARGUMENTS` of ONE beside the test."""

    def __init__(self, one, *arguments):
        self.process = subprocess.Popen(
            [BATON, *arguments, "-s", one.socket, "-c", one.config], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self.out = ""

    def until(self, text, seconds=5):
        """Its output up to TEXT."""
        limit = deadline(seconds, f"{text!r} in {self.out!r}")
        while text not in self.out:
            select.select([self.process.stdout], [], [], limit.left())
            part = os.read(self.process.stdout.fileno(), 65536)
            if not part:
                raise Failed(f"no {text!r} in {self.out!r}: {self.process.stderr.read()!r}")
            self.out += part.decode()
        return self

    def end(self, status, seconds=10):
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise Failed(f"{self.process.args} has not ended after {seconds} s: {self.out!r}") \
                from None
        r = Result(self.process.returncode, self.out + out.decode(), err.decode())
        equal(r.status, status, f"exit status of {self.process.args}; {r.out!r}, {r.err!r}")
        return r


def web():
    one = Instance(WEB.format(OLD, ""))
    one.wait_for("ready=web")
    return one


def to(one, command, more=""):
    one.write(WEB.format(command, more))


def under_way(one, *arguments):
    """A reload to a version that is neither ready nor has failed yet."""
    to(one, WAITS)
    command = Command(one, *(arguments or ("reload",))).until("web: replaced")
    wait_until(lambda: one.program("web")["rollout"], 5, "the rollout")
    return command


# --- what is not this request's affair -----------------------------------------------------------
@test("reload beside a program that is half way, that starts, that stops: it waits for what it does")
def _():
    text = """
        [baton]
        [program:web]
        command = sleep {}
        startsecs = 0
        [program:bad]
        command = sh -c "test -e %(here)s/there || exit 3; exec sleep 5009"
        startretries = 1
        startsecs = 50ms
        [program:slow]
        command = sleep 6002
        ready = notify
        ready_timeout = 100s
        [program:deaf]
        command = sh -c "trap '' TERM; echo deaf; while ! test -e %(here)s/gone; do sleep 0.01; done"
        startsecs = 0
        stopwaitsecs = 60s
    """
    one = Instance(text.format(1000), start=False)
    touch(one, "there")
    one.start()
    for name in ("web", "bad"):
        one.wait_for(f"ready={name}")
    one.wait_log(r"deaf:0 \| deaf")
    os.unlink(one.path("there"))
    r = one.cli("restart", "--rolling", "bad", status=1)
    equal(one.program("bad")["rollout"]["state"], "half_way", "bad")
    contains(r.err, "bad:0 exited with status 3", "why")
    equal(len(re.findall("again and again", r.err)), 1, f"how often it says that it is tried: {r.err!r}")
    stop = Command(one, "stop", "deaf")
    wait_until(lambda: one.worker("deaf:0")["state"] == "stopping", 5, "deaf:0 stops")
    equal(one.worker("slow:0")["state"], "starting", "slow:0")
    for arguments in (["reload"], ["reload", "--changed-only"]):
        out = Command(one, *arguments).end(0, 5).out
        contains(out, "nothing has changed", "an unchanged file")
        contains(out, "bad is half way", "what is left as it is")
    one.write(text.format(2000))
    out = Command(one, "reload").end(0, 5).out
    contains(out, "web: every worker is of the new version", "the other program")
    equal(command_of(one.worker("web:0")["pid"]), "sleep 2000", "its command")
    touch(one, "gone")
    stop.end(0)


# --- a rollout that is under way already ---------------------------------------------------------
@test("reload and wait while a rollout runs that then fails: 1, with its reason; so does a wait after it")
def _():
    one = web()
    to(one, WAITS)
    one.cli("reload", "--no-wait", status=0)
    again = Command(one, "reload").until("web: a rollout is under way")
    contains(again.out, "nothing has changed", "the same file")
    with one.control() as waits:
        number = waits.send("wait", **{"for": "rollout=done", "timeout_ms": 10000})
        waits.send("version")       # answered after the first was taken
        equal(waits.receive()["id"], number + 1, "the wait waits")
        touch(one, "fail")
        answer = waits.receive(10)
    why = "the new version does not start (web:0 exited with status 3)"
    equal(answer["ok"], False, "the wait that began before it failed")
    contains(answer["error"]["message"], f"web: rollout aborted: {why}", "its reason")
    r = again.end(1)
    contains(r.err, f"web: rollout aborted: {why}", "the reason of the reload")
    check("done" not in r.out, f"it is not done: {r.out!r}")
    r = one.cli("wait", "--for", "rollout=done", status=1)
    contains(r.err, f"web: rollout aborted: {why}", "the reason when it is over")
    to(one, OLD.replace("1000", "2000"))
    one.cli("reload", status=0)
    one.cli("wait", "--for", "rollout=done", status=0)


@test("reload while a rollout runs that is then done: 0, and it was waited for")
def _():
    one = web()
    to(one, WAITS)
    one.cli("reload", "--no-wait", status=0)
    again = Command(one, "reload", "--json")
    wait_until(lambda: one.status()["instance"]["generation"] == 2, 5, "the second reload")
    touch(one, "go")
    document = json.loads(again.end(0).out)
    equal((document["ok"], [(p["name"], p["outcome"]) for p in document["programs"]]),
          (True, [("web", "done")]), "document")
    equal(one.program("web")["rollout"], None, "the rollout after it")


@test("a program that is stopped in its rollout: reload, restart --rolling and wait end with 1")
def _():
    one = web()
    command = under_way(one)
    with one.control() as waits:
        number = waits.send("wait", **{"for": "rollout=done", "timeout_ms": 10000})
        waits.send("version")
        equal(waits.receive()["id"], number + 1, "the wait waits")
        one.cli("stop", "web", status=0)
        answer = waits.receive(10)
    contains(command.end(1).err, "web: stopped before every worker was replaced", "reload")
    contains(answer["error"]["message"], "web: stopped before", "wait")
    one.wait_for("rollout=done")        # nothing is known of it any more
    touch(one, "go")
    one.cli("start", "web", status=0)
    os.unlink(one.path("go"))
    command = Command(one, "restart", "--rolling", "web")
    wait_until(lambda: one.program("web")["rollout"], 5, "the rollout")
    one.cli("stop", "web", status=0)
    contains(command.end(1).err, "web: stopped before every worker was replaced", "restart")


@test("superseded by another reload: it says so, and ends as what came does")
def _():
    one = web()
    first, document = under_way(one), Command(one, "reload", "--json")
    wait_until(lambda: one.status()["instance"]["generation"] == 2, 5, "the one with --json")
    to(one, OLD.replace("1000", "3000"))
    one.cli("reload", status=0)
    r = first.end(0)
    contains(r.out, "web: superseded by another reload (generation 3)", "said")
    contains(r.out, "done: generation 1, superseded by generation 3", "the last line")
    check(r.out.index("superseded by another") < r.out.index("every worker is of the new"), r.out)
    document = json.loads(document.end(0).out)
    equal((document["superseded_by"], document["programs"][0]["outcome"]), (3, "done"), "--json")
    wait_until(lambda: command_of(one.worker("web:0")["pid"]) == "sleep 3000", 5, "the last file's")
    first = under_way(one)
    to(one, "false")
    one.cli("reload", status=1)
    r = first.end(1)
    contains(r.out, "web: superseded by another reload (generation 5)", "said")
    contains(r.err, "exited with status 1", "why what came failed")
    first = under_way(one)
    restart = Command(one, "restart", "--rolling", "web")
    first.until("web: superseded by another rollout")
    touch(one, "fail")
    first.end(1)
    restart.end(1)


@test("two reloads in one round of the loop: the first is superseded, the second is not")
def _():
    one = web()
    to(one, OLD, "sockets = a\n    [socket:a]\n    listen = 127.0.0.1:0")
    with one.control() as first, one.control() as second:
        one.send_signal(signal.SIGSTOP)     # both are read when it goes on
        wait_until(lambda: state_of(one.pid) == "T", 5, "it stands still")
        for client in (first, second):
            client.send("reload", wait=True)
        one.send_signal(signal.SIGCONT)
        results = []
        for client in (first, second):
            line = {"progress": ""}
            while "progress" in line:
                line = client.receive(10)
            check(line["ok"], f"answer: {line}")
            results.append(line["result"])
    results.sort(key=lambda r: r["generation"])
    equal([r["generation"] for r in results], [1, 2], "generations")
    equal([r.get("superseded_by") for r in results], [2, None], "superseded by")


# --- several programs ----------------------------------------------------------------------------
@test("two programs fail in one reload: each is named, with its own reason; --json has both")
def _():
    text = """
        [baton]
        [socket:a]
        listen = 127.0.0.1:0
        [program:web]
        command = {}
        sockets = a
        startsecs = 50ms
        startretries = 1
        workers = 3
        [program:plain]
        command = {}
        startsecs = 50ms
        startretries = 1
        workers = 3
        [program:good]
        command = {}
        startsecs = 0
    """
    one = Instance(text.format(OLD, OLD, OLD))
    for name in ("web", "plain", "good"):
        one.wait_for(f"ready={name}")
    bad = text.format('sh -c "exit 7"', 'sh -c "exit 8"', "sleep 2000")
    one.write(bad)
    r = one.cli("reload", status=1)
    contains(r.err, "web, plain: ", "both are named")
    web_why = re.search(r"web: rollout aborted: the new version does not start \((web:\d) exited with "
                        r"status 7\)", r.err)
    plain_why = re.search(r"plain: rollout aborted: the new version does not start \(plain:\d exited "
                          r"with status 8\)", r.err)
    check(web_why and plain_why, f"their reasons: {r.err!r}")
    equal(command_of(one.worker("good:0")["pid"]), "sleep 2000", "the one that is good")
    document = json.loads(one.cli("reload", "--json", status=1).out)
    programs = {p["name"]: p for p in document["error"]["programs"]}
    equal({n: p["outcome"] for n, p in programs.items()}, {"web": "failed", "plain": "failed"},
          "outcomes")
    contains(programs["web"]["reason"], "exited with status 7", "why web")
    contains(programs["plain"]["reason"], "exited with status 8", "why plain")
    r = one.cli("wait", "--for", "rollout=done", status=1)
    contains(r.err, "web, plain: ", "wait names both")
    one.write(text.format(OLD, OLD, "sleep 3000"))
    document = json.loads(one.cli("reload", "--json", status=0).out)
    equal({(p["name"], p["outcome"], p["reason"]) for p in document["programs"]},
          {(name, "done", None) for name in ("web", "plain", "good")}, "mended")


# --- lines ---------------------------------------------------------------------------------------
@test("the lines: who is replaced before the end; nobody is after a roll-back")
def _():
    text = """
        [baton]
        [program:web]
        command = %(here)s/web {}
        startsecs = 50ms
        startretries = 0
        workers = 3
    """
    one = Instance(text.format(1), start=False)
    with open(one.path("web"), "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n[ -e ${0%/*}/bad ] && [ $BATON_INDEX$1 = 13 ] && exit 9\nexec sleep 1000\n")
    os.chmod(one.path("web"), 0o755)
    one.start()
    one.wait_for("ready=web")
    one.write(text.format(2))
    lines = one.cli("reload", status=0).out.splitlines()
    equal([re.sub(r"pid \d+", "pid", line) for line in lines[1:]],
          [f"web:{i} is replaced, pid ({i + 1} of 3)" for i in range(3)] +
          ["web: every worker is of the new version", "done: generation 1"], "lines")
    touch(one, "bad")
    one.write(text.format(3))
    before = {w["name"]: w["pid"] for w in one.workers("web")}
    r = one.cli("reload", status=1)
    equal(re.findall(r"web:\d is replaced", r.out), ["web:0 is replaced"], "who was of version 3")
    check(f"pid {before['web:2']}" not in r.out, f"the one that nobody touched: {r.out!r}")
    contains(r.out, "web: rolling back: the new version does not start (web:1 exited with status 9)",
             "why")


@test("status lists workers by their index, the outgoing one after its replacement")
def _():
    one = Instance("""
        [baton]
        [socket:a]
        listen = 127.0.0.1:0
        [program:web]
        command = sleep 1000
        sockets = a
        startsecs = 50ms
        workers = 4
        surge = 2
        stop_delay = 200ms
    """)
    one.wait_for("ready=web")
    orders = []
    with one.events() as events:
        one.cli("restart", "--rolling", "web", "--no-wait", status=0)
        while events.next().get("event") != "program.note":
            orders.append([(w["index"], "@" in w["name"]) for w in one.workers("web")])
    orders.append([(w["index"], "@" in w["name"]) for w in one.workers("web")])
    equal([o for o in orders if o != sorted(o)], [], "orders")
    check(any(any(out for _, out in o) for o in orders), "an outgoing one was seen")
    names = re.findall(r"^  (web:\S+)", one.cli("status").out, re.M)
    equal(names, [f"web:{i}" for i in range(4)], "for people")


# --- the plan ------------------------------------------------------------------------------------
SOCKETS = """
    [baton]
    {}
    [program:web]
    command = sleep 1000
    startsecs = 0
    {}
"""


def socket_of(name, listen):
    return f"[socket:{name}]\n    listen = {listen}\n    "


@test("check --plan refuses what reload would refuse, in its words, and leaves no trace")
def _():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own, free = free_port(), free_port()
        one = Instance(SOCKETS.format(socket_of("own", f"127.0.0.1:{own}"), "sockets = own"))
        one.wait_for("ready=web")
        before = one.status()
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(one.path("living"))
            living.listen()
            touch(one, "file")
            for listen, why in ((f"127.0.0.1:{taken.getsockname()[1]}", "in use by pid"),
                                ("no.such.host.invalid:8080", "cannot resolve"),
                                (f":{own}", "this supervisor itself"),
                                (f"unix:{one.path('living')}", "in use by pid"),
                                (f"unix:{one.path('file')}", "something that is no socket"),
                                (f"unix:{one.path('none/x')}", "its folder does not exist")):
                over = listen == f":{own}"      # beside the one in the file it is an error of that
                kept = "" if over else socket_of("own", f"127.0.0.1:{own}")
                one.write(SOCKETS.format(kept + socket_of("free", f"127.0.0.1:{free}") +
                                         socket_of("new", listen), "sockets = free, new"))
                plan = one.cli("check", "--plan", status=1)
                contains(plan.err, "[socket:new]", listen)
                contains(plan.err, why, listen)
                document = one.cli("check", "--plan", "--json", status=1)
                equal(json.loads(document.out)["ok"], False, listen)
                reload = one.cli("reload", status=1)
                equal(plan.err.splitlines()[0], reload.err.splitlines()[0], listen)
                check(os.path.lexists(one.path("file")), "a file was removed")
            dead = one.path("dead")
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(dead)
            inode = os.stat(dead).st_ino
            one.write(SOCKETS.format(socket_of("own", f"127.0.0.1:{own}") +
                                     socket_of("new", f"unix:{dead}"), "sockets = own"))
            contains(one.cli("check", "--plan", status=0).out, f"[socket:new] unix:{dead}: opened",
                     "over a dead socket")
            equal(os.stat(dead).st_ino, inode, "the dead socket after a plan")
        after = one.status()
        equal((after["sockets"], after["programs"][0]["workers"][0]["pid"]),
              (before["sockets"], before["programs"][0]["workers"][0]["pid"]), "what runs")
        with socket.socket() as s:
            check(s.connect_ex(("127.0.0.1", free)) != 0, "a port was left open")


@test("the plan's words: the key of a limit, from how many to how many workers, a socket's new name")
def _():
    first, second = free_port(), free_port()
    sockets = socket_of("a", f"127.0.0.1:{first}") + socket_of("b", f"127.0.0.1:{second}")
    one = Instance(SOCKETS.format(sockets, "sockets = a\n    rlimit_nofile = 100\n    workers = 2"))
    one.wait_for("ready=web")

    def plan(sockets, more):
        one.write(SOCKETS.format(sockets, more))
        return one.cli("check", "--plan", status=0).out

    out = plan(sockets, "sockets = a\n    rlimit_nofile = 100\n    workers = 3\n    roll_on_reload = changed")
    contains(out, "web: scaled in place (roll_on_reload changed, workers: 2 -> 3)", "a count")
    one.cli("scale", "web", "5", status=0)
    out = plan(sockets, "sockets = a\n    rlimit_nofile = 100\n    workers = 3\n    roll_on_reload = changed")
    contains(out, "workers: 2 -> 3; 5 at present)", "a count that an operator changed")
    out = plan(sockets, "sockets = a\n    rlimit_nofile = 200\n    rlimit_core = 0\n    workers = 2")
    contains(out, "(rlimit_nofile, rlimit_core changed)", "limits")
    out = plan(socket_of("c", f"127.0.0.1:{first}") + socket_of("b", f"127.0.0.1:{second}"),
               "sockets = c\n    rlimit_nofile = 100\n    workers = 2")
    contains(out, f"[socket:c] 127.0.0.1:{first}: stays open, it was [socket:a]", "another name")
    check("opened" not in out and "closed" not in out, f"plan {out!r}")
    out = plan(socket_of("a", f"127.0.0.1:{second}") + socket_of("b", f"127.0.0.1:{first}"),
               "sockets = a\n    rlimit_nofile = 100\n    workers = 2")
    check("opened" not in out and "closes" not in out, f"exchanged: {out!r}")
    contains(out, f"[socket:a] listen: 127.0.0.1:{first} -> 127.0.0.1:{second}: open already", "moved")
    one.cli("reload", status=0)
    contains(out, "web: replaced", "the program")


@test("reload: a program that is new, or a worker more, and does not start: exit 1, which and why")
def _():
    one = Instance(WEB.format(OLD, ""))
    one.wait_for("ready=web", 10)
    new = "[program:new]\ncommand = sh -c \"exit 7\"\nrestart_backoff = 1h\nrestart_backoff_max = 1h\n"
    one.write(WEB.format(OLD, new))
    r = one.cli("reload", status=1)
    contains(r.err, "new:0 exited with status 7; baton goes on trying", "why")
    r = one.cli("reload", status=0)     # nothing is new: it is no business of this one
    contains(r.out, "nothing has changed", "plan")
    one.write(WEB.format(OLD, new + "workers = 2\n"))
    answer = json.loads(one.cli("reload", "--json", status=1).out)
    equal([(p["name"], p["outcome"]) for p in answer["error"]["programs"]], [("new", "failed")], "outcomes")
    contains(answer["error"]["programs"][0]["reason"], "new:1 exited with status 7", "reason")


if __name__ == "__main__":
    main()

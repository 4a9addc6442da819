#!/usr/bin/python3
"""The command line against a made-up instance: every answer that the protocol allows."""

import copy
import fcntl
import os
import pty
import struct
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403


def worker(name, **fields):
    return {"name": name, "id": 1, "pid": 1234, "state": "running", "ready": True,
            "executor": False, "started_at": "2026-01-02T03:04:05.678Z", "restarts": 0,
            "last_exit": None, "status": "", "generation": 1, **fields}


DOCUMENT = {
    "instance": {"id": "x", "name": "shop", "pid": 99, "version": "0.1.0",
                 "started_at": "2026-01-02T03:04:05.678Z", "generation": 2, "state": "running"},
    "lock": {"database": "/var/lib/baton/shop.db", "role": "holder", "epoch": 7, "term": 9,
             "holder": {"instance": "x", "pid": 99, "hostname": "alpha", "worker": "web:1"},
             "acquired_at": "2026-01-02T03:04:06.000Z", "heartbeat_at": "2026-01-02T03:04:06.000Z",
             "expires_at": "2026-01-02T03:05:06.000Z", "ttl_ms": 60000, "error": None},
    "executors": [{"program": "web", "state": "executing", "worker": "web:1", "pid": 1235,
                   "term": 9, "since": "2026-01-02T03:04:06.000Z", "answered": True, "busy": 2,
                   "reason": ""}],
    "executor": None,
    "sockets": [{"name": "http", "listen": "127.0.0.1:8000", "url": "http://127.0.0.1:8000"}],
    "programs": [
        {"name": "web", "state": "running", "wanted": 2, "ready": 2, "rollout": None,
         "workers": [worker("web:0", restarts=3,
                            last_exit={"signal": 9, "reason": "out of memory"}),
                     worker("web:1", executor=True, status="h\u00e9llo \033[31mred\nline " * 20)]},
        {"name": "beat", "state": "running", "wanted": 1, "ready": 0, "rollout": None,
         "workers": [worker("beat:0", state="standby", pid=None, ready=False)]}],
}


class Fake:
    """Answers each request by ANSWERS[cmd]: a result, an error ({"code": ...}), or a function of
    (connection, request) that writes by itself."""

    def __init__(self, answers):
        self.path, self.answers, self.requests = os.path.join(folder(), "s"), answers, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b'{"baton":"0.1.0","v":1,"pid":99,"instance":"x"}\n')
            for line in lines:
                request = json.loads(line)
                self.requests.append(request)
                answer = self.answers.get(request["cmd"], {"code": "usage", "message": "unknown"})
                if callable(answer):
                    if answer(connection, request) == "close":
                        return
                    continue
                failed = isinstance(answer, dict) and "code" in answer
                self.say(connection, {"id": request["id"], "ok": not failed,
                                      ("error" if failed else "result"): answer})

    @staticmethod
    def say(connection, *lines):
        for line in lines:
            connection.sendall(json.dumps(line).encode() + b"\n")

    def run(self, *arguments, **keywords):
        return baton(*arguments, "-s", self.path, **keywords)

    def on_terminal(self, *arguments, columns=80):
        """What it prints on a terminal of so many columns."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        process = subprocess.Popen([BATON, *arguments, "-s", self.path], stdin=subprocess.DEVNULL,
                                   stdout=theirs, env={**os.environ, "NO_COLOR": "1"})
        os.close(theirs)
        out = b""
        with contextlib.suppress(OSError):      # EIO: the last writer is gone
            while True:
                out += os.read(ours, 65536)
        os.close(ours)
        equal(process.wait(20), 0, "exit status")
        return out.decode(errors="replace").replace("\r\n", "\n")

    def close(self):
        self.listener.close()


@contextlib.contextmanager
def fake(**answers):
    f = Fake({name.replace("_", "-"): answer for name, answer in answers.items()})
    try:
        yield f
    finally:
        f.close()


@test("status: text within the terminal's columns, whole when piped; nothing of a worker's text reaches the terminal raw")
def _():
    with fake(status=DOCUMENT) as f:
        text = f.run("status", status=0).out
        check("\033" not in text, "escape of a worker's status text")
        check("..." not in text and text.count("h\u00e9llo") == 20, f"cut when piped:\n{text}")
        shown = f.on_terminal("status")
        check("\033" not in shown, "escape of a worker's status text on a terminal")
        check(not [s for s in shown.splitlines() if len(s) > 80], f"80 columns:\n{shown}")
        equal(len(shown.splitlines()), len(text.splitlines()), "lines")
        for part in ("shop, pid 99, baton 0.1.0", "holder", "web:1, pid 1235, term 9", "runs 2 jobs",
                     "http://127.0.0.1:8000", "2/2 ready", "3 restarts", "out of memory",
                     "executor; h\u00e9llo", "standby"):
            check(part in text, f"{part!r} in\n{text}")
        equal(json.loads(f.run("status", "--json", status=0).out), DOCUMENT, "the document")
        one = json.loads(f.run("status", "--json", "web:1", status=0).out)["programs"]
        equal([[w["name"] for w in p["workers"]] for p in one], [["web:1"]], "narrowed")
        equal(len(json.loads(f.run("status", "--json", "all", status=0).out)["programs"]), 2, "all")
        f.run("status", "web:1", "nobody", status=1)


@test("status --health: what is healthy and what is not")
def _():
    def changed(change):
        document = copy.deepcopy(DOCUMENT)
        change(document)
        return document

    def less(d):
        d["programs"][0]["ready"] = 1

    def no_executor(d):
        d["executors"][0].update(state="none", worker=None, pid=None, reason="no ready worker")

    def elsewhere(d):
        no_executor(d)
        d["lock"]["role"] = "standby"

    def nowhere(d):
        elsewhere(d)
        d["lock"]["holder"] = None

    def unavailable(d):
        no_executor(d)
        d["lock"].update(role="unavailable", error="disk full")

    for change, status, pattern in (
            (lambda d: None, 0, "^healthy$"), (less, 1, "web: 1 of 2 workers are ready"),
            (no_executor, 1, r"web: no executor \(no ready worker\)"), (elsewhere, 0, "^healthy$"),
            (nowhere, 1, "web: no executor"), (unavailable, 1, "web: no executor")):
        with fake(status=changed(change)) as f:
            out = f.run("status", "--health", status=status).out
            check(re.search(pattern, out), f"{pattern!r} in {out!r}")
            f.run("status", "--health", "--json", status=status)
            f.run("status", status=0)           # without --health it is 0


@test("status of a thousand workers")
def _():
    document = copy.deepcopy(DOCUMENT)
    document["programs"][0].update(wanted=1000, ready=1000, workers=[
        worker(f"web:{i}", status="x" * 200) for i in range(1000)])
    with fake(status=document) as f:
        equal(len(json.loads(f.run("status", "--json", status=0).out)["programs"][0]["workers"]),
              1000, "workers")
        equal(f.run("status", status=0).out.count("web:"), 1001, "lines")


@test("each error code has its exit status, message and hint")
def _():
    for code, status in (("usage", 2), ("unsupported", 2), ("refused", 4), ("not_found", 1),
                         ("ambiguous", 1), ("failed", 1), ("busy", 1), ("timeout", 124),
                         ("of the future", 1)):
        error = {"code": code, "message": "the reason", "hint": "do this"}
        with fake(start=error, wait=error) as f:
            r = f.run("start", "web", status=status)
            equal(r.err, "baton: start: the reason\n  do this\n", code)
            f.run("wait", "--for", "executor", status=status)
    findings = {"code": "failed", "message": "the file has errors",
                "findings": ["x.ini:3: one", "x.ini:4: two"]}
    with fake(reload=findings) as f:
        r = f.run("reload", status=78)
        check(r.err.startswith("x.ini:3: one\nx.ini:4: two\nbaton: reload: "), r.err)


@test("requests carry what was asked for")
def _():
    answers = {"start": {"workers": []}, "stop": {"workers": []}, "restart": {"workers": []},
               "signal": {"workers": ["web:0"]}, "scale": {"program": "web", "from": 1, "to": 2},
               "handoff": {"program": "web", "from": "web:0", "to": "web:1", "term": 5},
               "reload": {"plan": ["web: rolled"], "generation": 2},
               "wait": {"condition": "executor", "waited_ms": 3}}
    with fake(**answers) as f:
        def sent(*arguments):
            f.run(*arguments, status=0)
            return {k: v for k, v in f.requests[-1].items() if k not in ("v", "id", "progress")}

        equal(sent("start", "web", "db:*"),
              {"cmd": "start", "targets": ["web", "db:*"], "wait": True}, "start")
        equal(sent("stop", "all", "--no-wait"),
              {"cmd": "stop", "targets": ["all"], "wait": False}, "stop")
        equal(sent("signal", "USR1", "web"),
              {"cmd": "signal", "signal": "USR1", "targets": ["web"]}, "signal")
        equal(sent("scale", "web", "4"),
              {"cmd": "scale", "program": "web", "workers": 4, "wait": True}, "scale 4")
        for relative in ("+1", "-1", "-12"):
            equal(sent("scale", "web", relative)["workers"], relative, "scale")
        equal(sent("handoff"), {"cmd": "handoff", "wait": True}, "handoff")
        equal(sent("handoff", "web:1")["worker"], "web:1", "handoff web:1")
        equal(sent("handoff", "--away")["away"], True, "handoff --away")
        equal(sent("reload", "--no-wait"), {"cmd": "reload", "wait": False}, "reload")
        equal(sent("wait", "--timeout", "1.5s", "--for", "term>4"),
              {"cmd": "wait", "for": "term>4", "timeout_ms": 1500}, "wait")
        count = len(f.requests)
        done = subprocess.run([os.fsencode(BATON), b"start", b"web", b"\xff", b"-s",
                               os.fsencode(f.path)], check=False, capture_output=True)
        check(b"not UTF-8" in done.stderr, str(done.stderr))
        equal(len(f.requests), count, "requests for a name that is not UTF-8")


@test("shutdown: progress, then the socket closes; an instance that dies under a request")
def _():
    def ends(connection, request):
        Fake.say(connection, {"id": request["id"], "progress": "waiting for web:0"},
                 {"id": request["id"], "ok": True, "result": {}},
                 {"id": request["id"], "progress": "waiting for web:1"})
        return "close"

    with fake(shutdown=ends, status=lambda *_: "close") as f:
        r = f.run("shutdown", status=0)
        equal(r.out, "waiting for web:0\nwaiting for web:1\nended\n", "what it says")
        equal(f.requests[-1]["mode"], "graceful", "mode")
        f.run("shutdown", "--now", status=0)
        equal(f.requests[-1]["mode"], "quick", "mode")
        check("ended before it answered" in f.run("status", status=3).err, "died")


@test("status --watch: one picture for what changes, none for what does not")
def _():
    document, gate = copy.deepcopy(DOCUMENT), threading.Semaphore(0)

    def events(connection, request):
        Fake.say(connection, {"id": request["id"], "ok": True, "result": {}})
        Fake.say(connection, {"event": "lock.renewed"})             # nothing that shows
        gate.acquire(timeout=10)
        document["programs"][0]["ready"] = 1
        for _ in range(100):                                        # a burst
            Fake.say(connection, {"event": "worker.died"})
        gate.acquire(timeout=10)
        return "close"

    def status(connection, request):
        Fake.say(connection, {"id": request["id"], "ok": True, "result": document})

    with fake(events=events, status=status) as f:
        watch = subprocess.Popen([BATON, "status", "--watch", "--json", "-s", f.path],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first = json.loads(watch.stdout.readline())
        wait_until(lambda: len([r for r in f.requests if r["cmd"] == "status"]) >= 2, 5)
        gate.release()
        second = json.loads(watch.stdout.readline())
        equal([first["programs"][0]["ready"], second["programs"][0]["ready"]], [2, 1], "pictures")
        gate.release()
        rest = watch.communicate(timeout=10)[0]
        equal((rest, watch.returncode), (b"", 3), "no third picture, exit status")


@test("is-executor asks the control socket when the page is closed")
def _():
    for answer, status in (({"executor": True, "term": 3, "worker": "web:0"}, 0),
                           ({"executor": False, "term": 0, "worker": "web:0"}, 1),
                           ({"code": "refused", "message": "not a worker's"}, 3)):
        with fake(is_executor=answer) as f:
            baton("is-executor", env={"BATON_CONTROL": f.path}, status=status)
            baton("is-executor", env={"BATON_CONTROL": f.path, "BATON_LEASE_FD": "55"},
                  status=status)


if __name__ == "__main__":
    main()

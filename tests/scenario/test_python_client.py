#!/usr/bin/python3
"""The Python client and its APScheduler adapter against a supervisor that is faked here: a lease
page in a memfd and a socket pair."""

import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(HERE, "..", "..", "contrib", "python")
sys.path[:0] = [os.path.join(HERE, "..", "lib"), PACKAGES]

import baton  # noqa: E402
from baton import Baton, BatonError, Demote, NotSupervised, Promote  # noqa: E402
import fake_supervisor  # noqa: E402
from harness import (BATON, Instance, check, equal, folder, main, skip, test,  # noqa: E402
                     wait_until)

STATE_PAUSED = 2      # apscheduler.schedulers.base
logging.disable(logging.CRITICAL)


class World(fake_supervisor.World):
    def open(self):
        return Baton.from_environ(self.environ)


def refused(kind, words, environ):
    try:
        Baton.from_environ(environ)
    except BatonError as error:
        check(type(error) is kind and words in str(error), f"{type(error)}: {error}")
    else:
        check(False, f"{environ} was accepted")


@test("the questions are answered from the page alone")
def _():
    with World() as w, w.open() as b:
        equal((b.is_executor(), b.may_start(), b.term, b.lease_left()), (False, False, 0, 0.0))
        w.show(1753000000000000)
        equal((b.is_executor(), b.may_start(), b.term), (True, True, 1753000000000000))
        check(50 < b.lease_left() <= 60, b.lease_left())
        w.show(1753000000000000, soft=-1)
        equal((b.is_executor(), b.may_start()), (True, False))
        w.show(1753000000000000, soft=-2, hard=-1)
        equal((b.is_executor(), b.may_start(), b.term, b.lease_left()), (False, False, 0, 0.0))
        w.show(2)
        b.close()
        equal((b.is_executor(), b.may_start(), b.term), (False, False, 0))


@test("an environment that cannot be used is refused with the reason")
def _():
    with World() as w:
        refused(NotSupervised, "not started", {})
        for bad in ("x", "-1", " 3", "3x", "99999999999", "\u00b2"):
            refused(BatonError, "not the number", {"BATON_LEASE_FD": bad})
        refused(BatonError, "was it closed", {"BATON_LEASE_FD": "999"})
        refused(BatonError, "was it closed", {"BATON_CHANNEL_FD": "999"})
        null = os.open("/dev/null", os.O_RDONLY)
        refused(BatonError, "not a lease page", {"BATON_LEASE_FD": str(null)})
        refused(BatonError, "not a stream socket", {"BATON_CHANNEL_FD": str(null)})
        os.close(null)
        plain = os.memfd_create("plain")
        os.ftruncate(plain, 4096)
        refused(BatonError, "sealed", {"BATON_LEASE_FD": str(plain)})
        os.close(plain)
        os.pwrite(w.page, struct.pack("<I", 2), 4)
        refused(BatonError, "version 2", w.environ)
        os.pwrite(w.page, struct.pack("<IQ", 1, 0)[:4], 4)
        os.pwrite(w.page, struct.pack("<Q", 12345), 32)
        refused(BatonError, "time namespace", w.environ)
        os.pwrite(w.page, struct.pack("<Q", 0), 32)
        w.open().close()
        os.pwrite(w.page, b"nope", 0)
        refused(BatonError, "magic", w.environ)


@test("promotions and demotions are told once, and only if the page agrees")
def _():
    with World() as w, w.open() as b:
        b.listen()
        equal(w.hear(), "hello")
        equal(b.next_event(), None)
        w.tell("promote 5 60000", "demote 5 lost 0", "sing 5 5", "promote", "promote x 1", "",
               "n" * 3000)
        equal(b.next_event(), None)
        w.promote(5)
        check(select.select([b], [], [], 5)[0], "not readable")
        equal(b.next_event(), Promote(5, 60.0))
        w.tell("promote 5 60000", "demote 4 handoff 1")
        equal(b.next_event(), None)
        w.tell("demote 5 handoff 1500")
        check(b.may_start(), "not heard yet")
        equal(b.next_event(), Demote(5, "handoff", 1.5))
        equal((b.is_executor(), b.may_start()), (True, False))
        check(b.busy(0) and b.demoted(5), "nobody there")
        equal((w.hear(), w.hear()), ("busy 0", "demoted 5"))
        w.tell("promote 5 60000")
        equal(b.next_event(), None)
        w.clear()
        w.promote(6)
        w.clear()
        w.promote(7)
        equal(b.next_event(), Promote(7, 60.0))
        w.clear()
        w.promote(8)
        equal(b.next_event(), Demote(7, "lost", 0.0))
        equal(b.next_event()[0], 8)
        w.clear()
        equal(b.next_event(), Demote(8, "lost", 0.0))
        equal(b.next_event(), None)


@test("a client that opens late reads the page first")
def _():
    with World() as w:
        w.show(9)
        with w.open() as b:
            b.listen()
            w.tell("promote 9 60000")       # the answer to hello
            equal(b.next_event()[0], 9)
            equal(b.next_event(), None)
            w.tell("demote 9 shutdown 10")
            equal(b.next_event().reason, "shutdown")
            b.listen()
            equal(b.next_event(), None)


@test("what the supervisor said before it died is heard; the page stays right")
def _():
    with World() as w, w.open() as b:
        b.listen()
        w.promote(10)
        w.ours.close()
        equal(b.next_event().term, 10)
        equal(b.next_event(), None)
        check(b.at_end and b.is_executor(), "at the end, and executor")
        check(not b.busy(1), "told to nobody")


@test("the listener thread calls and answers")
def _():
    with World() as w, w.open() as b:
        calls, go = [], threading.Event()

        def on_demote(event):
            go.wait(5)
            calls.append(event)

        b.start(on_promote=calls.append, on_demote=on_demote)
        equal(w.hear(), "hello")
        w.promote(11)
        equal(w.hear(), "promoted 11")
        equal([(type(c), c.term) for c in calls], [(Promote, 11)])
        w.tell("demote 11 handoff 2000")
        w.hears_nothing()
        go.set()
        equal(w.hear(), "demoted 11")
        equal(calls[1:], [Demote(11, "handoff", 2.0)])


@test("a callback that fails is not answered")
def _():
    with World() as w, w.open() as b:
        b.start(on_promote=lambda event: 1 / 0)
        equal(w.hear(), "hello")
        w.promote(12)
        w.tell("demote 12 handoff 1")
        equal(w.hear(), "demoted 12")
        b.stop()
        b.start()
        equal(w.hear(), "hello")


@test("the listener thread notices a lease that ends without a line")
def _():
    with World() as w, w.open() as b:
        lost = threading.Event()
        b.start(on_demote=lambda event: lost.set() if event.reason == "lost" else None)
        w.promote(13, hard=0.3)
        check(lost.wait(5), "not noticed")
        check(not b.is_executor(), "still executor")


@test("a forked child may ask and send, not read; it reads after its own listen()")
def _():
    with World() as w, w.open() as b:
        b.listen()
        equal(w.hear(), "hello")
        w.promote(14)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                b.next_event()
            except BatonError:
                status = 0 if b.is_executor() and b.term == 14 and b.busy(3) else 2
                b.listen()
                status |= 0 if b.next_event().term == 14 and b.next_event() is None else 4
            finally:
                os._exit(status)
        equal(os.waitpid(pid, 0)[1], 0)
        equal((w.hear(), w.hear()), ("busy 3", "hello"))


@test("a grandchild after exec opens the inherited descriptors")
def _():
    with World() as w:
        w.show(15)
        program = ("import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', "
                   "'import baton; b = baton.Baton.from_environ(); b.listen(); "
                   "b.promoted(b.next_event().term); sys = __import__(\"sys\"); "
                   "sys.exit(b.term)'], close_fds=False))")
        status = subprocess.call([sys.executable, "-c", program], env={
            **os.environ, **w.environ, "PYTHONPATH": PACKAGES},
            pass_fds=(w.read_only, w.theirs.fileno()))
        equal(status, 15)
        equal((w.hear(), w.hear()), ("hello", "promoted 15"))


@test("readiness, status and watchdog go to NOTIFY_SOCKET")
def _():
    path = os.path.join(folder(), "notify")
    with World() as w, w.open() as b:
        equal(b.ready(), False)
        for name, address in ((path, path), (f"@baton-{os.getpid()}", f"\0baton-{os.getpid()}")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
                receiver.bind(address)
                receiver.settimeout(5)
                os.environ["NOTIFY_SOCKET"] = name
                for say, wanted in ((b.ready, b"READY=1"), (b.stopping, b"STOPPING=1"),
                                    (b.watchdog, b"WATCHDOG=1"),
                                    (lambda: b.status("two\nlines"), b"STATUS=two lines")):
                    equal(say(), True)
                    equal(receiver.recv(512), wanted)
        del os.environ["NOTIFY_SOCKET"]
        equal(baton.watchdog_interval(), 0.0)
        os.environ.update(WATCHDOG_USEC="2500000", WATCHDOG_PID=str(os.getpid()))
        equal(baton.watchdog_interval(), 2.5)
        os.environ["WATCHDOG_PID"] = str(os.getppid())
        equal(baton.watchdog_interval(), 0.0)
        del os.environ["WATCHDOG_USEC"], os.environ["WATCHDOG_PID"]


def apscheduler(kind="background.BackgroundScheduler"):
    try:
        import apscheduler.schedulers.background    # noqa: F401
    except ImportError:
        skip("APScheduler is not installed (python3-apscheduler)")
    module, name = ("apscheduler.schedulers." + kind).rsplit(".", 1)
    return getattr(__import__(module, fromlist=[name]), name)


def end(scheduler):
    scheduler.get_jobs()    # waits for the round that removes what has run: shutdown() does not
    scheduler.shutdown()


@test("APScheduler runs while executor; a demotion waits for the running job")
def _():
    Scheduler = apscheduler()
    from baton.apscheduler import attach
    ran, begun, go = threading.Event(), threading.Event(), threading.Event()

    def long_job():
        begun.set()
        go.wait(5)

    with World() as w, w.open() as b:
        scheduler = Scheduler(timezone="UTC")
        scheduler.add_job(ran.set, id="first")
        attachment = attach(scheduler, b, claims=False)
        equal((w.hear(), scheduler.running), ("hello", False))
        w.promote(20)
        check(ran.wait(5), "the job did not run")
        said = sorted([w.hear(), w.hear(), w.hear()])
        equal(said, ["busy 0", "busy 1", "promoted 20"])
        scheduler.add_job(long_job, id="long")
        check(begun.wait(5), "the long job did not run")
        equal((w.hear(), attachment.running), ("busy 1", 1))
        w.tell("demote 20 handoff 5000")
        deadline = time.monotonic() + 5
        while b.may_start() and time.monotonic() < deadline:
            select.select([w.ours], [], [], 0.01)
        w.hears_nothing()
        go.set()
        equal((w.hear(), w.hear()), ("busy 0", "demoted 20"))
        ran.clear()
        scheduler.add_job(ran.set, id="second", misfire_grace_time=None)
        w.clear()
        equal(scheduler.state, STATE_PAUSED)
        w.promote(21)
        check(ran.wait(5), "not resumed")
        attachment.close()
        end(scheduler)


@test("jobs that fire without the baton are dropped, also those already queued")
def _():
    Scheduler = apscheduler()
    from baton.apscheduler import DROPPED, attach
    from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_SUBMITTED
    begun, go, ran = threading.Event(), threading.Event(), []
    ended = {name: threading.Event() for name in ("blocker", "queued", "late")}
    results = {}

    def listener(event):
        results[event.job_id] = getattr(event, "retval", None)
        if event.code == EVENT_JOB_EXECUTED or event.job_id == "late":
            ended[event.job_id].set()

    def blocker():
        begun.set()
        go.wait(5)

    class Frozen:
        """A Baton whose loss nobody has told yet."""
        executor = True

        def may_start(self):
            return self.executor

        def start(self, on_promote, on_demote):
            on_promote(Promote(22, 60.0))

        def busy(self, count):
            submitted.release()

        def stop(self):
            pass

    submitted, frozen = threading.Semaphore(0), Frozen()
    scheduler = Scheduler(timezone="UTC", executors={
        "default": {"type": "threadpool", "max_workers": 1}})
    scheduler.add_listener(listener, EVENT_JOB_EXECUTED | EVENT_JOB_SUBMITTED)
    scheduler.add_job(blocker, id="blocker", misfire_grace_time=None)
    attachment = attach(scheduler, frozen, claims=False)
    check(begun.wait(5), "the first job did not run")
    scheduler.add_job(lambda: ran.append("queued"), id="queued", misfire_grace_time=None)
    check(submitted.acquire(timeout=5) and submitted.acquire(timeout=5), "not submitted")
    frozen.executor = False
    scheduler.add_job(lambda: ran.append("late"), id="late", misfire_grace_time=None)
    check(ended["late"].wait(5), "not submitted")
    go.set()
    check(ended["queued"].wait(5), "not ended")
    equal((ran, results["queued"], attachment.dropped), ([], DROPPED, 2))
    attachment.close()
    end(scheduler)


@test("an AsyncIOScheduler that was started paused")
def _():
    Scheduler = apscheduler("asyncio.AsyncIOScheduler")
    from baton.apscheduler import attach
    import asyncio

    with World() as w, w.open() as b:
        async def program():
            ran = asyncio.Event()

            async def job():
                ran.set()

            scheduler = Scheduler(timezone="UTC")
            scheduler.add_job(job, misfire_grace_time=None)
            scheduler.start(paused=True)
            attachment = attach(scheduler, b, claims=False)
            w.promote(23)
            await asyncio.wait_for(ran.wait(), 5)
            said = [await asyncio.to_thread(w.hear) for _ in range(4)]
            equal(sorted(said), ["busy 0", "busy 1", "hello", "promoted 23"])
            await asyncio.to_thread(attachment.close)
            end(scheduler)

        asyncio.run(program())


@test("an attached scheduler that runs already is paused until it is promoted")
def _():
    Scheduler = apscheduler()
    from baton.apscheduler import attach
    ran = threading.Event()
    with World() as w:
        os.environ.update(w.environ)
        scheduler = Scheduler(timezone="UTC")
        scheduler.start()
        attachment = attach(scheduler, claims=False)      # from the environment
        for name in w.environ:
            del os.environ[name]
        equal(w.hear(), "hello")
        scheduler.add_job(ran.set, misfire_grace_time=None)
        equal(scheduler.state, STATE_PAUSED)
        w.promote(24)
        check(ran.wait(5), "it did not run")
        attachment.close()
        end(scheduler)


class Clerk(threading.Thread):
    """Reads what the worker says and answers its claims: each once."""

    def __init__(self, w):
        super().__init__(daemon=True)
        self.w, self.lines, self.taken, self.begun = w, [], set(), threading.Event()
        self.start()

    def run(self):
        while True:
            try:
                line = self.w.hear()
            except (OSError, AssertionError):
                return
            self.lines.append(line)
            if line.startswith("claim "):
                text = line[6:]
                self.w.tell(("refused " if text in self.taken else "claimed ") + text)
                self.taken.add(text)
                self.begun.set()


@test("claims: from any thread, with the listener thread or without; what is not answered is not run")
def _():
    import datetime
    when = datetime.datetime(2027, 3, 28, 2, 30, tzinfo=datetime.timezone.utc)
    with World() as w, w.open() as b:
        equal(b.claim("nightly", when), False)      # not the executor: nobody is asked
        w.hears_nothing()
        b.listen()
        equal(w.hear(), "hello")
        w.promote(30)
        clerk = Clerk(w)
        equal((b.claim("nightly", when), b.claim("nightly", when)), (True, False))
        equal(clerk.lines[0], "claim nightly 1806201000000000")
        equal((b.next_event().term, b.next_event()), (30, None))    # it came before the answer
        equal(b.claim("with blanks, 100%", 7), True)
        equal(clerk.lines[-1], "claim with%20blanks,%20100%25 7")
        for wrong in (datetime.datetime(2027, 1, 1), -1, 1.5, None):
            try:
                b.claim("x", wrong)
                check(False, f"{wrong!r} was taken for a time")
            except ValueError:
                pass
        for wrong in ("", "x" * 128):
            try:
                b.claim(wrong, 1)
                check(False, f"{wrong!r} was taken for a name")
            except ValueError:
                pass
        b.start()
        results = []
        threads = [threading.Thread(target=lambda i=i: results.append(b.claim(f"job {i % 50}", i)))
                   for i in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        equal(results, [True] * 100)
        b.stop()
    with World() as w, w.open() as b:
        b.start()
        w.promote(31)
        try:
            b.claim("nightly", 1, timeout=0.05)
            check(False, "an answer that never came")
        except baton.BatonError as error:
            check("too late" in str(error), str(error))
        w.tell("claimed nightly 1")                  # too late, for nobody
        w.ours.close()
        try:
            b.claim("nightly", 1, timeout=10)
            check(False, "an answer of nobody")
        except baton.BatonError as error:
            check("gone" in str(error) or "does not read" in str(error), str(error))
        w.ours = w.theirs.dup()


@test("APScheduler: a firing that another worker has claimed is not run")
def _():
    Scheduler = apscheduler()
    import datetime
    from baton.apscheduler import attach, job_name
    ran, at = [], datetime.datetime.now(datetime.timezone.utc)
    done = threading.Event()
    with World() as w, w.open() as b:
        clerk = Clerk(w)
        stamp = (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) \
            // datetime.timedelta(microseconds=1)
        clerk.taken.add(f"second {stamp}")
        scheduler = Scheduler(timezone="UTC")
        for name in ("first", "second"):
            scheduler.add_job(ran.append, "date", run_date=at, args=[name], id=name,
                              misfire_grace_time=None)
        scheduler.add_listener(lambda event: event.job_id == "last" and done.set())
        attachment = attach(scheduler, b)
        w.promote(32)
        check(clerk.begun.wait(5), "nothing was claimed")
        wait_until(lambda: attachment.dropped == 1 and ran == ["first"], 5)
        check(f"claim first {stamp}" in clerk.lines, clerk.lines)
        attachment.close()
        end(scheduler)
    two = [Scheduler(), Scheduler()]
    for each in two:
        each.add_job(print, "cron", hour=3, args=["x"])
        each.add_job(print, "cron", hour=4, args=["x"])
    names = [[job_name(job) for job in each.get_jobs()] for each in two]
    equal(names[0], names[1], "names of jobs that have no id")
    check(names[0][0] != names[0][1], "two jobs of one name")


GRANDCHILD = """
import os, signal, threading
import baton

ours = baton.Baton.from_environ()
ours.ready()
if os.fork() == 0:      # as gunicorn's workers are: it speaks, its parent does not
    def promote(event):
        assert ours.is_executor() and ours.term == event.term and ours.lease_left() > 0
        ours.busy(0)
        print("promoted", event.term, flush=True)

    ours.start(on_promote=promote,
               on_demote=lambda event: print("demoted", event.reason, flush=True))
    threading.Event().wait()
signal.sigwait([signal.SIGTERM])
"""


@test("under the real supervisor, in a grandchild")
def _():
    if not os.path.exists(BATON):
        skip("build/baton is not built (make)")
    program = os.path.join(folder(), "program.py")
    with open(program, "w", encoding="utf-8") as file:
        file.write(GRANDCHILD)
    one = Instance(f"""
        [scheduler]
        ttl = 5s
        heartbeat = 500ms
        kill_grace = 500ms
        [program:web]
        command = {sys.executable} {program}
        environment = PYTHONPATH="{os.path.abspath(PACKAGES)}"
        workers = 2
        startsecs = 0
        ready = notify
        executor = candidate
    """)
    one.wait_for("executor", 10)
    term = one.term()
    one.wait_log(rf"promoted {term}\b", 5)
    # Who has not answered is not asked to stop first, but stopped.
    wait_until(lambda: one.status()["executors"][0]["answered"], 5)
    one.stop()
    one.wait_log("demoted shutdown", 1)


if __name__ == "__main__":
    signal.alarm(60)
    main()

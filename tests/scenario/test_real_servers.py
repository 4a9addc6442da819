#!/usr/bin/python3
"""gunicorn and uvicorn, unmodified, with an APScheduler in each worker: a job each second, counted.

The accounting: through kills of the executor, reloads and the replacement of the whole supervisor no
second has two runs, and at most one second per kill has none.
"""
import collections
import os
import random
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

SEED = int(os.environ.get("SEED", time.time_ns() % 1000000))

APP = '''
import os, time
from apscheduler.schedulers.background import BackgroundScheduler

RUNS = os.environ["RUNS"]

def job():
    now = time.time()
    fd = os.open(RUNS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, b"%d %f %d\\n" % (round(now), now, os.getpid()))
    os.close(fd)

def make():
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(job, "cron", second="*", misfire_grace_time=None, coalesce=True)
    return scheduler

scheduler = make()
if os.environ.get("HOW") == "if":
    if os.environ.get("BATON_EXECUTOR") == "1":
        scheduler.start()
else:
    from baton.apscheduler import attach
    attachment = attach(scheduler)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
'''

INI = """
    [scheduler]
    database = {db}
    ttl = 6s
    heartbeat = 1s
    kill_grace = 1s
    promote_backoff = 0
    [socket:http]
    listen = unix:{name}.http
    [program:web]
    command = {python} -m {command}
    preset = {preset}
    directory = {folder}
    environment = RUNS="{folder}/runs",PYTHONPATH="{client}",PYTHONDONTWRITEBYTECODE="1"{more}
    workers = {workers}
    sockets = http
    executor = candidate
    {lines}
"""


def ini(folder, command, preset, name="one", workers=4, more="", lines=""):
    with open(os.path.join(folder, "app.py"), "w", encoding="ascii") as f:
        f.write(APP)
    return INI.format(db=os.path.join(folder, "lock.db"), folder=folder, python=PYTHON,
                      command=command, preset=preset, workers=workers, name=name, more=more,
                      client=os.path.join(ROOT, "contrib", "python"), lines=lines)


def runs(folder):
    """[second] as the jobs wrote them."""
    try:
        with open(os.path.join(folder, "runs"), encoding="ascii") as f:
            return [int(line.split()[0]) for line in f]
    except FileNotFoundError:
        return []


def wait_runs(folder, count, timeout=20):
    """COUNT more runs."""
    before = len(runs(folder))
    wait_until(lambda: len(runs(folder)) >= before + count, timeout, f"{count} more runs")


def account(folder, kills, what):
    seconds = collections.Counter(runs(folder))
    first, last = min(seconds), max(seconds)
    twice = [s for s, n in seconds.items() if n > 1]
    missing = [s for s in range(first, last + 1) if s not in seconds]
    print(f"# {what}: {last - first + 1} seconds, {len(missing)} without a run, {kills} kills, "
          f"seed {SEED}", flush=True)
    equal(twice, [], "seconds with two runs")
    check(len(missing) <= kills, f"{len(missing)} seconds without a run ({missing}), {kills} kills")


def need_python(module):
    if os.system(f"{PYTHON} -c 'import {module}' 2>/dev/null") != 0:
        skip(f"{PYTHON} has no module {module}")


def kill_executor(one):
    row = one.executor()
    os.kill(row["pid"], signal.SIGKILL)
    one.wait_for(f"term>{row['term']}", 20)


def settled(one):
    one.wait_for("ready=web", 40)
    one.wait_for("executor", 20)


@test("gunicorn and APScheduler: 5 kills, 2 reloads, 1 restart of the supervisor, counted")
def _():
    need_python("gunicorn")
    need_python("apscheduler")
    random.seed(SEED)
    where = folder()
    one = Instance(ini(where, "gunicorn app:app", "gunicorn"), folder=where)
    settled(one)
    wait_runs(where, 2)
    for i in range(5):
        settled(one)
        kill_executor(one)
        wait_runs(where, 1 + random.randrange(2))
        if i in (1, 3):
            settled(one)
            one.send_signal(signal.SIGHUP)
            one.wait_log(r"event=program.note .*every worker is of the new version", 60, one.mark())
    settled(one)
    two = Instance(ini(where, "gunicorn app:app", "gunicorn", "two"), name="two", folder=where)
    two.wait_for("role=standby", 10)
    two.wait_for("ready=web", 40)
    one.stop(timeout=40)
    two.wait_for("executor", 10)
    wait_runs(where, 2)
    two.stop(timeout=40)
    account(where, 5, "gunicorn")


@test("gunicorn's own worker dies: the one that comes later goes on with the lease")
def _():
    need_python("gunicorn")
    need_python("apscheduler")
    where = folder()
    one = Instance(ini(where, "gunicorn app:app", "gunicorn", workers=2), folder=where)
    settled(one)
    wait_runs(where, 1)
    row = one.executor()
    children = open(f"/proc/{row['pid']}/task/{row['pid']}/children", encoding="ascii").read().split()
    check(len(children) == 1, f"gunicorn should have one worker: {children}")
    os.kill(int(children[0]), signal.SIGKILL)
    wait_runs(where, 2)
    equal(one.executor()["term"], row["term"], "term")
    one.stop(timeout=40)
    account(where, 2, "grandchild")


@test("gunicorn with promote = respawn and one if")
def _():
    need_python("gunicorn")
    need_python("apscheduler")
    where = folder()
    one = Instance(ini(where, "gunicorn app:app", "gunicorn", workers=3, more=',HOW="if"',
                       lines="promote = respawn"), folder=where)
    settled(one)
    wait_runs(where, 2)
    equal(sum(w["restarts"] for w in one.workers("web")), 0, "restarts before any kill")
    for _ in range(2):
        settled(one)
        others = {w["pid"] for w in one.workers("web")} - {one.executor()["pid"]}
        kill_executor(one)
        wait_runs(where, 1)
        settled(one)
        left = {w["pid"] for w in one.workers("web")}
        check(others <= left, f"healthy workers were stopped: {others - left}")
    one.stop(timeout=40)
    account(where, 4, "respawn")


@test("uvicorn and APScheduler: kills and a handoff, counted")
def _():
    need_python("uvicorn")
    need_python("apscheduler")
    where = folder()
    one = Instance(ini(where, "uvicorn app:asgi", "uvicorn"), folder=where)
    settled(one)
    wait_runs(where, 2)
    for _ in range(2):
        settled(one)
        kill_executor(one)
        wait_runs(where, 2)
    settled(one)
    one.call("handoff", 40, wait=True)
    wait_runs(where, 2)
    one.stop(timeout=40)
    account(where, 2, "uvicorn")


@test("every worker of both servers answers on the shared socket")
def _():
    need_python("gunicorn")
    need_python("uvicorn")
    for command, preset in (("gunicorn app:app", "gunicorn"), ("uvicorn app:asgi", "uvicorn")):
        where = folder()
        text = re.sub(r"listen = .*", "listen = 127.0.0.1:0", ini(where, command, preset, workers=2))
        one = Instance(text, folder=where)
        settled(one)
        answered = set()

        def all_answered(url=one.url(), seen=answered):
            seen.add(http_get(url)[1])
            return len(seen) == 2
        wait_until(all_answered, 20, f"both workers of {preset}")
        one.stop(timeout=40)


if __name__ == "__main__":
    main()

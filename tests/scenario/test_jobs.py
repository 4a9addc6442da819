#!/usr/bin/python3
"""The built-in job worker: firings, overlap, ends, output, a reload."""
import collections
import os
import pwd
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *
from jobs import *


# --- firings -----------------------------------------------------------------------------------
@test("a job fires on the second, with its environment, output in the log and in the history")
def _():
    one = instance("""
        [job:tick]
        schedule = * * * * * *
        command = echo "$BATON_JOB $BATON_FIRE_TIME $BATON_ATTEMPT $GREETING"; env >env; read x || echo no input
        environment = GREETING="good day"
        """)
    wait_runs(one, "tick", 3, "ok")
    rows = runs(one, "tick")[:3]
    for a, b in zip(rows, rows[1:]):
        equal(b.fire - a.fire, 1_000_000, "distance of two firings")
    for r in rows:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(r.fire / 1e6))
        equal(r.output.decode(), f"tick {when} 1 good day\nno input\n", "kept output")
        check(r.fire <= r.started < r.fire + 1_000_000, f"started {r.started - r.fire} us late")
        one.wait_log(f"^tick \\| tick {when} 1 good day$")
    found = dict(l.split("=", 1) for l in lines(one.path("env")) if "=" in l)
    equal(found["BATON_TERM"], str(one.executor("jobs")["term"]), "BATON_TERM")
    for name in ("BATON_CHANNEL_FD", "BATON_LEASE_FD", "NOTIFY_SOCKET", "BATON_WORKER"):
        check(name not in found, f"{name} is passed on to a job")


@test("the job worker is hidden: not in all, not to be stopped or scaled; shown as executor")
def _():
    one = instance("""
        [program:web]
        command = sleep 1000
        [job:never]
        schedule = @yearly
        command = true
        """)
    one.wait_for("executor", 10)
    equal(one.executor("jobs")["worker"], "jobs:0", "executor of jobs")
    equal([w["name"] for w in one.call("stop", targets=["all"], wait=True)["workers"]], ["web:0"], "all")
    for command in (("stop", "jobs"), ("restart", "jobs"), ("scale", "jobs", "2")):
        answer = one.cli(*command)
        equal(answer.status, 4, " ".join(command))
        check("built-in job worker" in answer.err, answer.err)
    wait_until(lambda: "1 job, 0 running, 0 queued" in one.cli("status").out, 5, "its status")
    equal(one.cli("status", "--health").status, 0, "health")
    with one.control() as c:    # the document has environments in it: for the job worker only
        try:
            c.call("jobs-config")
            raise Failed("a stranger was given the jobs")
        except ControlError as e:
            equal(e.code, "refused", "jobs-config")


@test("overlap: skip, queue, replace, allow")
def _():
    more = "\n".join(f"[job:{o}]\nschedule = * * * * * *\noverlap = {o}\ncommand = exec sleep 2.5\n"
                     "stopwaitsecs = 1" for o in ("skip", "queue", "replace", "allow"))
    one = instance(f"[jobs]\nmax_running = 40\n{more}\n")
    wait_runs(one, "skip", 2, "ok")
    wait_runs(one, "allow", 3, "ok")
    wait_runs(one, "queue", 2, "ok")
    wait_runs(one, "replace", 3, "replaced")
    status = lambda job: [r.status for r in runs(one, job)]
    check(status("skip")[:4] == ["ok", "skipped", "skipped", "ok"], f"skip: {status('skip')}")
    check(set(status("allow")) <= {"ok", "running"}, f"allow: {status('allow')}")
    check("skipped" not in status("queue") and "queued" in status("queue"), f"queue: {status('queue')}")
    check(set(status("replace")) <= {"replaced", "running", "queued"}, f"replace: {status('replace')}")
    began = [r for r in runs(one, "queue") if r.ended]
    for a, b in zip(began, began[1:]):
        check(b.started >= a.ended, "two of a queue ran at the same time")


@test("user, directory, umask, limits, niceness of a job; what waited has a beginning once it runs")
def _():
    if os.getuid() != 0:
        skip("only root can run a job as another user")
    one = instance("""
        [job:other]
        schedule = @promotion
        user = nobody
        directory = /usr
        umask = 027
        rlimit_nofile = 77
        nice = 5
        environment = HOME="/nowhere"
        command = id -un; pwd; umask; ulimit -n; nice; echo $USER $HOME; kill -STOP $$; true
        [job:queue]
        schedule = * * * * * *
        overlap = queue
        command = exec sleep 1.3
        """)
    row = wait_until(lambda: has_table(one) and runs(one, "other"), 10, "the run")[0]
    pid = wait_until(lambda: pids_of("kill -STOP"), 10, "its process")[0]
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        status = dict(l.rstrip("\n").split(":\t", 1) for l in f if ":\t" in l)
    equal((status["Uid"].split()[0], status["Umask"]), (str(pwd.getpwnam("nobody").pw_uid), "0027"), "while it runs")
    equal(os.readlink(f"/proc/{pid}/cwd"), "/usr", "its directory")
    wait_until(lambda: state_of(pid) == "T", 5, "its stop")
    os.kill(pid, signal.SIGCONT)
    row = wait_runs(one, "other", 1, "ok")[0]
    equal(row.output.decode().split("\n")[:6], ["nobody", "/usr", "0027", "77", "5", "nobody /nowhere"], "output")
    waited = wait_until(lambda: [r for r in runs(one, "queue")[1:] if r.status == "running"], 10, "a run that waited")
    check(waited[0].started and waited[0].started > waited[0].fire, f"began {waited[0].started}")


# --- ends --------------------------------------------------------------------------------------
@test("timeout: TERM, then KILL, of the whole tree, also of what left its session")
def _():
    one = instance("""
        [job:stubborn]
        schedule = @promotion
        timeout = 500ms
        stopwaitsecs = 1
        command = trap '' TERM; sleep 3001 & setsid sleep 3002 & (setsid sh -c 'trap "" TERM; sleep 3003' &); echo on; sleep 3004; sleep 3005
        [job:polite]
        schedule = @promotion
        timeout = 500ms
        command = trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done
        """)
    stubborn = wait_runs(one, "stubborn", 1, "timeout")[0]
    polite = wait_runs(one, "polite", 1, "timeout")[0]
    check(1_400_000 < stubborn.ended - stubborn.started < 4_000_000, "TERM, a second, KILL")
    equal(stubborn.signal, 9, "signal")
    check(polite.output.endswith(b"bye\n"), "a command may end in its own way")
    equal(pids_of("sleep 300"), [], "left of it")


@test("a command that forks and leaves: over when its main process is, what it left is killed")
def _():
    one = instance("""
        [job:daemon]
        schedule = @promotion
        command = sleep 3001 & (setsid sleep 3002 &); setsid nohup sleep 3003 >/dev/null 2>&1 & exec sleep 0.3
        [job:hides]
        schedule = @promotion
        command = (env -i setsid sh -c 'sleep 33.4 & touch hidden' &); until test -e hidden; do sleep 0.1; done
        [job:other]
        schedule = @promotion
        command = (setsid sleep 3.3 &); exec sleep 1.5
        """)
    row = wait_runs(one, "daemon", 1)[0]
    equal((row.status, row.code), ("ok", 0), "status")
    equal(pids_of("sleep 300"), [], "left behind")
    check(pids_of("sleep 3.3"), "another job's process was killed with it")
    equal(wait_runs(one, "hides", 1)[0].status, "ok", "status")
    check(pids_of("sleep 33.4"), "whose it is cannot be told while others run")
    wait_runs(one, "other", 1)
    equal(pids_of("sleep 3.3") + pids_of("sleep 33.4"), [], "left behind when nothing runs")


@test("retries with backoff, then on_failure; what cannot be started says why")
def _():
    one = instance("""
        [job:flaky]
        schedule = @promotion
        retries = 2
        retry_backoff = 200ms
        command = echo $BATON_ATTEMPT >>tries; test $BATON_ATTEMPT = 3 || exit 7
        on_failure = echo never >failed-flaky
        [job:hopeless]
        schedule = @promotion
        retries = 1
        retry_backoff = 100ms
        command = kill -SEGV $$
        on_failure = echo "$BATON_JOB $BATON_STATUS $BATON_EXIT $BATON_ATTEMPT" >failed
        [job:missing]
        schedule = * * * * * *
        shell = no
        command = ./vanishes --now
        """, start=False)
    with open(one.path("vanishes"), "w", encoding="ascii") as f:
        f.write("#!/bin/sh\n")
    os.chmod(f.name, 0o755)
    one.start()
    os.unlink(f.name)       # it was there when the file was checked
    wait_runs(one, "flaky", 1, "ok")
    equal([(r.attempt, r.status, r.code, r.cause) for r in runs(one, "flaky")],
          [(1, "failed", 7, "promotion"), (2, "failed", 7, "retry"), (3, "ok", 0, "retry")], "flaky")
    equal(lines(one.path("tries")), ["1", "2", "3"], "attempts")
    first, second, third = runs(one, "flaky")
    check(second.started - first.ended >= 200_000, "backoff")
    check(third.started - second.ended >= 400_000, "backoff doubles")
    wait_runs(one, "hopeless", 2, "killed")
    wait_until(lambda: lines(one.path("failed")), 5, "on_failure")
    equal(lines(one.path("failed")), ["hopeless killed 139 2"], "on_failure")
    check(not os.path.exists(one.path("failed-flaky")), "on_failure ran after a success")
    row = wait_runs(one, "missing", 1, "not started")[0]
    equal(row.reason, "cannot execute './vanishes': No such file or directory", "missing")
    one.wait_log("jobs \\| missing could not be started")


@test("output: the last of it is kept, whole lines are passed on, bytes are bytes")
def _():
    one = instance(r"""
        [job:much]
        schedule = @promotion
        output_keep = 1KB
        command = seq 1 5000
        [job:bytes]
        schedule = @promotion
        command = printf 'a\000b\377\n'; printf 'no newline'
        [job:none]
        schedule = @promotion
        output_keep = 0
        command = echo unkept
        """)
    whole = "".join(f"{n}\n" for n in range(1, 5001)).encode()
    equal(wait_runs(one, "much", 1)[0].output, whole[-1024:], "kept output")
    for n in (1, 2500, 5000):
        one.wait_log(f"^much \\| {n}$")
    equal(wait_runs(one, "bytes", 1)[0].output, b"a\0b\xff\nno newline", "bytes")
    one.wait_log("^bytes \\| no newline$")
    check(not wait_runs(one, "none", 1)[0].output, "kept in spite of output_keep = 0")


@test("a job that writes without end fills no memory and stops no other")
def _():
    size = 1 << 30 if SOAK else 192 << 20
    one = instance(f"""
        [job:writer]
        schedule = @promotion
        command = head -c {size} /dev/zero
        [job:lines]
        schedule = @promotion
        command = yes | head -n 3000000
        [job:tick]
        schedule = * * * * * *
        command = true
        """, prefix=("sh", "-c", 'exec "$@" >/dev/null', "sh"))
    worker = one.wait_for("executor", 10) and one.executor("jobs")["pid"]
    wait_runs(one, "tick", 2, "ok", 30)
    wait_runs(one, "writer", 1, "ok", 90)
    wait_runs(one, "lines", 1, "ok", 90)
    with open(f"/proc/{worker}/status", encoding="ascii") as f:
        peak = int(re.search(r"VmHWM:\s*(\d+)", f.read())[1])
    limit = 600_000 if "san-" in BUILD else 24_000
    check(peak < limit, f"the job worker took {peak} KiB")


# --- reload ------------------------------------------------------------------------------------
@test("a reload is live: what runs goes on, new jobs fire, a job taken out while it runs ends in peace")
def _():
    both = """
        [job:long]
        schedule = @promotion
        command = echo $$ >pid; while ! test -e go; do sleep 0.05; done; echo done
        [job:out]
        schedule = @promotion
        command = while ! test -e go; do sleep 0.05; done; echo done
        """
    one = instance(both)
    wait_until(lambda: lines(one.path("pid")), 10, "long runs")
    wait_runs(one, "out", 1, "running")
    pid, worker = lines(one.path("pid"))[0], one.executor("jobs")["pid"]
    one.write(QUICK + """
[job:long]
schedule = * * * * * *
overlap = skip
command = echo new
[job:added]
schedule = * * * * * *
command = echo added
""")
    one.call("reload", wait=True)
    wait_runs(one, "added", 2, "ok")
    equal(one.executor("jobs")["pid"], worker, "the job worker")
    check(command_of(int(pid)), "a running job was cut off")
    wait_runs(one, "long", 1, "skipped")
    with open(one.path("go"), "w", encoding="ascii"):
        pass
    equal(wait_runs(one, "out", 1, "ok")[0].output, b"done\n", "out")
    wait_runs(one, "long", 2, "ok")
    equal([r.output for r in runs(one, "long") if r.status == "ok"][:2], [b"done\n", b"new\n"], "long")


@test("a reload that takes all jobs out: what was queued is cancelled, what runs may finish")
def _():
    one = instance("""
        [job:slow]
        schedule = * * * * * *
        overlap = queue
        command = sleep 1.5; echo done
        """)
    wait_runs(one, "slow", 1, "queued")
    one.write(QUICK + "[program:web]\ncommand = sleep 1000\nexecutor = candidate\n")
    one.call("reload", wait=True)
    wait_until(lambda: not [r for r in runs(one) if r.status in ("queued", "running")], 10, "an end of all")
    statuses = collections.Counter(r.status for r in runs(one))
    check(statuses["cancelled"] >= 1 and set(statuses) == {"ok", "cancelled"}, str(statuses))
    wait_until(lambda: not one.executor("jobs"), 10, "the end of the job worker")
    gone = time.time()
    wait_until(lambda: time.time() > gone + 2.1, 5, "two firings that are nobody's")
    back = int((time.time() - 1) * 1e6)
    one.write(QUICK + "[program:web]\ncommand = sleep 1000\nexecutor = candidate\n"
              "[job:slow]\nschedule = * * * * * *\nmissed = all\ncommand = true\n")
    one.call("reload", wait=True)
    wait_runs(one, "slow", statuses["ok"] + 2, "ok")
    equal([r for r in runs(one) if gone * 1e6 < r.fire < back], [], "firings while it was in no file")


@test("a schedule that was changed over a restart counts from then on: nothing of it was missed")
def _():
    text = """
        [job:tick]
        schedule = * * * * * *
        command = true
        [job:other]
        schedule = {}
        timezone = UTC
        missed = all
        command = true
        """
    one = instance(text.format("* * * * * *"))
    wait_runs(one, "other", 1, "ok")
    one.stop()
    before = len(runs(one, "other"))
    last = runs(one, "other")[-1].fire / 1e6
    past = time.gmtime(last + 1)
    wait_until(lambda: time.time() > last + 1.2, 5, "a time that has passed since the last firing")
    one.write(QUICK + textwrap.dedent(text.format(f"{past.tm_sec} {past.tm_min} {past.tm_hour} * * *")))
    one.start()
    wait_runs(one, "tick", len(runs(one, "tick")) + 3, "ok")
    equal([r.cause for r in runs(one, "other")[before:]], [], "runs of the new schedule")


if __name__ == "__main__":
    main()

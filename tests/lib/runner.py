#!/usr/bin/python3
"""Builds everything and runs every test program; called by tests/run.sh. Stdlib only.

    runner.py [PATTERN...]     only the programs whose name contains a PATTERN

Each program has its own session, TMPDIR and mark (BATON_TEST_ID), a bounded time, and a log in
build/test-logs. What it leaves behind, processes or files, is a failure. The last line printed is
`N passed, N failed`, with `, N skipped` when there are some, over all tests of all programs.

Environment: JOBS (side by side), BATON_TEST_TIMEOUT (seconds per program), BATON_SOAK.
A program with a line `runner: alone` in its first 40 lines runs with no other beside it.
"""

import collections
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build")
SAN = os.path.join(BUILD, "san-address-undefined")
LOGS = os.path.join(BUILD, "test-logs")
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
SOAK = bool(os.environ.get("BATON_SOAK"))
TIMEOUT = float(os.environ.get("BATON_TEST_TIMEOUT") or (7200 if SOAK else 120))
CPUS = len(os.sched_getaffinity(0))
JOBS = int(os.environ.get("JOBS") or max(2, min(4, CPUS + 1)))  # scenarios mostly wait
SHOWN = 60  # lines of one failure that are printed

RESULT = re.compile(r"^(not ok|ok)\b\s*\d*\s*(?:-\s*)?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#\s*(?:SKIP)?\s*(.*))?$")
SECONDS = re.compile(r"^# (\d+\.\d+) s$")

# About how many seconds, before the first run on a machine has told: the longest begin.
GUESS = {"scenario/test_chaos": 90, "scenario/test_load": 40, "scenario/test_real_servers": 45,
         "scenario/test_takeover": 30, "scenario": 10, "fault": 30, "sim": 15, "san/sim": 30, "san/unit": 3, "unit": 1}

Program = collections.namedtuple("Program", "name command build env alone")
base = None  # of the programs' TMPDIRs
running = {}  # name -> Popen
lock = threading.Lock()
starting = threading.Lock()  # a program that is being started is no orphan


def say(text):
    with lock:
        print(text, flush=True)


# --- output of one program ---------------------------------------------------------------------
class Tap:
    """Counts of one program's output; failures and skips with what was said about them."""

    def __init__(self, lines):
        self.passed, self.failures, self.skips, self.times = 0, [], [], []
        planned, seen, before, current = None, 0, [], None
        name = ""
        for line in lines:
            plan, result, took = PLAN.match(line), RESULT.match(line), SECONDS.match(line)
            if plan:
                planned = (planned or 0) + int(plan[1])
                if plan[1] == "0" and plan[2]:
                    self.skips.append(("all of it", plan[2]))
                continue
            if took and name:
                self.times.append((float(took[1]), name))
                continue
            if not result:
                if line.startswith("Bail out!"):
                    self.failures.append(("bail out", [line]))
                (before if current is None else current).append(line)
                continue
            seen, current = seen + 1, None
            name, skip, reason = re.split(r"(#\s*SKIP\b)", result[2], maxsplit=1)[:3] \
                if "SKIP" in result[2] else (result[2], "", "")
            name = name.strip(" -")
            if skip:
                # cmocka names the test where others give the reason, which it prints before.
                reason = reason.strip()
                if not name:
                    name, reason = reason, (before[-1] if before else "no reason given")
                self.skips.append((name, reason or "no reason given"))
            elif result[1] == "ok":
                self.passed += 1
            else:
                current = list(before[-30:])
                self.failures.append((name, current))
            before = []
        self.complaint = None
        if planned is None:
            self.complaint = "printed no plan"
        elif seen != planned:
            self.complaint = f"planned {planned} tests, told of {seen}"


libc = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """What loses its parent below this process becomes its child, not init's. Survives exec."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def marked(mark, session):
    """Processes of an ended test program that live: by its mark, by its session, or, since helpers
    of baton have an environment and a session of their own, as orphans that came to us."""
    with starting:
        return marked_now(f"BATON_TEST_ID={mark}".encode(), session)


def marked_now(needle, session):
    found, me = [], os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == me:
            continue
        pid = int(entry)
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as f:
                fields = f.read().rpartition(")")[2].split()
            orphan = int(fields[1]) == me and all(p.pid != pid for p in list(running.values()))
            if fields[0] in "ZX":
                if orphan and fields[0] == "Z":
                    os.waitpid(pid, os.WNOHANG)
                continue
            if int(fields[3]) != session and not orphan:
                with open(f"/proc/{entry}/environ", "rb") as f:
                    if needle not in f.read().split(b"\0"):
                        continue
            found.append(pid)
        except (OSError, IndexError):
            continue
    return found


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def leftovers(mark, session, patience):
    """Complaints about processes still there after PATIENCE seconds; they are killed."""
    end = time.monotonic() + patience
    pids = marked(mark, session)
    while pids and time.monotonic() < end:
        time.sleep(0.02)
        pids = marked(mark, session)
    complaints = [f"left running: pid {p} ({command_of(p)})" for p in pids]
    for _ in range(50):
        kill(pids)
        pids = marked(mark, session)
        if not pids:
            break
        time.sleep(0.02)
    return complaints


# --- running -----------------------------------------------------------------------------------
def start(program, mark, folder, log):
    env = {**os.environ, **program.env, "BATON_BUILD": program.build, "BATON_TEST_ID": mark,
           "TMPDIR": folder, "CMOCKA_MESSAGE_OUTPUT": "TAP", "BATON_TEST_TIMEOUT": str(TIMEOUT),
           "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(program.command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                            preexec_fn=adopt_orphans)


def run(program):
    """One program to its end: (Tap, complaints, seconds)."""
    mark = f"{os.getpid()}-{program.name.replace('/', '-')}"
    folder = tempfile.mkdtemp(prefix="", dir=base)
    os.chmod(folder, 0o755)
    path = os.path.join(LOGS, program.name.replace("/", "-") + ".log")
    begin, complaints = time.monotonic(), []
    with open(path, "wb") as log:
        with starting:
            process = running[program.name] = start(program, mark, folder, log)
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            complaints.append(f"still running after {TIMEOUT:.0f} s: killed")
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        running.pop(program.name, None)
    seconds = time.monotonic() - begin
    left = leftovers(mark, process.pid, 0 if complaints else 3)
    if not complaints:
        complaints += left
        complaints += [f"left a file: {name}" for name in sorted(os.listdir(folder))[:20]]
    shutil.rmtree(folder, ignore_errors=True)
    with open(path, encoding="utf-8", errors="replace") as log:
        tap = Tap(log.read().splitlines())
    if not complaints:
        if status < 0:
            complaints.append(f"ended by signal {-status}")
        elif tap.complaint:
            complaints.append(f"{tap.complaint}, exit status {status}")
        elif status != 0 and not tap.failures:
            complaints.append(f"exit status {status}")
    with open(path, "a", encoding="utf-8") as log:
        log.write(f"\n== {program.name}: {seconds:.3f} s\n")
        for took, name in sorted(tap.times, reverse=True):
            log.write(f"== {took:9.3f} s  {name}\n")
        for complaint in complaints:
            log.write(f"== {complaint}\n")
    return tap, complaints, seconds


class Totals:
    def __init__(self):
        self.passed = self.failed = 0
        self.skips, self.seconds = [], {}

    def add(self, name, tap, complaints, seconds):
        failed = len(tap.failures) + bool(complaints)
        with lock:
            self.passed += tap.passed
            self.failed += failed
            self.skips += [(name, *s) for s in tap.skips]
            self.seconds[name] = seconds
        text = f"{tap.passed} passed" + (f", {failed} failed" if failed else "") + (
            f", {len(tap.skips)} skipped" if tap.skips else "")
        lines = [f"{'FAIL' if failed else 'ok  '}  {name:<44} {text:<32} {seconds:7.2f} s"]
        for what, said in tap.failures:
            lines += [f"      not ok: {what}", *(f"        {s}" for s in said[:SHOWN])]
            if len(said) > SHOWN:
                lines.append(f"        ({len(said) - SHOWN} lines more in the log)")
        for complaint in complaints:
            lines.append(f"      {complaint}")
        if complaints and not tap.failures:
            lines += [f"        | {s}" for s in tail(name)]
        if failed:
            lines.append(f"      log: build/test-logs/{name.replace('/', '-')}.log")
        say("\n".join(lines))

    def one(self, name, good, seconds, said=()):
        """A step that is no program: counts as one test."""
        tap = Tap(["1..1", ("ok" if good else "not ok") + " 1 - " + name, *said])
        self.add(name, tap, [], seconds)

    def skip(self, name, reason):
        self.skips.append((name, name, reason))
        say(f"skip  {name}: {reason}")


def tail(name):
    path = os.path.join(LOGS, name.replace("/", "-") + ".log")
    with open(path, encoding="utf-8", errors="replace") as log:
        lines = [s for s in log.read().splitlines() if not s.startswith("== ")]
    return [s for s in lines if s.strip()][-30:]


def run_all(programs, totals):
    known = {}
    try:
        with open(os.path.join(BUILD, "test-seconds.json"), encoding="ascii") as f:
            known = json.load(f)
    except (OSError, ValueError):
        pass

    def expected(name):
        return known.get(name) or GUESS.get(name) or GUESS.get(name.rpartition("/")[0], 1)

    # The longest first, so that none of them is alone at the end.
    programs = sorted(programs, key=lambda p: -expected(p.name))
    queue = collections.deque(p for p in programs if not p.alone)

    def work():
        while True:
            try:
                program = queue.popleft()
            except IndexError:
                return
            totals.add(program.name, *run(program))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(JOBS)]
    for t in threads:
        t.start()
    for t in threads:
        while t.is_alive():
            t.join(0.5)
    for program in programs:
        if program.alone:
            totals.add(program.name, *run(program))
    try:
        with open(os.path.join(BUILD, "test-seconds.json"), "w", encoding="ascii") as f:
            json.dump({**known, **{k: round(v, 2) for k, v in totals.seconds.items()}}, f)
    except OSError:
        pass


# --- building and finding ----------------------------------------------------------------------
def make(totals, name, *arguments):
    env = {k: v for k, v in os.environ.items()
           if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "BUILD", "CC", "SAN",
                        "DEV")}
    begin = time.monotonic()
    done = subprocess.run(["make", "-s", f"-j{CPUS + 1}", "-k", *arguments],
                          cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          check=False)
    out = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    with open(os.path.join(LOGS, name.replace("/", "-") + ".log"), "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
    totals.one(name, done.returncode == 0, time.monotonic() - begin, out)
    return done.returncode == 0


def is_alone(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return any("runner: alone" in line for _, line in zip(range(40), f))


def binaries(folder, build, prefix, env):
    found = []
    for part in ("unit", "sim"):
        where = os.path.join(ROOT, "tests", part)
        starts = "test_" if part == "unit" else "sim_"
        for source in sorted(os.listdir(where)) if os.path.isdir(where) else []:
            if not (source.startswith(starts) and source.endswith(".c")):
                continue
            name = source[:-2]
            found.append(Program(f"{prefix}{part}/{name}",
                                 [os.path.join(folder, "tests", part, name)], build, env,
                                 is_alone(os.path.join(where, source))))
    return found


def scripts():
    found = []
    for part in ("scenario", "fault"):
        where = os.path.join(ROOT, "tests", part)
        for source in sorted(os.listdir(where)) if os.path.isdir(where) else []:
            if source.startswith("test_") and source.endswith(".py"):
                path = os.path.join(where, source)
                found.append(Program(f"{part}/{source[:-3]}", [PYTHON, path], BUILD, {},
                                     is_alone(path)))
    return found


def sanitizer_env():
    """The leak checker needs ptrace, which some containers refuse."""
    probe = os.path.join(LOGS, "probe")
    leaks = "1"
    done = subprocess.run(["cc", "-fsanitize=address", "-x", "c", "-", "-o", probe], check=False,
                          input=b"int main(void){return 0;}", capture_output=True)
    if done.returncode != 0:
        return None, "0"
    if subprocess.run([probe], capture_output=True, check=False).returncode != 0:
        leaks = "0"
    os.unlink(probe)
    return {"ASAN_OPTIONS": f"detect_leaks={leaks}:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}, leaks


def build_all(totals, patterns):
    """All programs that could be built."""
    programs = []
    if not make(totals, "build/gcc", "DEV=1", "tests") and not os.path.exists(
            os.path.join(BUILD, "baton")):
        return programs
    programs += binaries(BUILD, BUILD, "", {}) + scripts()
    programs.append(Program("layers", ["sh", "tests/lib/layers.sh", BUILD], BUILD, {}, False))
    if patterns and not any("san" in p for p in patterns):
        return programs
    if shutil.which("clang") and not patterns:
        # For its warnings.
        make(totals, "build/clang", "DEV=1", "CC=clang", "CFLAGS=-O0", "BUILD=build/clang", "all")
    elif not patterns:
        totals.skip("build/clang", "clang is not installed")
    env, leaks = sanitizer_env()
    if env is None:
        totals.skip("build/sanitizers", "this compiler has none")
        return programs
    if leaks == "0":
        totals.skip("leak check", "not permitted here (ptrace)")
    make(totals, "build/sanitizers", "DEV=1", "SAN=address,undefined", "CFLAGS=-O1 -g1",
         "check-unit")
    return programs + [p for p in binaries(SAN, SAN, "san/", env)]


def stop_all():
    for process in list(running.values()):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def main():
    global base
    patterns = sys.argv[1:]
    os.makedirs(LOGS, exist_ok=True)
    counts_file = os.path.join(LOGS, "counts")
    if os.path.exists(counts_file):
        os.unlink(counts_file)
    # Short: UNIX sockets lie in it, and their paths have 107 bytes.
    base = tempfile.mkdtemp(prefix="bt", dir="/tmp")
    os.chmod(base, 0o755)
    totals, begin = Totals(), time.monotonic()
    try:
        programs = build_all(totals, patterns)
        adopt_orphans()
        if patterns:
            programs = [p for p in programs if any(x in p.name for x in patterns)]
        run_all(programs, totals)
    except KeyboardInterrupt:
        stop_all()
        totals.failed += 1
        say("interrupted")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    for name, test, reason in totals.skips:
        print(f"skipped: {name}: {test}: {reason}")
    print(f"in {time.monotonic() - begin:.0f} s; logs in build/test-logs")
    counts = f"{totals.passed} passed, {totals.failed} failed" + (
        f", {len(totals.skips)} skipped" if totals.skips else "")
    with open(counts_file, "w", encoding="ascii") as f:
        f.write(counts + "\n")
    print(counts, flush=True)
    sys.exit(1 if totals.failed or not totals.passed else 0)


if __name__ == "__main__":
    main()

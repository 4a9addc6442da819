"""What the election's scenario tests share: a configuration, the workers' log. Stdlib only."""

import collections

from harness import *  # noqa: F403

ACTOR = os.path.join(ROOT, "tests", "lib", "actor.py")

Line = collections.namedtuple("Line", "ns verb worker pid term instance rest")


def actor(log, *flags):
    """The command of a worker that writes to LOG (lib/actor.py says what FLAGS do)."""
    return " ".join([PYTHON, "-SE", ACTOR, log, *flags])


def program(command, name="web", workers=2, executor="candidate", more="", stop=1):
    return "\n".join([f"[program:{name}]", f"command = {command}", f"workers = {workers}",
                      f"executor = {executor}", "ready = notify", f"stopwaitsecs = {stop}",
                      textwrap.dedent(more).strip(), ""])


def scheduler(ttl="3s", heartbeat="300ms", grace="500ms", more=""):
    return "\n".join(["[scheduler]", f"ttl = {ttl}", f"heartbeat = {heartbeat}",
                      f"kill_grace = {grace}", "promote_backoff = 0",
                      textwrap.dedent(more).strip(), ""])


class Log:
    """The workers' log."""

    def __init__(self, path=None):
        self.path = path or os.path.join(folder(), "workers.log")
        open(self.path, "a", encoding="ascii").close()
        os.chmod(self.path, 0o666)

    def lines(self, verb=None, **fields):
        with open(self.path, encoding="ascii", errors="replace") as f:
            words = [(l.rstrip("\n").split(" ", 6) + [""])[:7] for l in f if l.endswith("\n")]
        found = [Line(int(w[0]), w[1], w[2], int(w[3]), int(w[4]), *w[5:]) for w in words]
        return [l for l in found if verb in (None, l.verb) and
                all(getattr(l, k) == v for k, v in fields.items())]

    def wait(self, verb, count=1, timeout=10, **fields):
        """The COUNTth line of that sort."""
        try:
            return wait_until(lambda: self.lines(verb, **fields)[count - 1:][:1], timeout)[0]
        except Failed:
            raise Failed(f"no line {verb} {fields} (number {count}) within {timeout} s in:\n" +
                         self.text()) from None

    def text(self):
        with open(self.path, encoding="ascii", errors="replace") as f:
            return "".join(f.readlines()[-60:])

    def check_terms(self):
        """Promotions in the order of time have strictly rising terms, per program."""
        last = {}
        for l in self.lines("promote"):
            program_name = l.worker.partition(":")[0]
            check(l.term > last.get(program_name, 0),
                  f"term {l.term} after {last.get(program_name)} in:\n{self.text()}")
            last[program_name] = l.term
        return last


def lock_info(config, *arguments, status=0):
    """`baton lock info --json` on the file, needing no instance."""
    return json.loads(baton("lock", "info", "--json", "-c", config, *arguments,
                            status=status).out)


def helpers_of(pid):
    """{"lock-deadman": pid, ...} of the supervisor PID (a pid of our own namespace)."""
    found = {}
    for child in children_of(pid):
        try:
            with open(f"/proc/{child}/comm", encoding="ascii") as f:
                name = f.read().strip()
        except OSError:
            continue
        if name.startswith("lock-"):
            found[name] = child
    return found


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(w) for w in f.read().split()]
    except OSError:
        return []


def deadman_of(pid):
    return wait_until(lambda: helpers_of(pid).get("lock-deadman"), 5, "a deadman")


def in_pid_namespace():
    """The prefix that runs a command as PID 1 of a PID namespace; None when not permitted."""
    if not shutil.which("unshare"):
        return None
    for user in ([], ["--user", "--map-root-user"]):
        prefix = ["unshare", *user, "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    return None


class Contained(Instance):
    """An instance that is PID 1 of a PID namespace: pid is the supervisor's, as seen from here."""

    @property
    def pid(self):
        return wait_until(lambda: (children_of(self.process.pid) or [None])[0], 5,
                          f"the supervisor {self.name}")

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        if self.alive:
            self.send_signal(signal.SIGKILL)
        return self.wait_end()

    def _tear_down(self):
        for pid in children_of(self.process.pid) if self.alive else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
        return super()._tear_down()


def is_living(pid):
    return state_of(pid) not in (None, "Z", "X")


def sleep_until(at_ns):
    """Until a moment of the lease clock: where a moment itself is what is tested."""
    left = at_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if left > 0:
        time.sleep(left / SECOND)


def helpers_left(path):
    """Helpers (they carry no mark) that still have a file below the folder PATH open."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/comm", encoding="ascii") as f:
            if f.read().startswith("lock-") and any(
                    os.readlink(f"/proc/{entry}/fd/{n}").startswith(path + "/")
                    for n in os.listdir(f"/proc/{entry}/fd")):
                found.append(int(entry))
    return found


def no_helpers_left(path):
    end = time.monotonic() + 5
    while helpers_left(path) and time.monotonic() < end:
        time.sleep(0.005)
    equal(helpers_left(path), [], "helpers left running")


class Witness:
    """lib/witness.c at work: samples all lease pages of this test each millisecond."""

    def __init__(self):
        binary = os.path.join(BUILD, "tests", "lib", "witness")
        check(os.access(binary, os.X_OK), f"{binary} is not built")
        self.lines, self.end, self._news = [], None, threading.Condition()
        env = {k: v for k, v in os.environ.items() if k != "BATON_TEST_ID"}
        self.process = subprocess.Popen([binary, TEST_ID], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, env=env)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self.process.stdout as pipe:
            for raw in pipe:
                with self._news:
                    self.lines.append(raw.decode().split())
                    self._news.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """(samples, pages, twos, longest step in ns); further calls repeat the answer."""
        if self.end is None:
            self.process.stdin.close()
            self.process.wait(10)
            self._reader.join(10)
            check(self.lines and self.lines[-1][0] == "end", f"the witness died: {self.lines[-3:]}")
            self.end = tuple(map(int, self.lines[-1][1:]))
        return self.end

    def now(self, program="web"):
        """The `valid` line of the lease that is valid now, or None."""
        with self._news:
            for line in reversed(self.lines):
                if line[0] in ("valid", "none") and line[2] == program:
                    return line if line[0] == "valid" else None
        return None

    def gaps(self, program="web"):
        """[(from ns, to ns)] without a valid lease, after the first one."""
        found, since = [], None
        for line in self.lines:
            if line[0] == "none" and line[2] == program:
                since = int(line[1])
            elif line[0] == "valid" and line[2] == program and since is not None:
                found.append((since, int(line[1])))
                since = None
        return found

    def check(self):
        twos = [" ".join(l) for l in self.lines if l[0] == "two"]
        check(not twos, f"{len(twos)} times two valid leases:\n" + "\n".join(twos[:20]))

#!/usr/bin/python3
"""The README's cron in a container: exactly its lines, baton as PID 1 of a PID namespace with a root
file system of its own, two such containers on one volume."""
import os
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *

# What a container runtime does: a root of its own with the image, the volume, a PID namespace.
CONTAINER = """
set -e
root=$1 volume=$2 baton=$3
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir -p usr etc/baton proc dev data work tmp run
for name in bin sbin lib lib64; do [ ! -L "/$name" ] || ln -s "usr/$name" "$name"; done
mount --bind /usr usr
mount --bind /dev dev
mount --bind "$volume" data
mount -t proc proc proc
cp "$baton" baton
cp "$volume/baton.ini" etc/baton/baton.ini
cp "$volume/report.sh" work
exec chroot . /bin/sh -c 'cd /work && exec /baton run'
"""


def readme_lines():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    section = text[text.index("## Cron in a container"):]
    found = re.search(r"\n\n((?:    .*\n|\n)+)", section)[1]
    return "\n".join(line[4:] for line in found.rstrip("\n").split("\n")) + "\n"


class Container:
    def __init__(self, volume):
        self.output = os.path.join(folder(), "log")
        with open(self.output, "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh",
                 folder(), volume, BATON], stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL)
        self.pid = wait_until(self._pid_one, 10, "PID 1 of the container")

    def _pid_one(self):
        if self.process.poll() is not None:
            raise Failed(f"the container ended: {self.log()}")
        for pid in marked_processes():
            if command_of(pid).startswith("/baton run"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as f:
                    status = f.read()
                    parent = int(re.search(r"PPid:\s*(\d+)", status)[1])
                    if parent == self.process.pid and re.search(r"NSpid:.*\t1\n", status):
                        return pid
        return None

    def log(self):
        with open(self.output, encoding="utf-8", errors="replace") as f:
            return f.read()

    def run(self, *command, timeout=30):
        """As `docker exec`."""
        return subprocess.run(["nsenter", "-t", str(self.pid), "-m", "-p", "-r", "-w", "--", *command],
                              capture_output=True, text=True, timeout=timeout, check=False)

    def stop(self):
        """As `docker stop`: its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(20)


@test("the README's lines: two containers on one volume, one run, the stop")
def _():
    for name in ("unshare", "nsenter"):
        need(name)
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"],
                                           capture_output=True, check=False).returncode != 0:
        skip("namespaces are not permitted here")
    text = readme_lines()
    equal(len(text.split("\n")) - 1, 10, "lines in the README")
    volume = folder()
    with open(os.path.join(volume, "baton.ini"), "w", encoding="utf-8") as f:
        f.write(text)
    with open(os.path.join(volume, "report.sh"), "w", encoding="utf-8") as f:
        f.write('#!/bin/sh\necho "$BATON_JOB $BATON_ATTEMPT" >>/data/effects\necho reported\n')
    os.chmod(f.name, 0o755)
    one, two = Container(volume), Container(volume)

    def health():
        return all(c.run("/baton", "status", "--health").returncode == 0 for c in (one, two))

    wait_until(health, 20, "health of both")
    found = one.run("/baton", "jobs", "next")
    check(found.returncode == 0 and "report" in found.stdout, f"jobs next: {found.stdout}{found.stderr}")
    for number, container in enumerate((one, two), 1):
        done = container.run("/baton", "jobs", "run", "report", "--wait")
        equal(done.returncode, 0, f"jobs run: {done.stdout}{done.stderr}")
        with open(os.path.join(volume, "effects"), encoding="ascii") as f:
            equal(f.read(), "report 1\n" * number, "effects")
    found = two.run("/baton", "jobs", "output", "report")
    equal(found.stdout, "reported\n", "jobs output")
    equal(one.stop(), 0, "exit status of the first")
    wait_until(lambda: two.run("/baton", "status", "--health").returncode == 0, 20, "takeover")
    equal(two.run("/baton", "jobs", "run", "report", "--wait").returncode, 0, "jobs run at the second")
    equal(two.stop(), 0, "exit status of the second")
    check("report | reported" in one.log() + two.log(), "the output is not in the log")
    print("# " + text.replace("\n", "\n# "), flush=True)


if __name__ == "__main__":
    main()

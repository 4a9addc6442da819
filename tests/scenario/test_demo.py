#!/usr/bin/python3
"""The demonstration of `make run`."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403


def demo(*arguments):
    """The demonstration, and the folder where it may leave nothing."""
    where = folder()
    return subprocess.Popen(["sh", "tests/lib/demo.sh", BATON, *arguments], cwd=ROOT,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True,
                            env={**os.environ, "TMPDIR": where}), where


@test("SECONDS: shows ticks, a kill and a promotion, ends with status 0")
def _():
    process, where = demo("6")
    try:
        out = process.communicate(timeout=60)[0].decode(errors="replace")
    finally:
        process.kill()
    equal(process.returncode, 0, f"exit status, after:\n{out}")
    killed = re.search(r"--- demo: kill -9 (\d+) \((web:\d), the executor\)", out)
    took = re.search(r"--- demo: (web:\d) took over, pid (\d+)", out)
    check(killed and took, f"no kill or no takeover in:\n{out}")
    check(killed[1] != took[2], f"the dead one took over:\n{out}")
    ticks = re.findall(r"tick [\d:]+ \(pid (\d+), term (\d+)\)", out)
    check({p for p, _ in ticks} == {killed[1], took[2]}, f"ticks of {ticks}")
    terms = [int(t) for _, t in ticks]
    equal(terms, sorted(terms), "terms in the order of the ticks")
    seconds = re.findall(r"tick ([\d:]+) ", out)
    equal(len(seconds), len(set(seconds)), f"ticks of one second each ({seconds})")
    equal(os.listdir(where), [], "files left")


@test("the commands that it prints work; Ctrl-C ends it in order")
def _():
    process, where = demo()
    lines = queue.Queue()

    def read():
        for raw in process.stdout:
            lines.put(raw.decode(errors="replace").rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    limit, seen = deadline(30, "the demonstration"), []

    def until(pattern):
        while True:
            line = lines.get(timeout=limit.left())
            check(line is not None, "it ended:\n" + "\n".join(seen))
            seen.append(line)
            found = re.search(pattern, line)
            if found:
                return found

    try:
        place = until(r"cd (.*) && export BATON_DEMO_DIR=(\S+)")
        killing = until(r"kill -9 (\d+)")
        until(r"tick ")
        env, root = {"BATON_DEMO_DIR": place[2]}, place[1]
        equal(root, ROOT, "folder to go to")
        file = "conf/examples/demo.ini"
        url = json.loads(baton("status", "--json", "-c", file, env=env, cwd=root,
                               status=0).out)["sockets"][0]["url"]
        status, body = http_get(url)
        equal(status, 200, "HTTP status")
        check(re.search(r"web:\d pid \d+", body), f"answer {body!r}")
        info = json.loads(baton("lock", "info", "--json", "-c", file, env=env, cwd=root,
                                status=0).out)
        equal(info["holder"]["life"], "alive", "life of the holder")
        os.kill(int(killing[1]), signal.SIGKILL)
        successor = until(r"I am the executor now, term \d+; .*kill -9 (\d+)")
        check(successor[1] != killing[1], "another worker")
        baton("wait", "--for", "ready=web", "--timeout", "20s", "-c", file, env=env, cwd=root, status=0)
        baton("handoff", "-c", file, env=env, cwd=root, status=0)
        third = until(r"I am the executor now, term \d+; .*kill -9 (\d+)")
        check(third[1] != successor[1], "another worker after the handoff")
        os.killpg(process.pid, signal.SIGINT)       # what the terminal does
        equal(process.wait(20), 0, "exit status after Ctrl-C, after:\n" + "\n".join(seen[-30:]))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    equal(os.listdir(where), [], "files left")


@test("nothing is left when its terminal or the pipe behind it goes")
def _():
    for arguments, number in ((["30"], signal.SIGHUP), (["30"], signal.SIGTERM),
                              ([], signal.SIGHUP), ([], signal.SIGTERM), (["3"], None)):
        process, where = demo(*arguments)
        try:
            while b"| tick" not in process.stdout.readline():
                pass
            if number:
                os.killpg(process.pid, number)
            process.stdout.close()
            process.wait(20)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        equal(os.listdir(where), [], f"files left after {number}")
        wait_until(lambda: not marked_processes(), 10, f"the end of all after {number}")


@test("SECONDS that is no number is refused")
def _():
    process, where = demo("soon")
    out = process.communicate(timeout=10)[0].decode()
    equal(process.returncode, 1, "exit status")
    check("not a number" in out, out)
    equal(os.listdir(where), [], "files left")


if __name__ == "__main__":
    main()

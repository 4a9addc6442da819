#!/usr/bin/python3
"""A reload that needs DNS: the supervisor goes on while nobody answers."""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

SERVER = ("127.9.9.9", 53)
TEXT = """
        [baton]
        [socket:http]
        listen = {}:{}
        [program:web]
        command = sleep 1000
        startsecs = 0
        {}
        sockets = http
"""


def answer(query, *addresses):
    """The DNS message that gives these IPv4 addresses; none = there is no such name."""
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    ours = addresses if question[-4:-2] == b"\0\1" else ()      # A, not AAAA
    head = query[:2] + (b"\x81\x80" if addresses else b"\x81\x83") + struct.pack(
        ">HHHH", 1, len(ours), 0, 0)
    return head + question + b"".join(
        b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(a) for a in ours)


def place():
    """An instance that asks our own name server."""
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        dns.bind(SERVER)
    except OSError as e:
        skip(f"no name server of our own: {e}")
    dns.settimeout(10)
    one = Instance("", start=False)
    with open(one.path("resolv.conf"), "w", encoding="ascii") as f:
        f.write(f"nameserver {SERVER[0]}\noptions timeout:30 attempts:1\n")
    one.prefix = ["unshare", "--mount", "sh", "-c",
                  'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"',
                  one.path("resolv.conf")]
    if not shutil.which("unshare") or subprocess.run(
            [*one.prefix, "true"], capture_output=True, check=False).returncode != 0:
        skip("no mount namespace can be made here")
    return one, dns


class Reload(threading.Thread):
    def __init__(self, one):
        super().__init__()
        self.one, self.result = one, None
        self.start()

    def run(self):
        self.result = self.one.cli("reload", timeout=60)

    def end(self):
        self.join(20)
        check(self.result, "the reload did not end")
        return self.result


@test("a host that takes its time: the supervisor answers meanwhile, nothing has changed; then it is opened; two reloads ask once")
def _():
    one, dns = place()
    port = free_port()
    user = "user = daemon" if os.geteuid() == 0 else ""
    one.write(TEXT.format("127.0.0.1", free_port(), user))
    one.start()
    one.wait_for("ready=web")
    before, listens = one.worker("web:0")["pid"], one.status()["sockets"][0]["listen"]
    one.write(TEXT.format("slow.example", port, user))
    first = Reload(one)
    query, peer = dns.recvfrom(4096)
    check(b"\4slow\7example" in query, f"what was asked: {query}")
    second = Reload(one)
    one.send_signal(signal.SIGHUP)
    for _ in range(20):     # nobody answers: it is as alive as ever
        begun = time.monotonic()
        one.status()
        check(time.monotonic() - begun < 1, "status had to wait for a name server")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: one.worker("web:0")["pid"] not in (None, before), 5, "a successor")
    equal(one.status()["sockets"][0]["listen"], listens, "listener before the answer")
    equal((first.result, second.result), (None, None), "answers before the name server's")
    dns.sendto(answer(query, "127.0.0.1", "127.0.0.2"), peer)
    for r in (first.end(), second.end()):
        equal(r.status, 0, f"exit status: {r}")
    wait_until(lambda: f"127.0.0.1:{port}" in [s["listen"] for s in one.status()["sockets"]], 5,
               "the new listener")
    one.wait_log("that name has 2 addresses")
    one.wait_for("rollout=done")
    # The listener is open: a reload asks nobody any more.
    one.cli("reload", status=0)
    dns.settimeout(0.2)
    try:
        raise Failed(f"asked again for a listener that is open: {dns.recvfrom(4096)[0]}")
    except TimeoutError:
        pass


@test("a host that there is not: exit status 1, the reason, nothing changed; a stop does not wait for a name server")
def _():
    one, dns = place()
    one.write(TEXT.format("127.0.0.1", free_port(), ""))
    one.start()
    one.wait_for("ready=web")
    before = one.worker("web:0")["pid"]
    one.write(TEXT.format("nowhere.example", free_port(), ""))
    reload = Reload(one)

    def refuse():       # A, perhaps with search domains, then AAAA
        while reload.result is None:
            try:
                query, peer = dns.recvfrom(4096)
                dns.sendto(answer(query), peer)
            except TimeoutError:
                pass
    dns.settimeout(0.05)
    refuse()
    r = reload.end()
    equal(r.status, 1, "exit status")
    check("cannot resolve 'nowhere.example'" in r.err, f"why: {r.err!r}")
    equal(one.worker("web:0")["pid"], before, "pid")
    one.write(TEXT.format("silent.example", free_port(), ""))
    dns.settimeout(10)
    reload = Reload(one)
    dns.recvfrom(4096)
    begun = time.monotonic()
    one.stop()
    check(time.monotonic() - begun < 5, "the stop waited")
    check(reload.end().status != 0, "a reload that never was")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Each preset with its real program: two workers on one shared socket answer, a killed one comes back
and answers, a request in flight is answered by a graceful stop, and nothing is left."""
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

# Every application answers its pid; /slow makes the file `slow`, and answers after a second.
PYTHON_APP = '''
import asyncio, os, time

def slow(path):
    if path == "/slow":
        open("slow", "w").close()
    return path == "/slow"

def application(environ, start_response):
    if slow(environ["PATH_INFO"]):
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if slow(scope["path"]):
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
'''
RACK_APP = '''
run lambda { |env|
  if env["PATH_INFO"] == "/slow"
    File.write("slow", "")
    sleep 1
  end
  [200, {"content-type" => "text/plain"}, [Process.pid.to_s]]
}
'''
NODE_APP = '''
const http = require('http');
const fs = require('fs');
const answer = (request, response) => {
  if (request.url !== '/slow') return response.end(String(process.pid));
  fs.writeFileSync('slow', '');
  setTimeout(() => response.end(String(process.pid)), 1000);
};
const port = Number(process.argv[2].split(':').pop());
http.createServer(answer).listen(port, () => console.log('listening'));
const other = http.createServer(answer).listen(0, '127.0.0.1', () => {
  fs.writeFileSync('other.' + process.pid, String(other.address().port));
});
'''
GO_APP = '''
package main

import ("fmt"; "context"; "net"; "net/http"; "os"; "os/signal"; "strconv"; "syscall"; "time")

func main() {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) { panic("LISTEN_PID") }
	listener, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil { panic(err) }
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" { os.WriteFile("slow", nil, 0644); time.Sleep(time.Second) }
		fmt.Fprint(w, os.Getpid())
	})}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go server.Serve(listener)
	<-stop
	server.Shutdown(context.Background())
}
'''
NGINX_CONF = '''
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address};
        location = / {{ return 200 "$pid"; }}
        location = /slow {{ root {folder}; limit_rate 1000; }}
    }}
}}
'''
FPM_CONF = '''
[global]
error_log = /dev/stderr
process_control_timeout = 10s
[www]
user = {user}
listen = {address}
pm = static
pm.max_children = 1
catch_workers_output = yes
'''
FPM_APP = '''<?php
if ($_SERVER["REQUEST_URI"] == "/slow") {
    touch(dirname(__FILE__) . "/slow");
    for ($end = microtime(true) + 1; ($left = $end - microtime(true)) > 0;)
        usleep((int)($left * 1000000));     // a signal ends it early
}
echo getmypid();
'''

INI = """
    [baton]
    [socket:http]
    listen = {listen}
    [program:web]
    command = {command}
    preset = {preset}
    directory = {folder}
    environment = PYTHONDONTWRITEBYTECODE="1",HOME="{folder}"
    workers = 2
    sockets = http
"""


def write(where, name, text):
    with open(os.path.join(where, name), "w", encoding="ascii") as f:
        f.write(text)


def http_answer(address, path, timeout):
    status, text = http_get(f"http://{address}{path}", timeout)
    equal(status, 200, f"status of {path}")
    return text


def fcgi_answer(where):
    """One request of FastCGI, as nginx would send it to php-fpm."""

    def answer(address, path, timeout):
        variables = {"SCRIPT_FILENAME": os.path.join(where, "app.php"), "REQUEST_METHOD": "GET",
                     "REQUEST_URI": path, "SCRIPT_NAME": "/app.php"}
        body = b"".join(struct.pack("!BB", len(k), len(v)) + k.encode() + v.encode()
                        for k, v in variables.items())

        def record(kind, content):
            return struct.pack("!BBHHBB", 1, kind, 1, len(content), 0, 0) + content
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout) as s:
            s.settimeout(timeout)
            s.sendall(record(1, struct.pack("!HB5x", 1, 0)) + record(4, body) + record(4, b"") +
                      record(5, b""))
            with s.makefile("rb") as stream:
                out = b""
                while True:
                    head = stream.read(8)
                    if len(head) < 8:
                        raise ConnectionError(f"FastCGI answer cut off: {out}")
                    _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", head)
                    content = stream.read(length + padding)[:length]
                    if kind == 3:       # the end of the request
                        return out.decode().partition("\r\n\r\n")[2]
                    out += content if kind == 6 else b""
    return answer


def worker_of(one, pid):
    """The pid of baton's worker that PID is, or descends from; None when it is gone."""
    workers = {w["pid"] for w in one.workers("web")}
    while pid > 1 and pid not in workers:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                pid = int(f.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return None
    return pid if pid in workers else None


def every_worker_answers(one, answer, address, what, without=None):
    """Until both workers of now have answered, none of them WITHOUT; their pids."""
    seen = set()

    def all_answered():
        try:
            pid = worker_of(one, int(answer(address, "/", 2)))
        except (http.client.HTTPException, OSError):
            return None     # it ends with the killed worker that had taken it
        if pid is not None:
            seen.add(pid)
        now = {w["pid"] for w in one.workers("web")}
        return now if len(now) == 2 and now <= seen and without not in now else None
    return wait_until(all_answered, 15, what)


def prove(preset, command, where, listen="127.0.0.1:0", answer=http_answer, started=None):
    """The whole of it; STARTED tells that the slow request is in flight."""
    one = Instance(INI.format(preset=preset, command=command, folder=where, listen=listen),
                   folder=where)
    address = one.status()["sockets"][0]["listen"]
    before = every_worker_answers(one, answer, address, f"both workers of {preset}")
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    after = every_worker_answers(one, answer, address, f"the replaced worker of {preset}",
                                 without=killed)
    equal(len(before & after), 1, f"workers that stayed: {before} {after}")
    result = []

    def slow():
        try:
            result.append(answer(address, "/slow", 10))
        except Exception as e:  # told below
            result.append(e)
    thread = threading.Thread(target=slow)
    thread.start()
    wait_until(started or (lambda: os.path.exists(os.path.join(where, "slow"))), 5, "a slow request")
    start = time.monotonic()
    one.stop(timeout=20)
    took = time.monotonic() - start
    thread.join(10)
    print(f"# {preset}: stopped in {took:.2f} s", flush=True)
    check(isinstance(result[0], str) and result[0], f"the request in flight: {result[0]!r}")
    check(0.3 < took < 8, f"the stop took {took:.2f} s: too short for the request, or not graceful")
    return one


@test("hypercorn")
def _():
    need("hypercorn")
    where = folder()
    write(where, "app.py", PYTHON_APP)
    prove("hypercorn", "hypercorn app:asgi", where)


@test("puma")
def _():
    need("puma")
    where = folder()
    write(where, "config.ru", RACK_APP)
    # What its file says of workers and addresses does not count.
    os.mkdir(os.path.join(where, "config"))
    write(where, "config/puma.rb", "workers 3\nport 1\n")
    prove("puma", "puma", where)


@test("unicorn")
def _():
    need("unicorn")
    where = folder()
    write(where, "config.ru", RACK_APP)
    prove("unicorn", "unicorn config.ru", where)


@test("uwsgi")
def _():
    need("uwsgi")
    if subprocess.run(["uwsgi", "--plugin", "python3", "--version"], capture_output=True,
                      check=False).returncode != 0:
        skip("uwsgi has no plugin python3")
    where = folder()
    write(where, "app.py", PYTHON_APP)
    prove("uwsgi", "uwsgi --plugin python3 --wsgi-file app.py --disable-logging", where)


@test("node: listen(PORT) takes the socket of that port, other ports listen themselves")
def _():
    need("node")
    where = folder()
    write(where, "app.js", NODE_APP)
    others = {}

    def answer(address, path, timeout):
        pid = http_answer(address, path, timeout)
        if path == "/" and pid not in others:
            port = wait_until(lambda: read(os.path.join(where, f"other.{pid}")), 5, "another port")
            others[pid] = port
            equal(http_answer(f"127.0.0.1:{port}", "/", 5), pid, "pid behind its own port")
        return pid
    prove("node", "node app.js %(listen_http)s", where, answer=answer)
    equal(len(set(others.values())), 3, f"ports of their own: {others}")


NODE_SOCKETS = '''
const http = require('http');
const fs = require('fs');
const serve = (name, ...where) => http.createServer((request, response) => {
  if (request.url !== '/slow') return response.end(name);
  fs.writeFileSync('slow', '');
  setTimeout(() => response.end(name), 700);
}).listen(...where);
const [mode, port] = process.argv.slice(2);
if (mode === 'one') serve('one', Number(port));
if (mode === 'own') process.once('SIGTERM', () => server.close(() => process.exit(0)));
const server = mode === 'own' && serve('own', {port});
if (mode === 'each') { serve('v6', {port, host: '::1'}); serve('v4', Number(port), '127.0.0.1'); }
if (mode === 'path') serve('path', './app.sock');
'''


@test("node: all sockets of one port are served, in flight as well; each host its own; a relative path")
def _():
    need("node")
    where = folder()
    write(where, "app.js", NODE_SOCKETS)
    ports = {mode: free_port() for mode in ("one", "own", "each")}
    text = "[baton]\n"
    for mode, port in ports.items():
        text += f"""[socket:{mode}4]
listen = 127.0.0.1:{port}
[socket:{mode}6]
listen = [::1]:{port}
[program:{mode}]
preset = node
command = node app.js {mode} {port}
directory = {where}
sockets = {mode}4 {mode}6
"""
    text += f"""[socket:path]
listen = unix:{where}/app.sock
[program:path]
preset = node
command = node app.js path
directory = {where}
sockets = path
"""
    one = Instance(text, folder=where, start=False)
    try:
        one.start()
    except Failed:
        skip("this machine has no IPv6")
    for mode in (*ports, "path"):
        one.wait_for(f"ready={mode}", 15)
    for mode, port in ports.items():
        for host, name in (("127.0.0.1", "v4"), ("[::1]", "v6")):
            equal(http_answer(f"{host}:{port}", "/", 5), name if mode == "each" else mode,
                  f"{mode} at {host}")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(os.path.join(where, "app.sock"))
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        check(s.makefile("rb").read().endswith(b"path"), "the answer at the path")
    results, slow = {}, os.path.join(where, "slow")
    for mode in ("one", "own"):     # each stops while its second socket has a request
        def ask(mode=mode):
            try:
                results[mode] = http_answer(f"[::1]:{ports[mode]}", "/slow", 10)
            except Exception as e:  # told below
                results[mode] = repr(e)
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: os.path.exists(slow), 5, "a slow request")
        one.cli("stop", mode, status=0)
        thread.join(10)
        os.unlink(slow)
    equal(results, {"one": "one", "own": "own"}, "requests in flight on the second socket")
    one.stop(timeout=20)


def read(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return ""


@test("node: a handler of the application's own for TERM is left alone; npm is warned about")
def _():
    need("node")
    where = folder()
    write(where, "app.js", NODE_APP + '''
process.once('SIGTERM', () => setTimeout(() => {
  console.log('stopped by itself');
  process.exit(0);
}, 300));
''')
    one = Instance(INI.format(preset="node", command="node app.js %(listen_http)s", folder=where,
                              listen="127.0.0.1:0"), folder=where,
                   env={"NODE_OPTIONS": "--no-deprecation"})
    one.wait_for("ready=web", 15)
    options = environment_of(one.workers("web")[0]["pid"])["NODE_OPTIONS"]
    check(re.fullmatch(r"--no-deprecation --require=\S+/baton-preload.js", options), options)
    one.stop(timeout=20)
    equal(len([line for line in one.lines if "stopped by itself" in line]), 2, "own handlers")
    write(where, "npm.ini", INI.format(preset="node", command="npm start", folder=where,
                                       listen="127.0.0.1:0"))
    if shutil.which("npm"):
        result = baton("check", "-c", os.path.join(where, "npm.ini"))
        check("npm starts the server as a child" in result.out + result.err, result)


@test("nginx")
def _():
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or skip("no nginx")
    where = folder()
    address = f"127.0.0.1:{free_port()}"     # its file must name the address
    write(where, "nginx.conf", NGINX_CONF.format(folder=where, address=address))
    write(where, "slow", "x" * 1500)
    begun = threading.Event()

    def answer(to, path, timeout):
        if path == "/":
            return http_answer(to, path, timeout)
        host, _, port = to.rpartition(":")
        with socket.create_connection((host, int(port)), timeout) as s:
            s.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
            got = b""
            while part := s.recv(65536):
                begun.set()
                got += part
        body = got.partition(b"\r\n\r\n")[2].decode()
        equal(len(body), 1500, "bytes of the slow answer")
        return body
    prove("nginx", f"{nginx} -p {where} -c nginx.conf", where, listen=address, answer=answer,
          started=begun.is_set)


@test("php-fpm")
def _():
    found = sorted(f"/usr/sbin/{name}" for name in os.listdir("/usr/sbin")
                   if re.match(r"php-fpm[0-9.]*$", name))
    fpm = found[-1] if found else need("php-fpm")
    where = folder()
    os.chmod(where, 0o777)      # its children run as the user of the pool
    user = "nobody"
    address = f"127.0.0.1:{free_port()}"
    write(where, "fpm.conf", FPM_CONF.format(address=address, user=user))
    write(where, "app.php", FPM_APP)
    one = prove("php-fpm", f"{fpm} -y {where}/fpm.conf", where, listen=address,
                answer=fcgi_answer(where))
    # On a socket that does not block, its idle children would end and be started again all the time.
    equal([line for line in one.lines if re.search("child [0-9]+ exited", line)], [], "children")
    write(where, "fpm.conf", "[global]\n[www]\nlisten = 80\n")
    result = baton("check", "-c", one.config)
    check("process_control_timeout" in result.out + result.err, result)


@test("php-fpm: a unix socket that it removes as it ends; with another name to remove none is refused")
def _():
    found = sorted(f"/usr/sbin/{name}" for name in os.listdir("/usr/sbin")
                   if re.match(r"php-fpm[0-9.]*$", name))
    fpm = found[-1] if found else need("php-fpm")
    where = folder()
    os.chmod(where, 0o777)
    path = os.path.join(where, "s")
    write(where, "fpm.conf", FPM_CONF.format(address=path, user="nobody"))
    ini = INI.format(preset="php-fpm", command=f"{fpm} -y {where}/fpm.conf", folder=where,
                     listen=f"unix:{path}").replace("environment =", "startsecs = 300ms\n    environment =")
    one = Instance(ini, folder=where, start=False)
    said = baton("check", "-c", one.config)
    check(f"php-fpm removes '{path}'" in said.err, f"what check says: {said}")
    # What it says is done:
    way = re.search(r"FPM_SOCKETS=\"\S+\"", said.err)[0]
    write(where, "fpm.conf", FPM_CONF.format(address=path + ".fpm", user="nobody"))
    one.write(ini.replace("environment =", f"environment = {way},"))
    equal(baton("check", "-c", one.config, status=0).err, "", "what check says of its own way out")
    one.start()
    one.wait_for("ready=web", 15)
    wrong, good, ending = [], [], threading.Event()

    def load():
        while not ending.is_set():
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(path)
                good.append(1)
            except OSError as e:
                wrong.append(repr(e))
    thread = threading.Thread(target=load)
    thread.start()
    one.cli("restart", "--rolling", "web", status=0)
    ending.set()
    thread.join()
    equal(wrong[:3], [], "connections that were refused")
    check(len(good) > 100, f"{len(good)} connections")
    one.stop(timeout=20)
    check(not os.path.exists(path), "its socket was left")


@test("go: a program that takes LISTEN_FDS")
def _():
    go = need("go")
    where = folder()
    write(where, "main.go", GO_APP)
    built = subprocess.run([go, "build", "-o", "web", "main.go"], cwd=where, capture_output=True,
                           env={**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off",
                                "GOCACHE": os.path.join(where, "cache"), "HOME": where}, check=False)
    equal(built.returncode, 0, built.stderr.decode())
    prove("go", "./web", where)


@test("go: a server of Debian that takes LISTEN_FDS, two workers on one socket, one of them killed")
def _():
    exporter = need("prometheus-node-exporter")
    where = folder()
    # Its first page names the path of its metrics, by which the two are told apart.
    one = Instance(INI.format(preset="go", folder=where, listen="127.0.0.1:0", command=(
        f"{exporter} --web.systemd-socket --web.telemetry-path=/of%(process_num)d "
        "--collector.disable-defaults")).replace("preset =", "startsecs = 300ms\n    preset ="),
                   folder=where)
    one.wait_for("ready=web", 15)
    address = one.status()["sockets"][0]["listen"]

    def both_answer(what):
        seen = set()

        def answered():
            with contextlib.suppress(OSError, http.client.HTTPException):
                seen.update(re.findall(r"/of(\d)", http_answer(address, "/", 5)))
            return seen == {"0", "1"}
        wait_until(answered, 15, what)
    both_answer("both workers")
    before = {w["pid"] for w in one.workers("web")}
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len({w["pid"] for w in one.workers("web") if w["ready"]} - before) == 1, 10,
               "a successor")
    both_answer("both, after a kill")
    one.cli("restart", "--rolling", "web", status=0)
    check(not {w["pid"] for w in one.workers("web")} & before, "workers were not replaced")
    both_answer("both, after a rolling restart")
    one.stop(timeout=20)


@test("what check --dump shows of each; a bind option beside sockets is an error")
def _():
    where = folder()
    text = "[socket:a]\nlisten = 127.0.0.1:8000\n[socket:b]\nlisten = unix:/run/b\n"
    for preset, option, parts in (
            ("hypercorn", "-b", ("--workers 1 --bind fd://3 --bind fd://4", "PYTHONUNBUFFERED")),
            ("puma", "-p", ("-w 0 --bind-to-activated-sockets only", "stopwaitsecs = 35")),
            ("unicorn", "--listen", ("stopsignal = QUIT", "stopwaitsecs = 60")),
            ("uwsgi", "--http-socket", ("--hook-master-start 'unix_signal:15 gracefully_kill_them_"
                                        "all' --http-socket fd://3 --http-socket fd://4",
                                        "--master --processes 1", "PYTHONUNBUFFERED")),
            ("node", None, ("--require=", "stopwaitsecs = 35")),
            ("nginx", None, ('NGINX="3;4;"', "stopsignal = QUIT")),
            ("php-fpm", None, ('FPM_SOCKETS="127.0.0.1:8000=3,/run/b=4"', "true -F",
                               "stopsignal = QUIT")),
            ("go", None, ("stopsignal = TERM", "stopwaitsecs = 35"))):
        for command in filter(None, ["/bin/true", option and f"/bin/true {option} 80"]):
            path = os.path.join(where, "one.ini")
            write(where, "one.ini", f"{text}[program:web]\npreset = {preset}\nsockets = a b\n"
                                    f"command = {command}\n")
            bad = command != "/bin/true"
            result = baton("check", "--dump", "-c", path)
            said = result.out + result.err
            equal(result.status != 0, bad, f"failure of {preset}, {command}: {said}")
            check(not bad or f"'{option}' beside 'sockets'" in said, said)
            for part in () if bad else parts:
                check(part in said, f"{preset}: {part} is not in {said}")


@test("go: with ready = http:/PATH a worker that boots beside a healthy one is not ready before its own first answer")
def _():
    exporter, where = need("prometheus-node-exporter"), folder()
    with open(f"{where}/gated", "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\nwhile ! test -e gate; do sleep 0.05; done\nexec {exporter} "$@"\n')
    os.chmod(f"{where}/gated", 0o755)
    open(f"{where}/gate", "w", encoding="ascii").close()
    one = Instance(f"""
        [baton]
        [socket:http]
        listen = 127.0.0.1:0
        [program:web]
        preset = go
        command = ./gated --web.systemd-socket --collector.disable-defaults
        directory = {where}
        sockets = http
        ready = http:/metrics
        startsecs = 100ms
    """, folder=where)
    one.wait_for("ready=web", 15)
    os.unlink(f"{where}/gate")
    one.call("scale", program="web", workers=2)
    time.sleep(3)
    new = one.worker("web:1")
    equal((new["state"], new["ready"]), ("starting", False), "the new one while it boots")
    equal(http_get(f"http://{one.status()['sockets'][0]['listen']}/", 5)[0], 200, "the other serves on")
    open(f"{where}/gate", "w", encoding="ascii").close()
    one.wait_for("ready=web", 10)
    one.stop(timeout=20)


if __name__ == "__main__":
    main()

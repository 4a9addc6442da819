#!/usr/bin/python3
"""Each preset with its real program: a worker that boots beside a healthy one is not ready before it
answers itself, however long that takes. All of them side by side, in one instance."""
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from harness import *  # noqa: E402,F403

# A worker boots until the file `gate` is there.
PYTHON_APP = '''
import os, time
while not os.path.exists("gate"):
    time.sleep(0.02)

def application(environ, start_response):
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
RACK_APP = '''
sleep 0.02 until File.exist?("gate")
run lambda { |env| [200, {"content-type" => "text/plain"}, [Process.pid.to_s]] }
'''
NODE_APP = '''
const fs = require('fs');
const listen = () => {
  if (!fs.existsSync('gate')) return setTimeout(listen, 20);
  require('http').createServer((request, response) => response.end(String(process.pid)))
    .listen(Number(process.argv[2].split(':').pop()));
};
listen();
'''
NGINX_CONF = '''
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen {address}; location / {{ return 200 "$pid"; }} }}
}}
'''
FPM_CONF = '''
[global]
error_log = {folder}/fpm.log
process_control_timeout = 10s
[www]
user = nobody
listen = {address}
pm = static
pm.max_children = 1
'''
# Servers without an application that could take its time to boot. What speaks sd_notify has its name
# in it, which is looked for.
GATED = '''#!/bin/sh
# {program} has sd_notify
while ! test -e gate; do sleep 0.05; done
exec {program} "$@"
'''


HEALTH = "health = tcp\nhealth_interval = 300ms\nhealth_failures = 1"


def write(where, name, text, mode=0o644):
    with open(os.path.join(where, name), "w", encoding="ascii") as f:
        f.write(text)
    os.chmod(os.path.join(where, name), mode)


def gated(where, name, program):
    write(where, name, GATED.format(program=program), 0o755)
    return f"./{name}"


def rows(where, ports):
    """(preset, command, text of its readiness) of what is installed."""
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    fpm = sorted(f"/usr/sbin/{n}" for n in os.listdir("/usr/sbin")
                 if re.match(r"php-fpm[0-9.]*$", n))
    uwsgi = shutil.which("uwsgi") and subprocess.run(
        ["uwsgi", "--plugin", "python3", "--version"], capture_output=True,
        check=False).returncode == 0
    all_of_them = [
        ("gunicorn", "gunicorn app:application", shutil.which("gunicorn"), "tcp"),
        ("uvicorn", "uvicorn app:asgi", shutil.which("uvicorn"), "log:Uvicorn running on socket"),
        ("hypercorn", "hypercorn app:asgi", shutil.which("hypercorn"), "tcp"),
        ("puma", "puma", shutil.which("puma"), "tcp"),
        ("unicorn", "unicorn config.ru", shutil.which("unicorn"), "tcp"),
        ("uwsgi", "uwsgi --plugin python3 --wsgi-file app.py --disable-logging", uwsgi, "tcp"),
        ("node", "node app.js %(listen_node)s", shutil.which("node"), "tcp"),
        ("nginx", nginx and gated(where, "nginx", nginx) + f" -p {where} -c nginx.conf",
         nginx, "log:start worker process "),
        ("php-fpm", fpm and gated(where, "fpm", fpm[-1]) + f" -y {where}/fpm.conf", fpm, "notify")]
    for preset, command, there, ready in all_of_them:
        if there:
            yield preset, command, ready
        else:
            print(f"# {preset} is not installed", flush=True)


@test("a worker that boots beside a healthy one is not ready before its own first answer")
def _():
    where = folder()
    os.chmod(where, 0o777)
    ports = {"nginx": free_port(), "php-fpm": free_port()}
    write(where, "app.py", PYTHON_APP)
    write(where, "config.ru", RACK_APP)
    write(where, "app.js", NODE_APP)
    write(where, "nginx.conf", NGINX_CONF.format(folder=where, address=f"127.0.0.1:{ports['nginx']}"))
    write(where, "fpm.conf", FPM_CONF.format(folder=where, address=f"127.0.0.1:{ports['php-fpm']}"))
    write(where, "gate", "")
    found = list(rows(where, ports))
    check(found, "no server is installed")
    ini = "[baton]\n"
    for preset, command, _ in found:
        # Without startsecs: it must not be time that makes them ready. And with the variable by which
        # several of them start processes of their own.
        ini += f"""[socket:{preset}]
listen = 127.0.0.1:{ports.get(preset, 0)}
[program:{preset}]
preset = {preset}
command = {command}
directory = {where}
environment = PYTHONDONTWRITEBYTECODE="1",HOME="{where}",WEB_CONCURRENCY="2"
sockets = {preset}
startsecs = 100ms
stopwaitsecs = 8s
{HEALTH if preset not in ("uvicorn", "nginx", "php-fpm") else ""}
"""
    one = Instance(ini, folder=where)
    dump = baton("check", "--dump", "-c", one.config, status=0).out
    for preset, _, ready in found:
        check(f"; preset {preset}\nready = {ready}\n" in dump, f"readiness of {preset}: {dump}")
        one.wait_for(f"ready={preset}", 15)
    os.unlink(os.path.join(where, "gate"))
    for preset, *_ in found:
        one.call("scale", program=preset, workers=2)
    time.sleep(3)
    addresses = {s["name"]: s["listen"] for s in one.status()["sockets"]}
    for preset, *_ in found:
        new = one.worker(f"{preset}:1")
        equal((new["state"], new["ready"]), ("starting", False), f"{preset}:1 while it boots")
        if preset != "php-fpm":
            equal(http_get(f"http://{addresses[preset]}/", 5)[0], 200, f"{preset}:0 serves on")
    write(where, "gate", "")
    opened = time.monotonic()
    for preset, *_ in found:
        one.wait_for(f"ready={preset}", 10)
        print(f"# {preset}: ready {time.monotonic() - opened:.2f} s after the end of its boot",
              flush=True)
    time.sleep(1)       # three probes of its health
    for preset, *_ in found:
        for w in one.workers(preset):
            equal((w["ready"], w["restarts"]), (True, 0), f"{w['name']} (ready, restarts)")
    one.stop(timeout=25)


if __name__ == "__main__":
    main()

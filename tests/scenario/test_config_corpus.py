#!/usr/bin/python3
"""Real supervisord.conf files: what supervisord would start, baton accepts, and both see the same
processes. What depends on this machine (users, directories, variables) is left out on both sides.
"""
import collections
import glob
import os
import re
import subprocess
import sys
import tempfile
import unittest.mock

BUILD = os.environ.get("BATON_BUILD", "build")
HELPER = os.path.join(BUILD, "tests", "lib", "ini_dump")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORPUS = os.environ.get("BATON_CORPUS", os.path.join(ROOT, "..", "shared", "corpus"))
MACHINE = re.compile(r"there is no (user|group)|does not exist|not an existing directory|"
                     r"the environment variable \S+ is not set|no file matches|"
                     r"only root can become another user")
VARIABLE = re.compile(r"%\(ENV_(\w+)\)")
results = []


def import_supervisor():
    try:
        import warnings
        warnings.simplefilter("ignore")
        from supervisor import datatypes, options
        return options, datatypes
    except ImportError:
        return None


def supervisord(modules, path):
    """(why it refuses or None, {name: fields})"""
    options, _ = modules
    same = lambda value: value
    with unittest.mock.patch.multiple(
            options, existing_directory=same, existing_dirpath=same,
            name_to_uid=lambda name: 0, gid_for_uid=lambda uid: 0), \
            unittest.mock.patch("supervisor.datatypes.existing_dirpath", same):
        o = options.ServerOptions()
        o.configfile = path
        o.here = os.path.dirname(path)
        o.environ_expansions = {"ENV_" + k: v for k, v in os.environ.items()}
        try:
            section = o.read_config(path)
        except Exception as why:  # it raises whatever comes along
            return str(why) or repr(why), {}
    workers = {}
    for group in section.process_group_configs:
        if isinstance(group, (options.EventListenerPoolConfig, options.FastCGIGroupConfig)):
            continue
        for p in group.process_configs:
            if isinstance(p, options.FastCGIProcessConfig):
                continue
            stdout = p.stdout_logfile
            workers[group.name + ":" + p.name] = {
                "command": p.command, "directory": p.directory or "",
                "priority": p.priority, "autostart": int(p.autostart),
                "startsecs": p.startsecs, "startretries": p.startretries,
                "stopsignal": int(p.stopsignal), "stopwaitsecs": p.stopwaitsecs,
                "stopasgroup": int(p.stopasgroup), "killasgroup": int(p.killasgroup),
                "redirect_stderr": int(p.redirect_stderr),
                "umask": -1 if p.umask is None else p.umask,
                "stdout": "NONE" if stdout is None else
                          "AUTO" if not isinstance(stdout, str) else os.path.abspath(stdout),
                "exitcodes": sorted(p.exitcodes), "environment": p.environment,
            }
    return None, workers


NUMBERS = ["priority", "autostart", "autorestart", "startsecs", "startretries", "stopsignal",
           "stopwaitsecs", "stopasgroup", "killasgroup", "redirect_stderr", "umask"]


def baton(path):
    """(errors that are not this machine's, whether it loads, {name: fields})"""
    run = subprocess.run([HELPER, "check", path], capture_output=True, timeout=30)
    lines = run.stdout.decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if line.startswith("error ")]
    real = [line for line in errors if not MACHINE.search(line)]
    workers = {}
    if run.returncode == 0:
        out = subprocess.run([HELPER, "worker", path], capture_output=True, timeout=30)
        fields = collections.deque(out.stdout.decode("utf-8", "replace").split("\0")[:-1])
        while fields and fields.popleft() == "worker":
            group, name, command, directory = (fields.popleft() for _ in range(4))
            w = {key: int(fields.popleft()) for key in NUMBERS}
            w.update(command=command, directory=directory, stdout=fields.popleft())
            w["exitcodes"] = sorted(int(fields.popleft()) for _ in range(int(fields.popleft())))
            while fields.popleft() != "environment":
                pass
            w["environment"] = {}
            while fields[0] != "end":
                key = fields.popleft()
                w["environment"][key] = fields.popleft()
            fields.popleft()
            workers[group + ":" + name] = w
    if run.returncode not in (0, 1):
        real.append("error the helper ended with %d: %s" % (run.returncode, run.stderr[-300:]))
    return real, run.returncode == 0, workers


def differences(a, b):
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b:
            yield "%s: only in %s" % (name, "supervisord" if name in a else "baton")
            continue
        for key, value in a[name].items():
            if b[name][key] != value:
                yield "%s %s: supervisord %r, baton %r" % (name, key, value, b[name][key])


def prepare(source, folder):
    """A copy that both can start on this machine: a [supervisord] section, users that exist, log
    files in a folder that exists, and no included files."""
    with open(source, encoding="utf-8", errors="surrogateescape", newline="") as f:
        body = f.read()
    for name in VARIABLE.findall(body):
        os.environ.setdefault(name, "1")
    if not re.search(r"^\[supervisord\]", body, re.M):
        body += "\n[supervisord]\n"
    body = re.sub(r"(?m)^(user|chown|socket_owner)\s*[=:].*$", r"\1=root", body)
    body = re.sub(r"(?m)^((?:stdout_|stderr_)?logfile|pidfile)(\s*[=:]\s*)/(?!dev/)\S*/", r"\1\2/tmp/",
                  body)
    body = re.sub(r"(?m)^(directory|childlogdir)\s*[=:].*$", r"\1=/tmp", body)
    path = os.path.join(folder, "supervisord.conf")
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as f:
        f.write(body)
    return path


def check(name, problems):
    results.append(not problems)
    print("%s %d - %s" % ("not ok" if problems else "ok", len(results), name))
    for line in problems:
        print("#   " + line)


def main():
    files = sorted(glob.glob(os.path.join(CORPUS, "supervisord", "*.conf")))
    modules = import_supervisor()
    skip = ("%s is not built" % HELPER if not os.access(HELPER, os.X_OK) else
            "no corpus (BATON_CORPUS)" if not files else
            "no supervisor module" if not modules else None)
    if skip:
        print("1..1\nok 1 - corpus # SKIP %s" % skip)
        return 0
    loaded = 0
    with tempfile.TemporaryDirectory() as folder:
        for source in files:
            path = prepare(source, folder)
            why, theirs = supervisord(modules, path)
            errors, loads, ours = baton(path)
            if why:
                check("%s: supervisord refuses it" % os.path.basename(source), [])
                if loads:
                    print("#   baton takes it, supervisord says: %s" % why.replace("\n", " ")[:200])
                continue
            problems = list(errors)
            if loads:
                loaded += 1
                problems += differences(theirs, ours)
            name = os.path.basename(source)
            again, _, _ = baton(source)  # as it is, in its place
            problems += again
            check("%s: accepted%s" % (name, ", the same processes" if loads else ""), problems)
    print("# %d of %d files load here and were compared" % (loaded, len(files)))
    print("1..%d" % len(results))
    return 0 if all(results) else 1


sys.exit(main())

#!/usr/bin/python3
"""Every value of generated files, read by conf/ in compatibility mode and by Python's configparser
as supervisord uses it: both must see the same bytes, whatever their length."""
import configparser
import os
import random
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("BATON_BUILD", "build")
HELPER = os.path.join(BUILD, "tests", "lib", "ini_dump")
SEED = int(os.environ.get("BATON_SEED", random.randrange(1 << 32)))
SECONDS = 8
PIECES = ["a", "B7", " ", "  ", "\t", ";", "#", " ;", " #", "=", ":", "'", '"', "%(x)s", "%", "\\",
          "[", "]", "ü", "漢字", "\u00a0", "\u3000", ",", "$X", "|", "/", "-", "\x0b", "\x1c", "…"]
results = []


def ours(path):
    run = subprocess.run([HELPER, "raw", "compat", path], capture_output=True, timeout=30)
    if run.returncode != 0:
        return None
    parts = run.stdout.decode("utf-8").split("\0")[:-1]
    return {(parts[i], parts[i + 1]): parts[i + 2] for i in range(0, len(parts), 3)}


def theirs(path):
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    try:
        with open(path, encoding="utf-8") as f:
            parser.read_file(f)
    except configparser.Error:
        return None
    return {(s, k): v for s in parser.sections() for k, v in parser.items(s)}


def text(rng, longest):
    length = int(longest ** rng.random())
    pieces = []
    size = 0
    while size < length:
        piece = rng.choice(PIECES) if rng.random() < 0.5 else "x" * rng.randrange(1, 40)
        if rng.random() < 0.02:
            piece = "y" * min(length, 300)
        pieces.append(piece)
        size += len(piece)
    return "".join(pieces)


def one_file(rng, longest):
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    lines = []
    if rng.random() < 0.2:
        lines.append("; a comment first")
    if rng.random() < 0.3:
        lines += ["[DEFAULT]", "inherited = " + text(rng, 50), "shared: d"]
    for number in range(rng.randrange(1, 6)):
        name = rng.choice(["program:p%d", "group:g%d", "x y %d", "long" + "n" * 300 + "%d",
                           "ü%d", "b]r%d"]) % number
        indent = rng.choice(["", "", "", " ", "\t"])
        lines.append(indent + "[" + name + "]" + rng.choice(["", " ; c", "#no", " tail"]))
        for _ in range(rng.randrange(0, 8)):
            kind = rng.random()
            key = rng.choice(["key%d" % rng.randrange(5), "shared", "Mixed_Case",
                              "k" * rng.choice([1, 49, 50, 51, 200, 1000])])
            sign = rng.choice(["=", " = ", ":", " : ", "= ", "\t=\t"])
            if kind < 0.8:
                lines.append(indent + key + sign + text(rng, longest))
                for _ in range(rng.choice([0, 0, 0, 1, 3])):
                    lines.append(indent + rng.choice([" ", "\t", "    "]) + text(rng, 200))
                if rng.random() < 0.2:
                    lines.append("")
                if rng.random() < 0.1:
                    lines.append("   ")
            elif kind < 0.9:
                lines.append(rng.choice(["; note = x", "# note", "   ; indented", ""]))
            else:
                lines.append(indent + key + sign)
    # newline="" below: what is written is what was made
    return end.join(lines) + rng.choice(["", end, end + end])


def compare(path):
    a, b = theirs(path), ours(path)
    if a == b:
        return True
    print("# file %s" % path)
    if a is None or b is None:
        print("# configparser %s, baton %s" % ("refuses" if a is None else "reads",
                                               "refuses" if b is None else "reads"))
        return False
    for key in sorted(set(a) | set(b)):
        if a.get(key) != b.get(key):
            print("# %.80r: configparser %.200r, baton %.200r" % (key, a.get(key), b.get(key)))
    return False


def check(name, good):
    results.append(good)
    print("%s %d - %s" % ("ok" if good else "not ok", len(results), name))


def lengths(folder):
    """Values of every length around the limits of the packaged inih, and of up to 1 MiB."""
    sizes = list(range(1, 260)) + [1000, 4095, 4096, 4097, 65535, 65536, 1 << 20]
    path = os.path.join(folder, "lengths.ini")
    with open(path, "w", encoding="utf-8") as f:
        for size in sizes:
            f.write("[s%d]\nvalue = %s\n%s = 1\n" % (size, "v" * size, "k" * size))
            f.write("[%s]\nx=1\n" % ("n" * size))
            f.write("quoted = \"%s ; not a comment for baton\"\n" % ("q" * size))
    check("values, keys and sections of 1 byte to 1 MiB", compare(path))


def special(folder):
    cases = {
        "empty value at the end": "[a]\nx =",
        "blank lines in values": "[a]\nx = 1\n\n  2\n\n\n  3\n\ny = 4\n",
        "comment lines in values": "[a]\nx = 1\n; c\n  2\n  # c\n  3 ; c\n",
        "both comment signs": "[a]\nx = a#b #c   ;d\ny = a;b ;c #d\nz = ;all\n",
        "indented sections": "  [a]\n  x = 1\n    2\n y = 3\n",
        "a section twice": "[a]\nx = 1\ny = 2\n[b]\n[a]\nx = 3\n",
        "defaults": "[DEFAULT]\nx = 1\n[a]\n[b]\nx = 2\n[DEFAULT]\nz = 5\n",
        "no section": "x = 1\n[a]\n",
        "no sign": "[a]\nx\n",
        "no key": "[a]\n= 1\n",
        "brackets": "[a]b]c]\nx = 1\n[]\n",
        "NEL and line separators": "[a]\nx = 1\u0085\u20282\n",
        "form feed": "[a]\n\x0cx = 1\x0c\n",
    }
    for name, body in cases.items():
        path = os.path.join(folder, "special.ini")
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.write(body)
        check(name, compare(path))
    with open(path, "wb") as f:
        f.write(b"\xef\xbb\xbf[a]\r\nx = 1\r\n")
    check("a byte order mark is skipped", ours(path) == {("a", "x"): "1"})


def includes(folder):
    main = os.path.join(folder, "main.conf")
    os.mkdir(os.path.join(folder, "conf.d"))
    with open(main, "w", encoding="utf-8") as f:
        f.write("[supervisord]\n[include]\nfiles = conf.d/*.conf\n")
    for name in ("b", "a"):
        with open(os.path.join(folder, "conf.d", name + ".conf"), "w", encoding="utf-8") as f:
            f.write("[program:%s]\ncommand = /bin/echo %%(here)s\nnumprocs_start = 0\n" % name)
            f.write("environment = X=\"%s\"\n[program:both]\ncommand = /bin/echo %s\n"
                    % ("v" * 5000, name))
    run = subprocess.run([HELPER, "worker", main], capture_output=True, timeout=30)
    fields = run.stdout.decode().split("\0")
    here = os.path.join(folder, "conf.d")
    check("included files: sorted, %(here)s of each, the later wins",
          run.returncode == 0 and "/bin/echo " + here in fields and "v" * 5000 in fields
          and "/bin/echo b" in fields and "/bin/echo a" not in fields)


def generated(folder):
    rng = random.Random(SEED)
    end = time.monotonic() + SECONDS
    count = bad = 0
    while time.monotonic() < end and bad == 0:
        path = os.path.join(folder, "generated.ini")
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.write(one_file(rng, 1 << 20 if count % 50 == 0 else 400))
        bad += not compare(path)
        count += 1
    if bad:
        keep = os.path.join(tempfile.gettempdir(), "configparser-%d.ini" % SEED)
        os.replace(path, keep)
        print("# kept as %s" % keep)
    check("%d generated files" % count, bad == 0)


def main():
    print("# seed %d" % SEED)
    if not os.access(HELPER, os.X_OK):
        print("1..1\nok 1 - configparser # SKIP %s is not built" % HELPER)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        lengths(folder)
        special(folder)
        includes(folder)
        generated(folder)
    print("1..%d" % len(results))
    return 0 if all(results) else 1


sys.exit(main())

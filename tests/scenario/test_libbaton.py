#!/usr/bin/python3
"""libbaton as its users meet it: pkg-config, strict C99, C++, shared and static; what it exports."""

import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from fake_supervisor import World  # noqa: E402
from harness import BUILD, check, equal, folder, main, need, skip, test  # noqa: E402

PROGRAM = r"""
#include <baton.h>
#include <stdio.h>

int main(void)
{
	struct baton *b;
	struct baton_event event;
	char error[256] = "";

	if (baton_open(&b, error, sizeof(error)) < 0) {
		printf("%s\n", error);
		return 2;
	}
	if (baton_listen(b) < 0 || baton_next_event(b, &event) != 1 || event.kind != BATON_PROMOTE)
		return 3;
	if (!baton_is_executor(b) || !baton_may_start(b) || baton_term(b) != event.term)
		return 4;
	if (baton_promoted(b, event.term) != 0 || baton_busy(b, 1) != 0 || baton_ready() != 0)
		return 5;
	baton_close(b);
	return 0;
}
"""


def library(name):
    path = os.path.join(BUILD, name)
    if not os.path.exists(path):
        skip(f"{name} is not built (make)")
    return path


def run(*command, env=None, **keywords):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, **(env or {})}, timeout=60, **keywords)
    return done.returncode, done.stdout


def install():
    """What `make install` makes of the library, below a folder of this test."""
    place = folder()
    for kind, names in (("include", [os.path.join(ROOT, "worker", "baton.h")]),
                        ("lib", [library("libbaton.a"), library("libbaton.so.0")])):
        os.mkdir(os.path.join(place, kind))
        for name in names:
            shutil.copy(name, os.path.join(place, kind))
    os.symlink("libbaton.so.0", os.path.join(place, "lib", "libbaton.so"))
    with open(library("baton.pc"), encoding="utf-8") as file:
        text = file.read()
    prefix = re.search(r"^prefix=(.*)$", text, re.M)[1]
    with open(os.path.join(place, "lib", "baton.pc"), "w", encoding="utf-8") as file:
        file.write(text.replace(prefix, place))
    for name, suffix in (("user.c", PROGRAM), ("user.cc", PROGRAM)):
        with open(os.path.join(place, name), "w", encoding="utf-8") as file:
            file.write(suffix)
    return place


def flags(place, *more):
    need("pkg-config")
    status, text = run("pkg-config", "--cflags", "--libs", *more, "baton",
                       env={"PKG_CONFIG_PATH": os.path.join(place, "lib")})
    equal(status, 0, text)
    return text.split()


def compile_and_run(place, command, libraries):
    need(command[0])
    program = os.path.join(place, "user")
    status, text = run(*command, "-o", program, *libraries, cwd=place)
    equal((status, text), (0, ""), " ".join(command))
    path = {"LD_LIBRARY_PATH": os.path.join(place, "lib")}
    status, text = run(program, env=path)
    check(status == 2 and "not started by baton" in text, f"{status}: {text}")
    with World() as w:
        w.show(77)
        status, text = run(program, env={**path, **w.environ},
                           pass_fds=(w.read_only, w.theirs.fileno()))
        equal((status, text), (0, ""), " ".join(command))
        equal([w.hear() for _ in range(3)], ["hello", "promoted 77", "busy 1"])


STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic-errors")


@test("a C99 program uses the shared library through pkg-config")
def _():
    place = install()
    compile_and_run(place, ("cc", "-std=c99", *STRICT, "user.c"), flags(place))


@test("a C++ program does too")
def _():
    place = install()
    compile_and_run(place, ("c++", "-std=c++11", *STRICT, "user.cc"), flags(place))


@test("a C99 program uses the static library, with libc alone")
def _():
    place = install()
    compile_and_run(place, ("cc", "-std=c99", *STRICT, "-I", os.path.join(place, "include"),
                            "user.c"), [os.path.join(place, "lib", "libbaton.a")])


@test("the header's functions are what is exported, with a version, and no more")
def _():
    need("nm")
    with open(os.path.join(ROOT, "worker", "baton.h"), encoding="utf-8") as file:
        declared = set(re.findall(r"^\w[\w \*]*?\b(baton_\w+)\(", file.read(), re.M))
    status, text = run("nm", "-D", "--defined-only", library("libbaton.so.0"))
    equal(status, 0, text)
    names = [line.split()[2] for line in text.splitlines() if line.split()[1] != "A"]
    equal({name.partition("@@")[0] for name in names}, declared)
    check(all(name.endswith("@@BATON_0.1") for name in names), text)
    with open(os.path.join(ROOT, "worker", "libbaton.3"), encoding="utf-8") as file:
        manual = set(re.findall(r"^\.Fn (baton_\w+)", file.read(), re.M))
    equal(manual, declared, "functions in libbaton.3")


@test("the shared library needs libc alone")
def _():
    need("readelf")
    status, text = run("readelf", "-d", library("libbaton.so.0"))
    equal(status, 0, text)
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", text)
    if any("san" in name for name in needed):
        skip("a sanitizer's build")
    equal(needed, ["libc.so.6"])
    check("[libbaton.so.0]" in text, "no soname")


if __name__ == "__main__":
    main()

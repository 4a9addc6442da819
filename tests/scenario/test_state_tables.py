#!/usr/bin/python3
"""The state tables in baton.8 are those of the program (`make docs` writes them)."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("BATON_BUILD") or os.path.join(ROOT, "build"))
HELPER = os.path.join(BUILD, "tests", "lib", "print_tables")


def main():
    if not os.access(HELPER, os.X_OK):
        print("1..1\nok 1 - state tables # SKIP %s is not built" % HELPER)
        return 0
    printed = subprocess.run([HELPER], capture_output=True, timeout=30, check=True).stdout.decode()
    with open(os.path.join(ROOT, "supervisor", "baton.8"), encoding="utf-8") as f:
        manual = f.read()
    same = printed in manual and len(printed.splitlines()) > 100
    print("%s 1 - the state tables in baton.8 are those of the program" % ("ok" if same else "not ok"))
    if not same:
        wanted = set(manual.splitlines())
        print("# a transition has changed: `make docs` writes the manual's tables anew. Lines that differ:")
        for line in printed.splitlines():
            if line not in wanted:
                print("#   " + line)
    print("1..1")
    return 0 if same else 1


sys.exit(main())

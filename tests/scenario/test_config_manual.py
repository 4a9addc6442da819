#!/usr/bin/python3
"""baton.ini(5) lists every setting as the schema has it, and the sample is valid."""
import glob
import os
import subprocess
import sys

BUILD = os.environ.get("BATON_BUILD", "build")
HELPER = os.path.join(BUILD, "tests", "lib", "ini_dump")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONF = os.path.join(ROOT, "conf")


def main():
    if not os.access(HELPER, os.X_OK):
        print("1..1\nok 1 - manual # SKIP %s is not built" % HELPER)
        return 0
    listed = subprocess.run([HELPER, "manual"], capture_output=True, timeout=30, check=True)
    with open(os.path.join(CONF, "baton.ini.5"), encoding="utf-8") as f:
        manual = f.read()
    same = listed.stdout.decode() in manual
    print("%s 1 - the settings in baton.ini.5 are those of the schema" % ("ok" if same else "not ok"))
    if not same:
        print("# put what '%s manual' prints between SETTINGS and the skipped sections" % HELPER)
    samples = [os.path.join(CONF, "baton.ini"), *sorted(glob.glob(os.path.join(CONF, "examples", "*.ini")))]
    good = same
    for number, sample in enumerate(samples, 2):
        check = subprocess.run([HELPER, "check", sample], capture_output=True, timeout=30)
        valid = check.returncode == 0 and not check.stdout
        print("%s %d - the sample %s is valid" % ("ok" if valid else "not ok", number,
                                                  os.path.relpath(sample, CONF)))
        for line in check.stdout.decode().splitlines():
            print("#   " + line)
        good = good and valid
    print("1..%d" % (len(samples) + 1))
    return 0 if good else 1


sys.exit(main())

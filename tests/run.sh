#!/bin/sh
# Builds and runs every test; arguments choose programs by a part of their name. See runner.py.
cd "$(dirname "$0")/.." && exec /usr/bin/python3 tests/lib/runner.py "$@"

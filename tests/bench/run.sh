#!/bin/sh
# make bench: the measured figures beside the bare limits of the same run.
set -eu
BATON_BUILD=$(cd "${1:-build}" && pwd)
export BATON_BUILD
cd "$(dirname "$0")/../.."
echo "# bare limits"
"$BATON_BUILD/tests/bench/bench_limits"
echo "# libbaton"
"$BATON_BUILD/tests/bench/bench_client"
echo "# the real binary: value, unit, goal"
/usr/bin/python3 tests/bench/bench_election.py

#!/bin/sh
# make bench: the measured figures beside the bare limits, and the peers, of the same run.
set -u
BATON_BUILD=$(cd "${1:-build}" && pwd) || exit 2
export BATON_BUILD
cd "$(dirname "$0")/../.." || exit 2
status=0
echo "bare limits of this machine (name, median)"
"$BATON_BUILD/tests/bench/bench_limits" || status=1
echo
echo "libbaton (name, median, goal or limit)"
"$BATON_BUILD/tests/bench/bench_client" || status=1
echo
echo "the ledger of job runs (name, median; the heartbeat's commit is the limit)"
"$BATON_BUILD/tests/bench/bench_ledger" || status=1
for part in tests/bench/bench_*.py; do
	/usr/bin/python3 "$part" || status=1
done
exit $status

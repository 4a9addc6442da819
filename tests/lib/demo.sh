#!/bin/sh
# The demonstration: demo.sh BATON [SECONDS]. Without SECONDS it runs until Ctrl-C; with SECONDS it
# kills the executor by itself, shows who took over, and ends with status 0. Database and sockets
# are in a folder of their own, which is removed at the end, unless a second instance uses it.
set -u
baton=$1
seconds=${2:-}
file=conf/examples/demo.ini
BATON_DEMO_DIR=$(mktemp -d "${TMPDIR:-/tmp}/baton-demo.XXXXXX") || exit 1
export BATON_DEMO_DIR
pid=""

clean() {
	if [ -n "$pid" ]; then
		kill -TERM "$pid" 2>/dev/null && wait "$pid"
	fi
	# The database of a second instance that goes on is not taken from under it.
	for other in "$BATON_DEMO_DIR"/*.sock; do
		if [ -S "$other" ] && "$baton" status -c "$file" -s "$other" >/dev/null 2>&1; then
			echo "demo: another instance goes on; when it has ended: rm -r $BATON_DEMO_DIR"
			return
		fi
	done
	rm -rf "$BATON_DEMO_DIR"
}
trap clean EXIT
# A closed terminal, a closed pipe behind us: the same way out.
trap 'exit 1' HUP TERM PIPE
# The terminal, as the standard input that a shell takes away from what runs beside it.
exec 3<&0

fail() {
	echo "demo: $*" >&2
	exit 1
}

cat <<TEXT
Four workers of a small web service behind one socket, a scheduler in each: only
the executor's ticks. To try, in another terminal:

    cd $(pwd) && export BATON_DEMO_DIR=$BATON_DEMO_DIR
  the state, live
    $baton status --watch -c $file
  the baton moves, without a gap
    $baton handoff -c $file
  the row in the database
    $baton lock info -c $file
  a second instance: it stands by until the first one is gone
    $baton run -c $file -s \$BATON_DEMO_DIR/two.sock
  the file is read again, the workers are replaced one at a time
    $baton reload -c $file

or kill the executor: it prints the command when it is promoted.

TEXT

if [ -z "$seconds" ]; then
	echo "Ctrl-C ends it."
	echo
	# Ctrl-C goes to the whole terminal, also to baton: this shell only waits for it to end.
	trap : INT
	"$baton" run -c "$file" <&3 3<&- &
	pid=$!
	while :; do
		wait "$pid"
		status=$?
		kill -0 "$pid" 2>/dev/null || break
	done
	pid=""
	exit "$status"
fi

case $seconds in
*[!0-9]*) fail "SECONDS=$seconds is not a number" ;;
esac
part=$((seconds / 3))
[ "$part" -ge 1 ] || part=1

executor() { # KEY: pid or worker of the present executor
	"$baton" status --json -c "$file" | python3 -c \
		'import json, sys; print((json.load(sys.stdin).get("executor") or {}).get(sys.argv[1], ""))' \
		"$1"
}

trap 'exit 1' INT
"$baton" run -c "$file" <&3 3<&- &
pid=$!
tries=0
# The only wait without an event: there is nobody to ask before the control socket is there.
until [ -S "$BATON_DEMO_DIR/baton-demo.sock" ]; do
	tries=$((tries + 1))
	kill -0 "$pid" 2>/dev/null || { pid=""; fail "the supervisor ended"; }
	[ "$tries" -lt 200 ] || fail "no control socket after 10 s"
	sleep 0.05
done
"$baton" wait --for executor --timeout 20s -c "$file" || fail "nobody became the executor"
"$baton" status -c "$file"
sleep "$part"

old=$(executor pid)
[ -n "$old" ] || fail "there is no executor"
echo "--- demo: kill -9 $old ($(executor worker), the executor)"
kill -9 "$old"
"$baton" wait --for "executor!=$old" --timeout 20s -c "$file" || fail "nobody took over"
echo "--- demo: $(executor worker) took over, pid $(executor pid)"
sleep "$part"
"$baton" lock history -c "$file"
sleep "$part"

"$baton" shutdown -c "$file" || fail "the supervisor did not end in order"
wait "$pid"
status=$?
pid=""
exit "$status"

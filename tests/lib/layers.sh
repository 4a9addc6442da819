#!/bin/sh
# The layers of the tree, checked: who includes whom, what the core may call, and that every header
# compiles alone. Prints TAP. Argument: the build folder with the objects.
set -u
build=${1:-build}
count=0
bad=0

result() { # NAME COMPLAINTS
	count=$((count + 1))
	if [ -z "$2" ]; then
		echo "ok $count - $1"
	else
		bad=1
		echo "not ok $count - $1"
		printf '%s\n' "$2" | sed 's/^/# /'
	fi
}

# Lines "FILE:LINE:#include ..." of the files given whose include matches $1.
includes() {
	pattern=$1
	shift
	[ $# -gt 0 ] || return 0
	grep -nHE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]$pattern" "$@" 2>/dev/null
}

sources() { # FOLDER...: its C files
	for folder in "$@"; do
		find "$folder" -name '*.[ch]' 2>/dev/null
	done | sort
}

without() { # remove the files named from the list on standard input
	grep -vxF -e "$1" ${2:+-e "$2"} ${3:+-e "$3"}
}

# shellcheck disable=SC2046 # lists of files, none has a blank in its name
{
	result "conf includes nothing above it" \
		"$(includes '(worker|supervisor|tests)/' $(sources conf))"
	result "worker includes nothing of supervisor" \
		"$(includes '(supervisor|tests)/' $(sources worker))"
	result "worker/lock includes conf/err.h, its own, and the lease clock only" \
		"$(includes '[a-z]+/' $(sources worker/lock) |
			grep -vE '"(conf/err\.h|worker/lock/[a-z_]+\.h|worker/lease\.h)"|<')"
	result "the client library includes libc and itself only" \
		"$(includes '(conf|supervisor|tests|worker/[a-z_/]+\.h)' worker/client*.[ch] worker/baton.h |
			grep -vE '"worker/(baton|client_internal)\.h"')"
	result "the terminal includes neither core nor shell" \
		"$(includes 'supervisor/(core|shell)/' $(sources supervisor/cli))"
	result "the core includes its own, conf/config.h, conf/err.h, worker/lease.h and plain headers" \
		"$(includes '' $(sources supervisor/core) |
			grep -vE '"(supervisor/core/[a-z_]+\.h|conf/(config|err)\.h|worker/lease\.h)"' |
			grep -vE '<(assert|errno|inttypes|limits|stdarg|stdbool|stddef|stdint|string|sys/types|signal)\.h>')"
	result "libev is included in loop.c only" \
		"$(includes 'ev\.h' $(sources conf worker supervisor | without supervisor/shell/loop.c))"
	result "SQLite is included in worker/lock/store_s*.c, store_session.h and migrations.[ch] only" \
		"$(includes 'sqlite3\.h' $(sources conf worker supervisor |
			grep -vE '^worker/lock/(store_sql[a-z_]*\.c|store_session\.h|migrations\.[ch])$'))"
	result "libpq is included in store_postgres.c only" \
		"$(includes 'libpq-fe\.h' $(sources conf worker supervisor |
			without worker/lock/store_postgres.c))"
	result "libmicrohttpd is included in worker/http only" \
		"$(includes 'microhttpd\.h' $(sources conf worker supervisor | grep -v '^worker/http/'))"
	result "inih is included in conf only" \
		"$(includes 'ini\.h>' $(sources worker supervisor))"
	result "the default loop of libev is never used" \
		"$(grep -nE 'ev_default_loop|EV_DEFAULT' $(sources conf worker supervisor))"
	result "the supervisor neither sleeps nor makes threads" \
		"$(grep -nE '\b(sleep|usleep|nanosleep|pthread_create|system|popen)[[:space:]]*\(' \
			$(sources supervisor conf))"
	result "shell and core see the store through the keeper only" \
		"$(includes 'worker/lock/store_' $(sources supervisor/shell supervisor/core))"
}

# What the core's objects call. memcpy and friends the compiler may insert by itself.
allowed='^(mem(cpy|move|set|cmp|chr)|str[a-z]+|__(mem|str)[a-z]+_chk|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|lease_page_[a-z_]+)$'
objects=""
for source in supervisor/core/*.c; do
	object=$build/${source%.c}.o
	[ -f "$object" ] && objects="$objects $object"
done
if [ -n "$objects" ]; then
	# shellcheck disable=SC2086 # a list
	set -- $objects
	own=$(nm --defined-only "$@" | awk 'NF == 3 {print $3}' | sort -u)
	calls=$(nm -u "$@" | awk '$1 == "U" {print $2}' | sort -u)
	result "the core calls nothing but itself, mem*, str* and assertions" \
		"$(printf '%s\n' "$calls" | grep -vE "$allowed" | grep -vxF "$own")"
	# Constant tables of pointers lie in .data.rel.ro: read-only once relocated.
	result "the core has no data that can change" \
		"$(nm -f sysv "$@" | awk -F'|' \
			'$7 ~ /^\.(data|bss)|^\*COM/ && $7 !~ /^\.data\.rel\.ro/ {print $1}')"
else
	count=$((count + 1))
	echo "ok $count - the core's calls # SKIP not built in $build"
fi

alone=""
for header in $(git ls-files 'conf/*.h' 'worker/*.h' 'supervisor/*.h'); do
	[ -f "$header" ] || continue
	said=$(printf '#include "%s"\n' "$header" | ${CC:-cc} -std=c17 -Wall -Wextra -Werror -I. \
		-D_GNU_SOURCE -fsyntax-only -x c - 2>&1) || alone="$alone$header: $said
"
done
result "every header compiles alone" "$alone"
said=$(printf '#include "worker/baton.h"\n' | ${CC:-cc} -std=c99 -pedantic -Wall -Wextra -Werror \
	-I. -fsyntax-only -x c - 2>&1)
result "worker/baton.h is C99" "$said"

echo "1..$count"
exit "$bad"

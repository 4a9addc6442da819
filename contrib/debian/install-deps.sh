#!/bin/sh
# Installs what is missing on a Debian or Ubuntu machine. Says nothing when nothing is.
#
#   install-deps.sh run      what building needs, and python3 (the demonstration)
#   install-deps.sh check    that, and what the tests need
set -u

what=${1:-check}
needed="gcc libc6-dev make libev-dev libinih-dev libsqlite3-dev libjansson-dev python3"
extra=""
case $what in
run) ;;
check)
	needed="$needed libcmocka-dev binutils"
	# Real servers and a second compiler: without them their tests are skipped by name.
	extra="clang gunicorn uvicorn python3-apscheduler"
	command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || extra="$extra nginx-light"
	command -v node >/dev/null 2>&1 || extra="$extra nodejs"
	# The servers of the presets: 71 MB in all, most of it Ruby (30) and PHP (21). For Go a server that
	# takes LISTEN_FDS (13): the compiler alone has 464, and where it is there a test more runs.
	extra="$extra python3-hypercorn puma unicorn uwsgi-core uwsgi-plugin-python3 php-fpm"
	extra="$extra prometheus-node-exporter"
	command -v pkg-config >/dev/null 2>&1 || extra="$extra pkg-config"
	;;
*)
	echo "usage: install-deps.sh run|check" >&2
	exit 2
	;;
esac

missing() {
	# One query for all; unknown names are errors of dpkg-query that say the same: not there.
	have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
		sed -n 's/ installed$//p')
	for package in "$@"; do
		case "
$have
" in
		*"
$package
"*) ;;
		*) printf '%s ' "$package" ;;
		esac
	done
}

fail() {
	echo "install-deps: $*" >&2
	exit 1
}

if ! command -v dpkg-query >/dev/null 2>&1; then
	[ "$(uname -s)" = Linux ] || fail "baton runs on Linux only"
	echo "install-deps: not a Debian system; these packages, or their like, must be there:" \
		"$needed $extra" >&2
	exit 0
fi

# shellcheck disable=SC2086 # lists of words
{
	needed_missing=$(missing $needed)
	extra_missing=""
	[ -z "$extra" ] || extra_missing=$(missing $extra)
}
[ -n "$needed_missing$extra_missing" ] || exit 0
all="$needed_missing$extra_missing"

root=""
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		fail "missing packages: ${all}(not root and no sudo); run as root: apt-get install $all"
	fi
	root=sudo
	# Without a terminal nobody can type a password.
	[ -t 0 ] || root="sudo -n"
fi

apt() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

# Package lists may be missing (fresh container) or stale: then once more after an update.
install() {
	# shellcheck disable=SC2086
	apt install --no-install-recommends -y $1 2>/dev/null ||
		{ apt update && apt install --no-install-recommends -y $1; }
}

echo "install-deps: installing $all" >&2
if install "$all"; then
	# These packages start servers that nobody here asked for: nginx takes port 80.
	case " $extra_missing" in
	*" nginx-light "*) $root service nginx stop >/dev/null 2>&1 ;;
	esac
	case " $extra_missing" in
	*" php-fpm "*)
		for script in /etc/init.d/php*-fpm; do
			$root service "${script##*/}" stop >/dev/null 2>&1
		done
		;;
	esac
	case " $extra_missing" in
	*" prometheus-node-exporter "*) $root service prometheus-node-exporter stop >/dev/null 2>&1 ;;
	esac
	case " $extra_missing" in
	*" unicorn "*) $root service unicorn stop >/dev/null 2>&1 ;;
	esac
	exit 0
fi
if [ -n "$needed_missing" ]; then
	install "$needed_missing" || fail "cannot install: $needed_missing(apt-get failed)"
fi
echo "install-deps: cannot install: $extra_missing(their tests will be skipped)" >&2
exit 0

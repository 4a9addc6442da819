# Completion of baton for bash. Commands and options are asked of the binary itself, names of
# programs and workers of the running instance.
#   . baton.bash        or install it as /usr/share/bash-completion/completions/baton

_baton() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local baton=${COMP_WORDS[0]} command="" i
	local -a find=()

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-c | --config | -s | --socket)
			find+=("${COMP_WORDS[i]}" "${COMP_WORDS[++i]}")
			;;
		--for | --timeout | --since | --from | -n | --limit | -w | --workers | -b | --bind | --preset | --name) ((i++)) ;;
		--) return ;; # words of another command
		-*) ;;
		*) command=${command:-${COMP_WORDS[i]}} ;;
		esac
	done
	COMPREPLY=()
	case $previous in
	-c | --config | -s | --socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--for)
		mapfile -t COMPREPLY < <(compgen -W "executor role=holder ready=" -- "$current")
		return
		;;
	--timeout | -n | --limit | -w | --workers | -b | --bind | --preset | --name) return ;;
	esac
	if [[ $current == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$baton" help ${command:+"$command"} 2>/dev/null |
			grep -oE -- '^ .*--[a-z-]+' | grep -oE -- '--[a-z-]+')" -- "$current")
	elif [[ -z $command || $command == help ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$baton" help 2>/dev/null |
			sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p')" -- "$current")
	elif [[ $command == lock ]]; then
		mapfile -t COMPREPLY < <(compgen -W "info history release" -- "$current")
	elif [[ $command == jobs && $previous == jobs ]]; then
		mapfile -t COMPREPLY < <(compgen -W "next history output run pause resume" -- "$current")
	elif [[ $command == jobs ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$baton" jobs "${find[@]}" 2>/dev/null |
			sed -n '/^JOB /,$s/^\([^ ]*\)  .*/\1/p' | grep -v '^JOB$')" -- "$current")
	elif [[ $command =~ ^(start|stop|restart|status|signal|scale|handoff)$ ]]; then
		mapfile -t COMPREPLY < <(compgen -W "all $("$baton" status "${find[@]}" 2>/dev/null |
			sed -n '/^$/,$s/^ *\([^ ]*\)  .*/\1/p')" -- "$current")
		# A colon separates words for readline: what is before it stands there already.
		if declare -F __ltrim_colon_completions >/dev/null; then
			__ltrim_colon_completions "$current"
		fi
	fi
}
complete -F _baton baton

/* What stands in front of the server in a command: env, a shell, a program that starts it. */
#include <string.h>

#include "conf/preset.h"
#include "conf/words.h"

static bool is_one_of(const char *word, const char *const *names)
{
	const char *slash = strrchr(word, '/');

	for (; names && *names; names++) {
		if (strcmp(slash ? slash + 1 : word, *names) == 0)
			return true;
	}
	return false;
}

/* Behind variables, and `env` with its options and variables. */
static char *const *behind_env(char *const *argv)
{
	static const char *const env[] = {"env", NULL};
	static const char *const valued[] = {"-u", "--unset", "-C", "--chdir", NULL};
	bool after_env = false;

	for (; argv[0]; argv++) {
		if (is_one_of(argv[0], env))
			after_env = true;
		else if (after_env && is_one_of(argv[0], valued) && argv[1])
			argv++;
		else if (!strchr(argv[0], '=') && !(after_env && argv[0][0] == '-'))
			break;
	}
	return argv;
}

/* What follows `sh -c`: the script, then its own words. NULL = no shell, or one that runs a file.
 */
static char *const *script_of(char *const *argv)
{
	static const char *const shells[] = {"sh", "bash", "dash", "ash", "ksh", "zsh", NULL};

	argv = behind_env(argv);
	if (!argv[0] || !is_one_of(argv[0], shells))
		return NULL;
	for (argv++; argv[0] && argv[0][0] == '-'; argv++) {
		if (argv[0][1] != '-' && strchr(argv[0], 'c'))
			return argv[1] ? argv + 1 : NULL;
	}
	return NULL;
}

static const char *wrapper_of(const struct preset *p, char *const *argv)
{
	argv = behind_env(argv);
	return argv[0] && is_one_of(argv[0], p->wrappers) ? argv[0] : NULL;
}

const char *preset_wrapper(struct arena *a, const struct preset *p, char *const *argv)
{
	static const char *const before[] = {"&&", "||", ";", "exec", NULL};
	char *const *script = script_of(argv);
	char **words;
	size_t count;

	if (!script)
		return wrapper_of(p, argv);
	if (words_split(a, *script, WORDS_POSIX, &words, &count, NULL) < 0)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		const char *last = i > 0 ? words[i - 1] : ";", *found;
		bool begins = is_one_of(last, before) || (*last && last[strlen(last) - 1] == ';');

		found = begins ? wrapper_of(p, words + i) : NULL;
		if (found)
			return found;
	}
	return NULL;
}

const char *preset_shell(char *const *argv, size_t appended)
{
	char *const *script = script_of(argv);

	if (!script)
		return NULL;
	/* the first word behind the script is its $0 */
	if (appended > 0 && !(strstr(*script, "\"$@\"") && script[1]))
		return "what the preset appends would go to the shell, not to the server: write "
		       "the command without 'sh -c', or as sh -c 'exec SERVER ... \"$@\"' sh";
	if (!strstr(*script, "exec "))
		return "the shell may stay in front of the server, which then gets neither its "
		       "sockets nor its stop signal: write the command without 'sh -c', or "
		       "'exec' before the server";
	return NULL;
}

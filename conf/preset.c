#include "conf/preset.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"

static const struct config_pair gunicorn_settings[] = {
	{"stopsignal", "TERM"},
	{"stopwaitsecs", "35s"}, /* graceful_timeout is 30 s */
	{NULL, NULL},
};
static const struct config_pair uvicorn_settings[] = {
	{"stopsignal", "TERM"},
	{"stopwaitsecs", "35s"}, /* it has no grace of its own: it waits for its requests */
	{NULL, NULL},
};
/* Output at once, not when a buffer of 8 KiB is full. */
static const struct config_pair python_environment[] = {{"PYTHONUNBUFFERED", "1"}, {NULL, NULL}};
static const int gunicorn_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM, SIGUSR1, SIGUSR2,
	SIGWINCH, SIGTTIN, SIGTTOU, SIGCHLD, 0};
static const int uvicorn_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTIN, SIGTTOU, 0};

static const struct preset presets[] = {
	{.name = "gunicorn",
		.built = true,
		.settings = gunicorn_settings,
		.environment = python_environment,
		.signals = gunicorn_signals,
		.most_sockets = 64,
		.no_listen_variables = true,
		.bind_options = {"-b", "--bind", NULL}},
	{.name = "uvicorn",
		.built = true,
		.settings = uvicorn_settings,
		.environment = python_environment,
		.signals = uvicorn_signals,
		.most_sockets = 1,
		.bind_options = {"--fd", "--host", "--port"}},
	{.name = "hypercorn"},
	{.name = "puma"},
	{.name = "unicorn"},
	{.name = "uwsgi"},
	{.name = "node"},
	{.name = "nginx"},
	{.name = "php-fpm"},
	{.name = "go"},
};

const struct preset *preset_find(const char *name)
{
	for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
		if (strcmp(name, presets[i].name) == 0)
			return &presets[i];
	}
	return NULL;
}

const char *preset_names(void)
{
	return "gunicorn, uvicorn";
}

const char *preset_value(const struct preset *p, const char *key)
{
	for (const struct config_pair *s = p->settings; s && s->key; s++) {
		if (strcmp(s->key, key) == 0)
			return s->value;
	}
	return NULL;
}

/* Whether WORD is the option: "-b", "-bX" for a short one; "--bind", "--bind=X" for a long one.
 * The value is in *RET_VALUE, NULL when it is the next word. */
static bool is_option(const char *word, const char *option, const char **ret_value)
{
	size_t bytes = strlen(option);

	*ret_value = NULL;
	if (strncmp(word, option, bytes) != 0)
		return false;
	if (option[1] != '-') {
		if (word[bytes])
			*ret_value = word + bytes + (word[bytes] == '=');
		return true;
	}
	if (word[bytes] == '=')
		*ret_value = word + bytes + 1;
	return !word[bytes] || word[bytes] == '=';
}

/* The value of the last such option, "" for one without, NULL for none. */
static const char *option_value(char *const *argv, const char *option)
{
	const char *found = NULL, *value;

	for (size_t i = 0; argv[i]; i++) {
		if (is_option(argv[i], option, &value))
			found = value ? value : argv[i + 1] ? argv[i + 1] : "";
	}
	return found;
}

const char *preset_own_bind(const struct preset *p, char *const *argv)
{
	for (size_t i = 1; argv[0] && argv[i]; i++) {
		for (size_t j = 0; j < 3 && p->bind_options[j]; j++) {
			const char *value;
			if (is_option(argv[i], p->bind_options[j], &value))
				return p->bind_options[j];
		}
	}
	return NULL;
}

char **preset_arguments(struct arena *a, const struct preset *p, char *const *argv,
	size_t socket_count, size_t *ret_count)
{
	char **words = arena_zero(a, (2 * socket_count + 3) * sizeof(*words));
	size_t n = 0;

	if (strcmp(p->name, "gunicorn") == 0) {
		/* baton's workers are the workers: each gunicorn has one. */
		if (!option_value(argv, "-w") && !option_value(argv, "--workers")) {
			words[n++] = arena_strdup(a, "-w");
			words[n++] = arena_strdup(a, "1");
		}
		for (size_t i = 0; i < socket_count; i++) {
			words[n++] = arena_strdup(a, "--bind");
			words[n++] = arena_printf(a, "fd://%zu", 3 + i);
		}
	} else if (strcmp(p->name, "uvicorn") == 0 && socket_count > 0) {
		words[n++] = arena_strdup(a, "--fd");
		words[n++] = arena_strdup(a, "3");
	}
	*ret_count = n;
	return words;
}

/* --- fast check ------------------------------------------------------------------------------ */

enum { FRONT_WORDS = 8 }; /* env, poetry run, python -m ... before the server's own name */

enum effect { MULTIPLIES, RECYCLES, PRELOADS, RELOADS };

static const struct suspect {
	const char *server, *option, *variable;
	enum effect effect;
} suspects[] = {
	{"gunicorn", "-w", NULL, MULTIPLIES},
	{"gunicorn", "--workers", NULL, MULTIPLIES},
	{"gunicorn", NULL, "WEB_CONCURRENCY", MULTIPLIES},
	{"gunicorn", "--max-requests", NULL, RECYCLES},
	{"gunicorn", "--preload", NULL, PRELOADS},
	{"gunicorn", "--reload", NULL, RELOADS},
	{"uvicorn", "--workers", NULL, MULTIPLIES},
	{"uvicorn", NULL, "WEB_CONCURRENCY", MULTIPLIES},
	{"uvicorn", "--limit-max-requests", NULL, RECYCLES},
	{"uvicorn", "--reload", NULL, RELOADS},
	{"hypercorn", "-w", NULL, MULTIPLIES},
	{"hypercorn", "--workers", NULL, MULTIPLIES},
	{"hypercorn", "--reload", NULL, RELOADS},
	{"puma", "-w", NULL, MULTIPLIES},
	{"puma", "--workers", NULL, MULTIPLIES},
	{"puma", NULL, "WEB_CONCURRENCY", MULTIPLIES},
	{"uwsgi", "-p", NULL, MULTIPLIES},
	{"uwsgi", "--processes", NULL, MULTIPLIES},
	{"uwsgi", "--workers", NULL, MULTIPLIES},
	{"uwsgi", "--max-requests", NULL, RECYCLES},
	{"granian", "--workers", NULL, MULTIPLIES},
};

static const char *base_name(const char *word)
{
	const char *slash = strrchr(word, '/');

	return slash ? slash + 1 : word;
}

static const char *environment_value(
	const struct config_pair *environment, size_t count, const char *name)
{
	for (size_t i = count; i > 0; i--) {
		if (strcmp(environment[i - 1].key, name) == 0)
			return environment[i - 1].value;
	}
	return getenv(name);
}

static const char *reason(
	struct arena *a, const struct suspect *s, const char *where, const char *value)
{
	int64_t number = 0;
	bool is_number = units_integer(value, &number, NULL) == 0;

	switch (s->effect) {
	case MULTIPLIES:
		if (is_number && number <= 1)
			return NULL;
		return arena_printf(a,
			"%.20s %s workers would share one lease: every one of them believes it is "
			"executor (%s); let baton have the workers: 'workers = %.20s' here",
			is_number ? value : "several", s->server, where, is_number ? value : "N");
	case RECYCLES:
		if (is_number && number == 0)
			return NULL;
		return arena_printf(a,
			"%s replaces its worker behind baton's back (%s): whatever the executor "
			"runs dies with it, with no handoff",
			s->server, where);
	case PRELOADS:
		return arena_printf(a,
			"%s loads the application in its master as well (%s): a scheduler started "
			"there runs beside the worker's",
			s->server, where);
	default:
		return arena_printf(a,
			"%s restarts its worker by itself (%s): whatever the executor runs dies "
			"with it, with no handoff",
			s->server, where);
	}
}

/* GUNICORN_CMD_ARGS holds options as the command line does; words with quotes in it are rare and
 * do not matter here. */
static char **command_arguments(struct arena *a, const char *text)
{
	size_t count = 0;
	char *rest = arena_strdup(a, text ? text : ""), *word;
	char **words = arena_zero(a, (strlen(rest) / 2 + 2) * sizeof(*words));

	while ((word = strsep(&rest, " \t\n")) != NULL) {
		if (*word)
			words[count++] = word;
	}
	words[count] = NULL;
	return words;
}

static const char *server_name(char *const *argv)
{
	for (size_t i = 0; i < FRONT_WORDS && argv[i]; i++) {
		for (size_t j = 0; j < sizeof(suspects) / sizeof(suspects[0]); j++) {
			if (strcmp(base_name(argv[i]), suspects[j].server) == 0)
				return suspects[j].server;
		}
	}
	return NULL;
}

const char *fastcheck(struct arena *a, char *const *argv, const struct config_pair *environment,
	size_t environment_count)
{
	const char *server = server_name(argv);
	char **more;

	if (!server)
		return NULL;
	more = command_arguments(
		a, strcmp(server, "gunicorn") == 0
			   ? environment_value(environment, environment_count, "GUNICORN_CMD_ARGS")
			   : NULL);
	for (size_t i = 0; i < sizeof(suspects) / sizeof(suspects[0]); i++) {
		const struct suspect *s = &suspects[i];
		const char *value, *why = NULL;
		if (strcmp(s->server, server) != 0)
			continue;
		if (s->variable) { /* the command line outranks it */
			value = environment_value(environment, environment_count, s->variable);
			if (value && !option_value(argv, "-w") && !option_value(argv, "--workers"))
				why = reason(a, s, s->variable, value);
		} else if ((value = option_value(argv, s->option)) != NULL) {
			why = reason(a, s, s->option, value);
		} else if ((value = option_value(more, s->option)) != NULL) {
			why = reason(a, s, "GUNICORN_CMD_ARGS", value);
		}
		if (why)
			return why;
	}
	return NULL;
}

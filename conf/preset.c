#include "conf/preset.h"

#include <signal.h>
#include <string.h>

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

const char *preset_option(char *const *argv, const char *option)
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
		if (!preset_option(argv, "-w") && !preset_option(argv, "--workers")) {
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

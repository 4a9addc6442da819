/* What a program does to itself that baton should do, told from its command line. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "conf/preset.h"
#include "conf/reader.h"
#include "conf/units.h"

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
	{"hypercorn", "--max-requests", NULL, RECYCLES},
	{"hypercorn", "--reload", NULL, RELOADS},
	{"puma", "-w", NULL, MULTIPLIES},
	{"puma", "--workers", NULL, MULTIPLIES},
	{"puma", NULL, "WEB_CONCURRENCY", MULTIPLIES},
	{"uwsgi", "-p", NULL, MULTIPLIES},
	{"uwsgi", "--processes", NULL, MULTIPLIES},
	{"uwsgi", "--workers", NULL, MULTIPLIES},
	{"uwsgi", "--max-requests", NULL, RECYCLES},
	{"uwsgi", "--py-autoreload", NULL, RELOADS},
	{"puma", "--preload", NULL, PRELOADS},
	{"unicorn", "--workers", NULL, MULTIPLIES}, /* in its file only */
	{"unicorn", "--preload", NULL, PRELOADS},
	{"nginx", "--workers", NULL, MULTIPLIES},
	{"php-fpm", "--workers", NULL, MULTIPLIES},
	{"php-fpm", "--max-requests", NULL, RECYCLES},
	{"pm2", "-i", NULL, MULTIPLIES},
	{"pm2", "--instances", NULL, MULTIPLIES},
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

/* Configuration files: what matters in them are plain lines, NAME = VALUE, NAME VALUE. As options:
 */
static const struct assignment {
	const char *server, *name, *option;
	bool yes_or_no;
} assignments[] = {
	{"gunicorn", "workers", "--workers", false},
	{"gunicorn", "max_requests", "--max-requests", false},
	{"gunicorn", "preload_app", "--preload", true},
	{"gunicorn", "reload", "--reload", true},
	{"puma", "workers", "--workers", false},
	{"puma", "preload_app!", "--preload", true},
	{"unicorn", "worker_processes", "--workers", false},
	{"unicorn", "preload_app", "--preload", true},
	{"uwsgi", "processes", "--processes", false},
	{"uwsgi", "workers", "--workers", false},
	{"uwsgi", "max-requests", "--max-requests", false},
	{"nginx", "worker_processes", "--workers", false},
	{"php-fpm", "pm.max_children", "--workers", false},
	{"php-fpm", "pm.max_requests", "--max-requests", false},
};

static const struct {
	const char *server, *options[2], *name; /* name: the file when no option names one */
} files[] = {
	{"gunicorn", {"-c", "--config"}, "gunicorn.conf.py"},
	{"puma", {"-C", "--config"}, "config/puma.rb"},
	{"unicorn", {"-c", "--config-file"}, NULL},
	{"uwsgi", {"--ini", NULL}, NULL},
	{"nginx", {"-c", NULL}, NULL},
	{"php-fpm", {"-y", "--fpm-config"}, NULL},
};

/* puma's "preload_app!" has no value */
static bool is_yes(const char *value)
{
	return !*value || *value == '\r' || strncasecmp(value, "true", 4) == 0;
}

static char *assignment(struct arena *a, const char *server, const char *line)
{
	line += strspn(line, " \t");
	for (size_t i = 0; i < sizeof(assignments) / sizeof(assignments[0]); i++) {
		const struct assignment *s = &assignments[i];
		size_t bytes = strlen(s->name);
		const char *p = line + bytes;
		if (strcmp(s->server, server) != 0 || strncmp(line, s->name, bytes) != 0)
			continue;
		if (*p && !strchr(" \t=\r", *p))
			continue;
		p += strspn(p, " \t");
		if (*p == '=' && p[1] == '=')
			continue;
		p += *p == '=';
		p += strspn(p, " \t");
		if (s->yes_or_no)
			return is_yes(p) ? arena_strdup(a, s->option) : NULL;
		return arena_printf(a, "%s=%.*s", s->option, (int)strcspn(p, " \t\r#;"), p);
	}
	return NULL;
}

/* The name of the server's file, NULL when there is none to look into. */
static const char *file_name(char *const *argv, const char *server)
{
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		const char *name = NULL;
		if (strcmp(files[i].server, server) != 0)
			continue;
		for (size_t j = 0; j < 2 && files[i].options[j] && !name; j++)
			name = preset_option(argv, files[i].options[j]);
		name = name ? name : files[i].name;
		return name && strncmp(name, "file:", 5) == 0 ? name + 5 : name;
	}
	return NULL;
}

/* The options that its file amounts to; none when it cannot be read: the server will say so. */
static char **file_arguments(struct arena *a, char *const *argv, const char *server,
	const char *directory, const char **ret_name)
{
	const char *name = file_name(argv, server), *path;
	size_t count = 0, capacity = 0, bytes;
	char **words = arena_grow(a, NULL, 0, &capacity, sizeof(*words)), *text, *line, *word;

	words[0] = NULL;
	*ret_name = NULL;
	if (!name)
		return words;
	path = name[0] == '/' ? name : arena_printf(a, "%s/%s", directory, name);
	*ret_name = base_name(name);
	if (reader_load(a, path, &text, &bytes, NULL) == 0) {
		while ((line = strsep(&text, "\n")) != NULL) {
			word = assignment(a, server, line);
			words = arena_grow(a, words, count + 1, &capacity, sizeof(*words));
			if (word)
				words[count++] = word;
		}
	}
	words[count] = NULL;
	return words;
}

/* php-fpm8.2, uwsgi-core are what they are called after. */
static bool is_server(const char *name, const char *server)
{
	size_t bytes = strlen(server);

	return strncmp(name, server, bytes) == 0 &&
	       (!name[bytes] || strcmp(name + bytes, "-core") == 0 ||
		       name[bytes + strspn(name + bytes, "0123456789.")] == '\0');
}

static const char *server_name(char *const *argv)
{
	for (size_t i = 0; i < FRONT_WORDS && argv[i]; i++) {
		for (size_t j = 0; j < sizeof(suspects) / sizeof(suspects[0]); j++) {
			if (is_server(base_name(argv[i]), suspects[j].server))
				return suspects[j].server;
		}
	}
	return NULL;
}

struct source {            /* of options, the highest rank first */
	const char *where; /* NULL: the option itself says it */
	char *const *words;
};

/* A number of workers is among them, in one spelling or another. */
static bool has_workers(char *const *words, const char *server)
{
	for (size_t i = 0; i < sizeof(suspects) / sizeof(suspects[0]); i++) {
		const struct suspect *s = &suspects[i];
		if (s->effect == MULTIPLIES && s->option && strcmp(s->server, server) == 0 &&
			preset_option(words, s->option))
			return true;
	}
	return false;
}

static const char *look_at(
	struct arena *a, const char *server, const struct source *sources, size_t source_count)
{
	for (size_t i = 0; i < sizeof(suspects) / sizeof(suspects[0]); i++) {
		const struct suspect *s = &suspects[i];
		bool found = false;
		if (strcmp(s->server, server) != 0 || !s->option)
			continue;
		for (size_t j = 0; j < source_count && !found; j++) {
			char *const *words = sources[j].words;
			const char *value = preset_option(words, s->option), *why;
			/* a number of workers of higher rank settles it */
			found = value || (s->effect == MULTIPLIES && has_workers(words, server));
			why = value ? reason(a, s, sources[j].where ? sources[j].where : s->option,
					      value)
				    : NULL;
			if (why)
				return why;
		}
	}
	return NULL;
}

/* The variable counts when nothing else gives a number of workers. */
static const char *look_at_variable(struct arena *a, const char *server,
	const struct source *sources, size_t source_count, const struct config_pair *environment,
	size_t environment_count)
{
	const char *value = environment_value(environment, environment_count, "WEB_CONCURRENCY");

	for (size_t j = 0; j < source_count; j++) {
		if (has_workers(sources[j].words, server))
			return NULL;
	}
	for (size_t i = 0; value && i < sizeof(suspects) / sizeof(suspects[0]); i++) {
		if (suspects[i].variable && strcmp(suspects[i].server, server) == 0)
			return reason(a, &suspects[i], suspects[i].variable, value);
	}
	return NULL;
}

const char *fastcheck(struct arena *a, char *const *argv, const struct config_pair *environment,
	size_t environment_count, const char *directory)
{
	const char *server = server_name(argv), *why;
	struct source sources[3] = {{NULL, argv}};
	size_t n = 1;

	if (!server)
		return NULL;
	if (strcmp(server, "gunicorn") == 0) {
		sources[n].where = "GUNICORN_CMD_ARGS";
		sources[n++].words = command_arguments(
			a, environment_value(environment, environment_count, "GUNICORN_CMD_ARGS"));
	}
	sources[n].words = file_arguments(a, argv, server, directory, &sources[n].where);
	n++;
	why = look_at(a, server, sources, n);
	return why ? why : look_at_variable(a, server, sources, n, environment, environment_count);
}

/* ready, health, probe: what they are together with the rest of the program. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/load.h"
#include "conf/preset.h"
#include "conf/probe.h"
#include "conf/units.h"
#include "conf/words.h"

static const struct config_probe by_time = {.kind = PROBE_STARTSECS, .text = "startsecs"};

static struct setting get(struct loader *l, const struct config_program *p, const char *key)
{
	return setting_key(l->data, SECTION_PROGRAM, p->raw->ini, p->raw->preset, key);
}

static void say(struct loader *l, const struct config_program *p, bool warning, const char *key,
	const char *text)
{
	struct setting s = get(l, p, key);

	load_report(l, warning, p->raw->ini, &s, "%s", text);
}

/* --- load ------------------------------------------------------------------------------------ */

/* The first worker's value; one that cannot be read is told later, with that worker. */
static struct config_probe first_value(
	struct loader *l, struct config_program *p, const char *key, struct setting *ret_s)
{
	struct config_probe probe = {.kind = PROBE_NONE, .text = ""};
	struct expand_scope scope;
	const char *text;

	*ret_s = get(l, p, key);
	load_scope(l->config, p, l->arena, 0, NULL, &scope);
	scope.here = ret_s->here;
	text = expand(l->arena, ret_s->text, &scope, NULL);
	if (text)
		(void)probe_parse(l->arena, text, strcmp(key, "health") == 0, &probe, NULL);
	probe.text = text ? text : ret_s->text;
	return probe;
}

static enum config_ready ready_of(enum config_probe_kind kind)
{
	switch (kind) {
	case PROBE_NOTIFY:
		return READY_NOTIFY;
	case PROBE_HTTP:
	case PROBE_TCP:
	case PROBE_EXEC:
		return READY_PROBE;
	case PROBE_FD:
		return READY_FD;
	case PROBE_LOG:
		return READY_LOG;
	default:
		return READY_STARTSECS;
	}
}

static void set_ready(struct config_program *p, const struct config_probe *ready)
{
	p->ready = ready_of(ready->kind);
	p->ready_text = ready->text;
}

void load_probes(struct loader *l, struct config_program *p)
{
	struct setting ready_setting, health_setting, wanted = get(l, p, "probe");
	struct config_probe ready, health;
	bool given = false, no;
	struct err e;

	p->probe = true; /* its variables may be used in what follows */
	ready = first_value(l, p, "ready", &ready_setting);
	health = first_value(l, p, "health", &health_setting);
	if (units_boolean(wanted.text, &given, &e) < 0)
		load_report(l, false, p->raw->ini, &wanted, "%s", e.text);
	no = wanted.source == SOURCE_FILE && !given;
	if (ready_setting.source == SOURCE_PRESET && ready.own && (p->socket_count == 0 || no))
		ready = by_time; /* where it listens, and with what, is the command's business */
	else if (ready_setting.source == SOURCE_PRESET && p->socket_count > 0 &&
		 p->raw->preset->ready_with_sockets)
		(void)probe_parse(
			l->arena, p->raw->preset->ready_with_sockets, false, &ready, NULL);
	set_ready(p, &ready);
	p->health = health.kind != PROBE_NONE;
	p->health_text = health.text;
	p->probe = given || ready.own || health.own;
	if (no && p->probe)
		load_report(l, false, p->raw->ini, &wanted,
			"'no' beside '%.60s', which goes through the probe listener",
			ready.own ? ready.text : health.text);
}

/* --- whose address --------------------------------------------------------------------------- */

static bool any_host(const char *host)
{
	return !host[0] || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ||
	       strcmp(host, "*") == 0 || strcmp(host, "localhost") == 0;
}

static bool is_socket(const struct config_socket *s, const struct config_probe *probe)
{
	return s->family != AF_UNIX && s->port == probe->port &&
	       (any_host(s->host) || strcmp(s->host, probe->host) == 0 ||
		       strcmp(probe->host, "0.0.0.0") == 0);
}

/* Why whoever answers there need not be the worker; NULL: it is. */
static const char *whose(struct loader *l, const struct config_program *p,
	const struct config_probe *probe, const char *raw)
{
	if (probe->own || (probe->kind != PROBE_HTTP && probe->kind != PROBE_TCP))
		return NULL;
	for (size_t i = 0; i < p->socket_count; i++) {
		const struct config_socket *s = &l->config->sockets[p->sockets[i]];
		if (is_socket(s, probe))
			return arena_printf(&l->scratch,
				"'%.200s' is [socket:%.100s], which all the workers share: it "
				"accepts "
				"before any of them runs, and any of them may answer",
				probe->text, s->name);
	}
	if (p->workers > 1 && !strstr(raw, "%(process_num)"))
		return arena_printf(&l->scratch,
			"'%.200s' is one address for all %d workers: any of them may answer",
			probe->text, p->workers);
	return NULL;
}

static void check_whose(struct loader *l, struct config_program *p, const struct config_worker *w)
{
	static const char way_out[] = "http:/PATH or tcp, which go to the worker's own probe "
				      "listener, are what is meant";
	const char *ready = whose(l, p, &w->ready, get(l, p, "ready").text);
	const char *health = whose(l, p, &w->health, get(l, p, "health").text);

	if (ready && p->startsecs_ns <= 0)
		say(l, p, false, "ready",
			arena_printf(&l->scratch,
				"%s; alone, with startsecs = 0, it says nothing: %s", ready,
				way_out));
	else if (ready)
		say(l, p, true, "ready",
			arena_printf(&l->scratch,
				"%s; so it counts only once the worker has been up for startsecs: "
				"%s",
				ready, way_out));
	p->ready_shared = ready != NULL;
	if (health)
		say(l, p, false, "health",
			arena_printf(
				&l->scratch, "%s; so it cannot judge one: %s", health, way_out));
}

/* --- what fits this command ------------------------------------------------------------------ */

static const char *variable(const struct config_worker *w, const char *name)
{
	for (size_t i = w->environment_count; i > 0; i--) {
		if (strcmp(w->environment[i - 1].key, name) == 0)
			return w->environment[i - 1].value;
	}
	return getenv(name);
}

static bool file_contains(const char *path, const char *word)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool found = false;
	struct stat st;
	void *text;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
		text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		found = text != MAP_FAILED &&
			memmem(text, (size_t)st.st_size, word, strlen(word)) != NULL;
		if (text != MAP_FAILED)
			munmap(text, (size_t)st.st_size);
	}
	close(fd);
	return found;
}

/* The program that the command runs has WORD in it. */
static bool program_contains(struct loader *l, const struct config_worker *w, const char *word)
{
	const char *path = variable(w, "PATH"), *name = w->argv[0];

	if (strchr(name, '/'))
		return file_contains(name[0] == '/'
					     ? name
					     : arena_printf(&l->scratch, "%s/%s",
						       w->directory[0] ? w->directory : ".", name),
			word);
	for (path = path ? path : "/bin:/usr/bin"; *path; path += *path == ':') {
		size_t bytes = strcspn(path, ":");
		const char *file = arena_printf(&l->scratch, "%.*s/%s", (int)bytes, path, name);
		if (access(file, X_OK) == 0)
			return file_contains(file, word);
		path += bytes;
	}
	return false;
}

static const char *uvicorn_is_silent(const struct config_worker *w)
{
	const char *level = preset_option(w->argv, "--log-level");

	if (preset_option(w->argv, "--log-config"))
		return "--log-config";
	if (!level)
		level = variable(w, "UVICORN_LOG_LEVEL");
	if (level && (strcasecmp(level, "warning") == 0 || strcasecmp(level, "error") == 0 ||
			     strcasecmp(level, "critical") == 0))
		return "--log-level";
	return NULL;
}

/* Its parent says that it runs before any child has loaded the application. */
static void check_uvicorn_parent(
	struct loader *l, struct config_program *p, const struct config_worker *w)
{
	const char *workers = preset_option(w->argv, "--workers");
	const char *reload = variable(w, "UVICORN_RELOAD"), *why = NULL;
	bool on = false;

	if (strcmp(p->preset, "uvicorn") != 0)
		return;
	if (preset_option(w->argv, "--reload") ||
		(reload && units_boolean(reload, &on, NULL) == 0 && on))
		why = "--reload";
	else if (workers && atoi(workers) > 1)
		why = "--workers";
	if (!why)
		return;
	if (get(l, p, "ready").source == SOURCE_PRESET)
		set_ready(p, &by_time);
	say(l, p, true, "command",
		arena_printf(&l->scratch,
			"with %s a parent of uvicorn's own stands in front of it, and says that "
			"it runs before the application is loaded%s; take it out, and write "
			"'workers = N' here for more workers",
			why, p->ready == READY_STARTSECS ? ": readiness is startsecs alone" : ""));
}

/* A preset's way of telling that this command's server does not have. */
static void check_preset_ready(
	struct loader *l, struct config_program *p, const struct config_worker *w)
{
	const char *silent;

	if (!w->argv || !p->raw->preset)
		return;
	check_uvicorn_parent(l, p, w);
	if (p->ready == READY_STARTSECS || get(l, p, "ready").source != SOURCE_PRESET)
		return;
	/* Not every php-fpm was built with it. */
	if (p->ready == READY_NOTIFY && !program_contains(l, w, "sd_notify"))
		set_ready(p, &by_time);
	silent = p->ready == READY_LOG && strcmp(p->preset, "uvicorn") == 0 ? uvicorn_is_silent(w)
									    : NULL;
	if (!silent)
		return;
	set_ready(p, &by_time);
	say(l, p, true, "command",
		arena_printf(&l->scratch,
			"with this %s uvicorn may not print the line by which it is known to be "
			"ready: readiness is startsecs alone; set 'ready' (log:TEXT, notify)",
			silent));
}

static bool has_word(char *const *argv, const char *word)
{
	for (; argv && *argv; argv++) {
		if (strcmp(*argv, word) == 0)
			return true;
	}
	return false;
}

/* gunicorn's arbiter says READY=1 before any of its workers has loaded the application. */
static void check_gunicorn_ready(
	struct loader *l, const struct config_program *p, const struct config_worker *w)
{
	if (p->ready != READY_NOTIFY || !p->preset || strcmp(p->preset, "gunicorn") != 0 ||
		has_word(w->argv, "--preload"))
		return;
	say(l, p, true, "ready",
		"gunicorn says READY=1 before it has loaded the application: a version that cannot "
		"start would replace every worker; use 'tcp' or 'http:/PATH' (or --preload)");
}

static void check_preset_probe(
	struct loader *l, const struct config_program *p, const struct config_worker *w)
{
	const struct preset *preset = p->raw->preset;
	const char *key = get(l, p, "probe").source == SOURCE_FILE ? "probe"
			  : w->ready.own                           ? "ready"
								   : "health";

	if (!preset || !p->probe)
		return;
	if (preset->no_probe)
		say(l, p, false, key, preset->no_probe);
}

/* --- the rest -------------------------------------------------------------------------------- */

static void check_exec(struct loader *l, const struct config_program *p, const char *key,
	const struct config_probe *probe)
{
	const char *syntax;

	if (probe->kind != PROBE_EXEC)
		return;
	syntax = words_shell_syntax(&l->scratch, probe->text + strlen("exec:"));
	if (syntax)
		say(l, p, true, key,
			arena_printf(&l->scratch,
				"'%s' is passed as it stands: no shell runs; write exec:sh -c "
				"'...'",
				syntax));
	if (probe->argv[0][0] == '/' && access(probe->argv[0], X_OK) < 0)
		say(l, p, false, key,
			arena_printf(&l->scratch, "'%.200s' cannot be run", probe->argv[0]));
}

void check_probes(struct loader *l, struct config_program *p, const struct config_worker *w)
{
	static const char *const own[] = {"health_interval", "health_timeout", "health_failures"};
	int first = 3 + (int)p->socket_count + (p->probe ? 1 : 0);

	check_preset_ready(l, p, w);
	check_gunicorn_ready(l, p, w);
	check_preset_probe(l, p, w);
	check_whose(l, p, w);
	check_exec(l, p, "ready", &w->ready);
	check_exec(l, p, "health", &w->health);
	if (w->ready.kind == PROBE_FD && w->ready.fd < first)
		say(l, p, false, "ready",
			arena_printf(&l->scratch,
				"descriptor %d is that of a socket: use fd:%d or a higher one",
				w->ready.fd, first));
	for (size_t i = 0; p->probe && i < p->socket_count; i++) {
		if (strcmp(l->config->sockets[p->sockets[i]].name, "probe") == 0)
			say(l, p, false, "sockets",
				"'probe' is the name of the probe listener: give that socket "
				"another one");
	}
	for (size_t i = 0; !p->health && i < sizeof(own) / sizeof(own[0]); i++) {
		if (get(l, p, own[i]).source == SOURCE_FILE)
			say(l, p, true, own[i], "has no effect without 'health'");
	}
}

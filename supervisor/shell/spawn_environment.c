/* What a worker finds: its environment, and where its command lies. */
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/probes.h"
#include "supervisor/shell/spawn_internal.h"
#include "worker/tree.h"

struct spawn_block {
	struct spawn_block *next;
	max_align_t bytes[];
};

void *spawn_text(struct spawn *sp, size_t bytes)
{
	const size_t mask = alignof(max_align_t) - 1;
	size_t at = (sp->text_used + mask) & ~mask;
	struct spawn_block *b;

	if (at <= sizeof sp->text && bytes <= sizeof sp->text - at) {
		sp->text_used = at + bytes;
		return sp->text + at;
	}
	b = malloc(sizeof *b + bytes);
	if (b == NULL)
		return NULL;
	b->next = sp->blocks;
	sp->blocks = b;
	return b->bytes;
}

void spawn_text_clear(struct spawn *sp)
{
	while (sp->blocks != NULL) {
		struct spawn_block *next = sp->blocks->next;

		free(sp->blocks);
		sp->blocks = next;
	}
	sp->text_used = 0;
}

static char *format_text(struct spawn *sp, const char *format, va_list args)
{
	va_list again;
	char *text;
	int bytes;

	va_copy(again, args);
	bytes = vsnprintf(NULL, 0, format, again);
	va_end(again);
	text = bytes >= 0 ? spawn_text(sp, (size_t)bytes + 1) : NULL;
	if (text != NULL)
		vsnprintf(text, (size_t)bytes + 1, format, args);
	return text;
}

/* --- environment --------------------------------------------------------------------------- */
static int env_grow(struct spawn *sp)
{
	size_t capacity = sp->env_capacity != 0 ? 2 * sp->env_capacity : 64;
	const char **env = spawn_text(sp, capacity * sizeof *env);

	if (env == NULL)
		return -1;
	if (sp->env_count > 0)
		memcpy(env, sp->env, sp->env_count * sizeof *env);
	sp->env = env;
	sp->env_capacity = capacity;
	return 0;
}

int spawn_env_put(struct spawn *sp, const char *pair)
{
	size_t key = strcspn(pair, "=") + 1; /* with its "=", if it has one */

	for (size_t i = 0; i < sp->env_count; i++) {
		if (sp->env[i][0] == pair[0] && strncmp(pair, sp->env[i], key) == 0) {
			sp->env[i] = pair;
			return 0;
		}
	}
	if (sp->env_count + 1 >= sp->env_capacity && env_grow(sp) < 0)
		return -1;
	sp->env[sp->env_count++] = pair;
	sp->env[sp->env_count] = NULL;
	return 0;
}

int spawn_env_set(struct spawn *sp, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	text = format_text(sp, format, args);
	va_end(args);
	return text != NULL ? spawn_env_put(sp, text) : -1;
}

bool spawn_inheritable(const char *pair)
{
	static const char *const ours[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
		"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
		"SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION", "MAINPID", "MANAGERPID",
		"BATON_INSTANCE", "BATON_PROGRAM", "BATON_WORKER", "BATON_INDEX", "BATON_WORKERS",
		"BATON_CONTROL", "BATON_CHANNEL_FD", "BATON_LEASE_FD", "BATON_EXECUTOR",
		"BATON_TERM", "BATON_EVENT", "BATON_PID", TREE_MARK};

	if (strchr(pair, '=') == NULL || strncmp(pair, "EINHORN_", 8) == 0)
		return false;
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
		size_t n = strlen(ours[i]);

		if (strncmp(pair, ours[i], n) == 0 && pair[n] == '=')
			return false;
	}
	return true;
}

static int env_baton(struct spawn *sp)
{
	struct supervisor *s = sp->supervisor;
	const struct worker *w = &s->core.workers[sp->process->slot];
	const struct program *p = &s->core.programs[w->program];
	const struct action *a = sp->action;
	int rc = 0;

	rc |= spawn_env_set(sp, "BATON_INSTANCE=%s", s->instance);
	rc |= spawn_env_set(
		sp, TREE_MARK "=%s.%llu", s->instance, (unsigned long long)sp->process->mark);
	rc |= spawn_env_set(sp, "BATON_PROGRAM=%s", sp->settings->name);
	rc |= spawn_env_set(sp, "BATON_WORKER=%s", sp->process->name);
	rc |= spawn_env_set(sp, "BATON_INDEX=%d", w->index);
	rc |= spawn_env_set(sp, "BATON_WORKERS=%d", p->count);
	rc |= spawn_env_set(sp, "BATON_CONTROL=%s", s->control_path);
	if (a->executor_env >= 0)
		rc |= spawn_env_set(sp, "BATON_EXECUTOR=%d", a->executor_env);
	if (a->executor_env == 1)
		rc |= spawn_env_set(sp, "BATON_TERM=%llu", (unsigned long long)a->term);
	rc |= spawn_env_set(sp, "SUPERVISOR_ENABLED=1");
	rc |= spawn_env_set(sp, "SUPERVISOR_PROCESS_NAME=%s", sp->worker.name);
	rc |= spawn_env_set(sp, "SUPERVISOR_GROUP_NAME=%s", sp->settings->group);
	if (s->notify != NULL)
		rc |= spawn_env_set(sp, "NOTIFY_SOCKET=%s", notify_address(s->notify));
	if (sp->settings->watchdog_ns > 0) {
		rc |= spawn_env_set(
			sp, "WATCHDOG_USEC=%lld", (long long)(sp->settings->watchdog_ns / 1000));
		rc |= spawn_env_set(sp, "WATCHDOG_PID=0000000000");
	}
	return rc;
}

/* Server::Starter's form, HOST:PORT=FD;/PATH=FD; what has no text there is left out. */
static char *server_starter_port(const struct spawn *sp)
{
	const struct config_program *set = sp->settings;
	char *text = NULL, probe[32];
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);
	bool more = false;

	if (out == NULL)
		return NULL;
	for (size_t i = 0; i < set->socket_count; i++) {
		const struct listener_slot *l = listeners_find(
			sp->supervisor, &sp->config->sockets[set->sockets[i]]);
		const char *address = l != NULL ? l->listener.text : "";

		if (strncmp(address, "unix:", 5) == 0)
			address += 5;
		if (*address != '\0')
			fprintf(out, "%s%s=%zu", more ? ";" : "", address, FIRST_SOCKET_FD + i);
		more |= *address != '\0';
	}
	if (set->probe)
		fprintf(out, "%s%s=%zu", more ? ";" : "", probes_address(sp->process, probe),
			FIRST_SOCKET_FD + set->socket_count);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static int env_listen(struct spawn *sp)
{
	const struct config_program *set = sp->settings;
	char names[4096] = "";
	size_t used = 0;

	for (size_t i = 0; i < set->socket_count && used < sizeof names - 1; i++)
		used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
			i > 0 ? ":" : "", sp->config->sockets[set->sockets[i]].name);
	if (set->probe && used < sizeof names - 1)
		snprintf(names + used, sizeof names - used, "%sprobe", used > 0 ? ":" : "");
	return spawn_env_set(sp, "LISTEN_FDS=%zu", set->socket_count + set->probe) |
	       spawn_env_set(sp, "LISTEN_PID=0000000000") |
	       spawn_env_set(sp, "LISTEN_FDNAMES=%s", names);
}

/* The three ways in which servers are told of descriptors: systemd's, Server::Starter's, einhorn's.
 */
static int env_sockets(struct spawn *sp)
{
	const struct config_program *set = sp->settings;
	char *starter;
	int rc;
	size_t count = set->socket_count + set->probe;

	if (count == 0 || !set->listen_variables)
		return 0;
	starter = server_starter_port(sp);
	if (starter == NULL)
		return -1;
	rc = env_listen(sp);
	rc |= spawn_env_set(sp, "SERVER_STARTER_PORT=%s", starter);
	free(starter);
	rc |= spawn_env_set(sp, "EINHORN_FD_COUNT=%zu", count);
	for (size_t i = 0; i < count; i++)
		rc |= spawn_env_set(sp, "EINHORN_FD_%zu=%zu", i, FIRST_SOCKET_FD + i);
	return rc;
}

int spawn_build_environment(struct spawn *sp)
{
	const struct config_user *u = &sp->settings->user;
	int rc = 0;

	for (char **e = environ; *e != NULL; e++) {
		if (spawn_inheritable(*e))
			rc |= spawn_env_put(sp, *e);
	}
	if (u->set && sp->settings->set_user_env) {
		rc |= spawn_env_set(sp, "HOME=%s", u->home);
		rc |= spawn_env_set(sp, "USER=%s", u->name);
		rc |= spawn_env_set(sp, "LOGNAME=%s", u->name);
	}
	for (size_t i = 0; i < sp->worker.environment_count; i++)
		rc |= spawn_env_set(sp, "%s=%s", sp->worker.environment[i].key,
			sp->worker.environment[i].value);
	rc |= env_baton(sp);
	rc |= env_sockets(sp);
	return rc;
}

/* --- paths --------------------------------------------------------------------------------- */
static const char *env_value(const struct spawn *sp, const char *key)
{
	size_t n = strlen(key);

	for (size_t i = 0; i < sp->env_count; i++) {
		if (strncmp(sp->env[i], key, n) == 0 && sp->env[i][n] == '=')
			return sp->env[i] + n + 1;
	}
	return NULL;
}

static char *spawn_path(struct spawn *sp, const char *folder, size_t bytes, const char *name)
{
	size_t all = bytes + strlen(name) + 3;
	char *text = spawn_text(sp, all);

	if (text != NULL)
		snprintf(text, all, "%.*s%s%s", (int)bytes, folder, bytes > 0 ? "/" : "./", name);
	return text;
}

int spawn_build_paths(struct spawn *sp)
{
	const char *name = sp->worker.argv[0], *path = env_value(sp, "PATH");
	size_t count = 2, n = 0;

	if (path == NULL || *path == '\0')
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	for (const char *p = path; *p != '\0'; p++)
		count += *p == ':';
	sp->paths = spawn_text(sp, (count + 1) * sizeof *sp->paths);
	if (sp->paths == NULL)
		return -1;
	memset(sp->paths, 0, (count + 1) * sizeof *sp->paths);
	if (sp->settings->hidden) { /* ourselves, also when the file was replaced meanwhile */
		sp->paths[0] = (char *)"/proc/self/exe";
		return 0;
	}
	if (strchr(name, '/') != NULL) {
		sp->paths[0] = (char *)name;
		return 0;
	}
	while (n < count) {
		size_t bytes = strcspn(path, ":");

		sp->paths[n] = spawn_path(sp, path, bytes, name);
		if (sp->paths[n++] == NULL)
			return -1;
		if (path[bytes] == '\0')
			break;
		path += bytes + 1;
	}
	return 0;
}

/* Every setting as it is in effect, one after the other: for `check --dump` and for comparing. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "conf/load.h"
#include "conf/preset.h"
#include "conf/units.h"

typedef void take_function(void *user, const struct effective *e);

struct walk {
	const struct config *c;
	struct arena *a;
	take_function *take;
	void *user;
	const char *title;
	const struct ini_section *section;
	const struct config_program *p;
	struct config_worker worker; /* the program's first */
	struct expand_scope scope;
	const struct config_job *job; /* or NULL */
	int program, socket;
};

static const struct config_data *data_of(const struct walk *w)
{
	return w->c->private;
}

static const char *duration(struct walk *w, int64_t ns)
{
	char buf[32];

	return arena_strdup(w->a, units_print_duration(ns, buf, sizeof(buf)));
}

static const char *control(struct walk *w)
{
	char path[PATH_MAX];

	if (config_control_path(w->c, w->c->path, path, sizeof(path), NULL) < 0)
		return "";
	return arena_strdup(w->a, path);
}

/* KEY="value",... in a form that both modes read. */
static const char *environment(struct walk *w, const struct config_pair *pairs, size_t count)
{
	struct text t;

	text_init(&t, w->a);
	for (size_t i = 0; i < count; i++) {
		char quote = strchr(pairs[i].value, '"') ? '\'' : '"';
		text_printf(&t, "%s%s=%c%s%c", i ? "," : "", pairs[i].key, quote, pairs[i].value,
			quote);
	}
	return text_string(&t);
}

/* What is not written as it is in effect; NULL: it is. */
static const char *computed_baton(struct walk *w, const char *key)
{
	const struct config *c = w->c;

	if (strcmp(key, "name") == 0)
		return c->name;
	if (strcmp(key, "directory") == 0)
		return c->directory;
	if (strcmp(key, "control") == 0)
		return control(w);
	if (strcmp(key, "loglevel") == 0)
		return c->loglevel;
	if (strcmp(key, "logfile") == 0)
		return c->logfile;
	if (strcmp(key, "pidfile") == 0)
		return c->pidfile;
	if (strcmp(key, "childlogdir") == 0)
		return c->childlogdir;
	if (strcmp(key, "on_fatal") == 0)
		return c->on_fatal == ON_END_EXIT ? "exit" : "stay";
	if (strcmp(key, "environment") == 0)
		return environment(w, c->environment, c->environment_count);
	return NULL;
}

static const char *computed_program(struct walk *w, const char *key)
{
	const struct config_program *p = w->p;

	if (strcmp(key, "command") == 0)
		return w->worker.command;
	if (strcmp(key, "process_name") == 0)
		return w->worker.name;
	if (strcmp(key, "directory") == 0)
		return w->worker.directory;
	if (strcmp(key, "environment") == 0)
		return environment(w, w->worker.environment, w->worker.environment_count);
	if (strcmp(key, "numprocs") == 0 || strcmp(key, "workers") == 0)
		return arena_printf(w->a, "%d", p->workers);
	if (strcmp(key, "ready") == 0)
		return p->ready_text;
	if (strcmp(key, "health") == 0)
		return p->health_text;
	if (strcmp(key, "probe") == 0)
		return p->probe ? "yes" : "no";
	if (strcmp(key, "stopwaitsecs") == 0 && p->stop_raised)
		return duration(w, p->stopwaitsecs_ns);
	if (strcmp(key, "killasgroup") == 0)
		return p->killasgroup ? "true" : "false";
	if (strcmp(key, "handoff_timeout") == 0)
		return duration(w, p->handoff_timeout_ns);
	if (strcmp(key, "on_fatal") == 0)
		return p->on_fatal == ON_END_EXIT ? "exit" : "stay";
	if (strcmp(key, "roll_on_reload") == 0)
		return p->roll_on_reload_always ? "always" : "changed";
	if (strcmp(key, "stdout_logfile") == 0 && p->stdout_kind == OUTPUT_PATH)
		return w->worker.stdout_path;
	if (strcmp(key, "stderr_logfile") == 0 && w->worker.stderr_path && w->worker.stderr_path[0])
		return w->worker.stderr_path;
	return NULL;
}

static const char *computed_job(struct walk *w, const char *key)
{
	const struct config_job *j = w->job;

	if (strcmp(key, "schedule") == 0)
		return j->schedule;
	if (strcmp(key, "command") == 0)
		return j->command;
	if (strcmp(key, "directory") == 0)
		return j->directory;
	if (strcmp(key, "environment") == 0)
		return environment(w, j->environment, j->environment_count);
	if (strcmp(key, "handoff_timeout") == 0)
		return duration(w, j->handoff_timeout_ns);
	if (strcmp(key, "on_failure") == 0)
		return j->on_failure;
	return NULL;
}

static const char *computed(struct walk *w, const struct schema_row *row)
{
	if (row->section == SECTION_JOB && w->job)
		return computed_job(w, row->key);
	if (row->section == SECTION_JOBS && strcmp(row->key, "max_running") == 0)
		return arena_printf(w->a, "%d", w->c->jobs_settings.max_running);
	if (row->section == SECTION_BATON)
		return computed_baton(w, row->key);
	if (row->section == SECTION_PROGRAM)
		return computed_program(w, row->key);
	if (row->section == SECTION_SCHEDULER && strcmp(row->key, "database") == 0)
		return w->c->scheduler.database;
	return NULL;
}

static void give(struct walk *w, const struct setting *s, const char *key)
{
	const char *value = computed(w, s->row);
	struct expand_scope scope = w->scope;
	struct effective e = {.section = w->title,
		.key = key,
		.raw = s->text,
		.file = s->source == SOURCE_FILE ? s->place.file : "",
		.line = s->source == SOURCE_FILE ? s->place.line : 0,
		.source = s->source,
		.row = s->row,
		.program = w->program,
		.socket = w->socket};

	scope.here = s->here;
	if (!value)
		value = expand(w->a, s->text, &scope, NULL);
	e.value = value ? value : s->text;
	e.preset = w->p ? w->p->preset : "";
	w->take(w->user, &e);
}

static void give_prefixed(struct walk *w, const struct schema_row *row)
{
	const struct ini_entry *e = w->section ? w->section->first : NULL;

	for (; e; e = e->next) {
		struct setting s = {row, e->key, e->value, e->place, e->here, SOURCE_FILE, NULL};
		if (strncmp(e->key, row->key, strlen(row->key)) == 0)
			give(w, &s, e->key);
	}
}

static bool preset_sets_variables(struct walk *w)
{
	size_t count = 0;
	const char **listen;

	if (!w->p || !w->p->raw->preset)
		return false;
	listen = arena_zero(w->a, (w->p->socket_count + 2) * sizeof(*listen));
	for (size_t i = 0; i < w->p->socket_count + w->p->probe; i++)
		listen[i] = "";
	preset_environment(
		w->a, w->p->raw->preset, listen, w->p->socket_count + w->p->probe, &count);
	return count > 0;
}

/* numprocs and workers are one setting under two names. */
static bool is_other_name(struct walk *w, const struct schema_row *row)
{
	bool workers = w->section && ini_get(&data_of(w)->ini, w->section, "workers") != NULL;

	if (row->section != SECTION_PROGRAM)
		return false;
	if (strcmp(row->key, "workers") == 0)
		return !workers;
	return strcmp(row->key, "numprocs") == 0 && workers;
}

static void give_rows(struct walk *w, enum schema_section kind)
{
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		struct setting s;
		if (row->section != kind || is_other_name(w, row))
			continue;
		if (row->flags & SCHEMA_PREFIX) {
			give_prefixed(w, row);
			continue;
		}
		s = setting_of(data_of(w), row, w->section, w->p ? w->p->raw->preset : NULL);
		if ((row->type == TYPE_NONE || row->flags & SCHEMA_LATER) &&
			s.source == SOURCE_DEFAULT)
			continue;
		if (s.source == SOURCE_DEFAULT && strcmp(row->key, "environment") == 0 &&
			preset_sets_variables(w))
			s.source = SOURCE_PRESET;
		give(w, &s, row->key);
	}
}

void effective_program(
	const struct config *c, int program, struct arena *a, take_function *take, void *user)
{
	const struct config_program *p = &c->programs[program];
	struct walk w = {.c = c,
		.a = a,
		.take = take,
		.user = user,
		.section = p->raw->ini,
		.title = p->raw->ini->name,
		.p = p,
		.program = program,
		.socket = -1};
	struct err e;
	struct worker_build b = {
		.config = c, .program = program, .arena = a, .worker = &w.worker, .err = &e};

	worker_build_run(&b);
	load_scope(c, p, a, 0, NULL, &w.scope);
	give_rows(&w, SECTION_PROGRAM);
}

static void give_plain(const struct config *c, struct arena *a, take_function *take, void *user,
	const struct ini_section *section, const char *title, enum schema_section kind, int index)
{
	struct walk w = {.c = c,
		.a = a,
		.take = take,
		.user = user,
		.section = section,
		.title = title,
		.job = kind == SECTION_JOB ? &c->jobs[index] : NULL,
		.program = -1,
		.socket = kind == SECTION_JOB ? -1 : index};
	const struct config_data *d = c->private;
	struct expand_var vars[] = {{.name = "host_node_name", .text = d->host},
		{.name = "job_name", .text = w.job ? w.job->name : ""}};

	w.scope.vars = vars;
	w.scope.var_count = w.job ? 2 : 1;
	w.scope.environment[0] = c->environment;
	w.scope.environment_count[0] = c->environment_count;
	if (w.job) {
		w.scope.environment[1] = w.job->environment;
		w.scope.environment_count[1] = w.job->environment_count;
	}
	give_rows(&w, kind);
}

static const struct ini_section *section_of(
	const struct config *c, enum schema_section kind, int index)
{
	const struct config_data *d = c->private;

	if (kind == SECTION_SCHEDULER)
		return ini_section(&d->ini, "scheduler");
	if (kind == SECTION_JOBS)
		return ini_section(&d->ini, "jobs");
	if (kind == SECTION_JOB)
		return c->jobs[index].raw->ini;
	for (const struct ini_section *s = d->ini.first; s && kind == SECTION_SOCKET; s = s->next) {
		if (s->index == index && strncmp(s->name, "socket:", 7) == 0)
			return s;
	}
	return NULL;
}

void effective_plain(const struct config *c, enum schema_section kind, int index, struct arena *a,
	take_function *take, void *user)
{
	give_plain(c, a, take, user, section_of(c, kind, index), "", kind, index);
}

void effective_each(const struct config *c, struct arena *a, take_function *take, void *user)
{
	const struct config_data *d = c->private;

	give_plain(c, a, take, user, NULL, c->mode == CONFIG_NATIVE ? "baton" : "supervisord",
		SECTION_BATON, -1);
	if (c->scheduler.enabled)
		give_plain(c, a, take, user, ini_section(&d->ini, "scheduler"), "scheduler",
			SECTION_SCHEDULER, -1);
	for (const struct ini_section *s = d->ini.first; s; s = s->next) {
		if (strncmp(s->name, "socket:", 7) == 0)
			give_plain(c, a, take, user, s, s->name, SECTION_SOCKET, s->index);
		else if (strncmp(s->name, "group:", 6) == 0)
			give_plain(c, a, take, user, s, s->name, SECTION_GROUP, -1);
	}
	for (size_t i = 0; i < c->program_count; i++) {
		if (!c->programs[i].hidden)
			effective_program(c, (int)i, a, take, user);
	}
	if (c->job_count || ini_section(&d->ini, "jobs"))
		give_plain(
			c, a, take, user, ini_section(&d->ini, "jobs"), "jobs", SECTION_JOBS, -1);
	for (size_t i = 0; i < c->job_count; i++)
		give_plain(c, a, take, user, c->jobs[i].raw->ini, c->jobs[i].raw->ini->name,
			SECTION_JOB, (int)i);
}

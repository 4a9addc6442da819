/* [job:NAME], [jobs], and the hidden program that runs the jobs. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "conf/load.h"
#include "conf/schedule.h"
#include "conf/units.h"
#include "conf/words.h"

enum { JOB_LIMIT = 100000, JOB_NAME_BYTES = 127, RUNS_PER_CPU = 4, JITTER_FIRINGS = 16 };

/* The job worker's own time for writing down how its jobs ended, beside theirs to stop. */
#define STOP_MARGIN_NS (5 * UNITS_SECOND_NS)

/* One job while it is read. */
struct context {
	struct loader *l;
	struct ini_section *section;
	struct config_section *raw;
	struct config_job *job;
	struct expand_scope scope;
	struct expand_var vars[2];
};

static struct setting get(const struct context *x, const char *key)
{
	return setting_key(x->l->data, SECTION_JOB, x->section, NULL, key);
}

/* The expanded value in *RET_S; NULL after a finding. */
static const char *get_text(const struct context *x, const char *key, struct setting *ret_s)
{
	*ret_s = get(x, key);
	return load_expand(x->l, x->section, ret_s, &x->scope);
}

static void complain(
	const struct context *x, const struct setting *s, bool warning, const char *text)
{
	load_report(x->l, warning, x->section, s, "%s", text);
}

/* --- single keys ----------------------------------------------------------------------------- */

/* The zone of the system is the one that the job worker sees, which has baton's environment. */
static int read_zone(struct loader *l, const char *name, struct zone **ret_zone, struct err *e)
{
	const struct config *c = l->config;

	if (name[0] && strcasecmp(name, "system") != 0)
		return zone_load(name, ret_zone, e);
	for (size_t i = c->environment_count; i > 0; i--) {
		if (strcmp(c->environment[i - 1].key, "TZ") == 0)
			return zone_load_tz(c->environment[i - 1].value, ret_zone, e);
	}
	return zone_load("", ret_zone, e);
}

static const struct zone_entry *find_zone(struct loader *l, const char *name)
{
	struct zone_entry *z = l->data->zones;
	struct err e;

	while (z && strcmp(z->name, name) != 0)
		z = z->next;
	if (z)
		return z;
	z = arena_zero(l->arena, sizeof(*z));
	z->name = name;
	z->next = l->data->zones;
	l->data->zones = z;
	if (read_zone(l, name, &z->zone, &e) < 0)
		z->error = arena_strdup(l->arena, e.text);
	return z;
}

static void load_zone(struct context *x)
{
	struct setting s;
	const char *name = get_text(x, "timezone", &s);
	const struct zone_entry *z;

	if (!name)
		return;
	x->job->timezone = name;
	z = find_zone(x->l, name);
	x->job->zone = z->zone;
	if (z->error)
		complain(x, &s, false, z->error);
	else if (s.source == SOURCE_FILE && x->job->when && x->job->when->kind != SCHEDULE_CRON)
		complain(x, &s, true, "does not matter to this schedule");
}

static void load_schedule(struct context *x)
{
	struct schedule *when = arena_zero(x->l->arena, sizeof(*when));
	struct schedule_findings found;
	struct setting s;
	const char *text = get_text(x, "schedule", &s);

	if (s.source == SOURCE_DEFAULT) {
		complain(x, &s, false,
			"is missing: when shall it run? (\"0 3 * * *\", @daily, @every 90s)");
		return;
	}
	if (!text)
		return;
	x->job->schedule = text;
	if (schedule_parse(text, when, &found) == 0)
		x->job->when = when;
	for (int i = 0; i < found.count; i++) {
		const struct schedule_finding *f = &found.items[i];
		if (f->column)
			load_report(x->l, f->warning, x->section, &s, "column %d: %s", f->column,
				f->text);
		else
			complain(x, &s, f->warning, f->text);
	}
}

static void load_command(struct context *x)
{
	struct config_job *job = x->job;
	struct setting s;
	const char *text = get_text(x, "command", &s), **shell;
	size_t count;
	struct err e;
	char **words;

	job->command = text ? text : "";
	if (!text)
		return;
	if (s.source == SOURCE_DEFAULT || !text[strspn(text, " \t\n")]) {
		complain(x, &s, false, "is missing: what shall run?");
	} else if (job->shell) {
		shell = arena_zero(x->l->arena, 4 * sizeof(*shell));
		shell[0] = "/bin/sh";
		shell[1] = "-c";
		shell[2] = text;
		job->argv = shell;
	} else if (words_split(x->l->arena, text, WORDS_POSIX, &words, &count, &e) < 0) {
		complain(x, &s, false, e.text);
	} else if (count == 0) {
		complain(x, &s, false, "is empty: there is nothing to run");
	} else {
		job->argv = (const char *const *)words;
	}
}

static void load_timeout(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "timeout", &s);
	struct err e;

	if (!text || strcasecmp(text, "none") == 0)
		return;
	if (units_duration(text, &x->job->timeout_ns, &e) < 0)
		complain(x, &s, false, e.text);
}

/* The job worker keeps it below the time to the next firing. */
static void check_jitter(struct context *x)
{
	const struct config_job *job = x->job;
	int64_t at = INT64_C(1767225600000000), next, shortest = INT64_MAX; /* 2026-01-01 */
	struct setting s = get(x, "jitter");
	char jitter[32], gap[32];

	if (job->jitter_ns <= 0 || !job->when || !job->zone)
		return;
	for (int i = 0; i < JITTER_FIRINGS; i++, at = next) {
		next = schedule_next(job->when, job->zone, at);
		if (next == SCHEDULE_NEVER)
			break;
		if (i > 0 && next - at < shortest)
			shortest = next - at;
	}
	if (shortest > job->jitter_ns / 1000)
		return;
	load_report(x->l, true, x->section, &s,
		"%s is not less than the time between two firings (%s): each starts before the "
		"next one fires, whatever stands here",
		units_print_duration(job->jitter_ns, jitter, sizeof(jitter)),
		units_print_duration(shortest * 1000, gap, sizeof(gap)));
}

static size_t put_pairs(
	struct config_pair *all, size_t n, const struct config_pair *more, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t j = 0;
		while (j < n && strcmp(all[j].key, more[i].key) != 0)
			j++;
		all[j] = more[i];
		n += j == n;
	}
	return n;
}

/* Lowest rank first: baton's, the job's file, the job's own. */
static void load_environment(struct context *x)
{
	struct loader *l = x->l;
	struct setting file, s;
	const char *path = get_text(x, "environment_file", &file), *text;
	struct config_pair *lines = NULL, *own = NULL, *all;
	size_t line_count = 0, own_count = 0, n;
	struct err e;

	if (path && path[0])
		load_environment_file(l, x->section, &file, path, &lines, &line_count);
	text = get_text(x, "environment", &s);
	if (text && words_pairs(l->arena, text, l->native, &own, &own_count, &e) < 0) {
		complain(x, &s, false, e.text);
		own_count = 0;
	}
	if (line_count + own_count == 0) { /* ten thousand jobs share one list */
		x->job->environment = l->config->environment;
		x->job->environment_count = l->config->environment_count;
		return;
	}
	all = arena_zero(
		l->arena, (l->config->environment_count + line_count + own_count) * sizeof(*all));
	n = put_pairs(all, 0, l->config->environment, l->config->environment_count);
	n = put_pairs(all, n, lines, line_count);
	x->job->environment = all;
	x->job->environment_count = put_pairs(all, n, own, own_count);
}

static void load_directory(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "directory", &s);

	x->job->directory = text ? load_path(x->l->arena, true, s.here, text) : "";
}

/* --- a whole job ----------------------------------------------------------------------------- */

static void check_name(struct context *x)
{
	const char *name = x->job->name;
	bool control = false;

	for (const char *p = name; *p; p++)
		control |= (unsigned char)*p <= ' ' || *p == 0x7f;
	if (!name[0] || control || strpbrk(name, ":/@*,") || strlen(name) > JOB_NAME_BYTES)
		errlist_addf(x->l->findings, false, x->section->place.file, x->section->place.line,
			"[%.100s]: a name of at most %d bytes without spaces, ':', '/', '@', '*' "
			"and ',' must follow 'job:'",
			x->section->name, JOB_NAME_BYTES);
}

static void load_job(
	struct loader *l, struct ini_section *section, const struct config_job *template)
{
	struct context x = {.l = l, .section = section};

	l->jobs = arena_grow(
		l->arena, l->jobs, l->config->job_count, &l->job_capacity, sizeof(*l->jobs));
	section->index = (int)l->config->job_count;
	x.job = &l->jobs[l->config->job_count++];
	x.raw = arena_zero(l->arena, sizeof(*x.raw));
	*x.job = *template;
	x.raw->ini = section;
	x.job->raw = x.raw;
	x.job->place = section->place;
	x.job->name = section->name + strlen("job:");
	check_name(&x);
	x.vars[0] = (struct expand_var){.name = "job_name", .text = x.job->name};
	x.vars[1] = (struct expand_var){.name = "host_node_name", .text = l->data->host};
	x.scope.vars = x.vars;
	x.scope.var_count = 2;
	x.scope.environment[0] = l->config->environment;
	x.scope.environment_count[0] = l->config->environment_count;
	load_rows(l, SECTION_JOB, section, NULL, &x.scope, x.job);
	load_environment(&x);
	x.scope.environment[1] = x.job->environment;
	x.scope.environment_count[1] = x.job->environment_count;
	load_schedule(&x);
	load_zone(&x);
	check_jitter(&x);
	load_command(&x);
	load_directory(&x);
	load_timeout(&x);
	load_rlimits(l, SECTION_JOB, section, &x.scope, &x.job->rlimits, &x.job->rlimit_count);
}

static void load_job_template(struct loader *l, struct config_job *job)
{
	memset(job, 0, sizeof(*job));
	job->umask = -1;
	job->nice = job->oom_score_adj = INT_MIN;
	job->user.name = job->user.home = "";
	job->schedule = job->timezone = job->command = job->directory = "";
	job->handoff_timeout_ns = l->config->scheduler.handoff_timeout_ns;
	load_defaults(l, SECTION_JOB, job);
}

static void load_settings(struct loader *l)
{
	struct config_jobs *jobs = &l->config->jobs_settings;
	struct expand_var host = {.name = "host_node_name", .text = l->data->host};
	struct expand_scope scope = {.vars = &host,
		.var_count = 1,
		.environment = {l->config->environment},
		.environment_count = {l->config->environment_count}};

	load_defaults(l, SECTION_JOBS, jobs);
	jobs->max_running = RUNS_PER_CPU * load_cpus();
	load_rows(l, SECTION_JOBS, ini_section(l->ini, "jobs"), NULL, &scope, jobs);
}

/* --- the hidden program ---------------------------------------------------------------------- */

/* Its section is in no file and in no list: only its name is looked at. */
static void add_program(struct loader *l)
{
	const struct ini_section *own = ini_section(l->ini, "program:" CONFIG_JOBS_PROGRAM);
	struct ini_section *section = arena_zero(l->arena, sizeof(*section));
	int64_t stop_ns = 0, handoff_ns = 0;
	struct config_program template, *p;

	if (own)
		errlist_addf(l->findings, false, own->place.file, own->place.line,
			"[%s]: the name is taken by the program that runs the [job:] sections: "
			"choose another one",
			own->name);
	for (size_t i = 0; i < l->config->job_count; i++) {
		const struct config_job *job = &l->jobs[i];
		stop_ns = job->stopwaitsecs_ns > stop_ns ? job->stopwaitsecs_ns : stop_ns;
		handoff_ns = job->handoff_timeout_ns > handoff_ns ? job->handoff_timeout_ns
								  : handoff_ns;
	}
	section->name = section->title = "program:" CONFIG_JOBS_PROGRAM;
	section->place.file = "";
	section->here = "";
	load_program_template(l, &template);
	p = load_program_add(l, &template, section);
	p->hidden = true;
	p->preset = "";
	p->workers = 1;
	p->priority = p->group_priority = INT_MAX; /* after all that a file can say */
	p->autostart = true;
	p->autorestart = AUTORESTART_ALWAYS;
	p->startretries = -1;
	p->executor = EXECUTOR_CANDIDATE;
	p->promote = PROMOTE_NOTIFY;
	p->ready = READY_NOTIFY;
	p->kill_tree = true;
	p->handoff_timeout_ns = handoff_ns;
	p->stopwaitsecs_ns = stop_ns + STOP_MARGIN_NS;
	p->surge = 1;
	p->max_unavailable = 0;
	p->replace = REPLACE_ROLLING;
	p->restart_linear = false;
	p->log_prefix = false; /* its lines name their job */
	p->stdout_kind = p->stderr_kind = OUTPUT_INHERIT;
	l->config->programs = l->programs;
}

void load_jobs(struct loader *l)
{
	struct config_job template;

	load_settings(l);
	load_job_template(l, &template);
	for (struct ini_section *s = l->ini->first; s; s = s->next) {
		if (strncmp(s->name, "job:", 4) != 0)
			continue;
		if (l->config->job_count == JOB_LIMIT) {
			errlist_addf(l->findings, false, s->place.file, s->place.line,
				"more than %d jobs", JOB_LIMIT);
			break;
		}
		load_job(l, s, &template);
	}
	l->config->jobs = l->jobs;
	if (l->config->job_count == 0)
		return;
	l->config->scheduler.enabled = true;
	add_program(l);
}

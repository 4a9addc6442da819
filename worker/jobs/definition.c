#include "worker/jobs/definition.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/jobs/machine_internal.h"

/* The zones of one document: most jobs share one. Counted by the definitions. */
struct zone_list {
	int references;
	int count;
	struct {
		char name[64];
		struct zone *zone;
	} items[512];
};

static void zones_free(struct zone_list *z)
{
	if (z == NULL || --z->references > 0)
		return;
	for (int i = 0; i < z->count; i++)
		zone_free(z->items[i].zone);
	free(z);
}

static int zone_of(struct zone_list *z, const char *name, struct zone **ret_zone, struct err *e)
{
	struct zone *zone;

	for (int i = 0; i < z->count; i++) {
		if (strcmp(z->items[i].name, name) == 0) {
			*ret_zone = z->items[i].zone;
			return 0;
		}
	}
	if (z->count == (int)(sizeof z->items / sizeof *z->items))
		return err_set(e, ERR_LIMIT, "too many time zones");
	if (zone_load(name, &zone, e) < 0)
		return e->code;
	snprintf(z->items[z->count].name, sizeof z->items[0].name, "%s", name);
	z->items[z->count++].zone = zone;
	*ret_zone = zone;
	return 0;
}

/* --- JSON ---------------------------------------------------------------------------------- */
static int64_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* Text that is not UTF-8 comes as a list of bytes. Allocated. */
static char *text_of(const json_t *value)
{
	size_t n = json_array_size(value);
	char *text;

	if (!json_is_array(value))
		return strdup(json_is_string(value) ? json_string_value(value) : "");
	text = calloc(n + 1, 1);
	for (size_t i = 0; text != NULL && i < n; i++)
		text[i] = (char)json_integer_value(json_array_get(value, i));
	return text;
}

static void free_list(char **list)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++)
		free(list[i]);
	free(list);
}

static char **read_argv(const json_t *list)
{
	size_t n = json_array_size(list);
	char **argv = calloc(n + 1, sizeof *argv);

	for (size_t i = 0; argv != NULL && i < n; i++) {
		argv[i] = text_of(json_array_get(list, i));
		if (argv[i] == NULL) {
			free_list(argv);
			return NULL;
		}
	}
	return argv;
}

/* --- environment --------------------------------------------------------------------------- */
static int put(char **list, size_t *count, char *text)
{
	size_t key = text != NULL ? strcspn(text, "=") : 0;

	if (text == NULL)
		return -1;
	for (size_t i = 0; i < *count; i++) {
		if (strncmp(list[i], text, key + 1) == 0) {
			free(list[i]);
			list[i] = text;
			return 0;
		}
	}
	list[(*count)++] = text;
	return 0;
}

static char *pair(const char *key, const char *value)
{
	char *text;

	return asprintf(&text, "%s=%s", key, value) < 0 ? NULL : text;
}

static int read_environment(struct job_definition *d, const json_t *o, const json_t *user)
{
	json_t *pairs = json_object_get(o, "environment"), *value;
	const char *key;
	size_t n = 0;
	int rc = 0;

	d->environment = calloc(json_object_size(pairs) + 4, sizeof *d->environment);
	if (d->environment == NULL)
		return -1;
	if (json_is_true(json_object_get(user, "set"))) {
		const char *name = json_string_value(json_object_get(user, "name"));

		rc |= put(d->environment, &n,
			pair("HOME", json_string_value(json_object_get(user, "home"))));
		rc |= put(d->environment, &n, pair("USER", name));
		rc |= put(d->environment, &n, pair("LOGNAME", name));
	}
	json_object_foreach(pairs, key, value)
	{
		char *text = text_of(value);

		rc |= text != NULL ? put(d->environment, &n, pair(key, text)) : -1;
		free(text);
	}
	return rc;
}

/* --- user and limits ----------------------------------------------------------------------- */
/* The user database may be slow: asked once for each user. */
static int read_groups(struct job_definition *d, const char *name)
{
	static struct {
		char name[128];
		gid_t gid;
		int count;
		gid_t groups[256];
	} last;

	if (strcmp(last.name, name) != 0 || last.gid != d->gid) {
		last.count = 256;
		last.gid = d->gid;
		snprintf(last.name, sizeof last.name, "%s", name);
		if (getgrouplist(name, d->gid, last.groups, &last.count) < 0 && last.count > 256)
			last.count = 256;
	}
	d->groups = malloc((size_t)(last.count + 1) * sizeof *d->groups);
	if (d->groups == NULL)
		return -1;
	memcpy(d->groups, last.groups, (size_t)last.count * sizeof *d->groups);
	d->group_count = last.count;
	return 0;
}

static int read_user(struct job_definition *d, const json_t *user)
{
	if (user == NULL)
		return 0;
	d->user_set = true;
	d->uid = (uid_t)number(user, "uid");
	d->gid = (gid_t)number(user, "gid");
	if (!json_is_true(json_object_get(user, "set")) || geteuid() != 0)
		return 0;
	return read_groups(d, json_string_value(json_object_get(user, "name")));
}

static int read_limits(struct job_definition *d, const json_t *o)
{
	const json_t *list = json_object_get(o, "limits");

	d->limit_count = json_array_size(list);
	d->limits = calloc(d->limit_count + 1, sizeof *d->limits);
	if (d->limits == NULL)
		return -1;
	for (size_t i = 0; i < d->limit_count; i++) {
		const json_t *row = json_array_get(list, i);

		d->limits[i].resource = (int)json_integer_value(json_array_get(row, 0));
		d->limits[i].soft = (uint64_t)json_integer_value(json_array_get(row, 1));
		d->limits[i].hard = (uint64_t)json_integer_value(json_array_get(row, 2));
	}
	return 0;
}

/* --- one job ------------------------------------------------------------------------------- */
void job_definition_declare(const struct job_definition *d, struct ledger_declared *ret_declared)
{
	*ret_declared = (struct ledger_declared){.job = ""};
	snprintf(ret_declared->job, sizeof ret_declared->job, "%s", d->name);
	snprintf(ret_declared->schedule, sizeof ret_declared->schedule, "%s", d->text);
	snprintf(ret_declared->timezone, sizeof ret_declared->timezone, "%s", d->timezone);
}

static void read_policy(struct job_definition *d, const json_t *o)
{
	struct ledger_declared declared;

	job_definition_declare(d, &declared);
	d->policy = (struct jobs_policy){
		.name = d->name,
		.definition = d,
		.schedule = d,
		.schedule_id = machine_hash(d->text) * 31 + machine_hash(d->timezone),
		.declared_id = ledger_declared_id(&declared),
		.at_promotion = d->schedule.kind == SCHEDULE_PROMOTION,
		.enabled = number(o, "enabled") != 0,
		.on_failure = d->on_failure[0] != '\0',
		.overlap = (enum config_overlap)number(o, "overlap"),
		.missed = (enum config_missed)number(o, "missed"),
		.interrupted = (enum config_interrupted)number(o, "interrupted"),
		.retries = (int)number(o, "retries"),
		.missed_limit_ns = number(o, "missed_limit_ns"),
		.timeout_ns = number(o, "timeout_ns"),
		.stop_ns = number(o, "stop_ns"),
		.retry_backoff_ns = number(o, "retry_backoff_ns"),
		.jitter_ns = number(o, "jitter_ns"),
		.handoff_timeout_ns = number(o, "handoff_timeout_ns"),
	};
}

static const char *string_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text != NULL ? text : "";
}

static int read_job(struct job_definition *d, json_t *o, struct zone_list *zones, struct err *e)
{
	struct schedule_findings findings = {0};

	d->references = 1;
	d->zones = zones;
	zones->references++;
	d->name = text_of(json_object_get(o, "name"));
	d->directory = text_of(json_object_get(o, "directory"));
	d->on_failure = text_of(json_object_get(o, "on_failure"));
	d->text = text_of(json_object_get(o, "schedule"));
	d->timezone = text_of(json_object_get(o, "timezone"));
	if (d->name == NULL || d->directory == NULL || d->on_failure == NULL || d->text == NULL ||
		d->timezone == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	d->umask = (int)number(o, "umask");
	d->nice = (int)number(o, "nice");
	d->oom_score_adj = (int)number(o, "oom_score_adj");
	d->stopsignal = (int)number(o, "stopsignal");
	d->no_new_privs = number(o, "no_new_privs") != 0;
	d->output_keep = (size_t)number(o, "output_keep");
	if (d->output_keep > LEDGER_OUTPUT_MAX)
		d->output_keep = LEDGER_OUTPUT_MAX;
	if (schedule_parse(d->text, &d->schedule, &findings) < 0)
		return err_set(e, ERR_CONFIG, "schedule '%.100s': %s", d->text,
			findings.count > 0 ? findings.items[0].text : "not understood");
	if (zone_of(zones, d->timezone, &d->zone, e) < 0)
		return e->code;
	d->argv = read_argv(json_object_get(o, "argv"));
	if (d->argv == NULL || read_environment(d, o, json_object_get(o, "user")) < 0 ||
		read_user(d, json_object_get(o, "user")) < 0 || read_limits(d, o) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	if (d->argv[0] == NULL)
		return err_set(e, ERR_CONFIG, "its command is empty");
	read_policy(d, o);
	return 0;
}

void job_definition_free(struct job_definition *d)
{
	if (d == NULL || --d->references > 0)
		return;
	zones_free(d->zones);
	free_list(d->argv);
	free_list(d->environment);
	free(d->groups);
	free(d->limits);
	free(d->name);
	free(d->directory);
	free(d->on_failure);
	free(d->text);
	free(d->timezone);
	free(d);
}

int64_t job_definition_next(const void *definition, int64_t after_us)
{
	const struct job_definition *d = definition;
	int64_t next = schedule_next(&d->schedule, d->zone, after_us);

	return next == SCHEDULE_NEVER ? JOBS_NEVER : next;
}

/* --- all of them --------------------------------------------------------------------------- */
static void read_settings(const json_t *o, struct job_set *s)
{
	struct store_settings *t = &s->store;

	s->max_running = (int)number(o, "max_running");
	if (s->max_running < 1)
		s->max_running = 1;
	s->history_keep_us = number(o, "history_keep_ns") / 1000;
	s->history_count = number(o, "history_count");
	snprintf(t->database, sizeof t->database, "%s", string_of(o, "database"));
	snprintf(t->lock_name, sizeof t->lock_name, "%s", string_of(o, "lock_name"));
	snprintf(t->instance, sizeof t->instance, "%s", string_of(o, "instance"));
	snprintf(t->hostname, sizeof t->hostname, "%s", string_of(o, "hostname"));
	t->unsafe_filesystem = number(o, "unsafe_filesystem") != 0;
	t->busy_limit_ms = number(o, "busy_limit_ms");
	t->pid = getpid();
}

int job_set_read(json_t *document, void (*complain)(const char *job, const char *text),
	struct job_set *ret_set, struct err *e)
{
	json_t *list = json_object_get(document, "jobs"), *row;
	struct zone_list *zones = calloc(1, sizeof *zones);
	struct job_set s = {0};
	size_t i;

	if (!json_is_array(list)) {
		free(zones);
		return err_set(e, ERR_PROTOCOL, "the supervisor's answer has no jobs");
	}
	s.items = calloc(json_array_size(list) + 1, sizeof(struct job_definition *));
	if (s.items == NULL || zones == NULL) {
		free(s.items);
		free(zones);
		return err_set(e, ERR_SYSTEM, "out of memory");
	}
	zones->references = 1;
	read_settings(document, &s);
	json_array_foreach(list, i, row)
	{
		struct job_definition *d = calloc(1, sizeof *d);
		struct err why;

		if (d == NULL)
			continue;
		if (read_job(d, row, zones, &why) == 0) {
			s.items[s.count++] = d;
			continue;
		}
		complain(d->name != NULL ? d->name : "", why.text);
		job_definition_free(d);
	}
	zones_free(zones);
	*ret_set = s;
	return 0;
}

void job_set_release(struct job_set *s)
{
	for (size_t i = 0; i < s->count; i++)
		job_definition_free(s->items[i]);
	free(s->items);
	memset(s, 0, sizeof *s);
}

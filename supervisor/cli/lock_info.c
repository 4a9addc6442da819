/* lock info, lock history. */
#include "supervisor/cli/lock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/cli/output.h"

enum { HISTORY_LINES = 20, TEXT = 1024 };

static const char *const life_names[] = {
	[LIFE_NONE] = "none",
	[LIFE_ALIVE] = "alive",
	[LIFE_DEAD] = "dead",
	[LIFE_GONE] = "gone",
	[LIFE_UNKNOWN] = "unknown",
};

static const char *const floor_names[] = {
	[FLOOR_ABSENT] = "absent",
	[FLOOR_OK] = "ok",
	[FLOOR_OTHER_UUID] = "of another database",
	[FLOOR_HIGHER] = "higher than the row",
	[FLOOR_UNREADABLE] = "unreadable",
};

static int64_t expires_us(const struct store_row *row)
{
	return row->heartbeat_at_us ? row->heartbeat_at_us + row->ttl_ms * 1000 : 0;
}

/* What a person who looks at the lock can do now. */
static void next_step(const struct lock_site *site, char *buf, size_t bytes)
{
	const struct store_row *row = &site->view.row;
	int64_t left_ms = (expires_us(row) - output_now_us()) / 1000;
	char text[64];

	if (!site->view.exists)
		snprintf(buf, bytes, "no instance has run yet: baton run -c %s", site->path);
	else if (site->view.floor == FLOOR_OTHER_UUID || site->view.floor == FLOOR_HIGHER)
		snprintf(buf, bytes,
			"the database was replaced or restored: instances stand by and go on above "
			"term %lld after a full ttl of silence",
			(long long)site->view.floor_term);
	else if (site->life == LIFE_NONE)
		snprintf(buf, bytes,
			"it is free: the next instance takes it at once: "
			"baton run -c %s",
			site->path);
	else if (site->life == LIFE_ALIVE)
		snprintf(buf, bytes,
			"other instances stand by; to move it: baton handoff --away -c %s",
			site->path);
	else if (site->life == LIFE_DEAD)
		snprintf(buf, bytes,
			"a standby takes over at once; to free it now: baton lock release --force "
			"-c %s",
			site->path);
	else if (left_ms > 0)
		snprintf(buf, bytes, "if nothing renews it for %s a standby takes over",
			output_duration(row->ttl_ms, text, sizeof(text)));
	else
		snprintf(buf, bytes,
			"it is silent: a standby takes over after watching it for %s; without one: "
			"baton lock release --force -c %s",
			output_duration(row->ttl_ms, text, sizeof(text)), site->path);
}

static json_t *time_json(int64_t wall_us)
{
	char text[64];

	return wall_us > 0 ? json_string(output_time(wall_us, text, sizeof(text))) : json_null();
}

static json_t *executors_json(const struct store_view *v)
{
	json_t *list = json_array();

	for (size_t i = 0; i < v->executor_count; i++) {
		const struct store_executor *x = &v->executors[i];
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:I, s:I, s:o}", "program", x->program,
				      "worker", x->worker, "pid", (json_int_t)x->pid, "term",
				      (json_int_t)x->term, "since", time_json(x->since_us)));
	}
	return list;
}

static int info_json(const struct lock_site *site)
{
	const struct store_view *v = &site->view;
	const struct store_row *row = &v->row;
	json_t *holder = json_null(), *document;
	char next[TEXT];
	int rc;

	next_step(site, next, sizeof(next));
	if (row->held)
		holder = json_pack("{s:s, s:I, s:s, s:s, s:s, s:s}", "instance", row->holder, "pid",
			(json_int_t)row->pid, "hostname", row->hostname, "worker", row->worker,
			"life", life_names[site->life], "reason", site->life_reason);
	document = json_pack(
		"{s:s, s:b, s:s, s:o, s:I, s:I, s:o, s:o, s:o, s:I, s:o, s:{s:s, s:I}, s:s}",
		"database", site->store.settings.database, "exists", v->exists, "state",
		row->held ? "held" : "free", "holder", holder, "term", (json_int_t)row->term,
		"epoch", (json_int_t)row->epoch, "acquired_at", time_json(row->created_at_us),
		"heartbeat_at", time_json(row->heartbeat_at_us), "expires_at",
		time_json(row->held ? expires_us(row) : 0), "ttl_ms", (json_int_t)row->ttl_ms,
		"executors", executors_json(v), "floor", "state", floor_names[v->floor], "term",
		(json_int_t)v->floor_term, "next", next);
	rc = output_json(document);
	json_decref(document);
	return rc;
}

static void line(struct output_table *t, const char *title, const char *text)
{
	output_cell(t, STRONG, "%s", title);
	output_cell(t, PLAIN, "%s", text);
}

static void moment(struct output_table *t, const char *title, int64_t wall_us)
{
	int64_t ms = (output_now_us() - wall_us) / 1000;
	char text[64], age[64];

	if (wall_us <= 0)
		return;
	output_time(wall_us, text, sizeof(text));
	output_duration(ms < 0 ? -ms : ms, age, sizeof(age));
	output_cell(t, STRONG, "%s", title);
	output_cell(t, PLAIN, ms < 0 ? "%s (in %s)" : "%s (%s ago)", text, age);
}

static void info_held(struct output_table *t, const struct lock_site *site)
{
	const struct store_row *row = &site->view.row;
	char text[TEXT];

	line(t, "holder", lock_holder_text(row, text, sizeof(text)));
	line(t, "instance", row->holder);
	output_cell(t, STRONG, "life");
	output_cell(t, site->life == LIFE_ALIVE ? GOOD : CAREFUL, "%s: %s", life_names[site->life],
		site->life_reason);
	moment(t, "since", row->created_at_us);
	moment(t, "renewed", row->heartbeat_at_us);
	moment(t, "until", expires_us(row));
}

static void info_text(const struct lock_site *site)
{
	const struct store_view *v = &site->view;
	struct output_table t;
	char text[TEXT];

	output_table_init(&t, 2);
	line(&t, "lock", site->store.settings.database);
	if (!v->exists) {
		line(&t, "state", "no database yet");
	} else {
		snprintf(text, sizeof(text), "%s, term %lld, epoch %lld",
			v->row.held ? "held" : "free", (long long)v->row.term,
			(long long)v->row.epoch);
		line(&t, "state", text);
		if (v->row.held)
			info_held(&t, site);
		for (size_t i = 0; i < v->executor_count; i++) {
			const struct store_executor *x = &v->executors[i];
			output_cell(&t, STRONG, "executor");
			/* None with promote = respawn: the row was written before the process. */
			snprintf(text, sizeof(text), " (pid %lld)", (long long)x->pid);
			output_cell(&t, PLAIN, "%s: %s%s, term %lld", x->program, x->worker,
				x->pid > 0 ? text : "", (long long)x->term);
		}
		if (v->floor != FLOOR_OK) {
			snprintf(text, sizeof(text), "%s (term %lld)", floor_names[v->floor],
				(long long)v->floor_term);
			line(&t, "floor", text);
		}
	}
	next_step(site, text, sizeof(text));
	line(&t, "next", text);
	output_table_print(&t, stdout, output_coloured(stdout), 0);
}

int lock_info(struct cli *c)
{
	struct lock_site site;
	int rc = lock_open(c, &site);

	if (rc != 0)
		return rc;
	if (cli_has(c, OPTION_JSON))
		rc = info_json(&site);
	else
		info_text(&site);
	lock_close(&site);
	return rc;
}

struct history {
	json_t *json; /* NULL: the table */
	struct output_table table;
};

static bool add_term(const struct store_executor *of, int64_t ended_us, const char *holder,
	const char *hostname, const char *reason, void *context)
{
	struct history *h = context;
	char since[64], lasted[64] = "";

	if (h->json) {
		json_array_append_new(h->json,
			json_pack("{s:I, s:s, s:s, s:I, s:s, s:s, s:o, s:o, s:s}", "term",
				(json_int_t)of->term, "program", of->program, "worker", of->worker,
				"pid", (json_int_t)of->pid, "holder", holder, "hostname", hostname,
				"acquired_at", time_json(of->since_us), "ended_at",
				time_json(ended_us), "reason", reason));
		return true;
	}
	if (ended_us > 0)
		output_duration((ended_us - of->since_us) / 1000, lasted, sizeof(lasted));
	output_cell(&h->table, PLAIN, "%lld", (long long)of->term);
	output_cell(&h->table, PLAIN, "%s", of->worker[0] ? of->worker : "-");
	if (of->pid > 0)
		output_cell(&h->table, PLAIN, "%lld", (long long)of->pid);
	else
		output_cell(&h->table, PLAIN, "-");
	output_cell(&h->table, PLAIN, "%s", hostname);
	/* To the second: 80 columns are few for seven of them. */
	output_time(of->since_us, since, sizeof(since));
	since[strcspn(since, ".")] = '\0';
	output_cell(&h->table, PLAIN, "%s", since);
	output_cell(&h->table, PLAIN, "%s", ended_us > 0 ? lasted : "now");
	output_cell(&h->table, PLAIN, "%s", reason);
	return true;
}

static int history_limit(struct cli *c, int *ret_limit)
{
	char *end;
	long n;

	*ret_limit = HISTORY_LINES;
	if (!cli_has(c, OPTION_LIMIT))
		return 0;
	n = strtol(c->values[OPTION_LIMIT], &end, 10);
	if (*end || end == c->values[OPTION_LIMIT] || n < 1 || n > 1000000)
		return cli_usage(c, "-n '%s': not a number of lines", c->values[OPTION_LIMIT]);
	*ret_limit = (int)n;
	return 0;
}

int lock_history(struct cli *c)
{
	static const char *const titles[] = {
		"TERM", "WORKER", "PID", "HOST", "SINCE (UTC)", "LASTED", "END"};
	struct history h = {.json = NULL};
	struct lock_site site;
	struct err e = {.text = ""};
	enum store_outcome outcome = STORE_DONE;
	int limit, rc = history_limit(c, &limit);

	if (rc == 0)
		rc = lock_open(c, &site);
	if (rc != 0)
		return rc;
	if (cli_has(c, OPTION_JSON))
		h.json = json_array();
	output_table_init(&h.table, 7);
	for (size_t i = 0; !h.json && i < sizeof(titles) / sizeof(titles[0]); i++)
		output_cell(&h.table, STRONG, "%s", titles[i]);
	if (site.view.exists && site.view.schema_version > 0)
		outcome = site.store.ops->history(&site.store, limit, add_term, &h, &e);
	if (outcome != STORE_DONE)
		rc = cli_fail(c, CLI_FAILED, NULL, "cannot read the history: %s", e.text);
	else if (h.json)
		rc = output_json(h.json);
	else
		output_table_print(&h.table, stdout, output_coloured(stdout), output_width());
	json_decref(h.json);
	lock_close(&site);
	return rc;
}

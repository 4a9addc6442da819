/* jobs, alone: what there is, what runs, how it went, when it comes next. */
#include <stdlib.h>
#include <string.h>

#include "conf/schedule.h"
#include "supervisor/cli/jobs_ledger.h"
#include "supervisor/cli/output.h"

/* One line of the table: of the file, of the ledger, or of both. */
struct job_line {
	const char *name;
	const struct config_job *own;     /* NULL: not in this file */
	const struct jobs_known *known;   /* NULL: the ledger has not heard of it */
	const struct ledger_run *last;    /* the newest that ended */
	const struct ledger_run *running; /* the oldest that runs */
	int running_count, queued, pending;
	int64_t next_us; /* SCHEDULE_NEVER */
};

struct table {
	struct lock_site site;
	struct jobs_found found, last;
	struct job_line *lines;
	size_t count;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct job_line *)a)->name, ((const struct job_line *)b)->name);
}

static struct job_line *line_of(struct table *t, const char *name)
{
	struct job_line key = {.name = name};

	return bsearch(&key, t->lines, t->count, sizeof(key), by_name);
}

/* Of a job in somebody else's file: by what was declared there. */
static int64_t next_declared(const struct ledger_declared *d, int64_t now)
{
	struct schedule_findings findings;
	struct schedule schedule;
	struct zone *zone = NULL;
	int64_t next;

	if (d->schedule[0] == '\0' || schedule_parse(d->schedule, &schedule, &findings) != 0 ||
		zone_load(d->timezone, &zone, NULL) != 0)
		return SCHEDULE_NEVER;
	next = schedule_next(&schedule, zone, now);
	zone_free(zone);
	return next;
}

static void count_run(struct job_line *line, const struct ledger_run *r)
{
	if (r->status == LEDGER_QUEUED) {
		line->queued++;
	} else {
		line->running_count++;
		if (!line->running)
			line->running = r;
	}
}

/* In the file of the instance that runs the jobs now. */
static bool is_executors(const struct table *t, const struct jobs_known *k)
{
	return k->instance[0] && jobs_executor(&t->site) &&
	       strcmp(k->instance, t->site.view.row.holder) == 0;
}

static bool make_lines(struct table *t)
{
	const struct config *config = t->site.config;
	size_t own_count = config ? config->job_count : 0;
	int64_t now = output_now_us();

	t->lines = calloc(own_count + t->found.job_count + 1, sizeof(*t->lines));
	if (!t->lines)
		return false;
	for (size_t i = 0; i < own_count; i++) {
		const struct config_job *j = &config->jobs[i];
		t->lines[t->count++] = (struct job_line){.name = j->name,
			.own = j,
			.next_us = j->enabled ? schedule_next(j->when, j->zone, now)
					      : SCHEDULE_NEVER};
	}
	qsort(t->lines, t->count, sizeof(*t->lines), by_name);
	size_t own = t->count;
	for (size_t i = 0; i < t->found.job_count; i++) {
		const struct jobs_known *k = &t->found.jobs[i];
		struct job_line key = {.name = k->job.job},
				*line = bsearch(&key, t->lines, own, sizeof(key), by_name);
		if (!line) {
			line = &t->lines[t->count++];
			*line = (struct job_line){.name = k->job.job,
				.next_us = is_executors(t, k) ? next_declared(&k->declared, now)
							      : SCHEDULE_NEVER};
		}
		line->known = k;
		if (k->job.paused)
			line->next_us = SCHEDULE_NEVER;
	}
	qsort(t->lines, t->count, sizeof(*t->lines), by_name);
	return true;
}

static void fill_lines(struct table *t)
{
	struct job_line *line;

	for (size_t i = 0; i < t->found.run_count; i++) {
		line = line_of(t, t->found.runs[i].key.job);
		if (line)
			count_run(line, &t->found.runs[i]);
	}
	for (size_t i = 0; i < t->last.run_count; i++) {
		line = line_of(t, t->last.runs[i].key.job);
		if (line)
			line->last = &t->last.runs[i];
	}
	for (size_t i = 0; i < t->found.request_count; i++) {
		line = line_of(t, t->found.requests[i].job);
		if (line)
			line->pending++;
	}
}

/* --- for people ---------------------------------------------------------------------------- */
static bool is_paused(const struct job_line *l)
{
	return l->known && l->known->job.paused;
}

static void put_state(struct output_table *out, const struct job_line *l, int64_t now)
{
	char text[64] = "", age[32];
	size_t used = 0;

	if (l->running) {
		output_duration((now - jobs_begun_us(l->running)) / 1000, age, sizeof(age));
		used = (size_t)snprintf(text, sizeof(text), "running %s", age);
		if (l->running_count > 1)
			used += (size_t)snprintf(
				text + used, sizeof(text) - used, " (%d)", l->running_count);
	}
	if (l->queued + l->pending > 0)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%squeued %d",
			used ? ", " : "", l->queued + l->pending);
	if (is_paused(l))
		used += (size_t)snprintf(
			text + used, sizeof(text) - used, "%spaused", used ? ", " : "");
	if (used == 0)
		snprintf(text, sizeof(text), "%s", l->own && !l->own->enabled ? "disabled" : "-");
	output_cell(out, is_paused(l) ? CAREFUL : l->running ? STRONG : PLAIN, "%s", text);
}

static void put_last(struct output_table *out, const struct job_line *l, int64_t now)
{
	const struct ledger_run *r = l->last;
	char age[32], took[32] = "";

	if (!r) {
		output_cell(out, FAINT, "never");
		output_cell(out, PLAIN, NULL);
		return;
	}
	output_duration((now - jobs_begun_us(r)) / 1000, age, sizeof(age));
	if (jobs_took_ms(r) >= 0)
		output_duration(jobs_took_ms(r), took, sizeof(took));
	output_cell(out, jobs_result_colour(r), "%s %s ago", ledger_status_name(r->status), age);
	output_cell(out, PLAIN, "%s", took);
}

static void put_schedule(struct output_table *out, const struct table *t, const struct job_line *l)
{
	const struct jobs_known *k = l->known;
	char words[160];

	if (l->own)
		output_cell(out, FAINT, "%s", schedule_print(l->own->when, words, sizeof(words)));
	else if (!k->declared.schedule[0])
		output_cell(out, FAINT, "of an application");
	else if (!t->site.config)
		output_cell(out, FAINT, "%s", k->declared.schedule);
	else if (k->hostname[0])
		output_cell(out, CAREFUL, "%s (not in this file: %s)", k->declared.schedule,
			k->hostname);
	else
		output_cell(out, CAREFUL, "%s (no longer in the file)", k->declared.schedule);
}

static void print_lines(const struct table *t)
{
	static const char *const titles[] = {"JOB", "STATE", "LAST", "TOOK", "NEXT", "SCHEDULE"};
	int64_t now = output_now_us();
	struct output_table out;
	char distance[32];

	output_table_init(&out, 6);
	for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); i++)
		output_cell(&out, FAINT, "%s", titles[i]);
	for (size_t i = 0; i < t->count; i++) {
		const struct job_line *l = &t->lines[i];

		output_cell(&out, STRONG, "%s", l->name);
		put_state(&out, l, now);
		put_last(&out, l, now);
		if (l->next_us == SCHEDULE_NEVER)
			output_cell(&out, PLAIN, "-");
		else
			output_cell(&out, PLAIN, "in %s",
				output_duration(
					(l->next_us - now) / 1000, distance, sizeof(distance)));
		put_schedule(&out, t, l);
	}
	output_table_print(&out, stdout, output_coloured(stdout), output_width());
}

static bool has_jobs_of_files(const struct table *t)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->lines[i].own || t->lines[i].known->declared.schedule[0])
			return true;
	return false;
}

static void print_executor(const struct table *t)
{
	const struct store_executor *x = jobs_executor(&t->site);
	bool coloured = output_coloured(stdout);
	const struct store_row *row = &t->site.view.row;

	if (x)
		printf("%srun by %s (pid %lld) of pid %lld on %s%s\n\n",
			output_paint(coloured, FAINT), x->worker, (long long)x->pid,
			(long long)row->pid, row->hostname, output_paint(coloured, PLAIN));
	else if (has_jobs_of_files(t))
		printf("%snobody runs them now%s: baton run -c %s\n\n",
			output_paint(coloured, CAREFUL), output_paint(coloured, PLAIN),
			t->site.path);
}

/* --- JSON ---------------------------------------------------------------------------------- */
static json_t *line_json(const struct table *t, const struct job_line *l)
{
	const struct jobs_known *k = l->known;
	json_t *running = json_array();

	for (size_t i = 0; i < t->found.run_count; i++) {
		if (strcmp(t->found.runs[i].key.job, l->name) == 0)
			json_array_append_new(running, jobs_run_json(&t->found.runs[i]));
	}
	return json_pack("{s:s, s:o, s:s?, s:s?, s:b, s:b, s:o, s:o, s:o, s:o, s:i, s:s?}", "name",
		l->name, "in_file", t->site.config ? json_boolean(l->own != NULL) : json_null(),
		"schedule",
		l->own                         ? l->own->schedule
		: k && k->declared.schedule[0] ? k->declared.schedule
					       : NULL,
		"timezone",
		l->own ? l->own->timezone
		: k    ? k->declared.timezone
		       : NULL,
		"enabled", !l->own || l->own->enabled, "paused", is_paused(l), "paused_at",
		jobs_time_json(is_paused(l) ? k->job.paused_us : 0), "next",
		jobs_time_json(l->next_us == SCHEDULE_NEVER ? 0 : l->next_us), "last",
		l->last ? jobs_run_json(l->last) : json_null(), "open", running, "requested",
		l->pending, "hostname", k && k->hostname[0] ? k->hostname : NULL);
}

static int print_json(const struct table *t)
{
	const struct store_executor *x = jobs_executor(&t->site);
	const struct store_row *row = &t->site.view.row;
	json_t *document = json_object(), *jobs = json_array(), *executor = json_null();
	int rc;

	if (x)
		executor = json_pack("{s:s, s:I, s:I, s:s, s:s}", "worker", x->worker, "pid",
			(json_int_t)x->pid, "term", (json_int_t)x->term, "instance", row->holder,
			"hostname", row->hostname);
	for (size_t i = 0; i < t->count; i++)
		json_array_append_new(jobs, line_json(t, &t->lines[i]));
	json_object_set_new(document, "executor", executor);
	json_object_set_new(document, "jobs", jobs);
	rc = output_json(document);
	json_decref(document);
	return rc;
}

int jobs_table(struct cli *c)
{
	struct store_query query = {.what = STORE_READ_JOBS | STORE_READ_RUNS | STORE_READ_REQUESTS,
		.open = true,
		.oldest_first = true};
	struct store_query last = {.what = STORE_READ_LAST};
	struct table t = {.count = 0};
	int rc = jobs_open(c, &t.site, 0);

	if (rc != 0)
		return rc;
	rc = jobs_read(c, &t.site, &query, &t.found);
	if (rc == 0)
		rc = jobs_read(c, &t.site, &last, &t.last);
	if (rc == 0 && !make_lines(&t))
		rc = cli_fail(c, CLI_FAILED, NULL, "out of memory");
	if (rc == 0)
		fill_lines(&t);
	if (rc == 0 && cli_has(c, OPTION_JSON)) {
		rc = print_json(&t);
	} else if (rc == 0 && t.count == 0) {
		printf("no jobs: add [job:NAME] with 'schedule' and 'command' to %s\n",
			t.site.path);
	} else if (rc == 0) {
		print_executor(&t);
		print_lines(&t);
	}
	free(t.lines);
	jobs_found_release(&t.found);
	jobs_found_release(&t.last);
	lock_close(&t.site);
	return rc;
}

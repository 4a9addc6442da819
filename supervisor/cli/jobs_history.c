/* jobs history, jobs output. */
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"
#include "conf/zone.h"
#include "supervisor/cli/jobs_ledger.h"
#include "supervisor/cli/output.h"

enum { HISTORY_LINES = 20, MOST_LINES = 1000000 };

/* A duration back from now, or a moment (local time without an offset). */
static int since_of(struct cli *c, int64_t *ret_us)
{
	const char *text = c->values[OPTION_SINCE];
	struct zone *zone = NULL;
	struct err e;
	int64_t ns;
	int rc;

	*ret_us = 0;
	if (!cli_has(c, OPTION_SINCE))
		return 0;
	if (units_duration(text, &ns, &e) == 0) {
		*ret_us = output_now_us() - ns / 1000;
		return 0;
	}
	if (zone_load("", &zone, &e) != 0)
		return cli_print_err(c, &e);
	rc = zone_scan(zone, text, ret_us, &e);
	zone_free(zone);
	return rc == 0 ? 0
		       : cli_usage(c,
				 "--since '%s': neither a duration such as 2h nor a moment such as "
				 "2027-03-28T02:30:00",
				 text);
}

static int limit_of(struct cli *c, int64_t *ret_limit)
{
	*ret_limit = HISTORY_LINES;
	if (cli_has(c, OPTION_LIMIT) &&
		(units_integer(c->values[OPTION_LIMIT], ret_limit, NULL) < 0 || *ret_limit < 1 ||
			*ret_limit > MOST_LINES))
		return cli_usage(
			c, "-n '%s': a number from 1 to %d", c->values[OPTION_LIMIT], MOST_LINES);
	return 0;
}

/* The moment of a firing: "11-28 02:30:00"; of another year "2025-11-28 02:30". */
static char *due_text(int64_t us, char *buf, size_t bytes)
{
	char at[64], now[64];

	output_time(us, at, sizeof(at));
	output_time(output_now_us(), now, sizeof(now));
	if (strlen(at) < 19) {
		snprintf(buf, bytes, "%s", at);
		return buf;
	}
	at[10] = ' ';
	if (strncmp(at, now, 5) == 0)
		snprintf(buf, bytes, "%.14s", at + 5);
	else
		snprintf(buf, bytes, "%.16s", at);
	return buf;
}

static void put_run(struct output_table *t, const struct ledger_run *r)
{
	char at[64], took[32] = "", late[32] = "-", result[LEDGER_TEXT_BYTES + 64],
		     attempt[32] = "";
	int64_t ms = jobs_took_ms(r);

	due_text(r->key.fire_time_us, at, sizeof(at));
	if (ms >= 0)
		output_duration(ms, took, sizeof(took));
	if (r->started_us > 0)
		late[0] = '\0';
	if (r->started_us - r->key.fire_time_us >= 1000000)
		output_duration((r->started_us - r->key.fire_time_us) / 1000, late, sizeof(late));
	if (r->key.attempt > 1)
		snprintf(attempt, sizeof(attempt), " %d", r->key.attempt);
	output_cell(t, PLAIN, "%lld", (long long)r->run);
	output_cell(t, STRONG, "%s", r->key.job);
	output_cell(t, PLAIN, "%s", at);
	output_cell(t, PLAIN, "%s", late);
	output_cell(t, PLAIN, "%s", ms >= 0 ? took : r->ended_us > 0 ? "-" : "");
	output_cell(t, FAINT, "%s%s", ledger_cause_name(r->cause), attempt);
	output_cell(t, jobs_result_colour(r), "%s", jobs_result_text(r, result, sizeof(result)));
}

static int print_history(struct cli *c, const struct jobs_found *f)
{
	static const char *const titles[] = {
		"RUN", "JOB", "DUE (UTC)", "LATE", "TOOK", "CAUSE", "RESULT"};
	struct output_table t;

	if (cli_has(c, OPTION_JSON)) {
		json_t *list = json_array();
		int rc;
		for (size_t i = 0; i < f->run_count; i++)
			json_array_append_new(list, jobs_run_json(&f->runs[i]));
		rc = output_json(list);
		json_decref(list);
		return rc;
	}
	if (f->run_count == 0) {
		printf("no runs\n");
		return CLI_OK;
	}
	output_table_init(&t, sizeof(titles) / sizeof(*titles));
	for (size_t i = 0; i < sizeof(titles) / sizeof(*titles); i++)
		output_cell(&t, FAINT, "%s", titles[i]);
	for (size_t i = 0; i < f->run_count; i++)
		put_run(&t, &f->runs[i]);
	output_table_print(&t, stdout, output_coloured(stdout), output_width());
	return CLI_OK;
}

/* The jobs of the ledger, to tell a job that never ran from one that does not exist. */
static int must_exist(struct cli *c, struct lock_site *site, const char *name)
{
	struct store_query known = {.what = STORE_READ_JOBS};
	struct jobs_found f = {.run_count = 0};
	int rc = jobs_read(c, site, &known, &f);

	if (rc == 0)
		rc = jobs_must_exist(c, site, &f, name);
	jobs_found_release(&f);
	return rc;
}

int jobs_history(struct cli *c)
{
	struct store_query query = {.what = STORE_READ_RUNS,
		.job = c->word_count > 0 ? c->words[0] : NULL,
		.failed = cli_has(c, OPTION_FAILED)};
	struct jobs_found f = {.run_count = 0};
	struct lock_site site;
	int rc = limit_of(c, &query.limit);

	if (rc == 0)
		rc = since_of(c, &query.since_us);
	if (rc == 0)
		rc = jobs_open(c, &site, 0);
	if (rc != 0)
		return rc;
	if (query.job)
		rc = must_exist(c, &site, query.job);
	if (rc == 0)
		rc = jobs_read(c, &site, &query, &f);
	if (rc == 0)
		rc = print_history(c, &f);
	jobs_found_release(&f);
	lock_close(&site);
	return rc;
}

/* --- output -------------------------------------------------------------------------------- */
static size_t utf8_length(unsigned char lead)
{
	return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* JSON is UTF-8: each byte that is none of it becomes U+FFFD. */
static json_t *text_json(const char *bytes, size_t count)
{
	json_t *text = json_stringn(bytes, count), *one;
	char *clean = text ? NULL : malloc(count * 3 + 1);
	size_t used = 0;

	for (size_t i = 0; clean && i < count;) {
		size_t length = utf8_length((unsigned char)bytes[i]);

		one = length <= count - i ? json_stringn(bytes + i, length) : NULL;
		if (!one)
			length = 1;
		memcpy(clean + used, one ? bytes + i : "\xef\xbf\xbd", one ? length : 3);
		used += one ? length : 3;
		i += length;
		json_decref(one);
	}
	if (clean)
		text = json_stringn(clean, used);
	free(clean);
	return text ? text : json_null();
}

int jobs_print_output(struct cli *c, const struct ledger_run *r, const struct jobs_found *f)
{
	if (r->output_bytes > r->output_kept)
		cli_fail(c, 0, NULL, "run %lld wrote %lld bytes, the last %lld are kept",
			(long long)r->run, (long long)r->output_bytes, (long long)r->output_kept);
	if (f->output_bytes > 0)
		fwrite(f->output, 1, f->output_bytes, stdout);
	return CLI_OK;
}

/* The newest that runs, or waits; NULL = none. */
static const struct ledger_run *running(const struct jobs_found *f)
{
	const struct ledger_run *queued = NULL;

	for (size_t i = 0; i < f->run_count; i++) {
		if (f->runs[i].status == LEDGER_RUNNING)
			return &f->runs[i];
		if (f->runs[i].status == LEDGER_QUEUED && !queued)
			queued = &f->runs[i];
	}
	return queued;
}

static int print_output(struct cli *c, const char *name, int64_t run, const struct jobs_found *f)
{
	const struct ledger_run *r = f->run_count > 0 ? &f->runs[f->run_count - 1] : NULL;
	const struct ledger_run *runs = running(f);
	json_t *document;
	int rc;

	if (!f->output && runs)
		return cli_fail(c, CLI_FAILED, NULL,
			"run %lld of '%s' %s: its output is kept at its end%s",
			(long long)runs->run, name,
			runs->status == LEDGER_QUEUED ? "waits for its turn" : "is running",
			run ? "" : ", and no run before has any");
	if (!f->output && run)
		return cli_fail(c, CLI_FAILED, "`baton jobs history` names them",
			r ? "run %lld of '%s' did not start: it has no output"
			  : "there is no run %lld of '%s' (any more)",
			(long long)run, name);
	if (!f->output)
		return cli_fail(c, CLI_FAILED, NULL, "'%s' has not run yet", name);
	if (runs)
		cli_fail(c, 0, NULL,
			"run %lld of '%s' is running: its output is kept at its end; this is "
			"that of run %lld",
			(long long)runs->run, name, (long long)r->run);
	if (!cli_has(c, OPTION_JSON))
		return jobs_print_output(c, r, f);
	document = jobs_run_json(r);
	json_object_set_new(document, "output", text_json(f->output, f->output_bytes));
	rc = output_json(document);
	json_decref(document);
	return rc;
}

int jobs_output(struct cli *c)
{
	struct store_query query = {.what = STORE_READ_RUNS | STORE_READ_OUTPUT};
	struct jobs_found f = {.run_count = 0};
	struct lock_site site;
	int rc;

	if (c->word_count < 1)
		return cli_usage(c, "of which job? baton jobs output NAME [RUN]");
	query.job = c->words[0];
	if (c->word_count > 1 &&
		(units_integer(c->words[1], &query.run, NULL) < 0 || query.run < 1))
		return cli_usage(c, "'%s': the number of a run, as `baton jobs history` names it",
			c->words[1]);
	rc = jobs_open(c, &site, 0);
	if (rc != 0)
		return rc;
	rc = must_exist(c, &site, query.job);
	if (rc == 0)
		rc = jobs_read(c, &site, &query, &f);
	if (rc == 0)
		rc = print_output(c, query.job, query.run, &f);
	jobs_found_release(&f);
	lock_close(&site);
	return rc;
}

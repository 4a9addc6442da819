/* jobs next: coming firings, by the file alone. */
#include "supervisor/cli/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/schedule.h"
#include "conf/units.h"
#include "supervisor/cli/output.h"

/* Times of a job that was named; of each job at most, of all together; lines in check. */
enum { ONE_JOB = 5, MOST = 10000, MOST_OF_ALL = 1000000, IN_CHECK = 20 };

struct firing {
	const struct config_job *job;
	int64_t at;
};

static int count_of(struct cli *c, int64_t *ret_count)
{
	int64_t n = c->word_count > 0 ? ONE_JOB : 1;

	if (cli_has(c, OPTION_LIMIT) &&
		(units_integer(c->values[OPTION_LIMIT], &n, NULL) < 0 || n < 1 || n > MOST))
		return cli_usage(
			c, "-n '%s': a number from 1 to %d", c->values[OPTION_LIMIT], MOST);
	*ret_count = n;
	return 0;
}

/* Without an offset it is local time: of the first job's zone when one is named. */
static int from_of(struct cli *c, const struct config_job *first, int64_t *ret_us)
{
	struct zone *system = NULL;
	struct err e;
	int rc;

	if (!cli_has(c, OPTION_FROM)) {
		*ret_us = output_now_us();
		return 0;
	}
	if (!first && zone_load("", &system, &e) < 0)
		return cli_print_err(c, &e);
	rc = zone_scan(first ? first->zone : system, c->values[OPTION_FROM], ret_us, &e);
	zone_free(system);
	return rc < 0 ? cli_usage(c, "--from %s", e.text) : 0;
}

/* --- JSON ------------------------------------------------------------------------------------ */

static json_t *times_json(const struct config_job *job, int64_t from, int64_t count)
{
	json_t *times = json_array();
	char text[ZONE_TIME_BYTES];

	while (count-- > 0 && job->enabled) {
		from = schedule_next(job->when, job->zone, from);
		if (from == SCHEDULE_NEVER)
			break;
		json_array_append_new(
			times, json_string(zone_print(NULL, from, text, sizeof(text))));
	}
	return times;
}

static int print_json(
	const struct config_job *const *jobs, size_t job_count, int64_t from, int64_t count)
{
	json_t *document = json_object();
	int rc;

	for (size_t i = 0; i < job_count; i++)
		json_object_set_new(document, jobs[i]->name, times_json(jobs[i], from, count));
	rc = output_json(document);
	json_decref(document);
	return rc;
}

/* --- for people ------------------------------------------------------------------------------ */

static int by_time(const void *a, const void *b)
{
	const struct firing *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->job < y->job ? -1 : x->job > y->job;
}

static const char *why_never(const struct config_job *job)
{
	if (!job->enabled)
		return "never: not enabled";
	return job->when->kind == SCHEDULE_PROMOTION ? "at the next one" : "never";
}

static void put_firing(struct output_table *t, const struct firing *f, int64_t now)
{
	char text[ZONE_TIME_BYTES], distance[64], words[160];
	bool never = f->at == SCHEDULE_NEVER;

	output_cell(t, STRONG, "%s", f->job->name);
	if (never)
		output_cell(t, FAINT, "%s", why_never(f->job));
	else
		output_cell(t, PLAIN, "%s", zone_print(f->job->zone, f->at, text, sizeof(text)));
	if (never || f->at < now)
		output_cell(t, PLAIN, NULL);
	else
		output_cell(t, FAINT, "in %s",
			output_duration((f->at - now) / 1000, distance, sizeof(distance)));
	output_cell(t, FAINT, "%s", schedule_print(f->job->when, words, sizeof(words)));
}

/* All in the order of time: what comes first, stands first. */
static int print_table(const struct config_job *const *jobs, size_t job_count, int64_t from,
	int64_t count, size_t lines)
{
	struct firing *firings = calloc(job_count * (size_t)count + 1, sizeof(*firings));
	int64_t now = output_now_us();
	struct output_table t;
	size_t n = 0;

	if (!firings)
		return -1;
	for (size_t i = 0; i < job_count; i++) {
		int64_t at = from;
		for (int64_t k = 0; k < count && at != SCHEDULE_NEVER; k++) {
			at = jobs[i]->enabled ? schedule_next(jobs[i]->when, jobs[i]->zone, at)
					      : SCHEDULE_NEVER;
			if (at != SCHEDULE_NEVER || k == 0)
				firings[n++] = (struct firing){jobs[i], at};
		}
	}
	qsort(firings, n, sizeof(*firings), by_time);
	output_table_init(&t, 4);
	output_cell(&t, FAINT, "JOB");
	output_cell(&t, FAINT, "NEXT");
	output_cell(&t, FAINT, NULL);
	output_cell(&t, FAINT, "SCHEDULE");
	for (size_t i = 0; i < n && i < lines; i++)
		put_firing(&t, &firings[i], now);
	output_table_print(&t, stdout, output_coloured(stdout), output_width());
	if (n > lines)
		printf("and %zu more: baton jobs next\n", n - lines);
	free(firings);
	return 0;
}

/* --- the command ----------------------------------------------------------------------------- */

/* Those named, each once, or all: in the order of the file. */
static int choose(struct cli *c, const struct config *config, const struct config_job **jobs,
	size_t *ret_count)
{
	size_t n = 0;

	for (int w = 0; w < c->word_count; w++) {
		if (jobs_find(c, config, c->words[w]) < 0)
			return CLI_FAILED;
	}
	for (size_t i = 0; i < config->job_count; i++) {
		bool wanted = c->word_count == 0;
		for (int w = 0; w < c->word_count; w++)
			wanted |= strcmp(c->words[w], config->jobs[i].name) == 0;
		if (wanted)
			jobs[n++] = &config->jobs[i];
	}
	*ret_count = n;
	return 0;
}

static int print_next(struct cli *c, const struct config *config, const struct config_job **jobs)
{
	size_t job_count;
	int64_t from, count;
	int rc = choose(c, config, jobs, &job_count);

	if (rc == 0)
		rc = count_of(c, &count);
	if (rc == 0)
		rc = from_of(c, c->word_count > 0 ? jobs[0] : NULL, &from);
	if (rc != 0)
		return rc;
	if ((int64_t)job_count * count > MOST_OF_ALL)
		return cli_usage(c, "-n %lld of %zu jobs are more than %d times: name some jobs",
			(long long)count, job_count, MOST_OF_ALL);
	if (cli_has(c, OPTION_JSON))
		return print_json(jobs, job_count, from, count);
	if (job_count == 0) {
		printf("no jobs: add [job:NAME] with 'schedule' and 'command' to %s\n",
			config->path);
		return CLI_OK;
	}
	if (print_table(jobs, job_count, from, count, SIZE_MAX) < 0)
		return cli_fail(c, CLI_FAILED, NULL, "out of memory");
	return CLI_OK;
}

int jobs_next(struct cli *c)
{
	const struct config_job **jobs;
	struct config *config = NULL;
	int rc = cli_load(c, &config);

	if (rc != 0)
		return rc;
	jobs = calloc(config->job_count + 1, sizeof(const struct config_job *));
	rc = jobs ? print_next(c, config, jobs) : cli_fail(c, CLI_FAILED, NULL, "out of memory");
	free(jobs);
	config_unref(config);
	return rc;
}

int jobs_print_coming(const struct cli *c, const struct config *config)
{
	const struct config_job **jobs;
	int rc;

	jobs = calloc(config->job_count + 1, sizeof(const struct config_job *));
	for (size_t i = 0; jobs && i < config->job_count; i++)
		jobs[i] = &config->jobs[i];
	rc = jobs ? print_table(jobs, config->job_count, output_now_us(), 1, IN_CHECK) : -1;
	free(jobs);
	return rc < 0 ? cli_fail(c, CLI_FAILED, NULL, "out of memory") : CLI_OK;
}

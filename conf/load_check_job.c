/* What concerns several settings of a job together, or the machine. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/load.h"
#include "conf/units.h"
#include "conf/words.h"

struct job_check {
	struct loader *l;
	const struct config_job *job;
	const char *last_directory; /* that exists: ten thousand jobs name one */
};

static struct setting get(const struct job_check *k, const char *key)
{
	return setting_key(k->l->data, SECTION_JOB, k->job->raw->ini, NULL, key);
}

static bool written(const struct job_check *k, const char *key)
{
	return get(k, key).source == SOURCE_FILE;
}

static void say(const struct job_check *k, bool warning, const char *key, const char *text)
{
	struct setting s = get(k, key);

	load_report(k->l, warning, k->job->raw->ini, &s, "%s", text);
}

static const char *variable(const struct config_job *job, const char *name)
{
	for (size_t i = job->environment_count; i > 0; i--) {
		if (strcmp(job->environment[i - 1].key, name) == 0)
			return job->environment[i - 1].value;
	}
	return getenv(name);
}

static bool check_directory(struct job_check *k)
{
	const char *directory = k->job->directory;
	struct setting s = get(k, "directory");
	struct stat st;

	if (!directory[0] || (k->last_directory && strcmp(directory, k->last_directory) == 0))
		return true;
	if (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
		load_report(k->l, !k->job->enabled, k->job->raw->ini, &s,
			"'%.200s' is not an existing directory", directory);
		return false;
	}
	k->last_directory = directory;
	return true;
}

static void check_command(struct job_check *k)
{
	const struct config_job *job = k->job;
	struct loader *l = k->l;
	const char *directory = job->directory, *path = variable(job, "PATH"), *why, *syntax;
	struct setting s = get(k, "command");

	if (!job->argv || job->shell)
		return;
	syntax = words_shell_syntax(&l->scratch, job->command);
	if (syntax)
		load_report(l, true, job->raw->ini, &s,
			"'%s' is passed as it stands: no shell runs; leave 'shell = no' off, or "
			"quote it to say that it is meant so",
			syntax);
	if (!directory[0])
		directory = l->config->directory[0] ? l->config->directory : ".";
	why = load_not_runnable(l, job->argv[0], directory, path ? path : "/bin:/usr/bin");
	if (why)
		load_report(l, !job->enabled, job->raw->ini, &s, "'%.200s' %s", job->argv[0], why);
}

static void check_times(struct job_check *k)
{
	const struct config_job *job = k->job;
	struct setting s = get(k, "stopwaitsecs");
	char stop[32], whole[32];

	if (job->stopwaitsecs_ns > k->l->config->shutdown_timeout_ns)
		load_report(k->l, true, job->raw->ini, &s,
			"%s is longer than shutdown_timeout (%s): a shutdown kills a run earlier",
			units_print_duration(job->stopwaitsecs_ns, stop, sizeof(stop)),
			units_print_duration(
				k->l->config->shutdown_timeout_ns, whole, sizeof(whole)));
	if (job->missed == MISSED_SKIP && written(k, "missed_limit"))
		say(k, true, "missed_limit", "has no effect with 'missed = skip'");
	if (job->retries == 0 && written(k, "retry_backoff"))
		say(k, true, "retry_backoff", "has no effect without 'retries'");
}

static void check_job(void *argument)
{
	struct job_check *k = argument;

	if (check_directory(k))
		check_command(k);
	check_times(k);
}

void load_check_jobs(struct loader *l)
{
	const struct ini_section *settings = ini_section(l->ini, "jobs");
	struct job_check k = {.l = l};

	if (settings && l->config->job_count == 0)
		errlist_addf(l->findings, true, settings->place.file, settings->place.line,
			"[jobs]: has no effect without a [job:NAME]");
	for (size_t i = 0; i < l->config->job_count; i++) {
		k.job = &l->jobs[i];
		if (arena_run(&l->scratch, check_job, &k) < 0)
			say(&k, false, "command", "out of memory");
		arena_release(&l->scratch);
	}
}

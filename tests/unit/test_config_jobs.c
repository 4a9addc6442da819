/* [job:NAME] and [jobs]: from text to the snapshot, the hidden program, the reload's plan. */
#include "tests/lib/conf_test.h"

#include <limits.h>
#include <signal.h>
#include <time.h>

#include "conf/schedule.h"
#include "conf/units.h"

#define SECOND UNITS_SECOND_NS
#define JOB    "[job:a]\nschedule = @daily\ncommand = true\n"

static void has(const struct conf_test *t, bool warning, int line, const char *words)
{
	for (size_t i = 0; i < t->findings.count; i++) {
		const struct err *e = &t->findings.items[i];
		if (e->warning == warning && e->line == line && strstr(e->text, words))
			return;
	}
	conf_test_print(t);
	fail_msg("line %d: no %s with '%s'", line, warning ? "warning" : "error", words);
}

static void test_defaults(void **state)
{
	struct conf_test t;
	const struct config_job *j;

	(void)state;
	conf_test_load(&t, "[scheduler]\nhandoff_timeout = 7s\n" JOB);
	assert_loaded(&t);
	assert_int_equal(t.findings.count, 0);
	assert_int_equal(t.config->mode, CONFIG_NATIVE);
	assert_int_equal(t.config->job_count, 1);
	assert_true(t.config->scheduler.enabled);
	j = &t.config->jobs[0];
	assert_string_equal(j->name, "a");
	assert_string_equal(j->schedule, "@daily");
	assert_string_equal(j->timezone, "");
	assert_int_equal(j->when->kind, SCHEDULE_CRON);
	assert_non_null(j->zone);
	assert_true(j->shell && j->enabled);
	assert_string_equal(j->argv[0], "/bin/sh");
	assert_string_equal(j->argv[1], "-c");
	assert_string_equal(j->argv[2], "true");
	assert_null(j->argv[3]);
	assert_string_equal(j->directory, "");
	assert_false(j->user.set);
	assert_int_equal(j->umask, -1);
	assert_int_equal(j->nice, INT_MIN);
	assert_int_equal(j->oom_score_adj, INT_MIN);
	assert_int_equal(j->stopsignal, SIGTERM);
	assert_true(j->stopwaitsecs_ns == 10 * SECOND);
	assert_true(j->timeout_ns == 0 && j->jitter_ns == 0);
	assert_int_equal(j->overlap, OVERLAP_SKIP);
	assert_int_equal(j->missed, MISSED_ONCE);
	assert_true(j->missed_limit_ns == 3600 * SECOND);
	assert_int_equal(j->retries, 0);
	assert_true(j->retry_backoff_ns == 10 * SECOND);
	assert_string_equal(j->on_failure, "");
	assert_true(j->output_keep == 64 << 10);
	assert_int_equal(j->interrupted, INTERRUPTED_FAIL);
	assert_true(j->handoff_timeout_ns == 7 * SECOND);
	assert_in_range(t.config->jobs_settings.max_running, 4, 40000);
	assert_true(t.config->jobs_settings.history_keep_ns == 30 * 86400 * SECOND);
	assert_int_equal(t.config->jobs_settings.history_count, 1000);
	assert_int_equal(config_find_job(t.config, "a"), 0);
	assert_int_equal(config_find_job(t.config, "b"), -1);
	conf_test_close(&t);
}

static const char *variable(const struct config_job *j, const char *key)
{
	const char *value = NULL;

	for (size_t i = 0; i < j->environment_count; i++) {
		if (strcmp(j->environment[i].key, key) == 0) {
			assert_null(value); /* each once */
			value = j->environment[i].value;
		}
	}
	return value;
}

static void test_settings(void **state)
{
	struct conf_test t;
	const struct config_job *j;
	char folder[128];

	(void)state;
	conf_test_open(&t);
	conf_test_write(t.folder, "env", "B=file\nC=file\n");
	conf_test_reload(&t,
		"[baton]\nenvironment = A=\"base\",B=\"base\"\n"
		"[job:x]\nschedule = 30 2 * * *\ntimezone = Europe/Berlin\n"
		"command = printf '%%s' \"%(job_name)s %(ENV_C)s\"\nshell = no\ndirectory = .\n"
		"environment_file = env\nenvironment = C=\"own\"\numask = 027\nnice = 5\n"
		"oom_score_adj = 100\nno_new_privs = yes\nrlimit_nofile = 64:128\n"
		"user = root\nstopsignal = INT\nstopwaitsecs = 3s\ntimeout = 2h\n"
		"overlap = replace\nmissed = all\nmissed_limit = 1d\nretries = 3\n"
		"retry_backoff = 1m\njitter = 30s\non_failure = echo failed\nenabled = no\n"
		"output_keep = 1MB\ninterrupted = rerun\nhandoff_timeout = 5m\n"
		"[jobs]\nmax_running = 3\nhistory_keep = 7d\nhistory_count = 50\n",
		CONFIG_DETECT);
	assert_loaded(&t);
	j = &t.config->jobs[0];
	assert_string_equal(j->command, "printf '%s' \"x own\"");
	assert_string_equal(j->argv[0], "printf");
	assert_string_equal(j->argv[2], "x own");
	assert_null(j->argv[3]);
	snprintf(folder, sizeof(folder), "%s/.", t.folder);
	assert_string_equal(j->directory, folder);
	assert_string_equal(variable(j, "A"), "base");
	assert_string_equal(variable(j, "B"), "file");
	assert_string_equal(variable(j, "C"), "own");
	assert_int_equal(j->environment_count, 3);
	assert_int_equal(j->umask, 027);
	assert_int_equal(j->nice, 5);
	assert_int_equal(j->oom_score_adj, 100);
	assert_true(j->no_new_privs);
	assert_int_equal(j->rlimit_count, 1);
	assert_int_equal(j->rlimits[0].hard, 128);
	assert_true(j->user.set && j->user.uid == 0);
	assert_int_equal(j->stopsignal, SIGINT);
	assert_true(j->timeout_ns == 7200 * SECOND);
	assert_int_equal(j->overlap, OVERLAP_REPLACE);
	assert_int_equal(j->missed, MISSED_ALL);
	assert_int_equal(j->retries, 3);
	assert_true(j->jitter_ns == 30 * SECOND);
	assert_string_equal(j->on_failure, "echo failed");
	assert_false(j->enabled);
	assert_true(j->output_keep == 1 << 20);
	assert_int_equal(j->interrupted, INTERRUPTED_RERUN);
	assert_true(j->handoff_timeout_ns == 300 * SECOND);
	assert_int_equal(t.config->jobs_settings.max_running, 3);
	assert_int_equal(t.config->jobs_settings.history_count, 50);
	assert_string_equal(zone_name(j->zone), "Europe/Berlin");
	conf_test_close(&t);
}

static void test_hidden_program(void **state)
{
	struct conf_test t;
	const struct config_program *p;
	struct config_worker w;
	struct err e;
	char *text = NULL;

	(void)state;
	conf_test_load(&t,
		"[baton]\nenvironment = A=\"1\"\n[DEFAULT]\nautostart = no\nworkers = 3\n"
		"[program:late]\ncommand = /bin/true\npriority = 2000000000\n" JOB
		"handoff_timeout = 2m\n[job:b]\nschedule = @hourly\ncommand = true\n"
		"stopwaitsecs = 40s\n");
	assert_loaded(&t);
	assert_int_equal(t.config->program_count, 2);
	p = &t.config->programs[1];
	assert_true(p->hidden && !t.config->programs[0].hidden);
	assert_string_equal(p->name, CONFIG_JOBS_PROGRAM);
	assert_int_equal(p->workers, 1);
	assert_true(p->autostart);
	assert_int_equal(p->autorestart, AUTORESTART_ALWAYS);
	assert_int_equal(p->startretries, -1);
	assert_int_equal(p->executor, EXECUTOR_CANDIDATE);
	assert_int_equal(p->promote, PROMOTE_NOTIFY);
	assert_int_equal(p->ready, READY_NOTIFY);
	assert_true(p->handoff_timeout_ns == 120 * SECOND); /* the longest */
	assert_true(p->stopwaitsecs_ns > 40 * SECOND);
	assert_true(p->level > t.config->programs[0].level); /* starts last, stops first */
	assert_true(p->order > t.config->programs[0].order);
	assert_int_equal(config_worker_build(t.config, 1, 0, NULL, &w, &e), 0);
	assert_string_equal(w.argv[0], CONFIG_JOB_WORKER);
	assert_null(w.argv[1]);
	assert_string_equal(w.name, "jobs");
	assert_int_equal(w.environment_count, 1);
	config_worker_release(&w);
	assert_int_equal(config_dump(t.config, false, &text), 0);
	assert_null(strstr(text, "[program:jobs]"));
	assert_non_null(strstr(text, "[job:a]"));
	assert_non_null(strstr(text, "[jobs]"));
	assert_non_null(strstr(text, "handoff_timeout = 120s"));
	free(text);
	assert_int_equal(config_dump(t.config, true, &text), 0);
	assert_null(strstr(text, "program:jobs"));
	free(text);
	conf_test_reload(&t, "[program:x]\ncommand = /bin/true\nworkers = 1\n", CONFIG_DETECT);
	assert_loaded(&t);
	assert_int_equal(t.config->program_count, 1);
	assert_int_equal(t.config->job_count, 0);
	assert_false(t.config->scheduler.enabled);
	conf_test_close(&t);
}

static void test_errors(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_load(&t,
		"[baton]\n"                                                /* 1 */
		"[job:a]\nschedule = 60 3 * * 9\ncommand = date +%d\n"     /* 2 */
		"timezone = Mars/Olympus\n"                                /* 5 */
		"[job:b]\ncommand =\n"                                     /* 6 */
		"[job:c]\nschedule = 0 9 1-7 * TUE\n"                      /* 8 */
		"[job:d e]\nschedule = @daily\ncommand = 'x\nshell = no\n" /* 10 */
		"[job:f]\nschedule = %(nothing)s\ncommand = nonesuch-at-all\nshell = "
		"no\n" /* 14 */
		"overlap = maybe\ntimeout = soon\noutput_keep = 1GB\ndirectory = "
		"/nonexistent\n"                                                      /* 18 */
		"[jobs]\nmax_running = 0\n"                                           /* 22 */
		"[program:jobs]\ncommand = /bin/true\n"                               /* 24 */
		"[job:g]\nschedule = @every 5s\ntimezone = UTC\n"                     /* 26 */
		"command = nonesuch-at-all\nshell = no\n"                             /* 29 */
		"[job:h]\nschedule = 0 0 31 2 *\ncommand = true\nstopwaitsecs = 2m\n" /* 31 */
		"missed = skip\nmissed_limit = 1h\nretry_backoff = 1s\nuser = "
		"no-such-user\n"); /* 35 */
	assert_null(t.config);
	has(&t, false, 3, "[job:a] schedule: column 1: minute '60': 0 to 59");
	has(&t, false, 3, "[job:a] schedule: column 10: day of week '9'");
	has(&t, false, 4, "write '%%'");
	has(&t, false, 5, "there is no time zone 'Mars/Olympus'");
	has(&t, false, 6, "[job:b] schedule: is missing");
	has(&t, false, 7, "[job:b] command: is missing: what shall run?");
	has(&t, false, 8, "[job:c] command: is missing");
	has(&t, true, 9, "either is enough");
	has(&t, false, 10, "must follow 'job:'");
	has(&t, false, 12, "the quote ' is not closed");
	has(&t, false, 15, "nothing");
	has(&t, false, 18, "overlap");
	has(&t, false, 19, "is not a duration");
	has(&t, false, 20, "is above");
	has(&t, false, 21, "is not an existing directory");
	has(&t, false, 23, "is below 1");
	has(&t, false, 24, "the name is taken by the program that runs the [job:] sections");
	has(&t, true, 28, "does not matter to this schedule");
	has(&t, false, 29, "is in no directory of PATH");
	has(&t, true, 32, "it never fires");
	has(&t, true, 34, "a shutdown kills a run earlier");
	has(&t, true, 36, "no effect with 'missed = skip'");
	has(&t, true, 37, "no effect without 'retries'");
	has(&t, false, 38, "there is no user 'no-such-user'");
	conf_test_reload(
		&t, "[jobs]\nmax_running = 2\n[program:x]\ncommand = /bin/true\n", CONFIG_DETECT);
	assert_loaded(&t);
	has(&t, true, 1, "no effect without a [job:NAME]");
	conf_test_reload(&t,
		"[job:x]\nschedule = 0,5 9 * * *\ncommand = true\njitter = 5m\n"
		"[job:y]\nschedule = 0,5 9 * * *\ncommand = true\njitter = 299s\n"
		"[job:z]\nschedule = @every 2s\ncommand = true\njitter = 10s\n",
		CONFIG_DETECT);
	assert_loaded(&t);
	has(&t, true, 4, "jitter: 5m is not less than the time between two firings (5m)");
	has(&t, true, 12, "jitter: 10s is not less than the time between two firings (2s)");
	assert_int_equal(t.findings.count, 2);
	/* not enabled: it need not be able to run here */
	conf_test_reload(&t,
		"[job:x]\nschedule = @daily\ncommand = nonesuch-at-all\nshell = no\nenabled = no\n",
		CONFIG_DETECT);
	assert_loaded(&t);
	has(&t, true, 3, "is in no directory of PATH");
	conf_test_close(&t);
}

/* The zone of the system is that of baton's own environment, which the job worker has. */
static void test_zone_of_baton(void **state)
{
	struct conf_test t;

	(void)state;
	setenv("TZ", "Asia/Kolkata", 1);
	conf_test_load(&t, JOB "[job:b]\nschedule = @daily\ncommand = true\ntimezone = UTC\n");
	assert_loaded(&t);
	assert_string_equal(zone_name(t.config->jobs[0].zone), "Asia/Kolkata");
	assert_string_equal(zone_name(t.config->jobs[1].zone), "UTC");
	conf_test_reload(&t, "[baton]\nenvironment = TZ=\"Pacific/Apia\"\n" JOB, CONFIG_DETECT);
	assert_loaded(&t);
	assert_string_equal(zone_name(t.config->jobs[0].zone), "Pacific/Apia");
	setenv("TZ", "Nowhere/Land", 1);
	conf_test_reload(&t, JOB, CONFIG_DETECT);
	assert_null(t.config);
	has(&t, false, 1, "TZ is 'Nowhere/Land': there is no time zone");
	unsetenv("TZ");
	conf_test_close(&t);
}

/* --- reload ---------------------------------------------------------------------------------- */

static struct config_diff plan(
	struct conf_test *a, struct conf_test *b, const char *before, const char *after)
{
	struct config_diff d;

	conf_test_load(a, before);
	assert_loaded(a);
	conf_test_load(b, after);
	assert_loaded(b);
	assert_int_equal(config_compare(a->config, b->config, &d), 0);
	for (size_t i = 0; i < d.job_count; i++)
		print_message("%s\n", d.jobs[i]);
	return d;
}

static enum diff_class class_of(const struct config_diff *d, const char *program)
{
	for (size_t i = 0; i < d->program_count; i++) {
		if (strcmp(d->programs[i].program, program) == 0)
			return d->programs[i].class;
	}
	fail_msg("%s is not in the comparison", program);
	return DIFF_SAME;
}

static void end_plan(struct config_diff *d, struct conf_test *a, struct conf_test *b)
{
	config_diff_release(d);
	conf_test_close(a);
	conf_test_close(b);
}

#define BATON "[baton]\nname = x\n[scheduler]\ndatabase = /tmp/x.db\n"

static void test_plan(void **state)
{
	struct conf_test a, b;
	struct config_diff d;

	(void)state;
	d = plan(&a, &b, BATON JOB, BATON "; moved\n" JOB);
	assert_int_equal(d.job_count, 0);
	assert_int_equal(class_of(&d, "jobs"), DIFF_SAME);
	end_plan(&d, &a, &b);
	d = plan(&a, &b, BATON JOB,
		BATON "[job:a]\nschedule = @hourly\ncommand = false\nrlimit_core = 0\n");
	assert_int_equal(d.job_count, 1);
	assert_string_equal(
		d.jobs[0], "job a: applied from the next firing (schedule, command, rlimits)");
	assert_int_equal(class_of(&d, "jobs"), DIFF_LIVE);
	end_plan(&d, &a, &b);
	d = plan(&a, &b, BATON JOB, BATON "[job:b]\nschedule = @daily\ncommand = true\n");
	assert_int_equal(d.job_count, 2);
	assert_string_equal(d.jobs[0], "job b: added");
	assert_string_equal(d.jobs[1], "job a: removed; a run that is going on may end");
	assert_int_equal(class_of(&d, "jobs"), DIFF_LIVE);
	end_plan(&d, &a, &b);
	d = plan(&a, &b, BATON JOB, BATON JOB "[jobs]\nmax_running = 1\n");
	assert_int_equal(d.job_count, 0);
	assert_int_equal(d.live_count, 1);
	assert_non_null(strstr(d.live[0], "[jobs] max_running: "));
	assert_int_equal(class_of(&d, "jobs"), DIFF_LIVE);
	end_plan(&d, &a, &b);
	d = plan(&a, &b, BATON JOB,
		"[baton]\nname = x\nenvironment = A=\"1\"\n[scheduler]\n"
		"database = /tmp/x.db\n" JOB);
	assert_int_equal(d.moved_count, 0);
	assert_int_equal(class_of(&d, "jobs"), DIFF_LIVE);
	end_plan(&d, &a, &b);
}

#define WEB "[program:web]\ncommand = /bin/true\n"

static void test_plan_of_the_hidden(void **state)
{
	struct conf_test a, b;
	struct config_diff d;

	(void)state;
	d = plan(&a, &b, BATON WEB, BATON WEB JOB);
	assert_int_equal(class_of(&d, "jobs"), DIFF_ADDED);
	assert_int_equal(class_of(&d, "web"), DIFF_SAME);
	assert_int_equal(d.restart_count, 0); /* the election is on already */
	end_plan(&d, &a, &b);
	d = plan(&a, &b, BATON WEB JOB, BATON WEB);
	assert_int_equal(class_of(&d, "jobs"), DIFF_REMOVED);
	assert_int_equal(d.job_count, 1);
	end_plan(&d, &a, &b);
	/* one that people wrote in its place: two programs of one name would be none */
	d = plan(&a, &b, BATON JOB, BATON "[program:jobs]\ncommand = /bin/true\n");
	assert_int_equal(d.program_count, 1);
	assert_int_equal(class_of(&d, "jobs"), DIFF_ROLL);
	end_plan(&d, &a, &b);
	d = plan(&a, &b, BATON "[program:jobs]\ncommand = /bin/true\n", BATON JOB);
	assert_int_equal(d.program_count, 1);
	assert_int_equal(class_of(&d, "jobs"), DIFF_ROLL);
	end_plan(&d, &a, &b);
}

/* --- many ------------------------------------------------------------------------------------ */

static void test_ten_thousand(void **state)
{
	static char text[2 << 20];
	struct timespec from, to;
	struct conf_test t;
	size_t used = 0;
	double seconds;

	(void)state;
	for (int i = 0; i < 10000; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used,
			"[job:j%d]\nschedule = %d %d * * %d\ntimezone = Europe/Berlin\n"
			"command = echo %%(job_name)s\nenvironment = N=\"%d\"\n",
			i, i % 60, i % 24, i % 7, i);
	assert_in_range(used, 1, sizeof(text) - 1);
	conf_test_open(&t);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	conf_test_reload(&t, text, CONFIG_DETECT);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	assert_loaded(&t);
	assert_int_equal(t.config->job_count, 10000);
	assert_ptr_equal(t.config->jobs[0].zone, t.config->jobs[9999].zone);
	seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	print_message("10000 jobs: %.3f s of CPU\n", seconds);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(seconds < 1.0);
#endif
	conf_test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_hidden_program),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_zone_of_baton),
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_plan_of_the_hidden),
		cmocka_unit_test(test_ten_thousand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

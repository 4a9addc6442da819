/* The job machine, one rule at a time; tests/sim/sim_jobs.c has them all at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "worker/jobs/machine.h"

#define SECOND INT64_C(1000000000)
#define WALL   INT64_C(1800000000000000) /* a multiple of a minute */

enum { ACTIONS = 70000 };

static struct {
	struct jobs_machine m;
	struct jobs_action actions[ACTIONS];
	int count;
	struct jobs_now now;
	struct jobs_policy policies[10001];
	char names[10001][16];
	int periods[10001];
	int policy_count;
} f;

static int64_t next_fire(const void *schedule, int64_t after_us)
{
	int64_t period = (int64_t)(*(const int *)schedule) * 1000000;

	return (after_us / period + 1) * period;
}

static void emit(void *context, const struct jobs_action *a)
{
	(void)context;
	assert_true(f.count < ACTIONS);
	f.actions[f.count++] = *a;
}

static struct jobs_policy *add_job(const char *name, int period)
{
	struct jobs_policy *p = &f.policies[f.policy_count];

	snprintf(f.names[f.policy_count], sizeof f.names[0], "%s", name);
	f.periods[f.policy_count] = period;
	*p = (struct jobs_policy){.name = f.names[f.policy_count],
		.schedule = &f.periods[f.policy_count],
		.schedule_id = (uint64_t)period,
		.enabled = true,
		.missed_limit_ns = 3600 * SECOND,
		.stop_ns = 10 * SECOND,
		.retry_backoff_ns = 10 * SECOND,
		.handoff_timeout_ns = 30 * SECOND};
	f.policy_count++;
	return p;
}

static int setup(void **state)
{
	(void)state;
	machine_release(&f.m);
	machine_init(&f.m, next_fire, emit, NULL);
	f.count = f.policy_count = 0;
	f.now = (struct jobs_now){
		.wall_us = WALL + 500000, .boot_ns = 100 * SECOND, .soft_ns = INT64_MAX};
	return 0;
}

static void configure(int max_running)
{
	assert_int_equal(
		machine_configure(&f.m, f.policies, (size_t)f.policy_count, max_running, &f.now),
		0);
}

static void looked(int64_t last_us)
{
	struct ledger_job jobs[4] = {0};
	struct jobs_look l = {.jobs = jobs, .owner = 77};

	for (int i = 0; i < f.policy_count && i < 4 && last_us != 0; i++) {
		snprintf(jobs[i].job, sizeof jobs[i].job, "%s", f.policies[i].name);
		jobs[i].last_fire_us = last_us;
		l.job_count++;
	}
	machine_looked(&f.m, &l, &f.now);
}

static void lead(int max_running)
{
	configure(max_running);
	machine_promoted(&f.m, 5, &f.now);
	looked(0);
	assert_int_equal(f.m.state, JOBS_LEADING);
	f.count = 0;
}

static void pass_ms(int64_t ms)
{
	f.now.wall_us += ms * 1000;
	f.now.boot_ns += ms * 1000000;
	machine_tick(&f.m, &f.now);
}

static int count_of(enum jobs_action_kind kind)
{
	int n = 0;

	for (int i = 0; i < f.count; i++)
		n += f.actions[i].kind == kind;
	return n;
}

static struct jobs_action *nth(enum jobs_action_kind kind, int n)
{
	for (int i = 0; i < f.count; i++) {
		if (f.actions[i].kind == kind && n-- == 0)
			return &f.actions[i];
	}
	fail_msg("no such action");
	return NULL;
}

/* Everything that the ledger was asked is answered with yes, until nothing is asked. */
static void grant(void)
{
	for (int i = 0; i < f.count; i++) {
		struct jobs_action a = f.actions[i];

		if (a.kind == JOBS_CLAIM)
			machine_claimed(&f.m, a.run, LEDGER_CLAIM_DONE, a.status, &f.now);
		else if (a.kind == JOBS_UPDATE)
			machine_recorded(&f.m, a.run, false, &f.now);
		else
			continue;
		f.actions[i].kind = JOBS_NOTE;
	}
}

static void end(struct jobs_ref run, int code)
{
	machine_ended(&f.m, run, code, 0, &f.now);
}

/* --- one firing ---------------------------------------------------------------------------- */
static void test_fires_once(void **state)
{
	struct jobs_ref run;

	(void)state;
	add_job("a", 60);
	lead(4);
	assert_int_equal(machine_next_wall_us(&f.m), WALL + 60000000);
	pass_ms(59499);
	assert_int_equal(count_of(JOBS_CLAIM), 0);
	pass_ms(1);
	assert_int_equal(count_of(JOBS_CLAIM), 1);
	assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_RUNNING);
	assert_int_equal(count_of(JOBS_START), 0); /* not before the claim is committed */
	grant();
	assert_int_equal(count_of(JOBS_START), 1);
	run = nth(JOBS_START, 0)->run;
	assert_int_equal(machine_run_of(&f.m, run)->fire_us, WALL + 60000000);
	end(run, 0);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_OK);
	grant();
	assert_null(machine_run_of(&f.m, run));
	assert_int_equal(f.m.run_count, 0);
	/* a clock that is set back half a minute does not run it again */
	f.now.wall_us -= 30000000;
	pass_ms(40000);
	assert_int_equal(count_of(JOBS_CLAIM), 0);
	assert_int_equal(machine_next_wall_us(&f.m), WALL + 120000000);
}

static void test_refused_and_paused(void **state)
{
	(void)state;
	add_job("a", 1);
	lead(4);
	pass_ms(500);
	machine_claimed(&f.m, nth(JOBS_CLAIM, 0)->run, LEDGER_CLAIM_TAKEN, LEDGER_OK, &f.now);
	assert_int_equal(count_of(JOBS_START), 0);
	assert_int_equal(f.m.run_count, 0);
	f.count = 0;
	pass_ms(1000);
	machine_claimed(&f.m, nth(JOBS_CLAIM, 0)->run, LEDGER_CLAIM_PAUSED, 0, &f.now);
	assert_true(f.m.jobs[0].paused);
	assert_int_equal(count_of(JOBS_START), 0);
	looked(f.now.wall_us); /* `jobs resume` rang */
	assert_false(f.m.jobs[0].paused);
}

/* The ledger has a row of ours: of an earlier try without an answer, or of a firing that ran before
 * the clock was set back over it. */
static void test_mine(void **state)
{
	struct jobs_ref run;

	(void)state;
	add_job("a", 1);
	lead(4);
	pass_ms(500);
	machine_claimed(&f.m, nth(JOBS_CLAIM, 0)->run, LEDGER_CLAIM_MINE, LEDGER_OK, &f.now);
	assert_int_equal(f.m.run_count, 0);
	f.count = 0;
	pass_ms(1000);
	machine_claimed(&f.m, nth(JOBS_CLAIM, 0)->run, LEDGER_CLAIM_MINE, LEDGER_RUNNING, &f.now);
	assert_int_equal(f.m.run_count, 0); /* it runs still */
	assert_int_equal(count_of(JOBS_START), 0);
	f.count = 0;
	pass_ms(1000);
	run = nth(JOBS_CLAIM, 0)->run;
	machine_unknown(&f.m, run, &f.now);
	machine_claimed(&f.m, run, LEDGER_CLAIM_MINE, LEDGER_RUNNING, &f.now);
	assert_int_equal(count_of(JOBS_START), 1);
	end(run, 0);
	f.count = 0;
	pass_ms(1000);
	run = nth(JOBS_CLAIM, 0)->run;
	machine_unknown(&f.m, run, &f.now);
	machine_claimed(&f.m, run, LEDGER_CLAIM_MINE, LEDGER_OK, &f.now);
	assert_int_equal(count_of(JOBS_START), 0);
	assert_true(f.m.impossible == 0);
}

static void test_no_lease_no_start(void **state)
{
	(void)state;
	add_job("a", 1);
	lead(4);
	f.now.soft_ns = f.now.boot_ns; /* passed */
	pass_ms(500);
	grant();
	assert_int_equal(count_of(JOBS_START), 0);
	assert_true(f.m.short_of_lease);
	f.now.soft_ns = INT64_MAX;
	machine_tick(&f.m, &f.now);
	assert_int_equal(count_of(JOBS_START), 1);
	assert_false(f.m.short_of_lease);
}

/* --- overlap ------------------------------------------------------------------------------- */
static void overlap(enum config_overlap o)
{
	setup(NULL);
	add_job("a", 1)->overlap = o;
	lead(8);
	pass_ms(500);
	grant();
	assert_int_equal(count_of(JOBS_START), 1);
	pass_ms(1000);
}

static void test_overlap(void **state)
{
	(void)state;
	overlap(OVERLAP_SKIP);
	assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_SKIPPED);
	grant();
	assert_int_equal(count_of(JOBS_START), 1);

	overlap(OVERLAP_ALLOW);
	grant();
	assert_int_equal(count_of(JOBS_START), 2);

	overlap(OVERLAP_QUEUE);
	assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_QUEUED);
	grant();
	assert_int_equal(count_of(JOBS_START), 1);
	end(nth(JOBS_START, 0)->run, 0);
	grant();
	assert_int_equal(count_of(JOBS_START), 2);

	overlap(OVERLAP_REPLACE);
	assert_int_equal(nth(JOBS_STOP, 0)->number, 15);
	grant();
	pass_ms(900);
	assert_int_equal(count_of(JOBS_START), 1);
	machine_ended(&f.m, nth(JOBS_START, 0)->run, -1, 15, &f.now);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_REPLACED);
	grant();
	assert_int_equal(count_of(JOBS_START), 2);
}

static void test_queue_is_bounded(void **state)
{
	int skipped = 0;

	(void)state;
	overlap(OVERLAP_QUEUE);
	for (int i = 0; i < 300; i++) {
		pass_ms(1000);
		grant();
	}
	for (int i = 0; i < f.count; i++)
		skipped += f.actions[i].kind == JOBS_NOTE && f.actions[i].status == LEDGER_SKIPPED;
	assert_int_equal(f.m.queued, JOBS_JOB_QUEUE);
	assert_int_equal(skipped, 301 - JOBS_JOB_QUEUE);
}

/* --- ends ---------------------------------------------------------------------------------- */
static void test_timeout(void **state)
{
	struct jobs_ref run;

	(void)state;
	add_job("a", 60)->timeout_ns = 5 * SECOND;
	lead(4);
	pass_ms(59500);
	grant();
	run = nth(JOBS_START, 0)->run;
	assert_int_equal(machine_next_boot_ns(&f.m), f.now.boot_ns + 5 * SECOND);
	pass_ms(5000);
	assert_int_equal(nth(JOBS_STOP, 0)->number, 15);
	pass_ms(10000);
	assert_int_equal(nth(JOBS_STOP, 1)->number, 9);
	pass_ms(1000);
	assert_int_equal(nth(JOBS_STOP, 2)->number, 9); /* until it is gone */
	machine_ended(&f.m, run, -1, 9, &f.now);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_TIMEOUT);
}

static void test_retries(void **state)
{
	struct jobs_policy *p = add_job("a", 3600);

	(void)state;
	p->retries = 2;
	p->on_failure = true;
	lead(4);
	f.now.wall_us += 3599 * INT64_C(1000000);
	pass_ms(500);
	grant();
	end(nth(JOBS_START, 0)->run, 3);
	assert_int_equal(machine_run_of(&f.m, nth(JOBS_CLAIM, 0)->run)->attempt, 2);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_FAILED);
	grant();
	pass_ms(9999);
	assert_int_equal(count_of(JOBS_UPDATE), 0);
	pass_ms(1);
	grant();
	assert_int_equal(count_of(JOBS_START), 2);
	machine_ended(&f.m, nth(JOBS_START, 1)->run, -1, 0, &f.now); /* could not be started */
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_NOT_STARTED);
	grant();
	pass_ms(19999); /* the backoff doubles */
	assert_int_equal(count_of(JOBS_UPDATE), 0);
	pass_ms(1);
	grant();
	assert_int_equal(count_of(JOBS_HOOK), 0);
	machine_ended(&f.m, nth(JOBS_START, 2)->run, -1, 11, &f.now);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_KILLED);
	assert_int_equal(count_of(JOBS_HOOK), 1);
	assert_int_equal(count_of(JOBS_CLAIM), 0);
	grant();
	assert_int_equal(f.m.run_count, 0);
}

/* A retry that waits does not run: the next firing takes its place. */
static void test_retry_gives_way(void **state)
{
	struct jobs_ref retry;

	(void)state;
	add_job("a", 2)->retries = 1;
	lead(4);
	pass_ms(1500);
	grant();
	end(nth(JOBS_START, 0)->run, 1);
	retry = nth(JOBS_CLAIM, 0)->run;
	grant();
	assert_int_equal(machine_run_of(&f.m, retry)->state, JOBS_RUN_BACKOFF);
	f.count = 0;
	pass_ms(2000);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_REPLACED);
	assert_int_equal(nth(JOBS_UPDATE, 0)->run.serial, retry.serial);
	assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_RUNNING);
	grant();
	assert_int_equal(count_of(JOBS_START), 1);
	pass_ms(2000); /* it runs: the next one is skipped, and says why */
	assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_SKIPPED);
	assert_non_null(machine_run_of(&f.m, nth(JOBS_CLAIM, 0)->run)->reason);
	assert_int_equal(f.m.jobs[0].retries_waiting, 0);
}

/* --- missed -------------------------------------------------------------------------------- */
static void miss(enum config_missed missed, int64_t limit_s, int run, int written)
{
	int claimed = 0, started = 0;

	setup(NULL);
	add_job("a", 60)->missed = missed;
	f.policies[0].overlap = OVERLAP_ALLOW;
	f.policies[0].missed_limit_ns = limit_s * SECOND;
	configure(100);
	machine_promoted(&f.m, 5, &f.now);
	f.now.wall_us += 4 * INT64_C(1000000); /* 4.5 s past a minute */
	looked(WALL - 600 * INT64_C(1000000)); /* ten minutes: nine missed, one is on time */
	machine_tick(&f.m, &f.now);
	for (int i = 0; i < f.count; i++) {
		claimed += f.actions[i].kind == JOBS_CLAIM && f.actions[i].status == LEDGER_MISSED;
		started += f.actions[i].kind == JOBS_CLAIM && f.actions[i].status != LEDGER_MISSED;
	}
	assert_int_equal(started, run);
	assert_int_equal(claimed, written);
}

static void test_missed(void **state)
{
	(void)state;
	miss(MISSED_SKIP, 3600, 1, 9);
	miss(MISSED_ONCE, 3600, 1, 9); /* the one on time stands for all */
	miss(MISSED_ALL, 3600, 10, 0);
	miss(MISSED_ALL, 250, 5, 5);
}

static void test_first_sight_misses_nothing(void **state)
{
	(void)state;
	add_job("a", 60)->missed = MISSED_ALL;
	lead(4);
	machine_tick(&f.m, &f.now);
	assert_int_equal(count_of(JOBS_CLAIM), 0);
}

static void test_forward_step(void **state)
{
	(void)state;
	add_job("a", 60)->missed = MISSED_ONCE;
	lead(4);
	f.now.wall_us += 3600 * INT64_C(1000000);
	pass_ms(30000);
	assert_int_equal(count_of(JOBS_CLAIM), 60);
	assert_int_equal(nth(JOBS_CLAIM, 58)->status, LEDGER_MISSED);
	assert_int_equal(nth(JOBS_CLAIM, 59)->status, LEDGER_RUNNING);
}

/* All means each: they wait for each other, also where firings skip. */
static void test_missed_all_waits(void **state)
{
	int starts = 0;

	(void)state;
	add_job("a", 60)->missed = MISSED_ALL;
	configure(100);
	machine_promoted(&f.m, 5, &f.now);
	f.now.wall_us += 4 * INT64_C(1000000);
	looked(WALL - 300 * INT64_C(1000000)); /* five: four missed, one on time */
	machine_tick(&f.m, &f.now);
	for (int at = 0; at < f.count; at++) {
		assert_true(f.actions[at].kind != JOBS_CLAIM ||
			    f.actions[at].status != LEDGER_SKIPPED || starts > 0);
		grant();
		assert_true(f.m.running <= 1);
		if (f.actions[at].kind == JOBS_START) {
			end(f.actions[at].run, 0);
			starts++;
		}
	}
	assert_int_equal(starts, 4);
	assert_int_equal(f.m.run_count, 0);
}

/* Longer ago than is looked at one by one: the newest of them is in the history. */
static void test_long_ago(void **state)
{
	const struct jobs_run *run;

	(void)state;
	add_job("a", 86400);
	configure(4);
	f.now.wall_us = WALL / 86400000000 * 86400000000 + 3 * 3600 * INT64_C(1000000);
	machine_promoted(&f.m, 5, &f.now);
	looked(f.now.wall_us - 40 * 86400 * INT64_C(1000000));
	machine_tick(&f.m, &f.now);
	assert_int_equal(count_of(JOBS_NOTE), 1);
	assert_int_equal(count_of(JOBS_CLAIM), 1);
	assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_MISSED);
	run = machine_run_of(&f.m, nth(JOBS_CLAIM, 0)->run);
	assert_true(run->fire_us == f.now.wall_us - 3 * 3600 * INT64_C(1000000));
	assert_non_null(run->reason);
	grant();
	assert_int_equal(f.m.run_count, 0);
	assert_int_equal(count_of(JOBS_START), 0);
}

/* It counts from when it has the schedule that it has. */
static void test_schedule_changed(void **state)
{
	(void)state;
	for (int same = 0; same <= 1; same++) {
		struct ledger_job row = {.job = "a",
			.last_fire_us = WALL - 100 * INT64_C(1000000),
			.known_since_us = WALL - 300 * INT64_C(1000000),
			.declared_id = same ? 8 : 9};
		struct jobs_look l = {.jobs = &row, .job_count = 1, .owner = 77};

		setup(NULL);
		add_job("a", 60)->declared_id = 8;
		configure(4);
		machine_promoted(&f.m, 5, &f.now);
		f.now.wall_us += 4 * INT64_C(1000000);
		machine_looked(&f.m, &l, &f.now);
		machine_tick(&f.m, &f.now);
		assert_int_equal(count_of(JOBS_CLAIM), same ? 2 : 0);
	}
}

static void test_set_back_is_said(void **state)
{
	(void)state;
	add_job("a", 60);
	lead(4);
	f.now.boot_ns += 1800 * SECOND; /* no tick for half an hour, then an hour back */
	f.now.wall_us -= 1800 * INT64_C(1000000);
	machine_tick(&f.m, &f.now);
	assert_int_equal(count_of(JOBS_NOTE), 1);
	assert_int_equal(nth(JOBS_NOTE, 0)->number, 3600);
	pass_ms(1000);
	assert_int_equal(count_of(JOBS_NOTE), 1);
}

/* --- handoff ------------------------------------------------------------------------------- */
static void test_demotion_waits(void **state)
{
	(void)state;
	add_job("a", 1)->overlap = OVERLAP_QUEUE;
	lead(4);
	pass_ms(500);
	grant();
	pass_ms(1000);
	grant(); /* one runs, one is queued */
	machine_demoted(&f.m, 60 * SECOND, -1, &f.now);
	pass_ms(5000);
	assert_int_equal(count_of(JOBS_CLAIM), 0); /* nothing new */
	assert_int_equal(count_of(JOBS_DEMOTED), 0);
	assert_int_equal(f.m.queued, 0); /* the successor's */
	end(nth(JOBS_START, 0)->run, 0);
	assert_int_equal(count_of(JOBS_DEMOTED), 0); /* its end is not in the ledger yet */
	grant();
	assert_int_equal(nth(JOBS_DEMOTED, 0)->number, 5);
	assert_int_equal(f.m.state, JOBS_IDLE);
	assert_int_equal(machine_next_wall_us(&f.m), JOBS_NEVER);
	assert_int_equal(machine_next_boot_ns(&f.m), JOBS_NEVER);
}

static void test_demotion_stops(void **state)
{
	(void)state;
	add_job("a", 60)->handoff_timeout_ns = 5 * SECOND;
	f.policies[0].stop_ns = 2 * SECOND;
	lead(4);
	pass_ms(59500);
	grant();
	machine_demoted(&f.m, 60 * SECOND, -1, &f.now);
	pass_ms(4999);
	assert_int_equal(count_of(JOBS_STOP), 0);
	pass_ms(1);
	assert_int_equal(nth(JOBS_STOP, 0)->number, 15);
	pass_ms(60000);
	machine_ended(&f.m, nth(JOBS_START, 0)->run, -1, 9, &f.now);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_LOST);
}

/* Claimed as running and not started when the demotion came: queued again, for the successor. */
static void test_demotion_gives_back(void **state)
{
	(void)state;
	add_job("a", 60);
	lead(4);
	pass_ms(59500);
	machine_demoted(&f.m, 60 * SECOND, -1, &f.now);
	grant();
	assert_int_equal(count_of(JOBS_START), 0);
	assert_int_equal(count_of(JOBS_DEMOTED), 1);
}

/* A ledger that does not answer does not hold the baton up. */
static void test_demotion_without_ledger(void **state)
{
	(void)state;
	add_job("a", 60);
	lead(4);
	pass_ms(59500);
	machine_demoted(&f.m, 10 * SECOND, -1, &f.now);
	assert_true(machine_next_boot_ns(&f.m) <= f.now.boot_ns + 10 * SECOND);
	pass_ms(9900);
	assert_int_equal(count_of(JOBS_DEMOTED), 1);
	/* What it was asked it may do still: until it answers the row is ours. */
	assert_int_equal(f.m.state, JOBS_SETTLING);
	assert_int_equal(machine_next_boot_ns(&f.m), JOBS_NEVER);
	pass_ms(1000);
	assert_int_equal(count_of(JOBS_SETTLED), 0);
	machine_claimed(&f.m, nth(JOBS_CLAIM, 0)->run, LEDGER_CLAIM_DONE, LEDGER_RUNNING, &f.now);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_QUEUED); /* the successor's */
	f.actions[0].kind = JOBS_NOTE;
	grant();
	assert_int_equal(count_of(JOBS_SETTLED), 1);
	assert_int_equal(f.m.state, JOBS_IDLE);
	assert_int_equal(count_of(JOBS_START), 0);
}

/* Refused, and an earlier try may have been done: its row says running, and nothing runs. */
static void test_refused_after_doubt(void **state)
{
	(void)state;
	add_job("a", 60);
	lead(4);
	pass_ms(59500);
	machine_unknown(&f.m, nth(JOBS_CLAIM, 0)->run, &f.now);
	pass_ms(1000);
	machine_claimed(&f.m, nth(JOBS_CLAIM, 1)->run, LEDGER_CLAIM_REFUSED, 0, &f.now);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_QUEUED);
	machine_recorded(&f.m, nth(JOBS_UPDATE, 0)->run, true, &f.now);
	assert_int_equal(f.m.run_count, 0);
	assert_int_equal(count_of(JOBS_START), 0);
}

static void test_takeover(void **state)
{
	struct ledger_run runs[3] = {0};
	bool alive[3] = {false, false, true};
	struct jobs_look l = {.runs = runs, .alive = alive, .run_count = 3, .owner = 77};

	(void)state;
	add_job("a", 3600)->overlap = OVERLAP_ALLOW;
	f.policies[0].interrupted = INTERRUPTED_RERUN;
	configure(4);
	for (int i = 0; i < 3; i++) {
		strcpy(runs[i].key.job, "a");
		runs[i].key.fire_time_us = WALL - (i + 1) * INT64_C(1000000);
		runs[i].key.attempt = 1;
		runs[i].owner = 100 + i;
		runs[i].status = i == 0 ? LEDGER_QUEUED : LEDGER_RUNNING;
	}
	machine_promoted(&f.m, 5, &f.now);
	machine_looked(&f.m, &l, &f.now);
	/* the queued one is started under its old row; the cut off one is written down and claimed
	 * anew; the third one's worker lives: it is looked at again */
	assert_int_equal(count_of(JOBS_UPDATE), 2);
	assert_int_equal(count_of(JOBS_CLAIM), 1);
	assert_int_equal(machine_run_of(&f.m, nth(JOBS_CLAIM, 0)->run)->attempt, 2);
	assert_int_equal(nth(JOBS_UPDATE, 1)->status, LEDGER_RUNNING);
	assert_int_equal(machine_run_of(&f.m, nth(JOBS_UPDATE, 1)->run)->by_term, 5);
	grant();
	assert_int_equal(count_of(JOBS_START), 2);
	assert_int_equal(machine_run_of(&f.m, nth(JOBS_START, 0)->run)->owner, 0); /* ours now */
	f.count = 0;
	pass_ms(1000);
	assert_int_equal(count_of(JOBS_LOOK), 1);
}

static void look_at_row(struct ledger_run *row, bool alive)
{
	struct jobs_look l = {.runs = row, .alive = &alive, .run_count = 1, .owner = 77};

	machine_looked(&f.m, &l, &f.now);
}

/* The backoff of a retry goes on where it was. */
static void test_takeover_of_a_retry(void **state)
{
	struct ledger_run row = {.key = {.job = "a", .fire_time_us = WALL, .attempt = 2},
		.owner = 100,
		.status = LEDGER_QUEUED,
		.cause = LEDGER_BY_RETRY,
		.claimed_us = WALL - 2500000};

	(void)state;
	add_job("a", 3600)->retries = 2; /* now is 3 s after the claim; 10 s in all */
	configure(4);
	machine_promoted(&f.m, 5, &f.now);
	look_at_row(&row, false);
	assert_int_equal(count_of(JOBS_UPDATE), 0);
	pass_ms(6999);
	assert_int_equal(count_of(JOBS_UPDATE), 0);
	pass_ms(1);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_RUNNING);
}

/* Cut off: on_failure if it is not run again; if it is, that is no retry. */
static void test_interrupted(void **state)
{
	struct ledger_run row = {.key = {.job = "a", .fire_time_us = WALL, .attempt = 1},
		.owner = 100,
		.status = LEDGER_RUNNING};

	(void)state;
	for (int rerun = 0; rerun <= 1; rerun++) {
		setup(NULL);
		add_job("a", 3600)->retries = 1;
		f.policies[0].on_failure = true;
		f.policies[0].interrupted = rerun ? INTERRUPTED_RERUN : INTERRUPTED_FAIL;
		configure(4);
		machine_promoted(&f.m, 5, &f.now);
		look_at_row(&row, false);
		assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_INTERRUPTED);
		assert_int_equal(count_of(JOBS_HOOK), !rerun);
		assert_int_equal(count_of(JOBS_CLAIM), rerun);
	}
	grant();
	end(nth(JOBS_START, 0)->run, 1);
	assert_int_equal(count_of(JOBS_CLAIM), 1); /* the one retry */
	assert_int_equal(machine_run_of(&f.m, nth(JOBS_CLAIM, 0)->run)->attempt, 3);
	grant();
	pass_ms(20000);
	grant();
	end(nth(JOBS_START, 1)->run, 1);
	assert_int_equal(count_of(JOBS_CLAIM), 0);
	assert_int_equal(count_of(JOBS_HOOK), 1);
}

/* Rows of a job that this file has not. */
static void test_strangers(void **state)
{
	struct ledger_run row = {.key = {.job = "x", .fire_time_us = WALL, .attempt = 1},
		.owner = 100,
		.status = LEDGER_RUNNING,
		.claimed_us = WALL};

	(void)state;
	add_job("a", 36000);
	lead(4);
	look_at_row(&row, true); /* another instance's, which runs it */
	assert_int_equal(count_of(JOBS_CLOSE), 0);
	assert_int_equal(f.m.look_ns, f.now.boot_ns + SECOND);
	look_at_row(&row, false);
	assert_int_equal(nth(JOBS_CLOSE, 0)->status, LEDGER_INTERRUPTED);
	assert_int_equal(nth(JOBS_CLOSE, 0)->number, 5);
	f.count = 0;
	f.m.look_ns = JOBS_NEVER;
	row.status = LEDGER_QUEUED; /* by one that may lead again */
	look_at_row(&row, false);
	assert_int_equal(count_of(JOBS_CLOSE), 0);
	assert_int_equal(f.m.look_ns, f.now.boot_ns + 3600 * SECOND - SECOND / 2);
	pass_ms(3600 * 1000);
	assert_int_equal(count_of(JOBS_LOOK), 1);
	look_at_row(&row, false);
	assert_int_equal(nth(JOBS_CLOSE, 0)->status, LEDGER_CANCELLED);
}

/* --- configuration, requests --------------------------------------------------------------- */
static void test_reload(void **state)
{
	(void)state;
	add_job("a", 1);
	add_job("b", 1)->overlap = OVERLAP_QUEUE;
	lead(4);
	pass_ms(500);
	grant();
	pass_ms(1000);
	grant();
	assert_int_equal(count_of(JOBS_START), 2);
	f.policy_count = 1; /* b is taken out while it runs */
	configure(4);
	assert_int_equal(count_of(JOBS_STOP), 0);
	assert_int_equal(nth(JOBS_UPDATE, 0)->status, LEDGER_CANCELLED); /* what was queued */
	grant();
	end(nth(JOBS_START, 1)->run, 0);
	grant();
	f.count = 0;
	pass_ms(3000);
	for (int i = 0; i < f.count; i++)
		assert_true(f.actions[i].job == machine_find(&f.m, "a"));
	for (int i = 0; i < 50; i++) { /* slots are used again */
		f.policy_count = 1;
		add_job(i % 2 ? "b" : "c", 1);
		configure(4);
	}
	assert_true(f.m.job_slots < 8);
}

static void test_requests(void **state)
{
	struct ledger_request requests[2] = {
		{.id = 7, .job = "a", .requested_us = WALL + 3, .pending = true},
		{.id = 8, .job = "nobody", .pending = true}};
	struct jobs_look l = {.requests = requests, .request_count = 2, .owner = 77};

	(void)state;
	add_job("a", 3600);
	lead(4);
	machine_rung(&f.m, &f.now);
	assert_int_equal(count_of(JOBS_LOOK), 1);
	machine_looked(&f.m, &l, &f.now);
	assert_int_equal(count_of(JOBS_CLAIM), 1);
	assert_int_equal(machine_run_of(&f.m, nth(JOBS_CLAIM, 0)->run)->request, 7);
	assert_int_equal(nth(JOBS_REFUSE, 0)->number, 8);
	machine_looked(&f.m, &l, &f.now); /* seen again before the claim is through */
	assert_int_equal(count_of(JOBS_CLAIM), 1);
}

static void test_clock_of_next_year(void **state)
{
	(void)state;
	add_job("a", 60);
	configure(4);
	machine_promoted(&f.m, 5, &f.now);
	looked(WALL + 365 * 86400 * INT64_C(1000000));
	assert_int_equal(machine_next_wall_us(&f.m), WALL + 60000000);
	assert_int_equal(count_of(JOBS_NOTE), 1);
}

/* --- many ---------------------------------------------------------------------------------- */
static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void test_many(void **state)
{
	int64_t began, took;
	int ends = 0;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		char name[16];

		snprintf(name, sizeof name, "j%d", i);
		add_job(name, i < 1000 ? 60 : i == 1000 ? 90 : 3600 * 24 * 3650 + i);
	}
	lead(8);
	began = clock_ns();
	pass_ms(59500);
	took = clock_ns() - began;
	assert_int_equal(count_of(JOBS_CLAIM), 1000);
	print_message("# 1,000 of 10,000 jobs fire: %lld us\n", (long long)took / 1000);
	assert_true(took < 100 * 1000000);
	/* eight at a time, in the order of the claims, until all have run */
	for (int at = 0; at < f.count; at++) {
		grant();
		assert_true(f.m.active <= 8);
		if (f.actions[at].kind == JOBS_START) {
			end(f.actions[at].run, 0);
			ends++;
		}
	}
	grant();
	assert_int_equal(ends, 1000);
	assert_int_equal(f.m.run_count, 0);
	assert_int_equal(f.m.queued, 0);
	assert_true(f.m.impossible == 0);
	f.count = 0;
	f.now.wall_us = machine_next_wall_us(&f.m);
	began = clock_ns();
	machine_tick(&f.m, &f.now);
	took = clock_ns() - began;
	assert_int_equal(count_of(JOBS_CLAIM), 1);
	print_message("# 1 of 10,000 jobs fires: %lld us\n", (long long)took / 1000);
	assert_true(took < 10 * 1000000);
}

/* Commands of a millisecond each: some are recorded as running before their place is free, for no
 * commit is waited for then; few, for after a crash they count as interrupted. */
static void test_few_ahead(void **state)
{
	int ends = 0, most = 0, most_early = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char name[16];

		snprintf(name, sizeof name, "j%d", i);
		add_job(name, 60);
	}
	lead(8);
	pass_ms(59500);
	for (int at = 0; at < f.count; at++) {
		grant();
		assert_true(f.m.running <= 8);
		if (f.actions[at].kind == JOBS_START) {
			f.now.boot_ns += SECOND / 1000;
			end(f.actions[at].run, 0);
			ends++;
		}
		if (ends < 250 && f.m.active > most_early)
			most_early = f.m.active;
		if (f.m.active > most)
			most = f.m.active;
	}
	assert_int_equal(ends, 1000);
	assert_int_equal(most_early, 8); /* it is not known yet that they are short */
	assert_int_equal(most, 8 + 32);
}

static void test_too_many_wait(void **state)
{
	(void)state;
	add_job("a", 1)->overlap = OVERLAP_ALLOW;
	f.policies[0].missed = MISSED_ALL;
	f.policies[0].missed_limit_ns = 86400 * SECOND;
	lead(1);
	f.now.wall_us += 80000 * INT64_C(1000000);
	machine_tick(&f.m, &f.now);
	assert_int_equal(f.m.run_count, JOBS_RUNS);
	assert_int_equal(machine_next_wall_us(&f.m), JOBS_NEVER); /* when one is over */
}

/* A jitter belongs to the firing: another machine computes the same. */
static void test_jitter(void **state)
{
	int64_t first;
	int later = 0;

	(void)state;
	for (int round = 0; round < 2; round++) {
		setup(NULL);
		add_job("a", 60)->jitter_ns = 30 * SECOND;
		lead(4);
		if (round == 0)
			first = machine_next_wall_us(&f.m);
	}
	assert_int_equal(machine_next_wall_us(&f.m), first);
	for (int i = 0; i < 50; i++) {
		int64_t due = machine_next_wall_us(&f.m);
		int64_t past = due % 60000000;

		assert_true(past <= 30 * INT64_C(1000000));
		later += past > 5 * INT64_C(1000000);
		f.now.wall_us = due;
		f.count = 0;
		machine_tick(&f.m, &f.now);
		assert_int_equal(count_of(JOBS_CLAIM), 1);
		grant();
		end(nth(JOBS_START, 0)->run, 0);
		grant();
	}
	assert_true(later > 20);
}

/* Longer than the time between two firings: they start before the next one fires, and none is
 * missed. */
static void test_jitter_above_the_interval(void **state)
{
	int64_t before = 0;

	(void)state;
	add_job("a", 2)->jitter_ns = 10 * SECOND;
	f.policies[0].overlap = OVERLAP_ALLOW;
	lead(4);
	for (int i = 1; i <= 200; i++) {
		int64_t due = machine_next_wall_us(&f.m);

		assert_true(due > before);
		assert_true(due >= WALL + 2000000 * (int64_t)i);
		assert_true(due < WALL + 2000000 * (int64_t)(i + 1));
		before = due;
		f.now.boot_ns += (due - f.now.wall_us) * 1000;
		f.now.wall_us = due;
		f.count = 0;
		machine_tick(&f.m, &f.now);
		assert_int_equal(nth(JOBS_CLAIM, 0)->status, LEDGER_RUNNING);
		grant();
		end(nth(JOBS_START, 0)->run, 0);
		grant();
	}
}

/* Every state meets every event: a missing cell is one that cannot happen, and the table says so.
 */
static void test_table(void **state)
{
	int missing = 0;

	(void)state;
	for (int s = 0; s < JOBS_RUN_STATE_COUNT; s++) {
		for (int e = 0; e < JOBS_RUN_EVENT_COUNT; e++)
			missing += !machine_run_table_has(s, e);
		assert_true(machine_run_table_has(s, JOBS_RUN_EVENT_WITHDRAW));
		assert_true(machine_run_table_has(s, JOBS_RUN_EVENT_REPLACED));
		assert_true(machine_run_table_has(s, JOBS_RUN_EVENT_REMOVED));
		assert_true(machine_run_table_has(s, JOBS_RUN_EVENT_DEADLINE));
	}
	assert_int_equal(missing, 31);
}

static int teardown(void **state)
{
	(void)state;
	assert_true(f.m.impossible == 0);
	machine_release(&f.m);
	return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_fires_once),
		T(test_refused_and_paused),
		T(test_mine),
		T(test_no_lease_no_start),
		T(test_overlap),
		T(test_queue_is_bounded),
		T(test_timeout),
		T(test_retries),
		T(test_retry_gives_way),
		T(test_missed),
		T(test_missed_all_waits),
		T(test_long_ago),
		T(test_schedule_changed),
		T(test_set_back_is_said),
		T(test_first_sight_misses_nothing),
		T(test_forward_step),
		T(test_demotion_waits),
		T(test_demotion_stops),
		T(test_demotion_gives_back),
		T(test_demotion_without_ledger),
		T(test_refused_after_doubt),
		T(test_takeover),
		T(test_takeover_of_a_retry),
		T(test_interrupted),
		T(test_strangers),
		T(test_reload),
		T(test_requests),
		T(test_clock_of_next_year),
		T(test_many),
		T(test_few_ahead),
		T(test_too_many_wait),
		T(test_jitter),
		T(test_jitter_above_the_interval),
		T(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/unit/core_fixture.h"

static struct worker *w = &f.workers[0];

static void settings(enum config_executor executor)
{
	f.settings[0] = fix_program("web", 1, executor, PROMOTE_NOTIFY);
	f.settings[0].ready = READY_PROBE;
	f.settings[0].health_interval_ns = 10 * SEC;
	f.settings[0].health_timeout_ns = 2 * SEC;
	f.settings[0].health_failures = 3;
}

static void exec_it(void)
{
	fix_worker(EVENT_SPAWNED, 0);
	fix_worker(EVENT_EXECED, 0);
}

static const struct action *asked(enum probe_purpose purpose)
{
	const struct action *a = fix_find(ACTION_PROBE_START, 0);

	assert_non_null(a);
	assert_int_equal(a->number, purpose);
	assert_true(a->deadline_ns > f.now);
	return a;
}

/* --- readiness ----------------------------------------------------------------------------- */
static void test_ready_by_probe(void **state)
{
	(void)state;
	settings(EXECUTOR_NO);
	fix_start(1);
	fix_worker(EVENT_SPAWNED, 0);
	assert_null(fix_find(ACTION_PROBE_START, 0));
	fix_worker(EVENT_EXECED, 0);
	(void)asked(PROBE_FOR_READY);
	fix_worker(EVENT_READY, 0); /* what it says of itself is not what was asked for */
	assert_int_equal(w->state, WORKER_STARTING);
	fix_worker(EVENT_PROBE_OK, 0);
	assert_int_equal(w->state, WORKER_RUNNING);
	assert_true(w->ready);
	assert_int_equal(
		core_next_deadline(&f.core), 0); /* nothing wakes us for a health of none */
}

/* 50 ms, 100, 200, 400, 800, then each second; only ready_timeout makes it a failed start. */
static void test_retries(void **state)
{
	static const int64_t delays[] = {50, 100, 200, 400, 800, 1000, 1000};

	(void)state;
	settings(EXECUTOR_NO);
	fix_start(1);
	exec_it();
	for (size_t i = 0; i < sizeof delays / sizeof *delays; i++) {
		int64_t before = f.now;

		fix_worker(EVENT_PROBE_FAILED, 0);
		assert_int_equal(w->state, WORKER_STARTING);
		assert_int_equal(w->failures, 0);
		fix_next();
		assert_int_equal((f.now - before) / MS, delays[i]);
		(void)asked(PROBE_FOR_READY);
	}
	fix_timer(60 * SEC);
	assert_int_equal(w->state, WORKER_STOPPING);
	assert_non_null(fix_find(ACTION_PROBE_STOP, 0));
	assert_string_equal(w->reason, "not ready in time");
	fix_worker(EVENT_PROBE_OK, 0); /* too late */
	assert_int_equal(w->state, WORKER_STOPPING);
	fix_dies(0, -1, 9);
	fix_worker(EVENT_GONE, 0);
	assert_int_equal(w->state, WORKER_BACKOFF);
	assert_int_equal(w->failures, 1);
	assert_int_equal(w->probe_at_ns, 0);
}

/* READY=1 from a worker that is probed: that may be worth a look, between two attempts. */
static void test_hint(void **state)
{
	(void)state;
	settings(EXECUTOR_NO);
	fix_start(1);
	exec_it();
	fix_worker(EVENT_READY, 0); /* one is under way */
	assert_null(fix_find(ACTION_PROBE_START, 0));
	fix_worker(EVENT_PROBE_FAILED, 0);
	fix_worker(EVENT_READY, 0);
	(void)asked(PROBE_FOR_READY);
}

/* No attempt goes beyond ready_timeout, which EXTEND_TIMEOUT_USEC moves. */
static void test_attempts_end_in_time(void **state)
{
	(void)state;
	settings(EXECUTOR_NO);
	f.settings[0].ready_timeout_ns = 3 * SEC;
	fix_start(1);
	exec_it();
	assert_in_range(
		asked(PROBE_FOR_READY)->deadline_ns, f.now + 2800 * MS, f.now + 3 * SEC - 1);
	EVENT(.kind = EVENT_EXTEND, .worker = 0, .id = w->id, .number = 30 * 1000000);
	assert_int_equal(w->deadline_ns, f.now + 30 * SEC);
	fix_worker(EVENT_PROBE_FAILED, 0);
	fix_next();
	assert_int_equal(asked(PROBE_FOR_READY)->deadline_ns, f.now + 10 * SEC);
	fix_timer(10 * SEC);
	assert_int_equal(w->state, WORKER_STARTING);
}

/* An address that others answer at, too: only after startsecs. */
static void test_shared_counts_after_startsecs(void **state)
{
	(void)state;
	settings(EXECUTOR_NO);
	f.settings[0].ready_shared = true;
	f.settings[0].startsecs_ns = 1 * SEC;
	fix_start(1);
	exec_it();
	assert_null(fix_find(ACTION_PROBE_START, 0));
	fix_worker(EVENT_READY, 0);
	assert_null(fix_find(ACTION_PROBE_START, 0));
	fix_timer(1 * SEC - 1);
	assert_null(fix_find(ACTION_PROBE_START, 0));
	fix_timer(1);
	(void)asked(PROBE_FOR_READY);
	fix_worker(EVENT_PROBE_OK, 0);
	assert_int_equal(w->state, WORKER_RUNNING);
}

static void test_what_the_worker_shows(void **state)
{
	(void)state;
	for (int ready = READY_FD; ready <= READY_LOG; ready++) {
		settings(EXECUTOR_NO);
		f.settings[0].ready = (enum config_ready)ready;
		fix_start(1);
		exec_it();
		assert_null(fix_find(ACTION_PROBE_START, 0));
		fix_worker(EVENT_READY, 0);
		assert_int_equal(w->state, WORKER_STARTING);
		fix_worker(EVENT_PROBE_OK, 0);
		assert_int_equal(w->state, WORKER_RUNNING);
		fix_worker(EVENT_PROBE_FAILED, 0); /* the descriptor is closed afterwards */
		assert_int_equal(w->state, WORKER_RUNNING);
		/* what comes once cannot come any more: at once a failed start */
		settings(EXECUTOR_NO);
		f.settings[0].ready = (enum config_ready)ready;
		fix_start(1);
		exec_it();
		fix_worker(EVENT_PROBE_FAILED, 0);
		assert_int_equal(w->state, WORKER_STOPPING);
		assert_int_equal(w->failures, 1);
	}
}

/* The answer was lost: it comes again, and nobody is blamed. */
static void test_lost_answers(void **state)
{
	(void)state;
	settings(EXECUTOR_NO);
	f.settings[0].health = true;
	f.settings[0].health_failures = 1;
	fix_start(1);
	exec_it();
	fix_timer(11 * SEC + 1);
	assert_null(fix_find(ACTION_PROBE_START, 0));
	fix_next();
	(void)asked(PROBE_FOR_READY);
	fix_worker(EVENT_PROBE_OK, 0);
	fix_next();
	(void)asked(PROBE_FOR_HEALTH);
	fix_timer(3 * SEC);
	assert_int_equal(w->state, WORKER_RUNNING);
	fix_next();
	(void)asked(PROBE_FOR_HEALTH);
}

/* --- health -------------------------------------------------------------------------------- */
static void healthy(enum config_executor executor)
{
	settings(executor);
	f.settings[0].health = true;
	fix_start(1);
	if (executor != EXECUTOR_NO)
		fix_hold();
	exec_it();
	fix_worker(EVENT_PROBE_OK, 0);
	if (executor != EXECUTOR_NO)
		fix_promote(0);
	assert_int_equal(w->state, WORKER_RUNNING);
}

static void due(void)
{
	assert_true(w->probe_at_ns > f.now);
	fix_timer(w->probe_at_ns - f.now);
	assert_int_equal(asked(PROBE_FOR_HEALTH)->deadline_ns, f.now + 2 * SEC);
}

static void test_interval(void **state)
{
	int64_t last = 0, spread = 0;

	(void)state;
	healthy(EXECUTOR_NO);
	for (int i = 0; i < 20; i++) {
		int64_t wait = w->probe_at_ns - f.now;

		assert_in_range(wait, 10 * SEC, 11 * SEC);
		spread += last != 0 && wait != last;
		last = wait;
		due();
		fix_worker(EVENT_PROBE_OK, 0);
		assert_int_equal(w->state, WORKER_RUNNING);
	}
	assert_true(spread > 10);
}

static void test_failures_in_a_row(void **state)
{
	(void)state;
	healthy(EXECUTOR_NO);
	for (int i = 0; i < 5; i++) {
		due();
		if (i == 2)
			fix_worker(EVENT_PROBE_OK, 0);
		else
			fix_worker(EVENT_PROBE_FAILED, 0);
		assert_int_equal(w->state, WORKER_RUNNING);
	}
	due();
	fix_worker(EVENT_PROBE_FAILED, 0);
	assert_int_equal(w->state, WORKER_STOPPING);
	assert_true(w->unhealthy);
	assert_string_equal(w->reason, "health");
	assert_int_equal(
		fix_find(ACTION_SIGNAL, 0)->signal, 15); /* what it still can, it may finish */
	assert_null(fix_find(ACTION_KILL_TREE, 0));
	fix_dies(0, 0, 0);
	fix_worker(EVENT_GONE, 0);
	assert_int_equal(w->state, WORKER_STARTING);
	assert_int_equal(w->restarts, 1);
	assert_false(w->unhealthy);
}

/* baton's own trouble (no descriptor, no process) is not the worker's. */
static void test_own_faults_do_not_count(void **state)
{
	(void)state;
	healthy(EXECUTOR_NO);
	for (int i = 0; i < 10; i++) {
		due();
		EVENT(.kind = EVENT_PROBE_FAILED, .worker = 0, .id = w->id, .ok = true);
		assert_int_equal(w->state, WORKER_RUNNING);
		assert_int_equal(w->probe_failures, 0);
	}
}

/* An executor's page is cleared before anything else happens to it. */
static void test_executor(void **state)
{
	const struct action *clear, *kill;

	(void)state;
	healthy(EXECUTOR_CANDIDATE);
	f.settings[0].health_failures = 1;
	assert_int_equal(f.programs[0].executor.state, EXECUTOR_EXECUTING);
	while (fix_find(ACTION_PROBE_START, 0) == NULL) {
		fix_next();
		if (f.core.election.request.op == REQUEST_RENEW &&
			fix_find(ACTION_PROBE_START, 0) == NULL)
			fix_done();
	}
	fix_worker(EVENT_PROBE_FAILED, 0);
	assert_int_equal(w->state, WORKER_STOPPING);
	assert_int_equal(f.programs[0].executor.state, EXECUTOR_DRAINING);
	clear = fix_find(ACTION_PAGE_CLEAR, 0);
	kill = fix_find(ACTION_KILL_TREE, 0);
	assert_true(clear != NULL && kill != NULL && clear < kill);
}

static void test_reload_turns_it_on_and_off(void **state)
{
	static struct config other;
	static struct config_program changed;
	enum diff_class live = DIFF_LIVE;

	(void)state;
	settings(EXECUTOR_NO);
	fix_start(1);
	exec_it();
	fix_worker(EVENT_PROBE_OK, 0);
	assert_int_equal(w->probe_at_ns, 0);
	changed = f.settings[0];
	changed.health = true;
	other = f.config;
	other.programs = &changed;
	EVENT(.kind = EVENT_RELOAD, .config = &other, .classes = &live);
	due();
	EVENT(.kind = EVENT_RELOAD, .config = &f.config, .classes = &live);
	assert_non_null(fix_find(ACTION_PROBE_STOP, 0));
	assert_int_equal(w->probe_at_ns, 0);
	assert_int_equal(w->state, WORKER_RUNNING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ready_by_probe),
		cmocka_unit_test(test_retries),
		cmocka_unit_test(test_hint),
		cmocka_unit_test(test_attempts_end_in_time),
		cmocka_unit_test(test_shared_counts_after_startsecs),
		cmocka_unit_test(test_what_the_worker_shows),
		cmocka_unit_test(test_lost_answers),
		cmocka_unit_test(test_interval),
		cmocka_unit_test(test_failures_in_a_row),
		cmocka_unit_test(test_own_faults_do_not_count),
		cmocka_unit_test(test_executor),
		cmocka_unit_test(test_reload_turns_it_on_and_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

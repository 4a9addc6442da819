/* Rollouts: every state x event of the machine, and what may happen to a program at each stage. */
#include "tests/unit/rollout_fixture.h"

/* --- the ways ------------------------------------------------------------------------------- */
static void test_surge(void **state)
{
	int canary;

	(void)state;
	begin(3, 1, 0);
	reload(0);
	assert_int_equal(f.programs[0].rollout.state, ROLLOUT_CANARY);
	assert_int_equal(count(WORKER_RUNNING, 1), 3);
	assert_int_equal(count(WORKER_STARTING, 2), 1);
	canary = first(WORKER_STARTING, 2);
	for (int left = 2; left >= 0; left--) {
		int slot = first(WORKER_STARTING, 2);

		fix_ready(slot);
		assert_int_equal(count(WORKER_STOPPING, 1), 1);
		assert_int_equal(count(WORKER_RUNNING, 1) + count(WORKER_RUNNING, 2), 3);
		ends(first(WORKER_STOPPING, 1));
		assert_int_equal(count(WORKER_STARTING, 2), left > 0);
	}
	assert_true(canary >= 0);
	assert_one_version(2, 3);
	assert_int_equal(f.programs[0].rollout.outcome, ROLLOUT_DONE);
}

static void test_in_place(void **state)
{
	(void)state;
	begin(4, 0, 2);
	reload(0);
	assert_int_equal(count(WORKER_STOPPING, 1), 1); /* the canary alone */
	ends(first(WORKER_STOPPING, 1));
	fix_ready(first(WORKER_STARTING, 2));
	assert_int_equal(count(WORKER_STOPPING, 1), 2);
	settle(0);
	assert_one_version(2, 4);
}

static void test_stop_delay(void **state)
{
	(void)state;
	begin(1, 1, 0);
	f.settings[0].stop_delay_ns = 3 * SEC;
	reload(0);
	fix_ready(first(WORKER_STARTING, 2));
	assert_int_equal(count(WORKER_RUNNING, 1), 1);
	assert_int_equal(core_next_deadline(&f.core), f.now + 3 * SEC);
	fix_timer(3 * SEC);
	assert_int_equal(count(WORKER_STOPPING, 1), 1);
	settle(0);
	assert_one_version(2, 1);
}

static void test_canary_fails(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		uint64_t id;

		begin(3, surge, !surge);
		id = f.workers[1].id;
		reload(0);
		settle(2);
		assert_one_version(1, 3);
		assert_int_equal(f.programs[0].rollout.outcome, ROLLOUT_FAILED);
		assert_false(f.programs[0].rollout.replaced);
		assert_int_equal(f.workers[1].id, id); /* untouched */
		assert_ptr_equal(f.programs[0].settings, &f.settings[0]);
	}
}

static void test_later_failure_rolls_back(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		begin(3, surge, !surge);
		reload(0);
		if (!surge)
			ends(first(WORKER_STOPPING, 1));
		fix_ready(first(WORKER_STARTING, 2)); /* the canary */
		assert_int_equal(f.programs[0].rollout.state, ROLLOUT_ROLLING);
		ends(first(WORKER_STOPPING, 1));
		fails_for_good(2);
		assert_int_equal(f.programs[0].rollout.state, ROLLOUT_BACK);
		settle(2);
		assert_one_version(1, 3);
		assert_int_equal(f.programs[0].rollout.outcome, ROLLOUT_FAILED);
		assert_true(f.programs[0].rollout.replaced);
	}
}

/* After a failure the next reload tries again, also with a file that did not change since. */
static void test_retry(void **state)
{
	enum diff_class same = DIFF_SAME;

	(void)state;
	begin(2, 1, 0);
	reload(0);
	settle(2);
	assert_one_version(1, 2);
	EVENT(.kind = EVENT_RELOAD, .config = &newer[0], .classes = &same);
	settle(0);
	assert_one_version(3, 2);
	assert_ptr_equal(f.programs[0].settings, newer_programs[0]);
}

/* Whatever is started dies, ROUNDS times. */
static void none_starts(int rounds)
{
	for (int i = 0; i < rounds; i++) {
		for (int k = 0; k < FIX_WORKERS; k++) {
			if (f.workers[k].used && f.workers[k].state == WORKER_STARTING) {
				fix_worker(EVENT_SPAWNED, k);
				fix_dies(k, 9, 0);
			}
			if (f.workers[k].used && f.workers[k].state == WORKER_STOPPING)
				ends(k);
		}
		if (core_next_deadline(&f.core) != 0)
			fix_next();
	}
	assert_int_equal(f.core.impossible, 0);
}

static void test_neither_starts(void **state)
{
	(void)state;
	begin(2, 0, 1);
	reload(0);
	ends(first(WORKER_STOPPING, 1));
	none_starts(200);
	assert_int_equal(f.programs[0].rollout.state, ROLLOUT_HALF);
	assert_true(f.programs[0].rollout.half);
	assert_true(rollout_wants_retry(&f.programs[0]));
	assert_int_equal(count(WORKER_RUNNING, 1), 1); /* untouched all the while */
	/* It is tried again, and again; one day it starts: one version, without anybody's help. */
	none_starts(50);
	assert_int_equal(count(WORKER_RUNNING, 1), 1);
	for (int i = 0; i < 10 && f.programs[0].rollout.state != ROLLOUT_IDLE; i++) {
		fix_next();
		settle(0);
	}
	assert_one_version(1, 2);
	assert_int_equal(f.programs[0].rollout.outcome, ROLLOUT_FAILED);
	assert_false(f.programs[0].rollout.half);
}

/* Out of `half way` by another version that starts, and by a start. */
static void test_neither_starts_then(void **state)
{
	(void)state;
	for (int way = 0; way < 3; way++) {
		begin(3, 0, 1);
		reload(0);
		ends(first(WORKER_STOPPING, 1));
		none_starts(200);
		assert_int_equal(f.programs[0].rollout.state, ROLLOUT_HALF);
		if (way == 0)
			reload(1);
		else if (way == 1)
			EVENT(.kind = EVENT_START, .program = 0);
		else
			EVENT(.kind = EVENT_ROLL, .program = 0);
		settle(0);
		assert_one_version(way == 1 ? 1 : 3, 3);
		assert_int_equal(rollout_wants_retry(&f.programs[0]), way != 0);
	}
}

static void executor_is_last(void)
{
	const struct executor *x = &f.programs[0].executor;

	if (x->state == EXECUTOR_DRAINING && f.workers[x->worker].generation == 1)
		assert_int_equal(count(WORKER_RUNNING, 1) + count(WORKER_STOPPING, 1), 1);
}

/* The executor goes last, and moves once: to a worker of the new version. */
static void test_executor_goes_last(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		int executor, moves = 0;

		f.settings[0] = fix_program("web", 3, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
		f.settings[0].surge = surge;
		f.settings[0].max_unavailable = !surge;
		fix_start(1);
		settle(0);
		fix_hold();
		fix_promote(0);
		executor = f.programs[0].executor.worker;
		assert_int_equal(f.programs[0].executor.state, EXECUTOR_EXECUTING);
		reload(0);
		for (int i = 0; i < 100 && f.programs[0].rollout.state != ROLLOUT_IDLE; i++) {
			on_step = executor_is_last;
			settle(0);
			on_step = NULL;
			if (f.core.election.request.op == REQUEST_PROMOTE) {
				assert_int_equal(count(WORKER_RUNNING, 1), 0);
				fix_promote(0);
				moves++;
			}
		}
		if (f.core.election.request.op == REQUEST_PROMOTE) {
			fix_promote(0);
			moves++;
		}
		assert_int_equal(moves, 1);
		assert_one_version(2, 3);
		assert_int_equal(f.programs[0].executor.state, EXECUTOR_EXECUTING);
		assert_int_equal(f.workers[f.programs[0].executor.worker].generation, 2);
		(void)executor;
	}
}

/* What may happen at each stage: test_stages.c. */
static void test_table(void **state)
{
	(void)state;
	for (int s = 0; s < ROLLOUT_STATE_COUNT; s++) {
		for (int k = 0; k < ROLLOUT_EVENT_COUNT; k++) {
			bool has = rollout_table_has((enum rollout_state)s, (enum rollout_event)k);

			begin(2, 1, 0);
			f.core.plan = &f.plan;
			f.plan.count = 0;
			f.programs[0].rollout.state = (enum rollout_state)s;
			f.programs[0].rollout.settings = &f.settings[0];
			f.programs[0].rollout.config = &f.config;
			f.programs[0].rollout.generation = 1;
			rollout_handle(&f.core, &f.programs[0], (enum rollout_event)k);
			assert_int_equal(f.core.impossible, has ? 0 : 1);
			if (!has)
				assert_int_equal(f.programs[0].rollout.state, s);
			assert_non_null(rollout_event_name((enum rollout_event)k));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_surge),
		cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_stop_delay),
		cmocka_unit_test(test_canary_fails),
		cmocka_unit_test(test_later_failure_rolls_back),
		cmocka_unit_test(test_retry),
		cmocka_unit_test(test_neither_starts),
		cmocka_unit_test(test_neither_starts_then),
		cmocka_unit_test(test_executor_goes_last),
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/unit/core_fixture.h"

static struct election *e = &f.core.election;

static void start(void)
{
	f.settings[0] = fix_program("web", 2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	f.settings[1] = fix_program("log", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[1].level = 0;
	f.settings[0].level = 1;
	fix_start(2);
	for (int i = 0; i < FIX_WORKERS; i++) {
		if (f.workers[i].used && f.workers[i].state == WORKER_STARTING)
			fix_ready(i);
	}
}

static bool ended(void)
{
	return f.core.lifecycle.state == LIFECYCLE_DOWN;
}

static void test_programs_wait_for_the_first_answer(void **state)
{
	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_start(1);
	assert_int_equal(f.now - f.core.lifecycle.boot_ns, 1 * SEC);
}

static void test_executor_first_then_the_lock(void **state)
{
	(void)state;
	start();
	fix_hold();
	fix_promote(0);
	EVENT(.kind = EVENT_SAID_PROMOTED, .worker = 0, .id = f.workers[0].id,
		.term = f.programs[0].executor.term);
	EVENT(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_GRACEFUL);
	assert_int_equal(fix_find(ACTION_TELL_DEMOTE, 0)->reason_code, 1);
	assert_null(fix_find(ACTION_SIGNAL, 0));
	assert_null(fix_find(ACTION_SIGNAL, 2)); /* a lower level: later */
	EVENT(.kind = EVENT_SAID_DEMOTED, .worker = 0, .id = f.workers[0].id,
		.term = f.programs[0].executor.term);
	assert_non_null(fix_find(ACTION_SIGNAL, 0));
	assert_int_equal(e->request.op, REQUEST_RELEASE);
	fix_reply(OUTCOME_DONE, fix_view("", e->term));
	for (int i = 0; i < 3 && !ended(); i++) {
		for (int k = 0; k < 3; k++) {
			if (f.workers[k].alive && f.workers[k].term_sent) {
				fix_dies(k, 0, 0);
				fix_worker(EVENT_GONE, k);
			}
		}
	}
	assert_true(ended());
	assert_int_equal(fix_find(ACTION_EXIT, -1)->number, 0);
	/* the database before the log, the other way round than they came */
	assert_true(fix_find(ACTION_STAGE_DOWN, -1) < fix_find(ACTION_EXIT, -1));
}

/* A database that does not answer keeps no supervisor from its end. */
static void test_release_that_is_never_answered(void **state)
{
	int64_t begin;

	(void)state;
	start();
	fix_hold();
	fix_promote(0);
	EVENT(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_KILL);
	for (int k = 0; k < 3; k++) {
		fix_dies(k, -1, 9);
		fix_worker(EVENT_GONE, k);
	}
	begin = f.now;
	for (int i = 0; i < 100 && !ended(); i++) {
		if (e->request.op != REQUEST_NONE)
			fix_reply(OUTCOME_UNAVAILABLE, (struct lock_view){0});
		else
			fix_next();
	}
	assert_true(ended());
	assert_true(f.now - begin < 4 * SEC);
}

/* Whatever does not end: graceful, then SIGKILL, then baton itself. */
static void test_nothing_ends(void **state)
{
	int64_t begin;
	bool killed = false;

	(void)state;
	start();
	begin = f.now;
	EVENT(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_GRACEFUL);
	for (int i = 0; i < 200 && !ended(); i++) {
		fix_next();
		killed = killed || fix_find(ACTION_KILL_TREE, -1) != NULL;
	}
	assert_true(killed);
	assert_true(ended());
	assert_true(f.now - begin <= 71 * SEC);
	assert_int_equal(fix_find(ACTION_EXIT, -1)->number, 1);
}

static void test_quick_is_never_later(void **state)
{
	int64_t at;

	(void)state;
	start();
	EVENT(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_GRACEFUL);
	at = f.core.lifecycle.deadline_ns;
	f.now += 55 * SEC;
	EVENT(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_QUICK);
	assert_true(f.core.lifecycle.deadline_ns <= at);
}

static void test_shutdown_while_acquiring(void **state)
{
	(void)state;
	start();
	fix_reply(OUTCOME_DONE, fix_view("", 7));
	assert_int_equal(e->state, ELECTION_ACQUIRING);
	EVENT(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_GRACEFUL);
	fix_done();
	assert_int_equal(e->request.op, REQUEST_RELEASE); /* nobody was promoted */
	fix_reply(OUTCOME_DONE, fix_view("", e->term));
	assert_int_equal(e->state, ELECTION_OFF);
}

static void test_stage_fails(void **state)
{
	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	fix_start(1);
	memset(&f.core.lifecycle, 0, sizeof f.core.lifecycle);
	memset(f.workers, 0, sizeof f.workers);
	memset(f.programs, 0, sizeof f.programs);
	EVENT(.kind = EVENT_BOOT);
	EVENT(.kind = EVENT_STAGE, .stage = STAGE_CONFIGURATION, .ok = false, .number = 78);
	assert_int_equal(fix_find(ACTION_EXIT, -1)->number, 78);
}

static void test_on_fatal_exit(void **state)
{
	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].startretries = 0;
	f.settings[0].on_fatal = ON_END_EXIT;
	fix_start(1);
	fix_worker(EVENT_SPAWNED, 0);
	fix_dies(0, 1, 0);
	fix_worker(EVENT_GONE, 0);
	assert_true(ended());
	assert_int_equal(fix_find(ACTION_EXIT, -1)->number, 70);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_programs_wait_for_the_first_answer),
		cmocka_unit_test(test_executor_first_then_the_lock),
		cmocka_unit_test(test_release_that_is_never_answered),
		cmocka_unit_test(test_nothing_ends),
		cmocka_unit_test(test_quick_is_never_later),
		cmocka_unit_test(test_shutdown_while_acquiring),
		cmocka_unit_test(test_stage_fails),
		cmocka_unit_test(test_on_fatal_exit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

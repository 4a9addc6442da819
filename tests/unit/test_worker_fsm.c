#include "tests/unit/core_fixture.h"

static struct worker *w = &f.workers[0];

static void start_one(void)
{
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	fix_start(1);
	assert_int_equal(w->state, WORKER_STARTING);
}

static void gone(void)
{
	fix_worker(EVENT_GONE, 0);
}

static void test_ready_by_notify(void **state)
{
	(void)state;
	start_one();
	assert_true(w->deadline_ns > 0);
	fix_ready(0);
	assert_int_equal(w->state, WORKER_RUNNING);
	assert_int_equal(w->deadline_ns, 0);
}

static void test_ready_by_startsecs(void **state)
{
	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].ready = READY_STARTSECS;
	fix_start(1);
	fix_worker(EVENT_SPAWNED, 0);
	fix_worker(EVENT_EXECED, 0);
	assert_int_equal(w->state, WORKER_STARTING);
	fix_next();
	assert_int_equal(w->state, WORKER_RUNNING);
}

/* fork came, exec never does: that is not "it lived for startsecs". */
static void test_hung_exec_is_not_ready(void **state)
{
	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].ready = READY_STARTSECS;
	fix_start(1);
	fix_worker(EVENT_SPAWNED, 0);
	fix_next();
	assert_int_equal(w->state, WORKER_STOPPING);
	assert_non_null(fix_find(ACTION_KILL_TREE, 0));
}

static void test_not_ready_in_time_is_killed(void **state)
{
	(void)state;
	start_one();
	fix_worker(EVENT_SPAWNED, 0);
	fix_worker(EVENT_EXECED, 0);
	fix_timer(60 * SEC);
	assert_int_equal(w->state, WORKER_STOPPING);
	fix_dies(0, -1, 9);
	gone();
	assert_int_equal(w->state, WORKER_BACKOFF);
	assert_string_equal(w->reason, "not ready in time"); /* not: killed */
	assert_true(w->deadline_ns > f.now);
}

static void test_exit_codes(void **state)
{
	static const struct {
		enum config_autorestart autorestart;
		int code, signal;
		enum worker_state then;
	} rows[] = {
		{AUTORESTART_UNEXPECTED, 0, 0, WORKER_EXITED},
		{AUTORESTART_UNEXPECTED, 1, 0, WORKER_STARTING},
		{AUTORESTART_UNEXPECTED, 0, 9, WORKER_STARTING},
		{AUTORESTART_NO, 1, 0, WORKER_EXITED},
		{AUTORESTART_ALWAYS, 0, 0, WORKER_STARTING},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
		f.settings[0].autorestart = rows[i].autorestart;
		fix_start(1);
		fix_ready(0);
		f.now += 20 * SEC;
		fix_dies(0, rows[i].code, rows[i].signal);
		assert_non_null(fix_find(ACTION_COLLECT, 0));
		gone();
		assert_int_equal(w->state, rows[i].then);
	}
}

static void test_fatal_after_retries(void **state)
{
	int starts = 1;

	(void)state;
	start_one();
	for (int i = 0; i < 20 && w->state != WORKER_FATAL; i++) {
		fix_worker(EVENT_SPAWNED, 0);
		fix_dies(0, 1, 0);
		gone();
		if (w->state == WORKER_BACKOFF) {
			fix_next();
			starts++;
		}
	}
	assert_int_equal(w->state, WORKER_FATAL);
	assert_int_equal(starts, 4); /* startretries = 3 */
}

static void test_stop_then_kill_then_again(void **state)
{
	(void)state;
	start_one();
	fix_ready(0);
	EVENT(.kind = EVENT_STOP, .program = 0);
	assert_int_equal(fix_find(ACTION_SIGNAL, 0)->signal, 15);
	fix_timer(10 * SEC);
	assert_non_null(fix_find(ACTION_KILL_TREE, 0));
	fix_timer(5 * SEC);
	assert_non_null(fix_find(ACTION_KILL_TREE, 0));
	fix_dies(0, -1, 9);
	gone();
	assert_int_equal(w->state, WORKER_STOPPED);
	EVENT(.kind = EVENT_START, .program = 0);
	assert_int_equal(w->state, WORKER_STARTING);
}

/* TERM or KILL asked for before fork was answered: sent as soon as there is a process. */
static void test_stop_before_it_is_forked(void **state)
{
	(void)state;
	start_one();
	EVENT(.kind = EVENT_STOP, .program = 0);
	assert_null(fix_find(ACTION_SIGNAL, 0));
	fix_worker(EVENT_SPAWNED, 0);
	assert_int_equal(fix_find(ACTION_SIGNAL, 0)->signal, 15);
}

static void test_start_while_stopping_starts_again(void **state)
{
	(void)state;
	start_one();
	fix_ready(0);
	EVENT(.kind = EVENT_STOP, .program = 0);
	EVENT(.kind = EVENT_START, .program = 0);
	fix_dies(0, 0, 0);
	gone();
	assert_int_equal(w->state, WORKER_STARTING);
}

/* What a process of before said, or the kernel of it, comes late: dropped. */
static void test_late_events_are_dropped(void **state)
{
	uint64_t id;

	(void)state;
	start_one();
	fix_ready(0);
	id = w->id;
	EVENT(.kind = EVENT_STOP, .program = 0);
	fix_dies(0, 0, 0);
	gone();
	for (int k = EVENT_SPAWNED; k <= EVENT_CHANNEL_CLOSED; k++)
		EVENT(.kind = (enum event_kind)k, .worker = 0, .id = id);
	assert_int_equal(w->state, WORKER_STOPPED);
	assert_int_equal(f.core.impossible, 0);
}

static void test_watchdog(void **state)
{
	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].watchdog_ns = 5 * SEC;
	fix_start(1);
	fix_ready(0);
	f.now += 4 * SEC;
	fix_worker(EVENT_WATCHDOG, 0);
	fix_timer(4 * SEC);
	assert_int_equal(w->state, WORKER_RUNNING);
	fix_timer(1 * SEC);
	assert_int_equal(w->state, WORKER_STOPPING);
	assert_non_null(fix_find(ACTION_KILL_TREE, 0));
}

static void test_fork_fails(void **state)
{
	(void)state;
	start_one();
	fix_worker(EVENT_SPAWN_FAILED, 0);
	assert_int_equal(w->state, WORKER_BACKOFF);
	fix_next();
	assert_int_equal(w->state, WORKER_STARTING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ready_by_notify),
		cmocka_unit_test(test_ready_by_startsecs),
		cmocka_unit_test(test_hung_exec_is_not_ready),
		cmocka_unit_test(test_not_ready_in_time_is_killed),
		cmocka_unit_test(test_exit_codes),
		cmocka_unit_test(test_fatal_after_retries),
		cmocka_unit_test(test_stop_then_kill_then_again),
		cmocka_unit_test(test_stop_before_it_is_forked),
		cmocka_unit_test(test_start_while_stopping_starts_again),
		cmocka_unit_test(test_late_events_are_dropped),
		cmocka_unit_test(test_watchdog),
		cmocka_unit_test(test_fork_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/unit/core_fixture.h"

static struct executor *x = &f.programs[0].executor;

/* All ready, the lock held. */
static void start(int workers, enum config_executor executor, enum config_promote promote)
{
	f.settings[0] = fix_program("web", workers, executor, promote);
	fix_start(1);
	for (int i = 0; i < workers; i++) {
		if (f.workers[i].state == WORKER_STARTING)
			fix_ready(i);
	}
	fix_hold();
}

static void says(enum event_kind kind, int64_t number)
{
	EVENT(.kind = kind, .worker = x->worker, .id = f.workers[x->worker].id, .term = x->term,
		.number = number);
}

/* COMMIT, then armed, then the page, then the line: never another order. */
static void test_order_of_a_promotion(void **state)
{
	struct action *show, *tell;

	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	assert_int_equal(x->state, EXECUTOR_PROMOTING);
	assert_null(fix_find(ACTION_ARM, -1));
	fix_done();
	assert_non_null(fix_find(ACTION_ARM, 0));
	assert_null(fix_find(ACTION_PAGE_SHOW, -1));
	EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
	show = fix_find(ACTION_PAGE_SHOW, 0);
	tell = fix_find(ACTION_TELL_PROMOTE, 0);
	assert_non_null(show);
	assert_true(tell > show);
	assert_int_equal(show->deadline_ns, f.core.election.hard_ns);
	assert_true(show->soft_ns < show->deadline_ns);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
}

static void test_no_deadman_no_promotion(void **state)
{
	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_done();
	fix_timer(1 * SEC);
	assert_int_equal(x->state, EXECUTOR_NONE);
	assert_int_equal(f.workers[0].state, WORKER_RUNNING);
}

/* A handoff moves the baton and leaves both workers alone. */
static void test_handoff_keeps_the_worker(void **state)
{
	uint64_t term;

	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_promote(0);
	term = x->term;
	EVENT(.kind = EVENT_HANDOFF, .program = 0);
	assert_non_null(fix_find(ACTION_TELL_DEMOTE, 0));
	says(EVENT_SAID_BUSY, 2);
	says(EVENT_SAID_DEMOTED, 0);
	assert_int_equal(x->state, EXECUTOR_DRAINING);
	assert_null(fix_find(ACTION_PAGE_CLEAR, -1));
	says(EVENT_SAID_BUSY, 0);
	assert_non_null(fix_find(ACTION_PAGE_CLEAR, 0));
	assert_int_equal(x->worker, 1);
	fix_promote(0);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
	assert_true(x->term > term);
	assert_int_equal(f.workers[0].state, WORKER_RUNNING);
	assert_int_equal(f.workers[1].state, WORKER_RUNNING);
}

static void test_handoff_needs_a_successor(void **state)
{
	(void)state;
	start(1, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_promote(0);
	EVENT(.kind = EVENT_HANDOFF, .program = 0);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
}

static void test_handoff_timeout_stops_before_the_successor(void **state)
{
	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_promote(0);
	EVENT(.kind = EVENT_HANDOFF, .program = 0);
	for (int i = 0; i < 5 && f.workers[0].state == WORKER_RUNNING; i++) {
		fix_timer(10 * SEC);
		if (f.core.election.request.op == REQUEST_RENEW)
			fix_done();
	}
	assert_int_equal(f.workers[0].state, WORKER_STOPPING);
	assert_int_equal(x->state, EXECUTOR_DRAINING);
	says(EVENT_SAID_DEMOTED, 0); /* too late */
	assert_int_equal(x->state, EXECUTOR_DRAINING);
	fix_dies(0, 0, 0);
	assert_non_null(fix_find(ACTION_PAGE_CLEAR, 0));
	assert_int_equal(x->state, EXECUTOR_DRAINING);
	fix_worker(EVENT_GONE, 0);
	assert_int_equal(x->worker, 1);
}

static void test_crash_promotes_when_the_tree_is_gone(void **state)
{
	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_promote(0);
	f.now += 20 * SEC;
	fix_dies(0, 1, 0);
	assert_non_null(fix_find(ACTION_PAGE_CLEAR, 0));
	assert_true(fix_find(ACTION_COLLECT, 0)->tree);
	assert_int_equal(x->worker, 0);
	fix_worker(EVENT_GONE, 0);
	assert_int_equal(x->worker, 1);
}

/* A poisonous job must not take all workers down one by one. */
static void test_short_lives_back_off(void **state)
{
	(void)state;
	start(4, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	for (int i = 0; i < 3; i++) {
		int slot = x->worker;

		while (f.core.election.request.op != REQUEST_PROMOTE) {
			if (f.core.election.request.op != REQUEST_NONE)
				fix_done();
			else
				fix_next();
		}
		fix_promote(0);
		slot = x->worker;
		fix_dies(slot, 1, 0);
		fix_worker(EVENT_GONE, slot);
		if (i == 0)
			assert_int_equal(x->state, EXECUTOR_PROMOTING);
	}
	assert_int_equal(x->state, EXECUTOR_NONE);
	assert_true(x->not_before_ns > f.now);
}

/* The promotion of a worker that is being stopped is withdrawn, in every phase. */
static void test_stop_in_every_phase(void **state)
{
	(void)state;
	for (int phase = 0; phase < 2; phase++) {
		start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
		if (phase == 1)
			fix_done();
		EVENT(.kind = EVENT_STOP, .program = 0, .worker = 0);
		assert_int_equal(f.workers[0].state, WORKER_STOPPING);
		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_done();
		EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
		for (size_t i = 0; i < f.plan.count; i++)
			assert_false(f.plan.items[i].kind == ACTION_PAGE_SHOW &&
				     f.plan.items[i].worker == 0);
		assert_int_equal(x->worker, 1);
	}
}

static void test_only_stopped_while_committing(void **state)
{
	(void)state;
	start(1, EXECUTOR_ONLY, PROMOTE_NOTIFY);
	assert_int_equal(f.workers[0].state, WORKER_STANDBY);
	assert_int_equal(x->state, EXECUTOR_PROMOTING);
	EVENT(.kind = EVENT_STOP, .program = 0);
	fix_done();
	assert_null(fix_find(ACTION_SPAWN, -1));
	assert_int_equal(f.workers[0].state, WORKER_STOPPED);
	assert_int_equal(x->state, EXECUTOR_NONE);
}

/* COMMIT, fork, held, arm, exec. */
static void test_only_is_held_until_armed(void **state)
{
	(void)state;
	start(1, EXECUTOR_ONLY, PROMOTE_NOTIFY);
	fix_done();
	assert_true(fix_find(ACTION_SPAWN, 0)->held);
	assert_int_equal(fix_find(ACTION_SPAWN, 0)->executor_env, 1);
	fix_worker(EVENT_SPAWNED, 0);
	assert_non_null(fix_find(ACTION_ARM, 0));
	assert_null(fix_find(ACTION_RELEASE_CHILD, 0));
	EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
	assert_true(fix_find(ACTION_RELEASE_CHILD, 0) > fix_find(ACTION_PAGE_SHOW, 0));
}

static void test_respawn_replacement_is_the_executor(void **state)
{
	int slot;

	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_RESPAWN);
	while (x->state != EXECUTOR_EXECUTING) {
		slot = x->worker;
		if (f.core.election.request.op != REQUEST_NONE)
			fix_done();
		else if (f.workers[slot].state == WORKER_STOPPING && f.workers[slot].alive)
			fix_dies(slot, 0, 0);
		else if (f.workers[slot].state == WORKER_STOPPING)
			fix_worker(EVENT_GONE, slot);
		else if (f.workers[slot].state == WORKER_STARTING && !f.workers[slot].alive)
			fix_worker(EVENT_SPAWNED, slot);
		else
			EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
	}
	slot = x->worker;
	fix_worker(EVENT_EXECED, slot);
	fix_worker(EVENT_READY, slot);
	f.now += 20 * SEC;
	if (f.core.election.request.op == REQUEST_NONE)
		EVENT(.kind = EVENT_TIMER);
	fix_done();
	fix_dies(slot, 1, 0);
	fix_worker(EVENT_GONE, slot);
	assert_int_equal(x->worker, slot); /* its replacement, no healthy worker was stopped */
	assert_int_equal(f.workers[1 - slot].state, WORKER_RUNNING);
}

static void test_deadman_lost(void **state)
{
	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_promote(0);
	says(EVENT_SAID_PROMOTED, 0);
	EVENT(.kind = EVENT_DEADMAN_LOST);
	EVENT(.kind = EVENT_DEADMAN_UP);
	assert_non_null(fix_find(ACTION_ARM, 0));
	EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
	fix_timer(2 * SEC);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
	EVENT(.kind = EVENT_DEADMAN_LOST);
	fix_timer(1 * SEC);
	assert_int_equal(x->state, EXECUTOR_DRAINING);
	assert_non_null(fix_find(ACTION_TELL_DEMOTE, 0));
}

static void test_unanswered(void **state)
{
	(void)state;
	start(2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_promote(0);
	f.now += 10 * SEC;
	EVENT(.kind = EVENT_TIMER);
	assert_int_equal(fix_count(ACTION_REPORT) > 0, 1);
	assert_true(x->unanswered_told);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_of_a_promotion),
		cmocka_unit_test(test_no_deadman_no_promotion),
		cmocka_unit_test(test_handoff_keeps_the_worker),
		cmocka_unit_test(test_handoff_needs_a_successor),
		cmocka_unit_test(test_handoff_timeout_stops_before_the_successor),
		cmocka_unit_test(test_crash_promotes_when_the_tree_is_gone),
		cmocka_unit_test(test_short_lives_back_off),
		cmocka_unit_test(test_stop_in_every_phase),
		cmocka_unit_test(test_only_stopped_while_committing),
		cmocka_unit_test(test_only_is_held_until_armed),
		cmocka_unit_test(test_respawn_replacement_is_the_executor),
		cmocka_unit_test(test_deadman_lost),
		cmocka_unit_test(test_unanswered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

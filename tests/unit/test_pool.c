#include "tests/unit/core_fixture.h"

static int in_state(int program, enum worker_state s)
{
	int count = 0;

	for (int i = core_next_worker(&f.core, program, -1); i >= 0;
		i = core_next_worker(&f.core, program, i))
		count += f.workers[i].state == s;
	return count;
}

/* Whatever asks to be done is done, until nothing moves but time. */
static void settle(void)
{
	for (bool again = true; again;) {
		again = false;
		for (int i = 0; i < FIX_WORKERS; i++) {
			struct worker *w = &f.workers[i];

			if (!w->used || !w->tree)
				continue;
			if (w->state == WORKER_STARTING) {
				fix_ready(i);
			} else if (w->state == WORKER_STOPPING && w->alive && w->term_sent) {
				fix_dies(i, 0, 0);
			} else if (w->state == WORKER_STOPPING && !w->alive) {
				fix_worker(EVENT_GONE, i);
			} else {
				continue;
			}
			again = true;
		}
	}
}

static void start(int workers)
{
	f.settings[0] = fix_program("web", workers, EXECUTOR_NO, PROMOTE_NOTIFY);
	fix_start(1);
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), workers);
}

static void test_scale(void **state)
{
	uint64_t id;

	(void)state;
	start(2);
	id = f.workers[0].id;
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 5);
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), 5);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 1);
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), 1);
	assert_int_equal(f.workers[0].id, id); /* those that stay keep their pids */
}

/* Slots of a program that is not started are not given away by another one's scale. */
static void test_room(void **state)
{
	struct event scale = {.kind = EVENT_SCALE, .worker = -1, .program = 0, .number = 6};

	(void)state;
	f.settings[0] = fix_program("a", 2, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[1] = fix_program("b", 4, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[1].autostart = false;
	fix_start(2);
	settle();
	assert_int_equal(in_state(1, WORKER_STOPPED), 4); /* shown, not running */
	assert_true(core_room_workers(&f.core, &scale) >= 10);
	fix_event(scale);
	EVENT(.kind = EVENT_START, .program = 1);
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), 6);
	assert_int_equal(in_state(1, WORKER_RUNNING), 4);
}

/* A dependant in an earlier slot is started in the same event. */
static void test_dependency(void **state)
{
	static const struct config_depend on_second = {.program = 1, .what = DEPENDS_READY};

	(void)state;
	f.settings[0] = fix_program("app", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[1] = fix_program("db", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].depends = &on_second;
	f.settings[0].depend_count = 1;
	fix_start(2);
	for (int i = 0; i < FIX_WORKERS; i++) {
		if (f.workers[i].used && f.workers[i].state == WORKER_STARTING) {
			assert_int_equal(f.workers[i].program, 1);
			fix_ready(i);
			break;
		}
	}
	assert_int_equal(in_state(0, WORKER_STARTING), 1);
}

static void reload(struct config *to, enum diff_class class)
{
	enum diff_class classes[FIX_PROGRAMS] = {class, class, class, class};

	EVENT(.kind = EVENT_RELOAD, .config = to, .classes = classes);
}

static void test_rolling_replacement_one_by_one(void **state)
{
	static struct config next;
	static struct config_program programs[1];

	(void)state;
	start(3);
	programs[0] = f.settings[0];
	next = f.config;
	next.programs = programs;
	reload(&next, DIFF_ROLL);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(in_state(0, WORKER_STOPPING), 1);
		assert_int_equal(in_state(0, WORKER_RUNNING), 2);
		for (int k = 0; k < FIX_WORKERS; k++) {
			if (f.workers[k].used && f.workers[k].state == WORKER_STOPPING) {
				fix_dies(k, 0, 0);
				fix_worker(EVENT_GONE, k);
				fix_ready(k);
				break;
			}
		}
	}
	assert_int_equal(in_state(0, WORKER_RUNNING), 3);
	assert_int_equal(f.programs[0].rollout.outcome, ROLLOUT_DONE);
}

static void test_program_taken_out_and_back(void **state)
{
	static struct config without, with;

	(void)state;
	start(2);
	without = f.config;
	without.program_count = 0;
	reload(&without, DIFF_REMOVED);
	assert_int_equal(in_state(0, WORKER_STOPPING), 2);
	with = f.config;
	reload(&with, DIFF_ADDED); /* its workers of before are still on their way out */
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), 2);
	reload(&without, DIFF_REMOVED);
	settle();
	assert_false(f.programs[0].used);
	for (int i = 0; i < FIX_WORKERS; i++)
		assert_false(f.workers[i].used);
}

static void test_stop_one_start_all(void **state)
{
	(void)state;
	start(3);
	EVENT(.kind = EVENT_STOP, .program = 0, .worker = 1);
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), 2);
	fix_timer(1 * SEC);
	assert_int_equal(f.workers[1].state, WORKER_STOPPED);
	EVENT(.kind = EVENT_START, .program = 0);
	settle();
	assert_int_equal(in_state(0, WORKER_RUNNING), 3);
}

/* A worker slot that is another program's, or none: nothing. */
static void test_wrong_slot(void **state)
{
	(void)state;
	start(2);
	EVENT(.kind = EVENT_STOP, .program = 0, .worker = FIX_WORKERS + 5);
	EVENT(.kind = EVENT_RESTART, .program = 0, .worker = 9);
	EVENT(.kind = EVENT_STOP, .program = 3);
	assert_int_equal(in_state(0, WORKER_RUNNING), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scale),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_dependency),
		cmocka_unit_test(test_rolling_replacement_one_by_one),
		cmocka_unit_test(test_program_taken_out_and_back),
		cmocka_unit_test(test_stop_one_start_all),
		cmocka_unit_test(test_wrong_slot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

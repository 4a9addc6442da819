/* Every cell of the manual's table of rollouts: each stage, each event, with surge and without,
 * with an executor and without. */
#include "tests/lib/rollout_outcomes.h"
#include "tests/unit/rollout_fixture.h"

static struct program *const web = &f.programs[0];
static bool elected;

/* Everything that moves by itself, without time. */
static void go_on(void)
{
	struct executor *x = &web->executor;

	for (int i = 0; i < 12; i++) {
		settle(0);
		if (!elected)
			return;
		if (f.core.election.request.op != REQUEST_NONE)
			fix_done();
		if (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM)
			EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
		if (x->state == EXECUTOR_EXECUTING && !x->answered)
			fix_worker(EVENT_SAID_PROMOTED, x->worker);
		if (x->state == EXECUTOR_DRAINING && f.workers[x->worker].state == WORKER_RUNNING)
			fix_worker(EVENT_SAID_DEMOTED, x->worker);
	}
}

static void start_web(int surge)
{
	f.settings[0] = fix_program(
		"web", 3, elected ? EXECUTOR_CANDIDATE : EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].surge = surge;
	f.settings[0].max_unavailable = !surge;
	f.settings[0].max_memory = 1000;
	fix_start(1);
	settle(0);
	if (elected)
		fix_hold();
	go_on();
}

/* The one of GENERATION that starts does not come up. */
static void fails(uint32_t generation, int tries)
{
	for (int i = 0; i < tries; i++) {
		int slot = first(WORKER_STARTING, generation);

		if (slot < 0)
			return;
		fix_worker(EVENT_SPAWNED, slot);
		fix_dies(slot, 9, 0);
		fix_worker(EVENT_GONE, slot);
		while (first(WORKER_BACKOFF, generation) >= 0)
			fix_next();
	}
}

static void come_to(enum stage stage, int surge)
{
	start_web(surge);
	if (stage == AT_RECYCLING) {
		EVENT(.kind = EVENT_MEMORY, .worker = 1, .id = f.workers[1].id, .number = 2000);
		assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
		return;
	}
	reload(0);
	if (stage == AT_CANARY) {
		assert_int_equal(web->rollout.state, ROLLOUT_CANARY);
		return;
	}
	if (!surge)
		ends(first(WORKER_STOPPING, 1));
	fix_ready(first(WORKER_STARTING, 2));
	assert_int_equal(web->rollout.state, ROLLOUT_ROLLING);
	if (stage == AT_ROLLING)
		return;
	ends(first(WORKER_STOPPING, 1));
	fails(2, ROLLOUT_TRIES);
	assert_int_equal(web->rollout.state, ROLLOUT_BACK);
	if (stage == AT_BACK)
		return;
	/* The one that was replaced is to be of the old version again, which does not start. */
	for (int i = 0; i < 20 && web->rollout.state != ROLLOUT_HALF; i++) {
		if (first(WORKER_STOPPING, 2) >= 0)
			ends(first(WORKER_STOPPING, 2));
		else if (first(WORKER_STARTING, 1) >= 0)
			fails(1, 1);
	}
	if (surge && web->rollout.state == ROLLOUT_BACK) { /* beside it: not yet half way */
		assert_true(first(WORKER_STARTING, 1) >= 0 || first(WORKER_BACKOFF, 1) >= 0);
		return;
	}
	assert_int_equal(web->rollout.state, ROLLOUT_HALF);
}

static void dies(int slot)
{
	if (slot < 0)
		return;
	fix_dies(slot, 0, 11);
	fix_worker(EVENT_GONE, slot);
}

static void happens(enum happening what, enum stage stage)
{
	static struct config without;
	int slot;

	switch (what) {
	case HAPPENS_TERM:
	case HAPPENS_INT:
		EVENT(.kind = EVENT_SHUTDOWN,
			.number = what == HAPPENS_INT ? SHUTDOWN_QUICK : SHUTDOWN_GRACEFUL);
		break;
	case HAPPENS_SCALE_UP:
	case HAPPENS_SCALE_DOWN:
		EVENT(.kind = EVENT_SCALE, .program = 0,
			.number = what == HAPPENS_SCALE_UP ? 5 : 2);
		break;
	case HAPPENS_START:
		EVENT(.kind = EVENT_START, .program = 0);
		break;
	case HAPPENS_STOP:
		EVENT(.kind = EVENT_STOP, .program = 0);
		break;
	case HAPPENS_STOP_ONE:
		EVENT(.kind = EVENT_STOP, .program = 0, .worker = core_find_worker(&f.core, 0, 0));
		break;
	case HAPPENS_RESTART:
		EVENT(.kind = EVENT_RESTART, .program = 0);
		break;
	case HAPPENS_ROLL:
		EVENT(.kind = EVENT_ROLL, .program = 0);
		break;
	case HAPPENS_RELOAD:
		reload(1);
		break;
	case HAPPENS_TAKEN_OUT:
		without = f.config;
		without.program_count = 0;
		EVENT(.kind = EVENT_RELOAD, .config = &without);
		break;
	case HAPPENS_OLD_CRASHES:
		dies(first(WORKER_RUNNING, 1));
		break;
	case HAPPENS_NEW_CRASHES:
		slot = first(WORKER_RUNNING, 2);
		dies(slot >= 0 ? slot : first(WORKER_STARTING, stage == AT_RECYCLING ? 1 : 2));
		break;
	case HAPPENS_EXECUTOR_CRASHES:
		dies(web->executor.exists ? web->executor.worker : -1);
		break;
	default:
		break;
	}
}

static void come_to_the_end(void)
{
	for (int i = 0; i < 60; i++) {
		go_on();
		if (web->rollout.state == ROLLOUT_IDLE && i >= 4)
			return;
		fix_timer(1 * SEC); /* backoffs of those that died */
	}
}

static void check_end(enum happening what, enum stage stage, int surge)
{
	enum outcome_word end = happenings[what].at[stage];
	int wanted = what == HAPPENS_SCALE_UP                                 ? 5
		     : what == HAPPENS_SCALE_DOWN || what == HAPPENS_STOP_ONE ? 2
									      : 3;
	uint32_t newest = stage == AT_RECYCLING ? 2 : 3;
	uint32_t generation = end == OUTCOME_NEW ? 2 : end == OUTCOME_NEWEST ? newest : 1;

	switch (end) {
	case OUTCOME_DOWN:
		settle(0);
		go_on();
		assert_int_equal(f.core.lifecycle.state >= LIFECYCLE_STOPPING, true);
		assert_true(pool_all_down(&f.core));
		return;
	case OUTCOME_REMOVED:
		go_on();
		assert_false(web->used);
		return;
	case OUTCOME_STOPPED:
		go_on();
		assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
		assert_true(pool_all_down(&f.core));
		EVENT(.kind = EVENT_START, .program = 0);
		come_to_the_end();
		assert_one_version(stage == AT_CANARY || stage == AT_ROLLING ? 2 : 1, 3);
		return;
	default:
		come_to_the_end();
		if (web->rollout.state != ROLLOUT_IDLE ||
			count(WORKER_RUNNING, generation) != wanted)
			fail_msg("%s at stage %d, surge %d, %s executor: %s, %d of %d of "
				 "generation %u",
				happenings[what].text, stage, surge, elected ? "with" : "without",
				rollout_state_name(web->rollout.state),
				count(WORKER_RUNNING, generation), wanted, generation);
		assert_one_version(generation, wanted);
		if (elected)
			assert_int_equal(web->executor.state, EXECUTOR_EXECUTING);
	}
}

static void test_every_cell(void **state)
{
	int cells = 0;

	(void)state;
	for (int way = 0; way < 4; way++) {
		elected = way >= 2;
		for (int stage = 0; stage < STAGE_ROWS; stage++) {
			for (int what = 0; what < HAPPENS_SUPERVISOR_DIES; what++) {
				come_to((enum stage)stage, way % 2);
				happens((enum happening)what, (enum stage)stage);
				check_end((enum happening)what, (enum stage)stage, way % 2);
				assert_int_equal(f.core.impossible, 0);
				cells++;
			}
		}
	}
	assert_int_equal(cells, 4 * STAGE_ROWS * (HAPPENING_ROWS - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cell),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

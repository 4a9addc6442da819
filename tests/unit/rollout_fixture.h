/* A program under way: for the tests of rollouts and recycling. */
#ifndef BATON_TESTS_UNIT_ROLLOUT_FIXTURE_H
#define BATON_TESTS_UNIT_ROLLOUT_FIXTURE_H

#include "tests/unit/core_fixture.h"
#include "supervisor/core/rollout_fsm.h"

static struct config newer[4];
static struct config_program newer_programs[4][1];

/* --- a program under way -------------------------------------------------------------------- */
__attribute__((unused)) static int count(enum worker_state s, uint32_t generation)
{
	int found = 0;

	for (int i = core_next_worker(&f.core, 0, -1); i >= 0; i = core_next_worker(&f.core, 0, i))
		found += f.workers[i].state == s && f.workers[i].generation == generation;
	return found;
}

__attribute__((unused)) static int first(enum worker_state s, uint32_t generation)
{
	for (int i = core_next_worker(&f.core, 0, -1); i >= 0; i = core_next_worker(&f.core, 0, i))
		if (f.workers[i].state == s && f.workers[i].generation == generation)
			return i;
	return -1;
}

__attribute__((unused)) static void ends(int slot)
{
	if (f.workers[slot].alive)
		fix_dies(slot, 0, 0);
	fix_worker(EVENT_GONE, slot);
}

static void (*on_step)(void); /* before each step */

/* Those of generation FAILS exit at once; all others do as they are told. */
__attribute__((unused)) static void settle(uint32_t fails)
{
	for (bool again = true; again;) {
		again = false;
		for (int i = 0; i < FIX_WORKERS; i++) {
			struct worker *w = &f.workers[i];

			if (on_step != NULL)
				on_step();
			if (!w->used || !w->tree ||
				(w->state != WORKER_STARTING && w->state != WORKER_STOPPING))
				continue;
			if (w->state == WORKER_STARTING && w->held && w->alive &&
				!f.programs[0].executor.shown)
				continue; /* waits for its promotion */
			again = true;
			if (w->state == WORKER_STARTING && w->held) {
				fix_worker(w->alive ? EVENT_EXECED : EVENT_SPAWNED, i);
				continue;
			}
			if (w->state == WORKER_STOPPING && w->draining) {
				fix_worker(EVENT_SAID_DEMOTED, i);
			} else if (w->state == WORKER_STOPPING) {
				ends(i);
			} else if (w->generation == fails) {
				fix_worker(EVENT_SPAWNED, i);
				fix_dies(i, 9, 0);
			} else {
				fix_ready(i);
			}
		}
		if (!again && fails != 0 && first(WORKER_BACKOFF, fails) >= 0) {
			fix_next(); /* it is tried again */
			again = true;
		}
	}
	assert_int_equal(f.core.impossible, 0);
}

/* The one that is being started in GENERATION does not come up, as often as it is tried. */
__attribute__((unused)) static void fails_for_good(uint32_t generation)
{
	int tries = 0;

	for (int slot; (slot = first(WORKER_STARTING, generation)) >= 0; tries++) {
		fix_worker(EVENT_SPAWNED, slot);
		fix_dies(slot, 9, 0);
		fix_worker(EVENT_GONE, slot);
		if (first(WORKER_BACKOFF, generation) >= 0)
			fix_next();
	}
	assert_int_equal(tries, ROLLOUT_TRIES);
}

/* Whatever the executor is about, to its end. */
__attribute__((unused)) static void elect(void)
{
	struct executor *x = &f.programs[0].executor;

	for (int i = 0; i < 8; i++) {
		settle(0);
		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_done();
		settle(0);
		if (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM)
			EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
		if (x->state == EXECUTOR_EXECUTING && !x->answered)
			fix_worker(EVENT_SAID_PROMOTED, x->worker);
		if (x->state == EXECUTOR_DRAINING && f.workers[x->worker].state == WORKER_RUNNING)
			fix_worker(EVENT_SAID_DEMOTED, x->worker);
	}
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
}

__attribute__((unused)) static void begin(int workers, int surge, int missing)
{
	f.settings[0] = fix_program("web", workers, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].surge = surge;
	f.settings[0].max_unavailable = missing;
	fix_start(1);
	settle(0);
}

__attribute__((unused)) static void reload(int number)
{
	enum diff_class class = DIFF_ROLL;

	newer_programs[number][0] = f.settings[0];
	newer[number] = f.config;
	newer[number].programs = newer_programs[number];
	EVENT(.kind = EVENT_RELOAD, .config = &newer[number], .classes = &class);
}

__attribute__((unused)) static void assert_one_version(uint32_t generation, int workers)
{
	assert_int_equal(f.programs[0].rollout.state, ROLLOUT_IDLE);
	assert_int_equal(count(WORKER_RUNNING, generation), workers);
	for (int i = 0; i < FIX_WORKERS; i++) {
		assert_false(f.workers[i].used && f.workers[i].outgoing);
		assert_false(f.workers[i].tree && f.workers[i].generation != generation);
	}
	assert_int_equal(f.core.impossible, 0);
}

#endif

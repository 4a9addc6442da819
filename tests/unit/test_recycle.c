/* Recycling, rolling restarts, scaling the executor away, starts that fail for want of something.
 */
#include "tests/unit/rollout_fixture.h"

static struct program *const web = &f.programs[0];

/* Never two under way at once; to its end. Returns how many were replaced. */
static int recycle_all(bool beside)
{
	int replaced = 0;

	for (int i = 0; i < 200 && web->rollout.state != ROLLOUT_IDLE; i++) {
		int moving = 0, slot = -1;

		assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
		for (int k = 0; k < FIX_WORKERS; k++) {
			const struct worker *w = &f.workers[k];

			if (!w->used || !w->tree || (w->state == WORKER_RUNNING && w->ready))
				continue;
			moving++;
			slot = k;
		}
		assert_int_equal(moving, 1);
		assert_int_equal(count(WORKER_RUNNING, 1), beside ? web->count : web->count - 1);
		if (f.workers[slot].state == WORKER_STOPPING && f.workers[slot].draining) {
			fix_worker(EVENT_SAID_DEMOTED, slot);
		} else if (f.workers[slot].state == WORKER_STOPPING) {
			ends(slot);
		} else {
			fix_ready(slot);
			replaced++;
		}
		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_promote(0);
	}
	assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
	assert_int_equal(f.core.impossible, 0);
	return replaced;
}

static void begin_aging(int workers, int surge, enum config_executor executor)
{
	f.settings[0] = fix_program("web", workers, executor, PROMOTE_NOTIFY);
	f.settings[0].surge = surge;
	f.settings[0].max_unavailable = !surge;
	f.settings[0].max_age_ns = 100 * SEC;
	fix_start(1);
	settle(0);
	if (executor != EXECUTOR_NO)
		fix_hold();
	if (executor != EXECUTOR_NO)
		elect();
}

static void test_age(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		begin_aging(3, surge, EXECUTOR_NO);
		assert_int_equal(core_next_deadline(&f.core), f.now + 100 * SEC);
		fix_timer(99 * SEC);
		assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
		fix_timer(1 * SEC);
		assert_int_equal(recycle_all(surge), 3);
		assert_one_version(1, 3);
		assert_int_equal(web->rollout.outcome, ROLLOUT_NO_OUTCOME);
		fix_timer(99 * SEC);
		assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
		fix_timer(1 * SEC);
		assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
	}
}

/* The executor last; beside a replacement the baton goes to that, once. */
static void test_age_of_the_executor(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		uint64_t term;
		int old;

		begin_aging(3, surge, EXECUTOR_CANDIDATE);
		old = web->executor.worker;
		term = web->executor.term;
		f.now += 100 * SEC;
		f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
		f.core.election.renew_ns = f.now + 10 * SEC;
		EVENT(.kind = EVENT_TIMER);
		assert_int_equal(f.workers[old].stale, RECYCLE_NOT);
		assert_int_equal(recycle_all(surge), 3);
		assert_int_equal(web->executor.state, EXECUTOR_EXECUTING);
		assert_true(web->executor.term > term);
		assert_true(f.workers[web->executor.worker].started_ns > 1000 * SEC + 50 * SEC);
	}
}

/* One worker, with a replacement beside it: that is ready before the old one is told anything. */
static void test_successor_first(void **state)
{
	int old, beside;

	(void)state;
	begin_aging(1, 1, EXECUTOR_CANDIDATE);
	old = web->executor.worker;
	f.now += 100 * SEC;
	f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
	f.core.election.renew_ns = f.now + 10 * SEC;
	EVENT(.kind = EVENT_TIMER);
	beside = first(WORKER_STARTING, 1);
	assert_true(beside >= 0 && beside != old);
	assert_int_equal(web->executor.state, EXECUTOR_EXECUTING);
	fix_worker(EVENT_SPAWNED, beside);
	fix_worker(EVENT_EXECED, beside);
	assert_null(fix_find(ACTION_TELL_DEMOTE, -1));
	fix_worker(EVENT_READY, beside);
	assert_non_null(fix_find(ACTION_TELL_DEMOTE, old));
	assert_null(fix_find(ACTION_SIGNAL, old));
	fix_worker(EVENT_SAID_DEMOTED, old);
	assert_non_null(fix_find(ACTION_SIGNAL, old));
	fix_promote(0);
	assert_int_equal(web->executor.worker, beside);
}

/* `only` and respawn: stopped first, nothing else is touched. */
static void test_spawned_executor(void **state)
{
	(void)state;
	for (int only = 0; only < 2; only++) {
		f.settings[0] = fix_program("web", only ? 1 : 3,
			only ? EXECUTOR_ONLY : EXECUTOR_CANDIDATE, PROMOTE_RESPAWN);
		f.settings[0].max_memory = 1000;
		f.settings[0].max_unavailable = 1;
		fix_start(1);
		fix_hold();
		elect();
		EVENT(.kind = EVENT_MEMORY, .worker = web->executor.worker,
			.id = f.workers[web->executor.worker].id, .number = 1001);
		assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
		assert_int_equal(count(WORKER_STOPPING, 1), 1);
		assert_int_equal(count(WORKER_RUNNING, 1), only ? 0 : 2);
		ends(first(WORKER_STOPPING, 1));
		fix_done();
		fix_worker(EVENT_SPAWNED, web->executor.worker);
		EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = web->executor.term);
		fix_worker(EVENT_EXECED, web->executor.worker);
		fix_worker(EVENT_READY, web->executor.worker);
		assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
		assert_int_equal(count(WORKER_RUNNING, 1), only ? 1 : 3);
	}
}

static void test_memory(void **state)
{
	uint64_t id;
	int slot;

	(void)state;
	begin(3, 1, 0);
	f.now += SEC;
	f.settings[0].max_memory = 1000;
	EVENT(.kind = EVENT_MEMORY, .worker = 1, .id = f.workers[1].id, .number = 1000);
	assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
	id = f.workers[1].id;
	EVENT(.kind = EVENT_MEMORY, .worker = 1, .id = id + 7, .number = 5000); /* of another */
	assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
	EVENT(.kind = EVENT_MEMORY, .worker = 1, .id = id, .number = 1001);
	assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
	assert_true(f.workers[1].outgoing);
	/* A second one waits for the first. */
	EVENT(.kind = EVENT_MEMORY, .worker = 2, .id = f.workers[2].id, .number = 9999);
	assert_int_equal(f.workers[2].stale, RECYCLE_NOT);
	slot = first(WORKER_STARTING, 1);
	fix_ready(slot);
	assert_string_equal(f.workers[1].reason, "recycled: more memory than max_memory");
	ends(1);
	assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
	assert_true(f.workers[2].outgoing);
	assert_int_equal(recycle_all(true), 1);
	assert_one_version(1, 3);
}

/* The limit is below what a worker needs when it has booted: said, and no more than now and then.
 */
static void test_memory_below_the_boot(void **state)
{
	int slot, recycled = 0;

	(void)state;
	begin(2, 1, 0);
	f.settings[0].max_memory = 1000;
	f.now += 100 * SEC;
	for (int64_t end = f.now + 3600 * SEC; f.now < end; f.now += 10 * SEC) {
		EVENT(.kind = EVENT_TIMER);
		for (int i = 0; i < FIX_WORKERS; i++) {
			if (f.workers[i].used && f.workers[i].state == WORKER_RUNNING)
				EVENT(.kind = EVENT_MEMORY, .worker = i, .id = f.workers[i].id,
					.number = 2000);
		}
		for (; (slot = first(WORKER_STARTING, 1)) >= 0; recycled++) {
			fix_ready(slot);
			ends(first(WORKER_STOPPING, 1));
		}
	}
	assert_in_range(recycled, 6, 14);
	assert_one_version(1, 2);
}

/* With turns that differ by chance the baton goes to who has just had its turn, not to the next. */
static void test_the_baton_does_not_hop(void **state)
{
	uint64_t term;
	int rounds = 0, moves = 0;

	(void)state;
	begin_aging(6, 1, EXECUTOR_CANDIDATE);
	f.settings[0].max_age_jitter_ns = 50 * SEC;
	term = web->executor.term;
	for (int64_t end = f.now + 1000 * SEC; f.now < end; f.now += SEC) {
		f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
		f.core.election.renew_ns = f.now + 10 * SEC;
		EVENT(.kind = EVENT_TIMER);
		if (web->rollout.state == ROLLOUT_RECYCLING)
			rounds += recycle_all(true);
		if (web->executor.state == EXECUTOR_NONE)
			elect();
		web->executor.answered = false; /* its end is the demotion */
		moves += web->executor.term != term;
		term = web->executor.term;
	}
	assert_true(rounds > 6 * 6);
	assert_in_range(moves, 6, 10); /* once in each of its lives of 100 to 150 s */
}

/* Who lives already gets its share of a jitter that a reload brings. */
static void test_jitter_comes_later(void **state)
{
	int64_t first_due = INT64_MAX, last_due = 0;

	(void)state;
	begin(8, 1, 0);
	f.settings[0].max_age_ns = 100 * SEC;
	f.settings[0].max_age_jitter_ns = 100 * SEC;
	for (int i = 0; i < 8; i++) {
		int64_t due = rollout_due_ns(&f.core, web, &f.workers[i]);

		first_due = due < first_due ? due : first_due;
		last_due = due > last_due ? due : last_due;
	}
	assert_true(last_due - first_due > 20 * SEC);
}

/* The replacement does not start: the old one stays, and is let alone for a while. */
static void test_replacement_fails(void **state)
{
	uint64_t id;

	(void)state;
	begin(2, 1, 0);
	f.settings[0].max_memory = 1000;
	f.settings[0].startretries = 1; /* given up before ROLLOUT_TRIES */
	f.settings[0].on_fatal = ON_END_EXIT;
	id = f.workers[0].id;
	for (int time = 0; time < 2; time++) {
		EVENT(.kind = EVENT_MEMORY, .worker = 0, .id = id, .number = 2000);
		for (int slot; (slot = first(WORKER_STARTING, 1)) >= 0;) {
			fix_worker(EVENT_SPAWNED, slot);
			fix_dies(slot, 9, 0);
			fix_worker(EVENT_GONE, slot);
			if (first(WORKER_BACKOFF, 1) >= 0)
				fix_next();
		}
		assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
		assert_one_version(1, 2);
		assert_int_equal(f.workers[0].id, id);
		assert_int_equal(core_next_deadline(&f.core), f.now + (time + 1) * 60 * SEC);
		EVENT(.kind = EVENT_MEMORY, .worker = 0, .id = id, .number = 3000);
		assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
		f.now += (time + 1) * 60 * SEC;
	}
	assert_int_equal(f.core.lifecycle.state, LIFECYCLE_RUNNING);
	EVENT(.kind = EVENT_TIMER);
	assert_int_equal(recycle_all(true), 1);
	assert_int_equal(web->rollout.recycle_failures, 0);
}

static void test_jitter(void **state)
{
	int64_t low = INT64_MAX, high = 0;

	(void)state;
	f.settings[0] = fix_program("web", 16, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].max_unavailable = 1;
	f.settings[0].max_age_ns = 100 * SEC;
	f.settings[0].max_age_jitter_ns = 50 * SEC;
	fix_start(1);
	settle(0);
	for (int i = 0; i < 16; i++) {
		int64_t at = rollout_due_ns(&f.core, web, &f.workers[i]) - f.now;

		assert_true(at >= 100 * SEC && at <= 150 * SEC);
		low = at < low ? at : low;
		high = at > high ? at : high;
	}
	assert_true(high - low > 10 * SEC);
}

/* A rollout and a recycling: one waits for, or absorbs, the other. */
static void test_rollout_and_recycling(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		begin_aging(3, surge, EXECUTOR_NO);
		fix_timer(90 * SEC);
		reload(0);
		assert_int_equal(web->rollout.state, ROLLOUT_CANARY);
		fix_timer(20 * SEC);
		for (int i = 0; i < FIX_WORKERS; i++)
			assert_int_equal(f.workers[i].stale, RECYCLE_NOT);
		settle(0);
		assert_one_version(2, 3);
		begin_aging(3, surge, EXECUTOR_NO);
		fix_timer(100 * SEC);
		assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
		reload(1);
		settle(0);
		assert_one_version(2, 3);
		assert_int_equal(web->rollout.outcome, ROLLOUT_DONE);
	}
}

static void test_roll(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		begin(3, surge, !surge);
		EVENT(.kind = EVENT_ROLL, .program = 0);
		assert_int_equal(web->rollout.state, ROLLOUT_CANARY);
		assert_ptr_equal(web->settings, &f.settings[0]);
		settle(0);
		assert_one_version(2, 3);
		EVENT(.kind = EVENT_ROLL, .program = 0);
		settle(3);
		assert_one_version(2, 3);
		assert_int_equal(web->rollout.outcome, ROLLOUT_FAILED);
		assert_false(rollout_wants_retry(web)); /* what runs is what the file says */
		/* A failed reload is still to be tried again after a rolling restart that worked.
		 */
		reload(0);
		settle(4);
		assert_true(rollout_wants_retry(web));
		EVENT(.kind = EVENT_ROLL, .program = 0);
		settle(0);
		assert_one_version(5, 3);
		assert_int_equal(web->rollout.outcome, ROLLOUT_DONE);
		assert_true(rollout_wants_retry(web));
	}
	EVENT(.kind = EVENT_STOP, .program = 0);
	settle(0);
	EVENT(.kind = EVENT_ROLL, .program = 0); /* as restart does: it is started */
	settle(0);
	assert_one_version(5, 3);
}

/* --- the executor is the last to be scaled away --------------------------------------------- */
static void to_executor(int index)
{
	EVENT(.kind = EVENT_HANDOFF, .program = 0, .worker = core_find_worker(&f.core, 0, index));
	elect();
	assert_int_equal(f.workers[web->executor.worker].index, index);
}

static void begin_elected(int workers, enum config_promote promote)
{
	f.settings[0] = fix_program("web", workers, EXECUTOR_CANDIDATE, promote);
	f.settings[0].max_unavailable = 1;
	fix_start(1);
	settle(0);
	fix_hold();
	elect();
}

static void test_scale_down(void **state)
{
	(void)state;
	for (int promote = PROMOTE_NOTIFY; promote <= PROMOTE_RESPAWN; promote++) {
		int old;

		begin_elected(4, (enum config_promote)promote);
		to_executor(3);
		old = web->executor.worker;
		/* The only one that stays is not ready: the executor goes on for now. */
		fix_dies(core_find_worker(&f.core, 0, 0), 0, 9);
		EVENT(.kind = EVENT_SCALE, .program = 0, .number = 1);
		assert_int_equal(count(WORKER_STOPPING, 1), 3);
		assert_int_equal(f.workers[old].state, WORKER_RUNNING);
		assert_int_equal(web->executor.state, EXECUTOR_EXECUTING);
		fix_worker(EVENT_GONE, 0);
		assert_int_equal(f.workers[0].state, WORKER_STARTING);
		fix_worker(EVENT_SPAWNED, 0);
		fix_worker(EVENT_EXECED, 0);
		assert_int_equal(f.workers[old].state, WORKER_RUNNING);
		fix_worker(EVENT_READY, 0);
		assert_int_equal(f.workers[old].state, WORKER_STOPPING);
		assert_true(f.workers[old].remove);
		elect();
		assert_int_equal(web->executor.worker, 0);
		assert_one_version(1, 1);
	}
}

/* A successor that does not come is not waited for without end; scaled up again, it stays. */
static void test_scale_down_bounds(void **state)
{
	int old;

	(void)state;
	begin_elected(2, PROMOTE_NOTIFY);
	to_executor(1);
	old = web->executor.worker;
	fix_dies(0, 0, 9);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 1);
	assert_int_equal(f.workers[old].state, WORKER_RUNNING);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 2);
	assert_int_equal(f.workers[old].leave_by_ns, 0);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 1);
	assert_true(core_next_deadline(&f.core) <= f.now + 60 * SEC);
	f.now += 60 * SEC;
	f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
	EVENT(.kind = EVENT_TIMER);
	assert_int_equal(f.workers[old].state, WORKER_STOPPING);
	/* To nothing: nobody is waited for. */
	begin_elected(2, PROMOTE_NOTIFY);
	to_executor(1);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 0);
	assert_int_equal(count(WORKER_STOPPING, 1), 2);
}

/* --- starts that fail ----------------------------------------------------------------------- */
static int fork_fails(int times, uint32_t generation)
{
	int slot = -1;

	for (int i = 0; i < times && (slot = first(WORKER_STARTING, generation)) >= 0; i++) {
		EVENT(.kind = EVENT_SPAWN_FAILED, .worker = slot, .id = f.workers[slot].id,
			.ok = true);
		if (first(WORKER_BACKOFF, generation) >= 0)
			fix_next();
	}
	return slot;
}

/* EAGAIN from fork says nothing about the version: more patience, and still an end. */
static void test_fork_fails(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		for (int tries = ROLLOUT_TRIES; tries <= ROLLOUT_SPAWN_TRIES;
			tries += ROLLOUT_SPAWN_TRIES - ROLLOUT_TRIES) {
			begin(3, surge, !surge);
			f.settings[0].startretries = 50;
			reload(0);
			if (!surge)
				ends(first(WORKER_STOPPING, 1));
			fork_fails(tries, 2);
			assert_int_equal(web->rollout.state, tries < ROLLOUT_SPAWN_TRIES
								     ? ROLLOUT_CANARY
							     : surge ? ROLLOUT_IDLE
								     : ROLLOUT_BACK);
			settle(0);
			assert_one_version(tries < ROLLOUT_SPAWN_TRIES ? 2 : 1, 3);
		}
	}
}

/* A version that does not start is no reason to end everything. */
static void test_on_fatal(void **state)
{
	(void)state;
	begin(2, 1, 0);
	f.settings[0].on_fatal = ON_END_EXIT;
	f.settings[0].startretries = 0;
	reload(0);
	settle(2);
	assert_int_equal(f.core.lifecycle.state, LIFECYCLE_RUNNING);
	assert_one_version(1, 2);
	fix_dies(0, 9, 0);
	fix_worker(EVENT_GONE, 0);
	fix_worker(EVENT_SPAWNED, 0);
	fix_dies(0, 9, 0);
	fix_worker(EVENT_GONE, 0);
	assert_int_equal(f.core.lifecycle.state, LIFECYCLE_STOPPING); /* outside of one it is */
}

/* --- every waiting has an end --------------------------------------------------------------- */
/* Processes that do nothing at all: never ready, deaf to TERM, no answer on the channel; SIGKILL
 * ends them. In the end nothing is under way. */
static void nobody_answers(int64_t within_ns)
{
	int64_t end = f.now + within_ns;

	while (web->rollout.state != ROLLOUT_IDLE) {
		bool moved = false;

		for (int k = 0; k < FIX_WORKERS; k++) {
			struct worker *w = &f.workers[k];

			if (!w->used || !w->tree)
				continue;
			if (!w->alive && w->pid == 0 && w->state == WORKER_STARTING) {
				fix_worker(EVENT_SPAWNED, k);
				fix_worker(EVENT_EXECED, k);
				moved = true;
			} else if (w->kill_sent && w->alive) {
				fix_dies(k, 0, 9);
				fix_worker(EVENT_GONE, k);
				moved = true;
			}
		}
		if (moved)
			continue;
		if (f.core.election.request.op != REQUEST_NONE) {
			fix_done();
			continue;
		}
		assert_true(core_next_deadline(&f.core) != 0);
		fix_next();
		if (f.now > end)
			fail_msg("still %s after %lld s", rollout_state_name(web->rollout.state),
				(long long)(within_ns / SEC));
	}
	assert_int_equal(f.core.impossible, 0);
}

static void test_every_wait_ends(void **state)
{
	(void)state;
	for (int surge = 0; surge < 2; surge++) {
		/* A canary that never gets ready. */
		begin(3, surge, !surge);
		reload(0);
		if (surge) {
			nobody_answers(60 * SEC + 20 * SEC);
			assert_one_version(1, 3);
		}
		/* Old ones that do not end, and a drain that is never answered. */
		begin_elected(3, PROMOTE_NOTIFY);
		f.settings[0].surge = surge;
		f.settings[0].max_unavailable = !surge;
		f.settings[0].ready = READY_STARTSECS;
		reload(0);
		nobody_answers(200 * SEC);
		assert_one_version(2, 3);
		/* Recycling. */
		begin_elected(2, PROMOTE_NOTIFY);
		f.settings[0].surge = surge;
		f.settings[0].max_unavailable = !surge;
		f.settings[0].max_memory = 1;
		f.settings[0].ready = READY_STARTSECS;
		EVENT(.kind = EVENT_MEMORY, .worker = web->executor.worker,
			.id = f.workers[web->executor.worker].id, .number = 2);
		assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
		nobody_answers(100 * SEC);
		assert_one_version(1, 2);
	}
}

static int steps;

/* All of them are too large, and whoever comes after them; for a while. */
static void all_too_large(void)
{
	for (int i = 0; i < FIX_WORKERS && steps < 2000; i++)
		f.workers[i].memory_bytes = f.workers[i].used && f.workers[i].ready ? 2000 : 0;
	steps++;
}

/* Others that are due again and again do not keep the executor from its turn. */
static void test_executor_has_its_turn(void **state)
{
	int old;

	(void)state;
	begin_aging(3, 1, EXECUTOR_CANDIDATE);
	f.settings[0].max_age_ns = 0;
	f.settings[0].max_memory = 1000;
	old = web->executor.worker;
	steps = 0;
	all_too_large();
	f.now += 1 * SEC;
	EVENT(.kind = EVENT_TIMER);
	assert_int_equal(f.workers[old].stale, RECYCLE_NOT); /* the others first */
	f.now += 1 * SEC;
	on_step = all_too_large;
	settle(0);
	on_step = NULL;
	assert_true(steps < 2000);
	assert_false(f.workers[old].used); /* it was replaced, and the baton is on its way */
	assert_int_equal(web->executor.state, EXECUTOR_PROMOTING);
}

/* What is written beside max_age is what is kept: the due time follows a reload at once. */
static void test_age_is_live(void **state)
{
	(void)state;
	begin_aging(2, 1, EXECUTOR_NO);
	f.settings[0].max_age_ns = 500 * SEC;
	fix_timer(100 * SEC);
	assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
	f.settings[0].max_age_ns = 50 * SEC;
	fix_timer(1);
	assert_int_equal(web->rollout.state, ROLLOUT_RECYCLING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_age_of_the_executor),
		cmocka_unit_test(test_successor_first),
		cmocka_unit_test(test_spawned_executor),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_below_the_boot),
		cmocka_unit_test(test_the_baton_does_not_hop),
		cmocka_unit_test(test_jitter_comes_later),
		cmocka_unit_test(test_replacement_fails),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_age_is_live),
		cmocka_unit_test(test_executor_has_its_turn),
		cmocka_unit_test(test_rollout_and_recycling),
		cmocka_unit_test(test_roll),
		cmocka_unit_test(test_scale_down),
		cmocka_unit_test(test_scale_down_bounds),
		cmocka_unit_test(test_fork_fails),
		cmocka_unit_test(test_on_fatal),
		cmocka_unit_test(test_every_wait_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

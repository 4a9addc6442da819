/* New versions that come up and are no good all the same; counts set by hand; what the machine
 * lacks. */
#include "tests/unit/rollout_fixture.h"

static struct program *const web = &f.programs[0];

static void crashes(int slot)
{
	if (f.workers[slot].alive)
		fix_dies(slot, 9, 0);
	fix_worker(EVENT_GONE, slot);
}

/* --- health and watchdog -------------------------------------------------------------------- */
static bool is_first(int64_t at_ns)
{
	int64_t next = core_next_deadline(&f.core);

	return next == 0 || at_ns < next;
}

/* Boots take 12 s. Those of generation 2 come up each time, and are found unfit some time later: by
 * the probe of their health, or as they feed no watchdog. */
static void roll_unfit(bool by_health)
{
	for (int i = 0; i < 300 && web->rollout.state != ROLLOUT_IDLE; i++) {
		int starting = -1, stopping = -1, unfit = -1;

		for (int k = 0; k < FIX_WORKERS; k++) {
			const struct worker *w = &f.workers[k];

			if (w->used && w->state == WORKER_STARTING &&
				(starting < 0 || w->started_ns < f.workers[starting].started_ns))
				starting = k;
			if (w->used && w->state == WORKER_STOPPING)
				stopping = k;
			if (w->used && w->state == WORKER_RUNNING && w->generation == 2 &&
				(by_health ? w->probing : w->ready_ns + 2 * SEC <= f.now))
				unfit = k;
		}
		if (stopping >= 0) {
			crashes(stopping);
		} else if (unfit >= 0) {
			if (by_health)
				fix_worker(EVENT_PROBE_FAILED, unfit);
			else
				EVENT(.kind = EVENT_TIMER);
		} else if (starting >= 0 && is_first(f.workers[starting].started_ns + 12 * SEC)) {
			f.now = f.workers[starting].started_ns + 12 * SEC;
			fix_ready(starting);
		} else {
			fix_next();
		}
	}
}

static void test_unfit(void **state)
{
	(void)state;
	for (int by_health = 0; by_health < 2; by_health++) {
		for (int surge = 0; surge < 2; surge++) {
			begin(3, surge, !surge);
			newer_programs[0][0] = f.settings[0];
			f.settings[0].watchdog_ns = by_health ? 0 : 2 * SEC;
			f.settings[0].health = by_health;
			f.settings[0].health_interval_ns = 2 * SEC;
			f.settings[0].health_timeout_ns = 1 * SEC;
			f.settings[0].health_failures = 1;
			reload(0);
			f.settings[0].watchdog_ns = 0;
			f.settings[0].health = false;
			roll_unfit(by_health);
			assert_one_version(1, 3);
			assert_int_equal(web->rollout.outcome, ROLLOUT_FAILED);
		}
	}
}

/* One that was well is replaced at once; one that never was, at once the first time. */
static void test_unfit_backs_off(void **state)
{
	struct worker *w = &f.workers[0];

	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_NO, PROMOTE_NOTIFY);
	f.settings[0].watchdog_ns = 2 * SEC;
	fix_start(1);
	for (int time = 0; time < 4; time++) {
		settle(0);
		assert_int_equal(w->state, WORKER_RUNNING);
		fix_timer(2 * SEC);
		assert_int_equal(w->state, WORKER_STOPPING);
		ends(0);
		assert_int_equal(w->state, time == 0 ? WORKER_STARTING : WORKER_BACKOFF);
		if (time > 0)
			assert_string_equal(w->reason, "watchdog: no WATCHDOG=1 in time");
		if (time > 0)
			fix_next();
	}
	settle(0);
	for (int i = 0; i < 15; i++) { /* it feeds it for a while */
		fix_worker(EVENT_WATCHDOG, 0);
		fix_timer(1 * SEC);
	}
	fix_timer(2 * SEC);
	assert_int_equal(w->state, WORKER_STOPPING);
	ends(0);
	assert_int_equal(w->state, WORKER_STARTING);
}

/* --- executors ------------------------------------------------------------------------------ */
static void begin_candidates(int workers, enum config_executor executor)
{
	f.settings[0] = fix_program("web", workers, executor, PROMOTE_NOTIFY);
	f.settings[0].surge = executor == EXECUTOR_CANDIDATE;
	f.settings[0].max_unavailable = executor != EXECUTOR_CANDIDATE;
	fix_start(1);
	settle(0);
	fix_hold();
	elect();
}

/* Whatever of the rollout and the election is due; the executors of generation FATAL_TO die. */
static void roll_elect(uint32_t fatal_to)
{
	for (int i = 0; i < 200 && web->rollout.state != ROLLOUT_IDLE; i++) {
		struct executor *x = &web->executor;

		f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
		f.core.election.renew_ns = f.now + 10 * SEC;
		settle(0);
		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_done();
		else if (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM)
			EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
		else if (x->state == EXECUTOR_EXECUTING && !x->answered &&
			 f.workers[x->worker].generation == fatal_to)
			crashes(x->worker);
		else if (x->state == EXECUTOR_EXECUTING && !x->answered)
			fix_worker(EVENT_SAID_PROMOTED, x->worker);
		else if (web->rollout.state != ROLLOUT_IDLE)
			fix_next();
	}
}

/* A version whose executors die of their promotion is taken back. */
static void test_poison(void **state)
{
	(void)state;
	for (int workers = 1; workers < 9; workers += 3) {
		begin_candidates(workers, EXECUTOR_CANDIDATE);
		reload(0);
		roll_elect(2);
		assert_one_version(1, workers);
		assert_int_equal(web->rollout.outcome, ROLLOUT_FAILED);
	}
}

/* And one that cures it is not, though the old executors died so shortly before. */
static void test_cure(void **state)
{
	(void)state;
	begin_candidates(3, EXECUTOR_CANDIDATE);
	web->executor.short_lived = 7;
	web->rollout.executor_deaths = 7;
	reload(0);
	roll_elect(0);
	assert_one_version(2, 3);
	assert_int_equal(web->rollout.outcome, ROLLOUT_DONE);
	assert_int_equal(web->executor.state, EXECUTOR_EXECUTING);
	assert_true(web->executor.answered);
}

/* Where none ever answers nobody waits for an answer; without a deadman not for ever. */
static void test_not_awaited_for_ever(void **state)
{
	int64_t before;

	(void)state;
	begin_candidates(2, EXECUTOR_CANDIDATE);
	web->executor.answers = false;
	reload(0);
	before = f.now;
	for (int i = 0; i < 100 && web->rollout.state != ROLLOUT_IDLE; i++) {
		settle(0);
		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_done();
		if (web->executor.state == EXECUTOR_PROMOTING && web->executor.phase == PHASE_ARM)
			EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0,
				.term = web->executor.term);
	}
	assert_one_version(2, 2);
	assert_int_equal(f.now, before);
	reload(1);
	for (int i = 0; i < 100 && web->rollout.state != ROLLOUT_IDLE; i++) {
		f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
		f.core.election.renew_ns = f.now + 10 * SEC;
		settle(0);
		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_done();
		else if (web->rollout.state != ROLLOUT_IDLE)
			fix_next(); /* no deadman answers */
	}
	assert_one_version(3, 2);
	assert_in_range((f.now - before) / SEC, 10, 30);
}

/* `executor = only`, where the lock is held: standing by is not running. */
static void test_only(void **state)
{
	(void)state;
	begin_candidates(1, EXECUTOR_ONLY);
	reload(0);
	ends(first(WORKER_STOPPING, 1));
	assert_int_equal(f.workers[0].state, WORKER_STANDBY);
	assert_int_equal(web->rollout.state, ROLLOUT_CANARY);
	assert_false(pool_is_ready(&f.core, 0));
	for (int i = 0; i < 50 && web->rollout.state != ROLLOUT_IDLE; i++) {
		struct executor *x = &web->executor;

		if (f.core.election.request.op == REQUEST_PROMOTE)
			fix_done();
		else if (x->state == EXECUTOR_PROMOTING && f.workers[0].pid == 0 &&
			 f.workers[0].tree)
			fix_worker(EVENT_SPAWNED, 0);
		else if (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM)
			EVENT(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
		else if (f.workers[0].state == WORKER_STARTING && f.workers[0].generation == 2)
			crashes(0);
		else if (f.workers[0].state == WORKER_STARTING && !f.workers[0].execed)
			fix_worker(EVENT_EXECED, 0);
		else if (f.workers[0].state == WORKER_STARTING)
			fix_worker(EVENT_READY, 0);
		else if (f.workers[0].state == WORKER_STOPPING)
			ends(0);
		else
			fix_next();
	}
	assert_int_equal(web->rollout.outcome, ROLLOUT_FAILED);
	assert_one_version(1, 1);
}

/* Nobody of it runs: all stand by, and the new version is none that waits for the lock. */
static void test_from_only_at_rest(void **state)
{
	enum diff_class class = DIFF_ROLL;

	(void)state;
	f.settings[0] = fix_program("web", 1, EXECUTOR_ONLY, PROMOTE_NOTIFY);
	fix_start(1);
	fix_hold();
	assert_int_equal(f.workers[0].state, WORKER_STANDBY);
	newer_programs[0][0] = f.settings[0];
	newer_programs[0][0].executor = EXECUTOR_NO;
	newer[0] = f.config;
	newer[0].programs = newer_programs[0];
	EVENT(.kind = EVENT_RELOAD, .config = &newer[0], .classes = &class);
	assert_int_equal(first(WORKER_STARTING, 2), 0);
	settle(0);
	assert_one_version(2, 1);
	assert_int_equal(web->rollout.outcome, ROLLOUT_DONE);
}

/* Whose promotion does not come about (nothing is committed, say) is not waited for without end. */
static void test_only_without_promotion(void **state)
{
	int64_t before;

	(void)state;
	begin_candidates(1, EXECUTOR_ONLY);
	reload(0);
	ends(first(WORKER_STOPPING, 1));
	before = f.now;
	for (int i = 0; i < 100 && web->rollout.state != ROLLOUT_IDLE; i++) {
		f.core.election.hard_ns = f.core.election.soft_ns = f.now + 50 * SEC;
		f.core.election.renew_ns = f.now + 10 * SEC;
		fix_next();
	}
	assert_int_equal(web->rollout.state, ROLLOUT_IDLE);
	assert_in_range((f.now - before) / SEC, 10, 20);
}

/* A lease that is lost, and a baton that is given back, are not its version's fault. */
static void test_no_fault(void **state)
{
	(void)state;
	begin_candidates(3, EXECUTOR_CANDIDATE);
	reload(0);
	web->rollout.executor_deaths = ROLLOUT_TRIES - 1;
	fix_worker(EVENT_SAID_DEMOTED, web->executor.worker);
	assert_int_equal(web->rollout.executor_deaths, ROLLOUT_TRIES - 1);
	roll_elect(0);
	assert_one_version(2, 3);
	assert_int_equal(web->rollout.outcome, ROLLOUT_DONE);
}

/* --- counts --------------------------------------------------------------------------------- */
static void reload_count(int number, int workers, enum diff_class class)
{
	f.settings[0].workers = workers;
	newer_programs[number][0] = f.settings[0];
	newer[number] = f.config;
	newer[number].programs = newer_programs[number];
	EVENT(.kind = EVENT_RELOAD, .config = &newer[number], .classes = &class);
}

/* A number set by hand survives what does not change the file's, also a rollout taken back. */
static void test_count_by_hand(void **state)
{
	(void)state;
	begin(2, 1, 0);
	reload_count(0, 3, DIFF_ROLL);
	settle(2);
	assert_one_version(1, 3);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 6);
	settle(0);
	reload_count(1, 3, DIFF_ROLL);
	settle(3);
	assert_one_version(1, 6);
	reload_count(2, 3, DIFF_ROLL);
	settle(0);
	assert_one_version(4, 6);
	reload_count(3, 4, DIFF_LIVE);
	settle(0);
	assert_int_equal(web->count, 4);
}

/* What becomes `executor = only` has one worker, whatever was set by hand. */
static void test_count_of_only(void **state)
{
	(void)state;
	begin_candidates(1, EXECUTOR_CANDIDATE);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 3);
	settle(0);
	assert_int_equal(web->count, 3);
	f.settings[0].executor = EXECUTOR_ONLY;
	reload_count(0, 1, DIFF_ROLL);
	assert_int_equal(web->count, 1);
}

/* auto: what it comes to is followed, unless a number was set by hand. */
static void test_count_auto(void **state)
{
	(void)state;
	begin(2, 1, 0);
	web->settings = newer_programs[3];
	newer_programs[3][0] = f.settings[0];
	newer_programs[3][0].workers_auto = true;
	f.settings[0].workers_auto = true;
	reload_count(0, 4, DIFF_LIVE);
	assert_int_equal(web->count, 4);
	settle(0);
	EVENT(.kind = EVENT_SCALE, .program = 0, .number = 5);
	settle(0);
	reload_count(1, 1, DIFF_LIVE);
	assert_int_equal(web->count, 5);
	f.settings[0].workers_auto = false;
	reload_count(2, 2, DIFF_LIVE);
	assert_int_equal(web->count, 2);
}

/* --- what the machine lacks ----------------------------------------------------------------- */
static void test_no_processes(void **state)
{
	struct worker *w = &f.workers[0];

	(void)state;
	for (int linear = 0; linear < 2; linear++) {
		begin(1, 0, 1);
		f.settings[0].on_fatal = ON_END_EXIT;
		f.settings[0].restart_linear = linear;
		crashes(0);
		for (int i = 0; i < 20 && w->state != WORKER_FATAL; i++) {
			EVENT(.kind = EVENT_SPAWN_FAILED, .worker = 0, .id = w->id, .ok = true);
			if (w->state == WORKER_BACKOFF)
				fix_next();
		}
		/* As supervisord has it, who counts starts that failed whatever the reason. */
		assert_int_equal(w->state, linear ? WORKER_FATAL : WORKER_STARTING);
		assert_int_equal(
			f.core.lifecycle.state, linear ? LIFECYCLE_DOWN : LIFECYCLE_RUNNING);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unfit),
		cmocka_unit_test(test_unfit_backs_off),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_cure),
		cmocka_unit_test(test_not_awaited_for_ever),
		cmocka_unit_test(test_only),
		cmocka_unit_test(test_from_only_at_rest),
		cmocka_unit_test(test_only_without_promotion),
		cmocka_unit_test(test_no_fault),
		cmocka_unit_test(test_count_by_hand),
		cmocka_unit_test(test_count_of_only),
		cmocka_unit_test(test_count_auto),
		cmocka_unit_test(test_no_processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

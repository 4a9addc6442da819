#include "tests/unit/core_fixture.h"

static struct election *e = &f.core.election;
static struct executor *x = &f.programs[0].executor;

static void start(void)
{
	f.settings[0] = fix_program("web", 2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_start(1);
	fix_ready(0);
	fix_ready(1);
}

static void lead(void)
{
	start();
	fix_hold();
	fix_promote(0);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
}

static struct lock_view other(int64_t beat)
{
	struct lock_view v = fix_view("other", 50);

	v.epoch = 50;
	v.beat = beat;
	v.same_boot = true;
	return v;
}

static void answer(struct lock_view v)
{
	while (e->request.op == REQUEST_NONE)
		fix_next();
	fix_reply(OUTCOME_DONE, v);
}

/* epoch = max(seen + 1, floor + 1, mark + 1, now) */
static void test_epoch(void **state)
{
	static const struct {
		int64_t term, floor, cleared, wall, epoch;
	} rows[] = {{7, 0, 0, 5, 8}, {7, 20, 0, 5, 21}, {7, 20, 0, 5000, 5000}, {7, 20, 90, 5, 91},
		{7, 0, 0, (INT64_C(1) << 53) + 1, 8}};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct lock_view v;

		start();
		v = fix_view("", rows[i].term);
		v.floor_term = rows[i].floor;
		v.cleared = rows[i].cleared;
		v.wall_us = rows[i].wall;
		fix_reply(OUTCOME_DONE, v);
		assert_int_equal(e->request.op, REQUEST_ACQUIRE);
		assert_int_equal(e->request.epoch, rows[i].epoch);
	}
}

/* t0 is read before the transaction, and the margin is 2 % and the kill grace. */
static void test_deadline(void **state)
{
	int64_t t0;

	(void)state;
	start();
	fix_reply(OUTCOME_DONE, fix_view("", 7));
	t0 = f.now;
	f.now += 3 * SEC;
	fix_done();
	assert_int_equal(e->hard_ns, t0 + 60 * SEC - 1200 * MS - 2 * SEC);
	assert_int_equal(e->soft_ns, e->hard_ns - 2 * SEC);
}

static void test_stale_after_a_ttl_of_watching(void **state)
{
	int64_t since;

	(void)state;
	start();
	fix_reply(OUTCOME_DONE, other(1));
	since = f.now;
	while (e->state == ELECTION_STANDBY) {
		assert_true(f.now < since + 70 * SEC);
		answer(other(1));
	}
	assert_in_range(f.now - since, 60 * SEC, 61 * SEC);
	assert_int_equal(e->request.expect.beat, 1);
}

static void test_a_beat_begins_the_watch_anew(void **state)
{
	(void)state;
	start();
	for (int i = 0; i < 20; i++)
		answer(other(i));
	assert_int_equal(e->state, ELECTION_STANDBY);
}

/* Any late event, not only a late timer: suspended or stopped. */
static void test_late_begins_the_watch_anew(void **state)
{
	(void)state;
	start();
	fix_reply(OUTCOME_DONE, other(1));
	for (int i = 0; i < 5; i++)
		answer(other(1));
	f.now += 300 * SEC;
	EVENT(.kind = EVENT_SAID_HELLO, .worker = 0, .id = f.workers[0].id);
	answer(other(1));
	assert_int_equal(e->state, ELECTION_STANDBY);
}

/* The same row in another file is another sight. */
static void test_replaced_file_begins_the_watch_anew(void **state)
{
	struct lock_view v = {0};

	(void)state;
	start();
	for (int i = 0; i < 6; i++)
		answer(other(1));
	v = other(1);
	v.file = 2;
	f.now += 9 * SEC;
	answer(v);
	assert_int_equal(e->state, ELECTION_STANDBY);
	assert_int_equal(e->watch_since_ns, f.now);
}

static void test_proofs(void **state)
{
	static const struct {
		bool same_boot, same_machine, pid1;
		int64_t cleared;
		int64_t wait_ns; /* -1 = no proof */
	} rows[] = {
		{true, false, false, 50, 0},      /* the mark */
		{true, false, false, 49, -1},     /* a mark of before */
		{true, false, false, 51, -1},     /* of an epoch that never led */
		{true, false, true, 0, 100 * MS}, /* PID 1: its container is gone */
		{false, true, false, 0, 0},       /* reboot, and the byte is free */
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct lock_view v;
		int64_t at;

		start();
		v = other(1);
		v.same_boot = rows[i].same_boot;
		v.same_machine = rows[i].same_machine;
		v.pid1 = rows[i].pid1;
		fix_reply(OUTCOME_DONE, v);
		assert_int_equal(fix_find(ACTION_WAIT_GUARD, -1)->number, 50);
		at = f.now;
		EVENT(.kind = EVENT_GUARD_FREE, .number = 50, .cleared = rows[i].cleared);
		answer(v);
		if (rows[i].wait_ns > 0) {
			assert_int_equal(e->state, ELECTION_STANDBY);
			answer(v);
			assert_in_range(f.now - at, rows[i].wait_ns, rows[i].wait_ns + 10 * MS);
		}
		assert_int_equal(
			e->state, rows[i].wait_ns < 0 ? ELECTION_STANDBY : ELECTION_ACQUIRING);
	}
}

static void test_unknown_acquisition_that_happened(void **state)
{
	int64_t t0;

	(void)state;
	start();
	fix_reply(OUTCOME_DONE, fix_view("", 7));
	t0 = f.now;
	fix_reply(OUTCOME_UNKNOWN, (struct lock_view){0});
	assert_int_equal(e->state, ELECTION_ACQUIRING);
	while (e->request.op == REQUEST_NONE)
		fix_next();
	fix_reply(OUTCOME_DONE, fix_view("me", e->epoch));
	assert_int_equal(e->state, ELECTION_HOLDING);
	assert_int_equal(e->t0_ns, t0);
}

static struct action *fix_remark(void)
{
	for (size_t i = 0; i < f.plan.count; i++)
		if (f.plan.items[i].kind == ACTION_REPORT && f.plan.items[i].about == REPORT_LOCK)
			return &f.plan.items[i];
	return NULL;
}

/* Read-only, say: asked again, but not without end. */
static void test_refused_acquisitions_are_paced(void **state)
{
	int requests = 0, told = 0;
	int64_t begin;

	(void)state;
	start();
	begin = f.now;
	while (f.now < begin + 10 * SEC) {
		requests += e->request.op == REQUEST_ACQUIRE;
		told += fix_remark() != NULL;
		if (e->request.op == REQUEST_ACQUIRE)
			fix_reply(OUTCOME_UNAVAILABLE, (struct lock_view){0});
		else if (e->request.op == REQUEST_INSPECT)
			fix_reply(OUTCOME_DONE, fix_view("", 7));
		else
			fix_next();
	}
	assert_in_range(requests, 5, 12);
	assert_int_equal(told, 1); /* that it can be read meanwhile is no news */
	while (e->request.op != REQUEST_ACQUIRE)
		e->request.op == REQUEST_INSPECT ? fix_reply(OUTCOME_DONE, fix_view("", 7))
						 : fix_next();
	fix_reply(OUTCOME_DONE, fix_view("me", e->epoch));
	assert_string_equal(fix_remark()->reason, "available-again");
}

/* An unknown promotion happened: its term is burnt, the lease goes on. */
static void test_unknown_promotion(void **state)
{
	int64_t term;

	(void)state;
	start();
	fix_hold();
	term = e->request.new_term;
	fix_reply(OUTCOME_UNKNOWN, (struct lock_view){0});
	answer(fix_view("me", term));
	assert_int_equal(e->state, ELECTION_HOLDING);
	for (int i = 0; i < 9 && x->state != EXECUTOR_PROMOTING; i++) {
		if (e->request.op != REQUEST_NONE)
			fix_done();
		else
			fix_next();
	}
	while (e->request.op != REQUEST_PROMOTE)
		e->request.op == REQUEST_NONE ? fix_next() : fix_done();
	assert_true(e->request.new_term > term);
}

static void test_proven_loss_kills(void **state)
{
	(void)state;
	lead();
	while (e->request.op != REQUEST_RENEW)
		fix_next();
	fix_reply(OUTCOME_REFUSED, other(1));
	assert_int_equal(e->state, ELECTION_LOST);
	assert_non_null(fix_find(ACTION_PAGE_CLEAR, 0));
	assert_true(fix_find(ACTION_KILL_TREE, 0) > fix_find(ACTION_PAGE_CLEAR, 0));
	assert_int_equal(f.workers[1].state, WORKER_RUNNING);
	assert_null(fix_find(ACTION_GUARD_UNLOCK, -1));
	fix_dies(0, -1, 9);
	fix_worker(EVENT_GONE, 0);
	assert_non_null(fix_find(ACTION_GUARD_MARK, -1));
	assert_true(fix_find(ACTION_GUARD_UNLOCK, -1) > fix_find(ACTION_GUARD_MARK, -1));
}

static void test_past_deadline_never_resumes(void **state)
{
	(void)state;
	lead();
	while (e->request.op != REQUEST_RENEW)
		fix_next();
	f.now = e->hard_ns;
	fix_reply(OUTCOME_DONE, fix_view("me", e->term));
	assert_int_equal(e->state, ELECTION_LOST);
	assert_null(fix_find(ACTION_PAGE_EXTEND, -1));
}

/* Renewals fail: told while there is time, never taken for a loss before. */
static void test_failing_renewals_demote_in_time(void **state)
{
	bool told = false;

	(void)state;
	lead();
	EVENT(.kind = EVENT_SAID_PROMOTED, .worker = 0, .id = f.workers[0].id, .term = x->term);
	for (int i = 0; i < 200 && !told && e->state == ELECTION_HOLDING; i++) {
		if (e->request.op != REQUEST_NONE)
			fix_reply(OUTCOME_UNAVAILABLE, (struct lock_view){0});
		else
			fix_next();
		told = fix_find(ACTION_TELL_DEMOTE, 0) != NULL;
	}
	assert_true(told);
	assert_int_equal(e->state, ELECTION_HOLDING);
	assert_true(f.now < e->soft_ns);
	assert_int_equal(fix_find(ACTION_TELL_DEMOTE, 0)->reason_code, 2);
}

/* A shorter ttl: leases first, then the request that carries it. */
static void test_shorter_ttl(void **state)
{
	struct action *extend, *request;

	(void)state;
	lead();
	f.config.scheduler.ttl_ns = 40 * SEC;
	election_settings_changed(&f.core);
	EVENT(.kind = EVENT_TIMER);
	extend = fix_find(ACTION_PAGE_EXTEND, 0);
	request = fix_find(ACTION_REQUEST, -1);
	assert_non_null(extend);
	assert_true(request > extend);
	assert_int_equal(request->request.ttl_ns, 40 * SEC);
	assert_int_equal(extend->deadline_ns, e->t0_ns + election_lease_ns(40 * SEC, 2 * SEC));
	assert_non_null(fix_find(ACTION_ARM, 0)); /* the deadman waits for the old deadline */
}

/* One that would end the lease at once: renewed as it is first. */
static void test_much_shorter_ttl_costs_no_executor(void **state)
{
	(void)state;
	lead();
	f.config.scheduler.heartbeat_ns = 1 * SEC;
	f.now += 9 * SEC;
	f.config.scheduler.ttl_ns = 8 * SEC;
	election_settings_changed(&f.core);
	EVENT(.kind = EVENT_TIMER);
	assert_int_equal(e->request.op, REQUEST_RENEW);
	assert_int_equal(e->request.ttl_ns, 60 * SEC);
	fix_done();
	assert_int_equal(e->request.op, REQUEST_RENEW);
	assert_int_equal(e->request.ttl_ns, 8 * SEC);
	fix_done();
	assert_int_equal(e->state, ELECTION_HOLDING);
	assert_int_equal(x->state, EXECUTOR_EXECUTING);
}

/* inspect, another's acquisition, the row restored as inspected: the swap succeeds below the floor.
 */
static void test_acquisition_below_the_floor(void **state)
{
	struct lock_view v;

	(void)state;
	start();
	fix_reply(OUTCOME_DONE, fix_view("", 7));
	v = fix_view("me", e->request.epoch);
	v.floor_conflict = true;
	v.floor_term = e->request.epoch + 100;
	fix_reply(OUTCOME_DONE, v);
	assert_int_not_equal(e->state, ELECTION_HOLDING);
	assert_null(fix_find(ACTION_PAGE_SHOW, -1));
	assert_int_equal(x->state, EXECUTOR_NONE);
}

/* A [scheduler] without any candidate program: nobody else would do better. */
static void test_without_programs_it_stays(void **state)
{
	(void)state;
	start();
	x->exists = false;
	fix_hold();
	fix_timer(CORE_SECOND);
	assert_int_equal(e->candidateless_ns, 0);
}

static void test_step_down_stays_out(void **state)
{
	int64_t released;

	(void)state;
	lead();
	EVENT(.kind = EVENT_STEP_DOWN);
	EVENT(.kind = EVENT_SAID_PROMOTED, .worker = 0, .id = f.workers[0].id, .term = x->term);
	EVENT(.kind = EVENT_SAID_DEMOTED, .worker = 0, .id = f.workers[0].id, .term = x->term);
	while (e->request.op != REQUEST_RELEASE) {
		assert_int_equal(e->state, ELECTION_RELEASING);
		if (e->request.op != REQUEST_NONE)
			fix_done();
		else if (f.workers[0].state == WORKER_STOPPING && f.workers[0].alive)
			fix_dies(0, 0, 0);
		else if (f.workers[0].state == WORKER_STOPPING)
			fix_worker(EVENT_GONE, 0);
		else
			fix_next();
	}
	fix_reply(OUTCOME_DONE, fix_view("", e->term));
	released = f.now;
	while (e->state != ELECTION_ACQUIRING)
		answer(fix_view("", 5002));
	assert_true(f.now - released >= 20 * SEC);
}

static void test_when_held_exit(void **state)
{
	(void)state;
	start();
	f.config.scheduler.when_held_exit = true;
	fix_reply(OUTCOME_DONE, other(1));
	for (int i = 2; i < 5 && f.core.lifecycle.state == LIFECYCLE_RUNNING; i++)
		answer(other(i)); /* the beats of a living holder do not put it off */
	assert_int_equal(f.core.lifecycle.state, LIFECYCLE_STOPPING);
	assert_int_equal(f.core.lifecycle.exit_status, 75);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_epoch),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_stale_after_a_ttl_of_watching),
		cmocka_unit_test(test_a_beat_begins_the_watch_anew),
		cmocka_unit_test(test_late_begins_the_watch_anew),
		cmocka_unit_test(test_replaced_file_begins_the_watch_anew),
		cmocka_unit_test(test_proofs),
		cmocka_unit_test(test_unknown_acquisition_that_happened),
		cmocka_unit_test(test_refused_acquisitions_are_paced),
		cmocka_unit_test(test_unknown_promotion),
		cmocka_unit_test(test_proven_loss_kills),
		cmocka_unit_test(test_past_deadline_never_resumes),
		cmocka_unit_test(test_failing_renewals_demote_in_time),
		cmocka_unit_test(test_shorter_ttl),
		cmocka_unit_test(test_much_shorter_ttl_costs_no_executor),
		cmocka_unit_test(test_acquisition_below_the_floor),
		cmocka_unit_test(test_without_programs_it_stays),
		cmocka_unit_test(test_step_down_stays_out),
		cmocka_unit_test(test_when_held_exit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

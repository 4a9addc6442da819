/* Every (state, event) pair of the three tables: a cell acts, IGNORE changes nothing, a missing
 * cell is counted, reported, and changes nothing. */
#include "tests/unit/core_fixture.h"
#include "tests/unit/state_check.h"

/* One candidate program whose worker 0 is the executor-to-be, as if it had come to that state. */
static void prepare(enum worker_state ws, enum executor_state xs, enum election_state es)
{
	struct worker *w = &f.workers[0];
	struct executor *x;

	f.settings[0] = fix_program("web", 2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	fix_start(1);
	x = &f.programs[0].executor;
	assert_true(w->used);
	w->state = ws;
	w->tree = ws == WORKER_STARTING || ws == WORKER_RUNNING || ws == WORKER_STOPPING;
	w->alive = w->tree;
	w->pid = 100;
	w->ready = ws == WORKER_RUNNING;
	w->draining = false;
	w->term_sent = ws == WORKER_STOPPING;
	x->state = xs;
	x->worker = xs == EXECUTOR_NONE ? -1 : 0;
	x->phase = PHASE_COMMIT;
	x->term = 5;
	f.core.election.state = es;
	f.core.election.epoch = f.core.election.term = 4;
	f.core.election.ttl_ns = 60 * SEC;
	f.core.election.t0_ns = f.now;
	f.core.election.hard_ns = f.now + 50 * SEC;
	f.core.election.soft_ns = f.now + 48 * SEC;
	f.core.election.renew_ns = f.now + 10 * SEC;
	f.core.now_ns = f.now;
	f.plan.count = 0;
	f.core.plan = &f.plan;
}

static struct event an_event(void)
{
	f.answer = (struct keeper_answer){.outcome = OUTCOME_DONE, .view = fix_view("me", 4)};
	return (struct event){.kind = EVENT_KINDS,
		.worker = 0,
		.id = f.workers[0].id,
		.pid = 100,
		.program = 0,
		.term = 5,
		.number = 1,
		.reply = &f.answer};
}

static void check(bool has, uint64_t impossible, int from, int to, const char *machine,
	const char *state, const char *event)
{
	if (has && impossible != 0)
		fail_msg("%s: %s x %s is in the table and was counted", machine, state, event);
	if (!has && (impossible != 1 || from != to || f.plan.count != 1 ||
			    f.plan.items[0].about != REPORT_IMPOSSIBLE))
		fail_msg("%s: %s x %s is not in the table: counted %d, state %d -> %d, %zu actions",
			machine, state, event, (int)impossible, from, to, f.plan.count);
}

static void test_worker_table(void **state)
{
	int cells = 0;

	(void)state;
	for (int s = 0; s < WORKER_STATE_COUNT; s++) {
		for (int k = 0; k < WORKER_EVENT_COUNT; k++) {
			struct event e;
			bool has = worker_table_has((enum worker_state)s, (enum worker_event)k);

			prepare((enum worker_state)s, EXECUTOR_NONE, ELECTION_STANDBY);
			e = an_event();
			worker_handle(&f.core, &f.workers[0], (enum worker_event)k, &e);
			check(has, f.core.impossible, s, (int)f.workers[0].state, "worker",
				worker_state_name((enum worker_state)s),
				worker_event_name((enum worker_event)k));
			cells += has;
		}
	}
	assert_true(cells > 50);
}

static void test_executor_table(void **state)
{
	(void)state;
	for (int s = 0; s < EXECUTOR_STATE_COUNT; s++) {
		for (int k = 0; k < EXECUTOR_EVENT_COUNT; k++) {
			for (int phase = PHASE_STOP; phase <= PHASE_ARM; phase++) {
				struct event e;

				prepare(WORKER_RUNNING, (enum executor_state)s, ELECTION_HOLDING);
				f.programs[0].executor.phase = (enum promote_phase)phase;
				e = an_event();
				executor_handle(
					&f.core, &f.programs[0], (enum executor_event)k, &e);
				check(executor_table_has(
					      (enum executor_state)s, (enum executor_event)k),
					f.core.impossible, s, (int)f.programs[0].executor.state,
					"executor", executor_state_name((enum executor_state)s),
					executor_event_name((enum executor_event)k));
			}
		}
	}
}

static void test_election_table(void **state)
{
	(void)state;
	for (int s = 0; s < ELECTION_STATE_COUNT; s++) {
		for (int k = 0; k < ELECTION_EVENT_COUNT; k++) {
			struct event e;

			prepare(WORKER_RUNNING, EXECUTOR_NONE, (enum election_state)s);
			e = an_event();
			election_handle(&f.core, (enum election_event)k, &e);
			check(election_table_has((enum election_state)s, (enum election_event)k),
				f.core.impossible, s, (int)f.core.election.state, "election",
				election_state_name((enum election_state)s),
				election_event_name((enum election_event)k));
		}
	}
}

/* Every event of the outside, in every combination of states, through the one entry. */
static void test_every_event_everywhere(void **state)
{
	(void)state;
	for (int s = 0; s < WORKER_STATE_COUNT; s++) {
		for (int es = 0; es < ELECTION_STATE_COUNT; es++) {
			for (int k = 0; k < EVENT_KINDS; k++) {
				struct event e;

				if (k == EVENT_BOOT || k == EVENT_RELOAD)
					continue;
				prepare((enum worker_state)s, EXECUTOR_NONE,
					(enum election_state)es);
				e = an_event();
				e.kind = (enum event_kind)k;
				f.answer.id = f.core.election.request.id;
				f.answer.op = f.core.election.request.op;
				fix_event(e);
				assert_non_null(event_name((enum event_kind)k));
			}
		}
	}
}

static void test_names(void **state)
{
	(void)state;
	for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++)
		assert_non_null(lifecycle_state_name((enum lifecycle_state)s));
	for (int s = 0; s < STAGE_COUNT; s++)
		assert_non_null(stage_name((enum core_stage)s));
}

static void test_every_field_survives_an_upgrade(void **state)
{
	(void)state;
	assert_int_equal(state_check(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_worker_table),
		cmocka_unit_test(test_executor_table),
		cmocka_unit_test(test_election_table),
		cmocka_unit_test(test_every_event_everywhere),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_every_field_survives_an_upgrade),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

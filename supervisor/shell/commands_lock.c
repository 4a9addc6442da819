/* Requests about the baton and the lock: handoff, lock.release. */
#include <stdio.h>

#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/shell/commands_internal.h"

static void away(struct request *r)
{
	struct waiter *w;

	if (!election_holds(&r->s->core)) {
		request_fail(r, "refused", "this instance does not hold the lock");
		return;
	}
	request_post(r, EVENT_STEP_DOWN, -1, -1, 0);
	w = waiter_add(r->s, r->from, r->id, WAITER_AWAY, request_timeout(r));
	if (w != NULL)
		w->result = json_pack("{s:b}", "released", 1);
}

/* The program whose baton is to move: the named one, that of the named worker, or the only one. */
static bool handoff_program(struct request *r, int *ret_program, int *ret_worker)
{
	const char *program = request_text(r, "program"), *worker = request_text(r, "worker"),
		   *code;
	struct targets t = {NULL, 0};
	struct err e;
	int found = -1;

	*ret_worker = -1;
	if (worker != NULL || program != NULL) {
		if (!targets_find_one(r->s, worker != NULL ? worker : program, &t, &code, &e)) {
			request_fail(r, code, e.text);
			return false;
		}
		if (t.count > 0) { /* "all" of nothing */
			found = t.items[0].program;
			*ret_worker = t.items[0].worker;
		}
		targets_release(&t);
	}
	for (int i = 0; i < r->s->core.program_slots && found < 0; i++) {
		if (r->s->core.programs[i].used && r->s->core.programs[i].executor.exists &&
			r->s->core.programs[i].executor.worker >= 0)
			found = i;
	}
	if (found < 0 || !r->s->core.programs[found].executor.exists) {
		request_fail(
			r, "refused", "no program here is a candidate program with an executor");
		return false;
	}
	*ret_program = found;
	return true;
}

static bool handoff_possible(struct request *r, int program, int worker)
{
	const struct program *p = &r->s->core.programs[program];
	int others = 0;

	if (!election_holds(&r->s->core)) {
		request_fail(r, "refused", "this instance does not hold the lock: ask the holder");
		return false;
	}
	if (p->executor.state != EXECUTOR_EXECUTING) {
		request_fail(r, "refused", "there is no executor that could hand over right now");
		return false;
	}
	if (worker == p->executor.worker) {
		request_fail(r, "refused", "that worker is the executor already");
		return false;
	}
	for (int i = core_next_worker(&r->s->core, program, -1); i >= 0;
		i = core_next_worker(&r->s->core, program, i))
		others += i != p->executor.worker && r->s->core.workers[i].ready &&
			  (worker < 0 || worker == i);
	if (others == 0) {
		request_fail(r, "refused",
			worker >= 0
				? "that worker is not ready"
				: "no other worker is ready; `handoff --away` releases the lock");
		return false;
	}
	return true;
}

void commands_handoff(struct request *r)
{
	struct waiter *w;
	int program, worker;
	const struct executor *x;

	if (request_comes_late(r))
		return;
	if (json_is_true(json_object_get(r->json, "away"))) {
		away(r);
		return;
	}
	if (!handoff_program(r, &program, &worker) || !handoff_possible(r, program, worker))
		return;
	x = &r->s->core.programs[program].executor;
	w = waiter_add(r->s, r->from, r->id, WAITER_HANDED_OFF, request_timeout(r));
	if (w == NULL)
		return;
	waiter_set_program(r->s, w, program);
	w->term = x->term;
	snprintf(w->old_worker, sizeof w->old_worker, "%s", report_worker_name(r->s, x->worker));
	request_post(r, EVENT_HANDOFF, program, worker, 0);
}

void commands_lock_release(struct request *r)
{
	if (!r->s->config->scheduler.enabled)
		request_fail(
			r, "refused", "this configuration has no [scheduler]: there is no lock");
	else
		away(r);
}

/* Who becomes executor, and when. */
#include <stddef.h>

#include "supervisor/core/executor_internal.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/rollout_fsm.h"

/* A worker that restarts this soon is waited for rather than a healthy one stopped. */
#define COMING_NS (5 * CORE_SECOND)

/* Settled longest, lowest index; of the version that stays where there is one. */
static bool better(const struct program *p, const struct worker *a, const struct worker *b)
{
	bool a_new = rollout_prefers(p, a), b_new = rollout_prefers(p, b);

	if (a_new != b_new)
		return a_new;
	if (a->ready_ns != b->ready_ns)
		return a->ready_ns < b->ready_ns;
	return a->index < b->index;
}

/* Ready, and started with settings that let it be told (a lease page, the same way of telling). */
static bool is_eligible(const struct program *p, const struct worker *w)
{
	return worker_is_candidate(w) && w->settings->executor != EXECUTOR_NO &&
	       (p->settings->promote == PROMOTE_RESPAWN ||
		       w->settings->promote == p->settings->promote);
}

static bool is_successor(const struct core *c, int program, int slot)
{
	return slot >= 0 && slot < c->worker_slots && c->workers[slot].program == program &&
	       is_eligible(&c->programs[program], &c->workers[slot]);
}

/* AVOID only when there is no other. */
static int pick_ready(struct core *c, int program, int avoid)
{
	struct program *p = &c->programs[program];
	int best = -1, fallback = -1;

	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		if (!is_eligible(p, &c->workers[i]))
			continue;
		if (i == avoid)
			fallback = i;
		else if (best < 0 || better(p, &c->workers[i], &c->workers[best]))
			best = i;
	}
	return best >= 0 ? best : fallback;
}

/* A worker that has no process now and would be started anyway. */
static int pick_down(struct core *c, int program)
{
	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		const struct worker *w = &c->workers[i];

		if (w->remove || w->outgoing || w->parked || !worker_is_down(w) ||
			w->index >= c->programs[program].wanted)
			continue;
		if (w->state == WORKER_STOPPED || w->state == WORKER_STANDBY)
			return i;
	}
	return -1;
}

/* Respawn: a worker that is about to be started anyway becomes the executor; no healthy one is
 * stopped while such a one is on its way. */
static bool one_is_coming(struct core *c, int program)
{
	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		const struct worker *w = &c->workers[i];

		if (w->remove || w->parked)
			continue;
		if (w->state == WORKER_STOPPING && w->after == AFTER_RESTART)
			return true;
		if (w->state == WORKER_BACKOFF && w->deadline_ns - c->now_ns < COMING_NS)
			return true;
	}
	return false;
}

static void run_respawn(struct core *c, int program)
{
	struct program *p = &c->programs[program];
	int next = p->executor.next;
	int slot = next >= 0 || p->held_back ? -1 : pick_down(c, program);

	if (slot >= 0) {
		executor_begin(c, p, slot, PHASE_COMMIT);
		c->workers[slot].waits_promotion = true;
		return;
	}
	slot = next >= 0 ? next : pick_ready(c, program, p->executor.last);
	if (slot < 0 || (next < 0 && one_is_coming(c, program)))
		return;
	executor_begin(c, p, slot, PHASE_STOP);
	worker_stop(c, &c->workers[slot], AFTER_RESTART, "becomes executor");
}

static void run_one(struct core *c, int program)
{
	struct program *p = &c->programs[program];
	struct executor *x = &p->executor;
	int slot;

	if (!is_successor(c, program, x->next))
		x->next = -1; /* it went meanwhile */
	if (p->settings->executor == EXECUTOR_ONLY) {
		slot = core_find_worker(c, program, 0);
		if (slot >= 0 && c->workers[slot].state == WORKER_STANDBY)
			executor_begin(c, p, slot, PHASE_COMMIT);
		return;
	}
	if (p->settings->promote == PROMOTE_RESPAWN) {
		run_respawn(c, program);
		return;
	}
	slot = x->next >= 0 ? x->next : pick_ready(c, program, x->last);
	if (slot >= 0)
		executor_begin(c, p, slot, PHASE_COMMIT);
}

void executor_handoff(struct core *c, struct program *p, int successor)
{
	int program = core_program_slot(c, p);
	struct executor *x = &p->executor;

	if (successor < 0 && x->state == EXECUTOR_EXECUTING)
		successor = pick_ready(c, program, x->worker);
	if (x->state != EXECUTOR_EXECUTING || p->settings->executor == EXECUTOR_ONLY ||
		successor == x->worker || !is_successor(c, program, successor)) {
		core_report(c, REPORT_PROGRAM, program, successor, 0, 0,
			"no handoff: no successor is ready");
		return;
	}
	x->next = successor;
	executor_drain(c, p, DEMOTE_HANDOFF, p->settings->promote != PROMOTE_NOTIFY, "handoff");
}

void executor_run(struct core *c)
{
	if (!election_may_promote(c) || lifecycle_is_stopping(c))
		return;
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists && !p->leaving && p->wanted > 0 &&
			p->executor.state == EXECUTOR_NONE &&
			p->executor.not_before_ns <= c->now_ns)
			run_one(c, i);
	}
}

bool executor_claims_spawn(struct core *c, struct worker *w)
{
	struct program *p = &c->programs[w->program];
	struct executor *x = &p->executor;
	int slot = core_worker_slot(c, w);
	bool its_turn = x->state == EXECUTOR_NONE && election_may_promote(c) &&
			(x->next < 0 || x->next == slot);

	if (!x->exists || p->settings->promote != PROMOTE_RESPAWN ||
		p->settings->executor != EXECUTOR_CANDIDATE || lifecycle_is_stopping(c))
		return false;
	if (its_turn && x->not_before_ns > c->now_ns && x->not_before_ns - c->now_ns < COMING_NS) {
		worker_rest(c, w, WORKER_BACKOFF, "waits for its promotion");
		w->deadline_ns = x->not_before_ns;
		return true;
	}
	if (its_turn && x->not_before_ns <= c->now_ns)
		executor_begin(c, p, slot, PHASE_COMMIT);
	if (x->state != EXECUTOR_PROMOTING || x->worker != slot || x->phase != PHASE_COMMIT)
		return false;
	worker_rest(c, w, WORKER_BACKOFF, "waits for its promotion");
	w->waits_promotion = true;
	w->deadline_ns = c->now_ns + EXECUTOR_COMMIT_NS;
	return true;
}

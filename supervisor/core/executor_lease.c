/* An executor's page, its deadman, and what the election asks about executors. */
#include <stddef.h>

#include "supervisor/core/executor_internal.h"
#include "supervisor/core/lifecycle_fsm.h"

struct action *executor_push(struct core *c, struct program *p, enum action_kind kind)
{
	struct action *a = core_push(c, kind);
	struct worker *w = executor_worker(c, p);

	a->program = core_program_slot(c, p);
	a->worker = p->executor.worker;
	a->id = w != NULL ? w->id : 0;
	a->term = p->executor.term;
	return a;
}

void executor_clear_page(struct core *c, struct program *p)
{
	if (p->executor.shown) {
		executor_push(c, p, ACTION_PAGE_CLEAR);
		executor_push(c, p, ACTION_DISARM);
	}
	p->executor.shown = false;
}

void executor_arm(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;

	x->phase = PHASE_ARM;
	x->armed = false;
	x->arm_by_ns = c->now_ns + EXECUTOR_ARM_NS;
	x->deadline_ns = 0;
	executor_push(c, p, ACTION_ARM);
}

void executor_show(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;
	struct action *a = executor_push(c, p, ACTION_PAGE_SHOW);

	a->soft_ns = c->election.soft_ns;
	a->deadline_ns = c->election.hard_ns;
	x->shown = true;
}

void executor_tell(struct core *c, struct program *p)
{
	struct worker *w = executor_worker(c, p);

	if (w->settings->promote == PROMOTE_SIGNAL && !w->held)
		executor_push(c, p, ACTION_SIGNAL)->signal = w->settings->promote_signal;
	executor_push(c, p, ACTION_TELL_PROMOTE)->number = c->election.ttl_ns / CORE_MS;
	if (w->held)
		executor_push(c, p, ACTION_RELEASE_CHILD);
}

/* --- the deadman died, another one runs ------------------------------------------------------ */
void executor_armed_again(struct core *c, struct program *p, const struct event *e)
{
	(void)c;
	(void)e;
	p->executor.armed = true;
	p->executor.arm_by_ns = 0;
}

void executor_rearm(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	if (x->state == EXECUTOR_PROMOTING && x->phase != PHASE_ARM)
		return;
	if (x->state == EXECUTOR_DRAINING && !x->shown)
		return;
	executor_push(c, p, ACTION_ARM);
	if (x->arm_by_ns == 0)
		x->arm_by_ns = c->now_ns + EXECUTOR_ARM_NS;
}

void executor_unarmed(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	x->armed = false;
	if (x->shown || (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM))
		x->arm_by_ns = c->now_ns + EXECUTOR_ARM_NS;
}

/* --- for the election ---------------------------------------------------------------------- */
bool executor_all_none(const struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];

		if (p->used && p->executor.exists && p->executor.state != EXECUTOR_NONE)
			return false;
	}
	return true;
}

bool executor_any_unkillable(const struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];
		const struct worker *w;

		if (!p->used || !p->executor.exists || p->executor.state == EXECUTOR_NONE ||
			p->executor.worker < 0)
			continue;
		w = &c->workers[p->executor.worker];
		if (w->kill_sent && w->tree &&
			c->now_ns - w->kill_ns >= c->config->scheduler.kill_grace_ns)
			return true;
	}
	return false;
}

bool executor_any_possible(const struct core *c)
{
	bool any = false;

	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];

		if (!p->used || !p->executor.exists)
			continue;
		any = true;
		if (p->wanted == 0)
			continue;
		if (p->executor.state != EXECUTOR_NONE)
			return true;
		for (int j = core_next_worker(c, i, -1); j >= 0; j = core_next_worker(c, i, j)) {
			enum worker_state s = c->workers[j].state;

			if (worker_is_candidate(&c->workers[j]) || s == WORKER_STANDBY ||
				(p->settings->promote == PROMOTE_RESPAWN && s == WORKER_STARTING))
				return true;
		}
	}
	return !any; /* without any such program nobody else would do better */
}

void executor_extend_all(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];
		struct action *a;

		if (!p->used || !p->executor.exists || !p->executor.shown)
			continue;
		a = executor_push(c, p, ACTION_PAGE_EXTEND);
		a->soft_ns = c->election.soft_ns;
		a->deadline_ns = c->election.hard_ns;
	}
}

void executor_hello(struct core *c, struct worker *w)
{
	struct program *p = &c->programs[w->program];

	if (!executor_is(c, w) || !p->executor.shown)
		return;
	if (p->executor.state == EXECUTOR_EXECUTING) {
		executor_push(c, p, ACTION_TELL_PROMOTE)->number = c->election.ttl_ns / CORE_MS;
	} else if (p->executor.state == EXECUTOR_DRAINING && w->alive) {
		struct action *a = executor_push(c, p, ACTION_TELL_DEMOTE);

		a->reason_code = lifecycle_is_stopping(c) ? DEMOTE_SHUTDOWN : DEMOTE_HANDOFF;
		a->number = p->executor.deadline_ns > c->now_ns
				    ? (p->executor.deadline_ns - c->now_ns) / CORE_MS
				    : 0;
	}
}

/*
 * Recycling: a worker that is too old (max_age) or too large (max_memory) is replaced by another of
 * the same version, one worker of a program at a time, by the steps of a rollout. It waits for
 * whatever else is under way with the program; a rollout that begins meanwhile absorbs it.
 */
#include <stddef.h>

#include "supervisor/core/rollout_internal.h"
#include "supervisor/core/executor_fsm.h"

#define GREW_AT_ONCE_NS (60 * CORE_SECOND)

void rollout_born(struct core *c, struct worker *w)
{
	w->stale = RECYCLE_NOT;
	w->due_ns = 0;
	w->memory_bytes = 0;
	w->spawn_transient = false;
	w->age_share = (uint32_t)(core_random(c) >> 32); /* a reload may bring the jitter later */
}

static int64_t due_by_age_ns(const struct program *p, const struct worker *w)
{
	const struct config_program *s = p->settings;

	if (s->max_age_ns <= 0)
		return 0;
	return w->started_ns + s->max_age_ns +
	       (int64_t)((double)s->max_age_jitter_ns * ((double)w->age_share / UINT32_MAX));
}

static enum recycle_why why_due(
	const struct core *c, const struct program *p, const struct worker *w)
{
	int64_t at = due_by_age_ns(p, w);

	if (w->state != WORKER_RUNNING || !w->ready || w->remove || w->outgoing || w->parked ||
		w->index >= p->count)
		return RECYCLE_NOT;
	if (p->settings->max_memory > 0 && w->memory_bytes > p->settings->max_memory)
		return RECYCLE_MEMORY;
	return at != 0 && at <= c->now_ns ? RECYCLE_AGE : RECYCLE_NOT;
}

/* Nothing is on its way up or down, so that never two are missing or doubled; one that was given up
 * for good is no reason to keep the others from it, where the replacement comes first. */
static bool is_calm(const struct core *c, const struct program *p)
{
	int slot = core_program_slot(c, p);

	if (!p->started || p->leaving || p->rollout.recycle_after_ns > c->now_ns)
		return false;
	if (p->executor.exists &&
		(p->executor.state == EXECUTOR_PROMOTING || p->executor.state == EXECUTOR_DRAINING))
		return false;
	for (int i = core_next_worker(c, slot, -1); i >= 0; i = core_next_worker(c, slot, i)) {
		const struct worker *w = &c->workers[i];
		bool resting = w->state == WORKER_STOPPED || w->state == WORKER_STANDBY ||
			       w->state == WORKER_EXITED ||
			       (w->state == WORKER_FATAL && rollout_most_extra(p) > 0);

		if (w->remove || w->outgoing || w->index >= p->count)
			return false;
		if (!resting && !(w->state == WORKER_RUNNING && w->ready))
			return false;
		if (w->state == WORKER_STOPPED && !w->parked)
			return false;
	}
	return true;
}

/* The executor last, so that the baton goes to one that has been recycled; but those that have
 * been, and are due anew, come after it: else its turn might never come. Otherwise the oldest
 * first. */
static bool is_sooner(const struct core *c, const struct worker *a, const struct worker *b)
{
	if (executor_is(c, b))
		return a->started_ns <= b->due_ns;
	if (executor_is(c, a))
		return b->started_ns > a->due_ns;
	return a->started_ns < b->started_ns;
}

/* It took the place of one that was too large, and is so itself already. */
static bool grew_at_once(const struct core *c, const struct program *p, const struct worker *w)
{
	return p->rollout.memory_ns != 0 && w->started_ns >= p->rollout.memory_ns &&
	       c->now_ns - w->ready_ns < GREW_AT_ONCE_NS;
}

void rollout_look_idle(struct core *c, struct program *p)
{
	static const char *const reasons[] = {[RECYCLE_AGE] = "older than max_age",
		[RECYCLE_MEMORY] = "more memory than max_memory"};
	int slot = core_program_slot(c, p), best = -1;
	struct worker *w;

	if (p->settings->max_age_ns <= 0 && p->settings->max_memory <= 0)
		return;
	for (int i = core_next_worker(c, slot, -1); i >= 0; i = core_next_worker(c, slot, i)) {
		w = &c->workers[i];
		if (why_due(c, p, w) == RECYCLE_NOT)
			continue;
		w->due_ns = w->due_ns != 0 ? w->due_ns : c->now_ns;
		if (best < 0 || is_sooner(c, w, &c->workers[best]))
			best = i;
	}
	if (best < 0 || !is_calm(c, p))
		return;
	w = &c->workers[best];
	w->stale = why_due(c, p, w);
	if (w->stale == RECYCLE_MEMORY) {
		if (grew_at_once(c, p, w)) {
			w->stale = RECYCLE_NOT;
			rollout_postpone_memory(c, p, w);
			return;
		}
		p->rollout.memory_ns = c->now_ns;
	}
	core_report(c, REPORT_RECYCLE, slot, best, (int)w->stale, 0, reasons[w->stale]);
	rollout_handle(c, p, ROLLOUT_EVENT_RECYCLE);
}

/* One that is due already waits for an event, or for recycle_after_ns. */
int64_t rollout_due_ns(const struct core *c, const struct program *p, const struct worker *w)
{
	int64_t at = 0, after = p->rollout.recycle_after_ns;

	if (p->rollout.state != ROLLOUT_IDLE || w->state != WORKER_RUNNING || !p->started)
		return 0;
	if (p->settings->max_age_ns > 0)
		at = due_by_age_ns(p, w);
	if ((at != 0 || p->settings->max_memory > 0) && at <= c->now_ns)
		at = after;
	return at;
}

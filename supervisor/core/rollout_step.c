/*
 * Whose turn it is in a rollout. Two limits: at most `surge` workers beyond the wanted ones, and
 * at most `max_unavailable` of the wanted ones not serving. A worker is replaced either beside its
 * replacement, which has its index (it is `outgoing` then), or in its own slot, stopped first.
 */
#include <stddef.h>

#include "supervisor/core/rollout_internal.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/worker_fsm.h"

/* Beyond its promote_timeout, until a rollout ends without its executor. */
#define EXECUTOR_SLACK_NS (5 * CORE_SECOND)

static int next(const struct core *c, const struct program *p, int slot)
{
	return core_next_worker(c, core_program_slot(c, p), slot);
}

/* --- limits -------------------------------------------------------------------------------- */
void rollout_limits(const struct config_program *s, int count, int *ret_extra, int *ret_missing)
{
	int extra = s->surge < count ? s->surge : count;

	if (s->executor == EXECUTOR_ONLY || s->replace == REPLACE_RESTART)
		extra = 0; /* never two at once */
	*ret_extra = extra;
	*ret_missing = s->max_unavailable < 1 && extra == 0 ? 1 : s->max_unavailable;
}

int rollout_most_extra(const struct program *p)
{
	int extra, missing;

	rollout_limits(p->settings, p->count, &extra, &missing);
	return extra;
}

static int most_missing(const struct program *p)
{
	int extra, missing;

	rollout_limits(p->settings, p->count, &extra, &missing);
	return missing;
}

/* `executor = only`, where the lock is held: until when its promotion is waited for. */
static int64_t promoted_by_ns(const struct core *c, const struct worker *w)
{
	return w->since_ns + c->programs[w->program].settings->promote_timeout_ns +
	       EXECUTOR_SLACK_NS;
}

/* Serving, or resting for a reason that the rollout does not change. */
bool rollout_is_available(const struct core *c, const struct worker *w)
{
	switch (w->state) {
	case WORKER_RUNNING:
		return w->ready;
	case WORKER_STANDBY:
		return worker_is_elsewhere(c, w) || c->now_ns >= promoted_by_ns(c, w);
	case WORKER_EXITED:
	case WORKER_STOPPED:
		return true;
	default:
		return false;
	}
}

/* May one that is (AVAILABLE) serving be stopped, with MOST missing at most? */
static bool may_stop(const struct core *c, const struct program *p, bool available, int most)
{
	int serving = 0;

	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i))
		serving += !c->workers[i].remove && (rollout_is_available(c, &c->workers[i]) ||
							    c->workers[i].state == WORKER_STANDBY);
	return !available || serving - 1 >= p->count - most;
}

static int count_outgoing(const struct core *c, const struct program *p)
{
	int count = 0;

	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i))
		count += c->workers[i].outgoing;
	return count;
}

/* --- workers ------------------------------------------------------------------------------- */
static bool is_old(const struct program *p, const struct worker *w)
{
	bool stale = p->rollout.state == ROLLOUT_RECYCLING && w->stale != RECYCLE_NOT;

	return !w->remove && (w->generation != p->generation || stale);
}

/* Why one of them goes, for people. */
static const char *why_it_goes(const struct worker *w)
{
	return w->stale == RECYCLE_AGE      ? "recycled: older than max_age"
	       : w->stale == RECYCLE_MEMORY ? "recycled: more memory than max_memory"
					    : "replaced by another version";
}

/* Its replacement is on trial: alone, and before any other. */
static bool is_trial(const struct program *p)
{
	return p->rollout.state == ROLLOUT_CANARY || p->rollout.state == ROLLOUT_RECYCLING;
}

/* Down, and its own version does not help it up: it may have the new one at no cost. */
static bool is_broken(const struct worker *w)
{
	return w->state == WORKER_FATAL || w->state == WORKER_EXITED ||
	       (w->state == WORKER_BACKOFF && !w->waits_promotion);
}

/* Of a version that was `executor = only`, and the new one is not: it need not wait for the lock.
 */
static bool is_idle(const struct program *p, const struct worker *w)
{
	return w->state == WORKER_STANDBY && p->settings->executor != EXECUTOR_ONLY;
}

static bool is_back(const struct program *p)
{
	return p->rollout.state == ROLLOUT_BACK || p->rollout.state == ROLLOUT_HALF;
}

int rollout_tries(const struct program *p, const struct worker *w)
{
	if (p->rollout.state == ROLLOUT_IDLE || w->generation != p->generation)
		return 0;
	if (is_back(p) || w->spawn_transient) /* what ran before gets its retries */
		return ROLLOUT_SPAWN_TRIES;
	return w->late ? 1 : ROLLOUT_TRIES;
}

bool rollout_is_failing(const struct program *p, const struct worker *w)
{
	int tries = rollout_tries(p, w);

	if (w->remove || w->parked || w->generation != p->generation)
		return false;
	if (w->state == WORKER_FATAL)
		return true;
	if (w->state != WORKER_BACKOFF || w->waits_promotion)
		return false;
	return (tries > 0 && w->failures >= tries) || (!is_back(p) && w->repeats > 1);
}

int rollout_find_failing(const struct core *c, const struct program *p)
{
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		if (rollout_is_failing(p, &c->workers[i]))
			return i;
	}
	return -1;
}

bool rollout_has_come(const struct core *c, const struct program *p, const struct worker *w)
{
	return !w->remove && w->generation == p->generation && rollout_is_available(c, w) &&
	       w->state != WORKER_STOPPED;
}

bool rollout_is_complete(const struct core *c, const struct program *p)
{
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		const struct worker *w = &c->workers[i];

		if (w->outgoing || (!w->remove && !rollout_is_available(c, w)) ||
			(is_old(p, w) && w->tree))
			return false;
	}
	return true;
}

static bool has_candidate(const struct core *c, const struct program *p)
{
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		if (worker_is_candidate(&c->workers[i]))
			return true;
	}
	return p->executor.state != EXECUTOR_NONE;
}

/* A new version that dies of its promotion has not come. Where executors answer it is awaited that
 * this one does, else that it is told. */
bool rollout_awaits_executor(const struct core *c, const struct program *p)
{
	const struct executor *x = &p->executor;
	bool told = x->state == EXECUTOR_EXECUTING && (x->answered || !x->answers);

	return p->rollout.state == ROLLOUT_ROLLING && x->exists && !told && p->wanted > 0 &&
	       p->settings->executor != EXECUTOR_NO && election_may_promote(c) &&
	       has_candidate(c, p) && rollout_executor_by_ns(p) > c->now_ns;
}

/* The deadman may be missing, and much else: not for ever. */
int64_t rollout_executor_by_ns(const struct program *p)
{
	return p->rollout.complete_ns + p->settings->promote_timeout_ns + EXECUTOR_SLACK_NS;
}

void rollout_progress(const struct core *c, int program, int *ret_done, int *ret_total)
{
	const struct program *p = &c->programs[program];

	*ret_done = 0;
	*ret_total = p->rollout.state == ROLLOUT_RECYCLING;
	if (*ret_total == 1)
		return;
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		const struct worker *w = &c->workers[i];

		if (w->remove || w->outgoing)
			continue;
		++*ret_total;
		*ret_done += rollout_has_come(c, p, w);
	}
}

/* The executor goes last: when no other old one is left, and (STOPPING) somebody new is ready. */
static bool is_turn(
	const struct core *c, const struct program *p, const struct worker *w, bool stopping)
{
	bool successor = p->count < 2;

	/* One with its replacement beside it has a successor: it waits for nobody. */
	if (!executor_is(c, w) || w->outgoing)
		return true;
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		const struct worker *o = &c->workers[i];

		if (o == w || o->remove)
			continue;
		if (is_old(p, o) && o->tree)
			return false;
		successor = successor || (worker_is_candidate(o) && !is_old(p, o));
	}
	/* As the only live one (the others are parked, say) it is its own successor. */
	if (!successor) {
		successor = true;
		for (int i = next(c, p, -1); i >= 0 && successor; i = next(c, p, i))
			successor = &c->workers[i] == w || !c->workers[i].tree;
	}
	return !stopping || successor;
}

/* --- replacing ----------------------------------------------------------------------------- */
static int start_beside(struct core *c, struct program *p, int slot)
{
	int beside = pool_add_worker(c, core_program_slot(c, p), c->workers[slot].index);

	c->workers[slot].outgoing = true;
	c->workers[slot].stop_at_ns = 0;
	c->workers[beside].canary = is_trial(p);
	worker_start(c, &c->workers[beside]); /* dependencies: they were there for the old one */
	return beside;
}

static void replace_in_place(struct core *c, struct program *p, struct worker *w)
{
	w->canary = is_trial(p);
	w->failures = w->repeats = 0;
	if (is_broken(w))
		worker_start(c, w);
	else
		worker_stop(c, w, AFTER_RESTART, why_it_goes(w));
}

/* An executor that is started as such cannot have its successor beside it. */
static bool needs_own_slot(const struct core *c, const struct program *p, const struct worker *w)
{
	return rollout_most_extra(p) == 0 ||
	       (executor_is(c, w) && (p->settings->promote == PROMOTE_RESPAWN ||
					     w->settings->promote == PROMOTE_RESPAWN ||
					     w->settings->executor == EXECUTOR_ONLY));
}

/* Replace W now if the limits allow it; the slot of its replacement, or -1. */
static int replace(struct core *c, struct program *p, int slot)
{
	struct worker *w = &c->workers[slot];
	int most = most_missing(p);
	bool own = needs_own_slot(c, p, w);

	if (is_broken(w) || is_idle(p, w)) {
		replace_in_place(c, p, w);
		return slot;
	}
	if (!own && w->state == WORKER_RUNNING && is_turn(c, p, w, false) &&
		count_outgoing(c, p) < rollout_most_extra(p))
		return start_beside(c, p, slot);
	if (own && most < 1)
		most = 1;
	if ((w->state == WORKER_RUNNING || w->state == WORKER_STARTING) &&
		(most > 0 || w->state == WORKER_STARTING) && is_turn(c, p, w, true) &&
		may_stop(c, p, rollout_is_available(c, w), most)) {
		replace_in_place(c, p, w);
		return slot;
	}
	return -1;
}

/* Its replacement is ready: after stop_delay it goes. One that died meanwhile goes at once. */
static void dismiss(struct core *c, struct program *p, struct worker *w)
{
	int slot = core_find_worker(c, core_program_slot(c, p), w->index);
	bool dead = w->state != WORKER_RUNNING && w->state != WORKER_STARTING;

	if (!dead && (slot < 0 || !rollout_is_available(c, &c->workers[slot]) ||
			     c->workers[slot].state == WORKER_STOPPED))
		return;
	if (!dead && w->stop_at_ns == 0)
		w->stop_at_ns = c->now_ns + p->settings->stop_delay_ns;
	if (!dead && (w->stop_at_ns > c->now_ns || !is_turn(c, p, w, true)))
		return;
	/* Recycling: with its replacement there nothing is missing that was not missing before. */
	if (!dead && p->rollout.state != ROLLOUT_RECYCLING &&
		!may_stop(c, p, rollout_is_available(c, w), p->settings->max_unavailable))
		return;
	w->remove = true;
	w->stop_at_ns = 0;
	/* Else the baton would go to the one that has been there longest: the next to be recycled.
	 */
	if (!dead && p->rollout.state == ROLLOUT_RECYCLING && executor_is(c, w))
		p->executor.next = slot;
	worker_stop(c, w, AFTER_STOPPED, why_it_goes(w));
}

void rollout_dismiss(struct core *c, struct program *p)
{
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		if (c->workers[i].outgoing && !c->workers[i].remove)
			dismiss(c, p, &c->workers[i]);
	}
}

void rollout_step(struct core *c, struct program *p)
{
	rollout_dismiss(c, p);
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		if (is_old(p, &c->workers[i]) && !c->workers[i].outgoing &&
			c->workers[i].index < p->count)
			(void)replace(c, p, i);
	}
}

/* --- canary -------------------------------------------------------------------------------- */
int rollout_find_canary(const struct core *c, const struct program *p)
{
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		const struct worker *w = &c->workers[i];

		if (w->canary && !w->remove && !w->parked)
			return i;
	}
	return -1;
}

/* One that is down for its failures costs nothing; else the first that is not executor. */
int rollout_begin_canary(struct core *c, struct program *p)
{
	int best = -1;

	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		const struct worker *w = &c->workers[i], *b = best >= 0 ? &c->workers[best] : NULL;
		bool up = w->state == WORKER_RUNNING || w->state == WORKER_STARTING;

		if (!is_old(p, w) || w->outgoing || w->parked || w->index >= p->count ||
			(!up && !is_broken(w) && !is_idle(p, w)))
			continue;
		if (b == NULL || (is_broken(w) && !is_broken(b)) ||
			(executor_is(c, b) && !executor_is(c, w) && !is_broken(b)))
			best = i;
	}
	if (best >= 0 && c->workers[best].state == WORKER_STARTING && rollout_most_extra(p) > 0)
		return -1; /* it comes up or fails first */
	return best >= 0 ? replace(c, p, best) : -1;
}

/* --- pairs --------------------------------------------------------------------------------- */
void rollout_unpair(struct core *c, struct program *p)
{
	int slot = core_program_slot(c, p);

	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		struct worker *w = &c->workers[i];
		int beside;

		w->canary = false;
		w->stale = RECYCLE_NOT;
		if (!w->outgoing || w->remove)
			continue;
		beside = core_find_worker(c, slot, w->index);
		/* Both serve, and both are needed for now: dismissed later, as any other. */
		if (beside >= 0 && rollout_is_available(c, &c->workers[beside]) &&
			!may_stop(c, p, true, p->settings->max_unavailable))
			continue;
		w->outgoing = false;
		w->stop_at_ns = 0;
		if (beside < 0)
			continue;
		c->workers[beside].remove = true;
		c->workers[beside].outgoing = true; /* it counts as one too many until it is gone */
		worker_stop(c, &c->workers[beside], AFTER_STOPPED, "its version is not wanted");
	}
}

bool rollout_has_elder(const struct core *c, const struct worker *w)
{
	for (int i = core_next_worker(c, w->program, -1); i >= 0;
		i = core_next_worker(c, w->program, i)) {
		const struct worker *o = &c->workers[i];

		if (o != w && o->outgoing && !o->remove && o->index == w->index)
			return true;
	}
	return false;
}

void rollout_drop_outgoing(struct core *c, struct program *p)
{
	for (int i = next(c, p, -1); i >= 0; i = next(c, p, i)) {
		struct worker *w = &c->workers[i];

		if (!w->outgoing || w->remove)
			continue;
		w->remove = true;
		if (!lifecycle_is_stopping(c)) /* else it has its turn by level */
			worker_stop(c, w, AFTER_STOPPED, "replaced by another version");
	}
}

int64_t rollout_deadline(const struct core *c)
{
	int64_t first = 0;

	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];
		int64_t at = p->used && p->rollout.complete_ns != 0 ? rollout_executor_by_ns(p) : 0;

		if (at > c->now_ns && (first == 0 || at < first))
			first = at;
	}
	for (int i = 0; i < c->worker_slots; i++) {
		const struct worker *w = &c->workers[i];
		int64_t at = w->stop_at_ns;

		if (!w->used || w->remove)
			continue;
		if (w->state == WORKER_STANDBY && rollout_is_active(&c->programs[w->program]))
			at = promoted_by_ns(c, w);
		else if (!w->outgoing)
			at = rollout_due_ns(c, &c->programs[w->program], w);
		if (at > c->now_ns && (first == 0 || at < first))
			first = at;
	}
	return first;
}

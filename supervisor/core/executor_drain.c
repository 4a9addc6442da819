/* The end of an executor's turn: demotion, its answer, the time it gets. */
#include <stddef.h>

#include "supervisor/core/executor_internal.h"
#include "supervisor/core/backoff.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"

/* An executor that ends this soon after its promotion counts for the promotion backoff. */
#define SHORT_LIVED_NS (10 * CORE_SECOND)
#define PROMOTE_MAX_NS (60 * CORE_SECOND)
#define QUICK_DRAIN_NS (1 * CORE_SECOND)
#define GONE_NS        (30 * CORE_SECOND)
#define RETRY_NS       (1 * CORE_SECOND)

static int64_t drain_ns(const struct core *c, const struct program *p, int reason)
{
	int64_t grace = p->settings->handoff_timeout_ns;

	if (reason == DEMOTE_LOST) /* what the lease still allows, less the kill margin */
		grace = c->election.soft_ns > c->now_ns ? c->election.soft_ns - c->now_ns : 0;
	if (c->lifecycle.mode >= SHUTDOWN_QUICK && grace > QUICK_DRAIN_NS)
		grace = QUICK_DRAIN_NS;
	return grace;
}

/* The worker no longer executes (demoted), or has had its time (not demoted). */
void executor_finish_drain(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;
	struct worker *w = executor_worker(c, p);
	bool was_demoted = x->demoted, stop = x->stop_after;
	int slot = x->worker;

	x->deadline_ns = c->now_ns + GONE_NS;
	x->arm_by_ns = 0;
	x->drained = true;
	if (was_demoted) {
		executor_clear_page(c, p);
		executor_enter(c, p, EXECUTOR_NONE, "demoted");
		p->executor.last = slot;
	}
	if (w->draining)
		worker_handle(c, w, WORKER_EVENT_DRAINED, NULL);
	else if ((stop || !was_demoted) && w->state != WORKER_STOPPING)
		worker_stop(c, w, AFTER_RESTART, "gives up the baton");
}

void executor_do_drain(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = executor_worker(c, p);
	int reason = (int)e->number;
	int64_t grace = drain_ns(c, p, reason);
	struct action *a;

	executor_hook(c, p, HOOK_DEMOTE);
	executor_enter(c, p, EXECUTOR_DRAINING, x->reason);
	x->stop_after = e->ok;
	x->demoted = x->drained = false;
	x->deadline_ns = c->now_ns + grace + 1;
	if (w->settings->promote == PROMOTE_RESPAWN || w->settings->executor == EXECUTOR_ONLY ||
		(x->stop_after && !x->answered && w->settings->promote == PROMOTE_NOTIFY)) {
		/* It knows nothing of demotion (or has never answered): its end is the demotion. */
		x->stop_after = true;
		executor_finish_drain(c, p);
		return;
	}
	a = executor_push(c, p, ACTION_TELL_DEMOTE);
	a->reason_code = reason;
	a->number = grace / CORE_MS;
	if (w->settings->promote == PROMOTE_SIGNAL) {
		x->stop_after = true;
		executor_push(c, p, ACTION_SIGNAL)->signal = w->settings->demote_signal;
		if (!w->draining) { /* it is expected to exit: that is a stop, not a crash */
			worker_stop(c, w, AFTER_RESTART, "gives up the baton");
		}
	}
}

/* Asked again while draining: only ever sooner, and stop wins. */
void executor_drain_more(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	int64_t by = c->now_ns + drain_ns(c, p, (int)e->number) + 1;

	x->stop_after = x->stop_after || e->ok;
	if (x->deadline_ns != 0 && by < x->deadline_ns)
		x->deadline_ns = by;
}

void executor_drain_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	executor_abandon(c, p, RETRY_NS, "drained before it was told");
}

void executor_drain(struct core *c, struct program *p, int reason, bool stop, const char *why)
{
	struct event e = {.kind = EVENT_KINDS, .worker = -1, .number = reason, .ok = stop};

	p->executor.reason = why;
	executor_handle(c, p, EXECUTOR_EVENT_DRAIN, &e);
}

void executor_demoted(struct core *c, struct program *p, const struct event *e)
{
	struct worker *w = executor_worker(c, p);

	(void)e;
	if (w->term_sent || w->kill_sent || !w->alive)
		return; /* too late: its end is awaited */
	p->executor.demoted = true;
	if (p->executor.busy == 0)
		executor_finish_drain(c, p);
}

/* Executors that end soon after their promotion: the next one waits. */
void executor_count_life(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;

	x->short_lived = c->now_ns - x->promoted_ns < SHORT_LIVED_NS ? x->short_lived + 1 : 0;
	x->not_before_ns = c->now_ns;
	if (x->short_lived > 1)
		x->not_before_ns += backoff_doubling(c->config->scheduler.promote_backoff_ns,
			PROMOTE_MAX_NS, x->short_lived - 1, 0);
}

/* `demoted` without being asked: it gives the baton back. */
void executor_demoted_itself(struct core *c, struct program *p, const struct event *e)
{
	int slot = p->executor.worker;

	(void)e;
	if (executor_worker(c, p)->executor_env == 1) { /* it runs as nothing but the executor */
		executor_drain(c, p, DEMOTE_HANDOFF, true, "gave the baton back");
		return;
	}
	executor_hook(c, p, HOOK_DEMOTE);
	executor_clear_page(c, p);
	executor_count_life(c, p);
	if (p->executor.not_before_ns < c->now_ns + RETRY_NS)
		p->executor.not_before_ns = c->now_ns + RETRY_NS;
	executor_enter(c, p, EXECUTOR_NONE, "gave the baton back");
	p->executor.last = slot;
}

void executor_busy_draining(struct core *c, struct program *p, const struct event *e)
{
	p->executor.busy = e->number;
	if (e->number == 0 && p->executor.demoted)
		executor_finish_drain(c, p);
}

/* A worker's end: what its exit means and what follows when its tree is gone. */
#include <stddef.h>

#include "supervisor/core/worker_internal.h"
#include "supervisor/core/backoff.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/rollout_fsm.h"

/* A worker that was ready this long before it ended was healthy: its next start is not delayed. */
#define HEALTHY_NS (10 * CORE_SECOND)

/* It was ready and ends unasked; WELL: as far as it was known. At once again, and later when that
 * happens over and over. */
static enum worker_after after_ready(const struct core *c, struct worker *w, bool well)
{
	w->repeats = well && c->now_ns - w->ready_ns >= HEALTHY_NS ? 0 : w->repeats + 1;
	if (w->repeats > 1 && !w->settings->restart_linear)
		return AFTER_BACKOFF;
	return AFTER_RESTART;
}

void worker_unfit(struct core *c, struct worker *w)
{
	if (!w->well)
		rollout_judge(c, worker_program(c, w), w, false);
	w->after = after_ready(c, w, w->well);
}

/* The exit decides what follows when the rest of the tree is gone. */
static enum worker_after after_exit(struct core *c, struct worker *w, bool was_ready)
{
	const struct config_program *s = w->settings;
	bool expected = false;

	if (!was_ready) {
		w->failures++;
		/* What the machine lacks for a while (processes, descriptors) is not the program's
		 * fault: it is tried again until it is there. */
		if (w->spawn_failed && w->spawn_transient && !s->restart_linear)
			return AFTER_BACKOFF;
		if (s->startretries >= 0 && w->failures > s->startretries)
			return AFTER_FATAL;
		return AFTER_BACKOFF;
	}
	for (size_t i = 0; i < s->exitcode_count && w->exit_signal == 0; i++)
		expected = expected || s->exitcodes[i] == w->exit_code;
	if (s->autorestart == AUTORESTART_NO ||
		(s->autorestart == AUTORESTART_UNEXPECTED && expected))
		return AFTER_EXITED;
	return after_ready(c, w, true);
}

static void record_exit(struct worker *w, const struct event *e)
{
	w->alive = false;
	w->exit_code = e->code;
	w->exit_signal = e->signal;
	w->exit_oom = e->oom;
}

static void collect(struct core *c, struct worker *w)
{
	struct action *a = core_push(c, ACTION_COLLECT);

	a->worker = core_worker_slot(c, w);
	a->id = w->id;
	a->tree = w->settings->kill_tree || w->settings->executor != EXECUTOR_NO;
	/* Asked to stop: the rest of the tree gets the same signal and the rest of the time. */
	a->signal = w->term_sent && !w->kill_sent ? w->settings->stopsignal : 9;
	if (a->tree && a->signal == 9 && !w->kill_sent) { /* from now on its end is due */
		w->kill_sent = true;
		w->kill_ns = c->now_ns;
	}
}

void worker_died(struct core *c, struct worker *w, const struct event *e)
{
	bool was_ready = w->state == WORKER_RUNNING;
	struct program *p = worker_program(c, w);

	record_exit(w, e);
	w->after = after_exit(c, w, was_ready);
	worker_enter(c, w, WORKER_STOPPING,
		was_ready && w->after != AFTER_BACKOFF ? "exited" : "exited too quickly");
	w->deadline_ns = c->now_ns + WORKER_REKILL_NS;
	if (executor_is(c, w))
		executor_handle(c, p, EXECUTOR_EVENT_DIED, e);
	collect(c, w);
}

void worker_died_stopping(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = worker_program(c, w);

	record_exit(w, e);
	if (w->deadline_ns == 0)
		w->deadline_ns = c->now_ns + WORKER_REKILL_NS;
	if (executor_is(c, w))
		executor_handle(c, p, EXECUTOR_EVENT_DIED, e);
	collect(c, w);
}

void worker_spawn_failed(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = worker_program(c, w);

	w->spawn_failed = true;
	w->spawn_transient = e->ok;
	w->exit_code = -1;
	if (!w->alive) { /* nothing was forked */
		w->after = after_exit(c, w, false);
		worker_enter(c, w, WORKER_STOPPING, "cannot start");
		w->tree = false;
		if (executor_is(c, w))
			executor_handle(c, p, EXECUTOR_EVENT_DIED, e);
		worker_handle(c, w, WORKER_EVENT_GONE, e);
		return;
	}
	/* forked, exec failed: DIED follows from the reaper */
	w->reason = "cannot start";
}

void worker_spawn_failed_stopping(struct core *c, struct worker *w, const struct event *e)
{
	w->spawn_failed = true;
	if (!w->alive)
		worker_handle(c, w, WORKER_EVENT_GONE, e);
}

static void enter_backoff(struct core *c, struct worker *w)
{
	const struct config_program *s = w->settings;
	int n = w->failures > 0 ? w->failures : w->repeats - 1;
	int64_t delay;

	if (s->restart_linear)
		delay = backoff_linear(s->restart_backoff_ns, n);
	else
		delay = backoff_doubling(s->restart_backoff_ns, s->restart_backoff_max_ns, n,
			s->restart_jitter ? core_random(c) : 0);
	worker_enter(c, w, WORKER_BACKOFF,
		w->late            ? "not ready in time"
		: w->spawn_failed  ? "cannot start"
		: w->failures == 0 ? w->reason
				   : "exited too quickly");
	w->deadline_ns = c->now_ns + (delay > 0 ? delay : 1);
}

static void come_to_rest(struct core *c, struct worker *w)
{
	struct program *p = worker_program(c, w);

	switch (w->after) {
	case AFTER_STOPPED:
		worker_enter(c, w, WORKER_STOPPED, w->reason);
		break;
	case AFTER_RESTART:
		w->restarts++;
		worker_begin(c, w);
		break;
	case AFTER_BACKOFF:
		w->restarts++;
		enter_backoff(c, w);
		break;
	case AFTER_EXITED:
		worker_enter(c, w, WORKER_EXITED, w->reason);
		if (p->settings->on_exit == ON_END_EXIT)
			lifecycle_shutdown(
				c, SHUTDOWN_GRACEFUL, 0, "a program with on_exit = exit ended");
		break;
	case AFTER_FATAL:
		worker_enter(c, w, WORKER_FATAL,
			w->late           ? "not ready in time, too often"
			: w->spawn_failed ? "cannot start"
					  : "exited too quickly, too often");
		if (p->settings->fatal_retry_ns > 0)
			w->deadline_ns = c->now_ns + p->settings->fatal_retry_ns;
		if (p->settings->on_fatal == ON_END_EXIT && !rollout_shields(c, w))
			lifecycle_shutdown(
				c, SHUTDOWN_GRACEFUL, 70, "a program with on_fatal = exit failed");
		break;
	}
}

void worker_gone(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = worker_program(c, w);

	w->tree = w->alive = w->held = w->draining = false;
	w->pid = 0;
	w->deadline_ns = 0;
	w->ended = (struct worker_end){
		.late = w->late, .spawn_failed = w->spawn_failed, .failures = w->failures};
	if (lifecycle_is_stopping(c))
		w->after = AFTER_STOPPED;
	if (executor_is(c, w) && p->executor.state == EXECUTOR_PROMOTING &&
		(w->after != AFTER_RESTART || w->remove))
		executor_withdraw(c, w);
	else if (executor_is(c, w))
		executor_handle(c, p, EXECUTOR_EVENT_GONE, e);
	if (w->remove) {
		worker_enter(c, w, WORKER_STOPPED, "removed");
		w->used = false;
		return;
	}
	come_to_rest(c, w);
}

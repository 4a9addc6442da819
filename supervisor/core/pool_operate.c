/* What operators ask of a program's workers, and the stop of all of them. */
#include "supervisor/core/pool.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/core/worker_fsm.h"

/* --- operators ----------------------------------------------------------------------------- */
static void wake(struct core *c, struct worker *w)
{
	w->parked = false;
	w->failures = w->repeats = 0;
	if (w->state == WORKER_EXITED || w->state == WORKER_FATAL || w->state == WORKER_BACKOFF ||
		w->state == WORKER_STOPPING)
		worker_start(c, w);
}

void pool_start(struct core *c, int program, int worker)
{
	struct program *p = &c->programs[program];

	p->dirty = true;
	if (!p->started) {
		p->started = true;
		if (worker >= 0) { /* just this one */
			for (int i = core_next_worker(c, program, -1); i >= 0;
				i = core_next_worker(c, program, i))
				c->workers[i].parked = i != worker;
		}
	}
	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		if ((worker < 0 || i == worker) && !c->workers[i].outgoing)
			wake(c, &c->workers[i]);
	}
}

void pool_stop(struct core *c, int program, int worker)
{
	struct program *p = &c->programs[program];

	p->dirty = true;
	if (worker < 0) {
		p->started = false;
		rollout_handle(c, p, ROLLOUT_EVENT_CANCEL);
		return;
	}
	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		struct worker *w = &c->workers[i]; /* what is on its way out beside it */

		if (w->outgoing && !w->remove && w->index == c->workers[worker].index) {
			w->remove = true;
			worker_stop(c, w, AFTER_STOPPED, "stopped by an operator");
		}
	}
	if (!c->workers[worker].used || c->workers[worker].remove)
		return; /* it was that one */
	c->workers[worker].parked = true;
	worker_stop(c, &c->workers[worker], AFTER_STOPPED, "stopped by an operator");
}

static void restart_one(struct core *c, struct worker *w)
{
	w->parked = false;
	w->failures = w->repeats = 0;
	if (w->state == WORKER_RUNNING || w->state == WORKER_STARTING)
		worker_stop(c, w, AFTER_RESTART, "restarted by an operator");
	else
		wake(c, w);
}

void pool_restart(struct core *c, int program, int worker)
{
	struct program *p = &c->programs[program];

	if (!p->started) {
		pool_start(c, program, worker);
		return;
	}
	p->dirty = true;
	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		if ((worker < 0 || i == worker) && !c->workers[i].outgoing)
			restart_one(c, &c->workers[i]);
	}
}

void pool_roll(struct core *c, int program)
{
	struct program *p = &c->programs[program];

	p->dirty = true;
	if (p->leaving)
		return;
	if (p->started)
		rollout_aim(c, p, p->config, p->settings, p->position, p->count);
	else
		pool_start(c, program, -1);
}

void pool_scale(struct core *c, int program, int count)
{
	struct program *p = &c->programs[program];

	p->count = count < 0 ? 0 : count;
	if (p->settings->executor == EXECUTOR_ONLY && p->count > 1)
		p->count = 1;
	p->dirty = true;
}

/* --- stopping ------------------------------------------------------------------------------ */
bool pool_all_down(const struct core *c)
{
	for (int i = 0; i < c->worker_slots; i++) {
		if (c->workers[i].used && c->workers[i].tree)
			return false;
	}
	return true;
}

void pool_stop_levels(struct core *c)
{
	int level = -1;

	for (int i = 0; i < c->worker_slots; i++) {
		const struct worker *w = &c->workers[i];

		if (w->used && w->tree && c->programs[w->program].settings->level > level)
			level = c->programs[w->program].settings->level;
	}
	c->lifecycle.stop_level = level;
	for (int i = 0; i < c->worker_slots; i++) {
		struct worker *w = &c->workers[i];
		bool now = w->used &&
			   (c->programs[w->program].settings->level >= level || executor_is(c, w));

		if (now && (w->state == WORKER_RUNNING || w->state == WORKER_STARTING))
			worker_stop(c, w, AFTER_STOPPED, "the supervisor stops");
	}
}

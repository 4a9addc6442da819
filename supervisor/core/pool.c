#include <assert.h>
#include <string.h>

#include "supervisor/core/pool.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/core/worker_fsm.h"

/* The first worker of a `respawn` program waits this long for the first election, so that it can be
 * started as the executor instead of being replaced by one. */
#define FIRST_ELECTION_NS (2 * CORE_SECOND)

static int next(const struct core *c, int program, int slot)
{
	return core_next_worker(c, program, slot);
}

void pool_touch_all(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++)
		c->programs[i].dirty = true;
}

/* --- configuration ------------------------------------------------------------------------- */
static int free_program(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		if (!c->programs[i].used)
			return i;
	}
	assert(!"the shell makes room before");
	return -1;
}

static void init_program(
	struct core *c, struct program *p, const struct config *config, int position)
{
	const struct config_program *s = &config->programs[position];

	(void)c;
	memset(p, 0, sizeof *p);
	p->used = true;
	p->config = config;
	p->settings = s;
	p->position = position;
	p->generation = p->rollout.newest = 1;
	p->count = p->file_count = s->workers;
	p->started = s->autostart;
	p->dirty = true;
	p->executor.exists = s->executor != EXECUTOR_NO;
	p->executor.worker = p->executor.next = p->executor.last = -1;
}

/* A number set by hand stays unless the file's own one changed. What `auto` comes to may change
 * without that: it follows where nobody has set another. */
static void take_count(struct program *p, const struct config_program *s, bool anew)
{
	bool changed = s->workers != p->file_count;

	if (changed && s->workers_auto && p->settings->workers_auto)
		changed = p->count == p->file_count;
	if (anew || changed || s->executor == EXECUTOR_ONLY) /* that is always one */
		p->count = s->workers;
	p->file_count = s->workers;
}

static void change_program(struct core *c, struct program *p, const struct config *config,
	int position, enum diff_class class)
{
	const struct config_program *s = &config->programs[position];
	int slot = core_program_slot(c, p), count = p->count;

	if (class == DIFF_ADDED) /* its workers of before are still on their way out */
		p->started = s->autostart;
	take_count(p, s, class == DIFF_ADDED);
	p->leaving = false;
	p->dirty = true;
	if (rollout_wants_retry(p) && class != DIFF_ADDED)
		class = DIFF_ROLL;
	if (class == DIFF_ROLL &&
		(s->replace != REPLACE_SIGNAL || rollout_is_active(p) || rollout_wants_retry(p))) {
		p->executor.exists = p->executor.exists || s->executor != EXECUTOR_NO;
		rollout_aim(c, p, config, s, position, count);
		return;
	}
	p->config = config;
	p->settings = s;
	p->position = position;
	if (s->executor != EXECUTOR_NO)
		p->executor.exists = true;
	if (class == DIFF_ROLL && s->replace == REPLACE_SIGNAL) {
		for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i)) {
			struct action *a;

			c->workers[i].settings = s;
			worker_settings_changed(c, &c->workers[i]);
			if (!c->workers[i].alive || c->workers[i].state != WORKER_RUNNING)
				continue;
			a = core_push(c, ACTION_SIGNAL);
			a->worker = i;
			a->id = c->workers[i].id;
			a->signal = s->replace_signal;
		}
		return;
	}
	for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i)) {
		if (c->workers[i].generation != p->generation && !worker_is_down(&c->workers[i]))
			continue;
		c->workers[i].settings = s;
		worker_settings_changed(c, &c->workers[i]);
	}
}

static int program_by_order(const struct config *config, int order)
{
	for (size_t i = 0; i < config->program_count; i++) {
		if (config->programs[i].order == order)
			return (int)i;
	}
	return -1;
}

void pool_configure(struct core *c, struct config *config, const enum diff_class *classes)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used) {
			p->leaving = true; /* unless it is found again */
			p->dirty = true;
		}
	}
	c->config = config;
	for (size_t order = 0; order < config->program_count; order++) {
		int position = program_by_order(config, (int)order);
		int slot;

		if (position < 0)
			position = (int)order;
		slot = core_find_program(c, config->programs[position].name);
		if (slot < 0) {
			slot = free_program(c);
			init_program(c, &c->programs[slot], config, position);
		} else {
			change_program(c, &c->programs[slot], config, position,
				classes != NULL ? classes[position] : DIFF_SAME);
		}
	}
	for (int i = 0; i < c->program_slots; i++) {
		if (c->programs[i].used && c->programs[i].leaving)
			rollout_handle(c, &c->programs[i], ROLLOUT_EVENT_CANCEL);
	}
}

/* --- dependencies -------------------------------------------------------------------------- */
bool pool_is_ready(const struct core *c, int program)
{
	const struct program *p = &c->programs[program];
	int ready = 0;

	for (int i = next(c, program, -1); i >= 0; i = next(c, program, i))
		ready += worker_is_elsewhere(c, &c->workers[i]) ||
			 (c->workers[i].state == WORKER_RUNNING && c->workers[i].ready);
	return p->wanted > 0 && ready >= p->wanted;
}

static bool depend_met(const struct core *c, const struct program *p, const struct config_depend *d)
{
	int slot = core_find_program(c, p->config->programs[d->program].name);
	int workers = 0;

	if (slot < 0)
		return true; /* taken out of the file */
	if (d->what == DEPENDS_READY)
		return pool_is_ready(c, slot);
	for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i)) {
		const struct worker *w = &c->workers[i];

		workers++;
		if (d->what == DEPENDS_DONE &&
			!(w->state == WORKER_EXITED && w->exit_code == 0 && w->exit_signal == 0))
			return false;
		if (d->what == DEPENDS_STARTED && w->state != WORKER_STARTING &&
			w->state != WORKER_RUNNING && w->state != WORKER_STANDBY &&
			w->state != WORKER_EXITED)
			return false;
	}
	return workers > 0;
}

static void check_dependencies(struct core *c, struct program *p)
{
	bool held = false;

	for (size_t i = 0; i < p->settings->depend_count && !held; i++)
		held = !depend_met(c, p, &p->settings->depends[i]);
	/* Once all of it has been started, a dependency that ends does not stop it. */
	if (held != p->held_back) {
		p->held_back = held;
		core_report(c, REPORT_PROGRAM, core_program_slot(c, p), -1, 0, 0,
			held ? "waits for what it depends on" : "what it depends on is there");
	}
}

void pool_worker_changed(struct core *c, struct worker *w)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->settings->depend_count > 0 && i != w->program)
			p->dirty = true;
	}
}

/* --- wanted against actual ----------------------------------------------------------------- */
/* Rather not one that was freed by this event: what it reported is still to be told. */
static int free_worker(const struct core *c)
{
	int fallback = -1;

	for (int i = 0; i < c->worker_slots; i++) {
		if (c->workers[i].used)
			continue;
		if (c->workers[i].id == 0 || c->workers[i].since_ns != c->now_ns)
			return i;
		fallback = fallback < 0 ? i : fallback;
	}
	assert(fallback >= 0); /* the shell makes room before */
	return fallback;
}

int pool_add_worker(struct core *c, int program, int index)
{
	int slot = free_worker(c);
	struct worker *w = &c->workers[slot];
	uint64_t id = w->id;

	memset(w, 0, sizeof *w);
	w->used = true;
	w->id = id;
	w->program = program;
	w->index = index;
	w->settings = c->programs[program].settings;
	w->generation = c->programs[program].generation;
	w->state = WORKER_STOPPED;
	w->reason = "new";
	w->since_ns = c->now_ns;
	w->exit_code = -1;
	w->executor_env = -1;
	return slot;
}

static bool waits_for_election(
	const struct core *c, const struct program *p, const struct worker *w)
{
	enum election_state s = c->election.state;

	if (!p->executor.exists || p->settings->promote != PROMOTE_RESPAWN || w->index != 0)
		return false;
	if (c->now_ns >= c->lifecycle.boot_ns + FIRST_ELECTION_NS)
		return false;
	return s == ELECTION_ACQUIRING || (s == ELECTION_OFF && c->config->scheduler.enabled) ||
	       !c->election.decided;
}

/* Scaled away as the executor: it waits for a successor among those that stay, if one is coming and
 * not for ever. */
static bool waits_for_successor(struct core *c, struct program *p, struct worker *w)
{
	bool coming = false;

	if (p->leaving || !p->started || p->count == 0 || !executor_is(c, w) ||
		p->executor.state != EXECUTOR_EXECUTING)
		return false;
	for (int i = next(c, w->program, -1); i >= 0; i = next(c, w->program, i)) {
		const struct worker *o = &c->workers[i];

		if (o->index >= p->count || o->remove)
			continue;
		if (worker_is_candidate(o))
			return false;
		coming = coming || o->state == WORKER_STARTING || o->state == WORKER_BACKOFF ||
			 (o->state == WORKER_STOPPING && o->after != AFTER_STOPPED) ||
			 (o->state == WORKER_STOPPED && !o->parked && !p->held_back);
	}
	if (w->leave_by_ns == 0)
		w->leave_by_ns = c->now_ns + p->settings->ready_timeout_ns;
	return coming && c->now_ns < w->leave_by_ns;
}

static void run_worker(struct core *c, struct program *p, struct worker *w)
{
	uint32_t generation;

	if (w->remove)
		return;
	if (w->index < p->count)
		w->leave_by_ns = 0;
	if ((p->leaving || w->index >= p->count) && waits_for_successor(c, p, w))
		return;
	if (p->leaving || w->index >= p->count) {
		w->remove = true;
		worker_stop(c, w, AFTER_STOPPED,
			p->leaving ? "its program was taken out" : "scaled down");
		return;
	}
	if (!p->started) {
		if (w->waits_promotion ||
			(w->state != WORKER_STOPPED && w->state != WORKER_EXITED &&
				w->state != WORKER_FATAL && w->state != WORKER_STOPPING))
			worker_stop(c, w, AFTER_STOPPED, "stopped by an operator");
		else if (w->state == WORKER_STOPPING)
			w->after = AFTER_STOPPED;
		return;
	}
	if ((w->state == WORKER_FATAL || w->state == WORKER_EXITED) &&
		w->generation != p->generation && !w->parked &&
		(p->rollout.state != ROLLOUT_CANARY || w->canary)) {
		w->failures = w->repeats = 0; /* the new version is another chance */
		worker_start(c, w);
		return;
	}
	if (w->state == WORKER_STANDBY &&
		rollout_settings(p, w, &generation)->executor != EXECUTOR_ONLY) {
		worker_stop(c, w, AFTER_RESTART, "no longer only where the lock is held");
		return;
	}
	if (w->state == WORKER_STOPPED && !w->parked && !w->waits_promotion && !p->held_back &&
		!waits_for_election(c, p, w) && !executor_is(c, w))
		worker_start(c, w);
}

static void run_program(struct core *c, int slot)
{
	struct program *p = &c->programs[slot];
	bool any = false;
	int present = 0;

	p->wanted = p->started && !p->leaving ? p->count : 0;
	check_dependencies(c, p);
	for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i))
		present += !c->workers[i].remove && !c->workers[i].outgoing &&
			   c->workers[i].index < p->count;
	/* Also to be shown as stopped. Seldom any: looking for each costs the square of them. */
	for (int i = 0; i < p->count && present < p->count && !p->leaving; i++) {
		if (core_find_worker(c, slot, i) < 0)
			pool_add_worker(c, slot, i);
	}
	/* The executor is the last to go. */
	for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i)) {
		if (!executor_is(c, &c->workers[i]))
			run_worker(c, p, &c->workers[i]);
	}
	for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i)) {
		if (executor_is(c, &c->workers[i]))
			run_worker(c, p, &c->workers[i]);
	}
	if (p->settings->executor == EXECUTOR_NO && p->executor.exists) {
		if (p->executor.state == EXECUTOR_NONE)
			p->executor.exists = false;
		else if (p->executor.state != EXECUTOR_DRAINING)
			executor_drain(c, p, 0, true, "no longer a candidate program");
	}
	rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
	for (int i = next(c, slot, -1); i >= 0; i = next(c, slot, i))
		any = true;
	if (p->leaving && !any)
		p->used = false;
}

/* Indices are filled in one pass over the slots when a whole program is new. */
void pool_run(struct core *c)
{
	bool again = true;

	if (lifecycle_is_stopping(c) || (c->lifecycle.up & STAGE_BIT(PROGRAMS)) == 0)
		return;
	/* What one program does may be what another one waits for. */
	for (int round = 0; again && round <= c->program_slots; round++) {
		again = false;
		for (int i = 0; i < c->program_slots; i++) {
			struct program *p = &c->programs[i];

			if (!p->used || !p->dirty)
				continue;
			p->dirty = false;
			again = true;
			run_program(c, i);
		}
	}
}

int64_t pool_deadline(const struct core *c)
{
	int64_t first = 0;

	if (lifecycle_is_stopping(c) || (c->lifecycle.up & STAGE_BIT(PROGRAMS)) == 0)
		return 0;
	for (int i = 0; i < c->worker_slots; i++) {
		const struct worker *w = &c->workers[i];

		if (w->used && w->state == WORKER_STOPPED && !w->parked && !w->remove &&
			c->programs[w->program].started && !c->programs[w->program].held_back &&
			waits_for_election(c, &c->programs[w->program], w))
			return c->lifecycle.boot_ns + FIRST_ELECTION_NS;
		if (w->used && !w->remove && w->leave_by_ns > c->now_ns &&
			(first == 0 || w->leave_by_ns < first))
			first = w->leave_by_ns;
	}
	return first;
}

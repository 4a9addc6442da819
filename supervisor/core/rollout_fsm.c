/* One program's rollout: the machine. Which worker is next is decided in rollout_step.c. */
#include <stddef.h>

#include "supervisor/core/rollout_internal.h"
#include "supervisor/core/backoff.h"
#include "supervisor/core/lifecycle_fsm.h"

#define HALF_RETRY_NS        (30 * CORE_SECOND)
#define RECYCLE_AGAIN_NS     (60 * CORE_SECOND)
#define RECYCLE_AGAIN_MAX_NS (3600 * CORE_SECOND)
#define RECYCLE_LARGE_NS     (600 * CORE_SECOND)

static const char *const event_names[] = {
#define X(name) #name,
	ROLLOUT_EVENTS(X)
#undef X
};

const char *rollout_event_name(enum rollout_event e)
{
	return event_names[e];
}

/* The one setter. */
static void rollout_enter(
	struct core *c, struct program *p, enum rollout_state s, const char *reason)
{
	p->rollout.state = s;
	p->rollout.complete_ns = 0;
	p->rollout.since_ns = c->now_ns;
	p->rollout.reason = reason;
	p->dirty = true;
}

static void remark(struct core *c, struct program *p, const char *text)
{
	core_report(c, REPORT_PROGRAM, core_program_slot(c, p), -1, 0, 0, text);
}

static void settle(struct core *c, struct program *p)
{
	int slot = core_program_slot(c, p);

	for (int i = core_next_worker(c, slot, -1); i >= 0; i = core_next_worker(c, slot, i)) {
		struct worker *w = &c->workers[i];

		w->canary = false;
		w->stale = RECYCLE_NOT;
		if (!w->tree) { /* at rest: it will be started with these */
			w->settings = p->settings;
			w->generation = p->generation;
		}
	}
}

/* --- beginning ----------------------------------------------------------------------------- */
static void begin(struct core *c, struct program *p)
{
	rollout_unpair(c, p);
	p->rollout.outcome = ROLLOUT_NO_OUTCOME;
	p->rollout.replaced = p->rollout.half = false;
	p->rollout.unfit = p->rollout.executor_deaths = 0;
	p->executor.short_lived = 0; /* of a poisonous job it may be the cure */
	rollout_enter(c, p, ROLLOUT_CANARY, "a new version");
}

void rollout_aim(struct core *c, struct program *p, const struct config *config,
	const struct config_program *s, int position, int count)
{
	struct rollout *r = &p->rollout;

	if (config != p->config)
		r->behind = false;
	/* Superseded: back is always to the last version that was complete. */
	if (r->state != ROLLOUT_CANARY && r->state != ROLLOUT_ROLLING) {
		r->config = p->config;
		r->settings = p->settings;
		r->position = p->position;
		r->generation = p->generation;
		r->count = count;
	}
	p->config = config;
	p->settings = s;
	p->position = position;
	p->generation = ++r->newest;
	if (p->started) {
		rollout_handle(c, p, ROLLOUT_EVENT_BEGIN);
	} else {
		rollout_forget(p, ROLLOUT_NO_OUTCOME);
		settle(c, p);
	}
}

void rollout_forget(struct program *p, enum rollout_outcome outcome)
{
	p->rollout.config = NULL;
	p->rollout.settings = NULL;
	p->rollout.outcome = outcome;
}

static void end(struct core *c, struct program *p, enum rollout_outcome outcome, const char *reason)
{
	settle(c, p);
	rollout_forget(p, outcome);
	p->rollout.ended_ns = c->now_ns;
	p->rollout.half = false;
	rollout_enter(c, p, ROLLOUT_IDLE, reason);
}

/* --- ends ---------------------------------------------------------------------------------- */
static void finish(struct core *c, struct program *p)
{
	bool same = p->rollout.settings == p->settings;

	end(c, p, ROLLOUT_DONE, "every worker was replaced");
	remark(c, p, same ? "every worker was replaced" : "every worker is of the new version");
}

static void finish_back(struct core *c, struct program *p)
{
	bool replaced = p->rollout.replaced;

	end(c, p, ROLLOUT_FAILED, "the new version does not start");
	remark(c, p,
		replaced ? "rolled back: every worker is of the old version again"
			 : "rollout ended: every worker is of the old version");
}

/* Nothing more is stopped for it; what does not start is tried again for as long as it takes. */
static void stall(struct core *c, struct program *p)
{
	if (!p->rollout.half)
		core_report(c, REPORT_PROGRAM, core_program_slot(c, p), rollout_find_failing(c, p),
			0, 0,
			"rolling back has come to a halt half way: the old version does not start "
			"either; it is tried again and again");
	p->rollout.half = true;
	rollout_enter(c, p, ROLLOUT_HALF, "neither version starts");
	rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
}

static void cancel(struct core *c, struct program *p)
{
	bool failed = p->rollout.state == ROLLOUT_BACK || p->rollout.state == ROLLOUT_HALF;

	rollout_drop_outgoing(c, p);
	end(c, p, failed ? ROLLOUT_FAILED : ROLLOUT_NO_OUTCOME, "the program was stopped");
	if (!lifecycle_is_stopping(c))
		remark(c, p, "the rollout ends: the program is stopped");
}

/* Its workers come up, and are no good. */
static bool is_unfit(const struct program *p)
{
	const struct rollout *r = &p->rollout;

	return (r->state == ROLLOUT_CANARY || r->state == ROLLOUT_ROLLING) &&
	       (r->unfit >= ROLLOUT_TRIES || r->executor_deaths >= ROLLOUT_TRIES);
}

static const char *why_back(const struct rollout *r)
{
	if (r->executor_deaths >= ROLLOUT_TRIES)
		return "rolling back: the new version does not start as executor: each one ended "
		       "soon after its promotion";
	if (r->unfit >= ROLLOUT_TRIES)
		return "rolling back: the new version does not start well: its workers fail their "
		       "health or watchdog";
	return r->replaced ? "rolling back: the new version does not start"
			   : "rollout aborted: the new version does not start";
}

static void roll_back(struct core *c, struct program *p)
{
	struct rollout *r = &p->rollout;

	int failing = rollout_find_failing(c, p);

	core_report(c, REPORT_PROGRAM, core_program_slot(c, p),
		failing < 0 ? r->unfit_worker : failing, 0, 0, why_back(r));
	if (p->settings->executor == EXECUTOR_ONLY || r->settings->executor == EXECUTOR_ONLY)
		p->count = r->count; /* one of the two is always one worker */
	r->behind = r->behind || p->config != r->config;
	p->config = r->config;
	p->settings = r->settings;
	p->position = r->position;
	p->generation = r->generation;
	r->config = NULL;
	r->settings = NULL;
	rollout_unpair(c, p);
	rollout_enter(c, p, ROLLOUT_BACK, "the new version does not start");
}

/* --- on the way ---------------------------------------------------------------------------- */
static void proved(struct core *c, struct program *p)
{
	p->rollout.replaced = true;
	rollout_enter(c, p, ROLLOUT_ROLLING, "the first worker of the new version is ready");
}

static void look_canary(struct core *c, struct program *p)
{
	int canary = rollout_find_canary(c, p);

	if (canary < 0) {
		rollout_dismiss(c, p); /* of a rollout that was superseded */
		canary = rollout_begin_canary(c, p);
	}
	if ((canary >= 0 && rollout_is_failing(p, &c->workers[canary])) || is_unfit(p))
		rollout_handle(c, p, ROLLOUT_EVENT_FAILED);
	else if (canary >= 0 && rollout_has_come(c, p, &c->workers[canary]))
		rollout_handle(c, p, ROLLOUT_EVENT_PROVED);
	else if (canary < 0 && rollout_is_complete(c, p))
		rollout_handle(c, p, ROLLOUT_EVENT_COMPLETE); /* nothing runs */
	else
		return;
	rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
}

static void look(struct core *c, struct program *p)
{
	struct rollout *r = &p->rollout;

	if (rollout_find_failing(c, p) >= 0 || is_unfit(p)) {
		rollout_handle(c, p, ROLLOUT_EVENT_FAILED);
		rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
		return;
	}
	rollout_step(c, p);
	if (!rollout_is_complete(c, p)) {
		r->complete_ns = 0;
		return;
	}
	if (r->complete_ns == 0)
		r->complete_ns = c->now_ns;
	if (!rollout_awaits_executor(c, p))
		rollout_handle(c, p, ROLLOUT_EVENT_COMPLETE);
}

/* A worker that was given up in it has no retries of its own left. */
static void look_half(struct core *c, struct program *p)
{
	int slot = core_program_slot(c, p);
	bool up = true;

	for (int i = core_next_worker(c, slot, -1); i >= 0; i = core_next_worker(c, slot, i)) {
		struct worker *w = &c->workers[i];

		if (w->remove || w->parked || w->generation != p->generation)
			continue;
		up = up && rollout_is_available(c, w);
		if (w->state == WORKER_FATAL && w->deadline_ns == 0)
			w->deadline_ns = c->now_ns + HALF_RETRY_NS;
	}
	if (!up)
		return;
	rollout_enter(c, p, ROLLOUT_BACK, "the old version starts again");
	rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
}

/* --- recycling ----------------------------------------------------------------------------- */
static void recycle(struct core *c, struct program *p)
{
	rollout_enter(c, p, ROLLOUT_RECYCLING, "a worker is replaced by another like it");
	rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
}

static void recycled(struct core *c, struct program *p, const char *reason)
{
	settle(c, p);
	rollout_enter(c, p, ROLLOUT_IDLE, reason);
}

static void finish_recycling(struct core *c, struct program *p)
{
	p->rollout.recycle_failures = 0;
	recycled(c, p, "recycled");
}

/* Not at once the next: it would be as large. */
void rollout_postpone_memory(struct core *c, struct program *p, const struct worker *w)
{
	p->rollout.recycle_after_ns = w->ready_ns + RECYCLE_LARGE_NS;
	remark(c, p,
		"max_memory is below what a worker needs soon after its start: recycled no more "
		"often than every 10 minutes; raise it");
}

/* The one that was to go stays, if it is there still. Later again: it will not have become better.
 */
static void fail_recycling(struct core *c, struct program *p)
{
	struct rollout *r = &p->rollout;

	r->recycle_after_ns = c->now_ns + backoff_doubling(RECYCLE_AGAIN_NS, RECYCLE_AGAIN_MAX_NS,
						  ++r->recycle_failures, 0);
	remark(c, p, "not recycled: its replacement failed to start; tried again later");
	rollout_unpair(c, p);
	recycled(c, p, "the replacement does not start");
}

static void cancel_recycling(struct core *c, struct program *p)
{
	rollout_drop_outgoing(c, p);
	recycled(c, p, "the program was stopped");
}

static void look_recycling(struct core *c, struct program *p)
{
	int slot = core_program_slot(c, p), canary;
	bool over = true;

	rollout_step(c, p);
	canary = rollout_find_canary(c, p);
	if (canary >= 0 && rollout_is_failing(p, &c->workers[canary])) {
		rollout_handle(c, p, ROLLOUT_EVENT_FAILED);
		return;
	}
	for (int i = core_next_worker(c, slot, -1); i >= 0; i = core_next_worker(c, slot, i))
		over = over && !c->workers[i].outgoing &&
		       (c->workers[i].stale == RECYCLE_NOT || c->workers[i].remove ||
			       c->workers[i].parked);
	if (over && (canary < 0 || rollout_has_come(c, p, &c->workers[canary])))
		rollout_handle(c, p, ROLLOUT_EVENT_COMPLETE);
}

static void ignore(struct core *c, struct program *p)
{
	(void)c;
	(void)p;
}

struct rollout_rule {
	void (*run)(struct core *c, struct program *p);
};

#define IGNORE                                                                                     \
	{                                                                                          \
		ignore                                                                             \
	}
#define S(name) ROLLOUT_##name
#define E(name) ROLLOUT_EVENT_##name

/* clang-format off */
static const struct rollout_rule rules[ROLLOUT_STATE_COUNT][ROLLOUT_EVENT_COUNT] = {
	[S(IDLE)] = {
		[E(BEGIN)] = {begin}, [E(LOOK)] = {rollout_look_idle}, [E(CANCEL)] = IGNORE,
		[E(RECYCLE)] = {recycle},
	},
	[S(CANARY)] = {
		[E(BEGIN)] = {begin}, [E(LOOK)] = {look_canary}, [E(PROVED)] = {proved},
		[E(FAILED)] = {roll_back}, [E(COMPLETE)] = {finish}, [E(CANCEL)] = {cancel},
	},
	[S(ROLLING)] = {
		[E(BEGIN)] = {begin}, [E(LOOK)] = {look}, [E(FAILED)] = {roll_back},
		[E(COMPLETE)] = {finish}, [E(CANCEL)] = {cancel},
	},
	[S(BACK)] = {
		[E(BEGIN)] = {begin}, [E(LOOK)] = {look}, [E(FAILED)] = {stall},
		[E(COMPLETE)] = {finish_back}, [E(CANCEL)] = {cancel},
	},
	[S(HALF)] = {
		[E(BEGIN)] = {begin}, [E(LOOK)] = {look_half}, [E(CANCEL)] = {cancel},
	},
	[S(RECYCLING)] = {
		[E(BEGIN)] = {begin}, [E(LOOK)] = {look_recycling}, [E(FAILED)] = {fail_recycling},
		[E(COMPLETE)] = {finish_recycling}, [E(CANCEL)] = {cancel_recycling},
	},
};
/* clang-format on */

bool rollout_table_has(enum rollout_state s, enum rollout_event e)
{
	return rules[s][e].run != NULL;
}

void rollout_handle(struct core *c, struct program *p, enum rollout_event what)
{
	const struct rollout_rule *r = &rules[p->rollout.state][what];

	if (r->run == NULL) {
		c->impossible++;
		core_report(c, REPORT_IMPOSSIBLE, core_program_slot(c, p), -1,
			(int)p->rollout.state, (int)what, "rollout");
		return;
	}
	r->run(c, p);
}

void rollout_judge(const struct core *c, struct program *p, const struct worker *w, bool well)
{
	if (w->generation != p->generation)
		return;
	p->rollout.unfit = well ? 0 : p->rollout.unfit + 1;
	if (!well)
		p->rollout.unfit_worker = core_worker_slot(c, w);
}

void rollout_executor_ended(
	const struct core *c, struct program *p, const struct worker *w, bool short_lived)
{
	if (w->generation != p->generation)
		return;
	p->rollout.executor_deaths = short_lived ? p->rollout.executor_deaths + 1 : 0;
	p->rollout.unfit_worker = core_worker_slot(c, w);
}

/* --- for the others ------------------------------------------------------------------------ */
bool rollout_is_active(const struct program *p)
{
	return p->rollout.state != ROLLOUT_IDLE;
}

bool rollout_moves(const struct program *p)
{
	return p->rollout.state != ROLLOUT_IDLE && p->rollout.state != ROLLOUT_HALF;
}

bool rollout_wants_retry(const struct program *p)
{
	return p->rollout.behind;
}

/* Until the canary is ready whoever dies comes back as what it was. */
const struct config_program *rollout_settings(
	const struct program *p, const struct worker *w, uint32_t *ret_generation)
{
	bool before = p->rollout.state == ROLLOUT_CANARY && !w->canary;

	*ret_generation = before ? p->rollout.generation : p->generation;
	return before ? p->rollout.settings : p->settings;
}

bool rollout_prefers(const struct program *p, const struct worker *w)
{
	bool aimed_at = w->generation == p->generation;

	if (p->rollout.state == ROLLOUT_RECYCLING)
		return w->canary; /* the youngest: its turn comes last */
	return p->rollout.state == ROLLOUT_CANARY ? !aimed_at : aimed_at;
}

/* The version before serves on, or comes back: nothing of what the program is for has ended. */
bool rollout_shields(const struct core *c, const struct worker *w)
{
	const struct program *p = &c->programs[w->program];
	enum rollout_state s = p->rollout.state;

	if (s == ROLLOUT_RECYCLING)
		return w->canary && rollout_has_elder(c, w);
	return (s == ROLLOUT_CANARY || s == ROLLOUT_ROLLING) && w->generation == p->generation;
}

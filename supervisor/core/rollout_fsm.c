/* One program's rollout: the machine. Which worker is next is decided in rollout_step.c. */
#include <stddef.h>

#include "supervisor/core/rollout_internal.h"
#include "supervisor/core/lifecycle_fsm.h"

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
	rollout_enter(c, p, ROLLOUT_CANARY, "a new version");
}

void rollout_aim(struct core *c, struct program *p, const struct config *config,
	const struct config_program *s, int position)
{
	struct rollout *r = &p->rollout;

	/* Superseded: back is always to the last version that was complete. */
	if (r->state != ROLLOUT_CANARY && r->state != ROLLOUT_ROLLING) {
		r->config = p->config;
		r->settings = p->settings;
		r->position = p->position;
		r->generation = p->generation;
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

/* --- ends ---------------------------------------------------------------------------------- */
static void finish(struct core *c, struct program *p)
{
	settle(c, p);
	rollout_forget(p, ROLLOUT_DONE);
	rollout_enter(c, p, ROLLOUT_IDLE, "done");
	remark(c, p, "every worker is of the new version");
}

static void finish_back(struct core *c, struct program *p)
{
	bool replaced = p->rollout.replaced;

	settle(c, p);
	rollout_forget(p, ROLLOUT_FAILED);
	rollout_enter(c, p, ROLLOUT_IDLE, "failed");
	remark(c, p,
		replaced ? "rolled back: every worker is of the old version again"
			 : "rollout ended: every worker is of the old version");
}

static void give_up(struct core *c, struct program *p)
{
	settle(c, p);
	rollout_drop_outgoing(c, p);
	rollout_forget(p, ROLLOUT_FAILED);
	p->rollout.half = true;
	rollout_enter(c, p, ROLLOUT_IDLE, "failed");
	remark(c, p, "rollout ended half way: the old version does not start either");
}

static void cancel(struct core *c, struct program *p)
{
	enum rollout_outcome outcome = p->rollout.state == ROLLOUT_BACK ? ROLLOUT_FAILED
									: ROLLOUT_NO_OUTCOME;

	rollout_drop_outgoing(c, p);
	settle(c, p);
	rollout_forget(p, outcome);
	rollout_enter(c, p, ROLLOUT_IDLE, "cancelled");
	if (!lifecycle_is_stopping(c))
		remark(c, p, "the rollout ends: the program is stopped");
}

static void roll_back(struct core *c, struct program *p)
{
	struct rollout *r = &p->rollout;

	remark(c, p,
		r->replaced ? "rolling back: the new version does not start"
			    : "rollout aborted: the new version does not start");
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
	if (canary >= 0 && rollout_is_failing(p, &c->workers[canary]))
		rollout_handle(c, p, ROLLOUT_EVENT_FAILED);
	else if (canary >= 0 && rollout_has_come(p, &c->workers[canary]))
		rollout_handle(c, p, ROLLOUT_EVENT_PROVED);
	else if (canary < 0 && rollout_is_complete(c, p))
		rollout_handle(c, p, ROLLOUT_EVENT_COMPLETE); /* nothing runs */
	else
		return;
	rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
}

static void look(struct core *c, struct program *p)
{
	if (rollout_any_failing(c, p)) {
		rollout_handle(c, p, ROLLOUT_EVENT_FAILED);
		rollout_handle(c, p, ROLLOUT_EVENT_LOOK);
		return;
	}
	rollout_step(c, p);
	if (rollout_is_complete(c, p))
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
		[E(BEGIN)] = {begin}, [E(LOOK)] = IGNORE, [E(CANCEL)] = IGNORE,
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
		[E(BEGIN)] = {begin}, [E(LOOK)] = {look}, [E(FAILED)] = {give_up},
		[E(COMPLETE)] = {finish_back}, [E(CANCEL)] = {cancel},
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

/* --- for the others ------------------------------------------------------------------------ */
bool rollout_is_active(const struct program *p)
{
	return p->rollout.state != ROLLOUT_IDLE;
}

bool rollout_wants_retry(const struct program *p)
{
	return p->rollout.state == ROLLOUT_BACK || p->rollout.outcome == ROLLOUT_FAILED;
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

	return p->rollout.state == ROLLOUT_CANARY ? !aimed_at : aimed_at;
}

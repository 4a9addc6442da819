/* One candidate program's executor: the machine. */
#include <stddef.h>

#include "supervisor/core/executor_internal.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/rollout_fsm.h"

#define FORK_NS  (30 * CORE_SECOND)
#define RETRY_NS (1 * CORE_SECOND)
#define GONE_NS  (30 * CORE_SECOND)

static const char *const event_names[] = {
#define X(name) #name,
	EXECUTOR_EVENTS(X)
#undef X
};

const char *executor_event_name(enum executor_event e)
{
	return event_names[e];
}

bool executor_is(const struct core *c, const struct worker *w)
{
	const struct program *p = &c->programs[w->program];

	return p->executor.exists && p->executor.state != EXECUTOR_NONE &&
	       p->executor.worker == core_worker_slot(c, w);
}

/* The one setter. */
void executor_enter(struct core *c, struct program *p, enum executor_state s, const char *reason)
{
	struct executor *x = &p->executor;
	enum executor_state from = x->state;
	int worker = x->worker;

	x->state = s;
	x->since_ns = c->now_ns;
	x->reason = reason;
	x->deadline_ns = 0;
	if (s == EXECUTOR_DRAINING)
		x->given_up = reason;
	if (s == EXECUTOR_NONE) {
		x->worker = -1;
		x->arm_by_ns = 0;
		x->committing = x->armed = x->shown = x->answered = false;
		x->demoted = x->drained = x->stop_after = false;
		x->busy = 0;
	}
	p->dirty = true;
	core_report(c, REPORT_EXECUTOR, core_program_slot(c, p), worker, (int)from, (int)s, reason);
}

void executor_hook(struct core *c, struct program *p, enum hook kind)
{
	executor_push(c, p, ACTION_HOOK)->hook = kind;
}

/* --- promotion ----------------------------------------------------------------------------- */
void executor_begin(struct core *c, struct program *p, int worker, enum promote_phase phase)
{
	struct executor *x = &p->executor;

	x->worker = worker;
	x->phase = phase;
	x->next = -1;
	x->last = -1;
	x->answered = x->unanswered_told = false;
	x->demoted = x->drained = x->stop_after = false;
	x->committing = x->armed = x->shown = false;
	x->arm_by_ns = 0;
	x->busy = 0;
	executor_enter(c, p, EXECUTOR_PROMOTING, "chosen");
	x->deadline_ns = c->now_ns + (phase == PHASE_STOP ? GONE_NS : EXECUTOR_COMMIT_NS);
}

static void let_go(struct core *c, struct program *p, const char *reason)
{
	if (p->executor.phase == PHASE_ARM)
		executor_push(c, p, ACTION_DISARM);
	executor_enter(c, p, EXECUTOR_NONE, reason);
}

/* Its term is burnt; the worker goes on as what it was. */
void executor_abandon(struct core *c, struct program *p, int64_t wait_ns, const char *reason)
{
	struct worker *w = executor_worker(c, p);

	p->executor.not_before_ns = c->now_ns + wait_ns;
	let_go(c, p, reason);
	if (w->held && w->state == WORKER_STARTING)
		worker_kill(c, w, AFTER_RESTART, "promotion abandoned");
	if (w->waits_promotion) {
		w->waits_promotion = false;
		worker_start(c, w);
	}
}

/* Its worker is being stopped or taken out; that is the worker's own business. */
static void withdrawn(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	executor_worker(c, p)->waits_promotion = false;
	let_go(c, p, "its worker stops");
}

void executor_withdraw(struct core *c, struct worker *w)
{
	if (executor_is(c, w))
		executor_handle(c, &c->programs[w->program], EXECUTOR_EVENT_WITHDRAWN, NULL);
}

static void committed(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = executor_worker(c, p);
	bool spawned = p->settings->promote == PROMOTE_RESPAWN ||
		       p->settings->executor == EXECUTOR_ONLY;

	x->committing = false;
	x->term = e->term;
	if (!election_may_promote(c) || lifecycle_is_stopping(c)) {
		executor_abandon(c, p, RETRY_NS, "the lease is about to end");
		return;
	}
	if (spawned != worker_is_down(w)) { /* started meanwhile, or its settings changed */
		executor_abandon(c, p, 0, "its worker changed meanwhile");
		return;
	}
	if (!spawned) {
		executor_arm(c, p);
		return;
	}
	x->phase = PHASE_SPAWN;
	x->deadline_ns = c->now_ns + FORK_NS;
	worker_spawn_executor(c, w, x->term);
}

static void not_committed(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	p->executor.committing = false;
	executor_abandon(c, p, RETRY_NS, "the promotion is not in the database");
}

static void forked(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (p->executor.phase == PHASE_SPAWN)
		executor_arm(c, p);
}

static void armed(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = executor_worker(c, p);
	bool fit = w->alive && (w->held ? w->state == WORKER_STARTING : w->state == WORKER_RUNNING);

	(void)e;
	if (x->phase != PHASE_ARM)
		return;
	x->armed = true;
	x->arm_by_ns = 0;
	if (!fit || !election_may_promote(c)) {
		executor_abandon(
			c, p, RETRY_NS, fit ? "the lease is about to end" : "its worker ends");
		return;
	}
	executor_show(c, p);
	executor_tell(c, p);
	x->promoted_ns = c->now_ns;
	x->answered = p->settings->promote != PROMOTE_NOTIFY || w->held;
	executor_enter(c, p, EXECUTOR_EXECUTING, "promoted");
	if (!x->answered)
		x->deadline_ns = c->now_ns + p->settings->promote_timeout_ns;
	executor_hook(c, p, HOOK_PROMOTE);
}

static void busy(struct core *c, struct program *p, const struct event *e)
{
	(void)c;
	p->executor.busy = e->number;
}

static void promoted(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	(void)c;
	p->executor.answered = p->executor.answers = true;
	p->executor.deadline_ns = 0;
	p->dirty = true; /* a rollout may have waited for this */
}

/* --- ends ---------------------------------------------------------------------------------- */
static void died(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	executor_clear_page(c, p);
	executor_count_life(c, p);
	rollout_executor_ended(c, p, executor_worker(c, p), x->short_lived > 0);
	executor_hook(c, p, HOOK_DEMOTE);
	executor_enter(c, p, EXECUTOR_DRAINING, "died");
	x->demoted = x->drained = false;
	x->deadline_ns = c->now_ns + GONE_NS;
}

static void died_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (p->executor.phase == PHASE_STOP)
		return;
	let_go(c, p, "died before it was told");
}

static void died_draining(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	executor_clear_page(c, p);
	p->executor.arm_by_ns = 0;
	p->executor.deadline_ns = c->now_ns + GONE_NS;
}

static void gone(struct core *c, struct program *p, const struct event *e)
{
	int slot = p->executor.worker;

	(void)e;
	executor_clear_page(c, p);
	executor_enter(c, p, EXECUTOR_NONE, "its worker is gone");
	p->executor.last = slot;
}

static void gone_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (p->executor.phase == PHASE_STOP) { /* respawn: now its successor may be committed */
		p->executor.phase = PHASE_COMMIT;
		p->executor.deadline_ns = c->now_ns + EXECUTOR_COMMIT_NS;
		return;
	}
	let_go(c, p, "its worker is gone");
}

/* The lease is lost or over, or it hangs: page 0 first, then SIGKILL to all of it. */
static void lose(struct core *c, struct program *p, const struct event *e)
{
	struct worker *w = executor_worker(c, p);
	enum worker_after after = w->state == WORKER_STOPPING ? w->after : AFTER_RESTART;

	(void)e;
	executor_clear_page(c, p);
	if (p->executor.state == EXECUTOR_EXECUTING) {
		executor_count_life(c, p);
		executor_hook(c, p, HOOK_DEMOTE);
		executor_enter(c, p, EXECUTOR_DRAINING, "killed");
	}
	p->executor.demoted = false;
	p->executor.drained = true;
	p->executor.arm_by_ns = 0;
	p->executor.deadline_ns = c->now_ns + GONE_NS;
	if (!w->kill_sent)
		worker_kill(
			c, w, after, w->state == WORKER_STOPPING ? w->reason : "its lease is over");
}

static void lose_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	executor_abandon(c, p, 0, "the lock is lost");
}

/* --- time ---------------------------------------------------------------------------------- */
static void promoting_deadline(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	executor_abandon(c, p, RETRY_NS,
		p->executor.arm_by_ns != 0 ? "the deadman is not armed"
					   : "promotion took too long");
}

static void executing_deadline(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	if (x->arm_by_ns != 0 && x->arm_by_ns <= c->now_ns) {
		x->arm_by_ns = 0;
		executor_drain(c, p, DEMOTE_LOST, true, "the deadman is not armed");
		return;
	}
	if (x->deadline_ns == 0 || x->deadline_ns > c->now_ns)
		return;
	x->deadline_ns = 0;
	if (x->answered || x->unanswered_told)
		return;
	x->unanswered_told = true;
	x->answers = false;
	p->dirty = true;
	core_report(c, REPORT_UNANSWERED, core_program_slot(c, p), x->worker, 0, 0,
		"never answered the promotion");
	if (p->settings->promote_unanswered_replace)
		executor_drain(c, p, DEMOTE_HANDOFF, true, "never answered the promotion");
}

static void draining_deadline(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = executor_worker(c, p);

	(void)e;
	x->arm_by_ns = 0;
	if (x->deadline_ns == 0 || x->deadline_ns > c->now_ns)
		return;
	x->deadline_ns = c->now_ns + GONE_NS;
	if (!w->alive || w->term_sent || w->kill_sent)
		return; /* its tree is being ended: the worker's machine repeats that */
	x->reason = "did not answer in time";
	x->demoted = false;
	executor_finish_drain(c, p);
}

static void ignore(struct core *c, struct program *p, const struct event *e)
{
	(void)c;
	(void)p;
	(void)e;
}

struct executor_rule {
	void (*run)(struct core *c, struct program *p, const struct event *e);
};

#define IGNORE                                                                                     \
	{                                                                                          \
		ignore                                                                             \
	}
#define S(name) EXECUTOR_##name
#define E(name) EXECUTOR_EVENT_##name

/* clang-format off */
static const struct executor_rule rules[EXECUTOR_STATE_COUNT][EXECUTOR_EVENT_COUNT] = {
	[S(NONE)] = {
		[E(COMMITTED)] = IGNORE /* burnt */, [E(NOT_COMMITTED)] = IGNORE, [E(ARMED)] = IGNORE,
		[E(REARM)] = IGNORE, [E(UNARMED)] = IGNORE, [E(DRAIN)] = IGNORE, [E(LOSE)] = IGNORE,
		[E(WITHDRAWN)] = IGNORE, [E(DEADLINE)] = IGNORE,
	},
	[S(PROMOTING)] = {
		[E(COMMITTED)] = {committed}, [E(NOT_COMMITTED)] = {not_committed},
		[E(FORKED)] = {forked}, [E(ARMED)] = {armed}, [E(REARM)] = {executor_rearm},
		[E(UNARMED)] = {executor_unarmed}, [E(PROMOTED)] = IGNORE, [E(DEMOTED)] = IGNORE,
		[E(BUSY)] = IGNORE, [E(DIED)] = {died_promoting}, [E(GONE)] = {gone_promoting},
		[E(DRAIN)] = {executor_drain_promoting}, [E(LOSE)] = {lose_promoting},
		[E(WITHDRAWN)] = {withdrawn}, [E(DEADLINE)] = {promoting_deadline},
	},
	[S(EXECUTING)] = {
		[E(ARMED)] = {executor_armed_again}, [E(REARM)] = {executor_rearm}, [E(UNARMED)] = {executor_unarmed},
		[E(PROMOTED)] = {promoted}, [E(DEMOTED)] = {executor_demoted_itself}, [E(BUSY)] = {busy},
		[E(DIED)] = {died}, [E(GONE)] = {gone}, [E(DRAIN)] = {executor_do_drain}, [E(LOSE)] = {lose},
		[E(DEADLINE)] = {executing_deadline}, [E(COMMITTED)] = IGNORE,
		[E(NOT_COMMITTED)] = IGNORE, [E(WITHDRAWN)] = IGNORE,
	},
	[S(DRAINING)] = {
		[E(ARMED)] = {executor_armed_again}, [E(REARM)] = {executor_rearm}, [E(UNARMED)] = {executor_unarmed},
		[E(PROMOTED)] = IGNORE, [E(DEMOTED)] = {executor_demoted}, [E(BUSY)] = {executor_busy_draining},
		[E(DIED)] = {died_draining}, [E(GONE)] = {gone}, [E(DRAIN)] = {executor_drain_more},
		[E(LOSE)] = {lose}, [E(DEADLINE)] = {draining_deadline}, [E(COMMITTED)] = IGNORE,
		[E(NOT_COMMITTED)] = IGNORE, [E(WITHDRAWN)] = IGNORE,
	},
};
/* clang-format on */

bool executor_table_has(enum executor_state s, enum executor_event e)
{
	return rules[s][e].run != NULL;
}

void executor_handle(
	struct core *c, struct program *p, enum executor_event what, const struct event *e)
{
	const struct executor_rule *r = &rules[p->executor.state][what];

	if (r->run == NULL) {
		c->impossible++;
		core_report(c, REPORT_IMPOSSIBLE, core_program_slot(c, p), p->executor.worker,
			(int)p->executor.state, (int)what, "executor");
		return;
	}
	r->run(c, p, e);
}

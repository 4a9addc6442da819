#include <stddef.h>

#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/backoff.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/worker_fsm.h"

/* An executor that dies this soon after its promotion counts for the promotion backoff. */
#define SHORT_LIVED_NS	  (10 * CORE_SECOND)
#define PROMOTE_MAX_NS	  (60 * CORE_SECOND)
#define ARM_NS		  (1 * CORE_SECOND) /* election.md: no deadman armed within 1 s: demote */
#define COMMIT_NS	  (10 * CORE_SECOND)
#define FORK_NS		  (30 * CORE_SECOND)
#define RETRY_NS	  (1 * CORE_SECOND)
#define QUICK_DRAIN_NS	  (1 * CORE_SECOND)
#define GONE_NS		  (30 * CORE_SECOND)
#define COMING_NS	  (5 * CORE_SECOND)

/* As enum channel_reason (worker/channel.h), which a core may not include. */
enum demote_reason { DEMOTE_HANDOFF, DEMOTE_SHUTDOWN, DEMOTE_LOST };

static const char *const event_names[] = {
#define X(name) #name,
	EXECUTOR_EVENTS(X)
#undef X
};

const char *executor_event_name(enum executor_event e)
{
	return event_names[e];
}

static struct worker *worker_of(struct core *c, struct program *p)
{
	return core_worker(c, p->executor.worker);
}

bool executor_is(const struct core *c, const struct worker *w)
{
	const struct program *p = &c->programs[w->program];

	return p->executor.exists && p->executor.state != EXECUTOR_NONE &&
		p->executor.worker == core_worker_slot(c, w);
}

/* The one setter. */
static void executor_enter(struct core *c, struct program *p, enum executor_state s,
	const char *reason)
{
	struct executor *x = &p->executor;
	enum executor_state from = x->state;
	int worker = x->worker;

	x->state = s;
	x->since_ns = c->now_ns;
	x->reason = reason;
	x->deadline_ns = 0;
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

static struct action *push(struct core *c, struct program *p, enum action_kind kind)
{
	struct action *a = core_push(c, kind);
	struct worker *w = worker_of(c, p);

	a->program = core_program_slot(c, p);
	a->worker = p->executor.worker;
	a->id = w != NULL ? w->id : 0;
	a->term = p->executor.term;
	return a;
}

static void hook(struct core *c, struct program *p, enum hook kind)
{
	push(c, p, ACTION_HOOK)->hook = kind;
}

static void clear_page(struct core *c, struct program *p)
{
	if (p->executor.shown) {
		push(c, p, ACTION_PAGE_CLEAR);
		push(c, p, ACTION_DISARM);
	}
	p->executor.shown = false;
}

/* --- promotion ----------------------------------------------------------------------------- */
static void begin(struct core *c, struct program *p, int worker, enum promote_phase phase)
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
	x->deadline_ns = c->now_ns + (phase == PHASE_STOP ? GONE_NS : COMMIT_NS);
}

static void abandon(struct core *c, struct program *p, int64_t wait_ns, const char *reason)
{
	struct worker *w = worker_of(c, p);

	p->executor.not_before_ns = c->now_ns + wait_ns;
	executor_enter(c, p, EXECUTOR_NONE, reason);
	if (w == NULL || !w->used)
		return;
	if (w->held)
		worker_kill(c, w, AFTER_RESTART, "promotion abandoned");
	if (w->waits_promotion) {
		w->waits_promotion = false;
		worker_start(c, w);
	}
}

static void arm(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;

	x->phase = PHASE_ARM;
	x->armed = false;
	x->arm_by_ns = c->now_ns + ARM_NS;
	x->deadline_ns = 0;
	push(c, p, ACTION_ARM);
}

static void committed(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = worker_of(c, p);

	x->committing = false;
	x->term = e->term;
	if (p->settings->promote != PROMOTE_RESPAWN && p->settings->executor != EXECUTOR_ONLY) {
		arm(c, p);
		return;
	}
	if (!worker_is_down(w)) { /* started by somebody else meanwhile: burn the term, try again */
		abandon(c, p, 0, "its worker runs already");
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
	abandon(c, p, RETRY_NS, "the promotion is not in the database");
}

static void forked(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (p->executor.phase == PHASE_SPAWN)
		arm(c, p);
}

static void show(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;
	struct action *a = push(c, p, ACTION_PAGE_SHOW);

	a->soft_ns = c->election.soft_ns;
	a->deadline_ns = c->election.hard_ns;
	x->shown = true;
}

static void tell(struct core *c, struct program *p)
{
	struct worker *w = worker_of(c, p);

	if (w->settings->promote == PROMOTE_SIGNAL && !w->held)
		push(c, p, ACTION_SIGNAL)->signal = w->settings->promote_signal;
	push(c, p, ACTION_TELL_PROMOTE)->number = c->election.ttl_ns / CORE_MS;
	if (w->held)
		push(c, p, ACTION_RELEASE_CHILD);
}

static void armed(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	if (x->phase != PHASE_ARM)
		return;
	x->armed = true;
	x->arm_by_ns = 0;
	if (!election_may_promote(c)) {
		abandon(c, p, RETRY_NS, "the lease is about to end");
		return;
	}
	show(c, p);
	tell(c, p);
	x->promoted_ns = c->now_ns;
	x->answered = p->settings->promote != PROMOTE_NOTIFY || worker_of(c, p)->held;
	executor_enter(c, p, EXECUTOR_EXECUTING, "promoted");
	if (!x->answered)
		x->deadline_ns = c->now_ns + p->settings->promote_timeout_ns;
	hook(c, p, HOOK_PROMOTE);
}

static void armed_again(struct core *c, struct program *p, const struct event *e)
{
	(void)c;
	(void)e;
	p->executor.armed = true;
	p->executor.arm_by_ns = 0;
}

static void rearm(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	if (x->state == EXECUTOR_PROMOTING && x->phase != PHASE_ARM)
		return;
	if (x->state == EXECUTOR_DRAINING && !x->shown)
		return;
	push(c, p, ACTION_ARM);
	if (x->arm_by_ns == 0)
		x->arm_by_ns = c->now_ns + ARM_NS;
}

static void unarmed(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;

	(void)e;
	x->armed = false;
	if (x->shown || (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM))
		x->arm_by_ns = c->now_ns + ARM_NS;
}

/* --- draining ------------------------------------------------------------------------------ */
static int64_t drain_ns(const struct core *c, const struct program *p, int reason)
{
	int64_t grace = p->settings->handoff_timeout_ns;

	if (reason == DEMOTE_LOST || grace > c->election.hard_ns - c->now_ns) {
		int64_t left = c->election.hard_ns - c->now_ns;

		if (reason == DEMOTE_LOST)
			grace = left > 0 ? left : 0;
	}
	if (c->lifecycle.mode >= SHUTDOWN_QUICK && grace > QUICK_DRAIN_NS)
		grace = QUICK_DRAIN_NS;
	return grace;
}

/* The worker no longer executes (demoted), or has had its time (not demoted). */
static void finish_drain(struct core *c, struct program *p)
{
	struct executor *x = &p->executor;
	struct worker *w = worker_of(c, p);
	bool stop = x->stop_after;
	int slot = x->worker;

	x->deadline_ns = 0;
	x->arm_by_ns = 0;
	x->drained = true;
	if (x->demoted) {
		clear_page(c, p);
		executor_enter(c, p, EXECUTOR_NONE, "demoted");
		p->executor.last = slot;
	}
	if (w->draining)
		worker_handle(c, w, WORKER_EVENT_DRAINED, NULL);
	else if (stop || !x->demoted)
		worker_stop(c, w, AFTER_RESTART, "gives up the baton");
}

static void drain(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = worker_of(c, p);
	int reason = (int)e->number;
	int64_t grace = drain_ns(c, p, reason);
	struct action *a;

	hook(c, p, HOOK_DEMOTE);
	executor_enter(c, p, EXECUTOR_DRAINING, x->reason);
	x->stop_after = e->ok;
	x->demoted = x->drained = false;
	x->deadline_ns = c->now_ns + grace + 1;
	if (w->settings->promote == PROMOTE_RESPAWN || w->settings->executor == EXECUTOR_ONLY) {
		/* It knows nothing of demotion: its end is the demotion. */
		x->stop_after = true;
		finish_drain(c, p);
		return;
	}
	a = push(c, p, ACTION_TELL_DEMOTE);
	a->reason_code = reason;
	a->number = grace / CORE_MS;
	if (w->settings->promote == PROMOTE_SIGNAL) {
		x->stop_after = true;
		push(c, p, ACTION_SIGNAL)->signal = w->settings->demote_signal;
		if (!w->draining) { /* it is expected to exit: that is a stop, not a crash */
			worker_stop(c, w, AFTER_RESTART, "gives up the baton");
		}
	}
}

/* Asked again while draining: only ever sooner, and stop wins. */
static void drain_more(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	int64_t by = c->now_ns + drain_ns(c, p, (int)e->number) + 1;

	x->stop_after = x->stop_after || e->ok;
	if (x->deadline_ns != 0 && by < x->deadline_ns)
		x->deadline_ns = by;
}

static void drain_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	abandon(c, p, RETRY_NS, "drained before it was told");
}

void executor_drain(struct core *c, struct program *p, int reason, bool stop, const char *why)
{
	struct event e = {.kind = EVENT_KINDS, .worker = -1, .number = reason, .ok = stop};

	p->executor.reason = why;
	executor_handle(c, p, EXECUTOR_EVENT_DRAIN, &e);
}

static void demoted(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (worker_of(c, p)->term_sent)
		return; /* too late: its end is awaited */
	p->executor.demoted = true;
	if (p->executor.busy == 0)
		finish_drain(c, p);
	p->executor.demoted = p->executor.state == EXECUTOR_DRAINING;
}

/* `demoted` without being asked: it gives the baton back. */
static void demoted_itself(struct core *c, struct program *p, const struct event *e)
{
	int slot = p->executor.worker;

	(void)e;
	hook(c, p, HOOK_DEMOTE);
	clear_page(c, p);
	executor_enter(c, p, EXECUTOR_NONE, "gave the baton back");
	p->executor.last = slot;
	p->executor.not_before_ns = c->now_ns + RETRY_NS;
}

static void busy(struct core *c, struct program *p, const struct event *e)
{
	(void)c;
	p->executor.busy = e->number;
}

static void busy_draining(struct core *c, struct program *p, const struct event *e)
{
	p->executor.busy = e->number;
	if (e->number == 0 && p->executor.demoted)
		finish_drain(c, p);
}

static void promoted(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	(void)c;
	p->executor.answered = true;
	p->executor.deadline_ns = 0;
}

/* --- ends ---------------------------------------------------------------------------------- */
static void died(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	int64_t lived = c->now_ns - x->promoted_ns;

	(void)e;
	clear_page(c, p);
	x->short_lived = lived < SHORT_LIVED_NS ? x->short_lived + 1 : 0;
	x->not_before_ns = c->now_ns;
	if (x->short_lived > 1)
		x->not_before_ns += backoff_doubling(c->config->scheduler.promote_backoff_ns,
			PROMOTE_MAX_NS, x->short_lived - 1, 0);
	hook(c, p, HOOK_DEMOTE);
	executor_enter(c, p, EXECUTOR_DRAINING, "died");
	x->demoted = false;
	x->deadline_ns = c->now_ns + GONE_NS;
}

static void died_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (p->executor.phase == PHASE_STOP)
		return;
	clear_page(c, p);
	executor_enter(c, p, EXECUTOR_NONE, "died before it was told");
	p->executor.not_before_ns = c->now_ns;
}

static void died_draining(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	clear_page(c, p);
	p->executor.arm_by_ns = 0;
	p->executor.deadline_ns = c->now_ns + GONE_NS;
}

static void gone(struct core *c, struct program *p, const struct event *e)
{
	int slot = p->executor.worker;

	(void)e;
	clear_page(c, p);
	executor_enter(c, p, EXECUTOR_NONE, "its worker is gone");
	p->executor.last = slot;
}

static void gone_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	if (p->executor.phase == PHASE_STOP) { /* respawn: now its successor may be committed */
		p->executor.phase = PHASE_COMMIT;
		p->executor.deadline_ns = c->now_ns + COMMIT_NS;
		return;
	}
	executor_enter(c, p, EXECUTOR_NONE, "its worker is gone");
}

/* The lease is lost or over, or it hangs: page 0 first, then SIGKILL to all of it. */
static void lose(struct core *c, struct program *p, const struct event *e)
{
	struct worker *w = worker_of(c, p);
	enum worker_after after = w->state == WORKER_STOPPING ? w->after : AFTER_RESTART;

	(void)e;
	clear_page(c, p);
	if (p->executor.state == EXECUTOR_EXECUTING) {
		hook(c, p, HOOK_DEMOTE);
		executor_enter(c, p, EXECUTOR_DRAINING, "killed: its lease is over");
	}
	p->executor.demoted = false;
	p->executor.arm_by_ns = 0;
	p->executor.deadline_ns = c->now_ns + GONE_NS;
	if (!w->kill_sent)
		worker_kill(c, w, after, "its lease is over");
}

static void lose_promoting(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	clear_page(c, p);
	abandon(c, p, 0, "the lock is lost");
}

/* --- time ---------------------------------------------------------------------------------- */
static void promoting_deadline(struct core *c, struct program *p, const struct event *e)
{
	(void)e;
	abandon(c, p, RETRY_NS,
		p->executor.arm_by_ns != 0 ? "the deadman is not armed" : "promotion took too long");
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
	core_report(c, REPORT_UNANSWERED, core_program_slot(c, p), x->worker, 0, 0,
		"never answered the promotion");
	if (p->settings->promote_unanswered_replace)
		executor_drain(c, p, DEMOTE_HANDOFF, true, "never answered the promotion");
}

static void draining_deadline(struct core *c, struct program *p, const struct event *e)
{
	struct executor *x = &p->executor;
	struct worker *w = worker_of(c, p);

	(void)e;
	x->arm_by_ns = 0;
	if (x->deadline_ns == 0 || x->deadline_ns > c->now_ns)
		return;
	x->deadline_ns = c->now_ns + GONE_NS;
	if (!w->alive && w->tree)
		return; /* dead, its tree is being killed: the worker's machine repeats that */
	if (!w->term_sent) {
		x->reason = "did not answer in time";
		x->demoted = false;
		finish_drain(c, p);
		x->deadline_ns = c->now_ns + GONE_NS;
	}
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

#define IGNORE {ignore}
#define S(name) EXECUTOR_##name
#define E(name) EXECUTOR_EVENT_##name

/* clang-format off */
static const struct executor_rule rules[EXECUTOR_STATE_COUNT][EXECUTOR_EVENT_COUNT] = {
	[S(NONE)] = {
		[E(COMMITTED)] = IGNORE /* burnt */, [E(NOT_COMMITTED)] = IGNORE, [E(ARMED)] = IGNORE,
		[E(REARM)] = IGNORE, [E(UNARMED)] = IGNORE, [E(DRAIN)] = IGNORE, [E(LOSE)] = IGNORE,
		[E(DEADLINE)] = IGNORE,
	},
	[S(PROMOTING)] = {
		[E(COMMITTED)] = {committed}, [E(NOT_COMMITTED)] = {not_committed},
		[E(FORKED)] = {forked}, [E(ARMED)] = {armed}, [E(REARM)] = {rearm},
		[E(UNARMED)] = {unarmed}, [E(PROMOTED)] = IGNORE, [E(DEMOTED)] = IGNORE,
		[E(BUSY)] = IGNORE, [E(DIED)] = {died_promoting}, [E(GONE)] = {gone_promoting},
		[E(DRAIN)] = {drain_promoting}, [E(LOSE)] = {lose_promoting},
		[E(DEADLINE)] = {promoting_deadline},
	},
	[S(EXECUTING)] = {
		[E(ARMED)] = {armed_again}, [E(REARM)] = {rearm}, [E(UNARMED)] = {unarmed},
		[E(PROMOTED)] = {promoted}, [E(DEMOTED)] = {demoted_itself}, [E(BUSY)] = {busy},
		[E(DIED)] = {died}, [E(GONE)] = {gone}, [E(DRAIN)] = {drain}, [E(LOSE)] = {lose},
		[E(DEADLINE)] = {executing_deadline}, [E(COMMITTED)] = IGNORE,
		[E(NOT_COMMITTED)] = IGNORE,
	},
	[S(DRAINING)] = {
		[E(ARMED)] = {armed_again}, [E(REARM)] = {rearm}, [E(UNARMED)] = {unarmed},
		[E(PROMOTED)] = IGNORE, [E(DEMOTED)] = {demoted}, [E(BUSY)] = {busy_draining},
		[E(DIED)] = {died_draining}, [E(GONE)] = {gone}, [E(DRAIN)] = {drain_more},
		[E(LOSE)] = {lose}, [E(DEADLINE)] = {draining_deadline}, [E(COMMITTED)] = IGNORE,
		[E(NOT_COMMITTED)] = IGNORE,
	},
};
/* clang-format on */

bool executor_table_has(enum executor_state s, enum executor_event e)
{
	return rules[s][e].run != NULL;
}

void executor_handle(struct core *c, struct program *p, enum executor_event what,
	const struct event *e)
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

/* --- choosing ------------------------------------------------------------------------------ */
/* Settled longest, lowest index; of the newest generation where there is one. */
static bool better(const struct program *p, const struct worker *a, const struct worker *b)
{
	bool a_new = a->generation == p->generation, b_new = b->generation == p->generation;

	if (a_new != b_new)
		return a_new;
	if (a->ready_ns != b->ready_ns)
		return a->ready_ns < b->ready_ns;
	return a->index < b->index;
}

static int pick_ready(struct core *c, int program)
{
	struct program *p = &c->programs[program];
	int best = -1, fallback = -1;

	for (int i = core_next_worker(c, program, -1); i >= 0; i = core_next_worker(c, program, i)) {
		if (!worker_is_candidate(&c->workers[i]))
			continue;
		if (i == p->executor.next)
			return i;
		if (i == p->executor.last) {
			fallback = i;
			continue;
		}
		if (best < 0 || better(p, &c->workers[i], &c->workers[best]))
			best = i;
	}
	return best >= 0 ? best : fallback;
}

/* A worker that has no process now and would be started anyway. */
static int pick_down(struct core *c, int program)
{
	for (int i = core_next_worker(c, program, -1); i >= 0; i = core_next_worker(c, program, i)) {
		const struct worker *w = &c->workers[i];

		if (w->remove || w->parked || !worker_is_down(w) || w->index >= c->programs[program].wanted)
			continue;
		if (w->state == WORKER_STOPPED || w->state == WORKER_STANDBY)
			return i;
	}
	return -1;
}

/* Respawn: a worker that is about to be started anyway becomes the executor; no healthy one is
 * stopped while such a one is on its way. */
static bool one_is_coming(struct core *c, int program)
{
	for (int i = core_next_worker(c, program, -1); i >= 0; i = core_next_worker(c, program, i)) {
		const struct worker *w = &c->workers[i];

		if (w->remove || w->parked)
			continue;
		if (w->state == WORKER_STOPPING && w->after == AFTER_RESTART)
			return true;
		if (w->state == WORKER_BACKOFF && w->deadline_ns - c->now_ns < COMING_NS)
			return true;
	}
	return false;
}

static void run_one(struct core *c, int program)
{
	struct program *p = &c->programs[program];
	struct worker *w;
	int slot;

	if (p->settings->executor == EXECUTOR_ONLY) {
		slot = core_find_worker(c, program, 0);
		if (slot >= 0 && c->workers[slot].state == WORKER_STANDBY)
			begin(c, p, slot, PHASE_COMMIT);
		return;
	}
	if (p->settings->promote != PROMOTE_RESPAWN) {
		slot = pick_ready(c, program);
		if (slot >= 0)
			begin(c, p, slot, PHASE_COMMIT);
		return;
	}
	slot = p->executor.next >= 0 ? -1 : pick_down(c, program);
	if (slot >= 0 && !p->held_back) {
		begin(c, p, slot, PHASE_COMMIT);
		w = &c->workers[slot];
		w->waits_promotion = true;
		return;
	}
	slot = pick_ready(c, program);
	if (slot < 0 || (p->executor.next < 0 && one_is_coming(c, program)))
		return;
	begin(c, p, slot, PHASE_STOP);
	worker_stop(c, &c->workers[slot], AFTER_RESTART, "becomes executor");
}

void executor_run(struct core *c)
{
	if (!election_may_promote(c) || lifecycle_is_stopping(c))
		return;
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists && !p->leaving && p->wanted > 0 &&
			p->executor.state == EXECUTOR_NONE && p->executor.not_before_ns <= c->now_ns)
			run_one(c, i);
	}
}

bool executor_claims_spawn(struct core *c, struct worker *w)
{
	struct program *p = &c->programs[w->program];
	struct executor *x = &p->executor;
	int slot = core_worker_slot(c, w);

	if (!x->exists || p->settings->promote != PROMOTE_RESPAWN || lifecycle_is_stopping(c))
		return false;
	if (x->state == EXECUTOR_NONE && election_may_promote(c) && x->not_before_ns <= c->now_ns &&
		(x->next < 0 || x->next == slot))
		begin(c, p, slot, PHASE_COMMIT);
	if (x->state != EXECUTOR_PROMOTING || x->worker != slot || x->phase != PHASE_COMMIT)
		return false;
	worker_rest(c, w, WORKER_BACKOFF, "waits for its promotion");
	w->waits_promotion = true;
	w->deadline_ns = c->now_ns + COMMIT_NS;
	return true;
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
	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];

		if (!p->used || !p->executor.exists || p->wanted == 0)
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
	return false;
}

void executor_extend_all(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];
		struct action *a;

		if (!p->used || !p->executor.exists || !p->executor.shown)
			continue;
		a = push(c, p, ACTION_PAGE_EXTEND);
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
		push(c, p, ACTION_TELL_PROMOTE)->number = c->election.ttl_ns / CORE_MS;
	} else if (p->executor.state == EXECUTOR_DRAINING && w->alive) {
		struct action *a = push(c, p, ACTION_TELL_DEMOTE);

		a->reason_code = lifecycle_is_stopping(c) ? DEMOTE_SHUTDOWN : DEMOTE_HANDOFF;
		a->number = p->executor.deadline_ns > c->now_ns
			? (p->executor.deadline_ns - c->now_ns) / CORE_MS
			: 0;
	}
}

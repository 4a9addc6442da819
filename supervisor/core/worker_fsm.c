/* One worker: the machine. What follows an end is in worker_end.c. */
#include <assert.h>
#include <stddef.h>

#include "supervisor/core/worker_internal.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/rollout_fsm.h"

/* fork and exec together; only a hung file system takes this long. */
#define EXEC_NS (30 * CORE_SECOND)

static const char *const event_names[] = {
#define X(name) #name,
	WORKER_EVENTS(X)
#undef X
};

const char *worker_event_name(enum worker_event e)
{
	return event_names[e];
}

/* The one setter. */
void worker_enter(struct core *c, struct worker *w, enum worker_state s, const char *reason)
{
	enum worker_state from = w->state;

	w->state = s;
	w->since_ns = c->now_ns;
	w->reason = reason;
	w->deadline_ns = 0;
	if (s != WORKER_RUNNING)
		w->ready = false;
	worker_probe_end(c, w);
	worker_program(c, w)->dirty = true;
	core_report(
		c, REPORT_WORKER, w->program, core_worker_slot(c, w), (int)from, (int)s, reason);
	pool_worker_changed(c, w);
}

bool worker_is_down(const struct worker *w)
{
	return !w->tree;
}

bool worker_is_elsewhere(const struct core *c, const struct worker *w)
{
	const struct election *e = &c->election;

	return w->state == WORKER_STANDBY && e->decided && e->state != ELECTION_ACQUIRING &&
	       e->state != ELECTION_HOLDING;
}

bool worker_is_candidate(const struct worker *w)
{
	return w->used && w->state == WORKER_RUNNING && w->ready && w->alive && !w->remove;
}

/* --- starting ------------------------------------------------------------------------------ */
static void spawn(struct core *c, struct worker *w, bool held, int env, uint64_t term)
{
	struct program *p = worker_program(c, w);
	struct action *a;

	w->id = ++c->next_spawn_id;
	w->settings = rollout_settings(p, w, &w->generation);
	rollout_born(c, w);
	w->tree = true;
	w->alive = w->ready = w->draining = w->term_sent = w->kill_sent = false;
	w->waits_promotion = w->spawn_failed = w->execed = w->late = w->unhealthy = w->well = false;
	w->held = held;
	w->pid = 0;
	w->executor_env = env;
	w->term = term;
	w->after = AFTER_STOPPED;
	w->started_ns = c->now_ns;
	w->watchdog_ns = 0;
	a = core_push(c, ACTION_SPAWN);
	a->worker = core_worker_slot(c, w);
	a->program = w->program;
	a->id = w->id;
	a->held = held;
	a->executor_env = env;
	a->term = term;
	worker_enter(c, w, WORKER_STARTING, held ? "becomes executor" : "start");
	w->deadline_ns = c->now_ns + EXEC_NS;
}

void worker_spawn_executor(struct core *c, struct worker *w, uint64_t term)
{
	assert(worker_is_down(w));
	spawn(c, w, true, 1, term);
}

static void start(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = worker_program(c, w);

	(void)e;
	if (lifecycle_is_stopping(c)) {
		if (w->state != WORKER_STOPPED)
			worker_enter(c, w, WORKER_STOPPED, "the supervisor stops");
		return;
	}
	if (rollout_settings(p, w, &w->generation)->executor == EXECUTOR_ONLY) {
		w->settings = rollout_settings(p, w, &w->generation);
		if (w->state != WORKER_STANDBY)
			worker_enter(c, w, WORKER_STANDBY, "runs where the lock is held");
		return;
	}
	if (executor_claims_spawn(c, w))
		return;
	spawn(c, w, false, p->executor.exists && p->settings->promote == PROMOTE_RESPAWN ? 0 : -1,
		0);
}

void worker_begin(struct core *c, struct worker *w)
{
	start(c, w, NULL);
}

static void spawned(struct core *c, struct worker *w, const struct event *e)
{
	w->alive = true;
	w->pid = e->pid;
	if (w->held && w->state == WORKER_STARTING)
		executor_handle(c, worker_program(c, w), EXECUTOR_EVENT_FORKED, e);
}

void worker_become_ready(struct core *c, struct worker *w)
{
	w->failures = 0;
	w->settled_once = true;
	w->ready_ns = c->now_ns;
	worker_enter(c, w, WORKER_RUNNING, "ready");
	w->ready = true;
	if (w->settings->watchdog_ns > 0) {
		w->watchdog_ns = c->now_ns;
		w->deadline_ns = c->now_ns + w->settings->watchdog_ns;
	}
	worker_probe_health(c, w);
	pool_worker_changed(c, w);
}

static void execed(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	w->held = false;
	w->execed = true;
	if (w->settings->ready != READY_STARTSECS) {
		w->deadline_ns = c->now_ns + w->settings->ready_timeout_ns;
		if (w->settings->ready == READY_PROBE)
			worker_probe_begin(c, w);
	} else if (w->settings->startsecs_ns <= 0) {
		worker_become_ready(c, w);
	} else {
		w->deadline_ns = c->now_ns + w->settings->startsecs_ns;
	}
}

static void said_ready(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (w->settings->ready == READY_NOTIFY)
		worker_become_ready(c, w);
	else
		worker_probe_hint(c, w);
}

/* --- ending -------------------------------------------------------------------------------- */
static void send_kill(struct core *c, struct worker *w)
{
	struct action *a;
	bool tree = w->settings->kill_tree || executor_is(c, w) ||
		    w->settings->executor != EXECUTOR_NO;

	w->kill_ns = w->kill_sent ? w->kill_ns : c->now_ns;
	w->kill_sent = true;
	w->deadline_ns = c->now_ns + WORKER_REKILL_NS;
	if (w->pid == 0)
		return; /* not forked yet: SPAWNED comes, then again */
	a = core_push(c, tree ? ACTION_KILL_TREE : ACTION_SIGNAL);
	a->worker = core_worker_slot(c, w);
	a->id = w->id;
	a->signal = 9;
	a->group = w->settings->killasgroup;
}

static void send_term(struct core *c, struct worker *w)
{
	struct action *a;

	w->draining = false;
	w->term_sent = true;
	w->deadline_ns = c->now_ns + lifecycle_stop_ns(c, w->settings->stopwaitsecs_ns);
	if (!w->alive && w->pid == 0)
		return; /* not forked yet: SPAWNED comes, then again */
	a = core_push(c, ACTION_SIGNAL);
	a->worker = core_worker_slot(c, w);
	a->id = w->id;
	a->signal = w->settings->stopsignal;
	a->group = w->settings->stopasgroup;
}

void worker_stop_now(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = worker_program(c, w);
	bool executor = executor_is(c, w);

	(void)e;
	worker_enter(c, w, WORKER_STOPPING, w->reason);
	if (executor && p->executor.state == EXECUTOR_PROMOTING) {
		if (p->executor.phase != PHASE_STOP)
			executor_withdraw(c, w);
	} else if (executor && !p->executor.drained) {
		w->draining = true;
		executor_drain(c, p, lifecycle_is_stopping(c) ? 1 : 0, true, "its worker stops");
		return;
	}
	if (w->held) /* it has not begun: nothing to be graceful about */
		send_kill(c, w);
	else
		send_term(c, w);
}

static void spawned_late(struct core *c, struct worker *w, const struct event *e)
{
	w->alive = true;
	w->pid = e->pid;
	if (w->kill_sent)
		send_kill(c, w);
	else if (w->term_sent)
		send_term(c, w);
}

static void drained(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (w->draining && !w->term_sent)
		send_term(c, w);
}

/* An executor's page first. */
void worker_kill_now(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = worker_program(c, w);

	(void)e;
	if (w->state != WORKER_STOPPING)
		worker_enter(c, w, WORKER_STOPPING, w->reason);
	w->draining = false;
	if (executor_is(c, w) && p->executor.state == EXECUTOR_PROMOTING &&
		p->executor.phase != PHASE_STOP)
		executor_withdraw(c, w);
	else if (executor_is(c, w) && p->executor.shown)
		executor_handle(c, p, EXECUTOR_EVENT_LOSE, NULL); /* comes back here */
	if (!w->kill_sent)
		send_kill(c, w);
}

/* --- time ---------------------------------------------------------------------------------- */
void worker_not_ready(struct core *c, struct worker *w, const char *reason)
{
	w->failures++;
	w->after = w->settings->startretries >= 0 && w->failures > w->settings->startretries
			   ? AFTER_FATAL
			   : AFTER_BACKOFF;
	w->late = true;
	w->reason = reason;
	worker_kill_now(c, w, NULL);
}

static void starting_deadline(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (!w->alive || !w->execed || w->settings->ready != READY_STARTSECS ||
		c->now_ns - w->started_ns < w->settings->startsecs_ns)
		worker_not_ready(c, w, "not ready in time");
	else
		worker_become_ready(c, w);
}

/* The only deadline of a running worker is its watchdog. */
static void running_deadline(struct core *c, struct worker *w, const struct event *e)
{
	worker_unfit(c, w);
	w->reason = "watchdog: no WATCHDOG=1 in time";
	worker_kill_now(c, w, e);
}

static void stopping_deadline(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (w->kill_sent && c->now_ns - w->kill_ns >= WORKER_REKILL_NS)
		core_report(c, REPORT_WORKER, w->program, core_worker_slot(c, w), WORKER_STOPPING,
			WORKER_STOPPING, "does not end after SIGKILL");
	send_kill(c, w);
}

static void retry(struct core *c, struct worker *w, const struct event *e)
{
	w->deadline_ns = 0;
	if (w->state == WORKER_FATAL)
		w->failures = 0;
	start(c, w, e);
}

static void watchdog(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	w->watchdog_ns = c->now_ns;
	w->well = true;
	rollout_judge(c, worker_program(c, w), w, true);
	if (w->settings->watchdog_ns > 0)
		w->deadline_ns = c->now_ns + w->settings->watchdog_ns;
}

static void extend(struct core *c, struct worker *w, const struct event *e)
{
	if (w->deadline_ns != 0 && e->number > 0 && e->number < 3600 * INT64_C(1000000) &&
		c->now_ns + e->number * 1000 > w->deadline_ns && !w->kill_sent)
		w->deadline_ns = c->now_ns + e->number * 1000;
}

static void start_later(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	(void)c;
	if (!w->remove)
		w->after = AFTER_RESTART;
}

static void stop_resting(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	w->waits_promotion = false;
	executor_withdraw(c, w);
	if (w->remove) {
		worker_enter(c, w, WORKER_STOPPED, "removed");
		w->used = false;
		return;
	}
	if (w->after == AFTER_RESTART)
		start(c, w, NULL);
	else
		worker_enter(c, w, WORKER_STOPPED, w->reason);
}

static void ignore(struct core *c, struct worker *w, const struct event *e)
{
	(void)c;
	(void)w;
	(void)e;
}

struct worker_rule {
	void (*run)(struct core *c, struct worker *w, const struct event *e);
};

#define IGNORE                                                                                     \
	{                                                                                          \
		ignore                                                                             \
	}
#define S(name) WORKER_##name
#define E(name) WORKER_EVENT_##name

/* clang-format off */
static const struct worker_rule rules[WORKER_STATE_COUNT][WORKER_EVENT_COUNT] = {
	[S(STOPPED)] = {
		[E(START)] = {start}, [E(STOP)] = {stop_resting}, [E(KILL)] = {stop_resting},
		[E(DEADLINE)] = IGNORE, [E(DRAINED)] = IGNORE, [E(PROBE_DUE)] = IGNORE,
	},
	[S(STANDBY)] = {
		[E(START)] = IGNORE, [E(STOP)] = {stop_resting}, [E(KILL)] = {stop_resting},
		[E(DEADLINE)] = IGNORE, [E(DRAINED)] = IGNORE, [E(PROBE_DUE)] = IGNORE,
	},
	[S(EXITED)] = {
		[E(START)] = {start}, [E(STOP)] = {stop_resting}, [E(KILL)] = {stop_resting},
		[E(DEADLINE)] = IGNORE, [E(DRAINED)] = IGNORE, [E(PROBE_DUE)] = IGNORE,
	},
	[S(FATAL)] = {
		[E(START)] = {start}, [E(STOP)] = {stop_resting}, [E(KILL)] = {stop_resting},
		[E(DEADLINE)] = {retry}, [E(DRAINED)] = IGNORE, [E(PROBE_DUE)] = IGNORE,
	},
	[S(BACKOFF)] = {
		[E(START)] = {start}, [E(STOP)] = {stop_resting}, [E(KILL)] = {stop_resting},
		[E(DEADLINE)] = {retry}, [E(DRAINED)] = IGNORE, [E(PROBE_DUE)] = IGNORE,
	},
	[S(STARTING)] = {
		[E(START)] = IGNORE, [E(STOP)] = {worker_stop_now}, [E(KILL)] = {worker_kill_now},
		[E(SPAWNED)] = {spawned}, [E(SPAWN_FAILED)] = {worker_spawn_failed}, [E(EXECED)] = {execed},
		[E(READY)] = {said_ready}, [E(DIED)] = {worker_died}, [E(EXTEND)] = {extend},
		[E(WATCHDOG)] = IGNORE, [E(DEADLINE)] = {starting_deadline}, [E(DRAINED)] = IGNORE,
		[E(PROBE_DUE)] = {worker_probe_due}, [E(PROBE_OK)] = {worker_probe_ok_starting},
		[E(PROBE_FAILED)] = {worker_probe_failed_starting},
	},
	[S(RUNNING)] = {
		[E(START)] = IGNORE, [E(STOP)] = {worker_stop_now}, [E(KILL)] = {worker_kill_now},
		[E(EXECED)] = IGNORE, [E(READY)] = IGNORE, [E(DIED)] = {worker_died}, [E(EXTEND)] = {extend},
		[E(WATCHDOG)] = {watchdog}, [E(DEADLINE)] = {running_deadline}, [E(DRAINED)] = IGNORE,
		[E(PROBE_DUE)] = {worker_probe_due}, [E(PROBE_OK)] = {worker_probe_ok_running},
		[E(PROBE_FAILED)] = {worker_probe_failed_running},
	},
	[S(STOPPING)] = {
		[E(START)] = {start_later}, [E(STOP)] = IGNORE, [E(KILL)] = {worker_kill_now},
		[E(SPAWNED)] = {spawned_late}, [E(SPAWN_FAILED)] = {worker_spawn_failed_stopping},
		[E(EXECED)] = IGNORE, [E(READY)] = IGNORE, [E(DIED)] = {worker_died_stopping},
		[E(GONE)] = {worker_gone}, [E(DRAINED)] = {drained}, [E(EXTEND)] = {extend},
		[E(WATCHDOG)] = IGNORE, [E(DEADLINE)] = {stopping_deadline}, [E(PROBE_DUE)] = IGNORE,
		[E(PROBE_OK)] = IGNORE, [E(PROBE_FAILED)] = IGNORE,
	},
};
/* clang-format on */

bool worker_table_has(enum worker_state s, enum worker_event e)
{
	return rules[s][e].run != NULL;
}

void worker_handle(struct core *c, struct worker *w, enum worker_event what, const struct event *e)
{
	const struct worker_rule *r = &rules[w->state][what];

	if (what == WORKER_EVENT_DEADLINE)
		w->deadline_ns = 0;
	if (what == WORKER_EVENT_PROBE_DUE)
		w->probe_at_ns = 0;
	if (r->run == NULL) {
		c->impossible++;
		core_report(c, REPORT_IMPOSSIBLE, w->program, core_worker_slot(c, w), (int)w->state,
			(int)what, "worker");
		return;
	}
	r->run(c, w, e);
}

void worker_start(struct core *c, struct worker *w)
{
	if (w->state != WORKER_BACKOFF || !w->waits_promotion)
		worker_handle(c, w, WORKER_EVENT_START, NULL);
}

void worker_stop(struct core *c, struct worker *w, enum worker_after after, const char *reason)
{
	w->after = after;
	w->reason = reason;
	worker_handle(c, w, WORKER_EVENT_STOP, NULL);
}

void worker_kill(struct core *c, struct worker *w, enum worker_after after, const char *reason)
{
	w->after = after;
	w->reason = reason;
	worker_handle(c, w, WORKER_EVENT_KILL, NULL);
}

void worker_rest(struct core *c, struct worker *w, enum worker_state s, const char *reason)
{
	assert(worker_is_down(w));
	worker_enter(c, w, s, reason);
}

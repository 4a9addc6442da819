#include <stddef.h>
#include <string.h>

#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/pool.h"

#define RETRY_NS	(1 * CORE_SECOND)
#define QUICK_RETRY_NS	(50 * CORE_MS)
#define ANSWER_NS	(8 * CORE_SECOND) /* the keeper itself gives up on a busy database after 2 s */
#define LATE_NS		(1 * CORE_SECOND)
#define PID1_NS		(100 * CORE_MS) /* the kernel kills the rest of that PID namespace */
#define WHEN_HELD_NS	(300 * CORE_MS) /* a waiter may prove that the holder is dead */
#define RELEASE_TRIES	10
#define RELEASE_NS	(200 * CORE_MS)
#define CLOCK_SANE_US	(INT64_C(1) << 53)

static const char *const event_names[] = {
#define X(name) #name,
	ELECTION_EVENTS(X)
#undef X
};

const char *election_event_name(enum election_event e)
{
	return event_names[e];
}

static const struct config_scheduler *settings(const struct core *c)
{
	return &c->config->scheduler;
}

int64_t election_lease_ns(int64_t ttl_ns, int64_t kill_grace_ns)
{
	return ttl_ns - ttl_ns / 50 - kill_grace_ns;
}

static int64_t earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The one setter. */
static void election_enter(struct core *c, enum election_state s, const char *reason)
{
	enum election_state from = c->election.state;

	c->election.state = s;
	c->election.since_ns = c->now_ns;
	c->election.reason = reason;
	pool_touch_all(c);
	core_report(c, REPORT_ELECTION, -1, -1, (int)from, (int)s, reason);
}

static void remark(struct core *c, const char *reason)
{
	core_report(c, REPORT_LOCK, -1, -1, 0, 0, reason);
}

static void wait_guard(struct core *c, int64_t epoch)
{
	if (c->election.waiting_epoch == epoch)
		return;
	c->election.waiting_epoch = epoch;
	core_push(c, ACTION_WAIT_GUARD)->number = epoch;
}

static void unlock_guard(struct core *c, int64_t epoch)
{
	core_push(c, ACTION_GUARD_UNLOCK)->number = epoch;
}

/* The database does not answer: a state that is told once, and lived through. */
static void set_unavailable(struct core *c, const char *reason)
{
	struct election *e = &c->election;

	e->decided = true;
	if (!e->unavailable) {
		e->unavailable_since_ns = c->now_ns;
		remark(c, reason);
	}
	e->unavailable = true;
}

static void set_available(struct core *c)
{
	struct election *e = &c->election;

	e->decided = true;
	if (e->unavailable || e->wrong)
		remark(c, "available-again");
	e->unavailable = e->wrong = false;
}

static void send(struct core *c, enum request_op op)
{
	struct election *e = &c->election;
	struct core_request *r = &e->request;

	memset(r, 0, sizeof *r);
	r->id = ++c->next_request_id;
	r->op = op;
	r->epoch = e->epoch;
	r->term = e->term;
	r->ttl_ns = settings(c)->ttl_ns;
	r->program = r->worker = -1;
	e->sent_ns = c->now_ns;
	e->answer_by_ns = c->now_ns + ANSWER_NS;
}

static void push_request(struct core *c)
{
	core_push(c, ACTION_REQUEST)->request = c->election.request;
}

/* --- standby ------------------------------------------------------------------------------- */
static void acquire(struct core *c, const char *reason)
{
	struct election *e = &c->election;
	const struct lock_view *v = &e->view;
	int64_t epoch = v->term + 1;

	if (v->floor_term + 1 > epoch)
		epoch = v->floor_term + 1;
	if (v->wall_us > epoch && v->wall_us < CLOCK_SANE_US)
		epoch = v->wall_us;
	wait_guard(c, 0);
	e->epoch = e->term = epoch;
	e->inspect_wanted = false;
	election_enter(c, ELECTION_ACQUIRING, reason);
	send(c, REQUEST_ACQUIRE);
	e->request.expect = *v;
	e->request.reason = reason;
	e->t0_ns = e->sent_ns;
	push_request(c);
}

static void stand_by(struct core *c, int64_t look_in_ns, const char *reason)
{
	struct election *e = &c->election;

	e->inspect_ns = c->now_ns + look_in_ns;
	e->inspect_wanted = false;
	e->watching = false;
	e->epoch = e->term = 0;
	e->soft_ns = e->hard_ns = e->renew_ns = 0;
	e->failing = false;
	e->candidateless_ns = 0;
	if (e->stop_after_release) {
		e->inspect_ns = 0;
		wait_guard(c, 0);
		election_enter(c, ELECTION_OFF, reason);
	} else {
		election_enter(c, ELECTION_STANDBY, reason);
	}
}

static bool same_sight(const struct lock_view *a, const struct lock_view *b)
{
	return a->held == b->held && a->term == b->term && a->beat == b->beat &&
		strcmp(a->holder, b->holder) == 0 && strcmp(a->db_uuid, b->db_uuid) == 0;
}

static void watch(struct core *c, const struct lock_view *seen)
{
	struct election *e = &c->election;

	if (!e->watching || !same_sight(&e->view, seen)) {
		e->watching = true;
		e->watch_since_ns = c->now_ns;
	}
	e->view = *seen;
}

static void tell_held(struct core *c)
{
	struct election *e = &c->election;

	if (e->held_told && e->told_epoch == e->view.epoch &&
		strcmp(e->told_holder, e->view.holder) == 0)
		return;
	e->held_told = true;
	e->told_epoch = e->view.epoch;
	memcpy(e->told_holder, e->view.holder, sizeof e->told_holder);
	remark(c, "held-elsewhere");
	core_push(c, ACTION_HOOK)->hook = HOOK_STANDBY;
}

/* What the kernel said about the holder's byte: true when that settles the matter. */
static bool look_at_proof(struct core *c)
{
	struct election *e = &c->election;
	const struct lock_view *v = &e->view;

	if (e->free_epoch != v->epoch || v->epoch == 0)
		return false;
	if (v->same_boot && e->cleared == v->epoch) {
		acquire(c, "takeover: the holder and its executors are dead");
		return true;
	}
	if (v->same_boot && v->pid1) {
		if (c->now_ns - e->free_since_ns >= PID1_NS) {
			acquire(c, "takeover: the holder's container is gone");
			return true;
		}
		e->inspect_ns = earliest(e->inspect_ns, e->free_since_ns + PID1_NS);
		return false;
	}
	if (!v->same_boot && v->same_machine) {
		acquire(c, "takeover: the machine was restarted");
		return true;
	}
	if (e->told_epoch != -v->epoch) {
		e->told_epoch = -v->epoch; /* held_told stays: said in another way now */
		remark(c, "holder-dead-unproven");
	}
	return false;
}

static void look_at_held(struct core *c)
{
	struct election *e = &c->election;
	const struct lock_view *v = &e->view;
	int64_t ttl = v->ttl_ns > CORE_SECOND / 10 ? v->ttl_ns : settings(c)->ttl_ns;

	if (v->mine) {
		acquire(c, "own row of a lease that has ended");
		return;
	}
	e->inspect_ns = earliest(c->now_ns + settings(c)->heartbeat_ns, e->watch_since_ns + ttl);
	if (e->inspect_ns <= c->now_ns) {
		acquire(c, "takeover: no heartbeat for a whole ttl");
		return;
	}
	if (e->told_epoch != -v->epoch)
		tell_held(c);
	if (look_at_proof(c))
		return;
	if (settings(c)->fast_takeover && (v->same_boot || v->same_machine) &&
		e->free_epoch != v->epoch)
		wait_guard(c, v->epoch);
	if (settings(c)->when_held_exit) {
		if (c->now_ns - e->watch_since_ns >= WHEN_HELD_NS)
			lifecycle_shutdown(c, SHUTDOWN_GRACEFUL, 75, "the lock is held by another");
		else
			e->inspect_ns = earliest(e->inspect_ns, e->watch_since_ns + WHEN_HELD_NS);
	}
}

static void look(struct core *c)
{
	struct election *e = &c->election;
	const struct lock_view *v = &e->view;
	int64_t ttl = v->ttl_ns > settings(c)->ttl_ns ? v->ttl_ns : settings(c)->ttl_ns;

	if (lifecycle_is_stopping(c))
		return;
	if (v->floor_conflict) {
		if (c->now_ns - e->watch_since_ns >= ttl) {
			acquire(c, "above the floor, after a whole ttl of silence");
			return;
		}
		if (!e->conflict_told)
			remark(c, "floor-conflict");
		e->conflict_told = true;
		e->inspect_ns =
			earliest(c->now_ns + settings(c)->heartbeat_ns, e->watch_since_ns + ttl);
		return;
	}
	e->conflict_told = false;
	if (v->held) {
		look_at_held(c);
		return;
	}
	wait_guard(c, 0);
	if (c->now_ns >= e->stay_out_ns)
		acquire(c, "the lock is free");
	else
		e->inspect_ns = e->stay_out_ns;
}

static void seen_standby(struct core *c, const struct event *ev)
{
	set_available(c);
	watch(c, &ev->reply->view);
	c->election.first_look = false;
	look(c);
}

static void not_seen_standby(struct core *c, const struct event *ev)
{
	(void)ev;
	set_unavailable(c, "unavailable");
	c->election.inspect_ns =
		c->now_ns + earliest(RETRY_NS, settings(c)->heartbeat_ns);
}

static void wrong_standby(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	if (!e->wrong)
		remark(c, "wrong");
	e->wrong = true;
	e->decided = true;
	e->inspect_ns = c->now_ns + settings(c)->heartbeat_ns;
	if (e->first_look)
		lifecycle_shutdown(c, SHUTDOWN_QUICK, 78, "the lock database cannot be used");
}

static void guard_free(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	e->waiting_epoch = 0;
	e->free_epoch = ev->number;
	e->cleared = ev->cleared;
	e->free_since_ns = c->now_ns;
	e->inspect_ns = c->now_ns;
}

static void changed_standby(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.inspect_ns = c->now_ns;
}

static void begin(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.first_look = true;
	stand_by(c, 0, "start");
}

static void shutdown_standby(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
	stand_by(c, 0, "the supervisor stops");
}

/* --- acquiring ----------------------------------------------------------------------------- */
static void set_lease(struct core *c, int64_t t0_ns, int64_t ttl_ns)
{
	struct election *e = &c->election;

	e->t0_ns = t0_ns;
	e->ttl_ns = ttl_ns;
	e->hard_ns = t0_ns + election_lease_ns(ttl_ns, settings(c)->kill_grace_ns);
	e->soft_ns = e->hard_ns - settings(c)->kill_grace_ns;
	e->renew_ns = t0_ns + settings(c)->heartbeat_ns;
	e->failing = e->lease_lost_told = false;
}

static void start_release(struct core *c, const char *reason)
{
	c->election.release_tries = 0;
	c->election.inspect_wanted = false;
	election_enter(c, ELECTION_RELEASING, reason);
}

static void acquired(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	set_available(c);
	memcpy(e->db_uuid, ev->reply->view.db_uuid, sizeof e->db_uuid);
	e->view = ev->reply->view;
	e->term = ev->reply->view.term > e->epoch ? ev->reply->view.term : e->epoch;
	e->held_told = e->conflict_told = false;
	e->free_epoch = 0;
	e->candidateless_ns = 0;
	set_lease(c, e->t0_ns, e->request.ttl_ns > 0 ? e->request.ttl_ns : settings(c)->ttl_ns);
	if (c->now_ns >= e->soft_ns || e->stop_after_release) {
		start_release(c, "acquired too late");
		return;
	}
	election_enter(c, ELECTION_HOLDING, e->reason);
	if (ev->reply->floor_failed)
		remark(c, "floor-failed");
	core_push(c, ACTION_HOOK)->hook = HOOK_HOLDER;
}

static void not_acquired(struct core *c, const struct event *ev)
{
	unlock_guard(c, c->election.epoch);
	stand_by(c, 0, "another instance was quicker");
	if (ev->reply->view.valid && c->election.state == ELECTION_STANDBY) {
		set_available(c);
		watch(c, &ev->reply->view);
		look(c);
	}
}

static void guard_busy(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.request.op = REQUEST_NONE;
	stand_by(c, QUICK_RETRY_NS + (int64_t)(core_random(c) % (uint64_t)QUICK_RETRY_NS),
		"another instance is acquiring");
}

static void unknown_acquiring(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	set_unavailable(c, "unavailable");
	e->inspect_wanted = true;
	e->inspect_ns = c->now_ns + QUICK_RETRY_NS;
}

/* The answer to "did it happen?" */
static void seen_acquiring(struct core *c, const struct event *ev)
{
	const struct lock_view *v = &ev->reply->view;
	struct election *e = &c->election;

	if (v->held && v->mine && v->epoch == e->epoch) {
		e->request.ttl_ns = v->ttl_ns;
		acquired(c, ev);
		return;
	}
	not_acquired(c, ev);
}

static void not_seen_acquiring(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	set_unavailable(c, "unavailable");
	e->inspect_wanted = true;
	e->inspect_ns = c->now_ns + RETRY_NS;
	if (c->now_ns - e->t0_ns >= election_lease_ns(settings(c)->ttl_ns, settings(c)->kill_grace_ns)) {
		unlock_guard(c, e->epoch);
		stand_by(c, RETRY_NS, "the database did not answer");
	}
}

static void shutdown_acquiring(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
}

/* --- holding ------------------------------------------------------------------------------- */
static void each_executor(struct core *c, enum executor_event what)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists)
			executor_handle(c, p, what, NULL);
	}
}

/* The lease is over, proven or by the clock: never resumed in this epoch. */
static void lose(struct core *c, const char *reason)
{
	struct election *e = &c->election;

	election_enter(c, ELECTION_LOST, reason);
	e->soft_ns = e->hard_ns = e->renew_ns = 0;
	e->inspect_wanted = false;
	each_executor(c, EXECUTOR_EVENT_LOSE);
}

static void renewed(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	set_available(c);
	e->view = ev->reply->view;
	e->inspect_wanted = false;
	set_lease(c, e->sent_ns, e->request.ttl_ns);
	executor_extend_all(c);
}

static bool still_ours(const struct core *c, const struct lock_view *v)
{
	return v->valid && v->held && v->mine && v->epoch == c->election.epoch &&
		!v->floor_conflict &&
		(c->election.db_uuid[0] == '\0' || strcmp(v->db_uuid, c->election.db_uuid) == 0);
}

static void not_renewed(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	if (ev->reply->outcome == OUTCOME_REFUSED && still_ours(c, &ev->reply->view)) {
		/* An unknown promotion did happen: its term is the row's, and burnt. */
		e->term = ev->reply->view.term;
		e->renew_ns = c->now_ns;
		return;
	}
	lose(c, ev->reply->outcome == OUTCOME_MOVED ? "the database file was replaced or deleted"
						    : "another instance holds the lock");
}

static void unknown_holding(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	set_unavailable(c, "unavailable");
	e->failing = true;
	e->inspect_wanted = true;
	e->inspect_ns = c->now_ns + earliest(RETRY_NS, settings(c)->heartbeat_ns);
}

static void seen_holding(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	e->inspect_wanted = false;
	if (!still_ours(c, &ev->reply->view)) {
		lose(c, ev->reply->view.floor_conflict ? "the database was replaced or restored"
						       : "another instance holds the lock");
		return;
	}
	e->view = ev->reply->view;
	e->term = ev->reply->view.term;
	if (e->failing)
		e->renew_ns = c->now_ns;
}

static void wrong_holding(struct core *c, const struct event *ev)
{
	if (!c->election.wrong)
		remark(c, "wrong");
	c->election.wrong = true;
	unknown_holding(c, ev);
}

static void changed_holding(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.inspect_wanted = true;
	c->election.inspect_ns = c->now_ns;
}

static void step_down(struct core *c, const struct event *ev)
{
	(void)ev;
	start_release(c, "steps down");
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists)
			executor_drain(c, p, 0, false, "the instance steps down");
	}
}

static void shutdown_holding(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
	start_release(c, "the supervisor stops");
}

static void shutdown_later(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
}

/* --- releasing, lost ----------------------------------------------------------------------- */
static void leave(struct core *c, const char *reason)
{
	struct election *e = &c->election;

	core_push(c, ACTION_GUARD_MARK)->number = e->epoch;
	unlock_guard(c, e->epoch);
	e->stay_out_ns = c->now_ns + 2 * settings(c)->heartbeat_ns;
	e->held_told = false;
	stand_by(c, settings(c)->heartbeat_ns, reason);
}

static void released(struct core *c, const struct event *ev)
{
	if (ev->reply->outcome == OUTCOME_DONE)
		set_available(c);
	leave(c, "released");
}

static void not_released(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	e->inspect_wanted = false;
	e->renew_ns = c->now_ns + RELEASE_NS;
	if (++e->release_tries >= RELEASE_TRIES) {
		remark(c, "not-released");
		leave(c, "the database did not take the release");
	}
}

static void unknown_releasing(struct core *c, const struct event *ev)
{
	if (ev->reply != NULL && ev->reply->op != REQUEST_RELEASE)
		unknown_holding(c, ev);
	else
		not_released(c, ev);
}

static void not_renewed_releasing(struct core *c, const struct event *ev)
{
	not_renewed(c, ev);
}

static void executors_gone_lost(struct core *c, const struct event *ev)
{
	(void)ev;
	core_push(c, ACTION_GUARD_MARK)->number = c->election.epoch;
	unlock_guard(c, c->election.epoch);
	c->election.held_told = false;
	stand_by(c, 0, c->election.reason);
}

static void executors_gone_releasing(struct core *c, const struct event *ev)
{
	(void)ev;
	if (c->election.release_tries > 0 && c->now_ns < c->election.renew_ns)
		return;
	send(c, REQUEST_RELEASE);
	c->election.request.reason = c->election.reason;
	push_request(c);
}

static void tick_holding(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	if (c->now_ns >= e->hard_ns) {
		lose(c, "the lease ended before it could be renewed");
		return;
	}
	if (!e->failing || e->lease_lost_told ||
		c->now_ns < e->soft_ns - settings(c)->heartbeat_ns)
		return;
	e->lease_lost_told = true;
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists)
			executor_drain(c, p, 2, false, "the lease cannot be renewed");
	}
}

static void ignore(struct core *c, const struct event *ev)
{
	(void)c;
	(void)ev;
}

struct election_rule {
	void (*run)(struct core *c, const struct event *e);
};

#define IGNORE {ignore}
#define S(name) ELECTION_##name
#define E(name) ELECTION_EVENT_##name

/* clang-format off */
static const struct election_rule rules[ELECTION_STATE_COUNT][ELECTION_EVENT_COUNT] = {
	[S(OFF)] = {
		[E(BEGIN)] = {begin}, [E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = IGNORE,
		[E(STEP_DOWN)] = IGNORE, [E(SHUTDOWN)] = {shutdown_later}, [E(SEEN)] = IGNORE,
		[E(NOT_SEEN)] = IGNORE, [E(WRONG)] = IGNORE, [E(TICK)] = IGNORE,
		[E(EXECUTORS_GONE)] = IGNORE, [E(RENEWED)] = IGNORE, [E(NOT_RENEWED)] = IGNORE,
		[E(UNKNOWN)] = IGNORE, [E(RELEASED)] = IGNORE,
	},
	[S(STANDBY)] = {
		[E(SEEN)] = {seen_standby}, [E(NOT_SEEN)] = {not_seen_standby},
		[E(WRONG)] = {wrong_standby}, [E(GUARD_FREE)] = {guard_free},
		[E(CHANGED)] = {changed_standby}, [E(STEP_DOWN)] = IGNORE,
		[E(SHUTDOWN)] = {shutdown_standby}, [E(TICK)] = IGNORE,
		[E(RENEWED)] = IGNORE, [E(NOT_RENEWED)] = IGNORE, [E(UNKNOWN)] = IGNORE,
		[E(RELEASED)] = IGNORE, [E(EXECUTORS_GONE)] = IGNORE,
	},
	[S(ACQUIRING)] = {
		[E(ACQUIRED)] = {acquired}, [E(NOT_ACQUIRED)] = {not_acquired},
		[E(UNKNOWN)] = {unknown_acquiring}, [E(SEEN)] = {seen_acquiring},
		[E(NOT_SEEN)] = {not_seen_acquiring}, [E(WRONG)] = {not_seen_acquiring},
		[E(GUARD_BUSY)] = {guard_busy}, [E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = IGNORE,
		[E(STEP_DOWN)] = IGNORE, [E(SHUTDOWN)] = {shutdown_acquiring}, [E(TICK)] = IGNORE,
		[E(EXECUTORS_GONE)] = IGNORE,
	},
	[S(HOLDING)] = {
		[E(RENEWED)] = {renewed}, [E(NOT_RENEWED)] = {not_renewed},
		[E(UNKNOWN)] = {unknown_holding}, [E(SEEN)] = {seen_holding},
		[E(NOT_SEEN)] = {unknown_holding}, [E(WRONG)] = {wrong_holding},
		[E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = {changed_holding},
		[E(STEP_DOWN)] = {step_down}, [E(SHUTDOWN)] = {shutdown_holding},
		[E(TICK)] = {tick_holding}, [E(EXECUTORS_GONE)] = IGNORE,
	},
	[S(RELEASING)] = {
		[E(RENEWED)] = {renewed}, [E(NOT_RENEWED)] = {not_renewed_releasing},
		[E(UNKNOWN)] = {unknown_releasing}, [E(SEEN)] = {seen_holding},
		[E(NOT_SEEN)] = {unknown_holding}, [E(WRONG)] = {wrong_holding},
		[E(RELEASED)] = {released}, [E(GUARD_FREE)] = IGNORE,
		[E(CHANGED)] = {changed_holding}, [E(STEP_DOWN)] = IGNORE,
		[E(SHUTDOWN)] = {shutdown_later}, [E(TICK)] = {tick_holding},
		[E(EXECUTORS_GONE)] = {executors_gone_releasing},
	},
	[S(LOST)] = {
		[E(RENEWED)] = IGNORE, [E(NOT_RENEWED)] = IGNORE, [E(UNKNOWN)] = IGNORE,
		[E(RELEASED)] = IGNORE, [E(SEEN)] = IGNORE, [E(NOT_SEEN)] = IGNORE,
		[E(WRONG)] = IGNORE, [E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = IGNORE,
		[E(STEP_DOWN)] = IGNORE, [E(SHUTDOWN)] = {shutdown_later}, [E(TICK)] = IGNORE,
		[E(EXECUTORS_GONE)] = {executors_gone_lost},
	},
};
/* clang-format on */

bool election_table_has(enum election_state s, enum election_event e)
{
	return rules[s][e].run != NULL;
}

void election_handle(struct core *c, enum election_event what, const struct event *e)
{
	const struct election_rule *r = &rules[c->election.state][what];

	if (r->run == NULL) {
		c->impossible++;
		core_report(c, REPORT_IMPOSSIBLE, -1, -1, (int)c->election.state, (int)what,
			"election");
		return;
	}
	r->run(c, e);
}

/* --- the keeper's answers ------------------------------------------------------------------ */
static void promote_reply(struct core *c, const struct event *ev, const struct core_request *r)
{
	struct program *p = &c->programs[r->program];
	struct event told = *ev;
	bool done = ev->reply->outcome == OUTCOME_DONE && !ev->reply->floor_failed;
	bool current = p->used && p->executor.exists && p->executor.committing &&
		p->executor.worker == r->worker;

	bool ours = c->election.state == ELECTION_HOLDING || c->election.state == ELECTION_RELEASING;

	if (ev->reply->outcome == OUTCOME_DONE && ours) {
		c->election.term = r->new_term;
		set_available(c);
	}
	if (ev->reply->floor_failed)
		remark(c, "floor-failed");
	told.term = (uint64_t)r->new_term;
	if (current)
		executor_handle(c, p,
			done ? EXECUTOR_EVENT_COMMITTED : EXECUTOR_EVENT_NOT_COMMITTED, &told);
	if (!ours)
		return;
	if (ev->reply->outcome == OUTCOME_REFUSED || ev->reply->outcome == OUTCOME_MOVED)
		election_handle(c, ELECTION_EVENT_NOT_RENEWED, ev);
	else if (ev->reply->outcome != OUTCOME_DONE)
		election_handle(c, ELECTION_EVENT_UNKNOWN, ev);
}

static enum election_event sort_reply(const struct keeper_answer *a)
{
	bool done = a->outcome == OUTCOME_DONE;

	switch (a->op) {
	case REQUEST_ACQUIRE:
		if (done)
			return ELECTION_EVENT_ACQUIRED;
		return a->outcome == OUTCOME_UNKNOWN ? ELECTION_EVENT_UNKNOWN
						     : ELECTION_EVENT_NOT_ACQUIRED;
	case REQUEST_RENEW:
		if (done)
			return ELECTION_EVENT_RENEWED;
		if (a->outcome == OUTCOME_REFUSED || a->outcome == OUTCOME_MOVED)
			return ELECTION_EVENT_NOT_RENEWED;
		return a->outcome == OUTCOME_WRONG ? ELECTION_EVENT_WRONG : ELECTION_EVENT_UNKNOWN;
	case REQUEST_RELEASE:
		if (done || a->outcome == OUTCOME_REFUSED || a->outcome == OUTCOME_MOVED)
			return ELECTION_EVENT_RELEASED;
		return ELECTION_EVENT_UNKNOWN;
	default:
		if (done && a->view.valid)
			return ELECTION_EVENT_SEEN;
		return a->outcome == OUTCOME_WRONG ? ELECTION_EVENT_WRONG : ELECTION_EVENT_NOT_SEEN;
	}
}

void election_reply(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;
	struct core_request r = e->request;

	if (r.op == REQUEST_NONE || ev->reply->id != r.id)
		return; /* an answer to what was given up */
	e->request.op = REQUEST_NONE;
	e->answer_by_ns = 0;
	if (r.op == REQUEST_PROMOTE)
		promote_reply(c, ev, &r);
	else
		election_handle(c, sort_reply(ev->reply), ev);
}

/* --- time and sending ---------------------------------------------------------------------- */
void election_check_time(struct core *c, int64_t late_ns)
{
	struct election *e = &c->election;

	if (late_ns > LATE_NS && e->state == ELECTION_STANDBY) {
		e->watching = false; /* suspended or stopped: what was watched says nothing */
		e->free_epoch = 0;
		e->inspect_ns = c->now_ns;
	}
	if (e->request.op != REQUEST_NONE && e->answer_by_ns != 0 && c->now_ns >= e->answer_by_ns) {
		struct keeper_answer a = {.id = e->request.id, .op = e->request.op,
			.outcome = OUTCOME_UNKNOWN, .text = "the keeper does not answer"};
		struct event ev = {.kind = EVENT_REPLY, .worker = -1, .program = -1, .reply = &a};

		core_push(c, ACTION_REQUEST); /* op NONE: replace the keeper */
		election_reply(c, &ev);
	}
	election_handle(c, ELECTION_EVENT_TICK, NULL);
}

static bool send_promote(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (!p->used || !p->executor.exists || p->executor.state != EXECUTOR_PROMOTING ||
			p->executor.phase != PHASE_COMMIT || p->executor.committing)
			continue;
		send(c, REQUEST_PROMOTE);
		c->election.request.program = i;
		c->election.request.worker = p->executor.worker;
		c->election.request.new_term = c->election.term + 1;
		p->executor.committing = true;
		push_request(c);
		return true;
	}
	return false;
}

static void check_candidates(struct core *c)
{
	struct election *e = &c->election;

	if (executor_any_possible(c)) {
		e->candidateless_ns = 0;
	} else if (e->candidateless_ns == 0) {
		e->candidateless_ns = c->now_ns;
	} else if (c->now_ns - e->candidateless_ns >= e->ttl_ns) {
		remark(c, "no-candidate");
		election_handle(c, ELECTION_EVENT_STEP_DOWN, NULL);
	}
}

static void send_holding(struct core *c)
{
	struct election *e = &c->election;
	bool overdue = e->renew_ns != 0 &&
		c->now_ns >= e->renew_ns + settings(c)->heartbeat_ns;

	if (e->inspect_wanted) {
		if (e->inspect_ns <= c->now_ns) {
			send(c, REQUEST_INSPECT);
			push_request(c);
		}
		return;
	}
	if (e->state == ELECTION_HOLDING && !overdue && send_promote(c))
		return;
	if (e->state == ELECTION_RELEASING && executor_all_none(c)) {
		election_handle(c, ELECTION_EVENT_EXECUTORS_GONE, NULL);
		return;
	}
	if (e->renew_ns <= c->now_ns && !executor_any_unkillable(c)) {
		int64_t lower = e->t0_ns +
			election_lease_ns(settings(c)->ttl_ns, settings(c)->kill_grace_ns);

		if (lower < e->hard_ns) { /* a shorter ttl: the leases first, then the row */
			e->hard_ns = lower;
			e->soft_ns = lower - settings(c)->kill_grace_ns;
			executor_extend_all(c);
		}
		send(c, REQUEST_RENEW);
		push_request(c);
	}
}

void election_send(struct core *c)
{
	struct election *e = &c->election;

	if (e->state == ELECTION_LOST && executor_all_none(c))
		election_handle(c, ELECTION_EVENT_EXECUTORS_GONE, NULL);
	if (e->state == ELECTION_HOLDING)
		check_candidates(c);
	if (e->request.op != REQUEST_NONE)
		return;
	switch (e->state) {
	case ELECTION_STANDBY:
		if (e->inspect_ns <= c->now_ns && !lifecycle_is_stopping(c)) {
			send(c, REQUEST_INSPECT);
			push_request(c);
		}
		break;
	case ELECTION_ACQUIRING:
		if (e->inspect_wanted && e->inspect_ns <= c->now_ns) {
			send(c, REQUEST_INSPECT);
			push_request(c);
		}
		break;
	case ELECTION_HOLDING:
	case ELECTION_RELEASING:
		send_holding(c);
		break;
	default:
		break;
	}
}

static void earlier(int64_t *first, int64_t at)
{
	if (at != 0 && (*first == 0 || at < *first))
		*first = at;
}

int64_t election_deadline(const struct core *c)
{
	const struct election *e = &c->election;
	bool in_flight = e->request.op != REQUEST_NONE;
	bool holding = e->state == ELECTION_HOLDING || e->state == ELECTION_RELEASING;
	int64_t first = 0;

	if (in_flight)
		earlier(&first, e->answer_by_ns);
	if (!in_flight && (e->state == ELECTION_STANDBY || e->inspect_wanted))
		earlier(&first, e->inspect_ns);
	if (holding) {
		earlier(&first, e->hard_ns);
		if (!in_flight && !e->inspect_wanted && !executor_any_unkillable(c))
			earlier(&first, e->renew_ns);
		if (e->failing && !e->lease_lost_told)
			earlier(&first, e->soft_ns - settings(c)->heartbeat_ns);
		if (e->candidateless_ns != 0 && e->state == ELECTION_HOLDING)
			earlier(&first, e->candidateless_ns + e->ttl_ns);
	}
	return first;
}

bool election_holds(const struct core *c)
{
	return c->election.state == ELECTION_HOLDING;
}

bool election_may_promote(const struct core *c)
{
	const struct election *e = &c->election;

	return e->state == ELECTION_HOLDING && c->now_ns < e->soft_ns && !e->lease_lost_told;
}

void election_settings_changed(struct core *c)
{
	struct election *e = &c->election;

	if (e->state != ELECTION_HOLDING)
		return;
	if (settings(c)->ttl_ns != e->ttl_ns)
		e->renew_ns = c->now_ns;
	else
		e->renew_ns = earliest(e->renew_ns, c->now_ns + settings(c)->heartbeat_ns);
}

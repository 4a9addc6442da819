/* The election's machine: its table, the keeper's answers, what is sent when. */
#include <stddef.h>
#include <string.h>

#include "supervisor/core/election_internal.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/pool.h"

#define ANSWER_NS (8 * CORE_SECOND) /* the keeper itself gives up on a busy database after 2 s */
#define LATE_NS   (1 * CORE_SECOND)

static const char *const event_names[] = {
#define X(name) #name,
	ELECTION_EVENTS(X)
#undef X
};

const char *election_event_name(enum election_event e)
{
	return event_names[e];
}

/* The one setter. */
void election_enter(struct core *c, enum election_state s, const char *reason)
{
	enum election_state from = c->election.state;

	c->election.state = s;
	c->election.since_ns = c->now_ns;
	c->election.reason = reason;
	pool_touch_all(c);
	core_report(c, REPORT_ELECTION, -1, -1, (int)from, (int)s, reason);
}

void election_remark(struct core *c, const char *reason)
{
	core_report(c, REPORT_LOCK, -1, -1, 0, 0, reason);
}

void election_wait_guard(struct core *c, int64_t epoch)
{
	if (c->election.waiting_epoch == epoch)
		return;
	c->election.waiting_epoch = epoch;
	core_push(c, ACTION_WAIT_GUARD)->number = epoch;
}

void election_unlock_guard(struct core *c, int64_t epoch)
{
	core_push(c, ACTION_GUARD_UNLOCK)->number = epoch;
}

void election_set_unavailable(struct core *c, const char *reason)
{
	struct election *e = &c->election;

	e->decided = true;
	if (!e->unavailable) {
		e->unavailable_since_ns = c->now_ns;
		election_remark(c, reason);
	}
	e->unavailable = true;
}

void election_set_available(struct core *c)
{
	struct election *e = &c->election;

	e->decided = true;
	if (e->unavailable || e->wrong)
		election_remark(c, "available-again");
	e->unavailable = e->wrong = false;
}

void election_prepare(struct core *c, enum request_op op)
{
	struct election *e = &c->election;
	struct core_request *r = &e->request;

	memset(r, 0, sizeof *r);
	r->id = ++c->next_request_id;
	r->op = op;
	r->epoch = e->epoch;
	r->term = e->term;
	r->ttl_ns = election_settings(c)->ttl_ns;
	r->program = r->worker = -1;
	e->sent_ns = c->now_ns;
	e->answer_by_ns = c->now_ns + ANSWER_NS;
}

void election_push(struct core *c)
{
	core_push(c, ACTION_REQUEST)->request = c->election.request;
}

bool election_still_ours(const struct core *c, const struct lock_view *v)
{
	const struct election *e = &c->election;

	return v->valid && v->held && v->mine && v->epoch == e->epoch && v->term >= e->term &&
	       !v->floor_conflict && (e->db_uuid[0] == '\0' || strcmp(v->db_uuid, e->db_uuid) == 0);
}

static void shutdown_later(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
}

static void ignore(struct core *c, const struct event *ev)
{
	(void)c;
	(void)ev;
}

struct election_rule {
	void (*run)(struct core *c, const struct event *e);
};

#define IGNORE                                                                                     \
	{                                                                                          \
		ignore                                                                             \
	}
#define S(name) ELECTION_##name
#define E(name) ELECTION_EVENT_##name

/* clang-format off */
static const struct election_rule rules[ELECTION_STATE_COUNT][ELECTION_EVENT_COUNT] = {
	[S(OFF)] = {
		[E(BEGIN)] = {election_begin}, [E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = IGNORE,
		[E(STEP_DOWN)] = IGNORE, [E(SHUTDOWN)] = {shutdown_later}, [E(SEEN)] = IGNORE,
		[E(NOT_SEEN)] = IGNORE, [E(WRONG)] = IGNORE, [E(TICK)] = IGNORE,
		[E(EXECUTORS_GONE)] = IGNORE, [E(RENEWED)] = IGNORE, [E(NOT_RENEWED)] = IGNORE,
		[E(UNKNOWN)] = IGNORE, [E(RELEASED)] = IGNORE,
	},
	[S(STANDBY)] = {
		[E(SEEN)] = {election_seen_standby}, [E(NOT_SEEN)] = {election_not_seen_standby},
		[E(WRONG)] = {election_wrong_standby}, [E(GUARD_FREE)] = {election_guard_free},
		[E(CHANGED)] = {election_changed_standby}, [E(STEP_DOWN)] = IGNORE,
		[E(SHUTDOWN)] = {election_shutdown_standby}, [E(TICK)] = IGNORE,
		[E(RENEWED)] = IGNORE, [E(NOT_RENEWED)] = IGNORE, [E(UNKNOWN)] = IGNORE,
		[E(RELEASED)] = IGNORE, [E(EXECUTORS_GONE)] = IGNORE,
	},
	[S(ACQUIRING)] = {
		[E(ACQUIRED)] = {election_acquired}, [E(NOT_ACQUIRED)] = {election_not_acquired},
		[E(UNKNOWN)] = {election_unknown_acquiring}, [E(SEEN)] = {election_seen_acquiring},
		[E(NOT_SEEN)] = {election_not_seen_acquiring}, [E(WRONG)] = {election_not_seen_acquiring},
		[E(GUARD_BUSY)] = {election_guard_busy}, [E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = IGNORE,
		[E(STEP_DOWN)] = IGNORE, [E(SHUTDOWN)] = {shutdown_later}, [E(TICK)] = IGNORE,
		[E(EXECUTORS_GONE)] = IGNORE,
	},
	[S(HOLDING)] = {
		[E(RENEWED)] = {election_renewed}, [E(NOT_RENEWED)] = {election_not_renewed},
		[E(UNKNOWN)] = {election_unknown_holding}, [E(SEEN)] = {election_seen_holding},
		[E(NOT_SEEN)] = {election_unknown_holding}, [E(WRONG)] = {election_wrong_holding},
		[E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = {election_changed_holding},
		[E(STEP_DOWN)] = {election_step_down}, [E(SHUTDOWN)] = {election_shutdown_holding},
		[E(TICK)] = {election_tick_holding}, [E(EXECUTORS_GONE)] = IGNORE,
	},
	[S(RELEASING)] = {
		[E(RENEWED)] = {election_renewed}, [E(NOT_RENEWED)] = {election_not_renewed},
		[E(UNKNOWN)] = {election_unknown_releasing}, [E(SEEN)] = {election_seen_holding},
		[E(NOT_SEEN)] = {election_unknown_holding}, [E(WRONG)] = {election_wrong_holding},
		[E(RELEASED)] = {election_released}, [E(GUARD_FREE)] = IGNORE,
		[E(CHANGED)] = {election_changed_holding}, [E(STEP_DOWN)] = IGNORE,
		[E(SHUTDOWN)] = {shutdown_later}, [E(TICK)] = {election_tick_holding},
		[E(EXECUTORS_GONE)] = {election_gone_releasing},
	},
	[S(LOST)] = {
		[E(RENEWED)] = IGNORE, [E(NOT_RENEWED)] = IGNORE, [E(UNKNOWN)] = IGNORE,
		[E(RELEASED)] = IGNORE, [E(SEEN)] = IGNORE, [E(NOT_SEEN)] = IGNORE,
		[E(WRONG)] = IGNORE, [E(GUARD_FREE)] = IGNORE, [E(CHANGED)] = IGNORE,
		[E(STEP_DOWN)] = IGNORE, [E(SHUTDOWN)] = {shutdown_later}, [E(TICK)] = IGNORE,
		[E(EXECUTORS_GONE)] = {election_gone_lost},
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
static bool is_ours(const struct core *c)
{
	return c->election.state == ELECTION_HOLDING || c->election.state == ELECTION_RELEASING;
}

static void promote_reply(struct core *c, const struct event *ev, const struct core_request *r)
{
	struct program *p = &c->programs[r->program];
	enum outcome outcome = ev->reply->outcome;
	struct event told = *ev;
	bool done = outcome == OUTCOME_DONE && !ev->reply->floor_failed &&
		    !ev->reply->view.floor_conflict;
	bool current = p->used && p->executor.exists && p->executor.committing &&
		       p->executor.worker == r->worker;

	if (outcome == OUTCOME_DONE && is_ours(c)) {
		c->election.term = r->new_term;
		election_set_available(c);
		if (ev->reply->floor_failed && !c->election.floor_told)
			election_remark(c, "floor-failed");
		c->election.floor_told = ev->reply->floor_failed;
	}
	told.term = (uint64_t)r->new_term;
	if (current)
		executor_handle(c, p,
			done ? EXECUTOR_EVENT_COMMITTED : EXECUTOR_EVENT_NOT_COMMITTED, &told);
	if (is_ours(c) && outcome == OUTCOME_DONE && ev->reply->view.floor_conflict)
		election_lose(c, "the database was replaced or restored");
	if (!is_ours(c) || outcome == OUTCOME_DONE)
		return;
	if (outcome == OUTCOME_REFUSED || outcome == OUTCOME_MOVED)
		election_handle(c, ELECTION_EVENT_NOT_RENEWED, ev);
	else
		election_handle(c, ELECTION_EVENT_UNKNOWN, ev);
}

static enum election_event sort_acquire(enum outcome o)
{
	if (o == OUTCOME_DONE)
		return ELECTION_EVENT_ACQUIRED;
	return o == OUTCOME_UNKNOWN ? ELECTION_EVENT_UNKNOWN : ELECTION_EVENT_NOT_ACQUIRED;
}

static enum election_event sort_renew(enum outcome o)
{
	if (o == OUTCOME_DONE)
		return ELECTION_EVENT_RENEWED;
	if (o == OUTCOME_REFUSED || o == OUTCOME_MOVED)
		return ELECTION_EVENT_NOT_RENEWED;
	return o == OUTCOME_WRONG ? ELECTION_EVENT_WRONG : ELECTION_EVENT_UNKNOWN;
}

static enum election_event sort_inspect(const struct core *c, const struct keeper_answer *a)
{
	if (a->outcome == OUTCOME_DONE && a->view.valid)
		return ELECTION_EVENT_SEEN;
	if (a->outcome == OUTCOME_MOVED && is_ours(c))
		return ELECTION_EVENT_NOT_RENEWED;
	return a->outcome == OUTCOME_WRONG ? ELECTION_EVENT_WRONG : ELECTION_EVENT_NOT_SEEN;
}

static enum election_event sort_reply(const struct core *c, const struct keeper_answer *a)
{
	switch (a->op) {
	case REQUEST_ACQUIRE:
		return sort_acquire(a->outcome);
	case REQUEST_RENEW:
		return sort_renew(a->outcome);
	case REQUEST_RELEASE:
		return a->outcome == OUTCOME_DONE || a->outcome == OUTCOME_REFUSED ||
				       a->outcome == OUTCOME_MOVED
			       ? ELECTION_EVENT_RELEASED
			       : ELECTION_EVENT_UNKNOWN;
	default:
		return sort_inspect(c, a);
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
		election_handle(c, sort_reply(c, ev->reply), ev);
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
		struct keeper_answer a = {.id = e->request.id,
			.op = e->request.op,
			.outcome = OUTCOME_UNKNOWN,
			.text = "the keeper does not answer"};
		struct event ev = {.kind = EVENT_REPLY, .worker = -1, .program = -1, .reply = &a};

		core_push(c, ACTION_REQUEST); /* op NONE: replace the keeper */
		election_reply(c, &ev);
	}
	election_handle(c, ELECTION_EVENT_TICK, NULL);
}

static void check_candidates(struct core *c)
{
	struct election *e = &c->election;

	if (executor_any_possible(c)) {
		e->candidateless_ns = 0;
	} else if (e->candidateless_ns == 0) {
		e->candidateless_ns = c->now_ns;
	} else if (c->now_ns - e->candidateless_ns >= e->ttl_ns) {
		election_remark(c, "no-candidate");
		election_handle(c, ELECTION_EVENT_STEP_DOWN, NULL);
	}
}

void election_send(struct core *c)
{
	struct election *e = &c->election;
	bool look;

	if (e->state == ELECTION_LOST && executor_all_none(c))
		election_handle(c, ELECTION_EVENT_EXECUTORS_GONE, NULL);
	if (e->state == ELECTION_HOLDING)
		check_candidates(c);
	if (e->request.op != REQUEST_NONE)
		return;
	if (is_ours(c)) {
		election_send_holding(c);
		return;
	}
	look = (e->state == ELECTION_STANDBY && !lifecycle_is_stopping(c)) ||
	       (e->state == ELECTION_ACQUIRING && e->inspect_wanted);
	if (look && e->inspect_ns <= c->now_ns) {
		election_prepare(c, REQUEST_INSPECT);
		election_push(c);
	}
}

static void earlier(int64_t *first, int64_t at)
{
	if (at != 0 && (*first == 0 || at < *first))
		*first = at;
}

static bool retries_release(const struct core *c)
{
	return c->election.state == ELECTION_RELEASING && c->election.release_tries > 0;
}

static void holding_deadline(const struct core *c, int64_t *first)
{
	const struct election *e = &c->election;

	earlier(first, e->hard_ns);
	earlier(first, election_warning_ns(c));
	if (e->candidateless_ns != 0 && e->state == ELECTION_HOLDING)
		earlier(first, e->candidateless_ns + e->ttl_ns);
	if (e->request.op == REQUEST_NONE &&
		(retries_release(c) ||
			((!e->inspect_wanted || !e->failing) && !executor_any_unkillable(c))))
		earlier(first, e->renew_ns);
}

int64_t election_deadline(const struct core *c)
{
	const struct election *e = &c->election;
	bool in_flight = e->request.op != REQUEST_NONE;
	int64_t first = 0;

	if (in_flight)
		earlier(&first, e->answer_by_ns);
	else if (e->state == ELECTION_STANDBY || (e->inspect_wanted && !retries_release(c)))
		earlier(&first, e->inspect_ns);
	if (is_ours(c))
		holding_deadline(c, &first);
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
	if (election_settings(c)->ttl_ns != e->ttl_ns)
		e->renew_ns = c->now_ns;
	else
		e->renew_ns = election_earliest(
			e->renew_ns, c->now_ns + election_settings(c)->heartbeat_ns);
}

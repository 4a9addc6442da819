/* Holding, releasing, lost: the lease and what ends it. */
#include "supervisor/core/election_internal.h"
#include "supervisor/core/executor_fsm.h"

#define RELEASE_TRIES  10
#define RELEASE_NS     (200 * CORE_MS)
#define RELEASE_ALL_NS (3 * CORE_SECOND)

/* As enum channel_reason: handoff, lost. */
enum { HANDOFF = 0, LOST = 2 };

int64_t election_lease_ns(int64_t ttl_ns, int64_t kill_grace_ns)
{
	return ttl_ns - ttl_ns / 50 - kill_grace_ns;
}

void election_set_lease(struct core *c, int64_t t0_ns, int64_t ttl_ns)
{
	const struct config_scheduler *s = election_settings(c);
	struct election *e = &c->election;

	e->t0_ns = t0_ns;
	e->ttl_ns = ttl_ns;
	e->hard_ns = t0_ns + election_lease_ns(ttl_ns, s->kill_grace_ns);
	e->soft_ns = e->hard_ns - s->kill_grace_ns;
	e->renew_ns = ttl_ns == s->ttl_ns ? t0_ns + s->heartbeat_ns : c->now_ns;
	e->failing = e->lease_lost_told = false;
}

void election_start_release(struct core *c, const char *reason)
{
	c->election.release_tries = 0;
	c->election.release_since_ns = 0;
	election_enter(c, ELECTION_RELEASING, reason);
}

static void drain_all(struct core *c, int reason, const char *why)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists)
			executor_drain(c, p, reason, false, why);
	}
}

static void each_executor(struct core *c, enum executor_event what)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists)
			executor_handle(c, p, what, NULL);
	}
}

/* The lease is over, proven or by the clock: never resumed in this epoch. */
void election_lose(struct core *c, const char *reason)
{
	struct election *e = &c->election;

	election_enter(c, ELECTION_LOST, reason);
	e->soft_ns = e->hard_ns = e->renew_ns = 0;
	e->inspect_wanted = false;
	each_executor(c, EXECUTOR_EVENT_LOSE);
}

/* The row was read, and is ours; what inotify said after it was asked for stands. */
static void looked(struct core *c)
{
	if (c->election.changed_ns <= c->election.sent_ns)
		c->election.inspect_wanted = false;
}

void election_renewed(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	election_set_available(c);
	e->view = ev->reply->view;
	looked(c);
	if (e->view.floor_conflict) {
		election_lose(c, "the database was replaced or restored");
		return;
	}
	election_set_lease(c, e->sent_ns, e->request.ttl_ns);
	executor_extend_all(c);
}

void election_not_renewed(struct core *c, const struct event *ev)
{
	const struct lock_view *v = &ev->reply->view;
	struct election *e = &c->election;

	if (ev->reply->outcome == OUTCOME_MOVED) {
		election_lose(c, "the database file was replaced or deleted");
		return;
	}
	if (!v->valid) {
		election_unknown_holding(c, ev);
		return;
	}
	if (!election_still_ours(c, v)) {
		election_lose(c, v->floor_conflict ? "the database was replaced or restored"
						   : "another instance holds the lock");
		return;
	}
	if (v->term == e->term) { /* refused for a reason that does not show in the row */
		election_unknown_holding(c, ev);
		return;
	}
	/* An unknown promotion did happen: its term is the row's, and burnt. */
	e->term = v->term;
	e->renew_ns = c->now_ns;
}

void election_unknown_holding(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	election_set_unavailable(c, "unavailable");
	e->failing = true;
	e->inspect_wanted = true;
	e->inspect_ns = c->now_ns +
			election_earliest(ELECTION_RETRY_NS, election_settings(c)->heartbeat_ns);
}

void election_seen_holding(struct core *c, const struct event *ev)
{
	const struct lock_view *v = &ev->reply->view;
	struct election *e = &c->election;

	looked(c);
	if (!election_still_ours(c, v)) {
		election_lose(c, v->floor_conflict ? "the database was replaced or restored"
						   : "another instance holds the lock");
		return;
	}
	e->view = *v;
	e->term = v->term;
	if (e->failing)
		e->renew_ns = c->now_ns;
}

void election_wrong_holding(struct core *c, const struct event *ev)
{
	if (!c->election.wrong)
		election_remark(c, "wrong");
	c->election.wrong = true;
	election_unknown_holding(c, ev);
}

void election_changed_holding(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.inspect_wanted = true;
	c->election.inspect_ns = c->election.changed_ns = c->now_ns;
}

void election_step_down(struct core *c, const struct event *ev)
{
	(void)ev;
	election_start_release(c, "steps down");
	drain_all(c, HANDOFF, "the instance steps down");
}

/* Executors are drained as their workers are stopped; those that are not yet told never are. */
void election_shutdown_holding(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
	election_start_release(c, "the supervisor stops");
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists && p->executor.state == EXECUTOR_PROMOTING)
			executor_drain(c, p, HANDOFF, false, "the supervisor stops");
	}
}

/* --- releasing, lost ----------------------------------------------------------------------- */
static void leave(struct core *c, const char *reason)
{
	struct election *e = &c->election;

	core_push(c, ACTION_GUARD_MARK)->number = e->epoch;
	election_unlock_guard(c, e->epoch);
	e->stay_out_ns = c->now_ns + 2 * election_settings(c)->heartbeat_ns;
	e->held_told = e->watching = false;
	election_stand_by(c, election_settings(c)->heartbeat_ns, reason);
}

static void not_released(struct core *c)
{
	struct election *e = &c->election;

	e->inspect_wanted = false;
	e->renew_ns = c->now_ns + RELEASE_NS;
	if (++e->release_tries >= RELEASE_TRIES ||
		c->now_ns - e->release_since_ns >= RELEASE_ALL_NS) {
		election_remark(c, "not-released");
		leave(c, "the database did not take the release");
	}
}

/* Done, or refused: then the row is another's, or its term is one of ours that was unknown. */
void election_released(struct core *c, const struct event *ev)
{
	if (ev->reply->outcome == OUTCOME_REFUSED && election_still_ours(c, &ev->reply->view)) {
		c->election.term = ev->reply->view.term;
		not_released(c);
		return;
	}
	if (ev->reply->outcome == OUTCOME_DONE)
		election_set_available(c);
	leave(c, "released");
}

void election_unknown_releasing(struct core *c, const struct event *ev)
{
	if (ev->reply->op != REQUEST_RELEASE)
		election_unknown_holding(c, ev);
	else
		not_released(c);
}

void election_gone_lost(struct core *c, const struct event *ev)
{
	(void)ev;
	core_push(c, ACTION_GUARD_MARK)->number = c->election.epoch;
	election_unlock_guard(c, c->election.epoch);
	c->election.held_told = c->election.watching = false;
	election_stand_by(c, 0, c->election.reason);
}

void election_gone_releasing(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	if (e->release_since_ns == 0)
		e->release_since_ns = c->now_ns;
	if (e->release_tries > 0 && c->now_ns < e->renew_ns)
		return;
	election_prepare(c, REQUEST_RELEASE);
	e->request.reason = e->reason;
	election_push(c);
}

/* --- time ---------------------------------------------------------------------------------- */
int64_t election_warning_ns(const struct core *c)
{
	const struct election *e = &c->election;
	int64_t heartbeat = election_settings(c)->heartbeat_ns;
	int64_t at = e->soft_ns - heartbeat;

	if (e->lease_lost_told)
		return 0;
	if (e->failing)
		return at;
	if (e->request.op == REQUEST_NONE)
		return 0;
	/* A keeper that is stuck in a renewal is a renewal that fails. */
	return at > e->sent_ns + heartbeat ? at : e->sent_ns + heartbeat;
}

void election_tick_holding(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;
	int64_t warn;

	(void)ev;
	if (c->now_ns >= e->hard_ns) {
		election_lose(c, "the lease ended before it could be renewed");
		return;
	}
	warn = election_warning_ns(c);
	if (warn == 0 || c->now_ns < warn)
		return;
	e->lease_lost_told = true;
	drain_all(c, LOST, "the lease cannot be renewed");
}

/* --- sending ------------------------------------------------------------------------------- */
static bool send_promote(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (!p->used || !p->executor.exists || p->executor.state != EXECUTOR_PROMOTING ||
			p->executor.phase != PHASE_COMMIT || p->executor.committing)
			continue;
		election_prepare(c, REQUEST_PROMOTE);
		c->election.request.program = i;
		c->election.request.worker = p->executor.worker;
		c->election.request.new_term = c->election.term + 1;
		c->election.request.reason = p->executor.given_up;
		p->executor.committing = true;
		election_push(c);
		return true;
	}
	return false;
}

/* A shorter ttl lowers the leases first, then the row. Where that would end them now, the lease is
 * first renewed as it is: the next renewal carries the new ttl. */
static void send_renew(struct core *c)
{
	const struct config_scheduler *s = election_settings(c);
	struct election *e = &c->election;
	int64_t hard = e->t0_ns + election_lease_ns(s->ttl_ns, s->kill_grace_ns);
	bool postponed = hard < e->hard_ns && hard - s->kill_grace_ns <= c->now_ns;

	if (hard < e->hard_ns && !postponed) {
		e->hard_ns = hard;
		e->soft_ns = hard - s->kill_grace_ns;
		executor_extend_all(c);
		each_executor(c, EXECUTOR_EVENT_REARM); /* the deadman looks at the old deadline */
	}
	election_prepare(c, REQUEST_RENEW);
	if (postponed)
		e->request.ttl_ns = e->ttl_ns;
	election_push(c);
}

void election_send_holding(struct core *c)
{
	struct election *e = &c->election;
	bool due = e->renew_ns <= c->now_ns && !executor_any_unkillable(c);
	bool overdue = c->now_ns >= e->renew_ns + election_settings(c)->heartbeat_ns;

	if (e->state == ELECTION_RELEASING && executor_all_none(c)) {
		election_handle(c, ELECTION_EVENT_EXECUTORS_GONE, NULL);
		return;
	}
	/* A file that changes all the time must not keep the renewal from its turn: that finds out
	 * as well. */
	if (e->inspect_wanted && (e->failing || !due)) {
		if (e->inspect_ns <= c->now_ns) {
			election_prepare(c, REQUEST_INSPECT);
			election_push(c);
		}
		return;
	}
	if (e->state == ELECTION_HOLDING && !overdue && send_promote(c))
		return;
	if (due)
		send_renew(c);
}

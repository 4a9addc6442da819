/* Standby and acquiring: watching the row, proofs of death, taking the lock. */
#include <string.h>

#include "supervisor/core/election_internal.h"
#include "supervisor/core/lifecycle_fsm.h"

#define PID1_NS       (100 * CORE_MS)   /* the kernel kills the rest of that PID namespace */
#define WHEN_HELD_NS  (300 * CORE_MS)   /* a waiter may prove that the holder is dead */
#define GIVE_UP_NS    (2 * CORE_SECOND) /* an unknown acquisition, when the supervisor stops */
#define CLOCK_SANE_US (INT64_C(1) << 53)

/* --- standby ------------------------------------------------------------------------------- */
static void acquire(struct core *c, const char *reason)
{
	struct election *e = &c->election;
	const struct lock_view *v = &e->view;
	int64_t epoch = v->term + 1;

	if (v->floor_term + 1 > epoch)
		epoch = v->floor_term + 1;
	if (v->cleared + 1 >
		epoch) /* or the mark of an epoch of before would prove this one dead */
		epoch = v->cleared + 1;
	if (v->wall_us > epoch && v->wall_us < CLOCK_SANE_US)
		epoch = v->wall_us;
	election_wait_guard(c, 0);
	e->epoch = e->term = epoch;
	e->inspect_wanted = false;
	election_enter(c, ELECTION_ACQUIRING, reason);
	election_prepare(c, REQUEST_ACQUIRE);
	e->request.expect = *v;
	e->request.reason = reason;
	e->t0_ns = e->sent_ns;
	election_push(c);
}

void election_stand_by(struct core *c, int64_t look_in_ns, const char *reason)
{
	struct election *e = &c->election;

	e->inspect_ns = c->now_ns + look_in_ns;
	e->inspect_wanted = false;
	e->epoch = e->term = 0;
	e->soft_ns = e->hard_ns = e->renew_ns = 0;
	e->failing = false;
	e->candidateless_ns = 0;
	if (e->stop_after_release) {
		e->inspect_ns = 0;
		election_wait_guard(c, 0);
		election_enter(c, ELECTION_OFF, reason);
	} else {
		election_enter(c, ELECTION_STANDBY, reason);
	}
}

static bool same_sight(const struct lock_view *a, const struct lock_view *b)
{
	return a->held == b->held && a->term == b->term && a->beat == b->beat &&
	       a->file == b->file && strcmp(a->holder, b->holder) == 0 &&
	       strcmp(a->db_uuid, b->db_uuid) == 0;
}

/* Another file, or an older row: what was held is gone, but its holder may not know. */
static bool is_replaced(const struct lock_view *before, const struct lock_view *seen)
{
	return before->held && !before->mine &&
	       (before->file != seen->file || before->term > seen->term ||
		       strcmp(before->db_uuid, seen->db_uuid) != 0);
}

static void watch(struct core *c, const struct lock_view *seen)
{
	struct election *e = &c->election;

	if (e->watching && is_replaced(&e->view, seen) &&
		e->stay_out_ns < c->now_ns + e->seen_ttl_ns)
		e->stay_out_ns = c->now_ns + e->seen_ttl_ns; /* also when no floor contradicts */
	if (!e->watching || !same_sight(&e->view, seen)) {
		e->watching = true;
		e->watch_since_ns = c->now_ns;
		e->free_epoch = 0; /* what was said of another holder's byte */
	}
	if (seen->ttl_ns > e->seen_ttl_ns)
		e->seen_ttl_ns = seen->ttl_ns; /* a holder may lead by a row that is no more */
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
	election_remark(c, "held-elsewhere");
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
		e->inspect_ns = election_earliest(e->inspect_ns, e->free_since_ns + PID1_NS);
		return false;
	}
	if (!v->same_boot && v->same_machine) {
		acquire(c, "takeover: the machine was restarted");
		return true;
	}
	if (e->told_epoch != -v->epoch) {
		e->told_epoch = -v->epoch; /* held_told stays: said in another way now */
		election_remark(c, "holder-dead-unproven");
	}
	return false;
}

/* when_held = exit: not before a waiter had the time to prove that the holder is dead. */
static void look_at_exit(struct core *c)
{
	struct election *e = &c->election;

	if (e->held_since_ns == 0)
		e->held_since_ns = c->now_ns;
	if (c->now_ns - e->held_since_ns >= WHEN_HELD_NS)
		lifecycle_shutdown(c, SHUTDOWN_GRACEFUL, 75, "the lock is held by another");
	else
		e->inspect_ns = election_earliest(e->inspect_ns, e->held_since_ns + WHEN_HELD_NS);
}

static void look_at_held(struct core *c)
{
	const struct config_scheduler *s = election_settings(c);
	struct election *e = &c->election;
	const struct lock_view *v = &e->view;
	int64_t ttl = v->ttl_ns > CORE_SECOND / 10 ? v->ttl_ns : s->ttl_ns;

	if (v->mine) {
		if (c->now_ns >= e->stay_out_ns)
			acquire(c, "own row of a lease that has ended");
		else
			e->inspect_ns = e->stay_out_ns; /* a release that did not happen */
		return;
	}
	e->inspect_ns = election_earliest(c->now_ns + s->heartbeat_ns, e->watch_since_ns + ttl);
	if (e->inspect_ns <= c->now_ns) {
		acquire(c, "takeover: no heartbeat for a whole ttl");
		return;
	}
	if (e->told_epoch != -v->epoch || v->epoch == 0) /* a plain row has no epoch */
		tell_held(c);
	if (look_at_proof(c))
		return;
	if (s->fast_takeover && (v->same_boot || v->same_machine) && e->free_epoch != v->epoch)
		election_wait_guard(c, v->epoch);
	if (s->when_held_exit)
		look_at_exit(c);
}

static void look_at_conflict(struct core *c)
{
	const struct config_scheduler *s = election_settings(c);
	struct election *e = &c->election;
	int64_t ttl = e->seen_ttl_ns > s->ttl_ns ? e->seen_ttl_ns : s->ttl_ns;

	if (c->now_ns - e->watch_since_ns >= ttl) {
		acquire(c, "above the floor, after a whole ttl of silence");
		return;
	}
	if (!e->conflict_told)
		election_remark(c, "floor-conflict");
	e->conflict_told = true;
	e->inspect_ns = election_earliest(c->now_ns + s->heartbeat_ns, e->watch_since_ns + ttl);
}

static void look(struct core *c)
{
	struct election *e = &c->election;

	if (lifecycle_is_stopping(c))
		return;
	if (e->view.floor_conflict) {
		look_at_conflict(c);
		return;
	}
	e->conflict_told = false;
	if (e->view.held) {
		look_at_held(c);
		return;
	}
	e->held_since_ns = 0;
	election_wait_guard(c, 0);
	if (c->now_ns >= e->stay_out_ns)
		acquire(c, "it was free");
	else
		e->inspect_ns = e->stay_out_ns;
}

void election_seen_standby(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	e->decided = true;
	watch(c, &ev->reply->view);
	e->first_look = false;
	look(c);
	/* A standby need only read. Whether it can be written, on a full disk, say, is told by the
	 * acquisition that comes now, or when our own row is free. */
	if (e->state != ELECTION_ACQUIRING && !(e->view.held && e->view.mine))
		election_set_available(c);
}

void election_not_seen_standby(struct core *c, const struct event *ev)
{
	(void)ev;
	election_set_unavailable(c, "unavailable");
	c->election.inspect_ns = c->now_ns + election_earliest(ELECTION_RETRY_NS,
						     election_settings(c)->heartbeat_ns);
}

void election_wrong_standby(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	if (!e->wrong)
		election_remark(c, "wrong");
	e->wrong = true;
	e->decided = true;
	e->inspect_ns = c->now_ns + election_settings(c)->heartbeat_ns;
	if (e->first_look)
		lifecycle_shutdown(c, SHUTDOWN_QUICK, 78, "the lock database cannot be used");
}

void election_guard_free(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	if (ev->number != e->waiting_epoch)
		return; /* of a waiter that was called off */
	e->waiting_epoch = 0;
	e->free_epoch = ev->number;
	e->cleared = ev->cleared;
	e->free_since_ns = c->now_ns;
	e->inspect_ns = c->now_ns;
}

void election_changed_standby(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.inspect_ns = c->now_ns;
}

void election_begin(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.first_look = true;
	c->election.watching = false;
	election_stand_by(c, 0, "start");
}

void election_shutdown_standby(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.stop_after_release = true;
	election_stand_by(c, 0, "the supervisor stops");
}

/* --- acquiring ----------------------------------------------------------------------------- */
void election_acquired(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;
	int64_t ttl_ns = e->request.ttl_ns > 0 ? e->request.ttl_ns : election_settings(c)->ttl_ns;

	election_set_available(c);
	memcpy(e->db_uuid, ev->reply->view.db_uuid, sizeof e->db_uuid);
	e->view = ev->reply->view;
	e->term = ev->reply->view.term > e->epoch ? ev->reply->view.term : e->epoch;
	e->held_told = e->conflict_told = false;
	e->free_epoch = 0;
	e->held_since_ns = e->seen_ttl_ns = 0;
	e->candidateless_ns = 0;
	e->inspect_wanted = false;
	election_set_lease(c, e->t0_ns, ttl_ns);
	if (e->view.floor_conflict) { /* restored between look and acquisition: terms given before
				       */
		election_lose(c, "the database was replaced or restored");
		return;
	}
	if (c->now_ns >= e->soft_ns || e->stop_after_release) {
		election_start_release(c, "acquired too late");
		return;
	}
	election_enter(c, ELECTION_HOLDING, e->reason);
	if (ev->reply->floor_failed && !e->floor_told)
		election_remark(c, "floor-failed");
	e->floor_told = ev->reply->floor_failed;
	core_push(c, ACTION_HOOK)->hook = HOOK_HOLDER;
}

/* Certainly not done; not at once again, whatever the reason: a database that can be read but not
 * written would be asked without end. */
void election_not_acquired(struct core *c, const struct event *ev)
{
	bool refused = ev->reply->outcome == OUTCOME_REFUSED || ev->reply->outcome == OUTCOME_DONE;
	int64_t quick = ELECTION_QUICK_RETRY_NS +
			(int64_t)(core_random(c) % (uint64_t)ELECTION_QUICK_RETRY_NS);

	election_unlock_guard(c, c->election.epoch);
	if (refused)
		election_set_available(c);
	else
		election_set_unavailable(c, "unavailable");
	election_stand_by(c, refused ? quick : ELECTION_RETRY_NS,
		refused ? "another instance was quicker" : "the lock could not be taken");
	if (ev->reply->view.valid)
		watch(c, &ev->reply->view);
}

void election_guard_busy(struct core *c, const struct event *ev)
{
	(void)ev;
	c->election.request.op = REQUEST_NONE;
	election_stand_by(c,
		ELECTION_QUICK_RETRY_NS +
			(int64_t)(core_random(c) % (uint64_t)ELECTION_QUICK_RETRY_NS),
		"another instance is acquiring");
}

void election_unknown_acquiring(struct core *c, const struct event *ev)
{
	struct election *e = &c->election;

	(void)ev;
	election_set_unavailable(c, "unavailable");
	e->inspect_wanted = true;
	e->inspect_ns = c->now_ns + ELECTION_QUICK_RETRY_NS;
}

/* The answer to "did it happen?" */
void election_seen_acquiring(struct core *c, const struct event *ev)
{
	const struct lock_view *v = &ev->reply->view;
	struct election *e = &c->election;

	if (v->held && v->mine && v->epoch == e->epoch) {
		e->request.ttl_ns = v->ttl_ns;
		election_acquired(c, ev);
		return;
	}
	election_not_acquired(c, ev);
}

void election_not_seen_acquiring(struct core *c, const struct event *ev)
{
	const struct config_scheduler *s = election_settings(c);
	struct election *e = &c->election;
	int64_t patience = election_lease_ns(s->ttl_ns, s->kill_grace_ns);

	(void)ev;
	election_set_unavailable(c, "unavailable");
	e->inspect_wanted = true;
	e->inspect_ns = c->now_ns + ELECTION_RETRY_NS;
	if (e->stop_after_release)
		patience = election_earliest(patience, GIVE_UP_NS);
	if (c->now_ns - e->t0_ns >= patience) { /* nobody was ever promoted under that epoch */
		election_unlock_guard(c, e->epoch);
		election_stand_by(c, ELECTION_RETRY_NS, "the database did not answer");
	}
}

/* The database, its floor, the keeper's transactions, the guard file. */
#ifndef BATON_TESTS_SIM_WORLD_DB_H
#define BATON_TESTS_SIM_WORLD_DB_H

#include "tests/sim/world.h"

/* --- the guard ----------------------------------------------------------------------------- */
static bool description_open(int sup, uint64_t life)
{
	const struct sup *s = &w.sups[sup];

	return s->used && s->life == life && (s->alive || s->deadman);
}

static bool byte_locked(int64_t epoch)
{
	for (int i = 0; i < LOCKS; i++) {
		if (w.locks[i].used && w.locks[i].epoch == epoch &&
			description_open(w.locks[i].sup, w.locks[i].life))
			return true;
	}
	return false;
}

static void report_free(int sup)
{
	struct event *e = post(sup, between(1, 20) * MS / 10, EVENT_GUARD_FREE);
	struct sup *s = &w.sups[sup];

	e->number = s->wait_epoch;
	e->cleared = w.mutant == MUTANT_BYTE_IS_PROOF ? s->wait_epoch : w.mark;
	s->wait_epoch = 0;
}

/* After a description was closed or a byte unlocked. */
static void wake_waiters(void)
{
	for (int i = 0; i < LOCKS; i++) {
		if (w.locks[i].used && !description_open(w.locks[i].sup, w.locks[i].life))
			w.locks[i].used = false;
	}
	for (int i = 0; i < SUPS; i++) {
		if (w.sups[i].used && w.sups[i].alive && w.sups[i].wait_epoch != 0 &&
			!byte_locked(w.sups[i].wait_epoch))
			report_free(i);
	}
}

static bool byte_lock(int sup, int64_t epoch)
{
	if (byte_locked(epoch))
		return false;
	for (int i = 0; i < LOCKS; i++) {
		if (w.locks[i].used)
			continue;
		w.locks[i].used = true;
		w.locks[i].sup = sup;
		w.locks[i].life = w.sups[sup].life;
		w.locks[i].epoch = epoch;
		w.sups[sup].table_epoch = epoch;
		return true;
	}
	violate("the simulation has too few locks");
	return false;
}

static void byte_unlock(int sup, int64_t epoch)
{
	for (int i = 0; i < LOCKS; i++) {
		if (w.locks[i].used && w.locks[i].epoch == epoch && w.locks[i].sup == sup &&
			w.locks[i].life == w.sups[sup].life)
			w.locks[i].used = false;
	}
	if (w.sups[sup].table_epoch == epoch)
		w.sups[sup].table_epoch = 0;
	wake_waiters();
}

/* --- the row ------------------------------------------------------------------------------- */
static void fill_view(const struct sup *s, struct lock_view *v)
{
	const struct database *d = &w.database;
	const struct machine *m = &w.machines[s->machine];

	memset(v, 0, sizeof *v);
	v->valid = true;
	snprintf(v->db_uuid, sizeof v->db_uuid, "db-%d", d->uuid);
	memcpy(v->holder, d->holder, sizeof v->holder);
	v->file = (uint64_t)d->file;
	v->term = d->term;
	v->epoch = d->epoch;
	v->beat = d->beat;
	v->ttl_ns = d->ttl_ns;
	v->held = d->held;
	v->mine = d->held && strcmp(d->holder, s->name) == 0;
	v->pid1 = d->pid1;
	v->same_boot = d->held && d->machine == s->machine && d->boot == m->boot;
	v->same_machine = d->held && d->machine == s->machine && d->boot != m->boot;
	v->wall_us = wall_us(m);
	v->cleared = w.mark;
	if (!w.no_floor) {
		v->floor_term = w.floor_term;
		v->floor_conflict = w.floor_term > 0 &&
				    (w.floor_uuid != d->uuid || w.floor_term > d->term);
	}
}

static bool raise_floor(struct sup *s)
{
	if (w.no_floor)
		return true;
	if (s->floor_fail_until > w.now)
		return false;
	w.floor_uuid = w.database.uuid;
	if (w.floor_term < w.database.term)
		w.floor_term = w.database.term;
	return true;
}

static bool row_matches(const struct sup *s, const struct core_request *r)
{
	const struct database *d = &w.database;

	return d->held && d->term == r->term && d->epoch == r->epoch &&
	       strcmp(d->holder, s->name) == 0;
}

static bool do_acquire(struct sup *s, const struct core_request *r)
{
	struct database *d = &w.database;
	char uuid[CORE_ID_BYTES];
	bool beat = r->expect.beat == d->beat || w.mutant == MUTANT_NO_CAS_ON_BEAT;

	snprintf(uuid, sizeof uuid, "db-%d", d->uuid);
	if (r->expect.term != d->term || !beat || strcmp(r->expect.holder, d->holder) != 0 ||
		strcmp(r->expect.db_uuid, uuid) != 0 || r->epoch <= d->term)
		return false;
	d->term = d->epoch = r->epoch;
	d->beat = 0;
	d->held = true;
	d->ttl_ns = r->ttl_ns;
	memcpy(d->holder, s->name, sizeof d->holder);
	d->machine = s->machine;
	d->boot = w.machines[s->machine].boot;
	d->pid1 = s->pid1;
	d->heartbeat_wall_us = wall_us(&w.machines[s->machine]);
	w.takeovers++;
	return true;
}

static bool do_release(struct sup *s, const struct core_request *r)
{
	struct database *d = &w.database;

	if (!row_matches(s, r))
		return false;
	d->held = false;
	d->holder[0] = '\0';
	if (w.mutant == MUTANT_ROW_DELETED) {
		d->term = d->epoch = d->beat = 0;
	}
	return true;
}

static bool do_request(struct sup *s, const struct core_request *r)
{
	struct database *d = &w.database;

	switch (r->op) {
	case REQUEST_INSPECT:
		return true;
	case REQUEST_ACQUIRE:
		return do_acquire(s, r);
	case REQUEST_RENEW:
		if (!row_matches(s, r))
			return false;
		d->ttl_ns = r->ttl_ns;
		break;
	case REQUEST_PROMOTE:
		if (!row_matches(s, r) || r->new_term <= d->term)
			return false;
		d->term = r->new_term;
		break;
	case REQUEST_RELEASE:
		return do_release(s, r);
	default:
		return false;
	}
	d->beat++;
	d->heartbeat_wall_us = wall_us(&w.machines[s->machine]);
	return true;
}

/* The transaction: at this moment, whatever became of the supervisor meanwhile. */
static void keeper_works(struct item *it)
{
	struct sup *s = &w.sups[it->sup];
	struct delivery *d = &w.deliveries[it->data];
	struct keeper_answer *a = &d->reply;
	enum outcome fault = s->db_fault_until > w.now ? s->db_fault : OUTCOME_DONE;
	bool lost = false, did;

	if (w.machines[s->machine].suspended_until > w.now) {
		it->at = w.machines[s->machine].suspended_until;
		it->seq = ++w.seq;
		heap_put(*it);
		return;
	}
	/* A dead supervisor's keeper, or one that was replaced: what was queued is dropped, what
	 * had begun may still be done. */
	if (!s->used || s->life != it->life ||
		((!s->alive || s->keeper_generation != it->b) && chance(70))) {
		delivery_free(it->data);
		return;
	}
	memset(a, 0, sizeof *a);
	a->id = d->request.id;
	a->op = d->request.op;
	if (fault == OUTCOME_UNAVAILABLE || fault == OUTCOME_WRONG) {
		a->outcome = fault;
	} else if (fault == OUTCOME_UNKNOWN && chance(40)) {
		a->outcome = OUTCOME_UNKNOWN; /* not done */
		lost = true;
	} else {
		did = do_request(s, &d->request);
		TRACE("%s keeper op %d: %s (row term %ld epoch %ld beat %ld held %d by %s)",
			s->name, a->op, did ? "done" : "refused", (long)w.database.term,
			(long)w.database.epoch, (long)w.database.beat, w.database.held,
			w.database.holder);
		a->outcome = did ? OUTCOME_DONE : OUTCOME_REFUSED;
		if (did && (a->op == REQUEST_ACQUIRE || a->op == REQUEST_PROMOTE))
			a->floor_failed = !raise_floor(s);
		fill_view(s, &a->view);
		if (fault == OUTCOME_UNKNOWN && chance(50)) {
			a->outcome = OUTCOME_UNKNOWN;
			lost = true;
		}
	}
	if (a->outcome != OUTCOME_DONE && a->outcome != OUTCOME_REFUSED)
		a->view.valid = false;
	if (!s->alive || s->keeper_generation != it->b || (lost && !w.calm && chance(20))) {
		delivery_free(it->data); /* nobody hears of it: the answer's deadline ends that */
		return;
	}
	d->event.kind = EVENT_REPLY;
	later(s->db_slow_until > w.now ? between(0, chance(20) ? 7000 : 1500) * MS
				       : between(1, 10) * MS / 10,
		ITEM_EVENT, it->sup, 0, 0, it->data);
}

static void send_request(int sup, const struct core_request *r)
{
	struct sup *s = &w.sups[sup];
	int64_t delay = between(2, 30) * MS / 10;
	int i;

	TRACE("%s request %d", s->name, r->op);
	if (r->op == REQUEST_NONE) {
		s->keeper_generation++;
		return;
	}
	if (r->op == REQUEST_ACQUIRE && !byte_lock(sup, r->epoch)) {
		post(sup, 0, EVENT_GUARD_BUSY);
		return;
	}
	if (s->db_slow_until > w.now)
		delay = between(0, chance(20) ? 9000 : 3000) * MS;
	i = delivery_new();
	w.deliveries[i].request = *r;
	s->t0_ns = local_now(s);
	later(delay, ITEM_KEEPER, sup, 0, s->keeper_generation, i);
}

#endif

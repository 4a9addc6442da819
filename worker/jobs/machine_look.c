/* Promotion, and what the ledger says: rows that were left open, pauses, requests, last firings. */
#include "worker/jobs/ledger.h"
#include "worker/jobs/machine_internal.h"

#define LOOK_ALL (LEDGER_LOOK_RUNS | LEDGER_LOOK_JOBS | LEDGER_LOOK_REQUESTS)

void machine_look(struct jobs_machine *m)
{
	if (m->look_what != 0) {
		m->look_again = true;
		return;
	}
	m->look_what = LOOK_ALL;
	m->look_ns = JOBS_NEVER;
	machine_emit(m, JOBS_LOOK, NULL, 0, LOOK_ALL);
}

void machine_promoted(struct jobs_machine *m, uint64_t term, const struct jobs_now *now)
{
	if (m->state != JOBS_IDLE) {
		m->impossible += term != m->term;
		return;
	}
	m->state = JOBS_RECOVERING;
	m->term = term;
	m->look_told = false;
	m->busy_told = 0;
	m->seen_offset_us = now->wall_us - now->boot_ns / 1000;
	machine_look(m);
}

static void look_at(struct jobs_machine *m, int64_t at_ns)
{
	if (at_ns < m->look_ns)
		m->look_ns = at_ns;
}

static bool is_in_work(const struct jobs_machine *m, int job, const struct ledger_key *key)
{
	for (int i = 0; i < m->run_slots; i++) {
		const struct jobs_run *r = &m->runs[i];

		if (r->used && r->job == job && r->fire_us == key->fire_time_us &&
			r->attempt == key->attempt)
			return true;
	}
	return false;
}

/* A row of a job that this file has not. What ran is cut off when its worker is gone, whoever has
 * the job. What is queued may be of an instance with other jobs, which leads again some time: it is
 * left for as long as firings count as missed. */
static void take_stranger(struct jobs_machine *m, const struct ledger_run *row, bool alive,
	const struct jobs_now *now)
{
	struct jobs_action a = {.kind = JOBS_CLOSE,
		.job = -1,
		.status = LEDGER_INTERRUPTED,
		.row = row,
		.number = (int64_t)m->term,
		.text = "its worker died"};
	int64_t left_us = row->claimed_us + JOBS_LOOKBACK_US - now->wall_us;

	if (!alive && row->status == LEDGER_QUEUED && left_us > 0) {
		left_us = left_us < JOBS_LOOKBACK_US ? left_us : JOBS_LOOKBACK_US;
		look_at(m, now->boot_ns + left_us * 1000);
		return;
	}
	if (!alive) {
		if (row->status == LEDGER_QUEUED) {
			a.status = LEDGER_CANCELLED;
			a.text = "for an hour no instance that ran the jobs had this one";
		}
		m->emit(m->context, &a);
	}
	look_at(m, now->boot_ns + JOBS_AGAIN_NS); /* it ends; it is closed */
}

/* Runs that an earlier executor left open, also this process as one. One whose worker still lives
 * is its own business: it is looked at again. */
static void take_over(struct jobs_machine *m, const struct jobs_look *l, const struct jobs_now *now)
{
	for (size_t i = 0; i < l->run_count; i++) {
		int job = machine_find(m, l->runs[i].key.job);
		bool alive = l->alive[i] && l->runs[i].owner != l->owner;

		if (job >= 0 && is_in_work(m, job, &l->runs[i].key))
			continue;
		if (job < 0 || m->jobs[job].gone)
			take_stranger(m, &l->runs[i], alive, now);
		else if (alive)
			look_at(m, now->boot_ns + JOBS_AGAIN_NS);
		else
			machine_run_adopt(m, job, &l->runs[i], now);
	}
}

static void take_pauses(struct jobs_machine *m, const struct jobs_look *l)
{
	for (int i = 0; i < m->job_slots; i++)
		m->jobs[i].paused = false;
	for (size_t i = 0; i < l->job_count; i++) {
		int job = machine_find(m, l->jobs[i].job);

		if (job >= 0)
			m->jobs[job].paused = l->jobs[i].paused;
	}
}

static bool is_requested(const struct jobs_machine *m, int64_t request)
{
	for (int i = 0; i < m->run_slots; i++) {
		if (m->runs[i].used && m->runs[i].request == request)
			return true;
	}
	return false;
}

static void take_requests(
	struct jobs_machine *m, const struct jobs_look *l, const struct jobs_now *now)
{
	for (size_t i = 0; i < l->request_count && m->run_count < JOBS_RUNS; i++) {
		const struct ledger_request *q = &l->requests[i];
		int job = machine_find(m, q->job);

		if (!q->pending || is_requested(m, q->id))
			continue;
		if (job < 0 || m->jobs[job].gone) {
			struct jobs_action a = {.kind = JOBS_REFUSE, .job = -1, .number = q->id};

			m->emit(m->context, &a);
			continue;
		}
		machine_fire(m, job, q->requested_us, LEDGER_BY_REQUEST, q->id, now);
	}
}

/* From when on its firings count: the ledger's last one, or since it has had this schedule; a job
 * that is seen for the first time, or with another schedule, has missed nothing. */
static void take_last_firings(
	struct jobs_machine *m, const struct jobs_look *l, const struct jobs_now *now)
{
	for (int i = 0; i < m->job_slots; i++)
		m->jobs[i].last_us = now->wall_us;
	for (size_t i = 0; i < l->job_count; i++) {
		const struct ledger_job *row = &l->jobs[i];
		int job = machine_find(m, row->job);
		int64_t last_us;

		if (job < 0 || m->jobs[job].gone)
			continue;
		if (row->declared_id != m->jobs[job].policy.declared_id)
			continue; /* another schedule than it has now, or it was in no file */
		last_us = row->last_fire_us > row->known_since_us ? row->last_fire_us
								  : row->known_since_us;
		if (last_us != 0)
			m->jobs[job].last_us = last_us;
	}
}

static void begin_leading(
	struct jobs_machine *m, const struct jobs_look *l, const struct jobs_now *now)
{
	size_t strangers = 0;

	for (size_t i = 0; i < l->job_count; i++)
		strangers += machine_find(m, l->jobs[i].job) < 0;
	if (strangers > 0)
		machine_emit(m, JOBS_STRANGERS, NULL, 0, (int64_t)strangers);
	m->state = JOBS_LEADING;
	take_last_firings(m, l, now);
	for (int i = 0; i < m->job_slots; i++) {
		struct jobs_job *j = &m->jobs[i];

		if (!j->used || j->gone)
			continue;
		machine_accept_clock(m, i, now);
		machine_aim(m, i);
		if (j->policy.at_promotion && j->policy.enabled && m->run_count < JOBS_RUNS)
			machine_fire(m, i, now->wall_us, LEDGER_BY_PROMOTION, 0, now);
	}
	machine_emit(m, JOBS_DECLARE, NULL, 0, 0);
}

void machine_looked(struct jobs_machine *m, const struct jobs_look *l, const struct jobs_now *now)
{
	m->look_what = 0;
	m->look_told = false;
	if (m->state == JOBS_RECOVERING || m->state == JOBS_LEADING) {
		bool begins = m->state == JOBS_RECOVERING;

		take_pauses(m, l);
		if (begins) {
			m->state = JOBS_LEADING; /* what is adopted may be started */
			take_over(m, l, now);
			begin_leading(m, l, now);
		} else {
			take_over(m, l, now);
		}
		take_requests(m, l, now);
		if (m->look_again) {
			m->look_again = false;
			machine_look(m);
		}
	}
	machine_settle(m, now);
}

void machine_look_failed(struct jobs_machine *m, const struct jobs_now *now)
{
	m->look_what = 0;
	m->look_again = false;
	if (m->state == JOBS_RECOVERING || m->state == JOBS_LEADING)
		m->look_ns = now->boot_ns + JOBS_AGAIN_NS;
	machine_settle(m, now);
}

void machine_rung(struct jobs_machine *m, const struct jobs_now *now)
{
	if (m->state == JOBS_LEADING || m->state == JOBS_RECOVERING)
		machine_look(m);
	machine_settle(m, now);
}

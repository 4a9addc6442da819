/* The turn of a run: its claim in the order of the firings, then its place among those that run. */
#include "worker/jobs/machine_internal.h"

/* --- what is asked of the ledger -----------------------------------------------------------
 * Claims are made in the order of the firings: the ledger's last firing says that all before it are
 * claimed. So while one is unsure, the later ones are held back. */
static void ask_claim(struct jobs_machine *m, struct jobs_run *r)
{
	r->asked = true;
	machine_emit(m, JOBS_CLAIM, r, r->status, 0);
}

void machine_run_claim(struct jobs_machine *m, struct jobs_run *r)
{
	if (m->unsure > 0)
		machine_list_add(m, r, &m->held_head, &m->held_tail);
	else
		ask_claim(m, r);
}

void machine_run_claim_unknown(
	struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	m->unsure += !r->unsure;
	r->unsure = true;
	machine_list_add(m, r, &m->unsure_head, &m->unsure_tail);
	m->claim_ns = now->boot_ns + JOBS_AGAIN_NS;
}

void machine_run_claim_sure(struct jobs_machine *m, struct jobs_run *r)
{
	m->unsure -= r->unsure;
	r->unsure = false;
}

void machine_run_claims(struct jobs_machine *m, const struct jobs_now *now)
{
	if (m->unsure_head >= 0 && m->claim_ns <= now->boot_ns) {
		while (m->unsure_head >= 0)
			ask_claim(m, machine_list_pop(m, &m->unsure_head, &m->unsure_tail));
	}
	while (m->held_head >= 0 && m->unsure == 0)
		ask_claim(m, machine_list_pop(m, &m->held_head, &m->held_tail));
}

void machine_run_update(struct jobs_machine *m, struct jobs_run *r, enum ledger_status status)
{
	r->asked = true;
	r->status = status;
	machine_emit(m, JOBS_UPDATE, r, status, 0);
}

/* --- its turn ------------------------------------------------------------------------------ */
bool machine_run_has_place(const struct jobs_machine *m, int job)
{
	const struct jobs_job *j = &m->jobs[job];

	return m->active < m->max_running &&
	       (j->policy.overlap == OVERLAP_ALLOW || (j->active == 0 && j->wait_head < 0));
}

void machine_run_wait(struct jobs_machine *m, struct jobs_run *r)
{
	machine_run_enter(m, r, JOBS_RUN_QUEUED);
	machine_list_add(
		m, r, &machine_run_job(m, r)->wait_head, &machine_run_job(m, r)->wait_tail);
}

/* Whose predecessor is over: from the job's own line into the common one. */
void machine_run_release_waiting(struct jobs_machine *m, int job)
{
	struct jobs_job *j = &m->jobs[job];

	while (j->wait_head >= 0 && (j->policy.overlap == OVERLAP_ALLOW || j->active == 0)) {
		struct jobs_run *r = machine_list_pop(m, &j->wait_head, &j->wait_tail);

		machine_list_add(m, r, &m->ready_head, &m->ready_tail);
		if (j->policy.overlap != OVERLAP_ALLOW)
			return;
	}
}

static void start(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	const struct jobs_policy *p = &machine_run_job(m, r)->policy;

	machine_run_enter(m, r, JOBS_RUN_RUNNING);
	r->started_us = now->wall_us;
	if (p->timeout_ns > 0)
		machine_run_set_deadline(m, r, now->boot_ns + p->timeout_ns);
	machine_emit(m, JOBS_START, r, LEDGER_RUNNING, 0);
}

static bool lease_allows(const struct jobs_now *now)
{
	return now->soft_ns != 0 && now->boot_ns < now->soft_ns;
}

static void start_next(struct jobs_machine *m, const struct jobs_now *now)
{
	m->short_of_lease = false;
	while (m->go_head >= 0 && m->running < m->max_running) {
		if (m->runs[m->go_head].instead == 0 && !lease_allows(now)) {
			m->short_of_lease = true;
			return;
		}
		struct jobs_run *r = machine_list_pop(m, &m->go_head, &m->go_tail);

		if (r->instead != 0)
			machine_run_finish(m, machine_run_slot(m, r), r->instead, now);
		else
			start(m, r, now);
	}
}

/* The ledger says that it runs: it does as soon as there is room and the lease allows it. */
void machine_run_make_ready(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	machine_run_enter(m, r, JOBS_RUN_READY);
	machine_list_add(m, r, &m->go_head, &m->go_tail);
	start_next(m, now);
}

#define WINDOW_NS  (JOBS_SECOND_NS / 4)
#define MOST_AHEAD 32 /* what a thousand in a second start during a commit of 32 ms */

/* Short commands would wait for a commit each: so some are recorded ahead, at most twice as many as
 * ended in the last quarter of a second. Commands that take long are recorded when their place is
 * free. Not more than need be: after a crash they count as interrupted. */
static int places(struct jobs_machine *m, const struct jobs_now *now)
{
	int64_t age = now->boot_ns - m->window_ns;

	if (age > 2 * WINDOW_NS)
		m->ahead = m->ended = 0;
	return m->max_running + (m->ahead < MOST_AHEAD ? m->ahead : MOST_AHEAD);
}

void machine_run_count_end(struct jobs_machine *m, const struct jobs_now *now)
{
	int64_t age = now->boot_ns - m->window_ns;

	if (age > WINDOW_NS) {
		m->ahead = age < 2 * WINDOW_NS ? 2 * m->ended : 0;
		m->ended = 0;
		m->window_ns = now->boot_ns;
	}
	m->ended++;
}

/* Start what may start: in the order of the claims, no two of a job unless that is allowed. */
void machine_pump(struct jobs_machine *m, const struct jobs_now *now)
{
	int most = places(m, now);

	start_next(m, now);
	while (m->ready_head >= 0 && m->active < most) {
		struct jobs_run *r = machine_list_pop(m, &m->ready_head, &m->ready_tail);
		struct jobs_job *j = machine_run_job(m, r);

		if (j->policy.overlap != OVERLAP_ALLOW && j->active > 0) {
			machine_list_add(m, r, &j->wait_head, &j->wait_tail);
			continue;
		}
		r->place = true;
		j->active++;
		m->active++;
		machine_run_enter(m, r, JOBS_RUN_STARTING);
		machine_run_update(m, r, LEDGER_RUNNING);
	}
}

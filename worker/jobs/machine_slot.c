/* The slots of runs: their memory, their lists, what is counted of them. */
#include <stdlib.h>
#include <string.h>

#include "worker/jobs/machine_internal.h"

static const char *const state_names[] = {
#define X(id, name) [JOBS_RUN_##id] = name,
	JOBS_RUN_STATES(X)
#undef X
};

const char *machine_run_state_name(enum jobs_run_state s)
{
	return state_names[s];
}

int machine_run_slot(const struct jobs_machine *m, const struct jobs_run *r)
{
	return (int)(r - m->runs);
}

struct jobs_job *machine_run_job(struct jobs_machine *m, const struct jobs_run *r)
{
	return &m->jobs[r->job];
}

/* --- slots --------------------------------------------------------------------------------- */
static bool grow(struct jobs_machine *m)
{
	int slots = m->run_slots > 0 ? 2 * m->run_slots : 64;
	struct jobs_run *runs;

	/* A retry may go beyond JOBS_RUNS: its firing is in work already. */
	if (m->run_slots >= 2 * JOBS_RUNS)
		return false;
	runs = realloc(m->runs, (size_t)slots * sizeof *runs);
	if (runs == NULL)
		return false;
	memset(runs + m->run_slots, 0, (size_t)(slots - m->run_slots) * sizeof *runs);
	for (int i = slots - 1; i >= m->run_slots; i--) {
		runs[i].next = m->run_free;
		m->run_free = i;
	}
	m->runs = runs;
	m->run_slots = slots;
	return true;
}

struct jobs_run *machine_run_new(struct jobs_machine *m, int job, int64_t fire_us, int attempt,
	enum ledger_cause cause, enum ledger_status as)
{
	struct jobs_run *r;

	if (m->run_free < 0 && !grow(m))
		return NULL;
	r = &m->runs[m->run_free];
	m->run_free = r->next;
	m->run_count++;
	*r = (struct jobs_run){.used = true,
		.serial = ++m->serial,
		.state = JOBS_RUN_CLAIMING,
		.job = job,
		.fire_us = fire_us,
		.attempt = attempt,
		.cause = cause,
		.status = as,
		.deadline_ns = JOBS_NEVER,
		.drain_ns = JOBS_NEVER,
		.code = -1,
		.next = -1};
	if (as == LEDGER_QUEUED || as == LEDGER_RUNNING)
		m->jobs[job].pending++;
	if (as == LEDGER_RUNNING) {
		r->place = true;
		m->jobs[job].active++;
		m->active++;
	}
	return r;
}

void machine_run_leave_place(struct jobs_machine *m, struct jobs_run *r)
{
	if (!r->place)
		return;
	r->place = false;
	m->active--;
	machine_run_job(m, r)->active--;
}

void machine_run_leave_job(struct jobs_machine *m, struct jobs_run *r)
{
	if (r->state == JOBS_RUN_CLAIMING && r->status != LEDGER_QUEUED &&
		r->status != LEDGER_RUNNING)
		return; /* never counted */
	machine_run_job(m, r)->pending--;
}

void machine_run_set_deadline(struct jobs_machine *m, struct jobs_run *r, int64_t at_ns)
{
	r->deadline_ns = at_ns;
	if (at_ns < m->run_deadline_ns)
		m->run_deadline_ns = at_ns;
}

/* The one setter. */
void machine_run_enter(struct jobs_machine *m, struct jobs_run *r, enum jobs_run_state s)
{
	bool was_queued = r->state == JOBS_RUN_QUEUED || r->state == JOBS_RUN_BACKOFF;
	bool is_queued = s == JOBS_RUN_QUEUED || s == JOBS_RUN_BACKOFF;
	bool ran = r->state == JOBS_RUN_RUNNING || r->state == JOBS_RUN_STOPPING;
	bool runs = s == JOBS_RUN_RUNNING || s == JOBS_RUN_STOPPING;

	machine_run_job(m, r)->retries_waiting += (int)(s == JOBS_RUN_BACKOFF) -
						  (int)(r->state == JOBS_RUN_BACKOFF);
	m->queued += (int)is_queued - (int)was_queued;
	m->running += (int)runs - (int)ran;
	r->state = s;
	machine_run_set_deadline(m, r, JOBS_NEVER);
}

void machine_list_drop(struct jobs_machine *m, struct jobs_run *r, int *head, int *tail)
{
	int slot = machine_run_slot(m, r), before = -1;

	for (int i = *head; i >= 0; before = i, i = m->runs[i].next) {
		if (i != slot)
			continue;
		if (before < 0)
			*head = r->next;
		else
			m->runs[before].next = r->next;
		if (*tail == slot)
			*tail = before;
		r->next = -1;
		return;
	}
}

void machine_list_add(struct jobs_machine *m, struct jobs_run *r, int *head, int *tail)
{
	r->next = -1;
	if (*head < 0)
		*head = machine_run_slot(m, r);
	else
		m->runs[*tail].next = machine_run_slot(m, r);
	*tail = machine_run_slot(m, r);
}

struct jobs_run *machine_list_pop(struct jobs_machine *m, int *head, int *tail)
{
	struct jobs_run *r = &m->runs[*head];

	*head = r->next;
	if (*head < 0)
		*tail = -1;
	r->next = -1;
	return r;
}

/* Over: the slot is given anew. The end of a job that was taken out of the file. */
void machine_run_free(struct jobs_machine *m, struct jobs_run *r)
{
	struct jobs_job *j = machine_run_job(m, r);

	machine_run_leave_place(m, r);
	if (r->state == JOBS_RUN_QUEUED) {
		machine_list_drop(m, r, &m->ready_head, &m->ready_tail);
		machine_list_drop(m, r, &j->wait_head, &j->wait_tail);
	} else if (r->state == JOBS_RUN_READY) {
		machine_list_drop(m, r, &m->go_head, &m->go_tail);
	} else if (r->state == JOBS_RUN_CLAIMING) {
		machine_list_drop(m, r, &m->unsure_head, &m->unsure_tail);
		machine_list_drop(m, r, &m->held_head, &m->held_tail);
		machine_run_claim_sure(m, r);
	}
	if (r->state != JOBS_RUN_ENDING)
		machine_run_leave_job(m, r);
	machine_run_enter(m, r, JOBS_RUN_ENDING);
	machine_emit(m, JOBS_FORGET, r, r->status, 0);
	r->used = false;
	r->next = m->run_free;
	m->run_free = machine_run_slot(m, r);
	m->run_count--;
}

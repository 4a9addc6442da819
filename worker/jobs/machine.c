/* The job machine: the instance's side. Demotion, events of runs, the clock. */
#include "worker/jobs/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/jobs/machine_internal.h"

#define SET_BACK_US (5 * JOBS_SECOND_US) /* less is no news */

static const char *const state_names[] = {
#define X(id, name) [JOBS_##id] = name,
	JOBS_STATES(X)
#undef X
};

const char *machine_state_name(enum jobs_state s)
{
	return state_names[s];
}

void machine_init(struct jobs_machine *m, int64_t (*next)(const void *schedule, int64_t after_us),
	void (*emit)(void *context, const struct jobs_action *a), void *context)
{
	*m = (struct jobs_machine){.run_free = -1,
		.ready_head = -1,
		.ready_tail = -1,
		.go_head = -1,
		.go_tail = -1,
		.unsure_head = -1,
		.unsure_tail = -1,
		.held_head = -1,
		.held_tail = -1,
		.max_running = 1,
		.run_deadline_ns = JOBS_NEVER,
		.look_ns = JOBS_NEVER,
		.next = next,
		.emit = emit,
		.context = context};
}

void machine_release(struct jobs_machine *m)
{
	free(m->jobs);
	free(m->table);
	free(m->heap);
	free(m->runs);
	memset(m, 0, sizeof *m);
}

void machine_emit(struct jobs_machine *m, enum jobs_action_kind kind, const struct jobs_run *r,
	enum ledger_status status, int64_t number)
{
	struct jobs_action a = {.kind = kind, .job = -1, .status = status, .number = number};

	if (r != NULL) {
		a.run = (struct jobs_ref){(int)(r - m->runs), r->serial};
		a.job = r->job;
	}
	m->emit(m->context, &a);
}

void machine_note(struct jobs_machine *m, int job, const char *text, int64_t number)
{
	struct jobs_action a = {.kind = JOBS_NOTE, .job = job, .text = text, .number = number};

	m->emit(m->context, &a);
}

struct jobs_run *machine_run_of(const struct jobs_machine *m, struct jobs_ref run)
{
	if (run.slot < 0 || run.slot >= m->run_slots || !m->runs[run.slot].used ||
		m->runs[run.slot].serial != run.serial)
		return NULL;
	return &m->runs[run.slot];
}

/* --- demotion ------------------------------------------------------------------------------ */
static void handle_all(struct jobs_machine *m, enum jobs_run_event e, const struct jobs_now *now)
{
	for (int i = 0; i < m->run_slots; i++) {
		if (m->runs[i].used)
			machine_run_handle(m, &m->runs[i], e, now);
	}
}

void machine_demoted(
	struct jobs_machine *m, int64_t grace_ns, int64_t most_ns, const struct jobs_now *now)
{
	bool sooner = m->state != JOBS_DRAINING || now->boot_ns + grace_ns < m->drain_by_ns;

	if (m->state == JOBS_SETTLING)
		m->drain_by_ns = now->boot_ns + grace_ns;
	if (m->state == JOBS_IDLE || m->state == JOBS_SETTLING || (!sooner && most_ns != 0))
		return;
	m->state = JOBS_DRAINING;
	m->look_ns = JOBS_NEVER;
	m->look_again = false;
	if (sooner)
		m->drain_by_ns = now->boot_ns + grace_ns;
	m->drain_most_ns = most_ns;
	for (int i = 0; i < m->job_slots; i++)
		machine_heap_drop(m, i);
	handle_all(m, JOBS_RUN_EVENT_WITHDRAW, now);
	machine_settle(m, now);
}

/* Nothing runs any more. What the ledger was asked and has not answered (a database that is locked)
 * it may still do: until then the rows are ours, and nobody takes them for those of a dead worker.
 */
static void settle_draining(struct jobs_machine *m, const struct jobs_now *now)
{
	if (m->running > 0)
		return;
	if ((m->run_count > 0 || m->hooks > 0) && now->boot_ns < m->drain_by_ns - JOBS_LAST_WORD_NS)
		return;
	m->short_of_lease = false;
	m->state = JOBS_SETTLING;
	m->hooks = 0; /* JOBS_DEMOTED: the caller ends them */
	if (m->busy_told != 0) {
		m->busy_told = 0;
		machine_emit(m, JOBS_BUSY, NULL, 0, 0);
	}
	machine_emit(m, JOBS_DEMOTED, NULL, 0, (int64_t)m->term);
}

static void settle_last(struct jobs_machine *m)
{
	if (m->run_count > 0)
		return;
	m->state = JOBS_IDLE;
	machine_emit(m, JOBS_SETTLED, NULL, 0, 0);
}

/* --- events of runs ------------------------------------------------------------------------ */
static void of_run(struct jobs_machine *m, struct jobs_ref run, enum jobs_run_event e,
	const struct jobs_now *now)
{
	struct jobs_run *r = machine_run_of(m, run);

	if (r != NULL)
		machine_run_handle(m, r, e, now);
	machine_settle(m, now);
}

/* The row is that of a run that is in work: the clock was set back over it. */
static bool has_twin(const struct jobs_machine *m, const struct jobs_run *r)
{
	for (int i = 0; i < m->run_slots; i++) {
		const struct jobs_run *other = &m->runs[i];

		if (other->used && other != r && other->job == r->job &&
			other->fire_us == r->fire_us && other->attempt == r->attempt)
			return true;
	}
	return false;
}

void machine_claimed(struct jobs_machine *m, struct jobs_ref run, enum ledger_answer answer,
	enum ledger_status status, const struct jobs_now *now)
{
	struct jobs_run *r = machine_run_of(m, run);

	if (r == NULL)
		return;
	if (answer == LEDGER_CLAIM_PAUSED)
		m->jobs[r->job].paused = true;
	if (r->unsure && has_twin(m, r)) {
		machine_run_claim_sure(m, r);
		answer = LEDGER_CLAIM_TAKEN;
	}
	/* MINE: an earlier try wrote the row, if there was one whose outcome is unknown. Else the
	 * firing ran before: the clock was set back over it. */
	if (answer == LEDGER_CLAIM_MINE && r->unsure && status == r->status)
		answer = LEDGER_CLAIM_DONE;
	of_run(m, run,
		answer == LEDGER_CLAIM_DONE ? JOBS_RUN_EVENT_CLAIMED : JOBS_RUN_EVENT_REFUSED, now);
}

void machine_recorded(
	struct jobs_machine *m, struct jobs_ref run, bool refused, const struct jobs_now *now)
{
	of_run(m, run, refused ? JOBS_RUN_EVENT_REFUSED : JOBS_RUN_EVENT_RECORDED, now);
}

void machine_unknown(struct jobs_machine *m, struct jobs_ref run, const struct jobs_now *now)
{
	of_run(m, run, JOBS_RUN_EVENT_UNKNOWN, now);
}

void machine_ended(struct jobs_machine *m, struct jobs_ref run, int code, int signal,
	const struct jobs_now *now)
{
	struct jobs_run *r = machine_run_of(m, run);

	if (r == NULL)
		return;
	r->code = signal != 0 ? -1 : code;
	r->signal = signal;
	of_run(m, run, JOBS_RUN_EVENT_ENDED, now);
}

void machine_hook_ended(struct jobs_machine *m, const struct jobs_now *now)
{
	if (m->hooks > 0)
		m->hooks--;
	machine_settle(m, now);
}

/* --- time ---------------------------------------------------------------------------------- */
static void run_deadlines(struct jobs_machine *m, const struct jobs_now *now)
{
	if (m->run_deadline_ns > now->boot_ns)
		return;
	m->run_deadline_ns = JOBS_NEVER;
	for (int i = 0; i < m->run_slots; i++) {
		struct jobs_run *r = &m->runs[i];

		if (r->used && r->deadline_ns <= now->boot_ns) {
			r->deadline_ns = JOBS_NEVER;
			machine_run_handle(m, r, JOBS_RUN_EVENT_DEADLINE, now);
		}
		r = &m->runs[i];
		if (r->used && r->deadline_ns < m->run_deadline_ns)
			m->run_deadline_ns = r->deadline_ns;
	}
}

static void check_clock(struct jobs_machine *m, const struct jobs_now *now)
{
	int64_t offset_us = now->wall_us - now->boot_ns / 1000;
	int64_t back_us = m->seen_offset_us - offset_us;

	m->seen_offset_us = offset_us;
	if (m->state != JOBS_LEADING || back_us <= 0)
		return;
	if (back_us >= SET_BACK_US)
		machine_note(m, -1,
			"the clock was set back: what has fired does not fire again, the jobs wait "
			"for "
			"it to be where it was",
			back_us / JOBS_SECOND_US);
	for (int i = 0; i < m->job_slots; i++) {
		if (m->jobs[i].heap_at >= 0)
			machine_accept_clock(m, i, now);
	}
}

void machine_settle(struct jobs_machine *m, const struct jobs_now *now)
{
	int64_t busy;

	machine_run_claims(m, now);
	if (m->run_count == 0)
		m->run_deadline_ns = JOBS_NEVER;
	if (m->state == JOBS_LEADING)
		machine_pump(m, now);
	busy = m->running + m->hooks;
	if (busy != m->busy_told && m->state != JOBS_IDLE && m->state != JOBS_SETTLING) {
		m->busy_told = busy;
		machine_emit(m, JOBS_BUSY, NULL, 0, busy);
	}
	if (m->state == JOBS_DRAINING)
		settle_draining(m, now);
	if (m->state == JOBS_SETTLING)
		settle_last(m);
}

void machine_tick(struct jobs_machine *m, const struct jobs_now *now)
{
	run_deadlines(m, now);
	check_clock(m, now);
	if (m->look_ns <= now->boot_ns) {
		m->look_ns = JOBS_NEVER;
		machine_look(m);
	}
	if (m->state == JOBS_LEADING)
		machine_fire_due(m, now);
	machine_settle(m, now);
}

int64_t machine_next_wall_us(const struct jobs_machine *m)
{
	if (m->state != JOBS_LEADING || m->heap_count == 0 || m->run_count >= JOBS_RUNS)
		return JOBS_NEVER;
	return m->jobs[m->heap[0]].due_us;
}

int64_t machine_next_boot_ns(const struct jobs_machine *m)
{
	int64_t at = m->run_deadline_ns < m->look_ns ? m->run_deadline_ns : m->look_ns;

	if (m->unsure_head >= 0 && m->claim_ns < at)
		at = m->claim_ns;

	if (m->state == JOBS_DRAINING && m->running == 0 && (m->run_count > 0 || m->hooks > 0) &&
		m->drain_by_ns - JOBS_LAST_WORD_NS < at)
		at = m->drain_by_ns - JOBS_LAST_WORD_NS;
	return at;
}

/* Firings: the heap of the next ones, what is late, what overlaps. */
#include <assert.h>

#include "worker/jobs/machine_internal.h"

#define ON_TIME_US (2 * JOBS_SECOND_US)
#define LATE_US    (60 * JOBS_SECOND_US)
#define BURST      64 /* firings of one job in a row; then the other jobs' */

uint64_t machine_hash(const char *text)
{
	uint64_t hash = UINT64_C(14695981039346656037);

	for (; *text != '\0'; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
	return hash;
}

/* --- the heap: the job that is due first on top -------------------------------------------- */
static int64_t due_at(const struct jobs_machine *m, int at)
{
	return m->jobs[m->heap[at]].due_us;
}

static void place(struct jobs_machine *m, int at, int job)
{
	m->heap[at] = job;
	m->jobs[job].heap_at = at;
}

static void swap(struct jobs_machine *m, int a, int b)
{
	int job = m->heap[a];

	place(m, a, m->heap[b]);
	place(m, b, job);
}

static void sift(struct jobs_machine *m, int at)
{
	while (at > 0 && due_at(m, at) < due_at(m, (at - 1) / 2)) {
		swap(m, at, (at - 1) / 2);
		at = (at - 1) / 2;
	}
	for (;;) {
		int least = at;

		for (int child = 2 * at + 1; child <= 2 * at + 2; child++) {
			if (child < m->heap_count && due_at(m, child) < due_at(m, least))
				least = child;
		}
		if (least == at)
			return;
		swap(m, at, least);
		at = least;
	}
}

void machine_heap_put(struct jobs_machine *m, int job)
{
	if (m->jobs[job].heap_at < 0) {
		assert(m->heap_count < m->job_slots);
		place(m, m->heap_count++, job);
	}
	sift(m, m->jobs[job].heap_at);
}

void machine_heap_drop(struct jobs_machine *m, int job)
{
	int at = m->jobs[job].heap_at;

	if (at < 0)
		return;
	m->jobs[job].heap_at = -1;
	m->heap_count--;
	if (at == m->heap_count)
		return;
	place(m, at, m->heap[m->heap_count]);
	sift(m, at);
}

/* --- the next firing ----------------------------------------------------------------------- */
/* Of the job and the firing alone: whoever computes it gets the same, so that a takeover does not
 * shift it. */
static int64_t jitter_us(const struct jobs_machine *m, const struct jobs_job *j, int64_t fire_us)
{
	uint64_t x = j->hash ^ (uint64_t)fire_us * UINT64_C(0x9e3779b97f4a7c15);
	int64_t most = j->policy.jitter_ns / 1000, following;

	if (most <= 0)
		return 0;
	following = m->next(j->policy.schedule, fire_us);
	if (most >= following - fire_us) /* else firings would overtake each other */
		most = following - fire_us - 1;
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (int64_t)((x ^ (x >> 31)) % (uint64_t)(most + 1));
}

static int64_t due_us(const struct jobs_machine *m, const struct jobs_job *j, int64_t fire_us)
{
	return fire_us == JOBS_NEVER ? JOBS_NEVER : fire_us + jitter_us(m, j, fire_us);
}

void machine_aim(struct jobs_machine *m, int job)
{
	struct jobs_job *j = &m->jobs[job];
	bool fires = j->used && !j->gone && j->policy.enabled && !j->policy.at_promotion;

	j->next_us = fires ? m->next(j->policy.schedule, j->last_us) : JOBS_NEVER;
	j->due_us = due_us(m, j, j->next_us);
	if (j->next_us == JOBS_NEVER)
		machine_heap_drop(m, job);
	else
		machine_heap_put(m, job);
}

/* --- what fires ---------------------------------------------------------------------------- */
static void record(struct jobs_machine *m, int job, int64_t fire_us, enum ledger_cause cause,
	enum ledger_status status, int64_t request, const char *reason)
{
	struct jobs_run *r = machine_run_new(m, job, fire_us, 1, cause, status);

	if (r == NULL)
		return; /* the callers have looked: this is out of memory */
	r->request = request;
	r->reason = reason;
	machine_run_claim(m, r);
}

static void replace_others(
	struct jobs_machine *m, int job, bool retries_only, const struct jobs_now *now)
{
	for (int i = 0; i < m->run_slots; i++) {
		if (m->runs[i].used && m->runs[i].job == job &&
			(!retries_only || m->runs[i].state == JOBS_RUN_BACKOFF))
			machine_run_handle(m, &m->runs[i], JOBS_RUN_EVENT_REPLACED, now);
	}
}

void machine_fire(struct jobs_machine *m, int job, int64_t fire_us, enum ledger_cause cause,
	int64_t request, const struct jobs_now *now)
{
	struct jobs_job *j = &m->jobs[job];
	enum config_overlap overlap = j->policy.overlap;
	enum ledger_status as = LEDGER_QUEUED;
	const char *reason = NULL;

	/* missed = all means each of them: they wait for each other. */
	if (cause == LEDGER_BY_CATCH_UP && j->policy.missed == MISSED_ALL &&
		overlap != OVERLAP_ALLOW)
		overlap = OVERLAP_QUEUE;
	/* A retry that waits does not run: the next firing is another attempt all the same. */
	if (overlap == OVERLAP_SKIP && j->retries_waiting > 0)
		replace_others(m, job, true, now);
	if (overlap == OVERLAP_SKIP && j->pending > 0) {
		as = LEDGER_SKIPPED;
		reason = "the one before still ran";
	} else if (overlap == OVERLAP_QUEUE && j->pending > JOBS_JOB_QUEUE) {
		as = LEDGER_SKIPPED;
		reason = "100 firings of its job waited already";
	} else if (overlap == OVERLAP_REPLACE && j->pending > 0) {
		replace_others(m, job, false, now);
	}
	/* One commit less when it can start as soon as it is claimed. */
	if (as == LEDGER_QUEUED && m->ready_head < 0 && machine_run_has_place(m, job))
		as = LEDGER_RUNNING;
	record(m, job, fire_us, cause, as, request, reason);
}

static bool is_missed(const struct jobs_machine *m, const struct jobs_job *j, int64_t following_us,
	const struct jobs_now *now)
{
	int64_t late = now->wall_us - j->due_us;

	return late > ON_TIME_US && (late > LATE_US || due_us(m, j, following_us) <= now->wall_us);
}

/* A missed firing: run after all, or only written down. */
static bool catches_up(const struct jobs_machine *m, const struct jobs_job *j, int64_t following_us,
	const struct jobs_now *now)
{
	bool in_limit = (now->wall_us - j->due_us) <= j->policy.missed_limit_ns / 1000;

	switch (j->policy.missed) {
	case MISSED_ALL:
		return in_limit;
	case MISSED_ONCE: /* the last of them stands for all */
		return in_limit && due_us(m, j, following_us) > now->wall_us;
	default:
		return false;
	}
}

static void fire_next(struct jobs_machine *m, int job, const struct jobs_now *now)
{
	struct jobs_job *j = &m->jobs[job];
	int64_t fire_us = j->next_us, following_us = m->next(j->policy.schedule, fire_us);

	if (j->paused) /* the ledger passes it over, and remembers that */
		record(m, job, fire_us, LEDGER_BY_SCHEDULE, LEDGER_QUEUED, 0, NULL);
	else if (!is_missed(m, j, following_us, now))
		machine_fire(m, job, fire_us, LEDGER_BY_SCHEDULE, 0, now);
	else if (catches_up(m, j, following_us, now))
		machine_fire(m, job, fire_us, LEDGER_BY_CATCH_UP, 0, now);
	else
		record(m, job, fire_us, LEDGER_BY_SCHEDULE, LEDGER_MISSED, 0, NULL);
	j = &m->jobs[job];
	j->last_us = fire_us;
	j->next_us = following_us;
	j->due_us = due_us(m, j, following_us);
}

/* Whoever set the clock back by hours meant it: else a job whose last firing lies in a year that
 * was wrong would wait for that year. Less than that is waited for, so that nothing runs twice. */
void machine_accept_clock(struct jobs_machine *m, int job, const struct jobs_now *now)
{
	struct jobs_job *j = &m->jobs[job];

	if (j->last_us <= now->wall_us + 3 * JOBS_LOOKBACK_US)
		return;
	machine_note(m, job,
		"its last firing lies more than three hours ahead of the clock: it goes "
		"by the clock from now on",
		(j->last_us - now->wall_us) / JOBS_SECOND_US);
	j->last_us = now->wall_us;
	machine_aim(m, job);
}

/* The last firing before TIME_US, from a known one on: by halves, for there may be millions. */
static int64_t last_before(
	const struct jobs_machine *m, const struct jobs_job *j, int64_t fire_us, int64_t time_us)
{
	int64_t end = time_us;

	while (end - fire_us > 1) {
		int64_t middle = fire_us + (end - fire_us) / 2;
		int64_t next = m->next(j->policy.schedule, middle);

		if (next < time_us)
			fire_us = next;
		else
			end = middle;
	}
	return fire_us;
}

/* Firings too long ago are not looked at one by one: the newest stands for all. */
static void forget_long_ago(struct jobs_machine *m, int job, const struct jobs_now *now)
{
	struct jobs_job *j = &m->jobs[job];
	int64_t back = j->policy.missed_limit_ns / 1000;

	if (back < JOBS_LOOKBACK_US)
		back = JOBS_LOOKBACK_US;
	if (j->due_us >= now->wall_us - back || j->next_us >= now->wall_us - back)
		return;
	machine_note(m, job,
		"firings were missed longer ago than missed_limit: only the newest of them is in "
		"the history",
		(now->wall_us - j->due_us) / JOBS_SECOND_US);
	if (!j->paused)
		record(m, job, last_before(m, j, j->next_us, now->wall_us - back),
			LEDGER_BY_SCHEDULE, LEDGER_MISSED, 0,
			"longer ago than missed_limit; those before it are not written down");
	j->last_us = now->wall_us - back;
	machine_aim(m, job);
}

void machine_fire_due(struct jobs_machine *m, const struct jobs_now *now)
{
	while (m->heap_count > 0 && due_at(m, 0) <= now->wall_us && m->run_count < JOBS_RUNS) {
		int job = m->heap[0];

		forget_long_ago(m, job, now);
		for (int i = 0;
			i < BURST && m->run_count < JOBS_RUNS &&
			m->jobs[job].next_us != JOBS_NEVER && m->jobs[job].due_us <= now->wall_us;
			i++)
			fire_next(m, job, now);
		if (m->jobs[job].next_us == JOBS_NEVER)
			machine_heap_drop(m, job);
		else
			machine_heap_put(m, job);
	}
}

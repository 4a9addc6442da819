/* One run: an attempt of a firing, from its claim to its end. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/jobs/machine_internal.h"

#define KILL_AGAIN_NS   JOBS_SECOND_NS
#define BACKOFF_MOST_NS (3600 * JOBS_SECOND_NS)

static const char *const state_names[] = {
#define X(id, name) [JOBS_RUN_##id] = name,
	JOBS_RUN_STATES(X)
#undef X
};

const char *machine_run_state_name(enum jobs_run_state s)
{
	return state_names[s];
}

static int slot_of(const struct jobs_machine *m, const struct jobs_run *r)
{
	return (int)(r - m->runs);
}

static struct jobs_job *job_of(struct jobs_machine *m, const struct jobs_run *r)
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

static void leave_place(struct jobs_machine *m, struct jobs_run *r)
{
	if (!r->place)
		return;
	r->place = false;
	m->active--;
	job_of(m, r)->active--;
}

static void leave_job(struct jobs_machine *m, struct jobs_run *r)
{
	if (r->state == JOBS_RUN_CLAIMING && r->status != LEDGER_QUEUED &&
		r->status != LEDGER_RUNNING)
		return; /* never counted */
	job_of(m, r)->pending--;
}

static void set_deadline(struct jobs_machine *m, struct jobs_run *r, int64_t at_ns)
{
	r->deadline_ns = at_ns;
	if (at_ns < m->run_deadline_ns)
		m->run_deadline_ns = at_ns;
}

/* The one setter. */
static void enter(struct jobs_machine *m, struct jobs_run *r, enum jobs_run_state s)
{
	bool was_queued = r->state == JOBS_RUN_QUEUED || r->state == JOBS_RUN_BACKOFF;
	bool is_queued = s == JOBS_RUN_QUEUED || s == JOBS_RUN_BACKOFF;
	bool ran = r->state == JOBS_RUN_RUNNING || r->state == JOBS_RUN_STOPPING;
	bool runs = s == JOBS_RUN_RUNNING || s == JOBS_RUN_STOPPING;

	m->queued += (int)is_queued - (int)was_queued;
	m->running += (int)runs - (int)ran;
	r->state = s;
	set_deadline(m, r, JOBS_NEVER);
}

static void unlist(struct jobs_machine *m, struct jobs_run *r, int *head, int *tail)
{
	int slot = slot_of(m, r), before = -1;

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

static void append(struct jobs_machine *m, struct jobs_run *r, int *head, int *tail)
{
	r->next = -1;
	if (*head < 0)
		*head = slot_of(m, r);
	else
		m->runs[*tail].next = slot_of(m, r);
	*tail = slot_of(m, r);
}

static struct jobs_run *pop(struct jobs_machine *m, int *head, int *tail)
{
	struct jobs_run *r = &m->runs[*head];

	*head = r->next;
	if (*head < 0)
		*tail = -1;
	r->next = -1;
	return r;
}

static void claim_sure(struct jobs_machine *m, struct jobs_run *r);

/* Over: the slot is given anew. The end of a job that was taken out of the file. */
void machine_run_free(struct jobs_machine *m, struct jobs_run *r)
{
	struct jobs_job *j = job_of(m, r);

	leave_place(m, r);
	if (r->state == JOBS_RUN_QUEUED) {
		unlist(m, r, &m->ready_head, &m->ready_tail);
		unlist(m, r, &j->wait_head, &j->wait_tail);
	} else if (r->state == JOBS_RUN_READY) {
		unlist(m, r, &m->go_head, &m->go_tail);
	} else if (r->state == JOBS_RUN_CLAIMING) {
		unlist(m, r, &m->unsure_head, &m->unsure_tail);
		unlist(m, r, &m->held_head, &m->held_tail);
		claim_sure(m, r);
	}
	if (r->state != JOBS_RUN_ENDING)
		leave_job(m, r);
	enter(m, r, JOBS_RUN_ENDING);
	machine_emit(m, JOBS_FORGET, r, r->status, 0);
	r->used = false;
	r->next = m->run_free;
	m->run_free = slot_of(m, r);
	m->run_count--;
}

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
		append(m, r, &m->held_head, &m->held_tail);
	else
		ask_claim(m, r);
}

static void claim_unknown(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	m->unsure += !r->unsure;
	r->unsure = true;
	append(m, r, &m->unsure_head, &m->unsure_tail);
	m->claim_ns = now->boot_ns + JOBS_AGAIN_NS;
}

static void claim_sure(struct jobs_machine *m, struct jobs_run *r)
{
	m->unsure -= r->unsure;
	r->unsure = false;
}

void machine_run_claims(struct jobs_machine *m, const struct jobs_now *now)
{
	if (m->unsure_head >= 0 && m->claim_ns <= now->boot_ns) {
		while (m->unsure_head >= 0)
			ask_claim(m, pop(m, &m->unsure_head, &m->unsure_tail));
	}
	while (m->held_head >= 0 && m->unsure == 0)
		ask_claim(m, pop(m, &m->held_head, &m->held_tail));
}

static void update(struct jobs_machine *m, struct jobs_run *r, enum ledger_status status)
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
	enter(m, r, JOBS_RUN_QUEUED);
	append(m, r, &job_of(m, r)->wait_head, &job_of(m, r)->wait_tail);
}

/* Whose predecessor is over: from the job's own line into the common one. */
static void release_waiting(struct jobs_machine *m, int job)
{
	struct jobs_job *j = &m->jobs[job];

	while (j->wait_head >= 0 && (j->policy.overlap == OVERLAP_ALLOW || j->active == 0)) {
		struct jobs_run *r = pop(m, &j->wait_head, &j->wait_tail);

		append(m, r, &m->ready_head, &m->ready_tail);
		if (j->policy.overlap != OVERLAP_ALLOW)
			return;
	}
}

static void finish(struct jobs_machine *m, int slot, enum ledger_status status);

static void start(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	const struct jobs_policy *p = &job_of(m, r)->policy;

	enter(m, r, JOBS_RUN_RUNNING);
	r->started_us = now->wall_us;
	if (p->timeout_ns > 0)
		set_deadline(m, r, now->boot_ns + p->timeout_ns);
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
		struct jobs_run *r = pop(m, &m->go_head, &m->go_tail);

		if (r->instead != 0)
			finish(m, slot_of(m, r), r->instead);
		else
			start(m, r, now);
	}
}

/* The ledger says that it runs: it does as soon as there is room and the lease allows it. */
static void make_ready(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	enter(m, r, JOBS_RUN_READY);
	append(m, r, &m->go_head, &m->go_tail);
	start_next(m, now);
}

#define WINDOW_NS  (JOBS_SECOND_NS / 4)
#define MOST_AHEAD 256

/* Short commands would wait for a commit each: so twice as many are recorded ahead as ended in the
 * last quarter of a second. Commands that take long are recorded when their place is free. */
static int places(struct jobs_machine *m, const struct jobs_now *now)
{
	int64_t age = now->boot_ns - m->window_ns;

	if (age > 2 * WINDOW_NS)
		m->ahead = m->ended = 0;
	return m->max_running + (m->ahead < MOST_AHEAD ? m->ahead : MOST_AHEAD);
}

static void count_end(struct jobs_machine *m, const struct jobs_now *now)
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
		struct jobs_run *r = pop(m, &m->ready_head, &m->ready_tail);
		struct jobs_job *j = job_of(m, r);

		if (j->policy.overlap != OVERLAP_ALLOW && j->active > 0) {
			append(m, r, &j->wait_head, &j->wait_tail);
			continue;
		}
		r->place = true;
		j->active++;
		m->active++;
		enter(m, r, JOBS_RUN_STARTING);
		update(m, r, LEDGER_RUNNING);
	}
}

/* --- the end ------------------------------------------------------------------------------- */
static int64_t backoff_ns(const struct jobs_policy *p, int attempt)
{
	int64_t wait = p->retry_backoff_ns;

	for (int i = 1; i < attempt && wait < BACKOFF_MOST_NS; i++)
		wait *= 2;
	return wait < BACKOFF_MOST_NS || p->retry_backoff_ns > BACKOFF_MOST_NS ? wait
									       : BACKOFF_MOST_NS;
}

/* The next attempt is claimed before this one's end is recorded: whoever finds the end finds it,
 * too. */
static bool again(struct jobs_machine *m, struct jobs_run *r, enum ledger_cause cause)
{
	int64_t fire_us = r->fire_us;
	int attempt = r->attempt + 1, slot = slot_of(m, r);
	struct jobs_run *next = machine_run_new(m, r->job, fire_us, attempt, cause, LEDGER_QUEUED);

	if (next == NULL)
		return false;
	next->request = m->runs[slot].request;
	next->reason = m->runs[slot].reason;
	machine_run_claim(m, next);
	return true;
}

static bool is_failure(enum ledger_status s)
{
	return s == LEDGER_FAILED || s == LEDGER_TIMEOUT || s == LEDGER_KILLED ||
	       s == LEDGER_NOT_STARTED;
}

static void finish(struct jobs_machine *m, int slot, enum ledger_status status)
{
	struct jobs_run *r = &m->runs[slot];
	struct jobs_job *j = job_of(m, r);
	bool leads = m->state == JOBS_LEADING || m->state == JOBS_DRAINING, retried = false;
	int job = r->job;

	leave_place(m, r);
	if (leads && !j->gone && is_failure(status) && r->attempt <= j->policy.retries)
		retried = again(m, r, LEDGER_BY_RETRY);
	else if (leads && !j->gone && (status == LEDGER_INTERRUPTED || status == LEDGER_LOST) &&
		 j->policy.interrupted == INTERRUPTED_RERUN)
		(void)again(m, r, LEDGER_BY_RERUN);
	r = &m->runs[slot];
	leave_job(m, r);
	enter(m, r, JOBS_RUN_ENDING);
	update(m, r, status);
	if (is_failure(status) && !retried && m->jobs[job].policy.on_failure &&
		m->state != JOBS_IDLE) {
		m->hooks++;
		machine_emit(m, JOBS_HOOK, r, status, 0);
	}
	if (m->state == JOBS_LEADING)
		release_waiting(m, job);
}

/* --- the table's functions ----------------------------------------------------------------- */
struct rule {
	void (*run)(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now);
};

static void ignore(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)m;
	(void)r;
	(void)now;
}

static void end_unstarted(struct jobs_machine *m, struct jobs_run *r)
{
	struct jobs_job *j = job_of(m, r);

	if (r->state == JOBS_RUN_QUEUED) {
		unlist(m, r, &m->ready_head, &m->ready_tail);
		unlist(m, r, &j->wait_head, &j->wait_tail);
	}
	leave_job(m, r);
	enter(m, r, JOBS_RUN_ENDING);
	update(m, r, r->instead);
}

static void replaced_early(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)m;
	(void)now;
	r->instead = LEDGER_REPLACED;
	r->reason = "replaced by the next firing before it began";
}

static void replaced_queued(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	replaced_early(m, r, now);
	end_unstarted(m, r);
}

static void removed_early(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)m;
	(void)now;
	r->instead = LEDGER_CANCELLED;
	r->reason = "its job was taken out of the file";
}

static void removed_queued(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	removed_early(m, r, now);
	end_unstarted(m, r);
}

static void claimed(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	bool leads = m->state == JOBS_LEADING;

	if (r->status == LEDGER_RUNNING && leads) {
		make_ready(m, r, now);
	} else if (r->status == LEDGER_RUNNING) { /* demoted meanwhile: somebody else starts it */
		leave_place(m, r);
		enter(m, r, JOBS_RUN_GIVING);
		update(m, r, LEDGER_QUEUED);
	} else if (r->status == LEDGER_QUEUED && leads && r->instead != 0) {
		end_unstarted(m, r);
	} else if (r->status == LEDGER_QUEUED && leads && r->cause == LEDGER_BY_RETRY) {
		enter(m, r, JOBS_RUN_BACKOFF);
		set_deadline(
			m, r, now->boot_ns + backoff_ns(&job_of(m, r)->policy, r->attempt - 1));
	} else if (r->status == LEDGER_QUEUED && leads) {
		machine_run_wait(m, r);
		release_waiting(m, r->job);
	} else {
		machine_run_free(m, r); /* written down only, or another's to start */
	}
}

static void waited(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	machine_run_wait(m, r);
	release_waiting(m, r->job);
}

static void recorded_running(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	if (m->state == JOBS_LEADING) {
		make_ready(m, r, now);
		return;
	}
	leave_place(m, r);
	enter(m, r, JOBS_RUN_GIVING);
	update(m, r, LEDGER_QUEUED);
}

/* Its row is not ours any more: an operator took it from the queue, or another adopted it. */
static void forget(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	int job = r->job;

	(void)now;
	machine_run_free(m, r);
	if (m->state == JOBS_LEADING)
		release_waiting(m, job);
}

static void ask_again(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	set_deadline(m, r, now->boot_ns + JOBS_AGAIN_NS);
}

static void update_deadline(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	if (!r->asked)
		update(m, r, r->status);
}

static void stop(struct jobs_machine *m, struct jobs_run *r, enum ledger_status as,
	const struct jobs_now *now)
{
	enter(m, r, JOBS_RUN_STOPPING);
	r->stopped_as = as;
	r->killed = false;
	set_deadline(m, r, now->boot_ns + job_of(m, r)->policy.stop_ns);
	machine_emit(m, JOBS_STOP, r, as, 15);
}

/* Its timeout, or the end of the time that a demotion left. */
static void running_deadline(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	stop(m, r, now->boot_ns >= r->drain_ns ? LEDGER_LOST : LEDGER_TIMEOUT, now);
	r->reason = r->stopped_as == LEDGER_LOST ? "the baton moved on before it had ended"
						 : "it took longer than its timeout";
}

static void stopping_deadline(
	struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	r->killed = true;
	set_deadline(m, r, now->boot_ns + KILL_AGAIN_NS);
	machine_emit(m, JOBS_STOP, r, r->stopped_as, 9);
}

static void replaced(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	stop(m, r, LEDGER_REPLACED, now);
	r->reason = "replaced by the next firing";
}

static void ended(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	enum ledger_status status = LEDGER_OK;

	if (r->state == JOBS_RUN_STOPPING)
		status = r->stopped_as;
	else if (r->code < 0 && r->signal == 0)
		status = LEDGER_NOT_STARTED;
	else if (r->signal != 0)
		status = LEDGER_KILLED;
	else if (r->code != 0)
		status = LEDGER_FAILED;
	r->ended_us = now->wall_us > r->started_us ? now->wall_us : r->started_us;
	count_end(m, now);
	finish(m, slot_of(m, r), status);
}

static void withdraw_claimed(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	machine_run_free(m, r); /* its row says queued: the successor adopts it */
}

static void withdraw_ready(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	unlist(m, r, &m->go_head, &m->go_tail);
	leave_place(m, r);
	enter(m, r, JOBS_RUN_GIVING);
	update(m, r, LEDGER_QUEUED);
}

/* What runs gets its job's handoff_timeout, within the time there is. */
static void withdraw_running(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	const struct jobs_policy *p = &job_of(m, r)->policy;
	int64_t left = m->drain_by_ns - now->boot_ns, margin = p->stop_ns, own;

	if (margin > left / 3) /* TERM comes early enough for KILL to come in time */
		margin = left / 3;
	if (r->state == JOBS_RUN_STOPPING) {
		if (r->deadline_ns > m->drain_by_ns - margin / 2)
			set_deadline(m, r, m->drain_by_ns - margin / 2);
		return;
	}
	own = m->drain_most_ns >= 0 ? m->drain_most_ns : p->handoff_timeout_ns;
	r->drain_ns = now->boot_ns + (own < left - margin ? own : left - margin);
	if (r->drain_ns < r->deadline_ns)
		set_deadline(m, r, r->drain_ns);
}

/* KILL comes in time for the last word, whatever the job's stop time is. */
static void stop_draining(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	int64_t left = m->drain_by_ns - now->boot_ns;
	int64_t latest = now->boot_ns +
			 (left / 2 > left - JOBS_SECOND_NS ? left / 2 : left - JOBS_SECOND_NS);

	running_deadline(m, r, now);
	if (m->state == JOBS_DRAINING && r->deadline_ns > latest)
		set_deadline(m, r, latest);
}

#define IGNORE                                                                                     \
	{                                                                                          \
		ignore                                                                             \
	}
#define S(id) JOBS_RUN_##id
#define E(id) JOBS_RUN_EVENT_##id

/* clang-format off */
static const struct rule rules[JOBS_RUN_STATE_COUNT][JOBS_RUN_EVENT_COUNT] = {
	[S(CLAIMING)] = {
		[E(CLAIMED)] = {claimed}, [E(REFUSED)] = {forget}, [E(UNKNOWN)] = {claim_unknown},
		[E(DEADLINE)] = IGNORE, [E(REPLACED)] = {replaced_early}, [E(REMOVED)] = {removed_early},
		[E(WITHDRAW)] = IGNORE /* its answer is waited for */,
	},
	[S(QUEUED)] = {
		[E(REPLACED)] = {replaced_queued}, [E(REMOVED)] = {removed_queued}, [E(WITHDRAW)] = {withdraw_claimed},
		[E(DEADLINE)] = IGNORE,
	},
	[S(BACKOFF)] = {
		[E(DEADLINE)] = {waited}, [E(REPLACED)] = {replaced_queued}, [E(REMOVED)] = {removed_queued}, [E(WITHDRAW)] = {withdraw_claimed},
	},
	[S(STARTING)] = {
		[E(RECORDED)] = {recorded_running}, [E(REFUSED)] = {forget}, [E(UNKNOWN)] = {ask_again},
		[E(DEADLINE)] = {update_deadline}, [E(REPLACED)] = {replaced_early}, [E(REMOVED)] = {removed_early},
		[E(WITHDRAW)] = IGNORE,
	},
	[S(READY)] = {
		[E(REPLACED)] = {replaced_early}, [E(REMOVED)] = {removed_early}, [E(WITHDRAW)] = {withdraw_ready}, [E(DEADLINE)] = IGNORE,
	},
	[S(RUNNING)] = {
		[E(ENDED)] = {ended}, [E(DEADLINE)] = {stop_draining}, [E(REPLACED)] = {replaced}, [E(REMOVED)] = IGNORE /* it goes on */,
		[E(WITHDRAW)] = {withdraw_running},
	},
	[S(STOPPING)] = {
		[E(ENDED)] = {ended}, [E(DEADLINE)] = {stopping_deadline}, [E(REPLACED)] = IGNORE, [E(REMOVED)] = IGNORE,
		[E(WITHDRAW)] = {withdraw_running},
	},
	[S(GIVING)] = {
		[E(RECORDED)] = {forget}, [E(REFUSED)] = {forget}, [E(UNKNOWN)] = {ask_again},
		[E(DEADLINE)] = {update_deadline}, [E(REPLACED)] = IGNORE, [E(REMOVED)] = IGNORE, [E(WITHDRAW)] = IGNORE,
	},
	[S(ENDING)] = {
		[E(RECORDED)] = {forget}, [E(REFUSED)] = {forget}, [E(UNKNOWN)] = {ask_again},
		[E(DEADLINE)] = {update_deadline}, [E(REPLACED)] = IGNORE, [E(REMOVED)] = IGNORE, [E(WITHDRAW)] = IGNORE,
	},
};
/* clang-format on */

bool machine_run_table_has(enum jobs_run_state s, enum jobs_run_event e)
{
	return rules[s][e].run != NULL;
}

void machine_run_handle(struct jobs_machine *m, struct jobs_run *r, enum jobs_run_event e,
	const struct jobs_now *now)
{
	if (rules[r->state][e].run == NULL) {
		m->impossible++;
		return;
	}
	if (e <= JOBS_RUN_EVENT_UNKNOWN)
		r->asked = false;
	if (e == JOBS_RUN_EVENT_CLAIMED || e == JOBS_RUN_EVENT_REFUSED)
		claim_sure(m, r);
	rules[r->state][e].run(m, r, now);
}

/* --- what an earlier executor left --------------------------------------------------------- */
void machine_run_adopt(
	struct jobs_machine *m, int job, const struct ledger_run *row, const struct jobs_now *now)
{
	struct jobs_run *r = machine_run_new(
		m, job, row->key.fire_time_us, row->key.attempt, row->cause, LEDGER_QUEUED);

	if (r == NULL)
		return;
	r->request = row->request;
	r->owner = row->owner;
	r->by_term = (int64_t)m->term;
	if (row->status == LEDGER_QUEUED) {
		machine_run_wait(m, r);
		release_waiting(m, job);
		return;
	}
	r->started_us = row->started_us;
	r->ended_us = now->wall_us;
	r->reason = "its worker died";
	finish(m, slot_of(m, r), LEDGER_INTERRUPTED);
}

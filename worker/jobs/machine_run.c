/* One run: an attempt of a firing, from its claim to its end. */
#include "worker/jobs/machine_internal.h"

#define KILL_AGAIN_NS   JOBS_SECOND_NS
#define BACKOFF_MOST_NS (3600 * JOBS_SECOND_NS)

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
	int attempt = r->attempt + 1, slot = machine_run_slot(m, r);
	struct jobs_run *next = machine_run_new(m, r->job, fire_us, attempt, cause, LEDGER_QUEUED);

	if (next == NULL)
		return false;
	next->request = m->runs[slot].request;
	next->reruns = m->runs[slot].reruns + (cause == LEDGER_BY_RERUN);
	next->reason = m->runs[slot].reason;
	machine_run_claim(m, next);
	return true;
}

static bool is_failure(enum ledger_status s)
{
	return s == LEDGER_FAILED || s == LEDGER_TIMEOUT || s == LEDGER_KILLED ||
	       s == LEDGER_NOT_STARTED;
}

static bool is_cut_off(enum ledger_status s)
{
	return s == LEDGER_INTERRUPTED || s == LEDGER_LOST;
}

/* On_failure, while there is time for it. */
static bool has_hook(const struct jobs_machine *m, const struct jobs_job *j,
	enum ledger_status status, const struct jobs_now *now)
{
	return (is_failure(status) || is_cut_off(status)) && j->policy.on_failure &&
	       (m->state == JOBS_LEADING ||
		       (m->state == JOBS_DRAINING &&
			       now->boot_ns < m->drain_by_ns - JOBS_LAST_WORD_NS));
}

void machine_run_finish(
	struct jobs_machine *m, int slot, enum ledger_status status, const struct jobs_now *now)
{
	struct jobs_run *r = &m->runs[slot];
	struct jobs_job *j = machine_run_job(m, r);
	bool leads = m->state == JOBS_LEADING || m->state == JOBS_DRAINING, followed = false;
	int job = r->job;

	machine_run_leave_place(m, r);
	if (leads && !j->gone && is_failure(status) && r->attempt - r->reruns <= j->policy.retries)
		followed = again(m, r, LEDGER_BY_RETRY);
	else if (leads && !j->gone && is_cut_off(status) &&
		 j->policy.interrupted == INTERRUPTED_RERUN)
		followed = again(m, r, LEDGER_BY_RERUN);
	r = &m->runs[slot];
	machine_run_leave_job(m, r);
	machine_run_enter(m, r, JOBS_RUN_ENDING);
	machine_run_update(m, r, status);
	if (!followed && has_hook(m, &m->jobs[job], status, now)) {
		m->hooks++;
		machine_emit(m, JOBS_HOOK, r, status, 0);
	}
	if (m->state == JOBS_LEADING)
		machine_run_release_waiting(m, job);
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
	struct jobs_job *j = machine_run_job(m, r);

	if (r->state == JOBS_RUN_QUEUED) {
		machine_list_drop(m, r, &m->ready_head, &m->ready_tail);
		machine_list_drop(m, r, &j->wait_head, &j->wait_tail);
	}
	machine_run_leave_job(m, r);
	machine_run_enter(m, r, JOBS_RUN_ENDING);
	machine_run_update(m, r, r->instead);
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

/* Recorded as running, and not to be started here. */
static void give_back(struct jobs_machine *m, struct jobs_run *r)
{
	machine_run_leave_place(m, r);
	machine_run_enter(m, r, JOBS_RUN_GIVING);
	machine_run_update(m, r, LEDGER_QUEUED);
}

static void claimed(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	machine_run_claim_sure(m, r);
	bool leads = m->state == JOBS_LEADING;

	if (r->status == LEDGER_RUNNING && leads) {
		machine_run_make_ready(m, r, now);
	} else if (r->status == LEDGER_RUNNING) { /* demoted meanwhile: somebody else starts it */
		give_back(m, r);
	} else if (r->status == LEDGER_QUEUED && leads && r->instead != 0) {
		end_unstarted(m, r);
	} else if (r->status == LEDGER_QUEUED && leads && r->cause == LEDGER_BY_RETRY) {
		machine_run_enter(m, r, JOBS_RUN_BACKOFF);
		machine_run_set_deadline(m, r,
			now->boot_ns + backoff_ns(&machine_run_job(m, r)->policy, r->attempt - 1));
	} else if (r->status == LEDGER_QUEUED && leads) {
		machine_run_wait(m, r);
		machine_run_release_waiting(m, r->job);
	} else {
		machine_run_free(m, r); /* written down only, or another's to start */
	}
}

static void waited(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	machine_run_wait(m, r);
	machine_run_release_waiting(m, r->job);
}

static void recorded_running(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	r->owner = r->by_term = 0;
	if (m->state == JOBS_LEADING)
		machine_run_make_ready(m, r, now);
	else
		give_back(m, r);
}

/* Its row is not ours any more: an operator took it from the queue, or another adopted it. */
static void forget(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	int job = r->job;

	(void)now;
	machine_run_free(m, r);
	if (m->state == JOBS_LEADING)
		machine_run_release_waiting(m, job);
}

/* It may be in the ledger all the same, by an earlier try whose outcome is not known: as running,
 * and nobody starts it. */
static void claim_refused(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	bool unsure = r->unsure;

	machine_run_claim_sure(m, r);
	if (unsure && r->status == LEDGER_RUNNING)
		give_back(m, r);
	else
		forget(m, r, now);
}

static void start_unknown(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	r->doubted = true;
	machine_run_set_deadline(m, r, now->boot_ns + JOBS_AGAIN_NS);
}

static void start_refused(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	if (!r->doubted || r->by_term == 0) {
		forget(m, r, now);
		return;
	}
	r->owner = r->by_term = 0;
	give_back(m, r);
}

static void ask_again(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	machine_run_set_deadline(m, r, now->boot_ns + JOBS_AGAIN_NS);
}

static void update_deadline(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	if (!r->asked)
		machine_run_update(m, r, r->status);
}

static void stop(struct jobs_machine *m, struct jobs_run *r, enum ledger_status as,
	const struct jobs_now *now)
{
	machine_run_enter(m, r, JOBS_RUN_STOPPING);
	r->stopped_as = as;
	r->killed = false;
	machine_run_set_deadline(m, r, now->boot_ns + machine_run_job(m, r)->policy.stop_ns);
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
	machine_run_set_deadline(m, r, now->boot_ns + KILL_AGAIN_NS);
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
	machine_run_count_end(m, now);
	machine_run_finish(m, machine_run_slot(m, r), status, now);
}

static void withdraw_claimed(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	machine_run_free(m, r); /* its row says queued: the successor adopts it */
}

static void withdraw_ready(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	(void)now;
	machine_list_drop(m, r, &m->go_head, &m->go_tail);
	give_back(m, r);
}

/* What runs gets its job's handoff_timeout, within the time there is. */
static void withdraw_running(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	const struct jobs_policy *p = &machine_run_job(m, r)->policy;
	int64_t left = m->drain_by_ns - now->boot_ns, margin = p->stop_ns, own;

	if (margin > left / 3) /* TERM comes early enough for KILL to come in time */
		margin = left / 3;
	if (r->state == JOBS_RUN_STOPPING) {
		if (r->deadline_ns > m->drain_by_ns - margin / 2)
			machine_run_set_deadline(m, r, m->drain_by_ns - margin / 2);
		return;
	}
	own = m->drain_most_ns >= 0 ? m->drain_most_ns : p->handoff_timeout_ns;
	r->drain_ns = now->boot_ns + (own < left - margin ? own : left - margin);
	if (r->drain_ns < r->deadline_ns)
		machine_run_set_deadline(m, r, r->drain_ns);
}

/* KILL comes in time for the last word, whatever the job's stop time is. */
static void stop_draining(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now)
{
	int64_t left = m->drain_by_ns - now->boot_ns;
	int64_t latest = now->boot_ns +
			 (left / 2 > left - JOBS_SECOND_NS ? left / 2 : left - JOBS_SECOND_NS);

	running_deadline(m, r, now);
	if (m->state == JOBS_DRAINING && r->deadline_ns > latest)
		machine_run_set_deadline(m, r, latest);
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
		[E(CLAIMED)] = {claimed}, [E(REFUSED)] = {claim_refused}, [E(UNKNOWN)] = {machine_run_claim_unknown},
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
		[E(RECORDED)] = {recorded_running}, [E(REFUSED)] = {start_refused}, [E(UNKNOWN)] = {start_unknown},
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
	rules[r->state][e].run(m, r, now);
}

/* --- what an earlier executor left --------------------------------------------------------- */
/* It counts from the claim, which was made when the attempt before had failed. */
static int64_t backoff_left_ns(struct jobs_machine *m, const struct jobs_run *r,
	const struct ledger_run *row, const struct jobs_now *now)
{
	int64_t whole = backoff_ns(&machine_run_job(m, r)->policy, r->attempt - 1);
	int64_t left = whole - (now->wall_us - row->claimed_us) * 1000;

	if (row->cause != LEDGER_BY_RETRY)
		return 0;
	return left < whole ? left : whole; /* the clock was set back */
}

void machine_run_adopt(
	struct jobs_machine *m, int job, const struct ledger_run *row, const struct jobs_now *now)
{
	struct jobs_run *r = machine_run_new(
		m, job, row->key.fire_time_us, row->key.attempt, row->cause, LEDGER_QUEUED);

	if (r == NULL)
		return;
	r->request = row->request;
	r->reruns = row->cause == LEDGER_BY_RERUN ? row->key.attempt - 1 : 0;
	r->owner = row->owner;
	r->by_term = (int64_t)m->term;
	if (row->status == LEDGER_QUEUED && backoff_left_ns(m, r, row, now) > 0) {
		machine_run_enter(m, r, JOBS_RUN_BACKOFF);
		machine_run_set_deadline(m, r, now->boot_ns + backoff_left_ns(m, r, row, now));
		return;
	}
	if (row->status == LEDGER_QUEUED) {
		machine_run_wait(m, r);
		machine_run_release_waiting(m, job);
		return;
	}
	r->started_us = row->started_us;
	r->ended_us = now->wall_us;
	r->reason = "its worker died";
	machine_run_finish(m, machine_run_slot(m, r), LEDGER_INTERRUPTED, now);
}

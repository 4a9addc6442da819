/*
 * What is asked of the ledger process. One batch of claims and one of updates at a time; what comes
 * meanwhile goes with the next, so that many firings cost few commits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/jobs/runner_internal.h"

#define TRIM_NS        (3600 * RUNNER_SECOND_NS)
#define TRIM_RUNS      2000
#define OUTPUT_AT_ONCE (8u << 20) /* bytes of output in one batch of updates */

static bool list_add(struct ref_list *l, struct jobs_ref ref)
{
	if (l->count == l->capacity) {
		size_t capacity = l->capacity > 0 ? 2 * l->capacity : 64;
		struct jobs_ref *items = realloc(l->items, capacity * sizeof *items);

		if (items == NULL)
			return false;
		l->items = items;
		l->capacity = capacity;
	}
	l->items[l->count++] = ref;
	return true;
}

static void list_drop(struct ref_list *l, size_t count)
{
	memmove(l->items, l->items + count, (l->count - count) * sizeof *l->items);
	l->count -= count;
}

/* No answer, or none that can be trusted: the machine asks again. */
void book_unknown(struct runner *r, struct batch *b)
{
	struct ref_list refs = b->refs;

	b->id = 0;
	b->refs = (struct ref_list){0};
	for (size_t i = 0; i < refs.count; i++)
		machine_unknown(&r->machine, refs.items[i], &r->now);
	free(refs.items);
}

/* Later claims must not be made before the earlier ones: they go back, too. */
void book_claims_unknown(struct runner *r)
{
	struct batch later = {.refs = r->claims};

	r->claims = (struct ref_list){0};
	book_unknown(r, &r->claim);
	book_unknown(r, &later);
}

/* --- requests ------------------------------------------------------------------------------ */
static void fill_key(const struct runner *r, const struct jobs_run *run, struct ledger_key *key)
{
	memset(key, 0, sizeof *key);
	snprintf(key->job, sizeof key->job, "%s", r->machine.jobs[run->job].name);
	key->fire_time_us = run->fire_us;
	key->attempt = run->attempt;
}

static void send_claims(struct runner *r)
{
	size_t count = r->claims.count < LEDGER_BATCH ? r->claims.count : LEDGER_BATCH, n = 0;
	struct ledger_firing *firings = calloc(count, sizeof *firings);
	struct ledger_claimant who = {.program = LEDGER_PROGRAM,
		.term = (int64_t)r->machine.term,
		.owner = r->owner,
		.worker = LEDGER_PROGRAM ":0",
		.pid = getpid()};

	if (firings == NULL)
		return;
	for (size_t i = 0; i < count; i++) {
		const struct jobs_run *run = machine_run_of(&r->machine, r->claims.items[i]);

		if (run == NULL || !list_add(&r->claim.refs, r->claims.items[i]))
			continue;
		fill_key(r, run, &firings[n].key);
		firings[n].status = run->status;
		firings[n].cause = run->cause;
		firings[n].request = run->request;
		if (run->reason != NULL && !ledger_status_is_open(run->status))
			snprintf(firings[n].reason, sizeof firings[n].reason, "%s", run->reason);
		n++;
	}
	list_drop(&r->claims, count);
	if (n > 0) {
		r->claim.id = ledger_claim(&r->ledger, &who, firings, n);
		if (r->claim.id == 0)
			book_claims_unknown(r);
	}
	free(firings);
}

static void fill_update(struct runner *r, const struct jobs_run *run, struct jobs_ref ref,
	struct ledger_update *u, char **ret_output)
{
	const struct task *t = task_find(r, ref);
	size_t kept = 0;

	fill_key(r, run, &u->key);
	u->owner = run->owner != 0 ? run->owner : r->owner;
	u->by_term = run->by_term;
	u->new_owner = run->by_term != 0 && run->status == LEDGER_RUNNING ? r->owner : 0;
	u->status = run->status;
	u->exit_code = -1;
	*ret_output = NULL;
	if (run->reason != NULL && !ledger_status_is_open(run->status))
		snprintf(u->reason, sizeof u->reason, "%s", run->reason);
	if (run->status == LEDGER_RUNNING)
		u->started_us = r->now.wall_us; /* about now; its end says it better */
	if (ledger_status_is_open(run->status))
		return;
	u->started_us = run->started_us;
	u->ended_us = run->ended_us;
	u->exit_code = run->code;
	u->signal = run->signal;
	if (t == NULL)
		return;
	if (run->status == LEDGER_NOT_STARTED)
		u->exit_code = t->not_started;
	if (t->failure[0] != '\0')
		snprintf(u->reason, sizeof u->reason, "%.250s", t->failure);
	*ret_output = output_tail(t, &kept);
	u->pid = t->pid;
	u->output = *ret_output;
	u->output_kept = (uint32_t)kept;
	u->output_bytes = t->out_bytes;
}

static void send_updates(struct runner *r)
{
	size_t count = r->updates.count < LEDGER_BATCH ? r->updates.count : LEDGER_BATCH, n = 0;
	size_t done = 0, bytes = 0;
	struct ledger_update *updates = calloc(count, sizeof *updates);
	char **outputs = calloc(count, sizeof *outputs);

	for (; updates != NULL && outputs != NULL && done < count && bytes < OUTPUT_AT_ONCE;
		done++) {
		struct jobs_ref ref = r->updates.items[done];
		const struct jobs_run *run = machine_run_of(&r->machine, ref);

		if (run == NULL || !list_add(&r->update.refs, ref))
			continue;
		fill_update(r, run, ref, &updates[n], &outputs[n]);
		bytes += updates[n].output_kept;
		n++;
	}
	list_drop(&r->updates, done);
	if (n > 0) {
		r->update.id = ledger_update(&r->ledger, updates, n);
		if (r->update.id == 0)
			book_unknown(r, &r->update);
	}
	for (size_t i = 0; outputs != NULL && i < n; i++)
		free(outputs[i]);
	free(outputs);
	free(updates);
}

static void send_declare(struct runner *r)
{
	const struct jobs_machine *m = &r->machine;
	struct ledger_declared *jobs = calloc((size_t)m->job_slots + 1, sizeof *jobs);
	size_t count = 0, done = 0, part;

	if (jobs == NULL)
		return;
	for (int i = 0; i < m->job_slots; i++) {
		if (m->jobs[i].used && !m->jobs[i].gone)
			job_definition_declare(m->jobs[i].policy.definition, &jobs[count++]);
	}
	do { /* a part that is not full is the last one */
		part = count - done < LEDGER_BATCH ? count - done : LEDGER_BATCH;
		(void)ledger_declare(&r->ledger, jobs + done, part);
		done += part;
	} while (part == LEDGER_BATCH);
	free(jobs);
	r->declare_wanted = false;
}

static void send_refusals(struct runner *r)
{
	for (size_t i = 0; i < r->refusal_count; i++) {
		char why[LEDGER_TEXT_BYTES];

		snprintf(why, sizeof why,
			"the file of the executor's instance (on %.100s) has no such job",
			r->set.store.hostname);
		(void)ledger_refuse(&r->ledger, r->refusals[i], why);
	}
	r->refusal_count = 0;
}

static void close_row(struct runner *r, const struct jobs_action *a)
{
	struct ledger_update u = {.key = a->row->key,
		.owner = a->row->owner,
		.by_term = a->number,
		.status = a->status,
		.ended_us = r->now.wall_us,
		.exit_code = -1};

	snprintf(u.reason, sizeof u.reason, "%s", a->text);
	(void)ledger_update(&r->ledger, &u, 1);
}

static void send_trim(struct runner *r)
{
	r->trim_ns = r->now.boot_ns + TRIM_NS;
	r->ended = 0;
	(void)ledger_trim(&r->ledger, r->set.history_keep_us, r->set.history_count);
}

/* --- the machine's wishes ------------------------------------------------------------------ */
void book_emit(struct runner *r, const struct jobs_action *a)
{
	bool kept = true;

	switch (a->kind) {
	case JOBS_CLAIM:
		kept = list_add(&r->claims, a->run);
		break;
	case JOBS_UPDATE:
		kept = list_add(&r->updates, a->run);
		break;
	case JOBS_CLOSE:
		close_row(r, a);
		break;
	case JOBS_LOOK:
		r->look_wanted = true;
		break;
	case JOBS_DECLARE:
		r->declare_wanted = true;
		r->trim_ns = 0;
		break;
	default: /* JOBS_REFUSE */
		if (r->refusal_count == r->refusal_capacity) {
			size_t capacity = r->refusal_capacity + 64;
			int64_t *more = realloc(r->refusals, capacity * sizeof *more);

			if (more == NULL)
				break; /* it is pending, so it is seen again */
			r->refusals = more;
			r->refusal_capacity = capacity;
		}
		r->refusals[r->refusal_count++] = a->number;
	}
	if (!kept)
		runner_say(r, "out of memory: a run of a job is left as it is");
}

void book_ask(struct runner *r)
{
	if (r->look_wanted && r->look_id == 0) {
		r->look_wanted = false;
		r->look_id = ledger_look(
			&r->ledger, LEDGER_LOOK_RUNS | LEDGER_LOOK_JOBS | LEDGER_LOOK_REQUESTS);
		if (r->look_id == 0)
			machine_look_failed(&r->machine, &r->now);
	}
	if (r->claim.id == 0 && r->claims.count > 0)
		send_claims(r);
	if (r->update.id == 0 && r->updates.count > 0)
		send_updates(r);
	if (r->declare_wanted)
		send_declare(r);
	send_refusals(r);
	if (r->machine.state == JOBS_LEADING &&
		(r->ended > TRIM_RUNS || (r->ended > 0 && r->now.boot_ns >= r->trim_ns)))
		send_trim(r);
}

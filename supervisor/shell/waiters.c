/* Who waits for what: checked after events, never polled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/core/election_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/shell/commands.h"

struct waiter *waiter_add(struct supervisor *s, struct control_connection *from, uint64_t id,
	enum waiter_kind kind, int64_t timeout_ns)
{
	struct waiter *w = calloc(1, sizeof *w);

	if (w == NULL) {
		control_fail(from, id, "failed", NULL, NULL, "out of memory");
		return NULL;
	}
	w->from = from;
	w->id = id;
	w->kind = kind;
	w->program = w->wanted_worker = -1;
	w->began_ns = lease_now_ns();
	w->generation = s->generation;
	w->deadline_ns = timeout_ns > 0 ? w->began_ns + timeout_ns : 0;
	w->next = s->commands->waiters;
	s->commands->waiters = w;
	s->changed = true;
	return w;
}

void waiter_set_program(struct supervisor *s, struct waiter *w, int program)
{
	w->program = program;
	snprintf(w->program_name, sizeof w->program_name, "%s",
		s->core.programs[program].settings->name);
}

static void waiter_free(struct waiter *w)
{
	json_decref(w->result);
	free(w->workers);
	free(w->programs);
	free(w);
}

bool waiter_set_workers(struct supervisor *s, struct waiter *w, const struct targets *t)
{
	for (size_t i = 0; i < t->count; i++) {
		int program = t->items[i].program;

		for (int j = core_next_worker(&s->core, program, -1); j >= 0;
			j = core_next_worker(&s->core, program, j)) {
			const struct worker *of = &s->core.workers[j];
			struct waiter_worker *more;

			if (t->items[i].worker >= 0 && t->items[i].worker != j)
				continue;
			more = realloc(w->workers, (w->worker_count + 1) * sizeof *more);
			if (more == NULL)
				return false;
			w->workers = more;
			more[w->worker_count++] = (struct waiter_worker){
				program, of->index, j, of->id, of->generation};
		}
	}
	return true;
}

static const struct worker *find(const struct supervisor *s, const struct waiter_worker *w)
{
	const struct worker *there = w->slot < s->core.worker_slots ? &s->core.workers[w->slot]
								    : NULL;
	int slot;

	if (there != NULL && there->used && there->program == w->program &&
		there->index == w->index && !there->remove)
		return there;
	slot = core_find_worker(&s->core, w->program, w->index);
	return slot >= 0 ? &s->core.workers[slot] : NULL;
}

json_t *waiter_workers_json(struct supervisor *s, const struct waiter *w)
{
	json_t *list = json_array();

	for (size_t i = 0; i < w->worker_count; i++) {
		const struct worker *of = find(s, &w->workers[i]);
		int slot = of != NULL ? core_worker_slot(&s->core, of) : -1;

		if (of != NULL)
			json_array_append_new(list,
				json_pack("{s:s s:s s:s}", "name", report_worker_name(s, slot),
					"state", worker_state_name(of->state), "reason",
					of->reason != NULL ? of->reason : ""));
	}
	return json_pack("{s:o}", "workers", list);
}

/* --- the kinds: 1 = done, -1 = failed (E), 0 = not yet ------------------------------------- */
static bool start_failed(struct supervisor *s, int slot, struct err *e)
{
	const struct worker *w = &s->core.workers[slot];
	const struct program *p = &s->core.programs[w->program];
	const char *name = report_worker_name(s, slot);
	char how[600];

	if (rollout_is_active(p) && w->generation != p->generation)
		return false; /* of a version that is being replaced: what follows counts */
	if (w->state != WORKER_FATAL && (w->state != WORKER_BACKOFF || w->failures == 0))
		return false;
	report_exit(s, slot, how, sizeof how);
	if (w->state == WORKER_FATAL)
		err_set(e, ERR_SYSTEM, "%s %s; given up, `baton start %s` tries again", name, how,
			name);
	else
		err_set(e, ERR_SYSTEM, "%s %s; baton goes on trying", name, how);
	return true;
}

/* Nothing goes on by itself there: said once, or the end of the waiting. */
static int not_started(struct supervisor *s, struct waiter *w, int slot, struct err *e)
{
	const struct worker *of = &s->core.workers[slot];
	const struct program *p = &s->core.programs[of->program];
	char text[sizeof w->text];

	if (of->state != WORKER_STOPPED)
		return 0;
	if (of->parked || !p->started) {
		err_set(e, ERR_SYSTEM, "%s was stopped meanwhile", report_worker_name(s, slot));
		return -1;
	}
	if (!p->held_back)
		return 0;
	report_depends(s, of->program, text, sizeof text);
	if (strcmp(text, w->text) != 0) {
		memcpy(w->text, text, sizeof text);
		control_progress(w->from, w->id, "%s waits for %s", p->settings->name, text);
	}
	return 0;
}

static int started(struct supervisor *s, struct waiter *w, bool anew, struct err *e)
{
	for (size_t i = 0; i < w->worker_count; i++) {
		const struct worker *of = find(s, &w->workers[i]);
		int slot;

		if (of == NULL)
			continue;
		slot = core_worker_slot(&s->core, of);
		if (start_failed(s, slot, e))
			return -1;
		if (not_started(s, w, slot, e) < 0)
			return -1;
		if (anew && of->id <= w->workers[i].id && of->state != WORKER_STANDBY)
			return 0;
		if (of->state != WORKER_RUNNING && of->state != WORKER_EXITED &&
			of->state != WORKER_STANDBY)
			return 0;
	}
	return 1;
}

static int stopped(struct supervisor *s, const struct waiter *w)
{
	for (size_t i = 0; i < w->worker_count; i++) {
		const struct waiter_worker *at = &w->workers[i];
		const struct worker *same = &s->core.workers[at->slot], *of = find(s, at);
		bool other = of != NULL && of->id > w->workers[i].id; /* started meanwhile */

		if (same->used && same->id == at->id && same->tree)
			return 0; /* also an outgoing one, whose name is another's by now */
		if (of != NULL && of->tree && !other) /* OTHER: one that is not meant */
			return 0;
	}
	return 1;
}

static int scaled(struct supervisor *s, const struct waiter *w, struct err *e)
{
	const struct program *p = &s->core.programs[w->program];
	int ready = 0;

	if (p->count != w->count) {
		err_set(e, ERR_SYSTEM, "%s was given another number of workers meanwhile: %d",
			w->program_name, p->count);
		return -1;
	}
	for (int i = core_next_worker(&s->core, w->program, -1); i >= 0;
		i = core_next_worker(&s->core, w->program, i)) {
		const struct worker *of = &s->core.workers[i];

		if (of->remove || of->index >= w->count)
			return 0;
		if (start_failed(s, i, e))
			return -1;
		ready += of->ready || of->state == WORKER_STANDBY || of->state == WORKER_EXITED ||
			 of->parked;
	}
	return !p->started || p->held_back || ready >= w->count;
}

static int handed_off(struct supervisor *s, struct waiter *w, struct err *e)
{
	const struct program *p = &s->core.programs[w->program];

	if (s->core.election.state != ELECTION_HOLDING) {
		err_set(e, ERR_SYSTEM, "the lock was lost on the way");
		return -1;
	}
	if (p->executor.state != EXECUTOR_EXECUTING)
		return 0;
	if (p->executor.term <= w->term) {
		err_set(e, ERR_SYSTEM, "%s did not hand over: no successor was ready any more",
			w->old_worker);
		return -1;
	}
	w->result = json_pack("{s:s s:s s:s s:I}", "program", p->settings->name, "from",
		w->old_worker, "to", report_worker_name(s, p->executor.worker), "term",
		(json_int_t)p->executor.term);
	return 1;
}

/* What a shutdown waits for, as progress lines; the end of the connection is the answer. */
static int shutting_down(struct supervisor *s, struct waiter *w)
{
	char text[sizeof w->text] = "";
	size_t used = 0;

	for (int i = 0; i < s->core.worker_slots && used < sizeof text - 1; i++) {
		const struct worker *of = &s->core.workers[i];

		if (of->used && of->tree)
			used += (size_t)snprintf(text + used, sizeof text - used, "%s%s",
				used > 0 ? ", " : "waiting for ", report_worker_name(s, i));
	}
	if (used == 0 && s->core.election.state == ELECTION_RELEASING)
		snprintf(text, sizeof text, "releasing the lock");
	if (text[0] != '\0' && strcmp(text, w->text) != 0) {
		memcpy(w->text, text, sizeof text);
		control_progress(w->from, w->id, "%s", text);
	}
	return 0;
}

/* In the image before it can only fail; the new one answers. */
static int upgraded(struct supervisor *s, struct waiter *w, struct err *e)
{
	const struct upgrade *u = &s->upgrade;

	if (u->failed) {
		err_set(e, ERR_SYSTEM, "%s", u->error);
		return -1;
	}
	if (!u->done)
		return 0;
	w->result = json_pack("{s:s s:s s:i s:f}", "from", u->from, "to", BATON_VERSION, "pid",
		(int)getpid(), "stall_ms", (double)u->stall_ns / 1e6);
	return 1;
}

/* What can come about no more. */
static bool is_in_vain(struct supervisor *s, const struct waiter *w, struct err *e)
{
	bool stopping = s->core.lifecycle.state >= LIFECYCLE_STOPPING;

	if (stopping && (w->kind == WAITER_STARTED || w->kind == WAITER_RESTARTED ||
				w->kind == WAITER_SCALED || w->kind == WAITER_HANDED_OFF ||
				w->kind == WAITER_RELOADED || w->kind == WAITER_ROLLED)) {
		err_set(e, ERR_SYSTEM, "the supervisor is stopping");
		return true;
	}
	if (w->program >= 0 && (!s->core.programs[w->program].used ||
				       strcmp(s->core.programs[w->program].settings->name,
					       w->program_name) != 0)) {
		err_set(e, ERR_SYSTEM, "%s was taken out by a reload", w->program_name);
		return true;
	}
	return false;
}

static int check(struct supervisor *s, struct waiter *w, struct err *e)
{
	if (is_in_vain(s, w, e))
		return -1;
	switch (w->kind) {
	case WAITER_STARTED:
		return started(s, w, false, e);
	case WAITER_RESTARTED:
		return started(s, w, true, e);
	case WAITER_STOPPED:
		return stopped(s, w);
	case WAITER_SCALED:
		return scaled(s, w, e);
	case WAITER_HANDED_OFF:
		return handed_off(s, w, e);
	case WAITER_AWAY:
		return s->core.election.state == ELECTION_STANDBY ||
		       s->core.election.state == ELECTION_OFF;
	case WAITER_SHUTDOWN:
		return shutting_down(s, w);
	case WAITER_RELOADED:
	case WAITER_ROLLED:
		return waiter_rolled(s, w, e);
	case WAITER_CONDITION:
		return waiter_condition(s, w, e);
	case WAITER_UPGRADED:
		return upgraded(s, w, e);
	}
	return 0;
}

/* What is known goes along with the error. */
static json_t *take_result(struct waiter *w)
{
	json_t *result = w->kind == WAITER_RELOADED || w->kind == WAITER_ROLLED ? w->result : NULL;

	if (result != NULL)
		w->result = NULL;
	return result;
}

static void answer(struct supervisor *s, struct waiter *w)
{
	json_t *result = w->result;

	w->result = NULL;
	if (result == NULL && w->kind == WAITER_CONDITION)
		result = json_pack("{s:s s:I}", "condition", w->condition_text, "waited_ms",
			(json_int_t)((lease_now_ns() - w->began_ns) / CORE_MS));
	if (result == NULL && w->worker_count > 0)
		result = waiter_workers_json(s, w);
	control_answer(w->from, w->id, result != NULL ? result : json_object());
}

void commands_check(struct supervisor *s)
{
	struct waiter **at = s->commands != NULL ? &s->commands->waiters : NULL;
	int64_t now = lease_now_ns();

	while (at != NULL && *at != NULL) {
		struct waiter *w = *at;
		struct err e = {.text = ""};
		int state = w->from != NULL ? check(s, w, &e) : 1;

		if (state == 0 && (w->deadline_ns == 0 || now < w->deadline_ns)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		if (w->from == NULL)
			; /* answered when it came */
		else if (state > 0)
			answer(s, w);
		else if (state < 0)
			control_fail(w->from, w->id, "failed", NULL, take_result(w), "%s", e.text);
		else
			control_fail(w->from, w->id, "timeout", NULL, NULL,
				"timed out after %lld ms",
				(long long)((now - w->began_ns) / CORE_MS));
		waiter_free(w);
	}
}

int64_t commands_deadline(const struct supervisor *s)
{
	int64_t first = 0;

	for (struct waiter *w = s->commands != NULL ? s->commands->waiters : NULL; w != NULL;
		w = w->next) {
		if (w->deadline_ns != 0 && (first == 0 || w->deadline_ns < first))
			first = w->deadline_ns;
	}
	return first;
}

void waiters_forget(struct supervisor *s, const struct control_connection *gone)
{
	struct waiter **at = &s->commands->waiters;

	while (*at != NULL) {
		struct waiter *w = *at;

		if (gone != NULL && w->from != gone) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		waiter_free(w);
	}
}

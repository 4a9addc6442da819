/* Who waits for rollouts (`reload`, `restart --rolling`, `wait --for rollout=done`): the outcome,
 * program by program, and a line a worker before.
 *
 * Requests of one round of the loop are handled one after the other later, so what was there before
 * a request is noted when its own event is handled, and what the request did to which program is
 * seen by what is there after it. It waits for that, and for rollouts that were under way when it
 * came; for nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/core/rollout_fsm.h"
#include "supervisor/shell/commands.h"

static bool is_of_rollouts(const struct waiter *w)
{
	return w->from != NULL && (w->kind == WAITER_RELOADED || w->kind == WAITER_ROLLED);
}

/* NULL: it is gone. */
static const struct program *program_of(const struct supervisor *s, const struct waiter_program *at)
{
	const struct program *p = &s->core.programs[at->program];

	return p->used && strncmp(p->settings->name, at->name, sizeof at->name - 1) == 0 ? p : NULL;
}

static struct waiter_program *find_program(
	const struct supervisor *s, const struct waiter *w, int program)
{
	for (size_t i = 0; i < w->program_count; i++) {
		if (w->programs[i].program == program && program_of(s, &w->programs[i]) != NULL)
			return &w->programs[i];
	}
	return NULL;
}

/* NULL: no memory. */
static struct waiter_program *add_program(struct supervisor *s, struct waiter *w, int program)
{
	const struct program *p = &s->core.programs[program];
	struct waiter_program *at = find_program(s, w, program);

	if (at != NULL)
		return at;
	at = realloc(w->programs, (w->program_count + 1) * sizeof *at);
	if (at == NULL)
		return NULL;
	w->programs = at;
	at += w->program_count++;
	*at = (struct waiter_program){.program = program};
	snprintf(at->name, sizeof at->name, "%s", p->settings->name);
	return at;
}

bool waiter_add_program(struct supervisor *s, struct waiter *w, int program)
{
	return add_program(s, w, program) != NULL;
}

static const char *state_of(const struct program *p)
{
	switch (p->rollout.state) {
	case ROLLOUT_IDLE:
		return "done";
	case ROLLOUT_BACK:
	case ROLLOUT_HALF:
		return "rolling back";
	default:
		return "rolling";
	}
}

/* A recycling is nobody's rollout. */
static bool is_under_way(const struct program *p)
{
	return rollout_moves(p) && p->rollout.state != ROLLOUT_RECYCLING;
}

/* --- progress ------------------------------------------------------------------------------ */
static void tell(struct supervisor *s, struct waiter *w, int program, int slot, const char *text)
{
	const struct program *p = &s->core.programs[program];
	int done, total;
	json_t *o;

	rollout_progress(&s->core, program, &done, &total);
	o = json_pack("{s:s s:s s:i s:i}", "program", p->settings->name, "state", state_of(p),
		"done", done, "total", total);
	if (slot >= 0 && o != NULL)
		json_object_set_new(o, "worker", json_string(report_worker_name(s, slot)));
	if (slot < 0)
		control_progress_with(w->from, w->id, o, "%s", text);
	else
		control_progress_with(w->from, w->id, o, "%s %s (%d of %d)",
			report_worker_name(s, slot), text, done, total);
}

/* Each worker is looked up where it was last; it seldom moves. NULL: scaled away, say. */
static const struct worker *look_up(struct supervisor *s, struct waiter_worker *at)
{
	const struct worker *of = at->slot < s->core.worker_slots ? &s->core.workers[at->slot]
								  : NULL;
	int slot;

	if (of != NULL && of->used && of->program == at->program && of->index == at->index &&
		!of->remove && !of->outgoing)
		return of;
	slot = core_find_worker(&s->core, at->program, at->index);
	if (slot < 0)
		return NULL;
	at->slot = slot;
	return &s->core.workers[slot];
}

/* Those that are ready and of the version waited for; after a failure nobody is. */
static void tell_replaced(struct supervisor *s, struct waiter *w)
{
	const struct waiter_program *of = NULL;

	for (size_t i = 0; i < w->worker_count; i++) {
		struct waiter_worker *at = &w->workers[i];
		const struct worker *now;
		char text[64];

		if (of == NULL || of->program != at->program)
			of = find_program(s, w, at->program);
		if (of == NULL || of->generation == 0 || at->told_generation == of->generation ||
			of->generation != s->core.programs[of->program].generation)
			continue;
		now = look_up(s, at);
		if (now == NULL || !now->ready || now->generation != of->generation)
			continue;
		at->told_generation = of->generation;
		snprintf(text, sizeof text, "is replaced, pid %d",
			(int)main_pid(&s->processes[at->slot]));
		tell(s, w, at->program, at->slot, text);
	}
}

void waiters_remark(struct supervisor *s, int program, const char *text)
{
	for (struct waiter *w = s->commands != NULL ? s->commands->waiters : NULL; w != NULL;
		w = w->next) {
		const struct waiter_program *at;

		if (!is_of_rollouts(w))
			continue;
		at = find_program(s, w, program);
		if (at == NULL || (at->begun && !at->touched && at->generation == 0))
			continue;
		tell_replaced(s, w); /* what has led to it comes first */
		tell(s, w, program, -1, text);
	}
}

/* --- what the request does ----------------------------------------------------------------- */
static bool is_of(const struct waiter *w, const struct event *e)
{
	return is_of_rollouts(w) && w->ticket == e->number &&
	       (w->kind == WAITER_RELOADED ? e->kind == EVENT_RELOAD : e->kind == EVENT_ROLL);
}

static void note(const struct program *p, struct waiter_program *at)
{
	at->newest = p->rollout.newest;
	at->count = p->count;
	at->leaving = p->leaving;
}

void waiters_before(struct supervisor *s, const struct event *e)
{
	for (struct waiter *w = s->commands != NULL ? s->commands->waiters : NULL; w != NULL;
		w = w->next) {
		if (!is_of(w, e))
			continue;
		for (int i = 0; i < s->core.program_slots; i++) {
			struct waiter_program *at = NULL;

			if (s->core.programs[i].used && w->kind == WAITER_RELOADED)
				at = add_program(s, w, i);
			else if (s->core.programs[i].used && i == e->program)
				at = find_program(s, w, i);
			if (at != NULL && !at->begun)
				note(&s->core.programs[i], at);
		}
	}
}

static void begin(struct waiter *w, const struct program *p, struct waiter_program *at)
{
	bool aimed = p->rollout.newest != at->newest;

	at->begun = true;
	at->touched = aimed || w->kind == WAITER_ROLLED || p->count != at->count ||
		      p->leaving != at->leaving;
	if (aimed ? p->started : is_under_way(p))
		at->generation = p->rollout.newest;
	if (!aimed && is_under_way(p))
		control_progress(
			w->from, w->id, "%s: a rollout is under way: waiting for it", at->name);
	else if (!aimed && p->rollout.state == ROLLOUT_HALF)
		control_progress(w->from, w->id,
			"%s is half way, neither version of its last rollout starts: left as it "
			"is (`baton restart --rolling %s` tries again)",
			at->name, at->name);
}

void waiters_after(struct supervisor *s, const struct event *e)
{
	for (struct waiter *w = s->commands != NULL ? s->commands->waiters : NULL; w != NULL;
		w = w->next) {
		if (!is_of(w, e))
			continue;
		for (int i = 0; i < s->core.program_slots; i++) {
			struct waiter_program *at = NULL;

			if (s->core.programs[i].used)
				at = find_program(s, w, i);
			if (at != NULL && !at->begun &&
				(w->kind == WAITER_RELOADED || i == e->program))
				begin(w, &s->core.programs[i], at);
			else if (at == NULL && w->kind == WAITER_RELOADED &&
				 s->core.programs[i].used && (at = add_program(s, w, i)) != NULL)
				at->begun = at->touched = true; /* it is new */
		}
	}
}

/* --- the outcome --------------------------------------------------------------------------- */
static bool any_on_the_way(const struct supervisor *s, int program)
{
	for (int i = core_next_worker(&s->core, program, -1); i >= 0;
		i = core_next_worker(&s->core, program, i)) {
		enum worker_state state = s->core.workers[i].state;

		if (state == WORKER_STARTING || state == WORKER_STOPPING)
			return true;
	}
	return false;
}

static enum waiter_end end(struct waiter_program *at, enum waiter_end how)
{
	if (how == END_STOPPED)
		snprintf(at->why, sizeof at->why, "stopped before every worker was replaced");
	else if (how == END_REMOVED)
		snprintf(at->why, sizeof at->why,
			"taken out by another reload before every worker was replaced");
	return how;
}

/* How its last rollout ended, if it has. */
static enum waiter_end rollout_end(const struct supervisor *s, struct waiter_program *at)
{
	const struct program *p = program_of(s, at);

	if (is_under_way(p))
		return END_NOT_YET;
	if (p->rollout.state == ROLLOUT_HALF || p->rollout.outcome == ROLLOUT_FAILED) {
		report_rollout_end(s, at->program, at->why, sizeof at->why);
		return END_FAILED;
	}
	if (p->rollout.outcome == ROLLOUT_DONE)
		return END_DONE;
	return at->generation != 0 ? end(at, END_STOPPED) : END_DONE;
}

/* The version that was asked for may be in the one that came, or that one may be back where this
 * began: what counts is how that ends. */
static void supersede(struct supervisor *s, struct waiter *w, struct waiter_program *at)
{
	char text[80] = "superseded by another rollout: its outcome counts";

	if (w->generation != s->generation)
		snprintf(text, sizeof text,
			"superseded by another reload (generation %u): its outcome counts",
			s->generation);
	at->generation = s->core.programs[at->program].rollout.newest;
	at->superseded = true;
	tell(s, w, at->program, -1, text);
}

static enum waiter_end judge(struct supervisor *s, struct waiter *w, struct waiter_program *at)
{
	const struct program *p = program_of(s, at);
	bool waits = at->generation != 0 || w->kind == WAITER_ROLLED;

	if (p == NULL || (p->leaving && waits))
		return waits ? end(at, END_REMOVED) : END_DONE;
	if (!at->begun)
		return END_NOT_YET;
	if (at->generation == 0) /* started, scaled, or nothing at all */
		return waits && !p->started ? end(at, END_STOPPED) : END_DONE;
	if (p->rollout.newest != at->generation)
		supersede(s, w, at);
	return rollout_end(s, at);
}

/* Of a program that is new, or has more workers than before: those that came and do not start. */
static void judge_new(struct supervisor *s, struct waiter_program *at)
{
	for (int i = core_next_worker(&s->core, at->program, -1); i >= 0;
		i = core_next_worker(&s->core, at->program, i)) {
		const struct worker *of = &s->core.workers[i];
		char how[512];

		if (of->index < at->count || of->remove ||
			(of->state != WORKER_FATAL &&
				(of->state != WORKER_BACKOFF || of->failures == 0)))
			continue;
		report_exit(s, i, how, sizeof how);
		snprintf(at->why, sizeof at->why, "%s %s; %s", report_worker_name(s, i), how,
			of->state == WORKER_FATAL ? "given up" : "baton goes on trying");
		at->end = END_FAILED;
		return;
	}
}

static json_t *program_json(struct supervisor *s, const struct waiter_program *at)
{
	static const char *const ends[] = {[END_NOT_YET] = "running",
		[END_DONE] = "done",
		[END_FAILED] = "failed",
		[END_STOPPED] = "stopped",
		[END_REMOVED] = "removed"};
	const struct program *p = program_of(s, at);
	json_t *workers = json_array();
	int count, *slots = p != NULL ? snapshot_workers(s, at->program, &count) : NULL;

	for (int i = 0; slots != NULL && i < count; i++) {
		const struct worker *of = &s->core.workers[slots[i]];

		json_array_append_new(workers,
			json_pack("{s:s s:i s:s s:I}", "name", report_worker_name(s, slots[i]),
				"pid", of->tree ? main_pid(&s->processes[slots[i]]) : 0, "state",
				worker_state_name(of->state), "generation",
				(json_int_t)of->generation));
	}
	free(slots);
	return json_pack("{s:s s:s s:s? s:b s:I s:o}", "name", at->name, "outcome", ends[at->end],
		"reason", at->why[0] != '\0' ? at->why : NULL, "superseded", at->superseded,
		"generation", (json_int_t)(p != NULL ? p->generation : at->generation), "workers",
		workers);
}

static void set_result(struct supervisor *s, struct waiter *w)
{
	json_t *programs = json_array();
	bool superseded = false;

	for (size_t i = 0; i < w->program_count; i++) {
		const struct waiter_program *at = &w->programs[i];

		superseded = superseded || at->superseded;
		if (at->generation != 0 || at->end > END_DONE)
			json_array_append_new(programs, program_json(s, at));
	}
	if (w->result == NULL)
		w->result = json_object();
	json_object_set_new(w->result, "programs", programs);
	if (superseded && w->generation != s->generation)
		json_object_set_new(w->result, "superseded_by", json_integer(s->generation));
}

/* "web: why" or "web, plain: not replaced. web: why. plain: why": all that came to no good end. */
static int fail(const struct waiter *w, struct err *e)
{
	char names[256] = "", text[sizeof e->text] = "";
	size_t failed = 0, n = 0, m = 0;

	for (size_t i = 0; i < w->program_count; i++) {
		const struct waiter_program *at = &w->programs[i];

		if (at->end <= END_DONE)
			continue;
		if (n < sizeof names)
			n += (size_t)snprintf(names + n, sizeof names - n, "%s%s",
				failed > 0 ? ", " : "", at->name);
		if (m < sizeof text)
			m += (size_t)snprintf(text + m, sizeof text - m, "%s%s: %s",
				failed > 0 ? ". " : "", at->name, at->why);
		failed++;
	}
	if (failed == 0)
		return 1;
	if (failed == 1)
		err_set(e, ERR_SYSTEM, "%s", text);
	else
		err_set(e, ERR_SYSTEM, "%s: failed. %s", names, text);
	return -1;
}

/* All of them are at rest before the answer, which names those that failed. */
int waiter_rolled(struct supervisor *s, struct waiter *w, struct err *e)
{
	bool ready = true;

	tell_replaced(s, w);
	for (size_t i = 0; i < w->program_count; i++) {
		struct waiter_program *at = &w->programs[i];
		const struct program *p = program_of(s, at);

		if (at->end == END_NOT_YET)
			at->end = judge(s, w, at);
		ready = ready && at->end != END_NOT_YET &&
			!(at->end == END_DONE && p != NULL && at->touched &&
				(p->leaving || any_on_the_way(s, at->program)));
	}
	if (!ready)
		return 0;
	for (size_t i = 0; i < w->program_count; i++) {
		struct waiter_program *at = &w->programs[i];
		const struct program *p = program_of(s, at);

		if (at->end == END_DONE && p != NULL && at->touched && at->generation == 0 &&
			p->started && !p->leaving)
			judge_new(s, at);
	}
	set_result(s, w);
	return fail(w, e);
}

/* No rollout is under way, and the last one of each program did not fail: whether it ended before
 * or after this wait began makes no difference to whoever asks. */
int waiter_no_rollout(struct supervisor *s, struct waiter *w, struct err *e)
{
	bool ready = true;

	for (size_t i = 0; i < w->program_count; i++)
		w->programs[i].end = END_DONE; /* it may be gone by now */
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];
		struct waiter_program *at;

		if (!p->used)
			continue;
		at = add_program(s, w, i);
		if (at == NULL)
			continue;
		if (is_under_way(p))
			at->generation = p->rollout.newest;
		at->end = rollout_end(s, at);
		ready = ready && at->end != END_NOT_YET && p->rollout.state != ROLLOUT_RECYCLING;
	}
	return ready ? fail(w, e) : 0;
}

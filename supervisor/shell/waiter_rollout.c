/* Who waits for rollouts (`reload`, `restart --rolling`): the outcome, and a line a worker before.
 */
#include <stdio.h>
#include <string.h>

#include "supervisor/core/rollout_fsm.h"
#include "supervisor/shell/commands.h"

static bool is_of_rollouts(const struct waiter *w)
{
	return w->kind == WAITER_RELOADED || w->kind == WAITER_ROLLED;
}

static const struct program *program_of(const struct supervisor *s, const struct waiter_worker *w)
{
	const struct program *p = &s->core.programs[w->program];

	return p->used ? p : NULL;
}

/* Another version was aimed at since the request came. */
static bool was_aimed(const struct program *p, const struct waiter_worker *w)
{
	return p->rollout.newest != w->generation;
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

/* Each worker is looked up where it was last; it seldom moves. */
static const struct worker *look_up(struct supervisor *s, struct waiter_worker *at)
{
	const struct worker *of = at->slot < s->core.worker_slots ? &s->core.workers[at->slot]
								  : NULL;

	if (of == NULL || !of->used || of->program != at->program || of->index != at->index ||
		of->remove || of->outgoing)
		at->slot = core_find_worker(&s->core, at->program, at->index);
	if (at->slot < 0) { /* scaled away, say: not looked for again */
		at->slot = 0;
		at->told = true;
		return NULL;
	}
	of = &s->core.workers[at->slot];
	return of->used && of->program == at->program && of->index == at->index ? of : NULL;
}

static void tell_replaced(struct supervisor *s, struct waiter *w)
{
	for (size_t i = 0; i < w->worker_count; i++) {
		struct waiter_worker *at = &w->workers[i];
		const struct program *p = program_of(s, at);
		const struct worker *of;
		char text[64];

		if (p == NULL || !was_aimed(p, at) || at->told)
			continue;
		of = look_up(s, at);
		if (of == NULL || of->id == at->id || !of->ready ||
			of->generation != p->generation || of->generation == at->generation)
			continue;
		at->told = true;
		snprintf(text, sizeof text, "is replaced, pid %d",
			(int)main_pid(&s->processes[at->slot]));
		tell(s, w, at->program, at->slot, text);
	}
}

void waiters_remark(struct supervisor *s, int program, const char *text, bool failed)
{
	for (struct waiter *w = s->commands != NULL ? s->commands->waiters : NULL; w != NULL;
		w = w->next) {
		bool concerned = false;

		if (w->from == NULL || !is_of_rollouts(w))
			continue;
		for (size_t i = 0; i < w->worker_count && !concerned; i++)
			concerned = w->workers[i].program == program;
		if (!concerned)
			continue;
		if (failed)
			snprintf(w->text, sizeof w->text, "%s", text);
		tell(s, w, program, -1, text);
	}
}

/* --- the outcome --------------------------------------------------------------------------- */
static bool first_of_program(const struct waiter *w, size_t i)
{
	return i == 0 || w->workers[i - 1].program != w->workers[i].program;
}

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

/* 1 done, -1 failed, 0 not yet. */
static int judge(const struct supervisor *s, const struct waiter *w, const struct waiter_worker *at,
	struct err *e)
{
	const struct program *p = program_of(s, at);

	if (p == NULL)
		return 1;
	if (was_aimed(p, at) && (p->rollout.state == ROLLOUT_HALF ||
					(p->rollout.state == ROLLOUT_IDLE &&
						p->rollout.outcome == ROLLOUT_FAILED))) {
		err_set(e, ERR_SYSTEM, "%s: %s; %s", p->settings->name,
			w->text[0] != '\0' ? w->text : "the new version does not start",
			report_rollout_end(p));
		return -1;
	}
	if (p->rollout.state != ROLLOUT_IDLE &&
		(p->rollout.state != ROLLOUT_RECYCLING || was_aimed(p, at)))
		return 0;
	if (w->kind == WAITER_ROLLED && !p->started) {
		err_set(e, ERR_SYSTEM, "%s was stopped meanwhile", p->settings->name);
		return -1;
	}
	return p->leaving || any_on_the_way(s, at->program) ? 0 : 1;
}

static json_t *programs_json(struct supervisor *s, const struct waiter *w)
{
	json_t *list = json_array();

	for (size_t i = 0; i < w->worker_count; i++) {
		const struct program *p = program_of(s, &w->workers[i]);
		json_t *workers;

		if (p == NULL || !first_of_program(w, i) || !was_aimed(p, &w->workers[i]))
			continue;
		workers = json_array();
		for (int k = core_next_worker(&s->core, w->workers[i].program, -1); k >= 0;
			k = core_next_worker(&s->core, w->workers[i].program, k))
			json_array_append_new(workers,
				json_pack("{s:s s:i s:s s:I}", "name", report_worker_name(s, k),
					"pid",
					s->core.workers[k].tree ? main_pid(&s->processes[k]) : 0,
					"state", worker_state_name(s->core.workers[k].state),
					"generation", (json_int_t)s->core.workers[k].generation));
		json_array_append_new(
			list, json_pack("{s:s s:s s:I s:o}", "name", p->settings->name, "outcome",
				      p->rollout.outcome == ROLLOUT_FAILED ? "failed" : "done",
				      "generation", (json_int_t)p->generation, "workers", workers));
	}
	return list;
}

/* All of them are at rest before the answer, which is that of the one that failed, if one did. */
int waiter_rolled(struct supervisor *s, struct waiter *w, struct err *e)
{
	bool failed = false;

	tell_replaced(s, w);
	for (int i = 0; i < s->core.program_slots && w->kind == WAITER_RELOADED; i++) {
		if (s->core.programs[i].used &&
			(s->core.programs[i].leaving || any_on_the_way(s, i)))
			return 0;
	}
	for (size_t i = 0; i < w->worker_count; i++) {
		int state = first_of_program(w, i) ? judge(s, w, &w->workers[i], e) : 1;

		if (state == 0)
			return 0;
		failed = failed || state < 0;
	}
	if (w->result == NULL)
		w->result = json_object();
	json_object_set_new(w->result, "programs", programs_json(s, w));
	return failed ? -1 : 1;
}

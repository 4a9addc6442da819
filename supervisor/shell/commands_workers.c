/* Requests about workers: start, stop, restart, signal, scale. */
#include <signal.h>
#include <stdlib.h>

#include "conf/units.h"
#include "supervisor/shell/commands_internal.h"

static void change(struct request *r, enum event_kind kind, enum waiter_kind wait)
{
	struct targets t;
	const char *code;
	struct err e;
	struct waiter *w;

	if (request_comes_late(r))
		return;
	if (!targets_find(r->s, json_object_get(r->json, "targets"), &t, &code, &e)) {
		request_fail(r, code, e.text);
		return;
	}
	w = waiter_add(r->s, r->from, r->id, wait, request_timeout(r));
	if (w != NULL && !waiter_set_workers(r->s, w, &t)) {
		request_fail(r, "failed", "out of memory");
		w->from = NULL;
	} else if (w != NULL) {
		for (size_t i = 0; i < t.count; i++)
			request_post(r, kind, t.items[i].program, t.items[i].worker, 0);
		if (!request_waits(r)) { /* answered at once with what is there now */
			control_answer(r->from, r->id, waiter_workers_json(r->s, w));
			w->from = NULL;
		}
	}
	targets_release(&t);
}

void commands_start(struct request *r)
{
	change(r, EVENT_START, WAITER_STARTED);
}

void commands_stop(struct request *r)
{
	change(r, EVENT_STOP, WAITER_STOPPED);
}

static bool watch_rollouts(struct supervisor *s, struct waiter *w, const struct targets *t)
{
	w->ticket = ++s->commands->tickets;
	for (size_t i = 0; i < t->count; i++) {
		if (!waiter_add_program(s, w, t->items[i].program))
			return false;
	}
	return waiter_set_workers(s, w, t);
}

/* A rollout with the settings that are there. */
static void roll(struct request *r)
{
	struct targets t;
	const char *code;
	struct waiter *w;
	struct err e;

	if (request_comes_late(r))
		return;
	if (!targets_find(r->s, json_object_get(r->json, "targets"), &t, &code, &e)) {
		request_fail(r, code, e.text);
		return;
	}
	for (size_t i = 0; i < t.count; i++) {
		if (t.items[i].worker < 0)
			continue;
		control_fail(r->from, r->id, "usage", NULL, NULL,
			"%s is one worker: a rolling restart replaces those of a program one after "
			"the other; name the program, or restart that worker without --rolling",
			report_worker_name(r->s, t.items[i].worker));
		targets_release(&t);
		return;
	}
	w = waiter_add(r->s, r->from, r->id, WAITER_ROLLED, request_timeout(r));
	if (w != NULL && !watch_rollouts(r->s, w, &t)) {
		request_fail(r, "failed", "out of memory");
		w->from = NULL;
	} else if (w != NULL) {
		for (size_t i = 0; i < t.count; i++)
			request_post(r, EVENT_ROLL, t.items[i].program, -1, w->ticket);
		if (!request_waits(r)) {
			control_answer(r->from, r->id, waiter_workers_json(r->s, w));
			w->from = NULL;
		}
	}
	targets_release(&t);
}

void commands_restart(struct request *r)
{
	if (json_is_true(json_object_get(r->json, "rolling"))) {
		roll(r);
		return;
	}
	change(r, EVENT_RESTART, WAITER_RESTARTED);
}

void commands_signal(struct request *r)
{
	const char *name = request_text(r, "signal"), *code;
	struct targets t;
	struct err e;
	json_t *sent = json_array();
	int signal;

	if (name == NULL || units_signal(name, &signal, &e) < 0) {
		request_fail(r, "usage", name == NULL ? "which signal?" : e.text);
		json_decref(sent);
		return;
	}
	if (!targets_find(r->s, json_object_get(r->json, "targets"), &t, &code, &e)) {
		request_fail(r, code, e.text);
		json_decref(sent);
		return;
	}
	for (size_t i = 0; i < t.count; i++) {
		int program = t.items[i].program;

		for (int j = core_next_worker(&r->s->core, program, -1); j >= 0;
			j = core_next_worker(&r->s->core, program, j)) {
			const struct process *p = &r->s->processes[j];

			if ((t.items[i].worker >= 0 && t.items[i].worker != j) || !p->leader_alive)
				continue;
			if (main_signal(p, signal) == 0)
				json_array_append_new(
					sent, json_string(report_worker_name(r->s, j)));
		}
	}
	targets_release(&t);
	if (json_array_size(sent) == 0) {
		json_decref(sent);
		request_fail(r, "failed", "none of them has a process");
		return;
	}
	control_answer(r->from, r->id, json_pack("{s:o}", "workers", sent));
}

/* --- scale --------------------------------------------------------------------------------- */
static bool scale_count(struct request *r, int from, int *ret_to)
{
	json_t *workers = json_object_get(r->json, "workers");
	const char *text = json_string_value(workers);
	char *end = NULL;
	json_int_t n;

	n = text != NULL ? strtol(text, &end, 10) : json_integer_value(workers);
	if (text != NULL ? *text == '\0' || *end != '\0' : !json_is_integer(workers)) {
		request_fail(r, "usage", "how many workers? N, +N or -N");
		return false;
	}
	if (text != NULL && (*text == '+' || *text == '-'))
		n += from;
	if (n < 0 || n > MOST_WORKERS) {
		request_fail(r, "usage", "a program has 0 to 10000 workers");
		return false;
	}
	*ret_to = (int)n;
	return true;
}

void commands_scale(struct request *r)
{
	const char *name = request_text(r, "program");
	int slot = name != NULL ? core_find_program(&r->s->core, name) : -1, to;
	struct program *p;
	struct waiter *w;
	json_t *result;

	if (request_comes_late(r))
		return;
	if (slot < 0) {
		control_fail(r->from, r->id, "not_found", NULL, NULL, "there is no program '%s'",
			name != NULL ? name : "");
		return;
	}
	p = &r->s->core.programs[slot];
	if (!scale_count(r, p->count, &to))
		return;
	if (!supervisor_has_room(r->s, EVENT_SCALE, slot, to, NULL)) {
		request_fail(
			r, "refused", "that would be more workers than one supervisor can have");
		return;
	}
	if (p->settings->hidden) {
		request_fail(r, "refused",
			"the built-in job worker is one process; [jobs] max_running says how "
			"many jobs run at the same time");
		return;
	}
	if (p->settings->executor == EXECUTOR_ONLY && to != 1) {
		request_fail(r, "refused", "executor = only: it has one worker over all instances");
		return;
	}
	result = json_pack("{s:s s:i s:i}", "program", name, "from", p->count, "to", to);
	request_post(r, EVENT_SCALE, slot, -1, to);
	if (!request_waits(r)) {
		control_answer(r->from, r->id, result);
		return;
	}
	w = waiter_add(r->s, r->from, r->id, WAITER_SCALED, request_timeout(r));
	if (w == NULL) {
		json_decref(result);
		return;
	}
	waiter_set_program(r->s, w, slot);
	w->count = to;
	w->result = result;
}

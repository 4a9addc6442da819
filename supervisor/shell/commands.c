/* The control requests: one row each. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/units.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/shell/commands.h"
#include "supervisor/shell/upgrade.h"
#include "worker/control.h"

struct request {
	struct supervisor *s;
	struct control_connection *from;
	uint64_t id;
	json_t *json;
};

static void fail(struct request *r, const char *code, const char *text)
{
	control_fail(r->from, r->id, code, NULL, NULL, "%s", text);
}

static void post(struct request *r, enum event_kind kind, int program, int worker, int64_t number)
{
	struct event e = {.kind = kind, .program = program, .worker = worker, .number = number};

	supervisor_post(r->s, &e);
}

static bool wants_wait(const struct request *r)
{
	return json_is_true(json_object_get(r->json, "wait"));
}

static const char *text_of(const struct request *r, const char *key)
{
	return json_string_value(json_object_get(r->json, key));
}

static int64_t timeout_of(const struct request *r)
{
	json_t *ms = json_object_get(r->json, "timeout_ms");

	return json_is_integer(ms) && json_integer_value(ms) > 0 ? json_integer_value(ms) * CORE_MS
								 : 0;
}

static bool is_stopping(struct request *r)
{
	if (r->s->core.lifecycle.state < LIFECYCLE_STOPPING)
		return false;
	fail(r, "refused", "the supervisor is stopping");
	return true;
}

/* --- start, stop, restart, signal ---------------------------------------------------------- */
static void change(struct request *r, enum event_kind kind, enum waiter_kind wait)
{
	struct targets t;
	const char *code;
	struct err e;
	struct waiter *w;

	if (is_stopping(r))
		return;
	if (!targets_find(r->s, json_object_get(r->json, "targets"), &t, &code, &e)) {
		fail(r, code, e.text);
		return;
	}
	w = waiter_add(r->s, r->from, r->id, wait, timeout_of(r));
	if (w != NULL && !waiter_set_workers(r->s, w, &t)) {
		fail(r, "failed", "out of memory");
		w->from = NULL;
	} else if (w != NULL) {
		for (size_t i = 0; i < t.count; i++)
			post(r, kind, t.items[i].program, t.items[i].worker, 0);
		if (!wants_wait(r)) { /* answered at once with what is there now */
			control_answer(r->from, r->id, waiter_workers_json(r->s, w));
			w->from = NULL;
		}
	}
	targets_release(&t);
}

static void do_start(struct request *r)
{
	change(r, EVENT_START, WAITER_STARTED);
}

static void do_stop(struct request *r)
{
	change(r, EVENT_STOP, WAITER_STOPPED);
}

/* A rollout with the settings that are there. */
static void roll(struct request *r)
{
	struct targets t;
	const char *code;
	struct waiter *w;
	struct err e;

	if (is_stopping(r))
		return;
	if (!targets_find(r->s, json_object_get(r->json, "targets"), &t, &code, &e)) {
		fail(r, code, e.text);
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
	w = waiter_add(r->s, r->from, r->id, WAITER_ROLLED, timeout_of(r));
	if (w != NULL && !waiter_set_workers(r->s, w, &t)) {
		fail(r, "failed", "out of memory");
		w->from = NULL;
	} else if (w != NULL) {
		for (size_t i = 0; i < t.count; i++)
			post(r, EVENT_ROLL, t.items[i].program, -1, 0);
		if (!wants_wait(r)) {
			control_answer(r->from, r->id, waiter_workers_json(r->s, w));
			w->from = NULL;
		}
	}
	targets_release(&t);
}

static void do_restart(struct request *r)
{
	if (json_is_true(json_object_get(r->json, "rolling"))) {
		roll(r);
		return;
	}
	change(r, EVENT_RESTART, WAITER_RESTARTED);
}

static void do_signal(struct request *r)
{
	const char *name = text_of(r, "signal"), *code;
	struct targets t;
	struct err e;
	json_t *sent = json_array();
	int signal;

	if (name == NULL || units_signal(name, &signal, &e) < 0) {
		fail(r, "usage", name == NULL ? "which signal?" : e.text);
		json_decref(sent);
		return;
	}
	if (!targets_find(r->s, json_object_get(r->json, "targets"), &t, &code, &e)) {
		fail(r, code, e.text);
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
			if (kill(p->pid, signal) == 0)
				json_array_append_new(
					sent, json_string(report_worker_name(r->s, j)));
		}
	}
	targets_release(&t);
	if (json_array_size(sent) == 0) {
		json_decref(sent);
		fail(r, "failed", "none of them has a process");
		return;
	}
	control_answer(r->from, r->id, json_pack("{s:o}", "workers", sent));
}

/* --- scale, handoff, lock ------------------------------------------------------------------ */
static bool scale_count(struct request *r, int from, int *ret_to)
{
	json_t *workers = json_object_get(r->json, "workers");
	const char *text = json_string_value(workers);
	char *end = NULL;
	json_int_t n;

	n = text != NULL ? strtol(text, &end, 10) : json_integer_value(workers);
	if (text != NULL ? *text == '\0' || *end != '\0' : !json_is_integer(workers)) {
		fail(r, "usage", "how many workers? N, +N or -N");
		return false;
	}
	if (text != NULL && (*text == '+' || *text == '-'))
		n += from;
	if (n < 0 || n > MOST_WORKERS) {
		fail(r, "usage", "a program has 0 to 10000 workers");
		return false;
	}
	*ret_to = (int)n;
	return true;
}

static void do_scale(struct request *r)
{
	const char *name = text_of(r, "program");
	int slot = name != NULL ? core_find_program(&r->s->core, name) : -1, to;
	struct program *p;
	struct waiter *w;
	json_t *result;

	if (is_stopping(r))
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
		fail(r, "refused", "that would be more workers than one supervisor can have");
		return;
	}
	if (p->settings->hidden) {
		fail(r, "refused",
			"the built-in job worker is one process; [jobs] max_running says how "
			"many jobs run at the same time");
		return;
	}
	if (p->settings->executor == EXECUTOR_ONLY && to != 1) {
		fail(r, "refused", "executor = only: it has one worker over all instances");
		return;
	}
	result = json_pack("{s:s s:i s:i}", "program", name, "from", p->count, "to", to);
	post(r, EVENT_SCALE, slot, -1, to);
	if (!wants_wait(r)) {
		control_answer(r->from, r->id, result);
		return;
	}
	w = waiter_add(r->s, r->from, r->id, WAITER_SCALED, timeout_of(r));
	if (w == NULL) {
		json_decref(result);
		return;
	}
	waiter_set_program(r->s, w, slot);
	w->count = to;
	w->result = result;
}

static void away(struct request *r)
{
	struct waiter *w;

	if (!election_holds(&r->s->core)) {
		fail(r, "refused", "this instance does not hold the lock");
		return;
	}
	post(r, EVENT_STEP_DOWN, -1, -1, 0);
	w = waiter_add(r->s, r->from, r->id, WAITER_AWAY, timeout_of(r));
	if (w != NULL)
		w->result = json_pack("{s:b}", "released", 1);
}

/* The program whose baton is to move: the named one, that of the named worker, or the only one. */
static bool handoff_program(struct request *r, int *ret_program, int *ret_worker)
{
	const char *program = text_of(r, "program"), *worker = text_of(r, "worker"), *code;
	struct targets t = {NULL, 0};
	struct err e;
	int found = -1;

	*ret_worker = -1;
	if (worker != NULL || program != NULL) {
		if (!targets_find_one(r->s, worker != NULL ? worker : program, &t, &code, &e)) {
			fail(r, code, e.text);
			return false;
		}
		if (t.count > 0) { /* "all" of nothing */
			found = t.items[0].program;
			*ret_worker = t.items[0].worker;
		}
		targets_release(&t);
	}
	for (int i = 0; i < r->s->core.program_slots && found < 0; i++) {
		if (r->s->core.programs[i].used && r->s->core.programs[i].executor.exists &&
			r->s->core.programs[i].executor.worker >= 0)
			found = i;
	}
	if (found < 0 || !r->s->core.programs[found].executor.exists) {
		fail(r, "refused", "no program here is a candidate program with an executor");
		return false;
	}
	*ret_program = found;
	return true;
}

static bool handoff_possible(struct request *r, int program, int worker)
{
	const struct program *p = &r->s->core.programs[program];
	int others = 0;

	if (!election_holds(&r->s->core)) {
		fail(r, "refused", "this instance does not hold the lock: ask the holder");
		return false;
	}
	if (p->executor.state != EXECUTOR_EXECUTING) {
		fail(r, "refused", "there is no executor that could hand over right now");
		return false;
	}
	if (worker == p->executor.worker) {
		fail(r, "refused", "that worker is the executor already");
		return false;
	}
	for (int i = core_next_worker(&r->s->core, program, -1); i >= 0;
		i = core_next_worker(&r->s->core, program, i))
		others += i != p->executor.worker && r->s->core.workers[i].ready &&
			  (worker < 0 || worker == i);
	if (others == 0) {
		fail(r, "refused",
			worker >= 0
				? "that worker is not ready"
				: "no other worker is ready; `handoff --away` releases the lock");
		return false;
	}
	return true;
}

static void do_handoff(struct request *r)
{
	struct waiter *w;
	int program, worker;
	const struct executor *x;

	if (is_stopping(r))
		return;
	if (json_is_true(json_object_get(r->json, "away"))) {
		away(r);
		return;
	}
	if (!handoff_program(r, &program, &worker) || !handoff_possible(r, program, worker))
		return;
	x = &r->s->core.programs[program].executor;
	w = waiter_add(r->s, r->from, r->id, WAITER_HANDED_OFF, timeout_of(r));
	if (w == NULL)
		return;
	waiter_set_program(r->s, w, program);
	w->term = x->term;
	snprintf(w->old_worker, sizeof w->old_worker, "%s", report_worker_name(r->s, x->worker));
	post(r, EVENT_HANDOFF, program, worker, 0);
}

static void do_lock_release(struct request *r)
{
	if (!r->s->config->scheduler.enabled)
		fail(r, "refused", "this configuration has no [scheduler]: there is no lock");
	else
		away(r);
}

/* --- shutdown, reload ---------------------------------------------------------------------- */
static void do_shutdown(struct request *r)
{
	const char *mode = text_of(r, "mode");
	bool quick = mode != NULL && strcmp(mode, "quick") == 0;

	if (mode != NULL && !quick && strcmp(mode, "graceful") != 0) {
		fail(r, "usage", "mode is graceful or quick");
		return;
	}
	logs_event(r->s->logs, LOGS_INFO, "control.shutdown", NULL, 0, "asked to stop by pid %d",
		(int)control_peer_of(r->from)->pid);
	post(r, EVENT_SHUTDOWN, -1, -1, quick ? SHUTDOWN_QUICK : SHUTDOWN_GRACEFUL);
	if (wants_wait(r))
		(void)waiter_add(r->s, r->from, r->id, WAITER_SHUTDOWN, 0);
	else
		control_answer(r->from, r->id, json_object());
}

static json_t *lines_json(const struct reload_result *result)
{
	json_t *lines = json_array();

	for (size_t i = 0; i < result->line_count; i++)
		json_array_append_new(lines, json_string(result->lines[i]));
	return lines;
}

static void fail_reload(struct request *r, struct reload_result *result)
{
	control_fail(r->from, r->id, result->unavailable ? "unavailable" : "failed", NULL,
		json_pack("{s:o}", "findings", lines_json(result)),
		"the configuration was not taken");
	reload_result_release(result);
}

/* What it would do, and nothing else. */
/* Names must be looked up: the request is answered when that is done. */
static void do_later(struct request *r)
{
	if (!lookups_begin(r->s, r->from, r->id, r->json))
		fail(r, "timeout", "users or hosts of the configuration cannot be looked up");
}

static void plan_reload(struct request *r)
{
	struct reload_result result = {0};

	reload_plan(r->s, json_is_true(json_object_get(r->json, "changed_only")), &result);
	if (result.later) {
		do_later(r);
		return;
	}
	if (!result.ok) {
		fail_reload(r, &result);
		return;
	}
	control_answer(r->from, r->id,
		json_pack("{s:o s:I s:s}", "plan", lines_json(&result), "generation",
			(json_int_t)r->s->generation, "config",
			r->s->config_text != NULL ? "(command line)" : r->s->config_path));
	reload_result_release(&result);
}

static void do_reload(struct request *r)
{
	struct reload_result result = {0};
	struct targets all = {NULL, 0};
	struct waiter *w = NULL;
	const char *code;
	struct err e;
	json_t *plan;

	if (is_stopping(r))
		return;
	if (json_is_true(json_object_get(r->json, "plan"))) {
		plan_reload(r);
		return;
	}
	reload_run(r->s, json_is_true(json_object_get(r->json, "changed_only")), &result);
	if (result.later) {
		do_later(r);
		return;
	}
	if (!result.ok) {
		fail_reload(r, &result);
		return;
	}
	plan = json_pack("{s:o s:I}", "plan", lines_json(&result), "generation",
		(json_int_t)r->s->generation);
	if (wants_wait(r)) {
		for (size_t i = 0; i < result.line_count; i++)
			control_progress(r->from, r->id, "%s", result.lines[i]);
		w = waiter_add(r->s, r->from, r->id, WAITER_RELOADED, timeout_of(r));
	}
	reload_result_release(&result);
	if (!wants_wait(r)) {
		control_answer(r->from, r->id, plan);
	} else if (w == NULL) {
		json_decref(plan);
	} else { /* its event waits in the queue: these are the workers before it */
		w->result = plan;
		(void)targets_find_one(r->s, "all", &all, &code, &e);
		(void)waiter_set_workers(r->s, w, &all);
		targets_release(&all);
	}
}

/* Who may name a binary decides what runs with our rights. */
static bool may_name(const struct request *r)
{
	uid_t uid = control_peer_of(r->from)->uid;

	return uid == 0 || uid == geteuid();
}

static void do_upgrade(struct request *r)
{
	const char *binary = text_of(r, "binary");
	struct err e;

	if (binary != NULL && binary[0] != '/') {
		fail(r, "usage", "the binary is to be named by its whole path");
		return;
	}
	if (binary != NULL && !may_name(r)) {
		fail(r, "refused", "only root and the user who started baton may name a binary");
		return;
	}
	if (upgrade_begin(r->s, binary != NULL ? binary : "", &e) < 0)
		fail(r,
			e.code == ERR_BUSY      ? "busy"
			: e.code == ERR_REFUSED ? "refused"
						: "failed",
			e.text);
	else if (wants_wait(r))
		(void)waiter_add(r->s, r->from, r->id, WAITER_UPGRADED, timeout_of(r));
	else
		control_answer(r->from, r->id, json_object());
}

/* --- status, wait, events, is-executor ----------------------------------------------------- */
static void do_status(struct request *r)
{
	control_answer(r->from, r->id, snapshot_status(r->s));
}

static void do_wait(struct request *r)
{
	const char *condition = text_of(r, "for");
	struct waiter *w;
	struct err e;

	if (condition == NULL) {
		fail(r, "usage", "wait for what?");
		return;
	}
	w = waiter_add(r->s, r->from, r->id, WAITER_CONDITION, timeout_of(r));
	if (w == NULL)
		return;
	if (!waiter_parse_condition(w, condition, &e)) {
		w->from = NULL; /* dropped at the next check */
		fail(r, "usage", e.text);
	} else if (waiter_names_nobody(r->s, w, &e)) {
		w->from = NULL;
		fail(r, "not_found", e.text);
	}
}

static void tap(void *context, const char *line, size_t bytes)
{
	struct supervisor *s = context;

	if (s->control != NULL)
		control_broadcast(s->control, line, bytes);
}

static void do_events(struct request *r)
{
	control_answer(r->from, r->id, json_object());
	control_subscribe(r->from);
	logs_tap(r->s->logs, tap, r->s);
}

static void do_is_executor(struct request *r)
{
	const struct process *p = reap_owner(r->s, control_peer_of(r->from)->pid);
	const struct worker *w = p != NULL ? &r->s->core.workers[p->slot] : NULL;
	const struct executor *x = w != NULL ? &r->s->core.programs[w->program].executor : NULL;
	int64_t deadline = p != NULL && p->lease.page != NULL ? lease_deadline(p->lease.page) : 0;

	if (p == NULL) {
		fail(r, "refused", "the asking process is in no worker's process tree");
		return;
	}
	control_answer(r->from, r->id,
		json_pack("{s:b s:I s:s}", "executor", deadline != 0 && lease_now_ns() < deadline,
			"term", (json_int_t)(x->worker == p->slot ? x->term : 0), "worker",
			p->name));
}

static void do_jobs_config(struct request *r)
{
	if (jobs_may_ask(r->s, control_peer_of(r->from)))
		control_answer(r->from, r->id, jobs_document(r->s));
	else
		fail(r, "refused", "only the job worker of this instance may ask that");
}

static void do_version(struct request *r)
{
	control_answer(r->from, r->id,
		json_pack("{s:s s:i}", "version", BATON_VERSION, "protocol", CONTROL_VERSION));
}

static const struct {
	const char *name;
	void (*run)(struct request *r);
} table[] = {
	{"status", do_status},
	{"start", do_start},
	{"stop", do_stop},
	{"restart", do_restart},
	{"signal", do_signal},
	{"scale", do_scale},
	{"handoff", do_handoff},
	{"lock.release", do_lock_release},
	{"shutdown", do_shutdown},
	{"reload", do_reload},
	{"upgrade", do_upgrade},
	{"wait", do_wait},
	{"events", do_events},
	{"is-executor", do_is_executor},
	{"jobs-config", do_jobs_config},
	{"version", do_version},
};

static void requested(
	void *context, struct control_connection *from, uint64_t id, const char *cmd, json_t *json)
{
	struct request r = {.s = context, .from = from, .id = id, .json = json};

	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		if (strcmp(table[i].name, cmd) == 0) {
			table[i].run(&r);
			return;
		}
	}
	control_fail(
		from, id, "unsupported", NULL, NULL, "this version knows no request '%.64s'", cmd);
}

void commands_again(
	struct supervisor *s, struct control_connection *from, uint64_t id, json_t *json)
{
	requested(s, from, id, json_string_value(json_object_get(json, "cmd")), json);
}

static void closed(void *context, struct control_connection *gone)
{
	struct supervisor *s = context;

	lookups_forget(s, gone);
	waiters_forget(s, gone);
	if (s->control != NULL && control_subscribers(s->control) == 0)
		logs_tap(s->logs, NULL, NULL);
}

int commands_create(struct supervisor *s, struct control_handlers *ret_handlers)
{
	s->commands = calloc(1, sizeof *s->commands);
	if (s->commands == NULL)
		return -1;
	ret_handlers->request = requested;
	ret_handlers->closed = closed;
	ret_handlers->context = s;
	return 0;
}

void commands_resume(struct supervisor *s)
{
	if (control_subscribers(s->control) > 0)
		logs_tap(s->logs, tap, s);
}

void commands_free(struct supervisor *s)
{
	if (s->commands == NULL)
		return;
	waiters_forget(s, NULL);
	free(s->commands);
	s->commands = NULL;
}

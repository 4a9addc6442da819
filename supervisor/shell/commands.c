/* The control requests: one row each. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/lookups.h"
#include "supervisor/shell/commands_internal.h"

void request_fail(struct request *r, const char *code, const char *text)
{
	control_fail(r->from, r->id, code, NULL, NULL, "%s", text);
}

void request_post(struct request *r, enum event_kind kind, int program, int worker, int64_t number)
{
	struct event e = {.kind = kind, .program = program, .worker = worker, .number = number};

	supervisor_post(r->s, &e);
}

bool request_waits(const struct request *r)
{
	return json_is_true(json_object_get(r->json, "wait"));
}

const char *request_text(const struct request *r, const char *key)
{
	return json_string_value(json_object_get(r->json, key));
}

int64_t request_timeout(const struct request *r)
{
	json_t *ms = json_object_get(r->json, "timeout_ms");

	return json_is_integer(ms) && json_integer_value(ms) > 0 ? json_integer_value(ms) * CORE_MS
								 : 0;
}

bool request_comes_late(struct request *r)
{
	if (r->s->core.lifecycle.state < LIFECYCLE_STOPPING)
		return false;
	request_fail(r, "refused", "the supervisor is stopping");
	return true;
}

/* --- status, wait, events, is-executor ----------------------------------------------------- */
static void do_status(struct request *r)
{
	control_answer(r->from, r->id, snapshot_status(r->s));
}

static void do_wait(struct request *r)
{
	const char *condition = request_text(r, "for");
	struct waiter *w;
	struct err e;

	if (condition == NULL) {
		request_fail(r, "usage", "wait for what?");
		return;
	}
	w = waiter_add(r->s, r->from, r->id, WAITER_CONDITION, request_timeout(r));
	if (w == NULL)
		return;
	if (!waiter_parse_condition(w, condition, &e)) {
		w->from = NULL; /* dropped at the next check */
		request_fail(r, "usage", e.text);
	} else if (waiter_names_nobody(r->s, w, &e)) {
		w->from = NULL;
		request_fail(r, "not_found", e.text);
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
		request_fail(r, "refused", "the asking process is in no worker's process tree");
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
		request_fail(r, "refused", "only the job worker of this instance may ask that");
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
	{"start", commands_start},
	{"stop", commands_stop},
	{"restart", commands_restart},
	{"signal", commands_signal},
	{"scale", commands_scale},
	{"handoff", commands_handoff},
	{"lock.release", commands_lock_release},
	{"shutdown", commands_shutdown},
	{"reload", commands_reload},
	{"upgrade", commands_upgrade},
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

/* The instance as one JSON document (cli.md, `baton status --json`). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/core/worker_fsm.h"
#include "supervisor/shell/probes.h"
#include "supervisor/shell/state.h"

static json_t *text_or_null(const char *text)
{
	char ascii[512];
	json_t *o;

	if (text == NULL || text[0] == '\0')
		return json_null();
	o = json_string(text);
	if (o != NULL)
		return o;
	snprintf(ascii, sizeof ascii, "%s", text); /* a worker's STATUS= may be anything */
	for (char *at = ascii; *at != '\0'; at++)
		*at = (signed char)*at < 0 ? '?' : *at;
	return json_string(ascii);
}

static json_t *time_or_null(int64_t wall_us)
{
	char buf[32];

	return wall_us > 0 ? json_string(report_time(wall_us, buf)) : json_null();
}

static json_t *boot_time(int64_t ns)
{
	return ns > 0 ? time_or_null(report_wall_of(ns)) : json_null();
}

/* --- instance and lock --------------------------------------------------------------------- */
static json_t *instance_of(struct supervisor *s)
{
	char buf[32];

	return json_pack("{s:s s:s s:i s:s s:s s:I s:s s:s s:s s:s}", "id", s->instance, "name",
		s->config->name, "pid", (int)getpid(), "version", BATON_VERSION, "started_at",
		report_time(s->started_wall_us, buf), "generation", (json_int_t)s->generation,
		"state",
		s->core.lifecycle.state >= LIFECYCLE_STOPPING  ? "stopping"
		: s->core.lifecycle.state == LIFECYCLE_RUNNING ? "running"
							       : "starting",
		"control", s->control_path, "config",
		s->config_text != NULL ? "(command line)" : s->config_path, "hostname",
		s->hostname);
}

const char *snapshot_role(const struct supervisor *s)
{
	const struct election *e = &s->core.election;

	if (e->state == ELECTION_HOLDING || e->state == ELECTION_RELEASING)
		return "holder";
	if (e->state == ELECTION_LOST)
		return "lost";
	return e->unavailable || e->wrong ? "unavailable" : "standby";
}

static json_t *own_holder(struct supervisor *s)
{
	const char *worker = "";

	for (int i = 0; i < s->core.program_slots && worker[0] == '\0'; i++) {
		const struct program *p = &s->core.programs[i];

		if (p->used && p->executor.exists && p->executor.worker >= 0)
			worker = report_worker_name(s, p->executor.worker);
	}
	return json_pack("{s:s s:i s:s s:o}", "instance", s->instance, "pid", (int)getpid(),
		"hostname", s->hostname, "worker", text_or_null(worker));
}

static json_t *other_holder(const struct store_row *r)
{
	if (!r->held)
		return json_null();
	return json_pack("{s:s s:I s:s s:o}", "instance", r->holder, "pid", (json_int_t)r->pid,
		"hostname", r->hostname, "worker", text_or_null(r->worker));
}

static json_t *lock_of(struct supervisor *s)
{
	const struct election *e = &s->core.election;
	const struct store_row *r = &s->lock.view.row;
	bool ours = e->state == ELECTION_HOLDING || e->state == ELECTION_RELEASING;
	bool held = s->lock.view_valid && r->held;
	json_t *o = json_object();

	if (!s->config->scheduler.enabled) {
		json_decref(o);
		return json_null();
	}
	json_object_set_new(o, "database", json_string(s->booted->scheduler.database));
	json_object_set_new(o, "role", json_string(snapshot_role(s)));
	json_object_set_new(o, "epoch", json_integer(ours ? e->epoch : held ? r->epoch : 0));
	json_object_set_new(o, "term",
		json_integer(ours                 ? e->term
			     : s->lock.view_valid ? r->term
						  : 0));
	json_object_set_new(o, "holder",
		ours   ? own_holder(s)
		: held ? other_holder(r)
		       : json_null());
	json_object_set_new(o, "acquired_at",
		ours   ? time_or_null(s->lock.acquired_wall_us)
		: held ? time_or_null(r->created_at_us)
		       : json_null());
	json_object_set_new(o, "heartbeat_at",
		ours   ? boot_time(e->t0_ns)
		: held ? time_or_null(r->heartbeat_at_us)
		       : json_null());
	json_object_set_new(o, "expires_at",
		ours   ? boot_time(e->hard_ns)
		: held ? time_or_null(r->heartbeat_at_us + r->ttl_ms * 1000)
		       : json_null());
	json_object_set_new(o, "ttl_ms",
		json_integer(ours   ? e->ttl_ns / CORE_MS
			     : held ? r->ttl_ms
				    : s->config->scheduler.ttl_ns / CORE_MS));
	json_object_set_new(o, "error", text_or_null(s->lock.error));
	json_object_set_new(o, "unavailable_since",
		e->unavailable ? boot_time(e->unavailable_since_ns) : json_null());
	return o;
}

/* --- executors ----------------------------------------------------------------------------- */
static json_t *executor_of(struct supervisor *s, const struct program *p)
{
	const struct executor *x = &p->executor;
	bool has = x->worker >= 0;
	const char *reason = x->reason;

	if (x->state == EXECUTOR_EXECUTING && x->unanswered_told && !x->answered)
		reason = "never answered; does the application use the client?";
	return json_pack("{s:s s:s s:o s:o s:o s:o s:b s:I s:o}", "program", p->settings->name,
		"state", executor_state_name(x->state), "worker",
		has ? json_string(report_worker_name(s, x->worker)) : json_null(), "pid",
		has ? json_integer(main_pid(&s->processes[x->worker])) : json_null(), "term",
		has ? json_integer((json_int_t)x->term) : json_null(), "since",
		boot_time(x->since_ns), "answered", x->answered, "busy", (json_int_t)x->busy,
		"reason", text_or_null(reason));
}

static void add_executors(struct supervisor *s, json_t *document)
{
	json_t *all = json_array(), *first = NULL;

	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];
		json_t *row;

		if (!p->used || !p->executor.exists)
			continue;
		row = executor_of(s, p);
		json_array_append_new(all, row);
		if (first == NULL && p->executor.worker >= 0)
			first = row;
	}
	json_object_set_new(document, "executors", all);
	json_object_set_new(
		document, "executor", first != NULL ? json_deep_copy(first) : json_null());
}

/* --- programs ------------------------------------------------------------------------------ */
static json_t *last_exit(const struct supervisor *s, const struct worker *w)
{
	const struct process *p = &s->processes[core_worker_slot(&s->core, w)];

	if (w->spawn_failed && p->failure != NULL)
		return json_pack("{s:s}", "reason", p->failure);
	if (w->exit_signal != 0)
		return json_pack("{s:i s:s}", "signal", w->exit_signal, "reason",
			w->exit_oom ? "out of memory" : "killed");
	if (w->exit_code >= 0)
		return json_pack("{s:i s:s}", "code", w->exit_code, "reason", "exited");
	return json_null();
}

static json_t *worker_of(struct supervisor *s, int slot)
{
	const struct worker *w = &s->core.workers[slot];
	const struct process *p = &s->processes[slot];
	bool live = w->tree && p->id == w->id && p->pid > 0;
	const struct executor *x = &s->core.programs[w->program].executor;
	char status[600], why[600];
	const char *said = live ? p->status : NULL;

	if (said == NULL)
		said = probes_why(s, slot, status, sizeof status);
	return json_pack("{s:s s:I s:o s:s s:b s:b s:o s:I s:o s:o s:I s:s s:i s:o s:o}", "name",
		report_worker_name(s, slot), "id", (json_int_t)w->id, "pid",
		live ? json_integer(main_pid(p)) : json_null(), "state",
		worker_state_name(w->state), "ready", w->ready, "executor",
		x->exists && x->worker == slot && x->shown && x->state != EXECUTOR_NONE,
		"started_at", live ? boot_time(w->started_ns) : json_null(), "restarts",
		(json_int_t)w->restarts, "last_exit", last_exit(s, w), "status", text_or_null(said),
		"generation", (json_int_t)w->generation, "reason",
		report_why(s, slot, w->reason, why, sizeof why), "index", w->index, "memory",
		live && p->memory_bytes > 0 ? json_integer(p->memory_bytes) : json_null(),
		"recycled_for",
		w->stale == RECYCLE_AGE      ? json_string("age")
		: w->stale == RECYCLE_MEMORY ? json_string("memory")
					     : json_null());
}

static const char *program_state(const struct supervisor *s, int slot)
{
	const struct program *p = &s->core.programs[slot];
	int count[WORKER_STATE_COUNT] = {0}, all = 0;

	for (int i = core_next_worker(&s->core, slot, -1); i >= 0;
		i = core_next_worker(&s->core, slot, i)) {
		count[s->core.workers[i].state]++;
		all++;
	}
	if (count[WORKER_FATAL] > 0)
		return "fatal";
	if (count[WORKER_BACKOFF] > 0)
		return "backoff";
	if (count[WORKER_STARTING] > 0)
		return "starting";
	if (count[WORKER_STOPPING] > 0)
		return "stopping";
	if (p->started && p->held_back && count[WORKER_STOPPED] > 0)
		return "waiting";
	if (count[WORKER_RUNNING] > 0)
		return "running";
	if (count[WORKER_STANDBY] > 0)
		return "standby";
	return count[WORKER_EXITED] > 0 && count[WORKER_EXITED] == all ? "exited" : "stopped";
}

static json_t *rollout_of(const struct supervisor *s, int slot)
{
	const struct rollout *r = &s->core.programs[slot].rollout;
	static const char *const states[ROLLOUT_STATE_COUNT] = {[ROLLOUT_CANARY] = "canary",
		[ROLLOUT_ROLLING] = "rolling",
		[ROLLOUT_BACK] = "rolling_back",
		[ROLLOUT_HALF] = "half_way",
		[ROLLOUT_RECYCLING] = "recycling"};
	int done, total;

	if (r->state == ROLLOUT_IDLE)
		return json_null();
	rollout_progress(&s->core, slot, &done, &total);
	return json_pack("{s:i s:i s:s}", "done", done, "total", total, "state", states[r->state]);
}

/* How the last one ended: DONE or FAILED, not a recycling. */
static json_t *last_rollout_of(const struct supervisor *s, int slot)
{
	const struct rollout *r = &s->core.programs[slot].rollout;
	char text[1024] = "";

	if (r->outcome == ROLLOUT_NO_OUTCOME)
		return json_null();
	if (r->outcome == ROLLOUT_FAILED)
		report_rollout_end(s, slot, text, sizeof text);
	return json_pack("{s:s s:o s:o}", "state", r->outcome == ROLLOUT_DONE ? "done" : "failed",
		"at", boot_time(r->ended_ns), "reason", text_or_null(text));
}

struct by_index {
	int index, slot;
	bool outgoing;
};

static int compare_workers(const void *a, const void *b)
{
	const struct by_index *x = a, *y = b;

	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	if (x->outgoing != y->outgoing)
		return x->outgoing ? 1 : -1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

int *snapshot_workers(const struct supervisor *s, int program, int *ret_count)
{
	struct by_index *all;
	int count = 0, n = 0, *slots;

	for (int i = core_next_worker(&s->core, program, -1); i >= 0;
		i = core_next_worker(&s->core, program, i))
		count++;
	all = calloc((size_t)count + 1, sizeof *all);
	slots = calloc((size_t)count + 1, sizeof *slots);
	for (int i = core_next_worker(&s->core, program, -1); all != NULL && i >= 0;
		i = core_next_worker(&s->core, program, i))
		all[n++] = (struct by_index){
			s->core.workers[i].index, i, s->core.workers[i].outgoing};
	if (all != NULL)
		qsort(all, (size_t)n, sizeof *all, compare_workers);
	for (int i = 0; i < n && slots != NULL; i++)
		slots[i] = all[i].slot;
	free(all);
	*ret_count = slots != NULL ? n : 0;
	return slots;
}

static json_t *program_of(struct supervisor *s, int slot)
{
	const struct program *p = &s->core.programs[slot];
	json_t *workers = json_array();
	int ready = 0, count, *slots = snapshot_workers(s, slot, &count);

	for (int i = 0; i < count; i++) {
		const struct worker *w = &s->core.workers[slots[i]];

		ready += w->ready || worker_is_elsewhere(&s->core, w);
		json_array_append_new(workers, worker_of(s, slots[i]));
	}
	free(slots);
	if (rollout_is_active(p) && ready > p->wanted)
		ready = p->wanted; /* some are there beside their replacement */
	return json_pack("{s:s s:s s:s s:i s:i s:o s:o s:o}", "name", p->settings->name, "group",
		p->settings->group, "state", program_state(s, slot), "wanted", p->wanted, "ready",
		ready, "rollout", rollout_of(s, slot), "last_rollout", last_rollout_of(s, slot),
		"workers", workers);
}

json_t *snapshot_status(struct supervisor *s)
{
	json_t *o = json_object(), *programs = json_array(), *sockets = json_array();

	json_object_set_new(o, "instance", instance_of(s));
	json_object_set_new(o, "lock", lock_of(s));
	add_executors(s, o);
	for (int i = 0; i < s->core.program_slots; i++) {
		if (s->core.programs[i].used)
			json_array_append_new(programs, program_of(s, i));
	}
	json_object_set_new(o, "programs", programs);
	for (size_t i = 0; i < s->listener_count; i++)
		json_array_append_new(
			sockets, json_pack("{s:s s:s s:o s:b}", "name", s->listeners[i].name,
					 "listen", s->listeners[i].listener.text, "url",
					 text_or_null(s->listeners[i].listener.url), "lost",
					 s->listeners[i].lost));
	json_object_set_new(o, "sockets", sockets);
	return o;
}

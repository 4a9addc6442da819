/* What the core reports, in words: the names of events are stable, the sentences are for people. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/core/worker_fsm.h"
#include "supervisor/shell/probes.h"
#include "supervisor/shell/state.h"

static const char *program_name(const struct supervisor *s, int slot)
{
	return slot >= 0 && slot < s->core.program_slots && s->core.programs[slot].settings != NULL
		       ? s->core.programs[slot].settings->name
		       : "";
}

/* --- workers ------------------------------------------------------------------------------- */
void report_exit(struct supervisor *s, int slot, char *buf, size_t bytes)
{
	const struct worker *w = &s->core.workers[slot];
	const struct process *p = &s->processes[slot];
	const char *name = w->exit_signal != 0 ? sigabbrev_np(w->exit_signal) : NULL;

	/* Its successor may run by now: what is told is how the last one ended. */
	const struct worker_end now = {.late = w->late, .spawn_failed = w->spawn_failed};
	const struct worker_end *end = w->state == WORKER_STOPPING ? &now : &w->ended;
	char why[500];

	if (w->state == WORKER_STOPPING && w->unhealthy && probes_why(s, slot, why, sizeof why))
		snprintf(buf, bytes, "failed its %s", why);
	else if (w->state == WORKER_STOPPING && strncmp(w->reason, "watchdog", 8) == 0)
		snprintf(buf, bytes, "sent no WATCHDOG=1 in time");
	else if (end->late)
		snprintf(buf, bytes, "was not ready in time%s%s", p->probe_text != NULL ? ": " : "",
			p->probe_text != NULL ? p->probe_text : "");
	else if (end->spawn_failed && p->failure != NULL)
		snprintf(buf, bytes, "could not start: %s", p->failure);
	else if (w->exit_oom)
		snprintf(buf, bytes, "was killed by the kernel: out of memory");
	else if (w->exit_signal != 0)
		snprintf(buf, bytes, "was killed by SIG%s", name != NULL ? name : "?");
	else if (w->exit_code == 0 && p->left_pid != 0)
		snprintf(buf, bytes, "exited with status 0 and left pid %d in the background",
			(int)p->left_pid);
	else if (w->exit_code >= 0)
		snprintf(buf, bytes, "exited with status %d", w->exit_code);
	else
		snprintf(buf, bytes, "ended");
}

static void worker_ended(struct supervisor *s, const struct action *a)
{
	const struct worker *w = &s->core.workers[a->worker];
	const struct process *p = &s->processes[a->worker];
	const char *name = report_worker_name(s, a->worker);
	char how[600], lived[32];
	struct logs_field f[] = {{.key = "worker", .value = name},
		{.key = "pid", .number = main_pid(p)}, {.key = "status", .number = w->exit_code},
		{.key = "signal", .number = w->exit_signal}};

	report_exit(s, a->worker, how, sizeof how);
	report_span(lease_now_ns() - w->started_ns, lived, sizeof lived);
	if (w->spawn_failed) /* how long it lived says nothing: it was not the program yet */
		logs_event(s->logs, LOGS_WARNING, "worker.died", f, 4, "%s %s", name, how);
	else
		logs_event(s->logs,
			a->from == WORKER_RUNNING || w->exit_code != 0 ? LOGS_WARNING : LOGS_INFO,
			"worker.died", f, 4, "%s (pid %d) %s after %s", name, (int)main_pid(p), how,
			lived);
}

static void worker_stops(struct supervisor *s, const struct action *a)
{
	const char *name = report_worker_name(s, a->worker);
	char buf[600];
	const char *reason = report_why(s, a->worker, a->reason, buf, sizeof buf);
	struct logs_field f[] = {{.key = "worker", .value = name},
		{.key = "pid", .number = main_pid(&s->processes[a->worker])},
		{.key = "reason", .value = reason}};

	if (a->from == WORKER_STOPPING)
		logs_event(s->logs, LOGS_ERROR, "worker.unkillable", f, 3,
			"%s (pid %d) %s: it is stuck in the kernel", name,
			(int)main_pid(&s->processes[a->worker]), a->reason);
	else
		logs_event(s->logs, LOGS_INFO, "worker.stopping", f, 3, "%s is stopping: %s", name,
			reason);
}

/* What ended the patience with a worker that has got its stop signal. */
static const char *why_killed(const struct supervisor *s, const struct worker *w, int64_t waited_ns)
{
	const struct lifecycle *l = &s->core.lifecycle;

	if (l->state == LIFECYCLE_STOPPING && l->mode == SHUTDOWN_KILL) {
		if (s->interrupts > 1)
			return "asked to stop a second time";
		return lease_now_ns() - l->since_ns >= s->config->shutdown_timeout_ns
			       ? "shutdown_timeout"
			       : "the quick stop as a whole took too long";
	}
	if (waited_ns >= w->settings->stopwaitsecs_ns)
		return "stopwaitsecs";
	return l->state == LIFECYCLE_STOPPING && l->mode == SHUTDOWN_QUICK ? "quick stop"
									   : w->reason;
}

/* The first SIGKILL of a stop that took too long; sent again, it is `unkillable`. */
void report_kill(struct supervisor *s, const struct process *p)
{
	const struct worker *w = &s->core.workers[p->slot];
	const char *term = sigabbrev_np(w->settings->stopsignal);
	struct logs_field f[] = {
		{.key = "worker", .value = p->name}, {.key = "pid", .number = main_pid(p)}};
	int64_t waited_ns = lease_now_ns() - w->since_ns;
	char waited[32];

	if (w->state != WORKER_STOPPING || !w->term_sent ||
		lease_now_ns() - w->kill_ns >= CORE_SECOND)
		return;
	report_span(waited_ns, waited, sizeof waited);
	logs_event(s->logs, LOGS_WARNING, "worker.killing", f, 2,
		"%s (pid %d) %s within %s of SIG%s: killing %s (%s)", p->name, (int)main_pid(p),
		p->leader_alive ? "did not end" : "left processes that did not end", waited,
		term != NULL ? term : "?", p->leader_alive ? "it" : "them",
		why_killed(s, w, waited_ns));
}

/* People who run a task that ends wonder what is wrong with status 0. */
static const char *too_soon(const struct supervisor *s, int slot)
{
	const struct worker *w = &s->core.workers[slot];
	bool task = w->exit_code == 0 && w->exit_signal == 0 && !w->spawn_failed;

	if (task && s->processes[slot].left_pid != 0)
		return " (keep it in the foreground, for example by --no-daemon)";

	return task ? " before startsecs (a task that is to end needs startsecs = 0)" : "";
}

static void worker_waits(struct supervisor *s, const struct action *a)
{
	const struct worker *w = &s->core.workers[a->worker];
	const char *name = report_worker_name(s, a->worker);
	char in[32], how[600];
	struct logs_field f[] = {
		{.key = "worker", .value = name}, {.key = "reason", .value = a->reason}};

	int tries = rollout_tries(&s->core.programs[w->program], w);

	if (tries == 0 || (w->settings->startretries >= 0 && w->settings->startretries < tries))
		tries = w->settings->startretries;
	report_exit(s, a->worker, how, sizeof how);
	report_span(w->deadline_ns - lease_now_ns(), in, sizeof in);
	if (w->state != WORKER_BACKOFF)
		return; /* its rollout has gone on at once, without it or with another version */
	if (w->waits_promotion)
		logs_event(s->logs, LOGS_DEBUG, "worker.backoff", f, 2, "%s %s", name, a->reason);
	else if (w->failures > 0 && tries > 0)
		logs_event(s->logs, LOGS_WARNING, "worker.backoff", f, 2,
			"%s %s%s: trying again in %s (%d of %d)", name, how, too_soon(s, a->worker),
			in, w->failures, tries);
	else if (strcmp(a->reason, "exited too quickly") == 0)
		logs_event(s->logs, LOGS_WARNING, "worker.backoff", f, 2,
			"%s %s: starting it again in %s", name, how, in);
	else
		logs_event(s->logs, LOGS_WARNING, "worker.backoff", f, 2,
			"%s was replaced again and again (%s): starting it again in %s", name,
			a->reason, in);
}

static void worker_fatal(struct supervisor *s, const struct action *a)
{
	const char *name = report_worker_name(s, a->worker);
	int starts = s->core.workers[a->worker].ended.failures;
	char how[600];
	struct logs_field f[] = {
		{.key = "worker", .value = name}, {.key = "reason", .value = a->reason}};

	report_exit(s, a->worker, how, sizeof how);
	logs_event(s->logs, LOGS_ERROR, "worker.fatal", f, 2,
		"%s %s%s; given up after %d start%s: mend it, then `baton start %s`", name, how,
		too_soon(s, a->worker), starts, starts == 1 ? "" : "s", name);
}

static void report_worker(struct supervisor *s, const struct action *a)
{
	const struct process *p = &s->processes[a->worker];
	const char *name = report_worker_name(s, a->worker);
	struct logs_field f[] = {
		{.key = "worker", .value = name}, {.key = "pid", .number = main_pid(p)}};

	switch ((enum worker_state)a->to) {
	case WORKER_STARTING:
		logs_event(s->logs, LOGS_DEBUG, "worker.starting", f, 1, "%s starts", name);
		break;
	case WORKER_RUNNING:
		logs_event(s->logs, LOGS_INFO, "worker.running", f, 2, "%s is running (pid %d)",
			name, (int)main_pid(p));
		break;
	case WORKER_STOPPING:
		/* Stopped before it was forked, it has no death: the slot holds its predecessor. */
		if (!p->leader_alive && a->from != WORKER_STOPPING &&
			p->id == s->core.workers[a->worker].id)
			worker_ended(s, a);
		else
			worker_stops(s, a);
		break;
	case WORKER_BACKOFF:
		worker_waits(s, a);
		break;
	case WORKER_FATAL:
		worker_fatal(s, a);
		break;
	case WORKER_EXITED:
		logs_event(s->logs, LOGS_INFO, "worker.exited", f, 1, "%s has ended and stays so",
			name);
		break;
	case WORKER_STOPPED:
		logs_event(s->logs, LOGS_INFO, "worker.stopped", f, 1, "%s is stopped", name);
		break;
	case WORKER_STANDBY:
		logs_event(s->logs, LOGS_INFO, "worker.standby", f, 1, "%s stands by: %s", name,
			a->reason);
		break;
	default:
		break;
	}
}

/* --- executor ------------------------------------------------------------------------------ */
static void report_executor(struct supervisor *s, const struct action *a)
{
	const struct executor *x = &s->core.programs[a->program].executor;
	const char *program = program_name(s, a->program);
	const char *worker = report_worker_name(s, a->worker);
	struct logs_field f[] = {{.key = "program", .value = program},
		{.key = "worker", .value = worker}, {.key = "reason", .value = a->reason},
		{.key = "term", .number = (int64_t)x->term},
		{.key = "pid", .number = a->worker >= 0 ? main_pid(&s->processes[a->worker]) : 0}};

	switch ((enum executor_state)a->to) {
	case EXECUTOR_EXECUTING:
		logs_event(s->logs, LOGS_INFO, "executor.promoted", f, 5,
			"%s is the executor of %s (pid %d, term %llu)", worker, program,
			(int)f[4].number, (unsigned long long)x->term);
		break;
	case EXECUTOR_DRAINING:
		logs_event(s->logs, LOGS_INFO, "executor.draining", f, 4,
			"%s gives up the baton of %s: %s", worker, program, a->reason);
		break;
	case EXECUTOR_NONE:
		logs_event(s->logs, a->from == EXECUTOR_PROMOTING ? LOGS_WARNING : LOGS_DEBUG,
			"executor.none", f, 3, "%s has no executor: %s", program, a->reason);
		break;
	default:
		logs_event(s->logs, LOGS_DEBUG, "executor.promoting", f, 3, "%s is to be promoted",
			worker);
		break;
	}
}

static void report_unanswered(struct supervisor *s, const struct action *a)
{
	const char *worker = report_worker_name(s, a->worker);
	struct logs_field f[] = {{.key = "program", .value = program_name(s, a->program)},
		{.key = "worker", .value = worker}};

	logs_event(s->logs, LOGS_WARNING, "executor.unanswered", f, 2,
		"%s never answered its promotion: does the application use the client? (it is "
		"the executor all the same; `promote = respawn` needs no client)",
		worker);
}

/* --- the rest ------------------------------------------------------------------------------ */
static void report_impossible(struct supervisor *s, const struct action *a)
{
	struct logs_field f[] = {{.key = "machine", .value = a->reason},
		{.key = "state", .number = a->from}, {.key = "event", .number = a->to}};

	logs_event(s->logs, LOGS_ERROR, "core.impossible", f, 3,
		"an event that cannot happen here was ignored (%s, state %d, event %d): please "
		"report this",
		a->reason, a->from, a->to);
}

static void report_lifecycle(struct supervisor *s, const struct action *a)
{
	static const char *const names[] = {"supervisor.starting", "supervisor.running",
		"supervisor.stopping", "supervisor.down"};
	struct logs_field f[] = {{.key = "pid", .number = getpid()},
		{.key = "instance", .value = s->instance}, {.key = "reason", .value = a->reason}};

	if (s->logs == NULL)
		return;
	if (a->to == LIFECYCLE_RUNNING)
		logs_event(s->logs, LOGS_INFO, names[a->to], f, 3, "%s is running (pid %d)",
			s->config->name, (int)getpid());
	else
		logs_event(s->logs, a->to == LIFECYCLE_BOOT ? LOGS_DEBUG : LOGS_INFO, names[a->to],
			f, 3, "%s is %s: %s", s->config->name,
			lifecycle_state_name((enum lifecycle_state)a->to), a->reason);
}

/* "db, migrate:done": all of it, also what is there already. */
void report_depends(const struct supervisor *s, int program, char *buf, size_t bytes)
{
	const struct program *p = &s->core.programs[program];
	static const char *const what[] = {
		[DEPENDS_READY] = "", [DEPENDS_DONE] = ":done", [DEPENDS_STARTED] = ":started"};
	size_t used = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < p->settings->depend_count && used < bytes; i++) {
		const struct config_depend *d = &p->settings->depends[i];

		used += (size_t)snprintf(buf + used, bytes - used, "%s%s%s", i > 0 ? ", " : "",
			p->config->programs[d->program].name, what[d->what]);
	}
}

void report_action(struct supervisor *s, const struct action *a)
{
	switch (a->about) {
	case REPORT_WORKER:
		report_worker(s, a);
		if (a->to == WORKER_RUNNING) /* it has listened, with a backlog of its own */
			listeners_reassert(s);
		break;
	case REPORT_EXECUTOR:
		report_executor(s, a);
		break;
	case REPORT_ELECTION:
		report_election(s, a);
		break;
	case REPORT_LIFECYCLE:
		report_lifecycle(s, a);
		break;
	case REPORT_PROGRAM:
		report_program(s, a);
		break;
	case REPORT_RECYCLE:
		report_recycle(s, a);
		break;
	case REPORT_UNANSWERED:
		report_unanswered(s, a);
		break;
	case REPORT_LOCK:
		report_remark(s, a);
		break;
	case REPORT_IMPOSSIBLE:
		report_impossible(s, a);
		break;
	}
}

/* What is told to systemd (or whoever gave us NOTIFY_SOCKET): sd_notify(3) of baton itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/core/rollout_fsm.h"
#include "supervisor/shell/state.h"

#define RETRY_NS CORE_SECOND
#define RETRIES  10

/* WATCHDOG=1 is due at half the time; 0 = nobody asks for it. */
static int64_t watchdog_period_ns(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	long long us = usec != NULL ? strtoll(usec, NULL, 10) : 0;

	if (us <= 0 || us > INT64_MAX / 1000 || (pid != NULL && strtol(pid, NULL, 10) != getpid()))
		return 0;
	return us * 1000 / 2;
}

void parent_init(struct supervisor *s)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct parent *p = &s->parent;

	p->told = path != NULL && path[0] != '\0';
	p->watchdog_ns = p->told ? watchdog_period_ns() : 0;
	p->watchdog_at_ns = p->watchdog_ns != 0 ? lease_now_ns() : 0;
	p->retries = RETRIES;
}

/* A worker that has come as far as it can for now: ready, at rest, or known to fail. */
static bool worker_settled(const struct worker *w)
{
	return !w->used ||
	       (w->state != WORKER_STOPPING && (w->state != WORKER_STARTING || w->failures > 0));
}

static bool settled(const struct supervisor *s, bool rollouts)
{
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];

		if (p->used && (p->dirty || (rollouts && rollout_moves(p))))
			return false;
	}
	for (int i = 0; i < s->core.worker_slots; i++) {
		if (!worker_settled(&s->core.workers[i]))
			return false;
	}
	return true;
}

/* "running: 4 of 4 workers ready; holder; executor web:0 (pid 123)" */
static void describe(struct supervisor *s, char *buf, size_t bytes)
{
	int ready = 0, wanted = 0;
	size_t n;

	for (int i = 0; i < s->core.program_slots; i++)
		wanted += s->core.programs[i].used ? s->core.programs[i].wanted : 0;
	for (int i = 0; i < s->core.worker_slots; i++)
		ready += s->core.workers[i].used && s->core.workers[i].state == WORKER_RUNNING &&
			 s->core.workers[i].ready;
	n = (size_t)snprintf(buf, bytes, "%s: %d of %d workers ready",
		s->parent.reloading ? "reloading" : lifecycle_state_name(s->core.lifecycle.state),
		ready, wanted);
	if (s->config->scheduler.enabled)
		n += (size_t)snprintf(buf + n, bytes - n, "; %s", snapshot_role(s));
	for (int i = 0; i < s->core.program_slots && n < bytes - 1; i++) {
		const struct executor *x = &s->core.programs[i].executor;

		if (s->core.programs[i].used && x->exists && x->state == EXECUTOR_EXECUTING)
			n += (size_t)snprintf(buf + n, bytes - n, "; executor %s (pid %d)",
				report_worker_name(s, x->worker),
				(int)main_pid(&s->processes[x->worker]));
	}
}

/* What has to be said besides the status; "" = nothing. */
static const char *due(struct supervisor *s)
{
	struct parent *p = &s->parent;

	if (s->core.lifecycle.state >= LIFECYCLE_STOPPING)
		return p->stopping ? "" : "STOPPING=1\n";
	if (s->core.lifecycle.state != LIFECYCLE_RUNNING || (p->ready && !p->reloading))
		return "";
	return settled(s, p->reloading) ? "READY=1\n" : "";
}

/* False: it is to be tried again. */
static bool tell(struct supervisor *s, const char *text)
{
	struct parent *p = &s->parent;

	if (notify_parent(text)) {
		p->retries = RETRIES;
		p->retry_at_ns = 0;
		return true;
	}
	p->retry_at_ns = p->retries > 0 ? lease_now_ns() + RETRY_NS : 0;
	p->retries -= p->retries > 0;
	return p->retries == 0;
}

static void tell_state(struct supervisor *s)
{
	struct parent *p = &s->parent;
	const char *what = due(s);
	bool was_reloading = p->reloading;
	char status[sizeof p->status], text[sizeof status + 64];

	if (what[0] == 'R')
		p->reloading = false;
	describe(s, status, sizeof status);
	if (what[0] == '\0' && strcmp(status, p->status) == 0)
		return;
	snprintf(text, sizeof text, "%sSTATUS=%s", what, status);
	if (!tell(s, text)) {
		p->reloading = was_reloading;
		return;
	}
	p->ready = p->ready || what[0] == 'R';
	p->stopping = p->stopping || what[0] == 'S';
	snprintf(p->status, sizeof p->status, "%s", status);
}

void parent_check(struct supervisor *s)
{
	struct parent *p = &s->parent;
	int64_t now_ns;

	if (!p->told)
		return;
	now_ns = p->watchdog_at_ns != 0 || p->retry_at_ns != 0 ? lease_now_ns() : 0;
	if (p->watchdog_at_ns != 0 && now_ns >= p->watchdog_at_ns) {
		(void)notify_parent("WATCHDOG=1");
		p->watchdog_at_ns = now_ns + p->watchdog_ns;
	}
	if (s->changed || (p->retry_at_ns != 0 && now_ns >= p->retry_at_ns))
		tell_state(s);
}

int64_t parent_deadline(const struct supervisor *s)
{
	int64_t a = s->parent.watchdog_at_ns, b = s->parent.retry_at_ns;

	return a == 0 || (b != 0 && b < a) ? b : a;
}

void parent_reload_begins(struct supervisor *s)
{
	struct timespec t;
	char text[96];

	if (!s->parent.ready || s->core.lifecycle.state != LIFECYCLE_RUNNING)
		return; /* it waits for the first READY=1 anyway */
	clock_gettime(CLOCK_MONOTONIC, &t);
	snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld",
		(long long)t.tv_sec * 1000000 + t.tv_nsec / 1000);
	s->parent.reloading = notify_parent(text);
	s->changed = true; /* the end of a reload that changes nothing is to be said, too */
}

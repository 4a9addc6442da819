/* The life of an attempt. */
#include "supervisor/shell/probes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/probe_internal.h"
#include "supervisor/shell/spawn_internal.h"

#define DRAIN_NS       CORE_SECOND
#define STOOD_STILL_NS CORE_SECOND

/* --- attempts ------------------------------------------------------------------------------ */
struct probe *probe_new(struct supervisor *s, struct process *p)
{
	struct probe *a = s->probes_spare;

	if (a != NULL)
		s->probes_spare = a->next;
	else if ((a = malloc(sizeof *a)) == NULL)
		return NULL;
	memset(a, 0, sizeof *a);
	a->supervisor = s;
	a->process = p;
	a->fd = a->report_fd = -1;
	a->next = s->probes;
	if (a->next != NULL)
		a->next->previous = a;
	s->probes = a;
	p->probe = a;
	return a;
}

static void unbind(struct probe *a)
{
	if (a->process != NULL)
		a->process->probe = NULL;
	a->process = NULL;
}

void probe_end(struct probe *a)
{
	struct supervisor *s = a->supervisor;

	unbind(a);
	loop_unwatch(a->watch);
	if (a->fd >= 0)
		close(a->fd);
	if (a->report_fd >= 0)
		close(a->report_fd);
	if (a->next != NULL)
		a->next->previous = a->previous;
	if (a->previous != NULL)
		a->previous->next = a->next;
	else
		s->probes = a->next;
	a->next = s->probes_spare;
	s->probes_spare = a;
}

void probe_set_text(struct process *p, const char *text)
{
	free(p->probe_text);
	p->probe_text = text != NULL ? strdup(text) : NULL;
	p->supervisor->changed = true;
}

/* What is still to be done with it: a command reaped, an answer read to its end. */
static void let_go(struct probe *a)
{
	unbind(a);
	if (a->state == ATTEMPT_DRAINS)
		a->deadline_ns = lease_now_ns() + DRAIN_NS;
	else if (a->pid > 0)
		a->state = ATTEMPT_DYING;
	else
		probe_end(a);
}

void probe_succeeds(struct probe *a)
{
	struct process *p = a->process;

	if (p != NULL) {
		probe_set_text(p, NULL);
		supervisor_post_worker(a->supervisor, EVENT_PROBE_OK, p);
	}
	let_go(a);
}

static void fail(struct process *p, bool own_fault, const char *text)
{
	struct event e = {.kind = EVENT_PROBE_FAILED,
		.worker = p->slot,
		.id = p->id,
		.program = -1,
		.ok = own_fault};
	struct logs_field f[] = {
		{.key = "worker", .value = p->name}, {.key = "reason", .value = text}};

	/* Said once, not at each of many attempts. */
	if (p->probe_text == NULL || strcmp(p->probe_text, text) != 0)
		logs_event(p->supervisor->logs, own_fault ? LOGS_WARNING : LOGS_DEBUG,
			"worker.probe_failed", f, 2, "%s: %s", p->name, text);
	probe_set_text(p, text);
	supervisor_post(p->supervisor, &e);
}

void probe_fails(struct probe *a, bool own_fault, const char *format, ...)
{
	char text[PROBE_TEXT_BYTES];
	const struct probe_target *t = probe_target(a);
	va_list args;
	int n = 0;

	if (a->process != NULL) {
		if (t != NULL && a->state != ATTEMPT_GRACE)
			n = snprintf(text, sizeof text, "%.250s: ", t->name);
		va_start(args, format);
		vsnprintf(text + n, sizeof text - (size_t)n, format, args);
		va_end(args);
		fail(a->process, own_fault, text);
	}
	let_go(a);
}

/* --- targets ------------------------------------------------------------------------------- */
const struct probe_target *probe_target(const struct probe *a)
{
	return a->process != NULL ? a->process->probe_target : NULL;
}

static void target_free(struct process *p)
{
	if (p->probe_target == NULL)
		return;
	free(p->probe_target->request);
	free(p->probe_target->name);
	free(p->probe_target);
	p->probe_target = NULL;
}

void probe_set_address(struct probe_target *t, int family, const char *host, int port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&t->address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&t->address;

	t->address.ss_family = (sa_family_t)family;
	if (family == AF_INET6) {
		v6->sin6_port = htons((uint16_t)port);
		(void)inet_pton(AF_INET6, host, &v6->sin6_addr);
		t->address_bytes = sizeof *v6;
	} else {
		v4->sin_port = htons((uint16_t)port);
		(void)inet_pton(AF_INET, host, &v4->sin_addr);
		t->address_bytes = sizeof *v4;
	}
}

/* The host is `localhost` on the probe listener: servers that look at it (Django's ALLOWED_HOSTS)
 * are commonly told of that one. */
static int describe(struct probe_target *t, const struct config_probe *c)
{
	static const char form[] = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: baton/" BATON_VERSION
				   "\r\nAccept: */*\r\nConnection: close\r\n\r\n";
	char host[80];
	int n = 0;

	snprintf(host, sizeof host, c->family == AF_INET6 ? "[%s]:%d" : "%s:%d",
		c->host != NULL ? c->host : "", c->port);
	switch (c->kind) {
	case PROBE_HTTP:
		if (asprintf(&t->request, form, c->path, c->own ? "localhost" : host) < 0)
			return -1;
		n = c->own ? asprintf(&t->name, "GET %.200s on probe listener", c->path)
			   : asprintf(&t->name, "GET http://%s%.200s", host, c->path);
		break;
	case PROBE_TCP:
		n = c->own ? asprintf(&t->name, "connection to probe listener")
			   : asprintf(&t->name, "connection to %s", host);
		break;
	default:
		n = asprintf(&t->name, "%.220s", c->text);
		break;
	}
	return n < 0 ? -1 : 0;
}

static int target_make(struct process *p, enum probe_purpose purpose, struct err *e)
{
	struct supervisor *s = p->supervisor;
	const struct worker *w = &s->core.workers[p->slot];
	const struct config_program *set = w->settings;
	const struct config *config = spawn_config_of(s, set);
	struct config_worker worker;
	const struct config_probe *c;
	struct probe_target *t;

	if (spawn_config_worker(p, config, set, &worker, e) < 0)
		return e->code;
	c = purpose == PROBE_FOR_READY ? &worker.ready : &worker.health;
	t = calloc(1, sizeof *t);
	if (t == NULL || describe(t, c) < 0) {
		if (t != NULL)
			free(t->request);
		free(t);
		config_worker_release(&worker);
		return err_set(e, ERR_SYSTEM, "out of memory");
	}
	t->settings = set;
	t->purpose = purpose;
	t->kind = c->kind;
	t->own = c->own;
	if (c->own)
		probe_set_address(t, p->probe_v6 ? AF_INET6 : AF_INET,
			p->probe_v6 ? "::1" : "127.0.0.1", p->probe_port);
	else if (c->kind != PROBE_EXEC)
		probe_set_address(t, c->family, c->host, c->port);
	p->probe_target = t;
	config_worker_release(&worker);
	return 0;
}

static int target_find(struct process *p, enum probe_purpose purpose, struct err *e)
{
	const struct probe_target *t = p->probe_target;

	if (t != NULL && t->purpose == purpose &&
		t->settings == p->supervisor->core.workers[p->slot].settings)
		return 0;
	target_free(p);
	return target_make(p, purpose, e);
}

/* --- the core's word ----------------------------------------------------------------------- */
void probes_start(struct supervisor *s, const struct action *action)
{
	struct process *p = supervisor_process(s, action->worker, action->id);
	struct probe *a;
	struct err e;

	if (p == NULL)
		return;
	probes_stop(s, action->worker);
	if (target_find(p, (enum probe_purpose)action->number, &e) < 0) {
		fail(p, true, e.text);
		return;
	}
	a = probe_new(s, p);
	if (a == NULL) {
		fail(p, true, "out of memory");
		return;
	}
	a->kind = p->probe_target->kind;
	a->own = p->probe_target->own;
	a->deadline_ns = action->deadline_ns;
	a->timeout_ns = action->deadline_ns - s->core.now_ns;
	if (a->own && p->probe_port == 0)
		probe_fails(a, true, "it was started without a probe listener");
	else if (a->kind == PROBE_EXEC)
		probe_exec(a, (enum probe_purpose)action->number);
	else
		probe_connect(a);
}

static void stop(struct probe *a)
{
	if (a->pid > 0)
		probe_exec_kill(a);
	let_go(a);
}

void probes_stop(struct supervisor *s, int slot)
{
	struct process *p = &s->processes[slot];

	if (p->probe != NULL)
		stop(p->probe);
}

void probes_forget(struct process *p)
{
	if (p->probe != NULL)
		stop(p->probe);
	probe_ready_fd_close(p);
	target_free(p);
	free(p->probe_text);
	p->probe_text = NULL;
}

void probes_end(struct supervisor *s)
{
	while (s->probes != NULL) {
		if (s->probes->pid > 0)
			probe_exec_kill(s->probes);
		probe_end(s->probes);
	}
	while (s->probes_spare != NULL) {
		struct probe *next = s->probes_spare->next;

		free(s->probes_spare);
		s->probes_spare = next;
	}
}

/* --- time ---------------------------------------------------------------------------------- */
static void span(int64_t ns, char *buf, size_t bytes)
{
	if (ns % CORE_SECOND == 0)
		snprintf(buf, bytes, "%lld s", (long long)(ns / CORE_SECOND));
	else
		report_span(ns, buf, bytes);
}

static void expired(struct probe *a, int64_t now_ns)
{
	char timeout[32];

	span(a->timeout_ns, timeout, sizeof timeout);
	if (a->state == ATTEMPT_DRAINS)
		probe_end(a);
	else if (a->state == ATTEMPT_GRACE)
		probe_fails(a, false, "closed its readiness descriptor without a line");
	else if (now_ns - a->deadline_ns > STOOD_STILL_NS)
		probe_fails(a, true, "not judged: baton itself stood still meanwhile");
	else if (a->state == ATTEMPT_RUNS)
		probe_exec_expired(a, timeout);
	else
		probe_net_expired(a, timeout);
}

void probes_check(struct supervisor *s)
{
	int64_t now_ns = s->probes != NULL ? lease_now_ns() : 0;
	struct probe *next;

	for (struct probe *a = s->probes; a != NULL; a = next) {
		next = a->next;
		if (a->state != ATTEMPT_DYING && a->deadline_ns <= now_ns)
			expired(a, now_ns);
	}
}

int64_t probes_deadline(const struct supervisor *s)
{
	int64_t first = 0;

	for (const struct probe *a = s->probes; a != NULL; a = a->next) {
		if (a->state != ATTEMPT_DYING && (first == 0 || a->deadline_ns < first))
			first = a->deadline_ns;
	}
	return first;
}

bool probes_is_known(const struct supervisor *s, pid_t pid)
{
	for (const struct probe *a = s->probes; a != NULL; a = a->next) {
		if (a->pid == pid && pid > 0)
			return true;
	}
	return false;
}

bool probes_reaped(struct supervisor *s, pid_t pid, int status)
{
	for (struct probe *a = s->probes; a != NULL; a = a->next) {
		if (a->pid != pid || pid <= 0)
			continue;
		probe_exec_reaped(a, status);
		return true;
	}
	return false;
}

/* The worker's side: its probe listener, and what it shows by itself (fd:N, log:TEXT). */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/probe_internal.h"
#include "supervisor/shell/spawn_internal.h"

#define LISTEN_BACKLOG 128
#define GRACE_NS       (200 * CORE_MS)

/* --- listener ------------------------------------------------------------------------------ */
static int listen_at(struct process *p, int family)
{
	struct probe_target t = {0};
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	probe_set_address(&t, family, family == AF_INET6 ? "::1" : "127.0.0.1", 0);
	if (bind(fd, (struct sockaddr *)&t.address, t.address_bytes) < 0 ||
		listen(fd, LISTEN_BACKLOG) < 0 ||
		getsockname(fd, (struct sockaddr *)&t.address, &t.address_bytes) < 0) {
		int why = errno;

		close(fd);
		errno = why;
		return -1;
	}
	p->probe_v6 = family == AF_INET6;
	p->probe_port = ntohs(p->probe_v6 ? ((struct sockaddr_in6 *)&t.address)->sin6_port
					  : ((struct sockaddr_in *)&t.address)->sin_port);
	return fd;
}

int probes_listen(struct process *p, int *ret_fd, struct err *e)
{
	int fd = listen_at(p, AF_INET), why = errno;

	if (fd < 0) /* a machine without IPv4 */
		fd = listen_at(p, AF_INET6);
	if (fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot make its probe listener on 127.0.0.1: %s",
			strerror(why));
	*ret_fd = fd;
	return 0;
}

const char *probes_address(const struct process *p, char buf[32])
{
	if (p->probe_port == 0)
		return "";
	snprintf(buf, 32, p->probe_v6 ? "[::1]:%d" : "127.0.0.1:%d", p->probe_port);
	return buf;
}

/* --- what the worker says ------------------------------------------------------------------ */
void probe_ready_fd_close(struct process *p)
{
	loop_unwatch(p->ready_watch);
	p->ready_watch = NULL;
	if (p->ready_fd >= 0)
		close(p->ready_fd);
	p->ready_fd = -1;
}

static void seen(struct process *p)
{
	spawn_read_report(p); /* that it runs comes first */
	probe_set_text(p, NULL);
	supervisor_post_worker(p->supervisor, EVENT_PROBE_OK, p);
}

static void line_seen(void *process)
{
	seen(process);
}

static void ready_readable(void *process, unsigned events)
{
	struct process *p = process;
	char bytes[512];
	ssize_t n = read(p->ready_fd, bytes, sizeof bytes);
	struct probe *a;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && memchr(bytes, '\n', (size_t)n) == NULL)
		return;
	probe_ready_fd_close(p);
	if (n > 0) {
		seen(p);
		return;
	}
	a = p->probe == NULL ? probe_new(p->supervisor, p) : NULL;
	if (a == NULL)
		return;
	a->state = ATTEMPT_GRACE;
	a->deadline_ns = lease_now_ns() + GRACE_NS;
}

void probes_watch(struct process *p, const struct config_probe *ready, int ready_fd)
{
	if (ready_fd >= 0) {
		p->ready_fd = ready_fd;
		(void)fcntl(ready_fd, F_SETFL, O_NONBLOCK);
		p->ready_watch = loop_watch(
			p->supervisor->loop, ready_fd, LOOP_READ, ready_readable, p);
	}
	for (int i = 0; i < 2 && ready->kind == PROBE_LOG; i++) {
		if (p->streams[i] != NULL)
			logs_stream_expect(p->streams[i], ready->word, line_seen, p);
	}
}

/* Its attempt went with the image before. */
static void ask_again(struct process *p)
{
	struct event e = {.kind = EVENT_PROBE_FAILED,
		.worker = p->slot,
		.id = p->id,
		.program = -1,
		.ok = true};

	supervisor_post(p->supervisor, &e);
}

static void resume(struct process *p)
{
	const struct worker *w = &p->supervisor->core.workers[p->slot];
	int fd = p->ready_fd;
	struct config_worker worker;
	struct err e;

	if (w->used && w->id == p->id && w->probing)
		ask_again(p);
	if (w->state != WORKER_STARTING ||
		(w->settings->ready != READY_FD && w->settings->ready != READY_LOG)) {
		probe_ready_fd_close(p);
		return;
	}
	if (spawn_config_worker(
		    p, spawn_config_of(p->supervisor, w->settings), w->settings, &worker, &e) < 0)
		return;
	p->ready_fd = -1;
	probes_watch(p, &worker.ready, fd);
	config_worker_release(&worker);
}

void probes_resume(struct supervisor *s)
{
	for (int i = 0; i < s->process_slots; i++) {
		if (s->processes[i].id != 0)
			resume(&s->processes[i]);
	}
}

const char *probes_why(struct supervisor *s, int slot, char *buf, size_t bytes)
{
	const struct worker *w = &s->core.workers[slot];
	const struct process *p = &s->processes[slot];

	if (!w->tree || p->id != w->id)
		return NULL;
	if (w->unhealthy)
		snprintf(buf, bytes, "health: %s, %d time%s in a row",
			p->probe_text != NULL ? p->probe_text : "no answer",
			w->settings->health_failures, w->settings->health_failures == 1 ? "" : "s");
	else if (w->state == WORKER_RUNNING && w->probe_failures > 0 && p->probe_text != NULL)
		snprintf(buf, bytes, "health: %s (%d of %d)", p->probe_text, w->probe_failures,
			w->settings->health_failures);
	else if (w->state == WORKER_STARTING && p->probe_text != NULL)
		snprintf(buf, bytes, "%s", p->probe_text);
	else if (w->state == WORKER_STARTING && w->settings->ready != READY_STARTSECS &&
		 w->settings->ready_text != NULL)
		snprintf(buf, bytes, "waiting for %.300s%s", w->settings->ready_text,
			w->settings->ready == READY_NOTIFY ? " (READY=1)" : "");
	else
		return NULL;
	return buf;
}

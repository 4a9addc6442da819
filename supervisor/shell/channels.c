/* A worker's channel and lease page, and what it says by sd_notify. */
#include <signal.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/shell/claims.h"
#include "supervisor/shell/state.h"

#define READ_BYTES 4096

static void post_said(struct process *p, enum event_kind kind, const struct channel_message *m)
{
	struct event e = {.kind = kind, .worker = p->slot, .id = p->id, .program = -1};

	e.term = m->term;
	e.number = m->number;
	supervisor_post(p->supervisor, &e);
}

static void warn(struct process *p, const char *what, const char *text)
{
	struct logs_field fields[] = {{.key = "worker", .value = p->name}};

	logs_event(p->supervisor->logs, LOGS_WARNING, what, fields, 1, "%s: %s", p->name, text);
}

static void read_line(const char *line, void *context)
{
	struct process *p = context;
	struct channel_message m;
	struct err e;

	if (channel_decode(line, &m, &e) < 0) {
		warn(p, "channel.malformed", e.text);
		return;
	}
	switch (m.verb) {
	case CHANNEL_HELLO:
		post_said(p, EVENT_SAID_HELLO, &m);
		break;
	case CHANNEL_PROMOTED:
		post_said(p, EVENT_SAID_PROMOTED, &m);
		break;
	case CHANNEL_DEMOTED:
		post_said(p, EVENT_SAID_DEMOTED, &m);
		break;
	case CHANNEL_BUSY:
		post_said(p, EVENT_SAID_BUSY, &m);
		break;
	case CHANNEL_CLAIM:
		claims_take(p, &m);
		break;
	default:
		break; /* a word of a later version */
	}
}

static void close_channel(struct process *p)
{
	loop_unwatch(p->channel_watch);
	p->channel_watch = NULL;
	close(p->channel_fd);
	p->channel_fd = -1;
}

/* A round reads a bounded amount: an endless line must not keep the loop. */
static void readable(void *context, unsigned events)
{
	struct process *p = context;
	char bytes[READ_BYTES];
	struct err e;
	ssize_t n = recv(p->channel_fd, bytes, sizeof bytes, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* every process of the worker has closed it: it is told no more */
		close_channel(p);
		if (p->leader_alive)
			supervisor_post_worker(p->supervisor, EVENT_CHANNEL_CLOSED, p);
		return;
	}
	if (channel_feed(&p->channel_in, bytes, (size_t)n, read_line, p, &e) < 0)
		warn(p, "channel.malformed", e.text);
}

void channel_watch(struct supervisor *s, struct process *p)
{
	channel_buffer_clear(&p->channel_in);
	p->channel_watch = loop_watch(s->loop, p->channel_fd, LOOP_READ, readable, p);
}

void channel_resume(struct supervisor *s, struct process *p)
{
	if (p->channel_fd >= 0)
		p->channel_watch = loop_watch(s->loop, p->channel_fd, LOOP_READ, readable, p);
}

/* A worker that does not read its lines fills its own socket: the page decides anyway. */
void channel_tell(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);
	struct channel_message m = {.term = a->term, .number = a->number};
	char line[CHANNEL_LINE_BYTES];
	size_t n;

	if (p == NULL || p->channel_fd < 0)
		return;
	m.verb = a->kind == ACTION_TELL_PROMOTE ? CHANNEL_PROMOTE : CHANNEL_DEMOTE;
	m.reason = (enum channel_reason)a->reason_code;
	n = channel_encode(&m, line);
	if (send(p->channel_fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n &&
		errno != EPIPE)
		warn(p, "channel.full", "does not read its channel: a line was not delivered");
}

void channel_show(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p != NULL && p->lease.page != NULL)
		lease_show(p->lease.page, a->term, a->soft_ns, a->deadline_ns);
}

void channel_extend(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p == NULL || p->lease.page == NULL)
		return;
	if (!lease_extend(p->lease.page, a->soft_ns, a->deadline_ns))
		supervisor_post_worker(s, EVENT_LEASE_TAKEN, p);
}

void channel_clear(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p != NULL && p->lease.page != NULL)
		lease_clear(p->lease.page);
}

/* --- sd_notify ----------------------------------------------------------------------------- */
static void warn_malformed(struct process *p, const struct notify_message *m)
{
	struct logs_field f[] = {
		{.key = "worker", .value = p->name}, {.key = "pid", .number = m->pid}};

	if (p->notify_told)
		return;
	p->notify_told = true;
	logs_event(p->supervisor->logs, LOGS_WARNING, "notify.malformed", f, 2,
		"%s: a notification of pid %d is %s: passed over (this is said once)", p->name,
		(int)m->pid, m->malformed);
}

void channel_notified(void *context, const struct notify_message *m)
{
	struct supervisor *s = context;
	struct process *p = reap_owner(s, m->pid);
	struct event e = {.program = -1};

	if (p == NULL && m->malformed != NULL)
		return;
	if (p == NULL) {
		logs_event(s->logs, LOGS_WARNING, "notify.stranger", NULL, 0,
			"pid %d is in no worker's process tree: its notification was ignored%s",
			(int)m->pid,
			kill(m->pid, 0) < 0 && errno == ESRCH
				? ". It is gone by now: who notifies for others waits until it was "
				  "heard, with BARRIER=1, as systemd-notify does"
				: "");
		return;
	}
	e.worker = p->slot;
	e.id = p->id;
	if (m->malformed != NULL)
		warn_malformed(p, m);
	if (m->mainpid > 0)
		main_named(p, m->mainpid);
	if (m->has_status) {
		free(p->status);
		p->status = strdup(m->status);
		s->changed = true;
	}
	if (m->ready)
		supervisor_post_worker(s, EVENT_READY, p);
	if (m->stopping)
		supervisor_post_worker(s, EVENT_STOPPING, p);
	if (m->watchdog)
		supervisor_post_worker(s, EVENT_WATCHDOG, p);
	if (m->extend_timeout_us > 0) {
		e.kind = EVENT_EXTEND;
		e.number = m->extend_timeout_us;
		supervisor_post(s, &e);
	}
}

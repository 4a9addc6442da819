/* Probes over TCP. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/probe_internal.h"

#define SHOWN_BYTES   40
#define DRAINED_BYTES 65536

/* What baton itself ran out of; the worker is not to blame. */
static bool is_own_fault(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
	       error == EADDRNOTAVAIL || error == EAGAIN;
}

static void net_failed(struct probe *a, int error)
{
	probe_fails(a, is_own_fault(error), "%s", strerror(error));
}

/* The beginning of an answer, fit for a log. */
static const char *shown(const struct probe *a, char buf[SHOWN_BYTES + 1])
{
	size_t n = a->used < SHOWN_BYTES ? a->used : SHOWN_BYTES;

	for (size_t i = 0; i < n; i++)
		buf[i] = a->answer[i] >= ' ' && a->answer[i] < 0x7f ? a->answer[i] : '.';
	buf[n] = '\0';
	return buf;
}

/* --- HTTP ---------------------------------------------------------------------------------- */
/* The status of the answer so far; 0 = more is needed, -1 = this is no HTTP. */
static int status_of(const char *text, size_t bytes)
{
	static const char start[] = "HTTP/1.";
	size_t n = bytes < sizeof start - 1 ? bytes : sizeof start - 1;
	int status = 0;

	if (memcmp(text, start, n) != 0)
		return -1;
	if (bytes < strlen("HTTP/1.1 200"))
		return 0;
	if (text[8] != ' ')
		return -1;
	for (int i = 9; i < 12; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		status = 10 * status + (text[i] - '0');
	}
	return status >= 100 && status < 600 ? status : -1;
}

/* 100 Continue, 103 Early Hints: the answer proper comes after them. False = more is needed. */
static bool skip_interim(struct probe *a)
{
	const char *end = memmem(a->answer, a->used, "\r\n\r\n", 4);
	size_t bytes;

	if (end == NULL)
		return false;
	bytes = (size_t)(end + 4 - a->answer);
	a->used -= bytes;
	memmove(a->answer, a->answer + bytes, a->used);
	return true;
}

static void judge_http(struct probe *a)
{
	char text[SHOWN_BYTES + 1];
	int status = status_of(a->answer, a->used);

	while (status >= 100 && status < 200 && skip_interim(a))
		status = status_of(a->answer, a->used);
	if (status >= 200 && status < 400) {
		a->state = ATTEMPT_DRAINS;
		probe_succeeds(a);
	} else if (status >= 400) {
		probe_fails(a, false, "status %d", status);
	} else if (status < 0) {
		probe_fails(a, false, "the answer is not HTTP: '%s'", shown(a, text));
	} else if (a->used == sizeof a->answer) {
		probe_fails(a, false, "no status in the first %zu bytes of the answer",
			sizeof a->answer);
	}
}

/* --- the connection ------------------------------------------------------------------------ */
/* A kernel connects to whoever listens. What the worker itself does is to accept: it answers, or
 * it sees our end and closes its own. */
static void read_answer(struct probe *a)
{
	char text[SHOWN_BYTES + 1];
	ssize_t n = recv(a->fd, a->answer + a->used, sizeof a->answer - a->used, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		net_failed(a, errno);
	} else if (a->kind == PROBE_TCP) {
		probe_succeeds(a);
	} else if (n == 0 && a->used == 0) {
		probe_fails(a, false, "closed without an answer");
	} else if (n == 0) {
		probe_fails(a, false, "closed in the middle of its answer: '%s'", shown(a, text));
	} else {
		a->used += (size_t)n;
		judge_http(a);
	}
}

static void drain_answer(struct probe *a)
{
	ssize_t n = recv(a->fd, a->answer, sizeof a->answer, MSG_DONTWAIT);

	a->sent += n > 0 ? (size_t)n : 0;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || a->sent > DRAINED_BYTES)
		probe_end(a);
}

static void send_request(struct probe *a)
{
	const struct probe_target *t = probe_target(a);
	size_t bytes = strlen(t->request);
	ssize_t n = send(a->fd, t->request + a->sent, bytes - a->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		net_failed(a, errno);
		return;
	}
	a->sent += n > 0 ? (size_t)n : 0;
	if (a->sent < bytes)
		return;
	a->state = ATTEMPT_ANSWER;
	loop_watch_events(a->watch, LOOP_READ);
}

static void connected(struct probe *a)
{
	int error = 0;
	socklen_t bytes = sizeof error;

	if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
		error = errno;
	if (error != 0) {
		net_failed(a, error);
	} else if (a->kind == PROBE_HTTP) {
		send_request(a);
	} else if (!a->own) {
		probe_succeeds(a);
	} else {
		(void)shutdown(a->fd, SHUT_WR);
		a->state = ATTEMPT_ANSWER;
		loop_watch_events(a->watch, LOOP_READ);
	}
}

void probe_net_ready(void *attempt, unsigned events)
{
	struct probe *a = attempt;

	(void)events;
	if (a->state == ATTEMPT_CONNECTING)
		connected(a);
	else if (a->state == ATTEMPT_DRAINS)
		drain_answer(a);
	else
		read_answer(a);
}

void probe_connect(struct probe *a)
{
	const struct probe_target *t = probe_target(a);

	a->state = ATTEMPT_CONNECTING;
	a->fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (a->fd < 0) {
		net_failed(a, errno);
		return;
	}
	if (connect(a->fd, (const struct sockaddr *)&t->address, t->address_bytes) < 0 &&
		errno != EINPROGRESS) {
		net_failed(a, errno);
		return;
	}
	a->watch = loop_watch(a->supervisor->loop, a->fd, LOOP_WRITE, probe_net_ready, a);
	if (a->watch == NULL)
		net_failed(a, ENOMEM);
}

/* What came while the loop was busy counts: look once more. */
void probe_net_expired(struct probe *a, const char *timeout)
{
	struct process *p = a->process;
	char text[SHOWN_BYTES + 1];

	if (a->state == ATTEMPT_ANSWER)
		read_answer(a);
	if (p == NULL || p->probe != a)
		return;
	if (a->state == ATTEMPT_CONNECTING)
		probe_fails(a, false, "not connected in %s", timeout);
	else if (a->kind == PROBE_TCP)
		probe_fails(a, false, "not accepted in %s", timeout);
	else if (a->used > 0)
		probe_fails(a, false, "no whole answer in %s, only '%s'", timeout, shown(a, text));
	else
		probe_fails(a, false, "no answer in %s", timeout);
}

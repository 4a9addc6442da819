#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "supervisor/shell/control_internal.h"

#define INPUT_BYTES_MIN 1024
/* The longest line and its newline. */
#define INPUT_BYTES (CONTROL_REQUEST_BYTES + 1)

/* --- end ---------------------------------------------------------------------------------------
 */

static void drop_queue(struct control_connection *n)
{
	free(n->queue);
	n->queue = NULL;
	n->queue_start = n->queue_bytes = n->queue_capacity = 0;
}

/*
 * The connection may be in use further up the stack, and in lists that its handler walks: it is
 * only shut down here. That makes it readable, so that its own callback comes in the next round
 * and destroys it.
 */
static void kill_connection(struct control_connection *n)
{
	if (n->dead)
		return;
	n->dead = true;
	drop_queue(n);
	if (n->subscribed)
		n->server->subscribers--;
	n->subscribed = false;
	shutdown(n->fd, SHUT_RDWR);
	loop_watch_events(n->watch, LOOP_READ);
}

void connection_destroy(struct control_connection *n)
{
	struct control *c = n->server;

	n->dead = true;
	if (n->subscribed)
		c->subscribers--;
	n->subscribed = false;
	if (c->handlers.closed)
		c->handlers.closed(c->handlers.context, n);
	loop_unwatch(n->watch);
	close(n->fd);
	if (n->next)
		n->next->previous = n->previous;
	if (n->previous)
		n->previous->next = n->next;
	else
		c->connections = n->next;
	free(n->input);
	drop_queue(n);
	free(n);
	control_connection_gone(c);
}

static bool has_line(const struct control_connection *n)
{
	return n->input_bytes && memchr(n->input, '\n', n->input_bytes);
}

/* What to wait for next; or nothing more: then it ends. */
static void update(struct control_connection *n)
{
	unsigned events = 0;
	bool line = !n->closing && has_line(n);

	if (n->dead)
		return;
	if (!n->queue_bytes && !line &&
		(n->closing || (n->ended && !n->unanswered && !n->subscribed))) {
		kill_connection(n);
		return;
	}
	/* With lines still to be handled the next round is asked for by a socket that can be
	 * written; one that cannot has a client that does not read: it waits. */
	if (n->queue_bytes || line)
		events |= LOOP_WRITE;
	if (!n->ended && !n->closing && !line && n->queue_bytes <= CONTROL_QUEUE_PAUSE)
		events |= LOOP_READ;
	loop_watch_events(n->watch, events);
}

/* --- output ------------------------------------------------------------------------------------
 */

bool connection_flush(struct control_connection *n)
{
	while (n->queue_bytes) {
		ssize_t sent = send(n->fd, n->queue + n->queue_start, n->queue_bytes,
			MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return true;
		if (sent <= 0) {
			kill_connection(n);
			return false;
		}
		n->queue_start += (size_t)sent;
		n->queue_bytes -= (size_t)sent;
	}
	drop_queue(n);
	return false;
}

static bool enqueue(struct control_connection *n, const char *data, size_t bytes)
{
	if (n->queue_start && n->queue_start + n->queue_bytes + bytes > n->queue_capacity) {
		memmove(n->queue, n->queue + n->queue_start, n->queue_bytes);
		n->queue_start = 0;
	}
	if (n->queue_bytes + bytes > n->queue_capacity) {
		size_t capacity = n->queue_capacity ? n->queue_capacity : 4096;
		char *bigger;

		while (capacity < n->queue_bytes + bytes)
			capacity *= 2;
		bigger = realloc(n->queue, capacity);
		if (!bigger)
			return false;
		n->queue = bigger;
		n->queue_capacity = capacity;
	}
	memcpy(n->queue + n->queue_start + n->queue_bytes, data, bytes);
	n->queue_bytes += bytes;
	return true;
}

void connection_send(struct control_connection *n, const char *line, size_t bytes, bool strict)
{
	struct iovec parts[2] = {
		{.iov_base = (char *)line, .iov_len = bytes},
		{.iov_base = "\n", .iov_len = 1},
	};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	ssize_t sent = 0;
	size_t done, limit = CONTROL_QUEUE_BYTES;

	if (n->dead)
		return;
	if (!n->queue_bytes) {
		do
			sent = sendmsg(n->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		while (sent < 0 && errno == EINTR);
		if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
			kill_connection(n);
			return;
		}
	}
	done = sent > 0 ? (size_t)sent : 0;
	if (done < bytes + 1) {
		size_t then = n->queue_bytes + (strict ? bytes + 1 - done : 0);

		if (then > limit || (done < bytes && !enqueue(n, line + done, bytes - done)) ||
			!enqueue(n, "\n", 1)) {
			kill_connection(n);
			return;
		}
	}
	update(n);
}

/* --- input -------------------------------------------------------------------------------------
 */

static bool make_room(struct control_connection *n)
{
	size_t capacity = n->input_capacity ? n->input_capacity * 2 : INPUT_BYTES_MIN;
	char *bigger;

	if (n->input_bytes < n->input_capacity)
		return true;
	if (capacity > INPUT_BYTES)
		capacity = INPUT_BYTES;
	if (capacity == n->input_capacity)
		return false; /* full: a line too long, found before */
	bigger = realloc(n->input, capacity);
	if (!bigger)
		return false;
	n->input = bigger;
	n->input_capacity = capacity;
	return true;
}

static void handle_lines(struct control_connection *n)
{
	size_t at = 0;

	for (int i = 0; i < CONTROL_ROUND_REQUESTS; i++) {
		char *start = n->input + at, *end;

		if (n->dead || n->closing || n->queue_bytes > CONTROL_QUEUE_PAUSE ||
			at == n->input_bytes)
			break;
		end = memchr(start, '\n', n->input_bytes - at);
		if (!end)
			break;
		at += (size_t)(end + 1 - start);
		control_line(n, start, (size_t)(end - start));
	}
	if (!at)
		return;
	n->input_bytes -= at;
	memmove(n->input, n->input + at, n->input_bytes);
}

/* The client has closed both directions: nobody reads an answer. */
static bool hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = 0};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

static void read_input(struct control_connection *n)
{
	ssize_t got;

	if (!make_room(n)) {
		kill_connection(n);
		return;
	}
	do
		got = recv(n->fd, n->input + n->input_bytes, n->input_capacity - n->input_bytes,
			MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		n->input_bytes += (size_t)got;
		return;
	}
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	n->ended = true;
	if (got < 0 || hung_up(n->fd))
		kill_connection(n);
	/* Less than a capacity is used: a last line without newline gets one. */
	else if (n->input_bytes && !has_line(n) && make_room(n))
		n->input[n->input_bytes++] = '\n';
}

static void on_ready(void *context, unsigned events)
{
	struct control_connection *n = context;

	if (!n->dead && (events & LOOP_WRITE))
		connection_flush(n);
	if (!n->dead && (events & LOOP_READ) && !n->ended && !n->closing && !has_line(n) &&
		n->queue_bytes <= CONTROL_QUEUE_PAUSE)
		read_input(n);
	if (!n->dead)
		handle_lines(n);
	if (!n->dead && !n->closing && n->input_bytes == INPUT_BYTES && !has_line(n))
		control_too_long(n);
	if (!n->input_bytes) {
		free(n->input);
		n->input = NULL;
		n->input_capacity = 0;
	}
	update(n);
	if (n->dead)
		connection_destroy(n);
}

struct control_connection *connection_new(
	struct control *c, int fd, const struct control_peer *peer)
{
	struct control_connection *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->fd = fd;
	n->peer = *peer;
	if (connection_resume(c, n) < 0) {
		free(n);
		return NULL;
	}
	return n;
}

int connection_resume(struct control *c, struct control_connection *n)
{
	n->server = c;
	n->watch = loop_watch(c->loop, n->fd, LOOP_READ, on_ready, n);
	if (!n->watch)
		return -1;
	n->next = c->connections;
	if (n->next)
		n->next->previous = n;
	c->connections = n;
	c->count++;
	c->subscribers += n->subscribed;
	update(n);
	return 0;
}

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/shell/log_internal.h"

#define RETRY_NS        1000000000LL
#define TERMINAL_BYTES  256 /* what a terminal that says "ready" takes without waiting */
#define QUEUE_BYTES_MIN 4096

int64_t log_monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- states ----------------------------------------------------------------------------------- */

bool sink_blocked(const struct logs_sink *s)
{
	return s->used > 0;
}

struct logs_sink *logs_sink_ref(struct logs_sink *s)
{
	s->references++;
	return s;
}

const char *logs_sink_path(const struct logs_sink *s)
{
	return s->path ? s->path : "";
}

static const char *sink_name(const struct logs_sink *s)
{
	if (s->path)
		return s->path;
	return s->terminal     ? "the terminal"
	       : s->given == 1 ? "standard output"
	       : s->given == 2 ? "standard error"
			       : "a descriptor given to baton";
}

static void drop_queue(struct logs_sink *s)
{
	free(s->queue);
	s->queue = NULL;
	s->start = s->used = s->capacity = 0;
}

static void set_stuck(struct logs_sink *s, bool stuck)
{
	if (s->stuck == stuck)
		return;
	s->stuck = stuck;
	s->logs->stuck += stuck ? 1 : -1;
	if (stuck && s->watch)
		loop_watch_events(s->watch, 0);
}

static void set_gone(struct logs_sink *s, int why)
{
	struct logs_field field = {.key = "sink", .value = sink_name(s)};

	drop_queue(s);
	set_stuck(s, false);
	loop_unwatch(s->watch);
	s->watch = NULL;
	s->gone = true;
	logs_event(s->logs, LOGS_WARNING, "log.gone", &field, 1,
		"nobody reads %s any more (%s); output for it is thrown away", sink_name(s),
		strerror(why));
	streams_wake(s, true);
}

/* After the queue is in order: the event itself may go to this very sink. */
static void report_stuck(struct logs_sink *s, int why)
{
	struct logs_field field = {.key = "sink", .value = sink_name(s)};

	logs_event(s->logs, LOGS_ERROR, "log.stuck", &field, 1,
		"cannot write to %s: %s; its workers' output waits, retrying every second or later",
		sink_name(s), strerror(why));
}

static void report_unstuck(struct logs_sink *s)
{
	struct logs_field field = {.key = "sink", .value = sink_name(s)};

	logs_event(
		s->logs, LOGS_INFO, "log.unstuck", &field, 1, "writing to %s again", sink_name(s));
}

static void drained(struct logs_sink *s, bool later)
{
	streams_wake(s, later);
	if (s->own)
		log_own_drained(s->logs);
}

/* --- writing ---------------------------------------------------------------------------------- */

static ssize_t write_once(struct logs_sink *s, const char *data, size_t bytes)
{
	struct pollfd p = {.fd = s->fd, .events = POLLOUT};
	size_t most = s->terminal ? TERMINAL_BYTES : PIPE_BUF;

	if (s->way == WAY_SOCKET)
		return send(s->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (s->way == WAY_SHARED) {
		if (poll(&p, 1, 0) <= 0) {
			errno = EAGAIN;
			return -1;
		}
		if (bytes > most)
			bytes = most;
	}
	return write(s->fd, data, bytes);
}

static bool means_gone(const struct logs_sink *s, int why)
{
	switch (why) {
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
	case EBADF:
	case ENXIO:
		return true;
	case EIO:
		return s->terminal;
	default:
		return false;
	}
}

/* As much as can be written now. *RET_WHY = 0, or why the sink is stuck or gone from now on. */
static size_t write_some(struct logs_sink *s, const char *data, size_t bytes, int *ret_why)
{
	size_t written = 0;

	*ret_why = 0;
	while (written < bytes) {
		ssize_t n = write_once(s, data + written, bytes - written);
		if (n > 0) {
			written += (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		*ret_why = n == 0 ? ENOSPC : errno;
		break;
	}
	return written;
}

static bool enqueue(struct logs_sink *s, const char *data, size_t bytes)
{
	if (s->start && s->start + s->used + bytes > s->capacity) {
		memmove(s->queue, s->queue + s->start, s->used);
		s->start = 0;
	}
	if (s->used + bytes > s->capacity) {
		size_t capacity = s->capacity ? s->capacity : QUEUE_BYTES_MIN;
		char *bigger;

		while (capacity < s->used + bytes)
			capacity *= 2;
		bigger = realloc(s->queue, capacity);
		if (!bigger)
			return false;
		s->queue = bigger;
		s->capacity = capacity;
	}
	memcpy(s->queue + s->start + s->used, data, bytes);
	s->used += bytes;
	return true;
}

static bool flush_queue(struct logs_sink *s);

static void on_writable(void *context, unsigned events)
{
	struct logs_sink *s = logs_sink_ref(context);

	(void)events;
	if (flush_queue(s))
		drained(s, false);
	logs_sink_close(s);
}

/* Something is queued: the loop says when to go on, or logs_retry does. */
static void arm(struct logs_sink *s, int why)
{
	if (why) {
		bool first = !s->stuck;
		set_stuck(s, true);
		s->retry_ns = log_monotonic_ns() + RETRY_NS;
		if (first)
			report_stuck(s, why);
		return;
	}
	if (s->stuck)
		return;
	if (s->watch)
		loop_watch_events(s->watch, LOOP_WRITE);
	else if (!(s->watch = loop_watch(s->logs->loop, s->fd, LOOP_WRITE, on_writable, s)))
		set_stuck(s, true);
}

void sink_resume(struct logs_sink *s)
{
	if (s->used > 0 && !s->gone)
		arm(s, 0);
}

/* True when nothing is left and something was. */
static bool flush_queue(struct logs_sink *s)
{
	int why;
	size_t written;
	bool was_stuck = s->stuck;

	if (!s->used)
		return false;
	written = write_some(s, s->queue + s->start, s->used, &why);
	s->start += written;
	s->used -= written;
	if (s->used) {
		if (why && means_gone(s, why))
			set_gone(s, why);
		else
			arm(s, why);
		return false;
	}
	s->start = 0;
	/* A file's queue is rare and there may be thousands: not kept. */
	if (s->way == WAY_FILE || s->capacity > LOGS_SINK_BYTES)
		drop_queue(s);
	if (s->watch)
		loop_watch_events(s->watch, 0);
	set_stuck(s, false);
	if (was_stuck)
		report_unstuck(s);
	return true;
}

static void put_now(struct logs_sink *s, const char *data, size_t bytes)
{
	size_t written = 0;
	int why = 0;

	if (s->stuck && log_monotonic_ns() >= s->retry_ns && flush_queue(s))
		drained(s, true);
	if (!s->used && !s->gone)
		written = write_some(s, data, bytes, &why);
	if (s->gone || written == bytes)
		return;
	if (why && means_gone(s, why)) {
		set_gone(s, why);
		return;
	}
	if (!enqueue(s, data + written, bytes - written))
		s->logs->dropped++;
	if (s->used)
		arm(s, why);
}

/* From here on into the next file; what the old one could not take goes there, too. */
void sink_switch(struct logs_sink *s)
{
	if (s->used && !s->stuck)
		flush_queue(s);
	loop_unwatch(s->watch);
	s->watch = NULL;
	close(s->fd);
	s->fd = s->next_fd;
	s->next_fd = -1;
	s->way = s->next_way;
	s->gone = false;
	sink_identify(s, NULL);
	if (s->used)
		flush_queue(s);
	if (!s->used)
		drained(s, true);
}

void sink_put(struct logs_sink *s, const void *data, size_t bytes, const void *writer)
{
	const char *at = data, *newline;
	size_t first;

	if (!bytes || s->gone)
		return;
	if (s->next_fd >= 0) {
		newline = memchr(at, '\n', bytes);
		first = newline ? (size_t)(newline + 1 - at) : bytes;
		put_now(s, at, first);
		s->next_bytes += first;
		s->mid_line = !newline;
		if (newline || s->next_bytes > LOGS_LINE_BYTES)
			sink_switch(s);
		at += first;
		bytes -= first;
	}
	s->writer = writer;
	if (!bytes)
		return;
	put_now(s, at, bytes);
	s->mid_line = at[bytes - 1] != '\n';
}

void sink_retry(struct logs_sink *s, int64_t now_ns)
{
	if (!s->stuck || now_ns < s->retry_ns)
		return;
	logs_sink_ref(s);
	s->retry_ns = now_ns + RETRY_NS;
	if (flush_queue(s))
		drained(s, false);
	logs_sink_close(s);
}

/* --- another file, the end ----------------------------------------------------------------------
 */

void sink_destroy(struct logs_sink *s)
{
	if (s->next)
		s->next->previous = s->previous;
	if (s->previous)
		s->previous->next = s->next;
	else
		s->logs->sinks = s->next;
	set_stuck(s, false);
	loop_unwatch(s->watch);
	close(s->fd);
	if (s->next_fd >= 0)
		close(s->next_fd);
	free(s->queue);
	free(s->path);
	free(s);
}

void logs_sink_close(struct logs_sink *s)
{
	if (!s)
		return;
	assert(s->references > 0);
	if (--s->references == 0 && !s->used)
		sink_destroy(s);
}

void sink_flush_all(struct logs *l, int64_t deadline_ns)
{
	for (;;) {
		struct pollfd polled[64];
		nfds_t count = 0;
		int64_t left_ns = deadline_ns - log_monotonic_ns();

		for (struct logs_sink *s = l->sinks; s; s = s->next) {
			if (s->used && !s->stuck)
				flush_queue(s);
			if (s->used && !s->stuck && count < 64)
				polled[count++] = (struct pollfd){.fd = s->fd, .events = POLLOUT};
		}
		if (!count || left_ns <= 0)
			return;
		poll(polled, count, (int)(left_ns / 1000000) + 1);
	}
}

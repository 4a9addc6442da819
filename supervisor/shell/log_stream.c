#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "supervisor/shell/log_internal.h"

#define WAKE_AT_ONCE      64 /* streams read in one go when their sink has drained */
#define PARTIAL_BYTES_MIN 256

/* --- waiting for the sink ----------------------------------------------------------------------
 */

static void wait_for_sink(struct logs_stream *s)
{
	struct logs_sink *sink = s->sink;

	if (s->watch)
		loop_watch_events(s->watch, 0);
	if (s->waits)
		return;
	s->waits = true;
	s->waits_next = NULL;
	s->waits_previous = sink->waiting_last;
	if (sink->waiting_last)
		sink->waiting_last->waits_next = s;
	else
		sink->waiting = s;
	sink->waiting_last = s;
}

static void stop_waiting(struct logs_stream *s)
{
	if (!s->waits)
		return;
	s->waits = false;
	if (s->waits_next)
		s->waits_next->waits_previous = s->waits_previous;
	else
		s->sink->waiting_last = s->waits_previous;
	if (s->waits_previous)
		s->waits_previous->waits_next = s->waits_next;
	else
		s->sink->waiting = s->waits_next;
}

static void on_readable(void *context, unsigned events);

void streams_wake(struct logs_sink *s, bool later)
{
	int served = 0;

	while (s->waiting && !sink_blocked(s)) {
		struct logs_stream *first = s->waiting;

		stop_waiting(first);
		if (first->watch)
			loop_watch_events(first->watch, LOOP_READ);
		/* In the order in which they came to wait: left to the loop alone, one that
		 * always fills the sink could keep the others out. */
		if (!later && served++ < WAKE_AT_ONCE)
			on_readable(first, LOOP_READ);
	}
}

/* --- lines -------------------------------------------------------------------------------------
 */

static void drop_partial(struct logs_stream *s)
{
	free(s->partial);
	s->partial = NULL;
	s->partial_bytes = s->partial_capacity = 0;
}

static bool hold(struct logs_stream *s, const char *data, size_t bytes)
{
	size_t wanted = s->partial_bytes + bytes, capacity = s->partial_capacity;

	if (wanted > LOGS_LINE_BYTES)
		return false;
	if (wanted > capacity) {
		char *bigger;

		if (!capacity)
			capacity = PARTIAL_BYTES_MIN;
		while (capacity < wanted)
			capacity *= 2;
		bigger = realloc(s->partial, capacity);
		if (!bigger)
			return false; /* passed on as it is, not lost */
		s->partial = bigger;
		s->partial_capacity = capacity;
	}
	memcpy(s->partial + s->partial_bytes, data, bytes);
	s->partial_bytes = wanted;
	return true;
}

struct batch {
	struct logs_stream *stream;
	size_t used; /* of logs->output */
};

static void batch_flush(struct batch *b)
{
	sink_put(b->stream->sink, b->stream->logs->output, b->used, b->stream);
	b->used = 0;
}

static void batch_add(struct batch *b, const char *data, size_t bytes)
{
	while (bytes) {
		size_t n = LOG_READ_BYTES - b->used;

		if (n > bytes)
			n = bytes;
		memcpy(b->stream->logs->output + b->used, data, n);
		b->used += n;
		data += n;
		bytes -= n;
		if (b->used == LOG_READ_BYTES)
			batch_flush(b);
	}
}

/* What is held and DATA: one line, or a piece of one, after whatever its sink holds now. */
static void add_piece(struct batch *b, const char *data, size_t bytes, bool *mid_line)
{
	struct logs_stream *s = b->stream;
	struct logs_sink *sink = s->sink;

	if (*mid_line && sink->writer != s)
		batch_add(b, "\n", 1);
	if (!*mid_line || sink->writer != s)
		batch_add(b, s->prefix, s->prefix_bytes);
	batch_add(b, s->partial, s->partial_bytes);
	batch_add(b, data, bytes);
	drop_partial(s);
	sink->writer = s;
	*mid_line = !bytes || data[bytes - 1] != '\n';
}

static bool passes_through(const struct logs_stream *s)
{
	return !s->prefix && s->sink->streams == 1 && !s->sink->own;
}

static void feed(struct logs_stream *s, const char *data, size_t bytes)
{
	struct batch b = {.stream = s};
	bool mid_line;

	if (!s->sink || s->sink->gone) {
		drop_partial(s);
		return;
	}
	if (passes_through(s)) {
		sink_put(s->sink, s->partial, s->partial_bytes, s);
		drop_partial(s);
		sink_put(s->sink, data, bytes, s);
		return;
	}
	mid_line = s->sink->mid_line;
	while (bytes) {
		const char *newline = memchr(data, '\n', bytes);
		size_t n = newline ? (size_t)(newline + 1 - data) : bytes;

		if (newline || !hold(s, data, n))
			add_piece(&b, data, n, &mid_line);
		data += n;
		bytes -= n;
	}
	batch_flush(&b);
}

/* No more will come: what is held goes out, and ends in a newline where lines have prefixes. */
static void finish_line(struct logs_stream *s)
{
	struct batch b = {.stream = s};
	struct logs_sink *sink = s->sink;
	bool mid_line;

	if (!sink || sink->gone) {
		drop_partial(s);
		return;
	}
	mid_line = sink->mid_line;
	if (s->partial_bytes)
		add_piece(&b, "", 0, &mid_line);
	if (s->prefix && mid_line && sink->writer == s)
		batch_add(&b, "\n", 1);
	batch_flush(&b);
}

/* --- reading -----------------------------------------------------------------------------------
 */

enum read_result { READ_MORE, READ_EMPTY, READ_FULL, READ_ENDED };

static enum read_result read_once(struct logs_stream *s, size_t *ret_bytes)
{
	ssize_t n;

	*ret_bytes = 0;
	if (s->ended)
		return READ_ENDED;
	if (s->sink && sink_blocked(s->sink))
		return READ_FULL;
	do
		n = read(s->fd, s->logs->input, LOG_READ_BYTES);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return READ_EMPTY;
	if (n > 0) {
		*ret_bytes = (size_t)n;
		if (s->expect)
			expect_feed(s, s->logs->input, (size_t)n);
		feed(s, s->logs->input, (size_t)n);
		return READ_MORE;
	}
	/* A terminal whose other end is closed says EIO. */
	s->ended = true;
	loop_unwatch(s->watch);
	s->watch = NULL;
	stop_waiting(s);
	finish_line(s);
	return READ_ENDED;
}

static void on_readable(void *context, unsigned events)
{
	struct logs_stream *s = context;
	size_t bytes;
	enum read_result result = read_once(s, &bytes);

	(void)events;
	if (result == READ_ENDED) {
		if (s->detached)
			logs_stream_close(s);
		else if (s->on_end)
			s->on_end(s->context, s);
		return;
	}
	if (result == READ_FULL || (s->sink && sink_blocked(s->sink)))
		wait_for_sink(s);
}

bool logs_stream_drain(struct logs_stream *s)
{
	int there = 0;
	size_t bytes, left;
	enum read_result result;

	/* Not more than what is there now: another writer might never stop. */
	ioctl(s->fd, FIONREAD, &there);
	left = there > 0 ? (size_t)there : 0;
	do {
		result = read_once(s, &bytes);
		if (bytes > left)
			break;
		left -= bytes;
	} while (result == READ_MORE);
	if (result == READ_FULL)
		wait_for_sink(s);
	return result == READ_ENDED;
}

/* --- life --------------------------------------------------------------------------------------
 */

static int make_prefix(struct logs_stream *s, const char *name)
{
	static const char *const colours[] = {"\033[36m", "\033[33m", "\033[32m", "\033[35m",
		"\033[34m", "\033[96m", "\033[93m", "\033[92m", "\033[95m", "\033[94m"};
	bool colour = s->sink && s->sink->colour;
	unsigned hash = 0;
	int n;

	/* Neighbours differ: of web:0, web:1, ... the last digit decides. */
	for (const char *c = name; *c; c++)
		hash = hash * 31 + (unsigned char)*c;
	n = asprintf(&s->prefix, "%s%s | %s",
		colour ? colours[hash % (sizeof(colours) / sizeof(colours[0]))] : "", name,
		colour ? "\033[0m" : "");
	if (n < 0) {
		s->prefix = NULL;
		return -1;
	}
	s->prefix_bytes = (size_t)n;
	return 0;
}

int logs_stream_open(struct logs *l, int fd, struct logs_sink *sink, const char *prefix,
	void (*ended)(void *context, struct logs_stream *s), void *context,
	struct logs_stream **ret_stream, struct err *e)
{
	struct logs_stream *s = calloc(1, sizeof(*s));

	if (!s)
		goto memory;
	s->logs = l;
	s->fd = fd;
	s->sink = sink;
	s->on_end = ended;
	s->context = context;
	if (prefix && make_prefix(s, prefix) != 0)
		goto memory;
	s->watch = loop_watch(l->loop, fd, LOOP_READ, on_readable, s);
	if (!s->watch)
		goto memory;
	if (sink)
		sink->streams++;
	s->next = l->streams;
	if (s->next)
		s->next->previous = s;
	l->streams = s;
	*ret_stream = s;
	return 0;
memory:
	if (s)
		free(s->prefix);
	free(s);
	return err_set(e, ERR_SYSTEM, "cannot read a worker's output: out of memory");
}

void logs_stream_detach(struct logs_stream *s)
{
	s->detached = true;
	if (s->ended)
		logs_stream_close(s);
}

/* All but the descriptor and the line that is held. */
static void stream_free(struct logs_stream *s)
{
	loop_unwatch(s->watch);
	stop_waiting(s);
	if (s->next)
		s->next->previous = s->previous;
	if (s->previous)
		s->previous->next = s->next;
	else
		s->logs->streams = s->next;
	if (s->sink) {
		s->sink->streams--;
		if (s->sink->writer == s)
			s->sink->writer = NULL;
		logs_sink_close(s->sink);
	}
	drop_partial(s);
	free(s->expect);
	free(s->prefix);
	free(s);
}

void logs_stream_close(struct logs_stream *s)
{
	if (!s)
		return;
	if (!s->ended)
		finish_line(s);
	close(s->fd);
	stream_free(s);
}

int stream_resume(struct logs_stream *s)
{
	s->watch = loop_watch(s->logs->loop, s->fd, LOOP_READ, on_readable, s);
	return s->watch != NULL ? 0 : -1;
}

bool streams_drain(struct logs *l)
{
	bool blocked = false;

	for (struct logs_stream *s = l->streams; s; s = s->next) {
		logs_stream_drain(s);
		blocked = blocked || (s->sink && sink_blocked(s->sink) && !s->sink->stuck);
	}
	return blocked;
}

void streams_release(struct logs *l)
{
	while (l->streams)
		logs_stream_close(l->streams);
}

int logs_pipe(int *ret_read, int *ret_write, struct err *e)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) != 0 || fcntl(fds[0], F_SETFL, O_RDONLY | O_NONBLOCK) != 0)
		return err_set(e, ERR_SYSTEM, "cannot make a pipe for a worker's output: %s",
			strerror(errno));
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

/* What commands write: whole lines to the log with the job's name, the last of it for the history.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "worker/jobs/runner_internal.h"

enum {
	READ_BYTES = 16384,
	LINE_BYTES = 65536,       /* a longer line is passed on in pieces */
	QUEUE_BYTES = 256 * 1024, /* held for the log; then the commands wait */
};

/* A log that takes nothing for so long does not stop the jobs: lines are dropped and counted. */
#define PATIENCE_NS (5 * RUNNER_SECOND_NS)

/* --- the tail ------------------------------------------------------------------------------ */
static bool tail_grow(struct task *t, size_t wanted, size_t most)
{
	size_t capacity = t->tail_capacity > 0 ? t->tail_capacity : 1024;
	char *tail;

	while (capacity < wanted)
		capacity *= 2;
	if (capacity > most)
		capacity = most;
	if (capacity <= t->tail_capacity || t->tail_start != 0)
		return true;
	tail = realloc(t->tail, capacity); /* it has not wrapped: it was never full */
	if (tail == NULL)
		return false;
	t->tail = tail;
	t->tail_capacity = capacity;
	return true;
}

static void tail_add(struct task *t, const char *bytes, size_t count)
{
	size_t most = t->definition->output_keep;

	if (t->hook || most == 0)
		return;
	if (count > most) {
		bytes += count - most;
		count = most;
	}
	if (t->tail_used + count > t->tail_capacity && !tail_grow(t, t->tail_used + count, most) &&
		t->tail_capacity == 0)
		return;
	if (count > t->tail_capacity) {
		bytes += count - t->tail_capacity;
		count = t->tail_capacity;
	}
	for (size_t done = 0; done < count;) {
		size_t at = (t->tail_start + t->tail_used) % t->tail_capacity;
		size_t piece = t->tail_capacity - at;

		if (piece > count - done)
			piece = count - done;
		memcpy(t->tail + at, bytes + done, piece);
		done += piece;
		t->tail_used += piece;
		if (t->tail_used > t->tail_capacity) {
			t->tail_start = (t->tail_start + t->tail_used - t->tail_capacity) %
					t->tail_capacity;
			t->tail_used = t->tail_capacity;
		}
	}
}

char *output_tail(const struct task *t, size_t *ret_bytes)
{
	char *text = t->tail_used > 0 ? malloc(t->tail_used) : NULL;
	size_t first;

	*ret_bytes = 0;
	if (text == NULL)
		return NULL;
	first = t->tail_capacity - t->tail_start;
	if (first > t->tail_used)
		first = t->tail_used;
	memcpy(text, t->tail + t->tail_start, first);
	memcpy(text + first, t->tail, t->tail_used - first);
	*ret_bytes = t->tail_used;
	return text;
}

/* --- the log ------------------------------------------------------------------------------- */
static bool reserve(struct text_queue *q, size_t more)
{
	size_t capacity = q->capacity > 0 ? q->capacity : 16384;
	char *bytes;

	if (q->start > 0 && (q->used == 0 || q->start + q->used + more > q->capacity)) {
		memmove(q->bytes, q->bytes + q->start, q->used);
		q->start = 0;
	}
	while (capacity < q->used + more)
		capacity *= 2;
	if (capacity == q->capacity)
		return true;
	bytes = realloc(q->bytes, capacity);
	if (bytes == NULL)
		return false;
	q->bytes = bytes;
	q->capacity = capacity;
	return true;
}

static void add(struct text_queue *q, const char *bytes, size_t count)
{
	memcpy(q->bytes + q->start + q->used, bytes, count);
	q->used += count;
}

void output_line(struct runner *r, const char *name, const char *text, size_t bytes)
{
	struct text_queue *q = &r->log;
	size_t length = strlen(name);

	if (q->dropping || !reserve(q, length + bytes + 4)) {
		q->dropped++;
		return;
	}
	add(q, name, length);
	add(q, " | ", 3);
	add(q, text, bytes);
	add(q, "\n", 1);
}

static bool is_full(const struct runner *r)
{
	return !r->log.dropping && r->log.used >= QUEUE_BYTES;
}

static void watch_tasks(struct runner *r, bool watch)
{
	for (int i = 0; i < r->task_slots; i++) {
		struct task *t = r->tasks[i];

		if (t == NULL || !t->used || t->out_fd < 0 || t->watched == watch)
			continue;
		t->watched = watch;
		runner_change(r, t->out_fd, SOURCE_TASK + (uint64_t)i, watch ? EPOLLIN : 0);
	}
}

static void say_dropped(struct runner *r)
{
	char text[96];
	int n = snprintf(text, sizeof text, "%lld lines of jobs dropped: the log did not take them",
		(long long)r->log.dropped);

	r->log.dropped = 0;
	output_line(r, "jobs", text, (size_t)n);
}

void output_flush(struct runner *r)
{
	struct text_queue *q = &r->log;
	bool blocked = false;

	while (q->used > 0 && !blocked) {
		ssize_t n = write(q->fd, q->bytes + q->start, q->used);

		if (n > 0) {
			q->start += (size_t)n;
			q->used -= (size_t)n;
			q->full_since_ns = 0;
		} else if (n < 0 && errno == EPIPE) {
			q->used = 0;
		} else {
			blocked = n == 0 || errno != EINTR;
		}
	}
	if (q->used == 0)
		q->start = 0;
	if (q->used < QUEUE_BYTES / 2) {
		q->dropping = false;
		watch_tasks(r, true);
		if (q->dropped > 0)
			say_dropped(r);
	} else if (is_full(r)) {
		if (q->full_since_ns == 0)
			q->full_since_ns = r->now.boot_ns;
		watch_tasks(r, false);
	}
	if (q->watched != (q->used > 0)) {
		q->watched = q->used > 0;
		runner_change(r, q->fd, SOURCE_LOG, q->watched ? EPOLLOUT : 0);
	}
}

void output_tick(struct runner *r)
{
	struct text_queue *q = &r->log;

	if (q->full_since_ns != 0 && r->now.boot_ns >= q->full_since_ns + PATIENCE_NS) {
		q->full_since_ns = 0;
		q->dropping = true;
		watch_tasks(r, true);
	}
	if (q->used > 0)
		output_flush(r);
}

int64_t output_next_ns(const struct runner *r)
{
	return r->log.full_since_ns != 0 ? r->log.full_since_ns + PATIENCE_NS : JOBS_NEVER;
}

/* --- lines --------------------------------------------------------------------------------- */
static void line_end(struct runner *r, struct task *t, const char *text, size_t bytes)
{
	char *whole;

	if (t->line_used == 0) {
		output_line(r, t->name, text, bytes);
		return;
	}
	if (t->line_used + bytes > t->line_capacity) {
		whole = realloc(t->line, t->line_used + bytes);
		if (whole == NULL)
			bytes = 0;
		else {
			t->line = whole;
			t->line_capacity = t->line_used + bytes;
		}
	}
	if (bytes > 0)
		memcpy(t->line + t->line_used, text, bytes);
	output_line(r, t->name, t->line, t->line_used + bytes);
	free(t->line);
	t->line = NULL;
	t->line_used = t->line_capacity = 0;
}

static void line_keep(struct runner *r, struct task *t, const char *text, size_t bytes)
{
	char *line;

	if (t->line_used + bytes >= LINE_BYTES) {
		line_end(r, t, text, bytes);
		return;
	}
	line = realloc(t->line, t->line_used + bytes);
	if (line == NULL)
		return;
	memcpy(line + t->line_used, text, bytes);
	t->line = line;
	t->line_used += bytes;
	t->line_capacity = t->line_used;
}

static void take(struct runner *r, struct task *t, const char *bytes, size_t count)
{
	t->out_bytes += (int64_t)count;
	tail_add(t, bytes, count);
	while (count > 0) {
		const char *end = memchr(bytes, '\n', count);
		size_t piece = end != NULL ? (size_t)(end - bytes) : count;

		if (end == NULL) {
			line_keep(r, t, bytes, piece);
			return;
		}
		line_end(r, t, bytes, piece);
		bytes += piece + 1;
		count -= piece + 1;
	}
}

/* ALL: what is in the pipe now, at its end. Else a piece: everybody gets a turn. */
void output_read(struct runner *r, struct task *t, bool all)
{
	char bytes[READ_BYTES];
	int rounds = all ? 1024 : 4; /* a pipe holds 16 MiB at most, usually 64 KiB */

	while (t->out_fd >= 0 && rounds-- > 0 && (all || !is_full(r))) {
		ssize_t n = read(t->out_fd, bytes, sizeof bytes);

		if (n > 0)
			take(r, t, bytes, (size_t)n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			output_close(r, t);
		else if (errno == EAGAIN)
			return;
	}
}

void output_close(struct runner *r, struct task *t)
{
	if (t->out_fd < 0)
		return;
	runner_unwatch(r, t->out_fd);
	close(t->out_fd);
	t->out_fd = -1;
	if (t->line_used > 0)
		line_end(r, t, "", 0);
}

void output_release(struct task *t)
{
	free(t->tail);
	free(t->line);
	t->tail = t->line = NULL;
}

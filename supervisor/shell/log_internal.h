/*
 * Inside of logs.h: what its five files share. log_format.c: an event as text, logfmt, JSON;
 * log_open.c: where output goes; log_sink.c: queues, what to do when it cannot; log_stream.c: the
 * workers' pipes, lines and prefixes; logs.c: baton's own log.
 */
#ifndef BATON_SHELL_LOG_INTERNAL_H
#define BATON_SHELL_LOG_INTERNAL_H

#include <time.h>

#include "supervisor/shell/logs.h"

#define LOG_READ_BYTES 65536 /* one read of a pipe */
#define LOG_LINE_BYTES 16384 /* one event of baton's own, whatever its format */

/* --- log_format.c: pure but for the time zone --------------------------------------------------
 */

struct log_line {
	char text[LOG_LINE_BYTES];
	size_t used;
	bool full; /* something did not fit */
};

struct log_event {
	enum logs_level level;
	const char *event, *message;
	const struct logs_field *fields;
	size_t field_count;
	struct timespec wall;
};

/* Each makes one whole line with its newline. */
void log_format_text(struct log_line *line, const struct log_event *event, bool colour);
void log_format_logfmt(struct log_line *line, const struct log_event *event);
void log_format_json(struct log_line *line, const struct log_event *event);

/* --- log_sink.c --------------------------------------------------------------------------------
 */

enum log_way {
	WAY_FILE,   /* regular: written directly */
	WAY_OWN,    /* a non-blocking description of our own */
	WAY_SOCKET, /* MSG_DONTWAIT */
	WAY_SHARED, /* a blocking description that others share: asked before each small write */
};

struct logs_sink {
	struct logs *logs;
	struct logs_sink *next, *previous;
	unsigned references;
	unsigned streams; /* that write here */
	bool own;         /* baton's own log goes here */

	int fd;
	char *path;  /* NULL = a descriptor that baton was given */
	int given;   /* that descriptor's number */
	int next_fd; /* -1, or the file to go on with from the next line on (logs_reopen) */
	enum log_way next_way;
	size_t next_bytes;
	uint64_t device, inode;
	enum log_way way;
	bool terminal, colour;

	bool gone;        /* the reader is gone for good: output is thrown away */
	bool stuck;       /* refused (disk full): tried again by logs_retry */
	int64_t retry_ns; /* CLOCK_MONOTONIC */

	bool mid_line; /* the last byte was no newline, it came from: */
	const void *writer;

	char *queue;
	size_t start, used, capacity;
	struct loop_watch *watch;
	struct logs_stream *waiting, *waiting_last;
	int place; /* log_state.c: among those that are saved */
};

/* Takes all of it: writes what can be written, queues the rest. WRITER = whose bytes they are. */
void sink_put(struct logs_sink *s, const void *data, size_t bytes, const void *writer);
/* Something is queued: whoever can wait does. */
bool sink_blocked(const struct logs_sink *s);
/* Write the queue if it is time to. */
void sink_retry(struct logs_sink *s, int64_t now_ns);
void sink_switch(struct logs_sink *s); /* to next_fd */
/* At the end: wait until the deadline (CLOCK_MONOTONIC) for all the queues. */
void sink_flush_all(struct logs *l, int64_t deadline_ns);
void sink_destroy(struct logs_sink *s);
/* After loading: goes on with its queue. */
void sink_resume(struct logs_sink *s);
int64_t log_monotonic_ns(void);

/* --- log_open.c --------------------------------------------------------------------------------
 */

int sink_identify(struct logs_sink *s, struct err *e);
void sink_reopen(struct logs_sink *s);

/* --- log_stream.c ------------------------------------------------------------------------------
 */

struct log_expect;

/* log_expect.c: looks through what has come, and passes nothing on. */
void expect_feed(struct logs_stream *s, const char *data, size_t bytes);

struct logs_stream {
	struct logs *logs;
	struct logs_stream *next, *previous;
	int fd;
	struct loop_watch *watch;
	struct logs_sink *sink; /* NULL = thrown away */
	char *prefix;           /* NULL = raw; as written, with its colour and " | " */
	size_t prefix_bytes;

	/* The beginning of a line whose end has not come; allocated only while there is one. */
	char *partial;
	size_t partial_bytes, partial_capacity;

	bool ended, detached;
	struct log_expect *expect; /* log_expect.c; NULL = nothing is looked for */
	size_t expect_at;          /* how much of the text the last bytes are */
	bool waits;                /* in its sink's list */
	struct logs_stream *waits_next, *waits_previous;
	void (*on_end)(void *context, struct logs_stream *s);
	void *context;
	int place; /* log_state.c */
};

/* Streams that wait for S are read again, the longest waiting first; or (LATER) by the loop. */
void streams_wake(struct logs_sink *s, bool later);
/* At the end: read what is there; true = some sink cannot take it yet. */
bool streams_drain(struct logs *l);
void streams_release(struct logs *l);
/* After loading: read by the loop. -1 = out of memory. */
int stream_resume(struct logs_stream *s);

/* --- logs.c ------------------------------------------------------------------------------------
 */

struct logs {
	struct loop *loop;
	struct logs_sink *sinks;
	struct logs_stream *streams;
	unsigned stuck; /* sinks that are */

	struct logs_sink *own;
	enum config_log_format format;
	enum logs_level level;
	int64_t dropped; /* lines of baton's own */
	bool colour_allowed;
	void (*tap)(void *context, const char *json_line, size_t bytes);
	void *tap_context;

	char *input, *output; /* LOG_READ_BYTES each, shared by all the streams */

	struct logs_stream **loaded; /* log_state.c: by place, until logs_load_end */
	size_t loaded_count;
};

/* The own log's sink has drained: say what was dropped meanwhile. */
void log_own_drained(struct logs *l);

#endif

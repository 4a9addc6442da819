/*
 * Output: baton's own event log, and the streams of the workers.
 *
 * Sinks never block the loop: baton's own standard output and error are written through a
 * description of our own where the kernel gives one (reopened by /proc/self/fd/N with O_NONBLOCK,
 * so that the terminal's shared description keeps its flags), sockets with MSG_DONTWAIT, regular
 * files directly. Each sink has a bounded queue (LOGS_SINK_BYTES); while a sink is full the pipes
 * of the workers that feed it are not read (they wait), and baton's own lines are dropped and
 * counted ("N lines of baton's own log dropped").
 */
#ifndef BATON_SHELL_LOGS_H
#define BATON_SHELL_LOGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "conf/config.h"
#include "supervisor/shell/loop.h"

#define LOGS_SINK_BYTES (256 * 1024)
#define LOGS_LINE_BYTES                                                                            \
	(64 * 1024) /* a longer line of a worker is passed on in pieces, none lost */

enum logs_level { LOGS_DEBUG, LOGS_INFO, LOGS_WARNING, LOGS_ERROR };

struct logs_field {
	const char *key;   /* [a-z_]+ */
	const char *value; /* NULL = the number */
	int64_t number;
};

struct logs;

int logs_create(struct loop *l, struct logs **ret_logs, struct err *e);
void logs_free(struct logs *l); /* flushes what can be written within 200 ms */
/* The file of baton's own log ("" = standard error), its format and level; may be called again (a
 * reload, USR1 with the same arguments reopens). On error the old one stays. LOG_DEFAULT = text on
 * a terminal, logfmt elsewhere. */
int logs_configure(struct logs *l, const char *path, enum config_log_format format,
	enum logs_level level, struct err *e);
int logs_level_parse(const char *name, enum logs_level *ret_level);

/*
 * One event: a stable name ("worker.running"), a sentence for people, fields. As text:
 * "05:30:01.123 info  web:0 is running (pid 123)"; as logfmt:
 * "time=2026-.. level=info event=worker.running msg=\"...\" worker=web:0 pid=123"; as JSON alike.
 * Every event, whatever the level, is also given to the tap (the control server's `events`) as one
 * JSON line {"event","time","level","message",fields...} when there is one.
 */
void logs_event(struct logs *l, enum logs_level level, const char *event,
	const struct logs_field *fields, size_t field_count, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
void logs_tap(struct logs *l, void (*tap)(void *context, const char *json_line, size_t bytes),
	void *context); /* NULL = nobody listens: no JSON is made; the line ends in a newline */
/* A sink that refused (disk full, file too large) keeps its queue and its streams wait: try again,
 * at most once a second. No timer of its own: to be called at heartbeats and before the loop
 * blocks; costs nothing while no sink is stuck. Events log.stuck, log.unstuck, once each. */
void logs_retry(struct logs *l);
bool logs_is_stuck(const struct logs *l); /* then there is something to try again */
/* Open the files of all sinks again by their paths (SIGUSR1, after a rotation); with whole lines in
 * the old file. What cannot be opened stays as it is, event log.reopen_failed. */
void logs_reopen(struct logs *l);

/* Where a worker's stream goes; kept and shared by path, counted. */
struct logs_sink;
/* KIND and PATH as in config.h; STANDARD = 1 or 2 (baton's own, for inherit and AUTO names).
 * AUTO: a file in DIRECTORY named "<NAME>-stdout---baton-<random>.log". OUTPUT_NONE gives NULL with
 * 0. Files are opened O_APPEND|O_CREAT 0644 and checked to be no directory. */
int logs_sink_open(struct logs *l, enum config_output kind, const char *path, int standard,
	const char *directory, const char *name, struct logs_sink **ret_sink, struct err *e);
void logs_sink_close(struct logs_sink *s); /* NULL is fine; the rest is flushed */
/* The file's path, "" when it has none (baton's own standard output); valid while it is open. */
const char *logs_sink_path(const struct logs_sink *s);

/* One more reference, to be closed as well; returns S. */
struct logs_sink *logs_sink_ref(struct logs_sink *s);

/* One stream of one worker process: a pipe's read end and the reference to SINK (both owned from
 * here on, unless it fails; SINK NULL = thrown away), split into whole lines, each prefixed with
 * "PREFIX | " (colour on a terminal) when PREFIX is not NULL. Without prefix bytes are passed on as
 * they come. A last line without newline gets one when prefixed. */
struct logs_stream;
int logs_stream_open(struct logs *l, int fd, struct logs_sink *sink, const char *prefix,
	void (*ended)(void *context, struct logs_stream *s), void *context,
	struct logs_stream **ret_stream, struct err *e);
/* SEEN once, when WORD (one line's, not empty) has come; bytes go on as they are. A later call
 * takes the place of an earlier one; SEEN NULL = not any more. */
void logs_stream_expect(
	struct logs_stream *s, const char *word, void (*seen)(void *context), void *context);
/* Read all that is there now, without waiting. true = end of file was reached. ENDED is not called
 * from here. Stops early (false) when its sink is full: detach it then. */
bool logs_stream_drain(struct logs_stream *s);
/* Its worker is dead and announced, but something still holds the pipe: goes on until end of file
 * by itself and frees itself; ENDED is not called any more. */
void logs_stream_detach(struct logs_stream *s);
void logs_stream_close(struct logs_stream *s); /* NULL is fine */
/* Its place among the streams of the last logs_save. */
int logs_stream_place(const struct logs_stream *s);

/* For an upgrade in place (log_state.c): all sinks with what they hold, all streams with the
 * beginnings of lines. logs_load fills fresh LOGS; the streams are then claimed by their places
 * (ENDED NULL = detached) and logs_load_end forgets the places. */
struct state_fds;
json_t *logs_save(struct logs *l, struct state_fds *fds);
int logs_load(struct logs *l, const json_t *o, struct err *e);
struct logs_stream *logs_claim_stream(struct logs *l, int place,
	void (*ended)(void *context, struct logs_stream *s), void *context);
void logs_load_end(struct logs *l);

/* A pipe for a worker: read end O_NONBLOCK|O_CLOEXEC, write end O_CLOEXEC (blocking). */
int logs_pipe(int *ret_read, int *ret_write, struct err *e);

#endif

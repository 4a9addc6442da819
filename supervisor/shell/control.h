/*
 * The control server: connections, framing, credentials, queues. What a request means is not
 * decided here (commands.c).
 *
 * A slow or silent client never delays anything: input at most CONTROL_REQUEST_BYTES a connection,
 * output at most CONTROL_QUEUE_BYTES queued (then that client is dropped), at most
 * CONTROL_CLIENTS connections (the next is told "busy" and closed); idle ones cost one descriptor.
 */
#ifndef BATON_SHELL_CONTROL_H
#define BATON_SHELL_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "conf/config.h"
#include "supervisor/shell/loop.h"

#define CONTROL_CLIENTS     1024
#define CONTROL_QUEUE_BYTES (4 * 1024 * 1024)

struct control;
struct control_connection;

struct control_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	bool trusted; /* root, the supervisor's own user, or control_owner */
};

/* An untrusted peer may only ask `is-executor` and `version`; all else is answered "refused" before
 * REQUEST sees it. Every request must be answered exactly once (control_answer, control_fail). A
 * connection may be given answers until CLOSED was called for it, also when its client is already
 * gone; CLOSED is never called from inside control_answer and its like, only from the loop. */
struct control_handlers {
	/* One request object (borrowed). ID is to be given back with the answer. */
	void (*request)(void *context, struct control_connection *from, uint64_t id,
		const char *cmd, json_t *request);
	/* The connection is gone: forget what waits for it. */
	void (*closed)(void *context, struct control_connection *gone);
	void *context;
};

/* Binds PATH (folder /run/baton and /tmp/baton-UID are made when they are the parent and missing,
 * 0700 resp. 0755 for root's). A socket of a living instance is refused (ERR_BUSY: "pid N has it"),
 * a dead one replaced. The greeting carries INSTANCE. */
int control_open(struct loop *l, const char *path, mode_t mode, const struct config_user *owner,
	const char *instance, const struct control_handlers *h, struct control **ret,
	struct err *e);
/* Flushes for at most 100 ms, unlinks if still ours; CLOSED is called for each connection. NULL is
 * fine. */
void control_server_close(struct control *c);
const char *control_path(const struct control *c);
/* The path is still our socket (somebody may have deleted it: bind again then). */
bool control_path_intact(const struct control *c);
/* Bind it again; the connections stay. On error the old one stays as it is. */
int control_rebind(struct control *c, struct err *e);

/* For an upgrade in place (control_state.c): the socket and its connections, with what they have
 * said and what they are still to be told. Connections are referred to by their places in the last
 * control_save (-1 = it ends, it was not saved). */
struct state_fds;
json_t *control_save(struct control *c, struct state_fds *fds);
int control_load(struct loop *l, const json_t *o, const struct control_handlers *h,
	struct control **ret, struct err *e);
int control_connection_place(const struct control_connection *c);
struct control_connection *control_connection_at(struct control *c, int place); /* NULL */

const struct control_peer *control_peer_of(const struct control_connection *c);
void control_answer(struct control_connection *c, uint64_t id, json_t *result); /* steals RESULT */
void control_fail(struct control_connection *c, uint64_t id, const char *code, const char *hint,
	json_t *extra /* members added to "error", stolen, may be NULL */, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
void control_progress(struct control_connection *c, uint64_t id, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* After this the connection gets every line given to control_broadcast. */
/* With more members for programs: "rollout": MORE (stolen). */
void control_progress_with(struct control_connection *c, uint64_t id, json_t *more,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
void control_subscribe(struct control_connection *c);
/* Clients that could not be accepted for want of a descriptor are tried again by then: once a round
 * of the loop, and when the time has come (0 = never). */
void control_check(struct control *c);
int64_t control_due(const struct control *c);
void control_broadcast(struct control *c, const char *json_line, size_t bytes);
size_t control_subscribers(const struct control *c);

#endif

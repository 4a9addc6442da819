/*
 * Inside of control.h: control.c is the server (path, accept), control_message.c what is said,
 * control_connection.c one connection (framing, queue, end).
 */
#ifndef BATON_SHELL_CONTROL_INTERNAL_H
#define BATON_SHELL_CONTROL_INTERNAL_H

#include <stddef.h>

#include "supervisor/shell/control.h"
#include "worker/control.h"

#define CONTROL_ROUND_REQUESTS 32          /* of one connection in one round of the loop */
#define CONTROL_QUEUE_PAUSE    (64 * 1024) /* while more is queued, no request is taken */

struct control_connection {
	struct control *server;
	struct control_connection *next, *previous;
	int fd;
	struct loop_watch *watch;
	struct control_peer peer;
	bool subscribed;
	bool ended;   /* the client sends no more; it may still read */
	bool closing; /* we take no more; closed once the queue is empty */
	bool dead;    /* to be destroyed by its own callback */
	size_t unanswered;

	/* Both allocated only while something is held. */
	char *input;
	size_t input_bytes, input_capacity;
	char *queue;
	size_t queue_start, queue_bytes, queue_capacity;
	int place; /* control_state.c: among those that are saved; -1 = it is not */
};

struct control {
	struct loop *loop;
	char path[108];
	char instance[64];
	mode_t mode;
	uid_t owner_uid;
	gid_t owner_gid;
	bool owner_set, group_set;
	int fd, spare_fd; /* the spare one is given up to turn a client away when none is left */
	uint64_t device, inode;
	struct loop_watch *watch;
	bool paused;      /* accept(2) failed for want of something */
	int64_t retry_ns; /* paused: when it is tried again */
	struct control_handlers handlers;
	struct control_connection *connections;
	size_t count, subscribers;
};

/* control_connection.c */
struct control_connection *connection_new(
	struct control *c, int fd, const struct control_peer *peer);
/* One line; its newline is added. STRICT: never more than CONTROL_QUEUE_BYTES queued, else an
 * answer may go beyond it by itself once. */
void connection_send(struct control_connection *n, const char *line, size_t bytes, bool strict);
/* After loading: watched, and in the list. -1 = out of memory. */
int connection_resume(struct control *c, struct control_connection *n);
void connection_destroy(struct control_connection *n);
bool connection_flush(struct control_connection *n); /* true = something is left */

/* control.c: its socket is watched. -1 = out of memory. */
int control_resume(struct control *c);
/* control_message.c: one line of a client, without its newline. */
void control_line(struct control_connection *n, const char *line, size_t bytes);
void control_too_long(struct control_connection *n);
void connection_send_json(struct control_connection *n, json_t *document); /* steals DOCUMENT */

/* control.c */
void control_connection_gone(struct control *c); /* one place is free */

#endif

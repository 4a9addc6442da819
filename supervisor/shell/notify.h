/*
 * sd_notify(3) from the workers: one datagram socket with SO_PASSCRED per instance, in a private
 * folder or abstract; the sender's pid (SCM_CREDENTIALS) is given with each message, the caller
 * checks it against its process trees. Also the way out: messages to baton's own NOTIFY_SOCKET.
 */
#ifndef BATON_SHELL_NOTIFY_H
#define BATON_SHELL_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "conf/err.h"
#include "supervisor/shell/loop.h"

struct notify_message {
	pid_t pid; /* of the sender, by the kernel's word */
	uid_t uid;
	bool ready, stopping, reloading, watchdog;
	int64_t extend_timeout_us; /* 0 = not said */
	pid_t mainpid;             /* 0 = not said */
	char status[256];          /* "" = not said; control characters replaced */
	bool has_status;
	const char *malformed; /* what was passed over; NULL = nothing */
};

struct notify;
/* The socket's address for NOTIFY_SOCKET is in notify_address(). RECEIVED is called for each
 * datagram; of one that is dropped (empty, oversized, with a NUL byte) it hears the sender and why.
 * Descriptors that a stranger attaches are closed. At most 64 datagrams a round are read. */
int notify_open(struct loop *l, const char *instance,
	void (*received)(void *context, const struct notify_message *m), void *context,
	struct notify **ret_notify, struct err *e);
const char *notify_address(const struct notify *n);
/* The file of the socket is still ours (somebody may have emptied the folder); true when abstract.
 */
bool notify_path_intact(const struct notify *n);
/* Datagrams dropped so far: malformed, oversized, without a sender. */
uint64_t notify_dropped(const struct notify *n);
/* For an upgrade in place: the same socket in the next image. */
struct state_fds;
json_t *notify_save(const struct notify *n, struct state_fds *fds);
int notify_load(struct loop *l, const json_t *o,
	void (*received)(void *context, const struct notify_message *m), void *context,
	struct notify **ret_notify, struct err *e);
void notify_close(struct notify *n); /* NULL is fine */
/* Now, without a word from the loop: what was said before a death comes before it. */
void notify_read(struct notify *n); /* NULL is fine */
/* Parse one datagram's text (pure; for tests). Lines that make no sense are passed over. 0 or
 * ERR_PROTOCOL: nothing of it counts. */
int notify_parse(const char *text, size_t bytes, struct notify_message *ret, struct err *e);
/* Send to our own NOTIFY_SOCKET (systemd above us); false when there is none. */
bool notify_parent(const char *text);

#endif

/*
 * Listening sockets ([socket:NAME]): one listener each, owned by the supervisor for its whole
 * life, shared by the workers (LISTEN_FDS).
 */
#ifndef BATON_SHELL_SOCKETS_H
#define BATON_SHELL_SOCKETS_H

#include "conf/config.h"

struct listener {
	int fd;                 /* -1 = closed; close-on-exec, O_NONBLOCK as bound by us */
	char text[256];         /* "127.0.0.1:8000" with the real port, "[::1]:80", "unix:/path" */
	char url[300];          /* "http://127.0.0.1:8000" for people; "" for unix */
	char path[108];         /* unix path to remove at the end, "" else */
	uint64_t device, inode; /* of that path */
	int backlog;
};

/* Bind and listen. A unix path: a dead socket there is replaced, a living one is an error ("in use
 * by pid N"), anything else than a socket is never removed. A port in use names who has it when
 * /proc tells (pid and name). Errors say what to do. */
int listener_open(struct listener *ret, const struct config_socket *s, struct err *e);
/* Remove the unix path if it is still ours; close. */
void listener_close(struct listener *l);
/* The file of a unix listener was deleted or replaced (gunicorn unlinks it): bind it again to the
 * same path and dup3 onto the same descriptor number is NOT possible for living workers; so this
 * only says whether it is still ours. */
bool listener_path_intact(const struct listener *l);
/* listen(2) again: a child may have lowered the backlog. */
void listener_reassert(struct listener *l);

#endif

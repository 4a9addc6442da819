/*
 * Listening sockets ([socket:NAME]): one listener each, owned by the supervisor for its whole
 * life, shared by the workers (LISTEN_FDS).
 */
#ifndef BATON_SHELL_SOCKETS_H
#define BATON_SHELL_SOCKETS_H

#include "conf/address.h"
#include "conf/config.h"

struct listener {               /* no pointers: an upgrade in place writes it down */
	int fd;                 /* -1 = closed; close-on-exec, O_NONBLOCK as bound by us */
	char text[256];         /* "127.0.0.1:8000" with the real port, "[::1]:80", "unix:/path" */
	char url[300];          /* "http://127.0.0.1:8000" for people; "" for unix */
	char path[108];         /* unix path to remove at the end, "" else */
	char spare[128];        /* another name of that file, by which it can be brought back; "" */
	uint64_t device, inode; /* of that path */
	int backlog;
	int addresses; /* that the host has; the first one is open */
	bool v6only;
};

extern bool privileges_dropped; /* root was given up: said with a reserved port */

/* Bind and listen. A unix path: a dead socket there is replaced, a living one is an error ("in use
 * by pid N"), anything else than a socket is never removed. A port in use names who has it when
 * /proc tells (pid and name). Errors say what to do. */
int listener_open(struct listener *ret, const struct config_socket *s, struct err *e);
/* Could listener_open open that unix socket? By looking alone: no file is made or removed. */
int listener_try_unix(const struct config_socket *s, struct err *e);
/* FD, which somebody else opened: no file of it is ever ours. Negative = no listening stream
 * socket, RET->fd = -1. */
int listener_adopt(struct listener *ret, int fd);
void listener_set_nodelay(const struct listener *l, const struct config_socket *s);
/* The host that must be looked up (conf/lookup.h) before it can be opened; "" = none. */
const char *listener_name_to_ask(const struct config_socket *s);
/* Remove the unix path if it is still ours; close. */
void listener_close(struct listener *l);
/* The file of a unix listener may be deleted, replaced or renamed (gunicorn unlinks it). */
bool listener_path_intact(const struct listener *l);
/* The same file under its path again, from its spare name: the same listener, nothing is lost. 0
 * also when nothing was missing. Never in the place of what is alive or no socket. */
int listener_restore(struct listener *l, struct err *e);
/* listen(2) again: a child may have lowered the backlog. */
void listener_reassert(struct listener *l);

#endif

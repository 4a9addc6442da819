/*
 * UNIX sockets that lie in the file system, for sockets, notify and control: is the one that is
 * there alive, whose is it, how to put ours in its place. Nothing here blocks.
 */
#ifndef BATON_SHELL_UNIXSOCK_H
#define BATON_SHELL_UNIXSOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "conf/config.h"
#include "conf/err.h"

/* PATH, with a leading '@' an abstract name. 0 or ERR_LIMIT. */
int unixsock_address(
	const char *path, struct sockaddr_un *ret, socklen_t *ret_bytes, struct err *e);

enum unixsock_state {
	UNIXSOCK_MISSING,
	UNIXSOCK_DEAD, /* a socket nobody listens on */
	UNIXSOCK_LIVING,
	UNIXSOCK_FOREIGN, /* no socket at all */
	UNIXSOCK_UNKNOWN, /* cannot be told (no permission): errno */
};
/* *RET_PID = who listens, 0 = not known. TYPE = SOCK_STREAM or SOCK_DGRAM. */
enum unixsock_state unixsock_probe(const char *path, int type, pid_t *ret_pid);

struct unixsock_wish {
	const char *path;
	mode_t mode;
	const struct config_user *owner; /* NULL = nobody else */
	int backlog;                     /* 0 = no listen(2): a datagram socket */
	bool rename; /* replace a dead one by rename(2), so that the path never misses; else by
		      * unlink(2), so that getsockname(2) tells the path itself */
};
/* Bind FD to it and listen. Never more open than MODE, not for a moment. ERR_BUSY: a living one is
 * there ("pid N (name) has it"); ERR_WRONG: something else is there; ERR_REFUSED: no permission;
 * ERR_UNAVAILABLE: its folder is missing. The device and inode of the path (0 when abstract). */
int unixsock_bind(int fd, int type, const struct unixsock_wish *wish, uint64_t *ret_device,
	uint64_t *ret_inode, struct err *e);
/* Would unixsock_bind succeed? By looking alone. */
int unixsock_try(int type, const struct unixsock_wish *wish, struct err *e);
/* Is the socket with that device and inode still at PATH? True for an abstract one. */
bool unixsock_intact(const char *path, uint64_t device, uint64_t inode);

/* The hidden name beside PATH; false = an abstract PATH, or no room. */
bool unixsock_spare(const char *path, char *buf, size_t bytes);
/* A second name of the socket at PATH beside it, hidden: RET_SPARE, "" where that cannot be (the
 * file system has no links, something else has the name). */
void unixsock_keep(
	const char *path, uint64_t device, uint64_t inode, char *ret_spare, size_t bytes);
/* PATH again from SPARE: the very same socket. ERR_BUSY: a living one of somebody else is there;
 * ERR_WRONG: something that is no socket; ERR_UNAVAILABLE: the spare is gone, too. */
int unixsock_restore(
	const char *path, const char *spare, uint64_t device, uint64_t inode, struct err *e);

/* "pid 123 (nginx)"; TEXT is returned. PID 0 = "another process". */
const char *unixsock_process(pid_t pid, char *text, size_t bytes);

/* The folder of PATH, when it is /run/baton or /tmp/baton-UID and missing, is made: 0755 when we
 * are root, 0700 otherwise. An existing /tmp/baton-UID that is not ours alone is ERR_WRONG. */
int unixsock_make_folder(const char *path, struct err *e);

#endif

#include "supervisor/shell/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/shell/control_internal.h"
#include "supervisor/shell/unixsock.h"
#include "worker/lease.h"

#define ACCEPT_ROUND 32 /* new clients in one round of the loop */
#define RETRY_NS     INT64_C(1000000000)
#define FLUSH_MS     100 /* at the end */
#define BACKLOG      128
#define GROUPS       256

/* --- accept -------------------------------------------------------------------------------------
 */

static bool in_group(int fd, gid_t wanted)
{
	gid_t groups[GROUPS];
	socklen_t bytes = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) != 0)
		return false;
	for (size_t i = 0; i < bytes / sizeof(groups[0]); i++) {
		if (groups[i] == wanted)
			return true;
	}
	return false;
}

static bool is_trusted(const struct control *c, int fd, const struct ucred *peer)
{
	if (peer->uid == 0 || peer->uid == geteuid())
		return true;
	if (c->owner_set && peer->uid == c->owner_uid)
		return true;
	/* A group that the file was given to on purpose: control_owner = user:group with a mode
	 * that lets it write. */
	return c->group_set && (c->mode & 0020) &&
	       (peer->gid == c->owner_gid || in_group(fd, c->owner_gid));
}

static void greet(struct control_connection *n)
{
	connection_send_json(
		n, json_pack("{s:s,s:i,s:i,s:s}", "baton", BATON_VERSION, "v", CONTROL_VERSION,
			   "pid", (int)getpid(), "instance", n->server->instance));
}

static void turn_away(int fd, const char *why)
{
	char text[256];
	int n = snprintf(text, sizeof(text),
		"{\"id\":0,\"ok\":false,\"error\":{\"code\":\"busy\",\"message\":\"%s\",\"hint\":"
		"\"try "
		"again in a moment\"}}\n",
		why);

	send(fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static void welcome(struct control *c, int fd)
{
	struct ucred peer = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
	socklen_t bytes = sizeof(peer);
	struct control_peer made;
	struct control_connection *n;

	if (c->count >= CONTROL_CLIENTS) {
		turn_away(fd, "too many control connections");
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) {
		close(fd);
		return;
	}
	made = (struct control_peer){.pid = peer.pid, .uid = peer.uid, .gid = peer.gid};
	made.trusted = is_trusted(c, fd, &peer);
	n = connection_new(c, fd, &made);
	if (!n)
		turn_away(fd, "out of memory");
	else
		greet(n);
}

/* No descriptor is left. Without taking the client off the queue the loop would spin. */
static void turn_away_with_spare(struct control *c)
{
	int fd;

	if (c->spare_fd >= 0) {
		close(c->spare_fd);
		fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			turn_away(fd, "no descriptor left");
		else if (errno == EAGAIN || errno == ECONNABORTED)
			fd = 0; /* it went away by itself */
		c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && c->spare_fd >= 0)
			return;
	}
	c->paused = true;
	c->retry_ns = lease_now_ns() + RETRY_NS;
	loop_watch_events(c->watch, 0);
}

static void on_client(void *context, unsigned events)
{
	struct control *c = context;

	(void)events;
	for (int i = 0; i < ACCEPT_ROUND; i++) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			welcome(c, fd);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			turn_away_with_spare(c);
		return;
	}
}

static void resume(struct control *c)
{
	if (!c->paused)
		return;
	c->paused = false;
	if (c->spare_fd < 0)
		c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	loop_watch_events(c->watch, LOOP_READ);
}

void control_broadcast(struct control *c, const char *json_line, size_t bytes)
{
	resume(c);
	if (bytes && json_line[bytes - 1] == '\n')
		bytes--;
	if (!c->subscribers)
		return;
	/* Sending takes no connection out of the list. */
	for (struct control_connection *n = c->connections; n; n = n->next) {
		if (n->subscribed)
			connection_send(n, json_line, bytes, true);
	}
}

int64_t control_due(const struct control *c)
{
	return c->paused ? c->retry_ns : 0;
}

void control_check(struct control *c)
{
	if (c->paused && lease_now_ns() >= c->retry_ns)
		resume(c);
}

void control_connection_gone(struct control *c)
{
	c->count--;
	resume(c);
}

/* --- the socket ---------------------------------------------------------------------------------
 */

static int bind_path(struct control *c, int *ret_fd, struct err *e)
{
	struct config_user owner = {
		.set = true, .uid = c->owner_uid, .gid = c->owner_gid, .name = "control_owner"};
	struct unixsock_wish wish = {
		.path = c->path,
		.mode = c->mode,
		.owner = c->owner_set ? &owner : NULL,
		.backlog = BACKLOG,
		.rename = true,
	};
	int rc = unixsock_make_folder(c->path, e), fd;

	if (rc != 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot make the control socket: %s", strerror(errno));
	rc = unixsock_bind(fd, SOCK_STREAM, &wish, &c->device, &c->inode, e);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int control_open(struct loop *l, const char *path, mode_t mode, const struct config_user *owner,
	const char *instance, const struct control_handlers *h, struct control **ret, struct err *e)
{
	struct control *c;
	int rc;

	if (strlen(path) >= sizeof(c->path))
		return err_set(e, ERR_LIMIT,
			"control socket path '%s' has %zu bytes; the kernel allows %zu: set "
			"'control' in [baton] to a shorter one",
			path, strlen(path), sizeof(c->path) - 1);
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, ERR_SYSTEM, "cannot make the control socket: out of memory");
	c->loop = l;
	c->mode = mode;
	c->handlers = *h;
	strcpy(c->path, path);
	snprintf(c->instance, sizeof(c->instance), "%s", instance);
	if (owner && owner->set) {
		c->owner_set = true;
		c->owner_uid = owner->uid;
		c->owner_gid = owner->gid;
		c->group_set = owner->group_set;
	}
	rc = bind_path(c, &c->fd, e);
	if (rc != 0) {
		free(c);
		return rc;
	}
	c->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	c->watch = loop_watch(l, c->fd, LOOP_READ, on_client, c);
	if (!c->watch) {
		control_server_close(c);
		return err_set(e, ERR_SYSTEM, "cannot make the control socket: out of memory");
	}
	*ret = c;
	return 0;
}

int control_resume(struct control *c)
{
	c->watch = loop_watch(c->loop, c->fd, c->paused ? 0 : LOOP_READ, on_client, c);
	return c->watch ? 0 : -1;
}

int control_rebind(struct control *c, struct err *e)
{
	struct loop_watch *watch;
	int fd, rc = bind_path(c, &fd, e);

	if (rc != 0)
		return rc;
	watch = loop_watch(c->loop, fd, LOOP_READ, on_client, c);
	if (!watch) {
		close(fd);
		return err_set(e, ERR_SYSTEM, "cannot watch the control socket: out of memory");
	}
	loop_unwatch(c->watch);
	close(c->fd);
	c->fd = fd;
	c->watch = watch;
	c->paused = false;
	return 0;
}

const char *control_path(const struct control *c)
{
	return c->path;
}

bool control_path_intact(const struct control *c)
{
	return unixsock_intact(c->path, c->device, c->inode);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void flush_all(struct control *c)
{
	int64_t end_ms = now_ms() + FLUSH_MS, left_ms;

	while ((left_ms = end_ms - now_ms()) > 0) {
		struct pollfd polled[64];
		nfds_t count = 0;

		for (struct control_connection *n = c->connections; n; n = n->next) {
			if (!n->dead && connection_flush(n) && count < 64)
				polled[count++] = (struct pollfd){.fd = n->fd, .events = POLLOUT};
		}
		if (!count)
			return;
		poll(polled, count, (int)left_ms);
	}
}

void control_server_close(struct control *c)
{
	if (!c)
		return;
	flush_all(c);
	if (c->path[0] != '@' && control_path_intact(c))
		unlink(c->path);
	while (c->connections)
		connection_destroy(c->connections);
	loop_unwatch(c->watch);
	close(c->fd);
	if (c->spare_fd >= 0)
		close(c->spare_fd);
	free(c);
}

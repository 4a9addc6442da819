#include "supervisor/shell/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/shell/control_internal.h"
#include "supervisor/shell/unixsock.h"

#define ACCEPT_ROUND 32  /* new clients in one round of the loop */
#define FLUSH_MS     100 /* at the end */
#define BACKLOG      128
#define GROUPS       256

/* --- sending ------------------------------------------------------------------------------------
 */

/* A string object of any bytes: what is no UTF-8 is shown as '?'. */
static json_t *make_text(const char *text)
{
	json_t *made = json_string(text);
	char *copy;

	if (made)
		return made;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *c = copy; *c; c++) {
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	}
	made = json_string(copy);
	free(copy);
	return made;
}

/* Steals DOCUMENT. */
static void send_json(struct control_connection *n, json_t *document)
{
	char *text = n->dead || !document ? NULL : json_dumps(document, JSON_COMPACT);

	if (text)
		connection_send(n, text, strlen(text), false);
	free(text);
	json_decref(document);
}

static void answered(struct control_connection *n)
{
	if (n->unanswered)
		n->unanswered--;
}

void control_answer(struct control_connection *n, uint64_t id, json_t *result)
{
	json_t *answer = json_pack("{s:I,s:b,s:o}", "id", (json_int_t)id, "ok", 1, "result",
		result ? result : json_object());

	answered(n);
	send_json(n, answer);
}

static void fail(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	json_t *extra, const char *format, va_list arguments)
{
	char message[2048];
	json_t *error = json_object();

	if (vsnprintf(message, sizeof(message), format, arguments) < 0)
		message[0] = '\0';
	json_object_set_new(error, "code", make_text(code));
	json_object_set_new(error, "message", make_text(message));
	if (hint)
		json_object_set_new(error, "hint", make_text(hint));
	if (extra)
		json_object_update(error, extra);
	json_decref(extra);
	send_json(n, json_pack("{s:I,s:b,s:o}", "id", (json_int_t)id, "ok", 0, "error", error));
}

void control_fail(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	json_t *extra, const char *format, ...)
{
	va_list arguments;

	answered(n);
	va_start(arguments, format);
	fail(n, id, code, hint, extra, format, arguments);
	va_end(arguments);
}

/* As control_fail, for what never became a request. */
static void reject(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	const char *format, ...) __attribute__((format(printf, 5, 6)));

static void reject(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fail(n, id, code, hint, NULL, format, arguments);
	va_end(arguments);
}

void control_progress(struct control_connection *n, uint64_t id, const char *format, ...)
{
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	if (vsnprintf(text, sizeof(text), format, arguments) < 0)
		text[0] = '\0';
	va_end(arguments);
	send_json(n, json_pack("{s:I,s:o}", "id", (json_int_t)id, "progress", make_text(text)));
}

void control_progress_with(
	struct control_connection *n, uint64_t id, json_t *more, const char *format, ...)
{
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	if (vsnprintf(text, sizeof(text), format, arguments) < 0)
		text[0] = '\0';
	va_end(arguments);
	send_json(n, json_pack("{s:I,s:o,s:o}", "id", (json_int_t)id, "progress", make_text(text),
			     "rollout", more ? more : json_null()));
}

void control_subscribe(struct control_connection *n)
{
	if (n->dead || n->subscribed)
		return;
	n->subscribed = true;
	n->server->subscribers++;
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

size_t control_subscribers(const struct control *c)
{
	return c->subscribers;
}

const struct control_peer *control_peer_of(const struct control_connection *n)
{
	return &n->peer;
}

/* --- requests -----------------------------------------------------------------------------------
 */

void control_too_long(struct control_connection *n)
{
	reject(n, 0, "usage", "one JSON object a line", "request longer than %d bytes",
		CONTROL_REQUEST_BYTES);
	n->closing = true;
}

static bool open_to_all(const char *cmd)
{
	return strcmp(cmd, "is-executor") == 0 || strcmp(cmd, "version") == 0;
}

static void refuse(struct control_connection *n, uint64_t id, const char *cmd)
{
	reject(n, id, "refused",
		"run it with sudo or as the user who started baton; control_owner and control_mode "
		"in [baton] let others in",
		"user %u may not ask for '%.100s'", (unsigned)n->peer.uid, cmd);
}

static void dispatch(struct control_connection *n, json_t *request)
{
	struct control *c = n->server;
	const json_t *id = json_object_get(request, "id"), *v = json_object_get(request, "v");
	const char *cmd = json_string_value(json_object_get(request, "cmd"));
	json_int_t number = json_integer_value(id);

	if (id && (!json_is_integer(id) || number < 0))
		reject(n, 0, "usage", NULL, "\"id\" must be a whole number from 0 on");
	else if (v && (!json_is_integer(v) || json_integer_value(v) != CONTROL_VERSION))
		reject(n, (uint64_t)number, "unsupported",
			"use the baton command of the same version as the supervisor",
			"this supervisor speaks version %d of the control protocol",
			CONTROL_VERSION);
	else if (!cmd)
		reject(n, (uint64_t)number, "usage", NULL, "\"cmd\" is missing or no string");
	else if (!n->peer.trusted && !open_to_all(cmd))
		refuse(n, (uint64_t)number, cmd);
	else {
		n->unanswered++;
		c->handlers.request(c->handlers.context, n, (uint64_t)number, cmd, request);
	}
}

void control_line(struct control_connection *n, const char *line, size_t bytes)
{
	json_error_t error;
	json_t *request;

	if (bytes && line[bytes - 1] == '\r')
		bytes--;
	if (!bytes)
		return;
	request = json_loadb(line, bytes, 0, &error);
	if (!request)
		reject(n, 0, "usage", "one JSON object a line", "not JSON: %s (byte %d)",
			error.text, error.position);
	else if (!json_is_object(request))
		reject(n, 0, "usage", "one JSON object a line", "a request must be a JSON object");
	else
		dispatch(n, request);
	json_decref(request);
}

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
	send_json(n, json_pack("{s:s,s:i,s:i,s:s}", "baton", BATON_VERSION, "v", CONTROL_VERSION,
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

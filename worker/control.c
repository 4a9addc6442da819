#include "worker/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	CHUNK_BYTES = 65536,
	ANSWER_BYTES_MAX = 256 * 1024 * 1024, /* whatever is longer is not an instance of baton */
	SEND_TIMEOUT_MS = 30000,
};

/* Waiting for a peer, not a lease: the monotonic clock, which stands still in a suspended machine,
 * as both of us do. */
static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t end_of(int64_t timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
}

static int wait_for(int fd, short events, int64_t end_ms, struct err *e)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		int64_t left = -1;
		int rc;

		if (end_ms >= 0) {
			left = end_ms - now_ms();
			if (left < 0)
				left = 0;
			if (left > 1000000)
				left = 1000000;
		}
		rc = poll(&p, 1, (int)left);
		if (rc > 0)
			return 0;
		if (rc < 0 && errno != EINTR)
			return err_set(e, ERR_SYSTEM, "cannot wait for the control socket: %s",
				strerror(errno));
		if (rc == 0 && end_ms >= 0 && now_ms() >= end_ms)
			return err_set(e, ERR_TIMEOUT, "no answer within the time allowed");
	}
}

static int connect_error(struct err *e, const char *path, int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
	case EPROTOTYPE:
		return err_set(e, ERR_NOT_RUNNING, "no instance listens on '%s': %s", path,
			strerror(error));
	case EACCES:
	case EPERM:
		return err_set(e, ERR_REFUSED, "not permitted to use the control socket '%s': %s",
			path, strerror(error));
	case EAGAIN:
	case EINPROGRESS:
		return err_set(e, ERR_TIMEOUT,
			"the instance on '%s' does not accept connections: its queue is full",
			path);
	default:
		return err_set(e, ERR_SYSTEM, "cannot connect to '%s': %s", path, strerror(error));
	}
}

/* The connection itself waits for a place in the listener's queue: SO_SNDTIMEO bounds that, which
 * a non-blocking connect() on a UNIX socket could only do by trying again and again. */
static int open_socket(const char *path, int64_t timeout_ms, int *ret_fd, struct err *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	int fd, rc;

	if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path))
		return err_set(e, ERR_LIMIT,
			"the path of the control socket '%s' is %s: at most %zu bytes fit", path,
			path[0] ? "too long" : "empty", sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot make a socket: %s", strerror(errno));
	if (timeout_ms == 0)
		limit.tv_usec = 1;
	if (timeout_ms >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	do
		rc = connect(fd, (struct sockaddr *)&address, sizeof(address));
	while (rc != 0 && errno == EINTR);
	if (rc != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
		rc = connect_error(e, path, errno);
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

/* An instance that cannot serve us says so in place of its greeting. */
static int check_greeting(const json_t *line, const char *path, struct err *e)
{
	const json_t *error = json_object_get(line, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	json_int_t version = json_integer_value(json_object_get(line, "v"));

	if (error)
		return err_set(e, code && strcmp(code, "busy") == 0 ? ERR_BUSY : ERR_REFUSED, "%s",
			message ? message : "the instance refused the connection");
	if (!json_is_string(json_object_get(line, "baton")))
		return err_set(e, ERR_PROTOCOL, "what listens on '%s' is not baton", path);
	if (version != CONTROL_VERSION)
		return err_set(e, ERR_PROTOCOL,
			"the instance on '%s' speaks version %lld of the control protocol, "
			"this binary version %d: use the binary that it was started from",
			path, (long long)version, CONTROL_VERSION);
	return 0;
}

int control_connect(struct control_client *c, const char *path, int64_t timeout_ms, struct err *e)
{
	int64_t end_ms = end_of(timeout_ms);
	json_t *greeting = NULL;
	int fd, rc;

	memset(c, 0, sizeof(*c));
	c->fd = -1;
	c->next_id = 1;
	rc = open_socket(path, timeout_ms, &fd, e);
	if (rc != 0)
		return rc;
	c->fd = fd;
	if (end_ms >= 0) {
		timeout_ms = end_ms - now_ms();
		if (timeout_ms < 0)
			timeout_ms = 0;
	}
	rc = control_receive(c, timeout_ms, &greeting, e);
	if (rc == 0)
		rc = check_greeting(greeting, path, e);
	if (rc == ERR_TIMEOUT)
		err_set(e, ERR_TIMEOUT,
			"the instance on '%s' does not answer: stopped or overloaded", path);
	if (rc != 0) {
		json_decref(greeting);
		control_close(c);
		return rc;
	}
	c->greeting = greeting;
	return 0;
}

void control_close(struct control_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buffer);
	json_decref(c->greeting);
	memset(c, 0, sizeof(*c));
	c->fd = -1;
}

static int send_all(int fd, const char *data, size_t bytes, struct err *e)
{
	int64_t end_ms = end_of(SEND_TIMEOUT_MS);

	while (bytes > 0) {
		ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
		int rc;

		if (sent >= 0) {
			data += sent;
			bytes -= (size_t)sent;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return err_set(e, ERR_NOT_RUNNING, "the instance closed the connection");
		if (errno != EAGAIN && errno != EINTR)
			return err_set(e, ERR_SYSTEM, "cannot write to the control socket: %s",
				strerror(errno));
		rc = wait_for(fd, POLLOUT, end_ms, e);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int control_send(struct control_client *c, json_t *request, struct err *e)
{
	char *text;
	size_t length;
	int rc;

	if (c->fd < 0)
		return err_set(e, ERR_NOT_RUNNING, "not connected");
	if (json_object_set_new(request, "v", json_integer(CONTROL_VERSION)) != 0 ||
		json_object_set_new(request, "id", json_integer((json_int_t)c->next_id)) != 0)
		return err_set(
			e, ERR_SYSTEM, "cannot make the request: what was given is not UTF-8");
	text = json_dumps(request, JSON_COMPACT);
	if (!text)
		return err_set(e, ERR_SYSTEM, "cannot make the request: out of memory");
	length = strlen(text);
	if (length + 1 > CONTROL_REQUEST_BYTES) {
		rc = err_set(e, ERR_LIMIT, "the request is too long: %zu bytes of at most %d",
			length + 1, CONTROL_REQUEST_BYTES);
	} else {
		text[length] = '\n'; /* in place of the NUL: sent by length */
		c->next_id++;
		rc = send_all(c->fd, text, length + 1, e);
	}
	free(text);
	return rc;
}

static int make_room(struct control_client *c, struct err *e)
{
	size_t capacity = c->capacity ? c->capacity * 2 : 2 * CHUNK_BYTES;
	char *buffer;

	if (c->capacity - c->used >= CHUNK_BYTES)
		return 0;
	if (c->used >= ANSWER_BYTES_MAX)
		return err_set(e, ERR_LIMIT, "a line of more than %d bytes on the control socket",
			ANSWER_BYTES_MAX);
	buffer = realloc(c->buffer, capacity);
	if (!buffer)
		return err_set(e, ERR_SYSTEM, "out of memory for the answer of the instance");
	c->buffer = buffer;
	c->capacity = capacity;
	return 0;
}

/* The first LENGTH bytes of the buffer are a line, its newline follows. */
static int take_line(struct control_client *c, size_t length, json_t **ret_line, struct err *e)
{
	json_error_t why;
	json_t *line = json_loadb(c->buffer, length, 0, &why);

	c->used -= length + 1;
	memmove(c->buffer, c->buffer + length + 1, c->used);
	if (json_is_object(line)) {
		*ret_line = line;
		return 0;
	}
	if (line) {
		json_decref(line);
		return err_set(e, ERR_PROTOCOL, "the instance sent a line that is not an object");
	}
	return err_set(e, ERR_PROTOCOL, "the instance sent a line that is not JSON: %s", why.text);
}

/* 0 = bytes came, or may have come by now. */
static int read_more(struct control_client *c, int64_t end_ms, struct err *e)
{
	ssize_t got;
	int rc = make_room(c, e);

	if (rc != 0)
		return rc;
	got = recv(c->fd, c->buffer + c->used, c->capacity - c->used, 0);
	if (got > 0) {
		c->used += (size_t)got;
		return 0;
	}
	if (got == 0 || errno == ECONNRESET)
		return err_set(e, ERR_NOT_RUNNING, "the instance closed the connection");
	if (errno != EAGAIN && errno != EINTR)
		return err_set(
			e, ERR_SYSTEM, "cannot read from the control socket: %s", strerror(errno));
	return wait_for(c->fd, POLLIN, end_ms, e);
}

int control_receive(struct control_client *c, int64_t timeout_ms, json_t **ret_line, struct err *e)
{
	int64_t end_ms = end_of(timeout_ms);
	size_t searched = 0;

	if (c->fd < 0)
		return err_set(e, ERR_NOT_RUNNING, "not connected");
	for (;;) {
		const char *end = NULL;
		int rc;

		if (c->used > searched)
			end = memchr(c->buffer + searched, '\n', c->used - searched);
		if (end)
			return take_line(c, (size_t)(end - c->buffer), ret_line, e);
		searched = c->used;
		rc = read_more(c, end_ms, e);
		if (rc != 0)
			return rc;
	}
}

int control_call(struct control_client *c, json_t *request, int64_t timeout_ms,
	void (*progress)(const json_t *line, void *context), void *context, json_t **ret_answer,
	struct err *e)
{
	int64_t end_ms = end_of(timeout_ms);
	json_int_t id;
	int rc = control_send(c, request, e);

	if (rc != 0)
		return rc;
	id = json_integer_value(json_object_get(request, "id"));
	for (;;) {
		int64_t left = end_ms < 0 ? -1 : end_ms - now_ms();
		json_t *line;
		const json_t *of;

		rc = control_receive(c, end_ms >= 0 && left < 0 ? 0 : left, &line, e);
		if (rc != 0)
			return rc;
		of = json_object_get(line, "id");
		if (json_is_integer(of) && json_integer_value(of) == id &&
			json_is_boolean(json_object_get(line, "ok"))) {
			*ret_answer = line;
			return 0;
		}
		if (progress)
			progress(line, context);
		json_decref(line);
	}
}

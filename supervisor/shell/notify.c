#include "supervisor/shell/notify.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/state_fields.h"
#include "supervisor/shell/unixsock.h"

#define ROUND_DATAGRAMS 64
#define DATAGRAM_BYTES  8192
#define SWEEP_MAX       1000
#define RIGHTS_MAX      253 /* SCM_MAX_FD of the kernel */

struct notify {
	struct loop *loop;
	int fd;
	struct loop_watch *watch;
	char address[108];
	uint64_t device, inode;
	void (*received)(void *context, const struct notify_message *m);
	void *context;
	uint64_t dropped;
};

/* --- parsing ------------------------------------------------------------------------------------
 */

static bool number_of(const char *text, size_t bytes, int64_t *ret)
{
	int64_t n = 0;

	if (!bytes || bytes > 18)
		return false;
	for (size_t i = 0; i < bytes; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n * 10 + (text[i] - '0');
	}
	*ret = n;
	return true;
}

static void set_status(struct notify_message *m, const char *text, size_t bytes)
{
	size_t n = bytes < sizeof(m->status) - 1 ? bytes : sizeof(m->status) - 1;

	/* Not in the middle of a character. */
	while (n < bytes && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		m->status[i] = c < 0x20 || c == 0x7f ? ' ' : text[i];
	}
	m->status[n] = '\0';
	m->has_status = true;
}

static bool is(const char *text, size_t bytes, const char *word)
{
	return strlen(word) == bytes && memcmp(text, word, bytes) == 0;
}

/* Values that make no sense are passed over, as systemd does; the rest of the message counts. */
static void assign(struct notify_message *m, const char *key, size_t key_bytes, const char *value,
	size_t bytes)
{
	bool one = is(value, bytes, "1");
	int64_t number;

	if (is(key, key_bytes, "READY"))
		m->ready = m->ready || one;
	else if (is(key, key_bytes, "STOPPING"))
		m->stopping = m->stopping || one;
	else if (is(key, key_bytes, "RELOADING"))
		m->reloading = m->reloading || one;
	else if (is(key, key_bytes, "WATCHDOG"))
		m->watchdog = m->watchdog || one;
	else if (is(key, key_bytes, "STATUS"))
		set_status(m, value, bytes);
	else if (is(key, key_bytes, "EXTEND_TIMEOUT_USEC") && number_of(value, bytes, &number))
		m->extend_timeout_us = number;
	else if (is(key, key_bytes, "MAINPID") && number_of(value, bytes, &number) && number > 0 &&
		 number <= INT_MAX)
		m->mainpid = (pid_t)number;
}

int notify_parse(const char *text, size_t bytes, struct notify_message *ret, struct err *e)
{
	struct notify_message m = {0};
	const char *end = text + bytes;

	/* sd_notify(3) by hand in C often sends the string's end along. */
	if (bytes && end[-1] == '\0')
		end--;
	if (end == text || memchr(text, '\0', (size_t)(end - text)))
		return err_set(e, ERR_PROTOCOL, "a notification that is empty or holds a NUL byte");
	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;
		const char *equals = memchr(text, '=', (size_t)(stop - text));

		if (stop > text && (!equals || equals == text))
			m.malformed = "not KEY=VALUE in every line";
		else if (stop > text)
			assign(&m, text, (size_t)(equals - text), equals + 1,
				(size_t)(stop - equals - 1));
		text = newline ? newline + 1 : end;
	}
	*ret = m;
	return 0;
}

/* --- receiving ----------------------------------------------------------------------------------
 */

/* The sender; every descriptor that came along is closed. */
static bool take_ancillary(struct msghdr *message, struct ucred *ret_sender)
{
	bool found = false;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS &&
			c->cmsg_len >= CMSG_LEN(sizeof(*ret_sender))) {
			memcpy(ret_sender, CMSG_DATA(c), sizeof(*ret_sender));
			found = ret_sender->pid > 0;
		} else if (c->cmsg_type == SCM_RIGHTS) {
			size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = 0; i < count; i++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
				close(fd);
			}
		}
	}
	return found;
}

/* False when there is nothing to read. */
static bool receive_one(
	struct notify *n, struct notify_message *ret, bool *ret_known, bool *ret_good)
{
	char text[DATAGRAM_BYTES];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(RIGHTS_MAX * sizeof(int)) +
			   64];
	} control;
	struct iovec part = {.iov_base = text, .iov_len = sizeof(text)};
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct ucred sender = {0};
	ssize_t got;

	do
		got = recvmsg(n->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
	while (got < 0 && errno == EINTR);
	*ret_good = false;
	if (got < 0)
		return false;
	*ret_known = take_ancillary(&message, &sender);
	memset(ret, 0, sizeof(*ret));
	if (message.msg_flags & MSG_TRUNC)
		ret->malformed = "longer than 8192 bytes";
	else if (notify_parse(text, (size_t)got, ret, NULL) != 0)
		ret->malformed = "empty, or with a NUL byte";
	else
		*ret_good = *ret_known;
	ret->pid = sender.pid;
	ret->uid = sender.uid;
	return true;
}

void notify_read(struct notify *n)
{
	struct notify_message message;
	bool known, good;

	for (int i = 0; n && i < ROUND_DATAGRAMS && receive_one(n, &message, &known, &good); i++) {
		n->dropped += !good;
		if (known)
			n->received(n->context, &message);
	}
}

static void on_datagram(void *context, unsigned events)
{
	(void)events;
	notify_read(context);
}

/* --- the socket ---------------------------------------------------------------------------------
 */

static int bind_path(struct notify *n, const char *path)
{
	/* Workers may run as other users; who sent is known from the kernel. */
	struct unixsock_wish wish = {.path = path, .mode = 0666};

	if (unixsock_make_folder(path, NULL) != 0)
		return -1;
	return unixsock_bind(n->fd, SOCK_DGRAM, &wish, &n->device, &n->inode, NULL);
}

/* What supervisors that were killed have left behind. */
static void sweep(const char *folder)
{
	char path[PATH_MAX];
	struct dirent *entry;
	struct stat st;
	pid_t pid;
	DIR *d = opendir(folder);

	for (int i = 0; d && i < SWEEP_MAX && (entry = readdir(d)); i++) {
		const char *name = entry->d_name;
		size_t bytes = strlen(name);

		if (strncmp(name, "notify-", 7) != 0 || bytes < 12 ||
			strcmp(name + bytes - 5, ".sock") != 0 ||
			snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path) ||
			lstat(path, &st) != 0 || st.st_uid != geteuid())
			continue;
		if (unixsock_probe(path, SOCK_DGRAM, &pid) == UNIXSOCK_DEAD)
			unlink(path);
	}
	if (d)
		closedir(d);
}

static bool try_folder(struct notify *n, const char *folder, size_t bytes, const char *instance)
{
	char path[PATH_MAX];
	struct stat st;
	int m = snprintf(path, sizeof(path), "%.*s/notify-%s.sock", (int)bytes, folder, instance);

	if (m < (int)sizeof(path) && geteuid() == 0) {
		path[bytes] = '\0';
		if (stat(path, &st) == 0 && !(st.st_mode & S_IXOTH))
			return false; /* another user's worker could not enter */
		path[bytes] = '/';
	}
	if (!bytes || folder[0] != '/' || m >= (int)sizeof(n->address) || bind_path(n, path) != 0)
		return false;
	memcpy(n->address, path, (size_t)m + 1);
	*strrchr(path, '/') = '\0';
	sweep(path);
	return true;
}

/*
 * In a folder, where a worker in a network namespace of its own reaches it, too. Where baton is not
 * root its workers are of its own user, and folders that nobody else can enter will do.
 */
static int choose_address(struct notify *n, const char *instance, struct err *e)
{
	const char *given = getenv("RUNTIME_DIRECTORY"), *session = getenv("XDG_RUNTIME_DIR");
	struct unixsock_wish wish = {.path = n->address};
	bool root = geteuid() == 0;
	char own[64];

	snprintf(own, sizeof(own), "/tmp/baton-%u", (unsigned)geteuid());
	if ((given && try_folder(n, given, strcspn(given, ":"), instance)) ||
		(root && try_folder(n, "/run/baton", strlen("/run/baton"), instance)) ||
		(!root && session && try_folder(n, session, strlen(session), instance)) ||
		try_folder(n, own, strlen(own), instance))
		return 0;
	snprintf(n->address, sizeof(n->address), "@baton-notify-%.80s", instance);
	return unixsock_bind(n->fd, SOCK_DGRAM, &wish, &n->device, &n->inode, e);
}

int notify_open(struct loop *l, const char *instance,
	void (*received)(void *context, const struct notify_message *m), void *context,
	struct notify **ret_notify, struct err *e)
{
	struct notify *n = calloc(1, sizeof(*n));
	int on = 1, rc;

	if (!n)
		return err_set(e, ERR_SYSTEM, "cannot make the notify socket: out of memory");
	n->loop = l;
	n->received = received;
	n->context = context;
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Before it has an address: no datagram without its sender. */
	if (n->fd < 0 || setsockopt(n->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0) {
		rc = err_set(e, ERR_SYSTEM, "cannot make the notify socket: %s", strerror(errno));
		goto out;
	}
	rc = choose_address(n, instance, e);
	if (rc != 0)
		goto out;
	n->watch = loop_watch(l, n->fd, LOOP_READ, on_datagram, n);
	if (!n->watch) {
		rc = err_set(e, ERR_SYSTEM, "cannot watch the notify socket: out of memory");
		goto out;
	}
	*ret_notify = n;
	return 0;
out:
	notify_close(n);
	return rc;
}

json_t *notify_save(const struct notify *n, struct state_fds *fds)
{
	state_fds_add(fds, n->fd);
	return json_pack("{s:i s:o s:I s:I s:I}", "fd", n->fd, "address",
		state_save_bytes(n->address, strlen(n->address)), "device", (json_int_t)n->device,
		"inode", (json_int_t)n->inode, "dropped", (json_int_t)n->dropped);
}

int notify_load(struct loop *l, const json_t *o,
	void (*received)(void *context, const struct notify_message *m), void *context,
	struct notify **ret_notify, struct err *e)
{
	struct notify *n = calloc(1, sizeof(*n));
	size_t bytes = 0;
	char *address = state_load_bytes(json_object_get(o, "address"), &bytes);
	json_int_t fd = json_integer_value(json_object_get(o, "fd"));

	if (!n || !address || bytes >= sizeof(n->address) || fd < 3 || fd > INT_MAX) {
		free(n);
		free(address);
		return err_set(e, ERR_WRONG, "there is no notify socket");
	}
	memcpy(n->address, address, bytes + 1);
	free(address);
	n->loop = l;
	n->fd = (int)fd;
	n->device = (uint64_t)json_integer_value(json_object_get(o, "device"));
	n->inode = (uint64_t)json_integer_value(json_object_get(o, "inode"));
	n->dropped = (uint64_t)json_integer_value(json_object_get(o, "dropped"));
	n->received = received;
	n->context = context;
	n->watch = loop_watch(l, n->fd, LOOP_READ, on_datagram, n);
	*ret_notify = n;
	return n->watch ? 0 : err_set(e, ERR_SYSTEM, "out of memory");
}

const char *notify_address(const struct notify *n)
{
	return n->address;
}

bool notify_path_intact(const struct notify *n)
{
	return unixsock_intact(n->address, n->device, n->inode);
}

uint64_t notify_dropped(const struct notify *n)
{
	return n->dropped;
}

void notify_close(struct notify *n)
{
	if (!n)
		return;
	loop_unwatch(n->watch);
	if (n->address[0] && n->address[0] != '@' && n->inode && notify_path_intact(n))
		unlink(n->address);
	if (n->fd >= 0)
		close(n->fd);
	free(n);
}

bool notify_parent(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address;
	socklen_t bytes;
	ssize_t sent;
	int fd;

	if (!path || (path[0] != '/' && path[0] != '@') ||
		unixsock_address(path, &address, &bytes, NULL) != 0)
		return false;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	sent = sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
		(struct sockaddr *)&address, bytes);
	close(fd);
	return sent >= 0;
}

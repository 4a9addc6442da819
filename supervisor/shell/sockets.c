#include "supervisor/shell/sockets.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf/lookup.h"
#include "supervisor/shell/unixsock.h"

/* --- who has the port ---------------------------------------------------------------------------
 */

bool privileges_dropped;

#define INODES 16 /* listeners on one port that are looked at */

/* The inodes of the sockets that listen on PORT, of /proc/net/tcp or tcp6. */
static size_t port_inodes(const char *path, unsigned port, unsigned long long *inodes, size_t count)
{
	FILE *f = fopen(path, "re");
	char line[512];

	if (!f)
		return count;
	while (count < INODES && fgets(line, sizeof(line), f)) {
		unsigned local, state;
		unsigned long long inode;

		if (sscanf(line,
			    "%*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %llu",
			    &local, &state, &inode) == 3 &&
			local == port && state == 0x0a && inode)
			inodes[count++] = inode;
	}
	fclose(f);
	return count;
}

static bool process_has(const char *pid, const unsigned long long *inodes, size_t count)
{
	char path[300], target[64];
	struct dirent *entry;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	d = opendir(path);
	if (!d)
		return false;
	while (!found && (entry = readdir(d))) {
		unsigned long long inode;
		ssize_t n = readlinkat(dirfd(d), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		if (sscanf(target, "socket:[%llu]", &inode) != 1)
			continue;
		for (size_t i = 0; i < count; i++)
			found = found || inodes[i] == inode;
	}
	closedir(d);
	return found;
}

/* 0 = nobody that we may see. */
static pid_t port_owner(unsigned port)
{
	unsigned long long inodes[INODES];
	size_t count = port_inodes("/proc/net/tcp", port, inodes, 0);
	struct dirent *entry;
	pid_t pid = 0;
	DIR *d;

	count = port_inodes("/proc/net/tcp6", port, inodes, count);
	if (count && process_has("self", inodes, count))
		return getpid();
	d = count ? opendir("/proc") : NULL;
	if (!d)
		return 0;
	while (!pid && (entry = readdir(d))) {
		if (isdigit((unsigned char)entry->d_name[0]) &&
			process_has(entry->d_name, inodes, count))
			pid = (pid_t)atoi(entry->d_name);
	}
	closedir(d);
	return pid;
}

/* --- TCP ----------------------------------------------------------------------------------------
 */

/* "" when it needs no asking: any address, numeric, localhost (RFC 6761: never a question to DNS).
 */
const char *listener_name_to_ask(const struct config_socket *s)
{
	unsigned char address[sizeof(struct in6_addr)];

	if (s->family == AF_UNIX || s->host[0] == '\0' || strcasecmp(s->host, "localhost") == 0 ||
		inet_pton(s->family, s->host, address) == 1 || strchr(s->host, '%') != NULL)
		return "";
	return s->host;
}

static int resolve(const struct config_socket *s, struct addrinfo **ret_list, int *ret_addresses,
	struct err *e)
{
	struct addrinfo hints = {
		.ai_family = s->family,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV,
	};
	const char *host = s->host[0] ? s->host : NULL;
	const struct lookup *l;
	char port[16];
	int rc;

	if (host && strcasecmp(host, "localhost") == 0)
		host = s->family == AF_INET6 ? "::1" : "127.0.0.1";
	if (listener_name_to_ask(s)[0]) {
		l = lookup(LOOKUP_HOST, s->family, s->host);
		if (!l || !l->found)
			return err_set(e, ERR_UNAVAILABLE, "cannot resolve '%s': %s", s->host,
				l ? l->home : "not looked up yet");
		host = l->name;
		hints.ai_family = AF_UNSPEC;
		*ret_addresses = l->addresses;
	}
	snprintf(port, sizeof(port), "%d", s->port);
	rc = getaddrinfo(host, port, &hints, ret_list);
	if (rc != 0)
		return err_set(e, ERR_UNAVAILABLE, "cannot resolve '%s': %s", s->host,
			rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
	return 0;
}

static int no_bind(const struct config_socket *s, const char *name, int why, struct err *e)
{
	char who[128];
	pid_t pid;

	switch (why) {
	case EADDRINUSE:
		pid = port_owner((unsigned)s->port);
		if (pid == getpid())
			return err_set(e, ERR_BUSY,
				"cannot listen on %s: in use by pid %d, this supervisor itself: "
				"two "
				"addresses that overlap cannot be open at once; leave one out of "
				"the file, or, if the other one is of the file before and kept "
				"until its workers are replaced, choose another port or restart "
				"baton",
				name, (int)pid);
		if (pid)
			return err_set(e, ERR_BUSY,
				"cannot listen on %s: in use by %s; stop it or choose another port",
				name, unixsock_process(pid, who, sizeof(who)));
		return err_set(e, ERR_BUSY,
			"cannot listen on %s: in use by a process that baton may not see; `ss "
			"-ltnp "
			"sport = :%d` as root names it",
			name, s->port);
	case EACCES:
	case EPERM:
		if (s->port >= 1024)
			return err_set(
				e, ERR_REFUSED, "cannot listen on %s: %s", name, strerror(why));
		if (privileges_dropped)
			return err_set(e, ERR_REFUSED,
				"cannot listen on %s: ports below 1024 are reserved, and baton "
				"gave up root when it started ([baton] user): restart baton, or "
				"choose a port from 1024 on",
				name);
		return err_set(e, ERR_REFUSED,
			"cannot listen on %s: ports below 1024 are reserved; start baton as root "
			"and "
			"set 'user' for the programs, or give it CAP_NET_BIND_SERVICE, or choose a "
			"port from 1024 on",
			name);
	case EADDRNOTAVAIL:
		return err_set(e, ERR_UNAVAILABLE,
			"cannot listen on %s: this machine has no such address; `ip addr` lists "
			"them",
			name);
	case EMFILE:
	case ENFILE:
		return err_set(e, ERR_LIMIT,
			"cannot listen on %s: %s: no descriptor is left; raise the limit (ulimit "
			"-n, LimitNOFILE=)",
			name, strerror(why));
	case EAFNOSUPPORT:
		return err_set(e, ERR_UNAVAILABLE,
			"cannot listen on %s: this machine has no IPv6; use an IPv4 address", name);
	default:
		return err_set(e, ERR_SYSTEM, "cannot listen on %s: %s", name, strerror(why));
	}
}

static int set_options(int fd, int family, const struct config_socket *s)
{
	int on = 1, v6only = s->v6only;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
		return -1;
	if (s->reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0)
		return -1;
	/* Accepted connections inherit it. */
	if (s->nodelay && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
		return -1;
	if (family == AF_INET6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) != 0)
		return -1;
	return 0;
}

static void describe(struct listener *l, const struct sockaddr *address, socklen_t bytes)
{
	char host[128], port[16];
	bool v6 = address->sa_family == AF_INET6, any;

	if (getnameinfo(address, bytes, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		strcpy(host, "?"), strcpy(port, "?");
	any = strcmp(host, v6 ? "::" : "0.0.0.0") == 0;
	snprintf(l->text, sizeof(l->text), v6 ? "[%s]:%s" : "%s:%s", host, port);
	/* A person can open this one. */
	if (any)
		snprintf(l->url, sizeof(l->url), "http://%s:%s", v6 ? "[::1]" : "127.0.0.1", port);
	else
		snprintf(l->url, sizeof(l->url), "http://%s", l->text);
}

static int open_address(
	struct listener *l, const struct config_socket *s, const struct addrinfo *a, struct err *e)
{
	struct sockaddr_storage bound;
	socklen_t bytes = sizeof(bound);

	describe(l, a->ai_addr, a->ai_addrlen); /* for messages, until it is bound */
	l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || set_options(l->fd, a->ai_family, s) != 0 ||
		bind(l->fd, a->ai_addr, a->ai_addrlen) != 0 || listen(l->fd, s->backlog) != 0 ||
		getsockname(l->fd, (struct sockaddr *)&bound, &bytes) != 0) {
		int why = errno;
		if (l->fd >= 0)
			close(l->fd);
		l->fd = -1;
		return no_bind(s, l->text, why, e);
	}
	describe(l, (struct sockaddr *)&bound, bytes);
	return 0;
}

static int open_tcp(struct listener *l, const struct config_socket *s, struct err *e)
{
	struct addrinfo *list;
	int rc = resolve(s, &list, &l->addresses, e);

	if (rc != 0)
		return rc;
	/* One listener each: the first of the name's addresses. */
	rc = open_address(l, s, list, e);
	freeaddrinfo(list);
	return rc;
}

/* --- UNIX ---------------------------------------------------------------------------------------
 */

/* Servers that remove the socket as they end (gunicorn) ask getsockname(2) for its name. So it is
 * bound to the hidden one, which nobody else needs, and its path is a second name: never missing.
 */
static int bind_hidden(struct listener *l, const struct unixsock_wish *wish, struct err *e)
{
	struct unixsock_wish hidden = *wish;
	char spare[sizeof(l->spare)];
	int rc;

	if (!unixsock_spare(wish->path, spare, sizeof(((struct sockaddr_un *)0)->sun_path)))
		return unixsock_bind(l->fd, SOCK_STREAM, wish, &l->device, &l->inode, e);
	hidden.path = spare;
	rc = unixsock_bind(l->fd, SOCK_STREAM, &hidden, &l->device, &l->inode, e);
	if (rc != 0)
		return rc;
	rc = unixsock_restore(wish->path, spare, l->device, l->inode, e);
	if (rc != 0)
		unlink(spare);
	else
		strcpy(l->spare, spare);
	return rc;
}

static struct unixsock_wish wish_of(const struct config_socket *s)
{
	return (struct unixsock_wish){
		.path = s->path,
		.mode = s->mode,
		.owner = &s->owner,
		.backlog = s->backlog,
	};
}

int listener_try_unix(const struct config_socket *s, struct err *e)
{
	struct unixsock_wish wish = wish_of(s);

	return unixsock_try(SOCK_STREAM, &wish, e);
}

static int open_unix(struct listener *l, const struct config_socket *s, struct err *e)
{
	struct unixsock_wish wish = wish_of(s);
	int rc;

	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot make socket '%s': %s", s->path, strerror(errno));
	rc = s->unlinked ? bind_hidden(l, &wish, e)
			 : unixsock_bind(l->fd, SOCK_STREAM, &wish, &l->device, &l->inode, e);
	if (rc != 0) {
		close(l->fd);
		l->fd = -1;
		return rc;
	}
	snprintf(l->text, sizeof(l->text), "unix:%s", s->path);
	if (s->path[0] != '@') {
		snprintf(l->path, sizeof(l->path), "%s", s->path);
		if (l->spare[0] == '\0')
			unixsock_keep(l->path, l->device, l->inode, l->spare, sizeof(l->spare));
	}
	return 0;
}

/* --- interface ----------------------------------------------------------------------------------
 */

int listener_open(struct listener *ret, const struct config_socket *s, struct err *e)
{
	struct listener l = {.fd = -1, .backlog = s->backlog, .v6only = s->v6only};
	int rc;

	assert(s->backlog > 0);
	rc = s->family == AF_UNIX ? open_unix(&l, s, e) : open_tcp(&l, s, e);
	if (rc != 0)
		return rc;
	*ret = l;
	return 0;
}

static void describe_unix(struct listener *l, const struct sockaddr_un *a, socklen_t bytes)
{
	int n = (int)bytes - (int)offsetof(struct sockaddr_un, sun_path);

	if (n > 0 && a->sun_path[0] == '\0')
		snprintf(l->text, sizeof(l->text), "unix:@%.*s", n - 1, a->sun_path + 1);
	else
		snprintf(l->text, sizeof(l->text), "unix:%.*s", n > 0 ? n : 0, a->sun_path);
}

int listener_adopt(struct listener *ret, int fd)
{
	struct sockaddr_storage address;
	socklen_t bytes = sizeof(address), int_bytes = sizeof(int);
	int type = 0, listens = 0, v6only = 0;

	*ret = (struct listener){.fd = -1, .backlog = SOMAXCONN};
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_bytes) != 0 || type != SOCK_STREAM ||
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_bytes) != 0 || !listens ||
		getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
		return -1;
	if (address.ss_family == AF_UNIX)
		describe_unix(ret, (struct sockaddr_un *)&address, bytes);
	else if (address.ss_family == AF_INET || address.ss_family == AF_INET6)
		describe(ret, (struct sockaddr *)&address, bytes);
	else
		return -1;
	if (address.ss_family == AF_INET6)
		(void)getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &int_bytes);
	ret->v6only = v6only != 0;
	ret->fd = fd;
	return 0;
}

void listener_set_nodelay(const struct listener *l, const struct config_socket *s)
{
	int on = s->nodelay;

	if (strncmp(l->text, "unix:", 5) != 0)
		(void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void listener_close(struct listener *l)
{
	if (l->fd < 0)
		return;
	if (l->path[0] && listener_path_intact(l))
		unlink(l->path);
	if (l->spare[0] && unixsock_intact(l->spare, l->device, l->inode))
		unlink(l->spare);
	close(l->fd);
	l->fd = -1;
}

int listener_restore(struct listener *l, struct err *e)
{
	int rc = 0;

	if (l->path[0] == '\0')
		return 0;
	if (!listener_path_intact(l))
		rc = unixsock_restore(l->path, l->spare, l->device, l->inode, e);
	if (rc == 0 && !unixsock_intact(l->spare, l->device, l->inode))
		unixsock_keep(l->path, l->device, l->inode, l->spare, sizeof(l->spare));
	return rc;
}

bool listener_path_intact(const struct listener *l)
{
	return unixsock_intact(l->path, l->device, l->inode);
}

void listener_reassert(struct listener *l)
{
	if (l->fd >= 0)
		listen(l->fd, l->backlog);
}

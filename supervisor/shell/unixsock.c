#include "supervisor/shell/unixsock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TRIES 50 /* of a millisecond */

int unixsock_address(const char *path, struct sockaddr_un *ret, socklen_t *ret_bytes, struct err *e)
{
	size_t n = strlen(path);

	if (n == 0 || n >= sizeof(ret->sun_path))
		return err_set(e, ERR_LIMIT,
			"socket path '%s' has %zu bytes; the kernel allows 1 to %zu: choose a "
			"shorter one",
			path, n, sizeof(ret->sun_path) - 1);
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, path, n);
	*ret_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	if (path[0] == '@') {
		ret->sun_path[0] = '\0';
		--*ret_bytes;
	}
	return 0;
}

const char *unixsock_process(pid_t pid, char *text, size_t bytes)
{
	char path[64], name[64];
	ssize_t n = -1;
	int fd;

	if (pid <= 0) {
		snprintf(text, bytes, "another process");
		return text;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, name, sizeof(name) - 1);
		close(fd);
	}
	if (n > 0) {
		name[n] = '\0';
		name[strcspn(name, "\n")] = '\0';
		snprintf(text, bytes, "pid %d (%s)", (int)pid, name);
	} else {
		snprintf(text, bytes, "pid %d", (int)pid);
	}
	return text;
}

enum unixsock_state unixsock_probe(const char *path, int type, pid_t *ret_pid)
{
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t bytes, peer_bytes = sizeof(peer);
	struct stat st;
	enum unixsock_state state;
	int fd, why = 0;

	*ret_pid = 0;
	if (path[0] != '@' && lstat(path, &st) != 0)
		return errno == ENOENT ? UNIXSOCK_MISSING : UNIXSOCK_UNKNOWN;
	if (path[0] != '@' && !S_ISSOCK(st.st_mode))
		return UNIXSOCK_FOREIGN;
	if (unixsock_address(path, &address, &bytes, NULL) != 0)
		return UNIXSOCK_UNKNOWN;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return UNIXSOCK_UNKNOWN;
	if (connect(fd, (struct sockaddr *)&address, bytes) == 0) {
		state = UNIXSOCK_LIVING;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) == 0)
			*ret_pid = peer.pid;
	} else {
		why = errno;
		if (why == ECONNREFUSED)
			state = path[0] == '@' ? UNIXSOCK_MISSING : UNIXSOCK_DEAD;
		else if (why == ENOENT)
			state = UNIXSOCK_MISSING;
		else if (why == EAGAIN || why == EPROTOTYPE)
			state = UNIXSOCK_LIVING; /* its queue is full; it is of another type */
		else
			state = UNIXSOCK_UNKNOWN;
	}
	close(fd);
	errno = why;
	return state;
}

/* Two that start at once must not both find the same dead socket and replace each other: who looks
 * and replaces holds its folder, for microseconds. Anybody may hold a folder like /tmp for ever:
 * the wait is bounded, and only there when two meet. */
static int lock_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd, n = slash == path ? 1 : (int)(slash ? slash - path : 0);

	if (path[0] == '@')
		return -1;
	snprintf(folder, sizeof(folder), "%.*s", n ? n : 1, n ? path : ".");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) != 0; i++)
		poll(NULL, 0, 1);
	return fd;
}

static int busy(const char *path, pid_t pid, struct err *e)
{
	char who[128];

	return err_set(e, ERR_BUSY, "socket '%s' is in use by %s; stop it or choose another path",
		path, unixsock_process(pid, who, sizeof(who)));
}

static int refused(const char *path, int why, struct err *e)
{
	if (why == ENOENT)
		return err_set(e, ERR_UNAVAILABLE,
			"cannot make socket '%s': its folder does not exist; make it first", path);
	return err_set(e, why == EACCES || why == EPERM || why == EROFS ? ERR_REFUSED : ERR_SYSTEM,
		"cannot make socket '%s': %s", path, strerror(why));
}

static int foreign(const char *path, struct err *e)
{
	return err_set(e, ERR_WRONG,
		"cannot make socket '%s': something that is no socket is there; move it away or "
		"choose another path",
		path);
}

static int not_given(const struct unixsock_wish *w, int why, struct err *e)
{
	return err_set(e, ERR_REFUSED,
		"cannot give socket '%s' to user '%s': %s; only root may give sockets away",
		w->path, w->owner->name, strerror(why));
}

/* Mode, owner, listen(2) on what is bound at AT. */
static int finish(int fd, const char *at, const struct unixsock_wish *w, uint64_t *ret_device,
	uint64_t *ret_inode, struct err *e)
{
	const struct config_user *owner = w->owner;
	struct stat st;

	if (owner && owner->set && lchown(at, owner->uid, owner->gid) != 0)
		return not_given(w, errno, e);
	if (chmod(at, w->mode) != 0 || lstat(at, &st) != 0)
		return refused(w->path, errno, e);
	if (w->backlog && listen(fd, w->backlog) != 0)
		return err_set(e, ERR_SYSTEM, "cannot listen on socket '%s': %s", w->path,
			strerror(errno));
	*ret_device = st.st_dev;
	*ret_inode = st.st_ino;
	return 0;
}

static int bind_at(int fd, const char *at, struct err *e)
{
	struct sockaddr_un address;
	socklen_t bytes;
	int rc = unixsock_address(at, &address, &bytes, e);

	if (rc != 0)
		return rc;
	if (bind(fd, (struct sockaddr *)&address, bytes) != 0)
		return errno == EADDRINUSE ? err_set(e, ERR_BUSY, "in use") : refused(at, errno, e);
	return 0;
}

static int bind_abstract(int fd, int type, const struct unixsock_wish *w, uint64_t *ret_device,
	uint64_t *ret_inode, struct err *e)
{
	pid_t pid;
	int rc = bind_at(fd, w->path, e);

	if (rc == ERR_BUSY) {
		unixsock_probe(w->path, type, &pid);
		return busy(w->path, pid, e);
	}
	if (rc == 0 && w->backlog && listen(fd, w->backlog) != 0)
		return err_set(e, ERR_SYSTEM, "cannot listen on socket '%s': %s", w->path,
			strerror(errno));
	*ret_device = *ret_inode = 0;
	return rc;
}

/* A dead socket is there. */
static int replace(int fd, const struct unixsock_wish *w, uint64_t *ret_device, uint64_t *ret_inode,
	struct err *e)
{
	char temporary[sizeof(((struct sockaddr_un *)0)->sun_path) + 16];
	int rc;

	snprintf(temporary, sizeof(temporary), "%s.%d", w->path, (int)(getpid() % 1000000));
	if (!w->rename || strlen(temporary) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		if (unlink(w->path) != 0 && errno != ENOENT)
			return refused(w->path, errno, e);
		rc = bind_at(fd, w->path, e);
		return rc ? rc : finish(fd, w->path, w, ret_device, ret_inode, e);
	}
	unlink(temporary);
	rc = bind_at(fd, temporary, e);
	if (rc == 0)
		rc = finish(fd, temporary, w, ret_device, ret_inode, e);
	if (rc == 0 && rename(temporary, w->path) != 0)
		rc = refused(w->path, errno, e);
	if (rc != 0)
		unlink(temporary);
	return rc;
}

static int bind_locked(int fd, int type, const struct unixsock_wish *w, uint64_t *ret_device,
	uint64_t *ret_inode, struct err *e)
{
	pid_t pid;
	int rc = bind_at(fd, w->path, e);

	if (rc == 0) {
		rc = finish(fd, w->path, w, ret_device, ret_inode, e);
		if (rc != 0)
			unlink(w->path);
		return rc;
	}
	if (rc != ERR_BUSY)
		return rc;
	switch (unixsock_probe(w->path, type, &pid)) {
	case UNIXSOCK_LIVING:
		return busy(w->path, pid, e);
	case UNIXSOCK_FOREIGN:
		return foreign(w->path, e);
	case UNIXSOCK_UNKNOWN:
		return err_set(e, ERR_REFUSED, "cannot tell whether socket '%s' is in use: %s",
			w->path, strerror(errno));
	case UNIXSOCK_MISSING:
	case UNIXSOCK_DEAD:
		break;
	}
	return replace(fd, w, ret_device, ret_inode, e);
}

int unixsock_bind(int fd, int type, const struct unixsock_wish *wish, uint64_t *ret_device,
	uint64_t *ret_inode, struct err *e)
{
	int folder, rc;

	if (wish->path[0] == '@')
		return bind_abstract(fd, type, wish, ret_device, ret_inode, e);
	/* On Linux the mode of the unbound socket, less the umask, becomes that of the file. */
	fchmod(fd, wish->mode);
	folder = lock_folder(wish->path);
	rc = bind_locked(fd, type, wish, ret_device, ret_inode, e);
	if (folder >= 0)
		close(folder);
	return rc;
}

int unixsock_try(int type, const struct unixsock_wish *w, struct err *e)
{
	const char *slash = strrchr(w->path, '/');
	struct sockaddr_un address;
	char folder[PATH_MAX];
	socklen_t bytes;
	pid_t pid;
	int rc = unixsock_address(w->path, &address, &bytes, e);

	if (rc != 0)
		return rc;
	switch (unixsock_probe(w->path, type, &pid)) {
	case UNIXSOCK_LIVING:
		return busy(w->path, pid, e);
	case UNIXSOCK_FOREIGN:
		return foreign(w->path, e);
	case UNIXSOCK_UNKNOWN:
		return err_set(e, ERR_REFUSED, "cannot tell whether socket '%s' is in use: %s",
			w->path, strerror(errno));
	case UNIXSOCK_MISSING:
	case UNIXSOCK_DEAD:
		break;
	}
	if (w->path[0] == '@')
		return 0;
	snprintf(folder, sizeof(folder), "%.*s",
		slash == w->path ? 1 : (int)(slash ? slash - w->path : 0), w->path);
	if (faccessat(AT_FDCWD, slash ? folder : ".", W_OK | X_OK, AT_EACCESS) != 0)
		return refused(w->path, errno, e);
	if (w->owner && w->owner->set && w->owner->uid != geteuid() && geteuid() != 0)
		return not_given(w, EPERM, e);
	return 0;
}

bool unixsock_intact(const char *path, uint64_t device, uint64_t inode)
{
	struct stat st;

	return !path[0] || path[0] == '@' ||
	       (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == device &&
		       st.st_ino == inode);
}

bool unixsock_spare(const char *path, char *buf, size_t bytes)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;

	return path[0] != '@' &&
	       snprintf(buf, bytes, "%.*s.%s.baton", (int)(base - path), path, base) < (int)bytes;
}

/* A socket whose last name was removed cannot be given one again: so it has two from the start. */
void unixsock_keep(const char *path, uint64_t device, uint64_t inode, char *ret_spare, size_t bytes)
{
	char spare[PATH_MAX];
	pid_t pid;

	*ret_spare = '\0';
	if (!unixsock_spare(path, spare, bytes < sizeof(spare) ? bytes : sizeof(spare)))
		return;
	if (link(path, spare) != 0) {
		if (errno != EEXIST || unixsock_probe(spare, SOCK_STREAM, &pid) != UNIXSOCK_DEAD ||
			unlink(spare) != 0 || link(path, spare) != 0)
			return;
	}
	if (unixsock_intact(spare, device, inode))
		snprintf(ret_spare, bytes, "%s", spare);
}

/* Over a dead socket: it may be replaced at any time, also by us. */
static int link_over(const char *path, const char *spare, struct err *e)
{
	char temporary[PATH_MAX];

	snprintf(temporary, sizeof(temporary), "%s.%d", spare, (int)getpid());
	unlink(temporary);
	if (link(spare, temporary) != 0 || rename(temporary, path) != 0) {
		int why = errno;
		unlink(temporary);
		return refused(path, why, e);
	}
	return 0;
}

static int restore_locked(const char *path, const char *spare, struct err *e)
{
	pid_t pid;

	if (link(spare, path) == 0)
		return 0;
	if (errno != EEXIST)
		return refused(path, errno, e);
	switch (unixsock_probe(path, SOCK_STREAM, &pid)) {
	case UNIXSOCK_DEAD:
		return link_over(path, spare, e);
	case UNIXSOCK_LIVING:
		return busy(path, pid, e);
	case UNIXSOCK_FOREIGN:
		return foreign(path, e);
	default:
		return err_set(e, ERR_REFUSED, "cannot tell what is at socket '%s': %s", path,
			strerror(errno));
	}
}

int unixsock_restore(
	const char *path, const char *spare, uint64_t device, uint64_t inode, struct err *e)
{
	int folder, rc;

	if (spare[0] == '\0' || !unixsock_intact(spare, device, inode))
		return err_set(e, ERR_UNAVAILABLE,
			"socket '%s' was removed, and so was its spare name", path);
	folder = lock_folder(path);
	rc = restore_locked(path, spare, e);
	if (folder >= 0)
		close(folder);
	return rc;
}

int unixsock_make_folder(const char *path, struct err *e)
{
	char folder[PATH_MAX], own[64];
	const char *slash = strrchr(path, '/');
	uid_t uid = geteuid();
	struct stat st;
	bool private;

	if (!slash || slash == path || path[0] == '@')
		return 0;
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	snprintf(own, sizeof(own), "/tmp/baton-%u", (unsigned)uid);
	private = strcmp(folder, own) == 0;
	if (!private && strcmp(folder, "/run/baton") != 0)
		return 0;
	if (mkdir(folder, uid == 0 ? 0755 : 0700) == 0) {
		/* Whatever the umask. */
		chmod(folder, uid == 0 ? 0755 : 0700);
		return 0;
	}
	if (errno != EEXIST)
		return err_set(
			e, ERR_REFUSED, "cannot make folder '%s': %s", folder, strerror(errno));
	if (private && (lstat(folder, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != uid ||
			       (st.st_mode & 022)))
		return err_set(e, ERR_WRONG,
			"folder '%s' is not ours alone: somebody else may have made it; look at it "
			"and remove it",
			folder);
	return 0;
}

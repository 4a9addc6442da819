#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/log_internal.h"

static int open_descriptor(int fd, struct logs_sink *ret, struct err *e)
{
	char self[64];
	struct stat st, again;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) != 0 || (flags & O_ACCMODE) == O_RDONLY)
		return err_set(e, ERR_SYSTEM, "descriptor %d of baton is not open for writing", fd);
	ret->way = S_ISREG(st.st_mode)    ? WAY_FILE
		   : S_ISSOCK(st.st_mode) ? WAY_SOCKET
		   : (flags & O_NONBLOCK) ? WAY_OWN
					  : WAY_SHARED;
	ret->fd = -1;
	if (ret->way == WAY_SHARED) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		ret->fd = open(self, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (ret->fd >= 0 && (fstat(ret->fd, &again) != 0 || again.st_ino != st.st_ino ||
					    again.st_dev != st.st_dev)) {
			close(ret->fd);
			ret->fd = -1;
		}
		if (ret->fd >= 0)
			ret->way = WAY_OWN;
	}
	if (ret->fd < 0)
		ret->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (ret->fd < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot duplicate descriptor %d: %s", fd, strerror(errno));
	return 0;
}

static int open_file(const char *path, struct logs_sink *ret, struct err *e)
{
	struct stat st;
	int flags = O_WRONLY | O_APPEND | O_CREAT;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return err_set(e, ERR_CONFIG, "cannot open log file '%s': it is a directory", path);
	/* With a read side of our own a named pipe neither waits for its reader nor loses it. */
	if (stat(path, &st) == 0 && S_ISFIFO(st.st_mode))
		flags = O_RDWR;
	ret->fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
	if (ret->fd < 0 && errno == ENOENT)
		return err_set(e, ERR_SYSTEM,
			"cannot open log file '%s': its folder does not exist; make it first",
			path);
	if (ret->fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot open log file '%s': %s", path,
			errno == ENXIO ? "it is a socket" : strerror(errno));
	if (fstat(ret->fd, &st) == 0 && S_ISREG(st.st_mode))
		ret->way = WAY_FILE;
	else
		ret->way = WAY_OWN;
	return 0;
}

static int open_auto(const char *directory, const char *name, int standard, struct logs_sink *ret,
	char *path, size_t bytes, struct err *e)
{
	const char *folder = *directory ? directory : "/tmp";
	int n = snprintf(path, bytes, "%s/", folder), m;

	m = n < (int)bytes ? snprintf(path + n, bytes - (size_t)n, "%s-%s---baton-XXXXXX.log", name,
				     standard == 2 ? "stderr" : "stdout")
			   : 0;
	if (n + m >= (int)bytes)
		return err_set(
			e, ERR_LIMIT, "cannot make a log file in '%s': path too long", folder);
	for (char *c = path + n; *c; c++) {
		if (*c == '/')
			*c = '_';
	}
	ret->fd = mkostemps(path, 4, O_APPEND | O_CLOEXEC);
	if (ret->fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot make a log file in childlogdir '%s': %s",
			folder, strerror(errno));
	ret->way = WAY_FILE;
	return 0;
}

/* N of /dev/stdout, /dev/stderr, /dev/fd/N; -1 for any other path. */
static int descriptor_of(const char *path)
{
	char *end;
	long n;

	if (strcmp(path, "/dev/stdout") == 0)
		return 1;
	if (strcmp(path, "/dev/stderr") == 0)
		return 2;
	if (strncmp(path, "/dev/fd/", 8) != 0 || path[8] < '0' || path[8] > '9')
		return -1;
	n = strtol(path + 8, &end, 10);
	return *end || n > INT_MAX ? -1 : (int)n;
}

static struct logs_sink *find(struct logs *l, const struct logs_sink *like)
{
	for (struct logs_sink *s = l->sinks; s; s = s->next) {
		if (s->device == like->device && s->inode == like->inode && !s->gone &&
			s->next_fd < 0 && (s->way != WAY_FILE || !s->path == !like->path))
			return s;
	}
	return NULL;
}

int sink_identify(struct logs_sink *s, struct err *e)
{
	struct stat st;

	if (fstat(s->fd, &st) != 0)
		return err_set(
			e, ERR_SYSTEM, "cannot look at a log's descriptor: %s", strerror(errno));
	s->device = st.st_dev;
	s->inode = st.st_ino;
	s->terminal = isatty(s->fd);
	s->colour = s->terminal && s->logs->colour_allowed;
	return 0;
}

static struct logs_sink *make(const struct logs_sink *like, const char *path)
{
	struct logs *l = like->logs;
	struct logs_sink *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	*s = *like;
	s->path = path ? strdup(path) : NULL;
	if (path && !s->path) {
		free(s);
		return NULL;
	}
	s->next = l->sinks;
	if (s->next)
		s->next->previous = s;
	l->sinks = s;
	return s;
}

/* For a thousand workers on our own output: the descriptor need not be opened to be known. */
static struct logs_sink *find_given(struct logs *l, int given)
{
	struct stat st;
	struct logs_sink like = {.logs = l};

	if (given < 0 || fstat(given, &st) != 0)
		return NULL;
	like.device = st.st_dev;
	like.inode = st.st_ino;
	return find(l, &like);
}

int logs_sink_open(struct logs *l, enum config_output kind, const char *path, int standard,
	const char *directory, const char *name, struct logs_sink **ret_sink, struct err *e)
{
	struct logs_sink like = {.logs = l, .fd = -1, .next_fd = -1}, *s;
	char made[PATH_MAX];
	const char *file = kind == OUTPUT_PATH ? path : kind == OUTPUT_AUTO ? made : NULL;
	int given = kind == OUTPUT_PATH ? descriptor_of(path) : standard, rc;

	if (kind == OUTPUT_NONE) {
		*ret_sink = NULL;
		return 0;
	}
	s = kind == OUTPUT_AUTO ? NULL : find_given(l, given);
	if (s) {
		*ret_sink = logs_sink_ref(s);
		return 0;
	}
	if (kind == OUTPUT_AUTO)
		rc = open_auto(directory, name, standard, &like, made, sizeof(made), e);
	else if (given >= 0)
		rc = open_descriptor(given, &like, e);
	else
		rc = open_file(path, &like, e);
	if (rc == 0)
		rc = sink_identify(&like, e);
	if (kind == OUTPUT_PATH && given >= 0)
		file = NULL;
	if (rc != 0)
		goto out;
	like.path = (char *)file; /* only compared */
	like.given = given;
	s = find(l, &like);
	if (s) {
		close(like.fd);
	} else if (!(s = make(&like, file))) {
		rc = err_set(e, ERR_SYSTEM, "cannot open a log: out of memory");
		goto out;
	}
	*ret_sink = logs_sink_ref(s);
	return 0;
out:
	if (like.fd >= 0)
		close(like.fd);
	return rc;
}

void sink_reopen(struct logs_sink *s)
{
	struct logs_sink like = {.logs = s->logs, .fd = -1};
	struct logs_field field = {.key = "sink", .value = s->path};
	struct err e;

	if (open_file(s->path, &like, &e) != 0 || sink_identify(&like, &e) != 0) {
		logs_event(s->logs, LOGS_WARNING, "log.reopen_failed", &field, 1,
			"%s; going on with the file that is open", e.text);
		if (like.fd >= 0)
			close(like.fd);
		return;
	}
	if (like.device == s->device && like.inode == s->inode) {
		close(like.fd);
		return;
	}
	if (s->next_fd >= 0)
		close(s->next_fd);
	s->next_fd = like.fd;
	s->next_bytes = 0;
	s->next_way = like.way;
	if (!s->mid_line || s->stuck || s->gone)
		sink_switch(s);
}

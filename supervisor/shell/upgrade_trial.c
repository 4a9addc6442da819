/* The new binary is tried beside the running one. */
#include "supervisor/shell/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/spawn_internal.h"
#include "supervisor/shell/state_document.h"

#define STATE_BYTES_MOST (512 << 20)
#define SEALS            (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* --- the document in memory ------------------------------------------------------------------ */
static bool write_all(int fd, const char *text, size_t bytes)
{
	while (bytes > 0) {
		ssize_t n = write(fd, text, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		text += n;
		bytes -= (size_t)n;
	}
	return true;
}

int upgrade_write(json_t *document, struct err *e)
{
	char *text = document != NULL ? json_dumps(document, JSON_COMPACT) : NULL;
	int fd = -1;

	json_decref(document);
	if (text == NULL) {
		err_set(e, ERR_SYSTEM, "out of memory for the state");
		return -1;
	}
	fd = memfd_create("baton-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || !write_all(fd, text, strlen(text)) || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
		err_set(e, ERR_SYSTEM, "cannot write the state: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	free(text);
	return fd;
}

json_t *upgrade_read(int fd, struct err *e)
{
	json_error_t why;
	json_t *document = NULL;
	struct stat st;
	char *text;

	if (fcntl(fd, F_GET_SEALS) != SEALS || fstat(fd, &st) < 0 || st.st_size <= 0 ||
		st.st_size > STATE_BYTES_MOST) {
		err_set(e, ERR_WRONG, "descriptor %d holds no state of a baton", fd);
		return NULL;
	}
	text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (text == MAP_FAILED) {
		err_set(e, ERR_SYSTEM, "cannot read the state: %s", strerror(errno));
		return NULL;
	}
	document = json_loadb(text, (size_t)st.st_size, 0, &why);
	munmap(text, (size_t)st.st_size);
	if (document == NULL)
		err_set(e, ERR_WRONG, "the state is unreadable: %s", why.text);
	return document;
}

/* --- the file -------------------------------------------------------------------------------- */
static bool look_at(const char *path, struct upgrade_file *ret)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return false;
	ret->device = st.st_dev;
	ret->inode = st.st_ino;
	ret->bytes = st.st_size;
	ret->changed_ns = (int64_t)st.st_ctim.tv_sec * CORE_SECOND + st.st_ctim.tv_nsec;
	return true;
}

bool upgrade_same_file(const struct upgrade *u)
{
	struct upgrade_file now;

	return look_at(u->binary, &now) && now.device == u->file.device &&
	       now.inode == u->file.inode && now.bytes == u->file.bytes &&
	       now.changed_ns == u->file.changed_ns;
}

/* --- the trial ------------------------------------------------------------------------------- */
static void output_readable(void *context, unsigned events)
{
	struct upgrade *u = &((struct supervisor *)context)->upgrade;
	char more[1024];
	size_t room = sizeof u->output - 1 - u->output_bytes;
	ssize_t n = read(u->output_fd, more, sizeof more);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* its end is what counts */
		loop_watch_events(u->output_watch, 0);
		return;
	}
	if ((size_t)n < room)
		room = (size_t)n; /* the rest nobody would read */
	memcpy(u->output + u->output_bytes, more, room);
	u->output_bytes += room;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void upgrade_end_trial(struct supervisor *s)
{
	struct upgrade *u = &s->upgrade;

	loop_unwatch(u->output_watch);
	u->output_watch = NULL;
	close_fd(&u->output_fd);
	close_fd(&u->report_fd);
	if (u->pid > 0) { /* the reaper meets it as a stranger */
		(void)kill(-u->pid, SIGKILL);
		(void)kill(u->pid, SIGKILL);
	}
	u->pid = 0;
}

static void fill_spec(struct supervisor *s, char *const *argv, char *const *paths,
	const struct child_fd *fds, size_t fd_count, struct child_spec *spec)
{
	(void)s;
	*spec = (struct child_spec){.argv = argv,
		.paths = paths,
		.envp = environ, /* the configuration is read again with it */
		.fds = fds,
		.fd_count = fd_count,
		.hold_fd = -1,
		.directory = "",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN,
		.die_with_parent = true,
		.parent = getpid()};
}

static int start(struct supervisor *s, int state_fd, struct err *e)
{
	struct upgrade *u = &s->upgrade;
	char *const argv[] = {"baton", UPGRADE_COMMAND, NULL};
	char *const paths[] = {u->binary, NULL};
	int output[2] = {-1, -1}, report[2] = {-1, -1};
	struct child_fd fds[4] = {{s->null_fd, 0}};
	struct child_spec spec;
	pid_t pid = -1;

	if (pipe2(output, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0) {
		(void)fcntl(output[0], F_SETFL, O_NONBLOCK);
		(void)fcntl(report[0], F_SETFL, O_NONBLOCK);
		fds[1] = (struct child_fd){output[1], 1};
		fds[2] = (struct child_fd){output[1], 2};
		fds[3] = (struct child_fd){state_fd, UPGRADE_TRIAL_FD};
		fill_spec(s, argv, paths, fds, 4, &spec);
		spec.report_fd = report[1];
		pid = spawn_fork(&spec);
	}
	if (pid < 0)
		err_set(e, ERR_SYSTEM, "cannot try '%s': %s", u->binary, strerror(errno));
	close_fd(&output[1]);
	close_fd(&report[1]);
	u->pid = pid > 0 ? pid : 0;
	u->output_fd = output[0];
	u->report_fd = report[0];
	u->output_bytes = 0;
	if (pid > 0)
		u->output_watch = loop_watch(s->loop, u->output_fd, LOOP_READ, output_readable, s);
	else
		upgrade_end_trial(s);
	return pid > 0 ? 0 : e->code;
}

int upgrade_try(struct supervisor *s, struct err *e)
{
	struct upgrade *u = &s->upgrade;
	struct state_fds fds = {NULL, 0, 0, false};
	int fd, rc;

	if (!look_at(u->binary, &u->file))
		return err_set(e, ERR_UNAVAILABLE, "'%s': %s; `baton upgrade BINARY` names another",
			u->binary, strerror(errno));
	u->generation = s->generation;
	fd = upgrade_write(state_save(s, &fds), e);
	free(fds.items);
	malloc_trim(0); /* the document may have been large */
	if (fd < 0)
		return e->code;
	rc = start(s, fd, e);
	close(fd);
	return rc;
}

/* --- its outcome ----------------------------------------------------------------------------- */
static int cannot_start(struct supervisor *s, const struct child_failure *f, struct err *e)
{
	struct upgrade *u = &s->upgrade;
	char *const argv[] = {"baton", UPGRADE_COMMAND, NULL};
	char *const paths[] = {u->binary, NULL};
	struct child_spec spec;
	char text[512];

	fill_spec(s, argv, paths, NULL, 0, &spec);
	child_failure_text(f, &spec, text, sizeof text);
	return err_set(e, ERR_WRONG, "'%s' does not start: %s", u->binary,
		f->step == CHILD_EXEC ? strerror(f->error) : text);
}

/* The first line that says something, printable. */
static const char *first_line(struct upgrade *u)
{
	char *at = u->output;

	u->output[u->output_bytes] = '\0';
	for (size_t i = 0; i < u->output_bytes; i++) {
		if (u->output[i] == '\0')
			u->output[i] = '?';
	}
	at += strspn(at, "\n \t");
	at[strcspn(at, "\n")] = '\0';
	for (char *c = at; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
	}
	return at;
}

int upgrade_judge(struct supervisor *s, int status, struct err *e)
{
	struct upgrade *u = &s->upgrade;
	struct child_failure f;
	const char *line;

	if (read(u->report_fd, &f, sizeof f) == (ssize_t)sizeof f)
		return cannot_start(s, &f, e);
	output_readable(s, LOOP_READ);
	line = first_line(u);
	if (strncmp(line, UPGRADE_GOOD, strlen(UPGRADE_GOOD)) == 0 && status == 0)
		return 0;
	if (status > 128)
		return err_set(e, ERR_WRONG, "'%s' was killed by SIG%s while it was tried%s%s",
			u->binary, sigabbrev_np(status - 128) ? sigabbrev_np(status - 128) : "?",
			line[0] != '\0' ? ": " : "", line);
	if (status == 0 || strstr(line, UPGRADE_COMMAND) != NULL)
		return err_set(e, ERR_WRONG,
			"'%s' is no baton that can go on from a running one (exit status %d%s%s)",
			u->binary, status, line[0] != '\0' ? ": " : "", line);
	return err_set(e, ERR_WRONG, "'%s' cannot go on from here: %s (exit status %d)", u->binary,
		line[0] != '\0' ? line : "it did not say why", status);
}

#include "worker/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * Everything down to child_exec runs between fork and exec: async-signal-safe calls only, no
 * allocation, no assertion (abort would be taken for a crash of the program).
 */

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2U
#endif

enum {
	CHILD_FDS = 1024,      /* room for moved descriptors, on the stack */
	CHILD_EXIT = 127,      /* status after a reported failure */
	LAST_RESORT = 1 << 20, /* descriptors to try when neither close_range nor /proc is there */
};

struct descriptors { /* where the child's descriptors are at present */
	int fds[CHILD_FDS];
	size_t count;
	int report, hold;
};

static void fail(int report_fd, enum child_step step, int error, int detail)
	__attribute__((noreturn));

static void fail(int report_fd, enum child_step step, int error, int detail)
{
	struct child_failure f = {.step = (int)step, .error = error, .detail = detail};

	while (write(report_fd, &f, sizeof(f)) < 0 && errno == EINTR)
		;
	_exit(CHILD_EXIT);
}

/* The smallest kept descriptor >= START; INT_MAX when there is none. */
static int next_kept(const struct descriptors *d, int start)
{
	int best = INT_MAX;

	for (size_t i = 0; i < d->count; i++) {
		if (d->fds[i] >= start && d->fds[i] < best)
			best = d->fds[i];
	}
	if (d->report >= start && d->report < best)
		best = d->report;
	if (d->hold >= start && d->hold < best)
		best = d->hold;
	return best;
}

static int parse_descriptor(const char *name)
{
	int number = 0;

	if (*name == '\0')
		return -1;
	for (; *name != '\0'; name++) {
		if (*name < '0' || *name > '9' || number > (INT_MAX - 9) / 10)
			return -1;
		number = number * 10 + (*name - '0');
	}
	return number;
}

struct directory_entry { /* linux_dirent64, which has no header */
	uint64_t inode;
	int64_t offset;
	unsigned short bytes;
	unsigned char type;
	char name[];
};

/* Without close_range: what /proc lists, in place of opendir, which allocates. Listing goes by
 * number, so that closing on the way skips nothing. */
static int close_listed(const struct descriptors *d)
{
	_Alignas(struct directory_entry) char buf[4096];
	int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long bytes;

	if (directory < 0)
		return -1;
	while ((bytes = syscall(SYS_getdents64, directory, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < bytes;) {
			const struct directory_entry *entry = (const void *)(buf + at);
			int fd = parse_descriptor(entry->name);
			if (fd >= 0 && fd != directory && next_kept(d, fd) != fd)
				close(fd);
			at += entry->bytes;
		}
	}
	close(directory);
	return bytes < 0 ? -1 : 0;
}

static void close_one_by_one(const struct descriptors *d)
{
	for (int fd = 0; fd < LAST_RESORT; fd++) {
		if (next_kept(d, fd) != fd)
			close(fd);
	}
}

/* Close all that is not kept. close_range may be missing (before Linux 5.9) or forbidden by a
 * container's filter. */
static void close_others(const struct descriptors *d)
{
	unsigned int start = 0;

	for (;;) {
		int kept = next_kept(d, (int)start);
		unsigned int last = kept == INT_MAX ? ~0u : (unsigned int)kept - 1;
		if ((kept == INT_MAX || (unsigned int)kept > start) &&
			syscall(SYS_close_range, start, last, 0) != 0) {
			if (close_listed(d) != 0)
				close_one_by_one(d);
			return;
		}
		if (kept == INT_MAX)
			return;
		start = (unsigned int)kept + 1;
	}
}

/* A copy of *FD at FLOOR or above when it lies below, where targets are going to be. */
static void move_above(int *fd, int floor, int report_fd)
{
	int moved;

	if (*fd < 0 || *fd >= floor)
		return;
	moved = fcntl(*fd, F_DUPFD_CLOEXEC, floor);
	if (moved < 0)
		fail(report_fd, CHILD_DESCRIPTORS, errno, 0);
	*fd = moved;
}

/* The plan: close strangers, lift all sources above the highest target (so that no target can
 * overwrite a source, whatever cycles the list makes), put them in place, close the rest. */
static void arrange_descriptors(const struct child_spec *spec, struct descriptors *d)
{
	int floor = 3;

	d->report = spec->report_fd;
	d->hold = spec->hold_fd;
	d->count = spec->fd_count;
	if (spec->fd_count > CHILD_FDS)
		fail(d->report, CHILD_DESCRIPTORS, EMFILE, 0);
	for (size_t i = 0; i < d->count; i++) {
		d->fds[i] = spec->fds[i].from;
		if (spec->fds[i].to >= floor)
			floor = spec->fds[i].to + 1;
	}
	close_others(d);
	move_above(&d->report, floor, d->report);
	move_above(&d->hold, floor, d->report);
	if (fcntl(d->report, F_SETFD, FD_CLOEXEC) != 0)
		_exit(CHILD_EXIT);
	for (size_t i = 0; i < d->count; i++) {
		if (d->fds[i] < 0)
			fail(d->report, CHILD_DESCRIPTORS, EBADF, 0);
		move_above(&d->fds[i], floor, d->report);
	}
	for (size_t i = 0; i < d->count; i++) {
		if (dup2(d->fds[i], spec->fds[i].to) < 0)
			fail(d->report, CHILD_DESCRIPTORS, errno, 0);
	}
	for (size_t i = 0; i < d->count; i++)
		d->fds[i] = spec->fds[i].to;
	close_others(d);
}

/* Dispositions before the mask: a signal that was sent meanwhile then has its default effect. An
 * ignored signal would stay ignored across exec. */
static void reset_signals(void)
{
	/* The kernel's own struct sigaction, all zero: SIG_DFL. libc would refuse its two private
	 * signals, which a careless parent may have left ignored too. */
	static const unsigned long standard[8];
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		syscall(SYS_rt_sigaction, sig, standard, NULL, (size_t)_NSIG / 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Decimal, without leading zeros: libsystemd reads those as octal. Returns the length. */
static size_t write_decimal(long number, char *at)
{
	char digits[24];
	size_t count = 0;

	do {
		digits[count++] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	for (size_t i = 0; i < count; i++)
		at[i] = digits[count - 1 - i];
	return count;
}

static void set_oom_score(int score, int report_fd)
{
	char text[26] = "";
	size_t length = 0;
	int fd;

	if (score < 0)
		text[length++] = '-';
	length += write_decimal(score < 0 ? -(long)score : (long)score, text + length);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		fail(report_fd, CHILD_OOM_SCORE, errno, 0);
	close(fd);
}

/* What needs the rights of the supervisor. */
static void apply_limits(const struct child_spec *spec, int report_fd)
{
	if (spec->nice != INT_MIN && setpriority(PRIO_PROCESS, 0, spec->nice) != 0)
		fail(report_fd, CHILD_NICE, errno, 0);
	if (spec->oom_score_adj != INT_MIN)
		set_oom_score(spec->oom_score_adj, report_fd);
	for (size_t i = 0; i < spec->rlimit_count; i++) {
		const struct config_rlimit *limit = &spec->rlimits[i];
		struct rlimit value = {
			.rlim_cur = (rlim_t)limit->soft, .rlim_max = (rlim_t)limit->hard};
		if (setrlimit(limit->resource, &value) != 0)
			fail(report_fd, CHILD_RLIMIT, errno, limit->resource);
	}
	if (spec->umask >= 0)
		umask((mode_t)spec->umask);
}

/* Groups, group, user, in this order: each needs the rights that the next one gives up. */
static void apply_user(const struct child_spec *spec, int report_fd)
{
	if (spec->groups_set && setgroups(spec->group_count, spec->groups) != 0)
		fail(report_fd, CHILD_GROUPS, errno, 0);
	if (!spec->set_user)
		return;
	if (setresgid(spec->gid, spec->gid, spec->gid) != 0)
		fail(report_fd, CHILD_GROUP, errno, 0);
	if (setresuid(spec->uid, spec->uid, spec->uid) != 0)
		fail(report_fd, CHILD_USER, errno, 0);
}

/* After the change of credentials, which clears the death signal. The parent may have died before
 * the prctl: then nobody would ever send it. */
static void die_with_parent(const struct child_spec *spec, int report_fd)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		fail(report_fd, CHILD_DEATH_SIGNAL, errno, 0);
	if (getppid() != spec->parent)
		_exit(CHILD_EXIT);
}

static void hold(int fd, int report_fd)
{
	char byte;
	ssize_t got;

	do {
		got = read(fd, &byte, 1);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		fail(report_fd, CHILD_HOLD, errno, 0);
	if (got == 0)
		_exit(0);
	close(fd);
}

static void fill_pid(char **envp)
{
	static const char *const names[] = {"LISTEN_PID=", "WATCHDOG_PID="};
	long pid = (long)getpid();

	for (; *envp != NULL; envp++) {
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			size_t length = strlen(names[i]);
			if (strncmp(*envp, names[i], length) != 0 ||
				strcmp(*envp + length, "0000000000") != 0)
				continue;
			length += write_decimal(pid, *envp + length);
			(*envp)[length] = '\0';
		}
	}
}

/* Try the paths as execvp does: "permission denied" is remembered over "not found", any other
 * error ends the search. */
static void try_paths(const struct child_spec *spec, int report_fd)
{
	int error = ENOENT, detail = 0;
	struct stat st;

	for (char *const *path = spec->paths; *path != NULL; path++) {
		execve(*path, spec->argv, spec->envp);
		switch (errno) {
		case EACCES:
			error = stat(*path, &st) == 0 && S_ISDIR(st.st_mode) ? EISDIR : EACCES;
			detail = 0;
			break;
		case ENOENT:
			if (error == ENOENT && stat(*path, &st) == 0)
				detail = 1;
			break;
		case ENOTDIR:
			if (error == ENOENT && spec->paths[1] == NULL)
				error = ENOTDIR;
			break;
		default:
			fail(report_fd, CHILD_EXEC, errno, 0);
		}
	}
	fail(report_fd, CHILD_EXEC, error, detail);
}

/* Until this is done the descriptors are the parent's own: none may be opened or closed. */
static void own_descriptors(const struct child_spec *spec)
{
	if (spec->shared_above == 0)
		return;
	if (syscall(SYS_close_range, (unsigned int)spec->shared_above, ~0u, CLOSE_RANGE_UNSHARE) !=
		0)
		fail(spec->report_fd, CHILD_DESCRIPTORS, errno, 0);
	while (write(spec->report_fd, "", 1) < 0 && errno == EINTR)
		;
}

void child_exec(const struct child_spec *spec)
{
	struct descriptors d;

	own_descriptors(spec);
	arrange_descriptors(spec, &d);
	if (spec->same_session ? setpgid(0, 0) < 0 : setsid() < 0)
		fail(d.report, CHILD_SESSION, errno, 0);
	reset_signals();
	apply_limits(spec, d.report);
	apply_user(spec, d.report);
	if (spec->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		fail(d.report, CHILD_NO_NEW_PRIVS, errno, 0);
	if (spec->die_with_parent)
		die_with_parent(spec, d.report);
	if (spec->directory[0] != '\0' && chdir(spec->directory) != 0)
		fail(d.report, CHILD_DIRECTORY, errno, 0);
	if (d.hold >= 0)
		hold(d.hold, d.report);
	fill_pid(spec->envp);
	try_paths(spec, d.report);
	_exit(CHILD_EXIT);
}

/* --- in the parent -------------------------------------------------------------------------- */

static const char *const step_names[CHILD_STEPS] = {
	[CHILD_DESCRIPTORS] = "descriptors",
	[CHILD_SESSION] = "session",
	[CHILD_CGROUP] = "cgroup",
	[CHILD_NICE] = "nice",
	[CHILD_OOM_SCORE] = "oom_score_adj",
	[CHILD_RLIMIT] = "rlimit",
	[CHILD_GROUPS] = "groups",
	[CHILD_GROUP] = "group",
	[CHILD_USER] = "user",
	[CHILD_NO_NEW_PRIVS] = "no_new_privs",
	[CHILD_DEATH_SIGNAL] = "death signal",
	[CHILD_DIRECTORY] = "directory",
	[CHILD_HOLD] = "hold",
	[CHILD_EXEC] = "exec",
};

const char *child_step_name(int step)
{
	return step >= 0 && step < CHILD_STEPS ? step_names[step] : "unknown step";
}

static const char *rlimit_name(int resource)
{
	static const char *const names[] = {
		[RLIMIT_AS] = "address space",
		[RLIMIT_CORE] = "core size",
		[RLIMIT_CPU] = "processor time",
		[RLIMIT_DATA] = "data size",
		[RLIMIT_FSIZE] = "file size",
		[RLIMIT_LOCKS] = "locks",
		[RLIMIT_MEMLOCK] = "locked memory",
		[RLIMIT_MSGQUEUE] = "message queues",
		[RLIMIT_NICE] = "nice",
		[RLIMIT_NOFILE] = "open files",
		[RLIMIT_NPROC] = "processes",
		[RLIMIT_RSS] = "resident set",
		[RLIMIT_RTPRIO] = "real-time priority",
		[RLIMIT_RTTIME] = "real-time processor time",
		[RLIMIT_SIGPENDING] = "pending signals",
		[RLIMIT_STACK] = "stack size",
	};

	if (resource < 0 || (size_t)resource >= sizeof(names) / sizeof(names[0]))
		return "unknown";
	return names[resource];
}

static void exec_text(
	const struct child_failure *f, const struct child_spec *spec, char *buf, size_t bytes)
{
	bool searched = spec->paths[0] == NULL || spec->paths[1] != NULL;
	const char *path = searched ? spec->argv[0] : spec->paths[0];

	if (f->error == ENOENT && f->detail == 1)
		snprintf(buf, bytes,
			"cannot execute '%s': it is there, but the interpreter or loader that it "
			"names "
			"is not",
			path);
	else if (f->error == ENOENT && searched)
		snprintf(buf, bytes, "cannot execute '%s': not found in PATH", path);
	else if (f->error == ENOEXEC)
		snprintf(buf, bytes,
			"cannot execute '%s': neither a program for this machine nor a script with "
			"#!",
			path);
	else
		snprintf(buf, bytes, "cannot execute '%s': %s", path, strerror(f->error));
}

void child_failure_text(
	const struct child_failure *f, const struct child_spec *spec, char *buf, size_t bytes)
{
	const char *why = strerror(f->error);
	const char *hint = f->error == EPERM ? "; only root may run it as somebody else" : "";

	switch (f->step) {
	case CHILD_EXEC:
		exec_text(f, spec, buf, bytes);
		break;
	case CHILD_DIRECTORY:
		snprintf(buf, bytes, "cannot change to directory '%s': %s", spec->directory, why);
		break;
	case CHILD_RLIMIT:
		snprintf(buf, bytes, "cannot set the limit of %s: %s", rlimit_name(f->detail), why);
		break;
	case CHILD_NICE:
		snprintf(buf, bytes, "cannot set nice to %d: %s", spec->nice, why);
		break;
	case CHILD_OOM_SCORE:
		snprintf(
			buf, bytes, "cannot set oom_score_adj to %d: %s", spec->oom_score_adj, why);
		break;
	case CHILD_GROUPS:
		snprintf(buf, bytes, "cannot set %zu supplementary groups: %s%s", spec->group_count,
			why, hint);
		break;
	case CHILD_GROUP:
		snprintf(
			buf, bytes, "cannot change to group %ld: %s%s", (long)spec->gid, why, hint);
		break;
	case CHILD_USER:
		snprintf(buf, bytes, "cannot change to user %ld: %s%s", (long)spec->uid, why, hint);
		break;
	default:
		snprintf(buf, bytes, "cannot prepare the process (%s): %s",
			child_step_name(f->step), why);
		break;
	}
}

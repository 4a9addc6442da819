#include "supervisor/shell/spawn_table.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2U
#endif

enum {
	SLOTS = 32,
	SLOT_FDS = 8, /* 0, 1, 2, report, channel, and three more (sockets, lease, ready) */
};

#define PLENTY (16 * SLOTS * SLOT_FDS) /* as many descriptors as make it worth while */

enum support { UNKNOWN, USED, REFUSED };

static struct {
	enum support support;
	int null_fd;
	int fds[SLOTS][SLOT_FDS]; /* ascending */
	size_t used[SLOTS];       /* of each slot's numbers; 0 = it is free */
} table;

/* The lowest numbers that are free: the fewer lie below a slot, the less is copied. */
static bool take_numbers(int null_fd)
{
	for (int slot = 0; slot < SLOTS; slot++) {
		for (int i = 0; i < SLOT_FDS; i++) {
			table.fds[slot][i] = fcntl(null_fd, F_DUPFD_CLOEXEC, 3);
			if (table.fds[slot][i] >= 0)
				continue;
			for (int n = slot * SLOT_FDS + i; n-- > 0;)
				close(table.fds[n / SLOT_FDS][n % SLOT_FDS]);
			return false;
		}
	}
	table.null_fd = null_fd;
	return true;
}

static bool is_usable(int null_fd)
{
	const char *preload = getenv("LD_PRELOAD");
	struct rlimit most;

	if (table.support != UNKNOWN)
		return table.support == USED;
	table.support = REFUSED;
	/* Our table is nobody else's yet and nothing is open up there: this does nothing, and tells
	 * whether it may be done. Valgrind ends a program that uses clone so. */
	if ((preload == NULL || strstr(preload, "vgpreload") == NULL) &&
		getrlimit(RLIMIT_NOFILE, &most) == 0 && most.rlim_cur >= PLENTY &&
		syscall(SYS_close_range, ~0u, ~0u, CLOSE_RANGE_UNSHARE) == 0 &&
		take_numbers(null_fd))
		table.support = USED;
	return table.support == USED;
}

static int find_slot(void)
{
	for (int slot = 0; slot < SLOTS; slot++) {
		if (table.used[slot] == 0)
			return slot;
	}
	return -1;
}

static void free_slot(int slot)
{
	for (size_t i = 0; i < table.used[slot]; i++)
		(void)dup3(table.null_fd, table.fds[slot][i], O_CLOEXEC);
	table.used[slot] = 0;
}

/* Copies of what the child needs; false = not all could be made. */
static bool fill_slot(int slot, const struct child_spec *spec, struct child_fd *fds)
{
	size_t n = 0;

	table.used[slot] = spec->fd_count + 1;
	for (; n < spec->fd_count; n++) {
		fds[n] = (struct child_fd){.from = table.fds[slot][n], .to = spec->fds[n].to};
		if (dup3(spec->fds[n].from, fds[n].from, O_CLOEXEC) < 0)
			break;
	}
	if (n == spec->fd_count && dup3(spec->report_fd, table.fds[slot][n], O_CLOEXEC) >= 0)
		return true;
	free_slot(slot);
	return false;
}

static pid_t clone_files(const struct child_spec *spec)
{
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	/* Not libc's fork, which has no flags: its locks and its idea of its thread's number stay
	 * as they are in the child, which calls nothing that asks for them. */
#if defined(__s390__) || defined(__CRIS__)
	pid = (pid_t)syscall(SYS_clone, NULL, CLONE_FILES | SIGCHLD, NULL, NULL, NULL);
#else
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
#endif
	if (pid == 0)
		child_exec(spec);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

pid_t table_fork(struct process *p, const struct child_spec *spec)
{
	struct child_fd fds[SLOT_FDS];
	struct child_spec shared = *spec;
	int slot;
	pid_t pid;

	/* One that is held before its exec is an executor on its way: seldom, and never in bulk. */
	if (spec->hold_fd >= 0 || spec->fd_count >= SLOT_FDS || !is_usable(p->supervisor->null_fd))
		return spawn_fork(spec);
	slot = find_slot();
	if (slot < 0 || !fill_slot(slot, spec, fds))
		return spawn_fork(spec);
	shared.fds = fds;
	shared.report_fd = table.fds[slot][spec->fd_count];
	shared.shared_above = table.fds[slot][SLOT_FDS - 1] + 1;
	pid = clone_files(&shared);
	if (pid < 0) {
		free_slot(slot);
		return spawn_fork(spec);
	}
	p->table_slot = slot + 1;
	return pid;
}

void table_free(struct process *p)
{
	if (p->table_slot > 0)
		free_slot(p->table_slot - 1);
	p->table_slot = 0;
}

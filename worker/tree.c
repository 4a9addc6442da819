/*
 * Everything below a worker, by one pass over /proc: session, process group, and the children of
 * what was found. No allocation unless there are more processes than fit the table that is there.
 */
#include "worker/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_CAPACITY = 4096, LISTING_BYTES = 16384, STAT_BYTES = 512 };
/* A process whose exec is under way has no environment to be read: it is waited for, 10 ms. */
enum { EXEC_LOOKS = 50, EXEC_STEP_NS = 200000 };

struct process {
	pid_t pid, parent, group, session;
	uint64_t start_ticks;
	bool zombie, found, signalled;
};

/* One scan at a time; baton has no threads. Untouched pages of the table cost nothing. */
static struct process first_table[FIRST_CAPACITY];
static struct process *table = first_table;
static size_t capacity = FIRST_CAPACITY, count;

static bool grow(void)
{
	size_t bytes = capacity * sizeof(*table);
	struct process *larger = mmap(
		NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (larger == MAP_FAILED)
		return false;
	memcpy(larger, table, bytes);
	if (table != first_table)
		munmap(table, bytes);
	table = larger;
	capacity *= 2;
	return true;
}

/* Decimal digits of TEXT; -1 when it is something else. */
static pid_t parse_pid(const char *text)
{
	long pid = 0;

	if (*text < '1' || *text > '9')
		return -1;
	for (; *text >= '0' && *text <= '9'; text++) {
		pid = pid * 10 + (*text - '0');
		if (pid > INT32_MAX)
			return -1;
	}
	return *text == '\0' ? (pid_t)pid : -1;
}

/* "PID (COMM) STATE PPID PGRP SESSION ... [22] STARTTIME": COMM may hold spaces and brackets, so
 * the fields are counted from the last ')'. */
static bool parse_stat(char *text, struct process *p)
{
	char *at = strrchr(text, ')');
	char *end;

	if (!at || at[1] != ' ' || !at[2])
		return false;
	at += 2;
	p->zombie = *at == 'Z' || *at == 'X' || *at == 'x';
	at++;
	p->parent = (pid_t)strtol(at, &at, 10);
	p->group = (pid_t)strtol(at, &at, 10);
	p->session = (pid_t)strtol(at, &at, 10);
	for (int field = 7; field < 22; field++) {
		long long value = strtoll(at, &end, 10);
		if (end == at)
			return false;
		/* Field 20: a main thread that ended looks dead while its process lives on. */
		if (field == 20 && value > 1)
			p->zombie = false;
		at = end;
	}
	p->start_ticks = strtoull(at, &end, 10);
	return end != at;
}

static bool read_process(int proc, pid_t pid, struct process *p)
{
	char name[32], text[STAT_BYTES];
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "%d/stat", (int)pid);
	fd = openat(proc, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	errno = ESRCH;
	if (got <= 0)
		return false; /* it vanished */
	text[got] = '\0';
	memset(p, 0, sizeof(*p));
	p->pid = pid;
	return parse_stat(text, p);
}

static int by_pid(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

struct entry { /* struct linux_dirent64, which no header has */
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

static int take_listing(int proc, const char *bytes, long used)
{
	for (long at = 0; at < used;) {
		const struct entry *entry = (const struct entry *)(bytes + at);
		pid_t pid = parse_pid(entry->name);
		at += entry->length;
		if (pid < 0)
			continue;
		if (count == capacity && !grow())
			return -ENOMEM;
		if (read_process(proc, pid, &table[count]))
			count++;
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			return -errno; /* not seen is not gone */
	}
	return 0;
}

/* All processes into the table, in the order of their pids (as /proc lists them). */
static int read_all(void)
{
	static char listing[LISTING_BYTES] __attribute__((aligned(8)));
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int code = proc < 0 ? -errno : 0;
	long used;

	count = 0;
	if (code < 0)
		return code;
	while (code == 0 && (used = syscall(SYS_getdents64, proc, listing, sizeof(listing))) != 0)
		code = used < 0 ? -errno : take_listing(proc, listing, used);
	close(proc);
	for (size_t i = 1; i < count; i++) {
		if (table[i - 1].pid < table[i].pid)
			continue;
		qsort(table, count, sizeof(*table), by_pid);
		break;
	}
	return code;
}

static struct process *find(pid_t pid)
{
	struct process key = {.pid = pid};

	return bsearch(&key, table, count, sizeof(*table), by_pid);
}

/* A pid cannot be given anew while a session or group bears its number. So if another process has
 * the leader's pid (other start), nothing of the old tree is left but what escaped. */
static bool is_reused(const struct tree_leader *leader)
{
	const struct process *p = leader->start_ticks ? find(leader->pid) : NULL;

	return p && p->start_ticks != leader->start_ticks;
}

static void mark_leader(const struct tree_leader *leader)
{
	pid_t pid = leader->pid;

	if (pid <= 1 || is_reused(leader))
		return;
	for (size_t i = 0; i < count; i++) {
		struct process *p = &table[i];
		/* Between fork and setsid a leader is known by its pid alone. */
		bool is_leader = p->pid == pid &&
				 (leader->by_pid || leader->start_ticks || p->parent == getpid());
		if (p->session == pid || p->group == pid || is_leader)
			p->found = true;
	}
}

static void mark_children(void)
{
	bool again = true;

	while (again) {
		again = false;
		for (size_t i = 0; i < count; i++) {
			const struct process *parent;
			if (table[i].found || table[i].parent <= 1)
				continue;
			parent = find(table[i].parent);
			if (parent && parent->found)
				table[i].found = again = true;
		}
	}
}

/* After the leaders were marked. A scan from inside the tree never counts, or kills, itself. */
static int settle(void)
{
	int found = 0;

	mark_children();
	for (size_t i = 0; i < count; i++) {
		struct process *p = &table[i];
		p->found = p->found && !p->zombie && p->pid != getpid();
		found += p->found;
	}
	return found;
}

static int cannot_list(int code, struct err *e)
{
	return err_set(e, ERR_SYSTEM, "cannot list the processes in /proc: %s; looking again",
		strerror(-code));
}

static void fill(pid_t *ret_pids, int room)
{
	int filled = 0;

	for (size_t i = 0; i < count && filled < room; i++) {
		if (table[i].found)
			ret_pids[filled++] = table[i].pid;
	}
}

int tree_scan_leaders(const struct tree_leader *leaders, int leader_count, pid_t *ret_pids,
	int room, struct err *e)
{
	int code = read_all();
	int found;

	if (code < 0)
		return cannot_list(code, e);
	for (int i = 0; i < leader_count; i++)
		mark_leader(&leaders[i]);
	found = settle();
	fill(ret_pids, room);
	return found;
}

int tree_scan(pid_t leader, pid_t *ret_pids, int room, struct err *e)
{
	return tree_scan_leaders(&(struct tree_leader){.pid = leader}, 1, ret_pids, room, e);
}

/* --- marks ------------------------------------------------------------------------------- */

/* What stands behind "TREE_MARK=INSTANCE.", into TEXT: 1; 0 = it is not there, -1 = nothing is. */
static int find_mark(int fd, const char *instance, char *text, size_t room)
{
	char wanted[128], bytes[4096];
	size_t at = 0, length;
	bool other = false, any = false;
	ssize_t got;

	length = (size_t)snprintf(wanted, sizeof(wanted), TREE_MARK "=%.64s.", instance);
	while ((got = read(fd, bytes, sizeof(bytes))) > 0) {
		any = true;
		for (ssize_t i = 0; i < got; i++) {
			char c = bytes[i];
			if (c == '\0' && !other && at >= length) {
				text[at - length] = '\0';
				return 1;
			}
			other = c != '\0' && (other || (at < length ? c != wanted[at]
								    : at - length + 1 >= room));
			if (c != '\0' && !other && at >= length)
				text[at - length] = c;
			at = c == '\0' ? 0 : at + 1;
		}
	}
	return any ? 0 : -1;
}

/* Neither arguments nor environment are there in the middle of an exec, and of a dead process. */
static bool is_in_exec(pid_t pid)
{
	char name[48], byte;
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
	struct process p;
	bool dead = proc < 0 || !read_process(proc, pid, &p) || p.zombie, empty;

	if (proc >= 0)
		close(proc);
	snprintf(name, sizeof(name), "/proc/%d/cmdline", (int)pid);
	fd = dead ? -1 : open(name, O_RDONLY | O_CLOEXEC);
	empty = fd >= 0 && read(fd, &byte, 1) == 0;
	if (fd >= 0)
		close(fd);
	return empty;
}

/* Root in a container may often not look into other users' processes (no CAP_SYS_PTRACE): as that
 * user it may. */
static int open_environment(pid_t pid)
{
	char name[48];
	struct stat its;
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/environ", (int)pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 || errno != EACCES || geteuid() != 0 || stat(name, &its) < 0 || its.st_uid == 0)
		return fd;
	setfsgid(its.st_gid);
	setfsuid(its.st_uid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	setfsuid(0);
	setfsgid(getegid());
	return fd;
}

bool tree_read_mark(pid_t pid, const char *instance, int64_t *left, struct tree_mark *ret)
{
	char text[48], *end;
	struct tree_mark mark = {0};
	int found = -1;

	/* The second look is for an exec that was over between the two reads of the first. */
	for (int looks = 0; looks < EXEC_LOOKS && found < 0; looks++) {
		int fd = open_environment(pid);
		if (fd < 0)
			return false;
		found = find_mark(fd, instance, text, sizeof(text));
		close(fd);
		if (found < 0 && left && *left > 0 && is_in_exec(pid)) {
			nanosleep(&(struct timespec){.tv_nsec = EXEC_STEP_NS}, NULL);
			*left -= EXEC_STEP_NS;
		} else if (found < 0 && looks > 0) {
			break; /* it has none */
		}
	}
	if (found <= 0)
		return false;
	mark.start = strtoull(text, &end, 10);
	if (*end == '.')
		mark.part = strtoull(end + 1, &end, 10);
	if (*end != '\0' || mark.start == 0)
		return false;
	*ret = mark;
	return true;
}

static bool is_start_of(uint64_t start, const struct tree_leader *leaders, int leader_count)
{
	for (int i = 0; i < leader_count; i++) {
		if (leaders[i].start == start)
			return true;
	}
	return false;
}

static bool find_marked(const struct tree_leader *leaders, int leader_count, const char *instance)
{
	pid_t parent = getppid();
	int64_t left_ns = EXEC_LOOKS * EXEC_STEP_NS; /* for all of them together */
	struct tree_mark mark;
	bool any = false;

	for (size_t i = 0; i < count; i++) {
		struct process *p = &table[i];
		if (p->found || p->zombie || p->parent != parent || p->pid == getpid() ||
			!tree_read_mark(p->pid, instance, &left_ns, &mark))
			continue;
		p->found = is_start_of(mark.start, leaders, leader_count);
		any = any || p->found;
	}
	return any;
}

/* --- killing ----------------------------------------------------------------------------- */

/* Only the process that was scanned: its pid may be another's by now. Returns the pidfd, or -1. */
static int signal_process(const struct process *p, int sig)
{
	int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);

	if (fd < 0 && errno != ESRCH) { /* a kernel without pidfds, or no descriptor left */
		if (tree_start_ticks(p->pid) == p->start_ticks)
			kill(p->pid, sig);
		return -1;
	}
	if (fd >= 0 && tree_start_ticks(p->pid) == p->start_ticks) {
		syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0);
	} else if (fd >= 0) { /* another, or there was no descriptor left to look */
		close(fd);
		fd = -1;
		if (tree_start_ticks(p->pid) == p->start_ticks)
			kill(p->pid, sig);
	}
	return fd;
}

static int signal_found(int sig, int *ret_pidfds, int kept, int room)
{
	for (size_t i = 0; i < count; i++) {
		struct process *p = &table[i];
		int fd = p->found && !p->signalled ? signal_process(p, sig) : -1;
		p->signalled = p->found;
		if (fd >= 0 && kept < room)
			ret_pidfds[kept++] = fd;
		else if (fd >= 0)
			close(fd);
	}
	return kept;
}

int tree_kill_leaders(const struct tree_leader *leaders, int leader_count, const char *instance,
	int sig, int *ret_pidfds, int room, struct err *e)
{
	int code = read_all();
	int found, kept = 0;

	if (code < 0)
		return cannot_list(code, e);
	for (int i = 0; i < leader_count; i++)
		mark_leader(&leaders[i]);
	found = settle();
	if (found > 0)
		kept = signal_found(sig, ret_pidfds, 0, room);
	if (instance && leader_count > 0 && find_marked(leaders, leader_count, instance)) {
		found = settle();
		kept = signal_found(sig, ret_pidfds, kept, room);
	}
	while (kept < room)
		ret_pidfds[kept++] = -1;
	return found;
}

int tree_kill(pid_t leader, int sig, struct err *e)
{
	return tree_kill_leaders(&(struct tree_leader){.pid = leader}, 1, NULL, sig, NULL, 0, e);
}

uint64_t tree_start_ticks(pid_t pid)
{
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct process p;
	bool is_there = proc >= 0 && pid > 0 && read_process(proc, pid, &p);

	if (proc >= 0)
		close(proc);
	return is_there ? p.start_ticks : 0;
}

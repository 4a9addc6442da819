#include "worker/deadman.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "worker/lease.h"
#include "worker/lock/guard.h"
#include "worker/tree.h"

enum { SOCKET_FD = 3, TABLE_FD = 4, GUARD_FD = 5, SUPERVISOR_FD = 6, EXIT_START = 70 };
/* Waiting for killed processes to go: woken by their pidfds, or after a step that doubles. */
enum { STEP_FIRST_MS = 2, STEP_LAST_MS = 100, PIDFDS = 64 };
/* A page is shown soon after it was armed, and nobody says so: look after steps that double. */
enum { SHOW_FIRST_MS = 5, SHOW_LAST_MS = 1000 };
/* More workers than this are killed in several rounds. */
enum { LEADERS = 1024, LEADERS_A_WORKER = 2 };

struct slot {
	struct lease_page *page; /* NULL = disarmed */
	struct tree_leader leader;
	uint64_t term;
	bool shown;      /* its deadline was seen; 0 after that is the end of this term */
	bool killing;    /* the deadline passed: kill until nothing is found */
	int64_t look_ns; /* when to look next; 0 = never */
	int64_t step_ns;
};

/* Everything the moment of the kill needs is here before it. */
static struct deadman {
	struct slot slots[DEADMAN_EXECUTORS];
	struct deadman_table *table;
	size_t table_bytes;
	int timer, guard;
	bool deaf; /* the supervisor closed its end: no proof of its death */
	struct tree_leader leaders[LEADERS + DEADMAN_EXECUTORS * LEADERS_A_WORKER];
	int pidfds[PIDFDS];
} deadman;

size_t deadman_table_bytes(uint32_t capacity)
{
	return sizeof(struct deadman_table) + capacity * sizeof(struct deadman_entry);
}

int deadman_table_create(
	uint32_t capacity, int *ret_fd, struct deadman_table **ret_table, struct err *e)
{
	size_t bytes = deadman_table_bytes(capacity);
	struct deadman_table *table = MAP_FAILED;
	int fd = memfd_create("lock-table", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
		table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (table == MAP_FAILED) {
		err_set(e, ERR_SYSTEM, "cannot make the deadman's table of %u workers: %s",
			(unsigned)capacity, strerror(errno));
		if (fd >= 0)
			close(fd);
		return ERR_SYSTEM;
	}
	table->magic = DEADMAN_TABLE_MAGIC;
	atomic_store(&table->capacity, capacity);
	*ret_fd = fd;
	*ret_table = table;
	return 0;
}

/* The table in FD replaces the present one; false leaves that in place. */
static bool take_table(int fd)
{
	struct deadman_table *table;
	struct stat status;

	if (fstat(fd, &status) < 0 || (size_t)status.st_size < sizeof(*table))
		return false;
	table = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (table == MAP_FAILED)
		return false;
	if (table->magic != DEADMAN_TABLE_MAGIC ||
		deadman_table_bytes(atomic_load(&table->capacity)) > (size_t)status.st_size) {
		munmap(table, (size_t)status.st_size);
		return false;
	}
	if (deadman.table)
		munmap(deadman.table, deadman.table_bytes);
	deadman.table = table;
	deadman.table_bytes = (size_t)status.st_size;
	return true;
}

static void disarm(struct slot *s)
{
	lease_unmap(s->page);
	memset(s, 0, sizeof(*s));
}

static bool arm(const struct deadman_message *m, int fd)
{
	struct slot *s = &deadman.slots[m->slot];
	struct lease_page *page;

	if (fd < 0 || m->pid <= 1 || lease_map(fd, &page, NULL) < 0)
		return false;
	disarm(s);
	s->page = page;
	s->leader = (struct tree_leader){
		.pid = m->pid, .start_ticks = tree_start_ticks(m->pid), .by_pid = true};
	s->term = m->term;
	s->step_ns = SHOW_FIRST_MS * 1000000LL;
	s->look_ns = lease_now_ns();
	return true;
}

static void look_again(struct slot *s, int64_t now, int64_t last_ms)
{
	s->look_ns = now + s->step_ns;
	s->step_ns = s->step_ns * 2 < last_ms * 1000000 ? s->step_ns * 2 : last_ms * 1000000;
}

static void close_pidfds(void)
{
	for (int i = 0; i < PIDFDS && deadman.pidfds[i] >= 0; i++)
		close(deadman.pidfds[i]);
}

static const char *instance(void)
{
	return deadman.table && deadman.table->instance[0] ? deadman.table->instance : NULL;
}

/* By what its tree is found, into TO; returns how many. */
static int leaders_of(const struct deadman_entry *entry, struct tree_leader *to)
{
	pid_t main_pid = atomic_load(&entry->main_pid);
	int leader_count = 1;

	to[0] = (struct tree_leader){.pid = atomic_load(&entry->pid),
		.start_ticks = atomic_load(&entry->start_ticks),
		.by_pid = true,
		.start = atomic_load(&entry->start)};
	if (main_pid > 1)
		to[leader_count++] = (struct tree_leader){.pid = main_pid,
			.start_ticks = atomic_load(&entry->main_ticks),
			.by_pid = true};
	return leader_count;
}

/* The table knows more of an executor than the message that armed it. */
static int leaders_of_slot(const struct slot *s, struct tree_leader *to)
{
	uint32_t capacity = deadman.table ? atomic_load(&deadman.table->capacity) : 0;

	for (uint32_t i = 0; i < capacity; i++) {
		const struct deadman_entry *entry = &deadman.table->entries[i];
		int leader_count;
		if (atomic_load(&entry->pid) != s->leader.pid)
			continue;
		leader_count = leaders_of(entry, to);
		if (!to->start_ticks)
			to->start_ticks = s->leader.start_ticks;
		return leader_count;
	}
	*to = s->leader;
	return 1;
}

static bool is_to_be_killed(const struct slot *s, int64_t now)
{
	return s->page && s->killing && s->look_ns <= now;
}

/* All of them in one scan. */
static void kill_slots(int64_t now)
{
	int leaders = 0, found;

	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		if (is_to_be_killed(&deadman.slots[i], now))
			leaders += leaders_of_slot(&deadman.slots[i], &deadman.leaders[leaders]);
	}
	if (leaders == 0)
		return;
	found = tree_kill_leaders(deadman.leaders, leaders, instance(), SIGKILL, NULL, 0, NULL);
	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		struct slot *s = &deadman.slots[i];
		if (!is_to_be_killed(s, now))
			continue;
		/* Negative (no /proc for the moment) counts as found. */
		s->killing = found != 0;
		if (s->killing)
			look_again(s, now, STEP_LAST_MS);
		else
			s->look_ns = 0;
	}
}

/* Read the page: is the deadline over, or when is it? A heartbeat that comes between is seen by
 * the compare-and-swap. */
static void look_at(struct slot *s, int64_t now)
{
	int64_t deadline = lease_deadline(s->page);

	while (deadline != 0 && deadline <= now) {
		if (!__atomic_compare_exchange_n(&s->page->deadline_ns, &deadline, 0, false,
			    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			continue;
		s->killing = true;
		s->step_ns = STEP_FIRST_MS * 1000000LL;
		return;
	}
	if (deadline != 0) {
		s->shown = true;
		s->look_ns = deadline;
	} else if (s->shown) {
		s->look_ns = 0; /* demoted: this term does not come back */
	} else {
		look_again(s, now, SHOW_LAST_MS);
	}
}

static void look_at_slots(void)
{
	int64_t now = lease_now_ns();

	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		struct slot *s = &deadman.slots[i];
		if (s->page && s->look_ns != 0 && s->look_ns <= now && !s->killing)
			look_at(s, now);
	}
	kill_slots(now);
}

static void set_timer(void)
{
	struct itimerspec when = {0};
	int64_t earliest = 0;

	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		int64_t look = deadman.slots[i].page ? deadman.slots[i].look_ns : 0;
		if (look != 0 && (earliest == 0 || look < earliest))
			earliest = look;
	}
	when.it_value.tv_sec = earliest / 1000000000;
	when.it_value.tv_nsec = earliest % 1000000000;
	timerfd_settime(deadman.timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* --- the supervisor is dead -------------------------------------------------------------- */

static void zero_pages(void)
{
	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		if (deadman.slots[i].page)
			lease_clear(deadman.slots[i].page);
	}
}

/* All that must die, from entry *AT of the table on; returns how many, *AT = where to go on. */
static int collect_leaders(uint32_t *at)
{
	uint32_t capacity = deadman.table ? atomic_load(&deadman.table->capacity) : 0;
	int count = 0;

	for (int i = 0; i < DEADMAN_EXECUTORS && *at == 0; i++) {
		if (deadman.slots[i].page)
			count += leaders_of_slot(&deadman.slots[i], &deadman.leaders[count]);
	}
	for (; *at < capacity && count + LEADERS_A_WORKER <= LEADERS; (*at)++) {
		const struct deadman_entry *entry = &deadman.table->entries[*at];
		if (atomic_load(&entry->pid) > 1 && (atomic_load(&entry->flags) & DEADMAN_KILL))
			count += leaders_of(entry, &deadman.leaders[count]);
	}
	if (*at >= capacity)
		*at = UINT32_MAX;
	return count;
}

/* Until one of those killed is gone, or the step is over. */
static void wait_for_deaths(int step_ms)
{
	struct pollfd p[PIDFDS];
	nfds_t count = 0;

	for (; count < PIDFDS && deadman.pidfds[count] >= 0; count++)
		p[count] = (struct pollfd){.fd = deadman.pidfds[count], .events = POLLIN};
	poll(p, count, step_ms);
	close_pidfds();
}

/* One round over everything: how many were found; -1 = could not look. */
static int kill_round(int step_ms)
{
	uint32_t at = 0;
	int found = 0;

	do {
		int leaders = collect_leaders(&at);
		int here = tree_kill_leaders(deadman.leaders, leaders, instance(), SIGKILL,
			deadman.pidfds, PIDFDS, NULL);
		if (here != 0)
			wait_for_deaths(here < 0 ? STEP_LAST_MS : step_ms);
		found = here < 0 || found < 0 ? -1 : found + here;
	} while (at != UINT32_MAX);
	return found;
}

static void avenge(void)
{
	int64_t epoch = deadman.table ? atomic_load(&deadman.table->epoch) : 0;
	int step_ms = STEP_FIRST_MS;
	struct err e;

	zero_pages();
	while (kill_round(step_ms) != 0)
		step_ms = step_ms * 2 < STEP_LAST_MS ? step_ms * 2 : STEP_LAST_MS;
	if (epoch > 0 && deadman.guard >= 0 && guard_mark_cleared(deadman.guard, epoch, &e) < 0)
		dprintf(STDERR_FILENO, "lock-deadman: %s\n", e.text);
}

/* --- messages --------------------------------------------------------------------------- */

/* A message and the descriptor that may come with it (-1 = none). 1, 0 = end of file, -1 = nothing
 * that makes sense. */
static int receive(struct deadman_message *m, int *ret_fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int) * 4)];
	} control;
	struct iovec bytes = {.iov_base = m, .iov_len = sizeof(*m)};
	struct msghdr h = {.msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(SOCKET_FD, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	*ret_fd = -1;
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? -1 : 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*ret_fd >= 0)
				close(*ret_fd);
			*ret_fd = fd;
		}
	}
	if (got == 0)
		return 0;
	return got == (ssize_t)sizeof(*m) && m->slot < DEADMAN_EXECUTORS ? 1 : -1;
}

static void take_guard(int fd)
{
	if (deadman.guard >= 0)
		close(deadman.guard);
	deadman.guard = fd;
}

/* What is not done is not answered: the supervisor's patience (1 s) ends and it demotes. */
static void handle(const struct deadman_message *m, int fd)
{
	bool answer = false, kept = false;

	switch (m->verb) {
	case DEADMAN_ARM:
		answer = arm(m, fd);
		break;
	case DEADMAN_DISARM:
		disarm(&deadman.slots[m->slot]);
		break;
	case DEADMAN_TABLE:
		answer = fd >= 0 && take_table(fd);
		break;
	case DEADMAN_GUARD:
		answer = kept = fd >= 0;
		if (kept)
			take_guard(fd);
		break;
	case DEADMAN_BYE:
		_exit(0);
	default:
		break;
	}
	if (fd >= 0 && !kept)
		close(fd);
	if (answer)
		(void)!send(SOCKET_FD, m, sizeof(*m), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* False when there was none. */
static bool read_message(void)
{
	struct deadman_message m;
	int fd;
	int got = receive(&m, &fd);

	if (got == 1) {
		handle(&m, fd);
		return true;
	}
	if (fd >= 0)
		close(fd);
	if (got == 0)
		deadman.deaf = true;
	return false;
}

static void drain(void)
{
	while (!deadman.deaf && read_message())
		continue;
}

static void serve(void)
{
	for (;;) {
		struct pollfd p[3] = {{.fd = SUPERVISOR_FD, .events = POLLIN},
			{.fd = deadman.timer, .events = POLLIN},
			{.fd = deadman.deaf ? -1 : SOCKET_FD, .events = POLLIN}};
		if (poll(p, 3, -1) < 0)
			continue;
		if (p[0].revents & POLLIN) {
			zero_pages();
			drain(); /* a BYE that was sent before the end, a table not yet read */
			avenge();
			return;
		}
		if (p[2].revents)
			read_message();
		look_at_slots();
		set_timer(); /* also disarms the expiry that was polled */
	}
}

/* What the kill needs is touched now, and stays: only what is in use is locked, not the whole of
 * the libraries. */
static void stay_in_memory(void)
{
	/* Without MCL_FUTURE: a limit on locked memory would make a later mapping fail. */
	(void)mlockall(MCL_CURRENT | MCL_ONFAULT);
	tree_kill_leaders(deadman.leaders, 0, NULL, 0, deadman.pidfds, PIDFDS, NULL);
}

static int cannot_start(const char *what)
{
	dprintf(STDERR_FILENO, "lock-deadman: cannot start: %s: %s\n", what, strerror(errno));
	return EXIT_START;
}

int deadman_main(int argc, char **argv)
{
	struct pollfd supervisor = {.fd = SUPERVISOR_FD, .events = POLLIN};
	struct stat status;

	(void)argc;
	(void)argv;
	prctl(PR_SET_NAME, "lock-deadman");
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	deadman.guard = fstat(GUARD_FD, &status) == 0 && S_ISREG(status.st_mode) ? GUARD_FD : -1;
	if (poll(&supervisor, 1, 0) < 0 || (supervisor.revents & POLLNVAL))
		return cannot_start("no pidfd of the supervisor");
	if (!take_table(TABLE_FD))
		return cannot_start("no table of workers");
	deadman.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (deadman.timer < 0)
		return cannot_start("timerfd");
	stay_in_memory();
	serve();
	return 0;
}

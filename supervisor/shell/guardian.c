/* The shell's end of the deadman: its start, its table, arming. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "supervisor/core/pool.h"
#include "supervisor/shell/state.h"

#define FIRST_TABLE    64
#define QUICK_DEATH_NS CORE_SECOND
#define QUICK_DEATHS   5
#define AGAIN_NS       CORE_SECOND
#define LATER_NS       (30 * CORE_SECOND)
#define STUCK_NS       (900 * CORE_MS) /* the core waits a second for the answer */

/* One message, with a descriptor (-1 = none). The socket holds far more than is ever sent; a
 * deadman that does not read (it is stopped, it hangs) is no deadman: another one takes its place.
 */
static bool send_message(struct supervisor *s, const struct deadman_message *m, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec bytes = {.iov_base = (void *)m, .iov_len = sizeof *m};
	struct msghdr h = {.msg_iov = &bytes, .msg_iovlen = 1};

	if (s->lock.deadman.fd < 0)
		return false;
	if (fd >= 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof control);
		h.msg_control = &control;
		h.msg_controllen = sizeof control;
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sendmsg(s->lock.deadman.fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof *m)
		return true;
	if (s->lock.deadman.pid > 0)
		(void)kill(s->lock.deadman.pid, SIGKILL); /* its reaper starts the other one */
	return false;
}

/* Ours has every executor: the one of the image before goes. By a signal, which is the same in
 * every version. */
static void dismiss_former(struct supervisor *s)
{
	struct lock_state *l = &s->lock;

	if (l->former.pid <= 0 || !l->deadman_heard)
		return;
	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		if (l->armed_program[i] >= 0 && l->arm_sent_ns[i] != 0)
			return;
	}
	(void)kill(l->former.pid, SIGKILL);
}

static void deadman_readable(void *context, unsigned events)
{
	struct supervisor *s = context;
	struct deadman_message m;
	struct event e = {.kind = EVENT_DEADMAN_ARMED, .worker = -1, .program = -1};
	ssize_t n = recv(s->lock.deadman.fd, &m, sizeof m, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof m) {
		helper_close(&s->lock.deadman); /* it is dead or dying: the reaper goes on */
		if (s->lock.deadman.pid > 0)
			(void)kill(s->lock.deadman.pid, SIGKILL);
		return;
	}
	s->lock.deadman_heard = true;
	if (m.verb == DEADMAN_ARM && m.slot < DEADMAN_EXECUTORS)
		s->lock.arm_sent_ns[m.slot] = 0;
	dismiss_former(s);
	if (m.verb != DEADMAN_ARM || m.slot >= DEADMAN_EXECUTORS)
		return;
	e.program = s->lock.armed_program[m.slot];
	e.term = m.term;
	if (e.program >= 0)
		supervisor_post(s, &e);
}

static int start_deadman(struct supervisor *s, struct err *e)
{
	struct lock_state *l = &s->lock;
	struct deadman_message hello = {.verb = DEADMAN_TABLE};
	struct child_fd fds[4];
	size_t count = 3;
	int pair[2], pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (pidfd < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot open a pidfd of ourselves: %s", strerror(errno));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		close(pidfd);
		return err_set(
			e, ERR_SYSTEM, "cannot make the deadman's socket: %s", strerror(errno));
	}
	fds[0] = (struct child_fd){pair[1], 3};
	fds[1] = (struct child_fd){l->table_fd, 4};
	fds[2] = (struct child_fd){pidfd, 6};
	if (l->guard_fd >= 0)
		fds[count++] = (struct child_fd){l->guard_fd, 5};
	l->deadman.pid = spawn_helper(s, "lock-deadman", NULL, fds, count, e);
	close(pair[1]);
	close(pidfd);
	if (l->deadman.pid < 0) {
		l->deadman.pid = 0;
		close(pair[0]);
		return e->code;
	}
	l->deadman_heard = false;
	l->deadman.fd = pair[0];
	l->deadman.started_ns = lease_now_ns();
	l->deadman.watch = loop_watch(s->loop, pair[0], LOOP_READ, deadman_readable, s);
	if (l->former.pid >
		0) /* its answer says that it runs, whether there is an executor or not */
		(void)send_message(s, &hello, l->table_fd);
	return 0;
}

/* The table of the image before, when ours looks otherwise: that deadman goes on with what is in
 * it, but it does not know whoever is started from now on, so it must not say that all are dead. */
static void blind_former(struct supervisor *s, int fd)
{
	struct deadman_table *head = mmap(
		NULL, sizeof *head, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (head == MAP_FAILED) {
		(void)kill(s->lock.former.pid, SIGKILL);
		return;
	}
	atomic_store(&head->epoch, 0);
	munmap(head, sizeof *head);
}

/* The same table: what is spawned now both deadmen know. */
static int map_table(struct supervisor *s, struct err *e)
{
	struct deadman_table *table = mmap(
		NULL, sizeof *table, PROT_READ, MAP_SHARED, s->lock.table_fd, 0);
	size_t bytes;

	if (table == MAP_FAILED)
		return err_set(
			e, ERR_SYSTEM, "cannot map the deadman's table: %s", strerror(errno));
	bytes = deadman_table_bytes(atomic_load(&table->capacity));
	munmap(table, sizeof *table);
	table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->lock.table_fd, 0);
	if (table == MAP_FAILED)
		return err_set(
			e, ERR_SYSTEM, "cannot map the deadman's table: %s", strerror(errno));
	s->lock.table = table;
	return 0;
}

/* A slot keeps what its last process was: pid and id of one that is gone, maybe another's by now.
 */
static bool has_processes(const struct supervisor *s, const struct process *p)
{
	const struct worker *w = &s->core.workers[p->slot];

	return w->used && p->id != 0 && w->id == p->id && p->pid > 0 &&
	       (p->leader_alive || w->tree);
}

static int make_table_anew(struct supervisor *s, struct err *e)
{
	int old = s->lock.table_fd;

	s->lock.table_fd = -1;
	if (lock_table_reserve(
		    s, s->process_slots > FIRST_TABLE ? s->process_slots : FIRST_TABLE, e) < 0)
		return e->code;
	for (int i = 0; i < s->process_slots; i++) {
		const struct process *p = &s->processes[i];

		if (!has_processes(s, p))
			continue;
		lock_table_set(s, p,
			s->core.workers[i].settings->executor != EXECUTOR_NO ||
				!s->config->keep_on_supervisor_death);
		if (p->leader_alive && !p->leader_reaped)
			atomic_store(
				&s->lock.table->entries[i].start_ticks, tree_start_ticks(p->pid));
	}
	atomic_store(&s->lock.table->epoch, s->lock.guard_epoch);
	blind_former(s, old);
	close(old);
	return 0;
}

/* Ours is started and armed while that of the image before still guards what it guarded. */
int guardian_resume(struct supervisor *s, bool same_protocol, struct err *e)
{
	struct event up = {.kind = EVENT_DEADMAN_UP, .worker = -1, .program = -1};
	struct lock_state *l = &s->lock;

	if (l->table_fd < 0)
		return 0; /* it has none */
	l->former = l->deadman;
	l->former.watch = NULL;
	helper_close(&l->former); /* no proof of our death to it */
	l->deadman = (struct helper){.fd = -1};
	if ((same_protocol ? map_table(s, e) : make_table_anew(s, e)) < 0)
		return e->code;
	if (start_deadman(s, e) < 0)
		return e->code;
	supervisor_post(s, &up); /* the core arms what has to be */
	return 0;
}

int lock_stage_deadman(struct supervisor *s, struct err *e)
{
	if (!s->config->scheduler.enabled && s->config->keep_on_supervisor_death)
		return 0; /* nothing that it would have to kill */
	if (lock_table_reserve(s, FIRST_TABLE, e) < 0)
		return e->code;
	return start_deadman(s, e);
}

void lock_stage_deadman_down(struct supervisor *s)
{
	struct deadman_message m = {.verb = DEADMAN_BYE};

	/* Something does not end even after SIGKILL: the deadman goes on with it. */
	if (pool_all_down(&s->core)) {
		(void)send_message(s, &m, -1);
		if (s->lock.former.pid > 0)
			(void)kill(s->lock.former.pid, SIGKILL);
	}
	helper_close(&s->lock.deadman);
	s->lock.deadman.pid = 0;
	s->lock.deadman_at_ns = 0;
}

bool guardian_reaped(struct supervisor *s, pid_t pid, int status)
{
	struct helper *d = &s->lock.deadman;
	struct event e = {.kind = EVENT_DEADMAN_LOST, .worker = -1, .program = -1};
	struct err err;

	if (pid == s->lock.former.pid) {
		s->lock.former.pid = 0;
		return true;
	}
	if (pid != d->pid)
		return false;
	helper_close(d);
	d->pid = 0;
	if (s->exiting)
		return true;
	d->quick_deaths = lease_now_ns() - d->started_ns < QUICK_DEATH_NS ? d->quick_deaths + 1 : 0;
	logs_event(s->logs, LOGS_WARNING, "lock.deadman_died", NULL, 0,
		"the deadman ended with status %d; %s", status,
		d->quick_deaths < QUICK_DEATHS
			? "starting another at once"
			: "another is started in a while, or when an executor needs it");
	supervisor_post(s, &e);
	if (d->quick_deaths >= QUICK_DEATHS) {
		s->lock.deadman_at_ns = lease_now_ns() + LATER_NS;
		return true;
	}
	if (start_deadman(s, &err) < 0) {
		logs_event(
			s->logs, LOGS_ERROR, "lock.deadman", NULL, 0, "%s; trying again", err.text);
		s->lock.deadman_at_ns = lease_now_ns() + AGAIN_NS;
		return true;
	}
	e.kind = EVENT_DEADMAN_UP;
	supervisor_post(s, &e);
	return true;
}

/* One that could not be started (no process, no descriptor) is tried until it is there: without it
 * nobody kills the workers when the supervisor dies. */
void guardian_check(struct supervisor *s)
{
	struct event e = {.kind = EVENT_DEADMAN_UP, .worker = -1, .program = -1};
	struct err err;

	if (s->lock.deadman.pid > 0 || s->exiting)
		s->lock.deadman_at_ns = 0;
	if (s->lock.deadman_at_ns == 0 || lease_now_ns() < s->lock.deadman_at_ns)
		return;
	if (start_deadman(s, &err) < 0) {
		s->lock.deadman_at_ns = lease_now_ns() + AGAIN_NS;
		return;
	}
	s->lock.deadman_at_ns = 0;
	supervisor_post(s, &e);
}

int64_t guardian_deadline(const struct supervisor *s)
{
	return s->lock.deadman_at_ns;
}

void guardian_give_guard(struct supervisor *s)
{
	struct deadman_message m = {.verb = DEADMAN_GUARD};

	if (s->lock.deadman.fd >= 0)
		(void)send_message(s, &m, s->lock.guard_fd);
}

/* --- arming -------------------------------------------------------------------------------- */
static int slot_of(struct supervisor *s, int program, bool make)
{
	int slot = -1;

	for (int i = 0; i < DEADMAN_EXECUTORS; i++) {
		if (s->lock.armed_program[i] == program)
			return i;
		if (slot < 0 && s->lock.armed_program[i] < 0)
			slot = i;
	}
	if (slot >= 0 && make)
		s->lock.armed_program[slot] = program;
	return make ? slot : -1;
}

void lock_arm(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);
	struct deadman_message m = {.verb = DEADMAN_ARM, .term = a->term};
	int slot = slot_of(s, a->program, true);
	struct err e;

	if (p == NULL || slot < 0 || p->lease.fd_rw < 0)
		return; /* not answered: the core's patience ends in a second */
	if (s->lock.deadman.fd < 0 && start_deadman(s, &e) < 0) {
		logs_event(s->logs, LOGS_ERROR, "lock.deadman", NULL, 0, "%s", e.text);
		return;
	}
	m.slot = (uint32_t)slot;
	m.pid = p->pid;
	s->lock.arm_sent_ns[slot] = lease_now_ns();
	(void)send_message(s, &m, p->lease.fd_rw);
}

/* One that hangs or is stopped would keep every executor away: another takes its place, as if it
 * had died. */
static void check_stuck(struct supervisor *s, int slot)
{
	int64_t sent_ns = s->lock.arm_sent_ns[slot];

	s->lock.arm_sent_ns[slot] = 0;
	if (sent_ns == 0 || lease_now_ns() - sent_ns < STUCK_NS || s->lock.deadman.pid <= 0 ||
		s->lock.deadman.started_ns > sent_ns)
		return;
	logs_event(s->logs, LOGS_WARNING, "lock.deadman_stuck", NULL, 0,
		"the deadman does not answer: it is killed, another takes its place");
	(void)kill(s->lock.deadman.pid, SIGKILL);
}

void lock_disarm(struct supervisor *s, int program)
{
	int slot = slot_of(s, program, false);
	struct deadman_message m = {.verb = DEADMAN_DISARM};

	if (slot < 0)
		return;
	check_stuck(s, slot);
	m.slot = (uint32_t)slot;
	s->lock.armed_program[slot] = -1;
	(void)send_message(s, &m, -1);
}

/* --- the table ----------------------------------------------------------------------------- */
int lock_table_reserve(struct supervisor *s, int slots, struct err *e)
{
	struct lock_state *l = &s->lock;
	struct deadman_table *table, *old = l->table;
	uint32_t capacity = FIRST_TABLE,
		 old_capacity = old != NULL ? atomic_load(&old->capacity) : 0;
	struct deadman_message m = {.verb = DEADMAN_TABLE};
	int fd;

	if ((uint32_t)slots <= old_capacity)
		return 0;
	while (capacity < (uint32_t)slots)
		capacity *= 2;
	if (deadman_table_create(capacity, &fd, &table, e) < 0)
		return e->code;
	snprintf(table->instance, sizeof table->instance, "%s", s->instance);
	if (old != NULL) {
		memcpy(table->entries, old->entries, old_capacity * sizeof *old->entries);
		atomic_store(&table->epoch, atomic_load(&old->epoch));
		munmap(old, deadman_table_bytes(old_capacity));
		close(l->table_fd);
	}
	l->table = table;
	l->table_fd = fd;
	if (l->deadman.fd >= 0)
		(void)send_message(s, &m, fd);
	return 0;
}

void lock_table_set(struct supervisor *s, const struct process *p, bool kill_it)
{
	struct deadman_entry *entry;

	if (s->lock.table == NULL || p->slot >= (int)atomic_load(&s->lock.table->capacity))
		return;
	entry = &s->lock.table->entries[p->slot];
	atomic_store(&entry->start, p->mark);
	atomic_store(&entry->flags, kill_it ? DEADMAN_KILL : 0);
	lock_table_main(s, p);
	atomic_store(&entry->pid, p->pid);
}

void lock_table_main(struct supervisor *s, const struct process *p)
{
	struct deadman_entry *entry;

	if (s->lock.table == NULL || p->slot >= (int)atomic_load(&s->lock.table->capacity))
		return;
	entry = &s->lock.table->entries[p->slot];
	atomic_store(&entry->main_pid, 0);
	atomic_store(&entry->start_ticks, p->leader_ticks);
	atomic_store(&entry->main_ticks, p->main_ticks);
	atomic_store(&entry->main_pid, p->main_pid);
}

void lock_table_clear(struct supervisor *s, int slot)
{
	if (s->lock.table != NULL && slot < (int)atomic_load(&s->lock.table->capacity))
		atomic_store(&s->lock.table->entries[slot].pid, 0);
}

/*
 * The main process of a worker, where that is not the one that was started: MAINPID= has named
 * another one of its tree. Status, signals and the worker's end are that one's from then on.
 *
 * The process that was started stays the leader: its number is that of the session, by which the
 * tree is found, also when it is gone. The end of the main process is told by the reaper once it is
 * our child (its parents are gone); before that its pidfd tells, and the leader takes its place.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/state.h"
#include "worker/tree.h"

/* --- by number ----------------------------------------------------------------------------- */
/* Chains of both numbers: slot + 1 stands for a leader, -(slot + 1) for another main process. */
static int *next_of(struct supervisor *s, int at)
{
	return at > 0 ? &s->processes[at - 1].pid_next : &s->processes[-at - 1].main_next;
}

static void link_number(struct supervisor *s, int at, pid_t pid)
{
	*next_of(s, at) = s->pid_heads[pid % PID_HEADS];
	s->pid_heads[pid % PID_HEADS] = at;
}

static void unlink_number(struct supervisor *s, int at, pid_t pid)
{
	int *link = &s->pid_heads[pid % PID_HEADS];

	while (*link != at) {
		assert(*link != 0);
		link = next_of(s, *link);
	}
	*link = *next_of(s, at);
}

struct process *supervisor_process_by_pid(struct supervisor *s, pid_t pid)
{
	if (pid <= 0)
		return NULL;
	for (int at = s->pid_heads[pid % PID_HEADS]; at != 0; at = *next_of(s, at)) {
		struct process *p = &s->processes[at > 0 ? at - 1 : -at - 1];

		/* The number of a leader that was reaped before its worker's end is free again. */
		if (at > 0 ? p->pid == pid && !(p->leader_alive && p->leader_reaped)
			   : p->main_pid == pid)
			return p;
	}
	return NULL;
}

struct process *supervisor_process_by_session(struct supervisor *s, pid_t session)
{
	struct process *p = supervisor_process_by_pid(s, session);

	/* While a session has members its number is nobody else's. */
	for (int at = session > 0 ? s->pid_heads[session % PID_HEADS] : 0; p == NULL && at != 0;
		at = *next_of(s, at)) {
		if (at > 0 && s->processes[at - 1].pid == session)
			p = &s->processes[at - 1];
	}
	return p;
}

void supervisor_set_pid(struct process *p, pid_t pid)
{
	if (p->pid != 0)
		unlink_number(p->supervisor, p->slot + 1, p->pid);
	p->pid = pid;
	if (pid != 0)
		link_number(p->supervisor, p->slot + 1, pid);
}

static void set_linked(struct process *p, bool linked)
{
	int at = -(p->slot + 1);

	if (linked && !p->main_linked)
		link_number(p->supervisor, at, p->main_pid);
	else if (!linked && p->main_linked)
		unlink_number(p->supervisor, at, p->main_pid);
	p->main_linked = linked;
}

/* --- the main process ---------------------------------------------------------------------- */
pid_t main_pid(const struct process *p)
{
	return p->main_pid != 0 ? p->main_pid : p->pid;
}

bool main_has_other(const struct process *p, pid_t than)
{
	return p->main_pid != 0 && p->main_pid != than;
}

int main_signal(const struct process *p, int sig)
{
	if (p->main_fd >= 0)
		return (int)syscall(SYS_pidfd_send_signal, p->main_fd, sig, NULL, 0);
	return kill(main_pid(p), sig);
}

void main_signal_group(const struct process *p, int sig)
{
	pid_t group = p->main_pid != 0 ? getpgid(p->main_pid) : p->pid;

	if (group > 1 && group != getpgid(0))
		(void)kill(-group, sig);
}

static void unwatch(struct process *p)
{
	loop_unwatch(p->main_watch);
	p->main_watch = NULL;
	if (p->main_fd >= 0)
		close(p->main_fd);
	p->main_fd = -1;
}

void main_forget(struct process *p)
{
	unwatch(p);
	set_linked(p, false);
}

static bool is_child(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static bool has_ended(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return poll(&p, 1, 0) != 0;
}

static void say(struct process *p, enum logs_level level, const char *event, const char *text)
{
	struct logs_field f[] = {
		{.key = "worker", .value = p->name}, {.key = "pid", .number = main_pid(p)}};

	logs_event(p->supervisor->logs, level, event, f, 2, "%s: %s", p->name, text);
	p->supervisor->changed = true;
}

static void back_to_leader(struct process *p, const char *why)
{
	const struct worker *w = &p->supervisor->core.workers[p->slot];

	main_forget(p);
	p->main_pid = 0;
	lock_table_main(p->supervisor, p);
	say(p, LOGS_INFO, "worker.main_process", why);
	if (w->state == WORKER_STOPPING && (w->term_sent || w->kill_sent))
		(void)kill(p->pid, w->kill_sent ? SIGKILL : w->settings->stopsignal);
}

/* It has ended, and perhaps it was another one's to reap. */
static void main_readable(void *context, unsigned events)
{
	struct process *p = context;
	siginfo_t unknown = {.si_code = CLD_EXITED, .si_status = -1};

	(void)events;
	if (is_child(p->main_pid))
		unwatch(p); /* the reaper's turn */
	else if (!p->leader_reaped)
		back_to_leader(p, "the process that MAINPID= had named has ended; the one that was "
				  "started is the main process again");
	else
		reap_died(p, &unknown);
}

void main_former_ended(struct process *p, const siginfo_t *info)
{
	p->leader_reaped = true;
	spawn_read_report(p);
	/* It has reaped the other before. */
	if (p->main_fd >= 0 && has_ended(p->main_fd) && !is_child(p->main_pid)) {
		main_forget(p); /* while its number is known, by which it is found */
		p->main_pid = 0;
		reap_died(p, info);
	}
}

void main_resume(struct process *p)
{
	if (p->main_fd >= 0)
		p->main_watch = loop_watch(
			p->supervisor->loop, p->main_fd, LOOP_READ, main_readable, p);
	set_linked(p, p->main_pid != 0 && p->leader_alive);
}

static void refuse(struct process *p, pid_t pid, const char *why)
{
	struct logs_field f[] = {
		{.key = "worker", .value = p->name}, {.key = "pid", .number = pid}};

	if (p->main_told)
		return;
	p->main_told = true;
	logs_event(p->supervisor->logs, LOGS_WARNING, "notify.mainpid", f, 2,
		"%s: MAINPID=%d is not taken: %s; pid %d stays its main process", p->name, (int)pid,
		why, (int)main_pid(p));
}

void main_named(struct process *p, pid_t pid)
{
	struct supervisor *s = p->supervisor;
	int fd;

	if (!p->leader_alive || pid == main_pid(p))
		return;
	if (pid == p->pid && !p->leader_reaped) {
		back_to_leader(p, "the one that was started is the main process again (MAINPID=)");
		return;
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0 && errno != ESRCH && errno != EINVAL) {
		refuse(p, pid, "no pidfd of it can be opened");
	} else if (fd < 0 || reap_owner(s, pid) != p || has_ended(fd)) {
		refuse(p, pid, "it is no process of this worker's tree");
	} else {
		main_forget(p);
		if (p->leader_ticks == 0)
			p->leader_ticks = tree_start_ticks(p->pid);
		p->main_pid = pid;
		p->main_ticks = tree_start_ticks(pid);
		p->main_fd = fd;
		main_resume(p);
		lock_table_main(s, p);
		say(p, LOGS_INFO, "worker.main_process", "MAINPID= names another main process");
		return;
	}
	if (fd >= 0)
		close(fd);
}

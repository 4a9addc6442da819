/* Deaths: reaping (also of orphans, as subreaper or PID 1), what is left of a tree, signals. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/probes.h"
#include "supervisor/shell/strays.h"
#include "supervisor/shell/spawn_table.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/upgrade.h"

#define ANCESTORS     32
#define BACKGROUND_NS (10 * CORE_SECOND) /* an end within that is one of the start */

/* --- out of memory ------------------------------------------------------------------------- */
/* The count of "oom_kill" in memory.events (cgroup 2) or memory.oom_control (cgroup 1); -1 = the
 * kernel does not say. */
static int64_t read_oom(const char *path)
{
	char text[1024];
	const char *line;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	line = strstr(text, "oom_kill ");
	return line != NULL ? strtoll(line + strlen("oom_kill "), NULL, 10) : -1;
}

void reap_oom_init(struct supervisor *s)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[512], *group;

	s->oom.count = -1;
	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		bool second = strncmp(line, "0::", 3) == 0;

		line[strcspn(line, "\n")] = '\0';
		group = strrchr(line, ':');
		if (group == NULL || (!second && strstr(line, ":memory:") == NULL))
			continue;
		snprintf(s->oom.path, sizeof s->oom.path,
			second ? "/sys/fs/cgroup%.400s/memory.events"
			       : "/sys/fs/cgroup/memory%.400s/memory.oom_control",
			strcmp(group + 1, "/") == 0 ? "" : group + 1);
		s->oom.count = read_oom(s->oom.path);
		if (s->oom.count >= 0)
			break;
	}
	if (f != NULL)
		fclose(f);
	if (s->oom.count < 0)
		s->oom.path[0] = '\0';
}

static bool killed_by_oom(struct supervisor *s)
{
	int64_t count;

	if (s->oom.path[0] == '\0')
		return false;
	count = read_oom(s->oom.path);
	if (count <= s->oom.count)
		return false;
	s->oom.count = count;
	return true;
}

/* --- what is left below a dead worker ------------------------------------------------------ */
/* Counted once for all that one round has reaped: a tree that has no orphan once its leader is
 * reaped never has one again. */
static int orphans_now(struct supervisor *s)
{
	if (s->counted_round != s->reap_round)
		s->orphans = strays_list(s, NULL, 0);
	s->counted_round = s->reap_round;
	return s->orphans;
}

static void set_collecting(struct process *p, bool collecting)
{
	p->supervisor->collecting += (int)collecting - (int)p->collecting;
	p->collecting = collecting;
}

/* Read what there is; false: that was all that there can be. */
static bool end_stream(struct process *p, int i)
{
	struct logs_stream *stream = p->streams[i];

	if (stream == NULL || !logs_stream_drain(stream))
		return stream != NULL;
	p->streams[i] = NULL;
	logs_stream_close(stream);
	return false;
}

static void announce(struct process *p)
{
	struct supervisor *s = p->supervisor;

	for (int i = 0; i < 2; i++) {
		if (end_stream(p, i))
			logs_stream_detach(p->streams[i]);
		p->streams[i] = NULL;
	}
	set_collecting(p, false);
	lock_table_clear(s, p->slot);
	supervisor_post_worker(s, EVENT_GONE, p);
	if (p->collect_tree && orphans_now(s) > 0)
		strays_tell(s);
}

/* By what P's tree is found; *STRAYS of them are children of ours. */
static int leaders_of(struct process *p, const struct tree_leader **ret_leaders, int *ret_strays)
{
	static struct tree_leader leaders[2 + STRAYS_MOST];
	int n = 0;

	leaders[n++] = (struct tree_leader){.pid = p->pid, .start_ticks = p->leader_ticks};
	if (p->main_pid != 0)
		leaders[n++] = (struct tree_leader){
			.pid = p->main_pid, .start_ticks = p->main_ticks, .by_pid = true};
	*ret_leaders = leaders;
	*ret_strays = strays_marked(
		p->supervisor, (struct tree_mark){p->mark, 0}, leaders + n, STRAYS_MOST);
	return n + *ret_strays;
}

/* Signals what is left of P's tree, once for each signal. A look that failed found something: the
 * core's next SIGKILL looks again. */
static bool is_empty(struct process *p)
{
	const struct tree_leader *leaders;
	int strays, n = leaders_of(p, &leaders, &strays), left;
	bool again;
	struct err e;

	do {
		left = p->signalled ? tree_scan_leaders(leaders, n, NULL, 0, &e)
				    : tree_kill_leaders(
					      leaders, n, NULL, p->collect_signal, NULL, 0, &e);
		/* One may have lost its parents between the two looks. */
		again = left == 0 && strays == 0;
		if (again)
			n = leaders_of(p, &leaders, &strays);
	} while (again && strays > 0);
	if (left < 0)
		logs_event(p->supervisor->logs, LOGS_ERROR, "worker.scan", NULL, 0, "%s: %s",
			p->name, e.text);
	else if (left > 0)
		p->signalled = true;
	return left == 0;
}

/* Is the tree empty? If not, see to it; if so, announce it. */
static void collect(struct process *p, int orphans)
{
	if (!p->collecting || p->leader_alive)
		return;
	if (!p->collect_tree || orphans == 0 || is_empty(p))
		announce(p);
}

static void collect_all(struct supervisor *s)
{
	for (int i = 0; i < s->process_slots && s->collecting > 0; i++) {
		struct process *p = &s->processes[i];

		if (p->id != 0 && p->collecting && !p->leader_alive)
			collect(p, orphans_now(s));
	}
}

void reap_collect(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p == NULL)
		return;
	set_collecting(p, true);
	p->collect_tree = a->tree;
	p->collect_signal = a->signal;
	p->signalled = false;
	if (!p->leader_alive)
		collect(p, a->tree ? orphans_now(s) : 0);
}

void reap_kill_tree(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p == NULL || p->pid <= 0)
		return;
	report_kill(s, p);
	if (p->leader_alive)
		(void)main_signal(p, SIGKILL);
	p->collect_signal = SIGKILL;
	p->signalled = false;
	if (is_empty(p))
		collect(p, 0);
}

void reap_signal(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p == NULL || p->pid <= 0)
		return;
	if (a->signal == SIGKILL)
		report_kill(s, p);
	if (a->group)
		main_signal_group(p, a->signal);
	if (p->leader_alive)
		(void)main_signal(p, a->signal);
	else if (p->collecting && p->collect_tree)
		main_signal_group(p, a->signal);
}

/* --- reaping ------------------------------------------------------------------------------- */
/* A start that ends at once and well has gone to the background, where something of it is left. */
static void note_background(struct supervisor *s, struct process *p)
{
	const struct worker *w = &s->core.workers[p->slot];
	struct logs_field f[] = {{.key = "worker", .value = p->name}, {.key = "pid"}};
	const struct tree_leader *leaders;
	int strays, n;
	struct err e;

	if ((w->state != WORKER_STARTING && w->state != WORKER_RUNNING) ||
		lease_now_ns() - w->started_ns > BACKGROUND_NS || strays_list(s, NULL, 0) == 0)
		return;
	n = leaders_of(p, &leaders, &strays);
	if (tree_scan_leaders(leaders, n, &p->left_pid, 1, &e) <= 0)
		p->left_pid = strays_nobodys(s, w->started_ns);
	f[1].number = p->left_pid;
	if (p->left_pid == 0 || w->failures > 0 || w->repeats > 0) /* once, not at each try */
		return;
	logs_event(s->logs, LOGS_WARNING, "worker.background", f, 2,
		"%s went to the background (pid %d is left): baton supervises what it starts; keep "
		"it in the foreground (for example --no-daemon)",
		p->name, (int)p->left_pid);
}

void reap_died(struct process *p, const siginfo_t *info)
{
	struct event e = {.kind = EVENT_DIED, .worker = p->slot, .id = p->id, .program = -1};
	struct supervisor *s = p->supervisor;

	table_free(
		p); /* of its pipes too: their end can be seen now, and its last words come first */
	for (int i = 0; i < 2; i++)
		(void)end_stream(p, i);
	spawn_read_report(p); /* why it could not start, or that it had started, comes first */
	p->leader_alive = false;
	if (info->si_code == CLD_EXITED) {
		e.code = info->si_status;
	} else {
		e.code = -1;
		e.signal = info->si_status;
	}
	e.oom = e.signal == SIGKILL && killed_by_oom(s);
	if (info->si_code == CLD_EXITED && info->si_status == 0)
		note_background(s, p);
	main_forget(p);
	supervisor_post(s, &e);
}

static void reaped(struct supervisor *s, const siginfo_t *info)
{
	struct process *p = supervisor_process_by_pid(s, info->si_pid);
	int status = info->si_code == CLD_EXITED ? info->si_status : 128 + info->si_status;

	if (p != NULL && p->leader_alive && main_has_other(p, info->si_pid))
		main_former_ended(p, info);
	else if (p != NULL && p->leader_alive)
		reap_died(p, info);
	else if (!probes_reaped(s, info->si_pid, status) && !lock_reaped(s, info->si_pid, status) &&
		 !upgrade_reaped(s, info->si_pid, status))
		(void)hooks_reaped(s, info->si_pid, status);
	/* else: an orphan; as subreaper (and as PID 1) it was ours to reap */
}

void reap_children(struct supervisor *s)
{
	/* Who has handed over to another process (MAINPID=) said so before it ended. */
	notify_read(s->notify);
	for (;;) {
		siginfo_t info = {0};

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
			break;
		reaped(s, &info);
	}
	s->reap_round++;
	collect_all(s);
}

/* --- whose process is it ------------------------------------------------------------------- */
static pid_t parent_of(pid_t pid)
{
	char path[64], text[512], *end;
	int fd, parent = 0;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	end = strrchr(text, ')');
	if (end == NULL || sscanf(end + 1, " %*c %d", &parent) != 1)
		return 0;
	return parent;
}

struct process *reap_owner(struct supervisor *s, pid_t pid)
{
	struct process *p = supervisor_process_by_pid(s, pid), *itself = p;
	pid_t session, parent = pid;

	if (p != NULL && p->leader_alive)
		return p;
	session = getsid(pid);
	if (session > 0 && session != getsid(0)) {
		p = supervisor_process_by_session(s, session);
		if (p != NULL)
			return p;
	}
	for (int i = 0; i < ANCESTORS && pid > 1 && pid != getpid(); i++) {
		parent = parent_of(pid);
		if (parent == getpid()) /* a child that we did not fork: only its mark tells */
			p = strays_owner(s, pid);
		else
			p = parent > 1 ? supervisor_process_by_pid(s, parent) : NULL;
		if (p != NULL)
			return p;
		pid = parent;
	}
	return itself; /* what it said before it died */
}

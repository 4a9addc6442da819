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
#include "supervisor/shell/spawn_table.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/upgrade.h"

#define CHILDREN_BYTES 65536
#define ANCESTORS      32

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
static bool is_known(struct supervisor *s, pid_t pid)
{
	const struct process *p;

	if (pid == s->lock.keeper.pid || pid == s->lock.deadman.pid || pid == s->lock.waiter.pid ||
		pid == s->lock.former.pid || pid == s->upgrade.pid || claims_is_keeper(s, pid))
		return true;
	for (int i = 0; i < HOOK_PROCESSES; i++) {
		if (s->hooks[i].pid == pid)
			return true;
	}
	p = supervisor_process_by_pid(s, pid);
	return (p != NULL && p->leader_alive) || probes_is_known(s, pid);
}

/* Children that are no leaders of ours: what dead workers left behind comes to us, the subreaper.
 * One read of the kernel's list instead of a scan of /proc. -1 = the kernel has no such list. (It
 * is exact: nobody but us takes a child off it.) */
static int count_orphans(struct supervisor *s)
{
	static char text[CHILDREN_BYTES];
	char path[64];
	int fd, orphans = 0;
	ssize_t n, used = 0;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	while (used < (ssize_t)sizeof text - 1 &&
		(n = read(fd, text + used, sizeof text - 1 - (size_t)used)) > 0)
		used += n;
	close(fd);
	if (used >= (ssize_t)sizeof text - 1)
		return -1;
	text[used] = '\0';
	for (char *at = text, *end; *at != '\0'; at = end) {
		long pid = strtol(at, &end, 10);

		if (end == at)
			break;
		orphans += !is_known(s, (pid_t)pid);
	}
	return orphans;
}

/* Counted once for all that one round has reaped: a tree that has no orphan once its leader is
 * reaped never has one again. */
static int orphans_now(struct supervisor *s)
{
	if (s->counted_round != s->reap_round)
		s->orphans = count_orphans(s);
	s->counted_round = s->reap_round;
	return s->orphans;
}

static void set_collecting(struct process *p, bool collecting)
{
	p->supervisor->collecting += (int)collecting - (int)p->collecting;
	p->collecting = collecting;
}

static void announce(struct process *p)
{
	struct supervisor *s = p->supervisor;

	for (int i = 0; i < 2; i++) {
		struct logs_stream *stream = p->streams[i];

		if (stream == NULL)
			continue;
		p->streams[i] = NULL;
		if (logs_stream_drain(stream))
			logs_stream_close(stream);
		else
			logs_stream_detach(stream);
	}
	set_collecting(p, false);
	lock_table_clear(s, p->slot);
	supervisor_post_worker(s, EVENT_GONE, p);
}

/* Signals what is left of P's tree, once for each signal. A look that failed found something: the
 * core's next SIGKILL looks again. */
static bool is_empty(struct process *p)
{
	struct err e;
	int left = p->signalled ? tree_scan(p->pid, NULL, 0, &e)
				: tree_kill(p->pid, p->collect_signal, &e);

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
		(void)kill(p->pid, SIGKILL);
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
		(void)kill(-p->pid, a->signal);
	if (p->leader_alive)
		(void)kill(p->pid, a->signal);
	else if (p->collecting && p->collect_tree)
		(void)kill(-p->pid, a->signal);
}

/* --- reaping ------------------------------------------------------------------------------- */
static void worker_died(struct supervisor *s, struct process *p, const siginfo_t *info)
{
	struct event e = {.kind = EVENT_DIED, .worker = p->slot, .id = p->id, .program = -1};

	table_free(p);
	spawn_read_report(p); /* why it could not start, or that it had started, comes first */
	p->leader_alive = false;
	if (info->si_code == CLD_EXITED) {
		e.code = info->si_status;
	} else {
		e.code = -1;
		e.signal = info->si_status;
	}
	e.oom = e.signal == SIGKILL && killed_by_oom(s);
	supervisor_post(s, &e);
}

static void reaped(struct supervisor *s, const siginfo_t *info)
{
	struct process *p = supervisor_process_by_pid(s, info->si_pid);
	int status = info->si_code == CLD_EXITED ? info->si_status : 128 + info->si_status;

	if (p != NULL && p->leader_alive)
		worker_died(s, p, info);
	else if (!probes_reaped(s, info->si_pid, status) && !lock_reaped(s, info->si_pid, status) &&
		 !upgrade_reaped(s, info->si_pid, status))
		(void)hooks_reaped(s, info->si_pid, status);
	/* else: an orphan; as subreaper (and as PID 1) it was ours to reap */
}

void reap_children(struct supervisor *s)
{
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
	pid_t session;

	if (p != NULL && p->leader_alive)
		return p;
	session = getsid(pid);
	if (session > 0 && session != getsid(0)) {
		p = supervisor_process_by_pid(s, session);
		if (p != NULL)
			return p;
	}
	for (int i = 0; i < ANCESTORS && pid > 1 && pid != getpid(); i++) {
		pid = parent_of(pid);
		p = pid > 1 ? supervisor_process_by_pid(s, pid) : NULL;
		if (p != NULL)
			return p;
	}
	return itself; /* what it said before it died */
}

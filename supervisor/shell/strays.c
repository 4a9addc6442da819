#include "supervisor/shell/claims.h"
#include "supervisor/shell/strays.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/probes.h"

#define CHILDREN_BYTES (1 << 20)
#define END_MS         1000 /* what was killed at the end may hold a port: its death is awaited */
#define END_STEP_MS    20
#define PATIENCE_NS    (10 * CORE_MS)

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
	return (p != NULL && p->leader_alive && (p->pid != pid || !p->leader_reaped)) ||
	       probes_is_known(s, pid);
}

/* One read of the kernel's list instead of a scan of /proc. (It is exact: nobody but us takes a
 * child off it.) */
int strays_list(struct supervisor *s, pid_t *ret_pids, int room)
{
	static char text[CHILDREN_BYTES];
	char path[64];
	int fd, strays = 0;
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
		pid_t pid = (pid_t)strtol(at, &end, 10);

		if (end == at)
			break;
		if (is_known(s, pid))
			continue;
		if (strays < room)
			ret_pids[strays] = pid;
		strays++;
	}
	return strays;
}

/* --- whose -------------------------------------------------------------------------------- */
/* Or its tree is: of a leader that has just been reaped the core will hear. */
static bool is_there(const struct process *p)
{
	const struct worker *w = p != NULL ? &p->supervisor->core.workers[p->slot] : NULL;

	return w != NULL && (p->leader_alive || p->collecting || (w->tree && w->id == p->id));
}

/* By session or group, which need no look into the process. */
static struct process *owner_by_number(struct supervisor *s, pid_t pid)
{
	const pid_t numbers[] = {getsid(pid), getpgid(pid)};

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct process *p = numbers[i] > 1 && numbers[i] != getsid(0)
					    ? supervisor_process_by_session(s, numbers[i])
					    : NULL;

		if (is_there(p))
			return p;
	}
	return NULL;
}

struct process *strays_owner(struct supervisor *s, pid_t pid)
{
	struct process *p = owner_by_number(s, pid);
	struct tree_mark mark;

	if (p != NULL || !tree_read_mark(pid, s->instance, NULL, &mark))
		return p;
	for (int i = 0; i < s->process_slots; i++) {
		if (s->processes[i].id != 0 && s->processes[i].mark == mark.start)
			return &s->processes[i];
	}
	return NULL;
}

/* What is in the middle of an exec is waited for, but the loop must not stand still for whatever
 * only looks so: 10 ms of a second at most. */
static int64_t *patience(void)
{
	static int64_t left_ns, since_ns;
	int64_t now_ns = lease_now_ns();

	if (since_ns == 0 || now_ns - since_ns >= CORE_SECOND) {
		left_ns = PATIENCE_NS;
		since_ns = now_ns;
	}
	return &left_ns;
}

int strays_marked(
	struct supervisor *s, struct tree_mark wanted, struct tree_leader *ret_leaders, int room)
{
	static pid_t pids[STRAYS_MOST];
	int strays = strays_list(s, pids, STRAYS_MOST), found = 0;
	struct tree_mark mark;

	for (int i = 0; i < strays && i < STRAYS_MOST && found < room; i++) {
		if (owner_by_number(s, pids[i]) != NULL ||
			!tree_read_mark(pids[i], s->instance, patience(), &mark) ||
			mark.start != wanted.start ||
			(wanted.part != 0 && mark.part != wanted.part))
			continue;
		ret_leaders[found++] = (struct tree_leader){.pid = pids[i]};
	}
	return found;
}

/* --- nobody's ----------------------------------------------------------------------------- */
static bool has_variable(pid_t pid, const char *name)
{
	char path[64], *line = NULL;
	size_t bytes = 0, n = strlen(name);
	bool found = false;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
	f = fopen(path, "re");
	while (f != NULL && !found && getdelim(&line, &bytes, '\0', f) > 0)
		found = strncmp(line, name, n) == 0 && line[n] == '=';
	free(line);
	if (f != NULL)
		fclose(f);
	return found;
}

/* Our own image: a helper that was killed and will be reaped as a stranger. */
static bool is_image(pid_t pid)
{
	char path[64];
	struct stat its, ours;

	snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
	return stat(path, &its) == 0 && stat("/proc/self/exe", &ours) == 0 &&
	       its.st_dev == ours.st_dev && its.st_ino == ours.st_ino;
}

static int64_t started_ns(pid_t pid) /* rounded up; 0 = it is gone */
{
	int64_t tick_ns = CORE_SECOND / sysconf(_SC_CLK_TCK);
	uint64_t ticks = tree_start_ticks(pid);

	return ticks != 0 ? ((int64_t)ticks + 1) * tick_ns : 0;
}

static bool is_dead(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid != 0;
}

/* A worker's, once, and of none that is there. Not what ran before us (`helper & exec baton run`),
 * and not a hook's. */
static bool is_nobodys(struct supervisor *s, pid_t pid)
{
	pid_t session = getsid(pid);

	for (int i = 0; i < HOOK_PROCESSES; i++) {
		if (session > 0 && s->hooks[i].pid == session)
			return false;
	}
	return !is_dead(pid) && !is_there(strays_owner(s, pid)) &&
	       started_ns(pid) >= s->core.lifecycle.boot_ns && !is_image(pid) &&
	       !has_variable(pid, "BATON_EVENT");
}

pid_t strays_nobodys(struct supervisor *s, int64_t since_ns)
{
	pid_t pids[STRAYS_FEW];
	int strays = strays_list(s, pids, STRAYS_FEW);

	for (int i = 0; i < strays && i < STRAYS_FEW; i++) {
		if (started_ns(pids[i]) >= since_ns && is_nobodys(s, pids[i]))
			return pids[i];
	}
	return 0;
}

static const char *name_of(pid_t pid, char name[32])
{
	char path[64];
	int fd;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, name, 31) : 0;
	if (fd >= 0)
		close(fd);
	name[n > 0 ? n : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
	return name;
}

static void say(struct supervisor *s, const char *event, pid_t pid, const char *what)
{
	struct logs_field f[] = {{.key = "pid", .number = pid}};
	char name[32];

	logs_event(s->logs, LOGS_WARNING, event, f, 1, "pid %d (%s) %s", (int)pid,
		name_of(pid, name), what);
}

static bool is_told(struct supervisor *s, pid_t pid)
{
	for (int i = 0; i < STRAYS_FEW; i++) {
		if (s->strays_told[i] == pid)
			return true;
	}
	s->strays_told[s->strays_told_next] = pid;
	s->strays_told_next = (s->strays_told_next + 1) % STRAYS_FEW;
	return false;
}

void strays_tell(struct supervisor *s)
{
	pid_t pids[STRAYS_FEW];
	int strays = s->config->mode == CONFIG_NATIVE ? strays_list(s, pids, STRAYS_FEW) : 0;

	for (int i = 0; i < strays && i < STRAYS_FEW; i++) {
		if (is_nobodys(s, pids[i]) && !is_told(s, pids[i]))
			say(s, "worker.stray", pids[i],
				"was left behind and belongs to no worker that is known: kill it "
				"if it is not wanted; baton does when it stops");
	}
}

/* --- the end ------------------------------------------------------------------------------ */
static bool kill_strays(struct supervisor *s, bool first)
{
	static pid_t pids[STRAYS_MOST];
	int strays = strays_list(s, pids, STRAYS_MOST);
	bool any = false;

	for (int i = 0; i < strays && i < STRAYS_MOST; i++) {
		struct err e;

		if (!is_nobodys(s, pids[i]))
			continue;
		if (first)
			say(s, "worker.leftover", pids[i],
				"was left behind by a worker that has ended: it is killed, baton "
				"stops");
		any = true;
		if (tree_kill(pids[i], SIGKILL, &e) < 0)
			(void)kill(pids[i], SIGKILL);
	}
	return any;
}

void strays_end(struct supervisor *s)
{
	int64_t until_ns = lease_now_ns() + END_MS * CORE_MS;
	bool first = true;

	if (s->config->mode != CONFIG_NATIVE)
		return;
	reap_children(s);
	while (kill_strays(s, first) && lease_now_ns() < until_ns) {
		first = false;
		(void)poll(NULL, 0, END_STEP_MS);
		reap_children(s);
	}
}

/* What belongs to a command: its process group, what descends from it, orphans that bear its mark.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/deadman.h"
#include "worker/jobs/runner_internal.h"

#define CHILDREN "/proc/thread-self/children"

static int read_children(pid_t *pids, int room)
{
	char text[16384], *at = text;
	int fd = open(CHILDREN, O_RDONLY | O_CLOEXEC), count = 0;
	ssize_t n, used = 0;

	if (fd < 0)
		return -1; /* a kernel without it */
	while (used < (ssize_t)sizeof text - 1 &&
		(n = read(fd, text + used, sizeof text - 1 - (size_t)used)) > 0)
		used += n;
	close(fd);
	text[used] = '\0';
	while (count < room) {
		char *end;
		long pid = strtol(at, &end, 10);

		if (end == at)
			break;
		pids[count++] = (pid_t)pid;
		at = end;
	}
	return count;
}

bool task_has_tag(pid_t pid, const char *tag)
{
	char path[64], text[65536];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(text + at) + 1) {
		text[n] = '\0';
		if (strcmp(text + at, tag) == 0)
			return true;
	}
	return false;
}

struct task *task_of_pid(const struct runner *r, pid_t pid)
{
	for (int i = 0; i < r->task_slots; i++) {
		if (r->tasks[i] != NULL && r->tasks[i]->used && r->tasks[i]->alive &&
			r->tasks[i]->pid == pid)
			return r->tasks[i];
	}
	return NULL;
}

/* Children that no command of ours is the main process of: orphans of commands. */
int task_strays(const struct runner *r, pid_t *strays, int room)
{
	pid_t children[4096];
	int count = read_children(children, 4096), found = 0;

	for (int i = 0; i < count && found < room; i++) {
		if (children[i] != r->ledger.pid && task_of_pid(r, children[i]) == NULL)
			strays[found++] = children[i];
	}
	return count < 0 ? -1 : found;
}

void task_signal_tree(struct runner *r, const struct task *t, int sig)
{
	pid_t strays[MOST_STRAYS];
	struct err e;
	int count;

	if (t->pid > 0 && tree_kill(t->pid, sig, &e) < 0 && t->alive)
		(void)kill(t->pid, sig);
	count = task_strays(r, strays, MOST_STRAYS);
	for (int i = 0; i < count; i++) {
		if (task_has_tag(strays[i], t->tag))
			(void)tree_kill(strays[i], sig, &e);
	}
}

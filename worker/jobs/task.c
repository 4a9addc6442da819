/*
 * The commands: start, signal, reap, and the end of what they leave behind.
 *
 * A command leads a process group in the job worker's session, so that supervisor and deadman find
 * all of it by that session whoever dies first, and dies with the job worker (PR_SET_PDEATHSIG). It
 * has ended when its main process has; what that leaves behind is killed then, and the run is over
 * when nothing of it is left. An orphan is adopted by the job worker (a subreaper) and known by its
 * group, or by the variable BATON_RUN in its environment.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/child.h"
#include "worker/deadman.h"
#include "worker/jobs/runner_internal.h"

#define HOOK_NS (60 * RUNNER_SECOND_NS) /* an on_failure command has so long */

/* --- memory -------------------------------------------------------------------------------- */
static struct task *new_task(struct runner *r, int *ret_index)
{
	int i = 0;

	while (i < r->task_slots && r->tasks[i] != NULL && r->tasks[i]->used)
		i++;
	if (i == r->task_slots) {
		int slots = r->task_slots > 0 ? 2 * r->task_slots : 64;
		struct task **tasks = realloc(r->tasks, (size_t)slots * sizeof *tasks);

		if (tasks == NULL)
			return NULL;
		memset(tasks + r->task_slots, 0, (size_t)(slots - r->task_slots) * sizeof *tasks);
		r->tasks = tasks;
		r->task_slots = slots;
	}
	if (r->tasks[i] == NULL)
		r->tasks[i] = calloc(1, sizeof **r->tasks);
	if (r->tasks[i] == NULL)
		return NULL;
	*r->tasks[i] = (struct task){.used = true,
		.out_fd = -1,
		.report_fd = -1,
		.code = -1,
		.not_started = -1,
		.kill_ns = JOBS_NEVER};
	*ret_index = i;
	return r->tasks[i];
}

static bool remember(struct runner *r, struct jobs_ref run, int index)
{
	if (run.slot >= r->task_of_slots) {
		int slots = run.slot + 64;
		int *map = realloc(r->task_of, (size_t)slots * sizeof *map);

		if (map == NULL)
			return false;
		for (int i = r->task_of_slots; i < slots; i++)
			map[i] = -1;
		r->task_of = map;
		r->task_of_slots = slots;
	}
	r->task_of[run.slot] = index;
	return true;
}

struct task *task_find(const struct runner *r, struct jobs_ref run)
{
	int i = run.slot >= 0 && run.slot < r->task_of_slots ? r->task_of[run.slot] : -1;

	return i >= 0 && r->tasks[i] != NULL && r->tasks[i]->used &&
			       r->tasks[i]->run.serial == run.serial
		       ? r->tasks[i]
		       : NULL;
}

static void free_task(struct runner *r, struct task *t)
{
	output_close(r, t);
	output_release(t);
	if (t->report_fd >= 0)
		close(t->report_fd);
	job_definition_free(t->definition);
	memset(t, 0, sizeof *t);
	t->out_fd = t->report_fd = -1;
}

void task_forget(struct runner *r, struct jobs_ref run)
{
	struct task *t = task_find(r, run);

	if (t == NULL)
		return;
	r->task_of[run.slot] = -1;
	free_task(r, t);
}

/* --- starting ------------------------------------------------------------------------------ */
static void fill_spec(struct child_spec *spec, const struct job_definition *d)
{
	*spec = (struct child_spec){.argv = d->argv,
		.hold_fd = -1,
		.directory = d->directory,
		.set_user = d->user_set,
		.uid = d->uid,
		.gid = d->gid,
		.groups = d->groups,
		.group_count = (size_t)d->group_count,
		.groups_set = d->group_count > 0,
		.umask = d->umask,
		.nice = d->nice,
		.oom_score_adj = d->oom_score_adj,
		.no_new_privs = d->no_new_privs,
		.same_session = true,
		.die_with_parent = true,
		.parent = getpid(),
		.rlimits = d->limits,
		.rlimit_count = d->limit_count};
}

static pid_t fork_child(const struct child_spec *spec)
{
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		child_exec(spec);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

static int launch(struct runner *r, struct task *t, struct child_spec *spec)
{
	int out[2], report[2], null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct child_fd fds[3];

	if (null_fd < 0 || pipe2(out, O_CLOEXEC) < 0) {
		snprintf(t->failure, sizeof t->failure, "no descriptors: %s", strerror(errno));
		if (null_fd >= 0)
			close(null_fd);
		return -1;
	}
	if (pipe2(report, O_CLOEXEC) < 0) {
		snprintf(t->failure, sizeof t->failure, "no descriptors: %s", strerror(errno));
		close(null_fd);
		close(out[0]);
		close(out[1]);
		return -1;
	}
	(void)fcntl(out[0], F_SETFL, O_NONBLOCK);
	(void)fcntl(report[0], F_SETFL, O_NONBLOCK);
	fds[0] = (struct child_fd){null_fd, 0};
	fds[1] = (struct child_fd){out[1], 1};
	fds[2] = (struct child_fd){out[1], 2};
	spec->fds = fds;
	spec->fd_count = 3;
	spec->report_fd = report[1];
	t->pid = fork_child(spec);
	if (t->pid < 0)
		snprintf(t->failure, sizeof t->failure, "cannot fork: %s", strerror(errno));
	close(null_fd);
	close(out[1]);
	close(report[1]);
	t->out_fd = out[0];
	t->report_fd = report[0];
	(void)r;
	return t->pid < 0 ? -1 : 0;
}

static void start_now(struct runner *r, struct task *t, int index, const struct jobs_run *run,
	enum ledger_status status)
{
	struct job_definition *d = t->definition;
	char *const shell[] = {"/bin/sh", "-c", (char *)d->on_failure, NULL};
	struct child_spec spec;
	struct task_extra extra;
	struct task_paths paths;
	char **env;

	task_extra(r, &extra, t, run, status);
	env = task_environment(r, &extra, d);
	if (env == NULL) {
		snprintf(t->failure, sizeof t->failure, "out of memory");
	} else {
		fill_spec(&spec, d);
		if (t->hook)
			spec.argv = shell;
		task_paths(&paths, spec.argv[0], env);
		spec.paths = paths.list;
		spec.envp = env;
		t->alive = launch(r, t, &spec) == 0;
	}
	free(env);
	if (!t->alive) {
		t->pid = 0;
		t->over = true;
		r->over++;
		return;
	}
	r->alive++;
	t->watched = true;
	runner_watch(r, t->out_fd, SOURCE_TASK + (uint64_t)index, EPOLLIN);
}

void task_start(struct runner *r, const struct jobs_action *a, bool hook)
{
	const struct jobs_run *run = machine_run_of(&r->machine, a->run);
	struct task *before = hook ? task_find(r, a->run) : NULL, *t;
	int index;

	t = new_task(r, &index);
	if (t == NULL) { /* no memory at all: the machine's deadlines go on */
		runner_say(r, "out of memory: a command was not started");
		return;
	}
	t->hook = hook;
	t->run = a->run;
	t->definition = before != NULL ? before->definition
				       : r->machine.jobs[a->job].policy.definition;
	t->definition->references++;
	snprintf(t->name, sizeof t->name, "%s%s", t->definition->name, hook ? ":on_failure" : "");
	snprintf(t->tag, sizeof t->tag, "BATON_RUN=%llx.%llx%s", (unsigned long long)r->owner,
		(unsigned long long)a->run.serial, hook ? ".f" : "");
	if (hook)
		t->kill_ns = r->now.boot_ns + HOOK_NS;
	else if (!remember(r, a->run, index))
		runner_say(r, "out of memory: the end of a command may not be recorded");
	start_now(r, t, index, run, a->status);
}

void task_stop(struct runner *r, const struct jobs_action *a)
{
	struct task *t = task_find(r, a->run);

	if (t == NULL || t->over)
		return;
	task_signal_tree(r, t,
		a->number == SIGTERM && t->definition->stopsignal > 0 ? t->definition->stopsignal
								      : (int)a->number);
}

/* --- the end ------------------------------------------------------------------------------- */
static void read_report(struct task *t)
{
	struct job_definition *d = t->definition;
	struct child_failure f;
	struct child_spec spec;
	/* none: it was looked for in PATH */
	char *const path[] = {strchr(d->argv[0], '/') != NULL ? d->argv[0] : NULL, NULL};

	if (read(t->report_fd, &f, sizeof f) != (ssize_t)sizeof f)
		return;
	if (f.step == CHILD_EXEC)
		t->not_started = f.error == ENOENT && f.detail == 0 ? 127 : 126;
	fill_spec(&spec, d);
	spec.paths = path;
	child_failure_text(&f, &spec, t->failure, sizeof t->failure);
}

static void finish(struct runner *r, struct task *t)
{
	output_read(r, t, true);
	output_close(r, t);
	t->over = true;
	r->over++;
}

/* What is left of commands whose main process has ended is killed; those of which nothing is left
 * are over. While no command runs every stray is such a rest, whatever it did to hide. */
static void collect(struct runner *r)
{
	pid_t strays[MOST_STRAYS];
	int count = task_strays(r, strays, MOST_STRAYS);
	struct err e;

	for (int i = 0; i < r->task_slots; i++) {
		struct task *t = r->tasks[i];
		bool left = false;

		if (t == NULL || !t->used || t->alive || t->over)
			continue;
		for (int k = 0; k < count; k++) {
			bool own = r->alive == 0 || getpgid(strays[k]) == t->pid ||
				   task_has_tag(strays[k], t->tag);

			if (own && (tree_kill(strays[k], SIGKILL, &e) < 0 ||
					   kill(strays[k], SIGKILL) == 0))
				left = true;
		}
		if (count < 0 ? tree_kill(t->pid, SIGKILL, &e) > 0 : left)
			r->check_strays = true; /* their end comes as SIGCHLD */
		else
			finish(r, t);
	}
}

static void reaped(struct runner *r, pid_t pid, int status)
{
	struct task *t = task_of_pid(r, pid);

	if (t == NULL)
		return;
	t->alive = false;
	r->alive--;
	t->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	t->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	read_report(t);
	if (t->failure[0] != '\0')
		t->code = -1;
}

void task_reap(struct runner *r)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (!ledger_reaped(&r->ledger, pid))
			reaped(r, pid, status);
	}
	r->check_strays = false;
	collect(r);
}

static void say_failure(struct runner *r, const struct task *t, const struct jobs_run *run)
{
	const char *name = t->definition->name;
	int most = t->definition->policy.retries + run->reruns + 1;
	char how[LEDGER_TEXT_BYTES + 64];

	if (t->failure[0] != '\0')
		snprintf(how, sizeof how, "could not be started: %s", t->failure);
	else if (run->state == JOBS_RUN_STOPPING)
		snprintf(how, sizeof how, "was stopped: %s", run->reason);
	else if (t->signal != 0)
		snprintf(how, sizeof how, "was killed by SIG%s", sigabbrev_np(t->signal));
	else if (t->code != 0)
		snprintf(how, sizeof how, "failed with exit status %d", t->code);
	else
		return;
	runner_say(r, "%s %s (attempt %d of %d)", name, how, run->attempt,
		run->attempt > most ? run->attempt : most);
}

void task_deliver(struct runner *r)
{
	for (int i = 0; i < r->task_slots && r->over > 0; i++) {
		struct task *t = r->tasks[i];
		const struct jobs_run *run;

		if (t == NULL || !t->used || !t->over || t->told)
			continue;
		r->over--;
		t->told = true;
		if (t->hook) {
			if (t->code != 0)
				runner_say(r, "%s: on_failure failed itself%s%s",
					t->definition->name, t->failure[0] != '\0' ? ": " : "",
					t->failure);
			free_task(r, t);
			machine_hook_ended(&r->machine, &r->now);
			continue;
		}
		run = machine_run_of(&r->machine, t->run);
		if (run == NULL) { /* given up at the end of a demotion */
			task_forget(r, t->run);
			continue;
		}
		say_failure(r, t, run);
		r->ended++;
		machine_ended(&r->machine, t->run, t->code, t->signal, &r->now);
	}
}

void task_kill_hooks(struct runner *r)
{
	for (int i = 0; i < r->task_slots; i++) {
		if (r->tasks[i] != NULL && r->tasks[i]->used && r->tasks[i]->hook &&
			r->tasks[i]->alive)
			task_signal_tree(r, r->tasks[i], SIGKILL);
	}
}

void task_kill_all(struct runner *r)
{
	for (int i = 0; i < r->task_slots; i++) {
		if (r->tasks[i] != NULL && r->tasks[i]->used && r->tasks[i]->alive)
			task_signal_tree(r, r->tasks[i], SIGKILL);
	}
}

void task_tick(struct runner *r)
{
	for (int i = 0; i < r->task_slots; i++) {
		struct task *t = r->tasks[i];

		if (t != NULL && t->used && t->alive && t->kill_ns <= r->now.boot_ns) {
			t->kill_ns = r->now.boot_ns + RUNNER_SECOND_NS;
			task_signal_tree(r, t, SIGKILL);
		}
	}
	if (r->check_strays)
		collect(r);
}

int64_t task_next_ns(const struct runner *r)
{
	int64_t at = r->check_strays ? r->now.boot_ns + RUNNER_SECOND_NS / 10 : JOBS_NEVER;

	for (int i = 0; i < r->task_slots; i++) {
		const struct task *t = r->tasks[i];

		if (t != NULL && t->used && t->alive && t->kill_ns < at)
			at = t->kill_ns;
	}
	return at;
}

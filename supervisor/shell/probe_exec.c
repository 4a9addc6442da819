/* Probes by a command: as the worker's user, in its environment and directory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/probe_internal.h"
#include "supervisor/shell/strays.h"
#include "supervisor/shell/spawn_internal.h"

#define MOST_READS 64 /* at once, of a command that prints without end */

/* --- its output ---------------------------------------------------------------------------- */
/* ANSWER is the last line so far; USED is 0 where a new one is to begin. */
static void add_output(struct probe *a, const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (text[i] == '\n') {
			a->used = 0;
			continue;
		}
		if (a->used < sizeof a->answer - 1) {
			a->answer[a->used++] = text[i];
			a->answer[a->used] = '\0';
		}
	}
}

/* True at its end. */
static bool read_output(struct probe *a)
{
	char text[4096];

	for (int i = 0; i < MOST_READS; i++) {
		ssize_t n = read(a->fd, text, sizeof text);

		if (n <= 0)
			return n == 0;
		add_output(a, text, (size_t)n);
	}
	return false;
}

static void output_readable(void *attempt, unsigned events)
{
	struct probe *a = attempt;

	(void)events;
	if (!read_output(a))
		return;
	loop_unwatch(a->watch); /* its end is told by the reaper */
	a->watch = NULL;
}

/* ": the last line", or "". */
static const char *last_line(const struct probe *a, char buf[220])
{
	char *at = buf;

	if (a->answer[0] == '\0')
		return "";
	at += snprintf(buf, 220, ": %.200s", a->answer);
	for (char *c = buf; c < at; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
	}
	return buf;
}

/* --- the process --------------------------------------------------------------------------- */
/* The listeners, the channel and NOTIFY_SOCKET are the worker's. */
static void strip_environment(struct spawn *sp)
{
	static const char *const not_its[] = {
		"LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET=", "SERVER_STARTER_PORT=", "EINHORN_FD"};
	size_t kept = 0;

	for (size_t i = 0; i < sp->env_count; i++) {
		bool drop = false;

		for (size_t k = 0; k < sizeof not_its / sizeof *not_its; k++)
			drop |= strncmp(sp->env[i], not_its[k], strlen(not_its[k])) == 0;
		if (!drop)
			sp->env[kept++] = sp->env[i];
	}
	sp->env_count = kept;
	sp->env[kept] = NULL;
}

/* What it leaves behind bears a mark of its own. */
static int env_own(struct spawn *sp, struct tree_mark mark)
{
	return spawn_env_set(sp, "BATON_PID=%d", (int)main_pid(sp->process)) |
	       spawn_env_set(sp, TREE_MARK "=%s.%llu.%llu", sp->supervisor->instance,
		       (unsigned long long)mark.start, (unsigned long long)mark.part);
}

static int prepare(
	struct spawn *sp, enum probe_purpose purpose, struct tree_mark mark, struct err *e)
{
	const struct config_probe *c;

	if (spawn_build_worker(sp, e) < 0)
		return e->code;
	c = purpose == PROBE_FOR_READY ? &sp->worker.ready : &sp->worker.health;
	if (c->kind != PROBE_EXEC)
		return err_set(e, ERR_CONFIG, "it is no command any more");
	sp->worker.argv = c->argv;
	strip_environment(sp);
	if (spawn_build_paths(sp) < 0 || env_own(sp, mark) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	if (pipe2(sp->out, O_CLOEXEC) < 0 || pipe2(sp->report, O_CLOEXEC) < 0)
		return err_set(e, ERR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
	sp->fds[sp->fd_count++] = (struct child_fd){sp->supervisor->null_fd, 0};
	sp->fds[sp->fd_count++] = (struct child_fd){sp->out[1], 1};
	sp->fds[sp->fd_count++] = (struct child_fd){sp->out[1], 2};
	spawn_find_groups(sp);
	return 0;
}

void probe_exec(struct probe *a, enum probe_purpose purpose)
{
	static uint64_t parts;
	const struct worker *w = &a->supervisor->core.workers[a->process->slot];
	struct action action = {.executor_env = w->executor_env, .term = w->term};
	struct child_spec spec;
	struct spawn sp;
	struct err e;

	a->state = ATTEMPT_RUNS;
	a->mark = (struct tree_mark){.start = a->process->mark, .part = ++parts};
	spawn_init(&sp, a->process, &action);
	if (prepare(&sp, purpose, a->mark, &e) < 0) {
		spawn_clear(&sp);
		probe_fails(a, true, "%s", e.text);
		return;
	}
	spawn_fill_spec(&sp, &spec, getpid());
	spec.die_with_parent = true;
	a->pid = spawn_fork(&spec);
	if (a->pid > 0) {
		a->fd = sp.out[0];
		a->report_fd = sp.report[0];
		sp.out[0] = sp.report[0] = -1;
		(void)fcntl(a->fd, F_SETFL, O_NONBLOCK);
		(void)fcntl(a->report_fd, F_SETFL, O_NONBLOCK);
		a->watch = loop_watch(a->supervisor->loop, a->fd, LOOP_READ, output_readable, a);
	}
	spawn_clear(&sp);
	if (a->pid < 0) {
		a->pid = 0;
		probe_fails(a, true, "cannot fork: %s", strerror(errno));
	}
}

void probe_exec_kill(struct probe *a)
{
	struct err e;

	(void)kill(a->pid, SIGKILL);
	(void)tree_kill(a->pid, SIGKILL, &e);
}

void probe_exec_expired(struct probe *a, const char *timeout)
{
	char line[220];

	(void)read_output(a);
	probe_exec_kill(a);
	probe_fails(a, false, "did not end in %s%s", timeout, last_line(a, line));
}

static void judge(struct probe *a, int status)
{
	const char *name = status > 128 ? sigabbrev_np(status - 128) : NULL;
	struct child_failure f;
	char line[220];

	if (read(a->report_fd, &f, sizeof f) == (ssize_t)sizeof f)
		probe_fails(a, false, "cannot be run: %s: %s", child_step_name(f.step),
			strerror(f.error));
	else if (status == 0)
		probe_succeeds(a);
	else if (name != NULL)
		probe_fails(a, false, "was killed by SIG%s%s", name, last_line(a, line));
	else
		probe_fails(a, false, "exited with status %d%s", status, last_line(a, line));
}

/* Nothing of it stays: its group, its session, and what hid in one of its own. */
static void end_rest(struct probe *a, pid_t pid, bool ended)
{
	static struct tree_leader leaders[1 + STRAYS_FEW];
	struct err e;
	int strays;

	(void)kill(-pid, SIGKILL);
	strays = strays_marked(a->supervisor, a->mark, leaders + 1, STRAYS_FEW);
	leaders[0] = (struct tree_leader){.pid = pid};
	if (!ended || strays > 0) /* somebody still has its output, or its mark */
		(void)tree_kill_leaders(leaders, 1 + strays, NULL, SIGKILL, NULL, 0, &e);
}

void probe_exec_reaped(struct probe *a, int status)
{
	pid_t pid = a->pid;
	bool ended = read_output(a);

	a->pid = 0;
	end_rest(a, pid, ended);
	if (a->state == ATTEMPT_DYING)
		probe_end(a);
	else
		judge(a, status);
}

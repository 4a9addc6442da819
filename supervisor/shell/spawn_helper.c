/* Our own helpers and the operator's commands. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/spawn_internal.h"

/* What a helper says if it cannot exec, read when it comes: a fork is not waited for. */
static struct helper_report {
	struct supervisor *supervisor;
	const char *name;
	int fd;
	struct loop_watch *watch; /* NULL = free */
} reports[8];

static void close_report(struct helper_report *r)
{
	loop_unwatch(r->watch);
	r->watch = NULL;
	close(r->fd);
}

void spawn_helpers_end(void)
{
	for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
		if (reports[i].watch != NULL)
			close_report(&reports[i]);
	}
}

static void helper_reports(void *context, unsigned events)
{
	struct helper_report *r = context;
	const struct child_spec spec = {.argv = (char *const[]){(char *)r->name, NULL},
		.paths = (char *const[]){"/proc/self/exe", NULL},
		.directory = "/"};
	struct child_failure f;
	char text[512];
	ssize_t n = read(r->fd, &f, sizeof f);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close_report(r);
	if (n != (ssize_t)sizeof f)
		return;
	child_failure_text(&f, &spec, text, sizeof text);
	logs_event(r->supervisor->logs, LOGS_ERROR, "supervisor.helper", NULL, 0,
		"cannot start %s: %s", r->name, text);
}

/* FD is taken over. */
static void watch_report(struct supervisor *s, const char *name, int fd)
{
	for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
		struct helper_report *r = &reports[i];

		if (r->watch != NULL)
			continue;
		*r = (struct helper_report){.supervisor = s, .name = name, .fd = fd};
		r->watch = loop_watch(s->loop, fd, LOOP_READ, helper_reports, r);
		if (r->watch != NULL)
			return;
		break;
	}
	close(fd);
}

pid_t spawn_helper(struct supervisor *s, const char *name, const char *argument,
	const struct child_fd *fds, size_t fd_count, struct err *e)
{
	char *const argv[] = {(char *)name, (char *)argument, NULL};
	char *const paths[] = {"/proc/self/exe", NULL};
	/* Its command line and environment shall not say "baton": one `pkill -f` must not get all.
	 */
	char *envp[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL, NULL};
	const char *sanitizer = getenv("ASAN_OPTIONS");
	char sanitizer_text[512];
	struct child_fd all[3 + 8] = {{s->null_fd, 0}, {s->null_fd, 1}, {2, 2}};
	struct child_spec spec = {.argv = argv,
		.paths = paths,
		.envp = envp,
		.fds = all,
		.fd_count = 3 + fd_count,
		.hold_fd = -1,
		.directory = "/",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN};
	int report[2];
	pid_t pid;

	if (sanitizer != NULL) {
		snprintf(sanitizer_text, sizeof sanitizer_text, "ASAN_OPTIONS=%s", sanitizer);
		envp[1] = sanitizer_text;
	}
	if (pipe2(report, O_CLOEXEC | O_NONBLOCK) < 0) {
		err_set(e, ERR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
		return -1;
	}
	memcpy(all + 3, fds, fd_count * sizeof *fds);
	spec.report_fd = report[1];
	spec.parent = getpid();
	pid = spawn_fork(&spec);
	if (pid < 0)
		err_set(e, ERR_SYSTEM, "cannot start %s: %s", name, strerror(errno));
	close(report[1]);
	if (pid < 0)
		close(report[0]);
	else
		watch_report(s, name, report[0]);
	return pid;
}

void helper_close(struct helper *h)
{
	loop_unwatch(h->watch);
	h->watch = NULL;
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

void helper_kill(struct helper *h)
{
	helper_close(h);
	if (h->pid > 0)
		(void)kill(h->pid, SIGKILL);
	h->pid = 0;
}

pid_t spawn_command(struct supervisor *s, const char *command, const char *const *more_environment,
	struct err *e)
{
	char *const argv[] = {"/bin/sh", "-c", (char *)command, NULL};
	char *const paths[] = {"/bin/sh", NULL};
	struct child_fd fds[3] = {{s->null_fd, 0}, {1, 1}, {2, 2}};
	struct process nobody = {.supervisor = s};
	struct spawn sp = {.supervisor = s, .process = &nobody};
	struct child_spec spec = {.argv = argv,
		.paths = paths,
		.fds = fds,
		.fd_count = 3,
		.hold_fd = -1,
		.directory = "",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN};
	/* As a worker: the limit that baton raised is for itself. */
	struct config_rlimit nofile = {
		.resource = RLIMIT_NOFILE, .soft = s->nofile.rlim_cur, .hard = s->nofile.rlim_max};
	int report[2], rc = 0;
	pid_t pid = -1;

	spec.rlimits = &nofile;
	spec.rlimit_count = 1;
	for (int i = 0; i < 2; i++)
		sp.out[i] = sp.err[i] = sp.report[i] = sp.hold[i] = sp.channel[i] = sp.ready[i] =
			-1;
	sp.probe_fd = -1;
	for (char **v = environ; *v != NULL; v++)
		rc |= spawn_inheritable(*v) ? spawn_env_put(&sp, *v) : 0;
	for (size_t i = 0; i < s->config->environment_count; i++)
		rc |= spawn_env_set(&sp, "%s=%s", s->config->environment[i].key,
			s->config->environment[i].value);
	for (; *more_environment != NULL; more_environment++)
		rc |= spawn_env_put(&sp, *more_environment);
	spec.envp = (char **)sp.env;
	if (rc == 0 && pipe2(report, O_CLOEXEC) == 0) {
		spec.report_fd = report[1];
		spec.parent = getpid();
		pid = spawn_fork(&spec);
		close(report[0]);
		close(report[1]);
	}
	if (pid < 0)
		err_set(e, ERR_SYSTEM, "cannot run '%s': %s", command, strerror(errno));
	spawn_clear(&sp);
	return pid;
}

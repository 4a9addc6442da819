/* Our own helpers and the operator's commands. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/spawn_internal.h"

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
	struct child_fd all[3 + 8];
	struct child_spec spec = {.argv = argv,
		.paths = paths,
		.envp = envp,
		.fds = all,
		.hold_fd = -1,
		.directory = "/",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN};
	int report[2];
	pid_t pid;
	struct child_failure f;

	if (sanitizer != NULL) {
		snprintf(sanitizer_text, sizeof sanitizer_text, "ASAN_OPTIONS=%s", sanitizer);
		envp[1] = sanitizer_text;
	}
	if (pipe2(report, O_CLOEXEC) < 0)
		return err_set(e, ERR_SYSTEM, "cannot make a pipe: %s", strerror(errno)), -1;
	all[0] = (struct child_fd){s->null_fd, 0};
	all[1] = (struct child_fd){s->null_fd, 1};
	all[2] = (struct child_fd){2, 2};
	memcpy(all + 3, fds, fd_count * sizeof *fds);
	spec.fd_count = 3 + fd_count;
	spec.report_fd = report[1];
	spec.parent = getpid();
	pid = spawn_fork(&spec);
	close(report[1]);
	if (pid > 0 && read(report[0], &f, sizeof f) == (ssize_t)sizeof f) {
		char text[512];

		child_failure_text(&f, &spec, text, sizeof text);
		err_set(e, ERR_SYSTEM, "cannot start %s: %s", name, text);
		pid = -1; /* the reaper meets it as a stranger */
	} else if (pid < 0) {
		err_set(e, ERR_SYSTEM, "cannot start %s: %s", name, strerror(errno));
	}
	close(report[0]);
	return pid;
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
	int report[2], rc = 0;
	pid_t pid = -1;

	for (int i = 0; i < 2; i++)
		sp.out[i] = sp.err[i] = sp.report[i] = sp.hold[i] = sp.channel[i] = -1;
	for (char **v = environ; *v != NULL; v++)
		rc |= spawn_inheritable(*v) ? spawn_env_put(&sp, strdup(*v)) : 0;
	for (size_t i = 0; i < s->config->environment_count; i++)
		rc |= spawn_env_set(&sp, "%s=%s", s->config->environment[i].key,
			s->config->environment[i].value);
	for (; *more_environment != NULL; more_environment++)
		rc |= spawn_env_put(&sp, strdup(*more_environment));
	spec.envp = sp.env;
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

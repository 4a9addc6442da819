/* What a worker finds open: output, sockets, channel, lease page. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/shell/spawn_internal.h"

static int lacks(struct err *e, const char *what)
{
	const char *limit = errno == EMFILE   ? " (`ulimit -n`; LimitNOFILE= of systemd)"
			    : errno == ENFILE ? " (the machine's fs.file-max)"
					      : "";

	return err_set(e, ERR_SYSTEM, "cannot make %s: %s%s", what, strerror(errno), limit);
}

static void pass(struct spawn *sp, int from, int to)
{
	sp->fds[sp->fd_count++] = (struct child_fd){.from = from, .to = to};
}

static int open_stream(struct spawn *sp, int which, int pair[2], enum config_output kind,
	const char *path, struct err *e)
{
	struct supervisor *s = sp->supervisor;

	if (s->detached && kind == OUTPUT_INHERIT && s->booted->logfile[0] != '\0') {
		kind = OUTPUT_PATH; /* there is no standard output any more */
		path = s->booted->logfile;
	}
	if (logs_sink_open(s->logs, kind, path, which + 1, sp->config->childlogdir, sp->worker.name,
		    &sp->sinks[which], e) < 0)
		return e->code;
	if (sp->sinks[which] == NULL && sp->settings->ready != READY_LOG)
		return 0; /* NONE, and nobody looks for a line in it */
	return logs_pipe(&pair[0], &pair[1], e);
}

static int build_output(struct spawn *sp, struct err *e)
{
	const struct config_program *set = sp->settings;
	int null_fd = sp->supervisor->null_fd;

	if (open_stream(sp, 0, sp->out, set->stdout_kind, sp->worker.stdout_path, e) < 0)
		return e->code;
	if (!set->redirect_stderr &&
		open_stream(sp, 1, sp->err, set->stderr_kind, sp->worker.stderr_path, e) < 0)
		return e->code;
	pass(sp, null_fd, 0);
	pass(sp, sp->out[1] >= 0 ? sp->out[1] : null_fd, 1);
	if (set->redirect_stderr)
		pass(sp, sp->out[1] >= 0 ? sp->out[1] : null_fd, 2);
	else
		pass(sp, sp->err[1] >= 0 ? sp->err[1] : null_fd, 2);
	return 0;
}

/* The sockets, then the probe listener; *NEXT: the first descriptor after them. */
static int build_sockets(struct spawn *sp, int *next, struct err *e)
{
	const struct config_program *set = sp->settings;

	for (size_t i = 0; i < set->socket_count && i < 256; i++) {
		const struct config_socket *c = &sp->config->sockets[set->sockets[i]];
		struct listener_slot *l = listeners_find(sp->supervisor, c);

		if (l == NULL)
			return err_set(e, ERR_SYSTEM, "socket '%s' is not open", c->name);
		listeners_pass(sp->supervisor, l, set->blocking_sockets);
		pass(sp, l->listener.fd, (*next)++);
	}
	if (sp->probe_fd >= 0)
		pass(sp, sp->probe_fd, (*next)++);
	return 0;
}

/* `ready = fd:N` */
static int build_ready_fd(struct spawn *sp, struct err *e)
{
	if (sp->worker.ready.kind != PROBE_FD)
		return 0;
	if (pipe2(sp->ready, O_CLOEXEC) < 0)
		return lacks(e, "a pipe");
	pass(sp, sp->ready[1], sp->worker.ready.fd);
	return 0;
}

/* The next descriptor that is free: not the one of `fd:N`. */
static int take(const struct spawn *sp, int *next)
{
	if (sp->worker.ready.kind == PROBE_FD && *next == sp->worker.ready.fd)
		++*next;
	return (*next)++;
}

int spawn_build_descriptors(struct spawn *sp, struct err *e)
{
	const struct config_program *set = sp->settings;
	int next = FIRST_SOCKET_FD, fd;

	if (build_output(sp, e) < 0 || build_sockets(sp, &next, e) < 0 || build_ready_fd(sp, e) < 0)
		return e->code;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sp->channel) < 0)
		return lacks(e, "its channel");
	(void)fcntl(sp->channel[0], F_SETFL, O_NONBLOCK);
	fd = take(sp, &next);
	pass(sp, sp->channel[1], fd);
	if (spawn_env_set(sp, "BATON_CHANNEL_FD=%d", fd) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	if (set->executor != EXECUTOR_NO) {
		if (lease_create(&sp->process->lease, e) < 0)
			return e->code;
		fd = take(sp, &next);
		pass(sp, sp->process->lease.fd_ro, fd);
		if (spawn_env_set(sp, "BATON_LEASE_FD=%d", fd) < 0)
			return err_set(e, ERR_SYSTEM, "out of memory");
	}
	if (pipe2(sp->report, O_CLOEXEC) < 0 ||
		(sp->action->held && pipe2(sp->hold, O_CLOEXEC) < 0))
		return lacks(e, "a pipe");
	return 0;
}

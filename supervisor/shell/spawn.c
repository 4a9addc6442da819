/* Forking workers: prepare, fork, tell. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/random.h>
#include <unistd.h>

#include "supervisor/shell/probes.h"
#include "conf/lookup.h"
#include "supervisor/shell/spawn_internal.h"
#include "supervisor/shell/spawn_table.h"

/* --- the process's own side ---------------------------------------------------------------- */
void process_init(struct supervisor *s, struct process *p, int slot)
{
	memset(p, 0, sizeof *p);
	p->supervisor = s;
	p->slot = slot;
	p->report_fd = p->hold_fd = p->channel_fd = p->ready_fd = p->main_fd = -1;
	p->lease.fd_rw = p->lease.fd_ro = -1;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void process_release(struct process *p)
{
	probes_forget(p);
	main_forget(p);
	table_free(p);
	loop_unwatch(p->report_watch);
	loop_unwatch(p->channel_watch);
	close_fd(&p->report_fd);
	close_fd(&p->hold_fd);
	close_fd(&p->channel_fd);
	for (int i = 0; i < 2; i++) {
		if (p->streams[i] != NULL)
			logs_stream_detach(p->streams[i]);
	}
	lease_release(&p->lease);
	free(p->failure);
	free(p->status);
	free(p->name);
	p->supervisor->collecting -= p->collecting;
	supervisor_set_pid(p, 0);
	process_init(p->supervisor, p, p->slot);
}

static void set_failure(struct process *p, const char *text)
{
	free(p->failure);
	p->failure = strdup(text);
}

/* --- limits and groups --------------------------------------------------------------------- */
static int build_limits(struct spawn *sp)
{
	const struct config_program *set = sp->settings;
	const struct rlimit *nofile = &sp->supervisor->nofile;

	sp->rlimits = calloc(set->rlimit_count + 1, sizeof *sp->rlimits);
	if (sp->rlimits == NULL)
		return -1;
	/* Ours was raised for ourselves: the worker gets what we found, then what the file says. */
	sp->rlimits[0] = (struct config_rlimit){
		.resource = RLIMIT_NOFILE, .soft = nofile->rlim_cur, .hard = nofile->rlim_max};
	if (set->rlimit_count > 0)
		memcpy(sp->rlimits + 1, set->rlimits, set->rlimit_count * sizeof *sp->rlimits);
	return 0;
}

/* As they were when the file was read: the user database may be slow (LDAP). */
void spawn_find_groups(struct spawn *sp)
{
	static struct {
		uid_t uid;
		gid_t gid;
		int count;
		gid_t groups[256];
	} last = {.count = -1};
	const struct config_user *u = &sp->settings->user;
	const int most = (int)(sizeof sp->groups / sizeof *sp->groups);
	const struct lookup *known = u->set ? lookup_known_user(u->name) : NULL;

	if (!u->set || geteuid() != 0)
		return;
	if (known != NULL && known->uid == u->uid && known->gid == u->gid) {
		sp->group_count = known->group_count < most ? known->group_count : most;
		memcpy(sp->groups, known->groups, (size_t)sp->group_count * sizeof *sp->groups);
		return;
	}
	if (last.count < 0 || last.uid != u->uid || last.gid != u->gid) {
		last.count = 256;
		last.uid = u->uid;
		last.gid = u->gid;
		if (getgrouplist(u->name, u->gid, last.groups, &last.count) < 0 && last.count > 256)
			last.count = 256;
	}
	sp->group_count = last.count;
	memcpy(sp->groups, last.groups, (size_t)last.count * sizeof *sp->groups);
}

/* --- the fork ------------------------------------------------------------------------------ */
void spawn_fill_spec(struct spawn *sp, struct child_spec *spec, pid_t parent)
{
	const struct config_program *set = sp->settings;

	memset(spec, 0, sizeof *spec);
	spec->argv = sp->worker.argv;
	spec->paths = sp->paths;
	spec->envp = (char **)sp->env;
	spec->fds = sp->fds;
	spec->fd_count = sp->fd_count;
	spec->report_fd = sp->report[1];
	spec->hold_fd = sp->action->held ? sp->hold[0] : -1;
	spec->directory = sp->worker.directory;
	spec->set_user = set->user.set || set->user.group_set;
	spec->uid = set->user.set ? set->user.uid : geteuid();
	spec->gid = set->user.set || set->user.group_set ? set->user.gid : getegid();
	spec->groups = sp->groups;
	spec->group_count = (size_t)sp->group_count;
	spec->groups_set = set->user.set && geteuid() == 0;
	spec->umask = set->umask;
	spec->nice = set->nice;
	spec->oom_score_adj = set->oom_score_adj;
	spec->no_new_privs = set->no_new_privs;
	spec->die_with_parent = set->executor != EXECUTOR_NO;
	spec->parent = parent;
	spec->rlimits = sp->rlimits;
	spec->rlimit_count = set->rlimit_count + 1;
}

pid_t spawn_fork(const struct child_spec *spec)
{
	sigset_t all, before;
	pid_t pid;

	/* Not vfork: it would hold the loop until the exec, which a file system may keep waiting
	 * for ever. With 1,000 workers it takes 0.27 ms of our CPU a worker in place of 0.45, and
	 * under load twice the time in all, since we wait for each child to get its turn (make
	 * bench). */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		child_exec(spec);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

const struct config *spawn_config_of(
	const struct supervisor *s, const struct config_program *settings)
{
	for (size_t i = 0; i < s->retired_count; i++) {
		const struct config *c = s->retired[i];

		if (settings >= c->programs && settings < c->programs + c->program_count)
			return c;
	}
	return s->config;
}

static void close_pair(int pair[2])
{
	close_fd(&pair[0]);
	close_fd(&pair[1]);
}

void spawn_init(struct spawn *sp, struct process *p, const struct action *a)
{
	struct supervisor *s = p->supervisor;

	memset(sp, 0, offsetof(struct spawn, text));
	sp->supervisor = s;
	sp->process = p;
	sp->action = a;
	sp->settings = s->core.workers[p->slot].settings;
	sp->config = spawn_config_of(s, sp->settings);
	for (int i = 0; i < 2; i++)
		sp->out[i] = sp->err[i] = sp->report[i] = sp->hold[i] = sp->channel[i] =
			sp->ready[i] = -1;
	sp->probe_fd = -1;
}

void spawn_clear(struct spawn *sp)
{
	spawn_text_clear(sp);
	free(sp->rlimits);
	close_pair(sp->out);
	close_pair(sp->err);
	close_pair(sp->report);
	close_pair(sp->hold);
	close_pair(sp->channel);
	close_pair(sp->ready);
	close_fd(&sp->probe_fd);
	logs_sink_close(sp->sinks[0]);
	logs_sink_close(sp->sinks[1]);
	if (sp->worker_built)
		config_worker_release(&sp->worker);
}

int spawn_config_worker(struct process *p, const struct config *config,
	const struct config_program *set, struct config_worker *ret_worker, struct err *e)
{
	struct supervisor *s = p->supervisor;
	const char *listen[256 + 1] = {NULL};
	char probe[32];

	for (size_t i = 0; i < set->socket_count && i < 256; i++) {
		struct listener_slot *l = listeners_find(s, &config->sockets[set->sockets[i]]);

		listen[i] = l != NULL ? l->listener.text : "";
	}
	if (set->probe && set->socket_count <= 256)
		listen[set->socket_count] = probes_address(p, probe);
	return config_worker_build(config, (int)(set - config->programs),
		s->core.workers[p->slot].index, listen, ret_worker, e);
}

int spawn_build_worker(struct spawn *sp, struct err *e)
{
	if (spawn_config_worker(sp->process, sp->config, sp->settings, &sp->worker, e) < 0)
		return e->code;
	sp->worker_built = true;
	if (sp->worker.argv == NULL || sp->worker.argv[0] == NULL)
		return err_set(e, ERR_CONFIG, "its command is empty or not well formed");
	if (spawn_build_environment(sp) < 0 || spawn_build_paths(sp) < 0 || build_limits(sp) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	return 0;
}

/* Seldom needed, so made anew rather than kept for every worker. */
static void describe_failure(struct process *p, const struct child_failure *f)
{
	const struct worker *w = &p->supervisor->core.workers[p->slot];
	struct action a = {.executor_env = w->executor_env, .term = w->term};
	struct spawn sp;
	struct child_spec spec;
	char text[512];
	struct err e;

	spawn_init(&sp, p, &a);
	if (spawn_build_worker(&sp, &e) < 0) {
		set_failure(p, e.text);
	} else {
		spawn_fill_spec(&sp, &spec, getpid());
		child_failure_text(f, &spec, text, sizeof text);
		set_failure(p, text);
	}
	spawn_clear(&sp);
}

/* Not the program's fault: the machine lacks something now that it may have again. */
static bool is_transient(int error)
{
	return error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE ||
	       error == ETXTBSY;
}

static void report_readable(void *context, unsigned events)
{
	(void)events;
	spawn_read_report(context);
}

/* As read. The byte that may come first says that the child has its own table of descriptors. */
static ssize_t read_report(struct process *p, struct child_failure *f)
{
	char bytes[1 + sizeof *f];
	ssize_t n;

	do {
		n = read(p->report_fd, bytes, sizeof bytes);
		if (n == 1 || n == (ssize_t)sizeof bytes)
			table_free(p);
	} while (n == 1);
	if (n == (ssize_t)sizeof bytes)
		memcpy(f, bytes + 1, sizeof *f);
	else if (n == (ssize_t)sizeof *f)
		memcpy(f, bytes, sizeof *f);
	return n > 0 ? (ssize_t)sizeof *f : n;
}

void spawn_read_report(struct process *p)
{
	struct child_failure f;
	ssize_t n;

	if (p->report_fd < 0)
		return;
	n = read_report(p, &f);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	loop_unwatch(p->report_watch);
	p->report_watch = NULL;
	close_fd(&p->report_fd);
	if (n == (ssize_t)sizeof f) {
		struct event e = {.kind = EVENT_SPAWN_FAILED,
			.worker = p->slot,
			.id = p->id,
			.program = -1,
			.ok = is_transient(f.error)};

		describe_failure(p, &f);
		supervisor_post(p->supervisor, &e);
	} else if (p->leader_alive && p->hold_fd < 0) {
		supervisor_post_worker(p->supervisor, EVENT_EXECED, p);
	}
}

static void stream_ended(void *context, struct logs_stream *stream)
{
	struct process *p = context;

	for (int i = 0; i < 2; i++) {
		if (p->streams[i] == stream) {
			logs_stream_close(stream);
			p->streams[i] = NULL;
		}
	}
}

void spawn_resume(struct process *p, const int places[2])
{
	struct supervisor *s = p->supervisor;

	if (p->report_fd >= 0)
		p->report_watch = loop_watch(s->loop, p->report_fd, LOOP_READ, report_readable, p);
	main_resume(p);
	for (int i = 0; i < 2; i++)
		p->streams[i] = logs_claim_stream(s->logs, places[i], stream_ended, p);
}

/* In the parent, after a fork that worked: watch what the child tells. */
static int watch_child(struct spawn *sp, struct err *e)
{
	struct process *p = sp->process;
	struct supervisor *s = sp->supervisor;
	const char *prefix = sp->settings->log_prefix ? p->name : NULL;
	int *ends[2] = {&sp->out[0], &sp->err[0]};

	p->report_fd = sp->report[0];
	p->hold_fd = sp->hold[1];
	p->channel_fd = sp->channel[0];
	sp->report[0] = sp->hold[1] = sp->channel[0] = -1;
	(void)fcntl(p->report_fd, F_SETFL, O_NONBLOCK);
	p->report_watch = loop_watch(s->loop, p->report_fd, LOOP_READ, report_readable, p);
	channel_watch(s, p);
	for (int i = 0; i < 2; i++) {
		bool inherit = (i == 0 ? sp->settings->stdout_kind : sp->settings->stderr_kind) ==
			       OUTPUT_INHERIT;

		if (*ends[i] < 0)
			continue;
		if (logs_stream_open(s->logs, *ends[i], sp->sinks[i], inherit ? prefix : NULL,
			    stream_ended, p, &p->streams[i], e) < 0)
			return e->code;
		sp->sinks[i] = NULL;
		*ends[i] = -1;
	}
	probes_watch(p, &sp->worker.ready, sp->ready[0]);
	sp->ready[0] = -1;
	return 0;
}

static int spawn(struct spawn *sp, struct err *e)
{
	struct process *p = sp->process;
	struct child_spec spec;
	pid_t pid;

	if (sp->settings->probe && probes_listen(p, &sp->probe_fd, e) < 0)
		return e->code;
	if (spawn_build_worker(sp, e) < 0 || spawn_build_descriptors(sp, e) < 0)
		return e->code;
	spawn_find_groups(sp);
	spawn_fill_spec(sp, &spec, getpid());
	pid = table_fork(p, &spec);
	if (pid < 0)
		return err_set(e, ERR_SYSTEM, "cannot fork: %s%s", strerror(errno),
			errno == EAGAIN ? " (a limit on processes: `ulimit -u`, the control "
					  "group's pids.max)"
					: "");
	supervisor_set_pid(p, pid);
	if (p->lease.fd_ro >= 0) /* the worker has it */
		close_fd(&p->lease.fd_ro);
	p->leader_alive = true;
	lock_table_set(sp->supervisor, p,
		sp->settings->executor != EXECUTOR_NO ||
			!sp->supervisor->config->keep_on_supervisor_death);
	if (watch_child(sp, e) < 0)
		logs_event(sp->supervisor->logs, LOGS_ERROR, "worker.output", NULL, 0,
			"%s: its output cannot be read: %s", p->name, e->text);
	return 0;
}

/* By chance: a worker must not guess another's, which may be another user's. Not 0. */
static uint64_t make_mark(const struct process *p)
{
	uint64_t mark = 0;

	if (getrandom(&mark, sizeof mark, GRND_NONBLOCK) != (ssize_t)sizeof mark)
		mark = (uint64_t)lease_now_ns() << 20 ^ p->id; /* very early at boot */
	return mark != 0 ? mark : 1;
}

void spawn_worker(struct supervisor *s, const struct action *a)
{
	struct process *p = &s->processes[a->worker];
	const struct worker *w = &s->core.workers[a->worker];
	struct event told = {
		.kind = EVENT_SPAWNED, .worker = a->worker, .id = a->id, .program = -1};
	struct spawn sp;
	struct err e;

	if (p->id != 0)
		process_release(p);
	p->id = a->id;
	p->mark = make_mark(p);
	p->memory_bytes = 0;
	if (asprintf(&p->name, "%s:%d", w->settings->name, w->index) < 0)
		p->name = NULL;
	spawn_init(&sp, p, a);
	errno = 0;
	if (p->name == NULL || spawn(&sp, &e) < 0) {
		told.ok = is_transient(errno);
		set_failure(p, p->name == NULL ? "out of memory" : e.text);
		lease_release(&p->lease);
		told.kind = EVENT_SPAWN_FAILED;
	} else {
		told.pid = p->pid;
	}
	spawn_clear(&sp);
	supervisor_post(s, &told);
}

void spawn_release(struct supervisor *s, const struct action *a)
{
	struct process *p = supervisor_process(s, a->worker, a->id);

	if (p == NULL || p->hold_fd < 0)
		return;
	(void)!write(p->hold_fd, "x", 1);
	close_fd(&p->hold_fd);
}

/* The shell's end of the lock: keeper and guard. (The deadman: guardian.c; the waiter and inotify:
 * lock_watch.c.) */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/claims.h"
#include "supervisor/shell/state.h"
#include "worker/lock/guard.h"

#define QUICK_DEATH_NS CORE_SECOND

/* --- answers ------------------------------------------------------------------------------- */
static bool same_text(const char *a, const char *b)
{
	return a[0] != '\0' && strcmp(a, b) == 0;
}

static void fill_view(struct supervisor *s, const struct store_view *from, struct lock_view *to)
{
	const struct store_row *row = &from->row;
	const struct store_settings *own = &s->lock.settings;

	memset(to, 0, sizeof *to);
	to->valid = from->exists;
	snprintf(to->db_uuid, sizeof to->db_uuid, "%s", from->db_uuid);
	snprintf(to->holder, sizeof to->holder, "%s", row->holder);
	to->term = row->term;
	to->epoch = row->epoch;
	to->beat = row->beat;
	to->ttl_ns = row->ttl_ms * CORE_MS;
	to->held = row->held;
	to->mine = strcmp(row->holder, s->instance) == 0;
	to->floor_conflict = from->floor == FLOOR_OTHER_UUID || from->floor == FLOOR_HIGHER;
	to->floor_term = from->floor_term;
	to->pid1 = row->pid1;
	to->wall_us = report_wall_us();
	to->file = (from->device * UINT64_C(1099511628211)) ^ from->inode;
	if (s->lock.guard_fd >= 0)
		(void)guard_cleared(s->lock.guard_fd, &to->cleared, NULL); /* else 0 */
	to->same_boot = same_text(own->boot_id, row->boot_id) && row->guard_ino != 0 &&
			row->guard_ino == s->lock.guard_inode;
	to->same_machine = !same_text(own->boot_id, row->boot_id) && row->boot_id[0] != '\0' &&
			   same_text(own->machine_id, row->machine_id);
}

static enum outcome outcome_of(enum store_outcome o)
{
	static const enum outcome outcomes[] = {[STORE_DONE] = OUTCOME_DONE,
		[STORE_REFUSED] = OUTCOME_REFUSED,
		[STORE_UNKNOWN] = OUTCOME_UNKNOWN,
		[STORE_UNAVAILABLE] = OUTCOME_UNAVAILABLE,
		[STORE_MOVED] = OUTCOME_MOVED,
		[STORE_WRONG] = OUTCOME_WRONG};

	return o <= STORE_WRONG ? outcomes[o] : OUTCOME_UNKNOWN;
}

static void post_answer(struct supervisor *s, enum outcome outcome, const char *text)
{
	struct lock_state *l = &s->lock;
	struct event e = {.kind = EVENT_REPLY, .worker = -1, .program = -1, .reply = &l->answer};

	l->answer.id = l->sent_id;
	l->answer.op = l->sent_op;
	l->answer.outcome = outcome;
	l->answer.text = l->answer_text;
	snprintf(l->answer_text, sizeof l->answer_text, "%s", text);
	snprintf(l->error, sizeof l->error, "%s", outcome == OUTCOME_DONE ? "" : text);
	l->sent_id = 0;
	supervisor_post(s, &e);
}

static void post_failure(struct supervisor *s, enum outcome outcome, const char *text)
{
	s->lock.answer.floor_failed = false;
	memset(&s->lock.answer.view, 0, sizeof s->lock.answer.view);
	post_answer(s, outcome, text);
}

/* The guard lies beside the database and can only be opened when that is there. */
static int open_guard(struct supervisor *s, struct err *e)
{
	struct lock_state *l = &s->lock;
	int64_t inode;
	int fd;

	if (l->guard_fd >= 0 && l->guard_epoch != 0)
		return 0;
	if (guard_open(l->settings.database, &fd, &inode, e) < 0)
		return e->code;
	if (l->guard_fd >= 0 && inode == l->guard_inode) {
		close(fd);
		return 0;
	}
	if (l->guard_fd >= 0)
		close(l->guard_fd);
	l->guard_fd = fd;
	l->guard_inode = inode;
	l->settings.guard_ino = inode;
	l->keeper_told = false;
	guardian_give_guard(s);
	return 0;
}

static void keep_view(struct supervisor *s, const struct keeper_reply *r)
{
	struct lock_state *l = &s->lock;
	struct err e;

	if (!r->view.exists)
		return;
	if (!l->view_valid || l->view.inode != r->view.inode || l->view.device != r->view.device)
		lock_watch_files(s);
	l->view = r->view;
	l->view_valid = true;
	if (r->view.overlay && !l->overlay_told) {
		l->overlay_told = true;
		logs_event(s->logs, LOGS_WARNING, "lock.overlay", NULL, 0,
			"the lock database '%s' lies on overlayfs: only this container sees it, so "
			"each container elects an executor of its own; put it on a volume that all "
			"share",
			l->settings.database);
	}
	(void)open_guard(s, &e); /* a row is compared with its inode; it may be another by now */
	standby_compare_programs(s);
}

static void keeper_readable(void *context, unsigned events)
{
	struct supervisor *s = context;
	struct lock_state *l = &s->lock;
	struct keeper_reply r;
	ssize_t n = recv(l->keeper.fd, &r, sizeof r, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof r) {
		helper_close(&l->keeper); /* it is dead or dying: the reaper says so */
		if (l->keeper.pid > 0)
			(void)kill(l->keeper.pid, SIGKILL);
		if (l->sent_id != 0)
			post_failure(s, OUTCOME_UNKNOWN, "the keeper died before it answered");
		return;
	}
	if (r.op == KEEPER_SETTINGS || r.id != l->sent_id)
		return;
	r.text[sizeof r.text - 1] = '\0';
	l->keeper_cut = false;
	keep_view(s, &r);
	fill_view(s, &r.view, &l->answer.view);
	l->answer.floor_failed = r.floor_failed;
	if (r.op == KEEPER_ACQUIRE && r.outcome == STORE_DONE)
		l->acquired_wall_us = report_wall_us();
	post_answer(s, outcome_of(r.outcome), r.text);
	if (l->keeper_former) { /* it is idle now: the next one is of this version */
		helper_close(&l->keeper);
		l->keeper.pid = 0;
		l->keeper_former = false;
	}
}

/* A message was not taken: what a keeper would make of half of them is not to be found out. */
static int no_keeper(struct supervisor *s, struct err *e)
{
	err_set(e, ERR_SYSTEM, "cannot speak to the keeper: %s; starting another", strerror(errno));
	helper_kill(&s->lock.keeper);
	return e->code;
}

static int start_keeper(struct supervisor *s, struct err *e)
{
	struct lock_state *l = &s->lock;
	struct child_fd fds[1];
	int pair[2];

	if (l->keeper.fd >= 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot make the keeper's socket: %s", strerror(errno));
	fds[0] = (struct child_fd){pair[1], 3};
	l->keeper.pid = spawn_helper(s, "lock-keeper", NULL, fds, 1, e);
	close(pair[1]);
	if (l->keeper.pid < 0) {
		l->keeper.pid = 0;
		close(pair[0]);
		return e->code;
	}
	l->keeper.fd = pair[0];
	l->keeper.started_ns = lease_now_ns();
	l->keeper.watch = loop_watch(s->loop, pair[0], LOOP_READ, keeper_readable, s);
	l->keeper_told = true;
	if (send(pair[0], &l->settings, sizeof l->settings, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return no_keeper(s, e);
	return 0;
}

/* --- requests ------------------------------------------------------------------------------ */
static int tell_settings(struct supervisor *s, struct err *e)
{
	struct lock_state *l = &s->lock;
	struct keeper_request r = {.op = KEEPER_SETTINGS};

	if (l->keeper_told)
		return 0;
	if (send(l->keeper.fd, &r, sizeof r, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ||
		send(l->keeper.fd, &l->settings, sizeof l->settings, MSG_DONTWAIT | MSG_NOSIGNAL) <
			0)
		return no_keeper(s, e);
	l->keeper_told = true;
	return 0;
}

static void fill_request(
	struct supervisor *s, const struct core_request *from, struct keeper_request *to)
{
	static const enum keeper_op ops[] = {[REQUEST_INSPECT] = KEEPER_INSPECT,
		[REQUEST_ACQUIRE] = KEEPER_ACQUIRE,
		[REQUEST_RENEW] = KEEPER_RENEW,
		[REQUEST_PROMOTE] = KEEPER_PROMOTE,
		[REQUEST_RELEASE] = KEEPER_RELEASE};

	memset(to, 0, sizeof *to);
	to->id = from->id;
	to->op = ops[from->op];
	to->epoch = from->epoch;
	to->term = from->term;
	to->new_term = from->new_term;
	to->ttl_ms = from->ttl_ns / CORE_MS;
	snprintf(to->reason, sizeof to->reason, "%s", from->reason != NULL ? from->reason : "");
	to->expect.term = from->expect.term;
	to->expect.beat = from->expect.beat;
	snprintf(to->expect.holder, sizeof to->expect.holder, "%s", from->expect.holder);
	snprintf(to->expect.db_uuid, sizeof to->expect.db_uuid, "%s", from->expect.db_uuid);
	if (from->program >= 0) {
		const struct process *p = from->worker >= 0 ? &s->processes[from->worker] : NULL;

		snprintf(to->program, sizeof to->program, "%s",
			s->core.programs[from->program].settings->name);
		if (p != NULL) {
			snprintf(to->worker, sizeof to->worker, "%s",
				report_worker_name(s, from->worker));
			/* What is respawned as executor has no pid yet; the one it has will end. */
			if (p->id != 0 && s->core.programs[from->program].settings->promote !=
						  PROMOTE_RESPAWN)
				to->pid = main_pid(p);
		}
	}
}

/* Nobody else may be acquiring this epoch: the byte is taken before the row, never waited for. */
static bool lock_byte(struct supervisor *s, int64_t epoch)
{
	struct event busy = {.kind = EVENT_GUARD_BUSY, .worker = -1, .program = -1};
	struct lock_state *l = &s->lock;
	struct err e;

	if (open_guard(s, &e) < 0) {
		post_failure(s, OUTCOME_UNAVAILABLE, e.text);
		return false;
	}
	if (guard_lock(l->guard_fd, epoch, &e) < 0) {
		l->sent_id = 0;
		if (e.code == ERR_BUSY)
			supervisor_post(s, &busy);
		else
			post_failure(s, OUTCOME_UNAVAILABLE, e.text);
		return false;
	}
	l->guard_epoch = epoch;
	if (l->table != NULL)
		atomic_store(&l->table->epoch, epoch);
	return true;
}

void lock_request(struct supervisor *s, const struct action *a)
{
	struct lock_state *l = &s->lock;
	struct keeper_request r;
	struct err e;

	if (a->request.op ==
		REQUEST_NONE) { /* it does not answer: the next request starts another */
		logs_event(s->logs, LOGS_WARNING, "lock.keeper_stuck", NULL, 0,
			"the database has not answered for 8 s; starting another keeper");
		helper_kill(&l->keeper);
		l->sent_id = 0;
		return;
	}
	l->sent_id = a->request.id;
	l->sent_op = a->request.op;
	if (a->request.op == REQUEST_ACQUIRE && !lock_byte(s, a->request.epoch))
		return;
	fill_request(s, &a->request, &r);
	if (start_keeper(s, &e) < 0 || tell_settings(s, &e) < 0) {
		post_failure(s, OUTCOME_UNAVAILABLE, e.text);
		return;
	}
	if (send(l->keeper.fd, &r, sizeof r, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		(void)no_keeper(s, &e);
		post_failure(s, OUTCOME_UNAVAILABLE, e.text);
	}
}

/* --- guard --------------------------------------------------------------------------------- */
void lock_guard_unlock(struct supervisor *s, int64_t epoch)
{
	struct lock_state *l = &s->lock;
	struct err e;

	if (l->guard_epoch == epoch) {
		l->guard_epoch = 0;
		if (l->table != NULL)
			atomic_store(&l->table->epoch, 0);
	}
	if (l->guard_fd >= 0 && epoch != 0 && guard_unlock(l->guard_fd, epoch, &e) < 0)
		logs_event(s->logs, LOGS_ERROR, "lock.guard", NULL, 0, "%s", e.text);
}

void lock_guard_mark(struct supervisor *s, int64_t epoch)
{
	struct err e;

	if (s->lock.guard_fd >= 0 && epoch != 0 &&
		guard_mark_cleared(s->lock.guard_fd, epoch, &e) < 0)
		logs_event(s->logs, LOGS_WARNING, "lock.guard", NULL, 0, "%s", e.text);
}

/* --- stages -------------------------------------------------------------------------------- */
static void read_id(const char *path, char *buf, size_t bytes)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (f == NULL)
		return;
	if (fgets(buf, (int)bytes, f) == NULL)
		buf[0] = '\0';
	buf[strcspn(buf, " \r\n")] = '\0';
	fclose(f);
}

static void fill_settings(struct supervisor *s)
{
	struct store_settings *t = &s->lock.settings;
	const struct config_scheduler *c = &s->config->scheduler;

	snprintf(t->database, sizeof t->database, "%s", c->database);
	snprintf(t->lock_name, sizeof t->lock_name, "%s", c->lock_name);
	t->unsafe_filesystem = c->unsafe_filesystem;
	t->create = true;
	t->history_keep_us = c->history_keep_ns / 1000;
	t->busy_limit_ms = 2000;
	snprintf(t->instance, sizeof t->instance, "%s", s->instance);
	snprintf(t->hostname, sizeof t->hostname, "%s", s->hostname);
	read_id("/proc/sys/kernel/random/boot_id", t->boot_id, sizeof t->boot_id);
	read_id("/etc/machine-id", t->machine_id, sizeof t->machine_id);
	t->pid = getpid();
	t->pid1 = getpid() == 1;
}

int lock_stage_database(struct supervisor *s, struct err *e)
{
	char missing[128];

	fill_settings(s);
	if (s->config->scheduler.fast_takeover && !guard_kernel_supports(missing, sizeof missing))
		logs_event(s->logs, LOGS_WARNING, "lock.kernel", NULL, 0,
			"this kernel lacks %s: a takeover will take the whole ttl", missing);
	return start_keeper(s, e);
}

void lock_stage_database_down(struct supervisor *s)
{
	struct lock_state *l = &s->lock;

	lock_watch_end(s);
	claims_end(s);
	helper_close(&l->keeper); /* end of file: it finishes what it does and exits */
	if (l->guard_fd >= 0)
		close(l->guard_fd);
	l->guard_fd = -1;
}

/* The keeper of the image before ends at the end of file, unless it has a request whose packets we
 * understand: then it answers that one first. */
static void keeper_resume(struct supervisor *s, bool same_protocol)
{
	struct lock_state *l = &s->lock;
	struct err e;

	if (l->sent_id != 0 && l->keeper.fd >= 0 && same_protocol) {
		l->keeper_former = true;
		l->keeper.watch = loop_watch(s->loop, l->keeper.fd, LOOP_READ, keeper_readable, s);
		return;
	}
	if (l->sent_id != 0) {
		helper_kill(&l->keeper); /* what it has begun may be done or not */
		l->keeper_cut = true;
		post_failure(s, OUTCOME_UNKNOWN, "the upgrade in place came between");
	}
	helper_close(&l->keeper);
	l->keeper.pid = 0;
	l->keeper_former = false;
	if (start_keeper(s, &e) < 0) /* the next request tries again */
		logs_event(s->logs, LOGS_WARNING, "lock.keeper", NULL, 0, "%s", e.text);
}

void lock_resume(struct supervisor *s, bool same_keeper, bool same_deadman)
{
	struct err e;

	if (guardian_resume(s, same_deadman, &e) < 0)
		logs_event(s->logs, LOGS_ERROR, "lock.deadman", NULL, 0, "%s", e.text);
	if (!s->config->scheduler.enabled || s->lock.settings.database[0] == '\0')
		return;
	keeper_resume(s, same_keeper);
	lock_watch_resume(s);
}

void lock_reconfigure(struct supervisor *s)
{
	if (!s->config->scheduler.enabled || s->lock.settings.database[0] == '\0')
		return;
	s->lock.settings.history_keep_us = s->config->scheduler.history_keep_ns / 1000;
	s->lock.settings.unsafe_filesystem = s->config->scheduler.unsafe_filesystem;
	s->lock.keeper_told = false;
	claims_reconfigure(s);
}

bool lock_reaped(struct supervisor *s, pid_t pid, int status)
{
	struct lock_state *l = &s->lock;

	if (pid <= 0)
		return false;
	if (pid == l->waiter.pid) {
		l->waiter.pid = 0; /* its report, if any, is in the pipe */
		return true;
	}
	if (claims_reaped(s, pid))
		return true;
	if (pid != l->keeper.pid)
		return guardian_reaped(s, pid, status);
	l->keeper.pid = 0;
	if (s->exiting)
		return true;
	logs_event(s->logs, LOGS_WARNING, "lock.keeper_died", NULL, 0,
		"the keeper ended with status %d; starting another for the next request", status);
	helper_close(&l->keeper);
	if (l->sent_id != 0)
		post_failure(s, OUTCOME_UNKNOWN, "the keeper died before it answered");
	return true;
}

/* What tells a supervisor that it should look at the lock: the waiter on a holder's byte, inotify.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "supervisor/shell/state.h"
#include "worker/lock/guard.h"

#define QUICK_DEATHS   5
#define QUICK_DEATH_NS CORE_SECOND

/* --- the waiter ---------------------------------------------------------------------------- */
static void no_waiter(struct supervisor *s, const char *why)
{
	logs_event(s->logs, LOGS_WARNING, "lock.waiter", NULL, 0,
		"%s; a takeover will take the whole ttl", why);
}

/* Without a waiter a takeover would take the ttl: another one, unless they do nothing but die. */
static void waiter_died(struct supervisor *s)
{
	struct helper *w = &s->lock.waiter;
	bool quick = lease_now_ns() - w->started_ns < QUICK_DEATH_NS;

	w->quick_deaths = quick ? w->quick_deaths + 1 : 0;
	if (w->quick_deaths < QUICK_DEATHS)
		lock_wait_guard(s, s->core.election.waiting_epoch);
	else
		no_waiter(s, "the waiter dies again and again");
}

static void waiter_readable(void *context, unsigned events)
{
	struct supervisor *s = context;
	struct waiter_report r;
	struct event e = {.kind = EVENT_GUARD_FREE, .worker = -1, .program = -1};
	ssize_t n = read(s->lock.waiter.fd, &r, sizeof r);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	helper_close(&s->lock.waiter);
	if (n != (ssize_t)sizeof r) {
		waiter_died(s);
		return;
	}
	s->lock.waiter.quick_deaths = 0;
	e.number = r.epoch;
	e.cleared = r.cleared;
	supervisor_post(s, &e);
}

void lock_wait_guard(struct supervisor *s, int64_t epoch)
{
	struct lock_state *l = &s->lock;
	char text[32];
	int guard, report[2];
	int64_t inode;
	struct child_fd fds[2];
	struct err e;

	helper_kill(&l->waiter);
	if (epoch == 0)
		return;
	if (guard_open(l->settings.database, &guard, &inode, &e) < 0) {
		no_waiter(s, e.text);
		return;
	}
	if (pipe2(report, O_CLOEXEC) < 0) {
		no_waiter(s, strerror(errno));
		close(guard);
		return;
	}
	snprintf(text, sizeof text, "%lld", (long long)epoch);
	fds[0] = (struct child_fd){guard, 3};
	fds[1] = (struct child_fd){report[1], 4};
	l->waiter.pid = spawn_helper(s, "lock-waiter", text, fds, 2, &e);
	close(guard);
	close(report[1]);
	if (l->waiter.pid < 0) {
		l->waiter.pid = 0;
		close(report[0]);
		no_waiter(s, e.text);
		return;
	}
	l->waiter.fd = report[0];
	l->waiter.started_ns = lease_now_ns();
	(void)fcntl(report[0], F_SETFL, O_NONBLOCK);
	l->waiter.watch = loop_watch(s->loop, report[0], LOOP_READ, waiter_readable, s);
}

/* --- inotify ------------------------------------------------------------------------------- */
#define FILE_EVENTS   (IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)
#define FOLDER_EVENTS (IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE)

static void files_changed(void *context, unsigned events)
{
	struct supervisor *s = context;
	struct event e = {.kind = EVENT_DATABASE_CHANGED, .worker = -1, .program = -1};
	char buffer[16384] __attribute__((aligned(8)));
	const char *base = strrchr(s->lock.settings.database, '/');
	ssize_t n = read(s->lock.inotify_fd, buffer, sizeof buffer);
	bool ours = false;

	(void)events;
	base = base != NULL ? base + 1 : s->lock.settings.database;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *i = (const struct inotify_event *)(buffer + at);

		ours = ours || i->len == 0 || strcmp(i->name, base) == 0;
		at += (ssize_t)(sizeof *i + i->len);
	}
	if (ours)
		supervisor_post(s, &e);
}

static void unwatched(struct supervisor *s)
{
	logs_event(s->logs, LOGS_WARNING, "lock.unwatched", NULL, 0,
		"the lock database cannot be watched (inotify): %s; whatever happens to its file "
		"is noticed at the next heartbeat only",
		strerror(errno));
}

/* The file and its folder: whatever replaces, deletes or restores it means "look now". */
void lock_watch_files(struct supervisor *s)
{
	struct lock_state *l = &s->lock;
	char folder[PATH_MAX];

	if (l->inotify_fd >= 0) {
		loop_unwatch(l->inotify_watch);
		close(l->inotify_fd);
	}
	l->inotify_watch = NULL;
	l->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (l->inotify_fd < 0) {
		unwatched(s);
		return;
	}
	snprintf(folder, sizeof folder, "%s", l->settings.database);
	if (inotify_add_watch(l->inotify_fd, dirname(folder), FOLDER_EVENTS | IN_ONLYDIR) < 0 ||
		inotify_add_watch(l->inotify_fd, l->settings.database, FILE_EVENTS) < 0)
		unwatched(s);
	l->inotify_watch = loop_watch(s->loop, l->inotify_fd, LOOP_READ, files_changed, s);
}

void lock_watch_resume(struct supervisor *s)
{
	struct lock_state *l = &s->lock;

	if (l->inotify_fd >= 0)
		l->inotify_watch = loop_watch(s->loop, l->inotify_fd, LOOP_READ, files_changed, s);
	/* What it may have said meanwhile the next one finds out at once. */
	lock_wait_guard(s, s->core.election.waiting_epoch);
}

void lock_watch_end(struct supervisor *s)
{
	struct lock_state *l = &s->lock;

	helper_kill(&l->waiter);
	if (l->inotify_fd < 0)
		return;
	loop_unwatch(l->inotify_watch);
	close(l->inotify_fd);
	l->inotify_watch = NULL;
	l->inotify_fd = -1;
}

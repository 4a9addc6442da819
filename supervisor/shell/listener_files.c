/*
 * The files of UNIX listeners: watched (inotify, on the socket and on its folder, not on what else
 * is in that: a busy folder costs nothing) and brought back when a child, a clean-up job or a
 * person removes, replaces or renames them.
 *
 * A listener keeps a second, hidden name of its file beside it. From that the path comes back as
 * the same socket: nobody has to be replaced and no connection is lost. Only when both names are
 * gone, or the file system has no links, is another socket bound; the workers are replaced, for the
 * old ones cannot be reached any more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

#define SOCKET_EVENTS (IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_DONT_FOLLOW)
#define FOLDER_EVENTS (IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR)
#define RETRY_NS      (5 * CORE_SECOND)
#define REOPEN_NS     (60 * CORE_SECOND) /* a worker that removes it as it ends is no endless roll */

/* --- another one in its place -------------------------------------------------------------- */
static bool uses(struct supervisor *s, const struct program *p, const struct listener_slot *slot)
{
	for (size_t i = 0; i < p->settings->socket_count; i++) {
		if (listeners_find(s, &p->config->sockets[p->settings->sockets[i]]) == slot)
			return true;
	}
	return false;
}

/* Those who have the unreachable listener are replaced by others that get the new one. */
static void roll_users(struct supervisor *s, const struct listener_slot *slot)
{
	enum diff_class *classes = calloc(s->config->program_count + 1, sizeof *classes);
	struct event e = {.kind = EVENT_RELOAD,
		.worker = -1,
		.program = -1,
		.config = s->config,
		.classes = classes};
	bool any = false;

	for (size_t i = 0; classes != NULL && i < s->config->program_count; i++) {
		int p = core_find_program(&s->core, s->config->programs[i].name);

		classes[i] = p >= 0 && uses(s, &s->core.programs[p], slot) ? DIFF_ROLL : DIFF_SAME;
		any = any || classes[i] == DIFF_ROLL;
	}
	if (any && s->core.lifecycle.state == LIFECYCLE_RUNNING &&
		supervisor_has_room(s, EVENT_RELOAD, -1, 0, s->config))
		supervisor_post(s, &e);
	else
		free(classes);
}

static const struct config_socket *settings_of(
	struct supervisor *s, const struct listener_slot *slot)
{
	for (size_t i = 0; i < s->config->socket_count; i++) {
		if (listeners_find(s, &s->config->sockets[i]) == slot)
			return &s->config->sockets[i];
	}
	return NULL;
}

static int reopen(struct supervisor *s, struct listener_slot *slot, struct err *e)
{
	const struct config_socket *c = settings_of(s, slot);
	struct listener l;

	if (c == NULL)
		return err_set(e, ERR_UNAVAILABLE, "socket '%s' of the version before was removed",
			slot->listener.path);
	if (slot->reopened_ns != 0 && lease_now_ns() - slot->reopened_ns < REOPEN_NS)
		return err_set(e, ERR_UNAVAILABLE,
			"socket '%s' is removed again and again: it is made anew once a minute",
			slot->listener.path);
	if (listener_open(&l, c, e) < 0)
		return e->code;
	listeners_unwatch(s, slot);
	close(slot->listener.fd); /* who has it still takes what waits in it */
	slot->listener = l;
	slot->reopened_ns = lease_now_ns();
	logs_event(s->logs, LOGS_WARNING, "socket.reopened", NULL, 0,
		"[socket:%s]: '%s' was removed and could not be brought back: made anew; its "
		"workers are replaced, the old ones cannot be reached any more",
		slot->name, l.path);
	roll_users(s, slot);
	return 0;
}

/* --- mending ------------------------------------------------------------------------------- */
void listeners_mend_one(struct supervisor *s, struct listener_slot *slot)
{
	bool missing = !slot->inherited && !listener_path_intact(&slot->listener);
	struct err e;
	int rc;

	if (slot->inherited)
		return; /* its maker's */
	rc = listener_restore(&slot->listener, &e);
	if (rc == 0 && missing)
		logs_event(s->logs, LOGS_WARNING, "socket.mended", NULL, 0,
			"[socket:%s]: '%s' had been removed, renamed or replaced: it is there "
			"again, no connection is lost",
			slot->name, slot->listener.path);
	else if (rc == ERR_UNAVAILABLE)
		rc = reopen(s, slot, &e);
	if (rc != 0 && !slot->lost)
		logs_event(s->logs, LOGS_ERROR, "socket.lost", NULL, 0,
			"[socket:%s] cannot be reached: %s; tried again every 5 s", slot->name,
			e.text);
	slot->lost = rc != 0;
	slot->retry_ns = rc != 0 ? lease_now_ns() + RETRY_NS : 0;
}

static void mend_all(struct supervisor *s)
{
	for (size_t i = 0; i < s->listener_count; i++)
		listeners_mend_one(s, &s->listeners[i]);
	listeners_watch(s);
}

static void files_changed(void *context, unsigned events)
{
	char buffer[4096] __attribute__((aligned(8)));
	struct supervisor *s = context;

	(void)events;
	while (read(s->socket_inotify_fd, buffer, sizeof buffer) > 0)
		;
	mend_all(s);
}

int64_t listeners_deadline(const struct supervisor *s)
{
	int64_t at = 0;

	for (size_t i = 0; i < s->listener_count; i++) {
		int64_t retry = s->listeners[i].retry_ns;

		if (retry != 0 && (at == 0 || retry < at))
			at = retry;
	}
	return at;
}

void listeners_check(struct supervisor *s)
{
	int64_t at = listeners_deadline(s);

	if (at != 0 && at <= lease_now_ns())
		mend_all(s);
}

/* --- watching ------------------------------------------------------------------------------ */
static bool begin(struct supervisor *s)
{
	if (s->socket_inotify_watch != NULL)
		return true;
	s->socket_inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (s->socket_inotify_fd < 0)
		return false;
	s->socket_inotify_watch = loop_watch(
		s->loop, s->socket_inotify_fd, LOOP_READ, files_changed, s);
	if (s->socket_inotify_watch == NULL)
		close(s->socket_inotify_fd);
	return s->socket_inotify_watch != NULL;
}

/* Not the socket is told when its folder is renamed. Where that cannot be watched (a folder that
 * may not be read) the socket's own watch must do. */
static void watch_folder(struct supervisor *s, const struct listener *l)
{
	char folder[sizeof l->path];
	const char *slash = strrchr(l->path, '/');

	snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - l->path) : 1,
		slash != NULL ? l->path : ".");
	if (folder[0] != '\0') /* the root folder stays */
		(void)inotify_add_watch(s->socket_inotify_fd, folder, FOLDER_EVENTS);
}

void listeners_watch(struct supervisor *s)
{
	for (size_t i = 0; i < s->listener_count; i++) {
		struct listener_slot *slot = &s->listeners[i];

		if (slot->listener.path[0] == '\0' || slot->inherited || slot->watch > 0 ||
			slot->lost)
			continue;
		if (begin(s))
			slot->watch = inotify_add_watch(
				s->socket_inotify_fd, slot->listener.path, SOCKET_EVENTS);
		if (slot->watch > 0) {
			watch_folder(s, &slot->listener);
			continue;
		}
		logs_event(s->logs, LOGS_WARNING, "socket.unwatched", NULL, 0,
			"[socket:%s]: '%s' cannot be watched (inotify): %s; whether it was removed "
			"is seen at a reload and when a worker starts",
			slot->name, slot->listener.path, strerror(errno));
	}
}

void listeners_unwatch(struct supervisor *s, struct listener_slot *slot)
{
	if (slot->watch > 0)
		(void)inotify_rm_watch(s->socket_inotify_fd, slot->watch);
	slot->watch = -1;
}

void listeners_watch_end(struct supervisor *s)
{
	if (s->socket_inotify_watch == NULL)
		return;
	loop_unwatch(s->socket_inotify_watch);
	close(s->socket_inotify_fd);
	s->socket_inotify_watch = NULL;
}

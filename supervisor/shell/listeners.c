/*
 * The listening sockets: those of the configuration, and those of versions before it that workers
 * still run or that a rollout may go back to. Which one belongs to a [socket:] of a snapshot is
 * told by its key (sockets.h), so slots hold no pointers.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

struct listener_slot *listeners_find(struct supervisor *s, const struct config_socket *c)
{
	char key[ADDRESS_KEY_BYTES];

	address_key(c, key, sizeof key);
	for (size_t i = 0; i < s->listener_count; i++) {
		if (strcmp(s->listeners[i].key, key) == 0)
			return &s->listeners[i];
	}
	return NULL;
}

static void announce(struct supervisor *s, struct listener_slot *slot)
{
	const struct listener *l = &slot->listener;

	if (slot->announced)
		return;
	slot->announced = true;
	logs_event(s->logs, LOGS_INFO, "socket.open", NULL, 0, "listening on %s (%s%s)",
		l->url[0] != '\0' ? l->url : l->text, slot->name,
		slot->inherited ? ", inherited" : "");
	if (l->addresses > 1)
		logs_event(s->logs, LOGS_WARNING, "socket.addresses", NULL, 0,
			"[socket:%s] listen: that name has %d addresses; this is the first one, "
			"give each of the others a [socket:] of its own",
			slot->name, l->addresses);
}

/* --- what can be changed in an open one ---------------------------------------------------- */
static bool set_owner(const struct listener *l, const struct config_user *owner)
{
	uid_t uid = owner->set ? owner->uid : geteuid();
	gid_t gid = owner->set ? owner->gid : getegid();
	struct stat st;

	if (lstat(l->path, &st) == 0 && st.st_uid == uid && st.st_gid == gid)
		return true;
	return lchown(l->path, uid, gid) == 0;
}

static void adjust(struct supervisor *s, struct listener_slot *slot, const struct config_socket *c)
{
	struct listener *l = &slot->listener;
	int nodelay = c->nodelay;
	bool ok = true;

	snprintf(slot->name, sizeof slot->name, "%s", c->name);
	l->backlog = c->backlog;
	listener_reassert(l);
	if (c->family != AF_UNIX)
		ok = setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof nodelay) == 0;
	else if (l->path[0] != '\0' && !slot->inherited)
		ok = set_owner(l, &c->owner) && chmod(l->path, c->mode) == 0;
	if (!ok)
		logs_event(s->logs, LOGS_ERROR, "socket.settings", NULL, 0,
			"[socket:%s]: its settings could not be changed: %s", c->name,
			strerror(errno));
}

bool listeners_unapplied(
	struct supervisor *s, const struct config_socket *c, char *buf, size_t bytes)
{
	const struct listener_slot *slot = listeners_find(s, c);

	if (slot == NULL || c->family != AF_INET6 || slot->inherited ||
		slot->listener.v6only == c->v6only)
		return false;
	snprintf(buf, bytes,
		"[socket:%s] v6only: needs a restart of baton, not applied: it is fixed when a "
		"port is opened (with another port in 'listen' it is)",
		c->name);
	return true;
}

/* --- opening ------------------------------------------------------------------------------- */
static int open_new(struct listener_slot *slot, const struct config_socket *c, struct err *e)
{
	address_key(c, slot->key, sizeof slot->key);
	snprintf(slot->name, sizeof slot->name, "%s", c->name);
	if (listener_open(&slot->listener, c, e) < 0)
		return err_prefix(e, "[socket:%s]", c->name);
	return 0;
}

/* From here on nothing fails: those of C in its order, then those of the versions before. Each slot
 * once: two sections with one address are an error of the file (conf/load_check_socket.c). */
static void exchange(struct supervisor *s, const struct config *c, struct listener_slot *next)
{
	size_t count = 0, own;

	for (size_t i = 0; i < c->socket_count; i++) {
		struct listener_slot *old = listeners_find(s, &c->sockets[i]);
		bool open = next[i].listener.fd >= 0;

		if (!open && old == NULL)
			continue;
		next[count] = open ? next[i] : *old;
		if (!open)
			old->key[0] = '\0';
		if (next[count].announced)
			adjust(s, &next[count], &c->sockets[i]);
		count++;
	}
	own = count;
	for (size_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].key[0] != '\0')
			next[count++] = s->listeners[i];
	}
	free(s->listeners);
	s->listeners = next;
	s->listener_count = count;
	if (s->loop == NULL)
		return; /* early, as root; said and watched when that stage comes */
	for (size_t i = 0; i < own; i++)
		announce(s, &s->listeners[i]);
	listeners_watch(s);
}

static struct listener_slot *new_slots(const struct config *c, size_t more)
{
	struct listener_slot *next = calloc(c->socket_count + more + 1, sizeof *next);

	for (size_t i = 0; next != NULL && i < c->socket_count; i++)
		next[i].listener.fd = next[i].watch = -1;
	return next;
}

static void close_new(struct listener_slot *next, size_t count)
{
	for (size_t i = 0; i < count; i++)
		listener_close(&next[i].listener);
	free(next);
}

int listeners_open(struct supervisor *s, const struct config *c, struct err *e)
{
	struct listener_slot *next = new_slots(c, s->listener_count);
	int rc = 0;

	if (next == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	for (size_t i = 0; i < c->socket_count && rc == 0; i++) {
		struct listener_slot *old = listeners_find(s, &c->sockets[i]);

		if (old != NULL)
			listeners_mend_one(s, old);
		else
			rc = open_new(&next[i], &c->sockets[i], e);
	}
	if (rc == 0)
		exchange(s, c, next);
	else
		close_new(next, c->socket_count);
	return rc;
}

int listeners_try(struct supervisor *s, const struct config *c, struct err *e)
{
	struct listener_slot *next = new_slots(c, 0);
	int rc = 0;

	if (next == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	for (size_t i = 0; i < c->socket_count && rc == 0; i++) {
		const struct config_socket *wish = &c->sockets[i];

		if (listeners_find(s, wish) != NULL)
			continue;
		if (wish->family != AF_UNIX)
			rc = open_new(&next[i], wish, e);
		else if (listener_try_unix(wish, e) < 0)
			rc = err_prefix(e, "[socket:%s]", wish->name);
	}
	close_new(next, c->socket_count);
	return rc;
}

void listeners_close(struct supervisor *s)
{
	listeners_watch_end(s);
	for (size_t i = 0; i < s->listener_count; i++)
		listener_close(&s->listeners[i].listener);
	s->listener_count = 0;
}

/* --- closing what nobody needs any more ---------------------------------------------------- */
static void want(struct supervisor *s, const struct config *c, const struct config_program *p)
{
	for (size_t i = 0; i < p->socket_count; i++) {
		struct listener_slot *slot = listeners_find(s, &c->sockets[p->sockets[i]]);

		if (slot != NULL)
			slot->wanted = true;
	}
}

/* A socket of the file that no program of the file has stays as it is. */
static void want_unshared(struct supervisor *s)
{
	const struct config *c = s->config;

	for (size_t i = 0; i < c->socket_count; i++) {
		struct listener_slot *slot = listeners_find(s, &c->sockets[i]);
		bool shared = false;

		for (size_t j = 0; j < c->program_count; j++) {
			const struct config_program *p = &c->programs[j];

			for (size_t k = 0; k < p->socket_count; k++)
				shared = shared || p->sockets[k] == (int)i;
		}
		if (slot != NULL && !shared)
			slot->wanted = true;
	}
}

static void want_all(struct supervisor *s)
{
	const struct config_program *last = NULL;

	want_unshared(s);
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];

		if (!p->used)
			continue;
		want(s, p->config, p->settings);
		if (p->rollout.settings != NULL)
			want(s, p->rollout.config, p->rollout.settings);
	}
	for (int i = 0; i < s->core.worker_slots; i++) {
		const struct worker *w = &s->core.workers[i];

		if (!w->used || w->settings == last)
			continue;
		last = w->settings;
		want(s, spawn_config_of(s, w->settings), w->settings);
	}
}

void listeners_sweep(struct supervisor *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->listener_count; i++)
		s->listeners[i].wanted = false;
	want_all(s);
	for (size_t i = 0; i < s->listener_count; i++) {
		struct listener_slot *slot = &s->listeners[i];

		if (slot->wanted) {
			s->listeners[kept++] = *slot;
			continue;
		}
		logs_event(s->logs, LOGS_INFO, "socket.close", NULL, 0,
			"no longer listening on %s (%s): no worker has it any more",
			slot->listener.text, slot->name);
		listeners_unwatch(s, slot);
		listener_close(&slot->listener);
	}
	s->listener_count = kept;
}

/* --- what children change ------------------------------------------------------------------ */
/* Backlog and O_NONBLOCK belong to the listener, not to a descriptor: whoever changes them, changes
 * them for all. The backlog is ours; O_NONBLOCK is left to those that run: the first one finds it
 * as its preset says. */
void listeners_pass(struct supervisor *s, struct listener_slot *slot, bool blocking)
{
	bool first = true;

	listener_reassert(&slot->listener);
	for (int i = 0; first && i < s->core.worker_slots; i++) {
		const struct worker *w = &s->core.workers[i];
		const struct config_program *p = w->settings;

		if (!w->used || !w->alive)
			continue;
		for (size_t k = 0; first && k < p->socket_count; k++) {
			const struct config *c = spawn_config_of(s, p);

			first = listeners_find(s, &c->sockets[p->sockets[k]]) != slot;
		}
	}
	if (first || blocking)
		(void)fcntl(slot->listener.fd, F_SETFL, blocking ? 0 : O_NONBLOCK);
}

void listeners_reassert(struct supervisor *s)
{
	for (size_t i = 0; i < s->listener_count; i++)
		listener_reassert(&s->listeners[i].listener);
}

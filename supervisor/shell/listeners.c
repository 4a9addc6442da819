/* The listening sockets of the configuration: opened at the start, exchanged by a reload. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

struct listener_slot *listeners_find(struct supervisor *s, const char *name)
{
	for (size_t i = 0; i < s->listener_count; i++) {
		if (strcmp(s->listeners[i].name, name) == 0)
			return &s->listeners[i];
	}
	return NULL;
}

/* Is L what C asks for? One whose file was deleted is not: nobody can reach it any more. */
static bool fits(const struct listener_slot *l, const struct config_socket *c)
{
	return !l->used && strcmp(l->settings->listen, c->listen) == 0 &&
	       listener_path_intact(&l->listener);
}

/* The open one that C goes on with: its own, or that of a section which was renamed. A port that
 * the kernel chose belongs to its name. */
static struct listener_slot *find_open(struct supervisor *s, const struct config_socket *c)
{
	struct listener_slot *own = listeners_find(s, c->name);

	if (own != NULL && fits(own, c))
		return own;
	for (size_t i = 0; i < s->listener_count && (c->family == AF_UNIX || c->port != 0); i++) {
		if (fits(&s->listeners[i], c))
			return &s->listeners[i];
	}
	return NULL;
}

/* What can be changed in an open listener. */
static void adjust(struct supervisor *s, struct listener *l, const struct config_socket *old,
	const struct config_socket *new)
{
	int nodelay = new->nodelay;
	bool ok = true;

	l->backlog = new->backlog;
	listener_reassert(l);
	if (new->family != AF_UNIX)
		ok = setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof nodelay) == 0;
	else if (l->path[0] != '\0' && new->owner.set)
		ok = lchown(l->path, new->owner.uid, new->owner.gid) == 0;
	if (ok && l->path[0] != '\0')
		ok = chmod(l->path, new->mode) == 0;
	if (!ok)
		logs_event(s->logs, LOGS_ERROR, "socket.settings", NULL, 0,
			"[socket:%s]: its settings could not be changed: %s", new->name,
			strerror(errno));
	if (old->v6only != new->v6only)
		logs_event(s->logs, LOGS_WARNING, "socket.settings", NULL, 0,
			"[socket:%s] v6only: needs a restart of baton, not applied", new->name);
}

static int open_new(struct listener_slot *l, const struct config_socket *c, struct err *e)
{
	memset(l, 0, sizeof *l);
	if (listener_open(&l->listener, c, e) < 0)
		return err_prefix(e, "[socket:%s]", c->name);
	snprintf(l->name, sizeof l->name, "%s", c->name);
	l->settings = c;
	return 0;
}

/* From here on nothing fails. NEXT: those of FROM[i] == NULL were opened, the others are moved. */
static void exchange(struct supervisor *s, const struct config *c, struct listener_slot *next,
	struct listener_slot **from)
{
	for (size_t i = 0; i < c->socket_count; i++) {
		if (from[i] != NULL) {
			next[i] = *from[i];
			snprintf(next[i].name, sizeof next[i].name, "%s", c->sockets[i].name);
			adjust(s, &next[i].listener, next[i].settings, &c->sockets[i]);
			next[i].settings = &c->sockets[i];
		} else {
			logs_event(s->logs, LOGS_INFO, "socket.open", NULL, 0,
				"listening on %s (%s)",
				next[i].listener.url[0] != '\0' ? next[i].listener.url
								: next[i].listener.text,
				next[i].name);
		}
	}
	for (size_t i = 0; i < s->listener_count; i++) {
		if (!s->listeners[i].used)
			listener_close(&s->listeners[i].listener);
	}
	free(s->listeners);
	s->listeners = next;
	s->listener_count = c->socket_count;
	for (size_t i = 0; i < s->listener_count; i++)
		s->listeners[i].used = false;
}

int listeners_open(struct supervisor *s, const struct config *c, struct err *e)
{
	struct listener_slot *next = calloc(c->socket_count + 1, sizeof *next);
	struct listener_slot **from = calloc(c->socket_count + 1, sizeof *from);
	size_t opened = 0;
	int rc = 0;

	if (next == NULL || from == NULL)
		rc = err_set(e, ERR_SYSTEM, "out of memory");
	for (; rc == 0 && opened < c->socket_count; opened++) {
		from[opened] = find_open(s, &c->sockets[opened]);
		if (from[opened] != NULL)
			from[opened]->used = true;
		else
			rc = open_new(&next[opened], &c->sockets[opened], e);
		if (rc != 0)
			break;
	}
	if (rc == 0) {
		exchange(s, c, next, from);
		free(from);
		return 0;
	}
	for (size_t i = 0; i < opened; i++) {
		if (from[i] == NULL)
			listener_close(&next[i].listener);
	}
	for (size_t i = 0; i < s->listener_count; i++)
		s->listeners[i].used = false;
	free(next);
	free(from);
	return rc;
}

void listeners_close(struct supervisor *s)
{
	for (size_t i = 0; i < s->listener_count; i++)
		listener_close(&s->listeners[i].listener);
	s->listener_count = 0;
}

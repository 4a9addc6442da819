/*
 * Listening sockets that whoever started us had open: systemd's socket units (LISTEN_FDS,
 * sd_listen_fds(3)), Server::Starter (SERVER_STARTER_PORT), einhorn (EINHORN_FD_N). A [socket:]
 * whose name or address one of them has takes it instead of binding. The variables end here.
 *
 * It happens before there is a log: what is to be said goes to standard error, as the findings of
 * the configuration do.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

#define FIRST_FD 3
#define MOST_FDS 1000

struct given {
	int fd;
	char name[256]; /* "" = it has none */
	bool surely;    /* meant for us: LISTEN_PID says so */
	bool used;
	struct listener listener;
};

struct gifts {
	struct given *items;
	size_t count;
};

static void warn(const struct given *g, const char *text)
{
	fprintf(stderr, "baton: warning: inherited descriptor %d%s%s%s: %s\n", g->fd,
		g->name[0] != '\0' ? " ('" : "", g->name, g->name[0] != '\0' ? "')" : "", text);
}

/* --- what there is ------------------------------------------------------------------------- */
static void add(struct gifts *l, int fd, const char *name, size_t name_bytes, bool surely)
{
	struct given *g;

	if (l->count == MOST_FDS || fd < FIRST_FD || fcntl(fd, F_GETFD) < 0)
		return;
	for (size_t i = 0; i < l->count; i++) {
		if (l->items[i].fd == fd)
			return;
	}
	g = &l->items[l->count++];
	memset(g, 0, sizeof *g);
	g->fd = fd;
	g->surely = surely;
	snprintf(g->name, sizeof g->name, "%.*s", (int)name_bytes, name);
}

static long number_of(const char *variable)
{
	const char *text = getenv(variable);

	return text != NULL ? strtol(text, NULL, 10) : 0;
}

static void from_systemd(struct gifts *l)
{
	const char *names = getenv("LISTEN_FDNAMES");
	long count = number_of("LISTEN_FDS");

	if (number_of("LISTEN_PID") != getpid())
		return; /* not for us: of whoever started the shell that started us */
	for (long i = 0; i < count && i < MOST_FDS; i++) {
		size_t bytes = names != NULL ? strcspn(names, ":") : 0;

		add(l, FIRST_FD + (int)i, names != NULL ? names : "", bytes, true);
		if (names != NULL)
			names += bytes + (names[bytes] == ':');
	}
}

/* 127.0.0.1:80=3;8080=4;/path=5 */
static void from_server_starter(struct gifts *l)
{
	const char *text = getenv("SERVER_STARTER_PORT");

	while (text != NULL && *text != '\0') {
		size_t bytes = strcspn(text, ";"), at = bytes;

		while (at > 0 && text[at - 1] != '=')
			at--;
		if (at > 0)
			add(l, atoi(text + at), "", 0, false);
		text += bytes + (text[bytes] == ';');
	}
}

static void from_einhorn(struct gifts *l)
{
	long count = number_of("EINHORN_FD_COUNT");

	if (number_of("EINHORN_MASTER_PID") != getppid())
		return;
	for (long i = 0; i < count && i < MOST_FDS; i++) {
		char name[40];

		snprintf(name, sizeof name, "EINHORN_FD_%ld", i);
		add(l, (int)number_of(name), "", 0, false);
	}
}

static void forget_variables(void)
{
	static const char *const names[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
		"LISTEN_PIDFDID", "SERVER_STARTER_PORT", "SERVER_STARTER_GENERATION",
		"EINHORN_MASTER_PID", "EINHORN_FD_COUNT", "EINHORN_FDS"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		(void)unsetenv(names[i]);
}

/* --- whose they are ------------------------------------------------------------------------ */
static bool same_address(const struct given *g, const struct config_socket *c)
{
	char key[ADDRESS_KEY_BYTES], any[64];

	if (c->family != AF_UNIX && c->port == 0)
		return false;
	address_key(c, key, sizeof key);
	if (strcmp(key, g->listener.text) == 0)
		return true;
	/* systemd's ListenStream=80 takes IPv4, too. */
	snprintf(any, sizeof any, "[::]:%d", c->port);
	return c->family == AF_INET && !g->listener.v6only && strncmp(key, "0.0.0.0:", 8) == 0 &&
	       strcmp(any, g->listener.text) == 0;
}

/* One of that name and address; of that name; of that address. */
static struct given *find(struct gifts *l, const struct config_socket *c)
{
	struct given *best = NULL;
	int best_score = 0;

	for (size_t i = 0; i < l->count; i++) {
		struct given *g = &l->items[i];
		int score = 2 * (strcmp(g->name, c->name) == 0) + same_address(g, c);

		if (g->used || g->listener.fd < 0 || score <= best_score)
			continue;
		best = g;
		best_score = score;
	}
	return best;
}

static void take(struct supervisor *s, struct given *g, const struct config_socket *c)
{
	struct listener_slot *slot = &s->listeners[s->listener_count++];
	char text[700];

	if (!same_address(g, c) && (c->family == AF_UNIX || c->port != 0)) {
		snprintf(text, sizeof text,
			"[socket:%s] says listen = %s, but it listens on %s: the descriptor counts",
			c->name, c->listen, g->listener.text);
		warn(g, text);
	}
	memset(slot, 0, sizeof *slot);
	slot->watch = -1;
	slot->inherited = true;
	slot->listener = g->listener;
	slot->listener.backlog = c->backlog;
	snprintf(slot->name, sizeof slot->name, "%s", c->name);
	address_key(c, slot->key, sizeof slot->key);
	listener_set_nodelay(&slot->listener, c);
	g->used = true;
}

static void drop_rest(struct gifts *l)
{
	for (size_t i = 0; i < l->count; i++) {
		struct given *g = &l->items[i];
		char text[400];

		if (g->used)
			continue;
		if (g->listener.fd < 0) {
			if (!g->surely)
				continue; /* a variable that meant somebody else */
			warn(g, "is no listening stream socket; closed");
		} else {
			snprintf(text, sizeof text,
				"listens on %s, but no [socket:] has that name or address; closed",
				g->listener.text);
			warn(g, text);
		}
		close(g->fd);
	}
}

int inherit_sockets(struct supervisor *s, struct err *e)
{
	const struct config *c = s->config;
	struct gifts l = {.items = calloc(MOST_FDS, sizeof *l.items)};

	s->listeners = calloc(c->socket_count + 1, sizeof *s->listeners);
	if (l.items == NULL || s->listeners == NULL) {
		free(l.items);
		return err_set(e, ERR_SYSTEM, "out of memory");
	}
	from_systemd(&l);
	from_server_starter(&l);
	from_einhorn(&l);
	forget_variables();
	for (size_t i = 0; i < l.count; i++) {
		if (listener_adopt(&l.items[i].listener, l.items[i].fd) == 0)
			(void)fcntl(l.items[i].fd, F_SETFD, FD_CLOEXEC);
	}
	for (size_t i = 0; i < c->socket_count; i++) {
		struct given *g = find(&l, &c->sockets[i]);

		if (g != NULL)
			take(s, g, &c->sockets[i]);
	}
	drop_rest(&l);
	free(l.items);
	return 0;
}

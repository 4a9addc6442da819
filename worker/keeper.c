#include "worker/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEEPER_FD = 3, EXIT_USAGE = 64, EXIT_START = 70 };

/* A stranger's bytes never run past their field. */
#define TERMINATE(field) ((field)[sizeof(field) - 1] = '\0')

static void terminate_settings(struct store_settings *s)
{
	TERMINATE(s->database);
	TERMINATE(s->lock_name);
	TERMINATE(s->instance);
	TERMINATE(s->boot_id);
	TERMINATE(s->machine_id);
	TERMINATE(s->hostname);
}

static void terminate_request(struct keeper_request *r)
{
	TERMINATE(r->expect.holder);
	TERMINATE(r->expect.db_uuid);
	TERMINATE(r->program);
	TERMINATE(r->worker);
	TERMINATE(r->reason);
	TERMINATE(r->job);
}

/* One packet of exactly BYTES: true; end of file, an error or another size: false. */
static bool receive(int fd, void *packet, size_t bytes)
{
	ssize_t got;

	do
		got = recv(fd, packet, bytes, MSG_TRUNC);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)bytes;
}

static bool answer(int fd, const struct keeper_reply *reply)
{
	ssize_t sent;

	do
		sent = send(fd, reply, sizeof(*reply), MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)sizeof(*reply);
}

/* Requests that were queued by a supervisor that is gone are dropped, not carried out. */
static bool peer_is_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static bool take_settings(struct store *s, int fd)
{
	struct store_settings settings;

	if (!receive(fd, &settings, sizeof(settings)))
		return false;
	terminate_settings(&settings);
	s->settings = settings;
	return true;
}

static enum store_outcome operate(
	struct store *s, const struct keeper_request *r, struct store_view *view, struct err *e)
{
	switch (r->op) {
	case KEEPER_INSPECT:
		return s->ops->inspect(s, view, e);
	case KEEPER_ACQUIRE:
		return s->ops->acquire(s, &r->expect, r->epoch, r->ttl_ms, r->reason, view, e);
	case KEEPER_RENEW:
		return s->ops->renew(s, r->epoch, r->term, r->ttl_ms, view, e);
	case KEEPER_PROMOTE:
		return s->ops->promote(s, r->epoch, r->term, r->new_term, r->program, r->worker,
			r->pid, r->reason, view, e);
	case KEEPER_RELEASE:
		return s->ops->release(s, r->epoch, r->term, r->reason, view, e);
	case KEEPER_CLAIM:
		return s->ops->claim(
			s, r->program, r->term, r->job, r->fire_time_us, r->attempt, r->owner, e);
	case KEEPER_UNCLAIM:
		return s->ops->unclaim(
			s, r->job, r->fire_time_us, r->attempt, r->owner, r->reason, e);
	case KEEPER_SETTINGS:
		return STORE_DONE;
	}
	err_set(e, ERR_PROTOCOL, "the keeper does not know operation %d", (int)r->op);
	return STORE_REFUSED;
}

static bool serve_one(struct store *s, int fd, struct keeper_request *r)
{
	/* Too large for the stack of a process that shall stay small, and used one at a time. */
	static struct keeper_reply reply;
	static struct err e;

	terminate_request(r);
	if (r->op == KEEPER_SETTINGS && !take_settings(s, fd))
		return false;
	memset(&reply, 0, sizeof(reply));
	e.code = ERR_NONE;
	e.text[0] = '\0';
	reply.id = r->id;
	reply.op = r->op;
	reply.outcome = operate(s, r, &reply.view, &e);
	reply.floor_failed = reply.outcome == STORE_DONE && reply.view.floor_failed;
	snprintf(reply.text, sizeof(reply.text), "%.*s", (int)sizeof(reply.text) - 1, e.text);
	return answer(fd, &reply);
}

int keeper_serve(struct store *s, int fd)
{
	static struct keeper_request request;

	while (receive(fd, &request, sizeof(request)) && !peer_is_gone(fd)) {
		if (!serve_one(s, fd, &request))
			break;
	}
	return 0;
}

int keeper_main(int argc, char **argv)
{
	static struct store_settings settings;
	struct store store;
	struct err e;
	int code;

	(void)argv;
	if (argc != 1)
		return EXIT_USAGE;
	prctl(PR_SET_NAME, "lock-keeper");
	/* A supervisor that died before this line left us end of file. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	/* A limit on the size of files is an error of a write, not our end. */
	signal(SIGXFSZ, SIG_IGN);
	if (!receive(KEEPER_FD, &settings, sizeof(settings)))
		return 0;
	terminate_settings(&settings);
	if (store_sqlite_init(&store, &settings, &e) < 0) {
		dprintf(STDERR_FILENO, "lock-keeper: %s\n", e.text);
		return EXIT_START;
	}
	code = keeper_serve(&store, KEEPER_FD);
	store.ops->close(&store);
	return code;
}

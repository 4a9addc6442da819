/*
 * Claims of applications' own schedulers: a line of a worker's channel, a row of the ledger, a line
 * back.
 *
 * They have a keeper of their own, started by the first claim, so that none of them ever waits in
 * front of a heartbeat. It is asked for one claim at a time; each has a number of its own, so that
 * one whose outcome is unknown is asked again and found to be ours. The rest waits in a queue with
 * a bound for each worker. Only the executor may claim, under its present term, before its soft
 * deadline: that is looked at when the line comes and again before the answer.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf/units.h"
#include "conf/zone.h"
#include "supervisor/shell/claims.h"
#include "supervisor/shell/state.h"
#include "worker/lock/jobs_file.h"

#define QUEUE      1024
#define PER_WORKER 256
#define TRIES      5
#define STUCK_NS   (8 * CORE_SECOND)
#define RETRY_NS   (100 * CORE_MS)
#define WARN_NS    (10 * CORE_SECOND)

struct claim {
	int slot;
	uint64_t id; /* of the process */
	uint64_t term;
	int64_t owner;
	int64_t fire_time_us;
	int tries;
	/* Claimed, or perhaps, and not run: the worker has its answer, the ledger is to be told. */
	const char *lost;
	char job[STORE_NAME_BYTES], time[64]; /* as the worker wrote them */
	char key[STORE_NAME_BYTES];           /* PROGRAM:JOB, as the ledger has it */
};

struct claims {
	struct helper keeper;
	struct claim queue[QUEUE]; /* a ring; the first one is with the keeper when sent_id != 0 */
	size_t head, count;
	uint64_t next_id, sent_id;
	int64_t stuck_ns, retry_ns; /* 0 = not waited for */
	int64_t warned_ns;
	unsigned unsaid; /* warnings since then */
};

/* A flood of claims must not become one of log lines. */
static void warn(struct supervisor *s, const char *worker, const char *text)
{
	struct claims *c = s->claims;
	struct logs_field fields[] = {{.key = "worker", .value = worker}};
	int64_t now = lease_now_ns();

	if (c->warned_ns != 0 && now - c->warned_ns < WARN_NS) {
		c->unsaid++;
		return;
	}
	if (c->unsaid > 0)
		logs_event(s->logs, LOGS_WARNING, "channel.claim", fields, 1,
			"%s: %s (and %u warnings about claims that are not shown)", worker, text,
			c->unsaid);
	else
		logs_event(
			s->logs, LOGS_WARNING, "channel.claim", fields, 1, "%s: %s", worker, text);
	c->warned_ns = now;
	c->unsaid = 0;
}

/* --- who may ------------------------------------------------------------------------------- */
static struct program *program_of(struct supervisor *s, const struct process *p)
{
	const struct worker *w = &s->core.workers[p->slot];

	return w->used ? &s->core.programs[w->program] : NULL;
}

/* The term under which P holds the baton before its soft deadline; 0 = it does not. DRAINING: it
 * was told to begin nothing more, but what it has asked for before that is its own to run. */
static uint64_t term_of(struct supervisor *s, const struct process *p, bool draining)
{
	const struct program *g = program_of(s, p);
	const struct executor *x = g != NULL ? &g->executor : NULL;
	int64_t now = lease_now_ns();

	if (x == NULL || !x->exists || x->worker != p->slot || !x->shown ||
		x->state == EXECUTOR_NONE || (x->state == EXECUTOR_DRAINING && !draining) ||
		p->lease.page == NULL)
		return 0;
	if (now >= lease_deadline(p->lease.page) || now >= p->lease.page->soft_deadline_ns)
		return 0;
	return x->term;
}

/* --- answers ------------------------------------------------------------------------------- */
static void say(struct process *p, const char *verb, const char *job, const char *time)
{
	char line[CHANNEL_LINE_BYTES];
	int n = snprintf(line, sizeof line, "%s %s %s\n", verb, job, time);

	if (p->channel_fd >= 0 && n > 0 && n < (int)sizeof line &&
		send(p->channel_fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n &&
		errno != EPIPE)
		warn(p->supervisor, p->name,
			"does not read its channel: the answer to a claim was not delivered");
}

/* The first of the queue is through. */
static void pop(struct claims *c)
{
	c->head = (c->head + 1) % QUEUE;
	c->count--;
	c->sent_id = 0;
	c->stuck_ns = 0;
}

/* SURE: whether it is CLAIMED is known. */
static void answer(struct supervisor *s, bool claimed, bool sure)
{
	struct claims *c = s->claims;
	struct claim *of = &c->queue[c->head];
	struct process *p = supervisor_process(s, of->slot, of->id);
	bool may = claimed && p != NULL && term_of(s, p, true) == of->term;

	if (p != NULL)
		say(p, may ? "claimed" : "refused", of->job, of->time);
	if (may || (!claimed && sure)) {
		pop(c);
		return;
	}
	/* Claimed by one that may not begin any more: it is not run, by nobody. */
	c->sent_id = 0;
	c->stuck_ns = 0;
	of->lost = p == NULL ? "claimed, and its worker was gone before it was told"
		   : claimed ? "claimed, and the lease ended before the worker was told"
			     : "the database did not answer in time: the worker was refused";
}

static const char *name_of(struct supervisor *s, const struct claim *of)
{
	return report_worker_name(s, of->slot);
}

/* Not known, or not now: again, while it makes sense. */
static void fail(struct supervisor *s, const char *text)
{
	struct claims *c = s->claims;
	struct claim *of = &c->queue[c->head];
	struct process *p = supervisor_process(s, of->slot, of->id);
	char said[640];

	if (of->lost != NULL) {
		snprintf(said, sizeof said,
			"'%s' at %s was refused, and the history may say that it was claimed: %s",
			of->job, of->time, text);
		warn(s, name_of(s, of), said);
		pop(c);
		return;
	}
	c->sent_id = 0;
	c->stuck_ns = 0;
	if (++of->tries < TRIES && p != NULL && term_of(s, p, true) == of->term) {
		c->retry_ns = lease_now_ns() + RETRY_NS;
		return;
	}
	snprintf(said, sizeof said, "the claim of '%s' at %s is refused: %s", of->job, of->time,
		text);
	warn(s, name_of(s, of), said);
	answer(s, false, false);
}

/* --- the keeper ---------------------------------------------------------------------------- */
static void send_next(struct supervisor *s);

static void readable(void *context, unsigned events)
{
	struct supervisor *s = context;
	struct claims *c = s->claims;
	struct keeper_reply r;
	ssize_t n = recv(c->keeper.fd, &r, sizeof r, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof r) {
		helper_kill(&c->keeper);
		if (c->sent_id != 0)
			fail(s, "the keeper of the claims died before it answered");
		send_next(s);
		return;
	}
	if (r.id != c->sent_id)
		return;
	r.text[sizeof r.text - 1] = '\0';
	if (r.op == KEEPER_UNCLAIM && (r.outcome == STORE_DONE || r.outcome == STORE_REFUSED)) {
		pop(c);
	} else if (r.outcome == STORE_DONE || r.outcome == STORE_REFUSED) {
		answer(s, r.outcome == STORE_DONE, true);
	} else if (r.outcome == STORE_UNKNOWN || r.outcome == STORE_UNAVAILABLE) {
		fail(s, r.text);
	} else {
		c->queue[c->head].tries = TRIES; /* it will be no better */
		fail(s, r.text);
	}
	send_next(s);
}

static int start_keeper(struct supervisor *s, struct err *e)
{
	struct claims *c = s->claims;
	struct store_settings settings = s->lock.settings;
	struct child_fd fds[1];
	int pair[2];

	if (c->keeper.fd >= 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot make the keeper's socket: %s", strerror(errno));
	fds[0] = (struct child_fd){pair[1], 3};
	c->keeper.pid = spawn_helper(s, "lock-keeper", NULL, fds, 1, e);
	close(pair[1]);
	if (c->keeper.pid < 0) {
		c->keeper.pid = 0;
		close(pair[0]);
		return e->code;
	}
	c->keeper.fd = pair[0];
	c->keeper.watch = loop_watch(s->loop, pair[0], LOOP_READ, readable, s);
	settings.create = false;
	if (c->keeper.watch != NULL &&
		send(pair[0], &settings, sizeof settings, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		return 0;
	helper_kill(&c->keeper);
	return err_set(
		e, ERR_SYSTEM, "cannot speak to the keeper of the claims: %s", strerror(errno));
}

static bool fill(struct supervisor *s, const struct claim *of, struct keeper_request *r)
{
	struct process *p = supervisor_process(s, of->slot, of->id);
	const struct program *g = p != NULL ? program_of(s, p) : NULL;

	memset(r, 0, sizeof *r);
	r->op = of->lost != NULL ? KEEPER_UNCLAIM : KEEPER_CLAIM;
	r->term = (int64_t)of->term;
	r->owner = of->owner;
	r->fire_time_us = of->fire_time_us;
	r->attempt = 1;
	snprintf(r->job, sizeof r->job, "%s", of->key);
	if (of->lost != NULL) {
		snprintf(r->reason, sizeof r->reason, "%s", of->lost);
		return true;
	}
	/* Asked before, it may be ours already: then it is not for the successor. */
	if (g == NULL || term_of(s, p, of->tries > 0) != of->term)
		return false;
	snprintf(r->program, sizeof r->program, "%s", g->settings->name);
	return true;
}

static void send_next(struct supervisor *s)
{
	struct claims *c = s->claims;
	struct keeper_request r;
	struct err e;

	while (c->count > 0 && c->sent_id == 0 && c->retry_ns == 0) {
		if (!fill(s, &c->queue[c->head], &r)) {
			/* It is the executor no longer. */
			answer(s, false, c->queue[c->head].tries == 0);
			continue;
		}
		r.id = ++c->next_id;
		c->sent_id = r.id;
		c->stuck_ns = lease_now_ns() + STUCK_NS;
		if (start_keeper(s, &e) < 0) {
			fail(s, e.text);
		} else if (send(c->keeper.fd, &r, sizeof r, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			helper_kill(&c->keeper);
			fail(s, "the keeper of the claims takes no request");
		}
	}
}

/* --- lines --------------------------------------------------------------------------------- */
static size_t waiting_of(const struct claims *c, const struct process *p)
{
	size_t count = 0;

	for (size_t i = 0; i < c->count; i++)
		count += c->queue[(c->head + i) % QUEUE].id == p->id;
	return count;
}

/* Microseconds since 1970, or RFC 3339. */
static int read_time(const char *text, int64_t *ret_us, struct err *e)
{
	if (text[strspn(text, "0123456789")] == '\0')
		return units_integer(text, ret_us, e);
	return zone_scan(NULL, text, ret_us, e);
}

static bool is_asked_well(struct supervisor *s, struct process *p, const struct channel_message *m,
	int64_t *ret_us, char *text, size_t bytes)
{
	const struct program *g = program_of(s, p);
	struct err e;

	if (g != NULL && strlen(g->settings->name) + 1 + strlen(m->word) >= STORE_NAME_BYTES)
		snprintf(text, bytes, "the name of the job '%.40s...' is too long", m->word);
	else if (read_time(m->word2, ret_us, &e) < 0)
		snprintf(text, bytes,
			"the claim of '%s' has no time that can be read: microseconds since 1970, "
			"or 2027-03-28T02:30:00Z: %s",
			m->word, e.text);
	else
		return true;
	return false;
}

void claims_take(struct process *p, const struct channel_message *m)
{
	struct supervisor *s = p->supervisor;
	struct claim *of;
	uint64_t term;
	int64_t at_us;
	char text[512];

	if (s->claims == NULL) {
		s->claims = calloc(1, sizeof *s->claims);
		if (s->claims == NULL)
			return; /* no answer is no permission */
		s->claims->keeper.fd = -1;
	}
	term = term_of(s, p, false);
	if (term == 0) { /* what a standby's scheduler does at every firing: nothing to warn of */
		say(p, "refused", m->word, m->word2);
		return;
	}
	text[0] = '\0';
	if (!is_asked_well(s, p, m, &at_us, text, sizeof text) || s->claims->count == QUEUE ||
		waiting_of(s->claims, p) >= PER_WORKER) {
		warn(s, p->name,
			text[0] ? text : "claims faster than the database answers: refused");
		say(p, "refused", m->word, m->word2);
		return;
	}
	of = &s->claims->queue[(s->claims->head + s->claims->count++) % QUEUE];
	*of = (struct claim){.slot = p->slot,
		.id = p->id,
		.term = term,
		.owner = jobs_file_new_owner(),
		.fire_time_us = at_us};
	snprintf(of->job, sizeof of->job, "%s", m->word);
	/* Two programs may well have jobs of one name. That it fits was checked. */
	snprintf(of->key, sizeof of->key, "%s:%s", program_of(s, p)->settings->name, m->word);
	snprintf(of->time, sizeof of->time, "%s", m->word2);
	send_next(s);
}

/* --- time, deaths, ends -------------------------------------------------------------------- */
int64_t claims_due(const struct supervisor *s)
{
	const struct claims *c = s->claims;

	if (c == NULL)
		return 0;
	return c->stuck_ns != 0 ? c->stuck_ns : c->retry_ns;
}

void claims_check(struct supervisor *s)
{
	struct claims *c = s->claims;
	int64_t now;

	if (c == NULL || (c->stuck_ns == 0 && c->retry_ns == 0))
		return;
	now = lease_now_ns();
	if (c->stuck_ns != 0 && now >= c->stuck_ns) {
		helper_kill(&c->keeper);
		fail(s, "the database has not answered for 8 s");
		send_next(s);
	}
	if (c->retry_ns != 0 && now >= c->retry_ns) {
		c->retry_ns = 0;
		send_next(s);
	}
}

bool claims_waiting(const struct supervisor *s)
{
	return s->claims != NULL && s->claims->count > 0;
}

bool claims_is_keeper(const struct supervisor *s, pid_t pid)
{
	return s->claims != NULL && pid > 0 && pid == s->claims->keeper.pid;
}

bool claims_reaped(struct supervisor *s, pid_t pid)
{
	struct claims *c = s->claims;

	if (!claims_is_keeper(s, pid))
		return false;
	c->keeper.pid = 0;
	helper_close(&c->keeper);
	if (c->sent_id != 0 && !s->exiting) {
		fail(s, "the keeper of the claims died before it answered");
		send_next(s);
	}
	return true;
}

void claims_reconfigure(struct supervisor *s)
{
	if (s->claims != NULL && s->claims->sent_id == 0)
		helper_close(&s->claims->keeper); /* it ends; the next claim starts another */
}

void claims_end(struct supervisor *s)
{
	if (s->claims == NULL)
		return;
	for (; s->claims->count > 0; pop(s->claims)) {
		const struct claim *of = &s->claims->queue[s->claims->head];
		struct process *p = supervisor_process(s, of->slot, of->id);

		if (p != NULL && of->lost == NULL)
			say(p, "refused", of->job, of->time);
	}
	helper_close(&s->claims->keeper);
	free(s->claims);
	s->claims = NULL;
}

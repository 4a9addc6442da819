/*
 * The ledger process: takes requests of its job worker off the socket, carries them out on the
 * store, answers. Blocking and simple; what it knows is in the database. Trimming is done in steps
 * while nothing else is asked.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "worker/jobs/ledger.h"
#include "worker/jobs/ledger_wire.h"
#include "worker/lock/jobs_file.h"

enum { LEDGER_FD = 3, EXIT_USAGE = 64, EXIT_START = 70 };
enum { READ_BYTES = 65536, LOOK_RUNS = 16384 };
/* One transaction writes no more: the heartbeat waits for it. */
enum { STEP_UPDATES = 256, STEP_BYTES = 2 << 20 };

#define TERMINATE(field) ((field)[sizeof(field) - 1] = '\0')

struct server {
	struct store *store;
	int fd;
	struct ledger_buffer in, out;
	struct ledger_head trim; /* the request that is under way; id 0 = none */
	char trim_cursor[LEDGER_NAME_BYTES];
	int64_t declare_us; /* the declaration that has begun; 0 = none */
	bool declare_failed;
	bool ring_failed; /* said once */
};

struct found {
	struct ledger_buffer runs, jobs, requests;
	bool full;
};

/* --- answering ----------------------------------------------------------------------------- */
static bool write_all(struct server *v)
{
	while (v->out.used > 0) {
		ssize_t sent = send(v->fd, ledger_buffer_data(&v->out), v->out.used, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		ledger_buffer_consume(&v->out, (size_t)sent);
	}
	return true;
}

static bool answer(struct server *v, struct ledger_head *reply, enum store_outcome outcome,
	const struct err *e, const struct ledger_part *parts, size_t part_count)
{
	reply->outcome = outcome;
	snprintf(reply->text, sizeof(reply->text), "%.*s", (int)sizeof(reply->text) - 1,
		outcome == STORE_DONE ? "" : e->text);
	if (ledger_frame_put(&v->out, reply, parts, part_count) != 0) {
		memset(reply->counts, 0, sizeof(reply->counts));
		reply->outcome = STORE_UNAVAILABLE;
		snprintf(reply->text, sizeof(reply->text), "the ledger's answer is too large");
		if (ledger_frame_put(&v->out, reply, NULL, 0) != 0)
			return false;
	}
	return write_all(v);
}

static void ring(struct server *v)
{
	struct err e;

	if (jobs_file_ring_beside(v->store->settings.database, &e) == 0)
		v->ring_failed = false;
	else if (!v->ring_failed) {
		dprintf(STDERR_FILENO, "job-ledger: %s\n", e.text);
		v->ring_failed = true;
	}
}

/* --- claims -------------------------------------------------------------------------------- */
static bool check_key(struct ledger_key *k, enum ledger_status status)
{
	TERMINATE(k->job);
	return (unsigned)status < LEDGER_STATUS_COUNT;
}

static bool serve_claim(struct server *v, struct ledger_head *head, char *payload)
{
	static struct ledger_claimed claimed[LEDGER_BATCH];
	struct ledger_claimant *who = (void *)payload;
	struct ledger_firing *firings = (void *)(who + 1);
	struct ledger_head reply = {.op = head->op, .id = head->id};
	size_t count = head->counts[0];
	struct ledger_part part = {claimed, count * sizeof(*claimed)};
	enum store_outcome outcome;
	bool waited_for = false;
	struct err e = {.text = ""};

	if (count > LEDGER_BATCH ||
		head->bytes < sizeof(*who) + count * sizeof(struct ledger_firing))
		return false;
	TERMINATE(who->program);
	TERMINATE(who->worker);
	for (size_t i = 0; i < count; i++) {
		if (!check_key(&firings[i].key, firings[i].status) ||
			(unsigned)firings[i].cause >= LEDGER_CAUSE_COUNT)
			return false;
		TERMINATE(firings[i].reason);
		waited_for |= firings[i].request != 0 && !ledger_status_is_open(firings[i].status);
	}
	outcome = v->store->ops->jobs->claim(v->store, who, firings, count, claimed, &e);
	if (outcome == STORE_DONE && waited_for)
		ring(v);
	reply.counts[0] = (uint32_t)count;
	return answer(v, &reply, outcome, &e, &part, 1);
}

/* --- updates ------------------------------------------------------------------------------- */
/* The outputs lie behind the records: put the pointers there. */
static bool find_outputs(struct ledger_update *updates, size_t count, size_t bytes)
{
	const char *output = (const char *)(updates + count);
	size_t left = bytes - count * sizeof(*updates);

	for (size_t i = 0; i < count; i++) {
		struct ledger_update *u = &updates[i];

		if (!check_key(&u->key, u->status) || u->output_kept > left)
			return false;
		TERMINATE(u->reason);
		u->output = output;
		output += u->output_kept;
		left -= u->output_kept;
	}
	return true;
}

/* How many of them one transaction takes. */
static size_t step_length(const struct ledger_update *updates, size_t count)
{
	size_t bytes = 0, i;

	for (i = 0; i < count && i < STEP_UPDATES; i++) {
		bytes += updates[i].output_kept;
		if (i > 0 && bytes > STEP_BYTES)
			break;
	}
	return i;
}

static bool serve_update(struct server *v, struct ledger_head *head, char *payload)
{
	static enum ledger_updated updated[LEDGER_BATCH];
	struct ledger_update *updates = (void *)payload;
	struct ledger_head reply = {.op = head->op, .id = head->id};
	size_t count = head->counts[0], done = 0;
	struct ledger_part part = {updated, count * sizeof(*updated)};
	enum store_outcome outcome = STORE_DONE;
	bool waited_for = false;
	struct err e = {.text = ""};

	if (count > LEDGER_BATCH || head->bytes < count * sizeof(*updates) ||
		!find_outputs(updates, count, head->bytes))
		return false;
	for (size_t i = 0; i < count; i++)
		updated[i] = LEDGER_UPDATE_REFUSED;
	while (done < count && outcome == STORE_DONE) {
		size_t step = step_length(updates + done, count - done);
		bool some = false;

		outcome = v->store->ops->jobs->update(
			v->store, updates + done, step, updated + done, &some, &e);
		waited_for |= outcome == STORE_DONE && some;
		done += step;
	}
	if (waited_for)
		ring(v);
	reply.counts[0] = (uint32_t)count;
	return answer(v, &reply, outcome, &e, &part, 1);
}

/* --- looking ------------------------------------------------------------------------------- */
static bool collect(struct found *f, struct ledger_buffer *to, const void *record, size_t bytes)
{
	if (to->used + bytes > LEDGER_FRAME_BYTES / 2 || ledger_buffer_reserve(to, bytes) != 0) {
		f->full = true;
		return false;
	}
	memcpy(ledger_buffer_data(to) + to->used, record, bytes);
	to->used += bytes;
	return true;
}

static bool on_run(const struct ledger_run *r, void *context)
{
	struct found *f = context;

	return collect(f, &f->runs, r, sizeof(*r));
}

static bool on_job(const struct ledger_job *j, const struct ledger_declared *declared,
	const char *instance, const char *hostname, void *context)
{
	struct found *f = context;
	struct ledger_job known = *j;

	if (instance[0] && declared->schedule[0]) /* else it was in no file for a while */
		known.declared_id = ledger_declared_id(declared);
	(void)hostname;
	return collect(f, &f->jobs, &known, sizeof(known));
}

static bool on_request(const struct ledger_request *r, void *context)
{
	struct found *f = context;

	return collect(f, &f->requests, r, sizeof(*r));
}

static bool serve_look(struct server *v, struct ledger_head *head)
{
	static struct store_view view;
	struct found f = {.full = false};
	struct store_reader reader = {
		.on_run = on_run, .on_job = on_job, .on_request = on_request, .context = &f};
	struct store_query query = {.open = true, .oldest_first = true, .limit = LOOK_RUNS};
	struct ledger_head reply = {.op = head->op, .id = head->id};
	int64_t what = head->numbers[0];
	struct err e = {.text = ""};
	enum store_outcome outcome;
	bool sent;

	query.what = (what & LEDGER_LOOK_RUNS ? STORE_READ_RUNS : 0) |
		     (what & LEDGER_LOOK_JOBS ? STORE_READ_DECLARED : 0) |
		     (what & LEDGER_LOOK_PAUSED ? STORE_READ_PAUSED : 0) |
		     (what & LEDGER_LOOK_REQUESTS ? STORE_READ_REQUESTS : 0);
	outcome = v->store->ops->jobs->read(v->store, &query, &reader, &view, &e);
	if (outcome == STORE_DONE && f.full) {
		outcome = STORE_UNAVAILABLE;
		err_set(&e, ERR_LIMIT, "the ledger holds more than can be read at once");
	}
	for (size_t i = 0; outcome == STORE_DONE && i < view.executor_count; i++) {
		if (strcmp(view.executors[i].program, LEDGER_PROGRAM) == 0)
			reply.numbers[0] = view.executors[i].term;
	}
	if (outcome == STORE_DONE) {
		struct ledger_part parts[] = {{ledger_buffer_data(&f.runs), f.runs.used},
			{ledger_buffer_data(&f.jobs), f.jobs.used},
			{ledger_buffer_data(&f.requests), f.requests.used}};

		reply.counts[0] = (uint32_t)(f.runs.used / sizeof(struct ledger_run));
		reply.counts[1] = (uint32_t)(f.jobs.used / sizeof(struct ledger_job));
		reply.counts[2] = (uint32_t)(f.requests.used / sizeof(struct ledger_request));
		sent = answer(v, &reply, outcome, &e, parts, 3);
	} else {
		sent = answer(v, &reply, outcome, &e, NULL, 0);
	}
	ledger_buffer_release(&f.runs);
	ledger_buffer_release(&f.jobs);
	ledger_buffer_release(&f.requests);
	return sent;
}

/* --- the rest ------------------------------------------------------------------------------ */
static int64_t wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool serve_declare(struct server *v, struct ledger_head *head, char *payload)
{
	struct ledger_declared *jobs = (void *)payload;
	struct ledger_head reply = {.op = head->op, .id = head->id};
	size_t count = head->counts[0];
	bool last = count < LEDGER_BATCH;
	struct err e = {.text = ""};
	enum store_outcome outcome;

	if (count > LEDGER_BATCH || head->bytes < count * sizeof(*jobs))
		return false;
	for (size_t i = 0; i < count; i++) {
		TERMINATE(jobs[i].job);
		TERMINATE(jobs[i].schedule);
		TERMINATE(jobs[i].timezone);
	}
	if (v->declare_us == 0) {
		v->declare_us = wall_us();
		v->declare_failed = false;
	}
	outcome = v->store->ops->jobs->declare(
		v->store, jobs, count, v->declare_us, last && !v->declare_failed, &e);
	v->declare_failed |= outcome != STORE_DONE;
	if (last)
		v->declare_us = 0;
	return answer(v, &reply, outcome, &e, NULL, 0);
}

static bool serve_refuse(struct server *v, struct ledger_head *head)
{
	struct ledger_head reply = {.op = head->op, .id = head->id};
	struct err e = {.text = ""};
	enum store_outcome outcome = v->store->ops->jobs->answer(
		v->store, head->numbers[0], false, head->text, &e);

	if (outcome == STORE_DONE)
		ring(v);
	return answer(v, &reply, outcome, &e, NULL, 0);
}

static bool end_trim(struct server *v, enum store_outcome outcome, const struct err *e)
{
	struct ledger_head reply = {.op = v->trim.op, .id = v->trim.id};

	v->trim.id = 0;
	return reply.id == 0 || answer(v, &reply, outcome, e, NULL, 0);
}

static bool serve_trim(struct server *v, struct ledger_head *head)
{
	struct err none = {.text = ""};

	if (!end_trim(v, STORE_DONE, &none))
		return false;
	v->trim = *head;
	v->trim_cursor[0] = '\0';
	return true;
}

static bool trim_step(struct server *v)
{
	struct err e = {.text = ""};
	bool more = false;
	enum store_outcome outcome = v->store->ops->jobs->trim(
		v->store, v->trim.numbers[0], v->trim.numbers[1], v->trim_cursor, &more, &e);

	return more ? true : end_trim(v, outcome, &e);
}

static bool serve_one(struct server *v, struct ledger_head *head, char *payload)
{
	if (head->op != LEDGER_DECLARE)
		v->declare_us = 0;
	switch ((enum ledger_op)head->op) {
	case LEDGER_CLAIM:
		return serve_claim(v, head, payload);
	case LEDGER_UPDATE:
		return serve_update(v, head, payload);
	case LEDGER_LOOK:
		return serve_look(v, head);
	case LEDGER_DECLARE:
		return serve_declare(v, head, payload);
	case LEDGER_REFUSE:
		return serve_refuse(v, head);
	case LEDGER_TRIM:
		return serve_trim(v, head);
	case LEDGER_OP_COUNT:
		break;
	}
	return false;
}

/* Requests that were queued by a job worker that is gone are dropped, not carried out. */
static bool peer_is(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) > 0 && (p.revents & (events | POLLHUP | POLLERR));
}

static bool serve_what_came(struct server *v)
{
	struct ledger_head *head;
	char *payload;
	int found;

	while ((found = ledger_frame_next(&v->in, &head, &payload)) == 1) {
		size_t bytes = ledger_frame_bytes(head);

		if (peer_is(v->fd, POLLRDHUP) || !serve_one(v, head, payload))
			return false;
		ledger_buffer_consume(&v->in, bytes);
	}
	return found == 0;
}

static bool receive(struct server *v)
{
	ssize_t got;

	if (ledger_buffer_reserve(&v->in, READ_BYTES) != 0)
		return false;
	do
		got = recv(v->fd, ledger_buffer_data(&v->in) + v->in.used, READ_BYTES, 0);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		v->in.used += (size_t)got;
	return got > 0;
}

int ledger_serve(struct store *s, int fd)
{
	struct server v = {.store = s, .fd = fd};
	bool on = true;

	while (on && serve_what_came(&v)) {
		if (v.trim.id != 0 && !peer_is(fd, POLLIN))
			on = trim_step(&v);
		else
			on = receive(&v);
	}
	ledger_buffer_release(&v.in);
	ledger_buffer_release(&v.out);
	return 0;
}

static bool receive_settings(int fd, struct store_settings *s)
{
	size_t have = 0;

	while (have < sizeof(*s)) {
		ssize_t got = recv(fd, (char *)s + have, sizeof(*s) - have, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		have += (size_t)got;
	}
	TERMINATE(s->database);
	TERMINATE(s->lock_name);
	TERMINATE(s->instance);
	TERMINATE(s->boot_id);
	TERMINATE(s->machine_id);
	TERMINATE(s->hostname);
	s->create = false; /* the lock's keeper makes the database */
	return true;
}

int ledger_main(int argc, char **argv)
{
	static struct store_settings settings;
	struct store store;
	struct err e;
	int code;

	(void)argv;
	if (argc != 1)
		return EXIT_USAGE;
	prctl(PR_SET_NAME, "job-ledger");
	/* A job worker that died before this line left us end of file. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (!receive_settings(LEDGER_FD, &settings))
		return 0;
	if (store_sqlite_init(&store, &settings, &e) < 0) {
		dprintf(STDERR_FILENO, "job-ledger: %s\n", e.text);
		return EXIT_START;
	}
	code = ledger_serve(&store, LEDGER_FD);
	store.ops->close(&store);
	return code;
}

/*
 * The store in this process's memory, for tests: the same answers as the SQLite store gives, for
 * the same calls (tests/unit/test_store.c runs one suite on both).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/lock/floor.h"
#include "worker/lock/store.h"

struct history_item {
	struct store_executor of; /* since_us = acquired at */
	int64_t ended_us;
	bool ended;
	char holder[STORE_ID_BYTES], hostname[STORE_NAME_BYTES], reason[64];
};

struct claim_item {
	char job[STORE_NAME_BYTES];
	int64_t fire_time_us;
	int attempt;
	int64_t owner, term;
};

struct memory_database {
	struct store_view view;
	struct history_item *history; /* in the order of the terms */
	size_t history_count, history_capacity;
	struct claim_item *claims;
	size_t claim_count, claim_capacity;
};

#define COPY(field, text) snprintf((field), sizeof(field), "%s", (text))

struct memory_database *memory_database_new(void)
{
	static unsigned serial;
	struct memory_database *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->view.exists = true;
	d->view.schema_version = STORE_SCHEMA_VERSION;
	d->view.floor = FLOOR_ABSENT;
	d->view.inode = ++serial;
	snprintf(d->view.db_uuid, sizeof(d->view.db_uuid), "00000000-0000-4000-8000-%012u", serial);
	return d;
}

void memory_database_free(struct memory_database *d)
{
	if (!d)
		return;
	free(d->history);
	free(d->claims);
	free(d);
}

static int64_t wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Room for one more in the array behind ITEMS; the array stays as it was on failure. */
static bool reserve(void **items, size_t count, size_t *capacity, size_t item_bytes)
{
	size_t wanted = *capacity ? *capacity * 2 : 16;
	void *larger;

	if (count < *capacity)
		return true;
	larger = realloc(*items, wanted * item_bytes);
	if (!larger)
		return false;
	*items = larger;
	*capacity = wanted;
	return true;
}

static enum store_outcome no_memory(struct err *e)
{
	err_set(e, ERR_SYSTEM, "out of memory");
	return STORE_UNAVAILABLE;
}

static enum store_outcome refuse(const struct memory_database *d, struct store_view *ret_view,
	const char *verb, struct err *e)
{
	const struct store_row *r = &d->view.row;

	if (ret_view)
		*ret_view = d->view;
	err_set(e, ERR_REFUSED,
		"cannot %s: the row is not as expected: %s '%s', term %lld, epoch %lld, beat %lld",
		verb, r->held ? "held by" : "free", r->holder, (long long)r->term,
		(long long)r->epoch, (long long)r->beat);
	return STORE_REFUSED;
}

static enum store_outcome done(struct memory_database *d, struct store_view *ret_view)
{
	if (d->view.floor != FLOOR_ABSENT)
		d->view.floor = d->view.floor_term > d->view.row.term ? FLOOR_HIGHER : FLOOR_OK;
	*ret_view = d->view;
	return STORE_DONE;
}

static void raise_floor(struct memory_database *d)
{
	d->view.floor = FLOOR_OK;
	if (d->view.floor_term < d->view.row.term)
		d->view.floor_term = d->view.row.term;
}

static bool is_nonsense(int64_t term, struct err *e)
{
	if (term > 0 && term <= FLOOR_TERM_MAX)
		return false;
	err_set(e, ERR_REFUSED, "term %lld is beyond any clock", (long long)term);
	return true;
}

static void end_history(struct memory_database *d, const char *program, const char *reason)
{
	for (size_t i = 0; i < d->history_count; i++) {
		struct history_item *h = &d->history[i];
		if (h->ended || (program && strcmp(program, h->of.program) != 0))
			continue;
		h->ended = true;
		h->ended_us = wall_us();
		COPY(h->reason, reason);
	}
}

static void trim_history(struct memory_database *d, int64_t keep_us)
{
	int64_t before = wall_us() - keep_us;
	size_t kept = 0;

	for (size_t i = 0; i < d->history_count && keep_us > 0; i++) {
		if (!d->history[i].ended || d->history[i].ended_us >= before)
			d->history[kept++] = d->history[i];
	}
	if (keep_us > 0)
		d->history_count = kept;
}

/* Into the room that was reserved. */
static void add_history(struct store *s, const struct store_executor *of)
{
	struct memory_database *d = s->private;
	struct history_item *h = &d->history[d->history_count++];

	memset(h, 0, sizeof(*h));
	h->of = *of;
	COPY(h->holder, s->settings.instance);
	COPY(h->hostname, s->settings.hostname);
}

static bool reserve_history(struct memory_database *d)
{
	return reserve(
		(void **)&d->history, d->history_count, &d->history_capacity, sizeof(*d->history));
}

static bool is_as_expected(const struct memory_database *d, const struct store_expect *x)
{
	const struct store_row *r = &d->view.row;

	return r->term == x->term && r->beat == x->beat && strcmp(r->holder, x->holder) == 0 &&
	       strcmp(d->view.db_uuid, x->db_uuid) == 0;
}

static bool is_ours(const struct store *s, int64_t epoch, int64_t term)
{
	const struct memory_database *d = s->private;
	const struct store_row *r = &d->view.row;

	return r->held && r->term == term && r->epoch == epoch &&
	       strcmp(r->holder, s->settings.instance) == 0;
}

static enum store_outcome memory_inspect(
	struct store *s, struct store_view *ret_view, struct err *e)
{
	(void)e;
	return done(s->private, ret_view);
}

static enum store_outcome memory_acquire(struct store *s, const struct store_expect *expect,
	int64_t epoch, int64_t ttl_ms, const char *reason, struct store_view *ret_view,
	struct err *e)
{
	struct memory_database *d = s->private;
	const struct store_settings *me = &s->settings;
	struct store_executor of = {.term = epoch, .pid = me->pid, .since_us = wall_us()};
	struct store_row *r = &d->view.row;

	if (is_nonsense(epoch, e))
		return STORE_REFUSED;
	if (!is_as_expected(d, expect) || epoch <= r->term)
		return refuse(d, ret_view, "take the lock", e);
	if (!reserve_history(d))
		return no_memory(e);
	*r = (struct store_row){.term = epoch, .epoch = epoch, .held = true, .ttl_ms = ttl_ms};
	r->guard_ino = me->guard_ino;
	r->pid1 = me->pid1;
	r->pid = me->pid;
	r->created_at_us = r->heartbeat_at_us = of.since_us;
	COPY(r->holder, me->instance);
	COPY(r->boot_id, me->boot_id);
	COPY(r->machine_id, me->machine_id);
	COPY(r->hostname, me->hostname);
	d->view.executor_count = 0;
	end_history(d, NULL, reason);
	trim_history(d, me->history_keep_us);
	add_history(s, &of);
	raise_floor(d);
	return done(d, ret_view);
}

static enum store_outcome memory_renew(struct store *s, int64_t epoch, int64_t term, int64_t ttl_ms,
	struct store_view *ret_view, struct err *e)
{
	struct memory_database *d = s->private;

	if (!is_ours(s, epoch, term))
		return refuse(d, ret_view, "renew the lock", e);
	d->view.row.beat++;
	d->view.row.ttl_ms = ttl_ms;
	d->view.row.heartbeat_at_us = wall_us();
	return done(d, ret_view);
}

static void remove_executor(struct memory_database *d, const char *program)
{
	struct store_view *v = &d->view;

	for (size_t i = 0; i < v->executor_count; i++) {
		if (strcmp(v->executors[i].program, program) != 0)
			continue;
		memmove(&v->executors[i], &v->executors[i + 1],
			(v->executor_count - i - 1) * sizeof(v->executors[0]));
		v->executor_count--;
		return;
	}
}

/* In the order of the programs' names. */
static void insert_executor(struct memory_database *d, const struct store_executor *of)
{
	struct store_view *v = &d->view;
	size_t at = 0;

	remove_executor(d, of->program);
	if (v->executor_count == STORE_EXECUTORS)
		return;
	while (at < v->executor_count && strcmp(v->executors[at].program, of->program) < 0)
		at++;
	memmove(&v->executors[at + 1], &v->executors[at],
		(v->executor_count - at) * sizeof(v->executors[0]));
	v->executors[at] = *of;
	v->executor_count++;
}

static enum store_outcome memory_promote(struct store *s, int64_t epoch, int64_t term,
	int64_t new_term, const char *program, const char *worker, int64_t pid, const char *reason,
	struct store_view *ret_view, struct err *e)
{
	struct memory_database *d = s->private;
	struct store_executor of = {.term = new_term, .pid = pid, .since_us = wall_us()};
	bool is_some = worker[0] != '\0';

	if (is_some && is_nonsense(new_term, e))
		return STORE_REFUSED;
	if (!is_ours(s, epoch, term) || (is_some && new_term <= term))
		return refuse(d, ret_view, "promote the executor", e);
	if (!reserve_history(d))
		return no_memory(e);
	d->view.row.beat++;
	d->view.row.heartbeat_at_us = of.since_us;
	COPY(d->view.row.worker, worker);
	end_history(d, program, reason);
	if (!is_some) {
		remove_executor(d, program);
		return done(d, ret_view);
	}
	COPY(of.program, program);
	COPY(of.worker, worker);
	d->view.row.term = new_term;
	insert_executor(d, &of);
	add_history(s, &of);
	raise_floor(d);
	return done(d, ret_view);
}

static enum store_outcome free_row(
	struct memory_database *d, const char *reason, struct store_view *ret_view)
{
	struct store_row *r = &d->view.row;

	r->held = false;
	r->holder[0] = r->worker[0] = '\0';
	r->beat++;
	r->heartbeat_at_us = wall_us();
	d->view.executor_count = 0;
	end_history(d, NULL, reason);
	return done(d, ret_view);
}

static enum store_outcome memory_release(struct store *s, int64_t epoch, int64_t term,
	const char *reason, struct store_view *ret_view, struct err *e)
{
	if (!is_ours(s, epoch, term))
		return refuse(s->private, ret_view, "release the lock", e);
	return free_row(s->private, reason, ret_view);
}

static enum store_outcome memory_force_release(struct store *s, const struct store_expect *expect,
	struct store_view *ret_view, struct err *e)
{
	struct memory_database *d = s->private;

	if (!d->view.row.held || !is_as_expected(d, expect))
		return refuse(d, ret_view, "free the lock", e);
	return free_row(d, "released by force", ret_view);
}

static bool is_executor(const struct store *s, const char *program, int64_t term)
{
	const struct memory_database *d = s->private;

	if (!d->view.row.held || strcmp(d->view.row.holder, s->settings.instance) != 0)
		return false;
	for (size_t i = 0; i < d->view.executor_count; i++) {
		const struct store_executor *x = &d->view.executors[i];
		if (strcmp(x->program, program) == 0)
			return x->term == term;
	}
	return false;
}

static enum store_outcome memory_claim(struct store *s, const char *program, int64_t term,
	const char *job, int64_t fire_time_us, int attempt, int64_t owner, struct err *e)
{
	struct memory_database *d = s->private;
	struct claim_item *c;

	if (!is_executor(s, program, term))
		return refuse(d, NULL, "claim a run", e);
	for (size_t i = 0; i < d->claim_count; i++) {
		c = &d->claims[i];
		if (strcmp(c->job, job) == 0 && c->fire_time_us == fire_time_us &&
			c->attempt == attempt)
			return owner != 0 && c->owner == owner && c->term == term
				       ? STORE_DONE
				       : refuse(d, NULL, "claim a run", e);
	}
	if (!reserve((void **)&d->claims, d->claim_count, &d->claim_capacity, sizeof(*d->claims)))
		return no_memory(e);
	c = &d->claims[d->claim_count++];
	COPY(c->job, job);
	c->fire_time_us = fire_time_us;
	c->attempt = attempt;
	c->owner = owner;
	c->term = term;
	return STORE_DONE;
}

static enum store_outcome memory_unclaim(struct store *s, const char *job, int64_t fire_time_us,
	int attempt, int64_t owner, const char *reason, struct err *e)
{
	struct memory_database *d = s->private;

	(void)reason; /* the row stays: nobody else runs it */
	for (size_t i = 0; i < d->claim_count; i++) {
		const struct claim_item *c = &d->claims[i];

		if (strcmp(c->job, job) == 0 && c->fire_time_us == fire_time_us &&
			c->attempt == attempt && c->owner == owner)
			return STORE_DONE;
	}
	return refuse(d, NULL, "give a claim up", e);
}

static enum store_outcome memory_history(struct store *s, int limit,
	bool (*each)(const struct store_executor *of, int64_t ended_us, const char *holder,
		const char *hostname, const char *reason, void *context),
	void *context, struct err *e)
{
	const struct memory_database *d = s->private;

	(void)e;
	for (size_t i = d->history_count; i > 0 && limit > 0; i--, limit--) {
		const struct history_item *h = &d->history[i - 1];
		if (!each(&h->of, h->ended_us, h->holder, h->hostname, h->reason, context))
			break;
	}
	return STORE_DONE;
}

static void memory_close(struct store *s)
{
	s->private = NULL;
}

static const struct store_ops memory_ops = {
	.name = "memory",
	.inspect = memory_inspect,
	.acquire = memory_acquire,
	.renew = memory_renew,
	.promote = memory_promote,
	.release = memory_release,
	.force_release = memory_force_release,
	.claim = memory_claim,
	.unclaim = memory_unclaim,
	.history = memory_history,
	.close = memory_close,
};

int store_memory_init(struct store *s, const struct store_settings *settings,
	struct memory_database *d, struct err *e)
{
	(void)e;
	memset(s, 0, sizeof(*s));
	s->ops = &memory_ops;
	s->settings = *settings;
	s->private = d;
	return 0;
}

/*
 * The operations of the SQLite store as statements: compare-and-swap on the row, then the floor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/lock/floor.h"
#include "worker/lock/store_session.h"

static enum store_outcome nonsense(const char *verb, int64_t term, struct err *e)
{
	err_set(e, ERR_REFUSED,
		"cannot %s: term %lld is beyond any clock (2^53 microseconds); correct the "
		"system's "
		"clock",
		verb, (long long)term);
	return STORE_REFUSED;
}

static void fill_floor(struct session *s, struct store_view *v, struct err *e)
{
	v->floor = floor_compare(s->place.path, v->db_uuid, v->row.term, &v->floor_term, e);
}

/* After the COMMIT that gave a new term. That stands, whatever happens here. */
static void raise_floor(struct session *s, struct store_view *v, struct err *e)
{
	v->floor_failed = floor_raise(s->place.path, v->db_uuid, v->row.term,
				  session_busy_limit_ms(s->store), e) != 0;
	/* The floor never falls: one that was above this term shows a restored database. */
	v->floor = floor_compare(s->place.path, v->db_uuid, v->row.term, &v->floor_term, NULL);
}

static void remember(struct store *store, const struct store_view *v)
{
	struct held *h = store->private;

	h->epoch = v->row.epoch;
	h->told_gone = false;
	h->device = v->device;
	h->inode = v->inode;
	memcpy(h->db_uuid, v->db_uuid, sizeof(h->db_uuid));
}

static enum store_outcome sqlite_inspect(
	struct store *store, struct store_view *ret_view, struct err *e)
{
	struct held *h = store->private;
	struct store_view view;
	struct session s;
	enum store_outcome outcome = session_begin_reading(&s, store, "look at the lock", e);

	if (outcome != STORE_DONE)
		return outcome;
	if (s.db) {
		outcome = session_finish(&s, 0, true, &view, e);
		if (outcome != STORE_DONE)
			return outcome;
	} else {
		memset(&view, 0, sizeof(view));
		view.overlay = s.place.overlay;
	}
	fill_floor(&s, &view, e);
	/* So learns a keeper that was replaced while its supervisor holds the lock, or whose COMMIT
	 * of an acquisition had an unknown outcome. */
	if (view.row.held && view.row.epoch > h->epoch &&
		strcmp(view.row.holder, store->settings.instance) == 0)
		remember(store, &view);
	*ret_view = view;
	return STORE_DONE;
}

static bool is_as_expected(const struct store_view *v, const struct store_expect *expect)
{
	return v->exists && v->row.term == expect->term && v->row.beat == expect->beat &&
	       strcmp(v->row.holder, expect->holder) == 0 &&
	       strcmp(v->db_uuid, expect->db_uuid) == 0;
}

/* What ends with the terms before. */
static int end_history(struct session *s, const char *reason, int64_t now)
{
	int64_t keep = s->store->settings.history_keep_us;
	int rc = session_run(s, NULL,
		"UPDATE lock_history SET ended_at = ?, reason = ? WHERE ended_at IS NULL", "it",
		now, reason);

	if (rc == 0 && keep > 0 && now > keep)
		rc = session_run(s, NULL,
			"DELETE FROM lock_history WHERE ended_at IS NOT NULL AND ended_at < ?", "i",
			now - keep);
	return rc;
}

static int write_acquired(struct session *s, const struct store_expect *expect, int64_t epoch,
	int64_t ttl_ms, const char *reason, int *ret_changes)
{
	const struct store_settings *me = &s->store->settings;
	bool plain = s->kind == SCHEMA_PLAIN;
	int64_t now = session_wall_us();
	int rc = plain ? migrations_from_plain(s->db, now) : migrations_fill(s->db, now);

	if (plain) {
		s->kind = SCHEMA_OURS;
		s->version = STORE_SCHEMA_VERSION;
	}
	if (rc == 0)
		rc = session_run(s, ret_changes,
			"UPDATE scheduler_lock SET term = ?1, epoch = ?1, state = 1, holder = ?2,"
			" beat = 0, ttl_ms = ?3, boot_id = ?4, machine_id = ?5, guard_ino = ?6,"
			" pid1 = ?7, pid = ?8, hostname = ?9, worker = '', created_at = ?10,"
			" heartbeat_at = ?10 WHERE id = 1 AND term = ?11 AND holder = ?12 AND"
			" beat = ?13 AND term < ?1",
			"itittiiitiiti", epoch, me->instance, ttl_ms, me->boot_id, me->machine_id,
			me->guard_ino, (int64_t)me->pid1, me->pid, me->hostname, now,
			plain ? 0 : expect->term, plain ? "" : expect->holder,
			plain ? 0 : expect->beat);
	if (rc != 0 || *ret_changes != 1)
		return rc;
	rc = session_run(s, NULL, "DELETE FROM executor", "");
	if (rc == 0)
		rc = end_history(s, reason, now);
	if (rc == 0)
		rc = session_run(s, NULL,
			"INSERT INTO lock_history(term, holder, hostname, pid, acquired_at)"
			" VALUES (?, ?, ?, ?, ?)",
			"ittii", epoch, me->instance, me->hostname, me->pid, now);
	return rc;
}

static enum store_outcome sqlite_acquire(struct store *store, const struct store_expect *expect,
	int64_t epoch, int64_t ttl_ms, const char *reason, struct store_view *ret_view,
	struct err *e)
{
	struct store_view view = {0};
	enum store_outcome outcome;
	struct session s;
	int changes = 0, rc;

	if (epoch <= 0 || epoch > FLOOR_TERM_MAX)
		return nonsense("take the lock", epoch, e);
	outcome = session_begin(&s, store, "take the lock", 0, e);
	if (outcome != STORE_DONE)
		return outcome;
	rc = session_read_view(&s, &view);
	if (rc == 0 && is_as_expected(&view, expect) && epoch > view.row.term)
		rc = write_acquired(&s, expect, epoch, ttl_ms, reason, &changes);
	outcome = session_finish(&s, rc, changes == 1, &view, e);
	if (outcome == STORE_DONE) {
		remember(store, &view);
		raise_floor(&s, &view, e);
	}
	/* The lock works on the version before, too: what fails here is done by the next one who
	 * needs it. */
	if (outcome == STORE_DONE && view.schema_version < STORE_SCHEMA_VERSION &&
		session_upgrade(store, epoch, NULL) == STORE_DONE)
		view.schema_version = STORE_SCHEMA_VERSION;
	if (outcome == STORE_DONE || outcome == STORE_REFUSED)
		*ret_view = view;
	return outcome;
}

static enum store_outcome sqlite_renew(struct store *store, int64_t epoch, int64_t term,
	int64_t ttl_ms, struct store_view *ret_view, struct err *e)
{
	struct session s;
	enum store_outcome outcome = session_begin(&s, store, "renew the lock", epoch, e);
	int changes = 0, rc = 0;

	if (outcome != STORE_DONE)
		return outcome;
	if (s.kind == SCHEMA_OURS)
		rc = session_run(&s, &changes,
			"UPDATE scheduler_lock SET beat = beat + 1, ttl_ms = ?, heartbeat_at = ?"
			" WHERE id = 1 AND state = 1 AND term = ? AND epoch = ? AND holder = ?",
			"iiiit", ttl_ms, session_wall_us(), term, epoch, store->settings.instance);
	outcome = session_finish(&s, rc, changes == 1, ret_view, e);
	if (outcome == STORE_DONE)
		fill_floor(&s, ret_view, NULL);
	return outcome;
}

struct promotion {
	int64_t epoch, term, new_term;
	const char *program, *worker;
	int64_t pid;
	const char *reason;
};

static int write_promoted(struct session *s, const struct promotion *p, int *ret_changes)
{
	const struct store_settings *me = &s->store->settings;
	int64_t now = session_wall_us();
	int rc = session_run(s, ret_changes,
		"UPDATE scheduler_lock SET term = ?, beat = beat + 1, worker = ?, heartbeat_at = ?"
		" WHERE id = 1 AND state = 1 AND term = ? AND epoch = ? AND holder = ?",
		"itiiit", p->new_term, p->worker, now, p->term, p->epoch, me->instance);

	if (rc != 0 || *ret_changes != 1)
		return rc;
	rc = session_run(s, NULL,
		"UPDATE lock_history SET ended_at = ?, reason = ? WHERE program = ? AND"
		" ended_at IS NULL",
		"itt", now, p->reason, p->program);
	if (rc == 0 && p->worker[0] == '\0')
		return session_run(
			s, NULL, "DELETE FROM executor WHERE program = ?", "t", p->program);
	if (rc == 0)
		rc = session_run(s, NULL,
			"INSERT OR REPLACE INTO executor(program, term, worker, pid, since)"
			" VALUES (?, ?, ?, ?, ?)",
			"titii", p->program, p->new_term, p->worker, p->pid, now);
	if (rc == 0)
		rc = session_run(s, NULL,
			"INSERT INTO lock_history(term, program, holder, hostname, pid, worker,"
			" acquired_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			"itttiti", p->new_term, p->program, me->instance, me->hostname, p->pid,
			p->worker, now);
	return rc;
}

static enum store_outcome sqlite_promote(struct store *store, int64_t epoch, int64_t term,
	int64_t new_term, const char *program, const char *worker, int64_t pid, const char *reason,
	struct store_view *ret_view, struct err *e)
{
	/* Without a worker nobody acts under a new term, so none is spent. */
	struct promotion p = {
		epoch, term, worker[0] ? new_term : term, program, worker, pid, reason};
	const char *verb = worker[0] ? "promote the executor" : "record that there is no executor";
	enum store_outcome outcome;
	struct session s;
	int changes = 0, rc = 0;

	if (p.new_term <= 0 || p.new_term > FLOOR_TERM_MAX)
		return nonsense(verb, p.new_term, e);
	outcome = session_begin(&s, store, verb, epoch, e);
	if (outcome != STORE_DONE)
		return outcome;
	if (s.kind == SCHEMA_OURS && (p.new_term > term || worker[0] == '\0'))
		rc = write_promoted(&s, &p, &changes);
	outcome = session_finish(&s, rc, changes == 1, ret_view, e);
	if (outcome == STORE_DONE && worker[0])
		raise_floor(&s, ret_view, e);
	else if (outcome == STORE_DONE)
		fill_floor(&s, ret_view, NULL);
	return outcome;
}

/* The row stays, with its term: only the holder goes. */
#define FREE_ROW                                                                                   \
	"UPDATE scheduler_lock SET state = 0, holder = '', beat = beat + 1, worker = '', "         \
	"heartbeat_at = ? WHERE id = 1 AND state = 1 AND "

static enum store_outcome sqlite_release(struct store *store, int64_t epoch, int64_t term,
	const char *reason, struct store_view *ret_view, struct err *e)
{
	struct held *h = store->private;
	struct session s;
	enum store_outcome outcome = session_begin(&s, store, "release the lock", epoch, e);
	int64_t now = session_wall_us();
	int changes = 0, rc = 0;

	if (outcome != STORE_DONE)
		return outcome;
	if (s.kind == SCHEMA_OURS)
		rc = session_run(&s, &changes, FREE_ROW "term = ? AND epoch = ? AND holder = ?",
			"iiit", now, term, epoch, store->settings.instance);
	if (rc == 0 && changes == 1)
		rc = session_run(&s, NULL, "DELETE FROM executor", "");
	if (rc == 0 && changes == 1)
		rc = end_history(&s, reason, now);
	outcome = session_finish(&s, rc, changes == 1, ret_view, e);
	if (outcome != STORE_DONE)
		return outcome;
	memset(h, 0, sizeof(*h));
	fill_floor(&s, ret_view, NULL);
	return outcome;
}

static enum store_outcome sqlite_force_release(struct store *store,
	const struct store_expect *expect, struct store_view *ret_view, struct err *e)
{
	struct session s;
	enum store_outcome outcome = session_begin(&s, store, "free the lock", 0, e);
	struct store_view view;
	int64_t now = session_wall_us();
	int changes = 0, rc;

	if (outcome != STORE_DONE)
		return outcome;
	rc = session_read_view(&s, &view);
	if (rc == 0 && s.kind == SCHEMA_OURS && is_as_expected(&view, expect))
		rc = session_run(&s, &changes, FREE_ROW "term = ? AND beat = ? AND holder = ?",
			"iiit", now, expect->term, expect->beat, expect->holder);
	if (rc == 0 && changes == 1)
		rc = session_run(&s, NULL, "DELETE FROM executor", "");
	if (rc == 0 && changes == 1)
		rc = end_history(&s, "released by force", now);
	outcome = session_finish(&s, rc, changes == 1, ret_view, e);
	if (outcome == STORE_DONE)
		fill_floor(&s, ret_view, NULL);
	return outcome;
}

static enum store_outcome sqlite_claim(struct store *store, const char *program, int64_t term,
	const char *job, int64_t fire_time_us, int attempt, int64_t owner, struct err *e)
{
	struct ledger_claimant who = {.term = term, .owner = owner};
	struct ledger_firing firing = {.status = LEDGER_CLAIMED, .cause = LEDGER_BY_APPLICATION};
	struct ledger_claimed claimed;
	enum store_outcome outcome;

	snprintf(who.program, sizeof(who.program), "%s", program);
	snprintf(firing.key.job, sizeof(firing.key.job), "%s", job);
	firing.key.fire_time_us = fire_time_us;
	firing.key.attempt = attempt;
	outcome = store_sqlite_jobs.claim(store, &who, &firing, 1, &claimed, e);
	if (outcome == STORE_DONE && claimed.answer == LEDGER_CLAIM_TAKEN)
		outcome = STORE_REFUSED;
	if (outcome == STORE_DONE && claimed.run % 64 == 0)
		sqlite_jobs_trim_claims(store);
	if (outcome == STORE_REFUSED)
		err_set(e, ERR_REFUSED,
			"the run of '%s' at %lld (attempt %d) is not '%s's under term %lld: it ran "
			"or "
			"runs already, or another executor was promoted; not running it",
			job, (long long)fire_time_us, attempt, program, (long long)term);
	return outcome;
}

static enum store_outcome sqlite_history(struct store *store, int limit,
	bool (*each)(const struct store_executor *of, int64_t ended_us, const char *holder,
		const char *hostname, const char *reason, void *context),
	void *context, struct err *e)
{
	bool create = store->settings.create;
	enum store_outcome outcome;
	struct session s;
	int rc = 0;

	store->settings.create = false;
	outcome = session_begin_reading(&s, store, "read the lock's history", e);
	store->settings.create = create;
	if (outcome != STORE_DONE || !s.db)
		return outcome;
	if (s.kind == SCHEMA_OURS)
		rc = session_history(&s, limit, each, context);
	return session_finish(&s, rc, true, NULL, e);
}

static void sqlite_close_store(struct store *store)
{
	free(store->private);
	store->private = NULL;
}

static const struct store_ops sqlite_ops = {
	.name = "sqlite",
	.jobs = &store_sqlite_jobs,
	.inspect = sqlite_inspect,
	.acquire = sqlite_acquire,
	.renew = sqlite_renew,
	.promote = sqlite_promote,
	.release = sqlite_release,
	.force_release = sqlite_force_release,
	.claim = sqlite_claim,
	.unclaim = sqlite_jobs_unclaim,
	.history = sqlite_history,
	.close = sqlite_close_store,
};

int store_sqlite_init(struct store *s, const struct store_settings *settings, struct err *e)
{
	int code = session_configure(e);

	if (code < 0)
		return code;
	memset(s, 0, sizeof(*s));
	s->private = calloc(1, sizeof(struct held));
	if (!s->private)
		return err_set(e, ERR_SYSTEM, "cannot open the lock store: out of memory");
	s->ops = &sqlite_ops;
	s->settings = *settings;
	return 0;
}

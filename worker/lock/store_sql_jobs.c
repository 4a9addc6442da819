/*
 * The ledger of job runs: claims, and what becomes of them. (Requests, pauses, trimming:
 * store_sql_requests.c; reading: store_sql_ledger.c.)
 */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "worker/lock/store_session.h"

#define OPEN "status IN ('queued', 'running')"

enum statement { INSERT, LOOK, IS_PAUSED, FIRED, REQUEST, STATEMENTS };

static const char *const claim_sql[STATEMENTS] = {
	[INSERT] = "INSERT INTO job_run(job, fire_time, attempt, term, claimed_at, started_at,"
		   " ended_at, status, program, cause, owner, request, instance, hostname, worker,"
		   " run, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?9, ?, ?, ?, ?, ?, coalesce(?,"
		   " (SELECT x.worker FROM executor x WHERE x.program = ?9)), ?, ?)"
		   " ON CONFLICT DO NOTHING",
	[LOOK] = "SELECT term, owner, status, run FROM job_run WHERE job = ? AND fire_time = ? AND"
		 " attempt = ?",
	[IS_PAUSED] = "SELECT 1 FROM job_pause WHERE job = ?",
	[FIRED] = "INSERT INTO job_state(job, last_fire) VALUES (?1, ?2) ON CONFLICT(job) DO UPDATE"
		  " SET last_fire = max(coalesce(last_fire, 0), coalesce(excluded.last_fire, 0))",
	[REQUEST] = "UPDATE job_request SET state = 'claimed', run = ? WHERE id = ? AND"
		    " state = 'pending'",
};

struct claiming {
	struct session *session;
	const struct ledger_claimant *who;
	sqlite3_stmt *statements[STATEMENTS];
	int64_t next_run, first_run, now_us;
};

enum store_outcome sqlite_jobs_needs_ledger(struct session *s, struct err *e)
{
	char path[FS_PATH_BYTES];

	if (s->kind == SCHEMA_OURS && s->version >= 2)
		return STORE_DONE;
	snprintf(path, sizeof(path), "%s", s->place.path);
	session_finish(s, 0, false, NULL, e);
	err_set(e, ERR_REFUSED,
		"cannot %s: the database '%s' has no ledger of jobs yet; it gets one when an "
		"instance of this version takes the lock",
		s->verb, path);
	return STORE_REFUSED;
}

/* The program's executor is ours, under TERM, and the lock is held by our instance. */
static int is_executor(struct session *s, const char *program, int64_t term, bool *ret_is)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT 1 FROM executor x, scheduler_lock l WHERE x.program = ? AND x.term = ? AND"
		" l.id = 1 AND l.state = 1 AND l.holder = ?",
		-1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	*ret_is = session_step(q, "tit", program, term, s->store->settings.instance) == SQLITE_ROW;
	return sqlite3_finalize(q);
}

static int read_next_run(struct claiming *c)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(
		c->session->db, "SELECT next_run FROM job_meta WHERE id = 1", -1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_step(q) == SQLITE_ROW)
		c->next_run = c->first_run = sqlite3_column_int64(q, 0);
	return sqlite3_finalize(q);
}

/* What is there already: ours from an earlier try, or taken. */
static int look_at_row(
	struct claiming *c, const struct ledger_firing *f, struct ledger_claimed *ret)
{
	sqlite3_stmt *q = c->statements[LOOK];
	int rc = session_step(q, "tii", f->key.job, f->key.fire_time_us, (int64_t)f->key.attempt);
	char status[32];

	ret->answer = LEDGER_CLAIM_TAKEN;
	ret->status = LEDGER_CANCELLED; /* no row: a request that was withdrawn */
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_OK : rc;
	session_text(status, sizeof(status), q, 2);
	ret->status = ledger_status_of(status);
	ret->run = sqlite3_column_int64(q, 3);
	if (c->who->owner != 0 && sqlite3_column_int64(q, 1) == c->who->owner &&
		sqlite3_column_int64(q, 0) == c->who->term)
		ret->answer = LEDGER_CLAIM_MINE;
	return SQLITE_OK;
}

static int insert_row(struct claiming *c, const struct ledger_firing *f, bool *ret_inserted)
{
	const struct store_settings *me = &c->session->store->settings;
	bool open = ledger_status_is_open(f->status) || f->status == LEDGER_CLAIMED;
	int64_t started = f->status == LEDGER_QUEUED || !open ? 0 : c->now_us;
	int rc = session_step(c->statements[INSERT], "tiiiiIITTTIITTTiT", f->key.job,
		f->key.fire_time_us, (int64_t)f->key.attempt, c->who->term, c->now_us, started,
		open ? (int64_t)0 : c->now_us, ledger_status_name(f->status), c->who->program,
		ledger_cause_name(f->cause), c->who->owner, f->request, me->instance, me->hostname,
		c->who->worker, c->next_run, f->reason);

	*ret_inserted = rc == SQLITE_DONE && sqlite3_changes(c->session->db) == 1;
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static bool is_of_schedule(const struct ledger_firing *f)
{
	return f->cause == LEDGER_BY_SCHEDULE || f->cause == LEDGER_BY_PROMOTION ||
	       f->cause == LEDGER_BY_CATCH_UP;
}

/* The job is known from now on; its schedule has come as far as this firing, run or not. */
static int note_fired(struct claiming *c, const struct ledger_firing *f)
{
	int rc = session_step(c->statements[FIRED], "tI", f->key.job,
		is_of_schedule(f) ? f->key.fire_time_us : (int64_t)0);

	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int claim_one(struct claiming *c, const struct ledger_firing *f, struct ledger_claimed *ret)
{
	bool inserted = false;
	int rc = note_fired(c, f);

	memset(ret, 0, sizeof(*ret));
	if (rc != SQLITE_OK)
		return rc;
	if (is_of_schedule(f) && f->status != LEDGER_MISSED) {
		rc = session_step(c->statements[IS_PAUSED], "t", f->key.job);
		if (rc == SQLITE_ROW) {
			ret->answer = LEDGER_CLAIM_PAUSED;
			return SQLITE_OK;
		}
		if (rc != SQLITE_DONE)
			return rc;
	}
	/* A request that was withdrawn, or is another's, is not run. (Its further attempts are: the
	 * first one answered it.) */
	if (f->request != 0 && f->key.attempt == 1) {
		rc = session_step(c->statements[REQUEST], "ii", c->next_run, f->request);
		if (rc != SQLITE_DONE)
			return rc;
		if (sqlite3_changes(c->session->db) != 1)
			return look_at_row(c, f, ret);
	}
	rc = insert_row(c, f, &inserted);
	if (rc != SQLITE_OK || !inserted)
		return rc != SQLITE_OK ? rc : look_at_row(c, f, ret);
	ret->answer = LEDGER_CLAIM_DONE;
	ret->status = f->status;
	ret->run = c->next_run++;
	return SQLITE_OK;
}

static int prepare(struct session *s, sqlite3_stmt **statements, const char *const *sql, int count)
{
	int rc = SQLITE_OK;

	for (int i = 0; i < count && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v2(s->db, sql[i], -1, &statements[i], NULL);
	return rc;
}

static void finalize(sqlite3_stmt **statements, int count)
{
	for (int i = 0; i < count; i++)
		sqlite3_finalize(statements[i]);
}

static int write_claims(struct session *s, const struct ledger_claimant *who,
	const struct ledger_firing *firings, size_t count, struct ledger_claimed *ret_claimed)
{
	struct claiming c = {.session = s, .who = who, .now_us = session_wall_us()};
	int rc = read_next_run(&c);

	if (rc == SQLITE_OK)
		rc = prepare(s, c.statements, claim_sql, STATEMENTS);
	for (size_t i = 0; i < count && rc == SQLITE_OK; i++)
		rc = claim_one(&c, &firings[i], &ret_claimed[i]);
	finalize(c.statements, STATEMENTS);
	if (rc == SQLITE_OK && c.next_run != c.first_run)
		rc = session_run(
			s, NULL, "UPDATE job_meta SET next_run = ? WHERE id = 1", "i", c.next_run);
	return rc;
}

/* A version 1 database: ours to bring up to date if the lock is ours. */
static enum store_outcome begin_claim(struct session *s, struct store *store, struct err *e)
{
	const struct held *h = store->private;
	enum store_outcome outcome = session_begin(s, store, "claim a run", h->epoch, e);

	if (outcome != STORE_DONE || s->kind != SCHEMA_OURS || s->version >= 2)
		return outcome;
	session_finish(s, 0, false, NULL, NULL);
	outcome = session_upgrade(store, h->epoch, e);
	return outcome == STORE_DONE ? session_begin(s, store, "claim a run", h->epoch, e)
				     : outcome;
}

static enum store_outcome sqlite_jobs_claim(struct store *store, const struct ledger_claimant *who,
	const struct ledger_firing *firings, size_t count, struct ledger_claimed *ret_claimed,
	struct err *e)
{
	struct session s;
	enum store_outcome outcome;
	bool ours = false;
	int rc = 0;

	for (size_t i = 0; i < count; i++)
		ret_claimed[i] = (struct ledger_claimed){.answer = LEDGER_CLAIM_REFUSED};
	outcome = begin_claim(&s, store, e);
	if (outcome != STORE_DONE)
		return outcome;
	if (s.kind == SCHEMA_OURS)
		rc = is_executor(&s, who->program, who->term, &ours);
	if (rc == 0 && ours)
		rc = write_claims(&s, who, firings, count, ret_claimed);
	outcome = session_finish(&s, rc, ours, NULL, e);
	for (size_t i = 0; i < count && outcome != STORE_DONE; i++)
		ret_claimed[i] = (struct ledger_claimed){.answer = LEDGER_CLAIM_REFUSED};
	if (outcome == STORE_REFUSED)
		err_set(e, ERR_REFUSED,
			"'%s' has another executor than ours under term %lld, or none: nothing was "
			"claimed",
			who->program, (long long)who->term);
	return outcome;
}

/* --- updates ------------------------------------------------------------------------------- */
enum { WRITE, READ, UPDATE_STATEMENTS };

static const char *const update_sql[UPDATE_STATEMENTS] = {
	/* One that waited for its turn has begun when it is said to run; its end says it better. */
	[WRITE] = "UPDATE job_run SET status = ?1, started_at = coalesce(?2, started_at,"
		  " CASE ?1 WHEN 'running' THEN ?14 END),"
		  " ended_at = coalesce(?3, ended_at), pid = coalesce(?4, pid), exit_code = ?5,"
		  " signal = ?6, output_bytes = coalesce(?7, output_bytes),"
		  " output = coalesce(?8, output), reason = coalesce(?9, reason),"
		  " owner = coalesce(?15, owner) WHERE job = ?10 AND fire_time = ?11 AND"
		  " attempt = ?12 AND owner IN (?13, ?15) AND " OPEN
		  " RETURNING request, term = (SELECT x.term FROM executor x WHERE"
		  " x.program = job_run.program)",
	[READ] = "SELECT status FROM job_run WHERE job = ? AND fire_time = ? AND attempt = ? AND"
		 " owner IN (?, ?)",
};

/* *RET_RING: a person waits for its end, or a successor for that of its predecessor. */
static int update_one(sqlite3_stmt **statements, const struct ledger_update *u,
	enum ledger_updated *ret, bool *ret_ring)
{
	bool ends = !ledger_status_is_open(u->status);
	int rc = session_step(statements[WRITE], "tIIIEIIbTtiiiiI", ledger_status_name(u->status),
		u->started_us, u->ended_us, u->pid, ends ? (int64_t)u->exit_code : (int64_t)-1,
		(int64_t)u->signal, u->output_bytes, u->output, (size_t)u->output_kept, u->reason,
		u->key.job, u->key.fire_time_us, (int64_t)u->key.attempt, u->owner,
		session_wall_us(), u->new_owner);
	char status[32];

	*ret = LEDGER_UPDATE_DONE;
	if (rc == SQLITE_ROW) {
		if (ends && (sqlite3_column_type(statements[WRITE], 0) != SQLITE_NULL ||
				    sqlite3_column_int(statements[WRITE], 1) != 1))
			*ret_ring = true;
		sqlite3_reset(statements[WRITE]);
		return SQLITE_OK;
	}
	if (rc != SQLITE_DONE)
		return rc;
	/* Said before, its answer lost? A run that has ended otherwise (somebody took it from the
	 * queue) is not started. */
	rc = session_step(statements[READ], "tiiiI", u->key.job, u->key.fire_time_us,
		(int64_t)u->key.attempt, u->owner, u->new_owner);
	*ret = LEDGER_UPDATE_REFUSED;
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_OK : rc;
	session_text(status, sizeof(status), statements[READ], 0);
	if (ledger_status_of(status) == u->status)
		*ret = LEDGER_UPDATE_DONE;
	return SQLITE_OK;
}

static int write_updates(struct session *s, const struct ledger_update *updates, size_t count,
	enum ledger_updated *ret_updated, bool *ret_ring)
{
	sqlite3_stmt *statements[UPDATE_STATEMENTS] = {NULL};
	int rc = prepare(s, statements, update_sql, UPDATE_STATEMENTS);

	for (size_t i = 0; i < count && rc == SQLITE_OK; i++) {
		bool may = updates[i].by_term == 0;

		if (!may)
			rc = is_executor(s, LEDGER_PROGRAM, updates[i].by_term, &may);
		if (rc == SQLITE_OK && may)
			rc = update_one(statements, &updates[i], &ret_updated[i], ret_ring);
	}
	finalize(statements, UPDATE_STATEMENTS);
	return rc;
}

static enum store_outcome sqlite_jobs_update(struct store *store,
	const struct ledger_update *updates, size_t count, enum ledger_updated *ret_updated,
	bool *ret_ring, struct err *e)
{
	const struct held *h = store->private;
	struct session s;
	enum store_outcome outcome = session_begin(&s, store, "record a run", h->epoch, e);
	int rc;

	*ret_ring = false;
	for (size_t i = 0; i < count; i++)
		ret_updated[i] = LEDGER_UPDATE_REFUSED;
	if (outcome == STORE_DONE)
		outcome = sqlite_jobs_needs_ledger(&s, e);
	if (outcome != STORE_DONE)
		return outcome;
	rc = write_updates(&s, updates, count, ret_updated, ret_ring);
	return session_finish(&s, rc, true, NULL, e);
}

enum store_outcome sqlite_jobs_unclaim(struct store *store, const char *job, int64_t fire_time_us,
	int attempt, int64_t owner, const char *reason, struct err *e)
{
	const struct held *h = store->private;
	struct session s;
	enum store_outcome outcome = session_begin(&s, store, "give a claim up", h->epoch, e);
	int rc, changes = 0;

	if (outcome == STORE_DONE)
		outcome = sqlite_jobs_needs_ledger(&s, e);
	if (outcome != STORE_DONE)
		return outcome;
	rc = session_run(&s, &changes,
		"UPDATE job_run SET status = 'lost', ended_at = ?, reason = ? WHERE job = ? AND"
		" fire_time = ? AND attempt = ? AND owner = ? AND status = 'claimed'",
		"ittiii", session_wall_us(), reason, job, fire_time_us, (int64_t)attempt, owner);
	outcome = session_finish(&s, rc, changes > 0, NULL, e);
	if (outcome == STORE_REFUSED)
		err_set(e, ERR_REFUSED, "'%s' at %lld is not claimed", job,
			(long long)fire_time_us);
	return outcome;
}

const struct store_jobs_ops store_sqlite_jobs = {
	.claim = sqlite_jobs_claim,
	.update = sqlite_jobs_update,
	.declare = sqlite_jobs_declare,
	.pause = sqlite_jobs_pause,
	.request = sqlite_jobs_request,
	.answer = sqlite_jobs_answer,
	.trim = sqlite_jobs_trim,
	.read = sqlite_jobs_read,
};

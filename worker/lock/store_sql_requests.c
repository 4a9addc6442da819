/*
 * The ledger's smaller tables: jobs as they were declared, pauses, requests; and what is dropped
 * when it is old.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "worker/lock/store_session.h"

/* So many lines wait at most: beyond that nobody takes them anyway. */
enum { PENDING_MOST = 1000 };
/* Rows and jobs of one step of trimming: a few milliseconds. */
enum { TRIM_ROWS = 256, TRIM_JOBS = 256 };

static enum store_outcome begin(
	struct session *s, struct store *store, const char *verb, struct err *e)
{
	const struct held *h = store->private;
	enum store_outcome outcome = session_begin(s, store, verb, h->epoch, e);

	return outcome == STORE_DONE ? sqlite_jobs_needs_ledger(s, e) : outcome;
}

/* One number; 0 when there is no row. */
static int read_number(
	struct session *s, int64_t *ret_number, const char *sql, const char *text, int64_t number)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &q, NULL);

	*ret_number = 0;
	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_bind_parameter_count(q) == 2)
		rc = session_step(q, "ti", text, number);
	else
		rc = session_step(q, "");
	if (rc == SQLITE_ROW)
		*ret_number = sqlite3_column_int64(q, 0);
	return sqlite3_finalize(q);
}

/* --- declarations -------------------------------------------------------------------------- */
/* A job that has another schedule now, or was in no file, has missed nothing of it yet. */
static int write_declared(struct session *s, const struct ledger_declared *jobs, size_t count,
	int64_t now, int64_t round_us)
{
	const struct store_settings *me = &s->store->settings;
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"INSERT INTO job_state(job, schedule, timezone, known_since, instance, hostname,"
		" declared_at) VALUES (?1, ?2, ?3, ?6, ?4, ?5, ?7) ON CONFLICT(job) DO UPDATE SET"
		" known_since = CASE WHEN schedule IS excluded.schedule AND timezone IS"
		" excluded.timezone AND instance IS NOT NULL THEN coalesce(known_since, ?6)"
		" ELSE ?6 END,"
		" schedule = excluded.schedule, timezone = excluded.timezone,"
		" instance = excluded.instance, hostname = excluded.hostname, declared_at = ?7",
		-1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = SQLITE_DONE;
	for (size_t i = 0; i < count && rc == SQLITE_DONE; i++)
		rc = session_step(q, "tTTttii", jobs[i].job, jobs[i].schedule, jobs[i].timezone,
			me->instance, me->hostname, now, round_us);
	sqlite3_finalize(q);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

enum store_outcome sqlite_jobs_declare(struct store *store, const struct ledger_declared *jobs,
	size_t count, int64_t round_us, bool last, struct err *e)
{
	const struct held *h = store->private;
	struct session s;
	enum store_outcome outcome = begin(&s, store, "declare the jobs", e);
	int rc;

	/* Also the first thing that an executor says: an upgrade in place does not acquire. */
	if (outcome == STORE_REFUSED && session_upgrade(store, h->epoch, NULL) == STORE_DONE)
		outcome = begin(&s, store, "declare the jobs", e);
	if (outcome != STORE_DONE)
		return outcome;
	rc = write_declared(&s, jobs, count, session_wall_us(), round_us);
	if (rc == SQLITE_OK && last)
		rc = session_run(&s, NULL,
			"UPDATE job_state SET instance = NULL, hostname = NULL WHERE instance = ?"
			" AND declared_at IS NOT ?",
			"ti", store->settings.instance, round_us);
	return session_finish(&s, rc, true, NULL, e);
}

/* --- pauses -------------------------------------------------------------------------------- */
enum store_outcome sqlite_jobs_pause(struct store *store, const char *job, bool paused,
	const char *by, bool *ret_changed, struct err *e)
{
	struct session s;
	enum store_outcome outcome = begin(&s, store, paused ? "pause a job" : "resume a job", e);
	int changes = 0, rc;

	*ret_changed = false;
	if (outcome != STORE_DONE)
		return outcome;
	if (paused)
		rc = session_run(&s, &changes,
			"INSERT INTO job_pause(job, paused_at, paused_by) VALUES (?, ?, ?)"
			" ON CONFLICT DO NOTHING",
			"tit", job, session_wall_us(), by);
	else
		rc = session_run(&s, &changes, "DELETE FROM job_pause WHERE job = ?", "t", job);
	outcome = session_finish(&s, rc, true, NULL, e);
	*ret_changed = outcome == STORE_DONE && changes == 1;
	return outcome;
}

/* --- requests ------------------------------------------------------------------------------ */
/* The time of a request is that of its run: one that no other run of the job has. */
static int find_free_time(struct session *s, const char *job, int64_t *ret_us)
{
	int64_t taken = 1, at = session_wall_us();
	int rc = SQLITE_OK;

	while (rc == SQLITE_OK && taken) {
		rc = read_number(s, &taken,
			"SELECT EXISTS(SELECT 1 FROM job_run WHERE job = ?1 AND fire_time = ?2) OR"
			" EXISTS(SELECT 1 FROM job_request WHERE job = ?1 AND requested_at = ?2"
			" AND state = 'pending')",
			job, at);
		at += taken ? 1 : 0;
	}
	*ret_us = at;
	return rc;
}

enum store_outcome sqlite_jobs_request(struct store *store, const char *job, const char *by,
	struct ledger_request *ret_request, struct err *e)
{
	struct ledger_request r = {.pending = true};
	struct session s;
	enum store_outcome outcome = begin(&s, store, "request a run", e);
	int64_t pending = 0;
	int rc;

	if (outcome != STORE_DONE)
		return outcome;
	snprintf(r.job, sizeof(r.job), "%s", job);
	snprintf(r.by, sizeof(r.by), "%s", by);
	rc = read_number(
		&s, &pending, "SELECT count(*) FROM job_request WHERE state = 'pending'", "", 0);
	if (rc == SQLITE_OK && pending < PENDING_MOST)
		rc = find_free_time(&s, job, &r.requested_us);
	if (rc == SQLITE_OK && pending < PENDING_MOST)
		rc = session_run(&s, NULL,
			"INSERT INTO job_request(job, requested_at, requested_by, state) VALUES"
			" (?, ?, ?, 'pending')",
			"tit", job, r.requested_us, by);
	if (rc == SQLITE_OK)
		r.id = sqlite3_last_insert_rowid(s.db);
	outcome = session_finish(&s, rc, pending < PENDING_MOST, NULL, e);
	if (outcome == STORE_DONE)
		*ret_request = r;
	else if (outcome == STORE_REFUSED)
		err_set(e, ERR_REFUSED,
			"%d requests wait already for an executor that runs jobs; start one, or "
			"wait until they are done",
			PENDING_MOST);
	return outcome;
}

enum store_outcome sqlite_jobs_answer(
	struct store *store, int64_t request, bool withdraw, const char *reason, struct err *e)
{
	const char *state = withdraw ? "withdrawn" : "refused";
	struct session s;
	enum store_outcome outcome = begin(&s, store, "answer a request", e);
	int64_t done = 0;
	int changes = 0, rc;

	if (outcome != STORE_DONE)
		return outcome;
	rc = session_run(&s, &changes,
		"UPDATE job_request SET state = ?, reason = ? WHERE id = ? AND state = 'pending'",
		"tti", state, reason, request);
	if (rc == SQLITE_OK && changes == 0) /* the same said twice */
		rc = read_number(&s, &done, "SELECT 1 FROM job_request WHERE state = ? AND id = ?",
			state, request);
	outcome = session_finish(&s, rc, changes == 1 || done, NULL, e);
	if (outcome == STORE_REFUSED)
		err_set(e, ERR_REFUSED,
			"request %lld is not pending: it is being run, or was "
			"answered",
			(long long)request);
	return outcome;
}

/* --- trimming ------------------------------------------------------------------------------ */
/* A claim of an application is not forgotten while the same firing may be claimed again: by a
 * successor that finds it unfinished, or by a scheduler that makes up for what it missed. */
#define CLAIM_KEPT_US ((int64_t)3600 * 1000000)
/* What another instance declared and nobody ran: even what comes once a year has come by then. */
#define DECLARED_KEPT_US ((int64_t)400 * 24 * 3600 * 1000000)

/* Runs are numbered in the order of their claims: the oldest are looked at, no more. */
static int trim_by_age(struct session *s, int64_t before, int64_t now, bool *ret_more)
{
	int changes = 0;
	int rc = session_run(s, &changes,
		"DELETE FROM job_run WHERE run IN (SELECT run FROM job_run WHERE status NOT IN"
		" ('queued', 'running') AND NOT (status = 'claimed' AND claimed_at >= ?3)"
		" ORDER BY run LIMIT ?1) AND claimed_at < ?2",
		"iii", (int64_t)TRIM_ROWS, before, now - CLAIM_KEPT_US);

	*ret_more = changes == TRIM_ROWS;
	if (rc == SQLITE_OK)
		rc = session_run(s, NULL,
			"DELETE FROM job_request WHERE state <> 'pending' AND requested_at < ?",
			"i", before);
	return rc;
}

/* Of JOB, what is older than its newest KEEP. */
static int trim_job(struct session *s, const char *job, int64_t keep, int64_t now, int *ret_changes)
{
	return session_run(s, ret_changes,
		"DELETE FROM job_run WHERE job = ?1 AND status NOT IN ('queued', 'running') AND"
		" NOT (status = 'claimed' AND claimed_at >= ?3) AND"
		" (fire_time, attempt) <= (SELECT fire_time, attempt FROM job_run WHERE job = ?1"
		" ORDER BY fire_time DESC, attempt DESC LIMIT 1 OFFSET ?2)",
		"tii", job, keep, now - CLAIM_KEPT_US);
}

/* Names behind AFTER up to TO that no file has and that have no runs left. (Of a job in a file the
 * row says how far its schedule has come: it stays.) */
static int forget_names(struct session *s, const char *after, const char *to, int64_t now)
{
	return session_run(s, NULL,
		"DELETE FROM job_state WHERE job > ?1 AND job <= ?2 AND (instance IS NULL OR"
		" (instance <> ?3 AND max(coalesce(declared_at, 0), coalesce(last_fire, 0)) < ?4))"
		" AND NOT EXISTS (SELECT 1 FROM job_run r WHERE r.job = job_state.job)"
		" AND NOT EXISTS (SELECT 1 FROM job_pause p WHERE p.job = job_state.job)",
		"ttti", after, to, s->store->settings.instance, now - DECLARED_KEPT_US);
}

/* The next TRIM_JOBS names behind CURSOR, or fewer once many rows are gone. KEEP 0: all runs. */
static int trim_names(struct session *s, int64_t keep, int64_t now, char cursor[LEDGER_NAME_BYTES],
	bool *ret_more)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT job FROM job_state WHERE job > ? ORDER BY job LIMIT ?", -1, &q, NULL);
	char job[LEDGER_NAME_BYTES] = "";
	int count = 0, deleted = 0;

	if (rc != SQLITE_OK)
		return rc;
	rc = session_step(q, "ti", cursor, (int64_t)TRIM_JOBS);
	while (rc == SQLITE_ROW && deleted < TRIM_ROWS) {
		int changes = 0;

		session_text(job, sizeof(job), q, 0);
		count++;
		rc = keep > 0 ? trim_job(s, job, keep, now, &changes) : SQLITE_OK;
		deleted += changes;
		if (rc == SQLITE_OK)
			rc = sqlite3_step(q);
	}
	*ret_more = rc == SQLITE_ROW || count == TRIM_JOBS;
	sqlite3_finalize(q);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		return rc;
	rc = count > 0 ? forget_names(s, cursor, job, now) : SQLITE_OK;
	snprintf(cursor, LEDGER_NAME_BYTES, "%s", *ret_more ? job : "");
	return rc;
}

enum store_outcome sqlite_jobs_trim(struct store *store, int64_t keep_us, int64_t keep_count,
	char cursor[LEDGER_NAME_BYTES], bool *ret_more, struct err *e)
{
	struct session s;
	enum store_outcome outcome = begin(&s, store, "trim the history of jobs", e);
	char next[LEDGER_NAME_BYTES];
	int64_t now = session_wall_us();
	bool more = false;
	int rc = 0;

	*ret_more = false;
	if (outcome != STORE_DONE)
		return outcome;
	memcpy(next, cursor, sizeof(next));
	if (keep_us > 0 && now > keep_us && cursor[0] == '\0')
		rc = trim_by_age(&s, now - keep_us, now, &more);
	if (rc == 0 && !more)
		rc = trim_names(&s, keep_count, now, next, &more);
	outcome = session_finish(&s, rc, true, NULL, e);
	*ret_more = outcome == STORE_DONE && more;
	if (outcome == STORE_DONE)
		memcpy(cursor, next, sizeof(next));
	return outcome;
}

/* The claims among the next TRIM_ROWS runs behind *CURSOR; from the beginning again where what
 * follows is not old enough. */
static int trim_claims(struct session *s, int64_t before, int64_t *cursor)
{
	sqlite3_stmt *q;
	int64_t last = 0, newest = 0, count = 0;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT max(run), max(claimed_at), count(*) FROM (SELECT run, claimed_at FROM"
		" job_run WHERE run > ? ORDER BY run LIMIT ?)",
		-1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	if (session_step(q, "ii", *cursor, (int64_t)TRIM_ROWS) == SQLITE_ROW) {
		last = sqlite3_column_int64(q, 0);
		newest = sqlite3_column_int64(q, 1);
		count = sqlite3_column_int64(q, 2);
	}
	rc = sqlite3_finalize(q);
	if (rc == SQLITE_OK)
		rc = session_run(s, NULL,
			"DELETE FROM job_run WHERE run > ? AND run <= ? AND status = 'claimed' AND"
			" claimed_at < ?",
			"iii", *cursor, last, before);
	*cursor = count == TRIM_ROWS && newest < before ? last : 0;
	return rc;
}

void sqlite_jobs_trim_claims(struct store *store)
{
	int64_t now = session_wall_us(), keep = store->settings.history_keep_us;
	struct held *h = store->private;
	struct session s;
	bool more;
	int rc;

	if (keep <= 0 || keep >= now ||
		session_begin(&s, store, "trim the claims", h->epoch, NULL) != STORE_DONE)
		return;
	rc = trim_claims(&s, now - (keep > CLAIM_KEPT_US ? keep : CLAIM_KEPT_US), &h->trimmed_run);
	if (rc == SQLITE_OK)
		rc = trim_names(&s, 0, now, h->trimmed_job, &more);
	(void)session_finish(&s, rc, true, NULL, NULL);
}

/* What is read of the ledger: runs, jobs, requests; one transaction with the lock's row. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "worker/lock/store_session.h"

#define RUN_COLUMNS                                                                                \
	"r.run, r.job, r.fire_time, r.attempt, r.term, r.owner, r.request, r.status, r.cause, "    \
	"r.claimed_at, r.started_at, r.ended_at, r.pid, r.exit_code, r.signal, r.output_bytes, "   \
	"length(r.output), r.program, r.instance, r.worker, r.hostname, r.reason"
enum { OUTPUT_COLUMN = 22 };

static int32_t number_or(sqlite3_stmt *q, int column, int32_t none)
{
	return sqlite3_column_type(q, column) == SQLITE_NULL ? none : sqlite3_column_int(q, column);
}

static void take_run(sqlite3_stmt *q, struct ledger_run *r)
{
	char name[32];

	memset(r, 0, sizeof(*r));
	r->run = sqlite3_column_int64(q, 0);
	session_text(r->key.job, sizeof(r->key.job), q, 1);
	r->key.fire_time_us = sqlite3_column_int64(q, 2);
	r->key.attempt = sqlite3_column_int(q, 3);
	r->term = sqlite3_column_int64(q, 4);
	r->owner = sqlite3_column_int64(q, 5);
	r->request = sqlite3_column_int64(q, 6);
	session_text(name, sizeof(name), q, 7);
	r->status = ledger_status_of(name);
	session_text(name, sizeof(name), q, 8);
	r->cause = ledger_cause_of(name);
	r->claimed_us = sqlite3_column_int64(q, 9);
	r->started_us = sqlite3_column_int64(q, 10);
	r->ended_us = sqlite3_column_int64(q, 11);
	r->pid = sqlite3_column_int64(q, 12);
	r->exit_code = number_or(q, 13, -1);
	r->signal = number_or(q, 14, 0);
	r->output_bytes = sqlite3_column_int64(q, 15);
	r->output_kept = sqlite3_column_int64(q, 16);
	session_text(r->program, sizeof(r->program), q, 17);
	session_text(r->instance, sizeof(r->instance), q, 18);
	session_text(r->worker, sizeof(r->worker), q, 19);
	session_text(r->hostname, sizeof(r->hostname), q, 20);
	session_text(r->reason, sizeof(r->reason), q, 21);
}

#define FAILURES "'failed', 'timeout', 'killed', 'not started', 'interrupted', 'lost', 'missed'"

static void write_query(const struct store_query *q, bool last, char *sql, size_t bytes)
{
	const char *output = q->what & STORE_READ_OUTPUT ? ", r.output" : "";

	if (last) /* of each job the one whose time was the latest */
		snprintf(sql, bytes,
			"SELECT " RUN_COLUMNS "%s FROM job_state s JOIN job_run r ON r.rowid ="
			" (SELECT l.rowid FROM job_run l WHERE l.job = s.job AND"
			" l.status NOT IN ('queued', 'running') ORDER BY l.fire_time DESC,"
			" l.attempt DESC LIMIT 1) WHERE ?1 IS NULL OR s.job = ?1 ORDER BY s.job",
			output);
	else
		snprintf(sql, bytes,
			"SELECT " RUN_COLUMNS "%s FROM job_run r WHERE run > 0%s%s%s%s%s%s"
			" ORDER BY r.run %s LIMIT ?4",
			output, q->job ? " AND r.job = ?1" : "", q->run ? " AND r.run = ?2" : "",
			q->since_us ? " AND r.claimed_at >= ?3" : "",
			q->fire_us ? " AND r.fire_time = ?5" : "",
			q->failed ? " AND r.status IN (" FAILURES ")" : "",
			q->open ? " AND r.status IN ('queued', 'running')" : "",
			q->oldest_first ? "" : "DESC");
}

static int read_runs(struct session *s, const struct store_query *query, bool last,
	const struct store_reader *reader)
{
	struct ledger_run run;
	sqlite3_stmt *q;
	char sql[1400];
	int rc;

	write_query(query, last, sql, sizeof(sql));
	rc = sqlite3_prepare_v2(s->db, sql, -1, &q, NULL);
	if (rc != SQLITE_OK)
		return rc;
	if (query->job)
		sqlite3_bind_text(q, 1, query->job, -1, SQLITE_STATIC);
	/* Where the query lacks one of them this is an error that means nothing. */
	sqlite3_bind_int64(q, 2, query->run);
	sqlite3_bind_int64(q, 3, query->since_us);
	sqlite3_bind_int64(q, 4, query->limit > 0 ? query->limit : -1);
	sqlite3_bind_int64(q, 5, query->fire_us);
	while (sqlite3_step(q) == SQLITE_ROW) {
		take_run(q, &run);
		if (reader->on_run && !reader->on_run(&run, reader->context))
			break;
		if ((query->what & STORE_READ_OUTPUT) && reader->on_output &&
			!reader->on_output(&run, sqlite3_column_blob(q, OUTPUT_COLUMN),
				(size_t)sqlite3_column_bytes(q, OUTPUT_COLUMN), reader->context))
			break;
	}
	return sqlite3_finalize(q);
}

static int read_jobs(
	struct session *s, const struct store_query *query, const struct store_reader *reader)
{
	/* Applications claim under any number of names. A job of a file that was claimed before it
	 * was declared has a last firing of its schedule; theirs have none. */
	const char *from =
		query->what & STORE_READ_JOBS
			? "job_state s LEFT JOIN job_pause p USING (job) WHERE true"
		: query->what & STORE_READ_DECLARED
			? "job_state s LEFT JOIN job_pause p USING (job) WHERE (s.schedule IS NOT"
			  " NULL OR s.last_fire > 0 OR p.job IS NOT NULL)"
			: "job_pause p LEFT JOIN job_state s USING (job) WHERE true";
	sqlite3_stmt *q;
	char sql[512];
	int rc;

	snprintf(sql, sizeof(sql),
		"SELECT job, s.last_fire, s.known_since, p.paused_at, s.schedule, s.timezone,"
		" s.hostname, s.instance FROM %s AND (?1 IS NULL OR job = ?1) ORDER BY job",
		from);
	rc = sqlite3_prepare_v2(s->db, sql, -1, &q, NULL);
	if (rc != SQLITE_OK)
		return rc;
	if (query->job)
		sqlite3_bind_text(q, 1, query->job, -1, SQLITE_STATIC);
	while (sqlite3_step(q) == SQLITE_ROW) {
		struct ledger_declared declared = {.job = ""};
		struct ledger_job j = {.job = ""};
		char hostname[LEDGER_NAME_BYTES], instance[STORE_ID_BYTES];

		session_text(j.job, sizeof(j.job), q, 0);
		j.last_fire_us = sqlite3_column_int64(q, 1);
		j.known_since_us = sqlite3_column_int64(q, 2);
		j.paused_us = sqlite3_column_int64(q, 3);
		j.paused = sqlite3_column_type(q, 3) != SQLITE_NULL;
		memcpy(declared.job, j.job, sizeof(declared.job));
		session_text(declared.schedule, sizeof(declared.schedule), q, 4);
		session_text(declared.timezone, sizeof(declared.timezone), q, 5);
		session_text(hostname, sizeof(hostname), q, 6);
		session_text(instance, sizeof(instance), q, 7);
		if (reader->on_job &&
			!reader->on_job(&j, &declared, instance, hostname, reader->context))
			break;
	}
	return sqlite3_finalize(q);
}

static int read_requests(
	struct session *s, const struct store_query *query, const struct store_reader *reader)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		query->request ? "SELECT id, job, requested_at, requested_by, state, run, reason"
				 " FROM job_request WHERE id = ?"
			       : "SELECT id, job, requested_at, requested_by, state, run, reason"
				 " FROM job_request WHERE state = 'pending' ORDER BY id",
		-1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	if (query->request)
		sqlite3_bind_int64(q, 1, query->request);
	while (sqlite3_step(q) == SQLITE_ROW) {
		struct ledger_request r = {.id = sqlite3_column_int64(q, 0)};
		char state[16];

		session_text(r.job, sizeof(r.job), q, 1);
		r.requested_us = sqlite3_column_int64(q, 2);
		session_text(r.by, sizeof(r.by), q, 3);
		session_text(state, sizeof(state), q, 4);
		r.run = sqlite3_column_int64(q, 5);
		session_text(r.reason, sizeof(r.reason), q, 6);
		r.pending = strcmp(state, "pending") == 0;
		r.refused = strcmp(state, "refused") == 0;
		r.withdrawn = strcmp(state, "withdrawn") == 0;
		if (reader->on_request && !reader->on_request(&r, reader->context))
			break;
	}
	return sqlite3_finalize(q);
}

static int read_all(
	struct session *s, const struct store_query *query, const struct store_reader *reader)
{
	int rc = SQLITE_OK;

	if (query->what & (STORE_READ_JOBS | STORE_READ_DECLARED | STORE_READ_PAUSED))
		rc = read_jobs(s, query, reader);
	if (rc == SQLITE_OK && (query->what & STORE_READ_RUNS))
		rc = read_runs(s, query, false, reader);
	if (rc == SQLITE_OK && (query->what & STORE_READ_LAST))
		rc = read_runs(s, query, true, reader);
	if (rc == SQLITE_OK && (query->what & STORE_READ_REQUESTS))
		rc = read_requests(s, query, reader);
	return rc;
}

enum store_outcome sqlite_jobs_read(struct store *store, const struct store_query *query,
	const struct store_reader *reader, struct store_view *ret_view, struct err *e)
{
	bool create = store->settings.create;
	enum store_outcome outcome;
	struct session s;
	int rc = 0;

	memset(ret_view, 0, sizeof(*ret_view));
	store->settings.create = false;
	outcome = session_begin_reading(&s, store, "read the ledger of jobs", e);
	store->settings.create = create;
	if (outcome != STORE_DONE || !s.db)
		return outcome;
	if (s.kind == SCHEMA_OURS && s.version >= 2)
		rc = read_all(&s, query, reader);
	return session_finish(&s, rc, true, ret_view, e);
}

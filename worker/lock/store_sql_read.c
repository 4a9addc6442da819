/*
 * What the SQLite store reads: the row, the executors, the history.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "worker/lock/store_session.h"

void session_text(char *out, size_t bytes, sqlite3_stmt *statement, int column)
{
	const unsigned char *text = sqlite3_column_text(statement, column);

	snprintf(out, bytes, "%s", text ? (const char *)text : "");
}

static void take_row(sqlite3_stmt *q, struct store_row *r)
{
	r->term = sqlite3_column_int64(q, 0);
	r->epoch = sqlite3_column_int64(q, 1);
	r->held = sqlite3_column_int64(q, 2) == 1;
	session_text(r->holder, sizeof(r->holder), q, 3);
	r->beat = sqlite3_column_int64(q, 4);
	r->ttl_ms = sqlite3_column_int64(q, 5);
	session_text(r->boot_id, sizeof(r->boot_id), q, 6);
	session_text(r->machine_id, sizeof(r->machine_id), q, 7);
	r->guard_ino = sqlite3_column_int64(q, 8);
	r->pid1 = sqlite3_column_int64(q, 9) == 1;
	r->pid = sqlite3_column_int64(q, 10);
	session_text(r->hostname, sizeof(r->hostname), q, 11);
	session_text(r->worker, sizeof(r->worker), q, 12);
	r->created_at_us = sqlite3_column_int64(q, 13);
	r->heartbeat_at_us = sqlite3_column_int64(q, 14);
}

static int read_row(struct session *s, struct store_view *v)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT l.term, l.epoch, l.state, l.holder, l.beat, l.ttl_ms, l.boot_id,"
		" l.machine_id, l.guard_ino, l.pid1, l.pid, l.hostname, l.worker, l.created_at,"
		" l.heartbeat_at, m.db_uuid FROM (SELECT 1 AS one)"
		" LEFT JOIN scheduler_lock l ON l.id = one LEFT JOIN lock_meta m ON m.id = one",
		-1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_step(q) == SQLITE_ROW) {
		take_row(q, &v->row);
		session_text(v->db_uuid, sizeof(v->db_uuid), q, 15);
	}
	return sqlite3_finalize(q);
}

static int read_executors(struct session *s, struct store_view *v)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT program, worker, term, pid, since FROM executor ORDER BY program", -1, &q,
		NULL);

	if (rc != SQLITE_OK)
		return rc;
	while (v->executor_count < STORE_EXECUTORS && sqlite3_step(q) == SQLITE_ROW) {
		struct store_executor *x = &v->executors[v->executor_count++];
		session_text(x->program, sizeof(x->program), q, 0);
		session_text(x->worker, sizeof(x->worker), q, 1);
		x->term = sqlite3_column_int64(q, 2);
		x->pid = sqlite3_column_int64(q, 3);
		x->since_us = sqlite3_column_int64(q, 4);
	}
	return sqlite3_finalize(q);
}

int session_read_view(struct session *s, struct store_view *v)
{
	int rc = SQLITE_OK;

	memset(v, 0, sizeof(*v));
	v->exists = s->kind != SCHEMA_EMPTY;
	v->overlay = s->place.overlay;
	v->device = s->place.device;
	v->inode = s->place.inode;
	if (s->kind == SCHEMA_PLAIN)
		return migrations_read_plain(s->db, &v->row);
	if (s->kind != SCHEMA_OURS)
		return rc;
	v->schema_version = s->version;
	rc = read_row(s, v);
	return rc == SQLITE_OK ? read_executors(s, v) : rc;
}

int session_history(struct session *s, int limit,
	bool (*each)(const struct store_executor *of, int64_t ended_us, const char *holder,
		const char *hostname, const char *reason, void *context),
	void *context)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT program, worker, term, pid, acquired_at, ended_at, holder, hostname, reason"
		" FROM lock_history ORDER BY term DESC LIMIT ?",
		-1, &q, NULL);

	if (rc != SQLITE_OK)
		return rc;
	sqlite3_bind_int(q, 1, limit);
	while (sqlite3_step(q) == SQLITE_ROW) {
		struct store_executor of = {0};
		char holder[STORE_ID_BYTES], hostname[STORE_NAME_BYTES], reason[64];
		session_text(of.program, sizeof(of.program), q, 0);
		session_text(of.worker, sizeof(of.worker), q, 1);
		of.term = sqlite3_column_int64(q, 2);
		of.pid = sqlite3_column_int64(q, 3);
		of.since_us = sqlite3_column_int64(q, 4);
		session_text(holder, sizeof(holder), q, 6);
		session_text(hostname, sizeof(hostname), q, 7);
		session_text(reason, sizeof(reason), q, 8);
		if (!each(&of, sqlite3_column_int64(q, 5), holder, hostname, reason, context))
			break;
	}
	/* Breaking off is no error, so only the code of a failed step is one. */
	return sqlite3_finalize(q);
}

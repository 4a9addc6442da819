/*
 * One operation on the SQLite store, from looking at the place to close (store_sqlite.c; what is
 * read: store_sql_read.c), for the statements of store_sql.c. Codes are SQLite's, 0 = fine; rc is
 * what the code calls them.
 *
 * A session that returned anything but STORE_DONE from session_begin, and every one after
 * session_finish, is closed.
 */
#ifndef BATON_WORKER_LOCK_STORE_SESSION_H
#define BATON_WORKER_LOCK_STORE_SESSION_H

#include "worker/lock/fs.h"
#include "worker/lock/migrations.h"
#include "worker/lock/store_jobs.h"

struct sqlite3_stmt;

/* Which file we hold the lock in; remembered from acquire (or, in a fresh keeper, from the first
 * inspect that shows our own row) until release. */
struct held {
	int64_t epoch;  /* 0 = we hold nothing */
	bool told_gone; /* that its folder is gone: a look says so once */
	uint64_t device, inode;
	char db_uuid[STORE_ID_BYTES];
	/* How far the claims have been trimmed. */
	int64_t trimmed_run;
	char trimmed_job[LEDGER_NAME_BYTES];
};

struct session {
	struct store *store;
	const char *verb; /* "renew the lock": for error texts */
	int64_t epoch;    /* that the caller claims to hold; 0 = none */
	bool may_create, write;
	struct sqlite3 *db;
	struct fs_place place;
	enum schema_kind kind;
	int version;
	int64_t end_ns; /* of the patience with SQLITE_BUSY */
	uint64_t jitter;
};

/* Wall clock in microseconds, for people; 0 for a clock that is nonsense. */
int64_t session_wall_us(void);
int64_t session_busy_limit_ms(const struct store *s);

/* Once per process, before any session: SQLite without threads, statistics and spare memory. */
int session_configure(struct err *e);

/* A writing transaction on an existing database of version 0 or 1. EPOCH 0: whoever it is. */
enum store_outcome session_begin(
	struct session *s, struct store *store, const char *verb, int64_t epoch, struct err *e);
/* A reading one; makes the database where the settings say so. STORE_DONE with kind SCHEMA_EMPTY
 * and no connection: there is none. */
enum store_outcome session_begin_reading(
	struct session *s, struct store *store, const char *verb, struct err *e);
/* One statement with its values: i = int64_t, t = text. Rows are ignored. RET_CHANGES may be
 * NULL. */
int session_run(struct session *s, int *ret_changes, const char *sql, const char *types, ...);
/* A statement that is stepped many times: reset, bind, one step. Values as above, and I = int64_t,
 * 0 is NULL; E = int64_t, -1 is NULL; T = text, "" is NULL; b = pointer and size_t, a blob, NULL
 * without bytes. SQLITE_ROW, SQLITE_DONE, or what failed. Values must live until the next step. */
int session_step(struct sqlite3_stmt *statement, const char *types, ...);
int session_read_view(struct session *s, struct store_view *ret_view);
int session_history(struct session *s, int limit,
	bool (*each)(const struct store_executor *of, int64_t ended_us, const char *holder,
		const char *hostname, const char *reason, void *context),
	void *context);
/* The end of an operation whose statements gave RC. MATCHED: compared and found equal, so COMMIT;
 * otherwise roll back and answer STORE_REFUSED with the present row. RET_VIEW may be NULL. */
enum store_outcome session_finish(
	struct session *s, int rc, bool matched, struct store_view *ret_view, struct err *e);

/* store_sql_upgrade.c: when the row is ours and the schema is older than this baton's, bring it up
 * to date, a version per transaction. EPOCH as for session_begin. */
enum store_outcome session_upgrade(struct store *store, int64_t epoch, struct err *e);

/* Text of COLUMN, "" for NULL. */
void session_text(char *out, size_t bytes, struct sqlite3_stmt *statement, int column);

extern const struct store_jobs_ops store_sqlite_jobs;
enum store_outcome sqlite_jobs_declare(struct store *store, const struct ledger_declared *jobs,
	size_t count, int64_t round_us, bool last, struct err *e);
enum store_outcome sqlite_jobs_pause(struct store *store, const char *job, bool paused,
	const char *by, bool *ret_changed, struct err *e);
enum store_outcome sqlite_jobs_request(struct store *store, const char *job, const char *by,
	struct ledger_request *ret_request, struct err *e);
enum store_outcome sqlite_jobs_answer(
	struct store *store, int64_t request, bool withdraw, const char *reason, struct err *e);
enum store_outcome sqlite_jobs_trim(struct store *store, int64_t keep_us, int64_t keep_count,
	char cursor[LEDGER_NAME_BYTES], bool *ret_more, struct err *e);
/* For a file without [job:] sections, where nobody else trims: some of the oldest claims, and some
 * names; goes round. What fails here is done next time. */
void sqlite_jobs_trim_claims(struct store *store);
enum store_outcome sqlite_jobs_read(struct store *store, const struct store_query *query,
	const struct store_reader *reader, struct store_view *ret_view, struct err *e);
enum store_outcome sqlite_jobs_unclaim(struct store *store, const char *job, int64_t fire_time_us,
	int attempt, int64_t owner, const char *reason, struct err *e);
/* Ends the session (with nothing written) when the database has no ledger. */
enum store_outcome sqlite_jobs_needs_ledger(struct session *s, struct err *e);

#endif

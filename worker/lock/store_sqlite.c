/*
 * The connection side of the SQLite store. Every operation is one session: look at the place, open,
 * one transaction, close. The statements are in store_sql.c. SQLITE_BUSY is retried here in steps
 * of a millisecond (SQLite's own handler backs off to 100 ms) up to settings.busy_limit_ms.
 */
#include "worker/lock/store_session.h"

#include <assert.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "worker/lock/floor.h"

enum { BUSY_LIMIT_MS = 2000, BUSY_STEP_NS = 1000000 };

#define BEGIN_READING "BEGIN"

static int64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* For people; a clock beyond 2^53 is nonsense and shown as none. */
int64_t session_wall_us(void)
{
	struct timespec t;
	int64_t us;

	clock_gettime(CLOCK_REALTIME, &t);
	if (t.tv_sec < 0 || t.tv_sec > FLOOR_TERM_MAX / 1000000)
		return 0;
	us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
	return us > FLOOR_TERM_MAX ? 0 : us;
}

int64_t session_busy_limit_ms(const struct store *s)
{
	return s->settings.busy_limit_ms > 0 ? s->settings.busy_limit_ms : BUSY_LIMIT_MS;
}

static bool is_busy(int rc)
{
	return (rc & 0xff) == SQLITE_BUSY;
}

/* Sleep a step and answer true while there is patience left. The jitter keeps contenders from
 * meeting again and again. */
static bool wait_busy(struct session *s)
{
	struct timespec step = {0};

	if (monotonic_ns() >= s->end_ns)
		return false;
	s->jitter = s->jitter * 6364136223846793005u + 1442695040888963407u;
	step.tv_nsec = BUSY_STEP_NS + (long)((s->jitter >> 33) % BUSY_STEP_NS);
	nanosleep(&step, NULL);
	return true;
}

static int exec_retry(struct session *s, const char *sql)
{
	int rc;

	do
		rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	while (is_busy(rc) && wait_busy(s));
	return rc;
}

static void close_session(struct session *s)
{
	int rc = sqlite3_close(s->db);

	assert(rc == SQLITE_OK); /* otherwise a statement was left open */
	s->db = NULL;
}

static struct held *held_by(struct session *s)
{
	struct held *h = s->store->private;

	return s->epoch != 0 && h->epoch == s->epoch ? h : NULL;
}

static enum store_outcome moved(struct session *s, const char *how, struct err *e)
{
	if (s->db)
		close_session(s); /* rolls back */
	err_set(e, ERR_REFUSED,
		"cannot %s in '%s': the file was %s since the lock was taken: the lock is lost; "
		"looking at what is there now",
		s->verb, s->place.path, how);
	return STORE_MOVED;
}

static enum store_outcome explain_busy(struct session *s, struct err *e)
{
	pid_t owner = fs_lock_owner(s->place.path);
	char who[64] = "another process";

	if (owner)
		snprintf(who, sizeof(who), "process %d", (int)owner);
	err_set(e, ERR_BUSY,
		"cannot %s in '%s': %s has had it locked for %lld ms; end what that process does "
		"with "
		"the file; retrying",
		s->verb, s->place.path, who, (long long)session_busy_limit_ms(s->store));
	return STORE_UNAVAILABLE;
}

/* The words for people on top of an SQLite code. */
static enum store_outcome explain(
	struct session *s, int rc, int error, const char *message, struct err *e)
{
	const char *path = s->place.path;

	if (error == ENOSPC || error == EDQUOT || error == EFBIG || rc == SQLITE_FULL) {
		err_set(e, ERR_UNAVAILABLE,
			"cannot %s in '%s': no space left (%s); free some space; "
			"retrying",
			s->verb, path, error ? strerror(error) : message);
		return STORE_UNAVAILABLE;
	}
	if (rc == SQLITE_READONLY_DBMOVED) {
		err_set(e, ERR_UNAVAILABLE,
			"cannot %s in '%s': the file was replaced just now; looking "
			"again",
			s->verb, path);
		return STORE_UNAVAILABLE;
	}
	switch (rc & 0xff) {
	case SQLITE_BUSY:
		return explain_busy(s, e);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return migrations_refuse(SCHEMA_DAMAGED, 0, path, e);
	case SQLITE_ERROR:
		err_set(e, ERR_WRONG,
			"cannot %s in '%s': the tables are not those of this baton (%s); move the "
			"file "
			"away or name another one in [scheduler] database",
			s->verb, path, message);
		return STORE_WRONG;
	case SQLITE_CONSTRAINT:
		err_set(e, ERR_REFUSED, "cannot %s in '%s': %s", s->verb, path, message);
		return STORE_REFUSED;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_CANTOPEN:
		err_set(e, ERR_UNAVAILABLE,
			"cannot %s in '%s': %s%s%s; give this user the right to write the file and "
			"its "
			"folder, on a volume that is mounted read-write; retrying",
			s->verb, path, message, error ? ": " : "", error ? strerror(error) : "");
		return STORE_UNAVAILABLE;
	default:
		err_set(e, ERR_UNAVAILABLE,
			"cannot %s in '%s': %s%s%s (SQLite code %d); check the disk and the "
			"kernel's log; "
			"retrying",
			s->verb, path, message, error ? ": " : "", error ? strerror(error) : "",
			rc);
		return STORE_UNAVAILABLE;
	}
}

/* An operation that failed before its COMMIT: not done, if the rollback is proven. */
static enum store_outcome give_up(struct session *s, int rc, struct err *e)
{
	char message[256];
	int error = s->db && !is_busy(rc) ? sqlite3_system_errno(s->db) : 0;
	bool rolled_back = true;
	enum store_outcome outcome;

	snprintf(message, sizeof(message), "%s", sqlite3_errmsg(s->db));
	if (s->db && !sqlite3_get_autocommit(s->db))
		rolled_back = sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK;
	if (rc == SQLITE_READONLY_DBMOVED && held_by(s))
		return moved(s, "deleted or replaced", e);
	close_session(s);
	outcome = explain(s, rc, error, message, e);
	return s->write && !rolled_back && outcome == STORE_UNAVAILABLE ? STORE_UNKNOWN : outcome;
}

/* COMMIT failed. Busy has written nothing, if the rollback says so too; of anything else nobody
 * knows what is on the disk. */
static enum store_outcome give_up_commit(struct session *s, int rc, struct err *e)
{
	enum store_outcome outcome;
	bool busy = is_busy(rc) && !sqlite3_get_autocommit(s->db);
	char before[ERR_TEXT_BYTES];

	outcome = give_up(s, rc, e);
	if (busy || outcome == STORE_MOVED || !s->write)
		return outcome;
	if (e) {
		snprintf(before, sizeof(before), "%s", e->text);
		err_set(e, ERR_UNAVAILABLE,
			"%s (it is not known whether it happened: looking again)", before);
	}
	return STORE_UNKNOWN;
}

static bool file_has_moved(struct session *s)
{
	int has = 0;

	return sqlite3_file_control(s->db, "main", SQLITE_FCNTL_HAS_MOVED, &has) == SQLITE_OK &&
	       has != 0;
}

static bool is_gone(const char *database)
{
	return access(database, F_OK) < 0 && errno == ENOENT;
}

/* For what we hold this is a loss, however often it is asked; a look is told once, from then on it
 * is a folder that is missing. */
static enum store_outcome gone_with_folder(struct session *s, struct err *e)
{
	struct held *held = s->store->private;

	held->told_gone = true;
	snprintf(s->place.path, sizeof(s->place.path), "%s", s->store->settings.database);
	return moved(s, "deleted with its folder", e);
}

static enum store_outcome check_place(struct session *s, struct err *e)
{
	const char *database = s->store->settings.database;
	struct held *held = held_by(s);
	int code = fs_check(database, s->store->settings.unsafe_filesystem, &s->place, e);

	if (code == ERR_UNAVAILABLE && held && is_gone(database))
		return gone_with_folder(s, e);
	if (code < 0)
		return code == ERR_WRONG ? STORE_WRONG : STORE_UNAVAILABLE;
	if (held && !s->place.exists)
		return moved(s, "deleted", e);
	if (held && (s->place.device != held->device || s->place.inode != held->inode))
		return moved(s, "replaced", e);
	if (s->place.exists || s->may_create)
		return STORE_DONE;
	err_set(e, ERR_UNAVAILABLE,
		"cannot %s: there is no lock database '%s'; it is made by the "
		"first baton that runs",
		s->verb, s->place.path);
	return STORE_UNAVAILABLE;
}

/* Nothing is written by opening, not even a journal rolled back, before the header was seen. */
static enum store_outcome open_database(struct session *s, struct err *e)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
		    (s->may_create ? SQLITE_OPEN_CREATE : 0);
	enum schema_kind kind = SCHEMA_OURS;
	int rc = sqlite3_open_v2(s->place.path, &s->db, flags, NULL);

	if (rc == SQLITE_OK)
		rc = migrations_glance(s->db, &kind);
	if (rc != SQLITE_OK)
		return give_up(s, rc, e);
	if (kind != SCHEMA_OURS) {
		close_session(s);
		return migrations_refuse(kind, 0, s->place.path, e);
	}
	/* SQLite falls back to read-only by itself. For looking that will do. */
	if (sqlite3_db_readonly(s->db, "main") == 1 && (s->write || s->may_create)) {
		close_session(s);
		return explain(s, SQLITE_READONLY, 0, "it can only be read", e);
	}
	rc = exec_retry(s,
		s->write || s->may_create
			? "PRAGMA cache_size=16; PRAGMA cache_spill=OFF; PRAGMA synchronous=EXTRA;"
			  "PRAGMA journal_mode=TRUNCATE"
			: "PRAGMA cache_size=16; PRAGMA synchronous=EXTRA");
	return rc == SQLITE_OK ? STORE_DONE : give_up(s, rc, e);
}

/* Under the lock: the schema, and whether it is still the file that was opened. */
static enum store_outcome begin(struct session *s, const char *sql, struct err *e)
{
	int rc = exec_retry(s, sql);

	/* A plain BEGIN takes no lock: the first look does, and rolls back a hot journal. */
	if (rc == SQLITE_OK && strcmp(sql, BEGIN_READING) == 0)
		rc = exec_retry(s, "SELECT count(*) FROM sqlite_schema");
	if (rc == SQLITE_OK)
		rc = migrations_identify(s->db, &s->kind, &s->version);
	if (rc != SQLITE_OK)
		return give_up(s, rc, e);
	if (s->write && file_has_moved(s)) {
		if (held_by(s))
			return moved(s, "deleted or replaced", e);
		return give_up(s, SQLITE_READONLY_DBMOVED, e);
	}
	if (s->kind == SCHEMA_OURS || s->kind == SCHEMA_PLAIN || s->kind == SCHEMA_EMPTY)
		return STORE_DONE;
	close_session(s);
	return migrations_refuse(s->kind, s->version, s->place.path, e);
}

static void start(struct session *s, struct store *store, const char *verb, int64_t epoch)
{
	memset(s, 0, sizeof(*s));
	s->store = store;
	s->verb = verb;
	s->epoch = epoch;
	s->end_ns = monotonic_ns() + session_busy_limit_ms(store) * 1000000;
	s->jitter = (uint64_t)getpid() ^ (uint64_t)s->end_ns;
}

enum store_outcome session_begin(
	struct session *s, struct store *store, const char *verb, int64_t epoch, struct err *e)
{
	enum store_outcome outcome;

	start(s, store, verb, epoch);
	s->write = true;
	outcome = check_place(s, e);
	if (outcome == STORE_DONE)
		outcome = open_database(s, e);
	if (outcome == STORE_DONE)
		outcome = begin(s, "BEGIN IMMEDIATE", e);
	if (outcome != STORE_DONE)
		return outcome;
	if (held_by(s) && s->kind != SCHEMA_OURS)
		return moved(s, "emptied or overwritten", e);
	return STORE_DONE;
}

/* Many may start at once: who comes second finds the tables made. */
static enum store_outcome make_database(struct session *s, struct err *e)
{
	enum store_outcome outcome;
	int rc = sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		return give_up(s, rc, e);
	outcome = begin(s, "BEGIN EXCLUSIVE", e);
	if (outcome != STORE_DONE || s->kind != SCHEMA_EMPTY)
		return outcome;
	rc = migrations_create(s->db, session_wall_us());
	if (rc != SQLITE_OK)
		return give_up(s, rc, e);
	s->write = true;
	rc = exec_retry(s, "COMMIT");
	if (rc != SQLITE_OK)
		return give_up_commit(s, rc, e);
	s->write = false;
	return begin(s, BEGIN_READING, e);
}

enum store_outcome session_begin_reading(
	struct session *s, struct store *store, const char *verb, struct err *e)
{
	struct held *held = store->private;
	enum store_outcome outcome;
	int code;

	start(s, store, verb, 0);
	s->may_create = store->settings.create;
	code = fs_check(store->settings.database, store->settings.unsafe_filesystem, &s->place, e);
	if (code == ERR_UNAVAILABLE && held->epoch != 0 && !held->told_gone &&
		is_gone(store->settings.database))
		return gone_with_folder(s, e);
	if (code < 0)
		return code == ERR_WRONG ? STORE_WRONG : STORE_UNAVAILABLE;
	if (!s->place.exists && !s->may_create)
		return STORE_DONE;
	outcome = open_database(s, e);
	if (outcome == STORE_DONE)
		outcome = begin(s, BEGIN_READING, e);
	if (outcome == STORE_DONE && s->kind == SCHEMA_EMPTY && s->may_create)
		outcome = make_database(s, e);
	if (outcome != STORE_DONE || s->place.exists)
		return outcome;
	/* Made by us or another a moment ago: its inode number is part of the answer. */
	code = fs_locate(store->settings.database, &s->place, e);
	if (code == 0 && s->place.exists)
		return STORE_DONE;
	return give_up(s, SQLITE_READONLY_DBMOVED, e);
}

static enum store_outcome refuse(struct session *s, const struct store_view *v, struct err *e)
{
	close_session(s); /* rolls back */
	err_set(e, ERR_REFUSED,
		"cannot %s in '%s': the row is not as expected: %s '%s', term %lld, epoch %lld, "
		"beat "
		"%lld; looking at it anew",
		s->verb, s->place.path, v->row.held ? "held by" : "free", v->row.holder,
		(long long)v->row.term, (long long)v->row.epoch, (long long)v->row.beat);
	return STORE_REFUSED;
}

enum store_outcome session_finish(
	struct session *s, int rc, bool matched, struct store_view *ret_view, struct err *e)
{
	struct held *held = held_by(s);
	struct store_view view;

	if (rc == SQLITE_OK)
		rc = session_read_view(s, &view);
	if (rc != SQLITE_OK)
		return give_up(s, rc, e);
	if (held && strcmp(held->db_uuid, view.db_uuid) != 0)
		return moved(s, "overwritten with another database", e);
	if (!matched) {
		if (ret_view)
			*ret_view = view;
		return refuse(s, &view, e);
	}
	rc = exec_retry(s, "COMMIT");
	if (rc != SQLITE_OK)
		return give_up_commit(s, rc, e);
	if (s->write && file_has_moved(s))
		return moved(s, "deleted or replaced", e);
	close_session(s);
	if (ret_view)
		*ret_view = view;
	return STORE_DONE;
}

int session_configure(struct err *e)
{
	static bool done;
	int rc;

	if (done)
		return 0;
	/* These fail when SQLite is in use already: then its user has chosen, and that works too.
	 */
	sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
	sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
	sqlite3_config(SQLITE_CONFIG_SMALL_MALLOC, 1);
	rc = sqlite3_initialize();
	if (rc != SQLITE_OK)
		return err_set(e, ERR_SYSTEM, "cannot start SQLite: %s", sqlite3_errstr(rc));
	done = true;
	return 0;
}

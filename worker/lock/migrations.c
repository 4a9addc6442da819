#include "worker/lock/migrations.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "worker/lock/fs.h"

enum { APPLICATION_ID = 0x4241544e }; /* "BATN" */

/* Version 1. Side by side with election.md section 1. The triggers stand between the rows and
 * people: baton's own statements compare before they write. */
static const char schema_1[] =
	"CREATE TABLE lock_meta(id INTEGER PRIMARY KEY CHECK(id=1), db_uuid TEXT NOT NULL,"
	" created_at INTEGER NOT NULL) STRICT;"
	"CREATE TABLE scheduler_lock(id INTEGER PRIMARY KEY CHECK(id=1),"
	" term INTEGER NOT NULL,"
	" epoch INTEGER NOT NULL,"
	" state INTEGER NOT NULL CHECK(state IN (0,1)),"
	" holder TEXT NOT NULL DEFAULT '', beat INTEGER NOT NULL DEFAULT 0,"
	" ttl_ms INTEGER NOT NULL,"
	" boot_id TEXT, machine_id TEXT, guard_ino INTEGER, pid1 INTEGER,"
	" pid INTEGER, hostname TEXT, worker TEXT, created_at INTEGER, heartbeat_at INTEGER) "
	"STRICT;"
	"CREATE TABLE executor(program TEXT PRIMARY KEY, term INTEGER NOT NULL, worker TEXT,"
	" pid INTEGER, since INTEGER) STRICT;"
	"CREATE TABLE lock_history(term INTEGER PRIMARY KEY, program TEXT, holder TEXT,"
	" hostname TEXT, pid INTEGER, worker TEXT, acquired_at INTEGER, ended_at INTEGER,"
	" reason TEXT) STRICT;"
	"CREATE TABLE job_run(job TEXT, fire_time INTEGER, attempt INTEGER, term INTEGER NOT NULL,"
	" started_at INTEGER, ended_at INTEGER, status TEXT, exit_code INTEGER, signal INTEGER,"
	" output BLOB, PRIMARY KEY(job, fire_time, attempt)) STRICT;"
	"CREATE TRIGGER scheduler_lock_update BEFORE UPDATE ON scheduler_lock BEGIN"
	" SELECT RAISE(ABORT, 'the term of the lock never falls') WHERE NEW.term < OLD.term;"
	" SELECT RAISE(ABORT, 'another holder needs a greater term')"
	"  WHERE NEW.holder <> OLD.holder AND NEW.holder <> '' AND NEW.term <= OLD.term; END;"
	"CREATE TRIGGER scheduler_lock_delete BEFORE DELETE ON scheduler_lock BEGIN"
	" SELECT RAISE(ABORT, 'the row of the lock is never deleted'); END;"
	"CREATE TRIGGER scheduler_lock_insert BEFORE INSERT ON scheduler_lock"
	" WHEN EXISTS(SELECT 1 FROM scheduler_lock) BEGIN"
	" SELECT RAISE(ABORT, 'the row of the lock is never replaced'); END;"
	"PRAGMA application_id=1111577678;"
	"PRAGMA user_version=1;";

/* Version 2: the ledger of job runs. Additive: the lock's own tables and statements are those of
 * version 1. What version 1 has in job_run are claims of applications: their rows get a number. */
static const char schema_2[] =
	"ALTER TABLE job_run ADD COLUMN run INTEGER;"
	"ALTER TABLE job_run ADD COLUMN program TEXT;"
	"ALTER TABLE job_run ADD COLUMN cause TEXT;"
	"ALTER TABLE job_run ADD COLUMN owner INTEGER;"
	"ALTER TABLE job_run ADD COLUMN request INTEGER;"
	"ALTER TABLE job_run ADD COLUMN claimed_at INTEGER;"
	"ALTER TABLE job_run ADD COLUMN pid INTEGER;"
	"ALTER TABLE job_run ADD COLUMN instance TEXT;"
	"ALTER TABLE job_run ADD COLUMN hostname TEXT;"
	"ALTER TABLE job_run ADD COLUMN worker TEXT;"
	"ALTER TABLE job_run ADD COLUMN output_bytes INTEGER;"
	"ALTER TABLE job_run ADD COLUMN reason TEXT;"
	"UPDATE job_run SET run = rowid, claimed_at = started_at, cause = 'application';"
	"CREATE INDEX job_run_number ON job_run(run);"
	"CREATE INDEX job_run_open ON job_run(run) WHERE status IN ('queued', 'running');"
	"CREATE TABLE job_meta(id INTEGER PRIMARY KEY CHECK(id=1), next_run INTEGER NOT NULL) "
	"STRICT;"
	"INSERT INTO job_meta SELECT 1, coalesce(max(run), 0) + 1 FROM job_run;"
	"CREATE TABLE job_state(job TEXT PRIMARY KEY, schedule TEXT, timezone TEXT,"
	" known_since INTEGER, last_fire INTEGER, instance TEXT, hostname TEXT,"
	" declared_at INTEGER) STRICT;"
	"CREATE TABLE job_pause(job TEXT PRIMARY KEY, paused_at INTEGER, paused_by TEXT) STRICT;"
	"CREATE TABLE job_request(id INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL,"
	" requested_at INTEGER NOT NULL, requested_by TEXT, state TEXT NOT NULL, run INTEGER,"
	" reason TEXT) STRICT;"
	"CREATE INDEX job_request_pending ON job_request(id) WHERE state = 'pending';"
	"PRAGMA user_version=2;";
_Static_assert(APPLICATION_ID == 1111577678 && STORE_SCHEMA_VERSION == 2, "as in the text above");

/* The first 100 bytes of an SQLite database (its file format, section 1.3), read through SQLite's
 * own descriptor: another one's close() would drop the locks. */
struct header {
	bool empty, sqlite, wal;
	uint32_t user_version, application_id;
};

static uint32_t big_endian(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int read_header(sqlite3 *db, struct header *ret_header)
{
	unsigned char bytes[100] = {0};
	sqlite3_file *file = NULL;
	sqlite3_int64 size = 0;
	int rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);

	memset(ret_header, 0, sizeof(*ret_header));
	if (rc == SQLITE_OK)
		rc = file->pMethods->xFileSize(file, &size);
	if (rc == SQLITE_OK && size > 0)
		rc = file->pMethods->xRead(file, bytes, sizeof(bytes), 0);
	if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ)
		return rc;
	ret_header->empty = size == 0;
	ret_header->sqlite = memcmp(bytes, "SQLite format 3", 16) == 0;
	ret_header->wal = bytes[18] == 2 || bytes[19] == 2;
	ret_header->user_version = big_endian(bytes + 60);
	ret_header->application_id = big_endian(bytes + 68);
	return SQLITE_OK;
}

int migrations_glance(sqlite3 *db, enum schema_kind *ret_kind)
{
	struct header h;
	int rc = read_header(db, &h);

	if (rc != SQLITE_OK)
		return rc;
	*ret_kind = h.empty     ? SCHEMA_OURS
		    : !h.sqlite ? SCHEMA_DAMAGED
		    : h.wal     ? SCHEMA_WAL
				: SCHEMA_OURS;
	return SQLITE_OK;
}

static int read_number(sqlite3 *db, const char *sql, int64_t *ret_number)
{
	sqlite3_stmt *statement;
	int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_step(statement) == SQLITE_ROW)
		*ret_number = sqlite3_column_int64(statement, 0);
	return sqlite3_finalize(statement);
}

/* Without our application id: no table, the plain lock table alone, or somebody's data. */
static int identify_unmarked(sqlite3 *db, enum schema_kind *ret_kind)
{
	int64_t tables = 0, columns = 0;
	int rc = read_number(db,
		"SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
		&tables);

	if (rc != SQLITE_OK)
		return rc;
	if (tables == 0) {
		*ret_kind = SCHEMA_EMPTY;
		return SQLITE_OK;
	}
	rc = read_number(db,
		"SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND"
		" name <> 'scheduler_lock' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
		&tables);
	if (rc == SQLITE_OK)
		rc = read_number(db,
			"SELECT count(*) FROM pragma_table_info('scheduler_lock') WHERE name IN"
			" ('id', 'pid', 'hostname', 'created_at', 'heartbeat_at')",
			&columns);
	*ret_kind = tables == 0 && columns == 5 ? SCHEMA_PLAIN : SCHEMA_FOREIGN;
	return rc;
}

int migrations_identify(sqlite3 *db, enum schema_kind *ret_kind, int *ret_version)
{
	struct header h;
	int rc = read_header(db, &h);

	if (rc != SQLITE_OK)
		return rc;
	*ret_version = (int)h.user_version;
	if (!h.empty && !h.sqlite)
		*ret_kind = SCHEMA_DAMAGED;
	else if (h.wal)
		*ret_kind = SCHEMA_WAL;
	else if (h.application_id == APPLICATION_ID && h.user_version > STORE_SCHEMA_VERSION)
		*ret_kind = SCHEMA_NEWER;
	else if (h.application_id == APPLICATION_ID && h.user_version > 0)
		*ret_kind = SCHEMA_OURS;
	else if (h.application_id != 0 || h.user_version != 0)
		*ret_kind = SCHEMA_FOREIGN;
	else
		rc = identify_unmarked(db, ret_kind);
	return rc;
}

enum store_outcome migrations_refuse(
	enum schema_kind kind, int version, const char *path, struct err *e)
{
	switch (kind) {
	case SCHEMA_NEWER:
		err_set(e, ERR_WRONG,
			"the lock database '%s' has schema version %d of a newer baton (this one "
			"knows "
			"%d): it is not written; upgrade this baton",
			path, version, STORE_SCHEMA_VERSION);
		break;
	case SCHEMA_WAL:
		err_set(e, ERR_WRONG,
			"the lock database '%s' is in WAL mode, in which a replaced file goes "
			"unnoticed; "
			"while nobody uses it, run: sqlite3 '%s' 'PRAGMA journal_mode=TRUNCATE'",
			path, path);
		break;
	case SCHEMA_DAMAGED:
		err_set(e, ERR_WRONG,
			"'%s' is not a SQLite database, or damaged; stop every instance, then move "
			"it "
			"away (the floor file keeps the terms) or name another file in [scheduler] "
			"database",
			path);
		break;
	default:
		err_set(e, ERR_WRONG,
			"'%s' is another application's database: it is not written; give the lock "
			"a "
			"file of its own, for example '%s.baton', in [scheduler] database",
			path, path);
		break;
	}
	return STORE_WRONG;
}

/* A random UUID, version 4. */
static void make_uuid(char out[STORE_ID_BYTES])
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
		sqlite3_randomness(sizeof(b), b);
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	snprintf(out, STORE_ID_BYTES,
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		b[15]);
}

int migrations_fill(sqlite3 *db, int64_t wall_us)
{
	char uuid[STORE_ID_BYTES], sql[512];

	make_uuid(uuid);
	snprintf(sql, sizeof(sql),
		"INSERT INTO lock_meta(id, db_uuid, created_at) SELECT 1, '%s', %lld"
		" WHERE NOT EXISTS(SELECT 1 FROM lock_meta);"
		"INSERT INTO scheduler_lock(id, term, epoch, state, ttl_ms) SELECT 1, 0, 0, 0, 0"
		" WHERE NOT EXISTS(SELECT 1 FROM scheduler_lock);",
		uuid, (long long)wall_us);
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

int migrations_create(sqlite3 *db, int64_t wall_us)
{
	int rc = sqlite3_exec(db, schema_1, NULL, NULL, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, schema_2, NULL, NULL, NULL);
	return rc == SQLITE_OK ? migrations_fill(db, wall_us) : rc;
}

int migrations_step(sqlite3 *db, int version)
{
	return version == 1 ? sqlite3_exec(db, schema_2, NULL, NULL, NULL) : SQLITE_OK;
}

int migrations_from_plain(sqlite3 *db, int64_t wall_us)
{
	int rc = sqlite3_exec(
		db, "ALTER TABLE scheduler_lock RENAME TO scheduler_lock_plain", NULL, NULL, NULL);

	return rc == SQLITE_OK ? migrations_create(db, wall_us) : rc;
}

static void copy_text(char *out, size_t bytes, sqlite3_stmt *statement, int column)
{
	const unsigned char *text = sqlite3_column_text(statement, column);

	snprintf(out, bytes, "%s", text ? (const char *)text : "");
}

int migrations_read_plain(sqlite3 *db, struct store_row *ret_row)
{
	sqlite3_stmt *statement;
	int rc = sqlite3_prepare_v2(db,
		"SELECT pid, hostname, heartbeat_at FROM scheduler_lock"
		" ORDER BY id = 1 DESC, heartbeat_at DESC LIMIT 1",
		-1, &statement, NULL);

	memset(ret_row, 0, sizeof(*ret_row));
	if (rc != SQLITE_OK)
		return rc;
	if (sqlite3_step(statement) == SQLITE_ROW) {
		char heartbeat[STORE_NAME_BYTES], pid[32];
		copy_text(heartbeat, sizeof(heartbeat), statement, 2);
		copy_text(pid, sizeof(pid), statement, 0);
		copy_text(ret_row->hostname, sizeof(ret_row->hostname), statement, 1);
		ret_row->held = true;
		ret_row->pid = sqlite3_column_int64(statement, 0);
		/* Whatever form people gave it (text, seconds, a real number): another value is
		 * another beat. */
		ret_row->beat = (int64_t)(fs_checksum(heartbeat, strlen(heartbeat)) >> 1);
		snprintf(ret_row->holder, sizeof(ret_row->holder), "%.10s@%.28s", pid,
			ret_row->hostname);
	}
	return sqlite3_finalize(statement);
}

/* What can be wrong with the file, the folder, the disk and the neighbours of the lock database:
 * each has its outcome, its words and a way out, and nothing is harmed by looking. */
#include "tests/unit/lock_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#include "worker/lock/floor.h"
#include "worker/lock/fs.h"

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_stores(f, false);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fs_statfs = statfs;
	fixture_end(*state);
	free(*state);
	return 0;
}

/* SQL by another program's hand, on its own connection. */
static int by_hand(const char *path, const char *sql)
{
	sqlite3 *db;
	int rc = sqlite3_open(path, &db);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	sqlite3_close(db);
	return rc;
}

static uint64_t digest(const char *path)
{
	static unsigned char bytes[1 << 20];
	int fd = open(path, O_RDONLY);
	ssize_t got = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));

	if (fd >= 0)
		close(fd);
	return got < 0 ? 0 : fs_checksum(bytes, (size_t)got);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int entries(const char *folder)
{
	DIR *d = opendir(folder);
	int count = -2;

	while (readdir(d))
		count++;
	closedir(d);
	return count;
}

/* Every operation refuses the database for good, says WORDS, and leaves the file as it is. */
static void assert_wrong(struct fixture *f, const char *words)
{
	struct store_expect x = {0};
	uint64_t before = digest(f->database);

	assert_outcome(f, INSPECT(f, f->a), STORE_WRONG);
	assert_says(f, words);
	assert_says(f, f->database);
	assert_outcome(f, ACQUIRE(f, f->a, &x, 1000), STORE_WRONG);
	assert_says(f, words);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_WRONG);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_WRONG);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_WRONG);
	assert_true(digest(f->database) == before);
	assert_int_not_equal(access(beside(f, "-wal"), F_OK), 0);
}

static void not_a_database(void **state)
{
	struct fixture *f = *state;

	write_file(f->database, "This is a letter to somebody, and no database at all. It is long "
				"enough for a header of a hundred bytes and somewhat more.\n");
	assert_wrong(f, "not a SQLite database");
	write_file(f->database, "short");
	assert_wrong(f, "not a SQLite database");
}

static void corrupted_and_truncated(void **state)
{
	struct fixture *f = *state;
	char garbage[4096];
	int fd;

	take(f, &f->a, 1000);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_DONE);
	memset(garbage, 0xa5, sizeof(garbage));
	fd = open(f->database, O_RDWR);
	/* The first page's cells: the schema; the header stays. */
	assert_int_equal(pwrite(fd, garbage, 3900, 150), 3900);
	close(fd);
	assert_wrong(f, "damaged");
	assert_int_equal(truncate(f->database, 2000), 0);
	assert_wrong(f, "damaged");
}

static void truncated_between_pages(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(truncate(f->database, 4096), 0);
	assert_wrong(f, "damaged");
}

static void wal_is_refused_with_the_remedy(void **state)
{
	struct fixture *f = *state;

	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(by_hand(f->database, "PRAGMA journal_mode=WAL"), SQLITE_OK);
	assert_wrong(f, "PRAGMA journal_mode=TRUNCATE");
	assert_int_equal(by_hand(f->database, "PRAGMA journal_mode=TRUNCATE"), SQLITE_OK);
	take(f, &f->a, 1000);
}

static void newer_schema_is_never_written(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(by_hand(f->database, "PRAGMA user_version=3"), SQLITE_OK);
	assert_wrong(f, "newer baton");
}

#define PLAIN_TABLE "CREATE TABLE scheduler_lock(id, pid, hostname, created_at, heartbeat_at)"

static void anothers_database(void **state)
{
	struct fixture *f = *state;
	static const char *const others[] = {
		"CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT)",
		"CREATE TABLE scheduler_lock(id, owner)",
		"CREATE TABLE t(x); " PLAIN_TABLE,
		"PRAGMA application_id=77; " PLAIN_TABLE,
		"PRAGMA user_version=12; CREATE TABLE t(x)",
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		unlink(f->database);
		assert_int_equal(by_hand(f->database, others[i]), SQLITE_OK);
		assert_wrong(f, "another application's database");
	}
}

static void changed_tables(void **state)
{
	struct fixture *f = *state;

	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(by_hand(f->database, "ALTER TABLE executor RENAME TO gone"), SQLITE_OK);
	assert_outcome(f, INSPECT(f, f->a), STORE_WRONG);
	assert_says(f, "the tables are not those of this baton");
}

static void the_plain_table_is_migrated_by_acquire(void **state)
{
	struct fixture *f = *state;
	struct store_expect x, early;
	uint64_t before;

	assert_int_equal(
		by_hand(f->database,
			"CREATE TABLE scheduler_lock(id INTEGER PRIMARY KEY, pid INTEGER,"
			" hostname TEXT, created_at TEXT, heartbeat_at TEXT);"
			"INSERT INTO scheduler_lock VALUES(1, 321, 'old', 'x', '10:00:00')"),
		SQLITE_OK);
	before = digest(f->database);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_true(digest(f->database) == before);
	assert_int_equal(f->view.schema_version, 0);
	assert_int_equal(f->view.row.term, 0);
	assert_true(f->view.row.held);
	assert_int_equal(f->view.row.pid, 321);
	assert_string_equal(f->view.row.hostname, "old");
	assert_string_equal(f->view.row.holder, "321@old");
	early = as_seen(&f->view);
	assert_int_equal(by_hand(f->database, "UPDATE scheduler_lock SET heartbeat_at='10:00:10'"),
		SQLITE_OK);
	assert_outcome(f, ACQUIRE(f, f->a, &early, 1000), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_REFUSED);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_true(f->view.row.beat != early.beat);
	assert_int_equal(f->view.schema_version, 0);
	x = as_seen(&f->view);
	assert_outcome(f, ACQUIRE(f, f->a, &x, 1000), STORE_DONE);
	assert_int_equal(f->view.schema_version, STORE_SCHEMA_VERSION);
	assert_int_equal(f->view.row.term, 1000);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
	/* The old program's statements touch nothing any more. */
	assert_int_equal(by_hand(f->database, "INSERT INTO scheduler_lock_plain"
					      " SELECT 2, pid, hostname, 'x', 'y' FROM"
					      " scheduler_lock_plain"),
		SQLITE_OK);
	assert_int_equal(by_hand(f->database, "INSERT OR REPLACE INTO scheduler_lock(id, pid,"
					      " hostname, created_at, heartbeat_at)"
					      " VALUES(1, 5, 'old', 1, 1)"),
		SQLITE_CONSTRAINT);
}

static void an_empty_plain_table_is_free(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(by_hand(f->database,
				 "CREATE TABLE scheduler_lock(id INTEGER PRIMARY KEY, pid INTEGER,"
				 " hostname TEXT, created_at REAL, heartbeat_at REAL)"),
		SQLITE_OK);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_false(f->view.row.held);
	take(f, &f->a, 1000);
}

static void triggers_refuse_peoples_hands(void **state)
{
	struct fixture *f = *state;
	static const char *const forbidden[] = {
		"UPDATE scheduler_lock SET term = term - 1",
		"UPDATE scheduler_lock SET holder = 'thief'",
		"DELETE FROM scheduler_lock",
		"REPLACE INTO scheduler_lock(id, term, epoch, state, ttl_ms) VALUES(1, 1, 1, 0, 1)",
		"UPDATE scheduler_lock SET state = 2",
		"UPDATE scheduler_lock SET id = 2",
	};

	take(f, &f->a, 1000);
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(*forbidden); i++)
		assert_int_equal(by_hand(f->database, forbidden[i]), SQLITE_CONSTRAINT);
	assert_int_equal(by_hand(f->database, "UPDATE scheduler_lock SET holder = 'heir', term ="
					      " term + 1, epoch = term + 1"),
		SQLITE_OK);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_REFUSED);
}

/* A row that was removed in spite of the triggers: the floor knows better. */
static void an_emptied_table_contradicts_the_floor(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(by_hand(f->database, "DROP TRIGGER scheduler_lock_delete;"
					      " DELETE FROM scheduler_lock"),
		SQLITE_OK);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.row.term, 0);
	assert_int_equal(f->view.floor, FLOOR_HIGHER);
	assert_int_equal(f->view.floor_term, 1000);
	take(f, &f->a, 1001);
	assert_int_equal(f->view.floor, FLOOR_OK);
}

static void looking_creates_nothing(void **state)
{
	struct fixture *f = *state;
	struct store_expect x = {0};

	f->a.settings.create = false;
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_false(f->view.exists);
	f->a.settings.create = true;
	assert_outcome(f, ACQUIRE(f, f->a, &x, 1000), STORE_UNAVAILABLE);
	assert_says(f, "there is no lock database");
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_UNAVAILABLE);
	assert_outcome(f, PROMOTE(f, f->a, 1, 1, 2, "web", "web:0"), STORE_UNAVAILABLE);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_UNAVAILABLE);
	assert_int_equal(entries(f->folder), 0);
	/* An empty file is no database yet either. */
	write_file(f->database, "");
	f->a.settings.create = false;
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_false(f->view.exists);
	assert_int_equal(entries(f->folder), 1);
	f->a.settings.create = true;
	take(f, &f->a, 1000);
}

static void missing_folder(void **state)
{
	struct fixture *f = *state;

	snprintf(f->a.settings.database, sizeof(f->a.settings.database), "%s/none/lock.db",
		f->folder);
	assert_outcome(f, INSPECT(f, f->a), STORE_UNAVAILABLE);
	assert_says(f, "/none'");
	assert_says(f, "create it");
	snprintf(f->a.settings.database, sizeof(f->a.settings.database), "relative.db");
	assert_outcome(f, INSPECT(f, f->a), STORE_WRONG);
}

static void a_folder_is_no_database(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdir(f->database, 0755), 0);
	assert_outcome(f, INSPECT(f, f->a), STORE_WRONG);
	assert_says(f, "not a regular file");
}

static void symlinks_lead_to_one_database(void **state)
{
	struct fixture *f = *state;
	char name[600];

	snprintf(name, sizeof(name), "%s/link", f->folder);
	assert_int_equal(symlink("lock.db", name), 0); /* dangling yet */
	snprintf(f->b.settings.database, sizeof(f->b.settings.database), "%s", name);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(access(f->database, F_OK), 0);
	take(f, &f->a, 1000);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_string_equal(f->view.row.holder, "instance-a");
	assert_int_equal(f->view.floor, FLOOR_OK);
	assert_int_equal(access(beside(f, "-floor"), F_OK), 0);
	unlink(name);
	assert_int_equal(symlink("link", name), 0);
	assert_outcome(f, INSPECT(f, f->b), STORE_UNAVAILABLE);
}

static void hard_links_are_refused(void **state)
{
	struct fixture *f = *state;
	char name[600];

	take(f, &f->a, 1000);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_DONE);
	snprintf(name, sizeof(name), "%s/second", f->folder);
	assert_int_equal(link(f->database, name), 0);
	assert_wrong(f, "2 hard links");
	unlink(name);
	take(f, &f->a, 2000);
}

static uint32_t pretended_type;

static int pretended_statfs(const char *path, struct statfs *ret_statfs)
{
	int code = statfs(path, ret_statfs);

	ret_statfs->f_type = (__typeof__(ret_statfs->f_type))pretended_type;
	return code;
}

static void network_file_systems_are_refused_by_name(void **state)
{
	struct fixture *f = *state;
	static const struct {
		uint32_t type;
		const char *words;
	} others[] = {{0x6969, "lies on NFS"}, {0xfe534d42, "lies on SMB"}, {0xff534d42, "CIFS"},
		{0x65735546, "lies on FUSE"}, {0x01021997, "lies on 9p"}, {0x00c36400, "ceph"},
		{0x12345678, "an unknown file system (file system type 0x12345678)"}};

	take(f, &f->a, 1000);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_DONE);
	fs_statfs = pretended_statfs;
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		pretended_type = others[i].type;
		assert_wrong(f, others[i].words);
		assert_says(f, "unsafe_filesystem = yes");
		assert_says(f, "PostgreSQL");
	}
	f->a.settings.unsafe_filesystem = true;
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_false(f->view.overlay);
	f->a.settings.unsafe_filesystem = false;
	pretended_type = 0x794c7630;
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_true(f->view.overlay);
	/* Nothing is created there either. */
	pretended_type = 0x6969;
	snprintf(f->b.settings.database, sizeof(f->b.settings.database), "%s/b.db", f->folder);
	assert_outcome(f, INSPECT(f, f->b), STORE_WRONG);
	assert_int_not_equal(access(f->b.settings.database, F_OK), 0);
}

/* Root may write everything: look as nobody. RESULT of the child, or -1. */
static int as_nobody(struct fixture *f, enum store_outcome (*look)(struct fixture *))
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(99);
		_exit((int)look(f) | (strstr(f->e.text, "right to write") ? 64 : 0));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static enum store_outcome look(struct fixture *f)
{
	return INSPECT(f, f->a);
}

static enum store_outcome beat_once(struct fixture *f)
{
	return RENEW(f, f->a, 1000, 1000);
}

static void read_only_is_unavailable(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	chmod(f->folder, 0755);
	chmod(f->database, 0444);
	assert_int_equal(as_nobody(f, look), STORE_UNAVAILABLE | 64);
	assert_int_equal(as_nobody(f, beat_once), STORE_UNAVAILABLE | 64);
	f->a.settings.create = false; /* `lock info` by anybody */
	assert_int_equal(as_nobody(f, look), STORE_DONE);
	chmod(f->folder, 0700);
	if (geteuid() == 0)
		assert_int_not_equal(as_nobody(f, look), STORE_DONE);
}

static void many_start_at_once(void **state)
{
	struct fixture *f = *state;
	enum { STARTERS = 32 };
	char uuids[STARTERS][STORE_ID_BYTES];
	pid_t children[STARTERS];
	int gate[2], result[2];

	assert_int_equal(pipe(gate), 0);
	assert_int_equal(pipe(result), 0);
	f->a.settings.busy_limit_ms = 20000; /* slow disks, sanitizers */
	for (int i = 0; i < STARTERS; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			char byte;
			close(gate[1]);
			if (read(gate[0], &byte, 1) != 0 || INSPECT(f, f->a) != STORE_DONE) {
				dprintf(2, "# %s\n", f->e.text);
				_exit(1);
			}
			_exit(write(result[1], f->view.db_uuid, STORE_ID_BYTES) != STORE_ID_BYTES);
		}
	}
	close(gate[1]); /* all at once */
	for (int i = 0; i < STARTERS; i++) {
		int status;
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	for (int i = 0; i < STARTERS; i++) {
		assert_int_equal(read(result[0], uuids[i], STORE_ID_BYTES), STORE_ID_BYTES);
		assert_string_equal(uuids[i], uuids[0]);
	}
	close(gate[0]);
	close(result[0]);
	close(result[1]);
}

/* A process that has the database locked, and is stuck: returns its pid. */
static pid_t stuck_process(struct fixture *f, const char *sql)
{
	int ready[2];
	char byte;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		sqlite3 *db;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (sqlite3_open(f->database, &db) == SQLITE_OK &&
			sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK)
			(void)!write(ready[1], "x", 1);
		close(ready[1]);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static void end_process(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void locked_by_a_stuck_process(void **state)
{
	struct fixture *f = *state;
	char who[64];
	int64_t before;
	pid_t child;

	take(f, &f->a, 1000);
	f->a.settings.busy_limit_ms = 60;
	child = stuck_process(f, "BEGIN EXCLUSIVE");
	snprintf(who, sizeof(who), "process %d has had it locked", (int)child);
	before = now_ms();
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_UNAVAILABLE);
	assert_true(now_ms() - before >= 60 && now_ms() - before < 3000);
	assert_says(f, who);
	assert_outcome(f, INSPECT(f, f->a), STORE_UNAVAILABLE);
	end_process(child);
	/* A reader inside a transaction lets us begin, but not COMMIT: proven by a rollback. */
	child = stuck_process(f, "BEGIN; SELECT * FROM scheduler_lock");
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_UNAVAILABLE);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.row.beat, 0);
	end_process(child);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(f->view.row.beat, 1);
}

/* Killed inside a transaction with pages already written: the next one rolls it back. */
static void a_hot_journal_is_rolled_back(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	end_process(stuck_process(f,
		"PRAGMA synchronous=OFF; PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=1;"
		"PRAGMA cache_spill=1; BEGIN IMMEDIATE;"
		"UPDATE scheduler_lock SET term = 5000, holder = 'half';"
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
		" INSERT INTO job_run(job, fire_time, attempt, term, output)"
		" SELECT 'j', i, 1, 1, zeroblob(500) FROM n"));
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.row.term, 1000);
	assert_string_equal(f->view.row.holder, "instance-a");
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
}

static void file_size_limit(void **state)
{
	struct fixture *f = *state;
	struct rlimit before, none;

	take(f, &f->a, 1000);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = before;
	none.rlim_cur = 600; /* the floor fits, a journal does not */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	enum store_outcome outcome = RENEW(f, f->a, 1000, 1000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_DFL);
	if (outcome != STORE_UNAVAILABLE && outcome != STORE_UNKNOWN)
		print_message("%s: %s\n", store_outcome_name(outcome), f->e.text);
	assert_true(outcome == STORE_UNAVAILABLE || outcome == STORE_UNKNOWN);
	assert_says(f, "no space left");
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(f->view.row.beat, 1);
}

/* A mount namespace of one's own; false = not permitted here. */
static bool may_mount(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		print_message("skipped: mounting needs CAP_SYS_ADMIN: %s\n", strerror(errno));
		return false;
	}
	return true;
}

static void full_disk(void **state)
{
	struct fixture *f = *state;
	char name[600], bytes[4096] = {1};
	int fd, outcome;

	if (!may_mount())
		skip();
	assert_int_equal(mount("lock-test", f->folder, "tmpfs", 0, "size=128k"), 0);
	take(f, &f->a, 1000);
	snprintf(name, sizeof(name), "%s/filler", f->folder);
	fd = open(name, O_WRONLY | O_CREAT, 0600);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		continue;
	outcome = RENEW(f, f->a, 1000, 1000);
	print_message("full disk: %s: %s\n", store_outcome_name(outcome), f->e.text);
	assert_true(outcome == STORE_UNAVAILABLE || outcome == STORE_UNKNOWN);
	assert_says(f, "no space left");
	close(fd);
	unlink(name);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.row.term, 1000);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(mount(NULL, f->folder, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_UNAVAILABLE);
	assert_says(f, "mounted read-write");
	f->b.settings.create = false;
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(umount(f->folder), 0);
}

static void a_mounted_file_is_refused(void **state)
{
	struct fixture *f = *state;
	char name[600];

	if (!may_mount())
		skip();
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	snprintf(name, sizeof(name), "%s/other", f->folder);
	copy_file(f->database, name);
	assert_int_equal(mount(name, f->database, NULL, MS_BIND, NULL), 0);
	assert_wrong(f, "mount its directory");
	assert_int_equal(umount(f->database), 0);
	/* The way out. */
	assert_int_equal(mount(f->folder, f->folder, NULL, MS_BIND, NULL), 0);
	take(f, &f->a, 1000);
	assert_int_equal(umount(f->folder), 0);
}

#define FAULT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAULT(not_a_database),
		FAULT(corrupted_and_truncated),
		FAULT(truncated_between_pages),
		FAULT(wal_is_refused_with_the_remedy),
		FAULT(newer_schema_is_never_written),
		FAULT(anothers_database),
		FAULT(changed_tables),
		FAULT(the_plain_table_is_migrated_by_acquire),
		FAULT(an_empty_plain_table_is_free),
		FAULT(triggers_refuse_peoples_hands),
		FAULT(an_emptied_table_contradicts_the_floor),
		FAULT(looking_creates_nothing),
		FAULT(missing_folder),
		FAULT(a_folder_is_no_database),
		FAULT(symlinks_lead_to_one_database),
		FAULT(hard_links_are_refused),
		FAULT(network_file_systems_are_refused_by_name),
		FAULT(read_only_is_unavailable),
		FAULT(many_start_at_once),
		FAULT(locked_by_a_stuck_process),
		FAULT(a_hot_journal_is_rolled_back),
		FAULT(file_size_limit),
		FAULT(full_disk),
		FAULT(a_mounted_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

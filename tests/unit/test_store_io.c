/* Every call of SQLite into the file system fails once, and once the process dies there: what the
 * store answers is what is found afterwards. DONE = it is there, UNAVAILABLE = it is not, UNKNOWN =
 * one of the two, and never anything in between. */
#include "tests/unit/lock_fixture.h"

#include <sqlite3.h>
#include <sys/wait.h>

/* --- a file system that fails at the Nth call ------------------------------------------- */

struct shim_file {
	sqlite3_file base;
	sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;
static sqlite3_vfs shim_vfs;
static int calls, fail_at, fail_code; /* fail_at 0 = never; fail_code -1 = die */
static bool fail_for_good;            /* and every call after it: the disk is gone */

static int fails(void)
{
	if (fail_code == SQLITE_BUSY)
		return SQLITE_OK; /* that is what locks answer, and nothing else */
	calls++;
	if (fail_at == 0 || calls < fail_at || (calls > fail_at && !fail_for_good))
		return SQLITE_OK;
	if (fail_code < 0)
		_exit(7);
	return fail_code;
}

#define REAL(file) (((struct shim_file *)(file))->real)
#define PASS(call)                                                                                 \
	do {                                                                                       \
		int failed_ = fails();                                                             \
		return failed_ ? failed_ : (call);                                                 \
	} while (0)

static int shim_close(sqlite3_file *f)
{
	return REAL(f)->pMethods->xClose(REAL(f));
}

static int shim_read(sqlite3_file *f, void *to, int bytes, sqlite3_int64 at)
{
	PASS(REAL(f)->pMethods->xRead(REAL(f), to, bytes, at));
}

static int shim_write(sqlite3_file *f, const void *from, int bytes, sqlite3_int64 at)
{
	PASS(REAL(f)->pMethods->xWrite(REAL(f), from, bytes, at));
}

static int shim_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	PASS(REAL(f)->pMethods->xTruncate(REAL(f), size));
}

static int shim_sync(sqlite3_file *f, int flags)
{
	PASS(REAL(f)->pMethods->xSync(REAL(f), flags));
}

static int shim_size(sqlite3_file *f, sqlite3_int64 *size)
{
	PASS(REAL(f)->pMethods->xFileSize(REAL(f), size));
}

static int shim_lock(sqlite3_file *f, int level)
{
	if (fail_code == SQLITE_BUSY) {
		calls++;
		if (fail_at && (calls == fail_at || (calls > fail_at && fail_for_good)))
			return SQLITE_BUSY;
		return REAL(f)->pMethods->xLock(REAL(f), level);
	}
	PASS(REAL(f)->pMethods->xLock(REAL(f), level));
}

static int shim_unlock(sqlite3_file *f, int level)
{
	return REAL(f)->pMethods->xUnlock(REAL(f), level);
}

static int shim_reserved(sqlite3_file *f, int *out)
{
	PASS(REAL(f)->pMethods->xCheckReservedLock(REAL(f), out));
}

static int shim_control(sqlite3_file *f, int op, void *argument)
{
	return REAL(f)->pMethods->xFileControl(REAL(f), op, argument);
}

static int shim_sector(sqlite3_file *f)
{
	return REAL(f)->pMethods->xSectorSize(REAL(f));
}

static int shim_traits(sqlite3_file *f)
{
	return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}

static const sqlite3_io_methods shim_methods = {.iVersion = 1,
	.xClose = shim_close,
	.xRead = shim_read,
	.xWrite = shim_write,
	.xTruncate = shim_truncate,
	.xSync = shim_sync,
	.xFileSize = shim_size,
	.xLock = shim_lock,
	.xUnlock = shim_unlock,
	.xCheckReservedLock = shim_reserved,
	.xFileControl = shim_control,
	.xSectorSize = shim_sector,
	.xDeviceCharacteristics = shim_traits};

static int shim_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
	struct shim_file *s = (struct shim_file *)f;
	int rc = fails();

	(void)v;
	s->base.pMethods = NULL;
	s->real = (sqlite3_file *)(s + 1);
	if (rc == SQLITE_OK)
		rc = real_vfs->xOpen(real_vfs, name, s->real, flags, out);
	else
		rc = SQLITE_CANTOPEN;
	if (rc == SQLITE_OK)
		s->base.pMethods = &shim_methods;
	return rc;
}

static int group_setup(void **state)
{
	(void)state;
	/* Where a sync costs nothing: 1000 databases are made, and the machine never dies here. */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
	assert_int_equal(sqlite3_config(SQLITE_CONFIG_SINGLETHREAD), SQLITE_OK);
	assert_int_equal(sqlite3_initialize(), SQLITE_OK);
	real_vfs = sqlite3_vfs_find(NULL);
	shim_vfs = *real_vfs;
	shim_vfs.zName = "failing";
	shim_vfs.pNext = NULL;
	shim_vfs.szOsFile += (int)sizeof(struct shim_file);
	shim_vfs.xOpen = shim_open;
	return sqlite3_vfs_register(&shim_vfs, 1);
}

/* --- the operations, and what they leave ------------------------------------------------- */

enum operation { OP_ACQUIRE, OP_RENEW, OP_PROMOTE, OP_RELEASE, OPERATIONS };

static const char *const operation_names[] = {"acquire", "renew", "promote", "release"};

static enum store_outcome operate(
	struct fixture *f, enum operation op, const struct store_expect *x)
{
	switch (op) {
	case OP_ACQUIRE:
		return ACQUIRE(f, f->b, x, 2000);
	case OP_RENEW:
		return RENEW(f, f->a, 1000, 1001);
	case OP_PROMOTE:
		return PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:1");
	default:
		return RELEASE(f, f->a, 1000, 1001);
	}
}

/* Is it the row after OP? It must be that or, whole, the row before. */
static bool has_happened(struct fixture *f, enum operation op)
{
	const struct store_view *v = &f->view;
	const struct store_row *r = &v->row;
	bool before = r->term == 1001 && r->epoch == 1000 && r->held && r->beat == 1 &&
		      strcmp(r->holder, "instance-a") == 0 && v->executor_count == 1 &&
		      strcmp(v->executors[0].worker, "web:0") == 0;
	bool after = false;

	if (op == OP_ACQUIRE)
		after = r->term == 2000 && r->epoch == 2000 && r->held && r->beat == 0 &&
			strcmp(r->holder, "instance-b") == 0 && v->executor_count == 0;
	else if (op == OP_RENEW)
		after = r->term == 1001 && r->held && r->beat == 2 && v->executor_count == 1;
	else if (op == OP_PROMOTE)
		after = r->term == 1002 && r->epoch == 1000 && v->executor_count == 1 &&
			strcmp(v->executors[0].worker, "web:1") == 0;
	else
		after = r->term == 1001 && !r->held && v->executor_count == 0;
	if (before == after)
		print_message("%s at call %d left half a transaction: term %lld\n",
			operation_names[op], fail_at, (long long)r->term);
	assert_true(before != after);
	return after;
}

static void prepare(struct fixture *f, struct store_expect *x)
{
	fail_at = 0;
	fixture_stores(f, false);
	/* What is busy once is tried again, however slow this machine is. */
	f->a.settings.busy_limit_ms = f->b.settings.busy_limit_ms = fail_for_good ? 5 : 10000;
	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	*x = as_seen(&f->view);
	calls = 0;
}

static void judge(struct fixture *f, enum operation op, enum store_outcome outcome)
{
	bool happened;

	fail_at = 0;
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	happened = has_happened(f, op);
	if ((outcome == STORE_DONE && !happened) || (outcome == STORE_UNAVAILABLE && happened) ||
		(outcome != STORE_DONE && outcome != STORE_UNAVAILABLE && outcome != STORE_UNKNOWN))
		fail_msg("%s answered %s, but it has %shappened: %s", operation_names[op],
			store_outcome_name(outcome), happened ? "" : "not ", f->e.text);
}

static void fail_everywhere(int code, bool for_good)
{
	int tried = 0, outcomes[STORE_WRONG + 1] = {0};

	fail_code = code;
	fail_for_good = for_good;
	for (int op = 0; op < OPERATIONS; op++) {
		bool failed = true;
		for (int at = 1; failed; at++) {
			struct fixture f;
			struct store_expect x;
			enum store_outcome outcome;
			prepare(&f, &x);
			fail_at = at;
			outcome = operate(&f, (enum operation)op, &x);
			failed = calls >= at;
			judge(&f, (enum operation)op, outcome);
			outcomes[outcome]++;
			tried++;
			fixture_end(&f);
		}
	}
	if (code == SQLITE_BUSY) {
		assert_int_equal(outcomes[STORE_UNKNOWN], 0);
		assert_int_equal(outcomes[STORE_DONE], for_good ? (int)OPERATIONS : tried);
	}
	print_message("code %d%s: %d runs: %d done, %d unavailable, %d unknown\n", code,
		for_good ? " from there on" : "", tried, outcomes[STORE_DONE],
		outcomes[STORE_UNAVAILABLE], outcomes[STORE_UNKNOWN]);
	assert_true(tried > 4 * 3);
}

static void input_output_errors(void **state)
{
	(void)state;
	fail_everywhere(SQLITE_IOERR_WRITE, false);
	fail_everywhere(SQLITE_IOERR_FSYNC, true);
}

static void full_at_any_point(void **state)
{
	(void)state;
	fail_everywhere(SQLITE_FULL, false);
	fail_everywhere(SQLITE_FULL, true);
}

static void busy_at_any_point(void **state)
{
	(void)state;
	fail_everywhere(SQLITE_BUSY, false); /* tried again: done */
	fail_everywhere(SQLITE_BUSY, true);  /* until the patience ends: proven not done */
}

/* A fork under the address sanitizer takes 20 ms. */
#ifdef __SANITIZE_ADDRESS__
enum { KILL_STEP = 4 };
#else
enum { KILL_STEP = 1 };
#endif

static void killed_at_any_point(void **state)
{
	int tried = 0, happened = 0;

	(void)state;
	fail_code = -1;
	fail_for_good = false;
	for (int op = 0; op < OPERATIONS; op++) {
		for (int at = 1, died = 1; died; at += KILL_STEP) {
			struct fixture f;
			struct store_expect x;
			int status;
			prepare(&f, &x);
			pid_t child = fork();
			if (child == 0) {
				fail_at = at;
				_exit(operate(&f, (enum operation)op, &x) != STORE_DONE);
			}
			assert_int_equal(waitpid(child, &status, 0), child);
			died = WIFEXITED(status) && WEXITSTATUS(status) == 7;
			assert_true(died || status == 0);
			assert_outcome(&f, INSPECT(&f, f.b), STORE_DONE);
			fail_at = at;
			happened += has_happened(&f, (enum operation)op);
			fail_at = 0;
			/* And it goes on from there. */
			take(&f, &f.b, 3000);
			tried++;
			fixture_end(&f);
		}
	}
	print_message("killed in %d places, %d of them after the commit\n", tried, happened);
	assert_true(happened >= OPERATIONS && happened < tried);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(input_output_errors),
		cmocka_unit_test(full_at_any_point),
		cmocka_unit_test(busy_at_any_point),
		cmocka_unit_test(killed_at_any_point),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}

/*
 * A file system for SQLite that fails, or ends the process, at its Nth call. Included by one test
 * program each, after lock_fixture.h.
 */
#ifndef BATON_TESTS_UNIT_SHIM_VFS_H
#define BATON_TESTS_UNIT_SHIM_VFS_H

#include <sqlite3.h>

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

static int shim_group_setup(void **state)
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

#endif

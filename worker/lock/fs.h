/*
 * Where the database lies, and whether a lock may lie there: symlinks resolved, local file system
 * only, no file that is itself a mount point, no second hard link (election.md section 1).
 *
 * Nothing here opens the database: any close() of it in this process would drop the POSIX locks
 * of SQLite. fs_lock_owner() is the exception and says so.
 */
#ifndef BATON_WORKER_LOCK_FS_H
#define BATON_WORKER_LOCK_FS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/vfs.h>

#include "conf/err.h"

#define FS_PATH_BYTES 4096
/* Room for the longest side file name behind a database's real path. */
#define FS_SIDE_BYTES (FS_PATH_BYTES + 16)

struct fs_place {
	char path[FS_PATH_BYTES]; /* every symlink resolved, also that of a file yet to be made */
	bool exists;
	bool overlay; /* on overlayfs: each container sees a file of its own */
	uint64_t device, inode;
	int64_t bytes;
	mode_t mode;
	uid_t uid;
	gid_t gid;
};

/* 0, ERR_UNAVAILABLE (missing folder, no permission), ERR_WRONG (a place where no lock can be).
 * UNSAFE allows any file system. */
int fs_check(const char *database, bool unsafe, struct fs_place *ret_place, struct err *e);
/* Only the path, and what is there; no rule is applied. 0 or ERR_UNAVAILABLE. */
int fs_locate(const char *database, struct fs_place *ret_place, struct err *e);
/* Open the regular file PATH SUFFIX beside the database at PATH (a real path); FLAGS is O_RDONLY
 * or O_RDWR, with O_CREAT a missing one is made with the database's mode and owner. Returns a
 * close-on-exec descriptor or -errno. */
int fs_open_side(const char *path, const char *suffix, int flags);
/* The process that has SQLite's lock on PATH, 0 when unknown. Opens and closes the file: only when
 * this process has no connection to it. */
pid_t fs_lock_owner(const char *path);

/* 64 bits of FNV-1a: tells a torn record from a whole one. */
uint64_t fs_checksum(const void *bytes, size_t count);

/* statfs(2), replaceable by tests. */
extern int (*fs_statfs)(const char *path, struct statfs *ret_statfs);

#endif

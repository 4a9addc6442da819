/*
 * The guard: a sidecar file beside the database ("<real path>-guard") with one write lock on byte
 * number EPOCH, held by an open file description that the holder's supervisor and deadman share.
 * The kernel drops it when both are gone. Also in it: the mark "epoch N cleared", written by a
 * deadman that has killed everything. The waiter is the process that blocks on a byte.
 */
#ifndef BATON_WORKER_LOCK_GUARD_H
#define BATON_WORKER_LOCK_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/err.h"

/* Opens (creates, mode as the database's) the guard beside DATABASE (symlinks resolved). The
 * descriptor is close-on-exec. ERR_UNAVAILABLE while the database's folder is missing. */
int guard_open(const char *database, int *ret_fd, int64_t *ret_inode, struct err *e);
/* Never waits: ERR_BUSY when somebody has it. */
int guard_lock(int fd, int64_t epoch, struct err *e);
int guard_unlock(int fd, int64_t epoch, struct err *e);
/* true = nobody holds that byte (asked with F_OFD_GETLK through FD's description). */
int guard_is_free(int fd, int64_t epoch, bool *ret_free, struct err *e);
/* The mark. guard_mark_cleared never lowers it. 0 = no mark. */
int guard_mark_cleared(int fd, int64_t epoch, struct err *e);
int guard_cleared(int fd, int64_t *ret_epoch, struct err *e);
/* Does the kernel have what fast takeover needs (pidfd_open, OFD locks)? Names what is missing. */
bool guard_kernel_supports(char *missing, size_t bytes);

struct waiter_report {
	int64_t epoch;
	int64_t cleared; /* the mark in the guard file when the byte became free */
};

/* `lock-waiter EPOCH`: descriptor 3 is a guard description of its own, 4 a pipe: blocks on the byte
 * with a read lock, writes one struct waiter_report, exits 0. Dies with its parent. */
int waiter_main(int argc, char **argv);

#endif

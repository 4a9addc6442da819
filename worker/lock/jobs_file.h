/*
 * The file <database>-jobs beside the database: a bell and a register of the living.
 *
 * The bell: whoever changes what the job worker has to know (a request, a pause, the end of a
 * requested run) writes to it after the COMMIT; who waits watches it with inotify. So nobody polls,
 * and it works without a supervisor in between and across containers on one volume.
 *
 * The register: a job worker holds the byte number OWNER of it with a write lock of its open file
 * description for as long as it lives; the descriptor is close-on-exec, no command of a job
 * inherits it. The content means nothing and may be lost.
 */
#ifndef BATON_WORKER_LOCK_JOBS_FILE_H
#define BATON_WORKER_LOCK_JOBS_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/err.h"

/* Opened read-write, close-on-exec, made if it is missing (with the database's owner and mode, no
 * symlink followed). 0, ERR_UNAVAILABLE or ERR_SYSTEM; the caller closes. */
int jobs_file_open(const char *database, int *ret_fd, struct err *e);
/* Ring. Never blocks on more than one write to the page cache. 0 or ERR_SYSTEM. */
int jobs_file_ring(int fd, struct err *e);
/* Open, ring, close. */
int jobs_file_ring_beside(const char *database, struct err *e);

/* A number for jobs_file_hold and struct ledger_claimant: random, 2^32 <= n < 2^62. */
int64_t jobs_file_new_owner(void);
/* Hold byte OWNER until the descriptor is closed. 0, ERR_BUSY (another has it), ERR_SYSTEM. */
int jobs_file_hold(int fd, int64_t owner, struct err *e);
/* Does another open file description hold it? 0 or ERR_SYSTEM. Right after an event of the file's
 * closing the kernel may need another moment to drop the lock: ask again once, 10 ms later. */
int jobs_file_is_held(int fd, int64_t owner, bool *ret_held, struct err *e);

/* Add the file, made if it is missing, to INOTIFY_FD: rung, closed by a writer (somebody's death
 * among others), deleted or moved (then IN_IGNORED or IN_MOVE_SELF comes: watch again). The watch's
 * number in *ret_watch. 0, ERR_UNAVAILABLE or ERR_SYSTEM. */
int jobs_file_watch(const char *database, int inotify_fd, int *ret_watch, struct err *e);

#endif

/*
 * The ledger process of the job worker and the client half in the worker.
 *
 * The job worker never opens the database. It has beside it a process of the same binary,
 * `job-ledger` (blocking, simple, replaceable), and speaks to it over a socketpair with framed
 * requests. Everything below but ledger_start is non-blocking and does no more than memory and one
 * read or write.
 *
 * Use: ledger_start; watch l.fd for reading, and for writing while ledger_wants_write(); on either
 * call ledger_readable / ledger_writable. Requests may be sent one behind the other; they are
 * carried out and answered in that order (but TRIM). When the process dies or speaks nonsense the
 * call returns an error: every request that was not answered has an unknown outcome (ledger_stop
 * drops them), start it again and send them anew: every request may be repeated, the answer is the
 * same. CLAIM   LEDGER_CLAIM_MINE for what an earlier try got (same owner, same term) UPDATE
 * LEDGER_UPDATE_DONE when the row says so already others  write what they say The same holds for a
 * reply of outcome STORE_UNKNOWN, STORE_UNAVAILABLE: repeat it later. STORE_REFUSED to a claim:
 * every answer is LEDGER_CLAIM_REFUSED. STORE_MOVED, STORE_WRONG: the database is not the one that
 * was, or cannot be used; `text` says what an operator has to do.
 *
 * Start nothing before the reply to its claim. A row that says "queued" is certainly not started
 * only if the update to "running" is waited for; otherwise treat it as one that may have started.
 *
 * Nudges and life. <database>-jobs lies beside the database (worker/lock/jobs_file.h): whoever
 * requests a run, pauses a job or ends a requested run writes to it; watch it with inotify and send
 * a LOOK. The job worker also holds one byte of it (jobs_file_hold, byte = owner) for as long as it
 * lives: so a successor knows whether the worker of an open run of an earlier term still finishes
 * it (jobs_file_is_held) or is gone (INTERRUPTED). The death of a worker that has the file open is
 * an event on it, too.
 */
#ifndef BATON_WORKER_JOBS_LEDGER_H
#define BATON_WORKER_JOBS_LEDGER_H

#include <sys/types.h>

#include "worker/lock/store.h"
#include "worker/lock/store_jobs.h"

#define LEDGER_BATCH       4096        /* records of one request */
#define LEDGER_FRAME_BYTES (64u << 20) /* of one request or reply */
#define LEDGER_QUEUE_BYTES (48u << 20) /* of all requests that are not yet written */

enum ledger_op {
	LEDGER_CLAIM,
	LEDGER_UPDATE,
	LEDGER_LOOK,
	LEDGER_DECLARE,
	LEDGER_REFUSE,
	LEDGER_TRIM,
	LEDGER_OP_COUNT
};

enum ledger_look {                /* what a LOOK returns, any of */
	LEDGER_LOOK_RUNS = 1,     /* queued and running, all owners, oldest first */
	LEDGER_LOOK_JOBS = 2,     /* every job that a file has or had */
	LEDGER_LOOK_PAUSED = 4,   /* those that are paused (without LEDGER_LOOK_JOBS) */
	LEDGER_LOOK_REQUESTS = 8, /* the pending ones, oldest first */
};

/* Valid until the callback returns. */
struct ledger_reply {
	uint64_t id;
	enum ledger_op op;
	enum store_outcome outcome;
	const char *text; /* why, when the outcome is not DONE; never NULL */
	size_t claimed_count, updated_count;
	const struct ledger_claimed *claimed; /* CLAIM: one per firing, in their order */
	const enum ledger_updated *updated;   /* UPDATE: one per update, in their order */
	/* LOOK */
	size_t run_count, job_count, request_count;
	const struct ledger_run *runs;
	const struct ledger_job *jobs;
	const struct ledger_request *requests;
	/* LOOK: the executor of LEDGER_PROGRAM as the row has it; 0 = none */
	int64_t executor_term;
};

struct ledger_buffer {
	char *bytes;
	size_t start, used, capacity;
};

struct ledger {
	int fd;    /* -1 = not started */
	pid_t pid; /* 0 = none, or reaped */
	uint64_t next_id;
	unsigned unanswered; /* requests sent or queued without a reply yet */
	struct ledger_buffer out, in;
};

void ledger_init(struct ledger *l);
/* Start the process (of this binary) on the database. SETTINGS: database, lock_name,
 * unsafe_filesystem, busy_limit_ms, instance (our supervisor's: BATON_INSTANCE), hostname. A
 * ledger that runs is stopped first. 0 or ERR_SYSTEM. */
int ledger_start(struct ledger *l, const struct store_settings *settings, struct err *e);
/* End of file for the process: it finishes what it does and exits; what was queued is dropped. */
void ledger_stop(struct ledger *l);
/* Was PID ours? Then it is forgotten; the descriptor tells the rest. */
bool ledger_reaped(struct ledger *l, pid_t pid);

bool ledger_wants_write(const struct ledger *l);
/* 0, or ERR_SYSTEM / ERR_PROTOCOL: it is gone, or speaks nonsense: ledger_stop, and start again. */
int ledger_writable(struct ledger *l, struct err *e);
int ledger_readable(struct ledger *l, void (*on_reply)(const struct ledger_reply *r, void *context),
	void *context, struct err *e);

/* Each queues one request, copied, and returns its id; 0: not started, too many records, too many
 * bytes in the queue, or no memory. The write is left to ledger_writable. */
uint64_t ledger_claim(struct ledger *l, const struct ledger_claimant *who,
	const struct ledger_firing *firings, size_t count);
uint64_t ledger_update(struct ledger *l, const struct ledger_update *updates, size_t count);
uint64_t ledger_look(struct ledger *l, unsigned what);
/* The jobs of our file, at promotion (before the LOOK whose known_since is to be right) and after a
 * reload: those that are missing stay known, as in no file. More than LEDGER_BATCH are declared by
 * calls one behind the other, with nothing in between. */
uint64_t ledger_declare(struct ledger *l, const struct ledger_declared *jobs, size_t count);
/* This request will not be run, and why ("job 'x' is not in the file of instance ..."). */
uint64_t ledger_refuse(struct ledger *l, int64_t request, const char *reason);
/* Drop ended runs older than KEEP_US (0 = never), and of each job all but the newest KEEP_COUNT
 * (0 = no limit). Carried out in steps, while nothing else is asked: answered out of order. A new
 * one takes the place of one that is under way (both are answered). */
uint64_t ledger_trim(struct ledger *l, int64_t keep_us, int64_t keep_count);

/* --- the other side ------------------------------------------------------------------------ */
/* `job-ledger`: argv has nothing else; descriptor 3 is the socket. Ignores INT, TERM, HUP, QUIT;
 * dies with its parent and at end of file. */
int ledger_main(int argc, char **argv);
/* The same on a given store and descriptor (tests). Returns at end of file. */
int ledger_serve(struct store *s, int fd);

#endif

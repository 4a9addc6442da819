/*
 * The ledger of job runs, behind the store's vtable (struct store_jobs_ops, store.h): claims, what
 * became of them, pauses, requests of the terminal. All may block on the disk: called in the ledger
 * process of the job worker, in the keeper and in commands of the terminal.
 *
 * A run is one attempt of one firing: (job, fire_time, attempt). Its row is written by a claim,
 * before the command starts, under the term that is held; from then on it is fenced by its OWNER, a
 * random number of the worker that claimed it, so that a worker that was demoted can still record
 * the end of what it runs and nobody else can.
 */
#ifndef BATON_WORKER_LOCK_STORE_JOBS_H
#define BATON_WORKER_LOCK_STORE_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"

#define LEDGER_PROGRAM    "jobs"      /* the hidden program whose executor runs the jobs */
#define LEDGER_NAME_BYTES 128         /* a job's name, a worker's, a host's */
#define LEDGER_TEXT_BYTES 256         /* a schedule, a reason */
#define LEDGER_OUTPUT_MAX (16u << 20) /* kept bytes of one run's output */

/* What a run is. The words are those of the database, of --json and of the manual. */
#define LEDGER_STATUSES(X)                                                                         \
	X(QUEUED, "queued")           /* claimed, waits for its turn */                            \
	X(RUNNING, "running")         /* claimed, its command runs or is about to */               \
	X(CLAIMED, "claimed")         /* run by an application itself: its end is not known */     \
	X(OK, "ok")                   /* exit status 0 */                                          \
	X(FAILED, "failed")           /* another exit status */                                    \
	X(TIMEOUT, "timeout")         /* ended by us: it took longer than the job's timeout */     \
	X(KILLED, "killed")           /* ended by a signal that was not ours */                    \
	X(NOT_STARTED, "not started") /* its command could not be started */                       \
	X(REPLACED, "replaced")       /* ended by us for a newer firing (overlap = replace) */     \
	X(CANCELLED, "cancelled")     /* taken from the queue, or ended, by an operator or stop */ \
	X(INTERRUPTED, "interrupted") /* its worker died; what it got done is not known */         \
	X(LOST, "lost")               /* ended by us: the lease ended first */                     \
	X(SKIPPED, "skipped")         /* never started: the one before still ran */                \
	X(MISSED, "missed")           /* never started: no executor when it was due */

enum ledger_status {
#define X(id, name) LEDGER_##id,
	LEDGER_STATUSES(X)
#undef X
		LEDGER_STATUS_COUNT
};

/* Why there is a run. */
#define LEDGER_CAUSES(X)                                                                           \
	X(SCHEDULE, "schedule")                                                                    \
	X(PROMOTION, "promotion") /* schedule = @promotion */                                      \
	X(CATCH_UP, "catch-up")   /* of a firing that found no executor (missed = once, all) */    \
	X(RETRY, "retry")         /* after a failure (retries) */                                  \
	X(RERUN, "rerun")         /* after an interruption (interrupted = rerun) */                \
	X(REQUEST, "request")     /* baton jobs run */                                             \
	X(APPLICATION, "application") /* claimed over a worker's channel */

enum ledger_cause {
#define X(id, name) LEDGER_BY_##id,
	LEDGER_CAUSES(X)
#undef X
		LEDGER_CAUSE_COUNT
};

const char *ledger_status_name(enum ledger_status s);
const char *ledger_cause_name(enum ledger_cause c);
/* Back from the words; CLAIMED, APPLICATION for those of a later baton. */
enum ledger_status ledger_status_of(const char *name);
enum ledger_cause ledger_cause_of(const char *name);
bool ledger_status_is_open(enum ledger_status s); /* queued, running */
/* An end that people look for with --failed: not ok, skipped, claimed, cancelled, open. */
bool ledger_status_is_failure(enum ledger_status s);

struct ledger_key {
	char job[LEDGER_NAME_BYTES];
	int64_t fire_time_us; /* wall clock: of the schedule; of a request: when it was made */
	int32_t attempt;      /* from 1 */
};

/* --- claims -------------------------------------------------------------------------------- */
struct ledger_claimant {
	char program[LEDGER_NAME_BYTES]; /* whose executor we are: LEDGER_PROGRAM */
	int64_t term;                    /* under which */
	int64_t owner;                   /* random, > 0, one for the life of a worker process */
	char worker[LEDGER_NAME_BYTES];  /* "jobs:0", for people */
	int64_t pid;
};

struct ledger_firing {
	struct ledger_key key;
	enum ledger_status status; /* QUEUED, RUNNING; or at once SKIPPED, MISSED, CANCELLED */
	enum ledger_cause cause;
	int64_t request; /* with LEDGER_BY_REQUEST: which one; it is answered by this claim */
	char reason[96]; /* why it is SKIPPED or MISSED; "" = none */
};

enum ledger_answer {
	LEDGER_CLAIM_DONE, /* it is ours: run it */
	/* Our row. After a try whose outcome is unknown and with the status that was asked for:
	 * that try was done, run it, once. Else it ran before. */
	LEDGER_CLAIM_MINE,
	LEDGER_CLAIM_TAKEN,   /* it ran or runs already (status says what became of it) */
	LEDGER_CLAIM_PAUSED,  /* the job is paused; no row was made. Never said to a request */
	LEDGER_CLAIM_REFUSED, /* term or holder are no longer ours: nothing was claimed */
};

struct ledger_claimed {
	enum ledger_answer answer;
	enum ledger_status status; /* of the row that is there now: DONE, MINE, TAKEN */
	int64_t run;               /* its number, as people name it */
};

/* --- what becomes of a run ----------------------------------------------------------------- */
struct ledger_update {
	struct ledger_key key;
	int64_t owner; /* the row's */
	/* 0: the row is ours. Else our term as executor: the row is another's, whose worker is
	 * gone; refused when the term is no longer ours. */
	int64_t by_term;
	int64_t new_owner; /* of the row from now on: who runs it; 0 = leave */
	enum ledger_status status;
	int64_t started_us, ended_us;   /* 0 = leave as it is */
	int64_t pid;                    /* of the command; 0 = leave */
	int32_t exit_code, signal;      /* -1, 0 = none */
	int64_t output_bytes;           /* all that it wrote */
	uint32_t output_kept;           /* of them, the last ones: at OUTPUT */
	const void *output;             /* copied; may be NULL with 0 */
	char reason[LEDGER_TEXT_BYTES]; /* "" = none; "cannot execute /x: permission denied" */
};

enum ledger_updated {
	LEDGER_UPDATE_DONE,    /* also when the row says so already */
	LEDGER_UPDATE_REFUSED, /* no such row, another owner, it has ended another way; by_term */
};

/* --- what is read -------------------------------------------------------------------------- */
struct ledger_run {
	struct ledger_key key;
	int64_t run, term, owner, request;
	enum ledger_status status;
	enum ledger_cause cause;
	int64_t claimed_us, started_us, ended_us; /* 0 = not */
	int64_t pid;
	int32_t exit_code, signal; /* -1, 0 = none */
	int64_t output_bytes;
	int64_t output_kept;
	char program[LEDGER_NAME_BYTES], instance[40], worker[LEDGER_NAME_BYTES];
	char hostname[LEDGER_NAME_BYTES];
	char reason[LEDGER_TEXT_BYTES];
};

struct ledger_job {
	char job[LEDGER_NAME_BYTES];
	int64_t last_fire_us;   /* of its schedule, claimed or paused; 0 = never */
	int64_t known_since_us; /* first declared with its present schedule; 0 = never. What was due
				 * before was not missed */
	uint64_t declared_id;   /* ledger_declared_id of its schedule; 0 = none */
	bool paused;
	int64_t paused_us;
};

struct ledger_request {
	int64_t id;
	char job[LEDGER_NAME_BYTES];
	int64_t requested_us;       /* the fire_time of its run: no other run of the job has it */
	char by[LEDGER_NAME_BYTES]; /* "root@host", for people */
	bool pending, refused, withdrawn;
	int64_t run;                    /* once claimed */
	char reason[LEDGER_TEXT_BYTES]; /* why refused */
};

/* The job as an instance has it in its file. */
struct ledger_declared {
	char job[LEDGER_NAME_BYTES];
	char schedule[LEDGER_TEXT_BYTES], timezone[64];
};

/* Differs when schedule or zone differ; never 0. */
uint64_t ledger_declared_id(const struct ledger_declared *d);

#endif

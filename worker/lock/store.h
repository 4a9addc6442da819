/*
 * The database lock behind one vtable: compare-and-swap on (term, holder, beat).
 *
 * Everything here may block on the disk and runs in the keeper (or in a command of the terminal),
 * never in the supervisor. A store opens, transacts and closes per operation; it keeps no
 * connection between two calls. election.md sections 1 and 2 are the contract.
 */
#ifndef BATON_WORKER_LOCK_STORE_H
#define BATON_WORKER_LOCK_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"
#include "worker/lock/store_jobs.h"

#define STORE_SCHEMA_VERSION 2
#define STORE_ID_BYTES       40 /* a UUID in text and its NUL */
#define STORE_NAME_BYTES     128
#define STORE_EXECUTORS      32 /* candidate programs under one lock */

enum store_outcome {
	STORE_DONE,
	STORE_REFUSED,     /* compared and found different: the view holds the present row */
	STORE_UNKNOWN,     /* busy, I/O error, full, COMMIT failed: may or may not have happened */
	STORE_UNAVAILABLE, /* certainly not done: cannot open, locked, missing directory, read-only
			    */
	STORE_MOVED, /* proven loss: the file was deleted, replaced, restored (DBMOVED, UUID) */
	STORE_WRONG, /* will not work whatever we wait for: WAL, other application, network file
			system, newer schema, mount point, hard links. Exit status 78 */
};

struct store_row {
	int64_t term, epoch;
	bool held;
	char holder[STORE_ID_BYTES];
	int64_t beat, ttl_ms;
	char boot_id[STORE_ID_BYTES], machine_id[STORE_ID_BYTES];
	int64_t guard_ino;
	bool pid1;
	int64_t pid;
	char hostname[STORE_NAME_BYTES], worker[STORE_NAME_BYTES];
	int64_t created_at_us, heartbeat_at_us; /* wall clock, for people */
};

struct store_executor {
	char program[STORE_NAME_BYTES], worker[STORE_NAME_BYTES];
	int64_t term, pid, since_us;
};

enum store_floor { FLOOR_ABSENT, FLOOR_OK, FLOOR_OTHER_UUID, FLOOR_HIGHER, FLOOR_UNREADABLE };

struct store_view {
	bool exists; /* false: no database (only with create = false) */
	char db_uuid[STORE_ID_BYTES];
	int schema_version; /* 0 = the plain lock table people have; see migrations.c */
	struct store_row row;
	size_t executor_count;
	struct store_executor executors[STORE_EXECUTORS];
	enum store_floor floor; /* what the floor file says about this database */
	int64_t floor_term;
	bool floor_failed;      /* acquire, promote: DONE, but the floor could not be written, the
				   error says why: promote nobody */
	bool overlay;           /* the file lies on overlayfs: warn once */
	uint64_t device, inode; /* of the database file */
};

struct store_settings {
	char database[4096]; /* absolute path */
	char lock_name[STORE_NAME_BYTES];
	bool unsafe_filesystem;
	bool create; /* inspect creates file and schema when missing (not `lock info`) */
	int64_t history_keep_us;
	int64_t busy_limit_ms; /* how long an operation retries SQLITE_BUSY, in 1 ms steps + jitter
				*/
	/* who we are, for the row */
	char instance[STORE_ID_BYTES], boot_id[STORE_ID_BYTES], machine_id[STORE_ID_BYTES];
	char hostname[STORE_NAME_BYTES];
	int64_t pid, guard_ino;
	bool pid1;
};

struct store_expect { /* the row as observed */
	int64_t term, beat;
	char holder[STORE_ID_BYTES];
	char db_uuid[STORE_ID_BYTES];
};

struct store;

/* What to read of the ledger, in one transaction. */
enum {
	STORE_READ_RUNS = 1, /* job, run, since, failed, open apply; newest first */
	STORE_READ_JOBS = 2,
	STORE_READ_PAUSED = 4,    /* only those that are paused */
	STORE_READ_REQUESTS = 8,  /* the pending ones, or the one of REQUEST */
	STORE_READ_LAST = 16,     /* on_run with the newest ended run of each job */
	STORE_READ_OUTPUT = 32,   /* on_output with the kept output of each run */
	STORE_READ_DECLARED = 64, /* jobs of files; not those that only applications claimed */
};

struct store_query {
	unsigned what;
	const char *job;      /* NULL = every one */
	int64_t run, request; /* 0 = any */
	int64_t since_us;     /* claimed then or later */
	int64_t fire_us;      /* attempts of that firing; 0 = any */
	bool failed, open;    /* only the failures, only queued and running */
	bool oldest_first;
	int64_t limit; /* of runs; 0 = none */
};

/* Any may be NULL; false = no more of this kind. */
struct store_reader {
	bool (*on_run)(const struct ledger_run *r, void *context);
	bool (*on_output)(
		const struct ledger_run *r, const void *bytes, size_t count, void *context);
	/* DECLARED: as the last instance that declared it has it; "" = none did. INSTANCE,
	 * HOSTNAME: of that one; "" = none did, or it has taken it out of its file again. */
	bool (*on_job)(const struct ledger_job *j, const struct ledger_declared *declared,
		const char *instance, const char *hostname, void *context);
	bool (*on_request)(const struct ledger_request *r, void *context);
	void *context;
};

/* The ledger of job runs (store_jobs.h). What changes rows answers STORE_REFUSED with the words
 * when the database has no ledger yet (version 1) and we are not its holder: the holder's first
 * claim or declaration adds it. */
struct store_jobs_ops {
	/* One transaction for all; RET_CLAIMED one per firing. STORE_REFUSED: term or holder are
	 * not ours (any more), nothing was claimed. */
	enum store_outcome (*claim)(struct store *, const struct ledger_claimant *who,
		const struct ledger_firing *firings, size_t count,
		struct ledger_claimed *ret_claimed, struct err *e);
	/* One transaction for all. *RET_RING: somebody waits for one of these: ring. */
	enum store_outcome (*update)(struct store *, const struct ledger_update *updates,
		size_t count, enum ledger_updated *ret_updated, bool *ret_ring, struct err *e);
	/* ROUND_US: one wall time for all parts of a declaration. LAST: with this part it is
	 * complete, and what our instance declared before is in its file no longer. */
	enum store_outcome (*declare)(struct store *, const struct ledger_declared *jobs,
		size_t count, int64_t round_us, bool last, struct err *e);
	enum store_outcome (*pause)(struct store *, const char *job, bool paused, const char *by,
		bool *ret_changed, struct err *e);
	enum store_outcome (*request)(struct store *, const char *job, const char *by,
		struct ledger_request *ret_request, struct err *e);
	/* A pending request is refused by the executor, or withdrawn by who made it. STORE_REFUSED:
	 * it is not pending. */
	enum store_outcome (*answer)(
		struct store *, int64_t request, bool withdraw, const char *reason, struct err *e);
	/* One step, from CURSOR ("" at first); *RET_MORE: call again. Ended runs; then the names of
	 * jobs that no file has and that have no runs left. Claims of applications stay for an hour
	 * at least: their row is what refuses the same firing to whoever asks again. */
	enum store_outcome (*trim)(struct store *, int64_t keep_us, int64_t keep_count,
		char cursor[LEDGER_NAME_BYTES], bool *ret_more, struct err *e);
	/* RET_VIEW: the row and the executors, of the same transaction. A database of version 1, or
	 * none, has no runs. */
	enum store_outcome (*read)(struct store *, const struct store_query *query,
		const struct store_reader *reader, struct store_view *ret_view, struct err *e);
};

struct store_ops {
	const char *name;
	const struct store_jobs_ops *jobs; /* NULL: keeps no ledger (the memory store) */
	enum store_outcome (*inspect)(struct store *, struct store_view *ret_view, struct err *e);
	/* CAS on EXPECT; term = epoch = EPOCH, held, beat 0, executor emptied; history; migrates;
	 * COMMIT, then floor. REASON is kept as the end of the previous term ("released",
	 * "takeover: stale", "takeover: holder dead"...). */
	enum store_outcome (*acquire)(struct store *, const struct store_expect *expect,
		int64_t epoch, int64_t ttl_ms, const char *reason, struct store_view *ret_view,
		struct err *e);
	/* (term, holder, held) must match; beat + 1. */
	enum store_outcome (*renew)(struct store *, int64_t epoch, int64_t term, int64_t ttl_ms,
		struct store_view *ret_view, struct err *e);
	/* New term (> row's term) for PROGRAM's executor, in one transaction with the row; COMMIT,
	 * then floor. WORKER "" : the program has no executor any more (its row is deleted) and the
	 * term stays; REASON ends the program's former term in the history. */
	enum store_outcome (*promote)(struct store *, int64_t epoch, int64_t term, int64_t new_term,
		const char *program, const char *worker, int64_t pid, const char *reason,
		struct store_view *ret_view, struct err *e);
	/* Frees the row (holder '' , state 0); term stays. */
	enum store_outcome (*release)(struct store *, int64_t epoch, int64_t term,
		const char *reason, struct store_view *ret_view, struct err *e);
	/* Frees a row of somebody else, CAS on EXPECT (lock release --force; the caller has proved
	 * death or watched a ttl). */
	enum store_outcome (*force_release)(struct store *, const struct store_expect *expect,
		struct store_view *ret_view, struct err *e);
	/* One firing of an application's own scheduler. OWNER: 0, or a number that tells, when the
	 * same is claimed again after an unknown outcome, that it is ours already. */
	enum store_outcome (*claim)(struct store *, const char *program, int64_t term,
		const char *job, int64_t fire_time_us, int attempt, int64_t owner, struct err *e);
	/* That claim was made, and its claimant was not told, or too late: it is not run (by
	 * nobody, at most once is the promise), and the ledger says so. REFUSED: there is no such
	 * claim. */
	enum store_outcome (*unclaim)(struct store *, const char *job, int64_t fire_time_us,
		int attempt, int64_t owner, const char *reason, struct err *e);
	/* Newest first; calls EACH until it returns false. */
	enum store_outcome (*history)(struct store *, int limit,
		bool (*each)(const struct store_executor *of, int64_t ended_us, const char *holder,
			const char *hostname, const char *reason, void *context),
		void *context, struct err *e);
	void (*close)(struct store *);
};

struct store {
	const struct store_ops *ops;
	struct store_settings settings;
	void *private;
};

/* Bind a store to its settings; touches no file yet. */
int store_sqlite_init(struct store *s, const struct store_settings *settings, struct err *e);
/* A store in this process's memory, for tests: several stores may share one struct memory_database.
 */
struct memory_database;
struct memory_database *memory_database_new(void);
void memory_database_free(struct memory_database *d);
int store_memory_init(struct store *s, const struct store_settings *settings,
	struct memory_database *d, struct err *e);

const char *store_outcome_name(enum store_outcome o);

#endif

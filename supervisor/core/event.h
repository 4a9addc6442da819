/*
 * The input alphabet of the core: everything that can happen to a supervisor.
 *
 * Events are values; pointers in them (config, text) outlive the call of core_handle. Times are
 * nanoseconds of the lease clock (CLOCK_BOOTTIME).
 */
#ifndef BATON_CORE_EVENT_H
#define BATON_CORE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/config.h"

#define CORE_EVENTS(X)                                                                             \
	X(BOOT)             /* the shell is up: bring the stages up */                             \
	X(STAGE)            /* stage, ok; number = exit status when not */                         \
	X(TIMER)            /* the one timer; late_ns = how late it fired */                       \
	X(SPAWNED)          /* worker, id, pid: forked (a held child waits before exec) */         \
	X(SPAWN_FAILED)     /* worker, id: fork or exec failed; ok = for want of something that    \
			     * may be there again (processes, memory, descriptors) */              \
	X(EXECED)           /* worker, id */                                                       \
	X(DIED)             /* worker, id, code or signal, oom: its main process was reaped */     \
	X(GONE)             /* worker, id: its whole tree is gone and its output is drained */     \
	X(READY)            /* worker, id: READY=1 */                                              \
	X(WATCHDOG)         /* worker, id: WATCHDOG=1 */                                           \
	X(STOPPING)         /* worker, id: STOPPING=1 */                                           \
	X(PROBE_OK)         /* worker, id: the probe succeeded, or what it shows has been seen */  \
	X(PROBE_FAILED)     /* worker, id; ok: only this attempt could not be made */              \
	X(EXTEND)           /* worker, id, number: EXTEND_TIMEOUT_USEC */                          \
	X(MEMORY)           /* worker, id, number: bytes of its tree, when that matters */         \
	X(SAID_HELLO)       /* worker, id: tell it the present state again */                      \
	X(SAID_PROMOTED)    /* worker, id, term */                                                 \
	X(SAID_DEMOTED)     /* worker, id, term */                                                 \
	X(SAID_BUSY)        /* worker, id, number */                                               \
	X(CHANNEL_CLOSED)   /* worker, id */                                                       \
	X(REPLY)            /* reply: the keeper's answer, or its death (outcome unknown) */       \
	X(GUARD_BUSY)       /* the byte of the epoch to acquire is locked by somebody else */      \
	X(GUARD_FREE)       /* number = epoch, cleared: what a waiter reported */                  \
	X(DATABASE_CHANGED) /* inotify: file or directory changed: inspect now */                  \
	X(DEADMAN_ARMED)    /* program (slot), term */                                             \
	X(DEADMAN_LOST)     /* it died; the shell is starting another */                           \
	X(DEADMAN_UP)       /* another one runs: arm again */                                      \
	X(LEASE_TAKEN)      /* worker, id: its page was cleared by the deadman */                  \
	X(START)            /* program, worker (-1 = all of it) */                                 \
	X(STOP)             /* program, worker (-1 = all of it) */                                 \
	X(RESTART)          /* program, worker (-1 = all of it) */                                 \
	X(ROLL)             /* program: replace its workers by others of the same settings;        \
			     * here and in RELOAD `number` is the shell's own */                   \
	X(SCALE)            /* program, number */                                                  \
	X(HANDOFF)          /* program, worker = the successor wanted (-1 = any other) */          \
	X(STEP_DOWN)        /* release the lock, stay out for two heartbeats */                    \
	X(RELOAD)           /* config, classes */                                                  \
	X(SHUTDOWN)         /* number = enum shutdown_mode */

enum event_kind {
#define X(name) EVENT_##name,
	CORE_EVENTS(X)
#undef X
		EVENT_KINDS
};

enum shutdown_mode { SHUTDOWN_NONE, SHUTDOWN_GRACEFUL, SHUTDOWN_QUICK, SHUTDOWN_KILL };

enum request_op {
	REQUEST_NONE,
	REQUEST_INSPECT,
	REQUEST_ACQUIRE,
	REQUEST_RENEW,
	REQUEST_PROMOTE,
	REQUEST_RELEASE,
};

/* As enum store_outcome; the shell translates. */
enum outcome {
	OUTCOME_DONE,
	OUTCOME_REFUSED,
	OUTCOME_UNKNOWN,
	OUTCOME_UNAVAILABLE,
	OUTCOME_MOVED,
	OUTCOME_WRONG,
};

#define CORE_ID_BYTES 40

/* What the lock row says, as far as decisions need it. */
struct lock_view {
	bool valid; /* false: the reply carries no row */
	char db_uuid[CORE_ID_BYTES];
	char holder[CORE_ID_BYTES];
	int64_t term, epoch, beat;
	int64_t ttl_ns;
	bool held;
	bool mine;           /* holder is this instance */
	bool floor_conflict; /* another UUID, or a lower term than the floor */
	int64_t floor_term;
	bool same_boot;    /* row's boot id is ours, and its guard file is ours: the byte tells */
	bool same_machine; /* machine id equal, boot id not: a reboot, if the byte is free */
	bool pid1;
	int64_t wall_us; /* the wall clock now, for a new epoch */
	uint64_t file;   /* of device and inode: the same row in another file is another sight */
	int64_t cleared; /* the mark in the guard file: no epoch up to it is given again */
};

struct keeper_answer {
	uint64_t id;
	enum request_op op;
	enum outcome outcome;
	bool floor_failed;
	struct lock_view view;
	const char *text; /* why; valid during core_handle only: the shell logs it */
};

struct event {
	enum event_kind kind;
	int worker;  /* slot in core.workers; -1 = none */
	uint64_t id; /* the spawn it is about: a late event of an earlier process is dropped */
	int program; /* slot in core.programs */
	int stage;
	bool ok;
	int pid;
	int code, signal; /* DIED: signal != 0 = killed by it */
	bool oom;
	uint64_t term;
	int64_t number;
	int64_t cleared;
	int64_t late_ns;
	const struct keeper_answer *reply;
	struct config *config;          /* RELOAD: becomes the core's current one */
	const enum diff_class *classes; /* RELOAD: one per program of CONFIG, in its order */
};

const char *event_name(enum event_kind k);

#endif

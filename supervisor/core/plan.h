/*
 * The output alphabet of the core: what the shell is to do, in this order.
 *
 * A plan is a bounded list in memory of the shell's; the core fails an assertion rather than drop
 * an action, so the shell reserves plan_capacity(core) items before each call.
 */
#ifndef BATON_CORE_PLAN_H
#define BATON_CORE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/core/event.h"

#define CORE_ACTIONS(X)                                                                            \
	X(STAGE_UP)   /* stage: answer with EVENT_STAGE */                                         \
	X(STAGE_DOWN) /* stage: take it down; no answer */                                         \
	X(SPAWN)      /* worker, id, held, executor_env, term: answer SPAWNED or SPAWN_FAILED */   \
	X(RELEASE_CHILD) /* worker: let the held child exec */                                     \
	X(SIGNAL)        /* worker, signal, group */                                               \
	X(KILL_TREE)     /* worker: SIGKILL everything below it until it is gone */                \
	X(COLLECT)       /* worker, tree: it died: kill the rest (tree), drain, answer GONE */     \
	X(REQUEST)       /* request: to the keeper (acquire: lock the guard byte first) */         \
	X(GUARD_UNLOCK)  /* number = epoch */                                                      \
	X(GUARD_MARK)    /* number = epoch: everything under it is dead */                         \
	X(WAIT_GUARD)    /* number = epoch to wait for; 0 = stop waiting */                        \
	X(ARM)           /* program, worker, term: answer DEADMAN_ARMED */                         \
	X(DISARM)        /* program */                                                             \
	X(PAGE_SHOW)     /* worker, term, soft_ns, deadline_ns */                                  \
	X(PAGE_EXTEND)   /* worker, soft_ns, deadline_ns; answer LEASE_TAKEN if it is clear */     \
	X(PAGE_CLEAR)    /* worker */                                                              \
	X(TELL_PROMOTE)  /* worker, term, number = ttl in ms */                                    \
	X(TELL_DEMOTE) /* worker, term, reason_code = enum channel_reason, number = grace in ms */ \
	X(PROBE_START) /* worker, number = enum probe_purpose, deadline_ns: answer PROBE_OK or     \
			  PROBE_FAILED by then */                                                  \
	X(PROBE_STOP)  /* worker: no answer is wanted any more */                                  \
	X(HOOK)        /* hook, program, worker, term */                                           \
	X(REPORT)      /* report: something people and `baton events` want to know */              \
	X(EXIT)        /* number = exit status: everything is down */

enum action_kind {
#define X(name) ACTION_##name,
	CORE_ACTIONS(X)
#undef X
		ACTION_KINDS
};

enum probe_purpose { PROBE_FOR_READY, PROBE_FOR_HEALTH };

enum hook { HOOK_PROMOTE, HOOK_DEMOTE, HOOK_STANDBY, HOOK_HOLDER };

/* What a report is about; FROM and TO are states of that machine. */
enum report_about {
	REPORT_WORKER,   /* worker changed its state */
	REPORT_EXECUTOR, /* program's executor changed its state */
	REPORT_ELECTION, /* the instance changed its state */
	REPORT_LIFECYCLE,
	REPORT_PROGRAM,    /* a remark about a program: reload, roll, dependency */
	REPORT_RECYCLE,    /* worker is to be recycled; from = enum recycle_why */
	REPORT_UNANSWERED, /* promote_timeout passed without `promoted` */
	REPORT_LOCK, /* a remark about the lock: held elsewhere, unavailable, takeover, floor */
	REPORT_IMPOSSIBLE, /* an event that the table says cannot happen: from = state, to = event
			    */
};

struct core_request {
	uint64_t id;
	enum request_op op;
	int64_t epoch, term, new_term, ttl_ns;
	int program, worker;     /* promote; worker -1 = the program has none any more */
	struct lock_view expect; /* acquire: compare and swap on this */
	const char *reason;
};

struct action {
	enum action_kind kind;
	int stage;
	int worker, program;
	uint64_t id;
	bool held, group, tree;
	int executor_env; /* -1 = unset, 0, 1 */
	int signal;
	uint64_t term;
	int64_t soft_ns, deadline_ns;
	int64_t number;
	int reason_code;
	enum hook hook;
	struct core_request request;
	enum report_about about;
	int from, to;
	const char *reason; /* static text */
};

struct plan {
	struct action *items;
	size_t count, capacity;
};

#endif

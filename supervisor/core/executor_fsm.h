/* One candidate program: none, promoting, executing, draining; picks its executor. */
#ifndef BATON_CORE_EXECUTOR_FSM_H
#define BATON_CORE_EXECUTOR_FSM_H

#include "supervisor/core/core.h"

#define EXECUTOR_EVENTS(X)                                                                         \
	X(COMMITTED) /* the promote request is durable, the floor too */                           \
	X(NOT_COMMITTED)                                                                           \
	X(FORKED)   /* the held child of respawn or only waits */                                  \
	X(ARMED)    /* the deadman answered */                                                     \
	X(REARM)    /* another deadman runs */                                                     \
	X(UNARMED)  /* the deadman died */                                                         \
	X(PROMOTED) /* the worker answered */                                                      \
	X(DEMOTED)  /* the worker executes nothing any more */                                     \
	X(BUSY)                                                                                    \
	X(DIED)      /* the worker's main process is dead */                                       \
	X(GONE)      /* its whole tree is */                                                       \
	X(DRAIN)     /* hand off, shut down */                                                     \
	X(WITHDRAWN) /* the worker is stopped or removed: only a promotion under way cares */      \
	X(LOSE)      /* the lease is lost or ends: kill */                                         \
	X(DEADLINE)

enum executor_event {
#define X(name) EXECUTOR_EVENT_##name,
	EXECUTOR_EVENTS(X)
#undef X
		EXECUTOR_EVENT_COUNT
};

void executor_handle(
	struct core *c, struct program *p, enum executor_event what, const struct event *e);
const char *executor_event_name(enum executor_event e);
bool executor_table_has(enum executor_state s, enum executor_event e);

/* Choose and begin promotions wherever one is missing and allowed. */
void executor_run(struct core *c);
/* Demote with REASON (enum channel_reason); STOP: stop the worker then. */
void executor_drain(struct core *c, struct program *p, int reason, bool stop, const char *why);
/* An operator's handoff; SUCCESSOR -1 = the best other candidate. Reported when there is none. */
void executor_handoff(struct core *c, struct program *p, int successor);
/* W is being stopped: forget its promotion, if one is under way. */
void executor_withdraw(struct core *c, struct worker *w);
/* No program has an executor or one under way. */
bool executor_all_none(const struct core *c);
/* One that was killed and is not gone within the kill grace: stops the beat. */
bool executor_any_unkillable(const struct core *c);
/* Some candidate program has an executor or a worker that could become one. */
bool executor_any_possible(const struct core *c);
/* Is W (about to be spawned) to become the executor? Then the machine has taken it over. */
bool executor_claims_spawn(struct core *c, struct worker *w);
/* Show the renewed lease to all executors. */
void executor_extend_all(struct core *c);
/* Answer `hello`: tell it the present state again. */
void executor_hello(struct core *c, struct worker *w);
bool executor_is(const struct core *c, const struct worker *w);

#endif

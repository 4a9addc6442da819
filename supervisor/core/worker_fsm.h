/* One worker: stopped starting running stopping backoff exited fatal standby. */
#ifndef BATON_CORE_WORKER_FSM_H
#define BATON_CORE_WORKER_FSM_H

#include "supervisor/core/core.h"

#define WORKER_EVENTS(X)                                                                           \
	X(START) /* run it */                                                                      \
	X(STOP)  /* gracefully; worker->after says what follows */                                 \
	X(KILL)  /* at once; worker->after says what follows */                                    \
	X(SPAWNED)                                                                                 \
	X(SPAWN_FAILED)                                                                            \
	X(EXECED)                                                                                  \
	X(READY)                                                                                   \
	X(DIED)                                                                                    \
	X(GONE)                                                                                    \
	X(DRAINED)   /* the executor machine has taken the baton from it */                        \
	X(EXTEND)    /* EXTEND_TIMEOUT_USEC */                                                     \
	X(WATCHDOG)  /* WATCHDOG=1 */                                                              \
	X(PROBE_DUE) /* the next probe, or the answer to one that never came */                    \
	X(PROBE_OK)                                                                                \
	X(PROBE_FAILED)                                                                            \
	X(DEADLINE) /* of the state */

enum worker_event {
#define X(name) WORKER_EVENT_##name,
	WORKER_EVENTS(X)
#undef X
		WORKER_EVENT_COUNT
};

/* E may be NULL for START, STOP, KILL, DRAINED, DEADLINE. */
void worker_handle(struct core *c, struct worker *w, enum worker_event what, const struct event *e);
const char *worker_event_name(enum worker_event e);
/* true when the table has a cell (also IGNORE) for the pair. */
bool worker_table_has(enum worker_state s, enum worker_event e);

/* Ask it to end and what shall follow; a stronger wish replaces a weaker one. */
void worker_stop(struct core *c, struct worker *w, enum worker_after after, const char *reason);
void worker_kill(struct core *c, struct worker *w, enum worker_after after, const char *reason);
void worker_start(struct core *c, struct worker *w);
/* Spawn as the executor of TERM: held until it is armed (respawn, only). */
void worker_spawn_executor(struct core *c, struct worker *w, uint64_t term);
/* To a resting state without any process (standby of `only`). */
void worker_rest(struct core *c, struct worker *w, enum worker_state s, const char *reason);
/* A reload gave it other settings that apply in place. */
void worker_settings_changed(struct core *c, struct worker *w);
/* It has no process and none is being started. */
bool worker_is_down(const struct worker *w);
/* executor = only, and another instance is to run it: this one is content. */
bool worker_is_elsewhere(const struct core *c, const struct worker *w);
/* May be chosen as executor by a line or a signal. */
bool worker_is_candidate(const struct worker *w);

#endif

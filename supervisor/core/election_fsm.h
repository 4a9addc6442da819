/* The instance's part in the election: standby, acquiring, holding, releasing, lost. */
#ifndef BATON_CORE_ELECTION_FSM_H
#define BATON_CORE_ELECTION_FSM_H

#include "supervisor/core/core.h"

#define ELECTION_EVENTS(X)                                                                         \
	X(BEGIN)    /* database and deadman are up */                                              \
	X(SEEN)     /* an inspect was answered */                                                  \
	X(NOT_SEEN) /* an inspect was not: unavailable, unknown */                                 \
	X(WRONG)    /* the database is wrong */                                                    \
	X(ACQUIRED)                                                                                \
	X(NOT_ACQUIRED) /* refused: somebody else was quicker */                                   \
	X(RENEWED)                                                                                 \
	X(NOT_RENEWED) /* refused with a row, or a proven loss (moved) */                          \
	X(UNKNOWN)     /* acquire, renew, promote, release: no certain answer */                   \
	X(RELEASED)                                                                                \
	X(GUARD_BUSY)                                                                              \
	X(GUARD_FREE)                                                                              \
	X(CHANGED) /* inotify */                                                                   \
	X(STEP_DOWN)                                                                               \
	X(SHUTDOWN)                                                                                \
	X(EXECUTORS_GONE) /* none is left */                                                       \
	X(TICK)           /* time has passed */

enum election_event {
#define X(name) ELECTION_EVENT_##name,
	ELECTION_EVENTS(X)
#undef X
		ELECTION_EVENT_COUNT
};

void election_handle(struct core *c, enum election_event what, const struct event *e);
const char *election_event_name(enum election_event e);
bool election_table_has(enum election_state s, enum election_event e);

/* A keeper's answer, sorted into the events above. */
void election_reply(struct core *c, const struct event *e);
/* Deadlines first: a passed hard deadline is a loss before anything else is looked at. */
void election_check_time(struct core *c, int64_t late_ns);
/* Send what is to be sent, when no request is in flight. */
void election_send(struct core *c);
int64_t election_deadline(const struct core *c);
/* May an executor be promoted now? */
bool election_may_promote(const struct core *c);
bool election_holds(const struct core *c);
/* The configuration's ttl or heartbeat changed. */
void election_settings_changed(struct core *c);
/* ttl of the lease less 2 % and the kill grace, for the hard deadline. */
int64_t election_lease_ns(int64_t ttl_ns, int64_t kill_grace_ns);

#endif

/*
 * The replacement of one program's workers by those of another version: idle, canary, rolling,
 * rolling back, half way; and of one worker by another of the same version: recycling.
 *
 * While it runs program.settings is the version aimed at, rollout.settings the one before, which is
 * complete and known to run: a failure swaps them. A worker of another generation than the
 * program's is to be replaced; while recycling, the one that is stale.
 *
 * A version has ROLLOUT_TRIES starts of a worker, the ordinary backoff between them. What is not
 * its fault (fork: EAGAIN, ENOMEM, descriptors) has ROLLOUT_SPAWN_TRIES; a start that was not ready
 * in time has had its time. Every waiting has an end: a start by ready_timeout, a stop by
 * stopwaitsecs, a handoff by handoff_timeout.
 */
#ifndef BATON_CORE_ROLLOUT_FSM_H
#define BATON_CORE_ROLLOUT_FSM_H

#include "supervisor/core/core.h"

#define ROLLOUT_EVENTS(X)                                                                          \
	X(BEGIN)    /* the program's settings are others now */                                    \
	X(LOOK)     /* something may have happened to its workers */                               \
	X(PROVED)   /* the canary is ready */                                                      \
	X(FAILED)   /* a worker of the version aimed at does not start */                          \
	X(COMPLETE) /* every worker is of the version aimed at */                                  \
	X(CANCEL)   /* the program is stopped or taken out, or the supervisor stops */             \
	X(RECYCLE)  /* a worker is stale, and nothing else is under way */

#define ROLLOUT_TRIES       3
#define ROLLOUT_SPAWN_TRIES 10

enum rollout_event {
#define X(name) ROLLOUT_EVENT_##name,
	ROLLOUT_EVENTS(X)
#undef X
		ROLLOUT_EVENT_COUNT
};

void rollout_handle(struct core *c, struct program *p, enum rollout_event what);
const char *rollout_event_name(enum rollout_event e);
bool rollout_table_has(enum rollout_state s, enum rollout_event e);

/* P, which had COUNT workers, is to run S of CONFIG at POSITION, which may be what it runs (another
 * generation then); its workers are replaced, if it is started. */
void rollout_aim(struct core *c, struct program *p, const struct config *config,
	const struct config_program *s, int position, int count);
/* Nothing else to do than what was done so far: finished, or none. */
bool rollout_is_active(const struct program *p);
/* Replacing is under way: not half way, where nobody knows for how long. */
bool rollout_moves(const struct program *p);
/* What runs is not what the configuration says: the next reload tries again. */
bool rollout_wants_retry(const struct program *p);
/* The version W is to be started with now. */
const struct config_program *rollout_settings(
	const struct program *p, const struct worker *w, uint32_t *ret_generation);
/* Is W, as an executor, to be preferred to workers of which this is not true? */
bool rollout_prefers(const struct program *p, const struct worker *w);
/* Workers that one rollout may have beyond the wanted ones. */
int rollout_most_extra(const struct program *p);
/* Workers that are of the version aimed at and up, of how many. */
void rollout_progress(const struct core *c, int program, int *ret_done, int *ret_total);
/* It is of the version aimed at, and as far as it gets. */
bool rollout_has_come(const struct core *c, const struct program *p, const struct worker *w);
/* How many of COUNT workers with settings S are replaced at a time: EXTRA before the old ones are
 * stopped (0 = those are stopped first), with MISSING not serving. */
void rollout_limits(const struct config_program *s, int count, int *ret_extra, int *ret_missing);
/* How many failed starts of W in a row end the attempt; 0 = none is under way with it. */
int rollout_tries(const struct program *p, const struct worker *w);
/* W has fed its watchdog or passed a probe of its health, or ends without having done so. */
void rollout_judge(const struct core *c, struct program *p, const struct worker *w, bool well);
/* W's turn as executor is over, soon after it had begun or not. */
void rollout_executor_ended(
	const struct core *c, struct program *p, const struct worker *w, bool short_lived);
/* Its end is that of a new version's attempt: on_fatal = exit does not mean it. */
bool rollout_shields(const struct core *c, const struct worker *w);

/* --- rollout_recycle.c */
/* A new process: young, small. */
void rollout_born(struct core *c, struct worker *w);
/* Begin to recycle, if a worker is due and nothing is in the way. */
void rollout_look_idle(struct core *c, struct program *p);
/* When the age of some worker of P is due; 0 = never. */
int64_t rollout_due_ns(const struct core *c, const struct program *p, const struct worker *w);
int64_t rollout_deadline(const struct core *c);

#endif

/* Shared by the files of the rollout's machine alone: rollout_fsm.c (the machine) and
 * rollout_step.c (whose turn it is). */
#ifndef BATON_CORE_ROLLOUT_INTERNAL_H
#define BATON_CORE_ROLLOUT_INTERNAL_H

#include "supervisor/core/rollout_fsm.h"

/* rollout_fsm.c */
/* The version before is forgotten. */
void rollout_forget(struct program *p, enum rollout_outcome outcome);

/* W is too large soon after its start: nobody is recycled for a while. */
void rollout_postpone_memory(struct core *c, struct program *p, const struct worker *w);

/* rollout_step.c */
/* Those whose replacement serves go, as far as the limits allow it. */
void rollout_dismiss(struct core *c, struct program *p);
/* Replace what may be replaced now. */
void rollout_step(struct core *c, struct program *p);
bool rollout_is_available(const struct core *c, const struct worker *w);
/* The one that W is to replace is still there beside it. */
bool rollout_has_elder(const struct core *c, const struct worker *w);
/* The slot of the first replacement, and beginning it; -1 = none (yet). */
int rollout_find_canary(const struct core *c, const struct program *p);
int rollout_begin_canary(struct core *c, struct program *p);
/* Another version is aimed at: who is still there beside its replacement stays, that one goes. */
void rollout_unpair(struct core *c, struct program *p);
/* Whoever is there beside its replacement goes. */
void rollout_drop_outgoing(struct core *c, struct program *p);
bool rollout_is_failing(const struct program *p, const struct worker *w);
/* Every worker has come, the executor not yet; and until when that is waited for. */
bool rollout_awaits_executor(const struct core *c, const struct program *p);
int64_t rollout_executor_by_ns(const struct program *p);
int rollout_find_failing(const struct core *c, const struct program *p); /* -1 = none */
bool rollout_is_complete(const struct core *c, const struct program *p);

#endif

/* Wanted against actual workers: start order, scale, replacement of changed programs, stop order.
 */
#ifndef BATON_CORE_POOL_H
#define BATON_CORE_POOL_H

#include "supervisor/core/core.h"

/* Take a configuration's programs over: CLASSES as diff says (NULL = all are new). */
void pool_configure(struct core *c, struct config *config, const enum diff_class *classes);
/* Bring actual towards wanted; cheap when nothing is to be done. */
void pool_run(struct core *c);
void pool_start(struct core *c, int program, int worker);
void pool_stop(struct core *c, int program, int worker);
void pool_restart(struct core *c, int program, int worker);
/* Replace all its workers by others of the same settings, as a rollout; start it if it is not. */
void pool_roll(struct core *c, int program);
void pool_scale(struct core *c, int program, int count);
/* A worker has come to rest, or has become ready. */
void pool_worker_changed(struct core *c, struct worker *w);
/* A new worker at rest, in a free slot. */
int pool_add_worker(struct core *c, int program, int index);
void pool_touch_all(struct core *c);
/* Is this program (all its wanted workers) ready / started / done? */
bool pool_is_ready(const struct core *c, int program);
/* Stop level by level, the last started first; call again after every event. */
void pool_stop_levels(struct core *c);
bool pool_all_down(const struct core *c);
int64_t pool_deadline(const struct core *c);

#endif

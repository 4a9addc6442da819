/* Shared by the files of the worker's machine alone: worker_fsm.c and worker_end.c. */
#ifndef BATON_CORE_WORKER_INTERNAL_H
#define BATON_CORE_WORKER_INTERNAL_H

#include "supervisor/core/worker_fsm.h"

/* SIGKILL is sent again, and said again, while a tree does not end. */
#define WORKER_REKILL_NS (5 * CORE_SECOND)

static inline struct program *worker_program(struct core *c, const struct worker *w)
{
	return &c->programs[w->program];
}

/* worker_fsm.c */
void worker_enter(struct core *c, struct worker *w, enum worker_state s, const char *reason);
/* What START does, whatever the state. */
void worker_begin(struct core *c, struct worker *w);

/* worker_end.c */
void worker_died(struct core *c, struct worker *w, const struct event *e);
void worker_died_stopping(struct core *c, struct worker *w, const struct event *e);
void worker_spawn_failed(struct core *c, struct worker *w, const struct event *e);
void worker_spawn_failed_stopping(struct core *c, struct worker *w, const struct event *e);
void worker_gone(struct core *c, struct worker *w, const struct event *e);

#endif

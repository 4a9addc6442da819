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

void worker_become_ready(struct core *c, struct worker *w);
/* A failed start, in the words of REASON. */
void worker_not_ready(struct core *c, struct worker *w, const char *reason);
/* What STOP and KILL do. */
void worker_stop_now(struct core *c, struct worker *w, const struct event *e);
void worker_kill_now(struct core *c, struct worker *w, const struct event *e);

/* worker_probe.c */
void worker_probe_begin(struct core *c, struct worker *w);  /* of readiness: it runs */
void worker_probe_health(struct core *c, struct worker *w); /* it is ready */
void worker_probe_end(struct core *c, struct worker *w);    /* it is neither starting nor ready */
void worker_probe_hint(struct core *c, struct worker *w);   /* it may be ready now */
void worker_probe_due(struct core *c, struct worker *w, const struct event *e);
void worker_probe_ok_starting(struct core *c, struct worker *w, const struct event *e);
void worker_probe_failed_starting(struct core *c, struct worker *w, const struct event *e);
void worker_probe_ok_running(struct core *c, struct worker *w, const struct event *e);
void worker_probe_failed_running(struct core *c, struct worker *w, const struct event *e);

/* worker_end.c */
void worker_died(struct core *c, struct worker *w, const struct event *e);
void worker_died_stopping(struct core *c, struct worker *w, const struct event *e);
void worker_spawn_failed(struct core *c, struct worker *w, const struct event *e);
void worker_spawn_failed_stopping(struct core *c, struct worker *w, const struct event *e);
void worker_gone(struct core *c, struct worker *w, const struct event *e);
/* It ends by its health or its watchdog: what follows. */
void worker_unfit(struct core *c, struct worker *w);

#endif

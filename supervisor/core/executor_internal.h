/* Shared by the files of the executor's machine alone: executor_fsm.c (the machine),
 * executor_choose.c (whose turn it is), executor_drain.c (the end of a turn), executor_lease.c
 * (page, deadman, questions). */
#ifndef BATON_CORE_EXECUTOR_INTERNAL_H
#define BATON_CORE_EXECUTOR_INTERNAL_H

#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/worker_fsm.h"

/* As enum channel_reason (worker/channel.h), which a core may not include. */
enum demote_reason { DEMOTE_HANDOFF, DEMOTE_SHUTDOWN, DEMOTE_LOST };

#define EXECUTOR_ARM_NS    (1 * CORE_SECOND) /* election.md: no deadman armed within 1 s: demote */
#define EXECUTOR_COMMIT_NS (10 * CORE_SECOND)

static inline struct worker *executor_worker(struct core *c, struct program *p)
{
	return core_worker(c, p->executor.worker);
}

/* executor_fsm.c */
void executor_begin(struct core *c, struct program *p, int worker, enum promote_phase phase);

void executor_enter(struct core *c, struct program *p, enum executor_state s, const char *reason);
void executor_hook(struct core *c, struct program *p, enum hook kind);
/* Its term is burnt; the worker goes on as what it was. */
void executor_abandon(struct core *c, struct program *p, int64_t wait_ns, const char *reason);

/* executor_drain.c */
/* The worker no longer executes (demoted), or has had its time (not demoted). */
void executor_finish_drain(struct core *c, struct program *p);
void executor_count_life(struct core *c, struct program *p);
void executor_do_drain(struct core *c, struct program *p, const struct event *e);
void executor_drain_more(struct core *c, struct program *p, const struct event *e);
void executor_drain_promoting(struct core *c, struct program *p, const struct event *e);
void executor_demoted(struct core *c, struct program *p, const struct event *e);
void executor_demoted_itself(struct core *c, struct program *p, const struct event *e);
void executor_busy_draining(struct core *c, struct program *p, const struct event *e);

/* executor_lease.c */
/* An action about the executor: its program, worker, term. */
struct action *executor_push(struct core *c, struct program *p, enum action_kind kind);
void executor_clear_page(struct core *c, struct program *p);
void executor_arm(struct core *c, struct program *p);
void executor_show(struct core *c, struct program *p);
void executor_tell(struct core *c, struct program *p);
void executor_armed_again(struct core *c, struct program *p, const struct event *e);
void executor_rearm(struct core *c, struct program *p, const struct event *e);
void executor_unarmed(struct core *c, struct program *p, const struct event *e);

#endif

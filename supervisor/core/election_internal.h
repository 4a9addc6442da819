/* Shared by the files of the election's machine alone: election_fsm.c (table, answers, sending),
 * election_standby.c (standby, acquiring), election_holding.c (holding, releasing, lost). */
#ifndef BATON_CORE_ELECTION_INTERNAL_H
#define BATON_CORE_ELECTION_INTERNAL_H

#include "supervisor/core/election_fsm.h"

#define ELECTION_RETRY_NS       (1 * CORE_SECOND)
#define ELECTION_QUICK_RETRY_NS (50 * CORE_MS)

static inline const struct config_scheduler *election_settings(const struct core *c)
{
	return &c->config->scheduler;
}

static inline int64_t election_earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* election_fsm.c */
void election_enter(struct core *c, enum election_state s, const char *reason);
void election_remark(struct core *c, const char *reason);
void election_wait_guard(struct core *c, int64_t epoch); /* 0 = stop waiting */
void election_unlock_guard(struct core *c, int64_t epoch);
/* The database does not answer: a state that is told once, and lived through. */
void election_set_unavailable(struct core *c, const char *reason);
void election_set_available(struct core *c);
/* Fill the one request; the caller completes and pushes it. */
void election_prepare(struct core *c, enum request_op op);
void election_push(struct core *c);
/* The row is ours, of our epoch, in the database we know, and not an older one. */
bool election_still_ours(const struct core *c, const struct lock_view *v);

/* election_standby.c */
void election_stand_by(struct core *c, int64_t look_in_ns, const char *reason);
void election_begin(struct core *c, const struct event *ev);
void election_seen_standby(struct core *c, const struct event *ev);
void election_not_seen_standby(struct core *c, const struct event *ev);
void election_wrong_standby(struct core *c, const struct event *ev);
void election_guard_free(struct core *c, const struct event *ev);
void election_changed_standby(struct core *c, const struct event *ev);
void election_shutdown_standby(struct core *c, const struct event *ev);
void election_acquired(struct core *c, const struct event *ev);
void election_not_acquired(struct core *c, const struct event *ev);
void election_guard_busy(struct core *c, const struct event *ev);
void election_unknown_acquiring(struct core *c, const struct event *ev);
void election_seen_acquiring(struct core *c, const struct event *ev);
void election_not_seen_acquiring(struct core *c, const struct event *ev);

/* election_holding.c */
void election_set_lease(struct core *c, int64_t t0_ns, int64_t ttl_ns);
void election_start_release(struct core *c, const char *reason);
/* The lease is over, proven or by the clock: never resumed in this epoch. */
void election_lose(struct core *c, const char *reason);
void election_renewed(struct core *c, const struct event *ev);
void election_not_renewed(struct core *c, const struct event *ev);
void election_unknown_holding(struct core *c, const struct event *ev);
void election_seen_holding(struct core *c, const struct event *ev);
void election_wrong_holding(struct core *c, const struct event *ev);
void election_changed_holding(struct core *c, const struct event *ev);
void election_step_down(struct core *c, const struct event *ev);
void election_shutdown_holding(struct core *c, const struct event *ev);
void election_released(struct core *c, const struct event *ev);
void election_unknown_releasing(struct core *c, const struct event *ev);
void election_gone_lost(struct core *c, const struct event *ev);
void election_gone_releasing(struct core *c, const struct event *ev);
void election_tick_holding(struct core *c, const struct event *ev);
/* What is due while the lock is held. */
void election_send_holding(struct core *c);
/* When the executors are to be told that the lease ends; 0 = no reason to. */
int64_t election_warning_ns(const struct core *c);

#endif

/*
 * Inside of machine.h: machine.c (the instance), machine_look.c (what the ledger says),
 * machine_config.c (its jobs), machine_fire.c (firings), machine_run.c (what happens to a run),
 * machine_turn.c (whose turn it is), machine_slot.c (where runs are kept).
 */
#ifndef BATON_WORKER_JOBS_MACHINE_INTERNAL_H
#define BATON_WORKER_JOBS_MACHINE_INTERNAL_H

#include "worker/jobs/machine.h"

#define JOBS_SECOND_NS INT64_C(1000000000)
#define JOBS_SECOND_US INT64_C(1000000)
#define JOBS_AGAIN_NS  JOBS_SECOND_NS
#define JOBS_LEASE_NS  (JOBS_SECOND_NS / 2)
/* Before the supervisor's patience with a demotion ends. */
#define JOBS_LAST_WORD_NS (JOBS_SECOND_NS / 5)
#define JOBS_LOOKBACK_US  (3600 * JOBS_SECOND_US)

/* machine.c */
void machine_emit(struct jobs_machine *m, enum jobs_action_kind kind, const struct jobs_run *r,
	enum ledger_status status, int64_t number);
void machine_note(struct jobs_machine *m, int job, const char *text, int64_t number);
void machine_settle(struct jobs_machine *m, const struct jobs_now *now); /* after every event */

/* machine_look.c */
void machine_look(struct jobs_machine *m);

/* machine_fire.c */
uint64_t machine_hash(const char *text);
void machine_heap_put(struct jobs_machine *m, int job); /* its due time is another */
void machine_heap_drop(struct jobs_machine *m, int job);
void machine_aim(
	struct jobs_machine *m, int job); /* the next firing after last_us, into the heap */
void machine_accept_clock(struct jobs_machine *m, int job, const struct jobs_now *now);
void machine_fire_due(struct jobs_machine *m, const struct jobs_now *now);
/* One firing that is to run, under the overlap policy. */
void machine_fire(struct jobs_machine *m, int job, int64_t fire_us, enum ledger_cause cause,
	int64_t request, const struct jobs_now *now);

/* machine_slot.c: a pointer to a run holds until the next machine_run_new */
struct jobs_run *machine_run_new(struct jobs_machine *m, int job, int64_t fire_us, int attempt,
	enum ledger_cause cause, enum ledger_status as); /* NULL: too many, or no memory */
void machine_run_free(struct jobs_machine *m, struct jobs_run *r);
int machine_run_slot(const struct jobs_machine *m, const struct jobs_run *r);
struct jobs_job *machine_run_job(struct jobs_machine *m, const struct jobs_run *r);
void machine_run_enter(struct jobs_machine *m, struct jobs_run *r, enum jobs_run_state s);
void machine_run_set_deadline(struct jobs_machine *m, struct jobs_run *r, int64_t at_ns);
void machine_run_leave_place(struct jobs_machine *m, struct jobs_run *r); /* it does not run */
void machine_run_leave_job(struct jobs_machine *m, struct jobs_run *r); /* its job has it no more */
void machine_list_add(struct jobs_machine *m, struct jobs_run *r, int *head, int *tail);
void machine_list_drop(struct jobs_machine *m, struct jobs_run *r, int *head, int *tail);
struct jobs_run *machine_list_pop(struct jobs_machine *m, int *head, int *tail);

/* machine_turn.c */
void machine_run_claim(struct jobs_machine *m, struct jobs_run *r);
void machine_run_claims(struct jobs_machine *m, const struct jobs_now *now);
void machine_run_claim_unknown(
	struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now);
void machine_run_claim_sure(struct jobs_machine *m, struct jobs_run *r);
void machine_run_update(struct jobs_machine *m, struct jobs_run *r, enum ledger_status status);
bool machine_run_has_place(const struct jobs_machine *m, int job);
void machine_run_wait(struct jobs_machine *m, struct jobs_run *r); /* claimed: its turn comes */
void machine_run_release_waiting(struct jobs_machine *m, int job);
void machine_run_make_ready(struct jobs_machine *m, struct jobs_run *r, const struct jobs_now *now);
void machine_run_count_end(struct jobs_machine *m, const struct jobs_now *now);
void machine_pump(struct jobs_machine *m, const struct jobs_now *now);

/* machine_run.c */
void machine_run_handle(struct jobs_machine *m, struct jobs_run *r, enum jobs_run_event e,
	const struct jobs_now *now);
void machine_run_finish(
	struct jobs_machine *m, int slot, enum ledger_status status, const struct jobs_now *now);
void machine_run_adopt(
	struct jobs_machine *m, int job, const struct ledger_run *row, const struct jobs_now *now);

#endif

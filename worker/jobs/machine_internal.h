/* Inside of machine.h: machine.c (the instance), machine_fire.c (firings), machine_run.c (runs). */
#ifndef BATON_WORKER_JOBS_MACHINE_INTERNAL_H
#define BATON_WORKER_JOBS_MACHINE_INTERNAL_H

#include "worker/jobs/machine.h"

#define JOBS_SECOND_NS   INT64_C(1000000000)
#define JOBS_SECOND_US   INT64_C(1000000)
#define JOBS_AGAIN_NS    JOBS_SECOND_NS
#define JOBS_LEASE_NS    (JOBS_SECOND_NS / 2)
#define JOBS_LOOKBACK_US (3600 * JOBS_SECOND_US)

/* machine.c */
void machine_emit(struct jobs_machine *m, enum jobs_action_kind kind, const struct jobs_run *r,
	enum ledger_status status, int64_t number);
void machine_note(struct jobs_machine *m, int job, const char *text, int64_t number);
void machine_settle(struct jobs_machine *m, const struct jobs_now *now); /* after every event */

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

/* machine_run.c */
struct jobs_run *machine_run_new(struct jobs_machine *m, int job, int64_t fire_us, int attempt,
	enum ledger_cause cause, enum ledger_status as); /* NULL: too many, or no memory */
void machine_run_claims(struct jobs_machine *m, const struct jobs_now *now);
void machine_run_claim(struct jobs_machine *m, struct jobs_run *r);
void machine_run_free(struct jobs_machine *m, struct jobs_run *r);
void machine_run_wait(struct jobs_machine *m, struct jobs_run *r); /* claimed: its turn comes */
void machine_run_handle(struct jobs_machine *m, struct jobs_run *r, enum jobs_run_event e,
	const struct jobs_now *now);
void machine_run_adopt(
	struct jobs_machine *m, int job, const struct ledger_run *row, const struct jobs_now *now);
void machine_pump(struct jobs_machine *m, const struct jobs_now *now);
bool machine_run_has_place(const struct jobs_machine *m, int job);

#endif

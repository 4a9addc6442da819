/*
 * The job machine: which firing runs, when, and what becomes of it. Pure: no system call, no clock.
 *
 * What happened goes in by the functions below, each with the present time; what is to be done
 * comes out through `emit`, in order (it must not call back into the machine). The machine leads
 * while its worker is the executor: after machine_promoted it asks for the ledger (JOBS_LOOK),
 * takes over what an earlier executor left, then runs firings until machine_demoted.
 *
 * Memory: an entry for each job, and for each firing in work, at most JOBS_RUNS of them: while so
 * many are in work further firings wait. Allocation happens in machine_configure and when more
 * firings are in work than ever before; when it fails, firings wait as well.
 *
 * A firing is on time until its job's next one is due (within a minute), and for two seconds in any
 * case; later it counts as missed. It is due up to its jitter later than it fires, and always
 * before the next one of its job fires.
 */
#ifndef BATON_WORKER_JOBS_MACHINE_H
#define BATON_WORKER_JOBS_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/config.h"
#include "worker/lock/store_jobs.h"

#define JOBS_RUNS      16384 /* firings in work at the same time */
#define JOBS_JOB_QUEUE 100   /* of one job (overlap = queue): the next ones are skipped */
#define JOBS_NEVER     INT64_MAX

#define JOBS_STATES(X)                                                                             \
	X(IDLE, "idle")             /* not the executor */                                         \
	X(RECOVERING, "recovering") /* promoted: the ledger was asked */                           \
	X(LEADING, "leading")                                                                      \
	X(DRAINING, "draining") /* demoted: what runs may finish */                                \
	X(SETTLING, "settling") /* nothing runs, `demoted` was said: the ledger is told the rest   \
				 */

enum jobs_state {
#define X(id, name) JOBS_##id,
	JOBS_STATES(X)
#undef X
		JOBS_STATE_COUNT
};

#define JOBS_RUN_STATES(X)                                                                         \
	X(CLAIMING, "claiming") /* the ledger was asked */                                         \
	X(QUEUED, "queued")     /* claimed; its turn comes */                                      \
	X(BACKOFF, "backoff")   /* claimed; a retry that waits */                                  \
	X(STARTING, "starting") /* the ledger is being told that it runs */                        \
	X(READY, "ready")       /* to be started when there is room and the lease allows */        \
	X(RUNNING, "running")                                                                      \
	X(STOPPING, "stopping")  /* it was sent TERM, later KILL */                                \
	X(GIVING, "giving back") /* claimed as running, not started: queued again for another */   \
	X(ENDING, "ending")      /* over; the ledger is being told */

enum jobs_run_state {
#define X(id, name) JOBS_RUN_##id,
	JOBS_RUN_STATES(X)
#undef X
		JOBS_RUN_STATE_COUNT
};

#define JOBS_RUN_EVENTS(X)                                                                         \
	X(CLAIMED)  /* the ledger's answer to the claim */                                         \
	X(RECORDED) /* an update is in the ledger */                                               \
	X(REFUSED)  /* an update was refused */                                                    \
	X(UNKNOWN)  /* no answer, or none that can be trusted: to be asked again */                \
	X(ENDED)    /* its whole tree is gone */                                                   \
	X(DEADLINE)                                                                                \
	X(REPLACED) /* a newer firing takes its place */                                           \
	X(REMOVED)  /* its job is not in the configuration any more */                             \
	X(WITHDRAW) /* demoted */

enum jobs_run_event {
#define X(id) JOBS_RUN_EVENT_##id,
	JOBS_RUN_EVENTS(X)
#undef X
		JOBS_RUN_EVENT_COUNT
};

struct jobs_now {
	int64_t wall_us, boot_ns;
	int64_t soft_ns; /* nothing is started from here on; 0 = not the executor */
};

/* What the machine needs to know of one job. The strings and pointers are the caller's and live
 * until the next jobs_configure; DEFINITION is passed along with actions. */
struct jobs_policy {
	const char *name;
	void *definition;
	const void *schedule;
	uint64_t schedule_id; /* differs when the schedule differs */
	uint64_t declared_id; /* that of struct ledger_job, when the ledger has this schedule */
	bool at_promotion, enabled, on_failure;
	enum config_overlap overlap;
	enum config_missed missed;
	enum config_interrupted interrupted;
	int retries;
	int64_t missed_limit_ns, timeout_ns, stop_ns, retry_backoff_ns, jitter_ns,
		handoff_timeout_ns;
};

struct jobs_ref { /* a run; an old one is recognized */
	int slot;
	uint64_t serial;
};

struct jobs_job {
	bool used, gone; /* gone: in the configuration no more; its last runs are in work */
	char name[LEDGER_NAME_BYTES];
	uint64_t hash;
	struct jobs_policy policy;
	bool paused;
	int64_t last_us;          /* the latest firing that is decided */
	int64_t next_us, due_us;  /* the next firing; with jitter */
	int heap_at;              /* -1 = not in the heap */
	int active, pending;      /* runs with a place; all that are not over */
	int wait_head, wait_tail; /* runs that wait for the one before; slots, -1 = none */
	int retries_waiting;      /* for their backoff */
};

struct jobs_run {
	bool used;
	uint64_t serial;
	enum jobs_run_state state;
	int job;
	int64_t fire_us;
	int attempt, reruns; /* reruns: how many of them are not retries, as far as is known */
	enum ledger_cause cause;
	int64_t request;
	enum ledger_status status; /* CLAIMING: as what; ENDING: as what it ended */
	int64_t owner, by_term;    /* of an earlier executor's row, until it is ours; 0 = it is */
	int64_t deadline_ns;       /* boot; JOBS_NEVER = none */
	int64_t drain_ns;          /* DRAINING: it is stopped then */
	bool place, killed, asked, unsure; /* asked: the ledger has a request of it in flight */
	bool doubted;                      /* STARTING: an earlier try may have been done */
	enum ledger_status stopped_as;     /* STOPPING: why */
	enum ledger_status instead;        /* not to be started: it ends as that; 0 = no */
	int64_t started_us, ended_us;
	int code, signal;   /* -1, 0 = none */
	const char *reason; /* static text */
	int next;           /* in a list */
};

enum jobs_action_kind {
	JOBS_CLAIM,   /* run: machine_claimed, or machine_unknown */
	JOBS_UPDATE,  /* run, status: machine_recorded, or machine_unknown */
	JOBS_START,   /* run: machine_ended comes in any case (also when it could not be started) */
	JOBS_STOP,    /* run, number = signal: to its whole tree */
	JOBS_FORGET,  /* run: over, its slot is given anew */
	JOBS_HOOK,    /* run: on_failure is to be started; machine_hook_ended */
	JOBS_LOOK,    /* number = enum ledger_look: machine_looked, or machine_look_failed */
	JOBS_REFUSE,  /* number = request, text: it will not be run */
	JOBS_DECLARE, /* the jobs to the ledger: no answer is needed */
	JOBS_BUSY,    /* number = commands that run */
	JOBS_DEMOTED, /* number = term: say `demoted` */
	JOBS_SETTLED, /* all of it is in the ledger: from here on we have another owner number, for
		       * what is queued is anybody's */
	JOBS_NOTE,    /* job (may be -1), text, number of seconds: what people want to know */
	JOBS_STRANGERS, /* number = jobs that the ledger knows and this file does not */
	JOBS_CLOSE,     /* row, status, text, number = term: it is over (no answer is needed) */
};

struct jobs_action {
	enum jobs_action_kind kind;
	struct jobs_ref run;
	int job;
	enum ledger_status status;
	int64_t number;
	const char *text;             /* static */
	const struct ledger_run *row; /* JOBS_CLOSE: of machine_looked, valid during the call */
};

struct jobs_machine {
	enum jobs_state state;
	uint64_t term;
	struct jobs_job *jobs;
	int job_slots;
	int *table; /* names -> job slot, -1 = free; TABLE_SLOTS is a power of two */
	int table_slots;
	int *heap;
	int heap_count;
	struct jobs_run *runs;
	int run_slots, run_free, run_count;
	int ready_head, ready_tail;
	int go_head, go_tail; /* recorded as running: to be started when there is room */
	int ahead, ended;     /* how many more are recorded than may run; see machine_pump */
	int64_t window_ns;
	int unsure, unsure_head, unsure_tail; /* claims without an answer; those to be repeated */
	int held_head, held_tail;             /* claims that wait until all is sure */
	int64_t claim_ns;                     /* they are repeated then */
	int active, hooks, max_running;
	int queued, running; /* claimed, not started; commands that run */
	uint64_t serial;
	int64_t run_deadline_ns; /* no run's deadline is earlier */
	int64_t look_ns;         /* the ledger is asked again then */
	unsigned look_what;      /* what was asked for; 0 = nothing */
	bool look_again;         /* rung while it was asked */
	bool look_told;
	bool short_of_lease; /* something is READY, and the lease does not allow it */
	int64_t drain_by_ns;
	int64_t drain_most_ns;
	int64_t seen_offset_us; /* of the wall clock: to notice that it was set back */
	int64_t busy_told;
	uint64_t impossible; /* events that the table says cannot happen */
	int64_t (*next)(const void *schedule, int64_t after_us); /* JOBS_NEVER = none */
	void (*emit)(void *context, const struct jobs_action *a);
	void *context;
};

void machine_init(struct jobs_machine *m, int64_t (*next)(const void *schedule, int64_t after_us),
	void (*emit)(void *context, const struct jobs_action *a), void *context);
void machine_release(struct jobs_machine *m);

/* What the configuration says now. Live: what runs goes on, firings go by the new schedules. 0, or
 * ERR_SYSTEM: out of memory, nothing has changed. */
int machine_configure(struct jobs_machine *m, const struct jobs_policy *policies, size_t count,
	int max_running, const struct jobs_now *now);

void machine_promoted(struct jobs_machine *m, uint64_t term, const struct jobs_now *now);
/* GRACE_NS: within it `demoted` is to be said. MOST_NS: what a command gets of it before it is sent
 * TERM; -1 = its job's handoff_timeout. Called again: only ever sooner. */
void machine_demoted(
	struct jobs_machine *m, int64_t grace_ns, int64_t most_ns, const struct jobs_now *now);

/* The ledger. ALIVE[i]: the worker of RUNS[i] (another's) still lives. OWNER: ours. */
struct jobs_look {
	const struct ledger_run *runs;
	const bool *alive;
	size_t run_count;
	const struct ledger_job *jobs;
	size_t job_count;
	const struct ledger_request *requests;
	size_t request_count;
	int64_t owner;
};
void machine_looked(
	struct jobs_machine *m, const struct jobs_look *look, const struct jobs_now *now);
void machine_look_failed(struct jobs_machine *m, const struct jobs_now *now);
/* Something that the terminal or another instance did: look again. */
void machine_rung(struct jobs_machine *m, const struct jobs_now *now);

void machine_claimed(struct jobs_machine *m, struct jobs_ref run, enum ledger_answer answer,
	enum ledger_status status, const struct jobs_now *now);
void machine_recorded(
	struct jobs_machine *m, struct jobs_ref run, bool refused, const struct jobs_now *now);
void machine_unknown(struct jobs_machine *m, struct jobs_ref run, const struct jobs_now *now);

/* CODE -1: by SIGNAL; neither: it could not be started. */
void machine_ended(struct jobs_machine *m, struct jobs_ref run, int code, int signal,
	const struct jobs_now *now);
void machine_hook_ended(struct jobs_machine *m, const struct jobs_now *now);
/* Time went by, or the clock was set. */
void machine_tick(struct jobs_machine *m, const struct jobs_now *now);

/* When to tick: JOBS_NEVER = not by itself. */
int64_t machine_next_wall_us(const struct jobs_machine *m);
int64_t machine_next_boot_ns(const struct jobs_machine *m);

/* For the caller: what is behind a reference (NULL: over), a job by its name (-1). */
struct jobs_run *machine_run_of(const struct jobs_machine *m, struct jobs_ref run);
int machine_find(const struct jobs_machine *m, const char *name);
const char *machine_state_name(enum jobs_state s);
const char *machine_run_state_name(enum jobs_run_state s);
bool machine_run_table_has(enum jobs_run_state s, enum jobs_run_event e);

#endif

/*
 * The core: all policy of a supervisor, pure. An event goes in, a bounded list of actions comes
 * out. No system call, no clock, no allocation, no logging.
 *
 * The shell owns the memory: the arrays of workers and programs are slots that are used and freed
 * by the core; the shell makes room (core_room) before events that may need more. Slots are
 * referred to by number everywhere, so the arrays may be moved between two events.
 */
#ifndef BATON_CORE_CORE_H
#define BATON_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/config.h"
#include "supervisor/core/event.h"
#include "supervisor/core/plan.h"

#define CORE_MS     INT64_C(1000000)
#define CORE_SECOND INT64_C(1000000000)

/* --- worker_fsm: one worker ---------------------------------------------------------------- */
#define WORKER_STATES(X)                                                                           \
	X(STOPPED, "stopped")                                                                      \
	X(STARTING, "starting")                                                                    \
	X(RUNNING, "running")                                                                      \
	X(STOPPING, "stopping") /* its processes are on their way out, whatever comes then */      \
	X(BACKOFF, "backoff")                                                                      \
	X(EXITED, "exited")                                                                        \
	X(FATAL, "fatal")                                                                          \
	X(STANDBY, "standby") /* executor = only, and the lock is not ours or not promoted yet */

enum worker_state {
#define X(name, text) WORKER_##name,
	WORKER_STATES(X)
#undef X
		WORKER_STATE_COUNT
};

/* Why a worker of the present version is to be replaced by one like it. */
enum recycle_why { RECYCLE_NOT, RECYCLE_AGE, RECYCLE_MEMORY };

enum worker_after { /* what follows when the tree is gone */
	AFTER_STOPPED,
	AFTER_RESTART,
	AFTER_BACKOFF,
	AFTER_EXITED,
	AFTER_FATAL,
};

/* How its last process ended: kept while the next one runs already, for whoever tells of it. */
struct worker_end {
	bool late, spawn_failed;
	int failures;
};

struct worker {
	bool used;
	int program, index;
	uint64_t id;         /* of the present (or last) process: higher at every spawn */
	uint32_t generation; /* of the program's configuration it was started with */
	const struct config_program *settings; /* that configuration */
	enum worker_state state;
	int64_t since_ns;
	const char *reason;
	int64_t deadline_ns; /* of this state; 0 = none */
	enum worker_after after;
	bool remove;   /* free the slot when it is down */
	bool parked;   /* an operator stopped just this one */
	bool outgoing; /* beside its replacement, which has the same index */
	bool canary;   /* the first replacement of a running rollout */
	enum recycle_why stale;
	int64_t due_ns;       /* since when it is known to be due for recycling; 0 = it is not */
	uint32_t age_share;   /* of max_age_jitter, for this process: 0 .. UINT32_MAX */
	int64_t memory_bytes; /* of its tree, when that was last told */
	int64_t leave_by_ns;  /* scaled away, but executor without a successor: until then */
	int64_t stop_at_ns;   /* outgoing: when stop_delay is over; 0 = not begun */
	bool alive;           /* its main process was forked and not reaped yet */
	bool tree;            /* between fork and GONE */
	bool held;            /* forked, waits for RELEASE_CHILD */
	bool execed;
	bool ready;
	bool draining; /* STOPPING, but the executor is still handing off: no signal yet */
	bool term_sent, kill_sent;
	bool waits_promotion; /* to be spawned as executor when the COMMIT is through */
	bool settled_once;    /* it has been ready at least once since the last operator's start */
	int pid;
	int exit_code, exit_signal; /* of the last one; code -1 = none yet */
	bool exit_oom, spawn_failed;
	bool spawn_transient; /* spawn_failed for want of something that the machine lacks now */
	bool late;            /* killed: it was not ready in time */
	struct worker_end ended;
	int failures; /* starts failed in a row */
	int repeats;  /* early exits in a row */
	uint64_t restarts;
	int64_t started_ns, ready_ns, watchdog_ns, kill_ns;
	int executor_env;    /* -1 unset, 0, 1 */
	uint64_t term;       /* executor_env = 1: its term */
	int64_t probe_at_ns; /* the next probe, or when the answer to one is overdue; 0 = none */
	bool probing;        /* PROBE_START was asked for, and the answer is awaited */
	int probe_failures;  /* in a row */
	bool unhealthy;      /* it ends because of its health */
	bool well; /* this process has fed its watchdog, or passed a probe of its health */
};

/* --- executor_fsm: one candidate program --------------------------------------------------- */
#define EXECUTOR_STATES(X)                                                                         \
	X(NONE, "none")                                                                            \
	X(PROMOTING, "promoting")                                                                  \
	X(EXECUTING, "executing")                                                                  \
	X(DRAINING, "draining") /* demoted or dead: its tree or its `demoted` is awaited */

enum executor_state {
#define X(name, text) EXECUTOR_##name,
	EXECUTOR_STATES(X)
#undef X
		EXECUTOR_STATE_COUNT
};

enum promote_phase { PHASE_STOP, PHASE_COMMIT, PHASE_SPAWN, PHASE_ARM };

struct executor {
	bool exists; /* the program is a candidate program */
	enum executor_state state;
	int64_t since_ns;
	const char *reason;
	const char *given_up; /* why the last one drained: what the history says of its term */
	int64_t deadline_ns;
	int worker; /* slot; -1 = none */
	uint64_t term;
	enum promote_phase phase;
	bool committing; /* its promote request is in flight */
	bool armed;
	int64_t arm_by_ns; /* the deadman must have answered by then; 0 = it has */
	bool shown;        /* the page carries a deadline */
	bool answered, unanswered_told;
	bool demoted;    /* DRAINING: `demoted` was heard */
	bool drained;    /* DRAINING: it had its time; only its end is awaited now */
	bool stop_after; /* DRAINING: the worker is to be stopped, not only demoted */
	int64_t busy;
	int64_t promoted_ns;
	int64_t not_before_ns; /* promotion backoff */
	int short_lived;
	int next;     /* the successor an operator asked for; -1 = any */
	int last;     /* who had it before a handoff: not chosen again if there is another */
	bool answers; /* the last one that was told has answered: so will the next */
};

/* --- rollout_fsm: the replacement of one program's workers ---------------------------------- */
#define ROLLOUT_STATES(X)                                                                          \
	X(IDLE, "idle")                                                                            \
	X(CANARY, "canary") /* the first replacement, alone: it must become ready */               \
	X(ROLLING, "rolling")                                                                      \
	X(BACK, "rolling back")                                                                    \
	X(HALF, "half way")       /* the version before does not start either: tried again */      \
	X(RECYCLING, "recycling") /* one worker, by another of the same version */

enum rollout_state {
#define X(name, text) ROLLOUT_##name,
	ROLLOUT_STATES(X)
#undef X
		ROLLOUT_STATE_COUNT
};

enum rollout_outcome { ROLLOUT_NO_OUTCOME, ROLLOUT_DONE, ROLLOUT_FAILED };

struct rollout {
	enum rollout_state state;
	int64_t since_ns;
	const char *reason;
	enum rollout_outcome
		outcome;     /* of the last one; FAILED: what runs is not what the file says */
	bool half;           /* FAILED: neither version starts */
	bool behind;         /* what runs is not what the configuration says */
	bool replaced;       /* the canary was ready: more than an attempt to take back */
	int64_t complete_ns; /* since when only its executor is missing; 0 = more is */
	int unfit;           /* ends of the new version by health or watchdog, before it was well */
	int unfit_worker;    /* the last such; slot */
	int executor_deaths; /* of the new version, soon after their promotion, in a row */
	uint32_t newest;     /* the highest generation given so far */
	int64_t ended_ns;    /* when OUTCOME came about */
	int64_t recycle_after_ns; /* none is recycled before */
	int recycle_failures;     /* in a row */
	int64_t memory_ns;        /* when the last one that was too large was recycled; 0 = none */
	/* The version before, while one runs; NULL = none. */
	const struct config *config;
	const struct config_program *settings;
	int position;
	uint32_t generation;
	int count; /* of its workers */
};

/* --- pool: one program --------------------------------------------------------------------- */
struct program {
	bool used;
	const struct config *config;
	const struct config_program *settings;
	int position;        /* in config->programs */
	uint32_t generation; /* counts changes that need new processes */
	int wanted;          /* workers; 0 when stopped */
	int count;           /* workers when started */
	int file_count;      /* what the file said last; COUNT is another one when set by hand */
	bool started;        /* an operator or autostart wants it */
	bool held_back;      /* a dependency is missing */
	bool leaving;        /* taken out of the configuration */
	struct rollout rollout;
	bool dirty; /* wanted and actual may differ */
	struct executor executor;
};

/* --- election_fsm: the instance ------------------------------------------------------------ */
#define ELECTION_STATES(X)                                                                         \
	X(OFF, "off") /* no [scheduler], or not up yet */                                          \
	X(STANDBY, "standby")                                                                      \
	X(ACQUIRING, "acquiring")                                                                  \
	X(HOLDING, "holding")                                                                      \
	X(RELEASING, "releasing") /* executors drain, then the row is freed */                     \
	X(LOST, "lost")           /* executors are being killed; the byte is still locked */

enum election_state {
#define X(name, text) ELECTION_##name,
	ELECTION_STATES(X)
#undef X
		ELECTION_STATE_COUNT
};

struct election {
	enum election_state state;
	int64_t since_ns;
	const char *reason;
	struct lock_view view; /* last row seen */
	bool decided;          /* the first answer is in (or failed) */
	bool unavailable;      /* the last answer was no answer */
	int64_t unavailable_since_ns;
	bool floor_told;       /* the floor could not be written; told */
	int64_t held_since_ns; /* seen held by another since; 0 = not */
	bool wrong;            /* the database is wrong; told */
	bool conflict_told, held_told;
	char told_holder[CORE_ID_BYTES];
	int64_t told_epoch;
	/* watching as a standby */
	int64_t watch_since_ns;
	bool watching;
	int64_t seen_ttl_ns;   /* the longest that a row said since the last own acquisition */
	bool first_look;       /* nothing seen yet */
	int64_t inspect_ns;    /* when to look next; 0 = now */
	int64_t stay_out_ns;   /* not before, after a step-down */
	int64_t waiting_epoch; /* a waiter blocks on this byte; 0 = none */
	int64_t free_since_ns, free_epoch, cleared; /* what it said */
	bool inspect_wanted;
	int64_t changed_ns; /* when inotify last spoke */
	/* as the holder */
	int64_t epoch, term;
	char db_uuid[CORE_ID_BYTES];
	int64_t t0_ns;  /* of the last renewal that is certain */
	int64_t ttl_ns; /* that renewal's */
	int64_t soft_ns, hard_ns;
	int64_t renew_ns; /* when the next is due */
	bool failing;     /* renewals fail */
	bool lease_lost_told;
	int64_t candidateless_ns; /* since when no program has a candidate; 0 = some has */
	bool stop_after_release;
	int release_tries;
	int64_t release_since_ns; /* when the first release was sent */
	/* the request in flight */
	struct core_request request;
	int64_t sent_ns, answer_by_ns;
};

/* --- lifecycle_fsm ------------------------------------------------------------------------- */
#define LIFECYCLE_STATES(X)                                                                        \
	X(BOOT, "starting")                                                                        \
	X(RUNNING, "running")                                                                      \
	X(STOPPING, "stopping")                                                                    \
	X(DOWN, "down")

enum lifecycle_state {
#define X(name, text) LIFECYCLE_##name,
	LIFECYCLE_STATES(X)
#undef X
		LIFECYCLE_STATE_COUNT
};

/* The start-up graph: each stage and what it needs. */
#define CORE_STAGES(X)                                                                             \
	X(CONFIGURATION, "configuration", 0)                                                       \
	X(DIRECTORIES, "directories", STAGE_BIT(CONFIGURATION))                                    \
	X(LOG, "log", STAGE_BIT(DIRECTORIES))                                                      \
	X(CONTROL, "control", STAGE_BIT(LOG))                                                      \
	X(SOCKETS, "sockets", STAGE_BIT(LOG))                                                      \
	X(GUARDIAN, "deadman", STAGE_BIT(LOG))                                                     \
	X(DATABASE, "database", STAGE_BIT(LOG) | STAGE_BIT(CONTROL))                               \
	X(ELECTION, "election", STAGE_BIT(DATABASE) | STAGE_BIT(GUARDIAN))                         \
	X(PROGRAMS, "programs", STAGE_BIT(SOCKETS) | STAGE_BIT(CONTROL) | STAGE_BIT(GUARDIAN))

enum core_stage {
#define X(name, text, needs) STAGE_##name,
	CORE_STAGES(X)
#undef X
		STAGE_COUNT
};
#define STAGE_BIT(name) (1u << STAGE_##name)

struct lifecycle {
	enum lifecycle_state state;
	int64_t since_ns;
	const char *reason;
	int64_t deadline_ns;
	unsigned up, asked;
	enum shutdown_mode mode;
	int exit_status;
	int64_t boot_ns;
	int stop_level;  /* the level that is being stopped */
	int64_t gate_ns; /* programs start without the database's first answer then */
};

struct core {
	struct worker *workers;
	int worker_slots;
	struct program *programs;
	int program_slots;
	struct config *config;
	struct election election;
	struct lifecycle lifecycle;
	uint64_t next_spawn_id, next_request_id;
	uint64_t random;     /* state of the jitter's generator */
	uint64_t impossible; /* events that a table says cannot happen */
	/* for the time of one core_handle */
	int64_t now_ns;
	struct plan *plan;
};

/* SEED: any number. The arrays may be NULL with 0 slots. */
void core_init(struct core *c, struct config *config, uint64_t seed);
/* Slots that handling E may need in all, so that the shell can make room before (zeroed). */
int core_room_workers(const struct core *c, const struct event *e);
int core_room_programs(const struct core *c, const struct event *e);
/* Actions that one event can cause at most. */
size_t core_plan_capacity(const struct core *c);
/* The one entry. PLAN is appended to. */
void core_handle(struct core *c, const struct event *e, int64_t now_ns, struct plan *plan);
/* When a TIMER event is due; 0 = never. */
int64_t core_next_deadline(const struct core *c);

/* --- for the machines ---------------------------------------------------------------------- */
struct action *core_push(struct core *c, enum action_kind kind);
void core_report(struct core *c, enum report_about about, int program, int worker, int from, int to,
	const char *reason);
uint64_t core_random(struct core *c);
struct worker *core_worker(struct core *c, int slot);   /* NULL for -1 */
struct program *core_program(struct core *c, int slot); /* NULL for -1 */
int core_worker_slot(const struct core *c, const struct worker *w);
int core_program_slot(const struct core *c, const struct program *p);
int core_find_worker(const struct core *c, int program, int index); /* -1 */
int core_find_program(const struct core *c, const char *name);      /* -1 */
/* Next used worker slot of PROGRAM after SLOT (-1 to begin); -1 at the end. */
int core_next_worker(const struct core *c, int program, int slot);

const char *worker_state_name(enum worker_state s);
const char *executor_state_name(enum executor_state s);
const char *election_state_name(enum election_state s);
const char *rollout_state_name(enum rollout_state s);
const char *lifecycle_state_name(enum lifecycle_state s);
const char *stage_name(enum core_stage s);

#endif

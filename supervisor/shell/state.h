/*
 * The shell's memory: everything that has a descriptor, a pid or a pointer. Internal to
 * supervisor/shell/; the decisions are the core's.
 *
 * One struct supervisor exists. Callbacks of the loop only post events; before the loop blocks the
 * queue is handled one event at a time (supervisor_drain), each plan is applied at once.
 */
#ifndef BATON_SHELL_STATE_H
#define BATON_SHELL_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "conf/config.h"
#include "supervisor/core/core.h"
#include "supervisor/shell/control.h"
#include "supervisor/shell/logs.h"
#include "supervisor/shell/loop.h"
#include "supervisor/shell/notify.h"
#include "supervisor/shell/sockets.h"
#include "worker/channel.h"
#include "worker/child.h"
#include "worker/deadman.h"
#include "worker/keeper.h"
#include "worker/lease.h"

struct supervisor;
struct probe;
struct probe_target;

/* The shell's side of one worker slot: the process, its pipes, its channel, its lease page. */
struct process {
	struct supervisor *supervisor;
	int slot;
	uint64_t id;   /* of the spawn; 0 = free */
	uint64_t mark; /* of all that it starts (worker/tree.h): nobody else can know it */
	pid_t pid;     /* leader of its session; kept, for late messages, until the next spawn */
	int pid_next, main_next; /* in the chains of pid_heads: main_process.c; 0 = none */
	bool leader_alive;       /* its main process was not reaped yet: the leader, unless: */
	/* MAINPID= (main_process.c): another process of its tree is the main one. 0 = none is. */
	pid_t main_pid;
	int main_fd; /* pidfd; -1 = none */
	struct loop_watch *main_watch;
	uint64_t main_ticks, leader_ticks; /* when they were started: /proc/PID/stat */
	bool leader_reaped;
	bool main_linked;            /* in its chain of pid_heads */
	bool main_told, notify_told; /* a MAINPID= that was not taken; a line that made no sense */
	pid_t left_pid;              /* it has ended at once, and that one is left; 0 = none */
	int report_fd, hold_fd, channel_fd;
	int table_slot; /* of spawn_table.h, from 1; 0 = none */
	struct loop_watch *report_watch, *channel_watch;
	struct channel_buffer channel_in;
	struct lease lease;
	struct logs_stream *streams[2];
	bool collecting;   /* the core asked for the end of its tree */
	bool collect_tree; /* ... including what is left below it */
	int collect_signal;
	bool signalled; /* what is left has been sent collect_signal */
	char *failure;  /* why it could not start; NULL = it could */
	/* The worker's own listener for probes (supervisor/shell/probes.c); port 0 = none. */
	uint16_t probe_port;
	bool probe_v6;
	int ready_fd; /* `ready = fd:N`: our end of the pipe; -1 = none, or not any more */
	struct loop_watch *ready_watch;
	struct probe *probe;               /* the attempt under way; NULL = none */
	struct probe_target *probe_target; /* made again when it is wanted; NULL = not yet */
	char *probe_text;     /* why it is not ready, or not well; NULL = nothing known */
	char *status;         /* STATUS=; NULL = not said */
	char *name;           /* "web:0" */
	int64_t memory_bytes; /* of its tree; 0 = not known, see memory.c */
};

/* One helper process of ours. */
struct helper {
	pid_t pid; /* 0 = none */
	int fd;    /* our end of its socketpair or pipe; -1 = none */
	struct loop_watch *watch;
	int64_t started_ns;
	int quick_deaths;
};

struct hook_process {
	pid_t pid;
	bool last; /* begun by the stop of the supervisor */
	char what[64];
};

#define STRAYS_FEW     16
#define HOOK_PROCESSES 16
#define QUEUE_FIRST    256
#define PROCESS_SLOTS  65536
#define PID_HEADS      4096
#define MOST_WORKERS   10000 /* of one program, by scale or signal */

struct lock_state {
	struct helper keeper, deadman, waiter;
	int64_t deadman_at_ns; /* it could not be started: when it is tried again; 0 = it could */
	struct helper former;  /* the deadman of the image before, until ours is armed */
	bool deadman_heard;    /* ours has answered at least once; meant for that only */
	bool keeper_former; /* the keeper is that of the image before: replaced when it is idle */
	bool keeper_cut;    /* its request was cut off by an upgrade in place */
	bool keeper_told;   /* it has the guard's inode */
	int guard_fd;
	int64_t guard_inode, guard_epoch; /* the byte that is locked; 0 = none */
	int table_fd;
	struct deadman_table *table;
	int armed_program[DEADMAN_EXECUTORS];   /* deadman slot -> program slot; -1 = free */
	int64_t arm_sent_ns[DEADMAN_EXECUTORS]; /* 0 = it has said that it is armed */
	struct store_settings settings;
	struct store_view view; /* the last one with a row; for status and for people */
	bool view_valid;
	struct keeper_answer answer; /* of the event that is being handled */
	char answer_text[512], error[512];
	uint64_t sent_id; /* the core's request that is with the keeper; 0 = none */
	enum request_op sent_op;
	int inotify_fd;
	struct loop_watch *inotify_watch;
	int64_t acquired_wall_us;
	bool overlay_told;
	int64_t compared_epoch; /* standby.c: this holder's programs were compared with ours */
};

struct oom_counter {
	char path[512]; /* "" = the kernel does not say */
	int64_t count;
};

struct listener_slot { /* no pointers, and watch counts only in this process */
	char name[128];
	char key[ADDRESS_KEY_BYTES]; /* what it is found by */
	struct listener listener;
	bool announced;      /* said that it is open */
	bool inherited;      /* made by who started us: its file is not ours */
	bool lost;           /* said that its file is gone for now */
	int64_t retry_ns;    /* when that is looked at again; 0 = it is there */
	int64_t reopened_ns; /* bound anew, with its workers replaced */
	int watch;           /* inotify's; <= 0 = none */
	bool wanted;
};

/* parent.c: systemd above us */
struct parent {
	bool told;                           /* it wants to hear from us: NOTIFY_SOCKET */
	bool ready, reloading, stopping;     /* said, and in effect */
	char status[512];                    /* the last STATUS= */
	int64_t watchdog_ns, watchdog_at_ns; /* 0 = off */
	int64_t retry_at_ns;                 /* its socket was full; 0 = it was not */
	int retries;                         /* left */
};

/* --- upgrade.c */
enum upgrade_phase {
	UPGRADE_NONE,
	UPGRADE_TRIAL, /* the new binary is tried */
	UPGRADE_CALM,  /* until nothing is on its way */
};

/* The file as it was when it was tried. */
struct upgrade_file {
	uint64_t device, inode;
	int64_t bytes, changed_ns;
};

struct upgrade {
	enum upgrade_phase phase;
	char binary[4096];        /* what is executed next */
	struct upgrade_file file; /* as it was tried */
	uint32_t generation;      /* the configuration that it was tried with */
	pid_t pid;                /* of the trial; 0 = none */
	int output_fd, report_fd; /* of the trial */
	char output[2048];        /* what it said */
	size_t output_bytes;
	struct loop_watch *output_watch;
	int64_t deadline_ns;
	int rounds;        /* with the signals blocked */
	sigset_t signals;  /* as they were */
	bool failed, done; /* the last one; done: in the image before */
	char error[1024];
	char from[32]; /* version of the image before */
	int64_t stall_ns;
};

struct claims;   /* claims.c: of applications' schedulers */
struct lookups;  /* lookups.c: what waits for names */
struct commands; /* commands.c: who waits for what */
struct memory;   /* memory.c: the sampling of workers' memory */

struct supervisor {
	struct loop *loop;
	struct logs *logs;
	struct core core;
	struct config *config;
	struct config *booted;   /* what this supervisor was started with: a setting that needs a
				  * restart is compared with that */
	struct config **retired; /* snapshots that workers still run */
	size_t retired_count;
	struct plan plan;
	struct event *queue;
	size_t queue_head, queue_count, queue_capacity;
	struct process *processes;
	struct action *spawns; /* a ring: what is to be forked, see spawn_later */
	size_t spawn_head, spawn_count, spawn_capacity;
	int64_t spawn_after_ns; /* they wait for a promotion, until then; 0 = they do not wait */
	int process_slots;
	int pid_heads[PID_HEADS]; /* by pid: the latest process of a pid comes first */
	struct listener_slot *listeners;
	size_t listener_count;
	bool root_given_up; /* [baton] user */
	int socket_inotify_fd;
	struct loop_watch *socket_inotify_watch; /* NULL = no file is watched */
	struct lock_state lock;
	struct control *control;
	struct notify *notify;
	struct parent parent;
	bool detached; /* run -d: nobody reads our standard output */
	int detach_fd; /* to whom waits for the start; -1 = nobody */
	struct commands *commands;
	char **rollout_whys; /* why the last rollout of a program slot failed; NULL = it did not */
	int rollout_why_count;
	struct lookups *lookups;             /* NULL = nothing waits */
	struct memory *memory;               /* NULL = no program has max_memory */
	struct probe *probes, *probes_spare; /* attempts under way, and memory for more */
	struct claims *claims;               /* NULL = none came yet */
	struct hook_process hooks[HOOK_PROCESSES];
	struct oom_counter oom;
	char instance[STORE_ID_BYTES];
	char hostname[STORE_NAME_BYTES];
	char config_path[4096], control_path[4096];
	char binary[4096]; /* the path we were started by; "" = not known */
	char **argv;       /* as we were started */
	struct upgrade upgrade;
	const char *config_text; /* what takes the place of the file; NULL = there is a file */
	enum config_force force;
	bool control_overridden;
	int null_fd;
	struct rlimit nofile; /* as we found it: the workers' */
	int pidfile_fd;
	char pidfile[4096];
	int64_t timer_at_ns;
	int64_t mended_ns; /* when the control socket was last looked at */
	int64_t started_wall_us;
	int interrupts;                     /* INT and QUIT so far */
	uint32_t generation;                /* of the configuration: counts reloads */
	int collecting;                     /* processes whose tree is awaited */
	uint64_t reap_round, counted_round; /* ORPHANS was counted after that round of reaping */
	int orphans;
	pid_t strays_told[STRAYS_FEW]; /* the last ones that were told of */
	int strays_told_next;
	bool changed; /* something happened that a waiter may wait for */
	bool exiting;
	int exit_status;
	int stage_status; /* of the stage that failed */
};

/* supervisor.c */
void supervisor_post(struct supervisor *s, const struct event *e);
void supervisor_post_worker(struct supervisor *s, enum event_kind kind, const struct process *p);
struct process *supervisor_process(struct supervisor *s, int slot, uint64_t id); /* NULL: another */
/* The latest process of which that is the leader or the main process; it may be dead
 * (leader_alive). main_process.c */
struct process *supervisor_process_by_pid(struct supervisor *s, pid_t pid);
/* The one whose session, or process group, that is. */
struct process *supervisor_process_by_session(struct supervisor *s, pid_t session);
void supervisor_set_pid(struct process *p, pid_t pid); /* 0 = forget it */
void supervisor_forget_snapshots(struct supervisor *s);
/* Would such an event (BOOT, SCALE, RELOAD) ask for no more workers than there can be? */
bool supervisor_has_room(const struct supervisor *s, enum event_kind kind, int program,
	int64_t number, struct config *config);

/* The parts of a start: loop, logs, room for processes; then signals and timer. */
int supervisor_init(struct supervisor *s, struct err *e);
int supervisor_attend(struct supervisor *s, struct err *e);
/* Until the instance ends, then all is released: its exit status. */
int supervisor_serve(struct supervisor *s);

/* apply.c: the only switch from action to side effect. */
void apply_plan(struct supervisor *s, const struct plan *plan);

/* spawn.c */
/* A fork takes a millisecond. So it waits for a promotion that is on its way (within reason), and
 * many of them leave room for whatever else happens: spawn_next makes one (false: none may go now),
 * spawn_due says when the next may go (0 = there is none). */
void spawn_later(struct supervisor *s, const struct action *a);
bool spawn_next(struct supervisor *s);
int64_t spawn_due(const struct supervisor *s);
void spawn_release(struct supervisor *s, const struct action *a);
/* The snapshot that SETTINGS lies in. */
const struct config *spawn_config_of(
	const struct supervisor *s, const struct config_program *settings);
/* What became of its exec, if it is known by now: posts EXECED or SPAWN_FAILED. */
void spawn_read_report(struct process *p);
/* After an upgrade in place: watched again; PLACES of its streams, -1 = none. */
void spawn_resume(struct process *p, const int places[2]);
void process_init(struct supervisor *s, struct process *p, int slot);
void process_release(struct process *p); /* closes what is open; streams are detached */
/* fork+exec of ourselves under another name; FDS as in child_spec (0..2 are made). -1 = failed. */
pid_t spawn_helper(struct supervisor *s, const char *name, const char *argument,
	const struct child_fd *fds, size_t fd_count, struct err *e);
void spawn_helpers_end(void); /* nobody hears any more whether they could start */
void helper_close(struct helper *h);
void helper_kill(struct helper *h); /* the reaper meets it as a stranger */
/* A command of the operator's (hook), not waited for. */
pid_t spawn_command(struct supervisor *s, const char *command, const char *const *more_environment,
	struct err *e);

/* reap.c */
void reap_children(struct supervisor *s);
void reap_collect(struct supervisor *s, const struct action *a);
void reap_kill_tree(struct supervisor *s, const struct action *a);
void reap_signal(struct supervisor *s, const struct action *a);
/* The process that PID belongs to: itself, its session, or an ancestor; NULL = a stranger. */
struct process *reap_owner(struct supervisor *s, pid_t pid);
void reap_oom_init(struct supervisor *s);
void reap_died(struct process *p, const siginfo_t *info); /* its main process */

/* main_process.c: the main process of a worker, also where MAINPID= has named another one */
pid_t main_pid(const struct process *p);
int main_signal(const struct process *p, int sig);
void main_signal_group(const struct process *p, int sig);
bool main_has_other(const struct process *p, pid_t than); /* another one than THAN was named */
void main_named(struct process *p, pid_t pid);
void main_former_ended(struct process *p, const siginfo_t *info);
void main_forget(struct process *p); /* it has ended; its number stays for what is told of it */
void main_resume(struct process *p); /* after an upgrade in place */

/* lock.c: keeper, deadman, waiter, guard, inotify */
int lock_stage_deadman(struct supervisor *s, struct err *e);
void lock_stage_deadman_down(struct supervisor *s);
int lock_stage_database(struct supervisor *s, struct err *e);
void lock_stage_database_down(struct supervisor *s);
void lock_request(struct supervisor *s, const struct action *a);
void lock_guard_unlock(struct supervisor *s, int64_t epoch);
void lock_guard_mark(struct supervisor *s, int64_t epoch);
void lock_wait_guard(struct supervisor *s, int64_t epoch);
void lock_arm(struct supervisor *s, const struct action *a);
void lock_disarm(struct supervisor *s, int program);
void lock_table_set(struct supervisor *s, const struct process *p, bool kill);
void lock_table_main(struct supervisor *s, const struct process *p); /* MAINPID= */
void lock_table_clear(struct supervisor *s, int slot);
int lock_table_reserve(struct supervisor *s, int slots, struct err *e);
bool lock_reaped(struct supervisor *s, pid_t pid, int status); /* true = it was one of ours */
void lock_reconfigure(struct supervisor *s);

/* After an upgrade in place: the helpers of the image before are replaced by our own, without a
 * gap. SAME_...: they speak as ours do. */
void lock_resume(struct supervisor *s, bool same_keeper, bool same_deadman);
int guardian_resume(struct supervisor *s, bool same_protocol, struct err *e);

/* lock_watch.c: the waiter (lock_wait_guard) and inotify */
void lock_watch_resume(struct supervisor *s);
void lock_watch_files(struct supervisor *s);
void lock_watch_end(struct supervisor *s);

/* guardian.c: the deadman's side of it (the functions lock_arm ... lock_table_clear are there) */
void guardian_give_guard(struct supervisor *s);
bool guardian_reaped(struct supervisor *s, pid_t pid, int status);
void guardian_check(struct supervisor *s);             /* once a round of the loop */
int64_t guardian_deadline(const struct supervisor *s); /* 0 = none */

/* channels.c: the channel and the lease page of a worker */
void channel_watch(struct supervisor *s, struct process *p);
void channel_resume(struct supervisor *s, struct process *p); /* after an upgrade in place */
void channel_tell(struct supervisor *s, const struct action *a);
void channel_show(struct supervisor *s, const struct action *a);
void channel_extend(struct supervisor *s, const struct action *a);
void channel_clear(struct supervisor *s, const struct action *a);
void channel_notified(void *supervisor, const struct notify_message *m);

/* waiter_rollout.c: to whom waits for a rollout of PROGRAM. */
void waiters_remark(struct supervisor *s, int program, const char *text);
/* Around the handling of an event: what a request for rollouts has changed, and what was there. */
void waiters_before(struct supervisor *s, const struct event *e);
void waiters_after(struct supervisor *s, const struct event *e);

/* reload_plan.c: "web: replaced one worker at a time, ..." into BUF. */
void reload_plan_program(const struct supervisor *s, const struct config *next,
	const struct config_change *change, enum diff_class class, char *buf, size_t bytes);

/* stages.c */
/* GIVEN (run -s; NULL = by the file) or where the file has it, into s->control_path. ERR_BUSY: an
 * instance of the file listens elsewhere. Before root is given up. */
int stages_choose_control(
	struct supervisor *s, const char *config_path, const char *given, struct err *e);
void stages_up(struct supervisor *s, int stage);
void stages_down(struct supervisor *s, int stage);
void stages_mend_control(struct supervisor *s); /* its socket's file may have been removed */

/* listeners.c */
/* The open one that a [socket:] of any snapshot stands for; NULL = none. */
struct listener_slot *listeners_find(struct supervisor *s, const struct config_socket *c);
/* What C wants: opened, or adjusted where it is open. What was open before stays so until
 * listeners_sweep: old workers have it, and a rollout may go back to it. On an error nothing has
 * changed. */
int listeners_open(struct supervisor *s, const struct config *c, struct err *e);
/* Would that work? Nothing stays open, and no file is touched. */
int listeners_try(struct supervisor *s, const struct config *c, struct err *e);
void listeners_sweep(struct supervisor *s); /* closes what neither a worker nor a rollout needs */
void listeners_close(struct supervisor *s);
/* Does C ask for something that its open listener cannot become? In words. */
bool listeners_unapplied(
	struct supervisor *s, const struct config_socket *c, char *buf, size_t bytes);
void listeners_pass(struct supervisor *s, struct listener_slot *slot, bool blocking); /* at fork */
void listeners_reassert(struct supervisor *s); /* a worker that became ready may have lowered it */

/* listener_files.c */
void listeners_watch(struct supervisor *s); /* those that are not watched yet */
void listeners_unwatch(struct supervisor *s, struct listener_slot *slot);
void listeners_watch_end(struct supervisor *s);
void listeners_mend_one(struct supervisor *s, struct listener_slot *slot);
int64_t listeners_deadline(const struct supervisor *s); /* 0 = none */
void listeners_check(struct supervisor *s);             /* after events */

/* grace.c: the time that stopping may take, where something above us limits it */
void grace_report(struct supervisor *s);

/* inherit.c: before the loop; what the configuration has of it are slots then */
int inherit_sockets(struct supervisor *s, struct err *e);

/* privileges.c */
bool privileges_needed(const struct config *c);
/* Before the loop: binds the listeners, then becomes [baton] user for good. */
int privileges_drop(struct supervisor *s, struct err *e);
void privileges_report(struct supervisor *s);

/* reload.c */
struct reload_result {
	bool ok;
	bool later;       /* after the start, or the look-up of names: nothing was done, nothing
			   * else is set */
	bool unavailable; /* the file is good, but a socket that it asks for cannot be opened */
	char **lines;     /* the plan, or the findings */
	size_t line_count;
};
/* Read, validate, compare, post EVENT_RELOAD; logs and fills RESULT. CHANGED_ONLY:
 * whatever roll_on_reload says. */
void reload_run(struct supervisor *s, bool changed_only, struct reload_result *ret_result);
/* The same up to the plan, which is neither logged nor done. */
void reload_plan(struct supervisor *s, bool changed_only, struct reload_result *ret_result);
/* The configuration as it is now, from the file or the command line. */
int reload_read(struct supervisor *s, struct config **ret_config, struct errlist *findings);
void reload_result_release(struct reload_result *r);

/* detach.c: run -d. 0 in the background process, 1 in the one that was started (RET_STATUS: its
 * exit status, the start is decided), -1 on an error that was said. */
int detach(struct supervisor *s, int *ret_status);
void detach_say(struct supervisor *s, const char *text); /* an error, to whom waits */
/* The same; without anybody who waits, on standard error unless the log goes there anyway. */
void detach_tell(struct supervisor *s, const char *text);
void detach_tell_end(struct supervisor *s, int status);
void detach_end(struct supervisor *s, int status); /* the start is decided */
void detach_check(struct supervisor *s);           /* after events */
int64_t detach_deadline(const struct supervisor *s);

/* parent.c: what is told to systemd above us */
void parent_init(struct supervisor *s);
void parent_check(struct supervisor *s);             /* after events */
int64_t parent_deadline(const struct supervisor *s); /* 0 = none */
void parent_reload_begins(struct supervisor *s);

/* memory.c: tells the core of workers that use more than max_memory */
void memory_check(struct supervisor *s);        /* once a round of the loop */
int64_t memory_due(const struct supervisor *s); /* 0 = never */
void memory_free(struct supervisor *s);

/* signals.c: what each signal to the supervisor means */
int signals_watch(struct supervisor *s, struct err *e);

/* standby.c: a candidate program that the holder lacks would have no executor: said once */
void standby_compare_programs(struct supervisor *s);

/* jobs.c: what the job worker is told */
json_t *jobs_document(const struct supervisor *s);
/* Only our own job worker, which runs as us: the document has environments in it. */
bool jobs_may_ask(struct supervisor *s, const struct control_peer *peer);
void jobs_reloaded(struct supervisor *s);

/* hooks.c */
void hooks_run(struct supervisor *s, const struct action *a);
void hooks_end(struct supervisor *s);
bool hooks_reaped(struct supervisor *s, pid_t pid, int status);

/* commands.c, snapshot.c: what a control request means */
int commands_create(struct supervisor *s, struct control_handlers *ret_handlers);
void commands_resume(struct supervisor *s); /* the connections are those of the image before */
void commands_free(struct supervisor *s);
void commands_check(struct supervisor *s);             /* after events: answer who waits */
int64_t commands_deadline(const struct supervisor *s); /* 0 = none */
json_t *snapshot_status(struct supervisor *s);
/* Slots of a program's workers by index, an outgoing one after its replacement; malloced. */
int *snapshot_workers(const struct supervisor *s, int program, int *ret_count);
const char *snapshot_role(const struct supervisor *s);

#include "supervisor/shell/report.h"

#endif

/* Inside of runner.h. */
#ifndef BATON_WORKER_JOBS_RUNNER_INTERNAL_H
#define BATON_WORKER_JOBS_RUNNER_INTERNAL_H

#include <sys/types.h>

#include "worker/channel.h"
#include "worker/jobs/definition.h"
#include "worker/jobs/ledger.h"
#include "worker/jobs/machine.h"
#include "worker/lease.h"

#define RUNNER_SECOND_NS INT64_C(1000000000)

enum source { /* what a descriptor of the epoll set is; a task's: SOURCE_TASK + its index */
	SOURCE_CHANNEL,
	SOURCE_SIGNAL,
	SOURCE_WALL,
	SOURCE_BOOT,
	SOURCE_BELL,
	SOURCE_LEDGER,
	SOURCE_CONTROL,
	SOURCE_LOG,
	SOURCE_TASK,
};

/* One command that was started: a run's, or an on_failure. Kept until the machine forgets the run:
 * the ledger may have to be told of its end again. */
struct task {
	bool used, hook;
	struct jobs_ref run;
	struct job_definition *definition;
	char name[LEDGER_NAME_BYTES + 16]; /* before its lines in the log */
	char tag[64];                      /* BATON_RUN=..., in its environment: whose a stray is */
	pid_t pid;
	bool alive;      /* not reaped */
	bool over;       /* the machine is to be told */
	bool told;       /* ... and was */
	int not_started; /* as a shell says it: 127 = no such command, 126 = it cannot be executed;
			    -1 */
	int code, signal;
	int out_fd, report_fd;
	bool watched;    /* its output is in the epoll set */
	int64_t kill_ns; /* on_failure: its time is over then */
	int64_t out_bytes;
	char *tail; /* the last of it */
	size_t tail_start, tail_used, tail_capacity;
	char *line; /* the beginning of a line */
	size_t line_used, line_capacity;
	char failure[LEDGER_TEXT_BYTES];
};

struct ref_list {
	struct jobs_ref *items;
	size_t count, capacity;
};

struct batch {       /* one request that is with the ledger */
	uint64_t id; /* 0 = none */
	struct ref_list refs;
};

struct text_queue { /* what the log has not taken yet */
	int fd;
	char *bytes;
	size_t start, used, capacity;
	int64_t full_since_ns; /* 0 = it is not */
	bool dropping;
	int64_t dropped; /* lines */
	bool watched;
};

struct runner {
	struct jobs_machine machine;
	struct job_set set;
	struct jobs_now now;
	int epoll_fd, signal_fd, wall_fd, boot_fd;
	int64_t wall_at_us, boot_at_ns; /* what the timers are set to */

	/* link.c */
	int channel_fd, control_fd;
	const struct lease_page *page;
	struct channel_buffer channel_in;
	char *control_in;
	size_t control_used, control_capacity;
	bool control_asked, config_wanted, config_told, ready;
	int64_t control_ns;    /* ask again then; JOBS_NEVER = no */
	uint64_t promote_term; /* promoted, while the one before was not over; 0 = no */
	int64_t busy, busy_said;
	uint64_t demoted_term; /* to be said; 0 = nothing */
	int64_t status_ns;     /* when it was last said */
	char status[96], status_said[96];

	/* book.c */
	struct ledger ledger;
	int ledger_watched; /* the descriptor that is in the epoll set, -1 */
	bool ledger_writes;
	int64_t ledger_ns; /* start it again then */
	struct ref_list claims, updates;
	struct batch claim, update;
	uint64_t look_id;
	int64_t asked_ns; /* the oldest request was sent then; 0 = none */
	bool look_wanted, declare_wanted, trouble_told;
	int64_t *refusals;
	size_t refusal_count, refusal_capacity;
	int64_t owner;
	int jobs_fd, bell_fd;
	int64_t trim_ns, ended;

	/* task.c */
	struct task **tasks;
	int task_slots;
	int *task_of; /* machine slot -> task, -1 */
	int task_of_slots;
	int alive, over;
	char **environment; /* what commands inherit */
	bool stopping;      /* TERM came, or the supervisor is gone: exit when all is over */
	bool check_strays;

	/* output.c */
	struct text_queue log;
};

/* runner.c */
void runner_now(struct runner *r);
int runner_watch(struct runner *r, int fd, uint64_t source, uint32_t events);
void runner_change(struct runner *r, int fd, uint64_t source, uint32_t events);
void runner_unwatch(struct runner *r, int fd);
/* One line for people, on standard error: "jobs | TEXT". */
void runner_say(struct runner *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* link.c */
int link_open(struct runner *r, struct err *e);
void link_channel(struct runner *r);
void link_control(struct runner *r, uint32_t events);
void link_tick(struct runner *r); /* at the end of a round */
int64_t link_next_ns(const struct runner *r);
int64_t link_soft_ns(const struct runner *r);
void link_want_config(struct runner *r);

/* book.c */
int book_open(struct runner *r, struct err *e); /* with the first configuration */
void book_ledger(struct runner *r, uint32_t events);
void book_bell(struct runner *r);
void book_settled(struct runner *r);
void book_tick(struct runner *r);
int64_t book_next_ns(const struct runner *r);

/* book_request.c */
void book_emit(struct runner *r, const struct jobs_action *a);
void book_ask(struct runner *r); /* send what may be sent */
void book_unknown(struct runner *r, struct batch *b);
void book_claims_unknown(struct runner *r);

/* task.c */
void task_start(struct runner *r, const struct jobs_action *a, bool hook);
void task_stop(struct runner *r, const struct jobs_action *a);
void task_forget(struct runner *r, struct jobs_ref run);
struct task *task_find(const struct runner *r, struct jobs_ref run);
void task_reap(struct runner *r);
void task_deliver(struct runner *r); /* tell the machine of those that are over */
void task_kill_hooks(struct runner *r);
void task_kill_all(struct runner *r);
void task_tick(struct runner *r);
int64_t task_next_ns(const struct runner *r);

/* task_environment.c */
struct task_extra { /* what is this run's own, before the environment of its job */
	char texts[8][LEDGER_NAME_BYTES + 64];
	int count;
};

#define TASK_PATHS 64

struct task_paths { /* where the program may lie */
	char bytes[8192];
	char *list[TASK_PATHS + 1];
};

void task_extra(struct runner *r, struct task_extra *x, const struct task *t,
	const struct jobs_run *run, enum ledger_status status);
/* The run's own first, then the job's, then what all inherit; pointers only, the list is
 * allocated. NULL: no memory. */
char **task_environment(struct runner *r, struct task_extra *x, const struct job_definition *d);
void task_paths(struct task_paths *p, const char *name, char **env);

/* task_tree.c */
#define MOST_STRAYS 256
struct task *task_of_pid(const struct runner *r, pid_t pid); /* whose main process it is */
/* Children that no command of ours is the main process of: orphans of commands. How many, at most
 * ROOM; -1: the kernel does not say. */
int task_strays(const struct runner *r, pid_t *strays, int room);
bool task_has_tag(pid_t pid, const char *tag);
void task_signal_tree(struct runner *r, const struct task *t, int sig);

/* output.c */
void output_read(struct runner *r, struct task *t, bool all);
void output_close(struct runner *r, struct task *t);
void output_release(struct task *t);
/* The tail as one piece, allocated; NULL with 0 bytes. */
char *output_tail(const struct task *t, size_t *ret_bytes);
void output_line(struct runner *r, const char *name, const char *text, size_t bytes);
void output_flush(struct runner *r);
void output_tick(struct runner *r);
int64_t output_next_ns(const struct runner *r);

#endif

/*
 * What control requests mean. commands.c has the table, commands_*.c the requests by subject;
 * targets.c finds what an address names; waiters.c keeps those who wait for something to become
 * true.
 */
#ifndef BATON_SHELL_COMMANDS_H
#define BATON_SHELL_COMMANDS_H

#include "supervisor/shell/state.h"

/* --- targets.c ----------------------------------------------------------------------------- */
struct target {
	int program, worker; /* worker -1 = all of the program */
};

struct targets {
	struct target *items;
	size_t count;
};

/* NAMES: a JSON array of addresses. false: *ret_code and E say what is wrong. */
bool targets_find(struct supervisor *s, json_t *names, struct targets *ret_targets,
	const char **ret_code, struct err *e);
bool targets_find_one(struct supervisor *s, const char *name, struct targets *ret_targets,
	const char **ret_code, struct err *e);
void targets_release(struct targets *t);

/* --- waiters.c ----------------------------------------------------------------------------- */
enum waiter_kind {
	WAITER_STARTED,
	WAITER_STOPPED,
	WAITER_RESTARTED,
	WAITER_SCALED,
	WAITER_HANDED_OFF,
	WAITER_AWAY,
	WAITER_SHUTDOWN,
	WAITER_RELOADED,
	WAITER_ROLLED,
	WAITER_CONDITION,
	WAITER_UPGRADED,
};

enum condition_kind {
	CONDITION_EXECUTOR,    /* some candidate program has one */
	CONDITION_EXECUTOR_IS, /* worker name or pid */
	CONDITION_EXECUTOR_NOT,
	CONDITION_TERM,
	CONDITION_READY,
	CONDITION_STOPPED,
	CONDITION_ROLE,
	CONDITION_ROLLOUT,
	CONDITION_STATE,
};

struct waiter_worker {
	int program, index, slot; /* where it was when the request came: it seldom moves */
	uint64_t id;              /* when the request came */
	uint32_t
		told_generation; /* its generation then, or that of which it was told as replaced */
};

enum waiter_end { END_NOT_YET, END_DONE, END_FAILED, END_STOPPED, END_REMOVED };

/* What a request asked of a program, and what became of that. */
struct waiter_program {
	int program;         /* slot */
	char name[128];      /* a reload may give its slot to another */
	bool begun;          /* its event was handled; before that only what was there is known */
	bool touched;        /* rolled, scaled, started or stopped by it */
	uint32_t newest;     /* the newest generation before it */
	uint32_t generation; /* the one whose rollout is waited for; 0 = none is */
	bool superseded;     /* by the rollout of another request */
	int count;           /* before it */
	bool leaving;        /* before it */
	enum waiter_end end;
	char why[512]; /* it did not come to a good end */
};

struct waiter {
	struct waiter *next;
	struct control_connection *from;
	uint64_t id;
	enum waiter_kind kind;
	struct waiter_worker *workers;
	size_t worker_count;
	struct waiter_program *programs; /* of rollouts */
	size_t program_count;
	int64_t ticket;      /* of rollouts: the `number` of its events */
	uint32_t generation; /* of rollouts: of the configuration, when the request came */
	int program, wanted_worker, count;
	char program_name[128]; /* a reload may give its slot to another */
	uint64_t term;
	char old_worker[192];
	enum condition_kind condition;
	char text[256]; /* the condition's word, or the last progress line */
	int64_t number;
	char condition_text[256];
	int64_t began_ns, deadline_ns;
	json_t *result; /* to be answered with; may be NULL */
};

struct commands {
	struct waiter *waiters;
	int64_t tickets; /* given to rolling restarts; those of reloads are their generation */
};

/* A waiter of this kind, in the list; the caller fills it. NULL: failed for want of memory, and
 * answered so. */
struct waiter *waiter_add(struct supervisor *s, struct control_connection *from, uint64_t id,
	enum waiter_kind kind, int64_t timeout_ns);
void waiter_set_program(struct supervisor *s, struct waiter *w, int program);
/* All workers of TARGETS with their present spawn. */
bool waiter_set_workers(struct supervisor *s, struct waiter *w, const struct targets *t);
/* Parse a condition of `wait`. false: E lists the forms. */
bool waiter_parse_condition(struct waiter *w, const char *text, struct err *e);
/* A name in its condition that belongs to no program: it would be waited for in vain. */
bool waiter_names_nobody(struct supervisor *s, const struct waiter *w, struct err *e);
/* 1 it holds, 0 not yet, -1 it has failed (E). */
int waiter_condition(struct supervisor *s, struct waiter *w, struct err *e);
/* That connection is gone; NULL = all of them. */
void waiters_forget(struct supervisor *s, const struct control_connection *gone);
/* For an upgrade in place (waiters_state.c): those who wait go on waiting. */
json_t *waiters_save(const struct supervisor *s);
int waiters_load(struct supervisor *s, const json_t *all, struct err *e);
/* --- waiter_rollout.c ---------------------------------------------------------------------- */
/* `restart --rolling`: PROGRAM is one of those that are asked for. False: no memory. */
bool waiter_add_program(struct supervisor *s, struct waiter *w, int program);
int waiter_rolled(struct supervisor *s, struct waiter *w, struct err *e);
/* `wait --for rollout=done` */
int waiter_no_rollout(struct supervisor *s, struct waiter *w, struct err *e);

json_t *waiter_workers_json(struct supervisor *s, const struct waiter *w);

#endif

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
	uint32_t generation;      /* the newest of its program then */
	bool told;                /* its replacement was told of */
};

struct waiter {
	struct waiter *next;
	struct control_connection *from;
	uint64_t id;
	enum waiter_kind kind;
	struct waiter_worker *workers;
	size_t worker_count;
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
bool waiter_condition_holds(struct supervisor *s, const struct waiter *w);
/* That connection is gone; NULL = all of them. */
void waiters_forget(struct supervisor *s, const struct control_connection *gone);
/* For an upgrade in place (waiters_state.c): those who wait go on waiting. */
json_t *waiters_save(const struct supervisor *s);
int waiters_load(struct supervisor *s, const json_t *all, struct err *e);
/* --- waiter_rollout.c ---------------------------------------------------------------------- */
int waiter_rolled(struct supervisor *s, struct waiter *w, struct err *e);

json_t *waiter_workers_json(struct supervisor *s, const struct waiter *w);

#endif

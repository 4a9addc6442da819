/*
 * The live state as a document: one list of fields per struct (state_tables.c), and what saves and
 * loads by these lists (state_json.c). For upgrades in place (upgrade.h).
 *
 * A field is saved under its name; one that is 0, false, "" or NULL is left out, and one that a
 * document does not have stays 0: so a field added later must mean with 0 what it meant before it
 * was there. What cannot be said so needs a higher STATE_FORMAT and STATE_READS_FROM.
 *
 * A field that is in no list fails tests/unit/test_core_tables (and test_state).
 */
#ifndef BATON_SHELL_STATE_FIELDS_H
#define BATON_SHELL_STATE_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "conf/err.h"

/* Of the document. A binary takes a document when DOCUMENT.format >= its STATE_READS_FROM and its
 * STATE_FORMAT >= DOCUMENT.readable_by. */
#ifndef STATE_FORMAT
#define STATE_FORMAT 1
#endif
#ifndef STATE_READS_FROM
#define STATE_READS_FROM 1
#endif
#ifndef STATE_READABLE_BY
#define STATE_READABLE_BY 1
#endif

enum state_type {
	STATE_NONE,     /* a type that cannot be saved as a value: SKIP it, or give it a row */
	STATE_SKIP,     /* not saved here: the comment in its table says who makes it again */
	STATE_BOOL,     /* */
	STATE_SIGNED,   /* of 1, 2, 4 or 8 bytes, also an enum without names */
	STATE_UNSIGNED, /* */
	STATE_NAMED,    /* an enum that is saved by its names */
	STATE_TEXT,     /* char[N] with its NUL */
	STATE_BYTES,    /* char[N], any bytes */
	STATE_STRING,   /* char *, malloced; NULL is fine */
	STATE_REASON,   /* const char *, static text; NULL is fine */
	STATE_FD,       /* int: a descriptor that the next image inherits; -1 = none */
	STATE_STRUCT,   /* */
};

struct state_struct;

struct state_field {
	const char *name;
	enum state_type type;
	size_t offset, size; /* of one element */
	size_t count;        /* elements: 1, or those of an array */
	const struct state_struct *of;
	const char *(*text)(unsigned value); /* NAMED */
	unsigned names;                      /* NAMED: how many */
};

struct state_struct {
	const char *name; /* "struct worker" */
	size_t size;
	const struct state_field *fields;
	size_t count;
};

/* The lists: one state_NAME for each struct. */
#define STATE_STRUCTS(X)                                                                           \
	X(worker, struct worker)                                                                   \
	X(executor, struct executor)                                                               \
	X(rollout, struct rollout)                                                                 \
	X(program, struct program)                                                                 \
	X(lock_view, struct lock_view)                                                             \
	X(request, struct core_request)                                                            \
	X(election, struct election)                                                               \
	X(lifecycle, struct lifecycle)                                                             \
	X(core, struct core)                                                                       \
	X(channel_buffer, struct channel_buffer)                                                   \
	X(lease, struct lease)                                                                     \
	X(process, struct process)                                                                 \
	X(helper, struct helper)                                                                   \
	X(hook, struct hook_process)                                                               \
	X(store_settings, struct store_settings)                                                   \
	X(store_row, struct store_row)                                                             \
	X(store_executor, struct store_executor)                                                   \
	X(store_view, struct store_view)                                                           \
	X(lock, struct lock_state)                                                                 \
	X(oom, struct oom_counter)                                                                 \
	X(listener, struct listener)                                                               \
	X(listener_slot, struct listener_slot)                                                     \
	X(parent, struct parent)                                                                   \
	X(supervisor, struct supervisor)                                                           \
	X(peer, struct control_peer)                                                               \
	X(connection, struct control_connection)                                                   \
	X(control, struct control)                                                                 \
	X(waiter_worker, struct waiter_worker)                                                     \
	X(waiter_program, struct waiter_program)                                                   \
	X(waiter, struct waiter)                                                                   \
	X(sink, struct logs_sink)                                                                  \
	X(stream, struct logs_stream)                                                              \
	X(logs, struct logs)

#define X(name, type) extern const struct state_struct state_##name;
STATE_STRUCTS(X)
#undef X

/* The fields of the struct at FROM as an object. */
json_t *state_save_struct(const struct state_struct *of, const void *from);
/* Into the struct at TO, which is zeroed (or holds what a missing field shall be). STRINGs are
 * malloced. E: which field is wrong. */
int state_load_struct(const struct state_struct *of, const json_t *object, void *to, struct err *e);
/* Calls EACH for every descriptor (>= 0) in the struct. */
void state_each_fd(const struct state_struct *of, const void *at,
	void (*each)(int fd, void *context), void *context);

/* Descriptors that the next image inherits. */
struct state_fds {
	int *items;
	size_t count, capacity;
	bool failed; /* out of memory */
};
void state_fds_add(struct state_fds *fds, int fd); /* -1 is fine */
/* state_save_struct, and its descriptors into FDS. */
json_t *state_put(const struct state_struct *of, const void *from, struct state_fds *fds);

/* Any bytes: a string when they are UTF-8 without NUL, else an array of one string in hex. */
json_t *state_save_bytes(const char *bytes, size_t count);
/* malloced, with a NUL behind; NULL when O is no such thing. */
char *state_load_bytes(const json_t *o, size_t *ret_count);
/* Static text again: equal ones are one, kept until the process ends. */
const char *state_intern(const char *text);

#endif

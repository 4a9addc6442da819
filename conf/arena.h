/*
 * Memory that is released all at once: one arena per snapshot, per built worker, per comparison.
 *
 * Allocation never returns NULL. Running out of memory leaves the function given to arena_run,
 * which then returns ERR_SYSTEM; so everything that allocates runs below arena_run and keeps its
 * other resources (descriptors, glob results) where its caller can release them.
 */
#ifndef BATON_CONF_ARENA_H
#define BATON_CONF_ARENA_H

#include <setjmp.h>
#include <stddef.h>

struct arena_block;

struct arena {
	struct arena_block *blocks; /* the newest first */
	char *next;                 /* free space of the newest block */
	size_t left;
	size_t block_bytes;
	jmp_buf *out_of_memory;
};

void arena_init(struct arena *a);
void arena_release(struct arena *a);
/* Call RUN(ARGUMENT). 0, or ERR_SYSTEM when memory ran out somewhere below. Not nested. */
int arena_run(struct arena *a, void (*run)(void *), void *argument);

void *arena_zero(struct arena *a, size_t bytes);
char *arena_bytes(struct arena *a, size_t bytes); /* for text: neither zeroed nor aligned */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t bytes); /* always NUL-terminated */
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* An array of COUNT items of ITEM bytes that has room for one more; it may have moved. Start with
 * ARRAY = NULL, *CAPACITY = 0. */
void *arena_grow(struct arena *a, void *array, size_t count, size_t *capacity, size_t item);

/* Text that grows at its end. */
struct text {
	struct arena *arena;
	char *bytes; /* NUL-terminated once anything was added; else NULL */
	size_t length, capacity;
};

void text_init(struct text *t, struct arena *a);
void text_add(struct text *t, const char *s, size_t bytes);
void text_puts(struct text *t, const char *s);
void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *text_string(struct text *t); /* never NULL */

#endif

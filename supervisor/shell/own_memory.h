/*
 * Memory that is the supervisor's alone: a fork does not copy it, so that a process between fork
 * and exec must not touch it. For what grows with the number of workers: without it each fork
 * would be as slow as all workers together are many.
 */
#ifndef BATON_SHELL_OWN_MEMORY_H
#define BATON_SHELL_OWN_MEMORY_H

#include <stddef.h>

/* COUNT zeroed items; pages that nobody touches cost nothing. NULL = out of memory. */
void *own_memory_new(size_t count, size_t item_bytes);
/* From OLD_COUNT items (FROM may be NULL with 0) to COUNT; may move; new ones are zero. NULL = out
 * of memory, FROM is as it was. */
void *own_memory_grow(void *from, size_t old_count, size_t count, size_t item_bytes);
void own_memory_free(void *memory, size_t count, size_t item_bytes); /* NULL is fine */

#endif

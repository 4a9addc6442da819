/*
 * Forks that do not copy the supervisor's descriptors.
 *
 * The supervisor has about three descriptors for each worker. A fork copies them all and the child
 * closes them one by one: with 1,000 workers that was a sixth of all the CPU time of their start.
 * Here the child is made with clone(CLONE_FILES): as by fork, but on the supervisor's own table of
 * descriptors; and its first act is close_range(above, ~0, CLOSE_RANGE_UNSHARE), which gives it a
 * table of its own with what lies below only (Linux 5.9: the kernel copies no more than that). What
 * the child needs is there because the supervisor has put copies of it there, in a slot of low
 * numbers that were taken at the start and otherwise hold /dev/null.
 *
 * The slot must stay as it is until the child has its own table: it says so by one byte in its
 * report pipe. (The slot holds that pipe's writing end too: only once it is free can the end of
 * the pipe mean exec.) Nobody waits for that; as long as no slot is free, or where the kernel, a
 * filter of system calls or a low limit of descriptors refuses, a spawn is a plain fork.
 *
 * What can go wrong between clone and close_range:
 * - The child touches nothing of the table (child_exec), so it cannot disturb us.
 * - It is killed: its exit drops its reference to the table; its death frees the slot.
 * - It is stopped: the slot stays taken until it goes on or dies. What we close meanwhile is closed
 *   for it as well, where a forked child would keep it open (pipes, the lock).
 * - It has no memory for its table: it says so as any failure, and is tried again.
 * - We die, or exec (an upgrade): the kernel gives an exec its own table; the child's loses ours
 *   at its close_range. The byte is then read by whoever has the report pipe, who has no slot to
 *   free.
 */
#ifndef BATON_SHELL_SPAWN_TABLE_H
#define BATON_SHELL_SPAWN_TABLE_H

#include "supervisor/shell/spawn_internal.h"

/* As spawn_fork, for a worker: P's slot is taken if the child has one. */
pid_t table_fork(struct process *p, const struct child_spec *spec);
/* P's child has its own table, or none any more. */
void table_free(struct process *p);

#endif

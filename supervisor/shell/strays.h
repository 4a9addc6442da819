/*
 * Strays: children that we did not fork. What lost its parents below a worker comes to us, the
 * subreaper. Whose they are their session tells, their process group, or the mark in their
 * environment (worker/tree.h); that is read of strays alone, when a tree is to end.
 */
#ifndef BATON_SHELL_STRAYS_H
#define BATON_SHELL_STRAYS_H

#include "supervisor/shell/state.h"
#include "worker/tree.h"

#define STRAYS_MOST 1024 /* are dealt with at once */

/* Fills in at most ROOM, returns how many there are; -1 = the kernel has no such list. */
int strays_list(struct supervisor *s, pid_t *ret_pids, int room);
/* By session, group or mark; it may have ended. NULL = nothing tells. */
struct process *strays_owner(struct supervisor *s, pid_t pid);
/* Those with that mark (part 0: of any part) that are in no worker's session. */
int strays_marked(
	struct supervisor *s, struct tree_mark wanted, struct tree_leader *ret_leaders, int room);
/* One that is no living worker's and began since then; 0 = none. */
pid_t strays_nobodys(struct supervisor *s, int64_t since_ns);
void strays_tell(struct supervisor *s); /* of those, once */
void strays_end(struct supervisor *s);  /* kills those, as the last thing that a stop does */

#endif

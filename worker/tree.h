/*
 * Finding and killing everything below several workers whose pids may have been given anew. The
 * simpler functions, by pid, are in worker/deadman.h.
 *
 * Not reentrant: one table of processes, no threads. Nothing is allocated below 4096 processes.
 */
#ifndef BATON_WORKER_TREE_H
#define BATON_WORKER_TREE_H

#include "worker/deadman.h"

/*
 * In the environment of all that a worker starts: INSTANCE.START (a number by chance, which
 * processes of other users cannot read), of a command for its readiness or health
 * INSTANCE.START.PART. So it is known whose a process is that has a session of its own and no
 * parents; unless it was given another environment, or has written over it (as some do for their
 * title), or may not be looked into.
 */
#define TREE_MARK "BATON_MARK"

struct tree_mark {
	uint64_t start; /* 0 = none */
	uint64_t part;
};

struct tree_leader {
	pid_t pid;
	uint64_t start_ticks; /* 0 = not known */
	/* The caller knows that PID is the worker although it is neither a child of the caller nor
	 * (just forked) the leader of its session yet. */
	bool by_pid;
	uint64_t start; /* of its mark; 0 = not to be looked for */
};

/*
 * Scan and send SIG to all below LEADERS. Returns how many were found, or ERR_SYSTEM; RET_PIDFDS
 * gets the pidfds of the first ROOM of them (close them), -1 in what is left.
 *
 * INSTANCE: once these have their signal, the same for what bears a mark of that instance's, of the
 * start of one of LEADERS. It is looked for among the children of our parent: the caller is a child
 * of the supervisor, to whom orphans come, and both go to the same process when that is dead. (To
 * read an environment may wait for the memory of that process.) NULL = none.
 */
int tree_kill_leaders(const struct tree_leader *leaders, int leader_count, const char *instance,
	int sig, int *ret_pidfds, int room, struct err *e);
/* As tree_scan, without marks. */
int tree_scan_leaders(const struct tree_leader *leaders, int leader_count, pid_t *ret_pids,
	int capacity, struct err *e);
/* False: it has none of INSTANCE's that could be read. What is in the middle of an exec is waited
 * for, as long as there are nanoseconds LEFT, which are taken from it; NULL = not at all. */
bool tree_read_mark(pid_t pid, const char *instance, int64_t *left, struct tree_mark *ret);

#endif

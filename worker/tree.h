/*
 * Finding and killing everything below several workers whose pids may have been given anew. The
 * simpler functions, by pid, are in worker/deadman.h.
 *
 * Not reentrant: one table of processes, no threads. Nothing is allocated below 4096 processes.
 */
#ifndef BATON_WORKER_TREE_H
#define BATON_WORKER_TREE_H

#include "worker/deadman.h"

struct tree_leader {
	pid_t pid;
	uint64_t start_ticks; /* 0 = not known */
	/* The caller knows that PID is the worker although it is neither a child of the caller nor
	 * (just forked) the leader of its session yet. */
	bool by_pid;
};

/* Scan and send SIG to all below LEADERS. Returns how many were found, or ERR_SYSTEM; RET_PIDFDS
 * gets the pidfds of the first ROOM of them (close them), -1 in what is left. */
int tree_kill_leaders(const struct tree_leader *leaders, int leader_count, int sig, int *ret_pidfds,
	int room, struct err *e);

#endif

/*
 * The deadman: kills executors whose lease nobody can vouch for, and everything when the
 * supervisor is dead (election.md section 4).
 *
 * It shares with its supervisor: the guard's open file description; one table of the workers (a
 * memfd mapped by both: no message, no wake-up for a spawn); for each executor, read-write, its
 * lease page. Descriptors in the deadman: 3 = SOCK_SEQPACKET socketpair, 4 = table, 5 = guard (may
 * be absent until a DEADMAN_GUARD message), 6 = pidfd of the supervisor.
 *
 * It wakes for: a message, the supervisor's death (pidfd), the earliest hard deadline it has read
 * from its pages (re-read when it fires: heartbeats need no message).
 */
#ifndef BATON_WORKER_DEADMAN_H
#define BATON_WORKER_DEADMAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf/err.h"

#define DEADMAN_TABLE_MAGIC 0x31444d44u
#define DEADMAN_EXECUTORS   32

/* Raised when messages or table change their meaning while their sizes stay. The head of the table
 * (magic, capacity, epoch) never changes: an upgrade in place speaks to a table of another protocol
 * through it. */
#ifndef DEADMAN_PROTOCOL
#define DEADMAN_PROTOCOL 2
#endif

enum deadman_flags {
	DEADMAN_KILL =
		1, /* kill this tree when the supervisor dies (on_supervisor_death, candidates) */
};

/* One worker: leader of its own session, session id = pid. Written by the supervisor right after
 * fork, cleared when its tree is gone. START_TICKS (field 22 of /proc/PID/stat) guards against a
 * reused pid; 0 = not read yet. MAIN_PID: what it has named as its main process in the place of the
 * leader, which may be gone. */
struct deadman_entry {
	_Atomic int32_t pid; /* 0 = free */
	_Atomic uint32_t flags;
	_Atomic uint64_t start_ticks;
	_Atomic uint64_t start;   /* of its mark, see worker/tree.h */
	_Atomic int32_t main_pid; /* 0 = the leader */
	_Atomic uint64_t main_ticks;
};

struct deadman_table {
	uint32_t magic;
	_Atomic uint32_t capacity;
	_Atomic int64_t
		epoch;     /* whose byte the guard description holds; 0 = none: nothing to mark */
	char instance[40]; /* the supervisor's, as in the marks */
	struct deadman_entry entries[];
};

enum deadman_verb {
	DEADMAN_ARM,    /* slot, pid, term; one descriptor: the lease page, read-write. Answered */
	DEADMAN_DISARM, /* slot */
	DEADMAN_TABLE,  /* one descriptor: a larger table replaces the old one. Answered */
	DEADMAN_GUARD,  /* one descriptor: the guard's description. Answered */
	DEADMAN_BYE,    /* the supervisor ends in good order: exit, kill nothing */
};

struct deadman_message {
	uint32_t verb;
	uint32_t slot; /* below DEADMAN_EXECUTORS: the candidate program */
	int32_t pid;   /* the executor: session leader */
	uint64_t term;
};

/* Answers have the same form: verb, slot, pid, term as received. */

/* Bytes of a table for CAPACITY workers. */
size_t deadman_table_bytes(uint32_t capacity);
/* A table in a fresh memfd (close-on-exec), mapped. */
int deadman_table_create(
	uint32_t capacity, int *ret_fd, struct deadman_table **ret_table, struct err *e);

/* `lock-deadman`: see above. */
int deadman_main(int argc, char **argv);

/*
 * Finding and killing everything below a worker (worker/tree.c), used by supervisor and deadman.
 * One scan of /proc: all processes whose session or process group is LEADER, and the closure of
 * their children. Fills at most CAPACITY pids, returns how many there are in all (zombies are not
 * counted), or ERR_SYSTEM.
 */
int tree_scan(pid_t leader, pid_t *ret_pids, int capacity, struct err *e);
/* Scan and send SIG to each that was found (through a pidfd, re-checked against pid reuse).
 * Returns how many were found. */
int tree_kill(pid_t leader, int sig, struct err *e);
/* Field 22 of /proc/PID/stat, 0 when there is no such process. */
uint64_t tree_start_ticks(pid_t pid);

#endif

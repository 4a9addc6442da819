/*
 * The keeper: the process that speaks to the store for its supervisor. Blocking, simple,
 * replaceable. One SOCK_SEQPACKET socketpair (descriptor 3 in the keeper): first a
 * struct store_settings, then one keeper_request at a time, each answered by one keeper_reply with
 * the same id. End of file: drop what is queued, exit.
 */
#ifndef BATON_WORKER_KEEPER_H
#define BATON_WORKER_KEEPER_H

#include "worker/lock/store.h"

/* Raised when the meaning of a packet changes while its size stays. */
#ifndef KEEPER_PROTOCOL
#define KEEPER_PROTOCOL 1
#endif

enum keeper_op {
	KEEPER_INSPECT,
	KEEPER_ACQUIRE,
	KEEPER_RENEW,
	KEEPER_PROMOTE,
	KEEPER_RELEASE,
	KEEPER_CLAIM,
	KEEPER_SETTINGS, /* new store_settings follow as the next packet; answered DONE */
	KEEPER_UNCLAIM,  /* job, fire_time_us, attempt, owner: claimed and not run; reason: why */
};

struct keeper_request {
	uint64_t id;
	enum keeper_op op;
	struct store_expect expect; /* acquire */
	int64_t epoch, term, new_term, ttl_ms;
	char program[STORE_NAME_BYTES], worker[STORE_NAME_BYTES]; /* promote, claim */
	int64_t pid;
	char reason[64];
	char job[STORE_NAME_BYTES];
	int64_t fire_time_us;
	int attempt;
	int64_t owner;
};

struct keeper_reply {
	uint64_t id;
	enum keeper_op op;
	enum store_outcome outcome;
	bool floor_failed; /* COMMIT stands but the floor could not be written: promote nobody */
	struct store_view view;
	char text[512]; /* why, when the outcome is not DONE or the floor failed */
};

/* `lock-keeper`: argv has nothing else. Ignores INT, TERM, HUP, QUIT; own session; dies with its
 * parent (PR_SET_PDEATHSIG) and at end of file. */
int keeper_main(int argc, char **argv);
/* The same on a given store and descriptor (tests). Returns at end of file. */
int keeper_serve(struct store *s, int fd);

#endif

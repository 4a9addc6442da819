/*
 * The lines between a worker and its supervisor (worker-protocol.md, "The channel"): encode and
 * decode, nothing else. No descriptor is touched here.
 */
#ifndef BATON_WORKER_CHANNEL_H
#define BATON_WORKER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"

#define CHANNEL_LINE_BYTES 512 /* with the newline */

enum channel_verb {
	CHANNEL_HELLO,    /* from the worker */
	CHANNEL_PROMOTED, /* term */
	CHANNEL_DEMOTED,  /* term */
	CHANNEL_BUSY,     /* count */
	CHANNEL_CLAIM,    /* job, time */
	CHANNEL_PROMOTE,  /* to the worker: term, ttl_ms */
	CHANNEL_DEMOTE,   /* term, reason, grace_ms */
	CHANNEL_UNKNOWN,  /* a word of a later version: tolerated */
};

enum channel_reason { CHANNEL_HANDOFF, CHANNEL_SHUTDOWN, CHANNEL_LOST };

struct channel_message {
	enum channel_verb verb;
	uint64_t term;
	int64_t number; /* ttl_ms, grace_ms, busy count */
	enum channel_reason reason;
	char word[128], word2[64]; /* claim: job, time; unknown: the verb */
};

/* Split off lines from a byte stream: at most CHANNEL_LINE_BYTES are ever held. */
struct channel_buffer {
	char bytes[CHANNEL_LINE_BYTES];
	size_t used;
	bool skipping; /* an endless line: dropped up to its newline */
};

void channel_buffer_clear(struct channel_buffer *b);
/* Feed BYTES; for each whole line calls ON_LINE(line without newline, context). Returns 0, or
 * ERR_PROTOCOL when a line was too long or held a NUL or control byte (it is skipped, E says so,
 * the lines behind it are still delivered). */
int channel_feed(struct channel_buffer *b, const char *bytes, size_t count,
	void (*on_line)(const char *line, void *context), void *context, struct err *e);

/* Decode one line. 0 or ERR_PROTOCOL with what is wrong. */
int channel_decode(const char *line, struct channel_message *ret_message, struct err *e);
/* Encode with the newline; returns the length, at most CHANNEL_LINE_BYTES - 1. */
size_t channel_encode(const struct channel_message *m, char buf[CHANNEL_LINE_BYTES]);
const char *channel_reason_name(enum channel_reason r);

#endif

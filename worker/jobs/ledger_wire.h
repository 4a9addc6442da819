/*
 * Frames between the job worker and its ledger process: a head of fixed size, then BYTES of
 * payload, padded to eight, so that every record in the buffer is aligned. Both ends are the same
 * binary: records are the structures themselves.
 *
 *   request  CLAIM    struct ledger_claimant, counts[0] * struct ledger_firing
 *            UPDATE   counts[0] * struct ledger_update, then their outputs one behind the other
 *            DECLARE  counts[0] * struct ledger_declared
 *            LOOK     numbers[0] = what;  REFUSE  numbers[0] = request, text;
 *            TRIM     numbers[0] = keep_us, numbers[1] = keep_count
 *   reply    CLAIM    counts[0] * struct ledger_claimed
 *            UPDATE   counts[0] * enum ledger_updated
 *            LOOK     counts[0] * struct ledger_run, counts[1] * struct ledger_job,
 *                     counts[2] * struct ledger_request; numbers[0] = executor_term
 */
#ifndef BATON_WORKER_JOBS_LEDGER_WIRE_H
#define BATON_WORKER_JOBS_LEDGER_WIRE_H

#include "worker/jobs/ledger.h"

#define LEDGER_MAGIC UINT32_C(0x4c454447) /* "LEDG" */

struct ledger_head {
	uint32_t magic, bytes;
	uint32_t op, outcome;
	uint64_t id;
	uint32_t counts[4]; /* the last one is room */
	int64_t numbers[2];
	char text[512];
};
_Static_assert(sizeof(struct ledger_head) % 8 == 0, "the payload is aligned");

struct ledger_part {
	const void *bytes;
	size_t count;
};

/* Room for COUNT more bytes behind what is used. 0 or ERR_LIMIT (no memory). */
int ledger_buffer_reserve(struct ledger_buffer *b, size_t count);
/* The first COUNT bytes are done with. Memory that was needed once is given back. */
void ledger_buffer_consume(struct ledger_buffer *b, size_t count);
void ledger_buffer_release(struct ledger_buffer *b);

static inline char *ledger_buffer_data(const struct ledger_buffer *b)
{
	return b->bytes + b->start;
}

/* Append one frame; HEAD's magic and bytes are filled. 0 or ERR_LIMIT: nothing was appended. */
int ledger_frame_put(struct ledger_buffer *b, struct ledger_head *head,
	const struct ledger_part *parts, size_t part_count);
/* A whole frame at the start of B: 1, its head in *RET_HEAD and its payload in *RET_PAYLOAD, both
 * valid until the buffer changes. 0: more bytes are needed. ERR_PROTOCOL: no frame of ours. */
int ledger_frame_next(struct ledger_buffer *b, struct ledger_head **ret_head, char **ret_payload);
static inline size_t ledger_frame_bytes(const struct ledger_head *head)
{
	return sizeof(*head) + head->bytes;
}

#endif

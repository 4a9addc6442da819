#include "worker/jobs/ledger_wire.h"

#include <stdlib.h>
#include <string.h>

enum { BUFFER_LEAST = 16384, BUFFER_KEPT = 1 << 20 };

int ledger_buffer_reserve(struct ledger_buffer *b, size_t count)
{
	size_t wanted = b->capacity ? b->capacity : BUFFER_LEAST;
	char *larger;

	if (b->capacity - b->start - b->used >= count)
		return 0;
	if (b->start > 0) {
		memmove(b->bytes, b->bytes + b->start, b->used);
		b->start = 0;
	}
	while (wanted - b->used < count)
		wanted *= 2;
	if (wanted == b->capacity)
		return 0;
	larger = realloc(b->bytes, wanted);
	if (!larger)
		return ERR_LIMIT;
	b->bytes = larger;
	b->capacity = wanted;
	return 0;
}

void ledger_buffer_consume(struct ledger_buffer *b, size_t count)
{
	b->start += count;
	b->used -= count;
	if (b->used > 0)
		return;
	b->start = 0;
	if (b->capacity > BUFFER_KEPT)
		ledger_buffer_release(b);
}

void ledger_buffer_release(struct ledger_buffer *b)
{
	free(b->bytes);
	memset(b, 0, sizeof(*b));
}

static char *append(char *to, const void *bytes, size_t count)
{
	if (count > 0)
		memcpy(to, bytes, count);
	return to + count;
}

int ledger_frame_put(struct ledger_buffer *b, struct ledger_head *head,
	const struct ledger_part *parts, size_t part_count)
{
	static const char padding[8];
	size_t bytes = 0, pad;
	char *to;

	for (size_t i = 0; i < part_count; i++) {
		if (parts[i].count > LEDGER_FRAME_BYTES - bytes)
			return ERR_LIMIT;
		bytes += parts[i].count;
	}
	pad = (8 - bytes % 8) % 8;
	if (ledger_buffer_reserve(b, sizeof(*head) + bytes + pad) != 0)
		return ERR_LIMIT;
	head->magic = LEDGER_MAGIC;
	head->bytes = (uint32_t)(bytes + pad);
	to = append(b->bytes + b->start + b->used, head, sizeof(*head));
	for (size_t i = 0; i < part_count; i++)
		to = append(to, parts[i].bytes, parts[i].count);
	append(to, padding, pad);
	b->used += sizeof(*head) + bytes + pad;
	return 0;
}

int ledger_frame_next(struct ledger_buffer *b, struct ledger_head **ret_head, char **ret_payload)
{
	struct ledger_head *head;

	if (b->used < sizeof(*head))
		return 0;
	/* Frames are multiples of eight, so the start is aligned as the memory is. */
	head = (struct ledger_head *)(void *)ledger_buffer_data(b);
	if (head->magic != LEDGER_MAGIC || head->bytes > LEDGER_FRAME_BYTES + 8 ||
		head->bytes % 8 != 0 || head->op >= LEDGER_OP_COUNT)
		return ERR_PROTOCOL;
	if (b->used < ledger_frame_bytes(head))
		return 0;
	head->text[sizeof(head->text) - 1] = '\0';
	*ret_head = head;
	*ret_payload = (char *)(head + 1);
	return 1;
}

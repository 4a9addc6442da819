/*
 * Looking for a text in a stream: Knuth, Morris and Pratt, so that a text that comes in pieces is
 * found without keeping any of them, however long its line is.
 */
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/log_internal.h"

struct log_expect {
	void (*seen)(void *context);
	void *context;
	size_t bytes, at;       /* of the word; how much of it the last bytes are */
	unsigned short *border; /* behind the word */
	char word[];            /* padded to an even length; the borders follow */
};

static void make_borders(struct log_expect *x)
{
	size_t k = 0;

	x->border[0] = 0;
	for (size_t i = 1; i < x->bytes; i++) {
		while (k > 0 && x->word[i] != x->word[k])
			k = x->border[k - 1];
		k += x->word[i] == x->word[k];
		x->border[i] = (unsigned short)k;
	}
}

void logs_stream_expect(
	struct logs_stream *s, const char *word, void (*seen)(void *context), void *context)
{
	size_t bytes = strlen(word), room = (bytes + 1) & ~(size_t)1;
	struct log_expect *x;

	free(s->expect);
	s->expect = NULL;
	if (!seen || bytes == 0 || bytes > 0xffff)
		return;
	x = malloc(sizeof(*x) + room + bytes * sizeof(*x->border));
	if (!x)
		return; /* the worker is not ready in time, then */
	*x = (struct log_expect){.seen = seen, .context = context, .bytes = bytes};
	x->border = (unsigned short *)(void *)(x->word + room);
	memcpy(x->word, word, bytes);
	make_borders(x);
	s->expect = x;
}

void expect_feed(struct logs_stream *s, const char *data, size_t bytes)
{
	struct log_expect *x = s->expect;

	for (size_t i = 0; i < bytes; i++) {
		while (x->at > 0 && data[i] != x->word[x->at])
			x->at = x->border[x->at - 1];
		x->at += data[i] == x->word[x->at];
		if (x->at < x->bytes)
			continue;
		s->expect = NULL;
		x->seen(x->context);
		free(x);
		return;
	}
}

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
	size_t bytes;           /* of the word */
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

	if (s->expect) /* else: it is looked for since before an upgrade */
		s->expect_at = 0;
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
		while (s->expect_at > 0 && data[i] != x->word[s->expect_at])
			s->expect_at = x->border[s->expect_at - 1];
		s->expect_at += data[i] == x->word[s->expect_at];
		if (s->expect_at < x->bytes)
			continue;
		s->expect = NULL;
		s->expect_at = 0;
		x->seen(x->context);
		free(x);
		return;
	}
}

/* Is every field of every struct of the live state in its list (state_tables.c)? */
#ifndef BATON_TESTS_STATE_CHECK_H
#define BATON_TESTS_STATE_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/commands.h"
#include "supervisor/shell/control_internal.h"
#include "supervisor/shell/log_internal.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/state_fields.h"

#ifdef __has_builtin
#if __has_builtin(__builtin_clear_padding)
#define STATE_CHECK_PADDING(type, at) __builtin_clear_padding((type *)(at))
#endif
#endif
#ifndef STATE_CHECK_PADDING /* this compiler does not say which bytes are fields */
#define STATE_CHECK_PADDING(type, at) memset(at, 0, sizeof(type))
#endif

/* GCC 12 forgets how long an array of structs is. */
static bool state_check_is_exact(const struct state_struct *s)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct state_field *f = &s->fields[i];

		if (f->of != NULL && (f->count > 1 || !state_check_is_exact(f->of)))
			return false;
	}
	return true;
}

/* Then a gap that alignment explains is taken for padding. */
static void state_check_guess(
	const struct state_struct *s, const unsigned char *listed, unsigned char *mask)
{
	for (size_t i = 0; i < s->size; i++)
		mask[i] = 1;
	for (size_t i = 0, end; i < s->size; i = end) {
		size_t align = 8;

		for (end = i + 1; end < s->size && !listed[i] && !listed[end];)
			end++;
		for (size_t j = 0; j < s->count; j++) {
			if (s->fields[j].offset == end && s->fields[j].size < 8)
				align = s->fields[j].size;
		}
		if (!listed[i] && end - i < align)
			memset(mask + i, 0, end - i);
	}
}

/* MASK: not 0 = a byte of a field. Complaints are printed; returns how many. */
static int state_check_struct(const struct state_struct *s, unsigned char *mask)
{
	unsigned char *listed = calloc(1, s->size + 1);
	const char *before = "its beginning";
	int complaints = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct state_field *f = &s->fields[i];

		memset(listed + f->offset, 1, f->size * f->count);
		if (f->type == STATE_NONE || (f->type == STATE_NAMED && f->text == NULL)) {
			printf("# %s: '%s' is of a type that V() cannot save: see the head of "
			       "supervisor/shell/state_tables.c\n",
				s->name, f->name);
			complaints++;
		}
	}
	if (!state_check_is_exact(s))
		state_check_guess(s, listed, mask);
	for (size_t i = 0; i < s->size; i++) {
		for (size_t j = 0; j < s->count; j++) {
			const struct state_field *f = &s->fields[j];

			if (f->offset + f->size * f->count == i)
				before = f->name;
		}
		if (!mask[i] || listed[i] || (i > 0 && mask[i - 1] && !listed[i - 1]))
			continue;
		printf("# %s has a field behind '%s' (offset %zu) that an upgrade in place would "
		       "lose: give it a row in supervisor/shell/state_tables.c (its head says "
		       "how): V(name) to save it, SKIP(name) when the next image makes it anew\n",
			s->name, before, i);
		complaints++;
	}
	free(listed);
	return complaints;
}

/* 0 = all is listed. */
static inline int state_check(void)
{
	int complaints = 0;

#define X(list, type)                                                                              \
	{                                                                                          \
		unsigned char *mask = malloc(sizeof(type));                                        \
		memset(mask, 0xff, sizeof(type));                                                  \
		STATE_CHECK_PADDING(type, mask);                                                   \
		complaints += state_check_struct(&state_##list, mask);                             \
		free(mask);                                                                        \
	}
	STATE_STRUCTS(X)
#undef X
	return complaints;
}

#endif

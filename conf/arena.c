#include "conf/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/err.h"

enum { FIRST_BLOCK_BYTES = 4096, LAST_BLOCK_BYTES = 1 << 20 };

struct arena_block {
	struct arena_block *older;
	alignas(max_align_t) char bytes[];
};

void arena_init(struct arena *a)
{
	memset(a, 0, sizeof(*a));
	a->block_bytes = FIRST_BLOCK_BYTES;
}

void arena_release(struct arena *a)
{
	while (a->blocks) {
		struct arena_block *older = a->blocks->older;
		free(a->blocks);
		a->blocks = older;
	}
	arena_init(a);
}

int arena_run(struct arena *a, void (*run)(void *), void *argument)
{
	jmp_buf out_of_memory;

	assert(!a->out_of_memory);
	if (setjmp(out_of_memory)) {
		a->out_of_memory = NULL;
		return ERR_SYSTEM;
	}
	a->out_of_memory = &out_of_memory;
	run(argument);
	a->out_of_memory = NULL;
	return 0;
}

static void give_up(struct arena *a)
{
	assert(a->out_of_memory);
	longjmp(*a->out_of_memory, 1);
}

static char *add_block(struct arena *a, size_t bytes)
{
	struct arena_block *b = NULL;

	if (bytes < SIZE_MAX - sizeof(*b))
		b = malloc(sizeof(*b) + bytes);
	if (!b)
		give_up(a);
	b->older = a->blocks;
	a->blocks = b;
	return b->bytes;
}

char *arena_bytes(struct arena *a, size_t bytes)
{
	char *p;

	if (bytes <= a->left) {
		p = a->next;
		a->next += bytes;
		a->left -= bytes;
		return p;
	}
	if (bytes > a->block_bytes / 4)
		return add_block(a, bytes);
	p = add_block(a, a->block_bytes);
	a->next = p + bytes;
	a->left = a->block_bytes - bytes;
	if (a->block_bytes < LAST_BLOCK_BYTES)
		a->block_bytes *= 2;
	return p;
}

void *arena_zero(struct arena *a, size_t bytes)
{
	const size_t mask = alignof(max_align_t) - 1;
	size_t over = (uintptr_t)a->next & mask;
	char *p;

	if (over && a->left >= mask + 1 - over) {
		a->next += mask + 1 - over;
		a->left -= mask + 1 - over;
	} else if (over) {
		a->left = 0;
	}
	p = arena_bytes(a, bytes);
	memset(p, 0, bytes);
	return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t bytes)
{
	char *p = arena_bytes(a, bytes + 1);

	memcpy(p, s, bytes);
	p[bytes] = '\0';
	return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_strndup(a, s, strlen(s));
}

static char *print(struct arena *a, const char *format, va_list arguments)
{
	va_list again;
	char *p;
	int bytes;

	assert(format);
	va_copy(again, arguments);
	bytes = vsnprintf(NULL, 0, format, again);
	va_end(again);
	if (bytes < 0)
		give_up(a);
	p = arena_bytes(a, (size_t)bytes + 1);
	vsnprintf(p, (size_t)bytes + 1, format, arguments);
	return p;
}

char *arena_printf(struct arena *a, const char *format, ...)
{
	va_list arguments;
	char *p;

	va_start(arguments, format);
	p = print(a, format, arguments);
	va_end(arguments);
	return p;
}

void *arena_grow(struct arena *a, void *array, size_t count, size_t *capacity, size_t item)
{
	void *bigger;
	size_t wanted;

	if (count < *capacity)
		return array;
	wanted = *capacity ? *capacity * 2 : 8;
	bigger = arena_zero(a, wanted * item);
	if (count)
		memcpy(bigger, array, count * item);
	*capacity = wanted;
	return bigger;
}

void text_init(struct text *t, struct arena *a)
{
	memset(t, 0, sizeof(*t));
	t->arena = a;
}

void text_add(struct text *t, const char *s, size_t bytes)
{
	size_t wanted = t->length + bytes + 1;
	struct arena *a = t->arena;

	if (wanted > t->capacity) {
		size_t more = wanted - t->capacity;
		if (t->bytes && a->next == t->bytes + t->capacity && a->left >= more) {
			a->next += more;
			a->left -= more;
			t->capacity = wanted;
		} else {
			size_t capacity = wanted < 64 ? 64 : t->bytes ? wanted * 2 : wanted;
			char *p = arena_bytes(a, capacity);
			if (t->length)
				memcpy(p, t->bytes, t->length);
			t->bytes = p;
			t->capacity = capacity;
		}
	}
	if (bytes)
		memcpy(t->bytes + t->length, s, bytes);
	t->length += bytes;
	t->bytes[t->length] = '\0';
}

void text_puts(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

void text_printf(struct text *t, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	text_puts(t, print(t->arena, format, arguments));
	va_end(arguments);
}

char *text_string(struct text *t)
{
	if (!t->bytes)
		text_add(t, "", 0);
	return t->bytes;
}

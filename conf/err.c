#include "conf/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of each kind this many findings are kept and the rest is counted: a hostile file of 10 MiB can
 * have a million of them. */
enum { LIST_LIMIT = 500 };

/* One line for a terminal or a log: what the text quotes may hold anything. */
static void make_printable(char *text, size_t bytes, int wanted)
{
	size_t length = strlen(text);

	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c < 0x20 || c == 0x7f)
			text[i] = ' ';
	}
	if (wanted < 0 || (size_t)wanted < bytes)
		return;
	length = bytes - 4;
	while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
		length--;
	strcpy(text + length, "...");
}

static void fill(struct err *e, enum err_code code, const char *file, int line, const char *format,
	va_list arguments)
{
	char text[ERR_TEXT_BYTES];
	int wanted = vsnprintf(text, sizeof(text), format, arguments);

	if (wanted < 0)
		text[0] = '\0';
	make_printable(text, sizeof(text), wanted);
	memset(e, 0, offsetof(struct err, file));
	e->code = code;
	e->line = line;
	wanted = snprintf(e->file, sizeof(e->file), "%s", file ? file : "");
	make_printable(e->file, sizeof(e->file), wanted);
	memcpy(e->text, text, sizeof(text));
}

int err_set(struct err *e, enum err_code code, const char *format, ...)
{
	va_list arguments;

	if (!e)
		return code;
	va_start(arguments, format);
	fill(e, code, NULL, 0, format, arguments);
	va_end(arguments);
	return code;
}

int err_set_at(
	struct err *e, enum err_code code, const char *file, int line, const char *format, ...)
{
	va_list arguments;

	if (!e)
		return code;
	va_start(arguments, format);
	fill(e, code, file, line, format, arguments);
	va_end(arguments);
	return code;
}

int err_prefix(struct err *e, const char *format, ...)
{
	char front[ERR_TEXT_BYTES], whole[2 * ERR_TEXT_BYTES + 2];
	va_list arguments;
	int wanted;

	if (!e)
		return ERR_NONE;
	va_start(arguments, format);
	vsnprintf(front, sizeof(front), format, arguments);
	va_end(arguments);
	wanted = snprintf(whole, sizeof(whole), "%s: %s", front, e->text);
	snprintf(e->text, sizeof(e->text), "%.*s", ERR_TEXT_BYTES - 1, whole);
	make_printable(e->text, sizeof(e->text), wanted);
	return e->code;
}

void errlist_init(struct errlist *l)
{
	memset(l, 0, sizeof(*l));
}

void errlist_release(struct errlist *l)
{
	free(l->items);
	errlist_init(l);
}

static bool has_room(struct errlist *l)
{
	size_t capacity = l->capacity ? l->capacity * 2 : 8;
	struct err *items;

	if (l->count < l->capacity)
		return true;
	items = realloc(l->items, capacity * sizeof(*items));
	if (!items)
		return false;
	l->items = items;
	l->capacity = capacity;
	return true;
}

void errlist_add(struct errlist *l, const struct err *e)
{
	size_t number = e->warning ? ++l->warnings : ++l->errors;
	struct err *item;

	if (number > LIST_LIMIT + 1)
		return;
	if (!has_room(l)) {
		/* Memory ran out: an error by itself, so that nothing is taken for good. */
		l->errors += e->warning;
		return;
	}
	item = &l->items[l->count++];
	*item = *e;
	if (number == LIST_LIMIT + 1) {
		struct err last;
		err_set_at(&last, e->code, e->file, e->line,
			"too many %s: from here on they are only counted",
			e->warning ? "warnings" : "errors");
		last.warning = e->warning;
		*item = last;
	}
}

void errlist_addf(
	struct errlist *l, bool warning, const char *file, int line, const char *format, ...)
{
	va_list arguments;
	struct err e;

	if ((warning ? l->warnings : l->errors) >
		LIST_LIMIT) { /* counted only: no need for words */
		l->warnings += warning;
		l->errors += !warning;
		return;
	}
	va_start(arguments, format);
	fill(&e, ERR_CONFIG, file, line, format, arguments);
	va_end(arguments);
	e.warning = warning;
	errlist_add(l, &e);
}

char *err_format(const struct err *e, char *buf, size_t bytes)
{
	if (e->file[0] && e->line > 0)
		snprintf(buf, bytes, "%s:%d: %s", e->file, e->line, e->text);
	else if (e->file[0])
		snprintf(buf, bytes, "%s: %s", e->file, e->text);
	else
		snprintf(buf, bytes, "%s", e->text);
	return buf;
}

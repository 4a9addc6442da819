/*
 * Text files into logical lines: sections, and keys with their whole values, each with its line.
 *
 * The packaged inih cuts lines at 199 bytes and names at 49, cuts values at " ;" even in quotes
 * and knows no line numbers. So inih never sees the text: reader_handle, an ini_reader for
 * ini_parse_stream, hands it one short handle per logical line ("[1]", "item=1"), and the handler
 * takes the line itself out of reader->item.
 *
 * What a line means is what Python's ConfigParser makes of it (as supervisord uses it), with one
 * difference in native mode: a comment sign inside quotes is part of the value.
 */
#ifndef BATON_CONF_READER_H
#define BATON_CONF_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/arena.h"
#include "conf/err.h"

#define READER_FILE_BYTES (64u << 20) /* a larger file is refused */

enum reader_kind { READER_SECTION, READER_ENTRY };

struct reader_item { /* strings are in the arena */
	enum reader_kind kind;
	const char *name;  /* of the section, or the key in lower case */
	const char *value; /* of an entry, its lines joined by newlines; else "" */
	int line;
};

struct reader {
	struct arena *arena;
	struct errlist *findings;
	const char *file; /* for messages */
	bool native;
	const char *position, *end;
	int line; /* of the line before position */
	bool in_section, open, cut_in_quotes;
	size_t indent;
	struct text value;
	struct reader_item item; /* the present one */
	unsigned long handle;
	bool header_sent;
};

/* The whole of a file: *ret_text is in the arena, NUL-terminated. Refused: a directory, more than
 * READER_FILE_BYTES, NUL bytes, a pipe that stays silent for 5 s. Returns 0 or a code of err.h. */
int reader_load(
	struct arena *a, const char *path, char **ret_text, size_t *ret_bytes, struct err *e);

/* /dev/stdin, or what a shell puts in the place of <(...): not a place in the file system. What
 * stands in such a configuration starts from the working directory. */
bool reader_is_descriptor(const char *path);

/* TEXT and FILE must stay while the reader is used. */
void reader_init(struct reader *r, struct arena *a, struct errlist *findings, bool native,
	const char *file, const char *text, size_t bytes);
/* The next item into r->item; false at the end. Lines that are neither are findings. */
bool reader_next(struct reader *r);
/* As ini_reader wants it: STREAM is a struct reader. */
char *reader_handle(char *line, int bytes, void *stream);

/* Bytes of the white space at P as Python's str.isspace sees it; 0 = another character. */
size_t reader_space(const char *p, const char *end);
/* The first byte that is not UTF-8, or NULL. */
const char *reader_not_utf8(const char *p, const char *end);

#endif

/*
 * Output for people: colours, columns that fit the terminal, times. And JSON.
 */
#ifndef BATON_CLI_OUTPUT_H
#define BATON_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

enum output_colour { PLAIN, GOOD, BAD, CAREFUL, STRONG, FAINT };

/* Colour only on a terminal and without NO_COLOR. */
bool output_coloured(FILE *to);
/* Columns of the terminal behind standard output; 0, no limit, when it is none. */
int output_width(void);
/* Columns that TEXT takes on a terminal (UTF-8). */
int output_columns(const char *text);

/* A table: cells are copied. The last column is cut to the width, the others never. */
enum { OUTPUT_COLUMNS = 10 };
struct output_table {
	int columns;
	int rows, capacity;
	struct output_cell *cells;
};
void output_table_init(struct output_table *t, int columns);
/* One more cell, from left to right; NULL is an empty one. */
void output_cell(struct output_table *t, enum output_colour colour, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void output_table_print(struct output_table *t, FILE *to, bool coloured, int width); /* frees */
const char *output_paint(bool coloured, enum output_colour colour);

int output_json(const json_t *document); /* 0 or CLI_FAILED */

/* "2m 3s", "250 ms", "3h 4m" into BUF; returns BUF. */
char *output_duration(int64_t ms, char *buf, size_t bytes);
/* RFC 3339 with milliseconds, in UTC. */
char *output_time(int64_t wall_us, char *buf, size_t bytes);
/* Back from it; 0 when TEXT is NULL or no time. */
int64_t output_parse_time(const char *text);
int64_t output_now_us(void);

/* Members of JSON objects, never NULL. */
const char *output_text(const json_t *object, const char *key); /* "" when missing */
int64_t output_number(const json_t *object, const char *key);   /* 0 when missing */
bool output_true(const json_t *object, const char *key);

#endif

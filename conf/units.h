/*
 * Values with a unit: durations, sizes, numbers, signals, octal modes, booleans, words.
 *
 * Each parse function returns 0 or ERR_CONFIG with the reason in E (no place, no name of a key);
 * the result is untouched on failure. White space around the value is ignored.
 */
#ifndef BATON_CONF_UNITS_H
#define BATON_CONF_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"

#define UNITS_SECOND_NS 1000000000LL

int units_boolean(const char *text, bool *ret_value, struct err *e);
/* As Python's int(): a sign and underscores between digits are allowed. */
int units_integer(const char *text, int64_t *ret_value, struct err *e);
int units_octal(const char *text, int *ret_value, struct err *e);
/* "250ms", "10s", "5m", "1h", "7d"; "us"; fractions as "1.5s"; a bare number is seconds. */
int units_duration(const char *text, int64_t *ret_ns, struct err *e);
/* "64KB", "50MB", "1GB", a bare number is bytes. */
int units_size(const char *text, int64_t *ret_bytes, struct err *e);
/* "TERM", "SIGTERM", "15", "RTMIN+3". */
int units_signal(const char *text, int *ret_signal, struct err *e);
/* The index of TEXT in WORDS, "stay|exit"; letter case does not matter. */
int units_word(const char *text, const char *words, int *ret_index, struct err *e);
/* RLIMIT_x of "nofile", or -1. */
int units_rlimit(const char *name);
/* "1024", "64MB", "unlimited", "soft:hard". */
int units_rlimit_value(const char *text, uint64_t *ret_soft, uint64_t *ret_hard, struct err *e);

/* Shortest exact form, "10s", "250ms", into BUF; returns BUF. */
char *units_print_duration(int64_t ns, char *buf, size_t bytes);
const char *units_signal_name(int signal, char *buf, size_t bytes); /* "TERM", "RTMIN+1", "70" */

/* Letters to insert, delete, replace or swap to make B of A; at most LIMIT + 1 is returned. */
int units_distance(const char *a, const char *b, int limit);

#endif

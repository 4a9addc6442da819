/*
 * Errors as values, for every layer.
 *
 * struct err is a fixed-size value that the caller owns (usually on the stack); nothing in it is
 * allocated. struct errlist collects all the findings of one file, errors and warnings alike; it
 * owns its memory (errlist_release).
 */
#ifndef BATON_CONF_ERR_H
#define BATON_CONF_ERR_H

#include <stdbool.h>
#include <stddef.h>

#define ERR_TEXT_BYTES 1024
#define ERR_FILE_BYTES 512

/* What a failure means to the caller; the text says it to people. */
enum err_code {
	ERR_NONE = 0,
	ERR_SYSTEM = -1,      /* a system call failed; the text holds the reason */
	ERR_CONFIG = -2,      /* the input is wrong */
	ERR_BUSY = -3,        /* somebody else has it now; trying again may help */
	ERR_REFUSED = -4,     /* compared and found different, or not permitted */
	ERR_WRONG = -5,       /* the object is not what it must be (other application, WAL, ...) */
	ERR_UNAVAILABLE = -6, /* not reachable now: a state, not a fault of the input */
	ERR_LIMIT = -7,       /* too long, too many */
	ERR_PROTOCOL = -8,    /* the peer broke the protocol */
	ERR_NOT_RUNNING = -9, /* nobody listens */
	ERR_TIMEOUT = -10,
};

struct err {
	enum err_code code;
	int line; /* 0 = no place */
	bool warning;
	char file[ERR_FILE_BYTES]; /* "" = no place; always NUL-terminated */
	char text[ERR_TEXT_BYTES]; /* one line, no newline; always NUL-terminated */
};

/* Fill E (NULL is fine) and return CODE, so that `return err_set(...)` reads well. */
int err_set(struct err *e, enum err_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* As err_set, with a place. FILE may be NULL. */
int err_set_at(struct err *e, enum err_code code, const char *file, int line, const char *format,
	...) __attribute__((format(printf, 5, 6)));
/* Put "WHAT: " before the text that is there. Returns e->code. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct errlist {
	struct err *items;
	size_t count, capacity;
	size_t errors, warnings;
};

void errlist_init(struct errlist *l);
void errlist_release(struct errlist *l);
/* Append a copy. An allocation failure is counted as an error, never lost silently. */
void errlist_add(struct errlist *l, const struct err *e);
/* An error or (WARNING) a warning: "[section] key: text" is the caller's wording. */
void errlist_addf(struct errlist *l, bool warning, const char *file, int line, const char *format,
	...) __attribute__((format(printf, 5, 6)));
/* FILE:LINE: text (or the text alone) into BUF; returns BUF. */
char *err_format(const struct err *e, char *buf, size_t bytes);

#endif

/*
 * The settings: ONE row each. What config_*.c reads, `check --dump` prints, a reload compares and
 * the manual lists comes from these rows.
 */
#ifndef BATON_CONF_SCHEMA_H
#define BATON_CONF_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum schema_section {
	SECTION_BATON, /* [baton] and [supervisord] */
	SECTION_SCHEDULER,
	SECTION_PROGRAM,
	SECTION_SOCKET,
	SECTION_GROUP,
	SECTION_INCLUDE,
	SECTION_JOB,
	SECTION_JOBS,
	SECTION_HTTP,
	SECTION_FCGI,
	SECTION_SKIPPED, /* supervisord's, with no counterpart here */
	SECTION_UNKNOWN,
};

enum schema_type {
	TYPE_TEXT,     /* const char * */
	TYPE_PATH,     /* const char *, made absolute from the directory of the file */
	TYPE_BOOLEAN,  /* bool */
	TYPE_INTEGER,  /* int */
	TYPE_DURATION, /* int64_t, ns */
	TYPE_SIZE,     /* int64_t, bytes */
	TYPE_SIGNAL,   /* int */
	TYPE_OCTAL,    /* int or mode_t */
	TYPE_WORD,     /* enum, the index in `words` */
	TYPE_EITHER,   /* bool: the second of two `words` */
	TYPE_USER,     /* struct config_user */
	TYPE_SPECIAL,  /* config_*.c has code for it */
	TYPE_NONE,     /* nothing is stored */
};

/* What a reload does with a change. */
enum schema_class { CLASS_LIVE, CLASS_COUNT, CLASS_ROLL, CLASS_RESTART, CLASS_NONE };

enum schema_flags {
	SCHEMA_OWN = 1,       /* baton's own: makes a file native */
	SCHEMA_LATER = 2,     /* not built: refused unless the value is `value` */
	SCHEMA_GROWS = 4,     /* not built: rotation of log files; one warning for all */
	SCHEMA_NO_EFFECT = 8, /* taken, with a warning when it is not `value` */
	SCHEMA_WORKER = 16,   /* may differ from worker to worker: expanded for each */
	SCHEMA_REQUIRED = 32,
	SCHEMA_PREFIX = 64,  /* every key that begins with this one: rlimit_ */
	SCHEMA_SECRET = 128, /* never printed */
};

struct schema_row {
	enum schema_section section;
	const char *key;
	enum schema_type type;
	const char *value;   /* the default as text; "" = none */
	const char *compat;  /* the default in compatibility mode; NULL = the same */
	int64_t least, most; /* in the unit of the field; both 0 = no bounds */
	enum schema_class class;
	unsigned flags;
	size_t offset; /* of the field in the struct of the section */
	const char *words;
	const char *help;
};

extern const struct schema_row schema_rows[];
extern const size_t schema_row_count;

struct schema_section_kind {
	const char *name; /* "program:" with a colon: followed by a name */
	enum schema_section section;
	unsigned flags;
	const char *instead; /* SECTION_SKIPPED: what to use */
};

extern const struct schema_section_kind schema_sections[];
extern const size_t schema_section_count;

/* The kind of the section NAME ("program:web"); NULL = unknown. */
const struct schema_section_kind *schema_kind(const char *name);
/* The row, or NULL. */
const struct schema_row *schema_find(enum schema_section section, const char *key);
/* The nearest known key or section, or NULL when nothing is near. */
const char *schema_nearest_key(enum schema_section section, const char *key);
const char *schema_nearest_section(const char *name);
/* The default of a row in this mode. */
const char *schema_default(const struct schema_row *row, bool native);

#endif

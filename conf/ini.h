/*
 * Sections, keys and values, as inih hands them on from our reader, each with its place.
 *
 * Everything is in the arena of the caller. A section or key given twice is merged as
 * ConfigParser does it: the later value wins; a warning names both lines.
 */
#ifndef BATON_CONF_INI_H
#define BATON_CONF_INI_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "conf/arena.h"
#include "conf/config.h"
#include "conf/err.h"

struct ini_section;
struct sources;

struct ini_entry {
	const char *key, *value; /* raw: before any expansion */
	struct config_place place;
	const char *here; /* the directory of the file that it stands in */
	struct ini_section *section;
	struct ini_entry *next; /* of the section */
	struct ini_entry *hash_next;
};

struct ini_section {
	const char *name;  /* trimmed, also around its first colon: "program:web" */
	const char *title; /* as written between the brackets */
	struct config_place place;
	const char *here;
	struct ini_entry *first, *last;
	struct ini_section *next, *hash_next;
	struct ini_section *group; /* of a program: the [group:] that names it, or NULL */
	int index;                 /* for load_*.c: the program or socket made of it, or -1 */
};

struct ini_file {
	const char *path, *here; /* absolute */
	dev_t device;
	ino_t inode;
};

struct ini {
	struct arena *arena;
	struct errlist *findings;
	bool native;
	struct ini_section *first, *last; /* in the order of their first appearance */
	struct ini_section *defaults;     /* [DEFAULT], or NULL; not in the list */
	size_t section_count;
	struct ini_file *files; /* in the order of reading */
	size_t file_count, file_capacity, bytes;
	struct ini_section **section_buckets;
	struct ini_entry **entry_buckets;
	size_t section_bucket_count, entry_bucket_count, entry_count;
	struct ini_section *current;
	const struct ini_file *file;
	struct sources *sources; /* NULL = nothing is kept */
};

void ini_init(struct ini *ini, struct arena *a, struct errlist *findings, bool native);
/* Read one more file. What is wrong with it is added to the findings; OPTIONAL: a file that cannot
 * be read is a warning. A file that was read before is skipped with a warning. AT: who asks for
 * it, or NULL. */
void ini_read(struct ini *ini, const char *path, bool optional, const struct config_place *at);
/* The same from memory; FILE is the name for messages. */
void ini_read_text(struct ini *ini, const char *file, const char *text, size_t bytes);

struct ini_section *ini_section(const struct ini *ini, const char *name); /* or NULL */
/* The entry itself or that of [DEFAULT]; or NULL. */
const struct ini_entry *ini_get(
	const struct ini *ini, const struct ini_section *section, const char *key);

#endif

/*
 * The bytes that a snapshot was read from, kept with it, so that it can be read again as it was
 * when its files have changed since (upgrade in place). Inside of conf/.
 *
 * Kept: files, includes, environment files, what the patterns of includes matched. Not kept: the
 * environment of the process, the user database, the machine.
 */
#ifndef BATON_CONF_SOURCES_H
#define BATON_CONF_SOURCES_H

#include "conf/arena.h"
#include "conf/config.h"

struct sources {
	struct arena *arena;               /* of the snapshot */
	const struct config_sources *from; /* read these and nothing else; NULL = the files */
	struct config_source *items;
	size_t count, capacity;
	struct config_sources kept; /* filled at the end */
};

void sources_init(struct sources *s, struct arena *a, const struct config_sources *from);
/* reader_load, from the kept bytes where there are such. S may be NULL: not kept. */
int sources_load(struct sources *s, struct arena *a, const char *path, char **ret_text,
	size_t *ret_bytes, struct err *e);
/* It is read from kept bytes. S may be NULL. */
bool sources_replays(const struct sources *s);
/* Is it to be left out? Only of what is read again: not read then, or unreadable. */
bool sources_lacks(const struct sources *s, const char *path);
/* What a pattern matched. */
void sources_keep_matches(struct sources *s, const char *pattern, char **paths, size_t count);
/* False: nothing is kept of it, ask the file system. */
bool sources_matches(struct sources *s, const char *pattern, char ***ret_paths, size_t *ret_count);
void sources_finish(struct sources *s);

#endif

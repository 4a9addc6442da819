#include "conf/sources.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/reader.h"

void sources_init(struct sources *s, struct arena *a, const struct config_sources *from)
{
	memset(s, 0, sizeof(*s));
	s->arena = a;
	s->from = from;
}

static const struct config_source *find(
	const struct config_source *items, size_t count, const char *path, bool pattern)
{
	for (size_t i = 0; i < count; i++) {
		if (items[i].pattern == pattern && strcmp(items[i].path, path) == 0)
			return &items[i];
	}
	return NULL;
}

/* The mode of a file is found by a look at it, before it is read: what a pipe gave must be kept. */
static const struct config_source *find_spent(const struct sources *s, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
		return NULL;
	return find(s->items, s->count, path, false);
}

/* What is read twice counts as it was the last time. */
static void keep(struct sources *s, const char *path, bool pattern, const char *text, size_t bytes)
{
	struct config_source *at = (struct config_source *)find(s->items, s->count, path, pattern);
	char *copy;

	if (at && at->bytes == bytes && memcmp(at->text, text, bytes) == 0)
		return;
	copy = arena_bytes(s->arena, bytes + 1);
	memcpy(copy, text, bytes);
	copy[bytes] = '\0';
	if (!at) {
		s->items = arena_grow(
			s->arena, s->items, s->count, &s->capacity, sizeof(*s->items));
		at = &s->items[s->count++];
		at->path = arena_strdup(s->arena, path);
		at->pattern = pattern;
	}
	at->text = copy;
	at->bytes = bytes;
}

int sources_load(struct sources *s, struct arena *a, const char *path, char **ret_text,
	size_t *ret_bytes, struct err *e)
{
	const struct config_source *found;
	int rc;

	found = s && !s->from ? find_spent(s, path) : NULL;
	if (!found && (!s || !s->from)) {
		rc = reader_load(a, path, ret_text, ret_bytes, e);
		if (rc == 0 && s)
			keep(s, path, false, *ret_text, *ret_bytes);
		return rc;
	}
	if (!found)
		found = find(s->from->items, s->from->count, path, false);
	if (!found)
		return err_set_at(e, ERR_SYSTEM, path, 0,
			"not among the files that the running configuration was read from");
	keep(s, path, false, found->text, found->bytes);
	*ret_text = arena_bytes(a, found->bytes + 1);
	memcpy(*ret_text, found->text, found->bytes);
	(*ret_text)[found->bytes] = '\0';
	*ret_bytes = found->bytes;
	return 0;
}

bool sources_replays(const struct sources *s)
{
	return s && s->from;
}

bool sources_lacks(const struct sources *s, const char *path)
{
	return s && s->from && !find(s->from->items, s->from->count, path, false);
}

void sources_keep_matches(struct sources *s, const char *pattern, char **paths, size_t count)
{
	struct text t;

	text_init(&t, s->arena);
	for (size_t i = 0; i < count; i++)
		text_add(&t, paths[i], strlen(paths[i]) + 1);
	keep(s, pattern, true, text_string(&t), t.length);
}

bool sources_matches(struct sources *s, const char *pattern, char ***ret_paths, size_t *ret_count)
{
	const struct config_source *found;
	size_t count = 0;
	char **paths;

	if (!s->from)
		return false;
	found = find(s->from->items, s->from->count, pattern, true);
	paths = arena_zero(s->arena, ((found ? found->bytes : 0) + 1) * sizeof(*paths));
	for (size_t at = 0; found && at < found->bytes; at += strlen(found->text + at) + 1)
		paths[count++] = arena_strdup(s->arena, found->text + at);
	if (found)
		keep(s, pattern, true, found->text, found->bytes);
	*ret_paths = paths;
	*ret_count = count;
	return true;
}

void sources_finish(struct sources *s)
{
	char cwd[PATH_MAX];

	s->kept.directory = s->from ? s->from->directory : getcwd(cwd, sizeof(cwd)) ? cwd : "";
	s->kept.directory = arena_strdup(s->arena, s->kept.directory);
	s->kept.items = s->items;
	s->kept.count = s->count;
}

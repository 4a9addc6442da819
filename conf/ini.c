#include "conf/ini.h"

#include <ini.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/reader.h"
#include "conf/sources.h"

enum { FILE_LIMIT = 10000, FIRST_BUCKETS = 256 };

void ini_init(struct ini *ini, struct arena *a, struct errlist *findings, bool native)
{
	memset(ini, 0, sizeof(*ini));
	ini->arena = a;
	ini->findings = findings;
	ini->native = native;
	ini->section_bucket_count = ini->entry_bucket_count = FIRST_BUCKETS;
	ini->section_buckets = arena_zero(a, FIRST_BUCKETS * sizeof(*ini->section_buckets));
	ini->entry_buckets = arena_zero(a, FIRST_BUCKETS * sizeof(*ini->entry_buckets));
}

/* --- lookup ---------------------------------------------------------------------------------- */

static size_t hash(const char *s, const void *seed)
{
	uint64_t h = 14695981039346656037u ^ (uintptr_t)seed;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 1099511628211u;
	return (size_t)(h ^ h >> 32);
}

struct ini_section *ini_section(const struct ini *ini, const char *name)
{
	struct ini_section *s = ini->section_buckets[hash(name, NULL) % ini->section_bucket_count];

	while (s && strcmp(s->name, name) != 0)
		s = s->hash_next;
	return s;
}

static struct ini_entry *own_entry(
	const struct ini *ini, const struct ini_section *section, const char *key)
{
	struct ini_entry *e = ini->entry_buckets[hash(key, section) % ini->entry_bucket_count];

	while (e && (e->section != section || strcmp(e->key, key) != 0))
		e = e->hash_next;
	return e;
}

const struct ini_entry *ini_get(
	const struct ini *ini, const struct ini_section *section, const char *key)
{
	const struct ini_entry *e = section ? own_entry(ini, section, key) : NULL;

	if (!e && section && ini->defaults)
		e = own_entry(ini, ini->defaults, key);
	return e;
}

static void grow_sections(struct ini *ini)
{
	size_t count = ini->section_bucket_count * 4;

	if (ini->section_count < ini->section_bucket_count)
		return;
	ini->section_buckets = arena_zero(ini->arena, count * sizeof(*ini->section_buckets));
	ini->section_bucket_count = count;
	for (struct ini_section *s = ini->first; s; s = s->next) {
		struct ini_section **b = &ini->section_buckets[hash(s->name, NULL) % count];
		s->hash_next = *b;
		*b = s;
	}
}

static void grow_entries(struct ini *ini)
{
	size_t old = ini->entry_bucket_count, count = old * 4;
	struct ini_entry **buckets = ini->entry_buckets;

	if (ini->entry_count < old)
		return;
	ini->entry_buckets = arena_zero(ini->arena, count * sizeof(*buckets));
	ini->entry_bucket_count = count;
	for (size_t i = 0; i < old; i++) {
		struct ini_entry *e = buckets[i], *next;
		for (; e; e = next) {
			struct ini_entry **b =
				&ini->entry_buckets[hash(e->key, e->section) % count];
			next = e->hash_next;
			e->hash_next = *b;
			*b = e;
		}
	}
}

/* --- what inih reports ----------------------------------------------------------------------- */

static const char *trimmed(struct arena *a, const char *s, size_t bytes)
{
	while (bytes && strchr(" \t\n\r\f\v", *s)) {
		s++;
		bytes--;
	}
	while (bytes && strchr(" \t\n\r\f\v", s[bytes - 1]))
		bytes--;
	return arena_strndup(a, s, bytes);
}

static const char *canonical(struct arena *a, const char *title)
{
	const char *colon = strchr(title, ':');

	if (!colon)
		return trimmed(a, title, strlen(title));
	return arena_printf(a, "%s:%s", trimmed(a, title, (size_t)(colon - title)),
		trimmed(a, colon + 1, strlen(colon + 1)));
}

static void warn_twice(struct ini *ini, int line, const struct config_place *before,
	const char *section, const char *key)
{
	if (key)
		errlist_addf(ini->findings, true, ini->file->path, line,
			"[%.100s] %.100s: given twice; this one replaces the one at %s:%d", section,
			key, before->file, before->line);
	else
		errlist_addf(ini->findings, true, ini->file->path, line,
			"[%.100s]: given twice; adds to, and replaces keys of, the one at %s:%d",
			section, before->file, before->line);
}

static void take_section(struct ini *ini, const struct reader_item *item)
{
	const char *name = canonical(ini->arena, item->name);
	struct ini_section *s;

	s = strcmp(item->name, "DEFAULT") == 0 ? ini->defaults : ini_section(ini, name);
	if (s) {
		warn_twice(ini, item->line, &s->place, s->name, NULL);
		ini->current = s;
		return;
	}
	s = arena_zero(ini->arena, sizeof(*s));
	s->name = name;
	s->title = item->name;
	s->place = (struct config_place){ini->file->path, item->line};
	s->here = ini->file->here;
	s->index = -1;
	ini->current = s;
	if (strcmp(item->name, "DEFAULT") == 0) {
		ini->defaults = s;
		return;
	}
	grow_sections(ini);
	if (ini->last)
		ini->last->next = s;
	else
		ini->first = s;
	ini->last = s;
	s->hash_next = ini->section_buckets[hash(name, NULL) % ini->section_bucket_count];
	ini->section_buckets[hash(name, NULL) % ini->section_bucket_count] = s;
	ini->section_count++;
}

static void take_entry(struct ini *ini, const struct reader_item *item)
{
	struct ini_section *s = ini->current;
	struct ini_entry *e = own_entry(ini, s, item->name), **bucket;

	if (e) {
		warn_twice(ini, item->line, &e->place, s->name, e->key);
	} else {
		grow_entries(ini);
		e = arena_zero(ini->arena, sizeof(*e));
		e->key = item->name;
		e->section = s;
		if (s->last)
			s->last->next = e;
		else
			s->first = e;
		s->last = e;
		bucket = &ini->entry_buckets[hash(e->key, s) % ini->entry_bucket_count];
		e->hash_next = *bucket;
		*bucket = e;
		ini->entry_count++;
	}
	e->value = item->value;
	e->place = (struct config_place){ini->file->path, item->line};
	e->here = ini->file->here;
}

struct parse {
	struct ini *ini;
	struct reader reader;
};

static char *hand_out(char *line, int bytes, void *stream)
{
	struct parse *p = stream;

	return reader_handle(line, bytes, &p->reader);
}

static int take(void *user, const char *section, const char *name, const char *value)
{
	struct parse *p = user;

	(void)section;
	/* The handle proves that inih passed on this very line and cut nothing. */
	if (strcmp(name, "item") != 0 || strtoul(value, NULL, 10) != p->reader.handle)
		return 0;
	if (p->reader.item.kind == READER_SECTION)
		take_section(p->ini, &p->reader.item);
	else
		take_entry(p->ini, &p->reader.item);
	return 1;
}

/* --- files ----------------------------------------------------------------------------------- */

static int line_of(const char *text, const char *at)
{
	int line = 1;

	for (; text < at; text++)
		line += *text == '\n';
	return line;
}

static void parse_file(struct ini *ini, const char *text, size_t bytes)
{
	const char *path = ini->file->path, *bad;
	struct parse p = {.ini = ini};
	int rc;

	bad = memchr(text, '\0', bytes);
	if (bad) {
		errlist_addf(ini->findings, false, path, line_of(text, bad),
			"a NUL byte: this is a binary file, not a configuration");
		return;
	}
	bad = reader_not_utf8(text, text + bytes);
	if (bad)
		errlist_addf(ini->findings, !ini->native, path, line_of(text, bad),
			"the byte 0x%02x is not UTF-8: save the file as UTF-8",
			(unsigned char)*bad);
	reader_init(&p.reader, ini->arena, ini->findings, ini->native, path, text, bytes);
	ini->current = NULL;
	rc = ini_parse_stream(hand_out, &p, take, &p);
	if (rc != 0)
		errlist_addf(ini->findings, false, path, p.reader.line,
			"inih cannot take this file apart (%d)", rc);
}

static struct ini_file *add_file(struct ini *ini, const char *path)
{
	const char *slash = strrchr(path, '/');
	char cwd[PATH_MAX];
	struct ini_file *f;

	ini->files = arena_grow(
		ini->arena, ini->files, ini->file_count, &ini->file_capacity, sizeof(*f));
	f = &ini->files[ini->file_count++];
	memset(f, 0, sizeof(*f));
	f->path = arena_strdup(ini->arena, path);
	if (reader_is_descriptor(path))
		f->here = arena_strdup(ini->arena, getcwd(cwd, sizeof(cwd)) ? cwd : "");
	else
		f->here = !slash ? ""
				 : arena_strndup(ini->arena, path,
					   slash == path ? 1 : (size_t)(slash - path));
	ini->file = f;
	return f;
}

static bool was_read(const struct ini *ini, const char *path)
{
	for (size_t i = 0; i < ini->file_count; i++) {
		if (strcmp(ini->files[i].path, path) == 0)
			return true;
	}
	return false;
}

void ini_read(struct ini *ini, const char *path, bool optional, const struct config_place *at)
{
	const char *at_file = at ? at->file : path;
	int at_line = at ? at->line : 0;
	struct ini_file *f;
	struct stat st;
	struct err e;
	size_t bytes;
	char *text;

	if (at && sources_replays(ini->sources) &&
		(sources_lacks(ini->sources, path) || was_read(ini, path)))
		return; /* nor was it read then */
	if (!sources_replays(ini->sources) && stat(path, &st) == 0) {
		for (size_t i = 0; i < ini->file_count; i++) {
			if (ini->files[i].device == st.st_dev && ini->files[i].inode == st.st_ino) {
				errlist_addf(ini->findings, true, at_file, at_line,
					"'%s' was read already; it is not read again", path);
				return;
			}
		}
	}
	if (ini->file_count >= FILE_LIMIT) {
		errlist_addf(ini->findings, false, at_file, at_line,
			"more than %d files are included", FILE_LIMIT);
		return;
	}
	if (sources_load(ini->sources, ini->arena, path, &text, &bytes, &e) < 0) {
		e.warning = optional;
		errlist_add(ini->findings, &e);
		return;
	}
	ini->bytes += bytes;
	if (ini->bytes > READER_FILE_BYTES) {
		errlist_addf(ini->findings, false, at_file, at_line,
			"all files together are larger than %u MiB", READER_FILE_BYTES >> 20);
		return;
	}
	f = add_file(ini, path);
	if (stat(path, &st) == 0) {
		f->device = st.st_dev;
		f->inode = st.st_ino;
	}
	parse_file(ini, text, bytes);
}

void ini_read_text(struct ini *ini, const char *file, const char *text, size_t bytes)
{
	add_file(ini, file);
	parse_file(ini, arena_strndup(ini->arena, text, bytes), bytes);
}

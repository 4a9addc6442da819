/* The files, their mode, and what in them nobody knows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "conf/load.h"
#include "conf/units.h"
#include "conf/words.h"

enum { SUGGEST_LIMIT = 300 }; /* findings; beyond, nobody reads suggestions */

/* --- includes -------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files that PATTERN names, sorted, in the arena. */
static char **matches(struct loader *l, const char *pattern, size_t *ret_count)
{
	char **paths = NULL;
	size_t count;

	*ret_count = 0;
	if (sources_matches(&l->data->sources, pattern, &paths, ret_count))
		return paths;
	if (glob(pattern, GLOB_NOSORT, NULL, &l->found) != 0)
		return NULL;
	l->found_in_use = true;
	count = l->found.gl_pathc;
	paths = arena_zero(l->arena, (count + 1) * sizeof(*paths));
	for (size_t i = 0; i < count; i++)
		paths[i] = arena_strdup(l->arena, l->found.gl_pathv[i]);
	globfree(&l->found);
	l->found_in_use = false;
	qsort(paths, count, sizeof(*paths), by_name);
	*ret_count = count;
	sources_keep_matches(&l->data->sources, pattern, paths, count);
	return paths;
}

static void include_pattern(
	struct loader *l, struct ini_section *s, const struct ini_entry *e, const char *pattern)
{
	const char *path = load_path(l->arena, true, e->here, pattern);
	struct setting at = {
		.row = schema_find(SECTION_INCLUDE, "files"), .key = "files", .place = e->place};
	size_t count;
	char **paths = matches(l, path, &count);

	if (count == 0)
		load_report(l, true, s, &at, "no file matches '%.200s'", path);
	for (size_t i = 0; i < count; i++) {
		struct stat st;
		if (!sources_replays(&l->data->sources) && stat(paths[i], &st) == 0 &&
			S_ISDIR(st.st_mode))
			load_report(l, true, s, &at, "'%.200s' is a directory; skipped", paths[i]);
		else
			ini_read(l->ini, paths[i], !l->native, &e->place);
	}
}

static void include(struct loader *l, struct ini_section *s, const struct ini_entry *e)
{
	struct expand_var host = {.name = "host_node_name", .text = l->data->host};
	struct expand_scope scope = {.here = e->here, .vars = &host, .var_count = 1};
	struct ini_entry copy = *e; /* an included file may replace the value */
	struct setting at = {.row = schema_find(SECTION_INCLUDE, "files"),
		.key = "files",
		.text = e->value,
		.place = e->place,
		.here = e->here};
	const char *text = load_expand(l, s, &at, &scope);
	size_t count;
	char **patterns;

	if (!text)
		return;
	patterns = words_list(l->arena, text, true, &count);
	for (size_t i = 0; i < count; i++)
		include_pattern(l, s, &copy, patterns[i]);
}

/* An included file may include more, in native mode: its `files` replaces the value just served,
 * until nothing new comes. supervisord looks at the first file alone. */
static void include_all(struct loader *l)
{
	const char *served = NULL;

	for (;;) {
		struct ini_section *s = ini_section(l->ini, "include");
		const struct ini_entry *e = s ? ini_get(l->ini, s, "files") : NULL;
		if (s && !e && !served)
			errlist_addf(l->findings, !l->native, s->place.file, s->place.line,
				"[include]: the key 'files' is missing");
		if (!e || e->value == served)
			return;
		if (served && !l->native) {
			errlist_addf(l->findings, true, e->place.file, e->place.line,
				"[include] in an included file is not followed, as in supervisord");
			return;
		}
		served = e->value;
		include(l, s, e);
	}
}

/* --- mode ------------------------------------------------------------------------------------ */

static bool is_own(const struct ini_section *s)
{
	const struct schema_section_kind *kind = schema_kind(s->name);

	if (!kind)
		return false;
	if (kind->flags & SCHEMA_OWN)
		return true;
	for (const struct ini_entry *e = s->first; e; e = e->next) {
		const struct schema_row *row = schema_find(kind->section, e->key);
		if (row && row->flags & SCHEMA_OWN)
			return true;
	}
	return false;
}

static void read_as(struct loader *l, const char *path, bool native)
{
	l->native = native;
	l->config->mode = native ? CONFIG_NATIVE : CONFIG_COMPAT;
	ini_init(l->ini, l->arena, l->findings, native);
	l->ini->sources = &l->data->sources;
	if (l->text)
		ini_read_text(l->ini, "(command line)", l->text, strlen(l->text));
	else
		ini_read(l->ini, path, false, NULL);
	include_all(l);
}

/* Read for a look at the sections and keys: they are the same in both modes. */
static bool detect_native(struct loader *l, const char *path)
{
	struct errlist *findings = l->findings, nothing;
	bool native = false;

	errlist_init(&nothing);
	l->findings = &nothing;
	read_as(l, path, false);
	l->findings = findings;
	errlist_release(&nothing);
	for (const struct ini_section *s = l->ini->first; s && !native; s = s->next)
		native = is_own(s);
	return native;
}

/* --- unknown and not built ------------------------------------------------------------------- */

static void unknown_key(struct loader *l, const struct ini_entry *e, enum schema_section kind)
{
	const char *near = l->findings->count < SUGGEST_LIMIT ? schema_nearest_key(kind, e->key)
							      : NULL;

	errlist_addf(l->findings, !l->native, e->place.file, e->place.line,
		"[%.100s] %.100s: unknown key%s%s%s%s", e->section->name, e->key,
		near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "",
		l->native ? "" : " (skipped)");
}

static bool known_anywhere(const char *key)
{
	for (int kind = 0; kind < SECTION_SKIPPED; kind++) {
		if (schema_find(kind, key))
			return true;
	}
	return false;
}

/* Whether the value asks for nothing but what happens anyway. */
static bool is_harmless(const struct schema_row *row, const char *text)
{
	bool yes, wanted_yes;
	int64_t number, wanted;

	while (*text == ' ' || *text == '\t')
		text++;
	if (strcasecmp(text, row->value) == 0 || !text[0])
		return true;
	if (units_integer(row->value, &wanted, NULL) < 0 && units_boolean(text, &yes, NULL) == 0 &&
		units_boolean(row->value, &wanted_yes, NULL) == 0)
		return yes == wanted_yes;
	if (units_size(text, &number, NULL) == 0 && units_size(row->value, &wanted, NULL) == 0)
		return number == wanted;
	return units_duration(text, &number, NULL) == 0 &&
	       units_duration(row->value, &wanted, NULL) == 0 && number == wanted;
}

static void rotation(struct loader *l, const struct ini_entry *e, const struct schema_row *row)
{
	const char *end = strstr(e->key, "_backups");
	int64_t bytes = -1;

	if (units_size(e->value, &bytes, NULL) == 0 && bytes == 0)
		return;
	if (end) { /* any number of backups is fine when nothing is rotated */
		const char *key = arena_printf(
			l->arena, "%.*s_maxbytes", (int)(end - e->key), e->key);
		const struct ini_entry *size = ini_get(l->ini, e->section, key);
		if (size && units_size(size->value, &bytes, NULL) == 0 && bytes == 0)
			return;
	}
	if (l->native) {
		errlist_addf(l->findings, false, e->place.file, e->place.line,
			"[%.100s] %s: not supported yet; rotate with logrotate and signal USR1 "
			"to baton, and set 'maxbytes' to 0",
			e->section->name, row->key);
	} else if (!l->rotation_seen) {
		errlist_addf(l->findings, true, e->place.file, e->place.line,
			"[%.100s] %s: not supported yet: log files grow until something rotates "
			"them (logrotate, then signal USR1); said once for all programs",
			e->section->name, row->key);
		l->rotation_seen = true;
	}
}

static void known_key(struct loader *l, const struct ini_entry *e, const struct schema_row *row)
{
	bool yes = true;

	if (row->flags & SCHEMA_GROWS) {
		rotation(l, e, row);
	} else if (strcmp(e->key, "nodaemon") == 0) {
		if (units_boolean(e->value, &yes, NULL) == 0 && !yes)
			errlist_addf(l->findings, true, e->place.file, e->place.line,
				"[%s] nodaemon: baton stays in the foreground; 'baton run -d' "
				"detaches",
				e->section->name);
	} else if (is_harmless(row, e->value)) {
		return;
	} else if (strcmp(e->key, "reuse_port") == 0) {
		errlist_addf(l->findings, !l->native, e->place.file, e->place.line,
			"[%.100s] reuse_port: not supported yet: with a listener for each worker, "
			"the "
			"connections that wait at one that ends would be lost; the one listener "
			"that all share keeps them",
			e->section->name);
	} else if (row->flags & SCHEMA_LATER) {
		errlist_addf(l->findings, !l->native, e->place.file, e->place.line,
			"[%.100s] %s: not supported yet (only '%s' is)%s", e->section->name, e->key,
			row->value[0] ? row->value : "nothing", l->native ? "" : "; skipped");
	} else if (row->flags & SCHEMA_NO_EFFECT) {
		errlist_addf(l->findings, true, e->place.file, e->place.line,
			"[%.100s] %s: has no effect (%s)", e->section->name, e->key, row->help);
	}
}

static void look_at_section(struct loader *l, const struct ini_section *s)
{
	const struct schema_section_kind *kind = schema_kind(s->name);
	const char *near;

	if (!kind) {
		near = l->findings->count < SUGGEST_LIMIT ? schema_nearest_section(s->name) : NULL;
		errlist_addf(l->findings, !l->native, s->place.file, s->place.line,
			"[%.100s]: unknown section%s%s%s%s", s->name,
			near ? "; did you mean '[" : "", near ? near : "",
			!near               ? ""
			: strchr(near, ':') ? "NAME]'?"
					    : "]'?",
			l->native ? "" : " (skipped)");
		return;
	}
	if (kind->section == SECTION_SKIPPED) {
		errlist_addf(l->findings, true, s->place.file, s->place.line,
			"[%.100s]: skipped: %s", s->name, kind->instead);
		return;
	}
	if (kind->flags & SCHEMA_LATER) {
		errlist_addf(l->findings, !l->native, s->place.file, s->place.line,
			"[%.100s]: not supported yet%s", s->name, l->native ? "" : "; skipped");
		return;
	}
	for (const struct ini_entry *e = s->first; e; e = e->next) {
		const struct schema_row *row = schema_find(kind->section, e->key);
		if (row)
			known_key(l, e, row);
		else
			unknown_key(l, e, kind->section);
	}
}

int load_read(struct loader *l, const char *path)
{
	bool native = l->force == CONFIG_FORCE_NATIVE;
	const struct ini_file *first;
	struct stat st;

	if (l->force == CONFIG_DETECT)
		native = detect_native(l, path);
	read_as(l, path, native);
	first = l->ini->files;
	if (l->ini->file_count == 0)
		return ERR_CONFIG;
	if (!l->ini->first && !l->findings->errors) {
		errlist_addf(l->findings, false, first->path, 0,
			stat(first->path, &st) == 0 && !S_ISREG(st.st_mode)
				? "nothing came out of it: what writes there has failed, or it was "
				  "read before"
				: "the file is empty: it needs at least [program:NAME] with a "
				  "'command'");
		return ERR_CONFIG;
	}
	for (const struct ini_section *s = l->ini->first; s; s = s->next)
		look_at_section(l, s);
	if (l->ini->defaults) {
		for (const struct ini_entry *e = l->ini->defaults->first; e; e = e->next) {
			if (!known_anywhere(e->key))
				unknown_key(l, e, SECTION_PROGRAM);
		}
	}
	return 0;
}

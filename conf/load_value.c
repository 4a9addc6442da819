/* Single values: where one comes from, its expansion, its type. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/load.h"
#include "conf/lookup.h"
#include "conf/preset.h"
#include "conf/reader.h"
#include "conf/units.h"
#include "conf/words.h"

static const struct ini_entry *entry_of(const struct config_data *d, const struct schema_row *row,
	const struct ini_section *section)
{
	const struct ini_entry *e = NULL;

	if (row->section == SECTION_BATON) {
		const struct ini_section *own = ini_section(&d->ini, "baton");
		const struct ini_section *other = ini_section(&d->ini, "supervisord");
		if (own)
			e = ini_get(&d->ini, own, row->key);
		if (other && (!e || e->section != own)) {
			const struct ini_entry *theirs = ini_get(&d->ini, other, row->key);
			e = theirs && (!e || theirs->section == other) ? theirs : e;
		}
		return e;
	}
	return section ? ini_get(&d->ini, section, row->key) : NULL;
}

struct setting setting_of(const struct config_data *d, const struct schema_row *row,
	const struct ini_section *section, const struct preset *preset)
{
	const struct ini_entry *e = entry_of(d, row, section);
	const char *value = preset ? preset_value(preset, row->key) : NULL;
	struct setting s = {.row = row, .key = row->key, .here = d->config.directory_of_file};

	if (e) {
		s.text = e->value;
		s.place = e->place;
		s.here = e->here;
		s.source = SOURCE_FILE;
		s.title = row->section == SECTION_BATON ? e->section->name : NULL;
		return s;
	}
	if (section)
		s.place = section->place;
	s.text = value ? value : schema_default(row, d->config.mode == CONFIG_NATIVE);
	s.source = value ? SOURCE_PRESET : SOURCE_DEFAULT;
	return s;
}

struct setting setting_key(const struct config_data *d, enum schema_section kind,
	const struct ini_section *section, const struct preset *preset, const char *key)
{
	return setting_of(d, schema_find(kind, key), section, preset);
}

const char *setting_title(const struct ini_section *section, enum schema_section kind)
{
	if (section)
		return section->name;
	return kind == SECTION_BATON ? "baton" : kind == SECTION_SCHEDULER ? "scheduler" : "";
}

void load_report(struct loader *l, bool warning, const struct ini_section *section,
	const struct setting *s, const char *format, ...)
{
	va_list arguments;
	char text[ERR_TEXT_BYTES];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	errlist_addf(l->findings, warning, s->place.file, s->place.line, "[%.100s] %.60s: %s",
		s->title ? s->title : setting_title(section, s->row->section), s->key, text);
}

const char *load_expand(struct loader *l, const struct ini_section *section,
	const struct setting *s, const struct expand_scope *scope)
{
	struct expand_scope with_here = *scope;
	const char *text;
	struct err e;

	with_here.here = s->here;
	text = expand(l->arena, s->text, &with_here, &e);
	if (!text)
		load_report(l, false, section, s, "%s", e.text);
	return text;
}

static const char *home_of(struct arena *a, const char *name, size_t bytes)
{
	const char *user = arena_strndup(a, name, bytes), *home = getenv("HOME");
	const struct lookup *u;

	if (bytes == 0 && home)
		return arena_strdup(a, home);
	if (bytes == 0)
		user = arena_printf(a, "%lu", (unsigned long)getuid());
	u = lookup(bytes ? LOOKUP_USER : LOOKUP_UID, 0, user);
	return u && u->found ? arena_strdup(a, u->home) : NULL;
}

const char *load_path(struct arena *a, bool native, const char *here, const char *path)
{
	char cwd[PATH_MAX];

	if (path[0] == '~') {
		size_t bytes = strcspn(path, "/");
		const char *home = home_of(a, path + 1, bytes - 1);
		if (home)
			path = arena_printf(a, "%s%s", home, path + bytes);
	}
	if (!path[0] || path[0] == '/')
		return path;
	if (!native || !here[0])
		here = getcwd(cwd, sizeof(cwd)) ? cwd : "/";
	if (strncmp(path, "./", 2) == 0)
		path += 2;
	return arena_printf(a, "%s/%s", strcmp(here, "/") == 0 ? "" : here, path);
}

/* Inside the bounds of the row. Outside: an error; in compatibility mode, where supervisord takes
 * any number, the nearest bound with a warning. */
static bool bound(struct loader *l, const struct ini_section *section, const struct setting *s,
	int64_t *value, const char *text)
{
	const struct schema_row *row = s->row;
	bool below = *value < row->least, duration = row->type == TYPE_DURATION;
	char limit[32];

	if ((row->least == 0 && row->most == 0) || (!below && *value <= row->most))
		return true;
	if (duration)
		units_print_duration(below ? row->least : row->most, limit, sizeof(limit));
	else
		snprintf(limit, sizeof(limit), "%lld", (long long)(below ? row->least : row->most));
	load_report(l, !l->native, section, s, "'%.60s' is %s %s%s", text,
		below ? "below" : "above", limit, l->native ? "" : ", which is used instead");
	*value = below ? row->least : row->most;
	return !l->native;
}

static bool store_number(struct loader *l, const struct ini_section *section,
	const struct setting *s, const char *text, void *field)
{
	const struct schema_row *row = s->row;
	int64_t value;
	struct err e;
	int rc;

	rc = row->type == TYPE_DURATION ? units_duration(text, &value, &e)
	     : row->type == TYPE_SIZE   ? units_size(text, &value, &e)
					: units_integer(text, &value, &e);
	if (rc < 0) {
		load_report(l, false, section, s, "%s", e.text);
		return false;
	}
	if (!bound(l, section, s, &value, text))
		return false;
	if (row->type == TYPE_INTEGER)
		*(int *)field = (int)value;
	else
		*(int64_t *)field = value;
	return true;
}

static int store_word(const struct schema_row *row, const char *text, void *field, struct err *e)
{
	int index, rc;
	bool yes;

	switch (row->type) {
	case TYPE_BOOLEAN:
		return units_boolean(text, field, e);
	case TYPE_SIGNAL:
		return units_signal(text, field, e);
	case TYPE_OCTAL:
		return units_octal(text, field, e);
	case TYPE_WORD:
		return units_word(text, row->words, field, e);
	case TYPE_EITHER:
		rc = units_word(text, row->words, &index, e);
		yes = rc == 0 && index == 1;
		if (rc == 0)
			*(bool *)field = yes;
		return rc;
	default:
		return 0;
	}
}

bool load_store(struct loader *l, const struct ini_section *section, const struct setting *s,
	const char *text, void *base)
{
	void *field = (char *)base + s->row->offset;
	struct err e;

	switch (s->row->type) {
	case TYPE_TEXT:
		*(const char **)field = text;
		return true;
	case TYPE_PATH:
		*(const char **)field = load_path(l->arena, l->native, s->here, text);
		return true;
	case TYPE_INTEGER:
	case TYPE_DURATION:
	case TYPE_SIZE:
		return store_number(l, section, s, text, field);
	case TYPE_USER:
		return load_user(l, section, s, text, strcmp(s->key, "user") != 0, field);
	case TYPE_SPECIAL:
	case TYPE_NONE:
		return true;
	default:
		if (store_word(s->row, text, field, &e) == 0)
			return true;
		load_report(l, false, section, s, "%s", e.text);
		return false;
	}
}

void load_defaults(struct loader *l, enum schema_section kind, void *base)
{
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		struct setting s;
		if (row->section != kind || row->type == TYPE_SPECIAL || row->type == TYPE_NONE)
			continue;
		s = setting_of(l->data, row, NULL, NULL);
		s.text = schema_default(row, l->native);
		if (s.text[0] || row->type == TYPE_TEXT || row->type == TYPE_PATH)
			load_store(l, NULL, &s, s.text, base);
	}
}

void load_rows(struct loader *l, enum schema_section kind, const struct ini_section *section,
	const struct preset *preset, const struct expand_scope *scope, void *base)
{
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		struct setting s;
		const char *text;
		if (row->section != kind || row->type == TYPE_SPECIAL || row->type == TYPE_NONE ||
			row->flags & SCHEMA_LATER)
			continue;
		s = setting_of(l->data, row, section, preset);
		if (s.source == SOURCE_DEFAULT)
			continue;
		text = load_expand(l, section, &s, scope);
		if (text)
			load_store(l, section, &s, text, base);
	}
}

static void environment_lines(struct loader *l, const char *path, char *text, size_t bytes,
	struct config_pair **pairs, size_t *count, size_t *capacity)
{
	char *end = text + bytes;
	int line = 1;

	if (memchr(text, '\0', bytes)) {
		errlist_addf(l->findings, false, path, 0, "a NUL byte: this is a binary file");
		return;
	}
	for (char *next; text < end; text = next, line++) {
		struct config_pair pair;
		struct err e;
		int rc;
		next = memchr(text, '\n', (size_t)(end - text));
		if (!next)
			next = end;
		*next++ = '\0'; /* reader_load ends the text with one byte more */
		rc = words_file_line(l->arena, text, &pair, &e);
		if (rc < 0)
			errlist_addf(l->findings, false, path, line, "%s", e.text);
		if (rc <= 0)
			continue;
		*pairs = arena_grow(l->arena, *pairs, *count, capacity, sizeof(pair));
		(*pairs)[(*count)++] = pair;
	}
}

void load_environment_file(struct loader *l, const struct ini_section *section,
	const struct setting *s, const char *text, struct config_pair **ret_pairs,
	size_t *ret_count)
{
	const char *path = load_path(l->arena, true, s->here, text);
	size_t bytes, capacity = 0;
	struct err e;
	char *lines;

	*ret_pairs = NULL;
	*ret_count = 0;
	if (sources_load(&l->data->sources, l->arena, path, &lines, &bytes, &e) < 0)
		load_report(l, false, section, s, "'%.200s': %s", path, e.text);
	else
		environment_lines(l, path, lines, bytes, ret_pairs, ret_count, &capacity);
}

void load_rlimits(struct loader *l, enum schema_section kind, const struct ini_section *section,
	const struct expand_scope *scope, const struct config_rlimit **ret_limits,
	size_t *ret_count)
{
	const struct schema_row *row = schema_find(kind, "rlimit_");
	struct config_rlimit *limits = NULL;
	size_t capacity = 0, count = 0;

	for (const struct ini_entry *e = section->first; e; e = e->next) {
		struct setting s = {row, e->key, e->value, e->place, e->here, SOURCE_FILE, NULL};
		struct config_rlimit limit;
		const char *text;
		struct err why;
		if (strncmp(e->key, "rlimit_", 7) != 0)
			continue;
		limit.resource = units_rlimit(e->key + 7);
		if (limit.resource < 0) {
			load_report(l, false, section, &s,
				"no such limit; there are as, core, cpu, data, fsize, locks, "
				"memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, "
				"sigpending, stack");
			continue;
		}
		text = load_expand(l, section, &s, scope);
		if (!text)
			continue;
		if (units_rlimit_value(text, &limit.soft, &limit.hard, &why) < 0) {
			load_report(l, false, section, &s, "%s", why.text);
			continue;
		}
		limits = arena_grow(l->arena, limits, count, &capacity, sizeof(*limits));
		limits[count++] = limit;
	}
	*ret_limits = limits;
	*ret_count = count;
}

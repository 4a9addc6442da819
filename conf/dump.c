/* `baton check --dump`: INI text for people, or JSON. */
#include <stdlib.h>
#include <string.h>

#include "conf/load.h"
#include "conf/reader.h"

struct dump {
	const struct config *c;
	struct arena arena;
	struct text text;
	const char *section; /* the one that is open, or NULL */
	bool json;
};

/* --- JSON ------------------------------------------------------------------------------------ */

static void json_string(struct text *t, const char *s)
{
	const char *end = s + strlen(s);

	text_puts(t, "\"");
	while (s < end) {
		const char *bad = reader_not_utf8(s, end), *stop = bad ? bad : end;
		for (; s < stop; s++) {
			if (*s == '"' || *s == '\\')
				text_printf(t, "\\%c", *s);
			else if ((unsigned char)*s < 0x20)
				text_printf(t, "\\u%04x", (unsigned char)*s);
			else
				text_add(t, s, 1);
		}
		if (bad) {
			text_puts(t, "\xef\xbf\xbd");
			s++;
		}
	}
	text_puts(t, "\"");
}

static void json_setting(struct dump *d, const struct effective *e)
{
	struct text *t = &d->text;
	bool same = d->section && strcmp(d->section, e->section) == 0;

	if (!same) {
		text_puts(t, d->section ? "\n  },\n  " : "\n  ");
		json_string(t, e->section);
		text_puts(t, ": {\n    ");
	} else {
		text_puts(t, ",\n    ");
	}
	json_string(t, e->key);
	text_puts(t, ": {\"value\": ");
	json_string(t, e->value);
	text_puts(t, ", \"file\": ");
	json_string(t, e->file);
	text_printf(t, ", \"line\": %d, \"default\": %s, \"source\": ", e->line,
		e->source == SOURCE_DEFAULT ? "true" : "false");
	if (e->source == SOURCE_PRESET)
		json_string(t, arena_printf(&d->arena, "preset %s", e->preset));
	else
		text_puts(t, e->source == SOURCE_FILE ? "\"file\"" : "\"default\"");
	text_puts(t, "}");
}

/* --- INI ------------------------------------------------------------------------------------- */

/* A value as the file would have it: signs doubled, lines indented. */
static void ini_value(struct text *t, const char *s)
{
	for (; *s; s++) {
		if (*s == '%')
			text_puts(t, "%%");
		else if (*s == '\n')
			text_puts(t, "\n\t");
		else
			text_add(t, s, 1);
	}
}

static void ini_setting(struct dump *d, const struct effective *e)
{
	struct text *t = &d->text;

	if (!d->section || strcmp(d->section, e->section) != 0)
		text_printf(t, "%s[%s]\n", d->section ? "\n" : "", e->section);
	if (e->source == SOURCE_FILE)
		text_printf(t, "; %s:%d\n", e->file, e->line);
	else if (e->source == SOURCE_PRESET)
		text_printf(t, "; preset %s\n", e->preset);
	if (e->source == SOURCE_DEFAULT)
		text_puts(t, ";"); /* "not set" is not always the same as "set to the default" */
	text_printf(t, "%s = ", e->key);
	ini_value(t, e->value);
	text_puts(t, "\n");
}

/* --- both ------------------------------------------------------------------------------------ */

static void take(void *user, const struct effective *e)
{
	struct dump *d = user;

	if (d->json)
		json_setting(d, e);
	else
		ini_setting(d, e);
	d->section = e->section;
}

static void run(void *argument)
{
	struct dump *d = argument;

	text_init(&d->text, &d->arena);
	if (d->json)
		text_puts(&d->text, "{");
	else
		text_puts(&d->text,
			"; lines that begin with a semicolon are defaults; values are those of the "
			"first worker\n");
	effective_each(d->c, &d->arena, take, d);
	if (d->json)
		text_puts(&d->text, d->section ? "\n  }\n}\n" : "}\n");
}

int config_dump(const struct config *c, bool json, char **ret_text)
{
	struct dump d = {.c = c, .json = json};
	char *copy = NULL;

	arena_init(&d.arena);
	if (arena_run(&d.arena, run, &d) == 0)
		copy = strdup(text_string(&d.text));
	arena_release(&d.arena);
	if (!copy)
		return ERR_SYSTEM;
	*ret_text = copy;
	return 0;
}

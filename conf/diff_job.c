/* What a reload would change of the jobs. All of it applies from the next firing: a run that is
 * going on is never cut off by a reload. */
#include <string.h>

#include "conf/load.h"

struct job_values { /* of the rows of SECTION_JOB, by their index in schema_rows */
	struct arena *a;
	const char **values;
};

struct job_lines {
	struct arena *a;
	char **items;
	size_t count, capacity;
};

static void add_line(struct job_lines *l, char *text)
{
	l->items = arena_grow(l->a, l->items, l->count, &l->capacity, sizeof(*l->items));
	l->items[l->count++] = text;
}

static void collect(void *user, const struct effective *e)
{
	struct job_values *v = user;
	const char **value = &v->values[e->row - schema_rows];

	if (e->row->flags & SCHEMA_PREFIX)
		*value = arena_printf(v->a, "%s%s=%s ", *value ? *value : "", e->key, e->value);
	else
		*value = e->value;
}

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_user(const struct config_user *a, const struct config_user *b)
{
	return a->set == b->set && a->uid == b->uid && a->gid == b->gid;
}

struct pair {
	const struct config *from, *to;
	int old, new;
	struct arena *scratch;
	struct job_lines *lines;
};

/* "job backup: applied from the next firing (schedule, command)" */
static void compare_pair(void *argument)
{
	struct pair *p = argument;
	size_t bytes = schema_row_count * sizeof(const char *);
	struct job_values a = {p->scratch, arena_zero(p->scratch, bytes)};
	struct job_values b = {p->scratch, arena_zero(p->scratch, bytes)};
	const struct config_job *old = &p->from->jobs[p->old], *new = &p->to->jobs[p->new];
	bool user_named = false;
	struct text words;

	text_init(&words, p->scratch);
	effective_plain(p->from, SECTION_JOB, p->old, p->scratch, collect, &a);
	effective_plain(p->to, SECTION_JOB, p->new, p->scratch, collect, &b);
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		if (row->section != SECTION_JOB || same_text(a.values[i], b.values[i]))
			continue;
		user_named |= strcmp(row->key, "user") == 0;
		text_printf(&words, "%s%s", words.length ? ", " : "",
			row->flags & SCHEMA_PREFIX ? "rlimits" : row->key);
	}
	if (!user_named && !same_user(&old->user, &new->user))
		text_printf(&words, "%suser", words.length ? ", " : "");
	if (words.length)
		add_line(p->lines,
			arena_printf(p->lines->a, "job %s: applied from the next firing (%s)",
				new->name, text_string(&words)));
}

static int find(const struct config *c, const struct config_job *like)
{
	const struct config_data *d = c->private;
	const struct ini_section *s = ini_section(&d->ini, like->raw->ini->name);

	return s ? s->index : -1;
}

void diff_jobs(const struct config *from, const struct config *to, struct arena *a,
	struct arena *scratch, char ***ret_lines, size_t *ret_count)
{
	struct job_lines lines = {.a = a};

	for (size_t i = 0; i < to->job_count; i++) {
		struct pair pair = {from, to, find(from, &to->jobs[i]), (int)i, scratch, &lines};
		if (pair.old < 0)
			add_line(&lines, arena_printf(a, "job %s: added", to->jobs[i].name));
		else if (arena_run(scratch, compare_pair, &pair) < 0)
			add_line(&lines, arena_printf(a, "job %s: applied from the next firing",
						 to->jobs[i].name));
		arena_release(scratch);
	}
	for (size_t i = 0; i < from->job_count; i++) {
		if (find(to, &from->jobs[i]) < 0)
			add_line(&lines,
				arena_printf(a, "job %s: removed; a run that is going on may end",
					from->jobs[i].name));
	}
	*ret_lines = lines.items;
	*ret_count = lines.count;
}

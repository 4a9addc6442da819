/* What a reload would change: every row of both snapshots, compared as it is in effect. */
#include <stdlib.h>
#include <string.h>

#include "conf/load.h"

struct row_value {
	const char *key, *value, *raw;
};

struct lines {
	char **items;
	size_t count, capacity;
};

struct compare {
	const struct config *from, *to;
	struct arena *a;      /* of the result */
	struct arena scratch; /* of one program */
	struct config_change *changes;
	size_t change_count, change_capacity;
	struct lines restart, live, moved;
	char **jobs;
	size_t job_count;
};

static void add_line(struct compare *x, struct lines *l, const char *text)
{
	l->items = arena_grow(x->a, l->items, l->count, &l->capacity, sizeof(*l->items));
	l->items[l->count++] = arena_strdup(x->a, text);
}

/* --- collecting ------------------------------------------------------------------------------ */

struct collect {
	struct arena *a;
	struct row_value *values;
	enum schema_section kind;
	int socket;
};

static void collect(void *user, const struct effective *e)
{
	struct collect *c = user;
	struct row_value *v = &c->values[e->row - schema_rows];

	if (e->row->section != c->kind || e->socket != c->socket)
		return;
	if (strcmp(e->row->key, "workers") == 0)
		v = &c->values[schema_find(SECTION_PROGRAM, "numprocs") - schema_rows];
	if (e->row->flags & SCHEMA_PREFIX) {
		v->value = arena_printf(
			c->a, "%s%s=%s\n", v->value ? v->value : "", e->key, e->value);
		v->raw = v->value;
		v->key = e->row->key;
		return;
	}
	v->key = e->key;
	v->value = e->value;
	/* By default it follows the environment of whoever asks: no change of the file. */
	if (e->source == SOURCE_DEFAULT && strcmp(e->key, "control") == 0)
		v->value = "";
	v->raw = e->row->flags & SCHEMA_WORKER ? e->raw : "";
}

static struct row_value *fresh(struct arena *a)
{
	return arena_zero(a, schema_row_count * sizeof(struct row_value));
}

static bool equal(const struct row_value *a, const struct row_value *b)
{
	return strcmp(a->value ? a->value : "", b->value ? b->value : "") == 0 &&
	       strcmp(a->raw ? a->raw : "", b->raw ? b->raw : "") == 0;
}

/* --- programs -------------------------------------------------------------------------------- */

static void raise_class(
	struct config_change *change, enum diff_class class, struct text *words, const char *what)
{
	if (class > change->class)
		change->class = class;
	text_printf(words, "%s%s", words->length ? ", " : "", what);
}

static bool same_user(const struct config_user *a, const struct config_user *b)
{
	return a->set == b->set && a->uid == b->uid && a->gid == b->gid;
}

static bool same_socket(const struct config_socket *a, const struct config_socket *b)
{
	return strcmp(a->name, b->name) == 0 && strcmp(a->listen, b->listen) == 0 &&
	       strcmp(a->path, b->path) == 0;
}

static void compare_sockets(struct compare *x, const struct config_program *old,
	const struct config_program *new, struct config_change *change, struct text *words)
{
	if (old->socket_count != new->socket_count)
		return; /* `sockets` itself differs */
	for (size_t i = 0; i < new->socket_count; i++) {
		const struct config_socket *a = &x->from->sockets[old->sockets[i]];
		const struct config_socket *b = &x->to->sockets[new->sockets[i]];
		if (!same_socket(a, b))
			raise_class(change, DIFF_ROLL, words,
				arena_printf(&x->scratch, "socket %s", b->name));
	}
}

static bool has_line(const char *text, const char *start, size_t bytes)
{
	for (; *text; text += strcspn(text, "\n") + 1) {
		if (strncmp(text, start, bytes) == 0)
			return true;
	}
	return false;
}

/* "key=value" lines: the keys of those in ALL of which OTHERS has none with the same beginning, up
 * to END. */
static void name_keys(struct compare *x, struct config_change *change, struct text *words,
	enum diff_class class, const char *all, const char *others, const char *end)
{
	for (; all && *all; all += strcspn(all, "\n") + 1) {
		if (!has_line(others ? others : "", all, strcspn(all, end) + 1))
			raise_class(change, class, words,
				arena_printf(&x->scratch, "%.*s", (int)strcspn(all, "="), all));
	}
}

static enum diff_class class_of(const struct schema_row *row)
{
	return row->class == CLASS_LIVE    ? DIFF_LIVE
	       : row->class == CLASS_COUNT ? DIFF_COUNT
	       : row->class == CLASS_NONE  ? DIFF_SAME
					   : DIFF_ROLL;
}

/* The numbers of workers are told apart: as from how many to how many. */
static void compare_row(struct compare *x, const struct schema_row *row,
	const struct row_value *old, const struct row_value *new, struct config_change *change,
	struct text *words)
{
	if (row->flags & SCHEMA_PREFIX) {
		name_keys(x, change, words, class_of(row), new->value, old->value, "\n");
		name_keys(x, change, words, class_of(row), old->value, new->value, "=");
	} else if (row->class != CLASS_COUNT) {
		raise_class(change, class_of(row), words, row->key);
	}
}

static void compare_program(struct compare *x, int from, int to, struct config_change *change)
{
	const struct config_program *old = &x->from->programs[from], *new = &x->to->programs[to];
	struct collect a = {&x->scratch, fresh(&x->scratch), SECTION_PROGRAM, -1};
	struct collect b = {&x->scratch, fresh(&x->scratch), SECTION_PROGRAM, -1};
	bool user_named = false;
	struct text words;

	text_init(&words, &x->scratch);
	effective_program(x->from, from, &x->scratch, collect, &a);
	effective_program(x->to, to, &x->scratch, collect, &b);
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		if (row->section != SECTION_PROGRAM || row->class == CLASS_NONE ||
			equal(&a.values[i], &b.values[i]))
			continue;
		user_named |= strcmp(row->key, "user") == 0;
		compare_row(x, row, &a.values[i], &b.values[i], change, &words);
	}
	if (!user_named && !same_user(&old->user, &new->user))
		raise_class(change, DIFF_ROLL, &words, "user");
	if (strcmp(old->group, new->group) != 0)
		raise_class(change, DIFF_ROLL, &words, "group");
	else if (old->group_priority != new->group_priority && old->priority == new->priority)
		raise_class(change, DIFF_LIVE, &words, "priority of the group");
	compare_sockets(x, old, new, change, &words);
	if (words.length)
		text_puts(&words, " changed");
	if (old->workers != new->workers)
		raise_class(change, DIFF_COUNT, &words,
			arena_printf(&x->scratch, "workers: %d -> %d", old->workers, new->workers));
	change->text = arena_strdup(x->a, text_string(&words));
}

static struct config_change *add_change(
	struct compare *x, const char *program, enum diff_class class, const char *text)
{
	struct config_change *change;

	x->changes = arena_grow(
		x->a, x->changes, x->change_count, &x->change_capacity, sizeof(*change));
	change = &x->changes[x->change_count++];
	change->program = program;
	change->class = class;
	change->text = arena_strdup(x->a, text);
	return change;
}

struct pair {
	struct compare *x;
	int from, to;
	struct config_change *change;
};

static void run_pair(void *argument)
{
	struct pair *p = argument;

	compare_program(p->x, p->from, p->to, p->change);
}

static int find(const struct config *c, const struct config_program *like)
{
	const struct config_data *d = c->private;
	const struct ini_section *s = ini_section(&d->ini, like->raw->ini->name);
	int last = (int)c->program_count - 1;

	if (s)
		return s->index;
	/* the hidden one is the last, and in no section; a file may have one of its name instead */
	return last >= 0 && c->programs[last].hidden &&
			       strcmp(c->programs[last].name, like->name) == 0
		       ? last
		       : -1;
}

/* The program that runs the jobs: live when anything of them differs, [jobs] and what they have
 * from [baton] included, so that it reads the file again. */
static void compare_hidden(struct compare *x, const struct config_program *old,
	const struct config_program *new, struct config_change *change)
{
	if (!old->hidden || !new->hidden) {
		change->class = DIFF_ROLL;
		change->text = arena_strdup(x->a, "another program has its name now");
	} else if (x->job_count || x->live.count || x->moved.count) {
		change->class = DIFF_LIVE;
	}
}

static void compare_programs(struct compare *x)
{
	for (size_t i = 0; i < x->to->program_count; i++) {
		const struct config_program *p = &x->to->programs[i];
		int from = find(x->from, p);
		struct config_change *change = add_change(
			x, p->name, from < 0 ? DIFF_ADDED : DIFF_SAME, "");
		struct pair pair = {x, from, (int)i, change};
		if (from < 0)
			change->text = arena_strdup(x->a, "new");
		else if (p->hidden || x->from->programs[from].hidden)
			compare_hidden(x, &x->from->programs[from], p, change);
		else if (arena_run(&x->scratch, run_pair, &pair) < 0)
			change->class = DIFF_ROLL; /* memory is short: assume the most */
		arena_release(&x->scratch);
	}
	for (size_t i = 0; i < x->from->program_count; i++) {
		if (find(x->to, &x->from->programs[i]) < 0)
			add_change(x, x->from->programs[i].name, DIFF_REMOVED, "gone");
	}
}

/* --- [baton], [scheduler], sockets ----------------------------------------------------------- */

static void compare_plain(struct compare *x, enum schema_section kind, const char *title,
	int from_socket, int to_socket)
{
	struct collect a = {x->a, fresh(x->a), kind, from_socket};
	struct collect b = {x->a, fresh(x->a), kind, to_socket};

	effective_plain(x->from, kind, from_socket, x->a, collect, &a);
	effective_plain(x->to, kind, to_socket, x->a, collect, &b);
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		const struct row_value *old = &a.values[i], *new = &b.values[i];
		if (row->section != kind || row->class == CLASS_NONE || equal(old, new))
			continue;
		/* v6only belongs to the open port; with another port it applies (shell). */
		if (row->class == CLASS_RESTART && kind == SECTION_SOCKET)
			continue;
		add_line(x,
			row->class == CLASS_RESTART                          ? &x->restart
			: row->class == CLASS_ROLL && kind == SECTION_SOCKET ? &x->moved
									     : &x->live,
			arena_printf(x->a, "[%s] %s: %s -> %s", title, row->key,
				old->value && old->value[0] ? old->value : "(none)",
				new->value &&new->value[0] ? new->value : "(none)"));
	}
}

static void compare_all(void *argument)
{
	struct compare *x = argument;

	if (x->from->mode != x->to->mode)
		add_line(x, &x->restart,
			x->to->mode == CONFIG_NATIVE ? "mode: compatibility -> native"
						     : "mode: native -> compatibility");
	compare_plain(x, SECTION_BATON, "baton", -1, -1);
	if (x->from->scheduler.enabled != x->to->scheduler.enabled)
		add_line(x, &x->restart,
			x->to->scheduler.enabled ? "[scheduler]: off -> on"
						 : "[scheduler]: on -> off");
	else if (x->to->scheduler.enabled)
		compare_plain(x, SECTION_SCHEDULER, "scheduler", -1, -1);
	for (size_t i = 0; i < x->to->socket_count; i++) {
		const char *name = x->to->sockets[i].name;
		int from = config_find_socket(x->from, name);
		if (from >= 0)
			compare_plain(x, SECTION_SOCKET, arena_printf(x->a, "socket:%s", name),
				from, (int)i);
	}
	if (x->from->job_count || x->to->job_count)
		compare_plain(x, SECTION_JOBS, "jobs", -1, -1);
	diff_jobs(x->from, x->to, x->a, &x->scratch, &x->jobs, &x->job_count);
	compare_programs(x);
}

int config_compare(const struct config *from, const struct config *to, struct config_diff *ret_diff)
{
	struct arena *a = malloc(sizeof(*a));
	struct compare x = {.from = from, .to = to, .a = a};
	int rc;

	if (!a)
		return ERR_SYSTEM;
	arena_init(a);
	arena_init(&x.scratch);
	rc = arena_run(a, compare_all, &x);
	arena_release(&x.scratch);
	if (rc < 0) {
		arena_release(a);
		free(a);
		return rc;
	}
	ret_diff->programs = x.changes;
	ret_diff->program_count = x.change_count;
	ret_diff->restart = x.restart.items;
	ret_diff->restart_count = x.restart.count;
	ret_diff->live = x.live.items;
	ret_diff->live_count = x.live.count;
	ret_diff->moved = x.moved.items;
	ret_diff->moved_count = x.moved.count;
	ret_diff->jobs = x.jobs;
	ret_diff->job_count = x.job_count;
	ret_diff->private = a;
	return 0;
}

void config_diff_release(struct config_diff *d)
{
	if (d->private) {
		arena_release(d->private);
		free(d->private);
	}
	memset(d, 0, sizeof(*d));
}

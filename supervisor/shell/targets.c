/* Addresses: PROGRAM, PROGRAM:INDEX, GROUP:*, GROUP:PROGRAM, supervisord's process name, all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/commands.h"

static bool add(struct targets *t, int program, int worker)
{
	struct target *more;

	for (size_t i = 0; i < t->count; i++) {
		if (t->items[i].program == program && t->items[i].worker == worker)
			return true;
	}
	more = realloc(t->items, (t->count + 1) * sizeof *more);
	if (more == NULL)
		return false;
	t->items = more;
	t->items[t->count++] = (struct target){program, worker};
	return true;
}

void targets_release(struct targets *t)
{
	free(t->items);
	t->items = NULL;
	t->count = 0;
}

static const struct program *used(const struct supervisor *s, int slot)
{
	const struct program *p = &s->core.programs[slot];

	return p->used && !p->leaving ? p : NULL;
}

static void add_all(struct supervisor *s, struct targets *t)
{
	for (int i = 0; i < s->core.program_slots; i++) {
		if (used(s, i) != NULL && !used(s, i)->settings->hidden)
			add(t, i, -1);
	}
}

static void add_group(struct supervisor *s, const char *group, size_t bytes, struct targets *t)
{
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = used(s, i);

		if (p != NULL && strlen(p->settings->group) == bytes &&
			strncmp(p->settings->group, group, bytes) == 0)
			add(t, i, -1);
	}
}

/* supervisord's process name, alone or behind its group. */
static void add_process_name(struct supervisor *s, const char *name, struct targets *t)
{
	const char *colon = strchr(name, ':');

	for (int i = 0; i < s->core.worker_slots; i++) {
		const struct worker *w = &s->core.workers[i];
		const struct program *p;
		struct config_worker built;
		struct err e;

		if (!w->used || w->outgoing || (p = used(s, w->program)) == NULL)
			continue;
		if (config_worker_build(p->config, p->position, w->index, NULL, &built, &e) < 0)
			continue;
		if (strcmp(built.name, colon != NULL ? colon + 1 : name) == 0 &&
			(colon == NULL || (strlen(p->settings->group) == (size_t)(colon - name) &&
						  strncmp(p->settings->group, name,
							  (size_t)(colon - name)) == 0)))
			add(t, w->program, i);
		config_worker_release(&built);
	}
}

static void add_indexed(
	struct supervisor *s, const char *name, const char *colon, struct targets *t)
{
	char program[256], *end;
	long index = strtol(colon + 1, &end, 10), generation = -1;
	int slot, worker;

	if (*end == '@' && end[1] != '\0')
		generation = strtol(end + 1, &end, 10);
	if (colon[1] == '\0' || *end != '\0' || (size_t)(colon - name) >= sizeof program)
		return;
	snprintf(program, sizeof program, "%.*s", (int)(colon - name), name);
	slot = core_find_program(&s->core, program);
	worker = slot >= 0 ? core_find_worker(&s->core, slot, (int)index) : -1;
	for (int i = slot >= 0 && generation >= 0 ? core_next_worker(&s->core, slot, -1) : -1;
		i >= 0; i = core_next_worker(&s->core, slot, i)) {
		if (s->core.workers[i].index == (int)index &&
			s->core.workers[i].generation == (uint32_t)generation &&
			(worker < 0 || s->core.workers[i].outgoing ||
				s->core.workers[worker].generation != (uint32_t)generation))
			worker = i; /* recycling: both are of one, and so called is the outgoing */
	}
	if (generation >= 0 && worker >= 0 &&
		s->core.workers[worker].generation != (uint32_t)generation)
		worker = -1;
	if (worker >= 0)
		add(t, slot, worker);
}

static void name_all(struct supervisor *s, const struct targets *t, char *buf, size_t bytes)
{
	size_t used_bytes = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < t->count && used_bytes < bytes; i++)
		used_bytes += (size_t)snprintf(buf + used_bytes, bytes - used_bytes, "%s%s",
			i > 0 ? ", " : "",
			t->items[i].worker >= 0
				? report_worker_name(s, t->items[i].worker)
				: s->core.programs[t->items[i].program].settings->name);
}

static void list_programs(struct supervisor *s, char *buf, size_t bytes)
{
	struct targets all = {NULL, 0};

	add_all(s, &all);
	name_all(s, &all, buf, bytes);
	targets_release(&all);
}

static bool find_one(struct supervisor *s, const char *name, bool with_hidden, struct targets *t,
	const char **ret_code, struct err *e)
{
	struct targets found = {NULL, 0};
	const char *colon = strchr(name, ':');
	bool several = false;
	char list[512];
	int slot;

	if (strcmp(name, "all") == 0) {
		add_all(s, &found);
		several = true;
	} else if (colon != NULL && strcmp(colon, ":*") == 0) {
		add_group(s, name, (size_t)(colon - name), &found);
		several = true;
	} else {
		slot = core_find_program(&s->core, colon != NULL ? colon + 1 : name);
		if (slot >= 0 && used(s, slot) != NULL &&
			(colon == NULL ||
				(strlen(used(s, slot)->settings->group) == (size_t)(colon - name) &&
					strncmp(used(s, slot)->settings->group, name,
						(size_t)(colon - name)) == 0)))
			add(&found, slot, -1);
		if (colon != NULL)
			add_indexed(s, name, colon, &found);
		if (found.count == 0)
			add_process_name(s, name, &found);
	}
	if (found.count == 0 && !(several && strcmp(name, "all") == 0)) {
		list_programs(s, list, sizeof list);
		*ret_code = "not_found";
		err_set(e, ERR_CONFIG, "nothing is called '%.100s'; there is: %s", name, list);
		return false;
	}
	if (found.count > 1 && !several) {
		name_all(s, &found, list, sizeof list);
		targets_release(&found);
		*ret_code = "ambiguous";
		err_set(e, ERR_CONFIG, "'%.100s' could mean %s", name, list);
		return false;
	}
	for (size_t i = 0; i < found.count && !with_hidden; i++) {
		if (!s->core.programs[found.items[i].program].settings->hidden)
			continue;
		targets_release(&found);
		*ret_code = "refused";
		err_set(e, ERR_REFUSED,
			"'%.100s' is the built-in job worker: it runs as long as the file has "
			"[job:] sections; `baton jobs pause NAME` stops a job, `baton handoff "
			"--away` moves all of them to another instance",
			name);
		return false;
	}
	for (size_t i = 0; i < found.count; i++)
		add(t, found.items[i].program, found.items[i].worker);
	targets_release(&found);
	return true;
}

bool targets_find_one(struct supervisor *s, const char *name, struct targets *t,
	const char **ret_code, struct err *e)
{
	return find_one(s, name, true, t, ret_code, e);
}

bool targets_find(struct supervisor *s, json_t *names, struct targets *t, const char **ret_code,
	struct err *e)
{
	size_t i;
	json_t *name;

	t->items = NULL;
	t->count = 0;
	*ret_code = "usage";
	if (!json_is_array(names) || json_array_size(names) == 0) {
		err_set(e, ERR_CONFIG,
			"which? name programs or workers (web, web:0, group:*, all)");
		return false;
	}
	json_array_foreach(names, i, name)
	{
		if (!json_is_string(name)) {
			err_set(e, ERR_CONFIG, "targets must be strings");
		} else if (find_one(s, json_string_value(name), false, t, ret_code, e)) {
			continue;
		}
		targets_release(t);
		return false;
	}
	return true;
}

/* The order of start: what a program depends on comes first, then lower priority, then the file. */
#include <stdlib.h>
#include <string.h>

#include "conf/load.h"

struct order {
	struct loader *l;
	int *waiting; /* of each program: dependencies not yet placed; -1 = placed */
	const struct config_program **sorted; /* as if nothing depended on anything */
	size_t first;                         /* all before it in sorted are placed */
	const struct config_program *previous;
	int level, placed;
};

static int by_priority(const void *a, const void *b)
{
	const struct config_program *x = *(const struct config_program *const *)a;
	const struct config_program *y = *(const struct config_program *const *)b;

	if (x->group_priority != y->group_priority)
		return x->group_priority < y->group_priority ? -1 : 1;
	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return x < y ? -1 : x > y; /* in one array: the order of the file */
}

static int next_program(struct order *o)
{
	const struct config *c = o->l->config;

	for (size_t i = o->first; i < c->program_count; i++) {
		int index = (int)(o->sorted[i] - c->programs);
		if (o->waiting[index] == 0)
			return index;
		if (o->waiting[index] < 0 && i == o->first)
			o->first++;
	}
	return -1;
}

static void place(struct order *o, int index)
{
	struct config_program *p = &o->l->programs[index];
	bool new_level = o->previous && (p->priority != o->previous->priority ||
						p->group_priority != o->previous->group_priority);

	for (size_t i = 0; i < p->depend_count; i++)
		new_level |= o->l->programs[p->depends[i].program].level == o->level;
	if (new_level)
		o->level++;
	p->level = o->level;
	p->order = o->placed++;
	o->previous = p;
	o->waiting[index] = -1;
}

static void free_dependents(struct order *o, int index, const int *first, const int *users)
{
	for (int i = first[index]; i < first[index + 1]; i++)
		o->waiting[users[i]]--;
}

/* The programs that depend on each: users[first[i]] to users[first[i + 1] - 1]. */
static void invert(struct loader *l, int **ret_first, int **ret_users)
{
	size_t n = l->config->program_count, total = 0;
	int *first = arena_zero(l->arena, (n + 2) * sizeof(*first)), *users;

	for (size_t i = 0; i < n; i++) {
		total += l->programs[i].depend_count;
		for (size_t d = 0; d < l->programs[i].depend_count; d++)
			first[l->programs[i].depends[d].program + 2]++;
	}
	for (size_t i = 2; i < n + 2; i++)
		first[i] += first[i - 1];
	users = arena_zero(l->arena, (total + 1) * sizeof(*users));
	for (size_t i = 0; i < n; i++) {
		for (size_t d = 0; d < l->programs[i].depend_count; d++)
			users[first[l->programs[i].depends[d].program + 1]++] = (int)i;
	}
	*ret_first = first;
	*ret_users = users;
}

/* Of a program that is on no cycle itself but waits for one, the cycle is found all the same:
 * following what is not placed, one comes round. */
static void report_cycle(struct order *o, int start)
{
	struct loader *l = o->l;
	struct text t;
	char *seen = arena_zero(l->arena, l->config->program_count);
	struct setting s;
	int at = start, first;

	for (int round = 0; round < 2; round++) {
		first = at;
		memset(seen, 0, l->config->program_count);
		while (!seen[at]) {
			const struct config_program *p = &l->programs[at];
			seen[at] = 1;
			for (size_t i = 0; i < p->depend_count; i++) {
				if (o->waiting[p->depends[i].program] >= 0) {
					at = p->depends[i].program;
					break;
				}
			}
		}
	}
	text_init(&t, l->arena);
	at = first;
	do {
		const struct config_program *p = &l->programs[at];
		text_printf(&t, "%s -> ", p->name);
		for (size_t i = 0; i < p->depend_count; i++) {
			if (o->waiting[p->depends[i].program] >= 0) {
				at = p->depends[i].program;
				break;
			}
		}
	} while (at != first);
	text_puts(&t, l->programs[first].name);
	s = setting_key(l->data, SECTION_PROGRAM, l->programs[first].raw->ini, NULL, "depends_on");
	load_report(l, false, l->programs[first].raw->ini, &s,
		"a cycle, so that none of them could start: %s", text_string(&t));
}

void load_order(struct loader *l)
{
	size_t n = l->config->program_count;
	struct order o = {.l = l};
	int *first, *users, index;

	for (size_t i = 0; i < n; i++)
		l->programs[i].level = -1;
	o.waiting = arena_zero(l->arena, (n + 1) * sizeof(*o.waiting));
	for (size_t i = 0; i < n; i++)
		o.waiting[i] = (int)l->programs[i].depend_count;
	o.sorted = arena_zero(l->arena, (n + 1) * sizeof(*o.sorted));
	for (size_t i = 0; i < n; i++)
		o.sorted[i] = &l->programs[i];
	qsort(o.sorted, n, sizeof(*o.sorted), by_priority);
	invert(l, &first, &users);
	while ((index = next_program(&o)) >= 0) {
		place(&o, index);
		free_dependents(&o, index, first, users);
	}
	for (size_t i = 0; i < n; i++) {
		if (o.waiting[i] > 0) {
			report_cycle(&o, (int)i);
			return;
		}
	}
}

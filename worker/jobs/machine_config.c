/* The machine's jobs: by name, and what a reload makes of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/jobs/machine_internal.h"

static void table_put(int *table, int slots, uint64_t hash, int job)
{
	uint64_t at = hash & (uint64_t)(slots - 1);

	while (table[at] >= 0)
		at = (at + 1) & (uint64_t)(slots - 1);
	table[at] = job;
}

int machine_find(const struct jobs_machine *m, const char *name)
{
	uint64_t hash = machine_hash(name), at;

	if (m->table_slots == 0)
		return -1;
	for (at = hash & (uint64_t)(m->table_slots - 1); m->table[at] >= 0;
		at = (at + 1) & (uint64_t)(m->table_slots - 1)) {
		const struct jobs_job *j = &m->jobs[m->table[at]];

		if (j->used && j->hash == hash && strcmp(j->name, name) == 0)
			return m->table[at];
	}
	return -1;
}

/* Room for COUNT jobs beside those that are there, and a table with none in it. */
static int make_room(struct jobs_machine *m, size_t count)
{
	int used = 0, slots, table_slots = 64;
	struct jobs_job *jobs;
	int *heap, *table;

	for (int i = 0; i < m->job_slots; i++)
		used += m->jobs[i].used;
	slots = used + (int)count > m->job_slots ? used + (int)count : m->job_slots;
	while (table_slots < 2 * slots)
		table_slots *= 2;
	jobs = realloc(m->jobs, (size_t)(slots + 1) * sizeof *jobs);
	if (jobs != NULL)
		m->jobs = jobs;
	heap = jobs != NULL ? realloc(m->heap, (size_t)(slots + 1) * sizeof *heap) : NULL;
	if (heap != NULL)
		m->heap = heap;
	table = heap != NULL ? malloc((size_t)table_slots * sizeof *table) : NULL;
	if (table == NULL)
		return ERR_SYSTEM;
	memset(m->jobs + m->job_slots, 0, (size_t)(slots - m->job_slots) * sizeof *jobs);
	for (int i = m->job_slots; i < slots; i++)
		m->jobs[i].heap_at = -1;
	m->job_slots = slots;
	free(m->table);
	m->table = table;
	m->table_slots = table_slots;
	memset(table, 0xff, (size_t)table_slots * sizeof *table);
	for (int i = 0; i < m->job_slots; i++) {
		if (m->jobs[i].used)
			table_put(table, table_slots, m->jobs[i].hash, i);
	}
	return 0;
}

static int add_job(struct jobs_machine *m, const struct jobs_policy *p, int *free_from)
{
	int i = *free_from;
	struct jobs_job *j;

	while (m->jobs[i].used)
		i++;
	*free_from = i + 1;
	j = &m->jobs[i];
	*j = (struct jobs_job){.used = true, .heap_at = -1, .wait_head = -1, .wait_tail = -1};
	snprintf(j->name, sizeof j->name, "%s", p->name);
	j->hash = machine_hash(j->name);
	j->next_us = j->due_us = JOBS_NEVER;
	table_put(m->table, m->table_slots, j->hash, i);
	return i;
}

static bool fires_alike(const struct jobs_policy *a, const struct jobs_policy *b)
{
	return a->schedule_id == b->schedule_id && a->at_promotion == b->at_promotion &&
	       a->enabled == b->enabled;
}

static void take_policy(struct jobs_machine *m, int job, const struct jobs_policy *p, bool is_new,
	const struct jobs_now *now)
{
	struct jobs_job *j = &m->jobs[job];
	bool same = !is_new && !j->gone && fires_alike(&j->policy, p);

	j->policy = *p;
	j->policy.name = j->name;
	j->gone = false;
	if (m->state != JOBS_LEADING)
		return;
	if (!same && (is_new || j->last_us < now->wall_us))
		j->last_us = now->wall_us; /* it goes by its new schedule from now on */
	machine_aim(m, job);
}

static void drop_job(struct jobs_machine *m, int job, const struct jobs_now *now)
{
	m->jobs[job].gone = true;
	machine_heap_drop(m, job);
	for (int i = 0; i < m->run_slots; i++) {
		if (m->runs[i].used && m->runs[i].job == job)
			machine_run_handle(m, &m->runs[i], JOBS_RUN_EVENT_REMOVED, now);
	}
}

/* Jobs that are gone and have nothing in work leave; only before a new table is made. */
static void forget_gone(struct jobs_machine *m)
{
	for (int i = 0; i < m->job_slots; i++) {
		struct jobs_job *j = &m->jobs[i];
		bool in_work = false;

		if (!j->used || !j->gone)
			continue;
		for (int k = 0; k < m->run_slots && !in_work; k++)
			in_work = m->runs[k].used && m->runs[k].job == i;
		j->used = in_work;
	}
}

int machine_configure(struct jobs_machine *m, const struct jobs_policy *policies, size_t count,
	int max_running, const struct jobs_now *now)
{
	int free_from = 0;
	bool *kept;

	forget_gone(m);
	if (make_room(m, count) < 0)
		return ERR_SYSTEM;
	kept = calloc((size_t)m->job_slots + 1, sizeof *kept);
	if (kept == NULL)
		return ERR_SYSTEM;
	for (size_t i = 0; i < count; i++) {
		int job = machine_find(m, policies[i].name);
		bool is_new = job < 0;

		if (is_new)
			job = add_job(m, &policies[i], &free_from);
		kept[job] = true;
		take_policy(m, job, &policies[i], is_new, now);
	}
	for (int i = 0; i < m->job_slots; i++) {
		if (m->jobs[i].used && !m->jobs[i].gone && !kept[i])
			drop_job(m, i, now);
	}
	free(kept);
	m->max_running = max_running;
	machine_settle(m, now);
	return 0;
}

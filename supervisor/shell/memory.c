/*
 * How much memory each worker's tree takes, for programs that have max_memory.
 *
 * Resident memory (RSS) from /proc/PID/stat, the figure that ps and top show, summed over the tree:
 * one read a process gives it together with parent, group and session, never waits for that
 * process's memory lock (as smaps_rollup, which has PSS, may for long), and costs microseconds.
 * What several processes of one tree share counts once for each.
 *
 * All of /proc is read in one pass, a slice at a time, so that nothing else waits for it. A process
 * belongs to the worker whose session or group it is in, else to that of its parent.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

#define NO_LOCK_NS (10 * CORE_SECOND) /* between two passes, without a heartbeat */
#define LEAST_NS   (1 * CORE_SECOND)
#define SLICE_NS   (2 * CORE_MS)  /* of one pass in one round of the loop */
#define PAUSE_NS   (10 * CORE_MS) /* between two slices */
#define ANCESTORS  64

struct entry {
	pid_t pid, parent, group, session;
	int64_t bytes;
};

struct memory {
	DIR *proc; /* a pass is under way */
	struct entry *entries;
	size_t count, capacity;
	int64_t *sums; /* by slot */
	int slots;
	int64_t next_ns; /* the next pass or slice; 0 = not known */
	long page_bytes;
};

static bool is_asked(const struct supervisor *s, const struct worker *w)
{
	return w->used && w->tree && s->core.programs[w->program].settings->max_memory > 0;
}

static bool any_asked(const struct supervisor *s)
{
	for (int i = 0; i < s->core.program_slots; i++) {
		if (s->core.programs[i].used && s->core.programs[i].settings->max_memory > 0 &&
			s->core.programs[i].wanted > 0)
			return true;
	}
	return false;
}

/* "PID (COMM) STATE PPID PGRP SESSION ... [24] RSS", COMM may hold anything. */
static bool parse(char *text, long page_bytes, struct entry *e)
{
	char *at = strrchr(text, ')'), *end;

	if (at == NULL || at[1] == '\0' || at[2] == '\0')
		return false;
	at += 3;
	e->parent = (pid_t)strtol(at, &at, 10);
	e->group = (pid_t)strtol(at, &at, 10);
	e->session = (pid_t)strtol(at, &at, 10);
	for (int field = 7; field < 24; field++) {
		(void)strtoull(*at == ' ' && at[1] == '-' ? at + 2 : at, &end, 10);
		if (end == at)
			return false;
		at = end;
	}
	e->bytes = (int64_t)strtoll(at, &end, 10) * page_bytes;
	return end != at;
}

static bool read_entry(const struct memory *m, const char *pid, struct entry *e)
{
	char name[300], text[1024];
	ssize_t n;
	int fd;

	snprintf(name, sizeof name, "%s/stat", pid);
	fd = openat(dirfd(m->proc), name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return false; /* it vanished */
	text[n] = '\0';
	e->pid = (pid_t)atoi(pid);
	return parse(text, m->page_bytes, e);
}

static bool add_entry(struct memory *m, const struct entry *e)
{
	if (m->count == m->capacity) {
		size_t capacity = m->capacity != 0 ? 2 * m->capacity : 1024;
		struct entry *more = realloc(m->entries, capacity * sizeof *more);

		if (more == NULL)
			return false;
		m->entries = more;
		m->capacity = capacity;
	}
	m->entries[m->count++] = *e;
	return true;
}

static int by_pid(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* The living worker that is the process, its session or its group. */
static struct process *worker_of(struct supervisor *s, const struct entry *e)
{
	pid_t pids[] = {e->pid, e->session, e->group};

	for (size_t i = 0; i < sizeof pids / sizeof *pids; i++) {
		struct process *p = supervisor_process_by_pid(s, pids[i]);

		if (p != NULL && p->leader_alive)
			return p;
	}
	return NULL;
}

static struct process *owner_of(struct supervisor *s, const struct memory *m, const struct entry *e)
{
	struct process *p = worker_of(s, e);

	for (int i = 0; i < ANCESTORS && p == NULL && e != NULL && e->parent > 1; i++) {
		struct entry key = {.pid = e->parent};

		if (e->parent == getpid())
			return NULL;
		e = bsearch(&key, m->entries, m->count, sizeof key, by_pid);
		p = e != NULL ? worker_of(s, e) : NULL;
	}
	return p;
}

/* The core hears of one that is above its limit, and of one that was and is no more. */
static void tell(struct supervisor *s, struct process *p, int64_t bytes)
{
	const struct worker *w = &s->core.workers[p->slot];
	int64_t most = s->core.programs[w->program].settings->max_memory;
	struct event e = {.kind = EVENT_MEMORY,
		.worker = p->slot,
		.id = p->id,
		.program = -1,
		.number = bytes};

	p->memory_bytes = bytes;
	if (bytes > most || w->memory_bytes > most)
		supervisor_post(s, &e);
}

static void publish(struct supervisor *s, struct memory *m)
{
	if (m->slots < s->process_slots) {
		int64_t *more = realloc(m->sums, (size_t)s->process_slots * sizeof *more);

		if (more == NULL)
			return;
		m->sums = more;
		m->slots = s->process_slots;
	}
	memset(m->sums, 0, (size_t)m->slots * sizeof *m->sums);
	qsort(m->entries, m->count, sizeof *m->entries, by_pid);
	for (size_t i = 0; i < m->count; i++) {
		struct process *p = owner_of(s, m, &m->entries[i]);

		if (p != NULL)
			m->sums[p->slot] += m->entries[i].bytes;
	}
	for (int i = 0; i < s->core.worker_slots; i++) {
		const struct worker *w = &s->core.workers[i];
		struct process *p = &s->processes[i];

		/* One that came during the pass was not seen whole: its turn is the next one. */
		if (is_asked(s, w) && p->leader_alive && p->id == w->id && m->sums[i] > 0)
			tell(s, p, m->sums[i]);
	}
}

static int64_t interval_ns(const struct supervisor *s)
{
	const struct config_scheduler *c = &s->config->scheduler;
	int64_t ns = c->enabled ? c->heartbeat_ns : NO_LOCK_NS;

	return ns < LEAST_NS ? LEAST_NS : ns;
}

static void end_pass(struct supervisor *s, struct memory *m, int64_t now)
{
	int64_t beat = s->core.election.state == ELECTION_HOLDING ? s->core.election.renew_ns : 0;

	closedir(m->proc);
	m->proc = NULL;
	m->count = 0;
	m->next_ns = now + interval_ns(s);
	/* With the heartbeat: no wake-up of its own. */
	if (beat > now + interval_ns(s) / 2 && beat <= m->next_ns)
		m->next_ns = beat;
}

static void go_on(struct supervisor *s, struct memory *m)
{
	int64_t until = lease_now_ns() + SLICE_NS;
	struct dirent *d;

	while ((d = readdir(m->proc)) != NULL) {
		struct entry e;

		if (d->d_name[0] < '1' || d->d_name[0] > '9')
			continue;
		if (read_entry(m, d->d_name, &e) && !add_entry(m, &e))
			break; /* memory is short: no pass this time */
		if (lease_now_ns() >= until) {
			m->next_ns = until + PAUSE_NS;
			return;
		}
	}
	if (d == NULL)
		publish(s, m);
	end_pass(s, m, lease_now_ns());
}

void memory_check(struct supervisor *s)
{
	struct memory *m = s->memory;

	if (!any_asked(s)) {
		memory_free(s);
		return;
	}
	if (m == NULL) {
		m = s->memory = calloc(1, sizeof *m);
		if (m == NULL)
			return;
		m->page_bytes = sysconf(_SC_PAGESIZE);
		m->next_ns = lease_now_ns() + interval_ns(s);
	}
	if (lease_now_ns() < m->next_ns)
		return;
	if (m->proc == NULL)
		m->proc = opendir("/proc");
	if (m->proc != NULL)
		go_on(s, m);
	else
		m->next_ns = lease_now_ns() + interval_ns(s);
}

int64_t memory_due(const struct supervisor *s)
{
	return s->memory != NULL ? s->memory->next_ns : 0;
}

void memory_free(struct supervisor *s)
{
	struct memory *m = s->memory;

	if (m == NULL)
		return;
	if (m->proc != NULL)
		closedir(m->proc);
	free(m->entries);
	free(m->sums);
	free(m);
	s->memory = NULL;
}

/* The supervisor: its start, the queue of events, its end. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/lookups.h"
#include "supervisor/shell/claims.h"
#include "supervisor/shell/own_memory.h"
#include "supervisor/shell/probes.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/supervisor.h"
#include "supervisor/shell/upgrade.h"

#define MEND_NS       (5 * CORE_SECOND)
#define LATE_NS       CORE_SECOND
#define LOGS_RETRY_NS CORE_SECOND /* a full disk is tried again */
#define SPAWNING_NS                                                                                \
	(5 * CORE_MS) /* of forks in a row; then descriptors and signals get their turn */

/* --- events -------------------------------------------------------------------------------- */
void supervisor_post(struct supervisor *s, const struct event *e)
{
	if (s->queue_count == s->queue_capacity) {
		size_t capacity = s->queue_capacity != 0 ? 2 * s->queue_capacity : QUEUE_FIRST;
		struct event *queue = own_memory_new(capacity, sizeof *queue);

		if (queue == NULL)
			abort(); /* an event lost is a state lost: better a death that all can see
				  */
		for (size_t i = 0; i < s->queue_count; i++)
			queue[i] = s->queue[(s->queue_head + i) % s->queue_capacity];
		own_memory_free(s->queue, s->queue_capacity, sizeof *queue);
		s->queue = queue;
		s->queue_head = 0;
		s->queue_capacity = capacity;
	}
	s->queue[(s->queue_head + s->queue_count++) % s->queue_capacity] = *e;
}

void supervisor_post_worker(struct supervisor *s, enum event_kind kind, const struct process *p)
{
	struct event e = {.kind = kind, .worker = p->slot, .id = p->id, .program = -1};

	supervisor_post(s, &e);
}

struct process *supervisor_process(struct supervisor *s, int slot, uint64_t id)
{
	if (slot < 0 || slot >= s->process_slots)
		return NULL;
	return s->processes[slot].id == id && id != 0 ? &s->processes[slot] : NULL;
}

/* Watches hold pointers to processes, so the array of processes never moves: it is reserved once,
 * untouched pages cost nothing. */
#define MOST_DESCRIPTORS (8 * PROCESS_SLOTS)

bool supervisor_has_room(const struct supervisor *s, enum event_kind kind, int program,
	int64_t number, struct config *config)
{
	struct event e = {
		.kind = kind, .worker = -1, .program = program, .number = number, .config = config};

	return core_room_workers(&s->core, &e) <= PROCESS_SLOTS;
}

static void make_room(struct supervisor *s, const struct event *e)
{
	struct core *c = &s->core;
	int workers = core_room_workers(c, e), programs = core_room_programs(c, e);
	size_t actions;

	if (workers > c->worker_slots) {
		int slots = workers < 16 ? 16 : workers + workers / 4;
		struct err err;

		slots = slots > PROCESS_SLOTS ? PROCESS_SLOTS : slots;
		assert(slots >= workers);
		c->workers = own_memory_grow(
			c->workers, (size_t)c->worker_slots, (size_t)slots, sizeof *c->workers);
		if (c->workers == NULL)
			abort();
		for (int i = s->process_slots; i < slots; i++)
			process_init(s, &s->processes[i], i);
		s->process_slots = slots;
		c->worker_slots = slots;
		if (lock_table_reserve(s, slots, &err) < 0)
			logs_event(s->logs, LOGS_ERROR, "lock.deadman", NULL, 0,
				"the deadman does not know all workers: %s", err.text);
	}
	if (programs > c->program_slots) {
		c->programs = realloc(c->programs, (size_t)programs * sizeof *c->programs);
		if (c->programs == NULL)
			abort();
		memset(c->programs + c->program_slots, 0,
			(size_t)(programs - c->program_slots) * sizeof *c->programs);
		c->program_slots = programs;
	}
	actions = core_plan_capacity(c);
	if (actions > s->plan.capacity) {
		own_memory_free(s->plan.items, s->plan.capacity, sizeof *s->plan.items);
		s->plan.items = own_memory_new(actions, sizeof *s->plan.items);
		if (s->plan.items == NULL)
			abort();
		s->plan.capacity = actions;
	}
}

static void handle(struct supervisor *s, const struct event *e)
{
	make_room(s, e);
	s->plan.count = 0;
	core_handle(&s->core, e, lease_now_ns(), &s->plan);
	s->changed = true;
	apply_plan(s, &s->plan);
}

/* A loop that stood still (suspend, SIGSTOP) hears of that before anything else. */
static void check_late(struct supervisor *s)
{
	int64_t late = s->timer_at_ns != 0 ? lease_now_ns() - s->timer_at_ns : 0;
	struct event e = {.kind = EVENT_TIMER, .worker = -1, .program = -1, .late_ns = late};

	if (late <= LATE_NS)
		return;
	s->timer_at_ns = 0;
	handle(s, &e);
}

/* 0 = never */
static int64_t earlier(int64_t a, int64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

static void set_timer(struct supervisor *s)
{
	int64_t at = core_next_deadline(&s->core);

	at = earlier(earlier(at, commands_deadline(s)), spawn_due(s));
	at = earlier(earlier(at, parent_deadline(s)), listeners_deadline(s));
	at = earlier(at, lookups_deadline(s));
	at = earlier(at, memory_due(s));
	at = earlier(at, probes_deadline(s));
	at = earlier(at, upgrade_deadline(s));
	at = earlier(at, claims_due(s));
	at = earlier(at, detach_deadline(s));
	at = earlier(at, guardian_deadline(s));
	at = earlier(at, s->control != NULL ? control_due(s->control) : 0);
	if (logs_is_stuck(s->logs) && (at == 0 || at > lease_now_ns() + LOGS_RETRY_NS))
		at = lease_now_ns() + LOGS_RETRY_NS;
	if (s->queue_count > 0) /* posted after the queue was handled */
		at = lease_now_ns();
	s->timer_at_ns = at;
	loop_timer_set(s->loop, at);
}

static void handle_queue(struct supervisor *s)
{
	while (s->queue_count > 0 && !s->exiting) {
		struct event e = s->queue[s->queue_head];

		s->queue_head = (s->queue_head + 1) % s->queue_capacity;
		s->queue_count--;
		waiters_before(s, &e);
		handle(s, &e);
		waiters_after(s, &e);
		if (e.kind == EVENT_RELOAD)
			free((void *)e.classes);
	}
}

static void drain(void *context)
{
	struct supervisor *s = context;
	int64_t until_ns = lease_now_ns() + SPAWNING_NS;

	if (s->exiting)
		return;
	check_late(s);
	memory_check(s);
	probes_check(s);
	claims_check(s);
	guardian_check(s);
	if (s->control != NULL)
		control_check(s->control);
	listeners_check(s);
	lookups_check(s);
	do
		handle_queue(s);
	while (!s->exiting && lease_now_ns() < until_ns && spawn_next(s));
	parent_check(s);
	detach_check(s);
	if (s->exiting)
		return;
	if (s->retired_count > 0)
		listeners_sweep(s);
	if (s->changed) {
		s->changed = false;
		commands_check(s);
	}
	if (s->retired_count > 0)
		supervisor_forget_snapshots(s);
	logs_retry(s->logs);
	upgrade_check(s);
	if (s->changed) /* an upgrade that was given up */
		commands_check(s);
	s->changed = false;
	set_timer(s);
}

static void timer_fired(void *context, int64_t late_ns)
{
	struct supervisor *s = context;
	struct event e = {.kind = EVENT_TIMER, .worker = -1, .program = -1, .late_ns = late_ns};

	s->timer_at_ns = 0;
	supervisor_post(s, &e);
	if (s->control == NULL || lease_now_ns() - s->mended_ns < MEND_NS)
		return;
	s->mended_ns = lease_now_ns();
	stages_mend_control(s);
	listeners_reassert(s);
}

/* --- snapshots ----------------------------------------------------------------------------- */
static bool snapshot_used(const struct supervisor *s, const struct config *c)
{
	const struct config_program *first = c->programs, *last = c->programs + c->program_count;

	for (int i = 0; i < s->core.worker_slots; i++) {
		const struct worker *w = &s->core.workers[i];

		if (w->used && w->settings >= first && w->settings < last)
			return true;
	}
	for (int i = 0; i < s->core.program_slots; i++) {
		if (s->core.programs[i].used && (s->core.programs[i].config == c ||
							s->core.programs[i].rollout.config == c))
			return true;
	}
	return false;
}

void supervisor_forget_snapshots(struct supervisor *s)
{
	for (size_t i = 0; i < s->retired_count;) {
		if (snapshot_used(s, s->retired[i])) {
			i++;
			continue;
		}
		config_unref(s->retired[i]);
		s->retired[i] = s->retired[--s->retired_count];
	}
}

/* --- start and end ------------------------------------------------------------------------- */
static void make_uuid(char text[STORE_ID_BYTES])
{
	unsigned char b[16] = {0};

	if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
		memcpy(b, &(int64_t){lease_now_ns() ^ getpid()}, sizeof(int64_t));
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	snprintf(text, STORE_ID_BYTES,
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		b[15]);
}

static int print_findings(const struct errlist *l)
{
	char line[2048];

	for (size_t i = 0; i < l->count; i++)
		fprintf(stderr, "baton: %s%s\n", l->items[i].warning ? "warning: " : "",
			err_format(&l->items[i], line, sizeof line));
	if (l->errors > 0)
		fprintf(stderr, "baton: nothing was started: %zu error%s in the configuration\n",
			l->errors, l->errors == 1 ? "" : "s");
	return l->errors > 0 ? 78 : 0;
}

static int load(struct supervisor *s, const struct run_options *o)
{
	struct errlist findings;
	struct err e;
	int status;

	errlist_init(&findings);
	s->config_text = o->config_text;
	s->force = o->force;
	snprintf(s->config_path, sizeof s->config_path, "%s", o->config_path);
	(void)reload_read(s, &s->config, &findings);
	status = print_findings(&findings);
	errlist_release(&findings);
	if (status != 0 || s->config == NULL)
		return status != 0 ? status : 78;
	s->booted = config_ref(s->config);
	snprintf(s->config_path, sizeof s->config_path, "%s",
		s->config->path[0] != '\0' ? s->config->path : o->config_path);
	if (stages_choose_control(s, o->config_path, o->control_path, &e) == 0)
		return 0;
	fprintf(stderr, "baton: %s\n", e.text);
	return e.code == ERR_BUSY ? 1 : 78;
}

/* The kernel drops signals to a PID 1 that has no handler yet: they wait instead. */
static void hold_signals(int how)
{
	static const int signals[] = {
		SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaddset(&set, signals[i]);
	if (getpid() == 1)
		sigprocmask(how, &set, NULL);
}

int supervisor_init(struct supervisor *s, struct err *e)
{
	s->processes = own_memory_new(PROCESS_SLOTS, sizeof *s->processes);
	if (s->processes == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	if (loop_create(&s->loop, e) < 0 || logs_create(s->loop, &s->logs, e) < 0)
		return e->code;
	return 0;
}

int supervisor_attend(struct supervisor *s, struct err *e)
{
	if (signals_watch(s, e) < 0 || loop_timer_init(s->loop, timer_fired, s, e) < 0)
		return e->code;
	loop_before_block(s->loop, drain, s);
	return 0;
}

static int init(struct supervisor *s, struct err *e)
{
	uint64_t seed = (uint64_t)lease_now_ns() ^ ((uint64_t)getpid() << 32);

	make_uuid(s->instance);
	if (gethostname(s->hostname, sizeof s->hostname - 1) < 0)
		strcpy(s->hostname, "localhost");
	s->started_wall_us = report_wall_us();
	s->pidfile_fd = -1;
	s->lock.guard_fd = s->lock.table_fd = s->lock.inotify_fd = -1;
	s->lock.keeper.fd = s->lock.deadman.fd = s->lock.waiter.fd = s->lock.former.fd = -1;
	for (int i = 0; i < DEADMAN_EXECUTORS; i++)
		s->lock.armed_program[i] = -1;
	s->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (s->null_fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot open /dev/null: %s", strerror(errno));
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	reap_oom_init(s);
	parent_init(s);
	core_init(&s->core, s->config, seed);
	if (supervisor_init(s, e) < 0)
		return e->code;
	if (supervisor_attend(s, e) < 0)
		return e->code;
	hold_signals(SIG_UNBLOCK);
	return 0;
}

/* Many workers, each with a few descriptors: what the hard limit allows is taken for ourselves. */
static void raise_descriptors(void)
{
	struct rlimit r;

	rlim_t wanted;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return;
	wanted = r.rlim_max > MOST_DESCRIPTORS ? MOST_DESCRIPTORS : r.rlim_max;
	if (r.rlim_cur >= wanted)
		return;
	r.rlim_cur = wanted;
	(void)setrlimit(RLIMIT_NOFILE, &r);
}

static void release(struct supervisor *s)
{
	probes_end(s);
	for (int i = 0; i < s->process_slots; i++) {
		if (s->processes[i].id != 0)
			process_release(&s->processes[i]);
	}
	upgrade_release(s);
	lookups_forget(s, NULL);
	commands_free(s);
	memory_free(s);
	claims_end(s);
	spawn_helpers_end();
	logs_free(s->logs);
	loop_free(s->loop);
	for (size_t i = 0; i < s->retired_count; i++)
		config_unref(s->retired[i]);
	free(s->retired);
	config_unref(s->config);
	config_unref(s->booted);
	free(s->listeners);
	own_memory_free(s->core.workers, (size_t)s->core.worker_slots, sizeof *s->core.workers);
	free(s->core.programs);
	report_release(s);
	own_memory_free(s->plan.items, s->plan.capacity, sizeof *s->plan.items);
	own_memory_free(s->queue, s->queue_capacity, sizeof *s->queue);
	own_memory_free(s->spawns, s->spawn_capacity, sizeof *s->spawns);
	own_memory_free(s->processes, PROCESS_SLOTS, sizeof *s->processes);
	if (s->null_fd >= 0)
		close(s->null_fd);
}

int supervisor_serve(struct supervisor *s)
{
	int status;

	drain(s);
	if (!s->exiting)
		loop_run(s->loop);
	status = s->exit_status;
	detach_tell_end(s, status);
	detach_end(s, status != 0 ? status : 1);
	release(s);
	return status;
}

int supervisor_run(const struct run_options *o)
{
	static struct supervisor supervisor;
	struct supervisor *s = &supervisor;
	struct event boot = {.kind = EVENT_BOOT, .worker = -1, .program = -1};
	struct err e;
	int status;

	hold_signals(SIG_BLOCK);
	s->null_fd = s->detach_fd = -1;
	s->upgrade.output_fd = s->upgrade.report_fd = -1;
	s->argv = o->argv;
	upgrade_remember(s, o->argv[0]);
	(void)getrlimit(RLIMIT_NOFILE, &s->nofile);
	status = load(s, o);
	if (status != 0) {
		config_unref(s->config);
		config_unref(s->booted);
		return status;
	}
	if (inherit_sockets(s, &e) < 0) {
		fprintf(stderr, "baton: cannot start: %s\n", e.text);
		return 1;
	}
	if (o->detach && detach(s, &status) != 0)
		return status;
	raise_descriptors();
	if ((privileges_needed(s->config) && privileges_drop(s, &e) < 0) || init(s, &e) < 0) {
		fprintf(stderr, "baton: cannot start: %s\n", e.text);
		detach_say(s, e.text);
		detach_end(s, 1);
		return 1;
	}
	if (!supervisor_has_room(s, EVENT_BOOT, -1, 0, NULL)) {
		fprintf(stderr, "baton: cannot start: the configuration has more than %d workers\n",
			PROCESS_SLOTS);
		detach_say(s, "cannot start: the configuration has too many workers");
		detach_end(s, 78);
		return 78;
	}
	supervisor_post(s, &boot);
	return supervisor_serve(s);
}

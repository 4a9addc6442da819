#include <assert.h>
#include <string.h>

#include "supervisor/core/core.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/core/worker_fsm.h"

void core_init(struct core *c, struct config *config, uint64_t seed)
{
	memset(c, 0, sizeof *c);
	c->config = config;
	c->random = seed | 1;
	c->lifecycle.stop_level = -1;
	c->election.first_look = true;
}

struct action *core_push(struct core *c, enum action_kind kind)
{
	struct action *a;

	assert(c->plan != NULL && c->plan->count < c->plan->capacity);
	a = &c->plan->items[c->plan->count++];
	memset(a, 0, sizeof *a);
	a->kind = kind;
	a->worker = -1;
	a->program = -1;
	a->executor_env = -1;
	return a;
}

void core_report(struct core *c, enum report_about about, int program, int worker, int from, int to,
	const char *reason)
{
	struct action *a = core_push(c, ACTION_REPORT);

	a->about = about;
	a->program = program;
	a->worker = worker;
	a->from = from;
	a->to = to;
	a->reason = reason;
}

/* xorshift64*: jitter only. */
uint64_t core_random(struct core *c)
{
	c->random ^= c->random >> 12;
	c->random ^= c->random << 25;
	c->random ^= c->random >> 27;
	return c->random * UINT64_C(2685821657736338717);
}

struct worker *core_worker(struct core *c, int slot)
{
	if (slot < 0)
		return NULL;
	assert(slot < c->worker_slots);
	return &c->workers[slot];
}

struct program *core_program(struct core *c, int slot)
{
	if (slot < 0)
		return NULL;
	assert(slot < c->program_slots);
	return &c->programs[slot];
}

int core_worker_slot(const struct core *c, const struct worker *w)
{
	return (int)(w - c->workers);
}

int core_program_slot(const struct core *c, const struct program *p)
{
	return (int)(p - c->programs);
}

int core_next_worker(const struct core *c, int program, int slot)
{
	for (int i = slot + 1; i < c->worker_slots; i++) {
		if (c->workers[i].used && c->workers[i].program == program)
			return i;
	}
	return -1;
}

int core_find_worker(const struct core *c, int program, int index)
{
	for (int i = core_next_worker(c, program, -1); i >= 0;
		i = core_next_worker(c, program, i)) {
		if (c->workers[i].index == index && !c->workers[i].remove &&
			!c->workers[i].outgoing)
			return i;
	}
	return -1;
}

int core_find_program(const struct core *c, const char *name)
{
	for (int i = 0; i < c->program_slots; i++) {
		if (c->programs[i].used && strcmp(c->programs[i].settings->name, name) == 0)
			return i;
	}
	return -1;
}

/* How many of CONFIG's workers are to come: all of them, as an upper bound. */
static int workers_of(const struct config *config)
{
	int count = 0;

	for (size_t i = 0; i < config->program_count; i++)
		count += config->programs[i].workers;
	return count;
}

/* Workers that P may still add: slots are kept for programs that are not started. */
static int missing(const struct core *c, int program, int count)
{
	int present = 0;

	for (int i = core_next_worker(c, program, -1); i >= 0; i = core_next_worker(c, program, i))
		present += !c->workers[i].remove && !c->workers[i].outgoing &&
			   c->workers[i].index < count;
	return count > present ? count - present : 0;
}

int core_room_workers(const struct core *c, const struct event *e)
{
	int room = 0;

	for (int i = 0; i < c->worker_slots; i++)
		room += c->workers[i].used;
	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];
		int count = p->count;

		if (e->kind == EVENT_SCALE && e->program == i && e->number > count)
			count = (int)e->number;
		if (p->used)
			room += missing(c, i, count) + rollout_most_extra(p);
	}
	if (e->kind == EVENT_RELOAD)
		room += workers_of(e->config);
	if (e->kind == EVENT_BOOT)
		room += workers_of(c->config);
	return room;
}

int core_room_programs(const struct core *c, const struct event *e)
{
	int used = 0;
	const struct config *config = e->kind == EVENT_RELOAD ? e->config : c->config;

	for (int i = 0; i < c->program_slots; i++)
		used += c->programs[i].used;
	if (e->kind == EVENT_RELOAD || e->kind == EVENT_BOOT)
		used += (int)config->program_count;
	return used;
}

size_t core_plan_capacity(const struct core *c)
{
	/* One event moves a worker through a few states at most (stop, collect, restart: each a
	 * report and an action or two), and a program's executor likewise. */
	return 64 + 16 * (size_t)c->worker_slots + 24 * (size_t)c->program_slots;
}

/* --- dispatch ------------------------------------------------------------------------------ */
static const int worker_events[EVENT_KINDS] = {
	[EVENT_SPAWNED] = WORKER_EVENT_SPAWNED + 1,
	[EVENT_SPAWN_FAILED] = WORKER_EVENT_SPAWN_FAILED + 1,
	[EVENT_EXECED] = WORKER_EVENT_EXECED + 1,
	[EVENT_DIED] = WORKER_EVENT_DIED + 1,
	[EVENT_GONE] = WORKER_EVENT_GONE + 1,
	[EVENT_READY] = WORKER_EVENT_READY + 1,
	[EVENT_WATCHDOG] = WORKER_EVENT_WATCHDOG + 1,
	[EVENT_EXTEND] = WORKER_EVENT_EXTEND + 1,
	[EVENT_PROBE_OK] = WORKER_EVENT_PROBE_OK + 1,
	[EVENT_PROBE_FAILED] = WORKER_EVENT_PROBE_FAILED + 1,
};

static struct worker *worker_of(struct core *c, const struct event *e)
{
	struct worker *w = e->worker >= 0 && e->worker < c->worker_slots ? &c->workers[e->worker]
									 : NULL;

	return w != NULL && w->used && w->tree && w->id == e->id ? w : NULL;
}

/* What a worker says on its channel concerns its program's executor, if it is the one. */
static void handle_said(struct core *c, struct worker *w, const struct event *e)
{
	struct program *p = &c->programs[w->program];

	if (e->kind == EVENT_SAID_HELLO) {
		executor_hello(c, w);
		return;
	}
	if (!executor_is(c, w))
		return;
	switch (e->kind) {
	case EVENT_SAID_PROMOTED:
		if (e->term == p->executor.term)
			executor_handle(c, p, EXECUTOR_EVENT_PROMOTED, e);
		break;
	case EVENT_SAID_DEMOTED:
		if (e->term == p->executor.term)
			executor_handle(c, p, EXECUTOR_EVENT_DEMOTED, e);
		break;
	case EVENT_SAID_BUSY:
		executor_handle(c, p, EXECUTOR_EVENT_BUSY, e);
		break;
	case EVENT_LEASE_TAKEN:
		executor_handle(c, p, EXECUTOR_EVENT_LOSE, e);
		break;
	default:
		break;
	}
}

static void handle_worker(struct core *c, const struct event *e)
{
	struct worker *w = worker_of(c, e);

	if (w == NULL)
		return; /* of an earlier process in that slot */
	if (e->kind == EVENT_MEMORY) {
		w->memory_bytes = e->number;
		c->programs[w->program].dirty = true;
	} else if (worker_events[e->kind] != 0)
		worker_handle(c, w, (enum worker_event)(worker_events[e->kind] - 1), e);
	else
		handle_said(c, w, e);
}

static void each_executor(struct core *c, enum executor_event what)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists)
			executor_handle(c, p, what, NULL);
	}
}

static void handle_operator(struct core *c, const struct event *e)
{
	struct program *p = e->program >= 0 && e->program < c->program_slots
				    ? &c->programs[e->program]
				    : NULL;

	if (p == NULL || !p->used)
		return;
	if (e->worker >= 0 && (e->worker >= c->worker_slots || !c->workers[e->worker].used ||
				      c->workers[e->worker].program != e->program))
		return;
	switch (e->kind) {
	case EVENT_START:
		pool_start(c, e->program, e->worker);
		break;
	case EVENT_STOP:
		pool_stop(c, e->program, e->worker);
		break;
	case EVENT_RESTART:
		pool_restart(c, e->program, e->worker);
		break;
	case EVENT_ROLL:
		pool_roll(c, e->program);
		break;
	case EVENT_SCALE:
		pool_scale(c, e->program, (int)e->number);
		break;
	case EVENT_HANDOFF:
		if (p->executor.exists)
			executor_handoff(c, p, e->worker);
		break;
	default:
		break;
	}
}

static void handle_deadlines(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (!p->used || !p->executor.exists)
			continue;
		if ((p->executor.deadline_ns != 0 && p->executor.deadline_ns <= c->now_ns) ||
			(p->executor.arm_by_ns != 0 && p->executor.arm_by_ns <= c->now_ns))
			executor_handle(c, p, EXECUTOR_EVENT_DEADLINE, NULL);
	}
	for (int i = 0; i < c->worker_slots; i++) {
		struct worker *w = &c->workers[i];

		if (w->used && w->deadline_ns != 0 && w->deadline_ns <= c->now_ns)
			worker_handle(c, w, WORKER_EVENT_DEADLINE, NULL);
		if (w->used && w->probe_at_ns != 0 && w->probe_at_ns <= c->now_ns)
			worker_handle(c, w, WORKER_EVENT_PROBE_DUE, NULL);
	}
	for (int i = 0; i < c->program_slots; i++)
		c->programs[i].dirty = true;
	lifecycle_check_time(c);
}

static void handle(struct core *c, const struct event *e)
{
	switch (e->kind) {
	case EVENT_BOOT:
		lifecycle_boot(c);
		break;
	case EVENT_STAGE:
		lifecycle_stage(c, e->stage, e->ok, (int)e->number);
		break;
	case EVENT_TIMER:
		handle_deadlines(c);
		break;
	case EVENT_REPLY:
		election_reply(c, e);
		break;
	case EVENT_GUARD_BUSY:
		election_handle(c, ELECTION_EVENT_GUARD_BUSY, e);
		break;
	case EVENT_GUARD_FREE:
		election_handle(c, ELECTION_EVENT_GUARD_FREE, e);
		break;
	case EVENT_DATABASE_CHANGED:
		election_handle(c, ELECTION_EVENT_CHANGED, e);
		break;
	case EVENT_DEADMAN_ARMED:
		if (e->program >= 0 && e->program < c->program_slots &&
			c->programs[e->program].used &&
			c->programs[e->program].executor.term == e->term)
			executor_handle(c, &c->programs[e->program], EXECUTOR_EVENT_ARMED, e);
		break;
	case EVENT_DEADMAN_LOST:
		each_executor(c, EXECUTOR_EVENT_UNARMED);
		break;
	case EVENT_DEADMAN_UP:
		each_executor(c, EXECUTOR_EVENT_REARM);
		break;
	case EVENT_STEP_DOWN:
		election_handle(c, ELECTION_EVENT_STEP_DOWN, e);
		break;
	case EVENT_RELOAD:
		pool_configure(c, e->config, e->classes);
		election_settings_changed(c);
		break;
	case EVENT_SHUTDOWN:
		lifecycle_shutdown(c, (enum shutdown_mode)e->number, 0, "asked to stop");
		break;
	case EVENT_START:
	case EVENT_STOP:
	case EVENT_RESTART:
	case EVENT_ROLL:
	case EVENT_SCALE:
	case EVENT_HANDOFF:
		handle_operator(c, e);
		break;
	default:
		handle_worker(c, e);
		break;
	}
}

/* How late this supervisor is for what it had to do: it was stopped, or the machine slept. Other
 * events may well be read before the timer's. */
static int64_t lateness(const struct core *c, const struct event *e, int64_t now_ns)
{
	int64_t late = e->kind == EVENT_TIMER ? e->late_ns : 0;
	int64_t due = c->election.state == ELECTION_STANDBY ? core_next_deadline(c) : 0;

	return due != 0 && now_ns - due > late ? now_ns - due : late;
}

void core_handle(struct core *c, const struct event *e, int64_t now_ns, struct plan *plan)
{
	int64_t late_ns = lateness(c, e, now_ns);

	if (c->lifecycle.state == LIFECYCLE_DOWN)
		return; /* it has said EXIT */
	c->now_ns = now_ns;
	c->plan = plan;
	election_check_time(c, late_ns);
	handle(c, e);
	pool_run(c);
	executor_run(c);
	lifecycle_run(c);
	election_send(c);
	lifecycle_run(c); /* a loss may have come to its end: nothing else would wake us */
	c->plan = NULL;
}

static void earlier(int64_t *first, int64_t at)
{
	if (at != 0 && (*first == 0 || at < *first))
		*first = at;
}

int64_t core_next_deadline(const struct core *c)
{
	int64_t first = 0;

	for (int i = 0; i < c->worker_slots; i++) {
		if (!c->workers[i].used)
			continue;
		earlier(&first, c->workers[i].deadline_ns);
		earlier(&first, c->workers[i].probe_at_ns);
	}
	for (int i = 0; i < c->program_slots; i++) {
		const struct program *p = &c->programs[i];

		if (!p->used || !p->executor.exists)
			continue;
		earlier(&first, p->executor.deadline_ns);
		earlier(&first, p->executor.arm_by_ns);
		if (p->executor.state == EXECUTOR_NONE && p->executor.not_before_ns > c->now_ns &&
			election_holds(c))
			earlier(&first, p->executor.not_before_ns);
	}
	earlier(&first, c->lifecycle.deadline_ns);
	earlier(&first, election_deadline(c));
	earlier(&first, pool_deadline(c));
	earlier(&first, rollout_deadline(c));
	return first;
}

/*
 * A fake world for the core: machines with clocks of their own, supervisors (each a struct core),
 * deadmen, workers, one lock database with its floor, the guard file. Time is virtual; everything
 * random comes from one printed seed.
 *
 * Header and code in one: world.h (types, queue), world_db.h (database, keeper, guard),
 * world_proc.h (workers, deadmen), world_sup.h (events in, actions out), world_fault.h (storms),
 * world_calm.h. Included by one test program.
 */
#ifndef BATON_TESTS_SIM_WORLD_H
#define BATON_TESTS_SIM_WORLD_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/core/core.h"
#include "supervisor/core/lifecycle_fsm.h"

#define MS  CORE_MS
#define SEC CORE_SECOND

enum { MACHINES = 2, PLACES = 4, SUPS = 48, PROCS = 512, PROGRAMS = 3, CONFIGS = 8, LOCKS = 64 };

/* What election.md section 6 wants to see refuted. */
enum mutant {
	MUTANT_NONE,
	MUTANT_AFTER_COMMIT, /* the deadline counts from the reply, not from before the transaction
			      */
	MUTANT_NO_MARGIN,    /* deadline = t0 + ttl */
	MUTANT_NO_CAS_ON_BEAT,    /* acquire compares term and holder alone */
	MUTANT_RESUME,            /* a passed deadline is forgotten when a renewal comes through */
	MUTANT_ROW_DELETED,       /* release deletes the row */
	MUTANT_WALL_CLOCK,        /* stale = the row's wall clock is a ttl old */
	MUTANT_BYTE_IS_PROOF,     /* a free byte counts without the mark */
	MUTANT_HANG_STOPS_BEAT,   /* no beat while any executor is being stopped */
	MUTANT_ZERO_ROWS_IS_LOSS, /* an unknown promotion that happened is taken for somebody else's
				   */
	MUTANTS
};

enum item_kind {
	ITEM_EVENT,  /* data = delivery: an event for a core */
	ITEM_TIMER,  /* its one timer; b = generation */
	ITEM_KEEPER, /* data = delivery: the keeper's transaction; b = keeper generation */
	ITEM_PROC,   /* a = proc, b = serial, data = enum proc_step */
	ITEM_PAGES,  /* the deadman looks at its pages */
	ITEM_AVENGE, /* the deadman, its supervisor dead */
	ITEM_ARM,    /* the deadman reads ARM: a = program, b = term */
	ITEM_DEADMAN_UP,
	ITEM_START, /* a = place: start a supervisor */
	ITEM_FAULT,
};

struct item {
	int64_t at;
	uint64_t seq;
	enum item_kind kind;
	int sup, a, data;
	uint64_t life, b;
};

struct delivery {
	struct event event;
	struct keeper_answer reply;
	struct core_request request;
	int next;
};

struct page {
	uint64_t term;
	int64_t soft_ns, deadline_ns; /* of its machine's clock */
};

enum proc_step { STEP_READY, STEP_EXIT, STEP_KILLED, STEP_TREE_GONE, STEP_PROMOTED, STEP_DEMOTED };

struct proc {
	bool used;
	uint64_t serial;
	int sup, slot, program; /* program: number in the name */
	uint64_t id;
	const struct config_program *settings;
	bool forked, main_alive, tree_alive, held;
	bool stubborn, mute; /* ignores TERM; never answers on its channel */
	bool acting;         /* told, and neither said demoted nor gone */
	bool excused;        /* nobody could have ended it in time: what the term is for */
	bool killing;
	int64_t paused_until, unkillable_until;
	struct page page;
};

struct sup {
	bool used, alive, deadman, exited;
	uint64_t life;
	int place, machine;
	bool pid1;
	char name[CORE_ID_BYTES];
	struct core core;
	int64_t paused_until, deadman_paused_until;
	int64_t due_ns; /* local, of the armed timer; 0 = none */
	uint64_t timer_generation, keeper_generation;
	int64_t table_epoch; /* byte that the shared description holds */
	int64_t wait_epoch;
	uint64_t armed_term[PROGRAMS], answered_term[PROGRAMS];
	int armed_proc[PROGRAMS];
	enum outcome db_fault; /* DONE = none; UNKNOWN = lossy */
	int64_t db_fault_until, db_slow_until, floor_fail_until;
	int64_t pages_at; /* the deadman looks at its pages then */
	int64_t stop_by;  /* local: EXIT is due */
	int64_t spin_at;
	int spins;
	int64_t t0_ns; /* of the request in flight, as sent */
};

struct machine {
	int64_t offset, ppm, suspended_until;
	int64_t wall_offset;
	int boot;
};

struct database {
	int uuid, file;
	int64_t term, epoch, beat, ttl_ns, heartbeat_wall_us;
	bool held, pid1;
	char holder[CORE_ID_BYTES];
	int machine, boot;
};

struct world {
	uint64_t seed, random, seq, life, serial;
	int64_t now;
	enum mutant mutant;
	bool calm;  /* only workers misbehave: the lock may never be lost */
	bool lossy; /* calm, but outcomes are sometimes unknown */
	bool no_floor;
	bool one_ttl; /* the ttl is never changed, but the file may be */
	bool trace, storm, replaced;
	bool violated;
	char why[256];
	uint64_t events, actions, shows, takeovers, faults, storms, exits;
	int64_t worst_gap;
	struct item *heap;
	size_t items, item_capacity;
	struct delivery *deliveries;
	int delivery_capacity, delivery_free;
	struct machine machines[MACHINES];
	struct sup sups[SUPS];
	int places[PLACES]; /* its supervisor, or -1 */
	bool place_pid1[PLACES];
	int place_count;
	struct proc procs[PROCS];
	struct database database, backup;
	int next_uuid, next_file, floor_uuid;
	int64_t floor_term, mark;
	struct {
		bool used;
		int sup;
		uint64_t life;
		int64_t epoch;
	} locks[LOCKS];
	uint64_t shown_term[PROGRAMS]; /* the highest ever shown */
	int64_t calm_at;               /* when the last pause or fault of the storm ends */
	int64_t lease_since[PROGRAMS]; /* first valid lease since then; 0 = none yet */
	struct config configs[CONFIGS];
	struct config_program programs[CONFIGS][PROGRAMS];
	struct config_depend depend[CONFIGS];
	struct plan plan;
};

static struct world w;

static inline uint64_t rnd(void)
{
	w.random ^= w.random >> 12;
	w.random ^= w.random << 25;
	w.random ^= w.random >> 27;
	return w.random * UINT64_C(2685821657736338717);
}

static inline int64_t between(int64_t low, int64_t high)
{
	return low + (int64_t)(rnd() % (uint64_t)(high - low + 1));
}

static inline bool chance(int percent)
{
	return (int)(rnd() % 100) < percent;
}

__attribute__((format(printf, 1, 2))) static void violate(const char *format, ...)
{
	va_list args;

	if (w.violated)
		return;
	w.violated = true;
	va_start(args, format);
	vsnprintf(w.why, sizeof w.why, format, args);
	va_end(args);
	if (w.trace)
		printf("VIOLATED %s\n", w.why);
}

#define TRACE(...)                                                                                 \
	do {                                                                                       \
		if (w.trace) {                                                                     \
			printf("%10.4f ", (double)w.now / 1e9);                                    \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
		}                                                                                  \
	} while (0)

/* --- clocks -------------------------------------------------------------------------------- */
static inline int64_t local_at(const struct machine *m, int64_t at)
{
	return m->offset + at + (int64_t)((__int128)at * m->ppm / 1000000);
}

static inline int64_t local_now(const struct sup *s)
{
	return local_at(&w.machines[s->machine], w.now);
}

static inline int64_t global_of(const struct machine *m, int64_t local)
{
	int64_t at = (int64_t)((__int128)(local - m->offset) * 1000000 / (1000000 + m->ppm));

	while (local_at(m, at) < local)
		at++;
	return at;
}

static inline int64_t wall_us(const struct machine *m)
{
	return (w.now + m->wall_offset) / 1000;
}

/* --- the queue ----------------------------------------------------------------------------- */
static inline bool before(const struct item *a, const struct item *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void heap_put(struct item it)
{
	size_t i = w.items++;

	if (w.items > w.item_capacity) {
		w.item_capacity = w.item_capacity ? w.item_capacity * 2 : 1024;
		w.heap = realloc(w.heap, w.item_capacity * sizeof *w.heap);
	}
	for (; i > 0 && before(&it, &w.heap[(i - 1) / 2]); i = (i - 1) / 2)
		w.heap[i] = w.heap[(i - 1) / 2];
	w.heap[i] = it;
}

static struct item heap_take(void)
{
	struct item top = w.heap[0], last = w.heap[--w.items];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= w.items)
			break;
		if (child + 1 < w.items && before(&w.heap[child + 1], &w.heap[child]))
			child++;
		if (!before(&w.heap[child], &last))
			break;
		w.heap[i] = w.heap[child];
		i = child;
	}
	w.heap[i] = last;
	return top;
}

static void later(int64_t delay, enum item_kind kind, int sup, int a, uint64_t b, int data)
{
	heap_put((struct item){.at = w.now + delay,
		.seq = ++w.seq,
		.kind = kind,
		.sup = sup,
		.life = sup >= 0 ? w.sups[sup].life : 0,
		.a = a,
		.b = b,
		.data = data});
}

static int delivery_new(void)
{
	int i = w.delivery_free;

	if (i < 0) {
		int more = w.delivery_capacity ? w.delivery_capacity * 2 : 256;

		w.deliveries = realloc(w.deliveries, (size_t)more * sizeof *w.deliveries);
		for (int k = w.delivery_capacity; k < more; k++) {
			w.deliveries[k].next = w.delivery_free;
			w.delivery_free = k;
		}
		w.delivery_capacity = more;
		i = w.delivery_free;
	}
	w.delivery_free = w.deliveries[i].next;
	w.deliveries[i].event = (struct event){.worker = -1, .program = -1};
	return i;
}

static void delivery_free(int i)
{
	w.deliveries[i].next = w.delivery_free;
	w.delivery_free = i;
}

static struct event *post(int sup, int64_t delay, enum event_kind kind)
{
	int i = delivery_new();

	w.deliveries[i].event.kind = kind;
	later(delay, ITEM_EVENT, sup, 0, 0, i);
	return &w.deliveries[i].event;
}

/* --- configurations ------------------------------------------------------------------------ */
static const char *const program_names[PROGRAMS] = {"a", "b", "c"};

static int program_number(const char *name)
{
	return name[0] - 'a';
}

static void make_program(struct config_program *p, int number)
{
	static const int zero[1] = {0};

	*p = (struct config_program){.name = program_names[number],
		.group = program_names[number],
		.workers = (int)between(1, 4),
		.priority = 999,
		.order = number,
		.level = number == 2,
		.autostart = true,
		.autorestart = AUTORESTART_ALWAYS,
		.startsecs_ns = between(0, 3) * 100 * MS,
		.startretries = -1,
		.restart_backoff_ns = 100 * MS,
		.restart_backoff_max_ns = 1 * SEC,
		.restart_jitter = true,
		.exitcodes = zero,
		.exitcode_count = 1,
		.stopsignal = 15,
		.stopwaitsecs_ns = 1 * SEC,
		.kill_tree = true,
		.executor = EXECUTOR_CANDIDATE,
		.promote = PROMOTE_NOTIFY,
		.promote_timeout_ns = 2 * SEC,
		.promote_signal = 10,
		.demote_signal = 12,
		.handoff_timeout_ns = 2 * SEC,
		.ready = chance(50) ? READY_NOTIFY : READY_STARTSECS,
		.ready_timeout_ns = 3 * SEC,
		.replace = REPLACE_ROLLING,
		.replace_signal = 1,
		.raw = NULL};
	p->surge = (int)between(0, 2);
	p->max_unavailable = (int)between(p->surge == 0, 1);
	p->stop_delay_ns = chance(30) ? between(1, 300) * MS : 0;
	p->promote_unanswered_replace = chance(30);
	if (number == 1) {
		int kind = (int)between(0, 3);

		p->promote = kind == 0   ? PROMOTE_RESPAWN
			     : kind == 1 ? PROMOTE_SIGNAL
					 : PROMOTE_NOTIFY;
		if (kind == 2) {
			p->executor = EXECUTOR_ONLY;
			p->workers = 1;
		}
	}
	if (number == 2) {
		p->executor = EXECUTOR_NO;
		p->watchdog_ns = 0;
	}
}

static void make_configs(void)
{
	int64_t heartbeat = between(4, 20) * 100 * MS, grace = between(3, 10) * 100 * MS;
	int64_t ttl = 3 * heartbeat + grace + 2 * SEC + between(0, 8) * SEC;

	for (int i = 0; i < CONFIGS; i++) {
		struct config *c = &w.configs[i];

		*c = (struct config){.refs = 1,
			.path = "",
			.name = "sim",
			.mode = CONFIG_NATIVE,
			.shutdown_timeout_ns = 10 * SEC,
			.programs = w.programs[i],
			.program_count = PROGRAMS};
		c->scheduler = (struct config_scheduler){.enabled = true,
			.ttl_ns = ttl,
			.heartbeat_ns = heartbeat,
			.kill_grace_ns = grace,
			.handoff_timeout_ns = 2 * SEC,
			.fast_takeover = true,
			.promote_backoff_ns = 100 * MS};
		for (int k = 0; k < PROGRAMS; k++) {
			if (i == 0 || chance(30))
				make_program(&w.programs[i][k], k);
			else
				w.programs[i][k] = w.programs[0][k];
		}
		w.depend[i] = (struct config_depend){.program = 0, .what = DEPENDS_READY};
		w.programs[i][2].depends = &w.depend[i];
		w.programs[i][2].depend_count = 1;
		if (i > 0 && chance(30))
			c->program_count = PROGRAMS - 1; /* c is taken out */
		if (i > 0 && chance(40) && !w.one_ttl)
			c->scheduler.ttl_ns = ttl + between(-1, 4) * SEC;
		if (i > 0 && chance(20))
			c->scheduler.fast_takeover = false;
	}
}

/* As conf/diff.c, roughly. */
static void classify(const struct core *c, const struct config *to, enum diff_class *classes)
{
	for (size_t i = 0; i < to->program_count; i++) {
		const struct config_program *n = &to->programs[i], *o = NULL;

		for (size_t k = 0; k < c->config->program_count; k++) {
			if (strcmp(c->config->programs[k].name, n->name) == 0)
				o = &c->config->programs[k];
		}
		if (o == NULL)
			classes[i] = DIFF_ADDED;
		else if (o->executor != n->executor || o->promote != n->promote ||
			 o->ready != n->ready)
			classes[i] = DIFF_ROLL;
		else if (o->workers != n->workers)
			classes[i] = DIFF_COUNT;
		else
			classes[i] = chance(10) ? DIFF_ROLL : DIFF_SAME;
	}
}

#endif

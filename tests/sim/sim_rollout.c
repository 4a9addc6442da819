/*
 * Rollouts at random: versions that start or not, forks that fail, deaths, operators, reloads and
 * rolling restarts in the middle, recycling by age and memory.
 * Invariants after every event: never more workers than wanted and `surge`; never fewer serving
 * than wanted less `max_unavailable`, unless somebody crashed or an operator took part; never two
 * recycled together; one page
 * shown at most; nothing impossible. In the end: one generation, and no rollout under way.
 *
 * SIM_SECONDS: how long (default 3); SIM_SEED: the first world's seed.
 */
#include <stdlib.h>
#include <time.h>

#include "tests/unit/core_fixture.h"
#include "supervisor/core/rollout_fsm.h"

enum { VERSIONS = 40, STEPS = 400 };

static struct config configs[VERSIONS];
static struct config_program programs[VERSIONS][1];
static uint64_t state, seed;
static int version;       /* the newest */
static int bad[VERSIONS]; /* percent of its starts that fail */
static int shown;         /* the slot whose page is shown; -1 = none */
static bool excused;      /* since the last time that all were serving */
static int allowed;       /* to be missing */
static bool recycles;     /* versions of this world have max_age, max_memory */
static uint64_t recyclings, halves;

static int between(int low, int high)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return low +
	       (int)((state * UINT64_C(2685821657736338717) >> 33) % (uint64_t)(high - low + 1));
}

static const struct config_program *aimed(void)
{
	return f.programs[0].settings;
}

/* --- invariants ----------------------------------------------------------------------------- */
static void check_pages(void)
{
	for (size_t i = 0; i < f.plan.count; i++) {
		const struct action *a = &f.plan.items[i];

		if (a->kind == ACTION_PAGE_CLEAR && a->worker == shown)
			shown = -1;
		if (a->kind != ACTION_PAGE_SHOW)
			continue;
		if (shown >= 0)
			fail_msg("seed %llu: two executors: %d and %d", (unsigned long long)seed,
				shown, a->worker);
		shown = a->worker;
	}
}

static int serving(void)
{
	int count = 0;

	for (int i = 0; i < FIX_WORKERS; i++)
		count += f.workers[i].used && f.workers[i].state == WORKER_RUNNING &&
			 f.workers[i].ready;
	return count;
}

/* Who is asked about is there to answer, and nobody is forgotten. */
static void check_probes(void)
{
	for (int i = 0; i < FIX_WORKERS; i++) {
		const struct worker *w = &f.workers[i];
		bool up = w->state == WORKER_RUNNING || w->state == WORKER_STARTING;

		if (!w->used)
			continue;
		if ((w->probing && (!up || w->probe_at_ns == 0)) || (!up && w->probe_at_ns != 0) ||
			(w->state == WORKER_RUNNING && w->settings->health &&
				w->probe_at_ns == 0) ||
			(w->state == WORKER_STARTING && w->execed &&
				w->settings->ready == READY_PROBE && w->probe_at_ns == 0))
			fail_msg("seed %llu: slot %d, %s: probing %d, next %lld",
				(unsigned long long)seed, i, worker_state_name(w->state),
				w->probing, (long long)w->probe_at_ns);
	}
}

/* What may be missing of those that are wanted: of every version since all were serving. */
static void allow(const struct config_program *s)
{
	int extra, missing;

	rollout_limits(s, f.programs[0].count, &extra, &missing);
	allowed = missing > allowed ? missing : allowed;
}

/* A generation is one version, and what is at rest has no pairs. */
static void check_generations(void)
{
	const struct program *p = &f.programs[0];

	for (int i = 0; i < FIX_WORKERS; i++) {
		const struct worker *w = &f.workers[i];

		if (w->used && w->tree && w->generation == p->generation &&
			w->settings != p->settings)
			fail_msg("seed %llu: slot %d has another version of generation %u",
				(unsigned long long)seed, i, w->generation);
		if (w->used && w->outgoing && !w->remove && p->rollout.state == ROLLOUT_IDLE)
			fail_msg("seed %llu: slot %d is outgoing, and no rollout runs",
				(unsigned long long)seed, i);
	}
}

/* The executor goes last: its turn comes when no other old one is left. */
static void check_turn(int executor, bool was_outgoing, bool was_running)
{
	const struct program *p = &f.programs[0];
	const struct worker *e = executor >= 0 ? &f.workers[executor] : NULL;
	bool begun = e != NULL && was_running && !was_outgoing &&
		     (e->outgoing ? !e->remove
				  : e->state == WORKER_STOPPING &&
					     strstr(e->reason, "another version") != NULL);

	for (int i = 0; i < FIX_WORKERS && begun; i++) {
		const struct worker *w = &f.workers[i];

		if (w != e && w->used && w->tree && !w->remove && w->generation != p->generation)
			fail_msg("seed %llu: the executor's turn came before that of slot %d",
				(unsigned long long)seed, i);
	}
}

static void check(void)
{
	const struct program *p = &f.programs[0];
	int present = 0, up = serving(), extra = 2, missing = 0, stale = 0;

	check_pages();
	check_probes();
	check_generations();
	for (int i = 0; i < FIX_WORKERS; i++)
		stale += f.workers[i].used && !f.workers[i].remove &&
			 f.workers[i].stale != RECYCLE_NOT;
	if (stale > 1 || (stale > 0 && p->rollout.state != ROLLOUT_RECYCLING))
		fail_msg("seed %llu: %d recycled together, rollout %s", (unsigned long long)seed,
			stale, rollout_state_name(p->rollout.state));
	/* Started as the executor: a ready one is stopped for it, rollout or not. So is one whose
	 * lease ended, or whom an operator asked to hand over, and who does not answer. */
	excused = excused || p->settings->promote == PROMOTE_RESPAWN ||
		  (p->executor.state == EXECUTOR_DRAINING && p->executor.stop_after == false) ||
		  (p->executor.exists && f.core.election.state != ELECTION_HOLDING);
	if (f.core.impossible != 0)
		fail_msg("seed %llu: impossible", (unsigned long long)seed);
	for (int i = 0; i < FIX_WORKERS; i++)
		present += f.workers[i].used && f.workers[i].tree;
	allow(p->settings);
	if (p->rollout.settings != NULL)
		allow(p->rollout.settings);
	missing = allowed;
	if (p->wanted > 0 && up >= p->wanted && present <= p->count &&
		p->rollout.state == ROLLOUT_IDLE) {
		excused = false;
		allowed = 0;
	}
	if (excused)
		return;
	if (present > p->count + extra)
		fail_msg("seed %llu: %d processes, wanted %d", (unsigned long long)seed, present,
			p->count);
	if (up < p->wanted - missing)
		fail_msg("seed %llu: %d serve of %d, %d may be missing, rollout %s",
			(unsigned long long)seed, up, p->wanted, missing,
			rollout_state_name(p->rollout.state));
}

static void send(struct event e)
{
	const struct executor *x = &f.programs[0].executor;
	int executor = x->exists && x->state == EXECUTOR_EXECUTING ? x->worker : -1;
	bool outgoing = executor >= 0 && f.workers[executor].outgoing;
	bool running = executor >= 0 && f.workers[executor].state == WORKER_RUNNING;

	fix_event(e);
	check_turn(executor, outgoing, running);
	for (size_t i = 0; i < f.plan.count; i++)
		halves += f.plan.items[i].kind == ACTION_REPORT &&
			  f.plan.items[i].about == REPORT_PROGRAM &&
			  strstr(f.plan.items[i].reason, "half way") != NULL;
	for (size_t i = 0; i < f.plan.count; i++)
		recyclings += f.plan.items[i].kind == ACTION_REPORT &&
			      f.plan.items[i].about == REPORT_RECYCLE;
	for (size_t i = 0; i < f.plan.count && getenv("SIM_TRACE"); i++) {
		const struct action *a = &f.plan.items[i];

		if (a->kind == ACTION_REPORT)
			printf("%s: %d %d: %d -> %d %s\n", event_name(e.kind), a->about, a->worker,
				a->from, a->to, a->reason);
	}
	check();
}

#define SEND(...) send((struct event){.worker = -1, .program = -1, __VA_ARGS__})

static void send_worker(enum event_kind kind, int slot)
{
	SEND(.kind = kind, .worker = slot, .id = f.workers[slot].id, .pid = 100 + slot,
		.term = f.programs[0].executor.term);
}

static void dies(int slot, int code)
{
	SEND(.kind = EVENT_DIED, .worker = slot, .id = f.workers[slot].id, .code = code);
}

/* --- the world ------------------------------------------------------------------------------ */
static int version_of(const struct worker *w)
{
	for (int i = 0; i <= version; i++) {
		if (w->settings == &programs[i][0])
			return i;
	}
	return 0;
}

/* What the shell would answer; false: nothing was asked, or it is the core's to wait. */
static bool probe_answers(int slot, bool calm)
{
	struct worker *w = &f.workers[slot];
	bool fails = between(0, calm ? 9 : 3) == 0;

	if (w->state == WORKER_STARTING && w->settings->ready == READY_NOTIFY) {
		send_worker(EVENT_READY, slot);
	} else if (w->state == WORKER_STARTING && w->settings->ready == READY_LOG) {
		send_worker(EVENT_PROBE_OK, slot);
	} else if (!w->probing || (calm && w->state == WORKER_RUNNING && fails)) {
		return false;
	} else {
		/* replaced, it is as if it had crashed */
		excused = excused || (w->state == WORKER_RUNNING && fails &&
					     w->probe_failures + 1 >= w->settings->health_failures);
		send_worker(fails ? EVENT_PROBE_FAILED : EVENT_PROBE_OK, slot);
	}
	return true;
}

/* One step of one worker that has something to do; false: it has not. */
static bool move(int slot, bool calm)
{
	struct worker *w = &f.workers[slot];

	if (!w->used || !w->tree)
		return false;
	if (w->state == WORKER_STARTING && !w->alive && !calm && between(0, 20) == 0) {
		SEND(.kind = EVENT_SPAWN_FAILED, .worker = slot, .id = w->id, .ok = between(0, 1));
	} else if (w->state == WORKER_STARTING && !w->alive) {
		send_worker(EVENT_SPAWNED, slot);
	} else if (w->state == WORKER_STARTING && w->held &&
		   !(f.programs[0].executor.worker == slot && f.programs[0].executor.shown)) {
		return false;
	} else if (w->state == WORKER_STARTING && between(1, 100) <= bad[version_of(w)]) {
		dies(slot, 3);
	} else if (w->state == WORKER_STARTING) {
		if (w->execed)
			return probe_answers(slot, calm);
		send_worker(EVENT_EXECED, slot);
	} else if (w->state == WORKER_STOPPING && w->draining) {
		send_worker(EVENT_SAID_DEMOTED, slot);
	} else if (w->state == WORKER_STOPPING && w->alive) {
		dies(slot, 0);
	} else if (w->state == WORKER_STOPPING && w->pid == 0 && !w->execed && w->term_sent) {
		send_worker(EVENT_SPAWNED, slot);
	} else if (w->state == WORKER_STOPPING) {
		send_worker(EVENT_GONE, slot);
	} else if (w->state == WORKER_RUNNING && w->probing) {
		return probe_answers(slot, calm);
	} else if (!calm && w->state == WORKER_RUNNING && between(0, 60) == 0) {
		excused = true;
		dies(slot, 11);
	} else {
		return false;
	}
	return true;
}

static void lock_moves(void)
{
	const struct executor *x = &f.programs[0].executor;

	if (f.core.election.request.op != REQUEST_NONE) {
		fix_done();
		check();
	}
	if (x->state == EXECUTOR_PROMOTING && x->phase == PHASE_ARM)
		SEND(.kind = EVENT_DEADMAN_ARMED, .program = 0, .term = x->term);
}

static void time_passes(void)
{
	int64_t at;

	for (int i = 0; i < 4; i++) /* the lock is not what is tried here */
		lock_moves();
	at = core_next_deadline(&f.core);
	if (at != 0 && at - f.now < 20 * SEC)
		f.now = at > f.now ? at : f.now;
	SEND(.kind = EVENT_TIMER);
}

static void reload(int failing)
{
	enum diff_class class = DIFF_ROLL;
	struct config_program *s;

	if (version == VERSIONS - 1)
		return;
	version++;
	s = &programs[version][0];
	*s = f.settings[0];
	s->health = between(0, 1);
	s->surge = between(0, 2);
	s->max_unavailable = between(s->surge == 0, 2);
	s->stop_delay_ns = between(0, 1) * 50 * MS;
	s->max_age_ns = recycles ? between(0, 1) * between(1, 30) * SEC : 0;
	s->max_age_jitter_ns = between(0, 10) * SEC;
	s->max_memory = recycles ? between(0, 1) * 1000 : 0;
	bad[version] = failing;
	configs[version] = f.config;
	configs[version].programs = s;
	SEND(.kind = EVENT_RELOAD, .config = &configs[version], .classes = &class);
}

static void rolls(void)
{
	SEND(.kind = EVENT_ROLL, .program = 0);
}

static void grows(int slot)
{
	const struct worker *w = &f.workers[slot];

	if (w->used && w->state == WORKER_RUNNING)
		SEND(.kind = EVENT_MEMORY, .worker = slot, .id = w->id,
			.number = between(900, 1100));
}

static void operator_acts(void)
{
	static const enum event_kind kinds[] = {
		EVENT_START, EVENT_STOP, EVENT_RESTART, EVENT_SCALE, EVENT_HANDOFF};
	int worker = between(0, 1) ? -1 : between(0, FIX_WORKERS - 1);

	excused = true;
	SEND(.kind = kinds[between(0, 4)], .program = 0, .worker = worker, .number = between(1, 6));
}

/* One of those that have something to do, by chance. */
static void some_moves(bool calm)
{
	int from = between(0, FIX_WORKERS - 1);

	for (int i = 0; i < FIX_WORKERS; i++) {
		if (move((from + i) % FIX_WORKERS, calm))
			return;
	}
}

static int any_worker(void)
{
	int from = between(0, FIX_WORKERS - 1), i = 0;

	while (i < FIX_WORKERS && !f.workers[(from + i) % FIX_WORKERS].used)
		i++;
	return (from + i) % FIX_WORKERS;
}

static void storm(bool operators)
{
	for (int i = 0; i < STEPS; i++) {
		int what = between(0, 99);

		if (what < (recycles ? 1 : 4) && version < VERSIONS - 2)
			reload(between(0, 2) == 0 ? between(1, 100) : 0);
		else if (what < 6 && operators)
			operator_acts();
		else if (what < 7 && !recycles)
			rolls();
		else if (what == 12) /* what started yesterday need not start today */
			bad[between(0, version)] = between(0, 1) * 100;
		else if (what < 12)
			grows(any_worker());
		else if (what < 20)
			time_passes();
		else if (what < 40)
			lock_moves();
		else
			some_moves(!operators);
	}
}

/* NEWEST: with another reload; else whatever is there comes to an end by itself. */
static void calm(bool newest)
{
	excused = true;
	SEND(.kind = EVENT_START, .program = 0);
	memset(bad, 0, sizeof bad);
	recycles = false;
	for (int i = 0; i <= version; i++)
		programs[i][0].max_age_ns = programs[i][0].max_memory = 0;
	if (newest)
		reload(0);
	for (int i = 0; i < 600; i++) {
		bool moved = false;

		for (int k = 0; k < FIX_WORKERS; k++)
			moved = move(k, true) || moved;
		lock_moves();
		if (!moved)
			time_passes();
	}
	for (int i = 0; i < FIX_WORKERS && getenv("SIM_TRACE"); i++) {
		const struct worker *w = &f.workers[i];

		if (w->used)
			printf("%d :%d gen %u %s%s%s%s%s%s after %d %s\n", i, w->index,
				w->generation, worker_state_name(w->state),
				w->ready ? " ready" : "", w->remove ? " remove" : "",
				w->outgoing ? " outgoing" : "", w->parked ? " parked" : "",
				w->tree ? " tree" : "", w->after, w->reason);
	}
	if (f.programs[0].rollout.state != ROLLOUT_IDLE || serving() != f.programs[0].wanted)
		fail_msg("seed %llu: rollout %s, %d serve of %d", (unsigned long long)seed,
			rollout_state_name(f.programs[0].rollout.state), serving(),
			f.programs[0].wanted);
	for (int i = 0; i < FIX_WORKERS; i++) {
		const struct worker *w = &f.workers[i];

		if (w->tree && (w->generation != f.programs[0].generation || w->outgoing))
			fail_msg("seed %llu: slot %d is of generation %u, not %u",
				(unsigned long long)seed, i, w->generation,
				f.programs[0].generation);
	}
	if (newest && aimed() != &programs[version][0])
		fail_msg("seed %llu: not the newest version", (unsigned long long)seed);
}

/* TERM waits for no rollout: after the last process there is nothing more to wait for. */
static void down(void)
{
	excused = true;
	memset(bad, 0, sizeof bad);
	SEND(.kind = EVENT_SHUTDOWN, .number = SHUTDOWN_GRACEFUL);
	if (f.programs[0].rollout.state != ROLLOUT_IDLE)
		fail_msg("seed %llu: a rollout runs on", (unsigned long long)seed);
	for (int i = 0; i < 200 && f.core.lifecycle.state != LIFECYCLE_DOWN; i++) {
		bool moved = false;

		for (int k = 0; k < FIX_WORKERS; k++)
			moved = move(k, true) || moved;
		if (f.core.election.request.op != REQUEST_NONE)
			fix_done();
		if (!moved)
			time_passes();
	}
	assert_int_equal(f.core.lifecycle.state, LIFECYCLE_DOWN);
}

static void one_world(void)
{
	bool candidate = between(0, 1);

	state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	for (int i = 0; i < 8; i++)
		(void)between(0, 1);
	candidate = between(0, 1);
	version = 0;
	shown = -1;
	excused = true;
	recycles = between(0, 1);
	memset(bad, 0, sizeof bad);
	f.settings[0] = fix_program("web", between(1, 5),
		candidate ? EXECUTOR_CANDIDATE : EXECUTOR_NO,
		between(0, 2) ? PROMOTE_NOTIFY : PROMOTE_RESPAWN);
	f.settings[0].max_unavailable = 1;
	f.settings[0].startretries = between(0, 1) ? -1 : between(0, 4);
	f.settings[0].ready = between(0, 2)   ? READY_NOTIFY
			      : between(0, 1) ? READY_PROBE
					      : READY_LOG;
	f.settings[0].health = between(0, 1);
	f.settings[0].health_interval_ns = between(1, 20) * SEC;
	f.settings[0].health_timeout_ns = 2 * SEC;
	f.settings[0].health_failures = between(1, 3);
	f.settings[0].autorestart = AUTORESTART_ALWAYS;
	f.settings[0].restart_backoff_max_ns = 1 * SEC;
	programs[0][0] = f.settings[0];
	fix_start(1);
	if (candidate)
		fix_hold();
	if (recycles)
		reload(0);
	storm(between(0, 1));
	if (between(0, 7) == 0)
		down();
	else
		calm(between(0, 2) > 0);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_rollouts(void **unused)
{
	const char *first = getenv("SIM_SEED"), *limit = getenv("SIM_SECONDS");
	double start = seconds(), end = start + (limit != NULL ? strtod(limit, NULL) : 3);
	uint64_t worlds = 0;

	(void)unused;
	for (seed = first != NULL ? strtoull(first, NULL, 10) : 1; seconds() < end; seed++) {
		one_world();
		worlds++;
	}
	printf("rollouts: %llu worlds, %llu workers recycled, %llu times half way\n",
		(unsigned long long)worlds, (unsigned long long)recyclings,
		(unsigned long long)halves);
	assert_true(worlds < 100 || recyclings > worlds / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rollouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

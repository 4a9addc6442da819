/* Calm weather, in which everything must heal; a whole world from its seed. */
#ifndef BATON_TESTS_SIM_WORLD_CALM_H
#define BATON_TESTS_SIM_WORLD_CALM_H

#include "tests/sim/world_fault.h"

/* --- calm weather -------------------------------------------------------------------------- */
static bool any_stopping(void)
{
	for (int i = 0; i < SUPS; i++) {
		if (w.sups[i].alive && lifecycle_is_stopping(&w.sups[i].core))
			return true;
	}
	return false;
}

static void heal(void)
{
	for (int i = 0; i < PROCS; i++)
		w.procs[i].mute = w.procs[i].stubborn = false;
	for (int i = 0; i < SUPS; i++) {
		struct sup *s = &w.sups[i];

		if (!s->alive)
			continue;
		reload(i, 0);
		for (int k = 0; k < s->core.program_slots; k++) {
			struct event e = {.kind = EVENT_SCALE, .worker = -1, .program = k};

			if (!s->core.programs[k].used)
				continue;
			e.number = s->core.programs[k].settings->workers;
			handle_event(i, &e);
			e.kind = EVENT_START;
			handle_event(i, &e);
		}
	}
}

static bool backs_off(int program)
{
	for (int i = 0; i < SUPS; i++) {
		const struct core *c = &w.sups[i].core;

		for (int k = 0; w.sups[i].alive && k < c->program_slots; k++) {
			if (c->programs[k].used &&
				program_number(c->programs[k].settings->name) == program &&
				c->programs[k].executor.not_before_ns > local_now(&w.sups[i]))
				return true;
		}
	}
	return false;
}

static void print_program(const struct core *c, int program)
{
	const struct program *p = &c->programs[program];

	TRACE("%s: count %d generation %u rollout %s surge %d missing %d", p->settings->name,
		p->count, p->generation, rollout_state_name(p->rollout.state), p->settings->surge,
		p->settings->max_unavailable);
	for (int i = core_next_worker(c, program, -1); i >= 0; i = core_next_worker(c, program, i))
		TRACE("  slot %d :%d generation %u %s%s%s%s%s%s", i, c->workers[i].index,
			c->workers[i].generation, worker_state_name(c->workers[i].state),
			c->workers[i].ready ? " ready" : "", c->workers[i].remove ? " remove" : "",
			c->workers[i].outgoing ? " outgoing" : "",
			c->workers[i].canary ? " canary" : "",
			c->workers[i].parked ? " parked" : "");
}

static void check_slots(int sup)
{
	const struct core *c = &w.sups[sup].core;

	for (int k = 0; k < c->program_slots; k++) {
		const struct program *p = &c->programs[k];
		int up = 0;

		if (!p->used || p->leaving)
			continue;
		print_program(c, k);
		for (int i = core_next_worker(c, k, -1); i >= 0; i = core_next_worker(c, k, i)) {
			const struct worker *wk = &c->workers[i];

			up += wk->state == WORKER_RUNNING || wk->state == WORKER_STANDBY;
			if (wk->tree && !wk->remove &&
				(wk->outgoing || wk->generation != p->generation))
				violate("%s: %s:%d is of generation %u, not %u", w.sups[sup].name,
					p->settings->name, wk->index, wk->generation,
					p->generation);
		}
		if (p->rollout.state != ROLLOUT_IDLE)
			violate("%s: the rollout of %s does not end: %s", w.sups[sup].name,
				p->settings->name, rollout_state_name(p->rollout.state));
		if (up < p->count)
			violate("%s: %s has %d of %d workers", w.sups[sup].name, p->settings->name,
				up, p->count);
	}
}

/* How long until every program has an executor again, everything being healthy. */
static void calm_weather(void)
{
	const struct config_scheduler *s = &w.configs[0].scheduler;
	int64_t start, ttl = s->ttl_ns + 4 * SEC; /* the longest of the reloads */
	int64_t bound = ttl + ttl / 50 + s->heartbeat_ns + 5 * SEC;
	int64_t found[2] = {0, 0};
	bool waits[2] = {false, false}; /* the promotion backoff: on purpose */

	w.storm = false;
	if (w.calm_at > w.now)
		run_until(w.calm_at);
	for (int i = 0; i < 400 && any_stopping() && !w.violated; i++)
		run_until(w.now + 100 * MS);
	run_until(w.now + 5 * SEC); /* whoever died is started again */
	heal();
	start = w.now;
	if (w.replaced)
		bound += ttl + s->heartbeat_ns;
	while (!w.violated && w.now < start + bound && (!found[0] || !found[1])) {
		for (int i = 0; i < 2; i++) {
			if (!found[i] && program_has_lease(i))
				found[i] = w.now;
			waits[i] = waits[i] || backs_off(i);
		}
		run_until(w.now + 50 * MS);
	}
	for (int i = 0; i < 2 && !w.violated; i++) {
		if (!found[i] && !waits[i])
			violate("no executor of %s after %.1f s of calm", program_names[i],
				(double)(w.now - start) / 1e9);
		if (found[i] - start > w.worst_gap && !w.replaced && !waits[i])
			w.worst_gap = found[i] - start;
	}
	run_until(w.now + 8 * SEC);
	for (int i = 0; i < SUPS && !w.violated; i++) {
		if (w.sups[i].alive)
			check_slots(i);
	}
	w.replaced = false;
}

/* --- one world ----------------------------------------------------------------------------- */
static void world_clear(void)
{
	for (int i = 0; i < SUPS; i++) {
		free(w.sups[i].core.workers);
		free(w.sups[i].core.programs);
	}
	free(w.heap);
	free(w.deliveries);
	free(w.plan.items);
	memset(&w, 0, sizeof w);
}

static void world_init(uint64_t seed, enum mutant mutant, bool calm, bool lossy, bool no_floor)
{
	world_clear();
	w.seed = seed;
	w.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	for (int i = 0; i < 8; i++)
		rnd();
	w.mutant = mutant;
	w.calm = calm;
	w.lossy = lossy;
	w.no_floor = no_floor;
	w.trace = getenv("SIM_TRACE") != NULL;
	w.delivery_free = -1;
	w.database.uuid = w.next_uuid = 1;
	w.backup = w.database;
	w.place_count = calm ? 1 : (int)between(1, PLACES);
	for (int i = 0; i < PLACES; i++) {
		w.places[i] = -1;
		w.place_pid1[i] = chance(25);
	}
	for (int i = 0; i < MACHINES; i++)
		w.machines[i] = (struct machine){.offset = between(1, 100000) * SEC,
			.ppm = between(-9000, 9000),
			.wall_offset = between(1, 1000) * 1000 * SEC};
	w.one_ttl = chance(50);
	make_configs();
	for (int i = 0; i < w.place_count; i++)
		later(between(1, 2000) * MS, ITEM_START, -1, i, 0, 0);
}

static void world_run(int cycles)
{
	run_until(w.now + 5 * SEC);
	for (int i = 0; i < cycles && !w.violated; i++) {
		int64_t end = w.now + between(1, 40) * SEC;

		w.storm = true;
		w.storms++;
		w.calm_at = 0;
		while (w.now < end && !w.violated) {
			run_until(w.now + between(1, chance(20) ? 5000 : 800) * MS);
			fault();
		}
		calm_weather();
	}
}

/* A schedule that storms seldom meet: the holder reaches the database again just before its lease
 * ends, while a standby's look from before that is still on its way. */
static void world_run_late_sight(int cycles)
{
	run_until(w.now + 6 * SEC);
	for (int i = 0; i < cycles && !w.violated; i++) {
		struct sup *holder = NULL;
		int64_t ends;

		for (int k = 0; k < SUPS; k++) {
			if (w.sups[k].alive && w.sups[k].core.election.state == ELECTION_HOLDING)
				holder = &w.sups[k];
		}
		if (holder == NULL) {
			run_until(w.now + SEC);
			continue;
		}
		ends = global_of(&w.machines[holder->machine], holder->core.election.hard_ns);
		holder->db_fault = OUTCOME_UNAVAILABLE;
		holder->db_fault_until = ends - between(200, 1500) * MS;
		run_until(ends - between(200, 2500) * MS);
		for (int k = 0; k < SUPS; k++) {
			if (w.sups[k].alive && &w.sups[k] != holder)
				w.sups[k].db_slow_until = ends + 3 * SEC;
		}
		run_until(ends + w.configs[0].scheduler.ttl_ns + 3 * SEC);
	}
}

#endif

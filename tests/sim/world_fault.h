/* Storms: faults and operators, at random. */
#ifndef BATON_TESTS_SIM_WORLD_FAULT_H
#define BATON_TESTS_SIM_WORLD_FAULT_H

#include "tests/sim/world_sup.h"

static void run_item(struct item *it)
{
	struct sup *s = it->sup >= 0 ? &w.sups[it->sup] : NULL;
	bool stale = s != NULL && (!s->used || s->life != it->life);
	struct proc *p;

	switch (it->kind) {
	case ITEM_EVENT:
	case ITEM_TIMER:
		if (stale || !s->alive ||
			(it->kind == ITEM_TIMER && it->b != s->timer_generation)) {
			if (it->kind == ITEM_EVENT)
				delivery_free(it->data);
			return;
		}
		if (s->paused_until > w.now) {
			it->at = s->paused_until;
			heap_put(*it);
			return;
		}
		if (it->kind == ITEM_TIMER) {
			timer_fires(it->sup);
			return;
		}
		{
			struct delivery d = w.deliveries[it->data];

			delivery_free(it->data);
			d.event.reply = d.event.kind == EVENT_REPLY ? &d.reply : NULL;
			handle_event(it->sup, &d.event);
		}
		return;
	case ITEM_KEEPER:
		keeper_works(it);
		return;
	case ITEM_PROC:
		p = &w.procs[it->a];
		if (p->used && p->serial == it->b)
			proc_step(p, (enum proc_step)it->data);
		return;
	case ITEM_START:
		sup_start(it->a);
		return;
	default:
		break;
	}
	if (stale)
		return;
	if (it->kind != ITEM_PAGES && s->deadman_paused_until > w.now) {
		it->at = s->deadman_paused_until;
		heap_put(*it);
		return;
	}
	switch (it->kind) {
	case ITEM_PAGES:
		deadman_looks(it->sup);
		break;
	case ITEM_AVENGE:
		if (s->deadman)
			deadman_avenges(it->sup);
		break;
	case ITEM_ARM:
		deadman_answers(it->sup, it->a, it->b);
		break;
	case ITEM_DEADMAN_UP:
		s->deadman = s->alive;
		s->deadman_paused_until = w.machines[s->machine].suspended_until;
		if (s->alive)
			post(it->sup, 0, EVENT_DEADMAN_UP);
		break;
	default:
		break;
	}
}

static void run_until(int64_t at)
{
	while (!w.violated && w.items > 0 && w.heap[0].at <= at) {
		struct item it = heap_take();

		w.now = it.at > w.now ? it.at : w.now;
		run_item(&it);
	}
	w.now = at;
}

static int any_sup(void)
{
	int place = (int)between(0, w.place_count - 1);

	return w.places[place];
}

static struct proc *any_proc(int sup)
{
	int start = (int)between(0, PROCS - 1), acting = chance(60);

	for (int i = 0; i < PROCS; i++) {
		struct proc *p = &w.procs[(start + i) % PROCS];

		if (p->used && p->sup == sup && p->main_alive && (!acting || p->acting))
			return p;
	}
	return NULL;
}

static int64_t upset(int64_t until)
{
	if (until > w.calm_at)
		w.calm_at = until;
	return until;
}

static int64_t some_time(void)
{
	int64_t ttl = w.configs[0].scheduler.ttl_ns;

	return chance(50) ? between(1, 500) * MS : between(1, 2 * ttl / MS) * MS;
}

static void pause_until(int64_t *paused_until, int64_t until)
{
	if (*paused_until < until)
		*paused_until = until;
}

static void fault_proc(int sup)
{
	const struct core *c = &w.sups[sup].core;
	struct proc *p = any_proc(sup);

	if (p == NULL)
		return;
	switch (between(0, 6)) {
	case 0:
		pause_until(&p->paused_until, upset(w.now + some_time()));
		break;
	case 1:
		p->unkillable_until = w.calm ? w.now + c->config->scheduler.kill_grace_ns / 2
					     : upset(w.now + some_time());
		break;
	case 2:
		p->stubborn = p->mute = true;
		break;
	case 3:
		tell_sup(p, 0, EVENT_SAID_HELLO);
		break;
	case 4:
		if (p->acting && p->settings->promote == PROMOTE_NOTIFY)
			step(p, 0, STEP_DEMOTED);
		break;
	default:
		step(p, 0, STEP_EXIT);
		break;
	}
}

static void fault_operator(int sup)
{
	static const enum event_kind kinds[] = {
		EVENT_START, EVENT_STOP, EVENT_RESTART, EVENT_SCALE, EVENT_HANDOFF, EVENT_HANDOFF};
	const struct core *c = &w.sups[sup].core;
	struct event *e = post(sup, 0, kinds[between(0, 5)]);

	e->program = c->program_slots > 0 ? (int)between(0, c->program_slots - 1) : -1;
	if (chance(50))
		e->worker = c->worker_slots > 0 ? (int)between(0, c->worker_slots - 1) : -1;
	e->number = between(0, 5);
}

static void reload(int sup, int config)
{
	static enum diff_class classes[64][PROGRAMS];
	static unsigned turn;
	struct event e = {.kind = EVENT_RELOAD,
		.worker = -1,
		.program = -1,
		.config = &w.configs[config],
		.classes = classes[++turn % 64]};
	struct sup *s = &w.sups[sup];

	if (s->paused_until > w.now || s->core.lifecycle.state != LIFECYCLE_RUNNING)
		return;
	classify(&s->core, &w.configs[config], classes[turn % 64]);
	handle_event(sup, &e);
}

static void fault_lock(int sup)
{
	struct sup *s = &w.sups[sup];
	int everywhere = chance(30);

	for (int i = 0; i < SUPS; i++) {
		if (!w.sups[i].alive || (i != sup && !everywhere))
			continue;
		s = &w.sups[i];
		switch (between(0, 3)) {
		case 0:
			s->db_fault = OUTCOME_UNAVAILABLE;
			s->db_fault_until = upset(w.now + some_time());
			break;
		case 1:
			s->db_fault = OUTCOME_UNKNOWN;
			s->db_fault_until = upset(w.now + some_time());
			break;
		case 2:
			s->db_slow_until = upset(w.now + some_time());
			break;
		default:
			s->floor_fail_until = upset(w.now + some_time());
			break;
		}
	}
}

static void fault_file(void)
{
	/* What a newcomer cannot know: that the holder leads by a longer ttl than its own and the
	 * restored row's. Instances on one lock have one ttl. */
	if (w.no_floor || !w.one_ttl)
		return;
	w.replaced = true;
	w.database = w.backup;
	if (chance(50)) {
		memset(&w.database, 0, sizeof w.database);
		w.database.uuid = ++w.next_uuid;
	}
	w.database.file = ++w.next_file;
	TRACE("database replaced: uuid %d term %ld", w.database.uuid, (long)w.database.term);
	for (int i = 0; i < SUPS; i++) {
		if (w.sups[i].alive)
			post(i, MS, EVENT_DATABASE_CHANGED);
	}
}

static void fault_machine(void)
{
	int m = (int)between(0, MACHINES - 1);
	int64_t until = w.now + some_time();

	switch (between(0, 2)) {
	case 0:
		w.machines[m].wall_offset += between(-7200, 7200) * SEC;
		break;
	case 1: /* suspend: all of it */
		TRACE("machine %d sleeps", m);
		upset(until);
		w.machines[m].suspended_until = until;
		for (int i = 0; i < SUPS; i++) {
			if (!w.sups[i].used || w.sups[i].machine != m)
				continue;
			pause_until(&w.sups[i].paused_until, until);
			pause_until(&w.sups[i].deadman_paused_until, until);
			if (w.sups[i].stop_by != 0)
				w.sups[i].stop_by += until - w.now + SEC;
			for (int k = 0; k < PROCS; k++) {
				if (w.procs[k].used && w.procs[k].sup == i) {
					pause_until(&w.procs[k].paused_until, until);
					pause_until(&w.procs[k].unkillable_until, until);
				}
			}
		}
		break;
	default: /* reboot */
		TRACE("machine %d restarts", m);
		w.machines[m].boot++;
		for (int i = 0; i < SUPS; i++) {
			if (!w.sups[i].used || w.sups[i].machine != m)
				continue;
			sup_dies(i, true, true);
			w.sups[i].deadman = false;
			for (int k = 0; k < PROCS; k++) {
				if (w.procs[k].used && w.procs[k].sup == i)
					proc_tree_gone(&w.procs[k]);
			}
		}
		wake_waiters();
		break;
	}
}

static void fault_sup(int sup)
{
	struct sup *s = &w.sups[sup];
	struct event *e;

	switch (between(0, 9)) {
	case 0:
	case 1:
		sup_dies(sup, chance(25), s->pid1);
		break;
	case 2:
	case 3:
		pause_until(&s->paused_until, upset(w.now + some_time()));
		TRACE("%s paused", s->name);
		if (chance(30))
			pause_until(&s->deadman_paused_until, s->paused_until);
		if (s->stop_by != 0) /* while it is stopped nothing ends */
			s->stop_by += s->paused_until - w.now + SEC;
		break;
	case 4:
		pause_until(&s->deadman_paused_until, upset(w.now + some_time()));
		break;
	case 5:
		deadman_dies(sup);
		break;
	case 6:
		post(sup, 0, EVENT_STEP_DOWN);
		break;
	case 7:
		post(sup, 0, EVENT_DATABASE_CHANGED);
		break;
	default:
		e = post(sup, 0, EVENT_SHUTDOWN);
		e->number = between(SHUTDOWN_GRACEFUL, SHUTDOWN_KILL);
		if (chance(30))
			post(sup, between(0, 3000) * MS, EVENT_SHUTDOWN)->number = SHUTDOWN_KILL;
		break;
	}
}

static void fault(void)
{
	int sup = any_sup(), what = (int)between(0, 99);

	w.faults++;
	if (chance(10))
		w.backup = w.database;
	if (sup < 0)
		return;
	if (what < 35) {
		fault_proc(sup);
	} else if (what < 50) {
		fault_operator(sup);
	} else if (what < 55) {
		reload(sup, (int)between(0, CONFIGS - 1));
	} else if (w.calm) {
		/* Never so often that every attempt of a whole lease may meet one. */
		if (w.lossy && w.now > w.sups[sup].db_fault_until + 2 * SEC) {
			w.sups[sup].db_fault = OUTCOME_UNKNOWN;
			w.sups[sup].db_fault_until = w.now + between(20, 300) * MS;
		}
	} else if (what < 70) {
		fault_lock(sup);
	} else if (what < 90) {
		fault_sup(sup);
	} else if (what < 96) {
		fault_machine();
	} else if (what < 98) {
		fault_file();
	}
}

#endif

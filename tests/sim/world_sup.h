/* A supervisor: its core, events in, actions out. */
#ifndef BATON_TESTS_SIM_WORLD_SUP_H
#define BATON_TESTS_SIM_WORLD_SUP_H

#include "tests/sim/world_proc.h"

static void make_room(struct sup *s, const struct event *e)
{
	struct core *c = &s->core;
	int workers = core_room_workers(c, e), programs = core_room_programs(c, e);
	size_t actions;

	if (workers > c->worker_slots) {
		c->workers = realloc(c->workers, (size_t)workers * sizeof *c->workers);
		memset(c->workers + c->worker_slots, 0,
			(size_t)(workers - c->worker_slots) * sizeof *c->workers);
		c->worker_slots = workers;
	}
	if (programs > c->program_slots) {
		c->programs = realloc(c->programs, (size_t)programs * sizeof *c->programs);
		memset(c->programs + c->program_slots, 0,
			(size_t)(programs - c->program_slots) * sizeof *c->programs);
		c->program_slots = programs;
	}
	actions = core_plan_capacity(c);
	if (actions > w.plan.capacity) {
		w.plan.items = realloc(w.plan.items, actions * sizeof *w.plan.items);
		w.plan.capacity = actions;
	}
}

static void do_spawn(int sup, const struct action *a)
{
	struct sup *s = &w.sups[sup];
	const struct worker *wk = &s->core.workers[a->worker];
	bool fails = w.storm && !w.calm && chance(2);
	struct event *e;
	struct proc *p;

	if (fails) {
		e = post(sup, MS / 10, EVENT_SPAWN_FAILED);
		e->worker = a->worker;
		e->id = a->id;
		return;
	}
	p = proc_new(sup, a->worker, a->id);
	if (p == NULL)
		return;
	p->settings = wk->settings;
	p->program = program_number(wk->settings->name);
	p->held = a->held;
	if (w.storm) {
		p->stubborn = chance(10);
		p->mute = chance(10);
	}
	e = tell_sup(p, MS / 10, EVENT_SPAWNED);
	e->pid = 1000 + (int)(p - w.procs);
	if (!a->held) {
		tell_sup(p, MS, EVENT_EXECED);
		if (p->settings->ready == READY_NOTIFY)
			step(p, between(20, 300) * MS, STEP_READY);
	}
}

static void do_signal(struct proc *p, const struct action *a)
{
	if (!p->tree_alive)
		return;
	if (a->signal == 9) {
		proc_kill(p);
	} else if (a->signal == p->settings->stopsignal && !p->stubborn) {
		step(p, between(1, 300) * MS, STEP_EXIT);
	} else if (a->signal == p->settings->demote_signal &&
		   p->settings->promote == PROMOTE_SIGNAL && !p->mute) {
		step(p, between(1, 300) * MS, STEP_EXIT);
	}
}

static void do_told(struct proc *p, const struct action *a)
{
	if (p->mute || p->settings->promote != PROMOTE_NOTIFY)
		return;
	if (a->kind == ACTION_TELL_PROMOTE)
		step(p, between(1, 50) * MS, STEP_PROMOTED);
	else
		step(p, between(1, 300) * MS, STEP_DEMOTED);
}

static void do_proc(int sup, const struct action *a)
{
	struct sup *s = &w.sups[sup];
	struct proc *p = proc_of(sup, a->worker, s->core.workers[a->worker].id);

	if (p == NULL)
		return;
	switch (a->kind) {
	case ACTION_RELEASE_CHILD:
		p->held = false;
		tell_sup(p, MS, EVENT_EXECED);
		if (p->settings->ready == READY_NOTIFY)
			step(p, between(20, 300) * MS, STEP_READY);
		break;
	case ACTION_SIGNAL:
		do_signal(p, a);
		break;
	case ACTION_KILL_TREE:
		proc_kill(p);
		break;
	case ACTION_COLLECT:
		p->excused = p->excused || p->unkillable_until > w.now;
		step(p,
			p->unkillable_until > w.now ? p->unkillable_until - w.now
						    : between(1, 50) * MS / 10,
			STEP_TREE_GONE);
		break;
	case ACTION_ARM:
		s->armed_proc[p->program] = (int)(p - w.procs);
		later(s->deadman_paused_until > w.now ? s->deadman_paused_until - w.now : MS / 5,
			ITEM_ARM, sup, p->program, a->term, 0);
		break;
	case ACTION_PAGE_SHOW:
		page_show(p, a);
		watch_page(sup, p);
		break;
	case ACTION_PAGE_EXTEND:
		if (!page_extend(p, a))
			tell_sup(p, 0, EVENT_LEASE_TAKEN);
		break;
	case ACTION_PAGE_CLEAR:
		p->page.deadline_ns = 0;
		break;
	default:
		do_told(p, a);
		break;
	}
}

static void do_exit(int sup)
{
	struct sup *s = &w.sups[sup];
	bool clean = true;

	w.exits++;
	for (int i = 0; i < PROCS; i++)
		clean = clean &&
			!(w.procs[i].used && w.procs[i].sup == sup && w.procs[i].tree_alive);
	TRACE("%s EXIT%s", s->name, clean ? "" : ", with processes left");
	if (clean)
		s->deadman = false; /* BYE */
	sup_dies(sup, false, false);
}

static void apply(int sup, const struct action *a)
{
	struct sup *s = &w.sups[sup];

	w.actions++;
	if (w.trace && a->kind == ACTION_REPORT)
		TRACE("%s report %d p%d w%d %d->%d %s", s->name, a->about, a->program, a->worker,
			a->from, a->to, a->reason);
	switch (a->kind) {
	case ACTION_STAGE_UP: {
		struct event *e = post(sup, between(1, 50) * MS / 10, EVENT_STAGE);

		e->stage = a->stage;
		e->ok = true;
		break;
	}
	case ACTION_SPAWN:
		do_spawn(sup, a);
		break;
	case ACTION_REQUEST:
		send_request(sup, &a->request);
		break;
	case ACTION_GUARD_UNLOCK:
		byte_unlock(sup, a->number);
		break;
	case ACTION_GUARD_MARK:
		if (a->number > w.mark)
			w.mark = a->number;
		break;
	case ACTION_WAIT_GUARD:
		s->wait_epoch = a->number;
		if (a->number != 0 && !byte_locked(a->number))
			report_free(sup);
		break;
	case ACTION_DISARM:
		s->armed_term[program_number(s->core.programs[a->program].settings->name)] = 0;
		break;
	case ACTION_EXIT:
		do_exit(sup);
		break;
	case ACTION_STAGE_DOWN:
	case ACTION_HOOK:
	case ACTION_REPORT:
		break;
	default:
		do_proc(sup, a);
		break;
	}
}

/* --- mutants that live in the core's memory ------------------------------------------------ */
static void mutate_before(struct sup *s, struct event *e)
{
	struct election *x = &s->core.election;
	bool holds = x->state == ELECTION_HOLDING || x->state == ELECTION_RELEASING;
	const struct lock_view *v = e->reply != NULL ? &e->reply->view : NULL;

	switch (w.mutant) {
	case MUTANT_AFTER_COMMIT:
		if (e->kind == EVENT_REPLY && e->reply->id == x->request.id) {
			x->sent_ns = local_now(s);
			if (x->state == ELECTION_ACQUIRING)
				x->t0_ns = x->sent_ns;
		}
		break;
	case MUTANT_RESUME:
		if (holds && x->hard_ns <= local_now(s))
			x->hard_ns = local_now(s) + MS;
		break;
	case MUTANT_WALL_CLOCK:
		if (x->state == ELECTION_STANDBY && v != NULL && v->valid && v->held && !v->mine) {
			x->watching = true;
			x->view = *v;
			x->watch_since_ns = local_now(s) - (wall_us(&w.machines[s->machine]) -
								   w.database.heartbeat_wall_us) *
								   1000;
		}
		break;
	case MUTANT_ZERO_ROWS_IS_LOSS: {
		enum outcome zero_rows = e->reply != NULL && e->reply->op == REQUEST_INSPECT
						 ? OUTCOME_DONE
						 : OUTCOME_REFUSED;

		if (holds && v != NULL && v->valid && v->term != x->term &&
			e->reply->outcome == zero_rows)
			((struct keeper_answer *)e->reply)->view.mine = false;
		break;
	}
	case MUTANT_HANG_STOPS_BEAT:
		for (int i = 0; i < s->core.program_slots && holds; i++) {
			if (s->core.programs[i].used &&
				s->core.programs[i].executor.state == EXECUTOR_DRAINING)
				x->renew_ns = local_now(s) + SEC;
		}
		break;
	default:
		break;
	}
}

static void mutate_after(struct sup *s)
{
	struct election *x = &s->core.election;

	if (w.mutant != MUTANT_NO_MARGIN || x->t0_ns == 0 ||
		(x->state != ELECTION_HOLDING && x->state != ELECTION_RELEASING))
		return;
	x->hard_ns = x->soft_ns = x->t0_ns + x->ttl_ns;
	for (size_t i = 0; i < w.plan.count; i++) {
		if (w.plan.items[i].kind == ACTION_PAGE_SHOW ||
			w.plan.items[i].kind == ACTION_PAGE_EXTEND)
			w.plan.items[i].deadline_ns = w.plan.items[i].soft_ns = x->hard_ns;
	}
}

/* --- events in ----------------------------------------------------------------------------- */
static void set_timer(int sup)
{
	struct sup *s = &w.sups[sup];
	int64_t due = core_next_deadline(&s->core), at;

	if (due == s->due_ns)
		return;
	s->due_ns = due;
	s->timer_generation++;
	if (due == 0)
		return;
	at = global_of(&w.machines[s->machine], due);
	later(at > w.now ? at - w.now : 0, ITEM_TIMER, sup, 0, s->timer_generation, 0);
}

static bool leads(const struct sup *s)
{
	return s->core.election.state == ELECTION_HOLDING ||
	       s->core.election.state == ELECTION_RELEASING;
}

/* Every state that waits has a deadline. */
static void check_deadlines(const struct core *c)
{
	const struct election *e = &c->election;

	for (int i = 0; i < c->worker_slots; i++) {
		const struct worker *wk = &c->workers[i];
		bool waits = wk->state == WORKER_STARTING || wk->state == WORKER_BACKOFF ||
			     (wk->state == WORKER_STOPPING && !wk->draining);

		if (wk->used && waits && wk->deadline_ns == 0)
			violate("a worker is %s without a deadline", worker_state_name(wk->state));
	}
	for (int i = 0; i < c->program_slots; i++) {
		const struct executor *x = &c->programs[i].executor;

		if (c->programs[i].used && x->exists && x->deadline_ns == 0 && x->arm_by_ns == 0 &&
			(x->state == EXECUTOR_PROMOTING || x->state == EXECUTOR_DRAINING))
			violate("an executor is %s without a deadline",
				executor_state_name(x->state));
	}
	if (c->lifecycle.state == LIFECYCLE_STOPPING && c->lifecycle.deadline_ns == 0)
		violate("it stops without a deadline");
	if (e->state != ELECTION_OFF && e->state != ELECTION_LOST && core_next_deadline(c) == 0)
		violate("the election is %s without a deadline", election_state_name(e->state));
}

static void check_after(struct sup *s, bool led, int64_t epoch, int64_t hard_ns)
{
	struct core *c = &s->core;

	if (c->impossible != 0)
		violate("impossible event");
	check_deadlines(c);
	for (size_t i = 0; i < w.plan.count; i++) {
		const struct action *a = &w.plan.items[i];

		if (a->kind != ACTION_PAGE_SHOW && a->kind != ACTION_PAGE_EXTEND)
			continue;
		if (led && c->election.epoch == epoch && local_now(s) >= hard_ns)
			violate("I5: %s leads again in epoch %lld", s->name, (long long)epoch);
	}
	if (w.calm && led && c->election.state == ELECTION_LOST)
		violate("the lock was lost although only workers misbehaved: %s",
			c->election.reason);
}

static void handle_event(int sup, struct event *e)
{
	struct sup *s = &w.sups[sup];
	bool led = leads(s);
	int64_t epoch = s->core.election.epoch, hard_ns = s->core.election.hard_ns;

	w.events++;
	TRACE("%s event %s worker %d term %llu", s->name, event_name(e->kind), e->worker,
		(unsigned long long)e->term);
	make_room(s, e);
	w.plan.count = 0;
	mutate_before(s, e);
	core_handle(&s->core, e, local_now(s), &w.plan);
	mutate_after(s);
	check_after(s, led, epoch, hard_ns);
	for (size_t i = 0; i < w.plan.count && s->alive; i++)
		apply(sup, &w.plan.items[i]);
	if (!s->alive)
		return;
	if (s->core.lifecycle.state == LIFECYCLE_STOPPING && s->stop_by == 0)
		s->stop_by = local_now(s) + s->core.config->shutdown_timeout_ns + 11 * SEC;
	if (s->stop_by != 0 && local_now(s) > s->stop_by + SEC && s->spins == 0)
		violate("%s does not end", s->name);
	set_timer(sup);
}

static void timer_fires(int sup)
{
	struct sup *s = &w.sups[sup];
	struct event e = {.kind = EVENT_TIMER,
		.worker = -1,
		.program = -1,
		.late_ns = local_now(s) - s->due_ns};

	if (w.now == s->spin_at && ++s->spins > 20)
		violate("%s spins", s->name);
	if (w.now != s->spin_at)
		s->spins = 0;
	s->spin_at = w.now;
	s->due_ns = 0;
	handle_event(sup, &e);
}

static void sup_start(int place)
{
	static const struct event boot = {.kind = EVENT_BOOT, .worker = -1, .program = -1};
	struct event e = boot;
	struct sup *s = NULL;
	int sup;

	if (w.places[place] >= 0)
		return;
	for (sup = 0; sup < SUPS; sup++) {
		bool busy = w.sups[sup].alive || w.sups[sup].deadman;

		for (int i = 0; i < PROCS && !busy; i++)
			busy = w.procs[i].used && w.procs[i].sup == sup;
		if (!w.sups[sup].used || !busy)
			break;
	}
	if (sup == SUPS) {
		violate("the simulation has too few supervisors");
		return;
	}
	s = &w.sups[sup];
	free(s->core.workers);
	free(s->core.programs);
	memset(s, 0, sizeof *s);
	s->used = s->alive = s->deadman = true;
	s->life = ++w.life;
	s->place = place;
	s->machine = place % MACHINES;
	s->pid1 = w.place_pid1[place];
	snprintf(s->name, sizeof s->name, "i%d-%llu", place, (unsigned long long)s->life);
	w.places[place] = sup;
	core_init(&s->core, &w.configs[0], rnd());
	handle_event(sup, &e);
}

#endif

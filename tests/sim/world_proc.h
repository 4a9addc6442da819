/* Workers and deadmen: who runs, who is told, who is killed; the invariants of the pages. */
#ifndef BATON_TESTS_SIM_WORLD_PROC_H
#define BATON_TESTS_SIM_WORLD_PROC_H

#include "tests/sim/world_db.h"

static void step(struct proc *p, int64_t delay, enum proc_step what)
{
	heap_put((struct item){.at = w.now + delay,
		.seq = ++w.seq,
		.kind = ITEM_PROC,
		.sup = -1,
		.a = (int)(p - w.procs),
		.b = p->serial,
		.data = (int)what});
}

static struct proc *proc_of(int sup, int slot, uint64_t id)
{
	for (int i = 0; i < PROCS; i++) {
		struct proc *p = &w.procs[i];

		if (p->used && p->sup == sup && p->slot == slot && p->id == id)
			return p;
	}
	return NULL;
}

static struct proc *proc_new(int sup, int slot, uint64_t id)
{
	for (int i = 0; i < PROCS; i++) {
		struct proc *p = &w.procs[i];

		if (p->used)
			continue;
		memset(p, 0, sizeof *p);
		p->used = p->main_alive = p->tree_alive = true;
		p->serial = ++w.serial;
		p->sup = sup;
		p->slot = slot;
		p->id = id;
		return p;
	}
	violate("the simulation has too few processes");
	return NULL;
}

static struct event *tell_sup(const struct proc *p, int64_t delay, enum event_kind kind)
{
	struct event *e = post(p->sup, delay, kind);

	e->worker = p->slot;
	e->id = p->id;
	return e;
}

static bool sup_lives(const struct proc *p)
{
	return w.sups[p->sup].alive;
}

static void proc_kill(struct proc *p)
{
	int64_t delay = between(1, 50) * MS / 10;

	if (p->killing || !p->tree_alive)
		return;
	p->killing = true;
	if (p->unkillable_until > w.now + delay) {
		delay = p->unkillable_until - w.now;
		p->excused = true;
	}
	step(p, delay, STEP_KILLED);
}

static void proc_tree_gone(struct proc *p)
{
	if (!p->tree_alive)
		return;
	p->main_alive = p->tree_alive = p->acting = false;
	p->page.deadline_ns = 0;
	if (!sup_lives(p))
		p->used = false;
}

static void main_dies(struct proc *p, int signal)
{
	if (!p->main_alive)
		return;
	p->main_alive = false;
	if (sup_lives(p)) {
		struct event *e = tell_sup(p, between(0, 10) * MS / 10, EVENT_DIED);

		e->signal = signal;
		e->code = signal ? -1 : 0;
	}
}

static void proc_step(struct proc *p, enum proc_step what)
{
	if (p->paused_until > w.now && what != STEP_KILLED && what != STEP_TREE_GONE) {
		step(p, p->paused_until - w.now, what);
		return;
	}
	switch (what) {
	case STEP_READY:
		if (p->main_alive && sup_lives(p))
			tell_sup(p, MS / 10, EVENT_READY);
		break;
	case STEP_EXIT:
		main_dies(p, 0);
		break;
	case STEP_KILLED:
		main_dies(p, 9);
		proc_tree_gone(p);
		break;
	case STEP_TREE_GONE:
		proc_tree_gone(p);
		if (sup_lives(p))
			tell_sup(p, MS / 10, EVENT_GONE);
		p->used = sup_lives(p);
		break;
	case STEP_PROMOTED:
		if (p->main_alive && sup_lives(p) && p->page.deadline_ns != 0)
			tell_sup(p, MS / 10, EVENT_SAID_PROMOTED)->term = p->page.term;
		break;
	case STEP_DEMOTED:
		if (p->main_alive && sup_lives(p)) {
			p->acting = false;
			tell_sup(p, MS / 10, EVENT_SAID_BUSY)->number = 0;
			tell_sup(p, MS / 10, EVENT_SAID_DEMOTED)->term = p->page.term;
		}
		break;
	}
}

/* --- pages --------------------------------------------------------------------------------- */
static bool lease_valid(const struct proc *p)
{
	return p->used && p->tree_alive && p->page.deadline_ns != 0 &&
	       local_now(&w.sups[p->sup]) < p->page.deadline_ns;
}

static bool program_has_lease(int program)
{
	for (int i = 0; i < PROCS; i++) {
		if (w.procs[i].program == program && lease_valid(&w.procs[i]) &&
			w.procs[i].main_alive)
			return true;
	}
	return false;
}

/* I1: at this instant a page became valid, or longer valid; also where a process cannot read it,
 * unless nobody could have ended it in time. */
static void check_alone(const struct proc *p)
{
	for (int i = 0; i < PROCS; i++) {
		const struct proc *o = &w.procs[i];

		if (!o->used || o == p || o->program != p->program)
			continue;
		if (lease_valid(o))
			violate("I1: two leases of %s: term %llu of %s beside term %llu of %s",
				program_names[p->program], (unsigned long long)o->page.term,
				w.sups[o->sup].name, (unsigned long long)p->page.term,
				w.sups[p->sup].name);
		else if (o->acting && o->tree_alive && !o->excused)
			violate("I1: executor of %s still runs: term %llu of %s beside term %llu "
				"of %s",
				program_names[p->program], (unsigned long long)o->page.term,
				w.sups[o->sup].name, (unsigned long long)p->page.term,
				w.sups[p->sup].name);
	}
}

static void page_show(struct proc *p, const struct action *a)
{
	struct sup *s = &w.sups[p->sup];

	TRACE("%s SHOW %s:%d term %llu", s->name, program_names[p->program], p->slot,
		(unsigned long long)a->term);
	if (a->term <= w.shown_term[p->program])
		violate("I2: term %llu of %s after term %llu", (unsigned long long)a->term,
			program_names[p->program], (unsigned long long)w.shown_term[p->program]);
	for (int i = 0; i < PROGRAMS; i++) {
		if (w.shown_term[i] == a->term)
			violate("I2: term %llu given twice", (unsigned long long)a->term);
	}
	if (s->answered_term[p->program] != a->term)
		violate("a page is shown whose deadman is not armed");
	w.shown_term[p->program] = a->term;
	p->page.term = a->term;
	p->page.soft_ns = a->soft_ns;
	p->page.deadline_ns = a->deadline_ns;
	p->acting = true;
	p->excused = false;
	w.shows++;
	check_alone(p);
}

static bool page_extend(struct proc *p, const struct action *a)
{
	if (p->page.deadline_ns == 0)
		return false;
	p->page.soft_ns = a->soft_ns;
	p->page.deadline_ns = a->deadline_ns;
	check_alone(p);
	return true;
}

/* --- the deadman --------------------------------------------------------------------------- */
/* One wake-up at a time: the earliest deadline it has read. */
static void watch_page(int sup, const struct proc *p)
{
	struct sup *s = &w.sups[sup];
	int64_t at = global_of(&w.machines[s->machine], p->page.deadline_ns);

	if (s->pages_at > w.now && s->pages_at <= at)
		return;
	s->pages_at = at > w.now ? at : w.now + 1;
	later(s->pages_at - w.now, ITEM_PAGES, sup, 0, 0, 0);
}

/* Executors whose killers are both stopped or gone: only the term can help. */
static void excuse(int sup)
{
	for (int i = 0; i < PROCS; i++) {
		if (w.procs[i].used && w.procs[i].sup == sup && w.procs[i].acting)
			w.procs[i].excused = true;
	}
}

/* At the earliest deadline: the deadman takes back what it is armed for. */
static void deadman_looks(int sup)
{
	struct sup *s = &w.sups[sup];
	bool paused = s->deadman && s->deadman_paused_until > w.now, waits = false;

	if (s->pages_at > w.now)
		return; /* another wake-up is earlier */
	for (int i = 0; i < PROCS; i++) {
		struct proc *p = &w.procs[i];
		bool armed = s->deadman && s->armed_term[p->program] == p->page.term;

		if (!p->used || p->sup != sup || p->page.deadline_ns == 0)
			continue;
		if (p->page.deadline_ns > local_now(s)) {
			watch_page(sup, p);
		} else if (armed && !paused) {
			TRACE("%s deadman kills %s", s->name, program_names[p->program]);
			p->page.deadline_ns = 0;
			proc_kill(p);
		} else if (!s->alive || s->paused_until > w.now) {
			p->excused = true; /* nobody can: only the term can help */
			waits = waits || armed;
		}
	}
	if (waits && paused && s->pages_at <= w.now) {
		s->pages_at = s->deadman_paused_until;
		later(s->pages_at - w.now, ITEM_PAGES, sup, 0, 0, 0);
	}
}

static void deadman_answers(int sup, int program, uint64_t term)
{
	struct sup *s = &w.sups[sup];
	struct event *e;

	if (!s->deadman)
		return;
	s->armed_term[program] = s->answered_term[program] = term;
	if (w.procs[s->armed_proc[program]].page.deadline_ns != 0)
		watch_page(sup, &w.procs[s->armed_proc[program]]);
	if (!s->alive)
		return;
	e = post(sup, MS / 10, EVENT_DEADMAN_ARMED);
	e->program = core_find_program(&s->core, program_names[program]);
	e->term = term;
}

/* Its supervisor is dead: pages first, then everything, then the mark, then the byte. */
static void deadman_avenges(int sup)
{
	struct sup *s = &w.sups[sup];
	bool any = false;

	for (int i = 0; i < PROCS; i++) {
		struct proc *p = &w.procs[i];

		if (!p->used || p->sup != sup)
			continue;
		p->page.deadline_ns = 0;
		if (p->tree_alive) {
			any = true;
			proc_kill(p);
		} else {
			p->used = false;
		}
	}
	if (any) {
		later(between(2, 10) * MS, ITEM_AVENGE, sup, 0, 0, 0);
		return;
	}
	if (s->table_epoch > w.mark)
		w.mark = s->table_epoch;
	TRACE("%s deadman is done, mark %ld", s->name, (long)w.mark);
	s->deadman = false;
	wake_waiters();
}

/* A whole PID namespace, or machine: what sleeps in the kernel never runs its program again. */
static void kernel_kills(struct proc *p)
{
	if (p->killing || p->unkillable_until > w.now) {
		p->page.deadline_ns = 0;
		p->acting = false;
	}
	proc_kill(p);
}

/* SIGKILL to a supervisor. TOGETHER: its deadman at the same time. */
static void sup_dies(int sup, bool together, bool kernel_kills_all)
{
	struct sup *s = &w.sups[sup];

	if (!s->alive)
		return;
	TRACE("%s dies%s%s", s->name, together ? " with its deadman" : "",
		kernel_kills_all ? ", all of it" : "");
	s->alive = false;
	w.places[s->place] = -1;
	later(between(1, 40) * 100 * MS, ITEM_START, -1, s->place, 0, 0);
	if (together || kernel_kills_all || !s->deadman) {
		if (!kernel_kills_all)
			excuse(sup);
		s->deadman = false;
	}
	for (int i = 0; i < PROCS; i++) {
		struct proc *p = &w.procs[i];

		if (!p->used || p->sup != sup)
			continue;
		if (!p->tree_alive)
			p->used = false;
		else if (kernel_kills_all)
			kernel_kills(p);
		else if (p->main_alive &&
			 p->settings->executor != EXECUTOR_NO) /* PR_SET_PDEATHSIG */
			step(p, between(0, 50) * MS / 10, chance(60) ? STEP_KILLED : STEP_EXIT);
		/* What is left of a tree without a deadman lives on, its page valid to its end. */
		if (p->used && !s->deadman && !kernel_kills_all)
			step(p, between(20, 40) * SEC, STEP_KILLED);
	}
	if (s->deadman)
		later(between(5, 30) * MS / 10, ITEM_AVENGE, sup, 0, 0, 0);
	wake_waiters();
}

static void deadman_dies(int sup)
{
	struct sup *s = &w.sups[sup];

	if (!s->deadman)
		return;
	TRACE("%s deadman dies", s->name);
	s->deadman = false;
	memset(s->armed_term, 0, sizeof s->armed_term);
	if (!s->alive) {
		excuse(sup);
		for (int i = 0; i < PROCS; i++) {
			if (w.procs[i].used && w.procs[i].sup == sup)
				step(&w.procs[i], between(20, 40) * SEC, STEP_KILLED);
		}
		wake_waiters();
		return;
	}
	post(sup, MS, EVENT_DEADMAN_LOST);
	later(between(5, 100) * MS, ITEM_DEADMAN_UP, sup, 0, 0, 0);
}

#endif

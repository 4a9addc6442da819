/*
 * The job machine in a world of three instances: an hour of handoffs, kills, pauses, clock steps
 * both ways, a ledger that is slow, unavailable, or does what it was asked and does not say so. It
 * is a process of its own: what it was sent it carries out, also after a lock of the database that
 * outlasts the lease, and while the worker that sent it is stopped or demoted.
 * At every step: no command starts twice, none without lease, none of an attempt that the ledger
 * does not have. In the end: every firing since the beginning is in the ledger, none is left open,
 * none is missed that an executor in good health could have run, retries and reruns are what the
 * policies say.
 *
 * SIM_SECONDS: simulated seconds of each world (default 3600); SIM_SEED: the first world's seed;
 * SIM_WORLDS: how many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/jobs/machine.h"

#define MS         INT64_C(1000000)
#define SECOND     INT64_C(1000000000)
#define STEP_NS    (10 * MS)
#define SETTLED_US (40 * INT64_C(1000000)) /* what is younger may be in work still */
#define WALL_0     INT64_C(1800000000000000)

enum { INSTANCES = 3, JOBS = 8, ASKED = 20000, RUNNING = 512, MAX_RUNNING = 6, OWNERS = 65536 };

enum mutant {
	MUTANT_NONE,
	MUTANT_FORGETFUL,     /* a new executor does not go by the ledger's last firing */
	MUTANT_TAKEN_IS_OURS, /* a claim that was refused is run all the same */
	MUTANT_NO_ADOPTION,   /* what was queued under an earlier executor is left there */
	MUTANT_NO_LEASE,      /* started without a look at the lease */
	MUTANT_UNKNOWN_IS_NO, /* a claim without an answer is given up */
	MUTANT_UNORDERED,     /* later claims are made while an earlier one is unsure */
	MUTANT_GIVES_UP_END,  /* an end that could not be recorded is not recorded again */
	MUTANT_GIVES_UP_ROWS, /* demoted, it is nobody's what the ledger was asked for */
};

static const struct {
	const char *name;
	int period; /* seconds */
	struct jobs_policy policy;
} kinds[JOBS] = {
	{"second-skip", 1, {.overlap = OVERLAP_SKIP, .missed = MISSED_SKIP}},
	{"second-allow", 1,
		{.overlap = OVERLAP_ALLOW, .missed = MISSED_ONCE, .jitter_ns = 3 * SECOND}},
	{"three-queue", 3, {.overlap = OVERLAP_QUEUE, .missed = MISSED_ALL}},
	{"five-replace", 5, {.overlap = OVERLAP_REPLACE, .missed = MISSED_ONCE}},
	{"seven-retry", 7,
		{.overlap = OVERLAP_ALLOW,
			.missed = MISSED_ALL,
			.retries = 2,
			.interrupted = INTERRUPTED_RERUN}},
	{"ten-timeout", 10,
		{.overlap = OVERLAP_SKIP,
			.missed = MISSED_ONCE,
			.timeout_ns = SECOND,
			.on_failure = true}},
	{"minute-jitter", 60,
		{.overlap = OVERLAP_SKIP, .missed = MISSED_ALL, .jitter_ns = 20 * SECOND}},
	{"promotion", 0, {.overlap = OVERLAP_ALLOW, .at_promotion = true}},
};

/* --- the world ----------------------------------------------------------------------------- */
struct row {
	int job, attempt;
	int64_t fire_us, claimed_us, term, owner;
	enum ledger_status status;
	enum ledger_cause cause;
	int starts;
	int next; /* in its chain */
};

enum asked_kind { ASK_CLAIM, ASK_UPDATE, ASK_LOOK };

struct asked {
	enum asked_kind kind;
	struct jobs_ref run;
	enum ledger_status status;
	int64_t term;
	/* as it was sent */
	int job, attempt;
	int64_t fire_us, owner, by_term, new_owner;
	enum ledger_cause cause;
	/* what came of it */
	bool unknown, done;
	enum ledger_answer got;
	enum ledger_status found;
};

struct command {
	bool used, ignores;
	struct jobs_ref run;
	int64_t ends_ns;
	int code, signal;
};

struct instance {
	bool alive, frozen;
	int64_t frozen_until_ns, born_ns;
	struct jobs_machine m;
	int64_t owner;
	struct asked asked[ASKED], sent[ASKED];
	int asked_count, sent_count;
	bool carried_out, claims_unknown; /* what was sent */
	int64_t ledger_ns;                /* ... and is carried out then */
	struct command commands[RUNNING];
	int64_t promoted_term; /* as the supervisor sees it; 0 = not */
	int64_t soft_ns, hard_ns;
	int64_t unrenewed_until_ns;
	bool demoting;
	int64_t demote_by_ns;
};

#define CHAINS 65536
static struct {
	struct instance at[INSTANCES];
	int leader; /* -1 = none */
	int64_t term, executor_term, owners, boot_ns, wall_us, most_wall_us;
	int64_t last_us[JOBS], known_us[JOBS];
	struct row *rows;
	int row_count, row_capacity;
	int chains[CHAINS];
	int64_t out_until_ns;    /* the ledger is unavailable */
	int64_t locked_until_ns; /* the database is: nothing is renewed, what was sent waits */
	bool *dead;              /* owners whose process died */
	int64_t next_promotion_ns;
	enum mutant mutant;
	uint64_t seed, random;
	bool violated;
	char why[256];
	int64_t calm_from_us; /* since then one executor leads undisturbed, the clock is even */
	unsigned starts, handoffs, kills, steps, missed, skipped;
} w;

static int between(int low, int high)
{
	w.random ^= w.random >> 12;
	w.random ^= w.random << 25;
	w.random ^= w.random >> 27;
	return low +
	       (int)((w.random * UINT64_C(2685821657736338717) >> 33) % (uint64_t)(high - low + 1));
}

static bool chance(int in) /* once in so many steps */
{
	return between(1, in) == 1;
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
}

static int64_t next_fire(const void *schedule, int64_t after_us)
{
	int64_t period = (int64_t)(*(const int *)schedule) * 1000000;

	return period == 0 ? JOBS_NEVER : (after_us / period + 1) * period;
}

static struct jobs_now now_of(const struct instance *i)
{
	bool holds = i->promoted_term != 0 && w.boot_ns < i->hard_ns;

	return (struct jobs_now){.wall_us = w.wall_us,
		.boot_ns = w.boot_ns,
		.soft_ns = w.mutant == MUTANT_NO_LEASE ? INT64_MAX
			   : holds                     ? i->soft_ns
						       : 0};
}

/* --- the ledger ---------------------------------------------------------------------------- */
static unsigned chain_of(int job, int64_t fire_us, int attempt)
{
	uint64_t x = (uint64_t)fire_us / 1000 * 31 + (uint64_t)job * 7919 + (uint64_t)attempt;

	return (unsigned)((x * UINT64_C(0x9e3779b97f4a7c15)) >> 48) % CHAINS;
}

static struct row *find_row(int job, int64_t fire_us, int attempt)
{
	for (int i = w.chains[chain_of(job, fire_us, attempt)]; i >= 0; i = w.rows[i].next) {
		struct row *r = &w.rows[i];

		if (r->job == job && r->fire_us == fire_us && r->attempt == attempt)
			return r;
	}
	return NULL;
}

static int kind_of(const struct instance *i, const struct jobs_run *run)
{
	for (int k = 0; k < JOBS; k++) {
		if (strcmp(kinds[k].name, i->m.jobs[run->job].name) == 0)
			return k;
	}
	abort();
}

static enum ledger_answer claim(const struct asked *a)
{
	int job = a->job;
	struct row *r = find_row(job, a->fire_us, a->attempt);
	unsigned chain = chain_of(job, a->fire_us, a->attempt);

	if (a->term != w.executor_term)
		return LEDGER_CLAIM_REFUSED;
	if (r != NULL)
		return r->owner == a->owner && r->term == a->term ? LEDGER_CLAIM_MINE
								  : LEDGER_CLAIM_TAKEN;
	if (w.row_count == w.row_capacity) {
		w.row_capacity = w.row_capacity > 0 ? 2 * w.row_capacity : 65536;
		w.rows = realloc(w.rows, (size_t)w.row_capacity * sizeof *w.rows);
	}
	w.rows[w.row_count] = (struct row){.job = job,
		.attempt = a->attempt,
		.fire_us = a->fire_us,
		.claimed_us = w.wall_us,
		.term = a->term,
		.owner = a->owner,
		.status = a->status,
		.cause = a->cause,
		.next = w.chains[chain]};
	w.chains[chain] = w.row_count++;
	if ((a->cause == LEDGER_BY_SCHEDULE || a->cause == LEDGER_BY_CATCH_UP) &&
		a->fire_us > w.last_us[job])
		w.last_us[job] = a->fire_us;
	if (a->status == LEDGER_MISSED) {
		w.missed++;
		/* In good health since before it was due, and all the time until now. */
		if (w.calm_from_us != 0 && w.calm_from_us < a->fire_us)
			violate("%s at %lld missed under an undisturbed executor", kinds[job].name,
				(long long)a->fire_us);
	}
	w.skipped += a->status == LEDGER_SKIPPED;
	return LEDGER_CLAIM_DONE;
}

static bool update(const struct asked *a)
{
	struct row *r = find_row(a->job, a->fire_us, a->attempt);

	if (r == NULL || (r->owner != a->owner && r->owner != a->new_owner) ||
		(a->by_term != 0 && a->by_term != w.executor_term))
		return false;
	if (!ledger_status_is_open(r->status))
		return r->status == a->status;
	if (a->status == LEDGER_INTERRUPTED && !w.dead[r->owner])
		violate("%s at %lld attempt %d is called interrupted (%d starts), its worker lives",
			kinds[r->job].name, (long long)r->fire_us, r->attempt, r->starts);
	r->status = a->status;
	if (a->new_owner != 0)
		r->owner = a->new_owner;
	return true;
}

static int64_t new_owner(void)
{
	if (++w.owners == OWNERS)
		violate("more than %d owners", OWNERS);
	return w.owners % OWNERS;
}

static bool lives(int64_t owner)
{
	for (int k = 0; k < INSTANCES; k++) {
		if (w.at[k].alive && w.at[k].owner == owner)
			return true;
	}
	return false;
}

static void look(struct instance *i)
{
	static struct ledger_run runs[20000];
	static bool alive[20000];
	struct ledger_job jobs[JOBS] = {0};
	struct jobs_look l = {.runs = runs, .alive = alive, .jobs = jobs, .owner = i->owner};
	struct jobs_now now = now_of(i);

	for (int k = 0; k < w.row_count && l.run_count < 20000; k++) {
		const struct row *r = &w.rows[k];
		struct ledger_run *to = &runs[l.run_count];

		if (!ledger_status_is_open(r->status) || w.mutant == MUTANT_NO_ADOPTION)
			continue;
		memset(to, 0, sizeof *to);
		snprintf(to->key.job, sizeof to->key.job, "%s", kinds[r->job].name);
		to->key.fire_time_us = r->fire_us;
		to->key.attempt = r->attempt;
		to->owner = r->owner;
		to->term = r->term;
		to->status = r->status;
		to->cause = r->cause;
		to->claimed_us = r->claimed_us;
		alive[l.run_count++] = lives(r->owner);
	}
	for (int k = 0; k < JOBS; k++) {
		if (w.known_us[k] == 0)
			continue;
		snprintf(jobs[l.job_count].job, sizeof jobs[0].job, "%s", kinds[k].name);
		jobs[l.job_count].known_since_us = w.mutant == MUTANT_FORGETFUL ? 0 : w.known_us[k];
		/* Now and then an older one than there is: the rows themselves decide. */
		jobs[l.job_count++].last_fire_us = w.mutant == MUTANT_FORGETFUL || w.last_us[k] == 0
							   ? 0
						   : chance(5) ? w.last_us[k] - 3 * 1000000
							       : w.last_us[k];
	}
	machine_looked(&i->m, &l, &now);
}

/* What became of it, told to the worker. */
static void answer(struct instance *i, const struct asked *a)
{
	struct jobs_now now = now_of(i);

	if (a->kind == ASK_LOOK && a->unknown)
		machine_look_failed(&i->m, &now);
	else if (a->kind == ASK_LOOK)
		look(i);
	else if (a->unknown && a->kind == ASK_CLAIM && w.mutant == MUTANT_UNKNOWN_IS_NO)
		machine_claimed(&i->m, a->run, LEDGER_CLAIM_REFUSED, 0, &now);
	else if (a->unknown && a->kind == ASK_UPDATE && w.mutant == MUTANT_GIVES_UP_END)
		machine_recorded(&i->m, a->run, false, &now);
	else if (a->unknown)
		machine_unknown(&i->m, a->run, &now);
	else if (a->kind == ASK_UPDATE)
		machine_recorded(&i->m, a->run, !a->done, &now);
	else if (w.mutant == MUTANT_TAKEN_IS_OURS && a->got == LEDGER_CLAIM_TAKEN)
		machine_claimed(&i->m, a->run, LEDGER_CLAIM_DONE, a->status, &now);
	else
		machine_claimed(&i->m, a->run, a->got, a->found, &now);
}

/* --- commands ------------------------------------------------------------------------------ */
static void start_command(struct instance *i, struct jobs_ref ref, bool hook)
{
	struct jobs_run *run = machine_run_of(&i->m, ref);
	int job = kind_of(i, run);
	struct row *r = find_row(job, run->fire_us, run->attempt);
	struct command *c = i->commands;
	struct jobs_now now = now_of(i);

	while (c->used && c < i->commands + RUNNING - 1)
		c++;
	if (c->used)
		violate("more than %d commands at once", RUNNING);
	*c = (struct command){.used = true, .run = ref, .ignores = chance(20)};
	c->ends_ns = w.boot_ns + (chance(30) ? between(2000, 9000) : between(1, 300)) * MS;
	c->code = chance(6) ? 1 : 0;
	if (hook) {
		c->run.slot = -1;
		return;
	}
	w.starts++;
	if (r == NULL || r->status != LEDGER_RUNNING)
		violate("%s at %lld attempt %d starts, the ledger says %s", kinds[job].name,
			(long long)run->fire_us, run->attempt,
			r == NULL ? "nothing" : ledger_status_name(r->status));
	else if (++r->starts > 1)
		violate("%s at %lld attempt %d starts twice", kinds[job].name,
			(long long)run->fire_us, run->attempt);
	if (i->promoted_term == 0 || w.boot_ns >= i->soft_ns || w.boot_ns >= i->hard_ns)
		violate("%s starts without a lease", kinds[job].name);
	(void)now;
}

static void end_commands(struct instance *i)
{
	struct jobs_now now = now_of(i);

	for (struct command *c = i->commands; c < i->commands + RUNNING; c++) {
		struct command ended = *c;

		if (!c->used || c->ends_ns > w.boot_ns)
			continue;
		c->used = false;
		if (ended.run.slot < 0)
			machine_hook_ended(&i->m, &now);
		else
			machine_ended(&i->m, ended.run, ended.code, ended.signal, &now);
	}
}

static void stop_command(struct instance *i, const struct jobs_action *a)
{
	for (struct command *c = i->commands; c < i->commands + RUNNING; c++) {
		if (!c->used || c->run.slot != a->run.slot || c->run.serial != a->run.serial)
			continue;
		if (a->number == 15 && c->ignores)
			return;
		c->signal = (int)a->number;
		if (c->ends_ns > w.boot_ns + 50 * MS)
			c->ends_ns = w.boot_ns + between(1, 50) * MS;
	}
}

/* --- the machine's actions ----------------------------------------------------------------- */
static void emit(void *context, const struct jobs_action *a)
{
	struct instance *i = context;
	struct asked asked = {.run = a->run, .status = a->status, .term = (int64_t)i->m.term};

	switch (a->kind) {
	case JOBS_CLAIM:
	case JOBS_UPDATE:
	case JOBS_LOOK:
		asked.kind = a->kind == JOBS_CLAIM    ? ASK_CLAIM
			     : a->kind == JOBS_UPDATE ? ASK_UPDATE
						      : ASK_LOOK;
		if (i->asked_count == ASKED)
			violate("%d requests are under way", ASKED);
		else
			i->asked[i->asked_count++] = asked;
		break;
	case JOBS_START:
	case JOBS_HOOK:
		start_command(i, a->run, a->kind == JOBS_HOOK);
		break;
	case JOBS_STOP:
		stop_command(i, a);
		break;
	case JOBS_DECLARE:
		for (int k = 0; k < JOBS; k++) {
			if (w.known_us[k] == 0)
				w.known_us[k] = w.wall_us;
		}
		break;
	case JOBS_DEMOTED:
		if (!i->demoting || (int64_t)i->m.term != i->promoted_term)
			violate("demoted without being asked");
		for (struct command *c = i->commands; c < i->commands + RUNNING; c++) {
			if (c->used && c->run.slot >= 0)
				violate("demoted while a command runs");
			c->used = false; /* on_failure commands are killed */
		}
		i->promoted_term = 0;
		i->demoting = false;
		w.leader = -1;
		if (w.mutant == MUTANT_GIVES_UP_ROWS)
			i->owner = new_owner();
		break;
	case JOBS_SETTLED:
		i->owner = new_owner();
		break;
	default:
		break;
	}
}

/* --- what is with the ledger ------------------------------------------------------------------ */
/* 0 = done, and not said; 1 = not done; else done. */
static int fate(void)
{
	return w.boot_ns < w.out_until_ns ? 1 : between(0, 40);
}

/* Its content is that of the moment; of a run that is over nothing is sent. */
static bool fill(struct instance *i, struct asked *a)
{
	const struct jobs_run *run = machine_run_of(&i->m, a->run);

	if (a->kind == ASK_LOOK)
		return true;
	if (run == NULL)
		return false;
	a->job = kind_of(i, run);
	a->fire_us = run->fire_us;
	a->attempt = run->attempt;
	a->owner = run->owner != 0 ? run->owner : i->owner;
	a->by_term = run->by_term;
	a->new_owner = run->by_term != 0 && a->status == LEDGER_RUNNING ? i->owner : 0;
	a->cause = run->cause;
	return true;
}

static void send_batch(struct instance *i)
{
	int count = i->asked_count < 200 ? i->asked_count : between(100, 200);

	if (i->sent_count > 0 || i->asked_count == 0)
		return;
	for (int k = 0; k < count; k++) {
		if (fill(i, &i->asked[k]))
			i->sent[i->sent_count++] = i->asked[k];
	}
	i->asked_count -= count;
	memmove(i->asked, i->asked + count, (size_t)i->asked_count * sizeof *i->asked);
	i->carried_out = false;
	i->ledger_ns = w.boot_ns + between(0, 30) * MS;
}

/* A batch is one commit. */
static void carry_out(struct instance *i)
{
	int of_claims = fate(), of_updates = fate();

	for (int k = 0; k < i->sent_count; k++) {
		struct asked *a = &i->sent[k];
		int f = w.mutant == MUTANT_UNORDERED ? fate()
			: a->kind == ASK_CLAIM       ? of_claims
						     : of_updates;

		a->unknown = f <= 1;
		if (f == 1 || a->kind == ASK_LOOK)
			continue;
		if (a->kind == ASK_CLAIM) {
			const struct row *r;

			a->got = claim(a);
			r = find_row(a->job, a->fire_us, a->attempt);
			a->found = r != NULL ? r->status : a->status;
		} else {
			a->done = update(a);
		}
	}
	i->claims_unknown = of_claims <= 1 && w.mutant != MUTANT_UNORDERED;
	i->carried_out = true;
}

/* When it is not known what became of claims, those behind them go back as well (book.c). */
static void take_answers(struct instance *i)
{
	static struct asked batch[ASKED], back[ASKED];
	int count = i->sent_count, kept = 0, backs = 0;

	memcpy(batch, i->sent, (size_t)count * sizeof *batch);
	i->sent_count = 0;
	for (int k = 0; k < i->asked_count; k++) {
		if (i->claims_unknown && i->asked[k].kind == ASK_CLAIM)
			back[backs++] = i->asked[k];
		else
			i->asked[kept++] = i->asked[k];
	}
	i->asked_count = kept;
	for (int k = 0; k < count; k++)
		answer(i, &batch[k]);
	for (int k = 0; k < backs; k++) {
		back[k].unknown = true;
		answer(i, &back[k]);
	}
}

static void serve_ledger(struct instance *i)
{
	if (i->sent_count > 0 && !i->carried_out && w.boot_ns >= i->ledger_ns &&
		w.boot_ns >= w.locked_until_ns)
		carry_out(i);
}

/* --- instances ----------------------------------------------------------------------------- */
static void be_born(struct instance *i)
{
	struct jobs_policy policies[JOBS];
	struct jobs_now now;

	machine_release(&i->m);
	memset(i, 0, sizeof *i);
	i->alive = true;
	i->owner = new_owner();
	i->born_ns = w.boot_ns;
	machine_init(&i->m, next_fire, emit, i);
	for (int k = 0; k < JOBS; k++) {
		policies[k] = kinds[k].policy;
		policies[k].name = kinds[k].name;
		policies[k].schedule = &kinds[k].period;
		policies[k].schedule_id = (uint64_t)k;
		policies[k].enabled = true;
		policies[k].missed_limit_ns = 3600 * SECOND;
		policies[k].stop_ns = SECOND;
		policies[k].retry_backoff_ns = SECOND / 2;
		policies[k].handoff_timeout_ns = 3 * SECOND;
		if (policies[k].interrupted != INTERRUPTED_RERUN || k != 4)
			policies[k].interrupted = INTERRUPTED_FAIL;
	}
	policies[4].interrupted = INTERRUPTED_RERUN;
	now = now_of(i);
	if (machine_configure(&i->m, policies, JOBS, MAX_RUNNING, &now) < 0)
		abort();
}

static void reconfigure(struct instance *i)
{
	struct jobs_policy policies[JOBS];
	struct jobs_now now = now_of(i);

	for (int k = 0; k < JOBS; k++) /* the same again: a reload that changes nothing */
		policies[k] = i->m.jobs[machine_find(&i->m, kinds[k].name)].policy;
	for (int k = 0; k < JOBS; k++)
		policies[k].name = kinds[k].name;
	if (machine_configure(&i->m, policies, JOBS, MAX_RUNNING, &now) < 0)
		abort();
}

static void die(struct instance *i)
{
	bool led = w.leader == (int)(i - w.at);

	w.kills++;
	w.calm_from_us = 0;
	if (i->sent_count > 0 && !i->carried_out && w.boot_ns >= w.locked_until_ns && chance(2))
		carry_out(i); /* it was too late to kill the ledger process */
	w.dead[i->owner] = true;
	machine_release(&i->m);
	memset(i, 0, sizeof *i); /* its commands die with it */
	if (led)
		w.leader = -1;
}

static void disturb(struct instance *i)
{
	if (i->alive && chance(30000))
		die(i);
	else if (!i->alive && chance(300))
		be_born(i);
	if (i->alive && !i->frozen && chance(15000)) {
		i->frozen = true;
		i->frozen_until_ns = w.boot_ns + between(10, 8000) * MS;
		w.calm_from_us = 0;
	}
	if (i->frozen && w.boot_ns >= i->frozen_until_ns)
		i->frozen = false;
	if (i->alive && !i->frozen && chance(5000))
		reconfigure(i);
}

static void step_clock(void)
{
	w.steps++;
	w.calm_from_us = 0;
	if (chance(4))
		w.wall_us += (int64_t)between(-3000, 3000) * 1000000;
	else
		w.wall_us += (int64_t)between(-20000, 20000) * 1000;
	if (w.wall_us < WALL_0 + 1000000)
		w.wall_us = WALL_0 + 1000000;
}

static void demote(struct instance *i, int64_t grace, bool own_time)
{
	struct jobs_now now = now_of(i);

	w.handoffs++;
	w.calm_from_us = 0;
	i->demoting = true;
	i->demote_by_ns = w.boot_ns + grace + 500 * MS;
	w.next_promotion_ns = w.boot_ns + between(1, 3000) * MS;
	machine_demoted(&i->m, grace, own_time ? -1 : grace, &now);
}

/* What a supervisor does: one executor at most, the lease renewed while it is in control. */
static void supervise(void)
{
	struct instance *i = w.leader >= 0 ? &w.at[w.leader] : NULL;
	struct jobs_now now;

	if (i == NULL) {
		int k = between(0, INSTANCES - 1);

		i = &w.at[k];
		if (w.boot_ns < w.next_promotion_ns || w.boot_ns < w.locked_until_ns || !i->alive ||
			i->frozen || i->m.state != JOBS_IDLE)
			return;
		w.leader = k;
		w.executor_term = i->promoted_term = ++w.term;
		i->soft_ns = w.boot_ns + 8 * SECOND;
		i->hard_ns = w.boot_ns + 10 * SECOND;
		now = now_of(i);
		machine_promoted(&i->m, (uint64_t)w.term, &now);
		return;
	}
	if (w.boot_ns >= i->hard_ns || (i->demoting && w.boot_ns >= i->demote_by_ns)) {
		die(i); /* the deadman, or a supervisor whose patience is over */
		w.next_promotion_ns = w.boot_ns + between(1, 300) * MS;
		return;
	}
	if (w.boot_ns >= i->unrenewed_until_ns && chance(8000)) { /* the database, or a pause */
		i->unrenewed_until_ns = w.boot_ns + between(1, 12) * SECOND;
		w.calm_from_us = 0;
	}
	if (!i->demoting && (w.boot_ns / STEP_NS) % 200 == 0 &&
		w.boot_ns >= i->unrenewed_until_ns && w.boot_ns >= w.locked_until_ns) {
		i->soft_ns = w.boot_ns + 8 * SECOND;
		i->hard_ns = w.boot_ns + 10 * SECOND;
	}
	if (i->demoting || i->frozen || i->m.state == JOBS_IDLE)
		return;
	if (w.boot_ns < w.locked_until_ns && i->hard_ns - w.boot_ns < 4 * SECOND)
		demote(i, i->hard_ns - w.boot_ns - 700 * MS, false); /* it cannot be renewed */
	else if (chance(1500))
		demote(i, (chance(4) ? between(0, 500) : 6000) * MS, chance(2));
}

static void run_instance(struct instance *i)
{
	struct jobs_now now;

	if (!i->alive)
		return;
	serve_ledger(i);
	if (i->frozen)
		return;
	end_commands(i);
	now = now_of(i);
	if (machine_next_wall_us(&i->m) <= w.wall_us || machine_next_boot_ns(&i->m) <= w.boot_ns ||
		i->m.short_of_lease || chance(100))
		machine_tick(&i->m, &now);
	if (i->sent_count > 0 && i->carried_out)
		take_answers(i);
	send_batch(i);
	if (i->m.impossible != 0)
		violate("an impossible event");
	if (i->m.running > MAX_RUNNING)
		violate("%d commands at once", i->m.running);
}

static void step(bool quiet)
{
	w.boot_ns += STEP_NS;
	w.wall_us += STEP_NS / 1000;
	if (w.wall_us > w.most_wall_us)
		w.most_wall_us = w.wall_us;
	for (int k = 0; k < INSTANCES; k++) {
		if (!quiet)
			disturb(&w.at[k]);
		else if (!w.at[k].alive)
			be_born(&w.at[k]);
		else
			w.at[k].frozen = false;
	}
	if (!quiet && chance(40000))
		step_clock();
	if (!quiet && w.boot_ns >= w.out_until_ns && chance(20000)) {
		w.out_until_ns = w.boot_ns + between(100, 20000) * MS;
		w.calm_from_us = 0;
	}
	if (!quiet && w.boot_ns >= w.locked_until_ns && chance(20000)) {
		w.locked_until_ns = w.boot_ns + between(100, 15000) * MS;
		w.calm_from_us = 0;
	}
	supervise();
	for (int k = 0; k < INSTANCES; k++)
		run_instance(&w.at[k]);
	if (w.leader < 0 || w.at[w.leader].m.state != JOBS_LEADING || w.boot_ns < w.out_until_ns ||
		w.boot_ns < w.locked_until_ns || w.boot_ns >= w.at[w.leader].soft_ns ||
		w.at[w.leader].frozen)
		w.calm_from_us = 0;
	else if (w.calm_from_us == 0)
		w.calm_from_us = w.wall_us + 1000000;
}

/* --- the account --------------------------------------------------------------------------- */
static void check_row(const struct row *r)
{
	const struct jobs_policy *p = &kinds[r->job].policy;
	const struct row *before = r->attempt > 1 ? find_row(r->job, r->fire_us, r->attempt - 1)
						  : NULL;

	if (ledger_status_is_open(r->status) && r->fire_us < w.most_wall_us - SETTLED_US)
		violate("%s at %lld attempt %d is left %s", kinds[r->job].name,
			(long long)r->fire_us, r->attempt, ledger_status_name(r->status));
	if (r->starts == 0 && r->status == LEDGER_OK)
		violate("%s at %lld is ok and never started", kinds[r->job].name,
			(long long)r->fire_us);
	if (r->attempt == 1 || before == NULL) {
		if (r->attempt > 1)
			violate("attempt %d without the one before", r->attempt);
		return;
	}
	if (r->cause == LEDGER_BY_RERUN
			? before->status != LEDGER_INTERRUPTED && before->status != LEDGER_LOST
			: !ledger_status_is_failure(before->status))
		violate("%s at %lld: attempt %d after one that is %s", kinds[r->job].name,
			(long long)r->fire_us, r->attempt, ledger_status_name(before->status));
	if (r->cause == LEDGER_BY_RETRY && r->attempt > p->retries + 1 &&
		p->interrupted != INTERRUPTED_RERUN)
		violate("more retries than allowed");
}

static void check_account(void)
{
	for (int k = 0; k < w.row_count; k++)
		check_row(&w.rows[k]);
	for (int k = 0; k < JOBS; k++) {
		int64_t fire = w.known_us[k], end = w.most_wall_us - SETTLED_US;

		while (kinds[k].period > 0 && !w.violated &&
			(fire = next_fire(&kinds[k].period, fire)) < end) {
			const struct row *r = find_row(k, fire, 1);

			if (r == NULL)
				violate("%s at %lld is lost", kinds[k].name, (long long)fire);
			else if (kinds[k].policy.missed == MISSED_ALL && r->status == LEDGER_MISSED)
				violate("%s at %lld is missed in spite of missed = all",
					kinds[k].name, (long long)fire);
		}
	}
}

static void run_world(uint64_t seed, enum mutant mutant, int seconds)
{
	free(w.rows);
	free(w.dead);
	for (int k = 0; k < INSTANCES; k++)
		machine_release(&w.at[k].m);
	memset(&w, 0, sizeof w);
	memset(w.chains, 0xff, sizeof w.chains);
	w.dead = calloc(OWNERS, sizeof *w.dead);
	w.mutant = mutant;
	w.seed = seed;
	w.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	w.leader = -1;
	w.boot_ns = SECOND;
	w.wall_us = w.most_wall_us = WALL_0 + 500000;
	for (int64_t n = 0; n < (int64_t)seconds * 100 && !w.violated; n++)
		step(false);
	if (w.wall_us < w.most_wall_us) /* the clock was behind in the end */
		w.wall_us = w.most_wall_us;
	w.calm_from_us = 0;
	w.out_until_ns = w.locked_until_ns = 0;
	for (int n = 0; n < 30000 && !w.violated; n++)
		step(true);
	if (!w.violated)
		check_account();
}

static int number(const char *name, int standard)
{
	const char *text = getenv(name);

	return text != NULL ? atoi(text) : standard;
}

static void test_hours(void **state)
{
	int worlds = number("SIM_WORLDS", 6), seconds = number("SIM_SECONDS", 3600);
	uint64_t first = (uint64_t)number("SIM_SEED", 1);

	(void)state;
	for (int n = 0; n < worlds; n++) {
		run_world(first + (uint64_t)n, MUTANT_NONE, seconds);
		if (w.violated)
			fail_msg("seed %llu at %lld ms: %s", (unsigned long long)w.seed,
				(long long)(w.boot_ns / MS), w.why);
		printf("# seed %llu: %d rows, %u starts, %u handoffs, %u kills, %u clock steps, "
		       "%u missed, %u skipped\n",
			(unsigned long long)w.seed, w.row_count, w.starts, w.handoffs, w.kills,
			w.steps, w.missed, w.skipped);
	}
}

static void refute(enum mutant mutant, const char *name)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		run_world(seed, mutant, 1200);
		if (!w.violated)
			continue;
		printf("# mutant \"%s\" refuted in world %llu: %s\n", name,
			(unsigned long long)seed, w.why);
		return;
	}
	fail_msg("the mutant \"%s\" survived", name);
}

static void test_mutants(void **state)
{
	(void)state;
	refute(MUTANT_FORGETFUL, "goes by the clock, not by the ledger's last firing");
	refute(MUTANT_TAKEN_IS_OURS, "runs what was claimed already");
	refute(MUTANT_NO_ADOPTION, "leaves what an earlier executor had queued");
	refute(MUTANT_NO_LEASE, "starts without a look at the lease");
	refute(MUTANT_UNKNOWN_IS_NO, "gives a claim without answer up");
	refute(MUTANT_UNORDERED, "claims on while an earlier claim is unsure");
	refute(MUTANT_GIVES_UP_END, "records an end once only");
	refute(MUTANT_GIVES_UP_ROWS, "is nobody once it has said `demoted`");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hours),
		cmocka_unit_test(test_mutants),
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A core of one or two programs in memory, driven by hand: for the tests of supervisor/core. */
#ifndef BATON_TESTS_UNIT_CORE_FIXTURE_H
#define BATON_TESTS_UNIT_CORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/core/core.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/worker_fsm.h"

#define MS  CORE_MS
#define SEC CORE_SECOND

/* EVENT() has defaults that its caller may override. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif

enum { FIX_WORKERS = 16, FIX_PROGRAMS = 4, FIX_ACTIONS = 1024 };

struct fixture {
	struct core core;
	struct worker workers[FIX_WORKERS];
	struct program programs[FIX_PROGRAMS];
	struct config config;
	struct config_program settings[FIX_PROGRAMS];
	struct action actions[FIX_ACTIONS];
	struct plan plan;
	struct keeper_answer answer;
	int64_t now;
};

static struct fixture f;

static const int exit_zero[1] = {0};

__attribute__((unused)) static struct config_program fix_program(
	const char *name, int workers, enum config_executor executor, enum config_promote promote)
{
	return (struct config_program){.name = name,
		.group = name,
		.workers = workers,
		.autostart = true,
		.autorestart = AUTORESTART_UNEXPECTED,
		.startsecs_ns = 1 * SEC,
		.startretries = 3,
		.restart_backoff_ns = 100 * MS,
		.restart_backoff_max_ns = 30 * SEC,
		.exitcodes = exit_zero,
		.exitcode_count = 1,
		.stopsignal = 15,
		.stopwaitsecs_ns = 10 * SEC,
		.kill_tree = true,
		.executor = executor,
		.promote = promote,
		.promote_signal = 10,
		.demote_signal = 12,
		.promote_timeout_ns = 10 * SEC,
		.handoff_timeout_ns = 30 * SEC,
		.ready_timeout_ns = 60 * SEC,
		.ready = READY_NOTIFY};
}

/* The plan of the last event only. */
__attribute__((unused)) static void fix_event(struct event e)
{
	f.plan.count = 0;
	core_handle(&f.core, &e, f.now, &f.plan);
}

#define EVENT(...)                                                                                 \
	fix_event((struct event){                                                                  \
		.worker = -1, .program = -1, __VA_ARGS__}) /* .kind = EVENT_..., ... */

__attribute__((unused)) static struct action *fix_find(enum action_kind kind, int worker)
{
	for (size_t i = 0; i < f.plan.count; i++) {
		if (f.plan.items[i].kind == kind &&
			(worker < 0 || f.plan.items[i].worker == worker))
			return &f.plan.items[i];
	}
	return NULL;
}

__attribute__((unused)) static int fix_count(enum action_kind kind)
{
	int count = 0;

	for (size_t i = 0; i < f.plan.count; i++)
		count += f.plan.items[i].kind == kind;
	return count;
}

/* Answer the stages that the last plan asked for, and those that follow. */
__attribute__((unused)) static void fix_stages(void)
{
	int stages[STAGE_COUNT], count = 0;

	for (int done = 0;; done++) {
		for (size_t i = 0; i < f.plan.count; i++) {
			if (f.plan.items[i].kind == ACTION_STAGE_UP)
				stages[count++] = f.plan.items[i].stage;
		}
		if (done == count)
			return;
		EVENT(.kind = EVENT_STAGE, .stage = stages[done], .ok = true);
	}
}

__attribute__((unused)) static void fix_timer(int64_t later)
{
	f.now += later;
	EVENT(.kind = EVENT_TIMER);
}

/* PROGRAMS in f.settings; the scheduler is on when one of them is a candidate program. */
__attribute__((unused)) static void fix_start(int programs)
{
	struct fixture *x = &f;
	struct config_program kept[FIX_PROGRAMS];

	memcpy(kept, f.settings, sizeof kept);
	memset(x, 0, sizeof *x);
	memcpy(f.settings, kept, sizeof kept);
	f.now = 1000 * SEC;
	f.plan = (struct plan){.items = f.actions, .capacity = FIX_ACTIONS};
	f.config = (struct config){.refs = 1,
		.name = "test",
		.path = "",
		.shutdown_timeout_ns = 60 * SEC,
		.programs = f.settings,
		.program_count = (size_t)programs};
	f.config.scheduler = (struct config_scheduler){.ttl_ns = 60 * SEC,
		.heartbeat_ns = 10 * SEC,
		.kill_grace_ns = 2 * SEC,
		.handoff_timeout_ns = 30 * SEC,
		.fast_takeover = true,
		.promote_backoff_ns = 1 * SEC};
	for (int i = 0; i < programs; i++) {
		f.settings[i].order = i;
		f.config.scheduler.enabled = f.config.scheduler.enabled ||
					     f.settings[i].executor != EXECUTOR_NO;
	}
	core_init(&f.core, &f.config, 1);
	f.core.workers = f.workers;
	f.core.worker_slots = FIX_WORKERS;
	f.core.programs = f.programs;
	f.core.program_slots = FIX_PROGRAMS;
	EVENT(.kind = EVENT_BOOT);
	fix_stages();
	if ((f.core.lifecycle.up & STAGE_BIT(PROGRAMS)) == 0) { /* nothing was heard of the lock */
		fix_timer(1 * SEC);
		fix_stages();
	}
	assert_int_equal(f.core.lifecycle.state, LIFECYCLE_RUNNING);
}

__attribute__((unused)) static void fix_worker(enum event_kind kind, int slot)
{
	EVENT(.kind = kind, .worker = slot, .id = f.workers[slot].id, .pid = 100 + slot,
		.term = f.programs[f.workers[slot].program].executor.term);
}

/* Spawned, exec'd, ready. */
__attribute__((unused)) static void fix_ready(int slot)
{
	fix_worker(EVENT_SPAWNED, slot);
	fix_worker(EVENT_EXECED, slot);
	fix_worker(EVENT_READY, slot);
}

__attribute__((unused)) static void fix_dies(int slot, int code, int signal)
{
	EVENT(.kind = EVENT_DIED, .worker = slot, .id = f.workers[slot].id, .code = code,
		.signal = signal);
}

/* Let the time pass until the next deadline. */
__attribute__((unused)) static void fix_next(void)
{
	int64_t at = core_next_deadline(&f.core);

	assert_true(at != 0);
	f.now = at > f.now ? at : f.now;
	EVENT(.kind = EVENT_TIMER);
}

/* The row as another instance's, free, or ours. */
__attribute__((unused)) static struct lock_view fix_view(const char *holder, int64_t term)
{
	struct lock_view v = {.valid = true,
		.term = term,
		.epoch = f.core.election.epoch,
		.ttl_ns = 60 * SEC,
		.held = holder[0] != '\0',
		.mine = strcmp(holder, "me") == 0,
		.wall_us = 5000};

	strcpy(v.db_uuid, "db");
	strcpy(v.holder, holder);
	return v;
}

__attribute__((unused)) static void fix_reply(enum outcome outcome, struct lock_view view)
{
	f.answer = (struct keeper_answer){.id = f.core.election.request.id,
		.op = f.core.election.request.op,
		.outcome = outcome,
		.view = view};
	EVENT(.kind = EVENT_REPLY, .reply = &f.answer);
}

/* The next answer is that it is done; the row is ours then. */
__attribute__((unused)) static void fix_done(void)
{
	const struct core_request *r = &f.core.election.request;
	int64_t term = r->op == REQUEST_PROMOTE   ? r->new_term
		       : r->op == REQUEST_ACQUIRE ? r->epoch
						  : r->term;

	fix_reply(OUTCOME_DONE, fix_view("me", term));
}

/* From a free row to HOLDING. */
__attribute__((unused)) static void fix_hold(void)
{
	if (f.core.election.request.op == REQUEST_NONE)
		fix_next();
	assert_int_equal(f.core.election.request.op, REQUEST_INSPECT);
	fix_reply(OUTCOME_DONE, fix_view("", 7));
	assert_int_equal(f.core.election.request.op, REQUEST_ACQUIRE);
	fix_done();
	assert_int_equal(f.core.election.state, ELECTION_HOLDING);
}

/* COMMIT, then the deadman: EXECUTING. */
__attribute__((unused)) static void fix_promote(int program)
{
	assert_int_equal(f.core.election.request.op, REQUEST_PROMOTE);
	fix_done();
	EVENT(.kind = EVENT_DEADMAN_ARMED, .program = program,
		.term = f.programs[program].executor.term);
}

#endif

#include <stddef.h>

#include "supervisor/core/lifecycle_fsm.h"
#include "supervisor/core/election_fsm.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/core/worker_fsm.h"

/* Programs start without the lock database's first answer after this. */
#define GATE_NS       (1 * CORE_SECOND)
#define QUICK_STOP_NS (2 * CORE_SECOND)
#define QUICK_ALL_NS  (10 * CORE_SECOND)
#define KILL_ALL_NS   (10 * CORE_SECOND)

static const unsigned needs[STAGE_COUNT] = {
#define X(name, text, bits) [STAGE_##name] = (bits),
	CORE_STAGES(X)
#undef X
};

/* The one setter. */
static void lifecycle_enter(struct core *c, enum lifecycle_state s, const char *reason)
{
	enum lifecycle_state from = c->lifecycle.state;

	c->lifecycle.state = s;
	c->lifecycle.since_ns = c->now_ns;
	c->lifecycle.reason = reason;
	c->lifecycle.deadline_ns = 0;
	core_report(c, REPORT_LIFECYCLE, -1, -1, (int)from, (int)s, reason);
}

bool lifecycle_is_stopping(const struct core *c)
{
	return c->lifecycle.state >= LIFECYCLE_STOPPING;
}

int64_t lifecycle_stop_ns(const struct core *c, int64_t own_ns)
{
	return c->lifecycle.mode >= SHUTDOWN_QUICK && own_ns > QUICK_STOP_NS ? QUICK_STOP_NS
									     : own_ns;
}

/* A stage that this configuration does not have counts as up. */
static bool skipped(const struct core *c, int stage)
{
	return (stage == STAGE_DATABASE || stage == STAGE_ELECTION) &&
	       !c->config->scheduler.enabled;
}

static bool gated(const struct core *c, int stage)
{
	return stage == STAGE_PROGRAMS && c->config->scheduler.enabled && !c->election.decided &&
	       c->now_ns < c->lifecycle.gate_ns;
}

/* Ask for every stage whose needs are met. */
static void climb(struct core *c)
{
	struct lifecycle *l = &c->lifecycle;

	for (int s = 0; s < STAGE_COUNT; s++) {
		if (((l->asked | l->up) & (1u << s)) != 0 || (needs[s] & ~l->up) != 0 ||
			gated(c, s))
			continue;
		if (skipped(c, s)) {
			l->up |= 1u << s;
			climb(c);
			return;
		}
		l->asked |= 1u << s;
		core_push(c, ACTION_STAGE_UP)->stage = s;
	}
}

void lifecycle_boot(struct core *c)
{
	c->lifecycle.boot_ns = c->now_ns;
	lifecycle_enter(c, LIFECYCLE_BOOT, "start");
	c->lifecycle.gate_ns = c->lifecycle.deadline_ns = c->now_ns + GATE_NS;
	pool_configure(c, c->config, NULL);
	climb(c);
}

void lifecycle_stage(struct core *c, int stage, bool ok, int status)
{
	struct lifecycle *l = &c->lifecycle;

	if (stage < 0 || stage >= STAGE_COUNT || (l->asked & (1u << stage)) == 0)
		return;
	if (!ok) {
		lifecycle_shutdown(
			c, SHUTDOWN_QUICK, status != 0 ? status : 1, "a start-up stage failed");
		return;
	}
	l->up |= 1u << stage;
	if (lifecycle_is_stopping(c))
		return;
	if (stage == STAGE_DATABASE && l->state == LIFECYCLE_BOOT) {
		l->gate_ns = c->now_ns + GATE_NS;
		l->deadline_ns = l->gate_ns;
	}
	if (stage == STAGE_ELECTION)
		election_handle(c, ELECTION_EVENT_BEGIN, NULL);
	if (stage == STAGE_PROGRAMS) {
		lifecycle_enter(c, LIFECYCLE_RUNNING, "started");
		pool_touch_all(c);
	}
	climb(c);
}

/* --- stopping ------------------------------------------------------------------------------ */
static void end_rollouts(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		if (c->programs[i].used)
			rollout_handle(c, &c->programs[i], ROLLOUT_EVENT_CANCEL);
	}
}

static void rest_all(struct core *c)
{
	for (int i = 0; i < c->worker_slots; i++) {
		struct worker *w = &c->workers[i];

		if (w->used && (w->state == WORKER_BACKOFF || w->state == WORKER_STANDBY))
			worker_stop(c, w, AFTER_STOPPED, "the supervisor stops");
	}
}

static void hurry(struct core *c)
{
	for (int i = 0; i < c->program_slots; i++) {
		struct program *p = &c->programs[i];

		if (p->used && p->executor.exists && p->executor.state == EXECUTOR_DRAINING)
			executor_drain(c, p, 1, true, p->executor.reason);
	}
	for (int i = 0; i < c->worker_slots; i++) {
		struct worker *w = &c->workers[i];

		if (w->used && w->state == WORKER_STOPPING &&
			w->deadline_ns > c->now_ns + QUICK_STOP_NS)
			w->deadline_ns = c->now_ns + QUICK_STOP_NS;
	}
}

static void kill_all(struct core *c)
{
	for (int i = 0; i < c->worker_slots; i++) {
		struct worker *w = &c->workers[i];

		if (w->used && w->tree && !w->kill_sent)
			worker_kill(c, w, AFTER_STOPPED, "killed: the supervisor stops at once");
	}
}

static int64_t mode_ns(const struct core *c, enum shutdown_mode mode)
{
	if (mode == SHUTDOWN_GRACEFUL)
		return c->config->shutdown_timeout_ns;
	if (mode == SHUTDOWN_QUICK && c->config->shutdown_timeout_ns > QUICK_ALL_NS)
		return QUICK_ALL_NS;
	return mode == SHUTDOWN_QUICK ? c->config->shutdown_timeout_ns : KILL_ALL_NS;
}

void lifecycle_shutdown(struct core *c, enum shutdown_mode mode, int status, const char *reason)
{
	struct lifecycle *l = &c->lifecycle;
	int64_t deadline_ns;

	if (l->state == LIFECYCLE_DOWN || (lifecycle_is_stopping(c) && mode <= l->mode))
		return;
	l->mode = mode;
	if (!lifecycle_is_stopping(c)) {
		l->exit_status = status;
		lifecycle_enter(c, LIFECYCLE_STOPPING, reason);
		election_handle(c, ELECTION_EVENT_SHUTDOWN, NULL);
		end_rollouts(c);
		rest_all(c);
	} else {
		core_report(c, REPORT_LIFECYCLE, -1, -1, LIFECYCLE_STOPPING, LIFECYCLE_STOPPING,
			mode == SHUTDOWN_KILL ? "kills what is left" : "stops quickly");
	}
	deadline_ns = c->now_ns + mode_ns(c, mode);
	if (mode == SHUTDOWN_QUICK && l->deadline_ns != 0 && l->deadline_ns < deadline_ns)
		deadline_ns = l->deadline_ns; /* asked to hurry: never later than before */
	l->deadline_ns = deadline_ns;
	if (mode == SHUTDOWN_QUICK)
		hurry(c);
	if (mode == SHUTDOWN_KILL)
		kill_all(c);
}

static void go_down(struct core *c)
{
	struct lifecycle *l = &c->lifecycle;

	lifecycle_enter(c, LIFECYCLE_DOWN, l->reason);
	for (int s = STAGE_COUNT - 1; s >= 0; s--) {
		if ((l->asked & (1u << s)) != 0)
			core_push(c, ACTION_STAGE_DOWN)->stage = s;
	}
	l->up = 0;
	core_push(c, ACTION_EXIT)->number = l->exit_status;
}

void lifecycle_run(struct core *c)
{
	if (c->lifecycle.state == LIFECYCLE_BOOT)
		climb(c);
	if (c->lifecycle.state != LIFECYCLE_STOPPING)
		return;
	pool_stop_levels(c);
	if (pool_all_down(c) && c->election.state == ELECTION_OFF)
		go_down(c);
}

void lifecycle_check_time(struct core *c)
{
	struct lifecycle *l = &c->lifecycle;

	if (l->deadline_ns == 0 || l->deadline_ns > c->now_ns)
		return;
	l->deadline_ns = 0;
	if (l->state != LIFECYCLE_STOPPING)
		return;
	if (l->mode < SHUTDOWN_KILL) {
		lifecycle_shutdown(c, SHUTDOWN_KILL, l->exit_status, l->reason);
		return;
	}
	core_report(c, REPORT_LIFECYCLE, -1, -1, LIFECYCLE_STOPPING, LIFECYCLE_STOPPING,
		"gives up: something does not end even after SIGKILL");
	l->exit_status = l->exit_status != 0 ? l->exit_status : 1;
	go_down(c);
}

/* When a worker is probed, and what the answers mean. How is the shell's business. */
#include <stddef.h>

#include "supervisor/core/worker_internal.h"
#include "supervisor/core/backoff.h"
#include "supervisor/core/executor_fsm.h"
#include "supervisor/core/rollout_fsm.h"

#define BOOT_FIRST_NS   (50 * CORE_MS)
#define BOOT_MOST_NS    CORE_SECOND
#define BOOT_ATTEMPT_NS (10 * CORE_SECOND) /* of readiness: a first answer may be slow */
#define LAST_WORD_NS    (100 * CORE_MS)
#define OVERDUE_NS      CORE_SECOND /* past its deadline the shell has had its say */
#define SPREAD          10          /* of an interval, the part that is left to chance */

static void ask(struct core *c, struct worker *w, enum probe_purpose purpose, int64_t timeout_ns)
{
	struct action *a = core_push(c, ACTION_PROBE_START);

	a->worker = core_worker_slot(c, w);
	a->id = w->id;
	a->number = purpose;
	a->deadline_ns = c->now_ns + timeout_ns;
	w->probing = true;
	w->probe_at_ns = a->deadline_ns + OVERDUE_NS;
}

void worker_probe_end(struct core *c, struct worker *w)
{
	struct action *a;

	w->probe_at_ns = 0;
	w->probe_failures = 0;
	if (!w->probing)
		return;
	w->probing = false;
	a = core_push(c, ACTION_PROBE_STOP);
	a->worker = core_worker_slot(c, w);
	a->id = w->id;
}

/* --- readiness ----------------------------------------------------------------------------- */
/* An attempt outlasts neither the time that is left nor, much, what its health may take. */
static void ask_ready(struct core *c, struct worker *w)
{
	int64_t most = w->settings->health_timeout_ns > BOOT_ATTEMPT_NS
			       ? w->settings->health_timeout_ns
			       : BOOT_ATTEMPT_NS;
	int64_t left = w->deadline_ns - c->now_ns;

	/* What it has met is to be known before the worker is given up. */
	left -= left / 16 < LAST_WORD_NS ? left / 16 : LAST_WORD_NS;
	ask(c, w, PROBE_FOR_READY, left < most ? (left > 0 ? left : 1) : most);
}

void worker_probe_begin(struct core *c, struct worker *w)
{
	int64_t first = w->settings->ready_shared ? w->settings->startsecs_ns : 0;

	if (first > 0)
		w->probe_at_ns = c->now_ns + first;
	else
		ask_ready(c, w);
}

void worker_probe_hint(struct core *c, struct worker *w)
{
	if (w->settings->ready == READY_PROBE && !w->settings->ready_shared && !w->probing &&
		w->probe_at_ns > c->now_ns)
		ask_ready(c, w);
}

void worker_probe_ok_starting(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (!w->execed)
		return; /* its output came before the word that it runs: it comes again */
	w->probing = false;
	worker_become_ready(c, w);
}

/* Not a failed start yet: it has until ready_timeout. But what can come only once is over. */
void worker_probe_failed_starting(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (w->settings->ready != READY_PROBE) {
		worker_not_ready(c, w, "not ready");
		return;
	}
	w->probing = false;
	w->probe_failures++;
	w->probe_at_ns = c->now_ns +
			 backoff_doubling(BOOT_FIRST_NS, BOOT_MOST_NS, w->probe_failures, 0);
	if (w->probe_at_ns > w->deadline_ns - 2 * LAST_WORD_NS)
		w->probe_at_ns = w->deadline_ns; /* too short to say more; but it may be extended */
}

/* --- health -------------------------------------------------------------------------------- */
/* Workers that became ready together are not probed together. */
static void next_health(struct core *c, struct worker *w)
{
	int64_t interval = w->settings->health_interval_ns;

	w->probing = false;
	w->probe_at_ns = 0;
	if (w->settings->health)
		w->probe_at_ns = c->now_ns + interval +
				 (int64_t)(core_random(c) % (uint64_t)(interval / SPREAD + 1));
}

void worker_probe_health(struct core *c, struct worker *w)
{
	w->probe_failures = 0;
	if (w->settings->health)
		next_health(c, w);
}

void worker_probe_ok_running(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (!w->probing)
		return;
	w->well = true;
	rollout_judge(c, worker_program(c, w), w, true);
	w->probe_failures = 0;
	next_health(c, w);
}

/* An executor's page first, and then no grace: it may hang with a job half done. The others may
 * finish what they still can. */
void worker_probe_failed_running(struct core *c, struct worker *w, const struct event *e)
{
	if (!w->probing)
		return;
	if (e == NULL || !e->ok)
		w->probe_failures++;
	if (w->probe_failures < w->settings->health_failures) {
		next_health(c, w);
		return;
	}
	w->unhealthy = true;
	worker_unfit(c, w);
	w->reason = "health";
	if (executor_is(c, w))
		worker_kill_now(c, w, NULL);
	else
		worker_stop_now(c, w, NULL);
}

void worker_settings_changed(struct core *c, struct worker *w)
{
	if (w->state != WORKER_RUNNING)
		return;
	if (!w->settings->health)
		worker_probe_end(c, w);
	else if (!w->probing) /* anew, by the interval of now */
		next_health(c, w);
}

/* --- time ---------------------------------------------------------------------------------- */
void worker_probe_due(struct core *c, struct worker *w, const struct event *e)
{
	(void)e;
	if (w->probing) { /* its answer was lost: as when the binary was replaced meanwhile */
		const struct event none = {.ok = true};

		if (w->state == WORKER_STARTING)
			worker_probe_failed_starting(c, w, &none);
		else
			worker_probe_failed_running(c, w, &none);
	} else if (w->state == WORKER_STARTING) {
		ask_ready(c, w);
	} else if (w->settings->health) {
		ask(c, w, PROBE_FOR_HEALTH, w->settings->health_timeout_ns);
	} else {
		w->probe_at_ns = 0; /* a reload has taken it out */
	}
}

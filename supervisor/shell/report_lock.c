/* What the core reports of the lock and the election, in words. */
#include <stdio.h>
#include <string.h>

#include "supervisor/core/election_fsm.h"
#include "supervisor/shell/state.h"

void report_lock_view(struct supervisor *s, char *buf, size_t bytes)
{
	const struct store_row *r = &s->lock.view.row;
	char since[32], until[32];

	if (!s->lock.view_valid || !r->held) {
		snprintf(buf, bytes, "nobody");
		return;
	}
	report_time(r->created_at_us, since);
	report_time(r->heartbeat_at_us + r->ttl_ms * 1000, until);
	snprintf(buf, bytes, "%s (pid %lld%s%s, term %lld) since %s; its lease runs until %s",
		r->hostname, (long long)r->pid, r->worker[0] != '\0' ? ", executor " : "",
		r->worker, (long long)r->term, since, until);
}

static void lock_event(
	struct supervisor *s, enum logs_level level, const char *event, const char *text)
{
	struct logs_field f[] = {{.key = "database", .value = s->lock.settings.database},
		{.key = "holder", .value = s->lock.view.row.holder},
		{.key = "hostname", .value = s->lock.view.row.hostname},
		{.key = "holder_pid", .number = s->lock.view.row.pid},
		{.key = "term", .number = s->lock.view.row.term}};

	logs_event(s->logs, level, event, f, s->lock.view_valid ? 5 : 1, "%s", text);
}

static void report_held(struct supervisor *s)
{
	const struct config_scheduler *c = &s->config->scheduler;
	char who[512], text[1400], ttl[32];
	bool near = s->core.election.view.same_boot && c->fast_takeover;

	report_lock_view(s, who, sizeof who);
	report_span(s->core.election.view.ttl_ns, ttl, sizeof ttl);
	snprintf(text, sizeof text,
		"the lock is held by %s. This instance stands by%s: it takes over %s%s. `baton "
		"lock "
		"info` tells more, `baton handoff --away` on the holder moves it",
		who, c->when_held_exit ? " (when_held = exit)" : "",
		near ? "at once when that holder dies, or after " : "after ", near ? ttl : ttl);
	lock_event(s, LOGS_INFO, "lock.held_elsewhere", text);
}

void report_remark(struct supervisor *s, const struct action *a)
{
	const char *r = a->reason;
	char text[1400], who[512];

	report_lock_view(s, who, sizeof who);
	if (strcmp(r, "held-elsewhere") == 0) {
		report_held(s);
	} else if (strcmp(r, "unavailable") == 0 && s->lock.keeper_cut) {
		lock_event(s, LOGS_INFO, "lock.interrupted",
			"the upgrade in place came between a request and its answer: the lock "
			"database is asked again");
	} else if (strcmp(r, "unavailable") == 0) {
		snprintf(text, sizeof text,
			"the lock database does not answer: %s. The programs serve on; trying "
			"again "
			"every second",
			s->lock.error);
		lock_event(s, LOGS_ERROR, "lock.unavailable", text);
	} else if (strcmp(r, "available-again") == 0) {
		lock_event(s, LOGS_INFO, "lock.available", "the lock database answers again");
	} else if (strcmp(r, "wrong") == 0) {
		lock_event(s, LOGS_ERROR, "lock.wrong", s->lock.error);
	} else if (strcmp(r, "floor-conflict") == 0) {
		snprintf(text, sizeof text,
			"the lock database '%s' contradicts the floor beside it (highest term "
			"given: "
			"%lld): it was replaced, restored or emptied. Standing by; after a whole "
			"ttl "
			"of silence this instance goes on above the floor",
			s->lock.settings.database, (long long)s->lock.view.floor_term);
		lock_event(s, LOGS_ERROR, "lock.floor_conflict", text);
	} else if (strcmp(r, "floor-failed") == 0) {
		snprintf(text, sizeof text,
			"the floor file beside '%s' cannot be written: %s. Nobody is promoted "
			"until it "
			"can",
			s->lock.settings.database, s->lock.answer_text);
		lock_event(s, LOGS_ERROR, "lock.floor_failed", text);
	} else if (strcmp(r, "holder-dead-unproven") == 0) {
		snprintf(text, sizeof text,
			"the holder's supervisor and deadman are gone, but nothing proves that its "
			"executor is: waiting for the whole ttl. Held by %s",
			who);
		lock_event(s, LOGS_WARNING, "lock.unproven", text);
	} else if (strcmp(r, "no-candidate") == 0) {
		lock_event(s, LOGS_WARNING, "lock.no_candidate",
			"no program here has had a worker that could be executor for a whole ttl: "
			"stepping down, another instance may do better");
	} else {
		snprintf(text, sizeof text, "%s: %s", r, s->lock.error);
		lock_event(s, LOGS_WARNING, "lock.remark", text);
	}
}

void report_election(struct supervisor *s, const struct action *a)
{
	static const char *const names[] = {"lock.off", "lock.standby", "lock.acquiring",
		"lock.holding", "lock.releasing", "lock.lost"};
	char text[512];
	enum logs_level level = LOGS_DEBUG;

	switch ((enum election_state)a->to) {
	case ELECTION_HOLDING:
		level = LOGS_INFO;
		snprintf(text, sizeof text, "this instance now holds the lock (epoch %lld): %s",
			(long long)s->core.election.epoch, a->reason);
		break;
	case ELECTION_RELEASING:
		level = LOGS_INFO;
		snprintf(text, sizeof text, "giving the lock back: %s", a->reason);
		break;
	case ELECTION_LOST:
		level = LOGS_ERROR;
		snprintf(text, sizeof text,
			"the lock is lost: %s. The executors are killed, the other workers serve "
			"on",
			a->reason);
		break;
	case ELECTION_OFF:
		if (a->from == ELECTION_RELEASING) {
			level = LOGS_INFO;
			snprintf(text, sizeof text, "the lock is given back");
			break;
		}
		/* fall through */
	default:
		if (a->from == ELECTION_HOLDING || a->from == ELECTION_RELEASING ||
			a->from == ELECTION_LOST)
			level = LOGS_INFO;
		snprintf(text, sizeof text, "the lock: %s (%s)",
			election_state_name((enum election_state)a->to), a->reason);
		break;
	}
	lock_event(s, level, names[a->to], text);
}

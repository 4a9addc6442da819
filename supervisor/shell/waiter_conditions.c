/* The conditions of `baton wait`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/core/election_fsm.h"
#include "supervisor/core/pool.h"
#include "supervisor/core/worker_fsm.h"
#include "supervisor/shell/commands.h"

#define FORMS                                                                                      \
	"executor, executor=WORKER, executor!=WORKER or PID, term>N, ready=NAME, stopped=NAME, "   \
	"role=holder|standby|lost|unavailable, rollout=done, state=running|stopping"

static bool take(const char *text, const char *prefix, const char **ret_rest)
{
	size_t n = strlen(prefix);

	if (strncmp(text, prefix, n) != 0 || text[n] == '\0')
		return false;
	*ret_rest = text + n;
	return true;
}

static bool is_one_of(const char *text, const char *values)
{
	size_t n = strlen(text);

	for (const char *at = values; n > 0 && (at = strstr(at, text)) != NULL; at++) {
		if ((at == values || at[-1] == '|') && (at[n] == '\0' || at[n] == '|'))
			return true;
	}
	return false;
}

bool waiter_parse_condition(struct waiter *w, const char *text, struct err *e)
{
	static const struct {
		const char *prefix;
		enum condition_kind kind;
		const char *values; /* the only ones; NULL = any */
	} forms[] = {{"executor!=", CONDITION_EXECUTOR_NOT, NULL},
		{"executor=", CONDITION_EXECUTOR_IS, NULL}, {"term>", CONDITION_TERM, NULL},
		{"ready=", CONDITION_READY, NULL}, {"stopped=", CONDITION_STOPPED, NULL},
		{"role=", CONDITION_ROLE, "holder|standby|lost|unavailable"},
		{"rollout=", CONDITION_ROLLOUT, "done"},
		{"state=", CONDITION_STATE, "starting|running|stopping"}};
	const char *rest;
	char *end;

	snprintf(w->condition_text, sizeof w->condition_text, "%s", text);
	if (strcmp(text, "executor") == 0) {
		w->condition = CONDITION_EXECUTOR;
		return true;
	}
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		if (!take(text, forms[i].prefix, &rest))
			continue;
		w->condition = forms[i].kind;
		snprintf(w->text, sizeof w->text, "%s", rest);
		w->number = strtoll(rest, &end, 10);
		if (forms[i].values == NULL ? *end == '\0' || w->condition != CONDITION_TERM
					    : is_one_of(rest, forms[i].values))
			return true;
	}
	err_set(e, ERR_CONFIG, "'%.100s' is no condition; there are: " FORMS, text);
	return false;
}

static bool any_executor(const struct supervisor *s,
	bool (*fits)(const struct supervisor *, const struct program *, const struct waiter *),
	const struct waiter *w)
{
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];

		if (p->used && p->executor.exists && p->executor.state == EXECUTOR_EXECUTING &&
			fits(s, p, w))
			return true;
	}
	return false;
}

static bool fits_any(const struct supervisor *s, const struct program *p, const struct waiter *w)
{
	(void)s;
	(void)p;
	(void)w;
	return true;
}

static bool fits_named(const struct supervisor *s, const struct program *p, const struct waiter *w)
{
	char pid[32];

	snprintf(pid, sizeof pid, "%d", (int)main_pid(&s->processes[p->executor.worker]));
	return strcmp(w->text, pid) == 0 ||
	       strcmp(w->text, report_worker_name(s, p->executor.worker)) == 0;
}

static bool fits_other(const struct supervisor *s, const struct program *p, const struct waiter *w)
{
	return !fits_named(s, p, w);
}

static bool fits_term(const struct supervisor *s, const struct program *p, const struct waiter *w)
{
	(void)s;
	return (int64_t)p->executor.term > w->number;
}

bool waiter_names_nobody(struct supervisor *s, const struct waiter *w, struct err *e)
{
	struct targets t = {NULL, 0};
	char program[sizeof w->text];
	const char *code;

	if (w->condition != CONDITION_READY && w->condition != CONDITION_STOPPED)
		return false;
	if (targets_find_one(s, w->text, &t, &code, e)) {
		targets_release(&t);
		return false;
	}
	snprintf(program, sizeof program, "%s", w->text); /* web:7 may come: scaled up, added */
	program[strcspn(program, ":")] = '\0';
	return strcmp(code, "not_found") != 0 || core_find_program(&s->core, program) < 0;
}

/* READY: every worker of what is named is ready; else: none has a process. */
static bool named_are(struct supervisor *s, const struct waiter *w, bool ready)
{
	struct targets t = {NULL, 0};
	const char *code;
	struct err e;
	bool all = targets_find_one(s, w->text, &t, &code, &e);

	for (size_t i = 0; i < t.count && all; i++) {
		int program = t.items[i].program;

		if (t.items[i].worker < 0 && ready) {
			all = pool_is_ready(&s->core, program);
			continue;
		}
		for (int j = core_next_worker(&s->core, program, -1); j >= 0 && all;
			j = core_next_worker(&s->core, program, j)) {
			const struct worker *of = &s->core.workers[j];

			if (t.items[i].worker >= 0 && t.items[i].worker != j)
				continue;
			all = ready ? of->ready || worker_is_elsewhere(&s->core, of) : !of->tree;
		}
	}
	targets_release(&t);
	return all;
}

static bool has_role(const struct supervisor *s, const char *role)
{
	const struct election *e = &s->core.election;
	bool holder = e->state == ELECTION_HOLDING || e->state == ELECTION_RELEASING;

	if (strcmp(role, "holder") == 0)
		return holder;
	if (strcmp(role, "lost") == 0)
		return e->state == ELECTION_LOST;
	if (strcmp(role, "unavailable") == 0)
		return !holder && e->unavailable;
	return strcmp(role, "standby") == 0 && e->state == ELECTION_STANDBY && e->decided &&
	       !e->unavailable;
}

int waiter_condition(struct supervisor *s, struct waiter *w, struct err *e)
{
	switch (w->condition) {
	case CONDITION_EXECUTOR:
		return any_executor(s, fits_any, w);
	case CONDITION_EXECUTOR_IS:
		return any_executor(s, fits_named, w);
	case CONDITION_EXECUTOR_NOT:
		return any_executor(s, fits_other, w);
	case CONDITION_TERM:
		return any_executor(s, fits_term, w);
	case CONDITION_READY:
		return named_are(s, w, true);
	case CONDITION_STOPPED:
		return named_are(s, w, false);
	case CONDITION_ROLE:
		return has_role(s, w->text);
	case CONDITION_ROLLOUT:
		return waiter_no_rollout(s, w, e);
	case CONDITION_STATE:
		return strcmp(w->text, lifecycle_state_name(s->core.lifecycle.state)) == 0;
	}
	return 0;
}

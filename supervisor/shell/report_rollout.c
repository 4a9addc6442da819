/* Rollouts and recycling, in words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/state.h"

void report_bytes(int64_t bytes, char *buf, size_t room)
{
	static const char *const units[] = {"KB", "MB", "GB", "TB"};
	double value = (double)bytes / 1024;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, room, "%.1f %s", value, units[unit]);
}

void report_recycle(struct supervisor *s, const struct action *a)
{
	const struct worker *w = &s->core.workers[a->worker];
	const struct config_program *p = s->core.programs[a->program].settings;
	const char *name = s->processes[a->worker].name; /* as long as it is the only one */
	int64_t age_ns = lease_now_ns() - w->started_ns;
	char is[32], limit[32];
	struct logs_field f[] = {{.key = "worker", .value = name},
		{.key = "pid", .number = main_pid(&s->processes[a->worker])},
		{.key = "reason", .value = a->reason},
		{.key = "memory_bytes", .number = w->memory_bytes},
		{.key = "age_s", .number = age_ns / CORE_SECOND}};

	if (a->from == RECYCLE_MEMORY) {
		report_bytes(w->memory_bytes, is, sizeof is);
		report_bytes(p->max_memory, limit, sizeof limit);
		logs_event(s->logs, LOGS_INFO, "worker.recycle", f, 5,
			"%s (pid %d) is recycled: it uses %s of memory, max_memory is %s", name,
			(int)f[1].number, is, limit);
		return;
	}
	report_span(age_ns, is, sizeof is);
	report_span(p->max_age_ns, limit, sizeof limit);
	logs_event(s->logs, LOGS_INFO, "worker.recycle", f, 5,
		"%s (pid %d) is recycled: it is %s old, max_age is %s", name, (int)f[1].number, is,
		limit);
}

const char *report_rollout_why(const struct supervisor *s, int program)
{
	return program < s->rollout_why_count ? s->rollout_whys[program] : NULL;
}

void report_set_rollout_why(struct supervisor *s, int program, const char *text)
{
	if (program >= s->rollout_why_count) {
		size_t count = (size_t)program + 1, before = (size_t)s->rollout_why_count;
		char **more = realloc(s->rollout_whys, count * sizeof *more);

		if (more == NULL)
			return;
		memset(more + before, 0, (count - before) * sizeof *more);
		s->rollout_whys = more;
		s->rollout_why_count = (int)count;
	}
	free(s->rollout_whys[program]);
	s->rollout_whys[program] = strdup(text);
}

void report_release(struct supervisor *s)
{
	for (int i = 0; i < s->rollout_why_count; i++)
		free(s->rollout_whys[i]);
	free(s->rollout_whys);
}

void report_rollout_end(const struct supervisor *s, int program, char *buf, size_t bytes)
{
	const struct program *p = &s->core.programs[program];
	const char *why = report_rollout_why(s, program), *end;

	if (p->rollout.half) /* the reason says how it goes on */
		end = "";
	else if (!p->started)
		end = "; the program is stopped";
	else
		end = p->rollout.replaced
			      ? "; what was replaced was rolled back: the old version serves on"
			      : "; the workers of the old version serve on";
	snprintf(buf, bytes, "%s%s", why != NULL ? why : "the new version does not start", end);
}

/* Why a version is given up is known of the worker that was given up, and of nobody else. */
static void report_failure(struct supervisor *s, const struct action *a)
{
	struct logs_field f[] = {
		{.key = "program", .value = s->core.programs[a->program].settings->name},
		{.key = "reason", .value = a->reason}, {.key = "worker", .value = ""}};
	char how[600], text[900];

	snprintf(text, sizeof text, "%s", a->reason);
	if (a->worker >= 0) {
		report_exit(s, a->worker, how, sizeof how);
		f[2].value = s->processes[a->worker].name; /* it may be on its way out by now */
		snprintf(text, sizeof text, "%s (%s %s)", a->reason, f[2].value, how);
	}
	logs_event(s->logs, LOGS_ERROR, "program.note", f, a->worker >= 0 ? 3 : 2,
		"%s: %s. Mend it, then `baton reload`", f[0].value, text);
	report_set_rollout_why(s, a->program, text);
	waiters_remark(s, a->program, text);
}

void report_program(struct supervisor *s, const struct action *a)
{
	struct logs_field f[] = {
		{.key = "program", .value = s->core.programs[a->program].settings->name},
		{.key = "reason", .value = a->reason}};
	char depends[256];

	if (strstr(a->reason, "does not start") != NULL) {
		report_failure(s, a);
		return;
	}
	if (strcmp(a->reason, "waits for what it depends on") == 0) {
		report_depends(s, a->program, depends, sizeof depends);
		logs_event(s->logs, LOGS_INFO, "program.note", f, 2, "%s: waits for %s", f[0].value,
			depends);
		return;
	}
	logs_event(s->logs, LOGS_INFO, "program.note", f, 2, "%s: %s", f[0].value, a->reason);
	waiters_remark(s, a->program, a->reason);
}

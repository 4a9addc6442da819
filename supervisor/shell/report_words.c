/* Times and names as people and documents read them. */
#include <stdio.h>
#include <time.h>

#include "supervisor/shell/probes.h"
#include "supervisor/shell/state.h"

#define NAMES 8

int64_t report_wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

#define CLOCKS_APART_US 50000

int64_t report_wall_of(int64_t boottime_ns)
{
	static int64_t offset_us; /* kept: two readings of two clocks are never quite the same */
	int64_t now_us = report_wall_us() - lease_now_ns() / 1000;

	if (now_us - offset_us > CLOCKS_APART_US || offset_us - now_us > CLOCKS_APART_US)
		offset_us = now_us; /* the clock was set, or has been corrected by and by */
	return boottime_ns / 1000 + offset_us;
}

char *report_time(int64_t wall_us, char buf[32])
{
	time_t seconds = (time_t)(wall_us / 1000000);
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(buf, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, 32 - n, ".%03dZ", (int)(wall_us / 1000 % 1000));
	return buf;
}

/* Good until NAMES more are asked for. */
const char *report_worker_name(const struct supervisor *s, int slot)
{
	static char names[NAMES][192];
	static int next;
	const struct worker *w;
	int n;

	if (slot < 0 || slot >= s->core.worker_slots)
		return "";
	w = &s->core.workers[slot];
	next = (next + 1) % NAMES;
	n = snprintf(names[next], sizeof names[next], "%s:%d",
		w->settings != NULL ? w->settings->name : "?", w->index);
	if (w->outgoing && n > 0 && n < (int)sizeof names[next])
		snprintf(names[next] + n, sizeof names[next] - (size_t)n, "@%u", w->generation);
	return names[next];
}

const char *report_why(struct supervisor *s, int slot, const char *reason, char *buf, size_t bytes)
{
	const struct worker *w = &s->core.workers[slot];
	const struct process *p = &s->processes[slot];

	if (w->state == WORKER_STOPPING && w->unhealthy && probes_why(s, slot, buf, bytes) != NULL)
		return buf;
	if (w->state != WORKER_STOPPING || !w->late || p->id != w->id || p->probe_text == NULL)
		return reason != NULL ? reason : "";
	snprintf(buf, bytes, "not ready in time: %s", p->probe_text);
	return buf;
}

void report_span(int64_t ns, char *buf, size_t bytes)
{
	if (ns < 0)
		ns = 0;
	if (ns + CORE_MS / 2 < CORE_SECOND)
		snprintf(buf, bytes, "%d ms", (int)((ns + CORE_MS / 2) / CORE_MS));
	else if (ns < 120 * CORE_SECOND)
		snprintf(buf, bytes, "%.1f s", (double)ns / (double)CORE_SECOND);
	else
		snprintf(buf, bytes, "%lld min", (long long)(ns / (60 * CORE_SECOND)));
}

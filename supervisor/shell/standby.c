/* Instances on one lock should have the same candidate programs: what the holder lacks has no
 * executor anywhere while it holds. */
#include <string.h>

#include "supervisor/shell/state.h"

/* So many heartbeats after its acquisition (by its own wall clock) a holder has promoted what it
 * has. */
#define SETTLED_HEARTBEATS 3

static bool is_settled(const struct supervisor *s, const struct store_row *r)
{
	return r->heartbeat_at_us - r->created_at_us >=
	       SETTLED_HEARTBEATS * s->config->scheduler.heartbeat_ns / 1000;
}

static bool holder_has(const struct store_view *v, const char *program)
{
	for (size_t i = 0; i < v->executor_count; i++) {
		if (strcmp(v->executors[i].program, program) == 0)
			return true;
	}
	return false;
}

void standby_compare_programs(struct supervisor *s)
{
	const struct store_view *v = &s->lock.view;
	const struct store_row *r = &v->row;

	if (!r->held || strcmp(r->holder, s->instance) == 0 || !is_settled(s, r) ||
		s->lock.compared_epoch == r->epoch)
		return;
	s->lock.compared_epoch = r->epoch;
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];
		struct logs_field f[] = {{.key = "program", .value = NULL}};

		if (!p->used || !p->executor.exists || p->wanted == 0 ||
			holder_has(v, p->settings->name))
			continue;
		f[0].value = p->settings->name;
		logs_event(s->logs, LOGS_WARNING, "lock.program_without_executor", f, 1,
			"%s has no executor anywhere: the holder (%s, pid %lld) does not have that "
			"program, or no worker of it is ready there; instances on one lock should "
			"have the same candidate programs",
			p->settings->name, r->hostname, (long long)r->pid);
	}
}

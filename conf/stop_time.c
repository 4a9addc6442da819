/* How long an instance may take to stop, by its file. */
#include "conf/config.h"

static bool waits_for_handoff(const struct config_program *p)
{
	return p->executor == EXECUTOR_CANDIDATE && p->promote != PROMOTE_RESPAWN;
}

/* Levels stop one after the other, the workers of a level all at once; an executor first gets the
 * time to hand over. */
int64_t config_stop_ns(const struct config *c)
{
	int64_t handoff_ns = 0, levels_ns = 0;
	int highest = -1;

	for (size_t i = 0; i < c->program_count; i++) {
		const struct config_program *p = &c->programs[i];

		highest = p->level > highest ? p->level : highest;
		if (waits_for_handoff(p) && p->handoff_timeout_ns > handoff_ns)
			handoff_ns = p->handoff_timeout_ns;
	}
	for (int level = 0; level <= highest; level++) {
		int64_t longest_ns = 0;

		for (size_t i = 0; i < c->program_count; i++) {
			const struct config_program *p = &c->programs[i];

			if (p->level == level && p->stopwaitsecs_ns > longest_ns)
				longest_ns = p->stopwaitsecs_ns;
		}
		levels_ns += longest_ns;
	}
	return handoff_ns + levels_ns;
}

int64_t config_stop_executors_ns(const struct config *c)
{
	int64_t longest_ns = 0;

	for (size_t i = 0; i < c->program_count; i++) {
		const struct config_program *p = &c->programs[i];
		int64_t ns = p->stopwaitsecs_ns +
			     (waits_for_handoff(p) ? p->handoff_timeout_ns : 0);

		if (p->executor != EXECUTOR_NO && ns > longest_ns)
			longest_ns = ns;
	}
	return longest_ns;
}

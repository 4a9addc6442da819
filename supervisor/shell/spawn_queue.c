/* Which fork comes when. */
#include <stdlib.h>

#include "supervisor/shell/own_memory.h"
#include "supervisor/shell/spawn_internal.h"

#define SPAWNS_FIRST 64
#define PROMOTION_NS (100 * CORE_MS)

static bool is_promoting(const struct supervisor *s)
{
	if (s->lock.sent_id != 0 && s->lock.sent_op == REQUEST_PROMOTE)
		return true;
	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];

		if (p->used && p->executor.exists && p->executor.state == EXECUTOR_PROMOTING &&
			p->executor.phase == PHASE_ARM)
			return true;
	}
	return false;
}

void spawn_later(struct supervisor *s, const struct action *a)
{
	if (a->held) { /* it is the promotion */
		spawn_worker(s, a);
		return;
	}
	if (s->spawn_count == s->spawn_capacity) {
		size_t capacity = s->spawn_capacity != 0 ? 2 * s->spawn_capacity : SPAWNS_FIRST;
		struct action *spawns = own_memory_new(capacity, sizeof *spawns);

		if (spawns == NULL)
			abort(); /* as in supervisor_post */
		for (size_t i = 0; i < s->spawn_count; i++)
			spawns[i] = s->spawns[(s->spawn_head + i) % s->spawn_capacity];
		own_memory_free(s->spawns, s->spawn_capacity, sizeof *spawns);
		s->spawns = spawns;
		s->spawn_head = 0;
		s->spawn_capacity = capacity;
	}
	s->spawns[(s->spawn_head + s->spawn_count++) % s->spawn_capacity] = *a;
}

bool spawn_next(struct supervisor *s)
{
	struct action a;

	if (s->spawn_count == 0)
		return false;
	if (!is_promoting(s)) {
		s->spawn_after_ns = 0;
	} else if (s->spawn_after_ns == 0) {
		s->spawn_after_ns = lease_now_ns() + PROMOTION_NS;
		return false;
	} else if (lease_now_ns() < s->spawn_after_ns) {
		return false;
	}
	a = s->spawns[s->spawn_head];
	s->spawn_head = (s->spawn_head + 1) % s->spawn_capacity;
	if (--s->spawn_count == 0)
		s->spawn_after_ns = 0;
	spawn_worker(s, &a);
	return true;
}

int64_t spawn_due(const struct supervisor *s)
{
	if (s->spawn_count == 0)
		return 0;
	return s->spawn_after_ns != 0 ? s->spawn_after_ns : lease_now_ns();
}

/* What events and states are called, in logs, status and tests. */
#include <assert.h>

#include "supervisor/core/core.h"
#include "supervisor/core/event.h"

static const char *const event_names[EVENT_KINDS] = {
#define X(name) #name,
	CORE_EVENTS(X)
#undef X
};

const char *event_name(enum event_kind k)
{
	assert(k < EVENT_KINDS);
	return event_names[k];
}

const char *worker_state_name(enum worker_state s)
{
	static const char *const names[] = {
#define X(name, text) text,
		WORKER_STATES(X)
#undef X
	};
	return names[s];
}

const char *executor_state_name(enum executor_state s)
{
	static const char *const names[] = {
#define X(name, text) text,
		EXECUTOR_STATES(X)
#undef X
	};
	return names[s];
}

const char *election_state_name(enum election_state s)
{
	static const char *const names[] = {
#define X(name, text) text,
		ELECTION_STATES(X)
#undef X
	};
	return names[s];
}

const char *rollout_state_name(enum rollout_state s)
{
	static const char *const names[] = {
#define X(name, text) text,
		ROLLOUT_STATES(X)
#undef X
	};
	return names[s];
}

const char *lifecycle_state_name(enum lifecycle_state s)
{
	static const char *const names[] = {
#define X(name, text) text,
		LIFECYCLE_STATES(X)
#undef X
	};
	return names[s];
}

const char *stage_name(enum core_stage s)
{
	static const char *const names[] = {
#define X(name, text, needs) text,
		CORE_STAGES(X)
#undef X
	};
	return names[s];
}

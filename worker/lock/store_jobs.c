#include "worker/lock/store_jobs.h"

#include <assert.h>
#include <string.h>

const char *ledger_status_name(enum ledger_status s)
{
	static const char *const names[] = {
#define X(id, name) [LEDGER_##id] = name,
		LEDGER_STATUSES(X)
#undef X
	};

	assert((size_t)s < LEDGER_STATUS_COUNT);
	return names[s];
}

const char *ledger_cause_name(enum ledger_cause c)
{
	static const char *const names[] = {
#define X(id, name) [LEDGER_BY_##id] = name,
		LEDGER_CAUSES(X)
#undef X
	};

	assert((size_t)c < LEDGER_CAUSE_COUNT);
	return names[c];
}

enum ledger_status ledger_status_of(const char *name)
{
	for (int i = 0; i < LEDGER_STATUS_COUNT; i++) {
		if (strcmp(name, ledger_status_name((enum ledger_status)i)) == 0)
			return (enum ledger_status)i;
	}
	return LEDGER_CLAIMED;
}

enum ledger_cause ledger_cause_of(const char *name)
{
	for (int i = 0; i < LEDGER_CAUSE_COUNT; i++) {
		if (strcmp(name, ledger_cause_name((enum ledger_cause)i)) == 0)
			return (enum ledger_cause)i;
	}
	return LEDGER_BY_APPLICATION;
}

static uint64_t hash(uint64_t hash, const char *text)
{
	do
		hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
	while (*text++);
	return hash;
}

uint64_t ledger_declared_id(const struct ledger_declared *d)
{
	return hash(hash(UINT64_C(14695981039346656037), d->schedule), d->timezone) | 1;
}

bool ledger_status_is_open(enum ledger_status s)
{
	return s == LEDGER_QUEUED || s == LEDGER_RUNNING;
}

bool ledger_status_is_failure(enum ledger_status s)
{
	return s == LEDGER_FAILED || s == LEDGER_TIMEOUT || s == LEDGER_KILLED ||
	       s == LEDGER_NOT_STARTED || s == LEDGER_INTERRUPTED || s == LEDGER_LOST ||
	       s == LEDGER_MISSED;
}

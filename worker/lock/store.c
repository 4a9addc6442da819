#include "worker/lock/store.h"

#include <assert.h>

static const char *const outcome_names[] = {
	[STORE_DONE] = "done",
	[STORE_REFUSED] = "refused",
	[STORE_UNKNOWN] = "unknown",
	[STORE_UNAVAILABLE] = "unavailable",
	[STORE_MOVED] = "moved",
	[STORE_WRONG] = "wrong",
};

const char *store_outcome_name(enum store_outcome o)
{
	assert((size_t)o < sizeof(outcome_names) / sizeof(*outcome_names));
	return outcome_names[o];
}

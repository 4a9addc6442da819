#include "supervisor/core/backoff.h"

int64_t backoff_doubling(int64_t first_ns, int64_t max_ns, int n, uint64_t random)
{
	int64_t delay = first_ns;

	if (first_ns <= 0)
		return 0;
	for (int i = 1; i < n && delay < max_ns; i++)
		delay *= 2;
	if (delay > max_ns && max_ns > 0)
		delay = max_ns;
	if (random != 0 && delay >= 4)
		delay -= (int64_t)(random % (uint64_t)(delay / 4));
	return delay;
}

int64_t backoff_linear(int64_t first_ns, int n)
{
	return first_ns * (n < 1 ? 1 : n);
}

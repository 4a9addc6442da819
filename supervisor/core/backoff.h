/* Delays between attempts. */
#ifndef BATON_CORE_BACKOFF_H
#define BATON_CORE_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

/* The N-th delay (N >= 1) doubling from FIRST_NS to MAX_NS; RANDOM != 0 takes up to a quarter off.
 */
int64_t backoff_doubling(int64_t first_ns, int64_t max_ns, int n, uint64_t random);
/* N times FIRST_NS (supervisord's 1, 2, 3 s). */
int64_t backoff_linear(int64_t first_ns, int n);

#endif

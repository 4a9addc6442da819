#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "supervisor/core/backoff.h"

#define MS INT64_C(1000000)

static void test_doubling(void **state)
{
	static const int64_t expected[] = {100, 100, 200, 400, 800, 1600, 3000, 3000};

	(void)state;
	for (int n = 0; n < 8; n++)
		assert_int_equal(backoff_doubling(100 * MS, 3000 * MS, n, 0), expected[n] * MS);
	assert_int_equal(backoff_doubling(100 * MS, 3000 * MS, 1000000000, 0), 3000 * MS);
}

/* Jitter takes away, at most a quarter. */
static void test_jitter(void **state)
{
	(void)state;
	for (uint64_t random = 1; random < 100000; random += 7) {
		int64_t delay = backoff_doubling(1000 * MS, 30000 * MS, 3, random * 2654435761u);

		assert_in_range(delay, 3000 * MS, 4000 * MS);
	}
}

static void test_nothing(void **state)
{
	(void)state;
	assert_int_equal(backoff_doubling(0, 3000 * MS, 2000000000, 5), 0);
}

static void test_linear(void **state)
{
	(void)state;
	for (int n = 1; n < 5; n++)
		assert_int_equal(backoff_linear(1000 * MS, n), n * 1000 * MS);
	assert_int_equal(backoff_linear(1000 * MS, 0), 1000 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_doubling),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_linear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

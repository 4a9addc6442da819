/* Values with a unit. */
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "conf/units.h"

static void test_duration(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} good[] = {
		{"0", 0},
		{"1", 1000000000},
		{"10s", 10000000000},
		{"250ms", 250000000},
		{"10us", 10000},
		{"5m", 300000000000},
		{"1h", 3600000000000},
		{"7d", 604800000000000},
		{"1.5s", 1500000000},
		{"0.25", 250000000},
		{" 3 s ", 3000000000},
		{"-1", -1000000000},
		{"1_0", 10000000000},
	};
	static const char *const bad[] = {"", " ", "s", "1x", "1 2", "1.s", ".5", "1e3", "0x10",
		"99999999999999999999", "9999999999d", "1s2s", "--1", "1.5.5", "１"};
	int64_t ns;
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (units_duration(good[i].text, &ns, &e) < 0)
			fail_msg("'%s': %s", good[i].text, e.text);
		assert_int_equal(ns, good[i].ns);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ns = 77;
		if (units_duration(bad[i], &ns, &e) != ERR_CONFIG)
			fail_msg("'%s' was taken as %lld", bad[i], (long long)ns);
		assert_int_equal(ns, 77);
		assert_non_null(strstr(e.text, "duration"));
	}
}

static void test_duration_printed_is_read_again(void **state)
{
	static const int64_t values[] = {0, 1000, 100000000, 1000000000, 10000000000, 90000000000,
		60000000000, 300000000000, 3600000000000, 86400000000000, 2592000000000000};
	char buf[32];
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		units_print_duration(values[i], buf, sizeof(buf));
		assert_int_equal(units_duration(buf, &ns, NULL), 0);
		assert_int_equal(ns, values[i]);
	}
}

static void test_size(void **state)
{
	int64_t bytes;

	(void)state;
	assert_int_equal(units_size("64KB", &bytes, NULL), 0);
	assert_int_equal(bytes, 65536);
	assert_int_equal(units_size("50mb", &bytes, NULL), 0);
	assert_int_equal(bytes, 52428800);
	assert_int_equal(units_size("1 GB", &bytes, NULL), 0);
	assert_int_equal(bytes, 1073741824);
	assert_int_equal(units_size("0", &bytes, NULL), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(units_size("1TB", &bytes, NULL), ERR_CONFIG);
	assert_int_equal(units_size("9999999999GB", &bytes, NULL), ERR_CONFIG);
}

static void test_integer(void **state)
{
	static const char *const bad[] = {"", "-", "+", "1-", "--1", "1_", "_1", "1__0", "0x1",
		"1.0", "99999999999999999999"};
	int64_t n;

	(void)state;
	assert_int_equal(units_integer(" -5 ", &n, NULL), 0);
	assert_int_equal(n, -5);
	assert_int_equal(units_integer("+1_000", &n, NULL), 0);
	assert_int_equal(n, 1000);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (units_integer(bad[i], &n, NULL) == 0)
			fail_msg("'%s' was taken", bad[i]);
	}
}

static void test_octal_boolean_word(void **state)
{
	int value, index;
	bool yes;

	(void)state;
	assert_int_equal(units_octal("022", &value, NULL), 0);
	assert_int_equal(value, 022);
	assert_int_equal(units_octal("0o660", &value, NULL), 0);
	assert_int_equal(value, 0660);
	assert_int_equal(units_octal("8", &value, NULL), ERR_CONFIG);
	assert_int_equal(units_octal("-1", &value, NULL), ERR_CONFIG);
	assert_int_equal(units_octal("10000", &value, NULL), ERR_CONFIG);
	assert_int_equal(units_boolean("TRUE", &yes, NULL), 0);
	assert_true(yes);
	assert_int_equal(units_boolean("off", &yes, NULL), 0);
	assert_false(yes);
	assert_int_equal(units_boolean("2", &yes, NULL), ERR_CONFIG);
	assert_int_equal(units_word("Exit", "stay|exit", &index, NULL), 0);
	assert_int_equal(index, 1);
	assert_int_equal(units_word("sta", "stay|exit", &index, NULL), ERR_CONFIG);
	assert_int_equal(units_word("stay|exit", "stay|exit", &index, NULL), ERR_CONFIG);
}

static void test_every_signal(void **state)
{
	char name[16];
	int number;

	(void)state;
	for (int s = 1; s <= SIGRTMAX; s++) {
		if (s < SIGRTMIN && !sigabbrev_np(s))
			continue;
		units_signal_name(s, name, sizeof(name));
		if (units_signal(name, &number, NULL) < 0)
			fail_msg("%s was refused", name);
		assert_int_equal(number, s);
	}
	assert_int_equal(units_signal("sigusr1", &number, NULL), 0);
	assert_int_equal(number, SIGUSR1);
	assert_int_equal(units_signal("15", &number, NULL), 0);
	assert_int_equal(number, SIGTERM);
	assert_int_equal(units_signal("RTMAX-1", &number, NULL), 0);
	assert_int_equal(number, SIGRTMAX - 1);
	assert_int_equal(units_signal("0", &number, NULL), ERR_CONFIG);
	assert_int_equal(units_signal("65", &number, NULL), ERR_CONFIG);
	assert_int_equal(units_signal("SIG", &number, NULL), ERR_CONFIG);
	assert_int_equal(units_signal("RTMIN+99", &number, NULL), ERR_CONFIG);
	assert_int_equal(units_signal("TERMS", &number, NULL), ERR_CONFIG);
}

static void test_rlimit(void **state)
{
	uint64_t soft, hard;

	(void)state;
	assert_int_equal(units_rlimit("nofile"), RLIMIT_NOFILE);
	assert_int_equal(units_rlimit("files"), -1);
	assert_int_equal(units_rlimit_value("1024:4096", &soft, &hard, NULL), 0);
	assert_int_equal(soft, 1024);
	assert_int_equal(hard, 4096);
	assert_int_equal(units_rlimit_value("64MB", &soft, &hard, NULL), 0);
	assert_int_equal(hard, 64 << 20);
	assert_int_equal(units_rlimit_value("0:unlimited", &soft, &hard, NULL), 0);
	assert_true(hard == RLIM_INFINITY);
	assert_int_equal(units_rlimit_value("2:1", &soft, &hard, NULL), ERR_CONFIG);
	assert_int_equal(units_rlimit_value("-1", &soft, &hard, NULL), ERR_CONFIG);
	assert_int_equal(units_rlimit_value("1:", &soft, &hard, NULL), ERR_CONFIG);
}

static void test_distance(void **state)
{
	char longer[200];

	(void)state;
	assert_int_equal(units_distance("command", "command", 3), 0);
	assert_int_equal(units_distance("comand", "command", 3), 1);
	assert_int_equal(units_distance("cmomand", "command", 3), 1);
	assert_int_equal(units_distance("", "abc", 3), 3);
	assert_int_equal(units_distance("wrkers", "numprocs", 2), 3);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(units_distance(longer, "x", 3), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_duration),
		cmocka_unit_test(test_duration_printed_is_read_again),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_integer),
		cmocka_unit_test(test_octal_boolean_word),
		cmocka_unit_test(test_every_signal),
		cmocka_unit_test(test_rlimit),
		cmocka_unit_test(test_distance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Errors as values, lists of findings, and the memory of a snapshot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/arena.h"
#include "conf/err.h"

static void test_values(void **state)
{
	struct err e;
	char longer[3 * ERR_TEXT_BYTES], line[64];

	(void)state;
	assert_int_equal(err_set(NULL, ERR_BUSY, "x"), ERR_BUSY);
	assert_int_equal(err_set_at(&e, ERR_CONFIG, "f", 3, "a\n\tb %d", 7), ERR_CONFIG);
	assert_string_equal(e.text, "a  b 7"); /* one line, whatever is quoted */
	assert_string_equal(err_format(&e, line, sizeof(line)), "f:3: a  b 7");
	assert_int_equal(err_prefix(&e, "%s", "what"), ERR_CONFIG);
	assert_string_equal(err_format(&e, line, sizeof(line)), "f:3: what: a  b 7");
	e.line = 0;
	assert_string_equal(err_format(&e, line, sizeof(line)), "f: what: a  b 7");
	assert_string_equal(err_format(&e, line, 5), "f: w");
	for (size_t i = 0; i + 2 < sizeof(longer); i += 2)
		memcpy(longer + i, "\xc3\xa4", 3);
	err_set(&e, ERR_LIMIT, "x%s", longer);
	assert_true(strlen(e.text) < ERR_TEXT_BYTES);
	assert_string_equal(e.text + strlen(e.text) - 5, "\xc3\xa4..."); /* no half character */
	assert_string_equal(e.file, "");
	err_prefix(&e, "%s", longer);
	assert_true(strlen(e.text) < ERR_TEXT_BYTES);
}

static void test_list_is_bounded(void **state)
{
	struct errlist l;

	(void)state;
	errlist_init(&l);
	for (int i = 0; i < 100000; i++)
		errlist_addf(&l, i % 2 == 0, "f", i, "finding %d", i);
	assert_int_equal(l.errors, 50000);
	assert_int_equal(l.warnings, 50000);
	assert_int_equal(l.count, 1002);
	assert_string_equal(l.items[0].text, "finding 0");
	assert_non_null(strstr(l.items[1001].text, "only counted"));
	errlist_release(&l);
	errlist_release(&l);
	assert_int_equal(l.count, 0);
}

static void fill(void *argument)
{
	struct arena *a = argument;
	struct text t;
	char *kept[2000];

	for (int i = 0; i < 2000; i++) {
		kept[i] = arena_printf(a, "%0*d", i % 700, i);
		uintptr_t place = (uintptr_t)arena_zero(a, (size_t)i % 37 + 1);
		assert_int_equal(place % _Alignof(max_align_t), 0);
	}
	for (int i = 0; i < 2000; i++)
		assert_int_equal(strtol(kept[i], NULL, 10), i);
	text_init(&t, a);
	for (int i = 0; i < 100000; i++)
		text_printf(&t, "%d,", i % 10);
	assert_int_equal(t.length, 200000);
	assert_string_equal(text_string(&t) + 199998, "9,");
}

static void ask_too_much(void *argument)
{
	arena_bytes(argument, SIZE_MAX / 2);
	fail_msg("there is no such memory");
}

static void test_arena(void **state)
{
	struct arena a;

	(void)state;
	arena_init(&a);
	assert_int_equal(arena_run(&a, fill, &a), 0);
#if !defined(__SANITIZE_ADDRESS__) /* it ends the program instead */
	assert_int_equal(arena_run(&a, ask_too_much, &a), ERR_SYSTEM);
	assert_int_equal(arena_run(&a, fill, &a), 0);
#else
	(void)ask_too_much;
#endif
	arena_release(&a);
	arena_release(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_list_is_bounded),
		cmocka_unit_test(test_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

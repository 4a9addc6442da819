/* A snapshot is read again from the bytes it was read from, whatever has become of its files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/config.h"

static char folder[64];

static const char *at(const char *name)
{
	static char path[4][128];
	static int next;

	snprintf(path[next = (next + 1) % 4], sizeof path[0], "%s/%s", folder, name);
	return path[next];
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	fclose(f);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/tXXXXXX");
	return mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	static const char *const names[] = {"a.ini", "b.conf", "c.conf", "link.conf", "env"};

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		(void)unlink(at(names[i]));
	return rmdir(folder);
}

static struct config *load(void)
{
	struct errlist findings;
	struct config *c = NULL;

	errlist_init(&findings);
	if (config_load(at("a.ini"), CONFIG_DETECT, &c, &findings) < 0)
		fail_msg("%s", findings.items[0].text);
	errlist_release(&findings);
	return c;
}

static struct config *load_again(const struct config *c)
{
	struct errlist findings;
	struct config *again = NULL;

	errlist_init(&findings);
	if (config_load_sources(
		    c->path, NULL, CONFIG_DETECT, config_sources(c), &again, &findings) < 0)
		fail_msg("%s", findings.items[0].text);
	errlist_release(&findings);
	return again;
}

static void same(const struct config *a, const struct config *b)
{
	char *x, *y;

	assert_int_equal(config_dump(a, true, &x), 0);
	assert_int_equal(config_dump(b, true, &y), 0);
	assert_string_equal(x, y);
	free(x);
	free(y);
}

static void test_as_it_was(void **state)
{
	struct config *c, *again, *third;

	(void)state;
	put("a.ini", "[baton]\nenvironment_file = env\n[include]\nfiles = *.conf\n");
	put("b.conf", "[program:b]\ncommand = sleep 1\nworkers = 3\n");
	put("env", "A=1\nB=two words\n");
	assert_int_equal(symlink("b.conf", at("link.conf")), 0); /* read once */
	c = load();
	assert_int_equal(c->program_count, 1);
	put("a.ini", "garbage");
	put("c.conf", "[program:c]\ncommand = sleep 1\n");
	(void)unlink(at("b.conf"));
	(void)unlink(at("env"));
	again = load_again(c);
	same(c, again);
	assert_int_equal(again->program_count, 1);
	assert_int_equal(again->programs[0].workers, 3);
	assert_int_equal(again->environment_count, 2);
	third = load_again(again); /* an upgrade of an upgrade */
	config_unref(again);
	same(c, third);
	config_unref(third);
	config_unref(c);
}

static void test_text_in_place_of_a_file(void **state)
{
	char text[256];
	struct errlist findings;
	struct config *c = NULL, *again = NULL;

	(void)state;
	snprintf(text, sizeof text,
		"[include]\nfiles = %s\n[baton]\n[program:x]\ncommand = sleep 2\n", at("b.conf"));
	put("b.conf", "[program:b]\ncommand = sleep 1\n");
	errlist_init(&findings);
	assert_int_equal(
		config_load_text(at("x.ini"), text, CONFIG_FORCE_NATIVE, &c, &findings), 0);
	(void)unlink(at("b.conf"));
	assert_int_equal(config_load_sources(c->path, text, CONFIG_FORCE_NATIVE, config_sources(c),
				 &again, &findings),
		0);
	same(c, again);
	assert_int_equal(again->program_count, 2);
	errlist_release(&findings);
	config_unref(c);
	config_unref(again);
}

static void test_what_was_not_read_is_not_read(void **state)
{
	static const struct config_sources nothing = {.directory = "/"};
	struct errlist findings;
	struct config *c = NULL;

	(void)state;
	put("a.ini", "[program:b]\ncommand = sleep 1\n");
	errlist_init(&findings);
	assert_true(
		config_load_sources(at("a.ini"), NULL, CONFIG_DETECT, &nothing, &c, &findings) < 0);
	errlist_release(&findings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_as_it_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_text_in_place_of_a_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_what_was_not_read_is_not_read, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

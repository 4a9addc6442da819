/* Columns, times and durations of the command line; its options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/cli/cli.h"
#include "supervisor/cli/output.h"

static void test_durations(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} t[] = {{-5, "0s"}, {0, "0ms"}, {999, "999ms"}, {1000, "1s"}, {59999, "59s"},
		{60000, "1m 0s"}, {3599999, "59m 59s"}, {3600000, "1h 0m"}, {86399999, "23h 59m"},
		{86400000, "1d 0h"}, {INT64_MAX, "106751991167d 7h"}};
	char buf[64];

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		assert_string_equal(output_duration(t[i].ms, buf, sizeof(buf)), t[i].text);
}

static void test_times(void **state)
{
	static const char *const same[] = {"1970-01-01T00:00:00.001Z", "2026-02-28T23:59:59.999Z",
		"2024-02-29T12:00:00.500Z", "2100-12-31T00:00:00.010Z"};
	char buf[64];

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		assert_string_equal(
			output_time(output_parse_time(same[i]), buf, sizeof(buf)), same[i]);
	assert_int_equal(output_parse_time(NULL), 0);
	assert_int_equal(output_parse_time(""), 0);
	assert_int_equal(output_parse_time("yesterday"), 0);
	assert_string_equal(output_time(0, buf, sizeof(buf)), "-");
	assert_string_equal(output_time(-1, buf, sizeof(buf)), "-");
	output_time(INT64_MAX, buf, sizeof(buf));
}

static char *print(struct output_table *t, int width)
{
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	output_table_print(t, to, false, width);
	fclose(to);
	return text;
}

static void test_table(void **state)
{
	struct output_table t;
	char *text;

	(void)state;
	output_table_init(&t, 3);
	output_cell(&t, PLAIN, "a");
	output_cell(&t, PLAIN, "h\u00e9");
	output_cell(&t, PLAIN, "0123456789");
	output_cell(&t, PLAIN, "bbb");
	output_cell(&t, PLAIN, "c");
	output_cell(&t, PLAIN, "%s", "");
	output_cell(&t, PLAIN, "\033[31m");
	output_cell(&t, PLAIN, "%s", "");
	output_cell(&t, PLAIN, "%s", "");
	text = print(&t, 0);
	assert_string_equal(text, "a      h\u00e9  0123456789\nbbb    c\n [31m\n");
	free(text);
	for (int i = 0; i < 6; i++)
		output_cell(&t, PLAIN,
			i % 3 == 2 ? "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9" : "x");
	text = print(&t, 12);
	assert_string_equal(text, "x  x  \u00e9\u00e9\u00e9...\nx  x  \u00e9\u00e9\u00e9...\n");
	free(text);
	text = print(&t, 12); /* printing emptied it */
	assert_string_equal(text, "");
	free(text);
}

static const struct cli_command commands[] = {{.name = "x"}, {.name = NULL}};

static int parse(struct cli *c, const char *line, char **words)
{
	static char copy[256];
	static char *argv[64];
	int argc = 0;

	snprintf(copy, sizeof(copy), "baton %s", line);
	for (char *save, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	optind = 0;
	memset(c, 0, sizeof(*c));
	c->commands = commands;
	return cli_parse(c, argc, argv, words);
}

static void test_options(void **state)
{
	static const struct {
		const char *line, *words, *config, *unknown;
		unsigned set;
	} t[] = {
		{"", "", NULL, "", 0},
		{"-c a status", "status", "a", "", CLI_BIT(CONFIG)},
		{"status -ca", "status", "a", "", CLI_BIT(CONFIG)},
		{"status --config=a web", "status web", "a", "", CLI_BIT(CONFIG)},
		{"status web --json db -c a", "status web db", "a", "",
			CLI_BIT(CONFIG) | CLI_BIT(JSON)},
		{"scale web -1", "scale web -1", NULL, "", 0},
		{"scale -c a web -12 --no-wait", "scale web -12", "a", "",
			CLI_BIT(CONFIG) | CLI_BIT(NO_WAIT)},
		{"x -- --json -c", "x --json -c", NULL, "", 0},
		{"x --frob y", "x y", NULL, "--frob", 0},
		{"x -z y", "x y", NULL, "-z", 0},
		{"x --frob --grob -z", "x", NULL, "--frob", 0},
		{"x -", "x -", NULL, "", 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		char *words[64], joined[256] = "";
		struct cli c;

		assert_int_equal(parse(&c, t[i].line, words), 0);
		for (int w = 0; w < c.word_count; w++) {
			if (w)
				strcat(joined, " ");
			strcat(joined, c.words[w]);
		}
		assert_string_equal(joined, t[i].words);
		assert_string_equal(c.unknown, t[i].unknown);
		assert_int_equal(c.set, t[i].set);
		if (t[i].config)
			assert_string_equal(c.values[OPTION_CONFIG], t[i].config);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

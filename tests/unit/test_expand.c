/* %(name)s, and text taken apart into words and variables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/expand.h"
#include "conf/words.h"

static struct arena memory;
static struct err error;

struct call {
	const char *text, *result;
	struct expand_scope scope;
};

static void run_expand(void *argument)
{
	struct call *c = argument;

	c->result = expand(&memory, c->text, &c->scope, &error);
}

static const char *expanded(const char *text)
{
	static const struct expand_var vars[] = {{"program_name", "web", 0},
		{"process_num", NULL, 7}, {"listen_http", "[::1]:80", 0}, {"fd_http", NULL, 3}};
	static const struct config_pair outer[] = {{"A", "outer"}, {"B", "outer b"}};
	static const struct config_pair inner[] = {{"A", "first"}, {"A", "inner"}, {"EMPTY", ""}};
	struct call c = {.text = text};

	arena_release(&memory);
	error.text[0] = '\0';
	c.scope = (struct expand_scope){.here = "/etc",
		.vars = vars,
		.var_count = 4,
		.environment = {outer, inner},
		.environment_count = {2, 3}};
	assert_int_equal(arena_run(&memory, run_expand, &c), 0);
	return c.result;
}

static void good(const char *text, const char *wanted)
{
	const char *result = expanded(text);

	if (!result)
		fail_msg("'%s': %s", text, error.text);
	assert_string_equal(result, wanted);
}

static void bad(const char *text, const char *part)
{
	const char *result = expanded(text);

	if (result)
		fail_msg("'%s' gave '%s'", text, result);
	if (!strstr(error.text, part))
		fail_msg("'%s': %s", text, error.text);
}

static void test_expand(void **state)
{
	(void)state;
	setenv("BATON_TEST_X", "from outside", 1);
	unsetenv("BATON_TEST_Y");
	good("", "");
	good("plain", "plain");
	good("100%%", "100%");
	good("%(program_name)s", "web");
	good("%(process_num)d %(process_num)02d %(process_num)s %(process_num)03i", "7 07 7 007");
	good("%(process_num)5d|%(process_num)-5d|%(process_num)+d", "    7|7    |+7");
	good("%(process_num).3d|%(process_num)x|%(process_num)#o", "007|7|07");
	good("%(program_name)5s|%(program_name)-5s|%(program_name).2s", "  web|web  |we");
	good("%(here)s/x", "/etc/x");
	good("%(fd_http)d %(listen_http)s", "3 [::1]:80");
	good("%(ENV_A)s %(ENV_B)s", "inner outer b");
	good("%(ENV_BATON_TEST_X)s", "from outside");
	good("%(ENV_BATON_TEST_Y:-a b)s", "a b");
	good("%(ENV_BATON_TEST_Y:-)s", "");
	good("%(ENV_BATON_TEST_Y:-(x))s", "(x)");
	good("%(ENV_EMPTY:-x)s", "x");
	good("%(ENV_EMPTY)s", "");
	good("%(ENV_A:-x)s", "inner");
	bad("%", "%%");
	bad("50% of", "%%");
	bad("%d", "%%");
	bad("%(program_name)", "'s'");
	bad("%(program_name)q", "'s'");
	bad("%(program_name)d", "text");
	bad("%(program_name", "')'");
	bad("%(nothing)s", "not known");
	bad("%()s", "not known");
	bad("%(ENV_BATON_TEST_Y)s", ":-DEFAULT");
	bad("%(process_num)99999999999d", "width");
	bad("%(process_num).99999d", "width");
}

static void test_uses(void **state)
{
	(void)state;
	assert_true(expand_uses("a %(process_num)02d", "process_num"));
	assert_false(expand_uses("a %(process_number)d", "process_num"));
	assert_false(expand_uses("process_num", "process_num"));
}

/* --- words ----------------------------------------------------------------------------------- */

struct split {
	const char *text;
	enum words_rules rules;
	char **words;
	size_t count;
	int rc;
};

static void run_split(void *argument)
{
	struct split *s = argument;

	s->rc = words_split(&memory, s->text, s->rules, &s->words, &s->count, &error);
}

/* WANTED: the words with bars around them. */
static void split(const char *text, enum words_rules rules, const char *wanted)
{
	struct split s = {.text = text, .rules = rules};
	char got[512] = "|";

	arena_release(&memory);
	assert_int_equal(arena_run(&memory, run_split, &s), 0);
	if (s.rc < 0) {
		if (wanted)
			fail_msg("%s: %s", text, error.text);
		return;
	}
	assert_null(s.words[s.count]);
	for (size_t i = 0; i < s.count; i++) {
		strcat(got, s.words[i]);
		strcat(got, "|");
	}
	if (!wanted)
		fail_msg("%s gave %s", text, got);
	assert_string_equal(got, wanted);
}

static void test_split(void **state)
{
	(void)state;
	for (int rules = WORDS_POSIX; rules <= WORDS_SHLEX; rules++) {
		split("", rules, "|");
		split("  a  b\t\nc ", rules, "|a|b|c|");
		split("a'b c'd", rules, "|ab cd|");
		split("'' \"\"", rules, "|||");
		split("a\\ b \\\"", rules, "|a b|\"|");
		split("\"a\\\"b\\\\c\\d\"", rules, "|a\"b\\c\\d|");
		split("'a\\b'", rules, "|a\\b|");
		split("a #b", rules, "|a|#b|");
		split("it's", rules, NULL);
		split("\"", rules, NULL);
		split("a \\", rules, NULL);
		split("$X > y | z", rules, "|$X|>|y|||z|");
	}
	split("\"\\$ \\`\"", WORDS_POSIX, "|$ `|");
	split("\"\\$ \\`\"", WORDS_SHLEX, "|\\$ \\`|");
	split("a\\\nb \"c\\\nd\"", WORDS_POSIX, "|ab|cd|");
}

static const char *syntax_found;

static void run_syntax(void *argument)
{
	syntax_found = words_shell_syntax(&memory, argument);
}

static const char *syntax(const char *text)
{
	arena_release(&memory);
	assert_int_equal(arena_run(&memory, run_syntax, (void *)(uintptr_t)text), 0);
	return syntax_found;
}

static void test_shell_syntax(void **state)
{
	(void)state;
	assert_null(syntax("a b --x=1 'a|b' \"$X > y\" \\$X a&b x;y"));
	assert_string_equal(syntax("a | b"), "|");
	assert_string_equal(syntax("a > b"), ">");
	assert_string_equal(syntax("a && b"), "&&");
	assert_string_equal(syntax("a &"), "&");
	assert_string_equal(syntax("a $HOME/x"), "$HOME");
	assert_string_equal(syntax("a ${X}"), "${X");
	assert_string_equal(syntax("a; b"), ";");
	assert_string_equal(syntax("a `b`"), "`");
	assert_null(syntax("price 5$"));
}

/* --- environment ----------------------------------------------------------------------------- */

struct pairing {
	const char *text;
	bool native;
	struct config_pair *pairs;
	size_t count;
	int rc;
};

static void run_pairs(void *argument)
{
	struct pairing *p = argument;

	p->rc = words_pairs(&memory, p->text, p->native, &p->pairs, &p->count, &error);
}

static void pairs(const char *text, bool native, const char *wanted)
{
	struct pairing p = {.text = text, .native = native};
	char got[512] = "";

	arena_release(&memory);
	assert_int_equal(arena_run(&memory, run_pairs, &p), 0);
	if (p.rc < 0) {
		if (wanted)
			fail_msg("%s: %s", text, error.text);
		return;
	}
	for (size_t i = 0; i < p.count; i++) {
		strcat(got, p.pairs[i].key);
		strcat(got, "=");
		strcat(got, p.pairs[i].value);
		strcat(got, ";");
	}
	if (!wanted)
		fail_msg("%s gave %s", text, got);
	assert_string_equal(got, wanted);
}

static void test_pairs(void **state)
{
	(void)state;
	for (int native = 0; native <= 1; native++) {
		pairs("", native, "");
		pairs("A=1", native, "A=1;");
		pairs("A=1,B=\"x, y\",C='z'", native, "A=1;B=x, y;C=z;");
		pairs("A=1,\n  B=2,\n", native, "A=1;B=2;");
		pairs("A=\"it's\"", native, "A=it's;");
		pairs("P=/usr/bin:/bin,N=-1.5", native, "P=/usr/bin:/bin;N=-1.5;");
		pairs("A=\"%(x)s\\n\"", native, "A=%(x)s\\n;");
		pairs("A", native, NULL);
		pairs("A=\"x", native, NULL);
		pairs("=1", native, NULL);
	}
	pairs("A=a@b", false, NULL); /* supervisord refuses it as well */
	pairs("A=a@b,B=x y", true, "A=a@b;B=x y;");
	pairs("A=\"x\\\"y\"", true, "A=x\"y;");
	pairs("A=", true, "A=;");
	pairs("A=", false, NULL);
	pairs("A=1 # comment\n,B=2", false, "A=1;B=2;");
}

static void run_line(void *argument)
{
	static const struct {
		const char *line, *key, *value;
	} lines[] = {
		{"A=1", "A", "1"},
		{"export A = \"a b\" ", "A", "a b"},
		{"A='$x # y'", "A", "$x # y"},
		{"A=a=b", "A", "a=b"},
		{"A=", "A", ""},
		{"A=\"q\\\"\\\\\"", "A", "q\"\\"},
		{"A=\"open", "A", "\"open"},
		{"  # c", NULL, NULL},
		{"", NULL, NULL},
		{"\r", NULL, NULL},
	};
	struct config_pair pair;

	(void)argument;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		int rc = words_file_line(&memory, lines[i].line, &pair, &error);
		assert_int_equal(rc, lines[i].key != NULL);
		if (rc == 1) {
			assert_string_equal(pair.key, lines[i].key);
			assert_string_equal(pair.value, lines[i].value);
		}
	}
	assert_int_equal(words_file_line(&memory, "nonsense", &pair, &error), ERR_CONFIG);
	assert_int_equal(words_file_line(&memory, "=1", &pair, &error), ERR_CONFIG);
}

static void test_file_lines(void **state)
{
	(void)state;
	arena_release(&memory);
	assert_int_equal(arena_run(&memory, run_line, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_expand),
		cmocka_unit_test(test_uses),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_shell_syntax),
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_file_lines),
	};
	int rc;

	arena_init(&memory);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	arena_release(&memory);
	return rc;
}

/* Logical lines out of text, through inih, with nothing cut. */
#include <ini.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/ini.h"
#include "conf/reader.h"

static struct arena memory;
static struct errlist findings;
static struct ini ini;

struct input {
	const char *text;
	size_t bytes;
	bool native;
};

static void parse_in_arena(void *argument)
{
	struct input *in = argument;

	ini_init(&ini, &memory, &findings, in->native);
	ini_read_text(&ini, "x.ini", in->text, in->bytes);
}

static void parse(const char *text, bool native)
{
	struct input in = {text, strlen(text), native};

	arena_release(&memory);
	errlist_release(&findings);
	assert_int_equal(arena_run(&memory, parse_in_arena, &in), 0);
}

static const struct ini_entry *entry(const char *section, const char *key)
{
	const struct ini_entry *e = ini_get(&ini, ini_section(&ini, section), key);

	if (!e)
		fail_msg("[%s] %s is not there", section, key);
	return e;
}

static const char *value(const char *section, const char *key)
{
	return entry(section, key)->value;
}

static int setup(void **state)
{
	(void)state;
	arena_init(&memory);
	errlist_init(&findings);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	arena_release(&memory);
	errlist_release(&findings);
	return 0;
}

/* --- what the packaged inih does by itself, and why it never sees the text -------------------- */

static int keep_value(void *user, const char *section, const char *name, const char *text)
{
	(void)section;
	(void)name;
	snprintf(user, 4096, "%s", text);
	return 1;
}

static void test_bare_inih_cuts(void **state)
{
	char text[1024], seen[4096] = "";

	(void)state;
	snprintf(text, sizeof(text), "[a]\nx = %0500d\n", 7);
	ini_parse_string(text, keep_value, seen);
	assert_true(strlen(seen) < 500);
	ini_parse_string("[a]\nx = \"1 ; 2\"\n", keep_value, seen);
	assert_string_equal(seen, "\"1");
}

static void test_nothing_is_cut(void **state)
{
	static const size_t sizes[] = {
		1, 48, 49, 50, 51, 195, 198, 199, 200, 201, 1000, 65536, 1 << 20, 5 << 20};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t n = sizes[i];
		char *word = malloc(n + 1), *text = malloc(4 * n + 64);
		assert_non_null(word);
		assert_non_null(text);
		memset(word, 'w', n);
		word[n] = '\0';
		sprintf(text, "[%s]\n%s = %s\nlast = %s", word, word, word, word);
		parse(text, true);
		assert_int_equal(findings.count, 0);
		assert_string_equal(value(word, word), word);
		assert_string_equal(value(word, "last"), word);
		assert_int_equal(entry(word, "last")->place.line, 3);
		free(word);
		free(text);
	}
}

/* --- grammar --------------------------------------------------------------------------------- */

static void test_plain(void **state)
{
	(void)state;
	parse("[a]\nx = 1\ny:2\nZ : three words \n[ b : c ]\nempty =\n", true);
	assert_int_equal(findings.count, 0);
	assert_string_equal(value("a", "x"), "1");
	assert_string_equal(value("a", "y"), "2");
	assert_string_equal(value("a", "z"), "three words");
	assert_string_equal(value("b:c", "empty"), "");
	assert_int_equal(entry("b:c", "empty")->place.line, 6);
	assert_string_equal(entry("a", "x")->place.file, "x.ini");
}

static void test_line_ends_and_mark(void **state)
{
	(void)state;
	parse("\xef\xbb\xbf[a]\r\nx = 1\r\ny = 2\rz = 3", true);
	assert_int_equal(findings.count, 0);
	assert_string_equal(value("a", "x"), "1");
	assert_string_equal(value("a", "y"), "2");
	assert_string_equal(value("a", "z"), "3");
	assert_int_equal(entry("a", "z")->place.line, 4);
}

static void test_continuation(void **state)
{
	(void)state;
	parse("[a]\nx = 1\n  2 ; c\n\n# c\n\t3\n\ny = 4\n", true);
	assert_string_equal(value("a", "x"), "1\n2\n\n3");
	assert_string_equal(value("a", "y"), "4");
	assert_int_equal(entry("a", "y")->place.line, 8);
}

static void test_comments_in_quotes(void **state)
{
	const char *text =
		"[a]\nx = sh -c \"a ; b\" ; c\ny = it's ; don't\nz = K='# v',L=\"\\\" #\" # c\n";

	(void)state;
	parse(text, true);
	assert_int_equal(findings.count, 0);
	assert_string_equal(value("a", "x"), "sh -c \"a ; b\"");
	assert_string_equal(value("a", "y"), "it's");
	assert_string_equal(value("a", "z"), "K='# v',L=\"\\\" #\"");
	parse(text, false);
	assert_string_equal(value("a", "x"), "sh -c \"a");
	assert_int_equal(findings.warnings, 2);
	assert_int_equal(findings.items[0].line, 2);
}

static void test_given_twice(void **state)
{
	(void)state;
	parse("[a]\nx = 1\n[b]\n[a]\nx = 2\n", true);
	assert_string_equal(value("a", "x"), "2");
	assert_int_equal(findings.errors, 0);
	assert_int_equal(findings.warnings, 2);
	assert_int_equal(findings.items[0].line, 4);
	assert_non_null(strstr(findings.items[0].text, "x.ini:1"));
	assert_int_equal(findings.items[1].line, 5);
	assert_non_null(strstr(findings.items[1].text, "x.ini:2"));
}

static void test_defaults(void **state)
{
	(void)state;
	parse("[DEFAULT]\nx = 1\n[a]\n[b]\nx = 2\n", true);
	assert_string_equal(value("a", "x"), "1");
	assert_string_equal(value("b", "x"), "2");
	assert_null(ini_section(&ini, "DEFAULT"));
}

static void test_bad_lines(void **state)
{
	(void)state;
	parse("x = 1\n[a]\nnonsense\n= 2\n[\ny = 3\n", true);
	assert_int_equal(findings.errors, 4);
	assert_int_equal(findings.items[0].line, 1);
	assert_int_equal(findings.items[1].line, 3);
	assert_int_equal(findings.items[2].line, 4);
	assert_int_equal(findings.items[3].line, 5);
	assert_string_equal(value("a", "y"), "3");
}

static void test_not_text(void **state)
{
	struct input in = {"[a]\nx = \0 1\n", 12, true};

	(void)state;
	arena_release(&memory);
	assert_int_equal(arena_run(&memory, parse_in_arena, &in), 0);
	assert_int_equal(findings.errors, 1);
	assert_int_equal(findings.items[0].line, 2);
	assert_non_null(strstr(findings.items[0].text, "NUL"));
	parse("[a]\n\nx = \xff\n", true);
	assert_int_equal(findings.errors, 1);
	assert_int_equal(findings.items[0].line, 3);
	parse("[a]\n\nx = \xff\n", false);
	assert_int_equal(findings.errors, 0);
	assert_int_equal(findings.warnings, 1);
	assert_string_equal(value("a", "x"), "\xff");
}

static void test_utf8(void **state)
{
	static const char *const bad[] = {"\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80",
		"\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
		"a\xe2\x82"};
	const char *good = "aä漢😀";

	(void)state;
	assert_null(reader_not_utf8(good, good + strlen(good)));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_non_null(reader_not_utf8(bad[i], bad[i] + strlen(bad[i])));
}

/* --- files ----------------------------------------------------------------------------------- */

struct loading {
	const char *path;
	char *text;
	size_t bytes;
	struct err e;
	int rc;
};

static void load_in_arena(void *argument)
{
	struct loading *l = argument;

	l->rc = reader_load(&memory, l->path, &l->text, &l->bytes, &l->e);
}

static int load_file(struct loading *l, const char *path)
{
	memset(l, 0, sizeof(*l));
	l->path = path;
	assert_int_equal(arena_run(&memory, load_in_arena, l), 0);
	return l->rc;
}

static void test_files(void **state)
{
	char path[] = "/tmp/baton-reader-XXXXXX";
	int fd = mkstemp(path);
	struct loading l;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(load_file(&l, path), 0);
	assert_int_equal(l.bytes, 0);
	assert_int_equal(ftruncate(fd, (off_t)READER_FILE_BYTES + 1), 0);
	assert_int_equal(load_file(&l, path), ERR_LIMIT);
	assert_non_null(strstr(l.e.text, "64 MiB"));
	close(fd);
	unlink(path);
	assert_int_equal(load_file(&l, path), ERR_SYSTEM);
	assert_int_equal(load_file(&l, "/tmp"), ERR_CONFIG);
	assert_non_null(strstr(l.e.text, "directory"));
	assert_int_equal(load_file(&l, "/dev/zero"), ERR_LIMIT);
	assert_int_equal(load_file(&l, "/dev/null"), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(load_file(&l, path), 0); /* nobody writes: empty, and no waiting */
	unlink(path);
}

/* Every byte sequence gives values or findings, never a crash: the sanitizers watch. */
static void test_any_bytes(void **state)
{
	static const char alphabet[] = "[]=:;# \t\n\r\"'\\a%()\xc2\x85\xe2\x80\xa8\xff\x1c";
	unsigned seed = (unsigned)getpid();
	char text[64];

	(void)state;
	print_message("seed %u\n", seed);
	for (int round = 0; round < 20000; round++) {
		size_t n = (size_t)rand_r(&seed) % (sizeof(text) - 4);
		memcpy(text, "[a]", 3);
		for (size_t i = 0; i < n; i++)
			text[3 + i] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
		text[3 + n] = '\0';
		parse(text, round % 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bare_inih_cuts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_is_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_line_ends_and_mark, setup, teardown),
		cmocka_unit_test_setup_teardown(test_continuation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_comments_in_quotes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_given_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_text, setup, teardown),
		cmocka_unit_test_setup_teardown(test_utf8, setup, teardown),
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_any_bytes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

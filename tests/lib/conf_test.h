/*
 * For unit tests of conf/: a file in a folder of its own, its snapshot, its findings.
 */
#ifndef BATON_TESTS_LIB_CONF_TEST_H
#define BATON_TESTS_LIB_CONF_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf/config.h"

struct conf_test {
	char folder[64];
	char path[128];        /* FOLDER/x.ini */
	struct config *config; /* NULL: refused */
	struct errlist findings;
};

static inline void conf_test_write(const char *folder, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
}

static inline void conf_test_open(struct conf_test *t)
{
	memset(t, 0, sizeof(*t));
	snprintf(t->folder, sizeof(t->folder), "/tmp/baton-conf-XXXXXX");
	assert_non_null(mkdtemp(t->folder));
	snprintf(t->path, sizeof(t->path), "%s/x.ini", t->folder);
	errlist_init(&t->findings);
}

static inline void conf_test_reload(struct conf_test *t, const char *text, enum config_force force)
{
	config_unref(t->config);
	t->config = NULL;
	errlist_release(&t->findings);
	if (text)
		conf_test_write(t->folder, "x.ini", text);
	config_load(t->path, force, &t->config, &t->findings);
}

static inline void conf_test_close(struct conf_test *t)
{
	char command[128];

	config_unref(t->config);
	errlist_release(&t->findings);
	assert_int_equal(chdir("/"), 0);
	snprintf(command, sizeof(command), "rm -rf %s", t->folder);
	assert_int_equal(system(command), 0);
}

static inline void conf_test_load(struct conf_test *t, const char *text)
{
	conf_test_open(t);
	conf_test_reload(t, text, CONFIG_DETECT);
}

static inline void conf_test_print(const struct conf_test *t)
{
	char line[ERR_FILE_BYTES + ERR_TEXT_BYTES + 16];

	for (size_t i = 0; i < t->findings.count; i++)
		print_message("%s %s\n", t->findings.items[i].warning ? "warning" : "error",
			err_format(&t->findings.items[i], line, sizeof(line)));
}

/* The number of findings whose text has PART in it, at LINE (0 = any). */
static inline int conf_test_count(
	const struct conf_test *t, bool warning, int line, const char *part)
{
	int count = 0;

	for (size_t i = 0; i < t->findings.count; i++) {
		const struct err *e = &t->findings.items[i];
		count += e->warning == warning && (line == 0 || e->line == line) &&
			 strstr(e->text, part) != NULL;
	}
	if (count == 0)
		conf_test_print(t);
	return count;
}

#define assert_error(t, line, part)   assert_int_equal(conf_test_count(t, false, line, part), 1)
#define assert_warning(t, line, part) assert_int_equal(conf_test_count(t, true, line, part), 1)
#define assert_loaded(t)                                                                           \
	do {                                                                                       \
		if (!(t)->config)                                                                  \
			conf_test_print(t);                                                        \
		assert_non_null((t)->config);                                                      \
	} while (0)

/* TEXT (native) must be refused with exactly one error. */
static inline void refuse_one(const char *text, int line, const char *part)
{
	struct conf_test t;

	conf_test_load(&t, text);
	if (t.config || t.findings.errors != 1)
		conf_test_print(&t);
	assert_null(t.config);
	assert_int_equal(t.findings.errors, 1);
	assert_error(&t, line, part);
	conf_test_close(&t);
}

/* TEXT must load with exactly one warning. */
static inline void warn_one(const char *text, int line, const char *part)
{
	struct conf_test t;

	conf_test_load(&t, text);
	assert_loaded(&t);
	if (t.findings.warnings != 1)
		conf_test_print(&t);
	assert_int_equal(t.findings.warnings, 1);
	assert_warning(&t, line, part);
	conf_test_close(&t);
}

#endif

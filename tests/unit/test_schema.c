/* The rows: each complete, each documented, each default readable by its own type. */
#include "tests/lib/conf_test.h"

#include <ctype.h>

#include "conf/schema.h"
#include "conf/units.h"

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		assert_non_null(row->key);
		assert_non_null(row->value);
		assert_non_null(row->help);
		assert_true(strlen(row->help) > 5 && strlen(row->help) < 120);
		assert_true(isupper((unsigned char)row->help[0]) ||
			    islower((unsigned char)row->help[0]));
		assert_true(row->least <= row->most);
		for (const char *p = row->key; *p; p++)
			assert_true(islower((unsigned char)*p) || isdigit((unsigned char)*p) ||
				    *p == '_');
		assert_ptr_equal(schema_find(row->section, row->key), row); /* and only one */
		if (row->type == TYPE_WORD || row->type == TYPE_EITHER)
			assert_non_null(row->words);
	}
}

static void test_defaults_are_in_bounds(void **state)
{
	(void)state;
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		for (int native = 0; native <= 1; native++) {
			const char *text = schema_default(row, native);
			int64_t value;
			if (!text[0] || (row->type != TYPE_DURATION && row->type != TYPE_INTEGER))
				continue;
			if (row->type == TYPE_DURATION)
				assert_int_equal(units_duration(text, &value, NULL), 0);
			else
				assert_int_equal(units_integer(text, &value, NULL), 0);
			if (row->least || row->most)
				assert_true(value >= row->least && value <= row->most);
		}
	}
}

static void test_every_key_of_supervisord(void **state)
{
	static const char *const program[] = {"command", "process_name", "numprocs",
		"numprocs_start", "priority", "autostart", "startsecs", "startretries",
		"autorestart", "exitcodes", "stopsignal", "stopwaitsecs", "stopasgroup",
		"killasgroup", "user", "redirect_stderr", "stdout_logfile",
		"stdout_logfile_maxbytes", "stdout_logfile_backups", "stdout_capture_maxbytes",
		"stdout_events_enabled", "stdout_syslog", "stderr_logfile",
		"stderr_logfile_maxbytes", "stderr_logfile_backups", "stderr_capture_maxbytes",
		"stderr_events_enabled", "stderr_syslog", "environment", "directory", "umask",
		"serverurl"};
	static const char *const supervisord[] = {"logfile", "logfile_maxbytes", "logfile_backups",
		"loglevel", "pidfile", "umask", "nodaemon", "silent", "minfds", "minprocs",
		"nocleanup", "childlogdir", "user", "directory", "strip_ansi", "environment",
		"identifier"};

	(void)state;
	for (size_t i = 0; i < sizeof(program) / sizeof(program[0]); i++) {
		const struct schema_row *row = schema_find(SECTION_PROGRAM, program[i]);
		assert_non_null(row);
		assert_false(row->flags & SCHEMA_OWN); /* else it would make a file native */
	}
	for (size_t i = 0; i < sizeof(supervisord) / sizeof(supervisord[0]); i++) {
		const struct schema_row *row = schema_find(SECTION_BATON, supervisord[i]);
		assert_non_null(row);
		assert_false(row->flags & SCHEMA_OWN);
	}
}

static void test_nearest(void **state)
{
	(void)state;
	assert_string_equal(schema_nearest_key(SECTION_PROGRAM, "comand"), "command");
	assert_string_equal(schema_nearest_key(SECTION_PROGRAM, "worker"), "workers");
	assert_string_equal(schema_nearest_key(SECTION_SCHEDULER, "hartbeat"), "heartbeat");
	assert_null(schema_nearest_key(SECTION_PROGRAM, "completely_different"));
	assert_string_equal(schema_nearest_section("programm:web"), "program:");
	assert_string_equal(schema_nearest_section("sheduler"), "scheduler");
	assert_null(schema_nearest_section("nonsense"));
}

/* What is not built is refused by name in native mode, and said in the other. */
static void test_every_unbuilt_key_is_refused(void **state)
{
	struct conf_test t;
	char text[512];

	(void)state;
	conf_test_open(&t);
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		const char *section = row->section == SECTION_SOCKET ? "[socket:s]\nlisten=:0\n"
								     : "";
		if (!(row->flags & (SCHEMA_LATER | SCHEMA_GROWS)) || row->section == SECTION_BATON)
			continue;
		snprintf(text, sizeof(text),
			"[program:a]\ncommand=/bin/true\n%s%s = yes\n[baton]\n", section, row->key);
		conf_test_reload(&t, text, CONFIG_DETECT);
		if (t.config)
			fail_msg("%s was taken", row->key);
		assert_int_equal(t.findings.errors, 1);
		assert_error(&t, 0, "not supported yet");
		conf_test_reload(&t, text, CONFIG_FORCE_COMPAT);
		assert_loaded(&t);
		assert_warning(&t, 0, "not supported yet");
	}
	conf_test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_defaults_are_in_bounds),
		cmocka_unit_test(test_every_key_of_supervisord),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_every_unbuilt_key_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

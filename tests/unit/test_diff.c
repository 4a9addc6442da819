/* What a reload would change, and the dump that it is seen in. */
#include "tests/lib/conf_test.h"

#include "conf/schema.h"

#define BASE                                                                                       \
	"[baton]\nname = x\n[scheduler]\nttl = 60s\n[socket:http]\nlisten = :8000\n"               \
	"[program:web]\ncommand = /bin/true %(process_num)d\nsockets = http\n"                     \
	"[program:other]\ncommand = /bin/true\n"

static struct config_diff compare(const char *before, const char *after)
{
	struct conf_test a, b;
	struct config_diff d;
	static const char *const names[] = {"same", "live", "count", "roll", "added", "removed"};

	conf_test_load(&a, before);
	assert_loaded(&a);
	conf_test_load(&b, after);
	assert_loaded(&b);
	assert_int_equal(config_compare(a.config, b.config, &d), 0);
	for (size_t i = 0; i < d.program_count; i++) /* the names live in the snapshots */
		print_message("%s %s: %s\n", names[d.programs[i].class], d.programs[i].program,
			d.programs[i].text);
	for (size_t i = 0; i < d.program_count; i++)
		d.programs[i].program = strcmp(d.programs[i].program, "web") == 0 ? "web" : "other";
	conf_test_close(&a);
	conf_test_close(&b);
	return d;
}

static const struct config_change *change_of(const struct config_diff *d, const char *program)
{
	for (size_t i = 0; i < d->program_count; i++) {
		if (strcmp(d->programs[i].program, program) == 0)
			return &d->programs[i];
	}
	fail_msg("%s is not in the comparison", program);
	return NULL;
}

/* AFTER = BASE with OLD replaced by NEW; web must be of this class and its text name WORDS. */
static void web_changes(const char *old, const char *new, enum diff_class class, const char *words)
{
	char after[2048];
	const char *at = strstr(BASE, old);
	struct config_diff d;

	assert_non_null(at);
	snprintf(after, sizeof(after), "%.*s%s%s", (int)(at - BASE), BASE, new, at + strlen(old));
	d = compare(BASE, after);
	assert_int_equal(change_of(&d, "web")->class, class);
	assert_non_null(strstr(change_of(&d, "web")->text, words));
	assert_int_equal(change_of(&d, "other")->class, DIFF_SAME);
	config_diff_release(&d);
}

static void test_classes(void **state)
{
	(void)state;
	web_changes("sockets = http\n", "sockets = http\n; a comment\n", DIFF_SAME, "");
	web_changes(
		"sockets = http\n", "sockets = http\nstartsecs = 1000ms\n", DIFF_LIVE, "startsecs");
	web_changes(
		"sockets = http\n", "sockets = http\nstopsignal = INT\n", DIFF_LIVE, "stopsignal");
	web_changes(
		"sockets = http\n", "sockets = http\nworkers = 4\n", DIFF_COUNT, "workers: 1 -> 4");
	web_changes("sockets = http\n", "sockets = http\nnumprocs = 1\n", DIFF_SAME, "");
	web_changes("sockets = http\n", "sockets = http\nworkers = 2\npriority = 1\n", DIFF_COUNT,
		"workers");
	web_changes("sockets = http\n", "sockets = http\nworkers = 2\numask = 077\n", DIFF_ROLL,
		"umask changed, workers: 1 -> 2");
	web_changes("sockets = http\n", "", DIFF_ROLL, "sockets");
	web_changes("%(process_num)d", "%(process_num)s", DIFF_ROLL, "command");
	web_changes("%(process_num)d", "0", DIFF_ROLL, "command");
	web_changes("sockets = http\n", "sockets = http\nenvironment = A=\"1\"\n", DIFF_ROLL,
		"environment");
	web_changes("sockets = http\n", "sockets = http\nuser = root\n", DIFF_ROLL, "user");
	web_changes("sockets = http\n", "sockets = http\nrlimit_nofile = 100\n", DIFF_ROLL,
		"rlimit_nofile changed");
	web_changes("listen = :8000", "listen = :8001", DIFF_ROLL, "socket http");
	web_changes("listen = :8000", "listen = :8000\nbacklog = 5", DIFF_SAME, "");
	web_changes("sockets = http\n", "sockets = http\n[group:g]\nprograms=web\n", DIFF_ROLL,
		"group");
}

static void test_limits_are_named(void **state)
{
#define LIMITS "[program:web]\ncommand = /bin/true\n"
	struct config_diff d = compare(LIMITS
		"rlimit_core = 0\nrlimit_nofile = 100\nrlimit_nproc = 5\nrlimit_rttime = 5\n",
		LIMITS "rlimit_rtprio = 9\nrlimit_nproc = 5\nrlimit_nofile = 200\nrlimit_core=0\n");

	(void)state;
	assert_string_equal(
		change_of(&d, "web")->text, "rlimit_rtprio, rlimit_nofile, rlimit_rttime changed");
	config_diff_release(&d);
	d = compare(LIMITS "rlimit_core = 0\nrlimit_nofile = 100\n",
		LIMITS "rlimit_nofile = 100\nrlimit_core = 0\n");
	assert_int_equal(change_of(&d, "web")->class, DIFF_SAME);
	config_diff_release(&d);
}

static void test_baton_environment_rolls_all(void **state)
{
	struct config_diff d = compare(BASE, "[baton]\nname = x\nenvironment = A=\"1\"\n"
					     "[scheduler]\nttl = 60s\n[socket:http]\nlisten=:8000\n"
					     "[program:web]\ncommand=/bin/true %(process_num)d\n"
					     "sockets=http\n[program:other]\ncommand=/bin/true\n");

	(void)state;
	assert_int_equal(change_of(&d, "web")->class, DIFF_ROLL);
	assert_int_equal(change_of(&d, "other")->class, DIFF_ROLL);
	config_diff_release(&d);
}

static void test_environment_file_counts(void **state)
{
	struct conf_test t;
	struct config *before;
	struct config_diff d;

	(void)state;
	conf_test_open(&t);
	conf_test_write(t.folder, "web.env", "A=1\n");
	conf_test_reload(
		&t, "[program:web]\ncommand=/bin/true\nenvironment_file=web.env\n", CONFIG_DETECT);
	assert_loaded(&t);
	before = config_ref(t.config);
	conf_test_write(t.folder, "web.env", "A=2\n");
	conf_test_reload(&t, NULL, CONFIG_DETECT);
	assert_int_equal(config_compare(before, t.config, &d), 0);
	assert_int_equal(d.programs[0].class, DIFF_ROLL);
	config_diff_release(&d);
	config_unref(before);
	conf_test_close(&t);
}

static void test_added_removed_restart_live(void **state)
{
	struct config_diff d = compare(BASE,
		"[baton]\nname = y\nloglevel = debug\n[scheduler]\nttl = 70s\ndatabase = "
		"/tmp/y.db\n"
		"[socket:http]\nlisten = :8000\n"
		"[program:web]\ncommand = /bin/true %(process_num)d\nsockets = http\n"
		"[program:new]\ncommand = /bin/true\n");
	int restart = 0, live = 0;

	(void)state;
	assert_int_equal(d.program_count, 3);
	assert_int_equal(d.programs[0].class, DIFF_SAME);
	assert_int_equal(d.programs[1].class, DIFF_ADDED);
	assert_int_equal(d.programs[2].class, DIFF_REMOVED);
	for (size_t i = 0; i < d.restart_count; i++) {
		print_message("restart %s\n", d.restart[i]);
		restart += strcmp(d.restart[i], "[baton] name: x -> y") == 0 ||
			   strstr(d.restart[i], "-> /tmp/y.db") != NULL;
	}
	for (size_t i = 0; i < d.live_count; i++) {
		print_message("live %s\n", d.live[i]);
		live += strcmp(d.live[i], "[scheduler] ttl: 60s -> 70s") == 0 ||
			strcmp(d.live[i], "[baton] loglevel: info -> debug") == 0;
	}
	assert_int_equal(restart, 2);
	assert_int_equal(live, 2);
	config_diff_release(&d);
}

/* --- dump ------------------------------------------------------------------------------------ */

static void test_dump_loads_again(void **state)
{
	struct conf_test t;
	struct config *before;
	struct config_diff d;
	char *text;

	(void)state;
	conf_test_load(&t, BASE "environment = A=\"50%% ; x\",B='\"'\nworkers = 3\n"
				"rlimit_nofile = 10:20\n");
	assert_loaded(&t);
	before = config_ref(t.config);
	assert_int_equal(config_dump(before, false, &text), 0);
	conf_test_reload(&t, text, CONFIG_DETECT);
	assert_loaded(&t);
	assert_int_equal(t.findings.count, 0);
	assert_int_equal(config_compare(before, t.config, &d), 0);
	for (size_t i = 0; i < d.program_count; i++) {
		/* the command was expanded for the first worker: only its template differs */
		if (i > 0)
			assert_int_equal(d.programs[i].class, DIFF_SAME);
		else
			assert_non_null(strstr(d.programs[i].text, "command"));
		assert_null(strstr(d.programs[i].text, "workers"));
		assert_null(strstr(d.programs[i].text, "rlimit"));
	}
	for (size_t i = 0; i < d.restart_count; i++)
		print_message("restart %s\n", d.restart[i]);
	assert_int_equal(d.restart_count, 0);
	config_diff_release(&d);
	config_unref(before);
	free(text);
	conf_test_close(&t);
}

static void test_dump_json(void **state)
{
	struct conf_test t;
	char *text;

	(void)state;
	conf_test_load(&t, "[program:web]\ncommand = /bin/echo \"%(program_name)s\"\n"
			   "preset = gunicorn\n");
	assert_loaded(&t);
	assert_int_equal(config_dump(t.config, true, &text), 0);
	assert_non_null(strstr(text, "\"command\": {\"value\": \"/bin/echo \\\"web\\\" -w 1\", "
				     "\"file\": \"/tmp/"));
	assert_non_null(strstr(text, "\"line\": 2, \"default\": false, \"source\": \"file\"}"));
	assert_non_null(strstr(text, "\"stopwaitsecs\": {\"value\": \"35s\", \"file\": \"\", "
				     "\"line\": 0, \"default\": false, "
				     "\"source\": \"preset gunicorn\"}"));
	assert_non_null(strstr(text, "PYTHONUNBUFFERED=\\\"1\\\""));
	assert_non_null(strstr(text, "\"startsecs\": {\"value\": \"1s\", \"file\": \"\", "
				     "\"line\": 0, \"default\": true"));
	free(text);
	conf_test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_limits_are_named),
		cmocka_unit_test(test_baton_environment_rolls_all),
		cmocka_unit_test(test_environment_file_counts),
		cmocka_unit_test(test_added_removed_restart_live),
		cmocka_unit_test(test_dump_loads_again),
		cmocka_unit_test(test_dump_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

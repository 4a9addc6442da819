/* What presets find in a command: what works against them, what they follow. */
#include "tests/lib/conf_test.h"

#include "conf/preset.h"

#define SOCKET  "[socket:a]\nlisten = :8000\n"
#define SECOND  INT64_C(1000000000)
#define NO_TEXT NULL

/* A program of PRESET; "gunicorn" and so on are there under their names. */
static void load(struct conf_test *t, const char *preset, const char *command, const char *more)
{
	char text[1024];

	conf_test_open(t);
	snprintf(text, sizeof(text),
		"cd %s && for s in gunicorn uvicorn hypercorn node npm; do ln -s /bin/true $s; "
		"done",
		t->folder);
	assert_int_equal(system(text), 0);
	assert_int_equal(chdir(t->folder), 0);
	conf_test_write(t->folder, "fpm.env", "FPM_SOCKETS=/run/b.fpm=3\n");
	snprintf(text, sizeof(text),
		SOCKET "[program:web]\npreset = %s\ncommand = %s\nenvironment = PATH=\"%s:/bin\"\n"
		       "%s\n",
		preset, command, t->folder, more);
	conf_test_reload(t, text, CONFIG_DETECT);
	assert_loaded(t);
}

/* Exactly one warning, with PART in it; NO_TEXT: none. */
static void warned(const char *preset, const char *command, const char *more, const char *part)
{
	struct conf_test t;

	load(&t, preset, command, more);
	if (t.findings.count != (part != NULL))
		conf_test_print(&t);
	assert_int_equal(t.findings.count, part != NULL);
	if (part)
		assert_warning(&t, 0, part);
	conf_test_close(&t);
}

static void test_shells(void **state)
{
	static const char appended[] = "go to the shell";
	const char *with = "sockets = a";

	(void)state;
	warned("gunicorn", "sh -c \"gunicorn app:app\"", with, appended);
	warned("gunicorn", "env A=1 /bin/bash -c \"gunicorn app:app\"", with, appended);
	warned("gunicorn", "sh -ec \"gunicorn app:app\"", with, appended);
	warned("gunicorn", "sh -c \"gunicorn app:app\" sh", with, appended);
	warned("gunicorn", "sh -c 'exec gunicorn app:app \"$@\"'", with, appended);
	warned("gunicorn", "sh -c 'exec gunicorn app:app \"$@\"' sh", with, NO_TEXT);
	warned("gunicorn", "env A=1 gunicorn app:app", with, NO_TEXT);
	warned("gunicorn", "sh run.sh", with, NO_TEXT); /* what it does is its own */
	warned("node", "sh -c \"node app.js\"", with, "may stay in front");
	warned("node", "sh -c \"cd /tmp && exec node app.js\"", with, NO_TEXT);
}

static void test_wrappers(void **state)
{
	static const char part[] = "npm starts the server as a child";
	const char *with = "sockets = a";

	(void)state;
	warned("node", "npm start", with, part);
	warned("node", "env npm start", with, part);
	warned("node", "env -i -u B A=1 npm start", with, part);
	warned("node", "sh -c \"npm start\"", with, part);
	warned("node", "sh -c \"cd /tmp && exec npm start\"", with, part);
	warned("node", "sh -c \"cd /tmp; env A=b npm start\"", with, part);
	warned("node", "node npm", with, NO_TEXT);
}

static void test_uvicorn(void **state)
{
	struct conf_test t;
	struct config_worker w;
	struct err e;

	(void)state;
	warned("uvicorn", "uvicorn a:a", "sockets = a", NO_TEXT);
	warned("uvicorn", "uvicorn --workers 1 a:a", "sockets = a", NO_TEXT);
	warned("uvicorn", "uvicorn --workers 2 a:a", "sockets = a", "before the application");
	warned("uvicorn", "uvicorn --reload a:a", "", "before the application");
	warned("uvicorn", "uvicorn --reload a:a", "ready = startsecs", "before the application");
	load(&t, "uvicorn", "uvicorn a:a", "sockets = a");
	assert_string_equal(t.config->programs[0].ready_text, "log:Uvicorn running on socket");
	assert_int_equal(config_worker_build(t.config, 0, 0, NULL, &w, &e), 0);
	assert_string_equal(w.command, "uvicorn a:a --workers 1 --fd 3");
	config_worker_release(&w);
	conf_test_close(&t);
	load(&t, "uvicorn", "uvicorn a:a", "");
	assert_string_equal(t.config->programs[0].ready_text, "log:Uvicorn running on");
	conf_test_close(&t);
	load(&t, "uvicorn", "uvicorn --workers=3 a:a", "sockets = a");
	assert_int_equal(t.config->programs[0].ready, READY_STARTSECS);
	conf_test_close(&t);
}

static void stops_after(const char *preset, const char *command, const char *more, int64_t seconds)
{
	struct conf_test t;

	load(&t, preset, command, more);
	assert_int_equal(t.config->programs[0].stopwaitsecs_ns, seconds * SECOND);
	conf_test_close(&t);
}

static void test_stop_time(void **state)
{
	(void)state;
	stops_after("gunicorn", "gunicorn a:a", "", 35);
	stops_after("gunicorn", "gunicorn --graceful-timeout 5 a:a", "", 35);
	stops_after("gunicorn", "gunicorn --graceful-timeout 40 a:a", "", 45);
	stops_after("gunicorn", "gunicorn --graceful-timeout=120 a:a", "", 125);
	stops_after("gunicorn", "gunicorn --graceful-timeout 40 a:a", "stopwaitsecs = 50", 50);
	stops_after("uvicorn", "uvicorn --timeout-graceful-shutdown 45 a:a", "", 50);
	stops_after("hypercorn", "hypercorn --graceful-timeout 40.5 a:a", "", 46);
	stops_after("gunicorn", "gunicorn --graceful-timeout x a:a", "", 35);
	warned("gunicorn", "gunicorn --graceful-timeout 40 a:a", "", NO_TEXT);
	warned("gunicorn", "gunicorn --graceful-timeout 40 a:a", "stopwaitsecs = 40s",
		"is not above the server's own grace (--graceful-timeout 40)");
	warned("gunicorn", "gunicorn --graceful-timeout 40 a:a", "stopwaitsecs = 41s", NO_TEXT);
	warned("gunicorn", "gunicorn --graceful-timeout 120 a:a", "",
		"125s is longer than shutdown_timeout");
}

static void test_background(void **state)
{
	(void)state;
	warned("gunicorn", "gunicorn --daemon a:a", "", "leaves the foreground");
	warned("gunicorn", "gunicorn -D a:a", "", "leaves the foreground");
}

static void test_php_fpm_removes_its_socket(void **state)
{
	const char *at = "sockets = b\n[socket:b]\nlisten = unix:/run/b";

	(void)state;
	warned("php-fpm", "node", at, "php-fpm removes");
	warned("php-fpm", "node", "sockets = a", NO_TEXT);
	warned("php-fpm", "node",
		"environment_file = fpm.env\n"
		"sockets = b\n[socket:b]\nlisten = unix:/run/b",
		NO_TEXT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shells),
		cmocka_unit_test(test_wrappers),
		cmocka_unit_test(test_uvicorn),
		cmocka_unit_test(test_stop_time),
		cmocka_unit_test(test_background),
		cmocka_unit_test(test_php_fpm_removes_its_socket),
	};

	unsetenv("WEB_CONCURRENCY");
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What one worker gets: its name, arguments, environment; presets and the fast check. */
#include "tests/lib/conf_test.h"

#include <sys/stat.h>

#include "conf/preset.h"

static void build(const struct conf_test *t, int program, int index, const char *const *listen,
	struct config_worker *w)
{
	struct err e;

	if (config_worker_build(t->config, program, index, listen, w, &e) < 0)
		fail_msg("%s", e.text);
}

static const char *variable(const struct config_worker *w, const char *key)
{
	const char *found = NULL;

	for (size_t i = 0; i < w->environment_count; i++) {
		if (strcmp(w->environment[i].key, key) == 0) {
			assert_null(found); /* once */
			found = w->environment[i].value;
		}
	}
	return found;
}

static void test_worker(void **state)
{
	static const char *const listen[] = {"127.0.0.1:4711"};
	struct conf_test t;
	struct config_worker w;
	char wanted[256];

	(void)state;
	conf_test_open(&t);
	conf_test_write(t.folder, "all.env", "A=file\nB=file\n");
	conf_test_write(t.folder, "web.env", "C=web file\nD=web file\n");
	conf_test_reload(&t,
		"[baton]\nenvironment_file = all.env\nenvironment = B=\"baton\",E=\"baton\"\n"
		"[socket:http]\nlisten = :0\n"
		"[program:web]\ncommand = /bin/echo %(process_num)02d %(listen_http)s %(fd_http)d "
		"%(ENV_D)s '%(here)s' %(numprocs)d %(group_name)s\n"
		"workers = 4\nnumprocs_start = 10\nsockets = http\nenvironment_file = web.env\n"
		"environment = D=\"own %(process_num)d\",E='%(ENV_B)s'\n"
		"directory = .\nstdout_logfile = out-%(process_num)d.log\n",
		CONFIG_DETECT);
	assert_loaded(&t);
	build(&t, 0, 2, listen, &w);
	assert_string_equal(w.name, "web_12");
	assert_string_equal(w.argv[0], "/bin/echo");
	assert_string_equal(w.argv[1], "12");
	assert_string_equal(w.argv[2], "127.0.0.1:4711");
	assert_string_equal(w.argv[3], "3");
	assert_string_equal(w.argv[4], "own");
	assert_string_equal(w.argv[5], "12");
	assert_string_equal(w.argv[6], t.folder);
	assert_string_equal(w.argv[7], "4");
	assert_string_equal(w.argv[8], "web");
	assert_null(w.argv[9]);
	assert_string_equal(variable(&w, "A"), "file");
	assert_string_equal(variable(&w, "B"), "baton");
	assert_string_equal(variable(&w, "C"), "web file");
	assert_string_equal(variable(&w, "D"), "own 12");
	assert_string_equal(variable(&w, "E"), "baton");
	snprintf(wanted, sizeof(wanted), "%s/out-12.log", t.folder);
	assert_string_equal(w.stdout_path, wanted);
	config_worker_release(&w);
	config_worker_release(&w);
	build(&t, 0, 99, NULL, &w); /* beyond the count: after a scale */
	assert_string_equal(w.name, "web_109");
	assert_string_equal(w.argv[2], ":0");
	config_worker_release(&w);
	conf_test_close(&t);
}

static void test_names(void **state)
{
	struct conf_test t;
	struct config_worker w;

	(void)state;
	conf_test_load(&t, "[supervisord]\n[program:a]\ncommand=/bin/true\nnumprocs=2\n"
			   "process_name=%(program_name)s-%(process_num)d-%(host_node_name)s\n"
			   "[program:b]\ncommand=/bin/true\n");
	assert_loaded(&t);
	build(&t, 0, 1, NULL, &w);
	assert_memory_equal(w.name, "a-1-", 4);
	config_worker_release(&w);
	build(&t, 1, 0, NULL, &w);
	assert_string_equal(w.name, "b");
	config_worker_release(&w);
	build(&t, 1, 1, NULL, &w);
	assert_string_equal(w.name, "b_01");
	config_worker_release(&w);
	conf_test_close(&t);
}

static void test_shell(void **state)
{
	struct conf_test t;
	struct config_worker w;

	(void)state;
	conf_test_load(&t, "[program:a]\ncommand = echo $X | cat\nshell = yes\n");
	assert_loaded(&t);
	assert_int_equal(t.findings.count, 0);
	build(&t, 0, 0, NULL, &w);
	assert_string_equal(w.argv[0], "/bin/sh");
	assert_string_equal(w.argv[1], "-c");
	assert_string_equal(w.argv[2], "echo $X | cat");
	assert_null(w.argv[3]);
	config_worker_release(&w);
	conf_test_close(&t);
}

/* Errors that only a worker shows: an unset variable is one at load, an open quote is one at the
 * start in compatibility mode. */
static void test_late_errors(void **state)
{
	struct conf_test t;
	struct config_worker w = {0};
	struct err e;

	(void)state;
	conf_test_load(&t, "[supervisord]\n[program:a]\ncommand = 'open\n");
	assert_loaded(&t);
	assert_int_equal(config_worker_build(t.config, 0, 0, NULL, &w, &e), ERR_CONFIG);
	assert_int_equal(e.line, 3);
	assert_null(w.argv);
	conf_test_close(&t);
}

/* --- presets --------------------------------------------------------------------------------- */

#define SOCKETS "[socket:a]\nlisten = :0\n[socket:b]\nlisten = :0\n"
/* an executable of the right name anywhere */
#define GUNICORN "[program:web]\ncommand = ./gunicorn"

static void with_servers(struct conf_test *t, const char *text)
{
	char command[256];

	conf_test_open(t);
	snprintf(command, sizeof(command),
		"cd %s && for s in gunicorn uvicorn puma; do ln -s /bin/true $s; done", t->folder);
	assert_int_equal(system(command), 0);
	assert_int_equal(chdir(t->folder), 0);
	conf_test_reload(t, text, CONFIG_DETECT);
}

static void arguments(const char *text, const char *wanted)
{
	struct conf_test t;
	struct config_worker w;
	char got[512] = "";

	with_servers(&t, text);
	assert_loaded(&t);
	build(&t, 0, 0, NULL, &w);
	for (size_t i = 0; w.argv[i]; i++) {
		strcat(got, i ? " " : "");
		strcat(got, w.argv[i]);
	}
	assert_string_equal(got, wanted);
	assert_string_equal(w.command, wanted);
	assert_string_equal(variable(&w, "PYTHONUNBUFFERED"), "1");
	assert_int_equal(t.config->programs[0].listen_variables, !strstr(text, "gunicorn"));
	assert_int_equal(t.config->programs[0].stopwaitsecs_ns / 1000000000, 35);
	config_worker_release(&w);
	conf_test_close(&t);
}

static void test_presets(void **state)
{
	(void)state;
	arguments(GUNICORN " app:app\npreset = gunicorn\n", "./gunicorn app:app -w 1");
	arguments(SOCKETS GUNICORN " app:app\npreset = gunicorn\nsockets = a b\n",
		"./gunicorn app:app -w 1 --bind fd://3 --bind fd://4 --bind fd://5");
	arguments(SOCKETS GUNICORN
		" app:app\npreset = gunicorn\nsockets = a b\nready = startsecs\n",
		"./gunicorn app:app -w 1 --bind fd://3 --bind fd://4");
	arguments(GUNICORN " -b :80 app:app\npreset = gunicorn\nprobe = yes\n",
		"./gunicorn -b :80 app:app -w 1 --bind fd://3");
	arguments(GUNICORN " -w2 app:app\npreset = gunicorn\n", "./gunicorn -w2 app:app");
	arguments(SOCKETS "[program:web]\ncommand = ./uvicorn app:app\npreset = uvicorn\n"
			  "sockets = b\n",
		"./uvicorn app:app --workers 1 --fd 3");
}

/* The command and one variable of another server, with the sockets' addresses as they are bound. */
static void added(const char *program, const char *command, const char *key, const char *value)
{
	static const char *const listen[] = {"[::1]:8000", "unix:/run/b", NULL}; /* probe */
	struct conf_test t;
	struct config_worker w;
	char text[512];

	snprintf(text, sizeof(text), SOCKETS "[program:web]\n%s\n", program);
	with_servers(&t, text);
	assert_loaded(&t);
	build(&t, 0, 0, listen, &w);
	assert_string_equal(w.command, command);
	if (value)
		assert_string_equal(variable(&w, key), value);
	else
		assert_null(variable(&w, key));
	config_worker_release(&w);
	conf_test_close(&t);
}

static void test_more_presets(void **state)
{
	(void)state;
	unsetenv("NODE_OPTIONS");
	added("command=./puma\npreset=puma\nsockets=a b",
		"./puma -w 0 --bind-to-activated-sockets only", "NGINX", NULL);
	added("command=./puma -w 1 --bind-to-activated-sockets\npreset=puma\nsockets=a",
		"./puma -w 1 --bind-to-activated-sockets", "NGINX", NULL);
	added("command=./puma\npreset=puma", "./puma -w 0", "NGINX", NULL);
	added("command=./puma -M --workers 1\npreset=uwsgi\nsockets=b",
		"./puma -M --workers 1 --worker-reload-mercy 30 --hook-master-start "
		"'unix_signal:15 gracefully_kill_them_all' --http-socket fd://3 --http-socket "
		"fd://4",
		"PYTHONUNBUFFERED", "1");
	added("command=./puma -M -p1 --worker-reload-mercy=5 --protocol uwsgi\npreset=uwsgi\n"
	      "sockets=b",
		"./puma -M -p1 --worker-reload-mercy=5 --protocol uwsgi --hook-master-start "
		"'unix_signal:15 gracefully_kill_them_all' --socket fd://3 --socket fd://4",
		"PYTHONUNBUFFERED", "1");
	added("command=./puma\npreset=nginx\nsockets=a b", "./puma -g 'error_log stderr notice;'",
		"NGINX", "3;4;");
	added("command=./puma -g 'daemon off;'\npreset=nginx",
		"./puma -g 'daemon off;' -g 'daemon off; error_log stderr notice;'", "NGINX", "");
	added("command=./puma\npreset=nginx\nready=startsecs", "./puma", "NGINX", "");
	added("command=./puma\npreset=nginx\nready=startsecs\nenvironment=NGINX=\"9;\"", "./puma",
		"NGINX", "9;");
	added("command=./puma\npreset=php-fpm\nsockets=a b", "./puma -F", "FPM_SOCKETS",
		"::1:8000=3,/run/b=4");
	added("command=./puma -F\npreset=php-fpm", "./puma -F", "FPM_SOCKETS", NULL);
	added("command=./puma\npreset=node", "./puma", "NODE_OPTIONS", NULL);
	added("command=./puma\npreset=go\nsockets=a", "./puma", "NODE_OPTIONS", NULL);
}

static void test_node_options(void **state)
{
	static const char *const inherited[] = {NULL, "", "--inherited"};
	struct conf_test t;
	struct config_worker w;

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		char wanted[64], text[256];
		const char *got, *others = i >= 3 ? "--own" : i == 2 ? "--inherited" : "";
		if (inherited[i % 3])
			setenv("NODE_OPTIONS", inherited[i % 3], 1);
		snprintf(text, sizeof(text),
			SOCKETS "[program:web]\ncommand=./puma\npreset=node\nsockets=a\n%s\n",
			i >= 3 ? "environment=NODE_OPTIONS=\"--own\"" : "");
		with_servers(&t, text);
		assert_loaded(&t);
		build(&t, 0, 0, NULL, &w);
		got = variable(&w, "NODE_OPTIONS");
		snprintf(wanted, sizeof(wanted), "%s%s--require=", others, others[0] ? " " : "");
		assert_memory_equal(got, wanted, strlen(wanted));
		assert_non_null(strstr(got, "/share/baton/node/baton-preload.js"));
		config_worker_release(&w);
		conf_test_close(&t);
		unsetenv("NODE_OPTIONS");
	}
}

static void refused_server(const char *text, const char *part)
{
	struct conf_test t;

	with_servers(&t, text);
	assert_null(t.config);
	assert_error(&t, 0, part);
	assert_int_equal(t.findings.errors, 1);
	conf_test_close(&t);
}

static void test_preset_errors(void **state)
{
	(void)state;
	refused_server(
		SOCKETS GUNICORN " --bind=:80 a:a\npreset = gunicorn\nsockets = a\n", "'--bind'");
	refused_server(SOCKETS GUNICORN " -b :80 a:a\npreset = gunicorn\nsockets = a\n", "'-b'");
	refused_server(SOCKETS GUNICORN " -b:80 a:a\npreset = gunicorn\nsockets = a\n", "'-b'");
	refused_server(SOCKETS "[program:web]\ncommand = ./uvicorn a:a\npreset = uvicorn\n"
			       "sockets = a b\n",
		"more than this server");
	refused_server(SOCKETS "[program:web]\ncommand = ./puma -p 80\npreset = puma\n"
			       "sockets = a\n",
		"'-p' beside 'sockets'");
	refused_server(SOCKETS "[program:web]\ncommand = ./puma --http-socket=:80\n"
			       "preset = uwsgi\nsockets = a\n",
		"'--http-socket' beside 'sockets'");
	refused_server(GUNICORN " a:a\npreset = gunicorn\nshell = yes\n", "'preset'");
	refused_server(GUNICORN " a:a\npreset = gunicorn\nexecutor = candidate\npromote = signal\n"
				"promote_signal = USR2\ndemote_signal = RTMIN+1\n",
		"means something else to gunicorn");
}

/* --- fast check ------------------------------------------------------------------------------ */

static void suspect(const char *program, const char *part)
{
	struct conf_test t;
	char text[512];

	snprintf(text, sizeof(text), "[program:web]\nexecutor = candidate\n%s\n", program);
	with_servers(&t, text);
	assert_loaded(&t);
	if (part) {
		assert_warning(&t, 0, part);
	} else {
		if (t.findings.count)
			conf_test_print(&t);
		assert_int_equal(t.findings.count, 0);
	}
	conf_test_close(&t);
}

static void test_fast_check(void **state)
{
	(void)state;
	unsetenv("WEB_CONCURRENCY");
	unsetenv("GUNICORN_CMD_ARGS");
	suspect("command = ./gunicorn app:app", NULL);
	suspect("command = ./gunicorn -w 1 app:app", NULL);
	suspect("command = ./gunicorn -w 4 app:app", "4 gunicorn workers would share one lease: "
						     "every one of them believes it is executor");
	suspect("command = ./gunicorn -w4 app:app", "4 gunicorn workers");
	suspect("command = ./gunicorn --workers=3 app:app", "3 gunicorn workers");
	suspect("command = ./gunicorn --workers 3 app:app", "3 gunicorn workers");
	suspect("command = ./gunicorn --max-requests 1000 app:app", "behind baton's back");
	suspect("command = ./gunicorn --max-requests 0 app:app", NULL);
	suspect("command = ./gunicorn --preload app:app", "in its master");
	suspect("command = ./gunicorn --reload app:app", "restarts its worker");
	suspect("command = ./uvicorn --workers 2 app:app", "2 uvicorn workers");
	suspect("command = ./uvicorn --reload app:app", "restarts its worker");
	suspect("command = ./puma -w 2", "2 puma workers");
	suspect("command = ./gunicorn a:a\nenvironment = WEB_CONCURRENCY=\"4\"", "WEB_CONCURRENCY");
	suspect("command = ./gunicorn a:a\nenvironment = WEB_CONCURRENCY=\"1\"", NULL);
	suspect("command = ./gunicorn a:a\nenvironment = WEB_CONCURRENCY=\"4\"\npreset = gunicorn",
		NULL); /* the preset's -w 1 outranks it */
	suspect("command = ./gunicorn a:a\nenvironment = GUNICORN_CMD_ARGS=\"--workers=5 -t 3\"",
		"5 gunicorn workers");
	suspect("command = ./gunicorn -w 4 a:a\nshell = yes", "4 gunicorn workers");
	suspect("command = /usr/bin/env ./gunicorn -w 4 a:a", "4 gunicorn workers");
	suspect("command = ./gunicorn a:a\nenvironment = GUNICORN_CMD_ARGS=\"--workers=5\"\n"
		"preset = gunicorn",
		NULL);
	setenv("WEB_CONCURRENCY", "6", 1);
	suspect("command = ./gunicorn a:a", "6 gunicorn workers");
	unsetenv("WEB_CONCURRENCY");
}

static void test_fast_check_of_gunicorns_file(void **state)
{
	struct conf_test t;

	(void)state;
	with_servers(&t, "");
	conf_test_write(t.folder, "gunicorn.conf.py",
		"import multiprocessing\n# workers = 9\nworkers = multiprocessing.cpu_count() * 2 "
		"+ 1\n");
	conf_test_reload(&t, "[program:web]\nexecutor = candidate\ncommand = ./gunicorn a:a\n",
		CONFIG_DETECT);
	assert_warning(&t, 3, "several gunicorn workers");
	assert_warning(&t, 3, "gunicorn.conf.py");
	conf_test_reload(&t, "[program:web]\nexecutor = candidate\ncommand = ./gunicorn -w 1 a:a\n",
		CONFIG_DETECT);
	assert_int_equal(t.findings.count, 0);
	conf_test_write(t.folder, "c.py", "workers=1\nmax_requests =500 # c\n");
	conf_test_reload(&t, "[program:web]\nexecutor=candidate\ncommand=./gunicorn -c c.py a:a\n",
		CONFIG_DETECT);
	assert_warning(&t, 3, "behind baton's back (c.py)");
	conf_test_write(t.folder, "c.py", "preload_app = False\nreload=False\nworkers=1");
	conf_test_reload(&t, NULL, CONFIG_DETECT);
	assert_int_equal(t.findings.count, 0);
	conf_test_close(&t);
}

static void suspect_file(const char *name, const char *line, const char *command, const char *part)
{
	struct conf_test t;
	char text[256];

	with_servers(&t, "");
	assert_int_equal(mkdir("config", 0755), 0);
	conf_test_write(t.folder, name, line);
	snprintf(
		text, sizeof(text), "[program:web]\nexecutor = candidate\ncommand = %s\n", command);
	conf_test_reload(&t, text, CONFIG_DETECT);
	assert_loaded(&t);
	if (part)
		assert_warning(&t, 3, part);
	else
		assert_int_equal(t.findings.count, 0);
	conf_test_close(&t);
}

static void test_fast_check_of_other_files(void **state)
{
	(void)state;
	unsetenv("WEB_CONCURRENCY");
	suspect_file("config/puma.rb", "workers 3\n", "./puma", "3 puma workers");
	suspect_file("config/puma.rb", "workers ENV.fetch('N') { 2 }\n", "./puma", "several puma");
	suspect_file("config/puma.rb", "workers_x 3\n# workers 2\n", "./puma", NULL);
	suspect_file("config/puma.rb", "  workers 3\n", "./puma -w 0", NULL);
	suspect_file("config/puma.rb", "workers 3\n", "./puma\npreset = puma", NULL);
	suspect_file("p.rb", "preload_app!\n", "./puma -C p.rb", "in its master");
	suspect_file("u.rb", "worker_processes 4\n", "/usr/bin/env ./unicorn -c u.rb", "4 unicorn");
	suspect_file("u.rb", "worker_processes 1\npreload_app false\n",
		"/usr/bin/env ./unicorn -c u.rb", NULL);
	suspect_file(
		"u.ini", "[uwsgi]\nprocesses = 8\n", "/usr/bin/env uwsgi --ini u.ini", "8 uwsgi");
	suspect_file("u.ini", "[uwsgi]\nprocesses = 8\n",
		"/usr/bin/env uwsgi-core --ini u.ini -p 1", NULL);
	suspect_file("u.ini", "[uwsgi]\nworkers = 8\n",
		"/usr/bin/env uwsgi --ini u.ini\npreset = uwsgi", NULL);
	suspect_file("n.conf", "worker_processes auto;\n", "/usr/bin/env nginx -c n.conf",
		"several nginx workers");
	suspect_file("n.conf", "worker_processes 1;\n", "/usr/bin/env nginx -c n.conf", NULL);
	suspect_file("f.conf", "[www]\npm.max_children = 5\n", "/usr/bin/env php-fpm8.2 -y f.conf",
		"5 php-fpm workers");
	suspect("command = /usr/bin/env pm2-runtime -i 4 a.js", NULL);
	suspect("command = /usr/bin/env pm2 start -i 4 a.js", "4 pm2 workers");
	suspect("command = /usr/bin/env hypercorn --workers 2 a:a", "2 hypercorn workers");
}

static void test_workers_auto(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_load(&t, "[program:a]\ncommand = /bin/true\nworkers = auto\n");
	assert_loaded(&t);
	print_message("workers = auto: %d\n", t.config->programs[0].workers);
	assert_in_range(t.config->programs[0].workers, 1, sysconf(_SC_NPROCESSORS_CONF));
	conf_test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_worker),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_shell),
		cmocka_unit_test(test_late_errors),
		cmocka_unit_test(test_presets),
		cmocka_unit_test(test_more_presets),
		cmocka_unit_test(test_node_options),
		cmocka_unit_test(test_preset_errors),
		cmocka_unit_test(test_fast_check),
		cmocka_unit_test(test_fast_check_of_gunicorns_file),
		cmocka_unit_test(test_fast_check_of_other_files),
		cmocka_unit_test(test_workers_auto),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

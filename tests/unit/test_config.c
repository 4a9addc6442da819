/* A file to its snapshot: modes, defaults, every check, what a worker gets. */
#include "tests/lib/conf_test.h"

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define SECOND INT64_C(1000000000)
#define WEB    "[program:web]\ncommand = /bin/true\n"

/* --- modes ----------------------------------------------------------------------------------- */

static void test_native_defaults(void **state)
{
	struct conf_test t;
	const struct config_program *p;

	(void)state;
	conf_test_load(&t, "[baton]\n" WEB);
	assert_loaded(&t);
	assert_int_equal(t.findings.count, 0);
	assert_int_equal(t.config->mode, CONFIG_NATIVE);
	assert_string_equal(t.config->name, "x");
	assert_int_equal(t.config->umask, 022);
	assert_int_equal(t.config->control_mode, 0600);
	assert_int_equal(t.config->shutdown_timeout_ns, 60 * SECOND);
	assert_false(t.config->scheduler.enabled);
	assert_false(t.config->user.set);
	p = &t.config->programs[0];
	assert_string_equal(p->name, "web");
	assert_string_equal(p->group, "web");
	assert_int_equal(p->workers, 1);
	assert_int_equal(p->startretries, 10);
	assert_int_equal(p->restart_backoff_ns, SECOND / 10);
	assert_int_equal(p->restart_backoff_max_ns, 30 * SECOND);
	assert_true(p->restart_jitter && !p->restart_linear && p->kill_tree && p->set_user_env);
	assert_int_equal(p->stdout_kind, OUTPUT_INHERIT);
	assert_int_equal(p->stopsignal, SIGTERM);
	assert_int_equal(p->stopwaitsecs_ns, 10 * SECOND);
	assert_int_equal(p->startsecs_ns, SECOND);
	assert_int_equal(p->autorestart, AUTORESTART_UNEXPECTED);
	assert_int_equal(p->exitcode_count, 1);
	assert_int_equal(p->exitcodes[0], 0);
	assert_int_equal(p->umask, -1);
	assert_int_equal(p->nice, INT_MIN);
	assert_int_equal(p->oom_score_adj, INT_MIN);
	assert_int_equal(p->replace, REPLACE_ROLLING);
	assert_int_equal(p->handoff_timeout_ns, 30 * SECOND);
	assert_int_equal(p->ready_timeout_ns, 60 * SECOND);
	assert_true(p->autostart && p->log_prefix && !p->shell && !p->roll_on_reload_always);
	conf_test_close(&t);
}

static void test_compat_defaults(void **state)
{
	struct conf_test t;
	const struct config_program *p;

	(void)state;
	conf_test_load(&t, "[supervisord]\n" WEB);
	assert_loaded(&t);
	assert_int_equal(t.findings.count, 0);
	assert_int_equal(t.config->mode, CONFIG_COMPAT);
	p = &t.config->programs[0];
	assert_int_equal(p->startretries, 3);
	assert_int_equal(p->restart_backoff_ns, SECOND);
	assert_true(!p->restart_jitter && p->restart_linear && !p->kill_tree && !p->set_user_env);
	assert_int_equal(p->stdout_kind, OUTPUT_AUTO);
	assert_int_equal(p->replace, REPLACE_RESTART);
	conf_test_close(&t);
}

static void test_detection(void **state)
{
	static const struct {
		const char *text;
		enum config_mode mode;
	} cases[] = {
		{WEB, CONFIG_COMPAT},
		{"[supervisord]\n" WEB, CONFIG_COMPAT},
		{"[supervisord]\n[baton]\n" WEB, CONFIG_NATIVE},
		{WEB "workers = 2\n", CONFIG_NATIVE},
		{WEB "executor = candidate\n", CONFIG_NATIVE},
		{WEB "rlimit_nofile = 10\n", CONFIG_NATIVE},
		{"[socket:a]\nlisten = :0\n" WEB, CONFIG_NATIVE},
		{"[scheduler]\n" WEB, CONFIG_NATIVE},
		{"[supervisord]\nshutdown_timeout = 70s\n" WEB, CONFIG_NATIVE},
		{WEB "some_plugin = 1\n[eventlistener:x]\nworkers=1\n", CONFIG_COMPAT},
	};
	struct conf_test t;

	(void)state;
	conf_test_open(&t);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		conf_test_reload(&t, cases[i].text, CONFIG_DETECT);
		assert_loaded(&t);
		assert_int_equal(t.config->mode, cases[i].mode);
	}
	conf_test_reload(&t, WEB, CONFIG_FORCE_NATIVE);
	assert_int_equal(t.config->mode, CONFIG_NATIVE);
	conf_test_reload(&t, "[baton]\n" WEB "workers = 3\nprocess_name = %(process_num)d\n",
		CONFIG_FORCE_COMPAT);
	assert_loaded(&t);
	assert_int_equal(t.config->mode, CONFIG_COMPAT);
	assert_int_equal(t.config->programs[0].workers, 3);
	conf_test_close(&t);
}

static void test_mode_counts_includes(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_open(&t);
	conf_test_write(t.folder, "more.conf", "[program:b]\ncommand=/bin/true\nworkers=2\n");
	conf_test_reload(&t, "[supervisord]\n[include]\nfiles = *.conf\n" WEB, CONFIG_DETECT);
	assert_loaded(&t);
	assert_int_equal(t.config->mode, CONFIG_NATIVE);
	assert_int_equal(t.config->program_count, 2);
	conf_test_close(&t);
}

/* --- findings -------------------------------------------------------------------------------- */

static void test_all_errors_at_once(void **state)
{
	struct conf_test t;
	int last = 0;

	(void)state;
	conf_test_load(&t, "[baton]\n"
			   "loglevel = loud\n" /* 2 */
			   "[scheduler]\n"
			   "ttl = 10s\n" /* 4 */
			   "[program:a]\n"
			   "comand = x\n"                      /* 5 (missing), 6 */
			   "startsecs = soon\n"                /* 7 */
			   "stopsignal = NOSIGNAL\n"           /* 8 */
			   "user = no-such-user-here\n"        /* 9 */
			   "priority = 99999999999999999999\n" /* 10 */
			   "[program:b]\n"
			   "command = /bin/true %(nothing)s\n" /* 12 */
			   "depends_on = zzz\n"                /* 13 */
			   "sockets = nowhere\n"               /* 14 */
			   "exitcodes = 0,256\n"               /* 15 */
			   "rlimit_coffee = 1\n"               /* 16 */
			   "replace = sometimes\n"             /* 17 */
			   "workers = -1\n"                    /* 18 */
			   "[socket:s]\n"
			   "listen = nonsense\n" /* 20 */
			   "[socket:t]\n"        /* 21: listen is missing */
			   "[sheduler]\n"        /* 22 */
			   "[group:g]\n"
			   "programs = a,nobody\n" /* 24 */
			   "nonsense\n");          /* 25 */
	assert_null(t.config);
	if (t.findings.errors != 20)
		conf_test_print(&t);
	assert_int_equal(t.findings.errors, 20);
	assert_error(&t, 5, "missing");
	assert_error(&t, 6, "did you mean 'command'");
	assert_error(&t, 22, "did you mean '[scheduler]'");
	assert_error(&t, 4, "3 * heartbeat (30.000 s)");
	for (size_t i = 0; i < t.findings.count; i++) {
		assert_true(t.findings.items[i].line >= last);
		last = t.findings.items[i].line;
		assert_string_equal(t.findings.items[i].file, t.path);
	}
	conf_test_close(&t);
}

static void test_single_errors(void **state)
{
	(void)state;
	refuse_one("[baton]\n", 0, "no program");
	refuse_one("[baton]\nfoo = 1\n" WEB, 2, "unknown key");
	refuse_one("[baton]\ngroup = root\n" WEB, 2, "needs 'user'");
	refuse_one("[baton]\ncontrol_mode = 999\n" WEB, 2, "octal");
	refuse_one("[baton]\ndirectory = /no/such/place\n" WEB, 2, "not an existing directory");
	refuse_one(WEB "workers = 2\nnumprocs = 2\n", 3, "the same as numprocs");
	refuse_one(WEB "workers = 100000\n", 3, "not between");
	refuse_one(WEB "startsecs = 9d\nworkers=1\n", 3, "above 1d");
	refuse_one(WEB "startretries = -2\nworkers=1\n", 3, "below -1");
	refuse_one(WEB "nice = 20\n", 3, "above 19");
	refuse_one(WEB "executor = only\nworkers = 2\n", 3, "'workers' must be 1");
	refuse_one(
		WEB "executor = candidate\npromote = signal\npromote_signal = USR1\n", 4, "both");
	refuse_one(WEB "executor = candidate\npromote = signal\npromote_signal = USR1\n"
		       "demote_signal = USR1\n",
		6, "differ");
	refuse_one(WEB "executor = candidate\npromote = signal\npromote_signal = KILL\n"
		       "demote_signal = USR1\n",
		5, "KILL");
	refuse_one(WEB "executor = candidate\npromote = signal\npromote_signal = TERM\n"
		       "demote_signal = USR1\n",
		5, "stop signal");
	refuse_one("[baton]\n[program:web]\ncommand = /no/such/file\n", 3, "does not exist");
	refuse_one("[baton]\n[program:web]\ncommand = /etc\n", 3, "is a directory");
	refuse_one("[baton]\n[program:web]\ncommand = /etc/passwd\n", 3, "not executable");
	refuse_one("[baton]\n[program:web]\ncommand = no-such-command-here\n", 3, "PATH");
	refuse_one("[baton]\n[program:web]\ncommand = 'a\n", 3, "not closed");
	refuse_one("[baton]\n[program:web]\ncommand =\n", 3, "empty");
	refuse_one("[baton]\n[program:a b]\ncommand = /bin/true\n", 2, "name");
	refuse_one("[baton]\n[program:]\ncommand = /bin/true\n", 2, "name");
	refuse_one("[baton]\n[program:all]\ncommand = /bin/true\n", 2, "all");
	refuse_one("[baton]\n" WEB "directory = /no/such\n", 4, "not an existing directory");
	refuse_one("[baton]\n" WEB "stdout_logfile = /no/such/x.log\n", 4, "does not exist");
	refuse_one("[baton]\n" WEB "environment = A\n", 4, "KEY=value");
	refuse_one("[baton]\n" WEB "environment_file = missing.env\n", 4, "No such file");
	refuse_one("[baton]\n" WEB "preset = apache\n", 4, "no preset");
	refuse_one("[baton]\n[http]\nlisten=:80\n" WEB, 2, "not supported yet");
	refuse_one("[scheduler]\ndatabase = postgresql://u:secret@h/d\n" WEB, 2, "PostgreSQL");
	refuse_one("[scheduler]\ndatabase = mysql://h/d\n" WEB, 2, "sqlite:PATH");
	refuse_one("[scheduler]\nlock_name =\n" WEB, 2, "empty");
	refuse_one("[scheduler]\nlock_name = other\n" WEB, 2, "not supported yet");
	refuse_one("[scheduler]\nheartbeat = 30s\n" WEB, 2, "too short");
	refuse_one("[baton]\n[program:a]\ncommand=/bin/true\nstopasgroup=yes\nkillasgroup=no\n", 5,
		"stopasgroup");
	refuse_one("[socket:a]\nlisten=:80\n[socket:b]\nlisten=:80\n" WEB, 3, "same address");
	refuse_one("[socket:a]\nlisten=::1:80\n" WEB, 2, "none of");
	refuse_one("[socket:a]\nlisten=h:65536\n" WEB, 2, "not one of 1 to 65535");
	refuse_one("[socket:a]\nlisten=h:99999999999999999999\n" WEB, 2, "not one of 1 to");
	refuse_one("[socket:a]\nlisten=h:-\n" WEB, 2, "none of");
	refuse_one("[socket:a]\nlisten=unix:\n" WEB, 2, "path");
	refuse_one("[baton]\n[include]\n" WEB, 2, "files");
}

static void test_single_warnings(void **state)
{
	(void)state;
	warn_one("[baton]\n[program:a]\ncommand = /bin/echo a | b\n", 3, "no shell runs");
	warn_one("[baton]\n[program:a]\ncommand = /no/such\nautostart = no\n", 3, "does not exist");
	warn_one("[baton]\n" WEB "stopwaitsecs = 2m\n", 4, "shutdown_timeout");
	warn_one("[socket:s]\nlisten=:1\n[program:fpm]\npreset=php-fpm\nsockets=s\ncommand=/bin/"
		 "true\n"
		 "[program:other]\ncommand=/bin/true\nsockets=s\n",
		5, "is made to block");
	warn_one("[baton]\n" WEB "promote_timeout = 3s\n", 4, "without 'executor'");
	warn_one("[baton]\nminfds = 2000\n" WEB, 2, "no effect");
	warn_one("[baton]\n" WEB "startsecs = 2\nstartsecs = 3\n", 5, "x.ini:4");
	warn_one("[supervisord]\nnodaemon = false\n" WEB, 2, "foreground");
	warn_one("[supervisord]\n" WEB "foo = 1\n", 4, "unknown key");
	warn_one("[supervisord]\n" WEB "startretires = 1\n", 4, "did you mean 'startretries'");
	warn_one("[supervisord]\n[nonsense]\nfoo = 1\n" WEB, 2, "unknown section");
	warn_one("[unix_http_server]\nfile=/tmp/x.sock\n" WEB, 1, "control");
	warn_one("[eventlistener:x]\ncommand=y\n" WEB, 1, "baton events");
	warn_one("[supervisord]\n" WEB "startsecs = -5\n", 4, "below");
	warn_one("[supervisord]\n[program:a]\ncommand = /no/such\n", 3, "does not exist");
	warn_one("[supervisord]\n[program:a]\ncommand = 'x\n", 3, "not closed");
	warn_one("[supervisord]\n" WEB
		 "stdout_logfile_maxbytes = 1MB\nstderr_logfile_backups = 2\n",
		4, "grow");
	warn_one("[supervisord]\n" WEB "stdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\n"
		 "redirect_stderr=true\nstderr_logfile=/tmp/x\n",
		7, "redirect_stderr");
	warn_one("[supervisord]\n", 0, "no program");
	warn_one("[supervisord]\n[include]\nfiles = nothing-*.conf\n" WEB, 3, "no file matches");
}

static void test_files_that_are_none(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_open(&t);
	conf_test_reload(&t, NULL, CONFIG_DETECT);
	assert_null(t.config);
	assert_error(&t, 0, "No such file");
	conf_test_reload(&t, "", CONFIG_DETECT);
	assert_error(&t, 0, "empty");
	conf_test_reload(&t, "; only a comment\n", CONFIG_DETECT);
	assert_error(&t, 0, "empty");
	conf_test_reload(&t,
		"\x7f"
		"ELF\x02\x01 binary",
		CONFIG_DETECT);
	assert_error(&t, 1, "before the first [section]");
	unlink(t.path);
	assert_int_equal(mkdir(t.path, 0700), 0);
	conf_test_reload(&t, NULL, CONFIG_DETECT);
	assert_error(&t, 0, "directory");
	conf_test_close(&t);
}

/* --- includes, order, groups ----------------------------------------------------------------- */

static void test_include_loops(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_open(&t);
	conf_test_write(
		t.folder, "a.ini", "[include]\nfiles = b.ini\n[program:a]\ncommand=/bin/true\n");
	conf_test_write(
		t.folder, "b.ini", "[include]\nfiles = *.ini .\n[program:b]\ncommand=/bin/true\n");
	conf_test_reload(&t, "[baton]\n[include]\nfiles = a.ini\n" WEB, CONFIG_DETECT);
	assert_loaded(&t);
	assert_int_equal(t.config->program_count, 3);
	assert_int_equal(conf_test_count(&t, true, 0, "read already"), 3);
	assert_warning(&t, 0, "is a directory");
	conf_test_close(&t);
}

static void test_order(void **state)
{
	struct conf_test t;
	static const char *const wanted[] = {"early", "db", "migrate", "web", "late"};
	static const int levels[] = {0, 1, 2, 3, 4};

	(void)state;
	conf_test_load(&t, "[program:late]\ncommand=/bin/true\npriority=2000\n"
			   "[program:web]\ncommand=/bin/true\ndepends_on=db, migrate:done\n"
			   "[program:migrate]\ncommand=/bin/true\ndepends_on=db:started\n"
			   "[program:db]\ncommand=/bin/true\n"
			   "[program:early]\ncommand=/bin/true\npriority=1\n");
	assert_loaded(&t);
	for (int i = 0; i < 5; i++) {
		int index = config_find_program(t.config, wanted[i]);
		assert_int_equal(t.config->programs[index].order, i);
		assert_int_equal(t.config->programs[index].level, levels[i]);
	}
	assert_int_equal(t.config->programs[1].depends[1].what, DEPENDS_DONE);
	assert_int_equal(t.config->programs[2].depends[0].what, DEPENDS_STARTED);
	conf_test_reload(&t,
		"[baton]\n[program:a]\ncommand=/bin/true\n[program:b]\ncommand=/bin/true\n",
		CONFIG_DETECT);
	assert_int_equal(t.config->programs[1].level, 0);
	conf_test_close(&t);
}

static void test_cycles(void **state)
{
	(void)state;
	refuse_one(WEB "depends_on = web\n", 3, "web -> web");
	refuse_one("[program:x]\ncommand=/bin/true\ndepends_on=a\n"
		   "[program:a]\ncommand=/bin/true\ndepends_on=b\n"
		   "[program:b]\ncommand=/bin/true\ndepends_on=c\n"
		   "[program:c]\ncommand=/bin/true\ndepends_on=a\n",
		6, "a -> b -> c -> a");
	refuse_one(WEB "depends_on = web:sometimes\n", 3, "none of");
	refuse_one(WEB "surge = 0\nmax_unavailable = 0\n", 4, "no worker could ever be replaced");
}

static void test_groups(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_load(&t, "[supervisord]\n[group:g]\nprograms = b,a\npriority = 5\n"
			   "[program:a]\ncommand=/bin/true\npriority=20\n"
			   "[program:b]\ncommand=/bin/true\npriority=10\n"
			   "[program:c]\ncommand=/bin/true\npriority=7\n");
	assert_loaded(&t);
	assert_string_equal(t.config->programs[0].group, "g");
	assert_string_equal(t.config->programs[2].group, "c");
	assert_int_equal(t.config->programs[1].order, 0);
	assert_int_equal(t.config->programs[0].order, 1);
	assert_int_equal(t.config->programs[2].order, 2);
	conf_test_close(&t);
}

/* --- values ---------------------------------------------------------------------------------- */

static const char every_field[] =
	"[baton]\nname = shop\non_fatal = exit\non_supervisor_death = keep\nlog_format = "
	"json\n"
	"loglevel = debug\ncontrol = run.sock\nshutdown_timeout = 90s\numask = 027\n"
	"environment = A=\"1\"\n"
	"[scheduler]\ndatabase = sqlite:data/x.db\nlock_name = scheduler\nttl = 90s\nwhen_held = "
	"exit\n"
	"fast_takeover = no\non_promote = /bin/true x\nhistory_keep = 1d\n"
	"[socket:http]\nlisten = 127.0.0.1:8000\nbacklog = 5\nnodelay = no\n"
	"[socket:u]\nlisten = unix:app.sock\nmode = 0600\nowner = root:root\n"
	"[socket:six]\nlisten = [::1]:81\nv6only = yes\n"
	"[program:web]\ncommand = /bin/true\nworkers = 4\nnumprocs_start = 2\npriority = "
	"3\n"
	"autostart = no\nautorestart = yes\nstartsecs = 250ms\nstartretries = -1\n"
	"exitcodes = 0, 2 3\nstopsignal = USR1\nstopwaitsecs = 5\nstopasgroup = yes\n"
	"user = root\nredirect_stderr = yes\nstdout_logfile = NONE\numask = 077\n"
	"sockets = http, u\nexecutor = candidate\npromote = signal\npromote_signal = USR2\n"
	"demote_signal = HUP\npromote_timeout = 1s\npromote_unanswered = replace\n"
	"handoff_timeout = 2s\nready = notify\nready_timeout = 3s\nwatchdog = 4s\n"
	"replace = signal:HUP\nrestart_backoff = 1s\nrestart_backoff_max = 2s\n"
	"fatal_retry = 1m\non_fatal = stay\non_exit = exit\nrlimit_nofile = 100:200\n"
	"nice = 5\noom_score_adj = -5\nno_new_privs = yes\nlog_prefix = no\nshell = yes\n";

static void test_every_field(void **state)
{
	struct conf_test t;

	(void)state;
	conf_test_load(&t, every_field);
	assert_loaded(&t);
	assert_string_equal(t.config->name, "shop");
	assert_int_equal(t.config->on_fatal, ON_END_EXIT);
	assert_true(t.config->on_fatal_set && t.config->keep_on_supervisor_death);
	assert_int_equal(t.config->log_format, LOG_JSON);
	assert_string_equal(t.config->loglevel, "debug");
	assert_string_equal(t.config->control + strlen(t.folder), "/run.sock");
	assert_string_equal(t.config->environment[0].key, "A");
	assert_string_equal(t.config->scheduler.database + strlen(t.folder), "/data/x.db");
	assert_true(t.config->scheduler.enabled && t.config->scheduler.when_held_exit);
	assert_false(t.config->scheduler.fast_takeover);
	assert_string_equal(t.config->scheduler.on_promote, "/bin/true x");
	assert_int_equal(t.config->scheduler.history_keep_ns, 86400 * SECOND);
	assert_int_equal(t.config->sockets[0].family, AF_INET);
	assert_string_equal(t.config->sockets[0].host, "127.0.0.1");
	assert_int_equal(t.config->sockets[0].port, 8000);
	assert_int_equal(t.config->sockets[1].family, AF_UNIX);
	assert_int_equal(t.config->sockets[1].mode, 0600);
	assert_true(t.config->sockets[1].owner.set && t.config->sockets[1].owner.group_set);
	assert_int_equal(t.config->sockets[2].family, AF_INET6);
	assert_string_equal(t.config->sockets[2].host, "::1");
	assert_true(t.config->sockets[2].v6only && t.config->sockets[2].nodelay);
	conf_test_close(&t);
}

static void test_every_field_of_a_program(void **state)
{
	struct conf_test t;
	const struct config_program *p;

	(void)state;
	conf_test_load(&t, every_field);
	assert_loaded(&t);
	p = &t.config->programs[0];
	assert_int_equal(p->workers, 4);
	assert_int_equal(p->numprocs_start, 2);
	assert_false(p->autostart);
	assert_int_equal(p->autorestart, AUTORESTART_ALWAYS);
	assert_int_equal(p->startsecs_ns, SECOND / 4);
	assert_int_equal(p->startretries, -1);
	assert_int_equal(p->exitcode_count, 3);
	assert_int_equal(p->exitcodes[2], 3);
	assert_int_equal(p->stopsignal, SIGUSR1);
	assert_true(p->stopasgroup && p->killasgroup);
	assert_true(p->user.set && p->user.uid == 0);
	assert_string_equal(p->user.name, "root");
	assert_int_equal(p->stdout_kind, OUTPUT_NONE);
	assert_int_equal(p->umask, 077);
	assert_int_equal(p->socket_count, 2);
	assert_int_equal(p->sockets[1], 1);
	assert_int_equal(p->executor, EXECUTOR_CANDIDATE);
	assert_int_equal(p->promote, PROMOTE_SIGNAL);
	assert_int_equal(p->promote_signal, SIGUSR2);
	assert_int_equal(p->demote_signal, SIGHUP);
	assert_true(p->promote_unanswered_replace);
	assert_int_equal(p->handoff_timeout_ns, 2 * SECOND);
	assert_int_equal(p->ready, READY_NOTIFY);
	assert_int_equal(p->watchdog_ns, 4 * SECOND);
	assert_int_equal(p->replace, REPLACE_SIGNAL);
	assert_int_equal(p->replace_signal, SIGHUP);
	assert_int_equal(p->fatal_retry_ns, 60 * SECOND);
	assert_int_equal(p->on_fatal, ON_END_STAY);
	assert_int_equal(p->on_exit, ON_END_EXIT);
	assert_int_equal(p->rlimit_count, 1);
	assert_int_equal(p->rlimits[0].resource, RLIMIT_NOFILE);
	assert_int_equal(p->rlimits[0].hard, 200);
	assert_int_equal(p->nice, 5);
	assert_int_equal(p->oom_score_adj, -5);
	assert_true(p->no_new_privs && !p->log_prefix && p->shell && p->roll_on_reload_always);
	conf_test_close(&t);
}

static void test_ttl_arithmetic(void **state)
{
	struct conf_test t;

	(void)state;
	/* 3*10 + 2% + 2 + 0.5: 33.163265... is the least */
	conf_test_load(&t, "[scheduler]\nttl = 33164ms\n" WEB);
	assert_loaded(&t);
	conf_test_close(&t);
	refuse_one("[scheduler]\nttl = 33163ms\n" WEB, 2, "33.163 s is too short");
}

static void test_database_default(void **state)
{
	struct conf_test t;

	(void)state;
	unsetenv("STATE_DIRECTORY");
	conf_test_load(&t, "[scheduler]\n" WEB);
	assert_loaded(&t);
	assert_string_equal(t.config->scheduler.database + strlen(t.folder), "/baton.db");
	setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two", 1);
	conf_test_reload(&t, NULL, CONFIG_DETECT);
	assert_string_equal(t.config->scheduler.database, "/var/lib/one/x.db");
	unsetenv("STATE_DIRECTORY");
	conf_test_close(&t);
}

static void test_control_path(void **state)
{
	struct conf_test t;
	char first[256], second[256], longer[400];
	struct err e;

	(void)state;
	conf_test_load(&t, "[baton]\n" WEB);
	setenv("RUNTIME_DIRECTORY", t.folder, 1);
	assert_int_equal(config_control_path(t.config, t.path, first, sizeof(first), &e), 0);
	assert_int_equal(strncmp(first, t.folder, strlen(t.folder)), 0);
	assert_non_null(strstr(first, "/x.ini-"));
	assert_int_equal(config_control_path(NULL, t.path, second, sizeof(second), &e), 0);
	assert_string_equal(first, second);
	snprintf(second, sizeof(second), "%s/../%s/./x.ini", t.folder, strrchr(t.folder, '/') + 1);
	assert_int_equal(config_control_path(NULL, second, longer, sizeof(longer), &e), 0);
	assert_string_equal(first, longer);
	assert_int_equal(config_control_path(NULL, t.path, first, 10, &e), ERR_LIMIT);
	memset(longer, 'n', 200);
	longer[200] = '\0';
	assert_int_equal(config_control_path(NULL, longer, first, sizeof(first), &e), ERR_LIMIT);
	assert_non_null(strstr(e.text, "set 'control'"));
	unsetenv("RUNTIME_DIRECTORY");
	conf_test_close(&t);
}

/* --- size ------------------------------------------------------------------------------------ */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_many_programs(void **state)
{
	char *text = malloc(1000 * 256 + 64), *p = text;
	struct conf_test t;
	double start;

	(void)state;
	assert_non_null(text);
	p += sprintf(p, "[baton]\n");
	for (int i = 0; i < 1000; i++)
		p += sprintf(p,
			"[program:p%d]\ncommand = /bin/sleep %%(process_num)d\nuser = root\n"
			"environment = A=\"%d\"\npriority = %d\n%s%d\n",
			i, i, i % 7, i ? "depends_on = p" : "startsecs=", i ? i - 1 : 0);
	start = now();
	conf_test_load(&t, text);
	print_message("1000 programs: %.0f ms\n", (now() - start) * 1e3);
	assert_loaded(&t);
	assert_true(now() - start < 5); /* far more than it takes, also under sanitizers */
	assert_int_equal(t.config->programs[999].level, 999);
	conf_test_close(&t);
	free(text);
}

/* Under sanitizers the same with less: they look for other mistakes than slowness. */
#ifdef __SANITIZE_ADDRESS__
enum { BIG = 2 << 20, CHANGED_FILES = 750 };
#else
enum { BIG = 10 << 20, CHANGED_FILES = 1500 };
#endif

static void test_ten_mib(void **state)
{
	static const char *const lines[] = {"[program:%d]\n", "k%d=1\n", "k=1\n", "%d\n", "[s%d]\n",
		"  %d\n", "'%d\" ; \"\n", "environment=A%d=\"x\"\n"};
	char *text = malloc(BIG + (1 << 20));
	struct conf_test t;

	(void)state;
	assert_non_null(text);
	conf_test_open(&t);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		char *p = text;
		double start = now();
		p += sprintf(p, "[baton]\n" WEB);
		for (int n = 0; p - text < BIG; n++)
			p += sprintf(p, lines[i], n);
		conf_test_reload(&t, text, CONFIG_DETECT);
		print_message("%d MiB of %.12s: %.0f ms, %zu errors, %zu warnings\n", BIG >> 20,
			lines[i], (now() - start) * 1e3, t.findings.errors, t.findings.warnings);
		assert_true(now() - start < 20);
		assert_true(t.findings.count <= 1002);
	}
	conf_test_close(&t);
	free(text);
}

/* A file with something of everything, with bytes changed at random: refused or loaded, never a
 * crash. What loads can be dumped, and its workers built. */
static void test_any_file(void **state)
{
	static const char whole[] =
		"[DEFAULT]\nstartsecs=1\n[baton]\nenvironment=A=\"1\",B='2'\numask=022\n[scheduler]"
		"\n"
		"ttl=60s\ndatabase=sqlite:x.db\n[socket:a]\nlisten=[::1]:80\n[socket:b]\n"
		"listen=unix:x.sock\nowner=root:root\n[group:g]\nprograms=web,b\n[program:web]\n"
		"command=/bin/echo %(process_num)02d '%(ENV_A)s' \"%(ENV_ZZ:-x y)s\" %% ; c\n"
		"workers=2\nprocess_name=%(process_num)d\nsockets=a "
		"b\nexecutor=candidate\ndepends_on=b:done\nrlimit_nofile=1:2\n"
		"environment=C=\"%(fd_a)d %(listen_b)s\"\nstopsignal=RTMIN+1\nexitcodes=0,1\n"
		"[program:b]\ncommand=/bin/true\n  continued\nuser=root\nreplace=signal:HUP\n"
		"stdout_logfile=/tmp/x\n[include]\nfiles=*.none\n";
	static const char alphabet[] = "[]=:;#%()'\" \n\t,\\0aZ9-.\xff\x80";
	unsigned seed = (unsigned)getpid();
	char text[sizeof(whole)];
	struct conf_test t;
	int loaded = 0;

	(void)state;
	print_message("seed %u\n", seed);
	conf_test_open(&t);
	for (int round = 0; round < CHANGED_FILES; round++) {
		struct config_worker w;
		char *dump;
		memcpy(text, whole, sizeof(whole));
		for (int n = rand_r(&seed) % 4; n >= 0 && round; n--)
			text[(size_t)rand_r(&seed) % (sizeof(whole) - 1)] =
				alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
		conf_test_reload(&t, text, round % 3 ? CONFIG_DETECT : CONFIG_FORCE_COMPAT);
		if (round == 0)
			conf_test_reload(&t, text, CONFIG_DETECT);
		assert_true(t.config || t.findings.errors);
		if (!t.config)
			continue;
		loaded++;
		assert_int_equal(config_dump(t.config, round % 2, &dump), 0);
		free(dump);
		for (int i = 0; i < (int)t.config->program_count; i++) {
			if (config_worker_build(t.config, i, 1, NULL, &w, NULL) == 0)
				config_worker_release(&w);
		}
	}
	print_message("%d of %d loaded\n", loaded, CHANGED_FILES);
	assert_true(loaded > 0);
	conf_test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_native_defaults),
		cmocka_unit_test(test_compat_defaults),
		cmocka_unit_test(test_detection),
		cmocka_unit_test(test_mode_counts_includes),
		cmocka_unit_test(test_all_errors_at_once),
		cmocka_unit_test(test_single_errors),
		cmocka_unit_test(test_single_warnings),
		cmocka_unit_test(test_files_that_are_none),
		cmocka_unit_test(test_include_loops),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_cycles),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_every_field),
		cmocka_unit_test(test_every_field_of_a_program),
		cmocka_unit_test(test_ttl_arithmetic),
		cmocka_unit_test(test_database_default),
		cmocka_unit_test(test_control_path),
		cmocka_unit_test(test_any_file),
		cmocka_unit_test(test_many_programs),
		cmocka_unit_test(test_ten_mib),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

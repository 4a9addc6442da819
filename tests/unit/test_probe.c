#include "tests/lib/conf_test.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include "conf/probe.h"

struct parsed {
	struct arena arena;
	const char *text;
	bool health;
	int rc;
	struct config_probe probe;
	struct err e, *why;
};

static void run(void *argument)
{
	struct parsed *p = argument;

	p->rc = probe_parse(&p->arena, p->text, p->health, &p->probe, p->why);
}

static void parse(struct parsed *p, const char *text, bool health)
{
	*p = (struct parsed){.text = text, .health = health};
	p->why = &p->e;
	arena_init(&p->arena);
	assert_int_equal(arena_run(&p->arena, run, p), 0);
}

static void address(const char *text, enum config_probe_kind kind, int family, const char *host,
	int port, const char *path)
{
	struct parsed p;

	parse(&p, text, true);
	if (p.rc != 0)
		fail_msg("%s: %s", text, p.e.text);
	assert_int_equal(p.probe.kind, kind);
	assert_false(p.probe.own);
	assert_int_equal(p.probe.family, family);
	assert_string_equal(p.probe.host, host);
	assert_int_equal(p.probe.port, port);
	if (path)
		assert_string_equal(p.probe.path, path);
	arena_release(&p.arena);
}

static void refused(const char *text, bool health, const char *part)
{
	struct parsed p;

	parse(&p, text, health);
	if (p.rc == 0 || !strstr(p.e.text, part))
		fail_msg("'%s': %s", text, p.rc == 0 ? "taken" : p.e.text);
	p.why = NULL; /* where nobody wants to know why */
	assert_int_equal(arena_run(&p.arena, run, &p), 0);
	assert_int_equal(p.rc, ERR_CONFIG);
	arena_release(&p.arena);
}

static void test_addresses(void **state)
{
	(void)state;
	address("http://127.0.0.1/", PROBE_HTTP, AF_INET, "127.0.0.1", 80, "/");
	address("http://127.0.0.1:8080/a?b=c%20d", PROBE_HTTP, AF_INET, "127.0.0.1", 8080,
		"/a?b=c%20d");
	address("http:http://localhost:1", PROBE_HTTP, AF_INET, "127.0.0.1", 1, "/");
	address("http://[::1]:65535?x", PROBE_HTTP, AF_INET6, "::1", 65535, "/?x");
	address("http://[::1]/", PROBE_HTTP, AF_INET6, "::1", 80, "/");
	address("tcp:10.0.0.1:6000", PROBE_TCP, AF_INET, "10.0.0.1", 6000, NULL);
	address("tcp:[fe80::1]:6000", PROBE_TCP, AF_INET6, "fe80::1", 6000, NULL);
}

static void test_other_forms(void **state)
{
	struct parsed p;

	(void)state;
	parse(&p, "http:/a/b?c", true);
	assert_true(p.rc == 0 && p.probe.kind == PROBE_HTTP && p.probe.own);
	assert_string_equal(p.probe.path, "/a/b?c");
	arena_release(&p.arena);
	parse(&p, "tcp", true);
	assert_true(p.rc == 0 && p.probe.kind == PROBE_TCP && p.probe.own);
	arena_release(&p.arena);
	parse(&p, "exec:sh -c 'exit 1'", true);
	assert_true(p.rc == 0 && p.probe.kind == PROBE_EXEC);
	assert_string_equal(p.probe.argv[2], "exit 1");
	assert_null(p.probe.argv[3]);
	arena_release(&p.arena);
	parse(&p, "fd:255", false);
	assert_true(p.rc == 0 && p.probe.kind == PROBE_FD && p.probe.fd == 255);
	arena_release(&p.arena);
	parse(&p, "log:ready: go", false);
	assert_true(p.rc == 0 && p.probe.kind == PROBE_LOG);
	assert_string_equal(p.probe.word, "ready: go");
	arena_release(&p.arena);
	parse(&p, "none", true);
	assert_true(p.rc == 0 && p.probe.kind == PROBE_NONE);
	arena_release(&p.arena);
}

static void test_refused(void **state)
{
	static const char *const once[] = {"startsecs", "fd:5", "log:x"};

	(void)state;
	refused("none", false, "none of");
	refused("", false, "none of");
	refused("soon", false, "http:/PATH");
	refused("notify", true, "watchdog");
	for (size_t i = 0; i < 3; i++)
		refused(once[i], true, "for 'ready'");
	refused("https://127.0.0.1/", false, "exec:curl");
	refused("http:", false, "http:/PATH");
	refused("http:x", false, "http://HOST:PORT/PATH");
	refused("http:/a b", false, "spaces");
	refused("http:/\xc3\xa4", false, "ASCII");
	refused("http:/a#b", false, "#");
	refused("http://example.org/", false, "in numbers");
	refused("http://me:secret@127.0.0.1/", false, "user in the URL");
	refused("http://127.0.0.1:70000/", false, "no port");
	refused("http://127.0.0.1:/", false, "no port");
	refused("tcp:127.0.0.1", false, "HOST:PORT");
	refused("tcp:", false, "HOST:PORT");
	refused("tcp:::1:80", false, "in numbers");
	refused("tcp:[::1]", false, "HOST:PORT");
	refused("exec:", false, "without a command");
	refused("exec:'a", false, "not closed");
	refused("fd:2", false, "from 3 to 255");
	refused("fd:256", false, "from 3 to 255");
	refused("fd:x", false, "from 3 to 255");
	refused("log:", false, "needs a text");
	refused("log:a\nb", false, "one line");
}

#define WEB                                                                                        \
	"[baton]\n[socket:a]\nlisten = 127.0.0.1:8000\n[socket:b]\nlisten = :8001\n"               \
	"[program:web]\ncommand = /bin/true\n"
/* The lines of a program begin at 8. */

static void test_together(void **state)
{
	(void)state;
	refuse_one(WEB "ready = http:foo\n", 8, "http:/PATH");
	refuse_one(WEB "health = notify\n", 8, "watchdog");
	refuse_one(WEB "ready = tcp\nprobe = no\n", 9, "goes through the probe listener");
	refuse_one(WEB "probe = perhaps\n", 8, "yes");
	refuse_one(WEB "ready = fd:4\nsockets = a b\n", 8, "use fd:5");
	refuse_one(WEB "ready = fd:4\nsockets = a\nprobe = yes\n", 8, "use fd:5");
	refuse_one(WEB "health = http://127.0.0.1:8000/\nsockets = a\n", 8, "cannot judge");
	refuse_one(WEB "health = tcp:10.1.1.1:8001\nsockets = a b\n", 8, "[socket:b]");
	refuse_one(
		WEB "ready = tcp:127.0.0.1:8000\nsockets = a\nstartsecs = 0\n", 8, "says nothing");
	refuse_one(WEB "health = tcp:127.0.0.1:9\nworkers = 2\n", 8, "all 2 workers");
	refuse_one(WEB "ready = exec:/no/such\n", 8, "cannot be run");
	refuse_one(WEB "health_failures = 0\nhealth = tcp\n", 8, "below 1");
	refuse_one(WEB "[socket:probe]\nlisten=:8002\n[program:p]\ncommand=/bin/true\nprobe=yes\n"
		       "sockets=probe\n",
		13, "give that socket another");
	refuse_one(WEB "environment = A=%(fd_probe)d\n", 8, "not known");
	refuse_one(WEB "preset = gunicorn\nhealth = tcp\n", 7, "'sockets'");
	refuse_one(WEB "preset = uvicorn\nhealth = tcp\nsockets = a\n", 9, "watchdog");
	refuse_one(WEB "preset = nginx\nprobe = yes\nsockets = a\n", 9, "exec:COMMAND");
	warn_one(WEB "ready = tcp:127.0.0.1:8000\nsockets = a\n", 8, "only once the worker");
	warn_one(WEB "ready = tcp:127.0.0.1:9\nworkers = 2\n", 8, "all 2 workers");
	warn_one(
		WEB "preset = gunicorn\nsockets = a\nready = notify\n", 10, "before it has loaded");
	warn_one(WEB "health_interval = 1s\n", 8, "no effect");
	warn_one(WEB "ready = exec:/bin/true | cat\n", 8, "no shell");
	warn_one(WEB "preset = uvicorn\nenvironment = UVICORN_LOG_LEVEL=error\n", 7,
		"startsecs alone");
}

/* Fields of the one program, and of its worker 1. */
static void loaded(
	const char *text, enum config_ready ready, bool shared, bool probe, const char *ready_text)
{
	struct conf_test t;
	const struct config_program *p;

	conf_test_load(&t, text);
	assert_loaded(&t);
	p = &t.config->programs[0];
	assert_int_equal(p->ready, ready);
	assert_int_equal(p->ready_shared, shared);
	assert_int_equal(p->probe, probe);
	assert_string_equal(p->ready_text, ready_text);
	conf_test_close(&t);
}

static void test_program(void **state)
{
	(void)state;
	loaded(WEB, READY_STARTSECS, false, false, "startsecs");
	loaded(WEB "ready = notify\n", READY_NOTIFY, false, false, "notify");
	loaded(WEB "ready = fd:5\n", READY_FD, false, false, "fd:5");
	loaded(WEB "ready = log:up\n", READY_LOG, false, false, "log:up");
	loaded(WEB "ready = http:/up\n", READY_PROBE, false, true, "http:/up");
	loaded(WEB "health = tcp\n", READY_STARTSECS, false, true, "startsecs");
	loaded(WEB "ready = exec:/bin/true\n", READY_PROBE, false, false, "exec:/bin/true");
	loaded(WEB "ready = tcp:127.0.0.1:8000\nsockets=a\n", READY_PROBE, true, false,
		"tcp:127.0.0.1:8000");
	loaded(WEB "ready = tcp:127.0.0.1:8000\nsockets=b\n", READY_PROBE, false, false,
		"tcp:127.0.0.1:8000");
	loaded(WEB "ready = tcp:127.0.0.1:90%(process_num)02d\nworkers=2\n", READY_PROBE, false,
		false, "tcp:127.0.0.1:9000");
	/* presets: through the probe listener only where baton passes the sockets */
	loaded(WEB "preset = gunicorn\nsockets=a\n", READY_PROBE, false, true, "tcp");
	loaded(WEB "preset = gunicorn\n", READY_STARTSECS, false, false, "startsecs");
	loaded(WEB "preset = gunicorn\nsockets=a\nprobe=no\n", READY_STARTSECS, false, false,
		"startsecs");
	loaded(WEB "preset = gunicorn\nsockets=a\nready=startsecs\n", READY_STARTSECS, false, false,
		"startsecs");
	loaded(WEB "preset = uvicorn\nsockets=a\n", READY_LOG, false, false,
		"log:Uvicorn running on socket");
	loaded(WEB "preset = uvicorn\n", READY_LOG, false, false, "log:Uvicorn running on");
	loaded(WEB "preset = php-fpm\nsockets=a\n", READY_STARTSECS, false, false, "startsecs");
	loaded(WEB "preset = go\nsockets=a\n", READY_STARTSECS, false, false, "startsecs");
}

/* A php-fpm that was built with it has the name of the function in it. */
static void test_php_fpm(void **state)
{
	struct conf_test t;
	char path[256];

	(void)state;
	conf_test_open(&t);
	conf_test_write(t.folder, "fpm", "....sd_notifyf....");
	snprintf(path, sizeof path, "%s/fpm", t.folder);
	assert_int_equal(chmod(path, 0755), 0);
	snprintf(path, sizeof path, "[program:f]\ncommand=%s/fpm\npreset=php-fpm\n", t.folder);
	conf_test_reload(&t, path, CONFIG_DETECT);
	assert_loaded(&t);
	assert_int_equal(t.config->programs[0].ready, READY_NOTIFY);
	conf_test_close(&t);
}

static void test_worker(void **state)
{
	static const char *const listen[] = {"127.0.0.1:8000", "127.0.0.1:4711"};
	struct config_worker w;
	struct conf_test t;

	(void)state;
	conf_test_load(&t, WEB "sockets = a\nprobe = yes\nworkers = 2\n"
			       "environment = P=%(listen_probe)s,F=%(fd_probe)d\n"
			       "ready = exec:/bin/echo %(listen_probe)s %(process_num)d\n"
			       "health = http://127.0.0.1:90%(process_num)02d/\n");
	assert_loaded(&t);
	assert_int_equal(config_worker_build(t.config, 0, 1, listen, &w, NULL), 0);
	assert_string_equal(w.environment[0].value, "127.0.0.1:4711");
	assert_string_equal(w.environment[1].value, "4");
	assert_string_equal(w.ready.argv[1], "127.0.0.1:4711");
	assert_string_equal(w.ready.argv[2], "1");
	assert_int_equal(w.health.port, 9001);
	config_worker_release(&w);
	conf_test_close(&t);
}

static enum diff_class change(const char *from, const char *to)
{
	struct conf_test a, b;
	struct config_diff d;
	enum diff_class class;
	char text[1024];

	conf_test_open(&a);
	conf_test_open(&b);
	snprintf(text, sizeof text, WEB "%s", from);
	conf_test_reload(&a, text, CONFIG_DETECT);
	snprintf(text, sizeof text, WEB "%s", to);
	conf_test_reload(&b, text, CONFIG_DETECT);
	assert_loaded(&a);
	assert_loaded(&b);
	assert_int_equal(config_compare(a.config, b.config, &d), 0);
	class = d.programs[0].class;
	config_diff_release(&d);
	conf_test_close(&a);
	conf_test_close(&b);
	return class;
}

static void test_changes(void **state)
{
	(void)state;
	assert_int_equal(change("ready=tcp\n", "ready=tcp\n"), DIFF_SAME);
	assert_int_equal(change("ready=startsecs\n", "ready=notify\n"), DIFF_ROLL);
	assert_int_equal(change("probe=yes\n", "probe=yes\nhealth=tcp\n"), DIFF_LIVE);
	assert_int_equal(
		change("probe=yes\nhealth=http:/a\n", "probe=yes\nhealth=http:/b\n"), DIFF_LIVE);
	assert_int_equal(change("health=tcp\n", "health=tcp\nhealth_interval=5s\n"), DIFF_LIVE);
	/* the workers of now have no listener for it */
	assert_int_equal(change("", "health=tcp\n"), DIFF_ROLL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_other_forms),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_together),
		cmocka_unit_test(test_program),
		cmocka_unit_test(test_php_fpm),
		cmocka_unit_test(test_worker),
		cmocka_unit_test(test_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

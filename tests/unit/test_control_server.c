/* The control server: framing, who may ask what, slow and hostile clients, the socket's path. */
#include "supervisor/shell/control.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/control.h"

struct world {
	struct loop *loop;
	struct control *control;
	char folder[64], path[96];
	int requests, closed, timers;
	bool hold;          /* requests wait */
	bool answer_in_end; /* CLOSED answers once more: must be harmless */
	struct control_connection *held, *last_closed;
	uint64_t held_id;
	struct control_peer peer;
	bool (*until)(struct world *w);
	int watched; /* a client's descriptor */
	size_t bytes_wanted;
	size_t big; /* bytes of an answer to "big" */
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_request(void *context, struct control_connection *from, uint64_t id, const char *cmd,
	json_t *request)
{
	struct world *w = context;

	w->requests++;
	w->peer = *control_peer_of(from);
	if (w->hold) {
		w->held = from;
		w->held_id = id;
	} else if (strcmp(cmd, "events") == 0) {
		control_subscribe(from);
		control_subscribe(from);
		control_answer(from, id, json_object());
	} else if (strcmp(cmd, "big") == 0) {
		char *text = malloc(w->big + 1);
		memset(text, 'x', w->big);
		text[w->big] = '\0';
		control_answer(from, id, json_pack("{s:s}", "text", text));
		free(text);
	} else if (strcmp(cmd, "fail") == 0) {
		control_progress(from, id, "trying %s", "hard");
		control_fail(from, id, "not_found", "look again", json_pack("{s:i}", "line", 7),
			"no %s\xff here", "worker");
	} else {
		control_answer(from, id, json_pack("{s:O}", "echo", request));
	}
}

static void on_closed(void *context, struct control_connection *gone)
{
	struct world *w = context;

	w->closed++;
	w->last_closed = gone;
	if (w->held == gone)
		w->held = NULL;
	if (w->answer_in_end) {
		control_answer(gone, 1, json_object());
		control_fail(gone, 1, "failed", NULL, json_object(), "x");
	}
}

static void on_timer(void *context, int64_t late_ns)
{
	struct world *w = context;

	(void)late_ns;
	w->timers++;
}

static void hook(void *context)
{
	struct world *w = context;

	if (w->until && w->until(w))
		loop_stop(w->loop);
}

static void run_until(struct world *w, bool (*until)(struct world *w))
{
	w->until = until;
	loop_run(w->loop);
	w->until = NULL;
}

static bool timer_fired(struct world *w)
{
	return w->timers > 0;
}

static void turn(struct world *w, int ms)
{
	w->timers = 0;
	loop_timer_set(w->loop, now_ns() + ms * 1000000LL);
	run_until(w, timer_fired);
}

static void open_server(struct world *w, mode_t mode)
{
	struct control_handlers h = {.request = on_request, .closed = on_closed, .context = w};
	struct err e;
	int rc = control_open(w->loop, w->path, mode, NULL, "the-instance", &h, &w->control, &e);

	if (rc != 0)
		fail_msg("%s", e.text);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err e;

	alarm(90);
	signal(SIGPIPE, SIG_IGN);
	strcpy(w->folder, "/tmp/baton-control-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	assert_int_equal(chmod(w->folder, 0755), 0);
	snprintf(w->path, sizeof(w->path), "%s/c.sock", w->folder);
	assert_int_equal(loop_create(&w->loop, &e), 0);
	assert_int_equal(loop_timer_init(w->loop, on_timer, w, &e), 0);
	loop_before_block(w->loop, hook, w);
	open_server(w, 0600);
	*state = w;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static int teardown(void **state)
{
	struct world *w = *state;

	control_server_close(w->control);
	loop_free(w->loop);
	nftw(w->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static int dial(const struct world *w)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(a.sun_path, w->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static bool is_readable(struct world *w)
{
	struct pollfd p = {.fd = w->watched, .events = POLLIN};

	return poll(&p, 1, 0) == 1 || timer_fired(w);
}

/* The next line of FD, the loop turning meanwhile; NULL at its end. */
static char *read_line(struct world *w, int fd)
{
	static char *line;
	static size_t capacity;
	size_t used = 0;

	w->watched = fd;
	w->timers = 0;
	for (;;) {
		ssize_t n;
		char *newline;

		if (capacity - used < 4096) {
			capacity = capacity ? capacity * 2 : 8192;
			line = realloc(line, capacity);
		}
		/* Not one byte beyond the line is taken. */
		n = recv(fd, line + used, capacity - used - 1, MSG_DONTWAIT | MSG_PEEK);
		if (n > 0) {
			newline = memchr(line + used, '\n', (size_t)n);
			if (newline)
				n = newline + 1 - (line + used);
			assert_int_equal(recv(fd, line + used, (size_t)n, 0), n);
			used += (size_t)n;
			if (!newline)
				continue;
			*newline = '\0';
			return line;
		}
		if (n == 0 || errno != EAGAIN) {
			line[used] = '\0';
			return used ? line : NULL;
		}
		/* Not there yet: the loop will bring it. */
		loop_timer_set(w->loop, now_ns() + 5000000);
		run_until(w, is_readable);
		w->timers = 0;
	}
}

static json_t *read_json(struct world *w, int fd)
{
	char *line = read_line(w, fd);
	json_error_t error;
	json_t *made;

	assert_non_null(line);
	made = json_loads(line, 0, &error);
	if (!made)
		fail_msg("%s: %.300s", error.text, line);
	return made;
}

static void skip_greeting(struct world *w, int fd)
{
	json_t *greeting = read_json(w, fd);

	assert_string_equal(json_string_value(json_object_get(greeting, "baton")), BATON_VERSION);
	assert_int_equal(json_integer_value(json_object_get(greeting, "v")), 1);
	assert_int_equal(json_integer_value(json_object_get(greeting, "pid")), getpid());
	assert_string_equal(
		json_string_value(json_object_get(greeting, "instance")), "the-instance");
	json_decref(greeting);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void expect_error(struct world *w, int fd, int id, const char *code)
{
	json_t *answer = read_json(w, fd), *error = json_object_get(answer, "error");

	assert_int_equal(json_integer_value(json_object_get(answer, "id")), id);
	assert_true(json_is_false(json_object_get(answer, "ok")));
	assert_string_equal(json_string_value(json_object_get(error, "code")), code);
	assert_non_null(json_string_value(json_object_get(error, "message")));
	json_decref(answer);
}

static void expect_ok(struct world *w, int fd, int id)
{
	json_t *answer = read_json(w, fd);

	assert_int_equal(json_integer_value(json_object_get(answer, "id")), id);
	assert_true(json_is_true(json_object_get(answer, "ok")));
	assert_true(json_is_object(json_object_get(answer, "result")));
	json_decref(answer);
}

/* --- words --------------------------------------------------------------------------------------
 */

static void test_request_and_answer(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	json_t *answer, *error;
	struct stat st;

	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_string_equal(control_path(w->control), w->path);
	skip_greeting(w, fd);
	say(fd, "{\"v\":1,\"id\":5,\"cmd\":\"status\",\"more\":[1,2]}\n");
	answer = read_json(w, fd);
	assert_int_equal(json_integer_value(json_object_get(answer, "id")), 5);
	json_decref(answer);
	assert_true(w->peer.trusted);
	assert_int_equal(w->peer.pid, getpid());
	assert_int_equal(w->peer.uid, getuid());

	/* Two in one piece, one in two pieces, empty lines between, the last without newline. */
	say(fd, "\n{\"id\":1,\"cmd\":\"a\"}\r\n\n{\"id\":2,\"cmd\":\"b\"}\n{\"id\":3,");
	expect_ok(w, fd, 1);
	expect_ok(w, fd, 2);
	say(fd, "\"cmd\":\"fail\"}");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	answer = read_json(w, fd);
	assert_string_equal(json_string_value(json_object_get(answer, "progress")), "trying hard");
	json_decref(answer);
	answer = read_json(w, fd);
	error = json_object_get(answer, "error");
	assert_string_equal(json_string_value(json_object_get(error, "hint")), "look again");
	assert_string_equal(
		json_string_value(json_object_get(error, "message")), "no worker? here");
	assert_int_equal(json_integer_value(json_object_get(error, "line")), 7);
	json_decref(answer);
	assert_null(read_line(w, fd)); /* all is answered: closed */
	assert_int_equal(w->closed, 1);
	close(fd);
}

static void test_bad_requests(void **state)
{
	static const struct {
		const char *text, *code;
		int id;
	} bad[] = {
		{"this is no JSON\n", "usage", 0},
		{"{\"id\":1,\n", "usage", 0},
		{"[1]\n", "usage", 0},
		{"\"x\"\n", "usage", 0},
		{"{}\n", "usage", 0},
		{"{\"id\":9}\n", "usage", 9},
		{"{\"id\":9,\"cmd\":7}\n", "usage", 9},
		{"{\"id\":-1,\"cmd\":\"a\"}\n", "usage", 0},
		{"{\"id\":\"x\",\"cmd\":\"a\"}\n", "usage", 0},
		{"{\"id\":9,\"v\":2,\"cmd\":\"a\"}\n", "unsupported", 9},
		{"{\"id\":9,\"v\":\"1\",\"cmd\":\"a\"}\n", "unsupported", 9},
		{"\xff\xfe\x80 \xc3(\n", "usage", 0},
		{"{\"cmd\":\"\xff\"}\n", "usage", 0},
		{"{\"cmd\":\"\x01\"}\n", "usage", 0},
		{"nul\033[31m\n", "usage", 0},
	};
	struct world *w = *state;
	int fd = dial(w);

	skip_greeting(w, fd);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		say(fd, bad[i].text);
		expect_error(w, fd, bad[i].id, bad[i].code);
	}
	assert_int_equal(send(fd, "{\"id\":1}\0\n", 10, MSG_NOSIGNAL), 10);
	expect_error(w, fd, 0, "usage");
	assert_int_equal(w->requests, 0);
	say(fd, "{\"id\":4,\"cmd\":\"still here\"}\n");
	expect_ok(w, fd, 4);
	close(fd);
}

/* Deep nesting, as many brackets as fit. */
static void test_deep_nesting(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	char *text = malloc(60001);

	skip_greeting(w, fd);
	memset(text, '[', 60000);
	text[59999] = '\n';
	text[60000] = '\0';
	say(fd, text);
	expect_error(w, fd, 0, "usage");
	free(text);
	close(fd);
}

static void test_longest_line(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	static char text[CONTROL_REQUEST_BYTES + 2];
	const char *start = "{\"id\":8,\"cmd\":\"a\",\"x\":\"", *end = "\"}\n";

	skip_greeting(w, fd);
	memset(text, 'y', sizeof(text));
	memcpy(text, start, strlen(start));
	memcpy(text + CONTROL_REQUEST_BYTES - 2, end, 3);
	text[CONTROL_REQUEST_BYTES + 1] = '\0';
	assert_int_equal(send(fd, text, CONTROL_REQUEST_BYTES + 1, 0), CONTROL_REQUEST_BYTES + 1);
	expect_ok(w, fd, 8); /* just fits */
	close(fd);
}

/* 100 MiB without a newline: told, closed, nothing kept. */
static void test_endless_line(void **state)
{
	struct world *w = *state;
	int fd = dial(w), status;
	pid_t pid = fork();

	if (pid == 0) {
		static char block[1024 * 1024];
		memset(block, 'z', sizeof(block));
		fcntl(fd, F_SETFL, 0);
		for (int i = 0; i < 100; i++) {
			if (send(fd, block, sizeof(block), MSG_NOSIGNAL) < 0)
				_exit(errno == EPIPE || errno == ECONNRESET ? 0 : 1);
		}
		_exit(2);
	}
	skip_greeting(w, fd);
	expect_error(w, fd, 0, "usage");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_null(read_line(w, fd));
	close(fd);
	turn(w, 10);
	assert_int_equal(w->closed, 1);
}

/* --- clients that are slow, gone, many
 * ------------------------------------------------------------- */

static bool has_held(struct world *w)
{
	return w->held != NULL;
}

static bool has_closed(struct world *w)
{
	return w->closed > 0;
}

static void test_client_dies_while_it_waits(void **state)
{
	struct world *w = *state;
	int fd = dial(w);

	w->hold = w->answer_in_end = true;
	say(fd, "{\"id\":1,\"cmd\":\"wait\"}\n");
	run_until(w, has_held);
	close(fd);
	run_until(w, has_closed); /* at once, by the kernel's word */
	assert_null(w->held);
}

/* It has closed its sending side only, and gets the late answer. */
static void test_half_closed_waits(void **state)
{
	struct world *w = *state;
	int fd = dial(w);

	skip_greeting(w, fd);
	w->hold = true;
	say(fd, "{\"id\":1,\"cmd\":\"wait\"}\n");
	shutdown(fd, SHUT_WR);
	run_until(w, has_held);
	turn(w, 20);
	assert_int_equal(w->closed, 0);
	control_answer(w->held, w->held_id, json_object());
	expect_ok(w, fd, 1);
	assert_null(read_line(w, fd));
	close(fd);
}

/* As above, but it is gone when the answer comes. */
static void test_half_closed_then_gone(void **state)
{
	struct world *w = *state;
	int fd = dial(w);

	skip_greeting(w, fd);
	w->hold = true;
	say(fd, "{\"id\":1,\"cmd\":\"wait\"}\n");
	shutdown(fd, SHUT_WR);
	run_until(w, has_held);
	close(fd);
	turn(w, 10);
	if (w->held)
		control_answer(w->held, w->held_id, json_object());
	run_until(w, has_closed);
}

/* A thousand requests at once: a bounded number a round, every one answered, in order. */
static void test_pipelined(void **state)
{
	struct world *w = *state;
	int fd = dial(w), big = 1024 * 1024;
	char text[64];

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	skip_greeting(w, fd);
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "{\"id\":%d,\"cmd\":\"a\"}\n", i);
		say(fd, text);
	}
	for (int i = 0; i < 1000; i++)
		expect_ok(w, fd, i);
	assert_int_equal(w->requests, 1000);
	close(fd);
}

/* It sends and sends and never reads: it is not answered without end. */
static void test_never_reads_answers(void **state)
{
	struct world *w = *state;
	int fd = dial(w), other, sent = 0;
	char text[] = "{\"id\":1,\"cmd\":\"big\"}\n";

	w->big = 10000;
	for (int i = 0; i < 100; i++) {
		while (send(fd, text, strlen(text), MSG_NOSIGNAL) > 0)
			sent++;
		turn(w, 1);
	}
	assert_true(sent > 100);
	assert_true((size_t)w->requests * w->big < 2 * 1024 * 1024); /* the rest waits */
	assert_int_equal(w->closed, 0);
	other = dial(w);
	skip_greeting(w, other);
	say(other, "{\"id\":2,\"cmd\":\"a\"}\n");
	expect_ok(w, other, 2);
	close(other);
	close(fd);
}

/* An answer larger than any socket buffer arrives whole. */
static void test_big_answer(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	json_t *answer;

	w->big = 6 * 1024 * 1024;
	skip_greeting(w, fd);
	say(fd, "{\"id\":1,\"cmd\":\"big\"}\n");
	answer = read_json(w, fd);
	assert_int_equal(
		json_string_length(json_object_get(json_object_get(answer, "result"), "text")),
		w->big);
	json_decref(answer);
	say(fd, "{\"id\":2,\"cmd\":\"a\"}\n");
	expect_ok(w, fd, 2);
	close(fd);
}

static void test_events(void **state)
{
	struct world *w = *state;
	int fds[3];

	for (int i = 0; i < 3; i++) {
		fds[i] = dial(w);
		skip_greeting(w, fds[i]);
	}
	control_broadcast(w->control, "{\"event\":\"nobody\"}", 18);
	for (int i = 0; i < 2; i++) {
		say(fds[i], "{\"id\":1,\"cmd\":\"events\"}\n");
		expect_ok(w, fds[i], 1);
	}
	assert_int_equal(control_subscribers(w->control), 2);
	control_broadcast(w->control, "{\"event\":\"one\"}", 15);
	control_broadcast(w->control, "{\"event\":\"two\"}\n", 16); /* with or without newline */
	for (int i = 0; i < 2; i++) {
		assert_string_equal(read_line(w, fds[i]), "{\"event\":\"one\"}");
		assert_string_equal(read_line(w, fds[i]), "{\"event\":\"two\"}");
	}
	close(fds[0]);
	run_until(w, has_closed);
	assert_int_equal(control_subscribers(w->control), 1);
	control_broadcast(w->control, "{}", 2);
	assert_string_equal(read_line(w, fds[1]), "{}");
	assert_int_equal(recv(fds[2], &fds[0], 1, MSG_DONTWAIT), -1);
	close(fds[1]);
	close(fds[2]);
}

/* One subscriber never reads: it is dropped, the other one gets every line. */
static void test_slow_subscriber(void **state)
{
	struct world *w = *state;
	int slow = dial(w), good = dial(w);
	char event[1024];

	skip_greeting(w, slow);
	skip_greeting(w, good);
	say(slow, "{\"id\":1,\"cmd\":\"events\"}\n");
	expect_ok(w, slow, 1);
	say(good, "{\"id\":1,\"cmd\":\"events\"}\n");
	expect_ok(w, good, 1);
	memset(event, 'e', sizeof(event));
	for (int i = 0; i < 8 * 1024; i++) {
		snprintf(event, sizeof(event), "%08d", i);
		event[8] = 'e';
		control_broadcast(w->control, event, sizeof(event));
		if (i % 64 == 63) {
			for (int k = i - 63; k <= i; k++)
				assert_int_equal(atoi(read_line(w, good)), k);
		}
	}
	turn(w, 10);
	assert_int_equal(w->closed, 1);
	assert_int_equal(control_subscribers(w->control), 1);
	close(slow);
	close(good);
}

static bool all_closed(struct world *w)
{
	return w->closed >= 201;
}

static void test_idle_clients(void **state)
{
	struct world *w = *state;
	int fds[200], fd;

	for (int i = 0; i < 200; i++) {
		fds[i] = dial(w);
		skip_greeting(w, fds[i]);
	}
	fd = dial(w);
	skip_greeting(w, fd);
	say(fd, "{\"id\":1,\"cmd\":\"a\"}\n");
	expect_ok(w, fd, 1);
	close(fd);
	for (int i = 0; i < 200; i++)
		close(fds[i]);
	run_until(w, all_closed);
	assert_int_equal(w->closed, 201);
}

static void test_too_many_clients(void **state)
{
	struct world *w = *state;
	static int fds[CONTROL_CLIENTS];
	struct rlimit files;
	int fd;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2 * CONTROL_CLIENTS + 100)
		skip();
	for (int i = 0; i < CONTROL_CLIENTS; i++) {
		fds[i] = dial(w);
		if (i % 64 == 63)
			skip_greeting(w, fds[i]);
	}
	fd = dial(w);
	expect_error(w, fd, 0, "busy");
	assert_null(read_line(w, fd));
	close(fd);
	close(fds[0]);
	run_until(w, has_closed);
	fd = dial(w);
	skip_greeting(w, fd);
	close(fd);
	for (int i = 1; i < CONTROL_CLIENTS; i++)
		close(fds[i]);
}

static void count_round(void *context)
{
	struct world *w = context;

	w->requests++;
	hook(w);
}

/* No descriptor left: the client is turned away, and the loop does not spin. */
static void test_out_of_descriptors(void **state)
{
	struct world *w = *state;
	struct rlimit before, small;
	int fd = dial(w);

	getrlimit(RLIMIT_NOFILE, &before);
	small = before;
	small.rlim_cur = (rlim_t)fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	expect_error(w, fd, 0, "busy");
	w->requests = 0;
	loop_before_block(w->loop, count_round, w);
	turn(w, 50);
	assert_true(w->requests < 10);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	close(fd);
	fd = dial(w);
	skip_greeting(w, fd);
	close(fd);
}

/* --- who ----------------------------------------------------------------------------------------
 */

/* Another user: may ask two things and nothing else. */
static void test_untrusted(void **state)
{
	struct world *w = *state;
	int status, ready[2];
	char c;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	control_server_close(w->control);
	open_server(w, 0666);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		static const char ask[] = "{\"id\":1,\"cmd\":\"shutdown\"}\n"
					  "{\"id\":2,\"cmd\":\"is-executor\"}\n"
					  "{\"id\":3,\"cmd\":\"version\"}\n"
					  "{\"id\":4,\"cmd\":\"events\"}\n";
		char got[8192];
		size_t used = 0;
		int fd, lines = 0;

		if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0)
			_exit(2);
		fd = dial(w);
		fcntl(fd, F_SETFL, 0);
		if (send(fd, ask, strlen(ask), 0) < 0)
			_exit(3);
		while (lines < 5 && used < sizeof(got) - 1) {
			ssize_t n = recv(fd, got + used, 1, 0);
			if (n != 1)
				_exit(4);
			lines += got[used++] == '\n';
		}
		got[used] = '\0';
		if (!strstr(got, "\"id\":1,\"ok\":false") || !strstr(got, "\"id\":2,\"ok\":true") ||
			!strstr(got, "\"id\":3,\"ok\":true") ||
			!strstr(got, "\"id\":4,\"ok\":false") || !strstr(got, "refused") ||
			!strstr(got, "control_owner") || !strstr(got, "sudo"))
			_exit(5);
		close(ready[1]);
		_exit(0);
	}
	close(ready[1]);
	while (waitpid(pid, &status, WNOHANG) == 0)
		turn(w, 5);
	assert_int_equal(status, 0);
	assert_int_equal(read(ready[0], &c, 1), 0);
	close(ready[0]);
	assert_int_equal(w->requests, 2);
	assert_false(w->peer.trusted);
	assert_int_equal(w->peer.uid, 65534);
	assert_int_equal(control_subscribers(w->control), 0);
}

/* control_owner may everything, and by mode 0660 a group given on purpose. */
static void test_owner(void **state)
{
	struct world *w = *state;
	struct control_handlers h = {.request = on_request, .closed = on_closed, .context = w};
	struct config_user owner = {.set = true, .uid = 12345, .gid = 54321, .name = "ops"};
	struct stat st;
	struct err e;

	if (geteuid() != 0)
		skip();
	for (int by_group = 0; by_group < 2; by_group++) {
		int status;
		pid_t pid;

		owner.group_set = by_group;
		control_server_close(w->control);
		assert_int_equal(control_open(w->loop, w->path, 0660, &owner, "the-instance", &h,
					 &w->control, &e),
			0);
		assert_int_equal(stat(w->path, &st), 0);
		assert_int_equal(st.st_uid, 12345);
		assert_int_equal(st.st_gid, 54321);
		pid = fork();
		if (pid == 0) {
			char got[64];
			int fd;
			gid_t groups[2] = {777, 54321};

			if (by_group ? setgroups(2, groups) || setresgid(777, 777, 777) ||
						setresuid(777, 777, 777)
				     : setresuid(12345, 12345, 12345))
				_exit(2);
			fd = dial(w);
			fcntl(fd, F_SETFL, 0);
			if (send(fd, "{\"cmd\":\"a\"}\n", 12, 0) != 12)
				_exit(3);
			(void)!recv(fd, got, 1, 0);
			while (recv(fd, got, 1, 0) == 1 && got[0] != '\n')
				continue;
			_exit(recv(fd, got, 1, 0) == 1 ? 0 : 4);
		}
		w->requests = 0;
		while (waitpid(pid, &status, WNOHANG) == 0)
			turn(w, 5);
		assert_int_equal(status, 0);
		assert_int_equal(w->requests, 1);
		assert_true(w->peer.trusted);
	}
}

/* --- the path -----------------------------------------------------------------------------------
 */

static void test_living_is_refused(void **state)
{
	struct world *w = *state;
	struct control_handlers h = {.request = on_request, .closed = on_closed, .context = w};
	struct control *second;
	char expected[64];
	struct err e;

	assert_int_equal(
		control_open(w->loop, w->path, 0600, NULL, "x", &h, &second, &e), ERR_BUSY);
	snprintf(expected, sizeof(expected), "pid %d", (int)getpid());
	assert_non_null(strstr(e.text, expected));
	assert_true(control_path_intact(w->control));
}

static void test_dead_is_replaced(void **state)
{
	struct world *w = *state;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd;

	control_server_close(w->control);
	assert_int_not_equal(access(w->path, F_OK), 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(a.sun_path, w->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	open_server(w, 0600);
	assert_true(control_path_intact(w->control));
	fd = dial(w);
	skip_greeting(w, fd);
	close(fd);
}

/* Many start at once on one dead socket: exactly one gets it. */
static void test_race_for_a_dead_one(void **state)
{
	struct world *w = *state;

	control_server_close(w->control);
	w->control = NULL;
	for (int round = 0; round < 20; round++) {
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		int go[2], hold[2], winners = 0, status, fd;
		pid_t pids[8];
		char c;

		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		strcpy(a.sun_path, w->path);
		assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
		close(fd);
		assert_int_equal(pipe2(go, O_CLOEXEC), 0);
		assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
		for (int i = 0; i < 8; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				struct control_handlers h = {.request = on_request};
				struct control *mine;
				struct loop *loop; /* the parent's is not there in a fork */
				int rc;

				close(go[1]);
				close(hold[1]);
				if (loop_create(&loop, NULL) != 0)
					_exit(3);
				(void)!read(go[0], &c, 1); /* all start together */
				rc = control_open(loop, w->path, 0600, NULL, "x", &h, &mine, NULL);
				if (rc == 0)
					(void)!read(hold[0], &c, 1); /* until the others are done */
				_exit(rc == 0 ? 0 : rc == ERR_BUSY ? 1 : 2);
			}
		}
		close(go[0]);
		close(hold[0]);
		close(go[1]);
		for (int left = 8; left > 1; left--) {
			assert_true(wait(&status) > 0);
			assert_int_equal(WEXITSTATUS(status), 1);
		}
		close(hold[1]);
		assert_true(wait(&status) > 0);
		winners += WEXITSTATUS(status) == 0;
		assert_int_equal(winners, 1);
		unlink(w->path);
	}
}

static void test_rebind(void **state)
{
	struct world *w = *state;
	int old = dial(w), fd;
	struct err e;

	skip_greeting(w, old);
	unlink(w->path);
	assert_false(control_path_intact(w->control));
	assert_int_equal(control_rebind(w->control, &e), 0);
	assert_true(control_path_intact(w->control));
	fd = dial(w);
	skip_greeting(w, fd);
	say(old, "{\"id\":1,\"cmd\":\"a\"}\n"); /* connections stay */
	expect_ok(w, old, 1);
	close(old);
	close(fd);
}

static void test_foreign_file_stays(void **state)
{
	struct world *w = *state;
	struct control_handlers h = {.request = on_request};
	struct control *second;
	char path[128];
	struct err e;
	int fd;

	snprintf(path, sizeof(path), "%s/file", w->folder);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(control_open(w->loop, path, 0600, NULL, "x", &h, &second, &e), ERR_WRONG);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(
		control_open(w->loop, "/nonexistent/a.sock", 0600, NULL, "x", &h, &second, &e),
		ERR_UNAVAILABLE);
}

/* Queued answers are still sent at the end; what was replaced is not removed. */
static void test_close(void **state)
{
	struct world *w = *state;
	int fd = dial(w);

	skip_greeting(w, fd);
	say(fd, "{\"id\":1,\"cmd\":\"shutdown\"}\n");
	turn(w, 10);
	control_server_close(w->control);
	w->control = NULL;
	assert_int_equal(w->closed, 1);
	expect_ok(w, fd, 1);
	assert_null(read_line(w, fd));
	close(fd);
	assert_int_not_equal(access(w->path, F_OK), 0);

	open_server(w, 0600);
	unlink(w->path);
	fd = open(w->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	control_server_close(w->control);
	w->control = NULL;
	assert_int_equal(access(w->path, F_OK), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_request_and_answer),
		TEST(test_bad_requests),
		TEST(test_deep_nesting),
		TEST(test_longest_line),
		TEST(test_endless_line),
		TEST(test_client_dies_while_it_waits),
		TEST(test_half_closed_waits),
		TEST(test_half_closed_then_gone),
		TEST(test_pipelined),
		TEST(test_never_reads_answers),
		TEST(test_big_answer),
		TEST(test_events),
		TEST(test_slow_subscriber),
		TEST(test_idle_clients),
		TEST(test_too_many_clients),
		TEST(test_out_of_descriptors),
		TEST(test_untrusted),
		TEST(test_owner),
		TEST(test_living_is_refused),
		TEST(test_dead_is_replaced),
		TEST(test_race_for_a_dead_one),
		TEST(test_rebind),
		TEST(test_foreign_file_stays),
		TEST(test_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

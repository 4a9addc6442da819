/* The client of the control protocol against a server that does everything wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
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

#include "worker/control.h"

#define GREETING "{\"baton\":\"0.1.0\",\"v\":1,\"pid\":1,\"instance\":\"x\"}\n"

static char folder[96];
static char path[104];
static pid_t server;

static void say(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		ssize_t n = write(fd, text, left);
		if (n < 0)
			_exit(0);
		text += n;
		left -= (size_t)n;
	}
}

/* Reads one line; false at the end of file. */
static int hear(int fd, char *buf, size_t bytes)
{
	size_t used = 0;

	while (used + 1 < bytes && read(fd, buf + used, 1) == 1) {
		if (buf[used] == '\n') {
			buf[used] = '\0';
			return 1;
		}
		used++;
	}
	return 0;
}

/* The server runs PLAY for each connection, one after the other, in a child. */
static void serve(void (*play)(int fd))
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	fflush(NULL);
	server = fork();
	assert_true(server >= 0);
	if (server == 0) {
		signal(SIGPIPE, SIG_IGN);
		for (;;) {
			int one = accept(fd, NULL, NULL);
			if (one < 0)
				_exit(1);
			play(one);
			close(one);
		}
	}
	close(fd);
}

static int end_server(void **state)
{
	(void)state;
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
	unlink(path);
	return 0;
}

static int64_t ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void play_echo(int fd)
{
	char line[CONTROL_REQUEST_BYTES + 1], answer[256];

	say(fd, GREETING);
	while (hear(fd, line, sizeof(line))) {
		json_t *request = json_loads(line, 0, NULL);
		int id = (int)json_integer_value(json_object_get(request, "id"));
		int right = json_integer_value(json_object_get(request, "v")) == 1;

		json_decref(request);
		snprintf(answer, sizeof(answer),
			"{\"event\":\"worker.running\"}\n{\"id\":%d,\"progress\":\"half\"}\n"
			"{\"id\":%d,\"ok\":true}\n{\"id\":%d,\"ok\":true,\"result\":{\"v\":%d}}\n",
			id, id + 1000, id, right);
		say(fd, answer);
	}
}

static void count(const json_t *line, void *context)
{
	assert_true(json_is_object(line));
	++*(int *)context;
}

static void test_call(void **state)
{
	struct control_client c;
	struct err e;
	int lines = 0;

	(void)state;
	serve(play_echo);
	assert_int_equal(control_connect(&c, path, 5000, &e), 0);
	assert_string_equal(json_string_value(json_object_get(c.greeting, "instance")), "x");
	for (int i = 0; i < 3; i++) {
		json_t *request = json_pack("{s:s}", "cmd", "status"), *answer = NULL;
		assert_int_equal(control_call(&c, request, 5000, count, &lines, &answer, &e), 0);
		assert_int_equal(json_integer_value(json_object_get(request, "id")), i + 1);
		assert_int_equal(
			json_integer_value(json_object_get(json_object_get(answer, "result"), "v")),
			1);
		json_decref(answer);
		json_decref(request);
	}
	assert_int_equal(lines, 9);
	control_close(&c);
	control_close(&c);
}

static void play_bytes(int fd)
{
	const char *text = GREETING
		"{\"a\":1}\n{\"b\":\"\\u00e9\"}\n\n{\"c\":[1,2]}\nnot json\n[1]\n";

	for (; *text; text++)
		if (write(fd, text, 1) != 1)
			return;
}

static void test_pieces_and_nonsense(void **state)
{
	static const int wanted[] = {0, 0, ERR_PROTOCOL, 0, ERR_PROTOCOL, ERR_PROTOCOL,
		ERR_NOT_RUNNING, ERR_NOT_RUNNING};
	struct control_client c;
	struct err e;

	(void)state;
	serve(play_bytes);
	assert_int_equal(control_connect(&c, path, 5000, &e), 0);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		json_t *line = NULL;
		assert_int_equal(control_receive(&c, 5000, &line, &e), wanted[i]);
		assert_int_equal(line != NULL, wanted[i] == 0);
		json_decref(line);
	}
	control_close(&c);
}

enum { HUGE_BYTES = 20 * 1024 * 1024 };

static void play_huge(int fd)
{
	char *text = malloc(HUGE_BYTES + 1);

	say(fd, GREETING "{\"id\":1,\"ok\":true,\"result\":\"");
	memset(text, 'x', HUGE_BYTES);
	text[HUGE_BYTES] = '\0';
	say(fd, text);
	say(fd, "\"}\n{\"id\":2,\"ok\":false,\"error\":{}}\n");
	free(text);
	while (read(fd, &text, sizeof(text)) > 0)
		;
}

static void test_huge_answer(void **state)
{
	struct control_client c;
	json_t *request = json_pack("{s:s}", "cmd", "status"), *answer = NULL;
	struct err e;

	(void)state;
	serve(play_huge);
	assert_int_equal(control_connect(&c, path, 5000, &e), 0);
	assert_int_equal(control_call(&c, request, 60000, NULL, NULL, &answer, &e), 0);
	assert_int_equal(json_string_length(json_object_get(answer, "result")), HUGE_BYTES);
	json_decref(answer);
	assert_int_equal(control_call(&c, request, 5000, NULL, NULL, &answer, &e), 0);
	assert_true(json_is_false(json_object_get(answer, "ok")));
	json_decref(answer);
	json_decref(request);
	control_close(&c);
}

static void play_silent(int fd)
{
	char byte;

	while (read(fd, &byte, 1) > 0)
		;
}

static void play_greet_only(int fd)
{
	say(fd, GREETING "{\"half\":");
	play_silent(fd);
}

/* A wait takes its time and no processor. */
static void test_timeouts(void **state)
{
	struct control_client c;
	json_t *line = NULL;
	struct err e;
	int64_t wall = ms(CLOCK_MONOTONIC), cpu = ms(CLOCK_PROCESS_CPUTIME_ID);

	(void)state;
	serve(play_silent);
	assert_int_equal(control_connect(&c, path, 200, &e), ERR_TIMEOUT);
	assert_int_equal(c.fd, -1);
	end_server(NULL);
	serve(play_greet_only);
	assert_int_equal(control_connect(&c, path, 5000, &e), 0);
	assert_int_equal(control_receive(&c, 200, &line, &e), ERR_TIMEOUT);
	assert_int_equal(control_receive(&c, 0, &line, &e), ERR_TIMEOUT);
	control_close(&c);
	wall = ms(CLOCK_MONOTONIC) - wall;
	cpu = ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	if (wall < 400 || cpu > 100)
		fail_msg("waited %lld ms with %lld ms of CPU", (long long)wall, (long long)cpu);
}

/* Nobody accepts: the queue of the listener fills, the next connection is bounded all the same. */
static void test_full_queue(void **state)
{
	struct control_client c[8];
	struct err e;
	int64_t wall = ms(CLOCK_MONOTONIC);

	(void)state;
	serve(play_silent);
	kill(server, SIGSTOP);
	for (int i = 0; i < 8; i++)
		assert_int_equal(control_connect(&c[i], path, 50, &e), ERR_TIMEOUT);
	wall = ms(CLOCK_MONOTONIC) - wall;
	if (wall < 350 || wall > 5000)
		fail_msg("8 connections of 50 ms took %lld ms", (long long)wall);
}

static void play_busy(int fd)
{
	say(fd, "{\"id\":0,\"ok\":false,\"error\":{\"code\":\"busy\",\"message\":\"1024 "
		"clients\"}}\n");
}

static void play_stranger(int fd)
{
	say(fd, "220 mail.example.org ESMTP\n");
}

static void play_other(int fd)
{
	say(fd, "{\"hello\":1}\n");
}

static void play_newer(int fd)
{
	say(fd, "{\"baton\":\"9.0\",\"v\":2}\n");
}

static void play_mute(int fd)
{
	(void)fd;
}

static void test_bad_greetings(void **state)
{
	static const struct {
		void (*play)(int);
		int wanted;
	} t[] = {{play_busy, ERR_BUSY}, {play_stranger, ERR_PROTOCOL}, {play_other, ERR_PROTOCOL},
		{play_newer, ERR_PROTOCOL}, {play_mute, ERR_NOT_RUNNING}};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct control_client c;
		struct err e = {0};

		serve(t[i].play);
		assert_int_equal(control_connect(&c, path, 5000, &e), t[i].wanted);
		assert_int_equal(e.code, t[i].wanted);
		assert_int_equal(c.fd, -1);
		end_server(NULL);
	}
}

static void test_nobody_listens(void **state)
{
	struct control_client c;
	char longest[300], plain[160];
	struct err e;
	FILE *f;

	(void)state;
	assert_int_equal(control_connect(&c, path, 1000, &e), ERR_NOT_RUNNING);
	assert_non_null(strstr(e.text, path));
	assert_int_equal(control_connect(&c, "/proc/self/exe/x", 1000, &e), ERR_NOT_RUNNING);
	serve(play_silent);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	server = 0;
	assert_int_equal(control_connect(&c, path, 1000, &e), ERR_NOT_RUNNING);
	snprintf(plain, sizeof(plain), "%s/plain", folder);
	f = fopen(plain, "w");
	assert_non_null(f);
	fclose(f);
	assert_int_equal(control_connect(&c, plain, 1000, &e), ERR_NOT_RUNNING);
	unlink(plain);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(control_connect(&c, longest, 1000, &e), ERR_LIMIT);
	assert_int_equal(control_connect(&c, "", 1000, &e), ERR_LIMIT);
}

static void test_request_limits(void **state)
{
	struct control_client c;
	char *text = malloc(CONTROL_REQUEST_BYTES + 1);
	json_t *request, *answer = NULL;
	struct err e;

	(void)state;
	memset(text, 'x', CONTROL_REQUEST_BYTES);
	text[CONTROL_REQUEST_BYTES] = '\0';
	serve(play_echo);
	assert_int_equal(control_connect(&c, path, 5000, &e), 0);
	request = json_pack("{s:s}", "cmd", text);
	assert_int_equal(control_send(&c, request, &e), ERR_LIMIT);
	json_decref(request);
	text[CONTROL_REQUEST_BYTES - 100] = '\0';
	request = json_pack("{s:s}", "cmd", text);
	assert_int_equal(control_call(&c, request, 5000, NULL, NULL, &answer, &e), 0);
	json_decref(answer);
	end_server(NULL);
	/* The death is seen by one of them, whichever comes first. */
	assert_int_equal(control_call(&c, request, 5000, NULL, NULL, &answer, &e), ERR_NOT_RUNNING);
	json_decref(request);
	control_close(&c);
	free(text);
}

static int begin(void **state)
{
	const char *where = getenv("TMPDIR");

	(void)state;
	snprintf(folder, sizeof(folder), "%s/cXXXXXX", where ? where : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/s", folder);
	return 0;
}

static int end(void **state)
{
	(void)state;
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_call, end_server),
		cmocka_unit_test_teardown(test_pieces_and_nonsense, end_server),
		cmocka_unit_test_teardown(test_huge_answer, end_server),
		cmocka_unit_test_teardown(test_timeouts, end_server),
		cmocka_unit_test_teardown(test_full_queue, end_server),
		cmocka_unit_test_teardown(test_bad_greetings, end_server),
		cmocka_unit_test_teardown(test_nobody_listens, end_server),
		cmocka_unit_test_teardown(test_request_limits, end_server),
	};
	return cmocka_run_group_tests(tests, begin, end);
}

/* The loop: descriptors, signals, the one timer, safe unwatching, and that idle is idle. */
#include "supervisor/shell/loop.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct world {
	struct loop *loop;
	struct loop_watch *a, *b;
	int calls, other_calls, rounds, timers, signals, last_signal;
	int64_t late_ns;
	int fds[2], fds_b[2];
	unsigned events;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err e;

	alarm(60);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(loop_create(&w->loop, &e), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w->fds), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w->fds_b), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	loop_unwatch(w->a);
	loop_unwatch(w->b);
	loop_free(w->loop);
	for (int i = 0; i < 2; i++) {
		close(w->fds[i]);
		close(w->fds_b[i]);
	}
	free(w);
	return 0;
}

static void on_fired(void *context, int64_t late_ns)
{
	struct world *w = context;

	w->timers++;
	w->late_ns = late_ns;
	loop_stop(w->loop);
}

static void on_read(void *context, unsigned events)
{
	struct world *w = context;
	char c;

	w->events = events;
	w->calls++;
	if (events & LOOP_READ)
		assert_int_equal(read(w->fds[0], &c, 1), 1);
	loop_stop(w->loop);
}

static void test_read_and_pause(void **state)
{
	struct world *w = *state;
	struct err e;

	w->a = loop_watch(w->loop, w->fds[0], LOOP_READ, on_read, w);
	assert_int_equal(write(w->fds[1], "xy", 2), 2);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
	assert_int_equal(w->events, LOOP_READ);

	/* Paused: the second byte waits while the timer runs out. */
	loop_watch_events(w->a, 0);
	assert_int_equal(loop_timer_init(w->loop, on_fired, w, &e), 0);
	loop_timer_set(w->loop, now_ns() + 20000000);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
	assert_int_equal(w->timers, 1);

	loop_watch_events(w->a, LOOP_READ);
	loop_run(w->loop);
	assert_int_equal(w->calls, 2);
	loop_watch_events(w->a, LOOP_READ | LOOP_WRITE);
	loop_run(w->loop);
	assert_int_equal(w->events, LOOP_WRITE);
}

static void test_watch_without_events(void **state)
{
	struct world *w = *state;

	w->a = loop_watch(w->loop, w->fds[0], 0, on_read, w);
	assert_int_equal(write(w->fds[1], "x", 1), 1);
	loop_watch_events(w->a, LOOP_READ);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
}

static void unwatch_both(void *context, unsigned events)
{
	struct world *w = context;

	(void)events;
	w->calls++;
	loop_unwatch(w->a);
	loop_unwatch(w->b);
	w->a = w->b = NULL;
	/* Given out again at once, the memory must not be that of a watch of this round. */
	w->a = loop_watch(w->loop, w->fds[0], 0, unwatch_both, w);
	loop_stop(w->loop);
}

/* Two are ready in one round; the first to be called unwatches both. */
static void test_unwatch_inside_callback(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 100; i++) {
		if (w->a)
			loop_unwatch(w->a);
		w->a = loop_watch(w->loop, w->fds[0], LOOP_READ, unwatch_both, w);
		w->b = loop_watch(w->loop, w->fds_b[0], LOOP_READ, unwatch_both, w);
		assert_int_equal(write(w->fds[1], "x", 1), 1);
		assert_int_equal(write(w->fds_b[1], "x", 1), 1);
		loop_run(w->loop);
		assert_int_equal(w->calls, i + 1);
	}
}

static void on_eof(void *context, unsigned events)
{
	struct world *w = context;
	char c;

	(void)events;
	w->calls++;
	assert_int_equal(read(w->fds[0], &c, 1), 0);
	loop_watch_events(w->a, 0);
}

static void count_round(void *context)
{
	struct world *w = context;

	w->rounds++;
}

/* A descriptor at end of file whose watch is paused costs no round. */
static void test_paused_at_eof_is_quiet(void **state)
{
	struct world *w = *state;
	struct err e;

	w->a = loop_watch(w->loop, w->fds[0], LOOP_READ, on_eof, w);
	close(w->fds[1]);
	w->fds[1] = -1;
	loop_before_block(w->loop, count_round, w);
	assert_int_equal(loop_timer_init(w->loop, on_fired, w, &e), 0);
	loop_timer_set(w->loop, now_ns() + 100000000);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
	assert_true(w->rounds <= 4);
}

static void test_timer(void **state)
{
	struct world *w = *state;
	struct err e;
	int64_t at = now_ns() + 30000000;

	assert_int_equal(loop_timer_init(w->loop, on_fired, w, &e), 0);
	loop_timer_set(w->loop, at + 1000000000);
	loop_timer_set(w->loop, at); /* the later word counts */
	loop_timer_set(w->loop, at);
	loop_run(w->loop);
	assert_true(now_ns() >= at);
	assert_true(w->late_ns >= 0 && w->late_ns < 5000000000);
	assert_int_equal(w->timers, 1);

	loop_timer_set(w->loop, 1); /* the past: at once; late says by how much */
	loop_run(w->loop);
	assert_int_equal(w->timers, 2);
	assert_true(w->late_ns > 0);
	loop_timer_set(w->loop, -5);
	loop_run(w->loop);
	assert_int_equal(w->timers, 3);
}

static void stop_now(void *context, unsigned events)
{
	struct world *w = context;

	(void)events;
	w->calls++;
	loop_timer_set(w->loop, 0);
	loop_unwatch(w->a);
	w->a = NULL;
	loop_stop(w->loop);
}

/* Switched off by another callback: it does not fire any more, not even when it was due. */
static void test_timer_off(void **state)
{
	struct world *w = *state;
	struct err e;

	assert_int_equal(loop_timer_init(w->loop, on_fired, w, &e), 0);
	loop_timer_set(w->loop, now_ns() + 20000000);
	w->a = loop_watch(w->loop, w->fds[0], LOOP_WRITE, stop_now, w);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
	w->a = loop_watch(w->loop, w->fds[0], LOOP_WRITE, stop_now, w);
	loop_run(w->loop);
	assert_int_equal(w->calls, 2);
	assert_int_equal(w->timers, 0);
}

static void on_signalled(void *context, int signal)
{
	struct world *w = context;

	w->signals++;
	w->last_signal = signal;
	loop_stop(w->loop);
}

static void test_signals(void **state)
{
	static const int all[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTTIN,
		SIGTTOU, SIGWINCH, SIGCHLD};
	struct world *w = *state;
	struct err e;
	sigset_t blocked;

	/* As left by a careless parent. */
	sigfillset(&blocked);
	assert_int_equal(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		assert_int_equal(loop_signal(w->loop, all[i], on_signalled, w, &e), 0);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_int_equal(kill(getpid(), all[i]), 0);
		loop_run(w->loop);
		assert_int_equal(w->last_signal, all[i]);
		assert_int_equal(w->signals, (int)i + 1);
	}
	assert_int_equal(sigprocmask(SIG_UNBLOCK, &blocked, NULL), 0);
	assert_int_equal(loop_signal(w->loop, SIGKILL, on_signalled, w, &e), ERR_SYSTEM);
	assert_int_equal(loop_signal(w->loop, 0, on_signalled, w, &e), ERR_SYSTEM);
	assert_int_equal(loop_signal(w->loop, 1000, on_signalled, w, &e), ERR_SYSTEM);
}

/* libev must leave the children alone: the parent waits for its own. */
static void test_children_are_not_reaped(void **state)
{
	struct world *w = *state;
	struct err e;
	int status;
	pid_t pid;

	assert_int_equal(loop_signal(w->loop, SIGCHLD, on_signalled, w, &e), 0);
	pid = fork();
	if (pid == 0)
		_exit(7);
	loop_run(w->loop);
	assert_int_equal(w->signals, 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 7);
}

static void hook_stops(void *context)
{
	struct world *w = context;

	if (++w->rounds == 1)
		loop_stop(w->loop);
}

static void test_hook_may_stop(void **state)
{
	struct world *w = *state;

	loop_before_block(w->loop, hook_stops, w);
	loop_run(w->loop);
	assert_int_equal(w->rounds, 1);
}

static void test_stop_before_run(void **state)
{
	struct world *w = *state;

	loop_stop(w->loop);
	loop_run(w->loop);
}

/* Every descriptor that the loop makes is close-on-exec. */
static void test_descriptors_are_close_on_exec(void **state)
{
	struct world *w = *state;
	struct err e;

	assert_int_equal(loop_timer_init(w->loop, on_fired, w, &e), 0);
	assert_int_equal(loop_signal(w->loop, SIGUSR1, on_signalled, w, &e), 0);
	assert_int_equal(kill(getpid(), SIGUSR1), 0);
	loop_run(w->loop);
	for (int fd = 3; fd < 256; fd++) {
		char path[64], target[256];
		int flags = fcntl(fd, F_GETFD);
		ssize_t n;

		if (flags < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = '\0';
		if (strstr(target, "anon_inode"))
			assert_true(flags & FD_CLOEXEC);
	}
}

/* An idle loop with a timer far away, all signals watched: one round in 300 ms. */
static void test_idle_is_idle(void **state)
{
	struct world *w = *state;
	struct rusage before, after;
	struct err e;

	loop_before_block(w->loop, count_round, w);
	assert_int_equal(loop_signal(w->loop, SIGUSR1, on_signalled, w, &e), 0);
	w->a = loop_watch(w->loop, w->fds[0], LOOP_READ, on_read, w);
	assert_int_equal(loop_timer_init(w->loop, on_fired, w, &e), 0);
	getrusage(RUSAGE_SELF, &before);
	loop_timer_set(w->loop, now_ns() + 300000000);
	loop_run(w->loop);
	getrusage(RUSAGE_SELF, &after);
	assert_true(w->rounds <= 2);
	assert_true(after.ru_nvcsw - before.ru_nvcsw <= 20);
}

/* A descriptor number used again for something else within one round. */
static void test_number_used_again(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 200; i++) {
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		w->a = loop_watch(w->loop, pair[0], LOOP_WRITE, stop_now, w);
		loop_unwatch(w->a);
		close(pair[0]);
		close(pair[1]);
		w->a = loop_watch(w->loop, w->fds[0], LOOP_READ, on_read, w);
		assert_int_equal(write(w->fds[1], "x", 1), 1);
		loop_run(w->loop);
		assert_int_equal(w->calls, i + 1);
		loop_unwatch(w->a);
		w->a = NULL;
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_read_and_pause),
		TEST(test_watch_without_events),
		TEST(test_unwatch_inside_callback),
		TEST(test_paused_at_eof_is_quiet),
		TEST(test_timer),
		TEST(test_timer_off),
		TEST(test_signals),
		TEST(test_children_are_not_reaped),
		TEST(test_hook_may_stop),
		TEST(test_stop_before_run),
		TEST(test_descriptors_are_close_on_exec),
		TEST(test_idle_is_idle),
		TEST(test_number_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

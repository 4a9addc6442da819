/*
 * What starting a process costs on this machine, and the program that is started for it.
 *
 *   bench_spawn worker FIFO          says "PID NANOSECONDS" (CLOCK_MONOTONIC) on FIFO, then waits
 *   bench_spawn stop FIFO MS         the same; takes MS to end after SIGTERM, and says when it has
 *   bench_spawn bare COUNT FIFO      the bare limit: COUNT workers by fork+exec, and each that
 *                                    ends replaced at once, until SIGTERM
 *   bench_spawn kinds PROGRAM        fork, vfork, posix_spawn beside each other
 *
 * The bare loop makes the descriptors that baton makes (two pipes of output, a channel, the pipe
 * that tells of exec), so that what is compared is the way and not the freight.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 301, HEAP_BYTES = 5 << 18 };

struct record {
	int64_t pid, ns;
};

struct child {
	pid_t pid;
	int out, err, channel;
};

static const char *self, *fifo;
static volatile sig_atomic_t ended;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- the worker ---------------------------------------------------------------------------- */
static void say(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	struct record r = {.pid = getpid(), .ns = now_ns()};

	if (fd < 0 || write(fd, &r, sizeof r) != (ssize_t)sizeof r)
		_exit(2);
	close(fd);
}

static void worker(const char *path)
{
	say(path);
	for (;;)
		pause();
}

static int slow_stop(const char *path, int ms)
{
	struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	sigset_t set;
	int got;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	say(path);
	sigwait(&set, &got);
	nanosleep(&rest, NULL);
	say(path);
	return 0;
}

/* --- the bare loop ------------------------------------------------------------------------- */
static void close_child(struct child *c)
{
	close(c->out);
	close(c->err);
	close(c->channel);
}

static int start(struct child *c)
{
	int out[2], err[2], channel[2], report[2];

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 ||
		pipe2(report, O_CLOEXEC) < 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0)
		return -1;
	c->pid = fork();
	if (c->pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		dup2(out[1], 1);
		dup2(err[1], 2);
		dup2(channel[1], 3);
		syscall(SYS_close_range, 4, ~0u, 0);
		execl(self, self, "worker", fifo, (char *)NULL);
		_exit(127);
	}
	c->out = out[0];
	c->err = err[0];
	c->channel = channel[0];
	close(out[1]);
	close(err[1]);
	close(channel[1]);
	close(report[1]);
	close(report[0]);
	return c->pid < 0 ? -1 : 0;
}

static void on_term(int sig)
{
	(void)sig;
	ended = 1;
}

static int bare(int count)
{
	struct child *children = calloc((size_t)count, sizeof *children);
	struct sigaction action = {.sa_handler = on_term};
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	sigaction(SIGTERM, &action, NULL); /* no SA_RESTART: it ends the wait */
	for (int i = 0; i < count; i++) {
		if (start(&children[i]) < 0)
			return 1;
	}
	while (!ended) {
		pid_t pid = waitpid(-1, NULL, 0);

		for (int i = 0; i < count && pid > 0 && !ended; i++) {
			if (children[i].pid != pid)
				continue;
			close_child(&children[i]);
			if (start(&children[i]) < 0)
				return 1;
		}
	}
	for (int i = 0; i < count; i++)
		kill(children[i].pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		continue;
	free(children);
	return 0;
}

/* --- fork, vfork, posix_spawn -------------------------------------------------------------- */
static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static pid_t by_fork(char *const *argv)
{
	pid_t pid = fork();

	if (pid == 0) {
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static pid_t by_vfork(char *const *argv)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static pid_t by_spawn(char *const *argv)
{
	pid_t pid = -1;

	return posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0 ? pid : -1;
}

/* RET_CALL: how long the parent is held; RET_WHOLE: until the child has ended. */
static void measure(pid_t (*way)(char *const *), char *const *argv, int64_t *ret_call,
	int64_t *ret_whole, int round)
{
	int64_t began = now_ns();
	pid_t pid = way(argv);

	ret_call[round] = now_ns() - began;
	waitpid(pid, NULL, 0);
	ret_whole[round] = now_ns() - began;
}

static void print(const char *name, int64_t *ns)
{
	qsort(ns, ROUNDS, sizeof *ns, by_value);
	printf("%s %.3f ms\n", name, (double)ns[ROUNDS / 2] / 1e6);
}

static int kinds(const char *program)
{
	static int64_t call[3][ROUNDS], whole[3][ROUNDS];
	static const char *const names[] = {"fork", "vfork", "posix_spawn"};
	pid_t (*const ways[])(char *const *) = {by_fork, by_vfork, by_spawn};
	char *argv[] = {(char *)program, NULL}, name[64];
	char *heap = aligned_alloc(
		4096, HEAP_BYTES); /* what a fork of baton copies with a thousand workers */

	if (heap == NULL)
		return 1;
	/* Small pages, as the memory of a program that grew bit by bit. */
	(void)madvise(heap, HEAP_BYTES, MADV_NOHUGEPAGE);
	memset(heap, 1, HEAP_BYTES);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 3; i++)
			measure(ways[i], argv, call[i], whole[i], round);
	}
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "kind_%s_call", names[i]);
		print(name, call[i]);
		snprintf(name, sizeof name, "kind_%s_whole", names[i]);
		print(name, whole[i]);
	}
	free(heap);
	return 0;
}

int main(int argc, char **argv)
{
	self = argv[0];
	if (argc == 3 && strcmp(argv[1], "worker") == 0)
		worker(argv[2]);
	if (argc == 4 && strcmp(argv[1], "stop") == 0)
		return slow_stop(argv[2], atoi(argv[3]));
	if (argc == 3 && strcmp(argv[1], "kinds") == 0)
		return kinds(argv[2]);
	if (argc == 4 && strcmp(argv[1], "bare") == 0) {
		fifo = argv[3];
		return bare(atoi(argv[2]));
	}
	fprintf(stderr, "usage: bench_spawn worker FIFO | stop FIFO MS | bare COUNT FIFO | kinds "
			"PROGRAM\n");
	return 2;
}

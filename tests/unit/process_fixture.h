/*
 * For the tests of what kills: processes that only wait, in trees as workers make them. The test
 * is their subreaper, so that none is left over.
 */
#ifndef BATON_TESTS_UNIT_PROCESS_FIXTURE_H
#define BATON_TESTS_UNIT_PROCESS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000, TREE_PIDS = 5 };

/* What a worker with children looks like. */
struct worker_tree {
	pid_t leader;  /* of its own session */
	pid_t orphan;  /* in the session; its parent has gone */
	pid_t grouped; /* in the session, a process group of its own */
	pid_t escaped; /* a session of its own, child of the leader */
	pid_t below;   /* child of escaped, in that session */
};

__attribute__((unused, noreturn)) static void only_wait(void)
{
	alarm(120); /* whatever becomes of the test */
	for (int fd = 3; fd < 256; fd++)
		close(fd); /* above all no copy of a guard */
	for (;;)
		pause();
}

/* A process in a session of its own that waits. */
__attribute__((unused)) static pid_t spawn_leader(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		setsid();
		(void)!write(ready[1], "x", 1);
		close(ready[0]);
		close(ready[1]);
		only_wait();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

/* A child of the test in a session of its own, with that environment. */
__attribute__((unused)) static pid_t spawn_marked(const char *const *environment)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		char *argv[] = {"sleep", "120", NULL};
		setsid();
		execve("/bin/sleep", argv, (char *const *)environment);
		_exit(127);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 0); /* its exec closed the other end */
	close(ready[0]);
	return pid;
}

__attribute__((unused)) static void tell(int fd, pid_t pid)
{
	(void)!write(fd, &pid, sizeof(pid));
}

__attribute__((unused, noreturn)) static void be_leader(int fd)
{
	pid_t child;

	setsid();
	tell(fd, getpid());
	child = fork();
	if (child == 0) {
		pid_t orphan = fork();
		if (orphan == 0)
			only_wait();
		tell(fd, orphan);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	child = fork();
	if (child == 0) {
		only_wait();
	}
	setpgid(child, child);
	tell(fd, child);
	child = fork();
	if (child == 0) {
		pid_t below;
		setsid();
		below = fork();
		if (below == 0)
			only_wait();
		tell(fd, getpid());
		tell(fd, below);
		only_wait();
	}
	only_wait();
}

/* The pids are told in the order of the struct. */
__attribute__((unused)) static struct worker_tree spawn_tree(void)
{
	struct worker_tree t;
	pid_t pids[TREE_PIDS];
	int told[2];

	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	pid_t leader = fork();
	if (leader == 0)
		be_leader(told[1]);
	close(told[1]);
	for (int i = 0; i < TREE_PIDS; i++)
		assert_int_equal(read(told[0], &pids[i], sizeof(pids[i])), sizeof(pids[i]));
	close(told[0]);
	memcpy(&t, pids, sizeof(t));
	return t;
}

/* True when PID is gone or a zombie within the patience. */
__attribute__((unused)) static bool dies(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	bool dead = fd < 0 || poll(&p, 1, PATIENCE_MS) == 1;

	if (fd >= 0)
		close(fd);
	return dead;
}

__attribute__((unused)) static bool lives(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	bool alive = fd >= 0 && poll(&p, 1, 0) == 0;

	if (fd >= 0)
		close(fd);
	return alive;
}

__attribute__((unused)) static void reap_all(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		continue;
}

__attribute__((unused)) static void end_process(pid_t pid)
{
	if (pid > 1)
		kill(pid, SIGKILL);
	if (pid > 1)
		waitpid(pid, NULL, 0);
}

__attribute__((unused)) static void end_tree(const struct worker_tree *t)
{
	end_process(t->leader); /* first, so that the test becomes the parent of the others */
	end_process(t->orphan);
	end_process(t->grouped);
	end_process(t->escaped);
	end_process(t->below);
}

#endif

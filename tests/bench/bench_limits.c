/*
 * The bare limits of this machine, in the same run as baton's figures: one durable COMMIT as the
 * lock makes it, one fdatasync of the floor, fork+exec, from a kill to the pidfd's word.
 * Prints "NAME VALUE UNIT", medians.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker/lock/store.h"

enum { ROUNDS = 100 };

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void print_median(const char *name, int64_t *ns)
{
	qsort(ns, ROUNDS, sizeof *ns, by_value);
	printf("%s %.3f ms\n", name, (double)ns[ROUNDS / 2] / 1e6);
}

static int measure_store(const char *folder)
{
	struct store_settings settings = {.create = true, .busy_limit_ms = 2000};
	struct store_view view;
	struct store_expect expect = {0};
	struct store s;
	struct err e;
	int64_t renew[ROUNDS], promote[ROUNDS], term = 1000;

	snprintf(settings.database, sizeof settings.database, "%s/bench.db", folder);
	strcpy(settings.instance, "bench");
	if (store_sqlite_init(&s, &settings, &e) < 0 ||
		s.ops->inspect(&s, &view, &e) != STORE_DONE) {
		fprintf(stderr, "bench: %s\n", e.text);
		return 1;
	}
	memcpy(expect.db_uuid, view.db_uuid, sizeof expect.db_uuid);
	memcpy(expect.holder, view.row.holder, sizeof expect.holder);
	expect.term = view.row.term;
	expect.beat = view.row.beat;
	if (s.ops->acquire(&s, &expect, term, 60000, "bench", &view, &e) != STORE_DONE)
		return 1;
	for (int i = 0; i < ROUNDS; i++) {
		int64_t t0 = now_ns();

		if (s.ops->renew(&s, 1000, term, 60000, &view, &e) != STORE_DONE)
			return 1;
		renew[i] = now_ns() - t0;
		t0 = now_ns();
		if (s.ops->promote(&s, 1000, term, term + 1, "web", "web:0", 1, "bench", &view,
			    &e) != STORE_DONE)
			return 1;
		promote[i] = now_ns() - t0;
		term++;
	}
	print_median("limit_heartbeat_commit", renew);
	print_median("limit_promote_commit_and_floor", promote);
	s.ops->close(&s);
	return 0;
}

static void measure_fork_exec(void)
{
	int64_t ns[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		int64_t t0 = now_ns();
		pid_t pid = fork();

		if (pid == 0) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
		ns[i] = now_ns() - t0;
	}
	print_median("limit_fork_exec_wait", ns);
}

static void measure_death(void)
{
	int64_t ns[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid = fork();
		struct pollfd p = {.events = POLLIN};
		int64_t t0;

		if (pid == 0) {
			for (;;)
				pause();
		}
		p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
		t0 = now_ns();
		kill(pid, SIGKILL);
		poll(&p, 1, 1000);
		ns[i] = now_ns() - t0;
		close(p.fd);
		waitpid(pid, NULL, 0);
	}
	print_median("limit_kill_to_pidfd", ns);
}

/* From the kernel's report of a death to the exec of a successor (end of its close-on-exec pipe).
 */
static void measure_replacement(void)
{
	int64_t ns[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid = fork(), next;
		struct pollfd p = {.events = POLLIN};
		int done[2];
		int64_t t0;
		char byte;

		if (pid == 0) {
			for (;;)
				pause();
		}
		p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
		kill(pid, SIGKILL);
		poll(&p, 1, 1000);
		t0 = now_ns();
		waitpid(pid, NULL, 0);
		if (pipe2(done, O_CLOEXEC) < 0)
			exit(1);
		next = fork();
		if (next == 0) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(127);
		}
		close(done[1]);
		while (read(done[0], &byte, 1) > 0)
			continue;
		ns[i] = now_ns() - t0;
		close(done[0]);
		close(p.fd);
		waitpid(next, NULL, 0);
	}
	print_median("limit_pidfd_to_exec", ns);
}

int main(void)
{
	char folder[] = "/tmp/baton-bench-XXXXXX", command[128];
	int rc;

	if (mkdtemp(folder) == NULL)
		return 1;
	rc = measure_store(folder);
	measure_fork_exec();
	measure_death();
	measure_replacement();
	snprintf(command, sizeof command, "rm -rf '%s'", folder);
	return system(command) != 0 || rc;
}

/*
 * supervisor/shell/spawn_table.c: children that begin on the supervisor's own table of descriptors.
 * They are /bin/sh, which says what it has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/spawn_table.h"

enum { STRANGERS = 2000, MANY = 40 };

/* Its standard input stays open, and what it prints is its list of descriptors, without that of the
 * list itself. */
#define LIST "cd /proc/self/fd; echo *"

struct child {
	struct process process;
	int out[2], report[2];
	char text[256], said[64];
	ssize_t said_bytes;
	int status;
};

static struct supervisor supervisor; /* its null_fd is all that is looked at */

static void raise_limit(void)
{
	struct rlimit r;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
	r.rlim_cur = r.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
}

static int begin(void **state)
{
	(void)state;
	raise_limit();
	supervisor.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_true(supervisor.null_fd > 0);
	return 0;
}

static void start(struct child *c, const char *path, const char *command)
{
	char *const argv[] = {(char *)path, "-c", (char *)command, NULL};
	char *const paths[] = {(char *)path, NULL};
	char *envp[] = {"PATH=/usr/bin:/bin", NULL};
	struct child_fd fds[3];
	struct child_spec spec = {.argv = argv,
		.paths = paths,
		.envp = envp,
		.fds = fds,
		.fd_count = 3,
		.hold_fd = -1,
		.directory = "",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN,
		.parent = getpid()};

	memset(c, 0, sizeof *c);
	c->process.supervisor = &supervisor;
	assert_int_equal(pipe2(c->out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(c->report, O_CLOEXEC), 0);
	fds[0] = (struct child_fd){supervisor.null_fd, 0};
	fds[1] = (struct child_fd){c->out[1], 1};
	fds[2] = (struct child_fd){2, 2};
	spec.report_fd = c->report[1];
	c->process.pid = table_fork(&c->process, &spec);
	assert_true(c->process.pid > 0);
	close(c->out[1]);
	close(c->report[1]);
}

static void read_all(int fd, char *text, size_t bytes)
{
	size_t used = 0;
	ssize_t n;

	while ((n = read(fd, text + used, bytes - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = '\0';
}

/* Until its end: frees its slot as the supervisor does, when it has said its byte. */
static void finish(struct child *c)
{
	ssize_t n;

	c->said_bytes = 0;
	while ((n = read(c->report[0], c->said + c->said_bytes,
			sizeof c->said - (size_t)c->said_bytes)) > 0) {
		table_free(&c->process);
		c->said_bytes += n;
	}
	read_all(c->out[0], c->text, sizeof c->text);
	assert_int_equal(waitpid(c->process.pid, &c->status, 0), c->process.pid);
	table_free(&c->process);
	close(c->out[0]);
	close(c->report[0]);
}

static int count_open(void)
{
	int count = 0;

	for (int fd = 0; fd < 4 * STRANGERS; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* It has what it was given and nothing else, we keep all that we have, and a slot that is free
 * holds nothing of it: else neither pipe would come to its end. */
static void test_own_table(void **state)
{
	static int strangers[STRANGERS];
	struct child c;
	int before;

	(void)state;
	start(&c, "/bin/sh", "exit 0"); /* takes the numbers */
	finish(&c);
	for (int i = 0; i < STRANGERS; i++)
		strangers[i] = dup(supervisor.null_fd);
	assert_true(strangers[STRANGERS - 1] > STRANGERS);
	before = count_open();
	for (int i = 0; i < MANY; i++) { /* more than there are slots: they are free again */
		start(&c, "/bin/sh", LIST);
		assert_true(c.process.table_slot > 0);
		finish(&c);
		assert_string_equal(c.text, "0 1 2 3\n"); /* 3: the list's own */
		assert_int_equal(c.status, 0);
		assert_int_equal(c.said_bytes, 1);
		assert_int_equal(c.process.table_slot, 0);
	}
	assert_int_equal(count_open(), before);
	for (int i = 0; i < STRANGERS; i++)
		close(strangers[i]);
}

/* As long as all slots are taken, the others are plain forks: nobody waits. */
static void test_no_slot(void **state)
{
	static struct child all[MANY];
	int plain = 0, before;

	(void)state;
	start(&all[0], "/bin/sh", "exit 0");
	finish(&all[0]);
	before = count_open();
	for (int i = 0; i < MANY; i++) { /* nobody listens to them meanwhile */
		start(&all[i], "/bin/sh", LIST);
		plain += all[i].process.table_slot == 0;
	}
	assert_int_equal(plain, MANY - 32);
	for (int i = 0; i < MANY; i++) {
		bool slot = all[i].process.table_slot != 0;

		finish(&all[i]);
		assert_string_equal(all[i].text, "0 1 2 3\n");
		assert_int_equal(all[i].said_bytes, slot ? 1 : 0);
	}
	assert_int_equal(count_open(), before);
}

static void test_cannot_exec(void **state)
{
	struct child_failure f;
	struct child c;

	(void)state;
	start(&c, "/nonexistent/program", "");
	finish(&c);
	assert_int_equal(c.said_bytes, 1 + sizeof f);
	memcpy(&f, c.said + 1, sizeof f);
	assert_int_equal(f.step, CHILD_EXEC);
	assert_int_equal(f.error, ENOENT);
}

/* Killed whenever: sometimes before it has its own table. Its death alone frees the slot. */
static void test_killed(void **state)
{
	struct child c;
	int before;

	(void)state;
	start(&c, "/bin/sh", "exit 0");
	finish(&c);
	before = count_open();
	for (int i = 0; i < 5 * MANY; i++) {
		start(&c, "/bin/sh", "exit 0");
		assert_int_equal(kill(c.process.pid, SIGKILL), 0);
		assert_int_equal(waitpid(c.process.pid, &c.status, 0), c.process.pid);
		assert_true(c.process.table_slot > 0);
		table_free(&c.process);
		read_all(c.report[0], c.said, sizeof c.said); /* comes to its end */
		read_all(c.out[0], c.text, sizeof c.text);
		close(c.out[0]);
		close(c.report[0]);
	}
	assert_int_equal(count_open(), before);
}

/* A source that is closed, and more descriptors than a slot has: a plain fork says or does it. */
static void test_not_for_a_slot(void **state)
{
	struct child c = {.process = {.supervisor = &supervisor}};
	struct child_fd fds[9];
	char *const none[] = {NULL};
	struct child_spec spec = {.argv = none,
		.paths = none,
		.envp = (char **)none,
		.fds = fds,
		.hold_fd = -1,
		.directory = "",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN};
	struct child_failure f;

	(void)state;
	for (size_t count = 1; count <= 9; count += 8) {
		assert_int_equal(pipe2(c.report, O_CLOEXEC), 0);
		for (int i = 0; i < 9; i++)
			fds[i] = (struct child_fd){count == 1 ? 4000 : supervisor.null_fd, i};
		spec.fd_count = count;
		spec.report_fd = c.report[1];
		c.process.pid = table_fork(&c.process, &spec);
		assert_true(c.process.pid > 0);
		assert_int_equal(c.process.table_slot, 0);
		close(c.report[1]);
		assert_int_equal(read(c.report[0], &f, sizeof f), sizeof f);
		assert_int_equal(f.step, count == 1 ? CHILD_DESCRIPTORS : CHILD_EXEC);
		assert_int_equal(f.error, count == 1 ? EBADF : ENOENT);
		assert_int_equal(waitpid(c.process.pid, NULL, 0), c.process.pid);
		close(c.report[0]);
	}
}

/* The slots would be most of what there is. */
static void test_few_descriptors(void **state)
{
	const struct rlimit few = {1024, 1024};
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct child c;

		if (setrlimit(RLIMIT_NOFILE, &few) != 0)
			_exit(2);
		start(&c, "/bin/sh", LIST);
		finish(&c);
		_exit(c.said_bytes != 0 || count_open() > 32 || strcmp(c.text, "0 1 2 3\n") != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* An old kernel, or a container's filter. Before any other use: what is known is known. */
static void test_refused(void **state)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = filter};
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct child c;
		int bad;

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
			prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
			_exit(2);
		start(&c, "/bin/sh", LIST);
		bad = c.process.table_slot != 0;
		finish(&c);
		_exit(bad || c.said_bytes != 0 || strcmp(c.text, "0 1 2 3\n") != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_few_descriptors),
		cmocka_unit_test(test_own_table),
		cmocka_unit_test(test_no_slot),
		cmocka_unit_test(test_cannot_exec),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_not_for_a_slot),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}

/* worker/lock/guard.c: the byte that outlives nobody, the mark, the waiter. */
#include "tests/unit/lock_fixture.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "worker/lock/guard.h"

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_folder(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_end(*state);
	free(*state);
	return 0;
}

static int open_guard(struct fixture *f, int64_t *ret_inode)
{
	int64_t inode;
	int fd = -1;

	assert_int_equal(guard_open(f->database, &fd, ret_inode ? ret_inode : &inode, &f->e), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	return fd;
}

static bool is_free(struct fixture *f, int fd, int64_t epoch)
{
	bool free_byte = false;

	assert_int_equal(guard_is_free(fd, epoch, &free_byte, &f->e), 0);
	return free_byte;
}

static void bytes_exclude_each_other(void **state)
{
	struct fixture *f = *state;
	int64_t inode_a, inode_b, epoch = 1795413208173023;
	int a = open_guard(f, &inode_a), b = open_guard(f, &inode_b);

	assert_true(inode_a == inode_b && inode_a > 0);
	assert_int_equal(guard_lock(a, epoch, &f->e), 0);
	assert_int_equal(guard_lock(b, epoch, &f->e), ERR_BUSY);
	assert_int_equal(guard_lock(b, epoch + 1, &f->e), 0);
	assert_false(is_free(f, b, epoch));
	assert_false(is_free(f, a, epoch + 1));
	assert_true(is_free(f, b, epoch + 2));
	assert_true(is_free(f, b, epoch - 1));
	assert_int_equal(guard_unlock(a, epoch, &f->e), 0);
	assert_true(is_free(f, b, epoch));
	assert_int_equal(guard_lock(b, 0, &f->e), ERR_REFUSED);
	assert_int_equal(guard_lock(b, -5, &f->e), ERR_REFUSED);
	close(a);
	close(b);
}

/* Supervisor and deadman share one description: the byte is free when the last has closed it. */
static void a_shared_description_holds_on(void **state)
{
	struct fixture *f = *state;
	int a = open_guard(f, NULL), b = open_guard(f, NULL), shared = dup(a);

	assert_int_equal(guard_lock(a, 1000, &f->e), 0);
	close(a);
	assert_false(is_free(f, b, 1000));
	close(shared);
	assert_true(is_free(f, b, 1000));
	close(b);
}

static void a_reader_is_no_holder(void **state)
{
	struct fixture *f = *state;
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1000, .l_len = 1};
	int a = open_guard(f, NULL), b = open_guard(f, NULL);

	assert_int_equal(fcntl(a, F_OFD_SETLK, &lock), 0);
	assert_true(is_free(f, b, 1000));
	close(a);
	close(b);
}

static void the_mark_never_falls(void **state)
{
	struct fixture *f = *state;
	int a = open_guard(f, NULL), b = open_guard(f, NULL);
	int64_t epoch = 5;
	unsigned char byte;

	assert_int_equal(guard_cleared(a, &epoch, &f->e), 0);
	assert_int_equal(epoch, 0);
	assert_int_equal(guard_mark_cleared(a, 1000, &f->e), 0);
	assert_int_equal(guard_mark_cleared(b, 999, &f->e), 0);
	assert_int_equal(guard_cleared(b, &epoch, &f->e), 0);
	assert_int_equal(epoch, 1000);
	assert_int_equal(guard_mark_cleared(b, 1001, &f->e), 0);
	assert_int_equal(guard_cleared(a, &epoch, &f->e), 0);
	assert_int_equal(epoch, 1001);
	assert_int_equal(guard_mark_cleared(b, 0, &f->e), ERR_REFUSED);
	/* A damaged mark is no proof. */
	for (int at = 0; at < 24; at++) {
		assert_int_equal(pread(a, &byte, 1, at), 1);
		byte ^= 1;
		assert_int_equal(pwrite(a, &byte, 1, at), 1);
		assert_int_equal(guard_cleared(b, &epoch, &f->e), 0);
		assert_int_equal(epoch, 0);
		byte ^= 1;
		assert_int_equal(pwrite(a, &byte, 1, at), 1);
	}
	close(a);
	close(b);
}

static void beside_the_real_file(void **state)
{
	struct fixture *f = *state;
	char link_name[600];
	int64_t through_link, direct, again;
	struct stat status;
	int fd = open(f->database, O_WRONLY | O_CREAT, 0600), a, b;

	assert_int_equal(fchmod(fd, 0660), 0);
	close(fd);
	snprintf(link_name, sizeof(link_name), "%s/link", f->folder);
	assert_int_equal(symlink("lock.db", link_name), 0);
	assert_int_equal(guard_open(link_name, &a, &through_link, &f->e), 0);
	b = open_guard(f, &direct);
	assert_true(through_link == direct);
	assert_int_equal(fstat(a, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0660);
	unlink(beside(f, "-guard"));
	close(open_guard(f, &again));
	close(a);
	close(b);
	snprintf(link_name, sizeof(link_name), "%s/none/lock.db", f->folder);
	assert_int_equal(guard_open(link_name, &a, &again, &f->e), ERR_UNAVAILABLE);
	assert_says(f, "/none'");
}

static void this_kernel(void **state)
{
	char missing[128];

	(void)state;
	if (!guard_kernel_supports(missing, sizeof(missing))) {
		print_message("skipped: this kernel lacks %s\n", missing);
		skip();
	}
	assert_string_equal(missing, "");
}

/* waiter_main in a child, with its descriptors 3 and 4. Returns the pipe's read end. */
static int start_waiter(struct fixture *f, const char *epoch, pid_t *ret_pid)
{
	int pipe_fds[2];

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	*ret_pid = fork();
	if (*ret_pid == 0) {
		char *argv[] = {"lock-waiter", (char *)epoch, NULL};
		int64_t inode;
		int guard = -1;
		if (guard_open(f->database, &guard, &inode, &f->e) < 0)
			_exit(99);
		/* Out of the way first: 3 and 4 may be either. */
		guard = fcntl(guard, F_DUPFD, 10);
		pipe_fds[1] = fcntl(pipe_fds[1], F_DUPFD, 10);
		dup2(guard, 3);
		dup2(pipe_fds[1], 4);
		for (int fd = 5; fd < 64; fd++)
			close(fd);
		_exit(waiter_main(2, argv));
	}
	close(pipe_fds[1]);
	return pipe_fds[0];
}

/* A waiter blocked on byte 1000 is in /proc/locks, behind an arrow. */
static void wait_until_blocked(void)
{
	char text[256] = "";

	for (int i = 0; i < 100000; i++) {
		FILE *locks = fopen("/proc/locks", "re");
		bool blocked = false;
		while (fgets(text, sizeof(text), locks))
			blocked = blocked ||
				  (strstr(text, "-> OFDLCK") && strstr(text, " 1000 1000"));
		fclose(locks);
		if (blocked)
			return;
		sched_yield();
	}
	fail_msg("nobody waits for byte 1000");
}

static void all_waiters_wake(void **state)
{
	struct fixture *f = *state;
	enum { WAITERS = 5 };
	int holder = open_guard(f, NULL), pipes[WAITERS];
	pid_t pids[WAITERS];

	assert_int_equal(guard_lock(holder, 1000, &f->e), 0);
	for (int i = 0; i < WAITERS; i++)
		pipes[i] = start_waiter(f, "1000", &pids[i]);
	wait_until_blocked();
	for (int i = 0; i < WAITERS; i++) {
		struct pollfd p = {.fd = pipes[i], .events = POLLIN};
		assert_int_equal(poll(&p, 1, 0), 0);
	}
	assert_int_equal(guard_mark_cleared(holder, 1000, &f->e), 0);
	close(holder);
	for (int i = 0; i < WAITERS; i++) {
		struct waiter_report r;
		int status;
		assert_int_equal(read(pipes[i], &r, sizeof(r)), sizeof(r));
		assert_int_equal(r.epoch, 1000);
		assert_int_equal(r.cleared, 1000);
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
		close(pipes[i]);
	}
}

static void a_holder_that_is_killed_wakes_without_a_mark(void **state)
{
	struct fixture *f = *state;
	struct waiter_report r;
	int ready[2], fd;
	char byte;
	pid_t holder, waiter;

	assert_int_equal(pipe(ready), 0);
	holder = fork();
	if (holder == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = open_guard(f, NULL);
		if (guard_lock(fd, 1000, &f->e) == 0)
			(void)!write(ready[1], "x", 1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	fd = start_waiter(f, "1000", &waiter);
	wait_until_blocked();
	kill(holder, SIGKILL);
	assert_int_equal(read(fd, &r, sizeof(r)), sizeof(r));
	assert_int_equal(r.epoch, 1000);
	assert_int_equal(r.cleared, 0);
	waitpid(holder, NULL, 0);
	waitpid(waiter, NULL, 0);
	close(fd);
	close(ready[0]);
	close(ready[1]);
}

static void a_waiter_wants_an_epoch(void **state)
{
	struct fixture *f = *state;
	static const char *const wrong[] = {"", "0", "-3", "12x"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		int status;
		pid_t pid;
		int fd = start_waiter(f, wrong[i], &pid);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 64);
		close(fd);
	}
}

#define GUARD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		GUARD(bytes_exclude_each_other),
		GUARD(a_shared_description_holds_on),
		GUARD(a_reader_is_no_holder),
		GUARD(the_mark_never_falls),
		GUARD(beside_the_real_file),
		GUARD(this_kernel),
		GUARD(all_waiters_wake),
		GUARD(a_holder_that_is_killed_wakes_without_a_mark),
		GUARD(a_waiter_wants_an_epoch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

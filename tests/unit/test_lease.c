/* worker/lease.c: the page, its seals and modes, the order of its writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker/lease.h"

static void created_page(void **state)
{
	struct lease l;
	struct stat st;
	struct err e;
	unsigned char bytes[LEASE_PAGE_BYTES];

	(void)state;
	assert_int_equal(lease_create(&l, &e), 0);
	assert_int_equal(fstat(l.fd_ro, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_int_equal(st.st_size, LEASE_PAGE_BYTES);
	assert_int_equal(fcntl(l.fd_ro, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(l.fd_ro, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(l.fd_rw, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(l.fd_rw, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
		F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(ftruncate(l.fd_rw, 0), -1);
	assert_int_equal(write(l.fd_ro, "x", 1), -1);
	assert_ptr_equal(
		mmap(NULL, LEASE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, l.fd_ro, 0),
		MAP_FAILED);
	lease_show(l.page, 0x1122334455667788, 5, 7);
	assert_int_equal(pread(l.fd_ro, bytes, sizeof(bytes), 0), LEASE_PAGE_BYTES);
	assert_memory_equal(
		bytes, "BATN\1\0\0\0\7\0\0\0\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11\5", 25);
	assert_int_equal(l.page->time_namespace, lease_time_namespace());
	lease_release(&l);
	lease_release(&l);
	assert_int_equal(l.fd_rw, -1);
	memset(&l, 0, sizeof(l));
	lease_release(&l);
	assert_true(fcntl(0, F_GETFD) >= 0 || errno == EBADF);
}

static void shown_extended_cleared(void **state)
{
	struct lease l;
	struct lease_page *second;
	struct err e;

	(void)state;
	assert_int_equal(lease_create(&l, &e), 0);
	assert_int_equal(lease_map(l.fd_rw, &second, &e), 0);
	assert_int_equal(lease_deadline(second), 0);
	assert_false(lease_extend(l.page, 1, 2));
	assert_int_equal(lease_deadline(second), 0);
	lease_show(l.page, 9, 100, 200);
	assert_int_equal(lease_deadline(second), 200);
	assert_int_equal(second->term, 9);
	assert_int_equal(second->soft_deadline_ns, 100);
	assert_true(lease_extend(l.page, 300, 400));
	assert_true(lease_extend(l.page, 250, 350)); /* a shorter ttl lowers the lease */
	assert_int_equal(lease_deadline(second), 350);
	assert_int_equal(second->soft_deadline_ns, 250);
	assert_int_equal(second->heartbeats, 2);
	lease_clear(second); /* the deadman */
	assert_false(lease_extend(l.page, 500, 600));
	assert_int_equal(lease_deadline(l.page), 0);
	assert_int_equal(l.page->heartbeats, 2);
	lease_unmap(second);
	lease_unmap(NULL);
	lease_release(&l);
}

/* A page that was cleared stays cleared while another process extends as fast as it can. */
static void cleared_stays_cleared(void **state)
{
	(void)state;
	for (int round = 0; round < 50; round++) {
		struct lease l;
		struct err e;
		int status;
		assert_int_equal(lease_create(&l, &e), 0);
		lease_show(l.page, 1, 1, 1);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			int64_t at = 1;
			while (lease_extend(l.page, at, at))
				at++;
			_exit(0);
		}
		while (__atomic_load_n(&l.page->heartbeats, __ATOMIC_RELAXED) < 100)
			;
		lease_clear(l.page);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(lease_deadline(l.page), 0);
		lease_release(&l);
	}
}

static int refused(int fd)
{
	struct lease_page *page = NULL;
	struct err e = {0};
	int rc = lease_map(fd, &page, &e);

	assert_null(page);
	assert_int_not_equal(rc, 0);
	assert_int_equal(e.code, rc);
	assert_true(e.text[0] != '\0');
	return rc;
}

static void strange_descriptors(void **state)
{
	struct lease l;
	struct err e;
	int small = memfd_create("small", MFD_CLOEXEC), zeros = memfd_create("zeros", MFD_CLOEXEC);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(small, 100), 0);
	assert_int_equal(ftruncate(zeros, LEASE_PAGE_BYTES), 0);
	assert_int_equal(refused(-1), ERR_SYSTEM);
	assert_int_equal(refused(null), ERR_WRONG);
	assert_int_equal(refused(small), ERR_WRONG);
	assert_int_equal(refused(zeros), ERR_WRONG);
	assert_int_equal(lease_create(&l, &e), 0);
	assert_int_equal(refused(l.fd_ro), ERR_SYSTEM); /* cannot be mapped for writing */
	l.page->version = 2;
	assert_int_equal(refused(l.fd_rw), ERR_WRONG);
	lease_release(&l);
	close(small);
	close(zeros);
	close(null);
}

static void clock_runs(void **state)
{
	struct timespec now;
	int64_t before = lease_now_ns();

	(void)state;
	clock_gettime(CLOCK_BOOTTIME, &now);
	assert_true((int64_t)now.tv_sec * 1000000000 + now.tv_nsec >= before);
	assert_true(lease_now_ns() >= before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(created_page),
		cmocka_unit_test(shown_extended_cleared),
		cmocka_unit_test(cleared_stays_cleared),
		cmocka_unit_test(strange_descriptors),
		cmocka_unit_test(clock_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "worker/lock/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/lock/fs.h"

enum { MARK_MAGIC = 0x4b52414d, MARK_VERSION = 1 }; /* "MARK" */
enum { MARK_READS = 3, MARK_LOCK_STEPS = 100 };
enum { WAITER_GUARD_FD = 3, WAITER_PIPE_FD = 4 };

/* At offset 0. Contents and locks of a file are independent: the byte numbers that are locked need
 * not exist. Byte 0, which is no epoch, is the lock of those who write the mark. */
struct mark {
	uint32_t magic, version;
	int64_t epoch;
	uint64_t checksum;
};

static uint64_t mark_checksum(const struct mark *m)
{
	return fs_checksum(m, offsetof(struct mark, checksum));
}

/* A folder that is there but cannot be written is a fault for people to mend, not a state. */
static int cannot_open(const char *path, int error, struct err *e)
{
	return err_set(e, error == ENOENT ? ERR_UNAVAILABLE : ERR_SYSTEM,
		"cannot open the guard '%s-guard': %s; takeovers wait for the ttl until it can be "
		"opened (check its owner and the folder's permissions)",
		path, strerror(error));
}

int guard_open(const char *database, int *ret_fd, int64_t *ret_inode, struct err *e)
{
	struct fs_place place;
	struct stat status;
	int code = fs_locate(database, &place, e);
	int fd;

	if (code < 0)
		return code;
	fd = fs_open_side(place.path, "-guard", O_RDWR | O_CREAT);
	if (fd < 0)
		return cannot_open(place.path, -fd, e);
	if (fstat(fd, &status) < 0) {
		code = cannot_open(place.path, errno, e);
		close(fd);
		return code;
	}
	*ret_fd = fd;
	*ret_inode = (int64_t)status.st_ino;
	return 0;
}

static int lock_byte(int fd, int command, short type, int64_t byte)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int code;

	do
		code = fcntl(fd, command, &lock);
	while (code < 0 && errno == EINTR && command != F_OFD_SETLKW);
	if (code < 0)
		return -errno;
	return command == F_OFD_GETLK && lock.l_type != F_UNLCK;
}

static int not_an_epoch(int64_t epoch, struct err *e)
{
	return err_set(e, ERR_REFUSED, "cannot use byte %lld of the guard: not an epoch",
		(long long)epoch);
}

int guard_lock(int fd, int64_t epoch, struct err *e)
{
	int code;

	if (epoch <= 0)
		return not_an_epoch(epoch, e);
	code = lock_byte(fd, F_OFD_SETLK, F_WRLCK, epoch);
	if (code == 0)
		return 0;
	if (code == -EAGAIN || code == -EACCES)
		return err_set(e, ERR_BUSY,
			"cannot lock the guard for epoch %lld: another process has it; trying "
			"another "
			"epoch",
			(long long)epoch);
	return err_set(e, ERR_SYSTEM, "cannot lock the guard for epoch %lld: %s", (long long)epoch,
		strerror(-code));
}

int guard_unlock(int fd, int64_t epoch, struct err *e)
{
	int code;

	if (epoch <= 0)
		return not_an_epoch(epoch, e);
	code = lock_byte(fd, F_OFD_SETLK, F_UNLCK, epoch);
	if (code < 0)
		return err_set(e, ERR_SYSTEM, "cannot unlock the guard of epoch %lld: %s",
			(long long)epoch, strerror(-code));
	return 0;
}

int guard_is_free(int fd, int64_t epoch, bool *ret_free, struct err *e)
{
	int code;

	if (epoch <= 0)
		return not_an_epoch(epoch, e);
	/* As a reader: a waiter's lock for reading is no holder. */
	code = lock_byte(fd, F_OFD_GETLK, F_RDLCK, epoch);
	if (code < 0)
		return err_set(e, ERR_SYSTEM, "cannot ask for the guard of epoch %lld: %s",
			(long long)epoch, strerror(-code));
	*ret_free = code == 0;
	return 0;
}

static int read_mark(int fd, int64_t *ret_epoch)
{
	struct mark m;

	*ret_epoch = 0;
	/* Read while it is written, it may be torn; one that stays torn is no mark. */
	for (int i = 0; i < MARK_READS; i++) {
		ssize_t got = pread(fd, &m, sizeof(m), 0);
		if (got < 0)
			return -errno;
		if (got != (ssize_t)sizeof(m) || m.magic != MARK_MAGIC ||
			m.version != MARK_VERSION || m.checksum != mark_checksum(&m))
			continue;
		*ret_epoch = m.epoch;
		break;
	}
	return 0;
}

int guard_cleared(int fd, int64_t *ret_epoch, struct err *e)
{
	int64_t epoch;
	int code = read_mark(fd, &epoch);

	if (code < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot read the mark in the guard: %s", strerror(-code));
	*ret_epoch = epoch;
	return 0;
}

/* Two deadmen (of instances that died together) may write at once: the higher epoch stays. One
 * that is stopped inside does not stop the other for long. */
static void lock_mark(int fd)
{
	for (int i = 0; i < MARK_LOCK_STEPS; i++) {
		struct timespec step = {.tv_nsec = 1000000};
		int code = lock_byte(fd, F_OFD_SETLK, F_WRLCK, 0);
		if (code == 0 || (code != -EAGAIN && code != -EACCES))
			return;
		nanosleep(&step, NULL);
	}
}

int guard_mark_cleared(int fd, int64_t epoch, struct err *e)
{
	struct mark m = {.magic = MARK_MAGIC, .version = MARK_VERSION, .epoch = epoch};
	int64_t before;
	int code;

	if (epoch <= 0)
		return not_an_epoch(epoch, e);
	lock_mark(fd);
	code = read_mark(fd, &before);
	if (code == 0 && before < epoch) {
		ssize_t written;
		m.checksum = mark_checksum(&m);
		written = pwrite(fd, &m, sizeof(m), 0);
		if (written != (ssize_t)sizeof(m))
			code = written < 0 ? -errno : -ENOSPC;
	}
	lock_byte(fd, F_OFD_SETLK, F_UNLCK, 0);
	if (code < 0)
		return err_set(e, ERR_SYSTEM,
			"cannot mark epoch %lld as cleared in the guard: %s; takeovers wait for "
			"the ttl",
			(long long)epoch, strerror(-code));
	return 0;
}

bool guard_kernel_supports(char *missing, size_t bytes)
{
	/* On a file of this process's own: also what seccomp filters refuse is missing. */
	int memory_fd = memfd_create("guard-probe", MFD_CLOEXEC);
	int pid_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	bool locks = memory_fd >= 0 && lock_byte(memory_fd, F_OFD_SETLK, F_WRLCK, 1) == 0;
	bool pidfd = pid_fd >= 0;

	snprintf(missing, bytes, "%s%s%s", pidfd ? "" : "pidfd_open", pidfd || locks ? "" : ", ",
		locks ? "" : "OFD locks (or memfd_create)");
	if (pid_fd >= 0)
		close(pid_fd);
	if (memory_fd >= 0)
		close(memory_fd);
	return locks && pidfd;
}

/* Whoever started us may have died before PR_SET_PDEATHSIG: then nobody reads the pipe. */
static bool reader_is_gone(void)
{
	struct pollfd p = {.fd = WAITER_PIPE_FD};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLNVAL));
}

int waiter_main(int argc, char **argv)
{
	struct waiter_report report = {0};
	char *end = NULL;
	int code;

	prctl(PR_SET_NAME, "lock-waiter");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	report.epoch = argc == 2 ? strtoll(argv[1], &end, 10) : 0;
	if (report.epoch <= 0 || !end || *end != '\0')
		return 64;
	if (reader_is_gone())
		return 1;
	do
		code = lock_byte(WAITER_GUARD_FD, F_OFD_SETLKW, F_RDLCK, report.epoch);
	while (code == -EINTR);
	if (code < 0 || read_mark(WAITER_GUARD_FD, &report.cleared) < 0)
		return 1;
	return write(WAITER_PIPE_FD, &report, sizeof(report)) == (ssize_t)sizeof(report) ? 0 : 1;
}

#include "worker/lock/jobs_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "worker/lock/fs.h"

#define SUFFIX "-jobs"

static int cannot_open(const char *path, int error, struct err *e)
{
	return err_set(e, error == ENOENT ? ERR_UNAVAILABLE : ERR_SYSTEM,
		"cannot open '%s" SUFFIX "': %s; check its owner and the folder's permissions "
		"(it is a regular file that may be removed while nothing runs)",
		path, strerror(error));
}

int jobs_file_open(const char *database, int *ret_fd, struct err *e)
{
	struct fs_place place;
	int code = fs_locate(database, &place, e);
	int fd;

	if (code < 0)
		return code;
	fd = fs_open_side(place.path, SUFFIX, O_RDWR | O_CREAT);
	if (fd < 0)
		return cannot_open(place.path, -fd, e);
	*ret_fd = fd;
	return 0;
}

/* One byte over itself: a full disk has room for it once it was written. */
int jobs_file_ring(int fd, struct err *e)
{
	ssize_t written;

	do
		written = pwrite(fd, "\n", 1, 0);
	while (written < 0 && errno == EINTR);
	if (written == 1 || futimens(fd, NULL) == 0)
		return 0;
	return err_set(e, ERR_SYSTEM,
		"cannot ring the job worker by the file beside the database: "
		"%s; it looks at the next firing",
		strerror(errno));
}

int jobs_file_ring_beside(const char *database, struct err *e)
{
	int fd, code = jobs_file_open(database, &fd, e);

	if (code != 0)
		return code;
	code = jobs_file_ring(fd, e);
	close(fd);
	return code;
}

int64_t jobs_file_new_owner(void)
{
	uint64_t number = 0;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number)) {
		struct timespec t;
		clock_gettime(CLOCK_MONOTONIC, &t);
		number = (uint64_t)t.tv_nsec * 2654435761u ^ (uint64_t)getpid() << 40 ^
			 (uint64_t)t.tv_sec;
	}
	return (int64_t)(number >> 2 | UINT64_C(1) << 32) & (int64_t)(UINT64_MAX >> 2);
}

static int lock_byte(int fd, int command, int64_t byte, short *ret_type)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int code;

	do
		code = fcntl(fd, command, &lock);
	while (code < 0 && errno == EINTR);
	*ret_type = lock.l_type;
	return code < 0 ? -errno : 0;
}

int jobs_file_hold(int fd, int64_t owner, struct err *e)
{
	short type;
	int code = lock_byte(fd, F_OFD_SETLK, owner, &type);

	if (code == 0)
		return 0;
	return err_set(e, code == -EAGAIN || code == -EACCES ? ERR_BUSY : ERR_SYSTEM,
		"cannot register as a job worker in the file beside the database: %s",
		strerror(-code));
}

int jobs_file_is_held(int fd, int64_t owner, bool *ret_held, struct err *e)
{
	short type;
	int code = lock_byte(fd, F_OFD_GETLK, owner, &type);

	if (code != 0)
		return err_set(e, ERR_SYSTEM,
			"cannot ask whether a job worker lives, in the file beside the database: "
			"%s",
			strerror(-code));
	*ret_held = type != F_UNLCK;
	return 0;
}

int jobs_file_watch(const char *database, int inotify_fd, int *ret_watch, struct err *e)
{
	char name[FS_SIDE_BYTES];
	struct fs_place place;
	int code = fs_locate(database, &place, e);
	int fd, watch;

	if (code == 0)
		code = jobs_file_open(database, &fd, e);
	if (code != 0)
		return code;
	close(fd);
	snprintf(name, sizeof(name), "%s" SUFFIX, place.path);
	watch = inotify_add_watch(inotify_fd, name,
		IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF |
			IN_DONT_FOLLOW);
	if (watch < 0)
		return err_set(e, ERR_SYSTEM, "cannot watch '%s': %s", name, strerror(errno));
	*ret_watch = watch;
	return 0;
}

#include "worker/lock/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int (*fs_statfs)(const char *path, struct statfs *ret_statfs) = statfs;

struct file_system {
	uint32_t type; /* f_type of statfs(2), from linux/magic.h and the file systems' sources */
	const char *name;
	bool local;
};

/* Allowed are those with locks and stable inode numbers in one kernel; the others are listed only
 * to be named. vfat, exfat and ntfs invent inode numbers, so a file there seems to be replaced. */
static const struct file_system file_systems[] = {
	{0x0000ef53, "ext2/ext3/ext4", true},
	{0x58465342, "xfs", true},
	{0x9123683e, "btrfs", true},
	{0xf2f52010, "f2fs", true},
	{0x2fc12fc1, "zfs", true},
	{0x01021994, "tmpfs", true},
	{0x858458f6, "ramfs", true},
	{0x794c7630, "overlayfs", true},
	{0xca451a4e, "bcachefs", true},
	{0x52654973, "reiserfs", true},
	{0x3153464a, "jfs", true},
	{0x00003434, "nilfs2", true},
	{0x00006969, "NFS", false},
	{0x0000517b, "SMB", false},
	{0xfe534d42, "SMB", false},
	{0xff534d42, "CIFS", false},
	{0x65735546, "FUSE", false},
	{0x01021997, "9p", false},
	{0x00c36400, "ceph", false},
	{0x5346414f, "AFS", false},
	{0x6b414653, "AFS", false},
	{0x73757245, "coda", false},
	{0x7461636f, "ocfs2", false},
	{0x01161970, "gfs2", false},
	{0x0bd00bd0, "lustre", false},
	{0x19830326, "beegfs", false},
	{0x47504653, "gpfs", false},
	{0x786f4256, "vboxsf", false},
	{0xbacbacbc, "vmhgfs", false},
	{0x7c7c6673, "prl_fs", false},
	{0x00004d44, "vfat", false},
	{0x2011bab0, "exfat", false},
	{0x7366746e, "ntfs", false},
	{0x73717368, "squashfs", false},
	{0x00009660, "iso9660", false},
};

enum { OVERLAY_TYPE = 0x794c7630, LINKS_FOLLOWED = 40 };

uint64_t fs_checksum(const void *bytes, size_t count)
{
	const unsigned char *p = bytes;
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < count; i++)
		hash = (hash ^ p[i]) * 0x100000001b3u;
	return hash;
}

static int missing_folder(const char *database, const char *folder, int error, struct err *e)
{
	return err_set(e, ERR_UNAVAILABLE,
		"cannot find the folder '%s' of the lock database '%s': %s; create it, mount it or "
		"correct [scheduler] database",
		folder, database, strerror(error));
}

/* One step from PATH: its folder's real path and its own name into OUT. */
static int real_folder(
	const char *database, const char *path, char out[FS_PATH_BYTES], struct err *e)
{
	char folder[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int wanted;

	if (path[0] != '/' || !slash || !slash[1] || strlen(path) >= PATH_MAX)
		return err_set(e, ERR_WRONG,
			"the lock database '%s' is not the absolute path of a file", database);
	snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (!realpath(folder, real))
		return missing_folder(database, folder, errno, e);
	wanted = snprintf(out, FS_PATH_BYTES, "%s/%s", real[1] ? real : "", slash + 1);
	if (wanted >= FS_PATH_BYTES)
		return err_set(
			e, ERR_WRONG, "the path of the lock database '%s' is too long", database);
	return 0;
}

/* realpath(3) for a file that need not exist: a dangling link is followed too, as open would. */
static int real_path(const char *database, char out[FS_PATH_BYTES], struct err *e)
{
	char path[2 * PATH_MAX], link[PATH_MAX];

	snprintf(path, sizeof(path), "%s", database);
	for (int followed = 0; followed < LINKS_FOLLOWED; followed++) {
		int code = real_folder(database, path, out, e);
		ssize_t length;
		if (code < 0)
			return code;
		length = readlink(out, link, sizeof(link) - 1);
		if (length < 0)
			return 0;
		link[length] = '\0';
		if (link[0] == '/')
			snprintf(path, sizeof(path), "%s", link);
		else
			snprintf(path, sizeof(path), "%.*s/%s", (int)(strrchr(out, '/') - out), out,
				link);
	}
	return err_set(e, ERR_UNAVAILABLE,
		"cannot follow '%s': too many levels of symbolic links; correct the links",
		database);
}

static void take_status(struct fs_place *place, const struct statx *status)
{
	place->exists = true;
	place->device = makedev(status->stx_dev_major, status->stx_dev_minor);
	place->inode = status->stx_ino;
	place->bytes = (int64_t)status->stx_size;
	place->mode = status->stx_mode;
	place->uid = status->stx_uid;
	place->gid = status->stx_gid;
}

static int locate(const char *database, struct fs_place *place, struct statx *status, struct err *e)
{
	int code;

	memset(place, 0, sizeof(*place));
	memset(status, 0, sizeof(*status));
	code = real_path(database, place->path, e);
	if (code < 0)
		return code;
	if (statx(AT_FDCWD, place->path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, status) == 0) {
		take_status(place, status);
		return 0;
	}
	if (errno == ENOENT)
		return 0;
	return err_set(e, ERR_UNAVAILABLE, "cannot look at the lock database '%s': %s; retrying",
		place->path, strerror(errno));
}

int fs_locate(const char *database, struct fs_place *ret_place, struct err *e)
{
	struct fs_place place;
	struct statx status;
	int code = locate(database, &place, &status, e);

	if (code == 0)
		*ret_place = place;
	return code;
}

static const struct file_system *find_file_system(uint32_t type)
{
	for (size_t i = 0; i < sizeof(file_systems) / sizeof(*file_systems); i++) {
		if (file_systems[i].type == type)
			return &file_systems[i];
	}
	return NULL;
}

/* The folder of a real path. */
static void folder_of(const char *path, char out[FS_PATH_BYTES])
{
	const char *slash = strrchr(path, '/');

	snprintf(out, FS_PATH_BYTES, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* The file system of the file, or of the folder in which it will be made. */
static int check_file_system(struct fs_place *place, bool unsafe, struct err *e)
{
	char folder[FS_PATH_BYTES];
	const struct file_system *found;
	struct statfs status;

	if (place->exists)
		snprintf(folder, sizeof(folder), "%s", place->path);
	else
		folder_of(place->path, folder);
	if (fs_statfs(folder, &status) < 0)
		return err_set(e, ERR_UNAVAILABLE,
			"cannot ask for the file system of '%s': %s; retrying", folder,
			strerror(errno));
	place->overlay = (uint32_t)status.f_type == OVERLAY_TYPE;
	found = find_file_system((uint32_t)status.f_type);
	if (unsafe || (found && found->local))
		return 0;
	return err_set(e, ERR_WRONG,
		"the lock database '%s' lies on %s (file system type 0x%x), whose locks cannot be "
		"trusted: two instances could hold the lock at once; put it on a local volume that "
		"all instances mount, use PostgreSQL, or accept the risk with unsafe_filesystem = "
		"yes",
		place->path, found ? found->name : "an unknown file system",
		(unsigned)status.f_type);
}

int fs_check(const char *database, bool unsafe, struct fs_place *ret_place, struct err *e)
{
	struct fs_place place;
	struct statx status;
	int code = locate(database, &place, &status, e);

	if (code < 0)
		return code;
	if (place.exists && !S_ISREG(status.stx_mode))
		return err_set(e, ERR_WRONG,
			"the lock database '%s' is not a regular file; name a file of its own",
			place.path);
	if (place.exists && (status.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) &&
		(status.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return err_set(e, ERR_WRONG,
			"the lock database '%s' is itself a mount point: its journal would be "
			"private "
			"to each container and the file corrupted; mount its directory instead",
			place.path);
	if (place.exists && status.stx_nlink > 1)
		return err_set(e, ERR_WRONG,
			"the lock database '%s' has %u hard links: under another name it has "
			"another "
			"journal; copy it to a file of its own or remove the other names (find "
			"-inum %ju)",
			place.path, status.stx_nlink, (uintmax_t)status.stx_ino);
	code = check_file_system(&place, unsafe, e);
	if (code == 0)
		*ret_place = place;
	return code;
}

/* A new file belongs to those who may write the database. */
static int create_side(const char *path, const char *name)
{
	char folder[FS_PATH_BYTES];
	struct stat database;
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	int folder_fd;

	if (fd < 0)
		return errno == EEXIST ? open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (stat(path, &database) == 0) {
		/* A file whose owner cannot be given away keeps ours. */
		int given = fchown(fd, database.st_uid, database.st_gid);
		given = fchmod(fd, database.st_mode & 0666);
		(void)given;
	}
	folder_of(path, folder);
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd >= 0) {
		(void)fsync(folder_fd);
		close(folder_fd);
	}
	return fd;
}

int fs_open_side(const char *path, const char *suffix, int flags)
{
	char name[FS_SIDE_BYTES];
	struct stat status;
	int fd;

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	fd = open(name, (flags & ~O_CREAT) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT && (flags & O_CREAT))
		fd = create_side(path, name);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
		return fd;
	close(fd);
	return -EINVAL;
}

pid_t fs_lock_owner(const char *path)
{
	/* SQLite's PENDING, RESERVED and SHARED bytes (its file format, section "Locking"). */
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	pid_t owner = 0;

	if (fd < 0)
		return 0;
	if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0)
		owner = lock.l_pid;
	close(fd);
	return owner;
}

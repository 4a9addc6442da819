#include "worker/lock/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "worker/lock/fs.h"

enum { FLOOR_MAGIC = 0x524f4c46, FLOOR_VERSION = 1, SLOTS = 2 }; /* "FLOR" */

struct slot {
	uint32_t magic, version;
	uint64_t sequence; /* the slot with the higher one is the newer */
	int64_t term;
	char db_uuid[STORE_ID_BYTES];
	uint64_t checksum; /* of all before it */
};

struct content {
	struct slot slots[SLOTS];
	bool valid[SLOTS];
	int newest; /* -1 = none is valid */
};

static uint64_t slot_checksum(const struct slot *s)
{
	return fs_checksum(s, offsetof(struct slot, checksum));
}

static bool slot_is_valid(const struct slot *s)
{
	return s->magic == FLOOR_MAGIC && s->version == FLOOR_VERSION &&
	       s->checksum == slot_checksum(s) && s->term > 0 && s->term <= FLOOR_TERM_MAX &&
	       memchr(s->db_uuid, '\0', sizeof(s->db_uuid));
}

static int read_content(int fd, struct content *c)
{
	memset(c, 0, sizeof(*c));
	c->newest = -1;
	for (int i = 0; i < SLOTS; i++) {
		ssize_t got = pread(
			fd, &c->slots[i], sizeof(c->slots[i]), (off_t)i * FLOOR_SLOT_BYTES);
		if (got < 0)
			return -errno;
		c->valid[i] = got == (ssize_t)sizeof(c->slots[i]) && slot_is_valid(&c->slots[i]);
		if (c->valid[i] &&
			(c->newest < 0 || c->slots[i].sequence > c->slots[c->newest].sequence))
			c->newest = i;
	}
	return 0;
}

/* A torn newer slot leaves the older: the term is the highest of all that can be read. */
static int64_t highest_term(const struct content *c)
{
	int64_t term = 0;

	for (int i = 0; i < SLOTS; i++) {
		if (c->valid[i] && c->slots[i].term > term)
			term = c->slots[i].term;
	}
	return term;
}

enum store_floor floor_compare(
	const char *path, const char *db_uuid, int64_t term, int64_t *ret_term, struct err *e)
{
	struct content c;
	int fd = fs_open_side(path, "-floor", O_RDONLY);
	int code;

	*ret_term = 0;
	if (fd == -ENOENT)
		return FLOOR_ABSENT;
	code = fd < 0 ? fd : read_content(fd, &c);
	if (fd >= 0)
		close(fd);
	if (code < 0 || c.newest < 0) {
		err_set(e, ERR_SYSTEM,
			"cannot read the floor '%s-floor' of the lock's terms: %s; the lock is "
			"taken only "
			"after a full ttl of silence, and the file written anew then",
			path, code < 0 ? strerror(-code) : "both of its records are damaged");
		return FLOOR_UNREADABLE;
	}
	*ret_term = highest_term(&c);
	if (strcmp(c.slots[c.newest].db_uuid, db_uuid) != 0)
		return FLOOR_OTHER_UUID;
	return *ret_term > term ? FLOOR_HIGHER : FLOOR_OK;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int lock_floor(int fd, int64_t limit_ms)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
	int64_t end = now_ms() + limit_ms;

	while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		struct timespec step = {.tv_nsec = 1000000};
		if (errno == EINTR)
			continue;
		if ((errno != EAGAIN && errno != EACCES) || now_ms() >= end)
			return -errno;
		nanosleep(&step, NULL);
	}
	return 0;
}

static int write_slot(int fd, const struct content *c, const char *db_uuid, int64_t term)
{
	struct slot s = {.magic = FLOOR_MAGIC, .version = FLOOR_VERSION, .term = term};
	/* Over the older or the damaged one. */
	int place = c->newest < 0 ? 0 : 1 - c->newest;
	ssize_t written;

	s.sequence = c->newest < 0 ? 1 : c->slots[c->newest].sequence + 1;
	snprintf(s.db_uuid, sizeof(s.db_uuid), "%s", db_uuid);
	s.checksum = slot_checksum(&s);
	written = pwrite(fd, &s, sizeof(s), (off_t)place * FLOOR_SLOT_BYTES);
	if (written != (ssize_t)sizeof(s))
		return written < 0 ? -errno : -ENOSPC;
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int raise_open_floor(int fd, const char *db_uuid, int64_t term, int64_t limit_ms)
{
	struct content c;
	int code = lock_floor(fd, limit_ms);

	if (code == 0)
		code = read_content(fd, &c);
	if (code < 0)
		return code;
	if (highest_term(&c) >= term) {
		term = highest_term(&c);
		if (c.newest >= 0 && strcmp(c.slots[c.newest].db_uuid, db_uuid) == 0)
			return 0;
	}
	return write_slot(fd, &c, db_uuid, term);
}

int floor_raise(
	const char *path, const char *db_uuid, int64_t term, int64_t limit_ms, struct err *e)
{
	int fd, code;

	if (term <= 0 || term > FLOOR_TERM_MAX)
		return err_set(e, ERR_REFUSED,
			"refusing to write term %lld to the floor '%s-floor': beyond any clock; "
			"correct the "
			"system's clock",
			(long long)term, path);
	fd = fs_open_side(path, "-floor", O_RDWR | O_CREAT);
	code = fd < 0 ? fd : raise_open_floor(fd, db_uuid, term, limit_ms);
	if (fd >= 0)
		close(fd); /* drops the lock */
	if (code == 0)
		return 0;
	return err_set(e, code == -EAGAIN ? ERR_BUSY : ERR_SYSTEM,
		"cannot raise the floor '%s-floor' to term %lld: %s; nobody is promoted until it "
		"can be "
		"written (check its owner, the folder's permissions and the free space)",
		path, (long long)term, strerror(-code));
}

#include "worker/lease.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The page is a contract with readers that were compiled elsewhere. */
_Static_assert(offsetof(struct lease_page, magic) == 0, "lease page");
_Static_assert(offsetof(struct lease_page, version) == 4, "lease page");
_Static_assert(offsetof(struct lease_page, deadline_ns) == 8, "lease page");
_Static_assert(offsetof(struct lease_page, term) == 16, "lease page");
_Static_assert(offsetof(struct lease_page, soft_deadline_ns) == 24, "lease page");
_Static_assert(offsetof(struct lease_page, time_namespace) == 32, "lease page");
_Static_assert(offsetof(struct lease_page, heartbeats) == 40, "lease page");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the lease page is little-endian");
_Static_assert(__atomic_always_lock_free(sizeof(int64_t), NULL),
	"a reader in another process sees whole 64-bit fields only");

enum { LEASE_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

int64_t lease_now_ns(void)
{
	struct timespec now;
	int rc = clock_gettime(CLOCK_BOOTTIME, &now);

	assert(rc == 0);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t lease_time_namespace(void)
{
	struct stat st;

	if (stat("/proc/self/ns/time", &st) != 0)
		return 0;
	return (uint64_t)st.st_ino;
}

static int map_page(int fd, struct lease_page **ret_page, struct err *e)
{
	void *page = mmap(NULL, LEASE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		return err_set(e, ERR_SYSTEM, "cannot map the lease page: %s", strerror(errno));
	*ret_page = page;
	return 0;
}

/* The mode must be 0400 and the size final before the seals; the second description must be
 * opened through /proc, since dup() would share the read-write one. */
static int prepare_file(int fd_rw, int *ret_fd_ro, struct err *e)
{
	char path[64];
	int fd;

	if (ftruncate(fd_rw, LEASE_PAGE_BYTES) != 0 || fchmod(fd_rw, 0400) != 0)
		return err_set(e, ERR_SYSTEM, "cannot prepare the lease page: %s", strerror(errno));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd_rw);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot open the lease page read-only as '%s': %s",
			path, strerror(errno));
	if (fcntl(fd_rw, F_ADD_SEALS, LEASE_SEALS) != 0) {
		int saved = errno;
		close(fd);
		return err_set(e, ERR_SYSTEM, "cannot seal the lease page: %s", strerror(saved));
	}
	*ret_fd_ro = fd;
	return 0;
}

int lease_create(struct lease *ret_lease, struct err *e)
{
	struct lease l = {.fd_rw = -1, .fd_ro = -1, .page = NULL};
	int rc;

	l.fd_rw = memfd_create("baton-lease", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (l.fd_rw < 0)
		return err_set(e, ERR_SYSTEM, "cannot create a lease page: %s", strerror(errno));
	rc = prepare_file(l.fd_rw, &l.fd_ro, e);
	if (rc == 0)
		rc = map_page(l.fd_rw, &l.page, e);
	if (rc != 0) {
		lease_release(&l);
		return rc;
	}
	l.page->magic = LEASE_MAGIC;
	l.page->version = LEASE_VERSION;
	l.page->time_namespace = lease_time_namespace();
	*ret_lease = l;
	return 0;
}

int lease_map(int fd_rw, struct lease_page **ret_page, struct err *e)
{
	struct lease_page *page;
	struct stat st;
	int rc;

	if (fstat(fd_rw, &st) != 0)
		return err_set(e, ERR_SYSTEM, "cannot inspect the lease page on descriptor %d: %s",
			fd_rw, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size != LEASE_PAGE_BYTES)
		return err_set(e, ERR_WRONG,
			"descriptor %d is not a lease page: not a file of %d bytes", fd_rw,
			LEASE_PAGE_BYTES);
	rc = map_page(fd_rw, &page, e);
	if (rc != 0)
		return rc;
	if (page->magic != LEASE_MAGIC || page->version != LEASE_VERSION) {
		rc = err_set(e, ERR_WRONG,
			"descriptor %d is not a lease page of version %u: magic %#x, version %u",
			fd_rw, LEASE_VERSION, page->magic, page->version);
		lease_unmap(page);
		return rc;
	}
	*ret_page = page;
	return 0;
}

void lease_unmap(struct lease_page *page)
{
	if (page != NULL)
		munmap(page, LEASE_PAGE_BYTES);
}

/* A zeroed lease names descriptor 0, which no lease ever owns: the supervisor keeps 0, 1 and 2
 * open. */
void lease_release(struct lease *l)
{
	lease_unmap(l->page);
	if (l->fd_ro > 0)
		close(l->fd_ro);
	if (l->fd_rw > 0)
		close(l->fd_rw);
	*l = (struct lease){.fd_rw = -1, .fd_ro = -1, .page = NULL};
}

/* The term is stored with release order so that a reader that sees it also sees the deadline 0
 * that lease_clear stored before: deadline, term, deadline again then tells a torn pair. */
void lease_show(struct lease_page *p, uint64_t term, int64_t soft_ns, int64_t deadline_ns)
{
	assert(deadline_ns != 0 && term != 0);
	assert(lease_deadline(p) == 0 || __atomic_load_n(&p->term, __ATOMIC_RELAXED) == term);
	__atomic_store_n(&p->term, term, __ATOMIC_RELEASE);
	__atomic_store_n(&p->soft_deadline_ns, soft_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&p->deadline_ns, deadline_ns, __ATOMIC_RELEASE);
}

bool lease_extend(struct lease_page *p, int64_t soft_ns, int64_t deadline_ns)
{
	int64_t seen = __atomic_load_n(&p->deadline_ns, __ATOMIC_ACQUIRE);

	assert(deadline_ns != 0);
	do {
		if (seen == 0)
			return false;
		/* Without a deadline nobody reads it: a page cleared meanwhile stays cleared. */
		__atomic_store_n(&p->soft_deadline_ns, soft_ns, __ATOMIC_RELAXED);
	} while (!__atomic_compare_exchange_n(
		&p->deadline_ns, &seen, deadline_ns, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
	__atomic_fetch_add(&p->heartbeats, 1, __ATOMIC_RELAXED);
	return true;
}

void lease_clear(struct lease_page *p)
{
	__atomic_store_n(&p->deadline_ns, 0, __ATOMIC_SEQ_CST);
}

int64_t lease_deadline(const struct lease_page *p)
{
	return __atomic_load_n(&p->deadline_ns, __ATOMIC_ACQUIRE);
}

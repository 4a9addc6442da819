/*
 * The lease page of one candidate worker: layout, writer, lease clock.
 *
 * The layout is a contract (worker-protocol.md, "The lease page"): a memfd, one page, little
 * endian, mode 0400, sealed against resizing. The supervisor (and the deadman) keep the read-write
 * descriptor and mapping, the worker inherits a second, read-only open file description.
 *
 * Readers outside this tree (client.c, Python) have their own copy of the offsets.
 */
#ifndef BATON_WORKER_LEASE_H
#define BATON_WORKER_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"

#define LEASE_MAGIC      0x4e544142u /* "BATN" */
#define LEASE_VERSION    1u
#define LEASE_PAGE_BYTES 4096

struct lease_page {
	uint32_t magic;
	uint32_t version;
	int64_t deadline_ns;      /* CLOCK_BOOTTIME; 0 = not the executor; written last */
	uint64_t term;            /* valid while deadline_ns != 0; written before it */
	int64_t soft_deadline_ns; /* past it, start nothing new */
	uint64_t time_namespace;  /* inode of the supervisor's time namespace */
	uint64_t heartbeats;
};

struct lease {
	int fd_rw; /* kept by the supervisor, given to the deadman */
	int fd_ro; /* inherited by the worker */
	struct lease_page *page;
};

/* Nanoseconds of CLOCK_BOOTTIME, the only clock that leases are compared with. */
int64_t lease_now_ns(void);
/* Inode of this process's time namespace; 0 when the kernel has none. */
uint64_t lease_time_namespace(void);

/* A fresh page with deadline 0. Both descriptors are close-on-exec. */
int lease_create(struct lease *ret_lease, struct err *e);
/* Map a read-write descriptor got from elsewhere (deadman); checks magic, version, size. */
int lease_map(int fd_rw, struct lease_page **ret_page, struct err *e);
void lease_unmap(struct lease_page *page); /* NULL is fine */
/* Close the descriptors, unmap; safe on a zeroed or released lease (fds -1). */
void lease_release(struct lease *l);

/* Show the lease: term, soft deadline, then the deadline with release order. The first showing of
 * another term must be preceded by lease_clear. */
void lease_show(struct lease_page *p, uint64_t term, int64_t soft_ns, int64_t deadline_ns);
/* A heartbeat: moves soft deadline and deadline, counts. No effect when the deadline is 0 (the
 * deadman has taken it back): returns false then. Compare-and-swap, so that a cleared page stays
 * cleared. */
bool lease_extend(struct lease_page *p, int64_t soft_ns, int64_t deadline_ns);
void lease_clear(struct lease_page *p);
int64_t lease_deadline(const struct lease_page *p);

#endif

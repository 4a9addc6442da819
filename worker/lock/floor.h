/*
 * The floor: a small file beside the database ("<real path>-floor") with the database's UUID and
 * the highest term given. It outlives a database that is restored, replaced or edited, so that no
 * term is given twice. Two checksummed slots, written in turn and in place: a torn one leaves the
 * other.
 */
#ifndef BATON_WORKER_LOCK_FLOOR_H
#define BATON_WORKER_LOCK_FLOOR_H

#include "worker/lock/store.h"

/* Above it a term or a wall clock in microseconds is nonsense (the year 2255). */
#define FLOOR_TERM_MAX   ((int64_t)1 << 53)
#define FLOOR_SLOT_BYTES 512 /* the second slot begins here; each lies in one sector */

/* What the floor beside the database at PATH (a real path) says about (DB_UUID, TERM). Creates
 * nothing. *RET_TERM is 0 for FLOOR_ABSENT and FLOOR_UNREADABLE; E is filled for the latter. */
enum store_floor floor_compare(
	const char *path, const char *db_uuid, int64_t term, int64_t *ret_term, struct err *e);

/* Raise the floor to TERM for DB_UUID: the highest of what is there and TERM, under a lock, on the
 * disk before it returns. Creates the file with the mode and owner of the database. Waits for
 * another writer at most LIMIT_MS. 0, ERR_BUSY, ERR_REFUSED (nonsense) or ERR_SYSTEM. */
int floor_raise(
	const char *path, const char *db_uuid, int64_t term, int64_t limit_ms, struct err *e);

#endif

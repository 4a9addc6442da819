/*
 * The schema of the SQLite store: whose database is this, which version, how is it made, and the
 * steps from one version to the next. The only other file that knows sqlite3.h.
 */
#ifndef BATON_WORKER_LOCK_MIGRATIONS_H
#define BATON_WORKER_LOCK_MIGRATIONS_H

#include "worker/lock/store.h"

struct sqlite3;

enum schema_kind {
	SCHEMA_EMPTY,   /* no table at all: a file that is about to be made */
	SCHEMA_PLAIN,   /* version 0: the lock table people already have */
	SCHEMA_OURS,    /* version 1 to STORE_SCHEMA_VERSION */
	SCHEMA_NEWER,   /* of a later baton: never written */
	SCHEMA_FOREIGN, /* another application's */
	SCHEMA_WAL,     /* in write-ahead-log mode */
	SCHEMA_DAMAGED, /* not a SQLite database */
};

/* By the file's header alone, through SQLite's own descriptor, without a lock: WAL, DAMAGED or
 * OURS (= nothing against opening it). Returns an SQLite code. */
int migrations_glance(struct sqlite3 *db, enum schema_kind *ret_kind);
/* Inside a transaction. Returns an SQLite code. */
int migrations_identify(struct sqlite3 *db, enum schema_kind *ret_kind, int *ret_version);
/* Why a database of KIND is not used, and what to do. Returns STORE_WRONG. */
enum store_outcome migrations_refuse(
	enum schema_kind kind, int version, const char *path, struct err *e);

/* Inside a transaction on an EMPTY database: the newest version with a free row and a fresh UUID.
 */
int migrations_create(struct sqlite3 *db, int64_t wall_us);
/* Inside the acquiring transaction on a PLAIN database. The plain table is kept under the name
 * scheduler_lock_plain. */
int migrations_from_plain(struct sqlite3 *db, int64_t wall_us);
/* Inside a transaction of the holder on one of OURS: one step, from VERSION to the next. */
int migrations_step(struct sqlite3 *db, int version);
/* The rows that every database has; those that are there stay. */
int migrations_fill(struct sqlite3 *db, int64_t wall_us);
/* The row of a plain table: term 0, held = there is one, beat changes with every heartbeat. */
int migrations_read_plain(struct sqlite3 *db, struct store_row *ret_row);

#endif

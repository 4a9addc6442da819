/*
 * From one version of the schema to the next: by the holder, after its acquire, a step in each
 * transaction, the version read inside it.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "worker/lock/store_session.h"

static int is_holder(struct session *s, bool *ret_is)
{
	sqlite3_stmt *q;
	int rc = sqlite3_prepare_v2(s->db,
		"SELECT 1 FROM scheduler_lock WHERE id = 1 AND state = 1 AND holder = ?", -1, &q,
		NULL);

	if (rc != SQLITE_OK)
		return rc;
	*ret_is = session_step(q, "t", s->store->settings.instance) == SQLITE_ROW;
	return sqlite3_finalize(q);
}

/* One transaction; *RET_VERSION is what it left. */
static enum store_outcome step(struct store *store, int64_t epoch, int *ret_version, struct err *e)
{
	struct session s;
	enum store_outcome outcome = session_begin(
		&s, store, "add this version's tables", epoch, e);
	bool ours = false;
	int rc = 0;

	if (outcome != STORE_DONE)
		return outcome;
	*ret_version = s.version;
	if (s.kind == SCHEMA_OURS && s.version < STORE_SCHEMA_VERSION) {
		rc = is_holder(&s, &ours);
		if (rc == 0 && ours) {
			rc = migrations_step(s.db, s.version);
			*ret_version = s.version + 1;
		}
	} else {
		ours = s.kind == SCHEMA_OURS;
	}
	return session_finish(&s, rc, ours, NULL, e);
}

enum store_outcome session_upgrade(struct store *store, int64_t epoch, struct err *e)
{
	enum store_outcome outcome = STORE_DONE;
	int version = 0;

	while (outcome == STORE_DONE && version < STORE_SCHEMA_VERSION)
		outcome = step(store, epoch, &version, e);
	return outcome;
}

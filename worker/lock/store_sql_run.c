/* One statement with its values: the letters of TYPES are explained in store_session.h. */
#include "worker/lock/store_session.h"

#include <sqlite3.h>
#include <stdarg.h>

static int bind_one(sqlite3_stmt *q, int at, char type, va_list *values)
{
	if (type == 'i' || type == 'I' || type == 'E') {
		int64_t number = va_arg(*values, int64_t);
		bool none = (type == 'I' && number == 0) || (type == 'E' && number < 0);
		return none ? sqlite3_bind_null(q, at) : sqlite3_bind_int64(q, at, number);
	}
	if (type == 'b') {
		const void *bytes = va_arg(*values, const void *);
		size_t count = va_arg(*values, size_t);
		return count == 0 ? sqlite3_bind_null(q, at)
				  : sqlite3_bind_blob64(q, at, bytes, count, SQLITE_STATIC);
	}
	const char *text = va_arg(*values, const char *);
	return type == 'T' && text[0] == '\0' ? sqlite3_bind_null(q, at)
					      : sqlite3_bind_text(q, at, text, -1, SQLITE_STATIC);
}

int session_run(struct session *s, int *ret_changes, const char *sql, const char *types, ...)
{
	sqlite3_stmt *statement;
	va_list values;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);

	if (rc != SQLITE_OK)
		return rc;
	va_start(values, types);
	for (int i = 0; types[i] && rc == SQLITE_OK; i++)
		rc = bind_one(statement, i + 1, types[i], &values);
	va_end(values);
	while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
		continue;
	if (rc != SQLITE_OK) {
		sqlite3_finalize(statement);
		return rc;
	}
	rc = sqlite3_finalize(statement); /* repeats the code of a failed step */
	if (rc == SQLITE_OK && ret_changes)
		*ret_changes = sqlite3_changes(s->db);
	return rc;
}

int session_step(sqlite3_stmt *statement, const char *types, ...)
{
	va_list values;
	int rc = SQLITE_OK;

	sqlite3_reset(statement); /* repeats an error that was told by the step */
	va_start(values, types);
	for (int i = 0; types[i] && rc == SQLITE_OK; i++)
		rc = bind_one(statement, i + 1, types[i], &values);
	va_end(values);
	return rc == SQLITE_OK ? sqlite3_step(statement) : rc;
}

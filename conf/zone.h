/*
 * Time zones: the files of the system's database (TZif), read once and then pure. TZ is not
 * switched, libc's idea of the local time is not asked.
 *
 * A zone is one block of memory, immutable once loaded, and may be shared. Past the end of a
 * file's table its POSIX rule counts.
 */
#ifndef BATON_CONF_ZONE_H
#define BATON_CONF_ZONE_H

#include <stddef.h>
#include <stdint.h>

#include "conf/err.h"

struct zone;

/* A stretch of time with one offset: [start, end), seconds since the epoch. */
struct zone_span {
	int64_t start, end; /* INT64_MIN, INT64_MAX: no limit */
	int32_t offset;     /* seconds east of UTC: local = UTC + offset */
};

/*
 * NAME is a name of the database ("Europe/Berlin", "UTC"), or "" or "system" for the zone of this
 * process: TZ when it is set (a name, ":name", an absolute path, a POSIX rule as "CET-1CEST,M3.5.0,
 * M10.5.0/3"), else /etc/localtime, else UTC. TZDIR moves the database, as for libc.
 * Returns 0; ERR_CONFIG: there is no such zone, or no such database, or the file is no TZif file.
 * The reason in E says what to do. The zone is the caller's (zone_free).
 */
int zone_load(const char *name, struct zone **ret_zone, struct err *e);
/* The same for a value of TZ; NULL is an unset TZ. */
int zone_load_tz(const char *tz, struct zone **ret_zone, struct err *e);
void zone_free(struct zone *z); /* NULL is fine */
/* The name it was loaded by; of the system's zone the best name known ("Europe/Berlin"). */
const char *zone_name(const struct zone *z);

/* The span that the moment UTC (seconds) lies in. Pure, no allocation, O(log n). */
struct zone_span zone_span_at(const struct zone *z, int64_t utc);

/* Local time in the zone as RFC 3339 with its offset, "2027-03-28T03:00:00+02:00", fractions only
 * when there are some; microseconds since the epoch. Returns BUF. Z = NULL: UTC, with "Z". */
enum { ZONE_TIME_BYTES = 48 };
char *zone_print(const struct zone *z, int64_t us, char *buf, size_t bytes);
/* The reverse: RFC 3339, "2027-03-28T03:00:00+02:00" or "...Z"; without an offset it is local time
 * in Z (NULL: UTC), a date alone is its first moment. ERR_CONFIG with the reason in E. */
int zone_scan(const struct zone *z, const char *text, int64_t *ret_us, struct err *e);

/* Days since 1970-01-01 of a date (proleptic Gregorian), and back. */
int64_t zone_days(int64_t year, int month, int day);
void zone_civil(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day);

#endif

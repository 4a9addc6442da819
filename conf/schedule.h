/*
 * Schedules: when a job fires. Cron expressions of five or six fields (seconds first), @hourly and
 * its kin, @every DURATION, @promotion.
 *
 * Everything here is pure but for zone_load (zone.h): no clock is read, nothing is allocated.
 * Moments are microseconds of the wall clock since 1970-01-01T00:00:00Z (leap seconds do not
 * exist, as in time(2)).
 *
 * The rules are those of cronie where it has any:
 *  - a name or number list per field: `*`, `a`, `a-b`, `a-b/n`, `*` with `/n`, `a/n` (from a to
 *    the end of the field), joined by commas. Months JAN-DEC, days SUN-SAT; 0 and 7 are Sunday.
 *    A range runs upwards: FRI-SUN is 5-7, but FRI-MON and 22-2 are refused as cronie does.
 *  - day of month and day of week: both must fit when either field begins with `*` (or `?`), else
 *    either is enough.
 *  - Quartz' extensions: `?` in the day fields is `*`; `L`, `L-n`, `LW`, `nW` in day of month; `nL`
 *    (the last such day of the month) and `n#k` (the k-th) in day of week, numbered as cron does.
 *  - daylight saving: a schedule is *wild* when its second, minute or hour field begins with `*`.
 *    Wild times follow the clock on the wall: those in the skipped hour do not exist, those in the
 *    repeated one come twice. Other times come once a day: all those inside a gap together once, at
 *    its end; in the repeated hour only the first time. Changes of three hours and more (a zone
 * that changes sides of the date line) are a new time, nothing is made up for.
 */
#ifndef BATON_CONF_SCHEDULE_H
#define BATON_CONF_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/zone.h"

#define SCHEDULE_NEVER INT64_MAX
#define SCHEDULE_US    INT64_C(1000000) /* microseconds of a second */

enum schedule_kind {
	SCHEDULE_CRON,
	SCHEDULE_EVERY,     /* at every multiple of every_us since the epoch; no zone matters */
	SCHEDULE_PROMOTION, /* once at each promotion; schedule_next says never */
};

struct schedule { /* a plain value: may be copied; its fields are schedule*.c's own */
	enum schedule_kind kind;
	int64_t every_us;
	uint64_t seconds, minutes; /* bit n: n */
	uint32_t hours, days, months;
	uint32_t nearest;        /* bit n: the weekday nearest to day n (nW) */
	uint32_t last;           /* bit n: n days before the last of the month (L-n) */
	uint8_t weekdays;        /* bit 0: Sunday */
	uint8_t last_weekdays;   /* nL */
	uint8_t nth_weekdays[6]; /* [k]: n#k */
	bool last_nearest;       /* LW */
	bool both_days;          /* day of month and day of week must both fit */
	bool wild;
	bool six;   /* with a field of seconds */
	bool never; /* there is no such date */
};

/* What is wrong, or strange, with an expression: the loader puts file and line before it. */
enum { SCHEDULE_FINDINGS = 8, SCHEDULE_TEXT_BYTES = 256 };
struct schedule_finding {
	bool warning;
	int column;                     /* of the expression, from 1; 0 = all of it */
	char text[SCHEDULE_TEXT_BYTES]; /* "minute 60: 0 to 59" */
};
struct schedule_findings {
	struct schedule_finding items[SCHEDULE_FINDINGS];
	int count, errors;
};

/* Returns 0, or -1 when FINDINGS has errors (as many as fit; *RET_SCHEDULE is untouched then). */
int schedule_parse(
	const char *text, struct schedule *ret_schedule, struct schedule_findings *ret_findings);

/*
 * The first firing strictly after AFTER_US; SCHEDULE_NEVER when there is none (@promotion, a date
 * that does not exist, past the year 9999). ZONE is not looked at for @every; NULL is UTC. Bounded
 * and quick for every expression: it walks over dates and changes of offset, not over minutes.
 */
int64_t schedule_next(const struct schedule *s, const struct zone *zone, int64_t after_us);

/* What it means, for people: "at 02:30 every day", into BUF; returns BUF. */
char *schedule_print(const struct schedule *s, char *buf, size_t bytes);

#endif

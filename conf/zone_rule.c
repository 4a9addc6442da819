/* The POSIX rule of a zone: from text, and as spans of time. RFC 8536, 3.3.1: hours of a change may
 * run from -167 to 167. */
#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "conf/zone_internal.h"

enum { DAY_SECONDS = 86400, RULE_HOURS = 167, OFFSET_HOURS = 24 };

/* --- text ------------------------------------------------------------------------------------ */

/* Digits from LEAST to MOST, or -1. */
static int number(const char **p, int least, int most)
{
	int n = 0;

	if (!isdigit((unsigned char)**p))
		return -1;
	while (isdigit((unsigned char)**p)) {
		n = 10 * n + (*(*p)++ - '0');
		if (n > most)
			return -1;
	}
	return n < least ? -1 : n;
}

/* [+-]hh[:mm[:ss]] */
static int clock_time(const char **p, int hours, int32_t *ret_seconds)
{
	int sign = 1, part, seconds;

	if (**p == '+' || **p == '-')
		sign = *(*p)++ == '-' ? -1 : 1;
	part = number(p, 0, hours);
	if (part < 0)
		return -1;
	seconds = 3600 * part;
	for (int unit = 60; unit >= 1 && **p == ':'; unit /= 60) {
		(*p)++;
		part = number(p, 0, 59);
		if (part < 0)
			return -1;
		seconds += unit * part;
	}
	*ret_seconds = sign * seconds;
	return 0;
}

/* "CET" or "<+0330>": what it is called does not matter. */
static int skip_name(const char **p)
{
	const char *start = *p;

	if (*start == '<') {
		*p += strcspn(*p, ">");
		if (**p != '>')
			return -1;
		(*p)++;
		return 0;
	}
	while (isalpha((unsigned char)**p))
		(*p)++;
	return *p - start >= 3 ? 0 : -1;
}

static int change(const char **p, struct zone_change *c)
{
	*c = (struct zone_change){.time = 2 * 3600};
	if (**p == 'M') {
		(*p)++;
		c->kind = ZONE_MONTH_WEEK_DAY;
		c->month = number(p, 1, 12);
		if (c->month < 0 || *(*p)++ != '.')
			return -1;
		c->week = number(p, 1, 5);
		if (c->week < 0 || *(*p)++ != '.')
			return -1;
		c->day = number(p, 0, 6);
	} else if (**p == 'J') {
		(*p)++;
		c->kind = ZONE_JULIAN;
		c->day = number(p, 1, 365);
	} else {
		c->kind = ZONE_DAY_OF_YEAR;
		c->day = number(p, 0, 365);
	}
	if (c->day < 0)
		return -1;
	if (**p != '/')
		return 0;
	(*p)++;
	return clock_time(p, RULE_HOURS, &c->time);
}

int zone_rule_parse(const char *text, struct zone_rule *ret_rule)
{
	struct zone_rule r = {0};
	const char *p = text;
	int32_t west;

	if (skip_name(&p) < 0 || clock_time(&p, OFFSET_HOURS, &west) < 0)
		return -1;
	r.offset = -west;
	if (*p) {
		r.summer = true;
		r.summer_offset = r.offset + 3600;
		if (skip_name(&p) < 0)
			return -1;
		if (*p && *p != ',') {
			if (clock_time(&p, OFFSET_HOURS, &west) < 0)
				return -1;
			r.summer_offset = -west;
		}
		if (!*p)
			p = ",M3.2.0,M11.1.0"; /* as libc does */
		if (*p++ != ',' || change(&p, &r.begin) < 0 || *p++ != ',' ||
			change(&p, &r.end) < 0 || *p)
			return -1;
	}
	*ret_rule = r;
	return 0;
}

/* --- spans ----------------------------------------------------------------------------------- */

static bool is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Local seconds since the epoch at which the clocks change in YEAR. */
static int64_t change_at(const struct zone_change *c, int64_t year)
{
	int64_t first = zone_days(year, 1, 1), day;
	int weekday;

	switch (c->kind) {
	case ZONE_JULIAN: /* February 29 is not counted */
		day = first + c->day - 1 + (is_leap(year) && c->day >= 60);
		break;
	case ZONE_DAY_OF_YEAR:
		day = first + c->day;
		break;
	default:
		day = zone_days(year, c->month, 1);
		weekday = (int)(((day + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
		day += (c->day - weekday + 7) % 7 + 7 * (c->week - 1);
		if (c->week == 5) { /* the last one */
			int64_t next = zone_days(
				c->month == 12 ? year + 1 : year, c->month % 12 + 1, 1);
			day -= day >= next ? 7 : 0;
		}
	}
	return day * DAY_SECONDS + c->time;
}

struct zone_span zone_rule_span(const struct zone_rule *r, int64_t utc)
{
	struct zone_span span = {INT64_MIN, INT64_MAX, r->offset};
	int64_t days = utc / DAY_SECONDS - (utc % DAY_SECONDS < 0), year;
	int month, day;

	if (!r->summer)
		return span;
	zone_civil(days, &year, &month, &day);
	/* An end and a begin at one moment: the begin is later. */
	for (int64_t y = year - 1; y <= year + 1; y++) {
		int64_t end = change_at(&r->end, y) - r->summer_offset;
		int64_t begin = change_at(&r->begin, y) - r->offset;
		if (end <= utc && end > span.start) {
			span.start = end;
			span.offset = r->offset;
		}
		if (begin <= utc && begin >= span.start) {
			span.start = begin;
			span.offset = r->summer_offset;
		}
		if (end > utc && end < span.end)
			span.end = end;
		if (begin > utc && begin < span.end)
			span.end = begin;
	}
	return span;
}

/*
 * The next firing. Dates are found by the calendar, one month at a step; moments by the spans of
 * one offset that the zone's time consists of. No loop runs over minutes or seconds.
 */
#include <string.h>

#include "conf/schedule_internal.h"

enum {
	DAY_SECONDS = 86400,
	MADE_UP_FOR = 3 * 3600, /* a change of the clocks by less than this is daylight saving */
	FARTHEST = 2 * DAY_SECONDS, /* two offsets are never so far apart */
	YEARS_REPEAT = 400,
};

#define NONE        INT64_MIN
#define LAST_SECOND INT64_C(253402300799) /* of the year 9999 */

static int64_t floor_divide(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static int lowest(uint64_t bits)
{
	return __builtin_ctzll(bits);
}

/* The first set bit at N or above, or -1. */
static int bit_from(uint64_t bits, int n)
{
	if (n > 63)
		return -1;
	bits &= ~UINT64_C(0) << n;
	return bits ? lowest(bits) : -1;
}

/* --- dates ----------------------------------------------------------------------------------- */

struct month {
	int length, first; /* weekday of its first day, 0 = Sunday */
};

static int weekday_of(const struct month *m, int day)
{
	return (m->first + day - 1) % 7;
}

/* The weekday nearest to DAY in the same month. */
static int nearest_weekday(const struct month *m, int day)
{
	switch (weekday_of(m, day)) {
	case 6:
		return day > 1 ? day - 1 : day + 2;
	case 0:
		return day < m->length ? day + 1 : day - 2;
	default:
		return day;
	}
}

static uint32_t days_by_date(const struct schedule *s, const struct month *m)
{
	uint32_t all = (uint32_t)((UINT64_C(2) << m->length) - 2), days = s->days & all;

	for (uint32_t rest = s->nearest & all; rest; rest &= rest - 1)
		days |= UINT32_C(1) << nearest_weekday(m, lowest(rest));
	for (uint32_t rest = s->last; rest; rest &= rest - 1) {
		if (m->length - lowest(rest) >= 1)
			days |= UINT32_C(1) << (m->length - lowest(rest));
	}
	if (s->last_nearest)
		days |= UINT32_C(1) << nearest_weekday(m, m->length);
	return days;
}

static uint32_t days_by_weekday(const struct schedule *s, const struct month *m)
{
	uint32_t days = 0;

	for (int day = 1; day <= m->length; day++) {
		unsigned weekday = 1u << weekday_of(m, day);
		bool last = day + 7 > m->length;
		if (s->weekdays & weekday || s->nth_weekdays[(day + 6) / 7] & weekday ||
			(last && s->last_weekdays & weekday))
			days |= UINT32_C(1) << day;
	}
	return days;
}

static uint32_t days_of(const struct schedule *s, int64_t year, int month)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	int64_t first = zone_days(year, month, 1);
	struct month m = {lengths[month - 1] + (month == 2 && leap),
		(int)(((first + 4) % 7 + 7) % 7)}; /* 1970-01-01 was a Thursday */
	uint32_t by_date = days_by_date(s, &m), by_weekday = days_by_weekday(s, &m);

	return s->both_days ? by_date & by_weekday : by_date | by_weekday;
}

static int64_t date_until(const struct schedule *s, int64_t days, int64_t last_year)
{
	int64_t year;
	int month, day;

	zone_civil(days, &year, &month, &day);
	while (year <= last_year) {
		int found = -1, next = bit_from(s->months, month);
		if (next != month)
			day = 1;
		if (next > 0)
			found = bit_from(days_of(s, year, next), day);
		if (found > 0)
			return zone_days(year, next, found);
		month = next > 0 && next < 12 ? next + 1 : 1;
		year += month == 1;
		day = 1;
	}
	return NONE;
}

int64_t schedule_date(const struct schedule *s, int64_t days)
{
	return date_until(s, days, 9999);
}

bool schedule_has_date(const struct schedule *s)
{
	return date_until(s, zone_days(2000, 1, 1), 2000 + YEARS_REPEAT) != NONE;
}

/* --- local time ------------------------------------------------------------------------------ */

/* The first time of day that fits at SECOND of the day or later, or -1. */
static int time_of_day(const struct schedule *s, int second)
{
	int h = second / 3600, m = second / 60 % 60, hour, minute, sec;

	hour = bit_from(s->hours, h);
	if (hour < 0)
		return -1;
	if (hour == h) {
		minute = bit_from(s->minutes, m);
		sec = minute == m ? bit_from(s->seconds, second % 60) : -1;
		if (sec >= 0)
			return h * 3600 + m * 60 + sec;
		if (minute == m)
			minute = bit_from(s->minutes, m + 1);
		if (minute >= 0)
			return h * 3600 + minute * 60 + lowest(s->seconds);
		hour = bit_from(s->hours, h + 1);
		if (hour < 0)
			return -1;
	}
	return hour * 3600 + lowest(s->minutes) * 60 + lowest(s->seconds);
}

/* The first local second that fits, LOCAL or later; NONE. */
static int64_t local_from(const struct schedule *s, int64_t local)
{
	int64_t today = floor_divide(local, DAY_SECONDS), date = schedule_date(s, today);
	int second = date == today ? time_of_day(s, (int)(local - today * DAY_SECONDS)) : -1;

	if (date == NONE)
		return NONE;
	if (date == today && second < 0) {
		date = schedule_date(s, today + 1);
		if (date == NONE)
			return NONE;
	}
	return date * DAY_SECONDS + (second >= 0 ? second : time_of_day(s, 0));
}

/* --- moments --------------------------------------------------------------------------------- */

static struct zone_span span_at(const struct zone *z, int64_t utc)
{
	static const struct zone_span always = {INT64_MIN, INT64_MAX, 0};

	return z ? zone_span_at(z, utc) : always;
}

/* How far the clocks went forward (or, below 0, back) when the span began; 0 when that is not to be
 * made up for. */
static int32_t change_before(
	const struct schedule *s, const struct zone *z, const struct zone_span *span)
{
	int32_t change;

	if (s->wild || span->start == INT64_MIN)
		return 0;
	change = span->offset - span_at(z, span->start - 1).offset;
	return change > -MADE_UP_FOR && change < MADE_UP_FOR ? change : 0;
}

static int64_t next_second(const struct schedule *s, const struct zone *z, int64_t from)
{
	struct zone_span span = span_at(z, from);

	for (;;) {
		int32_t change = change_before(s, z, &span);
		int64_t low = from + span.offset, found;
		if (change > 0 && from <= span.start) { /* times inside the gap come at its end */
			found = local_from(s, low - change);
			if (found != NONE && found < low)
				return span.start;
		}
		/* times that came before the clocks went back do not come again */
		if (change < 0 && low < span.start + span.offset - change)
			low = span.start + span.offset - change;
		found = local_from(s, low);
		if (found == NONE)
			return NONE;
		if (found - span.offset < span.end)
			return found - span.offset;
		/* No local time fits before FOUND, but clocks that go back may show one from before
		 * LOW again: not from two days on. */
		from = span.end;
		if (span.end - (low - span.offset) > FARTHEST &&
			found - span.offset - FARTHEST > from)
			from = found - span.offset - FARTHEST;
		span = span_at(z, from);
	}
}

int64_t schedule_next(const struct schedule *s, const struct zone *zone, int64_t after_us)
{
	int64_t from, second, next;

	if (s->kind == SCHEDULE_EVERY) {
		next = floor_divide(after_us, s->every_us) + 1;
		if (__builtin_mul_overflow(next, s->every_us, &next) ||
			next > LAST_SECOND * SCHEDULE_US)
			return SCHEDULE_NEVER;
		return next;
	}
	from = floor_divide(after_us, SCHEDULE_US) + 1;
	if (s->kind != SCHEDULE_CRON || s->never || from > LAST_SECOND)
		return SCHEDULE_NEVER;
	second = next_second(s, zone, from);
	return second == NONE || second > LAST_SECOND ? SCHEDULE_NEVER : second * SCHEDULE_US;
}

/* Schedules in words. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "conf/schedule_internal.h"
#include "conf/units.h"

enum { TIMES_MOST = 4 }; /* so many times of day are given one by one */

#define ALL_60    ((UINT64_C(1) << 60) - 1)
#define ALL_HOURS ((UINT64_C(1) << 24) - 1)
#define ALL_DAYS  ((UINT64_C(1) << 32) - 2)
#define ALL_MONTH ((UINT64_C(1) << 13) - 2)
#define ALL_WEEK  ((UINT64_C(1) << 7) - 1)

static const char *const months[] = {"", "January", "February", "March", "April", "May", "June",
	"July", "August", "September", "October", "November", "December"};
static const char *const weekdays[] = {
	"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const nth[] = {"", "first", "second", "third", "fourth", "fifth"};

struct out {
	char *buf;
	size_t bytes, used;
};

__attribute__((format(printf, 2, 3))) static void put(struct out *o, const char *format, ...)
{
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(o->buf + o->used, o->bytes - o->used, format, arguments);
	va_end(arguments);
	o->used += (size_t)n < o->bytes - o->used ? (size_t)n : o->bytes - o->used - 1;
}

static int count(uint64_t bits)
{
	return __builtin_popcountll(bits);
}

static int lowest(uint64_t bits)
{
	return __builtin_ctzll(bits);
}

static void put_value(struct out *o, int n, const char *const *words)
{
	if (words)
		put(o, "%s", words[n]);
	else
		put(o, "%d", n);
}

/* "1, 3, 9-17" */
static void put_list(struct out *o, uint64_t bits, const char *const *words)
{
	const char *comma = "";

	while (bits) {
		int from = lowest(bits), to = from;
		while (to < 63 && bits >> (to + 1) & 1)
			to++;
		put(o, "%s", comma);
		put_value(o, from, words);
		if (to > from) {
			put(o, to > from + 1 ? "-" : ", ");
			put_value(o, to, words);
		}
		comma = ", ";
		bits &= to == 63 ? 0 : ~UINT64_C(0) << (to + 1);
	}
}

/* The step of bits that begin at 0 and divide SIZE evenly, or 0. */
static int even_step(uint64_t bits, int size)
{
	int step = count(bits) > 1 ? lowest(bits & (bits - 1)) : 0;
	uint64_t same = 0;

	if (!(bits & 1) || step == 0 || size % step != 0)
		return 0;
	for (int n = 0; n < size; n += step)
		same |= UINT64_C(1) << n;
	return same == bits ? step : 0;
}

static void put_every(struct out *o, int step, const char *unit)
{
	if (step == 1)
		put(o, "every %s", unit);
	else
		put(o, "every %d %ss", step, unit);
}

/* --- time of day ----------------------------------------------------------------------------- */

static void put_times(struct out *o, const struct schedule *s)
{
	const char *comma = "at ";
	bool seconds = s->six && s->seconds != 1;

	for (uint64_t h = s->hours; h; h &= h - 1) {
		for (uint64_t m = s->minutes; m; m &= m - 1) {
			for (uint64_t sec = s->seconds; sec; sec &= sec - 1) {
				put(o, "%s%02d:%02d", comma, lowest(h), lowest(m));
				if (seconds)
					put(o, ":%02d", lowest(sec));
				comma = ", ";
			}
		}
	}
}

static void put_hours(struct out *o, const struct schedule *s)
{
	if (s->hours == ALL_HOURS)
		put(o, " of every hour");
	else {
		put(o, " of hour%s ", count(s->hours) == 1 ? "" : "s");
		put_list(o, s->hours, NULL);
	}
}

static void put_minutes(struct out *o, const struct schedule *s)
{
	int step = even_step(s->minutes, 60);

	if (step) {
		put_every(o, step, "minute");
		if (s->hours != ALL_HOURS)
			put_hours(o, s);
		return;
	}
	put(o, "at minute%s ", count(s->minutes) == 1 ? "" : "s");
	put_list(o, s->minutes, NULL);
	put_hours(o, s);
}

static void put_seconds(struct out *o, const struct schedule *s)
{
	int step = even_step(s->seconds, 60);

	if (step) {
		put_every(o, step, "second");
	} else {
		put(o, "at second%s ", count(s->seconds) == 1 ? "" : "s");
		put_list(o, s->seconds, NULL);
		if (s->minutes == ALL_60)
			put(o, " of every minute");
	}
	if (s->minutes != ALL_60) {
		put(o, " of minute%s ", count(s->minutes) == 1 ? "" : "s");
		put_list(o, s->minutes, NULL);
	}
	if (s->hours != ALL_HOURS || s->minutes != ALL_60)
		put_hours(o, s);
}

/* True when it names times of day, so that "every day" reads well after it. */
static bool put_time(struct out *o, const struct schedule *s)
{
	int step = s->minutes == 1 && s->seconds == 1 ? even_step(s->hours, 24) : 0;

	if (step) {
		put_every(o, step, "hour");
		return false;
	}
	if (count(s->hours) * count(s->minutes) * count(s->seconds) <= TIMES_MOST) {
		put_times(o, s);
		return true;
	}
	if (s->seconds == 1)
		put_minutes(o, s);
	else
		put_seconds(o, s);
	return false;
}

/* --- dates ----------------------------------------------------------------------------------- */

static void put_date(struct out *o, const struct schedule *s)
{
	const char *comma = "";

	if (s->days) {
		put(o, "day%s ", count(s->days) == 1 ? "" : "s");
		put_list(o, s->days, NULL);
		comma = ", ";
	}
	for (uint32_t n = s->nearest; n; n &= n - 1, comma = ", ")
		put(o, "%sthe working day nearest to day %d", comma, lowest(n));
	for (uint32_t n = s->last; n; n &= n - 1, comma = ", ") {
		if (lowest(n) == 0)
			put(o, "%sthe last day", comma);
		else
			put(o, "%s%d day%s before the last", comma, lowest(n),
				lowest(n) == 1 ? "" : "s");
	}
	if (s->last_nearest)
		put(o, "%sthe last working day", comma);
}

static void put_weekday(struct out *o, const struct schedule *s)
{
	const char *comma = "";

	if (s->weekdays) {
		put_list(o, s->weekdays, weekdays);
		comma = ", ";
	}
	for (int k = 1; k <= 5; k++) {
		for (uint32_t n = s->nth_weekdays[k]; n; n &= n - 1, comma = ", ")
			put(o, "%sthe %s %s", comma, nth[k], weekdays[lowest(n)]);
	}
	for (uint32_t n = s->last_weekdays; n; n &= n - 1, comma = ", ")
		put(o, "%sthe last %s", comma, weekdays[lowest(n)]);
}

char *schedule_print(const struct schedule *s, char *buf, size_t bytes)
{
	struct out o = {buf, bytes, 0};
	bool any_date = s->days == ALL_DAYS, any_weekday = s->weekdays == ALL_WEEK, times;
	char every[32];

	buf[0] = '\0';
	if (s->kind == SCHEDULE_PROMOTION) {
		put(&o, "at each promotion");
		return buf;
	}
	if (s->kind == SCHEDULE_EVERY) {
		put(&o, "every %s", units_print_duration(s->every_us * 1000, every, sizeof(every)));
		return buf;
	}
	times = put_time(&o, s);
	if ((any_date && any_weekday) || (!s->both_days && (any_date || any_weekday))) {
		put(&o, times && s->months == ALL_MONTH ? " every day" : "");
	} else {
		put(&o, " on ");
		if (!any_date)
			put_date(&o, s);
		if (!any_date && !any_weekday)
			put(&o, s->both_days ? " if it is " : " or ");
		if (!any_weekday)
			put_weekday(&o, s);
	}
	if (s->months != ALL_MONTH) {
		put(&o, " in ");
		put_list(&o, s->months, months);
	}
	return buf;
}

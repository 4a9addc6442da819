/* Dates, and moments as text. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "conf/zone_internal.h"

enum { DAY_SECONDS = 86400, OFFSET_LIMIT = 26 * 3600 };

#define SECOND_US INT64_C(1000000)

/* Howard Hinnant's civil calendar: years of 400 begin in March. */
int64_t zone_days(int64_t year, int month, int day)
{
	int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400;
	int64_t of_era = y - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void zone_civil(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day)
{
	int64_t shifted = days + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	int64_t of_era = shifted - era * 146097;
	int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
	int month = (int)((5 * of_year + 2) / 153);

	*ret_day = (int)(of_year - (153 * month + 2) / 5 + 1);
	*ret_month = month < 10 ? month + 3 : month - 9;
	*ret_year = year + era * 400 + (*ret_month <= 2);
}

/* --- printing -------------------------------------------------------------------------------- */

char *zone_print(const struct zone *z, int64_t us, char *buf, size_t bytes)
{
	int64_t seconds = us / SECOND_US - (us % SECOND_US < 0), year, local, days;
	int fraction = (int)(us - seconds * SECOND_US), month, day, of_day, width;
	int32_t offset = z ? zone_span_at(z, seconds).offset : 0;
	int minutes = (offset < 0 ? -offset : offset) / 60;
	char part[16] = "", zone[16] = "Z";

	local = seconds + offset;
	days = local / DAY_SECONDS - (local % DAY_SECONDS < 0);
	of_day = (int)(local - days * DAY_SECONDS);
	zone_civil(days, &year, &month, &day);
	if (fraction) {
		width = fraction % 1000 ? 6 : 3;
		snprintf(part, sizeof(part), ".%0*d", width,
			width == 3 ? fraction / 1000 : fraction);
	}
	if (z)
		snprintf(zone, sizeof(zone), "%c%02d:%02d", offset < 0 ? '-' : '+', minutes / 60,
			minutes % 60);
	snprintf(buf, bytes, "%04lld-%02d-%02dT%02d:%02d:%02d%s%s", (long long)year, month, day,
		of_day / 3600, of_day / 60 % 60, of_day % 60, part, zone);
	return buf;
}

/* --- reading --------------------------------------------------------------------------------- */

/* COUNT digits. */
static int digits(const char **p, int count, int *ret_value)
{
	int value = 0;

	for (int i = 0; i < count; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return -1;
		value = 10 * value + (**p - '0');
	}
	*ret_value = value;
	return 0;
}

static int scan_date(const char **p, int64_t *ret_days)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year, month, day, most;

	if (digits(p, 4, &year) < 0 || *(*p)++ != '-' || digits(p, 2, &month) < 0 ||
		*(*p)++ != '-' || digits(p, 2, &day) < 0)
		return -1;
	if (month < 1 || month > 12)
		return -1;
	most = lengths[month - 1] +
	       (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
	if (day < 1 || day > most)
		return -1;
	*ret_days = zone_days(year, month, day);
	return 0;
}

static int scan_time(const char **p, int64_t *ret_us)
{
	int hour, minute, second = 0, fraction = 0;

	if (digits(p, 2, &hour) < 0 || *(*p)++ != ':' || digits(p, 2, &minute) < 0)
		return -1;
	if (**p == ':') {
		(*p)++;
		if (digits(p, 2, &second) < 0)
			return -1;
		if (**p == '.') {
			int unit = 100000;
			for ((*p)++; isdigit((unsigned char)**p); (*p)++, unit /= 10)
				fraction += unit * (**p - '0');
		}
	}
	if (hour > 23 || minute > 59 || second > 59)
		return -1;
	*ret_us = (hour * 3600 + minute * 60 + second) * SECOND_US + fraction;
	return 0;
}

/* "Z", "+02:00"; *RET_SET = false: there is none. */
static int scan_offset(const char **p, bool *ret_set, int32_t *ret_offset)
{
	int sign = **p == '-' ? -1 : 1, hours, minutes;

	*ret_set = **p != '\0';
	if (!*ret_set)
		return 0;
	if (**p == 'Z' || **p == 'z') {
		(*p)++;
		*ret_offset = 0;
		return 0;
	}
	if ((**p != '+' && **p != '-') || (++*p, digits(p, 2, &hours) < 0) || *(*p)++ != ':' ||
		digits(p, 2, &minutes) < 0 || hours > 23 || minutes > 59)
		return -1;
	*ret_offset = sign * (hours * 3600 + minutes * 60);
	return 0;
}

/* The first moment at which the clocks of Z show LOCAL, or that follows when they never do. */
static int64_t of_local(const struct zone *z, int64_t local)
{
	struct zone_span span = zone_span_at(z, local - OFFSET_LIMIT);

	while (span.end != INT64_MAX && local - span.offset >= span.end)
		span = zone_span_at(z, span.end);
	return span.start != INT64_MIN && local - span.offset < span.start ? span.start
									   : local - span.offset;
}

int zone_scan(const struct zone *z, const char *text, int64_t *ret_us, struct err *e)
{
	const char *p = text;
	int64_t days, of_day = 0, local, seconds;
	int32_t offset = 0;
	bool set = false;
	int rc = scan_date(&p, &days);

	if (rc == 0 && (*p == 'T' || *p == 't' || *p == ' ')) {
		p++;
		rc = scan_time(&p, &of_day);
		if (rc == 0)
			rc = scan_offset(&p, &set, &offset);
	}
	if (rc < 0 || *p)
		return err_set(e, ERR_CONFIG,
			"'%.60s' is no time as 2027-03-28T02:30:00+01:00 (RFC 3339; without an "
			"offset it is local time)",
			text);
	local = days * DAY_SECONDS + of_day / SECOND_US;
	seconds = set || !z ? local - offset : of_local(z, local);
	*ret_us = seconds * SECOND_US + of_day % SECOND_US;
	return 0;
}

/* Cron expressions: what is read, what is refused and how, when they fire. */
#include "conf/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { FUZZ_COUNT = 150000, NEXT_BOUND_NS = 2000000 };

static struct zone *zone(const char *name)
{
	struct zone *z = NULL;
	struct err e;

	if (zone_load(name, &z, &e) < 0)
		fail_msg("%s", e.text);
	return z;
}

static struct schedule parsed(const char *text)
{
	struct schedule_findings found;
	struct schedule s;

	if (schedule_parse(text, &s, &found) < 0)
		fail_msg("'%s': column %d: %s", text, found.items[0].column, found.items[0].text);
	return s;
}

static int64_t moment(const struct zone *z, const char *text)
{
	int64_t us = 0;
	struct err e;

	if (zone_scan(z, text, &us, &e) < 0)
		fail_msg("%s", e.text);
	return us;
}

/* --- reading --------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		int column;
		const char *words;
	} cases[] = {
		{"", 0, "is empty"},
		{" \t ", 0, "is empty"},
		{"60 0 * * *", 1, "minute '60': 0 to 59"},
		{"0 24 * * *", 3, "hour '24': 0 to 23"},
		{"0 0 32 * *", 5, "day of month '32': 1 to 31"},
		{"0 0 0 * *", 5, "day of month '0': 1 to 31"},
		{"0 0 * 13 *", 7, "month '13': 1 to 12"},
		{"0 0 * * 8", 9, "day of week '8': 0 to 7"},
		{"60 0 0 * * *", 1, "second '60': 0 to 59"},
		{"0 0 * * MONDAI", 9, "SUN to SAT"},
		{"0 0 * JANU *", 7, "JAN to DEC"},
		{"5,,7 0 * * *", 3, "is missing"},
		{"5, 0 * * *", 3, "is missing"},
		{",5 0 * * *", 1, "is missing"},
		{"1-5-7 0 * * *", 4, "0 to 59"},
		{"1- 0 * * *", 3, "0 to 59"},
		{"-5 0 * * *", 1, "0 to 59"},
		{"+5 0 * * *", 1, "0 to 59"},
		{"1.5 0 * * *", 2, "0 to 59"},
		{"*/0 * * * *", 2, "a step of 0"},
		{"*/ * * * *", 2, "a number must follow"},
		{"*/x * * * *", 2, "a number must follow"},
		{"*/5/5 * * * *", 4, "0 to 59"},
		{"** * * * *", 2, "0 to 59"},
		{"*5 * * * *", 2, "0 to 59"},
		{"0 22-2 * * *", 3, "runs backwards: write 22-23,0-2"},
		{"0 17-0 * * *", 3, "runs backwards: write 17-23,0"},
		{"0 23-2 * * *", 3, "runs backwards: write 23,0-2"},
		{"0 0 * NOV-FEB *", 7, "runs backwards: write NOV-DEC,JAN-FEB"},
		{"0 0 * * FRI-MON", 9, "runs backwards: write FRI-SUN,MON"},
		{"0 0 * * 6-2", 9, "runs backwards: write SAT-SUN,MON-TUE"},
		{"0 0 * * 7-2", 9, "runs backwards: write SUN-TUE"},
		{"? 0 * * *", 1, "'?' stands for '*' in the fields of days only"},
		{"0 10 * ? *", 8, "'?' stands for '*'"},
		{"0 0 * * L", 9, "L needs a day before it"},
		{"0 0 * * 1,L", 11, "L needs a day before it"},
		{"L 0 * * *", 1, "0 to 59"},
		{"0 0 L-31 * *", 5, "after L comes"},
		{"0 0 L-3W * *", 5, "after L comes"},
		{"0 0 WL * *", 5, "1 to 31"},
		{"0 0 15WW * *", 7, "1 to 31"},
		{"0 0 32W * *", 5, "1 to 31"},
		{"0 0 1-5W * *", 8, "1 to 31"},
		{"0 0 * * 5#6", 9, "after # comes 1 to 5"},
		{"0 0 * * 5#", 9, "after # comes 1 to 5"},
		{"0 0 * * 5#0", 9, "after # comes 1 to 5"},
		{"0 0 * * 8#1", 9, "0 to 7"},
		{"0 0 * * FRI-L", 13, "0 to 7"},
		{"H/5 * * * *", 1, "Jenkins"},
		{"0 ~ * * *", 3, "random"},
		{"1~5 0 * * *", 1, "random"},
		{"99999999999999999999 0 * * *", 1, "0 to 59"},
		{"*/99999999999999999999 0 * * *", 0, NULL}, /* a large step: only 0 */
		{"* * *", 0, "3 fields: five are needed"},
		{"daily", 0, "1 field: five are needed"},
		{"0 0 12 * * ? *", 14, "leave off '*'"},
		{"0 0 0 1 1 ? 2017-2020/2", 13, "leave off '2017-2020/2'"},
		{"0 3 * * * /usr/bin/x --y", 11, "what shall run stands in 'command'"},
		{"0 3 * * * root a b", 11, "what shall run stands in 'command'"},
		{"CRON_TZ=Asia/Tokyo 0 5 * * *", 1, "timezone = Asia/Tokyo"},
		{"TZ=Europe/Madrid 0 0 1 * 7 *", 1, "timezone = Europe/Madrid"},
		{"@reboot", 1, "@promotion fires"},
		{"@dayly", 1, "did you mean '@daily'?"},
		{"@evry 5s", 1, "did you mean '@every'?"},
		{"@PROMOTON", 1, "did you mean '@promotion'?"},
		{"@sometimes 5", 1, "none of @hourly"},
		{"@", 1, "none of @hourly"},
		{" @daily 5", 9, "nothing may follow"},
		{"@every", 7, "how often"},
		{"@every  %ds", 9, "'%ds' is not a duration"},
		{"@every -5s", 8, "is not a duration"},
		{"@every 0s", 8, "not between 10ms"},
		{"@every 9ms", 8, "not between 10ms"},
		{"@every 11000d", 8, "not between 10ms"},
		{"@every 99999999999999h", 8, "is not a duration"},
		{"@every 5 minutes", 8, "is not a duration"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct schedule_findings found;
		struct schedule s = {.every_us = 4711};
		int rc = schedule_parse(cases[i].text, &s, &found);
		if (!cases[i].words) {
			assert_int_equal(rc, 0);
			continue;
		}
		print_message(
			"%-30s %d %s\n", cases[i].text, found.items[0].column, found.items[0].text);
		assert_int_equal(rc, -1);
		assert_int_equal(s.every_us, 4711); /* untouched */
		assert_int_equal(found.errors, 1);
		assert_false(found.items[0].warning);
		assert_int_equal(found.items[0].column, cases[i].column);
		assert_non_null(strstr(found.items[0].text, cases[i].words));
	}
}

static void test_all_errors_at_once(void **state)
{
	struct schedule_findings found;
	struct schedule s;

	(void)state;
	assert_int_equal(schedule_parse("60 24 32 13 8", &s, &found), -1);
	assert_int_equal(found.errors, 5);
	assert_int_equal(found.count, 5);
	assert_int_equal(found.items[4].column, 13);
	/* more than there is room for are counted */
	assert_int_equal(schedule_parse("60,61,62,63,64,65,66,67,68,69 0 * * *", &s, &found), -1);
	assert_int_equal(found.errors, 10);
	assert_int_equal(found.count, SCHEDULE_FINDINGS);
	assert_int_equal(found.items[7].column, 22);
}

static void test_warnings(void **state)
{
	static const struct {
		const char *text;
		int column;
		const char *words; /* NULL: none */
	} cases[] = {
		{"0 9 1-7 * TUE", 5, "either is enough, as in cron"},
		{"0 9 1-31 * 1", 5, "either is enough"},
		{"0 9 */2 * 1", 5, "begin anew in each month: after 31 comes 1"},
		{"0 9 ? * MON", 0, NULL},
		{"*/7 * * * *", 1, "after 56 comes 0 (write 0-59/7 if so meant)"},
		{"0-59/7 * * * *", 0, NULL},
		{"*/15 * * * *", 0, NULL},
		{"0 */5 * * *", 3, "after 20 comes 0"},
		{"*/60 * * * *", 1, "a step of 60 leaves only 0"},
		{"0 0 */100 * *", 5, "a step of 100 leaves only 1"},
		{"0 0 * * */7", 9, "a step of 7 leaves only SUN"},
		{"0 0 31 2 *", 0, "no such date: it never fires"},
		{"0 0 30,31 2 ?", 0, "it never fires"},
		{"0 0 12 ? * 6", 12, "in Quartz 1 is Sunday"},
		{"0 0 12 ? * SAT", 0, NULL},
		{"0 3 * * *", 0, NULL},
		{"@daily", 0, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct schedule_findings found;
		struct schedule s;
		assert_int_equal(schedule_parse(cases[i].text, &s, &found), 0);
		print_message("%-20s %s\n", cases[i].text, found.count ? found.items[0].text : "");
		assert_int_equal(found.count, cases[i].words ? 1 : 0);
		if (!cases[i].words)
			continue;
		assert_true(found.items[0].warning);
		assert_int_equal(found.items[0].column, cases[i].column);
		assert_non_null(strstr(found.items[0].text, cases[i].words));
	}
}

static void same(const char *a, const char *b)
{
	struct schedule x = parsed(a), y = parsed(b);
	int64_t t = INT64_C(1700000000) * SCHEDULE_US;

	for (int i = 0; i < 200; i++) {
		int64_t next = schedule_next(&x, NULL, t);
		if (next != schedule_next(&y, NULL, t))
			fail_msg("'%s' and '%s' differ after %lld", a, b, (long long)t);
		if (next == SCHEDULE_NEVER)
			return;
		t = next;
	}
}

static void test_equals(void **state)
{
	(void)state;
	same("@hourly", "0 * * * *");
	same("@daily", "0 0 * * *");
	same("@midnight", "0 0 0 * * *");
	same("@weekly", "0 0 * * 7");
	same("@monthly", "0 0 1 * *");
	same("@yearly", "0 0 1 1 *");
	same("@ANNUALLY", "0 0 1 jan ?");
	same("  0\t3 *  * *\n", "0 3 * * *");
	same("0 0 * * friday", "0 0 * * 5");
	same("0 0 * september 5-7", "0 0 * 9 FRI-SUN");
	same("0 0 * * 0,7", "0 0 * * SUN");
	same("5/15 * * * *", "5,20,35,50 * * * *");
	same("10-40/15 * * * *", "10,25,40 * * * *");
	same("00 07 * * *", "0 7 * * *");
	same("0 0 * * 1/2", "0 0 * * 1,3,5");
	same("0 0 * * fril", "0 0 * * 5L");
	same("0 0 l * *", "0 0 L * *");
	same("@every 90s", "@every 1m30s");
	same("@every 1h30m10s", "@every 5410");
	same("@every 1.5h", "@every 90m");
	same("*/1 * * * * *", "* * * * * *");
}

static void test_words(void **state)
{
	static const char *const cases[][2] = {
		{"30 2 * * *", "at 02:30 every day"},
		{"*/5 * * * *", "every 5 minutes"},
		{"* * * * *", "every minute"},
		{"0 */2 * * *", "every 2 hours"},
		{"0 * * * *", "every hour"},
		{"0 9-17 * * MON-FRI", "at minute 0 of hours 9-17 on Monday-Friday"},
		{"*/10 1-3,7 * * *", "every 10 minutes of hours 1-3, 7"},
		{"0 0 9 L * ?", "at 09:00 on the last day"},
		{"15,45 1 1 jan *", "at 01:15, 01:45 on day 1 in January"},
		{"0 9 * * TUE#1", "at 09:00 on the first Tuesday"},
		{"0 9 * 3-5 5L", "at 09:00 on the last Friday in March-May"},
		{"0 0 15W,LW,L-3 * *",
			"at 00:00 on the working day nearest to day 15, 3 days before "
			"the last, the last working day"},
		{"0 9 1 * 1", "at 09:00 on day 1 or Monday"},
		{"0 9 1-7 * */2",
			"at 09:00 on days 1-7 if it is Sunday, Tuesday, Thursday, Saturday"},
		{"5 30 2 * * *", "at 02:30:05 every day"},
		{"*/10 5 3 * * *", "every 10 seconds of minute 5 of hour 3"},
		{"* * * * * *", "every second"},
		{"7 * * * * *", "at second 7 of every minute"},
		{"@every 90s", "every 90s"},
		{"@promotion", "at each promotion"},
	};
	char words[256], little[8];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct schedule s = parsed(cases[i][0]);
		assert_string_equal(schedule_print(&s, words, sizeof(words)), cases[i][1]);
		assert_int_equal(
			strncmp(schedule_print(&s, little, sizeof(little)), cases[i][1], 7), 0);
	}
}

/* --- firing ---------------------------------------------------------------------------------- */

/* EXPRESSION fires after FROM at TIMES, separated by spaces ("" at the end of what is looked at).
 */
static void fires(const char *expression, const char *name, const char *from, const char *times)
{
	struct zone *z = zone(name);
	struct schedule s = parsed(expression);
	int64_t t = moment(z, from);
	char text[ZONE_TIME_BYTES], copy[512], *rest = copy, *word;

	snprintf(copy, sizeof(copy), "%s", times);
	while ((word = strsep(&rest, " ")) != NULL) {
		t = schedule_next(&s, z, t);
		if (strcmp(word, "never") == 0) {
			assert_true(t == SCHEDULE_NEVER);
			break;
		}
		assert_true(t != SCHEDULE_NEVER);
		assert_string_equal(zone_print(z, t, text, sizeof(text)), word);
	}
	zone_free(z);
}

static void test_spring(void **state)
{
	(void)state;
	/* Berlin, 2027-03-28: 02:00 +01:00 is 03:00 +02:00 */
	fires("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00",
		"2027-03-28T03:00:00+02:00 2027-03-29T02:30:00+02:00");
	fires("15,45 2 * * *", "Europe/Berlin", "2027-03-27T12:00", /* once, not twice */
		"2027-03-28T03:00:00+02:00 2027-03-29T02:15:00+02:00");
	fires("0 2,3 * * *", "Europe/Berlin", "2027-03-27T12:00",
		"2027-03-28T03:00:00+02:00 2027-03-29T02:00:00+02:00");
	fires("0 2 28 3 *", "Europe/Berlin", "2027-03-01",
		"2027-03-28T03:00:00+02:00 "
		"2028-03-28T02:00:00+02:00");
	fires("*/30 2 * * *", "Europe/Berlin", "2027-03-27T12:00",
		"2027-03-29T02:00:00+02:00 2027-03-29T02:30:00+02:00");
	fires("30 * * * *", "Europe/Berlin", "2027-03-28T01:00",
		"2027-03-28T01:30:00+01:00 2027-03-28T03:30:00+02:00");
	fires("* * 2 28 3 *", "Europe/Berlin", "2027-01-01", "2028-03-28T02:00:00+02:00");
	/* just past the gap it is over */
	fires("30 2 * * *", "Europe/Berlin", "2027-03-28T03:00:00+02:00",
		"2027-03-29T02:30:00+02:00");
	/* Santiago goes forward at midnight: the day begins at 01:00 */
	fires("@daily", "America/Santiago", "2025-09-06T12:00",
		"2025-09-07T01:00:00-03:00 2025-09-08T00:00:00-03:00");
	/* half an hour */
	fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00",
		"2026-10-04T02:30:00+11:00 2026-10-05T02:15:00+11:00");
}

static void test_autumn(void **state)
{
	(void)state;
	/* Berlin, 2027-10-31: 03:00 +02:00 is 02:00 +01:00 again */
	fires("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00",
		"2027-10-31T02:30:00+02:00 2027-11-01T02:30:00+01:00");
	fires("*/30 2 * * *", "Europe/Berlin", "2027-10-30T12:00",
		"2027-10-31T02:00:00+02:00 2027-10-31T02:30:00+02:00 2027-10-31T02:00:00+01:00 "
		"2027-10-31T02:30:00+01:00 2027-11-01T02:00:00+01:00");
	fires("30 * * * *", "Europe/Berlin", "2027-10-31T01:00",
		"2027-10-31T01:30:00+02:00 2027-10-31T02:30:00+02:00 2027-10-31T02:30:00+01:00 "
		"2027-10-31T03:30:00+01:00");
	/* asked in the repeated hour: it has been */
	fires("30 2 * * *", "Europe/Berlin", "2027-10-31T02:10:00+01:00",
		"2027-11-01T02:30:00+01:00");
	/* Santiago goes back at midnight: 23:00 comes twice */
	fires("30 23 * * *", "America/Santiago", "2026-04-04T12:00",
		"2026-04-04T23:30:00-03:00 2026-04-05T23:30:00-04:00");
	fires("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00",
		"2026-04-05T01:45:00+11:00 2026-04-06T01:45:00+10:30");
}

static void test_no_such_day(void **state)
{
	(void)state;
	/* Apia had no 30 December 2011; a change of 24 hours is nothing to make up for */
	fires("0 12 * * *", "Pacific/Apia", "2011-12-28T15:00",
		"2011-12-29T12:00:00-10:00 2011-12-31T12:00:00+14:00");
	fires("0 12 30 12 *", "Pacific/Apia", "2011-12-01", "2012-12-30T12:00:00+14:00");
}

static void test_dates(void **state)
{
	(void)state;
	fires("0 0 29 2 *", "UTC", "2027-01-01",
		"2028-02-29T00:00:00+00:00 2032-02-29T00:00:00+00:00");
	fires("0 0 29 2 *", "UTC", "2096-03-01", "2104-02-29T00:00:00+00:00");
	fires("0 0 */28 2 1#5", "UTC", "2027-01-01", "2044-02-29T00:00:00+00:00");
	fires("0 0 31 2 *", "UTC", "2027-01-01", "never");
	fires("0 0 1 1 *", "UTC", "9999-06-01", "never");
	fires("0 9 L * *", "UTC", "2027-01-31T10:00",
		"2027-02-28T09:00:00+00:00 2027-03-31T09:00:00+00:00");
	fires("0 9 L-2 2 *", "UTC", "2027-01-01",
		"2027-02-26T09:00:00+00:00 2028-02-27T09:00:00+00:00");
	fires("0 9 LW * *", "UTC", "2027-01-01",
		"2027-01-29T09:00:00+00:00 2027-02-26T09:00:00+00:00");
	fires("0 9 1W 5,8 *", "UTC", "2027-01-01", /* Saturday, Sunday */
		"2027-05-03T09:00:00+00:00 2027-08-02T09:00:00+00:00");
	fires("0 9 31W * *", "UTC", "2027-01-01", /* Sunday; months of 30 days have none */
		"2027-01-29T09:00:00+00:00 2027-03-31T09:00:00+00:00 2027-05-31T09:00:00+00:00");
	fires("0 9 * * 5L", "UTC", "2027-01-01",
		"2027-01-29T09:00:00+00:00 2027-02-26T09:00:00+00:00");
	fires("0 9 * * MON#5", "UTC", "2027-01-01",
		"2027-03-29T09:00:00+00:00 2027-05-31T09:00:00+00:00");
	fires("0 9 13 * 5", "UTC", "2027-08-01", /* either */
		"2027-08-06T09:00:00+00:00 2027-08-13T09:00:00+00:00 2027-08-20T09:00:00+00:00");
	fires("0 9 */13 * 5", "UTC", "2027-08-01", /* 1, 14, 27 that are Fridays */
		"2027-08-27T09:00:00+00:00 2027-10-01T09:00:00+00:00");
	fires("59 59 23 31 12 *", "UTC", "2027-12-31T23:59:58",
		"2027-12-31T23:59:59+00:00 2028-12-31T23:59:59+00:00");
	fires("0 0 1 1 *", "UTC", "1903-06-01", "1904-01-01T00:00:00+00:00");
}

static void test_strictly_after(void **state)
{
	struct schedule daily = parsed("0 3 * * *"), second = parsed("* * * * * *");
	int64_t three = moment(NULL, "2027-01-01T03:00:00Z");

	(void)state;
	assert_true(schedule_next(&daily, NULL, three - 1) == three);
	assert_true(schedule_next(&daily, NULL, three) == three + 86400 * SCHEDULE_US);
	assert_true(schedule_next(&daily, NULL, three + 1) == three + 86400 * SCHEDULE_US);
	assert_true(schedule_next(&second, NULL, three + 1) == three + SCHEDULE_US);
	assert_true(schedule_next(&second, NULL, -1) == 0);
	assert_true(schedule_next(&second, NULL, -SCHEDULE_US) == 0);
	assert_true(schedule_next(&second, NULL, -SCHEDULE_US - 1) == -SCHEDULE_US);
	assert_true(schedule_next(&daily, NULL, INT64_MAX - 1) == SCHEDULE_NEVER);
	assert_true(schedule_next(&daily, NULL, INT64_MIN) > INT64_MIN);
}

static void test_every(void **state)
{
	struct schedule s = parsed("@every 90s"), ms = parsed("@every 250ms");
	struct schedule promotion = parsed("@promotion"), weekly = parsed("@every 7d");

	(void)state;
	assert_int_equal(s.kind, SCHEDULE_EVERY);
	assert_true(schedule_next(&s, NULL, 0) == 90 * SCHEDULE_US);
	assert_true(schedule_next(&s, NULL, 90 * SCHEDULE_US - 1) == 90 * SCHEDULE_US);
	assert_true(schedule_next(&s, NULL, 90 * SCHEDULE_US) == 180 * SCHEDULE_US);
	assert_true(schedule_next(&s, NULL, -1) == 0);
	assert_true(schedule_next(&s, NULL, -91 * SCHEDULE_US) == -90 * SCHEDULE_US);
	assert_true(schedule_next(&ms, NULL, 1) == 250000);
	assert_true(schedule_next(&weekly, NULL, 1) == 7 * 86400 * SCHEDULE_US);
	assert_true(schedule_next(&s, NULL, INT64_MAX - 1) == SCHEDULE_NEVER);
	assert_int_equal(promotion.kind, SCHEDULE_PROMOTION);
	assert_true(schedule_next(&promotion, NULL, 0) == SCHEDULE_NEVER);
}

/* However rare: no walk over minutes. The best of some rounds, since machines are busy. */
static void test_quick(void **state)
{
	static const char *const texts[] = {"0 0 29 2 *", "0 0 29 2 1", "0 0 */28 2 1#5",
		"0 0 31 2 *", "59 59 23 31 12 *", "* * * * * *", "0 0 29W 2 *"};
	struct zone *z = zone("Europe/Berlin");

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct schedule s = parsed(texts[i]);
		int64_t best = INT64_MAX, t = INT64_C(4100000000) * SCHEDULE_US; /* before 2100 */
		for (int k = 0; k < 20; k++) {
			struct timespec a, b;
			int64_t ns;
			clock_gettime(CLOCK_MONOTONIC, &a);
			schedule_next(&s, z, t);
			clock_gettime(CLOCK_MONOTONIC, &b);
			ns = (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec;
			best = ns < best ? ns : best;
		}
		print_message("%-20s %lld ns\n", texts[i], (long long)best);
		assert_true(best < NEXT_BOUND_NS);
	}
	zone_free(z);
}

/* --- any text -------------------------------------------------------------------------------- */

static uint64_t random_state;

static unsigned roll(unsigned limit)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(random_state >> 33) % limit;
}

static void mutate(char *text, size_t bytes)
{
	static const char letters[] = "0123456789*/,-?LW#@ \tabcdeFRIMONh~%=\x01\xff";
	size_t length = strlen(text);

	for (unsigned n = roll(4); n > 0 && length > 0; n--) {
		size_t at = roll((unsigned)length);
		switch (roll(4)) {
		case 0:
			text[at] = letters[roll(sizeof(letters) - 1)];
			break;
		case 1:
			memmove(text + at, text + at + 1, length - at);
			length--;
			break;
		case 2:
			if (length + 2 < bytes) {
				memmove(text + at + 1, text + at, length - at + 1);
				text[at] = letters[roll(sizeof(letters) - 1)];
				length++;
			}
			break;
		default:
			text[at] = '\0';
			length = at;
		}
	}
}

/* A firing is after the moment that was asked about, and the first one. */
static void walk(const struct schedule *s, const struct zone *z, const char *text)
{
	int64_t at = ((int64_t)roll(1u << 31) - (1 << 28)) * SCHEDULE_US;

	for (int i = 0; i < 4; i++) {
		int64_t next = schedule_next(s, z, at);
		if (next == SCHEDULE_NEVER)
			return;
		if (next <= at || schedule_next(s, z, next - 1) != next)
			fail_msg("'%s' in %s after %lld: %lld", text, zone_name(z), (long long)at,
				(long long)next);
		at = next;
	}
}

static void test_any_text(void **state)
{
	static const char *const seeds[] = {"*/5 * * * *", "0 0 1,15 * 3", "0 0 29 2 *",
		"0 0 0 LW * ?", "30 3 15W,L-3 */2 *", "15 10 * * 5L,MON#2,tue-fri",
		"10-20/3,40 1-23/2 * jan-mar SUN", "@every 1h30m", "@daily", "0 0 31 2 *",
		"5/10 0/2 * * FRI-SUN", "CRON_TZ=Asia/Tokyo 0 5 * * *"};
	static const char *const names[] = {"UTC", "Europe/Berlin", "Australia/Lord_Howe",
		"Pacific/Apia", "America/Santiago", "Africa/Casablanca"};
	struct zone *zones[6];
	char text[256], words[64];
	int accepted = 0;

	(void)state;
	for (int i = 0; i < 6; i++)
		zones[i] = zone(names[i]);
	random_state = (uint64_t)time(NULL);
	print_message("seed %llu\n", (unsigned long long)random_state);
	for (int i = 0; i < FUZZ_COUNT; i++) {
		struct schedule_findings found;
		struct schedule s;
		snprintf(text, sizeof(text), "%s", seeds[roll(sizeof(seeds) / sizeof(seeds[0]))]);
		mutate(text, sizeof(text));
		if (schedule_parse(text, &s, &found) < 0) {
			assert_true(found.errors > 0 && found.count > 0);
			continue;
		}
		accepted++;
		schedule_print(&s, words, sizeof(words));
		walk(&s, zones[roll(6)], text);
	}
	for (int i = 0; i < 6; i++)
		zone_free(zones[i]);
	assert_in_range(accepted, FUZZ_COUNT / 10, FUZZ_COUNT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_all_errors_at_once),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_equals),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_spring),
		cmocka_unit_test(test_autumn),
		cmocka_unit_test(test_no_such_day),
		cmocka_unit_test(test_dates),
		cmocka_unit_test(test_strictly_after),
		cmocka_unit_test(test_every),
		cmocka_unit_test(test_quick),
		cmocka_unit_test(test_any_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Time zones: against libc, by rule, and from files that are none. */
#include "conf/zone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILE_BYTES = 8192, STEP = 86400 * 3 + 3607 };

#define FROM INT64_C(-2500000000) /* 1890 */
#define TO   INT64_C(5000000000)  /* 2128 */

static struct zone *zone(const char *name)
{
	struct zone *z = NULL;
	struct err e;

	if (zone_load(name, &z, &e) < 0)
		fail_msg("%s", e.text);
	return z;
}

static void refused(const char *name, const char *words)
{
	struct zone *z = NULL;
	struct err e;

	assert_int_equal(zone_load(name, &z, &e), ERR_CONFIG);
	print_message("%s\n", e.text);
	assert_null(z);
	assert_non_null(strstr(e.text, words));
}

/* --- against libc ---------------------------------------------------------------------------- */

static void compare_at(const struct zone *z, const char *name, int64_t t)
{
	time_t at = (time_t)t;
	struct tm tm;
	struct zone_span span = zone_span_at(z, t);

	assert_non_null(localtime_r(&at, &tm));
	if (span.offset != tm.tm_gmtoff || t < span.start || t >= span.end)
		fail_msg("%s at %lld: offset %d in [%lld, %lld), libc has %ld", name, (long long)t,
			(int)span.offset, (long long)span.start, (long long)span.end, tm.tm_gmtoff);
}

static void compare(const char *tz)
{
	struct zone *z = NULL;
	struct err e;

	setenv("TZ", tz, 1);
	tzset();
	if (zone_load_tz(tz, &z, &e) < 0)
		fail_msg("%s", e.text);
	/* glibc applies a rule without a file from 1970 on only */
	for (int64_t t = strchr(tz, ',') ? 0 : FROM; t < TO; t += STEP) {
		struct zone_span span = zone_span_at(z, t);
		compare_at(z, tz, t);
		if (span.end < TO) { /* and around each change */
			compare_at(z, tz, span.end - 1);
			compare_at(z, tz, span.end);
		}
	}
	zone_free(z);
	unsetenv("TZ");
	tzset();
}

static void test_libc(void **state)
{
	static const char *const names[] = {"Europe/Berlin", "Europe/London", "Europe/Dublin",
		"America/New_York", "America/Santiago", "America/Sao_Paulo", "Australia/Lord_Howe",
		"Asia/Kolkata", "Asia/Gaza", "Pacific/Apia", "Pacific/Kiritimati",
		"Africa/Casablanca", "Africa/Cairo", "Asia/Kathmandu", "America/St_Johns",
		"Antarctica/Troll", "Asia/Tehran", "America/Godthab", "Etc/GMT+5", "EST5EDT", "UTC",
		"CET-1CEST,M3.5.0,M10.5.0/3", "<+0330>-3:30", "NZST-12NZDT,M9.5.0,M4.1.0/3",
		"XXX3YYY,J60/2,J300/2", "XXX3YYY,59/2,299/2", "EST5EDT,M3.2.0/-1,M11.1.0/25"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		compare(names[i]);
}

/* --- names ----------------------------------------------------------------------------------- */

static void test_names(void **state)
{
	(void)state;
	refused("../../etc/passwd", "is no name of a time zone");
	refused("Europe/../../passwd", "is no name of a time zone");
	refused("/etc/localtime", "is no name of a time zone");
	refused("Europe//Berlin", "is no name of a time zone");
	refused("Europe/", "is no name of a time zone");
	refused("./UTC", "is no name of a time zone");
	refused("Europe/Berlin ", "is no name of a time zone");
	refused("\xff", "is no name of a time zone");
	refused("Europe", "is not a time zone file");
	refused("tzdata.zi", "is not a time zone file");
	refused("Europe/Atlantis", "give a name as Europe/Berlin");
	refused("berlin", "did you mean 'Europe/Berlin'?");
	refused("america/new_york", "did you mean 'America/New_York'?");
	refused("CEST", "there is no time zone 'CEST'");
	refused("CET-1CEST,M3.5.0,M10.5.0/3", "is no name of a time zone");
	refused("UTC+2", "there is no time zone 'UTC+2'");
}

static void test_system(void **state)
{
	struct zone *z = NULL;
	struct err e;

	(void)state;
	setenv("TZ", "Asia/Kolkata", 1);
	z = zone("");
	assert_string_equal(zone_name(z), "Asia/Kolkata");
	zone_free(z);
	setenv("TZ", ":Asia/Kolkata", 1);
	z = zone("system");
	assert_int_equal(zone_span_at(z, 0).offset, 19800);
	zone_free(z);
	setenv("TZ", "", 1);
	z = zone("");
	assert_string_equal(zone_name(z), "UTC");
	zone_free(z);
	setenv("TZ", "Nowhere/Land", 1);
	z = NULL;
	assert_int_equal(zone_load("", &z, &e), ERR_CONFIG);
	assert_null(z);
	assert_non_null(strstr(e.text, "TZ is 'Nowhere/Land': there is no time zone"));
	setenv("TZ", "../../etc/passwd", 1);
	assert_int_equal(zone_load("", &z, &e), ERR_CONFIG);
	unsetenv("TZ");
	z = zone("");
	zone_free(z);
}

static void test_no_database(void **state)
{
	(void)state;
	setenv("TZDIR", "/nonexistent", 1);
	zone_free(zone("UTC")); /* needs none */
	zone_free(zone("Etc/UTC"));
	refused("Europe/Berlin", "there is no time zone 'Europe/Berlin' in /nonexistent");
	unsetenv("TZDIR");
}

/* --- files ----------------------------------------------------------------------------------- */

static char folder[64];

static void write_file(const char *name, const unsigned char *bytes, size_t count)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, count, f), count);
	fclose(f);
}

static size_t read_berlin(unsigned char *bytes)
{
	FILE *f = fopen("/usr/share/zoneinfo/Europe/Berlin", "re");
	size_t count;

	assert_non_null(f);
	count = fread(bytes, 1, FILE_BYTES, f);
	fclose(f);
	assert_in_range(count, 100, FILE_BYTES - 1);
	return count;
}

static void test_damaged(void **state)
{
	unsigned char bytes[FILE_BYTES], copy[FILE_BYTES];
	size_t count = read_berlin(bytes);
	struct zone *z;
	struct err e;
	unsigned seed = (unsigned)time(NULL);

	(void)state;
	print_message("seed %u\n", seed);
	setenv("TZDIR", folder, 1);
	for (size_t n = 0; n < count; n++) { /* cut off anywhere: never taken */
		z = NULL;
		write_file("cut", bytes, n);
		assert_int_equal(zone_load("cut", &z, &e), ERR_CONFIG);
		assert_null(z);
	}
	for (int i = 0; i < 1500; i++) { /* any byte changed: refused, or still a zone */
		memcpy(copy, bytes, count);
		for (int k = 0; k < 3; k++) {
			seed = seed * 1103515245 + 12345;
			copy[(seed >> 8) % count] = (unsigned char)(seed >> 24);
		}
		z = NULL;
		write_file("any", copy, count);
		if (zone_load("any", &z, &e) < 0)
			continue;
		for (int64_t t = -4000000000; t < 8000000000; t += 400000000) {
			struct zone_span span = zone_span_at(z, t);
			assert_true(span.start <= t && t < span.end);
			assert_in_range(span.offset + 26 * 3600, 0, 52 * 3600);
		}
		zone_free(z);
	}
	unsetenv("TZDIR");
}

static void test_kinds(void **state)
{
	static unsigned char big[300 << 10];
	unsigned char bytes[FILE_BYTES];
	size_t count = read_berlin(bytes);
	char path[128];
	struct zone *z;

	(void)state;
	setenv("TZDIR", folder, 1);
	bytes[4] = 0; /* version 1: only times of 4 bytes, no rule */
	write_file("v1", bytes, count);
	z = zone("v1");
	assert_true(zone_span_at(z, 4000000000).end == INT64_MAX);
	zone_free(z);
	bytes[4] = '2';
	bytes[31] = 1; /* a leap second */
	write_file("leap", bytes, count);
	refused("leap", "time zone file");
	memcpy(big, "TZif2", 5);
	write_file("big", big, sizeof(big));
	refused("big", "is not a time zone file");
	snprintf(path, sizeof(path), "%s/pipe", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	refused("pipe", "is not a time zone file"); /* and does not wait for a writer */
	unsetenv("TZDIR");
	if (access("/usr/share/zoneinfo/right/Europe/Berlin", R_OK) == 0)
		refused("right/Europe/Berlin", "counts leap seconds");
}

static void put(unsigned char *bytes, size_t *used, int64_t value, int width)
{
	for (int i = width - 1; i >= 0; i--)
		bytes[(*used)++] = (unsigned char)((uint64_t)value >> 8 * i);
}

static void put_header(unsigned char *bytes, size_t *used, int times, int types)
{
	memcpy(bytes + *used, "TZif2", 5);
	memset(bytes + *used + 5, 0, 27);
	*used += 32;
	put(bytes, used, times, 4);
	put(bytes, used, types, 4);
	put(bytes, used, 4, 4);
}

/* The rule counts from the last change of the table, also where that changed no more than a name.
 */
static void test_begin_of_rule(void **state)
{
	unsigned char bytes[512];
	size_t used = 0;
	struct zone *z;

	(void)state;
	put_header(bytes, &used, 0, 1);
	put(bytes, &used, 3600, 4);
	put(bytes, &used, 0, 2);
	put(bytes, &used, 0, 4);
	put_header(bytes, &used, 1, 2);
	put(bytes, &used, 1000000000, 8);
	put(bytes, &used, 1, 1);
	for (int i = 0; i < 2; i++) {
		put(bytes, &used, 3600, 4);
		put(bytes, &used, 0, 2);
	}
	put(bytes, &used, 0, 4);
	used += (size_t)snprintf(
		(char *)bytes + used, sizeof(bytes) - used, "\nCET-1CEST,M3.5.0,M10.5.0/3\n");
	write_file("later", bytes, used);
	setenv("TZDIR", folder, 1);
	z = zone("later");
	assert_int_equal(zone_span_at(z, 646000000).offset, 3600);  /* June 1990 */
	assert_int_equal(zone_span_at(z, 1120000000).offset, 7200); /* June 2005 */
	assert_true(zone_span_at(z, 646000000).end == 1000000000);
	assert_true(zone_span_at(z, 1000000000).start == 1000000000);
	zone_free(z);
	unsetenv("TZDIR");
}

/* RFC 8536: summer time all the year, each end at the moment of the next begin. */
static void test_always_summer(void **state)
{
	struct zone *z = NULL;
	struct err e;

	(void)state;
	assert_int_equal(zone_load_tz("EST5EDT,0/0,J365/25", &z, &e), 0);
	for (int64_t t = 0; t < TO; t += STEP) {
		struct zone_span span = zone_span_at(z, t);
		assert_int_equal(span.offset, -4 * 3600);
		assert_int_equal(zone_span_at(z, span.start).offset, -4 * 3600);
		assert_int_equal(zone_span_at(z, span.end).offset, -4 * 3600);
	}
	zone_free(z);
}

/* --- text ------------------------------------------------------------------------------------ */

static void test_text(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"2027-03-28T02:30:00+01:00", "2027-03-28T03:30:00+02:00"},
		{"2027-03-28T02:30:00", "2027-03-28T03:00:00+02:00"}, /* in the gap: its end */
		{"2027-10-31T02:30:00", "2027-10-31T02:30:00+02:00"}, /* twice: the first */
		{"2027-10-31T02:30:00+01:00", "2027-10-31T02:30:00+01:00"},
		{"2027-07-01", "2027-07-01T00:00:00+02:00"},
		{"2027-07-01 12:30", "2027-07-01T12:30:00+02:00"},
		{"2027-07-01T10:00:00.250Z", "2027-07-01T12:00:00.250+02:00"},
		{"2027-07-01T10:00:00.250001Z", "2027-07-01T12:00:00.250001+02:00"},
		{"2028-02-29T12:00:00Z", "2028-02-29T13:00:00+01:00"},
		{"1960-01-01T00:00:00.5Z", "1960-01-01T01:00:00.500+01:00"},
	};
	static const char *const wrong[] = {"", "now", "2027", "2027-13-01", "2027-02-29",
		"2027-01-01T24:00", "2027-01-01T00:60", "2027-01-01T00:00:61Z", "2027-01-01T",
		"2027-01-01T00:00:00+1", "2027-01-01T00:00:00Zx", "2027-01-01T00:00:00+24:00",
		"27-01-01", "2027-01-01x"};
	struct zone *z = zone("Europe/Berlin");
	char text[ZONE_TIME_BYTES];
	int64_t us, again;
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(zone_scan(z, cases[i].in, &us, &e), 0);
		assert_string_equal(zone_print(z, us, text, sizeof(text)), cases[i].out);
		assert_int_equal(zone_scan(z, text, &again, &e), 0);
		assert_true(us == again);
		zone_print(NULL, us, text, sizeof(text));
		assert_int_equal(text[strlen(text) - 1], 'Z');
		assert_int_equal(zone_scan(NULL, text, &again, &e), 0);
		assert_true(us == again);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(zone_scan(z, wrong[i], &us, &e), ERR_CONFIG);
	zone_free(z);
}

static void test_calendar(void **state)
{
	int64_t year;
	int month, day;

	(void)state;
	assert_true(zone_days(1970, 1, 1) == 0);
	assert_true(zone_days(2000, 3, 1) == 11017);
	assert_true(zone_days(1969, 12, 31) == -1);
	for (int64_t d = -800000; d < 3000000; d += 37) {
		zone_civil(d, &year, &month, &day);
		assert_true(zone_days(year, month, day) == d);
	}
}

static int make_folder(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/baton-zone-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_libc),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_system),
		cmocka_unit_test(test_no_database),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_begin_of_rule),
		cmocka_unit_test(test_always_summer),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_calendar),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

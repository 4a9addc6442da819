/*
 * conf/schedule.h on the command line, for tests that compare it with somebody else's.
 *
 *   schedule_tool next      lines "EXPRESSION TAB ZONE TAB FROM": the first firing after FROM
 * (seconds of the epoch) as seconds, "never", or "error ..." schedule_tool check     lines
 * "EXPRESSION": "ok WORDS", or "error COLUMN TEXT"; warnings between schedule_tool fuzz N S  N
 * expressions mutated at random from seed S: parsed, and the next firings of what is accepted
 * walked, each after the one before schedule_tool time      median nanoseconds of one `next` of the
 * expressions on standard input
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conf/schedule.h"

enum { LINE_BYTES = 4096, ZONES = 64 };

static struct {
	char name[64];
	struct zone *zone;
} zones[ZONES];

static struct zone *zone(const char *name)
{
	struct err e;

	for (int i = 0; i < ZONES; i++) {
		if (!zones[i].name[0]) {
			snprintf(zones[i].name, sizeof(zones[i].name), "%s", name);
			if (zone_load(name, &zones[i].zone, &e) < 0) {
				fprintf(stderr, "%s\n", e.text);
				exit(1);
			}
		}
		if (strcmp(zones[i].name, name) == 0)
			return zones[i].zone;
	}
	exit(1);
}

static int next_firings(void)
{
	char line[LINE_BYTES];

	while (fgets(line, sizeof(line), stdin)) {
		char *expression = strtok(line, "\t\n"), *name = strtok(NULL, "\t\n");
		char *from = strtok(NULL, "\t\n");
		struct schedule_findings found;
		struct schedule s;
		int64_t next;
		if (!from)
			return 2;
		if (schedule_parse(expression, &s, &found) < 0) {
			printf("error %s\n", found.items[0].text);
			continue;
		}
		next = schedule_next(&s, zone(name), strtoll(from, NULL, 10) * SCHEDULE_US);
		if (next == SCHEDULE_NEVER)
			puts("never");
		else
			printf("%lld\n", (long long)(next / SCHEDULE_US));
	}
	return 0;
}

static int check(void)
{
	char line[LINE_BYTES], words[512];

	while (fgets(line, sizeof(line), stdin)) {
		struct schedule_findings found;
		struct schedule s;
		int rc;
		line[strcspn(line, "\n")] = '\0';
		rc = schedule_parse(line, &s, &found);
		for (int i = 0; i < found.count; i++)
			printf("%s %d %s\n", found.items[i].warning ? "warning" : "error",
				found.items[i].column, found.items[i].text);
		if (rc == 0)
			printf("ok %s\n", schedule_print(&s, words, sizeof(words)));
		puts("");
	}
	return 0;
}

/* --- fuzz ------------------------------------------------------------------------------------ */

static uint64_t state;

static unsigned roll(unsigned limit)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(state >> 33) % limit;
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

static void walk(const struct schedule *s, const char *text)
{
	static const char *const names[] = {"UTC", "Europe/Berlin", "Australia/Lord_Howe",
		"Pacific/Apia", "America/Santiago", "Africa/Casablanca"};
	const struct zone *z = zone(names[roll(6)]);
	int64_t at = ((int64_t)roll(1u << 31) - (1 << 28)) * SCHEDULE_US;

	for (int i = 0; i < 4; i++) {
		int64_t next = schedule_next(s, z, at);
		if (next == SCHEDULE_NEVER)
			return;
		if (next <= at || schedule_next(s, z, next - 1) != next) {
			fprintf(stderr, "'%s' after %lld: %lld\n", text, (long long)at,
				(long long)next);
			abort();
		}
		at = next;
	}
}

static int fuzz(long count, long seed)
{
	static const char *const seeds[] = {"*/5 * * * *", "0 0 1,15 * 3", "0 0 29 2 *",
		"0 0 0 LW * ?", "30 3 15W,L-3 */2 *", "15 10 * * 5L,MON#2,tue-fri",
		"10-20/3,40 1-23/2 * jan-mar SUN", "@every 1h30m", "@daily", "0 0 31 2 *",
		"5/10 0/2 * * FRI-SUN", "CRON_TZ=Asia/Tokyo 0 5 * * *"};
	char text[256], words[64];
	long accepted = 0;

	state = (uint64_t)seed;
	for (long i = 0; i < count; i++) {
		struct schedule_findings found;
		struct schedule s;
		snprintf(text, sizeof(text), "%s", seeds[roll(sizeof(seeds) / sizeof(seeds[0]))]);
		mutate(text, sizeof(text));
		if (schedule_parse(text, &s, &found) < 0) {
			if (found.errors == 0 || found.count == 0)
				abort();
			continue;
		}
		accepted++;
		schedule_print(&s, words, sizeof(words));
		walk(&s, text);
	}
	printf("%ld of %ld accepted\n", accepted, count);
	return 0;
}

/* --- time ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
	return (*(const int64_t *)a > *(const int64_t *)b) -
	       (*(const int64_t *)a < *(const int64_t *)b);
}

static int measure(void)
{
	char line[LINE_BYTES];

	while (fgets(line, sizeof(line), stdin)) {
		struct schedule_findings found;
		struct schedule s;
		int64_t ns[101], sum = 0;
		line[strcspn(line, "\n")] = '\0';
		if (schedule_parse(line, &s, &found) < 0)
			return 1;
		for (int i = 0; i < 101; i++) {
			struct timespec a, b;
			int64_t at = INT64_C(1700000000) * SCHEDULE_US;
			clock_gettime(CLOCK_MONOTONIC, &a);
			for (int j = 0; j < 100; j++)
				sum += schedule_next(&s, zone("Europe/Berlin"), at + j);
			clock_gettime(CLOCK_MONOTONIC, &b);
			ns[i] = ((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec) /
				100;
		}
		qsort(ns, 101, sizeof(ns[0]), by_value);
		printf("%lld\t%s%s\n", (long long)ns[50], line, sum == 1 ? " " : "");
	}
	return 0;
}

int main(int argc, char **argv)
{
	int rc = 2;

	if (argc == 2 && strcmp(argv[1], "next") == 0)
		rc = next_firings();
	else if (argc == 2 && strcmp(argv[1], "check") == 0)
		rc = check();
	else if (argc == 4 && strcmp(argv[1], "fuzz") == 0)
		rc = fuzz(atol(argv[2]), atol(argv[3]));
	else if (argc == 2 && strcmp(argv[1], "time") == 0)
		rc = measure();
	for (int i = 0; i < ZONES; i++)
		zone_free(zones[i].zone);
	return rc;
}

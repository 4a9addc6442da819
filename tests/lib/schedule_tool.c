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
	else if (argc == 2 && strcmp(argv[1], "time") == 0)
		rc = measure();
	for (int i = 0; i < ZONES; i++)
		zone_free(zones[i].zone);
	return rc;
}

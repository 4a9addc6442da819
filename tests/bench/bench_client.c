/*
 * What asking "am I the executor?" costs, beside the bare clock_gettime it cannot go below.
 * One line per figure: name, value, unit, limit or peer. Medians of several runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/baton.h"
#include "worker/lease.h"

enum { RUNS = 201, CALLS = 20000 }; /* short runs: a preemption spoils few of them */

static struct baton *handle;
static volatile int64_t sink;

static void ask_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	sink = now.tv_nsec;
}

static void ask_executor(void)
{
	sink = baton_is_executor(handle);
}

static void ask_may_start(void)
{
	sink = baton_may_start(handle);
}

static void ask_term(void)
{
	sink = (int64_t)baton_term(handle);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double measure(void (*ask)(void))
{
	double runs[RUNS];

	for (int run = 0; run < RUNS; run++) {
		int64_t began = lease_now_ns();
		for (int i = 0; i < CALLS; i++)
			ask();
		runs[run] = (double)(lease_now_ns() - began) / CALLS;
	}
	qsort(runs, RUNS, sizeof(runs[0]), ascending);
	return runs[RUNS / 2];
}

int main(void)
{
	struct lease lease;
	struct err e;
	char text[256];
	double bare;

	if (lease_create(&lease, &e) != 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	snprintf(text, sizeof(text), "%d", lease.fd_ro);
	setenv("BATON_LEASE_FD", text, 1);
	unsetenv("BATON_CHANNEL_FD");
	if (baton_open(&handle, text, sizeof(text)) != 0) {
		fprintf(stderr, "%s\n", text);
		return 1;
	}
	bare = measure(ask_clock);
	printf("client.clock_gettime %.1f ns bare\n", bare);
	printf("client.is_executor_no %.1f ns 50\n", measure(ask_executor));
	lease_show(lease.page, 7, INT64_MAX - 1, INT64_MAX);
	printf("client.is_executor_yes %.1f ns 50\n", measure(ask_executor));
	printf("client.may_start %.1f ns %.1f\n", measure(ask_may_start), bare);
	printf("client.term %.1f ns %.1f\n", measure(ask_term), bare);
	baton_close(handle);
	lease_release(&lease);
	return 0;
}

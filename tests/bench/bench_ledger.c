/*
 * What the ledger costs, in one run with the heartbeat's commit on the same database: a claim, a
 * claim of a thousand firings, the ends of a thousand runs. Medians; "NAME VALUE UNIT".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "worker/lock/store.h"

enum { ROUNDS = 50, BATCH = 1000, BATCH_ROUNDS = 5, EPOCH = 1000, TERM = 1001 };

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void print_median(const char *name, int64_t *ns, size_t count)
{
	qsort(ns, count, sizeof(*ns), by_value);
	printf("%s %.3f ms\n", name, (double)ns[count / 2] / 1e6);
}

static void must(enum store_outcome outcome, const struct err *e)
{
	if (outcome == STORE_DONE)
		return;
	fprintf(stderr, "bench_ledger: %s\n", e->text);
	exit(1);
}

static void measure(struct store *s)
{
	static struct ledger_firing firings[BATCH];
	static struct ledger_claimed claimed[BATCH];
	static struct ledger_update updates[BATCH];
	static enum ledger_updated updated[BATCH];
	static struct store_view view;
	struct ledger_claimant who = {.program = LEDGER_PROGRAM, .term = TERM, .owner = 7};
	int64_t beat[ROUNDS], one[ROUNDS], many[BATCH_ROUNDS], ends[BATCH_ROUNDS], t0;
	struct err e = {.text = ""};
	bool ring;

	for (int i = 0; i < BATCH; i++) {
		firings[i].status = LEDGER_RUNNING;
		firings[i].key.attempt = 1;
		snprintf(firings[i].key.job, sizeof(firings[i].key.job), "job-%d", i);
	}
	for (int i = 0; i < ROUNDS; i++) {
		t0 = now_ns();
		must(s->ops->renew(s, EPOCH, TERM, 60000, &view, &e), &e);
		beat[i] = now_ns() - t0;
		firings[0].key.fire_time_us = i + 1;
		t0 = now_ns();
		must(s->ops->jobs->claim(s, &who, firings, 1, claimed, &e), &e);
		one[i] = now_ns() - t0;
	}
	for (int i = 0; i < BATCH_ROUNDS; i++) {
		for (int k = 0; k < BATCH; k++)
			firings[k].key.fire_time_us = 1000 + i;
		t0 = now_ns();
		must(s->ops->jobs->claim(s, &who, firings, BATCH, claimed, &e), &e);
		many[i] = now_ns() - t0;
		for (int k = 0; k < BATCH; k++)
			updates[k] = (struct ledger_update){.key = firings[k].key,
				.owner = 7,
				.status = LEDGER_OK,
				.ended_us = 2000};
		t0 = now_ns();
		must(s->ops->jobs->update(s, updates, BATCH, updated, &ring, &e), &e);
		ends[i] = now_ns() - t0;
	}
	print_median("ledger.heartbeat_commit", beat, ROUNDS);
	print_median("ledger.claim", one, ROUNDS);
	print_median("ledger.claim_1000", many, BATCH_ROUNDS);
	print_median("ledger.end_1000", ends, BATCH_ROUNDS);
}

int main(void)
{
	char folder[] = "/tmp/bench-ledger-XXXXXX", command[64];
	struct store_settings settings = {.create = true, .busy_limit_ms = 2000};
	struct store_expect expect = {.term = 0};
	struct store_view view;
	struct store s;
	struct err e;

	if (!mkdtemp(folder))
		return 1;
	snprintf(settings.database, sizeof(settings.database), "%s/bench.db", folder);
	snprintf(settings.instance, sizeof(settings.instance), "bench");
	if (store_sqlite_init(&s, &settings, &e) != 0)
		return 1;
	must(s.ops->inspect(&s, &view, &e), &e);
	memcpy(expect.db_uuid, view.db_uuid, sizeof(expect.db_uuid));
	must(s.ops->acquire(&s, &expect, EPOCH, 60000, "bench", &view, &e), &e);
	must(s.ops->promote(
		     &s, EPOCH, EPOCH, TERM, LEDGER_PROGRAM, "jobs:0", 1, "bench", &view, &e),
		&e);
	measure(&s);
	s.ops->close(&s);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command) != 0;
}

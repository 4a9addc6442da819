/*
 * The core in a fake world, at random: the invariants of election.md section 6, and proof that the
 * simulation would notice: every mutant named there is refuted.
 *
 * SIM_SECONDS: how long to run (default 4); SIM_SEED: the first world's seed; SIM_TRACE: print
 * what happens (with SIM_SEED and SIM_WORLDS=1); SIM_TEST: one test by name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <time.h>

#include "tests/sim/world_calm.h"

enum { CYCLES = 12, MUTANT_WORLDS = 4000 };

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double number_of(const char *name, double otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? strtod(text, NULL) : otherwise;
}

struct totals {
	uint64_t worlds, events, actions, shows, takeovers, faults, storms, exits;
	int64_t worst_gap, virtual_ns;
};

static void add(struct totals *t)
{
	t->worlds++;
	t->events += w.events;
	t->actions += w.actions;
	t->shows += w.shows;
	t->takeovers += w.takeovers;
	t->faults += w.faults;
	t->storms += w.storms;
	t->exits += w.exits;
	t->virtual_ns += w.now;
	if (w.worst_gap > t->worst_gap)
		t->worst_gap = w.worst_gap;
}

static void run_one(uint64_t seed, enum mutant mutant, bool calm, bool lossy, bool no_floor)
{
	world_init(seed, mutant, calm, lossy, no_floor);
	if (seed % 4 == 3 && !calm)
		world_run_late_sight(CYCLES);
	else
		world_run(CYCLES);
}

static void run_worlds(const char *name, double share, bool calm, bool lossy, bool no_floor)
{
	uint64_t seed = (uint64_t)number_of("SIM_SEED", 1);
	double limit = number_of("SIM_SECONDS", 4) * share, start = seconds(), took;
	int worlds = (int)number_of("SIM_WORLDS", 1e9);
	struct totals t = {0};

	do {
		run_one(seed, MUTANT_NONE, calm, lossy, no_floor);
		add(&t);
		if (w.violated) {
			printf("%s: seed %llu, at %.4f s: %s\n", name, (unsigned long long)seed,
				(double)w.now / 1e9, w.why);
			fail();
		}
		seed++;
	} while (--worlds > 0 && seconds() - start < limit);
	took = seconds() - start;
	printf("%s: %llu worlds, %.1f h, %llu events (%.0f/s), %llu actions, %llu faults, %llu "
	       "promotions, %llu acquisitions, %llu ends, longest healing %.2f s\n",
		name, (unsigned long long)t.worlds, (double)t.virtual_ns / 3.6e12,
		(unsigned long long)t.events, (double)t.events / took,
		(unsigned long long)t.actions, (unsigned long long)t.faults,
		(unsigned long long)t.shows, (unsigned long long)t.takeovers,
		(unsigned long long)t.exits, (double)t.worst_gap / 1e9);
	world_clear();
}

static void test_storms(void **state)
{
	(void)state;
	run_worlds("storms", 0.6, false, false, false);
}

static void test_without_floor(void **state)
{
	(void)state;
	run_worlds("without a floor", 0.1, false, false, true);
}

static void test_calm(void **state)
{
	(void)state;
	run_worlds("only workers misbehave", 0.2, true, false, false);
}

static void test_lossy(void **state)
{
	(void)state;
	run_worlds("unknown outcomes", 0.1, true, true, false);
}

/* The first world in which MUTANT is caught must be one that the core itself survives. */
static void refute(enum mutant mutant, const char *name, bool calm, bool lossy, bool no_floor)
{
	for (uint64_t seed = 1; seed <= MUTANT_WORLDS; seed++) {
		run_one(seed, mutant, calm, lossy, no_floor);
		if (!w.violated)
			continue;
		printf("mutant \"%s\" refuted in world %llu: %s\n", name, (unsigned long long)seed,
			w.why);
		run_one(seed, MUTANT_NONE, calm, lossy, no_floor);
		if (w.violated)
			fail_msg(
				"seed %llu, without a mutant: %s", (unsigned long long)seed, w.why);
		world_clear();
		return;
	}
	fail_msg("the mutant \"%s\" survived %d worlds", name, MUTANT_WORLDS);
}

static void test_mutants(void **state)
{
	(void)state;
	refute(MUTANT_AFTER_COMMIT, "deadline from after the commit", false, false, false);
	refute(MUTANT_NO_MARGIN, "no margin", false, false, false);
	refute(MUTANT_NO_CAS_ON_BEAT, "acquire without CAS on beat", false, false, false);
	refute(MUTANT_RESUME, "resume after the deadline", false, false, false);
	refute(MUTANT_ROW_DELETED, "row deleted on release", false, false, true);
	refute(MUTANT_WALL_CLOCK, "wall-clock staleness", false, false, false);
	refute(MUTANT_BYTE_IS_PROOF, "byte without mark taken as proof", false, false, false);
	refute(MUTANT_HANG_STOPS_BEAT, "one program's hang ends another's lease", true, false,
		false);
	refute(MUTANT_ZERO_ROWS_IS_LOSS, "zero rows after unknown taken as loss", true, true,
		false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storms),
		cmocka_unit_test(test_without_floor),
		cmocka_unit_test(test_calm),
		cmocka_unit_test(test_lossy),
		cmocka_unit_test(test_mutants),
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getenv("SIM_TEST") != NULL)
		cmocka_set_test_filter(getenv("SIM_TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The contract of struct store_ops, on the SQLite store and on the one in memory: one suite, and
 * one random walk on both side by side. */
#include "tests/unit/lock_fixture.h"

#include <time.h>

#include "worker/lock/floor.h"

static int setup_sqlite(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_stores(f, false);
	*state = f;
	return 0;
}

static int setup_memory(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_stores(f, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_end(*state);
	free(*state);
	return 0;
}

static void fresh_database_is_free(void **state)
{
	struct fixture *f = *state;

	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_true(f->view.exists);
	assert_int_equal(f->view.schema_version, STORE_SCHEMA_VERSION);
	assert_int_equal(strlen(f->view.db_uuid), 36);
	assert_int_equal(f->view.row.term, 0);
	assert_false(f->view.row.held);
	assert_string_equal(f->view.row.holder, "");
	assert_int_equal(f->view.floor, FLOOR_ABSENT);
	assert_int_equal(f->view.executor_count, 0);
}

static void acquire_writes_who(void **state)
{
	struct fixture *f = *state;
	struct store_row r;

	take(f, &f->a, 1000);
	assert_int_equal(f->view.floor, FLOOR_OK);
	assert_int_equal(f->view.floor_term, 1000);
	assert_false(f->view.floor_failed);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	r = f->view.row;
	assert_int_equal(r.term, 1000);
	assert_int_equal(r.epoch, 1000);
	assert_true(r.held);
	assert_string_equal(r.holder, "instance-a");
	assert_int_equal(r.beat, 0);
	assert_int_equal(r.ttl_ms, TTL_MS);
	assert_string_equal(r.boot_id, "boot");
	assert_string_equal(r.machine_id, "machine");
	assert_int_equal(r.guard_ino, 99);
	assert_true(r.pid1);
	assert_int_equal(r.pid, 4711);
	assert_string_equal(r.hostname, "host-of-instance-a");
	assert_true(r.created_at_us > 0 && r.heartbeat_at_us >= r.created_at_us);
	assert_int_equal(f->view.floor, FLOOR_OK);
}

/* Any difference in what was observed refuses, and the answer holds the present row. */
static void acquire_compares_everything(void **state)
{
	struct fixture *f = *state;
	struct store_expect seen, x;

	take(f, &f->a, 1000);
	seen = as_seen(&f->view);
	for (int i = 0; i < 4; i++) {
		x = seen;
		if (i == 0)
			x.term--;
		else if (i == 1)
			x.beat++;
		else if (i == 2)
			strcpy(x.holder, "instance-c");
		else
			strcpy(x.db_uuid, "another");
		memset(&f->view, 0, sizeof(f->view));
		assert_outcome(f, ACQUIRE(f, f->b, &x, 2000), STORE_REFUSED);
		assert_string_equal(f->view.row.holder, "instance-a");
		assert_int_equal(f->view.row.term, 1000);
	}
	assert_outcome(f, ACQUIRE(f, f->b, &seen, 2000), STORE_DONE);
	assert_string_equal(f->view.row.holder, "instance-b");
}

static void heartbeat_defeats_a_takeover(void **state)
{
	struct fixture *f = *state;
	struct store_expect seen;

	take(f, &f->a, 1000);
	seen = as_seen(&f->view);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
	assert_int_equal(f->view.row.beat, 1);
	assert_outcome(f, ACQUIRE(f, f->b, &seen, 2000), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
}

static void acquire_needs_a_greater_epoch(void **state)
{
	struct fixture *f = *state;
	static const int64_t wrong[] = {999, 1000, 0, -1, INT64_MIN, FLOOR_TERM_MAX + 1, INT64_MAX};
	struct store_expect seen;

	take(f, &f->a, 1000);
	seen = as_seen(&f->view);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_outcome(f, ACQUIRE(f, f->b, &seen, wrong[i]), STORE_REFUSED);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.row.term, 1000);
	assert_string_equal(f->view.row.holder, "instance-a");
	assert_outcome(f, ACQUIRE(f, f->a, &seen, FLOOR_TERM_MAX), STORE_DONE);
}

static void renew_is_the_holders(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, RENEW(f, f->b, 1000, 1000), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, 1000, 1001), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, 1000, 999), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, 999, 1000), STORE_REFUSED);
	assert_int_equal(f->view.row.beat, 0);
	assert_outcome(f, f->a.ops->renew(&f->a, 1000, 1000, 7000, &f->view, &f->e), STORE_DONE);
	assert_int_equal(f->view.row.ttl_ms, 7000);
	assert_int_equal(f->view.row.beat, 1);
	assert_int_equal(f->view.row.term, 1000);
}

static void no_renewal_after_anothers_acquisition(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	take(f, &f->b, 2000);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 3000, "web", "web:0"), STORE_REFUSED);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_REFUSED);
	assert_string_equal(f->view.row.holder, "instance-b");
	assert_int_equal(f->view.row.term, 2000);
}

static void promotions_raise_the_term(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_int_equal(f->view.floor_term, 1001);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1005, "beat", "beat:0"), STORE_DONE);
	assert_int_equal(f->view.row.term, 1005);
	assert_int_equal(f->view.row.epoch, 1000);
	assert_int_equal(f->view.executor_count, 2);
	assert_string_equal(f->view.executors[0].program, "beat");
	assert_int_equal(f->view.executors[0].term, 1005);
	assert_string_equal(f->view.executors[1].worker, "web:0");
	assert_int_equal(f->view.executors[1].term, 1001);
	assert_int_equal(f->view.executors[1].pid, 77);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1005, 1006, "web", "web:3"), STORE_DONE);
	assert_int_equal(f->view.executor_count, 2);
	assert_string_equal(f->view.executors[1].worker, "web:3");
	assert_int_equal(f->view.executors[1].term, 1006);
	/* Nothing under an old base, an equal or a lower term, or by another. */
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1005, 1007, "web", "web:1"), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1006, 1006, "web", "web:1"), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1006, 1002, "web", "web:1"), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 999, 1006, 1007, "web", "web:1"), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->b, 1000, 1006, 1007, "web", "web:1"), STORE_REFUSED);
	assert_outcome(
		f, PROMOTE(f, f->a, 1000, 1006, FLOOR_TERM_MAX + 1, "web", "web:1"), STORE_REFUSED);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.row.term, 1006);
	assert_int_equal(f->view.floor, FLOOR_OK);
	assert_int_equal(f->view.floor_term, 1006);
}

static void a_program_may_have_no_executor(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 0, "web", ""), STORE_DONE);
	assert_int_equal(f->view.executor_count, 0);
	assert_int_equal(f->view.row.term, 1001);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "job", 5, 1), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->b, 1000, 1001, 0, "web", ""), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:1"), STORE_DONE);
}

static void release_keeps_the_row_and_its_term(void **state)
{
	struct fixture *f = *state;
	struct store_expect seen;

	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_REFUSED);
	assert_outcome(f, RELEASE(f, f->b, 1000, 1001), STORE_REFUSED);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1001), STORE_DONE);
	assert_false(f->view.row.held);
	assert_string_equal(f->view.row.holder, "");
	assert_int_equal(f->view.row.term, 1001);
	assert_int_equal(f->view.executor_count, 0);
	seen = as_seen(&f->view);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1001), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, 1000, 1001), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:0"), STORE_REFUSED);
	assert_outcome(f, ACQUIRE(f, f->b, &seen, 1001), STORE_REFUSED);
	assert_outcome(f, ACQUIRE(f, f->b, &seen, 1002), STORE_DONE);
}

static void force_release_compares(void **state)
{
	struct fixture *f = *state;
	struct store_expect seen;

	take(f, &f->a, 1000);
	seen = as_seen(&f->view);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_DONE);
	assert_outcome(f, f->b.ops->force_release(&f->b, &seen, &f->view, &f->e), STORE_REFUSED);
	assert_true(f->view.row.held);
	seen = as_seen(&f->view);
	assert_outcome(f, f->b.ops->force_release(&f->b, &seen, &f->view, &f->e), STORE_DONE);
	assert_false(f->view.row.held);
	assert_int_equal(f->view.row.term, 1000);
	seen = as_seen(&f->view);
	assert_outcome(f, f->b.ops->force_release(&f->b, &seen, &f->view, &f->e), STORE_REFUSED);
}

static void a_run_is_claimed_once(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	assert_outcome(f, CLAIM(f, f->a, "web", 1000, "mail", 5, 1), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", 1000, "mail", 5, 1), STORE_REFUSED);
	assert_outcome(f, CLAIM(f, f->a, "other", 1001, "mail", 5, 1), STORE_REFUSED);
	assert_outcome(f, CLAIM(f, f->b, "web", 1001, "mail", 5, 1), STORE_REFUSED);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "mail", 5, 1), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "mail", 5, 1), STORE_REFUSED);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "mail", 5, 2), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "mail", 6, 1), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "news", 5, 1), STORE_DONE);
	/* A new term of the program ends the old one's right; a takeover everybody's. */
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:1"), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", 1001, "mail", 7, 1), STORE_REFUSED);
	take(f, &f->b, 2000);
	assert_outcome(f, CLAIM(f, f->a, "web", 1002, "mail", 7, 1), STORE_REFUSED);
	assert_outcome(f, PROMOTE(f, f->b, 2000, 2000, 2001, "web", "web:0"), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->b, "web", 2001, "mail", 5, 1), STORE_REFUSED);
	assert_outcome(f, CLAIM(f, f->b, "web", 2001, "mail", 7, 1), STORE_DONE);
}

struct seen_history {
	int count, stop_at;
	char text[1024];
};

static bool note(const struct store_executor *of, int64_t ended_us, const char *holder,
	const char *hostname, const char *reason, void *context)
{
	struct seen_history *h = context;
	size_t used = strlen(h->text);

	assert_true(of->since_us > 0);
	assert_true(ended_us == 0 || ended_us >= of->since_us);
	assert_memory_equal(hostname, "host-of-", 8);
	snprintf(h->text + used, sizeof(h->text) - used, "%lld:%s:%s:%s:%s%s;", (long long)of->term,
		of->program, of->worker, holder + strlen("instance-"), reason,
		ended_us ? "" : ":open");
	return ++h->count != h->stop_at;
}

static void history_has_every_term(void **state)
{
	struct fixture *f = *state;
	struct seen_history h = {0}, stopped = {.stop_at = 1}, limited = {0};

	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1002, "beat", "beat:0"), STORE_DONE);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1002, 1003, "web", "web:1"), STORE_DONE);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1003, 0, "beat", ""), STORE_DONE);
	take(f, &f->b, 2000);
	assert_outcome(f, RELEASE(f, f->b, 2000, 2000), STORE_DONE);
	take(f, &f->a, 3000);
	assert_outcome(f, f->b.ops->history(&f->b, 100, note, &h, &f->e), STORE_DONE);
	assert_string_equal(h.text,
		"3000:::a::open;2000:::b:released;1003:web:web:1:a:takeover;"
		"1002:beat:beat:0:a:handoff;1001:web:web:0:a:handoff;1000:::a:takeover;");
	assert_outcome(f, f->b.ops->history(&f->b, 100, note, &stopped, &f->e), STORE_DONE);
	assert_int_equal(stopped.count, 1);
	assert_outcome(f, f->b.ops->history(&f->b, 2, note, &limited, &f->e), STORE_DONE);
	assert_int_equal(limited.count, 2);
}

static void history_is_trimmed(void **state)
{
	struct fixture *f = *state;
	struct seen_history h = {0};

	f->b.settings.history_keep_us = 1; /* what ended more than a microsecond ago goes */
	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:1"), STORE_DONE);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1002), STORE_DONE);
	for (int64_t from = f->view.row.heartbeat_at_us, now = from; now < from + 10;) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		now = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
	}
	take(f, &f->b, 2000);
	assert_outcome(f, f->b.ops->history(&f->b, 100, note, &h, &f->e), STORE_DONE);
	assert_string_equal(h.text, "2000:::b::open;");
}

/* --- both side by side ------------------------------------------------------------------ */

static void assert_same_view(const struct store_view *x, const struct store_view *y)
{
	assert_int_equal(x->row.term, y->row.term);
	assert_int_equal(x->row.epoch, y->row.epoch);
	assert_int_equal(x->row.held, y->row.held);
	assert_string_equal(x->row.holder, y->row.holder);
	assert_int_equal(x->row.beat, y->row.beat);
	assert_int_equal(x->row.ttl_ms, y->row.ttl_ms);
	assert_string_equal(x->row.worker, y->row.worker);
	assert_int_equal(x->floor, y->floor);
	assert_int_equal(x->floor_term, y->floor_term);
	assert_int_equal(x->executor_count, y->executor_count);
	for (size_t i = 0; i < x->executor_count; i++) {
		assert_string_equal(x->executors[i].program, y->executors[i].program);
		assert_string_equal(x->executors[i].worker, y->executors[i].worker);
		assert_int_equal(x->executors[i].term, y->executors[i].term);
	}
}

static unsigned roll(uint64_t *seed, unsigned sides)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)((*seed >> 33) % sides);
}

/* One step on one store, drawn from *SEED; EXPECT is what this walker saw last. */
static enum store_outcome random_step(struct fixture *f, uint64_t *seed, struct store_view *seen)
{
	struct store *s = roll(seed, 2) ? &f->a : &f->b;
	struct store_expect x = as_seen(seen);
	int64_t term = seen->row.term + (roll(seed, 8) == 0) - (roll(seed, 8) == 0);
	int64_t epoch = seen->row.epoch + (roll(seed, 16) == 0);
	int64_t new_term = seen->row.term + (int64_t)roll(seed, 4) - 1;
	const char *program = roll(seed, 2) ? "web" : "beat";
	const char *worker = roll(seed, 4) ? "worker" : "";

	memcpy(x.db_uuid, f->view.db_uuid, sizeof(x.db_uuid));
	x.beat += roll(seed, 8) == 0;
	switch (roll(seed, 8)) {
	case 0:
		return ACQUIRE(f, *s, &x, new_term);
	case 1:
		return RELEASE(f, *s, epoch, term);
	case 2:
		return s->ops->force_release(s, &x, &f->view, &f->e);
	case 3:
	case 4:
		return PROMOTE(f, *s, epoch, term, new_term, program, worker);
	case 5:
		return CLAIM(f, *s, program, term, "job", roll(seed, 5), 1);
	case 6:
		return INSPECT(f, *s);
	default:
		return RENEW(f, *s, epoch, term);
	}
}

static void both_stores_answer_alike(void **state)
{
	struct fixture *memory = calloc(1, sizeof(*memory)), *sqlite = calloc(1, sizeof(*sqlite));
	struct store_view seen;
	uint64_t start = 20240229, seed = start;
	int done = 0;

	(void)state;
	assert_true(memory && sqlite);
	fixture_stores(memory, true);
	fixture_stores(sqlite, false);
	assert_outcome(memory, INSPECT(memory, memory->a), STORE_DONE);
	assert_outcome(sqlite, INSPECT(sqlite, sqlite->a), STORE_DONE);
	seen = sqlite->view;
	for (int i = 0; i < 1500; i++) {
		uint64_t same = seed;
		enum store_outcome in_memory = random_step(memory, &seed, &seen);
		enum store_outcome in_sqlite = random_step(sqlite, &same, &seen);
		int64_t before = seen.row.term;
		if (in_memory != in_sqlite)
			print_message("seed %llu, step %d: memory %s, sqlite %s (%s)\n",
				(unsigned long long)start, i, store_outcome_name(in_memory),
				store_outcome_name(in_sqlite), sqlite->e.text);
		assert_int_equal(in_memory, in_sqlite);
		assert_outcome(memory, INSPECT(memory, memory->a), STORE_DONE);
		assert_outcome(sqlite, INSPECT(sqlite, sqlite->a), STORE_DONE);
		assert_same_view(&memory->view, &sqlite->view);
		assert_true(sqlite->view.row.term >= before);
		assert_true(
			sqlite->view.row.term > before || sqlite->view.row.epoch == seen.row.epoch);
		done += in_sqlite == STORE_DONE;
		if (roll(&seed, 4))
			seen = sqlite->view; /* otherwise the next step acts on an old look */
	}
	print_message(
		"1500 steps, %d of them done, term %lld\n", done, (long long)sqlite->view.row.term);
	assert_true(done > 300);
	fixture_end(memory);
	fixture_end(sqlite);
	free(memory);
	free(sqlite);
}

#define ON_BOTH(test)                                                                              \
	{#test " (sqlite)", test, setup_sqlite, teardown, NULL},                                   \
	{                                                                                          \
#test " (memory)", test, setup_memory, teardown, NULL                              \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_BOTH(fresh_database_is_free),
		ON_BOTH(acquire_writes_who),
		ON_BOTH(acquire_compares_everything),
		ON_BOTH(heartbeat_defeats_a_takeover),
		ON_BOTH(acquire_needs_a_greater_epoch),
		ON_BOTH(renew_is_the_holders),
		ON_BOTH(no_renewal_after_anothers_acquisition),
		ON_BOTH(promotions_raise_the_term),
		ON_BOTH(a_program_may_have_no_executor),
		ON_BOTH(release_keeps_the_row_and_its_term),
		ON_BOTH(force_release_compares),
		ON_BOTH(a_run_is_claimed_once),
		ON_BOTH(history_has_every_term),
		ON_BOTH(history_is_trimmed),
		cmocka_unit_test(both_stores_answer_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

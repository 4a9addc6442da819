/* worker/lock/store_sql_requests.c: what of the ledger is dropped when it is old, and what must not
 * be; and how many names a look takes. */
#include "tests/unit/ledger_fixture.h"

#include <sqlite3.h>

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	ledger_fixture(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_end(*state);
	free(*state);
	return 0;
}

/* The first number that it finds, 0 = none. */
static int64_t by_hand(struct fixture *f, const char *format, ...)
{
	char sql[1024], *message = NULL;
	sqlite3_stmt *q = NULL;
	int64_t number = 0;
	va_list arguments;
	sqlite3 *db;
	int rc;

	va_start(arguments, format);
	vsnprintf(sql, sizeof(sql), format, arguments);
	va_end(arguments);
	assert_int_equal(sqlite3_open(f->database, &db), SQLITE_OK);
	rc = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
	if (rc == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW)
		number = sqlite3_column_int64(q, 0);
	if (rc != SQLITE_OK || sqlite3_finalize(q) != SQLITE_OK)
		fail_msg("%s: %s", sql, message ? message : sqlite3_errmsg(db));
	sqlite3_close(db);
	return number;
}

#define RUNS(f, where)  by_hand(f, "SELECT count(*) FROM job_run WHERE " where)
#define NAMES(f, where) by_hand(f, "SELECT count(*) FROM job_state WHERE " where)

/* COUNT ended runs AGE hours old, numbered from FIRST. */
static void add_runs(struct fixture *f, int first, int count, const char *status, int age)
{
	by_hand(f,
		"WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
		" INSERT INTO job_run(job, fire_time, attempt, term, status, run, claimed_at)"
		" SELECT 'job', i, 1, 1, '%s', i, CAST(unixepoch() AS INTEGER) * 1000000 -"
		" %lld FROM n",
		first, first + count - 1, status, (long long)(age * HOUR));
}

static void add_names(struct fixture *f, const char *prefix, int count)
{
	by_hand(f,
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
		" INSERT INTO job_state(job, last_fire) SELECT printf('%s%%06d', i), 0 FROM n",
		count, prefix);
}

static int trim(struct fixture *f, int64_t keep_us, int64_t keep_count)
{
	char cursor[LEDGER_NAME_BYTES] = "";
	bool more = true;
	int steps = 0;

	while (more) {
		assert_outcome(f,
			f->a.ops->jobs->trim(&f->a, keep_us, keep_count, cursor, &more, &f->e),
			STORE_DONE);
		assert_true(++steps < 2000);
	}
	return steps;
}

static void declare(
	struct fixture *f, struct store *s, const char *job, int64_t round_us, bool last)
{
	struct ledger_declared d = {.schedule = "@hourly"};

	snprintf(d.job, sizeof(d.job), "%s", job);
	assert_outcome(f, s->ops->jobs->declare(s, &d, 1, round_us, last, &f->e), STORE_DONE);
}

/* --- runs ---------------------------------------------------------------------------------- */
static void an_open_row_does_not_end_it(void **state)
{
	struct fixture *f = *state;

	add_runs(f, 1, 3000, "ok", 48);
	by_hand(f, "UPDATE job_run SET status = 'running' WHERE run = 100");
	trim(f, HOUR, 0);
	assert_int_equal(RUNS(f, "true"), 1);
	assert_int_equal(RUNS(f, "run = 100"), 1);
}

static void young_ones_stay(void **state)
{
	struct fixture *f = *state;

	add_runs(f, 1, 300, "failed", 3);
	add_runs(f, 301, 300, "failed", 1);
	trim(f, 2 * HOUR, 0);
	assert_int_equal(RUNS(f, "run <= 300"), 0);
	assert_int_equal(RUNS(f, "run > 300"), 300);
}

/* Whatever the history's settings: the row is what refuses the same firing once more. */
static void a_claim_stays_for_an_hour(void **state)
{
	struct fixture *f = *state;
	struct ledger_firing of = firing("web:a", HOUR, LEDGER_CLAIMED);

	of.cause = LEDGER_BY_APPLICATION;
	claim(f, &f->a, TERM, OWNER, of, STORE_DONE);
	for (int i = 2; i < 10; i++) {
		struct ledger_firing later = of;
		later.key.fire_time_us = i * HOUR;
		claim(f, &f->a, TERM, OWNER, later, STORE_DONE);
	}
	add_runs(f, 100, 300, "ok", 0);
	trim(f, 1, 1);
	assert_int_equal(RUNS(f, "job = 'job'"), 0); /* also those behind the claims */
	assert_int_equal(claim(f, &f->a, TERM, HEIR, of, STORE_DONE).answer, LEDGER_CLAIM_TAKEN);
	by_hand(f, "UPDATE job_run SET claimed_at = claimed_at - %lld", (long long)(2 * HOUR));
	trim(f, 0, 3);
	assert_int_equal(RUNS(f, "job = 'web:a'"), 3);
	trim(f, HOUR, 0);
	assert_int_equal(RUNS(f, "true"), 0);
}

/* Where there are no [job:] sections: each 64th claim does it, and job runs are not in its way. */
static void claims_trim_themselves(void **state)
{
	struct fixture *f = *state;

	f->a.settings.history_keep_us = 1; /* an hour all the same */
	assert_outcome(f, PROMOTE(f, f->a, EPOCH, TERM, TERM + 1, "web", "web:0"), STORE_DONE);
	add_runs(f, 1, 600, "ok", 48);
	add_runs(f, 601, 100, "claimed", 48);
	add_names(f, "web:gone", 100);
	by_hand(f, "UPDATE job_meta SET next_run = 701");
	for (int i = 1; i <= 200; i++) {
		char name[32];
		snprintf(name, sizeof(name), "web:%d", i);
		assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, name, i, 1), STORE_DONE);
	}
	assert_int_equal(RUNS(f, "run <= 600"), 600);
	assert_int_equal(RUNS(f, "run > 600 AND run <= 700"), 0);
	assert_int_equal(RUNS(f, "run > 700"), 200);
	assert_int_equal(NAMES(f, "job GLOB 'web:gone*'"), 0);
	assert_int_equal(NAMES(f, "job GLOB 'web:*'"), 200);
}

/* --- names --------------------------------------------------------------------------------- */
static void names_of_nobody_are_forgotten(void **state)
{
	struct fixture *f = *state;

	add_names(f, "web:", 2000);
	by_hand(f, "INSERT INTO job_pause VALUES ('web:000007', 1, 'root')");
	declare(f, &f->a, "ours", 1, true);
	declare(f, &f->b, "theirs", 1, true);
	declare(f, &f->b, "theirs of long ago", 1, false);
	by_hand(f, "UPDATE job_state SET declared_at = CAST(unixepoch() AS INTEGER) * 1000000"
		   " WHERE job = 'theirs'");
	add_runs(f, 1, 1, "claimed", 2);
	by_hand(f, "INSERT INTO job_state(job) VALUES ('job')");
	trim(f, 0, 0);
	assert_int_equal(NAMES(f, "true"), 4);
	assert_int_equal(NAMES(f, "job IN ('ours', 'theirs', 'job', 'web:000007')"), 4);
	trim(f, HOUR, 0); /* its last run goes, and so it does */
	assert_int_equal(NAMES(f, "job = 'job'"), 0);
}

/* What the instance's file has no longer is nobody's; what another one has is not touched. */
static void a_declaration_is_complete_with_its_last_part(void **state)
{
	struct fixture *f = *state;
	struct seen *s;
	int64_t before;

	declare(f, &f->a, "kept", 1, false);
	declare(f, &f->a, "taken out", 1, true);
	declare(f, &f->b, "theirs", 1, true);
	declare(f, &f->a, "kept", 2, false);
	s = look(f, &f->a, (struct store_query){.what = STORE_READ_JOBS, .job = "taken out"});
	assert_string_equal(s->instances[0], f->a.settings.instance);
	declare(f, &f->a, "new", 2, true);
	s = look(f, &f->a, (struct store_query){.what = STORE_READ_JOBS});
	assert_int_equal(s->job_count, 4); /* kept, new, taken out, theirs */
	assert_string_equal(s->instances[0], f->a.settings.instance);
	assert_string_equal(s->instances[2], "");
	assert_string_equal(s->declared[2].schedule, "@hourly");
	assert_string_equal(s->instances[3], f->b.settings.instance);
	/* Put in again: what was due while it was in no file was not missed. */
	before = s->jobs[2].known_since_us;
	declare(f, &f->a, "taken out", 3, false);
	s = look(f, &f->a, (struct store_query){.what = STORE_READ_JOBS, .job = "taken out"});
	assert_true(s->jobs[0].known_since_us > before);
}

static void a_look_takes_only_what_files_have(void **state)
{
	struct fixture *f = *state;
	struct seen *s;

	add_names(f, "web:", 1000);
	declare(f, &f->b, "declared", 1, true);
	claim(f, &f->a, TERM, OWNER, firing("claimed before", HOUR, LEDGER_RUNNING), STORE_DONE);
	by_hand(f, "INSERT INTO job_pause VALUES ('web:000007', 1, 'root')");
	s = look(f, &f->a, (struct store_query){.what = STORE_READ_DECLARED});
	assert_int_equal(s->job_count, 3);
	assert_string_equal(s->jobs[0].job, "claimed before");
	assert_string_equal(s->jobs[1].job, "declared");
	assert_string_equal(s->jobs[2].job, "web:000007");
	assert_true(s->jobs[2].paused);
	assert_int_equal(
		look(f, &f->a, (struct store_query){.what = STORE_READ_JOBS})->job_count, 1002);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_open_row_does_not_end_it),
		TEST(young_ones_stay),
		TEST(a_claim_stays_for_an_hour),
		TEST(claims_trim_themselves),
		TEST(names_of_nobody_are_forgotten),
		TEST(a_declaration_is_complete_with_its_last_part),
		TEST(a_look_takes_only_what_files_have),
	};

	return cmocka_run_group_tests_name("ledger_trim", tests, NULL, NULL);
}

/* worker/lock/store_sql_jobs.c, store_sql_requests.c, store_sql_ledger.c, store_sql_upgrade.c:
 * every operation on the ledger, every refusal, every repetition after an unknown outcome. */
#include "tests/unit/ledger_fixture.h"

#include <sqlite3.h>

#include "worker/lock/migrations.h"

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

static int by_hand(const char *path, const char *sql)
{
	sqlite3 *db;
	char *message = NULL;
	int rc = sqlite3_open(path, &db);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, sql, NULL, NULL, &message);
	if (rc != SQLITE_OK)
		print_message("%s: %s\n", sql, message ? message : "?");
	sqlite3_free(message);
	sqlite3_close(db);
	return rc;
}

#define ALL_RUNS ((struct store_query){.what = STORE_READ_RUNS})

/* --- claims -------------------------------------------------------------------------------- */
static void a_firing_is_claimed_once(void **state)
{
	struct fixture *f = *state;
	struct ledger_firing of = firing("backup", HOUR, LEDGER_RUNNING);
	struct ledger_claimed got = claim(f, &f->a, TERM, OWNER, of, STORE_DONE);
	int64_t run = got.run;

	assert_int_equal(got.answer, LEDGER_CLAIM_DONE);
	assert_true(run > 0);
	/* The answer was lost: asked again by the same, it is ours; by anybody else it is not. */
	got = claim(f, &f->a, TERM, OWNER, of, STORE_DONE);
	assert_int_equal(got.answer, LEDGER_CLAIM_MINE);
	assert_int_equal(got.run, run);
	got = claim(f, &f->a, TERM, HEIR, of, STORE_DONE);
	assert_int_equal(got.answer, LEDGER_CLAIM_TAKEN);
	assert_int_equal(got.status, LEDGER_RUNNING);
	assert_int_equal(got.run, run);
	/* Without a number nobody is "mine". */
	of.key.fire_time_us = 2 * HOUR;
	assert_int_equal(claim(f, &f->a, TERM, 0, of, STORE_DONE).answer, LEDGER_CLAIM_DONE);
	assert_int_equal(claim(f, &f->a, TERM, 0, of, STORE_DONE).answer, LEDGER_CLAIM_TAKEN);
	/* Another attempt, another time: other runs. */
	of.key.attempt = 2;
	got = claim(f, &f->a, TERM, OWNER, of, STORE_DONE);
	assert_int_equal(got.answer, LEDGER_CLAIM_DONE);
	assert_int_equal(got.run, run + 2);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 3);
}

static void nobody_else_claims(void **state)
{
	struct fixture *f = *state;
	struct ledger_firing of = firing("backup", HOUR, LEDGER_RUNNING);

	assert_int_equal(claim(f, &f->a, TERM - 1, OWNER, of, STORE_REFUSED).answer,
		LEDGER_CLAIM_REFUSED); /* the term of before */
	assert_says(f, "another executor than ours");
	claim(f, &f->a, TERM + 1, OWNER, of, STORE_REFUSED); /* one that was never given */
	claim(f, &f->b, TERM, OWNER, of, STORE_REFUSED);     /* not the holder's instance */
	assert_outcome(
		f, PROMOTE(f, f->a, EPOCH, TERM, TERM + 1, LEDGER_PROGRAM, "jobs:1"), STORE_DONE);
	claim(f, &f->a, TERM, OWNER, of, STORE_REFUSED); /* demoted meanwhile */
	assert_outcome(f, PROMOTE(f, f->a, EPOCH, TERM + 1, 0, LEDGER_PROGRAM, ""), STORE_DONE);
	claim(f, &f->a, TERM + 1, OWNER, of, STORE_REFUSED); /* no executor at all */
	assert_outcome(f, PROMOTE(f, f->a, EPOCH, TERM + 1, TERM + 2, LEDGER_PROGRAM, "jobs:1"),
		STORE_DONE);
	assert_outcome(f, RELEASE(f, f->a, EPOCH, TERM + 2), STORE_DONE);
	claim(f, &f->a, TERM + 2, OWNER, of, STORE_REFUSED); /* no lock */
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 0);
}

static void a_batch_is_one_transaction(void **state)
{
	enum { COUNT = 1000 };
	struct fixture *f = *state;
	struct ledger_firing *of = calloc(COUNT, sizeof(*of));
	struct ledger_claimed *got = calloc(COUNT, sizeof(*got));
	struct ledger_claimant who = claimant(TERM, OWNER);

	claim(f, &f->a, TERM, HEIR, firing("job500", HOUR, LEDGER_RUNNING), STORE_DONE);
	for (int i = 0; i < COUNT; i++) {
		char name[32];
		snprintf(name, sizeof(name), "job%d", i);
		of[i] = firing(name, HOUR, i % 2 ? LEDGER_QUEUED : LEDGER_RUNNING);
	}
	who.term = TERM + 5;
	assert_outcome(f, f->a.ops->jobs->claim(&f->a, &who, of, COUNT, got, &f->e), STORE_REFUSED);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(got[i].answer, LEDGER_CLAIM_REFUSED);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 1);
	who.term = TERM;
	assert_outcome(f, f->a.ops->jobs->claim(&f->a, &who, of, COUNT, got, &f->e), STORE_DONE);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(got[i].answer, i == 500 ? LEDGER_CLAIM_TAKEN : LEDGER_CLAIM_DONE);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, COUNT);
	assert_int_equal(
		look(f, &f->a,
			(struct store_query){.what = STORE_READ_RUNS, .open = true, .limit = 7})
			->run_count,
		7);
	free(of);
	free(got);
}

static void what_never_starts_has_ended(void **state)
{
	struct fixture *f = *state;
	struct ledger_run r;

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_SKIPPED), STORE_DONE);
	claim(f, &f->a, TERM, OWNER, firing("a", 2 * HOUR, LEDGER_MISSED), STORE_DONE);
	r = the_run(f, "a", HOUR);
	assert_int_equal(r.status, LEDGER_SKIPPED);
	assert_true(r.ended_us > 0 && r.started_us == 0);
	assert_int_equal(look(f, &f->a, (struct store_query){.what = STORE_READ_RUNS, .open = true})
				 ->run_count,
		0);
	assert_int_equal(
		look(f, &f->a, (struct store_query){.what = STORE_READ_RUNS, .failed = true})
			->run_count,
		1); /* a missed one is a failure, a skipped one is the policy */
}

static void claims_of_an_application(void **state)
{
	struct fixture *f = *state;
	struct ledger_run r;

	assert_outcome(f, PROMOTE(f, f->a, EPOCH, TERM, TERM + 1, "web", "web:0"), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, "web:mail", HOUR, 1), STORE_DONE);
	assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, "web:mail", HOUR, 1), STORE_REFUSED);
	assert_outcome(f,
		f->a.ops->claim(&f->a, "web", TERM + 1, "web:mail", 2 * HOUR, 1, 9, &f->e),
		STORE_DONE);
	assert_outcome(f,
		f->a.ops->claim(&f->a, "web", TERM + 1, "web:mail", 2 * HOUR, 1, 9, &f->e),
		STORE_DONE); /* the same asker, asking again */
	assert_outcome(f,
		f->a.ops->claim(&f->a, "web", TERM + 1, "web:mail", 2 * HOUR, 1, 10, &f->e),
		STORE_REFUSED);
	r = the_run(f, "web:mail", HOUR);
	assert_int_equal(r.status, LEDGER_CLAIMED);
	assert_int_equal(r.cause, LEDGER_BY_APPLICATION);
	assert_string_equal(r.program, "web");
	assert_int_equal(r.ended_us, 0);
}

static void claims_of_applications_are_trimmed(void **state)
{
	struct fixture *f = *state;

	assert_outcome(f, PROMOTE(f, f->a, EPOCH, TERM, TERM + 1, "web", "web:0"), STORE_DONE);
	f->a.settings.history_keep_us = HOUR;
	claim(f, &f->a, TERM, OWNER, firing("kept", HOUR, LEDGER_SKIPPED), STORE_DONE);
	for (int i = 2; i < 64; i++)
		assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, "web:mail", i, 1), STORE_DONE);
	assert_string_equal(the_run(f, "web:mail", 2).worker, "web:0");
	assert_int_equal(by_hand(f->database, "UPDATE job_run SET claimed_at = 1"), SQLITE_OK);
	assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, "web:mail", 64, 1), STORE_DONE);
	/* Run 64: the old claims went, the runs of jobs have keepers of their own. */
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 2);
	assert_int_equal(the_run(f, "kept", HOUR).status, LEDGER_SKIPPED);
}

/* --- what becomes of a run ----------------------------------------------------------------- */
static void from_claim_to_end(void **state)
{
	struct fixture *f = *state;
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_RUNNING);
	struct ledger_run r;
	struct seen *s;
	bool ring = true;

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_QUEUED), STORE_DONE);
	r = the_run(f, "a", HOUR);
	assert_int_equal(r.status, LEDGER_QUEUED);
	assert_int_equal(r.started_us, 0);
	u.started_us = HOUR + 10;
	u.pid = 4242;
	assert_int_equal(tell(f, &f->a, u, &ring), LEDGER_UPDATE_DONE);
	u.status = LEDGER_FAILED;
	u.started_us = 0;
	u.ended_us = HOUR + 20;
	u.exit_code = 3;
	u.output = "the last words";
	u.output_kept = 14;
	u.output_bytes = 1 << 30;
	snprintf(u.reason, sizeof(u.reason), "because");
	assert_int_equal(tell(f, &f->a, u, &ring), LEDGER_UPDATE_DONE);
	assert_false(ring); /* nobody waits */
	r = the_run(f, "a", HOUR);
	assert_int_equal(r.status, LEDGER_FAILED);
	assert_int_equal(r.started_us, HOUR + 10);
	assert_int_equal(r.ended_us, HOUR + 20);
	assert_int_equal(r.pid, 4242);
	assert_int_equal(r.exit_code, 3);
	assert_int_equal(r.signal, 0);
	assert_int_equal(r.output_bytes, 1 << 30);
	assert_int_equal(r.output_kept, 14);
	assert_int_equal(r.term, TERM);
	assert_string_equal(r.reason, "because");
	assert_string_equal(r.instance, "instance-a");
	assert_string_equal(r.hostname, "host-of-instance-a");
	assert_string_equal(r.worker, "jobs:0");
	s = look(f, &f->b,
		(struct store_query){.what = STORE_READ_RUNS | STORE_READ_OUTPUT, .run = r.run});
	assert_int_equal(s->output_bytes, 14);
	assert_memory_equal(s->output, "the last words", 14);
}

static void an_exit_status_of_zero_is_one(void **state)
{
	struct fixture *f = *state;
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_OK);

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_RUNNING), STORE_DONE);
	claim(f, &f->a, TERM, OWNER, firing("b", HOUR, LEDGER_RUNNING), STORE_DONE);
	u.exit_code = 0;
	tell(f, &f->a, u, NULL);
	assert_int_equal(the_run(f, "a", HOUR).exit_code, 0);
	u = update("b", HOUR, OWNER, LEDGER_KILLED);
	u.signal = 9;
	tell(f, &f->a, u, NULL);
	assert_int_equal(the_run(f, "b", HOUR).exit_code, -1);
	assert_int_equal(the_run(f, "b", HOUR).signal, 9);
}

static void the_owner_alone_tells(void **state)
{
	struct fixture *f = *state;
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_OK);

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_RUNNING), STORE_DONE);
	u.owner = HEIR;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	u = update("nosuch", HOUR, OWNER, LEDGER_OK);
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	assert_int_equal(the_run(f, "a", HOUR).status, LEDGER_RUNNING);
	u = update("a", HOUR, OWNER, LEDGER_OK);
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_DONE);
	/* Repeated after an unknown outcome: the same answer. But an end is an end. */
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_DONE);
	u.status = LEDGER_FAILED;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	assert_int_equal(the_run(f, "a", HOUR).status, LEDGER_OK);
	/* What was taken from the queue is neither started nor queued again. */
	claim(f, &f->a, TERM, OWNER, firing("q", HOUR, LEDGER_QUEUED), STORE_DONE);
	u = update("q", HOUR, OWNER, LEDGER_CANCELLED);
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_DONE);
	u.status = LEDGER_RUNNING;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	u.status = LEDGER_QUEUED;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	assert_int_equal(the_run(f, "q", HOUR).status, LEDGER_CANCELLED);
}

static void the_demoted_finishes_what_runs(void **state)
{
	struct fixture *f = *state;
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_OK);
	bool ring = false;

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_RUNNING), STORE_DONE);
	assert_outcome(
		f, PROMOTE(f, f->a, EPOCH, TERM, TERM + 1, LEDGER_PROGRAM, "jobs:1"), STORE_DONE);
	assert_int_equal(tell(f, &f->a, u, &ring), LEDGER_UPDATE_DONE);
	assert_true(ring); /* its successor may wait for it */
	/* Also when the lock is gone to another instance. */
	claim(f, &f->a, TERM + 1, HEIR, firing("b", HOUR, LEDGER_RUNNING), STORE_DONE);
	assert_outcome(f, RELEASE(f, f->a, EPOCH, TERM + 1), STORE_DONE);
	take(f, &f->b, 5000);
	u = update("b", HOUR, HEIR, LEDGER_OK);
	assert_int_equal(tell(f, &f->a, u, &ring), LEDGER_UPDATE_DONE);
	assert_true(ring);
	assert_int_equal(the_run(f, "b", HOUR).status, LEDGER_OK);
}

static void the_successor_marks_what_was_cut_off(void **state)
{
	struct fixture *f = *state;
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_INTERRUPTED);
	struct seen *s;

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_RUNNING), STORE_DONE);
	claim(f, &f->a, TERM, OWNER, firing("q", HOUR, LEDGER_QUEUED), STORE_DONE);
	assert_outcome(f, RELEASE(f, f->a, EPOCH, TERM), STORE_DONE);
	take(f, &f->b, 5000);
	assert_outcome(f, PROMOTE(f, f->b, 5000, 5000, 5001, LEDGER_PROGRAM, "jobs:0"), STORE_DONE);
	s = look(f, &f->b, (struct store_query){.what = STORE_READ_RUNS, .open = true});
	assert_int_equal(s->run_count, 2);
	assert_int_equal(s->runs[0].term, TERM);
	assert_int_equal(s->runs[0].owner, OWNER);
	u.by_term = TERM; /* not the executor's term */
	assert_int_equal(tell(f, &f->b, u, NULL), LEDGER_UPDATE_REFUSED);
	u.by_term = 5001;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED); /* not the holder */
	assert_int_equal(tell(f, &f->b, u, NULL), LEDGER_UPDATE_DONE);
	assert_int_equal(tell(f, &f->b, u, NULL), LEDGER_UPDATE_DONE); /* again */
	assert_int_equal(the_run(f, "a", HOUR).status, LEDGER_INTERRUPTED);
	/* It lived after all: too late, the row says that it was cut off. */
	u = update("a", HOUR, OWNER, LEDGER_OK);
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	assert_int_equal(the_run(f, "a", HOUR).status, LEDGER_INTERRUPTED);
}

/* Who runs what an earlier executor had queued is its owner from then on. */
static void the_successor_owns_what_it_runs(void **state)
{
	struct fixture *f = *state;
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_RUNNING);

	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_QUEUED), STORE_DONE);
	u.by_term = TERM;
	u.new_owner = HEIR;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_DONE);
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_DONE); /* its answer was lost */
	assert_int_equal(the_run(f, "a", HOUR).owner, HEIR);
	u = update("a", HOUR, OWNER, LEDGER_INTERRUPTED);
	u.by_term = TERM;
	assert_int_equal(tell(f, &f->a, u, NULL), LEDGER_UPDATE_REFUSED);
	assert_int_equal(
		tell(f, &f->a, update("a", HOUR, HEIR, LEDGER_OK), NULL), LEDGER_UPDATE_DONE);
}

/* --- declarations, pauses, requests -------------------------------------------------------- */
static struct ledger_job the_job(struct fixture *f, const char *name)
{
	struct seen *s = look(f, &f->a, (struct store_query){.what = STORE_READ_JOBS, .job = name});

	assert_int_equal(s->job_count, 1);
	return s->jobs[0];
}

static void declare(struct fixture *f, struct store *s, const char *job, const char *schedule)
{
	struct ledger_declared d = {.timezone = "Europe/Berlin"};

	snprintf(d.job, sizeof(d.job), "%s", job);
	snprintf(d.schedule, sizeof(d.schedule), "%s", schedule);
	assert_outcome(f, s->ops->jobs->declare(s, &d, 1, 1, false, &f->e), STORE_DONE);
}

static void what_is_known_of_a_job(void **state)
{
	struct fixture *f = *state;
	int64_t since;

	declare(f, &f->a, "a", "@hourly");
	since = the_job(f, "a").known_since_us;
	assert_true(since > 0);
	assert_int_equal(the_job(f, "a").last_fire_us, 0);
	/* The same from another instance changes nothing of that; another schedule does. */
	declare(f, &f->b, "a", "@hourly");
	assert_int_equal(the_job(f, "a").known_since_us, since);
	declare(f, &f->a, "a", "@daily");
	assert_true(the_job(f, "a").known_since_us > since);
	claim(f, &f->a, TERM, OWNER, firing("a", 5 * HOUR, LEDGER_RUNNING), STORE_DONE);
	claim(f, &f->a, TERM, OWNER, firing("a", 4 * HOUR, LEDGER_MISSED), STORE_DONE);
	assert_int_equal(the_job(f, "a").last_fire_us, 5 * HOUR); /* the latest, not the last */
	/* A run by hand is no firing of the schedule. */
	struct ledger_firing by_hand_ = firing("a", 9 * HOUR, LEDGER_RUNNING);
	by_hand_.cause = LEDGER_BY_RETRY;
	claim(f, &f->a, TERM, OWNER, by_hand_, STORE_DONE);
	assert_int_equal(the_job(f, "a").last_fire_us, 5 * HOUR);
}

static void paused_jobs_are_not_claimed(void **state)
{
	struct fixture *f = *state;
	struct ledger_request request;
	struct ledger_firing of = firing("a", HOUR, LEDGER_RUNNING);
	bool changed;

	assert_outcome(
		f, f->b.ops->jobs->pause(&f->b, "a", true, "me", &changed, &f->e), STORE_DONE);
	assert_true(changed);
	assert_outcome(
		f, f->b.ops->jobs->pause(&f->b, "a", true, "me", &changed, &f->e), STORE_DONE);
	assert_false(changed);
	assert_int_equal(
		look(f, &f->a, (struct store_query){.what = STORE_READ_PAUSED})->job_count, 1);
	assert_int_equal(claim(f, &f->a, TERM, OWNER, of, STORE_DONE).answer, LEDGER_CLAIM_PAUSED);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 0);
	/* It was due and is not made up for once the job goes on. */
	assert_int_equal(the_job(f, "a").last_fire_us, HOUR);
	assert_true(the_job(f, "a").paused);
	/* By hand it runs all the same. */
	assert_outcome(f, f->b.ops->jobs->request(&f->b, "a", "me", &request, &f->e), STORE_DONE);
	of.cause = LEDGER_BY_REQUEST;
	of.request = request.id;
	of.key.fire_time_us = request.requested_us;
	assert_int_equal(claim(f, &f->a, TERM, OWNER, of, STORE_DONE).answer, LEDGER_CLAIM_DONE);
	assert_outcome(
		f, f->b.ops->jobs->pause(&f->b, "a", false, "", &changed, &f->e), STORE_DONE);
	assert_true(changed);
	of = firing("a", 2 * HOUR, LEDGER_RUNNING);
	assert_int_equal(claim(f, &f->a, TERM, OWNER, of, STORE_DONE).answer, LEDGER_CLAIM_DONE);
}

static struct ledger_request request_of(struct fixture *f, int64_t id)
{
	struct seen *s = look(
		f, &f->b, (struct store_query){.what = STORE_READ_REQUESTS, .request = id});

	assert_int_equal(s->request_count, 1);
	return s->requests[0];
}

static void a_request_is_run_once(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r, second;
	struct ledger_firing of = firing("a", 0, LEDGER_RUNNING);
	struct ledger_claimed got;
	struct ledger_update u;
	bool ring = false;

	assert_outcome(f, f->b.ops->jobs->request(&f->b, "a", "me@here", &r, &f->e), STORE_DONE);
	assert_outcome(
		f, f->b.ops->jobs->request(&f->b, "a", "me@here", &second, &f->e), STORE_DONE);
	assert_true(r.requested_us != second.requested_us);
	assert_int_equal(
		look(f, &f->a, (struct store_query){.what = STORE_READ_REQUESTS})->request_count,
		2);
	of.cause = LEDGER_BY_REQUEST;
	of.request = r.id;
	of.key.fire_time_us = r.requested_us;
	got = claim(f, &f->a, TERM, OWNER, of, STORE_DONE);
	assert_int_equal(got.answer, LEDGER_CLAIM_DONE);
	assert_int_equal(claim(f, &f->a, TERM, OWNER, of, STORE_DONE).answer, LEDGER_CLAIM_MINE);
	assert_int_equal(claim(f, &f->a, TERM, HEIR, of, STORE_DONE).answer, LEDGER_CLAIM_TAKEN);
	assert_int_equal(request_of(f, r.id).run, got.run);
	assert_false(request_of(f, r.id).pending);
	assert_string_equal(request_of(f, r.id).by, "me@here");
	u = update("a", r.requested_us, OWNER, LEDGER_OK);
	tell(f, &f->a, u, &ring);
	assert_true(ring); /* who asked for it may wait */
	assert_int_equal(the_job(f, "a").last_fire_us, 0);
	/* Too late to withdraw. */
	assert_outcome(f, f->b.ops->jobs->answer(&f->b, r.id, true, "", &f->e), STORE_REFUSED);
	/* Withdrawn in time, it is never run. */
	assert_outcome(f, f->b.ops->jobs->answer(&f->b, second.id, true, "", &f->e), STORE_DONE);
	of.request = second.id;
	of.key.fire_time_us = second.requested_us;
	assert_int_equal(claim(f, &f->a, TERM, OWNER, of, STORE_DONE).answer, LEDGER_CLAIM_TAKEN);
	assert_true(request_of(f, second.id).withdrawn);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 1);
}

static void a_request_is_refused_with_a_reason(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r;

	assert_outcome(f, f->b.ops->jobs->request(&f->b, "x", "me", &r, &f->e), STORE_DONE);
	assert_outcome(
		f, f->a.ops->jobs->answer(&f->a, r.id, false, "no such job", &f->e), STORE_DONE);
	assert_outcome(
		f, f->a.ops->jobs->answer(&f->a, r.id, false, "no such job", &f->e), STORE_DONE);
	assert_true(request_of(f, r.id).refused);
	assert_string_equal(request_of(f, r.id).reason, "no such job");
	assert_outcome(f, f->b.ops->jobs->answer(&f->b, r.id, true, "", &f->e), STORE_REFUSED);
	assert_outcome(f, f->b.ops->jobs->answer(&f->b, 999, true, "", &f->e), STORE_REFUSED);
	assert_says(f, "is not pending");
}

static void requests_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r;

	assert_int_equal(
		by_hand(f->database,
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
			" WHERE i < 1000) INSERT INTO job_request(job, requested_at, state)"
			" SELECT 'a', i, 'pending' FROM n"),
		SQLITE_OK);
	assert_outcome(f, f->b.ops->jobs->request(&f->b, "a", "me", &r, &f->e), STORE_REFUSED);
	assert_says(f, "1000 requests wait already");
}

/* --- trimming ------------------------------------------------------------------------------ */
static int trim(struct fixture *f, int64_t keep_us, int64_t keep_count)
{
	char cursor[LEDGER_NAME_BYTES] = "";
	bool more = true;
	int steps = 0;

	while (more) {
		assert_outcome(f,
			f->a.ops->jobs->trim(&f->a, keep_us, keep_count, cursor, &more, &f->e),
			STORE_DONE);
		assert_true(++steps < 1000);
	}
	return steps;
}

static void old_and_many_are_trimmed(void **state)
{
	struct fixture *f = *state;
	struct seen *s;

	for (int i = 1; i <= 20; i++) {
		claim(f, &f->a, TERM, OWNER, firing("a", i * HOUR, LEDGER_RUNNING), STORE_DONE);
		if (i != 3)
			tell(f, &f->a, update("a", i * HOUR, OWNER, LEDGER_OK), NULL);
	}
	claim(f, &f->a, TERM, OWNER, firing("b", HOUR, LEDGER_SKIPPED), STORE_DONE);
	trim(f, 0, 0);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 21);
	trim(f, 0, 5);
	s = look(f, &f->a,
		(struct store_query){.what = STORE_READ_RUNS, .job = "a", .oldest_first = true});
	assert_int_equal(s->run_count, 6); /* the newest five, and the one that runs */
	assert_int_equal(s->runs[0].key.fire_time_us, 3 * HOUR);
	assert_int_equal(s->runs[1].key.fire_time_us, 16 * HOUR);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 7);
	trim(f, HOUR, 0); /* all of them were claimed just now */
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 7);
	assert_int_equal(by_hand(f->database, "UPDATE job_run SET claimed_at = 1"), SQLITE_OK);
	trim(f, HOUR, 0);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 1);
	/* What was trimmed is known all the same. */
	assert_int_equal(the_job(f, "a").last_fire_us, 20 * HOUR);
	/* And numbers are not given twice. */
	assert_int_equal(
		claim(f, &f->a, TERM, OWNER, firing("b", 9 * HOUR, LEDGER_SKIPPED), STORE_DONE).run,
		22);
}

static void many_are_trimmed_in_steps(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(
		by_hand(f->database,
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
			" WHERE i < 3000) INSERT INTO job_run(job, fire_time, attempt, term,"
			" status, run, claimed_at) SELECT 'job' || (i % 100), i, 1, 1, 'ok', i,"
			" 1 FROM n; INSERT INTO job_state(job) SELECT DISTINCT job FROM"
			" job_run"),
		SQLITE_OK);
	assert_true(trim(f, 0, 10) > 4);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 1000);
	assert_true(trim(f, HOUR, 10) > 3);
	assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 0);
}

/* --- reading ------------------------------------------------------------------------------- */
static void the_last_run_of_each(void **state)
{
	struct fixture *f = *state;
	struct seen *s;

	for (int i = 1; i <= 3; i++) {
		claim(f, &f->a, TERM, OWNER, firing("a", i * HOUR, LEDGER_RUNNING), STORE_DONE);
		claim(f, &f->a, TERM, OWNER, firing("b", i * HOUR, LEDGER_RUNNING), STORE_DONE);
		if (i < 3)
			tell(f, &f->a, update("a", i * HOUR, OWNER, LEDGER_OK), NULL);
	}
	s = look(f, &f->a, (struct store_query){.what = STORE_READ_LAST});
	assert_int_equal(s->run_count, 1); /* b never ended */
	assert_string_equal(s->runs[0].key.job, "a");
	assert_int_equal(s->runs[0].key.fire_time_us, 2 * HOUR);
	s = look(f, &f->a, (struct store_query){.what = STORE_READ_RUNS, .limit = 2});
	assert_int_equal(s->run_count, 2);
	assert_true(s->runs[0].run > s->runs[1].run);
	s = look(f, &f->a,
		(struct store_query){.what = STORE_READ_RUNS, .since_us = INT64_C(1) << 60});
	assert_int_equal(s->run_count, 0);
}

static void without_a_database(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r;

	unlink(f->database);
	f->b.settings.create = false;
	assert_int_equal(look(f, &f->b, ALL_RUNS)->run_count, 0);
	assert_false(f->view.exists);
	assert_outcome(f, f->b.ops->jobs->request(&f->b, "a", "me", &r, &f->e), STORE_UNAVAILABLE);
	assert_says(f, "there is no lock database");
	assert_int_not_equal(access(f->database, F_OK), 0);
}

/* --- version 1 ----------------------------------------------------------------------------- */
/* As the baton before this one left it, with a claim that it made. */
static void make_version_1(struct fixture *f)
{
	assert_int_equal(
		by_hand(f->database,
			"DROP TABLE job_meta; DROP TABLE job_state; DROP TABLE job_pause;"
			"DROP TABLE job_request; DROP INDEX job_run_number; DROP INDEX "
			"job_run_open;"
			"ALTER TABLE job_run DROP COLUMN run;"
			"ALTER TABLE job_run DROP COLUMN program;"
			"ALTER TABLE job_run DROP COLUMN cause;"
			"ALTER TABLE job_run DROP COLUMN owner;"
			"ALTER TABLE job_run DROP COLUMN request;"
			"ALTER TABLE job_run DROP COLUMN claimed_at;"
			"ALTER TABLE job_run DROP COLUMN pid;"
			"ALTER TABLE job_run DROP COLUMN instance;"
			"ALTER TABLE job_run DROP COLUMN hostname;"
			"ALTER TABLE job_run DROP COLUMN worker;"
			"ALTER TABLE job_run DROP COLUMN output_bytes;"
			"ALTER TABLE job_run DROP COLUMN reason;"
			"INSERT INTO job_run(job, fire_time, attempt, term, started_at, status)"
			" VALUES ('old', 5, 1, 1001, 1000, 'claimed');"
			"PRAGMA user_version=1"),
		SQLITE_OK);
}

static void version_1_works_until_the_holder_adds_the_ledger(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r;
	struct seen *s;
	bool changed;

	make_version_1(f);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.schema_version, 1);
	assert_outcome(f, RENEW(f, f->a, EPOCH, TERM), STORE_DONE);
	assert_outcome(f, PROMOTE(f, f->a, EPOCH, TERM, TERM + 1, "web", "web:0"), STORE_DONE);
	/* Reading finds nothing; people's commands say what is missing; nothing is added. */
	assert_int_equal(look(f, &f->b, ALL_RUNS)->run_count, 0);
	assert_int_equal(f->view.schema_version, 1);
	assert_outcome(f, f->b.ops->jobs->request(&f->b, "a", "me", &r, &f->e), STORE_REFUSED);
	assert_says(f, "has no ledger of jobs yet");
	assert_outcome(
		f, f->b.ops->jobs->pause(&f->b, "a", true, "me", &changed, &f->e), STORE_REFUSED);
	/* Another instance's claim does not, ours does: it holds the lock. */
	assert_outcome(f, CLAIM(f, f->b, "web", TERM + 1, "mail", HOUR, 1), STORE_REFUSED);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.schema_version, 1);
	assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, "mail", HOUR, 1), STORE_DONE);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.schema_version, 2);
	s = look(f, &f->b, (struct store_query){.what = STORE_READ_RUNS, .oldest_first = true});
	assert_int_equal(s->run_count, 2);
	assert_string_equal(s->runs[0].key.job, "old");
	assert_int_equal(s->runs[0].status, LEDGER_CLAIMED);
	assert_true(s->runs[0].run != s->runs[1].run);
	/* What the older one claimed stays claimed. */
	assert_outcome(f, CLAIM(f, f->a, "web", TERM + 1, "old", 5, 1), STORE_REFUSED);
	assert_outcome(f, RENEW(f, f->a, EPOCH, TERM + 1), STORE_DONE);
}

static void acquire_adds_the_ledger(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r;

	make_version_1(f);
	assert_outcome(f, RELEASE(f, f->a, EPOCH, TERM), STORE_DONE);
	take(f, &f->b, 5000);
	assert_int_equal(f->view.schema_version, 2);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.schema_version, 2);
	assert_outcome(f, f->a.ops->jobs->request(&f->a, "a", "me", &r, &f->e), STORE_DONE);
}

static void a_declaration_adds_the_ledger(void **state)
{
	struct fixture *f = *state;
	struct ledger_declared d = {.job = "a", .schedule = "@daily"};

	make_version_1(f);
	assert_outcome(f, f->b.ops->jobs->declare(&f->b, &d, 1, 1, true, &f->e), STORE_REFUSED);
	assert_outcome(f, f->a.ops->jobs->declare(&f->a, &d, 1, 1, true, &f->e), STORE_DONE);
	assert_true(the_job(f, "a").known_since_us > 0);
}

static void a_step_of_the_schema_is_taken_whole(void **state)
{
	struct fixture *f = *state;

	make_version_1(f);
	/* The last statement of the step fails: nothing of it stays. */
	assert_int_equal(by_hand(f->database, "CREATE TABLE job_request(x)"), SQLITE_OK);
	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_RUNNING), STORE_WRONG);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.schema_version, 1);
	assert_outcome(f, RENEW(f, f->a, EPOCH, TERM), STORE_DONE);
	assert_int_equal(by_hand(f->database, "DROP TABLE job_request"), SQLITE_OK);
	claim(f, &f->a, TERM, OWNER, firing("a", HOUR, LEDGER_RUNNING), STORE_DONE);
}

static void a_database_that_can_only_be_read(void **state)
{
	struct fixture *f = *state;
	struct ledger_request r;

	if (geteuid() != 0) { /* root writes anyway */
		chmod(f->database, 0444);
		assert_outcome(
			f, f->a.ops->jobs->request(&f->a, "a", "me", &r, &f->e), STORE_UNAVAILABLE);
		assert_says(f, "give this user the right to write");
		assert_int_equal(look(f, &f->a, ALL_RUNS)->run_count, 0);
		chmod(f->database, 0644);
	}
	assert_int_equal(by_hand(f->database, "PRAGMA user_version=3"), SQLITE_OK);
	assert_outcome(f, f->a.ops->jobs->request(&f->a, "a", "me", &r, &f->e), STORE_WRONG);
	assert_says(f, "upgrade this baton");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_firing_is_claimed_once),
		TEST(nobody_else_claims),
		TEST(a_batch_is_one_transaction),
		TEST(what_never_starts_has_ended),
		TEST(claims_of_an_application),
		TEST(claims_of_applications_are_trimmed),
		TEST(from_claim_to_end),
		TEST(an_exit_status_of_zero_is_one),
		TEST(the_owner_alone_tells),
		TEST(the_demoted_finishes_what_runs),
		TEST(the_successor_marks_what_was_cut_off),
		TEST(the_successor_owns_what_it_runs),
		TEST(what_is_known_of_a_job),
		TEST(paused_jobs_are_not_claimed),
		TEST(a_request_is_run_once),
		TEST(a_request_is_refused_with_a_reason),
		TEST(requests_are_bounded),
		TEST(old_and_many_are_trimmed),
		TEST(many_are_trimmed_in_steps),
		TEST(the_last_run_of_each),
		TEST(without_a_database),
		TEST(version_1_works_until_the_holder_adds_the_ledger),
		TEST(acquire_adds_the_ledger),
		TEST(a_declaration_adds_the_ledger),
		TEST(a_step_of_the_schema_is_taken_whole),
		TEST(a_database_that_can_only_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

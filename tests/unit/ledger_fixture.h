/*
 * For the tests of the ledger: a database whose lock instance a holds, with an executor of the
 * program `jobs` under term 1001; and the shortest form of each record.
 */
#ifndef BATON_TESTS_UNIT_LEDGER_FIXTURE_H
#define BATON_TESTS_UNIT_LEDGER_FIXTURE_H

#include "tests/unit/lock_fixture.h"

enum { EPOCH = 1000, TERM = 1001, OWNER = 77, HEIR = 88 };
#define HOUR ((int64_t)3600 * 1000000)

__attribute__((unused)) static void ledger_fixture(struct fixture *f)
{
	fixture_stores(f, false);
	take(f, &f->a, EPOCH);
	assert_outcome(
		f, PROMOTE(f, f->a, EPOCH, EPOCH, TERM, LEDGER_PROGRAM, "jobs:0"), STORE_DONE);
}

__attribute__((unused)) static struct ledger_claimant claimant(int64_t term, int64_t owner)
{
	struct ledger_claimant who = {.term = term, .owner = owner, .pid = 5};

	snprintf(who.program, sizeof(who.program), "%s", LEDGER_PROGRAM);
	snprintf(who.worker, sizeof(who.worker), "jobs:0");
	return who;
}

__attribute__((unused)) static struct ledger_firing firing(
	const char *job, int64_t at, enum ledger_status status)
{
	struct ledger_firing f = {.status = status, .cause = LEDGER_BY_SCHEDULE};

	snprintf(f.key.job, sizeof(f.key.job), "%s", job);
	f.key.fire_time_us = at;
	f.key.attempt = 1;
	return f;
}

__attribute__((unused)) static struct ledger_update update(
	const char *job, int64_t at, int64_t owner, enum ledger_status status)
{
	struct ledger_update u = {.owner = owner, .status = status, .exit_code = -1};

	snprintf(u.key.job, sizeof(u.key.job), "%s", job);
	u.key.fire_time_us = at;
	u.key.attempt = 1;
	return u;
}

/* What a claim of one firing answers; the outcome must be as wanted. */
__attribute__((unused)) static struct ledger_claimed claim(struct fixture *f, struct store *s,
	int64_t term, int64_t owner, struct ledger_firing of, enum store_outcome wanted)
{
	struct ledger_claimant who = claimant(term, owner);
	struct ledger_claimed got;

	assert_outcome(f, s->ops->jobs->claim(s, &who, &of, 1, &got, &f->e), wanted);
	return got;
}

__attribute__((unused)) static enum ledger_updated tell(
	struct fixture *f, struct store *s, struct ledger_update u, bool *ret_ring)
{
	enum ledger_updated got;
	bool ring;

	assert_outcome(f, s->ops->jobs->update(s, &u, 1, &got, ret_ring ? ret_ring : &ring, &f->e),
		STORE_DONE);
	return got;
}

/* --- reading ------------------------------------------------------------------------------- */
enum { SEEN = 64 };
struct seen {
	struct ledger_run runs[SEEN];
	struct ledger_job jobs[SEEN];
	struct ledger_declared declared[SEEN];
	char instances[SEEN][STORE_ID_BYTES];
	struct ledger_request requests[SEEN];
	int run_count, job_count, request_count;
	char output[256];
	size_t output_bytes;
};

static bool see_run(const struct ledger_run *r, void *context)
{
	struct seen *s = context;

	if (s->run_count < SEEN)
		s->runs[s->run_count] = *r;
	s->run_count++;
	return true;
}

static bool see_job(const struct ledger_job *j, const struct ledger_declared *d,
	const char *instance, const char *hostname, void *context)
{
	struct seen *s = context;

	(void)hostname;
	if (s->job_count < SEEN) {
		snprintf(s->instances[s->job_count], STORE_ID_BYTES, "%s", instance);
		s->jobs[s->job_count] = *j;
		s->declared[s->job_count] = *d;
	}
	s->job_count++;
	return true;
}

static bool see_request(const struct ledger_request *r, void *context)
{
	struct seen *s = context;

	if (s->request_count < SEEN)
		s->requests[s->request_count] = *r;
	s->request_count++;
	return true;
}

static bool see_output(const struct ledger_run *r, const void *bytes, size_t count, void *context)
{
	struct seen *s = context;

	(void)r;
	s->output_bytes = count;
	if (count > 0 && count < sizeof(s->output))
		memcpy(s->output, bytes, count);
	return true;
}

/* Valid until the next call. */
__attribute__((unused)) static struct seen *look(
	struct fixture *f, struct store *s, struct store_query query)
{
	static struct seen seen;
	struct store_reader reader = {.on_run = see_run,
		.on_job = see_job,
		.on_request = see_request,
		.on_output = see_output,
		.context = &seen};

	memset(&seen, 0, sizeof(seen));
	assert_outcome(f, s->ops->jobs->read(s, &query, &reader, &f->view, &f->e), STORE_DONE);
	return &seen;
}

__attribute__((unused)) static struct ledger_run the_run(
	struct fixture *f, const char *job, int64_t at)
{
	struct seen *s = look(f, &f->a, (struct store_query){.what = STORE_READ_RUNS, .job = job});

	for (int i = 0; i < s->run_count; i++) {
		if (s->runs[i].key.fire_time_us == at)
			return s->runs[i];
	}
	fail_msg("no run of %s at %lld", job, (long long)at);
	return (struct ledger_run){.run = 0};
}

#endif

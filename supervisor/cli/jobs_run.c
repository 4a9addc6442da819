/* jobs run: ask the executor for one run now, and wait for its end. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/cli/jobs_ledger.h"
#include "supervisor/cli/output.h"
#include "worker/lock/jobs_file.h"

/* The bell rings for what the executor does; that it is gone rings nothing: looked at so often. */
enum { LOOK_MS = 5000 };

struct waiting {
	struct cli *c;
	struct lock_site *site;
	struct ledger_request request;
	int64_t end_ms; /* of our patience; -1 = none */
	int inotify;
	int fail;               /* exit status of our own failures */
	int told;               /* attempts whose failure was said */
	struct ledger_run run;  /* without --wait: as it was claimed; run 0 = not known */
	int64_t alone_since_ms; /* there is no executor since then; 0 = there is one */
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- the end of a run ---------------------------------------------------------------------- */
/* As a shell would say it. */
static int status_of(const struct ledger_run *r)
{
	switch (r->status) {
	case LEDGER_OK:
		return CLI_OK;
	case LEDGER_LOST:
	case LEDGER_INTERRUPTED:
		return CLI_LEASE_LOST;
	case LEDGER_NOT_STARTED:
		return r->exit_code > 0 ? r->exit_code : CLI_NOT_EXECUTABLE;
	default:
		break;
	}
	if (r->signal > 0)
		return 128 + r->signal;
	return r->exit_code > 0 ? r->exit_code : CLI_OWN_FAILURE;
}

static int report(struct waiting *w, const struct jobs_found *f)
{
	const struct ledger_run *r = &f->runs[0];
	char text[LEDGER_TEXT_BYTES + 64];

	if (cli_has(w->c, OPTION_JSON)) {
		json_t *document = jobs_run_json(r);
		output_json(document);
		json_decref(document);
	} else {
		jobs_print_output(w->c, r, f);
		fflush(stdout);
	}
	if (r->status != LEDGER_OK)
		cli_fail(w->c, 0, jobs_result_hint(r), "run %lld of '%s': %s", (long long)r->run,
			r->key.job, jobs_result_text(r, text, sizeof(text)));
	return status_of(r);
}

/* --- waiting ------------------------------------------------------------------------------- */
static int ring_of(struct waiting *w)
{
	const char *database = w->site->store.settings.database;
	struct err e;
	int watch;

	w->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->inotify < 0)
		return cli_fail(w->c, w->fail, NULL, "cannot wait: inotify: %s", strerror(errno));
	if (jobs_file_watch(database, w->inotify, &watch, &e) == 0)
		return 0;
	return cli_fail(w->c, w->fail, NULL, "%s", e.text);
}

/* Until somebody rings, or it is time to look. The file may have been removed meanwhile. */
static void wait_ring(struct waiting *w)
{
	struct pollfd p = {.fd = w->inotify, .events = POLLIN};
	int64_t left = w->end_ms < 0 ? LOOK_MS : w->end_ms - now_ms();
	char events[4096];
	int watch;

	if (left > LOOK_MS)
		left = LOOK_MS;
	if (poll(&p, 1, left < 0 ? 0 : (int)left) <= 0)
		return;
	while (read(w->inotify, events, sizeof(events)) > 0)
		continue;
	(void)jobs_file_watch(w->site->store.settings.database, w->inotify, &watch, NULL);
}

static void withdraw(struct waiting *w)
{
	struct err e;

	(void)w->site->store.ops->jobs->answer(
		&w->site->store, w->request.id, true, "nobody waits for it any more", &e);
}

/* The attempts so far: one that is followed by another is said and not the end. (The next one is in
 * the ledger before the end of this one.) 0: the last one is open. */
static int look_at_attempts(struct waiting *w, const struct ledger_request *asked, int *ret_status)
{
	struct store_query attempts = {.what = STORE_READ_RUNS,
		.job = asked->job,
		.fire_us = asked->requested_us,
		.oldest_first = true};
	struct store_query last = {.what = STORE_READ_RUNS | STORE_READ_OUTPUT, .limit = 1};
	struct jobs_found f = {.run_count = 0}, found = {.run_count = 0};
	char text[LEDGER_TEXT_BYTES + 64];
	int over = 1;

	if (jobs_read(w->c, w->site, &attempts, &f) != 0)
		goto out;
	for (size_t i = 0; i < f.run_count; i++) {
		const struct ledger_run *r = &f.runs[i];

		last.run = r->run;
		w->request.run = r->run;
		if (ledger_status_is_open(r->status)) {
			over = 0;
		} else if (i + 1 < f.run_count && r->key.attempt > w->told) {
			cli_fail(w->c, 0, NULL, "run %lld of '%s': %s; attempt %d follows",
				(long long)r->run, r->key.job,
				jobs_result_text(r, text, sizeof(text)), r->key.attempt + 1);
			w->told = r->key.attempt;
		}
	}
	if (!over)
		goto out;
	if (f.run_count == 0)
		cli_fail(w->c, 0, NULL, "run %lld is not in the ledger any more",
			(long long)asked->run);
	else if (jobs_read(w->c, w->site, &last, &found) == 0 && found.run_count > 0)
		*ret_status = report(w, &found);
out:
	jobs_found_release(&f);
	jobs_found_release(&found);
	return over;
}

/* What stands there now. 1: it is over, *RET_STATUS is the exit status. */
static int look(struct waiting *w, bool until_end, int *ret_status)
{
	struct store_query request = {.what = STORE_READ_REQUESTS, .request = w->request.id};
	struct jobs_found f = {.run_count = 0};
	int over = 1;

	*ret_status = w->fail;
	if (jobs_read(w->c, w->site, &request, &f) != 0) {
		over = 1;
	} else if (f.request_count == 0) {
		cli_fail(w->c, 0, NULL, "the request is gone: was the database replaced?");
	} else if (f.requests[0].refused) {
		cli_fail(w->c, 0, NULL, "refused: %s", f.requests[0].reason);
	} else if (f.requests[0].pending) {
		over = 0;
	} else {
		w->request.pending = false;
		w->request.run = f.requests[0].run;
		if (until_end)
			over = look_at_attempts(w, &f.requests[0], ret_status);
		else
			*ret_status = 0;
	}
	jobs_found_release(&f);
	return over;
}

/* Nobody is there who could run it: for longer than a takeover takes, that is the end. */
static bool is_alone(struct waiting *w)
{
	const struct store_row *row = &w->site->view.row;
	int64_t patience = row->ttl_ms > 0 ? 2 * row->ttl_ms : 60000;

	if (lock_look(w->c, w->site) != 0 || jobs_executor(w->site)) {
		w->alone_since_ms = 0;
		return false;
	}
	if (w->alone_since_ms == 0)
		w->alone_since_ms = now_ms();
	/* With --timeout the one who asks has said how long. */
	return w->end_ms < 0 && now_ms() - w->alone_since_ms >= patience;
}

static int give_up(struct waiting *w, const char *why)
{
	if (!w->request.pending && w->request.run > 0)
		return cli_fail(w->c, w->fail, "`baton jobs history` shows how it ends",
			"run %lld has not ended: %s", (long long)w->request.run, why);
	withdraw(w);
	return cli_fail(w->c, w->fail, NULL, "it was not run: %s; the request is withdrawn", why);
}

/* It is claimed; more where more is known of it: that it does not run at all, or its end. */
static int report_claimed(struct waiting *w)
{
	struct store_query query = {
		.what = STORE_READ_RUNS, .run = w->request.run, .job = w->request.job, .limit = 1};
	const struct ledger_run *r = &w->run;
	struct jobs_found f = {.run_count = 0};
	char text[LEDGER_TEXT_BYTES + 64];
	bool over;

	if (jobs_read(w->c, w->site, &query, &f) == 0 && f.run_count > 0)
		w->run = f.runs[0];
	jobs_found_release(&f);
	over = r->run > 0 && !ledger_status_is_open(r->status);
	if (over && !jobs_has_started(r))
		return cli_fail(w->c, CLI_FAILED, jobs_result_hint(r), "run %lld of '%s': %s",
			(long long)r->run, r->key.job, jobs_result_text(r, text, sizeof(text)));
	if (!cli_has(w->c, OPTION_JSON))
		printf("%s: run %lld%s%s\n", w->request.job, (long long)w->request.run,
			over ? ": " : "", over ? jobs_result_text(r, text, sizeof(text)) : "");
	return 0;
}

static int wait_for(struct waiting *w, bool until_end)
{
	int status;

	while (!look(w, until_end, &status)) {
		if (w->end_ms >= 0 && now_ms() >= w->end_ms)
			return give_up(
				w, jobs_executor(w->site)
					   ? "--timeout has passed"
					   : "no instance runs jobs, and --timeout has passed");
		if (is_alone(w))
			return give_up(w, "no instance runs jobs any more");
		wait_ring(w);
	}
	return status == 0 && !until_end ? report_claimed(w) : status;
}

/* --- asking -------------------------------------------------------------------------------- */
static int check(struct waiting *w, const char *name)
{
	struct store_query known = {.what = STORE_READ_JOBS};
	struct jobs_found f = {.run_count = 0};
	const struct jobs_known *k;
	int rc = jobs_read(w->c, w->site, &known, &f);

	if (rc == 0)
		rc = jobs_must_exist(w->c, w->site, &f, name);
	k = jobs_find_known(&f, name);
	if (rc == 0 && k && k->declared.schedule[0] == '\0' &&
		(!w->site->config || config_find_job(w->site->config, name) < 0))
		rc = cli_fail(w->c, CLI_FAILED, NULL,
			"'%s' is run by an application itself: baton cannot run it", name);
	jobs_found_release(&f);
	if (rc != 0)
		return w->fail;
	if (w->end_ms >= 0 || jobs_executor(w->site))
		return 0;
	return cli_fail(w->c, w->fail == CLI_OWN_FAILURE ? CLI_OWN_FAILURE : CLI_NOT_RUNNING,
		"start one, or say with --timeout how long to wait for one",
		"no instance runs jobs now: nobody would run '%s'", name);
}

static int ask(struct waiting *w, const char *name)
{
	char by[LEDGER_NAME_BYTES];
	struct err e = {.text = ""};
	enum store_outcome outcome;

	jobs_who_asks(by, sizeof(by));
	outcome = w->site->store.ops->jobs->request(&w->site->store, name, by, &w->request, &e);
	if (outcome != STORE_DONE)
		return jobs_fail_store(
			w->c, outcome, &e, w->fail == CLI_OWN_FAILURE ? CLI_OWN_FAILURE : 0);
	jobs_ring(w->c, w->site);
	return 0;
}

static int run(struct waiting *w, const char *name)
{
	bool wait = cli_has(w->c, OPTION_WAIT);
	int rc = check(w, name);

	if (rc == 0 && (wait || w->end_ms >= 0))
		rc = ring_of(w); /* before the request: nothing is missed */
	if (rc == 0)
		rc = ask(w, name);
	if (rc == 0 && (wait || w->end_ms >= 0))
		return wait_for(w, wait);
	if (rc == 0 && !cli_has(w->c, OPTION_JSON))
		printf("%s: requested; `baton jobs history %s` shows how it goes\n", name, name);
	return rc;
}

static void print_request(const struct waiting *w)
{
	json_t *document = json_pack("{s:I, s:s, s:o, s:s?}", "request", (json_int_t)w->request.id,
		"job", w->request.job, "run",
		w->request.run > 0 ? json_integer(w->request.run) : json_null(), "status",
		w->run.run > 0 ? ledger_status_name(w->run.status) : NULL);

	output_json(document);
	json_decref(document);
}

int jobs_run(struct cli *c)
{
	struct lock_site site;
	struct waiting w = {.c = c, .site = &site, .end_ms = -1, .inotify = -1};
	int64_t timeout;
	int rc = cli_timeout(c, &timeout);

	if (rc != 0)
		return rc;
	if (c->word_count < 1)
		return cli_usage(c, "which job? baton jobs run NAME");
	/* A status that the job itself could have must be its own. */
	w.fail = cli_has(c, OPTION_WAIT) ? CLI_OWN_FAILURE : CLI_FAILED;
	if (timeout >= 0)
		w.end_ms = now_ms() + timeout;
	rc = jobs_open(c, &site, cli_has(c, OPTION_WAIT) ? CLI_OWN_FAILURE : 0);
	if (rc != 0)
		return rc;
	rc = run(&w, c->words[0]);
	if ((rc == 0 || w.run.run > 0) && cli_has(c, OPTION_JSON) && !cli_has(c, OPTION_WAIT))
		print_request(&w);
	if (w.inotify >= 0)
		close(w.inotify);
	lock_close(&site);
	return rc;
}

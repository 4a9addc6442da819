#include "supervisor/cli/jobs_ledger.h"

#include <stdlib.h>
#include <string.h>

#include "conf/units.h"
#include "supervisor/cli/output.h"
#include "worker/lock/jobs_file.h"

/* --- reading ------------------------------------------------------------------------------- */
/* Room for one more; doubled from 64 on, so COUNT tells when it is full. */
static void *one_more(struct jobs_found *f, void *items, size_t count, size_t bytes)
{
	void *larger = items;

	if (count == 0 || (count >= 64 && (count & (count - 1)) == 0))
		larger = realloc(items, (count ? count * 2 : 64) * bytes);
	if (!larger)
		f->no_memory = true;
	return larger;
}

static bool on_run(const struct ledger_run *r, void *context)
{
	struct jobs_found *f = context;
	void *larger = one_more(f, f->runs, f->run_count, sizeof(*f->runs));

	if (!larger)
		return false;
	f->runs = larger;
	f->runs[f->run_count++] = *r;
	return true;
}

static bool on_job(const struct ledger_job *j, const struct ledger_declared *declared,
	const char *instance, const char *hostname, void *context)
{
	struct jobs_found *f = context;
	void *larger = one_more(f, f->jobs, f->job_count, sizeof(*f->jobs));

	if (!larger)
		return false;
	f->jobs = larger;
	f->jobs[f->job_count].job = *j;
	f->jobs[f->job_count].declared = *declared;
	snprintf(f->jobs[f->job_count].instance, STORE_ID_BYTES, "%s", instance);
	snprintf(f->jobs[f->job_count].hostname, LEDGER_NAME_BYTES, "%s", hostname);
	f->job_count++;
	return true;
}

static bool on_request(const struct ledger_request *r, void *context)
{
	struct jobs_found *f = context;
	void *larger = one_more(f, f->requests, f->request_count, sizeof(*f->requests));

	if (!larger)
		return false;
	f->requests = larger;
	f->requests[f->request_count++] = *r;
	return true;
}

bool jobs_has_started(const struct ledger_run *r)
{
	if (r->status == LEDGER_CANCELLED || r->status == LEDGER_REPLACED)
		return r->started_us > 0;
	return r->status != LEDGER_SKIPPED && r->status != LEDGER_MISSED &&
	       r->status != LEDGER_QUEUED && r->status != LEDGER_CLAIMED;
}

/* The newest that may have written something: what runs is written down at its end. */
static bool on_output(const struct ledger_run *r, const void *bytes, size_t count, void *context)
{
	struct jobs_found *f = context;

	if (!jobs_has_started(r) || ledger_status_is_open(r->status))
		return true;
	f->output = malloc(count + 1);
	if (!f->output) {
		f->no_memory = true;
		return false;
	}
	if (count > 0)
		memcpy(f->output, bytes, count);
	f->output_bytes = count;
	return false;
}

int jobs_fail_store(struct cli *c, enum store_outcome outcome, const struct err *e, int status)
{
	int usual = outcome == STORE_WRONG     ? CLI_CONFIG
		    : outcome == STORE_REFUSED ? CLI_REFUSED
					       : CLI_FAILED;

	return cli_fail(c, status ? status : usual, NULL, "%s",
		e->text[0] ? e->text : store_outcome_name(outcome));
}

int jobs_read(struct cli *c, struct lock_site *site, const struct store_query *query,
	struct jobs_found *found)
{
	struct store_reader reader = {.on_run = on_run,
		.on_job = on_job,
		.on_request = on_request,
		.on_output = on_output,
		.context = found};
	struct err e = {.text = ""};
	enum store_outcome outcome = site->store.ops->jobs->read(
		&site->store, query, &reader, &site->view, &e);

	if (outcome != STORE_DONE)
		return jobs_fail_store(c, outcome, &e, 0);
	return found->no_memory ? cli_fail(c, CLI_FAILED, NULL, "out of memory") : 0;
}

void jobs_found_release(struct jobs_found *f)
{
	free(f->runs);
	free(f->jobs);
	free(f->requests);
	free(f->output);
	memset(f, 0, sizeof(*f));
}

int jobs_open(struct cli *c, struct lock_site *ret, int status)
{
	int rc = lock_open(c, ret);

	return rc != 0 && status != 0 ? status : rc;
}

/* --- who is there -------------------------------------------------------------------------- */
const struct jobs_known *jobs_find_known(const struct jobs_found *f, const char *name)
{
	for (size_t i = 0; i < f->job_count; i++) {
		if (strcmp(f->jobs[i].job.job, name) == 0)
			return &f->jobs[i];
	}
	return NULL;
}

int jobs_must_exist(
	struct cli *c, const struct lock_site *site, const struct jobs_found *f, const char *name)
{
	const struct config *config = site->config;
	size_t own = config ? config->job_count : 0;
	const char *best = NULL;
	int distance = 3;

	if ((config && config_find_job(config, name) >= 0) || jobs_find_known(f, name))
		return 0;
	for (size_t i = 0; i < own + f->job_count; i++) {
		const char *other = i < own ? config->jobs[i].name : f->jobs[i - own].job.job;
		int d = units_distance(name, other, distance);
		if (d < distance) {
			distance = d;
			best = other;
		}
	}
	return cli_fail(c, CLI_FAILED, "`baton jobs` lists all of them",
		"there is no job '%s' in '%s', nor in the ledger%s%s%s", name, site->path,
		best ? "; did you mean '" : "", best ? best : "", best ? "'?" : "");
}

const struct store_executor *jobs_executor(const struct lock_site *site)
{
	const struct store_view *v = &site->view;

	if (!v->exists || !v->row.held || site->life == LIFE_DEAD || site->life == LIFE_GONE)
		return NULL;
	for (size_t i = 0; i < v->executor_count; i++) {
		if (strcmp(v->executors[i].program, LEDGER_PROGRAM) == 0)
			return &v->executors[i];
	}
	return NULL;
}

void jobs_ring(struct cli *c, const struct lock_site *site)
{
	struct err e;

	if (jobs_file_ring_beside(site->store.settings.database, &e) != 0)
		cli_fail(c, 0, NULL, "%s", e.text);
}

/* --- runs ---------------------------------------------------------------------------------- */
char *jobs_result_text(const struct ledger_run *r, char *buf, size_t bytes)
{
	const char *name = ledger_status_name(r->status);
	char signal[16];

	if (r->status == LEDGER_FAILED && r->exit_code >= 0)
		snprintf(buf, bytes, "%s: exit status %d", name, r->exit_code);
	else if (r->status == LEDGER_KILLED && r->signal > 0)
		snprintf(buf, bytes, "%s: %s", name,
			units_signal_name(r->signal, signal, sizeof(signal)));
	else if (r->reason[0])
		snprintf(buf, bytes, "%s: %s", name, r->reason);
	else if (r->status == LEDGER_SKIPPED)
		snprintf(buf, bytes, "%s: the one before still ran", name);
	else
		snprintf(buf, bytes, "%s", name);
	return buf;
}

const char *jobs_result_hint(const struct ledger_run *r)
{
	if (r->status != LEDGER_SKIPPED)
		return NULL;
	return "wait until that has ended (see `baton jobs`), or set overlap = queue";
}

int64_t jobs_begun_us(const struct ledger_run *r)
{
	return r->started_us > 0 ? r->started_us : r->claimed_us;
}

enum output_colour jobs_result_colour(const struct ledger_run *r)
{
	if (r->status == LEDGER_OK)
		return GOOD;
	if (ledger_status_is_failure(r->status))
		return BAD;
	return ledger_status_is_open(r->status) ? STRONG : CAREFUL;
}

int64_t jobs_took_ms(const struct ledger_run *r)
{
	if (r->started_us <= 0 || r->ended_us <= 0)
		return -1;
	return r->ended_us > r->started_us ? (r->ended_us - r->started_us) / 1000 : 0;
}

json_t *jobs_time_json(int64_t us)
{
	char text[64];

	return us > 0 ? json_string(output_time(us, text, sizeof(text))) : json_null();
}

static json_t *number_json(bool known, int64_t number)
{
	return known ? json_integer(number) : json_null();
}

json_t *jobs_run_json(const struct ledger_run *r)
{
	int64_t took = jobs_took_ms(r);
	char text[16];
	const char *signal = r->signal > 0 ? units_signal_name(r->signal, text, sizeof(text))
					   : NULL;

	return json_pack("{s:I, s:s, s:o, s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s?, s:I, s:s,"
			 " s:s, s:s, s:s, s:o, s:I, s:I, s:s}",
		"run", (json_int_t)r->run, "job", r->key.job, "fire_time",
		jobs_time_json(r->key.fire_time_us), "attempt", r->key.attempt, "cause",
		ledger_cause_name(r->cause), "status", ledger_status_name(r->status), "claimed_at",
		jobs_time_json(r->claimed_us), "started_at", jobs_time_json(r->started_us),
		"ended_at", jobs_time_json(r->ended_us), "duration_ms",
		number_json(took >= 0, took), "exit_code",
		number_json(r->exit_code >= 0, r->exit_code), "signal", signal, "term",
		(json_int_t)r->term, "program", r->program, "instance", r->instance, "hostname",
		r->hostname, "worker", r->worker, "pid", number_json(r->pid > 0, r->pid),
		"output_bytes", (json_int_t)r->output_bytes, "output_kept",
		(json_int_t)r->output_kept, "reason", r->reason);
}

/*
 * The ledger as the commands of the terminal see it: read from the database, with or without an
 * instance running; and runs as words and as JSON.
 */
#ifndef BATON_CLI_JOBS_LEDGER_H
#define BATON_CLI_JOBS_LEDGER_H

#include "supervisor/cli/jobs.h"
#include "supervisor/cli/lock.h"
#include "worker/lock/store.h"

struct jobs_known { /* a job that the ledger has heard of */
	struct ledger_job job;
	struct ledger_declared declared;
	/* who declared it last; "" = nobody did, or its file has it no longer */
	char instance[STORE_ID_BYTES], hostname[LEDGER_NAME_BYTES];
};

struct jobs_found { /* arrays of this process's memory; jobs in the order of their names */
	struct ledger_run *runs;
	struct jobs_known *jobs;
	struct ledger_request *requests;
	size_t run_count, job_count, request_count;
	char *output; /* of the last run that was read with its output */
	size_t output_bytes;
	bool no_memory;
};

/* As lock_open. STATUS is the exit status for whatever goes wrong, 0 = the usual ones. */
int jobs_open(struct cli *c, struct lock_site *ret, int status);
/* Append what QUERY finds; SITE's view becomes that of the same moment. 0 or the exit status, after
 * a message. */
int jobs_read(struct cli *c, struct lock_site *site, const struct store_query *query,
	struct jobs_found *found);
void jobs_found_release(struct jobs_found *f);
const struct jobs_known *jobs_find_known(const struct jobs_found *f, const char *name);
/* Is NAME in the file or in the ledger? 0, or CLI_FAILED after a message that names a near one.
 * FOUND holds the jobs of the ledger. */
int jobs_must_exist(
	struct cli *c, const struct lock_site *site, const struct jobs_found *f, const char *name);
/* The executor that runs the jobs, as far as the row and the guard tell; NULL = there is none. */
const struct store_executor *jobs_executor(const struct lock_site *site);
/* Ring the job worker; a warning when it cannot be rung. */
void jobs_ring(struct cli *c, const struct lock_site *site);
/* What went wrong with the store, as a message; the exit status. */
int jobs_fail_store(struct cli *c, enum store_outcome outcome, const struct err *e, int status);

/* "root@host" */
void jobs_who_asks(char *buf, size_t bytes);
/* What RUN wrote, as it is, to standard output; how much was not kept, to standard error. */
int jobs_print_output(struct cli *c, const struct ledger_run *run, const struct jobs_found *found);

/* "ok", "failed: exit status 3", "killed: KILL" */
char *jobs_result_text(const struct ledger_run *r, char *buf, size_t bytes);
/* What one who asked for it can do about it; NULL = nothing that is not plain. */
const char *jobs_result_hint(const struct ledger_run *r);
bool jobs_has_started(const struct ledger_run *r); /* or runs */
int64_t jobs_begun_us(const struct ledger_run *r); /* when; of one that did not, its claim */
enum output_colour jobs_result_colour(const struct ledger_run *r);
int64_t jobs_took_ms(const struct ledger_run *r); /* -1: it did not run, or runs still */
json_t *jobs_run_json(const struct ledger_run *r);
json_t *jobs_time_json(int64_t us); /* RFC 3339 in UTC, or null */

#endif

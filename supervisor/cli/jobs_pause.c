/* jobs pause, jobs resume: kept in the database, obeyed by every instance. */
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/jobs_ledger.h"
#include "supervisor/cli/output.h"

void jobs_who_asks(char *buf, size_t bytes)
{
	const struct passwd *user = getpwuid(getuid());
	char host[LEDGER_NAME_BYTES / 2] = "";

	gethostname(host, sizeof(host) - 1);
	if (user)
		snprintf(buf, bytes, "%.60s@%s", user->pw_name, host);
	else
		snprintf(buf, bytes, "uid %d@%s", (int)getuid(), host);
}

static int pause_one(struct cli *c, struct lock_site *site, const char *name, bool paused)
{
	char by[LEDGER_NAME_BYTES];
	struct err e = {.text = ""};
	enum store_outcome outcome;
	bool changed;

	jobs_who_asks(by, sizeof(by));
	outcome = site->store.ops->jobs->pause(&site->store, name, paused, by, &changed, &e);
	if (outcome != STORE_DONE)
		return jobs_fail_store(c, outcome, &e, 0);
	if (!cli_has(c, OPTION_JSON))
		printf("%s: %s%s\n", name,
			changed  ? ""
			: paused ? "was "
				 : "was not ",
			changed && !paused ? "resumed" : "paused");
	return 0;
}

static int pause_all(struct cli *c, bool paused)
{
	struct store_query known = {.what = STORE_READ_JOBS | STORE_READ_PAUSED};
	struct jobs_found f = {.run_count = 0};
	json_t *names = json_array();
	struct lock_site site;
	int rc;

	if (c->word_count < 1)
		return cli_usage(c, "which job? baton %s NAME...", c->name);
	rc = jobs_open(c, &site, 0);
	if (rc != 0)
		return rc;
	rc = jobs_read(c, &site, &known, &f);
	/* All or none: a misspelt name changes nothing. */
	for (int i = 0; i < c->word_count && rc == 0; i++)
		rc = jobs_must_exist(c, &site, &f, c->words[i]);
	for (int i = 0; i < c->word_count && rc == 0; i++) {
		rc = pause_one(c, &site, c->words[i], paused);
		json_array_append_new(names, json_string(c->words[i]));
	}
	if (rc == 0) {
		jobs_ring(c, &site);
		if (cli_has(c, OPTION_JSON))
			rc = output_json(names);
	}
	json_decref(names);
	jobs_found_release(&f);
	lock_close(&site);
	return rc;
}

int jobs_pause(struct cli *c)
{
	return pause_all(c, true);
}

int jobs_resume(struct cli *c)
{
	return pause_all(c, false);
}

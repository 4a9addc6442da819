/* jobs: the table of its verbs. */
#include "supervisor/cli/jobs.h"

#include <stdio.h>
#include <string.h>

#include "conf/units.h"

#define FIND (CLI_BIT(CONFIG) | CLI_BIT(SOCKET) | CLI_BIT(NATIVE) | CLI_BIT(COMPAT))

static const struct jobs_verb verbs[] = {
	{"", jobs_table, "", CLI_BIT(JSON), 0},
	{"next", jobs_next, "[-n N] [--from TIME] [NAME...]",
		CLI_BIT(LIMIT) | CLI_BIT(FROM) | CLI_BIT(JSON), -1},
	{"history", jobs_history, "[NAME] [--failed] [--since TIME] [-n N]",
		CLI_BIT(LIMIT) | CLI_BIT(FAILED) | CLI_BIT(SINCE) | CLI_BIT(JSON), 1},
	{"output", jobs_output, "NAME [RUN]", CLI_BIT(JSON), 2},
	{"run", jobs_run, "NAME [--wait] [--timeout T]",
		CLI_BIT(WAIT) | CLI_BIT(TIMEOUT) | CLI_BIT(JSON), 1},
	{"pause", jobs_pause, "NAME...", CLI_BIT(JSON), -1},
	{"resume", jobs_resume, "NAME...", CLI_BIT(JSON), -1},
};

enum { VERBS = sizeof(verbs) / sizeof(verbs[0]) };

static const struct jobs_verb *find(const char *name)
{
	for (int i = 0; i < VERBS; i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	}
	return NULL;
}

static int unknown(struct cli *c, const char *name)
{
	const char *best = NULL;
	int distance = 3;

	for (int i = 0; i < VERBS; i++) {
		int d = units_distance(name, verbs[i].name, distance);
		if (d < distance && verbs[i].name[0]) {
			distance = d;
			best = verbs[i].name;
		}
	}
	return cli_usage(c, "'%s' is nothing that jobs can do%s%s%s", name,
		best ? "; did you mean '" : "", best ? best : "", best ? "'?" : "");
}

int cli_jobs(struct cli *c)
{
	const char *name = c->word_count > 0 ? c->words[0] : "";
	const struct jobs_verb *verb = find(name);
	static char title[64];
	uint64_t foreign;

	if (!verb)
		return unknown(c, name);
	if (c->word_count > 0) {
		c->words++;
		c->word_count--;
		snprintf(title, sizeof(title), "jobs %s", name);
		c->name = title;
	}
	foreign = c->set & ~(verb->options | FIND);
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (foreign & (UINT64_C(1) << i))
			return cli_usage(c, "the option --%s does not apply here",
				cli_option_name((enum cli_option)i));
	}
	if (verb->words_most >= 0 && c->word_count > verb->words_most)
		return cli_usage(c, "unexpected '%s'", c->words[verb->words_most]);
	return verb->run(c);
}

int jobs_find(const struct cli *c, const struct config *config, const char *name)
{
	int index = config_find_job(config, name), distance = 3;
	const char *best = NULL;

	if (index >= 0)
		return index;
	for (size_t i = 0; i < config->job_count; i++) {
		int d = units_distance(name, config->jobs[i].name, distance);
		if (d < distance) {
			distance = d;
			best = config->jobs[i].name;
		}
	}
	cli_fail(c, CLI_FAILED, config->job_count ? "`baton jobs next` lists all of them" : NULL,
		"there is no [job:%s] in '%s'%s%s%s", name, config->path,
		best ? "; did you mean '" : "", best ? best : "", best ? "'?" : "");
	return -1;
}

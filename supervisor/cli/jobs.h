/*
 * `baton jobs ...`: one function per verb, in a file of its own. jobs.c has their table.
 *
 * A verb finds its own words in c->words: the verb is taken off.
 */
#ifndef BATON_CLI_JOBS_H
#define BATON_CLI_JOBS_H

#include "supervisor/cli/cli.h"

struct jobs_verb {
	const char *name; /* "" = `baton jobs` alone */
	int (*run)(struct cli *c);
	const char *words; /* for messages: "[NAME]" */
	uint64_t options;  /* beside FIND, that all verbs take */
	int words_most;    /* -1 = any number */
};

int jobs_next(struct cli *c);
int jobs_table(struct cli *c); /* without a verb */
int jobs_history(struct cli *c);
int jobs_output(struct cli *c);
int jobs_run(struct cli *c);
int jobs_pause(struct cli *c);
int jobs_resume(struct cli *c);
/* For `check`: the next firing of each job, those that come first. 0 or the exit status. */
int jobs_print_coming(const struct cli *c, const struct config *config);

/* The job called NAME: its index, or -1 after a message that names a near one. */
int jobs_find(const struct cli *c, const struct config *config, const char *name);

#endif

/*
 * The supervisor as one call: what `baton run` does.
 */
#ifndef BATON_SHELL_SUPERVISOR_H
#define BATON_SHELL_SUPERVISOR_H

#include <stdbool.h>

#include "conf/config.h"

struct run_options {
	const char *config_path;
	const char *config_text; /* what takes the place of the file; NULL = there is a file */
	enum config_force force;
	const char *control_path; /* -s; NULL = what the file says */
	bool detach;              /* -d */
	char **argv;              /* to be executed again by an upgrade in place */
};

/* Run until the instance ends. Errors are printed. Returns the exit status (cli.md). */
int supervisor_run(const struct run_options *o);

/* Were we executed by the image before (upgrade in place)? Then run on from its state. */
bool supervisor_is_resumed(void);
int supervisor_resume(char **argv);
/* `upgrade-check`, for the image before: could we? Never returns. */
int supervisor_try_state(void);

#endif

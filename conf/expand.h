/*
 * %(name)s and its kin, as Python's string formatting does them for supervisord:
 * %(program_name)s, %(process_num)02d, %(ENV_X)s, %%; and baton's own %(ENV_X:-default)s.
 */
#ifndef BATON_CONF_EXPAND_H
#define BATON_CONF_EXPAND_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/arena.h"
#include "conf/config.h"

struct expand_var {
	const char *name;
	const char *text; /* NULL: it is NUMBER */
	long number;
};

struct expand_scope { /* owns nothing */
	const char *here;
	const struct expand_var *vars;
	size_t var_count;
	/* ENV_x: the last match of the last list wins, then the environment of this process. */
	const struct config_pair *environment[2];
	size_t environment_count[2];
};

/* TEXT with everything expanded, in the arena (TEXT itself when there is nothing to do), or NULL
 * and in E what is wrong (ERR_CONFIG, without a place). */
const char *expand(
	struct arena *a, const char *text, const struct expand_scope *scope, struct err *e);
/* Whether TEXT names the variable, so that its value differs from one worker to the next. */
bool expand_uses(const char *text, const char *variable);

#endif

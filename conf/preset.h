/*
 * What baton knows of servers: which signals and times fit them, how they take a listener, and
 * what in their command line works against supervision by baton.
 */
#ifndef BATON_CONF_PRESET_H
#define BATON_CONF_PRESET_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/arena.h"
#include "conf/config.h"

struct preset {
	const char *name;
	bool built;
	const struct config_pair *settings; /* of [program:], ended by a NULL key */
	const struct config_pair *environment;
	const int *signals; /* that mean something else to the server; ended by 0 */
	int most_sockets;
	bool no_listen_variables;    /* they would be taken beside the appended arguments */
	const char *bind_options[3]; /* what must not stand beside `sockets`; NULL-terminated */
};

/* NULL = no such preset. */
const struct preset *preset_find(const char *name);
const char *preset_names(void); /* of those that are built, for messages */
/* The value that the preset gives the key, or NULL. */
const char *preset_value(const struct preset *p, const char *key);
/* Words to append to the command for SOCKET_COUNT listeners from descriptor 3 on. */
char **preset_arguments(struct arena *a, const struct preset *p, char *const *argv,
	size_t socket_count, size_t *ret_count);
/* The bind option in ARGV that would compete with `sockets`, or NULL. */
const char *preset_own_bind(const struct preset *p, char *const *argv);

/* The value of the last such option ("-w" or "--workers") in ARGV, "" for one without, NULL for
 * none. */
const char *preset_option(char *const *argv, const char *option);

/* Why the command, run as a candidate, would multiply or recycle itself behind baton's back; in
 * the arena, or NULL. ENVIRONMENT is the worker's own; the rest it inherits from this process.
 * gunicorn's own configuration file is looked for in DIRECTORY. */
const char *fastcheck(struct arena *a, char *const *argv, const struct config_pair *environment,
	size_t environment_count, const char *directory);

#endif

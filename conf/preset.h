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

enum { PRESET_MOST_WORDS = 4 };

struct preset_words {                          /* appended to the command */
	const char *unless[PRESET_MOST_WORDS]; /* one of these options stands there already */
	const char *words[PRESET_MOST_WORDS];  /* a NULL first word ends the list */
	bool with_sockets;                     /* only then */
	bool for_log; /* only where readiness is told by a line of output */
	bool joined;  /* the option stands there already: its value comes first, in one */
};

enum preset_variable { /* one whose value depends on the sockets */
	PRESET_NO_VARIABLE,
	PRESET_NODE_OPTIONS,
	PRESET_NGINX,
	PRESET_FPM_SOCKETS,
};

struct preset {
	const char *name;
	const struct config_pair *settings; /* of [program:], ended by a NULL key */
	const struct config_pair *environment;
	const int *signals;       /* that mean something else to the server; ended by 0 */
	int most_sockets;         /* 0 = as many as there are */
	bool no_listen_variables; /* they would be taken beside the appended arguments */
	bool blocking_sockets;    /* its accept(2) must wait */
	bool unlinks_sockets;     /* it removes a unix socket that was given to it */
	const char *no_probe; /* why it can take no listener beside its sockets, and the way out */
	const char *const *bind_options; /* what must not stand beside `sockets` */
	const char *const *background;   /* options by which it leaves the foreground */
	const char *grace_option;        /* its own grace, in seconds */
	const char *ready_with_sockets;  /* instead of the setting's */
	const struct preset_words *words;
	const char *listen[2];      /* option and value, for each socket; %zu is the descriptor */
	const char *listen_with[2]; /* with this option, another option than listen[0] */
	enum preset_variable variable;
	const char *const *wrappers; /* programs that start the server as a child of theirs */
};

/* NULL = no such preset. */
const struct preset *preset_find(const char *name);
const char *preset_names(void); /* for messages */
/* The value that the preset gives the key, or NULL. */
const char *preset_value(const struct preset *p, const char *key);
/* Words to append to the command for SOCKET_COUNT listeners from descriptor 3 on. FOR_LOG:
 * readiness is told by a line of output. */
char **preset_arguments(struct arena *a, const struct preset *p, char *const *argv,
	size_t socket_count, bool for_log, size_t *ret_count);
/* Variables for one worker, below the program's own in rank. LISTEN: the sockets' addresses. */
struct config_pair *preset_environment(struct arena *a, const struct preset *p,
	const char *const *listen, size_t socket_count, size_t *ret_count);
/* PAIRS is the worker's whole environment: a list that the preset adds to (NODE_OPTIONS) keeps what
 * the file, or else the environment of this process, says. */
void preset_join(struct arena *a, const struct preset *p, struct config_pair *pairs, size_t count,
	size_t socket_count);
/* What the preset needs and baton's installation does not have, as a sentence; or NULL. */
const char *preset_missing(struct arena *a, const struct preset *p, size_t socket_count);
/* Why a graceful stop of the server would not be one, from its own file, looked for in DIRECTORY;
 * in the arena, or NULL. */
const char *preset_drops_requests(
	struct arena *a, const struct preset *p, char *const *argv, const char *directory);
/* The program in front of the server that keeps sockets and signals from it ("npm"), or NULL. */
const char *preset_wrapper(struct arena *a, const struct preset *p, char *const *argv);
/* Why `sh -c` in front of the server keeps the APPENDED words, or more, from it; or NULL. */
const char *preset_shell(char *const *argv, size_t appended);
/* The option in ARGV by which the server would leave the foreground, or NULL. */
const char *preset_background(const struct preset *p, char *const *argv);
/* The bind option in ARGV that would compete with `sockets`, or NULL. */
const char *preset_own_bind(const struct preset *p, char *const *argv);

/* The value of the last such option ("-w" or "--workers") in ARGV, "" for one without, NULL for
 * none. */
const char *preset_option(char *const *argv, const char *option);

/* Why the command, run as a candidate, would multiply or recycle itself behind baton's back; in
 * the arena, or NULL. ENVIRONMENT is the worker's own; the rest it inherits from this process.
 * The server's own configuration file is looked for in DIRECTORY. */
const char *fastcheck(struct arena *a, char *const *argv, const struct config_pair *environment,
	size_t environment_count, const char *directory);

#endif

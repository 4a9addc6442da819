/*
 * What all commands of the terminal share: options, the way to the instance, errors, output.
 *
 * A command is a function of one struct cli that returns the exit status. It owns nothing global;
 * whatever it allocates may be left to the end of the process, which follows at once.
 */
#ifndef BATON_CLI_CLI_H
#define BATON_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "conf/config.h"
#include "worker/control.h"

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NOT_RUNNING = 3, /* also is-executor's "cannot tell" */
	CLI_REFUSED = 4,
	CLI_CONFIG = 78,
	CLI_TIMEOUT = 124,
	CLI_LEASE_LOST = 124, /* exec, jobs run --wait, which pass a command's status on */
	CLI_OWN_FAILURE = 125,
	CLI_NOT_EXECUTABLE = 126,
};

/* One row per option: identifier, long name, letter (0 = none), name of its value (NULL = none). */
#define CLI_OPTIONS(X)                                                                             \
	X(CONFIG, "config", 'c', "FILE", "the file (default: ./baton.ini, /etc/baton/baton.ini)")  \
	X(SOCKET, "socket", 's', "SOCKET", "the control socket, whatever the file says")           \
	X(HELP, "help", 'h', NULL, "this help")                                                    \
	X(VERSION, "version", 0, NULL, "print the version")                                        \
	X(JSON, "json", 0, NULL, "one JSON document instead of text")                              \
	X(DETACH, "detach", 'd', NULL, "go to the background once it runs")                        \
	X(NATIVE, "native", 0, NULL, "read the file as baton's own")                               \
	X(COMPAT, "compat", 0, NULL, "read the file as supervisord does")                          \
	X(DUMP, "dump", 0, NULL, "print the whole configuration with its defaults")                \
	X(STRICT, "strict", 0, NULL, "every warning is an error")                                  \
	X(PLAN, "plan", 0, NULL, "what a reload would change")                                     \
	X(HEALTH, "health", 0, NULL, "exit 1 when something wanted is missing")                    \
	X(WATCH, "watch", 0, NULL, "print again on every change")                                  \
	X(ROLLING, "rolling", 0, NULL, "replace the workers one after the other")                  \
	X(NOW, "now", 0, NULL, "the quick way, with short grace")                                  \
	X(AWAY, "away", 0, NULL, "release the lock and stay out for two heartbeats")               \
	X(FORCE, "force", 0, NULL, "free the lock of a dead or silent holder")                     \
	X(FOR, "for", 0, "CONDITION", "what to wait for")                                          \
	X(TIMEOUT, "timeout", 0, "T", "give up after T: 10s, 250ms, 5m (exit status 124)")         \
	X(WAIT, "wait", 0, NULL, "wait until it is so")                                            \
	X(NO_WAIT, "no-wait", 0, NULL, "do not wait for it to be done")                            \
	X(CHANGED_ONLY, "changed-only", 0, NULL, "leave unchanged programs alone")                 \
	X(LIMIT, "limit", 'n', "N", "at most N lines")                                             \
	X(FROM, "from", 0, "TIME", "from then on: 2027-03-28T02:30:00+01:00, or local time")       \
	X(FAILED, "failed", 0, NULL, "only what failed")                                           \
	X(SINCE, "since", 0, "TIME", "from then on: 2h, 3d, or 2027-03-28T02:30:00")               \
	X(WORKERS, "workers", 'w', "N", "without a file: workers, or auto")                        \
	X(BIND, "bind", 'b', "ADDRESS", "without a file: HOST:PORT, :PORT, unix:PATH; repeatable") \
	X(EXECUTOR, "executor", 0, NULL, "without a file: one worker is the executor")             \
	X(PRESET, "preset", 0, "PRESET", "without a file: gunicorn, uvicorn, puma ...")            \
	X(NAME, "name", 0, "NAME", "without a file: name of instance and program (web)")           \
	X(PRINT_CONFIG, "print-config", 0, NULL, "print the file that this stands for, and end")

enum cli_option {
#define X(id, name, letter, value, help) OPTION_##id,
	CLI_OPTIONS(X)
#undef X
		OPTION_COUNT
};
#define CLI_BIT(id) (UINT64_C(1) << OPTION_##id)
#define CLI_BINDS   32 /* times --bind */

struct cli {
	const struct cli_command *commands, *command; /* the table; the row that runs */
	const char *name;                             /* for errors: "lock info" */
	uint64_t set;                                 /* CLI_BIT of each option given */
	const char *values[OPTION_COUNT];
	char **argv;  /* all of it */
	char **words; /* after the command's name */
	int word_count;
	int plain_words; /* of them, those before "--" */
	const char *binds[CLI_BINDS];
	int bind_count;      /* may be more than fit */
	const char *unknown; /* the first option that could not be read; "" = none */
	char socket[4096];   /* filled by cli_socket_path */
};

struct cli_command {
	const char *name;
	int (*run)(struct cli *c); /* NULL: not supported yet */
	const char *help;          /* one line */
	const char *usage;         /* its words; a second line on goes into the command's help */
	uint64_t options;
	int words_min, words_max; /* -1 = any number */
};

/* --- options.c */
/* Sort argv into options and words. 0, or CLI_USAGE after a message. */
int cli_parse(struct cli *c, int argc, char **argv, char **words);
bool cli_has(const struct cli *c, enum cli_option o);
/* The option in the way of this command, or -1. */
int cli_foreign_option(const struct cli *c);
const char *cli_option_name(enum cli_option o);
/* Which of the command's options ARGUMENT ("--jsn") may have been meant to be; NULL = none. */
const char *cli_nearest_option(const struct cli *c, const char *argument);
void cli_print_options(uint64_t options);

/* --- help.c */
int cli_help(struct cli *c);
/* Overview, or one command's help. */
int cli_help_all(const struct cli *c);
int cli_help_of(const struct cli_command *row);
int cli_unknown_command(const struct cli *c, const char *name);
const struct cli_command *cli_find_command(const struct cli_command *table, const char *name);

/* --- cli.c */
/* `baton: NAME: TEXT` on standard error; HINT (may be NULL) on a line of its own. Returns STATUS.
 */
int cli_fail(const struct cli *c, int status, const char *hint, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
int cli_usage(const struct cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_print_err(const struct cli *c, const struct err *e); /* its exit status */
/* The file: -c, else the first default that exists, else NULL. */
const char *cli_config_path(const struct cli *c);
enum config_force cli_force(const struct cli *c);
/* Load the file for a command that needs it whole: prints its errors. 0 or the exit status. */
int cli_load(struct cli *c, struct config **ret_config);
/* The socket's path into c->socket. 0 or the exit status. */
int cli_socket_path(struct cli *c);
/* Connect to the instance. 0 or the exit status, after a message. */
int cli_connect(struct cli *c, struct control_client *ret_client);
/* One request over CLIENT; steals REQUEST. *ret_result is a new reference. 0 or the exit status,
 * after a message. Progress lines go to standard error. TIMEOUT_MS < 0 = for ever. */
int cli_call(struct cli *c, struct control_client *client, json_t *request, int64_t timeout_ms,
	json_t **ret_result);
/* Connect, call, close. */
int cli_request(struct cli *c, json_t *request, int64_t timeout_ms, json_t **ret_result);
/* The exit status of an answer with ok:false, after its message. */
int cli_answer_error(struct cli *c, const json_t *answer);
/* --timeout in milliseconds, -1 when not given. 0 or CLI_USAGE. */
int cli_timeout(struct cli *c, int64_t *ret_ms);

#define CLI_QUICK_MS 10000 /* what an instance answers at once */

/* --- run.c */
/* Whether `run` was given a command, or options of one, in place of a file. */
bool cli_run_has_command(const struct cli *c);
/* The configuration that the command line stands for, checked (and printed for --print-config), and
 * the file that it takes the place of. 0 or the exit status, after a message; whatever it is, both
 * are to be freed and must be NULL before. */
int cli_run_text(struct cli *c, char **ret_path, char **ret_text);

/* --- commands; main.c has their table */
int cli_check(struct cli *c);
int cli_version(struct cli *c);
int cli_status(struct cli *c);
int cli_start(struct cli *c);
int cli_stop(struct cli *c);
int cli_restart(struct cli *c);
int cli_shutdown(struct cli *c);
int cli_signal(struct cli *c);
int cli_scale(struct cli *c);
int cli_reload(struct cli *c);
int cli_upgrade(struct cli *c);
int cli_handoff(struct cli *c);
int cli_lock(struct cli *c);
int cli_wait(struct cli *c);
int cli_events(struct cli *c);
int cli_is_executor(struct cli *c);
int cli_jobs(struct cli *c);

#endif

/*
 * argv -> one table of commands. The same binary is the helper processes under other names.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/cli.h"
#include "supervisor/shell/supervisor.h"
#include "worker/deadman.h"
#include "worker/jobs/ledger.h"
#include "worker/jobs/runner.h"
#include "worker/keeper.h"
#include "worker/lock/guard.h"

static int cli_run(struct cli *c);

#define FIND    (CLI_BIT(CONFIG) | CLI_BIT(SOCKET))
#define DIALECT (CLI_BIT(NATIVE) | CLI_BIT(COMPAT))

/* clang-format off */
static const struct cli_command commands[] = {
	{"run", cli_run, "run the supervisor in the foreground",
	 "[-- COMMAND...]\nWith a COMMAND it needs no file: baton run -w 4 -b 127.0.0.1:8000 -- COMMAND",
	 FIND | DIALECT | CLI_BIT(DETACH) | CLI_BIT(WORKERS) | CLI_BIT(BIND) | CLI_BIT(EXECUTOR) |
		 CLI_BIT(PRESET) | CLI_BIT(NAME) | CLI_BIT(PRINT_CONFIG), 0, -1},
	{"check", cli_check, "read and validate the configuration",
	 "\nExit status 78 when it has errors. With --dump --json every setting has its\n"
	 "value, file, line, and whether it is the default. --plan asks the running\n"
	 "instance what a reload would do (exit status 3 when there is none).",
	 FIND | DIALECT | CLI_BIT(DUMP) | CLI_BIT(STRICT) | CLI_BIT(JSON) | CLI_BIT(PLAN),
	 0, 0},
	{"status", cli_status, "instance, lock, executor, programs, workers",
	 "[NAME...]",
	 FIND | CLI_BIT(JSON) | CLI_BIT(HEALTH) | CLI_BIT(WATCH), 0, -1},
	{"start", cli_start, "start programs or workers",
	 "NAME...\nNAME is a program, PROGRAM:INDEX, GROUP:*, GROUP:PROGRAM or all.",
	 FIND | CLI_BIT(NO_WAIT), 1, -1},
	{"stop", cli_stop, "stop programs or workers",
	 "NAME...\nNAME is a program, PROGRAM:INDEX, GROUP:*, GROUP:PROGRAM or all.",
	 FIND | CLI_BIT(NO_WAIT), 1, -1},
	{"restart", cli_restart, "stop, then start, with the running configuration",
	 "NAME...\nNAME is a program, PROGRAM:INDEX, GROUP:*, GROUP:PROGRAM or all.\n"
	 "With --rolling the workers are replaced within surge and max_unavailable; exit\n"
	 "status 1 when the new ones do not start and the old ones serve on.",
	 FIND | CLI_BIT(NO_WAIT) | CLI_BIT(ROLLING) | CLI_BIT(JSON), 1, -1},
	{"reload", cli_reload, "read the configuration again, as SIGHUP does",
	 "\nPrints what changes. A file with an error changes nothing (exit status 78).",
	 FIND | CLI_BIT(NO_WAIT) | CLI_BIT(CHANGED_ONLY) | CLI_BIT(JSON), 0, 0},
	{"scale", cli_scale, "change the number of workers of a program",
	 "NAME N|+N|-N", FIND | CLI_BIT(NO_WAIT), 2, 2},
	{"signal", cli_signal, "send a signal to workers",
	 "SIGNAL NAME...", FIND, 2, -1},
	{"shutdown", cli_shutdown, "end the supervisor gracefully",
	 "\nPrints what it waits for.", FIND | CLI_BIT(NOW) | CLI_BIT(NO_WAIT), 0, 0},
	{"upgrade", cli_upgrade, "re-execute the supervisor in place",
	 "[BINARY]\nWorkers, sockets, lock and pid stay. Without BINARY: the path it was started by.",
	 FIND | CLI_BIT(NO_WAIT) | CLI_BIT(JSON), 0, 1},
	{"handoff", cli_handoff, "move the baton to another worker",
	 "[WORKER]\nWithout WORKER another ready worker is chosen.",
	 FIND | CLI_BIT(AWAY) | CLI_BIT(NO_WAIT), 0, 1},
	{"lock", cli_lock, "the lock in the database: info, history, release",
	 "info|history|release\n"
	 "info and history read the database, also with no instance running.\n"
	 "release makes this instance step down. With --force it frees the lock of a\n"
	 "holder that is proven dead, or silent for its ttl while this command watches.",
	 FIND | CLI_BIT(JSON) | CLI_BIT(FORCE) | CLI_BIT(LIMIT), 1, 1},
	{"jobs", cli_jobs, "the [job:] sections: what runs, how it went, what comes next",
	 "[next|history|output|run|pause|resume] [NAME...]\n"
	 "next [NAME...]      coming times: one of each job, five of each NAME, or -n\n"
	 "history [NAME]      what ran, newest first (--failed, --since 2d, -n)\n"
	 "output NAME [RUN]   what the last run wrote, or the one that history names\n"
	 "run NAME            one run now; --wait prints its output, passes its status on\n"
	 "pause, resume NAME...\n"
	 "All but run read and write the database alone: no instance need be running.",
	 FIND | DIALECT | CLI_BIT(JSON) | CLI_BIT(LIMIT) | CLI_BIT(FROM) | CLI_BIT(FAILED) |
		 CLI_BIT(SINCE) | CLI_BIT(WAIT) | CLI_BIT(TIMEOUT), 0, -1},
	{"wait", cli_wait, "wait until a condition holds",
	 "--for CONDITION\n"
	 "CONDITION: executor, executor!=PID, term>N, ready=NAME, role=holder, ...\n"
	 "Exit status 124 when --timeout passes first.",
	 FIND | CLI_BIT(FOR) | CLI_BIT(TIMEOUT) | CLI_BIT(JSON), 0, 0},
	{"events", cli_events, "the event stream, one line of JSON for each event",
	 "", FIND, 0, 0},
	{"is-executor", cli_is_executor, "inside a worker: is it the executor?",
	 "\nExit status 0 yes, 1 no, 3 cannot tell.",
	 CLI_BIT(WAIT) | CLI_BIT(TIMEOUT), 0, 0},
	{"version", cli_version, "version, build, libraries", "", CLI_BIT(JSON), 0, 0},
	{"help", cli_help, "this list, or the help of one command", "[COMMAND]", 0, 0, 1},
	{"enable", NULL, "start, and remember it", "", 0, 0, -1},
	{"disable", NULL, "stop, and remember it", "", 0, 0, -1},
	{"logs", NULL, "captured output", "", 0, 0, -1},
	{"top", NULL, "a live full-screen view", "", 0, 0, -1},
	{"exec", NULL, "run a command while holding the lock", "", 0, 0, -1},
	{NULL, NULL, NULL, NULL, 0, 0, 0},
};
/* clang-format on */

static int cli_run(struct cli *c)
{
	char *path = NULL, *text = NULL;
	struct run_options options = {
		.force = cli_force(c),
		.detach = cli_has(c, OPTION_DETACH),
		.argv = c->argv,
		.control_path = cli_has(c, OPTION_SOCKET) ? c->values[OPTION_SOCKET] : NULL,
	};
	int status = 0;

	if (!cli_run_has_command(c)) {
		if (c->word_count > 0)
			return cli_usage(
				c, "unexpected '%s': a command stands behind --", c->words[0]);
		options.config_path = cli_config_path(c);
		if (options.config_path)
			return supervisor_run(&options);
		return cli_fail(c, CLI_CONFIG,
			"give one with -c FILE, or a command: baton run -w 4 -- COMMAND...",
			"there is neither ./baton.ini nor /etc/baton/baton.ini");
	}
	status = cli_run_text(c, &path, &text);
	options.config_path = path;
	options.config_text = text;
	options.force = CONFIG_FORCE_NATIVE;
	if (status == 0 && !cli_has(c, OPTION_PRINT_CONFIG))
		status = supervisor_run(&options);
	free(path);
	free(text);
	return status;
}

static int check_usage(const struct cli *c)
{
	const struct cli_command *row = c->command;
	int foreign;

	if (c->unknown[0]) {
		const char *near = cli_nearest_option(c, c->unknown);
		return cli_usage(c, "unknown option '%s'%s%s%s", c->unknown,
			near ? "; did you mean '--" : "", near ? near : "", near ? "'?" : "");
	}
	foreign = cli_foreign_option(c);
	if (foreign >= 0)
		return cli_usage(c, "the option --%s does not apply here",
			cli_option_name((enum cli_option)foreign));
	if (c->word_count < row->words_min)
		return cli_usage(c, "something is missing: baton %s %.*s", row->name,
			(int)strcspn(row->usage, "\n"), row->usage);
	if (row->words_max >= 0 && c->word_count > row->words_max)
		return cli_usage(c, "unexpected '%s'", c->words[row->words_max]);
	return 0;
}

static int dispatch(struct cli *c)
{
	const char *name = c->plain_words ? c->words[0] : "run";
	int rc;

	if (c->word_count == 0 && cli_has(c, OPTION_HELP))
		return cli_help_all(c);
	if (c->word_count == 0 && cli_has(c, OPTION_VERSION))
		return cli_version(c);
	c->command = cli_find_command(commands, name);
	if (!c->command)
		return cli_unknown_command(c, name);
	c->name = c->command->name;
	if (c->plain_words) {
		c->words++;
		c->word_count--;
		c->plain_words--;
	}
	if (!c->command->run)
		return cli_fail(c, CLI_USAGE, NULL, "not supported yet");
	if (cli_has(c, OPTION_HELP))
		return cli_help_of(c->command);
	rc = check_usage(c);
	return rc != 0 ? rc : c->command->run(c);
}

static int command_line(int argc, char **argv)
{
	struct cli c = {.commands = commands, .argv = argv};
	char **words = calloc((size_t)argc + 1, sizeof(*words));
	int status;

	if (!words)
		return cli_fail(&c, CLI_FAILED, NULL, "out of memory");
	status = cli_parse(&c, argc, argv, words);
	if (status == 0)
		status = dispatch(&c);
	free(words);
	/* `baton status >/dev/full` has not printed the status. */
	if (fflush(stdout) != 0 || ferror(stdout))
		return cli_fail(
			&c, status ? status : CLI_FAILED, NULL, "cannot write to standard output");
	return status;
}

/* Started with one of them closed, the first file opened would become "standard output", and what
 * is printed would go into it. */
static void open_standard(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0)
			_exit(1);
	}
}

int main(int argc, char **argv)
{
	const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;

	open_standard();
	name = name ? name + 1 : argc > 0 ? argv[0] : "";
	if (strcmp(name, "lock-keeper") == 0)
		return keeper_main(argc, argv);
	if (strcmp(name, "lock-deadman") == 0)
		return deadman_main(argc, argv);
	if (strcmp(name, "lock-waiter") == 0)
		return waiter_main(argc, argv);
	if (strcmp(name, "job-worker") == 0)
		return job_worker_main(argc, argv);
	if (strcmp(name, "job-ledger") == 0)
		return ledger_main(argc, argv);
	if (supervisor_is_resumed())
		return supervisor_resume(argv);
	if (argc == 2 && strcmp(argv[1], "upgrade-check") == 0)
		return supervisor_try_state();
	return command_line(argc, argv);
}

/* reload, restart --rolling, check --plan: the plan, a line a worker, a bar, the outcome. */
#include "supervisor/cli/rollout.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/output.h"

enum { BAR_CELLS = 24, INTERRUPTED = 130 };

struct display {
	bool terminal, quiet;
	bool bar; /* the last line is the bar */
};

/* --- the end by Ctrl-C --------------------------------------------------------------------- */
static const char *interrupted_text;

static void interrupted(int signal)
{
	(void)signal;
	(void)!write(STDERR_FILENO, interrupted_text, strlen(interrupted_text));
	_exit(INTERRUPTED);
}

/* The instance does it; this command only looks on. */
static void watch_interrupts(const char *text)
{
	struct sigaction act = {.sa_handler = interrupted};

	interrupted_text = text;
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
}

/* --- progress ------------------------------------------------------------------------------ */
static void clear_bar(struct display *d)
{
	if (d->bar)
		fputs("\r\033[K", stdout);
	d->bar = false;
}

static void draw_bar(struct display *d, const json_t *rollout)
{
	int64_t done = output_number(rollout, "done"), total = output_number(rollout, "total");
	int width = output_width(), cells = width > 0 && width < 60 ? 8 : BAR_CELLS;
	int filled = total > 0 ? (int)(done * cells / total) : 0;

	if (!d->terminal || total <= 0 || strcmp(output_text(rollout, "state"), "done") == 0)
		return;
	printf("%s [", output_text(rollout, "program"));
	for (int i = 0; i < cells; i++)
		putchar(i < filled ? '#' : '.');
	printf("] %lld/%lld %s", (long long)done, (long long)total, output_text(rollout, "state"));
	d->bar = true;
}

static void show(const json_t *line, void *context)
{
	struct display *d = context;
	const json_t *rollout = json_object_get(line, "rollout");

	if (d->quiet || !json_is_string(json_object_get(line, "progress")))
		return;
	clear_bar(d);
	if (json_is_object(rollout) && !json_is_string(json_object_get(rollout, "worker")))
		printf("%s: ", output_text(rollout, "program"));
	printf("%s\n", output_text(line, "progress"));
	if (json_is_object(rollout))
		draw_bar(d, rollout);
	fflush(stdout);
}

/* Somebody may well have another file in mind than the instance has. */
static void say_other_file(struct cli *c, const json_t *result)
{
	const char *mine = cli_config_path(c), *its = output_text(result, "config");
	char path[PATH_MAX];

	if (mine != NULL && realpath(mine, path) != NULL && *its != '\0' && strcmp(path, its) != 0)
		fprintf(stderr, "baton: %s: note: the running instance reads %s, not %s\n", c->name,
			its, path);
}

/* --- the request --------------------------------------------------------------------------- */
/* With --json one document, also of a failure: {"ok", "error"?, ...}. */
static int print_answer(struct cli *c, const json_t *answer, json_t **ret_result)
{
	bool ok = json_is_true(json_object_get(answer, "ok"));
	json_t *document;
	int rc = 0;

	*ret_result = NULL;
	if (!cli_has(c, OPTION_JSON)) {
		if (!ok)
			return cli_answer_error(c, answer);
		*ret_result = json_incref(json_object_get(answer, "result"));
		return 0;
	}
	document = ok ? json_copy(json_object_get(answer, "result")) : json_object();
	json_object_set_new(document, "ok", json_boolean(ok));
	if (!ok) {
		json_object_set(document, "error", json_object_get(answer, "error"));
		rc = cli_answer_error(c, answer);
	}
	if (output_json(document) != 0 && rc == 0)
		rc = CLI_FAILED;
	json_decref(document);
	return rc;
}

/* Steals REQUEST. *ret_result is NULL when nothing is left to be printed. */
static int follow(struct cli *c, json_t *request, bool waits, json_t **ret_result)
{
	struct display d = {.terminal = isatty(STDOUT_FILENO), .quiet = cli_has(c, OPTION_JSON)};
	struct control_client client;
	json_t *answer = NULL;
	struct err e;
	int rc = cli_connect(c, &client);

	*ret_result = NULL;
	if (rc != 0) {
		json_decref(request);
		return rc;
	}
	json_object_set_new(request, "wait", json_boolean(waits));
	json_object_set_new(request, "progress", json_true());
	if (waits)
		watch_interrupts("\nbaton: the rollout goes on without this command; `baton "
				 "status` shows it, `baton wait --for rollout=done` waits for "
				 "it\n");
	rc = control_call(&client, request, waits ? -1 : CLI_QUICK_MS, show, &d, &answer, &e);
	json_decref(request);
	clear_bar(&d);
	fflush(stdout);
	control_close(&client);
	if (rc == ERR_NOT_RUNNING)
		return cli_fail(c, CLI_NOT_RUNNING, NULL, "the instance ended before it answered");
	if (rc == ERR_TIMEOUT)
		return cli_fail(c, CLI_FAILED,
			"is it stopped (SIGSTOP), or is the machine overloaded?",
			"the instance did not answer");
	if (rc != 0)
		return cli_print_err(c, &e);
	say_other_file(c, json_object_get(answer, "result"));
	rc = print_answer(c, answer, ret_result);
	json_decref(answer);
	return rc;
}

int cli_reload(struct cli *c)
{
	json_t *request = json_pack("{s:s}", "cmd", "reload"), *result;
	bool waits = !cli_has(c, OPTION_NO_WAIT);
	const json_t *line, *by;
	size_t i;
	int rc;

	if (cli_has(c, OPTION_CHANGED_ONLY))
		json_object_set_new(request, "changed_only", json_true());
	rc = follow(c, request, waits, &result);
	if (result == NULL)
		return rc;
	if (!waits) /* else they were there before it was done */
		json_array_foreach(json_object_get(result, "plan"), i, line)
			printf("%s\n", json_string_value(line));
	printf("%s: generation %lld", waits ? "done" : "started",
		(long long)output_number(result, "generation"));
	by = json_object_get(result, "superseded_by");
	if (json_is_integer(by))
		printf(", superseded by generation %lld", (long long)json_integer_value(by));
	printf("\n");
	json_decref(result);
	return rc;
}

int rollout_restart(struct cli *c, json_t *targets)
{
	json_t *request = json_pack(
		"{s:s, s:o, s:b}", "cmd", "restart", "targets", targets, "rolling", 1);
	json_t *result;
	int rc;

	rc = follow(c, request, !cli_has(c, OPTION_NO_WAIT), &result);
	if (result == NULL)
		return rc;
	printf("%s\n", cli_has(c, OPTION_NO_WAIT) ? "started" : "done");
	json_decref(result);
	return rc;
}

/* The instance compares: it knows what runs, and what its environment makes of the file. */
int rollout_plan(struct cli *c)
{
	json_t *request = json_pack("{s:s, s:b}", "cmd", "reload", "plan", 1), *result;
	const json_t *line;
	size_t i;
	int rc = follow(c, request, false, &result);

	json_array_foreach(json_object_get(result, "plan"), i, line)
		printf("%s\n", json_string_value(line));
	json_decref(result);
	return rc;
}

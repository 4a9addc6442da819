/* start, stop, restart, signal, scale, shutdown: what people do to workers. */
#include "supervisor/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/units.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/rollout.h"

static json_t *targets(const struct cli *c, int first)
{
	json_t *list = json_array();

	for (int i = first; i < c->word_count; i++) {
		if (json_array_append_new(list, json_string(c->words[i])) == 0)
			continue;
		/* Not UTF-8: no request at all rather than one without this name. */
		json_decref(list);
		return NULL;
	}
	return list;
}

/* Waiting has no end of its own: the instance's deadlines bound it. */
static int64_t patience(const struct cli *c)
{
	return cli_has(c, OPTION_NO_WAIT) ? CLI_QUICK_MS : -1;
}

static enum output_colour state_colour(const char *state)
{
	if (strcmp(state, "running") == 0)
		return GOOD;
	return strcmp(state, "fatal") == 0 ? BAD : CAREFUL;
}

static void print_workers(const json_t *result)
{
	const json_t *worker;
	struct output_table t;
	size_t i;

	output_table_init(&t, 3);
	json_array_foreach(json_object_get(result, "workers"), i, worker)
	{
		const char *state = output_text(worker, "state");
		output_cell(&t, PLAIN, "%s", output_text(worker, "name"));
		output_cell(&t, state_colour(state), "%s", state);
		output_cell(&t, PLAIN, "%s", output_text(worker, "reason"));
	}
	output_table_print(&t, stdout, output_coloured(stdout), output_width());
}

static int change(struct cli *c)
{
	json_t *result = NULL;
	int rc;

	if (cli_has(c, OPTION_ROLLING))
		return rollout_restart(c, targets(c, 0));
	rc = cli_request(c,
		json_pack("{s:s, s:o, s:b, s:b}", "cmd", c->command->name, "targets", targets(c, 0),
			"wait", !cli_has(c, OPTION_NO_WAIT), "progress", 1),
		patience(c), &result);
	if (rc == 0 && cli_has(c, OPTION_JSON))
		rc = output_json(result);
	else if (rc == 0)
		print_workers(result);
	json_decref(result);
	return rc;
}

int cli_start(struct cli *c)
{
	return change(c);
}

int cli_stop(struct cli *c)
{
	return change(c);
}

int cli_restart(struct cli *c)
{
	return change(c);
}

int cli_signal(struct cli *c)
{
	json_t *result = NULL, *name;
	struct err e;
	int number, rc;
	size_t i;

	if (units_signal(c->words[0], &number, &e) != 0)
		return cli_usage(c, "%s", e.text);
	rc = cli_request(c,
		json_pack("{s:s, s:s, s:o}", "cmd", "signal", "signal", c->words[0], "targets",
			targets(c, 1)),
		CLI_QUICK_MS, &result);
	if (rc == 0) {
		json_array_foreach(json_object_get(result, "workers"), i, name)
			printf("%s: sent %s\n", json_string_value(name), c->words[0]);
	}
	json_decref(result);
	return rc;
}

int cli_scale(struct cli *c)
{
	const char *program = c->words[0], *text = c->words[1];
	bool relative = text[0] == '+' || text[0] == '-';
	json_t *result = NULL, *workers;
	char *end;
	long number = strtol(text, &end, 10);
	int rc;

	if (end == text || *end || number > 100000 || number < -100000)
		return cli_usage(c, "'%s' is not a number of workers such as 4, +1, -1", text);
	workers = relative ? json_string(text) : json_integer(number);
	rc = cli_request(c,
		json_pack("{s:s, s:s, s:o, s:b, s:b}", "cmd", "scale", "program", program,
			"workers", workers, "wait", !cli_has(c, OPTION_NO_WAIT), "progress", 1),
		patience(c), &result);
	if (rc == 0)
		printf("%s: %lld -> %lld workers\n", program,
			(long long)output_number(result, "from"),
			(long long)output_number(result, "to"));
	json_decref(result);
	return rc;
}

/* The answer is "begun"; the end is that the socket closes. */
static int wait_for_end(struct cli *c, struct control_client *client)
{
	struct err e;
	int rc;

	for (;;) {
		json_t *line = NULL;
		rc = control_receive(client, -1, &line, &e);
		if (rc != 0)
			break;
		if (json_is_string(json_object_get(line, "progress")))
			printf("%s\n", output_text(line, "progress"));
		fflush(stdout);
		json_decref(line);
	}
	return rc == ERR_NOT_RUNNING ? 0 : cli_print_err(c, &e);
}

static void print_progress(const json_t *line, void *context)
{
	(void)context;
	if (json_is_string(json_object_get(line, "progress")))
		printf("%s\n", output_text(line, "progress"));
	fflush(stdout);
}

int cli_shutdown(struct cli *c)
{
	bool waits = !cli_has(c, OPTION_NO_WAIT);
	struct control_client client;
	json_t *request, *answer = NULL;
	struct err e;
	int rc = cli_connect(c, &client);

	if (rc != 0)
		return rc;
	request = json_pack("{s:s, s:s, s:b, s:b}", "cmd", "shutdown", "mode",
		cli_has(c, OPTION_NOW) ? "quick" : "graceful", "wait", waits, "progress", 1);
	rc = control_call(
		&client, request, waits ? -1 : CLI_QUICK_MS, print_progress, NULL, &answer, &e);
	json_decref(request);
	if (rc == 0 && !json_is_true(json_object_get(answer, "ok")))
		rc = cli_answer_error(c, answer);
	else if (rc == 0 && waits)
		rc = wait_for_end(c, &client);
	else if (rc == ERR_NOT_RUNNING)
		rc = 0; /* it is gone, as asked */
	else if (rc != 0)
		rc = cli_print_err(c, &e);
	json_decref(answer);
	control_close(&client);
	if (rc == 0)
		printf("%s\n", waits ? "ended" : "ending");
	return rc;
}

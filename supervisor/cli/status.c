/* status: the document of an instance, as it is (--json), judged (--health), or for people. */
#include "supervisor/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/output.h"
#include "supervisor/cli/status.h"

/* Events come in bursts: one picture for all of a burst. */
enum { SETTLE_MS = 20, BURST = 200 };

static bool wanted(const struct cli *c, const char *program, const char *worker)
{
	if (c->word_count == 0)
		return true;
	for (int i = 0; i < c->word_count; i++)
		if (strcmp(c->words[i], program) == 0 || strcmp(c->words[i], "all") == 0 ||
			(worker && strcmp(c->words[i], worker) == 0))
			return true;
	return false;
}

/* Leave only what was named. A name that is nobody's: its index in words, else -1. */
static int narrow(const struct cli *c, json_t *document)
{
	json_t *programs = json_object_get(document, "programs"), *kept = json_array();
	bool seen[64] = {false};
	json_t *program, *worker;
	size_t i, k;

	if (c->word_count == 0) {
		json_decref(kept);
		return -1;
	}
	json_array_foreach(programs, i, program)
	{
		const char *name = output_text(program, "name");
		json_t *workers = json_array();
		json_array_foreach(json_object_get(program, "workers"), k,
			worker) if (wanted(c, name, output_text(worker, "name")))
			json_array_append(workers, worker);
		for (int w = 0; w < c->word_count && w < 64; w++) {
			seen[w] |= strcmp(c->words[w], name) == 0 ||
				   strcmp(c->words[w], "all") == 0;
			json_array_foreach(workers, k, worker)
				seen[w] |= strcmp(c->words[w], output_text(worker, "name")) == 0;
		}
		if (json_array_size(workers) > 0 || wanted(c, name, NULL))
			json_array_append(kept, program);
		json_object_set_new(program, "workers", workers);
	}
	json_object_set_new(document, "programs", kept);
	for (int w = 0; w < c->word_count && w < 64; w++)
		if (!seen[w])
			return w;
	return -1;
}

static int print(struct cli *c, json_t *document)
{
	int nobody = narrow(c, document), rc = CLI_OK;

	if (nobody >= 0)
		return cli_fail(c, CLI_FAILED, "`baton status` lists all of them",
			"'%s': no such program or worker", c->words[nobody]);
	if (cli_has(c, OPTION_JSON))
		rc = output_json(document);
	else
		status_print(document, stdout, output_coloured(stdout), output_width());
	return rc;
}

static int health(const json_t *document)
{
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);
	int faults = to ? status_faults(document, to) : 1;

	if (to)
		fclose(to);
	printf("%s", faults ? (text ? text : "out of memory\n") : "healthy\n");
	free(text);
	return faults ? CLI_FAILED : CLI_OK;
}

static int draw(struct cli *c, json_t *document, char **last)
{
	bool terminal = isatty(STDOUT_FILENO) && !cli_has(c, OPTION_JSON);
	char *text = NULL;
	size_t bytes;
	FILE *to;

	if (narrow(c, document) >= 0)
		return cli_fail(c, CLI_FAILED, NULL, "no such program or worker");
	if (cli_has(c, OPTION_JSON)) {
		text = json_dumps(document, JSON_COMPACT);
	} else {
		to = open_memstream(&text, &bytes);
		if (to) {
			status_print(document, to, output_coloured(stdout), output_width());
			fclose(to);
		}
	}
	if (!text)
		return cli_fail(c, CLI_FAILED, NULL, "out of memory");
	if (!*last || strcmp(*last, text) != 0) {
		printf("%s%s%s", terminal ? "\033[H\033[J" : "", text,
			cli_has(c, OPTION_JSON) ? "\n"
			: terminal              ? ""
						: "\n");
		fflush(stdout);
	}
	free(*last);
	*last = text;
	return ferror(stdout) ? CLI_FAILED : 0;
}

/* One connection for the events, one for the documents. */
static int watch(struct cli *c, struct control_client *asks)
{
	struct control_client listens;
	char *last = NULL;
	json_t *document = NULL, *line;
	struct err e;
	int rc = cli_connect(c, &listens);

	if (rc != 0)
		return rc;
	rc = cli_call(c, &listens, json_pack("{s:s}", "cmd", "events"), CLI_QUICK_MS, &document);
	json_decref(document);
	while (rc == 0) {
		document = line = NULL;
		rc = cli_call(
			c, asks, json_pack("{s:s}", "cmd", "status"), CLI_QUICK_MS, &document);
		if (rc == 0)
			rc = draw(c, document, &last);
		json_decref(document);
		if (rc != 0)
			break;
		rc = control_receive(&listens, -1, &line, &e);
		json_decref(line);
		for (int i = 0; rc == 0 && i < BURST; i++) {
			if (control_receive(&listens, SETTLE_MS, &line, &e) != 0)
				break;
			json_decref(line);
		}
		if (rc == ERR_NOT_RUNNING)
			rc = cli_fail(c, CLI_NOT_RUNNING, NULL, "the instance has ended");
		else if (rc != 0)
			rc = cli_print_err(c, &e);
	}
	free(last);
	control_close(&listens);
	return rc;
}

int cli_status(struct cli *c)
{
	struct control_client client;
	json_t *document = NULL;
	int rc = cli_connect(c, &client);

	if (rc != 0)
		return rc;
	if (cli_has(c, OPTION_WATCH)) {
		rc = watch(c, &client);
		control_close(&client);
		return rc;
	}
	rc = cli_call(c, &client, json_pack("{s:s}", "cmd", "status"), CLI_QUICK_MS, &document);
	control_close(&client);
	if (rc == 0 && cli_has(c, OPTION_HEALTH) && !cli_has(c, OPTION_JSON))
		rc = health(document);
	else if (rc == 0)
		rc = print(c, document);
	if (rc == 0 && cli_has(c, OPTION_HEALTH) && cli_has(c, OPTION_JSON))
		rc = status_faults(document, NULL) ? CLI_FAILED : CLI_OK;
	json_decref(document);
	return rc;
}

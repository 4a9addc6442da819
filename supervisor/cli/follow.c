/* wait, events, is-executor: what waits for something to happen. */
#include "supervisor/cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/cli/output.h"
#include "worker/lease.h"

enum { NO = 1, YES = 0, UNKNOWN = 3, GRACE_MS = 5000, PAGE_POLL_MS = 50 };

int cli_wait(struct cli *c)
{
	json_t *request, *result = NULL;
	int64_t timeout_ms;
	int rc = cli_timeout(c, &timeout_ms);

	if (rc != 0)
		return rc;
	if (!cli_has(c, OPTION_FOR))
		return cli_usage(c, "--for CONDITION is missing");
	request = json_pack("{s:s, s:s}", "cmd", "wait", "for", c->values[OPTION_FOR]);
	if (timeout_ms >= 0)
		json_object_set_new(request, "timeout_ms", json_integer(timeout_ms));
	rc = cli_request(c, request, timeout_ms < 0 ? -1 : timeout_ms + GRACE_MS, &result);
	if (rc == 0 && cli_has(c, OPTION_JSON))
		rc = output_json(result);
	else if (rc == 0 && isatty(STDOUT_FILENO))
		printf("%s, after %lld ms\n", c->values[OPTION_FOR],
			(long long)output_number(result, "waited_ms"));
	json_decref(result);
	return rc;
}

int cli_events(struct cli *c)
{
	struct control_client client;
	json_t *result = NULL;
	struct err e;
	int rc = cli_connect(c, &client);

	if (rc != 0)
		return rc;
	rc = cli_call(c, &client, json_pack("{s:s}", "cmd", "events"), CLI_QUICK_MS, &result);
	json_decref(result);
	while (rc == 0) {
		json_t *line = NULL;
		rc = control_receive(&client, -1, &line, &e);
		if (rc != 0) {
			rc = rc == ERR_NOT_RUNNING
				     ? cli_fail(c, CLI_NOT_RUNNING, NULL, "the instance has ended")
				     : cli_print_err(c, &e);
			break;
		}
		json_dumpf(line, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(line);
		if (fflush(stdout) != 0)
			rc = CLI_FAILED;
	}
	control_close(&client);
	return rc;
}

/* The page of this worker, or NULL: no variable, a closed descriptor, or one that is by now
 * something else. */
static const struct lease_page *open_page(void)
{
	const char *text = getenv("BATON_LEASE_FD");
	const struct lease_page *page;
	struct stat st;
	char *end;
	long fd;

	if (!text)
		return NULL;
	fd = strtol(text, &end, 10);
	if (end == text || *end || fd < 0 || fd > 1 << 20 || fstat((int)fd, &st) != 0 ||
		!S_ISREG(st.st_mode) || st.st_size != LEASE_PAGE_BYTES)
		return NULL;
	page = mmap(NULL, LEASE_PAGE_BYTES, PROT_READ, MAP_SHARED, (int)fd, 0);
	if (page == MAP_FAILED)
		return NULL;
	if (page->magic == LEASE_MAGIC && page->version == LEASE_VERSION)
		return page;
	munmap((void *)page, LEASE_PAGE_BYTES);
	return NULL;
}

/* A deadline of another time namespace cannot be compared: ask instead. */
static bool comparable(const struct lease_page *page)
{
	return page->time_namespace == 0 || page->time_namespace == lease_time_namespace();
}

static int judge(const struct lease_page *page)
{
	int64_t deadline = lease_deadline(page);

	return deadline != 0 && lease_now_ns() < deadline ? YES : NO;
}

static int ask(struct cli *c, struct control_client *client)
{
	json_t *request = json_pack("{s:s}", "cmd", "is-executor"), *answer = NULL;
	struct err e;
	int rc = control_call(client, request, CLI_QUICK_MS, NULL, NULL, &answer, &e);

	json_decref(request);
	if (rc != 0)
		return cli_fail(c, UNKNOWN, NULL, "cannot tell: %s", e.text);
	if (json_is_true(json_object_get(answer, "ok")))
		rc = output_true(json_object_get(answer, "result"), "executor") ? YES : NO;
	else
		rc = cli_fail(c, UNKNOWN, NULL, "cannot tell: %s",
			output_text(json_object_get(answer, "error"), "message"));
	json_decref(answer);
	return rc;
}

static int connect_own(struct cli *c, struct control_client *client)
{
	const char *path = getenv("BATON_CONTROL");
	struct err e;

	if (!path)
		return cli_fail(c, UNKNOWN, "run it from a worker's program or below it",
			"cannot tell: this process is in no worker of baton (no BATON_LEASE_FD, no "
			"BATON_CONTROL)");
	if (control_connect(client, path, CLI_QUICK_MS, &e) != 0)
		return cli_fail(c, UNKNOWN, NULL, "cannot tell: %s", e.text);
	return 0;
}

/* Every event may be the promotion; where the stream is not open to us the page is looked at. */
static int wait_until_executor(struct cli *c, const struct lease_page *page, int64_t end_ns)
{
	struct control_client client = {.fd = -1};
	json_t *request = json_pack("{s:s}", "cmd", "events"), *answer = NULL, *line;
	const char *path = getenv("BATON_CONTROL");
	bool stream = false;
	struct err e;
	int rc;

	if (path && control_connect(&client, path, CLI_QUICK_MS, &e) == 0 &&
		control_call(&client, request, CLI_QUICK_MS, NULL, NULL, &answer, &e) == 0)
		stream = json_is_true(json_object_get(answer, "ok"));
	json_decref(request);
	json_decref(answer);
	for (;;) {
		int64_t left_ms = -1;
		rc = page ? judge(page) : client.fd >= 0 ? ask(c, &client) : UNKNOWN;
		if (rc != NO)
			break;
		if (end_ns >= 0)
			left_ms = (end_ns - lease_now_ns()) / 1000000;
		if (end_ns >= 0 && left_ms <= 0) {
			rc = cli_fail(c, CLI_TIMEOUT, NULL, "still not the executor");
			break;
		}
		if (!stream) {
			poll(NULL, 0,
				left_ms >= 0 && left_ms < PAGE_POLL_MS ? (int)left_ms
								       : PAGE_POLL_MS);
			continue;
		}
		line = NULL;
		rc = control_receive(&client, left_ms, &line, &e);
		json_decref(line);
		if (rc != 0 && rc != ERR_TIMEOUT && rc != ERR_PROTOCOL) {
			rc = cli_fail(c, UNKNOWN, NULL, "cannot tell any more: %s", e.text);
			break;
		}
	}
	control_close(&client);
	return rc;
}

int cli_is_executor(struct cli *c)
{
	const struct lease_page *page = open_page();
	struct control_client client;
	bool foreign = page && !comparable(page);
	int64_t timeout_ms;
	int rc = cli_timeout(c, &timeout_ms);

	if (rc != 0)
		return rc;
	if (page && !foreign) {
		rc = judge(page);
	} else {
		rc = connect_own(c, &client);
		if (rc == 0) {
			rc = ask(c, &client);
			control_close(&client);
		}
		page = NULL;
	}
	if (rc != NO || !cli_has(c, OPTION_WAIT))
		return rc;
	return wait_until_executor(
		c, page, timeout_ms < 0 ? -1 : lease_now_ns() + timeout_ms * 1000000);
}

/*
 * lock release: a step-down of the instance that holds it; or, with --force, freeing the row of a
 * holder that is proven dead, or that does not renew it while we watch for its ttl.
 */
#include "supervisor/cli/lock.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/cli/output.h"
#include "worker/lease.h"

enum { LOOK_MS_MAX = 1000, LOOK_MS_MIN = 20, LATE_NS = 1000000000 };

enum { NOT_OURS = -1 };

/* NOT_OURS: our own instance is not the holder, or does not run: go on with the row. */
static int through_instance(struct cli *c)
{
	struct control_client client;
	json_t *status = NULL, *result = NULL;
	bool holder;
	struct err e;
	int rc = cli_socket_path(c);

	if (rc != 0)
		return rc;
	if (control_connect(&client, c->socket, CLI_QUICK_MS, &e) != 0)
		return e.code == ERR_NOT_RUNNING ? NOT_OURS : cli_print_err(c, &e);
	rc = cli_call(c, &client, json_pack("{s:s}", "cmd", "status"), CLI_QUICK_MS, &status);
	holder = strcmp(output_text(json_object_get(status, "lock"), "role"), "holder") == 0;
	json_decref(status);
	if (rc == 0 && !holder) {
		rc = NOT_OURS;
	} else if (rc == 0) {
		rc = cli_call(c, &client,
			json_pack("{s:s, s:b, s:b}", "cmd", "lock.release", "force",
				cli_has(c, OPTION_FORCE), "progress", 1),
			-1, &result);
		if (rc == 0)
			printf("released: this instance stays out for two heartbeats\n");
	}
	json_decref(result);
	control_close(&client);
	return rc;
}

static void expect_row(const struct store_view *v, struct store_expect *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->term = v->row.term;
	ret->beat = v->row.beat;
	snprintf(ret->holder, sizeof(ret->holder), "%s", v->row.holder);
	snprintf(ret->db_uuid, sizeof(ret->db_uuid), "%s", v->db_uuid);
}

static bool unchanged(const struct store_view *v, const struct store_expect *x)
{
	return v->row.held && v->row.term == x->term && v->row.beat == x->beat &&
	       strcmp(v->row.holder, x->holder) == 0 && strcmp(v->db_uuid, x->db_uuid) == 0;
}

static int free_row(struct cli *c, struct lock_site *site, const struct store_expect *expect)
{
	struct store_view view;
	struct err e = {.text = ""};
	enum store_outcome outcome = site->store.ops->force_release(
		&site->store, expect, &view, &e);

	if (outcome == STORE_REFUSED)
		return cli_fail(c, CLI_REFUSED, "baton lock info tells who has it now",
			"somebody took or renewed the lock at this moment: nothing was changed");
	if (outcome != STORE_DONE)
		return cli_fail(c, CLI_FAILED, NULL, "cannot free the lock: %s",
			e.text[0] ? e.text : store_outcome_name(outcome));
	printf("released: it was term %lld; the next instance takes it at once\n",
		(long long)expect->term);
	return CLI_OK;
}

static int still_alive(struct cli *c, const struct lock_site *site)
{
	char who[512];

	return cli_fail(c, CLI_REFUSED,
		"ask it to step down: baton lock release, or baton handoff --away, with its own "
		"file or socket; or stop it",
		"the holder is alive: %s", lock_holder_text(&site->view.row, who, sizeof(who)));
}

/* Silence counts only as watched by us, on our own clock; after a suspend the watch begins anew. */
static int watch_row(struct cli *c, struct lock_site *site, const struct store_expect *expect)
{
	int64_t ttl_ns = site->view.row.ttl_ms * 1000000, start = lease_now_ns(), last = start;
	int64_t look_ms = site->view.row.ttl_ms / 20;
	char text[64], who[512];

	if (look_ms > LOOK_MS_MAX)
		look_ms = LOOK_MS_MAX;
	if (look_ms < LOOK_MS_MIN)
		look_ms = LOOK_MS_MIN;
	printf("holder: %s: %s\nwatching the row for %s, its ttl: it is freed if nothing renews "
	       "it\n",
		lock_holder_text(&site->view.row, who, sizeof(who)), site->life_reason,
		output_duration(site->view.row.ttl_ms, text, sizeof(text)));
	fflush(stdout);
	while (lease_now_ns() - start <= ttl_ns) {
		int64_t now;
		int rc;

		poll(NULL, 0, (int)look_ms);
		now = lease_now_ns();
		if (now - last > look_ms * 1000000 + LATE_NS)
			start = now;
		last = now;
		rc = lock_look(c, site);
		if (rc != 0)
			return rc;
		last = lease_now_ns();
		if (!site->view.row.held) {
			printf("released by itself meanwhile\n");
			return CLI_OK;
		}
		if (!unchanged(&site->view, expect) || site->life == LIFE_ALIVE)
			return still_alive(c, site);
		if (site->life == LIFE_DEAD)
			break;
	}
	return free_row(c, site, expect);
}

static int force(struct cli *c, struct lock_site *site)
{
	struct store_expect expect;

	if (!site->view.exists || !site->view.row.held) {
		printf("the lock is free already\n");
		return CLI_OK;
	}
	if (!cli_has(c, OPTION_FORCE))
		return cli_fail(c, CLI_REFUSED,
			"--force frees the lock of a holder that is dead or silent for its ttl",
			"this instance does not hold the lock");
	if (site->life == LIFE_ALIVE)
		return still_alive(c, site);
	expect_row(&site->view, &expect);
	if (site->life == LIFE_DEAD) {
		printf("the holder is dead: %s\n", site->life_reason);
		return free_row(c, site, &expect);
	}
	return watch_row(c, site, &expect);
}

int lock_release(struct cli *c)
{
	struct lock_site site;
	int rc = through_instance(c);

	if (rc != NOT_OURS)
		return rc;
	rc = lock_open(c, &site);
	if (rc != 0)
		return rc;
	rc = force(c, &site);
	lock_close(&site);
	return rc;
}

/* Requests about the whole instance: shutdown, reload, upgrade. */
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/lookups.h"
#include "supervisor/shell/commands_internal.h"
#include "supervisor/shell/upgrade.h"

void commands_shutdown(struct request *r)
{
	const char *mode = request_text(r, "mode");
	bool quick = mode != NULL && strcmp(mode, "quick") == 0;

	if (mode != NULL && !quick && strcmp(mode, "graceful") != 0) {
		request_fail(r, "usage", "mode is graceful or quick");
		return;
	}
	logs_event(r->s->logs, LOGS_INFO, "control.shutdown", NULL, 0, "asked to stop by pid %d",
		(int)control_peer_of(r->from)->pid);
	request_post(r, EVENT_SHUTDOWN, -1, -1, quick ? SHUTDOWN_QUICK : SHUTDOWN_GRACEFUL);
	if (request_waits(r))
		(void)waiter_add(r->s, r->from, r->id, WAITER_SHUTDOWN, 0);
	else
		control_answer(r->from, r->id, json_object());
}

static json_t *lines_json(const struct reload_result *result)
{
	json_t *lines = json_array();

	for (size_t i = 0; i < result->line_count; i++)
		json_array_append_new(lines, json_string(result->lines[i]));
	return lines;
}

static void fail_reload(struct request *r, struct reload_result *result, const char *text)
{
	control_fail(r->from, r->id, result->unavailable ? "unavailable" : "failed", NULL,
		json_pack("{s:o}", "findings", lines_json(result)), "%s", text);
	reload_result_release(result);
}

/* Names must be looked up, or the start is not over: the request is answered then. */
static void do_later(struct request *r)
{
	if (!lookups_begin(r->s, r->from, r->id, r->json))
		request_fail(r, "unavailable", lookups_failure(r->s));
}

/* What it would do, and nothing else. */
static void plan_reload(struct request *r)
{
	struct reload_result result = {0};

	reload_plan(r->s, json_is_true(json_object_get(r->json, "changed_only")), &result);
	if (result.later) {
		do_later(r);
		return;
	}
	if (!result.ok) {
		fail_reload(r, &result, "a reload would not take the configuration");
		return;
	}
	control_answer(r->from, r->id,
		json_pack("{s:o s:I s:s}", "plan", lines_json(&result), "generation",
			(json_int_t)r->s->generation, "config",
			r->s->config_text != NULL ? "(command line)" : r->s->config_path));
	reload_result_release(&result);
}

void commands_reload(struct request *r)
{
	struct reload_result result = {0};
	struct targets all = {NULL, 0};
	struct waiter *w = NULL;
	const char *code;
	struct err e;
	json_t *plan;

	if (request_comes_late(r))
		return;
	if (json_is_true(json_object_get(r->json, "plan"))) {
		plan_reload(r);
		return;
	}
	reload_run(r->s, json_is_true(json_object_get(r->json, "changed_only")), &result);
	if (result.later) {
		do_later(r);
		return;
	}
	if (!result.ok) {
		fail_reload(r, &result, "the configuration was not taken");
		return;
	}
	plan = json_pack("{s:o s:I}", "plan", lines_json(&result), "generation",
		(json_int_t)r->s->generation);
	if (request_waits(r)) {
		for (size_t i = 0; i < result.line_count; i++)
			control_progress(r->from, r->id, "%s", result.lines[i]);
		w = waiter_add(r->s, r->from, r->id, WAITER_RELOADED, request_timeout(r));
	}
	reload_result_release(&result);
	if (!request_waits(r)) {
		control_answer(r->from, r->id, plan);
	} else if (w == NULL) {
		json_decref(plan);
	} else { /* its event waits in the queue: these are the workers before it */
		w->result = plan;
		w->ticket = r->s->generation;
		(void)targets_find_one(r->s, "all", &all, &code, &e);
		(void)waiter_set_workers(r->s, w, &all);
		targets_release(&all);
	}
}

/* Who may name a binary decides what runs with our rights. */
static bool may_name(const struct request *r)
{
	uid_t uid = control_peer_of(r->from)->uid;

	return uid == 0 || uid == geteuid();
}

void commands_upgrade(struct request *r)
{
	const char *binary = request_text(r, "binary");
	struct err e;

	if (binary != NULL && binary[0] != '/') {
		request_fail(r, "usage", "the binary is to be named by its whole path");
		return;
	}
	if (binary != NULL && !may_name(r)) {
		request_fail(
			r, "refused", "only root and the user who started baton may name a binary");
		return;
	}
	if (upgrade_begin(r->s, binary != NULL ? binary : "", &e) < 0)
		request_fail(r,
			e.code == ERR_BUSY      ? "busy"
			: e.code == ERR_REFUSED ? "refused"
						: "failed",
			e.text);
	else if (request_waits(r))
		(void)waiter_add(r->s, r->from, r->id, WAITER_UPGRADED, request_timeout(r));
	else
		control_answer(r->from, r->id, json_object());
}

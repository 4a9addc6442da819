#include "supervisor/cli/status.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/cli/output.h"

/* "2m 3s" since the time under KEY; "" when there is none. */
static const char *since(const json_t *object, const char *key, char *buf, size_t bytes)
{
	int64_t then = output_parse_time(output_text(object, key));

	if (then == 0)
		return "";
	return output_duration((output_now_us() - then) / 1000, buf, bytes);
}

static enum output_colour state_colour(const char *state)
{
	static const struct {
		const char *state;
		enum output_colour colour;
	} t[] = {{"running", GOOD}, {"holder", GOOD}, {"executing", GOOD}, {"fatal", BAD},
		{"lost", BAD}, {"unavailable", BAD}, {"none", CAREFUL}, {"backoff", CAREFUL},
		{"starting", CAREFUL}, {"promoting", CAREFUL}, {"draining", CAREFUL},
		{"stopping", CAREFUL}, {"stopped", FAINT}, {"exited", FAINT}, {"standby", FAINT}};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (strcmp(t[i].state, state) == 0)
			return t[i].colour;
	return PLAIN;
}

static void head(struct output_table *t, const char *title)
{
	output_cell(t, STRONG, "%s", title);
}

static void add_instance(struct output_table *t, const json_t *instance)
{
	char age[32];
	const char *state = output_text(instance, "state");

	head(t, "instance");
	output_cell(t, state_colour(state), "%s", state);
	output_cell(t, PLAIN, "%s, pid %lld, baton %s, for %s, generation %lld",
		output_text(instance, "name"), (long long)output_number(instance, "pid"),
		output_text(instance, "version"), since(instance, "started_at", age, sizeof(age)),
		(long long)output_number(instance, "generation"));
}

static void add_lock(struct output_table *t, const json_t *lock)
{
	const json_t *holder = json_object_get(lock, "holder");
	const char *role = output_text(lock, "role"), *error = output_text(lock, "error");
	char age[32], left[32] = "-";
	int64_t until = output_parse_time(output_text(lock, "expires_at"));

	if (!json_is_object(lock))
		return;
	if (until)
		output_duration((until - output_now_us()) / 1000, left, sizeof(left));
	head(t, "lock");
	output_cell(t, state_colour(role), "%s", role);
	if (strcmp(role, "holder") == 0)
		output_cell(t, PLAIN, "term %lld, renewed %s ago, valid for %s, %s",
			(long long)output_number(lock, "term"),
			since(lock, "heartbeat_at", age, sizeof(age)), left,
			output_text(lock, "database"));
	else if (json_is_object(holder))
		output_cell(t, PLAIN, "held by pid %lld on %s (%s), term %lld, %s",
			(long long)output_number(holder, "pid"), output_text(holder, "hostname"),
			output_text(holder, "worker"), (long long)output_number(lock, "term"),
			output_text(lock, "database"));
	else
		output_cell(t, PLAIN, "%s", output_text(lock, "database"));
	if (*error) {
		head(t, "");
		output_cell(t, PLAIN, "%s", "");
		output_cell(t, BAD, "%s", error);
	}
}

static void add_executor(struct output_table *t, const json_t *row)
{
	const char *state = output_text(row, "state"), *worker = output_text(row, "worker");
	int64_t busy = output_number(row, "busy");
	char age[32], jobs[48] = "";

	head(t, "executor");
	output_cell(t, state_colour(state), "%s", state);
	if (!*worker) {
		const char *reason = output_text(row, "reason");
		output_cell(t, PLAIN, "%s%s%s", output_text(row, "program"), *reason ? ": " : "",
			reason);
		return;
	}
	if (busy > 0)
		snprintf(jobs, sizeof(jobs), ", runs %lld job%s", (long long)busy,
			busy == 1 ? "" : "s");
	output_cell(t, PLAIN, "%s, pid %lld, term %lld, for %s%s%s", worker,
		(long long)output_number(row, "pid"), (long long)output_number(row, "term"),
		since(row, "since", age, sizeof(age)), jobs,
		json_is_false(json_object_get(row, "answered")) ? ", has not answered" : "");
}

/* Why its last process ended: "exit 1", "SIGKILL, out of memory", or what kept it from starting. */
static const char *last_exit(const json_t *worker, char *buf, size_t bytes)
{
	const json_t *last = json_object_get(worker, "last_exit");
	const json_t *signal = json_object_get(last, "signal");
	const char *reason = output_text(last, "reason"), *name = NULL;

	if (!json_is_object(last))
		return "";
	if (strcmp(reason, "exited") == 0 || strcmp(reason, "killed") == 0)
		reason = ""; /* says no more than the number */
	if (json_is_integer(signal))
		name = sigabbrev_np((int)json_integer_value(signal));
	if (name)
		snprintf(buf, bytes, "SIG%s%s%s", name, *reason ? ", " : "", reason);
	else if (json_is_integer(signal))
		snprintf(buf, bytes, "signal %lld%s%s", (long long)json_integer_value(signal),
			*reason ? ", " : "", reason);
	else if (json_is_integer(json_object_get(last, "code")))
		snprintf(buf, bytes, "exit %lld%s%s", (long long)output_number(last, "code"),
			*reason ? ", " : "", reason);
	else
		snprintf(buf, bytes, "%s", reason);
	return buf;
}

static void add_worker(struct output_table *t, const json_t *worker)
{
	const char *state = output_text(worker, "state"), *said = output_text(worker, "status");
	bool executor = output_true(worker, "executor");
	int64_t pid = output_number(worker, "pid"), restarts = output_number(worker, "restarts");
	char age[32] = "", ended[400] = "", note[1024];
	const char *why = last_exit(worker, ended, sizeof(ended));

	output_cell(t, executor ? STRONG : PLAIN, "  %s", output_text(worker, "name"));
	output_cell(t, state_colour(state), "%s", state);
	if (pid > 0)
		output_cell(t, PLAIN, "%lld", (long long)pid);
	else
		output_cell(t, PLAIN, "-");
	output_cell(t, PLAIN, "%s", pid > 0 ? since(worker, "started_at", age, sizeof(age)) : "");
	snprintf(note, sizeof(note), "%s%s%s%s%s", executor ? "executor; " : "",
		pid > 0 && !output_true(worker, "ready") ? "not ready; " : "", said,
		*said ? "; " : "", "");
	if (restarts > 0)
		snprintf(note + strlen(note), sizeof(note) - strlen(note), "%lld restart%s; ",
			(long long)restarts, restarts == 1 ? "" : "s");
	if (*output_text(worker, "recycled_for"))
		snprintf(note + strlen(note), sizeof(note) - strlen(note), "recycled for its %s; ",
			output_text(worker, "recycled_for"));
	if (*why)
		snprintf(note + strlen(note), sizeof(note) - strlen(note), "before: %s; ", why);
	if (strlen(note) > 2)
		note[strlen(note) - 2] = '\0';
	output_cell(t, PLAIN, "%s", note);
}

/* "rolling_back" -> "rolling back" */
static const char *spaced(const char *word, char *buf, size_t bytes)
{
	snprintf(buf, bytes, "%s", word);
	for (char *at = buf; *at != '\0'; at++)
		*at = *at == '_' ? ' ' : *at;
	return buf;
}

static void add_program(struct output_table *t, const json_t *program)
{
	const json_t *rollout = json_object_get(program, "rollout"), *worker;
	const json_t *last = json_object_get(program, "last_rollout");
	char text[32];
	int64_t ready = output_number(program, "ready"), count = output_number(program, "wanted");
	size_t i;

	output_cell(t, STRONG, "%s", output_text(program, "name"));
	output_cell(t, ready < count ? CAREFUL : GOOD, "%lld/%lld ready", (long long)ready,
		(long long)count);
	output_cell(t, PLAIN, "%s", "");
	output_cell(t, PLAIN, "%s", "");
	if (json_is_object(rollout))
		output_cell(t, CAREFUL, "rollout %s: %lld of %lld",
			spaced(output_text(rollout, "state"), text, sizeof(text)),
			(long long)output_number(rollout, "done"),
			(long long)output_number(rollout, "total"));
	else if (strcmp(output_text(last, "state"), "failed") == 0)
		output_cell(t, BAD, "last rollout failed %s ago: %s",
			since(last, "at", text, sizeof(text)), output_text(last, "reason"));
	else
		output_cell(t, PLAIN, "%s",
			strcmp(output_text(program, "state"), "waiting") == 0
				? "waits for what it depends on"
				: "");
	json_array_foreach(json_object_get(program, "workers"), i, worker) add_worker(t, worker);
}

void status_print(const json_t *document, FILE *to, bool coloured, int width)
{
	struct output_table t;
	const json_t *row;
	size_t i;

	output_table_init(&t, 3);
	add_instance(&t, json_object_get(document, "instance"));
	add_lock(&t, json_object_get(document, "lock"));
	json_array_foreach(json_object_get(document, "executors"), i, row) add_executor(&t, row);
	json_array_foreach(json_object_get(document, "sockets"), i, row)
	{
		const char *url = output_text(row, "url");
		head(&t, "socket");
		output_cell(&t, PLAIN, "%s", output_text(row, "name"));
		output_cell(&t, PLAIN, "%s", *url ? url : output_text(row, "listen"));
	}
	output_table_print(&t, to, coloured, width);
	fputc('\n', to);
	output_table_init(&t, 5);
	json_array_foreach(json_object_get(document, "programs"), i, row) add_program(&t, row);
	output_table_print(&t, to, coloured, width);
}

static int fault(FILE *to, const char *what, const char *text)
{
	if (to)
		fprintf(to, "%s: %s\n", what, text);
	return 1;
}

/* A worker of `executor = only` that is standby is what is wanted here. */
static int program_faults(const json_t *program, FILE *to)
{
	int64_t ready = output_number(program, "ready"), count = output_number(program, "wanted");
	const json_t *worker;
	char text[64];
	size_t i;

	json_array_foreach(json_object_get(program, "workers"), i, worker)
		ready += strcmp(output_text(worker, "state"), "standby") == 0 &&
			 !output_true(worker, "ready");
	if (ready >= count)
		return 0;
	snprintf(text, sizeof(text), "%lld of %lld workers are ready", (long long)ready,
		(long long)count);
	return fault(to, output_text(program, "name"), text);
}

int status_faults(const json_t *document, FILE *to)
{
	const json_t *lock = json_object_get(document, "lock"), *row;
	const char *role = output_text(lock, "role");
	bool elsewhere = strcmp(role, "standby") == 0 &&
			 json_is_object(json_object_get(lock, "holder"));
	int faults = 0;
	size_t i;

	json_array_foreach(json_object_get(document, "programs"), i, row)
		faults += program_faults(row, to);
	json_array_foreach(json_object_get(document, "executors"), i, row)
	{
		const char *reason = output_text(row, "reason");
		char text[256];
		if (*output_text(row, "worker") || elsewhere)
			continue;
		snprintf(text, sizeof(text), "no executor (%s)", *reason ? reason : role);
		faults += fault(to, output_text(row, "program"), text);
	}
	return faults;
}

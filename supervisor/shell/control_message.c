/* What a client says and is told: requests, answers, refusals. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/control_internal.h"

/* --- sending ------------------------------------------------------------------------------------
 */

/* A string object of any bytes: what is no UTF-8 is shown as '?'. */
static json_t *make_text(const char *text)
{
	json_t *made = json_string(text);
	char *copy;

	if (made)
		return made;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *c = copy; *c; c++) {
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	}
	made = json_string(copy);
	free(copy);
	return made;
}

/* Steals DOCUMENT. */
void connection_send_json(struct control_connection *n, json_t *document)
{
	char *text = n->dead || !document ? NULL : json_dumps(document, JSON_COMPACT);

	if (text)
		connection_send(n, text, strlen(text), false);
	free(text);
	json_decref(document);
}

static void answered(struct control_connection *n)
{
	if (n->unanswered)
		n->unanswered--;
}

void control_answer(struct control_connection *n, uint64_t id, json_t *result)
{
	json_t *answer = json_pack("{s:I,s:b,s:o}", "id", (json_int_t)id, "ok", 1, "result",
		result ? result : json_object());

	answered(n);
	connection_send_json(n, answer);
}

static void fail(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	json_t *extra, const char *format, va_list arguments)
{
	char message[2048];
	json_t *error = json_object();

	if (vsnprintf(message, sizeof(message), format, arguments) < 0)
		message[0] = '\0';
	json_object_set_new(error, "code", make_text(code));
	json_object_set_new(error, "message", make_text(message));
	if (hint)
		json_object_set_new(error, "hint", make_text(hint));
	if (extra)
		json_object_update(error, extra);
	json_decref(extra);
	connection_send_json(
		n, json_pack("{s:I,s:b,s:o}", "id", (json_int_t)id, "ok", 0, "error", error));
}

void control_fail(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	json_t *extra, const char *format, ...)
{
	va_list arguments;

	answered(n);
	va_start(arguments, format);
	fail(n, id, code, hint, extra, format, arguments);
	va_end(arguments);
}

/* As control_fail, for what never became a request. */
static void reject(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	const char *format, ...) __attribute__((format(printf, 5, 6)));

static void reject(struct control_connection *n, uint64_t id, const char *code, const char *hint,
	const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fail(n, id, code, hint, NULL, format, arguments);
	va_end(arguments);
}

void control_progress(struct control_connection *n, uint64_t id, const char *format, ...)
{
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	if (vsnprintf(text, sizeof(text), format, arguments) < 0)
		text[0] = '\0';
	va_end(arguments);
	connection_send_json(
		n, json_pack("{s:I,s:o}", "id", (json_int_t)id, "progress", make_text(text)));
}

void control_progress_with(
	struct control_connection *n, uint64_t id, json_t *more, const char *format, ...)
{
	char text[2048];
	va_list arguments;

	va_start(arguments, format);
	if (vsnprintf(text, sizeof(text), format, arguments) < 0)
		text[0] = '\0';
	va_end(arguments);
	connection_send_json(n, json_pack("{s:I,s:o,s:o}", "id", (json_int_t)id, "progress",
					make_text(text), "rollout", more ? more : json_null()));
}

void control_subscribe(struct control_connection *n)
{
	if (n->dead || n->subscribed)
		return;
	n->subscribed = true;
	n->server->subscribers++;
}

size_t control_subscribers(const struct control *c)
{
	return c->subscribers;
}

const struct control_peer *control_peer_of(const struct control_connection *n)
{
	return &n->peer;
}

/* --- requests -----------------------------------------------------------------------------------
 */

void control_too_long(struct control_connection *n)
{
	reject(n, 0, "usage", "one JSON object a line", "request longer than %d bytes",
		CONTROL_REQUEST_BYTES);
	n->closing = true;
}

static bool open_to_all(const char *cmd)
{
	return strcmp(cmd, "is-executor") == 0 || strcmp(cmd, "version") == 0;
}

static void refuse(struct control_connection *n, uint64_t id, const char *cmd)
{
	reject(n, id, "refused",
		"run it with sudo or as the user who started baton; control_owner and control_mode "
		"in [baton] let others in",
		"user %u may not ask for '%.100s'", (unsigned)n->peer.uid, cmd);
}

static void dispatch(struct control_connection *n, json_t *request)
{
	struct control *c = n->server;
	const json_t *id = json_object_get(request, "id"), *v = json_object_get(request, "v");
	const char *cmd = json_string_value(json_object_get(request, "cmd"));
	json_int_t number = json_integer_value(id);

	if (id && (!json_is_integer(id) || number < 0))
		reject(n, 0, "usage", NULL, "\"id\" must be a whole number from 0 on");
	else if (v && (!json_is_integer(v) || json_integer_value(v) != CONTROL_VERSION))
		reject(n, (uint64_t)number, "unsupported",
			"use the baton command of the same version as the supervisor",
			"this supervisor speaks version %d of the control protocol",
			CONTROL_VERSION);
	else if (!cmd)
		reject(n, (uint64_t)number, "usage", NULL, "\"cmd\" is missing or no string");
	else if (!n->peer.trusted && !open_to_all(cmd))
		refuse(n, (uint64_t)number, cmd);
	else {
		n->unanswered++;
		c->handlers.request(c->handlers.context, n, (uint64_t)number, cmd, request);
	}
}

void control_line(struct control_connection *n, const char *line, size_t bytes)
{
	json_error_t error;
	json_t *request;

	if (bytes && line[bytes - 1] == '\r')
		bytes--;
	if (!bytes)
		return;
	request = json_loadb(line, bytes, 0, &error);
	if (!request)
		reject(n, 0, "usage", "one JSON object a line", "not JSON: %s (byte %d)",
			error.text, error.position);
	else if (!json_is_object(request))
		reject(n, 0, "usage", "one JSON object a line", "a request must be a JSON object");
	else
		dispatch(n, request);
	json_decref(request);
}

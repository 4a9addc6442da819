#include "supervisor/cli/cli.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/units.h"
#include "supervisor/cli/output.h"

enum { OTHERS = 8 }; /* control sockets that are looked at */

static void complain(const struct cli *c, const char *hint, const char *format, va_list arguments)
{
	bool coloured = output_coloured(stderr);
	char text[4096];

	vsnprintf(text, sizeof(text), format, arguments);
	fflush(stdout);
	fprintf(stderr, "%sbaton: %s%s%s%s\n", output_paint(coloured, BAD), c->name ? c->name : "",
		c->name ? ": " : "", output_paint(coloured, PLAIN), text);
	if (hint && *hint)
		fprintf(stderr, "  %s\n", hint);
}

int cli_fail(const struct cli *c, int status, const char *hint, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	complain(c, hint, format, arguments);
	va_end(arguments);
	return status;
}

int cli_usage(const struct cli *c, const char *format, ...)
{
	char hint[128];
	va_list arguments;

	snprintf(hint, sizeof(hint), "`baton help%s%s` tells how to use it", c->command ? " " : "",
		c->command ? c->command->name : "");
	va_start(arguments, format);
	complain(c, hint, format, arguments);
	va_end(arguments);
	return CLI_USAGE;
}

static int status_of(enum err_code code)
{
	switch (code) {
	case ERR_NOT_RUNNING:
		return CLI_NOT_RUNNING;
	case ERR_REFUSED:
		return CLI_REFUSED;
	case ERR_CONFIG:
	case ERR_WRONG:
		return CLI_CONFIG;
	default:
		return CLI_FAILED;
	}
}

int cli_print_err(const struct cli *c, const struct err *e)
{
	char text[ERR_FILE_BYTES + ERR_TEXT_BYTES + 32];

	return cli_fail(c, status_of(e->code), NULL, "%s", err_format(e, text, sizeof(text)));
}

const char *cli_config_path(const struct cli *c)
{
	if (cli_has(c, OPTION_CONFIG))
		return c->values[OPTION_CONFIG];
	if (access("baton.ini", F_OK) == 0)
		return "baton.ini";
	if (access("/etc/baton/baton.ini", F_OK) == 0)
		return "/etc/baton/baton.ini";
	return NULL;
}

enum config_force cli_force(const struct cli *c)
{
	if (cli_has(c, OPTION_NATIVE))
		return CONFIG_FORCE_NATIVE;
	return cli_has(c, OPTION_COMPAT) ? CONFIG_FORCE_COMPAT : CONFIG_DETECT;
}

int cli_load(struct cli *c, struct config **ret_config)
{
	const char *path = cli_config_path(c);
	struct errlist findings;
	char text[ERR_FILE_BYTES + ERR_TEXT_BYTES + 32];
	int rc;

	if (!path)
		return cli_fail(c, CLI_CONFIG, "give one with -c FILE",
			"there is neither ./baton.ini nor /etc/baton/baton.ini");
	errlist_init(&findings);
	rc = config_load(path, cli_force(c), ret_config, &findings);
	for (size_t i = 0; rc != 0 && i < findings.count; i++)
		if (!findings.items[i].warning)
			fprintf(stderr, "%s\n", err_format(&findings.items[i], text, sizeof(text)));
	errlist_release(&findings);
	if (rc != 0)
		return cli_fail(c, CLI_CONFIG, NULL, "the configuration '%s' has errors", path);
	return 0;
}

/* `baton run -- COMMAND` runs in this folder: its socket is where that of ./baton.ini would be. */
static bool stands_for_file(struct cli *c)
{
	struct err e;

	return config_control_path(NULL, "baton.ini", c->socket, sizeof(c->socket), &e) == 0 &&
	       access(c->socket, F_OK) == 0;
}

int cli_socket_path(struct cli *c)
{
	const char *path = cli_config_path(c);
	struct config *config;
	struct err e;
	int rc;

	if (cli_has(c, OPTION_SOCKET)) {
		snprintf(c->socket, sizeof(c->socket), "%s", c->values[OPTION_SOCKET]);
		return 0;
	}
	if (!path && stands_for_file(c))
		return 0;
	if (!path)
		return cli_fail(c, CLI_NOT_RUNNING, "give -c FILE or -s SOCKET",
			"no instance to speak to: there is neither ./baton.ini nor "
			"/etc/baton/baton.ini");
	/* A file that is wrong by now may well be the one of a running instance. */
	config = config_load_head(path, cli_force(c));
	rc = config_control_path(config, path, c->socket, sizeof(c->socket), &e);
	config_unref(config);
	return rc == 0 ? 0 : cli_print_err(c, &e);
}

/* The pid of the baton that holds the file's pidfile; 0 = none. */
static long pid_of_file(struct cli *c, const char *path, char *buf, size_t bytes)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct config *config = config_load_head(path, cli_force(c));
	char text[32] = "";
	int fd = -1;

	if (config && config->pidfile && config->pidfile[0] != '\0')
		fd = open(config->pidfile, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	snprintf(buf, bytes, "%s", fd >= 0 ? config->pidfile : "");
	config_unref(config);
	if (fd < 0)
		return 0;
	if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK ||
		pread(fd, text, sizeof(text) - 1, 0) <= 0)
		text[0] = '\0';
	close(fd);
	return strtol(text, NULL, 10);
}

/* Nobody listens where the file has the control socket by now: was it elsewhere when an instance of
 * this file was started? */
static bool connect_elsewhere(struct cli *c, const char *path, struct control_client *ret_client)
{
	char others[OTHERS][CONFIG_CONTROL_BYTES];
	size_t count = config_control_others(path, c->socket, others, OTHERS);
	struct err e;

	for (size_t i = 0; i < count; i++) {
		if (control_connect(ret_client, others[i], CLI_QUICK_MS, &e) != 0)
			continue;
		(void)cli_fail(c, 0, NULL,
			"warning: nobody listens on '%s'; asking the instance of this file on "
			"'%s' ('control' or 'user' was another when it was started)",
			c->socket, others[i]);
		snprintf(c->socket, sizeof(c->socket), "%s", others[i]);
		return true;
	}
	return false;
}

static int not_running(struct cli *c, const char *path, const struct err *e)
{
	char hint[8600], pidfile[4096];
	long pid = 0;

	if (path && access(path, F_OK) != 0)
		snprintf(hint, sizeof(hint), "there is no file '%s': is that its name?", path);
	else if (path && !cli_has(c, OPTION_SOCKET) &&
		 (pid = pid_of_file(c, path, pidfile, sizeof(pidfile))) > 0)
		snprintf(hint, sizeof(hint),
			"but baton runs as pid %ld, by the pidfile '%s'\n"
			"  if control or user was changed since it started: -s SOCKET, or SIGHUP",
			pid, pidfile);
	else
		snprintf(hint, sizeof(hint), "start one with: baton run -c %s%s",
			path ? path : "FILE",
			path && !cli_has(c, OPTION_SOCKET)
				? "\n  if one runs, and control or user was changed since it "
				  "started: -s SOCKET, or SIGHUP"
				: "");
	return cli_fail(c, CLI_NOT_RUNNING, hint, "not running: %s", e->text);
}

int cli_connect(struct cli *c, struct control_client *ret_client)
{
	const char *path = cli_config_path(c);
	struct err e;
	int rc = cli_socket_path(c);

	if (rc != 0)
		return rc;
	rc = control_connect(ret_client, c->socket, CLI_QUICK_MS, &e);
	if (rc == 0)
		return 0;
	if (rc == ERR_NOT_RUNNING && path && !cli_has(c, OPTION_SOCKET) &&
		connect_elsewhere(c, path, ret_client))
		return 0;
	if (rc == ERR_REFUSED)
		return cli_fail(c, CLI_REFUSED,
			"run it with sudo or as the user who started baton; control_owner and "
			"control_mode in [baton] let others in",
			"%s", e.text);
	if (rc != ERR_NOT_RUNNING)
		return cli_print_err(c, &e);
	return not_running(c, path, &e);
}

int cli_answer_error(struct cli *c, const json_t *answer)
{
	static const struct {
		const char *code;
		int status;
	} codes[] = {{"usage", CLI_USAGE}, {"unsupported", CLI_USAGE}, {"refused", CLI_REFUSED},
		{"timeout", CLI_TIMEOUT}};
	const json_t *error = json_object_get(answer, "error"), *finding;
	const char *message = output_text(error, "message");
	int status = CLI_FAILED;
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(output_text(error, "code"), codes[i].code) == 0)
			status = codes[i].status;
	json_array_foreach(json_object_get(error, "findings"), i, finding)
	{
		fprintf(stderr, "%s\n", json_string_value(finding));
		/* Else the file is good, but not what it asks for: a port in use. */
		if (strcmp(output_text(error, "code"), "unavailable") != 0)
			status = CLI_CONFIG;
	}
	return cli_fail(c, status, output_text(error, "hint"), "%s",
		*message ? message : "the instance gave no reason");
}

static void print_progress(const json_t *line, void *context)
{
	(void)context;
	if (json_is_string(json_object_get(line, "progress"))) {
		fprintf(stderr, "%s\n", output_text(line, "progress"));
		fflush(stderr);
	}
}

int cli_call(struct cli *c, struct control_client *client, json_t *request, int64_t timeout_ms,
	json_t **ret_result)
{
	json_t *answer = NULL;
	struct err e;
	int rc = control_call(client, request, timeout_ms, print_progress, NULL, &answer, &e);

	json_decref(request);
	if (rc == ERR_TIMEOUT)
		return cli_fail(c, CLI_FAILED,
			"is it stopped (SIGSTOP), or is the machine overloaded?",
			"the instance did not answer within %lld s",
			(long long)(timeout_ms / 1000));
	if (rc == ERR_NOT_RUNNING)
		return cli_fail(c, CLI_NOT_RUNNING, NULL, "the instance ended before it answered");
	if (rc != 0)
		return cli_print_err(c, &e);
	rc = 0;
	if (json_is_true(json_object_get(answer, "ok")))
		*ret_result = json_incref(json_object_get(answer, "result"));
	else
		rc = cli_answer_error(c, answer);
	json_decref(answer);
	return rc;
}

int cli_request(struct cli *c, json_t *request, int64_t timeout_ms, json_t **ret_result)
{
	struct control_client client;
	int rc = cli_connect(c, &client);

	if (rc != 0) {
		json_decref(request);
		return rc;
	}
	rc = cli_call(c, &client, request, timeout_ms, ret_result);
	control_close(&client);
	return rc;
}

int cli_timeout(struct cli *c, int64_t *ret_ms)
{
	struct err e;
	int64_t ns;

	*ret_ms = -1;
	if (!cli_has(c, OPTION_TIMEOUT))
		return 0;
	if (units_duration(c->values[OPTION_TIMEOUT], &ns, &e) != 0 || ns < 0)
		return cli_usage(c, "--timeout '%s': not a duration such as 10s, 250ms, 5m",
			c->values[OPTION_TIMEOUT]);
	*ret_ms = ns / 1000000;
	return 0;
}

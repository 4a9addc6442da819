#include "conf/probe.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "conf/units.h"
#include "conf/words.h"

enum { PATH_BYTES = 2000, WORD_BYTES = 1000, FD_LEAST = 3, FD_MOST = 255 };

/* What follows the word before a colon; NULL: another word. */
static const char *after(const char *text, const char *prefix)
{
	size_t bytes = strlen(prefix);

	return strncmp(text, prefix, bytes) == 0 ? text + bytes : NULL;
}

/* Numbers, or localhost: a name would have to be asked for, and the worker is on this machine. */
static int parse_host(
	struct arena *a, const char *text, size_t bytes, struct config_probe *p, struct err *e)
{
	unsigned char address[16];

	if (bytes >= 2 && text[0] == '[' && text[bytes - 1] == ']') {
		p->host = arena_strndup(a, text + 1, bytes - 2);
		p->family = AF_INET6;
	} else {
		p->host = arena_strndup(a, text, bytes);
		p->family = AF_INET;
	}
	if (strcmp(p->host, "localhost") == 0)
		p->host = "127.0.0.1";
	if (inet_pton(p->family, p->host, address) == 1)
		return 0;
	return err_set(e, ERR_CONFIG,
		"'%.100s' is no address: a probe goes to the worker itself; write its address in "
		"numbers (127.0.0.1, [::1]) or localhost",
		p->host);
}

/* HOST:PORT up to END; without a port DEFAULT_PORT, if there is one. */
static int parse_address(struct arena *a, const char *text, const char *end, int default_port,
	struct config_probe *p, struct err *e)
{
	const char *colon = NULL, *digits;
	int64_t port = default_port;

	for (const char *c = text; c < end; c++) {
		if (*c == ':')
			colon = c;
		else if (*c == ']')
			colon = NULL;
	}
	if (!colon && !default_port)
		return err_set(e, ERR_CONFIG, "'%.*s': write HOST:PORT, as in tcp:127.0.0.1:8000",
			(int)(end - text), text);
	if (colon) {
		digits = arena_strndup(a, colon + 1, (size_t)(end - colon - 1));
		/* 0 stands for the socket's own port, which is not known before the start */
		if (units_integer(digits, &port, NULL) < 0 || port < 0 || port > 65535)
			return err_set(e, ERR_CONFIG, "'%.20s' is no port from 1 to 65535", digits);
	}
	p->port = (int)port;
	return parse_host(a, text, (size_t)((colon ? colon : end) - text), p, e);
}

static int parse_path(const char *path, struct err *e)
{
	if (strlen(path) > PATH_BYTES)
		return err_set(e, ERR_CONFIG, "the path is longer than %d bytes", PATH_BYTES);
	for (const char *c = path; *c; c++) {
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || *c == '#')
			return err_set(e, ERR_CONFIG,
				"'%.100s': a path has no spaces, '#' or characters beyond ASCII; "
				"write them as %%%%20 and the like",
				path);
	}
	return 0;
}

static int parse_url(struct arena *a, const char *text, struct config_probe *p, struct err *e)
{
	const char *end = text + strcspn(text, "/?");

	p->kind = PROBE_HTTP;
	if (memchr(text, '@', (size_t)(end - text)))
		return err_set(e, ERR_CONFIG,
			"a user in the URL is not supported: use 'exec:curl ...' for that");
	p->path = *end == '/' ? end : arena_printf(a, "/%s", end);
	if (parse_path(p->path, e) < 0)
		return ERR_CONFIG;
	return parse_address(a, text, end, 80, p, e);
}

static int parse_http(struct arena *a, const char *text, struct config_probe *p, struct err *e)
{
	const char *url = after(text, "http://");

	if (!url)
		url = after(text, "http:http://");
	if (url)
		return parse_url(a, url, p, e);
	text += strlen("http:");
	if (*text != '/')
		return err_set(e, ERR_CONFIG,
			"'http:%.100s': write http:/PATH (through the worker's own probe listener) "
			"or http://HOST:PORT/PATH",
			text);
	p->kind = PROBE_HTTP;
	p->own = true;
	p->path = text;
	return parse_path(text, e);
}

static int parse_fd(const char *text, struct config_probe *p, struct err *e)
{
	int64_t fd;

	if (units_integer(text, &fd, NULL) < 0 || fd < FD_LEAST || fd > FD_MOST)
		return err_set(e, ERR_CONFIG,
			"'fd:%.20s': a descriptor from %d to %d, which the program writes a line "
			"to when it is ready",
			text, FD_LEAST, FD_MOST);
	p->kind = PROBE_FD;
	p->fd = (int)fd;
	return 0;
}

static int parse_exec(struct arena *a, const char *text, struct config_probe *p, struct err *e)
{
	size_t count;

	p->kind = PROBE_EXEC;
	if (words_split(a, text, WORDS_POSIX, &p->argv, &count, e) < 0)
		return ERR_CONFIG;
	if (count == 0)
		return err_set(e, ERR_CONFIG, "exec: without a command");
	return 0;
}

static int parse_log(const char *text, struct config_probe *p, struct err *e)
{
	p->kind = PROBE_LOG;
	p->word = text;
	if (!text[0] || strlen(text) > WORD_BYTES || strchr(text, '\n'))
		return err_set(e, ERR_CONFIG,
			"log: needs a text of one line, up to %d bytes, that the program prints "
			"when it is ready",
			WORD_BYTES);
	return 0;
}

static int parse(struct arena *a, const char *text, struct config_probe *p, struct err *e)
{
	static const char forms[] = "startsecs, notify, http:/PATH, tcp, http://HOST:PORT/PATH, "
				    "tcp:HOST:PORT, exec:COMMAND, fd:N, log:TEXT";
	const char *rest;

	if (strcmp(text, "startsecs") == 0) {
		p->kind = PROBE_STARTSECS;
	} else if (strcmp(text, "notify") == 0) {
		p->kind = PROBE_NOTIFY;
	} else if (strcmp(text, "tcp") == 0) {
		p->kind = PROBE_TCP;
		p->own = true;
	} else if (after(text, "https:")) {
		return err_set(e, ERR_CONFIG,
			"TLS is not spoken by a probe: use http:/PATH, tcp, or 'exec:curl ...'");
	} else if (after(text, "http:")) {
		return parse_http(a, text, p, e);
	} else if ((rest = after(text, "tcp:")) != NULL) {
		p->kind = PROBE_TCP;
		return parse_address(a, rest, rest + strlen(rest), 0, p, e);
	} else if ((rest = after(text, "exec:")) != NULL) {
		return parse_exec(a, rest, p, e);
	} else if ((rest = after(text, "fd:")) != NULL) {
		return parse_fd(rest, p, e);
	} else if ((rest = after(text, "log:")) != NULL) {
		return parse_log(rest, p, e);
	} else {
		return err_set(e, ERR_CONFIG, "'%.60s' is none of %s", text, forms);
	}
	return 0;
}

int probe_parse(struct arena *a, const char *text, bool health, struct config_probe *ret_probe,
	struct err *e)
{
	struct config_probe p = {.kind = PROBE_NONE, .text = text};

	if (health && (!text[0] || strcmp(text, "none") == 0)) {
		*ret_probe = p;
		return 0;
	}
	if (parse(a, text, &p, e) < 0)
		return ERR_CONFIG;
	if (health && p.kind == PROBE_NOTIFY)
		return err_set(e, ERR_CONFIG,
			"'notify' cannot be asked for: set 'watchdog', by which the program says "
			"WATCHDOG=1 again and again");
	if (health && (p.kind == PROBE_STARTSECS || p.kind == PROBE_FD || p.kind == PROBE_LOG))
		return err_set(e, ERR_CONFIG,
			"'%.60s' happens once and is for 'ready': here http:/PATH, tcp, "
			"http://HOST:PORT/PATH, tcp:HOST:PORT, exec:COMMAND or none can be used",
			text);
	*ret_probe = p;
	return 0;
}

/* [baton], [scheduler], sockets. */
#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "conf/load.h"
#include "conf/reader.h"
#include "conf/units.h"
#include "conf/words.h"

enum { SOCKET_LIMIT = 1000 };

static const char *file_stem(struct loader *l)
{
	const char *slash = strrchr(l->config->path, '/');
	const char *name = slash ? slash + 1 : l->config->path, *dot = strrchr(name, '.');

	if (reader_is_descriptor(l->config->path))
		return "stdin";
	return dot && dot > name ? arena_strndup(l->arena, name, (size_t)(dot - name))
				 : arena_strdup(l->arena, name);
}

static void add_pairs(struct loader *l, struct config_pair **all, size_t *count, size_t *capacity,
	const struct config_pair *more, size_t more_count)
{
	for (size_t i = 0; i < more_count; i++) {
		*all = arena_grow(l->arena, *all, *count, capacity, sizeof(**all));
		(*all)[(*count)++] = more[i];
	}
}

static void load_environment(struct loader *l, const struct expand_scope *scope)
{
	struct config_pair *all = NULL, *more;
	size_t count = 0, capacity = 0, more_count;
	struct setting s;
	const char *text;
	struct err e;

	s = setting_key(l->data, SECTION_BATON, NULL, NULL, "environment_file");
	text = s.text[0] ? load_expand(l, NULL, &s, scope) : NULL;
	if (text) {
		load_environment_file(l, NULL, &s, text, &more, &more_count);
		add_pairs(l, &all, &count, &capacity, more, more_count);
	}
	s = setting_key(l->data, SECTION_BATON, NULL, NULL, "environment");
	text = load_expand(l, NULL, &s, scope);
	if (text && words_pairs(l->arena, text, l->native, &more, &more_count, &e) < 0)
		load_report(l, false, NULL, &s, "%s", e.text);
	else if (text)
		add_pairs(l, &all, &count, &capacity, more, more_count);
	l->config->environment = all;
	l->config->environment_count = count;
}

/* supervisord has more levels than baton. */
static void load_loglevel(struct loader *l, const struct expand_scope *scope)
{
	static const char *const levels[][2] = {{"debug", "debug"}, {"info", "info"},
		{"warning", "warning"}, {"error", "error"}, {"warn", "warning"},
		{"critical", "error"}, {"crit", "error"}, {"trace", "debug"}, {"blather", "debug"},
		{"erro", "error"}, {"debg", "debug"}, {"trac", "debug"}, {"blat", "debug"}};
	struct setting s = setting_key(l->data, SECTION_BATON, NULL, NULL, "loglevel");
	const char *text = load_expand(l, NULL, &s, scope);

	l->config->loglevel = "info";
	for (size_t i = 0; text && i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (strcasecmp(text, levels[i][0]) == 0 && (i < 4 || !l->native)) {
			l->config->loglevel = levels[i][1];
			return;
		}
	}
	if (text)
		load_report(l, false, NULL, &s, "'%.60s' is none of %s", text, s.row->words);
}

static void load_baton(struct loader *l)
{
	struct config *c = l->config;
	struct expand_var host = {.name = "host_node_name", .text = l->data->host};
	struct expand_scope scope = {.vars = &host, .var_count = 1};
	struct setting s;
	const char *text;

	load_defaults(l, SECTION_BATON, c);
	load_environment(l, &scope);
	scope.environment[0] = c->environment;
	scope.environment_count[0] = c->environment_count;
	load_rows(l, SECTION_BATON, NULL, NULL, &scope, c);
	load_loglevel(l, &scope);
	if (!c->name[0])
		c->name = file_stem(l);
	s = setting_key(l->data, SECTION_BATON, NULL, NULL, "group");
	text = s.text[0] ? load_expand(l, NULL, &s, &scope) : NULL;
	if (text && load_group(l, NULL, &s, text, &c->user.gid)) {
		c->user.group_set = true;
		if (!c->user.set)
			load_report(l, false, NULL, &s, "needs 'user' beside it");
	}
	s = setting_key(l->data, SECTION_BATON, NULL, NULL, "on_fatal");
	c->on_fatal_set = s.source == SOURCE_FILE;
	if (!c->on_fatal_set && getpid() == 1)
		c->on_fatal = ON_END_EXIT;
}

/* --- [scheduler] ----------------------------------------------------------------------------- */

static const char *default_database(struct loader *l)
{
	const char *state = getenv("STATE_DIRECTORY"), *path = l->config->path;

	if (state && state[0] == '/') /* systemd separates several by colons */
		return arena_printf(
			l->arena, "%.*s/%s.db", (int)strcspn(state, ":"), state, file_stem(l));
	if (strncmp(path, "/etc/", 5) == 0 || strncmp(path, "/usr/", 5) == 0)
		return arena_printf(l->arena, "/var/lib/baton/%s.db", file_stem(l));
	return load_path(l->arena, true, l->config->directory_of_file, "baton.db");
}

static void load_database(
	struct loader *l, const struct ini_section *section, const struct expand_scope *scope)
{
	struct setting s = setting_key(l->data, SECTION_SCHEDULER, section, NULL, "database");
	const char *text = load_expand(l, section, &s, scope);

	l->config->scheduler.database = default_database(l);
	if (!text || !text[0])
		return;
	if (strncmp(text, "sqlite:", 7) == 0)
		text += 7;
	if (strncmp(text, "postgres://", 11) == 0 || strncmp(text, "postgresql://", 13) == 0)
		load_report(l, false, section, &s,
			"PostgreSQL is not supported yet; give the path of an SQLite file");
	else if (strstr(text, "://") || !text[0])
		load_report(l, false, section, &s, "neither a path nor sqlite:PATH");
	else
		l->config->scheduler.database = load_path(l->arena, true, s.here, text);
}

/* election.md: a holder that misses two heartbeats must still renew before others may think it
 * dead, with the margin for killing its executor taken off. */
static void check_ttl(struct loader *l, const struct ini_section *section)
{
	const struct config_scheduler *s = &l->config->scheduler;
	int64_t slack = s->heartbeat_ns / 4 < UNITS_SECOND_NS / 2 ? s->heartbeat_ns / 4
								  : UNITS_SECOND_NS / 2;
	int64_t needed = 3 * s->heartbeat_ns + s->ttl_ns / 50 + s->kill_grace_ns + slack;
	struct setting at = setting_key(l->data, SECTION_SCHEDULER, section, NULL, "ttl");

	if (s->ttl_ns >= needed)
		return;
	if (at.source == SOURCE_DEFAULT)
		at.place =
			setting_key(l->data, SECTION_SCHEDULER, section, NULL, "heartbeat").place;
	load_report(l, false, section, &at,
		"%.3f s is too short: it must be at least %.3f s = 3 * heartbeat (%.3f s) + 2%% of "
		"ttl (%.3f s) + kill_grace (%.3f s) + min(heartbeat / 4, 0.5 s) (%.3f s); raise "
		"ttl or lower heartbeat",
		(double)s->ttl_ns / 1e9, (double)needed / 1e9, 3.0 * (double)s->heartbeat_ns / 1e9,
		(double)(s->ttl_ns / 50) / 1e9, (double)s->kill_grace_ns / 1e9,
		(double)slack / 1e9);
}

/* A setting that would do nothing is not taken: two instances would believe in two locks. */
static void check_lock_name(struct loader *l, const struct ini_section *section)
{
	const char *name = l->config->scheduler.lock_name;
	struct setting s = setting_key(l->data, SECTION_SCHEDULER, section, NULL, "lock_name");

	if (!name[0])
		load_report(l, false, section, &s, "must not be empty");
	else if (strcmp(name, "scheduler") != 0)
		load_report(l, false, section, &s,
			"other names are not supported yet: an SQLite file holds one lock, "
			"'scheduler'; give each lock a 'database' of its own");
}

void load_scheduler(struct loader *l)
{
	const struct ini_section *section = ini_section(l->ini, "scheduler");
	struct config_scheduler *scheduler = &l->config->scheduler;
	struct expand_var host = {.name = "host_node_name", .text = l->data->host};
	struct expand_scope scope = {.vars = &host,
		.var_count = 1,
		.environment = {l->config->environment},
		.environment_count = {l->config->environment_count}};

	load_defaults(l, SECTION_SCHEDULER, scheduler);
	load_rows(l, SECTION_SCHEDULER, section, NULL, &scope, scheduler);
	load_database(l, section, &scope);
	check_lock_name(l, section);
	scheduler->enabled = section != NULL;
	check_ttl(l, section);
}

/* --- sockets --------------------------------------------------------------------------------- */

static int parse_host_port(struct loader *l, const char *text, struct config_socket *s)
{
	const char *colon = strrchr(text, ':'), *host = text;
	size_t bytes = colon ? (size_t)(colon - text) : 0;
	unsigned char address[sizeof(struct in6_addr)];
	int64_t port;

	if (!colon || units_integer(colon + 1, &port, NULL) < 0 || port < 0 || port > 65535)
		return -1;
	s->port = (int)port;
	s->family = AF_INET;
	if (bytes >= 2 && host[0] == '[' && host[bytes - 1] == ']') {
		host++;
		bytes -= 2;
		s->family = AF_INET6;
	} else if (memchr(host, ':', bytes)) {
		return -1; /* an IPv6 address needs its brackets */
	}
	s->host = bytes == 1 && host[0] == '*' ? "" : arena_strndup(l->arena, host, bytes);
	if (s->family == AF_INET6 && s->host[0] && inet_pton(AF_INET6, s->host, address) != 1 &&
		!strchr(s->host, '%'))
		return -1;
	return strpbrk(s->host, " /") ? -1 : 0;
}

/* A number, but not that of a port. (0 is one that the kernel chooses.) */
static bool port_is_wrong(const char *text)
{
	const char *colon = strrchr(text, ':'), *digits = colon ? colon + 1 : "";
	int64_t port;

	digits += *digits == '-';
	if (!*digits || digits[strspn(digits, "0123456789")] != '\0')
		return false;
	return units_integer(colon + 1, &port, NULL) < 0 || port < 0 || port > 65535;
}

static void parse_listen(struct loader *l, const struct ini_section *section,
	const struct setting *at, const char *text, struct config_socket *s)
{
	s->listen = text;
	s->host = s->path = "";
	if (strncmp(text, "unix:", 5) == 0) {
		s->family = AF_UNIX;
		s->path = text[5] == '@' ? text + 5 : load_path(l->arena, true, at->here, text + 5);
		if (strncmp(s->path, "//", 2) == 0)
			s->path++;
		if (!text[5])
			load_report(l, false, section, at, "a path must follow 'unix:'");
		else if (strlen(s->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
			load_report(l, false, section, at,
				"the path is %zu bytes long; a unix socket can have %zu",
				strlen(s->path), sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	} else if (port_is_wrong(text)) {
		load_report(
			l, false, section, at, "'%.100s': the port is not one of 1 to 65535", text);
	} else if (parse_host_port(l, text, s) < 0) {
		load_report(l, false, section, at,
			"'%.100s' is none of HOST:PORT, [::1]:PORT, :PORT, unix:PATH", text);
	}
}

static void load_socket(struct loader *l, struct ini_section *section)
{
	struct setting at = setting_key(l->data, SECTION_SOCKET, section, NULL, "listen");
	struct expand_var host = {.name = "host_node_name", .text = l->data->host};
	struct expand_scope scope = {.vars = &host,
		.var_count = 1,
		.environment = {l->config->environment},
		.environment_count = {l->config->environment_count}};
	struct config_socket *s;
	const char *text;

	l->sockets = arena_grow(
		l->arena, l->sockets, l->config->socket_count, &l->socket_capacity, sizeof(*s));
	section->index = (int)l->config->socket_count;
	s = &l->sockets[l->config->socket_count++];
	s->name = section->name + strlen("socket:");
	s->place = section->place;
	s->listen = s->host = s->path = "";
	s->owner = l->config->user;
	load_defaults(l, SECTION_SOCKET, s);
	load_rows(l, SECTION_SOCKET, section, NULL, &scope, s);
	if (!s->name[0] || strpbrk(s->name, " :/%,"))
		errlist_addf(l->findings, false, section->place.file, section->place.line,
			"[%.100s]: a name without spaces, ':', '/', ',' and '%%' must follow "
			"'socket:'",
			section->name);
	if (at.source == SOURCE_DEFAULT) {
		load_report(l, false, section, &at, "is missing");
		return;
	}
	text = load_expand(l, section, &at, &scope);
	if (text)
		parse_listen(l, section, &at, text, s);
}

void load_sections(struct loader *l)
{
	struct config *c = l->config;
	static const struct config_user nobody = {.name = "", .home = ""};

	c->user = c->control_owner = nobody;
	c->loglevel = "info";
	load_baton(l);
	for (struct ini_section *s = l->ini->first; s; s = s->next) {
		if (strncmp(s->name, "socket:", 7) != 0)
			continue;
		if (c->socket_count == SOCKET_LIMIT) {
			errlist_addf(l->findings, false, s->place.file, s->place.line,
				"more than %d sockets", SOCKET_LIMIT);
			break;
		}
		load_socket(l, s);
	}
	c->sockets = l->sockets;
}

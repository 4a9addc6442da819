/* SIGHUP and `baton reload`: read beside, validate whole, compare, then apply or drop. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/lookup.h"
#include "conf/reader.h"
#include "supervisor/core/rollout_fsm.h"
#include "supervisor/shell/state.h"

struct lines {
	char **items;
	size_t count;
};

static void add_line(struct lines *l, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void add_line(struct lines *l, const char *format, ...)
{
	char **more = realloc(l->items, (l->count + 1) * sizeof *more);
	va_list args;

	if (more == NULL)
		return;
	l->items = more;
	va_start(args, format);
	if (vasprintf(&more[l->count], format, args) >= 0)
		l->count++;
	va_end(args);
}

static void release_lines(struct lines *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i]);
	free(l->items);
}

static void add_lines(struct lines *l, const struct lines *more)
{
	for (size_t i = 0; i < more->count; i++)
		add_line(l, "%s", more->items[i]);
}

static void finish(struct supervisor *s, struct lines *l, bool ok, struct reload_result *ret)
{
	for (size_t i = 0; i < l->count; i++)
		logs_event(s->logs, ok ? LOGS_INFO : LOGS_ERROR,
			ok ? "reload.plan" : "reload.error", NULL, 0, "%s", l->items[i]);
	ret->ok = ok;
	ret->lines = l->items;
	ret->line_count = l->count;
}

void reload_result_release(struct reload_result *r)
{
	for (size_t i = 0; i < r->line_count; i++)
		free(r->lines[i]);
	free(r->lines);
	memset(r, 0, sizeof *r);
}

static void list_findings(struct lines *l, const struct errlist *findings)
{
	char text[2048];

	for (size_t i = 0; i < findings->count; i++)
		add_line(l, "%s%s", findings->items[i].warning ? "warning: " : "",
			err_format(&findings->items[i], text, sizeof text));
}

/* roll_on_reload = always: people deploy new code with HUP. */
static enum diff_class class_of(
	const struct config *c, const struct config_change *change, bool changed_only, bool retry)
{
	int position = config_find_program(c, change->program);

	if (retry && change->class != DIFF_ADDED && change->class != DIFF_REMOVED)
		return DIFF_ROLL;
	if (position >= 0 && !changed_only && c->programs[position].roll_on_reload_always &&
		(change->class == DIFF_SAME || change->class == DIFF_LIVE ||
			change->class == DIFF_COUNT))
		return DIFF_ROLL;
	return change->class;
}

/* The socket of C with the address of LIKE: it is the same listener under whatever name. */
static const struct config_socket *same_address(
	const struct config *c, const struct config_socket *like)
{
	char key[ADDRESS_KEY_BYTES], other[ADDRESS_KEY_BYTES];

	address_key(like, key, sizeof key);
	for (size_t i = 0; i < c->socket_count; i++) {
		address_key(&c->sockets[i], other, sizeof other);
		if (strcmp(key, other) == 0)
			return &c->sockets[i];
	}
	return NULL;
}

static void list_new_socket(struct supervisor *s, const struct config_socket *c, struct lines *l)
{
	const struct config_socket *before = same_address(s->config, c);

	if (before != NULL)
		add_line(l, "[socket:%s] %s: stays open, it was [socket:%s]", c->name, c->listen,
			before->name);
	else
		add_line(l, "[socket:%s] %s: %s", c->name, c->listen,
			listeners_find(s, c) != NULL ? "open already" : "opened");
}

/* TEXT: "[socket:a] listen: old -> new" */
static void list_moved_socket(
	struct supervisor *s, const struct config *next, const char *text, struct lines *l)
{
	const struct config_socket *c = NULL, *old = NULL, *heir;
	char start[256];

	for (size_t i = 0; i < next->socket_count && old == NULL; i++) {
		int position = config_find_socket(s->config, next->sockets[i].name);

		c = &next->sockets[i];
		snprintf(start, sizeof start, "[socket:%.200s] ", c->name);
		if (position >= 0 && strncmp(text, start, strlen(start)) == 0)
			old = &s->config->sockets[position];
	}
	if (old == NULL)
		return;
	heir = same_address(next, old);
	if (heir == c)
		add_line(l, "%s: the same address, it stays open", text);
	else if (heir != NULL)
		add_line(l, "%s: %s; the old one stays open as [socket:%s]", text,
			listeners_find(s, c) != NULL ? "open already" : "opened now", heir->name);
	else
		add_line(l, "%s: %s; the old one closes when no worker has it any more", text,
			listeners_find(s, c) != NULL ? "open already" : "opened now");
}

static void list_sockets(struct supervisor *s, const struct config *next,
	const struct config_diff *d, struct lines *l)
{
	const struct config *now = s->config;

	for (size_t i = 0; i < d->moved_count; i++)
		list_moved_socket(s, next, d->moved[i], l);
	for (size_t i = 0; i < next->socket_count; i++) {
		if (config_find_socket(now, next->sockets[i].name) < 0)
			list_new_socket(s, &next->sockets[i], l);
	}
	for (size_t i = 0; i < now->socket_count; i++) {
		const struct config_socket *c = &now->sockets[i];

		if (config_find_socket(next, c->name) < 0 && same_address(next, c) == NULL)
			add_line(l, "[socket:%s] %s: closed when no worker has it any more",
				c->name, c->listen);
	}
}

/* What this supervisor was started with counts: it is said at each reload until it is true. */
static void list_restarts(const struct supervisor *s, const struct config *next, struct lines *l)
{
	struct config_diff d;

	if (config_compare(s->booted, next, &d) < 0)
		return;
	for (size_t i = 0; i < d.restart_count; i++)
		add_line(l, "%s: needs a restart of baton, not applied", d.restart[i]);
	config_diff_release(&d);
}

static void list_unapplied(struct supervisor *s, const struct config *next, struct lines *l)
{
	char text[512];

	for (size_t i = 0; i < next->socket_count; i++) {
		if (listeners_unapplied(s, &next->sockets[i], text, sizeof text))
			add_line(l, "%s", text);
	}
}

/* Nobody wrote it: the lines of its jobs say what happens to it. */
static bool is_hidden(const struct config *c, const char *program)
{
	int position = config_find_program(c, program);

	return position >= 0 && c->programs[position].hidden;
}

static enum diff_class *compare(
	struct supervisor *s, const struct config *next, bool changed_only, struct lines *l)
{
	enum diff_class *classes = calloc(next->program_count + 1, sizeof *classes);
	struct config_diff d;
	char text[1024];

	if (classes == NULL || config_compare(s->config, next, &d) < 0) {
		free(classes);
		return NULL;
	}
	for (size_t i = 0; i < d.program_count; i++) {
		int position = config_find_program(next, d.programs[i].program);
		int slot = core_find_program(&s->core, d.programs[i].program);
		bool retry = slot >= 0 && rollout_wants_retry(&s->core.programs[slot]);
		enum diff_class class = class_of(next, &d.programs[i], changed_only, retry);

		if (position >= 0)
			classes[position] = class;
		if (class == DIFF_SAME || is_hidden(s->config, d.programs[i].program) ||
			is_hidden(next, d.programs[i].program))
			continue;
		reload_plan_program(s, next, &d.programs[i], class, text, sizeof text);
		add_line(l, "%s", text);
	}
	for (size_t i = 0; i < d.job_count; i++)
		add_line(l, "%s", d.jobs[i]);
	for (size_t i = 0; i < d.live_count; i++)
		add_line(l, "%s: applied in place", d.live[i]);
	list_sockets(s, next, &d, l);
	config_diff_release(&d);
	list_restarts(s, next, l);
	if (l->count == 0)
		add_line(l, "nothing has changed");
	return classes;
}

static void retire(struct supervisor *s, struct config *old)
{
	struct config **more = realloc(s->retired, (s->retired_count + 1) * sizeof *more);

	if (more == NULL)
		return; /* kept for ever rather than freed under a worker */
	s->retired = more;
	s->retired[s->retired_count++] = old;
}

static void adopt(struct supervisor *s, struct config *next, const enum diff_class *classes)
{
	struct event e = {.kind = EVENT_RELOAD,
		.worker = -1,
		.program = -1,
		.number = s->generation + 1, /* of whom, for those who wait for it */
		.config = next,
		.classes = classes}; /* freed once it is handled */
	enum logs_level level = LOGS_INFO;
	struct err err;

	retire(s, s->config);
	s->config = next;
	s->generation++;
	lock_reconfigure(s);
	(void)logs_level_parse(next->loglevel, &level);
	if (logs_configure(s->logs, s->booted->logfile, next->log_format, level, &err) < 0)
		logs_event(s->logs, LOGS_ERROR, "reload.log", NULL, 0,
			"%s; the log goes on as before", err.text);
	supervisor_post(s, &e);
	jobs_reloaded(s);
}

/* The section that asks for the election. */
static void print_election(const struct config *c, char *buf, size_t bytes)
{
	snprintf(buf, bytes, "[scheduler]");
	if (c->job_count > 0)
		snprintf(buf, bytes, "[job:%.100s]", c->jobs[0].name);
	for (size_t i = 0; i < c->program_count; i++) {
		if (c->programs[i].executor != EXECUTOR_NO && !c->programs[i].hidden)
			snprintf(buf, bytes, "'executor' in [program:%.100s]", c->programs[i].name);
	}
}

/* The lock's own identity stays what it was: two instances reloaded minutes apart would lead two
 * databases. */
static bool may_adopt(const struct supervisor *s, const struct config *next, struct lines *l)
{
	const struct config_scheduler *a = &s->config->scheduler, *b = &next->scheduler;

	if (a->enabled != b->enabled) {
		char who[160];
		print_election(b->enabled ? next : s->config, who, sizeof who);
		add_line(l,
			b->enabled ? "%s switches the election on: that needs a restart of baton"
				   : "without %s the election would be switched off: that needs a "
				     "restart of baton",
			who);
		return false;
	}
	if (!supervisor_has_room(s, EVENT_RELOAD, -1, 0, (struct config *)next)) {
		add_line(l,
			"that would be more workers, together with those that are to be replaced, "
			"than one supervisor can have");
		return false;
	}
	return true; /* another database is listed as "needs a restart"; the old one stays in use */
}

/* Names that would have to be asked for now. */
static bool is_later(struct supervisor *s, const struct config *next)
{
	for (size_t i = 0; next != NULL && i < next->socket_count; i++) {
		const struct config_socket *c = &next->sockets[i];
		const char *name = listener_name_to_ask(c);

		if (name[0] != '\0' && listeners_find(s, c) == NULL)
			(void)lookup(LOOKUP_HOST, c->family, name);
	}
	return lookup_missing() > 0;
}

/* Reading it would wait for what never comes. */
static bool is_spent(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return reader_is_descriptor(path);
	return !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

int reload_read(struct supervisor *s, struct config **ret_config, struct errlist *findings)
{
	lookup_may_wait(s->config == NULL);
	lookup_forget_missing();
	if (s->config_text != NULL)
		return config_load_text(
			s->config_path, s->config_text, s->force, ret_config, findings);
	if (s->config != NULL && is_spent(s->config_path)) {
		errlist_addf(findings, false, s->config_path, 0,
			"cannot read it a second time: this instance was started from a pipe. "
			"`baton restart --rolling` replaces workers with the configuration that "
			"runs; another configuration needs a restart of baton");
		return ERR_CONFIG;
	}
	return config_load(s->config_path, s->force, ret_config, findings);
}

void reload_plan(struct supervisor *s, bool changed_only, struct reload_result *ret_result)
{
	struct lines l = {NULL, 0}, plan = {NULL, 0};
	struct errlist findings;
	struct config *next = NULL;
	enum diff_class *classes = NULL;
	struct err e;

	errlist_init(&findings);
	(void)reload_read(s, &next, &findings);
	ret_result->later = is_later(s, next);
	if (ret_result->later) {
		config_unref(next);
		errlist_release(&findings);
		return;
	}
	list_findings(&l, &findings);
	ret_result->ok = findings.errors == 0 && next != NULL && may_adopt(s, next, &l);
	if (ret_result->ok && listeners_try(s, next, &e) < 0) {
		add_line(&l, "%s", e.text);
		ret_result->ok = false;
		ret_result->unavailable = true;
	}
	if (ret_result->ok) {
		classes = compare(s, next, changed_only, &plan);
		list_unapplied(s, next, &plan);
		add_lines(&l, &plan);
		ret_result->ok = classes != NULL;
	}
	release_lines(&plan);
	free(classes);
	config_unref(next);
	errlist_release(&findings);
	ret_result->lines = l.items;
	ret_result->line_count = l.count;
}

void reload_run(struct supervisor *s, bool changed_only, struct reload_result *ret_result)
{
	struct lines l = {NULL, 0}, plan = {NULL, 0};
	struct errlist findings;
	struct config *next = NULL;
	enum diff_class *classes = NULL;
	struct err e;
	bool ok, unavailable = false;

	ret_result->later = s->core.lifecycle.state == LIFECYCLE_BOOT;
	if (ret_result->later)
		return;
	errlist_init(&findings);
	(void)reload_read(s, &next, &findings);
	ret_result->later = is_later(s, next);
	if (ret_result->later) {
		config_unref(next);
		errlist_release(&findings);
		return;
	}
	stages_mend_control(s);
	parent_reload_begins(s);
	list_findings(&l, &findings);
	ok = findings.errors == 0 && next != NULL && s->core.lifecycle.state == LIFECYCLE_RUNNING &&
	     may_adopt(s, next, &l);
	if (ok)
		classes = compare(s, next, changed_only, &plan);
	ok = ok && classes != NULL;
	if (ok && listeners_open(s, next, &e) < 0) {
		add_line(&l, "%s", e.text);
		ok = false;
		unavailable = true;
	}
	if (ok)
		list_unapplied(s, next, &plan);
	if (ok) {
		adopt(s, next, classes);
		add_lines(&l, &plan);
	} else {
		free(classes);
		if (s->core.lifecycle.state != LIFECYCLE_RUNNING)
			add_line(&l, "the supervisor is %s: not reloaded",
				lifecycle_state_name(s->core.lifecycle.state));
		add_line(&l, "nothing was changed: everything goes on as before");
		config_unref(next);
	}
	errlist_release(&findings);
	release_lines(&plan);
	ret_result->unavailable = unavailable;
	finish(s, &l, ok, ret_result);
}

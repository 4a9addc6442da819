/* [program:NAME] and [group:NAME]. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "conf/load.h"
#include "conf/preset.h"
#include "conf/units.h"
#include "conf/words.h"

enum { PROGRAM_LIMIT = 10000, WORKER_LIMIT = 10000, EXIT_CODE_LIMIT = 256 };

/* One program while it is read. */
struct context {
	struct loader *l;
	struct ini_section *section;
	struct config_section *raw;
	struct config_program *p;
	struct expand_scope scope;
};

static struct setting get(const struct context *x, const char *key)
{
	return setting_key(x->l->data, SECTION_PROGRAM, x->section, x->raw->preset, key);
}

/* The expanded value in *RET_S; NULL after a finding. */
static const char *get_text(const struct context *x, const char *key, struct setting *ret_s)
{
	*ret_s = get(x, key);
	return load_expand(x->l, x->section, ret_s, &x->scope);
}

static void complain(
	const struct context *x, const struct setting *s, bool warning, const char *text)
{
	load_report(x->l, warning, x->section, s, "%s", text);
}

/* --- groups ---------------------------------------------------------------------------------- */

static void join_group(
	struct loader *l, struct ini_section *group, const struct setting *s, const char *name)
{
	struct ini_section *program = ini_section(
		l->ini, arena_printf(l->arena, "program:%s", name));

	if (program && program->group && program->group != group)
		load_report(l, !l->native, group, s, "'%.100s' is in [%.100s] already", name,
			program->group->name);
	else if (program)
		program->group = group;
	else if (!ini_section(l->ini, arena_printf(l->arena, "fcgi-program:%s", name)))
		load_report(l, false, group, s, "there is no [program:%.100s]", name);
}

static void load_groups(struct loader *l)
{
	struct expand_var host = {.name = "host_node_name", .text = l->data->host};
	struct expand_scope scope = {.vars = &host,
		.var_count = 1,
		.environment = {l->config->environment},
		.environment_count = {l->config->environment_count}};

	for (struct ini_section *g = l->ini->first; g; g = g->next) {
		struct setting s;
		const char *text;
		size_t count;
		char **names;
		if (strncmp(g->name, "group:", 6) != 0)
			continue;
		s = setting_key(l->data, SECTION_GROUP, g, NULL, "programs");
		if (s.source == SOURCE_DEFAULT) {
			load_report(l, false, g, &s, "is missing");
			continue;
		}
		text = load_expand(l, g, &s, &scope);
		names = words_list(l->arena, text ? text : "", l->native, &count);
		for (size_t i = 0; i < count; i++)
			join_group(l, g, &s, names[i]);
	}
}

static int group_priority(struct loader *l, const struct ini_section *group)
{
	struct setting s = setting_key(l->data, SECTION_GROUP, group, NULL, "priority");
	int64_t value = 999;
	struct err e;

	if (units_integer(s.text, &value, &e) < 0)
		load_report(l, false, group, &s, "%s", e.text);
	return value < INT_MIN ? INT_MIN : value > INT_MAX ? INT_MAX : (int)value;
}

/* --- single keys ----------------------------------------------------------------------------- */

static void load_workers(struct context *x)
{
	struct setting s = get(x, "numprocs"), other = get(x, "workers");
	const char *text;
	int64_t value = 1;
	struct err e;

	if (other.source == SOURCE_FILE && s.source == SOURCE_FILE)
		complain(x, &other, false, "is the same as numprocs: give one of them");
	if (other.source == SOURCE_FILE)
		s = other;
	x->p->workers = 1;
	text = load_expand(x->l, x->section, &s, &x->scope);
	if (!text)
		return;
	if (s.row == other.row && strcasecmp(text, "auto") == 0) {
		x->p->workers = load_cpus();
		x->p->workers_auto = true;
	} else if (units_integer(text, &value, &e) < 0) {
		complain(x, &s, false, e.text);
	} else if (value < 0 || value > WORKER_LIMIT) {
		load_report(x->l, !x->l->native && value < 0, x->section, &s,
			"%lld is not between 0 and %d", (long long)value, WORKER_LIMIT);
		x->p->workers = 0;
	} else {
		x->p->workers = (int)value;
	}
}

static void load_autorestart(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "autorestart", &s);
	bool yes;

	if (!text)
		return;
	if (strcasecmp(text, "unexpected") == 0)
		x->p->autorestart = AUTORESTART_UNEXPECTED;
	else if (units_boolean(text, &yes, NULL) == 0)
		x->p->autorestart = yes ? AUTORESTART_ALWAYS : AUTORESTART_NO;
	else
		load_report(x->l, false, x->section, &s, "'%.60s' is none of no, unexpected, yes",
			text);
}

static void load_exitcodes(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "exitcodes", &s);
	size_t count = 0;
	char **items = text ? words_list(x->l->arena, text, x->l->native, &count) : NULL;
	int *codes;

	if (count > EXIT_CODE_LIMIT) {
		complain(x, &s, false, "more exit codes than there are");
		return;
	}
	codes = arena_zero(x->l->arena, (count + 1) * sizeof(*codes));
	for (size_t i = 0; i < count; i++) {
		int64_t value;
		if (units_integer(items[i], &value, NULL) < 0 || value < 0 || value > 255)
			load_report(x->l, false, x->section, &s,
				"'%.60s' is not an exit status from 0 to 255", items[i]);
		else
			codes[i] = (int)value;
	}
	x->p->exitcodes = codes;
	x->p->exitcode_count = count;
}

static void load_replace(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "replace", &s);
	struct err e;
	int word;

	if (!text)
		return;
	if (strncasecmp(text, "signal:", 7) == 0) {
		if (units_signal(text + 7, &x->p->replace_signal, &e) < 0)
			complain(x, &s, false, e.text);
		x->p->replace = REPLACE_SIGNAL;
	} else if (units_word(text, "rolling|restart", &word, &e) == 0) {
		x->p->replace = word == 0 ? REPLACE_ROLLING : REPLACE_RESTART;
	} else {
		load_report(x->l, false, x->section, &s,
			"'%.60s' is none of rolling, restart, signal:NAME", text);
	}
}

static void load_roll(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "roll_on_reload", &s);
	struct err e;
	int word = 0;

	x->p->roll_on_reload_always = x->p->socket_count > 0;
	if (!text || s.source == SOURCE_DEFAULT)
		return;
	if (units_word(text, s.row->words, &word, &e) < 0)
		complain(x, &s, false, e.text);
	else
		x->p->roll_on_reload_always = word == 1;
}

/* What cannot run twice at once must not be asked to: a port of its own, for one. */
static void load_limits(struct context *x)
{
	struct setting surge = get(x, "surge"), missing = get(x, "max_unavailable");
	struct setting command = get(x, "command");
	bool twice = x->p->socket_count > 0 && !strstr(command.text, "%(process_num)");

	if (surge.source == SOURCE_DEFAULT)
		x->p->surge = twice &&
			      (missing.source == SOURCE_DEFAULT || x->p->max_unavailable == 0);
	if (missing.source == SOURCE_DEFAULT)
		x->p->max_unavailable = x->p->surge == 0;
	if (x->p->surge == 0 && x->p->max_unavailable == 0)
		complain(
			x, &missing, false, "0 beside surge = 0: no worker could ever be replaced");
}

static void load_program_sockets(struct context *x)
{
	struct setting s;
	const char *text = get_text(x, "sockets", &s);
	size_t count = 0;
	char **names = text ? words_list(x->l->arena, text, true, &count) : NULL;
	int *sockets = arena_zero(x->l->arena, (count + 1) * sizeof(*sockets));

	for (size_t i = 0; i < count; i++) {
		struct ini_section *section = ini_section(
			x->l->ini, arena_printf(x->l->arena, "socket:%s", names[i]));
		if (!section || section->index < 0) {
			load_report(x->l, false, x->section, &s, "there is no [socket:%.100s]",
				names[i]);
			continue;
		}
		for (size_t j = 0; j < x->p->socket_count; j++) {
			if (sockets[j] == section->index)
				load_report(x->l, false, x->section, &s, "'%.100s' is named twice",
					names[i]);
		}
		sockets[x->p->socket_count++] = section->index;
		if (x->raw->preset && x->raw->preset->unlinks_sockets)
			x->l->sockets[section->index].unlinked = true;
	}
	x->p->sockets = sockets;
}

static void load_preset(struct context *x)
{
	struct setting s = setting_key(x->l->data, SECTION_PROGRAM, x->section, NULL, "preset");
	const char *text = load_expand(x->l, x->section, &s, &x->scope);
	const struct preset *preset;

	x->p->preset = "";
	if (!text || !text[0])
		return;
	preset = preset_find(text);
	if (!preset)
		load_report(x->l, false, x->section, &s, "'%.60s' is no preset; there are %s", text,
			preset_names());
	else
		x->raw->preset = preset;
	if (!x->raw->preset)
		return;
	x->p->preset = preset->name;
	x->p->listen_variables = !preset->no_listen_variables;
	x->p->blocking_sockets = preset->blocking_sockets;
}

/* What only one worker can say (a path with its number in it) is left to worker_build. */
static enum config_output output_kind(const struct context *x, const char *key)
{
	struct setting s = get(x, key);
	const char *text = s.text + strspn(s.text, " \t");

	if (strcasecmp(text, "none") == 0 || strcasecmp(text, "off") == 0)
		return OUTPUT_NONE;
	if (strcasecmp(text, "auto") == 0)
		return OUTPUT_AUTO;
	if (!text[0] || strcasecmp(text, "inherit") == 0)
		return OUTPUT_INHERIT;
	if (strcasecmp(text, "syslog") == 0) {
		load_report(x->l, !x->l->native, x->section, &s, "syslog is not supported yet%s",
			x->l->native ? "" : "; the output goes to baton's own");
		return OUTPUT_INHERIT;
	}
	return OUTPUT_PATH;
}

static void load_outputs(struct context *x)
{
	struct config_program *p = x->p;
	struct setting s = get(x, "stderr_logfile");

	p->stdout_kind = output_kind(x, "stdout_logfile");
	p->stderr_kind = output_kind(x, "stderr_logfile");
	if (p->redirect_stderr && s.source == SOURCE_FILE && p->stderr_kind == OUTPUT_PATH)
		complain(x, &s, true, "not used: redirect_stderr is on");
}

/* --- a whole program ------------------------------------------------------------------------- */

void load_program_template(struct loader *l, struct config_program *p)
{
	memset(p, 0, sizeof(*p));
	p->umask = -1;
	p->nice = p->oom_score_adj = INT_MIN;
	p->handoff_timeout_ns = l->config->scheduler.handoff_timeout_ns;
	p->on_fatal = l->config->on_fatal;
	p->user.name = p->user.home = "";
	p->listen_variables = true;
	p->restart_jitter = p->kill_tree = p->set_user_env = l->native;
	p->restart_linear = !l->native;
	load_defaults(l, SECTION_PROGRAM, p);
}

static void check_name(struct context *x)
{
	const char *name = x->p->name;

	if (!name[0] || strpbrk(name, " :/\t\n"))
		errlist_addf(x->l->findings, false, x->section->place.file, x->section->place.line,
			"[%.100s]: a name without spaces, ':' and '/' must follow 'program:'",
			x->section->name);
	else if (x->l->native && (strcmp(name, "all") == 0 || strpbrk(name, "@*,")))
		errlist_addf(x->l->findings, false, x->section->place.file, x->section->place.line,
			"[%.100s]: 'all' and names with '@', '*' or ',' cannot be addressed",
			x->section->name);
}

struct config_program *load_program_add(
	struct loader *l, const struct config_program *template, struct ini_section *section)
{
	struct config_section *raw = arena_zero(l->arena, sizeof(*raw));
	struct config_program *p;

	l->programs = arena_grow(l->arena, l->programs, l->config->program_count,
		&l->program_capacity, sizeof(*l->programs));
	section->index = (int)l->config->program_count;
	p = &l->programs[l->config->program_count++];
	*p = *template;
	raw->ini = section;
	p->raw = raw;
	p->place = section->place;
	p->name = section->name + strlen("program:");
	p->group = section->group ? section->group->name + strlen("group:") : p->name;
	return p;
}

static void load_program(
	struct loader *l, struct ini_section *section, const struct config_program *template)
{
	struct context x = {.l = l, .section = section};
	struct setting s;

	x.p = load_program_add(l, template, section);
	x.raw = (struct config_section *)x.p->raw;
	check_name(&x);
	load_scope(l->config, x.p, l->arena, -1, NULL, &x.scope);
	load_preset(&x);
	load_rows(l, SECTION_PROGRAM, section, x.raw->preset, &x.scope, x.p);
	x.p->group_priority = section->group ? group_priority(l, section->group) : x.p->priority;
	load_workers(&x);
	load_autorestart(&x);
	load_exitcodes(&x);
	load_replace(&x);
	load_program_sockets(&x);
	load_probes(l, x.p);
	load_roll(&x);
	load_limits(&x);
	load_rlimits(l, SECTION_PROGRAM, section, &x.scope, &x.p->rlimits, &x.p->rlimit_count);
	load_outputs(&x);
	s = get(&x, "killasgroup");
	if (s.source == SOURCE_DEFAULT)
		x.p->killasgroup = x.p->stopasgroup;
	else if (x.p->stopasgroup && !x.p->killasgroup)
		complain(&x, &s, false, "cannot be off when stopasgroup is on");
	s = get(&x, "environment_file");
	if (s.text[0]) {
		const char *text = load_expand(l, section, &s, &x.scope);
		struct config_pair *pairs = NULL;
		if (text)
			load_environment_file(
				l, section, &s, text, &pairs, &x.raw->file_environment_count);
		x.raw->file_environment = pairs;
	}
}

/* --- depends_on ------------------------------------------------------------------------------ */

static void load_depends(struct loader *l, struct config_program *p)
{
	const struct ini_section *section = p->raw->ini;
	struct setting s = setting_key(l->data, SECTION_PROGRAM, section, NULL, "depends_on");
	struct expand_scope scope;
	struct config_depend *depends;
	const char *text;
	size_t count;
	char **items;

	if (!s.text[0])
		return;
	load_scope(l->config, p, l->arena, -1, NULL, &scope);
	text = load_expand(l, section, &s, &scope);
	items = words_list(l->arena, text ? text : "", true, &count);
	depends = arena_zero(l->arena, (count + 1) * sizeof(*depends));
	for (size_t i = 0; i < count; i++) {
		char *colon = strchr(items[i], ':');
		int what = DEPENDS_READY;
		struct ini_section *other;
		if (colon)
			*colon = '\0';
		other = ini_section(l->ini, arena_printf(l->arena, "program:%s", items[i]));
		if (!other || other->index < 0) {
			load_report(
				l, false, section, &s, "there is no [program:%.100s]", items[i]);
		} else if (colon && units_word(colon + 1, "ready|started|done", &what, NULL) < 0) {
			load_report(l, false, section, &s,
				"'%.60s' is none of ready, started, done", colon + 1);
		} else {
			depends[p->depend_count].program = other->index;
			depends[p->depend_count++].what = what;
		}
	}
	p->depends = depends;
}

void load_programs(struct loader *l)
{
	struct config_program template;

	load_groups(l);
	load_program_template(l, &template);
	for (struct ini_section *s = l->ini->first; s; s = s->next) {
		if (strncmp(s->name, "program:", 8) != 0)
			continue;
		if (l->config->program_count == PROGRAM_LIMIT) {
			errlist_addf(l->findings, false, s->place.file, s->place.line,
				"more than %d programs", PROGRAM_LIMIT);
			break;
		}
		load_program(l, s, &template);
	}
	l->config->programs = l->programs;
	for (size_t i = 0; i < l->config->program_count; i++)
		load_depends(l, &l->programs[i]);
}

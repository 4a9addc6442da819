/* One worker's own values: everything that may differ from its siblings'. */
#include <stdlib.h>
#include <string.h>

#include "conf/load.h"
#include "conf/preset.h"
#include "conf/probe.h"
#include "conf/words.h"

static const struct config_data *data_of(const struct worker_build *b)
{
	return b->config->private;
}

static const struct config_program *program_of(const struct worker_build *b)
{
	return &b->config->programs[b->program];
}

static bool is_native(const struct worker_build *b)
{
	return b->config->mode == CONFIG_NATIVE;
}

static void report(struct worker_build *b, const struct setting *s, bool warning, const char *text)
{
	const char *title = program_of(b)->raw->ini->name;

	if (b->findings)
		errlist_addf(b->findings, warning, s->place.file, s->place.line,
			"[%.100s] %.60s: %s", title, s->key, text);
	if (!b->findings && b->rc == 0)
		b->rc = err_set_at(b->err, ERR_CONFIG, s->place.file, s->place.line,
			"[%.100s] %.60s: %s", title, s->key, text);
}

static struct setting get(const struct worker_build *b, const char *key)
{
	const struct config_section *raw = program_of(b)->raw;

	return setting_key(data_of(b), SECTION_PROGRAM, raw->ini, raw->preset, key);
}

/* The expanded value; NULL after a report. */
static const char *get_text(
	struct worker_build *b, const char *key, struct expand_scope *scope, struct setting *ret_s)
{
	const char *text;
	struct err e;

	*ret_s = get(b, key);
	scope->here = ret_s->here;
	text = expand(b->arena, ret_s->text, scope, &e);
	if (!text)
		report(b, ret_s, false, e.text);
	return text;
}

void load_scope(const struct config *c, const struct config_program *p, struct arena *a, int index,
	const char *const *listen, struct expand_scope *ret_scope)
{
	size_t most = SCOPE_VARS + 2 * p->socket_count, n = 0, count = p->socket_count;
	struct expand_var *vars = arena_zero(a, most * sizeof(*vars));

	memset(ret_scope, 0, sizeof(*ret_scope));
	vars[n++] = (struct expand_var){.name = "program_name", .text = p->name};
	vars[n++] = (struct expand_var){.name = "group_name", .text = p->group};
	vars[n++] = (struct expand_var){
		.name = "host_node_name", .text = ((const struct config_data *)c->private)->host};
	if (index >= 0) {
		vars[n++] = (struct expand_var){
			.name = "process_num", .number = (long)p->numprocs_start + index};
		vars[n++] = (struct expand_var){.name = "numprocs", .number = p->workers};
		for (size_t i = 0; i < p->socket_count; i++) {
			const struct config_socket *s = &c->sockets[p->sockets[i]];
			vars[n].name = arena_printf(a, "fd_%s", s->name);
			vars[n++].number = 3 + (long)i;
			vars[n].name = arena_printf(a, "listen_%s", s->name);
			vars[n++].text = listen && listen[i] ? listen[i] : s->listen;
		}
		if (p->probe) {
			vars[n++] = (struct expand_var){
				.name = "fd_probe", .number = 3 + (long)count};
			vars[n++] = (struct expand_var){.name = "listen_probe",
				.text = listen && listen[count] ? listen[count] : "127.0.0.1:0"};
		}
	}
	ret_scope->vars = vars;
	ret_scope->var_count = n;
	ret_scope->environment[0] = c->environment;
	ret_scope->environment_count[0] = c->environment_count;
}

/* --- environment ----------------------------------------------------------------------------- */

struct ranked {
	struct config_pair pair;
	size_t rank;
};

static int by_key(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	int order = strcmp(x->pair.key, y->pair.key);

	return order ? order : x->rank < y->rank ? -1 : 1;
}

static int by_rank(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static size_t add(struct ranked *all, size_t n, const struct config_pair *pairs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		all[n + i] = (struct ranked){pairs[i], n + i};
	return n + count;
}

/* What the preset sets, for the addresses of this worker's sockets. */
static struct config_pair *preset_pairs(struct worker_build *b, size_t *ret_count)
{
	const struct config_program *p = program_of(b);
	const char **listen = arena_zero(b->arena, (p->socket_count + 2) * sizeof(*listen));
	size_t count = p->socket_count + p->probe;

	*ret_count = 0;
	if (!p->raw->preset)
		return NULL;
	for (size_t i = 0; i < p->socket_count; i++)
		listen[i] = b->listen && b->listen[i] ? b->listen[i]
						      : b->config->sockets[p->sockets[i]].listen;
	if (p->probe)
		listen[p->socket_count] = b->listen && b->listen[p->socket_count]
						  ? b->listen[p->socket_count]
						  : "127.0.0.1:0";
	return preset_environment(b->arena, p->raw->preset, listen, count, ret_count);
}

/* Lowest rank first: baton's, the preset's, the program's file, the program's own. */
static void merge_environment(
	struct worker_build *b, const struct config_pair *own, size_t own_count)
{
	const struct config *c = b->config;
	const struct config_section *raw = program_of(b)->raw;
	size_t preset_count, n = 0, kept = 0;
	const struct config_pair *preset = preset_pairs(b, &preset_count);
	struct config_pair *pairs;
	struct ranked *all;

	all = arena_zero(b->arena, (c->environment_count + preset_count +
					   raw->file_environment_count + own_count + 1) *
					   sizeof(*all));
	n = add(all, n, c->environment, c->environment_count);
	n = add(all, n, preset, preset_count);
	n = add(all, n, raw->file_environment, raw->file_environment_count);
	n = add(all, n, own, own_count);
	qsort(all, n, sizeof(*all), by_key);
	for (size_t i = 0; i < n; i++) {
		if (i + 1 == n || strcmp(all[i].pair.key, all[i + 1].pair.key) != 0)
			all[kept++] = all[i];
	}
	qsort(all, kept, sizeof(*all), by_rank);
	pairs = arena_zero(b->arena, (kept + 1) * sizeof(*pairs));
	for (size_t i = 0; i < kept; i++) {
		pairs[i].key = arena_strdup(b->arena, all[i].pair.key);
		pairs[i].value = arena_strdup(b->arena, all[i].pair.value);
	}
	if (raw->preset)
		preset_join(b->arena, raw->preset, pairs, kept,
			program_of(b)->socket_count + program_of(b)->probe);
	b->worker->environment = pairs;
	b->worker->environment_count = kept;
}

static void build_environment(struct worker_build *b, struct expand_scope *scope)
{
	struct setting s;
	const char *text = get_text(b, "environment", scope, &s);
	struct config_pair *own = NULL;
	size_t count = 0;
	struct err e;

	if (text && words_pairs(b->arena, text, is_native(b), &own, &count, &e) < 0) {
		report(b, &s, false, e.text);
		own = NULL;
		count = 0;
	}
	merge_environment(b, own, count);
	scope->environment[1] = b->worker->environment;
	scope->environment_count[1] = b->worker->environment_count;
}

/* --- name, directory, output ----------------------------------------------------------------- */

static void build_name(struct worker_build *b, struct expand_scope *scope)
{
	const struct config_program *p = program_of(b);
	struct setting s;
	const char *text = get_text(b, "process_name", scope, &s);
	bool numbered;

	if (!text)
		return;
	if (s.source == SOURCE_DEFAULT || !text[0])
		text = p->name;
	text += strspn(text, " \t\n");
	if (s.source == SOURCE_FILE && strpbrk(text, " :/"))
		report(b, &s, false, "a name cannot have spaces, ':' or '/' in it");
	/* Every worker needs a name of its own, also the ones that a scale adds later; and the
	 * first keeps its name then. */
	numbered = strstr(s.text, "%(process_num)") != NULL;
	if (!numbered && b->index > 0)
		text = arena_printf(b->arena, "%s_%02d", text, p->numprocs_start + b->index);
	b->worker->name = arena_strdup(b->arena, text);
}

static void build_directory(struct worker_build *b, struct expand_scope *scope)
{
	struct setting s;
	const char *text = get_text(b, "directory", scope, &s);

	if (text && is_native(b))
		text = load_path(b->arena, true, s.here, text);
	b->worker->directory = arena_strdup(b->arena, text ? text : "");
}

static char *build_output(struct worker_build *b, struct expand_scope *scope, const char *key,
	enum config_output kind)
{
	struct setting s;
	const char *text;

	if (kind != OUTPUT_PATH)
		return arena_strdup(b->arena, "");
	text = get_text(b, key, scope, &s);
	return arena_strdup(b->arena, text ? load_path(b->arena, is_native(b), s.here, text) : "");
}

/* --- ready, health --------------------------------------------------------------------------- */

static void build_probe(struct worker_build *b, struct expand_scope *scope, const char *key,
	const char *in_effect, struct config_probe *ret_probe)
{
	struct setting s;
	const char *text = get_text(b, key, scope, &s);
	struct err e;

	*ret_probe = (struct config_probe){.text = ""};
	if (!text)
		return;
	if (s.source != SOURCE_FILE) /* a preset's may not fit this command */
		text = in_effect;
	if (probe_parse(b->arena, text, strcmp(key, "health") == 0, ret_probe, &e) < 0)
		report(b, &s, false, e.text);
}

/* --- command --------------------------------------------------------------------------------- */

static void append_preset(struct worker_build *b, const struct setting *s)
{
	const struct config_program *p = program_of(b);
	size_t count = 0, more_count;
	char **more, **argv;
	struct text command;
	const char *bind = preset_own_bind(p->raw->preset, b->worker->argv);

	if (bind && p->socket_count > 0)
		report(b, s, false,
			arena_printf(b->arena,
				"'%s' beside 'sockets': the server would listen twice; take it "
				"out, baton passes the sockets",
				bind));
	if (p->probe && !bind && p->socket_count == 0 && p->raw->preset->bind_options &&
		!p->raw->preset->no_probe)
		report(b, s, false,
			arena_printf(b->arena,
				"%s would listen to its probe listener alone: name what it serves "
				"with 'sockets'",
				p->preset));
	more = preset_arguments(b->arena, p->raw->preset, b->worker->argv,
		p->socket_count + p->probe, p->ready == READY_LOG, &more_count);
	if (b->findings && !preset_wrapper(b->arena, p->raw->preset, b->worker->argv)) {
		const char *shell = preset_shell(b->worker->argv, more_count);

		if (shell)
			report(b, s, true, shell);
	}
	while (b->worker->argv[count])
		count++;
	argv = arena_zero(b->arena, (count + more_count + 1) * sizeof(*argv));
	memcpy(argv, b->worker->argv, count * sizeof(*argv));
	memcpy(argv + count, more, more_count * sizeof(*argv));
	text_init(&command, b->arena);
	text_puts(&command, b->worker->command);
	for (size_t i = 0; i < more_count; i++)
		text_printf(&command, strchr(more[i], ' ') ? " '%s'" : " %s", more[i]);
	b->worker->argv = argv;
	b->worker->command = text_string(&command);
}

static void build_command(struct worker_build *b, struct expand_scope *scope)
{
	const struct config_program *p = program_of(b);
	struct setting s;
	const char *text = get_text(b, "command", scope, &s);
	size_t count;
	struct err e;

	if (!text)
		return;
	b->worker->command = arena_strdup(b->arena, text);
	if (p->shell) {
		char **argv = arena_zero(b->arena, 4 * sizeof(*argv));
		argv[0] = arena_strdup(b->arena, "/bin/sh");
		argv[1] = arena_strdup(b->arena, "-c");
		argv[2] = b->worker->command;
		b->worker->argv = argv;
		return;
	}
	if (words_split(b->arena, text, is_native(b) ? WORDS_POSIX : WORDS_SHLEX, &b->worker->argv,
		    &count, &e) < 0) {
		/* supervisord finds out when it starts the program, and gives that one up */
		report(b, &s, !is_native(b), e.text);
		b->worker->argv = NULL;
		return;
	}
	if (count == 0) {
		report(b, &s, !is_native(b),
			s.source == SOURCE_DEFAULT ? "is missing"
						   : "is empty: there is nothing to run");
		b->worker->argv = NULL;
		return;
	}
	if (p->raw->preset)
		append_preset(b, &s);
}

/* The job worker: nothing of it is in the file. */
static void build_hidden(struct worker_build *b)
{
	char **argv = arena_zero(b->arena, 2 * sizeof(*argv));

	argv[0] = arena_strdup(b->arena, CONFIG_JOB_WORKER);
	b->worker->argv = argv;
	b->worker->command = argv[0];
	b->worker->name = arena_strdup(b->arena, CONFIG_JOBS_PROGRAM);
	merge_environment(b, NULL, 0);
}

void worker_build_run(void *build)
{
	struct worker_build *b = build;
	const struct config_program *p = program_of(b);
	struct config_worker *w = b->worker;
	struct expand_scope scope;

	w->name = w->command = w->directory = w->stdout_path = w->stderr_path = arena_strdup(
		b->arena, "");
	if (p->hidden) {
		build_hidden(b);
		return;
	}
	load_scope(b->config, p, b->arena, b->index, b->listen, &scope);
	build_environment(b, &scope);
	build_name(b, &scope);
	build_directory(b, &scope);
	w->stdout_path = build_output(b, &scope, "stdout_logfile", p->stdout_kind);
	w->stderr_path = build_output(
		b, &scope, "stderr_logfile", p->redirect_stderr ? OUTPUT_INHERIT : p->stderr_kind);
	build_probe(b, &scope, "ready", p->ready_text, &w->ready);
	build_probe(b, &scope, "health", p->health_text, &w->health);
	build_command(b, &scope);
}

int config_worker_build(const struct config *c, int program, int index, const char *const *listen,
	struct config_worker *ret_worker, struct err *e)
{
	struct config_worker worker = {0};
	struct arena *a = malloc(sizeof(*a));
	struct worker_build b = {.config = c,
		.program = program,
		.index = index,
		.listen = listen,
		.arena = a,
		.worker = &worker,
		.err = e};

	if (!a)
		return err_set(e, ERR_SYSTEM, "out of memory");
	arena_init(a);
	if (arena_run(a, worker_build_run, &b) < 0)
		b.rc = err_set(e, ERR_SYSTEM, "out of memory");
	worker.private = a;
	if (b.rc < 0) {
		config_worker_release(&worker);
		return b.rc;
	}
	*ret_worker = worker;
	return 0;
}

void config_worker_release(struct config_worker *w)
{
	if (w->private) {
		arena_release(w->private);
		free(w->private);
	}
	memset(w, 0, sizeof(*w));
}

/* The snapshot: made from a file, shared, released. */
#include "conf/config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "conf/load.h"
#include "conf/reader.h"
#include "conf/zone.h"

static const char *absolute(struct arena *a, const char *path)
{
	char cwd[PATH_MAX];

	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return arena_strdup(a, path);
	if (strncmp(path, "./", 2) == 0)
		path += 2;
	return arena_printf(a, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
}

static void load(void *argument)
{
	struct loader *l = argument;
	struct config *c = l->config;
	struct utsname host;
	const char *slash, *where;

	c->path = absolute(l->arena, l->path);
	where = reader_is_descriptor(c->path) ? absolute(l->arena, "stdin") : c->path;
	slash = strrchr(where, '/');
	c->directory_of_file = !slash ? ""
				      : arena_strndup(l->arena, where,
						slash == where ? 1 : (size_t)(slash - where));
	l->data->host = uname(&host) == 0 ? arena_strdup(l->arena, host.nodename) : "localhost";
	if (load_read(l, c->path) < 0)
		return;
	load_sections(l);
	load_scheduler(l);
	load_programs(l);
	load_jobs(l);
	load_check(l);
	load_check_jobs(l);
	load_order(l);
	sources_finish(&l->data->sources);
}

/* --- findings in the order of the files ------------------------------------------------------ */

struct sorted {
	struct err item;
	size_t file, number;
};

static int by_place(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->item.line != y->item.line)
		return x->item.line < y->item.line ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

static size_t file_number(const struct ini *ini, const char *file)
{
	for (size_t i = 0; i < ini->file_count; i++) {
		if (strncmp(ini->files[i].path, file, ERR_FILE_BYTES - 1) == 0)
			return i;
	}
	return file[0] ? ini->file_count : ini->file_count + 1;
}

/* The findings of this load, from FIRST on. Left as they are when memory is short. */
static void sort_findings(const struct ini *ini, struct errlist *findings, size_t first)
{
	size_t n = findings->count - first;
	struct sorted *all = n > 1 ? malloc(n * sizeof(*all)) : NULL;

	if (!all)
		return;
	for (size_t i = 0; i < n; i++) {
		all[i].item = findings->items[first + i];
		all[i].file = file_number(ini, all[i].item.file);
		all[i].number = i;
	}
	qsort(all, n, sizeof(*all), by_place);
	for (size_t i = 0; i < n; i++)
		findings->items[first + i] = all[i].item;
	free(all);
}

/* --- public ---------------------------------------------------------------------------------- */

static int load_from(const char *path, const char *text, enum config_force force,
	const struct config_sources *from, struct config **ret_config, struct errlist *findings)
{
	struct config_data *d = calloc(1, sizeof(*d));
	size_t first = findings->count, errors = findings->errors;
	struct loader l = {
		.data = d, .path = path, .text = text, .force = force, .findings = findings};

	if (!d) {
		errlist_addf(findings, false, path, 0, "cannot read: out of memory");
		return ERR_CONFIG;
	}
	arena_init(&d->arena);
	sources_init(&d->sources, &d->arena, from);
	arena_init(&l.scratch);
	l.config = &d->config;
	l.arena = &d->arena;
	l.ini = &d->ini;
	d->config.private = d;
	d->config.refs = 1;
	if (arena_run(&d->arena, load, &l) < 0)
		errlist_addf(findings, false, path, 0, "cannot read: out of memory");
	arena_release(&l.scratch);
	if (l.found_in_use)
		globfree(&l.found);
	sort_findings(&d->ini, findings, first);
	d->ini.findings = NULL;
	d->sources.from = NULL;
	*ret_config = &d->config;
	return findings->errors > errors ? ERR_CONFIG : 0;
}

/* Whole or not at all. */
static int load_whole(const char *path, const char *text, enum config_force force,
	const struct config_sources *from, struct config **ret_config, struct errlist *findings)
{
	struct config *made = NULL;
	int rc = load_from(path, text, force, from, &made, findings);

	if (rc == 0)
		*ret_config = made;
	else
		config_unref(made);
	return rc;
}

struct config *config_load_head(const char *path, enum config_force force)
{
	struct config *made = NULL;
	struct errlist findings;

	errlist_init(&findings);
	(void)load_from(path, NULL, force, NULL, &made, &findings);
	errlist_release(&findings);
	return made;
}

int config_load(const char *path, enum config_force force, struct config **ret_config,
	struct errlist *findings)
{
	return load_whole(path, NULL, force, NULL, ret_config, findings);
}

int config_load_text(const char *path, const char *text, enum config_force force,
	struct config **ret_config, struct errlist *findings)
{
	return load_whole(path, text, force, NULL, ret_config, findings);
}

int config_load_sources(const char *path, const char *text, enum config_force force,
	const struct config_sources *from, struct config **ret_config, struct errlist *findings)
{
	return load_whole(path, text, force, from, ret_config, findings);
}

const struct config_sources *config_sources(const struct config *c)
{
	const struct config_data *d = c->private;

	return &d->sources.kept;
}

struct config *config_ref(struct config *c)
{
	c->refs++;
	return c;
}

void config_unref(struct config *c)
{
	struct config_data *d;

	if (!c || --c->refs > 0)
		return;
	d = c->private;
	for (const struct zone_entry *z = d->zones; z; z = z->next)
		zone_free(z->zone);
	arena_release(&d->arena);
	free(d);
}

int config_find_program(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->program_count; i++) {
		if (strcmp(c->programs[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

int config_find_socket(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->socket_count; i++) {
		if (strcmp(c->sockets[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

int config_find_job(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->job_count; i++) {
		if (strcmp(c->jobs[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

/*
 * What conf/ makes of a file, for tests that compare it with somebody else's reading.
 *
 *   ini_dump raw compat|native FILE     section NUL key NUL value NUL ..., [DEFAULT] inherited
 *   ini_dump check FILE [compat|native] findings, one per line: "error ..." or "warning ..."
 *   ini_dump worker FILE                per program and worker: fields, each ended by NUL
 *   ini_dump dump|json FILE             as `baton check --dump`
 *   ini_dump diff OLD NEW               what a reload would change
 *   ini_dump manual                     the settings as baton.ini(5) lists them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/arena.h"
#include "conf/config.h"
#include "conf/ini.h"
#include "conf/schema.h"

struct raw {
	struct arena arena;
	struct errlist findings;
	const char *path;
	bool native;
};

static void put(const char *s)
{
	fwrite(s, 1, strlen(s) + 1, stdout);
}

static void put_number(long long n)
{
	printf("%lld%c", n, 0);
}

static void print_raw(void *argument)
{
	struct raw *r = argument;
	struct ini ini;

	ini_init(&ini, &r->arena, &r->findings, r->native);
	ini_read(&ini, r->path, false, NULL);
	for (const struct ini_section *s = ini.first; s; s = s->next) {
		const struct ini_entry *d = ini.defaults ? ini.defaults->first : NULL;
		for (const struct ini_entry *e = s->first; e; e = e->next) {
			put(s->title);
			put(e->key);
			put(e->value);
		}
		for (; d; d = d->next) {
			if (ini_get(&ini, s, d->key) != d)
				continue;
			put(s->title);
			put(d->key);
			put(d->value);
		}
	}
}

static void print_findings(const struct errlist *l, FILE *f)
{
	char line[ERR_FILE_BYTES + ERR_TEXT_BYTES + 32];

	for (size_t i = 0; i < l->count; i++)
		fprintf(f, "%s %s\n", l->items[i].warning ? "warning" : "error",
			err_format(&l->items[i], line, sizeof(line)));
}

static int raw(const char *mode, const char *path)
{
	struct raw r = {.path = path, .native = strcmp(mode, "native") == 0};
	int rc;

	arena_init(&r.arena);
	errlist_init(&r.findings);
	rc = arena_run(&r.arena, print_raw, &r);
	print_findings(&r.findings, stderr);
	rc = rc < 0 || r.findings.errors;
	errlist_release(&r.findings);
	arena_release(&r.arena);
	return rc;
}

static void print_worker(const struct config *c, int program, int index)
{
	const struct config_program *p = &c->programs[program];
	struct config_worker w;
	struct err e;

	if (config_worker_build(c, program, index, NULL, &w, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		exit(1);
	}
	put("worker");
	put(p->group);
	put(w.name);
	put(w.command);
	put(w.directory);
	put_number(p->priority);
	put_number(p->autostart);
	put_number(p->autorestart);
	put_number(p->startsecs_ns / 1000000000);
	put_number(p->startretries);
	put_number(p->stopsignal);
	put_number(p->stopwaitsecs_ns / 1000000000);
	put_number(p->stopasgroup);
	put_number(p->killasgroup);
	put_number(p->redirect_stderr);
	put_number(p->umask);
	put(p->stdout_kind == OUTPUT_PATH       ? w.stdout_path
		: p->stdout_kind == OUTPUT_AUTO ? "AUTO"
						: "NONE");
	put_number((long long)p->exitcode_count);
	for (size_t i = 0; i < p->exitcode_count; i++)
		put_number(p->exitcodes[i]);
	for (size_t i = 0; w.argv && w.argv[i]; i++)
		put(w.argv[i]);
	put("environment");
	for (size_t i = 0; i < w.environment_count; i++) {
		put(w.environment[i].key);
		put(w.environment[i].value);
	}
	put("end");
	config_worker_release(&w);
}

static int print_diff(const struct config *from, const struct config *to)
{
	static const char *const names[] = {"same", "live", "count", "roll", "added", "removed"};
	struct config_diff d;

	if (config_compare(from, to, &d) < 0)
		return 1;
	for (size_t i = 0; i < d.program_count; i++)
		printf("%s %s: %s\n", names[d.programs[i].class], d.programs[i].program,
			d.programs[i].text);
	for (size_t i = 0; i < d.restart_count; i++)
		printf("restart %s\n", d.restart[i]);
	for (size_t i = 0; i < d.live_count; i++)
		printf("live %s\n", d.live[i]);
	for (size_t i = 0; i < d.job_count; i++)
		printf("%s\n", d.jobs[i]);
	config_diff_release(&d);
	return 0;
}

static int show(const char *what, const struct config *c, const char *other)
{
	char *text;

	if (strcmp(what, "worker") == 0) {
		for (int i = 0; i < (int)c->program_count; i++) {
			for (int j = 0; j < c->programs[i].workers; j++)
				print_worker(c, i, j);
		}
	} else if (strcmp(what, "diff") == 0) {
		struct config *to;
		struct errlist findings;
		int rc = 1;
		errlist_init(&findings);
		if (config_load(other, CONFIG_DETECT, &to, &findings) == 0) {
			rc = print_diff(c, to);
			config_unref(to);
		}
		errlist_release(&findings);
		return rc;
	} else if (strcmp(what, "check") != 0) {
		if (config_dump(c, strcmp(what, "json") == 0, &text) < 0)
			return 1;
		fputs(text, stdout);
		free(text);
	}
	return 0;
}

/* One .TP per row; "\-" keeps roff from making hyphens of minus signs. */
static void print_roff(const char *s)
{
	for (; *s; s++) {
		if (*s == '-')
			fputs("\\-", stdout);
		else if (*s == '\\')
			fputs("\\e", stdout);
		else
			putchar(*s);
	}
}

static void print_row(const struct schema_row *row)
{
	static const char *const classes[] = {
		"", "", " Rolls the program.", " Needs a new supervisor.", ""};

	printf(".TP\n.BR %s", row->key);
	if (row->flags & SCHEMA_PREFIX)
		printf("\\fINAME\\fR");
	if (row->value[0] && row->compat && strcmp(row->value, row->compat) != 0)
		printf(" \" [%s; in compatibility mode %s]\"", row->value, row->compat);
	else if (row->value[0])
		printf(" \" [%s]\"", row->value);
	putchar('\n');
	print_roff(row->help);
	fputs(".", stdout);
	if (row->words) {
		fputs(" One of ", stdout);
		print_roff(row->words);
		fputs(".", stdout);
	}
	if (row->flags & (SCHEMA_LATER | SCHEMA_GROWS))
		fputs(" Not supported yet.", stdout);
	else if (row->flags & SCHEMA_NO_EFFECT)
		fputs(" Has no effect.", stdout);
	else
		fputs(classes[row->class], stdout);
	putchar('\n');
}

static int manual(void)
{
	static const char *const titles[] = {"[baton], also written [supervisord]", "[scheduler]",
		"[program:NAME]", "[socket:NAME]", "[group:NAME]", "[include]", "[job:NAME]",
		"[jobs]"};

	for (int section = SECTION_BATON; section <= SECTION_JOBS; section++) {
		printf(".SS %s\n", titles[section]);
		for (size_t i = 0; i < schema_row_count; i++) {
			if ((int)schema_rows[i].section == section)
				print_row(&schema_rows[i]);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	enum config_force force = CONFIG_DETECT;
	struct config *c = NULL;
	struct errlist findings;
	int rc;

	if (argc == 4 && strcmp(argv[1], "raw") == 0)
		return raw(argv[2], argv[3]);
	if (argc == 2 && strcmp(argv[1], "manual") == 0)
		return manual();
	if (argc < 3)
		return 2;
	if (argc > 3 && strcmp(argv[3], "compat") == 0)
		force = CONFIG_FORCE_COMPAT;
	if (argc > 3 && strcmp(argv[3], "native") == 0)
		force = CONFIG_FORCE_NATIVE;
	errlist_init(&findings);
	rc = config_load(argv[2], force, &c, &findings);
	print_findings(&findings, strcmp(argv[1], "check") == 0 ? stdout : stderr);
	if (rc == 0)
		rc = show(argv[1], c, argc > 3 ? argv[3] : "");
	config_unref(c);
	errlist_release(&findings);
	return rc ? 1 : 0;
}

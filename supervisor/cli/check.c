/* check, version: what needs no instance. */
#include "supervisor/cli/cli.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/jobs.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/rollout.h"

static json_t *finding_json(const struct err *e, bool strict)
{
	return json_pack("{s:s, s:i, s:s, s:s}", "file", e->file, "line", e->line, "level",
		e->warning && !strict ? "warning" : "error", "text", e->text);
}

static void print_findings(const struct errlist *l, bool strict)
{
	bool coloured = output_coloured(stderr);
	char text[ERR_FILE_BYTES + ERR_TEXT_BYTES + 32];

	for (size_t i = 0; i < l->count; i++) {
		const struct err *e = &l->items[i];
		bool warning = e->warning && !strict;
		fprintf(stderr, "%s%s%s%s\n", output_paint(coloured, warning ? CAREFUL : BAD),
			warning ? "warning: " : "", output_paint(coloured, PLAIN),
			err_format(e, text, sizeof(text)));
	}
}

static const char *plural(size_t n)
{
	return n == 1 ? "" : "s";
}

static void print_summary(const char *path, const struct config *config, size_t warnings)
{
	const struct config_scheduler *s = &config->scheduler;
	size_t programs = 0, workers = 0;

	for (size_t i = 0; i < config->program_count; i++) {
		if (config->programs[i].hidden)
			continue;
		programs++;
		workers += (size_t)config->programs[i].workers;
	}
	printf("%s: ok (%s): %zu program%s, %zu worker%s, %zu socket%s, ", path,
		config->mode == CONFIG_NATIVE ? "native" : "as supervisord's", programs,
		plural(programs), workers, plural(workers), config->socket_count,
		plural(config->socket_count));
	if (config->job_count)
		printf("%zu job%s, ", config->job_count, plural(config->job_count));
	printf("lock %s", s->enabled ? s->database : "none");
	if (warnings)
		printf("; %zu warning%s", warnings, plural(warnings));
	printf("\n");
}

static int dump(const struct cli *c, const struct config *config)
{
	char *text = NULL;

	if (config_dump(config, cli_has(c, OPTION_JSON), &text) != 0)
		return cli_fail(c, CLI_FAILED, NULL, "out of memory");
	fputs(text, stdout);
	if (text[0] && text[strlen(text) - 1] != '\n')
		putchar('\n');
	free(text);
	return CLI_OK;
}

static int print_json(const struct errlist *l, bool strict, bool good)
{
	json_t *findings = json_array(), *document;
	int rc;

	for (size_t i = 0; i < l->count; i++)
		json_array_append_new(findings, finding_json(&l->items[i], strict));
	document = json_pack("{s:b, s:o}", "ok", good, "findings", findings);
	rc = output_json(document);
	json_decref(document);
	return rc != 0 ? rc : good ? CLI_OK : CLI_CONFIG;
}

int cli_check(struct cli *c)
{
	const char *path = cli_config_path(c);
	bool strict = cli_has(c, OPTION_STRICT), good;
	struct config *config = NULL;
	struct errlist findings;
	int rc;

	if (cli_has(c, OPTION_PLAN) && (cli_has(c, OPTION_DUMP) || cli_has(c, OPTION_STRICT)))
		return cli_usage(c, "--plan stands alone: it asks the running instance");
	if (cli_has(c, OPTION_PLAN))
		return rollout_plan(c);
	if (cli_has(c, OPTION_SOCKET))
		return cli_usage(c, "--socket goes with --plan: nothing else asks an instance");
	if (!path)
		return cli_fail(c, CLI_CONFIG, "give one with -c FILE",
			"there is neither ./baton.ini nor /etc/baton/baton.ini");
	errlist_init(&findings);
	good = config_load(path, cli_force(c), &config, &findings) == 0;
	if (strict && findings.warnings > 0)
		good = false;
	if (cli_has(c, OPTION_JSON) && !cli_has(c, OPTION_DUMP)) {
		rc = print_json(&findings, strict, good);
	} else {
		print_findings(&findings, strict);
		if (!good) {
			size_t errors = findings.errors + (strict ? findings.warnings : 0);
			rc = cli_fail(c, CLI_CONFIG, NULL, "%s: %zu error%s", path, errors,
				plural(errors));
		} else if (cli_has(c, OPTION_DUMP)) {
			rc = dump(c, config);
		} else {
			print_summary(path, config, findings.warnings);
			rc = config->job_count ? jobs_print_coming(c, config) : CLI_OK;
		}
	}
	config_unref(config);
	errlist_release(&findings);
	return rc;
}

/* The libraries that are loaded, not the headers it was built with; asked for by name, since
 * their headers belong to other layers. */
static void library_versions(char *ev, size_t ev_bytes, const char **ret_sqlite)
{
	int (*major)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "ev_version_major");
	int (*minor)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "ev_version_minor");
	const char *(*sqlite)(void) = (const char *(*)(void))dlsym(
		RTLD_DEFAULT, "sqlite3_libversion");

	snprintf(ev, ev_bytes, "none");
	if (major && minor)
		snprintf(ev, ev_bytes, "%d.%d", major(), minor());
	*ret_sqlite = sqlite ? sqlite() : "none";
}

int cli_version(struct cli *c)
{
	const char *sqlite;
	char ev[32];

	library_versions(ev, sizeof(ev), &sqlite);
	if (cli_has(c, OPTION_JSON)) {
		json_t *d = json_pack("{s:s, s:s, s:i, s:{s:s, s:s, s:s}}", "version",
			BATON_VERSION, "compiler", __VERSION__, "control", CONTROL_VERSION,
			"libraries", "libev", ev, "sqlite", sqlite, "jansson",
			jansson_version_str());
		int rc = output_json(d);
		json_decref(d);
		return rc;
	}
	printf("baton %s\n", BATON_VERSION);
#ifdef __clang__
	printf("built with clang %s\n", __clang_version__);
#else
	printf("built with gcc %s\n", __VERSION__);
#endif
	printf("libev %s, SQLite %s, jansson %s, control protocol %d\n", ev, sqlite,
		jansson_version_str(), CONTROL_VERSION);
	return CLI_OK;
}

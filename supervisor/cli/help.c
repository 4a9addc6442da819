#include "supervisor/cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "conf/units.h"
#include "supervisor/cli/output.h"

const struct cli_command *cli_find_command(const struct cli_command *table, const char *name)
{
	for (; table->name; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}

static void print_later(const struct cli_command *table)
{
	int used = printf("Not yet:");

	for (; table->name; table++) {
		if (table->run)
			continue;
		if (used + 1 + (int)strlen(table->name) > 78)
			used = printf("\n        ") - 1;
		used += printf(" %s", table->name);
	}
	printf("\n");
}

int cli_help_all(const struct cli *c)
{
	bool coloured = output_coloured(stdout);
	struct output_table t;

	printf("baton %s: keeps the workers of a service alive, exactly one of them the "
	       "executor\n\n",
		BATON_VERSION);
	printf("Usage: baton [COMMAND] [OPTIONS] [WORDS]      (no command: run)\n\n");
	output_table_init(&t, 2);
	for (const struct cli_command *row = c->commands; row->name; row++) {
		if (!row->run)
			continue;
		output_cell(&t, STRONG, "  %s", row->name);
		output_cell(&t, PLAIN, "%s", row->help);
	}
	output_table_print(&t, stdout, coloured, 0);
	printf("\nOptions of most commands:\n");
	cli_print_options(CLI_BIT(CONFIG) | CLI_BIT(SOCKET) | CLI_BIT(JSON) | CLI_BIT(HELP));
	printf("\n`baton help COMMAND` tells more.\n");
	print_later(c->commands);
	return CLI_OK;
}

int cli_help_of(const struct cli_command *row)
{
	const char *more = strchr(row->usage, '\n');
	int words = more ? (int)(more - row->usage) : (int)strlen(row->usage);

	printf("Usage: baton %s%s%.*s [OPTIONS]\n\n%s%s\n\nOptions:\n", row->name, words ? " " : "",
		words, row->usage, row->help, more ? more : "");
	cli_print_options(row->options | CLI_BIT(HELP));
	return CLI_OK;
}

int cli_help(struct cli *c)
{
	const struct cli_command *row;

	if (c->word_count == 0)
		return cli_help_all(c);
	row = cli_find_command(c->commands, c->words[0]);
	if (!row)
		return cli_unknown_command(c, c->words[0]);
	if (!row->run)
		return cli_fail(c, CLI_USAGE, NULL, "'%s' is not supported yet", row->name);
	return cli_help_of(row);
}

int cli_unknown_command(const struct cli *c, const char *name)
{
	const char *best = NULL;
	int distance = 3;

	for (const struct cli_command *row = c->commands; row->name; row++) {
		int d = units_distance(name, row->name, distance);
		/* "stat" means "status", three letters away; "x" means nothing. */
		if (strlen(name) >= 3 && strncmp(name, row->name, strlen(name)) == 0)
			d = 0;
		if (row->run && d < distance && d < (int)strlen(name)) {
			best = row->name;
			distance = d;
		}
	}
	fprintf(stderr, "baton: %s: no such command", name);
	if (best)
		fprintf(stderr, "; did you mean '%s'?", best);
	fprintf(stderr, "\n  `baton help` lists the commands\n");
	return CLI_USAGE;
}

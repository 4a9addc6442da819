#include "supervisor/cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"
#include "supervisor/cli/output.h"

struct option_row {
	const char *name, *value, *help;
	int letter;
};

static const struct option_row rows[OPTION_COUNT] = {
#define X(id, name, letter, value, help) [OPTION_##id] = {name, value, help, letter},
	CLI_OPTIONS(X)
#undef X
};

enum { LONG_BASE = 256 };

bool cli_has(const struct cli *c, enum cli_option o)
{
	return (c->set & (UINT64_C(1) << o)) != 0;
}

const char *cli_option_name(enum cli_option o)
{
	return rows[o].name;
}

const char *cli_nearest_option(const struct cli *c, const char *argument)
{
	const char *best = NULL, *name = argument + strspn(argument, "-");
	int distance = 3;

	for (int i = 0; i < OPTION_COUNT && argument[1] == '-'; i++) {
		int d = units_distance(name, rows[i].name, distance);
		if ((c->command->options & (UINT64_C(1) << i)) && d < distance &&
			d < (int)strlen(name)) {
			best = rows[i].name;
			distance = d;
		}
	}
	return best;
}

/* "-1" is a word: `baton scale web -1`. */
static bool is_number(const char *argument)
{
	return argument[0] == '-' && argument[1] != '\0' &&
	       argument[1 + strspn(argument + 1, "0123456789")] == '\0';
}

static int take(struct cli *c, int o)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (o != LONG_BASE + i && o != rows[i].letter)
			continue;
		c->set |= UINT64_C(1) << i;
		c->values[i] = optarg;
		if (i == OPTION_BIND && c->bind_count++ < CLI_BINDS)
			c->binds[c->bind_count - 1] = optarg;
		return 0;
	}
	return -1;
}

static void build(struct option *long_options, char *letters, size_t bytes)
{
	size_t used = (size_t)snprintf(letters, bytes, "-:");

	for (int i = 0; i < OPTION_COUNT; i++) {
		long_options[i] = (struct option){.name = rows[i].name,
			.has_arg = rows[i].value ? required_argument : no_argument,
			.val = LONG_BASE + i};
		if (rows[i].letter)
			used += (size_t)snprintf(letters + used, bytes - used, "%c%s",
				rows[i].letter, rows[i].value ? ":" : "");
	}
}

/*
 * Words and options in any order; all that follows "--" is words. An option that nobody knows is
 * kept for later: whether it matters depends on the command, which may not be known yet.
 */
int cli_parse(struct cli *c, int argc, char **argv, char **words)
{
	struct option long_options[OPTION_COUNT + 1] = {{0}};
	char letters[2 * OPTION_COUNT + 4];
	int count = 0;

	build(long_options, letters, sizeof(letters));
	opterr = 0;
	c->unknown = "";
	for (;;) {
		int before = optind ? optind : 1, o;

		if (before < argc && is_number(argv[before])) {
			words[count++] = argv[before];
			optind = before + 1;
			continue;
		}
		o = getopt_long(argc, argv, letters, long_options, NULL);
		if (o == -1)
			break;
		if (o == 1)
			words[count++] = optarg;
		else if (o == ':')
			return cli_usage(c, "option '%s' needs a value", argv[optind - 1]);
		else if ((o == '?' || take(c, o) != 0) && c->unknown[0] == '\0')
			c->unknown = argv[optind > before ? optind - 1 : before];
	}
	c->plain_words = count;
	while (optind < argc)
		words[count++] = argv[optind++];
	words[count] = NULL;
	c->words = words;
	c->word_count = count;
	return 0;
}

int cli_foreign_option(const struct cli *c)
{
	uint64_t allowed = c->command->options | CLI_BIT(HELP);

	for (int i = 0; i < OPTION_COUNT; i++)
		if ((c->set & ~allowed) & (UINT64_C(1) << i))
			return i;
	return -1;
}

void cli_print_options(uint64_t options)
{
	struct output_table t;

	output_table_init(&t, 2);
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &rows[i];
		char letter[8] = "    ";

		if (!(options & (UINT64_C(1) << i)))
			continue;
		if (row->letter)
			snprintf(letter, sizeof(letter), "-%c, ", row->letter);
		output_cell(&t, PLAIN, "  %s--%s%s%s", letter, row->name, row->value ? " " : "",
			row->value ? row->value : "");
		output_cell(&t, PLAIN, "%s", row->help);
	}
	output_table_print(&t, stdout, false, 0);
}

/* `baton run ... -- COMMAND`: the INI text that the command line stands for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/cli.h"

#define RUN_OPTIONS                                                                                \
	(CLI_BIT(WORKERS) | CLI_BIT(BIND) | CLI_BIT(EXECUTOR) | CLI_BIT(PRESET) | CLI_BIT(NAME) |  \
		CLI_BIT(PRINT_CONFIG))

bool cli_run_has_command(const struct cli *c)
{
	return c->word_count > c->plain_words || (c->set & RUN_OPTIONS) != 0;
}

/* --- is it fit for a line of an INI file? ---------------------------------------------------- */

static bool is_name(const char *s)
{
	return s[0] != '\0' && s[0] != '-' && s[0] != '.' &&
	       s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")] ==
		       '\0';
}

static bool is_count(const char *s)
{
	return strcmp(s, "auto") == 0 ||
	       (s[0] >= '1' && s[0] <= '9' && s[strspn(s, "0123456789")] == '\0');
}

static bool is_one_line(const char *s)
{
	return s[strcspn(s, "\r\n")] == '\0';
}

/* A value without quotes: no white space, no comment. */
static bool is_plain(const char *s)
{
	for (const char *p = s; *p != '\0'; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return false;
	return s[0] != '\0' && s[0] != ';' && s[0] != '#';
}

static int check_options(const struct cli *c)
{
	const char *const *v = c->values;

	if (cli_has(c, OPTION_CONFIG))
		return cli_usage(c, "either a file (-c) or a command, not both");
	if (cli_has(c, OPTION_COMPAT))
		return cli_usage(c, "--compat is about a file; a command has none");
	if (c->plain_words > 0)
		return cli_usage(c, "unexpected '%s': the command stands behind --", c->words[0]);
	if (c->word_count == 0)
		return cli_usage(c, "the command is missing: baton run -w 4 -- COMMAND...");
	if (cli_has(c, OPTION_WORKERS) && !is_count(v[OPTION_WORKERS]))
		return cli_usage(c, "--workers '%s': neither a number from 1 on nor auto",
			v[OPTION_WORKERS]);
	if (cli_has(c, OPTION_NAME) && !is_name(v[OPTION_NAME]))
		return cli_usage(c, "--name '%s': letters, digits, '_', '-' and '.', please",
			v[OPTION_NAME]);
	if (cli_has(c, OPTION_PRESET) && !is_name(v[OPTION_PRESET]))
		return cli_usage(c, "--preset '%s': no preset has such a name", v[OPTION_PRESET]);
	if (c->bind_count > CLI_BINDS)
		return cli_usage(c, "more than %d times --bind", CLI_BINDS);
	for (int i = 0; i < c->bind_count; i++)
		if (!is_plain(c->binds[i]))
			return cli_usage(c,
				"--bind '%s': HOST:PORT, :PORT or unix:PATH without "
				"white space",
				c->binds[i]);
	for (int i = 0; i < c->word_count; i++)
		if (!is_one_line(c->words[i]))
			return cli_usage(c, "a word of the command has a line break in it: put "
					    "it into a script");
	return 0;
}

/* --- the text -------------------------------------------------------------------------------- */

/* "%" begins an expansion. */
static void put_percent(FILE *f, const char *s)
{
	for (; *s != '\0'; s++)
		fputs(*s == '%' ? "%%" : (char[]){*s, '\0'}, f);
}

/* One word, so that the split of a POSIX shell gives it back. */
static void put_word(FILE *f, const char *s)
{
	if (s[0] != '\0' && s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789_@+=:,./-")] == '\0') {
		fputs(s, f);
		return;
	}
	fputc('"', f);
	for (; *s != '\0'; s++) {
		if (strchr("\"\\$`", *s) != NULL)
			fputc('\\', f);
		fputs(*s == '%' ? "%%" : (char[]){*s, '\0'}, f);
	}
	fputc('"', f);
}

static void socket_name(int number, char *buf, size_t bytes)
{
	if (number == 0)
		snprintf(buf, bytes, "http");
	else
		snprintf(buf, bytes, "http%d", number + 1);
}

static void put_sockets(const struct cli *c, FILE *f)
{
	char name[32];

	for (int i = 0; i < c->bind_count; i++) {
		socket_name(i, name, sizeof(name));
		fprintf(f, "\n[socket:%s]\nlisten = ", name);
		put_percent(f, c->binds[i]);
		fputc('\n', f);
	}
}

static void put_program(const struct cli *c, FILE *f)
{
	char name[32];

	fprintf(f, "\n[program:%s]\ncommand =",
		cli_has(c, OPTION_NAME) ? c->values[OPTION_NAME] : "web");
	for (int i = 0; i < c->word_count; i++) {
		fputc(' ', f);
		put_word(f, c->words[i]);
	}
	fputc('\n', f);
	if (cli_has(c, OPTION_WORKERS))
		fprintf(f, "workers = %s\n", c->values[OPTION_WORKERS]);
	for (int i = 0; i < c->bind_count; i++) {
		socket_name(i, name, sizeof(name));
		fprintf(f, "%s%s", i == 0 ? "sockets = " : " ", name);
	}
	if (c->bind_count > 0)
		fputc('\n', f);
	if (cli_has(c, OPTION_PRESET))
		fprintf(f, "preset = %s\n", c->values[OPTION_PRESET]);
	if (cli_has(c, OPTION_EXECUTOR))
		fprintf(f, "executor = candidate\n");
}

static char *make_text(const struct cli *c)
{
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	if (f == NULL)
		return NULL;
	fprintf(f, "[baton]\n");
	if (cli_has(c, OPTION_NAME))
		fprintf(f, "name = %s\n", c->values[OPTION_NAME]);
	put_sockets(c, f);
	put_program(c, f);
	if (fclose(f) == 0)
		return text;
	free(text);
	return NULL;
}

static int check_text(const struct cli *c, const char *path, const char *text)
{
	char line[ERR_FILE_BYTES + ERR_TEXT_BYTES + 32];
	struct config *config = NULL;
	struct errlist findings;
	size_t errors;

	errlist_init(&findings);
	(void)config_load_text(path, text, CONFIG_FORCE_NATIVE, &config, &findings);
	for (size_t i = 0; i < findings.count; i++)
		if (!findings.items[i].warning)
			(void)cli_fail(c, CLI_USAGE, NULL, "%s",
				err_format(&findings.items[i], line, sizeof(line)));
	errors = findings.errors;
	errlist_release(&findings);
	config_unref(config);
	if (errors > 0)
		fprintf(stderr, "  --print-config shows the configuration that is meant, where it "
				"is valid\n");
	return errors > 0 ? CLI_USAGE : 0;
}

int cli_run_text(struct cli *c, char **ret_path, char **ret_text)
{
	const char *name = cli_has(c, OPTION_NAME) ? c->values[OPTION_NAME] : "baton";
	int rc = check_options(c);

	if (rc != 0)
		return rc;
	*ret_text = make_text(c);
	if (*ret_text == NULL || asprintf(ret_path, "%s.ini", name) < 0) {
		*ret_path = NULL;
		return cli_fail(c, CLI_FAILED, NULL, "out of memory");
	}
	rc = check_text(c, *ret_path, *ret_text);
	if (rc == 0 && cli_has(c, OPTION_PRINT_CONFIG))
		fputs(*ret_text, stdout);
	return rc;
}

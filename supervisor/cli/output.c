#include "supervisor/cli/output.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/cli/cli.h"

struct output_cell {
	char *text;
	enum output_colour colour;
};

bool output_coloured(FILE *to)
{
	const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");

	return isatty(fileno(to)) && (!no || !*no) && (!terminal || strcmp(terminal, "dumb") != 0);
}

int output_width(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return 0;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
		return size.ws_col;
	return 80;
}

int output_columns(const char *text)
{
	int columns = 0;

	for (; *text; text++)
		columns += ((unsigned char)*text & 0xc0) != 0x80;
	return columns;
}

const char *output_paint(bool coloured, enum output_colour colour)
{
	static const char *const codes[] = {
		[PLAIN] = "\033[0m",
		[GOOD] = "\033[32m",
		[BAD] = "\033[31m",
		[CAREFUL] = "\033[33m",
		[STRONG] = "\033[1m",
		[FAINT] = "\033[2m",
	};

	return coloured ? codes[colour] : "";
}

void output_table_init(struct output_table *t, int columns)
{
	*t = (struct output_table){.columns = columns};
}

/* What a worker says of itself may hold anything; a terminal must not obey it. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = ' ';
}

void output_cell(struct output_table *t, enum output_colour colour, const char *format, ...)
{
	va_list arguments;
	char *text = NULL;

	if (t->rows == t->capacity) {
		int capacity = t->capacity ? 2 * t->capacity : 64;
		struct output_cell *cells = realloc(t->cells, (size_t)capacity * sizeof(*cells));
		if (!cells)
			return;
		t->cells = cells;
		t->capacity = capacity;
	}
	va_start(arguments, format);
	if (!format)
		text = strdup("");
	else if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	if (!text)
		return;
	make_printable(text);
	t->cells[t->rows++] = (struct output_cell){.text = text, .colour = colour};
}

static void print_cell(const struct output_cell *cell, FILE *to, bool coloured, int width, int room)
{
	const char *text = cell->text;
	int columns = output_columns(text);
	size_t bytes = strlen(text);

	if (room > 3 && columns > room) {
		int left = room - 3;
		for (bytes = 0; text[bytes]; bytes++)
			if (((unsigned char)text[bytes] & 0xc0) != 0x80 && left-- == 0)
				break;
	}
	if (cell->colour != PLAIN)
		fputs(output_paint(coloured, cell->colour), to);
	fprintf(to, "%.*s%s", (int)bytes, text, text[bytes] ? "..." : "");
	if (cell->colour != PLAIN)
		fputs(output_paint(coloured, PLAIN), to);
	if (columns < width)
		fprintf(to, "%*s", width - columns, "");
}

/* WIDTH 0 = do not cut. */
void output_table_print(struct output_table *t, FILE *to, bool coloured, int width)
{
	int widths[OUTPUT_COLUMNS] = {0};

	for (int i = 0; i < t->rows; i++) {
		int columns = output_columns(t->cells[i].text);
		if (columns > widths[i % t->columns])
			widths[i % t->columns] = columns;
	}
	for (int i = 0; i + t->columns <= t->rows; i += t->columns) {
		int used = 0, last = t->columns - 1;

		while (last > 0 && t->cells[i + last].text[0] == '\0')
			last--;
		for (int k = 0; k < last; k++) {
			print_cell(&t->cells[i + k], to, coloured, widths[k] + 2, 0);
			used += widths[k] + 2;
		}
		print_cell(&t->cells[i + last], to, coloured, 0, width > 0 ? width - used : 0);
		fputc('\n', to);
	}
	for (int i = 0; i < t->rows; i++)
		free(t->cells[i].text);
	free(t->cells);
	output_table_init(t, t->columns);
}

int output_json(const json_t *document)
{
	if (json_dumpf(document, stdout, JSON_INDENT(2)) != 0)
		return CLI_FAILED;
	putchar('\n');
	return CLI_OK;
}

char *output_duration(int64_t ms, char *buf, size_t bytes)
{
	int64_t s = ms / 1000;

	if (ms < 0)
		snprintf(buf, bytes, "0s");
	else if (ms < 1000)
		snprintf(buf, bytes, "%dms", (int)ms);
	else if (s < 60)
		snprintf(buf, bytes, "%ds", (int)s);
	else if (s < 3600)
		snprintf(buf, bytes, "%dm %ds", (int)(s / 60), (int)(s % 60));
	else if (s < 86400)
		snprintf(buf, bytes, "%dh %dm", (int)(s / 3600), (int)(s / 60 % 60));
	else
		snprintf(buf, bytes, "%lldd %dh", (long long)(s / 86400), (int)(s / 3600 % 24));
	return buf;
}

char *output_time(int64_t wall_us, char *buf, size_t bytes)
{
	time_t seconds = (time_t)(wall_us / 1000000);
	char date[40];
	struct tm tm;

	if (wall_us <= 0 || !gmtime_r(&seconds, &tm) ||
		strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		snprintf(buf, bytes, "-");
	else
		snprintf(buf, bytes, "%s.%03dZ", date, (int)(wall_us % 1000000 / 1000));
	return buf;
}

int64_t output_parse_time(const char *text)
{
	struct tm tm = {0};
	const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	double fraction = 0;

	if (!rest)
		return 0;
	if (*rest == '.')
		fraction = strtod(rest, NULL);
	return (int64_t)timegm(&tm) * 1000000 + (int64_t)(fraction * 1e6);
}

int64_t output_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

const char *output_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

int64_t output_number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_real(value) ? (int64_t)json_real_value(value) : json_integer_value(value);
}

bool output_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

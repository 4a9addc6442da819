/* Cron expressions and their kin, from text. */
#include "conf/schedule.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "conf/schedule_internal.h"
#include "conf/units.h"

enum { WORD_BYTES = 80, EXPRESSION_BYTES = 1000, FIELDS_MOST = 16 };

#define EVERY_LEAST_NS (10 * INT64_C(1000000))
#define EVERY_MOST_NS  (3660 * INT64_C(86400) * UNITS_SECOND_NS)

void schedule_find(struct parser *p, bool warning, int column, const char *format, ...)
{
	struct schedule_findings *f = p->findings;
	struct schedule_finding *item;
	va_list arguments;

	if (!warning)
		f->errors++;
	if (f->count == SCHEDULE_FINDINGS)
		return;
	item = &f->items[f->count++];
	item->warning = warning;
	item->column = column;
	va_start(arguments, format);
	vsnprintf(item->text, sizeof(item->text), format, arguments);
	va_end(arguments);
}

/* --- @words ---------------------------------------------------------------------------------- */

static const struct {
	const char *word, *fields;
} words[] = {
	{"@every", NULL},
	{"@promotion", NULL},
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

/* "1h30m10s" too: the sum of its parts. */
static int durations(const char *text, size_t bytes, int64_t *ret_ns)
{
	int64_t sum = 0, ns;
	const char *end = text + bytes;

	while (text < end) {
		const char *p = text;
		char part[WORD_BYTES];
		while (p < end && (isdigit((unsigned char)*p) || *p == '.'))
			p++;
		while (p < end && !isdigit((unsigned char)*p))
			p++;
		snprintf(part, sizeof(part), "%.*s", (int)(p - text), text);
		if (p - text >= WORD_BYTES || units_duration(part, &ns, NULL) < 0 || ns < 0 ||
			__builtin_add_overflow(sum, ns, &sum))
			return -1;
		text = p;
	}
	*ret_ns = sum;
	return 0;
}

static void parse_every(struct parser *p, const char *text, int column)
{
	size_t bytes = strlen(text);
	int64_t ns;

	while (bytes > 0 && isspace((unsigned char)text[bytes - 1]))
		bytes--;
	if (bytes == 0) {
		schedule_find(p, false, column, "@every: how often? (@every 90s, @every 15m)");
	} else if (durations(text, bytes, &ns) < 0) {
		schedule_find(p, false, column,
			"@every: '%.*s' is not a duration such as 500ms, 90s, 15m, 1h30m or 7d",
			(int)(bytes > 60 ? 60 : bytes), text);
	} else if (ns < EVERY_LEAST_NS || ns > EVERY_MOST_NS) {
		schedule_find(p, false, column, "@every: '%.*s' is not between 10ms and 10 years",
			(int)(bytes > 60 ? 60 : bytes), text);
	} else {
		p->s.kind = SCHEDULE_EVERY;
		p->s.every_us = ns / 1000;
	}
}

static void unknown_word(struct parser *p, const char *word, int column)
{
	const char *near = NULL;
	int best = 3, distance;

	if (strcmp(word, "@reboot") == 0) {
		schedule_find(p, false, column,
			"@reboot: baton does not see the machine start; @promotion fires each time "
			"that an instance becomes the one that runs the jobs");
		return;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		distance = units_distance(word, words[i].word, best);
		if (distance < best) {
			best = distance;
			near = words[i].word;
		}
	}
	schedule_find(p, false, column,
		"'%.60s' is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, "
		"@annually, @every DURATION, @promotion%s%s%s",
		word, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void parse_word(struct parser *p, const char *text, int column)
{
	size_t bytes = strcspn(text, " \t\r\n"), i = 0;
	const char *rest = text + bytes + strspn(text + bytes, " \t\r\n");
	char word[WORD_BYTES];

	snprintf(word, sizeof(word), "%.*s", (int)(bytes < WORD_BYTES ? bytes : WORD_BYTES), text);
	for (char *c = word; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	while (i < sizeof(words) / sizeof(words[0]) && strcmp(word, words[i].word) != 0)
		i++;
	if (i == sizeof(words) / sizeof(words[0]))
		unknown_word(p, word, column);
	else if (strcmp(word, "@every") == 0)
		parse_every(p, rest, column + (int)(rest - text));
	else if (rest[0])
		schedule_find(p, false, column + (int)(rest - text),
			"'%.60s' after %s: nothing may follow it", rest, word);
	else if (words[i].fields)
		schedule_fields(p, words[i].fields, 0);
	else
		p->s.kind = SCHEDULE_PROMOTION;
}

/* --- public ---------------------------------------------------------------------------------- */

int schedule_parse(
	const char *text, struct schedule *ret_schedule, struct schedule_findings *ret_findings)
{
	struct parser p = {.findings = ret_findings};
	size_t skip = strspn(text, " \t\r\n");

	ret_findings->count = ret_findings->errors = 0;
	if (!text[skip])
		schedule_find(&p, false, 0,
			"is empty: give five fields (\"0 3 * * *\"), @daily, "
			"@every 90s or the like");
	else if (strlen(text) > EXPRESSION_BYTES)
		schedule_find(&p, false, 0, "is longer than %d bytes", EXPRESSION_BYTES);
	else if (text[skip] == '@')
		parse_word(&p, text + skip, (int)skip + 1);
	else
		schedule_fields(&p, text, 1);
	if (ret_findings->errors)
		return -1;
	if (p.s.kind == SCHEDULE_CRON && !schedule_has_date(&p.s)) {
		p.s.never = true;
		schedule_find(&p, true, 0, "there is no such date: it never fires");
	}
	*ret_schedule = p.s;
	return 0;
}

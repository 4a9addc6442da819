/* The fields of a cron expression. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "conf/schedule_internal.h"

enum { SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELDS };
enum { FIELDS_MOST = 32, SUNDAY = 7, LAST_MOST = 30, NTH_MOST = 5, WORD_MOST = 40 };

static const char *const months[] = {"january", "february", "march", "april", "may", "june", "july",
	"august", "september", "october", "november", "december", NULL};
static const char *const weekdays[] = {
	"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", NULL};

static const struct field {
	const char *name;
	int least, most;
	const char *const *words; /* for LEAST and up, also by their first three letters */
	const char *limits;       /* as people write them */
	const char *unit;         /* in which it begins anew */
} fields[FIELDS] = {
	{"second", 0, 59, NULL, "0 to 59", "minute"},
	{"minute", 0, 59, NULL, "0 to 59", "hour"},
	{"hour", 0, 23, NULL, "0 to 23", "day"},
	{"day of month", 1, 31, NULL, "1 to 31, L, LW, L-3, 15W", "month"},
	{"month", 1, 12, months, "1 to 12 or JAN to DEC", "year"},
	{"day of week", 0, 7, weekdays, "0 to 7 (0 and 7 are Sunday) or SUN to SAT, 5L, 5#2",
		"week"},
};

struct span { /* of the expression */
	const char *start, *end;
};

struct item { /* one element of a list */
	struct parser *parser;
	const struct field *field;
	const char *text, *at, *end;
	int column; /* of `text` */
	uint64_t *bits;
};

static void complain(struct item *it, bool warning, const char *at, const char *text)
{
	int bytes = (int)(it->end - it->text);

	schedule_find(it->parser, warning, it->column ? it->column + (int)(at - it->text) : 0,
		"%s '%.*s'%s: %s", it->field->name, bytes > WORD_MOST ? WORD_MOST : bytes, it->text,
		bytes > WORD_MOST ? "..." : "", text);
}

static void complain_limits(struct item *it, const char *at)
{
	complain(it, false, at, it->field->limits);
}

/* --- values ---------------------------------------------------------------------------------- */

static int by_name(const struct field *f, const char *word, size_t bytes)
{
	for (int i = 0; f->words && f->words[i]; i++) {
		if ((bytes == 3 || bytes == strlen(f->words[i])) &&
			strncasecmp(f->words[i], word, bytes) == 0)
			return f->least + i;
	}
	return -1;
}

/* A number or name of the field at it->at; -1 after a finding. */
static int value(struct item *it)
{
	const char *start = it->at, *p = start;
	int n = 0;

	if (p < it->end && isdigit((unsigned char)*p)) {
		for (; p < it->end && isdigit((unsigned char)*p); p++)
			n = n > 9999 ? n : 10 * n + (*p - '0');
	} else {
		while (p < it->end && isalpha((unsigned char)*p))
			p++;
		n = by_name(it->field, start, (size_t)(p - start));
		/* FRIL: the L is not of the name */
		if (n < 0 && p - start > 1 && toupper((unsigned char)p[-1]) == 'L')
			n = by_name(it->field, start, (size_t)(--p - start));
	}
	it->at = p;
	if (p > start && n >= it->field->least && n <= it->field->most)
		return n;
	complain_limits(it, start);
	return -1;
}

/* A plain number at it->at, or -1. */
static int number(struct item *it)
{
	int n = 0;

	if (it->at == it->end || !isdigit((unsigned char)*it->at))
		return -1;
	for (; it->at < it->end && isdigit((unsigned char)*it->at); it->at++)
		n = n > 99999 ? n : 10 * n + (*it->at - '0');
	return n;
}

static bool at_letter(const struct item *it, char letter)
{
	return it->at < it->end && toupper((unsigned char)*it->at) == letter;
}

/* --- ranges and steps ------------------------------------------------------------------------ */

static void print_value(const struct field *f, int n, char *buf, size_t bytes)
{
	if (f->words)
		snprintf(buf, bytes, "%.3s", f->words[f->words == weekdays ? n % 7 : n - f->least]);
	else
		snprintf(buf, bytes, "%d", n);
	for (char *p = buf; *p; p++)
		*p = (char)toupper((unsigned char)*p);
}

/* cronie takes none of them, or takes them and never fires. */
static void complain_backwards(struct item *it, int from, int to)
{
	const struct field *f = it->field;
	char text[120], a[8], b[8], first[8], last[8];
	int most = f->words == weekdays ? 6 : f->most;

	from = f->words == weekdays ? from % 7 : from;
	print_value(f, from, a, sizeof(a));
	print_value(f, to, b, sizeof(b));
	print_value(f, f->least, first, sizeof(first));
	print_value(f, most, last, sizeof(last));
	if (f->words == weekdays && from <= to)
		snprintf(text, sizeof(text), "runs backwards: write %s-%s", a, b);
	else if (f->words == weekdays)
		snprintf(text, sizeof(text), "runs backwards: write %s-SUN,%s%s%s", a, "MON",
			to > 1 ? "-" : "", to > 1 ? b : "");
	else
		snprintf(text, sizeof(text), "runs backwards: write %s%s%s,%s%s%s", a,
			from < most ? "-" : "", from < most ? last : "", first,
			to > f->least ? "-" : "", to > f->least ? b : "");
	complain(it, false, it->text, text);
}

static void set(struct item *it, int from, int to, int step)
{
	for (int n = from; n <= to; n += step)
		*it->bits |= UINT64_C(1) << (it->field->words == weekdays ? n % SUNDAY : n);
}

/* What people do not expect of a step. */
static void look_at_step(struct item *it, int from, int to, int step, bool whole)
{
	const struct field *f = it->field;
	char text[160], first[8], last[8];
	int of_last = from + (to - from) / step * step;

	print_value(f, from, first, sizeof(first));
	print_value(f, of_last, last, sizeof(last));
	if (step > 1 && step > to - from) {
		snprintf(text, sizeof(text),
			"a step of %d leaves only %s: steps count within the %s", step, first,
			f->unit);
		complain(it, true, it->text, text);
	} else if (whole && (to - from + 1) % step != 0) {
		snprintf(text, sizeof(text),
			"steps begin anew in each %s: after %s comes %s (write %d-%d/%d if so "
			"meant)",
			f->unit, last, first, from, to, step);
		complain(it, true, it->text, text);
	}
}

/* After FROM-TO: an optional step, and the end. WHOLE: it was a `*`. OPEN: TO was not written. */
static void finish_range(struct item *it, int from, int to, bool whole, bool open)
{
	int step = 1;

	if (it->at < it->end && *it->at == '/') {
		const char *slash = it->at++;
		step = number(it);
		if (step <= 0) {
			complain(it, false, slash,
				step == 0 ? "a step of 0 would stand still: 1 or more"
					  : "a number must follow the '/'");
			return;
		}
		if (open)
			to = it->field->words == weekdays && from < SUNDAY ? 6 : it->field->most;
		look_at_step(it, from, to, step, whole);
	}
	if (it->at < it->end)
		complain_limits(it, it->at);
	else if (from > to)
		complain_backwards(it, from, to);
	else
		set(it, from, to, step);
}

/* --- days ------------------------------------------------------------------------------------ */

/* L, LW, L-3 */
static void last_day(struct item *it)
{
	struct schedule *s = &it->parser->s;
	int n = 0;

	it->at++;
	if (at_letter(it, 'W') && it->at + 1 == it->end) {
		s->last_nearest = true;
		return;
	}
	if (it->at < it->end && *it->at == '-') {
		it->at++;
		n = number(it);
	}
	if (n < 0 || n > LAST_MOST || it->at < it->end)
		complain(it, false, it->text,
			"after L comes nothing, W, or -1 to -30 (L-3: three days before the last)");
	else
		s->last |= UINT32_C(1) << n;
}

/* What follows a value in the fields of days; false: nothing that is only known there. */
static bool day_suffix(struct item *it, int n)
{
	struct schedule *s = &it->parser->s;
	int k;

	if (it->field == &fields[DAY] && at_letter(it, 'W') && it->at + 1 == it->end) {
		s->nearest |= UINT32_C(1) << n;
		return true;
	}
	if (it->field != &fields[WEEKDAY])
		return false;
	if (at_letter(it, 'L') && it->at + 1 == it->end) {
		s->last_weekdays |= (uint8_t)(1u << n % SUNDAY);
		return true;
	}
	if (it->at == it->end || *it->at != '#')
		return false;
	it->at++;
	k = number(it);
	if (k < 1 || k > NTH_MOST || it->at < it->end)
		complain(it, false, it->text,
			"after # comes 1 to 5 (5#2: the second Friday); for the last write 5L");
	else
		s->nth_weekdays[k] |= (uint8_t)(1u << n % SUNDAY);
	return true;
}

/* --- one element ----------------------------------------------------------------------------- */

static bool has_letter(const struct item *it, char letter)
{
	for (const char *p = it->text; p < it->end; p++) {
		if (*p == letter)
			return true;
	}
	return false;
}

/* Words of other programs that mean something, said as such. True: there was one. */
static bool foreign(struct item *it)
{
	bool weekday = it->field == &fields[WEEKDAY];

	if (weekday && at_letter(it, 'L') && it->at + 1 == it->end)
		complain(it, false, it->text,
			"L needs a day before it: 6L or SATL is the last Saturday of the month, "
			"SAT every Saturday");
	else if (*it->at == '?' && it->at + 1 == it->end)
		complain(it, false, it->text,
			"'?' stands for '*' in the fields of days only (a field of years must be "
			"left off)");
	else if (at_letter(it, 'H') && by_name(it->field, it->at, (size_t)(it->end - it->at)) < 0)
		complain(it, false, it->text,
			"H (Jenkins' hash) is not known: write a number, and 'jitter' in the job "
			"to spread its starts");
	else if (has_letter(it, '~'))
		complain(it, false, it->text,
			"'~' (random) is not known, as all instances must agree: write a number, "
			"and 'jitter' in the job to spread its starts");
	else
		return false;
	return true;
}

static void element(struct item *it)
{
	const struct field *f = it->field;
	bool day = f == &fields[DAY], weekday = f == &fields[WEEKDAY];
	int from, to;

	if (it->at == it->end) {
		complain(it, false, it->text, "an element of the list is missing");
		return;
	}
	if (*it->at == '*' || ((day || weekday) && *it->at == '?' && it->at + 1 == it->end)) {
		it->at++;
		finish_range(it, f->least, weekday ? 6 : f->most, true, false);
		return;
	}
	if (foreign(it))
		return;
	if (day && at_letter(it, 'L')) {
		last_day(it);
		return;
	}
	from = value(it);
	if (from < 0 || day_suffix(it, from))
		return;
	if (it->at == it->end || *it->at != '-') {
		finish_range(it, from, from, false, true);
		return;
	}
	it->at++;
	to = value(it);
	if (to < 0)
		return;
	if (weekday && to == 0 && from > 0)
		to = SUNDAY; /* FRI-SUN */
	finish_range(it, from, to, false, false);
}

/* --- a whole field --------------------------------------------------------------------------- */

static uint64_t read_field(struct parser *p, int number, struct span field, int column)
{
	uint64_t bits = 0;
	const char *start = field.start;

	for (;;) {
		const char *comma = memchr(start, ',', (size_t)(field.end - start));
		struct item it = {.parser = p,
			.field = &fields[number],
			.text = start,
			.at = start,
			.end = comma ? comma : field.end,
			.column = column ? column + (int)(start - field.start) : 0,
			.bits = &bits};
		element(&it);
		if (!comma)
			return bits;
		start = comma + 1;
	}
}

static bool has_digit_alone(struct span field)
{
	for (const char *p = field.start; p < field.end; p++) {
		if (isdigit((unsigned char)*p) &&
			(p == field.start || p[-1] == ',' || p[-1] == '-'))
			return true;
	}
	return false;
}

static void look_at_days(
	struct parser *p, struct span day, struct span weekday, int column, bool six)
{
	struct schedule *s = &p->s;
	bool any_day = *day.start == '*' || *day.start == '?';
	bool any_weekday = *weekday.start == '*' || *weekday.start == '?';

	s->both_days = any_day || any_weekday;
	if (p->findings->errors)
		return;
	if (!s->both_days)
		schedule_find(p, true, column,
			"day of month '%.*s' and day of week '%.*s': either is enough, as in cron; "
			"for the first Tuesday of a month write '* * TUE#1' as the last three "
			"fields",
			(int)(day.end - day.start > WORD_MOST ? WORD_MOST : day.end - day.start),
			day.start,
			(int)(weekday.end - weekday.start > WORD_MOST
					? WORD_MOST
					: weekday.end - weekday.start),
			weekday.start);
	if (six && (*day.start == '?' || *weekday.start == '?') && has_digit_alone(weekday))
		schedule_find(p, true, column ? column + (int)(weekday.start - day.start) : 0,
			"day of week '%.*s' is counted as cron does (1 is Monday); in Quartz 1 is "
			"Sunday: a name is clear (MON)",
			(int)(weekday.end - weekday.start > WORD_MOST
					? WORD_MOST
					: weekday.end - weekday.start),
			weekday.start);
}

/* Not five and not six. */
static void wrong_count(struct parser *p, const struct span *found, int count, int column)
{
	bool years = count == 7;

	for (const char *c = found[6 < count ? 6 : 0].start; years && c < found[6].end; c++)
		years = isdigit((unsigned char)*c) || strchr("*?-/,", *c);
	if (years)
		schedule_find(p, false, column + (int)(found[6].start - found[0].start),
			"seven fields: there is none for years, leave off '%.*s'",
			(int)(found[6].end - found[6].start), found[6].start);
	else if (count > 6)
		schedule_find(p, false, column + (int)(found[5].start - found[0].start),
			"more than six fields from here on: what shall run stands in 'command'");
	else
		schedule_find(p, false, 0,
			"%d field%s: five are needed (minute, hour, day of month, month, day of "
			"week), or six with seconds first, or @daily and the like",
			count, count == 1 ? "" : "s");
}

/* "CRON_TZ=Asia/Tokyo 0 5 * * *" */
static bool zone_in_front(struct parser *p, struct span first, int column)
{
	const char *sign = memchr(first.start, '=', (size_t)(first.end - first.start));
	int bytes;

	if (!sign)
		return false;
	bytes = (int)(first.end - sign - 1);
	schedule_find(p, false, column,
		"'%.*s': the zone stands in a setting of its own: timezone = %.*s",
		(int)(first.end - first.start > WORD_MOST ? WORD_MOST : first.end - first.start),
		first.start, bytes > WORD_MOST ? WORD_MOST : bytes, sign + 1);
	return true;
}

static int split(const char *text, struct span *found)
{
	int count = 0;

	for (;;) {
		text += strspn(text, " \t\r\n");
		if (!*text)
			return count;
		if (count == FIELDS_MOST)
			return count;
		found[count].start = text;
		text += strcspn(text, " \t\r\n");
		found[count++].end = text;
	}
}

void schedule_fields(struct parser *p, const char *text, int column)
{
	struct span found[FIELDS_MOST] = {{NULL, NULL}};
	int count = split(text, found), skip = FIELDS - count;
	uint64_t bits[FIELDS] = {1}; /* without a field of seconds: second 0 */
	struct schedule *s = &p->s;

	if (column)
		column += (int)(found[0].start - text);
	if (zone_in_front(p, found[0], column))
		return;
	if (count != 5 && count != 6) {
		wrong_count(p, found, count, column);
		return;
	}
	for (int i = 0; i < count; i++) {
		int at = column ? column + (int)(found[i].start - found[0].start) : 0;
		bits[i + skip] = read_field(p, i + skip, found[i], at);
		if (i + skip <= HOUR && *found[i].start == '*')
			s->wild = true;
	}
	s->kind = SCHEDULE_CRON;
	s->six = count == 6;
	s->seconds = bits[SECOND];
	s->minutes = bits[MINUTE];
	s->hours = (uint32_t)bits[HOUR];
	s->days = (uint32_t)bits[DAY];
	s->months = (uint32_t)bits[MONTH];
	s->weekdays = (uint8_t)bits[WEEKDAY];
	look_at_days(p, found[DAY - skip], found[WEEKDAY - skip],
		column ? column + (int)(found[DAY - skip].start - found[0].start) : 0, s->six);
}

#include "conf/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

enum { NUMBER_BYTES = 64 };

/* The value without the white space around it, in BUF; false when it is too long for any value of
 * these kinds. */
static bool take(const char *text, char buf[NUMBER_BYTES])
{
	const char *end = text + strlen(text);

	while (isspace((unsigned char)*text))
		text++;
	while (end > text && isspace((unsigned char)end[-1]))
		end--;
	if (end - text >= NUMBER_BYTES)
		return false;
	memcpy(buf, text, (size_t)(end - text));
	buf[end - text] = '\0';
	return true;
}

static int refuse(struct err *e, const char *text, const char *what)
{
	return err_set(e, ERR_CONFIG, "'%.100s' is not %s", text, what);
}

int units_boolean(const char *text, bool *ret_value, struct err *e)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
	char buf[NUMBER_BYTES];

	if (take(text, buf)) {
		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
			if (strcasecmp(buf, words[i]) == 0) {
				*ret_value = i % 2 == 1;
				return 0;
			}
		}
	}
	return refuse(e, text, "yes or no (true, false, on, off, 1, 0)");
}

static int integer_of_base(const char *text, int base, int64_t *ret_value)
{
	char buf[NUMBER_BYTES], digits[NUMBER_BYTES], *end;
	size_t n = 0;

	if (!take(text, buf))
		return -1;
	for (size_t i = 0; buf[i]; i++) {
		if (buf[i] == '_' && i > 0 && isdigit((unsigned char)buf[i - 1]) &&
			isdigit((unsigned char)buf[i + 1]))
			continue;
		if (!isdigit((unsigned char)buf[i]) && !(i == 0 && strchr("+-", buf[i])))
			return -1;
		digits[n++] = buf[i];
	}
	digits[n] = '\0';
	errno = 0;
	*ret_value = strtoll(digits, &end, base);
	return n == 0 || *end || end == digits || !isdigit((unsigned char)end[-1]) || errno ? -1
											    : 0;
}

int units_integer(const char *text, int64_t *ret_value, struct err *e)
{
	int64_t value;

	if (integer_of_base(text, 10, &value) < 0)
		return refuse(e, text, "a whole number");
	*ret_value = value;
	return 0;
}

int units_octal(const char *text, int *ret_value, struct err *e)
{
	int64_t value;

	while (isspace((unsigned char)*text))
		text++;
	if (strncasecmp(text, "0o", 2) == 0 && isdigit((unsigned char)text[2]))
		text += 2;
	if (integer_of_base(text, 8, &value) < 0 || value < 0 || value > 07777)
		return refuse(e, text, "an octal mode such as 022");
	*ret_value = (int)value;
	return 0;
}

/* NUMBER[.FRACTION] times UNIT, exactly. */
static int scale(const char *digits, const char **ret_rest, int64_t unit, int64_t *ret_value)
{
	int64_t value = 0, part = unit;
	const char *p = digits;

	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, *p - '0', &value))
			return -1;
	}
	if (p == digits || __builtin_mul_overflow(value, unit, &value))
		return -1;
	if (*p == '.' && isdigit((unsigned char)p[1])) {
		for (p++; isdigit((unsigned char)*p); p++) {
			part /= 10;
			if (__builtin_add_overflow(value, part * (*p - '0'), &value))
				return -1;
		}
	}
	*ret_rest = p;
	*ret_value = value;
	return 0;
}

struct unit {
	const char *name;
	int64_t factor;
};

static int with_unit(const char *text, const struct unit *units, int64_t *ret_value)
{
	char buf[NUMBER_BYTES];
	const char *digits = buf, *rest, *name;
	int64_t value;
	bool minus;

	if (!take(text, buf))
		return -1;
	minus = *digits == '-';
	if (*digits == '-' || *digits == '+')
		digits++;
	for (name = digits; isdigit((unsigned char)*name) || *name == '.' || *name == ' '; name++)
		;
	for (const struct unit *u = units; u->name; u++) {
		if (strcasecmp(name, u->name) != 0)
			continue;
		if (scale(digits, &rest, u->factor, &value) < 0)
			return -1;
		while (*rest == ' ')
			rest++;
		if (rest != name)
			return -1;
		*ret_value = minus ? -value : value;
		return 0;
	}
	return -1;
}

int units_duration(const char *text, int64_t *ret_ns, struct err *e)
{
	static const struct unit units[] = {
		{"", UNITS_SECOND_NS},
		{"s", UNITS_SECOND_NS},
		{"ms", 1000000},
		{"us", 1000},
		{"m", 60 * UNITS_SECOND_NS},
		{"min", 60 * UNITS_SECOND_NS},
		{"h", 3600 * UNITS_SECOND_NS},
		{"d", 86400 * UNITS_SECOND_NS},
		{NULL, 0},
	};
	int64_t plain;

	if (with_unit(text, units, ret_ns) == 0)
		return 0;
	if (integer_of_base(text, 10, &plain) == 0 &&
		!__builtin_mul_overflow(plain, UNITS_SECOND_NS, &plain)) {
		*ret_ns = plain;
		return 0;
	}
	return refuse(e, text, "a duration such as 250ms, 10s, 5m, 1h or 7d");
}

int units_size(const char *text, int64_t *ret_bytes, struct err *e)
{
	static const struct unit units[] = {
		{"", 1},
		{"b", 1},
		{"kb", 1024},
		{"mb", 1024 * 1024},
		{"gb", 1024 * 1024 * 1024},
		{NULL, 0},
	};

	if (with_unit(text, units, ret_bytes) == 0 || integer_of_base(text, 10, ret_bytes) == 0)
		return 0;
	return refuse(e, text, "a size such as 64KB, 50MB or 1GB");
}

/* --- signals --------------------------------------------------------------------------------- */

static int signal_by_name(const char *name)
{
	const char *abbreviation;
	int64_t offset = 0;

	if (strcasecmp(name, "CLD") == 0)
		return SIGCHLD;
	if (strcasecmp(name, "POLL") == 0)
		return SIGPOLL;
	if (strcasecmp(name, "IOT") == 0)
		return SIGABRT;
	for (int s = 1; s < SIGRTMIN; s++) {
		abbreviation = sigabbrev_np(s);
		if (abbreviation && strcasecmp(name, abbreviation) == 0)
			return s;
	}
	if (strncasecmp(name, "RTMIN", 5) == 0 &&
		(!name[5] || (name[5] == '+' && integer_of_base(name + 6, 10, &offset) == 0)))
		return offset >= 0 && offset <= SIGRTMAX - SIGRTMIN ? SIGRTMIN + (int)offset : -1;
	if (strncasecmp(name, "RTMAX", 5) == 0 &&
		(!name[5] || (name[5] == '-' && integer_of_base(name + 6, 10, &offset) == 0)))
		return offset >= 0 && offset <= SIGRTMAX - SIGRTMIN ? SIGRTMAX - (int)offset : -1;
	return -1;
}

int units_signal(const char *text, int *ret_signal, struct err *e)
{
	char buf[NUMBER_BYTES];
	int64_t number;
	int found = -1;

	if (take(text, buf)) {
		if (integer_of_base(buf, 10, &number) == 0)
			found = number >= 1 && number <= SIGRTMAX &&
						(number >= SIGRTMIN || sigabbrev_np((int)number))
					? (int)number
					: -1;
		else
			found = signal_by_name(strncasecmp(buf, "SIG", 3) == 0 ? buf + 3 : buf);
	}
	if (found < 0)
		return refuse(e, text, "a signal such as TERM, USR1 or 15");
	*ret_signal = found;
	return 0;
}

const char *units_signal_name(int signal, char *buf, size_t bytes)
{
	const char *name = signal > 0 && signal < SIGRTMIN ? sigabbrev_np(signal) : NULL;

	if (name)
		snprintf(buf, bytes, "%s", name);
	else if (signal == SIGRTMIN)
		snprintf(buf, bytes, "RTMIN");
	else if (signal > SIGRTMIN && signal <= SIGRTMAX)
		snprintf(buf, bytes, "RTMIN+%d", signal - SIGRTMIN);
	else
		snprintf(buf, bytes, "%d", signal);
	return buf;
}

/* --- words ----------------------------------------------------------------------------------- */

int units_word(const char *text, const char *words, int *ret_index, struct err *e)
{
	char buf[NUMBER_BYTES];
	int index = 0;

	if (take(text, buf)) {
		for (const char *w = words; w; index++) {
			const char *bar = strchr(w, '|');
			size_t bytes = bar ? (size_t)(bar - w) : strlen(w);
			if (strlen(buf) == bytes && strncasecmp(buf, w, bytes) == 0) {
				*ret_index = index;
				return 0;
			}
			w = bar ? bar + 1 : NULL;
		}
	}
	return err_set(e, ERR_CONFIG, "'%.100s' is none of %s", text, words);
}

int units_rlimit(const char *name)
{
	static const struct {
		const char *name;
		int resource;
	} limits[] = {
		{"as", RLIMIT_AS},
		{"core", RLIMIT_CORE},
		{"cpu", RLIMIT_CPU},
		{"data", RLIMIT_DATA},
		{"fsize", RLIMIT_FSIZE},
		{"locks", RLIMIT_LOCKS},
		{"memlock", RLIMIT_MEMLOCK},
		{"msgqueue", RLIMIT_MSGQUEUE},
		{"nice", RLIMIT_NICE},
		{"nofile", RLIMIT_NOFILE},
		{"nproc", RLIMIT_NPROC},
		{"rss", RLIMIT_RSS},
		{"rtprio", RLIMIT_RTPRIO},
		{"rttime", RLIMIT_RTTIME},
		{"sigpending", RLIMIT_SIGPENDING},
		{"stack", RLIMIT_STACK},
	};

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		if (strcasecmp(name, limits[i].name) == 0)
			return limits[i].resource;
	}
	return -1;
}

static int one_rlimit(const char *text, uint64_t *ret_value, struct err *e)
{
	char buf[NUMBER_BYTES];
	int64_t size;

	if (take(text, buf) &&
		(strcasecmp(buf, "unlimited") == 0 || strcasecmp(buf, "infinity") == 0)) {
		*ret_value = RLIM_INFINITY;
		return 0;
	}
	if (units_size(text, &size, NULL) < 0 || size < 0)
		return refuse(e, text, "a limit such as 1024, 64MB or unlimited");
	*ret_value = (uint64_t)size;
	return 0;
}

int units_rlimit_value(const char *text, uint64_t *ret_soft, uint64_t *ret_hard, struct err *e)
{
	const char *colon = strchr(text, ':');
	char front[NUMBER_BYTES];
	uint64_t soft, hard;

	if (colon) {
		if (colon - text >= NUMBER_BYTES)
			return refuse(e, text, "SOFT:HARD");
		memcpy(front, text, (size_t)(colon - text));
		front[colon - text] = '\0';
	}
	if (one_rlimit(colon ? front : text, &soft, e) < 0)
		return ERR_CONFIG;
	hard = soft;
	if (colon && one_rlimit(colon + 1, &hard, e) < 0)
		return ERR_CONFIG;
	if (soft > hard)
		return err_set(
			e, ERR_CONFIG, "'%.100s': the soft limit is above the hard one", text);
	*ret_soft = soft;
	*ret_hard = hard;
	return 0;
}

char *units_print_duration(int64_t ns, char *buf, size_t bytes)
{
	static const struct unit units[] = {
		{"d", 86400 * UNITS_SECOND_NS},
		{"h", 3600 * UNITS_SECOND_NS},
		{"m", 60 * UNITS_SECOND_NS},
		{"s", UNITS_SECOND_NS},
		{"ms", 1000000},
		{"us", 1000},
		{NULL, 0},
	};

	for (const struct unit *u = units; u->name; u++) {
		/* "90s" reads better than "1.5m", "120s" no worse than "2m". */
		bool plain = u->factor != 60 * UNITS_SECOND_NS || ns >= 300 * UNITS_SECOND_NS;
		if (ns != 0 && ns % u->factor == 0 && plain) {
			snprintf(buf, bytes, "%" PRId64 "%s", ns / u->factor, u->name);
			return buf;
		}
	}
	snprintf(buf, bytes, ns ? "%" PRId64 "ns" : "%" PRId64 "s", ns);
	return buf;
}

int units_distance(const char *a, const char *b, int limit)
{
	enum { LONGEST = 40 };
	int row[3][LONGEST + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > LONGEST || m > LONGEST)
		return limit + 1;
	for (size_t j = 0; j <= m; j++)
		row[0][j] = (int)j;
	for (size_t i = 1; i <= n; i++) {
		int *now = row[i % 3], *before = row[(i + 2) % 3], *older = row[(i + 1) % 3];
		now[0] = (int)i;
		for (size_t j = 1; j <= m; j++) {
			int best = before[j - 1] + (a[i - 1] != b[j - 1]);
			if (before[j] + 1 < best)
				best = before[j] + 1;
			if (now[j - 1] + 1 < best)
				best = now[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
				older[j - 2] + 1 < best)
				best = older[j - 2] + 1;
			now[j] = best;
		}
	}
	return row[n % 3][m] > limit ? limit + 1 : row[n % 3][m];
}

#include <stdio.h>
#include <string.h>

#include "supervisor/shell/log_internal.h"

/* Bytes of the escaped value; what is longer ends in "...". */
#define MESSAGE_BYTES 6000
#define VALUE_BYTES   1500

static const struct {
	const char *name, *text, *colour;
} levels[] = {
	[LOGS_DEBUG] = {"debug", "debug", "\033[2m"},
	[LOGS_INFO] = {"info", "info ", "\033[32m"},
	[LOGS_WARNING] = {"warning", "warn ", "\033[33m"},
	[LOGS_ERROR] = {"error", "error", "\033[31m"},
};

static void put(struct log_line *line, const char *text, size_t bytes)
{
	/* The last byte is the newline's. */
	if (line->full || bytes > sizeof(line->text) - 1 - line->used) {
		line->full = true;
		return;
	}
	memcpy(line->text + line->used, text, bytes);
	line->used += bytes;
}

static void put_string(struct log_line *line, const char *text)
{
	put(line, text, strlen(text));
}

static void end(struct log_line *line)
{
	line->text[line->used++] = '\n';
}

/* Length of the UTF-8 sequence at TEXT (NUL-terminated), 0 when it is none; the code point. */
static size_t utf8(const unsigned char *text, unsigned *ret_code)
{
	static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned c = text[0], code;
	size_t length;

	if (c < 0x80) {
		*ret_code = c;
		return 1;
	}
	length = c >= 0xf0 && c < 0xf5   ? 4
		 : c >= 0xe0 && c < 0xf0 ? 3
		 : c >= 0xc2 && c < 0xe0 ? 2
					 : 0;
	if (!length)
		return 0;
	code = c & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3fu);
	}
	if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	*ret_code = code;
	return length;
}

enum quoting { PLAIN, QUOTED, JSON };

/* One character at TEXT into TO (at most 12 bytes); returns how many bytes of TEXT it was. */
static size_t escape(const unsigned char *text, enum quoting quoting, char to[13])
{
	unsigned code = 0;
	size_t length = utf8(text, &code);
	static const char from[] = "\n\t\r", letters[] = "ntr";
	const char *known;

	if (!length) {
		/* Bytes that are no text: kept readable; JSON has no word for a byte. */
		snprintf(to, 13, quoting == JSON ? "\\ufffd" : "\\x%02x", text[0]);
		return 1;
	}
	known = code && code < 0x20 ? strchr(from, (int)code) : NULL;
	if (known)
		snprintf(to, 13, "\\%c", letters[known - from]);
	else if (code < 0x20 || (code >= 0x7f && code < 0xa0))
		snprintf(to, 13, quoting == JSON ? "\\u%04x" : "\\x%02x", code);
	else if (quoting != PLAIN && (code == '"' || code == '\\'))
		snprintf(to, 13, "\\%c", (int)code);
	else
		snprintf(to, 13, "%.*s", (int)length, (const char *)text);
	return length;
}

static void put_escaped(
	struct log_line *line, const char *value, enum quoting quoting, size_t limit)
{
	const unsigned char *at = (const unsigned char *)value;
	size_t written = 0;
	char one[13];

	while (*at) {
		at += escape(at, quoting, one);
		written += strlen(one);
		if (written > limit) {
			put_string(line, "...");
			return;
		}
		put_string(line, one);
	}
}

void log_format_text(struct log_line *line, const struct log_event *event, bool colour)
{
	char start[80];
	struct tm tm;

	line->used = 0;
	line->full = false;
	localtime_r(&event->wall.tv_sec, &tm);
	snprintf(start, sizeof(start), "%s%02d:%02d:%02d.%03d%s %s%s%s ", colour ? "\033[2m" : "",
		tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(event->wall.tv_nsec / 1000000),
		colour ? "\033[0m" : "", colour ? levels[event->level].colour : "",
		levels[event->level].text, colour ? "\033[0m" : "");
	put_string(line, start);
	put_escaped(line, event->message, PLAIN, MESSAGE_BYTES);
	end(line);
}

static void put_time(struct log_line *line, const struct timespec *wall)
{
	char text[80];
	struct tm tm;

	gmtime_r(&wall->tv_sec, &tm);
	snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		(int)(wall->tv_nsec / 1000000));
	put_string(line, text);
}

static void put_number(struct log_line *line, int64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)number);
	put_string(line, text);
}

static bool needs_quotes(const char *value)
{
	if (!*value)
		return true;
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;
		if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f)
			return true;
	}
	return false;
}

static void put_quoted(struct log_line *line, const char *value, enum quoting quoting, size_t limit)
{
	put(line, "\"", 1);
	put_escaped(line, value, quoting, limit);
	put(line, "\"", 1);
}

void log_format_logfmt(struct log_line *line, const struct log_event *event)
{
	line->used = 0;
	line->full = false;
	put_string(line, "time=");
	put_time(line, &event->wall);
	put_string(line, " level=");
	put_string(line, levels[event->level].name);
	put_string(line, " event=");
	put_escaped(line, event->event, PLAIN, VALUE_BYTES);
	put_string(line, " msg=");
	put_quoted(line, event->message, QUOTED, MESSAGE_BYTES);
	for (size_t i = 0; i < event->field_count; i++) {
		const struct logs_field *f = &event->fields[i];
		size_t before = line->used;

		put(line, " ", 1);
		put_string(line, f->key);
		put(line, "=", 1);
		if (!f->value)
			put_number(line, f->number);
		else if (needs_quotes(f->value))
			put_quoted(line, f->value, QUOTED, VALUE_BYTES);
		else
			put_escaped(line, f->value, PLAIN, VALUE_BYTES);
		if (line->full) {
			line->used = before; /* whole fields or none */
			break;
		}
	}
	end(line);
}

static void put_member(struct log_line *line, const char *key, const char *value, size_t limit)
{
	put(line, "\"", 1);
	put_string(line, key);
	put_string(line, "\":");
	put_quoted(line, value, JSON, limit);
}

void log_format_json(struct log_line *line, const struct log_event *event)
{
	line->used = 0;
	line->full = false;
	put(line, "{", 1);
	put_member(line, "event", event->event, VALUE_BYTES);
	put_string(line, ",\"time\":\"");
	put_time(line, &event->wall);
	put_string(line, "\",");
	put_member(line, "level", levels[event->level].name, VALUE_BYTES);
	put(line, ",", 1);
	put_member(line, "message", event->message, MESSAGE_BYTES);
	for (size_t i = 0; i < event->field_count; i++) {
		const struct logs_field *f = &event->fields[i];
		size_t before = line->used;

		put(line, ",", 1);
		if (f->value) {
			put_member(line, f->key, f->value, VALUE_BYTES);
		} else {
			put(line, "\"", 1);
			put_string(line, f->key);
			put_string(line, "\":");
			put_number(line, f->number);
		}
		if (line->full || line->used > sizeof(line->text) - 2) {
			line->used = before;
			break;
		}
	}
	line->text[line->used++] = '}';
	end(line);
}

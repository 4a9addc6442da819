#include "conf/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct span {
	const char *start, *end;
};

size_t reader_space(const char *p, const char *end)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t left = (size_t)(end - p);

	if (left == 0)
		return 0;
	if ((u[0] >= 0x09 && u[0] <= 0x0d) || (u[0] >= 0x1c && u[0] <= 0x20))
		return 1;
	if (u[0] == 0xc2 && left >= 2)
		return u[1] == 0x85 || u[1] == 0xa0 ? 2 : 0;
	if (left < 3)
		return 0;
	if (u[0] == 0xe1)
		return u[1] == 0x9a && u[2] == 0x80 ? 3 : 0; /* U+1680 */
	if (u[0] == 0xe3)
		return u[1] == 0x80 && u[2] == 0x80 ? 3 : 0; /* U+3000 */
	if (u[0] != 0xe2)
		return 0;
	if (u[1] == 0x80) /* U+2000 to U+200A, U+2028, U+2029, U+202F */
		return (u[2] >= 0x80 && u[2] <= 0x8a) || u[2] == 0xa8 || u[2] == 0xa9 ||
				       u[2] == 0xaf
			       ? 3
			       : 0;
	return u[1] == 0x81 && u[2] == 0x9f ? 3 : 0; /* U+205F */
}

/* Bytes of the white space that ends at P, or 0. */
static size_t space_before(const char *start, const char *p)
{
	const char *q = p;

	if (p == start)
		return 0;
	do {
		q--;
	} while (q > start && p - q < 3 && ((unsigned char)*q & 0xc0) == 0x80);
	return reader_space(q, p) == (size_t)(p - q) ? (size_t)(p - q) : 0;
}

static struct span trim(struct span s)
{
	size_t n;

	while ((n = reader_space(s.start, s.end)) > 0)
		s.start += n;
	while ((n = space_before(s.start, s.end)) > 0)
		s.end -= n;
	return s;
}

const char *reader_not_utf8(const char *p, const char *end)
{
	const unsigned char *u = (const unsigned char *)p, *last = (const unsigned char *)end;

	while (u < last) {
		size_t more = *u < 0x80                  ? 0
			      : *u >= 0xc2 && *u <= 0xdf ? 1
			      : (*u & 0xf0) == 0xe0      ? 2
			      : *u >= 0xf0 && *u <= 0xf4 ? 3
							 : 9;
		if (more > (size_t)(last - u) - 1)
			return (const char *)u;
		for (size_t i = 1; i <= more; i++) {
			if ((u[i] & 0xc0) != 0x80)
				return (const char *)u;
		}
		if ((*u == 0xe0 && u[1] < 0xa0) || (*u == 0xed && u[1] > 0x9f) ||
			(*u == 0xf0 && u[1] < 0x90) || (*u == 0xf4 && u[1] > 0x8f))
			return (const char *)u;
		u += more + 1;
	}
	return NULL;
}

/* --- files ----------------------------------------------------------------------------------- */

enum { PIPE_WAIT_MS = 5000 };

static int read_all(int fd, struct text *t, const char *path, struct err *e)
{
	char buf[65536];

	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));
		if (n > 0) {
			text_add(t, buf, (size_t)n);
			if (t->length > READER_FILE_BYTES)
				return err_set_at(e, ERR_LIMIT, path, 0,
					"cannot read: larger than %u MiB, which no configuration "
					"is",
					READER_FILE_BYTES >> 20);
		} else if (n == 0) {
			return 0;
		} else if (errno == EAGAIN) {
			struct pollfd p = {.fd = fd, .events = POLLIN};
			if (poll(&p, 1, PIPE_WAIT_MS) == 0)
				return err_set_at(e, ERR_TIMEOUT, path, 0,
					"cannot read: nothing came for 5 s");
		} else if (errno != EINTR) {
			return err_set_at(
				e, ERR_SYSTEM, path, 0, "cannot read: %s", strerror(errno));
		}
	}
}

/* Opened and closed around reading, with the memory taken before: running out of memory must not
 * leave a descriptor behind. */
int reader_load(
	struct arena *a, const char *path, char **ret_text, size_t *ret_bytes, struct err *e)
{
	struct stat st;
	struct text t;
	int fd, rc;

	text_init(&t, a);
	if (stat(path, &st) < 0)
		return err_set_at(e, ERR_SYSTEM, path, 0, "cannot open: %s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return err_set_at(
			e, ERR_CONFIG, path, 0, "cannot read: this is a directory, not a file");
	if (st.st_size > READER_FILE_BYTES)
		return err_set_at(e, ERR_LIMIT, path, 0,
			"cannot read: larger than %u MiB, which no configuration is",
			READER_FILE_BYTES >> 20);
	t.capacity = S_ISREG(st.st_mode) ? (size_t)st.st_size + 1 : 1;
	t.bytes = arena_bytes(a, t.capacity);
	t.bytes[0] = '\0';
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_set_at(e, ERR_SYSTEM, path, 0, "cannot open: %s", strerror(errno));
	rc = read_all(fd, &t, path, e);
	close(fd);
	if (rc < 0)
		return rc;
	*ret_text = t.bytes;
	*ret_bytes = t.length;
	return 0;
}

bool reader_is_descriptor(const char *path)
{
	return strcmp(path, "/dev/stdin") == 0 || strncmp(path, "/dev/fd/", 8) == 0 ||
	       (strncmp(path, "/proc/", 6) == 0 && strstr(path, "/fd/"));
}

/* --- lines ----------------------------------------------------------------------------------- */

void reader_init(struct reader *r, struct arena *a, struct errlist *findings, bool native,
	const char *file, const char *text, size_t bytes)
{
	memset(r, 0, sizeof(*r));
	r->arena = a;
	r->findings = findings;
	r->native = native;
	r->file = file;
	r->position = text;
	r->end = text + bytes;
	if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		r->position += 3;
}

static bool next_line(struct reader *r, struct span *line)
{
	const char *p = r->position, *newline, *carriage;

	if (p == r->end)
		return false;
	newline = memchr(p, '\n', (size_t)(r->end - p));
	line->start = p;
	line->end = newline ? newline : r->end;
	r->position = newline ? newline + 1 : r->end;
	carriage = memchr(p, '\r', (size_t)(line->end - p));
	if (carriage) {
		line->end = carriage;
		r->position = carriage + 1;
		if (r->position < r->end && *r->position == '\n')
			r->position++;
	}
	r->line++;
	return true;
}

/* Where ConfigParser sees a comment begin, or NULL. It looks at the first "#" and the first ";"
 * together, then at the second of each, and so on; the first round with a hit decides. */
static const char *comment_plain(struct span line)
{
	const char *from[2] = {line.start, line.start}, *found = NULL;
	static const char signs[2] = {';', '#'};

	while (!found && (from[0] || from[1])) {
		for (int i = 0; i < 2; i++) {
			const char *at = from[i] && from[i] < line.end
						 ? memchr(from[i], signs[i],
							   (size_t)(line.end - from[i]))
						 : NULL;
			from[i] = at ? at + 1 : NULL;
			if (at && (at == line.start || space_before(line.start, at)) &&
				(!found || at < found))
				found = at;
		}
	}
	return found;
}

static const char *closing_quote(const char *p, const char *end)
{
	char quote = *p++;

	for (; p < end; p++) {
		if (*p == '\\' && quote == '"')
			p++;
		else if (*p == quote)
			return p;
	}
	return NULL;
}

/* The same for native mode: what stands between quotes is left alone. A quote counts where a word
 * or a value begins and when it is closed on the same line: "don't" opens none. */
static const char *comment_quoted(struct span line)
{
	bool closed[2] = {true, true};

	for (const char *p = line.start; p < line.end; p++) {
		bool word = p == line.start || space_before(line.start, p);
		if ((*p == ';' || *p == '#') && word)
			return p;
		if ((*p == '"' || *p == '\'') && closed[*p == '"'] &&
			(word || strchr("=:,([{\"'", p[-1]))) {
			const char *close = closing_quote(p, line.end);
			if (close)
				p = close;
			else
				closed[*p == '"'] = false;
		}
	}
	return NULL;
}

/* The line without its comment; *BLANK: there was nothing at all on it. */
static struct span strip(struct reader *r, struct span line, bool *blank)
{
	const char *comment;
	struct span whole = trim(line);

	*blank = whole.start == whole.end;
	r->cut_in_quotes = false;
	if (*blank || *whole.start == '#' || *whole.start == ';') {
		whole.end = whole.start;
		return whole;
	}
	comment = r->native ? comment_quoted(line) : comment_plain(line);
	if (!comment)
		return whole;
	if (!r->native && comment_quoted(line) != comment)
		r->cut_in_quotes = true;
	line.end = comment;
	return trim(line);
}

static size_t indent_of(struct span line)
{
	size_t count = 0, n;

	while ((n = reader_space(line.start, line.end)) > 0) {
		line.start += n;
		count++;
	}
	return count;
}

static bool finish_entry(struct reader *r)
{
	struct span s = {r->value.bytes, r->value.bytes + r->value.length};
	size_t n;

	while ((n = space_before(s.start, s.end)) > 0)
		s.end -= n;
	r->value.bytes[s.end - s.start] = '\0';
	r->item.value = r->value.bytes;
	r->open = false;
	return true;
}

static void warn_cut(struct reader *r)
{
	if (r->cut_in_quotes)
		errlist_addf(r->findings, true, r->file, r->line,
			"the comment sign inside quotes cuts the value here, as supervisord does; "
			"native mode would keep it");
}

/* "[name]": everything up to the last bracket, as ConfigParser takes it. */
static bool take_section(struct reader *r, struct span value)
{
	const char *close = memrchr(value.start, ']', (size_t)(value.end - value.start));

	if (*value.start != '[' || !close || close == value.start + 1)
		return false;
	r->item.kind = READER_SECTION;
	r->item.name = arena_strndup(r->arena, value.start + 1, (size_t)(close - value.start - 1));
	r->item.value = "";
	r->item.line = r->line;
	r->in_section = true;
	return true;
}

static bool start_entry(struct reader *r, struct span value)
{
	const char *p = value.start;
	struct span key, rest;
	char *name;

	while (p < value.end && *p != '=' && *p != ':')
		p++;
	key = trim((struct span){value.start, p});
	if (p == value.end || key.start == key.end)
		return false;
	rest = trim((struct span){p + 1, value.end});
	name = arena_strndup(r->arena, key.start, (size_t)(key.end - key.start));
	for (char *c = name; *c; c++) {
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c + ('a' - 'A'));
	}
	r->item.kind = READER_ENTRY;
	r->item.name = name;
	r->item.line = r->line;
	text_init(&r->value, r->arena);
	text_add(&r->value, rest.start, (size_t)(rest.end - rest.start));
	r->open = true;
	return true;
}

static void complain(struct reader *r, struct span value)
{
	int bytes = value.end - value.start > 60 ? 60 : (int)(value.end - value.start);

	if (!r->in_section)
		errlist_addf(r->findings, false, r->file, r->line,
			"'%.*s' stands before the first [section]", bytes, value.start);
	else
		errlist_addf(r->findings, false, r->file, r->line,
			"'%.*s' is neither '[section]' nor 'key = value'", bytes, value.start);
}

bool reader_next(struct reader *r)
{
	for (;;) {
		const char *position = r->position;
		struct span line, value;
		size_t indent;
		bool blank;

		if (!next_line(r, &line))
			return r->open ? finish_entry(r) : false;
		value = strip(r, line, &blank);
		if (value.start == value.end) {
			if (blank && r->open)
				text_add(&r->value, "\n", 1);
			continue;
		}
		indent = indent_of(line);
		if (r->open && indent > r->indent) {
			text_add(&r->value, "\n", 1);
			text_add(&r->value, value.start, (size_t)(value.end - value.start));
			warn_cut(r);
			continue;
		}
		if (r->open) { /* this line is another item: come back to it */
			r->position = position;
			r->line--;
			return finish_entry(r);
		}
		r->indent = indent;
		warn_cut(r);
		if (take_section(r, value))
			return true;
		if (!r->in_section || !start_entry(r, value))
			complain(r, value);
	}
}

char *reader_handle(char *line, int bytes, void *stream)
{
	struct reader *r = stream;

	if (r->item.kind == READER_SECTION && r->handle && !r->header_sent) {
		/* This build of inih reports no section without a key in it. */
		r->header_sent = true;
		snprintf(line, (size_t)bytes, "item=%lu\n", r->handle);
		return line;
	}
	if (!reader_next(r))
		return NULL;
	r->handle++;
	r->header_sent = false;
	if (r->item.kind == READER_SECTION)
		snprintf(line, (size_t)bytes, "[%lu]\n", r->handle);
	else
		snprintf(line, (size_t)bytes, "item=%lu\n", r->handle);
	return line;
}

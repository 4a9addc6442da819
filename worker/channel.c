#include "worker/channel.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* What follows the verb. One row per verb: encoding and decoding are made from it. */
enum operand { NOTHING, TERM, COUNT, TERM_NUMBER, TERM_REASON_NUMBER, JOB_TIME };

static const struct {
	const char *name;
	enum operand operand;
} verbs[] = {
	[CHANNEL_HELLO] = {"hello", NOTHING},
	[CHANNEL_PROMOTED] = {"promoted", TERM},
	[CHANNEL_DEMOTED] = {"demoted", TERM},
	[CHANNEL_BUSY] = {"busy", COUNT},
	[CHANNEL_CLAIM] = {"claim", JOB_TIME},
	[CHANNEL_PROMOTE] = {"promote", TERM_NUMBER},
	[CHANNEL_DEMOTE] = {"demote", TERM_REASON_NUMBER},
};

static const char *const reasons[] = {
	[CHANNEL_HANDOFF] = "handoff",
	[CHANNEL_SHUTDOWN] = "shutdown",
	[CHANNEL_LOST] = "lost",
};

enum { VERBS = sizeof(verbs) / sizeof(verbs[0]), REASONS = sizeof(reasons) / sizeof(reasons[0]) };

const char *channel_reason_name(enum channel_reason r)
{
	assert((size_t)r < REASONS);
	return reasons[r];
}

void channel_buffer_clear(struct channel_buffer *b)
{
	b->used = 0;
	b->skipping = false;
}

/* One byte into the line that is being collected. 0, or ERR_PROTOCOL when it spoils the line. */
static int collect(struct channel_buffer *b, unsigned char c, struct err *e)
{
	if (b->skipping)
		return 0;
	if (c < 0x20 || c == 0x7f) {
		b->skipping = true;
		return err_set(e, ERR_PROTOCOL, "a line with the control byte 0x%02x is dropped",
			(unsigned int)c);
	}
	if (b->used == CHANNEL_LINE_BYTES - 1) {
		b->skipping = true;
		return err_set(e, ERR_PROTOCOL, "a line of more than %d bytes is dropped",
			CHANNEL_LINE_BYTES);
	}
	b->bytes[b->used++] = (char)c;
	return 0;
}

int channel_feed(struct channel_buffer *b, const char *bytes, size_t count,
	void (*on_line)(const char *line, void *context), void *context, struct err *e)
{
	int result = 0;

	for (size_t i = 0; i < count; i++) {
		if (bytes[i] != '\n') {
			if (collect(b, (unsigned char)bytes[i], e) != 0)
				result = ERR_PROTOCOL;
			continue;
		}
		/* A copy, and the buffer cleared first: ON_LINE may clear or reuse it. */
		char line[CHANNEL_LINE_BYTES];
		bool whole = !b->skipping;
		memcpy(line, b->bytes, b->used);
		line[b->used] = '\0';
		channel_buffer_clear(b);
		if (whole)
			on_line(line, context);
	}
	return result;
}

/* The next word of *CURSOR; false at the end of the line. Words are non-empty: the caller has
 * looked for double spaces. */
static bool next_word(const char **cursor, const char **ret_word, size_t *ret_length)
{
	const char *start = *cursor;
	size_t length = strcspn(start, " ");

	if (length == 0)
		return false;
	*ret_word = start;
	*ret_length = length;
	*cursor = start + length + (start[length] == ' ');
	return true;
}

static bool well_spaced(const char *line)
{
	size_t length = strlen(line);

	return length > 0 && line[0] != ' ' && line[length - 1] != ' ' &&
	       strstr(line, "  ") == NULL;
}

static int take_number(
	const char **cursor, const char *what, int64_t lowest, int64_t *ret_number, struct err *e)
{
	const char *word;
	size_t length;
	uint64_t number = 0;

	if (!next_word(cursor, &word, &length))
		return err_set(e, ERR_PROTOCOL, "%s is missing", what);
	for (size_t i = 0; i < length; i++) {
		uint64_t digit = (uint64_t)(word[i] - '0');
		if (word[i] < '0' || word[i] > '9')
			return err_set(e, ERR_PROTOCOL, "%s '%.*s' is not a number", what,
				(int)length, word);
		if (number > ((uint64_t)INT64_MAX - digit) / 10)
			return err_set(
				e, ERR_PROTOCOL, "%s '%.*s' is too large", what, (int)length, word);
		number = number * 10 + digit;
	}
	if ((int64_t)number < lowest)
		return err_set(e, ERR_PROTOCOL, "%s '%.*s' is too small", what, (int)length, word);
	*ret_number = (int64_t)number;
	return 0;
}

static int take_term(const char **cursor, struct channel_message *m, struct err *e)
{
	int64_t term;
	int rc = take_number(cursor, "the term", 1, &term, e);

	if (rc == 0)
		m->term = (uint64_t)term;
	return rc;
}

static int take_text(const char **cursor, const char *what, char *buf, size_t bytes, struct err *e)
{
	const char *word;
	size_t length;

	if (!next_word(cursor, &word, &length))
		return err_set(e, ERR_PROTOCOL, "%s is missing", what);
	if (length >= bytes)
		return err_set(e, ERR_PROTOCOL, "%s '%.20s...' is longer than %zu bytes", what,
			word, bytes - 1);
	memcpy(buf, word, length);
	buf[length] = '\0';
	return 0;
}

static int take_reason(const char **cursor, struct channel_message *m, struct err *e)
{
	char name[16];
	int rc = take_text(cursor, "the reason", name, sizeof(name), e);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < REASONS; i++) {
		if (strcmp(name, reasons[i]) == 0) {
			m->reason = (enum channel_reason)i;
			return 0;
		}
	}
	return err_set(e, ERR_PROTOCOL, "the reason '%s' is unknown", name);
}

static int take_operands(const char *cursor, struct channel_message *m, struct err *e)
{
	int rc = 0;

	switch (verbs[m->verb].operand) {
	case NOTHING:
		return 0;
	case TERM:
		return take_term(&cursor, m, e);
	case COUNT:
		return take_number(&cursor, "the count", 0, &m->number, e);
	case TERM_NUMBER:
	case TERM_REASON_NUMBER:
		rc = take_term(&cursor, m, e);
		if (rc == 0 && verbs[m->verb].operand == TERM_REASON_NUMBER)
			rc = take_reason(&cursor, m, e);
		if (rc == 0)
			rc = take_number(&cursor, "the time", 0, &m->number, e);
		return rc;
	case JOB_TIME:
		rc = take_text(&cursor, "the job", m->word, sizeof(m->word), e);
		if (rc == 0)
			rc = take_text(&cursor, "the time", m->word2, sizeof(m->word2), e);
		return rc;
	}
	return 0;
}

int channel_decode(const char *line, struct channel_message *ret_message, struct err *e)
{
	struct channel_message m = {.verb = CHANNEL_UNKNOWN};
	const char *cursor = line, *word = NULL;
	size_t length = 0;

	if (!well_spaced(line))
		return err_set(
			e, ERR_PROTOCOL, "'%.60s': words must be separated by single spaces", line);
	next_word(&cursor, &word, &length);
	for (size_t i = 0; i < VERBS; i++) {
		if (strlen(verbs[i].name) == length && memcmp(word, verbs[i].name, length) == 0)
			m.verb = (enum channel_verb)i;
	}
	if (m.verb == CHANNEL_UNKNOWN) {
		snprintf(m.word, sizeof(m.word), "%.*s", (int)length, word);
	} else if (take_operands(cursor, &m, e) != 0) {
		err_prefix(e, "'%.60s'", line);
		return ERR_PROTOCOL;
	}
	*ret_message = m;
	return 0;
}

size_t channel_encode(const struct channel_message *m, char buf[CHANNEL_LINE_BYTES])
{
	enum operand operand = NOTHING;
	const char *name = m->word;
	unsigned long long term = m->term;
	long long number = m->number;
	int length = 0;

	if (m->verb != CHANNEL_UNKNOWN) {
		assert((size_t)m->verb < VERBS);
		operand = verbs[m->verb].operand;
		name = verbs[m->verb].name;
	}
	switch (operand) {
	case NOTHING:
		length = snprintf(buf, CHANNEL_LINE_BYTES, "%s\n", name);
		break;
	case TERM:
		length = snprintf(buf, CHANNEL_LINE_BYTES, "%s %llu\n", name, term);
		break;
	case COUNT:
		length = snprintf(buf, CHANNEL_LINE_BYTES, "%s %lld\n", name, number);
		break;
	case TERM_NUMBER:
		length = snprintf(buf, CHANNEL_LINE_BYTES, "%s %llu %lld\n", name, term, number);
		break;
	case TERM_REASON_NUMBER:
		length = snprintf(buf, CHANNEL_LINE_BYTES, "%s %llu %s %lld\n", name, term,
			channel_reason_name(m->reason), number);
		break;
	case JOB_TIME:
		/* A space in a word would make another message of it. */
		assert(m->word[0] != '\0' && strpbrk(m->word, " \n") == NULL);
		assert(m->word2[0] != '\0' && strpbrk(m->word2, " \n") == NULL);
		length = snprintf(buf, CHANNEL_LINE_BYTES, "%s %s %s\n", name, m->word, m->word2);
		break;
	}
	assert(length > 0 && length < CHANNEL_LINE_BYTES);
	return (size_t)length;
}

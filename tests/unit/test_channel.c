/* worker/channel.c: lines out of a byte stream, messages out of lines and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/channel.h"

static void round_trip(const char *line, enum channel_verb verb, struct channel_message *ret)
{
	struct err e = {0};
	char buf[CHANNEL_LINE_BYTES], wanted[CHANNEL_LINE_BYTES];

	if (channel_decode(line, ret, &e) != 0)
		fail_msg("'%s': %s", line, e.text);
	assert_int_equal(ret->verb, verb);
	snprintf(wanted, sizeof(wanted), "%s\n", line);
	assert_int_equal(channel_encode(ret, buf), strlen(wanted));
	assert_string_equal(buf, wanted);
}

static void every_verb(void **state)
{
	struct channel_message m;

	(void)state;
	round_trip("hello", CHANNEL_HELLO, &m);
	round_trip("promoted 1753000000000000", CHANNEL_PROMOTED, &m);
	assert_int_equal(m.term, 1753000000000000);
	round_trip("demoted 9223372036854775807", CHANNEL_DEMOTED, &m);
	round_trip("busy 0", CHANNEL_BUSY, &m);
	round_trip("busy 12", CHANNEL_BUSY, &m);
	assert_int_equal(m.number, 12);
	round_trip("claim nightly 2025-01-01T00:00:00Z", CHANNEL_CLAIM, &m);
	assert_string_equal(m.word, "nightly");
	assert_string_equal(m.word2, "2025-01-01T00:00:00Z");
	round_trip("promote 7 60000", CHANNEL_PROMOTE, &m);
	assert_int_equal(m.term, 7);
	assert_int_equal(m.number, 60000);
	round_trip("demote 7 handoff 30000", CHANNEL_DEMOTE, &m);
	assert_int_equal(m.reason, CHANNEL_HANDOFF);
	round_trip("demote 7 shutdown 0", CHANNEL_DEMOTE, &m);
	round_trip("demote 7 lost 12", CHANNEL_DEMOTE, &m);
	assert_int_equal(m.reason, CHANNEL_LOST);
	assert_string_equal(channel_reason_name(m.reason), "lost");
}

static void later_versions(void **state)
{
	struct channel_message m;

	(void)state;
	assert_int_equal(channel_decode("busy 3 of 8", &m, NULL), 0);
	assert_int_equal(m.number, 3);
	assert_int_equal(channel_decode("hello version=2 x", &m, NULL), 0);
	assert_int_equal(m.verb, CHANNEL_HELLO);
	assert_int_equal(channel_decode("sing 3 songs", &m, NULL), 0);
	assert_int_equal(m.verb, CHANNEL_UNKNOWN);
	assert_string_equal(m.word, "sing");
	assert_int_equal(channel_decode("BUSY 3", &m, NULL), 0);
	assert_int_equal(m.verb, CHANNEL_UNKNOWN);
}

static void bad_lines(void **state)
{
	static const char *const lines[] = {
		"",
		" ",
		" hello",
		"hello ",
		"busy  3",
		"busy",
		"busy x",
		"busy -1",
		"busy +1",
		"busy 1x",
		"busy 9223372036854775808",
		"busy 99999999999999999999999999",
		"promoted",
		"promoted 0",
		"promoted -3",
		"promoted 3.5",
		"promoted 9223372036854775808",
		"promote 1",
		"promote 1 x",
		"demote 1",
		"demote 1 bored 3",
		"demote 1 lost",
		"demote 1 areasonthatismuchlongerthanallowed 3",
		"claim",
		"claim job",
	};
	struct channel_message m, untouched;

	(void)state;
	memset(&m, 0x5a, sizeof(m));
	untouched = m;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct err e = {0};
		if (channel_decode(lines[i], &m, &e) != ERR_PROTOCOL || e.text[0] == '\0')
			fail_msg("'%s' was accepted", lines[i]);
		assert_memory_equal(&m, &untouched, sizeof(m));
	}
}

static void long_words(void **state)
{
	struct channel_message m;
	char line[CHANNEL_LINE_BYTES];

	(void)state;
	snprintf(line, sizeof(line), "claim %0127d %063d", 1, 2);
	assert_int_equal(channel_decode(line, &m, NULL), 0);
	assert_int_equal(strlen(m.word), 127);
	snprintf(line, sizeof(line), "claim %0128d 2", 1);
	assert_int_equal(channel_decode(line, &m, NULL), ERR_PROTOCOL);
	snprintf(line, sizeof(line), "claim 1 %064d", 2);
	assert_int_equal(channel_decode(line, &m, NULL), ERR_PROTOCOL);
	memset(line, 'v', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	assert_int_equal(channel_decode(line, &m, NULL), 0);
	assert_int_equal(m.verb, CHANNEL_UNKNOWN);
	assert_int_equal(strlen(m.word), sizeof(m.word) - 1);
}

struct heard {
	int count;
	char all[8192];
};

static void listen(const char *line, void *context)
{
	struct heard *h = context;

	h->count++;
	strcat(h->all, line);
	strcat(h->all, "|");
}

static void lines_in_pieces(void **state)
{
	static const char stream[] = "hello\nbusy 3\n\npromoted 77\nbus";
	unsigned int seed = (unsigned int)time(NULL);

	(void)state;
	print_message("seed %u\n", seed);
	for (int round = 0; round < 200; round++) {
		struct channel_buffer b;
		struct heard h = {0};
		channel_buffer_clear(&b);
		for (size_t at = 0; at < sizeof(stream) - 1;) {
			size_t count = 1 + (size_t)rand_r(&seed) % 9;
			if (count > sizeof(stream) - 1 - at)
				count = sizeof(stream) - 1 - at;
			assert_int_equal(channel_feed(&b, stream + at, count, listen, &h, NULL), 0);
			at += count;
		}
		assert_string_equal(h.all, "hello|busy 3||promoted 77|");
		assert_int_equal(b.used, 3);
	}
}

static void endless_line(void **state)
{
	struct channel_buffer b;
	struct heard h = {0};
	struct err e = {0};
	char bytes[CHANNEL_LINE_BYTES + 64];

	(void)state;
	channel_buffer_clear(&b);
	memset(bytes, 'x', sizeof(bytes));
	bytes[CHANNEL_LINE_BYTES - 1] = '\n'; /* the longest that is allowed */
	assert_int_equal(channel_feed(&b, bytes, CHANNEL_LINE_BYTES, listen, &h, &e), 0);
	assert_int_equal(h.count, 1);
	assert_int_equal(strlen(h.all), CHANNEL_LINE_BYTES); /* and the bar */
	h = (struct heard){0};
	memset(bytes, 'x', sizeof(bytes));
	assert_int_equal(channel_feed(&b, bytes, sizeof(bytes), listen, &h, &e), ERR_PROTOCOL);
	assert_true(e.text[0] != '\0');
	for (int i = 0; i < 1000; i++) /* told once */
		assert_int_equal(channel_feed(&b, bytes, sizeof(bytes), listen, &h, &e), 0);
	assert_int_equal(channel_feed(&b, "tail\nhello\n", 11, listen, &h, &e), 0);
	assert_string_equal(h.all, "hello|");
}

static void control_bytes(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		struct channel_buffer b;
		struct heard h = {0};
		char bytes[] = "bu?sy\nhello\n";
		bool bad = (c < 0x20 && c != '\n') || c == 0x7f;
		bytes[2] = (char)c;
		channel_buffer_clear(&b);
		assert_int_equal(channel_feed(&b, bytes, sizeof(bytes) - 1, listen, &h, NULL),
			bad ? ERR_PROTOCOL : 0);
		assert_int_equal(h.count, bad ? 1 : c == '\n' ? 3 : 2);
		assert_non_null(strstr(h.all, "hello|"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_verb),
		cmocka_unit_test(later_versions),
		cmocka_unit_test(bad_lines),
		cmocka_unit_test(long_words),
		cmocka_unit_test(lines_in_pieces),
		cmocka_unit_test(endless_line),
		cmocka_unit_test(control_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/logs.h"

static int found;

static void seen(void *context)
{
	assert_ptr_equal(context, &found);
	found++;
}

struct setup {
	struct loop *loop;
	struct logs *logs;
	struct logs_stream *stream;
	int fds[2];
};

static void ended(void *context, struct logs_stream *s)
{
	(void)context;
	(void)s;
}

static void open_stream(struct setup *x, const char *word)
{
	struct err e;

	found = 0;
	assert_int_equal(loop_create(&x->loop, &e), 0);
	assert_int_equal(logs_create(x->loop, &x->logs, &e), 0);
	assert_int_equal(logs_pipe(&x->fds[0], &x->fds[1], &e), 0);
	assert_int_equal(
		logs_stream_open(x->logs, x->fds[0], NULL, NULL, ended, NULL, &x->stream, &e), 0);
	logs_stream_expect(x->stream, word, seen, &found);
}

static void close_stream(struct setup *x)
{
	logs_stream_close(x->stream);
	close(x->fds[1]);
	logs_free(x->logs);
	loop_free(x->loop);
}

static void feed(struct setup *x, const char *text, size_t bytes)
{
	assert_int_equal(write(x->fds[1], text, bytes), bytes);
	logs_stream_drain(x->stream);
}

/* The first place where WORD is complete in TEXT, whatever pieces it comes in. */
static void sweep(const char *text, const char *word)
{
	const char *at = strstr(text, word);
	size_t end = at != NULL ? (size_t)(at - text) + strlen(word) : strlen(text) + 1;

	for (size_t piece = 1; piece <= strlen(text); piece++) {
		struct setup x;

		open_stream(&x, word);
		for (size_t done = 0; done < strlen(text); done += piece) {
			size_t n = strlen(text) - done < piece ? strlen(text) - done : piece;

			feed(&x, text + done, n);
			assert_int_equal(found, done + n >= end);
		}
		close_stream(&x);
	}
}

static void test_pieces(void **state)
{
	(void)state;
	sweep("starting\nserver ready on 80\nready\n", "ready");
	sweep("abababababac", "ababac");
	sweep("aaaaaaab", "aaab");
	sweep("read\ny reads reads\n", "ready");
	sweep("xyz", "xyz");
	sweep("no such thing", "thing ");
}

/* A line of 1 MiB, the word at its end; nothing of it is kept. */
static void test_long_line(void **state)
{
	static char block[32768];
	struct setup x;

	(void)state;
	memset(block, 'r', sizeof block);
	open_stream(&x, "ready");
	for (int i = 0; i < 32; i++)
		feed(&x, block, sizeof block);
	assert_int_equal(found, 0);
	feed(&x, "eady\n", 5);
	assert_int_equal(found, 1);
	feed(&x, "ready\n", 6);
	assert_int_equal(found, 1); /* once */
	close_stream(&x);
}

/* Against strstr, over random texts of two letters. */
static void test_random(void **state)
{
	(void)state;
	srand(7);
	for (int round = 0; round < 300; round++) {
		char text[65], word[8];
		size_t bytes = 1 + (size_t)rand() % 7;
		struct setup x;

		for (size_t i = 0; i < 64; i++)
			text[i] = "ab"[rand() % 2];
		text[64] = '\0';
		for (size_t i = 0; i < bytes; i++)
			word[i] = "ab"[rand() % 2];
		word[bytes] = '\0';
		open_stream(&x, word);
		for (size_t i = 0; i < 64; i += 4)
			feed(&x, text + i, 4);
		assert_int_equal(found, strstr(text, word) != NULL);
		close_stream(&x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

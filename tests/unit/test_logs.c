/* Output: formats, lines, prefixes, sinks that are full, stuck, gone, rotated; nothing lost. */
#include "supervisor/shell/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#define MIB (1024 * 1024)

struct world {
	struct loop *loop;
	struct logs *logs;
	char folder[64];
	char own[128]; /* baton's own log */
	struct logs_stream *streams[4];
	int ended, timers, wanted_ends;
	bool (*until)(struct world *w);
	/* events seen by the tap, one a line */
	char *tapped;
	size_t tapped_bytes;
	FILE *tap;
	/* what the reader of a pipe sink got */
	int reader;
	struct loop_watch *reading;
	char *got;
	size_t got_bytes, bytes_wanted;
};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_tap(void *context, const char *line, size_t bytes)
{
	struct world *w = context;

	assert_true(bytes > 2 && line[bytes - 1] == '\n');
	fwrite(line, 1, bytes, w->tap);
	fflush(w->tap);
}

static void on_timer(void *context, int64_t late_ns)
{
	struct world *w = context;

	(void)late_ns;
	w->timers++;
}

static void hook(void *context)
{
	struct world *w = context;

	if (w->until && w->until(w))
		loop_stop(w->loop);
}

static void run_until(struct world *w, bool (*until)(struct world *w))
{
	w->until = until;
	loop_run(w->loop);
	w->until = NULL;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err e;

	alarm(110);
	setenv("TERM", "xterm", 1);
	unsetenv("NO_COLOR");
	setenv("TZ", "UTC0", 1);
	strcpy(w->folder, "/tmp/baton-logs-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->own, sizeof(w->own), "%s/own.log", w->folder);
	w->reader = -1;
	w->tap = open_memstream(&w->tapped, &w->tapped_bytes);
	assert_int_equal(loop_create(&w->loop, &e), 0);
	assert_int_equal(loop_timer_init(w->loop, on_timer, w, &e), 0);
	loop_before_block(w->loop, hook, w);
	assert_int_equal(logs_create(w->loop, &w->logs, &e), 0);
	assert_int_equal(logs_configure(w->logs, w->own, LOG_DEFAULT, LOGS_INFO, &e), 0);
	logs_tap(w->logs, on_tap, w);
	*state = w;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static int teardown(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 4; i++)
		logs_stream_close(w->streams[i]);
	logs_free(w->logs);
	loop_unwatch(w->reading);
	loop_free(w->loop);
	if (w->reader >= 0)
		close(w->reader);
	fclose(w->tap);
	free(w->tapped);
	free(w->got);
	nftw(w->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static char *slurp(const char *path, size_t *ret_bytes)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	char *text;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	text = malloc((size_t)st.st_size + 1);
	assert_non_null(text);
	while (used < (size_t)st.st_size) {
		ssize_t n = read(fd, text + used, (size_t)st.st_size - used);
		assert_true(n > 0);
		used += (size_t)n;
	}
	text[used] = '\0';
	close(fd);
	if (ret_bytes)
		*ret_bytes = used;
	return text;
}

static void assert_file(const char *path, const char *expected)
{
	char *text = slurp(path, NULL);

	assert_string_equal(text, expected);
	free(text);
}

static int count(const char *text, const char *what)
{
	int n = 0;

	for (; text && (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static void on_ended(void *context, struct logs_stream *s)
{
	struct world *w = context;

	w->ended++;
	for (int i = 0; i < 4; i++) {
		if (w->streams[i] == s)
			w->streams[i] = NULL;
	}
	logs_stream_close(s);
}

static bool all_ended(struct world *w)
{
	return w->ended >= w->wanted_ends;
}

static bool timer_fired(struct world *w)
{
	return w->timers > 0;
}

/* Let the loop turn for a while: what could happen has happened. */
static void turn(struct world *w, int ms)
{
	w->timers = 0;
	loop_timer_set(w->loop, now_ns() + ms * 1000000LL);
	run_until(w, timer_fired);
}

static struct logs_sink *open_path(struct world *w, const char *name, char *path, size_t bytes)
{
	struct logs_sink *sink;
	struct err e;

	snprintf(path, bytes, "%s/%s", w->folder, name);
	assert_int_equal(logs_sink_open(w->logs, OUTPUT_PATH, path, 1, "", "", &sink, &e), 0);
	return sink;
}

static int open_stream(struct world *w, int index, struct logs_sink *sink, const char *prefix)
{
	int in, out;
	struct err e;

	assert_int_equal(logs_pipe(&in, &out, &e), 0);
	assert_true(fcntl(in, F_GETFL) & O_NONBLOCK);
	assert_false(fcntl(out, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(in, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(out, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(logs_stream_open(w->logs, in, sink ? logs_sink_ref(sink) : NULL, prefix,
				 on_ended, w, &w->streams[index], &e),
		0);
	w->wanted_ends++;
	return out;
}

static void say(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* --- formats -----------------------------------------------------------------------------------
 */

static void test_logfmt(void **state)
{
	struct world *w = *state;
	const struct logs_field fields[] = {
		{.key = "worker", .value = "web:0"},
		{.key = "pid", .number = 123},
		{.key = "reason", .value = "a \"b\"\nc"},
		{.key = "empty", .value = ""},
		{.key = "least", .number = INT64_MIN},
	};
	char *text;

	logs_event(w->logs, LOGS_INFO, "worker.running", fields, 5, "%s is running", "web:0");
	logs_event(w->logs, LOGS_DEBUG, "debug.only", NULL, 0, "not in the log");
	text = slurp(w->own, NULL);
	assert_memory_equal(text, "time=2", 6);
	assert_int_equal(text[28], 'Z');
	assert_string_equal(text + 29,
		" level=info event=worker.running msg=\"web:0 is running\" worker=web:0 pid=123"
		" reason=\"a \\\"b\\\"\\nc\" empty=\"\" least=-9223372036854775808\n");
	free(text);
	assert_int_equal(count(w->tapped, "\n"), 2);
	assert_int_equal(count(w->tapped, "\"event\":\"debug.only\""), 1);
}

static void test_text_in_a_file(void **state)
{
	struct world *w = *state;
	struct err e;
	char *text;

	assert_int_equal(logs_configure(w->logs, w->own, LOG_TEXT, LOGS_DEBUG, &e), 0);
	logs_event(w->logs, LOGS_WARNING, "x.y", NULL, 0,
		"one\ntwo \033[31m caf\xc3\xa9 \xff \xc2\x85");
	logs_event(w->logs, LOGS_INFO, "x.y", NULL, 0, "three");
	text = slurp(w->own, NULL);
	assert_int_equal(text[2], ':');
	assert_int_equal(text[8], '.');
	assert_string_equal(strchr(text, '\n') + 1 + 12, " info  three\n");
	*strchr(text, '\n') = '\0';
	assert_string_equal(text + 12, " warn  one\\ntwo \\x1b[31m caf\xc3\xa9 \\xff \\x85");
	free(text);
}

/* Whatever the bytes, JSON stays JSON, and one line. */
static void test_json_of_every_byte(void **state)
{
	struct world *w = *state;
	struct err e;
	char value[8], *text, *at;
	int lines = 0;

	assert_int_equal(logs_configure(w->logs, w->own, LOG_JSON, LOGS_DEBUG, &e), 0);
	for (int c = 1; c < 256; c++) {
		struct logs_field field = {.key = "value", .value = value};
		snprintf(value, sizeof(value), "a%cb%c", c, c);
		logs_event(w->logs, LOGS_INFO, "x.y", &field, 1, "%s", value);
	}
	text = slurp(w->own, NULL);
	assert_string_equal(text, w->tapped);
	for (at = text; *at; lines++) {
		char *end = strchr(at, '\n');
		json_error_t error;
		json_t *object;

		*end = '\0';
		object = json_loads(at, 0, &error);
		if (!object)
			fail_msg("%s: %s", error.text, at);
		assert_string_equal(json_string_value(json_object_get(object, "level")), "info");
		assert_non_null(json_object_get(object, "value"));
		assert_non_null(json_object_get(object, "message"));
		json_decref(object);
		at = end + 1;
	}
	assert_int_equal(lines, 255);
	free(text);
}

/* Values too long for a line are cut, the line stays whole. */
static void test_long_events(void **state)
{
	struct world *w = *state;
	struct logs_field fields[40];
	struct err e;
	char *value = malloc(20000), *text;
	json_t *object;

	memset(value, 1, 19999);
	value[19999] = '\0';
	for (int i = 0; i < 40; i++)
		fields[i] = (struct logs_field){.key = "value", .value = value};
	assert_int_equal(logs_configure(w->logs, w->own, LOG_JSON, LOGS_DEBUG, &e), 0);
	logs_event(w->logs, LOGS_INFO, "x.y", fields, 40, "%s", value);
	assert_int_equal(logs_configure(w->logs, w->own, LOG_LOGFMT, LOGS_DEBUG, &e), 0);
	logs_event(w->logs, LOGS_INFO, "x.y", fields, 40, "%s", value);
	assert_int_equal(logs_configure(w->logs, w->own, LOG_TEXT, LOGS_DEBUG, &e), 0);
	logs_event(w->logs, LOGS_INFO, "x.y", fields, 40, "%s", value);
	text = slurp(w->own, NULL);
	assert_int_equal(count(text, "\n"), 3);
	*strchr(text, '\n') = '\0';
	object = json_loads(text, 0, NULL);
	assert_non_null(object);
	json_decref(object);
	free(text);
	free(value);
}

static void test_levels(void **state)
{
	enum logs_level level;

	(void)state;
	assert_int_equal(logs_level_parse("debug", &level), 0);
	assert_int_equal(level, LOGS_DEBUG);
	assert_int_equal(logs_level_parse("warning", &level), 0);
	assert_int_equal(level, LOGS_WARNING);
	assert_int_equal(logs_level_parse("critical", &level), 0);
	assert_int_equal(level, LOGS_ERROR);
	assert_true(logs_level_parse("loud", &level) < 0);
	assert_int_equal(level, LOGS_ERROR);
}

static void test_configure_keeps_the_old_one(void **state)
{
	struct world *w = *state;
	struct err e;

	assert_int_equal(logs_configure(w->logs, w->folder, LOG_JSON, LOGS_INFO, &e), ERR_CONFIG);
	assert_non_null(strstr(e.text, "directory"));
	assert_int_equal(
		logs_configure(w->logs, "/nonexistent/x.log", LOG_JSON, LOGS_INFO, &e), ERR_SYSTEM);
	assert_non_null(strstr(e.text, "folder"));
	logs_event(w->logs, LOGS_INFO, "still.here", NULL, 0, "x");
	assert_int_equal(logs_configure(w->logs, w->own, LOG_DEFAULT, LOGS_INFO, &e), 0);
	logs_event(w->logs, LOGS_INFO, "still.here", NULL, 0, "x");
	char *text = slurp(w->own, NULL);
	assert_int_equal(count(text, "event=still.here"), 2);
	free(text);
}

/* --- streams -----------------------------------------------------------------------------------
 */

static void test_prefixed_lines(void **state)
{
	struct world *w = *state;
	char path[128];
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int out = open_stream(w, 0, sink, "web:0");

	logs_sink_close(sink); /* the stream keeps it */
	say(out, "one\ntw");
	assert_false(logs_stream_drain(w->streams[0]));
	assert_file(path, "web:0 | one\n");
	say(out, "o\n\nthree");
	close(out);
	run_until(w, all_ended);
	assert_file(path, "web:0 | one\nweb:0 | two\nweb:0 | \nweb:0 | three\n");
}

static void test_drain_says_the_end(void **state)
{
	struct world *w = *state;
	char path[128];
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int out = open_stream(w, 0, sink, NULL);

	say(out, "x");
	close(out);
	assert_true(logs_stream_drain(w->streams[0]));
	assert_true(logs_stream_drain(w->streams[0]));
	assert_int_equal(w->ended, 0);
	logs_stream_detach(w->streams[0]); /* at its end: freed at once */
	w->streams[0] = NULL;
	logs_sink_close(sink);
	assert_file(path, "x");
}

static void test_detached_goes_on(void **state)
{
	struct world *w = *state;
	char path[128];
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int out = open_stream(w, 0, sink, "a:0");

	say(out, "before\n");
	assert_false(logs_stream_drain(w->streams[0]));
	logs_stream_detach(w->streams[0]);
	w->streams[0] = NULL;
	say(out, "after");
	close(out);
	turn(w, 30);
	assert_int_equal(w->ended, 0);
	assert_file(path, "a:0 | before\na:0 | after\n");
	logs_sink_close(sink);
}

static void test_no_sink_is_thrown_away(void **state)
{
	struct world *w = *state;
	struct logs_sink *sink = (struct logs_sink *)w;
	struct err e;
	int out;

	assert_int_equal(logs_sink_open(w->logs, OUTPUT_NONE, "", 1, "", "", &sink, &e), 0);
	assert_null(sink);
	out = open_stream(w, 0, NULL, "x");
	say(out, "a\nb");
	close(out);
	run_until(w, all_ended);
}

static void test_automatic_file(void **state)
{
	struct world *w = *state;
	struct logs_sink *sink;
	struct err e;
	char start[128];
	int out;

	assert_int_equal(
		logs_sink_open(w->logs, OUTPUT_AUTO, "", 2, w->folder, "a/b:0", &sink, &e), 0);
	snprintf(start, sizeof(start), "%s/a_b:0-stderr---baton-", w->folder);
	assert_memory_equal(logs_sink_path(sink), start, strlen(start));
	assert_string_equal(logs_sink_path(sink) + strlen(start) + 6, ".log");
	out = open_stream(w, 0, sink, NULL);
	say(out, "hello");
	close(out);
	run_until(w, all_ended);
	assert_file(logs_sink_path(sink), "hello");
	logs_sink_close(sink);
	assert_int_equal(
		logs_sink_open(w->logs, OUTPUT_AUTO, "", 1, "/nonexistent", "a", &sink, &e),
		ERR_SYSTEM);
	assert_non_null(strstr(e.text, "/nonexistent"));
}

/* A line longer than any buffer: nothing lost, nothing added but one prefix. */
static void test_long_line(void **state)
{
	struct world *w = *state;
	char path[128];
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int out = open_stream(w, 0, sink, "web:0");
	size_t bytes = 3 * MIB + 17, got;
	char *text;
	pid_t pid = fork();

	if (pid == 0) {
		char *line = malloc(bytes);
		for (size_t i = 0; i < bytes; i++)
			line[i] = (char)('a' + i % 23);
		for (size_t done = 0; done < bytes;) {
			ssize_t n = write(out, line + done, bytes - done);
			if (n < 0)
				_exit(1);
			done += (size_t)n;
		}
		_exit(0);
	}
	close(out);
	run_until(w, all_ended);
	waitpid(pid, NULL, 0);
	text = slurp(path, &got);
	assert_int_equal(got, 8 + bytes + 1);
	assert_memory_equal(text, "web:0 | ", 8);
	for (size_t i = 0; i < bytes; i++) {
		if (text[8 + i] != (char)('a' + i % 23))
			fail_msg("byte %zu differs", i);
	}
	assert_int_equal(text[got - 1], '\n');
	free(text);
	logs_sink_close(sink);
}

/* Two share a sink; one of them is in the middle of a piece: the other starts a line of its own. */
static void test_pieces_do_not_mix(void **state)
{
	struct world *w = *state;
	char path[128], *text;
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int a = open_stream(w, 0, sink, "a:0"), b = open_stream(w, 1, sink, "b:0");
	char block[60000];

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(write(a, block, sizeof(block)), sizeof(block));
		logs_stream_drain(w->streams[0]);
	}
	say(b, "hello\n");
	logs_stream_drain(w->streams[1]);
	say(a, "end\n");
	close(a);
	close(b);
	run_until(w, all_ended);
	text = slurp(path, NULL);
	assert_int_equal(count(text, "\n"), 3);
	assert_int_equal(count(text, "x"), 120000);
	assert_non_null(strstr(text, "x\nb:0 | hello\na:0 | end\n"));
	free(text);
	logs_sink_close(sink);
}

/* Two raw streams in one file: whole lines, too. */
static void test_raw_shared(void **state)
{
	struct world *w = *state;
	char path[128];
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path)), *again;
	struct err e;
	int a = open_stream(w, 0, sink, NULL), b = open_stream(w, 1, sink, NULL);

	assert_int_equal(logs_sink_open(w->logs, OUTPUT_PATH, path, 2, "", "", &again, &e), 0);
	assert_ptr_equal(sink, again);
	logs_sink_close(again);
	say(a, "aaa");
	logs_stream_drain(w->streams[0]);
	say(b, "bbb\n");
	logs_stream_drain(w->streams[1]);
	say(a, "AAA\n");
	close(a);
	close(b);
	run_until(w, all_ended);
	assert_file(path, "bbb\naaaAAA\n");
	logs_sink_close(sink);
}

static unsigned next_random(unsigned *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* 100 MiB of anything arrive as they were. */
static void test_100_mib(void **state)
{
	struct world *w = *state;
	char path[128], *text;
	struct logs_sink *sink = open_path(w, "out.bin", path, sizeof(path));
	int out = open_stream(w, 0, sink, NULL);
	size_t total = 100u * MIB, got;
	unsigned seed = 7;
	pid_t pid = fork();

	if (pid == 0) {
		static unsigned block[MIB / sizeof(unsigned)];
		for (int m = 0; m < 100; m++) {
			char *at = (char *)block;
			for (size_t i = 0; i < MIB / sizeof(unsigned); i++)
				block[i] = next_random(&seed);
			for (size_t left = MIB; left;) {
				ssize_t n = write(out, at, left);
				if (n < 0)
					_exit(1);
				at += n;
				left -= (size_t)n;
			}
		}
		_exit(0);
	}
	close(out);
	run_until(w, all_ended);
	waitpid(pid, NULL, 0);
	text = slurp(path, &got);
	assert_int_equal(got, total);
	for (size_t i = 0; i < total / sizeof(unsigned); i++) {
		if (((unsigned *)(void *)text)[i] != next_random(&seed))
			fail_msg("differs at byte %zu", i * sizeof(unsigned));
	}
	free(text);
	logs_sink_close(sink);
}

/* --- sinks that do not take everything -----------------------------------------------------------
 */

static void on_pipe(void *context, unsigned events)
{
	struct world *w = context;
	ssize_t n;

	(void)events;
	w->got = realloc(w->got, w->got_bytes + 65537);
	n = read(w->reader, w->got + w->got_bytes, 4096 + w->got_bytes % 60000);
	if (n > 0)
		w->got_bytes += (size_t)n;
	else
		loop_watch_events(w->reading, 0);
	w->got[w->got_bytes] = '\0';
}

/* A sink that is a pipe; the write end that baton was given is blocking, as a shell's is. */
static struct logs_sink *open_pipe_sink(struct world *w)
{
	struct logs_sink *sink;
	char path[64];
	struct err e;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	w->reader = fds[0];
	w->got = calloc(1, 1);
	fcntl(w->reader, F_SETFL, O_NONBLOCK);
	snprintf(path, sizeof(path), "/dev/fd/%d", fds[1]);
	assert_int_equal(logs_sink_open(w->logs, OUTPUT_PATH, path, 1, "", "", &sink, &e), 0);
	assert_false(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
	close(fds[1]);
	return sink;
}

static void write_lines(int fd, char name, int lines)
{
	char line[128];

	for (int i = 0; i < lines; i++) {
		int n = snprintf(line, sizeof(line), "%c line %06d %.*s\n", name, i, i % 60,
			"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv"
			"wxyz");
		for (int done = 0; done < n;) {
			ssize_t m = write(fd, line + done, (size_t)(n - done));
			if (m < 0)
				_exit(1);
			done += (int)m;
		}
	}
}

static bool got_wanted(struct world *w)
{
	return w->got_bytes >= w->bytes_wanted;
}

/* Nobody reads for a while: the loop turns, the workers wait, and then every line comes, whole and
 * in order, of both of them side by side. */
static void test_stuck_pipe(void **state)
{
	struct world *w = *state;
	struct logs_sink *sink = open_pipe_sink(w);
	int outs[2] = {open_stream(w, 0, sink, "a:0"), open_stream(w, 1, sink, "b:0")};
	int next[2] = {0, 0}, changes = 0, last = -1;
	enum { LINES = 40000 };
	pid_t pids[2];

	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			write_lines(outs[i], i ? 'b' : 'a', LINES);
			_exit(0);
		}
	}
	close(outs[0]);
	close(outs[1]);
	turn(w, 200);
	assert_int_equal(w->ended, 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(waitpid(pids[i], NULL, WNOHANG), 0); /* both wait */
	w->reading = loop_watch(w->loop, w->reader, LOOP_READ, on_pipe, w);
	run_until(w, all_ended);
	logs_sink_close(sink); /* the last one: it is flushed, then closed */
	for (int i = 0; i < LINES; i++)
		w->bytes_wanted += 2u * (21 + (unsigned)i % 60);
	run_until(w, got_wanted);
	for (char *at = w->got, *end; *at; at = end + 1) {
		char who, whom;
		int number;

		end = strchr(at, '\n');
		assert_non_null(end);
		*end = '\0';
		if (sscanf(at, "%c:0 | %c line %d", &who, &whom, &number) != 3 || who != whom)
			fail_msg("torn: %s", at);
		assert_int_equal(number, next[who - 'a']);
		next[who - 'a']++;
		assert_int_equal(strlen(at), (size_t)(20 + number % 60));
		changes += last != who;
		last = who;
	}
	assert_int_equal(next[0], LINES);
	assert_int_equal(next[1], LINES);
	assert_true(changes >= 10); /* neither kept the other out */
	for (int i = 0; i < 2; i++)
		waitpid(pids[i], NULL, 0);
	assert_int_equal(count(w->tapped, "log."), 0);
}

static void test_reader_gone(void **state)
{
	struct world *w = *state;
	struct logs_sink *sink = open_pipe_sink(w);
	int out = open_stream(w, 0, sink, "a:0");

	close(w->reader);
	w->reader = -1;
	say(out, "one\n");
	turn(w, 20);
	for (int i = 0; i < 100; i++) {
		say(out, "more and more\n");
		logs_stream_drain(w->streams[0]);
	}
	close(out);
	run_until(w, all_ended);
	logs_sink_close(sink);
	assert_int_equal(count(w->tapped, "\"event\":\"log.gone\""), 1);
}

/* As before, but the sink was full when its reader went away. */
static void test_reader_gone_while_full(void **state)
{
	struct world *w = *state;
	struct logs_sink *sink = open_pipe_sink(w);
	int out = open_stream(w, 0, sink, NULL);
	pid_t pid = fork();

	if (pid == 0) {
		close(w->reader);
		write_lines(out, 'a', 20000);
		_exit(0);
	}
	close(out);
	turn(w, 100);
	assert_int_equal(w->ended, 0);
	close(w->reader);
	w->reader = -1;
	run_until(w, all_ended);
	waitpid(pid, NULL, 0);
	logs_sink_close(sink);
	assert_int_equal(count(w->tapped, "\"event\":\"log.gone\""), 1);
}

/* A full disk, played by the limit on file sizes. */
static void test_disk_full(void **state)
{
	struct world *w = *state;
	char path[128], *text;
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int out = open_stream(w, 0, sink, NULL), lines = 0;
	struct rlimit before, small;
	size_t got;
	pid_t pid;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = 100000;
	pid = fork();
	if (pid == 0) {
		write_lines(out, 'a', 20000);
		_exit(0);
	}
	close(out);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	turn(w, 100);
	logs_retry(w->logs);
	turn(w, 1100);
	logs_retry(w->logs); /* still full */
	turn(w, 10);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(w->ended, 0);
	assert_int_equal(count(w->tapped, "\"event\":\"log.stuck\""), 1);
	text = slurp(path, &got);
	assert_int_equal(got, 100000);
	free(text);
	turn(w, 1100);
	logs_retry(w->logs);
	run_until(w, all_ended);
	waitpid(pid, NULL, 0);
	text = slurp(path, &got);
	for (char *at = text; *at; at = strchr(at, '\n') + 1) {
		char start[32];
		int n = snprintf(start, sizeof(start), "a line %06d ", lines++);
		if (strncmp(at, start, (size_t)n) != 0)
			fail_msg("lost at line %d", lines);
	}
	assert_int_equal(lines, 20000);
	free(text);
	logs_sink_close(sink);
	assert_int_equal(count(w->tapped, "\"event\":\"log.unstuck\""), 1);
}

static bool got_dropped(struct world *w)
{
	char *at = strstr(w->got, "event=log.dropped");

	return at && strchr(at, '\n');
}

/* Baton's own log goes to a pipe nobody reads: a bound, a count, no wait. */
static void test_own_log_is_dropped_and_counted(void **state)
{
	struct world *w = *state;
	char fifo[128], *at;
	struct err e;
	int lines = 0, dropped = 0;

	snprintf(fifo, sizeof(fifo), "%s/fifo", w->folder);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(logs_configure(w->logs, fifo, LOG_LOGFMT, LOGS_INFO, &e), 0);
	logs_tap(w->logs, NULL, NULL);
	for (int i = 0; i < 20000; i++)
		logs_event(w->logs, LOGS_INFO, "number", NULL, 0, "%d", i);
	w->reader = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(w->reader >= 0);
	w->got = calloc(1, 1);
	w->reading = loop_watch(w->loop, w->reader, LOOP_READ, on_pipe, w);
	run_until(w, got_dropped);
	at = strstr(w->got, "event=log.dropped");
	assert_non_null(at);
	dropped = atoi(strstr(at, "lines=") + 6);
	lines = count(w->got, "event=number");
	assert_true(dropped > 0);
	assert_int_equal(lines + dropped, 20000);
	assert_true(w->got_bytes < 2 * LOGS_SINK_BYTES);
	assert_int_equal(logs_configure(w->logs, w->own, LOG_LOGFMT, LOGS_INFO, &e), 0);
}

/* --- rotation ----------------------------------------------------------------------------------
 */

static void test_reopen(void **state)
{
	struct world *w = *state;
	char path[128], old[140], own_old[140], *text;
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	int out = open_stream(w, 0, sink, NULL);

	say(out, "one\nhal");
	logs_stream_drain(w->streams[0]);
	logs_event(w->logs, LOGS_INFO, "before", NULL, 0, "x");
	snprintf(old, sizeof(old), "%s.1", path);
	snprintf(own_old, sizeof(own_old), "%s.1", w->own);
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(rename(w->own, own_old), 0);
	logs_reopen(w->logs);
	logs_event(w->logs, LOGS_INFO, "after", NULL, 0, "x");
	say(out, "f\ntwo\n");
	logs_stream_drain(w->streams[0]);
	assert_file(old, "one\nhalf\n"); /* no line is torn */
	assert_file(path, "two\n");
	logs_reopen(w->logs); /* nothing was moved: nothing changes */
	say(out, "three\n");
	close(out);
	run_until(w, all_ended);
	assert_file(path, "two\nthree\n");
	text = slurp(w->own, NULL);
	assert_int_equal(count(text, "event=after"), 1);
	assert_int_equal(count(text, "event=before"), 0);
	free(text);
	logs_sink_close(sink);
}

static void test_reopen_fails(void **state)
{
	struct world *w = *state;
	char path[128], moved[140];
	struct logs_sink *sink;
	int out;

	snprintf(path, sizeof(path), "%s/sub", w->folder);
	snprintf(moved, sizeof(moved), "%s/moved", w->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	sink = open_path(w, "sub/out.log", path, sizeof(path));
	out = open_stream(w, 0, sink, NULL);
	say(out, "one\n");
	logs_stream_drain(w->streams[0]);
	*strrchr(path, '/') = '\0';
	assert_int_equal(rename(path, moved), 0);
	logs_reopen(w->logs);
	say(out, "two\n");
	close(out);
	run_until(w, all_ended);
	strcat(moved, "/out.log");
	assert_file(moved, "one\ntwo\n");
	assert_int_equal(count(w->tapped, "\"event\":\"log.reopen_failed\""), 1);
	logs_sink_close(sink);
}

/* --- terminals ---------------------------------------------------------------------------------
 */

static char *on_terminal(struct world *w)
{
	static char text[4096];
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, out;
	struct logs_sink *sink;
	struct err e;
	size_t used = 0;
	struct pollfd p = {.fd = master, .events = POLLIN};

	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	assert_int_equal(logs_configure(w->logs, ptsname(master), LOG_DEFAULT, LOGS_INFO, &e), 0);
	assert_int_equal(
		logs_sink_open(w->logs, OUTPUT_PATH, ptsname(master), 1, "", "", &sink, &e), 0);
	logs_event(w->logs, LOGS_ERROR, "x.y", NULL, 0, "bad");
	out = open_stream(w, 0, sink, "web:0");
	say(out, "hello\n");
	close(out);
	run_until(w, all_ended);
	logs_sink_close(sink);
	while (used < sizeof(text) - 1 && poll(&p, 1, 0) == 1 && (p.revents & POLLIN)) {
		ssize_t n = read(master, text + used, sizeof(text) - 1 - used);
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	text[used] = '\0';
	assert_int_equal(logs_configure(w->logs, w->own, LOG_DEFAULT, LOGS_INFO, &e), 0);
	close(slave);
	close(master);
	return text;
}

static void test_terminal(void **state)
{
	char *text = on_terminal(*state);

	assert_non_null(strstr(text, "\033[31merror\033[0m bad\r\n"));
	assert_non_null(strstr(text, "mweb:0 | \033[0mhello\r\n"));
}

static void test_terminal_without_colour(void **state)
{
	struct world *w = *state;
	struct err e;
	char *text;

	setenv("NO_COLOR", "1", 1);
	logs_free(w->logs);
	assert_int_equal(logs_create(w->loop, &w->logs, &e), 0);
	text = on_terminal(w);
	assert_null(strchr(text, '\033'));
	assert_string_equal(text + 12, " error bad\r\nweb:0 | hello\r\n");
}

/* --- many --------------------------------------------------------------------------------------
 */

/* 2,000 streams that hold no line cost little, and nothing is allocated while they write. */
static void test_many_streams(void **state)
{
	struct world *w = *state;
	char path[128], *text;
	struct logs_sink *sink = open_path(w, "out.log", path, sizeof(path));
	static struct logs_stream *streams[2000];
	static int outs[2000];
	struct rlimit files = {.rlim_cur = 8192, .rlim_max = 8192};
	struct err e;
	char prefix[32];

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 4200) {
		logs_sink_close(sink);
		skip();
	}
	for (int i = 0; i < 2000; i++) {
		int in;
		snprintf(prefix, sizeof(prefix), "web:%d", i / 2);
		assert_int_equal(logs_pipe(&in, &outs[i], &e), 0);
		assert_int_equal(logs_stream_open(w->logs, in, logs_sink_ref(sink), prefix, NULL,
					 NULL, &streams[i], &e),
			0);
	}
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 2000; i++)
			say(outs[i], "hello world\n");
		turn(w, 100);
	}
	for (int i = 0; i < 2000; i++) {
		close(outs[i]);
		logs_stream_drain(streams[i]);
		logs_stream_close(streams[i]);
	}
	logs_sink_close(sink);
	text = slurp(path, NULL);
	assert_int_equal(count(text, " | hello world\n"), 10000);
	free(text);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_logfmt),
		TEST(test_text_in_a_file),
		TEST(test_json_of_every_byte),
		TEST(test_long_events),
		TEST(test_levels),
		TEST(test_configure_keeps_the_old_one),
		TEST(test_prefixed_lines),
		TEST(test_drain_says_the_end),
		TEST(test_detached_goes_on),
		TEST(test_no_sink_is_thrown_away),
		TEST(test_automatic_file),
		TEST(test_long_line),
		TEST(test_pieces_do_not_mix),
		TEST(test_raw_shared),
		TEST(test_100_mib),
		TEST(test_stuck_pipe),
		TEST(test_reader_gone),
		TEST(test_reader_gone_while_full),
		TEST(test_disk_full),
		TEST(test_own_log_is_dropped_and_counted),
		TEST(test_reopen),
		TEST(test_reopen_fails),
		TEST(test_terminal),
		TEST(test_terminal_without_colour),
		TEST(test_many_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The notify socket: what is parsed, who sent it, garbage, floods, foreign descriptors. */
#include "supervisor/shell/notify.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
	struct loop *loop;
	struct notify *notify;
	char folder[64];
	struct notify_message last;
	int messages, malformed, rounds, wanted;
	uint64_t wanted_dropped;
	int most_a_round, this_round;
};

static void on_message(void *context, const struct notify_message *m)
{
	struct world *w = context;

	w->last = *m;
	w->messages++;
	w->malformed += m->malformed != NULL;
	w->this_round++;
}

static void hook(void *context)
{
	struct world *w = context;

	w->rounds++;
	if (w->this_round > w->most_a_round)
		w->most_a_round = w->this_round;
	w->this_round = 0;
	if (w->messages >= w->wanted && notify_dropped(w->notify) >= w->wanted_dropped)
		loop_stop(w->loop);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err e;

	alarm(60);
	signal(SIGPIPE, SIG_IGN);
	strcpy(w->folder, "/tmp/baton-notify-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	assert_int_equal(chmod(w->folder, 0755), 0);
	setenv("RUNTIME_DIRECTORY", w->folder, 1);
	assert_int_equal(loop_create(&w->loop, &e), 0);
	loop_before_block(w->loop, hook, w);
	assert_int_equal(notify_open(w->loop, "0123-abc", on_message, w, &w->notify, &e), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char path[128];

	notify_close(w->notify);
	loop_free(w->loop);
	snprintf(path, sizeof(path), "%s/notify-0123-abc.sock", w->folder);
	assert_int_not_equal(access(path, F_OK), 0);
	assert_int_equal(rmdir(w->folder), 0);
	free(w);
	return 0;
}

static socklen_t address_of(const char *path, struct sockaddr_un *a)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, path);
	if (path[0] != '@')
		return sizeof(*a);
	a->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
}

static int sender_to(const struct world *w)
{
	struct sockaddr_un a;
	socklen_t bytes = address_of(notify_address(w->notify), &a);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, bytes), 0);
	return fd;
}

static void parse(const char *text, struct notify_message *m)
{
	assert_int_equal(notify_parse(text, strlen(text), m, NULL), 0);
}

static void test_parse(void **state)
{
	struct notify_message m;
	char longest[600];

	(void)state;
	parse("READY=1\nSTATUS=a\tb\nWATCHDOG=1\nMAINPID=77\nEXTEND_TIMEOUT_USEC=5000000\n", &m);
	assert_true(m.ready && m.watchdog && !m.stopping && !m.reloading && m.has_status);
	assert_string_equal(m.status, "a b");
	assert_int_equal(m.mainpid, 77);
	assert_int_equal(m.extend_timeout_us, 5000000);
	parse("STOPPING=1\n\nRELOADING=1\nX_OTHER=what=ever", &m);
	assert_true(m.stopping && m.reloading && !m.ready && !m.has_status);
	parse("READY=0\nMAINPID=-3\nMAINPID=99999999999\nEXTEND_TIMEOUT_USEC=soon\nWATCHDOG=", &m);
	assert_true(!m.ready && !m.mainpid && !m.extend_timeout_us && !m.watchdog);
	parse("STATUS=", &m);
	assert_true(m.has_status);
	assert_string_equal(m.status, "");

	memset(longest, 'x', sizeof(longest));
	memcpy(longest, "STATUS=", 7);
	/* A character of two bytes across the end of the field is left out whole. */
	memcpy(longest + 7 + 254, "\xc3\xa9", 2);
	assert_int_equal(notify_parse(longest, sizeof(longest), &m, NULL), 0);
	assert_int_equal(strlen(m.status), 254);
}

static void test_parse_garbage(void **state)
{
	static const struct {
		const char *text;
		size_t bytes;
	} bad[] = {
		{"", 0},
		{"\0", 1},
		{"READY=1\0STATUS=x", 16},
	};
	static const char *const passed_over[] = {"READY=1\nGARBAGE\n", "GARBAGE\nREADY=1",
		"=1\nREADY=1", "READY=1\n=", "READY\nREADY=1\nREADY"};
	struct notify_message m = {.mainpid = 42}, good;
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(notify_parse(bad[i].text, bad[i].bytes, &m, &e), ERR_PROTOCOL);
		assert_int_equal(m.mainpid, 42);
	}
	for (size_t i = 0; i < sizeof(passed_over) / sizeof(passed_over[0]); i++) {
		parse(passed_over[i], &good); /* that line only, as systemd does */
		assert_true(good.ready);
		assert_string_equal(good.malformed, "not KEY=VALUE in every line");
	}
	parse("READY", &good);
	assert_true(good.malformed && !good.ready);
	parse("READY=1\nX=\n", &good);
	assert_null(good.malformed);
	assert_int_equal(notify_parse("READY=1", 8, &good, &e), 0); /* with the string's end */
	assert_true(good.ready);
}

/* Random bytes: no crash, and what is accepted is printable. */
static void test_parse_random(void **state)
{
	unsigned seed = 12345;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		static const char *const words[] = {
			"READY=1", "STATUS=", "MAINPID=", "\n", "=", "X"};
		char *text = malloc(64);
		size_t n = 0;
		struct notify_message m;

		while (n < 40) {
			seed = seed * 1664525u + 1013904223u;
			if (seed >> 30) {
				const char *word = words[(seed >> 8) % 6];
				memcpy(text + n, word, strlen(word));
				n += strlen(word);
			} else {
				text[n++] = (char)(seed >> 16);
			}
		}
		text = realloc(text, n); /* so that a sanitizer sees a step too far */
		if (notify_parse(text, n, &m, NULL) == 0) {
			for (const char *c = m.status; *c; c++)
				assert_true((unsigned char)*c >= 0x20);
		}
		free(text);
	}
}

static void test_receive(void **state)
{
	struct world *w = *state;
	struct stat st;
	pid_t pid;

	assert_int_equal(notify_address(w->notify)[0], '/');
	assert_memory_equal(notify_address(w->notify), w->folder, strlen(w->folder));
	assert_int_equal(stat(notify_address(w->notify), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	assert_true(notify_path_intact(w->notify));
	pid = fork();
	if (pid == 0) {
		int fd = sender_to(w);
		_exit(send(fd, "READY=1\nSTATUS=up", 17, 0) == 17 ? 0 : 1);
	}
	w->wanted = 1;
	loop_run(w->loop);
	waitpid(pid, NULL, 0);
	assert_int_equal(w->last.pid, pid);
	assert_int_equal(w->last.uid, getuid());
	assert_true(w->last.ready);
	assert_string_equal(w->last.status, "up");
}

static void test_bad_datagrams(void **state)
{
	struct world *w = *state;
	int fd = sender_to(w), big = 4 * 1024 * 1024;
	char *block = malloc(1024 * 1024);

	memset(block, 'A', 1024 * 1024);
	memcpy(block, "STATUS=", 7);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
	/* Where the kernel takes one as large as that. */
	if (send(fd, block, 1024 * 1024, 0) == 1024 * 1024)
		w->wanted_dropped++;
	assert_int_equal(send(fd, block, 100000, 0), 100000);
	assert_int_equal(send(fd, "garbage", 7, 0), 7);
	assert_int_equal(send(fd, "", 0, 0), 0);
	assert_int_equal(send(fd, "READY=1", 7, 0), 7);
	w->wanted_dropped += 2;
	w->wanted = (int)w->wanted_dropped + 2;
	loop_run(w->loop);
	assert_int_equal(w->messages, w->wanted); /* who sent it, and what was wrong with it */
	assert_int_equal(w->malformed, w->wanted - 1);
	assert_int_equal(w->last.pid, getpid());
	assert_int_equal(notify_dropped(w->notify), w->wanted_dropped);
	free(block);
	close(fd);
}

static int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int count = 0;

	assert_non_null(d);
	while (readdir(d))
		count++;
	closedir(d);
	return count;
}

static void send_with_descriptors(int fd, const char *text, int count)
{
	struct iovec part = {.iov_base = (char *)text, .iov_len = strlen(text)};
	char *control = calloc(1, CMSG_SPACE((size_t)count * sizeof(int)));
	struct msghdr m = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
	for (int i = 0; i < count; i++) {
		int one = STDIN_FILENO;
		memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &one, sizeof(one));
	}
	assert_true(sendmsg(fd, &m, 0) >= 0);
	free(control);
}

static void test_descriptors_are_closed(void **state)
{
	struct world *w = *state;
	int fd = sender_to(w), before = open_descriptors();

	if (fcntl(STDIN_FILENO, F_GETFD) < 0)
		skip();
	send_with_descriptors(fd, "READY=1", 1);
	send_with_descriptors(fd, "READY=1", 253);
	send_with_descriptors(fd, "garbage", 253);
	w->wanted = 3;
	loop_run(w->loop);
	assert_int_equal(open_descriptors(), before);
	close(fd);
}

/* A flood: a bounded number a round, and all of it arrives. */
static void test_flood(void **state)
{
	struct world *w = *state;
	pid_t pid = fork();

	if (pid == 0) {
		int fd = sender_to(w);
		for (int i = 0; i < 20000; i++) {
			if (send(fd, "WATCHDOG=1", 10, 0) != 10)
				_exit(1);
		}
		_exit(0);
	}
	w->wanted = 20000;
	loop_run(w->loop);
	waitpid(pid, NULL, 0);
	assert_int_equal(w->messages, 20000);
	assert_true(w->most_a_round <= 64);
}

/* What a killed supervisor has left is swept away; a living one's is not. */
static void test_sweep(void **state)
{
	struct world *w = *state;
	struct notify *other;
	struct sockaddr_un a;
	char dead[128];
	struct err e;
	socklen_t bytes;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(dead, sizeof(dead), "%s/notify-dead.sock", w->folder);
	bytes = address_of(dead, &a);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, bytes), 0);
	close(fd);
	assert_int_equal(notify_open(w->loop, "other", on_message, w, &other, &e), 0);
	assert_int_not_equal(access(dead, F_OK), 0);
	assert_true(notify_path_intact(w->notify));
	notify_close(other);
}

static void test_parent(void **state)
{
	struct world *w = *state;
	char abstract[64];
	struct sockaddr_un a;
	socklen_t bytes;
	char got[64];
	int fd;

	unsetenv("NOTIFY_SOCKET");
	assert_false(notify_parent("READY=1"));
	setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
	assert_false(notify_parent("READY=1"));
	setenv("NOTIFY_SOCKET", notify_address(w->notify), 1);
	assert_true(notify_parent("READY=1"));
	w->wanted = 1;
	loop_run(w->loop);
	assert_true(w->last.ready);
	assert_int_equal(w->last.pid, getpid());

	snprintf(abstract, sizeof(abstract), "@baton-test-%d", (int)getpid());
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bytes = address_of(abstract, &a);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, bytes), 0);
	setenv("NOTIFY_SOCKET", abstract, 1);
	assert_true(notify_parent("STOPPING=1"));
	assert_int_equal(recv(fd, got, sizeof(got), 0), 10);
	close(fd);
	unsetenv("NOTIFY_SOCKET");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_garbage),
		cmocka_unit_test(test_parse_random),
		TEST(test_receive),
		TEST(test_bad_datagrams),
		TEST(test_descriptors_are_closed),
		TEST(test_flood),
		TEST(test_sweep),
		TEST(test_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * worker/client.c against worker/lease.c and worker/channel.c, which it does not know: this is
 * what keeps the two descriptions of the page and of the lines the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/baton.h"
#include "worker/channel.h"
#include "worker/lease.h"

#define SECOND INT64_C(1000000000)

struct world { /* a supervisor */
	struct lease lease;
	int ours, theirs;
	struct baton *b;
};

static void set_number(const char *name, int number)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", number);
	setenv(name, text, 1);
}

static int begin(void **state)
{
	static struct world w;
	int pair[2];

	if (lease_create(&w.lease, NULL) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	w.ours = pair[0];
	w.theirs = pair[1];
	w.b = NULL;
	set_number("BATON_LEASE_FD", w.lease.fd_ro);
	set_number("BATON_CHANNEL_FD", w.theirs);
	*state = &w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	baton_close(w->b);
	lease_release(&w->lease);
	if (w->ours >= 0)
		close(w->ours);
	close(w->theirs);
	unsetenv("BATON_LEASE_FD");
	unsetenv("BATON_CHANNEL_FD");
	unsetenv("NOTIFY_SOCKET");
	return 0;
}

static void open_it(struct world *w)
{
	char error[256] = "";

	if (baton_open(&w->b, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	assert_non_null(w->b);
}

static void tell(struct world *w, struct channel_message m)
{
	char line[CHANNEL_LINE_BYTES];
	size_t length = channel_encode(&m, line);

	assert_int_equal(write(w->ours, line, length), length);
}

static void tell_promote(struct world *w, uint64_t term)
{
	tell(w, (struct channel_message){.verb = CHANNEL_PROMOTE, .term = term, .number = 60000});
}

static void tell_demote(struct world *w, uint64_t term, enum channel_reason reason)
{
	tell(w, (struct channel_message){
			.verb = CHANNEL_DEMOTE, .term = term, .reason = reason, .number = 1500});
}

static void show(struct world *w, uint64_t term)
{
	int64_t now = lease_now_ns();

	lease_show(w->lease.page, term, now + 50 * SECOND, now + 60 * SECOND);
}

static void expect(struct world *w, int kind, int reason, uint64_t term)
{
	struct baton_event event;
	int rc = baton_next_event(w->b, &event);

	if (rc != 1 || event.kind != kind || event.reason != reason || event.term != term)
		fail_msg("rc %d: kind %d, reason %d, term %lu", rc, rc == 1 ? event.kind : 0,
			rc == 1 ? event.reason : 0, rc == 1 ? (unsigned long)event.term : 0);
}

static void expect_nothing(struct world *w)
{
	struct baton_event event;

	assert_int_equal(baton_next_event(w->b, &event), 0);
}

static void hear(struct world *w, const char *wanted)
{
	char text[CHANNEL_LINE_BYTES];
	ssize_t got = recv(w->ours, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[got > 0 ? got : 0] = '\0';
	assert_string_equal(text, wanted);
}

/* --- questions ------------------------------------------------------------------------------ */

static void answers_from_the_page(void **state)
{
	struct world *w = *state;
	int64_t now = lease_now_ns(), left;

	open_it(w);
	assert_int_equal(baton_is_executor(w->b), 0);
	assert_int_equal(baton_term(w->b), 0);
	show(w, 1753000000000000);
	assert_int_equal(baton_is_executor(w->b), 1);
	assert_int_equal(baton_may_start(w->b), 1);
	assert_int_equal(baton_term(w->b), 1753000000000000);
	left = baton_lease_left_ns(w->b);
	assert_true(left > 50 * SECOND && left <= 60 * SECOND);
	assert_true(lease_extend(w->lease.page, now - 1, now + 60 * SECOND));
	assert_int_equal(baton_may_start(w->b), 0); /* past the soft deadline */
	assert_int_equal(baton_is_executor(w->b), 1);
	assert_true(lease_extend(w->lease.page, now - 2, now - 1));
	assert_int_equal(baton_is_executor(w->b), 0);
	assert_int_equal(baton_may_start(w->b), 0);
	assert_int_equal(baton_term(w->b), 0);
	assert_int_equal(baton_lease_left_ns(w->b), 0);
	lease_clear(w->lease.page);
	assert_int_equal(baton_is_executor(w->b), 0);
}

static void nobody_has_no_baton(void **state)
{
	struct baton_event event;

	(void)state;
	assert_int_equal(baton_is_executor(NULL), 0);
	assert_int_equal(baton_may_start(NULL), 0);
	assert_int_equal(baton_term(NULL), 0);
	assert_int_equal(baton_lease_left_ns(NULL), 0);
	assert_int_equal(baton_listen(NULL), -ENOTCONN);
	assert_int_equal(baton_next_event(NULL, &event), -ENOTCONN);
	assert_int_equal(baton_busy(NULL, 1), -ENOTCONN);
	baton_close(NULL);
}

/* While another process promotes and clears as fast as it can, a reader never pairs a term with
 * another one's deadline: here odd terms always get one that has passed. */
static void never_a_torn_term(void **state)
{
	struct world *w = *state;
	struct lease_page *p = w->lease.page;
	pid_t pid;

	open_it(w);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int64_t later = lease_now_ns() + 600 * SECOND;
		for (uint64_t term = 1;; term++) {
			lease_show(p, term, 1, term % 2 == 1 ? 1 : later + (int64_t)term);
			lease_clear(p);
		}
	}
	for (int i = 0; i < 500000; i++)
		assert_int_equal(baton_term(w->b) % 2, 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* --- opening -------------------------------------------------------------------------------- */

static void refused(int code, const char *words)
{
	struct baton *b = (struct baton *)&code;
	char error[256] = "";
	int rc = baton_open(&b, error, sizeof(error));

	if (rc != code || strstr(error, words) == NULL)
		fail_msg("expected %d and '%s': got %d, '%s'", code, words, rc, error);
	assert_null(b);
	assert_int_equal(baton_is_executor(b), 0);
}

static void bad_environment(void **state)
{
	struct world *w = *state;
	static const char *const words[] = {"x", "3x", "-1", " 3", "99999999999", "+3", "0x3"};
	int zeros = memfd_create("zeros", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		setenv("BATON_LEASE_FD", words[i], 1);
		refused(-EINVAL, words[i]);
	}
	setenv("BATON_LEASE_FD", "999", 1);
	refused(-EBADF, "999");
	set_number("BATON_LEASE_FD", null);
	refused(-EINVAL, "not a lease page");
	set_number("BATON_LEASE_FD", zeros);
	refused(-EINVAL, "not a lease page");
	assert_int_equal(ftruncate(zeros, LEASE_PAGE_BYTES), 0);
	refused(-EINVAL, "sealed"); /* could shrink */
	assert_int_equal(fcntl(zeros, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	refused(-EINVAL, "magic");
	set_number("BATON_LEASE_FD", w->lease.fd_ro);
	w->lease.page->version = 2;
	refused(-EINVAL, "version 2");
	w->lease.page->version = LEASE_VERSION;
	w->lease.page->time_namespace++;
	refused(-EXDEV, "time namespace");
	w->lease.page->time_namespace = 0; /* a kernel without them */
	set_number("BATON_CHANNEL_FD", null);
	refused(-EINVAL, "stream socket");
	unsetenv("BATON_CHANNEL_FD");
	open_it(w);
	assert_int_equal(baton_listen(w->b), -ENOTCONN);
	baton_close(w->b);
	w->b = NULL;
	unsetenv("BATON_LEASE_FD");
	refused(-ENOENT, "not started by baton");
	assert_int_equal(baton_open(&w->b, NULL, 0), -ENOENT);
	close(zeros);
	close(null);
}

static void not_a_candidate(void **state)
{
	struct world *w = *state;

	unsetenv("BATON_LEASE_FD");
	open_it(w);
	assert_int_equal(baton_is_executor(w->b), 0);
	assert_true(baton_listen(w->b) >= 0);
	tell_promote(w, 3);
	expect_nothing(w);
	hear(w, "hello\n");
}

/* --- events --------------------------------------------------------------------------------- */

static void promoted_and_demoted(void **state)
{
	struct world *w = *state;
	struct pollfd wait;

	open_it(w);
	wait = (struct pollfd){.fd = baton_listen(w->b), .events = POLLIN};
	hear(w, "hello\n");
	expect_nothing(w);
	assert_int_equal(poll(&wait, 1, 0), 0);
	show(w, 5);
	tell_promote(w, 5);
	assert_int_equal(poll(&wait, 1, 5000), 1);
	expect(w, BATON_PROMOTE, 0, 5);
	expect_nothing(w);
	assert_int_equal(baton_promoted(w->b, 5), 0);
	assert_int_equal(baton_busy(w->b, 2), 0);
	hear(w, "promoted 5\nbusy 2\n");
	tell_promote(w, 5); /* the answer to somebody's hello */
	expect_nothing(w);
	tell_demote(w, 5, CHANNEL_HANDOFF);
	assert_int_equal(baton_may_start(w->b), 1); /* not read yet */
	expect(w, BATON_DEMOTE, BATON_HANDOFF, 5);
	assert_int_equal(baton_is_executor(w->b), 1); /* the page decides */
	assert_int_equal(baton_may_start(w->b), 0);
	assert_int_equal(baton_demoted(w->b, 5), 0);
	hear(w, "demoted 5\n");
	tell_promote(w, 5); /* late */
	expect_nothing(w);
	lease_clear(w->lease.page);
	show(w, 6);
	tell_promote(w, 6);
	expect(w, BATON_PROMOTE, 0, 6);
	assert_int_equal(baton_may_start(w->b), 1);
	expect_nothing(w);
}

static void opens_after_the_promotion(void **state)
{
	struct world *w = *state;

	show(w, 8);
	open_it(w);
	assert_true(baton_listen(w->b) >= 0);
	hear(w, "hello\n");
	tell_promote(w, 8); /* the supervisor's answer */
	expect(w, BATON_PROMOTE, 0, 8);
	expect_nothing(w);
	tell_demote(w, 8, CHANNEL_SHUTDOWN);
	expect(w, BATON_DEMOTE, BATON_SHUTDOWN, 8);
	assert_true(baton_listen(w->b) >= 0); /* again: the demotion stays */
	expect_nothing(w);
}

static void contradicted_lines(void **state)
{
	struct world *w = *state;

	open_it(w);
	baton_listen(w->b);
	tell_promote(w, 9); /* the page says nothing */
	tell_demote(w, 9, CHANNEL_LOST);
	expect_nothing(w);
	show(w, 10);
	tell_promote(w, 9);
	expect_nothing(w);
	tell_promote(w, 10);
	tell_demote(w, 9, CHANNEL_LOST);
	expect(w, BATON_PROMOTE, 0, 10);
	expect_nothing(w);
}

static void losses_without_a_line(void **state)
{
	struct world *w = *state;
	int64_t now = lease_now_ns();

	open_it(w);
	baton_listen(w->b);
	show(w, 11);
	tell_promote(w, 11);
	expect(w, BATON_PROMOTE, 0, 11);
	lease_clear(w->lease.page);
	expect(w, BATON_DEMOTE, BATON_LOST, 11);
	expect_nothing(w);
	show(w, 12);
	tell_promote(w, 12);
	expect(w, BATON_PROMOTE, 0, 12);
	assert_true(lease_extend(w->lease.page, now, now));
	expect(w, BATON_DEMOTE, BATON_LOST, 12);
	lease_clear(w->lease.page);
	show(w, 13);
	tell_promote(w, 13);
	expect(w, BATON_PROMOTE, 0, 13);
	lease_clear(w->lease.page); /* promoted again before the client looked */
	show(w, 14);
	tell_promote(w, 14);
	expect(w, BATON_DEMOTE, BATON_LOST, 13);
	expect(w, BATON_PROMOTE, 0, 14);
	tell_demote(w, 14, CHANNEL_HANDOFF);
	lease_clear(w->lease.page);
	show(w, 15);
	tell_promote(w, 15);
	expect(w, BATON_DEMOTE, BATON_HANDOFF, 14); /* the line's reason, as it is there */
	expect(w, BATON_PROMOTE, 0, 15);
	expect_nothing(w);
}

static void strange_lines(void **state)
{
	struct world *w = *state;
	static const char *const lines[] = {"promote\n", "promote x y\n", "promote 16\n", "\n",
		"demote 16\n", "promote 99999999999999999999 1\n", "sing 16 1\n",
		"promote  16 1\n"};
	char noise[3000];

	open_it(w);
	baton_listen(w->b);
	expect_nothing(w);
	show(w, 16);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_true(write(w->ours, lines[i], strlen(lines[i])) > 0);
	memset(noise, 'n', sizeof(noise));
	assert_int_equal(write(w->ours, noise, sizeof(noise)), sizeof(noise));
	expect_nothing(w);
	assert_int_equal(write(w->ours, "\npromote 16", 11), 11);
	expect_nothing(w);
	assert_int_equal(write(w->ours, " 60000 later words\n", 19), 19);
	expect(w, BATON_PROMOTE, 0, 16);
	assert_int_equal(write(w->ours, "demote 16 boredom 5 x\n", 22), 22);
	expect(w, BATON_DEMOTE, BATON_OTHER, 16);
}

static void supervisor_gone(void **state)
{
	struct world *w = *state;
	struct baton_event event;

	open_it(w);
	show(w, 17);
	baton_listen(w->b);
	expect(w, BATON_PROMOTE, 0, 17);
	tell_demote(w, 17, CHANNEL_SHUTDOWN);
	close(w->ours);
	w->ours = -1;
	expect(w, BATON_DEMOTE, BATON_SHUTDOWN, 17); /* what it said before is still heard */
	assert_int_equal(baton_next_event(w->b, &event), -EPIPE);
	assert_int_equal(baton_next_event(w->b, &event), -EPIPE);
	assert_int_equal(baton_busy(w->b, 1), -EPIPE); /* and no SIGPIPE */
	assert_int_equal(baton_is_executor(w->b), 1);
}

static void never_waits(void **state)
{
	struct world *w = *state;
	int rc = 0, sent = 0;

	open_it(w);
	while (rc == 0 && sent < 1000000) {
		rc = baton_busy(w->b, 1);
		sent++;
	}
	assert_int_equal(rc, -EAGAIN);
}

static void one_reader(void **state)
{
	struct world *w = *state;
	struct baton_event event;
	int status;

	open_it(w);
	assert_int_equal(baton_next_event(w->b, &event), -ENOTCONN); /* nobody listens yet */
	baton_listen(w->b);
	show(w, 18);
	tell_promote(w, 18);
	pid_t pid = fork();
	if (pid == 0) {
		if (baton_next_event(w->b, &event) != -EPERM)
			_exit(1);
		if (!baton_is_executor(w->b) || baton_term(w->b) != 18)
			_exit(2);
		_exit(baton_busy(w->b, 3) == 0 ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	hear(w, "hello\nbusy 3\n");
	expect(w, BATON_PROMOTE, 0, 18);
}

static void number_reused(void **state)
{
	struct world *w = *state;
	struct baton_event event;
	int fd, pair[2];

	open_it(w);
	fd = baton_listen(w->b);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(dup3(pair[0], fd, O_CLOEXEC), fd);
	assert_int_equal(baton_busy(w->b, 1), -EBADF);
	assert_int_equal(baton_next_event(w->b, &event), -EBADF);
	close(pair[0]);
	close(pair[1]);
}

/* --- systemd's protocol --------------------------------------------------------------------- */

static int receiver(const char *name, bool abstract)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	size_t length = strlen(name);

	memcpy(address.sun_path + (abstract ? 1 : 0), name, length);
	assert_int_equal(bind(fd, (struct sockaddr *)&address,
				 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1)),
		0);
	return fd;
}

static void heard(int fd, const char *wanted)
{
	char text[2048];
	ssize_t got = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[got > 0 ? got : 0] = '\0';
	assert_string_equal(text, wanted);
}

static void notifies(void **state)
{
	char name[64], variable[80];

	(void)state;
	assert_int_equal(baton_ready(), 0);
	for (int abstract = 0; abstract < 2; abstract++) {
		int fd;
		snprintf(name, sizeof(name), "%sbaton-test-client-%d", abstract ? "" : "/tmp/",
			(int)getpid());
		fd = receiver(name, abstract != 0);
		snprintf(variable, sizeof(variable), "%s%s", abstract ? "@" : "", name);
		setenv("NOTIFY_SOCKET", variable, 1);
		assert_int_equal(baton_ready(), 1);
		heard(fd, "READY=1");
		assert_int_equal(baton_status("reading 3 of 4"), 1);
		heard(fd, "STATUS=reading 3 of 4");
		assert_int_equal(baton_stopping(), 1);
		heard(fd, "STOPPING=1");
		assert_int_equal(baton_watchdog(), 1);
		heard(fd, "WATCHDOG=1");
		assert_int_equal(baton_notify("READY=1\nSTATUS=x"), 1);
		heard(fd, "READY=1\nSTATUS=x");
		assert_int_equal(baton_status("two\nlines"), -EINVAL);
		assert_int_equal(baton_notify(""), -EINVAL);
		close(fd);
		assert_int_equal(baton_ready(), -ECONNREFUSED);
		unlink(name);
	}
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(baton_ready(), -EINVAL);
	setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
	assert_int_equal(baton_ready(), -ENOENT);
}

static void watchdog_time(void **state)
{
	(void)state;
	assert_int_equal(baton_watchdog_ns(), 0);
	setenv("WATCHDOG_USEC", "2500000", 1);
	assert_int_equal(baton_watchdog_ns(), 2500000000);
	set_number("WATCHDOG_PID", (int)getpid());
	assert_int_equal(baton_watchdog_ns(), 2500000000);
	set_number("WATCHDOG_PID", (int)getppid());
	assert_int_equal(baton_watchdog_ns(), 0);
	unsetenv("WATCHDOG_PID");
	setenv("WATCHDOG_USEC", "soon", 1);
	assert_int_equal(baton_watchdog_ns(), 0);
	unsetenv("WATCHDOG_USEC");
}

#define WITH_WORLD(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_WORLD(answers_from_the_page),
		WITH_WORLD(nobody_has_no_baton),
		WITH_WORLD(never_a_torn_term),
		WITH_WORLD(bad_environment),
		WITH_WORLD(not_a_candidate),
		WITH_WORLD(promoted_and_demoted),
		WITH_WORLD(opens_after_the_promotion),
		WITH_WORLD(contradicted_lines),
		WITH_WORLD(losses_without_a_line),
		WITH_WORLD(strange_lines),
		WITH_WORLD(supervisor_gone),
		WITH_WORLD(never_waits),
		WITH_WORLD(one_reader),
		WITH_WORLD(number_reused),
		WITH_WORLD(notifies),
		WITH_WORLD(watchdog_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

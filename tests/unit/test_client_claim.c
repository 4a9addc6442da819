/* worker/client_claim.c: a supervisor is played over a socketpair and a real lease page; its lines
 * are made and read by worker/channel.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/baton.h"
#include "worker/channel.h"
#include "worker/lease.h"

#define SECOND INT64_C(1000000000)

struct world {
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

static void show(struct world *w, uint64_t term, int64_t soft_ns)
{
	int64_t now = lease_now_ns();

	lease_show(w->lease.page, term, now + soft_ns, now + 60 * SECOND);
}

/* Promoted under term 5, and told so. */
static int begin(void **state)
{
	static struct world w;
	struct baton_event event;
	int pair[2];

	if (lease_create(&w.lease, NULL) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	w.ours = pair[0];
	w.theirs = pair[1];
	set_number("BATON_LEASE_FD", w.lease.fd_ro);
	set_number("BATON_CHANNEL_FD", w.theirs);
	assert_int_equal(baton_open(&w.b, NULL, 0), 0);
	assert_int_equal(baton_claim(w.b, "a", 1, SECOND), -ENOTCONN); /* nobody listens */
	assert_true(baton_listen(w.b) >= 0);
	show(&w, 5, 50 * SECOND);
	assert_int_equal(baton_next_event(w.b, &event), 1);
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
	return 0;
}

static void tell(struct world *w, const char *text)
{
	assert_int_equal(write(w->ours, text, strlen(text)), strlen(text));
}

/* The lines that were sent, without the first hello. */
static const char *heard(struct world *w)
{
	static char text[4096];
	ssize_t got = recv(w->ours, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[got > 0 ? got : 0] = '\0';
	return strncmp(text, "hello\n", 6) == 0 ? text + 6 : text;
}

static void asked_and_answered(void **state)
{
	struct world *w = *state;
	struct baton_event event;

	assert_int_equal(baton_claim_ask(w->b, "nightly", 1806201000000000), 1);
	assert_int_equal(baton_claim_ask(w->b, "nightly", 1806201000000000), -EALREADY);
	assert_int_equal(baton_claim_ask(w->b, "hourly", 7), 1);
	assert_string_equal(heard(w), "claim nightly 1806201000000000\nclaim hourly 7\n");
	assert_int_equal(baton_claim_answer(w->b, "nightly", 1806201000000000), -EAGAIN);
	assert_int_equal(baton_claim_answer(w->b, "other", 7), -ENOENT);
	tell(w, "refused hourly 7\nclaimed nightly 1806201000000000 word of tomorrow\n");
	assert_int_equal(baton_next_event(w->b, &event), 0);
	assert_int_equal(baton_claim_answer(w->b, "nightly", 1806201000000000), 1);
	assert_int_equal(baton_claim_answer(w->b, "nightly", 1806201000000000), -ENOENT);
	assert_int_equal(baton_claim_answer(w->b, "hourly", 7), 0);
	/* Answers to nobody, and half words. */
	tell(w, "claimed ghost 1\nclaimed\nclaimed nightly\nrefused hourly 77\n");
	assert_int_equal(baton_next_event(w->b, &event), 0);
}

static void names(void **state)
{
	struct world *w = *state;
	struct channel_message m;
	char line[256], name[140];

	assert_int_equal(baton_claim_ask(w->b, "a b\t100%\n", 3), 1);
	snprintf(line, sizeof(line), "%s", heard(w));
	assert_string_equal(line, "claim a%20b%09100%25%0A 3\n");
	line[strlen(line) - 1] = '\0';
	assert_int_equal(channel_decode(line, &m, NULL), 0);
	assert_int_equal(m.verb, CHANNEL_CLAIM);
	assert_int_equal(baton_claim_ask(w->b, "", 3), -EINVAL);
	assert_int_equal(baton_claim_ask(w->b, NULL, 3), -EINVAL);
	assert_int_equal(baton_claim_ask(w->b, "a", -3), -EINVAL);
	memset(name, 'x', sizeof(name));
	name[139] = '\0';
	assert_int_equal(baton_claim_ask(w->b, name, 3), -ENAMETOOLONG);
	name[124] = '\0';
	assert_int_equal(baton_claim_ask(w->b, name, INT64_MAX), 1);
	snprintf(line, sizeof(line), "%s", heard(w));
	line[strlen(line) - 1] = '\0';
	assert_int_equal(channel_decode(line, &m, NULL), 0);
	assert_string_equal(m.word, name);
}

static void only_the_executor_asks(void **state)
{
	struct world *w = *state;
	struct baton_event event;

	assert_string_equal(heard(w), "");
	show(w, 5, -1); /* past the soft deadline */
	assert_int_equal(baton_claim(w->b, "a", 1, SECOND), 0);
	show(w, 5, 50 * SECOND);
	assert_int_equal(baton_claim_ask(w->b, "a", 1), 1);
	assert_string_equal(heard(w), "claim a 1\n");
	/* Demoted before the answer came: it was asked for before, and is nobody else's. */
	tell(w, "demote 5 handoff 1500\nclaimed a 1\n");
	assert_int_equal(baton_next_event(w->b, &event), 1);
	assert_int_equal(baton_next_event(w->b, &event), 0);
	assert_int_equal(baton_claim_answer(w->b, "a", 1), 1);
	assert_int_equal(baton_claim_ask(w->b, "a", 2), 0); /* but nothing more */
	assert_string_equal(heard(w), "");
	assert_int_equal(baton_claim(NULL, "a", 1, SECOND), -ENOTCONN);
}

/* In a child: LINES, once a claim was heard. */
static pid_t answers(struct world *w, const char *lines)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct pollfd p = {.fd = w->ours, .events = POLLIN};
		char text[256];
		ssize_t got = 0;

		while (poll(&p, 1, 5000) == 1) {
			got = recv(w->ours, text, sizeof(text), 0);
			if (got > 0 && memmem(text, (size_t)got, "claim ", 6))
				break;
		}
		_exit(write(w->ours, lines, strlen(lines)) != (ssize_t)strlen(lines));
	}
	return pid;
}

static void a_lease_that_ended_takes_it_back(void **state)
{
	struct world *w = *state;
	struct baton_event event;

	assert_int_equal(baton_claim_ask(w->b, "a", 1), 1);
	assert_int_equal(baton_claim_ask(w->b, "b", 1), 1);
	tell(w, "claimed a 1\nclaimed b 1\n");
	assert_int_equal(baton_next_event(w->b, &event), 0);
	lease_clear(w->lease.page);
	assert_int_equal(baton_claim_answer(w->b, "a", 1), 0);
	show(w, 9, 50 * SECOND); /* another term is another lease */
	assert_int_equal(baton_claim_answer(w->b, "b", 1), 0);
}

static void waiting_keeps_the_events(void **state)
{
	struct world *w = *state;
	struct baton_event event;
	pid_t pid = answers(w, "refused b 1\nclaimed a 1\n");
	int status;

	assert_int_equal(baton_claim(w->b, "a", 1, 5 * SECOND), 1);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	pid = answers(w, "demote 5 shutdown 1500\nrefused a 2\n");
	assert_int_equal(baton_claim(w->b, "a", 2, -1), 0);
	waitpid(pid, &status, 0);
	assert_int_equal(baton_next_event(w->b, &event), 1);
	assert_int_equal(event.kind, BATON_DEMOTE);
	assert_int_equal(event.reason, BATON_SHUTDOWN);
	assert_int_equal(event.term, 5);
	assert_int_equal(baton_next_event(w->b, &event), 0);
}

static void no_answer(void **state)
{
	struct world *w = *state;
	struct baton_event event;
	int64_t before = lease_now_ns();

	assert_int_equal(baton_claim(w->b, "a", 1, SECOND / 20), -ETIMEDOUT);
	assert_true(lease_now_ns() - before >= SECOND / 20);
	/* Too late: not taken for the next one's. */
	tell(w, "claimed a 1\n");
	assert_int_equal(baton_next_event(w->b, &event), 0);
	assert_int_equal(baton_claim_answer(w->b, "a", 1), -ENOENT);
	assert_int_equal(baton_claim_ask(w->b, "a", 1), 1);
	assert_int_equal(baton_claim_answer(w->b, "a", 1), -EAGAIN);
	close(w->ours);
	w->ours = -1;
	assert_int_equal(baton_claim(w->b, "b", 1, 5 * SECOND), -EPIPE);
	assert_int_equal(baton_next_event(w->b, &event), -EPIPE);
	assert_int_equal(baton_claim_answer(w->b, "a", 1), -EPIPE);
}

static void so_many_at_once(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 64; i++)
		assert_int_equal(baton_claim_ask(w->b, "a", i), 1);
	assert_int_equal(baton_claim_ask(w->b, "a", 64), -ENOBUFS);
}

static void a_child_does_not_claim(void **state)
{
	struct world *w = *state;
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(baton_claim(w->b, "a", 1, SECOND) != -EPERM);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(asked_and_answered),
		TEST(names),
		TEST(only_the_executor_asks),
		TEST(a_lease_that_ended_takes_it_back),
		TEST(waiting_keeps_the_events),
		TEST(no_answer),
		TEST(so_many_at_once),
		TEST(a_child_does_not_claim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

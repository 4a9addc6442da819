/* Users, groups and hosts: asked at once, or by a child. */
#include "conf/lookup.h"

#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_at_once(void **state)
{
	const struct lookup *u, *again;

	(void)state;
	lookup_may_wait(true);
	u = lookup(LOOKUP_USER, 0, "root");
	assert_true(u->known && u->found);
	assert_int_equal(u->uid, 0);
	assert_string_equal(u->name, "root");
	assert_string_equal(u->home, getpwuid(0)->pw_dir);
	assert_true(u->group_count >= 1);
	assert_int_equal(u->groups[0], 0);
	again = lookup(LOOKUP_UID, 0, "0");
	assert_string_equal(again->name, "root");
	assert_ptr_equal(lookup(LOOKUP_USER, 0, "root"), u);
	assert_int_equal(lookup(LOOKUP_GROUP, 0, "daemon")->gid, 1);
	assert_false(lookup(LOOKUP_USER, 0, "no-such-user")->found);
	assert_int_equal(lookup_missing(), 0);
}

/* What the child says is learned; what it does not say is not found. */
static void ask_by_child(bool answers)
{
	char text[4096] = "";
	int fds[2], status;
	size_t used = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	lookup_send_missing();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (answers)
			lookup_answer_missing(fds[1]);
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + used, sizeof(text) - 1 - used)) > 0)
		used += (size_t)n;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	lookup_learn(text, "it was slow");
}

static void test_by_a_child(void **state)
{
	const struct lookup *l;

	(void)state;
	lookup_may_wait(false);
	assert_null(lookup(LOOKUP_USER, 0, "daemon"));
	assert_null(lookup(LOOKUP_USER, 0, "daemon"));
	assert_null(lookup(LOOKUP_GROUP, 0, "adm"));
	assert_null(lookup(LOOKUP_USER, 0, "nobody-at-all"));
	assert_null(lookup(LOOKUP_HOST, AF_INET, "no-such-host.invalid"));
	assert_null(lookup(LOOKUP_HOST, AF_INET, "127.0.0.1"));
	assert_int_equal(lookup_missing(), 5);
	ask_by_child(true);
	assert_int_equal(lookup_missing(), 0);
	l = lookup(LOOKUP_USER, 0, "daemon");
	assert_true(l && l->found);
	assert_int_equal(l->uid, 1);
	assert_string_equal(l->home, getpwnam("daemon")->pw_dir);
	assert_true(l->group_count >= 1);
	assert_true(lookup(LOOKUP_GROUP, 0, "adm")->found);
	assert_false(lookup(LOOKUP_USER, 0, "nobody-at-all")->found);
	assert_string_equal(lookup(LOOKUP_USER, 0, "nobody-at-all")->home, "");
	l = lookup(LOOKUP_HOST, AF_INET, "no-such-host.invalid");
	assert_false(l->found);
	assert_string_not_equal(l->home, "");
	l = lookup(LOOKUP_HOST, AF_INET, "127.0.0.1");
	assert_true(l->found);
	assert_string_equal(l->name, "127.0.0.1");
	assert_int_equal(l->addresses, 1);
	assert_ptr_equal(lookup_known_user("daemon"), lookup(LOOKUP_USER, 0, "daemon"));
	assert_null(lookup_known_user("nobody-at-all"));
}

static void test_no_answer(void **state)
{
	(void)state;
	lookup_may_wait(false);
	assert_null(lookup(LOOKUP_USER, 0, "bin"));
	lookup_send_missing();
	assert_null(lookup(LOOKUP_USER, 0, "sys")); /* after the fork: another child's */
	lookup_learn((char[]){"garbage\n0\t\t\n9 9 9\tbin\t\n0 0 1 2 2 0 -\tbi"}, "it was slow");
	assert_false(lookup(LOOKUP_USER, 0, "bin")->found);
	assert_string_equal(lookup(LOOKUP_USER, 0, "bin")->home, "it was slow");
	assert_int_equal(lookup_missing(), 1);
	ask_by_child(false);
	assert_false(lookup(LOOKUP_USER, 0, "sys")->found);
	assert_null(lookup(LOOKUP_USER, 0, "games"));
	lookup_forget_missing();
	assert_int_equal(lookup_missing(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_by_a_child),
		cmocka_unit_test(test_no_answer),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

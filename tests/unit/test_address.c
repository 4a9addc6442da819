/* Addresses of [socket:] sections: what is the same, what cannot be open at once. */
#include "tests/lib/conf_test.h"

#define WEB "[program:web]\ncommand = /bin/true\n"

static void refuse(const char *sockets, int line, const char *part)
{
	char text[512];

	snprintf(text, sizeof(text), "%s" WEB, sockets);
	refuse_one(text, line, part);
}

static void accept_both(const char *sockets)
{
	struct conf_test t;
	char text[512];

	snprintf(text, sizeof(text), "%s" WEB, sockets);
	conf_test_load(&t, text);
	assert_loaded(&t);
	assert_int_equal(t.findings.count, 0);
	conf_test_close(&t);
}

static void test_the_same(void **state)
{
	(void)state;
	refuse("[socket:a]\nlisten=:80\n[socket:b]\nlisten=:80\n", 3, "x.ini:1");
	refuse("[socket:a]\nlisten=:80\n[socket:b]\nlisten=0.0.0.0:80\n", 3, "the same address");
	refuse("[socket:a]\nlisten=LocalHost:80\n[socket:b]\nlisten=127.0.0.1:80\n", 3,
		"the same address as [socket:a]");
	refuse("[socket:a]\nlisten=[::1]:80\n[socket:b]\nlisten=[0:0::1]:80\nv6only=yes\n", 3,
		"the same address");
	refuse("[socket:a]\nlisten=unix:/run/a\n[socket:b]\nlisten=unix:/run/a\n", 3,
		"the same address");
}

static void test_overlaps(void **state)
{
	(void)state;
	refuse("[socket:a]\nlisten=127.0.0.1:80\n[socket:b]\nlisten=:80\n", 3,
		"[socket:b] (':80') has every IPv4 address");
	refuse("[socket:a]\nlisten=[::]:80\nv6only=yes\n[socket:b]\nlisten=[::1]:80\n", 4,
		"[socket:a] ('[::]:80') has every IPv6 address");
	refuse("[socket:a]\nlisten=:80\n[socket:b]\nlisten=example.org:80\n", 3,
		"every IPv4 address");
	refuse("[socket:a]\nlisten=[::]:80\n[socket:b]\nlisten=127.0.0.1:80\n", 3,
		"write 'v6only = yes' in [socket:a], or leave [socket:b] out");
	refuse("[socket:a]\nlisten=:80\n[socket:b]\nlisten=[::]:80\n", 3,
		"write 'v6only = yes' in [socket:b], or leave [socket:a] out");
}

static void test_side_by_side(void **state)
{
	(void)state;
	accept_both("[socket:a]\nlisten=:80\n[socket:b]\nlisten=[::]:80\nv6only=yes\n");
	accept_both("[socket:a]\nlisten=:80\n[socket:b]\nlisten=[::1]:80\n");
	accept_both("[socket:a]\nlisten=:80\n[socket:b]\nlisten=:81\n");
	accept_both("[socket:a]\nlisten=127.0.0.1:80\n[socket:b]\nlisten=127.0.0.2:80\n");
	accept_both("[socket:a]\nlisten=:0\n[socket:b]\nlisten=:0\n");
	accept_both("[socket:a]\nlisten=unix:/run/a\n[socket:b]\nlisten=unix:/run/b\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same),
		cmocka_unit_test(test_overlaps),
		cmocka_unit_test(test_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

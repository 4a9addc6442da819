/* Listening sockets: TCP, IPv6, UNIX; dead and living ones in the way; errors that help. */
#include "supervisor/shell/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
#include <unistd.h>

#include <cmocka.h>

struct world {
	char folder[64], path[96];
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	alarm(60);
	strcpy(w->folder, "/tmp/baton-sockets-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/web.sock", w->folder);
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

	nftw(w->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static struct config_socket tcp(int family, const char *host, int port)
{
	return (struct config_socket){.name = "web",
		.family = family,
		.host = host,
		.port = port,
		.path = "",
		.backlog = 64};
}

static struct config_socket unix_path(const char *path)
{
	return (struct config_socket){.name = "web",
		.family = AF_UNIX,
		.host = "",
		.path = path,
		.backlog = 64,
		.mode = 0660};
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t bytes = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &bytes), 0);
	return value;
}

static int port_of(const struct listener *l)
{
	return atoi(strrchr(l->text, ':') + 1);
}

static void test_tcp(void **state)
{
	struct config_socket s = tcp(AF_INET, "127.0.0.1", 0);
	struct listener l;
	char expected[64];
	struct err e;

	(void)state;
	s.nodelay = true;
	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_true(port_of(&l) > 0);
	snprintf(expected, sizeof(expected), "http://127.0.0.1:%d", port_of(&l));
	assert_string_equal(l.url, expected);
	assert_string_equal(l.text, expected + 7);
	assert_string_equal(l.path, "");
	assert_true(fcntl(l.fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(l.fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(option(l.fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	assert_int_equal(option(l.fd, SOL_SOCKET, SO_REUSEADDR), 1);
	assert_int_equal(option(l.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_true(listener_path_intact(&l));
	listener_reassert(&l);
	listener_close(&l);
	assert_int_equal(l.fd, -1);
	listener_close(&l);
}

static void test_any_and_names(void **state)
{
	struct config_socket s = tcp(AF_INET, "", 0);
	struct listener l;
	struct err e;

	(void)state;
	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_memory_equal(l.text, "0.0.0.0:", 8);
	assert_memory_equal(l.url, "http://127.0.0.1:", 17);
	assert_int_equal(option(l.fd, IPPROTO_TCP, TCP_NODELAY), 0);
	listener_close(&l);

	s.host = "localhost";
	assert_int_equal(listener_open(&l, &s, &e), 0);
	listener_close(&l);

	s.host = "no-such-host.invalid";
	l.fd = 4711;
	assert_int_equal(listener_open(&l, &s, &e), ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "cannot resolve 'no-such-host.invalid'"));
	assert_int_equal(l.fd, 4711); /* untouched */

	s.host = "192.0.2.1"; /* reserved for documents: nobody's */
	assert_int_equal(listener_open(&l, &s, &e), ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "no such address"));
}

static void test_v6(void **state)
{
	struct config_socket s = tcp(AF_INET6, "::1", 0);
	struct listener l, v4;
	struct err e;
	int rc = listener_open(&l, &s, &e);

	(void)state;
	if (rc == ERR_UNAVAILABLE)
		skip();
	assert_int_equal(rc, 0);
	assert_memory_equal(l.text, "[::1]:", 6);
	listener_close(&l);
	s.host = "";
	s.v6only = true;
	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_int_equal(option(l.fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	assert_memory_equal(l.text, "[::]:", 5);
	assert_memory_equal(l.url, "http://[::1]:", 13);
	s = tcp(AF_INET, "", port_of(&l)); /* the other family is still free */
	assert_int_equal(listener_open(&v4, &s, &e), 0);
	listener_close(&v4);
	listener_close(&l);
}

static void test_port_in_use(void **state)
{
	struct config_socket s = tcp(AF_INET, "127.0.0.1", 0);
	struct listener l, second;
	char expected[64];
	struct err e;

	(void)state;
	assert_int_equal(listener_open(&l, &s, &e), 0);
	s.port = port_of(&l);
	assert_int_equal(listener_open(&second, &s, &e), ERR_BUSY);
	snprintf(expected, sizeof(expected), "in use by pid %d, this supervisor itself",
		(int)getpid());
	if (!strstr(e.text, expected))
		fail_msg("%s", e.text);
	listener_close(&l);
	assert_int_equal(listener_open(&l, &s, &e), 0);
	listener_close(&l);
}

static void test_reuse_port(void **state)
{
	struct config_socket s = tcp(AF_INET, "127.0.0.1", 0);
	struct listener a, b;
	struct err e;

	(void)state;
	s.reuse_port = true;
	assert_int_equal(listener_open(&a, &s, &e), 0);
	s.port = port_of(&a);
	assert_int_equal(listener_open(&b, &s, &e), 0);
	listener_close(&a);
	listener_close(&b);
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	strcpy(a.sun_path, path);
	rc = connect(fd, (struct sockaddr *)&a, sizeof(a));
	close(fd);
	return rc;
}

static void test_unix(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	char expected[128];
	struct listener l;
	struct stat st;
	struct err e;
	mode_t before = umask(077);

	assert_int_equal(listener_open(&l, &s, &e), 0);
	umask(before);
	assert_int_equal(stat(w->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0660); /* whatever the umask */
	snprintf(expected, sizeof(expected), "unix:%s", w->path);
	assert_string_equal(l.text, expected);
	assert_string_equal(l.url, "");
	assert_string_equal(l.path, w->path);
	assert_int_equal(connect_to(w->path), 0);
	assert_true(listener_path_intact(&l));
	listener_close(&l);
	assert_int_not_equal(access(w->path, F_OK), 0);
}

static void test_unix_owner(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct listener l;
	struct stat st;
	struct err e;

	s.owner = (struct config_user){.set = true, .uid = 12345, .gid = 54321, .name = "app"};
	if (geteuid() != 0) {
		assert_int_equal(listener_open(&l, &s, &e), ERR_REFUSED);
		return;
	}
	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_uid, 12345);
	assert_int_equal(st.st_gid, 54321);
	assert_int_equal(st.st_mode & 0777, 0660);
	listener_close(&l);
}

static void test_unix_living(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct listener l, second;
	char expected[64];
	struct err e;

	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_int_equal(listener_open(&second, &s, &e), ERR_BUSY);
	snprintf(expected, sizeof(expected), "in use by pid %d", (int)getpid());
	assert_non_null(strstr(e.text, expected));
	assert_int_equal(connect_to(w->path), 0);
	listener_close(&l);
}

/* A living one whose queue is full is living. */
static void test_unix_full_queue(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct listener l, second;
	int fds[8];
	struct err e;

	s.backlog = 1;
	assert_int_equal(listener_open(&l, &s, &e), 0);
	strcpy(a.sun_path, w->path);
	for (int i = 0; i < 8; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)!connect(fds[i], (struct sockaddr *)&a, sizeof(a));
	}
	assert_int_equal(listener_open(&second, &s, &e), ERR_BUSY);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
	listener_close(&l);
}

static void leave_dead(const char *path, int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
}

static void test_unix_dead(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct sockaddr_un name;
	socklen_t bytes = sizeof(name);
	struct listener l;
	struct err e;

	leave_dead(w->path, SOCK_STREAM);
	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_int_equal(connect_to(w->path), 0);
	/* Servers show it, and some remove it. */
	assert_int_equal(getsockname(l.fd, (struct sockaddr *)&name, &bytes), 0);
	assert_string_equal(name.sun_path, w->path);
	listener_close(&l);
	leave_dead(w->path, SOCK_DGRAM);
	assert_int_equal(listener_open(&l, &s, &e), 0);
	listener_close(&l);
}

static void test_unix_something_else(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct listener l;
	struct err e;
	int fd = open(w->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, "precious", 8), 8);
	close(fd);
	assert_int_equal(listener_open(&l, &s, &e), ERR_WRONG);
	assert_int_equal(access(w->path, F_OK), 0);
	unlink(w->path);
	assert_int_equal(mkdir(w->path, 0700), 0);
	assert_int_equal(listener_open(&l, &s, &e), ERR_WRONG);
	assert_int_equal(rmdir(w->path), 0);
	assert_int_equal(symlink("/nonexistent/x", w->path), 0);
	assert_int_equal(listener_open(&l, &s, &e), ERR_WRONG);
	s.path = "/nonexistent/web.sock";
	assert_int_equal(listener_open(&l, &s, &e), ERR_UNAVAILABLE);
	assert_non_null(strstr(e.text, "folder"));
}

/* Deleted, then made again by somebody else: ours no more, and not ours to remove. */
static void test_unix_replaced(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct listener a, b;
	struct err e;

	assert_int_equal(listener_open(&a, &s, &e), 0);
	unlink(w->path);
	assert_false(listener_path_intact(&a));
	assert_int_equal(listener_open(&b, &s, &e), 0);
	assert_false(listener_path_intact(&a));
	listener_close(&a);
	assert_true(listener_path_intact(&b));
	assert_int_equal(connect_to(w->path), 0);
	listener_close(&b);
}

static void test_abstract(void **state)
{
	char path[64];
	struct config_socket s = unix_path(path);
	struct listener l, second;
	char expected[64];
	struct err e;

	(void)state;
	snprintf(path, sizeof(path), "@baton-test-sockets-%d", (int)getpid());
	assert_int_equal(listener_open(&l, &s, &e), 0);
	assert_string_equal(l.path, "");
	assert_true(listener_path_intact(&l));
	assert_int_equal(listener_open(&second, &s, &e), ERR_BUSY);
	snprintf(expected, sizeof(expected), "in use by pid %d", (int)getpid());
	assert_non_null(strstr(e.text, expected));
	listener_close(&l);
}

static void test_path_too_long(void **state)
{
	char path[200];
	struct config_socket s = unix_path(path);
	struct listener l;
	struct err e;

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(listener_open(&l, &s, &e), ERR_LIMIT);
}

/* A privileged port as a user who may not: what to do is said. */
static void test_privileged_port(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid = fork();
	if (pid == 0) {
		struct config_socket s = tcp(AF_INET, "127.0.0.1", 81);
		struct listener l;
		struct err e;
		FILE *f;
		int least = 1024, rc;

		f = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
		if (f) {
			if (fscanf(f, "%d", &least) != 1)
				least = 1024;
			fclose(f);
		}
		if (setresuid(65534, 65534, 65534) != 0 || least <= 81)
			_exit(0);
		rc = listener_open(&l, &s, &e);
		_exit(rc == ERR_REFUSED && strstr(e.text, "CAP_NET_BIND_SERVICE") ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void key_is(int family, const char *host, int port, const char *expected)
{
	struct config_socket s = tcp(family, host, port);
	char key[ADDRESS_KEY_BYTES];

	address_key(&s, key, sizeof(key));
	assert_string_equal(key, expected);
}

static void test_keys(void **state)
{
	struct config_socket s = unix_path("/run/web.sock");
	char key[ADDRESS_KEY_BYTES];

	(void)state;
	key_is(AF_INET, "", 80, "0.0.0.0:80");
	key_is(AF_INET, "0.0.0.0", 80, "0.0.0.0:80");
	key_is(AF_INET, "LocalHost", 80, "127.0.0.1:80");
	key_is(AF_INET6, "", 80, "[::]:80");
	key_is(AF_INET6, "0:0::1", 80, "[::1]:80");
	key_is(AF_INET, "example.org", 80, "example.org:80");
	key_is(AF_INET, "127.0.0.1", 0, "web=127.0.0.1:0");
	address_key(&s, key, sizeof(key));
	assert_string_equal(key, "unix:/run/web.sock");
}

/* Removed, renamed, covered by a dead one: the same inode again; a file in its place stays. */
static void test_restore(void **state)
{
	struct world *w = *state;
	struct config_socket s = unix_path(w->path);
	struct listener l;
	char other[128];
	FILE *f;
	struct err e;

	for (int hidden = 0; hidden < 2; hidden++) {
		s.unlinked = hidden != 0;
		assert_int_equal(listener_open(&l, &s, &e), 0);
		assert_string_not_equal(l.spare, "");
		assert_int_equal(listener_restore(&l, &e), 0); /* nothing was missing */
		assert_int_equal(unlink(w->path), 0);
		assert_false(listener_path_intact(&l));
		assert_int_equal(listener_restore(&l, &e), 0);
		assert_true(listener_path_intact(&l));
		assert_int_equal(unlink(l.spare), 0);
		assert_int_equal(listener_restore(&l, &e), 0);
		assert_int_equal(access(l.spare, F_OK), 0);
		snprintf(other, sizeof(other), "%s.other", w->path);
		assert_int_equal(rename(w->path, other), 0);
		assert_int_equal(listener_restore(&l, &e), 0);
		assert_int_equal(unlink(other), 0);
		unlink(w->path);
		f = fopen(w->path, "w");
		assert_non_null(f);
		fclose(f);
		assert_int_equal(listener_restore(&l, &e), ERR_WRONG);
		assert_int_equal(unlink(w->path), 0);
		unlink(l.spare);
		assert_int_equal(listener_restore(&l, &e), ERR_UNAVAILABLE);
		listener_close(&l);
		assert_int_equal(listener_open(&l, &s, &e), 0);
		listener_close(&l);
		assert_int_not_equal(access(w->path, F_OK), 0);
		assert_int_not_equal(access(l.spare, F_OK), 0);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_tcp),
		TEST(test_any_and_names),
		TEST(test_v6),
		TEST(test_port_in_use),
		TEST(test_reuse_port),
		TEST(test_keys),
		TEST(test_restore),
		TEST(test_unix),
		TEST(test_unix_owner),
		TEST(test_unix_living),
		TEST(test_unix_full_queue),
		TEST(test_unix_dead),
		TEST(test_unix_something_else),
		TEST(test_unix_replaced),
		TEST(test_abstract),
		TEST(test_path_too_long),
		TEST(test_privileged_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

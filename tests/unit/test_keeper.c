/* worker/keeper.c: one request, one answer; drops what a dead supervisor left; stands apart. */
#include "tests/unit/lock_fixture.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "worker/keeper.h"

struct keeper {
	struct fixture f;
	struct store_settings settings;
	pid_t pid;
	int fd;
	uint64_t id;
	struct keeper_reply reply;
};

/* In a child: descriptor 3 and nothing else. */
static void be_keeper(int fd)
{
	char *argv[] = {"lock-keeper", NULL};

	fd = fcntl(fd, F_DUPFD, 10);
	dup2(fd, 3);
	for (int other = 4; other < 64; other++)
		close(other);
	alarm(120);
	_exit(keeper_main(1, argv));
}

static void start_keeper(struct keeper *k)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	k->pid = fork();
	if (k->pid == 0)
		be_keeper(pair[1]);
	close(pair[1]);
	k->fd = pair[0];
	assert_int_equal(send(k->fd, &k->settings, sizeof(k->settings), 0), sizeof(k->settings));
}

static int setup(void **state)
{
	struct keeper *k = calloc(1, sizeof(*k));

	assert_non_null(k);
	fixture_folder(&k->f);
	fixture_settings(&k->f, "instance-a", &k->settings);
	start_keeper(k);
	*state = k;
	return 0;
}

static void end_keeper(struct keeper *k)
{
	if (k->fd >= 0)
		close(k->fd);
	if (k->pid > 0)
		kill(k->pid, SIGKILL);
	if (k->pid > 0)
		waitpid(k->pid, NULL, 0);
	k->fd = -1;
	k->pid = 0;
}

static int teardown(void **state)
{
	struct keeper *k = *state;

	end_keeper(k);
	fixture_end(&k->f);
	free(k);
	return 0;
}

static int exit_status(struct keeper *k)
{
	int fd = (int)syscall(SYS_pidfd_open, k->pid, 0), status = -1;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (poll(&p, 1, 10000) == 1)
		waitpid(k->pid, &status, 0);
	close(fd);
	k->pid = 0;
	return status;
}

static void send_request(struct keeper *k, struct keeper_request *r)
{
	r->id = ++k->id;
	snprintf(r->reason, sizeof(r->reason), "test");
	assert_int_equal(send(k->fd, r, sizeof(*r), 0), sizeof(*r));
}

static void receive_reply(struct keeper *k, const struct keeper_request *r)
{
	struct pollfd p = {.fd = k->fd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(recv(k->fd, &k->reply, sizeof(k->reply), 0), sizeof(k->reply));
	assert_int_equal(k->reply.id, r->id);
	assert_int_equal(k->reply.op, r->op);
}

static enum store_outcome ask(struct keeper *k, struct keeper_request r)
{
	send_request(k, &r);
	receive_reply(k, &r);
	return k->reply.outcome;
}

static enum store_outcome acquire(struct keeper *k, int64_t epoch)
{
	struct keeper_request r = {.op = KEEPER_ACQUIRE, .epoch = epoch, .ttl_ms = TTL_MS};

	assert_int_equal(ask(k, (struct keeper_request){.op = KEEPER_INSPECT}), STORE_DONE);
	r.expect = as_seen(&k->reply.view);
	return ask(k, r);
}

static enum store_outcome renew(struct keeper *k, int64_t epoch, int64_t term)
{
	return ask(k, (struct keeper_request){
			      .op = KEEPER_RENEW, .epoch = epoch, .term = term, .ttl_ms = TTL_MS});
}

static void every_operation(void **state)
{
	struct keeper *k = *state;
	struct keeper_request promote = {.op = KEEPER_PROMOTE,
		.epoch = 1000,
		.term = 1000,
		.new_term = 1001,
		.program = "web",
		.worker = "web:0",
		.pid = 5};
	struct keeper_request claim = {.op = KEEPER_CLAIM,
		.term = 1001,
		.program = "web",
		.job = "mail",
		.fire_time_us = 3};

	assert_int_equal(acquire(k, 1000), STORE_DONE);
	assert_string_equal(k->reply.text, "");
	assert_string_equal(k->reply.view.row.holder, "instance-a");
	assert_int_equal(k->reply.view.floor_term, 1000);
	assert_int_equal(renew(k, 1000, 1000), STORE_DONE);
	assert_int_equal(k->reply.view.row.beat, 1);
	assert_int_equal(ask(k, promote), STORE_DONE);
	assert_int_equal(k->reply.view.executor_count, 1);
	assert_false(k->reply.floor_failed);
	assert_int_equal(ask(k, claim), STORE_DONE);
	assert_int_equal(ask(k, claim), STORE_REFUSED);
	assert_true(k->reply.text[0] != '\0');
	assert_int_equal(
		ask(k, (struct keeper_request){.op = KEEPER_RELEASE, .epoch = 1000, .term = 1001}),
		STORE_DONE);
	assert_false(k->reply.view.row.held);
	assert_int_equal(renew(k, 1000, 1001), STORE_REFUSED);
	assert_int_equal(k->reply.view.row.term, 1001);
	assert_int_equal(ask(k, (struct keeper_request){.op = (enum keeper_op)99}), STORE_REFUSED);
	close(k->fd);
	k->fd = -1;
	assert_int_equal(exit_status(k), 0);
}

static void new_settings(void **state)
{
	struct keeper *k = *state;
	struct keeper_request r = {.op = KEEPER_SETTINGS};

	assert_int_equal(acquire(k, 1000), STORE_DONE);
	snprintf(k->settings.hostname, sizeof(k->settings.hostname), "renamed");
	send_request(k, &r);
	assert_int_equal(send(k->fd, &k->settings, sizeof(k->settings), 0), sizeof(k->settings));
	receive_reply(k, &r);
	assert_int_equal(k->reply.outcome, STORE_DONE);
	assert_int_equal(acquire(k, 2000), STORE_DONE);
	assert_string_equal(k->reply.view.row.hostname, "renamed");
}

/* A stopped keeper, a queued heartbeat, a supervisor that goes: no heartbeat from the grave. */
static void what_is_queued_is_dropped(void **state)
{
	struct keeper *k = *state;
	struct keeper_request r = {
		.op = KEEPER_RENEW, .epoch = 1000, .term = 1000, .ttl_ms = TTL_MS};

	assert_int_equal(acquire(k, 1000), STORE_DONE);
	kill(k->pid, SIGSTOP);
	send_request(k, &r);
	close(k->fd);
	k->fd = -1;
	kill(k->pid, SIGCONT);
	assert_int_equal(exit_status(k), 0);
	start_keeper(k);
	assert_int_equal(ask(k, (struct keeper_request){.op = KEEPER_INSPECT}), STORE_DONE);
	assert_int_equal(k->reply.view.row.beat, 0);
	assert_true(k->reply.view.row.held);
}

static void a_broken_packet_ends_it(void **state)
{
	struct keeper *k = *state;

	assert_int_equal(send(k->fd, "short", 5, 0), 5);
	assert_int_equal(exit_status(k), 0);
}

static void floor_failure_is_told(void **state)
{
	struct keeper *k = *state;

	assert_int_equal(mkdir(beside(&k->f, "-floor"), 0755), 0);
	assert_int_equal(acquire(k, 1000), STORE_DONE);
	assert_true(k->reply.floor_failed);
	assert_non_null(strstr(k->reply.text, "cannot raise the floor"));
	assert_int_equal(k->reply.view.row.term, 1000);
}

static void it_stands_apart(void **state)
{
	struct keeper *k = *state;
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	char name[64], text[32] = "";
	int fd;

	assert_int_equal(acquire(k, 1000), STORE_DONE); /* it is up */
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		kill(k->pid, ignored[i]);
	assert_int_equal(renew(k, 1000, 1000), STORE_DONE);
	snprintf(name, sizeof(name), "/proc/%d/comm", (int)k->pid);
	fd = open(name, O_RDONLY);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	assert_string_equal(text, "lock-keeper\n");
	assert_int_equal(getsid(k->pid), k->pid);
}

/* Even while somebody holds the other end open. */
static void it_dies_with_its_parent(void **state)
{
	struct keeper *k = *state;
	struct keeper_request r = {.op = KEEPER_INSPECT};
	int pair[2], told[2];
	pid_t parent, keeper;

	end_keeper(k);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	parent = fork();
	if (parent == 0) {
		keeper = fork();
		if (keeper == 0)
			be_keeper(pair[1]);
		(void)!write(told[1], &keeper, sizeof(keeper));
		alarm(120);
		for (;;)
			pause();
	}
	assert_int_equal(read(told[0], &keeper, sizeof(keeper)), sizeof(keeper));
	close(pair[1]);
	k->fd = pair[0];
	assert_int_equal(send(k->fd, &k->settings, sizeof(k->settings), 0), sizeof(k->settings));
	assert_int_equal(ask(k, r), STORE_DONE);
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, keeper, 0), .events = POLLIN};
	kill(parent, SIGKILL);
	waitpid(parent, NULL, 0);
	assert_int_equal(poll(&p, 1, 10000), 1);
	close(p.fd);
	close(told[0]);
	close(told[1]);
}

static long switches(pid_t pid)
{
	char name[64], line[128];
	long count = 0;
	FILE *status;

	snprintf(name, sizeof(name), "/proc/%d/status", (int)pid);
	status = fopen(name, "re");
	while (status && fgets(line, sizeof(line), status))
		(void)sscanf(line, "voluntary_ctxt_switches: %ld", &count);
	if (status)
		fclose(status);
	return count;
}

/* A figure, and a bound that no disk should break: a retry loop or a busy wait would. */
static void a_heartbeat_is_cheap(void **state)
{
	struct keeper *k = *state;
	enum { BEATS = 50 };
	struct timespec from, to;
	long before;
	double each;

	assert_int_equal(acquire(k, 1000), STORE_DONE);
	before = switches(k->pid);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < BEATS; i++)
		assert_int_equal(renew(k, 1000, 1000), STORE_DONE);
	clock_gettime(CLOCK_MONOTONIC, &to);
	each = (double)(switches(k->pid) - before) / BEATS;
	print_message("a heartbeat: %.2f ms, %.1f context switches\n",
		((double)(to.tv_sec - from.tv_sec) * 1e3 +
			(double)(to.tv_nsec - from.tv_nsec) / 1e6) /
			BEATS,
		each);
	assert_true(each < 60);
}

#define KEEPER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEEPER(every_operation),
		KEEPER(new_settings),
		KEEPER(what_is_queued_is_dropped),
		KEEPER(a_broken_packet_ends_it),
		KEEPER(floor_failure_is_told),
		KEEPER(it_stands_apart),
		KEEPER(it_dies_with_its_parent),
		KEEPER(a_heartbeat_is_cheap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

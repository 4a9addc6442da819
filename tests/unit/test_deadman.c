/* worker/deadman.c: what it kills, what it spares, and when. A process that only waits plays the
 * supervisor; the test holds the table, the pages and the other end of the socket. */
#include "tests/unit/process_fixture.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "worker/deadman.h"
#include "worker/lease.h"
#include "worker/lock/guard.h"

enum { CAPACITY = 64, LONG_NS = 2000000000, SHORT_NS = 60000000 };

struct fixture {
	char folder[128], database[160];
	pid_t supervisor, deadman;
	int socket, guard;
	int table_fd;
	struct deadman_table *table;
	struct lease page, second;
	struct err e;
};

static int open_guard(struct fixture *f)
{
	int64_t inode;
	int fd = -1;

	assert_int_equal(guard_open(f->database, &fd, &inode, &f->e), 0);
	return fd;
}

static void start_deadman(struct fixture *f, bool with_guard)
{
	int pair[2], pidfd = (int)syscall(SYS_pidfd_open, f->supervisor, 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	f->deadman = fork();
	if (f->deadman == 0) {
		char *argv[] = {"lock-deadman", NULL};
		int from[4] = {pair[1], f->table_fd, f->guard, pidfd};
		for (int i = 0; i < 4; i++)
			from[i] = fcntl(from[i], F_DUPFD, 20);
		for (int i = 0; i < 4; i++)
			dup2(from[i], 3 + i);
		if (!with_guard)
			close(5);
		for (int fd = 7; fd < 64; fd++)
			close(fd);
		alarm(120);
		_exit(deadman_main(1, argv));
	}
	close(pair[1]);
	close(pidfd);
	f->socket = pair[0];
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	snprintf(f->folder, sizeof(f->folder), "/tmp/deadman-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->database, sizeof(f->database), "%s/lock.db", f->folder);
	f->supervisor = spawn_leader();
	f->guard = open_guard(f);
	assert_int_equal(deadman_table_create(CAPACITY, &f->table_fd, &f->table, &f->e), 0);
	assert_int_equal(lease_create(&f->page, &f->e), 0);
	assert_int_equal(lease_create(&f->second, &f->e), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char name[200];

	end_process(f->deadman);
	end_process(f->supervisor);
	close(f->socket);
	if (f->guard >= 0)
		close(f->guard);
	close(f->table_fd);
	munmap(f->table, deadman_table_bytes(CAPACITY));
	lease_release(&f->page);
	lease_release(&f->second);
	snprintf(name, sizeof(name), "%s-guard", f->database);
	unlink(name);
	rmdir(f->folder);
	reap_all();
	free(f);
	return 0;
}

static void send_message(struct fixture *f, struct deadman_message m, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec bytes = {.iov_base = &m, .iov_len = sizeof(m)};
	struct msghdr h = {.msg_iov = &bytes, .msg_iovlen = 1};

	if (fd >= 0) {
		h.msg_control = &control;
		h.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	assert_int_equal(sendmsg(f->socket, &h, 0), sizeof(m));
}

static bool is_answered(struct fixture *f, struct deadman_message m)
{
	struct pollfd p = {.fd = f->socket, .events = POLLIN};
	struct deadman_message answer;

	if (poll(&p, 1, PATIENCE_MS) != 1)
		return false;
	return recv(f->socket, &answer, sizeof(answer), 0) == sizeof(answer) &&
	       answer.verb == m.verb && answer.slot == m.slot && answer.pid == m.pid &&
	       answer.term == m.term;
}

static void arm(struct fixture *f, uint32_t slot, pid_t pid, uint64_t term, struct lease *l)
{
	struct deadman_message m = {.verb = DEADMAN_ARM, .slot = slot, .pid = pid, .term = term};

	send_message(f, m, l->fd_rw);
	assert_true(is_answered(f, m));
}

/* The deadman is up when it answers. */
static void wait_until_up(struct fixture *f)
{
	struct deadman_message m = {.verb = DEADMAN_TABLE};

	send_message(f, m, f->table_fd);
	assert_true(is_answered(f, m));
}

static void enter(struct fixture *f, int index, pid_t pid, uint32_t flags)
{
	struct deadman_entry *entry = &f->table->entries[index];

	atomic_store(&entry->flags, flags);
	atomic_store(&entry->start_ticks, tree_start_ticks(pid));
	atomic_store(&entry->pid, pid);
}

static int exit_status(pid_t pid)
{
	int status = -1;

	if (!dies(pid))
		return -1;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

static int deadman_exit(struct fixture *f)
{
	int status = exit_status(f->deadman);

	f->deadman = 0;
	return status;
}

static void all_dead(const struct worker_tree *t)
{
	assert_true(dies(t->leader));
	assert_true(dies(t->orphan));
	assert_true(dies(t->grouped));
	assert_true(dies(t->escaped));
	assert_true(dies(t->below));
}

static void supervisor_dies(void **state)
{
	struct fixture *f = *state;
	struct worker_tree executor = spawn_tree(), flagged = spawn_tree(), spared = spawn_tree();
	int other = open_guard(f);
	bool is_free = true;
	int64_t cleared = -1, before;

	assert_int_equal(guard_lock(f->guard, 1000, &f->e), 0);
	atomic_store(&f->table->epoch, 1000);
	enter(f, 3, flagged.leader, DEADMAN_KILL);
	enter(f, 60, spared.leader, 0);
	start_deadman(f, true);
	arm(f, 0, executor.leader, 1001, &f->page);
	lease_show(f->page.page, 1001, lease_now_ns() + LONG_NS, lease_now_ns() + LONG_NS);
	close(f->guard); /* the deadman's is the last copy */
	f->guard = -1;
	assert_int_equal(guard_is_free(other, 1000, &is_free, &f->e), 0);
	assert_false(is_free);
	before = lease_now_ns();
	kill(f->supervisor, SIGKILL);
	assert_true(dies(executor.leader));
	assert_true(lease_deadline(f->page.page) == 0);
	all_dead(&executor);
	all_dead(&flagged);
	assert_int_equal(deadman_exit(f), 0);
	print_message("supervisor dead to deadman's exit: %.1f ms\n",
		(double)(lease_now_ns() - before) / 1e6);
	assert_int_equal(guard_is_free(other, 1000, &is_free, &f->e), 0);
	assert_true(is_free);
	assert_int_equal(guard_cleared(other, &cleared, &f->e), 0);
	assert_int_equal(cleared, 1000);
	assert_true(lives(spared.leader) && lives(spared.below));
	close(other);
	end_tree(&executor);
	end_tree(&flagged);
	end_tree(&spared);
}

/* No epoch held, no guard yet: nothing is marked, all is killed. */
static void supervisor_dies_without_a_lock(void **state)
{
	struct fixture *f = *state;
	pid_t worker = spawn_leader();
	int64_t cleared = -1;

	enter(f, 0, worker, DEADMAN_KILL);
	start_deadman(f, false);
	wait_until_up(f);
	kill(f->supervisor, SIGKILL);
	assert_true(dies(worker));
	assert_int_equal(deadman_exit(f), 0);
	assert_int_equal(guard_cleared(f->guard, &cleared, &f->e), 0);
	assert_int_equal(cleared, 0);
	end_process(worker);
}

/* Stopped or hung: nobody renews, the deadline passes. */
static void deadline_passes(void **state)
{
	struct fixture *f = *state;
	struct worker_tree first = spawn_tree();
	pid_t second = spawn_leader();
	int64_t deadline;

	start_deadman(f, true);
	arm(f, 0, first.leader, 1001, &f->page);
	kill(f->supervisor, SIGSTOP);
	deadline = lease_now_ns() + SHORT_NS;
	lease_show(f->page.page, 1001, deadline, deadline);
	all_dead(&first);
	assert_true(lease_now_ns() >= deadline);
	print_message(
		"deadline to the last death: %.1f ms\n", (double)(lease_now_ns() - deadline) / 1e6);
	assert_true(lease_deadline(f->page.page) == 0);
	assert_false(lease_extend(f->page.page, deadline, deadline + LONG_NS));
	/* It goes on: the supervisor may come back. */
	kill(f->supervisor, SIGCONT);
	arm(f, 0, second, 1002, &f->second);
	deadline = lease_now_ns() + SHORT_NS;
	lease_show(f->second.page, 1002, deadline, deadline);
	assert_true(dies(second));
	assert_true(lease_now_ns() >= deadline);
	assert_true(lives(f->supervisor) && lives(f->deadman));
	end_tree(&first);
	end_process(second);
}

static void heartbeats_move_the_deadline(void **state)
{
	struct fixture *f = *state;
	pid_t worker = spawn_leader(), clock = spawn_leader();
	int64_t first = lease_now_ns() + 4 * (int64_t)SHORT_NS;
	int64_t last = first + 4 * (int64_t)SHORT_NS;

	start_deadman(f, true);
	lease_show(f->page.page, 1001, first, first);
	arm(f, 0, worker, 1001, &f->page);
	wait_until_up(f); /* it has read the first deadline, and waits for it */
	assert_true(lease_extend(f->page.page, last, last));
	/* The second one's death tells that the first deadline was looked at. */
	lease_show(f->second.page, 1002, first + SHORT_NS, first + SHORT_NS);
	arm(f, 1, clock, 1002, &f->second);
	assert_true(dies(clock));
	assert_true(dies(worker));
	assert_true(lease_now_ns() >= last);
	end_process(worker);
	end_process(clock);
}

static void demoted_or_disarmed_is_spared(void **state)
{
	struct fixture *f = *state;
	pid_t demoted = spawn_leader(), disarmed = spawn_leader(), clock = spawn_leader();
	struct lease third;
	int64_t deadline;

	assert_int_equal(lease_create(&third, &f->e), 0);
	start_deadman(f, true);
	arm(f, 0, demoted, 1001, &f->page);
	arm(f, 1, disarmed, 1002, &f->second);
	deadline = lease_now_ns() + SHORT_NS;
	lease_show(f->page.page, 1001, deadline, deadline);
	lease_show(f->second.page, 1002, deadline, deadline);
	lease_clear(f->page.page);
	send_message(f, (struct deadman_message){.verb = DEADMAN_DISARM, .slot = 1}, -1);
	arm(f, 2, clock, 1003, &third);
	lease_show(third.page, 1003, deadline + SHORT_NS, deadline + SHORT_NS);
	assert_true(dies(clock));
	assert_true(lives(demoted) && lives(disarmed));
	/* Nor are they executors when the supervisor dies. */
	send_message(f, (struct deadman_message){.verb = DEADMAN_DISARM, .slot = 0}, -1);
	kill(f->supervisor, SIGKILL);
	assert_int_equal(deadman_exit(f), 0);
	assert_true(lives(demoted) && lives(disarmed));
	lease_release(&third);
	end_process(demoted);
	end_process(disarmed);
	end_process(clock);
}

/* Sent before the end, read after it. */
static void bye_kills_nothing(void **state)
{
	struct fixture *f = *state;
	pid_t worker = spawn_leader();

	atomic_store(&f->table->epoch, 1000);
	enter(f, 0, worker, DEADMAN_KILL);
	start_deadman(f, true);
	arm(f, 0, worker, 1001, &f->page);
	kill(f->deadman, SIGSTOP);
	send_message(f, (struct deadman_message){.verb = DEADMAN_BYE}, -1);
	kill(f->supervisor, SIGKILL);
	kill(f->deadman, SIGCONT);
	assert_int_equal(deadman_exit(f), 0);
	assert_true(lives(worker));
	end_process(worker);
}

static void end_of_file_is_no_death(void **state)
{
	struct fixture *f = *state;
	pid_t worker = spawn_leader(), clock = spawn_leader(), other = spawn_leader();
	int64_t deadline = lease_now_ns() + 2 * (int64_t)SHORT_NS;

	enter(f, 0, other, DEADMAN_KILL);
	start_deadman(f, true);
	lease_show(f->page.page, 1001, deadline, deadline);
	arm(f, 0, worker, 1001, &f->page);
	lease_show(f->second.page, 1002, deadline + SHORT_NS, deadline + SHORT_NS);
	arm(f, 1, clock, 1002, &f->second);
	shutdown(f->socket, SHUT_RDWR);
	/* Each of its own deadline; a deadman that takes the end of file for a death is gone by
	 * then, and so is the third. */
	assert_true(dies(worker));
	assert_true(lease_now_ns() >= deadline);
	assert_true(dies(clock));
	assert_true(lease_now_ns() >= deadline + SHORT_NS);
	assert_true(lives(other) && lives(f->deadman));
	kill(f->supervisor, SIGKILL);
	assert_true(dies(other));
	assert_int_equal(deadman_exit(f), 0);
	end_process(worker);
	end_process(clock);
	end_process(other);
}

static void larger_table_and_late_guard(void **state)
{
	struct fixture *f = *state;
	enum { LARGE = 3000 };
	struct deadman_message guard = {.verb = DEADMAN_GUARD}, table = {.verb = DEADMAN_TABLE};
	struct deadman_table *large;
	pid_t worker = spawn_leader(), last = spawn_leader();
	int large_fd, other = open_guard(f);
	int64_t cleared = -1;

	start_deadman(f, false);
	enter(f, 0, worker, DEADMAN_KILL);
	assert_int_equal(deadman_table_create(LARGE, &large_fd, &large, &f->e), 0);
	memcpy(&large->entries[0], &f->table->entries[0], sizeof(large->entries[0]));
	/* Pids that are nobody's, and one in the last entry: all rounds are made. */
	for (int i = 1; i < LARGE - 1; i++) {
		atomic_store(&large->entries[i].flags, DEADMAN_KILL);
		atomic_store(&large->entries[i].pid, 0x3fffff00 + i % 200);
	}
	atomic_store(&large->entries[LARGE - 1].flags, DEADMAN_KILL);
	atomic_store(&large->entries[LARGE - 1].pid, last);
	atomic_store(&large->epoch, 2000);
	send_message(f, table, large_fd);
	assert_true(is_answered(f, table));
	assert_int_equal(guard_lock(f->guard, 2000, &f->e), 0);
	send_message(f, guard, f->guard);
	assert_true(is_answered(f, guard));
	close(f->guard);
	f->guard = -1;
	kill(f->supervisor, SIGKILL);
	assert_true(dies(worker) && dies(last));
	assert_int_equal(deadman_exit(f), 0);
	assert_int_equal(guard_cleared(other, &cleared, &f->e), 0);
	assert_int_equal(cleared, 2000);
	close(other);
	close(large_fd);
	munmap(large, deadman_table_bytes(LARGE));
	end_process(worker);
	end_process(last);
}

static void a_reused_pid_is_spared(void **state)
{
	struct fixture *f = *state;
	pid_t stranger = spawn_leader();

	enter(f, 0, stranger, DEADMAN_KILL);
	atomic_fetch_add(&f->table->entries[0].start_ticks, 1);
	start_deadman(f, true);
	wait_until_up(f);
	kill(f->supervisor, SIGKILL);
	assert_int_equal(deadman_exit(f), 0);
	assert_true(lives(stranger));
	end_process(stranger);
}

static void strange_messages(void **state)
{
	struct fixture *f = *state;
	struct deadman_message late = {.verb = DEADMAN_ARM, .slot = DEADMAN_EXECUTORS, .pid = 5};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	start_deadman(f, true);
	send_message(f, (struct deadman_message){.verb = 77}, -1);
	send_message(f, late, f->page.fd_rw);
	send_message(f, (struct deadman_message){.verb = DEADMAN_ARM, .pid = 5}, -1);
	send_message(f, (struct deadman_message){.verb = DEADMAN_ARM, .pid = 5}, null);
	send_message(f, (struct deadman_message){.verb = DEADMAN_ARM, .pid = 1}, f->page.fd_rw);
	send_message(f, (struct deadman_message){.verb = DEADMAN_TABLE}, null);
	send_message(f, (struct deadman_message){.verb = DEADMAN_TABLE}, f->page.fd_rw);
	send_message(f, (struct deadman_message){.verb = DEADMAN_GUARD}, -1);
	assert_int_equal(send(f->socket, "short", 5, 0), 5);
	/* The first answer is that to what made sense. */
	wait_until_up(f);
	assert_true(lives(f->deadman));
	close(null);
}

static void read_status(pid_t pid, const char *what, char *text, size_t bytes)
{
	char name[64];
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/%s", (int)pid, what);
	fd = open(name, O_RDONLY);
	got = read(fd, text, bytes - 1);
	text[got > 0 ? got : 0] = '\0';
	close(fd);
}

static void it_stands_apart(void **state)
{
	struct fixture *f = *state;
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	char text[64];

	start_deadman(f, true);
	wait_until_up(f);
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		kill(f->deadman, ignored[i]);
	wait_until_up(f);
	read_status(f->deadman, "comm", text, sizeof(text));
	assert_string_equal(text, "lock-deadman\n");
	assert_int_equal(getsid(f->deadman), f->deadman);
}

/* Sessions of their own, children of the one to whom orphans come: known by their marks. */
static void what_escaped_is_found(void **state)
{
	struct fixture *f = *state;
	pid_t executor = spawn_leader(), worker = spawn_leader(), kept = spawn_leader();
	pid_t main_of_worker = spawn_leader();
	pid_t of_executor = spawn_marked((const char *[]){"BATON_MARK=us.11", NULL});
	pid_t of_probe = spawn_marked((const char *[]){"BATON_MARK=us.12.5", NULL});
	pid_t of_kept = spawn_marked((const char *[]){"BATON_MARK=us.13", NULL});
	pid_t stranger = spawn_marked((const char *[]){"BATON_MARK=them.11", NULL});

	strcpy(f->table->instance, "us");
	enter(f, 0, executor, DEADMAN_KILL);
	enter(f, 1, worker, DEADMAN_KILL);
	enter(f, 2, kept, 0);
	for (int i = 0; i < 3; i++)
		atomic_store(&f->table->entries[i].start, (uint64_t)11 + (uint64_t)i);
	atomic_store(&f->table->entries[1].main_ticks, tree_start_ticks(main_of_worker));
	atomic_store(&f->table->entries[1].main_pid, main_of_worker);
	start_deadman(f, true);
	lease_show(f->page.page, 5, lease_now_ns() + SHORT_NS, lease_now_ns() + SHORT_NS);
	arm(f, 0, executor, 5, &f->page);
	assert_true(dies(of_executor) && dies(executor));
	assert_true(lives(worker) && lives(of_probe) && lives(of_kept) && lives(main_of_worker));
	kill(f->supervisor, SIGKILL);
	assert_int_equal(deadman_exit(f), 0);
	assert_false(lives(worker) || lives(of_probe) || lives(main_of_worker));
	assert_true(lives(kept) && lives(of_kept) && lives(stranger));
	for (size_t i = 0; i < 8; i++)
		end_process((pid_t[]){executor, worker, kept, main_of_worker, of_executor, of_probe,
			of_kept, stranger}[i]);
}

static void many_workers(void **state)
{
	struct fixture *f = *state;
	enum { WORKERS = 200 };
	static pid_t pids[WORKERS];
	struct deadman_message table = {.verb = DEADMAN_TABLE};
	struct deadman_table *large;
	int large_fd;
	int64_t before;

	assert_int_equal(deadman_table_create(WORKERS, &large_fd, &large, &f->e), 0);
	for (int i = 0; i < WORKERS; i++) {
		pids[i] = spawn_leader();
		atomic_store(&large->entries[i].flags, DEADMAN_KILL);
		atomic_store(&large->entries[i].pid, pids[i]);
	}
	start_deadman(f, true);
	send_message(f, table, large_fd);
	assert_true(is_answered(f, table));
	before = lease_now_ns();
	kill(f->supervisor, SIGKILL);
	assert_int_equal(deadman_exit(f), 0);
	print_message("%d workers: %.1f ms to the deadman's exit\n", WORKERS,
		(double)(lease_now_ns() - before) / 1e6);
	for (int i = 0; i < WORKERS; i++) {
		assert_false(lives(pids[i]));
		end_process(pids[i]);
	}
	close(large_fd);
	munmap(large, deadman_table_bytes(WORKERS));
}

#define DEADMAN(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DEADMAN(supervisor_dies),
		DEADMAN(supervisor_dies_without_a_lock),
		DEADMAN(deadline_passes),
		DEADMAN(heartbeats_move_the_deadline),
		DEADMAN(demoted_or_disarmed_is_spared),
		DEADMAN(bye_kills_nothing),
		DEADMAN(end_of_file_is_no_death),
		DEADMAN(larger_table_and_late_guard),
		DEADMAN(a_reused_pid_is_spared),
		DEADMAN(strange_messages),
		DEADMAN(it_stands_apart),
		DEADMAN(what_escaped_is_found),
		DEADMAN(many_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

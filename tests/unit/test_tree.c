/* worker/tree.c: everything below a worker is found, nothing else is. */
#include "tests/unit/process_fixture.h"

#include <unistd.h>
#include <signal.h>
#include <sys/wait.h>
#include <sys/resource.h>
#include <pthread.h>
#include <sched.h>

#include "worker/tree.h"

static int setup(void **state)
{
	(void)state;
	return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static bool holds(const pid_t *pids, int count, pid_t pid)
{
	for (int i = 0; i < count; i++) {
		if (pids[i] == pid)
			return true;
	}
	return false;
}

static void everything_below_is_found(void **state)
{
	struct worker_tree t = spawn_tree(), other = spawn_tree();
	pid_t pids[64];
	struct err e;
	int found = tree_scan(t.leader, pids, 64, &e);

	(void)state;
	assert_int_equal(found, 5);
	assert_true(holds(pids, found, t.leader) && holds(pids, found, t.orphan) &&
		    holds(pids, found, t.grouped) && holds(pids, found, t.escaped) &&
		    holds(pids, found, t.below));
	pids[2] = -7;
	assert_int_equal(tree_scan(t.leader, pids, 2, &e), 5); /* how many, not how many fitted */
	assert_int_equal(pids[2], -7);
	struct tree_leader both[] = {{.pid = t.leader}, {.pid = other.leader}};
	assert_int_equal(tree_scan_leaders(both, 2, pids, 64, &e), 10);
	/* Without its leader the session is still known by its number. */
	end_process(t.leader);
	found = tree_scan(t.leader, pids, 64, &e);
	assert_int_equal(found, 2);
	assert_true(holds(pids, found, t.orphan) && holds(pids, found, t.grouped));
	t.leader = 0;
	end_tree(&t);
	end_tree(&other);
}

static void everything_below_is_killed(void **state)
{
	struct worker_tree t = spawn_tree(), other = spawn_tree();
	struct err e;

	(void)state;
	assert_int_equal(tree_kill(t.leader, SIGKILL, &e), 5);
	assert_true(dies(t.leader) && dies(t.orphan) && dies(t.grouped) && dies(t.escaped) &&
		    dies(t.below));
	/* Dead, not yet reaped: not counted. */
	assert_int_equal(tree_kill(t.leader, SIGKILL, &e), 0);
	assert_true(lives(other.leader) && lives(other.below));
	end_tree(&t);
	end_tree(&other);
	assert_int_equal(tree_scan(t.leader, NULL, 0, &e), 0);
}

static void a_child_before_its_session(void **state)
{
	struct err e;
	pid_t child = fork(), pids[4];

	(void)state;
	if (child == 0)
		only_wait(); /* in the test's session, as a worker between fork and setsid */
	assert_int_equal(tree_scan(child, pids, 4, &e), 1);
	assert_int_equal(pids[0], child);
	end_process(child);
}

static void nothing_for_no_leader(void **state)
{
	static const pid_t wrong[] = {0, 1, -1, -5};
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		assert_int_equal(tree_scan(wrong[i], NULL, 0, &e), 0);
		assert_int_equal(tree_kill(wrong[i], SIGKILL, &e), 0);
	}
	/* A scan of one's own session spares oneself. */
	pid_t pids[256];
	int found = tree_scan(getsid(0), pids, 256, &e);
	assert_true(found >= 0);
	assert_false(holds(pids, found < 256 ? found : 256, getpid()));
}

static void a_reused_pid_is_spared(void **state)
{
	pid_t leader = spawn_leader();
	struct tree_leader l = {.pid = leader, .start_ticks = tree_start_ticks(leader)};
	struct err e;

	(void)state;
	assert_true(l.start_ticks > 0);
	l.start_ticks++;
	assert_int_equal(tree_kill_leaders(&l, 1, NULL, SIGKILL, NULL, 0, &e), 0);
	assert_true(lives(leader));
	l.start_ticks--;
	int pidfds[3];
	assert_int_equal(tree_kill_leaders(&l, 1, NULL, SIGKILL, pidfds, 3, &e), 1);
	assert_true(pidfds[0] >= 0 && pidfds[1] == -1 && pidfds[2] == -1);
	close(pidfds[0]);
	assert_true(dies(leader));
	end_process(leader);
	assert_int_equal(tree_start_ticks(leader), 0);
	assert_int_equal(tree_start_ticks(0), 0);
	assert_int_equal(tree_start_ticks(-1), 0);
}

static void marks_are_read(void **state)
{
	static const struct {
		const char *variable;
		bool found;
		uint64_t start, part;
	} cases[] = {
		{"BATON_MARK=an-instance.7", true, 7, 0},
		{"BATON_MARK=an-instance.18446744073709551615.3", true, UINT64_MAX, 3},
		{"BATON_MARK=an-instance.", false, 0, 0},
		{"BATON_MARK=an-instance.0", false, 0, 0},
		{"BATON_MARK=an-instance.7x", false, 0, 0},
		{"BATON_MARK=an-instance.7.3.1", false, 0, 0},
		{"BATON_MARK=another.7", false, 0, 0},
		{"XBATON_MARK=an-instance.7", false, 0, 0},
		{"BATON_MARK=an-instance.111111111111111111111111111111111111111111111111", false,
			0, 0},
		{"BATON_MARK", false, 0, 0},
	};
	char large[9000];

	(void)state;
	memset(large, 'x', sizeof(large) - 1);
	large[1] = '=';
	large[sizeof(large) - 1] = '\0';
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct tree_mark mark = {1, 1};
		pid_t pid = spawn_marked((const char *[]){
			"A=BATON_MARK=an-instance.9", large, cases[i].variable, "", "Z=1", NULL});
		bool found = tree_read_mark(pid, "an-instance", NULL, &mark);
		end_process(pid);
		if (found != cases[i].found ||
			(found && (mark.start != cases[i].start || mark.part != cases[i].part)))
			fail_msg("%s: %d, %llu, %llu", cases[i].variable, found,
				(unsigned long long)mark.start, (unsigned long long)mark.part);
	}
	assert_false(tree_read_mark(INT32_MAX, "an-instance", NULL, &(struct tree_mark){0}));
}

/* In the middle of an exec there is no environment. */
static void a_mark_is_read_during_an_exec(void **state)
{
	static const char *const again[] = {
		"S=exec /bin/sh -c 'eval \"$S\"'", "BATON_MARK=us.7", NULL};
	struct tree_mark mark;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		char *argv[] = {"sh", "-c", "eval \"$S\"", NULL};
		setsid();
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		execve("/bin/sh", argv, (char *const *)again);
		_exit(127);
	}
	while (!tree_read_mark(pid, "us", &(int64_t){10000000}, &mark)) /* until its first exec */
		continue;
	for (int i = 0; i < 2000; i++) {
		if (!tree_read_mark(pid, "us", &(int64_t){10000000}, &mark))
			fail_msg("not found by look %d", i);
	}
	end_process(pid);
}

/* COMM may hold what the fields look like. */
static void strange_names(void **state)
{
	static const char *const names[] = {") R 1 1 1", "a b) Z (", "))))", "\n\t ", ""};
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int ready[2];
		char byte;
		assert_int_equal(pipe(ready), 0);
		pid_t child = fork();
		if (child == 0) {
			setsid();
			prctl(PR_SET_NAME, names[i]);
			(void)!write(ready[1], "x", 1);
			only_wait();
		}
		assert_int_equal(read(ready[0], &byte, 1), 1);
		close(ready[0]);
		close(ready[1]);
		assert_int_equal(tree_kill(child, SIGKILL, &e), 1);
		assert_true(dies(child));
		end_process(child);
	}
}

static void *wait_for_ever(void *fd)
{
	(void)!write(*(int *)fd, "x", 1);
	only_wait();
}

/* The main thread has ended, the process has not: /proc calls it a zombie. */
static void a_process_without_its_main_thread(void **state)
{
	int ready[2];
	char byte;
	struct err e;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		pthread_t thread;
		setsid();
		pthread_create(&thread, NULL, wait_for_ever, &ready[1]);
		syscall(SYS_exit, 0); /* this thread alone */
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	for (int i = 0; i < 100000; i++) { /* until the main thread is over */
		char name[64], text[256] = "";
		snprintf(name, sizeof(name), "/proc/%d/stat", (int)child);
		int fd = open(name, O_RDONLY);
		(void)!read(fd, text, sizeof(text) - 1);
		close(fd);
		if (strstr(text, ") Z "))
			break;
		sched_yield();
	}
	assert_int_equal(tree_scan(child, NULL, 0, &e), 1);
	assert_int_equal(tree_kill(child, SIGKILL, &e), 1);
	assert_true(dies(child));
	end_process(child);
}

/* Processes come and go while /proc is read. */
static void vanishing_processes(void **state)
{
	struct err e;
	pid_t storm = fork(), leader;

	(void)state;
	if (storm == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		signal(SIGCHLD, SIG_IGN);
		for (;;) {
			if (fork() == 0)
				_exit(0);
		}
	}
	leader = spawn_leader();
	for (int i = 0; i < 200; i++)
		assert_int_equal(tree_scan(leader, NULL, 0, &e), 1);
	end_process(leader);
	/* A fork storm ends too: scan and kill until nothing is found. */
	for (int i = 0; i < 1000 && tree_kill(storm, SIGKILL, &e) != 0; i++)
		continue;
	assert_true(dies(storm));
	end_process(storm);
	reap_all();
}

#define TREE(test) cmocka_unit_test_setup(test, setup)

/* A process that could not be looked at for want of a descriptor is not one that is gone. */
static void not_seen_is_not_gone(void **state)
{
	struct rlimit limits, few;
	pid_t pid = fork();
	int lowest, found;
	struct err e;

	(void)state;
	if (pid == 0) {
		setsid();
		pause();
		_exit(0);
	}
	while (getsid(pid) != pid)
		continue;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limits), 0);
	lowest = dup(0);
	close(lowest);
	few = (struct rlimit){.rlim_cur = (rlim_t)lowest + 1, .rlim_max = limits.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0); /* enough for the folder alone */
	found = tree_scan(pid, NULL, 0, &e);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limits), 0);
	assert_true(found < 0);
	assert_int_equal(tree_scan(pid, NULL, 0, &e), 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_seen_is_not_gone),
		TREE(everything_below_is_found),
		TREE(everything_below_is_killed),
		TREE(a_child_before_its_session),
		TREE(nothing_for_no_leader),
		TREE(a_reused_pid_is_spared),
		TREE(marks_are_read),
		TREE(a_mark_is_read_during_an_exec),
		TREE(strange_names),
		TREE(a_process_without_its_main_thread),
		TREE(vanishing_processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

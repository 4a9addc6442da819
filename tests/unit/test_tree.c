/* worker/tree.c: everything below a worker is found, nothing else is. */
#include "tests/unit/process_fixture.h"

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
	assert_int_equal(tree_scan_many((pid_t[]){t.leader, other.leader}, 2, pids, 64, &e), 10);
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
	assert_int_equal(tree_kill_leaders(&l, 1, SIGKILL, NULL, 0, &e), 0);
	assert_true(lives(leader));
	l.start_ticks--;
	int pidfds[3];
	assert_int_equal(tree_kill_leaders(&l, 1, SIGKILL, pidfds, 3, &e), 1);
	assert_true(pidfds[0] >= 0 && pidfds[1] == -1 && pidfds[2] == -1);
	close(pidfds[0]);
	assert_true(dies(leader));
	end_process(leader);
	assert_int_equal(tree_start_ticks(leader), 0);
	assert_int_equal(tree_start_ticks(0), 0);
	assert_int_equal(tree_start_ticks(-1), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TREE(everything_below_is_found),
		TREE(everything_below_is_killed),
		TREE(a_child_before_its_session),
		TREE(nothing_for_no_leader),
		TREE(a_reused_pid_is_spared),
		TREE(strange_names),
		TREE(a_process_without_its_main_thread),
		TREE(vanishing_processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * worker/child.c: every step between fork and exec, seen from outside. The program that is run is
 * this one again ("probe"), which prints what it inherited.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/child.h"

enum {
	FDS = 16,
	OTHER_USER = 65534,
	LOSE_PRIVILEGE = 1,
	LEAD_GROUP = 2,
	FULL_TABLE = 4,
	NO_CLOSE_RANGE = 8
};

static char self_path[PATH_MAX];
static char folder[] = "/tmp/baton-test-child-XXXXXX";

/* --- the probe ------------------------------------------------------------------------------ */

static void probe_descriptors(void)
{
	for (int fd = 0; fd < 4096; fd++) {
		struct stat st;
		if (fstat(fd, &st) == 0)
			printf("fd %d inode %lu\n", fd, (unsigned long)st.st_ino);
	}
}

static void probe_status(void)
{
	static const char *const wanted[] = {"SigBlk:", "SigIgn:", "NoNewPrivs:"};
	char line[512];
	FILE *f = fopen("/proc/self/status", "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		for (size_t i = 0; i < 3; i++) {
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
				printf("%s", line);
		}
	}
	if (f != NULL)
		fclose(f);
}

static int probe(void)
{
	char cwd[PATH_MAX];
	struct rlimit files;
	int death = 0;
	gid_t groups[8];

	probe_descriptors();
	probe_status();
	prctl(PR_GET_PDEATHSIG, &death);
	getrlimit(RLIMIT_NOFILE, &files);
	printf("pid %d sid %d death %d\n", (int)getpid(), (int)getsid(0), death);
	printf("cwd %s\n", getcwd(cwd, sizeof(cwd)) != NULL ? cwd : "?");
	printf("umask %o nice %d files %d\n", (unsigned int)umask(0), getpriority(PRIO_PROCESS, 0),
		(int)files.rlim_cur);
	printf("uid %d gid %d groups %d\n", (int)getuid(), (int)getgid(), getgroups(8, groups));
	printf("LISTEN_PID %s\n", getenv("LISTEN_PID") != NULL ? getenv("LISTEN_PID") : "-");
	printf("WATCHDOG_PID %s\n", getenv("WATCHDOG_PID") != NULL ? getenv("WATCHDOG_PID") : "-");
	printf("OTHER %s\n", getenv("OTHER") != NULL ? getenv("OTHER") : "-");
	return 7;
}

/* --- running one child ---------------------------------------------------------------------- */

struct run {
	char *argv[3], *paths[4], *envp[6];
	char listen[32], watchdog[32];
	struct child_fd fds[FDS];
	struct child_spec spec;
	int out[2], report[2];
	int before; /* LOSE_PRIVILEGE ... */
	pid_t pid;
	int status;
	bool failed;
	struct child_failure failure;
	char output[16384];
};

static void run_prepare(struct run *r)
{
	memset(r, 0, sizeof(*r));
	r->argv[0] = "child";
	r->argv[1] = "probe";
	r->paths[0] = self_path;
	snprintf(r->listen, sizeof(r->listen), "LISTEN_PID=0000000000");
	snprintf(r->watchdog, sizeof(r->watchdog), "WATCHDOG_PID=0000000000");
	r->envp[0] = r->listen;
	r->envp[1] = r->watchdog;
	r->envp[2] = "OTHER=0000000000";
	r->envp[3] = "ASAN_OPTIONS=detect_leaks=0";
	assert_int_equal(pipe2(r->out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(r->report, O_CLOEXEC), 0);
	r->fds[0] = (struct child_fd){0, 0};
	r->fds[1] = (struct child_fd){r->out[1], 1};
	r->fds[2] = (struct child_fd){2, 2};
	r->spec = (struct child_spec){.argv = r->argv,
		.paths = r->paths,
		.envp = r->envp,
		.fds = r->fds,
		.fd_count = 3,
		.report_fd = r->report[1],
		.hold_fd = -1,
		.directory = "",
		.umask = -1,
		.nice = INT_MIN,
		.oom_score_adj = INT_MIN,
		.parent = getpid()};
}

static void forbid(const int *calls, size_t count)
{
	struct sock_filter code[16];
	size_t at = 0;

	code[at++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < count; i++) {
		code[at++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)calls[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {.len = (unsigned short)at, .filter = code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		_exit(99);
}

static void before_exec(int before)
{
	static const int calls[] = {SYS_close_range, SYS_getdents64};

	if (before & LEAD_GROUP)
		setpgid(0, 0);
	if ((before & LOSE_PRIVILEGE) && getuid() == 0 &&
		(setresgid(OTHER_USER, OTHER_USER, OTHER_USER) != 0 ||
			setresuid(OTHER_USER, OTHER_USER, OTHER_USER) != 0))
		_exit(98);
	if (before & FULL_TABLE) {
		struct rlimit files = {64, 64};
		setrlimit(RLIMIT_NOFILE, &files);
		while (dup(2) >= 0)
			;
	}
	if (before >= NO_CLOSE_RANGE)
		forbid(calls, (size_t)(before / NO_CLOSE_RANGE));
}

static void run_start(struct run *r)
{
	sigset_t all, old;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	r->pid = fork();
	assert_true(r->pid >= 0);
	if (r->pid == 0) {
		before_exec(r->before);
		child_exec(&r->spec);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(r->out[1]);
	close(r->report[1]);
}

static void run_finish(struct run *r)
{
	size_t used = 0;
	ssize_t got = read(r->report[0], &r->failure, sizeof(r->failure));

	assert_true(got == 0 || got == (ssize_t)sizeof(r->failure));
	r->failed = got != 0;
	while ((got = read(r->out[0], r->output + used, sizeof(r->output) - 1 - used)) > 0)
		used += (size_t)got;
	r->output[used] = '\0';
	assert_int_equal(waitpid(r->pid, &r->status, 0), r->pid);
	close(r->out[0]);
	close(r->report[0]);
}

static void run(struct run *r)
{
	run_start(r);
	run_finish(r);
}

static void assert_has(const struct run *r, const char *text)
{
	if (strstr(r->output, text) == NULL)
		fail_msg("expected '%s' in:\n%s", text, r->output);
}

static void assert_failure(const struct run *r, int step, int error)
{
	if (!r->failed || r->failure.step != step || r->failure.error != error)
		fail_msg("expected %s, errno %d; got %s, errno %d (%s)\n%s", child_step_name(step),
			error, r->failed ? child_step_name(r->failure.step) : "success",
			r->failure.error, strerror(r->failure.error), r->output);
	assert_true(WIFEXITED(r->status));
	assert_int_equal(WEXITSTATUS(r->status), 127);
}

static void assert_ran(const struct run *r)
{
	if (r->failed)
		fail_msg("%s: %s", child_step_name(r->failure.step), strerror(r->failure.error));
	assert_true(WIFEXITED(r->status));
	assert_int_equal(WEXITSTATUS(r->status), 7);
}

static const char *in_folder(const char *name, const char *text, mode_t mode)
{
	static char paths[8][PATH_MAX];
	static int next;
	char *path = paths[next++ % 8];
	int fd;

	snprintf(path, PATH_MAX, "%s/%s", folder, name);
	unlink(path);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	fchmod(fd, mode);
	close(fd);
	return path;
}

/* --- what is inherited ---------------------------------------------------------------------- */

static void inherits_what_is_declared(void **state)
{
	struct run r;
	char text[128];
	int stray = open("/dev/null", O_RDONLY), high;

	(void)state;
	high = fcntl(stray, F_DUPFD, 700);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	run_prepare(&r);
	run(&r);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGUSR1, SIG_DFL);
	close(stray);
	close(high);
	assert_ran(&r);
	assert_has(&r, "fd 2 ");
	assert_null(strstr(r.output, "fd 3 "));
	assert_null(strstr(r.output, "fd 7"));
	assert_has(&r, "SigBlk:\t0000000000000000");
	assert_has(&r, "SigIgn:\t0000000000000000");
	snprintf(text, sizeof(text), "pid %d sid %d death 0\n", (int)r.pid, (int)r.pid);
	assert_has(&r, text);
	snprintf(text, sizeof(text), "LISTEN_PID %d\nWATCHDOG_PID %d\nOTHER 0000000000\n",
		(int)r.pid, (int)r.pid);
	assert_has(&r, text);
}

static void applies_settings(void **state)
{
	struct run r;
	const struct config_rlimit files = {RLIMIT_NOFILE, 77, 99};
	char text[PATH_MAX + 32];

	(void)state;
	run_prepare(&r);
	r.spec.umask = 027;
	r.spec.nice = 5;
	r.spec.oom_score_adj = 900;
	r.spec.rlimits = &files;
	r.spec.rlimit_count = 1;
	r.spec.no_new_privs = true;
	r.spec.die_with_parent = true;
	r.spec.directory = folder;
	run(&r);
	assert_ran(&r);
	assert_has(&r, "umask 27 nice 5 files 77\n");
	assert_has(&r, "NoNewPrivs:\t1");
	assert_has(&r, "death 9\n");
	snprintf(text, sizeof(text), "cwd %s\n", folder);
	assert_has(&r, text);
}

static void changes_user(void **state)
{
	const gid_t groups[] = {11, 12};
	struct run r;

	(void)state;
	if (getuid() != 0)
		skip();
	run_prepare(&r);
	chmod(folder, 0755);
	r.spec.groups_set = true;
	r.spec.groups = groups;
	r.spec.group_count = 2;
	r.spec.set_user = true;
	r.spec.uid = OTHER_USER;
	r.spec.gid = OTHER_USER - 1;
	/* This program may lie where that user cannot go; /bin/cat can always be reached. */
	r.argv[1] = "/proc/self/status";
	r.paths[0] = "/bin/cat";
	run(&r);
	assert_false(r.failed);
	assert_has(&r, "Uid:\t65534\t65534\t65534\t65534");
	assert_has(&r, "Gid:\t65533\t65533\t65533\t65533");
	assert_has(&r, "Groups:\t11 12");
}

/* The parent, a process between, ends; the child, which would read for ever, ends with it. A death
 * signal that was set before the change of user would have been cleared by it. */
static void dies_with_parent_as_another_user(void **state)
{
	struct run r;
	int input[2], status;
	struct pollfd wait;

	(void)state;
	run_prepare(&r);
	assert_int_equal(pipe2(input, O_CLOEXEC), 0);
	r.argv[1] = NULL;
	r.paths[0] = "/bin/cat";
	r.fds[0].from = input[0];
	r.spec.set_user = getuid() == 0;
	r.spec.uid = r.spec.gid = OTHER_USER;
	r.spec.die_with_parent = true;
	pid_t between = fork();
	assert_true(between >= 0);
	if (between == 0) {
		char byte;
		r.spec.parent = getpid();
		run_start(&r);
		_exit(read(r.report[0], &byte, 1) == 0 ? 0 : 1); /* 0: it has been executed */
	}
	close(r.out[1]);
	close(r.report[1]);
	assert_int_equal(waitpid(between, &status, 0), between);
	assert_int_equal(status, 0);
	wait = (struct pollfd){.fd = r.out[0], .events = POLLIN};
	assert_int_equal(poll(&wait, 1, 5000), 1); /* end of its output */
	close(input[0]);
	close(input[1]);
	close(r.out[0]);
	close(r.report[0]);
}

static void parent_died_before(void **state)
{
	struct run r;

	(void)state;
	run_prepare(&r);
	r.spec.die_with_parent = true;
	r.spec.parent = getpid() + 1;
	run(&r);
	assert_false(r.failed);
	assert_string_equal(r.output, "");
}

/* --- descriptors ---------------------------------------------------------------------------- */

static unsigned long inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (unsigned long)st.st_ino;
}

static void place(int at)
{
	int fd = memfd_create("place", MFD_CLOEXEC);

	assert_true(fd >= 0);
	if (fd != at) {
		assert_int_equal(dup3(fd, at, O_CLOEXEC), at);
		close(fd);
	}
}

/* Sources 40..47; targets a shuffle over the same numbers (so that cycles appear), the report and
 * the hold pipe in the middle of them. */
static void map_and_check(unsigned int *seed, int before, bool failing)
{
	enum { FIRST = 40, COUNT = 8, STRAY = 50 };
	unsigned long inodes[COUNT];
	int targets[COUNT], hold[2];
	struct run r;
	char text[64];

	for (int i = 0; i < COUNT; i++)
		targets[i] = FIRST + i;
	for (int i = COUNT - 1; i > 0; i--) {
		int j = rand_r(seed) % (i + 1), swap = targets[i];
		targets[i] = targets[j];
		targets[j] = swap;
	}
	run_prepare(&r);
	r.before = before;
	assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
	for (int i = 0; i < COUNT - 2; i++) {
		place(FIRST + i);
		inodes[i] = inode_of(FIRST + i);
		r.fds[3 + i] = (struct child_fd){FIRST + i, targets[i]};
	}
	assert_int_equal(dup3(r.report[1], FIRST + COUNT - 2, O_CLOEXEC), FIRST + COUNT - 2);
	assert_int_equal(dup3(hold[0], FIRST + COUNT - 1, O_CLOEXEC), FIRST + COUNT - 1);
	r.spec.report_fd = FIRST + COUNT - 2;
	r.spec.hold_fd = FIRST + COUNT - 1;
	r.spec.fd_count = 3 + COUNT - 2;
	if (failing)
		r.paths[0] = "/no/such/program";
	assert_int_equal(dup2(2, STRAY), STRAY);
	run_start(&r);
	close(STRAY);
	close(FIRST + COUNT - 2);
	assert_int_equal(write(hold[1], "g", 1), 1);
	run_finish(&r);
	if (failing)
		assert_failure(&r, CHILD_EXEC, ENOENT);
	else
		assert_ran(&r);
	for (int i = 0; i < COUNT - 2; i++) {
		snprintf(text, sizeof(text), "fd %d inode %lu\n", targets[i], inodes[i]);
		if (!failing)
			assert_has(&r, text);
		close(FIRST + i);
	}
	assert_null(strstr(r.output, "fd 50 "));
	for (int i = COUNT - 2; i < COUNT; i++) { /* nobody's target: closed */
		snprintf(text, sizeof(text), "fd %d ", targets[i]);
		assert_null(strstr(r.output, text));
	}
	close(FIRST + COUNT - 1);
	close(hold[0]);
	close(hold[1]);
}

static void maps_overlapping_descriptors(void **state)
{
	unsigned int seed = (unsigned int)getpid();

	(void)state;
	print_message("seed %u\n", seed);
	for (int round = 0; round < 40; round++)
		map_and_check(&seed, 0, round % 2 == 1);
}

static void closes_without_close_range(void **state)
{
	unsigned int seed = 1;

	(void)state;
	map_and_check(&seed, NO_CLOSE_RANGE, false);
	map_and_check(&seed, 2 * NO_CLOSE_RANGE, false); /* nor /proc */
}

static void one_source_for_two_targets(void **state)
{
	struct run r;
	char text[128];
	unsigned long inode;

	(void)state;
	run_prepare(&r);
	inode = inode_of(r.out[1]);
	r.fds[2].from = r.out[1];
	run(&r);
	assert_ran(&r);
	snprintf(text, sizeof(text), "fd 1 inode %lu\nfd 2 inode %lu\n", inode, inode);
	assert_has(&r, text);
}

static void source_not_open(void **state)
{
	static const int closed[] = {39, 4000, -1};
	struct run r;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		run_prepare(&r);
		r.fds[3] = (struct child_fd){closed[i], 50};
		r.spec.fd_count = 4;
		run(&r);
		assert_failure(&r, CHILD_DESCRIPTORS, EBADF);
	}
}

/* End of file on a pipe whose write end nobody declared: closed, although the child still waits. */
static void closes_all_while_it_holds(void **state)
{
	struct run r;
	int hold[2], stray[2];
	char byte;
	struct pollfd wait;

	(void)state;
	run_prepare(&r);
	assert_int_equal(pipe(hold), 0);
	assert_int_equal(pipe(stray), 0);
	r.spec.hold_fd = hold[0];
	run_start(&r);
	close(stray[1]);
	wait = (struct pollfd){.fd = stray[0], .events = POLLIN};
	assert_int_equal(poll(&wait, 1, 5000), 1);
	assert_int_equal(read(stray[0], &byte, 1), 0);
	wait = (struct pollfd){.fd = r.report[0], .events = POLLIN};
	assert_int_equal(poll(&wait, 1, 0), 0);
	assert_int_equal(waitpid(r.pid, &r.status, WNOHANG), 0);
	close(hold[1]); /* nobody will ever say go: also its own copy is closed */
	run_finish(&r);
	assert_false(r.failed);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), 0);
	assert_string_equal(r.output, "");
	close(hold[0]);
	close(stray[0]);
}

static int count_descriptors(pid_t pid)
{
	char path[64];
	int count = 0;
	DIR *folder_of_fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	folder_of_fds = opendir(path);
	assert_non_null(folder_of_fds);
	while (readdir(folder_of_fds) != NULL)
		count++;
	closedir(folder_of_fds);
	return count - 2; /* . and .. */
}

/* Neither the copies that were made on the way: 0, 1, 2, the report and the hold pipe remain. */
static void holds_no_copies(void **state)
{
	struct run r;
	int hold[2], tries = 0;

	(void)state;
	run_prepare(&r);
	assert_int_equal(pipe(hold), 0);
	r.spec.hold_fd = hold[0];
	run_start(&r);
	while (count_descriptors(r.pid) != 5 && tries++ < 5000)
		poll(NULL, 0, 1);
	assert_int_equal(count_descriptors(r.pid), 5);
	assert_int_equal(write(hold[1], "g", 1), 1);
	run_finish(&r);
	assert_ran(&r);
	close(hold[0]);
	close(hold[1]);
}

static void room_in_a_full_table(void **state)
{
	struct run r;

	(void)state;
	run_prepare(&r);
	r.before = FULL_TABLE;
	run(&r);
	assert_ran(&r);
}

static void signal_ends_a_held_child(void **state)
{
	struct run r;
	int hold[2];

	(void)state;
	run_prepare(&r);
	assert_int_equal(pipe(hold), 0);
	r.spec.hold_fd = hold[0];
	run_start(&r);
	kill(r.pid, SIGTERM);
	run_finish(&r);
	assert_true(WIFSIGNALED(r.status));
	assert_int_equal(WTERMSIG(r.status), SIGTERM);
	close(hold[0]);
	close(hold[1]);
}

/* --- failures ------------------------------------------------------------------------------- */

static void command_failures(void **state)
{
	static const struct {
		const char *name, *text;
		mode_t mode;
		int error, detail;
		const char *message;
	} rows[] = {
		{"plain", "x", 0644, EACCES, 0, "permission denied"},
		{"noexec", "x", 0755, ENOEXEC, 0, "neither a program"},
		{"orphan", "#!/no/such/interpreter\n", 0755, ENOENT, 1, "interpreter"},
	};
	struct run r;
	char text[512], path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		run_prepare(&r);
		snprintf(path, sizeof(path), "%s",
			in_folder(rows[i].name, rows[i].text, rows[i].mode));
		r.paths[0] = path;
		run(&r);
		assert_failure(&r, CHILD_EXEC, rows[i].error);
		assert_int_equal(r.failure.detail, rows[i].detail);
		child_failure_text(&r.failure, &r.spec, text, sizeof(text));
		assert_non_null(strcasestr(text, rows[i].message));
		assert_non_null(strstr(text, path));
	}
	run_prepare(&r);
	r.paths[0] = "/no/such/program";
	run(&r);
	assert_failure(&r, CHILD_EXEC, ENOENT);
	child_failure_text(&r.failure, &r.spec, text, sizeof(text));
	assert_string_equal(text, "cannot execute '/no/such/program': No such file or directory");
	run_prepare(&r);
	r.paths[0] = folder;
	run(&r);
	assert_failure(&r, CHILD_EXEC, EISDIR);
}

static void path_search(void **state)
{
	struct run r;
	char text[512], plain[PATH_MAX];

	(void)state;
	snprintf(plain, sizeof(plain), "%s", in_folder("plain", "x", 0644));
	run_prepare(&r);
	r.paths[0] = "/no/such/child";
	r.paths[1] = plain;
	r.paths[2] = self_path;
	run(&r);
	assert_ran(&r);
	run_prepare(&r);
	r.paths[0] = plain;
	r.paths[1] = "/no/such/child";
	run(&r);
	assert_failure(&r, CHILD_EXEC, EACCES);
	run_prepare(&r);
	r.paths[0] = "/no/such/child";
	r.paths[1] = "/dev/null/child";
	run(&r);
	assert_failure(&r, CHILD_EXEC, ENOENT);
	child_failure_text(&r.failure, &r.spec, text, sizeof(text));
	assert_string_equal(text, "cannot execute 'child': not found in PATH");
	run_prepare(&r);
	r.paths[0] = NULL;
	run(&r);
	assert_failure(&r, CHILD_EXEC, ENOENT);
}

static void bad_directory(void **state)
{
	struct run r;
	char text[512];

	(void)state;
	run_prepare(&r);
	r.spec.directory = "/no/such/folder";
	run(&r);
	assert_failure(&r, CHILD_DIRECTORY, ENOENT);
	child_failure_text(&r.failure, &r.spec, text, sizeof(text));
	assert_string_equal(
		text, "cannot change to directory '/no/such/folder': No such file or directory");
	run_prepare(&r);
	r.spec.directory = self_path;
	run(&r);
	assert_failure(&r, CHILD_DIRECTORY, ENOTDIR);
}

static void bad_limit(void **state)
{
	const struct config_rlimit limits[] = {{RLIMIT_CORE, 0, 0}, {RLIMIT_NOFILE, 20, 10}};
	struct run r;
	char text[512];

	(void)state;
	run_prepare(&r);
	r.spec.rlimits = limits;
	r.spec.rlimit_count = 2;
	run(&r);
	assert_failure(&r, CHILD_RLIMIT, EINVAL);
	assert_int_equal(r.failure.detail, RLIMIT_NOFILE);
	child_failure_text(&r.failure, &r.spec, text, sizeof(text));
	assert_string_equal(text, "cannot set the limit of open files: Invalid argument");
}

static void no_privilege(void **state)
{
	const gid_t groups[] = {1};
	const gid_t own = getuid() == 0 ? OTHER_USER : getgid();
	struct run r;

	(void)state;
	for (int step = CHILD_NICE; step <= CHILD_USER; step++) {
		if (step == CHILD_RLIMIT)
			continue;
		run_prepare(&r);
		r.before = LOSE_PRIVILEGE;
		r.spec.groups = groups;
		r.spec.group_count = 1;
		r.spec.groups_set = step == CHILD_GROUPS;
		r.spec.set_user = step == CHILD_GROUP || step == CHILD_USER;
		r.spec.gid = step == CHILD_GROUP ? 1 : own;
		r.spec.uid = 1;
		r.spec.nice = step == CHILD_NICE ? -20 : INT_MIN;
		r.spec.oom_score_adj = step == CHILD_OOM_SCORE ? -1000 : INT_MIN;
		run(&r);
		assert_failure(
			&r, step, step == CHILD_NICE || step == CHILD_OOM_SCORE ? EACCES : EPERM);
	}
}

static void already_leader(void **state)
{
	struct run r;

	(void)state;
	run_prepare(&r);
	r.before = LEAD_GROUP;
	run(&r);
	assert_failure(&r, CHILD_SESSION, EPERM);
}

static void every_step_has_words(void **state)
{
	struct run r;
	char text[512];

	(void)state;
	run_prepare(&r);
	for (int step = -1; step <= CHILD_STEPS; step++) {
		struct child_failure f = {.step = step, .error = EPERM, .detail = RLIMIT_NPROC};
		assert_non_null(child_step_name(step));
		text[0] = '\0';
		child_failure_text(&f, &r.spec, text, sizeof(text));
		assert_non_null(strstr(text, strerror(EPERM)));
	}
	close(r.out[0]);
	close(r.out[1]);
	close(r.report[0]);
	close(r.report[1]);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
	static const char *const names[] = {"plain", "noexec", "orphan"};
	char path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	return rmdir(folder);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inherits_what_is_declared),
		cmocka_unit_test(applies_settings),
		cmocka_unit_test(changes_user),
		cmocka_unit_test(dies_with_parent_as_another_user),
		cmocka_unit_test(parent_died_before),
		cmocka_unit_test(maps_overlapping_descriptors),
		cmocka_unit_test(closes_without_close_range),
		cmocka_unit_test(one_source_for_two_targets),
		cmocka_unit_test(source_not_open),
		cmocka_unit_test(closes_all_while_it_holds),
		cmocka_unit_test(holds_no_copies),
		cmocka_unit_test(room_in_a_full_table),
		cmocka_unit_test(signal_ends_a_held_child),
		cmocka_unit_test(command_failures),
		cmocka_unit_test(path_search),
		cmocka_unit_test(bad_directory),
		cmocka_unit_test(bad_limit),
		cmocka_unit_test(no_privilege),
		cmocka_unit_test(already_leader),
		cmocka_unit_test(every_step_has_words),
	};

	if (argc > 1 && strcmp(argv[1], "probe") == 0)
		return probe();
	if (readlink("/proc/self/exe", self_path, sizeof(self_path) - 1) <= 0)
		return 1;
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/*
 * witness MARK: samples the lease pages of all workers whose environment has BATON_TEST_ID=MARK,
 * each millisecond, knowing nothing of baton but /proc and the layout of the page. Lines on
 * standard output, times of CLOCK_BOOTTIME in nanoseconds:
 *
 *     valid NS PROGRAM WORKER PID TERM     this lease is valid now, and was not before
 *     none NS PROGRAM                      no lease of the program is valid any more
 *     two NS PROGRAM PID TERM PID TERM     two were, at one instant: the promise is broken
 *     end SAMPLES PAGES TWOS LONGEST_NS    at end of standard input; the longest step between
 * samples
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	PAGES = 4096,
	PROCESSES = 16384,
	PIDS = 1 << 22,
	SCAN_MS = 5,
	WATCH_MS = 3000,
	STEP_NS = 1000000
};

struct page {
	ino_t inode;
	const volatile char *map;
	char program[64], worker[64];
	int pid;
	bool valid;
};

struct seen {
	uint64_t scan; /* the last one that met it */
	int64_t first_ns;
	bool known;
};

static struct page pages[PAGES];
static int page_count;
static struct {
	int page, pidfd;
} processes[PROCESSES];
static int process_count;
static struct seen seen[PIDS];
static uint64_t samples, twos, found;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t deadline_of(const struct page *p)
{
	return __atomic_load_n((const volatile int64_t *)(p->map + 8), __ATOMIC_SEQ_CST);
}

static uint64_t term_of(const struct page *p)
{
	return __atomic_load_n((const volatile uint64_t *)(p->map + 16), __ATOMIC_SEQ_CST);
}

/* The deadline is written last and cleared first. The clock is read after the page: a lease that
 * ends meanwhile counts as ended. */
static bool is_valid(const struct page *p, uint64_t *ret_term)
{
	uint64_t term = term_of(p);
	int64_t deadline = deadline_of(p);

	*ret_term = term;
	return deadline != 0 && term == term_of(p) && now_ns() < deadline;
}

/* Does any process that can read the page still run? A lease of the dead is nobody's. */
static bool has_reader(int page)
{
	for (int i = 0; i < process_count; i++) {
		struct pollfd p = {.fd = processes[i].pidfd, .events = POLLIN};

		if (processes[i].page == page && poll(&p, 1, 0) == 0)
			return true;
	}
	return false;
}

/* --- finding pages ------------------------------------------------------------------------- */
static const char *value_of(const char *environment, size_t bytes, const char *name)
{
	size_t n = strlen(name);

	for (size_t at = 0; at < bytes; at += strlen(environment + at) + 1) {
		if (strncmp(environment + at, name, n) == 0 && environment[at + n] == '=')
			return environment + at + n + 1;
	}
	return NULL;
}

static ssize_t read_file(int pid, const char *name, char *buf, size_t bytes)
{
	char path[64];
	ssize_t n, used = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	while (used < (ssize_t)bytes - 1 && (n = read(fd, buf + used, bytes - 1 - used)) > 0)
		used += n;
	close(fd);
	buf[used] = '\0';
	return used;
}

static int add_page(const char *path, ino_t inode, const char *environment, size_t bytes, int pid)
{
	struct page *p = &pages[page_count];
	const char *program = value_of(environment, bytes, "BATON_PROGRAM");
	const char *worker = value_of(environment, bytes, "BATON_WORKER");
	void *map;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || page_count == PAGES)
		return -1;
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return -1;
	p->inode = inode;
	p->map = map;
	p->pid = pid;
	snprintf(p->program, sizeof(p->program), "%s", program ? program : "?");
	snprintf(p->worker, sizeof(p->worker), "%s", worker ? worker : "?");
	found++;
	return page_count++;
}

/* True when PID needs no other look: it has been found, or it is not one of the test. */
static bool look_at(int pid, const char *mark)
{
	static char environment[1 << 17];
	ssize_t bytes = read_file(pid, "environ", environment, sizeof(environment));
	const char *id, *fd;
	char path[64], link[64] = "";
	struct stat status;
	int page = -1;

	id = bytes > 0 ? value_of(environment, (size_t)bytes, "BATON_TEST_ID") : NULL;
	fd = id && strcmp(id, mark) == 0 ? value_of(environment, (size_t)bytes, "BATON_LEASE_FD")
					 : NULL;
	if (!fd)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, atoi(fd));
	if (readlink(path, link, sizeof(link) - 1) < 0 || !strstr(link, "memfd:") ||
		stat(path, &status) < 0)
		return false;
	for (int i = 0; i < page_count && page < 0; i++)
		page = pages[i].inode == status.st_ino ? i : -1;
	if (page < 0)
		page = add_page(path, status.st_ino, environment, (size_t)bytes, pid);
	if (page < 0 || process_count == PROCESSES)
		return false;
	processes[process_count].page = page;
	processes[process_count].pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	process_count += processes[process_count].pidfd >= 0;
	return true;
}

static void scan(const char *mark, int64_t now)
{
	static uint64_t number;
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	number++;
	while (dir && (entry = readdir(dir))) {
		int pid = atoi(entry->d_name);
		struct seen *s = &seen[pid < PIDS ? pid : 0];

		if (!isdigit((unsigned char)entry->d_name[0]) || pid >= PIDS)
			continue;
		if (s->scan == 0 || s->scan + 1 < number)
			*s = (struct seen){.first_ns = now};
		s->scan = number;
		/* A process becomes a worker by its exec, some time after its birth. */
		if (!s->known && now - s->first_ns < WATCH_MS * INT64_C(1000000))
			s->known = look_at(pid, mark);
	}
	if (dir)
		closedir(dir);
}

/* --- sampling ------------------------------------------------------------------------------ */
/* A was valid before and after B was seen valid: then both were at that instant. */
static void compare(int a, int b, uint64_t term_a, uint64_t term_b)
{
	uint64_t again_b, again_a;
	bool both = is_valid(&pages[b], &again_b) && is_valid(&pages[a], &again_a) &&
		    again_a == term_a && again_b == term_b;

	if (!both || !has_reader(a) || !has_reader(b))
		return;
	twos++;
	printf("two %lld %s %d %llu %d %llu\n", (long long)now_ns(), pages[a].program, pages[a].pid,
		(unsigned long long)term_a, pages[b].pid, (unsigned long long)term_b);
}

static void sample(void)
{
	static uint64_t terms[PAGES];

	samples++;
	for (int i = 0; i < page_count; i++) {
		bool was = pages[i].valid;
		bool other = false;

		pages[i].valid = is_valid(&pages[i], &terms[i]) && (was || has_reader(i));
		if (pages[i].valid && !was)
			printf("valid %lld %s %s %d %llu\n", (long long)now_ns(), pages[i].program,
				pages[i].worker, pages[i].pid, (unsigned long long)terms[i]);
		if (!pages[i].valid && !was)
			continue;
		for (int j = 0; j < page_count; j++) {
			if (j == i || !pages[j].valid ||
				strcmp(pages[i].program, pages[j].program) != 0)
				continue;
			other = true;
			if (j < i && pages[i].valid)
				compare(j, i, terms[j], terms[i]);
		}
		if (was && !pages[i].valid && !other)
			printf("none %lld %s\n", (long long)now_ns(), pages[i].program);
	}
}

/* What nobody can read any more is forgotten; a lease of the dead was nobody's. */
static void forget_dead(void)
{
	for (int i = 0; i < process_count; i++) {
		struct pollfd p = {.fd = processes[i].pidfd, .events = POLLIN};

		if (poll(&p, 1, 0) == 0)
			continue;
		close(processes[i].pidfd);
		processes[i--] = processes[--process_count];
	}
	for (int i = 0; i < page_count; i++) {
		if (has_reader(i))
			continue;
		if (pages[i].valid)
			printf("none %lld %s\n", (long long)now_ns(), pages[i].program);
		munmap((void *)pages[i].map, 4096);
		pages[i] = pages[--page_count];
		for (int k = 0; k < process_count; k++) {
			if (processes[k].page == page_count)
				processes[k].page = i;
		}
		i--;
	}
}

static void sleep_until(int64_t at)
{
	struct timespec t = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};

	clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &t, NULL);
}

int main(int argc, char **argv)
{
	int64_t last = now_ns(), scanned = 0, longest = 0, next = last;
	struct pollfd in = {.fd = 0, .events = POLLIN};

	if (argc != 2)
		return 64;
	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_TIMERSLACK, 1);
	(void)setpriority(PRIO_PROCESS, 0, -10); /* where permitted */
	while (poll(&in, 1, 0) == 0) {
		int64_t now = now_ns();

		if (now - scanned >= SCAN_MS * INT64_C(1000000)) {
			scan(argv[1], now);
			forget_dead();
			scanned = now;
		}
		sample();
		now = now_ns();
		if (now - last > longest)
			longest = now - last;
		last = now;
		next = next + STEP_NS > now ? next + STEP_NS : now;
		sleep_until(next);
	}
	printf("end %llu %llu %llu %lld\n", (unsigned long long)samples, (unsigned long long)found,
		(unsigned long long)twos, (long long)longest);
	return twos ? 1 : 0;
}

#include "worker/jobs/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "worker/jobs/runner_internal.h"

extern char **environ;

enum { EVENTS = 64 };

#define LEASE_CHECK_NS (RUNNER_SECOND_NS / 2)
#define STOP_NS        (4 * RUNNER_SECOND_NS) /* below the margin that conf/load_job.c leaves */

/* --- descriptors --------------------------------------------------------------------------- */
int runner_watch(struct runner *r, int fd, uint64_t source, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.u64 = source};

	return epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

void runner_unwatch(struct runner *r, int fd)
{
	(void)epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* No events: out of the set, or it would go on telling of a hangup. */
void runner_change(struct runner *r, int fd, uint64_t source, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.u64 = source};

	if (events == 0)
		runner_unwatch(r, fd);
	else if (epoll_ctl(r->epoll_fd, EPOLL_CTL_MOD, fd, &e) < 0 && errno == ENOENT)
		(void)epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

void runner_now(struct runner *r)
{
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	r->now.wall_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000;
	r->now.boot_ns = lease_now_ns();
	r->now.soft_ns = link_soft_ns(r);
}

void runner_say(struct runner *r, const char *format, ...)
{
	char text[1024];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (n < 0)
		return;
	output_line(r, LEDGER_PROGRAM, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

/* --- the machine's wishes ------------------------------------------------------------------ */
static void note(struct runner *r, const struct jobs_action *a)
{
	const char *name = a->job >= 0 ? r->machine.jobs[a->job].name : "";

	runner_say(r, "%s%s%s (%lld s)", name, name[0] ? ": " : "", a->text, (long long)a->number);
}

static void emit(void *context, const struct jobs_action *a)
{
	struct runner *r = context;

	switch (a->kind) {
	case JOBS_START:
		task_start(r, a, false);
		break;
	case JOBS_HOOK:
		task_start(r, a, true);
		break;
	case JOBS_STOP:
		task_stop(r, a);
		break;
	case JOBS_FORGET:
		task_forget(r, a->run);
		break;
	case JOBS_BUSY:
		r->busy = a->number;
		break;
	case JOBS_DEMOTED:
		r->demoted_term = (uint64_t)a->number;
		break;
	case JOBS_SETTLED:
		book_settled(r);
		break;
	case JOBS_STRANGERS:
		runner_say(r,
			"jobs that the ledger knows and this file does not: %lld; each instance "
			"runs "
			"what it has",
			(long long)a->number);
		break;
	case JOBS_NOTE:
		note(r, a);
		break;
	default:
		book_emit(r, a);
	}
}

/* --- timers -------------------------------------------------------------------------------- */
static struct timespec span(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / RUNNER_SECOND_NS, .tv_nsec = ns % RUNNER_SECOND_NS};
}

static void least(int64_t *at, int64_t other)
{
	if (other < *at)
		*at = other;
}

static void set_timers(struct runner *r)
{
	int64_t wall_us = machine_next_wall_us(&r->machine);
	int64_t boot_ns = machine_next_boot_ns(&r->machine);
	struct itimerspec t = {0};

	least(&boot_ns, link_next_ns(r));
	least(&boot_ns, book_next_ns(r));
	least(&boot_ns, task_next_ns(r));
	least(&boot_ns, output_next_ns(r));
	if (r->machine.short_of_lease)
		least(&boot_ns, r->now.boot_ns + LEASE_CHECK_NS);
	if (r->stopping && r->machine.state == JOBS_SETTLING)
		least(&boot_ns, r->machine.drain_by_ns);
	if (boot_ns != r->boot_at_ns) {
		r->boot_at_ns = boot_ns;
		if (boot_ns != JOBS_NEVER)
			t.it_value = span(boot_ns > 0 ? boot_ns : 1);
		timerfd_settime(r->boot_fd, TFD_TIMER_ABSTIME, &t, NULL);
	}
	if (wall_us == r->wall_at_us)
		return;
	/* Without a firing a far one all the same: that the clock was set is to be noticed. */
	r->wall_at_us = wall_us;
	if (wall_us > INT64_MAX / 2000)
		wall_us = INT64_MAX / 2000;
	t.it_value = span(wall_us > 0 ? wall_us * 1000 : 1);
	timerfd_settime(r->wall_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &t, NULL);
}

static void timer_read(int fd, int64_t *at)
{
	uint64_t count;

	/* ECANCELED: the clock was set. In any case the timer is to be set anew. */
	(void)!read(fd, &count, sizeof count);
	*at = 0;
}

/* --- the round ----------------------------------------------------------------------------- */
static int64_t stop_ns(const struct runner *r)
{
	int64_t longest = 0;

	for (size_t i = 0; i < r->set.count; i++) {
		if (r->set.items[i]->policy.stop_ns > longest)
			longest = r->set.items[i]->policy.stop_ns;
	}
	return longest + STOP_NS;
}

static void signalled(struct runner *r)
{
	struct signalfd_siginfo info[16];
	ssize_t n = read(r->signal_fd, info, sizeof info);

	for (size_t i = 0; n > 0 && i < (size_t)n / sizeof *info; i++) {
		if (info[i].ssi_signo != SIGTERM)
			continue;
		r->stopping = true; /* what runs is sent TERM now */
		machine_demoted(&r->machine, stop_ns(r), 0, &r->now);
	}
	task_reap(r);
}

static void handle(struct runner *r, const struct epoll_event *e)
{
	uint64_t source = e->data.u64;

	switch (source) {
	case SOURCE_CHANNEL:
		if (r->channel_fd >= 0)
			link_channel(r);
		break;
	case SOURCE_SIGNAL:
		signalled(r);
		break;
	case SOURCE_WALL:
		timer_read(r->wall_fd, &r->wall_at_us);
		break;
	case SOURCE_BOOT:
		timer_read(r->boot_fd, &r->boot_at_ns);
		break;
	case SOURCE_BELL:
		book_bell(r);
		break;
	case SOURCE_LEDGER:
		book_ledger(r, e->events);
		break;
	case SOURCE_CONTROL:
		link_control(r, e->events);
		break;
	case SOURCE_LOG:
		break; /* flushed at the end of the round */
	default:
		source -= SOURCE_TASK;
		if (source < (uint64_t)r->task_slots && r->tasks[source] != NULL &&
			r->tasks[source]->used)
			output_read(r, r->tasks[source], false);
	}
}

/* A ledger that does not answer does not hold a stop up. */
static bool is_over(const struct runner *r)
{
	const struct jobs_machine *m = &r->machine;

	return r->stopping && r->alive == 0 && r->over == 0 &&
	       (m->state == JOBS_IDLE ||
		       (m->state == JOBS_SETTLING && r->now.boot_ns >= m->drain_by_ns));
}

static void run(struct runner *r)
{
	struct epoll_event events[EVENTS];

	while (!is_over(r)) {
		int n;

		runner_now(r);
		task_deliver(r);
		machine_tick(&r->machine, &r->now);
		task_tick(r);
		task_deliver(r);
		book_tick(r);
		link_tick(r);
		output_tick(r);
		set_timers(r);
		if (is_over(r) || r->over > 0)
			continue;
		n = epoll_wait(r->epoll_fd, events, EVENTS, -1);
		runner_now(r);
		for (int i = 0; i < n; i++)
			handle(r, &events[i]);
	}
	output_flush(r);
}

/* --- the beginning ------------------------------------------------------------------------- */
static bool is_ours(const char *pair)
{
	static const char *const ours[] = {"BATON_CHANNEL_FD", "BATON_LEASE_FD", "BATON_PROGRAM",
		"BATON_WORKER", "BATON_INDEX", "BATON_WORKERS", "BATON_EXECUTOR", "BATON_TERM",
		"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SUPERVISOR_ENABLED",
		"SUPERVISOR_PROCESS_NAME", "SUPERVISOR_GROUP_NAME"};

	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
		size_t n = strlen(ours[i]);

		if (strncmp(ours[i], pair, n) == 0 && pair[n] == '=')
			return true;
	}
	return false;
}

static char **inherited(void)
{
	size_t n = 0;
	char **list;

	while (environ[n] != NULL)
		n++;
	list = calloc(n + 1, sizeof *list);
	n = 0;
	for (char **p = environ; list != NULL && *p != NULL; p++) {
		if (!is_ours(*p))
			list[n++] = *p;
	}
	return list;
}

/* A terminal's signals, and those that a careless `kill` sends: only TERM is an order. */
static int open_signals(void)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
	sigset_t set;

	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int open_all(struct runner *r, struct err *e)
{
	r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	r->signal_fd = open_signals();
	r->wall_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	r->boot_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	r->environment = inherited();
	if (r->epoll_fd < 0 || r->signal_fd < 0 || r->wall_fd < 0 || r->boot_fd < 0 ||
		r->environment == NULL)
		return err_set(e, ERR_SYSTEM, "no descriptors: %s", strerror(errno));
	runner_watch(r, r->signal_fd, SOURCE_SIGNAL, EPOLLIN);
	runner_watch(r, r->wall_fd, SOURCE_WALL, EPOLLIN);
	runner_watch(r, r->boot_fd, SOURCE_BOOT, EPOLLIN);
	(void)fcntl(r->log.fd, F_SETFL, O_NONBLOCK);
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	(void)prctl(PR_SET_NAME, "job-worker");
	return link_open(r, e);
}

int job_worker_main(int argc, char **argv)
{
	static struct runner r;
	struct err e;

	(void)argc;
	(void)argv;
	r.channel_fd = r.control_fd = r.jobs_fd = r.bell_fd = r.ledger_watched = -1;
	r.ledger_ns = JOBS_NEVER;
	r.control_ns = JOBS_NEVER;
	r.status_ns = INT64_MIN / 2;
	r.log.fd = STDOUT_FILENO;
	ledger_init(&r.ledger);
	machine_init(&r.machine, job_definition_next, emit, &r);
	if (open_all(&r, &e) < 0) {
		fprintf(stderr, "jobs | %s\n", e.text);
		return 1;
	}
	run(&r);
	ledger_stop(&r.ledger);
	return 0;
}

/* `run -d`: the supervisor in the background, once it runs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

/* The child writes what people should read, then a zero byte and the exit status. */
#define END_BYTES 2

/* An election that takes longer has been told as it is: it goes on. */
#define ELECTION_NS (5 * CORE_SECOND)

static int wait_for(int fd, pid_t pid)
{
	FILE *f = fdopen(fd, "r");
	int c = EOF, status = EOF;

	while (f != NULL && (c = getc(f)) != EOF && c != '\0')
		putc(c, stderr);
	if (c == '\0')
		status = getc(f);
	if (f != NULL)
		fclose(f);
	if (status == 0)
		printf("baton: running in the background (pid %d)\n", (int)pid);
	if (status != EOF)
		return status;
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		fprintf(stderr, "baton: the supervisor was killed by SIG%s before it was running\n",
			sigabbrev_np(WTERMSIG(status)));
	else
		fprintf(stderr, "baton: the supervisor ended before it was running\n");
	return 1;
}

static void warn_of_output(const struct supervisor *s)
{
	const struct config *c = s->config;

	if (c->logfile[0] == '\0' || strncmp(c->logfile, "/dev/", 5) == 0)
		fprintf(stderr,
			"baton: warning: %s: in the background the log and the output of the "
			"workers go to /dev/null; %s'logfile' in [baton]\n",
			c->logfile[0] == '\0' ? "no logfile is set" : c->logfile,
			s->config_text != NULL ? "write a file (--print-config) with " : "set ");
}

static int redirect(struct err *e)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);

	if (fd < 0 || dup2(fd, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		return err_set(e, ERR_SYSTEM, "cannot open /dev/null: %s", strerror(errno));
	if (fd > 2)
		close(fd);
	return 0;
}

int detach(struct supervisor *s, int *ret_status)
{
	int fds[2] = {-1, -1};
	struct err e;
	pid_t pid;

	if (getpid() == 1) {
		fprintf(stderr,
			"baton: cannot go to the background as PID 1: the kernel ends all of "
			"its PID namespace (the container) with it; leave -d out\n");
		*ret_status = 2;
		return -1;
	}
	warn_of_output(s);
	fflush(NULL);
	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		fprintf(stderr, "baton: cannot go to the background: %s\n", strerror(errno));
		*ret_status = 1;
		return -1;
	}
	if (pid > 0) {
		close(fds[1]);
		*ret_status = wait_for(fds[0], pid);
		return 1;
	}
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);
	s->detached = true;
	s->detach_fd = fds[1];
	(void)setsid();
	if (redirect(&e) == 0)
		return 0;
	detach_say(s, e.text);
	detach_end(s, 1);
	*ret_status = 1;
	return -1;
}

void detach_say(struct supervisor *s, const char *text)
{
	if (s->detach_fd >= 0)
		dprintf(s->detach_fd, "baton: %s\n", text);
}

/* Whoever looks at a terminal sees nothing of a log that goes to a file. */
static bool is_told_by_log(const struct supervisor *s)
{
	const char *log = s->booted->logfile;

	return log[0] == '\0' || strcmp(log, "/dev/stderr") == 0 ||
	       strcmp(log, "/dev/stdout") == 0 || strncmp(log, "/dev/fd/", 8) == 0;
}

void detach_tell(struct supervisor *s, const char *text)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	if (s->detach_fd >= 0)
		detach_say(s, text);
	else if (!s->detached && !is_told_by_log(s) && poll(&p, 1, 0) == 1 &&
		 (p.revents & POLLOUT) != 0)
		dprintf(STDERR_FILENO, "baton: %s\n", text);
}

/* An end that nobody asked for. What a stage of the start said was told then. */
void detach_tell_end(struct supervisor *s, int status)
{
	char text[1400], who[512];
	const char *reason = s->core.lifecycle.reason;

	if (s->stage_status != 0 || (status == 0 && s->detach_fd < 0))
		return;
	if (status == 78 && s->lock.error[0] != '\0') {
		snprintf(text, sizeof text, "ended: %s", s->lock.error);
	} else if (status == 75) {
		report_lock_view(s, who, sizeof who);
		snprintf(
			text, sizeof text, "ended: the lock is held by %s (when_held = exit)", who);
	} else {
		snprintf(text, sizeof text, "ended%s: %s",
			s->detach_fd >= 0 ? " before it was running" : "", reason);
	}
	detach_tell(s, text);
}

void detach_end(struct supervisor *s, int status)
{
	const char end[END_BYTES] = {'\0', (char)status};

	if (s->detach_fd < 0)
		return;
	if (write(s->detach_fd, end, sizeof end) < 0 && s->logs != NULL)
		logs_event(s->logs, LOGS_DEBUG, "detach", NULL, 0, "whoever started us has gone");
	close(s->detach_fd);
	s->detach_fd = -1;
}

/* With when_held = exit it is the election that says whether this instance runs; 0 = it has. */
int64_t detach_deadline(const struct supervisor *s)
{
	const struct config_scheduler *c = &s->config->scheduler;
	const struct election *x = &s->core.election;

	if (s->detach_fd < 0 || s->core.lifecycle.state != LIFECYCLE_RUNNING || !c->enabled ||
		!c->when_held_exit || x->unavailable || x->state == ELECTION_HOLDING)
		return 0;
	return s->core.lifecycle.since_ns + ELECTION_NS;
}

void detach_check(struct supervisor *s)
{
	if (s->detach_fd >= 0 && s->core.lifecycle.state == LIFECYCLE_RUNNING && !s->exiting &&
		detach_deadline(s) <= lease_now_ns())
		detach_end(s, 0);
}

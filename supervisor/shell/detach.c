/* `run -d`: the supervisor in the background, once it runs. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

/* The child writes what people should read, then a zero byte and the exit status. */
#define END_BYTES 2

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

void detach_check(struct supervisor *s)
{
	if (s->detach_fd >= 0 && s->core.lifecycle.state == LIFECYCLE_RUNNING && !s->exiting)
		detach_end(s, 0);
}

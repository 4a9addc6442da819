/*
 * The user database and DNS may take their time, and the loop must not wait for them. A reload that
 * meets a name that is not known changes nothing yet: a child asks for all such names, and then the
 * reload is begun again, from the file. One child at a time, with a bound; whatever it has not
 * answered by then counts as not to be found. A reload that comes while the supervisor still starts
 * waits here, too, without a child.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "conf/lookup.h"
#include "supervisor/shell/lookups.h"
#include "supervisor/shell/state.h"

#define BOUND_NS  (10 * CORE_SECOND)
#define MOST      64 /* requests that wait */
#define ATTEMPTS  3
#define MOST_TEXT (1 << 22)

struct pending {
	struct control_connection *from;
	uint64_t id;
	json_t *json;
};

struct lookups {
	struct helper child;
	char *text;
	size_t bytes;
	int64_t deadline_ns; /* 0 = nothing is waited for */
	bool booting;        /* no child: for the end of the start */
	int attempts;
	bool signal; /* SIGHUP waits */
	struct pending requests[MOST];
	size_t count;
};

/* --- the child ----------------------------------------------------------------------------- */
/* A fork without exec: it has the list of names already. It keeps nothing but its pipe, so that
 * nothing of ours stays open in it, and never outlives us. */
static void run_child(int fd, pid_t parent)
{
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	(void)prctl(PR_SET_NAME, "name-lookup");
	if (dup2(fd, 3) < 0)
		_exit(1);
	(void)close_range(4, ~0u, 0);
	for (int i = 1; i < NSIG; i++)
		(void)signal(i, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	lookup_answer_missing(3);
	_exit(0);
}

static void finish(struct supervisor *s, const char *why);

static void readable(void *context, unsigned events)
{
	struct supervisor *s = context;
	struct lookups *l = s->lookups;
	char buffer[16384], *more;
	ssize_t n = read(l->child.fd, buffer, sizeof buffer);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	more = n > 0 && l->bytes < MOST_TEXT ? realloc(l->text, l->bytes + (size_t)n + 1) : NULL;
	if (more == NULL) {
		finish(s, "the process that asks for it died");
		return;
	}
	memcpy(more + l->bytes, buffer, (size_t)n);
	l->text = more;
	l->bytes += (size_t)n;
	l->text[l->bytes] = '\0';
}

static int start(struct supervisor *s, struct lookups *l)
{
	sigset_t all, before;
	pid_t parent = getpid();
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	lookup_send_missing();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	l->child.pid = fork();
	if (l->child.pid == 0)
		run_child(fds[1], parent);
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(fds[1]);
	l->child.fd = fds[0];
	if (l->child.pid > 0) {
		(void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
		l->child.watch = loop_watch(s->loop, fds[0], LOOP_READ, readable, s);
	}
	if (l->child.pid < 0 || l->child.watch == NULL) {
		helper_kill(&l->child);
		return -1;
	}
	l->deadline_ns = lease_now_ns() + BOUND_NS;
	logs_event(s->logs, LOGS_DEBUG, "reload.lookup", NULL, 0,
		"asking for %zu users, groups or hosts before the reload", lookup_missing());
	return 0;
}

/* --- who waits ----------------------------------------------------------------------------- */
static struct lookups *begin(struct supervisor *s)
{
	struct lookups *l = s->lookups;

	if (l == NULL) {
		l = s->lookups = calloc(1, sizeof *l);
		if (l == NULL)
			return NULL;
		l->child.fd = -1;
	}
	if (l->deadline_ns != 0)
		return l;
	l->booting = s->core.lifecycle.state == LIFECYCLE_BOOT;
	if (l->booting)
		l->deadline_ns = lease_now_ns() + BOUND_NS;
	if (++l->attempts <= ATTEMPTS && (l->booting || start(s, l) == 0))
		return l;
	l->deadline_ns = 0;
	if (!l->signal && l->count == 0)
		lookups_forget(s, NULL);
	return NULL;
}

const char *lookups_failure(const struct supervisor *s)
{
	return s->core.lifecycle.state == LIFECYCLE_BOOT
		       ? "the supervisor is still starting: try again"
		       : "users or hosts of the configuration cannot be looked up";
}

void lookups_begin_signal(struct supervisor *s)
{
	struct lookups *l = begin(s);

	if (l != NULL)
		l->signal = true;
	else
		logs_event(s->logs, LOGS_ERROR, "reload.error", NULL, 0, "%s; nothing was changed",
			lookups_failure(s));
}

bool lookups_begin(struct supervisor *s, struct control_connection *from, uint64_t id, json_t *json)
{
	struct lookups *l = begin(s);

	if (l == NULL || l->count == MOST)
		return false;
	l->requests[l->count++] = (struct pending){
		.from = from, .id = id, .json = json_incref(json)};
	return true;
}

/* What was asked for comes again, in its order; it may find that more names must be asked for. */
static void finish(struct supervisor *s, const char *why)
{
	struct lookups *l = s->lookups;
	char nothing[1] = "";
	struct pending again[MOST];
	size_t count = l->count;
	bool signal = l->signal;

	helper_kill(&l->child);
	if (!l->booting)
		lookup_learn(l->text != NULL ? l->text : nothing, why);
	free(l->text);
	l->text = NULL;
	l->bytes = l->count = 0;
	l->deadline_ns = 0;
	l->signal = false;
	memcpy(again, l->requests, count * sizeof *again);
	if (signal)
		signals_reload(s);
	for (size_t i = 0; i < count; i++) {
		commands_again(s, again[i].from, again[i].id, again[i].json);
		json_decref(again[i].json);
	}
	if (s->lookups != NULL && s->lookups->deadline_ns == 0)
		lookups_forget(s, NULL);
}

void lookups_forget(struct supervisor *s, const struct control_connection *gone)
{
	struct lookups *l = s->lookups;
	size_t kept = 0;

	if (l == NULL)
		return;
	for (size_t i = 0; i < l->count; i++) {
		if (gone != NULL && l->requests[i].from != gone)
			l->requests[kept++] = l->requests[i];
		else
			json_decref(l->requests[i].json);
	}
	l->count = kept;
	if (gone != NULL)
		return;
	helper_kill(&l->child);
	free(l->text);
	free(l);
	s->lookups = NULL;
}

int64_t lookups_deadline(const struct supervisor *s)
{
	const struct lookups *l = s->lookups;

	if (l != NULL && l->booting && l->deadline_ns != 0 &&
		s->core.lifecycle.state != LIFECYCLE_BOOT)
		return lease_now_ns();
	return l != NULL ? l->deadline_ns : 0;
}

void lookups_check(struct supervisor *s)
{
	int64_t at = lookups_deadline(s);

	if (at != 0 && at <= lease_now_ns())
		finish(s, "no answer within 10 s");
}

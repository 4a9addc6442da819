/* The new image: on from the state of the one before. And its trial. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/probes.h"
#include "supervisor/shell/state_document.h"
#include "supervisor/shell/supervisor.h"
#include "supervisor/shell/upgrade.h"

static struct supervisor supervisor;

/* What was inheritable for the execve is ours alone again; what we were given and nobody has spoken
 * of stays as it is. */
static void close_on_exec(const json_t *document)
{
	const json_t *fds = json_object_get(json_object_get(document, "upgrade"), "descriptors");

	for (size_t i = 0; i < json_array_size(fds); i++)
		(void)fcntl((int)json_integer_value(json_array_get(fds, i)), F_SETFD, FD_CLOEXEC);
}

static json_t *load(struct supervisor *s, int fd, bool trial, struct err *e)
{
	json_t *document = upgrade_read(fd, e);

	if (document == NULL)
		return NULL;
	if (state_check_document(document, e) < 0 || supervisor_init(s, e) < 0 ||
		state_load(s, document, trial, e) < 0) {
		json_decref(document);
		return NULL;
	}
	return document;
}

int supervisor_try_state(void)
{
	json_t *document;
	struct err e;

	document = load(&supervisor, UPGRADE_TRIAL_FD, true, &e);
	if (document == NULL) {
		printf("%s\n", e.text);
		fflush(stdout);
		_exit(1);
	}
	printf(UPGRADE_GOOD "%s, state format %d\n", BATON_VERSION, STATE_FORMAT);
	fflush(stdout);
	_exit(0); /* nothing of what it has loaded is its own */
}

bool supervisor_is_resumed(void)
{
	return getenv(UPGRADE_VARIABLE) != NULL;
}

static void restore_signals(const json_t *upgrade)
{
	size_t bytes = 0;
	char *saved = state_load_bytes(json_object_get(upgrade, "signals"), &bytes);
	sigset_t mask;

	sigemptyset(&mask);
	if (saved != NULL && bytes <= sizeof mask)
		memcpy(&mask, saved, bytes);
	free(saved);
	sigprocmask(SIG_SETMASK, &mask, NULL);
}

/* Everything of the image before that is not memory. */
static void take_over(struct supervisor *s, const json_t *document)
{
	json_t *keeper = state_keeper_protocol(), *deadman = state_deadman_protocol();

	lock_resume(s, json_equal(keeper, json_object_get(document, "keeper")),
		json_equal(deadman, json_object_get(document, "deadman")));
	json_decref(keeper);
	json_decref(deadman);
	listeners_watch(s);
	probes_resume(s);
	privileges_dropped = s->root_given_up;
	reap_children(s); /* whose SIGCHLD may have been handled by nobody */
	supervisor_forget_snapshots(s);
}

static void say(struct supervisor *s, const json_t *document)
{
	const json_t *upgrade = json_object_get(document, "upgrade");
	const char *from = json_string_value(json_object_get(document, "version"));
	struct upgrade *u = &s->upgrade;
	struct logs_field fields[] = {{.key = "from", .value = from},
		{.key = "to", .value = BATON_VERSION}, {.key = "stall_us"}};

	snprintf(u->from, sizeof u->from, "%s", from != NULL ? from : "");
	u->stall_ns = lease_now_ns() - json_integer_value(json_object_get(upgrade, "began_ns"));
	u->done = true;
	fields[2].number = u->stall_ns / 1000;
	logs_event(s->logs, LOGS_INFO, "upgrade.done", fields, 3,
		"upgraded in place: version %s -> %s, the supervisor stood still for %.1f ms",
		u->from, BATON_VERSION, (double)u->stall_ns / 1e6);
	s->changed = true;
}

static int resume(struct supervisor *s, int fd, struct err *e)
{
	json_t *document;
	const char *binary;

	document = load(s, fd, false, e);
	close(fd);
	if (document == NULL)
		return e->code;
	close_on_exec(document);
	if (json_integer_value(json_object_get(document, "pid")) != getpid())
		return err_set(e, ERR_WRONG, "it is the state of another process");
	binary = json_string_value(json_object_get(json_object_get(document, "upgrade"), "binary"));
	snprintf(s->binary, sizeof s->binary, "%s", binary != NULL ? binary : "");
	if (supervisor_attend(s, e) < 0)
		return e->code;
	take_over(s, document);
	restore_signals(json_object_get(document, "upgrade"));
	say(s, document);
	json_decref(document);
	malloc_trim(0); /* it may have been large */
	return 0;
}

int supervisor_resume(char **argv)
{
	struct supervisor *s = &supervisor;
	int fd = atoi(getenv(UPGRADE_VARIABLE));
	struct err e;

	(void)unsetenv(UPGRADE_VARIABLE);
	signal(SIGPIPE, SIG_IGN);
	s->argv = argv;
	s->upgrade.output_fd = s->upgrade.report_fd = -1;
	if (resume(s, fd, &e) < 0) {
		/* The trial has seen to it that this does not happen. What was ours dies with us:
		 * the deadman of the image before watches. */
		fprintf(stderr, "baton: upgrade in place: cannot go on: %s\n", e.text);
		return 1;
	}
	return supervisor_serve(s);
}

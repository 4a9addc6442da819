#include "supervisor/shell/claims.h"
#include "supervisor/shell/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/probes.h"
#include "supervisor/shell/state_document.h"

#define TRIAL_NS (5 * CORE_SECOND)
#define CALM_NS  (10 * CORE_SECOND)
/* Of the loop, with the signals blocked: what libev had caught before comes in the first. */
#define ROUNDS 2
/* Beside what goes over: files of the configuration, time zones, /proc, the helpers' sockets. */
#define SPARE_FDS 32

extern char **environ;

/* --- where the binary is --------------------------------------------------------------------- */
static bool is_ours(const char *path)
{
	struct stat a, b;

	return stat(path, &a) == 0 && stat("/proc/self/exe", &b) == 0 && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

/* In the folders of PATH, as the shell has found it. */
static bool find_in_path(const char *name, char *buf, size_t bytes)
{
	const char *at = getenv("PATH");

	for (; at != NULL && *at != '\0'; at += strspn(at, ":")) {
		size_t n = strcspn(at, ":");

		snprintf(buf, bytes, "%.*s/%s", (int)n, at, name);
		if (buf[0] == '/' && is_ours(buf))
			return true;
		at += n;
	}
	return false;
}

/* The path we were started by rather than the file behind it: a newer version may be put there by
 * another link. */
void upgrade_remember(struct supervisor *s, const char *argv0)
{
	char here[PATH_MAX];
	ssize_t n;

	if (argv0 != NULL && argv0[0] == '/')
		snprintf(s->binary, sizeof s->binary, "%s", argv0);
	else if (argv0 != NULL && strchr(argv0, '/') != NULL && getcwd(here, sizeof here) != NULL)
		snprintf(s->binary, sizeof s->binary, "%s/%s", here, argv0);
	else if (argv0 == NULL || !find_in_path(argv0, s->binary, sizeof s->binary))
		s->binary[0] = '\0';
	if (s->binary[0] != '\0' && is_ours(s->binary))
		return;
	n = readlink("/proc/self/exe", s->binary, sizeof s->binary - 1);
	s->binary[n > 0 ? n : 0] = '\0';
}

/* --- begin and end --------------------------------------------------------------------------- */
static int refused(struct supervisor *s, const struct err *e)
{
	logs_event(s->logs, LOGS_ERROR, "upgrade.failed", NULL, 0, "not upgraded: %s", e->text);
	return e->code;
}

/* One that had begun: given up. */
static void finish(struct supervisor *s, const struct err *e)
{
	struct upgrade *u = &s->upgrade;

	upgrade_end_trial(s);
	if (u->rounds > 0)
		sigprocmask(SIG_SETMASK, &u->signals, NULL);
	u->phase = UPGRADE_NONE;
	u->rounds = 0;
	u->failed = true;
	snprintf(u->error, sizeof u->error, "%s; this baton goes on as before", e->text);
	logs_event(s->logs, LOGS_ERROR, "upgrade.failed", NULL, 0, "not upgraded: %s", u->error);
	s->changed = true;
}

static int may_begin(const struct supervisor *s, struct err *e)
{
	if (s->core.lifecycle.state != LIFECYCLE_RUNNING)
		return err_set(e, ERR_REFUSED, "the supervisor is %s: not upgraded",
			lifecycle_state_name(s->core.lifecycle.state));
	if (s->upgrade.phase != UPGRADE_NONE)
		return err_set(e, ERR_BUSY, "an upgrade is on its way already");
	if (s->upgrade.binary[0] == '\0')
		return err_set(e, ERR_UNAVAILABLE,
			"it is not known where the binary lies: name it, `baton upgrade BINARY`");
	return 0;
}

int upgrade_begin(struct supervisor *s, const char *binary, struct err *e)
{
	struct upgrade *u = &s->upgrade;

	if (u->phase == UPGRADE_NONE)
		snprintf(u->binary, sizeof u->binary, "%s", binary[0] != '\0' ? binary : s->binary);
	if (may_begin(s, e) < 0)
		return refused(s, e);
	u->failed = u->done = false;
	u->rounds = 0;
	logs_event(s->logs, LOGS_INFO, "upgrade.begin", NULL, 0,
		"upgrade in place: trying '%s' with the running state", u->binary);
	if (upgrade_try(s, e) < 0)
		return refused(s, e);
	u->phase = UPGRADE_TRIAL;
	u->deadline_ns = lease_now_ns() + TRIAL_NS;
	return 0;
}

bool upgrade_reaped(struct supervisor *s, pid_t pid, int status)
{
	struct upgrade *u = &s->upgrade;
	struct err e;

	if (pid <= 0 || pid != u->pid)
		return false;
	u->pid = 0;
	if (upgrade_judge(s, status, &e) < 0) {
		finish(s, &e);
		return true;
	}
	upgrade_end_trial(s);
	u->phase = UPGRADE_CALM;
	u->deadline_ns = lease_now_ns() + CALM_NS;
	return true;
}

int64_t upgrade_deadline(const struct supervisor *s)
{
	const struct upgrade *u = &s->upgrade;

	if (u->phase == UPGRADE_NONE)
		return 0;
	return u->rounds > 0 ? lease_now_ns() : u->deadline_ns; /* the next round, at once */
}

void upgrade_release(struct supervisor *s)
{
	upgrade_end_trial(s);
}

/* --- calm ------------------------------------------------------------------------------------ */
/* What would be lost or would have to be done twice; NULL = nothing. */
static const char *unrest(const struct supervisor *s)
{
	if (s->queue_count > 0)
		return "events are waiting";
	if (s->spawn_count > 0)
		return "workers are being started";
	if (s->lock.former.pid > 0 || s->lock.keeper_former)
		return "the helpers of the last upgrade are still being replaced";
	if (claims_waiting(s))
		return "claims wait for the database";
	if (s->lookups != NULL)
		return "a reload waits for the user database or DNS";
	if (s->detach_fd >= 0)
		return "whoever started it is still being told so";
	return NULL;
}

/* --- the execve ------------------------------------------------------------------------------ */
static void set_inheritable(const struct state_fds *fds, bool inheritable)
{
	for (size_t i = 0; i < fds->count; i++)
		(void)fcntl(fds->items[i], F_SETFD, inheritable ? 0 : FD_CLOEXEC);
}

static json_t *list_fds(const struct state_fds *fds)
{
	json_t *all = json_array();

	for (size_t i = 0; i < fds->count; i++)
		json_array_append_new(all, json_integer(fds->items[i]));
	return all;
}

static char **make_environment(int fd, char variable[64])
{
	size_t count = 0;
	char **made;

	while (environ[count] != NULL)
		count++;
	made = malloc((count + 2) * sizeof *made);
	if (made == NULL)
		return NULL;
	snprintf(variable, 64, UPGRADE_VARIABLE "=%d", fd);
	memcpy(made, environ, count * sizeof *made);
	made[count] = variable;
	made[count + 1] = NULL;
	return made;
}

/* Those under way were ended for the execve, which failed. */
static void ask_probes_again(struct supervisor *s)
{
	for (int i = 0; i < s->core.worker_slots; i++) {
		struct event e = {.kind = EVENT_PROBE_FAILED,
			.worker = i,
			.id = s->core.workers[i].id,
			.program = -1,
			.ok = true}; /* only this attempt; the worker is not to blame */

		if (s->core.workers[i].used && s->core.workers[i].probing)
			supervisor_post(s, &e);
	}
}

/* The next image reads the configuration and the state with all that is open here still open: by
 * then there is no way back. */
static int check_room(const struct supervisor *s, struct err *e)
{
	int fds[SPARE_FDS], n = 0;

	while (n < SPARE_FDS && (fds[n] = fcntl(s->null_fd, F_DUPFD_CLOEXEC, 3)) >= 0)
		n++;
	for (int i = 0; i < n; i++)
		close(fds[i]);
	if (n < SPARE_FDS)
		return err_set(e, ERR_SYSTEM,
			"only %d more descriptors can be opened, and the new version needs %d: "
			"raise the limit (prlimit --nofile, LimitNOFILE= of systemd)",
			n, SPARE_FDS);
	return 0;
}

/* Comes back only when it has failed. */
static void execute(struct supervisor *s, struct err *e)
{
	struct upgrade *u = &s->upgrade;
	struct state_fds fds = {NULL, 0, 0, false};
	int64_t began_ns = lease_now_ns();
	json_t *document;
	char variable[64], **environment;
	int fd;

	probes_end(s);
	document = state_save(s, &fds);
	if (document != NULL)
		json_object_set_new(document, "upgrade",
			json_pack("{s:I s:o s:s s:o}", "began_ns", (json_int_t)began_ns, "signals",
				state_save_bytes((const char *)&u->signals, 8), "binary", u->binary,
				"descriptors", list_fds(&fds)));
	fd = upgrade_write(document, e);
	environment = fd >= 0 ? make_environment(fd, variable) : NULL;
	if (environment != NULL) {
		state_fds_add(&fds, fd);
		set_inheritable(&fds, true);
		execve(u->binary, s->argv, environment);
		err_set(e, ERR_SYSTEM, "cannot execute '%s': %s", u->binary, strerror(errno));
		set_inheritable(&fds, false);
	} else if (fd >= 0) {
		err_set(e, ERR_SYSTEM, "out of memory");
	}
	ask_probes_again(s);
	if (fd >= 0)
		close(fd);
	free(environment);
	free(fds.items);
}

/* Another file, or another configuration, than were tried: try again. */
static bool is_stale(struct supervisor *s)
{
	return s->generation != s->upgrade.generation || !upgrade_same_file(&s->upgrade);
}

static void try_again(struct supervisor *s)
{
	struct upgrade *u = &s->upgrade;
	char binary[sizeof u->binary];
	struct err e;

	if (u->rounds > 0)
		sigprocmask(SIG_SETMASK, &u->signals, NULL);
	u->phase = UPGRADE_NONE;
	u->rounds = 0;
	memcpy(binary, u->binary, sizeof binary); /* it is written anew */
	if (upgrade_begin(s, binary, &e) < 0)
		finish(s, &e);
}

static void go_round(struct supervisor *s)
{
	struct upgrade *u = &s->upgrade;
	sigset_t all;
	struct err e;

	if (u->rounds == 0) {
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, &u->signals);
	}
	if (u->rounds++ < ROUNDS)
		return;
	if (is_stale(s)) {
		try_again(s);
		return;
	}
	if (check_room(s, &e) == 0)
		execute(s, &e);
	finish(s, &e);
}

static void be_patient(struct supervisor *s, const char *why)
{
	struct upgrade *u = &s->upgrade;
	struct err e;

	if (u->rounds > 0)
		sigprocmask(SIG_SETMASK, &u->signals, NULL);
	u->rounds = 0;
	if (lease_now_ns() < u->deadline_ns)
		return;
	err_set(&e, ERR_TIMEOUT, "it did not come to rest within %d s: %s",
		(int)(CALM_NS / CORE_SECOND), why);
	finish(s, &e);
}

void upgrade_check(struct supervisor *s)
{
	struct upgrade *u = &s->upgrade;
	const char *why;
	struct err e;

	if (u->phase == UPGRADE_NONE)
		return;
	if (s->core.lifecycle.state != LIFECYCLE_RUNNING) {
		err_set(&e, ERR_REFUSED, "the supervisor is stopping");
		finish(s, &e);
	} else if (u->phase == UPGRADE_TRIAL) {
		if (lease_now_ns() < u->deadline_ns)
			return;
		err_set(&e, ERR_TIMEOUT,
			"'%s' did not come to an end within %d s while it was "
			"tried: it was killed",
			u->binary, (int)(TRIAL_NS / CORE_SECOND));
		finish(s, &e);
	} else if ((why = unrest(s)) != NULL) {
		be_patient(s, why);
	} else {
		go_round(s);
	}
}

/* The start-up stages: what each brings up and takes down. The order is the core's. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/strays.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/unixsock.h"

#define OTHERS 8 /* control sockets that are looked at */

/* --- configuration, directories, log ------------------------------------------------------- */
/* What a pidfile says: a number, or nothing. Anything else is somebody's file, not to be emptied.
 */
static int read_pidfile(int fd, const char *path, long *ret_pid, struct err *e)
{
	char text[32] = "", *end = text;
	struct stat st;
	ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? pread(fd, text, sizeof text - 1, 0)
							       : -1;

	*ret_pid = n > 0 ? strtol(text, &end, 10) : 0;
	if (n < 0 || n == sizeof text - 1 || end[strspn(end, " \n")] != '\0' || *ret_pid < 0)
		return err_set(e, ERR_CONFIG,
			"pidfile '%s' is no pidfile: it is left alone, name another one", path);
	return 0;
}

static int open_pidfile(struct supervisor *s, struct err *e)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	const char *path = s->config->pidfile;
	struct stat there, ours;
	long pid = 0;
	int fd;

	if (path[0] == '\0')
		return 0;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
	if (fd < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot open pidfile '%s': %s", path, strerror(errno));
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		(void)read_pidfile(fd, path, &pid, e);
		close(fd);
		return err_set(e, ERR_BUSY,
			"pidfile '%s' is locked: another supervisor runs with it (pid %ld)", path,
			pid);
	}
	/* One that was ending may have removed it between our open and our lock. */
	if (stat(path, &there) < 0 || fstat(fd, &ours) < 0 || there.st_ino != ours.st_ino ||
		there.st_dev != ours.st_dev) {
		close(fd);
		return open_pidfile(s, e);
	}
	if (read_pidfile(fd, path, &pid, e) < 0) {
		close(fd);
		return e->code;
	}
	if (pid > 0)
		logs_event(s->logs, LOGS_INFO, "pidfile.stale", NULL, 0,
			"the pidfile '%s' was left behind by pid %ld: replaced", path, pid);
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
		close(fd);
		return err_set(
			e, ERR_SYSTEM, "cannot write pidfile '%s': %s", path, strerror(errno));
	}
	s->pidfile_fd = fd;
	snprintf(s->pidfile, sizeof s->pidfile, "%s", path);
	return 0;
}

static int up_directories(struct supervisor *s, struct err *e)
{
	const struct config *c = s->config;

	if (c->umask >= 0)
		umask((mode_t)c->umask);
	if (c->directory[0] != '\0' && chdir(c->directory) < 0)
		return err_set(e, ERR_SYSTEM, "cannot change to directory '%s': %s", c->directory,
			strerror(errno));
	return open_pidfile(s, e);
}

static void down_directories(struct supervisor *s)
{
	if (s->pidfile_fd < 0)
		return;
	if (unlink(s->pidfile) < 0) /* only root may write in its folder */
		(void)!ftruncate(s->pidfile_fd, 0);
	close(s->pidfile_fd);
	s->pidfile_fd = -1;
}

static int up_log(struct supervisor *s, struct err *e)
{
	enum logs_level level = LOGS_INFO;

	(void)logs_level_parse(s->config->loglevel, &level);
	if (logs_configure(s->logs, s->config->logfile, s->config->log_format, level, e) < 0)
		return e->code;
	privileges_report(s);
	grace_report(s);
	return 0;
}

/* --- control ------------------------------------------------------------------------------- */
/* Whole: the supervisor changes its directory, and its workers have their own. */
static void set_control_path(struct supervisor *s, const char *path)
{
	char here[PATH_MAX];

	if (path[0] == '/' || path[0] == '@' || getcwd(here, sizeof here) == NULL)
		snprintf(s->control_path, sizeof s->control_path, "%s", path);
	else
		snprintf(s->control_path, sizeof s->control_path, "%s/%s", here, path);
}

/* Whoever has a folder of its own below /run/baton must not keep root's instance from starting. */
static bool is_trusted(const struct supervisor *s, const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	       (st.st_uid == 0 || st.st_uid == geteuid() ||
		       (s->config->user.set && st.st_uid == s->config->user.uid));
}

int stages_choose_control(
	struct supervisor *s, const char *config_path, const char *given, struct err *e)
{
	char others[OTHERS][CONFIG_CONTROL_BYTES], who[128];
	size_t count;
	pid_t pid;

	s->control_overridden = given != NULL;
	if (given != NULL) {
		set_control_path(s, given);
		return 0;
	}
	if (config_control_path(
		    s->config, config_path, s->control_path, sizeof s->control_path, e) < 0)
		return e->code;
	count = config_control_others(config_path, s->control_path, others, OTHERS);
	for (size_t i = 0; i < count; i++) {
		if (is_trusted(s, others[i]) &&
			unixsock_probe(others[i], SOCK_STREAM, &pid) == UNIXSOCK_LIVING)
			return err_set(e, ERR_BUSY,
				"cannot start: an instance of this file runs already, %s, with "
				"the control socket '%s' ('control' or 'user' was another when it "
				"was started): `baton shutdown -s %s` ends it, `run -s OTHER` "
				"starts a second one",
				unixsock_process(pid, who, sizeof who), others[i], others[i]);
	}
	return 0;
}

static int up_control(struct supervisor *s, struct err *e)
{
	struct control_handlers h;

	if (commands_create(s, &h) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	if (control_open(s->loop, s->control_path, s->config->control_mode,
		    &s->config->control_owner, s->instance, &h, &s->control, e) < 0) {
		if (e->code == ERR_BUSY)
			snprintf(e->text + strlen(e->text), sizeof e->text - strlen(e->text),
				"; `baton status -s %s` shows that instance, `run -s OTHER` starts "
				"a "
				"second one",
				s->control_path);
		return e->code;
	}
	return notify_open(s->loop, s->instance, channel_notified, s, &s->notify, e);
}

static void down_control(struct supervisor *s)
{
	notify_close(s->notify);
	s->notify = NULL;
	if (s->control != NULL)
		control_server_close(s->control);
	s->control = NULL;
}

/* A clean-up of /tmp or /run may have taken the control socket's file: brought back by HUP and
 * at heartbeats. */
void stages_mend_control(struct supervisor *s)
{
	struct err e;

	if (s->control == NULL || control_path_intact(s->control))
		return;
	if (control_rebind(s->control, &e) < 0)
		logs_event(s->logs, LOGS_ERROR, "control.lost", NULL, 0,
			"the control socket's file is gone and cannot be made again: %s", e.text);
	else
		logs_event(s->logs, LOGS_WARNING, "control.mended", NULL, 0,
			"the control socket '%s' had been removed: made again", s->control_path);
}

/* --- up and down --------------------------------------------------------------------------- */
static int bring_up(struct supervisor *s, int stage, struct err *e)
{
	switch ((enum core_stage)stage) {
	case STAGE_DIRECTORIES:
		return up_directories(s, e);
	case STAGE_LOG:
		return up_log(s, e);
	case STAGE_CONTROL:
		return up_control(s, e);
	case STAGE_SOCKETS:
		return listeners_open(s, s->config, e);
	case STAGE_GUARDIAN:
		return lock_stage_deadman(s, e);
	case STAGE_DATABASE:
		return lock_stage_database(s, e);
	default:
		return 0; /* the core's own, or done before the loop */
	}
}

void stages_up(struct supervisor *s, int stage)
{
	struct event e = {.kind = EVENT_STAGE, .worker = -1, .program = -1, .stage = stage};
	struct err err;

	e.ok = bring_up(s, stage, &err) >= 0;
	if (!e.ok) {
		if (privileges_dropped && strstr(err.text, strerror(EACCES)) != NULL)
			snprintf(err.text + strlen(err.text), sizeof err.text - strlen(err.text),
				"; baton runs as user '%s' here ([baton] user): give it that "
				"folder",
				s->config->user.name);
		logs_event(s->logs, LOGS_ERROR, "supervisor.stage_failed", NULL, 0,
			"cannot start (%s): %s", stage_name((enum core_stage)stage), err.text);
		if (stage > STAGE_LOG)
			detach_tell(s, err.text);
		else
			detach_say(s, err.text);
		e.number = err.code == ERR_CONFIG ? 78 : 1;
		s->stage_status = (int)e.number;
	}
	supervisor_post(s, &e);
}

void stages_down(struct supervisor *s, int stage)
{
	switch ((enum core_stage)stage) {
	case STAGE_PROGRAMS:
		strays_end(s);
		break;
	case STAGE_DIRECTORIES:
		down_directories(s);
		break;
	case STAGE_CONTROL:
		down_control(s);
		break;
	case STAGE_SOCKETS:
		listeners_close(s);
		break;
	case STAGE_GUARDIAN:
		lock_stage_deadman_down(s);
		break;
	case STAGE_DATABASE:
		lock_stage_database_down(s);
		break;
	default:
		break;
	}
}

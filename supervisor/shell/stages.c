/* The start-up stages: what each brings up and takes down. The order is the core's. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

/* --- configuration, directories, log ------------------------------------------------------- */
static int open_pidfile(struct supervisor *s, struct err *e)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	const char *path = s->config->pidfile;
	int fd;

	if (path[0] == '\0')
		return 0;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot open pidfile '%s': %s", path, strerror(errno));
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		close(fd);
		return err_set(e, ERR_BUSY,
			"pidfile '%s' is locked: another supervisor runs with it", path);
	}
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
		close(fd);
		return err_set(e, ERR_SYSTEM, "cannot write pidfile '%s': %s", path, strerror(errno));
	}
	s->pidfile_fd = fd;
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
	(void)unlink(s->config->pidfile);
	close(s->pidfile_fd);
	s->pidfile_fd = -1;
}

static int up_log(struct supervisor *s, struct err *e)
{
	enum logs_level level = LOGS_INFO;

	(void)logs_level_parse(s->config->loglevel, &level);
	return logs_configure(s->logs, s->config->logfile, s->config->log_format, level, e);
}

/* --- control ------------------------------------------------------------------------------- */
static int up_control(struct supervisor *s, struct err *e)
{
	struct control_handlers h;

	if (commands_create(s, &h) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	if (control_open(s->loop, s->control_path, s->config->control_mode,
		    &s->config->control_owner, s->instance, &h, &s->control, e) < 0) {
		if (e->code == ERR_BUSY)
			snprintf(e->text + strlen(e->text), sizeof e->text - strlen(e->text),
				"; `baton status -s %s` shows that instance, `run -s OTHER` starts a "
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

/* --- sockets ------------------------------------------------------------------------------- */
struct listener_slot *stages_listener(struct supervisor *s, const char *name)
{
	for (size_t i = 0; i < s->listener_count; i++) {
		if (strcmp(s->listeners[i].name, name) == 0)
			return &s->listeners[i];
	}
	return NULL;
}

static bool same_listen(const struct config_socket *a, const struct config_socket *b)
{
	return strcmp(a->listen, b->listen) == 0;
}

static int open_one(struct supervisor *s, const struct config_socket *c, struct err *e)
{
	struct listener_slot *more, *l = stages_listener(s, c->name);
	struct listener opened;

	if (l != NULL && same_listen(l->settings, c)) {
		l->used = true;
		return 0;
	}
	if (listener_open(&opened, c, e) < 0)
		return err_prefix(e, "[socket:%s]", c->name);
	if (l == NULL) {
		more = realloc(s->listeners, (s->listener_count + 1) * sizeof *more);
		if (more == NULL) {
			listener_close(&opened);
			return err_set(e, ERR_SYSTEM, "out of memory");
		}
		s->listeners = more;
		l = &more[s->listener_count++];
		memset(l, 0, sizeof *l);
		snprintf(l->name, sizeof l->name, "%s", c->name);
	} else {
		listener_close(&l->listener);
	}
	l->listener = opened;
	l->settings = c;
	l->used = true;
	logs_event(s->logs, LOGS_INFO, "socket.open", NULL, 0, "listening on %s (%s)",
		opened.url[0] != '\0' ? opened.url : opened.text, c->name);
	return 0;
}

/* Opens what is new before anything is closed; on an error what was there stays as it was. */
int stages_open_sockets(struct supervisor *s, const struct config *c, struct err *e)
{
	for (size_t i = 0; i < s->listener_count; i++)
		s->listeners[i].used = false;
	for (size_t i = 0; i < c->socket_count; i++) {
		if (open_one(s, &c->sockets[i], e) < 0)
			return e->code;
	}
	return 0;
}

/* After a reload: the settings of the new snapshot; what nobody names any more is closed. */
void stages_close_unused(struct supervisor *s)
{
	for (size_t i = 0; i < s->listener_count;) {
		int found = config_find_socket(s->config, s->listeners[i].name);

		if (found >= 0) {
			s->listeners[i++].settings = &s->config->sockets[found];
			continue;
		}
		listener_close(&s->listeners[i].listener);
		s->listeners[i] = s->listeners[--s->listener_count];
	}
}

static void down_sockets(struct supervisor *s)
{
	for (size_t i = 0; i < s->listener_count; i++)
		listener_close(&s->listeners[i].listener);
	s->listener_count = 0;
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
		return stages_open_sockets(s, s->config, e);
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
		logs_event(s->logs, LOGS_ERROR, "supervisor.stage_failed", NULL, 0,
			"cannot start (%s): %s", stage_name((enum core_stage)stage), err.text);
		e.number = 1;
		s->stage_status = 1;
	}
	supervisor_post(s, &e);
}

void stages_down(struct supervisor *s, int stage)
{
	switch ((enum core_stage)stage) {
	case STAGE_DIRECTORIES:
		down_directories(s);
		break;
	case STAGE_CONTROL:
		down_control(s);
		break;
	case STAGE_SOCKETS:
		down_sockets(s);
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

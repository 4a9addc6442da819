/*
 * [baton] user: root is needed for the listeners alone. Order: listeners are bound; the folder of
 * the control socket, the pidfile and the log file are made and given to the user, where only root
 * could make them; root is given up for good; everything else (pidfile, log, control socket,
 * database, workers) is opened by the user, and so can be opened again by the user, after a
 * rotation or a reload.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

bool privileges_needed(const struct config *c)
{
	const struct config_user *u = &c->user;

	return u->set && (u->uid != geteuid() || (u->group_set && u->gid != getegid()));
}

/* --- what only root can make --------------------------------------------------------------- */
static bool is_roots_alone(int folder)
{
	struct stat st;

	return fstat(folder, &st) == 0 && st.st_uid == 0 && (st.st_mode & 022) == 0;
}

/* In a folder that others can write nothing is touched: its names may be theirs. There the user can
 * make the file, or the start says that it cannot. */
static void give_file(const char *path, const struct config_user *u)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_MAX];
	struct stat st;
	int at, fd;

	if (slash == NULL || strncmp(path, "/dev/", 5) == 0)
		return;
	snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return;
	if (is_roots_alone(at)) {
		fd = openat(at, slash + 1, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
			0644);
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
			st.st_uid == 0)
			(void)!fchown(fd, u->uid, u->gid);
		if (fd >= 0)
			close(fd);
	}
	close(at);
}

/* /run/baton/USER, for the control socket that config_control_path names. */
static int give_control_folder(const char *control, const struct config_user *u, struct err *e)
{
	char folder[PATH_MAX];
	struct stat st;

	snprintf(folder, sizeof folder, "/run/baton/%s", u->name);
	if (strncmp(control, folder, strlen(folder)) != 0 || control[strlen(folder)] != '/')
		return 0;
	if ((mkdir("/run/baton", 0755) != 0 && errno != EEXIST) ||
		(mkdir(folder, 0755) != 0 && errno != EEXIST))
		return err_set(
			e, ERR_SYSTEM, "cannot make folder '%s': %s", folder, strerror(errno));
	if (lstat(folder, &st) != 0 || !S_ISDIR(st.st_mode) ||
		(st.st_uid != 0 && st.st_uid != u->uid))
		return err_set(e, ERR_WRONG, "folder '%s' belongs to somebody else", folder);
	if (lchown(folder, u->uid, u->gid) != 0)
		return err_set(e, ERR_SYSTEM, "cannot give folder '%s' to user '%s': %s", folder,
			u->name, strerror(errno));
	return 0;
}

/* --- giving up ----------------------------------------------------------------------------- */
static int clear_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return (int)syscall(SYS_capset, &header, none);
}

static int become(const struct config_user *u, struct err *e)
{
	gid_t groups[1024];
	int count = 1024;
	uid_t r, ef, s;

	if (getgrouplist(u->name, u->gid, groups, &count) < 0 && count > 1024)
		count = 1024;
	if (setgroups((size_t)count, groups) != 0 || setresgid(u->gid, u->gid, u->gid) != 0 ||
		setresuid(u->uid, u->uid, u->uid) != 0 ||
		(u->uid != 0 && clear_capabilities() != 0))
		return err_set(e, ERR_REFUSED, "cannot become user '%s' ([baton] user): %s",
			u->name, strerror(errno));
	if (getresuid(&r, &ef, &s) != 0 || r != u->uid || ef != u->uid || s != u->uid ||
		(u->uid != 0 && setuid(0) == 0))
		return err_set(e, ERR_REFUSED, "user '%s' still has the rights of root", u->name);
	/* Whoever changes its user is hidden from itself in /proc until told otherwise. */
	(void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	return 0;
}

static void set_environment(const struct config *c)
{
	if (c->mode != CONFIG_NATIVE)
		return; /* as supervisord: the environment stays */
	(void)setenv("HOME", c->user.home, 1);
	(void)setenv("USER", c->user.name, 1);
	(void)setenv("LOGNAME", c->user.name, 1);
}

int privileges_drop(struct supervisor *s, struct err *e)
{
	const struct config *c = s->config;

	if (geteuid() != 0)
		return err_set(e, ERR_REFUSED,
			"only root can become another user: start baton as root, as user '%s', or "
			"take [baton] user out",
			c->user.name);
	if (listeners_open(s, c, e) < 0 || give_control_folder(s->control_path, &c->user, e) < 0)
		return e->code;
	give_file(c->pidfile, &c->user);
	give_file(c->logfile, &c->user);
	if (become(&c->user, e) < 0)
		return e->code;
	privileges_dropped = s->root_given_up = c->user.uid != 0;
	set_environment(c);
	return 0;
}

/* What a reload or the end will not be able to do, said while somebody looks. */
void privileges_report(struct supervisor *s)
{
	const char *name = s->config->user.name;

	if (!privileges_dropped)
		return;
	logs_event(s->logs, LOGS_INFO, "supervisor.user", NULL, 0,
		"running as user '%s' (uid %d): root was given up once the sockets were bound",
		name, (int)geteuid());
	if (s->config_text == NULL && access(s->config_path, R_OK) != 0)
		logs_event(s->logs, LOGS_WARNING, "supervisor.user", NULL, 0,
			"user '%s' cannot read '%s': a reload will fail until it can", name,
			s->config_path);
	for (size_t i = 0; i < s->listener_count; i++) {
		const char *path = s->listeners[i].listener.path, *slash = strrchr(path, '/');
		char folder[PATH_MAX];

		if (slash == NULL || s->listeners[i].inherited)
			continue;
		snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path),
			path);
		if (access(folder, W_OK) == 0)
			continue;
		logs_event(s->logs, LOGS_WARNING, "supervisor.user", NULL, 0,
			"user '%s' cannot write in '%s': the socket '%s' cannot be brought back "
			"when it is removed, and is left there at the end (the next start "
			"replaces it)",
			name, folder, path);
	}
}

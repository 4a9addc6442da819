/* Where the control socket of a file is, so that the commands find what `run` made. */
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "conf/config.h"
#include "conf/reader.h"

enum { HASH_DIGITS = 12 };

static int too_long(struct err *e, const char *path, size_t bytes)
{
	return err_set(e, ERR_LIMIT,
		"control socket '%.200s': the path is %zu bytes long, a unix socket can have %zu; "
		"set 'control' in [baton] to a shorter one",
		path, bytes, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
}

static int give(const char *path, char *buf, size_t bytes, struct err *e)
{
	size_t length = strlen(path);

	if (length >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return too_long(e, path, length);
	if (length >= bytes)
		return err_set(e, ERR_LIMIT, "control socket '%.200s': no room for the path", path);
	memcpy(buf, path, length + 1);
	return 0;
}

/* A directory counts when this user can make the socket there, or when it is there already. */
static bool is_usable(const char *folder, const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	if (!folder || folder[0] != '/' || stat(folder, &st) < 0 || !S_ISDIR(st.st_mode))
		return false;
	if (access(folder, W_OK | X_OK) == 0)
		return true;
	return snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path) &&
	       stat(path, &st) == 0;
}

static uint64_t hash(const char *s)
{
	uint64_t h = 14695981039346656037u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 1099511628211u;
	return h & ((UINT64_C(1) << 4 * HASH_DIGITS) - 1);
}

/* The absolute path, so that the same file gives the same socket from every directory. */
static const char *real(const char *path, char buf[PATH_MAX])
{
	char cwd[PATH_MAX];

	if (reader_is_descriptor(path))
		path = "stdin";
	else if (realpath(path, buf))
		return buf;
	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return path;
	if (snprintf(buf, PATH_MAX, "%s/%s", cwd, path) >= PATH_MAX)
		return path;
	return buf;
}

static void make_name(const char *path, char *buf, size_t bytes)
{
	char absolute[PATH_MAX];
	const char *slash;

	path = real(path, absolute);
	slash = strrchr(path, '/');
	snprintf(buf, bytes, "%s-%0*llx.sock", slash ? slash + 1 : path, HASH_DIGITS,
		(unsigned long long)hash(path));
}

static const char *runtime_directory(char *buf, size_t bytes)
{
	const char *all = getenv("RUNTIME_DIRECTORY"); /* of several the first */

	snprintf(buf, bytes, "%.*s", all ? (int)strcspn(all, ":") : 0, all ? all : "");
	return buf;
}

static const char *temporary(char *buf, size_t bytes)
{
	snprintf(buf, bytes, "/tmp/baton-%lu", (unsigned long)geteuid());
	return buf;
}

int config_control_path(
	const struct config *c, const char *path, char *buf, size_t bytes, struct err *e)
{
	char name[PATH_MAX + 32], socket[2 * PATH_MAX + 64], last[64];
	char first[PATH_MAX], of_user[PATH_MAX];
	const char *folder;

	if (c && c->control && c->control[0])
		return give(c->control, buf, bytes, e);
	make_name(path, name, sizeof(name));
	snprintf(of_user, sizeof(of_user), "/run/baton/%s", c && c->user.name ? c->user.name : "");
	if (is_usable(runtime_directory(first, sizeof(first)), name))
		folder = first;
	else if (c && c->user.set && c->user.uid != 0 &&
		 (geteuid() == 0 || is_usable(of_user, name)))
		folder = of_user; /* root makes it before it becomes that user */
	else if (geteuid() == 0 || is_usable("/run/baton", name))
		folder = "/run/baton"; /* root makes it when it is missing */
	else if (is_usable(getenv("XDG_RUNTIME_DIR"), name))
		folder = getenv("XDG_RUNTIME_DIR");
	else
		folder = temporary(last, sizeof(last));
	snprintf(socket, sizeof(socket), "%s/%s", folder, name);
	return give(socket, buf, bytes, e);
}

/* --- elsewhere ------------------------------------------------------------------------------- */

struct others {
	const char *name, *except;
	char (*paths)[CONFIG_CONTROL_BYTES];
	size_t count, most;
};

static void look(struct others *o, const char *folder)
{
	char path[CONFIG_CONTROL_BYTES];
	struct stat st;

	if (!folder || folder[0] != '/' || o->count == o->most ||
		snprintf(path, sizeof(path), "%s/%s", folder, o->name) >= (int)sizeof(path) ||
		strcmp(path, o->except) == 0 || lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	for (size_t i = 0; i < o->count; i++) {
		if (strcmp(o->paths[i], path) == 0)
			return;
	}
	strcpy(o->paths[o->count++], path);
}

/* Anybody may make a folder of that name in /tmp. */
static bool is_own(const char *folder)
{
	struct stat st;

	return lstat(folder, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

size_t config_control_others(
	const char *path, const char *except, char (*ret)[CONFIG_CONTROL_BYTES], size_t most)
{
	char name[PATH_MAX + 32], folder[PATH_MAX];
	struct others o = {.name = name, .except = except, .paths = ret, .most = most};
	struct dirent *d;
	DIR *users;

	make_name(path, name, sizeof(name));
	look(&o, runtime_directory(folder, sizeof(folder)));
	look(&o, "/run/baton");
	users = opendir("/run/baton");
	while (users && (d = readdir(users)) != NULL) {
		if (d->d_name[0] != '.' && snprintf(folder, sizeof(folder), "/run/baton/%s",
						   d->d_name) < (int)sizeof(folder))
			look(&o, folder);
	}
	if (users)
		closedir(users);
	look(&o, getenv("XDG_RUNTIME_DIR"));
	if (is_own(temporary(folder, sizeof(folder))))
		look(&o, folder);
	return o.count;
}

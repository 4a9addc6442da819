/* Where the control socket of a file is, so that the commands find what `run` made. */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "conf/config.h"

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

	if (realpath(path, buf))
		return buf;
	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return path;
	if (snprintf(buf, PATH_MAX, "%s/%s", cwd, path) >= PATH_MAX)
		return path;
	return buf;
}

int config_control_path(
	const struct config *c, const char *path, char *buf, size_t bytes, struct err *e)
{
	char absolute[PATH_MAX], name[PATH_MAX + 32], socket[2 * PATH_MAX + 64], temporary[64];
	const char *slash, *folder, *runtime = getenv("RUNTIME_DIRECTORY");
	char first[PATH_MAX], of_user[PATH_MAX];

	if (c && c->control[0])
		return give(c->control, buf, bytes, e);
	path = real(path, absolute);
	slash = strrchr(path, '/');
	snprintf(name, sizeof(name), "%s-%0*llx.sock", slash ? slash + 1 : path, HASH_DIGITS,
		(unsigned long long)hash(path));
	snprintf(first, sizeof(first), "%.*s", runtime ? (int)strcspn(runtime, ":") : 0,
		runtime ? runtime : "");
	snprintf(temporary, sizeof(temporary), "/tmp/baton-%lu", (unsigned long)geteuid());
	snprintf(of_user, sizeof(of_user), "/run/baton/%s", c ? c->user.name : "");
	if (is_usable(first, name))
		folder = first;
	else if (c && c->user.set && c->user.uid != 0 &&
		 (geteuid() == 0 || is_usable(of_user, name)))
		folder = of_user; /* root makes it before it becomes that user */
	else if (geteuid() == 0 || is_usable("/run/baton", name))
		folder = "/run/baton"; /* root makes it when it is missing */
	else if (is_usable(getenv("XDG_RUNTIME_DIR"), name))
		folder = getenv("XDG_RUNTIME_DIR");
	else
		folder = temporary;
	snprintf(socket, sizeof(socket), "%s/%s", folder, name);
	return give(socket, buf, bytes, e);
}

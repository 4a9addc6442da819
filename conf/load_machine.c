/* What is looked up on this machine: users, groups, CPUs. */
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/load.h"
#include "conf/lookup.h"
#include "conf/units.h"

/* Looked up once per load: the user database may be slow, and a thousand programs name one user. */
struct user_cache {
	struct user_cache *next;
	const char *name;
	struct config_user user;
};

static bool look_up_user(struct loader *l, const char *name, struct config_user *ret_user)
{
	const struct lookup *u;
	int64_t number;
	bool numeric = units_integer(name, &number, NULL) == 0;

	memset(ret_user, 0, sizeof(*ret_user));
	ret_user->set = true;
	ret_user->name = ret_user->home = "";
	if (numeric && (number < 0 || number >= UINT_MAX))
		return false;
	u = lookup(numeric ? LOOKUP_UID : LOOKUP_USER, 0, name);
	if (!u) /* whoever asked loads again when it is known */
		return true;
	ret_user->uid = u->uid;
	ret_user->gid = u->gid;
	ret_user->name = arena_strdup(l->arena, u->name);
	ret_user->home = arena_strdup(l->arena, u->home);
	return u->found;
}

bool load_group(struct loader *l, const struct ini_section *section, const struct setting *s,
	const char *text, gid_t *ret_gid)
{
	int64_t number;
	const struct lookup *gr;

	if (units_integer(text, &number, NULL) == 0 && number >= 0 && number < UINT_MAX) {
		*ret_gid = (gid_t)number;
		return true;
	}
	gr = lookup(LOOKUP_GROUP, 0, text);
	if (gr && !gr->found) {
		load_report(
			l, false, section, s, "there is no group '%.100s' on this machine", text);
		return false;
	}
	*ret_gid = gr ? gr->gid : 0;
	return true;
}

bool load_user(struct loader *l, const struct ini_section *section, const struct setting *s,
	const char *text, bool with_group, struct config_user *ret_user)
{
	const char *colon = with_group ? strchr(text, ':') : NULL;
	const char *name = colon ? arena_strndup(l->arena, text, (size_t)(colon - text)) : text;
	struct user_cache *c;
	struct config_user user;

	if (!text[0] && l->native)
		return true; /* as if it were not there */
	for (c = l->users; c && strcmp(c->name, name) != 0; c = c->next)
		;
	if (!c) {
		if (!look_up_user(l, name, &user)) {
			const char *why = user.home;
			load_report(l, false, section, s,
				why[0] ? "cannot look up user '%.100s': %s"
				       : "there is no user '%.100s' on this machine",
				name, why);
			return false;
		}
		c = arena_zero(l->arena, sizeof(*c));
		c->name = name;
		c->user = user;
		c->next = l->users;
		l->users = c;
	}
	user = c->user;
	if (colon) {
		if (!load_group(l, section, s, colon + 1, &user.gid))
			return false;
		user.group_set = true;
	}
	*ret_user = user;
	return true;
}

/* --- CPUs ------------------------------------------------------------------------------------ */

static bool read_file(const char *path, char *buf, size_t bytes)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		return false;
	n = fread(buf, 1, bytes - 1, f);
	fclose(f);
	buf[n] = '\0';
	return n > 0;
}

static int quota_cpus(long long quota, long long period)
{
	long long cpus = period > 0 && quota > 0 ? (quota + period - 1) / period : INT_MAX;

	return cpus < 1 ? 1 : cpus > INT_MAX ? INT_MAX : (int)cpus;
}

static int quota_at(bool version_2, const char *folder)
{
	char path[PATH_MAX + 64], text[64];
	long long quota = -1, period = -1;

	if (version_2) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", folder);
		if (!read_file(path, text, sizeof(text)) ||
			sscanf(text, "%lld %lld", &quota, &period) != 2)
			return INT_MAX;
		return quota_cpus(quota, period);
	}
	snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", folder);
	if (!read_file(path, text, sizeof(text)))
		return INT_MAX;
	quota = strtoll(text, NULL, 10);
	snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", folder);
	if (read_file(path, text, sizeof(text)))
		period = strtoll(text, NULL, 10);
	return quota_cpus(quota, period);
}

/* The least quota from the group FOLDER up to the root: in a container the file of the root is the
 * container's own. */
static int quota_above(bool version_2, const char *folder)
{
	char path[PATH_MAX];
	int least;
	char *slash;

	snprintf(path, sizeof(path), "%s", strcmp(folder, "/") == 0 ? "" : folder);
	least = quota_at(version_2, path);
	while ((slash = strrchr(path, '/')) != NULL) {
		int cpus;
		*slash = '\0';
		cpus = quota_at(version_2, path);
		if (cpus < least)
			least = cpus;
	}
	return least;
}

static int cgroup_cpus(void)
{
	char text[16384], *line, *rest = text;
	int least = INT_MAX;

	if (!read_file("/proc/self/cgroup", text, sizeof(text)))
		return least;
	while ((line = strsep(&rest, "\n")) != NULL) {
		char *controllers = strchr(line, ':'), *folder;
		bool version_2;
		int cpus;
		folder = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!folder)
			continue;
		*folder++ = '\0';
		controllers++;
		version_2 = controllers[0] == '\0';
		if (!version_2 && strcmp(controllers, "cpu") != 0 && !strstr(controllers, "cpu,") &&
			!strstr(controllers, ",cpu"))
			continue;
		cpus = quota_above(version_2, folder);
		if (cpus < least)
			least = cpus;
	}
	return least;
}

int load_cpus(void)
{
	cpu_set_t *set = CPU_ALLOC(8192);
	size_t bytes = CPU_ALLOC_SIZE(8192);
	int cpus = 1, quota = cgroup_cpus();

	if (set && sched_getaffinity(0, bytes, set) == 0)
		cpus = CPU_COUNT_S(bytes, set);
	CPU_FREE(set);
	if (quota < cpus)
		cpus = quota;
	return cpus < 1 ? 1 : cpus;
}

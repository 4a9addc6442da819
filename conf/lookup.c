#include "conf/lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Long enough for the attempt that follows an answer, short enough for who mends something and
 * tries again. */
enum { FOUND_S = 5, NOT_FOUND_S = 2, MOST_GROUPS = 1024, LINE_BYTES = 16384 };

static struct lookup *all;
static bool must_not_wait;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void lookup_may_wait(bool waits)
{
	must_not_wait = !waits;
}

static bool is_fresh(const struct lookup *l)
{
	int64_t fresh_s = l->found ? FOUND_S : NOT_FOUND_S;

	return l->known && now_ns() - l->known_ns < fresh_s * 1000000000;
}

static struct lookup *entry(enum lookup_kind kind, int family, const char *name)
{
	struct lookup *l;

	for (l = all; l; l = l->next) {
		if (l->kind == kind && l->family == family && strcmp(l->asked, name) == 0)
			return l;
	}
	l = calloc(1, sizeof(*l));
	if (!l || !(l->asked = strdup(name)))
		abort();
	l->kind = kind;
	l->family = family;
	l->next = all;
	all = l;
	return l;
}

/* --- asking ---------------------------------------------------------------------------------- */

/* An answer is one line: found, uid, gid, addresses, group,group,... and three texts between tabs.
 */
struct answer {
	bool found;
	uid_t uid;
	gid_t gid;
	int addresses;
	char groups[LINE_BYTES / 2];
	char name[1024], home[1024];
};

static void ask_user(const struct lookup *l, struct answer *a)
{
	const struct passwd *pw = l->kind == LOOKUP_UID
					  ? getpwuid((uid_t)strtoul(l->asked, NULL, 10))
					  : getpwnam(l->asked);
	gid_t groups[MOST_GROUPS];
	int count = MOST_GROUPS, used = 0;

	if (!pw)
		return;
	a->found = true;
	a->uid = pw->pw_uid;
	a->gid = pw->pw_gid;
	snprintf(a->name, sizeof(a->name), "%s", pw->pw_name);
	snprintf(a->home, sizeof(a->home), "%s", pw->pw_dir);
	if (getgrouplist(a->name, a->gid, groups, &count) < 0 && count > MOST_GROUPS)
		count = MOST_GROUPS;
	for (int i = 0; i < count && used < (int)sizeof(a->groups) - 16; i++)
		used += snprintf(
			a->groups + used, 16, "%s%lu", i ? "," : "", (unsigned long)groups[i]);
}

static void ask_host(const struct lookup *l, struct answer *a)
{
	struct addrinfo hints = {.ai_family = l->family, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int rc = getaddrinfo(l->asked, NULL, &hints, &list);

	/* A name without an IPv4 address may have another. */
	if (rc != 0 && l->family == AF_INET) {
		hints.ai_family = AF_INET6;
		if (getaddrinfo(l->asked, NULL, &hints, &list) == 0)
			rc = 0;
	}
	if (rc != 0) {
		snprintf(a->home, sizeof(a->home), "%s",
			rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		return;
	}
	for (const struct addrinfo *i = list; i; i = i->ai_next)
		a->addresses++;
	a->found = getnameinfo(list->ai_addr, list->ai_addrlen, a->name, sizeof(a->name), NULL, 0,
			   NI_NUMERICHOST) == 0;
	freeaddrinfo(list);
}

static void ask(const struct lookup *l, struct answer *a)
{
	const struct group *gr;

	memset(a, 0, sizeof(*a));
	switch (l->kind) {
	case LOOKUP_USER:
	case LOOKUP_UID:
		ask_user(l, a);
		break;
	case LOOKUP_GROUP:
		gr = getgrnam(l->asked);
		a->found = gr != NULL;
		a->gid = gr ? gr->gr_gid : 0;
		break;
	case LOOKUP_HOST:
		ask_host(l, a);
		break;
	}
}

/* --- knowing --------------------------------------------------------------------------------- */

static void learn_groups(struct lookup *l, const char *text)
{
	free(l->groups);
	l->groups = NULL;
	l->group_count = 0;
	if (!*text)
		return;
	l->groups = calloc(MOST_GROUPS, sizeof(*l->groups));
	while (l->groups && l->group_count < MOST_GROUPS) {
		char *end;
		l->groups[l->group_count++] = (gid_t)strtoul(text, &end, 10);
		if (*end != ',')
			break;
		text = end + 1;
	}
}

static void learn(struct lookup *l, const struct answer *a)
{
	l->known = true;
	l->missing = l->sent = false;
	l->known_ns = now_ns();
	l->found = a->found;
	l->uid = a->uid;
	l->gid = a->gid;
	l->addresses = a->addresses;
	learn_groups(l, a->groups);
	free(l->name);
	free(l->home);
	l->name = strdup(a->name);
	l->home = strdup(a->home);
	if (!l->name || !l->home)
		abort();
}

const struct lookup *lookup(enum lookup_kind kind, int family, const char *name)
{
	struct lookup *l = entry(kind, family, name);
	static struct answer a;

	if (is_fresh(l))
		return l;
	l->known = false;
	l->missing = true;
	if (must_not_wait)
		return NULL;
	ask(l, &a);
	learn(l, &a);
	return l;
}

const struct lookup *lookup_known_user(const char *name)
{
	for (const struct lookup *l = all; l; l = l->next) {
		if (l->kind <= LOOKUP_UID && l->found && l->name && strcmp(l->name, name) == 0)
			return l;
	}
	return NULL;
}

/* --- by a child ------------------------------------------------------------------------------ */

size_t lookup_missing(void)
{
	size_t count = 0;

	for (const struct lookup *l = all; l; l = l->next)
		count += l->missing;
	return count;
}

void lookup_forget_missing(void)
{
	for (struct lookup *l = all; l; l = l->next)
		l->missing = false;
}

void lookup_send_missing(void)
{
	for (struct lookup *l = all; l; l = l->next)
		l->sent = l->missing;
}

void lookup_answer_missing(int fd)
{
	static struct answer a;

	for (const struct lookup *l = all; l; l = l->next) {
		if (!l->sent)
			continue;
		ask(l, &a);
		dprintf(fd, "%d %d %d %lu %lu %d %s\t%s\t%s\t%s\n", (int)l->kind, l->family,
			a.found, (unsigned long)a.uid, (unsigned long)a.gid, a.addresses,
			a.groups[0] ? a.groups : "-", l->asked, a.name, a.home);
	}
}

static void learn_line(char *line)
{
	static struct answer a;
	const char *numbers = strsep(&line, "\t"), *asked = strsep(&line, "\t");
	const char *name = strsep(&line, "\t"), *home = strsep(&line, "\t");
	unsigned long uid, gid;
	int kind, family, found;

	memset(&a, 0, sizeof(a));
	if (!home || sscanf(numbers, "%d %d %d %lu %lu %d %8191s", &kind, &family, &found, &uid,
			     &gid, &a.addresses, a.groups) != 7)
		return;
	a.found = found != 0;
	a.uid = (uid_t)uid;
	a.gid = (gid_t)gid;
	if (a.groups[0] == '-')
		a.groups[0] = '\0';
	snprintf(a.name, sizeof(a.name), "%s", name);
	snprintf(a.home, sizeof(a.home), "%s", home);
	for (struct lookup *l = all; l; l = l->next) {
		if (l->sent && (int)l->kind == kind && l->family == family &&
			strcmp(l->asked, asked) == 0)
			learn(l, &a);
	}
}

void lookup_learn(char *text, const char *why)
{
	static struct answer none;
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n")) && rest)
		learn_line(line);
	memset(&none, 0, sizeof(none));
	snprintf(none.home, sizeof(none.home), "%s", why);
	for (struct lookup *l = all; l; l = l->next) {
		if (l->sent)
			learn(l, &none);
	}
}

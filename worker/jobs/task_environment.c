/* What a command finds: its environment, and the places where its program may lie. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/jobs/runner_internal.h"
#include "worker/tree.h"

static void add_extra(struct task_extra *x, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void add_extra(struct task_extra *x, const char *key, const char *format, ...)
{
	char *at = x->texts[x->count++];
	size_t used = (size_t)snprintf(at, sizeof x->texts[0], "%s=", key);
	va_list args;

	va_start(args, format);
	vsnprintf(at + used, sizeof x->texts[0] - used, format, args);
	va_end(args);
}

/* RFC 3339 in UTC, with fractions only where there are some. */
static void print_time(int64_t us, char buf[40])
{
	time_t seconds = (time_t)(us / 1000000);
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(buf, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	if (us % 1000000 != 0)
		n += (size_t)snprintf(buf + n, 40 - n, ".%06d", (int)(us % 1000000));
	snprintf(buf + n, 40 - n, "Z");
}

void task_extra(struct runner *r, struct task_extra *x, const struct task *t,
	const struct jobs_run *run, enum ledger_status status)
{
	char when[40];

	const char *mark = getenv(TREE_MARK);

	x->count = 0;
	print_time(run->fire_us, when);
	if (mark != NULL) /* the job worker's: what is killed with it */
		add_extra(x, TREE_MARK, "%s", mark);
	add_extra(x, "BATON_JOB", "%s", t->definition->name);
	add_extra(x, "BATON_FIRE_TIME", "%s", when);
	add_extra(x, "BATON_TERM", "%llu", (unsigned long long)r->machine.term);
	add_extra(x, "BATON_ATTEMPT", "%d", run->attempt);
	snprintf(x->texts[x->count++], sizeof x->texts[0], "%s", t->tag);
	if (!t->hook) {
		add_extra(x, "BATON_EXECUTOR", "1");
		return;
	}
	add_extra(x, "BATON_STATUS", "%s", ledger_status_name(status));
	if (run->signal != 0)
		add_extra(x, "BATON_EXIT", "%d", 128 + run->signal);
	else if (run->code >= 0)
		add_extra(x, "BATON_EXIT", "%d", run->code);
}

static bool has_key(char **list, size_t count, const char *pair)
{
	size_t n = strcspn(pair, "=") + 1;

	for (size_t i = 0; i < count; i++) {
		if (strncmp(list[i], pair, n) == 0)
			return true;
	}
	return false;
}

char **task_environment(struct runner *r, struct task_extra *x, const struct job_definition *d)
{
	char **sources[] = {d->environment, r->environment}, **env;
	size_t n = 0, room = (size_t)x->count + 1;

	for (int k = 0; k < 2; k++) {
		for (char **p = sources[k]; *p != NULL; p++)
			room++;
	}
	env = calloc(room, sizeof *env);
	if (env == NULL)
		return NULL;
	for (int i = 0; i < x->count; i++)
		env[n++] = x->texts[i];
	for (int k = 0; k < 2; k++) {
		for (char **p = sources[k]; *p != NULL; p++) {
			if (!has_key(env, n, *p))
				env[n++] = *p;
		}
	}
	return env;
}

void task_paths(struct task_paths *p, const char *name, char **env)
{
	const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	size_t used = 0;
	int n = 0;

	if (strchr(name, '/') != NULL) {
		p->list[0] = (char *)name;
		p->list[1] = NULL;
		return;
	}
	for (; *env != NULL; env++) {
		if (strncmp(*env, "PATH=", 5) == 0 && (*env)[5] != '\0')
			path = *env + 5;
	}
	while (n < TASK_PATHS) {
		size_t bytes = strcspn(path, ":");
		int w = snprintf(p->bytes + used, sizeof p->bytes - used, "%.*s%s%s", (int)bytes,
			path, bytes > 0 ? "/" : "./", name);

		if (w < 0 || used + (size_t)w + 1 >= sizeof p->bytes)
			break;
		p->list[n++] = p->bytes + used;
		used += (size_t)w + 1;
		if (path[bytes] == '\0')
			break;
		path += bytes + 1;
	}
	p->list[n] = NULL;
}

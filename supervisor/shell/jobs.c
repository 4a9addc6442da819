/*
 * The job worker's configuration. It asks by the control socket when it starts and whenever it is
 * told of a reload, and gets all jobs with every value expanded, in one JSON document. Read by
 * worker/jobs/definition.c.
 */
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/shell/commands.h"

/* Verbs on the channel. */
#define RECONFIGURE "jobs-config\n" /* ask again */
#define NO_JOBS     "jobs-none\n"   /* the file has none any more */

static void put_text(json_t *o, const char *key, const char *text)
{
	json_t *value = json_string(text);

	/* A value that is not UTF-8 is passed on byte by byte. */
	if (value == NULL) {
		value = json_array();
		for (const char *p = text; *p != '\0'; p++)
			json_array_append_new(value, json_integer((unsigned char)*p));
	}
	json_object_set_new(o, key, value);
}

static void put_number(json_t *o, const char *key, int64_t number)
{
	json_object_set_new(o, key, json_integer((json_int_t)number));
}

static json_t *text_list(const char *const *texts)
{
	json_t *list = json_array(), *holder = json_object();

	for (; texts != NULL && *texts != NULL; texts++) {
		put_text(holder, "", *texts);
		json_array_append(list, json_object_get(holder, ""));
	}
	json_decref(holder);
	return list;
}

static json_t *pairs_of(const struct config_job *j)
{
	json_t *o = json_object();

	for (size_t i = 0; i < j->environment_count; i++)
		put_text(o, j->environment[i].key, j->environment[i].value);
	return o;
}

static json_t *limits_of(const struct supervisor *s, const struct config_job *j)
{
	json_t *list = json_array();

	/* Ours was raised for ourselves: a command gets what we found, then what the file says. */
	json_array_append_new(
		list, json_pack("[i I I]", RLIMIT_NOFILE, (json_int_t)s->nofile.rlim_cur,
			      (json_int_t)s->nofile.rlim_max));
	for (size_t i = 0; i < j->rlimit_count; i++)
		json_array_append_new(list,
			json_pack("[i I I]", j->rlimits[i].resource, (json_int_t)j->rlimits[i].soft,
				(json_int_t)j->rlimits[i].hard));
	return list;
}

static void put_user(json_t *o, const struct config_user *u)
{
	if (!u->set && !u->group_set)
		return;
	json_object_set_new(o, "user",
		json_pack("{s:b s:I s:I s:s s:s}", "set", u->set, "uid",
			(json_int_t)(u->set ? u->uid : geteuid()), "gid", (json_int_t)u->gid,
			"name", u->name, "home", u->home));
}

static json_t *job_of(const struct supervisor *s, const struct config_job *j)
{
	json_t *o = json_object();

	put_text(o, "name", j->name);
	put_text(o, "schedule", j->schedule);
	put_text(o, "timezone", j->timezone);
	put_text(o, "directory", j->directory);
	put_text(o, "on_failure", j->on_failure);
	json_object_set_new(o, "argv", text_list(j->argv));
	json_object_set_new(o, "environment", pairs_of(j));
	json_object_set_new(o, "limits", limits_of(s, j));
	put_user(o, &j->user);
	put_number(o, "umask", j->umask);
	put_number(o, "nice", j->nice);
	put_number(o, "oom_score_adj", j->oom_score_adj);
	put_number(o, "no_new_privs", j->no_new_privs);
	put_number(o, "stopsignal", j->stopsignal);
	put_number(o, "stop_ns", j->stopwaitsecs_ns);
	put_number(o, "timeout_ns", j->timeout_ns);
	put_number(o, "overlap", j->overlap);
	put_number(o, "missed", j->missed);
	put_number(o, "missed_limit_ns", j->missed_limit_ns);
	put_number(o, "retries", j->retries);
	put_number(o, "retry_backoff_ns", j->retry_backoff_ns);
	put_number(o, "jitter_ns", j->jitter_ns);
	put_number(o, "enabled", j->enabled);
	put_number(o, "output_keep", j->output_keep);
	put_number(o, "interrupted", j->interrupted);
	put_number(o, "handoff_timeout_ns", j->handoff_timeout_ns);
	return o;
}

json_t *jobs_document(const struct supervisor *s)
{
	const struct config *c = s->config;
	const struct store_settings *t = &s->lock.settings;
	json_t *o = json_object(), *jobs = json_array();

	for (size_t i = 0; i < c->job_count; i++)
		json_array_append_new(jobs, job_of(s, &c->jobs[i]));
	json_object_set_new(o, "jobs", jobs);
	put_number(o, "max_running", c->jobs_settings.max_running);
	put_number(o, "history_keep_ns", c->jobs_settings.history_keep_ns);
	put_number(o, "history_count", c->jobs_settings.history_count);
	put_text(o, "database", t->database);
	put_text(o, "lock_name", t->lock_name);
	put_number(o, "unsafe_filesystem", t->unsafe_filesystem);
	put_number(o, "busy_limit_ms", t->busy_limit_ms);
	put_text(o, "instance", s->instance);
	put_text(o, "hostname", s->hostname);
	return o;
}

bool jobs_may_ask(struct supervisor *s, const struct control_peer *peer)
{
	const struct process *p = reap_owner(s, peer->pid);

	return p != NULL && p->pid == peer->pid && peer->uid == geteuid() &&
	       s->core.workers[p->slot].settings->hidden;
}

void jobs_reloaded(struct supervisor *s)
{
	const char *line = s->config->job_count > 0 ? RECONFIGURE : NO_JOBS;

	for (int i = 0; i < s->process_slots; i++) {
		const struct process *p = &s->processes[i];

		if (p->id == 0 || p->channel_fd < 0 || !p->leader_alive ||
			!s->core.workers[i].settings->hidden)
			continue;
		(void)send(p->channel_fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

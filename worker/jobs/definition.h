/*
 * The jobs as the job worker knows them: read from the document that the supervisor gives
 * (supervisor/shell/jobs.c).
 *
 * A definition is counted: the set holds one reference, each run that was started with it another,
 * so that a job that is changed or taken out while it runs ends as it began.
 */
#ifndef BATON_WORKER_JOBS_DEFINITION_H
#define BATON_WORKER_JOBS_DEFINITION_H

#include <jansson.h>

#include "conf/config.h"
#include "conf/schedule.h"
#include "worker/jobs/machine.h"
#include "worker/lock/store.h"

struct job_definition {
	int references;
	char *name, *directory, *on_failure;
	char *text, *timezone; /* the schedule as written */
	struct schedule schedule;
	struct zone *zone; /* shared: the set's */
	struct zone_list *zones;
	char **argv;
	char **environment; /* KEY=VALUE, beside what all commands inherit */
	bool user_set;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	int group_count;
	struct config_rlimit *limits;
	size_t limit_count;
	int umask, nice, oom_score_adj, stopsignal;
	bool no_new_privs;
	size_t output_keep;
	struct jobs_policy policy;
};

struct job_set {
	struct job_definition **items;
	size_t count;
	int max_running;
	int64_t history_keep_us, history_count;
	struct store_settings store;
};

/* 0, ERR_PROTOCOL or ERR_SYSTEM; a job whose schedule or zone cannot be read is left out and said
 * by COMPLAIN. */
int job_set_read(json_t *document, void (*complain)(const char *job, const char *text),
	struct job_set *ret_set, struct err *e);
void job_set_release(struct job_set *s);
void job_definition_free(struct job_definition *d); /* gives one reference back */
void job_definition_declare(const struct job_definition *d, struct ledger_declared *ret_declared);
int64_t job_definition_next(const void *definition, int64_t after_us); /* for the machine */

#endif

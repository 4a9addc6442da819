/*
 * One spawn, from its preparation to the fork: shared by spawn.c (workers), spawn_environment.c and
 * spawn_helper.c (our own helpers, the operator's commands). Internal to these files.
 */
#ifndef BATON_SHELL_SPAWN_INTERNAL_H
#define BATON_SHELL_SPAWN_INTERNAL_H

#include <limits.h>
#include <stdalign.h>
#include <stddef.h>
#include <sys/types.h>

#include "supervisor/shell/state.h"

#define FIRST_SOCKET_FD 3
#define MOST_FDS        (FIRST_SOCKET_FD + 256 + 4)

enum { SPAWN_TEXT_BYTES = 12288 };

extern char **environ;

/* Everything that one spawn needs and that must not outlive it. */
struct spawn {
	struct supervisor *supervisor;
	struct process *process;
	const struct action *action;
	const struct config_program *settings;
	const struct config *config;
	struct config_worker worker;
	bool worker_built;
	const char **env; /* what they point to: environ's, or of spawn_text */
	size_t env_count, env_capacity;
	char **paths;
	struct child_fd fds[MOST_FDS];
	size_t fd_count;
	struct config_rlimit *rlimits;
	int out[2], err[2], report[2], hold[2], channel[2], ready[2];
	int probe_fd; /* its probe listener; -1 = none */
	struct logs_sink *sinks[2];
	gid_t groups[NGROUPS_MAX > 256 ? 256 : NGROUPS_MAX];
	int group_count;
	struct spawn_block *blocks; /* of what did not fit into TEXT */
	size_t text_used;
	alignas(max_align_t) char text[SPAWN_TEXT_BYTES]; /* last: not zeroed */
};

/* Memory until spawn_clear, for any type; NULL = there is none. All of it side by side: of pages
 * that were written to, each costs the next fork a copy. */
void *spawn_text(struct spawn *sp, size_t bytes);
void spawn_text_clear(struct spawn *sp);
/* PAIR (KEY=VALUE, outlives the spawn) replaces an earlier one of that key. */
int spawn_env_put(struct spawn *sp, const char *pair);
int spawn_env_set(struct spawn *sp, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What speaks of another service manager, or of a baton above us, is not passed on. */
bool spawn_inheritable(const char *pair);
/* A worker's whole environment; where its command may lie. */
int spawn_build_environment(struct spawn *sp);
int spawn_build_paths(struct spawn *sp);

/* The parts of a spawn, for a command that runs as the worker does: everything but descriptors. */
void spawn_init(struct spawn *sp, struct process *p, const struct action *a);
int spawn_build_worker(struct spawn *sp, struct err *e);
int spawn_build_descriptors(struct spawn *sp, struct err *e); /* spawn_descriptors.c */
void spawn_find_groups(struct spawn *sp);
void spawn_fill_spec(struct spawn *sp, struct child_spec *spec, pid_t parent);
/* The snapshot that SETTINGS lies in; the worker of P as SET of that snapshot says. */
const struct config *spawn_config_of(
	const struct supervisor *s, const struct config_program *settings);
int spawn_config_worker(struct process *p, const struct config *config,
	const struct config_program *set, struct config_worker *ret_worker, struct err *e);

void spawn_worker(struct supervisor *s, const struct action *a); /* now */

/* fork with all signals blocked; the child never comes back. */
pid_t spawn_fork(const struct child_spec *spec);
void spawn_clear(struct spawn *sp); /* closes and frees what was not handed on */

#endif

/*
 * One spawn, from its preparation to the fork: shared by spawn.c (workers), spawn_environment.c and
 * spawn_helper.c (our own helpers, the operator's commands). Internal to these files.
 */
#ifndef BATON_SHELL_SPAWN_INTERNAL_H
#define BATON_SHELL_SPAWN_INTERNAL_H

#include <limits.h>
#include <sys/types.h>

#include "supervisor/shell/state.h"

#define FIRST_SOCKET_FD 3
#define MOST_FDS        (FIRST_SOCKET_FD + 256 + 2)

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
	char **env;
	size_t env_count, env_capacity;
	char **paths;
	struct child_fd fds[MOST_FDS];
	size_t fd_count;
	struct config_rlimit *rlimits;
	int out[2], err[2], report[2], hold[2], channel[2];
	struct logs_sink *sinks[2];
	gid_t groups[NGROUPS_MAX > 256 ? 256 : NGROUPS_MAX];
	int group_count;
};

/* TEXT (KEY=VALUE, malloced, taken over) replaces an earlier one of that key. */
int spawn_env_put(struct spawn *sp, char *text);
int spawn_env_set(struct spawn *sp, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What speaks of another service manager, or of a baton above us, is not passed on. */
bool spawn_inheritable(const char *pair);
/* A worker's whole environment; where its command may lie. */
int spawn_build_environment(struct spawn *sp);
int spawn_build_paths(struct spawn *sp);

void spawn_worker(struct supervisor *s, const struct action *a); /* now */

/* fork with all signals blocked; the child never comes back. */
pid_t spawn_fork(const struct child_spec *spec);
void spawn_clear(struct spawn *sp); /* closes and frees what was not handed on */

#endif

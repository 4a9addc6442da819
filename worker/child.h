/*
 * What happens between fork and exec, and how a failure there is told.
 *
 * Everything is prepared by the parent (child_spec holds no pointer that the child must allocate
 * for); child_exec makes async-signal-safe calls only and never returns. A failure is written as
 * one struct child_failure to report_fd, which is close-on-exec: end of file means that exec
 * succeeded.
 */
#ifndef BATON_WORKER_CHILD_H
#define BATON_WORKER_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf/config.h"

enum child_step {
	CHILD_DESCRIPTORS,
	CHILD_SESSION,
	CHILD_CGROUP,
	CHILD_NICE,
	CHILD_OOM_SCORE,
	CHILD_RLIMIT,
	CHILD_GROUPS,
	CHILD_GROUP,
	CHILD_USER,
	CHILD_NO_NEW_PRIVS,
	CHILD_DEATH_SIGNAL,
	CHILD_DIRECTORY,
	CHILD_HOLD,
	CHILD_EXEC,
	CHILD_STEPS
};

struct child_failure {
	int step;   /* enum child_step */
	int error;  /* errno */
	int detail; /* CHILD_RLIMIT: the resource; CHILD_EXEC: 1 = the file is there, its
		     * interpreter is not; else 0 */
};

struct child_fd {
	int from, to; /* dup FROM onto TO; FROM is a descriptor of the parent, TO >= 0, unique */
};

struct child_spec {
	char *const *argv;
	/* Paths to try with execve in order (PATH search done by the parent); NULL-terminated. */
	char *const *paths;
	/* The environment; the text "LISTEN_PID=0000000000" and "WATCHDOG_PID=0000000000" in it,
	 * when present, get the child's own pid written in place. */
	char **envp;
	const struct child_fd *fds; /* all that the child keeps: 0, 1, 2 and what is passed on */
	size_t fd_count;
	int report_fd; /* write end for a failure */
	/* The parent's table of descriptors is this process's too (clone with CLONE_FILES): first
	 * of all it gets one of its own, with those below this number, and says so by one byte to
	 * report_fd. 0 = it has its own. */
	int shared_above;
	int hold_fd; /* read end: wait for one byte before exec; EOF = exit quietly; -1 = none */
	const char *directory; /* "" = stay */
	bool set_user;
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t group_count;
	bool groups_set;   /* call setgroups (root only) */
	int umask;         /* -1 = inherit */
	int nice;          /* INT_MIN = inherit */
	int oom_score_adj; /* INT_MIN = inherit */
	bool no_new_privs;
	/* Stay in the parent's session, in a process group of its own: whoever ends the parent's
	 * tree by its session finds this one too, also when the parent is gone. */
	bool same_session;
	bool die_with_parent; /* PR_SET_PDEATHSIG = SIGKILL, set after the change of credentials */
	pid_t parent;         /* to notice a parent that died before the prctl */
	const struct config_rlimit *rlimits;
	size_t rlimit_count;
};

/* In the child, signals still blocked. Closes every descriptor that is not listed FIRST (the guard
 * must not be held by a child that waits), makes a session, resets signal dispositions and mask,
 * applies the spec, execs. Never returns. */
void child_exec(const struct child_spec *spec) __attribute__((noreturn));

/* "cannot change to directory '/x': no such file or directory" for people. SPEC gives the names. */
void child_failure_text(
	const struct child_failure *f, const struct child_spec *spec, char *buf, size_t bytes);
const char *child_step_name(int step);

#endif

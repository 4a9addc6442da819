/*
 * Probes of workers: how one is made, and what it found. When, and what follows, is the core's
 * decision (core/worker_probe.c); each ACTION_PROBE_START is answered by EVENT_PROBE_OK or
 * EVENT_PROBE_FAILED, unless it is stopped first.
 *
 * Nothing here waits: connections are watched by the loop, commands run in processes of their own,
 * each attempt has its own deadline, and addresses are numbers (conf/probe.c). An attempt that
 * failed by baton's own fault (no descriptor, no process, a loop that stood still) says so: the
 * worker is not to blame.
 */
#ifndef BATON_SHELL_PROBES_H
#define BATON_SHELL_PROBES_H

#include "supervisor/shell/state.h"

void probes_start(struct supervisor *s, const struct action *a);
void probes_stop(struct supervisor *s, int slot);
void probes_forget(struct process *p); /* before its slot is used again */
void probes_end(struct supervisor *s);

/* Before the loop blocks: what is past its deadline fails. */
void probes_check(struct supervisor *s);
int64_t probes_deadline(const struct supervisor *s); /* 0 = none */
/* A command's end; true = it was one of ours. */
bool probes_reaped(struct supervisor *s, pid_t pid, int status);
bool probes_is_known(const struct supervisor *s, pid_t pid);

/* A worker's private listener: loopback, a port of the kernel's choice, kept by the worker alone
 * (the supervisor keeps the number in P), so that a probe reaches that worker or nobody. */
int probes_listen(struct process *p, int *ret_fd, struct err *e);
/* "127.0.0.1:40123", "[::1]:40123"; "" without one. */
const char *probes_address(const struct process *p, char buf[32]);

/* After the fork: `fd:N` and `log:TEXT` are looked for from now on. READY_FD is taken over. */
void probes_watch(struct process *p, const struct config_probe *ready, int ready_fd);
/* After an upgrade in place, before which probes_end was called: the same again. Attempts that were
 * under way are asked for again by the core. */
void probes_resume(struct supervisor *s);

/* Why the worker is not ready, or not well, as far as is known; NULL = nothing to say. */
const char *probes_why(struct supervisor *s, int slot, char *buf, size_t bytes);

#endif

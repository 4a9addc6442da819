/*
 * What the core reports, in words: the names of events are stable, the sentences are for people.
 * Included by state.h.
 */
#ifndef BATON_SHELL_REPORT_H
#define BATON_SHELL_REPORT_H

#include <stddef.h>
#include <stdint.h>

struct action;
struct process;
struct program;
struct supervisor;

void report_action(struct supervisor *s, const struct action *a);
/* report_lock.c */
void report_remark(struct supervisor *s, const struct action *a);
void report_election(struct supervisor *s, const struct action *a);
void report_lock_view(struct supervisor *s, char *buf, size_t bytes);
void report_spawned(struct supervisor *s, const struct process *p);
/* How the last process in SLOT ended: "exited with status 3", "was killed by SIGSEGV". */
void report_exit(struct supervisor *s, int slot, char *buf, size_t bytes);

/* report_rollout.c */
void report_program(struct supervisor *s, const struct action *a);
void report_recycle(struct supervisor *s, const struct action *a);
/* REASON of the core's in the words of what was found out: "health: GET /h ...: no answer". */
const char *report_why(struct supervisor *s, int slot, const char *reason, char *buf, size_t bytes);
/* How the last rollout of that program slot, which failed, ended and why. */
void report_rollout_end(const struct supervisor *s, int program, char *buf, size_t bytes);
const char *report_rollout_why(const struct supervisor *s, int program); /* NULL: not known */
void report_release(struct supervisor *s);
void report_set_rollout_why(struct supervisor *s, int program, const char *text);
/* "131.4 MB" */
void report_bytes(int64_t bytes, char *buf, size_t room);
void report_depends(const struct supervisor *s, int program, char *buf, size_t bytes);
void report_kill(struct supervisor *s, const struct process *p);
/* RFC 3339 in UTC with milliseconds. */
char *report_time(int64_t wall_us, char buf[32]);
int64_t report_wall_us(void);
int64_t report_wall_of(
	int64_t boottime_ns); /* wall clock, microseconds, of a time of the lease clock */
/* "250 ms", "3.2 s", "5 min" */
void report_span(int64_t ns, char *buf, size_t bytes);
const char *report_worker_name(const struct supervisor *s, int slot);

#endif

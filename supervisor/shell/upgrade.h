/*
 * Upgrade in place (SIGUSR2, `baton upgrade`): the binary is executed again in this process. Same
 * pid, same workers with their pipes, channels, pages, sockets; same lock and term.
 *
 * 1. Trial: `BINARY upgrade-check` is run beside us with the live state (state_document.h) on
 *    descriptor 3; it must build everything from it, and say so. Until then nothing has changed.
 * 2. Calm: no event is waiting and no fork is due; then all signals are blocked, and the loop goes
 *    round a few times for what had been caught before.
 * 3. The state is saved again, the descriptors that it speaks of become inheritable, execve. When
 *    that fails we go on as before.
 * 4. The new image loads the state (upgrade_resume.c), starts helpers of its own, dismisses those
 *    of the image before once its own are armed, reaps, unblocks the signals.
 */
#ifndef BATON_SHELL_UPGRADE_H
#define BATON_SHELL_UPGRADE_H

#include "supervisor/shell/state.h"

/* Where our binary is, by the way we were started: into s->binary. */
void upgrade_remember(struct supervisor *s, const char *argv0);
/* BINARY "" = that one. Said to people and to who waits when it has failed or is done. */
int upgrade_begin(struct supervisor *s, const char *binary, struct err *e);
void upgrade_check(struct supervisor *s);             /* at the end of each round; may not return */
int64_t upgrade_deadline(const struct supervisor *s); /* 0 = none */
bool upgrade_reaped(struct supervisor *s, pid_t pid, int status); /* true = it was the trial */
void upgrade_release(struct supervisor *s);

/* upgrade_trial.c */
int upgrade_try(struct supervisor *s, struct err *e);
void upgrade_end_trial(struct supervisor *s); /* kills it; closes what it had */
/* The trial has ended with STATUS: 0, or why not. */
int upgrade_judge(struct supervisor *s, int status, struct err *e);
bool upgrade_same_file(const struct upgrade *u);
/* DOCUMENT in a sealed memory file; -1 after an error. Steals DOCUMENT. */
int upgrade_write(json_t *document, struct err *e);
json_t *upgrade_read(int fd, struct err *e);

#define UPGRADE_VARIABLE "BATON_UPGRADE_FD"
#define UPGRADE_COMMAND  "upgrade-check"
#define UPGRADE_TRIAL_FD 3
#define UPGRADE_GOOD     "baton can go on from here: version "

#endif

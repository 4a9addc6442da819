/* The right to run one firing, for the executor of a program: `claim JOB TIME` on its channel. */
#ifndef BATON_SHELL_CLAIMS_H
#define BATON_SHELL_CLAIMS_H

#include "supervisor/shell/state.h"

void claims_take(struct process *p, const struct channel_message *m);
void claims_check(struct supervisor *s);        /* once a round of the loop */
int64_t claims_due(const struct supervisor *s); /* 0 = never */
bool claims_waiting(const struct supervisor *s);
bool claims_is_keeper(const struct supervisor *s, pid_t pid);
bool claims_reaped(struct supervisor *s, pid_t pid); /* true = it was theirs */
void claims_reconfigure(struct supervisor *s);
void claims_end(struct supervisor *s); /* those that wait are refused */

#endif

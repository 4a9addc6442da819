/* The supervisor as a whole: boot (a graph of stages), running, stopping, down. */
#ifndef BATON_CORE_LIFECYCLE_FSM_H
#define BATON_CORE_LIFECYCLE_FSM_H

#include "supervisor/core/core.h"

void lifecycle_boot(struct core *c);
/* STATUS: the exit status when it is not ok. */
void lifecycle_stage(struct core *c, int stage, bool ok, int status);
/* Begin to stop (or stop harder). STATUS becomes the exit status unless one is set. */
void lifecycle_shutdown(struct core *c, enum shutdown_mode mode, int status, const char *reason);
/* Go on with stopping: levels, lock, stages. Called after every event while stopping. */
void lifecycle_run(struct core *c);
void lifecycle_check_time(struct core *c);
bool lifecycle_is_stopping(const struct core *c);
/* How long a worker gets to stop: its own time, less in a quick shutdown. */
int64_t lifecycle_stop_ns(const struct core *c, int64_t own_ns);

#endif

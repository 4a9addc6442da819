/*
 * What the files of commands share: a request, and what every handler of one asks it. A handler
 * answers or fails the request, or leaves a waiter that does so later.
 */
#ifndef BATON_SHELL_COMMANDS_INTERNAL_H
#define BATON_SHELL_COMMANDS_INTERNAL_H

#include "supervisor/shell/commands.h"
#include "worker/control.h"

struct request {
	struct supervisor *s;
	struct control_connection *from;
	uint64_t id;
	json_t *json;
};

/* --- commands.c ---------------------------------------------------------------------------- */
void request_fail(struct request *r, const char *code, const char *text);
void request_post(struct request *r, enum event_kind kind, int program, int worker, int64_t number);
bool request_waits(const struct request *r);
/* NULL: not there, or no text. */
const char *request_text(const struct request *r, const char *key);
/* In nanoseconds; 0 = none. */
int64_t request_timeout(const struct request *r);
/* true: the supervisor is stopping, and the request was refused. */
bool request_comes_late(struct request *r);

/* --- commands_workers.c -------------------------------------------------------------------- */
void commands_start(struct request *r);
void commands_stop(struct request *r);
void commands_restart(struct request *r);
void commands_signal(struct request *r);
void commands_scale(struct request *r);

/* --- commands_lock.c ----------------------------------------------------------------------- */
void commands_handoff(struct request *r);
void commands_lock_release(struct request *r);

/* --- commands_reload.c --------------------------------------------------------------------- */
void commands_shutdown(struct request *r);
void commands_reload(struct request *r);
void commands_upgrade(struct request *r);

#endif

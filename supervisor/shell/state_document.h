/*
 * The whole live state as one JSON document (upgrade.h): state_save.c makes it, state_load.c builds
 * the supervisor from it.
 */
#ifndef BATON_SHELL_STATE_DOCUMENT_H
#define BATON_SHELL_STATE_DOCUMENT_H

#include "supervisor/shell/state.h"
#include "supervisor/shell/state_fields.h"

/* FDS gets every descriptor that the document speaks of. NULL = out of memory. */
json_t *state_save(struct supervisor *s, struct state_fds *fds);

/* Is O such a document, and one that this version understands? */
int state_check_document(const json_t *o, struct err *e);
/* Into a supervisor that has a loop, logs and room for processes (supervisor_init), and nothing
 * else yet. TRIAL: the descriptors are not there, so no page is mapped. */
int state_load(struct supervisor *s, const json_t *o, bool trial, struct err *e);

/* The packets of keeper and deadman: another list means another protocol. */
json_t *state_keeper_protocol(void);
json_t *state_deadman_protocol(void);

#endif

/* A reload that waits for the user database or for DNS: a child asks. */
#ifndef BATON_SHELL_LOOKUPS_H
#define BATON_SHELL_LOOKUPS_H

#include "supervisor/shell/state.h"

const char *lookups_failure(const struct supervisor *s);
void lookups_begin_signal(struct supervisor *s); /* SIGHUP again when they have answered */
/* Is that request, again then, to be answered later? False: it was tried often enough. */
bool lookups_begin(
	struct supervisor *s, struct control_connection *from, uint64_t id, json_t *json);
void lookups_forget(struct supervisor *s, const struct control_connection *gone); /* NULL = all */
int64_t lookups_deadline(const struct supervisor *s);                             /* 0 = none */
void lookups_check(struct supervisor *s);
void commands_again(
	struct supervisor *s, struct control_connection *from, uint64_t id, json_t *json);
void signals_reload(struct supervisor *s);

#endif

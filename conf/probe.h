/* The forms of `ready` and `health`: from text to struct config_probe. */
#ifndef BATON_CONF_PROBE_H
#define BATON_CONF_PROBE_H

#include "conf/arena.h"
#include "conf/config.h"

/* TEXT is expanded; all that *RET points to is in the arena. HEALTH: only what can be asked again
 * and again. ERR_CONFIG says what to write instead. */
int probe_parse(struct arena *a, const char *text, bool health, struct config_probe *ret_probe,
	struct err *e);

#endif

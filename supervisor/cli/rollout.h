/* What restart and check have of rollouts; cli_reload is in cli.h. */
#ifndef BATON_CLI_ROLLOUT_H
#define BATON_CLI_ROLLOUT_H

#include "supervisor/cli/cli.h"

/* `restart --rolling`; steals TARGETS. */
int rollout_restart(struct cli *c, json_t *targets);
/* `check --plan`: what a reload would do to the running instance. */
int rollout_plan(struct cli *c);

#endif

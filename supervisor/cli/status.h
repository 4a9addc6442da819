/*
 * The status document (cli.md) as text.
 */
#ifndef BATON_CLI_STATUS_H
#define BATON_CLI_STATUS_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

/* Fits WIDTH columns; WIDTH 0 = as wide as it is. */
void status_print(const json_t *document, FILE *to, bool coloured, int width);
/* What keeps the instance from being healthy, one line each into TO (may be NULL): how many. */
int status_faults(const json_t *document, FILE *to);

#endif

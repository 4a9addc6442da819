/* Between the files schedule*.c. */
#ifndef BATON_CONF_SCHEDULE_INTERNAL_H
#define BATON_CONF_SCHEDULE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/schedule.h"

struct parser {
	struct schedule s;
	struct schedule_findings *findings;
};

/* COLUMN counts from 1; 0 = the whole expression. */
void schedule_find(struct parser *p, bool warning, int column, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Five or six fields into p->s. COLUMN: 1, or 0 when the text was not written by the user. */
void schedule_fields(struct parser *p, const char *text, int column);

/* The first date that fits, from day DAYS (since 1970-01-01) on; INT64_MIN = none. */
int64_t schedule_date(const struct schedule *s, int64_t days);
/* Whether any date fits: dates repeat after 400 years. */
bool schedule_has_date(const struct schedule *s);

#endif

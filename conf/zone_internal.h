/* Between zone.c, zone_rule.c and zone_time.c. */
#ifndef BATON_CONF_ZONE_INTERNAL_H
#define BATON_CONF_ZONE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/zone.h"

enum zone_day_kind { ZONE_JULIAN, ZONE_DAY_OF_YEAR, ZONE_MONTH_WEEK_DAY };

struct zone_change { /* "M10.5.0/3": when the clocks change in each year */
	enum zone_day_kind kind;
	int month, week, day;
	int32_t time; /* seconds of that day, local; may be negative or beyond a day */
};

struct zone_rule {   /* "CET-1CEST,M3.5.0,M10.5.0/3" */
	bool summer; /* there are changes */
	int32_t offset, summer_offset;
	struct zone_change begin, end;
};

struct zone { /* one block: times, offsets, name follow the struct */
	const char *name;
	const int64_t *times;   /* of COUNT changes, ascending */
	const int32_t *offsets; /* COUNT + 1: before the first change, after the first, ... */
	int count;
	bool has_rule; /* counts after the last change */
	struct zone_rule rule;
};

/* 0, or -1 when TEXT is no such rule. */
int zone_rule_parse(const char *text, struct zone_rule *ret_rule);
struct zone_span zone_rule_span(const struct zone_rule *r, int64_t utc);

#endif

/*
 * The event loop: the only user of libev (a loop of its own by ev_loop_new, never the default one:
 * that reaps children it was never given). Descriptors, signals, ONE timer (a timerfd on
 * CLOCK_BOOTTIME), one hook before the loop blocks.
 */
#ifndef BATON_SHELL_LOOP_H
#define BATON_SHELL_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/err.h"

#define LOOP_READ  1u
#define LOOP_WRITE 2u

struct loop;
struct loop_watch;

int loop_create(struct loop **ret_loop, struct err *e);
void loop_free(struct loop *l); /* NULL is fine */

/* Watch FD (not owned). EVENTS may be 0 (paused). The callback may unwatch itself or others. */
struct loop_watch *loop_watch(struct loop *l, int fd, unsigned events,
	void (*ready)(void *context, unsigned events), void *context);
void loop_watch_events(struct loop_watch *w, unsigned events);
void loop_unwatch(struct loop_watch *w); /* NULL is fine; call before closing the descriptor */

/* Calls SIGNALLED(context, signal) from the loop, never from a handler. */
int loop_signal(struct loop *l, int signal, void (*signalled)(void *context, int signal),
	void *context, struct err *e);

/* The one timer: fires once at AT_NS (CLOCK_BOOTTIME); 0 = off. Setting the same time again costs
 * no system call. LATE_NS = how much later than asked. */
int loop_timer_init(struct loop *l, void (*fired)(void *context, int64_t late_ns), void *context,
	struct err *e);
void loop_timer_set(struct loop *l, int64_t at_ns);

/* Called once per round, before the loop may block. */
void loop_before_block(struct loop *l, void (*hook)(void *context), void *context);

void loop_run(struct loop *l); /* until loop_stop */
void loop_stop(struct loop *l);

#endif

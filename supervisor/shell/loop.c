#include "supervisor/shell/loop.h"
#include "supervisor/shell/own_memory.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SIGNALS       65
#define NS_PER_SECOND 1000000000LL
#define CHUNK_WATCHES 100 /* two pages */

struct loop_watch {
	ev_io io;
	struct loop *loop; /* NULL = unwatched, waiting to be used again */
	void (*ready)(void *context, unsigned events);
	void *context;
	struct loop_watch *next; /* of the list of unwatched ones */
};

struct watch_chunk {
	struct watch_chunk *next;
	struct loop_watch watches[CHUNK_WATCHES];
};

struct signal_watch {
	ev_signal watcher;
	bool active;
	void (*signalled)(void *context, int signal);
	void *context;
};

struct loop {
	struct ev_loop *ev;
	bool stopped;

	/* Unwatched ones are used again only after the round in which they were unwatched. */
	struct loop_watch *retired, *spare;
	struct watch_chunk *chunks; /* all watches lie there */

	struct signal_watch signals[SIGNALS];

	int timer_fd; /* -1 = none */
	ev_io timer;
	int64_t timer_at_ns; /* 0 = off */
	void (*fired)(void *context, int64_t late_ns);
	void *fired_context;

	ev_prepare prepare;
	void (*hook)(void *context);
	void *hook_context;
};

static int to_ev(unsigned events)
{
	return ((events & LOOP_READ) ? EV_READ : 0) | ((events & LOOP_WRITE) ? EV_WRITE : 0);
}

static void on_nothing(struct ev_loop *ev, ev_periodic *watcher, int revents)
{
	(void)ev;
	(void)watcher;
	(void)revents;
}

/*
 * Without any timer libev wakes once a minute to see whether somebody set the clock. Once a
 * periodic watcher has been started it lets the kernel tell it (TFD_TIMER_CANCEL_ON_SET) and
 * sleeps for 17 days.
 */
static void stop_clock_polling(struct ev_loop *ev)
{
	ev_periodic far;

	ev_periodic_init(&far, on_nothing, ev_now(ev) + 1e9, 0.0, NULL);
	ev_periodic_start(ev, &far);
	ev_periodic_stop(ev, &far);
}

static void on_prepare(struct ev_loop *ev, ev_prepare *watcher, int revents)
{
	struct loop *l = watcher->data;

	(void)ev;
	(void)revents;
	while (l->retired) {
		struct loop_watch *w = l->retired;
		l->retired = w->next;
		w->next = l->spare;
		l->spare = w;
	}
	if (l->hook)
		l->hook(l->hook_context);
}

/* libev's memory too is kept out of forks: what the loop writes between two of them is not copied
 * then. Before each block its size. */
struct ev_block {
	_Alignas(max_align_t) size_t bytes;
};

static void *ev_memory(void *from, long bytes)
{
	struct ev_block *b = from ? (struct ev_block *)from - 1 : NULL, *larger;
	size_t wanted = bytes > 0 ? sizeof(*b) + (size_t)bytes : 0;

	if (!wanted) {
		if (b)
			own_memory_free(b, b->bytes, 1);
		return NULL;
	}
	if (b && wanted <= b->bytes)
		return from;
	larger = own_memory_grow(b, b ? b->bytes : 0, wanted, 1);
	if (!larger)
		return NULL;
	larger->bytes = wanted;
	return larger + 1;
}

int loop_create(struct loop **ret_loop, struct err *e)
{
	struct loop *l = calloc(1, sizeof(*l));

	ev_set_allocator(ev_memory);
	if (!l)
		return err_set(e, ERR_SYSTEM, "cannot create the event loop: out of memory");
	l->timer_fd = -1;
	l->ev = ev_loop_new(EVFLAG_NOENV | EVFLAG_NOINOTIFY | EVBACKEND_EPOLL | EVBACKEND_POLL);
	if (!l->ev) {
		int why = errno;
		free(l);
		return err_set(e, ERR_SYSTEM, "cannot create the event loop: %s", strerror(why));
	}
	stop_clock_polling(l->ev);
	ev_prepare_init(&l->prepare, on_prepare);
	l->prepare.data = l;
	ev_prepare_start(l->ev, &l->prepare);
	*ret_loop = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	for (int i = 0; i < SIGNALS; i++) {
		if (l->signals[i].active)
			ev_signal_stop(l->ev, &l->signals[i].watcher);
	}
	if (l->timer_fd >= 0) {
		ev_io_stop(l->ev, &l->timer);
		close(l->timer_fd);
	}
	ev_prepare_stop(l->ev, &l->prepare);
	ev_loop_destroy(l->ev);
	while (l->chunks) {
		struct watch_chunk *next = l->chunks->next;
		own_memory_free(l->chunks, 1, sizeof(*l->chunks));
		l->chunks = next;
	}
	free(l);
}

static void on_io(struct ev_loop *ev, ev_io *watcher, int revents)
{
	struct loop_watch *w = watcher->data;
	unsigned events = 0;

	(void)ev;
	if (revents & EV_READ)
		events |= LOOP_READ;
	if (revents & EV_WRITE)
		events |= LOOP_WRITE;
	/* The kernel refuses the descriptor: the reader or writer learns why from its own call. */
	if (revents & EV_ERROR)
		events |= LOOP_READ | LOOP_WRITE;
	w->ready(w->context, events);
}

static bool add_watches(struct loop *l)
{
	struct watch_chunk *chunk = own_memory_new(1, sizeof(*chunk));

	if (!chunk)
		return false;
	chunk->next = l->chunks;
	l->chunks = chunk;
	for (int i = CHUNK_WATCHES - 1; i >= 0; i--) {
		chunk->watches[i].next = l->spare;
		l->spare = &chunk->watches[i];
	}
	return true;
}

struct loop_watch *loop_watch(struct loop *l, int fd, unsigned events,
	void (*ready)(void *context, unsigned events), void *context)
{
	struct loop_watch *w;

	assert(fd >= 0 && ready);
	if (!l->spare && !add_watches(l))
		return NULL;
	w = l->spare;
	l->spare = w->next;
	memset(w, 0, sizeof(*w));
	w->loop = l;
	w->ready = ready;
	w->context = context;
	ev_io_init(&w->io, on_io, fd, to_ev(events));
	w->io.data = w;
	if (events)
		ev_io_start(l->ev, &w->io);
	return w;
}

void loop_watch_events(struct loop_watch *w, unsigned events)
{
	int wanted = to_ev(events), fd = w->io.fd;
	bool active = ev_is_active(&w->io);

	assert(w->loop);
	if (active ? (w->io.events & (EV_READ | EV_WRITE)) == wanted : !wanted)
		return;
	ev_io_stop(w->loop->ev, &w->io);
	ev_io_set(&w->io, fd, wanted);
	if (wanted)
		ev_io_start(w->loop->ev, &w->io);
}

void loop_unwatch(struct loop_watch *w)
{
	struct loop *l;

	if (!w)
		return;
	l = w->loop;
	assert(l); /* unwatched twice */
	ev_io_stop(l->ev, &w->io);
	w->loop = NULL;
	w->next = l->retired;
	l->retired = w;
}

static void on_signal(struct ev_loop *ev, ev_signal *watcher, int revents)
{
	struct signal_watch *s = watcher->data;

	(void)ev;
	(void)revents;
	s->signalled(s->context, watcher->signum);
}

int loop_signal(struct loop *l, int signal, void (*signalled)(void *context, int signal),
	void *context, struct err *e)
{
	struct signal_watch *s;
	sigset_t mask;

	if (signal <= 0 || signal >= SIGNALS || signal == SIGKILL || signal == SIGSTOP)
		return err_set(
			e, ERR_SYSTEM, "cannot watch signal %d: there is no such signal", signal);
	s = &l->signals[signal];
	s->signalled = signalled;
	s->context = context;
	if (s->active)
		return 0;
	ev_signal_init(&s->watcher, on_signal, signal);
	s->watcher.data = s;
	ev_set_priority(&s->watcher, 1);
	ev_signal_start(l->ev, &s->watcher);
	s->active = true;
	/* Whoever started us may have blocked it. */
	sigemptyset(&mask);
	sigaddset(&mask, signal);
	sigprocmask(SIG_UNBLOCK, &mask, NULL);
	return 0;
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * NS_PER_SECOND + t.tv_nsec;
}

static void on_timer(struct ev_loop *ev, ev_io *watcher, int revents)
{
	struct loop *l = watcher->data;
	uint64_t expirations;
	int64_t at_ns = l->timer_at_ns;

	(void)ev;
	(void)revents;
	/* EAGAIN: set to another time after the kernel had said that it fired. */
	if (read(l->timer_fd, &expirations, sizeof(expirations)) != sizeof(expirations) || !at_ns)
		return;
	l->timer_at_ns = 0;
	l->fired(l->fired_context, now_ns() - at_ns);
}

int loop_timer_init(
	struct loop *l, void (*fired)(void *context, int64_t late_ns), void *context, struct err *e)
{
	assert(l->timer_fd < 0);
	l->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (l->timer_fd < 0)
		return err_set(e, ERR_SYSTEM, "cannot create the timer: %s", strerror(errno));
	l->fired = fired;
	l->fired_context = context;
	ev_io_init(&l->timer, on_timer, l->timer_fd, EV_READ);
	l->timer.data = l;
	ev_set_priority(&l->timer, EV_MAXPRI);
	ev_io_start(l->ev, &l->timer);
	return 0;
}

void loop_timer_set(struct loop *l, int64_t at_ns)
{
	struct itimerspec spec = {0};

	assert(l->timer_fd >= 0);
	if (at_ns < 0)
		at_ns = 1;
	if (at_ns == l->timer_at_ns)
		return;
	l->timer_at_ns = at_ns;
	spec.it_value.tv_sec = at_ns / NS_PER_SECOND;
	spec.it_value.tv_nsec = at_ns % NS_PER_SECOND;
	if (timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) != 0)
		assert(!"timerfd_settime refused a valid time");
}

void loop_before_block(struct loop *l, void (*hook)(void *context), void *context)
{
	l->hook = hook;
	l->hook_context = context;
}

void loop_run(struct loop *l)
{
	/* One reference more, so that a loop with nothing to watch sleeps and does not return. */
	ev_ref(l->ev);
	if (!l->stopped)
		ev_run(l->ev, 0);
	ev_unref(l->ev);
	l->stopped = false;
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
	ev_break(l->ev, EVBREAK_ALL);
}

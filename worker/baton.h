/*
 * libbaton: what a program that runs under baton(8) may ask and say.
 *
 * Everything here is optional: a program that knows nothing of baton is supervised all the same.
 * The library needs libc alone, starts no thread, installs no signal handler, prints nothing.
 *
 * The one question that matters is baton_is_executor(): am I, at this instant, the one worker that
 * runs the scheduled jobs? It reads a page of shared memory and a clock, calls nobody, and so is
 * right even while the supervisor is stopped or dead. Ask it at the effect: before each job, and in
 * a long job before each step that must not happen twice. Where the effect can be fenced (a
 * database row with the highest term seen), pass baton_term() along.
 *
 * Units: all durations are nanoseconds (_ns), all times are CLOCK_BOOTTIME.
 * Errors: functions that can fail return a negative errno value (-EPIPE, ...) and leave errno as
 * it happens to be. Answers to questions never fail: what cannot be known is "no".
 * Ownership: a handle belongs to its opener and is given back with baton_close(). A NULL handle is
 * allowed everywhere: it is nobody's executor.
 *
 * Threads: the questions may be asked, and lines be sent, from any thread and at the same time;
 * baton_listen, baton_next_event and baton_close are for one thread at a time. The questions are
 * async-signal-safe.
 *
 * Fork: a handle goes on answering the questions, and may go on sending, in a child process. The
 * lines of the supervisor have one reader: the process that called baton_listen. A child that is
 * to be the reader opens a handle of its own, and its parent stops reading. After exec, open anew:
 * the environment and its descriptors are still there.
 */
#ifndef BATON_H
#define BATON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct baton;

/* --- opening -------------------------------------------------------------------------------- */

/*
 * Open what the environment names (BATON_LEASE_FD, BATON_CHANNEL_FD). The environment is left as
 * it is, for processes that are started later.
 *
 * 0 with a handle in *ret_baton; or an error with NULL in *ret_baton and one line for people in
 * ERROR (of ERROR_BYTES bytes; NULL and 0 are fine):
 *   -ENOENT   neither variable is set: not started by baton, or not told of it
 *   -EINVAL   a variable holds no descriptor number, or the descriptor is no lease page of a
 *             version known here, or no stream socket
 *   -EBADF    the descriptor has been closed on the way (close_fds, closefrom, a daemoniser)
 *   -EXDEV    this process is in another time namespace than the supervisor: the deadlines cannot
 *             be compared
 *   -ENOMEM and what fstat(2), mmap(2) and fcntl(2) say
 *
 * A worker whose program is no candidate has a channel and no lease page: the handle can send, and
 * is never the executor.
 */
int baton_open(struct baton **ret_baton, char *error, size_t error_bytes);

/* Unmap, close, free. The descriptors that the environment names stay open. NULL is fine. */
void baton_close(struct baton *b);

/* --- questions ------------------------------------------------------------------------------ */

/* 1 exactly while this worker is the executor: the lease page has a deadline and it has not
 * passed. Else 0. Tens of nanoseconds. */
int baton_is_executor(const struct baton *b);

/* 1 while new work may be started: executor, the soft deadline has not passed, and no demotion of
 * the present term has been read by baton_next_event. Else 0. */
int baton_may_start(const struct baton *b);

/* The term under which this worker is the executor now; 0 = it is not. Terms never fall and are
 * never given twice: the fencing token to store beside an effect. */
uint64_t baton_term(const struct baton *b);

/* How long the lease lasts from now if nobody renews it; 0 = not the executor. Each heartbeat
 * of the supervisor makes it longer again. */
int64_t baton_lease_left_ns(const struct baton *b);

/* --- being told ----------------------------------------------------------------------------- */

enum baton_event_kind {
	BATON_PROMOTE = 1, /* you are the executor under TERM: start, then baton_promoted() */
	BATON_DEMOTE = 2   /* take no more work, finish within time_ns, then baton_demoted() */
};

enum baton_reason {
	BATON_HANDOFF = 1,  /* another worker is going to be the executor */
	BATON_SHUTDOWN = 2, /* the program is being stopped */
	BATON_LOST = 3,     /* the lock is lost or in doubt: the time is what the lease allows */
	BATON_OTHER = 4     /* a reason of a later version */
};

struct baton_event {
	int kind;   /* enum baton_event_kind */
	int reason; /* enum baton_reason; 0 with BATON_PROMOTE */
	uint64_t term;
	int64_t time_ns; /* promote: the lock's time to live, for information; demote: the grace */
	uint64_t reserved[4];
};

/*
 * Become the reader of the supervisor's lines and ask for the present state. Returns a descriptor
 * to wait on (POLLIN); it belongs to the handle: do not read, close or change it.
 *
 * Call baton_next_event until it returns 0 right after this (a promotion that happened before is
 * in the lease page, not in the descriptor) and whenever the descriptor is readable.
 *   -ENOTCONN  no channel was inherited
 */
int baton_listen(struct baton *b);

/*
 * The next event, never waiting. 1 = *ret_event is filled; 0 = nothing now; or
 *   -EPIPE   the supervisor has gone: wait on the descriptor no longer. The lease page stays
 *            right, and the deadman ends this process if the lease is nobody's any more
 *   -EPERM   another process called baton_listen on this handle (see Fork)
 *   -ENOTCONN no channel, or baton_listen was not called
 *   -EBADF   the descriptor was closed behind the handle's back
 *
 * Each promotion and each demotion is told once, in order; lines that the lease page contradicts
 * are dropped. A lease that is found to have ended without a line is told as BATON_DEMOTE with
 * BATON_LOST and time 0, when this function is called next.
 */
int baton_next_event(struct baton *b, struct baton_event *ret_event);

/* --- answering ------------------------------------------------------------------------------ */

/* I execute now, under TERM. 0, or -EPIPE (supervisor gone), -EAGAIN (it does not read at present:
 * try later), -ENOTCONN (no channel), -EBADF. */
int baton_promoted(struct baton *b, uint64_t term);
/* I execute nothing any more under TERM. Errors as above. */
int baton_demoted(struct baton *b, uint64_t term);
/* I run COUNT jobs now; a handoff waits for 0, within its timeout. Errors as above. */
int baton_busy(struct baton *b, unsigned int count);

/* --- claims ---------------------------------------------------------------------------------- */

/*
 * The right to run one firing of a job: JOB is due at TIME_US (microseconds since 1970, wall clock;
 * of the schedule, not of now). It is given once for each JOB and TIME_US of this program, to the
 * executor under its present term and before its soft deadline, and committed in the lock's
 * database before the answer: across workers, instances and takeovers each firing runs once, or,
 * when its worker dies before it has run, not again. It costs a commit, about a millisecond.
 *
 * JOB is at most 127 bytes, less the program's name and a colon; blanks, control characters and '%'
 * count three.
 *
 * For the thread and process that read the events (baton_listen): the answer comes on that
 * descriptor. Events that come before the answer are kept for baton_next_event. A demotion among
 * them does not take the claim back: what is claimed is run before baton_demoted() is said, and
 * with claims that are still asked for their answers are awaited first.
 *
 * 1 = run it now; 0 = do not: it ran or runs already, or this worker is not the executor; or
 *   -ETIMEDOUT  no answer within TIMEOUT_NS (negative: for ever): do not run it
 *   -EPIPE      the supervisor has gone: do not run it
 *   -EINVAL, -ENAMETOOLONG  of JOB or TIME_US
 *   -EALREADY   the same firing is being asked for
 *   -EAGAIN     the supervisor does not read at present, or too many events wait to be read
 *   -ENOTCONN, -EPERM, -EBADF, -ENOMEM, -ENOBUFS  as baton_next_event; too many are asked for (64)
 */
int baton_claim(struct baton *b, const char *job, int64_t time_us, int64_t timeout_ns);

/* The same without waiting: 1 = asked, 0 = refused at once, or an error as above. */
int baton_claim_ask(struct baton *b, const char *job, int64_t time_us);
/* After baton_next_event, when the descriptor was readable: 1, 0 and errors as above; -EAGAIN =
 * there is no answer yet; -ENOENT = not asked for, or answered before. An answer is told once. */
int baton_claim_answer(struct baton *b, const char *job, int64_t time_us);

/* --- readiness, status, watchdog: systemd's protocol ---------------------------------------- */

/*
 * Send STATE ("READY=1\nSTATUS=warm") to NOTIFY_SOCKET: a path, or '@' and an abstract name. Works
 * under baton and under systemd alike, and needs no handle. 1 = sent; 0 = nobody asked for it (the
 * variable is not set); -EINVAL for an empty STATE or a bad address; else what socket(2) and
 * sendmsg(2) say. Waits only if the receiver's queue is full.
 */
int baton_notify(const char *state);
int baton_ready(void);
int baton_stopping(void);
/* TEXT is one line for people, cut at 1000 bytes. -EINVAL: it holds a newline. */
int baton_status(const char *text);
/* I am alive. To be sent at least every baton_watchdog_ns() / 2. */
int baton_watchdog(void);
/* The watchdog's time for this process (WATCHDOG_USEC, WATCHDOG_PID); 0 = none is expected. */
int64_t baton_watchdog_ns(void);

#ifdef __cplusplus
}
#endif

#endif

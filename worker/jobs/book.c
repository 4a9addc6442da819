/*
 * The ledger process: it is started, watched, replaced when it fails; what its answers mean for the
 * machine. The owner number, by which others see that this process lives; the bell beside the
 * database. What is asked: book_request.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "worker/jobs/runner_internal.h"
#include "worker/lock/jobs_file.h"

#define AGAIN_NS  RUNNER_SECOND_NS
#define ANSWER_NS (30 * RUNNER_SECOND_NS) /* far above what the store itself retries */

/* --- the process --------------------------------------------------------------------------- */
static void trouble(struct runner *r, const char *text)
{
	if (!r->trouble_told)
		runner_say(r, "the ledger of the jobs cannot be written: %s; trying again", text);
	r->trouble_told = true;
}

static void lost(struct runner *r, const char *text)
{
	trouble(r, text);
	if (r->ledger_watched >= 0)
		runner_unwatch(r, r->ledger_watched);
	r->ledger_watched = -1;
	ledger_stop(&r->ledger);
	r->ledger_ns = r->now.boot_ns + AGAIN_NS;
	if (r->look_id != 0) {
		r->look_id = 0;
		machine_look_failed(&r->machine, &r->now);
	}
	book_claims_unknown(r);
	book_unknown(r, &r->update);
}

static void start(struct runner *r)
{
	struct err e;

	r->ledger_ns = JOBS_NEVER;
	if (ledger_start(&r->ledger, &r->set.store, &e) < 0) {
		trouble(r, e.text);
		r->ledger_ns = r->now.boot_ns + AGAIN_NS;
		return;
	}
	r->ledger_watched = r->ledger.fd;
	r->ledger_writes = true;
	runner_watch(r, r->ledger.fd, SOURCE_LEDGER, EPOLLIN | EPOLLOUT);
}

static void watch_bell(struct runner *r)
{
	struct err e;
	int watch;

	if (jobs_file_watch(r->set.store.database, r->bell_fd, &watch, &e) < 0)
		runner_say(r, "%s; `baton jobs run` and pause are noticed late", e.text);
}

/* A number that is held as long as we live, or until the next one. */
static int take_owner(struct runner *r, struct err *e)
{
	int64_t owner = jobs_file_new_owner();
	int fd;

	if (jobs_file_open(r->set.store.database, &fd, e) < 0)
		return e->code;
	if (jobs_file_hold(fd, owner, e) < 0) {
		close(fd);
		return e->code;
	}
	if (r->jobs_fd >= 0)
		close(r->jobs_fd);
	r->jobs_fd = fd;
	r->owner = owner;
	return 0;
}

void book_settled(struct runner *r)
{
	struct err e;

	/* Without it: what is queued is found once this process is gone. */
	if (take_owner(r, &e) < 0)
		runner_say(r, "%s", e.text);
}

int book_open(struct runner *r, struct err *e)
{
	if (r->jobs_fd < 0 && take_owner(r, e) < 0)
		return e->code;
	r->bell_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r->bell_fd < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot watch the ledger's file: %s", strerror(errno));
	watch_bell(r);
	runner_watch(r, r->bell_fd, SOURCE_BELL, EPOLLIN);
	start(r);
	return 0;
}

void book_bell(struct runner *r)
{
	char bytes[4096] __attribute__((aligned(8)));
	ssize_t n;
	bool again = false, any = false;

	while ((n = read(r->bell_fd, bytes, sizeof bytes)) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(bytes + at);

			again |= (e->mask & (IN_IGNORED | IN_MOVE_SELF)) != 0;
			any = true;
			at += (ssize_t)(sizeof *e + e->len);
		}
	}
	if (again)
		watch_bell(r);
	if (any)
		machine_rung(&r->machine, &r->now);
}

/* --- answers ------------------------------------------------------------------------------- */
static void claims_answered(struct runner *r, const struct ledger_reply *reply)
{
	struct ref_list refs = r->claim.refs;

	if (reply->outcome != STORE_DONE && reply->outcome != STORE_REFUSED) {
		trouble(r, reply->text);
		book_claims_unknown(r);
		return;
	}
	r->claim = (struct batch){0};
	for (size_t i = 0; i < refs.count; i++) {
		bool told = i < reply->claimed_count;

		machine_claimed(&r->machine, refs.items[i],
			told ? reply->claimed[i].answer : LEDGER_CLAIM_REFUSED,
			told ? reply->claimed[i].status : LEDGER_QUEUED, &r->now);
	}
	free(refs.items);
}

static void updates_answered(struct runner *r, const struct ledger_reply *reply)
{
	struct ref_list refs = r->update.refs;

	if (reply->outcome != STORE_DONE && reply->outcome != STORE_REFUSED) {
		trouble(r, reply->text);
		book_unknown(r, &r->update);
		return;
	}
	r->update = (struct batch){0};
	for (size_t i = 0; i < refs.count; i++)
		machine_recorded(&r->machine, refs.items[i],
			i >= reply->updated_count || reply->updated[i] == LEDGER_UPDATE_REFUSED,
			&r->now);
	free(refs.items);
}

static void looked(struct runner *r, const struct ledger_reply *reply)
{
	struct jobs_look look = {.runs = reply->runs,
		.run_count = reply->run_count,
		.jobs = reply->jobs,
		.job_count = reply->job_count,
		.requests = reply->requests,
		.request_count = reply->request_count,
		.owner = r->owner};
	bool *alive = calloc(reply->run_count + 1, sizeof *alive);
	struct err e;

	r->look_id = 0;
	if (reply->outcome != STORE_DONE || alive == NULL) {
		trouble(r, reply->text);
		free(alive);
		machine_look_failed(&r->machine, &r->now);
		return;
	}
	for (size_t i = 0; i < reply->run_count; i++) {
		if (reply->runs[i].owner != r->owner &&
			jobs_file_is_held(r->jobs_fd, reply->runs[i].owner, &alive[i], &e) < 0)
			alive[i] = false;
	}
	look.alive = alive;
	machine_looked(&r->machine, &look, &r->now);
	free(alive);
}

static void answered(const struct ledger_reply *reply, void *context)
{
	struct runner *r = context;

	r->asked_ns = 0; /* the next one has its own time */
	if (reply->outcome == STORE_DONE && r->trouble_told) {
		r->trouble_told = false;
		runner_say(r, "the ledger of the jobs can be written again");
	}
	if (reply->id == r->claim.id && reply->op == LEDGER_CLAIM)
		claims_answered(r, reply);
	else if (reply->id == r->update.id && reply->op == LEDGER_UPDATE)
		updates_answered(r, reply);
	else if (reply->id == r->look_id && reply->op == LEDGER_LOOK)
		looked(r, reply);
}

void book_ledger(struct runner *r, uint32_t events)
{
	struct err e;

	if (r->ledger.fd < 0)
		return;
	if ((events & EPOLLOUT) != 0 && ledger_writable(&r->ledger, &e) < 0)
		lost(r, e.text);
	else if ((events & ~(uint32_t)EPOLLOUT) != 0 &&
		 ledger_readable(&r->ledger, answered, r, &e) < 0)
		lost(r, e.text);
}

/* --- the round ----------------------------------------------------------------------------- */
static void watch_ledger(struct runner *r)
{
	bool writes = ledger_wants_write(&r->ledger);

	if (writes == r->ledger_writes)
		return;
	r->ledger_writes = writes;
	runner_change(r, r->ledger.fd, SOURCE_LEDGER, EPOLLIN | (writes ? EPOLLOUT : 0u));
}

/* A process that hangs is replaced: what it was asked is open, and asked again. */
static void check_patience(struct runner *r)
{
	if (r->claim.id == 0 && r->update.id == 0 && r->look_id == 0)
		r->asked_ns = 0;
	else if (r->asked_ns == 0)
		r->asked_ns = r->now.boot_ns;
	else if (r->now.boot_ns >= r->asked_ns + ANSWER_NS) {
		r->asked_ns = 0;
		if (r->ledger.pid > 0)
			(void)kill(r->ledger.pid, SIGKILL);
		lost(r, "no answer");
	}
}

void book_tick(struct runner *r)
{
	struct err e;

	if (r->ledger_ns <= r->now.boot_ns)
		start(r);
	if (r->ledger.fd < 0)
		return;
	book_ask(r);
	if (ledger_writable(&r->ledger, &e) < 0)
		lost(r, e.text);
	else
		watch_ledger(r);
	check_patience(r);
}

int64_t book_next_ns(const struct runner *r)
{
	int64_t answer_ns = r->asked_ns != 0 ? r->asked_ns + ANSWER_NS : JOBS_NEVER;

	return answer_ns < r->ledger_ns ? answer_ns : r->ledger_ns;
}

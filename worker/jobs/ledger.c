/* The client half: queue requests, write, read replies; nothing blocks. */
#include "worker/jobs/ledger.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/jobs/ledger_wire.h"

enum { LEDGER_FD = 3, READ_BYTES = 65536 };

void ledger_init(struct ledger *l)
{
	memset(l, 0, sizeof(*l));
	l->fd = -1;
}

void ledger_stop(struct ledger *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->unanswered = 0;
	ledger_buffer_release(&l->out);
	ledger_buffer_release(&l->in);
}

bool ledger_reaped(struct ledger *l, pid_t pid)
{
	if (pid <= 0 || pid != l->pid)
		return false;
	l->pid = 0;
	return true;
}

/* All signals as at the beginning of a process: what the job worker blocks is its own affair. */
static int start_process(int fd, pid_t *ret_pid)
{
	char *const argv[] = {"job-ledger", NULL};
	char *envp[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL, NULL};
	const char *sanitizer = getenv("ASAN_OPTIONS");
	char sanitizer_text[512];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int code;

	if (sanitizer) {
		snprintf(sanitizer_text, sizeof(sanitizer_text), "ASAN_OPTIONS=%s", sanitizer);
		envp[1] = sanitizer_text;
	}
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawn_file_actions_init(&actions);
	code = posix_spawn_file_actions_adddup2(&actions, fd, LEDGER_FD);
	if (code == 0) /* what the job worker inherited is not for this one */
		code = posix_spawn_file_actions_addclosefrom_np(&actions, LEDGER_FD + 1);
	if (code == 0)
		code = posix_spawn(ret_pid, "/proc/self/exe", &actions, &attributes, argv, envp);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return code;
}

int ledger_start(struct ledger *l, const struct store_settings *settings, struct err *e)
{
	int pair[2], code;
	pid_t pid = 0;

	ledger_stop(l);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(
			e, ERR_SYSTEM, "cannot make the ledger's socket: %s", strerror(errno));
	code = start_process(pair[1], &pid);
	close(pair[1]);
	if (code != 0) {
		close(pair[0]);
		return err_set(e, ERR_SYSTEM, "cannot start the ledger process: %s; trying again",
			strerror(code));
	}
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	l->fd = pair[0];
	l->pid = pid;
	if (ledger_buffer_reserve(&l->out, sizeof(*settings)) != 0) {
		ledger_stop(l);
		return err_set(e, ERR_SYSTEM, "cannot start the ledger process: out of memory");
	}
	memcpy(l->out.bytes, settings, sizeof(*settings));
	l->out.used = sizeof(*settings);
	return 0;
}

/* --- writing ------------------------------------------------------------------------------- */
bool ledger_wants_write(const struct ledger *l)
{
	return l->fd >= 0 && l->out.used > 0;
}

static int gone(struct err *e, const char *how)
{
	return err_set(
		e, ERR_SYSTEM, "the ledger process ended (%s): what it was asked is open", how);
}

int ledger_writable(struct ledger *l, struct err *e)
{
	while (ledger_wants_write(l)) {
		ssize_t sent = send(l->fd, ledger_buffer_data(&l->out), l->out.used,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (sent < 0)
			return gone(e, strerror(errno));
		ledger_buffer_consume(&l->out, (size_t)sent);
	}
	return 0;
}

static uint64_t queue(struct ledger *l, enum ledger_op op, size_t count, struct ledger_head *head,
	const struct ledger_part *parts, size_t part_count)
{
	size_t bytes = sizeof(*head);

	for (size_t i = 0; i < part_count; i++)
		bytes += parts[i].count;
	if (l->fd < 0 || count > LEDGER_BATCH || bytes > LEDGER_QUEUE_BYTES ||
		l->out.used > LEDGER_QUEUE_BYTES - bytes)
		return 0;
	head->op = op;
	head->counts[0] = (uint32_t)count;
	head->id = l->next_id + 1;
	if (ledger_frame_put(&l->out, head, parts, part_count) != 0)
		return 0;
	l->unanswered++;
	return ++l->next_id;
}

uint64_t ledger_claim(struct ledger *l, const struct ledger_claimant *who,
	const struct ledger_firing *firings, size_t count)
{
	struct ledger_head head = {0};
	struct ledger_part parts[] = {{who, sizeof(*who)}, {firings, count * sizeof(*firings)}};

	return queue(l, LEDGER_CLAIM, count, &head, parts, 2);
}

uint64_t ledger_update(struct ledger *l, const struct ledger_update *updates, size_t count)
{
	struct ledger_head head = {0};
	struct ledger_part *parts;
	uint64_t id;

	if (count > LEDGER_BATCH)
		return 0;
	parts = calloc(count + 1, sizeof(*parts));
	if (!parts)
		return 0;
	parts[0] = (struct ledger_part){updates, count * sizeof(*updates)};
	for (size_t i = 0; i < count; i++) {
		assert(updates[i].output_kept <= LEDGER_OUTPUT_MAX);
		parts[i + 1] = (struct ledger_part){updates[i].output, updates[i].output_kept};
	}
	id = queue(l, LEDGER_UPDATE, count, &head, parts, count + 1);
	free(parts);
	return id;
}

uint64_t ledger_look(struct ledger *l, unsigned what)
{
	struct ledger_head head = {.numbers = {what}};

	return queue(l, LEDGER_LOOK, 0, &head, NULL, 0);
}

uint64_t ledger_declare(struct ledger *l, const struct ledger_declared *jobs, size_t count)
{
	struct ledger_head head = {0};
	struct ledger_part part = {jobs, count * sizeof(*jobs)};

	return queue(l, LEDGER_DECLARE, count, &head, &part, 1);
}

uint64_t ledger_refuse(struct ledger *l, int64_t request, const char *reason)
{
	struct ledger_head head = {.numbers = {request}};

	snprintf(head.text, sizeof(head.text), "%s", reason);
	return queue(l, LEDGER_REFUSE, 0, &head, NULL, 0);
}

uint64_t ledger_trim(struct ledger *l, int64_t keep_us, int64_t keep_count)
{
	struct ledger_head head = {.numbers = {keep_us, keep_count}};

	return queue(l, LEDGER_TRIM, 0, &head, NULL, 0);
}

/* --- reading ------------------------------------------------------------------------------- */
/* The records of a reply, if they are as many as it says. */
static int decode(
	const struct ledger_head *head, const char *payload, struct ledger_reply *ret_reply)
{
	struct ledger_reply r = {.id = head->id,
		.op = (enum ledger_op)head->op,
		.outcome = (enum store_outcome)head->outcome,
		.text = head->text,
		.executor_term = head->numbers[0]};
	const uint32_t *counts = head->counts;
	size_t bytes = 0;

	if (r.op == LEDGER_CLAIM) {
		r.claimed_count = counts[0];
		r.claimed = (const void *)payload;
		bytes = counts[0] * sizeof(*r.claimed);
	} else if (r.op == LEDGER_UPDATE) {
		r.updated_count = counts[0];
		r.updated = (const void *)payload;
		bytes = counts[0] * sizeof(*r.updated);
	} else if (r.op == LEDGER_LOOK) {
		r.run_count = counts[0];
		r.job_count = counts[1];
		r.request_count = counts[2];
		r.runs = (const void *)payload;
		bytes = r.run_count * sizeof(*r.runs);
		r.jobs = (const void *)(payload + bytes);
		bytes += r.job_count * sizeof(*r.jobs);
		r.requests = (const void *)(payload + bytes);
		bytes += r.request_count * sizeof(*r.requests);
	}
	if (bytes > head->bytes || head->bytes - bytes >= 8 || head->outcome > STORE_WRONG)
		return ERR_PROTOCOL;
	*ret_reply = r;
	return 0;
}

static int take_replies(struct ledger *l,
	void (*on_reply)(const struct ledger_reply *r, void *context), void *context, struct err *e)
{
	struct ledger_head *head;
	struct ledger_reply reply;
	char *payload;
	int found;

	while ((found = ledger_frame_next(&l->in, &head, &payload)) == 1) {
		size_t bytes = ledger_frame_bytes(head);

		if (decode(head, payload, &reply) != 0 || l->unanswered == 0)
			return err_set(e, ERR_PROTOCOL, "the ledger process speaks nonsense");
		l->unanswered--;
		on_reply(&reply, context);
		if (l->fd < 0)
			return 0; /* stopped by the callback */
		ledger_buffer_consume(&l->in, bytes);
	}
	return found == 0 ? 0 : err_set(e, ERR_PROTOCOL, "the ledger process speaks nonsense");
}

int ledger_readable(struct ledger *l, void (*on_reply)(const struct ledger_reply *r, void *context),
	void *context, struct err *e)
{
	ssize_t got;

	if (l->fd < 0)
		return 0;
	if (ledger_buffer_reserve(&l->in, READ_BYTES) != 0)
		return err_set(e, ERR_SYSTEM, "out of memory for a reply of the ledger");
	got = recv(l->fd, ledger_buffer_data(&l->in) + l->in.used, READ_BYTES, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (got <= 0)
		return gone(e, got == 0 ? "end of file" : strerror(errno));
	l->in.used += (size_t)got;
	return take_replies(l, on_reply, context, e);
}

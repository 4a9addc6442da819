/*
 * libbaton: claims. The right to run one firing of a job of the program's own, once across workers,
 * instances and takeovers. libc alone, as client.c.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "worker/client_internal.h"

enum { CLAIMS = 64, TEXT_BYTES = 160, JOB_BYTES = 128 };

enum state { FREE, ASKED, CLAIMED, REFUSED };

struct claims {
	struct {
		enum state state;
		uint64_t term;         /* under which it was asked for */
		char text[TEXT_BYTES]; /* "JOB TIME" as it is written on the channel */
	} of[CLAIMS];
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A name is one word on the channel: blanks, controls and '%' become %XX. */
static int write_text(char text[TEXT_BYTES], const char *job, int64_t time_us)
{
	size_t used = 0;

	if (job == NULL || *job == '\0' || time_us < 0)
		return -EINVAL;
	for (; *job != '\0'; job++) {
		unsigned char c = (unsigned char)*job;
		if (used + 4 > JOB_BYTES)
			return -ENAMETOOLONG;
		if (c <= 0x20 || c == 0x7f || c == '%')
			used += (size_t)snprintf(text + used, 4, "%%%02X", c);
		else
			text[used++] = (char)c;
	}
	snprintf(text + used, TEXT_BYTES - used, " %lld", (long long)time_us);
	return 0;
}

static int find(const struct claims *c, const char *text)
{
	for (int i = 0; c != NULL && i < CLAIMS; i++) {
		if (c->of[i].state != FREE && strcmp(c->of[i].text, text) == 0)
			return i;
	}
	return -1;
}

static int find_free(const struct claims *c)
{
	for (int i = 0; i < CLAIMS; i++) {
		if (c->of[i].state == FREE)
			return i;
	}
	return -1;
}

/* "claimed JOB TIME ..." */
void baton_internal_answer(struct baton *b, const char *line)
{
	enum state state = strncmp(line, "claimed ", 8) == 0   ? CLAIMED
			   : strncmp(line, "refused ", 8) == 0 ? REFUSED
							       : FREE;

	for (int i = 0; state != FREE && i < CLAIMS; i++) {
		size_t length = strlen(b->claims->of[i].text);
		if (b->claims->of[i].state == ASKED &&
			strncmp(line + 8, b->claims->of[i].text, length) == 0 &&
			(line[8 + length] == '\0' || line[8 + length] == ' '))
			b->claims->of[i].state = state;
	}
}

static int check_reader(const struct baton *b)
{
	int rc = baton_internal_channel(b);

	if (rc == 0 && b->listener == 0)
		return -ENOTCONN;
	return rc == 0 && b->listener != getpid() ? -EPERM : rc;
}

static int send_claim(const struct baton *b, const char *text)
{
	char line[TEXT_BYTES + 16];
	int length = snprintf(line, sizeof(line), "claim %s\n", text);
	ssize_t sent;

	do {
		sent = send(b->channel, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return sent == length ? 0 : -EIO;
}

int baton_claim_ask(struct baton *b, const char *job, int64_t time_us)
{
	char text[TEXT_BYTES];
	int at, rc = check_reader(b);

	if (rc == 0)
		rc = write_text(text, job, time_us);
	if (rc != 0)
		return rc;
	if (!baton_may_start(b))
		return 0;
	if (b->claims == NULL)
		b->claims = calloc(1, sizeof(*b->claims));
	if (b->claims == NULL)
		return -ENOMEM;
	if (find(b->claims, text) >= 0)
		return -EALREADY;
	at = find_free(b->claims);
	if (at < 0)
		return -ENOBUFS;
	rc = send_claim(b, text);
	if (rc != 0)
		return rc;
	b->claims->of[at].state = ASKED;
	b->claims->of[at].term = baton_term(b);
	memcpy(b->claims->of[at].text, text, sizeof(text));
	return 1;
}

int baton_claim_answer(struct baton *b, const char *job, int64_t time_us)
{
	char text[TEXT_BYTES];
	int at, rc = check_reader(b);
	enum state state;

	if (rc == 0)
		rc = write_text(text, job, time_us);
	if (rc != 0)
		return rc;
	at = find(b->claims, text);
	if (at < 0)
		return -ENOENT;
	state = b->claims->of[at].state;
	if (state == ASKED)
		return b->at_end ? -EPIPE : -EAGAIN;
	b->claims->of[at].state = FREE;
	/* What the lease no longer covers is not begun. A demotion that was heard meanwhile does
	 * not count: the claim was asked for before it, and nobody else will run it. */
	return state == CLAIMED && baton_term(b) != 0 && baton_term(b) == b->claims->of[at].term;
}

static void forget(struct baton *b, const char *job, int64_t time_us)
{
	char text[TEXT_BYTES];
	int at = write_text(text, job, time_us) == 0 ? find(b->claims, text) : -1;

	if (at >= 0)
		b->claims->of[at].state = FREE;
}

/* Takes the lines that are there; events wait for baton_next_event. */
static int take_lines(struct baton *b)
{
	for (;;) {
		int rc;

		if (b->waiting_count == EVENTS_WAITING)
			return -EAGAIN;
		rc = baton_internal_read(b, &b->waiting[b->waiting_count]);
		if (rc <= 0)
			return rc;
		b->waiting_count++;
	}
}

int baton_claim(struct baton *b, const char *job, int64_t time_us, int64_t timeout_ns)
{
	int64_t end = timeout_ns < 0 ? INT64_MAX : now_ns() + timeout_ns;
	int rc = baton_claim_ask(b, job, time_us);

	if (rc != 1)
		return rc;
	while (rc == 1) {
		struct pollfd wait = {.fd = b->channel, .events = POLLIN};
		int64_t left_ms;

		rc = take_lines(b);
		if (rc != 0)
			break;
		rc = baton_claim_answer(b, job, time_us);
		if (rc != -EAGAIN)
			return rc;
		left_ms = end == INT64_MAX ? INT_MAX : (end - now_ns() + 999999) / 1000000;
		rc = left_ms <= 0 ? -ETIMEDOUT : 1;
		if (rc == 1 && poll(&wait, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms) < 0 &&
			errno != EINTR)
			rc = -errno;
	}
	forget(b, job, time_us);
	return rc;
}

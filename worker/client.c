/*
 * libbaton. libc alone, nothing of the rest of this tree: the offsets of the lease page and the
 * words of the channel are written down here a second time, as in every client, and a unit test
 * compares them with worker/lease.c and worker/channel.c.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "worker/baton.h"
#include "worker/client_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct lease { /* what the page says at one instant */
	int64_t deadline_ns, soft_deadline_ns;
	uint64_t term;
};

/* --- the page ------------------------------------------------------------------------------- */

static inline int64_t now_ns(void)
{
	struct timespec now;

	if (clock_gettime(CLOCK_BOOTTIME, &now) != 0)
		return INT64_MAX; /* later than any deadline */
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int baton_is_executor(const struct baton *b)
{
	int64_t deadline;

	if (b == NULL || b->page == NULL)
		return 0;
	deadline = __atomic_load_n(&b->page->deadline_ns, __ATOMIC_ACQUIRE);
	return deadline != 0 && now_ns() < deadline;
}

/* A term belongs to the deadline only if that is the same before and after. */
static struct lease read_lease(const struct baton *b)
{
	struct lease l = {0, 0, 0};

	if (b == NULL || b->page == NULL)
		return l;
	for (int i = 0; i < TRIES; i++) {
		l.deadline_ns = __atomic_load_n(&b->page->deadline_ns, __ATOMIC_ACQUIRE);
		l.term = __atomic_load_n(&b->page->term, __ATOMIC_ACQUIRE);
		l.soft_deadline_ns = __atomic_load_n(&b->page->soft_deadline_ns, __ATOMIC_ACQUIRE);
		if (__atomic_load_n(&b->page->deadline_ns, __ATOMIC_ACQUIRE) == l.deadline_ns)
			return l;
	}
	return (struct lease){0, 0, 0};
}

static bool is_valid(const struct lease *l)
{
	return l->deadline_ns != 0 && now_ns() < l->deadline_ns;
}

int baton_may_start(const struct baton *b)
{
	struct lease l = read_lease(b);
	int64_t now;

	if (l.deadline_ns == 0 || l.term == __atomic_load_n(&b->demoted_term, __ATOMIC_RELAXED))
		return 0;
	now = now_ns();
	return now < l.deadline_ns && now < l.soft_deadline_ns;
}

uint64_t baton_term(const struct baton *b)
{
	struct lease l = read_lease(b);

	return is_valid(&l) ? l.term : 0;
}

int64_t baton_lease_left_ns(const struct baton *b)
{
	struct lease l = read_lease(b);
	int64_t left;

	if (l.deadline_ns == 0)
		return 0;
	left = l.deadline_ns - now_ns();
	return left > 0 ? left : 0;
}

/* --- opening -------------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 5))) static int fail(
	char *error, size_t bytes, int code, const char *format, ...)
{
	va_list arguments;

	if (error != NULL && bytes > 0) {
		va_start(arguments, format);
		vsnprintf(error, bytes, format, arguments);
		va_end(arguments);
	}
	return code;
}

/* The descriptor that VARIABLE names: *ret_fd = -1 when the variable is not set. */
static int named_descriptor(
	const char *variable, int *ret_fd, struct stat *ret_st, char *error, size_t bytes)
{
	const char *text = getenv(variable);
	char *end;
	long number;

	*ret_fd = -1;
	if (text == NULL || *text == '\0')
		return 0;
	errno = 0;
	number = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number > INT_MAX)
		return fail(error, bytes, -EINVAL, "%s='%.40s' is not the number of a descriptor",
			variable, text);
	if (fstat((int)number, ret_st) != 0)
		return fail(error, bytes, -errno,
			"descriptor %ld (%s) cannot be used: %s; was it closed on the way here?",
			number, variable, strerror(errno));
	*ret_fd = (int)number;
	return 0;
}

/* A file that can shrink would make a later read of the page a SIGBUS: only a sealed one will do.
 */
static int check_page(const struct page *page, int fd, char *error, size_t bytes)
{
	struct stat st;

	if (page->magic != 0x4e544142u)
		return fail(error, bytes, -EINVAL,
			"descriptor %d (BATON_LEASE_FD) is not a lease page: wrong magic", fd);
	if (page->version != 1)
		return fail(error, bytes, -EINVAL,
			"the lease page has layout version %u, this library knows 1",
			page->version);
	if (page->time_namespace == 0)
		return 0;
	if (stat("/proc/self/ns/time", &st) != 0 || st.st_ino != page->time_namespace)
		return fail(error, bytes, -EXDEV,
			"this process is not in the supervisor's time namespace: its lease cannot "
			"be "
			"compared with the clock");
	return 0;
}

static int open_page(struct baton *b, char *error, size_t bytes)
{
	struct stat st;
	void *page;
	int fd, seals, rc;

	rc = named_descriptor("BATON_LEASE_FD", &fd, &st, error, bytes);
	if (rc != 0 || fd < 0)
		return rc;
	seals = S_ISREG(st.st_mode) ? fcntl(fd, F_GET_SEALS) : -1;
	if (st.st_size != PAGE_BYTES || seals < 0 || (seals & F_SEAL_SHRINK) == 0)
		return fail(error, bytes, -EINVAL,
			"descriptor %d (BATON_LEASE_FD) is not a lease page: not a sealed file of "
			"%d "
			"bytes",
			fd, PAGE_BYTES);
	page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return fail(error, bytes, -errno, "cannot map the lease page: %s", strerror(errno));
	b->page = page;
	return check_page(b->page, fd, error, bytes);
}

static int open_channel(struct baton *b, char *error, size_t bytes)
{
	socklen_t length = sizeof(int);
	struct stat st;
	int fd, rc, type = 0;

	rc = named_descriptor("BATON_CHANNEL_FD", &fd, &st, error, bytes);
	if (rc != 0 || fd < 0)
		return rc;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM)
		return fail(error, bytes, -EINVAL,
			"descriptor %d (BATON_CHANNEL_FD) is not a stream socket", fd);
	b->channel = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (b->channel < 0)
		return fail(
			error, bytes, -errno, "cannot copy descriptor %d: %s", fd, strerror(errno));
	b->channel_device = st.st_dev;
	b->channel_inode = st.st_ino;
	return 0;
}

int baton_open(struct baton **ret_baton, char *error, size_t error_bytes)
{
	struct baton *b = calloc(1, sizeof(*b));
	int rc;

	*ret_baton = NULL;
	if (b == NULL)
		return fail(error, error_bytes, -ENOMEM, "out of memory");
	b->channel = -1;
	rc = open_page(b, error, error_bytes);
	if (rc == 0)
		rc = open_channel(b, error, error_bytes);
	if (rc == 0 && b->page == NULL && b->channel < 0)
		rc = fail(error, error_bytes, -ENOENT,
			"neither BATON_LEASE_FD nor BATON_CHANNEL_FD is set: not started by baton");
	if (rc != 0) {
		baton_close(b);
		return rc;
	}
	*ret_baton = b;
	return 0;
}

void baton_close(struct baton *b)
{
	if (b == NULL)
		return;
	if (b->page != NULL)
		munmap((void *)(uintptr_t)b->page, PAGE_BYTES);
	if (b->channel >= 0)
		close(b->channel);
	free(b->claims);
	free(b);
}

/* --- the channel ---------------------------------------------------------------------------- */

int baton_internal_channel(const struct baton *b)
{
	struct stat st;

	if (b == NULL || b->channel < 0)
		return -ENOTCONN;
	if (fstat(b->channel, &st) != 0 || st.st_dev != b->channel_device ||
		st.st_ino != b->channel_inode)
		return -EBADF;
	return 0;
}

/* Lines are far below what a socket takes at once: all of it or EAGAIN. */
__attribute__((format(printf, 2, 3))) static int say(const struct baton *b, const char *format, ...)
{
	char line[64];
	va_list arguments;
	int length, rc = baton_internal_channel(b);
	ssize_t sent;

	if (rc != 0)
		return rc;
	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	do {
		sent = send(b->channel, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return sent == length ? 0 : -EIO;
}

int baton_promoted(struct baton *b, uint64_t term)
{
	return say(b, "promoted %llu\n", (unsigned long long)term);
}

int baton_demoted(struct baton *b, uint64_t term)
{
	return say(b, "demoted %llu\n", (unsigned long long)term);
}

int baton_busy(struct baton *b, unsigned int count)
{
	return say(b, "busy %u\n", count);
}

int baton_listen(struct baton *b)
{
	int rc = baton_internal_channel(b);

	if (rc != 0)
		return rc;
	if (b->listener != getpid()) { /* a child's program was not told what its parent's was */
		b->told_term = b->demoted_term = 0;
		b->line_used = 0;
		b->line_skipped = false;
		b->waiting_count = 0;
		free(b->claims); /* the answers to the parent's claims are for the parent */
		b->claims = NULL;
	}
	b->listener = getpid();
	b->from_page = true;
	/* A supervisor that is gone or does not read is found out by baton_next_event. */
	(void)say(b, "hello\n");
	return b->channel;
}

static void fill_event(
	struct baton_event *event, int kind, int reason, uint64_t term, int64_t time_ns)
{
	memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->reason = reason;
	event->term = term;
	event->time_ns = time_ns;
}

static int tell_promote(struct baton *b, struct baton_event *event, uint64_t term, int64_t time_ns)
{
	b->told_term = term;
	fill_event(event, BATON_PROMOTE, 0, term, time_ns);
	return 1;
}

static int tell_demote(struct baton *b, struct baton_event *event, int reason, int64_t time_ns)
{
	uint64_t term = b->told_term;

	b->told_term = 0;
	__atomic_store_n(&b->demoted_term, term, __ATOMIC_RELAXED);
	fill_event(event, BATON_DEMOTE, reason, term, time_ns);
	return 1;
}

/* The N-th word of LINE as a number; false when there is none or it is not one. */
static bool number_word(const char *line, int n, uint64_t *ret_number)
{
	char *end;

	for (; n > 0; n--) {
		line = strchr(line, ' ');
		if (line == NULL)
			return false;
		line++;
	}
	if (*line < '0' || *line > '9')
		return false;
	errno = 0;
	*ret_number = strtoull(line, &end, 10);
	return errno == 0 && (*end == '\0' || *end == ' ');
}

static int reason_of(const char *line)
{
	static const struct {
		const char *name;
		int reason;
	} names[] = {
		{"handoff", BATON_HANDOFF}, {"shutdown", BATON_SHUTDOWN}, {"lost", BATON_LOST}};
	const char *word = strchr(line, ' '); /* before the term; there are three words */
	size_t length;

	word = strchr(word + 1, ' ') + 1;
	length = strcspn(word, " ");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i].name) == length && memcmp(word, names[i].name, length) == 0)
			return names[i].reason;
	}
	return BATON_OTHER;
}

static int64_t milliseconds(uint64_t number)
{
	return number > INT64_MAX / 1000000 ? INT64_MAX : (int64_t)number * 1000000;
}

/* 1 = the line is an event. Only what the page confirms counts: a promotion of the term that it
 * shows, a demotion of the term that the program was told. */
static int take_line(struct baton *b, const char *line, struct baton_event *event)
{
	struct lease l = read_lease(b);
	uint64_t term, time_ms;

	if (b->claims != NULL)
		baton_internal_answer(b, line);
	if (strncmp(line, "promote ", 8) == 0 && number_word(line, 1, &term) &&
		number_word(line, 2, &time_ms)) {
		if (!is_valid(&l) || l.term != term || b->told_term == term ||
			b->demoted_term == term)
			return 0;
		if (b->told_term != 0) { /* the end of that one was never told: two events */
			b->from_page = true;
			return tell_demote(b, event, BATON_LOST, 0);
		}
		return tell_promote(b, event, term, milliseconds(time_ms));
	}
	if (strncmp(line, "demote ", 7) == 0 && number_word(line, 1, &term) &&
		number_word(line, 3, &time_ms)) {
		if (b->told_term != term)
			return 0;
		return tell_demote(b, event, reason_of(line), milliseconds(time_ms));
	}
	return 0;
}

/* Collect one byte; true = b->line is a whole line now. */
static bool collect(struct baton *b, char c)
{
	bool whole;

	if (c != '\n') {
		if (b->line_used == LINE_BYTES - 1 || c == '\0')
			b->line_skipped = true;
		else
			b->line[b->line_used++] = c;
		return false;
	}
	whole = !b->line_skipped;
	b->line[b->line_used] = '\0';
	b->line_used = 0;
	b->line_skipped = false;
	return whole;
}

/* Reads up to the first event and no further, so that nothing has to be queued here: looks at what
 * is there, then takes what was used. 1 = event, 0 = nothing more, negative = error. */
int baton_internal_read(struct baton *b, struct baton_event *event)
{
	char bytes[LINE_BYTES];

	for (;;) {
		size_t used = 0;
		int found = 0;
		ssize_t got = recv(b->channel, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got < 0 && errno != ECONNRESET)
			return -errno;
		if (got <= 0) {
			b->at_end = true;
			return 0;
		}
		while (used < (size_t)got && found == 0) {
			if (collect(b, bytes[used++]))
				found = take_line(b, b->line, event);
		}
		while (recv(b->channel, bytes, used, MSG_DONTWAIT) < 0 && errno == EINTR)
			;
		if (found != 0)
			return found;
	}
}

int baton_next_event(struct baton *b, struct baton_event *ret_event)
{
	struct lease l;
	int rc = baton_internal_channel(b);

	if (rc != 0)
		return rc;
	if (b->listener == 0)
		return -ENOTCONN;
	if (b->listener != getpid())
		return -EPERM;
	if (b->waiting_count > 0) { /* read on the way to the answer of a claim */
		*ret_event = b->waiting[0];
		b->waiting_count--;
		memmove(b->waiting, b->waiting + 1, b->waiting_count * sizeof(b->waiting[0]));
		return 1;
	}
	l = read_lease(b);
	if (b->from_page) {
		b->from_page = false;
		if (is_valid(&l) && b->told_term == 0 && l.term != b->demoted_term)
			return tell_promote(b, ret_event, l.term, l.deadline_ns - now_ns());
	}
	rc = b->at_end ? 0 : baton_internal_read(b, ret_event);
	if (rc != 0)
		return rc;
	l = read_lease(b);
	if (b->told_term != 0 && (!is_valid(&l) || l.term != b->told_term))
		return tell_demote(b, ret_event, BATON_LOST, 0);
	return b->at_end ? -EPIPE : 0;
}

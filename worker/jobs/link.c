/* The supervisor's side: the channel, the lease page, the configuration, what `status` shows. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/baton.h"
#include "worker/jobs/runner_internal.h"

#define AGAIN_NS      RUNNER_SECOND_NS
#define ANSWER_NS     (10 * RUNNER_SECOND_NS)
#define STOP_NS       (4 * RUNNER_SECOND_NS) /* below the margin that conf/load_job.c leaves */
#define MOST_DOCUMENT (256u << 20)
#define RECONFIGURE   "jobs-config"
#define NO_JOBS       "jobs-none"

/* --- opening ------------------------------------------------------------------------------- */
static int descriptor(const char *name)
{
	const char *text = getenv(name);
	char *end = NULL;
	long fd = text != NULL ? strtol(text, &end, 10) : -1;

	if (text == NULL || end == text || *end != '\0' || fd < 3 || fd > INT_MAX)
		return -1;
	return fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0 ? (int)fd : -1;
}

int link_open(struct runner *r, struct err *e)
{
	int fd = descriptor("BATON_LEASE_FD");
	void *page;

	r->channel_fd = descriptor("BATON_CHANNEL_FD");
	if (fd < 0 || r->channel_fd < 0 || getenv("BATON_CONTROL") == NULL)
		return err_set(e, ERR_CONFIG,
			"job-worker is started by baton itself, for [job:] sections");
	page = mmap(NULL, LEASE_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return err_set(e, ERR_SYSTEM, "cannot map the lease page: %s", strerror(errno));
	close(fd);
	r->page = page;
	if (r->page->magic != LEASE_MAGIC || r->page->version != LEASE_VERSION)
		return err_set(e, ERR_WRONG, "the lease page is of another version");
	(void)fcntl(r->channel_fd, F_SETFL, O_NONBLOCK);
	channel_buffer_clear(&r->channel_in);
	runner_watch(r, r->channel_fd, SOURCE_CHANNEL, EPOLLIN);
	r->control_ns = 0;
	r->config_wanted = true;
	return 0;
}

/* --- the lease ----------------------------------------------------------------------------- */
static bool holds(const struct runner *r, uint64_t term)
{
	int64_t deadline = lease_deadline(r->page);

	return deadline != 0 && lease_now_ns() < deadline && r->page->term == term;
}

int64_t link_soft_ns(const struct runner *r)
{
	int64_t soft = __atomic_load_n(&r->page->soft_deadline_ns, __ATOMIC_ACQUIRE);

	return r->machine.term != 0 && holds(r, r->machine.term) ? soft : 0;
}

/* --- the channel --------------------------------------------------------------------------- */
static void say(struct runner *r, const struct channel_message *m)
{
	char line[CHANNEL_LINE_BYTES];
	size_t n = channel_encode(m, line);

	if (r->channel_fd >= 0)
		(void)send(r->channel_fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void say_term(struct runner *r, enum channel_verb verb, uint64_t term)
{
	say(r, &(struct channel_message){.verb = verb, .term = term});
}

static void promoted(struct runner *r, uint64_t term)
{
	if (!holds(r, term))
		return; /* the page decides */
	if (r->machine.state != JOBS_IDLE && r->machine.term != term) {
		r->promote_term = term;
		return;
	}
	say_term(r, CHANNEL_PROMOTED, term);
	machine_promoted(&r->machine, term, &r->now);
	runner_now(r); /* the lease counts from here on */
}

static void demoted(struct runner *r, const struct channel_message *m)
{
	int64_t grace_ns = m->number * (RUNNER_SECOND_NS / 1000);

	r->promote_term = 0;
	if (r->machine.state == JOBS_IDLE || r->machine.state == JOBS_SETTLING) {
		say_term(r, CHANNEL_DEMOTED, m->term);
		return;
	}
	if (m->term != r->machine.term)
		return;
	machine_demoted(
		&r->machine, grace_ns, m->reason == CHANNEL_HANDOFF ? -1 : grace_ns, &r->now);
}

/* A reload took all jobs out: the demotion comes next. */
static void take_none(struct runner *r)
{
	if (machine_configure(&r->machine, NULL, 0, r->machine.max_running, &r->now) == 0)
		r->declare_wanted = r->machine.state == JOBS_LEADING;
}

static void read_line(const char *line, void *context)
{
	struct runner *r = context;
	struct channel_message m;
	struct err e;

	if (channel_decode(line, &m, &e) < 0)
		return;
	if (m.verb == CHANNEL_PROMOTE)
		promoted(r, m.term);
	else if (m.verb == CHANNEL_DEMOTE)
		demoted(r, &m);
	else if (m.verb == CHANNEL_UNKNOWN && strcmp(m.word, RECONFIGURE) == 0)
		link_want_config(r);
	else if (m.verb == CHANNEL_UNKNOWN && strcmp(m.word, NO_JOBS) == 0)
		take_none(r);
}

/* Without a supervisor nobody vouches for the lease. */
static void abandoned(struct runner *r)
{
	runner_unwatch(r, r->channel_fd);
	close(r->channel_fd);
	r->channel_fd = -1;
	task_kill_all(r);
	r->stopping = true;
	machine_demoted(&r->machine, 0, 0, &r->now);
}

void link_channel(struct runner *r)
{
	char bytes[4096];
	struct err e;
	ssize_t n = recv(r->channel_fd, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n > 0)
		(void)channel_feed(&r->channel_in, bytes, (size_t)n, read_line, r, &e);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		abandoned(r);
}

/* --- the configuration --------------------------------------------------------------------- */
static void control_end(struct runner *r, int64_t again_ns)
{
	if (r->control_fd >= 0) {
		runner_unwatch(r, r->control_fd);
		close(r->control_fd);
	}
	r->control_fd = -1;
	free(r->control_in);
	r->control_in = NULL;
	r->control_used = r->control_capacity = 0;
	r->control_ns = again_ns;
}

static void control_failed(struct runner *r, const char *what, const char *why)
{
	if (!r->config_told)
		runner_say(r, "cannot ask the supervisor for the jobs: %s: %s; trying again", what,
			why);
	r->config_told = true;
	control_end(r, r->now.boot_ns + AGAIN_NS);
}

void link_want_config(struct runner *r)
{
	r->config_wanted = true;
	control_end(r, 0);
}

static void control_begin(struct runner *r)
{
	static const char request[] = "{\"v\":1,\"id\":1,\"cmd\":\"jobs-config\"}\n";
	const char *path = getenv("BATON_CONTROL");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	socklen_t bytes = sizeof to;

	r->control_ns = r->now.boot_ns + ANSWER_NS;
	if (strlen(path) >= sizeof to.sun_path) {
		control_failed(r, path, "the path is too long");
		return;
	}
	strcpy(to.sun_path, path);
	if (path[0] == '@') {
		to.sun_path[0] = '\0';
		bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	}
	r->control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (r->control_fd >= 0)
		runner_watch(r, r->control_fd, SOURCE_CONTROL, EPOLLIN);
	if (r->control_fd < 0 || connect(r->control_fd, (struct sockaddr *)&to, bytes) < 0 ||
		send(r->control_fd, request, sizeof request - 1, MSG_NOSIGNAL) !=
			(ssize_t)sizeof request - 1)
		control_failed(r, path, strerror(errno));
}

static void complain(const char *job, const char *text)
{
	fprintf(stderr, "jobs | %s: %s; it does not run\n", job, text);
}

static void take_set(struct runner *r, struct job_set *set)
{
	struct jobs_policy *policies = calloc(set->count + 1, sizeof *policies);
	struct job_set old = r->set;
	struct err e;

	for (size_t i = 0; policies != NULL && i < set->count; i++)
		policies[i] = set->items[i]->policy;
	if (policies == NULL || machine_configure(&r->machine, policies, set->count,
					set->max_running, &r->now) < 0) {
		free(policies);
		job_set_release(set);
		control_failed(r, "the jobs", "out of memory");
		return;
	}
	free(policies);
	if (r->ready) /* another database needs another supervisor */
		set->store = old.store;
	r->set = *set;
	job_set_release(&old);
	r->config_wanted = r->config_told = false;
	control_end(r, JOBS_NEVER);
	if (r->ready) {
		r->declare_wanted = r->machine.state == JOBS_LEADING;
		return;
	}
	if (book_open(r, &e) < 0) {
		r->config_wanted = true;
		control_failed(r, "the ledger", e.text);
		return;
	}
	r->ready = true;
	(void)baton_ready();
}

static void take_answer(struct runner *r, const char *line, size_t bytes)
{
	json_t *o = json_loadb(line, bytes, 0, NULL), *result = json_object_get(o, "result");
	const json_t *error = json_object_get(o, "error");
	struct job_set set;
	struct err e;

	if (json_object_get(o, "baton") != NULL) {
		; /* the greeting */
	} else if (!json_is_object(result)) {
		const char *why = json_string_value(json_object_get(error, "message"));

		control_failed(r, "it answered", why != NULL ? why : "something else");
	} else if (job_set_read(result, complain, &set, &e) < 0) {
		control_failed(r, "its answer", e.text);
	} else {
		take_set(r, &set);
	}
	json_decref(o);
	malloc_trim(0); /* the document was the largest thing here */
}

static bool control_read(struct runner *r)
{
	ssize_t n;

	if (r->control_capacity - r->control_used < 65536) {
		size_t capacity = r->control_capacity > 0 ? 2 * r->control_capacity : 1u << 18;
		char *more = capacity <= MOST_DOCUMENT ? realloc(r->control_in, capacity) : NULL;

		if (more == NULL) {
			control_failed(r, "its answer", "too long");
			return false;
		}
		r->control_in = more;
		r->control_capacity = capacity;
	}
	n = recv(r->control_fd, r->control_in + r->control_used,
		r->control_capacity - r->control_used, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		control_failed(
			r, "it closed the connection", n < 0 ? strerror(errno) : "no answer");
		return false;
	}
	r->control_used += (size_t)n;
	return true;
}

void link_control(struct runner *r, uint32_t events)
{
	char *end;

	(void)events;
	while (r->control_fd >= 0 && control_read(r)) {
		while (r->control_fd >= 0 &&
			(end = memchr(r->control_in, '\n', r->control_used)) != NULL) {
			size_t bytes = (size_t)(end - r->control_in) + 1;
			char *line = malloc(bytes);

			if (line != NULL)
				memcpy(line, r->control_in, bytes);
			memmove(r->control_in, end + 1, r->control_used - bytes);
			r->control_used -= bytes;
			if (line != NULL)
				take_answer(r, line, bytes); /* may close it */
			free(line);
		}
	}
}

/* --- at the end of a round ----------------------------------------------------------------- */
static void say_status(struct runner *r)
{
	const char *plural = r->set.count == 1 ? "" : "s";

	if (r->machine.state == JOBS_IDLE)
		snprintf(r->status, sizeof r->status, "standby, %zu job%s", r->set.count, plural);
	else
		snprintf(r->status, sizeof r->status, "%zu job%s, %d running, %d queued",
			r->set.count, plural, r->machine.running, r->machine.queued);
	if (!r->ready || strcmp(r->status, r->status_said) == 0 ||
		r->now.boot_ns < r->status_ns + RUNNER_SECOND_NS)
		return;
	r->status_ns = r->now.boot_ns;
	memcpy(r->status_said, r->status, sizeof r->status);
	(void)baton_status(r->status);
}

void link_tick(struct runner *r)
{
	if (r->config_wanted && r->control_ns <= r->now.boot_ns) {
		if (r->control_fd >= 0)
			control_failed(r, "it", "no answer in time");
		else
			control_begin(r);
	}
	if (r->busy != r->busy_said) {
		r->busy_said = r->busy;
		say(r, &(struct channel_message){.verb = CHANNEL_BUSY, .number = r->busy});
	}
	if (r->demoted_term != 0) {
		task_kill_hooks(r);
		say_term(r, CHANNEL_DEMOTED, r->demoted_term);
		r->demoted_term = 0;
	}
	if (r->promote_term != 0 && r->machine.state == JOBS_IDLE) {
		uint64_t term = r->promote_term;

		r->promote_term = 0;
		promoted(r, term);
	}
	say_status(r);
}

int64_t link_next_ns(const struct runner *r)
{
	int64_t at = r->config_wanted ? r->control_ns : JOBS_NEVER;

	if (r->ready && strcmp(r->status, r->status_said) != 0 &&
		r->status_ns + RUNNER_SECOND_NS < at)
		at = r->status_ns + RUNNER_SECOND_NS;
	return at;
}

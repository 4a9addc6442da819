/* worker/jobs/ledger.c, ledger_process.c, worker/lock/jobs_file.c: the process and its client; what
 * happens when it dies before, during and after a COMMIT. */
#include "tests/unit/ledger_fixture.h"

#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/shim_vfs.h"
#include "worker/jobs/ledger.h"
#include "worker/jobs/ledger_wire.h"
#include "worker/lock/jobs_file.h"

enum { PATIENCE_MS = 20000, REPLIES = 32 };

struct got { /* what came back, copied */
	int count;
	uint64_t ids[REPLIES];
	enum ledger_op op;
	enum store_outcome outcome;
	char text[512];
	struct ledger_claimed claimed[LEDGER_BATCH];
	enum ledger_updated updated[LEDGER_BATCH];
	size_t run_count, job_count, request_count;
	struct ledger_run runs[8];
	struct ledger_job jobs[8];
	struct ledger_request requests[8];
	int64_t executor_term;
};

struct process {
	struct fixture f;
	struct ledger l;
	struct got got;
};

static int setup(void **state)
{
	struct process *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	ledger_fixture(&p->f);
	ledger_init(&p->l);
	*state = p;
	return 0;
}

static void end_process(struct process *p)
{
	pid_t pid = p->l.pid;

	ledger_stop(&p->l);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	p->l.pid = 0;
}

static int teardown(void **state)
{
	struct process *p = *state;

	end_process(p);
	fixture_end(&p->f);
	free(p);
	return 0;
}

#define SOME(count, most) ((count) < (most) ? (count) : (most))

/* Of nothing there is no address. */
static void copy(void *to, const void *from, size_t bytes)
{
	if (bytes > 0)
		memcpy(to, from, bytes);
}

static void on_reply(const struct ledger_reply *r, void *context)
{
	struct got *g = context;

	if (g->count < REPLIES)
		g->ids[g->count] = r->id;
	g->count++;
	g->op = r->op;
	g->outcome = r->outcome;
	snprintf(g->text, sizeof(g->text), "%s", r->text);
	copy(g->claimed, r->claimed, r->claimed_count * sizeof(*r->claimed));
	copy(g->updated, r->updated, r->updated_count * sizeof(*r->updated));
	g->run_count = r->run_count;
	g->job_count = r->job_count;
	g->request_count = r->request_count;
	copy(g->runs, r->runs, SOME(r->run_count, 8) * sizeof(*r->runs));
	copy(g->jobs, r->jobs, SOME(r->job_count, 8) * sizeof(*r->jobs));
	copy(g->requests, r->requests, SOME(r->request_count, 8) * sizeof(*r->requests));
	g->executor_term = r->executor_term;
}

/* As the job worker's loop does it, until COUNT replies are there or the process is gone. */
static int pump(struct process *p, int count)
{
	int code = 0;

	memset(&p->got, 0, sizeof(p->got));
	while (code == 0 && p->got.count < count) {
		struct pollfd at = {.fd = p->l.fd, .events = POLLIN};

		if (ledger_wants_write(&p->l))
			at.events |= POLLOUT;
		assert_true(poll(&at, 1, PATIENCE_MS) == 1);
		if (at.revents & POLLOUT)
			code = ledger_writable(&p->l, &p->f.e);
		if (code == 0 && (at.revents & (POLLIN | POLLHUP)))
			code = ledger_readable(&p->l, on_reply, &p->got, &p->f.e);
	}
	return code;
}

static void start(struct process *p)
{
	end_process(p);
	if (ledger_start(&p->l, &p->f.a.settings, &p->f.e) != 0)
		fail_msg("%s", p->f.e.text);
}

#define ask(p, request)                                                                            \
	do {                                                                                       \
		uint64_t id_ = (request);                                                          \
		assert_true(id_ > 0);                                                              \
		if (pump(p, 1) != 0)                                                               \
			fail_msg("%s", (p)->f.e.text);                                             \
		assert_int_equal((p)->got.ids[0], id_);                                            \
	} while (0)

/* --- the process --------------------------------------------------------------------------- */
static void every_request_is_answered(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing of[2] = {
		firing("a", HOUR, LEDGER_RUNNING), firing("b", HOUR, LEDGER_QUEUED)};
	struct ledger_update u[2] = {
		update("a", HOUR, OWNER, LEDGER_OK), update("b", HOUR, OWNER, LEDGER_RUNNING)};
	struct ledger_declared d = {.job = "a", .schedule = "@daily"};
	struct ledger_request r;

	start(p);
	ask(p, ledger_declare(&p->l, &d, 1));
	assert_int_equal(p->got.outcome, STORE_DONE);
	ask(p, ledger_claim(&p->l, &who, of, 2));
	assert_int_equal(p->got.outcome, STORE_DONE);
	assert_int_equal(p->got.claimed[0].answer, LEDGER_CLAIM_DONE);
	assert_int_equal(p->got.claimed[1].answer, LEDGER_CLAIM_DONE);
	ask(p, ledger_claim(&p->l, &who, of, 2));
	assert_int_equal(p->got.claimed[1].answer, LEDGER_CLAIM_MINE);
	u[0].output = "one";
	u[0].output_kept = 3;
	u[0].exit_code = 0;
	u[1].output = "four!";
	u[1].output_kept = 5;
	ask(p, ledger_update(&p->l, u, 2));
	assert_int_equal(p->got.updated[0], LEDGER_UPDATE_DONE);
	assert_int_equal(p->got.updated[1], LEDGER_UPDATE_DONE);
	assert_outcome(
		&p->f, p->f.b.ops->jobs->request(&p->f.b, "a", "me", &r, &p->f.e), STORE_DONE);
	ask(p, ledger_look(&p->l, LEDGER_LOOK_RUNS | LEDGER_LOOK_JOBS | LEDGER_LOOK_REQUESTS));
	assert_int_equal(p->got.run_count, 1);
	assert_string_equal(p->got.runs[0].key.job, "b");
	assert_int_equal(p->got.runs[0].output_kept, 5);
	assert_int_equal(p->got.job_count, 2);
	assert_int_equal(p->got.jobs[0].last_fire_us, HOUR);
	assert_int_equal(p->got.request_count, 1);
	assert_int_equal(p->got.requests[0].id, r.id);
	assert_int_equal(p->got.executor_term, TERM);
	ask(p, ledger_refuse(&p->l, r.id, "not today"));
	assert_int_equal(p->got.outcome, STORE_DONE);
	ask(p, ledger_trim(&p->l, 0, 1));
	assert_int_equal(p->got.outcome, STORE_DONE);
	who.term = 7;
	ask(p, ledger_claim(&p->l, &who, of, 2));
	assert_int_equal(p->got.outcome, STORE_REFUSED);
	assert_int_equal(p->got.claimed[1].answer, LEDGER_CLAIM_REFUSED);
	assert_non_null(strstr(p->got.text, "another executor"));
}

static void requests_one_behind_the_other(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	uint64_t first = 0;

	start(p);
	for (int i = 0; i < 20; i++) {
		struct ledger_firing of = firing("a", (i + 1) * HOUR, LEDGER_RUNNING);
		uint64_t id = ledger_claim(&p->l, &who, &of, 1);
		first = first ? first : id;
	}
	assert_int_equal(p->l.unanswered, 20);
	assert_int_equal(pump(p, 20), 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(p->got.ids[i], first + (uint64_t)i);
	assert_int_equal(p->l.unanswered, 0);
}

static void large_outputs_are_kept(void **state)
{
	enum { COUNT = 12, BYTES = 1 << 20 };
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing of[COUNT];
	struct ledger_update u[COUNT];
	char *output = malloc(BYTES);

	start(p);
	memset(output, 'x', BYTES);
	for (int i = 0; i < COUNT; i++) {
		of[i] = firing("a", (i + 1) * HOUR, LEDGER_RUNNING);
		u[i] = update("a", (i + 1) * HOUR, OWNER, LEDGER_OK);
		u[i].output = output;
		u[i].output_kept = BYTES - (uint32_t)i; /* none is a multiple of eight but one */
	}
	ask(p, ledger_claim(&p->l, &who, of, COUNT));
	ask(p, ledger_update(&p->l, u, COUNT));
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(p->got.updated[i], LEDGER_UPDATE_DONE);
		assert_int_equal(
			the_run(&p->f, "a", (i + 1) * HOUR).output_kept, BYTES - (uint32_t)i);
	}
	assert_true(p->l.out.capacity < BYTES); /* the memory was given back */
	free(output);
}

static void bounds(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing *many = calloc(LEDGER_BATCH + 1, sizeof(*many));
	struct ledger_update u = update("a", HOUR, OWNER, LEDGER_OK);
	int queued = 0;

	assert_int_equal(ledger_look(&p->l, LEDGER_LOOK_RUNS), 0); /* not started */
	start(p);
	assert_int_equal(ledger_claim(&p->l, &who, many, LEDGER_BATCH + 1), 0);
	u.output_kept = LEDGER_OUTPUT_MAX;
	u.output = calloc(1, LEDGER_OUTPUT_MAX);
	while (ledger_update(&p->l, &u, 1) != 0)
		assert_true(++queued < 10);
	assert_int_equal(queued, LEDGER_QUEUE_BYTES / (LEDGER_OUTPUT_MAX + 4096));
	assert_int_equal(p->l.unanswered, queued);
	free((void *)(uintptr_t)u.output);
	free(many);
}

/* 100,000 names of applications, as many jobs as a file may have, as many open runs as there can
 * be: the job worker waits for this look before it runs anything. */
static void a_look_at_a_large_ledger(void **state)
{
	struct process *p = *state;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(p->f.database, &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db,
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE"
			" i < 100000) INSERT INTO job_state(job, schedule) SELECT 'web:' || i, NULL"
			" FROM n UNION ALL SELECT 'job' || i, '@daily' FROM n;"
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE"
			" i < 16384) INSERT INTO job_run(job, fire_time, attempt, term, status, "
			"run)"
			" SELECT 'job' || i, i, 1, 1, 'running', i FROM n",
			NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	start(p);
	ask(p, ledger_look(&p->l, LEDGER_LOOK_RUNS | LEDGER_LOOK_JOBS | LEDGER_LOOK_REQUESTS));
	assert_string_equal(p->got.text, "");
	assert_int_equal(p->got.outcome, STORE_DONE);
	assert_int_equal(p->got.job_count, 100000);
	assert_int_equal(p->got.run_count, 16384);
}

/* More jobs than one request takes: still one declaration. */
static void a_declaration_in_parts(void **state)
{
	struct process *p = *state;
	struct ledger_declared *jobs = calloc(LEDGER_BATCH + 2, sizeof(*jobs));
	struct seen *s;

	for (int i = 0; i < LEDGER_BATCH + 2; i++) {
		snprintf(jobs[i].job, sizeof(jobs[i].job), "%04d", i);
		snprintf(jobs[i].schedule, sizeof(jobs[i].schedule), "@daily");
	}
	start(p);
	ask(p, ledger_declare(&p->l, jobs, LEDGER_BATCH));
	ask(p, ledger_declare(&p->l, jobs + LEDGER_BATCH, 2));
	s = look(&p->f, &p->f.a, (struct store_query){.what = STORE_READ_JOBS});
	assert_int_equal(s->job_count, LEDGER_BATCH + 2);
	assert_string_equal(s->instances[0], p->f.a.settings.instance);
	ask(p, ledger_declare(&p->l, jobs + 1, 3));
	s = look(&p->f, &p->f.a, (struct store_query){.what = STORE_READ_JOBS});
	assert_string_equal(s->instances[0], "");
	assert_string_equal(s->instances[1], p->f.a.settings.instance);
	assert_string_equal(s->instances[4], "");
	free(jobs);
}

/* --- it dies ------------------------------------------------------------------------------- */
static enum store_outcome (*real_claim)(struct store *, const struct ledger_claimant *,
	const struct ledger_firing *, size_t, struct ledger_claimed *, struct err *);

static enum store_outcome die_after(struct store *s, const struct ledger_claimant *who,
	const struct ledger_firing *firings, size_t count, struct ledger_claimed *ret,
	struct err *e)
{
	enum store_outcome outcome = real_claim(s, who, firings, count, ret, e);

	_exit(outcome == STORE_DONE ? 9 : 8);
}

/* In a child, with a store whose claim ends the process between COMMIT and reply. */
static void start_mortal(struct process *p)
{
	int pair[2];

	end_process(p);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->l.pid = fork();
	if (p->l.pid == 0) {
		struct store_ops ops = *p->f.a.ops;
		struct store_jobs_ops jobs = *ops.jobs;

		close(pair[0]);
		real_claim = jobs.claim;
		jobs.claim = die_after;
		ops.jobs = &jobs;
		p->f.a.ops = &ops;
		_exit(ledger_serve(&p->f.a, pair[1]));
	}
	close(pair[1]);
	p->l.fd = pair[0];
}

static void killed_between_commit_and_reply(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing of[2] = {
		firing("a", HOUR, LEDGER_RUNNING), firing("b", HOUR, LEDGER_QUEUED)};
	int status;

	start_mortal(p);
	assert_true(ledger_claim(&p->l, &who, of, 2) > 0);
	assert_int_equal(pump(p, 1), ERR_SYSTEM);
	assert_says(&p->f, "what it was asked is open");
	assert_int_equal(waitpid(p->l.pid, &status, 0), p->l.pid);
	assert_int_equal(WEXITSTATUS(status), 9);
	assert_true(ledger_reaped(&p->l, p->l.pid));
	assert_false(ledger_reaped(&p->l, 1));
	/* Nobody can know: another one is asked the same. */
	start(p);
	ask(p, ledger_claim(&p->l, &who, of, 2));
	assert_int_equal(p->got.outcome, STORE_DONE);
	assert_int_equal(p->got.claimed[0].answer, LEDGER_CLAIM_MINE);
	assert_int_equal(p->got.claimed[1].answer, LEDGER_CLAIM_MINE);
	/* Who is promoted meanwhile finds it taken, and sees whose it is. */
	who.owner = HEIR;
	ask(p, ledger_claim(&p->l, &who, of, 2));
	assert_int_equal(p->got.claimed[0].answer, LEDGER_CLAIM_TAKEN);
}

static void killed_before_it_read(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing of = firing("a", HOUR, LEDGER_RUNNING);

	start(p);
	kill(p->l.pid, SIGKILL);
	assert_true(ledger_claim(&p->l, &who, &of, 1) > 0);
	assert_int_equal(pump(p, 1), ERR_SYSTEM);
	start(p);
	ask(p, ledger_claim(&p->l, &who, &of, 1));
	assert_int_equal(p->got.claimed[0].answer, LEDGER_CLAIM_DONE);
}

static void it_ends_with_its_job_worker(void **state)
{
	struct process *p = *state;
	int status;

	start(p);
	ask(p, ledger_look(&p->l, LEDGER_LOOK_RUNS));
	/* What is meant for the job worker's group is not for it. */
	kill(p->l.pid, SIGTERM);
	kill(p->l.pid, SIGINT);
	kill(p->l.pid, SIGHUP);
	ask(p, ledger_look(&p->l, LEDGER_LOOK_RUNS));
	pid_t pid = p->l.pid;
	ledger_stop(&p->l);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	p->l.pid = 0;
}

/* Requests that lie in the socket of a job worker that is gone are not carried out. */
static void what_the_dead_asked_is_dropped(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing of = firing("a", HOUR, LEDGER_RUNNING);
	pid_t pid;

	start(p);
	ask(p, ledger_look(&p->l, LEDGER_LOOK_RUNS));
	kill(p->l.pid, SIGSTOP);
	assert_true(ledger_claim(&p->l, &who, &of, 1) > 0);
	assert_int_equal(ledger_writable(&p->l, &p->f.e), 0);
	assert_false(ledger_wants_write(&p->l));
	pid = p->l.pid;
	ledger_stop(&p->l);
	kill(pid, SIGCONT);
	waitpid(pid, NULL, 0);
	p->l.pid = 0;
	assert_int_equal(
		look(&p->f, &p->f.a, (struct store_query){.what = STORE_READ_RUNS})->run_count, 0);
}

/* --- nonsense ------------------------------------------------------------------------------ */
static void a_peer(struct process *p, int *ret_fd)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->l.fd = pair[0];
	*ret_fd = pair[1];
}

static void nonsense_of_the_process(void **state)
{
	struct process *p = *state;
	struct ledger_head head = {.magic = LEDGER_MAGIC, .op = LEDGER_CLAIM, .counts = {9}};
	int fd;

	a_peer(p, &fd);
	assert_true(ledger_look(&p->l, 1) > 0);
	head.bytes = 16; /* nine answers in sixteen bytes */
	assert_int_equal(send(fd, &head, sizeof(head), 0), sizeof(head));
	assert_int_equal(send(fd, &head, 16, 0), 16);
	assert_int_equal(ledger_readable(&p->l, on_reply, &p->got, &p->f.e), ERR_PROTOCOL);
	ledger_stop(&p->l);
	close(fd);
	a_peer(p, &fd);
	memset(&head, 'x', sizeof(head));
	assert_int_equal(send(fd, &head, sizeof(head), 0), sizeof(head));
	assert_int_equal(ledger_readable(&p->l, on_reply, &p->got, &p->f.e), ERR_PROTOCOL);
	ledger_stop(&p->l);
	close(fd);
	/* A reply nobody asked for. */
	a_peer(p, &fd);
	head = (struct ledger_head){.magic = LEDGER_MAGIC, .op = LEDGER_TRIM};
	assert_int_equal(send(fd, &head, sizeof(head), 0), sizeof(head));
	assert_int_equal(ledger_readable(&p->l, on_reply, &p->got, &p->f.e), ERR_PROTOCOL);
	close(fd);
}

/* Each ends the process, none is carried out. */
static void nonsense_of_the_job_worker(void **state)
{
	struct process *p = *state;
	struct ledger_head heads[] = {
		{.magic = 1, .op = LEDGER_LOOK},
		{.magic = LEDGER_MAGIC, .op = LEDGER_OP_COUNT},
		{.magic = LEDGER_MAGIC, .op = LEDGER_LOOK, .bytes = LEDGER_FRAME_BYTES + 16},
		{.magic = LEDGER_MAGIC, .op = LEDGER_LOOK, .bytes = 3},
		{.magic = LEDGER_MAGIC, .op = LEDGER_CLAIM, .counts = {1}},
		{.magic = LEDGER_MAGIC, .op = LEDGER_UPDATE, .counts = {LEDGER_BATCH + 1}},
		{.magic = LEDGER_MAGIC, .op = LEDGER_DECLARE, .counts = {1}},
	};

	for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
		int status = -1;
		start(p);
		while (ledger_wants_write(&p->l))
			assert_int_equal(ledger_writable(&p->l, &p->f.e), 0);
		assert_int_equal(send(p->l.fd, &heads[i], sizeof(heads[i]), 0), sizeof(heads[i]));
		assert_int_equal(pump(p, 1), ERR_SYSTEM);
		waitpid(p->l.pid, &status, 0);
		assert_int_equal(status, 0);
		p->l.pid = 0;
	}
}

static void replies_that_come_byte_by_byte(void **state)
{
	struct process *p = *state;
	struct ledger_buffer b = {NULL};
	struct ledger_head head = {.op = LEDGER_UPDATE, .counts = {1}};
	enum ledger_updated done = LEDGER_UPDATE_REFUSED;
	struct ledger_part part = {&done, sizeof(done)};
	int fd;

	a_peer(p, &fd);
	head.id = ledger_look(&p->l, 1);
	assert_int_equal(ledger_frame_put(&b, &head, &part, 1), 0);
	for (size_t i = 0; i < b.used; i++) {
		assert_int_equal(p->got.count, 0);
		assert_int_equal(send(fd, b.bytes + i, 1, 0), 1);
		assert_int_equal(ledger_readable(&p->l, on_reply, &p->got, &p->f.e), 0);
	}
	assert_int_equal(p->got.count, 1);
	assert_int_equal(p->got.updated[0], LEDGER_UPDATE_REFUSED);
	ledger_buffer_release(&b);
	close(fd);
}

/* --- the disk ------------------------------------------------------------------------------ */
/* At every call of SQLite into the file system: what the answer says is what is there, and asked
 * again by the same it is ours, in one row. */
static void a_claim_that_fails_anywhere(int code, bool for_good)
{
	int outcomes[STORE_WRONG + 1] = {0}, tried = 0;
	bool failed = true;

	fail_code = code;
	fail_for_good = for_good;
	for (int at = 1; failed; at++, tried++) {
		struct ledger_firing of = firing("a", HOUR, LEDGER_RUNNING);
		struct ledger_claimant who = claimant(TERM, OWNER);
		struct ledger_claimed got;
		enum store_outcome outcome;
		struct fixture f;
		int rows;

		fail_at = 0;
		ledger_fixture(&f);
		f.a.settings.busy_limit_ms = for_good ? 5 : 10000;
		calls = 0;
		fail_at = at;
		outcome = f.a.ops->jobs->claim(&f.a, &who, &of, 1, &got, &f.e);
		failed = calls >= at;
		fail_at = 0;
		outcomes[outcome]++;
		rows = look(&f, &f.a, (struct store_query){.what = STORE_READ_RUNS})->run_count;
		if ((outcome == STORE_DONE && rows != 1) ||
			(outcome == STORE_UNAVAILABLE && rows != 0) || rows > 1)
			fail_msg("call %d: %s, but %d rows", at, store_outcome_name(outcome), rows);
		assert_int_equal(got.answer,
			outcome == STORE_DONE ? LEDGER_CLAIM_DONE : LEDGER_CLAIM_REFUSED);
		got = claim(&f, &f.a, TERM, OWNER, of, STORE_DONE);
		assert_int_equal(got.answer, rows ? LEDGER_CLAIM_MINE : LEDGER_CLAIM_DONE);
		assert_int_equal(
			look(&f, &f.a, (struct store_query){.what = STORE_READ_RUNS})->run_count,
			1);
		fixture_end(&f);
	}
	print_message("code %d%s: %d runs: %d done, %d unavailable, %d unknown\n", code,
		for_good ? " from there on" : "", tried, outcomes[STORE_DONE],
		outcomes[STORE_UNAVAILABLE], outcomes[STORE_UNKNOWN]);
	assert_true(tried >= 4);
	if (code == SQLITE_BUSY)
		assert_int_equal(outcomes[STORE_UNKNOWN], 0);
	else
		assert_true(outcomes[STORE_UNAVAILABLE] > 0 && outcomes[STORE_UNKNOWN] > 0);
}

static void a_disk_that_fails(void **state)
{
	(void)state;
	a_claim_that_fails_anywhere(SQLITE_IOERR_WRITE, false);
	a_claim_that_fails_anywhere(SQLITE_IOERR_FSYNC, true);
	a_claim_that_fails_anywhere(SQLITE_FULL, true);
	a_claim_that_fails_anywhere(SQLITE_BUSY, false);
}

/* --- the file beside the database ---------------------------------------------------------- */
static bool rung(int inotify)
{
	char events[4096];
	struct pollfd p = {.fd = inotify, .events = POLLIN};

	if (poll(&p, 1, 0) <= 0)
		return false;
	while (read(inotify, events, sizeof(events)) > 0)
		continue;
	return true;
}

static void who_waits_is_rung(void **state)
{
	struct process *p = *state;
	struct ledger_claimant who = claimant(TERM, OWNER);
	struct ledger_firing of = firing("a", HOUR, LEDGER_RUNNING);
	struct ledger_request r;
	struct ledger_update u;
	int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), watch;

	start(p);
	assert_int_equal(jobs_file_watch(p->f.database, inotify, &watch, &p->f.e), 0);
	assert_false(rung(inotify));
	assert_int_equal(jobs_file_ring_beside(p->f.database, &p->f.e), 0);
	assert_true(rung(inotify));
	/* A run that nobody asked for ends in silence. */
	ask(p, ledger_claim(&p->l, &who, &of, 1));
	u = update("a", HOUR, OWNER, LEDGER_OK);
	ask(p, ledger_update(&p->l, &u, 1));
	assert_false(rung(inotify));
	assert_outcome(
		&p->f, p->f.b.ops->jobs->request(&p->f.b, "a", "me", &r, &p->f.e), STORE_DONE);
	of.cause = LEDGER_BY_REQUEST;
	of.request = r.id;
	of.key.fire_time_us = r.requested_us;
	ask(p, ledger_claim(&p->l, &who, &of, 1));
	u.key = of.key;
	ask(p, ledger_update(&p->l, &u, 1));
	assert_true(rung(inotify));
	assert_outcome(
		&p->f, p->f.b.ops->jobs->request(&p->f.b, "a", "me", &r, &p->f.e), STORE_DONE);
	ask(p, ledger_refuse(&p->l, r.id, "no"));
	assert_true(rung(inotify));
	close(inotify);
}

static void who_lives_is_registered(void **state)
{
	struct process *p = *state;
	int64_t owner = jobs_file_new_owner();
	int mine, other, pipes[2], status;
	int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), watch;
	bool held = true;
	char byte;
	pid_t child;

	assert_true(owner >= INT64_C(1) << 32 && owner < INT64_C(1) << 62);
	assert_int_equal(jobs_file_open(p->f.database, &mine, &p->f.e), 0);
	assert_int_equal(jobs_file_is_held(mine, owner, &held, &p->f.e), 0);
	assert_false(held);
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		int fd;
		close(mine);
		if (jobs_file_open(p->f.database, &fd, NULL) != 0 ||
			jobs_file_hold(fd, owner, NULL) != 0 || write(pipes[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	assert_int_equal(jobs_file_is_held(mine, owner, &held, &p->f.e), 0);
	assert_true(held);
	assert_int_equal(jobs_file_open(p->f.database, &other, &p->f.e), 0);
	assert_int_equal(jobs_file_hold(other, owner, &p->f.e), ERR_BUSY);
	assert_int_equal(jobs_file_hold(other, owner + 1, &p->f.e), 0);
	/* Its death is an event, and is seen. */
	assert_int_equal(jobs_file_watch(p->f.database, inotify, &watch, &p->f.e), 0);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	assert_true(rung(inotify));
	assert_int_equal(jobs_file_is_held(mine, owner, &held, &p->f.e), 0);
	assert_false(held);
	close(mine);
	close(other);
	close(inotify);
	close(pipes[0]);
	close(pipes[1]);
}

static void a_file_that_is_none_is_refused(void **state)
{
	struct process *p = *state;
	char victim[600];
	int fd;

	snprintf(victim, sizeof(victim), "%s/victim", p->f.folder);
	close(open(victim, O_WRONLY | O_CREAT, 0644));
	unlink(beside(&p->f, "-jobs"));
	assert_int_equal(symlink(victim, beside(&p->f, "-jobs")), 0);
	assert_int_equal(jobs_file_open(p->f.database, &fd, &p->f.e), ERR_SYSTEM);
	assert_says(&p->f, "-jobs");
	assert_int_equal(jobs_file_ring_beside(p->f.database, &p->f.e), ERR_SYSTEM);
	unlink(beside(&p->f, "-jobs"));
	assert_int_equal(mkfifo(beside(&p->f, "-jobs"), 0644), 0);
	assert_int_equal(jobs_file_open(p->f.database, &fd, &p->f.e), ERR_SYSTEM);
	unlink(beside(&p->f, "-jobs"));
	/* The mode of the database, for those who may write that. */
	chmod(p->f.database, 0660);
	assert_int_equal(jobs_file_open(p->f.database, &fd, &p->f.e), 0);
	struct stat status;
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0660);
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(every_request_is_answered),
		TEST(requests_one_behind_the_other),
		TEST(large_outputs_are_kept),
		TEST(bounds),
		TEST(a_look_at_a_large_ledger),
		TEST(a_declaration_in_parts),
		TEST(killed_between_commit_and_reply),
		TEST(killed_before_it_read),
		TEST(it_ends_with_its_job_worker),
		TEST(what_the_dead_asked_is_dropped),
		TEST(nonsense_of_the_process),
		TEST(nonsense_of_the_job_worker),
		TEST(replies_that_come_byte_by_byte),
		cmocka_unit_test(a_disk_that_fails),
		TEST(who_waits_is_rung),
		TEST(who_lives_is_registered),
		TEST(a_file_that_is_none_is_refused),
	};

	/* ledger_start runs this program anew. */
	if (argc > 0 && strcmp(argv[0], "job-ledger") == 0)
		return ledger_main(argc, argv);
	return cmocka_run_group_tests(tests, shim_group_setup, NULL);
}

/*
 * Prints the state tables of the core as the manual has them (supervisor/baton.8), from the tables
 * themselves: each cell is run once, from a plain situation, and the state after it is printed.
 *
 *   print_tables              to standard output
 *   print_tables FILE         into FILE, between its two marks (`make docs`)
 */
#include <stdlib.h>

#include "tests/lib/rollout_outcomes.h"
#include "tests/unit/core_fixture.h"
#include "supervisor/core/rollout_fsm.h"

#define BEGIN_MARK ".\\\" state tables: begin (make docs)\n"
#define END_MARK   ".\\\" state tables: end\n"

static FILE *out;

/* --- rollouts, for people ------------------------------------------------------------------- */
static const char *const words[] = {
#define X(name, word, text) word,
	OUTCOMES(X)
#undef X
};

static const char *const meanings[] = {
#define X(name, word, text) text,
	OUTCOMES(X)
#undef X
};

static void print_outcomes(void)
{
	static const char *const stages[] = {
#define X(name, text) text,
		STAGES(X)
#undef X
	};

	fputs(".TS\ntab(|);\nlb1 lb1 lb1 lb1 lb1 lb\nl1 l1 l1 l1 l1 l.\n", out);
	for (int s = 0; s < STAGE_ROWS; s++)
		fprintf(out, "|%s", stages[s]);
	fputs("\n", out);
	for (int h = 0; h < HAPPENING_ROWS; h++) {
		fputs(happenings[h].text, out);
		for (int s = 0; s < STAGE_ROWS; s++)
			fprintf(out, "|%s", words[happenings[h].at[s]]);
		fputs("\n", out);
	}
	fputs(".TE\n", out);
	for (int i = 0; i < OUTCOME_WORDS; i++)
		fprintf(out, ".TP\n.B %s\n%s.\n", words[i], meanings[i]);
}

/* --- the machines --------------------------------------------------------------------------- */
/* One candidate program whose first worker is, or is to be, the executor. */
static void prepare(enum worker_state ws, enum executor_state xs, enum election_state es)
{
	struct worker *w = &f.workers[0];
	struct executor *x;

	f.settings[0] = fix_program("web", 2, EXECUTOR_CANDIDATE, PROMOTE_NOTIFY);
	f.settings[0].max_unavailable = 1;
	f.settings[0].startretries = -1;
	fix_start(1);
	x = &f.programs[0].executor;
	w->state = ws;
	w->tree = ws == WORKER_STARTING || ws == WORKER_RUNNING || ws == WORKER_STOPPING;
	w->alive = w->tree;
	w->execed = w->tree;
	w->pid = 100;
	w->ready = ws == WORKER_RUNNING;
	w->term_sent = ws == WORKER_STOPPING;
	w->after = AFTER_STOPPED;
	w->deadline_ns = 0;
	x->state = xs;
	x->worker = xs == EXECUTOR_NONE ? -1 : 0;
	x->phase = PHASE_ARM;
	x->term = 5;
	x->busy = 0;
	x->deadline_ns = xs == EXECUTOR_NONE ? 0 : f.now;
	f.core.election.state = es;
	f.core.election.epoch = f.core.election.term = 4;
	f.core.election.ttl_ns = 60 * SEC;
	f.core.election.t0_ns = f.now;
	f.core.election.hard_ns = f.now + 50 * SEC;
	f.core.election.soft_ns = f.now + 48 * SEC;
	f.core.election.renew_ns = f.now + 10 * SEC;
	f.core.now_ns = f.now;
	f.plan.count = 0;
	f.core.plan = &f.plan;
	f.answer = (struct keeper_answer){.outcome = OUTCOME_DONE, .view = fix_view("me", 4)};
}

static struct event an_event(void)
{
	return (struct event){.kind = EVENT_KINDS,
		.worker = 0,
		.id = f.workers[0].id,
		.pid = 100,
		.program = 0,
		.term = 5,
		.number = 0,
		.reply = &f.answer};
}

static int run_worker(int state, int event)
{
	struct event e;

	prepare((enum worker_state)state, EXECUTOR_NONE, ELECTION_STANDBY);
	if (event == WORKER_EVENT_PROBE_FAILED) { /* the first time */
		f.settings[0].ready = READY_PROBE;
		f.settings[0].health = f.workers[0].probing = true;
		f.settings[0].health_failures = 3;
	}
	e = an_event();
	worker_handle(&f.core, &f.workers[0], (enum worker_event)event, &e);
	return (int)f.workers[0].state;
}

static int run_executor(int state, int event)
{
	struct event e;

	prepare(WORKER_RUNNING, (enum executor_state)state, ELECTION_HOLDING);
	e = an_event();
	executor_handle(&f.core, &f.programs[0], (enum executor_event)event, &e);
	return (int)f.programs[0].executor.state;
}

static int run_election(int state, int event)
{
	struct event e;

	prepare(WORKER_RUNNING, EXECUTOR_NONE, (enum election_state)state);
	e = an_event();
	election_handle(&f.core, (enum election_event)event, &e);
	return (int)f.core.election.state;
}

static int run_rollout(int state, int event)
{
	struct program *p = &f.programs[0];

	prepare(WORKER_RUNNING, EXECUTOR_NONE, ELECTION_STANDBY);
	p->rollout.state = (enum rollout_state)state;
	p->rollout.settings = p->settings;
	p->rollout.config = p->config;
	p->rollout.generation = 1;
	p->generation = p->rollout.newest = 2;
	f.workers[1].state = WORKER_STARTING; /* the one that is on trial */
	f.workers[1].canary = true;
	f.workers[1].generation = 2;
	rollout_handle(&f.core, p, (enum rollout_event)event);
	return (int)p->rollout.state;
}

struct machine {
	const char *title;
	int states, events;
	const char *(*state_name)(int);
	const char *(*event_name)(int);
	bool (*has)(int, int);
	int (*run)(int, int);
};

#define MACHINE(m, T)                                                                              \
	static const char *m##_state(int s)                                                        \
	{                                                                                          \
		return m##_state_name((enum m##_state)s);                                          \
	}                                                                                          \
	static const char *m##_event(int e)                                                        \
	{                                                                                          \
		return m##_event_name((enum m##_event)e);                                          \
	}                                                                                          \
	static bool m##_has(int s, int e)                                                          \
	{                                                                                          \
		return m##_table_has((enum m##_state)s, (enum m##_event)e);                        \
	}
MACHINE(worker, WORKER)
MACHINE(executor, EXECUTOR)
MACHINE(election, ELECTION)
MACHINE(rollout, ROLLOUT)

static void print_result(const struct machine *m, int state, int result)
{
	bool any = false;

	for (int e = 0; e < m->events; e++) {
		if (!m->has(state, e) || m->run(state, e) != result)
			continue;
		fprintf(out, "%s%s", any ? ", " : "", m->event_name(e));
		any = true;
	}
	if (any && result == state)
		fputs(": stays.\n", out);
	else if (any)
		fprintf(out, ": %s.\n", m->state_name(result));
}

static void print_machine(const struct machine *m)
{
	fprintf(out, ".SS %s\n", m->title);
	for (int s = 0; s < m->states; s++) {
		fprintf(out, ".TP\n.B %s\n", m->state_name(s));
		for (int result = 0; result < m->states; result++)
			print_result(m, s, result);
	}
}

/* It has no events of its own: stages come up as those before them are, and go down in reverse. */
static void print_lifecycle(void)
{
	static const unsigned needs[] = {
#define X(name, text, bits) bits,
		CORE_STAGES(X)
#undef X
	};

	fputs(".SS The supervisor\n", out);
	for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++)
		fprintf(out, "%s%s", s > 0 ? ", " : "",
			lifecycle_state_name((enum lifecycle_state)s));
	fputs(": in this order, and never back. While starting, each stage comes up when those it "
	      "needs are up:\n",
		out);
	for (int s = 0; s < STAGE_COUNT; s++) {
		bool any = false;

		fprintf(out, ".TP\n.B %s\n", stage_name((enum core_stage)s));
		for (int n = 0; n < STAGE_COUNT; n++) {
			if ((needs[s] & (1u << n)) == 0)
				continue;
			fprintf(out, "%s%s", any ? ", " : "needs ", stage_name((enum core_stage)n));
			any = true;
		}
		fputs(any ? "\n" : "the first\n", out);
	}
}

static void print_all(void)
{
	static const struct machine machines[] = {
		{"A worker", WORKER_STATE_COUNT, WORKER_EVENT_COUNT, worker_state, worker_event,
			worker_has, run_worker},
		{"A rollout", ROLLOUT_STATE_COUNT, ROLLOUT_EVENT_COUNT, rollout_state,
			rollout_event, rollout_has, run_rollout},
		{"The executor of a program", EXECUTOR_STATE_COUNT, EXECUTOR_EVENT_COUNT,
			executor_state, executor_event, executor_has, run_executor},
		{"The election", ELECTION_STATE_COUNT, ELECTION_EVENT_COUNT, election_state,
			election_event, election_has, run_election},
	};

	fputs(BEGIN_MARK, out);
	fputs(".PP\nWhat happens to a rollout at each of its stages:\n", out);
	print_outcomes();
	fputs(".SH STATE TABLES\nPrinted from the program. For each state: events, and the state "
	      "that follows, from the usual situation.\nAn event that is not listed cannot come "
	      "there: it would be ignored, and said in the log.\n",
		out);
	for (size_t i = 0; i < sizeof machines / sizeof *machines; i++)
		print_machine(&machines[i]);
	print_lifecycle();
	fputs(END_MARK, out);
}

static int complain(const char *path, const char *what)
{
	fprintf(stderr, "print_tables: %s: %s\n", path, what);
	return 1;
}

static int into(const char *path)
{
	static char text[1 << 20];
	FILE *file = fopen(path, "r");
	size_t bytes = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
	char *begin = strstr(text, BEGIN_MARK), *end = strstr(text, END_MARK);

	if (file == NULL || bytes == sizeof text - 1)
		return complain(path, "cannot be read");
	fclose(file);
	if (begin == NULL || end == NULL || end < begin)
		return complain(path, "the marks are missing");
	out = fopen(path, "w");
	if (out == NULL)
		return complain(path, "cannot be written");
	fwrite(text, 1, (size_t)(begin - text), out);
	print_all();
	fputs(end + strlen(END_MARK), out);
	return fclose(out) == 0 ? 0 : complain(path, "cannot be written");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return into(argv[1]);
	out = stdout;
	print_all();
	return 0;
}

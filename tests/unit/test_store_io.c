/* Every call of SQLite into the file system fails once, and once the process dies there: what the
 * store answers is what is found afterwards. DONE = it is there, UNAVAILABLE = it is not, UNKNOWN =
 * one of the two, and never anything in between. */
#include "tests/unit/lock_fixture.h"

#include <sys/wait.h>

#include "tests/unit/shim_vfs.h"

/* --- the operations, and what they leave ------------------------------------------------- */

enum operation { OP_ACQUIRE, OP_RENEW, OP_PROMOTE, OP_RELEASE, OPERATIONS };

static const char *const operation_names[] = {"acquire", "renew", "promote", "release"};

static enum store_outcome operate(
	struct fixture *f, enum operation op, const struct store_expect *x)
{
	switch (op) {
	case OP_ACQUIRE:
		return ACQUIRE(f, f->b, x, 2000);
	case OP_RENEW:
		return RENEW(f, f->a, 1000, 1001);
	case OP_PROMOTE:
		return PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:1");
	default:
		return RELEASE(f, f->a, 1000, 1001);
	}
}

/* Is it the row after OP? It must be that or, whole, the row before. */
static bool has_happened(struct fixture *f, enum operation op)
{
	const struct store_view *v = &f->view;
	const struct store_row *r = &v->row;
	bool before = r->term == 1001 && r->epoch == 1000 && r->held && r->beat == 1 &&
		      strcmp(r->holder, "instance-a") == 0 && v->executor_count == 1 &&
		      strcmp(v->executors[0].worker, "web:0") == 0;
	bool after = false;

	if (op == OP_ACQUIRE)
		after = r->term == 2000 && r->epoch == 2000 && r->held && r->beat == 0 &&
			strcmp(r->holder, "instance-b") == 0 && v->executor_count == 0;
	else if (op == OP_RENEW)
		after = r->term == 1001 && r->held && r->beat == 2 && v->executor_count == 1;
	else if (op == OP_PROMOTE)
		after = r->term == 1002 && r->epoch == 1000 && v->executor_count == 1 &&
			strcmp(v->executors[0].worker, "web:1") == 0;
	else
		after = r->term == 1001 && !r->held && v->executor_count == 0;
	if (before == after)
		print_message("%s at call %d left half a transaction: term %lld\n",
			operation_names[op], fail_at, (long long)r->term);
	assert_true(before != after);
	return after;
}

static void prepare(struct fixture *f, struct store_expect *x)
{
	fail_at = 0;
	fixture_stores(f, false);
	/* What is busy once is tried again, however slow this machine is. */
	f->a.settings.busy_limit_ms = f->b.settings.busy_limit_ms = fail_for_good ? 5 : 10000;
	take(f, &f->a, 1000);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	*x = as_seen(&f->view);
	calls = 0;
}

static void judge(struct fixture *f, enum operation op, enum store_outcome outcome)
{
	bool happened;

	fail_at = 0;
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	happened = has_happened(f, op);
	if ((outcome == STORE_DONE && !happened) || (outcome == STORE_UNAVAILABLE && happened) ||
		(outcome != STORE_DONE && outcome != STORE_UNAVAILABLE && outcome != STORE_UNKNOWN))
		fail_msg("%s answered %s, but it has %shappened: %s", operation_names[op],
			store_outcome_name(outcome), happened ? "" : "not ", f->e.text);
}

static void fail_everywhere(int code, bool for_good)
{
	int tried = 0, outcomes[STORE_WRONG + 1] = {0};

	fail_code = code;
	fail_for_good = for_good;
	for (int op = 0; op < OPERATIONS; op++) {
		bool failed = true;
		for (int at = 1; failed; at++) {
			struct fixture f;
			struct store_expect x;
			enum store_outcome outcome;
			prepare(&f, &x);
			fail_at = at;
			outcome = operate(&f, (enum operation)op, &x);
			failed = calls >= at;
			judge(&f, (enum operation)op, outcome);
			outcomes[outcome]++;
			tried++;
			fixture_end(&f);
		}
	}
	if (code == SQLITE_BUSY) {
		assert_int_equal(outcomes[STORE_UNKNOWN], 0);
		assert_int_equal(outcomes[STORE_DONE], for_good ? (int)OPERATIONS : tried);
	}
	print_message("code %d%s: %d runs: %d done, %d unavailable, %d unknown\n", code,
		for_good ? " from there on" : "", tried, outcomes[STORE_DONE],
		outcomes[STORE_UNAVAILABLE], outcomes[STORE_UNKNOWN]);
	assert_true(tried > 4 * 3);
}

static void input_output_errors(void **state)
{
	(void)state;
	fail_everywhere(SQLITE_IOERR_WRITE, false);
	fail_everywhere(SQLITE_IOERR_FSYNC, true);
}

static void full_at_any_point(void **state)
{
	(void)state;
	fail_everywhere(SQLITE_FULL, false);
	fail_everywhere(SQLITE_FULL, true);
}

static void busy_at_any_point(void **state)
{
	(void)state;
	fail_everywhere(SQLITE_BUSY, false); /* tried again: done */
	fail_everywhere(SQLITE_BUSY, true);  /* until the patience ends: proven not done */
}

/* A fork under the address sanitizer takes 20 ms. */
#ifdef __SANITIZE_ADDRESS__
enum { KILL_STEP = 4 };
#else
enum { KILL_STEP = 1 };
#endif

static void killed_at_any_point(void **state)
{
	int tried = 0, happened = 0;

	(void)state;
	fail_code = -1;
	fail_for_good = false;
	for (int op = 0; op < OPERATIONS; op++) {
		for (int at = 1, died = 1; died; at += KILL_STEP) {
			struct fixture f;
			struct store_expect x;
			int status;
			prepare(&f, &x);
			pid_t child = fork();
			if (child == 0) {
				fail_at = at;
				_exit(operate(&f, (enum operation)op, &x) != STORE_DONE);
			}
			assert_int_equal(waitpid(child, &status, 0), child);
			died = WIFEXITED(status) && WEXITSTATUS(status) == 7;
			assert_true(died || status == 0);
			assert_outcome(&f, INSPECT(&f, f.b), STORE_DONE);
			fail_at = at;
			happened += has_happened(&f, (enum operation)op);
			fail_at = 0;
			/* And it goes on from there. */
			take(&f, &f.b, 3000);
			tried++;
			fixture_end(&f);
		}
	}
	print_message("killed in %d places, %d of them after the commit\n", tried, happened);
	assert_true(happened >= OPERATIONS && happened < tried);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(input_output_errors),
		cmocka_unit_test(full_at_any_point),
		cmocka_unit_test(busy_at_any_point),
		cmocka_unit_test(killed_at_any_point),
	};

	return cmocka_run_group_tests(tests, shim_group_setup, NULL);
}

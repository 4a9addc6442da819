/* The file goes away under its holder: deleted, replaced, restored, overwritten; and the floor. */
#include "tests/unit/lock_fixture.h"

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_stores(f, false);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_end(*state);
	free(*state);
	return 0;
}

static void assert_lost(struct fixture *f, const char *words)
{
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_MOVED);
	assert_says(f, words);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_MOVED);
	assert_outcome(f, CLAIM(f, f->a, "web", 1000, "job", 1, 1), STORE_MOVED);
	assert_outcome(f, RELEASE(f, f->a, 1000, 1000), STORE_MOVED);
}

static void deleted_while_held(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	unlink(f->database);
	assert_lost(f, "deleted");
	assert_int_not_equal(access(f->database, F_OK), 0);
	/* Made anew, it contradicts the floor. */
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.row.term, 0);
	assert_int_equal(f->view.floor, FLOOR_OTHER_UUID);
	assert_int_equal(f->view.floor_term, 1000);
	assert_lost(f, "the lock is lost"); /* by its inode number or, given anew, its UUID */
	take(f, &f->b, 1001);
	assert_int_equal(f->view.floor, FLOOR_OK);
	assert_int_equal(f->view.floor_term, 1001);
}

static void replaced_while_held(void **state)
{
	struct fixture *f = *state;
	char name[600];

	take(f, &f->a, 1000);
	snprintf(name, sizeof(name), "%s/copy", f->folder);
	copy_file(f->database, name);
	assert_int_equal(rename(name, f->database), 0); /* the same bytes, another file */
	assert_lost(f, "replaced");
	take(f, &f->a, 2000);
	assert_outcome(f, RENEW(f, f->a, 2000, 2000), STORE_DONE);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_REFUSED);
}

/* cp backup database: the same inode number, an older content. */
static void restored_in_place_while_held(void **state)
{
	struct fixture *f = *state;
	char name[600];

	take(f, &f->b, 500);
	snprintf(name, sizeof(name), "%s/backup", f->folder);
	copy_file(f->database, name);
	take(f, &f->a, 1000);
	copy_file(name, f->database);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_REFUSED);
	assert_string_equal(f->view.row.holder, "instance-b");
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	assert_int_equal(f->view.floor, FLOOR_HIGHER);
	assert_int_equal(f->view.floor_term, 1000);
}

static void overwritten_while_held(void **state)
{
	struct fixture *f = *state;
	char name[600];

	snprintf(name, sizeof(name), "%s/other.db", f->folder);
	snprintf(f->b.settings.database, sizeof(f->b.settings.database), "%s", name);
	assert_outcome(f, INSPECT(f, f->b), STORE_DONE);
	take(f, &f->a, 1000);
	copy_file(name, f->database);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_MOVED);
	assert_says(f, "overwritten");
	assert_int_equal(truncate(f->database, 0), 0);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_MOVED);
	assert_says(f, "emptied");
}

static void folder_deleted_while_held(void **state)
{
	struct fixture *f = *state;

	take(f, &f->a, 1000);
	remove_folder(f->folder);
	assert_lost(f, "deleted with its folder");
}

/* A keeper that was started anew learns from its first look whose the lock is. */
static void a_new_keeper_notices_too(void **state)
{
	struct fixture *f = *state;
	struct store_settings s = f->a.settings;

	take(f, &f->a, 1000);
	f->a.ops->close(&f->a);
	assert_int_equal(store_sqlite_init(&f->a, &s, &f->e), 0);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	unlink(f->database);
	assert_outcome(f, RENEW(f, f->a, 1000, 1000), STORE_MOVED);
}

/* An acquisition of ours that we learn of later only: another store with our name stands for it. */
static void an_unknown_acquisition_is_ours(void **state)
{
	struct fixture *f = *state;

	memcpy(f->b.settings.instance, f->a.settings.instance, sizeof(f->b.settings.instance));
	take(f, &f->a, 1000);
	take(f, &f->b, 2000);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	unlink(f->database);
	assert_outcome(f, RENEW(f, f->a, 2000, 2000), STORE_MOVED);
}

static void floor_that_cannot_be_written(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdir(beside(f, "-floor"), 0755), 0);
	take(f, &f->a, 1000);
	assert_true(f->view.floor_failed);
	assert_int_equal(f->view.row.term, 1000); /* the COMMIT stands */
	assert_says(f, "cannot raise the floor");
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1000, 1001, "web", "web:0"), STORE_DONE);
	assert_true(f->view.floor_failed);
	assert_outcome(f, INSPECT(f, f->a), STORE_DONE);
	assert_int_equal(f->view.floor, FLOOR_UNREADABLE);
	assert_int_equal(rmdir(beside(f, "-floor")), 0);
	assert_outcome(f, PROMOTE(f, f->a, 1000, 1001, 1002, "web", "web:0"), STORE_DONE);
	assert_false(f->view.floor_failed);
}

#define MOVED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MOVED(deleted_while_held),
		MOVED(replaced_while_held),
		MOVED(restored_in_place_while_held),
		MOVED(overwritten_while_held),
		MOVED(folder_deleted_while_held),
		MOVED(a_new_keeper_notices_too),
		MOVED(an_unknown_acquisition_is_ours),
		MOVED(floor_that_cannot_be_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

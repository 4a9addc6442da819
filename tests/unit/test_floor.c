/* worker/lock/floor.c: never lower, torn records, other databases, many writers. */
#include "tests/unit/lock_fixture.h"

#include <sys/wait.h>

#include "worker/lock/floor.h"
#include "worker/lock/fs.h"

#define UUID  "11111111-2222-4333-8444-555555555555"
#define OTHER "99999999-2222-4333-8444-555555555555"

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	fixture_folder(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_end(*state);
	free(*state);
	return 0;
}

static enum store_floor compare(
	struct fixture *f, const char *uuid, int64_t term, int64_t *ret_term)
{
	return floor_compare(f->database, uuid, term, ret_term, &f->e);
}

static void raised_and_compared(void **state)
{
	struct fixture *f = *state;
	int64_t term = 7;

	assert_int_equal(compare(f, UUID, 5, &term), FLOOR_ABSENT);
	assert_int_equal(term, 0);
	assert_int_not_equal(access(beside(f, "-floor"), F_OK), 0);
	assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), 0);
	assert_int_equal(compare(f, UUID, 1000, &term), FLOOR_OK);
	assert_int_equal(term, 1000);
	assert_int_equal(compare(f, UUID, 1001, &term), FLOOR_OK);
	assert_int_equal(compare(f, UUID, 999, &term), FLOOR_HIGHER);
	assert_int_equal(compare(f, OTHER, 1000, &term), FLOOR_OTHER_UUID);
	assert_int_equal(compare(f, "", 0, &term), FLOOR_OTHER_UUID);
	assert_int_equal(term, 1000);
}

static void never_lower(void **state)
{
	struct fixture *f = *state;
	int64_t term;

	for (int64_t t = 1000; t < 1010; t++)
		assert_int_equal(floor_raise(f->database, UUID, t, 100, &f->e), 0);
	assert_int_equal(floor_raise(f->database, UUID, 5, 100, &f->e), 0);
	assert_int_equal(compare(f, UUID, 1009, &term), FLOOR_OK);
	assert_int_equal(term, 1009);
	/* Another database below the floor takes over the file, not the term. */
	assert_int_equal(floor_raise(f->database, OTHER, 6, 100, &f->e), 0);
	assert_int_equal(compare(f, OTHER, 6, &term), FLOOR_HIGHER);
	assert_int_equal(term, 1009);
	assert_int_equal(floor_raise(f->database, UUID, 7, 100, &f->e), 0);
	assert_int_equal(compare(f, UUID, 7, &term), FLOOR_HIGHER);
	assert_int_equal(term, 1009);
}

static void nonsense_is_refused(void **state)
{
	struct fixture *f = *state;
	static const int64_t wrong[] = {0, -1, FLOOR_TERM_MAX + 1, INT64_MAX, INT64_MIN};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_int_equal(floor_raise(f->database, UUID, wrong[i], 100, &f->e), ERR_REFUSED);
	assert_int_not_equal(access(beside(f, "-floor"), F_OK), 0);
	assert_int_equal(floor_raise(f->database, UUID, FLOOR_TERM_MAX, 100, &f->e), 0);
}

static void spoil(struct fixture *f, off_t offset)
{
	int fd = open(beside(f, "-floor"), O_RDWR);
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 0xff;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
}

/* Each byte of each record, spoilt: the other record counts, and the next writing mends. */
static void torn_records(void **state)
{
	struct fixture *f = *state;
	enum { RECORD_BYTES = 72 };
	int64_t term;

	for (int at = 0; at < RECORD_BYTES; at++) {
		for (int slot = 0; slot < 2; slot++) {
			unlink(beside(f, "-floor"));
			assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), 0);
			assert_int_equal(floor_raise(f->database, UUID, 1001, 100, &f->e), 0);
			spoil(f, slot * FLOOR_SLOT_BYTES + at);
			assert_int_equal(compare(f, UUID, 1001, &term), FLOOR_OK);
			assert_int_equal(term, slot ? 1000 : 1001);
			assert_int_equal(floor_raise(f->database, UUID, 1002, 100, &f->e), 0);
			assert_int_equal(compare(f, UUID, 1002, &term), FLOOR_OK);
			assert_int_equal(term, 1002);
		}
	}
}

static void both_damaged(void **state)
{
	struct fixture *f = *state;
	int64_t term;

	assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), 0);
	spoil(f, 20);
	assert_int_equal(compare(f, UUID, 1000, &term), FLOOR_UNREADABLE);
	assert_int_equal(term, 0);
	assert_says(f, "damaged");
	assert_int_equal(floor_raise(f->database, UUID, 1001, 100, &f->e), 0);
	assert_int_equal(compare(f, UUID, 1001, &term), FLOOR_OK);
	assert_int_equal(truncate(beside(f, "-floor"), 0), 0);
	assert_int_equal(compare(f, UUID, 1001, &term), FLOOR_UNREADABLE);
}

static void mode_of_the_database(void **state)
{
	struct fixture *f = *state;
	struct stat status;
	int fd = open(f->database, O_WRONLY | O_CREAT, 0600);

	assert_int_equal(fchmod(fd, 0660), 0);
	if (geteuid() == 0)
		assert_int_equal(fchown(fd, 65534, 65534), 0);
	close(fd);
	assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), 0);
	assert_int_equal(stat(beside(f, "-floor"), &status), 0);
	assert_int_equal(status.st_mode & 07777, 0660);
	if (geteuid() == 0)
		assert_int_equal(status.st_uid, 65534);
}

static void a_stuck_writer_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	int fd;

	assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), 0);
	fd = open(beside(f, "-floor"), O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(floor_raise(f->database, UUID, 1001, 20, &f->e), ERR_BUSY);
	assert_says(f, "nobody is promoted");
	close(fd);
	assert_int_equal(floor_raise(f->database, UUID, 1001, 20, &f->e), 0);
}

static void not_a_file(void **state)
{
	struct fixture *f = *state;
	int64_t term;

	assert_int_equal(symlink("elsewhere", beside(f, "-floor")), 0);
	assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), ERR_SYSTEM);
	assert_int_equal(compare(f, UUID, 1000, &term), FLOOR_UNREADABLE);
	unlink(beside(f, "-floor"));
	assert_int_equal(mkfifo(beside(f, "-floor"), 0600), 0);
	assert_int_equal(compare(f, UUID, 1000, &term), FLOOR_UNREADABLE);
	assert_int_equal(floor_raise(f->database, UUID, 1000, 100, &f->e), ERR_SYSTEM);
}

static void many_writers(void **state)
{
	struct fixture *f = *state;
	enum { WRITERS = 8, ROUNDS = 20 };
	pid_t children[WRITERS];
	int64_t term;

	for (int i = 0; i < WRITERS; i++) {
		children[i] = fork();
		if (children[i] != 0)
			continue;
		for (int round = 0; round < ROUNDS; round++) {
			int64_t mine = 1000 + round * WRITERS + i, seen;
			if (floor_raise(f->database, UUID, mine, 20000, &f->e) != 0)
				_exit(1);
			floor_compare(f->database, UUID, mine, &seen, NULL);
			if (seen < mine)
				_exit(2);
		}
		_exit(0);
	}
	for (int i = 0; i < WRITERS; i++) {
		int status;
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	compare(f, UUID, 1, &term);
	assert_int_equal(term, 1000 + WRITERS * ROUNDS - 1);
}

#define FLOOR(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FLOOR(raised_and_compared),
		FLOOR(never_lower),
		FLOOR(nonsense_is_refused),
		FLOOR(torn_records),
		FLOOR(both_damaged),
		FLOOR(mode_of_the_database),
		FLOOR(a_stuck_writer_is_not_waited_for),
		FLOOR(not_a_file),
		FLOOR(many_writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

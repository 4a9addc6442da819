/* Memory that a fork does not copy: zeroed, kept when it grows, gone in the child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/shell/own_memory.h"

static void is_zeroed_and_grows(void **state)
{
	int *p = own_memory_new(10, sizeof *p);

	(void)state;
	assert_non_null(p);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(p[i], 0);
		p[i] = i;
	}
	p = own_memory_grow(p, 10, 100000, sizeof *p);
	assert_non_null(p);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(p[i], i < 10 ? i : 0);
	own_memory_free(p, 100000, sizeof *p);
	p = own_memory_grow(NULL, 0, 1, sizeof *p);
	assert_non_null(p);
	own_memory_free(p, 1, sizeof *p);
	own_memory_free(NULL, 5, sizeof *p);
}

static void refuses_what_is_not_there(void **state)
{
	(void)state;
	assert_null(own_memory_new(0, 8));
	assert_null(own_memory_new(SIZE_MAX / 4, 8));
}

/* mincore is answered by the mapping: ENOMEM where there is none. */
static void is_not_in_the_child(void **state)
{
	char *p = own_memory_new(1, 1);
	unsigned char there;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(mincore(p, 1, &there), 0);
	pid = fork();
	if (pid == 0)
		_exit(mincore(p, 1, &there) == -1 && errno == ENOMEM ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	own_memory_free(p, 1, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_zeroed_and_grows),
		cmocka_unit_test(refuses_what_is_not_there),
		cmocka_unit_test(is_not_in_the_child),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

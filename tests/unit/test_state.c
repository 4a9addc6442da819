/* The live state as a document: what is saved comes back, field by field; what does not fit is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/state_check.h"

static uint64_t seed = 20260101;

static unsigned any(unsigned below)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(seed >> 33) % below;
}

static void fill_text(char *at, size_t most)
{
	size_t bytes = any((unsigned)(most < 40 ? most : 40) + 1);

	for (size_t i = 0; i < bytes; i++) /* some are no UTF-8 */
		at[i] = (char)(any(8) == 0 ? 1 + any(255) : 'a' + any(26));
}

static void fill(const struct state_struct *s, char *at);

static void fill_field(const struct state_field *f, char *at)
{
	char text[64] = "";

	switch (f->type) {
	case STATE_BOOL:
		*(bool *)at = any(2);
		break;
	case STATE_SIGNED:
	case STATE_UNSIGNED:
		for (size_t i = 0; i < f->size; i++)
			at[i] = (char)any(256);
		break;
	case STATE_NAMED:
		memcpy(at, &(unsigned){any(f->names)}, sizeof(unsigned));
		break;
	case STATE_FD:
		*(int *)at = any(3) == 0 ? -1 : 3 + (int)any(1000);
		break;
	case STATE_TEXT:
		fill_text(at, f->size - 1);
		break;
	case STATE_BYTES:
		for (size_t i = 0; i < f->size; i++)
			at[i] = (char)any(256);
		break;
	case STATE_STRING:
	case STATE_REASON:
		fill_text(text, sizeof text - 1);
		*(char **)at = any(4) == 0 ? NULL : strdup(text);
		break;
	case STATE_STRUCT:
		fill(f->of, at);
		break;
	case STATE_NONE:
	case STATE_SKIP:
		break;
	}
}

static void each_field(const struct state_struct *s, char *a, char *b,
	void (*take)(const struct state_field *f, char *a, char *b))
{
	for (size_t i = 0; i < s->count; i++) {
		const struct state_field *f = &s->fields[i];

		for (size_t j = 0; j < f->count; j++)
			take(f, a + f->offset + j * f->size, b + f->offset + j * f->size);
	}
}

static void take_fill(const struct state_field *f, char *a, char *b)
{
	(void)b;
	fill_field(f, a);
}

static void fill(const struct state_struct *s, char *at)
{
	each_field(s, at, at, take_fill);
}

static const char *comparing;

static void take_compare(const struct state_field *f, char *a, char *b)
{
	bool same = true;

	switch (f->type) {
	case STATE_STRING:
	case STATE_REASON:
		if (*(char **)a == NULL || *(char **)b == NULL)
			same = *(char **)a == *(char **)b;
		else
			same = strcmp(*(char **)a, *(char **)b) == 0;
		free(*(char **)a);
		if (f->type == STATE_STRING)
			free(*(char **)b);
		break;
	case STATE_STRUCT:
		each_field(f->of, a, b, take_compare);
		break;
	case STATE_NONE:
	case STATE_SKIP:
		break;
	default:
		same = memcmp(a, b, f->size) == 0;
		break;
	}
	if (!same)
		fail_msg("%s: '%s' is another one after saving and loading", comparing, f->name);
}

static void round_trip(const struct state_struct *s)
{
	char *before = calloc(1, s->size), *after = calloc(1, s->size), *text;
	json_t *saved, *read;
	struct err e;

	fill(s, before);
	saved = state_save_struct(s, before);
	text = json_dumps(saved, JSON_COMPACT);
	assert_non_null(text);
	read = json_loads(text, 0, NULL);
	if (state_load_struct(s, read, after, &e) < 0)
		fail_msg("%s: %s", s->name, e.text);
	comparing = s->name;
	each_field(s, before, after, take_compare);
	json_decref(saved);
	json_decref(read);
	free(text);
	free(before);
	free(after);
}

static void test_what_is_saved_comes_back(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
#define X(list, type) round_trip(&state_##list);
		STATE_STRUCTS(X)
#undef X
	}
}

static void test_every_field_is_listed(void **state)
{
	(void)state;
	assert_int_equal(state_check(), 0);
}

/* The check itself must be able to fail. */
struct grown {
	int known;
	bool other;
	bool forgotten; /* in what was padding */
	int64_t last;
};

static void test_a_forgotten_field_is_found(void **state)
{
	static const struct state_field fields[] = {
		{.name = "known", .type = STATE_SIGNED, .offset = 0, .size = 4, .count = 1},
		{.name = "other", .type = STATE_BOOL, .offset = 4, .size = 1, .count = 1},
		{.name = "last", .type = STATE_SIGNED, .offset = 8, .size = 8, .count = 1},
	};
	static const struct state_struct list = {"struct grown", sizeof(struct grown), fields, 3};
	static const struct state_struct less = {"struct grown", sizeof(struct grown), fields, 2};
	unsigned char mask[sizeof(struct grown)];

	(void)state;
	memset(mask, 0xff, sizeof mask);
	STATE_CHECK_PADDING(struct grown, mask);
	if (mask[0] == 0)
		skip(); /* this compiler does not tell */
	assert_int_equal(state_check_struct(&list, mask), 1);
	assert_int_equal(state_check_struct(&less, mask), 2);
}

static void refuse(const struct state_struct *s, const char *text, const char *why)
{
	char *at = calloc(1, s->size);
	json_t *o = json_loads(text, JSON_DECODE_ANY, NULL);
	struct err e = {.text = ""};

	assert_non_null(o);
	assert_true(state_load_struct(s, o, at, &e) < 0);
	if (strstr(e.text, why) == NULL)
		fail_msg("%s: '%s' does not say '%s'", text, e.text, why);
	json_decref(o);
	free(at);
}

static void test_what_does_not_fit_is_refused(void **state)
{
	(void)state;
	refuse(&state_worker, "[]", "there is no struct worker");
	refuse(&state_worker, "{\"pid\":\"x\"}", "'pid'");
	refuse(&state_worker, "{\"pid\":99999999999}", "'pid'");
	refuse(&state_worker, "{\"used\":1}", "'used'");
	refuse(&state_worker, "{\"state\":\"flying\"}", "'state' is 'flying'");
	refuse(&state_program, "{\"executor\":{\"state\":3}}", "executor: its field 'state'");
	refuse(&state_listener_slot, "{\"listener\":{\"path\":[\"2g\"]}}", "'path'");
	refuse(&state_listener_slot, "{\"listener\":{\"path\":[\"2\"]}}", "'path'");
	refuse(&state_hook,
		"{\"what\":"
		"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
		"'what'");
}

/* What a later version adds is passed over; what an earlier one lacked is 0, a descriptor -1. */
static void test_other_versions(void **state)
{
	json_t *o = json_loads("{\"pid\":7,\"from_the_future\":{\"a\":1}}", 0, NULL);
	struct helper h = {.fd = 99};
	struct err e;

	(void)state;
	assert_int_equal(state_load_struct(&state_helper, o, &h, &e), 0);
	assert_int_equal(h.pid, 7);
	assert_int_equal(h.fd, -1);
	json_decref(o);
}

static void note_fd(int fd, void *context)
{
	*(int *)context += fd;
}

static void test_descriptors_are_found(void **state)
{
	struct process p = {.report_fd = 3, .hold_fd = -1, .channel_fd = 40};
	int sum = 0;

	(void)state;
	p.lease.fd_rw = 500;
	p.lease.fd_ro = -1;
	state_each_fd(&state_process, &p, note_fd, &sum);
	assert_int_equal(sum, 543);
}

static void test_equal_reasons_are_one(void **state)
{
	char a[] = "it was told to", b[] = "it was told to";

	(void)state;
	assert_ptr_equal(state_intern(a), state_intern(b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_field_is_listed),
		cmocka_unit_test(test_a_forgotten_field_is_found),
		cmocka_unit_test(test_what_is_saved_comes_back),
		cmocka_unit_test(test_what_does_not_fit_is_refused),
		cmocka_unit_test(test_other_versions),
		cmocka_unit_test(test_descriptors_are_found),
		cmocka_unit_test(test_equal_reasons_are_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

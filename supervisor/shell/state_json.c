/* Structs as JSON objects, by their lists of fields. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/state_fields.h"

/* --- bytes and text ------------------------------------------------------------------------ */
static json_t *save_hex(const char *bytes, size_t count)
{
	static const char digits[] = "0123456789abcdef";
	char *text = malloc(2 * count + 1);
	json_t *o = NULL;

	for (size_t i = 0; text != NULL && i < count; i++) {
		text[2 * i] = digits[(unsigned char)bytes[i] >> 4];
		text[2 * i + 1] = digits[(unsigned char)bytes[i] & 15];
	}
	if (text != NULL)
		o = json_pack("[s#]", text, (int)(2 * count));
	free(text);
	return o;
}

json_t *state_save_bytes(const char *bytes, size_t count)
{
	json_t *o = memchr(bytes, '\0', count) == NULL ? json_stringn(bytes, count) : NULL;

	return o != NULL ? o : save_hex(bytes, count);
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *state_load_bytes(const json_t *o, size_t *ret_count)
{
	const json_t *hex = json_is_array(o) ? json_array_get(o, 0) : NULL;
	const char *text = json_string_value(hex != NULL ? hex : o);
	size_t bytes = json_string_length(hex != NULL ? hex : o);
	char *made = text != NULL && (hex == NULL || bytes % 2 == 0) ? malloc(bytes + 1) : NULL;

	if (made == NULL)
		return NULL;
	if (hex == NULL) {
		memcpy(made, text, bytes);
	} else {
		bytes /= 2;
		for (size_t i = 0; i < bytes; i++) {
			int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

			if (high < 0 || low < 0) {
				free(made);
				return NULL;
			}
			made[i] = (char)(high * 16 + low);
		}
	}
	made[bytes] = '\0';
	*ret_count = bytes;
	return made;
}

const char *state_intern(const char *text)
{
	static struct interned {
		struct interned *next;
		char text[];
	} * all;
	size_t bytes = strlen(text) + 1;
	struct interned *made;

	for (struct interned *i = all; i != NULL; i = i->next) {
		if (strcmp(i->text, text) == 0)
			return i->text;
	}
	made = malloc(sizeof *made + bytes);
	if (made == NULL)
		return "";
	memcpy(made->text, text, bytes);
	made->next = all;
	all = made;
	return made->text;
}

/* --- numbers ------------------------------------------------------------------------------- */
static int64_t get_signed(const void *at, size_t size)
{
	switch (size) {
	case 1:
		return *(const int8_t *)at;
	case 2:
		return *(const int16_t *)at;
	case 4:
		return *(const int32_t *)at;
	default:
		return *(const int64_t *)at;
	}
}

static uint64_t get_unsigned(const void *at, size_t size)
{
	switch (size) {
	case 1:
		return *(const uint8_t *)at;
	case 2:
		return *(const uint16_t *)at;
	case 4:
		return *(const uint32_t *)at;
	default:
		return *(const uint64_t *)at;
	}
}

/* False when VALUE does not fit. */
static bool put(void *at, size_t size, bool is_signed, int64_t value)
{
	memcpy(at, &value, size); /* little endian, as the lease page */
	return size == sizeof value || (is_signed ? get_signed(at, size) == value
						  : (int64_t)get_unsigned(at, size) == value);
}

/* --- saving -------------------------------------------------------------------------------- */
/* NULL: nothing to say. */
static json_t *save_value(const struct state_field *f, const void *at)
{
	const char *text;
	size_t bytes;

	switch (f->type) {
	case STATE_BOOL:
		return *(const bool *)at ? json_true() : NULL;
	case STATE_FD:
		return *(const int *)at != -1 ? json_integer(*(const int *)at) : NULL;
	case STATE_SIGNED:
		return get_signed(at, f->size) != 0 ? json_integer(get_signed(at, f->size)) : NULL;
	case STATE_UNSIGNED:
		return get_unsigned(at, f->size) != 0
			       ? json_integer((json_int_t)get_unsigned(at, f->size))
			       : NULL;
	case STATE_NAMED:
		return get_unsigned(at, f->size) != 0
			       ? json_string(f->text((unsigned)get_unsigned(at, f->size)))
			       : NULL;
	case STATE_TEXT:
		bytes = strnlen(at, f->size);
		return bytes > 0 ? state_save_bytes(at, bytes) : NULL;
	case STATE_BYTES:
		for (bytes = f->size; bytes > 0 && ((const char *)at)[bytes - 1] == '\0';)
			bytes--;
		return bytes > 0 ? state_save_bytes(at, bytes) : NULL;
	case STATE_STRING:
	case STATE_REASON:
		text = *(const char *const *)at;
		return text != NULL ? state_save_bytes(text, strlen(text)) : NULL;
	case STATE_STRUCT:
		return state_save_struct(f->of, at);
	case STATE_NONE:
	case STATE_SKIP:
		break;
	}
	return NULL;
}

static json_t *save_array(const struct state_field *f, const void *at)
{
	json_t *all = json_array();

	for (size_t i = 0; i < f->count; i++) {
		json_t *value = save_value(f, (const char *)at + i * f->size);

		json_array_append_new(all, value != NULL ? value : json_null());
	}
	/* What is at its end is what it would be without. */
	for (size_t n = json_array_size(all); n > 0; n--) {
		const json_t *last = json_array_get(all, n - 1);

		if (!json_is_null(last) && !(json_is_object(last) && json_object_size(last) == 0))
			break;
		json_array_remove(all, n - 1);
	}
	return all;
}

json_t *state_save_struct(const struct state_struct *of, const void *from)
{
	json_t *o = json_object();

	for (size_t i = 0; i < of->count; i++) {
		const struct state_field *f = &of->fields[i];
		const void *at = (const char *)from + f->offset;
		json_t *value = NULL;

		if (f->type == STATE_SKIP)
			continue;
		value = f->count > 1 ? save_array(f, at) : save_value(f, at);
		if (value != NULL)
			json_object_set_new_nocheck(o, f->name, value);
	}
	return o;
}

/* --- loading ------------------------------------------------------------------------------- */
static int wrong(const struct state_field *f, struct err *e)
{
	return err_set(e, ERR_WRONG, "its field '%s' does not fit this version of baton", f->name);
}

static int load_text(const struct state_field *f, const json_t *value, void *at, struct err *e)
{
	size_t bytes, most = f->type == STATE_TEXT ? f->size - 1 : f->size;
	char *text = state_load_bytes(value, &bytes);

	if (text == NULL || (f->type != STATE_STRING && f->type != STATE_REASON && bytes > most)) {
		free(text);
		return wrong(f, e);
	}
	if (f->type == STATE_STRING) {
		free(*(char **)at);
		*(char **)at = text;
		return 0;
	}
	if (f->type == STATE_REASON) {
		*(const char **)at = state_intern(text);
	} else {
		memset(at, 0, f->size);
		memcpy(at, text, bytes);
	}
	free(text);
	return 0;
}

static int load_named(const struct state_field *f, const json_t *value, void *at, struct err *e)
{
	const char *text = json_string_value(value);

	for (unsigned i = 0; text != NULL && i < f->names; i++) {
		if (strcmp(f->text(i), text) == 0)
			return put(at, f->size, false, i) ? 0 : wrong(f, e);
	}
	return err_set(e, ERR_WRONG,
		"its field '%s' is '%s', which this version of baton does not "
		"know",
		f->name, text != NULL ? text : "");
}

static int load_value(const struct state_field *f, const json_t *value, void *at, struct err *e)
{
	switch (f->type) {
	case STATE_BOOL:
		if (!json_is_boolean(value))
			return wrong(f, e);
		*(bool *)at = json_is_true(value);
		return 0;
	case STATE_SIGNED:
	case STATE_UNSIGNED:
	case STATE_FD:
		if (!json_is_integer(value) ||
			!put(at, f->size, f->type != STATE_UNSIGNED, json_integer_value(value)))
			return wrong(f, e);
		return 0;
	case STATE_NAMED:
		return load_named(f, value, at, e);
	case STATE_TEXT:
	case STATE_BYTES:
	case STATE_STRING:
	case STATE_REASON:
		return load_text(f, value, at, e);
	case STATE_STRUCT:
		if (state_load_struct(f->of, value, at, e) < 0)
			return err_prefix(e, "%s", f->name);
		return 0;
	case STATE_NONE:
	case STATE_SKIP:
		break;
	}
	return 0;
}

static int load_array(const struct state_field *f, const json_t *values, void *at, struct err *e)
{
	if (!json_is_array(values) || json_array_size(values) > f->count)
		return wrong(f, e);
	for (size_t i = 0; i < json_array_size(values); i++) {
		const json_t *value = json_array_get(values, i);

		if (!json_is_null(value) && load_value(f, value, (char *)at + i * f->size, e) < 0)
			return e->code;
	}
	return 0;
}

int state_load_struct(const struct state_struct *of, const json_t *object, void *to, struct err *e)
{
	if (!json_is_object(object))
		return err_set(e, ERR_WRONG, "there is no %s", of->name);
	for (size_t i = 0; i < of->count; i++) {
		const struct state_field *f = &of->fields[i];
		const json_t *value = f->type != STATE_SKIP ? json_object_get(object, f->name)
							    : NULL;
		void *at = (char *)to + f->offset;
		int rc;

		if (value == NULL && f->type == STATE_FD)
			*(int *)at = -1;
		if (value == NULL)
			continue;
		rc = f->count > 1 ? load_array(f, value, at, e) : load_value(f, value, at, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void state_each_fd(const struct state_struct *of, const void *at,
	void (*each)(int fd, void *context), void *context)
{
	for (size_t i = 0; i < of->count; i++) {
		const struct state_field *f = &of->fields[i];
		const char *field = (const char *)at + f->offset;

		for (size_t j = 0; j < f->count; j++, field += f->size) {
			if (f->type == STATE_FD && *(const int *)field >= 0)
				each(*(const int *)field, context);
			else if (f->type == STATE_STRUCT)
				state_each_fd(f->of, field, each, context);
		}
	}
}

void state_fds_add(struct state_fds *fds, int fd)
{
	if (fd < 0)
		return;
	if (fds->count == fds->capacity) {
		size_t capacity = fds->capacity != 0 ? 2 * fds->capacity : 64;
		int *more = realloc(fds->items, capacity * sizeof *more);

		if (more == NULL) {
			fds->failed = true;
			return;
		}
		fds->items = more;
		fds->capacity = capacity;
	}
	fds->items[fds->count++] = fd;
}

static void add_fd(int fd, void *context)
{
	state_fds_add(context, fd);
}

json_t *state_put(const struct state_struct *of, const void *from, struct state_fds *fds)
{
	state_each_fd(of, from, add_fd, fds);
	return state_save_struct(of, from);
}

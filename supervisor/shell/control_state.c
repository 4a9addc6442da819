/* The control server over an upgrade in place: nobody has to connect again. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/control_internal.h"
#include "supervisor/shell/state_fields.h"

int control_connection_place(const struct control_connection *n)
{
	return n->place;
}

struct control_connection *control_connection_at(struct control *c, int place)
{
	for (struct control_connection *n = c->connections; n; n = n->next) {
		if (n->place == place && place >= 0)
			return n;
	}
	return NULL;
}

static json_t *save_connection(struct control_connection *n, struct state_fds *fds)
{
	json_t *o = state_put(&state_connection, n, fds);

	if (n->input_bytes)
		json_object_set_new(o, "input", state_save_bytes(n->input, n->input_bytes));
	if (n->queue_bytes)
		json_object_set_new(
			o, "queue", state_save_bytes(n->queue + n->queue_start, n->queue_bytes));
	return o;
}

json_t *control_save(struct control *c, struct state_fds *fds)
{
	json_t *o = state_put(&state_control, c, fds), *all = json_array();
	int place = 0;

	for (struct control_connection *n = c->connections; n; n = n->next) {
		n->place = n->dead ? -1 : place++;
		if (!n->dead)
			json_array_append_new(all, save_connection(n, fds));
	}
	json_object_set_new(o, "connections", all);
	return o;
}

static int load_bytes(const json_t *from, char **ret_bytes, size_t *ret_used, size_t *ret_capacity)
{
	if (!from)
		return 0;
	*ret_bytes = state_load_bytes(from, ret_used);
	*ret_capacity = *ret_used;
	return *ret_bytes ? 0 : -1;
}

static int load_connection(struct control *c, const json_t *o, int place, struct err *e)
{
	struct control_connection *n = calloc(1, sizeof(*n));

	if (!n || state_load_struct(&state_connection, o, n, e) < 0) {
		free(n);
		return n ? e->code : err_set(e, ERR_SYSTEM, "out of memory");
	}
	n->place = place;
	if (load_bytes(json_object_get(o, "input"), &n->input, &n->input_bytes,
		    &n->input_capacity) < 0 ||
		load_bytes(json_object_get(o, "queue"), &n->queue, &n->queue_bytes,
			&n->queue_capacity) < 0 ||
		connection_resume(c, n) < 0)
		return err_set(e, ERR_WRONG, "what a client has said is unreadable");
	return 0;
}

int control_load(struct loop *l, const json_t *o, const struct control_handlers *h,
	struct control **ret, struct err *e)
{
	const json_t *all = json_object_get(o, "connections");
	struct control *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(e, ERR_SYSTEM, "out of memory");
	*ret = c;
	if (state_load_struct(&state_control, o, c, e) < 0)
		return err_prefix(e, "control");
	c->loop = l;
	c->handlers = *h;
	if (control_resume(c) < 0)
		return err_set(e, ERR_SYSTEM, "out of memory");
	for (size_t i = json_array_size(all); i > 0; i--) {
		if (load_connection(c, json_array_get(all, i - 1), (int)i - 1, e) < 0)
			return err_prefix(e, "control");
	}
	return 0;
}

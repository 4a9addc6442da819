/* Those who wait for something, over an upgrade in place. */
#include <stdlib.h>

#include "supervisor/shell/commands.h"
#include "supervisor/shell/state_fields.h"

static json_t *save_waiter(const struct waiter *w)
{
	json_t *o = state_save_struct(&state_waiter, w), *workers = json_array();
	json_t *programs = json_array();

	json_object_set_new(o, "from", json_integer(control_connection_place(w->from)));
	for (size_t i = 0; i < w->worker_count; i++)
		json_array_append_new(
			workers, state_save_struct(&state_waiter_worker, &w->workers[i]));
	json_object_set_new(o, "workers", workers);
	for (size_t i = 0; i < w->program_count; i++)
		json_array_append_new(
			programs, state_save_struct(&state_waiter_program, &w->programs[i]));
	json_object_set_new(o, "programs", programs);
	if (w->result != NULL)
		json_object_set(o, "result", w->result);
	return o;
}

json_t *waiters_save(const struct supervisor *s)
{
	json_t *all = json_array();

	for (struct waiter *w = s->commands->waiters; w != NULL; w = w->next) {
		if (w->from != NULL && control_connection_place(w->from) >= 0)
			json_array_append_new(all, save_waiter(w));
	}
	return all;
}

static int load_programs(struct waiter *w, const json_t *programs, struct err *e)
{
	size_t count = json_array_size(programs);

	w->programs = calloc(count + 1, sizeof *w->programs);
	if (w->programs == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		if (state_load_struct(&state_waiter_program, json_array_get(programs, i),
			    &w->programs[i], e) < 0)
			return err_prefix(e, "waiters");
		w->program_count++;
	}
	return 0;
}

static int load_waiter(struct supervisor *s, const json_t *o, struct err *e)
{
	const json_t *workers = json_object_get(o, "workers");
	size_t count = json_array_size(workers);
	struct waiter *w = calloc(1, sizeof *w);

	if (w == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	w->next = s->commands->waiters;
	s->commands->waiters = w;
	if (state_load_struct(&state_waiter, o, w, e) < 0)
		return err_prefix(e, "waiters");
	w->from = control_connection_at(
		s->control, (int)json_integer_value(json_object_get(o, "from")));
	w->workers = calloc(count + 1, sizeof *w->workers);
	if (w->workers == NULL)
		return err_set(e, ERR_SYSTEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		if (state_load_struct(&state_waiter_worker, json_array_get(workers, i),
			    &w->workers[i], e) < 0)
			return err_prefix(e, "waiters");
		w->worker_count++;
	}
	if (load_programs(w, json_object_get(o, "programs"), e) < 0)
		return e->code;
	if (json_object_get(o, "result") != NULL)
		w->result = json_incref(json_object_get(o, "result"));
	return 0;
}

int waiters_load(struct supervisor *s, const json_t *all, struct err *e)
{
	for (size_t i = json_array_size(all); i > 0; i--) {
		if (load_waiter(s, json_array_get(all, i - 1), e) < 0)
			return e->code;
	}
	return 0;
}

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/commands.h"
#include "supervisor/shell/state_document.h"

/* --- snapshots ----------------------------------------------------------------------------- */
/* The configurations that anything points into, each once. */
struct snapshots {
	const struct config **items;
	size_t count;
};

static void add_snapshot(struct snapshots *all, const struct config *c)
{
	for (size_t i = 0; i < all->count; i++) {
		if (all->items[i] == c)
			return;
	}
	all->items[all->count++] = c;
}

static bool list_snapshots(const struct supervisor *s, struct snapshots *all)
{
	all->count = 0;
	all->items = calloc(s->retired_count + 2, sizeof(const struct config *));
	if (all->items == NULL)
		return false;
	add_snapshot(all, s->config);
	add_snapshot(all, s->booted);
	for (size_t i = 0; i < s->retired_count; i++)
		add_snapshot(all, s->retired[i]);
	return true;
}

static json_t *place_of(const struct snapshots *all, const struct config *c)
{
	for (size_t i = 0; i < all->count; i++) {
		if (all->items[i] == c)
			return json_integer((json_int_t)i);
	}
	return json_null();
}

/* [snapshot, position, name]; the name is compared when the snapshot has been read again. */
static json_t *settings_of(const struct snapshots *all, const struct config_program *p)
{
	for (size_t i = 0; i < all->count && p != NULL; i++) {
		const struct config *c = all->items[i];

		if (p >= c->programs && p < c->programs + c->program_count)
			return json_pack("[i, i, o]", (int)i, (int)(p - c->programs),
				state_save_bytes(p->name, strlen(p->name)));
	}
	return json_null();
}

static json_t *save_source(const struct config_source *from)
{
	return json_pack("{s:o s:b s:o}", "path", state_save_bytes(from->path, strlen(from->path)),
		"pattern", from->pattern, "text", state_save_bytes(from->text, from->bytes));
}

static json_t *save_snapshot(const struct supervisor *s, const struct config *c)
{
	const struct config_sources *from = config_sources(c);
	json_t *o = json_object(), *all = json_array();

	json_object_set_new(o, "path", state_save_bytes(c->path, strlen(c->path)));
	json_object_set_new(
		o, "directory", state_save_bytes(from->directory, strlen(from->directory)));
	if (s->config_text != NULL)
		json_object_set_new(
			o, "text", state_save_bytes(s->config_text, strlen(s->config_text)));
	for (size_t i = 0; i < from->count; i++)
		json_array_append_new(all, save_source(&from->items[i]));
	json_object_set_new(o, "sources", all);
	return o;
}

static void save_snapshots(
	const struct supervisor *s, const struct snapshots *all, json_t *document)
{
	json_t *saved = json_array(), *retired = json_array();

	for (size_t i = 0; i < all->count; i++)
		json_array_append_new(saved, save_snapshot(s, all->items[i]));
	for (size_t i = 0; i < s->retired_count; i++)
		json_array_append_new(retired, place_of(all, s->retired[i]));
	json_object_set_new(document, "snapshots", saved);
	json_object_set_new(document, "config", place_of(all, s->config));
	json_object_set_new(document, "booted", place_of(all, s->booted));
	json_object_set_new(document, "retired", retired);
}

/* --- the core's slots and ours --------------------------------------------------------------- */
static json_t *save_workers(const struct supervisor *s, const struct snapshots *all)
{
	json_t *saved = json_array();

	for (int i = 0; i < s->core.worker_slots; i++) {
		const struct worker *w = &s->core.workers[i];
		json_t *o;

		if (!w->used)
			continue;
		o = state_save_struct(&state_worker, w);
		json_object_set_new(o, "slot", json_integer(i));
		json_object_set_new(o, "settings", settings_of(all, w->settings));
		json_array_append_new(saved, o);
	}
	return saved;
}

static json_t *save_programs(const struct supervisor *s, const struct snapshots *all)
{
	json_t *saved = json_array();

	for (int i = 0; i < s->core.program_slots; i++) {
		const struct program *p = &s->core.programs[i];
		json_t *o;

		if (!p->used)
			continue;
		o = state_save_struct(&state_program, p);
		json_object_set_new(o, "slot", json_integer(i));
		json_object_set_new(o, "config", place_of(all, p->config));
		json_object_set_new(o, "settings", settings_of(all, p->settings));
		json_object_set_new(o, "rollout_config", place_of(all, p->rollout.config));
		json_object_set_new(o, "rollout_settings", settings_of(all, p->rollout.settings));
		if (report_rollout_why(s, i) != NULL)
			json_object_set_new(o, "rollout_why",
				state_save_bytes(report_rollout_why(s, i),
					strlen(report_rollout_why(s, i))));
		json_array_append_new(saved, o);
	}
	return saved;
}

static json_t *save_processes(const struct supervisor *s, struct state_fds *fds)
{
	json_t *saved = json_array();

	for (int i = 0; i < s->process_slots; i++) {
		const struct process *p = &s->processes[i];
		json_t *o, *streams;

		if (p->id == 0)
			continue;
		o = state_put(&state_process, p, fds);
		json_object_set_new(o, "slot", json_integer(i)); /* also that of 0 */
		streams = json_array();
		for (int j = 0; j < 2; j++)
			json_array_append_new(
				streams, json_integer(p->streams[j] != NULL
							      ? logs_stream_place(p->streams[j])
							      : -1));
		json_object_set_new(o, "streams", streams);
		json_array_append_new(saved, o);
	}
	return saved;
}

static json_t *save_listeners(const struct supervisor *s, struct state_fds *fds)
{
	json_t *saved = json_array();

	for (size_t i = 0; i < s->listener_count; i++)
		json_array_append_new(
			saved, state_put(&state_listener_slot, &s->listeners[i], fds));
	return saved;
}

/* --- the document ---------------------------------------------------------------------------- */
json_t *state_keeper_protocol(void)
{
	return json_pack("[i, I, I, I]", KEEPER_PROTOCOL, (json_int_t)sizeof(struct keeper_request),
		(json_int_t)sizeof(struct keeper_reply), (json_int_t)sizeof(struct store_settings));
}

json_t *state_deadman_protocol(void)
{
	return json_pack("[i, I, I, I]", DEADMAN_PROTOCOL,
		(json_int_t)sizeof(struct deadman_message),
		(json_int_t)sizeof(struct deadman_table), (json_int_t)sizeof(struct deadman_entry));
}

json_t *state_save(struct supervisor *s, struct state_fds *fds)
{
	struct snapshots all;
	json_t *o;

	if (!list_snapshots(s, &all))
		return NULL;
	o = json_pack("{s:s s:i s:i s:s s:i s:o s:o}", "baton", "state", "format", STATE_FORMAT,
		"readable_by", STATE_READABLE_BY, "version", BATON_VERSION, "pid", (int)getpid(),
		"keeper", state_keeper_protocol(), "deadman", state_deadman_protocol());
	if (o != NULL) {
		json_object_set_new(o, "privileges_dropped", json_boolean(privileges_dropped));
		save_snapshots(s, &all, o);
		json_object_set_new(o, "logs", logs_save(s->logs, fds));
		json_object_set_new(o, "control", control_save(s->control, fds));
		json_object_set_new(o, "notify", notify_save(s->notify, fds));
		json_object_set_new(o, "waiters", waiters_save(s));
		json_object_set_new(o, "supervisor", state_put(&state_supervisor, s, fds));
		json_object_set_new(o, "workers", save_workers(s, &all));
		json_object_set_new(o, "programs", save_programs(s, &all));
		json_object_set_new(o, "processes", save_processes(s, fds));
		json_object_set_new(o, "listeners", save_listeners(s, fds));
	}
	free(all.items);
	if (fds->failed) {
		json_decref(o);
		return NULL;
	}
	return o;
}

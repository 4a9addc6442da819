#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "supervisor/shell/commands.h"
#include "supervisor/shell/own_memory.h"
#include "supervisor/shell/state_document.h"

static int no_memory(struct err *e)
{
	return err_set(e, ERR_SYSTEM, "out of memory");
}

static int number(const json_t *o, const char *key)
{
	const json_t *n = json_object_get(o, key);

	return json_is_integer(n) ? (int)json_integer_value(n) : -1;
}

int state_check_document(const json_t *o, struct err *e)
{
	const char *magic = json_string_value(json_object_get(o, "baton"));
	int format = number(o, "format"), readable_by = number(o, "readable_by");

	if (magic == NULL || strcmp(magic, "state") != 0 || format < 1 || readable_by < 1)
		return err_set(e, ERR_WRONG, "that is not the state of a baton");
	if (format < STATE_READS_FROM)
		return err_set(e, ERR_WRONG,
			"the running baton is too old: its state has format %d, this version takes "
			"%d to %d and what later ones make readable; restart it instead",
			format, STATE_READS_FROM, STATE_FORMAT);
	if (readable_by > STATE_FORMAT)
		return err_set(e, ERR_WRONG,
			"the running baton is too new: its state has format %d and needs a version "
			"that knows format %d, this one knows %d; restart it instead",
			format, readable_by, STATE_FORMAT);
	return 0;
}

/* --- snapshots ----------------------------------------------------------------------------- */
struct snapshots {
	struct config **items;
	size_t count;
};

static char *text_of(const json_t *o, const char *key)
{
	size_t bytes;

	return state_load_bytes(json_object_get(o, key), &bytes);
}

static void release_sources(struct config_sources *from)
{
	for (size_t i = 0; i < from->count; i++) {
		free((char *)from->items[i].path);
		free((char *)from->items[i].text);
	}
	free((void *)from->items);
	free((char *)from->directory);
}

static int load_sources(const json_t *o, struct config_sources *ret_from, struct err *e)
{
	const json_t *all = json_object_get(o, "sources");
	struct config_source *items = calloc(json_array_size(all) + 1, sizeof *items);

	ret_from->directory = text_of(o, "directory");
	ret_from->items = items;
	ret_from->count = 0;
	if (items == NULL || ret_from->directory == NULL)
		return err_set(e, ERR_WRONG, "the configuration is missing");
	for (size_t i = 0; i < json_array_size(all); i++) {
		const json_t *source = json_array_get(all, i);

		items[i].path = text_of(source, "path");
		items[i].text = state_load_bytes(json_object_get(source, "text"), &items[i].bytes);
		items[i].pattern = json_is_true(json_object_get(source, "pattern"));
		ret_from->count++;
		if (items[i].path == NULL || items[i].text == NULL)
			return err_set(e, ERR_WRONG, "a file of the configuration is missing");
	}
	return 0;
}

/* Where relative paths began when it was read. That matters in compatibility mode alone; elsewhere
 * the folder may be gone. */
static struct config *read_at(const char *path, const char *text, enum config_force force,
	const struct config_sources *from, struct errlist *findings)
{
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	bool there = chdir(from->directory) == 0;
	struct config *c = NULL;

	(void)config_load_sources(path, text, force, from, &c, findings);
	if (here >= 0) {
		if (there && fchdir(here) < 0)
			there = false;
		close(here);
	}
	if (c != NULL && c->mode == CONFIG_COMPAT && !there) {
		errlist_addf(findings, false, path, 0,
			"the folder '%s', where its relative paths begin, cannot be entered",
			from->directory);
		config_unref(c);
		return NULL;
	}
	return c;
}

static int read_snapshot(struct supervisor *s, const char *path, const struct config_sources *from,
	struct config **ret, struct err *e)
{
	struct errlist findings;
	char line[1024] = "";

	errlist_init(&findings);
	*ret = read_at(path, s->config_text, s->force, from, &findings);
	for (size_t i = 0; i < findings.count && *ret == NULL && line[0] == '\0'; i++) {
		if (!findings.items[i].warning)
			err_format(&findings.items[i], line, sizeof line);
	}
	errlist_release(&findings);
	if (*ret != NULL)
		return 0;
	return err_set(e, ERR_CONFIG,
		"the running configuration is not accepted any more: %s; mend what it names, or "
		"restart baton",
		line);
}

static int load_snapshot(struct supervisor *s, const json_t *o, struct config **ret, struct err *e)
{
	struct config_sources from = {NULL, NULL, 0};
	char *path = text_of(o, "path");
	int rc = path != NULL ? load_sources(o, &from, e) : no_memory(e);

	if (s->config_text == NULL)
		s->config_text = text_of(o, "text"); /* until the process ends */
	if (rc == 0)
		rc = read_snapshot(s, path, &from, ret, e);
	release_sources(&from);
	free(path);
	return rc;
}

static struct config *snapshot_at(const struct snapshots *all, const json_t *place)
{
	json_int_t i = json_is_integer(place) ? json_integer_value(place) : -1;

	return i >= 0 && (size_t)i < all->count ? all->items[i] : NULL;
}

static int take_snapshots(
	struct supervisor *s, const json_t *o, const struct snapshots *all, struct err *e)
{
	const json_t *retired = json_object_get(o, "retired");
	struct config *config = snapshot_at(all, json_object_get(o, "config"));
	struct config *booted = snapshot_at(all, json_object_get(o, "booted"));

	if (config == NULL || booted == NULL)
		return err_set(e, ERR_WRONG, "the configuration is missing");
	s->config = config_ref(config);
	s->booted = config_ref(booted);
	s->core.config = s->config;
	s->retired = calloc(json_array_size(retired) + 1, sizeof(struct config *));
	if (s->retired == NULL)
		return no_memory(e);
	for (size_t i = 0; i < json_array_size(retired); i++) {
		struct config *c = snapshot_at(all, json_array_get(retired, i));

		if (c != NULL)
			s->retired[s->retired_count++] = config_ref(c);
	}
	return 0;
}

static int load_snapshots(
	struct supervisor *s, const json_t *o, struct snapshots *all, struct err *e)
{
	const json_t *saved = json_object_get(o, "snapshots");

	all->items = calloc(json_array_size(saved) + 1, sizeof(struct config *));
	if (all->items == NULL)
		return no_memory(e);
	for (size_t i = 0; i < json_array_size(saved); i++) {
		if (load_snapshot(s, json_array_get(saved, i), &all->items[i], e) < 0)
			return e->code;
		all->count++;
	}
	return take_snapshots(s, o, all, e);
}

static void release_snapshots(struct snapshots *all)
{
	for (size_t i = 0; i < all->count; i++)
		config_unref(all->items[i]);
	free(all->items);
}

/* *RET stays NULL when PLACE is null. */
static int settings_at(const struct snapshots *all, const json_t *place,
	const struct config_program **ret, struct err *e)
{
	const struct config *c = snapshot_at(all, json_array_get(place, 0));
	json_int_t position = json_integer_value(json_array_get(place, 1));
	size_t bytes;
	char *name;

	if (json_is_null(place))
		return 0;
	name = state_load_bytes(json_array_get(place, 2), &bytes);
	if (c != NULL && name != NULL && position >= 0 && (size_t)position < c->program_count &&
		strcmp(c->programs[position].name, name) == 0)
		*ret = &c->programs[position];
	free(name);
	if (*ret == NULL)
		return err_set(e, ERR_WRONG,
			"this version finds other programs in the running configuration");
	return 0;
}

/* --- the core's slots ------------------------------------------------------------------------ */
/* The slot that O is about, below SLOTS; -1 = none. */
static int slot_of(const json_t *o, int slots, struct err *e)
{
	int slot = number(o, "slot");

	if (slot >= 0 && slot < slots)
		return slot;
	err_set(e, ERR_WRONG, "a slot is out of its range");
	return -1;
}

static int load_worker(
	struct supervisor *s, const json_t *o, const struct snapshots *all, struct err *e)
{
	int slot = slot_of(o, s->core.worker_slots, e);
	struct worker *w = slot >= 0 ? &s->core.workers[slot] : NULL;

	if (w == NULL || state_load_struct(&state_worker, o, w, e) < 0 ||
		settings_at(all, json_object_get(o, "settings"), &w->settings, e) < 0)
		return err_prefix(e, "workers");
	if (w->settings == NULL || w->program < 0 || w->program >= s->core.program_slots)
		return err_set(e, ERR_WRONG, "workers: one has no program");
	return 0;
}

static int load_program(
	struct supervisor *s, const json_t *o, const struct snapshots *all, struct err *e)
{
	int slot = slot_of(o, s->core.program_slots, e);
	struct program *p = slot >= 0 ? &s->core.programs[slot] : NULL;
	char *why;

	if (p == NULL || state_load_struct(&state_program, o, p, e) < 0 ||
		settings_at(all, json_object_get(o, "settings"), &p->settings, e) < 0 ||
		settings_at(all, json_object_get(o, "rollout_settings"), &p->rollout.settings, e) <
			0)
		return err_prefix(e, "programs");
	p->config = snapshot_at(all, json_object_get(o, "config"));
	p->rollout.config = snapshot_at(all, json_object_get(o, "rollout_config"));
	why = text_of(o, "rollout_why");
	if (why != NULL)
		report_set_rollout_why(s, slot, why);
	free(why);
	if (p->settings != NULL &&
		json_object_get(o, "file_count") == NULL) /* of before it was kept */
		p->file_count = p->settings->workers;
	if (p->settings == NULL || p->config == NULL || p->executor.worker >= s->core.worker_slots)
		return err_set(e, ERR_WRONG, "programs: one has no settings");
	return 0;
}

static int each(struct supervisor *s, const json_t *saved, const struct snapshots *all,
	int (*load)(
		struct supervisor *s, const json_t *o, const struct snapshots *all, struct err *e),
	struct err *e)
{
	for (size_t i = 0; i < json_array_size(saved); i++) {
		if (load(s, json_array_get(saved, i), all, e) < 0)
			return e->code;
	}
	return 0;
}

static int load_core(
	struct supervisor *s, const json_t *o, const struct snapshots *all, struct err *e)
{
	struct core *c = &s->core;

	if (c->worker_slots < 0 || c->worker_slots > PROCESS_SLOTS || c->program_slots < 0)
		return err_set(e, ERR_WRONG, "there are more workers than can be");
	if (c->worker_slots > 0)
		c->workers = own_memory_new((size_t)c->worker_slots, sizeof *c->workers);
	c->programs = calloc((size_t)c->program_slots + 1, sizeof *c->programs);
	if ((c->workers == NULL && c->worker_slots > 0) || c->programs == NULL)
		return no_memory(e);
	if (each(s, json_object_get(o, "workers"), all, load_worker, e) < 0)
		return e->code;
	return each(s, json_object_get(o, "programs"), all, load_program, e);
}

/* --- processes, sockets ---------------------------------------------------------------------- */
static int load_process(struct supervisor *s, const json_t *o, bool trial, struct err *e)
{
	int slot = slot_of(o, s->process_slots, e);
	struct process *p = slot >= 0 ? &s->processes[slot] : NULL;
	const json_t *streams = json_object_get(o, "streams");
	int places[2] = {-1, -1};
	pid_t pid;

	if (p == NULL || state_load_struct(&state_process, o, p, e) < 0)
		return err_prefix(e, "processes");
	if (!trial && p->lease.fd_rw >= 0 && lease_map(p->lease.fd_rw, &p->lease.page, e) < 0)
		return err_prefix(e, "%s", p->name);
	pid = p->pid;
	p->pid = 0;
	supervisor_set_pid(p, pid);
	for (int i = 0; i < 2; i++) {
		const json_t *place = json_array_get(streams, (size_t)i);

		places[i] = json_is_integer(place) ? (int)json_integer_value(place) : -1;
	}
	spawn_resume(p, places);
	channel_resume(s, p);
	return 0;
}

static int load_processes(struct supervisor *s, const json_t *saved, bool trial, struct err *e)
{
	s->process_slots = s->core.worker_slots;
	for (int i = 0; i < s->process_slots; i++)
		process_init(s, &s->processes[i], i);
	for (size_t i = 0; i < json_array_size(saved); i++) {
		if (load_process(s, json_array_get(saved, i), trial, e) < 0)
			return e->code;
	}
	return 0;
}

static int load_listeners(struct supervisor *s, const json_t *saved, struct err *e)
{
	s->listeners = calloc(json_array_size(saved) + 1, sizeof *s->listeners);
	if (s->listeners == NULL)
		return no_memory(e);
	for (size_t i = 0; i < json_array_size(saved); i++) {
		struct listener_slot *l = &s->listeners[i];
		if (state_load_struct(&state_listener_slot, json_array_get(saved, i), l, e) < 0)
			return err_prefix(e, "sockets");
		l->watch = -1;
		s->listener_count++;
	}
	return 0;
}

/* --- the whole ------------------------------------------------------------------------------- */
static int load_control(struct supervisor *s, const json_t *o, struct err *e)
{
	struct control_handlers h;

	if (commands_create(s, &h) < 0)
		return no_memory(e);
	if (control_load(s->loop, json_object_get(o, "control"), &h, &s->control, e) < 0 ||
		waiters_load(s, json_object_get(o, "waiters"), e) < 0)
		return e->code;
	commands_resume(s);
	return notify_load(
		s->loop, json_object_get(o, "notify"), channel_notified, s, &s->notify, e);
}

/* What its own parts forget would be 0: the table has holes there (SKIP). */
static int load_supervisor(struct supervisor *s, const json_t *o, struct err *e)
{
	if (state_load_struct(&state_supervisor, json_object_get(o, "supervisor"), s, e) < 0)
		return e->code;
	memset(s->lock.arm_sent_ns, 0, sizeof s->lock.arm_sent_ns);
	privileges_dropped = json_is_true(json_object_get(o, "privileges_dropped"));
	return 0;
}

int state_load(struct supervisor *s, const json_t *o, bool trial, struct err *e)
{
	struct snapshots all = {NULL, 0};
	int rc = load_supervisor(s, o, e);

	if (rc == 0)
		rc = load_snapshots(s, o, &all, e);
	if (rc == 0)
		rc = logs_load(s->logs, json_object_get(o, "logs"), e);
	if (rc == 0)
		rc = load_core(s, o, &all, e);
	if (rc == 0)
		rc = load_processes(s, json_object_get(o, "processes"), trial, e);
	if (rc == 0)
		rc = load_listeners(s, json_object_get(o, "listeners"), e);
	if (rc == 0)
		rc = load_control(s, o, e);
	release_snapshots(&all);
	logs_load_end(s->logs);
	return rc;
}

/* The logs over an upgrade in place: the same descriptors, what is queued, lines half read. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/shell/log_internal.h"
#include "supervisor/shell/state_fields.h"

#define NOBODY    (-1)
#define OURSELVES (-2) /* baton's own log, as the writer of a sink's last byte */

/* --- saving -------------------------------------------------------------------------------- */
int logs_stream_place(const struct logs_stream *s)
{
	return s->place;
}

static int writer_place(const struct logs *l, const struct logs_sink *s)
{
	if (s->writer == l)
		return OURSELVES;
	for (const struct logs_stream *t = l->streams; t && s->mid_line; t = t->next) {
		if (s->writer == t)
			return t->place;
	}
	return NOBODY;
}

static void add_bytes(json_t *to, const char *key, const char *bytes, size_t count)
{
	if (count > 0)
		json_object_set_new(to, key, state_save_bytes(bytes, count));
}

static json_t *save_sinks(struct logs *l, struct state_fds *fds)
{
	json_t *all = json_array();
	int place = 0;

	for (struct logs_sink *s = l->sinks; s; s = s->next) {
		json_t *o = state_put(&state_sink, s, fds);

		s->place = place++;
		json_object_set_new(o, "writer", json_integer(writer_place(l, s)));
		add_bytes(o, "queue", s->queue + s->start, s->used);
		json_array_append_new(all, o);
	}
	return all;
}

static json_t *save_streams(struct logs *l, struct state_fds *fds)
{
	json_t *all = json_array();

	for (struct logs_stream *s = l->streams; s; s = s->next) {
		json_t *o = state_put(&state_stream, s, fds);

		json_object_set_new(o, "sink", json_integer(s->sink ? s->sink->place : NOBODY));
		add_bytes(o, "partial", s->partial, s->partial_bytes);
		json_array_append_new(all, o);
	}
	return all;
}

json_t *logs_save(struct logs *l, struct state_fds *fds)
{
	json_t *o = state_put(&state_logs, l, fds);
	int place = 0;

	for (struct logs_stream *s = l->streams; s; s = s->next)
		s->place = place++;
	json_object_set_new(o, "sinks", save_sinks(l, fds));
	json_object_set_new(o, "streams", save_streams(l, fds));
	json_object_set_new(o, "own", json_integer(l->own ? l->own->place : NOBODY));
	return o;
}

/* --- loading ------------------------------------------------------------------------------- */
static int no_memory(struct err *e)
{
	return err_set(e, ERR_SYSTEM, "out of memory");
}

/* BYTES may be NULL: nothing was held. */
static int load_bytes(const json_t *bytes, char **ret_bytes, size_t *ret_used, size_t *ret_capacity,
	struct err *e)
{
	if (!bytes)
		return 0;
	*ret_bytes = state_load_bytes(bytes, ret_used);
	*ret_capacity = *ret_used;
	return *ret_bytes ? 0 : err_set(e, ERR_WRONG, "what was held to be written is unreadable");
}

static int load_sink(struct logs *l, const json_t *o, struct logs_sink **ret, struct err *e)
{
	struct logs_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return no_memory(e);
	s->logs = l;
	s->next = l->sinks;
	if (s->next)
		s->next->previous = s;
	l->sinks = s;
	*ret = s;
	if (state_load_struct(&state_sink, o, s, e) < 0)
		return e->code;
	l->stuck += s->stuck;
	return load_bytes(json_object_get(o, "queue"), &s->queue, &s->used, &s->capacity, e);
}

static struct logs_sink *sink_at(
	const json_t *o, const char *key, struct logs_sink **sinks, size_t count)
{
	json_int_t place = json_integer_value(json_object_get(o, key));

	return place >= 0 && (size_t)place < count ? sinks[place] : NULL;
}

static int load_stream(
	struct logs *l, const json_t *o, struct logs_sink *sink, size_t place, struct err *e)
{
	struct logs_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return no_memory(e);
	s->logs = l;
	s->next = l->streams;
	if (s->next)
		s->next->previous = s;
	l->streams = s;
	l->loaded[place] = s;
	if (state_load_struct(&state_stream, o, s, e) < 0)
		return e->code;
	s->sink = sink;
	if (sink) {
		sink->references++;
		sink->streams++;
	}
	if (load_bytes(json_object_get(o, "partial"), &s->partial, &s->partial_bytes,
		    &s->partial_capacity, e) < 0)
		return e->code;
	return s->ended || stream_resume(s) == 0 ? 0 : no_memory(e);
}

static void load_writer(struct logs *l, const json_t *o, struct logs_sink *s,
	const struct logs_stream *const *streams)
{
	json_int_t writer = json_integer_value(json_object_get(o, "writer"));

	if (writer == OURSELVES)
		s->writer = l;
	else if (writer >= 0 && (size_t)writer < l->loaded_count)
		s->writer = streams[writer];
	sink_resume(s);
}

static int load_all(struct logs *l, const json_t *o, struct logs_sink **sinks, struct err *e)
{
	const json_t *all = json_object_get(o, "sinks"), *streams = json_object_get(o, "streams");
	size_t count = json_array_size(all);

	for (size_t i = 0; i < count; i++) {
		if (load_sink(l, json_array_get(all, i), &sinks[i], e) < 0)
			return e->code;
	}
	l->own = sink_at(o, "own", sinks, count);
	if (l->own) {
		l->own->own = true;
		l->own->references++;
	}
	for (size_t i = 0; i < l->loaded_count; i++) {
		const json_t *stream = json_array_get(streams, i);

		if (load_stream(l, stream, sink_at(stream, "sink", sinks, count), i, e) < 0)
			return e->code;
	}
	for (size_t i = 0; i < count; i++)
		load_writer(l, json_array_get(all, i), sinks[i],
			(const struct logs_stream *const *)l->loaded);
	return 0;
}

int logs_load(struct logs *l, const json_t *o, struct err *e)
{
	size_t count = json_array_size(json_object_get(o, "sinks"));
	struct logs_sink **sinks = calloc(count + 1, sizeof(*sinks));
	int rc;

	logs_sink_close(l->own); /* what logs_create thought of */
	l->own = NULL;
	if (state_load_struct(&state_logs, o, l, e) < 0) {
		free(sinks);
		return err_prefix(e, "logs");
	}
	l->loaded_count = json_array_size(json_object_get(o, "streams"));
	l->loaded = calloc(l->loaded_count + 1, sizeof(struct logs_stream *));
	rc = sinks && l->loaded ? load_all(l, o, sinks, e) : no_memory(e);
	free(sinks);
	return rc < 0 ? err_prefix(e, "logs") : 0;
}

struct logs_stream *logs_claim_stream(struct logs *l, int place,
	void (*ended)(void *context, struct logs_stream *s), void *context)
{
	struct logs_stream *s = place >= 0 && (size_t)place < l->loaded_count ? l->loaded[place]
									      : NULL;

	if (s) {
		s->on_end = ended;
		s->context = context;
	}
	return s;
}

void logs_load_end(struct logs *l)
{
	free(l->loaded);
	l->loaded = NULL;
	l->loaded_count = 0;
}

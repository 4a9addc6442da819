#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/log_internal.h"

#define FLUSH_NS 200000000LL

int logs_create(struct loop *loop, struct logs **ret_logs, struct err *e)
{
	const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
	struct logs *l = calloc(1, sizeof(*l));

	if (l) {
		l->input = malloc(LOG_READ_BYTES);
		l->output = malloc(LOG_READ_BYTES);
	}
	if (!l || !l->input || !l->output) {
		logs_free(l);
		return err_set(e, ERR_SYSTEM, "cannot prepare the logs: out of memory");
	}
	/* A reader that has gone away, and a file at its size limit, are errors of a write. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	tzset();
	l->loop = loop;
	l->level = LOGS_INFO;
	l->format = LOG_DEFAULT;
	l->colour_allowed = !(no_color && *no_color) && terminal && *terminal &&
			    strcmp(terminal, "dumb") != 0;
	/* Without a standard error baton is silent until it gets a log file. */
	if (logs_sink_open(l, OUTPUT_INHERIT, "", 2, "", "", &l->own, NULL) == 0)
		l->own->own = true;
	*ret_logs = l;
	return 0;
}

void logs_free(struct logs *l)
{
	int64_t deadline_ns;

	if (!l)
		return;
	l->tap = NULL;
	if (l->loop) {
		deadline_ns = log_monotonic_ns() + FLUSH_NS;
		do
			sink_flush_all(l, deadline_ns);
		while (streams_drain(l) && log_monotonic_ns() < deadline_ns);
		streams_release(l);
		logs_sink_close(l->own);
		l->own = NULL;
		sink_flush_all(l, deadline_ns);
		while (l->sinks)
			sink_destroy(l->sinks);
	}
	free(l->input);
	free(l->output);
	free(l);
}

int logs_configure(struct logs *l, const char *path, enum config_log_format format,
	enum logs_level level, struct err *e)
{
	struct logs_sink *sink, *old = l->own;
	int rc = logs_sink_open(l, *path ? OUTPUT_PATH : OUTPUT_INHERIT, path, 2, "", "", &sink, e);

	if (rc != 0)
		return err_prefix(e, "baton's own log");
	if (old)
		old->own = false;
	sink->own = true;
	l->own = sink;
	l->format = format;
	l->level = level;
	logs_sink_close(old);
	return 0;
}

int logs_level_parse(const char *name, enum logs_level *ret_level)
{
	/* The second half: what supervisord's files say. */
	static const struct {
		const char *name;
		enum logs_level level;
	} names[] = {
		{"debug", LOGS_DEBUG},
		{"info", LOGS_INFO},
		{"warning", LOGS_WARNING},
		{"error", LOGS_ERROR},
		{"warn", LOGS_WARNING},
		{"critical", LOGS_ERROR},
		{"trace", LOGS_DEBUG},
		{"blather", LOGS_DEBUG},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i].name) == 0) {
			*ret_level = names[i].level;
			return 0;
		}
	}
	return ERR_CONFIG;
}

static void write_own(struct logs *l, struct log_line *line, const struct log_event *event)
{
	struct logs_sink *s = l->own;
	enum config_log_format format = l->format;

	if (format == LOG_DEFAULT)
		format = s->terminal ? LOG_TEXT : LOG_LOGFMT;
	if (format == LOG_TEXT)
		log_format_text(line, event, s->colour);
	else if (format == LOG_LOGFMT)
		log_format_logfmt(line, event);
	else
		log_format_json(line, event);
	if (s->used + line->used > LOGS_SINK_BYTES) {
		l->dropped++;
		return;
	}
	if (s->mid_line && s->writer != l)
		sink_put(s, "\n", 1, l);
	sink_put(s, line->text, line->used, l);
}

void logs_event(struct logs *l, enum logs_level level, const char *event,
	const struct logs_field *fields, size_t field_count, const char *format, ...)
{
	bool wanted = l->own && level >= l->level;
	struct log_event made = {
		.level = level,
		.event = event,
		.fields = fields,
		.field_count = field_count,
	};
	struct log_line line;
	char message[2048];
	va_list arguments;

	if (!wanted && !l->tap)
		return;
	va_start(arguments, format);
	if (vsnprintf(message, sizeof(message), format, arguments) < 0)
		message[0] = '\0';
	va_end(arguments);
	made.message = message;
	clock_gettime(CLOCK_REALTIME, &made.wall);
	if (wanted)
		write_own(l, &line, &made);
	if (l->tap) {
		log_format_json(&line, &made);
		l->tap(l->tap_context, line.text, line.used);
	}
}

void log_own_drained(struct logs *l)
{
	struct logs_field field = {.key = "lines", .number = l->dropped};

	if (!l->dropped)
		return;
	l->dropped = 0;
	logs_event(l, LOGS_WARNING, "log.dropped", &field, 1,
		"%lld lines of baton's own log dropped: it could not be written fast enough",
		(long long)field.number);
}

void logs_tap(struct logs *l, void (*tap)(void *context, const char *json_line, size_t bytes),
	void *context)
{
	l->tap = tap;
	l->tap_context = context;
}

/* A walk over the sinks during which any of them may be closed: it holds the one it is at. */
static struct logs_sink *first(struct logs *l)
{
	return l->sinks ? logs_sink_ref(l->sinks) : NULL;
}

static struct logs_sink *after(struct logs_sink *s)
{
	struct logs_sink *next = s->next ? logs_sink_ref(s->next) : NULL;

	logs_sink_close(s);
	return next;
}

void logs_retry(struct logs *l)
{
	int64_t now_ns;

	if (!l->stuck)
		return;
	now_ns = log_monotonic_ns();
	for (struct logs_sink *s = first(l), *next; s; s = next) {
		sink_retry(s, now_ns);
		next = after(s);
	}
}

bool logs_is_stuck(const struct logs *l)
{
	return l->stuck > 0;
}

void logs_reopen(struct logs *l)
{
	for (struct logs_sink *s = first(l), *next; s; s = next) {
		if (s->path)
			sink_reopen(s);
		next = after(s);
	}
}

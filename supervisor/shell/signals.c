/* What each signal to the supervisor means: gunicorn's, which its users know. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/shell/lookups.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/upgrade.h"

static void say(struct supervisor *s, enum logs_level level, const char *name, const char *text)
{
	struct logs_field f = {.key = "signal", .value = name};

	logs_event(s->logs, level, "signal", &f, 1, "SIG%s: %s", name, text);
}

static void post_shutdown(struct supervisor *s, enum shutdown_mode mode)
{
	struct event e = {.kind = EVENT_SHUTDOWN, .worker = -1, .program = -1, .number = mode};

	supervisor_post(s, &e);
}

static void interrupt(struct supervisor *s, const char *name)
{
	s->interrupts++;
	say(s, LOGS_INFO, name,
		s->interrupts > 1 ? "again: killing what is left" : "stopping; once more kills");
	post_shutdown(s, s->interrupts > 1 ? SHUTDOWN_KILL : SHUTDOWN_QUICK);
}

static void reopen(struct supervisor *s, const char *name)
{
	say(s, LOGS_INFO, name, "reopening the log files");
	logs_reopen(s->logs);
}

/* The slot of the first program of the file that has sockets; -1 = none. */
static int first_with_sockets(const struct supervisor *s)
{
	for (size_t i = 0; i < s->config->program_count; i++) {
		const struct config_program *p = &s->config->programs[i];

		if (p->socket_count > 0)
			return core_find_program(&s->core, p->name);
	}
	return -1;
}

/* Two signals may come in one round: the second counts from what the first asked for. */
static int count_soon(const struct supervisor *s, int slot)
{
	int count = s->core.programs[slot].count;

	for (size_t i = 0; i < s->queue_count; i++) {
		const struct event *e = &s->queue[(s->queue_head + i) % s->queue_capacity];

		if (e->kind == EVENT_SCALE && e->program == slot)
			count = (int)e->number;
	}
	return count;
}

static void scale(struct supervisor *s, const char *name, int by)
{
	int slot = first_with_sockets(s);
	struct event e = {.kind = EVENT_SCALE, .worker = -1, .program = slot};
	const struct config_program *p;
	struct logs_field f[] = {{.key = "signal", .value = name}, {.key = "program"}};
	int count;

	if (slot < 0) {
		say(s, LOGS_WARNING, name, "no program has sockets: ignored");
		return;
	}
	p = s->core.programs[slot].settings;
	count = count_soon(s, slot);
	f[1].value = p->name;
	if (p->executor == EXECUTOR_ONLY || count + by < 1 || count + by > MOST_WORKERS) {
		logs_event(s->logs, LOGS_WARNING, "signal", f, 2, "SIG%s: %s keeps its %d worker%s",
			name, p->name, count, count == 1 ? "" : "s");
		return;
	}
	e.number = count + by;
	logs_event(s->logs, LOGS_INFO, "signal", f, 2, "SIG%s: %s goes from %d to %d workers", name,
		p->name, count, count + by);
	supervisor_post(s, &e);
}

static void stop_workers(struct supervisor *s, const char *name)
{
	say(s, LOGS_INFO, name,
		"stopping all workers, the supervisor stays; `baton start all` brings them back");
	for (int i = 0; i < s->core.program_slots; i++) {
		struct event e = {.kind = EVENT_STOP, .worker = -1, .program = i};

		if (s->core.programs[i].used && !s->core.programs[i].leaving &&
			!s->core.programs[i].settings->hidden)
			supervisor_post(s, &e);
	}
}

void signals_reload(struct supervisor *s)
{
	struct reload_result result = {0};

	reload_run(s, false, &result);
	if (result.later)
		lookups_begin_signal(s);
	reload_result_release(&result);
}

/* What makes no sense any more, or not yet, while the supervisor is not running. */
static void while_running(struct supervisor *s, int signal, const char *name)
{
	if (s->core.lifecycle.state != LIFECYCLE_RUNNING) {
		logs_event(s->logs, LOGS_WARNING, "signal", NULL, 0,
			"SIG%s: the supervisor is %s: ignored", name,
			lifecycle_state_name(s->core.lifecycle.state));
		return;
	}
	if (signal == SIGWINCH)
		stop_workers(s, name);
	else
		scale(s, name, signal == SIGTTIN ? 1 : -1);
}

static void upgrade(struct supervisor *s, const char *name)
{
	struct err e;

	say(s, LOGS_INFO, name, "upgrade in place");
	(void)upgrade_begin(s, "", &e); /* what is wrong it says itself */
}

static void signalled(void *context, int signal)
{
	struct supervisor *s = context;
	const char *name = sigabbrev_np(signal);

	switch (signal) {
	case SIGCHLD:
		reap_children(s);
		break;
	case SIGTERM:
		say(s, LOGS_INFO, name, "stopping gracefully");
		post_shutdown(s, SHUTDOWN_GRACEFUL);
		break;
	case SIGINT:
	case SIGQUIT:
		interrupt(s, name);
		break;
	case SIGHUP:
		say(s, LOGS_INFO, name, "reloading");
		signals_reload(s);
		break;
	case SIGUSR1:
		reopen(s, name);
		break;
	case SIGUSR2: /* in supervisord it reopens, and rotation scripts send it */
		if (s->config->mode == CONFIG_COMPAT)
			reopen(s, name);
		else
			upgrade(s, name);
		break;
	default:
		while_running(s, signal, name);
		break;
	}
}

/* A resized terminal is no order. */
static bool on_terminal(void)
{
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || isatty(STDIN_FILENO);
}

int signals_watch(struct supervisor *s, struct err *e)
{
	static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2,
		SIGTTIN, SIGTTOU, SIGWINCH};

	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
		if (signals[i] == SIGWINCH && on_terminal())
			continue;
		if (loop_signal(s->loop, signals[i], signalled, s, e) < 0)
			return e->code;
	}
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

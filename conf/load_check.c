/* What concerns several settings together, or the machine. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/load.h"
#include "conf/preset.h"
#include "conf/units.h"
#include "conf/words.h"

#define MOST_GRACE 86000 /* seconds: stopwaitsecs has a day at most */

static struct setting get(struct loader *l, const struct config_program *p, const char *key)
{
	return setting_key(l->data, SECTION_PROGRAM, p->raw->ini, p->raw->preset, key);
}

static void say(struct loader *l, const struct config_program *p, bool warning, const char *key,
	const char *text)
{
	struct setting s = get(l, p, key);

	load_report(l, warning, p->raw->ini, &s, "%s", text);
}

/* --- executors ------------------------------------------------------------------------------- */

static void check_signal(
	struct loader *l, const struct config_program *p, const char *key, int signal)
{
	struct setting s = get(l, p, key);
	char name[16];

	units_signal_name(signal, name, sizeof(name));
	if (signal == SIGKILL || signal == SIGSTOP || signal == SIGCHLD || signal == SIGCONT) {
		load_report(l, false, p->raw->ini, &s, "%s cannot be used for this", name);
		return;
	}
	if (signal == p->stopsignal) {
		load_report(l, false, p->raw->ini, &s, "%s is the stop signal already", name);
		return;
	}
	for (const int *i = p->raw->preset ? p->raw->preset->signals : NULL; i && *i; i++) {
		if (*i == signal)
			load_report(l, false, p->raw->ini, &s,
				"%s means something else to %s; use one that it leaves alone, such "
				"as RTMIN+1 and RTMIN+2",
				name, p->preset);
	}
}

static void check_executor(struct loader *l, const struct config_program *p)
{
	static const char *const own[] = {"promote", "promote_signal", "demote_signal",
		"promote_timeout", "promote_unanswered", "handoff_timeout"};

	if (p->executor == EXECUTOR_NO) {
		for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
			if (get(l, p, own[i]).source == SOURCE_FILE)
				say(l, p, true, own[i], "has no effect without 'executor'");
		}
		return;
	}
	if (p->executor == EXECUTOR_ONLY && p->workers != 1)
		say(l, p, false, "executor",
			"'only' is one worker over all instances: 'workers' must be 1");
	if (p->executor == EXECUTOR_ONLY && get(l, p, "promote").source == SOURCE_FILE)
		say(l, p, true, "promote",
			"has no effect with 'executor = only': the worker runs as the executor "
			"from its start");
	if (p->promote == PROMOTE_SIGNAL && (!p->promote_signal || !p->demote_signal))
		say(l, p, false, "promote",
			"'signal' needs promote_signal and demote_signal, both");
	if (p->promote_signal)
		check_signal(l, p, "promote_signal", p->promote_signal);
	if (p->demote_signal)
		check_signal(l, p, "demote_signal", p->demote_signal);
	if (p->promote_signal && p->promote_signal == p->demote_signal)
		say(l, p, false, "demote_signal", "must differ from promote_signal");
}

static const char *directory_of(struct loader *l, const struct config_worker *w)
{
	return w->directory[0]           ? w->directory
	       : l->config->directory[0] ? l->config->directory
					 : ".";
}

static void check_fast(
	struct loader *l, const struct config_program *p, const struct config_worker *w)
{
	char *const *argv = w->argv;
	const char *why;
	size_t count;
	char **words;

	if (p->executor == EXECUTOR_NO || !argv)
		return;
	if (p->shell &&
		words_split(&l->scratch, w->command, WORDS_POSIX, &words, &count, NULL) == 0)
		argv = words;
	why = fastcheck(
		&l->scratch, argv, w->environment, w->environment_count, directory_of(l, w));
	if (why)
		say(l, p, true, "command", why);
}

/* --- commands and files ---------------------------------------------------------------------- */

/* Why PATH cannot be run, or NULL. */
static const char *not_runnable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? "does not exist" : strerror(errno);
	if (S_ISDIR(st.st_mode))
		return "is a directory";
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		return "is not executable";
	return NULL;
}

static const char *worker_variable(const struct config_worker *w, const char *name)
{
	for (size_t i = w->environment_count; i > 0; i--) {
		if (strcmp(w->environment[i - 1].key, name) == 0)
			return w->environment[i - 1].value;
	}
	return getenv(name);
}

/* Why WORD is found nowhere in PATH, or NULL. */
static const char *not_in_path(struct loader *l, const char *word, const char *path)
{
	const char *why = "is in no directory of PATH";

	while (*path) {
		size_t bytes = strcspn(path, ":");
		const char *candidate = arena_printf(
			&l->scratch, "%.*s/%s", (int)bytes, path, word);
		const char *now = not_runnable(candidate);
		if (!now)
			return NULL;
		if (strcmp(now, "is not executable") == 0)
			why = now;
		path += bytes + (path[bytes] == ':');
	}
	return why;
}

const char *load_not_runnable(
	struct loader *l, const char *word, const char *directory, const char *path)
{
	if (word[0] == '/')
		return not_runnable(word);
	if (strchr(word, '/'))
		return not_runnable(arena_printf(&l->scratch, "%s/%s", directory, word));
	return not_in_path(l, word, path);
}

static void check_runnable(
	struct loader *l, const struct config_program *p, const struct config_worker *w)
{
	struct setting s = get(l, p, "command");
	const char *word, *why, *path = worker_variable(w, "PATH"), *directory = w->directory;
	struct stat st;

	if (!w->argv || !w->argv[0])
		return;
	word = w->argv[0];
	if (directory[0] && (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode))) {
		struct setting d = get(l, p, "directory");
		load_report(l, !l->native || !p->autostart, p->raw->ini, &d,
			"'%.200s' is not an existing directory", directory);
		return; /* what would be in it cannot be said */
	}
	if (!directory[0])
		directory = l->config->directory[0] ? l->config->directory : ".";
	why = load_not_runnable(l, word, directory, path ? path : "/bin:/usr/bin");
	if (why)
		load_report(
			l, !l->native || !p->autostart, p->raw->ini, &s, "'%.200s' %s", word, why);
}

static void check_log_directory(
	struct loader *l, const struct config_program *p, const char *key, const char *path)
{
	const char *slash = strrchr(path, '/'), *folder;
	struct setting s = get(l, p, key);
	struct stat st;

	if (!slash || slash == path)
		return;
	folder = arena_strndup(&l->scratch, path, (size_t)(slash - path));
	if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode))
		load_report(l, false, p->raw->ini, &s, "the directory of '%.200s' does not exist",
			path);
}

static void check_command_words(
	struct loader *l, const struct config_program *p, const struct config_worker *w)
{
	const char *syntax = p->shell ? NULL : words_shell_syntax(&l->scratch, w->command);

	if (syntax) {
		struct setting s = get(l, p, "command");
		load_report(l, true, p->raw->ini, &s,
			"'%s' is passed as it stands: no shell runs; set 'shell = yes', or quote "
			"it to say that it is meant so",
			syntax);
	}
}

/* Above the grace that the command gives the server: what it still waits for is not killed. */
static void check_grace(struct loader *l, struct config_program *p, const struct config_worker *w)
{
	const char *option = p->raw->preset->grace_option;
	const char *value = option ? preset_option(w->argv + 1, option) : NULL;
	char *end, buf[32];
	double seconds = value ? strtod(value, &end) : 0;
	int64_t grace_ns, enough_ns;

	if (!value || end == value || *end || !(seconds > 0 && seconds <= MOST_GRACE))
		return;
	grace_ns = ((int64_t)seconds + ((double)(int64_t)seconds < seconds)) * UNITS_SECOND_NS;
	enough_ns = grace_ns + 5 * UNITS_SECOND_NS;
	if (get(l, p, "stopwaitsecs").source != SOURCE_FILE) {
		p->stop_raised = p->stopwaitsecs_ns < enough_ns;
		p->stopwaitsecs_ns = p->stop_raised ? enough_ns : p->stopwaitsecs_ns;
	} else if (p->stopwaitsecs_ns <= grace_ns) {
		say(l, p, true, "stopwaitsecs",
			arena_printf(&l->scratch,
				"is not above the server's own grace (%s %.20s): it is killed with "
				"requests unanswered; leave it out, or write %s",
				option, value, units_print_duration(enough_ns, buf, sizeof(buf))));
	}
}

/* It unlinks, as it ends, the path that it was told in FPM_SOCKETS. */
static void check_fpm_sockets(
	struct loader *l, const struct config_program *p, const struct config_worker *w)
{
	const char *told = worker_variable(w, "FPM_SOCKETS");

	if (p->raw->preset->variable != PRESET_FPM_SOCKETS || !told)
		return;
	for (size_t i = 0; i < p->socket_count; i++) {
		const struct config_socket *s = &l->config->sockets[p->sockets[i]];
		const char *path = s->path;

		if (s->family == AF_UNIX && strstr(told, arena_printf(&l->scratch, "%s=", path)))
			say(l, p, true, "sockets",
				arena_printf(&l->scratch,
					"php-fpm removes '%.200s' whenever a worker ends, and "
					"until baton has put it back connections are refused; give "
					"it another name to remove: 'listen = %.200s.fpm' in its "
					"own file, and here 'environment = FPM_SOCKETS="
					"\"%.200s.fpm=%%(fd_%.60s)d\"'",
					path, path, path, s->name));
	}
}

static void check_preset(struct loader *l, struct config_program *p, const struct config_worker *w)
{
	const struct preset *preset = p->raw->preset;
	const char *wrapper, *missing, *drops, *background;

	if (!preset || !w->argv)
		return;
	if (p->shell)
		say(l, p, false, "shell", "cannot be combined with 'preset'");
	if (preset->most_sockets && (int)p->socket_count > preset->most_sockets)
		say(l, p, false, "sockets", "more than this server can take");
	missing = preset_missing(&l->scratch, preset, p->socket_count + p->probe);
	if (missing)
		say(l, p, false, "preset", missing);
	drops = preset_drops_requests(&l->scratch, preset, w->argv, directory_of(l, w));
	if (drops)
		say(l, p, true, "command", drops);
	check_grace(l, p, w);
	check_fpm_sockets(l, p, w);
	background = preset_background(preset, w->argv);
	if (background)
		say(l, p, true, "command",
			arena_printf(&l->scratch,
				"with '%s' %s leaves the foreground, and its end is taken for a "
				"failure: take it out",
				background, p->preset));
	wrapper = preset_wrapper(&l->scratch, preset, w->argv);
	if (wrapper)
		say(l, p, true, "command",
			arena_printf(&l->scratch,
				"%s starts the server as a child of its own: sockets and stop "
				"signal do not reach it; run the server itself ('%s FILE')",
				wrapper, p->preset));
}

/* --- one program ----------------------------------------------------------------------------- */

struct first_worker {
	struct loader *l;
	struct config_program *p;
	struct worker_build *build;
};

static void look_at_worker(void *argument)
{
	struct first_worker *f = argument;
	struct loader *l = f->l;
	struct config_program *p = f->p;
	struct config_worker *w = f->build->worker;

	worker_build_run(f->build);
	check_command_words(l, p, w);
	check_preset(l, p, w);
	check_probes(l, p, w);
	check_fast(l, p, w);
	check_runnable(l, p, w);
	if (p->stdout_kind == OUTPUT_PATH && w->stdout_path[0])
		check_log_directory(l, p, "stdout_logfile", w->stdout_path);
	if (p->stderr_kind == OUTPUT_PATH && w->stderr_path[0])
		check_log_directory(l, p, "stderr_logfile", w->stderr_path);
}

static void check_worker(struct loader *l, struct config_program *p)
{
	struct config_worker w = {0};
	struct worker_build build = {.config = l->config,
		.program = (int)(p - l->programs),
		.arena = &l->scratch,
		.worker = &w,
		.findings = l->findings};
	struct first_worker f = {.l = l, .p = p, .build = &build};

	if (get(l, p, "command").source == SOURCE_DEFAULT) {
		say(l, p, false, "command", "is missing: what shall run?");
		return;
	}
	if (arena_run(&l->scratch, look_at_worker, &f) < 0)
		say(l, p, false, "command", "out of memory");
	arena_release(&l->scratch);
}

/* After check_worker: the command may have raised it. */
static void check_stop_time(struct loader *l, const struct config_program *p)
{
	struct setting s = get(l, p, "stopwaitsecs");
	char stop[32], whole[32];

	if (p->stopwaitsecs_ns > l->config->shutdown_timeout_ns)
		load_report(l, true, p->raw->ini, &s,
			"%s is longer than shutdown_timeout (%s): a shutdown kills it earlier",
			units_print_duration(p->stopwaitsecs_ns, stop, sizeof(stop)),
			units_print_duration(l->config->shutdown_timeout_ns, whole, sizeof(whole)));
}

static void check_program(struct loader *l, struct config_program *p)
{
	struct setting name = get(l, p, "process_name");

	if (!l->native && p->workers > 1 && !strstr(name.text, "%(process_num)"))
		load_report(l, false, p->raw->ini, &name,
			"must have %%(process_num) in it when numprocs is above 1");
	check_executor(l, p);
	if (p->max_age_jitter_ns > 0 && p->max_age_ns == 0)
		say(l, p, true, "max_age_jitter", "has no effect without 'max_age'");
	if (p->restart_backoff_ns > p->restart_backoff_max_ns)
		say(l, p, false, "restart_backoff_max", "is below restart_backoff");
	if (p->watchdog_ns && p->watchdog_ns < UNITS_SECOND_NS / 100)
		say(l, p, false, "watchdog", "below 10ms nothing can be kept");
	if (p->ready == READY_STARTSECS && p->startsecs_ns > p->ready_timeout_ns &&
		get(l, p, "ready_timeout").source == SOURCE_FILE)
		say(l, p, true, "ready_timeout", "is shorter than startsecs and does not count");
	check_worker(l, p);
	check_stop_time(l, p);
}

/* --- all of it ------------------------------------------------------------------------------- */

static void check_own_file(struct loader *l, const char *key, const char *path)
{
	struct setting s = setting_key(l->data, SECTION_BATON, NULL, NULL, key);
	const char *slash = strrchr(path, '/');
	struct stat st;

	if (!slash || slash == path)
		return;
	if (stat(arena_strndup(l->arena, path, (size_t)(slash - path)), &st) < 0)
		load_report(l, true, NULL, &s, "the directory of '%.200s' does not exist", path);
}

static void check_directories(struct loader *l)
{
	static const char *const keys[] = {"directory", "childlogdir"};
	const char *paths[] = {l->config->directory, l->config->childlogdir};

	for (size_t i = 0; i < 2; i++) {
		struct setting s = setting_key(l->data, SECTION_BATON, NULL, NULL, keys[i]);
		struct stat st;
		if (paths[i][0] && (stat(paths[i], &st) < 0 || !S_ISDIR(st.st_mode)))
			load_report(l, false, NULL, &s, "'%.200s' is not an existing directory",
				paths[i]);
	}
}

/* The supervisor itself gives up root then: no program can be another user. */
static void check_own_user(struct loader *l)
{
	const struct config_user *u = &l->config->user;
	struct setting s = setting_key(l->data, SECTION_BATON, NULL, NULL, "user");

	if (!u->set)
		return;
	if (geteuid() != 0 && (u->uid != geteuid() || (u->group_set && u->gid != getegid())))
		load_report(l, true, NULL, &s,
			"only root can become another user: 'baton run' by this user (%lu) would "
			"refuse",
			(unsigned long)geteuid());
	for (size_t i = 0; i < l->config->program_count && u->uid != 0; i++) {
		struct config_program *p = &l->programs[i];

		if (p->user.set && p->user.uid == u->uid && !p->user.group_set)
			p->user.gid = u->gid;
		if ((p->user.set && p->user.uid != u->uid) ||
			(p->user.set && p->user.gid != u->gid))
			say(l, p, !l->native, "user",
				arena_printf(l->arena,
					"another user or group than that of [baton] ('%.100s'), "
					"which gives up root: take 'user' out of [baton], then "
					"each program has its own",
					u->name));
	}
}

void load_check(struct loader *l)
{
	struct config *c = l->config;

	for (size_t i = 0; i < c->program_count; i++) {
		if (l->programs[i].hidden)
			continue;
		check_program(l, &l->programs[i]);
		if (l->programs[i].executor != EXECUTOR_NO)
			c->scheduler.enabled = true;
	}
	load_check_sockets(l);
	check_directories(l);
	check_own_user(l);
	check_own_file(l, "logfile", c->logfile);
	check_own_file(l, "pidfile", c->pidfile);
	if (c->program_count == 0)
		errlist_addf(l->findings, !l->native, c->path, 0,
			"no program is configured: add [program:NAME] with a 'command'");
}

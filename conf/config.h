/*
 * The configuration snapshot: what the rest of baton knows of the INI file.
 *
 * A snapshot is immutable once config_load has returned it and is shared by reference count
 * (config_ref, config_unref). All pointers inside belong to it. Strings are never NULL unless the
 * comment says so. Durations are nanoseconds (_ns), sizes bytes, -1 = "not set / inherit" where
 * the comment says so.
 *
 * Fields that may differ from worker to worker (%(process_num)d, sockets) are kept as raw text
 * with their place and are expanded by config_worker_build for one index.
 */
#ifndef BATON_CONF_CONFIG_H
#define BATON_CONF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf/err.h"

enum config_mode { CONFIG_NATIVE, CONFIG_COMPAT };
enum config_autorestart { AUTORESTART_NO, AUTORESTART_UNEXPECTED, AUTORESTART_ALWAYS };
enum config_executor { EXECUTOR_NO, EXECUTOR_CANDIDATE, EXECUTOR_ONLY };
enum config_promote { PROMOTE_NOTIFY, PROMOTE_SIGNAL, PROMOTE_RESPAWN };
/* How the core hears that a worker is ready: by time, by READY=1, by probes that it asks for, or by
 * what the shell sees in its descriptor or in its output. */
enum config_ready { READY_STARTSECS, READY_NOTIFY, READY_PROBE, READY_FD, READY_LOG };
enum config_probe_kind {
	PROBE_NONE,
	PROBE_STARTSECS,
	PROBE_NOTIFY,
	PROBE_HTTP,
	PROBE_TCP,
	PROBE_EXEC,
	PROBE_FD,
	PROBE_LOG
};
enum config_replace { REPLACE_ROLLING, REPLACE_RESTART, REPLACE_SIGNAL };
enum config_on_end { ON_END_STAY, ON_END_EXIT }; /* on_fatal, on_exit */
enum config_output {
	OUTPUT_INHERIT, /* baton's own standard output / error, whole lines, prefixed */
	OUTPUT_NONE,
	OUTPUT_AUTO, /* a file of baton's choice: <childlogdir>/<worker>-stdout---baton-XXXX.log */
	OUTPUT_PATH, /* appended to; also /dev/stdout, /dev/stderr, /dev/fd/N, taken literally */
};
enum config_log_format { LOG_TEXT, LOG_LOGFMT, LOG_JSON, LOG_DEFAULT };
enum config_depends_on { DEPENDS_READY, DEPENDS_STARTED, DEPENDS_DONE };
enum config_user_kind { USER_NONE, USER_SET };
enum config_overlap { OVERLAP_SKIP, OVERLAP_QUEUE, OVERLAP_REPLACE, OVERLAP_ALLOW };
enum config_missed { MISSED_SKIP, MISSED_ONCE, MISSED_ALL };
enum config_interrupted { INTERRUPTED_RERUN, INTERRUPTED_FAIL };

struct config_place { /* where a value was written; file "" and line 0 = a default */
	const char *file;
	int line;
};

struct config_user { /* resolved once at load; set = false: do not change */
	bool set;
	uid_t uid;
	gid_t gid; /* the user's own group, or what `group` says */
	bool group_set;
	const char *name, *home; /* "" when not set */
};

struct config_rlimit {
	int resource;        /* RLIMIT_* */
	uint64_t soft, hard; /* RLIM_INFINITY = unlimited */
};

struct config_depend {
	int program; /* index into config.programs */
	enum config_depends_on what;
};

struct config_pair { /* one environment variable */
	const char *key, *value;
};

struct config_probe { /* one value of `ready` or `health`, of one worker */
	enum config_probe_kind kind;
	bool own;         /* http, tcp: through the worker's own probe listener */
	const char *text; /* as written, expanded */
	int family;       /* http, tcp, not own: AF_INET, AF_INET6 */
	const char *host; /* numeric */
	int port;
	const char *path; /* http: with its query */
	char **argv;      /* exec */
	int fd;           /* fd */
	const char *word; /* log: what the line contains */
};

struct config_socket {
	const char *name, *listen; /* as written */
	int family;                /* AF_INET, AF_INET6, AF_UNIX */
	const char *host;          /* numeric or name; "" = any; "" for unix */
	int port;                  /* 0 = the kernel chooses */
	const char *path;          /* unix; a leading '@' = abstract */
	int backlog;
	mode_t mode;
	struct config_user owner;
	bool nodelay, v6only, reuse_port;
	bool unlinked; /* a server that has it removes the path by its name as it ends */
	struct config_place place;
};

struct config_program {
	const char *name, *group; /* group = name when it is in none */
	struct config_place place;
	const char *preset; /* "" = none */
	int workers;        /* numprocs; >= 0 */
	bool workers_auto;  /* as many as there are CPUs */
	int numprocs_start;
	int priority;
	int order, level; /* start order; level: start and stop groups, 0 starts first */
	const struct config_depend *depends;
	size_t depend_count;
	const int *sockets; /* indices into config.sockets; passed from fd 3 on */
	size_t socket_count;

	bool autostart;
	enum config_autorestart autorestart;
	int64_t startsecs_ns;
	int startretries; /* -1 = for ever */
	int64_t restart_backoff_ns, restart_backoff_max_ns;
	bool restart_jitter; /* native */
	bool restart_linear; /* compat: 1, 2, 3 s: the k-th delay is k * restart_backoff_ns */
	const int *exitcodes;
	size_t exitcode_count;
	int stopsignal;
	int64_t stopwaitsecs_ns;
	bool stop_raised; /* ... above the preset's, by an option of the command */
	bool stopasgroup, killasgroup, kill_tree; /* native: kill_tree = true */
	enum config_on_end on_fatal, on_exit;
	int64_t fatal_retry_ns; /* 0 = never */

	enum config_executor executor;
	enum config_promote promote;
	int promote_signal, demote_signal; /* 0 = none */
	int64_t promote_timeout_ns;
	bool promote_unanswered_replace;
	int64_t handoff_timeout_ns;
	enum config_ready ready;
	const char *ready_text, *health_text; /* of the first worker, as in effect; "none" */
	/* The address that `ready` names is not this worker's alone: what answers there counts only
	 * once the worker has been up for startsecs. */
	bool ready_shared;
	int64_t ready_timeout_ns;
	bool health; /* probed while it runs */
	int64_t health_interval_ns, health_timeout_ns;
	int health_failures;
	bool probe; /* each worker has a listener of its own for probes, after the sockets */
	int64_t watchdog_ns; /* 0 = off */
	enum config_replace replace;
	int replace_signal;
	bool roll_on_reload_always;
	int surge, max_unavailable; /* of a rollout; not both 0 */
	int64_t stop_delay_ns;
	int64_t max_age_ns, max_age_jitter_ns; /* 0 = off */
	int64_t max_memory;                    /* bytes, of the worker's tree; 0 = off */

	struct config_user user;
	int umask;         /* -1 = inherit */
	int nice;          /* INT_MIN = inherit */
	int oom_score_adj; /* INT_MIN = inherit */
	bool no_new_privs;
	const struct config_rlimit *rlimits;
	size_t rlimit_count;
	bool redirect_stderr;
	enum config_output stdout_kind, stderr_kind;
	bool log_prefix;
	bool set_user_env; /* native: HOME, USER, LOGNAME with user = */
	bool shell;        /* argv is /bin/sh -c COMMAND */
	/* LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES are set for its sockets. Off with a preset whose
	 * server takes them on top of the arguments that name the same descriptors: gunicorn closes
	 * one and fails on the second. */
	bool listen_variables;
	bool blocking_sockets; /* its preset's server cannot wait on a socket that does not block */
	int group_priority;    /* of its [group:]; its own priority when it is in none */

	/* The job worker's program `jobs`, made by the loader when there is a [job:] section. It is
	 * in no file: not in `all`, in counts, in lists, in what `check --dump` prints. Its argv is
	 * CONFIG_JOB_WORKER alone, a role of baton's own binary and no path. */
	bool hidden;

	const struct config_section *raw; /* for config_worker_build and diff; opaque */
};

#define CONFIG_JOBS_PROGRAM "jobs"
#define CONFIG_JOB_WORKER   "job-worker"

struct schedule;
struct zone;

struct config_job {
	const char *name;
	struct config_place place;
	const char *schedule, *timezone; /* as written; timezone "" = the system's */
	const struct schedule *when;     /* the schedule, parsed: conf/schedule.h */
	const struct zone *zone;         /* its time zone; shared by the jobs that are in it */
	const char *command;             /* expanded */
	bool shell;                      /* argv is /bin/sh -c COMMAND */
	const char *const *argv;         /* NULL-terminated; with shell too */
	const char *directory;           /* "" = stay */
	const struct config_pair
		*environment; /* of baton, of environment_file, of the job, merged */
	size_t environment_count;
	struct config_user user;
	int umask;         /* -1 = inherit */
	int nice;          /* INT_MIN = inherit */
	int oom_score_adj; /* INT_MIN = inherit */
	bool no_new_privs;
	const struct config_rlimit *rlimits;
	size_t rlimit_count;

	int stopsignal;
	int64_t stopwaitsecs_ns;
	int64_t timeout_ns; /* 0 = none */
	enum config_overlap overlap;
	enum config_missed missed;
	int64_t missed_limit_ns;
	int retries;
	int64_t retry_backoff_ns;
	int64_t jitter_ns;
	const char *on_failure; /* "" = none; run by /bin/sh -c */
	bool enabled;
	int64_t output_keep; /* bytes */
	enum config_interrupted interrupted;
	int64_t handoff_timeout_ns;

	const struct config_section *raw; /* for diff; opaque */
};

struct config_jobs { /* [jobs] */
	int max_running;
	int64_t history_keep_ns;
	int history_count; /* runs kept of each job */
};

struct config_scheduler {
	bool enabled;         /* a [scheduler] or [job:] section or any executor = */
	const char *database; /* absolute path (sqlite), without "sqlite:" */
	const char *lock_name;
	int64_t ttl_ns, heartbeat_ns, kill_grace_ns, handoff_timeout_ns;
	bool when_held_exit, fast_takeover, unsafe_filesystem;
	int64_t promote_backoff_ns;
	const char *on_promote, *on_demote, *on_standby, *on_holder; /* "" = none */
	int64_t history_keep_ns;
};

struct config {
	int refs;
	const char *path; /* absolute; of config_load_text the file it takes the place of */
	const char *directory_of_file;
	enum config_mode mode;

	/* [baton] / [supervisord] */
	const char *name;
	const char *directory; /* "" = stay */
	struct config_user user;
	int umask;                             /* -1 = leave */
	const struct config_pair *environment; /* [baton] environment + environment_file, merged */
	size_t environment_count;
	const char *pidfile; /* "" = none */
	const char *control; /* "" = the default path (config_control_path) */
	mode_t control_mode;
	struct config_user control_owner;
	const char *logfile;  /* "" = standard error */
	const char *loglevel; /* debug info warning error */
	enum config_log_format log_format;
	const char *childlogdir;
	int64_t shutdown_timeout_ns;
	bool on_fatal_set;
	enum config_on_end on_fatal;
	bool keep_on_supervisor_death;

	struct config_scheduler scheduler;
	const struct config_program *programs; /* in the order of the file; a hidden one last */
	size_t program_count;
	const struct config_job *jobs; /* in the order of the file */
	size_t job_count;
	struct config_jobs jobs_settings;
	const struct config_socket *sockets;
	size_t socket_count;
	void *private; /* the arena and the parsed file; conf/ only */
};

enum config_force { CONFIG_DETECT, CONFIG_FORCE_NATIVE, CONFIG_FORCE_COMPAT };

/*
 * Read, expand, validate. FINDINGS gets every error and warning of the file, in file order.
 * Returns 0 and a snapshot with one reference when there was no error (warnings are fine),
 * ERR_CONFIG otherwise. Reads the file, its includes, environment files, servers' own files (for
 * warnings), the user database and
 * the environment of this process (%(ENV_X)s); touches nothing else and starts nothing.
 */
int config_load(const char *path, enum config_force force, struct config **ret_config,
	struct errlist *findings);
/* The same from TEXT, in the place of the file PATH, which need not exist: paths start from its
 * folder, its name gives the defaults. Findings name "(command line)". */
int config_load_text(const char *path, const char *text, enum config_force force,
	struct config **ret_config, struct errlist *findings);
/* What a snapshot was read from, byte for byte; it belongs to the snapshot. */
struct config_source {
	const char *path;
	bool pattern; /* of an include: TEXT are the paths it matched, each with its NUL */
	const char *text;
	size_t bytes;
};
struct config_sources {
	const char *directory; /* the working directory; "" = it had none any more */
	const struct config_source *items;
	size_t count;
};
const struct config_sources *config_sources(const struct config *c);
/* As config_load, or (TEXT not NULL) config_load_text, but from these bytes: the files are not
 * looked at. For an upgrade in place; the caller sees to the working directory. */
int config_load_sources(const char *path, const char *text, enum config_force force,
	const struct config_sources *from, struct config **ret_config, struct errlist *findings);
struct config *config_ref(struct config *c);
void config_unref(struct config *c); /* NULL is fine */

/* What finds the instance of a file that may be wrong by now: `control`, `user`, `pidfile` of
 * [baton] as far as they could be read, "" or NULL otherwise; nothing else of it is to be used. NULL = no
 * memory. */
struct config *config_load_head(const char *path, enum config_force force);
/* The control socket for a file (cli.md, config.md `control`): into BUF. The configuration need not
 * be valid: C may be NULL, then the default for PATH is given. */
int config_control_path(
	const struct config *c, const char *path, char *buf, size_t bytes, struct err *e);

/* Where else an instance of the file PATH may listen, whose 'control' or 'user' were others when it
 * was started: the sockets that are there at the default places, without EXCEPT. How many. */
#define CONFIG_CONTROL_BYTES 108 /* of sockaddr_un */
size_t config_control_others(
	const char *path, const char *except, char (*ret)[CONFIG_CONTROL_BYTES], size_t most);

/* How long stopping may take by the stop times of the programs, whatever shutdown_timeout says. */
int64_t config_stop_ns(const struct config *c);
/* The same for the executors, after whose end the lock is freed; 0 = there are none. */
int64_t config_stop_executors_ns(const struct config *c);

/* Index of the program, socket or job NAME, or -1. */
int config_find_program(const struct config *c, const char *name);
int config_find_job(const struct config *c, const char *name);
int config_find_socket(const struct config *c, const char *name);

/* One worker's own values, expanded for INDEX. Owned by the caller (config_worker_release). */
struct config_worker {
	char *name;      /* supervisord's process_name, e.g. "web_00"; ours is PROGRAM:INDEX */
	char *command;   /* expanded text */
	char **argv;     /* NULL-terminated, split as a POSIX shell splits words */
	char *directory; /* "" = stay */
	struct config_pair
		*environment; /* of baton, of environment_file, of the program, of presets */
	size_t environment_count;
	char *stdout_path, *stderr_path; /* with OUTPUT_PATH; else "" */
	struct config_probe ready, health;
	void *private;
};
/* LISTEN[i] is the text for %(listen_NAME)s of the program's i-th socket (the real port), and of
 * the probe listener after them where the program has one. */
int config_worker_build(const struct config *c, int program, int index, const char *const *listen,
	struct config_worker *ret_worker, struct err *e);
void config_worker_release(struct config_worker *w);

/* Print the whole effective configuration, as INI text or (JSON) as cli.md says. The caller frees
 * *ret_text. */
int config_dump(const struct config *c, bool json, char **ret_text);

/*
 * What a reload would change (conf/diff.c). Programs are matched by name.
 */
enum diff_class {
	DIFF_SAME,
	DIFF_LIVE,  /* settings that apply in place */
	DIFF_COUNT, /* only the number of workers (and live settings) changed */
	DIFF_ROLL,  /* workers must be replaced */
	DIFF_ADDED,
	DIFF_REMOVED,
};
struct config_change {
	const char *program; /* name; valid while both snapshots are */
	enum diff_class class;
	char *text; /* "command, environment changed" for people */
};
struct config_diff {
	struct config_change *programs;
	size_t program_count;
	char **restart; /* "[scheduler] database: old -> new": needs a new supervisor */
	size_t restart_count;
	char **live; /* changes of [baton], [scheduler] that apply in place */
	size_t live_count;
	char **moved; /* "[socket:http] listen: old -> new" */
	size_t moved_count;
	char **jobs; /* "job backup: applied from the next firing (schedule)": whole lines */
	size_t job_count;
	void *private; /* the memory of all of it */
};
int config_compare(
	const struct config *from, const struct config *to, struct config_diff *ret_diff);
void config_diff_release(struct config_diff *d);

#endif

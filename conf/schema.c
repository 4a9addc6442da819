#include "conf/schema.h"

#include <stddef.h>
#include <string.h>

#include "conf/config.h"
#include "conf/units.h"

#define MS      INT64_C(1000000)
#define SECOND  (1000 * MS)
#define HOUR    (3600 * SECOND)
#define DAY     (24 * HOUR)
#define YEAR    (366 * DAY)
#define LONGEST (10 * YEAR)

#define MEGABYTE (INT64_C(1) << 20)

#define BATON(field)     offsetof(struct config, field)
#define SCHEDULER(field) offsetof(struct config_scheduler, field)
#define PROGRAM(field)   offsetof(struct config_program, field)
#define SOCKET(field)    offsetof(struct config_socket, field)
#define JOB(field)       offsetof(struct config_job, field)
#define JOBS(field)      offsetof(struct config_jobs, field)
#define NOWHERE          0
#define COMMA            ,
#define NO_BOUNDS        0 COMMA 0
#define OWN              SCHEMA_OWN
#define LATER            SCHEMA_LATER
#define WORKER           SCHEMA_WORKER

/* clang-format off */
const struct schema_row schema_rows[] = {
/* section, key, type, default, in compatibility mode, least, most, class, flags, field, words, help */
#define ROW(key, type, value, compat, bounds, class, flags, field, words, help) \
	{SECTION, key, TYPE_##type, value, compat, bounds, CLASS_##class, flags, field, words, help},
#define SECTION SECTION_BATON
ROW("name", TEXT, "", NULL, NO_BOUNDS, RESTART, OWN, BATON(name), NULL, "Name of this deployment; by default the name of the file without its ending")
ROW("directory", PATH, "", NULL, NO_BOUNDS, RESTART, 0, BATON(directory), NULL, "Working directory of the supervisor")
ROW("user", USER, "", NULL, NO_BOUNDS, RESTART, 0, BATON(user), NULL, "User that baton and everything under it runs as, once the sockets are bound; only root can become another one")
ROW("group", SPECIAL, "", NULL, NO_BOUNDS, RESTART, OWN, NOWHERE, NULL, "Group that goes with user; by default the user's own")
ROW("umask", OCTAL, "022", NULL, NO_BOUNDS, RESTART, 0, BATON(umask), NULL, "File mode creation mask")
ROW("environment", SPECIAL, "", NULL, NO_BOUNDS, ROLL, 0, NOWHERE, NULL, "Variables of every program: KEY=\"value\",KEY2=value")
ROW("environment_file", SPECIAL, "", NULL, NO_BOUNDS, ROLL, OWN, NOWHERE, NULL, "File of KEY=VALUE lines, below environment in rank")
ROW("pidfile", PATH, "", NULL, NO_BOUNDS, RESTART, 0, BATON(pidfile), NULL, "File that the supervisor writes its pid to")
ROW("control", PATH, "", NULL, NO_BOUNDS, RESTART, OWN, BATON(control), NULL, "Path of the control socket; by default in a run-time directory")
ROW("control_mode", OCTAL, "0600", NULL, NO_BOUNDS, RESTART, OWN, BATON(control_mode), NULL, "Mode of the control socket")
ROW("control_owner", USER, "", NULL, NO_BOUNDS, RESTART, OWN, BATON(control_owner), NULL, "Owner of the control socket: USER or USER:GROUP; by default who starts baton")
ROW("logfile", PATH, "", NULL, NO_BOUNDS, RESTART, 0, BATON(logfile), NULL, "File of baton's own log; by default standard error")
ROW("logfile_maxbytes", NONE, "50MB", NULL, NO_BOUNDS, NONE, SCHEMA_GROWS, NOWHERE, NULL, "Rotation of the log by size")
ROW("logfile_backups", NONE, "10", NULL, NO_BOUNDS, NONE, SCHEMA_GROWS, NOWHERE, NULL, "Rotated logs that are kept")
ROW("loglevel", SPECIAL, "info", NULL, NO_BOUNDS, LIVE, 0, NOWHERE, "debug|info|warning|error", "Least important level that is logged")
ROW("log_format", WORD, "auto", NULL, NO_BOUNDS, LIVE, OWN, BATON(log_format), "text|logfmt|json|auto", "Format of the log; auto is text on a terminal, logfmt elsewhere")
ROW("childlogdir", PATH, "/tmp", NULL, NO_BOUNDS, LIVE, 0, BATON(childlogdir), NULL, "Directory of AUTO log files")
ROW("shutdown_timeout", DURATION, "60s", NULL, 0 COMMA DAY, LIVE, OWN, BATON(shutdown_timeout_ns), NULL, "Time for a graceful stop of everything")
ROW("on_fatal", WORD, "stay", NULL, NO_BOUNDS, LIVE, OWN, BATON(on_fatal), "stay|exit", "What a program that cannot be started does to the supervisor; exit as PID 1")
ROW("on_supervisor_death", EITHER, "kill", NULL, NO_BOUNDS, RESTART, OWN, BATON(keep_on_supervisor_death), "kill|keep", "What becomes of workers when the supervisor is killed; executors are always killed")
ROW("nodaemon", NONE, "true", NULL, NO_BOUNDS, NONE, 0, NOWHERE, NULL, "baton stays in the foreground")
ROW("identifier", NONE, "supervisor", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "supervisord's name for itself")
ROW("minfds", NONE, "1024", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "Use rlimit_nofile of the programs")
ROW("minprocs", NONE, "200", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "Use rlimit_nproc of the programs")
ROW("nocleanup", NONE, "false", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "AUTO files are never removed at the start")
ROW("strip_ansi", NONE, "false", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "Output is kept as it comes")
ROW("silent", NONE, "false", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "Log to standard output as well")
#undef SECTION
#define SECTION SECTION_SCHEDULER
ROW("database", SPECIAL, "", NULL, NO_BOUNDS, RESTART, OWN, NOWHERE, NULL, "Lock database: a path or sqlite:PATH; by default beside the file, or in the state directory")
ROW("lock_name", TEXT, "scheduler", NULL, NO_BOUNDS, RESTART, OWN, SCHEDULER(lock_name), NULL, "Name of the lock")
ROW("ttl", DURATION, "60s", NULL, 500 * MS COMMA DAY, LIVE, OWN, SCHEDULER(ttl_ns), NULL, "Time without a heartbeat after which the lock may be taken over")
ROW("heartbeat", DURATION, "10s", NULL, 50 * MS COMMA HOUR, LIVE, OWN, SCHEDULER(heartbeat_ns), NULL, "Time between heartbeats")
ROW("kill_grace", DURATION, "2s", NULL, 0 COMMA HOUR, LIVE, OWN, SCHEDULER(kill_grace_ns), NULL, "Part of the ttl kept for killing an executor whose lease ends")
ROW("handoff_timeout", DURATION, "30s", NULL, 0 COMMA DAY, LIVE, OWN, SCHEDULER(handoff_timeout_ns), NULL, "Time that a demoted executor gets to finish")
ROW("when_held", EITHER, "standby", NULL, NO_BOUNDS, RESTART, OWN, SCHEDULER(when_held_exit), "standby|exit", "What to do when another instance holds the lock at the start")
ROW("fast_takeover", BOOLEAN, "yes", NULL, NO_BOUNDS, RESTART, OWN, SCHEDULER(fast_takeover), NULL, "Take over at once from a holder on this machine that is proven dead")
ROW("unsafe_filesystem", BOOLEAN, "no", NULL, NO_BOUNDS, RESTART, OWN, SCHEDULER(unsafe_filesystem), NULL, "Accept a database on a file system whose locks are not reliable")
ROW("promote_backoff", DURATION, "1s", NULL, 0 COMMA HOUR, LIVE, OWN, SCHEDULER(promote_backoff_ns), NULL, "First delay when executors die soon after promotion; doubles to 60 s")
ROW("on_promote", TEXT, "", NULL, NO_BOUNDS, LIVE, OWN, SCHEDULER(on_promote), NULL, "Command run when a worker became executor")
ROW("on_demote", TEXT, "", NULL, NO_BOUNDS, LIVE, OWN, SCHEDULER(on_demote), NULL, "Command run when a worker is executor no longer")
ROW("on_standby", TEXT, "", NULL, NO_BOUNDS, LIVE, OWN, SCHEDULER(on_standby), NULL, "Command run when this instance became a standby")
ROW("on_holder", TEXT, "", NULL, NO_BOUNDS, LIVE, OWN, SCHEDULER(on_holder), NULL, "Command run when this instance became the holder")
ROW("history_keep", DURATION, "30d", NULL, 0 COMMA LONGEST, LIVE, OWN, SCHEDULER(history_keep_ns), NULL, "Age at which history is deleted")
#undef SECTION
#define SECTION SECTION_PROGRAM
ROW("command", SPECIAL, "", NULL, NO_BOUNDS, ROLL, WORKER | SCHEMA_REQUIRED, NOWHERE, NULL, "What to run; split into words as a shell does, without a shell")
ROW("process_name", SPECIAL, "", NULL, NO_BOUNDS, ROLL, WORKER, NOWHERE, NULL, "supervisord's name of a worker")
ROW("numprocs", SPECIAL, "1", NULL, 0 COMMA 10000, COUNT, 0, NOWHERE, NULL, "Number of workers")
ROW("workers", SPECIAL, "", NULL, 0 COMMA 10000, COUNT, OWN, NOWHERE, NULL, "The same as numprocs; auto = CPUs that this process may use")
ROW("numprocs_start", INTEGER, "0", NULL, 0 COMMA 1000000, ROLL, 0, PROGRAM(numprocs_start), NULL, "process_num of the first worker")
ROW("priority", INTEGER, "999", NULL, -2000000000 COMMA 2000000000, LIVE, 0, PROGRAM(priority), NULL, "Lower starts earlier and stops later")
ROW("autostart", BOOLEAN, "true", NULL, NO_BOUNDS, LIVE, 0, PROGRAM(autostart), NULL, "Start with the supervisor")
ROW("autorestart", SPECIAL, "unexpected", NULL, NO_BOUNDS, LIVE, 0, NOWHERE, "no|unexpected|yes", "Restart after an exit from running: always, never, or when the status is not in exitcodes")
ROW("startsecs", DURATION, "1s", NULL, 0 COMMA DAY, LIVE, 0, PROGRAM(startsecs_ns), NULL, "Time that a worker must stay up to count as started")
ROW("startretries", INTEGER, "10", "3", -1 COMMA 1000000, LIVE, 0, PROGRAM(startretries), NULL, "Failed starts in a row before a worker is given up; -1 = never")
ROW("exitcodes", SPECIAL, "0", NULL, NO_BOUNDS, LIVE, 0, NOWHERE, NULL, "Expected exit statuses")
ROW("stopsignal", SIGNAL, "TERM", NULL, NO_BOUNDS, LIVE, 0, PROGRAM(stopsignal), NULL, "Signal that asks a worker to stop")
ROW("stopwaitsecs", DURATION, "10s", NULL, 0 COMMA DAY, LIVE, 0, PROGRAM(stopwaitsecs_ns), NULL, "Time until KILL")
ROW("stopasgroup", BOOLEAN, "false", NULL, NO_BOUNDS, LIVE, 0, PROGRAM(stopasgroup), NULL, "Send the stop signal to the process group")
ROW("killasgroup", BOOLEAN, "false", NULL, NO_BOUNDS, LIVE, 0, PROGRAM(killasgroup), NULL, "Send KILL to the process group; as stopasgroup when not set")
ROW("user", USER, "", NULL, NO_BOUNDS, ROLL, 0, PROGRAM(user), NULL, "User that the program runs as")
ROW("redirect_stderr", BOOLEAN, "false", NULL, NO_BOUNDS, ROLL, 0, PROGRAM(redirect_stderr), NULL, "Standard error goes where standard output goes")
ROW("stdout_logfile", SPECIAL, "inherit", "AUTO", NO_BOUNDS, ROLL, WORKER, NOWHERE, NULL, "inherit, NONE, AUTO or a path")
ROW("stdout_logfile_maxbytes", NONE, "50MB", NULL, NO_BOUNDS, NONE, SCHEMA_GROWS, NOWHERE, NULL, "Rotation by size")
ROW("stdout_logfile_backups", NONE, "10", NULL, NO_BOUNDS, NONE, SCHEMA_GROWS, NOWHERE, NULL, "Rotated files that are kept")
ROW("stdout_capture_maxbytes", NONE, "0", NULL, NO_BOUNDS, NONE, LATER, NOWHERE, NULL, "supervisord's capture mode")
ROW("stdout_events_enabled", NONE, "false", NULL, NO_BOUNDS, NONE, LATER, NOWHERE, NULL, "supervisord's PROCESS_LOG events")
ROW("stdout_syslog", NONE, "false", NULL, NO_BOUNDS, NONE, LATER, NOWHERE, NULL, "Output to syslog")
ROW("stderr_logfile", SPECIAL, "inherit", "AUTO", NO_BOUNDS, ROLL, WORKER, NOWHERE, NULL, "inherit, NONE, AUTO or a path")
ROW("stderr_logfile_maxbytes", NONE, "50MB", NULL, NO_BOUNDS, NONE, SCHEMA_GROWS, NOWHERE, NULL, "Rotation by size")
ROW("stderr_logfile_backups", NONE, "10", NULL, NO_BOUNDS, NONE, SCHEMA_GROWS, NOWHERE, NULL, "Rotated files that are kept")
ROW("stderr_capture_maxbytes", NONE, "0", NULL, NO_BOUNDS, NONE, LATER, NOWHERE, NULL, "supervisord's capture mode")
ROW("stderr_events_enabled", NONE, "false", NULL, NO_BOUNDS, NONE, LATER, NOWHERE, NULL, "supervisord's PROCESS_LOG events")
ROW("stderr_syslog", NONE, "false", NULL, NO_BOUNDS, NONE, LATER, NOWHERE, NULL, "Output to syslog")
ROW("environment", SPECIAL, "", NULL, NO_BOUNDS, ROLL, WORKER, NOWHERE, NULL, "Variables of this program: KEY=\"value\",KEY2=value")
ROW("directory", SPECIAL, "", NULL, NO_BOUNDS, ROLL, WORKER, NOWHERE, NULL, "Working directory of the workers")
ROW("umask", OCTAL, "", NULL, NO_BOUNDS, ROLL, 0, PROGRAM(umask), NULL, "File mode creation mask; by default baton's")
ROW("serverurl", NONE, "AUTO", NULL, NO_BOUNDS, NONE, SCHEMA_NO_EFFECT, NOWHERE, NULL, "supervisord's SUPERVISOR_SERVER_URL")
ROW("sockets", SPECIAL, "", NULL, NO_BOUNDS, ROLL, OWN, NOWHERE, NULL, "Names of [socket:] sections, passed from descriptor 3 on")
ROW("preset", SPECIAL, "", NULL, NO_BOUNDS, ROLL, OWN, NOWHERE, NULL, "The server (gunicorn, uvicorn, hypercorn, puma, unicorn, uwsgi, node, nginx, php-fpm, go): what fits it is set")
ROW("executor", WORD, "no", NULL, NO_BOUNDS, ROLL, OWN, PROGRAM(executor), "no|candidate|only", "candidate: one of its ready workers is the executor; only: one worker over all instances")
ROW("promote", WORD, "notify", NULL, NO_BOUNDS, ROLL, OWN, PROGRAM(promote), "notify|signal|respawn", "How a worker is told that it is the executor")
ROW("promote_signal", SIGNAL, "", NULL, NO_BOUNDS, LIVE, OWN, PROGRAM(promote_signal), NULL, "Signal of a promotion")
ROW("demote_signal", SIGNAL, "", NULL, NO_BOUNDS, LIVE, OWN, PROGRAM(demote_signal), NULL, "Signal of a demotion")
ROW("promote_timeout", DURATION, "10s", NULL, 0 COMMA DAY, LIVE, OWN, PROGRAM(promote_timeout_ns), NULL, "Time for the answer to a promotion")
ROW("promote_unanswered", EITHER, "keep", NULL, NO_BOUNDS, LIVE, OWN, PROGRAM(promote_unanswered_replace), "keep|replace", "What to do with an executor that did not answer")
ROW("handoff_timeout", DURATION, "", NULL, 0 COMMA DAY, LIVE, OWN, PROGRAM(handoff_timeout_ns), NULL, "Time for finishing after a demotion; by default that of [scheduler]")
ROW("ready", SPECIAL, "startsecs", NULL, NO_BOUNDS, ROLL, OWN | WORKER, NOWHERE, NULL, "When a worker counts as ready: startsecs, notify, http:, tcp, exec:, fd:N or log:TEXT; see Readiness and health")
ROW("ready_timeout", DURATION, "60s", NULL, 10 * MS COMMA DAY, LIVE, OWN, PROGRAM(ready_timeout_ns), NULL, "Not ready by then is a failed start")
ROW("health", SPECIAL, "none", NULL, NO_BOUNDS, LIVE, OWN | WORKER, NOWHERE, NULL, "Repeated probe of a ready worker: none, http:, tcp or exec:; see Readiness and health")
ROW("health_interval", DURATION, "10s", NULL, 100 * MS COMMA DAY, LIVE, OWN, PROGRAM(health_interval_ns), NULL, "Time between probes")
ROW("health_timeout", DURATION, "2s", NULL, 10 * MS COMMA HOUR, LIVE, OWN, PROGRAM(health_timeout_ns), NULL, "Time for the answer to a probe")
ROW("health_failures", INTEGER, "3", NULL, 1 COMMA 1000, LIVE, OWN, PROGRAM(health_failures), NULL, "Failures in a row before the worker is replaced")
ROW("probe", SPECIAL, "no", NULL, NO_BOUNDS, ROLL, OWN, NOWHERE, NULL, "A private listener of each worker for probes, named probe, after its sockets")
ROW("watchdog", DURATION, "0s", NULL, 0 COMMA DAY, ROLL, OWN, PROGRAM(watchdog_ns), NULL, "WATCHDOG=1 must come this often; 0 = off")
ROW("replace", SPECIAL, "rolling", "restart", NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "How a changed program is replaced: rolling, restart, signal:HUP")
ROW("roll_on_reload", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, "changed|always", "Roll at every reload, or when settings changed; always with sockets")
ROW("surge", INTEGER, "", NULL, 0 COMMA 10000, LIVE, OWN, PROGRAM(surge), NULL, "Workers above the wanted number during a rollout; 1 with sockets and without %(process_num) in the command, else 0")
ROW("max_unavailable", INTEGER, "", NULL, 0 COMMA 10000, LIVE, OWN, PROGRAM(max_unavailable), NULL, "Workers below the wanted number during a rollout; 0 where surge is 1 or more, else 1")
ROW("stop_delay", DURATION, "0s", NULL, 0 COMMA DAY, LIVE, OWN, PROGRAM(stop_delay_ns), NULL, "Time between the readiness of a worker's replacement beside it and its stop signal")
ROW("max_age", DURATION, "0s", NULL, 0 COMMA LONGEST, LIVE, OWN, PROGRAM(max_age_ns), NULL, "Age at which a worker is replaced by another like it, one worker at a time; 0 = never")
ROW("max_age_jitter", DURATION, "0s", NULL, 0 COMMA LONGEST, LIVE, OWN, PROGRAM(max_age_jitter_ns), NULL, "What is added to max_age at most, by chance, so that workers that started together do not grow old together")
ROW("max_memory", SIZE, "0", NULL, 0 COMMA INT64_MAX, LIVE, OWN, PROGRAM(max_memory), NULL, "Memory (resident, of all processes of its tree) above which a worker is replaced by another like it; 0 = any")
ROW("restart_backoff", DURATION, "100ms", "1s", MS COMMA DAY, LIVE, OWN, PROGRAM(restart_backoff_ns), NULL, "First delay before a failed start is tried again")
ROW("restart_backoff_max", DURATION, "30s", "1h", MS COMMA DAY, LIVE, OWN, PROGRAM(restart_backoff_max_ns), NULL, "Longest such delay")
ROW("fatal_retry", DURATION, "0s", NULL, 0 COMMA LONGEST, LIVE, OWN, PROGRAM(fatal_retry_ns), NULL, "Time after which a worker that was given up is tried again; 0 = never")
ROW("on_fatal", WORD, "", NULL, NO_BOUNDS, LIVE, OWN, PROGRAM(on_fatal), "stay|exit", "As in [baton], for this program")
ROW("on_exit", WORD, "stay", NULL, NO_BOUNDS, LIVE, OWN, PROGRAM(on_exit), "stay|exit", "What the end of this program does to the supervisor")
ROW("depends_on", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "Programs that must be ready first: db, migrate:done, cache:started")
ROW("stdin", NONE, "null", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Standard input")
ROW("shell", BOOLEAN, "no", NULL, NO_BOUNDS, ROLL, OWN, PROGRAM(shell), NULL, "Run the command with /bin/sh -c")
ROW("rlimit_", SPECIAL, "", NULL, NO_BOUNDS, ROLL, OWN | SCHEMA_PREFIX, NOWHERE, NULL, "rlimit_nofile = 4096 or SOFT:HARD; as, core, cpu, data, fsize, memlock, nofile, nproc, stack ...")
ROW("nice", INTEGER, "", NULL, -20 COMMA 19, ROLL, OWN, PROGRAM(nice), NULL, "Scheduling priority")
ROW("oom_score_adj", INTEGER, "", NULL, -1000 COMMA 1000, ROLL, OWN, PROGRAM(oom_score_adj), NULL, "Whom the kernel kills first when memory runs out")
ROW("cpu_affinity", NONE, "", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "CPUs that the workers may use")
ROW("cgroup", NONE, "", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Control group of the workers")
ROW("no_new_privs", BOOLEAN, "no", NULL, NO_BOUNDS, ROLL, OWN, PROGRAM(no_new_privs), NULL, "No gain of privileges by execve")
ROW("environment_file", SPECIAL, "", NULL, NO_BOUNDS, ROLL, OWN, NOWHERE, NULL, "File of KEY=VALUE lines, below environment in rank")
ROW("log_prefix", BOOLEAN, "yes", NULL, NO_BOUNDS, LIVE, OWN, PROGRAM(log_prefix), NULL, "The worker's name before each line of inherited output")
ROW("log_format", NONE, "raw", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Format of the program's lines")
ROW("log_rotate_every", NONE, "none", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Rotation by time")
ROW("log_compress", NONE, "no", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Compression of rotated files")
ROW("log_overflow", NONE, "block", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "What happens to output that cannot be written")
ROW("run_before", NONE, "", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Command before the first start")
ROW("run_after", NONE, "", NULL, NO_BOUNDS, NONE, OWN | LATER, NOWHERE, NULL, "Command after the last stop")
#undef SECTION
#define SECTION SECTION_SOCKET
ROW("listen", SPECIAL, "", NULL, NO_BOUNDS, ROLL, OWN | SCHEMA_REQUIRED, NOWHERE, NULL, "HOST:PORT, [::1]:PORT, :PORT or unix:PATH")
ROW("backlog", INTEGER, "2048", NULL, 1 COMMA 1000000, LIVE, OWN, SOCKET(backlog), NULL, "Connections that may wait to be accepted")
ROW("mode", OCTAL, "0660", NULL, NO_BOUNDS, LIVE, OWN, SOCKET(mode), NULL, "Mode of a unix socket")
ROW("owner", USER, "", NULL, NO_BOUNDS, LIVE, OWN, SOCKET(owner), NULL, "Owner of a unix socket: USER or USER:GROUP; by default baton's user")
ROW("reuse_port", BOOLEAN, "no", NULL, NO_BOUNDS, NONE, OWN | LATER, SOCKET(reuse_port), NULL, "One listener for each worker")
ROW("nodelay", BOOLEAN, "yes", NULL, NO_BOUNDS, LIVE, OWN, SOCKET(nodelay), NULL, "TCP_NODELAY")
ROW("v6only", BOOLEAN, "no", NULL, NO_BOUNDS, RESTART, OWN, SOCKET(v6only), NULL, "An IPv6 address does not take IPv4 connections; it counts when the port is opened")
#undef SECTION
#define SECTION SECTION_JOB
ROW("schedule", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN | SCHEMA_REQUIRED, NOWHERE, NULL, "When it runs: five or six cron fields, @daily and the like, @every 90s, @promotion")
ROW("timezone", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "Time zone of the schedule, as Europe/Berlin; by default the system's")
ROW("command", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN | SCHEMA_REQUIRED, NOWHERE, NULL, "Command of a run")
ROW("shell", BOOLEAN, "yes", NULL, NO_BOUNDS, LIVE, OWN, JOB(shell), NULL, "Run the command with /bin/sh -c")
ROW("directory", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "Working directory of a run")
ROW("user", USER, "", NULL, NO_BOUNDS, LIVE, OWN, JOB(user), NULL, "User that the command runs as")
ROW("environment", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "Variables of this job: KEY=\"value\",KEY2=value")
ROW("environment_file", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "File of KEY=VALUE lines, below environment in rank")
ROW("umask", OCTAL, "", NULL, NO_BOUNDS, LIVE, OWN, JOB(umask), NULL, "File mode creation mask; by default baton's")
ROW("rlimit_", SPECIAL, "", NULL, NO_BOUNDS, LIVE, OWN | SCHEMA_PREFIX, NOWHERE, NULL, "rlimit_nofile = 4096 or SOFT:HARD; as, core, cpu, data, fsize, memlock, nofile, nproc, stack ...")
ROW("nice", INTEGER, "", NULL, -20 COMMA 19, LIVE, OWN, JOB(nice), NULL, "Scheduling priority")
ROW("oom_score_adj", INTEGER, "", NULL, -1000 COMMA 1000, LIVE, OWN, JOB(oom_score_adj), NULL, "Whom the kernel kills first when memory runs out")
ROW("no_new_privs", BOOLEAN, "no", NULL, NO_BOUNDS, LIVE, OWN, JOB(no_new_privs), NULL, "No gain of privileges by execve")
ROW("stopsignal", SIGNAL, "TERM", NULL, NO_BOUNDS, LIVE, OWN, JOB(stopsignal), NULL, "Signal that asks a run to stop")
ROW("stopwaitsecs", DURATION, "10s", NULL, 0 COMMA DAY, LIVE, OWN, JOB(stopwaitsecs_ns), NULL, "Time until KILL")
ROW("timeout", SPECIAL, "none", NULL, NO_BOUNDS, LIVE, OWN, NOWHERE, NULL, "A run that takes longer is stopped; none = no limit")
ROW("overlap", WORD, "skip", NULL, NO_BOUNDS, LIVE, OWN, JOB(overlap), "skip|queue|replace|allow", "A firing while the last run still runs: skip it, run it next, stop the old run, or run both")
ROW("missed", WORD, "once", NULL, NO_BOUNDS, LIVE, OWN, JOB(missed), "skip|once|all", "Firings that found no executor: drop them, run one, run each, one after the other")
ROW("missed_limit", DURATION, "1h", NULL, 0 COMMA LONGEST, LIVE, OWN, JOB(missed_limit_ns), NULL, "Age up to which a missed firing is made up for")
ROW("retries", INTEGER, "0", NULL, 0 COMMA 1000, LIVE, OWN, JOB(retries), NULL, "Further attempts of a run that failed")
ROW("retry_backoff", DURATION, "10s", NULL, 0 COMMA DAY, LIVE, OWN, JOB(retry_backoff_ns), NULL, "Time before the first further attempt; doubles with each")
ROW("jitter", DURATION, "0s", NULL, 0 COMMA DAY, LIVE, OWN, JOB(jitter_ns), NULL, "A run starts up to this much later, at random, and before the next firing")
ROW("on_failure", TEXT, "", NULL, NO_BOUNDS, LIVE, OWN, JOB(on_failure), NULL, "Command run (by /bin/sh -c) after the last attempt failed or was cut off")
ROW("enabled", BOOLEAN, "yes", NULL, NO_BOUNDS, LIVE, OWN, JOB(enabled), NULL, "no: it fires never, and can be run by hand")
ROW("output_keep", SIZE, "64KB", NULL, 0 COMMA 16 * MEGABYTE, LIVE, OWN, JOB(output_keep), NULL, "Bytes of a run's output that are kept in the history, the last ones")
ROW("interrupted", WORD, "fail", NULL, NO_BOUNDS, LIVE, OWN, JOB(interrupted), "rerun|fail", "What becomes of a run that a takeover cut off")
ROW("handoff_timeout", DURATION, "", NULL, 0 COMMA DAY, LIVE, OWN, JOB(handoff_timeout_ns), NULL, "Time for finishing when another instance takes over; by default that of [scheduler]")
#undef SECTION
#define SECTION SECTION_JOBS
ROW("max_running", INTEGER, "", NULL, 1 COMMA 10000, LIVE, OWN, JOBS(max_running), NULL, "Runs at one time, the others wait; by default 4 for each CPU")
ROW("history_keep", DURATION, "30d", NULL, 0 COMMA LONGEST, LIVE, OWN, JOBS(history_keep_ns), NULL, "Time that runs are kept in the history")
ROW("history_count", INTEGER, "1000", NULL, 1 COMMA 1000000, LIVE, OWN, JOBS(history_count), NULL, "Runs of one job that are kept in the history")
#undef SECTION
#define SECTION SECTION_GROUP
ROW("programs", SPECIAL, "", NULL, NO_BOUNDS, ROLL, SCHEMA_REQUIRED, NOWHERE, NULL, "Programs of the group")
ROW("priority", SPECIAL, "999", NULL, NO_BOUNDS, LIVE, 0, NOWHERE, NULL, "Lower starts earlier and stops later")
#undef SECTION
#define SECTION SECTION_INCLUDE
ROW("files", SPECIAL, "", NULL, NO_BOUNDS, NONE, SCHEMA_REQUIRED, NOWHERE, NULL, "Patterns of more files, relative to this one")
#undef SECTION
};
/* clang-format on */
const size_t schema_row_count = sizeof(schema_rows) / sizeof(schema_rows[0]);

const struct schema_section_kind schema_sections[] = {
	{"baton", SECTION_BATON, OWN, NULL},
	{"supervisord", SECTION_BATON, 0, NULL},
	{"scheduler", SECTION_SCHEDULER, OWN, NULL},
	{"program:", SECTION_PROGRAM, 0, NULL},
	{"socket:", SECTION_SOCKET, OWN, NULL},
	{"group:", SECTION_GROUP, 0, NULL},
	{"include", SECTION_INCLUDE, 0, NULL},
	{"job:", SECTION_JOB, OWN, NULL},
	{"jobs", SECTION_JOBS, OWN, NULL},
	{"http", SECTION_HTTP, OWN | LATER, NULL},
	{"fcgi-program:", SECTION_FCGI, LATER, NULL},
	{"unix_http_server", SECTION_SKIPPED, 0,
		"baton has a control socket of its own: set 'control' in [baton] ('file' here is "
		"not "
		"used for it)"},
	{"inet_http_server", SECTION_SKIPPED, 0,
		"XML-RPC and the web page are not served: use the 'baton' command"},
	{"supervisorctl", SECTION_SKIPPED, 0,
		"use the 'baton' command (status, start, stop, restart) with this file"},
	{"rpcinterface:", SECTION_SKIPPED, 0,
		"XML-RPC is not served: use the 'baton' command, with --json for programs"},
	{"eventlistener:", SECTION_SKIPPED, 0,
		"not run: use 'baton events', or run its command as a [program:] that reads it"},
};
const size_t schema_section_count = sizeof(schema_sections) / sizeof(schema_sections[0]);

const struct schema_section_kind *schema_kind(const char *name)
{
	for (size_t i = 0; i < schema_section_count; i++) {
		const struct schema_section_kind *k = &schema_sections[i];
		size_t bytes = strlen(k->name);
		if (k->name[bytes - 1] == ':' ? strncmp(name, k->name, bytes) == 0
					      : strcmp(name, k->name) == 0)
			return k;
	}
	return NULL;
}

const struct schema_row *schema_find(enum schema_section section, const char *key)
{
	for (size_t i = 0; i < schema_row_count; i++) {
		const struct schema_row *row = &schema_rows[i];
		if (row->section != section)
			continue;
		if (row->flags & SCHEMA_PREFIX ? strncmp(key, row->key, strlen(row->key)) == 0
					       : strcmp(key, row->key) == 0)
			return row;
	}
	return NULL;
}

static int tolerance(const char *word)
{
	size_t bytes = strlen(word);

	return bytes <= 3 ? 1 : bytes <= 8 ? 2 : 3;
}

const char *schema_nearest_key(enum schema_section section, const char *key)
{
	int best = tolerance(key) + 1;
	const char *nearest = NULL;

	for (size_t i = 0; i < schema_row_count; i++) {
		int distance;
		if (schema_rows[i].section != section)
			continue;
		distance = units_distance(key, schema_rows[i].key, best);
		if (distance < best) {
			best = distance;
			nearest = schema_rows[i].key;
		}
	}
	return nearest;
}

const char *schema_nearest_section(const char *name)
{
	size_t front = strcspn(name, ":");
	char word[64];
	int best;
	const char *nearest = NULL;

	if (name[front] == ':')
		front++;
	if (front >= sizeof(word))
		return NULL;
	memcpy(word, name, front);
	word[front] = '\0';
	best = tolerance(word) + 1;
	for (size_t i = 0; i < schema_section_count; i++) {
		int distance = units_distance(word, schema_sections[i].name, best);
		if (distance < best) {
			best = distance;
			nearest = schema_sections[i].name;
		}
	}
	return nearest;
}

const char *schema_default(const struct schema_row *row, bool native)
{
	return !native && row->compat ? row->compat : row->value;
}

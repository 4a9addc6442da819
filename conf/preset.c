/* The servers that baton knows: a row each. What stands here was tried with the real program. */
#include "conf/preset.h"

#include <signal.h>
#include <string.h>

/* Output at once, not when a buffer of 8 KiB is full. */
static const struct config_pair python_environment[] = {{"PYTHONUNBUFFERED", "1"}, {NULL, NULL}};

/* Above the grace of the server itself: gunicorn and php-fpm end what takes longer than theirs;
 * uvicorn, puma, nginx wait for their requests without a limit of their own. */
static const struct config_pair term_settings[] = {
	{"stopsignal", "TERM"},
	{"stopwaitsecs", "35s"},
	{NULL, NULL},
};
/* Ready when it has accepted a connection to its own probe listener: these servers accept once the
 * application is loaded. */
static const struct config_pair term_tcp_settings[] = {
	{"stopsignal", "TERM"},
	{"stopwaitsecs", "35s"},
	{"ready", "tcp"},
	{NULL, NULL},
};
/* It takes one descriptor only; it prints this once it accepts, and names the socket when that is
 * one that was passed. */
static const struct config_pair uvicorn_settings[] = {
	{"stopsignal", "TERM"},
	{"stopwaitsecs", "35s"},
	{"ready", "log:Uvicorn running on"},
	{NULL, NULL},
};
/* It takes only sockets that its file names; it prints this when the first of its processes that
 * accept is forked. */
static const struct config_pair nginx_settings[] = {
	{"stopsignal", "QUIT"},
	{"stopwaitsecs", "35s"},
	{"ready", "log:start worker process "},
	{NULL, NULL},
};
/* As nginx; it says READY=1, where it was built so, when its processes are forked. */
static const struct config_pair php_fpm_settings[] = {
	{"stopsignal", "QUIT"},
	{"stopwaitsecs", "35s"},
	{"ready", "notify"},
	{NULL, NULL},
};
/* Servers that load the application for a second or more before they can fail: what ends within
 * startsecs is a failed start. */
static const struct config_pair slow_term_settings[] = {
	{"stopsignal", "TERM"},
	{"stopwaitsecs", "35s"},
	{"startsecs", "3s"},
	{"ready", "tcp"},
	{NULL, NULL},
};
/* Its own limit of a request, and of a graceful stop, is 60 s, and is set in its file only. */
static const struct config_pair unicorn_settings[] = {
	{"stopsignal", "QUIT"},
	{"stopwaitsecs", "60s"},
	{"startsecs", "3s"},
	{"ready", "tcp"},
	{NULL, NULL},
};

static const int gunicorn_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM, SIGUSR1, SIGUSR2,
	SIGWINCH, SIGTTIN, SIGTTOU, SIGCHLD, 0};
static const int uvicorn_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTIN, SIGTTOU, 0};
static const int hypercorn_signals[] = {SIGINT, SIGTERM, 0};
static const int puma_signals[] = {
	SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGURG, SIGCHLD, 0};
static const int unicorn_signals[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU, SIGCHLD, 0};
static const int uwsgi_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGURG,
	SIGTSTP, SIGTTIN, SIGTTOU, SIGALRM, SIGCHLD, 0};
static const int node_signals[] = {SIGUSR1, SIGINT, SIGTERM, SIGHUP, SIGPROF, 0};
static const int nginx_signals[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGIO, SIGCHLD, 0};
static const int php_fpm_signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD, 0};
static const int go_signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGURG, SIGPROF, 0};

static const char *const gunicorn_bind[] = {"-b", "--bind", NULL};
static const char *const uvicorn_bind[] = {"--fd", "--uds", "--host", "--port", NULL};
static const char *const puma_bind[] = {"-b", "--bind", "-p", "--port", NULL};
static const char *const unicorn_bind[] = {"-l", "--listen", "-o", "--host", "-p", "--port", NULL};
/* of gunicorn, unicorn, php-fpm */
static const char *const dash_d[] = {"-D", "--daemon", "--daemonize", NULL};
static const char *const uwsgi_background[] = {"-d", "--daemonize", "--daemonize2", NULL};
static const char *const uwsgi_bind[] = {"-s", "--socket", "--uwsgi-socket", "--http",
	"--http-socket", "--http11-socket", "--https", "--https-socket", "--fastcgi-socket",
	"--scgi-socket", NULL};

/* baton's workers are the workers: each server has one. */
static const struct preset_words gunicorn_words[] = {
	{.unless = {"-w", "--workers"}, .words = {"-w", "1"}},
	{.words = {NULL}},
};
/* More than one, also by WEB_CONCURRENCY, and it says that it runs before the application is
 * loaded. */
static const struct preset_words uvicorn_words[] = {
	{.unless = {"--workers"}, .words = {"--workers", "1"}},
	{.words = {NULL}},
};
static const struct preset_words hypercorn_words[] = {
	{.unless = {"-w", "--workers"}, .words = {"--workers", "1"}},
	{.words = {NULL}},
};
static const struct preset_words puma_words[] = {
	/* no cluster, whatever its file says */
	{.unless = {"-w", "--workers"}, .words = {"-w", "0"}},
	/* only: without what its file binds */
	{.unless = {"--bind-to-activated-sockets"},
		.words = {"--bind-to-activated-sockets", "only"},
		.with_sockets = true},
	{.words = {NULL}},
};
/* By itself uwsgi takes TERM for a reload, and INT, QUIT, TERM with --die-on-term drop the request
 * that is being answered; only its master stops gracefully, and only when it is told so. */
static const struct preset_words uwsgi_words[] = {
	{.unless = {"-M", "--master"}, .words = {"--master"}},
	{.unless = {"-p", "--processes", "--workers"}, .words = {"--processes", "1"}},
	{.unless = {"--worker-reload-mercy"}, .words = {"--worker-reload-mercy", "30"}},
	{.words = {"--hook-master-start", "unix_signal:15 gracefully_kill_them_all"}},
	{.words = {NULL}},
};
static const struct preset_words php_fpm_words[] = {
	{.unless = {"-F", "--nodaemonize"}, .words = {"-F"}},
	{.words = {NULL}},
};

static const struct preset_words nginx_words[] = {
	{.words = {"-g", "error_log stderr notice;"}, .joined = true, .for_log = true},
	{.words = {NULL}},
};

static const char *const node_wrappers[] = {
	"npm", "npx", "yarn", "yarnpkg", "pnpm", "pm2", "pm2-runtime", "forever", "nodemon", NULL};

static const struct preset presets[] = {
	{.name = "gunicorn",
		.settings = term_tcp_settings,
		.environment = python_environment,
		.signals = gunicorn_signals,
		.no_listen_variables = true,
		.unlinks_sockets = true,
		.bind_options = gunicorn_bind,
		.background = dash_d,
		.grace_option = "--graceful-timeout",
		.words = gunicorn_words,
		.listen = {"--bind", "fd://%zu"}},
	{.name = "uvicorn",
		.settings = uvicorn_settings,
		.no_probe = "uvicorn takes one descriptor only, that of its socket: use "
			    "'exec:COMMAND' or 'watchdog', or run the application with hypercorn, "
			    "or with "
			    "gunicorn -k uvicorn.workers.UvicornWorker",
		.environment = python_environment,
		.signals = uvicorn_signals,
		.most_sockets = 1,
		.bind_options = uvicorn_bind,
		.grace_option = "--timeout-graceful-shutdown",
		.ready_with_sockets = "log:Uvicorn running on socket",
		.words = uvicorn_words,
		.listen = {"--fd", "%zu"}},
	{.name = "hypercorn",
		.settings = slow_term_settings,
		.environment = python_environment,
		.signals = hypercorn_signals,
		.bind_options = gunicorn_bind,
		.grace_option = "--graceful-timeout",
		.words = hypercorn_words,
		.listen = {"--bind", "fd://%zu"}},
	{.name = "puma",
		.settings = slow_term_settings,
		.signals = puma_signals,
		.bind_options = puma_bind,
		.words = puma_words},
	{.name = "unicorn",
		.settings = unicorn_settings,
		.signals = unicorn_signals,
		.bind_options = unicorn_bind,
		.background = dash_d},
	{.name = "uwsgi",
		.settings = slow_term_settings,
		.environment = python_environment,
		.signals = uwsgi_signals,
		.no_listen_variables = true,
		.bind_options = uwsgi_bind,
		.background = uwsgi_background,
		.grace_option = "--worker-reload-mercy",
		.words = uwsgi_words,
		.listen = {"--http-socket", "fd://%zu"},
		.listen_with = {"--protocol", "--socket"}},
	{.name = "node",
		.settings = term_tcp_settings,
		.signals = node_signals,
		.variable = PRESET_NODE_OPTIONS,
		.wrappers = node_wrappers},
	{.name = "nginx",
		.settings = nginx_settings,
		.signals = nginx_signals,
		.words = nginx_words,
		.no_probe = "nginx takes only sockets that its own file names with 'listen': use "
			    "'exec:COMMAND'",
		.variable = PRESET_NGINX},
	{.name = "php-fpm",
		.settings = php_fpm_settings,
		.signals = php_fpm_signals,
		.words = php_fpm_words,
		.background = dash_d,
		.no_probe = "php-fpm takes only sockets that its own file names with 'listen': "
			    "use 'exec:COMMAND'",
		.blocking_sockets = true,
		.variable = PRESET_FPM_SOCKETS},
	{.name = "go", .settings = term_settings, .signals = go_signals},
};

const struct preset *preset_find(const char *name)
{
	for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
		if (strcmp(name, presets[i].name) == 0)
			return &presets[i];
	}
	return NULL;
}

const char *preset_names(void)
{
	return "gunicorn, uvicorn, hypercorn, puma, unicorn, uwsgi, node, nginx, php-fpm, go";
}

const char *preset_value(const struct preset *p, const char *key)
{
	for (const struct config_pair *s = p->settings; s && s->key; s++) {
		if (strcmp(s->key, key) == 0)
			return s->value;
	}
	return NULL;
}

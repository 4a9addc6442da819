#include "supervisor/cli/lock.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cli/output.h"
#include "worker/lock/guard.h"

enum { BUSY_LIMIT_MS = 3000, PID1_MS = 100 };

static void read_line(const char *path, char *buf, size_t bytes)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	if (!fgets(buf, (int)bytes, f))
		buf[0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

/* Opening the guard creates it; looking at a lock must leave no file behind. */
static bool guard_exists(const char *database)
{
	char *real = realpath(database, NULL), path[4096 + 16];
	bool exists = false;

	if (real) {
		snprintf(path, sizeof(path), "%s-guard", real);
		exists = access(path, F_OK) == 0;
	}
	free(real);
	return exists;
}

static enum lock_life judge_free_byte(
	const struct store_row *row, const char *boot_id, int fd, const char **ret_reason)
{
	char machine[STORE_ID_BYTES];
	int64_t cleared = 0;
	bool free = false;

	read_line("/etc/machine-id", machine, sizeof(machine));
	if (guard_cleared(fd, &cleared, NULL) == 0 && cleared == row->epoch) {
		*ret_reason = "its deadman has ended everything it ran";
		return LIFE_DEAD;
	}
	if (strcmp(row->boot_id, boot_id) != 0) {
		bool same = machine[0] && strcmp(machine, row->machine_id) == 0;
		*ret_reason = same ? "this machine was restarted since"
				   : "it runs, or ran, on another machine";
		return same ? LIFE_DEAD : LIFE_UNKNOWN;
	}
	if (row->pid1) {
		/* The kernel is still killing its container, at most for a moment. */
		poll(NULL, 0, PID1_MS);
		if (guard_is_free(fd, row->epoch, &free, NULL) == 0 && free) {
			*ret_reason = "it was PID 1 of a container that is gone";
			return LIFE_DEAD;
		}
	}
	*ret_reason = "supervisor and deadman were killed together: what they ran may still live";
	return LIFE_GONE;
}

static enum lock_life judge(
	const char *database, const struct store_row *row, const char **ret_reason)
{
	char boot_id[STORE_ID_BYTES];
	enum lock_life life = LIFE_UNKNOWN;
	bool free = false;
	int64_t inode;
	int fd;

	*ret_reason = "";
	if (!row->held)
		return LIFE_NONE;
	*ret_reason = "there is no guard file of this holder here";
	if (!guard_exists(database) || guard_open(database, &fd, &inode, NULL) != 0)
		return LIFE_UNKNOWN;
	read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
	if (inode == row->guard_ino && guard_is_free(fd, row->epoch, &free, NULL) == 0) {
		*ret_reason = "it holds the guard of this term";
		life = free ? judge_free_byte(row, boot_id, fd, ret_reason) : LIFE_ALIVE;
	}
	close(fd);
	return life;
}

/* With -s alone the instance knows its file. */
static int find_config(struct cli *c)
{
	json_t *status = NULL;
	const char *path;
	int rc;

	if (cli_has(c, OPTION_CONFIG) || !cli_has(c, OPTION_SOCKET))
		return 0;
	rc = cli_request(c, json_pack("{s:s}", "cmd", "status"), CLI_QUICK_MS, &status);
	if (rc != 0)
		return rc;
	path = output_text(json_object_get(status, "instance"), "config");
	if (*path) {
		c->values[OPTION_CONFIG] = strdup(path);
		c->set |= CLI_BIT(CONFIG);
	}
	json_decref(status);
	return 0;
}

/* The file has an error by now. The instance that runs by what it was knows its database, and has
 * accepted the file system; history is not trimmed on the way. */
static bool ask_instance(struct cli *c, const struct errlist *findings, struct store_settings *s)
{
	struct control_client client;
	json_t *status = NULL;
	const json_t *instance;
	char text[ERR_FILE_BYTES + ERR_TEXT_BYTES + 32] = "";
	struct err e;

	if (cli_socket_path(c) != 0 || control_connect(&client, c->socket, CLI_QUICK_MS, &e) != 0)
		return false;
	if (cli_call(c, &client, json_pack("{s:s}", "cmd", "status"), CLI_QUICK_MS, &status) == 0)
		snprintf(s->database, sizeof(s->database), "%s",
			output_text(json_object_get(status, "lock"), "database"));
	control_close(&client);
	s->unsafe_filesystem = true;
	instance = json_object_get(status, "instance");
	for (size_t i = findings->count; i-- > 0;)
		if (!findings->items[i].warning)
			err_format(&findings->items[i], text, sizeof(text));
	if (s->database[0])
		cli_fail(c, 0, text,
			"the configuration '%s' has errors; going on with the database of the "
			"instance that runs (pid %lld). The first error:",
			cli_config_path(c), (long long)output_number(instance, "pid"));
	json_decref(status);
	return s->database[0] != '\0';
}

/* By the file, or else by the instance: CONFIG stays NULL then. */
static int find_database(struct cli *c, struct lock_site *site, struct store_settings *s)
{
	const char *path = cli_config_path(c);
	const struct config_scheduler *of;
	struct errlist findings;
	bool known;

	errlist_init(&findings);
	known = path && config_load(path, cli_force(c), &site->config, &findings) != 0 &&
		access(path, F_OK) == 0 && ask_instance(c, &findings, s);
	errlist_release(&findings);
	site->path = path;
	if (known)
		return 0;
	if (!site->config) /* it has no such instance: its errors are what there is to say */
		return cli_load(c, &site->config);
	of = &site->config->scheduler;
	snprintf(s->database, sizeof(s->database), "%s", of->database);
	snprintf(s->lock_name, sizeof(s->lock_name), "%s", of->lock_name);
	s->unsafe_filesystem = of->unsafe_filesystem;
	s->history_keep_us = of->history_keep_ns / 1000;
	return of->enabled ? 0
			   : cli_fail(c, CLI_FAILED, NULL,
				     "'%s' has no [scheduler] section and no executor: there is "
				     "no lock",
				     path);
}

static void fill_settings(struct store_settings *s)
{
	s->busy_limit_ms = BUSY_LIMIT_MS;
	snprintf(s->instance, sizeof(s->instance), "baton-lock-%ld", (long)getpid());
	read_line("/proc/sys/kernel/random/boot_id", s->boot_id, sizeof(s->boot_id));
	read_line("/etc/machine-id", s->machine_id, sizeof(s->machine_id));
	gethostname(s->hostname, sizeof(s->hostname) - 1);
	s->pid = getpid();
}

int lock_look(struct cli *c, struct lock_site *site)
{
	struct err e = {.text = ""};
	enum store_outcome outcome = site->store.ops->inspect(&site->store, &site->view, &e);

	if (outcome != STORE_DONE)
		return cli_fail(c, outcome == STORE_WRONG ? CLI_CONFIG : CLI_FAILED, NULL,
			"cannot read the lock: %s",
			e.text[0] ? e.text : store_outcome_name(outcome));
	site->life = LIFE_NONE;
	site->life_reason = "";
	if (site->view.exists)
		site->life = judge(
			site->store.settings.database, &site->view.row, &site->life_reason);
	return 0;
}

int lock_open(struct cli *c, struct lock_site *ret)
{
	struct store_settings settings = {.database = ""};
	struct err e;
	int rc;

	memset(ret, 0, sizeof(*ret));
	rc = find_config(c);
	if (rc == 0)
		rc = find_database(c, ret, &settings);
	if (rc == 0) {
		fill_settings(&settings);
		rc = store_sqlite_init(&ret->store, &settings, &e);
		rc = rc != 0 ? cli_print_err(c, &e) : lock_look(c, ret);
	}
	if (rc != 0)
		lock_close(ret);
	return rc;
}

void lock_close(struct lock_site *site)
{
	if (site->store.ops)
		site->store.ops->close(&site->store);
	config_unref(site->config);
	memset(site, 0, sizeof(*site));
}

char *lock_holder_text(const struct store_row *row, char *buf, size_t bytes)
{
	snprintf(buf, bytes, "pid %lld on %s%s%s%s", (long long)row->pid,
		row->hostname[0] ? row->hostname : "an unknown host",
		row->worker[0] ? " (worker " : "", row->worker, row->worker[0] ? ")" : "");
	return buf;
}

/* on_promote, on_demote, on_standby, on_holder: commands that block nothing. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/shell/state.h"

static const char *command_of(const struct supervisor *s, enum hook h)
{
	const struct config_scheduler *c = &s->config->scheduler;

	switch (h) {
	case HOOK_PROMOTE:
		return c->on_promote;
	case HOOK_DEMOTE:
		return c->on_demote;
	case HOOK_STANDBY:
		return c->on_standby;
	case HOOK_HOLDER:
		return c->on_holder;
	}
	return "";
}

void hooks_run(struct supervisor *s, const struct action *a)
{
	static const char *const names[] = {"on_promote", "on_demote", "on_standby", "on_holder"};
	const char *command = command_of(s, a->hook);
	char event[64], program[192], worker[256], term[64], instance[96], pid[48];
	const char *environment[] = {event, instance, program, worker, term, pid, NULL};
	struct hook_process *free_slot = NULL;
	struct err e;

	if (command[0] == '\0')
		return;
	for (int i = 0; i < HOOK_PROCESSES && free_slot == NULL; i++) {
		if (s->hooks[i].pid == 0)
			free_slot = &s->hooks[i];
	}
	if (free_slot == NULL) {
		logs_event(s->logs, LOGS_WARNING, "hook.skipped", NULL, 0,
			"%s was not run: %d such commands still run", names[a->hook],
			HOOK_PROCESSES);
		return;
	}
	snprintf(event, sizeof event, "BATON_EVENT=%s", names[a->hook] + 3);
	snprintf(instance, sizeof instance, "BATON_INSTANCE=%s", s->instance);
	snprintf(program, sizeof program, "BATON_PROGRAM=%s",
		a->program >= 0 ? s->core.programs[a->program].settings->name : "");
	snprintf(worker, sizeof worker, "BATON_WORKER=%s", report_worker_name(s, a->worker));
	snprintf(term, sizeof term, "BATON_TERM=%llu",
		(unsigned long long)(a->program >= 0 ? a->term : (uint64_t)s->core.election.epoch));
	snprintf(pid, sizeof pid, "BATON_PID=%d",
		a->worker >= 0 ? (int)main_pid(&s->processes[a->worker]) : 0);
	free_slot->pid = spawn_command(s, command, environment, &e);
	if (free_slot->pid < 0) {
		free_slot->pid = 0;
		logs_event(s->logs, LOGS_WARNING, "hook.failed", NULL, 0, "%s: %s", names[a->hook],
			e.text);
		return;
	}
	snprintf(free_slot->what, sizeof free_slot->what, "%s", names[a->hook]);
	free_slot->last = s->core.lifecycle.state >= LIFECYCLE_STOPPING;
}

/* What the stop itself has begun may come to its end; what hung before it would stay for ever. */
void hooks_end(struct supervisor *s)
{
	for (int i = 0; i < HOOK_PROCESSES; i++) {
		if (s->hooks[i].pid > 0 && !s->hooks[i].last)
			(void)kill(-s->hooks[i].pid, SIGKILL);
	}
}

bool hooks_reaped(struct supervisor *s, pid_t pid, int status)
{
	for (int i = 0; i < HOOK_PROCESSES; i++) {
		if (s->hooks[i].pid != pid || pid <= 0)
			continue;
		s->hooks[i].pid = 0;
		if (status != 0)
			logs_event(s->logs, LOGS_WARNING, "hook.failed", NULL, 0,
				"%s ended with status %d", s->hooks[i].what, status);
		return true;
	}
	return false;
}

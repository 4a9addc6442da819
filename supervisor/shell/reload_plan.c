/* What a reload does to a program, in the words of its plan. */
#include <stdio.h>
#include <string.h>

#include "supervisor/core/rollout_fsm.h"
#include "supervisor/shell/state.h"

/* How many at a time, and which goes first: what rollout_step.c will do. */
static void say_rolled(const struct config_program *p, int count, char *buf, size_t bytes)
{
	int extra, missing;
	size_t n;

	rollout_limits(p, count, &extra, &missing);
	if (extra + missing > 1 && count > 1)
		n = (size_t)snprintf(buf, bytes, "replaced %d workers at a time",
			extra + missing < count ? extra + missing : count);
	else
		n = (size_t)snprintf(buf, bytes, "replaced one worker at a time");
	if (n >= bytes)
		return;
	if (extra > 0 && missing > 0)
		snprintf(buf + n, bytes - n,
			", %d of them stopped first, the others when their replacement is ready",
			missing);
	else
		snprintf(buf + n, bytes - n, "%s",
			extra > 0 ? ", stopped when its replacement is ready" : ", stopped first");
}

static void say_roll(
	const struct supervisor *s, const struct config_program *p, char *buf, size_t bytes)
{
	int slot = core_find_program(&s->core, p->name);
	const struct program *running = slot >= 0 ? &s->core.programs[slot] : NULL;
	const char *signal;

	if (running != NULL && !running->started) {
		snprintf(buf, bytes, "taken as it is for its next start (it is stopped)");
		return;
	}
	if (p->replace == REPLACE_SIGNAL && running != NULL && !rollout_is_active(running) &&
		!rollout_wants_retry(running)) {
		signal = sigabbrev_np(p->replace_signal);
		snprintf(buf, bytes, "told by SIG%s, its workers stay",
			signal != NULL ? signal : "?");
		return;
	}
	say_rolled(p,
		running != NULL && running->settings->workers == p->workers ? running->count
									    : p->workers,
		buf, bytes);
}

void reload_plan_program(const struct supervisor *s, const struct config *next,
	const struct config_change *change, enum diff_class class, char *buf, size_t bytes)
{
	static const char *const words[] = {[DIFF_SAME] = "unchanged",
		[DIFF_LIVE] = "applied in place",
		[DIFF_COUNT] = "scaled in place",
		[DIFF_ADDED] = "added",
		[DIFF_REMOVED] = "stopped and taken out"};
	const char *text = change->text != NULL ? change->text : "";
	int position = config_find_program(next, change->program);
	int slot = core_find_program(&s->core, change->program);
	const struct program *running = slot >= 0 ? &s->core.programs[slot] : NULL;
	char how[256], present[64] = "";

	if (class == DIFF_ROLL && position >= 0)
		say_roll(s, &next->programs[position], how, sizeof how);
	else
		snprintf(how, sizeof how, "%s", words[class]);
	if (class == DIFF_ROLL && change->class != DIFF_ROLL && text[0] == '\0')
		text = position >= 0 && next->programs[position].roll_on_reload_always
			       ? "roll_on_reload = always"
			       : "tried again";
	if (running != NULL && position >= 0 && running->count != running->file_count &&
		next->programs[position].workers != running->file_count)
		snprintf(present, sizeof present, "; %d at present", running->count);
	snprintf(buf, bytes, "%s: %s%s%s%s%s", change->program, how, text[0] != '\0' ? " (" : "",
		text, present, text[0] != '\0' ? ")" : "");
}

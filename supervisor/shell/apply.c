/* The only place where actions become side effects. */
#include "supervisor/shell/probes.h"
#include "supervisor/shell/state.h"

static void exit_loop(struct supervisor *s, int status)
{
	s->exiting = true;
	hooks_end(s);
	s->exit_status = s->stage_status != 0 ? s->stage_status : status;
	loop_stop(s->loop);
}

static void apply_to_lock(struct supervisor *s, const struct action *a)
{
	switch (a->kind) {
	case ACTION_REQUEST:
		lock_request(s, a);
		break;
	case ACTION_GUARD_UNLOCK:
		lock_guard_unlock(s, a->number);
		break;
	case ACTION_GUARD_MARK:
		lock_guard_mark(s, a->number);
		break;
	case ACTION_WAIT_GUARD:
		lock_wait_guard(s, a->number);
		break;
	case ACTION_ARM:
		lock_arm(s, a);
		break;
	case ACTION_DISARM:
		lock_disarm(s, a->program);
		break;
	default:
		break;
	}
}

static void apply(struct supervisor *s, const struct action *a)
{
	switch (a->kind) {
	case ACTION_STAGE_UP:
		stages_up(s, a->stage);
		break;
	case ACTION_STAGE_DOWN:
		stages_down(s, a->stage);
		break;
	case ACTION_SPAWN:
		spawn_later(s, a);
		break;
	case ACTION_RELEASE_CHILD:
		spawn_release(s, a);
		break;
	case ACTION_SIGNAL:
		reap_signal(s, a);
		break;
	case ACTION_KILL_TREE:
		reap_kill_tree(s, a);
		break;
	case ACTION_COLLECT:
		reap_collect(s, a);
		break;
	case ACTION_REQUEST:
	case ACTION_GUARD_UNLOCK:
	case ACTION_GUARD_MARK:
	case ACTION_WAIT_GUARD:
	case ACTION_ARM:
	case ACTION_DISARM:
		apply_to_lock(s, a);
		break;
	case ACTION_PAGE_SHOW:
		channel_show(s, a);
		break;
	case ACTION_PAGE_EXTEND:
		channel_extend(s, a);
		break;
	case ACTION_PAGE_CLEAR:
		channel_clear(s, a);
		break;
	case ACTION_TELL_PROMOTE:
	case ACTION_TELL_DEMOTE:
		channel_tell(s, a);
		break;
	case ACTION_PROBE_START:
		probes_start(s, a);
		break;
	case ACTION_PROBE_STOP:
		probes_stop(s, a->worker);
		break;
	case ACTION_HOOK:
		hooks_run(s, a);
		break;
	case ACTION_REPORT:
		report_action(s, a);
		break;
	case ACTION_EXIT:
		exit_loop(s, (int)a->number);
		break;
	case ACTION_KINDS:
		break;
	}
}

void apply_plan(struct supervisor *s, const struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++)
		apply(s, &plan->items[i]);
}

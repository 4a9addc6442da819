/*
 * Which fields of the live state go over an upgrade in place, struct by struct.
 *
 * You have added a field to one of these structs? Give it a row in its list:
 *   V(name)                 a number, a bool, an enum (append to such an enum only), a const char *
 *                           to static text
 *   NAMED(name, text, n)    an enum with names (may be reordered)
 *   TEXT, BYTES, STRING     char[N] with its NUL, any bytes, malloced text
 *   FD(name)                a descriptor that the next image needs
 *   SUB(name, list)         a struct (or an array of them) with a list of its own
 *   SKIP(name)              what the next image makes anew: say here who does
 */
#include "supervisor/shell/commands.h"
#include "supervisor/shell/control_internal.h"
#include "supervisor/shell/log_internal.h"
#include "supervisor/shell/state.h"
#include "supervisor/shell/state_fields.h"

#define TYPE_OF(member)                                                                            \
	_Generic(((T *)0)->member,                                                                 \
		bool: STATE_BOOL,                                                                  \
		signed char: STATE_SIGNED,                                                         \
		short: STATE_SIGNED,                                                               \
		int: STATE_SIGNED,                                                                 \
		long: STATE_SIGNED,                                                                \
		long long: STATE_SIGNED,                                                           \
		unsigned char: STATE_UNSIGNED,                                                     \
		unsigned short: STATE_UNSIGNED,                                                    \
		unsigned: STATE_UNSIGNED,                                                          \
		unsigned long: STATE_UNSIGNED,                                                     \
		unsigned long long: STATE_UNSIGNED,                                                \
		const char *: STATE_REASON,                                                        \
		default: STATE_NONE)
#define SIZE_OF(member) sizeof(((T *)0)->member)
#define ROW(member, type_, ...)                                                                    \
	{                                                                                          \
		.name = #member, .type = type_, .offset = offsetof(T, member),                     \
		.size = SIZE_OF(member), .count = 1, __VA_ARGS__                                   \
	}
#define V(member)     ROW(member, TYPE_OF(member), )
#define SKIP(member)  ROW(member, STATE_SKIP, )
#define TEXT(member)  ROW(member, STATE_TEXT, )
#define BYTES(member) ROW(member, STATE_BYTES, )
#define STRING(member)                                                                             \
	ROW(member, _Generic(((T *)0)->member, char * : STATE_STRING, default : STATE_NONE), )
#define FD(member) ROW(member, STATE_FD, )
#define NAMED(member, text_, n)                                                                    \
	ROW(member, STATE_NAMED, .text = (const char *(*)(unsigned))text_, .names = n)
#define SUB(member, list) ROW(member, STATE_STRUCT, .of = &state_##list)
/* Arrays, of values and of structs. */
#define ARRAY(member, element, type_, ...)                                                         \
	{                                                                                          \
		.name = #member, .type = type_, .offset = offsetof(T, member),                     \
		.size = sizeof(element), .count = SIZE_OF(member) / sizeof(element), __VA_ARGS__   \
	}
#define LIST(list, rows)                                                                           \
	const struct state_struct state_##list = {.name = NAME,                                    \
		.size = sizeof(T),                                                                 \
		.fields = rows,                                                                    \
		.count = sizeof(rows) / sizeof(rows)[0]};

/* clang-format off */

/* --- core ---------------------------------------------------------------------------------- */
#define T struct worker_end
#define NAME "struct worker_end"
static const struct state_field worker_end[] = {
	V(late), V(spawn_failed), V(failures),
};
LIST(worker_end, worker_end)
#undef T
#undef NAME

#define T struct worker
#define NAME "struct worker"
static const struct state_field worker[] = {
	V(used), V(program), V(index), V(id), V(generation),
	SKIP(settings), /* by snapshot and position: state_save.c */
	NAMED(state, worker_state_name, WORKER_STATE_COUNT), V(since_ns), V(reason),
	V(deadline_ns), V(after), V(remove), V(parked), V(outgoing), V(canary), V(stale), V(due_ns),
	V(age_share), V(memory_bytes), V(leave_by_ns), V(stop_at_ns),
	V(alive), V(tree), V(held), V(execed), V(ready), V(draining), V(term_sent), V(kill_sent),
	V(waits_promotion), V(settled_once), V(pid), V(exit_code), V(exit_signal), V(exit_oom),
	V(spawn_failed), V(spawn_transient), V(late), SUB(ended, worker_end), V(failures), V(repeats), V(restarts), V(started_ns), V(ready_ns),
	V(watchdog_ns), V(kill_ns), V(executor_env), V(term),
	V(probe_at_ns), V(probing), V(probe_failures), V(unhealthy), V(well),
};
LIST(worker, worker)
#undef T
#undef NAME

#define T struct executor
#define NAME "struct executor"
static const struct state_field executor[] = {
	V(exists), NAMED(state, executor_state_name, EXECUTOR_STATE_COUNT), V(since_ns), V(reason),
	V(given_up), V(deadline_ns), V(worker), V(term), V(phase), V(committing), V(armed),
	V(arm_by_ns), V(shown), V(answered), V(unanswered_told), V(demoted), V(drained),
	V(stop_after), V(busy), V(promoted_ns), V(not_before_ns), V(short_lived), V(next), V(last), V(answers),
};
LIST(executor, executor)
#undef T
#undef NAME

#define T struct rollout
#define NAME "struct rollout"
static const struct state_field rollout[] = {
	NAMED(state, rollout_state_name, ROLLOUT_STATE_COUNT), V(since_ns), V(reason), V(outcome),
	V(half), V(behind), V(replaced), V(complete_ns), V(unfit), V(unfit_worker), V(executor_deaths), V(newest), V(ended_ns), V(recycle_after_ns),
	V(recycle_failures), V(memory_ns),
	SKIP(config), SKIP(settings), /* by snapshot and position: state_save.c */
	V(position), V(generation), V(count),
};
LIST(rollout, rollout)
#undef T
#undef NAME

#define T struct program
#define NAME "struct program"
static const struct state_field program[] = {
	V(used),
	SKIP(config), SKIP(settings), /* by snapshot and position: state_save.c */
	V(position), V(generation), V(wanted), V(count), V(file_count), V(started), V(held_back), V(leaving),
	SUB(rollout, rollout), V(dirty), SUB(executor, executor),
};
LIST(program, program)
#undef T
#undef NAME

#define T struct lock_view
#define NAME "struct lock_view"
static const struct state_field lock_view[] = {
	V(valid), TEXT(db_uuid), TEXT(holder), V(term), V(epoch), V(beat), V(ttl_ns), V(held),
	V(mine), V(floor_conflict), V(floor_term), V(same_boot), V(same_machine), V(pid1),
	V(wall_us), V(file), V(cleared),
};
LIST(lock_view, lock_view)
#undef T
#undef NAME

#define T struct core_request
#define NAME "struct core_request"
static const struct state_field request[] = {
	V(id), V(op), V(epoch), V(term), V(new_term), V(ttl_ns), V(program), V(worker),
	SUB(expect, lock_view), V(reason),
};
LIST(request, request)
#undef T
#undef NAME

#define T struct election
#define NAME "struct election"
static const struct state_field election[] = {
	NAMED(state, election_state_name, ELECTION_STATE_COUNT), V(since_ns), V(reason),
	SUB(view, lock_view), V(decided), V(unavailable), V(unavailable_since_ns), V(floor_told),
	V(held_since_ns), V(wrong), V(conflict_told), V(held_told), TEXT(told_holder),
	V(told_epoch), V(watch_since_ns), V(watching), V(seen_ttl_ns), V(first_look), V(inspect_ns),
	V(stay_out_ns), V(waiting_epoch), V(free_since_ns), V(free_epoch), V(cleared),
	V(inspect_wanted), V(changed_ns), V(epoch), V(term), TEXT(db_uuid), V(t0_ns), V(ttl_ns),
	V(soft_ns), V(hard_ns), V(renew_ns), V(failing), V(lease_lost_told), V(candidateless_ns),
	V(stop_after_release), V(release_tries), V(release_since_ns), SUB(request, request),
	V(sent_ns), V(answer_by_ns),
};
LIST(election, election)
#undef T
#undef NAME

#define T struct lifecycle
#define NAME "struct lifecycle"
static const struct state_field lifecycle[] = {
	NAMED(state, lifecycle_state_name, LIFECYCLE_STATE_COUNT), V(since_ns), V(reason),
	V(deadline_ns), V(up), V(asked), V(mode), V(exit_status), V(boot_ns), V(stop_level),
	V(gate_ns),
};
LIST(lifecycle, lifecycle)
#undef T
#undef NAME

#define T struct core
#define NAME "struct core"
static const struct state_field core[] = {
	SKIP(workers), SKIP(programs), /* each slot in use: state_save.c */
	V(worker_slots), V(program_slots),
	SKIP(config), /* the supervisor's */
	SUB(election, election), SUB(lifecycle, lifecycle), V(next_spawn_id), V(next_request_id),
	V(random), V(impossible), V(now_ns),
	SKIP(plan), /* NULL between two events */
};
LIST(core, core)
#undef T
#undef NAME

/* --- workers ------------------------------------------------------------------------------- */
#define T struct channel_buffer
#define NAME "struct channel_buffer"
static const struct state_field channel_buffer[] = {BYTES(bytes), V(used), V(skipping)};
LIST(channel_buffer, channel_buffer)
#undef T
#undef NAME

#define T struct lease
#define NAME "struct lease"
static const struct state_field lease[] = {
	FD(fd_rw), FD(fd_ro),
	SKIP(page), /* mapped again from fd_rw */
};
LIST(lease, lease)
#undef T
#undef NAME

#define T struct process
#define NAME "struct process"
static const struct state_field process[] = {
	SKIP(supervisor), V(slot), V(id), V(mark), V(pid),
	SKIP(pid_next), SKIP(main_next), /* supervisor_set_pid, main_resume */
	V(leader_alive), V(main_pid), FD(main_fd),
	SKIP(main_watch), SKIP(main_linked), /* main_resume */
	V(main_ticks), V(leader_ticks), V(leader_reaped), V(main_told), V(notify_told), V(left_pid),
	FD(report_fd), FD(hold_fd), FD(channel_fd),
	SKIP(table_slot), /* ends with the exec; its child still says its byte: spawn_table.h */
	SKIP(report_watch), SKIP(channel_watch), /* spawn_resume, channel_resume */
	SUB(channel_in, channel_buffer), SUB(lease, lease),
	SKIP(streams), /* by their places among the streams of the logs: state_save.c */
	V(collecting), V(collect_tree), V(collect_signal), V(signalled), STRING(failure),
	V(probe_port), V(probe_v6), FD(ready_fd), STRING(probe_text),
	SKIP(ready_watch), /* probes_resume */
	SKIP(probe), SKIP(probe_target), /* probes_end came before; the core asks again */
	STRING(status), STRING(name), V(memory_bytes),
};
LIST(process, process)
#undef T
#undef NAME

/* --- lock ---------------------------------------------------------------------------------- */
#define T struct helper
#define NAME "struct helper"
static const struct state_field helper[] = {
	V(pid), FD(fd),
	SKIP(watch), /* lock_resume */
	V(started_ns), V(quick_deaths),
};
LIST(helper, helper)
#undef T
#undef NAME

#define T struct hook_process
#define NAME "struct hook_process"
static const struct state_field hook[] = {V(pid), V(last), TEXT(what)};
LIST(hook, hook)
#undef T
#undef NAME

#define T struct store_settings
#define NAME "struct store_settings"
static const struct state_field store_settings[] = {
	TEXT(database), TEXT(lock_name), V(unsafe_filesystem), V(create), V(history_keep_us),
	V(busy_limit_ms), TEXT(instance), TEXT(boot_id), TEXT(machine_id), TEXT(hostname), V(pid),
	V(guard_ino), V(pid1),
};
LIST(store_settings, store_settings)
#undef T
#undef NAME

#define T struct store_row
#define NAME "struct store_row"
static const struct state_field store_row[] = {
	V(term), V(epoch), V(held), TEXT(holder), V(beat), V(ttl_ms), TEXT(boot_id),
	TEXT(machine_id), V(guard_ino), V(pid1), V(pid), TEXT(hostname), TEXT(worker),
	V(created_at_us), V(heartbeat_at_us),
};
LIST(store_row, store_row)
#undef T
#undef NAME

#define T struct store_executor
#define NAME "struct store_executor"
static const struct state_field store_executor[] = {
	TEXT(program), TEXT(worker), V(term), V(pid), V(since_us),
};
LIST(store_executor, store_executor)
#undef T
#undef NAME

#define T struct store_view
#define NAME "struct store_view"
static const struct state_field store_view[] = {
	V(exists), TEXT(db_uuid), V(schema_version), SUB(row, store_row), V(executor_count),
	ARRAY(executors, struct store_executor, STATE_STRUCT, .of = &state_store_executor),
	V(floor), V(floor_term), V(floor_failed), V(overlay), V(device), V(inode),
};
LIST(store_view, store_view)
#undef T
#undef NAME

#define T struct lock_state
#define NAME "struct lock_state"
static const struct state_field lock[] = {
	SUB(keeper, helper), SUB(deadman, helper), V(deadman_at_ns), SUB(waiter, helper),
	SKIP(former), SKIP(deadman_heard), SKIP(keeper_former), /* none: upgrade.c waits for that */
	SKIP(keeper_cut), /* lock_resume */
	V(keeper_told),
	FD(guard_fd), V(guard_inode), V(guard_epoch), FD(table_fd),
	SKIP(table), /* mapped again from table_fd */
	ARRAY(armed_program, int, STATE_SIGNED),
	SKIP(arm_sent_ns), /* the next deadman is armed anew: guardian_resume */
	SUB(settings, store_settings), SUB(view, store_view), V(view_valid),
	SKIP(answer), SKIP(answer_text), /* of one event */
	TEXT(error), V(sent_id), V(sent_op), FD(inotify_fd),
	SKIP(inotify_watch), /* lock_resume */
	V(acquired_wall_us), V(overlay_told), V(compared_epoch),
};
LIST(lock, lock)
#undef T
#undef NAME

/* --- supervisor ---------------------------------------------------------------------------- */
#define T struct oom_counter
#define NAME "struct oom_counter"
static const struct state_field oom[] = {TEXT(path), V(count)};
LIST(oom, oom)
#undef T
#undef NAME

#define T struct listener
#define NAME "struct listener"
static const struct state_field listener[] = {
	FD(fd), TEXT(text), TEXT(url), TEXT(path), TEXT(spare), V(device), V(inode), V(backlog),
	V(addresses), V(v6only),
};
LIST(listener, listener)
#undef T
#undef NAME

#define T struct listener_slot
#define NAME "struct listener_slot"
static const struct state_field listener_slot[] = {
	TEXT(name), TEXT(key), SUB(listener, listener), V(announced), V(inherited), V(lost), V(retry_ns),
	V(reopened_ns),
	SKIP(watch), /* listeners_watch, to be called once */
	SKIP(wanted), /* listeners_sweep */
};
LIST(listener_slot, listener_slot)
#undef T
#undef NAME

#define T struct parent
#define NAME "struct parent"
static const struct state_field parent[] = {
	V(told), V(ready), V(reloading), V(stopping), TEXT(status), V(watchdog_ns),
	V(watchdog_at_ns), V(retry_at_ns), V(retries),
};
LIST(parent, parent)
#undef T
#undef NAME

#define T struct supervisor
#define NAME "struct supervisor"
static const struct state_field supervisor[] = {
	SKIP(loop), SKIP(logs), SUB(core, core),
	SKIP(config), SKIP(booted), SKIP(retired), SKIP(retired_count), /* read again: state_load.c */
	SKIP(plan),
	SKIP(queue), SKIP(queue_head), SKIP(queue_count), SKIP(queue_capacity), /* empty then */
	SKIP(processes), /* each slot in use: state_save.c */
	SKIP(spawns), SKIP(spawn_head), SKIP(spawn_count), SKIP(spawn_capacity),
	SKIP(spawn_after_ns), /* none waits then: upgrade.c */
	SKIP(process_slots), SKIP(pid_heads), /* state_load.c */
	SKIP(listeners), SKIP(listener_count), /* state_save.c */
	SKIP(probes), SKIP(probes_spare), /* probes_end came before */
	SKIP(socket_inotify_fd), SKIP(socket_inotify_watch), /* listeners_watch, to be called once */
	SUB(lock, lock),
	SKIP(control), SKIP(notify), SKIP(commands), /* control_state.c, notify.c, waiters_state.c */
	SKIP(rollout_whys), SKIP(rollout_why_count), /* with the programs */
	SKIP(memory), /* memory_check */
	SKIP(claims), /* upgrade.c waits until there is none */
	V(root_given_up), SKIP(lookups), /* upgrade.c waits until there is none */
	SUB(parent, parent), V(detached), FD(detach_fd),
	ARRAY(hooks, struct hook_process, STATE_STRUCT, .of = &state_hook), SUB(oom, oom),
	TEXT(instance), TEXT(hostname), TEXT(config_path), TEXT(control_path),
	SKIP(binary), SKIP(argv), SKIP(upgrade), /* upgrade_resume.c */
	SKIP(config_text), /* with the snapshots */
	V(force), V(control_overridden), FD(null_fd), V(nofile.rlim_cur), V(nofile.rlim_max),
	FD(pidfile_fd), TEXT(pidfile),
	SKIP(timer_at_ns), /* set_timer */
	V(mended_ns), V(started_wall_us), V(interrupts), V(generation), V(collecting),
	SKIP(reap_round), SKIP(counted_round), SKIP(orphans), /* of one round */
	SKIP(strays_told), SKIP(strays_told_next), /* told once more */
	SKIP(changed), SKIP(exiting), SKIP(exit_status), V(stage_status),
};
LIST(supervisor, supervisor)
#undef T
#undef NAME

/* --- control ------------------------------------------------------------------------------- */
#define T struct control_peer
#define NAME "struct control_peer"
static const struct state_field peer[] = {V(pid), V(uid), V(gid), V(trusted)};
LIST(peer, peer)
#undef T
#undef NAME

#define T struct control_connection
#define NAME "struct control_connection"
static const struct state_field connection[] = {
	SKIP(server), SKIP(next), SKIP(previous), FD(fd), SKIP(watch), SUB(peer, peer),
	V(subscribed), V(ended), V(closing),
	SKIP(dead), /* such a one is not saved */
	V(unanswered),
	SKIP(input), SKIP(input_bytes), SKIP(input_capacity), /* control_state.c */
	SKIP(queue), SKIP(queue_start), SKIP(queue_bytes), SKIP(queue_capacity), SKIP(place),
};
LIST(connection, connection)
#undef T
#undef NAME

#define T struct control
#define NAME "struct control"
static const struct state_field control[] = {
	SKIP(loop), TEXT(path), TEXT(instance), V(mode), V(owner_uid), V(owner_gid), V(owner_set),
	V(group_set), FD(fd), FD(spare_fd), V(device), V(inode), SKIP(watch), V(paused), V(retry_ns),
	SKIP(handlers), SKIP(connections), SKIP(count), SKIP(subscribers), /* control_state.c */
};
LIST(control, control)
#undef T
#undef NAME

#define T struct waiter_worker
#define NAME "struct waiter_worker"
static const struct state_field waiter_worker[] = {V(program), V(index), V(slot), V(id),
	V(told_generation)};
LIST(waiter_worker, waiter_worker)
#undef T
#undef NAME

#define T struct waiter_program
#define NAME "struct waiter_program"
static const struct state_field waiter_program[] = {V(program), TEXT(name), V(begun), V(touched),
	V(newest), V(generation), V(superseded), V(count), V(leaving), V(end), TEXT(why)};
LIST(waiter_program, waiter_program)
#undef T
#undef NAME

#define T struct waiter
#define NAME "struct waiter"
static const struct state_field waiter[] = {
	SKIP(next), SKIP(from), /* by the connection's place: waiters_state.c */
	V(id), V(kind), SKIP(workers), SKIP(worker_count), /* waiters_state.c */
	SKIP(programs), SKIP(program_count), /* waiters_state.c */
	V(ticket), V(generation),
	V(program), V(wanted_worker), V(count), TEXT(program_name), V(term), TEXT(old_worker),
	V(condition), TEXT(text), V(number), TEXT(condition_text), V(began_ns), V(deadline_ns),
	SKIP(result), /* waiters_state.c */
};
LIST(waiter, waiter)
#undef T
#undef NAME

/* --- logs ---------------------------------------------------------------------------------- */
#define T struct logs_sink
#define NAME "struct logs_sink"
static const struct state_field sink[] = {
	SKIP(logs), SKIP(next), SKIP(previous),
	SKIP(references), SKIP(streams), SKIP(own), /* counted again: log_state.c */
	FD(fd), STRING(path), V(given), FD(next_fd), V(next_way), V(next_bytes), V(device), V(inode),
	V(way), V(terminal), V(colour), V(gone), V(stuck), V(retry_ns), V(mid_line),
	SKIP(writer), /* by its place: log_state.c */
	SKIP(queue), SKIP(start), SKIP(used), SKIP(capacity), /* log_state.c */
	SKIP(watch), SKIP(waiting), SKIP(waiting_last), SKIP(place),
};
LIST(sink, sink)
#undef T
#undef NAME

#define T struct logs_stream
#define NAME "struct logs_stream"
static const struct state_field stream[] = {
	SKIP(logs), SKIP(next), SKIP(previous), FD(fd), SKIP(watch),
	SKIP(sink), /* by its place: log_state.c */
	STRING(prefix), V(prefix_bytes),
	SKIP(partial), SKIP(partial_bytes), SKIP(partial_capacity), /* log_state.c */
	V(ended), V(detached),
	SKIP(expect), /* probes_resume */ V(expect_at),
	SKIP(waits), SKIP(waits_next), SKIP(waits_previous), /* its next read finds out */
	SKIP(on_end), SKIP(context), SKIP(place), /* state_load.c */
};
LIST(stream, stream)
#undef T
#undef NAME

#define T struct logs
#define NAME "struct logs"
static const struct state_field logs[] = {
	SKIP(loop), SKIP(sinks), SKIP(streams), SKIP(stuck), SKIP(own), /* log_state.c */
	V(format), V(level), V(dropped), V(colour_allowed),
	SKIP(tap), SKIP(tap_context), /* waiters_state.c: when somebody has subscribed */
	SKIP(input), SKIP(output), SKIP(loaded), SKIP(loaded_count),
};
LIST(logs, logs)
#undef T
#undef NAME

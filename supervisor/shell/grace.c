/* What stands above us kills what does not stop in time: said at the start is how long that may be.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "supervisor/shell/state.h"

/* Killing what is left, freeing the lock, closing: beyond shutdown_timeout. */
#define MARGIN_NS (5 * CORE_SECOND)

enum above { ABOVE_NOTHING, ABOVE_SYSTEMD, ABOVE_CONTAINER };

static enum above what_is_above(void)
{
	if (getpid() != 1 && (getenv("INVOCATION_ID") != NULL || getenv("NOTIFY_SOCKET") != NULL))
		return ABOVE_SYSTEMD;
	if (getpid() == 1 || access("/.dockerenv", F_OK) == 0 ||
		access("/run/.containerenv", F_OK) == 0 ||
		getenv("KUBERNETES_SERVICE_HOST") != NULL)
		return ABOVE_CONTAINER;
	return ABOVE_NOTHING;
}

void grace_report(struct supervisor *s)
{
	enum above above = what_is_above();
	int64_t wanted_ns = config_stop_ns(s->config), most_ns = s->config->shutdown_timeout_ns;
	int64_t executors_ns = config_stop_executors_ns(s->config);
	int64_t grace_ns = (wanted_ns < most_ns ? wanted_ns : most_ns) + MARGIN_NS;
	long long seconds = (grace_ns + CORE_SECOND - 1) / CORE_SECOND;
	struct logs_field f = {.key = "seconds", .number = seconds};
	char cut[160] = "", lock[160] = "";

	if (above == ABOVE_NOTHING)
		return;
	if (wanted_ns > most_ns)
		snprintf(cut, sizeof cut,
			" (by their own stop times the programs could take %lld s; "
			"shutdown_timeout "
			"ends that after %lld s)",
			(long long)(wanted_ns / CORE_SECOND), (long long)(most_ns / CORE_SECOND));
	if (s->config->scheduler.enabled && executors_ns > 0)
		snprintf(lock, sizeof lock,
			"; the lock is free as soon as the executor has said `demoted` or has "
			"ended, which may take %lld s",
			(long long)((executors_ns < most_ns ? executors_ns : most_ns) +
				    CORE_SECOND - 1) /
				CORE_SECOND);
	if (above == ABOVE_SYSTEMD)
		logs_event(s->logs, LOGS_INFO, "supervisor.grace", &f, 1,
			"stopping may take up to %lld s%s: give the unit TimeoutStopSec=%lld or "
			"more%s",
			seconds, cut, seconds, lock);
	else
		logs_event(s->logs, LOGS_INFO, "supervisor.grace", &f, 1,
			"stopping may take up to %lld s%s: give the container that long (docker "
			"run "
			"--stop-timeout %lld, stop_grace_period: %llds, "
			"terminationGracePeriodSeconds: %lld)%s",
			seconds, cut, seconds, seconds, seconds, lock);
}

/*
 * A worker whose times are known: `known_worker BOOT_MS DRAIN_MS` is ready (READY=1) after BOOT_MS
 * and ends DRAIN_MS after SIGTERM.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "worker/baton.h"

static volatile sig_atomic_t stopping;

static void on_term(int sig)
{
	(void)sig;
	stopping = 1;
}

static void rest(int ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_term};
	sigset_t term, before;

	if (argc != 3)
		return 2;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &before);
	sigaction(SIGTERM, &action, NULL);
	rest(atoi(argv[1]));
	if (baton_notify("READY=1") < 0)
		return 3;
	while (!stopping)
		sigsuspend(&before);
	rest(atoi(argv[2]));
	return 0;
}

/*
 * Preloaded by test_jobs_clock.py: the wall clock of a process and of its children is set by so
 * many microseconds as the file STEPPED_CLOCK says, and its timers on that clock notice it as if
 * the machine's clock had been set (TFD_TIMER_CANCEL_ON_SET): they fire, within 20 ms.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_MS = 20, TIMERS = 8 };

static const volatile int64_t *step_us;
static int64_t seen_us;
static int timers[TIMERS], timer_count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static __attribute__((constructor)) void begin(void)
{
	static const int64_t none;
	const char *path = getenv("STEPPED_CLOCK");
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = fd >= 0 ? mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0)
			    : MAP_FAILED;

	step_us = map != MAP_FAILED ? map : &none;
	seen_us = *step_us;
	if (fd >= 0)
		close(fd);
}

static struct timespec moved(struct timespec t, int64_t us)
{
	int64_t ns = t.tv_sec * INT64_C(1000000000) + t.tv_nsec + us * 1000;

	ns = ns > 0 ? ns : 1;
	return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	int code = REAL(clock_gettime)(clock, t);

	if (code == 0 && clock == CLOCK_REALTIME)
		*t = moved(*t, *step_us);
	return code;
}

int timerfd_create(int clock, int flags)
{
	int fd = REAL(timerfd_create)(clock, flags);

	if (fd >= 0 && clock == CLOCK_REALTIME && timer_count < TIMERS)
		timers[timer_count++] = fd;
	return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
	struct itimerspec t = *new;

	for (int i = 0; i < timer_count; i++) {
		if (timers[i] == fd && (flags & TFD_TIMER_ABSTIME) != 0 &&
			(t.it_value.tv_sec != 0 || t.it_value.tv_nsec != 0))
			t.it_value = moved(t.it_value, -*step_us);
	}
	return REAL(timerfd_settime)(fd, flags, &t, old);
}

static void notice(void)
{
	const struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};

	if (seen_us == *step_us)
		return;
	seen_us = *step_us;
	for (int i = 0; i < timer_count; i++)
		(void)REAL(timerfd_settime)(timers[i], TFD_TIMER_ABSTIME, &at_once, NULL);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout_ms)
{
	int count = 0;

	while (count == 0) {
		int slice = timeout_ms >= 0 && timeout_ms < SLICE_MS ? timeout_ms : SLICE_MS;

		notice();
		count = REAL(epoll_wait)(fd, events, most, timer_count > 0 ? slice : timeout_ms);
		if (timer_count == 0 || timeout_ms == slice)
			break;
		timeout_ms -= timeout_ms > 0 ? slice : 0;
	}
	return count;
}

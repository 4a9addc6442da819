/*
 * A candidate worker for measurements: for each `promote` line on its channel it appends
 * "TERM NANOSECONDS PID" (CLOCK_MONOTONIC) to the file named by its first argument.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void answer(int channel, int file, const char *line)
{
	unsigned long long term;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (sscanf(line, "promote %llu", &term) == 1) {
		dprintf(file, "%llu %lld %d\n", term,
			(long long)now.tv_sec * 1000000000 + now.tv_nsec, (int)getpid());
		dprintf(channel, "promoted %llu\n", term);
	} else if (sscanf(line, "demote %llu", &term) == 1) {
		dprintf(channel, "busy 0\ndemoted %llu\n", term);
	}
}

int main(int argc, char **argv)
{
	const char *number = getenv("BATON_CHANNEL_FD");
	char line[1024];
	size_t used = 0;
	int file, channel = number != NULL ? atoi(number) : -1;

	file = argc > 1 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
	if (file < 0 || channel < 0)
		return 2;
	for (;;) {
		ssize_t n = read(channel, line + used, sizeof line - 1 - used);
		char *end;

		if (n <= 0)
			break;
		used += (size_t)n;
		line[used] = '\0';
		while ((end = strchr(line, '\n')) != NULL) {
			*end = '\0';
			answer(channel, file, line);
			used -= (size_t)(end + 1 - line);
			memmove(line, end + 1, used + 1);
		}
	}
	for (;;)
		pause();
}

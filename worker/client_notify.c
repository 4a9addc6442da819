/* libbaton: systemd's sd_notify(3), as far as baton listens to it. libc alone, as client.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "worker/baton.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int notify_address(const char *path, struct sockaddr_un *ret_address, socklen_t *ret_length)
{
	size_t length = strlen(path);

	if ((path[0] != '/' && path[0] != '@') || length < 2 ||
		length >= sizeof(ret_address->sun_path))
		return -EINVAL;
	memset(ret_address, 0, sizeof(*ret_address));
	ret_address->sun_family = AF_UNIX;
	memcpy(ret_address->sun_path, path, length);
	/* An abstract name is all of the length, a path ends at its NUL. */
	*ret_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	if (path[0] == '@')
		ret_address->sun_path[0] = '\0';
	else
		*ret_length += 1;
	return 0;
}

int baton_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address;
	socklen_t length;
	ssize_t sent;
	int fd, rc;

	if (path == NULL || *path == '\0')
		return 0;
	if (state == NULL || *state == '\0')
		return -EINVAL;
	rc = notify_address(path, &address, &length);
	if (rc != 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	do {
		sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL,
			(const struct sockaddr *)&address, length);
	} while (sent < 0 && errno == EINTR);
	rc = sent < 0 ? -errno : 1;
	close(fd);
	return rc;
}

int baton_ready(void)
{
	return baton_notify("READY=1");
}

int baton_stopping(void)
{
	return baton_notify("STOPPING=1");
}

int baton_watchdog(void)
{
	return baton_notify("WATCHDOG=1");
}

int baton_status(const char *text)
{
	char state[1024];

	if (text == NULL || strchr(text, '\n') != NULL)
		return -EINVAL;
	snprintf(state, sizeof(state), "STATUS=%.1000s", text);
	return baton_notify(state);
}

int64_t baton_watchdog_ns(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	unsigned long long number;
	char *end;

	if (usec == NULL || *usec < '0' || *usec > '9')
		return 0;
	errno = 0;
	number = strtoull(usec, &end, 10);
	if (errno != 0 || *end != '\0' || number > INT64_MAX / 1000)
		return 0;
	if (pid != NULL && strtol(pid, NULL, 10) != (long)getpid())
		return 0;
	return (int64_t)number * 1000;
}

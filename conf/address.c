#include "conf/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* The usual spellings of one address; names are not looked up. */
static void canonical_host(const struct config_socket *s, char *buf, size_t bytes)
{
	const char *host = s->host;
	unsigned char address[sizeof(struct in6_addr)];

	if (strcasecmp(host, "localhost") == 0)
		host = s->family == AF_INET6 ? "::1" : "127.0.0.1";
	if (host[0] == '\0')
		host = s->family == AF_INET6 ? "::" : "0.0.0.0";
	if (inet_pton(s->family, host, address) != 1 ||
		inet_ntop(s->family, address, buf, (socklen_t)bytes) == NULL)
		snprintf(buf, bytes, "%s", host);
}

void address_key(const struct config_socket *s, char *buf, size_t bytes)
{
	char host[ADDRESS_KEY_BYTES / 2];

	if (s->family == AF_UNIX) {
		snprintf(buf, bytes, "unix:%s", s->path);
		return;
	}
	canonical_host(s, host, sizeof(host));
	snprintf(buf, bytes, s->family == AF_INET6 ? "%s%s[%s]:%d" : "%s%s%s:%d",
		s->port == 0 ? s->name : "", s->port == 0 ? "=" : "", host, s->port);
}

static bool is_any(const struct config_socket *s)
{
	char host[ADDRESS_KEY_BYTES / 2];

	canonical_host(s, host, sizeof(host));
	return strcmp(host, s->family == AF_INET6 ? "::" : "0.0.0.0") == 0;
}

const struct config_socket *address_covers(
	const struct config_socket *a, const struct config_socket *b)
{
	if (a->family == AF_UNIX || b->family == AF_UNIX || a->port == 0 || a->port != b->port)
		return NULL;
	if (a->family == b->family)
		return is_any(a) ? a : is_any(b) ? b : NULL;
	if (a->family != AF_INET6)
		a = b;
	return is_any(a) && !a->v6only ? a : NULL; /* IPv4 comes to it as well */
}

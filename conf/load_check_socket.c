/* What concerns several sockets together, or the programs that share one. */
#include <string.h>
#include <sys/socket.h>

#include "conf/address.h"
#include "conf/load.h"

static void say(struct loader *l, const struct config_socket *s, const char *text)
{
	errlist_addf(l->findings, false, s->place.file, s->place.line, "[socket:%.100s] listen: %s",
		s->name, text);
}

static const char *why_not_both(struct loader *l, const struct config_socket *all,
	const struct config_socket *one, const struct config_socket *a)
{
	const char *what = all->family == AF_INET6 ? "IPv6" : "IPv4", *way_out;

	if (all->family != one->family) {
		what = "IPv4";
		way_out = arena_printf(l->arena,
			"write 'v6only = yes' in [socket:%.100s], or leave [socket:%.100s] out",
			all->name, one->name);
	} else {
		way_out = arena_printf(
			l->arena, "leave [socket:%.100s] out, or choose another port", one->name);
	}
	return arena_printf(l->arena,
		"cannot be open beside [socket:%.100s] at %s:%d: [socket:%.100s] ('%.100s') has "
		"every %s address of that port; %s",
		a->name, a->place.file, a->place.line, all->name, all->listen, what, way_out);
}

static void check_pair(
	struct loader *l, const struct config_socket *a, const struct config_socket *b)
{
	char key_a[ADDRESS_KEY_BYTES], key_b[ADDRESS_KEY_BYTES];
	const struct config_socket *all = address_covers(a, b);

	address_key(a, key_a, sizeof(key_a));
	address_key(b, key_b, sizeof(key_b));
	if (strcmp(key_a, key_b) == 0)
		say(l, b,
			arena_printf(l->arena,
				"the same address as [socket:%.100s] at %s:%d; leave one out",
				a->name, a->place.file, a->place.line));
	else if (all)
		say(l, b, why_not_both(l, all, all == a ? b : a, a));
}

/* O_NONBLOCK belongs to the listener: all that share it have what one of them asks for. */
static void check_sharing(
	struct loader *l, struct config_program *p, const struct config_program *q)
{
	struct setting s = setting_key(
		l->data, SECTION_PROGRAM, p->raw->ini, p->raw->preset, "sockets");

	for (size_t i = 0; i < p->socket_count * q->socket_count; i++) {
		int a = p->sockets[i / q->socket_count], b = q->sockets[i % q->socket_count];

		if (a == b && p->blocking_sockets && !q->blocking_sockets)
			load_report(l, true, p->raw->ini, &s,
				"'%.100s' is made to block for this server, and so for "
				"[program:%.100s] too, which shares it: give each its own",
				l->sockets[a].name, q->name);
	}
}

void load_check_sockets(struct loader *l)
{
	const struct config *c = l->config;

	for (size_t i = 0; i < c->program_count; i++) {
		for (size_t j = 0; l->programs[i].blocking_sockets && j < c->program_count; j++)
			check_sharing(l, &l->programs[i], &l->programs[j]);
	}
	for (size_t i = 0; i < c->socket_count; i++) {
		for (size_t j = 0; j < i && l->sockets[i].listen[0]; j++) {
			if (l->sockets[j].listen[0])
				check_pair(l, &l->sockets[j], &l->sockets[i]);
		}
	}
}

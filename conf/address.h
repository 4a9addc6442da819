/* Addresses of [socket:] sections: what they are recognised by, which cannot be open at once. */
#ifndef BATON_CONF_ADDRESS_H
#define BATON_CONF_ADDRESS_H

#include "conf/config.h"

#define ADDRESS_KEY_BYTES 400

/* What a listener for S is recognised by, whatever the spelling: two with one key cannot both be
 * open. A port that the kernel chooses belongs to the name of its section. */
void address_key(const struct config_socket *s, char *buf, size_t bytes);
/* Which of two with different keys has the other's address too, as far as numbers tell (names are
 * not looked up); NULL = neither. */
const struct config_socket *address_covers(
	const struct config_socket *a, const struct config_socket *b);

#endif

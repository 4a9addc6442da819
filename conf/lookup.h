/*
 * What must be asked of the machine and may take its time to answer (LDAP, DNS): users, groups,
 * hosts.
 *
 * Whoever may wait asks at once. The supervisor, once it runs, may not: what is not known then is
 * put on a list, a child of its asks for all of it, and the answers are learned from what that
 * writes. One process, no threads: the state is static.
 */
#ifndef BATON_CONF_LOOKUP_H
#define BATON_CONF_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum lookup_kind { LOOKUP_USER, LOOKUP_UID, LOOKUP_GROUP, LOOKUP_HOST };

struct lookup {
	struct lookup *next;
	enum lookup_kind kind;
	int family; /* LOOKUP_HOST */
	char *asked;
	bool known, found;
	bool missing;     /* on the list */
	bool sent;        /* with the child */
	int64_t known_ns; /* when; CLOCK_MONOTONIC */
	uid_t uid;
	gid_t gid;
	char *name;    /* of the user; the address of the host, numeric */
	char *home;    /* of the user; why there is none */
	int addresses; /* of the host */
	gid_t *groups; /* of the user, supplementary */
	int group_count;
};

/* WAITS: lookup() asks at once (as it is in the beginning). Else only what was answered in
 * the last seconds is known. */
void lookup_may_wait(bool waits);
/* NULL = not known yet: it is on the list. `found` false = there is none, or
 * `home` says why it cannot be told. */
const struct lookup *lookup(enum lookup_kind kind, int family, const char *name);
/* A user as it was found once, however long ago; NULL = never. */
const struct lookup *lookup_known_user(const char *name);
size_t lookup_missing(void);
void lookup_send_missing(void); /* before the fork: these are what the child is asked for */
/* In the child: asks for all of it, writes the answers to FD. Blocks. */
void lookup_answer_missing(int fd);
/* TEXT is what the child wrote; it is changed. What has no answer counts as not found, because WHY.
 */
void lookup_learn(char *text, const char *why);
void lookup_forget_missing(void); /* nobody asks for them any more */

#endif

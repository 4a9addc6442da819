/*
 * The lock as a command of the terminal sees it: the row in the database, read without any
 * instance, and what the guard tells about the holder's life.
 */
#ifndef BATON_CLI_LOCK_H
#define BATON_CLI_LOCK_H

#include "supervisor/cli/cli.h"
#include "worker/lock/store.h"

enum lock_life {
	LIFE_NONE,    /* nobody holds it */
	LIFE_ALIVE,   /* the guard is held on this machine */
	LIFE_DEAD,    /* proven: it and all it ran is gone */
	LIFE_GONE,    /* supervisor and deadman are gone; what they ran may live */
	LIFE_UNKNOWN, /* on another machine, or the guard is not the holder's */
};

struct lock_site {
	struct config *config; /* NULL: it has an error, the running instance knew the database */
	const char *path;      /* of the configuration */
	struct store store;
	struct store_view view;
	enum lock_life life;
	const char *life_reason;
};

/* Load the configuration (the file that -c names, or that the instance behind -s runs), read the
 * row, judge the holder. When the file has an error and an instance runs by what it was: a warning,
 * and that one's database. 0 or the exit status, after a message. */
int lock_open(struct cli *c, struct lock_site *ret);
/* Read and judge again. */
int lock_look(struct cli *c, struct lock_site *site);
void lock_close(struct lock_site *site);
/* "pid 12 on host (worker web:0)" */
char *lock_holder_text(const struct store_row *row, char *buf, size_t bytes);

int lock_info(struct cli *c);
int lock_history(struct cli *c);
int lock_release(struct cli *c);

#endif

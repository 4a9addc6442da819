/*
 * What the files of libbaton share with each other and with nobody else.
 */
#ifndef BATON_WORKER_CLIENT_INTERNAL_H
#define BATON_WORKER_CLIENT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/baton.h"

enum { PAGE_BYTES = 4096, LINE_BYTES = 512, TRIES = 64, EVENTS_WAITING = 8 };

struct claims; /* client_claim.c */

struct page { /* worker-protocol.md, "The lease page" */
	uint32_t magic, version;
	int64_t deadline_ns;
	uint64_t term;
	int64_t soft_deadline_ns;
	uint64_t time_namespace;
};

struct baton {
	const struct page *page; /* NULL: not a candidate */
	int channel;             /* a copy of our own; -1: none */
	dev_t channel_device;    /* to notice that somebody closed it and the number was reused */
	ino_t channel_inode;
	pid_t listener;        /* 0: nobody listens through this handle */
	bool from_page;        /* baton_listen: look into the page once */
	uint64_t told_term;    /* promoted, as told to the program, and not demoted yet; or 0 */
	uint64_t demoted_term; /* the last one whose demotion was told */
	bool at_end;
	char line[LINE_BYTES];
	size_t line_used;
	bool line_skipped;
	struct claims *claims; /* NULL: none was asked for */
	struct baton_event waiting[EVENTS_WAITING];
	size_t waiting_count;
};

/* 0, -ENOTCONN, -EBADF. */
int baton_internal_channel(const struct baton *b);
/* Lines up to the first event: 1; 0 = nothing more (b->at_end?), negative = error. */
int baton_internal_read(struct baton *b, struct baton_event *event);
/* Is LINE the answer to a claim? Then it is noted. */
void baton_internal_answer(struct baton *b, const char *line);

#endif

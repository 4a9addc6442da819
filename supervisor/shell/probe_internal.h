/* One attempt, shared by probes.c (its life), probe_net.c and probe_exec.c (its kinds). */
#ifndef BATON_SHELL_PROBE_INTERNAL_H
#define BATON_SHELL_PROBE_INTERNAL_H

#include <sys/socket.h>

#include "supervisor/shell/probes.h"
#include "worker/tree.h"

#define PROBE_ANSWER_BYTES 1024
#define PROBE_TEXT_BYTES   400

enum attempt_state {
	ATTEMPT_CONNECTING,
	ATTEMPT_ANSWER, /* is awaited */
	ATTEMPT_RUNS,   /* a command */
	ATTEMPT_GRACE,  /* fd:N was closed: a death would say more */
	ATTEMPT_DRAINS, /* it is answered; the rest of the answer is read, out of politeness */
	ATTEMPT_DYING,  /* nobody waits for it any more: the command is to be reaped */
};

/* Where to, made once and kept while the settings are the same. */
struct probe_target {
	const struct config_program *settings;
	enum probe_purpose purpose;
	enum config_probe_kind kind;
	bool own;
	struct sockaddr_storage address;
	socklen_t address_bytes;
	char *request; /* http */
	char *name;    /* "GET /health on probe listener" */
};

struct probe {
	struct probe *next, *previous;
	struct supervisor *supervisor;
	struct process *process; /* whom it judges; NULL = nobody any more */
	enum attempt_state state;
	enum config_probe_kind kind;
	bool own;
	int64_t deadline_ns, timeout_ns; /* 0 = none */
	int fd, report_fd;
	struct loop_watch *watch;
	pid_t pid;
	struct tree_mark mark; /* of a command */
	size_t sent, used;
	char answer[PROBE_ANSWER_BYTES]; /* of a command: the last line */
};

/* probes.c: the outcome, once. The attempt may be gone afterwards. */
void probe_succeeds(struct probe *a);
void probe_fails(struct probe *a, bool own_fault, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void probe_end(struct probe *a); /* closes all of it */
const struct probe_target *probe_target(const struct probe *a);

struct probe *probe_new(struct supervisor *s, struct process *p); /* NULL: out of memory */
void probe_set_text(struct process *p, const char *text);         /* NULL = none */
void probe_set_address(struct probe_target *t, int family, const char *host, int port);

/* probe_worker.c */
void probe_ready_fd_close(struct process *p);

/* probe_net.c */
void probe_connect(struct probe *a);
void probe_net_ready(void *attempt, unsigned events);
void probe_net_expired(struct probe *a, const char *timeout);

/* probe_exec.c */
void probe_exec(struct probe *a, enum probe_purpose purpose);
void probe_exec_expired(struct probe *a, const char *timeout);
void probe_exec_kill(struct probe *a); /* all of it */
void probe_exec_reaped(struct probe *a, int status);

#endif

/*
 * The control protocol: JSON objects, one a line, over the UNIX stream socket of an instance; and
 * the blocking client that commands of the terminal (and the http process) use.
 *
 * Request:  {"v":1, "id":N, "cmd":"status", ...arguments}
 * Answer:   {"id":N, "ok":true, "result":{...}}
 *           {"id":N, "ok":false, "error":{"code":"usage|refused|not_found|ambiguous|failed|timeout|
 *             busy|unsupported", "message":"...", "hint":"..."}}
 * Stream:   after "events" each line is {"event":"worker.running", "time":"RFC 3339", ...fields};
 *           for requests with "progress":true lines {"id":N,"progress":"text"} precede the answer.
 * The server says first: {"baton":"VERSION","v":1,"pid":PID,"instance":"UUID"}.
 * A request line is at most CONTROL_REQUEST_BYTES; a longer one is answered with an error and the
 * connection is closed. Unknown members are ignored, an unknown cmd is an error.
 *
 * Requests (targets = ["web", "web:0", "group:*", "all"]):
 *   status {}                               -> cli.md's document
 *   restart {targets, rolling: true, wait} -> a rollout: {"programs": [{"name", "outcome": "done|
 *                                              failed|stopped|removed", "reason", "superseded",
 *                                              "generation", "workers"}]}, of a failure in "error";
 *                                              progress lines carry "rollout":
 *                                              {"program", "state", "done", "total", "worker"?}
 *   start, stop, restart {targets, wait: bool}   -> {"workers":[{"name","state","reason"}]}; with
 *                                              wait it comes when all of them have settled; a start
 *                                              that ends in fatal/backoff is ok:false "failed"
 *   signal {targets, signal: "HUP"}         -> {"workers":["web:0", ...]}
 *   scale {program, workers: N | "+1" | "-1", wait} -> {"program", "from", "to"}
 *   handoff {worker?: "web:1", program?, away?: bool, wait} -> {"program","from","to","term"}
 *   lock.release {force: bool}              -> step-down of this holder: {"released":true}
 *   shutdown {mode: "graceful"|"quick", wait}  -> with progress lines, then the socket closes
 *   reload {wait, changed_only, plan: bool} -> {"plan":[text, ...], "generation":N, "programs" as
 *                                              above, "superseded_by"?: generation}; plan: true =
 *                                              only say it; errors:
 *                                              {"code":"failed", "message", "findings":[text, ...]}
 *   upgrade {binary?: "/path", wait}        -> {"from": VERSION, "to": VERSION, "pid", "stall_ms"},
 *                                              said by the new image on the same connection
 *   wait {for: "CONDITION", timeout_ms}     -> {"condition", "waited_ms"}
 *   events {}                               -> {} and then the stream
 *   jobs-config {}                          -> all jobs, expanded (supervisor/shell/jobs.c); to our
 * own job worker only is-executor {}                          -> {"executor":bool, "term":N,
 * "worker":"web:0"}: about the worker whose process tree the peer's pid is in; open to every
 * process of such a tree whatever its user version {}
 */
#ifndef BATON_WORKER_CONTROL_H
#define BATON_WORKER_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "conf/err.h"

#define CONTROL_VERSION       1
#define CONTROL_REQUEST_BYTES 65536

struct control_client {
	int fd; /* -1 = not connected */
	char *buffer;
	size_t used, capacity;
	uint64_t next_id;
	json_t *greeting;
};

/* Connect and read the greeting. ERR_NOT_RUNNING when nobody listens (missing or stale socket),
 * ERR_REFUSED without permission. */
int control_connect(struct control_client *c, const char *path, int64_t timeout_ms, struct err *e);
void control_close(struct control_client *c);
/* Send one request (REQUEST gets "v" and "id"; the reference stays the caller's). */
int control_send(struct control_client *c, json_t *request, struct err *e);
/* Next line as JSON (new reference). timeout_ms < 0 = for ever. ERR_TIMEOUT, ERR_NOT_RUNNING at
 * EOF. */
int control_receive(struct control_client *c, int64_t timeout_ms, json_t **ret_line, struct err *e);
/* Send and wait for the answer with that id; PROGRESS (may be NULL) is called for lines before it.
 * *ret_answer is the whole answer object, ok or not. */
int control_call(struct control_client *c, json_t *request, int64_t timeout_ms,
	void (*progress)(const json_t *line, void *context), void *context, json_t **ret_answer,
	struct err *e);

#endif

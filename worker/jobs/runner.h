/*
 * The job worker: one process in each instance, the worker of the hidden program `jobs`. It does
 * what the job machine (machine.h) says: starts commands, asks the ledger process, speaks with the
 * supervisor. Nothing in it blocks.
 *
 * runner.c: its descriptors and its round. link.c: channel, lease page, configuration.
 * book.c: the ledger process. task.c: processes. output.c: what they write.
 */
#ifndef BATON_WORKER_JOBS_RUNNER_H
#define BATON_WORKER_JOBS_RUNNER_H

/* `job-worker`: argv has nothing else; channel, lease page and control socket are named by the
 * environment (worker-protocol.md). */
int job_worker_main(int argc, char **argv);

#endif

/*
 * For the tests of the lock: a folder of one's own, stores of two instances on one database, and
 * the shortest form of each call. Included by one test program each.
 */
#ifndef BATON_TESTS_UNIT_LOCK_FIXTURE_H
#define BATON_TESTS_UNIT_LOCK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/lock/store.h"

enum { TTL_MS = 60000 };

struct fixture {
	char folder[256], database[300];
	struct memory_database *memory;
	struct store a, b; /* two instances on one database */
	struct store_view view;
	struct err e;
};

__attribute__((unused)) static const char *beside(struct fixture *f, const char *suffix)
{
	static char name[512];

	snprintf(name, sizeof(name), "%s%s", f->database, suffix);
	return name;
}

__attribute__((unused)) static void fixture_folder(struct fixture *f)
{
	const char *base = getenv("TMPDIR");

	memset(f, 0, sizeof(*f));
	snprintf(f->folder, sizeof(f->folder), "%s/lock-test-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->database, sizeof(f->database), "%s/lock.db", f->folder);
}

/* The folder is flat but for folders of one level that tests make. */
__attribute__((unused)) static void remove_folder(const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		char name[600];
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(name, sizeof(name), "%s/%s", folder, entry->d_name);
		if (unlink(name) < 0 && errno == EISDIR)
			remove_folder(name);
	}
	if (d)
		closedir(d);
	rmdir(folder);
}

__attribute__((unused)) static void fixture_settings(
	struct fixture *f, const char *instance, struct store_settings *s)
{
	memset(s, 0, sizeof(*s));
	snprintf(s->database, sizeof(s->database), "%s", f->database);
	snprintf(s->instance, sizeof(s->instance), "%s", instance);
	snprintf(s->boot_id, sizeof(s->boot_id), "boot");
	snprintf(s->machine_id, sizeof(s->machine_id), "machine");
	snprintf(s->hostname, sizeof(s->hostname), "host-of-%s", instance);
	s->pid = 4711;
	s->guard_ino = 99;
	s->pid1 = true;
	s->create = true;
	s->busy_limit_ms = 2000;
	s->history_keep_us = (int64_t)30 * 86400 * 1000000;
}

__attribute__((unused)) static void fixture_stores(struct fixture *f, bool memory)
{
	struct store_settings s;

	fixture_folder(f);
	if (memory)
		assert_non_null(f->memory = memory_database_new());
	fixture_settings(f, "instance-a", &s);
	assert_int_equal(memory ? store_memory_init(&f->a, &s, f->memory, &f->e)
				: store_sqlite_init(&f->a, &s, &f->e),
		0);
	fixture_settings(f, "instance-b", &s);
	assert_int_equal(memory ? store_memory_init(&f->b, &s, f->memory, &f->e)
				: store_sqlite_init(&f->b, &s, &f->e),
		0);
}

__attribute__((unused)) static void fixture_end(struct fixture *f)
{
	if (f->a.ops)
		f->a.ops->close(&f->a);
	if (f->b.ops)
		f->b.ops->close(&f->b);
	memory_database_free(f->memory);
	remove_folder(f->folder);
}

__attribute__((unused)) static struct store_expect as_seen(const struct store_view *v)
{
	struct store_expect x = {.term = v->row.term, .beat = v->row.beat};

	memcpy(x.holder, v->row.holder, sizeof(x.holder));
	memcpy(x.db_uuid, v->db_uuid, sizeof(x.db_uuid));
	return x;
}

/* A wrong outcome is shown with its words. */
#define assert_outcome(f, call, wanted)                                                            \
	do {                                                                                       \
		enum store_outcome outcome_ = (call);                                              \
		if (outcome_ != (wanted))                                                          \
			print_message("%s: %s, not %s: %s\n", #call, store_outcome_name(outcome_), \
				store_outcome_name(wanted), (f)->e.text);                          \
		assert_int_equal(outcome_, wanted);                                                \
	} while (0)

#define assert_says(f, words)                                                                      \
	do {                                                                                       \
		if (!strstr((f)->e.text, words))                                                   \
			print_message("the text lacks '%s': %s\n", words, (f)->e.text);            \
		assert_non_null(strstr((f)->e.text, words));                                       \
	} while (0)

#define INSPECT(f, s) (s).ops->inspect(&(s), &(f)->view, &(f)->e)
#define ACQUIRE(f, s, expect, epoch)                                                               \
	(s).ops->acquire(&(s), expect, epoch, TTL_MS, "takeover", &(f)->view, &(f)->e)
#define RENEW(f, s, epoch, term) (s).ops->renew(&(s), epoch, term, TTL_MS, &(f)->view, &(f)->e)
#define PROMOTE(f, s, epoch, term, new_term, program, worker)                                      \
	(s).ops->promote(                                                                          \
		&(s), epoch, term, new_term, program, worker, 77, "handoff", &(f)->view, &(f)->e)
#define RELEASE(f, s, epoch, term)                                                                 \
	(s).ops->release(&(s), epoch, term, "released", &(f)->view, &(f)->e)
#define CLAIM(f, s, program, term, job, time, attempt)                                             \
	(s).ops->claim(&(s), program, term, job, time, attempt, 0, &(f)->e)

__attribute__((unused)) static void copy_file(const char *from, const char *to)
{
	static unsigned char bytes[1 << 20];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	ssize_t got = read(in, bytes, sizeof(bytes));

	assert_true(in >= 0 && out >= 0 && got >= 0);
	assert_int_equal(write(out, bytes, (size_t)got), got);
	close(in);
	close(out);
}

/* A takes the free (or anybody's) lock under EPOCH. */
__attribute__((unused)) static void take(struct fixture *f, struct store *s, int64_t epoch)
{
	struct store_expect x;

	assert_outcome(f, INSPECT(f, *s), STORE_DONE);
	x = as_seen(&f->view);
	assert_outcome(f, ACQUIRE(f, *s, &x, epoch), STORE_DONE);
}

#endif

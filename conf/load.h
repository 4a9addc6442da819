/*
 * Between the files of conf/ that make a snapshot; nobody else includes this.
 *
 * The order of a load: load_read (text, includes, mode), load_sections ([baton], [scheduler],
 * sockets, groups), load_programs, load_check (what concerns several settings together).
 */
#ifndef BATON_CONF_LOAD_H
#define BATON_CONF_LOAD_H

#include <glob.h>

#include "conf/arena.h"
#include "conf/config.h"
#include "conf/expand.h"
#include "conf/ini.h"
#include "conf/schema.h"
#include "conf/sources.h"

struct preset;

struct config_section { /* of a program: where its values come from */
	const struct ini_section *ini;
	const struct preset *preset; /* NULL = none */
	const struct config_pair *file_environment;
	size_t file_environment_count;
};

struct zone_entry { /* one for each name of a time zone */
	struct zone_entry *next;
	const char *name;
	struct zone *zone; /* NULL: why is in `error` */
	const char *error;
};

struct config_data { /* config.private */
	struct arena arena;
	struct config config;
	struct ini ini;
	const char *host; /* host_node_name */
	struct sources sources;
	struct zone_entry *zones; /* freed with the snapshot */
};

enum setting_source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_PRESET };

struct setting { /* one value before expansion */
	const struct schema_row *row;
	const char *key; /* as in the file: "rlimit_nofile" */
	const char *text;
	struct config_place place; /* of the section when the value is a default */
	const char *here;
	enum setting_source source;
	const char *title; /* of the section that it was found in, for [baton]; else NULL */
};

struct user_cache;

struct loader {
	struct config_data *data;
	struct config *config;
	struct arena *arena;
	struct arena scratch; /* for one program at a time */
	struct ini *ini;
	struct errlist *findings;
	enum config_force force;
	const char *path; /* as given */
	const char *text; /* read in place of the file; NULL = the file */
	bool native;
	bool rotation_seen;
	struct config_program *programs;
	struct config_socket *sockets;
	struct config_job *jobs;
	size_t program_capacity, socket_capacity, job_capacity;
	struct user_cache *users;
	glob_t found; /* given back by config_load when memory ran out while it was in use */
	bool found_in_use;
};

/* --- values: load_value.c */
/* The value of ROW in SECTION (may be NULL), from [DEFAULT], from PRESET or by default. */
struct setting setting_of(const struct config_data *d, const struct schema_row *row,
	const struct ini_section *section, const struct preset *preset);
struct setting setting_key(const struct config_data *d, enum schema_section kind,
	const struct ini_section *section, const struct preset *preset, const char *key);
/* The section as people write it, "program:web"; for [baton] the one that the value stands in. */
const char *setting_title(const struct ini_section *section, enum schema_section kind);
/* "[section] key: text". */
void load_report(struct loader *l, bool warning, const struct ini_section *section,
	const struct setting *s, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Expand S; NULL after a finding. */
const char *load_expand(struct loader *l, const struct ini_section *section,
	const struct setting *s, const struct expand_scope *scope);
/* Parse TEXT as the row says and store it in the struct at BASE. False after a finding. */
bool load_store(struct loader *l, const struct ini_section *section, const struct setting *s,
	const char *text, void *base);
/* All rows of KIND that are of a plain type: defaults, then what the file or preset says. */
void load_defaults(struct loader *l, enum schema_section kind, void *base);
void load_rows(struct loader *l, enum schema_section kind, const struct ini_section *section,
	const struct preset *preset, const struct expand_scope *scope, void *base);
/* Absolute: ~ is a home, a relative path starts from HERE (native) or the working directory. */
const char *load_path(struct arena *a, bool native, const char *here, const char *path);
/* KEY=VALUE lines of the files named in TEXT. */
void load_environment_file(struct loader *l, const struct ini_section *section,
	const struct setting *s, const char *text, struct config_pair **ret_pairs,
	size_t *ret_count);

/* rlimit_NAME of a program or job (KIND). */
void load_rlimits(struct loader *l, enum schema_section kind, const struct ini_section *section,
	const struct expand_scope *scope, const struct config_rlimit **ret_limits,
	size_t *ret_count);
/* Defaults of a program, before any section is read; then one more in the list. */
void load_program_template(struct loader *l, struct config_program *ret_template);
struct config_program *load_program_add(
	struct loader *l, const struct config_program *template, struct ini_section *section);

/* --- users and CPUs: load_machine.c */
bool load_user(struct loader *l, const struct ini_section *section, const struct setting *s,
	const char *text, bool with_group, struct config_user *ret_user);
bool load_group(struct loader *l, const struct ini_section *section, const struct setting *s,
	const char *text, gid_t *ret_gid);
int load_cpus(void); /* CPUs by affinity and cgroup quota; at least 1 */

/* --- the steps */
int load_read(struct loader *l, const char *path); /* ERR_CONFIG: nothing to go on with */
void load_sections(struct loader *l);
void load_programs(struct loader *l);
void load_jobs(struct loader *l); /* after load_programs and load_scheduler: load_job.c */
void load_scheduler(struct loader *l);
void load_check(struct loader *l);
/* Why WORD, run in DIRECTORY, cannot be, or NULL. In l->scratch. */
const char *load_not_runnable(
	struct loader *l, const char *word, const char *directory, const char *path);
void load_check_sockets(struct loader *l); /* load_check_socket.c */
void load_check_jobs(struct loader *l);    /* load_check_job.c */
void load_order(struct loader *l);

/* The scope of a program's values: without an index (load time), or of worker INDEX with the texts
 * of its listeners. VARS has room for SCOPE_VARS + 2 per socket. */
enum { SCOPE_VARS = 7 };
void load_scope(const struct config *c, const struct config_program *p, struct arena *a, int index,
	const char *const *listen, struct expand_scope *ret_scope);

/* --- ready, health, probe: load_probe.c */
/* After the sockets: what the program's values are, as far as the core must know. Their errors are
 * told when the first worker is built. */
void load_probes(struct loader *l, struct config_program *p);
/* With the first worker, once it is built. */
void check_probes(struct loader *l, struct config_program *p, const struct config_worker *w);

/* --- workers: worker_build.c */
struct worker_build {
	const struct config *config;
	int program, index;
	const char *const *listen;
	struct arena *arena;
	struct config_worker *worker;
	struct errlist *findings; /* NULL: stop at the first error, which is in *err */
	struct err *err;
	int rc;
};
void worker_build_run(void *build); /* struct worker_build; below arena_run */

/* --- one row after the other, as it is in effect: effective.c */
struct effective {
	const char *section, *key, *value; /* value: expanded, for the first worker */
	const char *raw;
	const char *file;
	int line;
	enum setting_source source;
	const char *preset; /* its name with SOURCE_PRESET */
	const struct schema_row *row;
	int program, socket; /* indices, or -1 */
};
void effective_each(const struct config *c, struct arena *a,
	void (*take)(void *user, const struct effective *e), void *user);
void effective_program(const struct config *c, int program, struct arena *a,
	void (*take)(void *user, const struct effective *e), void *user);
/* [baton], [scheduler], [jobs], or one socket or job (INDEX; else -1). */
void effective_plain(const struct config *c, enum schema_section kind, int index, struct arena *a,
	void (*take)(void *user, const struct effective *e), void *user);

/* --- diff_job.c: lines about the jobs, in A. Below arena_run of A; SCRATCH is used for each job.
 */
void diff_jobs(const struct config *from, const struct config *to, struct arena *a,
	struct arena *scratch, char ***ret_lines, size_t *ret_count);

#endif

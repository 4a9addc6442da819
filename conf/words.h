/*
 * Text taken apart: commands into arguments, `environment =` into variables, lists into items.
 * Nothing is expanded and no shell runs. All results are in the arena.
 */
#ifndef BATON_CONF_WORDS_H
#define BATON_CONF_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/arena.h"
#include "conf/config.h"

/* POSIX: as sh splits words. SHLEX: as Python's shlex.split does for supervisord: in double
 * quotes, only the quote and the backslash can be escaped. */
enum words_rules { WORDS_POSIX, WORDS_SHLEX };

/* NULL-terminated *ret_words. ERR_CONFIG: a quote is open, a backslash ends the text. */
int words_split(struct arena *a, const char *text, enum words_rules rules, char ***ret_words,
	size_t *ret_count, struct err *e);
/* What only a shell would understand ("|", ">", "&&", "$X"), where it is unquoted; or NULL. */
const char *words_shell_syntax(struct arena *a, const char *text);

/* KEY=value,KEY2="v,2". NATIVE: values run to the next comma or line; else supervisord's rules. Of
 * a key given twice both are returned; the later one counts. */
int words_pairs(struct arena *a, const char *text, bool native, struct config_pair **ret_pairs,
	size_t *ret_count, struct err *e);
/* One line of an environment file: 1 and *ret_pair, 0 for an empty line or comment, or an error. */
int words_file_line(struct arena *a, const char *line, struct config_pair *ret_pair, struct err *e);

/* Items between commas and white space (SPACES), or between commas only. */
char **words_list(struct arena *a, const char *text, bool spaces, size_t *ret_count);

#endif

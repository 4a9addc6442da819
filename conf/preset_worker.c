/* What a preset adds to one worker: words of its command, variables of its environment. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/preset.h"
#include "conf/reader.h"

enum { FIRST_FD = 3, PARENTS = 4 };

/* --- command --------------------------------------------------------------------------------- */

/* Whether WORD is the option: "-b", "-bX" for a short one; "--bind", "--bind=X" for a long one.
 * The value is in *RET_VALUE, NULL when it is the next word. */
static bool is_option(const char *word, const char *option, const char **ret_value)
{
	size_t bytes = strlen(option);

	*ret_value = NULL;
	if (strncmp(word, option, bytes) != 0)
		return false;
	if (option[1] != '-') {
		if (word[bytes])
			*ret_value = word + bytes + (word[bytes] == '=');
		return true;
	}
	if (word[bytes] == '=')
		*ret_value = word + bytes + 1;
	return !word[bytes] || word[bytes] == '=';
}

const char *preset_option(char *const *argv, const char *option)
{
	const char *found = NULL, *value;

	for (size_t i = 0; argv[i]; i++) {
		if (is_option(argv[i], option, &value))
			found = value ? value : argv[i + 1] ? argv[i + 1] : "";
	}
	return found;
}

const char *preset_own_bind(const struct preset *p, char *const *argv)
{
	for (const char *const *o = p->bind_options; o && *o; o++) {
		if (preset_option(argv + 1, *o))
			return *o;
	}
	return NULL;
}

const char *preset_background(const struct preset *p, char *const *argv)
{
	for (const char *const *o = p->background; o && *o; o++) {
		if (preset_option(argv + 1, *o))
			return *o;
	}
	return NULL;
}

static bool is_wanted(
	const struct preset_words *w, char *const *argv, size_t socket_count, bool for_log)
{
	for (size_t i = 0; i < PRESET_MOST_WORDS && w->unless[i]; i++) {
		if (preset_option(argv, w->unless[i]))
			return false;
	}
	return (!w->with_sockets || socket_count > 0) && (!w->for_log || for_log);
}

/* The I-th word; after an option of that name that stands there already, its value in front. */
static char *word_of(struct arena *a, const struct preset_words *w, size_t i, char *const *argv)
{
	const char *before = i == 1 && w->joined ? preset_option(argv + 1, w->words[0]) : NULL;

	return before ? arena_printf(a, "%s %s", before, w->words[i])
		      : arena_strdup(a, w->words[i]);
}

char **preset_arguments(struct arena *a, const struct preset *p, char *const *argv,
	size_t socket_count, bool for_log, size_t *ret_count)
{
	const char *option = p->listen[0];
	char **words = NULL;
	size_t n = 0, capacity = 0;

	for (const struct preset_words *w = p->words; w && w->words[0]; w++) {
		if (!is_wanted(w, argv, socket_count, for_log))
			continue;
		for (size_t i = 0; i < PRESET_MOST_WORDS && w->words[i]; i++) {
			words = arena_grow(a, words, n, &capacity, sizeof(*words));
			words[n++] = word_of(a, w, i, argv);
		}
	}
	if (p->listen_with[0] && preset_option(argv, p->listen_with[0]))
		option = p->listen_with[1];
	for (size_t i = 0; option && i < socket_count; i++) {
		words = arena_grow(a, words, n, &capacity, sizeof(*words));
		words[n++] = arena_strdup(a, option);
		words = arena_grow(a, words, n, &capacity, sizeof(*words));
		words[n++] = arena_printf(a, p->listen[1], FIRST_FD + i);
	}
	*ret_count = n;
	return words ? words : arena_zero(a, sizeof(*words));
}

/* --- environment ----------------------------------------------------------------------------- */

/* The file that makes listen(PORT) of node take a passed socket: below the folder of baton's own
 * program, or one of those above it, as built and as installed. */
static const char *node_preload(struct arena *a)
{
	char path[PATH_MAX + 1], *slash;
	ssize_t bytes = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (bytes < 0)
		return NULL;
	path[bytes] = '\0';
	for (int i = 0; i < PARENTS && (slash = strrchr(path, '/')) != NULL; i++) {
		const char *file;
		*slash = '\0';
		file = arena_printf(a, "%s/share/baton/node/baton-preload.js", path);
		if (access(file, R_OK) == 0)
			return file;
	}
	return NULL;
}

/* As node reads NODE_OPTIONS: quotes around what has spaces. */
static const char *node_options(struct arena *a)
{
	const char *file = node_preload(a);

	if (!file)
		return NULL;
	return arena_printf(
		a, strpbrk(file, " \t\"\\") ? "--require=\"%s\"" : "--require=%s", file);
}

/* NGINX=3;4; as an old nginx tells its successor; with it, even empty, it stays in the foreground
 * whatever its file says. */
static const char *nginx_sockets(struct arena *a, size_t socket_count)
{
	struct text t;

	text_init(&t, a);
	for (size_t i = 0; i < socket_count; i++)
		text_printf(&t, "%zu;", FIRST_FD + i);
	return text_string(&t);
}

/* FPM_SOCKETS=127.0.0.1:9000=3,/path=4; IPv6 without brackets. */
static const char *fpm_sockets(struct arena *a, const char *const *listen, size_t socket_count)
{
	struct text t;

	text_init(&t, a);
	for (size_t i = 0; i < socket_count; i++) {
		const char *s = listen[i];
		if (strncmp(s, "unix:", 5) == 0)
			s += 5;
		text_puts(&t, i ? "," : "");
		for (; *s; s++) {
			if (*s != '[' && *s != ']')
				text_add(&t, s, 1);
		}
		text_printf(&t, "=%zu", FIRST_FD + i);
	}
	return text_string(&t);
}

static struct config_pair computed(
	struct arena *a, const struct preset *p, const char *const *listen, size_t socket_count)
{
	struct config_pair none = {NULL, NULL}, pair;

	switch (p->variable) {
	case PRESET_NODE_OPTIONS:
		pair = (struct config_pair){"NODE_OPTIONS", socket_count ? node_options(a) : NULL};
		break;
	case PRESET_NGINX:
		pair = (struct config_pair){"NGINX", nginx_sockets(a, socket_count)};
		break;
	case PRESET_FPM_SOCKETS:
		pair = (struct config_pair){
			"FPM_SOCKETS", socket_count ? fpm_sockets(a, listen, socket_count) : NULL};
		break;
	default:
		return none;
	}
	return pair.value ? pair : none;
}

struct config_pair *preset_environment(struct arena *a, const struct preset *p,
	const char *const *listen, size_t socket_count, size_t *ret_count)
{
	struct config_pair *pairs = NULL, one = computed(a, p, listen, socket_count);
	size_t n = 0, capacity = 0;

	for (const struct config_pair *e = p->environment; e && e->key; e++) {
		pairs = arena_grow(a, pairs, n, &capacity, sizeof(*pairs));
		pairs[n++] = *e;
	}
	if (one.key) {
		pairs = arena_grow(a, pairs, n, &capacity, sizeof(*pairs));
		pairs[n++] = one;
	}
	*ret_count = n;
	return pairs;
}

void preset_join(struct arena *a, const struct preset *p, struct config_pair *pairs, size_t count,
	size_t socket_count)
{
	struct config_pair ours;

	if (p->variable != PRESET_NODE_OPTIONS)
		return;
	ours = computed(a, p, NULL, socket_count);
	if (!ours.key)
		return;
	for (size_t i = 0; i < count; i++) {
		const char *others = pairs[i].value;
		if (strcmp(pairs[i].key, ours.key) != 0)
			continue;
		if (strcmp(others, ours.value) == 0)
			others = getenv(ours.key);
		if (others && others[0] && !strstr(others, ours.value))
			pairs[i].value = arena_printf(a, "%s %s", others, ours.value);
	}
}

/* The file named with -y, or the like, has a line that begins with NAME. */
static bool file_says(struct arena *a, const char *path, const char *name)
{
	char *text, *line;
	size_t bytes;

	if (reader_load(a, path, &text, &bytes, NULL) < 0)
		return true; /* the server will say so */
	while ((line = strsep(&text, "\n")) != NULL) {
		line += strspn(line, " \t");
		if (strncmp(line, name, strlen(name)) == 0)
			return true;
	}
	return false;
}

const char *preset_drops_requests(
	struct arena *a, const struct preset *p, char *const *argv, const char *directory)
{
	static const char name[] = "process_control_timeout";
	const char *file = preset_option(argv, "-y");

	if (p->variable != PRESET_FPM_SOCKETS)
		return NULL;
	if (!file)
		file = preset_option(argv, "--fpm-config");
	if (!file || !file[0])
		return NULL;
	if (file[0] != '/')
		file = arena_printf(a, "%s/%s", directory, file);
	if (file_says(a, file, name))
		return NULL;
	return arena_printf(a,
		"php-fpm ends with requests unanswered unless its own file sets %s; write '%s = "
		"30s' "
		"below [global] in '%.200s'",
		name, name, file);
}

const char *preset_missing(struct arena *a, const struct preset *p, size_t socket_count)
{
	if (p->variable != PRESET_NODE_OPTIONS || socket_count == 0 || node_preload(a))
		return NULL;
	return "share/baton/node/baton-preload.js is not there, beside the folder of baton: "
	       "listen() "
	       "of node would not take the passed sockets";
}

#include "conf/words.h"

#include <ctype.h>
#include <string.h>

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* A backslash in double quotes: whether it takes away the meaning of C. */
static bool escapes(char c, enum words_rules rules)
{
	if (c == '"' || c == '\\')
		return true;
	return rules == WORDS_POSIX && (c == '$' || c == '`');
}

static int take_quoted(struct text *word, const char **at, enum words_rules rules, struct err *e)
{
	char quote = *(*at)++;
	const char *p = *at;

	for (; *p && *p != quote; p++) {
		if (quote == '"' && *p == '\\' && escapes(p[1], rules)) {
			p++;
		} else if (quote == '"' && *p == '\\' && p[1] == '\n' && rules == WORDS_POSIX) {
			p++;
			continue;
		}
		text_add(word, p, 1);
	}
	if (!*p)
		return err_set(e, ERR_CONFIG, "the quote %c is not closed", quote);
	*at = p + 1;
	return 0;
}

static int take_word(
	struct arena *a, const char **at, enum words_rules rules, char **ret_word, struct err *e)
{
	const char *p = *at;
	struct text word;
	bool any = false;

	text_init(&word, a);
	while (*p && !is_space(*p)) {
		if (*p == '\'' || *p == '"') {
			if (take_quoted(&word, &p, rules, e) < 0)
				return ERR_CONFIG;
			any = true;
		} else if (*p == '\\') {
			if (!p[1])
				return err_set(e, ERR_CONFIG, "a backslash ends the text");
			if (p[1] != '\n' || rules == WORDS_SHLEX) {
				text_add(&word, p + 1, 1);
				any = true;
			}
			p += 2;
		} else {
			text_add(&word, p++, 1);
			any = true;
		}
	}
	*at = p;
	*ret_word = any ? text_string(&word) : NULL;
	return 0;
}

int words_split(struct arena *a, const char *text, enum words_rules rules, char ***ret_words,
	size_t *ret_count, struct err *e)
{
	size_t count = 0, capacity = 0;
	char **words = NULL, *word = NULL;

	for (;;) {
		while (is_space(*text))
			text++;
		words = arena_grow(a, words, count, &capacity, sizeof(*words));
		if (!*text)
			break;
		if (take_word(a, &text, rules, &word, e) < 0)
			return ERR_CONFIG;
		if (word)
			words[count++] = word;
	}
	words[count] = NULL;
	*ret_words = words;
	*ret_count = count;
	return 0;
}

const char *words_shell_syntax(struct arena *a, const char *text)
{
	bool word_starts = true;

	for (const char *p = text; *p; p++) {
		if (*p == '\\' && p[1]) {
			p++;
		} else if (*p == '\'' || *p == '"') {
			char quote = *p;
			for (p++; *p && *p != quote; p++) {
				if (*p == '\\' && quote == '"' && p[1])
					p++;
			}
			if (!*p)
				return NULL;
		} else if (*p == '$' && (isalpha((unsigned char)p[1]) || strchr("_{(", p[1])) &&
			   p[1]) {
			size_t bytes = 2;
			while (isalnum((unsigned char)p[bytes]) || p[bytes] == '_')
				bytes++;
			return arena_strndup(a, p, bytes > 60 ? 60 : bytes);
		} else if (strchr("|<>`", *p)) {
			return arena_strndup(a, p, 1);
		} else if (*p == '&' &&
			   (p[1] == '&' || (word_starts && (is_space(p[1]) || !p[1])))) {
			return arena_strndup(a, p, p[1] == '&' ? 2 : 1);
		} else if (*p == ';' && (is_space(p[1]) || !p[1])) {
			return arena_strndup(a, p, 1);
		}
		word_starts = is_space(*p);
	}
	return NULL;
}

/* --- KEY=value lists ------------------------------------------------------------------------- */

struct pairs {
	struct arena *arena;
	struct config_pair *items;
	size_t count, capacity;
};

static void add_pair(struct pairs *p, const char *key, const char *value)
{
	p->items = arena_grow(p->arena, p->items, p->count, &p->capacity, sizeof(*p->items));
	p->items[p->count++] = (struct config_pair){key, value};
}

static bool is_lexer_word(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("_/.+-():", c));
}

/* One token as Python's shlex (not POSIX) gives it with supervisord's word characters. *ret_token
 * is NULL at the end. */
static int lexer_token(struct arena *a, const char **at, const char **ret_token, struct err *e)
{
	const char *p = *at, *start;
	struct text word;

	while (is_space(*p) || *p == '#') {
		if (*p == '#')
			p += strcspn(p, "\n");
		else
			p++;
	}
	*ret_token = NULL;
	if (!*p) {
		*at = p;
		return 0;
	}
	start = p;
	if (*p == '"' || *p == '\'') {
		p = strchr(p + 1, *p);
		if (!p)
			return err_set(e, ERR_CONFIG, "the quote %c is not closed", *start);
		*ret_token = arena_strndup(a, start, (size_t)(p + 1 - start));
		*at = p + 1;
		return 0;
	}
	if (!is_lexer_word(*p)) {
		do {
			p++; /* one character, of any number of bytes */
		} while (((unsigned char)*p & 0xc0) == 0x80);
		*ret_token = arena_strndup(a, start, (size_t)(p - start));
		*at = p;
		return 0;
	}
	text_init(&word, a);
	while (is_lexer_word(*p) || *p == '"' || *p == '\'' || *p == '#') {
		if (*p == '#') { /* the lexer skips the line and goes on in the same word */
			p += strcspn(p, "\n");
			p += *p == '\n';
		} else {
			text_add(&word, p++, 1);
		}
	}
	*ret_token = text_string(&word);
	*at = p;
	return 0;
}

static const char *without_quotes(struct arena *a, const char *s)
{
	size_t front = strspn(s, "'\""), bytes = strlen(s);

	while (bytes > front && (s[bytes - 1] == '"' || s[bytes - 1] == '\''))
		bytes--;
	return arena_strndup(a, s + front, bytes - front);
}

static int pairs_compat(struct pairs *out, const char *text, struct err *e)
{
	struct arena *a = out->arena;

	for (;;) {
		const char *key, *sign = NULL, *value = NULL, *separator;
		if (lexer_token(a, &text, &key, e) < 0)
			return ERR_CONFIG;
		if (!key)
			return 0;
		if (lexer_token(a, &text, &sign, e) < 0 ||
			(sign && lexer_token(a, &text, &value, e) < 0))
			return ERR_CONFIG;
		if (!value || strcmp(sign, "=") != 0)
			return err_set(e, ERR_CONFIG,
				"KEY=value expected at '%.60s'; put values with other characters "
				"than letters, digits and _/.+-(): into quotes",
				key);
		add_pair(out, key, without_quotes(a, value));
		if (lexer_token(a, &text, &separator, e) < 0)
			return ERR_CONFIG;
	}
}

/* Quoted and unquoted pieces up to the next comma or line. In double quotes \" is a quote; any
 * other backslash stays, as supervisord leaves it. */
static int native_value(struct text *value, const char **at, struct err *e)
{
	const char *p = *at;
	size_t keep = 0;

	while (*p == ' ' || *p == '\t')
		p++;
	while (*p && *p != ',' && *p != '\n') {
		if (*p == '"' || *p == '\'') {
			char quote = *p++;
			for (; *p && *p != quote; p++) {
				if (quote == '"' && *p == '\\' && p[1] == '"')
					p++;
				text_add(value, p, 1);
			}
			if (!*p)
				return err_set(e, ERR_CONFIG, "the quote %c is not closed", quote);
			p++;
			keep = value->length;
		} else {
			text_add(value, p, 1);
			if (!is_space(*p))
				keep = value->length;
			p++;
		}
	}
	text_string(value);
	value->length = keep;
	value->bytes[keep] = '\0';
	*at = p;
	return 0;
}

static int pairs_native(struct pairs *out, const char *text, struct err *e)
{
	for (;;) {
		const char *start, *end;
		struct text value;

		while (is_space(*text) || *text == ',')
			text++;
		if (!*text)
			return 0;
		start = text;
		text += strcspn(text, "=,\n");
		end = text;
		while (end > start && is_space(end[-1]))
			end--;
		if (*text != '=' || end == start)
			return err_set(e, ERR_CONFIG, "KEY=value expected at '%.60s'", start);
		text++;
		text_init(&value, out->arena);
		if (native_value(&value, &text, e) < 0)
			return ERR_CONFIG;
		add_pair(out, arena_strndup(out->arena, start, (size_t)(end - start)),
			text_string(&value));
	}
}

int words_pairs(struct arena *a, const char *text, bool native, struct config_pair **ret_pairs,
	size_t *ret_count, struct err *e)
{
	struct pairs out = {.arena = a};
	int rc = native ? pairs_native(&out, text, e) : pairs_compat(&out, text, e);

	if (rc < 0)
		return rc;
	*ret_pairs = out.items;
	*ret_count = out.count;
	return 0;
}

int words_file_line(struct arena *a, const char *line, struct config_pair *ret_pair, struct err *e)
{
	const char *start = line + strspn(line, " \t\r"), *sign, *end;
	struct text value;

	if (!*start || *start == '#' || *start == ';')
		return 0;
	if (strncmp(start, "export ", 7) == 0)
		start += 7 + strspn(start + 7, " \t");
	sign = strchr(start, '=');
	for (end = sign; sign && end > start && is_space(end[-1]);)
		end--;
	if (!sign || end == start)
		return err_set(e, ERR_CONFIG, "'%.60s' is not KEY=VALUE", start);
	ret_pair->key = arena_strndup(a, start, (size_t)(end - start));
	start = sign + 1 + strspn(sign + 1, " \t");
	end = start + strlen(start);
	while (end > start && is_space(end[-1]))
		end--;
	text_init(&value, a);
	if (end - start >= 2 && (*start == '"' || *start == '\'') && end[-1] == *start) {
		for (const char *p = start + 1; p < end - 1; p++) {
			if (*start == '"' && *p == '\\' && (p[1] == '"' || p[1] == '\\') &&
				p + 1 < end - 1)
				p++;
			text_add(&value, p, 1);
		}
	} else {
		text_add(&value, start, (size_t)(end - start));
	}
	ret_pair->value = text_string(&value);
	return 1;
}

char **words_list(struct arena *a, const char *text, bool spaces, size_t *ret_count)
{
	size_t count = 0, capacity = 0;
	char **items = NULL;

	for (;;) {
		const char *end, *start;
		while (is_space(*text) || *text == ',')
			text++;
		items = arena_grow(a, items, count, &capacity, sizeof(*items));
		if (!*text)
			break;
		start = text;
		text += strcspn(text, spaces ? ", \t\r\n" : ",");
		end = text;
		while (end > start && is_space(end[-1]))
			end--;
		items[count++] = arena_strndup(a, start, (size_t)(end - start));
	}
	items[count] = NULL;
	*ret_count = count;
	return items;
}

#include "conf/expand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH_LIMIT = 4096, RESULT_LIMIT = 64 << 20 };

struct directive { /* %(name)<flags><width>.<precision><conversion> */
	const char *name;
	bool minus, zero, plus, space, alternate;
	int width, precision; /* precision -1 = none */
	char conversion;
};

struct value {
	const char *text;
	long number;
};

/* The name between the brackets: brackets inside must match, as Python wants it. */
static const char *take_name(struct arena *a, const char **at)
{
	const char *start = *at, *p = start;
	int depth = 1;

	for (; *p; p++) {
		if (*p == '(')
			depth++;
		else if (*p == ')' && --depth == 0)
			break;
	}
	if (!*p)
		return NULL;
	*at = p + 1;
	return arena_strndup(a, start, (size_t)(p - start));
}

static int take_number(const char **at)
{
	int n = 0;

	for (; **at >= '0' && **at <= '9'; (*at)++) {
		if (n <= WIDTH_LIMIT)
			n = n * 10 + (**at - '0');
	}
	return n;
}

static int take_directive(struct arena *a, const char **at, struct directive *d, struct err *e)
{
	const char *start = *at - 1, *p = *at + 1;

	memset(d, 0, sizeof(*d));
	d->precision = -1;
	d->name = take_name(a, &p);
	if (!d->name)
		return err_set(e, ERR_CONFIG, "'%.20s': the ')' is missing", start);
	for (; *p && strchr("-0+ #", *p); p++) {
		d->minus |= *p == '-';
		d->zero |= *p == '0';
		d->plus |= *p == '+';
		d->space |= *p == ' ';
		d->alternate |= *p == '#';
	}
	d->width = take_number(&p);
	if (*p == '.') {
		p++;
		d->precision = take_number(&p);
	}
	if (d->width > WIDTH_LIMIT || d->precision > WIDTH_LIMIT)
		return err_set(
			e, ERR_CONFIG, "%%(%.60s): the width is above %d", d->name, WIDTH_LIMIT);
	if (!*p || !strchr("sdiuxXo", *p))
		return err_set(
			e, ERR_CONFIG, "%%(%.60s): an 's' (or 'd', 'x', 'o') must follow", d->name);
	d->conversion = *p++;
	*at = p;
	return 0;
}

static const char *environment_value(const struct expand_scope *s, const char *name)
{
	for (int list = 1; list >= 0; list--) {
		for (size_t i = s->environment_count[list]; i > 0; i--) {
			if (strcmp(s->environment[list][i - 1].key, name) == 0)
				return s->environment[list][i - 1].value;
		}
	}
	return getenv(name);
}

static int look_up_environment(struct arena *a, const struct expand_scope *s, const char *name,
	struct value *v, struct err *e)
{
	const char *fallback = strstr(name, ":-");

	v->text = environment_value(s, name);
	if (!v->text && fallback) {
		const char *bare = arena_strndup(a, name, (size_t)(fallback - name));
		v->text = environment_value(s, bare);
		/* As in a shell, an empty variable counts as none with ":-". */
		if (!v->text || !v->text[0])
			v->text = fallback + 2;
	}
	if (!v->text)
		return err_set(e, ERR_CONFIG,
			"%%(ENV_%.100s)s: the environment variable %.100s is not set; "
			"%%(ENV_%.100s:-DEFAULT)s gives a default",
			name, name, name);
	return 0;
}

static int look_up(struct arena *a, const struct expand_scope *s, const char *name, struct value *v,
	struct err *e)
{
	memset(v, 0, sizeof(*v));
	if (strncmp(name, "ENV_", 4) == 0)
		return look_up_environment(a, s, name + 4, v, e);
	if (strcmp(name, "here") == 0 && s->here) {
		v->text = s->here;
		return 0;
	}
	for (size_t i = 0; i < s->var_count; i++) {
		if (strcmp(s->vars[i].name, name) == 0) {
			v->text = s->vars[i].text;
			v->number = s->vars[i].number;
			return 0;
		}
	}
	return err_set(e, ERR_CONFIG,
		"%%(%.100s)s is not known here; known are here, host_node_name, ENV_NAME and, in a "
		"program, program_name, group_name, process_num, numprocs, fd_SOCKET, "
		"listen_SOCKET, and with 'probe = yes' fd_probe, listen_probe",
		name);
}

static int print_number(
	struct text *out, const struct directive *d, const struct value *v, struct err *e)
{
	char format[48];

	if (v->text)
		return err_set(e, ERR_CONFIG, "%%(%.100s)%c: this is text; write %%(%.100s)s",
			d->name, d->conversion, d->name);
	if (d->precision >= 0)
		snprintf(format, sizeof(format), "%%%s%s%s%s%s%.0d.%dl%c", d->minus ? "-" : "",
			d->zero ? "0" : "", d->plus ? "+" : "", d->space ? " " : "",
			d->alternate ? "#" : "", d->width, d->precision,
			d->conversion == 'u' || d->conversion == 'i' ? 'd' : d->conversion);
	else
		snprintf(format, sizeof(format), "%%%s%s%s%s%s%.0dl%c", d->minus ? "-" : "",
			d->zero ? "0" : "", d->plus ? "+" : "", d->space ? " " : "",
			d->alternate ? "#" : "", d->width,
			d->conversion == 'u' || d->conversion == 'i' ? 'd' : d->conversion);
	text_printf(out, format, v->number);
	return 0;
}

static int print_directive(
	struct text *out, const struct directive *d, const struct value *v, struct err *e)
{
	const char *s = v->text ? v->text : arena_printf(out->arena, "%ld", v->number);
	size_t bytes = strlen(s), pad;

	if (d->conversion != 's')
		return print_number(out, d, v, e);
	if (d->precision >= 0 && (size_t)d->precision < bytes)
		bytes = (size_t)d->precision;
	pad = (size_t)d->width > bytes ? (size_t)d->width - bytes : 0;
	for (size_t i = 0; i < pad && !d->minus; i++)
		text_add(out, " ", 1);
	text_add(out, s, bytes);
	for (size_t i = 0; i < pad && d->minus; i++)
		text_add(out, " ", 1);
	return 0;
}

const char *expand(
	struct arena *a, const char *text, const struct expand_scope *scope, struct err *e)
{
	const char *p = strchr(text, '%'), *next;
	struct text out;

	if (!p)
		return text;
	text_init(&out, a);
	text_add(&out, text, (size_t)(p - text));
	while (*p) {
		struct directive d;
		struct value v;

		p++;
		if (*p == '%') {
			text_add(&out, p++, 1);
		} else if (*p == '(') {
			if (take_directive(a, &p, &d, e) < 0 ||
				look_up(a, scope, d.name, &v, e) < 0 ||
				print_directive(&out, &d, &v, e) < 0)
				return NULL;
		} else {
			err_set(e, ERR_CONFIG,
				"a bare '%%' (in '%.20s'): write '%%%%' for the sign itself",
				p - 1);
			return NULL;
		}
		if (out.length > RESULT_LIMIT) {
			err_set(e, ERR_LIMIT, "longer than %d MiB when expanded",
				RESULT_LIMIT >> 20);
			return NULL;
		}
		next = strchr(p, '%');
		if (!next)
			next = p + strlen(p);
		text_add(&out, p, (size_t)(next - p));
		p = next;
	}
	return text_string(&out);
}

bool expand_uses(const char *text, const char *variable)
{
	size_t bytes = strlen(variable);

	for (const char *p = text; (p = strstr(p, "%(")) != NULL; p += 2) {
		if (strncmp(p + 2, variable, bytes) == 0 && p[2 + bytes] == ')')
			return true;
	}
	return false;
}

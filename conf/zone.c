/* TZif files (RFC 8536): found, checked, read. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/zone_internal.h"

enum {
	HEADER_BYTES = 44,
	FILE_BYTES = 256 << 10, /* the largest of the database has 4 KB */
	MOST_CHANGES = 20000,
	NAME_BYTES = 255,
	RULE_BYTES = 255,
	OFFSET_MOST = 26 * 3600,
};

static const char *const folders[] = {
	"/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"};

/* --- one file -------------------------------------------------------------------------------- */

struct counts {
	uint32_t utc, standard, leap, times, types, letters;
};

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t get_time(const unsigned char *p, size_t width)
{
	if (width == 4)
		return (int32_t)get32(p);
	return (int64_t)((uint64_t)get32(p) << 32 | get32(p + 4));
}

static bool header(const unsigned char *p, const unsigned char *end, struct counts *c)
{
	if (end - p < HEADER_BYTES || memcmp(p, "TZif", 4) != 0)
		return false;
	*c = (struct counts){get32(p + 20), get32(p + 24), get32(p + 28), get32(p + 32),
		get32(p + 36), get32(p + 40)};
	return c->times <= MOST_CHANGES && c->types >= 1 && c->types <= 256 &&
	       c->letters <= FILE_BYTES && c->leap <= MOST_CHANGES && c->utc <= 256 &&
	       c->standard <= 256;
}

static size_t block_bytes(const struct counts *c, size_t width)
{
	return c->times * (width + 1) + c->types * 6 + c->letters + c->leap * (width + 4) +
	       c->standard + c->utc;
}

/* An empty zone called NAME with room for COUNT changes. */
static struct zone *make(const char *name, size_t count)
{
	size_t times = count * sizeof(int64_t), offsets = (count + 1) * sizeof(int32_t);
	char *block = calloc(1, sizeof(struct zone) + times + offsets + strlen(name) + 1);
	struct zone *z = (struct zone *)block;

	if (!z)
		return NULL;
	z->times = (int64_t *)(block + sizeof(*z));
	z->offsets = (int32_t *)(block + sizeof(*z) + times);
	z->name = strcpy(block + sizeof(*z) + times + offsets, name);
	return z;
}

/* The changes and offsets at P into Z. False: the file contradicts itself. */
static bool take_changes(
	struct zone *z, const unsigned char *p, const struct counts *c, size_t width)
{
	const unsigned char *index = p + c->times * width, *types = index + c->times;
	int64_t *times = (int64_t *)z->times;
	int32_t *offsets = (int32_t *)z->offsets;

	for (uint32_t i = 0; i < c->types; i++) {
		int32_t offset = (int32_t)get32(types + 6 * i);
		if (offset < -OFFSET_MOST || offset > OFFSET_MOST)
			return false;
	}
	offsets[0] = (int32_t)get32(types);
	for (uint32_t i = 0; i < c->times; i++) {
		int64_t at = get_time(p + i * width, width);
		int32_t offset;
		if (index[i] >= c->types || (z->count > 0 && at <= times[z->count - 1]))
			return false;
		offset = (int32_t)get32(types + 6 * index[i]);
		if (offset == offsets[z->count] && i + 1 < c->times)
			continue; /* another name for the same time; the rule counts from the last
				   */
		times[z->count++] = at;
		offsets[z->count] = offset;
	}
	return true;
}

/* The line after the last block: "\nCET-1CEST,M3.5.0,M10.5.0/3\n". */
static bool take_rule(struct zone *z, const unsigned char *p, const unsigned char *end)
{
	const unsigned char *line_end;
	char text[RULE_BYTES + 1];

	if (p == end || *p != '\n')
		return false;
	line_end = memchr(p + 1, '\n', (size_t)(end - p - 1));
	if (!line_end || line_end - p - 1 > RULE_BYTES)
		return false;
	memcpy(text, p + 1, (size_t)(line_end - p - 1));
	text[line_end - p - 1] = '\0';
	if (!text[0])
		return true; /* the last offset stays */
	z->has_rule = true;
	return zone_rule_parse(text, &z->rule) == 0;
}

/* NULL and *RET_WHY when it is not one. */
static struct zone *parse(
	const char *name, const unsigned char *p, size_t bytes, const char **ret_why)
{
	const unsigned char *end = p + bytes;
	struct counts c;
	struct zone *z;
	size_t width = 4;
	bool good;

	*ret_why = "is not a time zone file (TZif)";
	if (!header(p, end, &c))
		return NULL;
	if (p[4] >= '2') { /* all of it once more, with times of 8 bytes */
		if (block_bytes(&c, width) > (size_t)(end - p) - HEADER_BYTES)
			return NULL;
		p += HEADER_BYTES + block_bytes(&c, width);
		width = 8;
		if (!header(p, end, &c))
			return NULL;
	}
	p += HEADER_BYTES;
	if (block_bytes(&c, width) > (size_t)(end - p))
		return NULL;
	if (c.leap > 0) {
		*ret_why = "counts leap seconds: take the zone of the same name without 'right/'";
		return NULL;
	}
	z = make(name, c.times);
	good = z && take_changes(z, p, &c, width) &&
	       (width == 4 || take_rule(z, p + block_bytes(&c, width), end));
	if (good)
		return z;
	*ret_why = z ? "is a damaged time zone file" : "cannot be read: out of memory";
	free(z);
	return NULL;
}

/* 0; ERR_UNAVAILABLE: there is no such file; else ERR_CONFIG. */
static int load_file(const char *name, const char *path, struct zone **ret_zone, struct err *e)
{
	unsigned char *bytes;
	ssize_t n, total = 0;
	const char *why = "";
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return err_set(e, ERR_UNAVAILABLE, "'%.200s' does not exist", path);
	if (fd < 0)
		return err_set(e, ERR_CONFIG, "cannot read '%.200s': %s", path, strerror(errno));
	bytes = malloc(FILE_BYTES);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !bytes) {
		free(bytes);
		close(fd);
		return err_set(e, ERR_CONFIG, "'%.200s' is not a time zone file (TZif)", path);
	}
	while (total < FILE_BYTES &&
		(n = read(fd, bytes + total, (size_t)(FILE_BYTES - total))) > 0)
		total += n;
	close(fd);
	*ret_zone = parse(name, bytes, (size_t)total, &why);
	free(bytes);
	return *ret_zone ? 0 : err_set(e, ERR_CONFIG, "'%.200s' %s", path, why);
}

/* --- names ----------------------------------------------------------------------------------- */

/* Letters, digits, "_+-." and '/' between words that are not only dots. */
static bool is_name(const char *name)
{
	const char *word = name;

	if (!name[0] || strlen(name) > NAME_BYTES)
		return false;
	for (const char *p = name;; p++) {
		if (*p == '/' || !*p) {
			if (word[0] == '.' || p == word)
				return false;
			if (!*p)
				return true;
			word = p + 1;
		} else if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
				   "+-.",
				   *p)) {
			return false;
		}
	}
}

static const char *database(void)
{
	const char *own = getenv("TZDIR");

	if (own && own[0] == '/')
		return own;
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		if (access(folders[i], X_OK) == 0)
			return folders[i];
	}
	return NULL;
}

static bool is_utc(const char *name)
{
	static const char *const names[] = {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z", "Zulu"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcasecmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static bool same_but_for_case(const char *line, const char *name, char *buf, size_t bytes)
{
	size_t skip = strcspn(line, "\t"), length;

	for (int column = 1; column < 3 && line[skip] == '\t'; column++) {
		line += skip + 1;
		skip = strcspn(line, "\t\n");
	}
	length = strcspn(line, "\t\n");
	snprintf(buf, bytes, "%.*s", (int)length, line);
	if (strcasecmp(buf, name) == 0)
		return true;
	return strrchr(buf, '/') && strcasecmp(strrchr(buf, '/') + 1, name) == 0;
}

/* "berlin" and "europe/berlin" are Europe/Berlin. */
static bool nearest(const char *folder, const char *name, char *buf, size_t bytes)
{
	char path[PATH_MAX], line[512];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/zone1970.tab", folder);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = line[0] != '#' && same_but_for_case(line, name, buf, bytes);
	if (f)
		fclose(f);
	return found;
}

static int load_name(const char *name, struct zone **ret_zone, struct err *e)
{
	const char *folder = database();
	char path[PATH_MAX], near[NAME_BYTES + 1];
	int rc;

	if (!is_name(name))
		return err_set(e, ERR_CONFIG,
			"'%.60s' is no name of a time zone, as Europe/Berlin or UTC", name);
	if (is_utc(name)) {
		*ret_zone = make(name, 0);
		return *ret_zone ? 0 : err_set(e, ERR_CONFIG, "out of memory");
	}
	if (!folder)
		return err_set(e, ERR_CONFIG,
			"there is no time zone database (%s): install tzdata, or use UTC",
			folders[0]);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	rc = load_file(name, path, ret_zone, e);
	if (rc != ERR_UNAVAILABLE)
		return rc;
	if (nearest(folder, name, near, sizeof(near)))
		return err_set(e, ERR_CONFIG,
			"there is no time zone '%.60s' in %.200s; did you mean '%s'?", name, folder,
			near);
	return err_set(e, ERR_CONFIG,
		"there is no time zone '%.60s' in %.200s: give a name as Europe/Berlin or UTC",
		name, folder);
}

/* The part of a path that is a name: /usr/share/zoneinfo/Europe/Berlin. */
static const char *name_of_path(const char *path)
{
	const char *part = strstr(path, "/zoneinfo/");

	if (!part)
		return NULL;
	part += strlen("/zoneinfo/");
	return is_name(part) ? part : NULL;
}

static int load_localtime(struct zone **ret_zone, struct err *e)
{
	char target[PATH_MAX];
	ssize_t n = readlink("/etc/localtime", target, sizeof(target) - 1);
	const char *name = NULL;
	int rc;

	if (n > 0) {
		target[n] = '\0';
		name = name_of_path(target);
	}
	rc = load_file(name ? name : "system", "/etc/localtime", ret_zone, e);
	if (rc != ERR_UNAVAILABLE)
		return rc;
	*ret_zone = make("UTC", 0); /* as libc does */
	return *ret_zone ? 0 : err_set(e, ERR_CONFIG, "out of memory");
}

/* --- public ---------------------------------------------------------------------------------- */

int zone_load_tz(const char *tz, struct zone **ret_zone, struct err *e)
{
	struct zone_rule rule;
	const char *name;
	int rc;

	if (!tz)
		return load_localtime(ret_zone, e);
	if (*tz == ':')
		tz++;
	if (!*tz)
		return load_name("UTC", ret_zone, e);
	if (*tz == '/') {
		name = name_of_path(tz);
		rc = load_file(name ? name : tz, tz, ret_zone, e);
	} else {
		rc = load_name(tz, ret_zone, e);
	}
	if (rc < 0 && zone_rule_parse(tz, &rule) == 0) {
		*ret_zone = make(tz, 0);
		if (!*ret_zone)
			return err_set(e, ERR_CONFIG, "out of memory");
		(*ret_zone)->has_rule = true;
		(*ret_zone)->rule = rule;
		return 0;
	}
	if (rc < 0) {
		err_prefix(e, "TZ is '%.60s'", tz);
		return ERR_CONFIG;
	}
	return 0;
}

int zone_load(const char *name, struct zone **ret_zone, struct err *e)
{
	if (!name[0] || strcasecmp(name, "system") == 0)
		return zone_load_tz(getenv("TZ"), ret_zone, e);
	return load_name(name, ret_zone, e);
}

void zone_free(struct zone *z)
{
	free(z);
}

const char *zone_name(const struct zone *z)
{
	return z->name;
}

struct zone_span zone_span_at(const struct zone *z, int64_t utc)
{
	int first = 0, last = z->count; /* how many changes are not after UTC */
	struct zone_span span;

	while (first < last) {
		int middle = first + (last - first + 1) / 2;
		if (z->times[middle - 1] <= utc)
			first = middle;
		else
			last = middle - 1;
	}
	span.start = first > 0 ? z->times[first - 1] : INT64_MIN;
	span.end = first < z->count ? z->times[first] : INT64_MAX;
	span.offset = z->offsets[first];
	if (first == z->count && z->has_rule) {
		struct zone_span ruled = zone_rule_span(&z->rule, utc);
		span.start = ruled.start > span.start ? ruled.start : span.start;
		span.end = ruled.end;
		span.offset = ruled.offset;
	}
	return span;
}

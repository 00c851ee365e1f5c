#include "common/compress_spec.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <zstd.h>

#define INVALID "invalid compression specification: "

/* What a method takes (src/common/compression.c, validate_compress_specification). */
struct method_rules {
	const char *name;
	bool takes_level;
	int min_level, max_level, default_level;
	bool takes_workers, takes_long;
};

static struct method_rules rules_of(enum pgr_compression method)
{
	switch (method) {
	case PGR_COMP_GZIP:
		return (struct method_rules){"gzip", true, 1, 9, -1, false, false};
	case PGR_COMP_LZ4:
		return (struct method_rules){"lz4", true, 1, 12, 0, false, false};
	case PGR_COMP_ZSTD:
		return (struct method_rules){"zstd", true, ZSTD_minCLevel(), ZSTD_maxCLevel(), ZSTD_CLEVEL_DEFAULT,
					     true,   true};
	case PGR_COMP_NONE:
		break;
	}
	return (struct method_rules){.name = "none"};
}

static bool method_by_name(const char *name, enum pgr_compression *out)
{
	static const enum pgr_compression all[] = {PGR_COMP_NONE, PGR_COMP_GZIP, PGR_COMP_LZ4, PGR_COMP_ZSTD};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(name, rules_of(all[i]).name) == 0) {
			*out = all[i];
			return true;
		}
	}
	return false;
}

/*
 * A whole string as an integer, blanks before it and a sign allowed as the stock tools do.  What int cannot hold
 * becomes its limit, which no method accepts; the stock tools would wrap it around.
 */
static bool int_value(const char *s, int *out)
{
	char *end;
	long v;

	v = strtol(s, &end, 10);
	if (end == s || *end != '\0')
		return false;
	*out = v > INT_MAX ? INT_MAX : v < INT_MIN ? INT_MIN : (int)v;
	return true;
}

static bool bool_value(const char *s, bool *out)
{
	static const char *const words[][2] = {{"no", "yes"}, {"off", "on"}, {"0", "1"}};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		for (int truth = 0; truth < 2; truth++) {
			if (strcasecmp(s, words[i][truth]) == 0) {
				*out = truth;
				return true;
			}
		}
	}
	return false;
}

static int int_option(const char *key, const char *value, bool *has, int *out, struct pgr_err *err)
{
	if (!value)
		return pgr_err_set(err, PGR_E_USAGE, INVALID "compression option \"%s\" requires a value", key);
	if (!int_value(value, out))
		return pgr_err_set(err, PGR_E_USAGE, INVALID "value for compression option \"%s\" must be an integer",
				   key);
	*has = true;
	return PGR_OK;
}

/* One KEY or KEY=VALUE; value is NULL without "=". */
static int apply_option(struct pgr_compress_spec *spec, const char *key, const char *value, struct pgr_err *err)
{
	if (*key == '\0')
		return pgr_err_set(err, PGR_E_USAGE,
				   INVALID "found empty string where a compression option was expected");
	if (strcmp(key, "level") == 0)
		return int_option(key, value, &spec->has_level, &spec->level, err);
	if (strcmp(key, "workers") == 0)
		return int_option(key, value, &spec->has_workers, &spec->workers, err);
	if (strcmp(key, "long") == 0) {
		spec->has_long = true;
		spec->long_distance = true;
		if (value && !bool_value(value, &spec->long_distance))
			return pgr_err_set(err, PGR_E_USAGE,
					   INVALID "value for compression option \"%s\" must be a Boolean value", key);
		return PGR_OK;
	}
	return pgr_err_set(err, PGR_E_USAGE, INVALID "unrecognized compression option: \"%s\"", key);
}

/* DETAIL: an integer alone is the level, otherwise a list of options. */
static int parse_detail(struct pgr_compress_spec *spec, struct pgr_err *err)
{
	char copy[sizeof(spec->detail)];
	char *item = copy, *next;

	if (!spec->has_detail)
		return PGR_OK;
	if (int_value(spec->detail, &spec->level)) {
		spec->has_level = true;
		return PGR_OK;
	}
	strcpy(copy, spec->detail);
	for (; item; item = next) {
		char *value;

		next = strchr(item, ',');
		if (next)
			*next++ = '\0';
		value = strchr(item, '=');
		if (value)
			*value++ = '\0';
		if (apply_option(spec, item, value, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/* Whether the options make sense for the method. */
static int check_options(const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	struct method_rules r = rules_of(spec->method);
	int level = spec->has_level ? spec->level : r.default_level;

	if (level != r.default_level) {
		if (!r.takes_level)
			return pgr_err_set(err, PGR_E_USAGE,
					   INVALID "compression algorithm \"%s\" does not accept a compression level",
					   r.name);
		if (level < r.min_level || level > r.max_level)
			return pgr_err_set(err, PGR_E_USAGE,
					   INVALID "compression algorithm \"%s\" expects a compression level between "
						   "%d and %d (default at %d)",
					   r.name, r.min_level, r.max_level, r.default_level);
	}
	if (spec->has_workers && !r.takes_workers)
		return pgr_err_set(err, PGR_E_USAGE,
				   INVALID "compression algorithm \"%s\" does not accept a worker count", r.name);
	if (spec->has_long && !r.takes_long)
		return pgr_err_set(err, PGR_E_USAGE,
				   INVALID "compression algorithm \"%s\" does not support long-distance mode", r.name);
	return PGR_OK;
}

/* Splits METHOD[:DETAIL], or a number, which means a gzip level, 0 (and nothing at all) no compression. */
static int split(struct pgr_compress_spec *spec, const char *arg, struct pgr_err *err)
{
	const char *colon = strchr(arg, ':');
	const char *detail = colon ? colon + 1 : NULL;
	size_t name_len = colon ? (size_t)(colon - arg) : strlen(arg);
	const char *name = arg;
	int number = 0;

	if (*arg == '\0' || int_value(arg, &number)) {
		name = number == 0 ? "none" : "gzip";
		name_len = strlen(name);
		detail = number == 0 ? NULL : arg;
	}
	if (name_len >= sizeof(spec->name))
		return pgr_err_set(err, PGR_E_USAGE, "unrecognized compression algorithm: \"%.*s\"", (int)name_len,
				   name);
	if (detail && strlen(detail) >= sizeof(spec->detail))
		return pgr_err_set(err, PGR_E_USAGE, INVALID "it is longer than %zu bytes", sizeof(spec->detail) - 1);
	memcpy(spec->name, name, name_len);
	if (detail) {
		strcpy(spec->detail, detail);
		spec->has_detail = true;
	}
	return PGR_OK;
}

int pgr_compress_spec_parse(struct pgr_compress_spec *out, const char *arg, struct pgr_err *err)
{
	struct pgr_compress_spec spec = {0};
	bool known;

	if (strncmp(arg, "server-", 7) == 0) {
		spec.where = PGR_COMP_SERVER;
		arg += 7;
	} else if (strncmp(arg, "client-", 7) == 0) {
		spec.where = PGR_COMP_CLIENT;
		arg += 7;
	}
	if (split(&spec, arg, err) != PGR_OK)
		return PGR_ERR;
	known = method_by_name(spec.name, &spec.method);
	if (spec.where == PGR_COMP_SERVER) {
		struct pgr_err ignored;

		(void)parse_detail(&spec, &ignored);
	} else if (!known) {
		return pgr_err_set(err, PGR_E_USAGE, "unrecognized compression algorithm: \"%s\"", spec.name);
	} else if (parse_detail(&spec, err) != PGR_OK || check_options(&spec, err) != PGR_OK) {
		return PGR_ERR;
	}
	*out = spec;
	return PGR_OK;
}

/*
 * Lists of connection settings: keywords and values as libpq has them.  A list ends with a NULL keyword; an empty value
 * is none.
 */
#ifndef PGR_PROTO_SETTINGS_H
#define PGR_PROTO_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* One connection keyword and its value. */
struct pgr_setting {
	char *keyword;
	char *value;
};

/* Whether there is a value. */
static inline bool pgr_setting_given(const char *value)
{
	return value != NULL && value[0] != '\0';
}

/* The value, "" where there is none. */
static inline const char *pgr_setting_text(const char *value)
{
	return value != NULL ? value : "";
}

/* The value of a keyword, in the list (NULL: an empty one); NULL: it is not there. */
const char *pgr_settings_find(const struct pgr_setting *list, const char *keyword);

/* Appends copies to a list, which is zeroed memory with room for it and for the end. */
int pgr_settings_add(struct pgr_setting *list, const char *keyword, const char *value,
		     struct pgr_err *err) PGR_MUST_USE;

/* *out is a copy of `list`, which the caller frees with pgr_settings_free; NULL after a failure. */
int pgr_settings_copy(const struct pgr_setting *list, struct pgr_setting **out, struct pgr_err *err) PGR_MUST_USE;

/* Overwrites the values, among which there may be a password, and frees the list.  NULL is allowed. */
void pgr_settings_free(struct pgr_setting *list);

/* Overwrites and frees a string that may be a password.  NULL is allowed. */
void pgr_secret_free(char *s);

#endif

/*
 * Names of files as text: nothing here looks at a file system.
 */
#ifndef PGR_COMMON_PATH_H
#define PGR_COMMON_PATH_H

#include <stdbool.h>
#include <stddef.h>

/* Whether name[0..len) is "." or "..". */
bool pgr_path_is_dots(const char *name, size_t len);

/*
 * Whether `path` may name something below a directory: not empty, relative, no empty, "." or ".."
 * component (one trailing slash is allowed), shorter than PATH_MAX.  Whoever has a length as well looks for a NUL
 * inside.
 */
bool pgr_path_is_safe(const char *path);

/*
 * Canonicalises a path that a person gave, textually, as PostgreSQL's canonicalize_path (src/port/path.c) does for
 * Unix: no double slashes, no trailing slash, "." dropped, ".." resolved where a component precedes it.  What then has
 * no component left is "."; an empty path stays empty.  In place; never longer.
 */
void pgr_path_canonicalize(char *path);

#endif

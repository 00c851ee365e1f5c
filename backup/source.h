/*
 * A byte source that is pulled: what a tar reader or a decompressor reads from.
 */
#ifndef PGR_BACKUP_SOURCE_H
#define PGR_BACKUP_SOURCE_H

#include <stddef.h>

#include "common/err.h"

struct pgr_source {
	/* Reads 1..cap bytes into dst; *n == 0 at the end of the source.  Blocks.  Shorter reads than cap are normal.
	 */
	int (*read)(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err);
};

static inline int PGR_MUST_USE pgr_source_read(struct pgr_source *s, void *dst, size_t cap, size_t *n,
					       struct pgr_err *err)
{
	return s->read(s, dst, cap, n, err);
}

/* Reads exactly `len` bytes; PGR_MORE when the source ends before the first of them, PGR_E_DATA when it ends after
 * that. */
int pgr_source_read_full(struct pgr_source *s, void *dst, size_t len, struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * Files of an incremental backup: which blocks of a file changed, and these; applied to the file in place.
 *
 * Source: PostgreSQL src/backend/backup/basebackup_incremental.c (GetFileBackupMethod), basebackup.c (sendFile),
 * src/bin/pg_combinebackup/reconstruct.c.
 */
#ifndef PGR_BACKUP_INCREMENTAL_H
#define PGR_BACKUP_INCREMENTAL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/source.h"
#include "common/err.h"

struct pgr_sys;

#define PGR_NO_LIMIT UINT32_MAX /* a relation that was never truncated */

/* Valid when zeroed. */
struct pgr_incremental {
	uint32_t page_bytes;
	uint32_t truncation; /* truncation_block_length, the segment's at most: the file has at least so many blocks */
	uint32_t nblocks;
	uint32_t *blocks; /* which ones come, ascending, counted from the start of the segment */
};

void pgr_incremental_fini(struct pgr_incremental *inc);

/* Whether the last component of `path` is "INCREMENTAL.<name>"; `out` is then the path without that prefix. */
bool pgr_incremental_path(const char *path, char out[PATH_MAX]);

/*
 * Reads what comes before the blocks of a file of `size` bytes: `source` stands at the first block then.  PGR_E_DATA:
 * it is none, block numbers are not ascending or beyond the segment, or its size is not what its head says.
 * `name` is for messages.
 */
int pgr_incremental_read(struct pgr_incremental *out, struct pgr_source *source, uint64_t size, uint32_t page_bytes,
			 uint32_t segment_blocks, const char *name, struct pgr_err *err) PGR_MUST_USE;

/*
 * A limit block of a relation (see walsummary.h), seen from one of its segments: PGR_NO_LIMIT when there is none, 0
 * when nothing of the segment was left.
 */
uint32_t pgr_segment_limit(uint32_t limit, uint32_t segment, uint32_t segment_blocks);

/*
 * So many blocks of the old file count; `limit` is that of the segment.  A block at or above the limit was cut off
 * since and is zeros unless it comes: the server's `truncation` alone is not to be relied on, since it is the larger
 * one of limit and present size.
 */
uint32_t pgr_incremental_kept(const struct pgr_incremental *inc, uint32_t limit);

/* So many blocks the file has afterwards. */
uint32_t pgr_incremental_blocks(const struct pgr_incremental *inc);

/* Whether this block comes. */
bool pgr_incremental_has(const struct pgr_incremental *inc, uint32_t block);

/*
 * Changes the file: cuts it to what is kept, writes the blocks as they come out of `source`, gives it its length (what
 * is in between is zeros).  `fd` is open for writing.  Nothing is synced.  Whatever has been written when it fails
 * half-way is written again when the same is done again.
 */
int pgr_incremental_apply(const struct pgr_incremental *inc, const struct pgr_sys *sys, int fd, const char *name,
			  uint32_t limit, struct pgr_source *source, struct pgr_err *err) PGR_MUST_USE;

#endif

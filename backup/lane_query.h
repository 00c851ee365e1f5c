/*
 * The query that reads pieces of files, or only their digests: one row for each row of each piece, in the order of the
 * pieces.
 */
#ifndef PGR_BACKUP_LANE_QUERY_H
#define PGR_BACKUP_LANE_QUERY_H

#include <stddef.h>

#include "backup/lane_work.h"
#include "backup/rowsum.h"
#include "common/buf.h"
#include "common/err.h"

/*
 * Replaces what is in `out`.  The value of a row is NULL when its file does not exist, and shorter than its row when
 * the file ends earlier.  The session has standard_conforming_strings on.
 *
 * With `sums` each row has a second column: its digest (see rowsum.h), of the very bytes that the first one has.
 */
int pgr_lane_query(struct pgr_buf *out, const struct pgr_filelist *list, const struct pgr_lane_piece *pieces, size_t n,
		   enum pgr_rowsum_algo sums, struct pgr_err *err) PGR_MUST_USE;

/* The same with the digest alone. */
int pgr_lane_query_sums(struct pgr_buf *out, const struct pgr_filelist *list, const struct pgr_lane_piece *pieces,
			size_t n, enum pgr_rowsum_algo sums, struct pgr_err *err) PGR_MUST_USE;

#endif

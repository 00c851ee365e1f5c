/*
 * What lies here of the ranges that a lane compares: read and hashed in its own thread, while the server hashes the
 * same.
 */
#ifndef PGR_BACKUP_LANE_LOCAL_H
#define PGR_BACKUP_LANE_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/lane_files.h"
#include "backup/lane_work.h"
#include "backup/rowsum.h"
#include "common/err.h"

struct pgr_filelist;
struct pgr_pagecheck;
struct pgr_sys;

struct pgr_lane_chunk {
	uint8_t sum[PGR_ROWSUM_MAX]; /* as the server's row has it; see pgr_rowsum_row */
	uint32_t before, after;	     /* CRC-32C of the piece as it was read, up to this chunk and up to its end */
	bool whole;		     /* all of it is here; otherwise nothing else of this is set */
	bool suspect;		     /* a page of it has a wrong checksum */
};

/* One lane's; of one thread.  Valid for _fini when zeroed. */
struct pgr_lane_local {
	/* constant */
	const struct pgr_sys *sys;
	const struct pgr_filelist *list;
	struct pgr_lane_files *files;
	struct pgr_pagecheck *pages; /* NULL: pages are not looked at */
	struct pgr_lane_dir *dir;    /* the lane's */
	struct pgr_rowsum *sum;	     /* the lane's, of the session's algorithm */

	struct pgr_lane_chunk *chunks; /* of the request that was hashed last, from where it was then */
	size_t n, cap;

	uint8_t *buf; /* aligned for O_DIRECT */
	int fd;	      /* of `file`; -1 */
	size_t file;
};

void pgr_lane_local_fini(struct pgr_lane_local *l);

/* Reads and hashes what is left of a request. */
int pgr_lane_local_hash(struct pgr_lane_local *l, const struct pgr_lane_request *q, struct pgr_err *err) PGR_MUST_USE;

/* Looks again at the pages of a range, of at most PGR_LANE_ROW_MAX bytes, that stays: for a suspect chunk.  PGR_MORE:
 * it cannot be read any more. */
int pgr_lane_local_check_pages(struct pgr_lane_local *l, size_t file, uint64_t off, uint64_t len,
			       struct pgr_err *err) PGR_MUST_USE;

#endif

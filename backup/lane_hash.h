/*
 * What a lane does with the digests of a request to compare: what is the same stays, what differs is to be fetched.
 *
 * A digest that is not ours may mean anything (other bytes, a file that was cut or is gone, a damaged row): whoever
 * fetches the chunk will see.  One that is ours tells that the server's file has these bytes at this place (see
 * rowsum.h), now, after the backup began.
 */
#ifndef PGR_BACKUP_LANE_HASH_H
#define PGR_BACKUP_LANE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/lane_local.h"
#include "backup/lane_work.h"
#include "backup/rowsum.h"
#include "common/err.h"

/* One lane's; of one thread.  Valid for _fini when zeroed. */
struct pgr_lane_hash {
	struct pgr_lane_local local;
	struct pgr_lane_work *work;
	uint32_t largest_row; /* as in pgr_lane_row_bytes */
	bool compare_only;
	bool begun;  /* the chunks of the request that is under way were hashed here */
	size_t next; /* of them: the one whose row comes next */

	/* chunks that stay, follow each other and were not counted yet */
	size_t run_file;
	uint64_t run_from, run_to; /* the same: there are none */
	uint32_t run_before, run_after;

	/* what differs of the request */
	struct pgr_lane_piece *differs;
	size_t n, cap;
};

void pgr_lane_hash_fini(struct pgr_lane_hash *h);

/* Before the rows of a request are looked at: hashes what lies here of it.  Nothing when that was done. */
int pgr_lane_hash_begin(struct pgr_lane_hash *h, const struct pgr_lane_request *q, struct pgr_err *err) PGR_MUST_USE;

/*
 * The next row of a request, as the server computed it: moves the piece that is under way on.  *done is the number of
 * its bytes.
 */
int pgr_lane_hash_row(struct pgr_lane_hash *h, struct pgr_lane_request *q, const uint8_t *theirs, uint64_t *done,
		      struct pgr_err *err) PGR_MUST_USE;

/* The request is over, or given up: counts what stays, hands on what is to be fetched, as far as rows came. */
int pgr_lane_hash_end(struct pgr_lane_hash *h, struct pgr_err *err) PGR_MUST_USE;

/* The same after an error that ends everything: forgets it. */
void pgr_lane_hash_forget(struct pgr_lane_hash *h);

#endif

/*
 * Ranges that comparisons found to differ, gathered to requests to fetch.
 *
 * Not thread-safe: see lane_work.
 */
#ifndef PGR_BACKUP_LANE_ADDED_H
#define PGR_BACKUP_LANE_ADDED_H

#include <stdbool.h>
#include <stddef.h>

#include "backup/lane_work.h"
#include "common/err.h"

struct pgr_lane_added {
	struct pgr_lane_request *full, **tail; /* first come, first served */
	struct pgr_lane_request *filling;      /* has room for more; NULL */
	unsigned batches;		       /* in it */
};

void pgr_lane_added_init(struct pgr_lane_added *a);
/* Frees what nobody took. */
void pgr_lane_added_fini(struct pgr_lane_added *a);

/* Adds the pieces (n > 0) of one comparison, which stay together. */
int pgr_lane_added_put(struct pgr_lane_added *a, const struct pgr_lane_piece *pieces, size_t n,
		       struct pgr_err *err) PGR_MUST_USE;

/* A request that is worth one, or, with `any`, what there is; the caller's.  NULL: there is none. */
struct pgr_lane_request *pgr_lane_added_take(struct pgr_lane_added *a, bool any);

#endif

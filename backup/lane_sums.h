/*
 * Checksums of files that lie here and did not pass through a writer: read once more, in threads.
 */
#ifndef PGR_BACKUP_LANE_SUMS_H
#define PGR_BACKUP_LANE_SUMS_H

#include "common/digest.h"
#include "common/err.h"

struct pgr_filelist;
struct pgr_lane_files;
struct pgr_stop;
struct pgr_sys;

struct pgr_lane_sums {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	const struct pgr_filelist *list;
	struct pgr_lane_files *files;
	enum pgr_digest_algo digest;
	unsigned threads; /* at least 1 */
};

/*
 * Those of all files of which pgr_lane_files_lacks_sum says so.  A kept file that is none when it is looked at (a link
 * to nowhere, a directory) is left out of the copy.  See pgr_lanes_sum_rest.
 */
int pgr_lane_sums_run(const struct pgr_lane_sums *s, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg,
		      struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * Files that would be kept (--keep, the configuration), but that may be what an unfinished run has left of the
 * server's: they are copied, not kept.
 *
 * A file that was not there when the first run began may have been under way when it ended.  Small ones are written at
 * once, so that a crash leaves them empty, or with zeros at their end.
 */
#ifndef PGR_BACKUP_DELTA_DOUBT_H
#define PGR_BACKUP_DELTA_DOUBT_H

#include "common/err.h"

struct pgr_delta_plan;
struct pgr_filelist;
struct pgr_keep;
struct pgr_layout;
struct pgr_localtree;
struct pgr_sys;

struct pgr_delta_doubt {
	const struct pgr_sys *sys;
	const struct pgr_layout *layout;
	const struct pgr_localtree *tree;
	const struct pgr_filelist *list; /* that the plan was made from; NULL: what the server has is not known */
	const struct pgr_keep *keep;
};

/* Changes the plan: such files are removed, and fetched.  Without a list only configuration files that are kept anyway
 * are doubted. */
int pgr_delta_doubt_kept(const struct pgr_delta_doubt *d, struct pgr_delta_plan *plan,
			 struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * --delta, before the first change: whether the directories are nobody's who works in them, what is in them, and what
 * is to be done with it.  Internal to backup/.
 */
#ifndef PGR_BACKUP_DELTA_LOOK_H
#define PGR_BACKUP_DELTA_LOOK_H

#include <stddef.h>

#include "common/err.h"

struct pgr_bb_tablespace;
struct pgr_run;

/* After pgr_layout_prepare: whether the directories are not the server's own. */
int pgr_delta_look_apart(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* At the end of a source's start, when tablespaces are prepared: checks them likewise, looks at what is here and plans.
 * The first for a source that compares with r->list, the second for one that copies everything. */
int pgr_delta_look_compare(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n,
			   struct pgr_err *err) PGR_MUST_USE;
int pgr_delta_look_full(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n,
			struct pgr_err *err) PGR_MUST_USE;

/* For a source that finds out only at its end what there is to remove: checks the directories and looks at what is
 * here. */
int pgr_delta_look_scan(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n,
			struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * --delta: by which way a directory is made equal to the server's: the WAL summaries, digests of chunks, or a full
 * copy. Internal to backup/.
 *
 * The choice is made from what both sides say before anything was done.  A way may still turn out to be none when it is
 * begun; nothing has been changed here by then, and unless the user has forced that way, the next one takes its place.
 */
#ifndef PGR_BACKUP_DELTA_WAY_H
#define PGR_BACKUP_DELTA_WAY_H

#include <stdbool.h>

#include "common/err.h"

struct pgr_run;

/* After a source was chosen: whether it is one that the options allow; takes the WAL summaries instead where these can
 * be used and are cheaper.  A full copy is announced here. */
int pgr_delta_way_choose(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* The source that compares cannot be used after all; *err says why, and stays when that ends the run.  PGR_OK: the
 * caller begins a full copy in its place. */
int pgr_delta_way_without_lanes(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/*
 * The server has refused what the summary source, which is begun, asked of it; *err says why, and stays when that ends
 * the run.  PGR_OK: another source has taken its place and is begun, r->summary is gone.
 */
int pgr_delta_way_without_summaries(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/*
 * The summary source was begun, and what it had asked the server before does not hold any more.  Begin_again asks
 * everything anew in new sessions and begins once more, with another source when the summaries cannot be used now;
 * r->summary is not the same afterwards.  May_begin_again: a few times a run.
 */
bool pgr_delta_way_may_begin_again(const struct pgr_run *r);
int pgr_delta_way_begin_again(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

#endif

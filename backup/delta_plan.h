/*
 * What a delta has to do: the server's list beside what lies here.
 */
#ifndef PGR_BACKUP_DELTA_PLAN_H
#define PGR_BACKUP_DELTA_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/keep.h"
#include "common/err.h"

struct pgr_filelist;
struct pgr_layout;
struct pgr_localtree;
struct pgr_sys;

enum pgr_delta_action {
	PGR_DELTA_FETCH,   /* there is nothing to compare with: it is made anew and fetched */
	PGR_DELTA_COMPARE, /* a regular file here: chunks are compared, its size becomes the server's */
	PGR_DELTA_KEEP,	   /* it stays as it is here: a file or a link of a kept name, and what the server has below
			      something that is kept and is no directory here */
};

struct pgr_delta_file {
	enum pgr_delta_action action; /* of a directory: FETCH: it is to be made; KEEP: it is there */
	uint64_t local_size;	      /* of a regular file, when COMPARE or KEEP; else 0 */
};

/* Valid when zeroed. */
struct pgr_delta_plan {
	struct pgr_delta_file *files; /* one for each entry of the list, in its order */
	size_t n;
	char **removals; /* paths here that go away, such that what is in a directory comes before it */
	size_t nremovals;
	uint64_t removal_bytes;
	uint64_t fetch_bytes;		/* of the server's sizes: FETCH, and what COMPARE is longer by */
	uint64_t compare_bytes;		/* what there is on both sides */
	size_t nfetch, ncompare, nkeep; /* files, no directories */
	uint64_t wal_bytes;		/* in pg_wal, which pgr_layout_take_over empties */
	size_t nwal;
};

void pgr_delta_plan_fini(struct pgr_delta_plan *p);

/*
 * An entry here goes away when the server's list does not have it or has another type of it; so does a file with
 * several names, which is FETCH then: what is written into it would show under the others, too.  Except:
 * - what `keep` keeps, and the directories that it is in
 * - PGR_OLDDIR_STATE, PGR_OLDDIR_CONTROL, global/pg_control (pgr_olddir_take_over sets it aside) and their directory
 * - pg_wal and what is in it, and in pg_tblspc the directories and links of the layout's tablespaces, and other links
 *   that look like a tablespace's: they are the layout's (pgr_layout_take_over, pgr_layout_link_tablespaces)
 * - in a tablespace outside of the data directory what is neither in the list nor the layout's version_dir
 * - the lost+found of a root; directories that are a root of the layout under another name
 * Kept files that the server does not have are in no list; those that it has are PGR_DELTA_KEEP.
 *
 * PGR_E_USAGE: what would have to go is a mount point, a data directory of its own, or holds something that is kept.
 */
int pgr_delta_plan_make(struct pgr_delta_plan *out, const struct pgr_filelist *list, const struct pgr_localtree *tree,
			const struct pgr_layout *layout, const struct pgr_keep *keep, struct pgr_err *err) PGR_MUST_USE;

/* Carries the removals out, through the layout's roots, no link followed; after pgr_layout_take_over.  What is gone
 * already is no error.  `tick` (NULL is allowed) is called now and then and may end it. */
int pgr_delta_plan_remove(const struct pgr_delta_plan *p, const struct pgr_sys *sys, const struct pgr_layout *layout,
			  int (*tick)(void *arg, struct pgr_err *err), void *arg, struct pgr_err *err) PGR_MUST_USE;

#endif

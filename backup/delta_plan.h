/*
 * What a delta has to do: the server's list beside what lies here.
 */
#ifndef PGR_BACKUP_DELTA_PLAN_H
#define PGR_BACKUP_DELTA_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_filelist;
struct pgr_layout;
struct pgr_localtree;
struct pgr_sys;

/* Names that stay as they are here: patterns of fnmatch (FNM_PATHNAME) on paths as the manifest writes them. */
struct pgr_keep {
	const char *const *patterns;
	size_t n;
	bool no_defaults; /* --no-keep: not postgresql.conf, pg_hba.conf, pg_ident.conf */
};

/* A pattern that matches a directory keeps what is in it.  Relation files, pg_control, PG_VERSION and whatever else
 * decides whether a cluster is right (global/, base/, pg_xact/, pg_multixact/, pg_tblspc/...) are never kept. */
bool pgr_keep_matches(const struct pgr_keep *k, const char *path);

/* Whether a --keep pattern can be accepted.  PGR_E_USAGE: it names something that must be the server's. */
int pgr_keep_check(const char *pattern, struct pgr_err *err) PGR_MUST_USE;

enum pgr_delta_action {
	PGR_DELTA_FETCH,   /* there is nothing to compare with: it is made anew and fetched */
	PGR_DELTA_COMPARE, /* a regular file here: chunks are compared, its size becomes the server's */
	PGR_DELTA_KEEP,	   /* it stays as it is here */
};

struct pgr_delta_file {
	enum pgr_delta_action action; /* of a directory: FETCH: it is to be made; KEEP: it is there */
	uint64_t local_size;	      /* when COMPARE or KEEP */
};

/* Valid when zeroed. */
struct pgr_delta_plan {
	struct pgr_delta_file *files; /* one for each entry of the list, in its order */
	size_t n;
	char **removals; /* paths here that go away, such that what is in a directory comes before it */
	size_t nremovals;
	uint64_t removal_bytes;
	uint64_t fetch_bytes;	/* of the server's sizes: FETCH, and what COMPARE is longer by */
	uint64_t compare_bytes; /* what there is on both sides */
	size_t nfetch, ncompare, nkeep;
};

void pgr_delta_plan_fini(struct pgr_delta_plan *p);

/*
 * An entry here goes away when the server's list does not have it or has another type of it; except: what `keep` keeps;
 * PGR_OLDDIR_STATE, PGR_OLDDIR_CONTROL and the directory that holds that; links of tablespaces that the layout has with
 * the same target; pg_wal itself, its subdirectories that every cluster has, and what makes up a link to it.  (What is
 * in pg_wal goes.)
 * Kept files that the server does not have are in no list; those that it has are PGR_DELTA_KEEP.
 */
int pgr_delta_plan_make(struct pgr_delta_plan *out, const struct pgr_filelist *list, const struct pgr_localtree *tree,
			const struct pgr_layout *layout, const struct pgr_keep *keep,
			struct pgr_err *err) PGR_MUST_USE;

/* Carries the removals out, through the layout's roots, no link followed.  What is gone already is no error.  `tick`
 * (NULL is allowed) is called now and then and may end it. */
int pgr_delta_plan_remove(const struct pgr_delta_plan *p, const struct pgr_sys *sys, const struct pgr_layout *layout,
			  int (*tick)(void *arg, struct pgr_err *err), void *arg, struct pgr_err *err) PGR_MUST_USE;

#endif

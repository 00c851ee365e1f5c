/*
 * What a delta leaves as it is here: configuration files, and what the user names (--keep).
 *
 * Pure.
 */
#ifndef PGR_BACKUP_KEEP_H
#define PGR_BACKUP_KEEP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* Names that stay as they are here: patterns of fnmatch (FNM_PATHNAME) on paths as the manifest writes them. */
struct pgr_keep {
	const char *const *patterns;
	size_t n;
	bool no_defaults; /* --no-keep: not postgresql.conf, pg_hba.conf, pg_ident.conf */
};

/* A pattern that matches a directory keeps what is in it.  Relation files, pg_control, PG_VERSION and whatever else
 * decides whether a cluster is right (global/, base/, pg_xact/, pg_multixact/, pg_tblspc/...) are never kept. */
bool pgr_keep_matches(const struct pgr_keep *k, const char *path);

/* Whether a --keep pattern can be accepted.  PGR_E_USAGE: it names something that must be the server's, or nothing
 * below the data directory. */
int pgr_keep_check(const char *pattern, struct pgr_err *err) PGR_MUST_USE;

#endif

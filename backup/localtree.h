/*
 * What lies in a data directory here: every entry below it, in the WAL directory and in tablespaces, under the names
 * that a manifest gives them.
 *
 * Not thread-safe while it is filled; afterwards anybody may read it.
 */
#ifndef PGR_BACKUP_LOCALTREE_H
#define PGR_BACKUP_LOCALTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_layout;
struct pgr_sys;

enum pgr_local_type { PGR_LOCAL_FILE, PGR_LOCAL_DIR, PGR_LOCAL_LINK, PGR_LOCAL_OTHER };

struct pgr_local_entry {
	char *path;    /* "base/5/1259", "pg_tblspc/16385/PG_15_.../5/16390" */
	char *target;  /* of a link; NULL */
	uint64_t size; /* of a file */
	enum pgr_local_type type;
	/*
	 * A file that is not to be written in place: it has other names as well, and would change under those, too; or its
	 * owner may not read and write it.
	 */
	bool replaced;
	bool mounted; /* another file system is mounted here: it cannot be removed */
	bool is_root; /* a directory that is a root of the layout under another name: it was not entered */
};

/* Valid when zeroed. */
struct pgr_localtree {
	struct pgr_local_entry *entries; /* sorted by path, as bytes */
	size_t n;
	size_t cap;
	uint64_t total_bytes;
};

void pgr_localtree_fini(struct pgr_localtree *t);

/*
 * Walks the layout's roots that are open (pgr_layout_prepare, pgr_layout_prepare_tablespaces).  Links are not
 * followed: what is below pg_tblspc/<oid> is found through the layout, and only of tablespaces that the layout has;
 * pg_wal through the layout as well (it is entered whether it is a link or not).  What vanishes meanwhile is not there.
 *
 * Of a tablespace that lies outside of the data directory only the server's version directory is looked at (all
 * versions', where the layout does not know its name): others may use the directory as well.  The lost+found of a root
 * is listed, not entered.  A directory that cannot be read is an error that names it.  After a failure *out is empty.
 */
int pgr_localtree_scan(struct pgr_localtree *out, const struct pgr_sys *sys, struct pgr_layout *layout,
		       struct pgr_err *err) PGR_MUST_USE;

/* NULL when it is not in it. */
const struct pgr_local_entry *pgr_localtree_find(const struct pgr_localtree *t, const char *path);

/* Opens what a path of the tree names, for reading; no link is followed.  *fd is the caller's. */
int pgr_localtree_open(const struct pgr_sys *sys, const struct pgr_layout *layout, const char *path, int *fd,
		       struct pgr_err *err) PGR_MUST_USE;

/* syncfs on the file systems that are mounted below the roots (pgr_layout_syncfs has those of the roots). */
int pgr_localtree_syncfs(const struct pgr_localtree *t, const struct pgr_sys *sys, const struct pgr_layout *layout,
			 struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * What a server has, asked over SQL: its tablespaces, and every file that belongs into a backup.
 *
 * One statement walks the whole data directory; its rows are taken as they come, never gathered.  The walk goes through
 * pg_ls_dir and pg_stat_file, and that is what it can see:
 * - what is a link is not told.  pg_tblspc/<oid> and pg_wal are known to be links; behind any other one, which
 *   BASE_BACKUP would leave out with a warning, files and directories are listed as if they were in the link's place.
 *   A dangling link is not listed.  Nothing that a role with the five grants can call shows the difference.
 * - what is neither a file nor a directory is listed as a file; a pipe or a socket has size 0, so whoever copies must
 *   not open files of size 0 on the server.
 * - modes are not told.  A server does not start with a key for TLS that its group may read, so that one is marked.
 *
 * Source: PostgreSQL src/backend/utils/adt/genfile.c, misc.c (pg_tablespace_location).
 */
#ifndef PGR_BACKUP_LISTING_H
#define PGR_BACKUP_LISTING_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct pgr_bb_tablespace;
struct pgr_client;
struct pgr_filelist;
struct pgr_rowsum;

/*
 * The tablespaces as BASE_BACKUP lists them, in the order of their oids, the data directory (oid 0, location "") last;
 * sizes are -1.  An in-place tablespace has the location "pg_tblspc/<oid>", on every version.  `c` is a session of
 * pgr_sql_open.
 */
int pgr_listing_tablespaces(struct pgr_client *c, struct pgr_bb_tablespace **list, size_t *n,
			    struct pgr_err *err) PGR_MUST_USE;
/* Asks ahead (pgr_client_ask_ahead) for the first of what it asks. */
int pgr_listing_tablespaces_ahead(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;
void pgr_listing_tablespaces_free(struct pgr_bb_tablespace *list, size_t n);

/* A tablespace, or its link, that goes away between two looks at it: how often to look, and whether that was it. */
#define PGR_LISTING_LOOKS 10
bool pgr_listing_has_gone(const struct pgr_err *err);

/*
 * Fills `out` (empty) with what is to be copied, and finishes it.  Tablespaces that are not in the list (created
 * meanwhile) are left out; of those that are, only the directory of the server's version is entered.  What lies in the
 * data directory, but is the location of a tablespace, comes below pg_tblspc only.
 *
 * PGR_E_USAGE, with the name and a hint: a file that cannot be asked for over SQL, since its name is not valid in the
 * database's encoding; directories nested too deep, which are links that lead in circles.  The stream source copies
 * such a cluster.  PGR_E_SERVER: the server's words.  After any other failure the session can only be freed.
 *
 * With `sum` (initialised; NULL is allowed) the server computes a digest of every row.  PGR_MORE: something came
 * damaged; the list is of no use, the session is.
 */
int pgr_listing_files(struct pgr_client *c, const struct pgr_bb_tablespace *tablespaces, size_t n,
		      struct pgr_rowsum *sum, struct pgr_filelist *out, struct pgr_err *err) PGR_MUST_USE;

#endif

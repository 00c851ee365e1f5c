/*
 * Where a backup goes: the data directory, the WAL directory and the tablespaces; made before, cleaned up after a
 * failure.
 *
 * Rules for existing directories: as pg_basebackup (src/port/pgcheckdir.c): missing or empty, nothing else; and in
 * place
 * (--delta) what an old copy has.
 */
#ifndef PGR_BACKUP_LAYOUT_H
#define PGR_BACKUP_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "backup/tblspc_map.h"
#include "common/err.h"

struct pgr_bb_tablespace;
struct pgr_sys;
struct pgr_layout;

struct pgr_layout_opts {
	const char *data_dir; /* as the user gave it, canonicalised */
	const char *wal_dir;  /* --waldir, absolute; NULL */
	const struct pgr_tblspc_map *mapping;
	mode_t dir_mode;	    /* 0700 or 0750 */
	mode_t file_mode;	    /* 0600 or 0640 */
	bool pg_xlog;		    /* server below 10 */
	bool summaries;		    /* pg_wal/summaries exists (17) */
	bool in_place;		    /* a data directory that is not empty is made over */
	uint64_t system_identifier; /* in place: the server's; 0: not known */
	bool look_only; /* in place: what is missing is not made and stays closed, for whoever only wants to know */
	const char
		*version_dir; /* in place: the version directory in tablespaces, "PG_15_202209061"; NULL: not known */
};

/* Copies the options.  `sys` outlives the layout. */
int pgr_layout_new(struct pgr_layout **out, const struct pgr_sys *sys, const struct pgr_layout_opts *opts,
		   struct pgr_err *err) PGR_MUST_USE;

/* Closes descriptors; removes nothing.  NULL is allowed. */
void pgr_layout_free(struct pgr_layout *l);

/*
 * Makes or checks data_dir and wal_dir, and with a wal_dir the link pg_wal to it.
 * PGR_E_USAGE: directory "%s" exists but is not empty.
 *
 * In place a data directory that is not empty is opened as it is, and nothing is changed in it; pg_wal as well, where
 * it is a directory or leads to one.  A link pg_wal stays when no wal_dir is given.  A wal_dir must be missing (it is
 * made then) or empty, or what the link leads to already.  PGR_E_USAGE besides: the link leads nowhere, to the data
 * directory, to one that holds it, or to one that looks like no WAL directory of this cluster (it has no WAL,
 * directories that none has, or WAL of another system identifier); pg_wal is a mount point where a link to wal_dir must
 * come, or holds wal_dir.
 */
int pgr_layout_prepare(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;

/*
 * Makes or checks the directories of the tablespaces (mapped or not), before anything is copied into them.  Once, after
 * pgr_layout_prepare.  What can be refused is refused before the first directory is made.
 *
 * A location that no mapping names must be absolute without "..", and not lead into the data or the WAL directory, or
 * be exactly pg_tblspc/<oid> (PGR_E_DATA).  Two tablespaces, or one and the data or the WAL directory, in one directory
 * are PGR_E_USAGE.
 *
 * In place a directory that is not empty is accepted when one of the links in pg_tblspc here leads to it (of whatever
 * oid: a tablespace may have been made again in its old place).  Nothing is changed in the data directory.
 */
int pgr_layout_prepare_tablespaces(struct pgr_layout *l, const struct pgr_bb_tablespace *list, size_t n,
				   struct pgr_err *err) PGR_MUST_USE;

/*
 * In place, when the directory cannot start any more (pgr_olddir_take_over): the data directory's mode is set, and
 * those of what lies in it of pg_wal and tablespaces; pg_wal becomes what it is in a fresh seed: a directory or link,
 * as pgr_layout_prepare found or decided, with nothing in it but PGR_LOST_FOUND; directories of in-place tablespaces
 * are made.  No more than the mode is to be done where the data directory was empty.  Where a link to another WAL
 * directory is replaced, that one is left as it is.
 */
int pgr_layout_take_over(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;

/*
 * Makes the links in pg_tblspc (which is made where it is missing).  In place, where there may be others: one that
 * leads to the right directory is left alone, any other one replaced by a rename, a directory of this name removed with
 * what is in it; links of tablespaces that the layout does not have go; before either, so do the leftovers that it led
 * to.
 *
 * Call it before anything is written into the tablespaces, so that an interrupted run finds its own directories again.
 */
int pgr_layout_link_tablespaces(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;

/*
 * Makes durable what leads to the directories apart: the data directory's name, and those in it.  Call it in place,
 * after the links are made: without that a power cut could leave a WAL directory or a tablespace with something in it,
 * which the next run would not know for its own and refuse.
 */
int pgr_layout_sync_names(const struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;

/*
 * In place: the version directories of tablespaces that are linked here and that the server does not have any more, or
 * that are to be elsewhere.  They are removed unless they may be somebody else's: version_dir is not known, the
 * directory that holds them has the name of one of the server's locations, or one of the layout's directories lies in
 * them.  (What has become the directory of another tablespace is not listed.)
 */
struct pgr_layout_leftover {
	uint32_t oid;
	char *path;   /* "/srv/ts/PG_15_202209061"; without a version_dir "/srv/ts" */
	bool is_left; /* not removed: somebody should look at it */
};
/* Known from pgr_layout_prepare_tablespaces on; the layout's.  Returns how many there are. */
size_t pgr_layout_leftovers(const struct pgr_layout *l, const struct pgr_layout_leftover **list);

/* The open directory (stays the layout's) that archive members of a tablespace (oid 0: the data directory) are relative
 * to.  -1 for an unknown tablespace. */
int pgr_layout_root(const struct pgr_layout *l, uint32_t oid);

/* The open pg_wal (stays the layout's): the directory itself or what the link points to; created on first use with
 * archive_status (and summaries).  Not from two threads at once. */
int pgr_layout_wal_root(struct pgr_layout *l, int *fd, struct pgr_err *err) PGR_MUST_USE;

/* The directory of a tablespace: where the link pg_tblspc/<oid> must point to; NULL for an unknown or in-place one. */
const char *pgr_layout_tablespace_target(const struct pgr_layout *l, uint32_t oid);

/* The same, found by the location that the server has. */
const char *pgr_layout_target_of(const struct pgr_layout *l, const char *server_location);

/*
 * Where a path as the manifest writes it goes: the open root (stays the layout's) and the rest of the path below it
 * ("" for the root itself; points into `path`).  "pg_tblspc/<oid>/..." leads into the tablespace when the layout has
 * one of this oid, "pg_wal/..." into the WAL directory once it is open (with --waldir always), anything else below the
 * data directory.  May run concurrently with itself, not with the first
 * pgr_layout_wal_root.
 */
void pgr_layout_resolve(const struct pgr_layout *l, const char *path, int *root_fd, const char **rest);

/*
 * The server's location of the tablespace that such a path leads into, and the rest as above; NULL when it is none of
 * the layout's tablespaces.  In place it is "pg_tblspc/<oid>".
 */
const char *pgr_layout_location(const struct pgr_layout *l, const char *path, const char **rest);

/* The tablespaces, by ascending oid. */
size_t pgr_layout_tablespaces(const struct pgr_layout *l);
uint32_t pgr_layout_tablespace_oid(const struct pgr_layout *l, size_t i);

const char *pgr_layout_version_dir(const struct pgr_layout *l); /* NULL */
const char *pgr_layout_data_dir(const struct pgr_layout *l);
const char *pgr_layout_wal_name(const struct pgr_layout *l); /* "pg_wal" or "pg_xlog" */
mode_t pgr_layout_dir_mode(const struct pgr_layout *l);
mode_t pgr_layout_file_mode(const struct pgr_layout *l);

/* fsyncs all directories of all roots, bottom-up, and the parents of what was made.  With `files`, every file too. */
int pgr_layout_sync(struct pgr_layout *l, bool files, struct pgr_err *err) PGR_MUST_USE;

/* syncfs on every root's file system (--sync-method=syncfs). */
int pgr_layout_syncfs(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;

/*
 * After a failure: removes what was made, contents of what was empty; calls `say` with one line for each root
 * ("removing data directory \"%s\"", "removing contents of data directory ...", ... WAL directory, tablespace
 * directory).  Goes on after failures; returns the first.
 */
int pgr_layout_clean(struct pgr_layout *l, void (*say)(void *arg, const char *line), void *arg,
		     struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * The file of one WAL segment, and the directory that it lies in.
 *
 * The steps that a segment's file goes through, each of them one call: made or opened, synced, given its final name,
 * marked, closed.  When which step is due is walstore's and syncer's.
 *
 * A struct pgr_waldir does not change while it is used and may be used by several threads; a struct pgr_segfile belongs
 * to one thread at a time, but its descriptor may be written by one and synced by another.
 */
#ifndef PGR_RECEIVER_SEGFILE_H
#define PGR_RECEIVER_SEGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_sys;

#define PGR_SEGNAME_ROOM 64 /* a segment's or history file's name with any suffix */

/*
 * The name of a segment's file that is made before it is needed.  Nothing that looks for segments takes it for one, a
 * server that starts on a directory where one was left removes it (RemoveTempXlogFiles in xlog.c), and who empties the
 * directory file by file, as Barman does, leaves alone what ends in .tmp.
 */
#define PGR_SEGFILE_AHEAD "xlogtemp.pgr.tmp"

/* So many segments in a row have different names while they wait for their own (pgr_segfile_waiting_name). */
#define PGR_SEGFILE_WAITING 8

struct pgr_waldir {
	const struct pgr_sys *sys;
	int dirfd;
	const char *dir; /* name, for messages */
	uint32_t segment_bytes;
	mode_t file_mode;
	bool sync;				       /* false: nothing is synced */
	bool partial_suffix;			       /* an unfinished segment is called .partial */
	bool archive_status;			       /* finished files are marked in archive_status/ */
	void (*finished)(void *arg, const char *name); /* see walstore.h; NULL: none */
	void *finished_arg;
};

struct pgr_segfile {
	int fd; /* -1: none */
	char name[PGR_SEGNAME_ROOM];
	char due[PGR_SEGNAME_ROOM]; /* the name that it waits for; "": it has it */
	bool size_durable;	    /* fdatasync is enough */
	bool entry_durable;	    /* so is its name */
};

/* The name of a segment's file while it is open. */
void pgr_segfile_name(const struct pgr_waldir *d, pgr_tli tli, pgr_segno seg, char out[PGR_SEGNAME_ROOM]);

/*
 * The name of its file while an earlier segment is still called .partial.  There is one .partial file at a time: Barman
 * takes all of them but the last for those of timelines that were left, and moves them away.
 */
void pgr_segfile_waiting_name(pgr_segno seg, char out[PGR_SEGNAME_ROOM]);

/*
 * Makes a file that is not there yet, with all its space, since a full disk is to be met where nothing was promised.
 * After a failure it is gone again.
 */
int pgr_segfile_create(const struct pgr_waldir *d, const char *name, struct pgr_segfile *f,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * Opens a file of an earlier run, which may have died at any point: every size from `at_least` up to the full one is
 * fine, and the rest is allocated.  *old_bytes is its size before that.  PGR_MORE: it does not exist.
 */
int pgr_segfile_open(const struct pgr_waldir *d, const char *name, off_t at_least, struct pgr_segfile *f,
		     off_t *old_bytes, struct pgr_err *err) PGR_MUST_USE;

/* Renames an open file. The caller has seen that nobody has the new name. */
int pgr_segfile_rename(const struct pgr_waldir *d, struct pgr_segfile *f, const char *name,
		       struct pgr_err *err) PGR_MUST_USE;

/* A file whose name was due takes it. */
int pgr_segfile_take_name(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err) PGR_MUST_USE;

/* Makes what was written durable; the entry of the directory is pgr_waldir_sync's. */
int pgr_segfile_sync(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err) PGR_MUST_USE;

/*
 * Gives a synced file its final name.  A file of that name is never replaced by one with other content (PGR_E_DATA).
 * Nothing is done where an unfinished segment has that name already.
 */
int pgr_segfile_finish(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err) PGR_MUST_USE;

/* Marks a file with a durable final name as archived, so that a standby made from this directory does not archive it
 * again. */
int pgr_segfile_mark(const struct pgr_waldir *d, const char *name, struct pgr_err *err) PGR_MUST_USE;

/* Closes.  The descriptor is gone whatever the result is. */
int pgr_segfile_close(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err) PGR_MUST_USE;

/* Closes a file that nothing is expected of any more, or that has nothing unwritten behind it; one that has not taken
 * its name is removed, nothing in it was acknowledged. */
void pgr_segfile_drop(const struct pgr_waldir *d, struct pgr_segfile *f);

/* Closes and removes it: nothing was written to it. */
void pgr_segfile_remove(const struct pgr_waldir *d, struct pgr_segfile *f);

/* fsync of the directory. */
int pgr_waldir_sync(const struct pgr_waldir *d, struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * How one file gets to the disk: O_DIRECT where the file system takes it, otherwise through the page cache with early
 * write-back.
 *
 * Writes through the page cache are what a copy spends its time on; O_DIRECT needs offset, length and memory in
 * multiples of PGR_BLOCK_ALIGN, so the last block of a file is padded with zeros on the disk and the file cut to its
 * size afterwards. Small files go directly when their length fits; what would have to be padded for a few bytes stays
 * in the page cache.
 */
#ifndef PGR_BACKUP_OUTFILE_H
#define PGR_BACKUP_OUTFILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_block;
struct pgr_outfs;
struct pgr_sys;

/* What is known about the file systems that are written to: one for a run.  Any thread.  `sys` outlives it. */
int pgr_outfs_new(struct pgr_outfs **out, const struct pgr_sys *sys, struct pgr_err *err) PGR_MUST_USE;
void pgr_outfs_free(struct pgr_outfs *fs);

struct pgr_outfile {
	int fd;
	atomic_bool direct; /* fd has O_DIRECT */
	atomic_bool padded; /* something was written beyond the last block's length */
	uint64_t was;	    /* its size when it was opened; 0: it was made */
};

/* Creates `leaf` in `dirfd`: O_CREAT | O_EXCL | O_NOFOLLOW, then fchmod to `mode`.  `path` is its name in messages. */
int pgr_outfile_create(struct pgr_outfs *fs, int dirfd, const char *leaf, const char *path, mode_t mode,
		       struct pgr_outfile *f, struct pgr_err *err) PGR_MUST_USE;

/*
 * Opens a regular file that exists, to be changed in place: nothing of it is cut.  O_NOFOLLOW; the mode is set when it
 * is another one.  PGR_E_DATA: it is no regular file.
 */
int pgr_outfile_open(struct pgr_outfs *fs, int dirfd, const char *leaf, const char *path, mode_t mode,
		     struct pgr_outfile *f, struct pgr_err *err) PGR_MUST_USE;

/*
 * Writes a block at `off`.  The bytes of the block behind len may be overwritten with zeros, and the file with zeros up
 * to the next multiple of PGR_BLOCK_ALIGN: nothing else may stand there that is not cut in the end.  Several threads
 * may write different blocks of one file at once.
 */
int pgr_outfile_write(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_block *b, uint64_t off,
		      struct pgr_err *err) PGR_MUST_USE;

/* After the last write: the file has `size` bytes; `extent` is where the last block ended. */
int pgr_outfile_set_size(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, uint64_t extent, uint64_t size,
			 struct pgr_err *err) PGR_MUST_USE;

int pgr_outfile_sync(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_err *err) PGR_MUST_USE;
int pgr_outfile_close(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_err *err) PGR_MUST_USE;

/* Closes a file from which nothing will be read: how that ends tells nothing. */
void pgr_outfile_abandon(struct pgr_outfs *fs, struct pgr_outfile *f);

#endif

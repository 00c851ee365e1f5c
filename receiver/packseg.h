/*
 * One finished WAL segment from its plain file into a compressed one.
 *
 *     NAME  ->  walpack.tmp: written, synced, decoded again and compared  ->  NAME.gz, directory synced  ->  NAME
 * removed
 *
 * The plain file is not touched before the last step, so that a crash or a failure at any point leaves the segment
 * whole in one form or in both.
 */
#ifndef PGR_RECEIVER_PACKSEG_H
#define PGR_RECEIVER_PACKSEG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/compress_spec.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_sys;

/* What is being written.  There is one packer in a directory, so that one name is enough; a restart removes it. */
#define PGR_PACKSEG_TMP "walpack.tmp"

struct pgr_packdir {
	/* constant */
	const struct pgr_sys *sys;
	int dirfd;
	const char *dir; /* name, for messages */
	uint32_t segment_bytes;
	mode_t file_mode;
	bool sync;					     /* false: nothing is synced */
	struct pgr_compress_spec spec;			     /* PGR_COMP_NONE: nothing is compressed */
	const atomic_bool *give_up;			     /* set by another thread: leave the segment as it is */
	void (*log)(void *arg, int level, const char *line); /* levels as in walpack.h */
	void *log_arg;

	bool failed; /* an fsync of the directory has failed: nobody knows which names are on the disk, do nothing more
		      */
};

/*
 * Does what there is to do for a segment that has a plain file: compresses it and removes the plain file; only removes
 * it where there is a compressed file with the same content already.  Nothing is done when there is no plain file (any
 * more).  PGR_E_DATA: the plain file is no whole segment, or a compressed file of that name has other content, or what
 * was compressed does not decode to what it was made of; both files stay.  PGR_E_SYSTEM, PGR_E_NOMEM: may be tried
 * again unless d->failed.  PGR_E_STOPPED: give_up was set.
 */
int pgr_packseg(struct pgr_packdir *d, pgr_tli tli, pgr_segno seg, struct pgr_err *err) PGR_MUST_USE;

/*
 * Removes what pg_receivewal -Z left unfinished of a segment (NAME.gz.partial ...) when the segment is there as a
 * whole, durably, and agrees with what can be decoded of it; says so.  One that does not agree stays, with a warning.
 */
int pgr_packseg_drop_foreign(struct pgr_packdir *d, pgr_tli tli, pgr_segno seg, struct pgr_err *err) PGR_MUST_USE;

/* Removes what an interrupted run left of PGR_PACKSEG_TMP. */
int pgr_packseg_clean(const struct pgr_packdir *d, struct pgr_err *err) PGR_MUST_USE;

#endif

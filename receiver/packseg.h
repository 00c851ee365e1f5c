/*
 * One finished WAL segment from its plain file into a compressed one.
 *
 *     make:    NAME  ->  walpack.tmp: written, synced, decoded again and compared
 *     settle:  walpack.tmp  ->  NAME.gz, directory synced  ->  NAME removed
 *
 * The plain file is not touched before the last step, so that a crash or a failure at any point leaves the segment
 * whole in one form or in both.
 *
 * Several segments may be made at a time, each by a struct pgr_packseg of its own.  Names are changed by one at a time:
 * a directory's fsync that fails is told to one of those who ask only, and the others would remove their plain files.
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

/* What is being written: walpack.tmp, walpack.1.tmp, ...  One program has the directory; a restart removes them. */
#define PGR_PACKSEG_TMP "walpack.tmp"
#define PGR_PACKSEG_MAX 4

#define PGR_PACKSEG_NAME_ROOM (PGR_WALNAME_LEN + 32)

/* Constant but for `failed`. */
struct pgr_packdir {
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

	atomic_bool failed; /* an fsync of the directory has failed: nobody knows which names are on the disk, do
			       nothing more */
};

/* Of one thread. */
struct pgr_packseg {
	struct pgr_packdir *dir;
	char tmp[32];	/* name of its temporary file */
	char *tmp_path; /* for messages */
	uint8_t *buf;
	/* what was made, and is to be settled */
	char name[PGR_PACKSEG_NAME_ROOM];   /* the plain file; "": nothing */
	char packed[PGR_PACKSEG_NAME_ROOM]; /* the compressed one */
	bool is_new;			    /* and has its temporary name still */
};

/* `number` is that of nobody else, and below PGR_PACKSEG_MAX.  PGR_E_NOMEM.  A zeroed struct is allowed for _fini. */
int pgr_packseg_init(struct pgr_packseg *s, struct pgr_packdir *dir, unsigned number, struct pgr_err *err) PGR_MUST_USE;
void pgr_packseg_fini(struct pgr_packseg *s);

/*
 * The long part of what there is to do for a segment that has a plain file: compresses it, or finds a compressed file
 * with the same content.  Nothing is done when there is no plain file (any more).  PGR_E_DATA: the plain file is no
 * whole segment, or a compressed file of that name has other content, or what was compressed does not decode to what it
 * was made of; both files stay.  PGR_E_SYSTEM, PGR_E_NOMEM: may be tried again unless dir->failed.  PGR_E_STOPPED:
 * give_up was set.
 */
int pgr_packseg_make(struct pgr_packseg *s, pgr_tli tli, pgr_segno seg, struct pgr_err *err) PGR_MUST_USE;

/*
 * The short one, after pgr_packseg_make has succeeded: the compressed file gets its name, durably, and the plain file
 * goes.  One thread at a time.  Nothing is done where nothing was made.  After a failure (the same ones) nothing is
 * made.
 */
int pgr_packseg_settle(struct pgr_packseg *s, struct pgr_err *err) PGR_MUST_USE;

/* Instead of that: takes back what was made. */
void pgr_packseg_leave(struct pgr_packseg *s);

/*
 * Removes what pg_receivewal -Z left unfinished of a segment (NAME.gz.partial ...) when the segment is there as a
 * whole, durably, and agrees with what can be decoded of it; says so.  One that does not agree stays, with a warning.
 * One thread at a time, as with pgr_packseg_settle.
 */
int pgr_packseg_drop_foreign(struct pgr_packseg *s, pgr_tli tli, pgr_segno seg, struct pgr_err *err) PGR_MUST_USE;

/* Removes all temporary files that an interrupted run left. */
int pgr_packseg_clean(const struct pgr_packdir *d, struct pgr_err *err) PGR_MUST_USE;

#endif

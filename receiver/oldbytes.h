/*
 * What a segment's file held when it was opened, compared with what comes again.
 *
 * Bytes that stand there already are not written again: what was once acknowledged is never rewritten, nor replaced by
 * something else.  They are read
 * past the page cache: after a failed fsync of an earlier run the cache shows bytes that never reached the disk, and
 * counts them as clean, so that comparing with it and syncing would acknowledge what is not there.  Where direct reads
 * do not exist the cache has to do.
 */
#ifndef PGR_RECEIVER_OLDBYTES_H
#define PGR_RECEIVER_OLDBYTES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_segfile;
struct pgr_waldir;

struct pgr_oldbytes {
	off_t len;    /* 0: nothing to compare (any more) */
	int fd;	      /* reads what is on the disk; -1: read through the segment's descriptor */
	uint8_t *buf; /* a window of the file from win_off, win_len of it valid */
	off_t win_off;
	size_t win_len;
};

/* Nothing to compare. */
void pgr_oldbytes_init(struct pgr_oldbytes *o);

/* The file `f`, which is open, holds `len` old bytes. */
int pgr_oldbytes_open(struct pgr_oldbytes *o, const struct pgr_waldir *d, const struct pgr_segfile *f, off_t len,
		      struct pgr_err *err) PGR_MUST_USE;
void pgr_oldbytes_fini(struct pgr_oldbytes *o, const struct pgr_waldir *d);

/*
 * *same bytes of p, which stands at `lsn`, are what the file holds there; after the first one that is not, all the rest
 * is new.  PGR_E_DATA: the file holds other WAL of this very place, so it was received from a server with another
 * history.  What a segment that was used before left in the file is no WAL of this place, nor are zeros.
 */
int pgr_oldbytes_match(struct pgr_oldbytes *o, const struct pgr_waldir *d, const struct pgr_segfile *f, pgr_lsn lsn,
		       const uint8_t *p, size_t len, size_t *same, struct pgr_err *err) PGR_MUST_USE;

#endif

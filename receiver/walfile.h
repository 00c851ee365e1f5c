/*
 * A segment's file read from its beginning, plain or compressed.
 */
#ifndef PGR_RECEIVER_WALFILE_H
#define PGR_RECEIVER_WALFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/decompress.h"
#include "common/err.h"

struct pgr_sys;

struct pgr_walfile {
	const struct pgr_sys *sys;
	const char *name; /* the caller's */
	int fd;
	struct pgr_decomp *decomp; /* NULL: plain */
	uint8_t *in;		   /* compressed bytes */
	const uint8_t *next;
	size_t left;
	bool eof; /* of the file */
	bool cut; /* a compressed stream that ends before its end: what was read so far is right */
};

/*
 * Opens `name` below `dirfd`; `name` must live until pgr_walfile_close.  No link is followed.  PGR_E_SYSTEM, PGR_E_DATA
 * (not a regular file), PGR_E_NOMEM.  Nothing is left open after a failure.
 */
int pgr_walfile_open(struct pgr_walfile *f, const struct pgr_sys *sys, int dirfd, const char *name,
		     enum pgr_compression method, struct pgr_err *err) PGR_MUST_USE;

/*
 * Fills buf, *n bytes of it.  PGR_OK: all of `cap`, more may come.  PGR_MORE: the end, *n < cap.  PGR_ERR: PGR_E_SYSTEM
 * when reading fails, PGR_E_DATA when the compressed stream is corrupt (or something else follows it); *n bytes before
 * that are there.  The message does not name the file.
 */
int pgr_walfile_read(struct pgr_walfile *f, void *buf, size_t cap, size_t *n, struct pgr_err *err) PGR_MUST_USE;

/* What was only read can be closed whatever close says.  A zeroed struct is allowed. */
void pgr_walfile_close(struct pgr_walfile *f);

#endif

/*
 * Writes WAL past the page cache, in a thread of its own: for a receiver that has much to catch up with.
 *
 * The owner (one thread) gives the bytes of segment after segment in their order; full blocks are written behind it
 * with O_DIRECT, in the same order.  What does not fill a block waits for more, until somebody drains.
 *
 * Copying into the page cache and writing that back is what a receiver that catches up spends its time on, and the
 * thread that does it cannot take bytes from the socket meanwhile.
 */
#ifndef PGR_RECEIVER_BULK_H
#define PGR_RECEIVER_BULK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_bulk;
struct pgr_sys;

/* A divisor of every segment size, so that each segment ends with a full block; a multiple of what O_DIRECT wants. */
#define PGR_BULK_BLOCK (1u << 20)

/* So many blocks may wait to be written. */
#define PGR_BULK_BLOCKS 8

/*
 * `wrote` is called in the thread after each block: everything before `lsn` is written and a block is free, or, with
 * `failed`, the write failed, and nothing is written any more.  It may not call anything of this.  `path_room`: of the
 * longest path that is begun, with its end.
 */
int pgr_bulk_new(struct pgr_bulk **out, const struct pgr_sys *sys, size_t path_room,
		 void (*wrote)(void *arg, pgr_lsn lsn, const struct pgr_err *failed), void *arg,
		 struct pgr_err *err) PGR_MUST_USE;

/* What was not written stays unwritten.  NULL is allowed. */
void pgr_bulk_free(struct pgr_bulk *b);

/*
 * The next `size` bytes, a whole number of blocks, go into this file and stand at `lsn` in the WAL.  No other file is
 * being filled.  The descriptor stays the caller's, and open until all was written; then, as before, it is one of the
 * page cache.  `path`: for messages, copied.  PGR_MORE: files there are not written like this, nothing was begun.
 */
int pgr_bulk_begin(struct pgr_bulk *b, int fd, off_t size, const char *path, pgr_lsn lsn) PGR_MUST_USE;

/* Takes the next *taken of `len` bytes, which do not go beyond the file; PGR_MORE: fewer than all, since too many
 * blocks wait. */
int pgr_bulk_put(struct pgr_bulk *b, const uint8_t *p, size_t len, size_t *taken, struct pgr_err *err) PGR_MUST_USE;

/*
 * Waits until everything that was given is written, the unfinished block as well.  The rest of a file that is not
 * complete is not written here.
 */
int pgr_bulk_drain(struct pgr_bulk *b, struct pgr_err *err) PGR_MUST_USE;

/* Forgets what was not written: afterwards no descriptor is used any more. */
void pgr_bulk_forget(struct pgr_bulk *b);

#endif

/*
 * A file that a segment is compressed into, on its way to the disk: past the page cache, in large blocks.
 *
 * What is copied into the page cache costs more than LZ4 does, and what was read back from there would say nothing of
 * the disk.  Where the file system has no O_DIRECT the same blocks go through the page cache.
 */
#ifndef PGR_RECEIVER_PACKOUT_H
#define PGR_RECEIVER_PACKOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

/* Of the buffer: a block, and room for at least PGR_COMP_ROOM_MIN bytes behind one that is nearly full. */
#define PGR_PACKOUT_BYTES ((1u << 20) + 4096u)

struct pgr_packout {
	const struct pgr_sys *sys;
	int fd;		  /* -1: not open */
	const char *path; /* for messages, the caller's */
	uint8_t *buf;	  /* the caller's */
	size_t len;	  /* of what waits in buf */
	off_t off;	  /* of that in the file */
	bool direct;
};

/*
 * Makes the file `name`, which must not be there, below `dirfd`, with `mode` whatever the umask is.  `buf` has
 * PGR_PACKOUT_BYTES, aligned to PGR_BLOCK_ALIGN; it and `path` stay the caller's until pgr_packout_close.  Also after a
 * failure (PGR_E_SYSTEM) the struct can, and has to, be closed.
 */
int pgr_packout_open(struct pgr_packout *o, const struct pgr_sys *sys, int dirfd, const char *name, mode_t mode,
		     const char *path, uint8_t *buf, struct pgr_err *err) PGR_MUST_USE;

/* Where the next bytes go, *room of them at most. */
uint8_t *pgr_packout_room(const struct pgr_packout *o, size_t *room);

/* So many bytes were put there. */
int pgr_packout_add(struct pgr_packout *o, size_t n, struct pgr_err *err) PGR_MUST_USE;

/*
 * Closes the file.  With `whole` what waits is written first, and with `sync` too the file is durable; PGR_OK says that
 * all of that was done.  Otherwise what is in the file is nothing, and PGR_OK says nothing.
 */
int pgr_packout_close(struct pgr_packout *o, bool whole, bool sync, struct pgr_err *err) PGR_MUST_USE;

#endif

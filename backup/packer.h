/*
 * Compressing a stream of blocks in threads of its own: blocks in, compressed bytes out, in the same order.
 *
 * Each block is compressed by itself, by whichever thread is free: for LZ4 and zstd as a frame, for gzip as a part of
 * one member that ends on a byte (RFC 1951, 3.2.4; as pigz does), since readers exist that stop at a member's end.
 * zstd's long-distance mode looks across blocks, so there one thread feeds one frame and libzstd's own workers share
 * it.  Without compression one thread passes the blocks on.
 *
 * Memory: two blocks for each thread (from the caller's pool) and the room for what they become.
 */
#ifndef PGR_BACKUP_PACKER_H
#define PGR_BACKUP_PACKER_H

#include <stddef.h>
#include <stdint.h>

#include "common/compress_spec.h"
#include "common/err.h"

struct pgr_block;
struct pgr_packer;
struct pgr_pool;
struct pgr_stop;

struct pgr_packer_opts {
	struct pgr_compress_spec spec; /* an explicit number of zstd's workers is the number of threads */
	unsigned threads;	       /* 0: one for each processor this process may use */
	/*
	 * Takes compressed bytes, in order.  Called from the packer's threads, one call at a time, also from within
	 * pgr_packer_end.  What it takes from the pool must not be needed by whoever posts (see pgr_packer_blocks).
	 */
	int (*put)(void *arg, const uint8_t *data, size_t len, struct pgr_err *err);
	void *arg;
};

/*
 * Blocks that a packer with these options may hold.  The pool needs these, those of whoever posts, and those of `put`,
 * or all wait for each other.
 */
size_t pgr_packer_blocks(const struct pgr_packer_opts *opts);

/* Starts the threads.  `pool` and `stop` outlive the packer. */
int pgr_packer_new(struct pgr_packer **out, struct pgr_pool *pool, struct pgr_stop *stop,
		   const struct pgr_packer_opts *opts, struct pgr_err *err) PGR_MUST_USE;

/* Joins the threads (at once, when the stream was not ended), puts all blocks back.  NULL is allowed. */
void pgr_packer_free(struct pgr_packer *p);

/*
 * Hands *b over, to be compressed behind what was posted before; *b becomes NULL (also after a failure: the block is
 * then back in the pool).  Waits while as many blocks as it may hold are under way.  From one thread at a time.
 * PGR_ERR: the stop latch was set, by a failure of the packer or otherwise.
 */
int pgr_packer_post(struct pgr_packer *p, struct pgr_block **b, struct pgr_err *err) PGR_MUST_USE;

/*
 * Waits until everything was compressed and put, with the end of the stream (of an empty one, too).  Once, after the
 * last post.
 */
int pgr_packer_end(struct pgr_packer *p, struct pgr_err *err) PGR_MUST_USE;

#endif

/*
 * The bounded pool of blocks that sources fill and writers empty.
 *
 * Taking a free block is the only place where a source waits for the disk: that wait is
 * the back-pressure on the socket, and the pool's size is the bound on memory.
 */
#ifndef PGR_COMMON_BLOCK_H
#define PGR_COMMON_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_stop;

#define PGR_BLOCK_ALIGN 4096u /* address and size of every block: what O_DIRECT wants */

struct pgr_block {
	uint8_t *data;		/* cap bytes, aligned to PGR_BLOCK_ALIGN */
	size_t cap;		/* a multiple of PGR_BLOCK_ALIGN */
	size_t len;		/* bytes filled by whoever holds the block */
	struct pgr_block *next; /* for whoever holds the block */
};

struct pgr_pool;

/*
 * Allocates `count` blocks of `block_bytes` (a multiple of PGR_BLOCK_ALIGN, both > 0) at once.
 * `stop` outlives the pool.
 */
int pgr_pool_new(struct pgr_pool **out, size_t count, size_t block_bytes, struct pgr_stop *stop,
		 struct pgr_err *err) PGR_MUST_USE;

/* Frees the pool; every block must have been put back (asserted in debug builds). NULL is allowed. */
void pgr_pool_free(struct pgr_pool *pool);

/*
 * Hands out a free block with len 0; waits while there is none.  PGR_ERR (PGR_E_STOPPED) once
 * the stop latch is set.  The caller owns the block until it gives it on or puts it back.
 */
int pgr_pool_get(struct pgr_pool *pool, struct pgr_block **out, struct pgr_err *err) PGR_MUST_USE;

/* Gives a block back.  NULL is allowed.  Any thread. */
void pgr_pool_put(struct pgr_pool *pool, struct pgr_block *b);

/* Size of one block, and number of blocks, as given to pgr_pool_new. */
size_t pgr_pool_block_bytes(const struct pgr_pool *pool);
size_t pgr_pool_count(const struct pgr_pool *pool);

#endif

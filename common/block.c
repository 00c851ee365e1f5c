#include "common/block.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/stop.h"

struct pgr_pool {
	/* constant after pgr_pool_new */
	size_t count;
	size_t block_bytes;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	uint8_t *memory;	  /* count * block_bytes, one piece */
	struct pgr_block *blocks; /* count of them; whoever holds a block owns its fields */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* a block was put back, or the latch was set */
	/* under lock: */
	struct pgr_block *free; /* a stack: the block used last is the one still in the cache */
	size_t nfree;
};

/* The latch is set before its wakers run, so a waiter that this wakes, or that comes later, sees it. */
static void wake_all(void *arg)
{
	struct pgr_pool *pool = arg;

	pthread_mutex_lock(&pool->lock);
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

static void stack_blocks(struct pgr_pool *pool)
{
	for (size_t i = pool->count; i-- > 0;) {
		struct pgr_block *b = &pool->blocks[i];

		b->data = pool->memory + i * pool->block_bytes;
		b->cap = pool->block_bytes;
		b->next = pool->free;
		pool->free = b;
	}
	pool->nfree = pool->count;
}

static int alloc_memory(struct pgr_pool *pool, struct pgr_err *err)
{
	if (pool->block_bytes > SIZE_MAX / pool->count)
		return pgr_err_nomem(err);
	pool->memory = aligned_alloc(PGR_BLOCK_ALIGN, pool->count * pool->block_bytes);
	pool->blocks = calloc(pool->count, sizeof(*pool->blocks));
	return pool->memory != NULL && pool->blocks != NULL ? PGR_OK : pgr_err_nomem(err);
}

static int init_locks(struct pgr_pool *pool, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&pool->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&pool->changed, NULL);
	if (rc != 0) {
		pthread_mutex_destroy(&pool->lock);
		return pgr_err_sys(err, rc, "could not create a condition variable");
	}
	return PGR_OK;
}

static void free_memory(struct pgr_pool *pool)
{
	free(pool->blocks);
	free(pool->memory);
	free(pool);
}

int pgr_pool_new(struct pgr_pool **out, size_t count, size_t block_bytes, struct pgr_stop *stop, struct pgr_err *err)
{
	*out = NULL;
	if (count == 0 || block_bytes == 0 || block_bytes % PGR_BLOCK_ALIGN != 0)
		return pgr_err_set(err, PGR_E_USAGE, "a pool of %zu blocks of %zu bytes is not possible", count,
				   block_bytes);

	struct pgr_pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL)
		return pgr_err_nomem(err);
	pool->count = count;
	pool->block_bytes = block_bytes;
	pool->stop = stop;
	if (alloc_memory(pool, err) != PGR_OK || init_locks(pool, err) != PGR_OK) {
		free_memory(pool);
		return PGR_ERR;
	}
	stack_blocks(pool);
	pool->waker.fn = wake_all;
	pool->waker.arg = pool;
	pgr_stop_watch(stop, &pool->waker);
	*out = pool;
	return PGR_OK;
}

void pgr_pool_free(struct pgr_pool *pool)
{
	if (pool == NULL)
		return;
	pgr_stop_unwatch(pool->stop, &pool->waker);
	assert(pool->nfree == pool->count);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
	free_memory(pool);
}

int pgr_pool_get(struct pgr_pool *pool, struct pgr_block **out, struct pgr_err *err)
{
	struct pgr_block *b = NULL;
	int rc;

	*out = NULL;
	pthread_mutex_lock(&pool->lock);
	while ((rc = pgr_stop_check(pool->stop, err)) == PGR_OK && pool->free == NULL)
		pthread_cond_wait(&pool->changed, &pool->lock);
	if (rc == PGR_OK) {
		b = pool->free;
		pool->free = b->next;
		pool->nfree--;
		b->next = NULL;
		b->len = 0;
	}
	pthread_mutex_unlock(&pool->lock);
	*out = b;
	return rc;
}

void pgr_pool_put(struct pgr_pool *pool, struct pgr_block *b)
{
	if (b == NULL)
		return;
	pthread_mutex_lock(&pool->lock);
	assert(pool->nfree < pool->count);
	b->next = pool->free;
	pool->free = b;
	pool->nfree++;
	pthread_cond_signal(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

size_t pgr_pool_block_bytes(const struct pgr_pool *pool)
{
	return pool->block_bytes;
}

size_t pgr_pool_count(const struct pgr_pool *pool)
{
	return pool->count;
}

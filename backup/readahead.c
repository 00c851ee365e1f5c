#include "backup/readahead.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * - The bytes [start, start + used) of the ring, modulo cap, are the reader's; all others the thread's.  Each side
 * works on its own without the lock, and gives on under it.
 * - The thread waits for room only, and pgr_readahead_free ends that wait; the reader waits for the thread, which
 * always comes to an end when `from` obeys the stop latch.  So nobody here waits on the latch itself.
 */
struct pgr_readahead {
	struct pgr_source base; /* first: what callers read from */
	/* constant */
	struct pgr_source *from;
	uint8_t *ring;
	size_t cap;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t filled;	/* bytes came, or it ended */
	pthread_cond_t emptied; /* there is room, or nobody will read any more */
	/* under lock: */
	size_t start, used;
	bool ended;   /* the thread reads no more */
	bool closing; /* nobody wants more */
	int rc;	      /* with ended: PGR_OK, or PGR_ERR and err */
	struct pgr_err err;
};

/* ---- the thread ---- */

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Waits for free bytes: as many as there are in one piece.  0: nobody will read any more. */
static size_t wait_for_room(struct pgr_readahead *r, uint8_t **dst)
{
	size_t n = 0;

	pthread_mutex_lock(&r->lock);
	while (!r->closing && r->used == r->cap)
		pthread_cond_wait(&r->emptied, &r->lock);
	if (!r->closing) {
		size_t at = (r->start + r->used) % r->cap;

		*dst = r->ring + at;
		n = least(r->cap - r->used, r->cap - at);
	}
	pthread_mutex_unlock(&r->lock);
	return n;
}

static void *pull(void *arg)
{
	struct pgr_readahead *r = arg;
	struct pgr_err err = {0};
	uint8_t *dst = NULL;
	bool ended = false;
	size_t room;

	while (!ended && (room = wait_for_room(r, &dst)) > 0) {
		size_t n = 0;
		int rc = pgr_source_read(r->from, dst, room, &n, &err);

		ended = rc != PGR_OK || n == 0;
		pthread_mutex_lock(&r->lock);
		if (rc == PGR_OK)
			r->used += n;
		else
			r->err = err;
		r->rc = rc;
		r->ended = ended;
		pthread_cond_signal(&r->filled);
		pthread_mutex_unlock(&r->lock);
	}
	return NULL;
}

/* ---- the reader ---- */

/* Waits for bytes: as many as there are in one piece.  0: there will be none. */
static size_t wait_for_bytes(struct pgr_readahead *r, const uint8_t **src)
{
	size_t n;

	pthread_mutex_lock(&r->lock);
	while (r->used == 0 && !r->ended)
		pthread_cond_wait(&r->filled, &r->lock);
	*src = r->ring + r->start;
	n = least(r->used, r->cap - r->start);
	pthread_mutex_unlock(&r->lock);
	return n;
}

static void give_back(struct pgr_readahead *r, size_t n)
{
	pthread_mutex_lock(&r->lock);
	r->start = (r->start + n) % r->cap;
	r->used -= n;
	pthread_cond_signal(&r->emptied);
	pthread_mutex_unlock(&r->lock);
}

static int readahead_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct pgr_readahead *r = (struct pgr_readahead *)s;
	const uint8_t *src;

	*n = least(wait_for_bytes(r, &src), cap);
	if (*n > 0) {
		memcpy(dst, src, *n);
		give_back(r, *n);
		return PGR_OK;
	}
	if (r->rc == PGR_OK) /* it has ended: nobody writes this any more */
		return PGR_OK;
	*err = r->err;
	return PGR_ERR;
}

/* ---- making and freeing ---- */

static int init_locks(struct pgr_readahead *r, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&r->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&r->filled, NULL);
	if (rc != 0)
		goto no_filled;
	rc = pthread_cond_init(&r->emptied, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_cond_destroy(&r->filled);
no_filled:
	pthread_mutex_destroy(&r->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

static void free_all(struct pgr_readahead *r)
{
	pthread_cond_destroy(&r->emptied);
	pthread_cond_destroy(&r->filled);
	pthread_mutex_destroy(&r->lock);
	free(r->ring);
	free(r);
}

int pgr_readahead_new(struct pgr_readahead **out, struct pgr_source *from, size_t bytes, struct pgr_err *err)
{
	struct pgr_readahead *r = calloc(1, sizeof(*r));
	int rc;

	*out = NULL;
	if (r == NULL)
		return pgr_err_nomem(err);
	r->base.read = readahead_read;
	r->from = from;
	r->cap = bytes;
	r->ring = malloc(bytes);
	if (r->ring == NULL) {
		free(r);
		return pgr_err_nomem(err);
	}
	if (init_locks(r, err) != PGR_OK) {
		free(r->ring);
		free(r);
		return PGR_ERR;
	}
	rc = pthread_create(&r->thread, NULL, pull, r);
	if (rc != 0) {
		free_all(r);
		return pgr_err_sys(err, rc, "could not start a thread");
	}
	*out = r;
	return PGR_OK;
}

struct pgr_source *pgr_readahead_source(struct pgr_readahead *r)
{
	return &r->base;
}

void pgr_readahead_free(struct pgr_readahead *r)
{
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	r->closing = true;
	pthread_cond_signal(&r->emptied);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	free_all(r);
}

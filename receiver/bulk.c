#include "receiver/bulk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/block.h"
#include "common/fs_io.h"
#include "common/sys.h"

struct block {
	uint8_t *data;
	size_t len;
	int fd;
	off_t off; /* in the file */
	pgr_lsn end;
	bool is_last; /* of the file */
	char *path;
};

/*
 * - blocks[first .. first + queued) are full and the thread's, the next one is the owner's if there is one; all numbers
 *   modulo PGR_BULK_BLOCKS.
 * - busy: the thread is with the first one, or tells of it.
 */
struct pgr_bulk {
	/* constant */
	const struct pgr_sys *sys;
	void (*wrote)(void *arg, pgr_lsn lsn, const struct pgr_err *failed);
	void *arg;
	uint8_t *memory;
	size_t path_room;
	bool has_thread;
	pthread_t thread;

	/* the owner's: where the next byte goes */
	int fd; /* -1: no file was begun */
	char *path;
	off_t size;
	off_t off;   /* of the owner's block in the file */
	pgr_lsn lsn; /* and in the WAL */
	size_t next;

	struct block blocks[PGR_BULK_BLOCKS]; /* each belongs to one of both */

	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t done;
	/* under lock: */
	size_t first, queued;
	bool busy, paused, quit;
	bool refused; /* the file system does not take it */
	bool has_failed;
	struct pgr_err failed;
};

/* ---- the thread ---- */

static int leave_direct(const struct pgr_bulk *b, int fd, const char *path, struct pgr_err *err)
{
	if (b->sys->set_direct(b->sys, fd, 0) == 0)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not go on with file \"%s\" in the page cache", path);
}

/* Some file systems let O_DIRECT be set, and then refuse to write.  Whoever has the file after us knows nothing of it.
 */
static int write_block(const struct pgr_bulk *b, const struct block *k, bool *refused, struct pgr_err *err)
{
	int rc = pgr_fs_pwrite_all(b->sys, k->fd, k->data, k->len, k->off, k->path, err);

	*refused = rc != PGR_OK && err->sys_errno == EINVAL;
	if (*refused) {
		rc = leave_direct(b, k->fd, k->path, err);
		if (rc == PGR_OK)
			rc = pgr_fs_pwrite_all(b->sys, k->fd, k->data, k->len, k->off, k->path, err);
	}
	return rc == PGR_OK && k->is_last ? leave_direct(b, k->fd, k->path, err) : rc;
}

/* The lock is held, and let go in between.  The block is free before anybody is told. */
static void write_first(struct pgr_bulk *b)
{
	struct block k = b->blocks[b->first];
	struct pgr_err err;
	bool refused;
	int rc;

	b->busy = true;
	pthread_mutex_unlock(&b->lock);
	rc = write_block(b, &k, &refused, &err);
	pthread_mutex_lock(&b->lock);
	b->refused = b->refused || refused;
	if (rc == PGR_OK) {
		b->blocks[b->first].len = 0;
		b->first = (b->first + 1) % PGR_BULK_BLOCKS;
		b->queued--;
	} else {
		b->failed = err;
		b->has_failed = true;
	}
	pthread_mutex_unlock(&b->lock);
	b->wrote(b->arg, k.end, rc == PGR_OK ? NULL : &err);
	pthread_mutex_lock(&b->lock);
	b->busy = false;
	pthread_cond_broadcast(&b->done);
}

static void *thread_main(void *arg)
{
	struct pgr_bulk *b = arg;

	pthread_mutex_lock(&b->lock);
	while (!b->quit) {
		if (b->queued > 0 && !b->has_failed && !b->paused)
			write_first(b);
		else
			pthread_cond_wait(&b->work, &b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* ---- making and freeing ---- */

static int fill(struct pgr_bulk *b, struct pgr_err *err)
{
	void *memory;
	int rc = posix_memalign(&memory, PGR_BLOCK_ALIGN, (size_t)PGR_BULK_BLOCKS * PGR_BULK_BLOCK);

	if (rc != 0)
		return pgr_err_nomem(err);
	b->memory = memory;
	b->path = malloc(b->path_room);
	for (size_t i = 0; i < PGR_BULK_BLOCKS; i++) {
		b->blocks[i].data = b->memory + i * PGR_BULK_BLOCK;
		b->blocks[i].path = malloc(b->path_room);
		if (b->path == NULL || b->blocks[i].path == NULL)
			return pgr_err_nomem(err);
	}
	rc = pthread_create(&b->thread, NULL, thread_main, b);
	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a thread that writes");
	b->has_thread = true;
	return PGR_OK;
}

int pgr_bulk_new(struct pgr_bulk **out, const struct pgr_sys *sys, size_t path_room,
		 void (*wrote)(void *arg, pgr_lsn lsn, const struct pgr_err *failed), void *arg, struct pgr_err *err)
{
	struct pgr_bulk *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (b == NULL)
		return pgr_err_nomem(err);
	b->sys = sys;
	b->path_room = path_room;
	b->wrote = wrote;
	b->arg = arg;
	b->fd = -1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->done, NULL);
	if (fill(b, err) != PGR_OK) {
		pgr_bulk_free(b);
		return PGR_ERR;
	}
	*out = b;
	return PGR_OK;
}

static void end_thread(struct pgr_bulk *b)
{
	pthread_mutex_lock(&b->lock);
	b->quit = true;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->thread, NULL);
}

void pgr_bulk_free(struct pgr_bulk *b)
{
	if (b == NULL)
		return;
	if (b->has_thread)
		end_thread(b);
	for (size_t i = 0; i < PGR_BULK_BLOCKS; i++)
		free(b->blocks[i].path);
	free(b->path);
	free(b->memory);
	pthread_cond_destroy(&b->work);
	pthread_cond_destroy(&b->done);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* ---- the owner ---- */

static bool is_refused(struct pgr_bulk *b)
{
	bool refused;

	pthread_mutex_lock(&b->lock);
	refused = b->refused;
	pthread_mutex_unlock(&b->lock);
	return refused;
}

/* *room: whether the owner has a block.  PGR_ERR: a write has failed. */
static int look(struct pgr_bulk *b, bool *room, struct pgr_err *err)
{
	int rc = PGR_OK;

	pthread_mutex_lock(&b->lock);
	*room = b->queued < PGR_BULK_BLOCKS;
	if (b->has_failed) {
		*err = b->failed;
		rc = PGR_ERR;
	}
	pthread_mutex_unlock(&b->lock);
	return rc;
}

int pgr_bulk_begin(struct pgr_bulk *b, int fd, off_t size, const char *path, pgr_lsn lsn)
{
	assert(b->fd < 0 && size > 0 && size % (off_t)PGR_BULK_BLOCK == 0);
	if (is_refused(b) || b->sys->set_direct(b->sys, fd, 1) != 0)
		return PGR_MORE;
	b->fd = fd;
	b->size = size;
	b->off = 0;
	b->lsn = lsn;
	snprintf(b->path, b->path_room, "%s", path);
	return PGR_OK;
}

static void give_to_thread(struct pgr_bulk *b, struct block *k)
{
	snprintf(k->path, b->path_room, "%s", b->path);
	k->fd = b->fd;
	k->off = b->off;
	k->end = b->lsn + k->len;
	b->off += (off_t)k->len;
	b->lsn = k->end;
	k->is_last = b->off == b->size;
	if (k->is_last)
		b->fd = -1;
	b->next = (b->next + 1) % PGR_BULK_BLOCKS;
	pthread_mutex_lock(&b->lock);
	b->queued++;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->lock);
}

int pgr_bulk_put(struct pgr_bulk *b, const uint8_t *p, size_t len, size_t *taken, struct pgr_err *err)
{
	bool room;

	for (*taken = 0; *taken < len;) {
		struct block *k = &b->blocks[b->next];
		size_t n = len - *taken;

		assert(b->fd >= 0);
		if (look(b, &room, err) != PGR_OK)
			return PGR_ERR;
		if (!room)
			return PGR_MORE;
		if (n > PGR_BULK_BLOCK - k->len)
			n = PGR_BULK_BLOCK - k->len;
		memcpy(k->data + k->len, p + *taken, n);
		k->len += n;
		*taken += n;
		if (k->len == PGR_BULK_BLOCK)
			give_to_thread(b, k);
	}
	return PGR_OK;
}

static int wait_for_thread(struct pgr_bulk *b, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&b->lock);
	while (b->busy || (b->queued > 0 && !b->has_failed))
		pthread_cond_wait(&b->done, &b->lock);
	if (b->has_failed)
		*err = b->failed;
	rc = b->has_failed ? PGR_ERR : PGR_OK;
	pthread_mutex_unlock(&b->lock);
	return rc;
}

int pgr_bulk_drain(struct pgr_bulk *b, struct pgr_err *err)
{
	struct block *k = &b->blocks[b->next];
	int fd = b->fd;

	if (wait_for_thread(b, err) != PGR_OK)
		return PGR_ERR;
	b->fd = -1;
	if (fd < 0)
		return PGR_OK;
	if (leave_direct(b, fd, b->path, err) != PGR_OK ||
	    pgr_fs_pwrite_all(b->sys, fd, k->data, k->len, b->off, b->path, err) != PGR_OK)
		return PGR_ERR;
	k->len = 0;
	return PGR_OK;
}

void pgr_bulk_forget(struct pgr_bulk *b)
{
	pthread_mutex_lock(&b->lock);
	b->paused = true;
	while (b->busy)
		pthread_cond_wait(&b->done, &b->lock);
	for (size_t i = 0; i < PGR_BULK_BLOCKS; i++)
		b->blocks[i].len = 0;
	b->first = b->next;
	b->queued = 0;
	b->paused = false;
	pthread_mutex_unlock(&b->lock);
	b->fd = -1;
}

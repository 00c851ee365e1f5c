#include "backup/dirsink.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backup/outfile.h"
#include "common/block.h"
#include "common/stop.h"
#include "common/sys.h"

/* Far below the usual 1024 descriptors of a process, far above what keeps the writers busy. */
#define MAX_OPEN_FILES 256

/*
 * So many finished files are synced together: the first fsync commits the file system's journal for all of them, and
 * many small files do not cost a commit each.
 */
#define SYNC_BATCH 32

/* What a writer has to do: write a block, or, without one, finish a file. */
struct job {
	struct job *next;
	struct pgr_sink_file *file;
	struct pgr_block *block;
	uint64_t off;
};

enum file_state { FILE_OPEN, FILE_SEALED, FILE_ABANDONED };

struct pgr_sink_file {
	struct pgr_outfile out;
	const struct pgr_sink_watch *watch; /* constant from the first block on; NULL: none */
	void *watch_arg;
	struct pgr_sink_file *next_in_batch; /* of who has the batch */

	/* under the sink's lock: */
	bool busy;			     /* ordered: a block is queued or being written ... */
	struct job *waiting, **waiting_tail; /* ... and these come after it */
	struct pgr_sink_file *prev, *next;   /* among all files of the sink */
	enum file_state state;
	unsigned pending; /* blocks queued or being written */
	uint64_t extent;  /* end of the last block posted */
	uint64_t size;	  /* once sealed */
	struct job finish;

	/* constant: */
	bool in_place; /* it was there; has no place among the open ones */
	char path[];   /* for messages */
};

/*
 * - A job in the queue, or waiting at an ordered file, holds one block of the pool, or is the `finish` of its file:
 *   so `jobs` has one for each block.
 * - A file belongs to the list until it is taken out by the one thread that finishes or drops it: the one that sees
 *   it sealed or abandoned and without pending blocks first.  With a failure it may stay there until pgr_dirsink_free.
 * - A file whose content is complete waits in the batch for its fsync.  It is still unfinished, and has no other owner.
 * - `open` counts the files of the list that were made here and those being made; `unfinished` the sealed ones of the
 *   list.
 * - `failed` is set before the stop latch, and the latch before the block that failed is counted as done: whoever the
 *   latch wakes finds the reason, and whoever sees no block pending sees that one failed.
 * - The latch calls back under its own lock: nothing is posted to it while `lock` is held.
 */
struct pgr_dirsink {
	/* constant after pgr_dirsink_new */
	const struct pgr_sys *sys;
	struct pgr_pool *pool;
	struct pgr_stop *stop;
	struct pgr_outfs *fs;
	struct pgr_waker waker;
	bool sync;
	bool threaded;
	struct job *jobs;

	/* of the thread that makes and frees the sink */
	pthread_t *threads;
	unsigned nthreads; /* running */

	_Atomic uint64_t bytes_written;
	_Atomic uint64_t files_finished;

	pthread_mutex_t lock;
	pthread_cond_t work;	/* the queue is not empty, or writers must look whether to end */
	pthread_cond_t settled; /* a file is gone, or something failed */
	/* under lock: */
	struct job *head, **tail; /* the queue: first come, first served */
	struct job *unused;
	struct pgr_sink_file *files;
	unsigned open;
	unsigned unfinished;
	struct pgr_sink_file *batch;
	unsigned nbatch;
	bool closing;
	bool failed;
	struct pgr_err why; /* with failed */
};

/* ---- the queue ---- */

/* Under lock. */
static void push(struct pgr_dirsink *s, struct job *j)
{
	j->next = NULL;
	*s->tail = j;
	s->tail = &j->next;
	pthread_cond_signal(&s->work);
}

/* Under lock.  The job's memory is free for the next one as soon as it is copied. */
static bool pop(struct pgr_dirsink *s, struct job *out)
{
	struct job *j = s->head;

	if (j == NULL)
		return false;
	s->head = j->next;
	if (s->head == NULL)
		s->tail = &s->head;
	*out = *j;
	if (j->block != NULL) {
		j->next = s->unused;
		s->unused = j;
	}
	return true;
}

static bool is_ordered(const struct pgr_sink_file *f)
{
	return f->watch != NULL && f->watch->ordered;
}

/* Under lock. */
static void push_block(struct pgr_dirsink *s, struct pgr_sink_file *f, uint64_t off, struct pgr_block *b)
{
	struct job *j = s->unused;

	assert(j != NULL);
	s->unused = j->next;
	*j = (struct job){.file = f, .block = b, .off = off};
	if (is_ordered(f) && f->busy) {
		*f->waiting_tail = j;
		f->waiting_tail = &j->next;
		return;
	}
	f->busy = true;
	push(s, j);
}

/* Under lock: a block of the file was written, the next one of an ordered file may follow. */
static void push_waiting(struct pgr_dirsink *s, struct pgr_sink_file *f)
{
	struct job *j = f->waiting;

	f->busy = j != NULL;
	if (j == NULL)
		return;
	f->waiting = j->next;
	if (f->waiting == NULL)
		f->waiting_tail = &f->waiting;
	push(s, j);
}

/* ---- one file: writing, finishing, dropping ---- */

static void fail(struct pgr_dirsink *s, const struct pgr_err *err)
{
	pthread_mutex_lock(&s->lock);
	if (!s->failed) {
		s->failed = true;
		s->why = *err;
	}
	pthread_mutex_unlock(&s->lock);
	pgr_stop_post(s->stop, err);
}

/* Under lock. */
static void enlist(struct pgr_dirsink *s, struct pgr_sink_file *f)
{
	f->next = s->files;
	if (f->next != NULL)
		f->next->prev = f;
	s->files = f;
}

/* Under lock. */
static void unlist(struct pgr_dirsink *s, struct pgr_sink_file *f)
{
	if (f->prev != NULL)
		f->prev->next = f->next;
	else
		s->files = f->next;
	if (f->next != NULL)
		f->next->prev = f->prev;
}

static int write_block(struct pgr_dirsink *s, struct pgr_sink_file *f, struct pgr_block *b, uint64_t off,
		       struct pgr_err *err)
{
	if (f->watch != NULL)
		f->watch->block(f->watch_arg, off, b->data, b->len);
	if (pgr_outfile_write(s->fs, &f->out, f->path, b, off, err) != PGR_OK)
		return PGR_ERR;
	atomic_fetch_add(&s->bytes_written, b->len);
	return PGR_OK;
}

/* Takes a file that nobody else can reach any more out of the sink. */
static void release(struct pgr_dirsink *s, struct pgr_sink_file *f, bool finished)
{
	pthread_mutex_lock(&s->lock);
	unlist(s, f);
	if (!f->in_place)
		s->open--;
	if (finished)
		s->unfinished--;
	pthread_cond_broadcast(&s->settled);
	pthread_mutex_unlock(&s->lock);
	free(f);
}

/* Syncs and closes.  A file that failed stays unfinished, so that a drain does not take it for done. */
static int settle_file(struct pgr_dirsink *s, struct pgr_sink_file *f, struct pgr_err *err)
{
	struct pgr_err later;
	int rc = s->sync ? pgr_outfile_sync(s->fs, &f->out, f->path, err) : PGR_OK;

	if (pgr_outfile_close(s->fs, &f->out, f->path, rc == PGR_OK ? err : &later) != PGR_OK)
		rc = PGR_ERR;
	if (rc != PGR_OK)
		fail(s, err);
	else
		atomic_fetch_add(&s->files_finished, 1);
	if (rc == PGR_OK && f->watch != NULL && f->watch->done != NULL)
		f->watch->done(f->watch_arg, f->size);
	release(s, f, rc == PGR_OK);
	return rc;
}

/* Settles all files of a batch, also after one of them failed: somebody must close them.  The first failure counts. */
static int settle_batch(struct pgr_dirsink *s, struct pgr_sink_file *f, struct pgr_err *err)
{
	struct pgr_err later;
	int rc = PGR_OK;

	for (struct pgr_sink_file *next; f != NULL; f = next) {
		next = f->next_in_batch;
		if (settle_file(s, f, rc == PGR_OK ? err : &later) != PGR_OK)
			rc = PGR_ERR;
	}
	return rc;
}

/* Under lock. */
static struct pgr_sink_file *take_batch(struct pgr_dirsink *s)
{
	struct pgr_sink_file *batch = s->batch;

	s->batch = NULL;
	s->nbatch = 0;
	return batch;
}

/* All blocks are written.  A file may end in a hole that nobody sent. */
static int finish_file(struct pgr_dirsink *s, struct pgr_sink_file *f, struct pgr_err *err)
{
	struct pgr_sink_file *batch = NULL;

	if (pgr_outfile_set_size(s->fs, &f->out, f->path, f->extent, f->size, err) != PGR_OK) {
		pgr_outfile_abandon(s->fs, &f->out);
		fail(s, err);
		release(s, f, false);
		return PGR_ERR;
	}
	if (!s->sync)
		return settle_file(s, f, err);
	pthread_mutex_lock(&s->lock);
	f->next_in_batch = s->batch;
	s->batch = f;
	if (++s->nbatch >= SYNC_BATCH)
		batch = take_batch(s);
	pthread_cond_broadcast(&s->settled); /* a drain takes what is left itself */
	pthread_mutex_unlock(&s->lock);
	return settle_batch(s, batch, err);
}

static void drop_file(struct pgr_dirsink *s, struct pgr_sink_file *f)
{
	pgr_outfile_abandon(s->fs, &f->out);
	release(s, f, false);
}

/* Writes a block, gives it back, and does what is due if it was the last one of its file. */
static int carry_out_block(struct pgr_dirsink *s, const struct job *j, struct pgr_err *err)
{
	struct pgr_sink_file *f = j->file;
	int rc = write_block(s, f, j->block, j->off, err);
	bool last, drop, finish;

	pgr_pool_put(s->pool, j->block);
	if (rc != PGR_OK)
		fail(s, err);
	pthread_mutex_lock(&s->lock);
	push_waiting(s, f);
	last = --f->pending == 0;
	drop = last && f->state == FILE_ABANDONED;
	/* After a failure, this block's or another's, the latch is set: the file then stays in the list. */
	finish = last && f->state == FILE_SEALED && !pgr_stop_is_set(s->stop);
	pthread_mutex_unlock(&s->lock);

	if (drop)
		drop_file(s, f);
	else if (finish)
		rc = finish_file(s, f, err);
	return rc;
}

/* ---- the writers ---- */

/* Waits for a job.  False: there will be none; after a stop what is queued stays queued. */
static bool next_job(struct pgr_dirsink *s, struct job *out)
{
	bool got = false;

	pthread_mutex_lock(&s->lock);
	while (!pgr_stop_is_set(s->stop) && !(got = pop(s, out)) && !s->closing)
		pthread_cond_wait(&s->work, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return got;
}

/* What fails is in the sink and in the stop latch when the writer comes back: its own copy is not needed. */
static void *writer_main(void *arg)
{
	struct pgr_dirsink *s = arg;
	struct pgr_err ignored;
	struct job j;

	while (next_job(s, &j)) {
		if (j.block != NULL)
			(void)carry_out_block(s, &j, &ignored);
		else
			(void)finish_file(s, j.file, &ignored);
	}
	return NULL;
}

static void wake_all(void *arg)
{
	struct pgr_dirsink *s = arg;

	pthread_mutex_lock(&s->lock);
	pthread_cond_broadcast(&s->work);
	pthread_cond_broadcast(&s->settled);
	pthread_mutex_unlock(&s->lock);
}

static int start_writers(struct pgr_dirsink *s, unsigned writers, struct pgr_err *err)
{
	size_t njobs = pgr_pool_count(s->pool);

	s->jobs = calloc(njobs, sizeof(*s->jobs));
	s->threads = calloc(writers, sizeof(*s->threads));
	if (s->jobs == NULL || s->threads == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < njobs; i++) {
		s->jobs[i].next = s->unused;
		s->unused = &s->jobs[i];
	}
	while (s->nthreads < writers) {
		int rc = pthread_create(&s->threads[s->nthreads], NULL, writer_main, s);

		if (rc != 0)
			return pgr_err_sys(err, rc, "could not start a writer thread");
		s->nthreads++;
	}
	return PGR_OK;
}

/* Ends the writers: after what is queued, or at once when the latch is set. */
static void join_writers(struct pgr_dirsink *s)
{
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	while (s->nthreads > 0)
		pthread_join(s->threads[--s->nthreads], NULL);
}

/* ---- making and freeing ---- */

static int init_locks(struct pgr_dirsink *s, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&s->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&s->work, NULL);
	if (rc != 0)
		goto no_work;
	rc = pthread_cond_init(&s->settled, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_cond_destroy(&s->work);
no_work:
	pthread_mutex_destroy(&s->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

int pgr_dirsink_new(struct pgr_dirsink **out, const struct pgr_sys *sys, struct pgr_pool *pool, struct pgr_stop *stop,
		    const struct pgr_dirsink_opts *opts, struct pgr_err *err)
{
	struct pgr_dirsink *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (s == NULL)
		return pgr_err_nomem(err);
	s->sys = sys;
	s->pool = pool;
	s->stop = stop;
	s->sync = opts->sync;
	s->threaded = opts->writers > 0;
	s->tail = &s->head;
	if (pgr_outfs_new(&s->fs, sys, err) != PGR_OK || init_locks(s, err) != PGR_OK) {
		pgr_outfs_free(s->fs);
		free(s);
		return PGR_ERR;
	}
	s->waker = (struct pgr_waker){.fn = wake_all, .arg = s};
	pgr_stop_watch(stop, &s->waker);
	if (s->threaded && start_writers(s, opts->writers, err) != PGR_OK) {
		pgr_dirsink_free(s);
		return PGR_ERR;
	}
	*out = s;
	return PGR_OK;
}

/* What was sealed is finished, also when nobody drained.  A failure is in the stop latch. */
static void settle_rest(struct pgr_dirsink *s)
{
	struct pgr_err ignored;
	int rc = settle_batch(s, take_batch(s), &ignored);

	(void)rc;
}

void pgr_dirsink_free(struct pgr_dirsink *s)
{
	struct job j;

	if (s == NULL)
		return;
	join_writers(s);
	if (!pgr_stop_is_set(s->stop))
		settle_rest(s);
	pgr_stop_unwatch(s->stop, &s->waker);
	while (pop(s, &j))
		pgr_pool_put(s->pool, j.block);
	for (struct pgr_sink_file *f; (f = s->files) != NULL; drop_file(s, f))
		for (struct job *w = f->waiting; w != NULL; w = w->next)
			pgr_pool_put(s->pool, w->block);
	pthread_cond_destroy(&s->settled);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	pgr_outfs_free(s->fs);
	free(s->threads);
	free(s->jobs);
	free(s);
}

/* ---- what sources call ---- */

static int reserve_place(struct pgr_dirsink *s, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	while ((rc = pgr_stop_check(s->stop, err)) == PGR_OK && s->open >= MAX_OPEN_FILES)
		pthread_cond_wait(&s->settled, &s->lock);
	if (rc == PGR_OK)
		s->open++;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static void return_place(struct pgr_dirsink *s)
{
	pthread_mutex_lock(&s->lock);
	s->open--;
	pthread_cond_broadcast(&s->settled);
	pthread_mutex_unlock(&s->lock);
}

/* Sealed files need nobody but the writers to be finished. */
static int await_writers(struct pgr_dirsink *s, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	while ((rc = pgr_stop_check(s->stop, err)) == PGR_OK && s->unfinished >= MAX_OPEN_FILES)
		pthread_cond_wait(&s->settled, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static struct pgr_sink_file *new_file(const char *path, struct pgr_err *err)
{
	size_t path_len = strlen(path);
	struct pgr_sink_file *f = calloc(1, sizeof(*f) + path_len + 1);

	if (f == NULL) {
		pgr_err_nomem(err);
		return NULL;
	}
	memcpy(f->path, path, path_len + 1);
	f->finish.file = f;
	f->waiting_tail = &f->waiting;
	return f;
}

static int hand_out(struct pgr_dirsink *s, struct pgr_sink_file *f, struct pgr_sink_file **out)
{
	pthread_mutex_lock(&s->lock);
	enlist(s, f);
	pthread_mutex_unlock(&s->lock);
	*out = f;
	return PGR_OK;
}

int pgr_dirsink_create(struct pgr_dirsink *s, int dirfd, const char *leaf, const char *path, mode_t mode,
		       struct pgr_sink_file **out, struct pgr_err *err)
{
	struct pgr_sink_file *f = new_file(path, err);

	*out = NULL;
	if (f == NULL)
		return PGR_ERR;
	if (reserve_place(s, err) != PGR_OK) {
		free(f);
		return PGR_ERR;
	}
	if (pgr_outfile_create(s->fs, dirfd, leaf, path, mode, &f->out, err) != PGR_OK) {
		return_place(s);
		free(f);
		return PGR_ERR;
	}
	return hand_out(s, f, out);
}

int pgr_dirsink_open(struct pgr_dirsink *s, int dirfd, const char *leaf, const char *path, mode_t mode,
		     struct pgr_sink_file **out, struct pgr_err *err)
{
	struct pgr_sink_file *f = new_file(path, err);

	*out = NULL;
	if (f == NULL)
		return PGR_ERR;
	f->in_place = true;
	if (await_writers(s, err) != PGR_OK ||
	    pgr_outfile_open(s->fs, dirfd, leaf, path, mode, &f->out, err) != PGR_OK) {
		free(f);
		return PGR_ERR;
	}
	return hand_out(s, f, out);
}

void pgr_dirsink_watch(struct pgr_dirsink *s, struct pgr_sink_file *f, const struct pgr_sink_watch *watch, void *arg)
{
	(void)s;
	f->watch = watch;
	f->watch_arg = arg;
}

/* off_t is signed: what ends beyond it cannot be written. */
static int check_extent(const struct pgr_sink_file *f, uint64_t off, uint64_t len, struct pgr_err *err)
{
	if (off > INT64_MAX || len > INT64_MAX - off)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" is too large", f->path);
	return PGR_OK;
}

int pgr_dirsink_post(struct pgr_dirsink *s, struct pgr_sink_file *f, uint64_t off, struct pgr_block **b,
		     struct pgr_err *err)
{
	struct job j = {.file = f, .block = *b, .off = off};

	*b = NULL;
	if (pgr_stop_check(s->stop, err) != PGR_OK || check_extent(f, off, j.block->len, err) != PGR_OK) {
		pgr_pool_put(s->pool, j.block);
		return PGR_ERR;
	}
	pthread_mutex_lock(&s->lock);
	f->pending++;
	if (f->extent < off + j.block->len)
		f->extent = off + j.block->len;
	if (s->threaded)
		push_block(s, f, off, j.block);
	pthread_mutex_unlock(&s->lock);
	return s->threaded ? PGR_OK : carry_out_block(s, &j, err);
}

int pgr_dirsink_seal(struct pgr_dirsink *s, struct pgr_sink_file **file, uint64_t size, struct pgr_err *err)
{
	struct pgr_sink_file *f = *file;
	bool finish;

	if (pgr_stop_check(s->stop, err) != PGR_OK || check_extent(f, 0, size, err) != PGR_OK) {
		pgr_dirsink_abandon(s, file);
		return PGR_ERR;
	}
	*file = NULL;
	pthread_mutex_lock(&s->lock);
	f->size = size;
	f->state = FILE_SEALED;
	s->unfinished++;
	finish = f->pending == 0;
	if (finish && s->threaded)
		push(s, &f->finish);
	pthread_mutex_unlock(&s->lock);
	return finish && !s->threaded ? finish_file(s, f, err) : PGR_OK;
}

void pgr_dirsink_abandon(struct pgr_dirsink *s, struct pgr_sink_file **file)
{
	struct pgr_sink_file *f = *file;
	bool drop;

	*file = NULL;
	if (f == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	f->state = FILE_ABANDONED;
	drop = f->pending == 0;
	pthread_mutex_unlock(&s->lock);
	if (drop)
		drop_file(s, f);
}

int pgr_dirsink_drain(struct pgr_dirsink *s, struct pgr_err *err)
{
	bool failed;
	int rc;

	pthread_mutex_lock(&s->lock);
	while ((rc = pgr_stop_check(s->stop, err)) == PGR_OK && !s->failed && s->unfinished > 0) {
		struct pgr_sink_file *batch;

		if (s->unfinished > s->nbatch) {
			pthread_cond_wait(&s->settled, &s->lock);
			continue;
		}
		batch = take_batch(s); /* nobody will fill it up any more */
		pthread_mutex_unlock(&s->lock);
		(void)settle_batch(s, batch, err); /* its failure is in the sink */
		pthread_mutex_lock(&s->lock);
	}
	if (s->failed) {
		*err = s->why;
		rc = PGR_ERR;
	}
	failed = s->failed;
	pthread_mutex_unlock(&s->lock);
	if (failed) /* who failed may not have come to it yet */
		pgr_stop_post(s->stop, err);
	return rc;
}

uint64_t pgr_dirsink_bytes(const struct pgr_dirsink *s)
{
	return atomic_load(&s->bytes_written);
}

uint64_t pgr_dirsink_files(const struct pgr_dirsink *s)
{
	return atomic_load(&s->files_finished);
}

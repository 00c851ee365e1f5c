#include "backup/packer.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "backup/pieces.h"
#include "common/block.h"
#include "common/compress.h"
#include "common/stop.h"

#define MAX_THREADS	  32u
#define BLOCKS_PER_THREAD 2u
#define SERIAL_BLOCKS	  4u
#define SERIAL_ROOM	  ((size_t)256 * 1024)

enum slot_state { SLOT_EMPTY, SLOT_FILLED, SLOT_TAKEN, SLOT_PACKED };

/* A block on its way; the slots are a ring, and the block with number n goes through slot n % nslots. */
struct slot {
	enum slot_state state;	 /* under the packer's lock */
	struct pgr_block *block; /* of who owns the slot in its state; NULL once it is packed */
	/* of whoever has taken it, then of whoever puts it: */
	uint8_t *out;
	size_t out_len;
	size_t in_len;
	uint32_t crc;
};

/*
 * - put <= taken <= posted <= put + nslots: slots of the numbers in between are PACKED, TAKEN or FILLED.
 * - the slot `put` is put by the one thread that has set `putting`; so calls of opts.put never overlap, and `stream`
 *   belongs to that thread (and to pgr_packer_end, after the last one).
 * - closing: what was not put by then never will be; after pgr_packer_end that is nothing.
 * - a thread that fails posts to the stop latch and ends; the others see the latch.
 */
struct pgr_packer {
	/* constant */
	struct pgr_packer_opts opts;
	struct pgr_pool *pool;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	bool serial; /* one thread, which puts as it goes */
	size_t nslots;
	size_t out_cap;

	struct pgr_piece_stream stream;
	struct pgr_comp *comp; /* serial: of the thread, then of pgr_packer_end; NULL: blocks are passed on */
	uint8_t *room;	       /* for what it makes */

	unsigned nthreads; /* started and not joined */
	pthread_t *threads;

	pthread_mutex_t lock;
	pthread_cond_t work;	/* for the threads */
	pthread_cond_t settled; /* a slot became empty */
	/* under lock: */
	struct slot *slots;
	uint64_t posted, taken, put;
	bool putting;
	bool closing;
};

/* ---- how many ---- */

static unsigned processors(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return n > 1 ? (unsigned)n : 1;
}

static bool is_serial(const struct pgr_packer_opts *o)
{
	return o->spec.method == PGR_COMP_NONE || (o->spec.has_long && o->spec.long_distance);
}

static unsigned thread_count(const struct pgr_packer_opts *o)
{
	unsigned n = o->threads;

	if (is_serial(o))
		return 1;
	if (n == 0 && o->spec.has_workers)
		n = o->spec.workers > 1 ? (unsigned)o->spec.workers : 1;
	if (n == 0)
		n = processors();
	return n < MAX_THREADS ? n : MAX_THREADS;
}

static size_t slot_count(const struct pgr_packer_opts *o)
{
	return is_serial(o) ? SERIAL_BLOCKS : (size_t)BLOCKS_PER_THREAD * thread_count(o);
}

size_t pgr_packer_blocks(const struct pgr_packer_opts *opts)
{
	return slot_count(opts);
}

/* ---- what the threads do ---- */

static struct slot *slot_of(struct pgr_packer *p, uint64_t number)
{
	return &p->slots[number % p->nslots];
}

static void return_block(struct pgr_packer *p, struct slot *s)
{
	pgr_pool_put(p->pool, s->block);
	s->block = NULL;
}

static int pack_slot(struct pgr_packer *p, struct pgr_piece_maker *m, struct slot *s, struct pgr_err *err)
{
	int rc;

	s->in_len = s->block->len;
	rc = pgr_piece_make(m, s->block->data, s->in_len, s->out, p->out_cap, &s->out_len, &s->crc, err);
	return_block(p, s);
	return rc;
}

static int put_slot(struct pgr_packer *p, struct slot *s, struct pgr_err *err)
{
	uint8_t head[PGR_PIECE_EXTRA_MAX];
	size_t n = pgr_piece_stream_head(&p->stream, head);

	if (n > 0 && p->opts.put(p->opts.arg, head, n, err) != PGR_OK)
		return PGR_ERR;
	pgr_piece_stream_add(&p->stream, s->in_len, s->crc);
	return p->opts.put(p->opts.arg, s->out, s->out_len, err);
}

/* Called with the lock held, as is take_and_pack; both let go of it meanwhile. */
static int put_next(struct pgr_packer *p, struct pgr_err *err)
{
	struct slot *s = slot_of(p, p->put);
	int rc;

	p->putting = true;
	pthread_mutex_unlock(&p->lock);
	rc = put_slot(p, s, err);
	pthread_mutex_lock(&p->lock);
	if (rc != PGR_OK)
		return PGR_ERR; /* still putting: nobody puts anything behind what failed */
	p->putting = false;
	s->state = SLOT_EMPTY;
	p->put++;
	pthread_cond_broadcast(&p->settled);
	return PGR_OK;
}

static int take_and_pack(struct pgr_packer *p, struct pgr_piece_maker *m, struct pgr_err *err)
{
	struct slot *s = slot_of(p, p->taken++);
	int rc;

	s->state = SLOT_TAKEN;
	pthread_mutex_unlock(&p->lock);
	rc = pack_slot(p, m, s, err);
	pthread_mutex_lock(&p->lock);
	if (rc == PGR_OK)
		s->state = SLOT_PACKED;
	return rc;
}

static bool can_put(struct pgr_packer *p)
{
	return !p->putting && p->put < p->taken && slot_of(p, p->put)->state == SLOT_PACKED;
}

/* Putting comes first: it makes room.  Who puts looks again afterwards, so that nothing packed is left behind. */
static int work(struct pgr_packer *p, struct pgr_piece_maker *m, struct pgr_err *err)
{
	int rc = PGR_OK;

	pthread_mutex_lock(&p->lock);
	while (rc == PGR_OK && !p->closing && !pgr_stop_is_set(p->stop)) {
		if (can_put(p))
			rc = put_next(p, err);
		else if (p->taken < p->posted)
			rc = take_and_pack(p, m, err);
		else
			pthread_cond_wait(&p->work, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

/* ---- one thread, one frame ---- */

static int serial_step(struct pgr_packer *p, const uint8_t *data, size_t len, enum pgr_comp_op op, struct pgr_err *err)
{
	int rc;

	if (p->comp == NULL)
		return len > 0 ? p->opts.put(p->opts.arg, data, len, err) : PGR_OK;
	do {
		size_t made;

		rc = pgr_comp_step(p->comp, &data, &len, op, p->room, SERIAL_ROOM, &made, err);
		if (rc != PGR_ERR && made > 0 && p->opts.put(p->opts.arg, p->room, made, err) != PGR_OK)
			return PGR_ERR;
	} while (rc == PGR_OK);
	return rc == PGR_MORE ? PGR_OK : PGR_ERR;
}

static int serial_next(struct pgr_packer *p, struct pgr_err *err)
{
	struct slot *s = slot_of(p, p->taken++);
	int rc;

	s->state = SLOT_TAKEN;
	pthread_mutex_unlock(&p->lock);
	rc = serial_step(p, s->block->data, s->block->len, PGR_COMP_GO_ON, err);
	return_block(p, s);
	pthread_mutex_lock(&p->lock);
	s->state = SLOT_EMPTY;
	if (rc == PGR_OK)
		p->put++;
	pthread_cond_broadcast(&p->settled);
	return rc;
}

static int serial_work(struct pgr_packer *p, struct pgr_err *err)
{
	int rc = PGR_OK;

	pthread_mutex_lock(&p->lock);
	while (rc == PGR_OK && !p->closing && !pgr_stop_is_set(p->stop)) {
		if (p->taken < p->posted)
			rc = serial_next(p, err);
		else
			pthread_cond_wait(&p->work, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

static void *thread_main(void *arg)
{
	struct pgr_packer *p = arg;
	struct pgr_piece_maker *m = NULL;
	struct pgr_err err;
	int rc;

	if (p->serial) {
		rc = serial_work(p, &err);
	} else {
		rc = pgr_piece_maker_new(&m, &p->opts.spec, &err);
		if (rc == PGR_OK)
			rc = work(p, m, &err);
	}
	pgr_piece_maker_free(m);
	if (rc != PGR_OK)
		pgr_stop_post(p->stop, &err);
	return NULL;
}

/* ---- making and freeing ---- */

static void wake_all(void *arg)
{
	struct pgr_packer *p = arg;

	pthread_mutex_lock(&p->lock);
	pthread_cond_broadcast(&p->work);
	pthread_cond_broadcast(&p->settled);
	pthread_mutex_unlock(&p->lock);
}

static int init_locks(struct pgr_packer *p, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&p->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&p->work, NULL);
	if (rc != 0)
		goto no_work;
	rc = pthread_cond_init(&p->settled, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_cond_destroy(&p->work);
no_work:
	pthread_mutex_destroy(&p->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

/* libzstd's own workers, as many as there are processors; a library without threads works without. */
static int open_serial(struct pgr_packer *p, struct pgr_err *err)
{
	struct pgr_compress_spec spec = p->opts.spec;

	if (spec.method == PGR_COMP_NONE)
		return PGR_OK;
	p->room = malloc(SERIAL_ROOM);
	if (p->room == NULL)
		return pgr_err_nomem(err);
	if (!spec.has_workers && processors() > 1) {
		spec.has_workers = true;
		spec.workers = (int)processors();
		if (pgr_comp_new(&p->comp, &spec, err) == PGR_OK)
			return PGR_OK;
	}
	return pgr_comp_new(&p->comp, &p->opts.spec, err);
}

/* Also the first look at the settings: what the library refuses is refused here. */
static int alloc_outputs(struct pgr_packer *p, struct pgr_err *err)
{
	struct pgr_piece_maker *m;

	if (pgr_piece_maker_new(&m, &p->opts.spec, err) != PGR_OK)
		return PGR_ERR;
	p->out_cap = pgr_piece_bound(m, pgr_pool_block_bytes(p->pool));
	pgr_piece_maker_free(m);
	for (size_t i = 0; i < p->nslots; i++) {
		p->slots[i].out = malloc(p->out_cap);
		if (p->slots[i].out == NULL)
			return pgr_err_nomem(err);
	}
	return PGR_OK;
}

static int start_threads(struct pgr_packer *p, unsigned threads, struct pgr_err *err)
{
	p->threads = calloc(threads, sizeof(*p->threads));
	if (p->threads == NULL)
		return pgr_err_nomem(err);
	while (p->nthreads < threads) {
		int rc = pthread_create(&p->threads[p->nthreads], NULL, thread_main, p);

		if (rc != 0)
			return pgr_err_sys(err, rc, "could not start a thread for compression");
		p->nthreads++;
	}
	return PGR_OK;
}

static int set_up(struct pgr_packer *p, struct pgr_err *err)
{
	int rc = p->serial ? open_serial(p, err) : alloc_outputs(p, err);

	return rc == PGR_OK ? start_threads(p, thread_count(&p->opts), err) : PGR_ERR;
}

int pgr_packer_new(struct pgr_packer **out, struct pgr_pool *pool, struct pgr_stop *stop,
		   const struct pgr_packer_opts *opts, struct pgr_err *err)
{
	struct pgr_packer *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (p == NULL)
		return pgr_err_nomem(err);
	p->opts = *opts;
	p->pool = pool;
	p->stop = stop;
	p->serial = is_serial(opts);
	p->stream.method = opts->spec.method;
	p->nslots = slot_count(opts);
	p->slots = calloc(p->nslots, sizeof(*p->slots));
	if (p->slots == NULL || init_locks(p, err) != PGR_OK) {
		if (p->slots == NULL)
			pgr_err_nomem(err);
		free(p->slots);
		free(p);
		return PGR_ERR;
	}
	p->waker = (struct pgr_waker){.fn = wake_all, .arg = p};
	pgr_stop_watch(stop, &p->waker);
	if (set_up(p, err) != PGR_OK) {
		pgr_packer_free(p);
		return PGR_ERR;
	}
	*out = p;
	return PGR_OK;
}

static void join_threads(struct pgr_packer *p)
{
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	while (p->nthreads > 0)
		pthread_join(p->threads[--p->nthreads], NULL);
}

void pgr_packer_free(struct pgr_packer *p)
{
	if (p == NULL)
		return;
	join_threads(p);
	pgr_stop_unwatch(p->stop, &p->waker);
	for (size_t i = 0; i < p->nslots; i++) {
		pgr_pool_put(p->pool, p->slots[i].block);
		free(p->slots[i].out);
	}
	pthread_cond_destroy(&p->settled);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	pgr_comp_free(p->comp);
	free(p->room);
	free(p->threads);
	free(p->slots);
	free(p);
}

/* ---- what the owner calls ---- */

int pgr_packer_post(struct pgr_packer *p, struct pgr_block **b, struct pgr_err *err)
{
	struct pgr_block *block = *b;
	struct slot *s;
	int rc;

	*b = NULL;
	if (block->len == 0) { /* nothing to compress */
		pgr_pool_put(p->pool, block);
		return pgr_stop_check(p->stop, err);
	}
	pthread_mutex_lock(&p->lock);
	while ((rc = pgr_stop_check(p->stop, err)) == PGR_OK && p->posted - p->put >= p->nslots)
		pthread_cond_wait(&p->settled, &p->lock);
	if (rc == PGR_OK) {
		s = slot_of(p, p->posted++);
		s->block = block;
		s->state = SLOT_FILLED;
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	if (rc != PGR_OK)
		pgr_pool_put(p->pool, block);
	return rc;
}

static int put_end(struct pgr_packer *p, struct pgr_err *err)
{
	uint8_t end[PGR_PIECE_EXTRA_MAX];
	size_t n;

	if (p->serial)
		return serial_step(p, NULL, 0, PGR_COMP_END, err);
	n = pgr_piece_stream_end(&p->stream, end);
	return n > 0 ? p->opts.put(p->opts.arg, end, n, err) : PGR_OK;
}

int pgr_packer_end(struct pgr_packer *p, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&p->lock);
	while ((rc = pgr_stop_check(p->stop, err)) == PGR_OK && p->put < p->posted)
		pthread_cond_wait(&p->settled, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return rc == PGR_OK ? put_end(p, err) : PGR_ERR;
}

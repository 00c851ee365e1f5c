#include "receiver/syncer.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"

/* A segment that was handed over. */
struct segment {
	struct pgr_segfile file; /* the syncer's while it is part of a round, but for the descriptor */
	bool complete;
	pgr_lsn end; /* of a complete one */
};

/* The file that is made before it is needed. */
enum ahead {
	AHEAD_NONE,
	AHEAD_MADE,   /* it has its space */
	AHEAD_FAILED, /* not again before the next segment: then the owner tries, and meets the reason */
};

/*
 * - segs[0..n) in the order of the WAL; all but the last are complete, though not all of them written.
 * - syncing: a round works without the lock on copies of the first segments; only a round takes segments away, so that
 *   what the owner adds meanwhile stands behind them.  One round at a time, of the thread or of the owner.
 * - making: the thread makes a file ahead, without the lock, which is no concern of a round.
 * - requested, synced <= written; synced only changes under lock.
 */
struct pgr_syncer {
	/* constant */
	const struct pgr_waldir *dir;
	bool threaded;
	pthread_t thread;

	/* any thread */
	_Atomic(pgr_lsn) written; /* stored by the owner */
	_Atomic(pgr_lsn) synced;
	atomic_bool has_failed;

	pthread_mutex_t lock;
	pthread_cond_t work; /* there may be something to do */
	pthread_cond_t done; /* something was done */
	/* under lock: */
	bool quit;
	bool syncing;
	bool making;
	struct segment segs[PGR_SYNCER_QUEUE + 1];
	size_t n;
	pgr_lsn requested;
	enum ahead ahead;
	struct pgr_segfile ahead_file; /* with AHEAD_MADE */
	struct pgr_err failed;	       /* with has_failed */
	bool told;		       /* the owner knows of it */
	void (*wake)(void *arg);
	void *wake_arg;
};

/* What one round makes durable. */
struct round {
	struct segment segs[PGR_SYNCER_QUEUE + 1];
	size_t n;
	size_t ncomplete; /* the first ones */
	size_t nnamed;	  /* have a name of their own afterwards: the complete ones, and the one behind them */
	pgr_lsn target;	  /* PGR_LSN_INVALID: nothing more is durable */
};

_Static_assert(PGR_SYNCER_QUEUE + 1 <= PGR_SEGFILE_WAITING, "segments that wait share a name");

/* ---- under lock ---- */

static bool is_open(const struct pgr_syncer *s)
{
	return s->n > 0 && !s->segs[s->n - 1].complete;
}

/* Those that are written as well; whoever writes behind the owner may not be that far. */
static size_t count_complete(const struct pgr_syncer *s)
{
	pgr_lsn written = atomic_load(&s->written);
	size_t n = 0;

	while (n < s->n && s->segs[n].complete && s->segs[n].end <= written)
		n++;
	return n;
}

static bool is_due(const struct pgr_syncer *s)
{
	return !atomic_load(&s->has_failed) &&
	       (count_complete(s) > 0 ||
		(s->n > 0 && (s->requested > atomic_load(&s->synced) || s->segs[0].file.due[0] != '\0')));
}

static bool is_ahead_due(const struct pgr_syncer *s)
{
	return !atomic_load(&s->has_failed) && is_open(s) && s->ahead == AHEAD_NONE;
}

static void tell(struct pgr_syncer *s)
{
	pthread_cond_broadcast(&s->done);
	if (s->wake != NULL)
		s->wake(s->wake_arg);
}

static void latch(struct pgr_syncer *s, const struct pgr_err *err)
{
	if (atomic_load(&s->has_failed))
		return;
	s->failed = *err;
	atomic_store(&s->has_failed, true);
}

static int check(struct pgr_syncer *s, struct pgr_err *err)
{
	if (!atomic_load(&s->has_failed))
		return PGR_OK;
	*err = s->failed;
	if (s->told)
		return pgr_err_prefix(err, "nothing is written to \"%s\" after an earlier error", s->dir->dir);
	s->told = true;
	return PGR_ERR;
}

static void publish(struct pgr_syncer *s, pgr_lsn lsn)
{
	assert(lsn >= atomic_load(&s->synced) && lsn <= atomic_load(&s->written));
	atomic_store(&s->synced, lsn);
}

/* ---- a round: without the lock ---- */

/* In the order of the WAL: a program that is killed in between leaves one .partial segment, or none. */
static int name_round(const struct pgr_waldir *d, struct round *r, struct pgr_err *err)
{
	for (size_t i = 0; i < r->nnamed; i++) {
		struct pgr_segfile *f = &r->segs[i].file;
		int rc = i < r->ncomplete ? pgr_segfile_finish(d, f, err) : pgr_segfile_take_name(d, f, err);

		if (rc != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/*
 * A round takes every finished segment, and the open one if somebody asked: their data first, then the names, then one
 * sync of the directory for all the names.
 */
static int sync_round(const struct pgr_waldir *d, struct round *r, struct pgr_err *err)
{
	bool entries = true;

	for (size_t i = 0; i < r->n; i++)
		if (pgr_segfile_sync(d, &r->segs[i].file, err) != PGR_OK)
			return PGR_ERR;
	if (name_round(d, r, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < r->n; i++)
		entries = entries && r->segs[i].file.entry_durable;
	if (entries)
		return PGR_OK;
	if (pgr_waldir_sync(d, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < r->nnamed; i++)
		r->segs[i].file.entry_durable = true;
	return PGR_OK;
}

static int close_round(const struct pgr_waldir *d, struct round *r, struct pgr_err *err)
{
	for (size_t i = 0; i < r->ncomplete; i++) {
		if (pgr_segfile_close(d, &r->segs[i].file, err) != PGR_OK ||
		    pgr_segfile_mark(d, r->segs[i].file.name, err) != PGR_OK)
			return PGR_ERR;
		if (d->finished != NULL)
			d->finished(d->finished_arg, r->segs[i].file.name);
	}
	return PGR_OK;
}

/* ---- rounds and what is made ahead: the lock is held, and let go in between ---- */

static void take_round(const struct pgr_syncer *s, struct round *r)
{
	r->n = r->ncomplete = count_complete(s);
	r->nnamed = r->n < s->n ? r->n + 1 : r->n;
	r->target = r->n > 0 ? s->segs[r->n - 1].end : PGR_LSN_INVALID;
	memcpy(r->segs, s->segs, s->n * sizeof(r->segs[0]));
	if (r->n == s->n || s->requested <= atomic_load(&s->synced) || s->requested <= r->target)
		return;
	r->n++;
	r->target = atomic_load(&s->written);
}

/* The owner may have completed meanwhile what was open. */
static void put_round(struct pgr_syncer *s, const struct round *r, bool ok)
{
	size_t gone = ok ? r->ncomplete : 0;

	for (size_t i = 0; i < r->nnamed; i++)
		s->segs[i].file = r->segs[i].file;
	s->n -= gone;
	memmove(s->segs, s->segs + gone, s->n * sizeof(s->segs[0]));
}

static void run_round(struct pgr_syncer *s)
{
	struct pgr_err err;
	struct round r;
	int synced, rc;
	bool valid;

	take_round(s, &r);
	s->syncing = true;
	pthread_mutex_unlock(&s->lock);
	synced = rc = sync_round(s->dir, &r, &err);
	if (rc == PGR_OK)
		rc = close_round(s->dir, &r, &err);
	pthread_mutex_lock(&s->lock);
	s->syncing = false;
	put_round(s, &r, rc == PGR_OK);
	valid = synced == PGR_OK && !atomic_load(&s->has_failed);
	if (rc != PGR_OK)
		latch(s, &err);
	if (valid && r.target != PGR_LSN_INVALID)
		publish(s, r.target);
}

/*
 * Neither the file nor its entry in the directory is synced: nothing is lost with it.  The first sync of what is
 * written to it makes its size durable as well, and its renaming has to be synced anyway; one more here would only be
 * one more that a commit may have to wait for.
 */
static void make_ahead(struct pgr_syncer *s)
{
	struct pgr_segfile f;
	struct pgr_err ignored; /* if the reason is still there when the file is needed, the owner will meet it */
	int rc;

	s->making = true;
	pthread_mutex_unlock(&s->lock);
	rc = pgr_segfile_create(s->dir, PGR_SEGFILE_AHEAD, &f, &ignored);
	pthread_mutex_lock(&s->lock);
	s->making = false;
	s->ahead_file = f;
	s->ahead = rc == PGR_OK ? AHEAD_MADE : AHEAD_FAILED;
	pthread_cond_broadcast(&s->done);
}

/* What is due while the owner does a round is that round's: nothing is left when it ends, and nobody has to be told. */
static void *thread_main(void *arg)
{
	struct pgr_syncer *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->quit) {
		if (!s->syncing && is_due(s)) {
			run_round(s);
			tell(s);
		} else if (is_ahead_due(s)) {
			make_ahead(s);
		} else {
			pthread_cond_wait(&s->work, &s->lock);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Something may be due now: the thread's to find out, or done here. */
static void start_work(struct pgr_syncer *s)
{
	if (s->threaded)
		pthread_cond_signal(&s->work);
	else
		while (is_due(s)) {
			run_round(s);
			tell(s);
		}
}

/* ---- making and freeing ---- */

int pgr_syncer_new(struct pgr_syncer **out, const struct pgr_waldir *dir, bool threaded, struct pgr_err *err)
{
	struct pgr_syncer *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (s == NULL)
		return pgr_err_nomem(err);
	s->dir = dir;
	s->ahead_file.fd = -1;
	s->threaded = threaded;
	atomic_init(&s->written, PGR_LSN_INVALID);
	atomic_init(&s->synced, PGR_LSN_INVALID);
	atomic_init(&s->has_failed, false);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	pthread_cond_init(&s->done, NULL);
	rc = threaded ? pthread_create(&s->thread, NULL, thread_main, s) : 0;
	if (rc != 0) {
		s->threaded = false;
		pgr_syncer_free(s);
		return pgr_err_sys(err, rc, "could not create a thread that syncs");
	}
	*out = s;
	return PGR_OK;
}

static void end_thread(struct pgr_syncer *s)
{
	if (!s->threaded)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
}

void pgr_syncer_free(struct pgr_syncer *s)
{
	if (s == NULL)
		return;
	end_thread(s);
	for (size_t i = 0; i < s->n; i++)
		pgr_segfile_drop(s->dir, &s->segs[i].file);
	pgr_syncer_drop_ahead(s);
	pthread_cond_destroy(&s->work);
	pthread_cond_destroy(&s->done);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void pgr_syncer_set_wake(struct pgr_syncer *s, void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&s->lock);
	s->wake = fn;
	s->wake_arg = arg;
	pthread_mutex_unlock(&s->lock);
}

/* ---- where it stands ---- */

pgr_lsn pgr_syncer_written(const struct pgr_syncer *s)
{
	return atomic_load(&s->written);
}

pgr_lsn pgr_syncer_synced(const struct pgr_syncer *s)
{
	return atomic_load(&s->synced);
}

bool pgr_syncer_is_failed(const struct pgr_syncer *s)
{
	return atomic_load(&s->has_failed);
}

/* ---- the owner ---- */

int pgr_syncer_check(struct pgr_syncer *s, struct pgr_err *err)
{
	int rc;

	if (!atomic_load(&s->has_failed))
		return PGR_OK;
	pthread_mutex_lock(&s->lock);
	rc = check(s, err);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int pgr_syncer_fail(struct pgr_syncer *s, const struct pgr_err *err)
{
	pthread_mutex_lock(&s->lock);
	latch(s, err);
	s->told = true;
	pthread_mutex_unlock(&s->lock);
	return PGR_ERR;
}

void pgr_syncer_reset(struct pgr_syncer *s, pgr_lsn lsn)
{
	pthread_mutex_lock(&s->lock);
	assert(s->n == 0 && !s->syncing);
	atomic_store(&s->written, lsn);
	atomic_store(&s->synced, lsn);
	s->requested = lsn;
	pthread_mutex_unlock(&s->lock);
}

bool pgr_syncer_has_segments(struct pgr_syncer *s)
{
	bool any;

	pthread_mutex_lock(&s->lock);
	any = s->n > 0;
	pthread_mutex_unlock(&s->lock);
	return any;
}

bool pgr_syncer_has_room(struct pgr_syncer *s)
{
	bool room;

	pthread_mutex_lock(&s->lock);
	room = s->n < PGR_SYNCER_QUEUE;
	pthread_mutex_unlock(&s->lock);
	return room;
}

/* While it is being made it counts as not there: making another one is quicker than to wait. */
int pgr_syncer_take_ahead(struct pgr_syncer *s, struct pgr_segfile *f)
{
	int rc = PGR_MORE;

	pthread_mutex_lock(&s->lock);
	if (s->ahead == AHEAD_MADE) {
		*f = s->ahead_file;
		s->ahead = AHEAD_NONE;
		s->ahead_file.fd = -1;
		rc = PGR_OK;
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void pgr_syncer_drop_ahead(struct pgr_syncer *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->making)
		pthread_cond_wait(&s->done, &s->lock);
	if (s->ahead == AHEAD_MADE)
		pgr_segfile_remove(s->dir, &s->ahead_file);
	s->ahead = AHEAD_NONE;
	pthread_mutex_unlock(&s->lock);
}

void pgr_syncer_open(struct pgr_syncer *s, const struct pgr_segfile *f)
{
	pthread_mutex_lock(&s->lock);
	assert(!is_open(s) && s->n < PGR_SYNCER_QUEUE + 1);
	s->segs[s->n++] = (struct segment){.file = *f};
	if (s->ahead == AHEAD_FAILED)
		s->ahead = AHEAD_NONE;
	if (s->threaded)
		pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

/* Without syncs, what is written is as good as it gets. */
void pgr_syncer_wrote(struct pgr_syncer *s, pgr_lsn lsn)
{
	assert(lsn >= atomic_load(&s->written));
	atomic_store(&s->written, lsn);
	if (s->dir->sync)
		return;
	pthread_mutex_lock(&s->lock);
	publish(s, lsn);
	pthread_mutex_unlock(&s->lock);
}

static void complete(struct pgr_syncer *s, pgr_lsn end)
{
	assert(is_open(s) && end >= atomic_load(&s->written));
	s->segs[s->n - 1].complete = true;
	s->segs[s->n - 1].end = end;
}

/* A failure of this very work is the caller's to return. */
int pgr_syncer_finish(struct pgr_syncer *s, pgr_lsn lsn, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	complete(s, lsn);
	atomic_store(&s->written, lsn);
	start_work(s);
	rc = check(s, err);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* ---- written by another thread ---- */

void pgr_syncer_finish_behind(struct pgr_syncer *s, pgr_lsn lsn)
{
	pthread_mutex_lock(&s->lock);
	complete(s, lsn);
	start_work(s); /* the last block may have been quicker */
	pthread_mutex_unlock(&s->lock);
}

void pgr_syncer_wrote_behind(struct pgr_syncer *s, pgr_lsn lsn, const struct pgr_err *failed)
{
	pthread_mutex_lock(&s->lock);
	if (failed != NULL)
		latch(s, failed);
	else
		atomic_store(&s->written, lsn);
	if (is_due(s))
		pthread_cond_signal(&s->work);
	tell(s);
	pthread_mutex_unlock(&s->lock);
}

static int request_locked(struct pgr_syncer *s, bool here, struct pgr_err *err)
{
	int rc = check(s, err);

	if (rc != PGR_OK)
		return rc;
	s->requested = atomic_load(&s->written);
	if (!here || s->syncing || count_complete(s) > 0)
		start_work(s);
	else if (is_due(s))
		run_round(s);
	return check(s, err);
}

int pgr_syncer_request(struct pgr_syncer *s, bool here, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = request_locked(s, here, err);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int pgr_syncer_wait(struct pgr_syncer *s, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = request_locked(s, false, err);
	while (rc == PGR_OK && is_due(s)) {
		pthread_cond_wait(&s->done, &s->lock);
		rc = check(s, err);
	}
	assert(rc != PGR_OK || atomic_load(&s->synced) == atomic_load(&s->written));
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void pgr_syncer_detach(struct pgr_syncer *s, struct pgr_segfile *f)
{
	f->fd = -1;
	pthread_mutex_lock(&s->lock);
	while (s->syncing)
		pthread_cond_wait(&s->done, &s->lock);
	if (is_open(s))
		*f = s->segs[--s->n].file;
	for (size_t i = 0; i < s->n; i++) /* they were not taken on any more */
		pgr_segfile_drop(s->dir, &s->segs[i].file);
	s->n = 0;
	pthread_mutex_unlock(&s->lock);
}

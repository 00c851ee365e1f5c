#include "backup/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/filesum.h"
#include "backup/layout.h"
#include "common/fs_dir.h"
#include "common/pagesum.h"
#include "common/stop.h"
#include "common/sys.h"

#define READ_BYTES ((size_t)512 * 1024) /* a multiple of every page size */
#define QUEUE_MAX  64

struct task {
	struct task *next;
	struct pgr_incremental inc;
	bool relation;
	uint32_t segment;
	struct pgr_kept_result *result;
	char path[];
};

/*
 * - `queued` counts what is in the list, `busy` those under way.
 * - A failure is posted to the latch with no lock held, and is the latch's then: threads end when it is set.
 */
struct pgr_kept {
	/* constant */
	struct pgr_kept_opts opts;
	struct pgr_waker waker;
	pthread_t *threads;
	unsigned nthreads;
	uint8_t *buf; /* inline */

	_Atomic uint64_t bytes;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* anything below */
	struct task *head, **tail;
	unsigned queued, busy;
	bool closing;
	size_t bad_files, foreign_files;
	char first_bad[256], first_foreign[256];
};

static void task_free(struct task *t)
{
	pgr_incremental_fini(&t->inc);
	free(t);
}

/* ---- one file ---- */

/* A file being read. */
struct reading {
	struct pgr_kept *k;
	const struct task *t;
	struct pgr_filesum *sum;
	uint32_t next;	       /* place in the list of blocks that came */
	uint64_t bad, foreign; /* pages */
};

/* Also a server without page checksums relies on the position in every page that it writes. */
static bool page_is_foreign(const struct pgr_kept *k, const uint8_t *page)
{
	pgr_lsn lsn = pgr_page_lsn(page);

	return !pgr_page_is_new(page) && lsn > k->opts.changed_from && lsn <= k->opts.changed_to;
}

static bool page_is_bad(const struct pgr_kept *k, const struct task *t, const uint8_t *page, uint32_t block)
{
	uint64_t number = (uint64_t)t->segment * k->opts.segment_blocks + block;

	return k->opts.pages && !pgr_page_is_new(page) &&
	       pgr_page_checksum(page, k->opts.page_bytes, (uint32_t)number) != pgr_page_stored_checksum(page);
}

static void check_pages(struct reading *r, uint64_t off, const uint8_t *data, size_t len)
{
	const struct pgr_incremental *inc = &r->t->inc;
	uint32_t page = r->k->opts.page_bytes;

	for (size_t at = 0; at + page <= len; at += page) {
		uint32_t block = (uint32_t)((off + at) / page);

		while (r->next < inc->nblocks && inc->blocks[r->next] < block)
			r->next++;
		if (r->next < inc->nblocks && inc->blocks[r->next] == block)
			continue;
		if (page_is_bad(r->k, r->t, data + at, block))
			r->bad++;
		else
			r->foreign += page_is_foreign(r->k, data + at);
	}
}

static int read_some(const struct pgr_kept *k, int fd, const char *path, uint8_t *buf, uint64_t off, size_t *n,
		     struct pgr_err *err)
{
	const struct pgr_sys *sys = k->opts.sys;

	*n = 0;
	while (*n < READ_BYTES) {
		ssize_t got = sys->pread(sys, fd, buf + *n, READ_BYTES - *n, (off_t)(off + *n));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return pgr_err_sys(err, errno, "could not read file \"%s\"", path);
		if (got == 0)
			break;
		*n += (size_t)got;
	}
	return PGR_OK;
}

static int read_all(struct reading *r, int fd, uint8_t *buf, struct pgr_err *err)
{
	struct pgr_kept *k = r->k;
	uint64_t off = 0;
	size_t n;

	do {
		if (pgr_stop_check(k->opts.stop, err) != PGR_OK ||
		    read_some(k, fd, r->t->path, buf, off, &n, err) != PGR_OK)
			return PGR_ERR;
		pgr_filesum_block(r->sum, off, buf, n);
		if (r->t->relation)
			check_pages(r, off, buf, n);
		off += n;
		atomic_fetch_add(&k->bytes, n);
	} while (n == READ_BYTES);
	r->t->result->size = off;
	return pgr_filesum_end(r->sum, off, r->t->result->sum, &r->t->result->sum_len, err);
}

static int sync_file(const struct pgr_kept *k, int fd, const char *path, struct pgr_err *err)
{
	int rc;

	if (!k->opts.sync)
		return PGR_OK;
	do
		rc = k->opts.sys->fsync(k->opts.sys, fd);
	while (rc != 0 && errno == EINTR);
	return rc == 0 ? PGR_OK : pgr_err_sys(err, errno, "could not fsync file \"%s\"", path);
}

static int read_file(struct reading *r, int fd, uint8_t *buf, struct pgr_err *err)
{
	int rc;

	if (pgr_filesum_new(&r->sum, r->k->opts.digest, err) != PGR_OK)
		return PGR_ERR;
	rc = read_all(r, fd, buf, err);
	pgr_filesum_free(r->sum);
	return rc == PGR_OK ? sync_file(r->k, fd, r->t->path, err) : rc;
}

static void PGR_PRINTF(2, 3) tell(const struct pgr_kept_opts *o, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (o->bad == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	o->bad(o->arg, line);
}

/* Counts a file, and remembers the first one. */
static void count(struct reading *r, size_t *n, char first[256])
{
	pthread_mutex_lock(&r->k->lock);
	if ((*n)++ == 0)
		snprintf(first, 256, "%s", r->t->path);
	pthread_mutex_unlock(&r->k->lock);
}

/* The name is gone, or the next run would build upon it again. */
static int give_up(struct reading *r, int dirfd, const char *leaf, struct pgr_err *err)
{
	const struct pgr_kept_opts *o = &r->k->opts;

	if (o->sys->unlinkat(o->sys, dirfd, leaf, 0) != 0)
		return pgr_err_sys(err, errno, "could not remove file \"%s\"", r->t->path);
	tell(o, "file \"%s\": %llu pages that were kept have a wrong checksum, it is removed", r->t->path,
	     (unsigned long long)r->bad);
	count(r, &r->k->bad_files, r->k->first_bad);
	return PGR_OK;
}

/* It stays: it tells the next run the same, should that not have heard of it. */
static void note_foreign(struct reading *r)
{
	tell(&r->k->opts,
	     "file \"%s\": %llu pages that were kept were changed after %" PGR_LSN_FMT
	     ", and the server knows nothing of it",
	     r->t->path, (unsigned long long)r->foreign, PGR_LSN_ARG(r->k->opts.changed_from));
	count(r, &r->k->foreign_files, r->k->first_foreign);
}

static int carry_out_in(struct reading *r, int dirfd, const char *leaf, uint8_t *buf, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->k->opts.sys;
	/* what the user keeps may be a link that somebody made */
	int fd = sys->openat(sys, dirfd, leaf, O_RDONLY | O_CLOEXEC | (r->t->relation ? O_NOFOLLOW : 0), 0);
	int rc;

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s\"", r->t->path);
	rc = read_file(r, fd, buf, err);
	if (sys->close(sys, fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close file \"%s\"", r->t->path);
	if (rc == PGR_OK && r->foreign > 0)
		note_foreign(r);
	return rc == PGR_OK && r->bad > 0 ? give_up(r, dirfd, leaf, err) : rc;
}

static int carry_out(struct pgr_kept *k, const struct task *t, uint8_t *buf, struct pgr_err *err)
{
	struct reading r = {.k = k, .t = t};
	const struct pgr_sys *sys = k->opts.sys;
	const char *rest, *leaf;
	int root, dirfd, rc;

	pgr_layout_resolve(k->opts.layout, t->path, &root, &rest);
	if (pgr_fs_open_parent(sys, root, rest, &dirfd, &leaf, err) != PGR_OK)
		return PGR_ERR;
	rc = carry_out_in(&r, dirfd, leaf, buf, err);
	if (sys->close(sys, dirfd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close the directory of \"%s\"", t->path);
	return rc;
}

/* ---- threads ---- */

static struct task *next_task(struct pgr_kept *k)
{
	struct task *t = NULL;

	pthread_mutex_lock(&k->lock);
	while (!k->closing && k->head == NULL && !pgr_stop_is_set(k->opts.stop))
		pthread_cond_wait(&k->changed, &k->lock);
	if (!k->closing && !pgr_stop_is_set(k->opts.stop)) {
		t = k->head;
		k->head = t->next;
		if (k->head == NULL)
			k->tail = &k->head;
		k->queued--;
		k->busy++;
		pthread_cond_broadcast(&k->changed);
	}
	pthread_mutex_unlock(&k->lock);
	return t;
}

static void *thread_main(void *arg)
{
	struct pgr_kept *k = arg;
	uint8_t *buf = malloc(READ_BYTES);
	struct pgr_err err;
	struct task *t;

	if (buf == NULL) {
		pgr_err_nomem(&err);
		pgr_stop_post(k->opts.stop, &err);
		return NULL;
	}
	while ((t = next_task(k)) != NULL) {
		if (carry_out(k, t, buf, &err) != PGR_OK)
			pgr_stop_post(k->opts.stop, &err);
		task_free(t);
		pthread_mutex_lock(&k->lock);
		k->busy--;
		pthread_cond_broadcast(&k->changed);
		pthread_mutex_unlock(&k->lock);
	}
	free(buf);
	return NULL;
}

static void wake(void *arg)
{
	struct pgr_kept *k = arg;

	pthread_mutex_lock(&k->lock);
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
}

static int start_threads(struct pgr_kept *k, struct pgr_err *err)
{
	k->threads = calloc(k->opts.threads + 1, sizeof(*k->threads));
	if (k->threads == NULL)
		return pgr_err_nomem(err);
	while (k->nthreads < k->opts.threads) {
		int rc = pthread_create(&k->threads[k->nthreads], NULL, thread_main, k);

		if (rc != 0)
			return pgr_err_sys(err, rc, "could not start a thread");
		k->nthreads++;
	}
	return PGR_OK;
}

static int init_locks(struct pgr_kept *k, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&k->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&k->changed, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_mutex_destroy(&k->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

int pgr_kept_new(struct pgr_kept **out, const struct pgr_kept_opts *opts, struct pgr_err *err)
{
	struct pgr_kept *k = calloc(1, sizeof(*k));

	*out = NULL;
	if (k == NULL)
		return pgr_err_nomem(err);
	k->opts = *opts;
	k->tail = &k->head;
	if (init_locks(k, err) != PGR_OK) {
		free(k);
		return PGR_ERR;
	}
	k->waker = (struct pgr_waker){.fn = wake, .arg = k};
	pgr_stop_watch(opts->stop, &k->waker);
	if (opts->threads == 0 && (k->buf = malloc(READ_BYTES)) == NULL) {
		pgr_kept_free(k);
		return pgr_err_nomem(err);
	}
	if (start_threads(k, err) != PGR_OK) {
		pgr_kept_free(k);
		return PGR_ERR;
	}
	*out = k;
	return PGR_OK;
}

void pgr_kept_free(struct pgr_kept *k)
{
	if (k == NULL)
		return;
	pthread_mutex_lock(&k->lock);
	k->closing = true;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
	while (k->nthreads > 0)
		pthread_join(k->threads[--k->nthreads], NULL);
	pgr_stop_unwatch(k->opts.stop, &k->waker);
	for (struct task *t; (t = k->head) != NULL; task_free(t))
		k->head = t->next;
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->lock);
	free(k->threads);
	free(k->buf);
	free(k);
}

/* ---- what the run calls ---- */

static struct task *task_new(const char *path, uint32_t segment, struct pgr_incremental *inc,
			     struct pgr_kept_result *result)
{
	size_t n = strlen(path) + 1;
	struct task *t = calloc(1, sizeof(*t) + n);

	if (t == NULL)
		return NULL;
	memcpy(t->path, path, n);
	t->segment = segment;
	t->result = result;
	t->relation = inc != NULL;
	if (inc != NULL) {
		t->inc = *inc;
		*inc = (struct pgr_incremental){0};
	}
	return t;
}

static int enqueue(struct pgr_kept *k, struct task *t, struct pgr_err *err)
{
	int rc;

	pthread_mutex_lock(&k->lock);
	while ((rc = pgr_stop_check(k->opts.stop, err)) == PGR_OK && k->queued >= QUEUE_MAX)
		pthread_cond_wait(&k->changed, &k->lock);
	if (rc == PGR_OK) {
		*k->tail = t;
		k->tail = &t->next;
		k->queued++;
		pthread_cond_broadcast(&k->changed);
	}
	pthread_mutex_unlock(&k->lock);
	return rc;
}

int pgr_kept_add(struct pgr_kept *k, const char *path, uint32_t segment, struct pgr_incremental *inc,
		 struct pgr_kept_result *result, struct pgr_err *err)
{
	struct task *t = task_new(path, segment, inc, result);
	int rc;

	if (t == NULL)
		return pgr_err_nomem(err);
	if (k->opts.threads > 0) {
		rc = enqueue(k, t, err);
		if (rc != PGR_OK)
			task_free(t);
		return rc;
	}
	rc = carry_out(k, t, k->buf, err);
	task_free(t);
	return rc;
}

static int foreign(const struct pgr_kept *k, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_DATA,
		    "the old copy was changed in ways that the server knows nothing of: %zu files, the first is \"%s\"",
		    k->foreign_files, k->first_foreign);
	return pgr_err_hint(err, "WAL summaries are of no use for it.  Run --delta or --delta=hash.");
}

int pgr_kept_finish(struct pgr_kept *k, struct pgr_err *err)
{
	size_t bad;
	int rc;

	pthread_mutex_lock(&k->lock);
	while ((rc = pgr_stop_check(k->opts.stop, err)) == PGR_OK && k->queued + k->busy > 0)
		pthread_cond_wait(&k->changed, &k->lock);
	bad = k->bad_files;
	pthread_mutex_unlock(&k->lock);
	if (rc == PGR_OK && pgr_kept_is_foreign(k))
		return foreign(k, err);
	if (rc != PGR_OK || bad == 0)
		return rc;
	pgr_err_set(err, PGR_E_DATA, "pages of the old copy have wrong checksums: %zu files, the first is \"%s\"", bad,
		    k->first_bad);
	return pgr_err_hint(err, "These files were removed.  Run the same command again, it fetches them.");
}

bool pgr_kept_is_foreign(struct pgr_kept *k)
{
	bool yes;

	pthread_mutex_lock(&k->lock);
	yes = k->foreign_files > 0;
	pthread_mutex_unlock(&k->lock);
	return yes;
}

uint64_t pgr_kept_bytes(const struct pgr_kept *k)
{
	return atomic_load(&k->bytes);
}
